//! Who goes on with the meetings of a member that is gone: each survivor decides alike, without talking.
//!
//! ```text
//!            owner's member key gone              chosen, or those before us did not       claimed, by anyone
//!  owned ───────────────────────────► orphaned ───────────────────────────────► claiming ──────────────────► owned
//!     ▲                                   │ owner record gone: the meeting is over             │ refused
//!     └───────────────────────────────────┴◄───────────────────────────────────────────────────┘ again later
//! ```
//!
//! A meeting of this very member that is not here is an orphan too: an earlier process of its name left it, or the answer
//! to its claim was lost.
//!
//! The first in the order of weighted rendezvous hashing claims at once, the next one only when that has not happened
//! for a while: it may be cut off from the store without anybody knowing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::Revision;
use cluster::ownership::{Candidate, order};

use crate::ids::MeetingId;

/// How long each in the order waits for the one before.
const TURN: Duration = Duration::from_secs(1);

/// How long after a claim that failed it is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// A living meeting manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Per mille of its capacity.
    pub load: u32,
    /// Takes no new meetings.
    pub draining: bool,
}

/// Who a meeting belongs to, as its owner record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The member.
    pub member: String,
    /// The record's modification revision.
    pub epoch: Revision,
}

/// An owner that is gone.
#[derive(Debug)]
struct Orphan {
    since: Instant,
    due: Option<Instant>,
}

/// Owner records and living members, as the store's watches tell.
#[derive(Debug)]
pub(crate) struct Succession {
    member: String,
    members: BTreeMap<String, Peer>,
    owners: BTreeMap<MeetingId, Ownership>,
    orphans: BTreeMap<MeetingId, Orphan>,
    /// Epochs of meetings that this member has given up, until the watch tells of that too.
    ended: BTreeMap<MeetingId, Revision>,
}

impl Succession {
    pub(crate) fn new(member: String) -> Self {
        Self {
            member,
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            orphans: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Those that live now.
    pub(crate) fn set_members(&mut self, now: Instant, members: BTreeMap<String, Peer>) {
        self.members = members;
        let owners = std::mem::take(&mut self.owners);
        for (meeting, owner) in &owners {
            self.look_at(now, meeting, &owner.member);
        }
        self.owners = owners;
    }

    /// An owner record was written, or is gone. What is older than what is known is passed over.
    pub(crate) fn set_owner(
        &mut self,
        now: Instant,
        meeting: &MeetingId,
        owner: Option<Ownership>,
    ) {
        let Some(owner) = owner else {
            self.owners.remove(meeting);
            self.orphans.remove(meeting);
            self.ended.remove(meeting);
            return;
        };
        if self
            .owners
            .get(meeting)
            .is_some_and(|known| known.epoch > owner.epoch)
        {
            return;
        }
        self.orphans.remove(meeting);
        if self.ended.get(meeting).is_none_or(|e| *e < owner.epoch) {
            self.ended.remove(meeting);
            self.look_at(now, meeting, &owner.member);
        }
        self.owners.insert(meeting.clone(), owner);
    }

    /// The meeting is here.
    pub(crate) fn on_claimed(&mut self, meeting: &MeetingId) {
        self.orphans.remove(meeting);
    }

    /// This member has given the meeting up: what a watch still tells of that epoch is past.
    pub(crate) fn on_over(&mut self, meeting: &MeetingId, epoch: Revision) {
        self.orphans.remove(meeting);
        self.ended.insert(meeting.clone(), epoch);
    }

    fn look_at(&mut self, now: Instant, meeting: &MeetingId, owner: &str) {
        // One of ours that is not here was left by an earlier process of this name.
        let own = owner == self.member;
        let turn = match own {
            true => Some(0),
            false => self.turn(meeting),
        };
        let lives = !own && self.members.contains_key(owner);
        let Some(turn) = turn.filter(|_| !lives) else {
            self.orphans.remove(meeting);
            return;
        };
        let orphan = self.orphans.entry(meeting.clone()).or_insert(Orphan {
            since: now,
            due: None,
        });
        let due = orphan.since + TURN * turn;
        orphan.due = Some(orphan.due.map_or(due, |before| before.min(due)));
    }

    /// Our place in the order for a meeting; `None`: this member does not live, as far as the store knows.
    fn turn(&self, meeting: &MeetingId) -> Option<u32> {
        let candidates = self.members.iter().map(|(id, peer)| Candidate {
            id,
            load: peer.load,
            draining: peer.draining,
        });
        let order = order(meeting.as_str(), candidates.collect());
        let place = order.iter().position(|id| *id == self.member)?;
        u32::try_from(place).ok()
    }

    /// Meetings that had an owner and are not among these.
    pub(crate) fn not_among(&self, owners: &BTreeMap<MeetingId, Ownership>) -> Vec<MeetingId> {
        let gone = self.owners.keys().filter(|id| !owners.contains_key(id));
        gone.cloned().collect()
    }

    /// Who owns a meeting.
    pub(crate) fn owner(&self, meeting: &MeetingId) -> Option<&Ownership> {
        self.owners.get(meeting)
    }

    /// Whether the owner of a meeting is another member that lives.
    pub(crate) fn is_elsewhere(&self, meeting: &MeetingId) -> bool {
        self.owners
            .get(meeting)
            .is_some_and(|o| o.member != self.member && self.members.contains_key(&o.member))
    }

    /// The meeting has an owner that is not this member, or one that is being replaced.
    pub(crate) fn may_be_anothers(&self, meeting: &MeetingId) -> bool {
        let another = |o: &Ownership| o.member != self.member;
        self.owners.get(meeting).is_some_and(another) || self.orphans.contains_key(meeting)
    }

    /// Somebody else who could go on with our meetings lives.
    pub(crate) fn has_heir(&self) -> bool {
        self.members
            .iter()
            .any(|(id, peer)| *id != self.member && !peer.draining)
    }

    /// When [`Self::pop_due`] may have one.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.orphans.values().filter_map(|o| o.due).min()
    }

    /// A meeting that is to be claimed now, with the owner it is taken from and how long it has had none.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(MeetingId, Ownership, Duration)> {
        let due = |o: &Orphan| o.due.is_some_and(|due| due <= now);
        let (meeting, orphan) = self.orphans.iter_mut().find(|(_, o)| due(o))?;
        orphan.due = None;
        let since = now.saturating_duration_since(orphan.since);
        let owner = self.owners.get(meeting)?.clone();
        Some((meeting.clone(), owner, since))
    }

    /// A claim did not succeed; where the meeting still has nobody it is tried again.
    pub(crate) fn on_claim_failed(&mut self, now: Instant, meeting: &MeetingId) {
        if let Some(orphan) = self.orphans.get_mut(meeting) {
            orphan.due = Some(now + AGAIN);
        }
    }
}
