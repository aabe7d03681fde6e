//! Transactions (RFC 3261 §17, RFC 6026, RFC 4320) over a timer wheel, without IO.
//!
//! Each of the four state machines is pure and has a file of its own: it takes events and returns [`effect::Effect`]s.
//! [`TransactionLayer`] finds the machine a message or a timer belongs to and carries the effects out.

mod client;
mod effect;
mod invite_client;
mod invite_server;
mod layer;
mod made;
mod matching;
mod server;
mod wheel;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::hop::Hop;
use crate::message::Message;

pub use layer::TransactionLayer;

/// Base timers (RFC 3261 §17.1.1.1, table 4).
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Round-trip estimate. Raising it slows retransmission on UDP.
    pub t1: Duration,
    /// Longest retransmission interval of non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// Longest time a message stays in the network.
    pub t4: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
        }
    }
}

impl Timers {
    /// 64*T1: how long anyone waits for anything (timers B, F, H, J, L, M).
    #[must_use]
    pub fn give_up(&self) -> Duration {
        self.t1.saturating_mul(64)
    }
}

/// How many transactions a layer holds at most.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Server transactions. Raising it costs about 2 kB a pending transaction, in the worst case 64 kB (a request of
    /// the largest size kept until it is answered). The last eighth is kept for requests inside dialogs, so that
    /// under a flood existing sessions can still be changed and ended.
    pub servers: usize,
    /// Client transactions. Same cost.
    pub clients: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            servers: 200_000,
            clients: 200_000,
        }
    }
}

/// Names a server transaction of this layer, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey(pub u64);

/// Names a client transaction of this layer, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u64);

/// Bytes to put on the wire.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to.
    pub hop: Hop,
    /// One whole message.
    pub bytes: Bytes,
    /// The client transaction it belongs to, so that a transport error can be told to it.
    pub client: Option<ClientKey>,
    /// Name that a TLS connection's certificate must carry; `None`: the address (RFC 5922 §7.3).
    pub host: Option<Arc<str>>,
}

/// What the transaction user must know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A new request (never ACK or a matching CANCEL). `received`/`rport` are already in its top Via.
    /// An INVITE that nobody answered within 200 ms is answered 100 by the layer (§17.2.1).
    Request {
        /// To answer it with.
        key: ServerKey,
        /// The request.
        message: Message,
        /// Where it came from.
        hop: Hop,
    },
    /// A new request, but the table of server transactions is full: no transaction was made. The user answers 503
    /// with Retry-After by [`TransactionLayer::respond_stateless`], or drops it.
    Overloaded {
        /// The request, `received`/`rport` already in its top Via.
        message: Message,
        /// Where it came from.
        hop: Hop,
    },
    /// An ACK that belongs to no transaction of ours: the ACK of a 2xx (end to end).
    Ack {
        /// The ACK.
        message: Message,
        /// Where it came from.
        hop: Hop,
    },
    /// The INVITE server transaction's non-2xx final response was acknowledged.
    Acknowledged {
        /// The INVITE's.
        key: ServerKey,
    },
    /// CANCEL for a server transaction that has no final response yet. The layer has answered the CANCEL
    /// with 200; the user cancels downstream and answers the INVITE with 487.
    Cancel {
        /// The INVITE's.
        key: ServerKey,
        /// The CANCEL itself (for its Reason header).
        message: Message,
    },
    /// A response to a request of ours; every 2xx of an INVITE, also repeated ones (RFC 6026 §7.2).
    Response {
        /// The request's.
        key: ClientKey,
        /// The response, our Via still on top.
        message: Message,
        /// Where it came from.
        hop: Hop,
    },
    /// A response that matches no transaction: a proxy forwards it only if it is a 2xx to INVITE (RFC 6026 §7.3: drop it).
    StrayResponse {
        /// The response.
        message: Message,
    },
    /// Timer B or F fired, or an INVITE that we cancelled got no final response for 64*T1 (§9.1): no final response.
    Timeout {
        /// The request's.
        key: ClientKey,
    },
    /// The transport failed for this request.
    TransportFailed {
        /// The request's.
        key: ClientKey,
    },
    /// Timer H: our final response to INVITE was never acknowledged.
    NotAcknowledged {
        /// The INVITE's.
        key: ServerKey,
    },
}
