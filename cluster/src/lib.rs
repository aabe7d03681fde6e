//! Cluster state: the store, its engines, leases, ownership and fencing, and the records kept there.
//!
//! Roles meet only over SIP, the control protocol and this crate.

#![forbid(unsafe_code)]

pub mod records;
pub mod store;

pub use store::{
    Compare, Entry, LeaseId, Op, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch,
    WatchEvent,
};
