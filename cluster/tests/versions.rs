//! A build reads the records of the one before it and the one after it, and leaves alone what is later.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::embedded::EmbeddedStore;
use cluster::ownership::{self, Claim};
use cluster::records::{
    DrainOrder, Member, Owner, RECORD_VERSION, RegistrarRecord, SwitchRecord, keys, read,
};
use cluster::{Cache, Op, Store, StoreError, Txn};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// As they were written first; these stay as they are when records grow.
fn first() -> [(&'static str, Value); 5] {
    [
        (
            "member",
            json!({"version": 1, "id": "a", "sip": [["udp", "10.0.0.1:5070"]], "api": "", "load": 12, "draining": false}),
        ),
        (
            "switch",
            json!({"version": 1, "id": "a", "instance": "0123", "control": "https://10.0.0.1:7070", "load": 12,
                   "draining": true, "fingerprints": [["sha-256", "00ff"]]}),
        ),
        (
            "registrar",
            json!({"version": 1, "id": "a", "routes": ["sip:x@10.0.0.1;lr"], "draining": false}),
        ),
        ("owner", json!({"version": 1, "member": "a"})),
        (
            "drain",
            json!({"version": 1, "since": 1_700_000_000_000_u64}),
        ),
    ]
}

/// Reads and writes it again, as this build does.
fn again(kind: &str, value: &Value) -> Result<Value, serde_json::Error> {
    fn through<T: DeserializeOwned + serde::Serialize>(
        bytes: &[u8],
    ) -> Result<Value, serde_json::Error> {
        serde_json::to_value(read::<T>(bytes)?)
    }
    let bytes = serde_json::to_vec(value)?;
    match kind {
        "member" => through::<Member>(&bytes),
        "switch" => through::<SwitchRecord>(&bytes),
        "registrar" => through::<RegistrarRecord>(&bytes),
        "owner" => through::<Owner>(&bytes),
        _ => through::<DrainOrder>(&bytes),
    }
}

#[test]
fn records_of_the_first_version_are_read_and_all_they_said_is_written_still() {
    for (kind, record) in first() {
        let written = again(kind, &record).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let fields = record.as_object().unwrap();
        // who knows only these reads the same from what is written today
        for (name, value) in fields {
            assert_eq!(written[name], *value, "{kind}: {name}");
        }
    }
}

#[test]
fn what_the_next_version_adds_is_skipped_and_what_is_later_is_not_read() {
    for (kind, record) in first() {
        let mut next = record.clone();
        next["version"] = json!(RECORD_VERSION + 1);
        next["added"] = json!({"deep": [1, 2, 3]});
        let read = again(kind, &next).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(read["added"], Value::Null);
        next["version"] = json!(RECORD_VERSION + 2);
        let error = again(kind, &next).expect_err(kind).to_string();
        assert!(error.contains("this build reads up to"), "{error}");
    }
}

async fn put(store: &dyn Store, key: String, value: &Value) {
    let value = Bytes::from(serde_json::to_vec(value).unwrap());
    let txn = Txn {
        compares: Vec::new(),
        ops: vec![Op::Put(key, value, None)],
    };
    store.txn(txn).await.unwrap();
}

#[tokio::test]
async fn an_owner_that_is_not_understood_keeps_its_meeting() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
    let later = json!({"version": RECORD_VERSION + 2, "member": "a", "until": 5});
    put(&*store, keys::owner("weekly"), &later).await;
    let before = store.get(&keys::owner("weekly")).await.unwrap();
    let refused = ownership::claim(&*store, "weekly", "b").await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(store.get(&keys::owner("weekly")).await.unwrap(), before);
    // one of the next version is an owner like any other
    let next = json!({"version": RECORD_VERSION + 1, "member": "a", "until": 5});
    put(&*store, keys::owner("daily"), &next).await;
    let taken = ownership::claim(&*store, "daily", "b").await.unwrap();
    assert!(matches!(taken, Claim::Taken(owner, _) if owner.member == "a"));
}

#[tokio::test]
async fn caches_show_what_is_understood_and_orders_that_are_not_are_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
    let record = |id: &str, version: u32| {
        let [_, (_, mut record), ..] = first();
        record["version"] = json!(version);
        record["id"] = json!(id);
        record
    };
    for (id, version) in [
        ("a", 1),
        ("b", RECORD_VERSION + 1),
        ("c", RECORD_VERSION + 2),
    ] {
        put(&*store, keys::switch(id), &record(id, version)).await;
    }
    let cache = Cache::switches(Arc::clone(&store));
    cache.ready().await;
    let known: Vec<String> = cache.snapshot().into_iter().map(|(id, _)| id).collect();
    assert_eq!(known, ["a", "b"]);

    let kind = cluster::records::Kind::Switch;
    let mut ordered = cluster::drain::follow(Arc::clone(&store), kind, "a");
    let order = |version: u32| json!({"version": version, "since": 1, "mode": "otherwise"});
    put(&*store, keys::drain(kind, "a"), &order(RECORD_VERSION + 2)).await;
    put(&*store, keys::drain(kind, "a-2"), &order(1)).await;
    let soon = Duration::from_millis(300);
    let told = tokio::time::timeout(soon, ordered.wait_for(|on| *on))
        .await
        .is_ok();
    assert!(!told, "neither is an order for it");
    cluster::drain::drain(&*store, kind, "a").await.unwrap();
    let limit = Duration::from_secs(10);
    let wait = async |ordered: &mut tokio::sync::watch::Receiver<bool>, wanted: bool| {
        let told = tokio::time::timeout(limit, ordered.wait_for(|on| *on == wanted)).await;
        told.expect("in time").map(|_| ()).expect("followed");
    };
    wait(&mut ordered, true).await;
    cluster::drain::undrain(&*store, kind, "a").await.unwrap();
    wait(&mut ordered, false).await;
}
