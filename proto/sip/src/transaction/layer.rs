//! The transaction layer: tables of the machines, the wheel that drives them, and the messages between them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::client::Client;
use super::effect::{Effect, Effects, Slot, Timer};
use super::invite_client::InviteClient;
use super::invite_server::{self, InviteServer};
use super::made::{ack_of_failure, cancel_of, trying};
use super::matching::{self, COOKIE, ClientMatch, MAX_BRANCH, ServerMatch};
use super::server::Server;
use super::wheel::{TimerId, Wheel};
use super::{ClientKey, Event, ServerKey, TableLimits, Timers, Transmit};
use crate::header::Via;
use crate::hop::Hop;
use crate::message::{HeaderName, Message, Method, StatusCode};

/// Whose timer it is.
#[derive(Clone, Copy, Debug)]
enum Due {
    Client(ClientKey, Timer),
    Server(ServerKey, Timer),
}

/// The running timers of one transaction, by [`Slot`].
#[derive(Clone, Copy, Debug, Default)]
struct Running([Option<TimerId>; 2]);

impl Running {
    fn take(&mut self, slot: Slot) -> Option<TimerId> {
        self.0[slot as usize].take()
    }
}

#[derive(Debug)]
enum ClientMachine {
    Invite(InviteClient),
    Other(Client),
}

#[derive(Debug)]
struct ClientEntry {
    machine: ClientMachine,
    key: ClientMatch,
    hop: Hop,
    /// Name its host must prove to have.
    host: Option<Arc<str>>,
    /// The request as sent.
    bytes: Bytes,
    /// The INVITE, for the ACK and the CANCEL that are made of it.
    invite: Option<Box<Message>>,
    /// The ACK of a non-2xx, once made.
    ack: Option<Bytes>,
    /// Reason header of a CANCEL.
    reason: Option<String>,
    /// A CANCEL of ours: nobody hears of it.
    internal: bool,
    running: Running,
}

#[derive(Debug)]
enum ServerMachine {
    Invite(InviteServer),
    Other(Server),
}

#[derive(Debug)]
struct ServerEntry {
    machine: ServerMachine,
    key: ServerMatch,
    /// Found by headers instead of the branch (§17.2.3).
    legacy: bool,
    /// See [`TransactionLayer::is_merged`].
    merge: Option<String>,
    /// Where the request came from.
    source: Hop,
    /// Where the responses go.
    hop: Hop,
    /// Until there is a final response.
    request: Option<Box<Message>>,
    /// The last response.
    response: Option<Bytes>,
    /// To tag of the last response that had one.
    to_tag: Option<String>,
    /// The user has heard of a CANCEL.
    cancelled: bool,
    running: Running,
}

