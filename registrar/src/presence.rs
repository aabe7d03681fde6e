//! The record that tells the cluster of a living registrar, and through which Route its members send requests.

use std::sync::Arc;

use cluster::records::{RegistrarRecord, keys};
use cluster::{LeaseKeeper, LeaseTimes, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Keeps the record there until stopped, whatever happens to lease or store; then takes it away.
pub(crate) async fn announce(
    store: Arc<dyn Store>,
    mut record: RegistrarRecord,
    mut draining: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let keeper = LeaseKeeper::start(store, LeaseTimes::default());
    let key = keys::registrar(&record.id);
    loop {
        record.draining = *draining.borrow_and_update();
        let value =
            serde_json::to_vec(&record).expect("a struct of strings and numbers always serialises");
        let written = tokio::select! {
            () = stop.cancelled() => break,
            written = keeper.put(&key, value) => written,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "registrar's record not written");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = draining.changed() => {}
        }
    }
    keeper.stop().await;
}
