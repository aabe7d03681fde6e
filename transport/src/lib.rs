//! SIP transports: UDP, TCP, TLS, WS and WSS sockets, PROXY protocol, and the table of flows.
//!
//! A [`Transports`] owns the listeners and connections of one element. Whole messages come out of it in
//! order per flow; what goes in is sent on the flow it names, or on one opened for it.
//!
//! Every queue is bounded: a peer that floods is slowed down (streams) or dropped (datagrams), a peer that
//! does not read is disconnected, and [`Transports::send`] never waits.

#![forbid(unsafe_code)]

pub mod cards;
mod connection;
mod flows;
mod listener;
pub mod metrics;
mod options;
pub mod proxy_protocol;
pub mod stun;
pub mod tls;
mod transports;
mod udp;
mod websocket;

use std::net::SocketAddr;

use bytes::Bytes;
use sip::{FlowId, Hop, Transport};

pub use flows::Refused;
pub use options::Options;
pub use transports::Transports;

/// What the sockets tell the element above.
#[derive(Debug)]
pub enum Input {
    /// One whole message (not yet parsed).
    Message {
        /// Where from; `flow` and `local` are always set.
        hop: Hop,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A connection is gone. Told once for every connection that was established; never for UDP.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Protocol. `Ws` and `Wss` connections are handed in by the HTTP server with
    /// [`Transports::accept_websocket`], and are refused here.
    pub transport: Transport,
    /// Address; port 0 takes a free one.
    pub address: SocketAddr,
}

/// Why the listeners could not be opened; none is open then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The system refused the socket.
    #[error("cannot listen on {} {}: {source}", .listen.transport, .listen.address)]
    Socket {
        /// Which listener.
        listen: Listen,
        /// Why.
        source: std::io::Error,
    },
    /// A TLS listener without a certificate.
    #[error("cannot listen on tls {0}: no certificate given")]
    NoCertificate(SocketAddr),
    /// WebSockets come in through the HTTP server.
    #[error("{} {} is not a socket of this table: WebSockets come in through the HTTP server", .0.transport, .0.address)]
    WebSocket(Listen),
}
