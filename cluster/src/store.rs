//! The one trait behind which the engines are.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// A store-wide counter that grows with every committed change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

/// Names a lease; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key.
    pub key: String,
    /// Value.
    pub value: Bytes,
    /// Revision of its last change: what [`Compare::Unchanged`] demands.
    pub modified: Revision,
}

/// A page of a prefix, in key order.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Entries.
    pub entries: Vec<Entry>,
    /// Revision the page was read at.
    pub revision: Revision,
    /// There is more after the last entry.
    pub more: bool,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last changed at this revision.
    Unchanged(String, Revision),
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Present(String),
}

/// A change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value, bound to a lease where given.
    Put(String, Bytes, Option<LeaseId>),
    /// Deletes a key; absent is fine.
    Delete(String),
}

/// All or nothing; at most 128 conditions and operations together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// Done if they do.
    pub ops: Vec<Op>,
}

/// Conditions and operations of a transaction at most, together.
pub const MAX_OPS: usize = 128;
/// Longest key, bytes.
pub const MAX_KEY: usize = 1_024;
/// Keys and values of a transaction at most, bytes together.
pub const MAX_TXN_BYTES: usize = 1 << 20;
/// Entries of one page at most, whatever `limit` says.
pub const MAX_PAGE: usize = 1_000;

impl Txn {
    /// Checks the bounds that hold for every engine.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: too many operations, too many bytes, an empty or too long key, or a key
    /// changed twice.
    pub fn check(&self) -> Result<(), StoreError> {
        let refused = |why: &str| Err(StoreError::Refused(why.into()));
        if self.compares.len() + self.ops.len() > MAX_OPS {
            return refused("more than 128 conditions and operations");
        }
        let mut bytes = 0;
        let mut changed = std::collections::BTreeSet::new();
        for op in &self.ops {
            let (key, size) = match op {
                Op::Put(key, value, _) => (key, value.len()),
                Op::Delete(key) => (key, 0),
            };
            bytes += size;
            if !changed.insert(key) {
                return refused("a key is changed twice");
            }
        }
        let compared = self.compares.iter().map(|c| match c {
            Compare::Unchanged(key, _) | Compare::Absent(key) | Compare::Present(key) => key,
        });
        for key in compared.chain(changed.iter().copied()) {
            bytes += key.len();
            if key.is_empty() || key.len() > MAX_KEY {
                return refused("an empty key, or one longer than 1024 bytes");
            }
        }
        if bytes > MAX_TXN_BYTES {
            return refused("more than 1 MiB");
        }
        Ok(())
    }
}

/// How a transaction ended. A time-out is [`StoreError::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Durable; every put has this revision.
    Committed(Revision),
    /// A condition did not hold; nothing was done.
    Conflict,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A key was written.
    Put(Entry),
    /// A key was deleted, or its lease ended.
    Delete {
        /// Key.
        key: String,
        /// The value it had, where the engine still knows.
        previous: Option<Bytes>,
        /// When.
        revision: Revision,
    },
    /// Nothing happened up to this revision.
    Progress(Revision),
    /// The history is gone, or the watch was lost: range again and watch from there.
    Lost,
}

/// A running watch; dropping it ends it.
pub type Watch = mpsc::Receiver<WatchEvent>;

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Not reachable, or not in time for a read: nothing happened.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// A write timed out: it may or may not have happened; re-read.
    #[error("store did not answer in time; the write may have happened")]
    Unknown,
    /// The lease is gone.
    #[error("lease expired")]
    LeaseExpired,
    /// Too many operations, key or value too large, disk full, ...
    #[error("store refused: {0}")]
    Refused(String),
}

/// The store. Cheap to share: roles hold `Arc<dyn Store>`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;
    /// Up to `limit` (1 to [`MAX_PAGE`]) entries of a prefix, after the key `after` where given.
    async fn range(
        &self,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Range, StoreError>;
    /// A guarded change, durable when it returns.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;
    /// Changes of a prefix after revision `from`.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError>;
    /// A new lease.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;
    /// Renews a lease.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;
    /// Ends a lease: its keys are deleted.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
    /// The newest revision, and whether the store is healthy (`Err` where not).
    async fn status(&self) -> Result<Revision, StoreError>;
    /// One key with the lease it is bound to; `None` where it does not exist, is bound to none, or the engine cannot
    /// tell.
    async fn leased(&self, key: &str) -> Result<Option<(Entry, LeaseId)>, StoreError> {
        let _ = key;
        Ok(None)
    }
}
