//! The switch's record in the cluster: under a lease, with its load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::lease::{count_loss, count_renewal, tell_alive};
use cluster::records::{RECORD_VERSION, SwitchRecord, keys};
use cluster::{LeaseId, Op, Store, StoreError, Txn};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::control_server::State;

/// How long the record outlives a dead switch. Raising it makes failover later, lowering it costs store traffic.
const TTL: Duration = Duration::from_secs(1);
/// Kind of the record, in metrics.
const KIND: &str = "switch";
/// Between renewals: three may be lost.
const KEEP_ALIVE: Duration = Duration::from_millis(300);

struct Registration {
    id: String,
    control: String,
    state: Arc<State>,
    store: Arc<dyn Store>,
    lease: LeaseId,
    /// (load per mille, draining) last written; `None`: the record must be written anew.
    written: Option<(u32, bool)>,
    /// When the lease was last known to live.
    alive: Instant,
}

/// Registers, and keeps the record until `stop`; `control` is the URL of the control server.
pub async fn start(
    id: &str,
    control: String,
    state: Arc<State>,
    store: Arc<dyn Store>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StoreError> {
    let lease = store.grant(TTL).await?;
    let mut registration = Registration {
        id: id.to_owned(),
        control,
        state,
        store,
        lease,
        written: None,
        alive: Instant::now(),
    };
    registration.put().await?;
    Ok(tokio::spawn(async move {
        let mut tick = tokio::time::interval(KEEP_ALIVE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => registration.renew().await,
            }
        }
        let _ = registration.store.revoke(registration.lease).await;
    }))
}

impl Registration {
    fn now(&self) -> (u32, bool) {
        (
            self.state.load(),
            self.state.draining.load(Ordering::Relaxed),
        )
    }

    async fn put(&mut self) -> Result<(), StoreError> {
        let (load, draining) = self.now();
        let (algorithm, digest) = &self.state.fingerprint;
        let record = SwitchRecord {
            version: RECORD_VERSION,
            id: self.id.clone(),
            instance: self.state.instance.clone(),
            control: self.control.clone(),
            load,
            draining,
            fingerprints: vec![(algorithm.clone(), hex::encode(digest))],
        };
        let value = serde_json::to_vec(&record).map_err(|e| StoreError::Refused(e.to_string()))?;
        let put = Op::Put(keys::switch(&self.id), Bytes::from(value), Some(self.lease));
        self.store
            .txn(Txn {
                compares: Vec::new(),
                ops: vec![put],
            })
            .await?;
        self.written = Some((load, draining));
        self.on_alive();
        Ok(())
    }

    fn on_alive(&mut self) {
        self.alive = Instant::now();
        tell_alive(KIND, true);
        self.state.registered.store(true, Ordering::Relaxed);
    }

    /// Renews the lease; a lost one is granted again. Media does not depend on it.
    async fn renew(&mut self) {
        if let Err(e) = self.try_renew().await
            && self.alive.elapsed() >= TTL
            && self.state.registered.swap(false, Ordering::Relaxed)
        {
            tell_alive(KIND, false);
            tracing::warn!("no new meetings: this switch's record cannot be renewed: {e}");
        }
    }

    async fn try_renew(&mut self) -> Result<(), StoreError> {
        let renewed = self.store.keep_alive(self.lease).await;
        count_renewal(KIND, renewed.is_ok());
        match renewed {
            Ok(()) if self.written == Some(self.now()) => {
                self.on_alive();
                Ok(())
            }
            Ok(()) => self.put().await,
            Err(StoreError::LeaseExpired) => {
                count_loss(KIND);
                self.written = None;
                self.lease = self.store.grant(TTL).await?;
                self.put().await
            }
            Err(e) => Err(e),
        }
    }
}
