//! One DTLS association that negotiates SRTP keys (RFC 5763, RFC 5764).
//!
//! ```text
//!            start (client) / ClientHello (server)   
//!   Waiting ─────────────────────────────────────────► Handshaking ──► Connected
//!                                                          │               │ close_notify
//!              wrong fingerprint, no SRTP profile,         ▼               ▼
//!              too much handshake data, 30 s            Failed ◄───────────┘
//! ```
//!
//! Everything before `Connected` could have been written by anybody who knows the addresses, so
//! that nothing else ends a handshake (RFC 6347 §4.1.2.7).
//!
//! The handshake itself is rtc-dtls's, DTLS 1.2; a peer that offers 1.3 as well falls back. What
//! this file adds: fingerprints of the kinds SDP may signal, a bound on what an unfinished
//! handshake may make us keep, a deadline, and keys in the form [`crate::srtp`] takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use ::dtls::crypto::Certificate;
use ::dtls::crypto_provider::{RTCCryptoProvider, default_provider};
use ::dtls::endpoint::{Endpoint, EndpointEvent};
use ::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use aws_lc_rs::digest;
use bytes::BytesMut;
use rtc_shared::error::Error;

use crate::srtp::Profile;

/// Bytes an unfinished handshake may bring in. Certificates with a chain take some 4,000.
pub const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;

/// Datagrams an unfinished handshake may bring in.
pub const MAX_HANDSHAKE_DATAGRAMS: u32 = 256;

/// Handshake datagrams taken after the end: repeats of the peer's last flight.
const MAX_LATE_DATAGRAMS: u32 = 32;

/// Longest a handshake may take from its first datagram.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);

/// Pause before a flight is repeated (RFC 6347 §4.2.4.1).
const FLIGHT_INTERVAL: Duration = Duration::from_secs(1);

/// Handshake fragments fit into any path (RFC 8261 says 1200 is safe).
const MTU: usize = 1200;

/// The association does not care about addresses (ICE may move them): one made-up peer.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Why there is no association.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DtlsError {
    /// The cryptographic library refused the key, certificate or configuration.
    #[error("DTLS set-up failed: {0}")]
    Setup(String),
    /// A fingerprint with an unknown hash or of the wrong length.
    #[error("unknown or malformed certificate fingerprint: {0}")]
    Fingerprint(String),
    /// No fingerprint was signalled: nobody could be told from anybody.
    #[error("the peer's SDP has no certificate fingerprint")]
    NoFingerprint,
}

/// Who opens the handshake (RFC 4145 `setup`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We wait (`passive`).
    Server,
    /// We begin (`active`).
    Client,
}

/// A hash function of `a=fingerprint` (RFC 8122 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// `sha-1`
    Sha1,
    /// `sha-224`
    Sha224,
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

impl Hash {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => &digest::SHA224,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// A signalled certificate fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    hash: Hash,
    value: Vec<u8>,
}

impl Fingerprint {
    /// From the hash's name as in SDP, in any case, and the digest.
    ///
    /// # Errors
    /// [`DtlsError::Fingerprint`] for other hashes and wrong lengths.
    pub fn new(algorithm: &str, value: &[u8]) -> Result<Self, DtlsError> {
        let hash = [
            ("sha-1", Hash::Sha1),
            ("sha-224", Hash::Sha224),
            ("sha-256", Hash::Sha256),
            ("sha-384", Hash::Sha384),
            ("sha-512", Hash::Sha512),
        ]
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(algorithm))
        .map(|(_, hash)| hash)
        .filter(|hash| hash.algorithm().output_len() == value.len())
        .ok_or_else(|| DtlsError::Fingerprint(algorithm.chars().take(32).collect()))?;
        Ok(Self {
            hash,
            value: value.to_vec(),
        })
    }

    /// Whether it is this certificate's.
    #[must_use]
    pub fn matches(&self, certificate: &[u8]) -> bool {
        digest::digest(self.hash.algorithm(), certificate).as_ref() == self.value
    }
}

