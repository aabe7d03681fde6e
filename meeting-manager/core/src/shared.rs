//! What all meetings of a focus share: transactions, randomness, timers, indices, and the queue of commands.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::Txn;
use control::v1 as ctl;
use sip::dialog::{Dialog, DialogId};
use sip::transaction::{ClientKey, ServerKey, TransactionLayer};
use sip::{HeaderName, Hop, Message, Method, StatusCode, Transport, Uri};

use crate::command::Command;
use crate::config::FocusConfig;
use crate::ids::{MeetingId, OpId, ParticipantId, SubscriptionId, SwitchId};
use crate::refusal::Refusal;
use crate::registrars::Registrars;
use crate::rng::Rng;
use crate::succession::Ownership;
use crate::switch_choice::SwitchTable;
use crate::timer_queue::TimerQueue;

/// Above this a request that may go either way goes over TCP (RFC 3261 §18.1.1: 200 bytes below the MTU).
const UDP_LIMIT: usize = 1_300;

/// How long a member without a lease goes on as if nothing were: etcd elects a leader in that time.
pub(crate) const FENCE_PATIENCE: Duration = Duration::from_secs(2);

/// Methods this element takes, for Allow.
pub(crate) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, SUBSCRIBE, INFO";

/// Extensions this element has, for Supported.
pub(crate) const SUPPORTED: &str = "100rel, timer";

/// The one type of body that means something here.
pub(crate) const SDP: &str = "application/sdp";

/// Bodies an INVITE may have, for Accept.
pub(crate) const ACCEPT: &str = "application/sdp, multipart/mixed, multipart/alternative";

/// The event package (RFC 4575).
pub(crate) const EVENT: &str = "conference";

/// Whose dialog it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DialogUser {
    Participant(ParticipantId),
    Subscription(SubscriptionId),
}

/// Why we sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Bye(ParticipantId),
    Reinvite(ParticipantId),
    Update(ParticipantId),
    Notify(SubscriptionId),
    /// Nobody waits for the answer.
    Farewell,
}

/// A request of ours that is not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct ClientUse {
    pub(crate) meeting: MeetingId,
    pub(crate) purpose: Purpose,
    /// As it went out, for another way.
    sent: Option<Box<Sent>>,
}

/// A request and where it went.
#[derive(Clone, Debug)]
struct Sent {
    request: Message,
    transport: Transport,
    remote: SocketAddr,
    /// It is the second try.
    again: bool,
}

/// What an operation of the shell is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpUse {
    Claim(MeetingId),
    Dialog(MeetingId, ParticipantId),
    Subscription(MeetingId, SubscriptionId),
    Release(MeetingId),
    Apply(MeetingId),
    Resolve,
    Ignored,
}

/// Deadlines of an INVITE dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ParticipantTimer {
    /// When a 2xx that nobody acknowledged is sent again, or given up (RFC 3261 §13.3.1.4).
    Accepted,
    /// When a reliable provisional response is sent again, or given up (RFC 3262 §3).
    Reliable,
    /// When the session is to be refreshed, or has expired (RFC 4028 §10).
    Session,
    /// When a re-INVITE that met another, or came at a bad time, is tried again (RFC 3261 §14.1).
    Glare,
    /// When a deletion that the store refused is tried again.
    Delete,
    /// When a leg that no switch took is wanted again.
    Leg,
    /// When the record no longer says that the ACK is missing.
    Tidy,
}

impl ParticipantTimer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Leg,
        Self::Tidy,
        Self::Accepted,
        Self::Reliable,
        Self::Session,
        Self::Glare,
        Self::Delete,
    ];
}

/// Deadlines of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SubscriptionTimer {
    /// When it expires unless refreshed.
    Expiry,
    /// When a deletion that the store refused is tried again.
    Delete,
    /// When a subscriber that could not take a NOTIFY is told again.
    Notify,
}

/// Deadlines of a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MeetingTimer {
    /// When a switch that failed is told again.
    ApplyAgain,
    /// When the release of the ownership is tried again.
    ReleaseAgain,
    /// When subscribers may be told of the next change.
    Feed,
    /// When a switch that is being left is told so, whoever has not answered.
    Left,
}

/// Names a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    Participant(MeetingId, ParticipantId, ParticipantTimer),
    Subscription(MeetingId, SubscriptionId, SubscriptionTimer),
    Meeting(MeetingId, MeetingTimer),
}

