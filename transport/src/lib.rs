//! SIP transports: UDP, TCP, TLS, WS and WSS sockets, PROXY protocol, and the table of flows.
//!
//! A [`Transports`] owns the listeners and connections of one element. Whole messages come out of it in
//! order per flow; what goes in is sent on the flow it names, or on one opened for it.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use bytes::Bytes;
use sip::{FlowId, Hop, Transport};

/// What the sockets tell the element above.
#[derive(Debug)]
pub enum Input {
    /// One whole message (not yet parsed).
    Message {
        /// Where from; `flow` is always set.
        hop: Hop,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A connection is gone.
    FlowClosed(FlowId),
    /// A message could not be sent: no connection, or it broke. `id` is what [`Transports::send`] was given.
    SendFailed {
        /// The caller's id.
        id: u64,
        /// Where it should have gone.
        hop: Hop,
    },
}

/// A listener to open.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Protocol. `Ws` and `Wss` connections are handed in by the HTTP server with [`Transports::accept_websocket`].
    pub transport: Transport,
    /// Address; port 0 takes a free one.
    pub address: SocketAddr,
}

/// All sockets of one element.
#[derive(Clone, Debug)]
pub struct Transports {
    // the implementer's choice
}

impl Transports {
    /// Queues bytes for a hop. Never blocks; what cannot be sent comes back as [`Input::SendFailed`] with `id`.
    pub fn send(&self, _id: u64, _hop: Hop, _bytes: Bytes) {
        todo!()
    }
}