/// The switch's certificate, one per start: ECDSA P-256, self-signed.
#[derive(Clone)]
pub struct Identity {
    certificate: Certificate,
    provider: Arc<dyn RTCCryptoProvider>,
    fingerprint: [u8; 32],
}

impl Identity {
    /// Makes a new key and certificate.
    ///
    /// # Errors
    /// [`DtlsError::Setup`] if the library cannot.
    pub fn generate() -> Result<Self, DtlsError> {
        let provider = default_provider().map_err(|e| DtlsError::Setup(e.to_string()))?;
        let certificate =
            Certificate::generate_self_signed(vec!["rostrum".to_owned()], provider.crypto())
                .map_err(|e| DtlsError::Setup(e.to_string()))?;
        let mut fingerprint = [0u8; 32];
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| DtlsError::Setup("no certificate was made".to_owned()))?;
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Ok(Self {
            certificate,
            provider,
            fingerprint,
        })
    }

    /// SHA-256 of the certificate, for `a=fingerprint:sha-256`.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

/// What a finished handshake yields.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The profile both agreed on.
    pub profile: Profile,
    /// Master key and salt of what we send.
    pub local: Vec<u8>,
    /// Master key and salt of what the peer sends.
    pub remote: Vec<u8>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.profile.name())
    }
}

/// What an association reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake ended well.
    Connected(Keys),
    /// It did not, or the peer closed; for people.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Handshaking { deadline: Instant },
    Connected,
    Failed,
}

/// The association.
pub struct Association {
    endpoint: Endpoint,
    config: Arc<HandshakeConfig>,
    /// A server begins with its best profile only, since rtc-dtls would follow the client's order
    /// and browsers put counter mode first. A client without it is read again with the next, last
    /// of these first.
    fallbacks: Vec<Arc<HandshakeConfig>>,
    /// What came before our first answer, for that second reading; bounded like all of it.
    hello: Vec<BytesMut>,
    role: Role,
    state: State,
    wrong_fingerprint: Arc<AtomicBool>,
    bytes_in: usize,
    datagrams_in: u32,
    records_in: u32,
    /// Our first answer went out.
    answered: bool,
    late: bool,
}

/// Whether a datagram is DTLS (RFC 7983 §7).
#[must_use]
pub fn is_dtls(datagram: &[u8]) -> bool {
    datagram.len() >= 13 && (20..=63).contains(&datagram[0])
}

const CHANGE_CIPHER_SPEC_RECORD: u8 = 20;
const ALERT_RECORD: u8 = 21;
const HANDSHAKE_RECORD: u8 = 22;
const APPLICATION_DATA_RECORD: u8 = 23;

/// Octets of a record's header (RFC 6347 §4.1), and of a handshake message's (§4.2.2).
const RECORD_HEADER: usize = 13;
const HANDSHAKE_HEADER: usize = 12;

/// The records of a datagram that an unfinished handshake may take; the others are dropped silently
/// (RFC 6347 §4.1.2.7), since nothing says that they are the peer's: malformed ones, and alerts and
/// data in clear text, which anybody can write. Those in clear text are numbered anew from
/// `number`: a forged high number would make the peer's own look like repeats.
fn acceptable(datagram: &[u8], number: &mut u32) -> BytesMut {
    let mut accepted = BytesMut::with_capacity(datagram.len());
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<RECORD_HEADER>() {
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let Some(record) = rest.get(..RECORD_HEADER + length).filter(|_| length > 0) else {
            break;
        };
        rest = &rest[record.len()..];
        let clear = header[3..5] == [0, 0];
        let sound = header[1] == 0xfe
            && match header[0] {
                CHANGE_CIPHER_SPEC_RECORD => !clear || record[RECORD_HEADER..] == [1],
                HANDSHAKE_RECORD => !clear || length >= HANDSHAKE_HEADER,
                kind => !clear && kind <= APPLICATION_DATA_RECORD,
            };
        if sound {
            let start = accepted.len();
            accepted.extend_from_slice(record);
            if clear {
                accepted[start + 5..start + 7].fill(0);
                accepted[start + 7..start + 11].copy_from_slice(&number.to_be_bytes());
                *number += 1;
            }
        }
    }
    accepted
}

