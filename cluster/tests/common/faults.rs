//! Writers that go on while faults happen, and what is demanded of the store afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::{Compare, Store, StoreError, Txn, TxnOutcome};
use tokio::task::JoinSet;

use super::put;

/// What the writers saw.
#[derive(Debug, Default)]
pub struct Report {
    /// Keys whose write was acknowledged.
    pub acknowledged: Vec<String>,
    /// Keys whose write ended as unknown.
    pub unknown: Vec<String>,
    /// Longest time without any acknowledged write.
    pub longest_pause: Duration,
    /// The slowest single request, and how many took longer than a second.
    pub slowest: Duration,
    pub slow: usize,
}

/// Eight writers put new keys while `fault` happens and until three seconds after it. Then nothing acknowledged may be
/// missing, and what ended as unknown is either there or can be written.
pub async fn written_during(
    store: &Arc<dyn Store>,
    prefix: &str,
    fault: impl Future<Output = ()>,
) -> Report {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (store, stop) = (Arc::clone(store), Arc::clone(&stop));
        writers.spawn(write(store, format!("{prefix}/{writer}"), stop));
    }
    fault.await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ended = Instant::now();
    stop.store(true, Ordering::Relaxed);
    let mut report = Report::default();
    let mut times = Vec::new();
    while let Some(written) = writers.join_next().await {
        for (key, begun, ended, outcome) in written.unwrap() {
            let took = ended - begun;
            report.slowest = report.slowest.max(took);
            report.slow += usize::from(took > Duration::from_secs(1));
            match outcome {
                Ok(TxnOutcome::Committed(_)) => {
                    times.push(ended);
                    report.acknowledged.push(key);
                }
                Err(StoreError::Unknown) => report.unknown.push(key),
                Err(StoreError::Unavailable(_)) => {}
                other => panic!("{key}: {other:?}"),
            }
        }
    }
    times.push(ended);
    times.sort_unstable();
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    report.longest_pause = pauses.max().unwrap_or(Duration::MAX);
    check(&**store, &report).await;
    report
}

type Written = (String, Instant, Instant, Result<TxnOutcome, StoreError>);

async fn write(store: Arc<dyn Store>, prefix: String, stop: Arc<AtomicBool>) -> Vec<Written> {
    let mut written = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{prefix}/{n}");
        let begun = Instant::now();
        let outcome = store.txn(new(&key)).await;
        written.push((key, begun, Instant::now(), outcome));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written
}

fn new(key: &str) -> Txn {
    Txn {
        compares: vec![Compare::Absent(key.to_owned())],
        ops: vec![put(key, key)],
    }
}

async fn check(store: &dyn Store, report: &Report) {
    assert!(!report.acknowledged.is_empty());
    for key in &report.acknowledged {
        let entry = store.get(key).await.unwrap();
        assert!(entry.is_some(), "{key} was acknowledged and is lost");
    }
    for key in &report.unknown {
        // Read again, it is clear what happened; where it did not happen, it can.
        if store.get(key).await.unwrap().is_none() {
            assert!(matches!(
                store.txn(new(key)).await,
                Ok(TxnOutcome::Committed(_))
            ));
        }
        assert!(store.get(key).await.unwrap().is_some());
    }
}
