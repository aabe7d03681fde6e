//! Messages and time, in any order: the transaction layer and dialogs neither panic nor keep anything for ever.
//! Seeds: torture/rfc4475, torture/rfc5118
#![cfg_attr(fuzzing, no_main)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::dialog::{Dialog, DialogState};
use sip::reliable::RAck;
use sip::session_timer::{Policy, SessionTimer};
use sip::transaction::{Event, ServerKey, TableLimits, Timers, TransactionLayer};
use sip::{FlowId, HeaderName, Hop, Limits, Message, Method, StatusCode, Transport};

const LIMITS: TableLimits = TableLimits {
    servers: 8,
    clients: 8,
};

/// Between two messages; the byte after it says how long to wait and what to answer.
const SEPARATOR: u8 = 0xff;

struct World {
    layer: TransactionLayer,
    now: Instant,
    unanswered: Vec<(ServerKey, Message)>,
    dialog: Option<Dialog>,
}

impl World {
    fn hop(choice: u8) -> Hop {
        let transport = if choice & 1 == 0 {
            Transport::Udp
        } else {
            Transport::Tcp
        };
        Hop {
            transport,
            remote: ([192, 0, 2, choice & 2], 5060).into(),
            local: None,
            flow: Some(FlowId(1)),
        }
    }

    fn receive(&mut self, bytes: &[u8], choice: u8) {
        let Ok(message) = Message::parse(Bytes::copy_from_slice(bytes), &Limits::default()) else {
            return;
        };
        let _ = message.header(HeaderName::RAck).and_then(RAck::parse);
        let mut timer = SessionTimer::new(Policy::default());
        if let Ok(agreement) = timer.agree(&message) {
            timer.on_agreed(Duration::ZERO, &agreement);
        }
        timer.on_success(Duration::ZERO, &message);
        assert!(timer.poll_timeout().is_some());
        self.use_in_dialog(&message);
        self.layer
            .handle_message(self.now, message, Self::hop(choice));
    }

    fn use_in_dialog(&mut self, message: &Message) {
        if let Some(dialog) = &mut self.dialog {
            let _ = dialog.accept(message);
            dialog.accept_response(message);
            for made in [dialog.request(Method::Update), dialog.ack(1)] {
                Message::parse(made.to_bytes(), &Limits::default()).expect("ours parses");
            }
        } else {
            self.dialog = Dialog::uas(message, "t", "<sip:f@x>", DialogState::Early).ok();
        }
    }

    fn settle(&mut self) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                Event::Request { key, message, .. } => {
                    let _ = self.layer.is_merged(key);
                    self.unanswered.push((key, message));
                }
                Event::Overloaded { message, hop } => {
                    let response =
                        Message::response(&message, StatusCode::of(503), None, Some("t"));
                    self.layer.respond_stateless(&response, hop);
                }
                _ => {}
            }
        }
        while let Some(transmit) = self.layer.poll_transmit() {
            Message::parse(transmit.bytes, &Limits::default()).expect("what goes out parses");
        }
        let (clients, servers) = self.layer.len();
        assert!(servers <= LIMITS.servers && clients <= 2 * LIMITS.clients);
    }

    fn act(&mut self, choice: u8) {
        let status = [100, 180, 200, 302, 404, 408, 487, 603][usize::from(choice >> 5)];
        if let Some((key, request)) = self.unanswered.last() {
            let response = Message::response(request, StatusCode::of(status), None, Some("t"));
            self.layer.respond(self.now, *key, response);
            if status >= 200 {
                self.unanswered.pop();
            }
        }
        if choice & 4 != 0
            && let Some((_, request)) = self.unanswered.first()
        {
            let key =
                self.layer
                    .send_request(self.now, request.clone(), Self::hop(choice), "us", None);
            self.layer.cancel(self.now, key, Some("SIP;cause=200"));
        }
        self.now += Duration::from_millis(1 << (choice & 0xf));
        self.layer.handle_timeout(self.now);
    }
}

rostrum_fuzz::target!(|data| {
    let mut world = World {
        layer: TransactionLayer::with_limits(Timers::default(), LIMITS, [1; 32]),
        now: Instant::now(),
        unanswered: Vec::new(),
        dialog: None,
    };
    for piece in data.split(|byte| *byte == SEPARATOR) {
        let choice = piece.first().copied().unwrap_or(0);
        // Seeds are messages without the byte in front; both readings are tried.
        world.receive(piece, choice);
        world.receive(piece.get(1..).unwrap_or(&[]), choice);
        world.settle();
        world.act(choice);
        world.settle();
    }
    // Once everything is answered, time alone empties the tables.
    for (key, request) in std::mem::take(&mut world.unanswered) {
        let response = Message::response(&request, StatusCode::of(500), None, Some("t"));
        world.layer.respond(world.now, key, response);
    }
    for _ in 0..1_000 {
        world.settle();
        let Some(next) = world.layer.poll_timeout() else {
            break;
        };
        world.now = world.now.max(next);
        world.layer.handle_timeout(world.now);
    }
    let (_, servers) = world.layer.len();
    assert_eq!(servers, 0, "a server transaction is left");
    assert_eq!(world.layer.poll_timeout(), None, "a timer is left");
});
