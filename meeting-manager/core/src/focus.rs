//! The focus: all meetings of a member, fed with messages and answers, polled for commands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster::Revision;
use control::v1 as ctl;
use sip::dialog::DialogId;
use sip::transaction::{ClientKey, Event, ServerKey, Transmit};
use sip::{HeaderName, Hop, Message, Method, StatusCode};

use crate::admission::{self, Entered, Identity, Load, Target};
use crate::caller;
use crate::command::{ApplyFailure, Claimed, Command, StoreFailure, Stored};
use crate::config::{FocusConfig, MeetingConfig};
use crate::ids::{MeetingId, OpId, SwitchId};
use crate::meeting::{Meeting, RETRY_ELSEWHERE, State, Waiting};
use crate::our_requests::Answer;
use crate::refusal::Refusal;
use crate::shared::{
    ACCEPT, ALLOW, DialogUser, FENCE_PATIENCE, OpUse, Purpose, SUPPORTED, Shared, TimerKey,
    advertise, entry_of, is_known,
};
use crate::succession::{Ownership, Peer, Succession};
use crate::sweep::Suspects;
use crate::switch_choice::SwitchInfo;
use crate::view::{self, Counts, MeetingView};

/// How long the watches have to catch up once a member has a lease again.
const SETTLE: Duration = Duration::from_millis(500);

/// Retry-After while the store is away.
const RETRY_STORE: Duration = Duration::from_secs(2);

/// All meetings of a member.
#[derive(Debug)]
pub struct Focus {
    pub(crate) sh: Shared,
    pub(crate) meetings: BTreeMap<MeetingId, Meeting>,
    /// Answers outside any transaction.
    stateless: Vec<Transmit>,
    draining: bool,
    pub(crate) succession: Succession,
    pub(crate) suspects: Suspects,
    held_until: Option<Instant>,
}

impl Focus {
    /// A focus without meetings. `seed` feeds all its randomness, `unix_ms` is the wall-clock time at `now`.
    #[must_use]
    pub fn new(config: FocusConfig, seed: [u8; 32], now: Instant, unix_ms: u64) -> Self {
        Self {
            succession: Succession::new(config.member.clone()),
            suspects: Suspects::default(),
            held_until: None,
            sh: Shared::new(config, seed, now, unix_ms),
            meetings: BTreeMap::new(),
            stateless: Vec::new(),
            draining: false,
        }
    }

