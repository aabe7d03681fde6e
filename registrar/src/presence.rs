//! The record that tells the cluster of a living registrar, and through which Route its members send requests.

use std::sync::Arc;
use std::time::Duration;

use cluster::records::{RegistrarRecord, keys};
use cluster::{LeaseId, Op, Store, StoreError, Txn};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the record outlives a registrar that was killed. Nothing waits for it, so it need not be short.
const LEASE: Duration = Duration::from_secs(6);

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);

async fn write(
    store: &dyn Store,
    record: &RegistrarRecord,
    lease: LeaseId,
) -> Result<(), StoreError> {
    let value = serde_json::to_vec(record).map_err(|e| StoreError::Refused(e.to_string()))?;
    let op = Op::Put(keys::registrar(&record.id), value.into(), Some(lease));
    let txn = Txn {
        compares: Vec::new(),
        ops: vec![op],
    };
    store.txn(txn).await.map(|_| ())
}

/// Keeps the record there until stopped, whatever happens to lease or store; then takes it away.
pub(crate) async fn announce(
    store: Arc<dyn Store>,
    mut record: RegistrarRecord,
    mut draining: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut lease: Option<LeaseId> = None;
    let mut tick = tokio::time::interval(RENEW);
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => false,
            Ok(()) = draining.changed() => true,
        };
        record.draining = *draining.borrow_and_update();
        let kept = match lease {
            Some(lease) if changed => write(store.as_ref(), &record, lease).await,
            Some(lease) => store.keep_alive(lease).await,
            None => match store.grant(LEASE).await {
                Ok(granted) => {
                    lease = Some(granted);
                    write(store.as_ref(), &record, granted).await
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "registrar's record not renewed");
            lease = None;
        }
    }
    if let Some(lease) = lease {
        let _ = store.revoke(lease).await;
    }
}
