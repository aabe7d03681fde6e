//! Cluster state: the store, its engines, leases, ownership and fencing, and the records kept there.
//!
//! Roles meet only over SIP, the control protocol and this crate.

#![forbid(unsafe_code)]

pub mod authority;
mod config;
pub mod drain;
pub mod embedded;
pub mod etcd;
pub mod identity;
pub mod lease;
mod measured;
pub mod ownership;
pub mod records;
pub mod registry;
mod secret;
pub mod store;
pub mod suspicion;
pub mod trust;

pub use config::{EmbeddedConfig, EtcdConfig, OpenError, StoreConfig, open};
pub use identity::Tls;
pub use lease::{LeaseKeeper, LeaseTimes, Standing};
pub use measured::{Measured, describe_metrics};
pub use registry::{Cache, Cached, Change, Changes};
pub use secret::secret;
pub use suspicion::Watchdog;
pub use trust::CheckedStore;

pub use store::{
    Compare, Entry, LeaseId, Op, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch,
    WatchEvent,
};
