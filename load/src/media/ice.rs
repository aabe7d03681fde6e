//! The controlling ICE agent of one leg (RFC 8445), towards one remote candidate: a server has one that counts.
//!
//! ```text
//!             success, authentic                   30 s without success
//!   Checking ───────────────────► Connected ─────────────────────────► Lost
//! ```
//!
//! Checks nominate at once (aggressively, as RFC 5245 called it): a lite server answers and nothing else, and a full one
//! takes the first as the last. Once connected the same checks keep consent fresh (RFC 7675).

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use stun::fingerprint::FINGERPRINT;
use stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId as StunTransaction,
};
use stun::textattrs::TextAttribute;
use stun::xoraddr::XorMappedAddress;

/// First pause between checks; it doubles up to [`SLOWEST`]. RFC 8445 §14.3 asks for 500 ms in the open internet; a
/// load test wants to see the server's join time, not ours.
const FASTEST: Duration = Duration::from_millis(50);

/// Longest pause between checks while none has been answered.
const SLOWEST: Duration = Duration::from_millis(1600);

/// Between checks for consent (RFC 7675 §5.1), give or take a fifth.
const CONSENT_INTERVAL: Duration = Duration::from_secs(5);

/// Without an answer for so long nothing may be sent (RFC 7675 §5.1).
const CONSENT: Duration = Duration::from_secs(30);

/// A host candidate's (RFC 8445 §5.1.2), as peer reflexive.
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// Transactions whose answer still counts.
const MOST_PENDING: usize = 8;

/// Both sides' user fragment and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Ours.
    pub local: (String, String),
    /// The peer's.
    pub remote: (String, String),
}

/// Where the agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No check has succeeded.
    Checking,
    /// The pair works.
    Connected,
    /// It did.
    Lost,
}

/// The agent. Times are µs since the engine began.
pub struct Agent {
    credentials: Credentials,
    tie_breaker: u64,
    remote: SocketAddr,
    state: State,
    pending: Vec<[u8; 12]>,
    next_transaction: u64,
    pause: Duration,
    due: u64,
    answered: u64,
}

impl Agent {
    /// One that begins to check at `now`. `tie_breaker` is random.
    #[must_use]
    pub fn new(credentials: Credentials, remote: SocketAddr, tie_breaker: u64, now: u64) -> Self {
        Self {
            credentials,
            tie_breaker,
            remote,
            state: State::Checking,
            pending: Vec::new(),
            next_transaction: 0,
            pause: FASTEST,
            due: now,
            answered: now,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Where to send.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Both sides' credentials.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// When [`Agent::poll`] is due.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.due
    }

    /// A check to send, if one is due.
    pub fn poll(&mut self, now: u64) -> Option<Vec<u8>> {
        if now < self.due {
            return None;
        }
        if self.state == State::Connected && now - self.answered > CONSENT.as_micros() as u64 {
            self.state = State::Lost;
        }
        let pause = match self.state {
            State::Connected => {
                // RFC 7675 §5.1: 0.8 to 1.2 of the interval; the transaction's number spreads them well enough
                let spread = 800 + (self.tie_breaker >> (self.next_transaction % 48)) % 400;
                CONSENT_INTERVAL * spread as u32 / 1000
            }
            State::Checking | State::Lost => {
                let pause = self.pause;
                self.pause = (pause * 2).min(SLOWEST);
                pause
            }
        };
        self.due = now + pause.as_micros() as u64;
        self.request()
    }

    fn request(&mut self) -> Option<Vec<u8>> {
        self.next_transaction += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.tie_breaker.to_be_bytes());
        id[4..].copy_from_slice(&(self.tie_breaker ^ self.next_transaction << 20).to_be_bytes());
        id[..4].copy_from_slice(&(self.next_transaction as u32).to_be_bytes());
        let (local, remote) = (&self.credentials.local, &self.credentials.remote);
        let username = format!("{}:{}", remote.0, local.0);
        let mut message = Message::new();
        let setters: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(StunTransaction(id)),
            Box::new(TextAttribute::new(ATTR_USERNAME, username)),
        ];
        message.build(&setters).ok()?;
        message.add(ATTR_PRIORITY, &PRIORITY.to_be_bytes());
        message.add(ATTR_ICE_CONTROLLING, &self.tie_breaker.to_be_bytes());
        message.add(ATTR_USE_CANDIDATE, &[]);
        let bytes = seal(message, &remote.1)?;
        if self.pending.len() == MOST_PENDING {
            self.pending.remove(0);
        }
        self.pending.push(id);
        Some(bytes)
    }

    /// Handles a STUN datagram; what to answer to where it came from.
    pub fn on_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: u64) -> Option<Vec<u8>> {
        let mut message = Message::new();
        message.unmarshal_binary(datagram).ok()?;
        if message.typ == BINDING_SUCCESS {
            let id = message.transaction_id.0;
            let at = self.pending.iter().position(|known| *known == id)?;
            if is_authentic(datagram, &self.credentials.remote.1) {
                self.pending.remove(at);
                self.on_success(now);
            }
            return None;
        }
        if message.typ != BINDING_REQUEST {
            return None;
        }
        let (ufrag, password) = &self.credentials.local;
        let username = message.get(ATTR_USERNAME).ok()?;
        let ours = username.strip_prefix(ufrag.as_bytes())?.starts_with(b":");
        if !ours || !is_authentic(datagram, password) {
            return None;
        }
        if self.state != State::Connected && from != self.remote {
            // the peer is somewhere else than its SDP said: check there (RFC 8445 §7.3.1.4)
            self.remote = from;
            self.due = now;
        }
        let mut answer = Message::new();
        let address = XorMappedAddress {
            ip: from.ip(),
            port: from.port(),
        };
        let setters: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_SUCCESS),
            Box::new(message.transaction_id),
            Box::new(address),
        ];
        answer.build(&setters).ok()?;
        seal(answer, password)
    }

    fn on_success(&mut self, now: u64) {
        if self.state != State::Connected {
            self.state = State::Connected;
            self.pause = FASTEST;
            self.due = now + CONSENT_INTERVAL.as_micros() as u64;
        }
        self.answered = now;
    }
}

