//! A transaction layer on a virtual clock, and messages from text.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::transaction::{Event, TableLimits, Timers, TransactionLayer, Transmit};
use sip::{FlowId, Hop, Limits, Message, Method, StatusCode, Transport};

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Parses a message written with bare line feeds.
pub fn parse(text: &str) -> Message {
    parse_bytes(Bytes::from(text.replace('\n', "\r\n")))
}

pub fn parse_bytes(bytes: Bytes) -> Message {
    Message::parse(bytes, &Limits::default()).expect("a test message parses")
}

pub fn hop(transport: Transport, remote: &str) -> Hop {
    let remote: SocketAddr = remote.parse().expect("a test address parses");
    Hop {
        transport,
        remote,
        local: Some(([192, 0, 2, 100], 5060).into()),
        flow: Some(FlowId(7)),
    }
}

/// A request as a client at `192.0.2.1:5060` sends it.
pub fn request(method: &str, branch: &str, cseq: u32, to_tag: &str) -> Message {
    request_via(
        &format!("192.0.2.1:5060;branch={branch}"),
        method,
        cseq,
        to_tag,
    )
}

pub fn request_via(via: &str, method: &str, cseq: u32, to_tag: &str) -> Message {
    let tag = if to_tag.is_empty() {
        String::new()
    } else {
        format!(";tag={to_tag}")
    };
    parse(&format!(
        "{method} sip:meeting@rostrum.example SIP/2.0
Via: SIP/2.0/UDP {via}
Max-Forwards: 70
From: <sip:alice@example.com>;tag=a1
To: <sip:meeting@rostrum.example>{tag}
Call-ID: c1
CSeq: {cseq} {method}
Timestamp: 54
Content-Length: 0

"
    ))
}

pub struct Rig {
    pub layer: TransactionLayer,
    pub t0: Instant,
    pub now: Instant,
}

impl Rig {
    pub fn new() -> Self {
        Self::with_limits(TableLimits::default())
    }

    pub fn with_limits(limits: TableLimits) -> Self {
        let t0 = Instant::now();
        Self {
            layer: TransactionLayer::with_limits(Timers::default(), limits, [3; 32]),
            t0,
            now: t0,
        }
    }

    pub fn receive(&mut self, message: Message, hop: Hop) {
        self.layer.handle_message(self.now, message, hop);
    }

    pub fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.layer.poll_transmit()).collect()
    }

    /// What was sent, each as its first line.
    pub fn sent_lines(&mut self) -> Vec<String> {
        self.sent().iter().map(first_line).collect()
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.layer.poll_event()).collect()
    }

    /// Lets time pass until `at` after the start, waking exactly when the layer asks for it. Comes back with what
    /// was sent meanwhile: milliseconds since the start, and first line.
    pub fn run_until(&mut self, at: Duration) -> Vec<(u128, String)> {
        let end = self.t0 + at;
        let mut log = Vec::new();
        loop {
            for transmit in self.sent() {
                log.push(((self.now - self.t0).as_millis(), first_line(&transmit)));
            }
            match self.layer.poll_timeout() {
                Some(next) if next <= end => {
                    self.now = self.now.max(next);
                    self.layer.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
        log
    }

    pub fn respond(&mut self, key: sip::transaction::ServerKey, request: &Message, status: u16) {
        let response = Message::response(request, StatusCode::of(status), None, Some("f1"));
        self.layer.respond(self.now, key, response);
    }

    /// Sends a request of ours to `192.0.2.9:5060`, and gives back its bytes.
    pub fn send(
        &mut self,
        method: Method,
        transport: Transport,
    ) -> (sip::transaction::ClientKey, Message) {
        let mut request = Message::request(method.clone(), "sip:bob@example.com");
        for (name, value) in [
            (sip::HeaderName::MaxForwards, "70".to_owned()),
            (sip::HeaderName::Route, "<sip:p.example;lr>".to_owned()),
            (
                sip::HeaderName::From,
                "<sip:f@rostrum.example>;tag=f1".to_owned(),
            ),
            (sip::HeaderName::To, "<sip:bob@example.com>".to_owned()),
            (sip::HeaderName::CallId, "c2".to_owned()),
            (sip::HeaderName::CSeq, format!("1 {method}")),
        ] {
            request.push_back(name, value);
        }
        let key = self.layer.send_request(
            self.now,
            request,
            hop(transport, "192.0.2.9:5060"),
            "192.0.2.100:5060",
            None,
        );
        let sent = self.sent().pop().expect("it is sent at once");
        assert_eq!(sent.client, Some(key));
        (key, parse_bytes(sent.bytes))
    }

    /// The peer answers a request of ours.
    pub fn answer(&mut self, request: &Message, status: u16) {
        let response = Message::response(request, StatusCode::of(status), None, Some("b1"));
        let received = parse_bytes(response.to_bytes());
        self.receive(received, hop(Transport::Udp, "192.0.2.9:5060"));
    }
}

pub fn first_line(transmit: &Transmit) -> String {
    let text = String::from_utf8_lossy(&transmit.bytes);
    let line = text.lines().next().unwrap_or("");
    line.strip_prefix("SIP/2.0 ")
        .unwrap_or(line.split(' ').next().unwrap_or(""))
        .to_owned()
}

/// Events in few words.
pub fn names(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            Event::Request { message, .. } => format!("request {}", message.method()),
            Event::Overloaded { message, .. } => format!("overloaded {}", message.method()),
            Event::Ack { .. } => "ack".to_owned(),
            Event::Acknowledged { .. } => "acknowledged".to_owned(),
            Event::Cancel { .. } => "cancel".to_owned(),
            Event::Response { message, .. } => match message.status() {
                Some(status) => format!("response {}", status.get()),
                None => "response without a status".to_owned(),
            },
            Event::StrayResponse { .. } => "stray response".to_owned(),
            Event::Timeout { .. } => "timeout".to_owned(),
            Event::TransportFailed { .. } => "transport failed".to_owned(),
            Event::NotAcknowledged { .. } => "not acknowledged".to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

/// The only event, which must be a request.
pub fn only_request(events: Vec<Event>) -> (sip::transaction::ServerKey, Message) {
    let mut events = events.into_iter();
    match (events.next(), events.next()) {
        (Some(Event::Request { key, message, .. }), None) => (key, message),
        (first, second) => panic!("one request expected: {first:?} {second:?}"),
    }
}
