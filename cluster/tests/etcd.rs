//! The etcd engine, against Debian's etcd.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::etcd::EtcdStore;
use cluster::{
    EtcdConfig, LeaseKeeper, LeaseTimes, Revision, Standing, Store, StoreError, Txn, WatchEvent,
};
use common::{Etcd, commit, next, put};

#[tokio::test]
async fn it_conforms() {
    let Some(etcd) = Etcd::start() else { return };
    common::conformance(etcd.store().await).await;
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_lost() {
    let Some(etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    let first = commit(&*store, vec![put("w/a", "1")]).await;
    let last = commit(&*store, vec![put("w/a", "2")]).await;
    let mut client = etcd_client::Client::connect([&etcd.url], None)
        .await
        .unwrap();
    client
        .compact(i64::try_from(last.0).unwrap(), None)
        .await
        .unwrap();
    let mut watch = store.watch("w/", Revision(first.0 - 1)).await.unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Lost);
    assert_eq!(watch.recv().await, None);
    let mut watch = store.watch("w/", last).await.unwrap();
    commit(&*store, vec![put("w/a", "3")]).await;
    assert!(matches!(next(&mut watch).await, WatchEvent::Put(_)));
}

#[tokio::test]
async fn a_dead_endpoint_does_not_matter_while_another_lives() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.store().await;
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = held.local_addr().unwrap();
    let endpoints = vec![format!("http://{dead}"), etcd.url.clone()];
    let store = EtcdStore::new(&EtcdConfig {
        endpoints,
        ..EtcdConfig::default()
    })
    .unwrap();
    for n in 0..5 {
        commit(&store, vec![put("d/a", &n.to_string())]).await;
    }
    assert!(store.get("d/a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_stopped_etcd_is_unavailable_to_reads_and_unknown_to_writes_and_watches_go_on_after() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.store().await;
    let config = EtcdConfig {
        endpoints: vec![etcd.url.clone()],
        timeout_ms: 700,
        ..EtcdConfig::default()
    };
    let store = EtcdStore::new(&config).unwrap();
    let from = commit(&store, vec![put("s/a", "1")]).await;
    let mut watch = store.watch("s/", from).await.unwrap();
    etcd.signal("-STOP");
    assert!(matches!(
        store.get("s/a").await,
        Err(StoreError::Unavailable(_))
    ));
    let write = Txn {
        compares: Vec::new(),
        ops: vec![put("s/a", "2")],
    };
    assert_eq!(store.txn(write).await, Err(StoreError::Unknown));
    etcd.signal("-CONT");
    let again = tokio::time::timeout(Duration::from_secs(10), async {
        while store.status().await.is_err() {}
    });
    again.await.expect("etcd answers again");
    let last = commit(&store, vec![put("s/a", "3")]).await;
    // The unknown write may or may not have been done; the last one certainly was, and is told.
    loop {
        let WatchEvent::Put(entry) = next(&mut watch).await else {
            panic!("only puts happened")
        };
        if entry.modified == last {
            assert_eq!(entry.value.as_ref(), b"3");
            break;
        }
    }
}

#[tokio::test]
async fn a_refused_write_is_not_called_unknown() {
    // bound and not listening: refused for as long as it is held, and nobody else's
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = held.local_addr().unwrap();
    let config = EtcdConfig {
        endpoints: vec![format!("http://{dead}")],
        timeout_ms: 300,
        ..EtcdConfig::default()
    };
    let store = EtcdStore::new(&config).unwrap();
    let write = Txn {
        compares: Vec::new(),
        ops: vec![put("r/a", "1")],
    };
    assert!(matches!(
        store.txn(write).await,
        Err(StoreError::Unavailable(_))
    ));
}

#[tokio::test]
async fn a_dead_member_is_known_within_three_seconds() {
    let Some(etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put("m/a", "1").await.unwrap();
    let from = store.status().await.unwrap();
    let mut watch = store.watch("m/", from).await.unwrap();
    // Kept beyond its time to live.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!keeper.is_fenced());
    assert!(store.get("m/a").await.unwrap().is_some());
    drop(keeper);
    let died = Instant::now();
    assert!(matches!(next(&mut watch).await, WatchEvent::Delete { key, .. } if key == "m/a"));
    assert!(
        died.elapsed() < Duration::from_secs(3),
        "{:?}",
        died.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_with_its_own_idea_of_pings_is_borne() {
    let flags = ["--heartbeat-interval=50", "--election-timeout=500"];
    let Some(etcd) = Etcd::members(1, "http", &flags, &[]) else {
        return;
    };
    let store = etcd.store().await;
    let from = commit(&*store, vec![put("w/a", "1")]).await;
    let mut watch = store.watch("w/", from).await.unwrap();
    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put("m/a", "1").await.unwrap();
    // An idle watch: the connection is closed for its pings, again and again.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let standing = *keeper.standing().borrow();
    assert_eq!(standing, Standing::Alive { generation: 1 });
    for n in 0..200 {
        commit(&*store, vec![put("g/a", &n.to_string())]).await;
    }
    let last = commit(&*store, vec![put("w/a", "2")]).await;
    assert!(matches!(next(&mut watch).await, WatchEvent::Put(entry) if entry.modified == last));
}
