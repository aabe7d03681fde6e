//! Leases, ownership, caches and secrets, on the embedded engine.

mod common;

use std::sync::Arc;
use std::time::Duration;

use cluster::embedded::EmbeddedStore;
use cluster::ownership::{Claim, claim, claim_new, guard, release, take_over};
use cluster::records::{Member, Owner, RECORD_VERSION, keys};
use cluster::{
    Cache, Change, LeaseKeeper, LeaseTimes, Op, Revision, Standing, Store, Txn, TxnOutcome, secret,
};
use common::{commit, delete, put};

fn store() -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::in_memory().unwrap())
}

fn member(id: &str) -> Vec<u8> {
    let member = Member {
        version: RECORD_VERSION,
        id: id.into(),
        sip: Vec::new(),
        api: String::new(),
        load: 0,
        draining: false,
    };
    serde_json::to_vec(&member).unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("within ten seconds")
}

#[tokio::test]
async fn a_meeting_is_claimed_once_and_taken_over_only_from_the_dead() {
    let store = store();
    let alive = |id: &str| Op::Put(keys::member(id), member(id).into(), None);
    assert_eq!(
        claim(&*store, "m", "a").await.unwrap(),
        Claim::Refused,
        "not a member"
    );
    commit(&*store, vec![alive("a"), alive("b")]).await;
    let Claim::Mine(first) = claim(&*store, "m", "a").await.unwrap() else {
        panic!()
    };
    assert_eq!(
        claim(&*store, "m", "a").await.unwrap(),
        Claim::Mine(first),
        "still mine"
    );
    let Claim::Taken(owner, epoch) = claim(&*store, "m", "b").await.unwrap() else {
        panic!()
    };
    assert_eq!((owner.member.as_str(), epoch), ("a", first));
    let early = take_over(&*store, "m", "a", first, "b").await.unwrap();
    assert!(matches!(early, Claim::Taken(..)), "a lives");

    commit(&*store, vec![delete(&keys::member("a"))]).await;
    let Claim::Mine(second) = take_over(&*store, "m", "a", first, "b").await.unwrap() else {
        panic!()
    };
    assert!(second > first, "epochs only grow");
    let late = Txn {
        compares: vec![guard("m", first)],
        ops: vec![put("dialog", "stale")],
    };
    assert_eq!(
        store.txn(late).await.unwrap(),
        TxnOutcome::Conflict,
        "the old owner writes nothing more"
    );
    assert!(!release(&*store, "m", first).await.unwrap());
    assert!(release(&*store, "m", second).await.unwrap());
    assert_eq!(store.get(&keys::owner("m")).await.unwrap(), None);
}

#[tokio::test]
async fn a_new_meeting_is_claimed_with_its_record_and_an_older_record_is_kept() {
    let store = store();
    let alive = Op::Put(keys::member("a"), member("a").into(), None);
    commit(&*store, vec![alive, put(&keys::meeting("old"), "kept")]).await;
    let before = store.status().await.unwrap();
    let new = claim_new(&*store, "new", "a", "made".into()).await.unwrap();
    assert_eq!(new, Claim::Mine(store.status().await.unwrap()));
    assert_eq!(new, Claim::Mine(Revision(before.0 + 1)), "one transaction");
    let record = store.get(&keys::meeting("new")).await.unwrap().unwrap();
    assert_eq!(record.value.as_ref(), b"made");
    let again = claim_new(&*store, "new", "a", "other".into())
        .await
        .unwrap();
    assert_eq!(again, new);
    let old = claim_new(&*store, "old", "a", "other".into())
        .await
        .unwrap();
    assert!(matches!(old, Claim::Mine(_)));
    let record = store.get(&keys::meeting("old")).await.unwrap().unwrap();
    assert_eq!(record.value.as_ref(), b"kept");
    let stranger = claim_new(&*store, "x", "b", "made".into()).await.unwrap();
    assert_eq!(stranger, Claim::Refused, "not a member");
    assert_eq!(store.get(&keys::meeting("x")).await.unwrap(), None);
}

