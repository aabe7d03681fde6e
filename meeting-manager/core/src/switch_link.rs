//! A meeting's tie to the switch that carries it: the desired legs, and one request at a time that makes
//! them so.
//!
//! ```text
//!            leg wanted                  answered, nothing else wanted
//!   Idle ───────────────► Applying ──────────────────────────────────► Idle
//!     ▲                      │  ▲ answered, more wanted (one request for all of it)
//!     │ pause over           │  └──┐
//!     └── Pausing ◄──────────┘─────┘
//!          failed, and the switch must be told again
//! ```
//!
//! What is wanted while a request is under way goes out together in the next one, so that requests are
//! never out of order and a thousand who join at once cost few of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::Revision;
use control::v1 as ctl;

use crate::command::ApplyFailure;
use crate::ids::{MeetingId, OpId, ParticipantId, SwitchId};
use crate::shared::{MeetingTimer, OpUse, Shared, TimerKey};
use crate::switch_choice::Departure;

/// How long after a failed request that must not be lost (a removal) the whole meeting is sent again.
const RETRY: Duration = Duration::from_secs(1);

/// Tries to tell a switch that a meeting is over. A switch that is gone has freed everything by itself.
const END_TRIES: u32 = 10;

/// A leg with the number of its latest change.
#[derive(Debug)]
struct Wanted {
    leg: ctl::Leg,
    change: u64,
}

#[derive(Debug)]
struct Inflight {
    op: OpId,
    /// (leg, change) that the request carries.
    legs: Vec<(ParticipantId, u64)>,
    removed: Vec<ParticipantId>,
    full: bool,
    end: bool,
}

/// The outcome for one leg.
#[derive(Debug)]
pub(crate) struct LegOutcome {
    pub(crate) id: ParticipantId,
    pub(crate) change: u64,
    pub(crate) result: Result<(ctl::Leg, ctl::LegState), LegFailure>,
}

/// Why a leg is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LegFailure {
    /// No switch answers.
    NoSwitch,
    /// The switch cannot make it now; its text.
    Refused(String),
    /// It never can: it has no address of the family that the peer has; its text.
    Unsupported(String),
}

/// What an answer of the switch means for the meeting.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) legs: Vec<LegOutcome>,
    pub(crate) removed: Vec<ParticipantId>,
    /// The switch has been started anew since, or is another: every leg must be made again, with new keys.
    pub(crate) restarted: bool,
    /// The meeting belongs to somebody else.
    pub(crate) fenced: bool,
    /// The meeting is no longer on any switch.
    pub(crate) ended: bool,
}

