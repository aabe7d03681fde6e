//! What the core wants done.

use std::sync::Arc;

use bytes::Bytes;
use cluster::{Revision, Txn};
use sip::{Hop, Uri};

use crate::location::BindingSet;

/// Names a store command until its result came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// Names a name look-up until its result came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResolveId(pub u64);

/// A side effect for the shell.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Send bytes. A failure is told with [`crate::Core::handle_send_failed`] and the same `id`.
    Transmit {
        /// 0 where nobody waits for a failure.
        id: u64,
        /// Where to.
        hop: Hop,
        /// Name that a TLS connection's certificate must carry; `None`: the address.
        host: Option<Arc<str>>,
        /// One whole message.
        bytes: Bytes,
    },
    /// Do a guarded change; tell the result with [`crate::Core::handle_store`].
    Store {
        /// To answer with.
        id: StoreId,
        /// The address of record whose bindings it is about; re-read on conflict.
        aor: String,
        /// The change.
        txn: Txn,
    },
    /// Find where a URI's requests go (RFC 3263); tell with [`crate::Core::handle_resolved`].
    Resolve {
        /// To answer with.
        id: ResolveId,
        /// The URI.
        uri: Uri,
    },
}

/// How a store command ended.
#[derive(Clone, Debug)]
pub enum StoreReply {
    /// Durable, at this revision.
    Committed(Revision),
    /// Somebody else changed the record, or it is not known whether it was written: what is there now.
    Changed(Option<(BindingSet, Revision)>),
    /// The store did not do it.
    Unavailable,
}
