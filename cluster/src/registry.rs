//! Caches of what the store holds under a prefix: members, switches, owners, bindings.
//!
//! ```text
//!   loading ── all pages read ──► following ── Lost, or the watch ends ──► loading
//! ```
//!
//! While loading again, the last known state stays readable; afterwards the difference is told as ordinary
//! changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::records::{Member, Owner, SwitchRecord, keys, read};
use crate::store::{Entry, MAX_PAGE, Revision, Store, StoreError, Watch, WatchEvent};

/// Changes a subscriber may be behind before it gets [`Change::Resynced`] instead.
const CHANGES: usize = 4_096;
/// Pause before loading again after an error.
const RETRY: Duration = Duration::from_millis(200);

/// A record with the revision it was written at.
#[derive(Debug)]
pub struct Cached<T> {
    /// The record.
    pub value: T,
    /// For [`Compare::Unchanged`](crate::Compare::Unchanged); of an owner record, its epoch.
    pub modified: Revision,
}

/// What happened to a record. Keys are those after the cache's prefix.
#[derive(Debug)]
pub enum Change<T> {
    /// Written.
    Put(String, Arc<Cached<T>>),
    /// Gone; the record it was.
    Deleted(String, Arc<Cached<T>>),
    /// The subscriber was too slow and missed some: read the whole cache.
    Resynced,
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Put(key, record) => Self::Put(key.clone(), Arc::clone(record)),
            Self::Deleted(key, record) => Self::Deleted(key.clone(), Arc::clone(record)),
            Self::Resynced => Self::Resynced,
        }
    }
}

/// The changes of a cache, from the moment of [`Cache::subscribe`] on.
#[derive(Debug)]
pub struct Changes<T>(broadcast::Receiver<Change<T>>);

impl<T> Changes<T> {
    /// The next change; `None` when the cache is gone.
    pub async fn next(&mut self) -> Option<Change<T>> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Resynced),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[derive(Debug)]
struct Inner<T> {
    prefix: String,
    records: RwLock<BTreeMap<String, Arc<Cached<T>>>>,
    changes: broadcast::Sender<Change<T>>,
    fresh: watch::Sender<bool>,
}

/// A copy of all records under a prefix, kept up to date. Reading it costs a lock and no request.
#[derive(Debug)]
pub struct Cache<T> {
    inner: Arc<Inner<T>>,
    _task: Arc<AbortOnDrop>,
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            _task: Arc::clone(&self._task),
        }
    }
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cache<Member> {
    /// Living meeting managers, by id.
    #[must_use]
    pub fn members(store: Arc<dyn Store>) -> Self {
        Self::start(store, keys::members())
    }
}

impl Cache<SwitchRecord> {
    /// Living switches, by id.
    #[must_use]
    pub fn switches(store: Arc<dyn Store>) -> Self {
        Self::start(store, keys::switches())
    }
}

impl Cache<Owner> {
    /// Who owns which meeting, by meeting; `modified` is the epoch.
    #[must_use]
    pub fn owners(store: Arc<dyn Store>) -> Self {
        Self::start(store, keys::owners())
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Cache<T> {
    /// Starts filling a cache of JSON records; must be called inside a tokio runtime. The task ends with the
    /// last clone.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, prefix: String) -> Self {
        let inner = Arc::new(Inner {
            prefix,
            records: RwLock::default(),
            changes: broadcast::Sender::new(CHANGES),
            fresh: watch::Sender::new(false),
        });
        let task = tokio::spawn(run(store, Arc::clone(&inner)));
        Self {
            inner,
            _task: Arc::new(AbortOnDrop(task.abort_handle())),
        }
    }
}

impl<T> Cache<T> {
    /// Waits until everything was read once.
    pub async fn ready(&self) {
        // Never an error: the sender lives in `self`.
        let _ = self.inner.fresh.subscribe().wait_for(|fresh| *fresh).await;
    }

    /// Whether the cache follows the store now; while not, it may be out of date.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        *self.inner.fresh.borrow()
    }

