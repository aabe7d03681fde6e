//! How a manager comes to a meeting: the store work of its shell.

use bytes::Bytes;
use cluster::ownership::{self, Claim, guard};
use cluster::records::keys;
use cluster::store::MAX_PAGE;
use cluster::{Compare, Entry, Op, Revision, Store, StoreError, Txn, TxnOutcome};
use meeting_core::{Claimed, Ownership, StoreFailure, Stored};

/// Tries to look up what became of a write.
const LOOKUPS: u32 = 3;

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
    from: Option<Ownership>,
) -> Result<Claimed, StoreFailure> {
    let failed = |_: StoreError| StoreFailure::Unavailable;
    if let Some(from) = from {
        let taken = match from.member == member {
            true => ownership::renew(store, meeting, from.epoch, member).await,
            false => ownership::take_over(store, meeting, &from.member, from.epoch, member).await,
        };
        match taken.map_err(failed)? {
            Claim::Mine(epoch) => {
                return load(store, meeting, epoch, record).await.map_err(failed);
            }
            Claim::Taken(owner, _) if owner.member != from.member => {
                let member = owner.member;
                return Ok(Claimed::Theirs { member });
            }
            Claim::Taken(..) | Claim::Refused => {}
        }
    }
    let epoch = match ownership::claim_new(store, meeting, member, record.clone())
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
