//! The distributed engine: etcd, for several machines.
//!
//! One client an endpoint, because a client of several goes on sending to a dead one; here a request moves on
//! to the next endpoint itself. A read is repeated until it succeeds or its time is over. A write is repeated
//! only while it certainly did not reach etcd; otherwise it ends as [`StoreError::Unknown`], as soon as later writes
//! are answered and it is not.

mod endpoint;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, Compare as EtcdCompare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions,
    Txn as EtcdTxn, TxnOp,
};

use crate::config::EtcdConfig;
use crate::store::{
    Compare, Entry, LeaseId, MAX_PAGE, Op, Range, Revision, Store, StoreError, Txn, TxnOutcome,
    Watch,
};
use endpoint::{Endpoints, Kind};

/// Largest answer taken: a page of [`MAX_PAGE`] dialog records and more (etcd-client's own limit is 4 MiB).
const MAX_ANSWER: usize = 64 << 20;
/// A key nothing is stored under; reading it proves a quorum.
const PROBE: &str = "/rostrum/probe";
/// A renewal that took longer than this is tried at the next endpoint, while the lease still lives.
const KEEP_ALIVE: Duration = Duration::from_millis(400);

/// Why an etcd store cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// No endpoint is configured.
    #[error("no etcd endpoints are configured")]
    NoEndpoints,
    /// An endpoint is no URL of etcd's.
    #[error("etcd endpoint {0:?} must begin with http:// or https://")]
    Endpoint(String),
    /// A PEM file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Only one of user and password, or of certificate and key, is set.
    #[error("{0} must be set together")]
    Pair(&'static str),
}

/// The etcd store.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    endpoints: Arc<Endpoints>,
}

impl EtcdStore {
    /// Sets the store up; connections are opened when first needed.
    ///
    /// # Errors
    /// [`EtcdError`]: settings that make no sense, or unreadable files.
    pub fn new(config: &EtcdConfig) -> Result<Self, EtcdError> {
        Ok(Self {
            endpoints: Arc::new(Endpoints::new(config)?),
        })
    }

    async fn read(&self, key: Vec<u8>, options: GetOptions) -> Result<GetResponse, StoreError> {
        let request = |client: Client| {
            let (key, options) = (key.clone(), options.clone());
            async move {
                let mut kv = client.kv_client().max_decoding_message_size(MAX_ANSWER);
                kv.get(key, Some(options)).await
            }
        };
        self.endpoints.call(Kind::Read, request).await
    }

    async fn page(&self, key: Vec<u8>, options: GetOptions) -> Result<Range, StoreError> {
        let mut answer = self.read(key, options).await?;
        let more = answer.more();
        let revision = Revision(answer.header().map_or(0, |h| unsigned(h.revision())));
        let entries = answer.take_kvs().into_iter().filter_map(entry).collect();
        Ok(Range {
            entries,
            revision,
            more,
        })
    }
}

/// `None` for a key that is not UTF-8, which is none of ours.
fn entry(kv: KeyValue) -> Option<Entry> {
    let modified = Revision(unsigned(kv.mod_revision()));
    let (key, value) = kv.into_key_value();
    Some(Entry {
        key: String::from_utf8(key).ok()?,
        value: Bytes::from(value),
        modified,
    })
}

/// etcd's numbers are signed and never negative.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The first key after all keys that begin with `prefix`.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // Everything: etcd's own sign for "no end".
    vec![0]
}

fn compare(compare: &Compare) -> EtcdCompare {
    match compare {
        Compare::Unchanged(key, at) => {
            EtcdCompare::mod_revision(key.as_str(), CompareOp::Equal, signed(at.0))
        }
        Compare::Absent(key) => EtcdCompare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Compare::Present(key) => EtcdCompare::create_revision(key.as_str(), CompareOp::Greater, 0),
    }
}

fn operation(op: &Op) -> TxnOp {
    match op {
        Op::Put(key, value, lease) => {
            let options = lease.map(|lease| PutOptions::new().with_lease(signed(lease.0)));
            TxnOp::put(key.as_str(), value.to_vec(), options)
        }
        Op::Delete(key) => TxnOp::delete(key.as_str(), None),
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let page = self.page(key.into(), GetOptions::new()).await?;
        Ok(page.entries.into_iter().next())
    }

    async fn range(
        &self,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Range, StoreError> {
        let limit = i64::try_from(limit.clamp(1, MAX_PAGE)).unwrap_or(1);
        // etcd takes an empty key for "no key", and a zero byte for the lowest one.
        let start = match after.filter(|after| *after >= prefix) {
            Some(after) => [after.as_bytes(), &[0]].concat(),
            None if prefix.is_empty() => vec![0],
            None => prefix.into(),
        };
        let end = prefix_end(prefix);
        if end != [0] && start >= end {
            // Nothing can be there; etcd would call it a bad range.
            return Ok(Range {
                revision: self.status().await?,
                ..Range::default()
            });
        }
        self.page(start, GetOptions::new().with_range(end).with_limit(limit))
            .await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn.check()?;
        let request = EtcdTxn::new()
            .when(txn.compares.iter().map(compare).collect::<Vec<_>>())
            .and_then(txn.ops.iter().map(operation).collect::<Vec<_>>());
        let request = |client: Client| {
            let request = request.clone();
            async move { client.kv_client().txn(request).await }
        };
        let answer = self.endpoints.call(Kind::Write, request).await?;
        if answer.succeeded() {
            let revision = answer.header().map_or(0, |h| unsigned(h.revision()));
            Ok(TxnOutcome::Committed(Revision(revision)))
        } else {
            Ok(TxnOutcome::Conflict)
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        watch::start(Arc::clone(&self.endpoints), prefix.to_owned(), from).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        // etcd counts whole seconds.
        let seconds = signed(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1);
        let request =
            |client: Client| async move { client.lease_client().grant(seconds, None).await };
        // Granted twice is one lease too many for a second: harmless, so repeated like a read.
        let answer = self.endpoints.call(Kind::Read, request).await?;
        Ok(LeaseId(unsigned(answer.id())))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let request = |client: Client| async move {
            let renew = async {
                client
                    .lease_client()
                    .keep_alive(signed(lease.0))
                    .await
                    .map(drop)
            };
            match tokio::time::timeout(KEEP_ALIVE, renew).await {
                Ok(renewed) => renewed,
                Err(_) => Err(etcd_client::Error::WatchError(
                    "lease not renewed in time".into(),
                )),
            }
        };
        self.endpoints.call(Kind::Read, request).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let request =
            |client: Client| async move { client.lease_client().revoke(signed(lease.0)).await };
        // Revoked twice is revoked; gone already is fine.
        match self.endpoints.call(Kind::Read, request).await {
            Ok(_) | Err(StoreError::LeaseExpired) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn status(&self) -> Result<Revision, StoreError> {
        Ok(self.page(PROBE.into(), GetOptions::new()).await?.revision)
    }

    async fn leased(&self, key: &str) -> Result<Option<(Entry, LeaseId)>, StoreError> {
        let mut answer = self.read(key.into(), GetOptions::new()).await?;
        let found = answer.take_kvs().into_iter().next();
        Ok(found.and_then(|kv| {
            let lease = LeaseId(unsigned(kv.lease()));
            (lease.0 != 0).then_some((entry(kv)?, lease))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end("/a/"), b"/a0");
        assert_eq!(prefix_end("a\u{7f}"), b"a\x80");
        assert_eq!(prefix_end(""), [0]);
    }
}