/// All transactions of one element.
#[derive(Debug)]
pub struct TransactionLayer {
    timers: Timers,
    limits: TableLimits,
    rng: ChaCha12Rng,
    next_key: u64,
    clients: HashMap<ClientKey, ClientEntry>,
    client_index: HashMap<ClientMatch, ClientKey>,
    servers: HashMap<ServerKey, ServerEntry>,
    server_index: HashMap<ServerMatch, ServerKey>,
    /// The first transaction of each request outside a dialog.
    merge_index: HashMap<String, ServerKey>,
    wheel: Wheel<Due>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl TransactionLayer {
    /// An empty layer. `seed` feeds branch generation.
    #[must_use]
    pub fn new(timers: Timers, seed: [u8; 32]) -> Self {
        Self::with_limits(timers, TableLimits::default(), seed)
    }

    /// An empty layer that holds at most so many transactions.
    #[must_use]
    pub fn with_limits(timers: Timers, limits: TableLimits, seed: [u8; 32]) -> Self {
        Self {
            timers,
            limits,
            rng: ChaCha12Rng::from_seed(seed),
            next_key: 0,
            clients: HashMap::new(),
            client_index: HashMap::new(),
            servers: HashMap::new(),
            server_index: HashMap::new(),
            merge_index: HashMap::new(),
            wheel: Wheel::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes in a message that came over `hop`. Requests: stamps `received`/`rport` (RFC 3581 §4), absorbs
    /// retransmissions (answering them), matches by branch + sent-by + method (§17.2.3). Responses: to their client
    /// transaction by top Via branch + CSeq method. A message whose top Via cannot be read is dropped: there is
    /// nothing to match it by and nowhere to answer it.
    pub fn handle_message(&mut self, now: Instant, mut message: Message, hop: Hop) {
        let Ok(mut via) = message.top_via() else {
            return;
        };
        if !message.is_request() {
            self.handle_response(now, message, &via, hop);
            return;
        }
        // What identifies the request is read before the stamps change it.
        let method = message.method().clone();
        let matched = match method {
            Method::Ack => matching::server_match(&message, &via, &Method::Invite),
            _ => matching::server_match(&message, &via, &method),
        };
        let under_invite = (method == Method::Cancel)
            .then(|| matching::server_match(&message, &via, &Method::Invite).key);
        if matching::stamp(&mut via, &hop) {
            message.set_front(HeaderName::Via, via.to_string());
        }
        let known = self.server_index.get(&matched.key).copied();
        match (method, known) {
            (Method::Ack, _) => self.handle_ack(now, known, message, hop),
            (Method::Cancel, None) => {
                let invite = under_invite.and_then(|key| self.server_index.get(&key).copied());
                if !self.handle_cancel(invite, &message, &via, hop) {
                    self.handle_request(now, message, &via, hop, matched);
                }
            }
            (_, Some(key)) => {
                let effects = match self.servers.get_mut(&key).map(|s| &mut s.machine) {
                    Some(ServerMachine::Invite(machine)) => machine.on_request(),
                    Some(ServerMachine::Other(machine)) => machine.on_request(),
                    None => return,
                };
                self.carry_out_server(now, key, effects, None);
            }
            (_, None) => self.handle_request(now, message, &via, hop, matched),
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        message: Message,
        via: &Via,
        hop: Hop,
        matched: matching::Matched,
    ) {
        let merge = matching::merge_match(&message);
        // Behind the limit for new requests there is room for those inside dialogs: `merge` is for requests without
        // a To tag.
        let reserve = match merge {
            Some(_) => self.limits.servers / 8,
            None => 0,
        };
        if self.servers.len() >= self.limits.servers - reserve {
            self.events.push_back(Event::Overloaded { message, hop });
            return;
        }
        let key = ServerKey(self.take_key());
        let reliable = hop.transport.is_reliable();
        let (machine, effects) = if *message.method() == Method::Invite {
            let (machine, effects) = InviteServer::new(reliable, &self.timers);
            (ServerMachine::Invite(machine), effects)
        } else {
            let (machine, effects) = Server::new(reliable, &self.timers);
            (ServerMachine::Other(machine), effects)
        };
        self.server_index.insert(matched.key.clone(), key);
        if let Some(merge) = &merge {
            self.merge_index.entry(merge.clone()).or_insert(key);
        }
        self.servers.insert(
            key,
            ServerEntry {
                machine,
                key: matched.key,
                legacy: matched.legacy,
                merge,
                source: hop,
                hop: matching::response_hop(via, &hop),
                request: Some(Box::new(message.clone())),
                response: None,
                to_tag: None,
                cancelled: false,
                running: Running::default(),
            },
        );
        let request = Event::Request { key, message, hop };
        self.carry_out_server(now, key, effects, Some(request));
    }

    fn handle_ack(&mut self, now: Instant, key: Option<ServerKey>, message: Message, hop: Hop) {
        let ack = |message| Event::Ack { message, hop };
        let Some(key) = key else {
            self.events.push_back(ack(message));
            return;
        };
        let Some(entry) = self.servers.get_mut(&key) else {
            return;
        };
        // §17.2.3: without a unique branch, the To tag tells the ACK of our response from that of another's.
        if entry.legacy {
            let tag = message.header(HeaderName::To).and_then(matching::tag_of);
            if tag != entry.to_tag.as_deref() {
                self.events.push_back(ack(message));
                return;
            }
        }
        let ServerMachine::Invite(machine) = &mut entry.machine else {
            return;
        };
        let effects = machine.on_ack(&self.timers);
        self.carry_out_server(now, key, effects, Some(ack(message)));
    }

    /// §9.2. Returns whether it was the CANCEL of a transaction of ours.
    fn handle_cancel(
        &mut self,
        invite: Option<ServerKey>,
        message: &Message,
        via: &Via,
        hop: Hop,
    ) -> bool {
        let Some((key, entry)) = invite.and_then(|key| Some((key, self.servers.get_mut(&key)?)))
        else {
            return false;
        };
        // A CANCEL cannot be challenged; §22.1 wants it to come from the hop that sent the request.
        if !matching::same_host(entry.source.remote, hop.remote) {
            return false;
        }
        // §9.2: the To tag of the 200 is the one that the INVITE's responses have.
        let tag = match &entry.to_tag {
            Some(tag) => tag.clone(),
            None => {
                let tag = random_token(&mut self.rng);
                entry.to_tag = Some(tag.clone());
                tag
            }
        };
        let pending = matches!(&entry.machine, ServerMachine::Invite(m)
            if m.state() == invite_server::State::Proceeding);
        // The 200 is always the same, so repeated CANCELs need no transaction of their own.
        let ok = Message::response(message, StatusCode::of(200), None, Some(&tag));
        self.transmits.push_back(Transmit {
            hop: matching::response_hop(via, &hop),
            bytes: ok.to_bytes(),
            client: None,
            host: None,
        });
        if pending && !std::mem::replace(&mut entry.cancelled, true) {
            self.events.push_back(Event::Cancel {
                key,
                message: message.clone(),
            });
        }
        true
    }

    fn handle_response(&mut self, now: Instant, message: Message, via: &Via, hop: Hop) {
        let Some(status) = message.status() else {
            return;
        };
        let wanted = matching::client_match(via.branch(), message.method());
        let Some(key) = self.client_index.get(&wanted).copied() else {
            self.events.push_back(Event::StrayResponse { message });
            return;
        };
        let Some(entry) = self.clients.get_mut(&key) else {
            return;
        };
        let effects = match &mut entry.machine {
            ClientMachine::Invite(machine) => machine.on_response(status, &self.timers),
            ClientMachine::Other(machine) => machine.on_response(status, &self.timers),
        };
        if effects.contains(&Effect::SendAck)
            && entry.ack.is_none()
            && let Some(invite) = &entry.invite
        {
            entry.ack = Some(ack_of_failure(invite, &message).to_bytes());
        }
        let response = Event::Response { key, message, hop };
        self.carry_out_client(now, key, effects, Some(response));
    }

    /// Whether a request belongs to a server transaction that lives: a retransmission, or the CANCEL of an INVITE.
    /// Such a request must be handed to [`Self::handle_message`] whatever the user thinks of new ones.
    #[must_use]
    pub fn knows(&self, request: &Message) -> bool {
        let Ok(via) = request.top_via() else {
            return false;
        };
        let lives = |method| {
            let matched = matching::server_match(request, &via, method);
            self.server_index.contains_key(&matched.key)
        };
        lives(request.method()) || *request.method() == Method::Cancel && lives(&Method::Invite)
    }

    /// Sends a request in a new client transaction: pushes a Via `SIP/2.0/<transport> <sent_by>;branch=z9hG4bK...;rport`.
    /// `sent_by` is `host[:port]` as others reach us on that transport. For ACK (2xx) use [`Self::send_stateless`].
    /// `branch` overrides the generated one (a proxy's loop-detecting branch); it must be unique, and one of more
    /// than 256 bytes is not used.
    ///
    /// With a full table nothing is sent and [`Event::TransportFailed`] follows.
    pub fn send_request(
        &mut self,
        now: Instant,
        request: Message,
        hop: Hop,
        sent_by: &str,
        branch: Option<&str>,
    ) -> ClientKey {
        self.send_request_to_host(now, request, hop, None, sent_by, branch)
    }

    /// As [`Self::send_request`], to a host that was found by its name: over TLS its certificate must carry `host`,
    /// and so for the CANCEL and the ACK of a failure, which go the same way (RFC 3263 §4, RFC 5922 §7.3).
    pub fn send_request_to_host(
        &mut self,
        now: Instant,
        mut request: Message,
        hop: Hop,
        host: Option<Arc<str>>,
        sent_by: &str,
        branch: Option<&str>,
    ) -> ClientKey {
        if *request.method() == Method::Ack {
            // An ACK has no transaction (§17.1): the key names none.
            self.send_stateless_to_host(request, hop, host, sent_by, branch);
            return ClientKey(self.take_key());
        }
        if self.clients.len() >= self.limits.clients {
            let key = ClientKey(self.take_key());
            self.events.push_back(Event::TransportFailed { key });
            return key;
        }
        let branch = self.push_via(&mut request, hop, sent_by, branch);
        self.start_client(now, request, (hop, host), &branch, false)
    }

    fn start_client(
        &mut self,
        now: Instant,
        request: Message,
        (hop, host): (Hop, Option<Arc<str>>),
        branch: &str,
        internal: bool,
    ) -> ClientKey {
        let key = ClientKey(self.take_key());
        let reliable = hop.transport.is_reliable();
        let is_invite = *request.method() == Method::Invite;
        let (machine, effects) = if is_invite {
            let (machine, effects) = InviteClient::new(reliable, &self.timers);
            (ClientMachine::Invite(machine), effects)
        } else {
            let (machine, effects) = Client::new(reliable, &self.timers);
            (ClientMachine::Other(machine), effects)
        };
        let matched = matching::client_match(branch, request.method());
        self.client_index.insert(matched.clone(), key);
        let bytes = request.to_bytes();
        self.clients.insert(
            key,
            ClientEntry {
                machine,
                key: matched,
                hop,
                host,
                bytes,
                invite: is_invite.then(|| Box::new(request)),
                ack: None,
                reason: None,
                internal,
                running: Running::default(),
            },
        );
        self.carry_out_client(now, key, effects, None);
        key
    }

    /// Sends a request outside any transaction: ACK of a 2xx.
    pub fn send_stateless(
        &mut self,
        request: Message,
        hop: Hop,
        sent_by: &str,
        branch: Option<&str>,
    ) {
        self.send_stateless_to_host(request, hop, None, sent_by, branch);
    }

    /// As [`Self::send_stateless`], to a host that was found by its name: over TLS its certificate must carry `host`.
    pub fn send_stateless_to_host(
        &mut self,
        mut request: Message,
        hop: Hop,
        host: Option<Arc<str>>,
        sent_by: &str,
        branch: Option<&str>,
    ) {
        self.push_via(&mut request, hop, sent_by, branch);
        self.transmits.push_back(Transmit {
            hop,
            bytes: request.to_bytes(),
            client: None,
            host,
        });
    }

    /// Sends a response without a transaction, to a request that came over `hop` (see [`Event::Overloaded`]). Its
    /// top Via must be the request's as it was handed up. Without a readable one nothing is sent.
    pub fn respond_stateless(&mut self, response: &Message, hop: Hop) {
        if let Ok(via) = response.top_via() {
            self.transmits.push_back(Transmit {
                hop: matching::response_hop(&via, &hop),
                bytes: response.to_bytes(),
                client: None,
                host: None,
            });
        }
    }

    /// Sends a response in a server transaction. Goes back over the request's hop (RFC 3261 §18.2.2, RFC 3581 §4).
    /// Unknown or finished keys are ignored (a 2xx to INVITE may be sent repeatedly, also in Accepted). To a
    /// request other than INVITE, provisional responses but 100 are not sent, and neither is a 408 (RFC 4320 §4).
    pub fn respond(&mut self, now: Instant, key: ServerKey, response: Message) {
        let Some(status) = response.status() else {
            return;
        };
        let Some(entry) = self.servers.get_mut(&key) else {
            return;
        };
        let effects = match &mut entry.machine {
            ServerMachine::Invite(machine) => machine.on_response(status, &self.timers),
            ServerMachine::Other(machine) => machine.on_response(status, &self.timers),
        };
        if effects.contains(&Effect::SendResponse) {
            if let Some(tag) = response.header(HeaderName::To).and_then(matching::tag_of)
                && entry.to_tag.as_deref() != Some(tag)
            {
                entry.to_tag = Some(tag.to_owned());
            }
            entry.response = Some(response.to_bytes());
            if status.is_final() {
                entry.request = None;
            }
        }
        self.carry_out_server(now, key, effects, None);
    }

    /// Sends CANCEL for a pending INVITE of ours: at once after a provisional, else when one comes; nothing if
    /// a final response was first (§9.1).
    pub fn cancel(&mut self, now: Instant, key: ClientKey, reason: Option<&str>) {
        let Some(entry) = self.clients.get_mut(&key) else {
            return;
        };
        let ClientMachine::Invite(machine) = &mut entry.machine else {
            return;
        };
        let effects = machine.on_cancel_requested(&self.timers);
        if entry.reason.is_none() {
            entry.reason = reason.map(str::to_owned);
        }
        self.carry_out_client(now, key, effects, None);
    }

    /// Drops a client transaction the user no longer cares for (Timer C after CANCEL).
    pub fn forget(&mut self, key: ClientKey) {
        self.end_client(key);
    }

    /// The transport could not send for that client transaction.
    pub fn handle_transport_error(&mut self, now: Instant, key: ClientKey) {
        let effects = match self.clients.get_mut(&key).map(|c| &mut c.machine) {
            Some(ClientMachine::Invite(machine)) => machine.on_transport_error(),
            Some(ClientMachine::Other(machine)) => machine.on_transport_error(),
            None => return,
        };
        self.carry_out_client(now, key, effects, None);
    }

    /// The original request of a server transaction that has no final response yet.
    #[must_use]
    pub fn request(&self, key: ServerKey) -> Option<&Message> {
        self.servers.get(&key)?.request.as_deref()
    }

    /// Whether the request also came another way (§8.2.2.2): it has no To tag, and another transaction that is
    /// still there began with the same From tag, Call-ID and CSeq. A UAS answers 482; a proxy may not care.
    #[must_use]
    pub fn is_merged(&self, key: ServerKey) -> bool {
        self.servers
            .get(&key)
            .and_then(|entry| self.merge_index.get(entry.merge.as_ref()?))
            .is_some_and(|first| *first != key)
    }

    /// When [`Self::handle_timeout`] wants to be called. Now and then a little before the next timer, never after.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Fires every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.wheel.fire(now) {
            match due {
                Due::Client(key, timer) => self.client_timer_fired(now, key, timer),
                Due::Server(key, timer) => self.server_timer_fired(now, key, timer),
            }
        }
    }

    fn client_timer_fired(&mut self, now: Instant, key: ClientKey, timer: Timer) {
        let Some(entry) = self.clients.get_mut(&key) else {
            return;
        };
        entry.running.take(timer.slot());
        let effects = match &mut entry.machine {
            ClientMachine::Invite(machine) => machine.on_timer(timer),
            ClientMachine::Other(machine) => machine.on_timer(timer, &self.timers),
        };
        self.carry_out_client(now, key, effects, None);
    }

    fn server_timer_fired(&mut self, now: Instant, key: ServerKey, timer: Timer) {
        let Some(entry) = self.servers.get_mut(&key) else {
            return;
        };
        entry.running.take(timer.slot());
        let effects = match &mut entry.machine {
            ServerMachine::Invite(machine) => machine.on_timer(timer, &self.timers),
            ServerMachine::Other(machine) => machine.on_timer(timer),
        };
        self.carry_out_server(now, key, effects, None);
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What the user must handle next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Live transactions: (client, server), for metrics.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.clients.len(), self.servers.len())
    }

    /// Whether there is no transaction at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.servers.is_empty()
    }

