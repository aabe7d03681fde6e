//! A store that is gone, silent or full for a while: what caches and lease holders say meanwhile, and that all is well
//! again after it.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::etcd::EtcdStore;
use cluster::{Cache, EtcdConfig, LeaseKeeper, LeaseTimes, Standing, Store, StoreError, Txn};
use common::{Etcd, Numbered, commit, delete, leased, numbered, put};

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what}");
}

/// A cache and a lease on a store.
struct Role {
    cache: Cache<Numbered>,
    keeper: LeaseKeeper,
}

impl Role {
    async fn start(store: &Arc<dyn Store>) -> Self {
        commit(
            &**store,
            vec![put("o/a", &numbered(1)), put("o/b", &numbered(2))],
        )
        .await;
        let cache = Cache::start(Arc::clone(store), "o/".into());
        cache.ready().await;
        let keeper = LeaseKeeper::start(Arc::clone(store), LeaseTimes::default());
        keeper.put("m/a", "here").await.unwrap();
        let role = Self { cache, keeper };
        role.is_well(1).await;
        role
    }

    async fn is_well(&self, generation: u64) {
        until("follows", || self.cache.is_fresh()).await;
        let standing = self.keeper.standing();
        let alive = Standing::Alive { generation };
        until("alive", || {
            *standing.borrow() == alive && !self.keeper.is_fenced()
        })
        .await;
    }

    /// Says that it knows nothing new, and what it knew.
    async fn is_cut_off(&self, since: Instant) {
        until("fenced", || self.keeper.is_fenced()).await;
        // By the clock 800 ms after the last renewal was sent, which was 300 ms ago at most.
        assert!(
            since.elapsed() < Duration::from_millis(1_500),
            "{:?}",
            since.elapsed()
        );
        let standing = self.keeper.standing();
        until("said", || *standing.borrow() == Standing::Fenced).await;
        until("old", || !self.cache.is_fresh()).await;
        println!("not fresh after {:?}", since.elapsed());
        let known: Vec<_> = self
            .cache
            .snapshot()
            .into_iter()
            .map(|(k, c)| (k, c.value.number))
            .collect();
        assert_eq!(known, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_etcd_is_gone_or_silent_the_last_state_stays_and_nobody_takes_himself_for_alive() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    etcd.store().await;
    let config = EtcdConfig {
        timeout_ms: 1_000,
        ..etcd.config()
    };
    let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&config).unwrap());
    let role = Role::start(&store).await;
    let gone = Instant::now();
    etcd.kill(0);
    role.is_cut_off(gone).await;
    assert!(matches!(
        store.get("o/a").await,
        Err(StoreError::Unavailable(_))
    ));
    etcd.restart(0);
    until("it is up", || role.cache.is_fresh()).await;
    // etcd starts the time of leases anew when it starts: the old one may live on, or have ended.
    until("alive", || !role.keeper.is_fenced()).await;
    let Standing::Alive { generation } = *role.keeper.standing().borrow() else {
        panic!("not fenced")
    };

    let silent = Instant::now();
    etcd.signal("-STOP");
    role.is_cut_off(silent).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    etcd.signal("-CONT");
    until("again", || {
        role.cache.is_fresh() && !role.keeper.is_fenced()
    })
    .await;
    let standing = *role.keeper.standing().borrow();
    let Standing::Alive { generation: later } = standing else {
        panic!("not fenced")
    };
    assert!(later >= generation);
    commit(&*store, vec![delete("o/a"), put("o/b", &numbered(3))]).await;
    until("follows", || role.cache.len() == 1).await;
    assert_eq!(role.cache.get("b").map(|b| b.value.number), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_refuses_in_words_keeps_the_living_alive_and_recovers() {
    let Some(etcd) = Etcd::start_with("http", &["--quota-backend-bytes=4194304"]) else {
        return;
    };
    let store = etcd.store().await;
    let role = Role::start(&store).await;
    let large = "x".repeat(900_000);
    let mut kept = Vec::new();
    let refused = loop {
        let key = format!("f/{}", kept.len());
        let txn = Txn {
            compares: Vec::new(),
            ops: vec![put(&key, &large)],
        };
        match store.txn(txn).await {
            Ok(_) => kept.push(key),
            Err(e) => break e,
        }
        assert!(kept.len() < 20, "it has room without end");
    };
    assert!(
        matches!(&refused, StoreError::Refused(why) if why.contains("space exceeded")),
        "{refused:?}"
    );
    assert!(!kept.is_empty());
    for key in &kept {
        assert!(
            store.get(key).await.unwrap().is_some(),
            "{key} was acknowledged"
        );
    }
    // The living go on for longer than their lease; nobody new comes in.
    tokio::time::sleep(Duration::from_secs(3)).await;
    role.is_well(1).await;
    let grant = store.grant(Duration::from_secs(1)).await;
    assert!(matches!(grant, Err(StoreError::Refused(_))), "{grant:?}");
    // What an operator does: make room, and say so.
    let mut operator = etcd_client::Client::connect([&etcd.url], None)
        .await
        .unwrap();
    let all = etcd_client::DeleteOptions::new().with_prefix();
    operator.delete("f/", Some(all)).await.unwrap();
    let last = i64::try_from(store.status().await.unwrap().0).unwrap();
    let physical = etcd_client::CompactionOptions::new().with_physical();
    operator.compact(last, Some(physical)).await.unwrap();
    operator.defragment().await.unwrap();
    let (disarm, full) = (
        etcd_client::AlarmAction::Deactivate,
        etcd_client::AlarmType::Nospace,
    );
    let member = operator.status().await.unwrap();
    let member = member.header().unwrap().member_id();
    let mut alarmed = etcd_client::AlarmOptions::new();
    alarmed.with_member(member);
    operator.alarm(disarm, full, Some(alarmed)).await.unwrap();
    commit(&*store, vec![put("f/again", &large)]).await;
    let lease = store.grant(Duration::from_secs(1)).await.unwrap();
    commit(&*store, vec![leased("f/leased", "", lease)]).await;
    until("follows", || role.cache.is_fresh()).await;
}
