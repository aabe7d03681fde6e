//! A registrar on a virtual clock, with clients, a meeting manager and a store made of maps.
#![allow(dead_code)] // every test file uses a part of it

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::records::Member;
use cluster::{Compare, Op, Revision, Txn};
use registrar_core::{
    Advertised, BindingSet, Command, Core, ResolveId, Secrets, Settings, StoreId, StoreReply, User,
};
use sip::digest::Ha1;
use sip::{FlowId, HeaderName, Hop, Limits, Message, Transport};

pub const DOMAIN: &str = "example.org";
pub const WALL: u64 = 1_800_000_000;

/// One message that went out.
pub struct Sent {
    pub id: u64,
    pub hop: Hop,
    pub host: Option<std::sync::Arc<str>>,
    pub message: Message,
}

/// A store that can be held up.
#[derive(Default)]
pub struct FakeStore {
    pub entries: BTreeMap<String, (Bytes, Revision)>,
    pub revision: u64,
    /// While held, transactions wait in `waiting`.
    pub held: bool,
    pub waiting: VecDeque<(StoreId, String, Txn)>,
    pub writes: usize,
}

impl FakeStore {
    pub fn apply(&mut self, txn: &Txn) -> Option<Revision> {
        let holds = txn.compares.iter().all(|compare| match compare {
            Compare::Unchanged(key, revision) => {
                self.entries.get(key).is_some_and(|(_, r)| r == revision)
            }
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Present(key) => self.entries.contains_key(key),
        });
        if !holds {
            return None;
        }
        self.revision += 1;
        self.writes += 1;
        let revision = Revision(self.revision);
        for op in &txn.ops {
            match op {
                Op::Put(key, value, _) => {
                    self.entries.insert(key.clone(), (value.clone(), revision));
                }
                Op::Delete(key) => {
                    self.entries.remove(key);
                }
            }
        }
        Some(revision)
    }

    pub fn read(&self, aor: &str) -> Option<(BindingSet, Revision)> {
        let (value, revision) = self.entries.get(&cluster::records::keys::bindings(aor))?;
        Some((BindingSet::decode(value).expect("a record"), *revision))
    }
}

pub struct World {
    pub core: Core,
    pub now: Instant,
    pub wall: Duration,
    pub store: FakeStore,
    pub sent: VecDeque<Sent>,
    pub resolves: VecDeque<(ResolveId, String)>,
    pub next: u64,
}

pub fn settings() -> Settings {
    let at = |transport, port| Advertised {
        transport,
        host: "192.0.2.1".into(),
        port,
    };
    Settings {
        node: "edge-1".into(),
        domains: vec![DOMAIN.into(), "alias.example".into()],
        realm: DOMAIN.into(),
        advertised: vec![
            at(Transport::Udp, 5060),
            at(Transport::Tcp, 5060),
            at(Transport::Tls, 5061),
            at(Transport::Ws, 80),
            at(Transport::Wss, 443),
        ],
        ..Settings::default()
    }
}

pub fn secrets() -> Secrets {
    Secrets {
        nonce: [1; 32],
        flow: [2; 32],
        guest: [3; 32],
    }
}

/// A client's hop: UDP from 198.51.100.`n`:5060.
pub fn udp(n: u8) -> Hop {
    hop(Transport::Udp, n, 5060)
}

/// A client's hop over a stream or WebSocket, on connection `n`.
pub fn hop(transport: Transport, n: u8, port: u16) -> Hop {
    Hop {
        transport,
        remote: SocketAddr::from(([198, 51, 100, n], port)),
        local: Some(SocketAddr::from(([192, 0, 2, 1], 5060))),
        flow: Some(FlowId(u64::from(n))),
    }
}

/// A proxy in a network that [`trusting`] trusts: UDP from 203.0.113.`n`:5060.
pub fn proxy(n: u8) -> Hop {
    Hop {
        remote: SocketAddr::from(([203, 0, 113, n], 5060)),
        ..udp(n)
    }
}

/// For [`World::with`]: trusts the network of [`proxy`].
pub fn trusting(settings: &mut Settings) {
    settings.trusted = vec!["203.0.113.0/24".parse().expect("a net")];
}

/// The meeting managers' hop.
pub fn member_hop(n: u8) -> Hop {
    Hop {
        transport: Transport::Udp,
        remote: SocketAddr::from(([10, 0, 0, n], 5070)),
        local: Some(SocketAddr::from(([192, 0, 2, 1], 5060))),
        flow: Some(FlowId(1_000 + u64::from(n))),
    }
}

