//! A phone: one call at a time over one transaction layer, and media once it is in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sip::accepted::{Accepted, Due};
use sip::dialog::Dialog;
use sip::transaction::{ClientKey, Event, ServerKey, Timers, TransactionLayer};
use sip::{HeaderName, Hop, Limits, Message, Method, StatusCode, Transport, Uri};

use crate::DOMAIN;
use crate::net::{Msg, Node, Time};
use crate::shell::Clock;

/// Between two bursts of media at least, and packets of one.
const BURST: Duration = Duration::from_millis(700);
const PACKETS: u16 = 6;
/// Whoever was refused, or put out, tries again after so long.
const AGAIN: Duration = Duration::from_secs(3);
/// A re-INVITE that collided comes again (RFC 3261 §14.1: the owner of the Call-ID).
const GLARE: Duration = Duration::from_millis(2_300);
/// A caller waits so long for an answer after 100, and then hangs up: a proxy that died knows of no call.
const PATIENCE: Duration = Duration::from_secs(20);
const MEDIA_PORT: u16 = 4_000;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No call.
    Idle,
    /// INVITE sent.
    Inviting,
    /// 2xx came, ACK went.
    Joined,
    /// BYE or CANCEL sent.
    Leaving,
}

#[derive(Debug)]
struct Pending {
    request: Message,
    sent: Time,
    call: u32,
    /// A final response came; it stays for repeated 2xx.
    answered: bool,
}

/// A request that nobody answered.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// Method and CSeq.
    pub what: String,
    /// When it was sent.
    pub sent: Time,
}

/// A phone.
#[derive(Debug)]
pub struct Client {
    node: Node,
    n: u8,
    clock: Clock,
    layer: TransactionLayer,
    registrars: u8,
    /// The meeting it wants to be in.
    pub wants: Option<String>,
    /// Where its call stands.
    pub state: State,
    /// Numbers its calls.
    pub call: u32,
    dialog: Option<Dialog>,
    pending: BTreeMap<ClientKey, Pending>,
    acks: BTreeMap<u32, Message>,
    accepted: Option<(ServerKey, Accepted)>,
    version: u32,
    hold: bool,
    /// To be changed as soon as nothing else is under way.
    change: Option<Time>,
    /// When to try to join again.
    again: Option<Time>,
    /// When the caller's patience ends.
    patience: Option<Time>,
    media: Option<SocketAddr>,
    next_burst: Time,
    sequence: u16,
    /// What is to be sent.
    pub out: Vec<(Node, Msg)>,
    /// Requests that got no final answer.
    pub unanswered: Vec<Unanswered>,
    /// When media came last.
    pub heard: Option<Time>,
    /// How often it got in.
    pub joins: u32,
    /// It is off: nothing comes out of it.
    pub vanished: bool,
}

impl Client {
    /// A phone without a call.
    #[must_use]
    pub fn new(n: u8, clock: Clock, seed: [u8; 32], registrars: u8) -> Self {
        Self {
            node: Node::Client(n),
            n,
            clock,
            layer: TransactionLayer::new(Timers::default(), seed),
            registrars,
            wants: None,
            state: State::Idle,
            call: 0,
            dialog: None,
            pending: BTreeMap::new(),
            acks: BTreeMap::new(),
            accepted: None,
            version: 0,
            hold: false,
            change: None,
            again: None,
            patience: None,
            media: None,
            next_burst: Time::ZERO,
            sequence: 0,
            out: Vec::new(),
            unanswered: Vec::new(),
            heard: None,
            joins: 0,
            vanished: false,
        }
    }

    /// The Call-ID of its present call.
    #[must_use]
    pub fn call_id(&self) -> String {
        format!("{}-{}", self.node, self.call)
    }

    /// Whether it hears nothing by its own wish.
    #[must_use]
    pub fn is_on_hold(&self) -> bool {
        self.hold
    }

    // ---- what people do

    /// Wants to be in a meeting.
    pub fn join(&mut self, now: Time, meeting: &str) {
        self.wants = Some(meeting.to_owned());
        if self.state == State::Idle {
            self.invite(now);
        }
        self.flush();
    }

    /// Hangs up, whatever the call is at.
    pub fn leave(&mut self, now: Time) {
        self.wants = None;
        self.again = None;
        match self.state {
            State::Joined => self.bye(now),
            State::Inviting => {
                self.state = State::Leaving;
                self.cancel(now);
            }
            State::Idle | State::Leaving => {}
        }
        self.flush();
    }

