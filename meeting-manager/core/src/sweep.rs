//! Finds what belongs to nothing: legs without a dialog, dialogs without a leg, records without either.
//!
//! What is seen once may be under way; what is seen in two sweeps running and in a meeting where nothing is being changed
//! is put right: the meeting is told its switch whole, or ended there, or the record deleted, under the epoch as ever.

use std::collections::BTreeSet;
use std::time::Instant;

use cluster::records::keys;
use cluster::{Op, Txn};

use crate::focus::Focus;
use crate::ids::{MeetingId, ParticipantId, SwitchId};
use crate::meeting::{Meeting, State};
use crate::shared::OpUse;

/// A meeting as a switch holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub meeting: String,
    /// The highest epoch the switch has seen of it.
    pub epoch: u64,
    /// Ids of its legs.
    pub legs: Vec<String>,
}

/// What a sweep has put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Legs without a dialog here.
    pub legs: usize,
    /// Dialogs without a leg there.
    pub dialogs: usize,
    /// Meetings on a switch that nobody has there.
    pub meetings: usize,
    /// Dialog records of no dialog.
    pub records: usize,
}

/// What was found once, by where it was found.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeSet<(String, String, String)>);

impl Suspects {
    /// Replaces what was found at a place; what was found there before too.
    fn again(&mut self, place: &str, found: BTreeSet<(String, String)>) -> Vec<(String, String)> {
        let before: BTreeSet<(String, String)> = self
            .0
            .iter()
            .filter(|(at, ..)| at == place)
            .map(|(_, meeting, thing)| (meeting.clone(), thing.clone()))
            .collect();
        self.0.retain(|(at, ..)| at != place);
        let (twice, once): (Vec<_>, Vec<_>) = found.into_iter().partition(|f| before.contains(f));
        for (meeting, thing) in once {
            self.0.insert((place.to_owned(), meeting, thing));
        }
        twice
    }
}

const LEG: &str = "leg ";
const DIALOG: &str = "dialog ";
const WHOLE: &str = "";

impl Focus {
    /// What a switch holds, all of it.
    pub fn handle_inventory(&mut self, now: Instant, switch: &SwitchId, held: &[Held]) -> Orphans {
        let mut found = BTreeSet::new();
        for view in held {
            let id = MeetingId::new(&view.meeting);
            let meeting = id.as_ref().and_then(|id| self.meetings.get(id));
            let mut suspect = |thing: String| {
                found.insert((view.meeting.clone(), thing));
            };
            match meeting {
                Some(meeting) if is_on(meeting, switch) => compare(meeting, view, &mut suspect),
                // Being claimed, or left for another switch.
                Some(meeting) if meeting.state != State::Active => {}
                Some(meeting) if meeting.link.leaving() == Some(switch) => {}
                Some(_) => suspect(WHOLE.to_owned()),
                None if id.is_some_and(|id| self.succession.may_be_anothers(&id)) => {}
                None => suspect(WHOLE.to_owned()),
            }
        }
        let lost = |m: &&Meeting| {
            is_on(m, switch) && !held.iter().any(|view| view.meeting == m.facts.id.as_str())
        };
        for meeting in self.meetings.values().filter(lost) {
            for leg in meeting.link.leg_ids().filter(|_| meeting.link.is_settled()) {
                found.insert((meeting.facts.id.to_string(), format!("{DIALOG}{leg}")));
            }
        }
        let mut orphans = Orphans::default();
        for (meeting, thing) in self.suspects.again(&format!("switch {switch}"), found) {
            let Some(id) = MeetingId::new(&meeting) else {
                continue;
            };
            if thing == WHOLE {
                self.end_there(now, &id, switch);
                orphans.meetings += 1;
                continue;
            }
            self.with_meeting(now, &id, |m, _| m.link.resync());
            match thing.starts_with(LEG) {
                true => orphans.legs += 1,
                false => orphans.dialogs += 1,
            }
        }
        orphans
    }

    /// The keys of a meeting's dialog records, all of them, without their prefix.
    pub fn handle_records(&mut self, id: &MeetingId, records: &[String]) -> Orphans {
        let Some(meeting) = self.meetings.get(id).filter(|m| m.state == State::Active) else {
            return Orphans::default();
        };
        let known = |key: &&String| {
            let participant = meeting.participants.keys().any(|id| id.as_str() == **key);
            participant || meeting.subscriptions.keys().any(|id| id.as_str() == **key)
        };
        let unknown = records.iter().filter(|key| !known(key));
        let found = unknown.map(|key| (id.to_string(), key.clone())).collect();
        let guard = meeting.facts.guard();
        let twice = self.suspects.again(&format!("records {id}"), found);
        for (_, key) in &twice {
            let txn = Txn {
                compares: vec![guard.clone()],
                ops: vec![Op::Delete(keys::dialog(id.as_str(), key))],
            };
            self.sh.store(OpUse::Ignored, txn);
        }
        Orphans {
            records: twice.len(),
            ..Orphans::default()
        }
    }

    /// Ends a meeting on a switch, under an epoch of our own: what is known of owners may be old, and then the switch or
    /// the store refuses.
    fn end_there(&mut self, now: Instant, id: &MeetingId, switch: &SwitchId) {
        if let Some(meeting) = self.meetings.get(id) {
            let epoch = meeting.facts.epoch;
            meeting.link.end_at(&mut self.sh, id, epoch, switch.clone());
            return;
        }
        if self.sh.fenced_since.is_some() {
            return;
        }
        // Nobody has it: it is claimed, so that nobody can have it meanwhile, and ends.
        let target = self.target_of_records(id);
        let meeting = Meeting::claim_stray(&mut self.sh, &target, switch.clone());
        self.meetings.insert(id.clone(), meeting);
        self.with_meeting(now, id, |_, _| ());
    }
}

fn is_on(meeting: &Meeting, switch: &SwitchId) -> bool {
    meeting.state == State::Active && meeting.link.switch() == Some(switch)
}

fn compare(meeting: &Meeting, view: &Held, suspect: &mut impl FnMut(String)) {
    // A switch that a later owner has told something is not this one's any more.
    if !meeting.link.is_settled() || view.epoch > meeting.facts.epoch.0 {
        return;
    }
    for leg in &view.legs {
        if !meeting.link.has(&ParticipantId::from_leg(leg)) {
            suspect(format!("{LEG}{leg}"));
        }
    }
    for leg in meeting.link.leg_ids() {
        if !view.legs.iter().any(|id| id == leg.as_str()) {
            suspect(format!("{DIALOG}{leg}"));
        }
    }
}
