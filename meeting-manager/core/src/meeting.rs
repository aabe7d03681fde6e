//! A meeting: who is in it, who watches it, and its life from the claim to the release.
//!
//! ```text
//!   first request            ours                  nobody left                switch told
//!  ────────────► Claiming ─────────► Active ──────────────────► Ending ────────────────► Releasing
//!                    │ not ours         ▲ records adopted                                    │
//!                    ▼                  │ (restart, takeover)           owner record deleted │
//!                  Over ◄───────────────┴────────────────────────────────────────────────────┘
//! ```
//!
//! Requests that come while it is claimed or ends wait and begin a new life. A write or a switch that says
//! that somebody else owns the meeting ends it in silence: its dialogs go on elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::records::{keys, read};
use cluster::{Entry, Op, Revision, Txn};
use control::v1 as ctl;
use sip::Message;
use sip::dialog::{Dialog, DialogId, DialogState};
use sip::session_timer::{self, SessionTimer};
use sip::transaction::ServerKey;

use crate::admission::{self, Identity, MeetingKind, Target};
use crate::caller;
use crate::command::{ApplyFailure, Claimed, Command, StoreFailure, Stored};
use crate::exchange::Carrier;
use crate::ids::{OpId, ParticipantId, SubscriptionId, SwitchId};
use crate::our_requests::Answer;
use crate::participant::{Cx, Facts, Leave, Participant, Phase};
use crate::record::{CSEQ_RESERVE, DialogRecord, MeetingRecord, to_bytes};
use crate::refusal::Refusal;
use crate::roster::Roster;
use crate::shared::{
    DialogUser, MeetingTimer, OpUse, ParticipantTimer, Purpose, Shared, SubscriptionTimer, TimerKey,
};
use crate::slot_policy;
use crate::subscription::{self, Holder, SubCx, Subscription};
use crate::succession::Ownership;
use crate::switch_choice::Departure;
use crate::switch_link::{Applied, SwitchLink};

/// Requests that may wait for a claim or a release; more are refused with 503.
const MAX_WAITING: usize = 1_000;

/// How long after a release that the store refused it is tried again.
const RELEASE_RETRY: Duration = Duration::from_secs(1);

/// How long a switch that drains goes on forwarding for those who have not answered where their media are now.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// Retry-After where another member has the meeting: registrars learn of it at once.
pub(crate) const RETRY_ELSEWHERE: Duration = Duration::from_secs(1);

/// Where a meeting stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Claiming,
    Active,
    Ending,
    Releasing,
    Over,
}

/// A request from outside any dialog that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) key: ServerKey,
    pub(crate) request: Message,
    /// Who asks to be let in; `None` for a request in a dialog, which its records will tell of.
    pub(crate) identity: Option<Identity>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) state: State,
    pub(crate) facts: Facts,
    pub(crate) link: SwitchLink,
    pub(crate) roster: Roster,
    pub(crate) participants: BTreeMap<ParticipantId, Participant>,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    waiting: Vec<Waiting>,
    order: u64,
    /// Who speaks, as the switch said last.
    pub(crate) speaking: ctl::SlotsEvent,
    /// Whom it is taken over from, and since when that one is gone.
    heritage: Option<(String, Instant)>,
    /// A switch that holds it although nobody has it.
    stray: Option<SwitchId>,
}

impl Meeting {
    /// A meeting that is to be claimed, from a member that left it where one did.
    pub(crate) fn claim(sh: &mut Shared, target: &Target, from: Option<Ownership>) -> Self {
        let record = MeetingRecord::new(target.kind, &target.config);
        sh.claim(target.id.clone(), to_bytes(&record), from);
        Self::unclaimed(sh, target)
    }

    /// A meeting that a switch holds although nobody has it: it is claimed to be ended there.
    pub(crate) fn claim_stray(sh: &mut Shared, target: &Target, switch: SwitchId) -> Self {
        Self {
            stray: Some(switch),
            ..Self::claim(sh, target, None)
        }
    }

    /// A meeting that is to be taken over from a member that is gone since then.
    pub(crate) fn take_over(
        sh: &mut Shared,
        target: &Target,
        from: Ownership,
        since: Instant,
    ) -> Self {
        let heritage = Some((from.member.clone(), since));
        Self {
            heritage,
            ..Self::claim(sh, target, Some(from))
        }
    }

