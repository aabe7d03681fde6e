//! Noticing a store that lost data, was restored from a backup, or was replaced by another one.
//!
//! ```text
//!             a read tells of a lower revision than one seen before it was sent,
//!             or the key that names the store is gone or another
//!   Trusted ───────────────────────────────────────────────────────────────────► Doubted
//!      ▲                                                                            │
//!      └── revision raised above all seen ◄── operator runs `rostrum cluster trust` ◄┘
//! ```
//!
//! The rule is simple: a doubted store is treated as one that is gone. Every request fails as
//! [`StoreError::Unavailable`] with the reason, watches are lost, so that caches keep what they knew, leases are not
//! renewed, and their holders fence themselves: they serve from memory, and claim and adopt nothing.
//!
//! Before a process trusts again it makes the store's revision grow above the highest that it has seen. Epochs are
//! revisions, and switches refuse epochs lower than those they know.
//!
//! A process that is started anew knows of no former revision and takes the store as it is. What was restored to a
//! state less than a second old, and grew beyond it before any process looked, is not noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::records::keys;
use crate::store::{
    Compare, Entry, LeaseId, Op, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch,
    WatchEvent,
};

/// How often the store is looked at.
const CHECK: Duration = Duration::from_secs(1);
/// The revision is raised so far above the highest seen: others may have seen a little more.
const MARGIN: u64 = 1_000;
/// Writes at once while the revision is raised.
const RAISERS: u64 = 64;
/// Events of a watch that may wait for the consumer.
const QUEUE: usize = 1_024;
/// How long the consumer of a watch may take to make room for the news that it is lost.
const CONSUMER: Duration = Duration::from_secs(10);
/// 1 while the store is trusted, 0 while not.
const METRIC: &str = "rostrum_store_trusted";

/// Why a store is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It has forgotten changes.
    #[error(
        "the store went back from revision {} to {}: it lost data or was restored from a backup; nothing is done by it \
         until `rostrum cluster trust` is run or this process is started again", seen.0, now.0
    )]
    WentBack {
        /// Highest revision before.
        seen: Revision,
        /// What it says now.
        now: Revision,
    },
    /// It is not the store that it was.
    #[error(
        "this is another store than before, or it was emptied; nothing is done by it until `rostrum cluster trust` is \
         run or this process is started again"
    )]
    Replaced,
}

/// A store that is trusted only as long as it forgets nothing.
#[derive(Debug)]
pub struct CheckedStore {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    inner: Arc<dyn Store>,
    /// Highest revision seen.
    seen: AtomicU64,
    doubt: watch::Sender<Option<Doubt>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("seen", &self.seen)
            .field("doubt", &*self.doubt.borrow())
            .finish_non_exhaustive()
    }
}

impl CheckedStore {
    /// Starts to look after a store; must be called inside a tokio runtime. An empty store is given its name.
    #[must_use]
    pub fn start(inner: Arc<dyn Store>) -> Self {
        metrics::describe_gauge!(
            METRIC,
            "1 while the store is trusted, 0 since it lost data or was restored."
        );
        metrics::gauge!(METRIC).set(1.0);
        let shared = Arc::new(Shared {
            inner,
            seen: AtomicU64::new(0),
            doubt: watch::Sender::new(None),
        });
        let task = tokio::spawn(look_after(Arc::clone(&shared))).abort_handle();
        Self { shared, task }
    }

    /// Why the store is doubted now; follows with every change.
    #[must_use]
    pub fn doubt(&self) -> watch::Receiver<Option<Doubt>> {
        self.shared.doubt.subscribe()
    }
}

impl Drop for CheckedStore {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says that the store is to be trusted as it is now: all running processes that doubt it do so within seconds. Its
/// revision is first raised above `above`, where that is given: the highest that the former store is known to have
/// had.
///
/// # Errors
/// The store's.
pub async fn trust(store: &Arc<dyn Store>, above: Option<Revision>) -> Result<(), StoreError> {
    if let Some(above) = above {
        raise(store, above).await?;
    }
    let word = rand::random::<u128>().to_string();
    let ops = vec![Op::Put(keys::trust(), word.into(), None)];
    let compares = Vec::new();
    store.txn(Txn { compares, ops }).await.map(drop)
}

/// Makes the revision grow beyond `above`, by writes that mean nothing. Each costs a write: a million take a minute or
/// two.
async fn raise(store: &Arc<dyn Store>, above: Revision) -> Result<(), StoreError> {
    loop {
        let now = store.status().await?;
        let Some(missing) = (above.0 + 1).checked_sub(now.0).filter(|n| *n > 0) else {
            return Ok(());
        };
        tracing::info!(missing, "raising the store's revision");
        let share = missing.min(RAISERS * 1_000).div_ceil(RAISERS);
        let mut raisers = JoinSet::new();
        for _ in 0..RAISERS.min(missing) {
            let store = Arc::clone(store);
            raisers.spawn(async move {
                for _ in 0..share {
                    let ops = vec![Op::Put(keys::floor(), Bytes::new(), None)];
                    let compares = Vec::new();
                    store.txn(Txn { compares, ops }).await?;
                }
                Ok(())
            });
        }
        while let Some(raised) = raisers.join_next().await {
            raised.unwrap_or(Err(StoreError::Unknown))?;
        }
    }
}

/// What the task knows of the store.
#[derive(Default)]
struct Knowledge {
    identity: Option<Bytes>,
    /// The operator's word as it was when the doubt began; `None`: not read yet.
    word: Option<Option<Bytes>>,
}

async fn look_after(shared: Arc<Shared>) {
    let mut known = Knowledge::default();
    let mut tick = interval(CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut doubt = shared.doubt.subscribe();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = doubt.changed() => {}
        }
        let doubted = doubt.borrow_and_update().is_some();
        let looked = if doubted {
            shared.wait_for_word(&mut known).await
        } else {
            shared.check(&mut known).await
        };
        if let Err(e) = looked {
            tracing::debug!(error = %e, "the store was not looked at");
        }
    }
}