    // ---- carrying out what a machine asked for

    fn carry_out_client(
        &mut self,
        now: Instant,
        key: ClientKey,
        effects: Effects,
        mut message: Option<Event>,
    ) {
        for effect in effects {
            match effect {
                Effect::SendRequest => self.send_for(key, |c| Some(c.bytes.clone())),
                Effect::SendAck => self.send_for(key, |c| c.ack.clone()),
                Effect::SendCancel => self.send_cancel(now, key),
                Effect::Deliver => self.tell_client(key, message.take()),
                Effect::TimedOut => self.tell_client(key, Some(Event::Timeout { key })),
                Effect::TransportFailed => {
                    self.tell_client(key, Some(Event::TransportFailed { key }));
                }
                Effect::Start(timer, after) => {
                    if let Some(entry) = self.clients.get_mut(&key) {
                        let id = self.wheel.insert(now, now + after, Due::Client(key, timer));
                        let slot = timer.slot() as usize;
                        if let Some(old) = entry.running.0[slot].replace(id) {
                            self.wheel.cancel(old);
                        }
                    }
                }
                Effect::Stop(timer) => {
                    if let Some(old) = self
                        .clients
                        .get_mut(&key)
                        .and_then(|c| c.running.take(timer.slot()))
                    {
                        self.wheel.cancel(old);
                    }
                }
                Effect::End => self.end_client(key),
                Effect::SendResponse
                | Effect::SendTrying
                | Effect::Acknowledged
                | Effect::NotAcknowledged => {
                    debug_assert!(false, "a client machine asked for {effect:?}");
                }
            }
        }
    }

