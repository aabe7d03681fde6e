//! A participant: who it is, its dialog and leg, its record, and its way in and out.
//!
//! ```text
//!   INVITE            200 sent               BYE, ours or theirs; refused
//!  ────────► Joining ──────────► Joined ────────────────────────────────┐
//!               │ refused, cancelled                                    ▼
//!               └────────────────────────────────────────────────►  Leaving
//!                          leg removed, record deleted, BYE answered    │
//!                                                                       ▼
//!                                                                     Gone
//! ```
//!
//! What the INVITE usage does is in `invite_usage.rs`, an offer/answer exchange in `exchange.rs`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use cluster::records::{RECORD_VERSION, keys};
use cluster::{Compare, Op, Revision, Txn};
use sip::accepted::Accepted;
use sip::dialog::{Dialog, DialogState};
use sip::offer_answer::{LocalMedia, Plan};
use sip::reliable::Reliable;
use sip::session_timer::{self, SessionTimer};
use sip::transaction::ServerKey;
use sip::{HeaderName, Method};

use crate::admission::{Identity, MeetingKind};
use crate::command::{StoreFailure, Stored};
use crate::config::MeetingConfig;
use crate::exchange::{Carrier, Exchange, Stage};
use crate::ids::{MeetingId, ParticipantId, SourceId};
use crate::invite_usage::Incoming;
use crate::our_requests::Ours;
use crate::record::{
    CSEQ_RESERVE, DialogRecord, ParticipantRecord, SubscriptionState, Unacknowledged, to_bytes,
};
use crate::refusal::Refusal;
use crate::roster::Roster;
use crate::shared::{OpUse, ParticipantTimer, Purpose, Shared, TimerKey};
use crate::switch_link::SwitchLink;

/// How long after a deletion that the store refused it is tried again.
const DELETE_RETRY: Duration = Duration::from_secs(1);

/// A number that is another one when what changed in a record matters to whoever goes on with the dialog: not CSeqs,
/// of which there is a reserve, nor when the session was last refreshed.
fn essence(record: &ParticipantRecord) -> u64 {
    let mut record = record.clone();
    let terms = record.timer.terms();
    record.dialog.local_cseq = 0;
    record.dialog.remote_cseq = None;
    record.timer = SessionTimer::new(session_timer::Policy::default());
    let mut hasher = DefaultHasher::new();
    (to_bytes(&record), terms).hash(&mut hasher);
    hasher.finish()
}

/// What all participants of a meeting have in common.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) id: MeetingId,
    pub(crate) kind: MeetingKind,
    pub(crate) config: MeetingConfig,
    pub(crate) epoch: Revision,
    /// What Contacts name.
    pub(crate) domain: String,
    pub(crate) sources: BTreeSet<SourceId>,
}

impl Facts {
    /// The guard of every write: the meeting is still ours.
    pub(crate) fn guard(&self) -> Compare {
        Compare::Unchanged(keys::owner(self.id.as_str()), self.epoch)
    }
}

/// What a participant works with while it handles something.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) sh: &'a mut Shared,
    pub(crate) link: &'a mut SwitchLink,
    pub(crate) roster: &'a mut Roster,
    pub(crate) facts: &'a Facts,
}

impl Cx<'_> {
    pub(crate) fn unix(&self) -> Duration {
        Duration::from_millis(self.sh.unix_ms(self.now))
    }
}

/// Where a participant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Joining,
    Joined,
    Leaving,
    Gone,
}

/// What is known of the stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing was ever written.
    Absent,
    /// It is of this revision.
    At(Revision),
    /// A write may or may not have happened.
    Uncertain,
}

/// Why a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    /// Something waits for it: an answer goes out when it is durable.
    Step,
    /// Nothing waits for it.
    Upkeep,
    /// The record goes.
    Delete,
}

/// Numbers of changes.
#[derive(Clone, Copy, Debug, Default)]
struct Mirrors {
    latest: u64,
    writing: u64,
    durable: u64,
}

/// What still has to end before a participant is gone.
#[derive(Clone, Copy, Debug, Default)]
struct Release {
    leg: bool,
    record: bool,
    bye: bool,
}

