//! Two user agents over a network that loses, delays, reorders and repeats, on a virtual clock: whatever happens to
//! INVITE, 200, ACK and BYE, both ends come to the same end, and nothing is left behind.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sip::accepted::{Accepted, Due};
use sip::dialog::{Dialog, DialogId, DialogState};
use sip::transaction::{Event, ServerKey, Timers, TransactionLayer};
use sip::{HeaderName, Hop, Message, Method, StatusCode, Transport};
use support::{ms, parse_bytes};

/// How long the callee rings, and how long the caller talks.
const RING: Duration = ms_const(1_000);
const TALK: Duration = ms_const(3_000);

const fn ms_const(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What an end is to do of itself, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Answer(ServerKey),
    HangUp,
}

struct Agent {
    layer: TransactionLayer,
    address: &'static str,
    peer: &'static str,
    dialog: Option<Dialog>,
    invite: Option<Message>,
    accepted: Option<(ServerKey, Accepted)>,
    planned: Option<(Instant, Plan)>,
    refuses: bool,
    /// How its INVITE, or the one it was sent, ended: a status, or 408 for none.
    outcome: Option<u16>,
}

impl Agent {
    fn new(address: &'static str, peer: &'static str, seed: u8, refuses: bool) -> Self {
        Self {
            layer: TransactionLayer::new(Timers::default(), [seed; 32]),
            address,
            peer,
            dialog: None,
            invite: None,
            accepted: None,
            planned: None,
            refuses,
            outcome: None,
        }
    }

    fn hop(&self, reliable: bool) -> Hop {
        let transport = if reliable {
            Transport::Tcp
        } else {
            Transport::Udp
        };
        Hop::to(transport, self.peer.parse().expect("a constant"))
    }

    fn call(&mut self, now: Instant, reliable: bool) {
        let mut invite = Message::request(Method::Invite, "sip:callee@192.0.2.2");
        for (name, value) in [
            (HeaderName::MaxForwards, "70"),
            (HeaderName::From, "<sip:caller@192.0.2.1>;tag=caller"),
            (HeaderName::To, "<sip:callee@192.0.2.2>"),
            (HeaderName::CallId, "call"),
            (HeaderName::CSeq, "1 INVITE"),
            (HeaderName::Contact, "<sip:caller@192.0.2.1>"),
        ] {
            invite.push_back(name, value);
        }
        self.invite = Some(invite.clone());
        self.layer
            .send_request(now, invite, self.hop(reliable), self.address, None);
    }

    fn hang_up(&mut self, now: Instant, reliable: bool) {
        let hop = self.hop(reliable);
        if let Some(dialog) = &mut self.dialog
            && dialog.state != DialogState::Terminated
        {
            let bye = dialog.request(Method::Bye);
            dialog.state = DialogState::Terminated;
            self.layer.send_request(now, bye, hop, self.address, None);
        }
    }

    fn handle(&mut self, now: Instant, event: Event, reliable: bool) {
        match event {
            Event::Request { key, message, .. } => self.requested(now, key, &message),
            Event::Ack { message, .. } => {
                if let Some((_, accepted)) = &mut self.accepted {
                    accepted.on_ack(&message);
                }
            }
            Event::Response { message, .. } => self.responded(now, &message, reliable),
            Event::Timeout { .. } if self.outcome.is_none() => self.outcome = Some(408),
            Event::Timeout { .. }
            | Event::StrayResponse { .. }
            | Event::Acknowledged { .. }
            | Event::NotAcknowledged { .. } => {}
            other => panic!("not expected here: {other:?}"),
        }
    }

    fn requested(&mut self, now: Instant, key: ServerKey, message: &Message) {
        match message.method() {
            Method::Invite if self.invite.is_none() => {
                self.invite = Some(message.clone());
                self.planned = Some((now + RING, Plan::Answer(key)));
            }
            // The first transaction has ended without this copy having been seen: a late one (§8.2.2.2).
            Method::Invite => self.refuse(now, key, message, 482),
            Method::Bye => {
                let known = self
                    .dialog
                    .as_mut()
                    .filter(|d| DialogId::of_request(message).as_ref() == Some(&d.id))
                    .map(|d| d.accept(message));
                match known {
                    Some(Ok(())) => self.refuse(now, key, message, 200),
                    // Both hang up at once: each has ended the dialog already.
                    Some(Err(_)) | None => self.refuse(now, key, message, 481),
                }
                self.accepted = None;
            }
            other => panic!("nobody sends {other}"),
        }
    }