    /// A meeting whose claim is known already.
    pub(crate) fn unclaimed(sh: &Shared, target: &Target) -> Self {
        let uri = format!("sip:{}@{}", target.id, sh.config.domain);
        let facts = Facts {
            id: target.id.clone(),
            kind: target.kind,
            config: target.config.clone(),
            epoch: Revision(0),
            domain: sh.config.domain.clone(),
            sources: std::collections::BTreeSet::new(),
        };
        Self {
            state: State::Claiming,
            link: SwitchLink::new(target.config.audio_slots, sh.config.media_timeout),
            roster: Roster::new(
                uri,
                sh.config.domain.clone(),
                &facts,
                sh.config.subscription.throttle,
            ),
            facts,
            participants: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            waiting: Vec::new(),
            order: 0,
            speaking: ctl::SlotsEvent::default(),
            heritage: None,
            stray: None,
        }
    }

    /// As admission sees it.
    pub(crate) fn target(&self) -> Target {
        Target {
            id: self.facts.id.clone(),
            kind: self.facts.kind,
            config: self.facts.config.clone(),
        }
    }

    fn parts<'a>(
        &'a mut self,
        sh: &'a mut Shared,
        now: Instant,
    ) -> (Cx<'a>, &'a mut BTreeMap<ParticipantId, Participant>) {
        let cx = Cx {
            now,
            sh,
            link: &mut self.link,
            roster: &mut self.roster,
            facts: &self.facts,
        };
        (cx, &mut self.participants)
    }

    /// Runs `f` on one participant.
    pub(crate) fn with_participant<R>(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: &ParticipantId,
        f: impl FnOnce(&mut Participant, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        let (mut cx, participants) = self.parts(sh, now);
        participants.get_mut(id).map(|p| f(p, &mut cx))
    }

    // ---- requests from outside any dialog

    /// An INVITE or SUBSCRIBE that admission let through.
    pub(crate) fn on_entry(&mut self, sh: &mut Shared, now: Instant, waiting: Waiting) {
        if self.state != State::Active {
            if self.waiting.len() >= MAX_WAITING {
                let why = Refusal::unavailable("Too many wait for this meeting", RETRY_ELSEWHERE);
                sh.refuse_entry(now, waiting.key, &waiting.request, &why);
            } else {
                self.waiting.push(waiting);
            }
            return;
        }
        let Some(identity) = waiting.identity.clone() else {
            self.on_waited(sh, now, waiting);
            return;
        };
        if self.has_come_before(sh, now, &waiting) {
            return;
        }
        if *waiting.request.method() == sip::Method::Subscribe {
            self.on_first_subscribe(sh, now, &waiting);
        } else if let Err(why) = self.join(sh, now, &waiting, &identity) {
            sh.refuse_entry(now, waiting.key, &waiting.request, &why);
        }
    }

    /// An INVITE that the member before has accepted is due its 200, not another dialog.
    fn has_come_before(&mut self, sh: &mut Shared, now: Instant, waiting: &Waiting) -> bool {
        let same = |p: &&Participant| p.is_made_by(&waiting.request);
        let Some(id) = self.participants.values().find(same).map(|p| p.id.clone()) else {
            return false;
        };
        let answered = self.with_participant(sh, now, &id, |p, cx| {
            p.accept_again(cx, waiting.key, &waiting.request)
        });
        if answered != Some(true) {
            let why = Refusal::new(482, "This request has come already, on another path");
            sh.refuse(now, waiting.key, &waiting.request, &why);
        }
        true
    }

    /// A request in a dialog has waited for the records, which tell of the dialog or do not.
    fn on_waited(&mut self, sh: &mut Shared, now: Instant, waiting: Waiting) {
        let found = DialogId::of_request(&waiting.request).and_then(|id| sh.dialogs.get(&id));
        match found.cloned() {
            Some((_, user)) => self.on_request(sh, now, &user, waiting.key, waiting.request),
            None => {
                let why = Refusal::new(481, "There is no such dialog");
                sh.refuse(now, waiting.key, &waiting.request, &why);
            }
        }
    }

    /// Who waits begins anew with the next life of the meeting.
    pub(crate) fn take_waiting(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting)
    }

    /// Nobody is in it or on the way in.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.seated() == 0
    }

    /// Its records are not known yet.
    pub(crate) fn is_claiming(&self) -> bool {
        self.state == State::Claiming
    }

    fn seated(&self) -> usize {
        self.participants
            .values()
            .filter(|p| matches!(p.phase, Phase::Joining | Phase::Joined))
            .count()
    }

    fn join(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        waiting: &Waiting,
        identity: &Identity,
    ) -> Result<(), Refusal> {
        admission::has_seat(&self.facts.config, self.seated())?;
        let tag = sh.rng.tag();
        let dialog = Dialog::uas(
            &waiting.request,
            &tag,
            &caller::contact(&waiting.request, &self.facts.id, &self.facts.domain),
            DialogState::Early,
        )
        .map_err(|e| Refusal::new(400, e.to_string()))?;
        let policy = session_policy(sh);
        let id = ParticipantId::from_random(sh.rng.bits());
        let source = slot_policy::allocate_source(&self.facts.sources, &mut sh.rng);
        self.facts.sources.insert(source);
        let mut participant = Participant::new(
            id.clone(),
            identity.clone(),
            dialog.clone(),
            source,
            self.order + 1,
            SessionTimer::new(policy),
        );
        participant.joined_at = sh.unix_ms(now);
        participant.latch = caller::is_behind_nat(&waiting.request);
        let kind = caller::offer_kind(&waiting.request, &self.facts);
        let (mut cx, participants) = self.parts(sh, now);
        let request = waiting.request.clone();
        if let Err(why) = participant.on_initial_invite(&mut cx, waiting.key, request, kind) {
            self.facts.sources.remove(&source);
            return Err(why);
        }
        participants.insert(id.clone(), participant);
        self.order += 1;
        let user = DialogUser::Participant(id);
        sh.dialogs.insert(dialog.id, (self.facts.id.clone(), user));
        Ok(())
    }

    /// CANCEL of an INVITE of this meeting.
    pub(crate) fn on_cancel(&mut self, sh: &mut Shared, now: Instant, key: ServerKey) {
        if let Some(at) = self.waiting.iter().position(|w| w.key == key) {
            let waiting = self.waiting.remove(at);
            let why = Refusal::new(487, "Request Terminated");
            sh.refuse_entry(now, key, &waiting.request, &why);
            return;
        }
        let pending = |p: &&Participant| p.incoming.as_ref().is_some_and(|i| i.key == key);
        let found = self
            .participants
            .values()
            .find(pending)
            .map(|p| p.id.clone());
        if let Some(id) = found {
            self.with_participant(sh, now, &id, |p, cx| p.on_cancel(cx, key));
        }
    }

    // ---- requests in dialogs

    /// A request in one of our dialogs.
    pub(crate) fn on_request(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        user: &DialogUser,
        key: ServerKey,
        request: Message,
    ) {
        let subscribe = *request.method() == sip::Method::Subscribe;
        match user {
            DialogUser::Participant(id) if subscribe => {
                self.on_shared_subscribe(sh, now, id, key, &request);
            }
            DialogUser::Participant(id) => {
                self.with_participant(sh, now, id, |p, cx| p.on_request(cx, key, request));
            }
            DialogUser::Subscription(id) => self.on_resubscribe(sh, now, id, key, &request),
        }
    }

    /// An ACK in one of our dialogs.
    pub(crate) fn on_ack(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: &ParticipantId,
        ack: &Message,
    ) {
        self.with_participant(sh, now, id, |p, cx| p.on_ack(cx, ack));
    }

    // ---- answers to our requests

    /// A request of ours was answered, or not.
    pub(crate) fn on_answer(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        purpose: &Purpose,
        answer: &Answer<'_>,
    ) {
        match purpose {
            Purpose::Bye(id) => {
                self.with_participant(sh, now, id, Participant::on_bye_done);
            }
            Purpose::Reinvite(id) => {
                self.with_participant(sh, now, id, |p, cx| p.on_reinvite_answered(cx, answer));
            }
            Purpose::Update(id) => {
                self.with_participant(sh, now, id, |p, cx| p.on_update_answered(cx, answer));
            }
            Purpose::Notify(id) => {
                self.with_subscription(sh, now, id, |s, cx, dialog| {
                    s.on_notify_answered(cx, dialog, answer);
                });
            }
            Purpose::Farewell => {}
        }
    }

    // ---- the store

    /// The claim ended.
    pub(crate) fn on_claimed(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        result: Result<Claimed, StoreFailure>,
    ) {
        if self.state != State::Claiming {
            return;
        }
        let why = match result {
            Ok(Claimed::Ours {
                epoch,
                meeting,
                records,
            }) => {
                self.adopt(sh, now, epoch, &meeting, records);
                if let Some((from, since)) = self.heritage.take() {
                    sh.tell(Command::TookOver {
                        meeting: self.facts.id.clone(),
                        from,
                        epoch,
                        after: now.saturating_duration_since(since),
                        dialogs: self.participants.len() + self.subscriptions.len(),
                    });
                }
                // One that somebody wants to enter begins on a switch of its own, and this is found again.
                let empty = self.waiting.is_empty() && self.participants.is_empty();
                if let Some(switch) = self.stray.take().filter(|_| empty) {
                    self.link.end_at(sh, &self.facts.id, epoch, switch);
                }
                for waiting in self.take_waiting() {
                    self.on_entry(sh, now, waiting);
                }
                return;
            }
            Ok(Claimed::Theirs { .. }) => {
                Refusal::unavailable("Another server has this meeting", RETRY_ELSEWHERE)
            }
            Err(_) => {
                Refusal::unavailable("The meeting could not be opened", Duration::from_secs(5))
            }
        };
        for waiting in self.take_waiting() {
            sh.refuse_entry(now, waiting.key, &waiting.request, &why);
        }
        self.state = State::Over;
    }

    /// The meeting is ours: what its records tell of goes on.
    fn adopt(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        epoch: Revision,
        meeting: &[u8],
        records: Vec<Entry>,
    ) {
        self.facts.epoch = epoch;
        self.state = State::Active;
        if let Ok(record) = read::<MeetingRecord>(meeting)
            && record.kind != MeetingKind::Configured
        {
            self.facts.kind = record.kind;
            self.facts.config = record.config();
        }
        // What was made of the configuration this meeting was opened with is made of its own.
        self.link.set_audio_slots(self.facts.config.audio_slots);
        let mut adopted = Vec::new();
        for entry in records {
            // A record of a later build that this one cannot read is left alone: its dialog cannot go on here.
            match read::<DialogRecord>(&entry.value) {
                Ok(DialogRecord::Participant(record)) => {
                    adopted.push((record.id.clone(), record.instance.clone()));
                    self.adopt_participant(sh, now, *record, entry.modified);
                }
                Ok(DialogRecord::Subscription(record)) => {
                    let version = next_version(sh, now, &record.state);
                    let mut dialog = record.dialog;
                    dialog.local_cseq = dialog.local_cseq.saturating_add(CSEQ_RESERVE);
                    let id = record.state.id.clone();
                    let user = DialogUser::Subscription(id.clone());
                    sh.dialogs
                        .insert(dialog.id.clone(), (self.facts.id.clone(), user));
                    let at = sh.instant_of(record.state.expires_at, now);
                    let holder = Holder::Own(Box::new(dialog));
                    self.subscriptions
                        .insert(id, Subscription::adopt(&record.state, holder, at, version));
                }
                Err(_) => {}
            }
        }
        let target = self.target();
        self.roster = Self::unclaimed(sh, &target).roster;
        for (id, instance) in &adopted {
            self.with_participant(sh, now, id, |p, cx| {
                let entry = p.entry(cx);
                cx.roster.on_changed(entry);
                p.arm_session(cx);
                p.resume_waiting(cx);
                if instance.is_empty() || instance != cx.link.instance() {
                    // The one that had its keys is not known to be there still.
                    p.draw_keys(cx);
                }
                p.want_leg(cx);
                p.on_idle(cx);
            });
        }
        let ids: Vec<SubscriptionId> = self.subscriptions.keys().cloned().collect();
        for id in ids {
            self.with_subscription(sh, now, &id, |s, cx, dialog| {
                s.arm(cx);
                s.notify_full(cx, dialog);
            });
        }
    }

    fn adopt_participant(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        record: crate::record::ParticipantRecord,
        revision: Revision,
    ) {
        self.order = self.order.max(record.order);
        self.facts.sources.insert(record.source);
        self.link.resume(sh, record.switch.clone());
        let id = record.id.clone();
        let user = DialogUser::Participant(id.clone());
        sh.dialogs
            .insert(record.dialog.id.clone(), (self.facts.id.clone(), user));
        for state in &record.subscriptions {
            let at = sh.instant_of(state.expires_at, now);
            let holder = Holder::Participant(id.clone());
            let version = next_version(sh, now, state);
            self.subscriptions.insert(
                state.id.clone(),
                Subscription::adopt(state, holder, at, version),
            );
        }
        let participant = Participant::adopt(sh, now, record, revision);
        self.participants.insert(id, participant);
    }

    /// A dialog record was written or deleted, or not.
    pub(crate) fn on_stored(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        user: &DialogUser,
        result: Result<Stored, StoreFailure>,
    ) {
        let ours = match user {
            DialogUser::Participant(id) => {
                let ours = self.with_participant(sh, now, id, |p, cx| p.on_stored(cx, result));
                if ours == Some(true) {
                    self.on_mirrored(sh, now, id);
                }
                ours
            }
            DialogUser::Subscription(id) => {
                self.with_subscription(sh, now, id, |s, cx, dialog| s.on_stored(cx, dialog, result))
            }
        };
        if ours == Some(false) {
            self.lose(sh, now);
        }
    }

    /// The release ended.
    pub(crate) fn on_released(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        result: Result<Stored, StoreFailure>,
    ) {
        if self.state != State::Releasing {
            return;
        }
        match result {
            // A conflict: somebody else has it already, and all is well.
            Ok(_) => self.state = State::Over,
            Err(_) => {
                let key = TimerKey::Meeting(self.facts.id.clone(), MeetingTimer::ReleaseAgain);
                sh.timers.set(key, now + RELEASE_RETRY);
            }
        }
    }

    fn release(&mut self, sh: &mut Shared) {
        self.state = State::Releasing;
        let id = self.facts.id.as_str();
        let txn = Txn {
            compares: vec![self.facts.guard()],
            ops: vec![Op::Delete(keys::owner(id)), Op::Delete(keys::meeting(id))],
        };
        sh.store(OpUse::Release(self.facts.id.clone()), txn);
    }

    /// Somebody else owns the meeting now: forgotten without a word to any participant.
    pub(crate) fn lose(&mut self, sh: &mut Shared, now: Instant) {
        let why = Refusal::unavailable("Another server has this meeting", RETRY_ELSEWHERE);
        for p in self.participants.values_mut() {
            if let Some(incoming) = p.incoming.take() {
                sh.refuse_in(now, incoming.key, &p.dialog, &incoming.request, &why);
            }
            if let Some(Carrier::Update { key, request, .. } | Carrier::Prack { key, request }) =
                p.exchange.take().map(|e| e.carrier)
            {
                sh.refuse_in(now, key, &p.dialog, &request, &why);
            }
        }
        for waiting in self.take_waiting() {
            sh.refuse_entry(now, waiting.key, &waiting.request, &why);
        }
        let ids: Vec<SubscriptionId> = self.subscriptions.keys().cloned().collect();
        for id in ids {
            self.with_subscription(sh, now, &id, |s, cx, dialog| {
                s.refuse_asked(cx, dialog, &why);
            });
        }
        self.link.forget(sh);
        self.state = State::Over;
    }

    // ---- the switch

    /// The switch answered.
    pub(crate) fn on_applied(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        op: OpId,
        result: Result<ctl::ApplyResponse, ApplyFailure>,
    ) {
        let applied = self
            .link
            .on_applied(sh, &self.facts.id, self.facts.epoch, now, op, result);
        self.distribute(sh, now, applied);
    }

    fn distribute(&mut self, sh: &mut Shared, now: Instant, applied: Applied) {
        if applied.fenced {
            self.lose(sh, now);
            return;
        }
        if applied.restarted {
            // First: what it says of legs is of such that are made again.
            self.on_switch_restarted(sh, now);
        }
        for outcome in applied.legs {
            self.with_participant(sh, now, &outcome.id, |p, cx| {
                p.on_leg_outcome(cx, outcome.change, outcome.result);
            });
        }
        for id in applied.removed {
            self.with_participant(sh, now, &id, Participant::on_leg_removed);
        }
        if applied.ended && self.state == State::Ending {
            self.release(sh);
        }
    }

    /// The switch has been started anew: every leg is made again, and who got another address is told.
    pub(crate) fn on_switch_restarted(&mut self, sh: &mut Shared, now: Instant) {
        for (id, change) in self.link.on_restart_noticed() {
            self.with_participant(sh, now, &id, |p, cx| p.on_switch_restarted(cx, change));
        }
    }

    /// Leaves a switch that is gone or drains: everybody is told another place for the media.
    pub(crate) fn change_switch(&mut self, sh: &mut Shared, now: Instant) {
        let why = self
            .link
            .switch()
            .and_then(|id| sh.switches.is_to_be_left(id));
        let Some(why) = why.filter(|_| self.state == State::Active) else {
            return;
        };
        if why == Departure::Draining && self.link.leaving().is_some() {
            return;
        }
        for (id, change) in self.link.depart(sh, why) {
            self.with_participant(sh, now, &id, |p, cx| p.on_switch_restarted(cx, change));
        }
        if self.link.leaving().is_some() {
            let key = TimerKey::Meeting(self.facts.id.clone(), MeetingTimer::Left);
            sh.timers.set(key, now + LEAVE_PATIENCE);
        }
    }

    /// Lets the switch before go once nobody has to be told of the new one.
    fn settle_departure(&mut self, sh: &mut Shared) {
        let told = |p: &Participant| p.moved.is_none() && p.exchange.is_none();
        if self.link.leaving().is_some()
            && self.link.is_settled()
            && self.participants.values().all(told)
        {
            self.leave_for_good(sh);
        }
    }

    fn leave_for_good(&mut self, sh: &mut Shared) {
        let key = TimerKey::Meeting(self.facts.id.clone(), MeetingTimer::Left);
        sh.timers.clear(&key);
        self.link.on_left(sh, &self.facts.id, self.facts.epoch);
    }

    /// What a leg reports.
    pub(crate) fn on_leg_event(&mut self, sh: &mut Shared, now: Instant, event: &ctl::LegEvent) {
        use ctl::leg_event::Kind;
        if event.epoch != 0 && event.epoch != self.facts.epoch.0 {
            return;
        }
        let id = ParticipantId::from_leg(&event.leg);
        let end = match event.kind() {
            Kind::MediaTimeout => Some("No media came for too long"),
            Kind::ConsentLost => Some("The media path was lost"),
            Kind::DtlsFailed => Some("The media could not be secured"),
            _ => None,
        };
        let connected = event.kind() == Kind::Connected;
        self.with_participant(sh, now, &id, |p, cx| {
            p.connected |= connected;
            if let Some(text) = end {
                p.leave(cx, &Leave::Ended(text));
            }
        });
    }

    // ---- time

    /// A deadline of a participant.
    pub(crate) fn on_participant_timer(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: &ParticipantId,
        timer: ParticipantTimer,
    ) {
        self.with_participant(sh, now, id, |p, cx| p.on_timer(cx, timer));
    }

    /// A deadline of a subscription.
    pub(crate) fn on_subscription_timer(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: &SubscriptionId,
        timer: SubscriptionTimer,
    ) {
        self.with_subscription(sh, now, id, |s, cx, dialog| match timer {
            SubscriptionTimer::Expiry => s.on_expired(cx, dialog),
            SubscriptionTimer::Delete => s.delete(cx),
            SubscriptionTimer::Notify => s.on_notify_again(cx, dialog),
        });
    }

    /// A deadline of the meeting itself.
    pub(crate) fn on_timer(&mut self, sh: &mut Shared, timer: MeetingTimer) {
        match timer {
            MeetingTimer::ApplyAgain => self.link.on_pause_over(),
            MeetingTimer::ReleaseAgain => self.release(sh),
            MeetingTimer::Left => self.leave_for_good(sh),
            // What is due is found by `settle`.
            MeetingTimer::Feed => {}
        }
    }

    /// Ends it: everybody gets BYE.
    pub(crate) fn end_all(&mut self, sh: &mut Shared, now: Instant, why: &'static str) {
        let ids: Vec<ParticipantId> = self.participants.keys().cloned().collect();
        for id in ids {
            self.with_participant(sh, now, &id, |p, cx| p.leave(cx, &Leave::Ended(why)));
        }
        let unavailable = Refusal::unavailable(why, Duration::from_secs(10));
        for waiting in self.take_waiting() {
            sh.refuse_entry(now, waiting.key, &waiting.request, &unavailable);
        }
        self.end_subscriptions(sh, now);
    }

    // ---- after every event

    /// Sends what is due, forgets who is gone, and ends the meeting when nobody is left.
    pub(crate) fn settle(&mut self, sh: &mut Shared, now: Instant) {
        // Every round either sends a request (of which one at a time is under way) or ends.
        loop {
            if matches!(self.state, State::Claiming | State::Over) {
                break;
            }
            let applied = self.link.flush(sh, &self.facts.id, self.facts.epoch);
            let idle = applied.is_empty();
            self.distribute(sh, now, applied);
            self.end_shared_subscriptions(sh, now);
            self.forget_gone(sh, now);
            self.end_if_empty(sh, now);
            if idle && !self.link.wants_flush() {
                break;
            }
        }
        self.settle_departure(sh);
        self.publish(sh, now);
        if self.state == State::Over {
            self.forget_everything(sh, now);
        }
    }

    fn forget_gone(&mut self, sh: &mut Shared, now: Instant) {
        let facts = &mut self.facts;
        self.participants.retain(|id, p| {
            if p.phase != Phase::Gone {
                return true;
            }
            sh.forget_dialog(&p.dialog.id);
            sh.forget_participant_timers(&facts.id, id);
            facts.sources.remove(&p.source);
            false
        });
        let mut cx = SubCx {
            now,
            sh,
            roster: &self.roster,
            facts: &self.facts,
        };
        self.subscriptions.retain(|_, s| {
            if s.state != subscription::State::Gone {
                return true;
            }
            s.forget_timers(&mut cx);
            if let Holder::Own(dialog) = &s.holder {
                cx.sh.forget_dialog(&dialog.id);
            }
            false
        });
    }

    fn end_if_empty(&mut self, sh: &mut Shared, now: Instant) {
        if self.state != State::Active || !self.participants.is_empty() || !self.waiting.is_empty()
        {
            return;
        }
        if self.facts.kind != MeetingKind::Configured {
            self.end_subscriptions(sh, now);
            self.forget_gone(sh, now);
        }
        if self.subscriptions.is_empty() {
            self.state = State::Ending;
            if !self.link.end() {
                self.release(sh);
            }
        } else if self.link.switch().is_some() && self.link.is_quiet() {
            // Watchers keep a configured meeting, but nothing of it on a switch.
            self.link.end();
        }
    }

    /// Nothing of it stays in what the meetings share.
    fn forget_everything(&mut self, sh: &mut Shared, now: Instant) {
        for (id, p) in &self.participants {
            sh.forget_dialog(&p.dialog.id);
            sh.forget_participant_timers(&self.facts.id, id);
        }
        let mut cx = SubCx {
            now,
            sh,
            roster: &self.roster,
            facts: &self.facts,
        };
        for s in self.subscriptions.values() {
            s.forget_timers(&mut cx);
            if let Holder::Own(dialog) = &s.holder {
                cx.sh.forget_dialog(&dialog.id);
            }
        }
        self.participants.clear();
        self.subscriptions.clear();
        self.link.forget(sh);
        for timer in [
            MeetingTimer::ApplyAgain,
            MeetingTimer::ReleaseAgain,
            MeetingTimer::Feed,
            MeetingTimer::Left,
        ] {
            sh.timers
                .clear(&TimerKey::Meeting(self.facts.id.clone(), timer));
        }
    }
}

/// Version to go on with: documents went out since the record was written, and the next must be above them
/// (RFC 4575 §4.4). One cannot have gone out each millisecond, since each waits for the answer to the one before.
fn next_version(sh: &Shared, now: Instant, state: &crate::record::SubscriptionState) -> u32 {
    let since = sh.unix_ms(now).saturating_sub(state.written_at);
    let gone = u32::try_from(since + 2).unwrap_or(u32::MAX / 2);
    state.document.saturating_add(gone)
}

fn session_policy(sh: &Shared) -> session_timer::Policy {
    let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    session_timer::Policy {
        session_expires: seconds(sh.config.session_timer.interval),
        min_se: seconds(sh.config.session_timer.min),
        ..session_timer::Policy::default()
    }
}
