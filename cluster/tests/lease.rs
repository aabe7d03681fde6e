//! The lease of a member on a virtual clock: when it is renewed, when its holder fences itself, and how it comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{
    Entry, LeaseId, LeaseKeeper, LeaseTimes, Op, Range, Revision, Standing, Store, StoreError, Txn,
    TxnOutcome, Watch,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How the store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Fine,
    /// Answers nothing, until it is fine again.
    Silent,
    /// Says at once that it cannot.
    Failing,
}

#[derive(Default)]
struct State {
    /// Leases with their ends.
    leases: BTreeMap<u64, (Instant, Duration)>,
    keys: BTreeMap<String, (Bytes, Option<LeaseId>)>,
    granted: u64,
    /// When each renewal came in.
    renewals: Vec<Instant>,
}

impl State {
    fn expire(&mut self) {
        let now = Instant::now();
        self.leases.retain(|_, (end, _)| *end > now);
        let leases = &self.leases;
        self.keys
            .retain(|_, (_, lease)| lease.is_none_or(|l| leases.contains_key(&l.0)));
    }
}

/// A store in memory whose leases end by tokio's clock.
struct Memory {
    state: Mutex<State>,
    mode: watch::Sender<Mode>,
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            mode: watch::Sender::new(Mode::Fine),
        })
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    async fn reached(&self) -> Result<(), StoreError> {
        let mut mode = self.mode.subscribe();
        let mode = *mode.wait_for(|m| *m != Mode::Silent).await.unwrap();
        self.state.lock().expire();
        match mode {
            Mode::Failing => Err(StoreError::Unavailable("test".into())),
            _ => Ok(()),
        }
    }

    fn has(&self, key: &str) -> bool {
        let mut state = self.state.lock();
        state.expire();
        state.keys.contains_key(key)
    }
}

#[async_trait::async_trait]
impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.reached().await?;
        let state = self.state.lock();
        Ok(state.keys.get(key).map(|(value, _)| Entry {
            key: key.to_owned(),
            value: value.clone(),
            modified: Revision(1),
        }))
    }

    async fn range(&self, _: &str, _: usize, _: Option<&str>) -> Result<Range, StoreError> {
        unreachable!("a lease needs no ranges")
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.reached().await?;
        let mut state = self.state.lock();
        for op in txn.ops {
            match op {
                Op::Put(_, _, Some(lease)) if !state.leases.contains_key(&lease.0) => {
                    return Err(StoreError::LeaseExpired);
                }
                Op::Put(key, value, lease) => drop(state.keys.insert(key, (value, lease))),
                Op::Delete(key) => drop(state.keys.remove(&key)),
            }
        }
        Ok(TxnOutcome::Committed(Revision(1)))
    }

    async fn watch(&self, _: &str, _: Revision) -> Result<Watch, StoreError> {
        unreachable!("a lease needs no watch")
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.reached().await?;
        let mut state = self.state.lock();
        state.granted += 1;
        let id = state.granted;
        state.leases.insert(id, (Instant::now() + ttl, ttl));
        Ok(LeaseId(id))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reached().await?;
        let mut state = self.state.lock();
        state.renewals.push(Instant::now());
        let (end, ttl) = state
            .leases
            .get_mut(&lease.0)
            .ok_or(StoreError::LeaseExpired)?;
        *end = Instant::now() + *ttl;
        Ok(())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reached().await?;
        let mut state = self.state.lock();
        state.leases.remove(&lease.0);
        state.expire();
        Ok(())
    }

    async fn status(&self) -> Result<Revision, StoreError> {
        self.reached().await.map(|()| Revision(1))
    }
}

const KEY: &str = "member/a";

fn times() -> LeaseTimes {
    LeaseTimes {
        ttl: Duration::from_millis(1_000),
        renew: Duration::from_millis(300),
        fence: Duration::from_millis(800),
    }
}

async fn alive(store: &Arc<Memory>) -> LeaseKeeper {
    let keeper = LeaseKeeper::start(Arc::clone(store) as Arc<dyn Store>, times());
    keeper.put(KEY, "here").await.unwrap();
    keeper
}

async fn becomes(keeper: &LeaseKeeper, wanted: Standing) -> Instant {
    let mut standing = keeper.standing();
    let reached = standing.wait_for(|s| *s == wanted);
    timeout(Duration::from_secs(60), reached)
        .await
        .expect("within a minute")
        .unwrap();
    Instant::now()
}

const FIRST: Standing = Standing::Alive { generation: 1 };
const SECOND: Standing = Standing::Alive { generation: 2 };