/// Whether a datagram begins with a ClientHello or its first fragment: whoever sends it wants to
/// begin a handshake.
#[must_use]
pub fn is_client_hello(datagram: &[u8]) -> bool {
    const CLIENT_HELLO: u8 = 1;
    let records = acceptable(datagram, &mut 0);
    let Some(message) = records.get(RECORD_HEADER..RECORD_HEADER + HANDSHAKE_HEADER) else {
        return false;
    };
    let number = |at: usize| {
        usize::from(message[at]) << 16
            | usize::from(message[at + 1]) << 8
            | usize::from(message[at + 2])
    };
    let (length, offset, fragment) = (number(1), number(6), number(9));
    records[0] == HANDSHAKE_RECORD
        && records[3..5] == [0, 0]
        && message[0] == CLIENT_HELLO
        && offset == 0
        && (1..=length).contains(&fragment)
        && records.len() >= RECORD_HEADER + HANDSHAKE_HEADER + fragment
}

/// Cheapest first: GCM costs a third of counter mode with HMAC-SHA1, and 256 bits a tenth more than 128.
const PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];

impl Association {
    /// An association that has not begun.
    ///
    /// # Errors
    /// [`DtlsError::NoFingerprint`], [`DtlsError::Setup`].
    pub fn new(
        identity: &Identity,
        role: Role,
        fingerprints: Vec<Fingerprint>,
    ) -> Result<Self, DtlsError> {
        if fingerprints.is_empty() {
            return Err(DtlsError::NoFingerprint);
        }
        let wrong_fingerprint = Arc::new(AtomicBool::new(false));
        let fingerprints: Arc<[Fingerprint]> = fingerprints.into();
        let configure = |profiles: &[SrtpProtectionProfile]| {
            configure(identity, role, profiles, &fingerprints, &wrong_fingerprint)
        };
        let (config, fallbacks) = match role {
            Role::Client => (configure(&PROFILES)?, Vec::new()),
            Role::Server => {
                let [best, others @ ..] = &PROFILES;
                let others = others.iter().rev();
                let fallbacks = others.map(|one| configure(std::slice::from_ref(one)));
                (
                    configure(std::slice::from_ref(best))?,
                    fallbacks.collect::<Result<_, _>>()?,
                )
            }
        };
        Ok(Self {
            endpoint: new_endpoint(role, &config),
            config,
            fallbacks,
            hello: Vec::new(),
            role,
            state: State::Waiting,
            wrong_fingerprint,
            bytes_in: 0,
            datagrams_in: 0,
            records_in: 0,
            answered: false,
            late: false,
        })
    }

    /// Begins the handshake as a client; does nothing as a server or once begun.
    pub fn start(&mut self, now: Instant) -> Option<Event> {
        if self.role == Role::Server || self.state != State::Waiting {
            return None;
        }
        self.state = State::Handshaking {
            deadline: now + HANDSHAKE_DEADLINE,
        };
        self.connect(now)
    }

    fn connect(&mut self, now: Instant) -> Option<Event> {
        let config = Arc::clone(&self.config);
        match self.endpoint.connect(now, PEER, config, None) {
            Ok(()) => None,
            Err(e) => Some(self.fail(e.to_string())),
        }
    }