    fn carry_out_server(
        &mut self,
        now: Instant,
        key: ServerKey,
        effects: Effects,
        mut message: Option<Event>,
    ) {
        for effect in effects {
            match effect {
                Effect::SendResponse => self.send_response(key),
                Effect::SendTrying => {
                    if let Some(entry) = self.servers.get_mut(&key)
                        && let Some(request) = &entry.request
                    {
                        entry.response = Some(trying(request).to_bytes());
                    }
                    self.send_response(key);
                }
                Effect::Deliver => self.events.extend(message.take()),
                Effect::Acknowledged => self.events.push_back(Event::Acknowledged { key }),
                Effect::NotAcknowledged => self.events.push_back(Event::NotAcknowledged { key }),
                Effect::Start(timer, after) => {
                    if let Some(entry) = self.servers.get_mut(&key) {
                        let id = self.wheel.insert(now, now + after, Due::Server(key, timer));
                        let slot = timer.slot() as usize;
                        if let Some(old) = entry.running.0[slot].replace(id) {
                            self.wheel.cancel(old);
                        }
                    }
                }
                Effect::Stop(timer) => {
                    if let Some(old) = self
                        .servers
                        .get_mut(&key)
                        .and_then(|s| s.running.take(timer.slot()))
                    {
                        self.wheel.cancel(old);
                    }
                }
                Effect::End => self.end_server(key),
                Effect::SendRequest
                | Effect::SendAck
                | Effect::SendCancel
                | Effect::TimedOut
                | Effect::TransportFailed => {
                    debug_assert!(false, "a server machine asked for {effect:?}");
                }
            }
        }
    }

