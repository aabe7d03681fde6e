//! What every engine must do, and the engines to try it on.
#![allow(dead_code)]

mod etcd;
pub mod faults;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{
    Compare, LeaseId, Op, Revision, Store, StoreError, Txn, TxnOutcome, Watch, WatchEvent,
};

#[allow(unused_imports)]
pub use etcd::Etcd;

/// A record that a cache understands.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Numbered {
    pub number: u32,
}

/// Its text.
pub fn numbered(number: u32) -> String {
    format!("{{\"version\":1,\"number\":{number}}}")
}

pub fn put(key: &str, value: &str) -> Op {
    Op::Put(key.into(), Bytes::copy_from_slice(value.as_bytes()), None)
}

pub fn leased(key: &str, value: &str, lease: LeaseId) -> Op {
    Op::Put(
        key.into(),
        Bytes::copy_from_slice(value.as_bytes()),
        Some(lease),
    )
}

pub fn delete(key: &str) -> Op {
    Op::Delete(key.into())
}

pub async fn change(store: &dyn Store, compares: Vec<Compare>, ops: Vec<Op>) -> TxnOutcome {
    store.txn(Txn { compares, ops }).await.unwrap()
}

pub async fn commit(store: &dyn Store, ops: Vec<Op>) -> Revision {
    match change(store, Vec::new(), ops).await {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict => panic!("conflict without a condition"),
    }
}

/// The next event that is not mere progress.
pub async fn next(watch: &mut Watch) -> WatchEvent {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.recv()).await;
        match event
            .expect("an event within ten seconds")
            .expect("the watch goes on")
        {
            WatchEvent::Progress(_) => {}
            event => return event,
        }
    }
}

/// The suite: every engine passes it.
pub async fn conformance(store: Arc<dyn Store>) {
    let store = &*store;
    values_and_revisions(store).await;
    conditions(store).await;
    pages(store).await;
    watches(store).await;
    leases(store).await;
    bounds(store).await;
    concurrent_writers_lose_nothing(store).await;
}

async fn values_and_revisions(store: &dyn Store) {
    assert_eq!(store.get("v/none").await.unwrap(), None);
    let before = store.status().await.unwrap();
    let first = commit(store, vec![put("v/a", "1"), put("v/b", "")]).await;
    assert!(first > before);
    let a = store.get("v/a").await.unwrap().unwrap();
    assert_eq!(
        (a.key.as_str(), a.value.as_ref(), a.modified),
        ("v/a", b"1".as_ref(), first)
    );
    let b = store.get("v/b").await.unwrap().unwrap();
    assert_eq!(
        (b.value.len(), b.modified),
        (0, first),
        "one revision for all puts of a transaction"
    );
    let second = commit(store, vec![put("v/a", "2")]).await;
    assert!(second > first);
    assert_eq!(
        store.get("v/b").await.unwrap().unwrap().modified,
        first,
        "others keep theirs"
    );
    assert_eq!(
        commit(store, vec![delete("v/none")]).await,
        second,
        "nothing to delete is no change"
    );
    assert!(commit(store, vec![delete("v/a")]).await > second);
    assert_eq!(store.get("v/a").await.unwrap(), None);
    assert!(store.status().await.unwrap() > second);
}