pub fn member(n: u8) -> Member {
    Member {
        version: 1,
        id: format!("m{n}"),
        sip: vec![
            ("udp".into(), SocketAddr::from(([10, 0, 0, n], 5070))),
            ("tcp".into(), SocketAddr::from(([10, 0, 0, n], 5070))),
        ],
        api: String::new(),
        load: 0,
        draining: false,
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let now = Instant::now();
        let mut core = Core::new(now, settings, &secrets(), [9; 32], 7);
        core.handle_users(
            ["alice", "bob", "carol"]
                .into_iter()
                .map(|name| {
                    let ha1 = Ha1::new(name, DOMAIN, "secret");
                    User {
                        name: name.into(),
                        display: format!("{} of the table", name),
                        sha256: Some(ha1.sha256),
                        md5: Some(ha1.md5),
                    }
                })
                .collect(),
        );
        Self {
            core,
            now,
            wall: Duration::from_secs(WALL),
            store: FakeStore::default(),
            sent: VecDeque::new(),
            resolves: VecDeque::new(),
            next: 0,
        }
    }

    /// Two managers, the first of which owns `lobby`.
    pub fn with_members(mut self) -> Self {
        self.core
            .handle_member(self.now, self.wall, "m1", Some(member(1)));
        self.core
            .handle_member(self.now, self.wall, "m2", Some(member(2)));
        self.core
            .handle_owner(self.now, self.wall, "lobby", Some("m1".into()));
        self
    }

    pub fn unique(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Carries out what the core commanded.
    pub fn pump(&mut self) {
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Transmit {
                    id,
                    hop,
                    host,
                    bytes,
                } => {
                    let message = Message::parse(bytes, &Limits::default()).expect("we send SIP");
                    self.sent.push_back(Sent {
                        id,
                        hop,
                        host,
                        message,
                    });
                }
                Command::Store { id, aor, txn } => {
                    self.store.waiting.push_back((id, aor, txn));
                    if !self.store.held {
                        self.commit();
                    }
                }
                Command::Resolve { id, uri } => {
                    self.resolves.push_back((id, uri.to_string()));
                }
                other => panic!("unknown command {other:?}"),
            }
        }
    }

    /// Carries out what waits at the store.
    pub fn commit(&mut self) {
        while let Some((id, aor, txn)) = self.store.waiting.pop_front() {
            let reply = match self.store.apply(&txn) {
                Some(revision) => StoreReply::Committed(revision),
                None => StoreReply::Changed(self.store.read(&aor)),
            };
            self.reply(id, reply);
        }
    }

    pub fn reply(&mut self, id: StoreId, reply: StoreReply) {
        self.core.handle_store(self.now, self.wall, id, reply);
        self.pump();
    }

    pub fn send(&mut self, hop: Hop, text: &str) {
        let bytes = Bytes::from(text.replace("\r\n", "\n").replace('\n', "\r\n"));
        let message = Message::parse(bytes, &Limits::default()).expect("tests send SIP");
        self.deliver(hop, message);
    }

    pub fn deliver(&mut self, hop: Hop, message: Message) {
        self.core.handle_message(self.now, self.wall, message, hop);
        self.pump();
    }

    /// The connection of a hop closes.
    pub fn close(&mut self, hop: Hop) {
        let flow = hop.flow.expect("a connection");
        self.core.handle_flow_closed(self.now, self.wall, flow);
        self.pump();
    }

    /// Lets time pass, firing every timer on its way.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        let start = self.now;
        let wall = self.wall;
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.wall = wall + (self.now - start);
            self.core.handle_timeout(self.now, self.wall);
            self.pump();
        }
        self.now = end;
        self.wall = wall + by;
    }

    /// The next message that went out.
    pub fn take(&mut self) -> Sent {
        self.sent.pop_front().expect("something was sent")
    }

    /// The next message that went out, which must be a response with that status.
    pub fn take_status(&mut self, status: u16) -> Message {
        let sent = self.take();
        let got = sent.message.status().map(|s| s.get());
        assert_eq!(
            got,
            Some(status),
            "{}",
            String::from_utf8_lossy(&sent.message.to_bytes())
        );
        sent.message
    }

    /// The next message that went out, which must be that request to `hop`'s address.
    pub fn take_request(&mut self, method: &str, to: Hop) -> Message {
        let sent = self.take();
        assert!(sent.message.is_request(), "{}", text(&sent.message));
        assert_eq!(sent.message.method().as_str(), method);
        assert_eq!(sent.hop.remote, to.remote);
        assert_eq!(sent.hop.transport, to.transport);
        sent.message
    }

    pub fn assert_silent(&self) {
        if let Some(sent) = self.sent.front() {
            panic!("unexpected: {}", text(&sent.message));
        }
    }

    /// A request with credentials, answering the challenge that the plain one gets.
    pub fn authenticated(&mut self, hop: Hop, user: &str, password: &str, request: &Request) {
        self.deliver(hop, request.message());
        let challenge = self.take();
        let status = challenge.message.status().expect("a response").get();
        let (ask, answer) = match status {
            401 => (HeaderName::WwwAuthenticate, HeaderName::Authorization),
            407 => (
                HeaderName::ProxyAuthenticate,
                HeaderName::ProxyAuthorization,
            ),
            other => panic!("no challenge but {other}: {}", text(&challenge.message)),
        };
        let value = challenge
            .message
            .header(ask)
            .expect("a challenge")
            .to_owned();
        let mut again = request.clone();
        again.cseq += 1;
        again.branch = format!("z9hG4bKauth{}", self.unique());
        let mut message = again.message();
        let cnonce = format!("c{}", self.unique());
        let credentials = sip::digest::authorize(
            &value,
            user,
            password,
            &request.method,
            message.request_uri(),
            &cnonce,
            1,
        )
        .expect("a challenge that can be answered");
        message.push_back(answer, credentials);
        self.deliver(hop, message);
    }

    /// Registers `user` and returns the 200.
    pub fn register(&mut self, user: &str, hop: Hop, contact: &str) -> Message {
        let request = self.register_request(user, hop, contact);
        self.authenticated(hop, user, "secret", &request);
        self.take_status(200)
    }

    pub fn register_request(&mut self, user: &str, hop: Hop, contact: &str) -> Request {
        let n = self.unique();
        let mut request = Request::new("REGISTER", &format!("sip:{DOMAIN}"), hop, n);
        request.from = format!("<sip:{user}@{DOMAIN}>;tag=f{n}");
        request.to = format!("<sip:{user}@{DOMAIN}>");
        request.headers.push(format!("Contact: {contact}"));
        request
            .headers
            .push("Supported: path, gruu, outbound".into());
        request
    }

    /// An INVITE of `user` to `uri` that has got past the challenge; what was sent is in the queue.
    pub fn invite(&mut self, user: &str, hop: Hop, uri: &str) -> Request {
        let n = self.unique();
        let mut request = Request::new("INVITE", uri, hop, n);
        request.from = format!("\"Shown\" <sip:{user}@{DOMAIN}>;tag=f{n}");
        request.to = format!("<{uri}>");
        request
            .headers
            .push(format!("Contact: <sip:{user}@{}>", hop.remote));
        self.authenticated(hop, user, "secret", &request);
        request.cseq += 1;
        request
    }
}