#[derive(Debug)]
struct Unresolved {
    request: Message,
    transport: Transport,
    /// The URI names its transport, so that size does not change it.
    fixed: bool,
    /// `None`: an ACK, which has no transaction.
    purpose: Option<ClientUse>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: FocusConfig,
    pub(crate) txns: TransactionLayer,
    pub(crate) rng: Rng,
    pub(crate) switches: SwitchTable,
    registrars: Registrars,
    pub(crate) timers: TimerQueue<TimerKey>,
    pub(crate) dialogs: BTreeMap<DialogId, (MeetingId, DialogUser)>,
    /// (Call-ID, From tag) of INVITEs outside any dialog, with their CSeq: what a merged one (RFC 3261 §8.2.2.2)
    /// and a CANCEL are known by.
    pub(crate) entries: BTreeMap<(String, String), (MeetingId, u32)>,
    pub(crate) clients: BTreeMap<ClientKey, ClientUse>,
    /// The latest re-INVITE of a participant: its 2xx may come again after the transaction's first answer.
    reinvites: BTreeMap<ParticipantId, ClientKey>,
    pub(crate) ops: BTreeMap<OpId, OpUse>,
    commands: VecDeque<Command>,
    unresolved: BTreeMap<OpId, Unresolved>,
    next_op: u64,
    clock: (Instant, u64),
    /// Since when the store does not take this member for a living one.
    pub(crate) fenced_since: Option<Instant>,
}