async fn conditions(store: &dyn Store) {
    let absent = |k: &str| Compare::Absent(k.into());
    let present = |k: &str| Compare::Present(k.into());
    let conflict = TxnOutcome::Conflict;
    assert_eq!(
        change(store, vec![present("c/a")], vec![put("c/b", "")]).await,
        conflict
    );
    assert_eq!(
        store.get("c/b").await.unwrap(),
        None,
        "a conflict changes nothing"
    );
    let done = change(store, vec![absent("c/a")], vec![put("c/a", "1")]).await;
    let TxnOutcome::Committed(at) = done else {
        panic!("{done:?}")
    };
    assert_eq!(
        change(store, vec![absent("c/a")], vec![put("c/a", "2")]).await,
        conflict
    );
    let unchanged = Compare::Unchanged("c/a".into(), at);
    let all = vec![unchanged.clone(), present("c/a"), absent("c/x")];
    assert!(matches!(
        change(store, all.clone(), vec![put("c/a", "2")]).await,
        TxnOutcome::Committed(_)
    ));
    assert_eq!(
        change(store, all, vec![put("c/a", "3")]).await,
        conflict,
        "it has changed"
    );
    let value = store.get("c/a").await.unwrap().unwrap().value;
    assert_eq!(value.as_ref(), b"2");
    commit(store, vec![delete("c/a")]).await;
    assert_eq!(
        change(store, vec![unchanged], vec![put("c/a", "4")]).await,
        conflict,
        "it is gone"
    );
    let again = commit(store, vec![put("c/a", "5")]).await;
    assert!(again > at, "a key that comes back has a new revision");
}

async fn pages(store: &dyn Store) {
    let keys: Vec<String> = (0..25).map(|n| format!("p/{n:02}")).collect();
    commit(store, keys.iter().map(|k| put(k, k)).collect()).await;
    commit(store, vec![put("p", ""), put("p0", ""), put("q/1", "")]).await;
    let mut found = Vec::new();
    let mut after = None;
    for expected in [10, 10, 5] {
        let page = store.range("p/", 10, after.as_deref()).await.unwrap();
        assert_eq!(page.entries.len(), expected);
        assert_eq!(page.more, expected == 10);
        assert_eq!(page.revision, store.status().await.unwrap());
        found.extend(page.entries.into_iter().map(|e| e.key));
        after = found.last().cloned();
    }
    assert_eq!(found, keys, "in key order, each once, and nothing else");
    let none = store.range("p/", 10, Some("p/24")).await.unwrap();
    assert!(none.entries.is_empty() && !none.more);
    assert!(
        store
            .range("p/", 10, Some("z"))
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert_eq!(
        store
            .range("p/", 10, Some("a"))
            .await
            .unwrap()
            .entries
            .len(),
        10
    );
    assert_eq!(store.range("p/", 25, None).await.unwrap().entries.len(), 25);
    assert!(!store.range("p/", 25, None).await.unwrap().more);
}

async fn watches(store: &dyn Store) {
    let r1 = commit(store, vec![put("w/a", "1")]).await;
    let r2 = commit(store, vec![put("w/a", "2"), put("x/a", "")]).await;
    let mut early = store.watch("w/", r1).await.unwrap();
    let mut all = store.watch("w/", Revision(r1.0 - 1)).await.unwrap();
    let r3 = commit(store, vec![delete("w/a")]).await;
    let r4 = commit(store, vec![put("w/b", "3")]).await;
    let put = |key: &str, value: &str, at| {
        WatchEvent::Put(cluster::Entry {
            key: key.into(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            modified: at,
        })
    };
    assert_eq!(next(&mut all).await, put("w/a", "1", r1));
    for watch in [&mut early, &mut all] {
        assert_eq!(
            next(watch).await,
            put("w/a", "2", r2),
            "only what came after `from`"
        );
        let previous = Some(Bytes::from_static(b"2"));
        let gone = WatchEvent::Delete {
            key: "w/a".into(),
            previous,
            revision: r3,
        };
        assert_eq!(next(watch).await, gone);
        assert_eq!(next(watch).await, put("w/b", "3", r4));
    }
}

async fn leases(store: &dyn Store) {
    let ttl = Duration::from_secs(1);
    let from = store.status().await.unwrap();
    let mut watch = store.watch("l/", from).await.unwrap();
    let revoked = store.grant(ttl).await.unwrap();
    commit(
        store,
        vec![leased("l/r", "", revoked), leased("l/kept", "", revoked)],
    )
    .await;
    commit(store, vec![put("l/kept", "now without a lease")]).await;
    store.revoke(revoked).await.unwrap();
    store.revoke(revoked).await.unwrap();
    assert_eq!(
        store.keep_alive(revoked).await,
        Err(StoreError::LeaseExpired)
    );
    let txn = Txn {
        compares: Vec::new(),
        ops: vec![leased("l/no", "", revoked)],
    };
    assert_eq!(store.txn(txn).await, Err(StoreError::LeaseExpired));
    assert_eq!(store.get("l/r").await.unwrap(), None);
    assert!(store.get("l/kept").await.unwrap().is_some());
    for _ in 0..3 {
        assert!(matches!(next(&mut watch).await, WatchEvent::Put(_)));
    }
    assert!(matches!(next(&mut watch).await, WatchEvent::Delete { key, .. } if key == "l/r"));

    let (renewed, left) = (
        store.grant(ttl).await.unwrap(),
        store.grant(ttl).await.unwrap(),
    );
    assert_ne!(renewed, left);
    commit(store, vec![leased("l/renewed", "", renewed)]).await;
    commit(store, vec![leased("l/left", "", left)]).await;
    assert!(matches!(next(&mut watch).await, WatchEvent::Put(_)));
    assert!(matches!(next(&mut watch).await, WatchEvent::Put(_)));
    // Renewing one until the watch says that the other is gone.
    let ended = loop {
        tokio::select! {
            event = next(&mut watch) => break event,
            () = tokio::time::sleep(Duration::from_millis(200)) => store.keep_alive(renewed).await.unwrap(),
        }
    };
    assert!(matches!(ended, WatchEvent::Delete { key, .. } if key == "l/left"));
    assert_eq!(store.keep_alive(left).await, Err(StoreError::LeaseExpired));
    let (entry, holder) = store.leased("l/renewed").await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), holder), ("l/renewed", renewed));
    assert_eq!(store.leased("l/kept").await.unwrap(), None, "unbound");
    assert_eq!(store.leased("l/none").await.unwrap(), None);
    store.revoke(renewed).await.unwrap();
}

