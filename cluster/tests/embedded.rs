//! The embedded engine: conformance, restarts, and a disk that fails.

mod common;

use std::sync::Arc;
use std::time::Duration;

use cluster::embedded::{EmbeddedError, EmbeddedStore};
use cluster::{Revision, Store, WatchEvent};
use common::{commit, delete, leased, next, put};

#[tokio::test]
async fn in_memory_it_conforms() {
    common::conformance(Arc::new(EmbeddedStore::in_memory().unwrap())).await;
}

#[tokio::test]
async fn on_disk_it_conforms() {
    let directory = tempfile::tempdir().unwrap();
    common::conformance(Arc::new(EmbeddedStore::open(directory.path()).unwrap())).await;
}

#[tokio::test]
async fn a_restart_keeps_everything_but_leases() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    commit(
        &store,
        vec![put("k/kept", "1"), leased("k/leased", "2", lease)],
    )
    .await;
    let last = commit(&store, vec![put("k/gone", ""), put("k/more", "")]).await;
    let before = commit(&store, vec![delete("k/gone")]).await;
    drop(store);

    let store = EmbeddedStore::open(directory.path()).unwrap();
    let range = store.range("k/", 10, None).await.unwrap();
    let keys: Vec<_> = range.entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["k/kept", "k/more"]);
    assert!(
        range.revision > before,
        "revisions go on, and the leased key's end is one"
    );
    assert!(store.keep_alive(lease).await.is_err());
    let mut watch = store.watch("k/", last).await.unwrap();
    assert_eq!(
        next(&mut watch).await,
        WatchEvent::Lost,
        "history does not outlive the process"
    );
    assert!(commit(&store, vec![put("k/new", "")]).await > range.revision);
}

#[tokio::test]
async fn a_second_process_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let _first = EmbeddedStore::open(directory.path()).unwrap();
    assert!(matches!(
        EmbeddedStore::open(directory.path()),
        Err(EmbeddedError::InUse)
    ));
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("store.redb"),
        "not a store, but long enough to look".repeat(500),
    )
    .unwrap();
    assert!(matches!(
        EmbeddedStore::open(directory.path()),
        Err(EmbeddedError::Open(_))
    ));
}

#[tokio::test]
async fn writers_share_commits() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
    let writers = (0..200).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { commit(&*store, vec![put(&format!("g/{n}"), "x")]).await })
    });
    let mut revisions: Vec<Revision> = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        revisions.push(writer.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200, "each has a revision of its own");
    assert_eq!(
        store.range("g/", 1000, None).await.unwrap().entries.len(),
        200
    );
}
