//! The lease of a member or a switch: kept alive, renewed when lost, and a deadline after which its holder
//! must take itself for dead.
//!
//! ```text
//!            granted, keys written            fence passed since the last good renewal was *sent*
//!   Fenced ────────────────────────► Alive ──────────────────────────────────────────────────► Fenced
//!     ▲                               │ ▲ renewed                     renewed after all          │
//!     │ lease ended: grant again      │ └──┘      ◄───────────────────────────────────────────────┘
//!     └───────────────────────────────┘
//! ```
//!
//! Being alive here is a hint to stop early; the transactions that demand an owner record are the safety.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::records::ROOT;
use crate::store::{LeaseId, Op, Store, StoreError, Txn};

/// Times of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long the store keeps the lease without a renewal. Lower: the dead are noticed sooner, and the
    /// living declared dead more easily. etcd rounds up to whole seconds.
    pub ttl: Duration,
    /// Between renewals; at least three must fit into `ttl`.
    pub renew: Duration,
    /// After this long since the last successful renewal was sent, the holder fences itself. Below `ttl` by
    /// what clocks and schedulers may be off.
    pub fence: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            ttl: Duration::from_millis(1_000),
            renew: Duration::from_millis(300),
            fence: Duration::from_millis(800),
        }
    }
}

/// Whether the holder may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Others may take it for dead: start nothing new.
    Fenced,
    /// The lease lives. A new `generation` means that it had ended in between, and others were told so.
    Alive {
        /// Counts the leases of this keeper, from 1.
        generation: u64,
    },
}

/// Metrics; all have the label `kind`, the kind of record the lease is for.
pub(crate) const ALIVE: &str = "rostrum_lease_alive";
pub(crate) const RENEWALS: &str = "rostrum_lease_renewals_total";
pub(crate) const LOSSES: &str = "rostrum_lease_losses_total";

/// Tells the metrics how a renewal ended; `kind` is that of the lease's records, as in their keys.
pub fn count_renewal(kind: &str, done: bool) {
    let outcome = if done { "done" } else { "failed" };
    metrics::counter!(RENEWALS, "kind" => kind.to_owned(), "outcome" => outcome).increment(1);
}

/// Tells the metrics that a lease ended though its holder lives.
pub fn count_loss(kind: &str) {
    metrics::counter!(LOSSES, "kind" => kind.to_owned()).increment(1);
}

/// Tells the metrics whether a lease is held.
pub fn tell_alive(kind: &str, alive: bool) {
    metrics::gauge!(ALIVE, "kind" => kind.to_owned()).set(f64::from(u8::from(alive)));
}

/// Pause before the next try after a failed grant or renewal.
const RETRY: Duration = Duration::from_millis(50);
/// How often it is checked that the keys are still there: another member may have declared us dead.
const VERIFY: Duration = Duration::from_secs(1);

struct Shared {
    store: Arc<dyn Store>,
    times: LeaseTimes,
    lease: watch::Sender<Option<LeaseId>>,
    standing: watch::Sender<Standing>,
    /// When the fence falls; `None` without a lease.
    fence: Mutex<Option<Instant>>,
    keys: Mutex<BTreeMap<String, Bytes>>,
    /// Held while keys are written, so that an old value never overwrites a newer one.
    writing: AsyncMutex<()>,
    /// The lease is given up until this is false again.
    withdrawn: watch::Sender<bool>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let standing = *self.standing.borrow();
        f.debug_struct("Shared")
            .field("standing", &standing)
            .finish_non_exhaustive()
    }
}

