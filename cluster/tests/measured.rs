//! What the metrics say of a store and of the leases on it.

use std::sync::Arc;
use std::time::Duration;

use cluster::embedded::EmbeddedStore;
use cluster::records::keys;
use cluster::{
    Compare, LeaseId, LeaseKeeper, LeaseTimes, Measured, Store, StoreError, Txn, TxnOutcome,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Value of the line that begins so; 0 where there is none.
fn value(handle: &PrometheusHandle, line: &str) -> f64 {
    let text = handle.render();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    found.map_or(0.0, |n| n.trim().parse().unwrap())
}

async fn reaches(handle: &PrometheusHandle, line: &str, wanted: f64) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(10);
    while value(handle, line) < wanted {
        assert!(
            tokio::time::Instant::now() < limit,
            "{line} in {}",
            handle.render()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn measure(handle: &PrometheusHandle) {
    let folder = tempfile::tempdir().unwrap();
    let engine: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
    let store = Measured::around(engine);
    assert_eq!(store.get("a").await, Ok(None));
    assert_eq!(
        value(handle, "rostrum_store_seconds_count{operation=\"get\"}"),
        1.0
    );
    let demanding = Txn {
        compares: vec![Compare::Present("a".into())],
        ops: Vec::new(),
    };
    assert_eq!(store.txn(demanding).await, Ok(TxnOutcome::Conflict));
    assert_eq!(value(handle, "rostrum_store_conflicts_total"), 1.0);
    let gone = store.keep_alive(LeaseId(77)).await;
    assert_eq!(gone, Err(StoreError::LeaseExpired));
    let expired = "rostrum_store_errors_total{operation=\"keep-alive\",reason=\"lease-expired\"}";
    assert_eq!(value(handle, expired), 1.0);

    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put(&keys::member("m"), "{}").await.unwrap();
    let renewed = "rostrum_lease_renewals_total{kind=\"member\",outcome=\"done\"}";
    reaches(handle, renewed, 1.0).await;
    assert_eq!(value(handle, "rostrum_lease_alive{kind=\"member\"}"), 1.0);
    let (_, lease) = store
        .leased(&keys::member("m"))
        .await
        .unwrap()
        .expect("bound");
    assert_eq!(
        Some(lease),
        keeper.lease(),
        "who watches over it can end it"
    );
    // another takes it for dead
    store.revoke(keeper.lease().expect("held")).await.unwrap();
    reaches(handle, "rostrum_lease_losses_total{kind=\"member\"}", 1.0).await;
    reaches(handle, "rostrum_lease_alive{kind=\"member\"}", 1.0).await;
    keeper.stop().await;
    assert_eq!(value(handle, "rostrum_lease_alive{kind=\"member\"}"), 0.0);
    assert_eq!(
        value(handle, "rostrum_lease_losses_total{kind=\"member\"}"),
        1.0
    );
}

#[test]
fn operations_and_leases_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(measure(&handle));
    });
}