    /// What to do next; `None`: nothing before another input or [`Self::poll_timeout`].
    pub fn poll_command(&mut self) -> Option<Command> {
        match self.stateless.pop() {
            Some(transmit) => Some(Command::Transmit(transmit)),
            None => self.sh.poll_command(),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // A member without a lease takes nothing over.
        let claims = match self.sh.fenced_since {
            Some(_) => None,
            None => self.succession.poll_timeout(),
        };
        let held = self.held_until();
        let due = self
            .sh
            .timers
            .next()
            .map(|at| held.map_or(at, |until| at.max(until)));
        let times = [self.sh.txns.poll_timeout(), due, claims];
        times.into_iter().flatten().min()
    }

    /// Until when nothing begins of its own accord: this member has just lost its lease, or has one again and may not
    /// know yet what it has lost meanwhile.
    fn held_until(&self) -> Option<Instant> {
        let fenced = self.sh.fenced_since.map(|since| since + FENCE_PATIENCE);
        fenced.or(self.held_until)
    }

    // ---- SIP

    /// A message came in. Requests are taken from trusted networks only: registrars authenticate.
    pub fn handle_message(&mut self, now: Instant, message: Message, hop: Hop) {
        if message.is_request() {
            if !admission::is_trusted(&self.sh.config, hop.remote.ip()) {
                self.answer_stateless(
                    &message,
                    hop,
                    &Refusal::new(403, "Call through the registrar"),
                );
                return;
            }
            if let Some(defect) = message.defect() {
                let why = Refusal::new(defect.status.get(), defect.reason);
                self.answer_stateless(&message, hop, &why);
                return;
            }
        } else if message.defect().is_some() {
            return;
        }
        self.sh.txns.handle_message(now, message, hop);
        self.drain_events(now);
    }

    /// Without a transaction: nothing is kept for who is not trusted or makes no sense. An ACK is never answered.
    fn answer_stateless(&mut self, request: &Message, hop: Hop, why: &Refusal) {
        if *request.method() == Method::Ack {
            return;
        }
        let tag = self.sh.rng.tag();
        let mut response = why.response(request, &tag);
        response.set(HeaderName::Server, self.sh.config.server.clone());
        self.stateless.push(Transmit {
            hop,
            bytes: response.to_bytes(),
            client: None,
            host: None,
        });
    }

    /// The transport could not send what a client transaction made.
    pub fn handle_transport_error(&mut self, now: Instant, client: ClientKey) {
        self.sh.txns.handle_transport_error(now, client);
        self.drain_events(now);
    }

    /// Fires every deadline that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sh.txns.handle_timeout(now);
        self.drain_events(now);
        // Who wakes up from a long pause first learns what it still owns.
        let held = self.held_until().is_some_and(|until| now < until);
        while !held && let Some(key) = self.sh.timers.pop_due(now) {
            let meeting = match &key {
                TimerKey::Participant(meeting, ..)
                | TimerKey::Subscription(meeting, ..)
                | TimerKey::Meeting(meeting, _) => meeting.clone(),
            };
            self.with_meeting(now, &meeting, |m, sh| match &key {
                TimerKey::Participant(_, id, timer) => m.on_participant_timer(sh, now, id, *timer),
                TimerKey::Subscription(_, id, timer) => {
                    m.on_subscription_timer(sh, now, id, *timer);
                }
                TimerKey::Meeting(_, timer) => m.on_timer(sh, *timer),
            });
            self.drain_events(now);
        }
        self.succeed(now);
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.sh.txns.poll_event() {
            self.on_event(now, event);
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Request { key, message, .. } => self.on_request(now, key, message),
            Event::Ack { message, .. } => {
                let user = DialogId::of_request(&message).and_then(|id| self.sh.dialogs.get(&id));
                if let Some((meeting, DialogUser::Participant(id))) = user.cloned() {
                    self.with_meeting(now, &meeting, |m, sh| m.on_ack(sh, now, &id, &message));
                }
            }
            Event::Cancel { key, message } => self.on_cancel(now, key, &message),
            Event::Response { key, message, .. } => {
                let Some(status) = message.status() else {
                    return;
                };
                if status.is_final() {
                    self.on_answer(now, key, &Answer::Response(&message, status));
                }
            }
            Event::TransportFailed { key } if self.sh.send_elsewhere(now, key) => {}
            Event::TransportFailed { key } => self.on_answer(now, key, &Answer::Unsent),
            Event::Timeout { key } => self.on_answer(now, key, &Answer::None),
            _ => {}
        }
    }

    fn on_answer(&mut self, now: Instant, key: ClientKey, answer: &Answer<'_>) {
        let Some(client) = self.sh.clients.get(&key).cloned() else {
            return;
        };
        // A 2xx to INVITE may come again, and wants its ACK again (RFC 6026 §7.2).
        let again = matches!(client.purpose, Purpose::Reinvite(_))
            && matches!(answer, Answer::Response(_, status) if status.is_success());
        if !again {
            self.sh.clients.remove(&key);
        }
        self.with_meeting(now, &client.meeting, |m, sh| {
            m.on_answer(sh, now, &client.purpose, answer);
        });
    }

    fn on_cancel(&mut self, now: Instant, key: ServerKey, cancel: &Message) {
        let in_dialog = self.sh.txns.request(key).and_then(DialogId::of_request);
        let meeting = match in_dialog.and_then(|id| self.sh.dialogs.get(&id)) {
            Some((meeting, _)) => Some(meeting.clone()),
            None => entry_of(cancel)
                .and_then(|entry| self.sh.entries.get(&entry))
                .map(|(meeting, _)| meeting.clone()),
        };
        if let Some(meeting) = meeting {
            self.with_meeting(now, &meeting, |m, sh| m.on_cancel(sh, now, key));
        }
    }

    // ---- requests

    fn on_request(&mut self, now: Instant, key: ServerKey, request: Message) {
        if let Some(why) = self.refuse_extension(&request) {
            self.sh.refuse(now, key, &request, &why);
            return;
        }
        let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        if in_dialog {
            self.on_dialog_request(now, key, request);
            return;
        }
        match request.method() {
            Method::Invite | Method::Subscribe => self.on_entry(now, key, request),
            Method::Options => self.on_options(now, key, &request),
            _ => {
                let why = Refusal::new(481, "There is no such dialog or transaction");
                self.sh.refuse(now, key, &request, &why);
            }
        }
    }