    fn send_for(&mut self, key: ClientKey, what: impl Fn(&ClientEntry) -> Option<Bytes>) {
        if let Some(entry) = self.clients.get(&key)
            && let Some(bytes) = what(entry)
        {
            self.transmits.push_back(Transmit {
                hop: entry.hop,
                bytes,
                client: Some(key),
                host: entry.host.clone(),
            });
        }
    }

    fn send_response(&mut self, key: ServerKey) {
        if let Some(entry) = self.servers.get(&key)
            && let Some(bytes) = &entry.response
        {
            self.transmits.push_back(Transmit {
                hop: entry.hop,
                bytes: bytes.clone(),
                client: None,
                host: None,
            });
        }
    }

    /// §9.1: the CANCEL goes the INVITE's way, in a transaction of its own that nobody hears of.
    fn send_cancel(&mut self, now: Instant, key: ClientKey) {
        let Some(entry) = self.clients.get(&key) else {
            return;
        };
        let Some((invite, via)) = entry
            .invite
            .as_deref()
            .and_then(|invite| Some((invite, invite.top_via().ok()?)))
        else {
            return;
        };
        let cancel = cancel_of(invite, entry.reason.as_deref());
        let way = (entry.hop, entry.host.clone());
        self.start_client(now, cancel, way, via.branch(), true);
    }

