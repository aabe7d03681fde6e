//! Nodes, what they tell each other, and the network between them.
//!
//! SIP and media are datagrams: lost, delayed, repeated and out of order. Store and control are streams: in order,
//! late, and when the way is cut either held until it heals or lost with the connection.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cluster::{Entry, Revision};
use control::v1 as ctl;
use meeting_core::{ApplyFailure, Held};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::remote_store::{Reply, Request};

/// Virtual time since the start.
pub type Time = Duration;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The store.
    Store,
    /// A registrar.
    Registrar(u8),
    /// A meeting manager.
    Manager(u8),
    /// A switch.
    Switch(u8),
    /// A phone.
    Client(u8),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => write!(f, "store"),
            Self::Registrar(n) => write!(f, "r{n}"),
            Self::Manager(n) => write!(f, "m{n}"),
            Self::Switch(n) => write!(f, "s{n}"),
            Self::Client(n) => write!(f, "c{n}"),
        }
    }
}

impl Node {
    /// Where it takes SIP; switches and the store take none, and have their address all the same.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        match self {
            Self::Store => SocketAddr::from(([10, 0, 1, 1], 2379)),
            Self::Registrar(n) => SocketAddr::from(([192, 0, 2, n + 1], 5060)),
            Self::Manager(n) => SocketAddr::from(([10, 0, 0, n + 1], 5070)),
            Self::Switch(n) => SocketAddr::from(([203, 0, 113, n + 1], 0)),
            Self::Client(n) => SocketAddr::from(([198, 51, 100, n + 1], 5060)),
        }
    }

    /// Whose an address is.
    #[must_use]
    pub fn at(ip: IpAddr) -> Option<Self> {
        let IpAddr::V4(ip) = ip else { return None };
        match ip.octets() {
            [192, 0, 2, n @ 1..=255] => Some(Self::Registrar(n - 1)),
            [10, 0, 0, n @ 1..=255] => Some(Self::Manager(n - 1)),
            [203, 0, 113, n @ 1..=255] => Some(Self::Switch(n - 1)),
            [198, 51, 100, n @ 1..=255] => Some(Self::Client(n - 1)),
            _ => None,
        }
    }
}

/// What a watch tells: as [`cluster::WatchEvent`], with the first reading in one piece.
#[derive(Clone, Debug)]
pub enum News {
    /// All there is.
    All(Vec<Entry>, Revision),
    /// One was written.
    Put(Entry),
    /// One is gone.
    Gone(String, Revision),
    /// Nothing happened up to here.
    Progress(Revision),
    /// The history is gone.
    Lost,
}

/// One message.
#[derive(Clone, Debug)]
pub enum Msg {
    /// SIP over UDP.
    Sip {
        /// From.
        from: SocketAddr,
        /// To.
        to: SocketAddr,
        /// One message.
        bytes: Bytes,
    },
    /// RTP or RTCP.
    Media {
        /// From.
        from: SocketAddr,
        /// To.
        to: SocketAddr,
        /// One packet.
        bytes: Vec<u8>,
    },
    /// To the store.
    Request(u64, Request),
    /// From the store.
    Reply(u64, Reply),
    /// Begins a watch, after a revision or with all there is.
    Watch {
        /// Of the watcher's choice.
        id: u64,
        /// Prefix.
        prefix: String,
        /// After this; `None`: all there is first.
        from: Option<Revision>,
    },
    /// What a watch tells.
    News(u64, News),
    /// Asks a switch what it holds.
    Inspect,
    /// What a switch holds.
    Inventory(Vec<Held>),
    /// An order for a switch.
    Apply(u64, Box<ctl::ApplyRequest>),
    /// What it came to.
    Applied(u64, Result<Box<ctl::ApplyResponse>, ApplyFailure>),
    /// Begins an event stream.
    Listen {
        /// Of the listener's choice.
        stream: u64,
        /// Its member id.
        member: String,
    },
    /// An event; `None`: the stream lives.
    Event(u64, Option<Box<ctl::Event>>),
}

impl Msg {
    /// In order and reliable as long as the way is there.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        !matches!(self, Self::Sip { .. } | Self::Media { .. })
    }
}

/// A way that is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    until: Time,
    /// Streams lose what was sent meanwhile, or it comes when the way is there again.
    lose: bool,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    /// Of 1,000 datagrams so many are lost.
    pub loss: u32,
    /// Of 1,000 datagrams so many come twice.
    pub twice: u32,
    cuts: BTreeMap<(Node, Node), Cut>,
    in_order: BTreeMap<(Node, Node), Time>,
}

impl Net {
    /// Everybody reaches everybody.
    #[must_use]
    pub fn new(loss: u32, twice: u32) -> Self {
        Self {
            loss,
            twice,
            cuts: BTreeMap::new(),
            in_order: BTreeMap::new(),
        }
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: Node, to: Node, until: Time, lose: bool) {
        self.cuts.insert((from, to), Cut { until, lose });
    }

    /// When what is sent now arrives: never, once, or more often.
    pub fn arrivals(
        &mut self,
        rng: &mut ChaCha8Rng,
        now: Time,
        from: Node,
        to: Node,
        stream: bool,
    ) -> Vec<Time> {
        let cut = self
            .cuts
            .get(&(from, to))
            .filter(|c| c.until > now)
            .copied();
        if stream {
            let begun = match cut {
                Some(cut) if cut.lose => return Vec::new(),
                Some(cut) => cut.until,
                None => now,
            };
            let delay = Duration::from_micros(rng.random_range(200..5_000));
            let last = self.in_order.entry((from, to)).or_default();
            *last = (begun + delay).max(*last);
            return vec![*last];
        }
        if cut.is_some() || rng.random_range(0..1_000) < self.loss {
            return Vec::new();
        }
        let mut delay = || {
            let slow = rng.random_range(0..100) == 0;
            let most = if slow { 400_000 } else { 20_000 };
            now + Duration::from_micros(rng.random_range(500..most))
        };
        let first = delay();
        let second = delay();
        match rng.random_range(0..1_000) < self.twice {
            true => vec![first, second],
            false => vec![first],
        }
    }
}
