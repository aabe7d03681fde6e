//! Messages from anywhere to a whole registrar: strangers', members', and users' who answer their challenge. Whatever
//! comes out is SIP, and in the end nothing is left.
//! Seeds: torture/rfc4475, torture/rfc5118
#![cfg_attr(fuzzing, no_main)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::Revision;
use registrar_core::{BindingSet, Command, Core, Secrets, Settings, StoreReply, User};
use sip::digest::{Ha1, authorize};
use sip::{FlowId, HeaderName, Hop, Limits, Message, Method, Transport};

const DOMAIN: &str = "example.com";
const AOR: &str = "sip:alice@example.com";

struct World {
    core: Core,
    now: Instant,
    wall: Duration,
    revision: u64,
    /// The last challenge.
    challenge: Option<(HeaderName<'static>, String)>,
    /// Requests that went on, and where to.
    forwarded: Vec<(Hop, Message)>,
}

fn hop(transport: Transport, last: u8) -> Hop {
    Hop {
        transport,
        remote: SocketAddr::from(([192, 0, 2, last], 5060)),
        local: Some(SocketAddr::from(([192, 0, 2, 1], 5060))),
        flow: Some(FlowId(last.into())),
    }
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let settings = Settings {
            domains: vec![DOMAIN.into(), "192.0.2.1".into()],
            realm: DOMAIN.into(),
            trusted: vec!["192.0.2.3/32".parse().expect("a network")],
            relay: true,
            ..Settings::default()
        };
        let secrets = Secrets {
            nonce: [1; 32],
            flow: [2; 32],
            guest: [3; 32],
        };
        let mut core = Core::new(now, settings, &secrets, [9; 32], 7);
        let ha1 = Ha1::new("alice", DOMAIN, "secret");
        let alice = User {
            name: "alice".into(),
            display: String::new(),
            sha256: Some(ha1.sha256),
            md5: Some(ha1.md5),
        };
        core.handle_users([alice].into_iter().collect());
        Self {
            core,
            now,
            wall: Duration::from_secs(1_700_000_000),
            revision: 0,
            challenge: None,
            forwarded: Vec::new(),
        }
    }

    fn deliver(&mut self, message: Message, hop: Hop) {
        self.core.handle_message(self.now, self.wall, message, hop);
        self.work();
    }

    fn work(&mut self) {
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Transmit { hop, bytes, .. } => self.sent(hop, bytes),
                Command::Store { id, .. } => {
                    self.revision += 1;
                    let reply = StoreReply::Committed(Revision(self.revision));
                    self.core.handle_store(self.now, self.wall, id, reply);
                }
                Command::Resolve { id, .. } => {
                    let found = vec![(Transport::Udp, hop(Transport::Udp, 9).remote)];
                    self.core.handle_resolved(self.now, self.wall, id, found);
                }
                _ => {}
            }
        }
    }

    fn sent(&mut self, hop: Hop, bytes: Bytes) {
        let message = Message::parse(bytes, &Limits::default()).expect("what goes out is SIP");
        for ask in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate] {
            if let Some(value) = message.header(ask) {
                self.challenge = Some((ask, value.to_owned()));
            }
        }
        if message.is_request() && self.forwarded.len() < 8 {
            self.forwarded.push((hop, message));
        }
    }

    /// As alice, who answers her challenge.
    fn deliver_as_user(&mut self, mut message: Message) {
        let hop = hop(Transport::Tcp, 4);
        if !message.is_request() {
            return;
        }
        message.set(HeaderName::From, format!("<{AOR}>;tag=a"));
        if *message.method() == Method::Register {
            message.set(HeaderName::To, format!("<{AOR}>"));
            message.set_request_uri("sip:example.com");
        }
        self.challenge = None;
        self.deliver(message.clone(), hop);
        let Some((ask, value)) = self.challenge.take() else {
            return;
        };
        let (method, uri) = (message.method().as_str(), message.request_uri());
        let answer = authorize(&value, "alice", "secret", method, uri, "c", 1);
        let name = match ask {
            HeaderName::WwwAuthenticate => HeaderName::Authorization,
            _ => HeaderName::ProxyAuthorization,
        };
        message.push_back(name, answer.expect("our own challenge"));
        self.deliver(message, hop);
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            let passed = at.saturating_duration_since(self.now);
            self.now += passed;
            self.wall += passed;
            self.core.handle_timeout(self.now, self.wall);
            self.work();
        }
        self.now = end;
    }
}

rostrum_fuzz::target!(|data| {
    let mut world = World::new();
    let mut rest = data;
    for _ in 0..8 {
        let end = rest.windows(3).position(|w| w == b"\0\0\0");
        let (one, more) = rest.split_at(end.unwrap_or(rest.len()));
        rest = more.get(3..).unwrap_or_default();
        // What another registrar may have written.
        if let Ok(set) = BindingSet::decode(one) {
            let encoded = set.encode();
            assert_eq!(BindingSet::decode(&encoded).expect("our own"), set);
            world.revision += 1;
            let revision = Revision(world.revision);
            world.core.handle_bindings(AOR, Some(set), revision);
        }
        if let Ok(message) = Message::parse(Bytes::copy_from_slice(one), &Limits::default()) {
            world.deliver(message.clone(), hop(Transport::Udp, 2));
            world.deliver(message.clone(), hop(Transport::Udp, 3));
            world.deliver_as_user(message);
        }
        // Answered, each in its own way.
        for (n, (hop, request)) in std::mem::take(&mut world.forwarded).into_iter().enumerate() {
            let status = sip::StatusCode::of([180, 200, 302, 486, 503][n % 5]);
            let response = Message::response(&request, status, None, Some("b"));
            world.deliver(response, hop);
        }
        if rest.is_empty() {
            break;
        }
    }
    world
        .core
        .handle_flow_closed(world.now, world.wall, FlowId(4));
    world.work();
    world.advance(Duration::from_secs(900));
    let stats = world.core.stats();
    assert_eq!(
        (stats.server_transactions, stats.client_transactions),
        (0, 0)
    );
    assert_eq!((stats.pending, stats.parked, stats.contexts), (0, 0, 0));
});