impl Shared {
    /// One look at a trusted store.
    async fn check(&self, known: &mut Knowledge) -> Result<(), StoreError> {
        let before = self.seen();
        let page = self.inner.range(&keys::identity(), 1, None).await?;
        self.saw(before, page.revision)?;
        let found = page.entries.into_iter().next().map(|entry| entry.value);
        match (&known.identity, found) {
            (None, Some(found)) => known.identity = Some(found),
            (Some(identity), found) if found.as_ref() != Some(identity) => {
                self.begin_doubt(Doubt::Replaced);
            }
            (Some(_), _) => {}
            (None, None) => self.name().await?,
        }
        Ok(())
    }

    /// Gives a nameless store a name; which of several it got is read later.
    async fn name(&self) -> Result<(), StoreError> {
        let key = keys::identity();
        let txn = Txn {
            compares: vec![Compare::Absent(key.clone())],
            ops: vec![Op::Put(
                key,
                rand::random::<u128>().to_string().into(),
                None,
            )],
        };
        self.inner.txn(txn).await.map(drop)
    }

    /// Trusts a doubted store again, once the operator has said so since the doubt began.
    async fn wait_for_word(&self, known: &mut Knowledge) -> Result<(), StoreError> {
        let word = self.inner.get(&keys::trust()).await?.map(|e| e.value);
        let begun_with = known.word.get_or_insert_with(|| word.clone());
        if word.is_none() || word == *begun_with {
            return Ok(());
        }
        raise(&self.inner, Revision(self.seen().0 + MARGIN)).await?;
        *known = Knowledge::default();
        tracing::warn!("the store is trusted again, as an operator said");
        metrics::gauge!(METRIC).set(1.0);
        self.doubt.send_replace(None);
        Ok(())
    }

    fn seen(&self) -> Revision {
        Revision(self.seen.load(Ordering::SeqCst))
    }

    /// The highest revision seen, if the store is trusted.
    fn trusted(&self) -> Result<Revision, StoreError> {
        let doubt = *self.doubt.borrow();
        match doubt {
            None => Ok(self.seen()),
            Some(doubt) => Err(StoreError::Unavailable(doubt.to_string())),
        }
    }

    /// A revision was told in answer to what was asked after `before` had been seen.
    fn saw(&self, before: Revision, now: Revision) -> Result<(), StoreError> {
        if now < before {
            self.begin_doubt(Doubt::WentBack { seen: before, now });
        } else {
            self.seen.fetch_max(now.0, Ordering::SeqCst);
        }
        self.trusted().map(drop)
    }

    fn begin_doubt(&self, doubt: Doubt) {
        self.doubt.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                tracing::error!("{doubt}");
                metrics::gauge!(METRIC).set(0.0);
                *now = Some(doubt);
            }
            first
        });
    }
}

/// Hands a watch on until the store is doubted.
async fn hand_on(shared: Arc<Shared>, mut from: Watch, to: mpsc::Sender<WatchEvent>) {
    let mut doubt = shared.doubt.subscribe();
    loop {
        let event = tokio::select! {
            biased;
            _ = doubt.wait_for(Option::is_some) => WatchEvent::Lost,
            () = to.closed() => return,
            event = from.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        if let WatchEvent::Put(Entry { modified: at, .. })
        | WatchEvent::Delete { revision: at, .. } = &event
        {
            shared.seen.fetch_max(at.0, Ordering::SeqCst);
        }
        let last = event == WatchEvent::Lost;
        let sent = if last {
            timeout(CONSUMER, to.send(event)).await.is_ok()
        } else {
            tokio::select! {
                sent = to.send(event) => sent.is_ok(),
                // Then the news that all is lost has to wait for the same room.
                _ = doubt.wait_for(Option::is_some) => true,
            }
        };
        if last || !sent {
            return;
        }
    }
}

#[async_trait]
impl Store for CheckedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.shared.trusted()?;
        let entry = self.shared.inner.get(key).await?;
        self.shared.trusted()?;
        Ok(entry)
    }

    async fn range(
        &self,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Range, StoreError> {
        let before = self.shared.trusted()?;
        let page = self.shared.inner.range(prefix, limit, after).await?;
        self.shared.saw(before, page.revision)?;
        Ok(page)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let before = self.shared.trusted()?;
        let outcome = self.shared.inner.txn(txn).await?;
        if let TxnOutcome::Committed(at) = outcome {
            // Done, but in a store that is not what it was.
            let saw = self.shared.saw(before, at);
            saw.map_err(|_| StoreError::Unknown)?;
        }
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        self.shared.trusted()?;
        let inner = self.shared.inner.watch(prefix, from).await?;
        let (to, watch) = mpsc::channel(QUEUE);
        tokio::spawn(hand_on(Arc::clone(&self.shared), inner, to));
        Ok(watch)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.shared.trusted()?;
        self.shared.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.trusted()?;
        self.shared.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.trusted()?;
        self.shared.inner.revoke(lease).await
    }

    async fn status(&self) -> Result<Revision, StoreError> {
        let before = self.shared.trusted()?;
        let now = self.shared.inner.status().await?;
        self.shared.saw(before, now)?;
        Ok(now)
    }

    async fn leased(&self, key: &str) -> Result<Option<(Entry, LeaseId)>, StoreError> {
        self.shared.trusted()?;
        self.shared.inner.leased(key).await
    }
}