#[tokio::test]
async fn of_many_who_claim_at_once_one_wins() {
    let store = store();
    for n in 0..8 {
        commit(&*store, vec![put(&keys::member(&n.to_string()), "")]).await;
    }
    let claims = (0..8).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { claim(&*store, "m", &n.to_string()).await.unwrap() })
    });
    let mut won = 0;
    for claim in claims.collect::<Vec<_>>() {
        won += usize::from(matches!(claim.await.unwrap(), Claim::Mine(_)));
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_secret_is_made_once_and_the_same_for_all() {
    let store = store();
    let both = tokio::join!(secret(&*store, "flow"), secret(&*store, "flow"));
    let (a, b) = (both.0.unwrap(), both.1.unwrap());
    assert_eq!(a, b);
    assert_ne!(a, [0; 32]);
    assert_ne!(secret(&*store, "nonce").await.unwrap(), a);
}

#[tokio::test]
async fn a_lease_keeper_keeps_its_keys_until_it_is_stopped() {
    let store = store();
    let times = LeaseTimes {
        ttl: Duration::from_millis(300),
        renew: Duration::from_millis(60),
        fence: Duration::from_millis(240),
    };
    let keeper = LeaseKeeper::start(Arc::clone(&store), times);
    keeper.put("k/a", "1").await.unwrap();
    assert_eq!(
        *keeper.standing().borrow(),
        Standing::Alive { generation: 1 }
    );
    assert!(!keeper.is_fenced());
    assert!(store.get("k/a").await.unwrap().is_some());
    keeper.put("k/a", "2").await.unwrap();
    assert_eq!(
        store.get("k/a").await.unwrap().unwrap().value.as_ref(),
        b"2"
    );
    keeper.stop().await;
    assert_eq!(
        store.get("k/a").await.unwrap(),
        None,
        "ended at once, not when it runs out"
    );
}

#[tokio::test]
async fn a_lost_lease_is_granted_again_with_its_keys() {
    let store = store();
    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put("k/a", "1").await.unwrap();
    let mut standing = keeper.standing();
    store.revoke(keeper.lease().unwrap()).await.unwrap();
    soon(standing.wait_for(|s| *s == Standing::Fenced))
        .await
        .unwrap();
    soon(standing.wait_for(|s| *s == Standing::Alive { generation: 2 }))
        .await
        .unwrap();
    assert!(store.get("k/a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_member_declared_dead_by_another_comes_back_as_a_new_generation() {
    let store = store();
    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put("k/a", "1").await.unwrap();
    commit(&*store, vec![delete("k/a")]).await;
    let mut standing = keeper.standing();
    soon(standing.wait_for(|s| *s == Standing::Alive { generation: 2 }))
        .await
        .unwrap();
    assert!(store.get("k/a").await.unwrap().is_some());
}

/// A store that stops answering renewals.
struct Stuck(Arc<dyn Store>, std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl Store for Stuck {
    async fn get(&self, key: &str) -> Result<Option<cluster::Entry>, cluster::StoreError> {
        self.0.get(key).await
    }
    async fn range(
        &self,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<cluster::Range, cluster::StoreError> {
        self.0.range(prefix, limit, after).await
    }
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, cluster::StoreError> {
        self.0.txn(txn).await
    }
    async fn watch(
        &self,
        prefix: &str,
        from: cluster::Revision,
    ) -> Result<cluster::Watch, cluster::StoreError> {
        self.0.watch(prefix, from).await
    }
    async fn grant(&self, ttl: Duration) -> Result<cluster::LeaseId, cluster::StoreError> {
        self.0.grant(ttl).await
    }
    async fn keep_alive(&self, lease: cluster::LeaseId) -> Result<(), cluster::StoreError> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.0.keep_alive(lease).await
    }
    async fn revoke(&self, lease: cluster::LeaseId) -> Result<(), cluster::StoreError> {
        self.0.revoke(lease).await
    }
    async fn status(&self) -> Result<cluster::Revision, cluster::StoreError> {
        self.0.status().await
    }
}

#[tokio::test]
async fn a_holder_whose_store_hangs_fences_itself_before_its_lease_ends() {
    let stuck = Arc::new(Stuck(store(), false.into()));
    let keeper = LeaseKeeper::start(Arc::clone(&stuck) as Arc<dyn Store>, LeaseTimes::default());
    keeper.put("k/a", "1").await.unwrap();
    let mut watch = stuck
        .watch("k/", stuck.status().await.unwrap())
        .await
        .unwrap();
    let mut standing = keeper.standing();
    stuck.1.store(true, std::sync::atomic::Ordering::Relaxed);
    tokio::select! {
        biased;
        fenced = standing.wait_for(|s| *s == Standing::Fenced) => { fenced.unwrap(); }
        event = common::next(&mut watch) => panic!("{event:?} before the holder fenced itself"),
    }
    assert!(keeper.is_fenced());
    assert!(matches!(
        common::next(&mut watch).await,
        cluster::WatchEvent::Delete { .. }
    ));
}

#[tokio::test]
async fn a_cache_follows_the_store() {
    let store = store();
    let owner = |m: &str| {
        let owner = Owner {
            version: RECORD_VERSION,
            member: m.into(),
        };
        String::from_utf8(serde_json::to_vec(&owner).unwrap()).unwrap()
    };
    // More than one page, so that paging is part of it.
    for page in 0..11 {
        let ops = (0..100).map(|n| put(&keys::owner(&format!("{page:02}-{n:02}")), &owner("a")));
        commit(&*store, ops.collect()).await;
    }
    let cache = Cache::owners(Arc::clone(&store));
    soon(cache.ready()).await;
    assert_eq!(cache.len(), 1100);
    assert!(cache.is_fresh());

    let mut changes = cache.subscribe();
    let epoch = commit(&*store, vec![put(&keys::owner("00-00"), &owner("b"))]).await;
    let Some(Change::Put(key, record)) = soon(changes.next()).await else {
        panic!()
    };
    assert_eq!(
        (key.as_str(), record.value.member.as_str(), record.modified),
        ("00-00", "b", epoch)
    );
    assert_eq!(cache.get("00-00").unwrap().modified, epoch);

    commit(&*store, vec![delete(&keys::owner("00-00"))]).await;
    let Some(Change::Deleted(key, record)) = soon(changes.next()).await else {
        panic!()
    };
    assert_eq!((key.as_str(), record.value.member.as_str()), ("00-00", "b"));
    assert!(cache.get("00-00").is_none());

    commit(&*store, vec![put(&keys::owner("00-01"), "not a record")]).await;
    let gone = soon(changes.next()).await;
    assert!(
        matches!(gone, Some(Change::Deleted(key, _)) if key == "00-01"),
        "not understood, not acted on"
    );
    assert_eq!(cache.snapshot().len(), 1098);
}
