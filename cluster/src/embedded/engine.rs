//! The one writer of the embedded engine: a thread that turns whatever is waiting into one durable commit.
//!
//! ```text
//! txn ─┐                 ┌─ compare, apply ─┐
//! txn ─┼─ queue ─ batch ─┤  compare, apply  ├─ commit (fsync) ─ watches told ─ answers
//! end ─┘ (of a lease)    └─ ...             ┘        │ fails
//!                                                    └─ reopen, watches lost, answers unknown
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::Database;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::Shared;
use super::tables::{Failure, Tables};
use crate::store::{
    Compare, Entry, LeaseId, Op, Revision, StoreError, Txn, TxnOutcome, WatchEvent,
};

/// Transactions in one commit at most: more make a larger fsync, fewer make more of them.
const BATCH: usize = 512;
/// How often idle watchers hear that nothing happened.
const PROGRESS: Duration = Duration::from_secs(5);
/// Between two tries to open the file again after it failed.
const REOPEN: Duration = Duration::from_secs(1);

/// What waits for the writer.
#[derive(Debug)]
pub(super) enum Request {
    /// A transaction and where its outcome goes.
    Txn(Txn, oneshot::Sender<Result<TxnOutcome, StoreError>>),
    /// Ends a lease before its time.
    Revoke(LeaseId, oneshot::Sender<Result<(), StoreError>>),
}

/// Opens the database, anew after a failure.
pub(super) type Opener = Box<dyn FnMut() -> Result<Database, redb::DatabaseError> + Send>;

/// The writer's own state.
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) open: Opener,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) reopened: Instant,
}

/// What a batch did, not yet committed.
#[derive(Default)]
struct Batch {
    commits: Vec<(Revision, Vec<WatchEvent>)>,
    binds: Vec<(String, Option<LeaseId>, bool)>,
    outcomes: Vec<Result<TxnOutcome, StoreError>>,
}