    fn cancel(&mut self, now: Time) {
        let invites = self.pending.iter();
        let open: Vec<ClientKey> = invites
            .filter(|(_, p)| !p.answered && *p.request.method() == Method::Invite)
            .map(|(key, _)| *key)
            .collect();
        for key in open {
            self.layer.cancel(self.clock.at(now), key, None);
        }
    }

    /// Puts the call on hold, or takes it off.
    pub fn toggle_hold(&mut self, now: Time) {
        if self.state == State::Joined {
            self.hold = !self.hold;
            self.change = Some(now);
            self.reinvite(now);
        }
        self.flush();
    }

    /// The battery is empty: all is forgotten, nobody is told.
    pub fn vanish(&mut self, seed: [u8; 32]) {
        self.layer = TransactionLayer::new(Timers::default(), seed);
        self.pending.clear();
        self.wants = None;
        self.again = None;
        self.out.clear();
        self.call += 1;
        self.vanished = true;
        self.idle();
    }

    fn idle(&mut self) {
        self.state = State::Idle;
        self.dialog = None;
        self.accepted = None;
        self.change = None;
        self.patience = None;
        self.media = None;
        self.hold = false;
        self.heard = None;
        self.acks.clear();
    }

    // ---- requests

    fn description(&mut self) -> String {
        self.version += 1;
        let ip = self.node.address().ip();
        let direction = if self.hold { "sendonly" } else { "sendrecv" };
        format!(
            "v=0\r\no=- {} {} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {MEDIA_PORT} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na={direction}\r\n",
            self.call, self.version
        )
    }

    fn contact(&self) -> String {
        format!("<sip:{}@{}>", self.node, self.node.address())
    }

    fn invite(&mut self, now: Time) {
        let Some(meeting) = self.wants.clone() else {
            return;
        };
        self.idle();
        self.call += 1;
        self.state = State::Inviting;
        let uri = format!("sip:{meeting}@{DOMAIN}");
        let mut invite = Message::request(Method::Invite, &uri);
        invite.push_back(HeaderName::MaxForwards, "70");
        let from = format!("<sip:{0}@{DOMAIN}>;tag={0}x{1}", self.node, self.call);
        invite.push_back(HeaderName::From, from);
        invite.push_back(HeaderName::To, format!("<{uri}>"));
        invite.push_back(HeaderName::CallId, self.call_id());
        invite.push_back(HeaderName::CSeq, "1 INVITE");
        invite.push_back(HeaderName::Contact, self.contact());
        invite.push_back(
            HeaderName::Allow,
            "INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS",
        );
        let body = self.description();
        invite.set_body("application/sdp", body);
        // Another one each time, as the sprayer or the phone's own list would have it.
        let registrar = (self.n + u8::try_from(self.call % 16).unwrap_or(0)) % self.registrars;
        let hop = Hop::to(Transport::Udp, Node::Registrar(registrar).address());
        self.patience = Some(now + PATIENCE);
        self.send(now, invite, hop);
    }

    fn send(&mut self, now: Time, request: Message, hop: Hop) {
        let sent_by = self.node.address().to_string();
        let at = self.clock.at(now);
        let key = self
            .layer
            .send_request(at, request.clone(), hop, &sent_by, None);
        let pending = Pending {
            request,
            sent: now,
            call: self.call,
            answered: false,
        };
        self.pending.insert(key, pending);
    }

    fn hop(&self) -> Option<Hop> {
        let uri = Uri::parse(self.dialog.as_ref()?.next_hop_uri()).ok()?;
        let address = SocketAddr::new(uri.ip()?, uri.port.unwrap_or(5060));
        Some(Hop::to(Transport::Udp, address))
    }

    fn in_dialog(&mut self, method: Method) -> Option<(Message, Hop)> {
        let hop = self.hop()?;
        let request = self.dialog.as_mut()?.request(method);
        Some((request, hop))
    }

    fn bye(&mut self, now: Time) {
        self.state = State::Leaving;
        self.accepted = None;
        self.change = None;
        if let Some((bye, hop)) = self.in_dialog(Method::Bye) {
            self.send(now, bye, hop);
        }
    }

    fn is_inviting(&self) -> bool {
        let mut pending = self.pending.values();
        pending.any(|p| !p.answered && *p.request.method() == Method::Invite)
    }

    fn reinvite(&mut self, now: Time) {
        let due = self.change.is_some_and(|at| at <= now);
        if !due || self.is_inviting() || self.accepted.is_some() || self.state != State::Joined {
            return;
        }
        self.change = None;
        let body = self.description();
        if let Some((mut invite, hop)) = self.in_dialog(Method::Invite) {
            invite.set_body("application/sdp", body);
            self.send(now, invite, hop);
        }
    }

