//! Who serves a meeting: claiming, taking over from the dead, giving up.
//!
//! ```text
//!             claim                      take_over (old record unchanged, its member gone)
//!   unowned ─────────► owned by A, epoch e ─────────► owned by B, epoch e' > e
//!      ▲                      │
//!      └────── release ───────┘
//! ```
//!
//! The owner record is not bound to a lease: a lease is a hint, the transaction is the safety. The epoch is
//! the revision the record was written at, so it only grows. Every later write of the owner carries
//! [`guard`], and a conflict means: not mine any more.

use bytes::Bytes;

use crate::records::{Owner, RECORD_VERSION, keys, read};
use crate::store::{Compare, Op, Revision, Store, StoreError, Txn, TxnOutcome};

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Served by the caller from now on, under this epoch.
    Mine(Revision),
    /// Served by another member, under that epoch.
    Taken(Owner, Revision),
    /// The caller's own member key is not there (its lease ended), or the meeting changed hands meanwhile and
    /// is now unowned: look again later.
    Refused,
}

/// The condition every write of an owner must carry.
#[must_use]
pub fn guard(meeting: &str, epoch: Revision) -> Compare {
    Compare::Unchanged(keys::owner(meeting), epoch)
}

/// Claims an unowned meeting for a living member. Claiming what is one's own already gives its epoch.
///
/// # Errors
/// The store's; after [`StoreError::Unknown`] simply claim again.
pub async fn claim(store: &dyn Store, meeting: &str, member: &str) -> Result<Claim, StoreError> {
    let key = keys::owner(meeting);
    let txn = Txn {
        compares: vec![
            Compare::Absent(key.clone()),
            Compare::Present(keys::member(member)),
        ],
        ops: vec![put(&key, member)],
    };
    settle(store, &key, member, store.txn(txn).await).await
}

/// [`claim`], which also writes the record of a meeting that has none: one transaction where the meeting is new.
///
/// # Errors
/// As of [`claim`].
pub async fn claim_new(
    store: &dyn Store,
    meeting: &str,
    member: &str,
    record: Bytes,
) -> Result<Claim, StoreError> {
    let (key, of_meeting) = (keys::owner(meeting), keys::meeting(meeting));
    let txn = Txn {
        compares: vec![
            Compare::Absent(key.clone()),
            Compare::Absent(of_meeting.clone()),
            Compare::Present(keys::member(member)),
        ],
        ops: vec![put(&key, member), Op::Put(of_meeting, record, None)],
    };
    match store.txn(txn).await {
        Ok(TxnOutcome::Committed(epoch)) => Ok(Claim::Mine(epoch)),
        Ok(TxnOutcome::Conflict) | Err(StoreError::Unknown) => claim(store, meeting, member).await,
        Err(e) => Err(e),
    }
}

/// Takes a meeting over from `dead`, whose member key must be gone and whose owner record must still be the
/// one of `epoch`.
///
/// # Errors
/// The store's; after [`StoreError::Unknown`] look at the owner record again.
pub async fn take_over(
    store: &dyn Store,
    meeting: &str,
    dead: &str,
    epoch: Revision,
    member: &str,
) -> Result<Claim, StoreError> {
    let key = keys::owner(meeting);
    let txn = Txn {
        compares: vec![
            Compare::Unchanged(key.clone(), epoch),
            Compare::Absent(keys::member(dead)),
            Compare::Present(keys::member(member)),
        ],
        ops: vec![put(&key, member)],
    };
    settle(store, &key, member, store.txn(txn).await).await
}

/// Goes on with a meeting that an earlier process of the same member left, under a new epoch: should that process be
/// alive after all, it is fenced.
///
/// # Errors
/// The store's; after [`StoreError::Unknown`] look at the owner record again.
pub async fn renew(
    store: &dyn Store,
    meeting: &str,
    epoch: Revision,
    member: &str,
) -> Result<Claim, StoreError> {
    let key = keys::owner(meeting);
    let txn = Txn {
        compares: vec![
            Compare::Unchanged(key.clone(), epoch),
            Compare::Present(keys::member(member)),
        ],
        ops: vec![put(&key, member)],
    };
    match store.txn(txn).await? {
        TxnOutcome::Committed(epoch) => Ok(Claim::Mine(epoch)),
        TxnOutcome::Conflict => Ok(Claim::Refused),
    }
}

/// Claims a meeting again that the caller serves from memory, after the store lost data or was restored: a record that
/// still names the caller is written anew, so that its epoch is higher than any before.
///
/// # Errors
/// The store's; after [`StoreError::Unknown`] simply do it again.
pub async fn reassert(store: &dyn Store, meeting: &str, member: &str) -> Result<Claim, StoreError> {
    let found = match claim(store, meeting, member).await? {
        Claim::Mine(found) => found,
        other => return Ok(other),
    };
    let key = keys::owner(meeting);
    let txn = Txn {
        compares: vec![
            guard(meeting, found),
            Compare::Present(keys::member(member)),
        ],
        ops: vec![put(&key, member)],
    };
    match store.txn(txn).await? {
        TxnOutcome::Committed(epoch) => Ok(Claim::Mine(epoch)),
        TxnOutcome::Conflict => Ok(Claim::Refused),
    }
}

/// Gives a meeting up; `false` when it was not the caller's any more.
///
/// # Errors
/// The store's.
pub async fn release(
    store: &dyn Store,
    meeting: &str,
    epoch: Revision,
) -> Result<bool, StoreError> {
    let txn = Txn {
        compares: vec![guard(meeting, epoch)],
        ops: vec![Op::Delete(keys::owner(meeting))],
    };
    Ok(store.txn(txn).await? != TxnOutcome::Conflict)
}

