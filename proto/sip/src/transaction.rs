//! Transactions (RFC 3261 §17, RFC 6026, RFC 4320) over a timer wheel, without IO.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::hop::Hop;
use crate::message::Message;

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
    /// Timer B or F fired: no (final) response.
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

/// All transactions of one element.
#[derive(Debug)]
pub struct TransactionLayer {
    timers: Timers,
}

#[allow(unused_variables)]
impl TransactionLayer {
    /// An empty layer. `seed` feeds branch generation.
    #[must_use]
    pub fn new(timers: Timers, seed: [u8; 32]) -> Self {
        Self { timers }
    }

    /// Takes in a message that came over `hop`. Requests: stamps `received`/`rport` (RFC 3581 §4), absorbs
    /// retransmissions (answering them), matches by branch + sent-by + method (§17.2.3). Responses: to their client
    /// transaction by top Via branch + CSeq method.
    pub fn handle_message(&mut self, now: Instant, message: Message, hop: Hop) {
        todo!()
    }

    /// Sends a request in a new client transaction: pushes a Via `SIP/2.0/<transport> <sent_by>;branch=z9hG4bK...;rport`.
    /// `sent_by` is `host[:port]` as others reach us on that transport. For ACK (2xx) use [`Self::send_stateless`].
    /// `branch` overrides the generated one (a proxy's loop-detecting branch).
    pub fn send_request(
        &mut self,
        now: Instant,
        request: Message,
        hop: Hop,
        sent_by: &str,
        branch: Option<&str>,
    ) -> ClientKey {
        todo!()
    }

    /// Sends a request outside any transaction: ACK of a 2xx.
    pub fn send_stateless(
        &mut self,
        request: Message,
        hop: Hop,
        sent_by: &str,
        branch: Option<&str>,
    ) {
        todo!()
    }

    /// Sends a response in a server transaction. Goes back over the request's hop (RFC 3261 §18.2.2, RFC 3581 §4).
    /// Unknown or finished keys are ignored (a 2xx to INVITE may be sent repeatedly, also in Accepted).
    pub fn respond(&mut self, now: Instant, key: ServerKey, response: Message) {
        todo!()
    }

    /// Sends CANCEL for a pending INVITE of ours: at once after a provisional, else when one comes; nothing if
    /// a final response was first (§9.1).
    pub fn cancel(&mut self, now: Instant, key: ClientKey, reason: Option<&str>) {
        todo!()
    }

    /// Drops a client transaction the user no longer cares for (Timer C after CANCEL).
    pub fn forget(&mut self, key: ClientKey) {
        todo!()
    }

    /// The transport could not send for that client transaction.
    pub fn handle_transport_error(&mut self, now: Instant, key: ClientKey) {
        todo!()
    }

    /// The original request of a server transaction that has no final response yet.
    #[must_use]
    pub fn request(&self, key: ServerKey) -> Option<&Message> {
        todo!()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Fires every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        todo!()
    }

    /// What the user must handle next.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// Live transactions: (client, server), for metrics.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        todo!()
    }
}