    /// 405 and 420 (RFC 3261 §8.2.1, §8.2.2.3).
    fn refuse_extension(&self, request: &Message) -> Option<Refusal> {
        let method = request.method();
        if *method == Method::Cancel {
            return None;
        }
        if !is_known(method) {
            let why = Refusal::new(405, format!("{method} is not taken here"));
            return Some(why.with(HeaderName::Allow, ALLOW));
        }
        let unknown: Vec<&str> = request
            .values(HeaderName::Require)
            .filter(|tag| {
                !SUPPORTED
                    .split(", ")
                    .any(|known| known.eq_ignore_ascii_case(tag))
            })
            .collect();
        if unknown.is_empty() {
            return None;
        }
        let list = unknown.join(", ");
        Some(Refusal::new(420, "Bad Extension").with(HeaderName::Unsupported, list))
    }

    fn on_dialog_request(&mut self, now: Instant, key: ServerKey, request: Message) {
        let found = DialogId::of_request(&request).and_then(|id| self.sh.dialogs.get(&id));
        let Some((meeting, user)) = found.cloned() else {
            self.on_unknown_dialog(now, key, request);
            return;
        };
        if *request.method() == Method::Options {
            self.on_options(now, key, &request);
            return;
        }
        self.with_meeting(now, &meeting, |m, sh| {
            m.on_request(sh, now, &user, key, request)
        });
    }

    /// A dialog that is not here: it may be in the records of a meeting that is being claimed, or with another member.
    fn on_unknown_dialog(&mut self, now: Instant, key: ServerKey, request: Message) {
        let named = sip::Uri::parse(request.request_uri()).ok();
        let id = named.and_then(|uri| MeetingId::new(&uri.user_decoded()?));
        if let Some(id) = &id
            && self.meetings.get(id).is_some_and(Meeting::is_claiming)
        {
            let waiting = Waiting {
                key,
                request,
                identity: None,
            };
            self.with_meeting(now, id, |m, sh| m.on_entry(sh, now, waiting));
            return;
        }
        let why = match id.filter(|id| self.succession.is_elsewhere(id)) {
            Some(_) => Refusal::unavailable("Another server has this meeting", RETRY_ELSEWHERE),
            None => Refusal::new(481, "There is no such dialog"),
        };
        self.sh.refuse(now, key, &request, &why);
    }

    /// OPTIONS (RFC 3261 §11): what an INVITE would meet.
    fn on_options(&mut self, now: Instant, key: ServerKey, request: &Message) {
        let names_meeting =
            sip::Uri::parse(request.request_uri()).is_ok_and(|u| !u.user.is_empty());
        let target = match names_meeting.then(|| self.target(request.request_uri())) {
            Some(Err(why)) => {
                self.sh.refuse(now, key, request, &why);
                return;
            }
            Some(Ok(target)) => Some(target),
            None => None,
        };
        let tag = self.sh.rng.tag();
        let mut response = Message::response(request, StatusCode::of(200), None, Some(&tag));
        advertise(&mut response);
        // Who asks learns that this is a focus (RFC 4579); the factory is none, it makes them.
        if let Some(target) = target.filter(|t| t.kind != admission::MeetingKind::Factory) {
            let contact = caller::contact(request, &target.id, &self.sh.config.domain);
            response.set(HeaderName::Contact, contact);
        }
        response.set(HeaderName::Accept, ACCEPT);
        response.set(HeaderName::AcceptEncoding, "identity");
        response.set(HeaderName::AcceptLanguage, "en");
        self.sh.respond(now, key, response);
    }

    fn target(&mut self, uri: &str) -> Result<Target, Refusal> {
        let meetings = &self.meetings;
        let live = |id: &MeetingId| {
            meetings.get(id).map(|m| {
                let target: Target = m.target();
                (target.kind, target.config)
            })
        };
        let config: &FocusConfig = &self.sh.config;
        admission::target(config, uri, live, &mut self.sh.rng)
    }