    /// Whether the handshake has ended well and the peer has not closed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether it failed because the peer did not finish in time, or was not there at all.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Handles a datagram of the peer.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) -> Option<Event> {
        if !is_dtls(datagram) {
            return None;
        }
        match self.state {
            State::Failed => return None,
            State::Waiting if self.role == Role::Client || !is_client_hello(datagram) => {
                return None;
            }
            State::Waiting | State::Handshaking { .. } => {}
            State::Connected => {
                if datagram[0] == HANDSHAKE_RECORD {
                    self.datagrams_in += 1;
                    if self.datagrams_in > MAX_LATE_DATAGRAMS {
                        return None;
                    }
                }
                // A bad record never ends an association that stands (RFC 6347 §4.1.2.7).
                let events = self.read(BytesMut::from(datagram), now).ok()?;
                return self.on_events(&events);
            }
        }
        self.bytes_in += datagram.len();
        self.datagrams_in += 1;
        if self.bytes_in > MAX_HANDSHAKE_BYTES || self.datagrams_in > MAX_HANDSHAKE_DATAGRAMS {
            return Some(self.fail("too much handshake data".to_owned()));
        }
        let records = acceptable(datagram, &mut self.records_in);
        if records.is_empty() {
            return None;
        }
        if self.role == Role::Server && !self.answered && is_client_hello(&records) {
            self.begin_again(now);
        }
        match self.read(records, now) {
            Ok(events) => self.on_events(&events),
            Err(_) if self.wrong_fingerprint.load(Ordering::Relaxed) => {
                Some(self.fail(
                    "the peer's certificate does not have the signalled fingerprint".to_owned(),
                ))
            }
            Err(
                e @ (Error::ErrServerNoMatchingSrtpProfile | Error::ErrClientNoMatchingSrtpProfile),
            ) => Some(self.fail(e.to_string())),
            // A message that makes no sense may be anybody's: the peer repeats its own, and the
            // deadline ends what comes to nothing.
            Err(_) => None,
        }
    }

    /// Before our first answer nothing that came is worth keeping when a handshake is begun again:
    /// what kept us from answering may not have been the peer's.
    fn begin_again(&mut self, now: Instant) {
        self.endpoint = new_endpoint(self.role, &self.config);
        self.hello.clear();
        self.state = State::Handshaking {
            deadline: now + HANDSHAKE_DEADLINE,
        };
    }

    fn read(&mut self, datagram: BytesMut, now: Instant) -> Result<Vec<EndpointEvent>, Error> {
        if !self.fallbacks.is_empty() {
            self.hello.push(datagram.clone());
        }
        let mut result = self.endpoint.read(now, PEER, None, datagram);
        while let Err(Error::ErrServerNoMatchingSrtpProfile) = result
            && let Some(config) = self.fallbacks.pop()
        {
            self.endpoint = new_endpoint(self.role, &config);
            self.config = config;
            let mut events = Vec::new();
            result = self
                .hello
                .iter()
                .try_for_each(|datagram| {
                    events.extend(self.endpoint.read(now, PEER, None, datagram.clone())?);
                    Ok(())
                })
                .map(|()| events);
        }
        result
    }

    fn on_events(&mut self, events: &[EndpointEvent]) -> Option<Event> {
        let mut outcome = None;
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    outcome = Some(match self.keys() {
                        Ok(keys) => {
                            self.state = State::Connected;
                            self.datagrams_in = 0;
                            Event::Connected(keys)
                        }
                        Err(reason) => self.fail(reason),
                    });
                }
                EndpointEvent::PeerClosed if self.state != State::Failed => {
                    outcome = Some(self.fail("the peer closed the DTLS association".to_owned()));
                }
                // No data channels: application data has no reader.
                _ => {}
            }
        }
        outcome
    }

    /// Exports the SRTP keys (RFC 5764 §4.2).
    fn keys(&self) -> Result<Keys, String> {
        let state = self
            .endpoint
            .get_connection_state(PEER)
            .ok_or("the association is gone")?;
        if self.wrong_fingerprint.load(Ordering::Relaxed) || state.peer_certificates.is_empty() {
            return Err("the peer showed no certificate".to_owned());
        }
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Profile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => Profile::AeadAes256Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Profile::Aes128CmSha1_80,
            _ => return Err("the peer negotiated no SRTP profile".to_owned()),
        };
        let (key, salt) = (profile.key_len(), profile.salt_len());
        let material = state
            .export_keying_material("EXTRACTOR-dtls_srtp", &[], 2 * (key + salt))
            .map_err(|e| e.to_string())?
            .into_bytes();
        let (keys, salts) = material.split_at(2 * key);
        let client = [&keys[..key], &salts[..salt]].concat();
        let server = [&keys[key..], &salts[salt..]].concat();
        let (local, remote) = match self.role {
            Role::Server => (server, client),
            Role::Client => (client, server),
        };
        Ok(Keys {
            profile,
            local,
            remote,
        })
    }

    fn fail(&mut self, reason: String) -> Event {
        self.state = State::Failed;
        Event::Failed(reason)
    }

    /// Repeats flights and keeps the deadline.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        let State::Handshaking { deadline } = self.state else {
            return None;
        };
        if now >= deadline {
            self.late = true;
            return Some(self.fail("the DTLS handshake did not end in time".to_owned()));
        }
        if self.endpoint.poll_timeout(&PEER).is_some()
            && self.endpoint.handle_timeout(PEER, now).is_err()
        {
            // The flights' own budget is spent before the deadline: begin again.
            self.endpoint = new_endpoint(self.role, &self.config);
            if self.role == Role::Client {
                return self.connect(now);
            }
        }
        None
    }

    /// When [`Association::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let State::Handshaking { deadline } = self.state else {
            return None;
        };
        Some(
            self.endpoint
                .poll_timeout(&PEER)
                .map_or(deadline, |flight| flight.min(deadline)),
        )
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        loop {
            let message = self.endpoint.poll_transmit()?.message;
            // An alert about a message that is not believed to be the peer's would end its side.
            let alert = message.first() == Some(&ALERT_RECORD);
            if alert && matches!(self.state, State::Handshaking { .. }) {
                continue;
            }
            // The hello was understood.
            self.answered = true;
            self.fallbacks = Vec::new();
            self.hello = Vec::new();
            return Some(message);
        }
    }

    /// Says goodbye to a connected peer.
    pub fn close(&mut self, now: Instant) {
        if self.state == State::Connected {
            let _ = self.endpoint.close(now);
            self.state = State::Failed;
        }
    }
}