fn put(key: &str, member: &str) -> Op {
    let owner = Owner {
        version: RECORD_VERSION,
        member: member.to_owned(),
    };
    let value =
        serde_json::to_vec(&owner).expect("a struct of a number and a string is always JSON");
    Op::Put(key.to_owned(), value.into(), None)
}

/// Turns the outcome into what is true now; an unknown one is looked up.
async fn settle(
    store: &dyn Store,
    key: &str,
    member: &str,
    outcome: Result<TxnOutcome, StoreError>,
) -> Result<Claim, StoreError> {
    match outcome {
        Ok(TxnOutcome::Committed(epoch)) => return Ok(Claim::Mine(epoch)),
        Ok(TxnOutcome::Conflict) | Err(StoreError::Unknown) => {}
        Err(e) => return Err(e),
    }
    let Some(entry) = store.get(key).await? else {
        return Ok(Claim::Refused);
    };
    let owner: Owner = read(&entry.value)
        .map_err(|e| StoreError::Refused(format!("{key} is not an owner record: {e}")))?;
    if owner.member == member {
        Ok(Claim::Mine(entry.modified))
    } else {
        Ok(Claim::Taken(owner, entry.modified))
    }
}

/// One that may be chosen: a member for a meeting, or a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its load, 0..=1000 per mille.
    pub load: u32,
    /// Takes nothing new.
    pub draining: bool,
}

/// Who of the candidates should serve a meeting: weighted rendezvous hashing. All who know the same candidates
/// choose alike without talking; when one candidate goes, only its meetings move. Idle ones get more, a
/// draining one is chosen only where all are. `None` without candidates.
#[must_use]
pub fn choose<'a>(meeting: &str, candidates: &[Candidate<'a>]) -> Option<&'a str> {
    let all_draining = candidates.iter().all(|c| c.draining);
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates.iter().filter(|c| all_draining || !c.draining) {
        let score = score(meeting, candidate);
        let better = best.is_none_or(|(s, id)| score > s || (score >= s && candidate.id < id));
        if better {
            best = Some((score, candidate.id));
        }
    }
    best.map(|(_, id)| id)
}

/// All candidates in the order in which [`choose`] takes them when those before are not there.
#[must_use]
pub fn order<'a>(meeting: &str, mut candidates: Vec<Candidate<'a>>) -> Vec<&'a str> {
    let mut order = Vec::with_capacity(candidates.len());
    while let Some(chosen) = choose(meeting, &candidates) {
        candidates.retain(|c| c.id != chosen);
        order.push(chosen);
    }
    order
}

/// Weighted rendezvous score: -weight / ln(u), u uniform in (0, 1).
fn score(meeting: &str, candidate: &Candidate<'_>) -> f64 {
    // In steps of a tenth, so that members whose view of the load differs a little still choose alike.
    let idle = f64::from(10 - candidate.load.min(1000) / 100) + 0.5;
    // 53 bits are what a double holds exactly; the half keeps u away from 0 and 1.
    #[allow(clippy::cast_precision_loss)]
    let u = ((hash(meeting, candidate.id) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -idle / u.ln()
}

/// FNV-1a with a final avalanche: the same in every build, unlike the standard library's hashers.
fn hash(meeting: &str, candidate: &str) -> u64 {
    let bytes = meeting.bytes().chain([0]).chain(candidate.bytes());
    let mut h = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn candidate(id: &str, load: u32) -> Candidate<'_> {
        Candidate {
            id,
            load,
            draining: false,
        }
    }

    fn meetings() -> impl Iterator<Item = String> {
        (0..3000).map(|n| format!("meeting-{n}"))
    }

    #[test]
    fn only_the_meetings_of_the_dead_move() {
        let all = [candidate("a", 0), candidate("b", 0), candidate("c", 0)];
        let mut counts = BTreeMap::<_, u32>::new();
        for meeting in meetings() {
            let before = choose(&meeting, &all).unwrap();
            let after = choose(&meeting, &all[..2]).unwrap();
            *counts.entry(before).or_default() += 1;
            assert!(
                before == "c" || before == after,
                "{meeting} moved without need"
            );
        }
        assert!(
            counts.values().all(|n| (850..1150).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_order_of_candidates_does_not_matter() {
        let (a, b) = (
            [candidate("a", 0), candidate("b", 0)],
            [candidate("b", 0), candidate("a", 0)],
        );
        assert!(meetings().all(|m| choose(&m, &a) == choose(&m, &b)));
    }

    #[test]
    fn a_loaded_member_gets_little_and_a_draining_one_nothing() {
        let full = candidate("full", 1000);
        let drained = Candidate {
            draining: true,
            ..candidate("drained", 0)
        };
        let all = [full, candidate("idle", 0), drained];
        let chosen: Vec<_> = meetings().filter_map(|m| choose(&m, &all)).collect();
        let got = |id| chosen.iter().filter(|c| **c == id).count();
        assert_eq!(got("drained"), 0);
        assert!(got("full") > 0 && got("full") < 300, "{}", got("full"));
        assert_eq!(
            choose("m", &[drained]),
            Some("drained"),
            "better than no one"
        );
        assert_eq!(choose("m", &[]), None);
    }

    #[test]
    fn the_choice_is_the_same_in_every_build() {
        // Worked out apart, with another implementation of the same functions.
        assert_eq!(hash("meeting", "member"), 0x4f42_4201_7f89_32bb_u64);
    }
}
