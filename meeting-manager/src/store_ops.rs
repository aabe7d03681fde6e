//! The core's store commands, done: guarded writes with an unknown outcome looked up, and claims.

use std::time::Duration;

use bytes::Bytes;
use cluster::ownership::{self, Claim, guard};
use cluster::records::keys;
use cluster::store::MAX_PAGE;
use cluster::{Compare, Entry, Op, Revision, Store, StoreError, Txn, TxnOutcome};
use meeting_core::{Claimed, Ownership, StoreFailure, Stored};
use tokio::time::timeout;

use crate::metrics;

/// A store that takes longer has as good as failed: the caller waits for its 200.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries to look up what became of a write, and how long each may take.
const LOOKUPS: u32 = 3;
const LOOKUP_PATIENCE: Duration = Duration::from_secs(1);

/// Does a guarded write.
pub(crate) async fn write(store: &dyn Store, txn: Txn) -> Result<Stored, StoreFailure> {
    let put = txn.ops.iter().find_map(|op| match op {
        Op::Put(key, value, _) => Some((key.clone(), value.clone())),
        Op::Delete(_) => None,
    });
    let outcome = timeout(PATIENCE, store.txn(txn))
        .await
        .unwrap_or(Err(StoreError::Unknown));
    match outcome {
        Ok(TxnOutcome::Committed(revision)) => Ok(Stored::Committed(revision)),
        Ok(TxnOutcome::Conflict) => {
            metrics::fenced_write("store");
            Ok(Stored::Conflict)
        }
        Err(StoreError::Unknown) => match put {
            Some((key, value)) => look_up(store, &key, &value).await,
            None => Err(StoreFailure::Unknown),
        },
        Err(e) => {
            tracing::warn!(error = %e, "the store did not take a record");
            Err(StoreFailure::Unavailable)
        }
    }
}

/// A write timed out: what is there now tells whether it happened.
async fn look_up(store: &dyn Store, key: &str, value: &Bytes) -> Result<Stored, StoreFailure> {
    for _ in 0..LOOKUPS {
        match timeout(LOOKUP_PATIENCE, store.get(key)).await {
            Ok(Ok(Some(entry))) if entry.value == *value => {
                return Ok(Stored::Committed(entry.modified));
            }
            // Not there, or older: it may still come.
            Ok(Ok(_)) => return Err(StoreFailure::Unknown),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(StoreFailure::Unknown)
}

/// Becomes the owner of a meeting, of one that a dead member left too; `from` is the one known to have left it.
pub(crate) async fn claim(
    store: &dyn Store,
    meeting: &str,
    member: &str,
    record: Bytes,
    from: Option<Ownership>,
) -> Result<Claimed, StoreFailure> {
    let failed = |e: StoreError| {
        tracing::warn!(meeting, error = %e, "meeting not claimed");
        StoreFailure::Unavailable
    };
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
            // It lives after all, or the meeting has ended: as if nobody were known to have left it.
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
    metrics::epoch(epoch.0);
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