fn new_endpoint(role: Role, config: &Arc<HandshakeConfig>) -> Endpoint {
    let server = (role == Role::Server).then(|| Arc::clone(config));
    Endpoint::new(PEER, Default::default(), server)
}

fn configure(
    identity: &Identity,
    role: Role,
    profiles: &[SrtpProtectionProfile],
    fingerprints: &Arc<[Fingerprint]>,
    wrong: &Arc<AtomicBool>,
) -> Result<Arc<HandshakeConfig>, DtlsError> {
    let (fingerprints, wrong) = (Arc::clone(fingerprints), Arc::clone(wrong));
    ConfigBuilder::default()
        .with_crypto_provider(Arc::clone(&identity.provider))
        .with_certificates(vec![identity.certificate.clone()])
        .with_srtp_protection_profiles(profiles.to_vec())
        .with_extended_master_secret(ExtendedMasterSecretType::Request)
        // The peer proves who it is by the fingerprint its signalling gave, not by a chain.
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_insecure_skip_verify(true)
        .with_verify_peer_certificate(Some(Arc::new(move |certificates, _| {
            let known = certificates
                .first()
                .is_some_and(|der| fingerprints.iter().any(|f| f.matches(der)));
            wrong.store(!known, Ordering::Relaxed);
            known.then_some(()).ok_or(Error::ErrInvalidCertificate)
        })))
        .with_flight_interval(FLIGHT_INTERVAL)
        .with_mtu(MTU)
        .with_server_name("rostrum".to_owned())
        .build(role == Role::Client, None)
        .map(Arc::new)
        .map_err(|e| DtlsError::Setup(e.to_string()))
}
