//! An ICE-lite agent for one transport (RFC 8445 §2.5): it answers connectivity checks and so
//! learns which remote addresses belong to the peer. Nothing else may speak DTLS or SRTP.
//!
//! ```text
//!              request authenticated            USE-CANDIDATE
//!   Checking ───────────────────────► Validated ─────────────► Nominated
//!                                        │  ▲                     │  │  USE-CANDIDATE elsewhere:
//!                             30 s       │  │ request             │  ▼  the pair moves (mobility)
//!                             without ───▼──┴── authenticated ◄───┘
//!                                       Lost
//! ```
//!
//! Until a request carries a valid MESSAGE-INTEGRITY it changes nothing and gets no answer.
//! Once it has validated an address, media from there is as good a sign of life as a request:
//! agents from before RFC 7675 send no more requests after nomination, but media and keepalives
//! (RFC 8445 §11).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use smallvec::SmallVec;

use crate::SocketId;
use crate::stun::{self, Answer, BINDING_REQUEST, Message};

/// How long consent lasts after the last authenticated request or media (RFC 7675 §5.1). A lite
/// agent sends no checks of its own: what the peer sends is the only sign that it is still there.
pub const CONSENT: Duration = Duration::from_secs(30);

/// Remote addresses of the peer remembered at once; the one silent longest makes room.
pub const MAX_REMOTES: usize = 16;

/// Credentials of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Our user fragment.
    pub local_ufrag: String,
    /// Our password.
    pub local_pwd: String,
    /// The peer's user fragment; empty while not known.
    pub remote_ufrag: String,
}

/// Where the agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No request authenticated yet.
    Checking,
    /// The peer is heard; nothing nominated.
    Validated,
    /// The peer chose the pair.
    Nominated,
    /// Consent expired: nothing may be sent.
    Lost,
}

/// What came of a datagram.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Not for us, not authentic, or not a request: say nothing.
    Ignored,
    /// Send this back where the request came from.
    Answer(Answer),
}

#[derive(Clone, Copy, Debug)]
struct Remote {
    address: SocketAddr,
    /// Which of the worker's sockets it reached: one socket of the peer may reach several.
    socket: SocketId,
    heard: Instant,
}

impl Remote {
    const fn pair(&self) -> (SocketId, SocketAddr) {
        (self.socket, self.address)
    }
}

/// The agent.
pub struct IceLite {
    credentials: Credentials,
    key: hmac::Key,
    state: State,
    remotes: SmallVec<[Remote; 2]>,
    selected: Option<(SocketId, SocketAddr)>,
    heard: Option<Instant>,
    forgotten: Vec<(SocketId, SocketAddr)>,
}

