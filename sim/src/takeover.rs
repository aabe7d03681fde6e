//! How a manager comes to a meeting: the store work of its shell, and the choice of who takes over from the dead.

use std::collections::BTreeMap;

use bytes::Bytes;
use cluster::ownership::{self, Candidate, Claim, choose, guard};
use cluster::records::{Member, keys};
use cluster::store::MAX_PAGE;
use cluster::{Compare, Entry, Op, Revision, Store, StoreError, Txn, TxnOutcome};
use meeting_core::{Claimed, StoreFailure, Stored};

/// Tries to look up what became of a write.
const LOOKUPS: u32 = 3;

/// Whether `member` is the one to take a meeting over, among those alive.
pub(crate) fn is_chosen(meeting: &str, member: &str, members: &BTreeMap<String, Member>) -> bool {
    let candidates: Vec<Candidate<'_>> = members
        .values()
        .map(|m| Candidate {
            id: &m.id,
            load: m.load,
            draining: m.draining,
        })
        .collect();
    choose(meeting, &candidates) == Some(member)
}

/// Does a guarded write.
pub(crate) async fn write(store: &dyn Store, txn: Txn) -> Result<Stored, StoreFailure> {
    let put = txn.ops.iter().find_map(|op| match op {
        Op::Put(key, value, _) => Some((key.clone(), value.clone())),
        Op::Delete(_) => None,
    });
    match store.txn(txn).await {
        Ok(TxnOutcome::Committed(revision)) => Ok(Stored::Committed(revision)),
        Ok(TxnOutcome::Conflict) => Ok(Stored::Conflict),
        Err(StoreError::Unknown) => match put {
            Some((key, value)) => look_up(store, &key, &value).await,
            None => Err(StoreFailure::Unknown),
        },
        Err(_) => Err(StoreFailure::Unavailable),
    }
}

async fn look_up(store: &dyn Store, key: &str, value: &Bytes) -> Result<Stored, StoreFailure> {
    for _ in 0..LOOKUPS {
        match store.get(key).await {
            Ok(Some(entry)) if entry.value == *value => {
                return Ok(Stored::Committed(entry.modified));
            }
            Ok(_) => return Err(StoreFailure::Unknown),
            Err(_) => {}
        }
    }
    Err(StoreFailure::Unknown)
}

/// Becomes the owner of a meeting, of one that a dead member left too.
pub(crate) async fn claim(
    store: &dyn Store,
    meeting: &str,
    member: &str,
    record: Bytes,
) -> Result<Claimed, StoreFailure> {
    let failed = |_: StoreError| StoreFailure::Unavailable;
    let epoch = match ownership::claim(store, meeting, member)
        .await
        .map_err(failed)?
    {
        Claim::Mine(epoch) => epoch,
        Claim::Taken(owner, epoch) => {
            let taken = ownership::take_over(store, meeting, &owner.member, epoch, member)
                .await
                .map_err(failed)?;
            match taken {
                Claim::Mine(epoch) => epoch,
                Claim::Taken(owner, _) => {
                    return Ok(Claimed::Theirs {
                        member: owner.member,
                    });
                }
                Claim::Refused => return Err(StoreFailure::Unavailable),
            }
        }
        Claim::Refused => return Err(StoreFailure::Unavailable),
    };
    load(store, meeting, epoch, record).await.map_err(failed)
}

/// What is kept of a meeting that is ours; `record` becomes its record where there is none.
pub(crate) async fn load(
    store: &dyn Store,
    meeting: &str,
    epoch: Revision,
    record: Bytes,
) -> Result<Claimed, StoreError> {
    let key = keys::meeting(meeting);
    let meeting_record = match store.get(&key).await? {
        Some(entry) => entry.value,
        None => {
            let txn = Txn {
                compares: vec![guard(meeting, epoch), Compare::Absent(key.clone())],
                ops: vec![Op::Put(key, record.clone(), None)],
            };
            if store.txn(txn).await? == TxnOutcome::Conflict {
                return Err(StoreError::Unavailable("the meeting changed hands".into()));
            }
            record
        }
    };
    let prefix = keys::dialogs(meeting);
    let mut records: Vec<Entry> = Vec::new();
    loop {
        let after = records.last().map(|e| e.key.clone());
        let page = store.range(&prefix, MAX_PAGE, after.as_deref()).await?;
        records.extend(page.entries);
        if !page.more {
            break;
        }
    }
    Ok(Claimed::Ours {
        epoch,
        meeting: meeting_record,
        records,
    })
}