impl Applied {
    pub(crate) fn is_empty(&self) -> bool {
        self.legs.is_empty()
            && self.removed.is_empty()
            && !self.restarted
            && !self.fenced
            && !self.ended
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SwitchLink {
    switch: Option<SwitchId>,
    /// Its instance that the legs' keys were drawn for; empty where that will be the one that answers.
    instance: String,
    tried: BTreeSet<SwitchId>,
    /// Where the meeting was before, which still forwards for those who have not been told.
    leaving: Option<SwitchId>,
    legs: BTreeMap<ParticipantId, Wanted>,
    dirty: BTreeSet<ParticipantId>,
    removed: BTreeSet<ParticipantId>,
    inflight: Option<Inflight>,
    full: bool,
    end: Option<u32>,
    pausing: bool,
    /// The switch has answered for this meeting: moving elsewhere would break media that flow.
    settled: bool,
    changes: u64,
    policy: ctl::MeetingPolicy,
}

impl SwitchLink {
    pub(crate) fn new(audio_slots: usize, media_timeout: Duration) -> Self {
        Self {
            switch: None,
            instance: String::new(),
            tried: BTreeSet::new(),
            leaving: None,
            legs: BTreeMap::new(),
            dirty: BTreeSet::new(),
            removed: BTreeSet::new(),
            inflight: None,
            full: true,
            end: None,
            pausing: false,
            settled: false,
            changes: 0,
            policy: ctl::MeetingPolicy {
                audio_slots: heard_at_once(audio_slots),
                media_timeout_ms: u32::try_from(media_timeout.as_millis()).unwrap_or(u32::MAX),
            },
        }
    }

    /// How many are heard at once, where that is known only now.
    pub(crate) fn set_audio_slots(&mut self, audio_slots: usize) {
        self.policy.audio_slots = heard_at_once(audio_slots);
    }

    pub(crate) fn switch(&self) -> Option<&SwitchId> {
        self.switch.as_ref()
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether a leg is wanted.
    pub(crate) fn has(&self, id: &ParticipantId) -> bool {
        self.legs.contains_key(id)
    }

    /// The switch has answered for the meeting, and nothing else is to be told it.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled && self.is_quiet()
    }

    /// The switch is told the whole meeting again.
    pub(crate) fn resync(&mut self) {
        self.full = true;
        self.dirty = self.legs.keys().cloned().collect();
    }

    /// Whose legs the switch should hold.
    pub(crate) fn leg_ids(&self) -> impl Iterator<Item = &ParticipantId> {
        self.legs.keys()
    }

    /// Legs that the switch may hold.
    pub(crate) fn leg_count(&self) -> usize {
        self.legs.len()
    }

    /// Goes on with the switch a record names (where it is still there).
    pub(crate) fn resume(&mut self, sh: &mut Shared, switch: SwitchId) {
        if self.switch.is_none() && sh.switches.is_registered(&switch) {
            sh.switches.occupy(&switch);
            let info = sh.switches.get(&switch);
            self.instance = info.map(|i| i.instance.clone()).unwrap_or_default();
            self.switch = Some(switch);
        }
    }

    /// The switch is another instance now, for which keys will be drawn.
    pub(crate) fn set_instance(&mut self, instance: &str) {
        instance.clone_into(&mut self.instance);
    }

    /// Wants a leg so; returns the number of the change, which its outcome will name.
    pub(crate) fn want(&mut self, id: &ParticipantId, leg: ctl::Leg) -> u64 {
        self.changes += 1;
        let change = self.changes;
        self.legs.insert(id.clone(), Wanted { leg, change });
        self.dirty.insert(id.clone());
        self.removed.remove(id);
        self.end = None;
        change
    }

    /// Wants a leg gone. `false` where the switch never heard of it, so that nothing is to be waited for.
    pub(crate) fn unwant(&mut self, id: &ParticipantId) -> bool {
        let known = self.legs.remove(id).is_some();
        let never_sent = self.dirty.remove(id) && !self.may_know(id) && self.switch.is_none();
        if !known || never_sent {
            return self.removed.contains(id);
        }
        self.removed.insert(id.clone());
        true
    }

    fn may_know(&self, id: &ParticipantId) -> bool {
        self.inflight
            .as_ref()
            .is_some_and(|f| f.legs.iter().any(|(leg, _)| leg == id))
    }

    /// Wants the meeting gone from the switch. `false` where it is on none.
    pub(crate) fn end(&mut self) -> bool {
        self.legs.clear();
        self.dirty.clear();
        if self.switch.is_none() && self.inflight.is_none() {
            return false;
        }
        self.end = Some(0);
        true
    }

    /// The switch has a new instance: everything is to be sent again.
    pub(crate) fn on_restart_noticed(&mut self) -> Vec<(ParticipantId, u64)> {
        self.full = true;
        self.pausing = false;
        let mut all = Vec::with_capacity(self.legs.len());
        for (id, wanted) in &mut self.legs {
            self.changes += 1;
            wanted.change = self.changes;
            all.push((id.clone(), wanted.change));
        }
        self.dirty = self.legs.keys().cloned().collect();
        all
    }

    /// Leaves the switch for another one: every leg is made again there, with the numbers of these changes.
    pub(crate) fn depart(&mut self, sh: &mut Shared, why: Departure) -> Vec<(ParticipantId, u64)> {
        let Some(old) = self.switch.clone() else {
            return Vec::new();
        };
        // What is under way is not waited for: its answer is of a place that is being left.
        if let Some(inflight) = self.inflight.take() {
            self.removed.extend(inflight.removed);
        }
        self.leave_switch(sh);
        self.tried.clear();
        self.tried.insert(old.clone());
        if why == Departure::Draining {
            self.leaving = Some(old);
        }
        self.on_restart_noticed()
    }

    /// A switch that is still being left.
    pub(crate) fn leaving(&self) -> Option<&SwitchId> {
        self.leaving.as_ref()
    }

    /// Everybody knows the new place: the old one forgets the meeting.
    pub(crate) fn on_left(&mut self, sh: &mut Shared, meeting: &MeetingId, epoch: Revision) {
        if let Some(old) = self.leaving.take() {
            self.end_at(sh, meeting, epoch, old);
        }
    }

    /// The pause after a failure is over.
    pub(crate) fn on_pause_over(&mut self) {
        self.pausing = false;
    }

    /// Sends what is wanted, if nothing is under way. Outcomes that need no switch (there is none) come back.
    pub(crate) fn flush(
        &mut self,
        sh: &mut Shared,
        meeting: &MeetingId,
        epoch: Revision,
    ) -> Applied {
        let mut out = Applied::default();
        if self.inflight.is_some() || self.pausing {
            return out;
        }
        let nothing = self.dirty.is_empty() && self.removed.is_empty() && self.end.is_none();
        let resync = self.full && self.settled;
        if nothing && !resync {
            return out;
        }
        if self.switch.is_none() && !self.choose(sh, &mut out) {
            return out;
        }
        let Some(switch) = self.switch.clone() else {
            return out;
        };
        let end = self.end.is_some();
        let full = self.full && !end;
        let legs: Vec<(ParticipantId, u64)> = self
            .legs
            .iter()
            .filter(|(id, _)| full || self.dirty.contains(*id))
            .map(|(id, w)| (id.clone(), w.change))
            .collect();
        let removed: Vec<ParticipantId> = std::mem::take(&mut self.removed).into_iter().collect();
        self.dirty.clear();
        let request = ctl::ApplyRequest {
            version: control::VERSION,
            member: sh.config.member.clone(),
            meeting: meeting.to_string(),
            epoch: epoch.0,
            full,
            legs: legs
                .iter()
                .map(|(id, _)| self.legs[id].leg.clone())
                .collect(),
            removed_legs: removed.iter().map(ToString::to_string).collect(),
            policy: Some(self.policy),
            end,
        };
        let op = sh.apply(OpUse::Apply(meeting.clone()), switch, request);
        sh.timers.clear(&TimerKey::Meeting(
            meeting.clone(),
            MeetingTimer::ApplyAgain,
        ));
        self.inflight = Some(Inflight {
            op,
            legs,
            removed,
            full,
            end,
        });
        out
    }

    fn choose(&mut self, sh: &mut Shared, out: &mut Applied) -> bool {
        if self.dirty.is_empty() {
            // Nothing was ever made anywhere: removals and the end have nothing to do.
            out.removed.extend(std::mem::take(&mut self.removed));
            out.ended = self.end.take().is_some();
            self.full = true;
            return false;
        }
        match sh.switches.choose(&self.tried) {
            Some(id) => {
                sh.switches.occupy(&id);
                self.leaving.take_if(|left| *left == id);
                self.switch = Some(id);
                self.full = true;
                true
            }
            None => {
                self.tried.clear();
                for id in std::mem::take(&mut self.dirty) {
                    if let Some(wanted) = self.legs.remove(&id) {
                        out.legs.push(LegOutcome {
                            id,
                            change: wanted.change,
                            result: Err(LegFailure::NoSwitch),
                        });
                    }
                }
                out.removed.extend(std::mem::take(&mut self.removed));
                out.ended = self.end.take().is_some();
                false
            }
        }
    }

    fn leave_switch(&mut self, sh: &mut Shared) {
        if let Some(id) = self.switch.take() {
            sh.switches.vacate(&id);
        }
        self.instance.clear();
        self.settled = false;
        self.full = true;
    }

    /// The switch answered, or did not.
    pub(crate) fn on_applied(
        &mut self,
        sh: &mut Shared,
        meeting: &MeetingId,
        epoch: Revision,
        now: std::time::Instant,
        op: OpId,
        result: Result<ctl::ApplyResponse, ApplyFailure>,
    ) -> Applied {
        let Some(inflight) = self.inflight.take_if(|f| f.op == op) else {
            return Applied::default();
        };
        match result {
            Ok(response) => self.on_answered(sh, inflight, response),
            Err(ApplyFailure::Fenced) => Applied {
                fenced: true,
                ..Applied::default()
            },
            Err(failure) => self.on_failed(sh, meeting, epoch, now, inflight, &failure),
        }
    }

    fn on_answered(
        &mut self,
        sh: &mut Shared,
        inflight: Inflight,
        response: ctl::ApplyResponse,
    ) -> Applied {
        let mut out = Applied {
            removed: inflight.removed,
            ..Applied::default()
        };
        self.tried.clear();
        if inflight.end {
            if self.end.take().is_some() || self.legs.is_empty() {
                self.leave_switch(sh);
                out.ended = true;
                return out;
            }
            // Somebody was let in meanwhile: begin again on the same switch.
            self.full = true;
            self.settled = false;
            return out;
        }
        // Also where it was told everything: the legs had keys that another instance may have used.
        out.restarted = !self.instance.is_empty() && self.instance != response.instance;
        self.instance = response.instance;
        self.settled = true;
        if inflight.full {
            self.full = false;
        }
        let mut states: BTreeMap<&str, &ctl::LegState> =
            response.legs.iter().map(|l| (l.id.as_str(), l)).collect();
        for (id, change) in inflight.legs {
            let state = states.remove(id.as_str());
            let Some(wanted) = self.legs.get(&id) else {
                continue;
            };
            let result = match state {
                Some(state) if state.refused.is_empty() => Ok((wanted.leg.clone(), state.clone())),
                Some(state) if state.unsupported => {
                    Err(LegFailure::Unsupported(state.refused.clone()))
                }
                Some(state) => Err(LegFailure::Refused(state.refused.clone())),
                None => Err(LegFailure::Refused(
                    "the switch says nothing of this leg".into(),
                )),
            };
            out.legs.push(LegOutcome { id, change, result });
        }
        out
    }

    fn on_failed(
        &mut self,
        sh: &mut Shared,
        meeting: &MeetingId,
        epoch: Revision,
        now: std::time::Instant,
        inflight: Inflight,
        failure: &ApplyFailure,
    ) -> Applied {
        let mut out = Applied::default();
        let refused = matches!(failure, ApplyFailure::Refused);
        if inflight.end {
            let tries = self.end.map_or(END_TRIES, |t| t + 1);
            if refused || tries >= END_TRIES {
                self.end = None;
                self.leave_switch(sh);
                out.removed = inflight.removed;
                out.ended = true;
            } else {
                self.end = Some(tries);
                self.removed.extend(inflight.removed);
                self.pause(sh, meeting, now);
            }
            return out;
        }
        if !self.settled && !refused {
            // Nothing flows yet: another switch may do. The one that did not answer may have made it all the same.
            if let Some(switch) = self.switch.clone() {
                self.abandon(sh, meeting, epoch, switch);
            }
            out.removed = inflight.removed;
            self.dirty = self.legs.keys().cloned().collect();
            out.restarted = true;
            return out;
        }
        // Legs that exist stay as they are on the switch; those of this request are told, and the next request
        // names all of it, so that a removal or a half-done change is not lost.
        self.full = true;
        let failure = if refused {
            LegFailure::Refused("the switch does not take this request".into())
        } else {
            LegFailure::NoSwitch
        };
        for (id, change) in inflight.legs {
            if self.legs.get(&id).is_some_and(|w| w.change == change) {
                out.legs.push(LegOutcome {
                    id,
                    change,
                    result: Err(failure.clone()),
                });
            }
        }
        out.removed = inflight.removed;
        self.pause(sh, meeting, now);
        out
    }

    /// Leaves a switch that did not answer, telling it once that the meeting is not there.
    fn abandon(&mut self, sh: &mut Shared, meeting: &MeetingId, epoch: Revision, switch: SwitchId) {
        self.end_at(sh, meeting, epoch, switch.clone());
        self.leave_switch(sh);
        self.tried.insert(switch);
    }

    /// Tells a switch once that the meeting is not there.
    pub(crate) fn end_at(
        &self,
        sh: &mut Shared,
        meeting: &MeetingId,
        epoch: Revision,
        switch: SwitchId,
    ) {
        let request = ctl::ApplyRequest {
            version: control::VERSION,
            member: sh.config.member.clone(),
            meeting: meeting.to_string(),
            epoch: epoch.0,
            end: true,
            ..ctl::ApplyRequest::default()
        };
        sh.apply(OpUse::Ignored, switch, request);
    }

    fn pause(&mut self, sh: &mut Shared, meeting: &MeetingId, now: std::time::Instant) {
        self.pausing = true;
        sh.timers.set(
            TimerKey::Meeting(meeting.clone(), MeetingTimer::ApplyAgain),
            now + RETRY,
        );
    }

    /// Would [`Self::flush`] do something now?
    pub(crate) fn wants_flush(&self) -> bool {
        let wanted = !self.dirty.is_empty() || !self.removed.is_empty() || self.end.is_some();
        self.inflight.is_none() && !self.pausing && (wanted || (self.full && self.settled))
    }

    /// Is anything under way or wanted?
    pub(crate) fn is_quiet(&self) -> bool {
        self.inflight.is_none()
            && self.dirty.is_empty()
            && self.removed.is_empty()
            && self.end.is_none()
    }

    /// Forgets the switch without a word to it: the meeting is not ours any more.
    pub(crate) fn forget(&mut self, sh: &mut Shared) {
        self.leave_switch(sh);
        self.legs.clear();
        self.inflight = None;
    }
}

/// As the switch takes it.
fn heard_at_once(audio_slots: usize) -> u32 {
    u32::try_from(audio_slots.clamp(1, 3)).unwrap_or(1)
}
