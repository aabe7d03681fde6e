//! A store that forgets is not trusted, until someone says so.

mod common;

use std::sync::Arc;
use std::time::Duration;

use cluster::embedded::EmbeddedStore;
use cluster::etcd::EtcdStore;
use cluster::ownership::{Claim, claim, reassert};
use cluster::records::keys;
use cluster::trust::{Doubt, trust};
use cluster::{
    Cache, CheckedStore, Entry, EtcdConfig, LeaseId, LeaseKeeper, LeaseTimes, Range, Revision,
    Standing, Store, StoreError, Txn, TxnOutcome, Watch, WatchEvent,
};
use common::faults::written_during;
use common::{Etcd, Numbered, commit, next, numbered, put};
use parking_lot::Mutex;

/// A store in whose place another one can be put.
struct Changing(Mutex<Arc<dyn Store>>);

impl Changing {
    fn now(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0.lock())
    }
}

#[async_trait::async_trait]
impl Store for Changing {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.now().get(key).await
    }
    async fn range(&self, p: &str, limit: usize, after: Option<&str>) -> Result<Range, StoreError> {
        self.now().range(p, limit, after).await
    }
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.now().txn(txn).await
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        self.now().watch(prefix, from).await
    }
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.now().grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.now().keep_alive(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.now().revoke(lease).await
    }
    async fn status(&self) -> Result<Revision, StoreError> {
        self.now().status().await
    }
}

fn embedded() -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::in_memory().unwrap())
}

/// As many writes as it takes to be at this revision.
async fn grown_to(store: &dyn Store, revision: u64) {
    while store.status().await.unwrap().0 < revision {
        commit(store, vec![put("grow", "")]).await;
    }
}

async fn doubted(store: &CheckedStore, wanted: bool) -> Option<Doubt> {
    let mut doubt = store.doubt();
    let reached = doubt.wait_for(|doubt| doubt.is_some() == wanted);
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    *reached.expect("within twenty seconds").unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what}");
}

