//! The embedded engine: redb in one file, for one machine. No server to install.
//!
//! One process opens the file; in it any number of roles share the store. Writes are grouped: whatever waits
//! while one commit goes to disk becomes the next. A write is on disk before it is acknowledged.
//!
//! When the file fails (disk full, IO error) it is opened again: what was under way ends as
//! [`StoreError::Unknown`], watches as [`WatchEvent::Lost`](crate::WatchEvent::Lost).

mod engine;
mod hub;
mod leases;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use redb::Database;
use redb::backends::InMemoryBackend;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::store::{
    Entry, LeaseId, MAX_PAGE, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch,
};
use engine::{Engine, Opener, Request};
use hub::{HistoryLimits, Hub};
use leases::Leases;
use tables::{Failure, Tables};

/// Transactions that may wait for the writer; more wait for room.
const QUEUE: usize = 4_096;
/// Longest wait for a commit before it is called unknown: far beyond any disk that still works.
const ANSWER: Duration = Duration::from_secs(10);
/// History kept for watches that come late. Raising it costs memory, lowering it makes them read all again.
const HISTORY: HistoryLimits = HistoryLimits {
    events: 16_384,
    bytes: 32 << 20,
};

/// Why the embedded store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The directory cannot be made.
    #[error("cannot make the store's directory: {0}")]
    Directory(std::io::Error),
    /// Another process has it open.
    #[error("another process has the store open")]
    InUse,
    /// The file is damaged, or not ours.
    #[error("cannot open the store: {0}")]
    Open(redb::Error),
    /// No thread could be started.
    #[error("cannot start the store's thread: {0}")]
    Thread(std::io::Error),
}

/// The embedded store. Dropping it waits for the last commit and closes the file.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// What readers, lease holders and the writer share.
#[derive(Debug)]
struct Shared {
    /// `None` while the file has failed.
    database: RwLock<Option<Arc<Database>>>,
    leases: Mutex<Leases>,
    lease_granted: Notify,
    hub: Mutex<Hub>,
}

impl Shared {
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.read().clone();
        database.ok_or_else(|| StoreError::Unavailable("the store's file failed".into()))
    }
}

impl EmbeddedStore {
    /// Opens, or makes, the store in `directory` (file `store.redb`). Keys that were bound to leases are
    /// gone: their holders were processes of this store's former life.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn open(directory: &Path) -> Result<Self, EmbeddedError> {
        std::fs::create_dir_all(directory).map_err(EmbeddedError::Directory)?;
        let file = directory.join("store.redb");
        Self::start(Box::new(move || Database::create(&file)))
    }

    /// A store that forgets everything when dropped: for tests.
    ///
    /// # Errors
    /// [`EmbeddedError`]: no thread.
    pub fn in_memory() -> Result<Self, EmbeddedError> {
        let open = || Database::builder().create_with_backend(InMemoryBackend::new());
        Self::start(Box::new(open))
    }

    fn start(mut open: Opener) -> Result<Self, EmbeddedError> {
        let database = open().map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => EmbeddedError::InUse,
            e => EmbeddedError::Open(e.into()),
        })?;
        let revision = forget_leased(&database).map_err(|Failure(e)| EmbeddedError::Open(e))?;
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(Arc::new(database))),
            leases: Mutex::default(),
            lease_granted: Notify::new(),
            hub: Mutex::new(Hub::new(revision, HISTORY)),
        });
        let (requests, queue) = mpsc::channel(QUEUE);
        let engine = Engine {
            shared: Arc::clone(&shared),
            open,
            requests: queue,
            reopened: Instant::now(),
        };
        // A thread with a runtime of its own: it blocks on the disk, and must not hold up anything else.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(EmbeddedError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || runtime.block_on(engine.run()))
            .map_err(EmbeddedError::Thread)?;
        Ok(Self {
            shared,
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Unavailable("the store is closed".into());
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(request(answer)).await.map_err(|_| gone())?;
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(StoreError::Unknown),
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Ends after the batch under way, since no request can come any more.
            let _ = thread.join();
        }
    }
}

