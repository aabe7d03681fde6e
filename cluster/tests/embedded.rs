//! The embedded engine: conformance, restarts, and a disk that fails.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
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

/// Not a test by itself: the process that is killed below.
#[tokio::test]
async fn child_writer() {
    let Some(directory) = std::env::var_os("CHILD_STORE") else {
        return;
    };
    let store = EmbeddedStore::open(directory.as_ref()).unwrap();
    for n in 0.. {
        let (a, b) = (format!("k/{n}/a"), format!("k/{n}/b"));
        commit(&store, vec![put(&a, "1"), put(&b, "1")]).await;
        println!("wrote {n}.");
    }
}

#[tokio::test]
async fn a_killed_process_loses_no_acknowledged_write_and_does_none_by_half() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = directory.path().join(round.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writer", "--nocapture"])
            .env("CHILD_STORE", &store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        while acknowledged < 40 * (round + 1) {
            let line = lines.next().expect("it writes until it is killed").unwrap();
            acknowledged += usize::from(line.starts_with("wrote "));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died.
        acknowledged += lines
            .map_while(Result::ok)
            .filter(|l| l.ends_with('.'))
            .count();
        let store = EmbeddedStore::open(&store).unwrap();
        let found = store.range("k/", 1_000, None).await.unwrap().entries.len();
        assert_eq!(found % 2, 0, "both keys of a transaction or none");
        assert!(
            found / 2 >= acknowledged,
            "{found} keys of {acknowledged} transactions"
        );
        assert!(found / 2 <= acknowledged + 1, "one may have been under way");
    }
}