    /// An INVITE or SUBSCRIBE outside any dialog.
    fn on_entry(&mut self, now: Instant, key: ServerKey, request: Message) {
        let invite = *request.method() == Method::Invite;
        let entry = entry_of(&request);
        let cseq = request.cseq().map(|c| c.number).unwrap_or(0);
        if invite
            && let Some(entry) = &entry
            && self.sh.entries.get(entry).is_some_and(|(_, c)| *c == cseq)
        {
            let why = Refusal::new(482, "This request has come already, on another path");
            self.sh.refuse(now, key, &request, &why);
            return;
        }
        match self.admit(now, &request) {
            Ok((target, identity)) => {
                if let Some(entry) = entry.filter(|_| invite) {
                    self.sh.entries.insert(entry, (target.id.clone(), cseq));
                }
                let waiting = Waiting {
                    key,
                    request,
                    identity: Some(identity),
                };
                self.enter(now, &target, waiting);
            }
            Err(why) => self.sh.refuse(now, key, &request, &why),
        }
    }

    fn admit(&mut self, now: Instant, request: &Message) -> Result<(Target, Identity), Refusal> {
        let identity = Identity::of(request)?;
        let target = self.target(request.request_uri())?;
        admission::may_enter(&target, &identity)?;
        if self.sh.is_cut_off(now) {
            return Err(Refusal::unavailable(
                "The cluster's store is not reached",
                RETRY_STORE,
            ));
        }
        let load = Load {
            meetings: self.meetings.len(),
            dialogs: self.sh.dialogs.len(),
            draining: self.draining,
        };
        let meeting = self.meetings.get(&target.id);
        // Nobody calls a meeting into being to watch it.
        if *request.method() == Method::Subscribe
            && meeting.is_none()
            && target.kind != admission::MeetingKind::Configured
        {
            return Err(Refusal::new(404, "There is no such meeting now"));
        }
        let entered = match meeting {
            None => Entered::New,
            Some(meeting) if meeting.is_empty() => Entered::Empty,
            Some(_) => Entered::Running,
        };
        admission::has_room(&self.sh.config, load, entered)?;
        Ok((target, identity))
    }

    fn enter(&mut self, now: Instant, target: &Target, waiting: Waiting) {
        if !self.meetings.contains_key(&target.id) {
            let from = self.succession.owner(&target.id).cloned();
            let from = from.filter(|o| {
                !self.succession.is_elsewhere(&target.id) && o.member != self.sh.config.member
            });
            let meeting = Meeting::claim(&mut self.sh, target, from);
            self.meetings.insert(target.id.clone(), meeting);
        }
        self.with_meeting(now, &target.id, |m, sh| m.on_entry(sh, now, waiting));
    }

    // ---- meetings

    /// Runs `f` on a meeting, then settles it; one that is over is forgotten, and begins anew where requests wait.
    pub(crate) fn with_meeting(
        &mut self,
        now: Instant,
        id: &MeetingId,
        f: impl FnOnce(&mut Meeting, &mut Shared),
    ) {
        let Some(meeting) = self.meetings.get_mut(id) else {
            return;
        };
        f(meeting, &mut self.sh);
        meeting.settle(&mut self.sh, now);
        if meeting.state != State::Over {
            return;
        }
        let target = meeting.target();
        let waiting = meeting.take_waiting();
        if meeting.facts.epoch > Revision(0) {
            self.succession.on_over(id, meeting.facts.epoch);
        }
        self.meetings.remove(id);
        if waiting.is_empty() {
            return;
        }
        let mut next = Meeting::claim(&mut self.sh, &target, None);
        for waiting in waiting {
            next.on_entry(&mut self.sh, now, waiting);
        }
        self.meetings.insert(id.clone(), next);
    }

    // ---- answers of the shell

    /// The answer to [`Command::Claim`].
    pub fn handle_claimed(
        &mut self,
        now: Instant,
        op: OpId,
        result: Result<Claimed, StoreFailure>,
    ) {
        if let Some(OpUse::Claim(id)) = self.sh.ops.remove(&op) {
            match &result {
                Ok(Claimed::Ours { .. }) => self.succession.on_claimed(&id),
                _ => self.succession.on_claim_failed(now, &id),
            }
            self.with_meeting(now, &id, |m, sh| m.on_claimed(sh, now, result));
        }
        self.drain_events(now);
    }