    fn tell_client(&mut self, key: ClientKey, event: Option<Event>) {
        let internal = self.clients.get(&key).is_some_and(|c| c.internal);
        if !internal {
            self.events.extend(event);
        }
    }

    fn end_client(&mut self, key: ClientKey) {
        let Some(mut entry) = self.clients.remove(&key) else {
            return;
        };
        for timer in entry.running.0.iter_mut().filter_map(Option::take) {
            self.wheel.cancel(timer);
        }
        // With a branch that the user gave twice, the entry is the other transaction's.
        if self.client_index.get(&entry.key) == Some(&key) {
            self.client_index.remove(&entry.key);
        }
    }

    fn end_server(&mut self, key: ServerKey) {
        let Some(mut entry) = self.servers.remove(&key) else {
            return;
        };
        for timer in entry.running.0.iter_mut().filter_map(Option::take) {
            self.wheel.cancel(timer);
        }
        self.server_index.remove(&entry.key);
        if let Some(merge) = &entry.merge
            && self.merge_index.get(merge) == Some(&key)
        {
            self.merge_index.remove(merge);
        }
    }

    // ---- making things

    fn take_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Pushes our Via and returns its branch.
    fn push_via(
        &mut self,
        request: &mut Message,
        hop: Hop,
        sent_by: &str,
        branch: Option<&str>,
    ) -> String {
        let branch = match branch {
            Some(branch) if branch.len() <= MAX_BRANCH => branch.to_owned(),
            _ => format!("{COOKIE}{}", random_token(&mut self.rng)),
        };
        let token = hop.transport.via_token();
        request.push_front(
            HeaderName::Via,
            format!("SIP/2.0/{token} {sent_by};branch={branch};rport"),
        );
        branch
    }
}

/// 96 random bits: unguessable, since a branch is all that a forged response would need.
fn random_token(rng: &mut ChaCha12Rng) -> String {
    let mut bytes = [0u8; 12];
    rng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}