    /// One record, by its key after the prefix.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<Cached<T>>> {
        self.inner.records.read().get(key).cloned()
    }

    /// All records in key order, as of now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(String, Arc<Cached<T>>)> {
        let records = self.inner.records.read();
        records
            .iter()
            .map(|(key, record)| (key.clone(), Arc::clone(record)))
            .collect()
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.records.read().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes from now on. To miss nothing: subscribe first, then read the snapshot.
    #[must_use]
    pub fn subscribe(&self) -> Changes<T> {
        Changes(self.inner.changes.subscribe())
    }
}

async fn run<T: DeserializeOwned>(store: Arc<dyn Store>, inner: Arc<Inner<T>>) {
    loop {
        match load(&*store, &inner).await {
            Ok(watch) => {
                inner.fresh.send_replace(true);
                follow(watch, &inner).await;
                inner.fresh.send_replace(false);
            }
            Err(e) => tracing::debug!(prefix = inner.prefix, error = %e, "cache not loaded yet"),
        }
        sleep(RETRY).await;
    }
}

/// Reads all pages, and opens a watch from the first one's revision: what changed between the pages comes
/// again, and is recognised by its revision.
async fn load<T: DeserializeOwned>(
    store: &dyn Store,
    inner: &Inner<T>,
) -> Result<Watch, StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut start = None;
    loop {
        let after = entries.last().map(|e| e.key.clone());
        let page = store
            .range(&inner.prefix, MAX_PAGE, after.as_deref())
            .await?;
        start.get_or_insert(page.revision);
        entries.extend(page.entries);
        if !page.more {
            break;
        }
    }
    let watch = store
        .watch(&inner.prefix, start.unwrap_or_default())
        .await?;
    let mut gone: BTreeMap<_, _> = inner.records.read().clone();
    for entry in entries {
        if let Some(key) = inner.put(&entry) {
            gone.remove(&key);
        }
    }
    for (key, _) in gone {
        inner.delete(&key);
    }
    Ok(watch)
}

async fn follow<T: DeserializeOwned>(mut watch: Watch, inner: &Inner<T>) {
    while let Some(event) = watch.recv().await {
        match event {
            WatchEvent::Put(entry) => {
                inner.put(&entry);
            }
            WatchEvent::Delete { key, revision, .. } => {
                let Some(key) = key.strip_prefix(&inner.prefix) else {
                    continue;
                };
                // A page read later than this delete may hold the key written again.
                if inner
                    .records
                    .read()
                    .get(key)
                    .is_some_and(|r| r.modified < revision)
                {
                    inner.delete(key);
                }
            }
            WatchEvent::Progress(_) => {}
            WatchEvent::Lost => return,
        }
    }
}

impl<T: DeserializeOwned> Inner<T> {
    /// Takes a record in where it is newer; its key after the prefix, `None` where it cannot be read.
    fn put(&self, entry: &Entry) -> Option<String> {
        let key = entry.key.strip_prefix(&self.prefix)?.to_owned();
        let value = match read(&entry.value) {
            Ok(value) => value,
            Err(e) => {
                // A record of a later version, or damage: what is not understood is not acted on.
                tracing::warn!(key = entry.key, error = %e, "record not understood");
                self.delete(&key);
                return None;
            }
        };
        let record = Arc::new(Cached {
            value,
            modified: entry.modified,
        });
        let mut records = self.records.write();
        if records
            .get(&key)
            .is_some_and(|old| old.modified >= entry.modified)
        {
            return Some(key);
        }
        records.insert(key.clone(), Arc::clone(&record));
        // Told under the lock, so that changes come in the order they were made; no receiver is no error.
        let _ = self.changes.send(Change::Put(key.clone(), record));
        Some(key)
    }

    fn delete(&self, key: &str) {
        let mut records = self.records.write();
        if let Some(record) = records.remove(key) {
            let _ = self.changes.send(Change::Deleted(key.to_owned(), record));
        }
    }
}