/// Waits until the store has its name, and the checker knows it.
async fn named(store: &dyn Store) -> Entry {
    let named = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Some(entry) = store.get(&keys::identity()).await.unwrap() {
                return entry;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let entry = named.await.expect("given a name");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    entry
}

#[tokio::test]
async fn a_checked_store_conforms() {
    let store = Arc::new(CheckedStore::start(embedded()));
    // Its only own write; the suite counts.
    named(&*store).await;
    common::conformance(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_read_and_write_at_once_raise_no_doubt() {
    let checked = Arc::new(CheckedStore::start(embedded()));
    let store: Arc<dyn Store> = Arc::clone(&checked) as Arc<dyn Store>;
    let reading = async {
        for _ in 0..3_000 {
            store.status().await.unwrap();
            store.range("k/", 1, None).await.unwrap();
        }
    };
    written_during(&store, "k", reading).await;
    assert_eq!(*checked.doubt().borrow(), None);
}

#[tokio::test]
async fn a_store_that_went_back_is_as_good_as_gone_until_it_is_trusted() {
    let (first, backup) = (embedded(), embedded());
    let inner = Arc::new(Changing(Mutex::new(Arc::clone(&first))));
    let checked = Arc::new(CheckedStore::start(Arc::clone(&inner) as Arc<dyn Store>));
    let store: Arc<dyn Store> = Arc::clone(&checked) as Arc<dyn Store>;
    let name = named(&*store).await;
    commit(
        &*store,
        vec![put("c/old", &numbered(1)), put("c/new", &numbered(1))],
    )
    .await;
    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put(&keys::member("a"), "here").await.unwrap();
    let Claim::Mine(epoch) = claim(&*store, "m", "a").await.unwrap() else {
        panic!()
    };
    let cache = Cache::<Numbered>::start(Arc::clone(&store), "c/".into());
    cache.ready().await;
    grown_to(&*store, 5_000).await;
    let seen = store.status().await.unwrap();
    let mut watch = store.watch("c/", seen).await.unwrap();

    // The backup knows the name, the meeting's owner, and one of the two keys.
    let owner = first.get(&keys::owner("m")).await.unwrap().unwrap();
    let text = |entry: &Entry| String::from_utf8(entry.value.to_vec()).unwrap();
    let was = vec![
        put(&name.key, &text(&name)),
        put(&owner.key, &text(&owner)),
        put("c/old", &numbered(1)),
    ];
    commit(&*backup, was).await;
    *inner.0.lock() = Arc::clone(&backup);

    let doubt = doubted(&checked, true).await.unwrap();
    assert!(
        matches!(doubt, Doubt::WentBack { seen: s, now } if s == seen && now < seen),
        "{doubt:?}"
    );
    let Err(StoreError::Unavailable(why)) = store.status().await else {
        panic!("not ready")
    };
    assert!(
        why.contains("went back from revision") && why.contains("rostrum cluster trust"),
        "{why}"
    );
    let blind = Txn {
        compares: Vec::new(),
        ops: vec![put("c/x", "1")],
    };
    assert!(matches!(
        store.txn(blind).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(store.grant(Duration::from_secs(1)).await.is_err());
    assert!(store.get("c/old").await.is_err());
    assert_eq!(next(&mut watch).await, WatchEvent::Lost);
    until("fenced", || keeper.is_fenced()).await;
    until("old", || !cache.is_fresh()).await;
    assert_eq!(cache.len(), 2, "what was known stays");
    assert!(backup.get("c/x").await.unwrap().is_none());
    // Long enough for another look: it does not come to trust by itself.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(*checked.doubt().borrow(), Some(doubt));

    trust(&inner.now(), None).await.unwrap();
    doubted(&checked, false).await;
    assert!(store.status().await.unwrap() > seen, "epochs go on growing");
    until("fresh", || cache.is_fresh()).await;
    assert!(cache.get("new").is_none() && cache.get("old").is_some());
    let standing = keeper.standing();
    until("alive again", || {
        *standing.borrow() == Standing::Alive { generation: 2 }
    })
    .await;
    // Its record says that the meeting is its own, under an epoch that switches would refuse.
    let Claim::Mine(low) = claim(&*store, "m", "a").await.unwrap() else {
        panic!()
    };
    assert!(low < epoch);
    let Claim::Mine(again) = reassert(&*store, "m", "a").await.unwrap() else {
        panic!()
    };
    assert!(again > epoch && again > seen);
    assert!(matches!(
        reassert(&*store, "unknown", "a").await.unwrap(),
        Claim::Mine(_)
    ));
    assert_eq!(reassert(&*store, "unknown", "b").await.unwrap(), {
        let taken = store.get(&keys::owner("unknown")).await.unwrap().unwrap();
        Claim::Taken(
            serde_json::from_slice(&taken.value).unwrap(),
            taken.modified,
        )
    });
}

#[tokio::test]
async fn another_store_is_known_by_its_name_whatever_its_revision() {
    let inner = Arc::new(Changing(Mutex::new(embedded())));
    let checked = CheckedStore::start(Arc::clone(&inner) as Arc<dyn Store>);
    named(&checked).await;
    for (named, at) in [(true, 200), (false, 3_000)] {
        let other = embedded();
        if named {
            commit(&*other, vec![put(&keys::identity(), "another")]).await;
        }
        grown_to(&*other, at).await;
        *inner.0.lock() = Arc::clone(&other);
        assert_eq!(doubted(&checked, true).await, Some(Doubt::Replaced));
        // The word is read before it changes.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        trust(&other, Some(Revision(1_500))).await.unwrap();
        doubted(&checked, false).await;
        assert!(checked.status().await.unwrap() > Revision(1_500));
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_restored_from_a_backup_and_one_that_was_wiped_are_noticed() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    etcd.store().await;
    let config = EtcdConfig {
        timeout_ms: 1_000,
        ..etcd.config()
    };
    let plain: Arc<dyn Store> = Arc::new(EtcdStore::new(&config).unwrap());
    let checked = Arc::new(CheckedStore::start(Arc::clone(&plain)));
    let store: Arc<dyn Store> = Arc::clone(&checked) as Arc<dyn Store>;
    named(&*store).await;
    let backup = tempfile::tempdir().unwrap();
    etcd.kill(0);
    copy(&etcd.data(0), &backup.path().join("m"));
    etcd.restart(0);
    etcd.store().await;
    assert_eq!(
        *checked.doubt().borrow(),
        None,
        "a mere restart is no reason"
    );
    grown_to(&*plain, 300).await;
    let cache = Cache::<Numbered>::start(Arc::clone(&store), "c/".into());
    cache.ready().await;
    let seen = store.status().await.unwrap();
    for wiped in [false, true] {
        etcd.kill(0);
        std::fs::remove_dir_all(etcd.data(0)).unwrap();
        if !wiped {
            copy(&backup.path().join("m"), &etcd.data(0));
        }
        etcd.restart(0);
        let doubt = doubted(&checked, true).await.unwrap();
        assert!(matches!(doubt, Doubt::WentBack { .. }), "{doubt:?}");
        until("old", || !cache.is_fresh()).await;
        etcd.store().await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        trust(&plain, None).await.unwrap();
        doubted(&checked, false).await;
        assert!(store.status().await.unwrap() > seen);
        until("fresh", || cache.is_fresh()).await;
        commit(
            &*store,
            vec![put("c/a", &numbered(if wiped { 1 } else { 2 }))],
        )
        .await;
        until("follows", || {
            cache
                .get("a")
                .is_some_and(|a| a.value.number == 2 - u32::from(wiped))
        })
        .await;
        named(&*store).await;
    }
}