    /// The answer to [`Command::Store`].
    pub fn handle_store(&mut self, now: Instant, op: OpId, result: Result<Stored, StoreFailure>) {
        match self.sh.ops.remove(&op) {
            Some(OpUse::Dialog(id, participant)) => {
                let user = DialogUser::Participant(participant);
                self.with_meeting(now, &id, |m, sh| m.on_stored(sh, now, &user, result));
            }
            Some(OpUse::Subscription(id, subscription)) => {
                let user = DialogUser::Subscription(subscription);
                self.with_meeting(now, &id, |m, sh| m.on_stored(sh, now, &user, result));
            }
            Some(OpUse::Release(id)) => {
                self.with_meeting(now, &id, |m, sh| m.on_released(sh, now, result));
            }
            _ => {}
        }
        self.drain_events(now);
    }

    /// The answer to [`Command::Apply`].
    pub fn handle_applied(
        &mut self,
        now: Instant,
        op: OpId,
        result: Result<ctl::ApplyResponse, ApplyFailure>,
    ) {
        if let Some(OpUse::Apply(id)) = self.sh.ops.remove(&op) {
            self.with_meeting(now, &id, |m, sh| m.on_applied(sh, now, op, result));
        }
        self.drain_events(now);
    }

    /// The answer to [`Command::Resolve`]; empty: the name is not known. Port 0 stands for the transport's own.
    pub fn handle_resolved(&mut self, now: Instant, op: OpId, addresses: &[SocketAddr]) {
        self.sh.handle_resolved(now, op, addresses);
        self.drain_events(now);
    }

    // ---- what the shell tells of its own accord

    /// The registry of switches as it is now.
    pub fn handle_switches(&mut self, now: Instant, switches: BTreeMap<SwitchId, SwitchInfo>) {
        self.sh.switches.snapshot(switches);
        let left: Vec<MeetingId> = self
            .meetings
            .values()
            .filter(|m| {
                let switch = m.link.switch();
                switch.is_some_and(|id| self.sh.switches.is_to_be_left(id).is_some())
            })
            .map(|m| m.facts.id.clone())
            .collect();
        for id in left {
            self.with_meeting(now, &id, |m, sh| m.change_switch(sh, now));
        }
        self.drain_events(now);
    }

    /// A switch reports something.
    pub fn handle_switch_event(&mut self, now: Instant, switch: &SwitchId, event: ctl::Event) {
        use ctl::event::Event as E;
        match event.event {
            Some(E::Hello(hello)) => self.on_hello(now, switch, hello),
            Some(E::Leg(event)) => {
                if let Some(id) = MeetingId::new(&event.meeting) {
                    self.with_meeting(now, &id, |m, sh| {
                        if m.link.switch() == Some(switch) {
                            m.on_leg_event(sh, now, &event);
                        }
                    });
                }
            }
            Some(E::Slots(event)) => {
                if let Some(id) = MeetingId::new(&event.meeting)
                    && let Some(meeting) = self.meetings.get_mut(&id)
                {
                    meeting.speaking = event;
                }
            }
            None => {}
        }
        self.drain_events(now);
    }

    fn on_hello(&mut self, now: Instant, switch: &SwitchId, hello: ctl::Hello) {
        if let Some(info) = self.sh.switches.get_mut(switch) {
            info.fingerprints = hello
                .certificate
                .into_iter()
                .map(|f| (f.algorithm, f.value.to_vec()))
                .collect();
            info.instance.clone_from(&hello.instance);
        }
        let stale: Vec<MeetingId> = self
            .meetings
            .values()
            .filter(|m| m.link.switch() == Some(switch))
            .filter(|m| !m.link.instance().is_empty() && m.link.instance() != hello.instance)
            .map(|m| m.facts.id.clone())
            .collect();
        for id in stale {
            self.with_meeting(now, &id, |m, sh| {
                m.link.set_instance(&hello.instance);
                m.on_switch_restarted(sh, now);
            });
        }
    }

    /// The registrars that live now, each with the URIs for the topmost Route of requests through it.
    pub fn handle_registrars(&mut self, now: Instant, living: &BTreeMap<String, Vec<String>>) {
        self.sh.set_registrars(now, living);
        self.drain_events(now);
    }

    /// The members that live now. Meetings of one that no longer does are taken over by those who are next.
    pub fn handle_members(&mut self, now: Instant, members: BTreeMap<String, Peer>) {
        self.succession.set_members(now, members);
        self.succeed(now);
        self.drain_events(now);
    }

