//! Orders to drain: an operator writes one, the process it is for follows it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;

use crate::records::{DrainOrder, Kind, RECORD_VERSION, keys};
use crate::registry::Cache;
use crate::store::{Op, Store, StoreError, Txn};

/// Orders one to drain, until [`undrain`].
///
/// # Errors
/// The store's.
pub async fn drain(store: &dyn Store, kind: Kind, id: &str) -> Result<(), StoreError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let order = DrainOrder {
        version: RECORD_VERSION,
        since: since.map_or(0, |s| u64::try_from(s.as_millis()).unwrap_or(u64::MAX)),
    };
    let value = serde_json::to_vec(&order).map_err(|e| StoreError::Refused(e.to_string()))?;
    let put = Op::Put(keys::drain(kind, id), Bytes::from(value), None);
    commit(store, put).await
}

/// Takes the order back; without one nothing happens.
///
/// # Errors
/// The store's.
pub async fn undrain(store: &dyn Store, kind: Kind, id: &str) -> Result<(), StoreError> {
    commit(store, Op::Delete(keys::drain(kind, id))).await
}

async fn commit(store: &dyn Store, op: Op) -> Result<(), StoreError> {
    let txn = Txn {
        compares: Vec::new(),
        ops: vec![op],
    };
    store.txn(txn).await.map(drop)
}

/// Whether one is ordered to drain; what was last known stands while the store is away. The task behind it ends when
/// the last receiver is gone.
#[must_use]
pub fn follow(store: Arc<dyn Store>, kind: Kind, id: &str) -> watch::Receiver<bool> {
    let orders = Cache::<DrainOrder>::start(store, keys::drains(kind));
    let (ordered, told) = watch::channel(false);
    let id = id.to_owned();
    tokio::spawn(async move {
        let mut changes = orders.subscribe();
        let follow = async {
            loop {
                let now = orders.get(&id).is_some();
                ordered.send_if_modified(|was| std::mem::replace(was, now) != now);
                if changes.next().await.is_none() {
                    return;
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = ordered.closed() => {}
        }
    });
    told
}
