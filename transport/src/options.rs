//! Bounds and times of the transports.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sip::Limits;

/// Bounds, times and trust; [`Options::default`] suits a server of some ten thousand connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// Load balancers. From these a PROXY protocol header is required on every TCP and TLS connection, and
    /// what it says is believed; from anywhere else such a header is an error like any other bad start.
    pub proxy_protocol_from: Vec<IpNet>,
    /// How outgoing TLS connections verify; `None`: they fail. See [`crate::tls::client_config`].
    pub client_tls: Option<Arc<rustls::ClientConfig>>,
    /// Bounds on one message.
    pub limits: Limits,
    /// Connections in all, listening and connecting ones together. Raising it costs about 10 kB each
    /// (TLS: 40 kB) and a file descriptor.
    pub max_connections: usize,
    /// Connections from one source address (an IPv6 source counts by its /64). Lowering it locks out offices
    /// behind one address, raising it lets one machine take more of `max_connections`.
    pub max_connections_per_source: usize,
    /// How long connecting out may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a peer may take for its PROXY header and TLS handshake.
    pub handshake_timeout: Duration,
    /// A peer that has not sent one well-formed message in this time is disconnected.
    pub first_message_timeout: Duration,
    /// How long one message may take from its first byte to its last.
    pub message_timeout: Duration,
    /// A peer from which nothing at all came for this long is disconnected.
    pub idle_timeout: Duration,
    /// How long a write may be stuck before the peer is disconnected.
    pub write_timeout: Duration,
    /// Messages queued to one peer; one more, and it is disconnected as too slow.
    pub write_queue: usize,
    /// Bytes queued to one peer; more, and it is disconnected as too slow.
    pub write_queue_bytes: usize,
    /// Messages received and not yet taken by the element. When full, streams wait and datagrams are dropped.
    pub input_queue: usize,
    /// How often a silent WebSocket is pinged; after two pings without any answer it is closed.
    pub websocket_ping: Duration,
    /// Kernel receive buffer of each UDP socket, bytes (the kernel may grant less).
    pub udp_receive_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proxy_protocol_from: Vec::new(),
            client_tls: None,
            limits: Limits::default(),
            max_connections: 16_384,
            max_connections_per_source: 1_024,
            connect_timeout: Duration::from_secs(4),
            handshake_timeout: Duration::from_secs(5),
            first_message_timeout: Duration::from_secs(20),
            message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(4_000),
            write_timeout: Duration::from_secs(10),
            write_queue: 512,
            write_queue_bytes: 1 << 20,
            input_queue: 4_096,
            websocket_ping: Duration::from_secs(25),
            udp_receive_buffer: 4 << 20,
        }
    }
}