/// Deletes what leases of a former process held; the revision after that.
fn forget_leased(database: &Database) -> Result<Revision, Failure> {
    let write = database.begin_write()?;
    let revision = {
        let mut tables = Tables::open(&write)?;
        let mut revision = tables.revision()?;
        let keys = tables.leased_keys()?;
        if !keys.is_empty() {
            revision = Revision(revision.0 + 1);
            for key in keys {
                tables.delete(&key)?;
            }
        }
        tables.set_revision(revision)?;
        revision
    };
    write.commit()?;
    Ok(revision)
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(tables::get(&*self.shared.database()?, key)?)
    }

    async fn range(
        &self,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Range, StoreError> {
        let database = self.shared.database()?;
        Ok(tables::range(
            &database,
            prefix,
            limit.clamp(1, MAX_PAGE),
            after,
        )?)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn.check()?;
        self.request(|answer| Request::Txn(txn, answer)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        Ok(self.shared.hub.lock().watch(prefix, from))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let id = rand::random_range(1..=u64::MAX >> 1);
        let lease = self.shared.leases.lock().grant(id, ttl, Instant::now())?;
        // The writer sleeps until the next end of a lease, which may now be sooner.
        self.shared.lease_granted.notify_one();
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.leases.lock().keep_alive(lease, Instant::now())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.request(|answer| Request::Revoke(lease, answer)).await
    }

    async fn status(&self) -> Result<Revision, StoreError> {
        // From the file, as pages have it: watches hear of a commit a moment later.
        Ok(tables::revision(&*self.shared.database()?)?)
    }

    async fn leased(&self, key: &str) -> Result<Option<(Entry, LeaseId)>, StoreError> {
        // The lease first: a key that is bound to another one in between only makes the older one the answer.
        let Some(lease) = self.shared.leases.lock().holder(key) else {
            return Ok(None);
        };
        Ok(self.get(key).await?.map(|entry| (entry, lease)))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::store::{Op, WatchEvent};

    /// A disk that can be full.
    #[derive(Clone, Debug, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().len() as u64)
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let (bytes, start) = (self.bytes.lock(), usize::try_from(offset).unwrap());
            let end = start + out.len();
            out.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.bytes.lock().resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            self.check()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            let start = usize::try_from(offset).unwrap();
            self.bytes.lock()[start..start + data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    fn put(key: &str) -> Txn {
        Txn {
            compares: Vec::new(),
            ops: vec![Op::Put(key.into(), "x".into(), None)],
        }
    }

    #[tokio::test]
    async fn a_full_disk_loses_nothing_acknowledged_and_is_got_over() {
        let disk = Disk::default();
        let opened = disk.clone();
        let open = move || Database::builder().create_with_backend(opened.clone());
        let store = EmbeddedStore::start(Box::new(open)).unwrap();
        let mut acknowledged = Vec::new();
        for n in 0..50 {
            acknowledged.push(format!("a/{n}"));
            store.txn(put(&acknowledged[n])).await.unwrap();
        }
        let mut watch = store
            .watch("a/", store.status().await.unwrap())
            .await
            .unwrap();
        disk.full.store(true, Ordering::Relaxed);
        assert_eq!(store.txn(put("a/lost")).await, Err(StoreError::Unknown));
        assert!(store.txn(put("a/lost")).await.is_err());
        assert!(store.status().await.is_err(), "it says that it is not well");
        disk.full.store(false, Ordering::Relaxed);
        let well = tokio::time::timeout(Duration::from_secs(10), async {
            while store.status().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        well.await.expect("opened again by itself");
        loop {
            match watch.recv().await.expect("told before the watch ends") {
                WatchEvent::Lost => break,
                WatchEvent::Progress(_) => {}
                other => panic!("{other:?}"),
            }
        }
        for key in &acknowledged {
            assert!(
                store.get(key).await.unwrap().is_some(),
                "{key} was acknowledged"
            );
        }
        let TxnOutcome::Committed(_) = store.txn(put("a/new")).await.unwrap() else {
            panic!()
        };
    }
}