impl Engine {
    /// Runs until all handles are gone.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH);
        let mut retry = Instant::now();
        let mut progress = tokio::time::interval(PROGRESS);
        loop {
            // Where an end could not be written, not again at once.
            let next_end = self
                .shared
                .leases
                .lock()
                .next_deadline()
                .map(|end| end.max(retry));
            tokio::select! {
                count = self.requests.recv_many(&mut waiting, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.serve(&mut waiting);
                }
                () = end_of_lease(next_end) => {}
                () = self.shared.lease_granted.notified() => {}
                () = sleep(REOPEN), if self.shared.database.read().is_none() => {
                    // Readers need the file too, and nobody may be writing.
                    let _ = self.database();
                }
                _ = progress.tick() => self.shared.hub.lock().progress(),
            }
            if self.expire().is_err() {
                retry = Instant::now() + REOPEN;
            }
        }
    }

    fn serve(&mut self, waiting: &mut Vec<Request>) {
        let mut txns = Vec::new();
        let mut answers = Vec::new();
        let mut revokes = Vec::new();
        for request in waiting.drain(..) {
            match request {
                Request::Txn(txn, answer) => {
                    txns.push(txn);
                    answers.push(answer);
                }
                Request::Revoke(lease, answer) => revokes.push((lease, answer)),
            }
        }
        if !txns.is_empty() {
            for (answer, outcome) in answers.into_iter().zip(self.commit(&txns)) {
                let _ = answer.send(outcome);
            }
        }
        for (lease, answer) in revokes {
            let _ = answer.send(self.end_lease(lease));
        }
    }

    /// Ends leases whose time is over. They are over for their holders in any case.
    fn expire(&mut self) -> Result<(), StoreError> {
        let over = self.shared.leases.lock().expired(Instant::now());
        over.into_iter().try_for_each(|lease| self.end_lease(lease))
    }

    /// Deletes the keys of a lease, all in one revision, then the lease. Gone already is fine.
    fn end_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let keys = self.shared.leases.lock().keys(lease);
        if !keys.is_empty() {
            let ops = keys.into_iter().map(Op::Delete).collect();
            let outcome = self
                .commit(&[Txn {
                    compares: Vec::new(),
                    ops,
                }])
                .pop();
            outcome.unwrap_or(Err(StoreError::Unknown))?;
        }
        self.shared.leases.lock().remove(lease);
        Ok(())
    }

    /// One durable commit for all of `txns`; their outcomes in order.
    fn commit(&mut self, txns: &[Txn]) -> Vec<Result<TxnOutcome, StoreError>> {
        let database = match self.database() {
            Ok(database) => database,
            Err(e) => return txns.iter().map(|_| Err(e.clone())).collect(),
        };
        let mut batch = Batch::default();
        match self.write(&database, txns, &mut batch) {
            Ok(()) => {
                self.publish(&mut batch);
                batch.outcomes
            }
            Err(failure) => {
                tracing::error!(error = %failure, "the embedded store cannot write; opening it again");
                drop(database);
                self.fail();
                // The commit may have reached the disk before it failed.
                txns.iter().map(|_| Err(StoreError::Unknown)).collect()
            }
        }
    }

    fn write(&self, database: &Database, txns: &[Txn], batch: &mut Batch) -> Result<(), Failure> {
        let write = database.begin_write()?;
        {
            let mut tables = Tables::open(&write)?;
            let mut revision = tables.revision()?;
            let before = revision;
            for txn in txns {
                let outcome = self.apply(&mut tables, txn, &mut revision, batch)?;
                batch.outcomes.push(outcome);
            }
            if revision != before {
                tables.set_revision(revision)?;
            }
        }
        if batch.commits.is_empty() {
            write.abort()?;
        } else {
            // redb's default durability: on disk when this returns.
            write.commit()?;
        }
        Ok(())
    }

    /// Applies one transaction on top of those before it in the batch.
    fn apply(
        &self,
        tables: &mut Tables<'_>,
        txn: &Txn,
        revision: &mut Revision,
        batch: &mut Batch,
    ) -> Result<Result<TxnOutcome, StoreError>, Failure> {
        for compare in &txn.compares {
            let holds = match compare {
                Compare::Unchanged(key, at) => tables.modified(key)? == Some(*at),
                Compare::Absent(key) => tables.modified(key)?.is_none(),
                Compare::Present(key) => tables.modified(key)?.is_some(),
            };
            if !holds {
                return Ok(Ok(TxnOutcome::Conflict));
            }
        }
        let now = Instant::now();
        let alive = |lease: &LeaseId| self.shared.leases.lock().is_alive(*lease, now);
        let leases = txn.ops.iter().filter_map(|op| match op {
            Op::Put(_, _, lease) => lease.as_ref(),
            Op::Delete(_) => None,
        });
        if !leases.into_iter().all(alive) {
            return Ok(Err(StoreError::LeaseExpired));
        }
        let next = Revision(revision.0 + 1);
        let mut changes = Vec::with_capacity(txn.ops.len());
        for op in &txn.ops {
            match op {
                Op::Put(key, value, lease) => {
                    tables.put(key, value, *lease, next)?;
                    batch.binds.push((key.clone(), *lease, true));
                    let (key, value) = (key.clone(), value.clone());
                    changes.push(WatchEvent::Put(Entry {
                        key,
                        value,
                        modified: next,
                    }));
                }
                Op::Delete(key) => {
                    if let Some(previous) = tables.delete(key)? {
                        batch.binds.push((key.clone(), None, false));
                        let (key, previous) = (key.clone(), Some(previous));
                        changes.push(WatchEvent::Delete {
                            key,
                            previous,
                            revision: next,
                        });
                    }
                }
            }
        }
        if changes.is_empty() {
            // Nothing was there to delete: like the distributed engine, no new revision.
            return Ok(Ok(TxnOutcome::Committed(*revision)));
        }
        *revision = next;
        batch.commits.push((next, changes));
        Ok(Ok(TxnOutcome::Committed(next)))
    }

    /// Makes a committed batch visible to leases and watches.
    fn publish(&self, batch: &mut Batch) {
        let mut leases = self.shared.leases.lock();
        for (key, lease, put) in batch.binds.drain(..) {
            if put {
                leases.bind(&key, lease);
            } else {
                leases.unbind(&key);
            }
        }
        drop(leases);
        let mut hub = self.shared.hub.lock();
        for (revision, changes) in batch.commits.drain(..) {
            hub.committed(revision, changes);
        }
    }

    /// The open database, tried again (not too often) where it had failed.
    fn database(&mut self) -> Result<Arc<Database>, StoreError> {
        if let Some(database) = self.shared.database.read().clone() {
            return Ok(database);
        }
        if self.reopened.elapsed() < REOPEN {
            return Err(StoreError::Unavailable("the store's file failed".into()));
        }
        self.reopen()?;
        self.shared.database()
    }

    fn fail(&mut self) {
        *self.shared.database.write() = None;
        if let Err(e) = self.reopen() {
            tracing::error!(error = %e, "the embedded store cannot be opened again yet");
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.reopened = Instant::now();
        let database = (self.open)().map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let write = database.begin_write().map_err(Failure::from)?;
        let revision = Tables::open(&write)?.revision()?;
        write.abort().map_err(Failure::from)?;
        // Whether the failed commit is in the file is unknown here too, so everyone reads again.
        self.shared.hub.lock().lost(revision);
        *self.shared.database.write() = Some(Arc::new(database));
        Ok(())
    }
}

async fn end_of_lease(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