    fn refuse(&mut self, now: Instant, key: ServerKey, request: &Message, status: u16) {
        let response = Message::response(request, StatusCode::of(status), None, Some("callee"));
        self.layer.respond(now, key, response);
    }

    fn responded(&mut self, now: Instant, response: &Message, reliable: bool) {
        let status = response.status().expect("a response has a status");
        if *response.method() != Method::Invite || status.is_provisional() {
            return;
        }
        self.outcome.get_or_insert(status.get());
        if !status.is_success() {
            return;
        }
        let hop = self.hop(reliable);
        let dialog = self.dialog.get_or_insert_with(|| {
            let invite = self.invite.as_ref().expect("it was sent");
            Dialog::uac(invite, response).expect("the callee's headers are whole")
        });
        // Every copy of the 2xx is acknowledged (§13.2.2.4).
        let ack = dialog.ack(1);
        let talking = dialog.state != DialogState::Terminated;
        self.layer.send_stateless(ack, hop, self.address, None);
        if talking && self.planned.is_none() {
            self.planned = Some((now + TALK, Plan::HangUp));
        }
    }

    fn answer(&mut self, now: Instant, key: ServerKey) {
        let invite = self.invite.clone().expect("it rang");
        if self.refuses {
            self.outcome = Some(486);
            self.refuse(now, key, &invite, 486);
            return;
        }
        let dialog = Dialog::uas(
            &invite,
            "callee",
            "<sip:callee@192.0.2.2>",
            DialogState::Confirmed,
        )
        .expect("the caller's headers are whole");
        let ok = dialog.response(&invite, StatusCode::of(200), None);
        self.layer.respond(now, key, ok.clone());
        self.accepted = Some((key, Accepted::new(now, ok, &Timers::default())));
        self.dialog = Some(dialog);
        self.outcome = Some(200);
    }

    fn next(&self) -> Option<Instant> {
        [
            self.layer.poll_timeout(),
            self.accepted.as_ref().and_then(|a| a.1.poll_timeout()),
            self.planned.map(|p| p.0),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn wake(&mut self, now: Instant, reliable: bool) {
        self.layer.handle_timeout(now);
        if let Some((key, accepted)) = &mut self.accepted {
            match accepted.handle_timeout(now) {
                Some(Due::Resend(response)) => self.layer.respond(now, *key, response),
                Some(Due::GiveUp) => self.hang_up(now, reliable),
                None => {}
            }
        }
        match self.planned {
            Some((at, plan)) if at <= now => {
                self.planned = None;
                match plan {
                    Plan::Answer(key) => self.answer(now, key),
                    Plan::HangUp => self.hang_up(now, reliable),
                }
            }
            _ => {}
        }
    }
}

struct World {
    now: Instant,
    rng: ChaCha8Rng,
    loss: f64,
    reliable: bool,
    ends: [Agent; 2],
    /// By arrival and a running number: (receiver, bytes).
    flying: BTreeMap<(Instant, u64), (usize, Bytes)>,
    sent: u64,
}

impl World {
    fn new(seed: u64, loss: f64, reliable: bool, refuses: bool) -> Self {
        Self {
            now: Instant::now(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            loss,
            reliable,
            ends: [
                Agent::new("192.0.2.1:5060", "192.0.2.2:5060", 1, false),
                Agent::new("192.0.2.2:5060", "192.0.2.1:5060", 2, refuses),
            ],
            flying: BTreeMap::new(),
            sent: 0,
        }
    }

    fn fly(&mut self, to: usize, bytes: &Bytes) {
        let copies = if self.reliable {
            1
        } else if self.rng.random_bool(self.loss) {
            0
        } else if self.rng.random_bool(0.05) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            // A stream keeps the order, datagrams overtake each other.
            let delay = if self.reliable {
                20
            } else {
                self.rng.random_range(5..300)
            };
            self.sent += 1;
            self.flying
                .insert((self.now + ms(delay), self.sent), (to, bytes.clone()));
        }
    }

    /// Everything that both ends have to say now.
    fn settle(&mut self) {
        for n in 0..2 {
            loop {
                if let Some(event) = self.ends[n].layer.poll_event() {
                    self.ends[n].handle(self.now, event, self.reliable);
                } else if let Some(transmit) = self.ends[n].layer.poll_transmit() {
                    self.fly(1 - n, &transmit.bytes);
                } else {
                    break;
                }
            }
        }
    }

    /// Runs until nothing is left to happen; panics when that takes a virtual hour.
    fn run(&mut self) {
        let end = self.now + Duration::from_secs(3_600);
        self.ends[0].call(self.now, self.reliable);
        loop {
            self.settle();
            let arrival = self.flying.keys().next().map(|k| k.0);
            let Some(next) = self
                .ends
                .iter()
                .filter_map(Agent::next)
                .chain(arrival)
                .min()
            else {
                return;
            };
            assert!(next < end, "it never ends");
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, bytes) = entry.remove();
                let from = self.ends[to].hop(self.reliable);
                self.ends[to]
                    .layer
                    .handle_message(self.now, parse_bytes(bytes), from);
            }
            for agent in &mut self.ends {
                agent.wake(self.now, self.reliable);
            }
        }
    }

