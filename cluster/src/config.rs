//! Which engine keeps the cluster's state, and where.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::embedded::{EmbeddedError, EmbeddedStore};
use crate::etcd::{EtcdError, EtcdStore};
use crate::store::Store;
use crate::trust::CheckedStore;

/// The engine and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "lowercase")]
pub enum StoreConfig {
    /// One machine: one file, no server.
    Embedded(EmbeddedConfig),
    /// Several machines: an etcd cluster, version 3.4 or later.
    Etcd(EtcdConfig),
}

/// Settings of the embedded engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// Directory of the store's file; made when absent. Only one process may have it open.
    pub path: PathBuf,
}

/// Settings of the etcd engine.
///
/// etcd itself should run with `--heartbeat-interval=50 --election-timeout=500 --grpc-keepalive-min-time=200ms
/// --quota-backend-bytes=8589934592 --auto-compaction-retention=1h`: with its default election timeout it
/// does not grant leases as short as the cluster's, and notices dead members later; with its default for pings it
/// closes our connections, which ping twice a second while they wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// Client URLs of the etcd members, `http://host:2379` or `https://host:2379`.
    pub endpoints: Vec<String>,
    /// User, where etcd's authentication is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// PEM file with the authority that signed etcd's certificates; the system's authorities where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with our client certificate, where etcd asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// How long one request may take, milliseconds. Below about 2500 an election of a new etcd leader makes
    /// writes fail that would have succeeded.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            user: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            timeout_ms: default_timeout(),
        }
    }
}

fn default_timeout() -> u64 {
    3_000
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The embedded engine.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The etcd engine.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// Opens the store, and notices when it loses data ([`CheckedStore`]). An etcd cluster that cannot be reached is no error here: requests then end as
/// [`StoreError::Unavailable`](crate::StoreError::Unavailable) until it can.
///
/// # Errors
/// [`OpenError`]: the file cannot be opened, or the settings make no sense.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, OpenError> {
    match config {
        StoreConfig::Embedded(embedded) => {
            let path = embedded.path.clone();
            // Opening may repair a file after a power cut, which takes a while on a large one.
            let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await;
            let store = opened.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            Ok(Arc::new(CheckedStore::start(Arc::new(store))))
        }
        StoreConfig::Etcd(etcd) => {
            let store = Arc::new(EtcdStore::new(etcd)?);
            Ok(Arc::new(CheckedStore::start(store)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<StoreConfig, serde_json::Error> {
        serde_json::from_value(json)
    }

    #[test]
    fn engines_are_told_apart_and_unknown_settings_refused() {
        let embedded = read(serde_json::json!({"engine": "embedded", "path": "/x"})).unwrap();
        assert_eq!(
            embedded,
            StoreConfig::Embedded(EmbeddedConfig { path: "/x".into() })
        );
        let etcd =
            read(serde_json::json!({"engine": "etcd", "endpoints": ["http://127.0.0.1:2379"]}));
        assert_eq!(etcd.unwrap(), StoreConfig::Etcd(EtcdConfig::default()));
        for bad in [
            serde_json::json!({"engine": "embedded", "path": "/x", "endpoints": []}),
            serde_json::json!({"engine": "etcd", "endpoints": [], "paht": 1}),
            serde_json::json!({"engine": "redis"}),
            serde_json::json!({"path": "/x"}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