    /// An owner record was written, or is gone. A meeting that belongs to somebody else now is forgotten in silence.
    pub fn handle_owner(&mut self, now: Instant, id: &MeetingId, owner: Option<Ownership>) {
        let deposed = owner.as_ref().is_some_and(|owner| {
            let older = |m: &Meeting| !m.is_claiming() && m.facts.epoch < owner.epoch;
            owner.member != self.sh.config.member && self.meetings.get(id).is_some_and(older)
        });
        self.succession.set_owner(now, id, owner);
        if deposed {
            self.with_meeting(now, id, |m, sh| m.lose(sh, now));
        }
        self.succeed(now);
        self.drain_events(now);
    }

    /// All owner records as they are now, where changes may have been missed.
    pub fn handle_owners(&mut self, now: Instant, owners: BTreeMap<MeetingId, Ownership>) {
        for gone in self.succession.not_among(&owners) {
            self.handle_owner(now, &gone, None);
        }
        for (id, owner) in owners {
            self.handle_owner(now, &id, Some(owner));
        }
    }

    /// Whether the store takes this member for a living one. While it does not, nobody is let in and no dialog changes;
    /// what needs no record goes on.
    pub fn handle_standing(&mut self, now: Instant, alive: bool) {
        self.sh.fenced_since = match alive {
            true => {
                if self.sh.fenced_since.is_some() {
                    self.held_until = Some(now + SETTLE);
                }
                None
            }
            false => self.sh.fenced_since.or(Some(now)),
        };
        self.succeed(now);
    }

    /// Claims what it is our turn to go on with.
    fn succeed(&mut self, now: Instant) {
        if self.sh.fenced_since.is_some() {
            return;
        }
        while let Some((id, owner, orphaned_for)) = self.succession.pop_due(now) {
            if self.meetings.contains_key(&id) {
                self.succession.on_claimed(&id);
                continue;
            }
            let target = self.target_of_records(&id);
            let since = now.checked_sub(orphaned_for).unwrap_or(now);
            let meeting = Meeting::take_over(&mut self.sh, &target, owner, since);
            self.meetings.insert(id, meeting);
        }
    }

    /// A meeting of which the store knows more than the configuration.
    pub(crate) fn target_of_records(&self, id: &MeetingId) -> Target {
        let config = self.sh.config.meetings.get(id).cloned();
        Target {
            id: id.clone(),
            kind: match &config {
                Some(_) => admission::MeetingKind::Configured,
                None => admission::MeetingKind::FirstCall,
            },
            config: config.unwrap_or_else(MeetingConfig::default),
        }
    }

    /// No new meetings from now on; those that are go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// New meetings again.
    pub fn undrain(&mut self) {
        self.draining = false;
    }

    /// Another member lives that takes meetings over.
    #[must_use]
    pub fn has_heir(&self) -> bool {
        self.succession.has_heir()
    }

    /// Nothing is under way: no call is being answered, no request of ours is unanswered, nothing is being written.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.sh.clients.is_empty() && self.sh.ops.is_empty()
    }

    /// Ends every meeting with BYE. It is done when [`Self::counts`] says that no meeting is left.
    pub fn shutdown(&mut self, now: Instant) {
        self.draining = true;
        let ids: Vec<MeetingId> = self.meetings.keys().cloned().collect();
        for id in ids {
            self.with_meeting(now, &id, |m, sh| m.end_all(sh, now, "The server stops"));
        }
        self.drain_events(now);
    }

    // ---- what is

    /// How much of everything there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (client_transactions, server_transactions) = self.sh.txns.len();
        let sum = |f: fn(&Meeting) -> usize| self.meetings.values().map(f).sum();
        Counts {
            meetings: self.meetings.len(),
            participants: sum(|m| m.participants.len()),
            dialogs: self.sh.dialogs.len(),
            subscriptions: sum(|m| m.subscriptions.len()),
            legs: sum(|m| m.link.leg_count()),
            client_transactions,
            server_transactions,
            pending_requests: self.sh.clients.len(),
            pending_operations: self.sh.ops.len(),
            timers: self.sh.timers.len(),
        }
    }

    /// Every meeting, by id.
    pub fn meetings(&self) -> impl Iterator<Item = MeetingView> {
        self.meetings.values().map(view::meeting)
    }

    /// One meeting.
    #[must_use]
    pub fn meeting(&self, id: &MeetingId) -> Option<MeetingView> {
        self.meetings.get(id).map(view::meeting)
    }
}