pub fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.to_bytes()).into_owned()
}

/// A request as tests write it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub uri: String,
    pub transport: Transport,
    pub sent_by: String,
    pub branch: String,
    pub from: String,
    pub to: String,
    pub call_id: String,
    pub cseq: u32,
    pub headers: Vec<String>,
    pub max_forwards: Option<u32>,
    pub body: String,
}

impl Request {
    pub fn new(method: &str, uri: &str, hop: Hop, n: u64) -> Self {
        Self {
            method: method.into(),
            uri: uri.into(),
            transport: hop.transport,
            sent_by: hop.remote.to_string(),
            branch: format!("z9hG4bK{n}"),
            from: format!("<sip:somebody@{DOMAIN}>;tag=f{n}"),
            to: format!("<{uri}>"),
            call_id: format!("call-{n}"),
            cseq: 1,
            headers: Vec::new(),
            max_forwards: Some(70),
            body: String::new(),
        }
    }

    pub fn text(&self) -> String {
        let mut out = format!(
            "{} {} SIP/2.0\r\nVia: SIP/2.0/{} {};branch={};rport\r\n",
            self.method,
            self.uri,
            self.transport.via_token(),
            self.sent_by,
            self.branch
        );
        if let Some(left) = self.max_forwards {
            out += &format!("Max-Forwards: {left}\r\n");
        }
        out += &format!(
            "From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n",
            self.from, self.to, self.call_id, self.cseq, self.method
        );
        for header in &self.headers {
            out += header;
            out += "\r\n";
        }
        out += &format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body);
        out
    }

    pub fn message(&self) -> Message {
        Message::parse(Bytes::from(self.text()), &Limits::default()).expect("tests send SIP")
    }
}

/// A request in the dialog that was made, as the caller sends it.
pub fn in_dialog(method: &str, uri: &str, from: Hop, routes: &[String], n: u64) -> Request {
    let mut request = Request::new(method, uri, from, n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=caller");
    request.to = "<sip:x@example.org>;tag=callee".into();
    if !routes.is_empty() {
        request
            .headers
            .push(format!("Route: {}", routes.join(", ")));
    }
    request
}

/// The response a user agent gives to a request it got.
pub fn answer(request: &Message, status: u16, headers: &[(HeaderName<'static>, &str)]) -> Message {
    let mut response =
        Message::response(request, sip::StatusCode::of(status), None, Some("callee"));
    for value in request.headers(HeaderName::RecordRoute) {
        response.push_back(HeaderName::RecordRoute, value);
    }
    for (name, value) in headers {
        response.push_back(*name, *value);
    }
    response
}

/// The Record-Route values of a response in the order a caller routes by (reversed).
pub fn caller_routes(response: &Message) -> Vec<String> {
    let mut routes: Vec<String> = response
        .values(HeaderName::RecordRoute)
        .map(str::to_owned)
        .collect();
    routes.reverse();
    routes
}
