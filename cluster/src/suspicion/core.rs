//! Who is suspected, on a clock that is handed in.
//!
//! ```text
//!            connected                  closed by the peer            refused, others answer
//!   Idle ─────────────────► Up ────────────────────────► Alarmed ───────────────────────────► Judged
//!    ▲ │ refused, unclear            ▲                      │ │ ▲ unclear, or alone                │
//!    └─┘ (never seen alive)          └────── connected ─────┘ └─┘            settled, still there  │
//!    ▲                                                                                            │
//!    └── the record names another address ◄───────────── Alarmed ◄─────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Between tries to reach a peer. Raising it makes the death of one that closed its links before it died known later;
/// lowering it makes more connections to peers that do not keep them.
const RETRY: Duration = Duration::from_millis(300);
/// Pause after a link that did not live for [`RETRY`], doubled with each in a row: a dying process may close its links
/// before it stops listening, and its kernel takes another one in between.
const FIRST_RETRY: Duration = Duration::from_millis(10);

/// What happened to the link of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is up.
    Connected,
    /// The peer, or its kernel, ended it.
    Closed,
    /// Nobody listens at the peer's address.
    Refused,
    /// It could not be opened, and that says nothing about the peer: a time-out, an unreachable network.
    Unclear,
    /// What [`Action::Convict`] asked for was done, or could not be.
    Settled,
}

/// What is to be done. The answer to each is an [`Event`] for the same peer and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a link: [`Event::Connected`] and later [`Event::Closed`], or [`Event::Refused`], or [`Event::Unclear`].
    Connect(String, SocketAddr),
    /// End the lease of this peer, unless its record has changed or it answers after all: [`Event::Settled`].
    Convict(String, SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Connect at this time.
    Due(Instant),
    Connecting,
    Up(Instant),
    /// Refused: convict at this time.
    Guilty(Instant),
    Judged,
}

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    state: State,
    /// It was connected to at this address before, so that a refusal means something.
    proven: bool,
    /// Short-lived links in a row.
    short: u32,
}

/// The decisions of the watchdog.
#[derive(Debug, Default)]
pub struct Core {
    peers: BTreeMap<String, Peer>,
}

impl Core {
    /// Takes in which peers there are, by the key of their record. One whose address changed is a new one.
    pub fn set_peers(&mut self, now: Instant, peers: BTreeMap<String, SocketAddr>) {
        self.peers
            .retain(|key, peer| peers.get(key) == Some(&peer.address));
        for (key, address) in peers {
            self.peers.entry(key).or_insert(Peer {
                address,
                state: State::Due(now),
                proven: false,
                short: 0,
            });
        }
    }

    /// Where a peer is reached; `None` where there is no such peer.
    #[must_use]
    pub fn address(&self, key: &str) -> Option<SocketAddr> {
        self.peers.get(key).map(|peer| peer.address)
    }

    /// Takes an event in; what concerns a former address is ignored.
    pub fn handle(&mut self, now: Instant, key: &str, address: SocketAddr, event: Event) {
        let Some(peer) = self.peers.get_mut(key).filter(|p| p.address == address) else {
            return;
        };
        peer.state = match (event, peer.state) {
            (Event::Connected, _) => {
                peer.proven = true;
                State::Up(now)
            }
            (Event::Closed, State::Up(since)) if now >= since + RETRY => {
                peer.short = 0;
                State::Due(now)
            }
            // Not in a loop where the peer keeps no links.
            (Event::Closed, State::Up(_)) => {
                peer.short = (peer.short + 1).min(8);
                State::Due(now + RETRY.min(FIRST_RETRY * (1 << (peer.short - 1))))
            }
            (Event::Refused, _) if peer.proven => State::Guilty(now),
            (Event::Closed | Event::Refused | Event::Unclear | Event::Settled, _) => {
                State::Due(now + RETRY)
            }
        };
    }

    /// What is to be done now; call until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        // Where nobody answers, it is rather we who are cut off. With a single peer nothing can be compared.
        let others = self.peers.len() > 1;
        let answered = self.peers.values().any(|p| matches!(p.state, State::Up(_)));
        for (key, peer) in &mut self.peers {
            match peer.state {
                State::Due(at) if at <= now => {
                    peer.state = State::Connecting;
                    return Some(Action::Connect(key.clone(), peer.address));
                }
                State::Guilty(at) if at <= now => {
                    if others && !answered {
                        peer.state = State::Due(now + RETRY);
                        continue;
                    }
                    peer.state = State::Judged;
                    return Some(Action::Convict(key.clone(), peer.address));
                }
                _ => {}
            }
        }
        None
    }

    /// When [`Core::poll`] has something to do next.
    #[must_use]
    pub fn timer(&self) -> Option<Instant> {
        let due = self.peers.values().filter_map(|peer| match peer.state {
            State::Due(at) | State::Guilty(at) => Some(at),
            State::Connecting | State::Up(_) | State::Judged => None,
        });
        due.min()
    }
}