#[tokio::test(start_paused = true)]
async fn it_is_renewed_at_its_interval_for_as_long_as_it_is_held() {
    let store = Memory::new();
    let begun = Instant::now();
    let keeper = alive(&store).await;
    assert!(!keeper.is_fenced());
    sleep(Duration::from_secs(3_600)).await;
    let renewals = store.state.lock().renewals.clone();
    assert_eq!(renewals.len(), 12_000 - 1);
    for (n, at) in (1u32..).zip(renewals) {
        assert_eq!(at - begun, times().renew * n);
    }
    assert!(store.has(KEY));
    assert_eq!(store.state.lock().granted, 1, "one lease all the time");
    assert_eq!(*keeper.standing().borrow(), FIRST);
    keeper.stop().await;
    assert!(!store.has(KEY), "ended at once, not when it runs out");
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_fences_the_holder_before_the_lease_ends() {
    let store = Memory::new();
    let keeper = alive(&store).await;
    // Just after a renewal.
    sleep(Duration::from_millis(901)).await;
    let renewed = *store.state.lock().renewals.last().unwrap();
    store.set(Mode::Silent);
    let fenced = becomes(&keeper, Standing::Fenced).await;
    assert_eq!(fenced - renewed, times().fence);
    assert!(keeper.is_fenced());
    assert!(store.has(KEY), "others take it for alive still");
    sleep(times().ttl - times().fence).await;
    assert!(!store.has(KEY));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_in_time_after_all_lifts_the_fence_of_the_same_lease() {
    let store = Memory::new();
    let keeper = alive(&store).await;
    store.set(Mode::Failing);
    let fenced = becomes(&keeper, Standing::Fenced).await;
    store.set(Mode::Fine);
    let again = becomes(&keeper, FIRST).await;
    assert!(again - fenced <= Duration::from_millis(50), "tried often");
    assert!(!keeper.is_fenced());
    assert!(store.has(KEY));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ended_comes_back_as_a_new_generation_with_its_keys() {
    let store = Memory::new();
    let keeper = alive(&store).await;
    keeper.put("member/a/load", "7").await.unwrap();
    store.set(Mode::Silent);
    becomes(&keeper, Standing::Fenced).await;
    sleep(Duration::from_secs(30)).await;
    assert!(!store.has(KEY));
    store.set(Mode::Fine);
    becomes(&keeper, SECOND).await;
    assert!(store.has(KEY) && store.has("member/a/load"));
    assert!(!keeper.is_fenced());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_deleted_is_noticed_within_two_checks() {
    let store = Memory::new();
    let keeper = alive(&store).await;
    sleep(Duration::from_secs(10)).await;
    store.state.lock().keys.remove(KEY);
    let begun = Instant::now();
    let again = becomes(&keeper, SECOND).await;
    assert!(again - begun <= Duration::from_millis(1_300));
    assert!(store.has(KEY));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_key_is_not_written_again() {
    let store = Memory::new();
    let keeper = alive(&store).await;
    keeper.put("switch/s", "1").await.unwrap();
    keeper.delete("switch/s").await.unwrap();
    store.set(Mode::Silent);
    sleep(Duration::from_secs(5)).await;
    store.set(Mode::Fine);
    becomes(&keeper, SECOND).await;
    assert!(store.has(KEY) && !store.has("switch/s"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_alive_before_the_store_has_the_keys_and_a_stop_does_not_wait_for_it_for_ever() {
    let store = Memory::new();
    store.set(Mode::Silent);
    let keeper = LeaseKeeper::start(Arc::clone(&store) as Arc<dyn Store>, times());
    let put = timeout(Duration::from_secs(5), keeper.put(KEY, "here")).await;
    assert!(put.is_err(), "waits");
    assert!(keeper.is_fenced());
    store.set(Mode::Fine);
    becomes(&keeper, FIRST).await;
    assert!(store.has(KEY), "kept, though the put was given up");
    store.set(Mode::Silent);
    let begun = Instant::now();
    keeper.stop().await;
    assert_eq!(begun.elapsed(), times().ttl);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_withdrawn_is_gone_at_once_and_comes_back_when_resumed() {
    let store = Memory::new();
    let keeper = alive(&store).await;
    keeper.withdraw();
    becomes(&keeper, Standing::Fenced).await;
    sleep(Duration::from_secs(10)).await;
    assert!(!store.has(KEY));
    assert!(keeper.is_fenced());
    keeper.resume();
    becomes(&keeper, SECOND).await;
    assert!(store.has(KEY));
}