    // ---- what comes

    /// A message came.
    pub fn handle(&mut self, now: Time, msg: Msg) {
        if self.vanished {
            return;
        }
        match msg {
            Msg::Sip { from, to, bytes } => {
                if let Ok(message) = Message::parse(bytes, &Limits::default()) {
                    let hop = Hop {
                        local: Some(to),
                        ..Hop::to(Transport::Udp, from)
                    };
                    self.layer.handle_message(self.clock.at(now), message, hop);
                    self.events(now);
                }
            }
            Msg::Media { bytes, .. } if is_rtp(&bytes) => self.heard = Some(now),
            _ => {}
        }
        self.flush();
    }

    fn events(&mut self, now: Time) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                Event::Request { key, message, .. } => self.on_request(now, key, &message),
                Event::Ack { message, .. } => {
                    let acknowledged = self.accepted.as_mut().is_some_and(|a| a.1.on_ack(&message));
                    if acknowledged {
                        self.accepted = None;
                    }
                }
                Event::Response { key, message, .. } => self.on_response(now, key, &message),
                Event::Timeout { key } | Event::TransportFailed { key } => {
                    self.on_silence(now, key);
                }
                _ => {}
            }
        }
    }

    fn on_request(&mut self, now: Time, key: ServerKey, request: &Message) {
        let ours = request.call_id() == self.call_id() && self.dialog.is_some();
        let status = match request.method() {
            _ if !ours => 481,
            Method::Invite if self.is_inviting() || self.accepted.is_some() => 491,
            _ => 200,
        };
        let mut response = match &mut self.dialog {
            Some(dialog) if ours => {
                if dialog.accept(request).is_err() {
                    let refused = dialog.response(request, StatusCode::of(500), None);
                    self.layer.respond(self.clock.at(now), key, refused);
                    return;
                }
                dialog.response(request, StatusCode::of(status), None)
            }
            _ => Message::response(request, StatusCode::of(status), None, Some("none")),
        };
        if status == 200 && matches!(request.method(), Method::Invite | Method::Update) {
            if !request.body().is_empty() {
                self.media = media_of(request.body()).or(self.media);
            }
            let body = self.description();
            response.set_body("application/sdp", body);
        }
        if status == 200 && *request.method() == Method::Invite {
            let at = self.clock.at(now);
            let accepted = Accepted::new(at, response.clone(), &Timers::default());
            self.accepted = Some((key, accepted));
        }
        self.layer.respond(self.clock.at(now), key, response);
        if ours && *request.method() == Method::Bye {
            self.idle();
            self.again = self.wants.as_ref().map(|_| now + AGAIN);
        }
    }

    fn on_silence(&mut self, now: Time, key: ClientKey) {
        let Some(pending) = self.pending.remove(&key) else {
            return;
        };
        let cseq = pending.request.header(HeaderName::CSeq).unwrap_or("");
        self.unanswered.push(Unanswered {
            what: format!("{} of call {}-{}", cseq, self.node, pending.call),
            sent: pending.sent,
        });
        if pending.call == self.call {
            // RFC 3261 §12.2.1.2: as if it had been 408, which ends the dialog.
            self.idle();
            self.again = self.wants.as_ref().map(|_| now + AGAIN);
        }
    }

    fn on_response(&mut self, now: Time, key: ClientKey, response: &Message) {
        let Some(status) = response.status().filter(|s| s.is_final()) else {
            return;
        };
        let Some(pending) = self.pending.get_mut(&key) else {
            return;
        };
        let (again, call) = (std::mem::replace(&mut pending.answered, true), pending.call);
        let request = pending.request.clone();
        let is_invite = *request.method() == Method::Invite;
        if again {
            if is_invite && status.is_success() && call == self.call {
                self.acknowledge(response);
            }
            return;
        }
        if !is_invite || !status.is_success() {
            self.pending.remove(&key);
        }
        if call != self.call {
            return;
        }
        let begins = is_invite && self.dialog.is_none();
        match (begins, status.get()) {
            (true, 200..300) => self.on_joined(now, &request, response),
            (true, _) => {
                self.idle();
                self.again = self.wants.as_ref().map(|_| now + AGAIN);
            }
            (false, _) if *request.method() == Method::Bye => {
                self.idle();
                self.again = self.wants.as_ref().map(|_| now + AGAIN);
            }
            (false, 200..300) if is_invite => {
                if let Some(dialog) = &mut self.dialog {
                    dialog.accept_response(response);
                }
                self.media = media_of(response.body()).or(self.media);
                self.acknowledge(response);
            }
            (false, 491) if is_invite => self.change = Some(now + GLARE),
            // The other side knows no such dialog: it is over here too (§12.2.1.2).
            (false, 408 | 481) => {
                self.idle();
                self.again = self.wants.as_ref().map(|_| now + AGAIN);
            }
            // Refused for now; a hold that was refused is tried again.
            (false, 500..600) if is_invite => self.change = Some(now + AGAIN),
            _ => {}
        }
    }

    fn on_joined(&mut self, now: Time, request: &Message, response: &Message) {
        let Ok(dialog) = Dialog::uac(request, response) else {
            self.idle();
            return;
        };
        self.dialog = Some(dialog);
        self.patience = None;
        self.media = media_of(response.body());
        self.acknowledge(response);
        if self.state == State::Leaving {
            return self.bye(now);
        }
        self.state = State::Joined;
        self.joins += 1;
        self.next_burst = now + Duration::from_millis(100);
    }

    fn acknowledge(&mut self, response: &Message) {
        let Ok(cseq) = response.cseq().map(|c| c.number) else {
            return;
        };
        let (Some(dialog), Some(hop)) = (&self.dialog, self.hop()) else {
            return;
        };
        let ack = self.acks.entry(cseq).or_insert_with(|| dialog.ack(cseq));
        let sent_by = self.node.address().to_string();
        self.layer.send_stateless(ack.clone(), hop, &sent_by, None);
    }

    // ---- time

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.vanished {
            return None;
        }
        let layer = self.layer.poll_timeout().map(|at| self.clock.of(at));
        let accepted = self.accepted.as_ref().and_then(|(_, a)| a.poll_timeout());
        let accepted = accepted.map(|at| self.clock.of(at));
        let burst = (self.state == State::Joined).then_some(self.next_burst);
        let change = self
            .change
            .filter(|_| !self.is_inviting() && self.accepted.is_none());
        [layer, accepted, burst, change, self.again, self.patience]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.vanished {
            return;
        }
        let at = self.clock.at(now);
        self.layer.handle_timeout(at);
        self.events(now);
        if let Some((key, accepted)) = &mut self.accepted {
            match accepted.handle_timeout(at) {
                Some(Due::Resend(response)) => self.layer.respond(at, *key, response),
                Some(Due::GiveUp) => self.bye(now),
                None => {}
            }
        }
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            if self.state == State::Idle {
                self.invite(now);
            }
        }
        if self.patience.is_some_and(|at| at <= now) {
            self.patience = None;
            self.cancel(now);
        }
        self.reinvite(now);
        if self.state == State::Joined && self.next_burst <= now {
            // In no step with others: a phone has one slot, and who always speaks second is never heard on it.
            let more = (u64::from(self.n) * 131 + u64::from(self.sequence) * 37) % 600;
            self.next_burst = now + BURST + Duration::from_millis(more);
            self.speak();
        }
        self.flush();
    }

    fn speak(&mut self) {
        let Some(to) = self.media else { return };
        let node = Node::at(to.ip());
        let from = SocketAddr::new(self.node.address().ip(), MEDIA_PORT);
        for _ in 0..PACKETS {
            self.sequence = self.sequence.wrapping_add(1);
            let mut bytes = vec![0x80, 0];
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend((u32::from(self.sequence) * 160).to_be_bytes());
            bytes.extend((0x1000 + u32::from(self.n) * 7 + self.call).to_be_bytes());
            // µ-law, loud.
            bytes.extend([0x90; 160]);
            if let Some(node) = node {
                self.out.push((node, Msg::Media { from, to, bytes }));
            }
        }
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.layer.poll_transmit() {
            let to = transmit.hop.remote;
            if let Some(node) = Node::at(to.ip()) {
                let msg = Msg::Sip {
                    from: self.node.address(),
                    to,
                    bytes: transmit.bytes,
                };
                self.out.push((node, msg));
            }
        }
    }
}

fn is_rtp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|b| b & 0x7f == 0)
}

/// Where the first audio line wants its media.
fn media_of(body: &Bytes) -> Option<SocketAddr> {
    let text = std::str::from_utf8(body).ok()?;
    let line = |start: &str| text.lines().find_map(|l| l.strip_prefix(start));
    let ip = line("c=IN IP4 ")?.split('/').next()?.trim().parse().ok()?;
    let port: u16 = line("m=audio ")?.split(' ').next()?.parse().ok()?;
    (port != 0).then_some(SocketAddr::new(ip, port))
}