/// How a participant leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It sent BYE (already answered).
    ByPeer,
    /// The dialog is not there any more at the peer's.
    Lost,
    /// We end it; text for the Reason header and for people.
    Ended(&'static str),
    /// Its INVITE was refused.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) id: ParticipantId,
    pub(crate) source: SourceId,
    pub(crate) order: u64,
    /// ms since the Unix epoch; when its INVITE came.
    pub(crate) joined_at: u64,
    pub(crate) identity: Identity,
    pub(crate) phase: Phase,
    pub(crate) dialog: Dialog,
    /// Media in force.
    pub(crate) plan: Option<Plan>,
    pub(crate) local: Option<LocalMedia>,
    pub(crate) latch: bool,
    pub(crate) peer_update: bool,
    pub(crate) timer: SessionTimer,
    /// The peer's INVITE that has no final response yet.
    pub(crate) incoming: Option<Incoming>,
    pub(crate) exchange: Option<Exchange>,
    /// Our 2xx that waits for its ACK.
    pub(crate) accepted: Option<Accepted>,
    /// Its INVITE's.
    pub(crate) accepted_key: Option<ServerKey>,
    pub(crate) reliable: Option<Reliable>,
    /// Our re-INVITE or UPDATE without an answer.
    pub(crate) ours: Option<Ours>,
    /// CSeq of the re-INVITE of ours whose ACK was sent last: a repeated 2xx gets it again.
    pub(crate) acked: Option<u32>,
    /// Number of the latest change of the leg.
    pub(crate) leg_change: u64,
    /// How often new SDES keys were drawn because of another instance of the switch.
    pub(crate) keys_drawn: u32,
    /// Which of them the peer knows.
    pub(crate) keys_told: u32,
    /// The switch has moved the leg to these addresses, or sends with new keys; the peer does not know yet.
    pub(crate) moved: Option<LocalMedia>,
    /// What became of our latest offer at the peer's is not known: the media are offered again.
    pub(crate) reoffer_due: bool,
    /// Since when the peer refuses to be told of that, and asks to be told later.
    pub(crate) untold_since: Option<Instant>,
    /// Since when no switch takes the leg of a call that is.
    pub(crate) legless_since: Option<Instant>,
    /// The switch hears it.
    pub(crate) connected: bool,
    /// Subscriptions that share the dialog, for the record.
    subscriptions: Vec<SubscriptionState>,
    /// How often these changed: by now, in the record that is being written, in the one that is durable.
    mirrors: Mirrors,
    /// A BYE that is still to be sent, with this Reason.
    pub(crate) bye_waits: Option<&'static str>,
    /// Our 2xx that waits for its ACK, for the record.
    pub(crate) unacknowledged: Option<Unacknowledged>,
    /// The record says so.
    pub(crate) stored_unacknowledged: bool,
    known: Known,
    /// Of the record that is in the store, or being written.
    essence: Option<u64>,
    writing: Option<Write>,
    queued: Option<Write>,
    stored_cseq: u32,
    release: Release,
}

impl Participant {
    /// Of a dialog that is about to be, or that a record tells of.
    pub(crate) fn new(
        id: ParticipantId,
        identity: Identity,
        dialog: Dialog,
        source: SourceId,
        order: u64,
        timer: SessionTimer,
    ) -> Self {
        Self {
            id,
            source,
            order,
            joined_at: 0,
            identity,
            phase: Phase::Joining,
            stored_cseq: dialog.local_cseq,
            dialog,
            plan: None,
            local: None,
            latch: false,
            peer_update: false,
            timer,
            incoming: None,
            exchange: None,
            accepted: None,
            accepted_key: None,
            reliable: None,
            ours: None,
            acked: None,
            leg_change: 0,
            keys_drawn: 0,
            keys_told: 0,
            moved: None,
            reoffer_due: false,
            untold_since: None,
            legless_since: None,
            connected: false,
            subscriptions: Vec::new(),
            mirrors: Mirrors::default(),
            bye_waits: None,
            unacknowledged: None,
            stored_unacknowledged: false,
            known: Known::Absent,
            essence: None,
            writing: None,
            queued: None,
            release: Release::default(),
        }
    }

