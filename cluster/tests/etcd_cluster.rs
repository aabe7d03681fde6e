//! The etcd engine on three members, of which some die, stop, or come back.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::etcd::EtcdStore;
use cluster::{Cache, EtcdConfig, LeaseKeeper, LeaseTimes, Store, WatchEvent};
use common::faults::{Report, written_during};
use common::{Etcd, Numbered, commit, next, numbered, put};

/// Writes must go on this soon after the death of a member: etcd's own election takes up to two of its time-outs of
/// 500 ms, and this machine is shared.
const GOES_ON: Duration = Duration::from_millis(2_500);

fn told(what: &str, report: &Report) {
    println!(
        "{what}: {} acknowledged, {} unknown, longest pause {:?}, slowest request {:?}, {} slow",
        report.acknowledged.len(),
        report.unknown.len(),
        report.longest_pause,
        report.slowest,
        report.slow
    );
    assert!(report.longest_pause < GOES_ON, "{what}: {report:?}");
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_conform() {
    let Some(etcd) = Etcd::start_three() else {
        return;
    };
    common::conformance(etcd.store().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_members_cost_no_acknowledged_write_and_come_back() {
    let Some(mut etcd) = Etcd::start_three() else {
        return;
    };
    etcd.store().await;
    let leader = etcd.leader().await;
    let store = etcd.store_with(&etcd.config_from(leader)).await;
    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put("m/a", "1").await.unwrap();

    let report = written_during(&store, "k/leader", async {
        pause(500).await;
        etcd.kill(leader);
    })
    .await;
    told("leader killed", &report);

    let follower = (0..3).find(|n| *n != leader).unwrap();
    let report = written_during(&store, "k/restart", async {
        etcd.restart(leader);
        pause(2_000).await;
        // Without the one that came back there would be no quorum now.
        etcd.kill(follower);
    })
    .await;
    told("one back, another killed", &report);

    let mut standing = keeper.standing();
    let alive = standing.wait_for(|s| *s != cluster::Standing::Fenced);
    let alive = tokio::time::timeout(Duration::from_secs(5), alive).await;
    alive
        .expect("the lease lives, or is granted again")
        .unwrap();
    assert!(store.get("m/a").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_follower_that_we_talk_to_is_left() {
    let Some(mut etcd) = Etcd::start_three() else {
        return;
    };
    etcd.store().await;
    let follower = (etcd.leader().await + 1) % 3;
    let store = etcd.store_with(&etcd.config_from(follower)).await;
    let from = commit(&*store, vec![put("w/a", "1")]).await;
    let mut watch = store.watch("w/", from).await.unwrap();
    let report = written_during(&store, "k/follower", async {
        pause(500).await;
        etcd.kill(follower);
    })
    .await;
    told("follower killed", &report);
    assert!(
        report.longest_pause < Duration::from_millis(1_000),
        "nothing was elected"
    );
    commit(&*store, vec![put("w/a", "2")]).await;
    let WatchEvent::Put(entry) = next(&mut watch).await else {
        panic!("resumed elsewhere")
    };
    assert_eq!(entry.value.as_ref(), b"2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_member_costs_each_caller_one_slow_request() {
    let Some(etcd) = Etcd::start_three() else {
        return;
    };
    etcd.store().await;
    for name in ["follower", "leader"] {
        let leader = etcd.leader().await;
        let victim = if name == "leader" {
            leader
        } else {
            (leader + 1) % 3
        };
        let store = etcd.store_with(&etcd.config_from(victim)).await;
        let mut watch = {
            let from = commit(&*store, vec![put(&format!("w/{name}"), "1")]).await;
            store.watch("w/", from).await.unwrap()
        };
        let report = written_during(&store, &format!("s/{name}"), async {
            pause(500).await;
            etcd.signal_to(victim, "-STOP");
            pause(4_000).await;
        })
        .await;
        told(&format!("{name} stopped"), &report);
        assert!(report.slow <= 8, "one a writer: {report:?}");
        let changed = Instant::now();
        commit(&*store, vec![put(&format!("w/{name}"), "2")]).await;
        assert!(matches!(next(&mut watch).await, WatchEvent::Put(_)));
        assert!(
            changed.elapsed() < Duration::from_millis(500),
            "resumed elsewhere long ago"
        );
        etcd.signal_to(victim, "-CONT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_quorum_ends_its_watches_and_caches_say_that_they_are_old() {
    let Some(etcd) = Etcd::start_three() else {
        return;
    };
    etcd.store().await;
    let config = EtcdConfig {
        timeout_ms: 1_000,
        ..etcd.config_of(0)
    };
    let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&config).unwrap());
    let from = commit(&*store, vec![put("q/a", &numbered(1))]).await;
    let cache = Cache::<Numbered>::start(Arc::clone(&store), "q/".into());
    cache.ready().await;
    let mut watch = store.watch("q/", from).await.unwrap();
    etcd.signal_to(1, "-STOP");
    etcd.signal_to(2, "-STOP");
    let cut = Instant::now();
    assert_eq!(next(&mut watch).await, WatchEvent::Lost);
    println!("lost after {:?}", cut.elapsed());
    assert!(cut.elapsed() < Duration::from_secs(9));
    fresh(&cache, false).await;
    assert_eq!(
        cache.get("a").map(|a| a.value.number),
        Some(1),
        "the last known state stays"
    );
    etcd.signal_to(1, "-CONT");
    etcd.signal_to(2, "-CONT");
    let others = etcd.store_with(&etcd.config_of(1)).await;
    commit(&*others, vec![put("q/a", &numbered(2))]).await;
    fresh(&cache, true).await;
    let changed = tokio::time::timeout(Duration::from_secs(5), async {
        while cache.get("a").is_none_or(|a| a.value.number != 2) {
            pause(10).await;
        }
    });
    changed.await.expect("it follows again");
}

async fn fresh<T>(cache: &Cache<T>, wanted: bool) {
    let becomes = async {
        while cache.is_fresh() != wanted {
            pause(10).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), becomes).await;
    assert!(in_time.is_ok(), "fresh should become {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_during_an_outage_makes_the_cache_read_again() {
    let Some(etcd) = Etcd::start_three() else {
        return;
    };
    etcd.store().await;
    let leader = etcd.leader().await;
    let ours = (leader + 1) % 3;
    let store = etcd.store_with(&etcd.config_of(ours)).await;
    commit(
        &*store,
        vec![put("c/gone", &numbered(1)), put("c/kept", &numbered(1))],
    )
    .await;
    let cache = Cache::<Numbered>::start(Arc::clone(&store), "c/".into());
    cache.ready().await;
    assert_eq!(cache.len(), 2);
    // While our member sleeps, the history it would need is deleted.
    etcd.signal_to(ours, "-STOP");
    let others = etcd.store_with(&etcd.config_from(leader)).await;
    commit(
        &*others,
        vec![common::delete("c/gone"), put("c/kept", &numbered(2))],
    )
    .await;
    let last = commit(&*others, vec![put("c/new", &numbered(3))]).await;
    let url = &etcd.config_of(leader).endpoints[0];
    let mut client = etcd_client::Client::connect([url], None).await.unwrap();
    client
        .compact(i64::try_from(last.0).unwrap(), None)
        .await
        .unwrap();
    fresh(&cache, false).await;
    etcd.signal_to(ours, "-CONT");
    fresh(&cache, true).await;
    let caught_up = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let now: Vec<_> = cache
                .snapshot()
                .into_iter()
                .map(|(key, c)| (key, c.value.number))
                .collect();
            if now == [("kept".to_owned(), 2), ("new".to_owned(), 3)] {
                break;
            }
            pause(10).await;
        }
    });
    caught_up.await.expect("no key too many, none missing");
}