/// Keeps one lease and the keys bound to it.
#[derive(Debug)]
pub struct LeaseKeeper {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

impl LeaseKeeper {
    /// Starts; the lease is granted as soon as the store answers. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, times: LeaseTimes) -> Self {
        let shared = Arc::new(Shared {
            store,
            times,
            lease: watch::Sender::new(None),
            standing: watch::Sender::new(Standing::Fenced),
            fence: Mutex::new(None),
            keys: Mutex::default(),
            writing: AsyncMutex::new(()),
            withdrawn: watch::Sender::new(false),
            stop: CancellationToken::new(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self {
            shared,
            task: Some(task),
        }
    }

    /// Writes a key bound to the lease, and writes it again whenever it got lost. Returns when it is in the
    /// store, however long that takes.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: the value is too large, say; it is then not kept.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<(), StoreError> {
        self.shared.keys.lock().insert(key.to_owned(), value.into());
        let mut lease = self.shared.lease.subscribe();
        loop {
            // Never an error: the sender lives in `self`.
            let held = lease
                .wait_for(Option::is_some)
                .await
                .map_or(None, |lease| *lease);
            let written = match held {
                Some(held) => self.shared.write_keys(held, Some(key)).await,
                None => Err(StoreError::LeaseExpired),
            };
            match written {
                Ok(()) => return Ok(()),
                Err(StoreError::Refused(why)) => {
                    self.shared.keys.lock().remove(key);
                    return Err(StoreError::Refused(why));
                }
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Deletes a key, and does not write it again.
    ///
    /// # Errors
    /// The store's: the key may then stay until the lease ends.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let _writing = self.shared.writing.lock().await;
        self.shared.keys.lock().remove(key);
        let ops = vec![Op::Delete(key.to_owned())];
        self.shared
            .store
            .txn(Txn {
                compares: Vec::new(),
                ops,
            })
            .await
            .map(drop)
    }

    /// Whether the holder may act; follows with every change.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Whether the holder must not act, by the clock and at this very moment: also right in a process that
    /// was stopped and has just woken up.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.shared
            .fence
            .lock()
            .is_none_or(|fence| Instant::now() >= fence)
    }

    /// The lease held now.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        *self.shared.lease.borrow()
    }

    /// Ends the lease and its keys, which others take for the end of this process, until [`Self::resume`].
    pub fn withdraw(&self) {
        self.shared.withdrawn.send_replace(true);
    }

    /// Takes a lease again after [`Self::withdraw`], and writes the keys.
    pub fn resume(&self) {
        self.shared.withdrawn.send_replace(false);
    }

    /// Ends the lease, so that others know at once. Returns when the store knows, or did not answer.
    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        // Without `stop` the lease runs out by itself.
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    let mut generation = 0;
    let mut withdrawn = shared.withdrawn.subscribe();
    loop {
        let acquired = async {
            told(&mut withdrawn, false).await;
            shared.acquire().await
        };
        let lease = tokio::select! {
            lease = acquired => lease,
            () = stop.cancelled() => return,
        };
        generation += 1;
        shared.lease.send_replace(Some(lease));
        tokio::select! {
            () = shared.hold(lease, generation) => count_loss(&shared.kind()),
            () = told(&mut withdrawn, true) => {
                shared.lost();
                // One that is not revoked runs out.
                let _ = timeout(shared.times.ttl, shared.store.revoke(lease)).await;
            }
            () = stop.cancelled() => {
                shared.lost();
                let _ = timeout(shared.times.ttl, shared.store.revoke(lease)).await;
                return;
            }
        }
        shared.lost();
    }
}

/// Waits until it is so.
async fn told(withdrawn: &mut watch::Receiver<bool>, so: bool) {
    // Never an error: the sender lives as long as the task.
    let _ = withdrawn.wait_for(|now| *now == so).await;
}

impl Shared {
    /// A new lease with all keys bound to it.
    async fn acquire(&self) -> LeaseId {
        loop {
            let sent = Instant::now();
            match self.store.grant(self.times.ttl).await {
                Ok(lease) => {
                    *self.fence.lock() = Some(sent + self.times.fence);
                    match self.write_keys(lease, None).await {
                        Ok(()) => return lease,
                        Err(e) => tracing::debug!(error = %e, "keys of a new lease not written"),
                    }
                    *self.fence.lock() = None;
                }
                Err(e) => tracing::debug!(error = %e, "no lease"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews until the lease is gone.
    async fn hold(&self, lease: LeaseId, generation: u64) {
        let alive = Standing::Alive { generation };
        let mut renewed_at = Instant::now();
        let mut next_verify = renewed_at + VERIFY;
        // The keys were written a moment ago, but how long that took is counted from the grant.
        self.set_standing(alive);
        let mut pause = self.times.renew;
        loop {
            self.wait(pause).await;
            let sent = Instant::now();
            let renewed = self.fenced(self.store.keep_alive(lease)).await;
            count_renewal(&self.kind(), renewed.is_ok());
            match renewed {
                Ok(()) => {
                    renewed_at = sent;
                    *self.fence.lock() = Some(sent + self.times.fence);
                    self.set_standing(alive);
                    pause = self.times.renew.saturating_sub(sent.elapsed());
                }
                Err(StoreError::LeaseExpired) => return,
                Err(e) => {
                    tracing::debug!(error = %e, since = ?renewed_at.elapsed(), "lease not renewed");
                    pause = RETRY;
                    continue;
                }
            }
            if next_verify <= Instant::now() {
                next_verify = Instant::now() + VERIFY;
                if self.fenced(self.some_key_gone()).await {
                    tracing::warn!("another member declared this one dead; writing its keys again");
                    return;
                }
            }
        }
    }

    /// Sleeps, and lets the fence fall meanwhile.
    async fn wait(&self, pause: Duration) {
        self.fenced(sleep(pause)).await;
    }

    /// Drives something, and lets the fence fall meanwhile.
    async fn fenced<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let fence = self.fence.lock().unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = sleep_until(fence) => {}
            done = &mut work => return done,
        }
        self.set_standing(Standing::Fenced);
        work.await
    }

    /// Of the records that the lease is for, as in their keys.
    fn kind(&self) -> String {
        let keys = self.keys.lock();
        let first = keys.keys().next().and_then(|key| key.strip_prefix(ROOT));
        let kind = first.and_then(|key| key.split('/').next());
        kind.unwrap_or("none").to_owned()
    }

    fn set_standing(&self, standing: Standing) {
        tell_alive(&self.kind(), standing != Standing::Fenced);
        self.standing
            .send_if_modified(|now| std::mem::replace(now, standing) != standing);
    }

    fn lost(&self) {
        *self.fence.lock() = None;
        self.lease.send_replace(None);
        self.set_standing(Standing::Fenced);
    }

    /// Whether a key that should be there is not. Errors say nothing.
    async fn some_key_gone(&self) -> bool {
        let _writing = self.writing.lock().await;
        let keys: Vec<String> = self.keys.lock().keys().cloned().collect();
        for key in keys {
            if matches!(self.store.get(&key).await, Ok(None)) {
                return true;
            }
        }
        false
    }

    /// Writes one key, or all, bound to the lease.
    async fn write_keys(&self, lease: LeaseId, only: Option<&str>) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let keys = self.keys.lock().clone();
        let wanted = keys
            .into_iter()
            .filter(|(key, _)| only.is_none_or(|only| only == key));
        for (key, value) in wanted {
            let ops = vec![Op::Put(key, value, Some(lease))];
            self.store
                .txn(Txn {
                    compares: Vec::new(),
                    ops,
                })
                .await?;
        }
        Ok(())
    }
}