    /// From a record of this meeting. The peer may have seen CSeqs beyond the stored one.
    pub(crate) fn adopt(
        sh: &mut Shared,
        now: Instant,
        record: ParticipantRecord,
        revision: Revision,
    ) -> Self {
        let essence = essence(&record);
        let mut dialog = record.dialog;
        dialog.local_cseq = dialog.local_cseq.saturating_add(CSEQ_RESERVE);
        // The first record is written before the 200 goes out.
        dialog.state = DialogState::Confirmed;
        let mut timer = record.timer;
        // Not all at once.
        let share = u32::try_from(sh.rng.below(1_000)).unwrap_or(0);
        timer.on_taken_over(Duration::from_millis(sh.unix_ms(now)), share);
        Self {
            joined_at: record.joined_at,
            phase: Phase::Joined,
            plan: Some(record.plan),
            local: Some(record.local),
            latch: record.latch,
            peer_update: record.peer_update,
            subscriptions: record.subscriptions,
            stored_unacknowledged: record.unacknowledged.is_some(),
            unacknowledged: record.unacknowledged,
            known: Known::At(revision),
            essence: Some(essence),
            ..Self::new(
                record.id,
                record.identity,
                dialog,
                record.source,
                record.order,
                timer,
            )
        }
    }

    pub(crate) fn timer_key(&self, cx: &Cx<'_>, timer: ParticipantTimer) -> TimerKey {
        TimerKey::Participant(cx.facts.id.clone(), self.id.clone(), timer)
    }

    // ---- the record

    fn record(&self, cx: &Cx<'_>) -> Option<Box<ParticipantRecord>> {
        let (plan, local, timer) = self.next_state(cx)?;
        Some(Box::new(ParticipantRecord {
            version: RECORD_VERSION,
            id: self.id.clone(),
            source: self.source,
            order: self.order,
            joined_at: self.joined_at,
            identity: self.identity.clone(),
            dialog: self.dialog.clone(),
            plan,
            local,
            switch: cx.link.switch()?.clone(),
            instance: self.keyed_instance(cx).to_owned(),
            latch: self.latch,
            peer_update: self.peer_update,
            timer,
            subscriptions: self.subscriptions.clone(),
            unacknowledged: self.still_unacknowledged(cx),
        }))
    }

    /// Whether the store has all of a record that whoever goes on with the dialog needs.
    fn is_stored(&self, record: &ParticipantRecord) -> bool {
        let stored = |record: &ParticipantRecord| {
            matches!(self.known, Known::At(_)) && self.essence == Some(essence(record))
        };
        let used = record.dialog.local_cseq.saturating_sub(self.stored_cseq);
        if used >= CSEQ_RESERVE / 2 {
            return false;
        }
        if stored(record) {
            return true;
        }
        // A re-INVITE whose 200 is lost comes again; what it asks for is there.
        let again = self.incoming.as_ref().is_some_and(|i| !i.initial);
        again && !self.stored_unacknowledged && {
            let mut record = record.clone();
            record.unacknowledged = None;
            stored(&record)
        }
    }

    /// The switch's instance, if the peer will know the keys once the answer that waits for the record is out.
    fn keyed_instance<'a>(&self, cx: &'a Cx<'_>) -> &'a str {
        let storing = |e: &&Exchange| e.stage == Stage::Storing;
        let told = self.exchange.as_ref().filter(storing).and_then(|e| {
            let soon = e.described.then_some(self.keys_drawn);
            e.told.as_ref().map(|told| told.keys).or(soon)
        });
        if told.unwrap_or(self.keys_told) == self.keys_drawn {
            cx.link.instance()
        } else {
            ""
        }
    }

    /// What will hold once the answer that waits for the record has gone out.
    fn next_state(&self, cx: &Cx<'_>) -> Option<(Plan, LocalMedia, SessionTimer)> {
        let mut timer = self.timer;
        let mut media = self.plan.as_ref().zip(self.local.as_ref());
        if let Some(exchange) = &self.exchange
            && exchange.stage == Stage::Storing
        {
            media = Some((&exchange.target, exchange.local.as_ref()?));
            if let Carrier::Update { agreement, .. } = &exchange.carrier {
                timer.on_agreed(cx.unix(), agreement);
            }
        }
        if let Some(incoming) = &self.incoming {
            timer.on_agreed(cx.unix(), &incoming.agreement);
        }
        let (plan, local) = media?;
        Some((plan.clone(), local.clone(), timer))
    }

    /// Writes the record; `on_step_stored` or `on_step_failed` of the INVITE usage follows.
    pub(crate) fn write_step(&mut self, cx: &mut Cx<'_>) {
        self.write(cx, Write::Step);
    }