    fn dialogs(&self) -> [Option<DialogState>; 2] {
        [0, 1].map(|n| self.ends[n].dialog.as_ref().map(|d| d.state))
    }
}

#[test]
fn a_call_over_a_lossy_network_always_ends_at_both_ends() {
    let mut outcomes = BTreeMap::new();
    for loss in [0.0, 0.1, 0.3, 0.5] {
        for seed in 0..100 {
            let mut world = World::new(seed, loss, false, false);
            world.run();
            let context = format!("loss {loss} seed {seed}");
            for agent in &world.ends {
                assert!(agent.layer.is_empty(), "{context}: transactions are left");
            }
            let [caller, callee] = world.dialogs();
            match world.ends[0].outcome {
                Some(200) => {
                    assert_eq!(caller, Some(DialogState::Terminated), "{context}");
                    assert_eq!(callee, Some(DialogState::Terminated), "{context}");
                }
                // Nothing came through to the caller: the callee, if it rang, has given up too.
                Some(408) => {
                    assert_eq!(caller, None, "{context}");
                    assert!(
                        matches!(callee, None | Some(DialogState::Terminated)),
                        "{context}"
                    );
                }
                other => panic!("{context}: {other:?}"),
            }
            *outcomes
                .entry((world.ends[0].outcome, loss > 0.2))
                .or_insert(0) += 1;
        }
    }
    assert_eq!(
        outcomes.get(&(Some(200), false)),
        Some(&200),
        "{outcomes:?}"
    );
    assert!(
        outcomes.get(&(Some(200), true)) > Some(&150),
        "{outcomes:?}"
    );
}

#[test]
fn a_refused_call_over_a_lossy_network_is_refused_at_both_ends() {
    for seed in 0..100 {
        let mut world = World::new(seed, 0.3, false, true);
        world.run();
        assert_eq!(world.ends[0].outcome, Some(486), "seed {seed}");
        assert_eq!(world.dialogs(), [None, None]);
        assert!(world.ends.iter().all(|agent| agent.layer.is_empty()));
    }
}

#[test]
fn over_a_stream_a_call_takes_the_fewest_messages_there_are() {
    let mut world = World::new(1, 0.0, true, false);
    world.run();
    assert_eq!(world.ends[0].outcome, Some(200));
    assert_eq!(
        world.dialogs(),
        [Some(DialogState::Terminated), Some(DialogState::Terminated)]
    );
    // INVITE, 100, 200, ACK, BYE, 200.
    assert_eq!(world.sent, 6);
}