impl IceLite {
    /// An agent that has heard nobody.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            key: stun::short_term_key(&credentials.local_pwd),
            credentials,
            state: State::Checking,
            remotes: SmallVec::new(),
            selected: None,
            heard: None,
            forgotten: Vec::new(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its credentials.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Takes the peer's user fragment, once its SDP has come.
    pub fn set_remote_ufrag(&mut self, ufrag: &str) {
        if self.credentials.remote_ufrag != ufrag {
            ufrag.clone_into(&mut self.credentials.remote_ufrag);
        }
    }

    /// Where to send: socket and remote address of the nominated pair, before nomination of the
    /// latest validated one. `None` while there is none or consent is lost.
    #[must_use]
    pub fn selected(&self) -> Option<(SocketId, SocketAddr)> {
        self.selected.filter(|_| self.state != State::Lost)
    }

    /// When a request was last authenticated.
    #[must_use]
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Whether this remote address has passed a check: only then may it speak DTLS or SRTP.
    #[must_use]
    pub fn is_validated(&self, remote: SocketAddr) -> bool {
        self.remotes.iter().any(|known| known.address == remote)
    }

    /// Handles a STUN datagram that came to `socket` from `remote`.
    pub fn handle_stun(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Outcome {
        let Some(message) = Message::parse(datagram) else {
            return Outcome::Ignored;
        };
        if message.kind != BINDING_REQUEST
            || !self.is_for_us(message.username)
            || !message.is_authentic(&self.key)
        {
            return Outcome::Ignored;
        }
        let transaction = &message.transaction;
        if let Some(unknown) = message.unknown {
            let answer = stun::error(transaction, 420, Some(unknown), &self.key);
            return Outcome::Answer(answer);
        }
        // We are always controlled; a peer that believes the same must switch (RFC 8445 §7.3.1.1).
        if message.controlled {
            return Outcome::Answer(stun::error(transaction, 487, None, &self.key));
        }
        self.on_request_authenticated(socket, remote, message.use_candidate, now);
        Outcome::Answer(stun::success(transaction, remote, &self.key))
    }

    /// Media that the peer has authenticated came from `remote`: a sign of life of that address if
    /// a check has validated it, nothing otherwise.
    pub fn handle_media(&mut self, remote: SocketAddr, now: Instant) {
        for known in self.remotes.iter_mut().filter(|r| r.address == remote) {
            known.heard = now;
            self.heard = Some(now);
        }
    }

    /// When a validated pair was heard last.
    #[must_use]
    pub fn heard_on(&self, pair: (SocketId, SocketAddr)) -> Option<Instant> {
        let known = self.remotes.iter().find(|r| r.pair() == pair)?;
        Some(known.heard)
    }

    /// USERNAME is our fragment, a colon, the peer's (RFC 8445 §7.2.2).
    fn is_for_us(&self, username: Option<&[u8]>) -> bool {
        let Some(rest) = username
            .and_then(|name| name.strip_prefix(self.credentials.local_ufrag.as_bytes()))
            .and_then(|rest| rest.strip_prefix(b":"))
        else {
            return false;
        };
        self.credentials.remote_ufrag.is_empty() || rest == self.credentials.remote_ufrag.as_bytes()
    }

    fn on_request_authenticated(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        use_candidate: bool,
        now: Instant,
    ) {
        self.heard = Some(now);
        let pair = (socket, remote);
        match self.remotes.iter_mut().find(|r| r.pair() == pair) {
            Some(known) => known.heard = now,
            None => {
                if self.remotes.len() >= MAX_REMOTES {
                    let oldest = (0..self.remotes.len())
                        .filter(|at| Some(self.remotes[*at].pair()) != self.selected)
                        .min_by_key(|at| self.remotes[*at].heard)
                        .unwrap_or(0);
                    let gone = self.remotes.swap_remove(oldest);
                    self.forgotten.push((gone.socket, gone.address));
                }
                self.remotes.push(Remote {
                    address: remote,
                    socket,
                    heard: now,
                });
            }
        }
        if use_candidate {
            // The newest nomination counts: this is also how a peer moves to another network.
            self.state = State::Nominated;
            self.selected = Some((socket, remote));
        } else if self.state != State::Nominated {
            self.state = State::Validated;
            self.selected = Some((socket, remote));
        }
    }

    /// Forgets remotes whose checks have stopped; `true` when consent has just been lost.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let Some(heard) = self.heard else {
            return false;
        };
        if self.state == State::Lost {
            return false;
        }
        if now.saturating_duration_since(heard) < CONSENT {
            self.forget(|remote| now.saturating_duration_since(remote.heard) >= CONSENT);
            // The selected pair is dead while another is still checked: go there.
            if !self.remotes.iter().any(|r| Some(r.pair()) == self.selected) {
                let liveliest = self.remotes.iter().max_by_key(|remote| remote.heard);
                self.selected = liveliest.map(Remote::pair);
            }
            return false;
        }
        self.state = State::Lost;
        self.forget(|_| true);
        true
    }

    fn forget(&mut self, mut stale: impl FnMut(&Remote) -> bool) {
        let forgotten = &mut self.forgotten;
        self.remotes.retain(|remote| {
            let stale = stale(remote);
            if stale {
                forgotten.push((remote.socket, remote.address));
            }
            !stale
        });
    }

    /// Remotes validated no longer since the last call, so that a table of them can follow.
    pub fn take_forgotten(&mut self) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        self.forgotten.drain(..)
    }

    /// All validated remotes and the sockets they reached.
    pub fn remotes(&self) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        self.remotes.iter().map(|r| (r.socket, r.address))
    }

    /// When consent ends unless a request or media comes.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Checking | State::Lost => None,
            State::Validated | State::Nominated => self.heard.map(|heard| heard + CONSENT),
        }
    }
}