    /// Writes the record, nobody waits for it.
    pub(crate) fn write_upkeep(&mut self, cx: &mut Cx<'_>) {
        if self.phase == Phase::Joined && self.known != Known::Absent {
            self.write(cx, Write::Upkeep);
        }
    }

    /// The subscriptions that share the dialog are these now: writes the record. Comes back with the number of this
    /// change.
    pub(crate) fn mirror(&mut self, cx: &mut Cx<'_>, states: Vec<SubscriptionState>) -> u64 {
        self.subscriptions = states;
        self.mirrors.latest += 1;
        self.write_upkeep(cx);
        self.mirrors.latest
    }

    /// Up to which change of the subscriptions the record is durable, and whether it is being written.
    pub(crate) fn mirrored(&self) -> (u64, bool) {
        (self.mirrors.durable, self.writing.is_some())
    }

    /// CSeqs have been used since the record was written: writes it before they exceed the reserve.
    pub(crate) fn on_cseq_used(&mut self, cx: &mut Cx<'_>) {
        if self.dialog.local_cseq >= self.stored_cseq.saturating_add(CSEQ_RESERVE / 2) {
            self.write_upkeep(cx);
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, write: Write) {
        if self.writing.is_some() {
            // A deletion overtakes what else waited; a step overtakes upkeep, which it contains.
            let stronger = match self.queued {
                Some(Write::Delete) => Write::Delete,
                Some(Write::Step) if write == Write::Upkeep => Write::Step,
                _ => write,
            };
            self.queued = Some(stronger);
            return;
        }
        let key = keys::dialog(cx.facts.id.as_str(), self.id.as_str());
        let mut txn = Txn {
            compares: vec![cx.facts.guard()],
            ops: Vec::new(),
        };
        if write == Write::Delete {
            txn.ops.push(Op::Delete(key));
        } else {
            let Some(record) = self.record(cx) else {
                // The leg has no switch any more: there is nothing to go on with.
                if write == Write::Step {
                    self.on_step_failed(cx);
                }
                return;
            };
            if self.is_stored(&record) {
                self.mirrors.durable = self.mirrors.latest;
                if write == Write::Step {
                    self.on_step_stored(cx);
                }
                return;
            }
            if write == Write::Step && cx.sh.is_cut_off(cx.now) {
                self.on_step_failed(cx);
                return;
            }
            match self.known {
                Known::Absent => txn.compares.push(Compare::Absent(key.clone())),
                Known::At(revision) => txn.compares.push(Compare::Unchanged(key.clone(), revision)),
                Known::Uncertain => {}
            }
            self.stored_cseq = self.dialog.local_cseq;
            self.mirrors.writing = self.mirrors.latest;
            self.essence = Some(essence(&record));
            let record = DialogRecord::Participant(record);
            self.on_record_made(cx, &record);
            txn.ops.push(Op::Put(key, to_bytes(&record), None));
        }
        self.writing = Some(write);
        cx.sh
            .store(OpUse::Dialog(cx.facts.id.clone(), self.id.clone()), txn);
    }

    /// A write ended. `false`: the meeting is no longer ours.
    #[must_use]
    pub(crate) fn on_stored(
        &mut self,
        cx: &mut Cx<'_>,
        result: Result<Stored, StoreFailure>,
    ) -> bool {
        let Some(write) = self.writing.take() else {
            return true;
        };
        let stored = match result {
            Ok(Stored::Conflict) => return false,
            Ok(Stored::Committed(revision)) => {
                self.known = if write == Write::Delete {
                    Known::Absent
                } else {
                    self.mirrors.durable = self.mirrors.writing;
                    Known::At(revision)
                };
                true
            }
            Err(StoreFailure::Unavailable) => {
                self.essence = None;
                false
            }
            Err(StoreFailure::Unknown) => {
                self.essence = None;
                self.known = Known::Uncertain;
                false
            }
        };
        match (write, stored) {
            (Write::Delete, true) => {
                self.release.record = false;
                self.queued = None;
                self.send_due_bye(cx);
                self.check_gone(cx);
                return true;
            }
            (Write::Delete, false) => {
                let key = self.timer_key(cx, ParticipantTimer::Delete);
                cx.sh.timers.set(key, cx.now + DELETE_RETRY);
                return true;
            }
            // Who leaves meanwhile has given up waiting for the step. What waits for a step that was asked
            // for since is not in the record yet; that one has it all.
            (Write::Step, true)
                if self.phase != Phase::Leaving && self.queued != Some(Write::Step) =>
            {
                self.on_step_stored(cx);
            }
            (Write::Step, false) if self.phase != Phase::Leaving => self.on_step_failed(cx),
            _ => {}
        }
        if self.writing.is_none()
            && let Some(next) = self.queued.take()
        {
            self.write(cx, next);
        }
        true
    }

    /// A refused deletion is tried again.
    pub(crate) fn on_delete_again(&mut self, cx: &mut Cx<'_>) {
        self.write(cx, Write::Delete);
    }

    // ---- the way out

    /// Begins to leave. What is pending is answered 487 (RFC 3261 §15.1.2), the leg and the record go.
    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>, how: &Leave) {
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        let joined = self.phase == Phase::Joined;
        self.phase = Phase::Leaving;
        self.answer_pending(cx, how);
        self.exchange = None;
        self.moved = None;
        self.reliable = None;
        cx.roster.on_left(&self.id);
        for timer in [
            ParticipantTimer::Reliable,
            ParticipantTimer::Session,
            ParticipantTimer::Glare,
            ParticipantTimer::Leg,
        ] {
            let key = self.timer_key(cx, timer);
            cx.sh.timers.clear(&key);
        }
        self.release.leg = cx.link.unwant(&self.id);
        if self.known != Known::Absent || self.writing.is_some() {
            self.release.record = true;
            self.queued = None;
            self.write(cx, Write::Delete);
        }
        if let Leave::Ended(text) = how
            && joined
        {
            self.release.bye = true;
            self.bye_waits = Some(text);
            self.send_due_bye(cx);
        } else {
            self.stop_repeating(cx);
        }
        self.check_gone(cx);
    }

