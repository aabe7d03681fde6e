//! Where a message came from and where it goes.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A SIP transport protocol (RFC 3261 §18, RFC 7118).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket over TLS (RFC 7118).
    Wss,
}

impl Transport {
    /// Whether the transport retransmits by itself (RFC 3261 §17: timers A, E, G are then not used).
    #[must_use]
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// Whether the transport is TLS-protected hop by hop.
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// As it stands in a Via: `UDP`, `TCP`, `TLS`, `WS`, `WSS`.
    #[must_use]
    pub fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// As it stands in a URI's `transport` parameter: `udp`, `tcp`, `tls`, `ws`, `wss`.
    #[must_use]
    pub fn uri_token(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Port used where none is given (RFC 3261 §19.1.2, RFC 7118 §5.2.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri_token())
    }
}

/// The token names no transport of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown SIP transport")]
pub struct UnknownTransport;

impl FromStr for Transport {
    type Err = UnknownTransport;

    /// Case-insensitive, both the Via and the URI spelling.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        for t in [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss] {
            if s.eq_ignore_ascii_case(t.uri_token()) {
                return Ok(t);
            }
        }
        Err(UnknownTransport)
    }
}

/// Names one connection of this process (or one UDP remote on one of its sockets), never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowId(pub u64);

/// One SIP hop: where a message came from, or where it must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Transport protocol.
    pub transport: Transport,
    /// The peer's address as seen by the socket (after PROXY protocol).
    pub remote: SocketAddr,
    /// Our own address of the socket it came in on, or must go out of. `None` going out: any of the family.
    pub local: Option<SocketAddr>,
    /// The very connection. Going out with `Some`: use this one or fail. `None`: reuse or open one to `remote`.
    pub flow: Option<FlowId>,
}

impl Hop {
    /// A hop to `remote`, by any socket and connection.
    #[must_use]
    pub fn to(transport: Transport, remote: SocketAddr) -> Self {
        Self {
            transport,
            remote,
            local: None,
            flow: None,
        }
    }
}
