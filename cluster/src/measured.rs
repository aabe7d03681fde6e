//! A store that tells how long everything takes, around any engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use crate::store::{Entry, LeaseId, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch};

const SECONDS: &str = "rostrum_store_seconds";
const ERRORS: &str = "rostrum_store_errors_total";
const CONFLICTS: &str = "rostrum_store_conflicts_total";

/// Says what the metrics of this crate are; call once a recorder is installed.
pub fn describe_metrics() {
    describe_histogram!(
        SECONDS,
        Unit::Seconds,
        "Time that an operation of the cluster's store took, by operation; failed ones too"
    );
    describe_counter!(
        ERRORS,
        Unit::Count,
        "Operations of the cluster's store that failed, by operation and reason"
    );
    describe_counter!(
        CONFLICTS,
        Unit::Count,
        "Transactions not done because what they demand does not hold"
    );
    describe_gauge!(
        crate::lease::ALIVE,
        Unit::Count,
        "1 while this process holds its lease, 0 while others may take it for dead; by kind of record"
    );
    describe_counter!(
        crate::lease::RENEWALS,
        Unit::Count,
        "Renewals of leases, by kind of record and outcome"
    );
    describe_counter!(
        crate::lease::LOSSES,
        Unit::Count,
        "Leases that ended though their holder lives, by kind of record"
    );
}

/// A store whose operations are measured.
pub struct Measured(Arc<dyn Store>);

impl Measured {
    /// Around an engine.
    #[must_use]
    pub fn around(store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Self(store))
    }
}

/// Tells of the operation also when nobody waited for its end.
struct Timing {
    operation: &'static str,
    began: Instant,
    done: bool,
}

impl Timing {
    fn begin(operation: &'static str) -> Self {
        Self {
            operation,
            began: Instant::now(),
            done: false,
        }
    }

    fn end<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.done = true;
        if let Err(e) = &result {
            let reason = match e {
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Unknown => "unknown",
                StoreError::LeaseExpired => "lease-expired",
                StoreError::Refused(_) => "refused",
            };
            self.failed(reason);
        }
        result
    }

    fn failed(&self, reason: &'static str) {
        counter!(ERRORS, "operation" => self.operation, "reason" => reason).increment(1);
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        if !self.done {
            self.failed("given-up");
        }
        histogram!(SECONDS, "operation" => self.operation).record(self.began.elapsed());
    }
}

#[async_trait]
impl Store for Measured {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let timing = Timing::begin("get");
        timing.end(self.0.get(key).await)
    }

    async fn range(
        &self,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Range, StoreError> {
        let timing = Timing::begin("range");
        timing.end(self.0.range(prefix, limit, after).await)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let timing = Timing::begin("txn");
        let outcome = timing.end(self.0.txn(txn).await);
        if outcome == Ok(TxnOutcome::Conflict) {
            counter!(CONFLICTS).increment(1);
        }
        outcome
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        let timing = Timing::begin("watch");
        timing.end(self.0.watch(prefix, from).await)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let timing = Timing::begin("grant");
        timing.end(self.0.grant(ttl).await)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let timing = Timing::begin("keep-alive");
        timing.end(self.0.keep_alive(lease).await)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let timing = Timing::begin("revoke");
        timing.end(self.0.revoke(lease).await)
    }

    async fn leased(&self, key: &str) -> Result<Option<(Entry, LeaseId)>, StoreError> {
        let timing = Timing::begin("leased");
        timing.end(self.0.leased(key).await)
    }

    async fn status(&self) -> Result<Revision, StoreError> {
        let timing = Timing::begin("status");
        timing.end(self.0.status().await)
    }
}