    fn answer_pending(&mut self, cx: &mut Cx<'_>, how: &Leave) {
        let why = match how {
            Leave::Ended(text) => Refusal::new(480, *text),
            _ => Refusal::new(487, "Request Terminated"),
        };
        if let Some(incoming) = self.incoming.take() {
            cx.sh
                .refuse_in(cx.now, incoming.key, &self.dialog, &incoming.request, &why);
        }
        if let Some(exchange) = &self.exchange
            && let Carrier::Update { key, request, .. } | Carrier::Prack { key, request } =
                &exchange.carrier
        {
            cx.sh.refuse_in(cx.now, *key, &self.dialog, request, &why);
        }
    }

    /// Sends the BYE that waits, if nothing keeps it: our 2xx has its ACK (RFC 3261 §15), and the store has taken the
    /// record away, which it does not for a member that has been replaced meanwhile.
    pub(crate) fn send_due_bye(&mut self, cx: &mut Cx<'_>) {
        if self.accepted.is_none()
            && !self.release.record
            && let Some(text) = self.bye_waits
        {
            self.send_bye(cx, text);
        }
    }

    /// Sends BYE with a Reason that says why (RFC 3326).
    fn send_bye(&mut self, cx: &mut Cx<'_>, text: &str) {
        let mut bye = self.dialog.request(Method::Bye);
        bye.set(HeaderName::Reason, format!("SIP;cause=200;text=\"{text}\""));
        self.bye_waits = None;
        cx.sh.send(
            cx.now,
            &self.dialog,
            bye,
            &cx.facts.id,
            Purpose::Bye(self.id.clone()),
        );
    }

    /// The BYE was answered, timed out, or is not needed any more.
    pub(crate) fn on_bye_done(&mut self, cx: &mut Cx<'_>) {
        self.release.bye = false;
        self.bye_waits = None;
        self.stop_repeating(cx);
        self.check_gone(cx);
    }

    /// The switch has removed the leg.
    pub(crate) fn on_leg_removed(&mut self, cx: &mut Cx<'_>) {
        self.release.leg = false;
        self.check_gone(cx);
    }

    fn check_gone(&mut self, cx: &mut Cx<'_>) {
        let waits = self.release.leg || self.release.record || self.release.bye;
        if self.phase == Phase::Leaving && !waits {
            self.phase = Phase::Gone;
            cx.sh.forget_participant_timers(&cx.facts.id, &self.id);
        }
    }
}