/// Octets of MESSAGE-INTEGRITY with its header, and of a message's header.
const INTEGRITY: usize = 24;
const HEADER: usize = 20;

/// The HMAC of a message up to `at`, where MESSAGE-INTEGRITY begins: with a length that counts it (RFC 8489 §14.5).
fn integrity(message: &[u8], at: usize, password: &str) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    let length = (at + INTEGRITY - HEADER) as u16;
    context.update(&message[..2]);
    context.update(&length.to_be_bytes());
    context.update(&message[4..at]);
    context.sign()
}

/// Adds MESSAGE-INTEGRITY and FINGERPRINT.
fn seal(mut message: Message, password: &str) -> Option<Vec<u8>> {
    let tag = integrity(&message.raw, message.raw.len(), password);
    message.add(ATTR_MESSAGE_INTEGRITY, tag.as_ref());
    FINGERPRINT.add_to(&mut message).ok()?;
    Some(message.raw)
}

/// Whether a message that was parsed has the MESSAGE-INTEGRITY of this password.
fn is_authentic(message: &[u8], password: &str) -> bool {
    let mut at = HEADER;
    while let Some(head) = message.get(at..at + 4) {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if u16::from_be_bytes([head[0], head[1]]) == ATTR_MESSAGE_INTEGRITY.0 {
            let Some(value) = message.get(at + 4..at + 4 + length) else {
                return false;
            };
            let expected = integrity(message, at, password);
            return aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_ref(), value)
                .is_ok();
        }
        at += 4 + length.next_multiple_of(4);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use switch_core::SocketId;
    use switch_core::ice::{Credentials as LiteCredentials, IceLite, Outcome, State as LiteState};

    fn agent(local: &str, remote: &str, now: u64) -> Agent {
        let own = |name: &str| (name.to_owned(), format!("{name}-password-of-enough-length"));
        let credentials = Credentials {
            local: own(local),
            remote: own(remote),
        };
        Agent::new(
            credentials,
            "127.0.0.1:5".parse().unwrap(),
            0x1234_5678_9abc_def0,
            now,
        )
    }

    fn lite() -> IceLite {
        IceLite::new(LiteCredentials {
            local_ufrag: "server".into(),
            local_pwd: "server-password-of-enough-length".into(),
            remote_ufrag: "client".into(),
        })
    }

    #[test]
    fn a_lite_server_answers_and_is_nominated() {
        let mut agent = agent("client", "server", 0);
        let mut server = lite();
        let from = "127.0.0.1:9".parse().unwrap();
        let check = agent.poll(0).unwrap();
        let answer = server.handle_stun(SocketId(0), from, &check, Instant::now());
        let Outcome::Answer(answer) = answer else {
            panic!("no answer")
        };
        assert_eq!(server.state(), LiteState::Nominated);
        assert_eq!(
            agent.on_datagram(answer.as_bytes(), agent.remote(), 20),
            None
        );
        assert_eq!(agent.state(), State::Connected);
        // consent: checks go on, and answers that stay away end it
        let next = agent.due();
        assert!(next > 3_900_000, "{next}");
        let mut now = next;
        while now < 31_000_000 {
            assert!(agent.poll(now).is_some());
            now = agent.due();
        }
        assert!(agent.poll(now).is_some());
        assert_eq!(agent.state(), State::Lost);
    }

    #[test]
    fn unanswered_checks_are_repeated_ever_more_slowly() {
        let mut agent = agent("client", "server", 1000);
        let mut times = Vec::new();
        for _ in 0..8 {
            let due = agent.due();
            assert!(due == 1000 || agent.poll(due - 1).is_none());
            assert!(agent.poll(due).is_some());
            times.push((due - 1000) / 1000);
        }
        assert_eq!(times, [0, 50, 150, 350, 750, 1550, 3150, 4750]);
    }

    #[test]
    fn a_forged_answer_changes_nothing() {
        let mut agent = agent("client", "server", 0);
        let mut server = lite();
        let from = "127.0.0.1:9".parse().unwrap();
        let check = agent.poll(0).unwrap();
        let Outcome::Answer(answer) = server.handle_stun(SocketId(0), from, &check, Instant::now())
        else {
            panic!("no answer")
        };
        let mut forged = answer.as_bytes().to_vec();
        forged[30] ^= 1;
        agent.on_datagram(&forged, from, 1);
        assert_eq!(agent.state(), State::Checking);
    }

    #[test]
    fn checks_of_a_full_agent_are_answered_and_show_where_it_is() {
        let mut client = agent("client", "server", 0);
        let mut full = agent("server", "client", 0);
        let elsewhere = "127.0.0.1:77".parse().unwrap();
        let check = full.poll(0).unwrap();
        let answer = client.on_datagram(&check, elsewhere, 5).unwrap();
        full.on_datagram(&answer, client.remote(), 6);
        assert_eq!(full.state(), State::Connected);
        assert_eq!(client.remote(), elsewhere);
        let check = client.poll(5).unwrap();
        let answer = full.on_datagram(&check, elsewhere, 7).unwrap();
        client.on_datagram(&answer, elsewhere, 8);
        assert_eq!(client.state(), State::Connected);
        // a request of somebody else is not answered
        let stranger = agent("server", "other", 0).poll(0).unwrap();
        assert_eq!(client.on_datagram(&stranger, elsewhere, 9), None);
    }
}