impl Shared {
    /// `unix_ms` is the wall-clock time at `now`.
    pub(crate) fn new(config: FocusConfig, seed: [u8; 32], now: Instant, unix_ms: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            txns: TransactionLayer::new(config.timers, rng.seed()),
            config,
            rng,
            switches: SwitchTable::default(),
            registrars: Registrars::default(),
            timers: TimerQueue::new(),
            dialogs: BTreeMap::new(),
            entries: BTreeMap::new(),
            clients: BTreeMap::new(),
            reinvites: BTreeMap::new(),
            ops: BTreeMap::new(),
            commands: VecDeque::new(),
            unresolved: BTreeMap::new(),
            next_op: 0,
            clock: (now, unix_ms),
            fenced_since: None,
        }
    }

    /// Wall-clock time, ms since the Unix epoch; follows the monotonic clock, so that it never jumps.
    pub(crate) fn unix_ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.clock.0);
        self.clock.1 + u64::try_from(since.as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// The monotonic time of a wall-clock deadline; one that is past is now.
    pub(crate) fn instant_of(&self, unix_ms: u64, now: Instant) -> Instant {
        now + Duration::from_millis(unix_ms.saturating_sub(self.unix_ms(now)))
    }

    // ---- operations of the shell

    fn op(&mut self, purpose: OpUse) -> OpId {
        self.next_op += 1;
        let op = OpId(self.next_op);
        self.ops.insert(op, purpose);
        op
    }

    pub(crate) fn claim(&mut self, meeting: MeetingId, record: Bytes, from: Option<Ownership>) {
        let op = self.op(OpUse::Claim(meeting.clone()));
        self.commands.push_back(Command::Claim {
            op,
            meeting,
            record,
            from,
        });
    }

    /// Tells the shell something that it does not answer.
    pub(crate) fn tell(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    /// The store cannot be reached, or does not know this member, and for longer than it takes to elect a leader: what
    /// would change a record is refused at once.
    pub(crate) fn is_cut_off(&self, now: Instant) -> bool {
        self.fenced_since
            .is_some_and(|since| now.saturating_duration_since(since) >= FENCE_PATIENCE)
    }

    pub(crate) fn store(&mut self, purpose: OpUse, txn: Txn) {
        let op = self.op(purpose);
        self.commands.push_back(Command::Store { op, txn });
    }

    pub(crate) fn apply(
        &mut self,
        purpose: OpUse,
        switch: SwitchId,
        request: ctl::ApplyRequest,
    ) -> OpId {
        let op = self.op(purpose);
        self.commands.push_back(Command::Apply {
            op,
            switch,
            request,
        });
        op
    }

    /// What to do next; bytes for the wire go first, in the order the transactions made them.
    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        if let Some(transmit) = self.txns.poll_transmit() {
            return Some(Command::Transmit(transmit));
        }
        self.commands.pop_front()
    }

    // ---- responses

    /// Answers a request.
    pub(crate) fn respond(&mut self, now: Instant, key: ServerKey, mut response: Message) {
        response.set(HeaderName::Server, self.config.server.clone());
        self.txns.respond(now, key, response);
    }

    /// Sends a response again whose transaction was an earlier process's: its Via says where (RFC 3261 §18.2.2). A
    /// host that is not an address is not looked up: an element of ours writes none.
    pub(crate) fn respond_again(&mut self, mut response: Message) {
        response.set(HeaderName::Server, self.config.server.clone());
        let Ok(via) = response.top_via() else {
            return;
        };
        let Ok(transport) = via.transport.parse::<Transport>() else {
            return;
        };
        let written = via.host.trim_matches(['[', ']']).parse().ok();
        let source = via.params.get("rport").and_then(|port| port.parse().ok());
        let port = source
            .filter(|_| transport == Transport::Udp)
            .or(via.port)
            .unwrap_or_else(|| transport.default_port());
        if let Some(ip) = via.received().or(written) {
            let hop = Hop::to(transport, SocketAddr::new(ip, port));
            self.txns.respond_stateless(&response, hop);
        }
    }

    /// Refuses a request outside any dialog.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: &Message,
        why: &Refusal,
    ) {
        let tag = self.rng.tag();
        self.respond(now, key, why.response(request, &tag));
    }

    /// Refuses a request that would have made a dialog.
    pub(crate) fn refuse_entry(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: &Message,
        why: &Refusal,
    ) {
        if let Some(entry) = entry_of(request) {
            self.entries.remove(&entry);
        }
        self.refuse(now, key, request, why);
    }

    /// Refuses a request in a dialog.
    pub(crate) fn refuse_in(
        &mut self,
        now: Instant,
        key: ServerKey,
        dialog: &Dialog,
        request: &Message,
        why: &Refusal,
    ) {
        let mut response = dialog.response(request, why.status, Some(&why.reason));
        why.decorate(&mut response);
        self.respond(now, key, response);
    }

    /// Answers 200 in a dialog, without a body.
    pub(crate) fn accept_in(
        &mut self,
        now: Instant,
        key: ServerKey,
        dialog: &Dialog,
        request: &Message,
    ) {
        let response = dialog.response(request, StatusCode::of(200), None);
        self.respond(now, key, response);
    }

    // ---- requests

    /// Sends a request of a dialog where the dialog says it goes.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        dialog: &Dialog,
        mut request: Message,
        meeting: &MeetingId,
        purpose: Purpose,
    ) {
        request.set(HeaderName::UserAgent, self.config.server.clone());
        let client = ClientUse {
            meeting: meeting.clone(),
            purpose,
            sent: None,
        };
        self.route(now, dialog.next_hop_uri(), request, Some(client));
    }

    /// Sends an ACK of a 2xx.
    pub(crate) fn send_ack(&mut self, now: Instant, dialog: &Dialog, ack: Message) {
        self.route(now, dialog.next_hop_uri(), ack, None);
    }

    fn route(
        &mut self,
        now: Instant,
        next_hop: &str,
        request: Message,
        purpose: Option<ClientUse>,
    ) {
        let Some((uri, transport)) = Uri::parse(next_hop)
            .ok()
            .and_then(|u| u.transport().map(|t| (u, t)))
        else {
            // Nothing can go there; the transaction's time-out is what the dialog hears.
            self.fail_unsendable(now, request, purpose);
            return;
        };
        let unresolved = Unresolved {
            request,
            transport,
            fixed: uri.param("transport").is_some() || transport != Transport::Udp,
            purpose,
        };
        if let Some(ip) = uri.ip() {
            let port = uri.port.unwrap_or_else(|| transport.default_port());
            self.dispatch(now, unresolved, SocketAddr::new(ip, port));
        } else {
            let op = self.op(OpUse::Resolve);
            self.commands.push_back(Command::Resolve {
                op,
                host: uri.host.clone(),
                port: uri.port,
            });
            self.unresolved.insert(op, unresolved);
        }
    }

    fn dispatch(&mut self, now: Instant, unresolved: Unresolved, remote: SocketAddr) {
        let Unresolved {
            request,
            mut transport,
            fixed,
            purpose,
        } = unresolved;
        if !fixed && request.to_bytes().len() > UDP_LIMIT {
            transport = Transport::Tcp;
        }
        let remote = match self.registrars.is_gone(transport, remote) {
            true => self.another_registrar(transport, remote),
            false => None,
        }
        .unwrap_or(remote);
        let sent = Sent {
            request,
            transport,
            remote,
            again: false,
        };
        self.put_out(now, sent, purpose);
    }

    fn another_registrar(
        &mut self,
        transport: Transport,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        let salt = self.rng.bits();
        self.registrars.another(transport, remote, salt)
    }

    fn put_out(&mut self, now: Instant, sent: Sent, purpose: Option<ClientUse>) {
        let hop = Hop::to(sent.transport, sent.remote);
        let sent_by = match sent.transport {
            Transport::Udp => self.config.sent_by.clone(),
            _ => self.config.sent_by_stream.clone(),
        };
        match purpose {
            Some(mut client) => {
                let request = sent.request.clone();
                client.sent = Some(Box::new(sent));
                let key = self.txns.send_request(now, request, hop, &sent_by, None);
                self.remember(key, client);
            }
            None => self.txns.send_stateless(sent.request, hop, &sent_by, None),
        }
    }

    /// A request could not be sent: another registrar may, once. `false` where there is none.
    pub(crate) fn send_elsewhere(&mut self, now: Instant, key: ClientKey) -> bool {
        let sent = self
            .clients
            .get(&key)
            .and_then(|client| client.sent.as_ref());
        let Some(mut sent) = sent.filter(|sent| !sent.again).map(|s| (**s).clone()) else {
            return false;
        };
        let Some(remote) = self.another_registrar(sent.transport, sent.remote) else {
            return false;
        };
        sent.remote = remote;
        sent.again = true;
        let client = self.clients.remove(&key);
        self.put_out(now, sent, client);
        true
    }

    /// The registrars that live now. What was sent through one that is gone, and is not answered, goes through another.
    pub(crate) fn set_registrars(&mut self, now: Instant, living: &BTreeMap<String, Vec<String>>) {
        self.registrars.set(living);
        let lost = |client: &ClientUse| {
            let sent = client.sent.as_ref();
            sent.is_some_and(|s| self.registrars.is_gone(s.transport, s.remote))
        };
        let lost: Vec<ClientKey> = self
            .clients
            .iter()
            .filter(|(_, client)| lost(client))
            .map(|(key, _)| *key)
            .collect();
        for key in lost {
            if self.send_elsewhere(now, key) {
                self.txns.forget(key);
            }
        }
    }

    /// The request goes nowhere: port 9 of the loopback discards it, and the timeout is reported as ever.
    fn fail_unsendable(&mut self, now: Instant, request: Message, purpose: Option<ClientUse>) {
        let Some(client) = purpose else {
            return;
        };
        let nowhere = Hop::to(Transport::Tcp, SocketAddr::from(([127, 0, 0, 1], 9)));
        let sent_by = self.config.sent_by.clone();
        let key = self
            .txns
            .send_request(now, request, nowhere, &sent_by, None);
        self.txns.handle_transport_error(now, key);
        self.remember(key, client);
    }

    fn remember(&mut self, key: ClientKey, client: ClientUse) {
        if let Purpose::Reinvite(id) = &client.purpose
            && let Some(old) = self.reinvites.insert(id.clone(), key)
        {
            self.clients.remove(&old);
        }
        self.clients.insert(key, client);
    }

    /// A dialog is no longer there.
    pub(crate) fn forget_dialog(&mut self, id: &DialogId) {
        self.dialogs.remove(id);
        self.entries
            .remove(&(id.call_id.clone(), id.remote_tag.clone()));
    }

    /// A name was looked up; empty: it is not known.
    pub(crate) fn handle_resolved(&mut self, now: Instant, op: OpId, addresses: &[SocketAddr]) {
        self.ops.remove(&op);
        let Some(mut unresolved) = self.unresolved.remove(&op) else {
            return;
        };
        match addresses.first() {
            Some(address) => {
                let mut address = *address;
                if address.port() == 0 {
                    address.set_port(unresolved.transport.default_port());
                }
                self.dispatch(now, unresolved, address);
            }
            None => {
                let purpose = unresolved.purpose.take();
                self.fail_unsendable(now, unresolved.request, purpose);
            }
        }
    }

    /// No deadline of a participant is left.
    pub(crate) fn forget_participant_timers(&mut self, meeting: &MeetingId, id: &ParticipantId) {
        for timer in ParticipantTimer::ALL {
            self.timers
                .clear(&TimerKey::Participant(meeting.clone(), id.clone(), timer));
        }
        if let Some(key) = self.reinvites.remove(id) {
            self.clients.remove(&key);
        }
    }
}

/// Puts on a response or request what we can do.
pub(crate) fn advertise(message: &mut Message) {
    message.set(HeaderName::Allow, ALLOW);
    message.set(HeaderName::Supported, SUPPORTED);
    message.set(HeaderName::AllowEvents, EVENT);
}

/// What a request outside any dialog is known by, whatever path it comes.
pub(crate) fn entry_of(request: &Message) -> Option<(String, String)> {
    let from = request.from().ok()?;
    Some((request.call_id().to_owned(), from.tag()?.to_owned()))
}

/// Whether a method is one of ours.
pub(crate) fn is_known(method: &Method) -> bool {
    ALLOW.split(", ").any(|m| m == method.as_str())
}