async fn bounds(store: &dyn Store) {
    let refused =
        |outcome: Result<TxnOutcome, StoreError>| matches!(outcome, Err(StoreError::Refused(_)));
    let txn = |ops| {
        store.txn(Txn {
            compares: Vec::new(),
            ops,
        })
    };
    let many = |n: usize| {
        (0..n)
            .map(|n| put(&format!("b/{n}"), "x"))
            .collect::<Vec<_>>()
    };
    assert!(txn(many(128)).await.is_ok());
    assert!(refused(txn(many(129)).await));
    assert!(refused(txn(vec![put("b/1", "x"), delete("b/1")]).await));
    assert!(refused(txn(vec![put("", "x")]).await));
    assert!(refused(txn(vec![put(&"k".repeat(1025), "x")]).await));
    assert!(
        txn(vec![put("b/large", &"x".repeat(1_000_000))])
            .await
            .is_ok()
    );
    assert_eq!(
        store.get("b/large").await.unwrap().unwrap().value.len(),
        1_000_000
    );
    assert!(refused(
        txn(vec![put("b/large", &"x".repeat(1_100_000))]).await
    ));
}

/// Eight writers count up one number, each by compare and swap.
async fn concurrent_writers_lose_nothing(store: &dyn Store) {
    commit(store, vec![put("n/count", "0")]).await;
    let one = || async {
        for _ in 0..10 {
            loop {
                let entry = store.get("n/count").await.unwrap().unwrap();
                let n: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let unchanged = Compare::Unchanged("n/count".into(), entry.modified);
                let next = vec![put("n/count", &(n + 1).to_string())];
                if change(store, vec![unchanged], next).await != TxnOutcome::Conflict {
                    break;
                }
            }
        }
    };
    tokio::join!(one(), one(), one(), one(), one(), one(), one(), one());
    assert_eq!(
        store.get("n/count").await.unwrap().unwrap().value.as_ref(),
        b"80"
    );
}
