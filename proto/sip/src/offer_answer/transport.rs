//! What an m-line says about its 5-tuple: address, keys, ICE, and whether RTCP shares the port.

use std::net::IpAddr;

use super::line::harmless;
use super::{Ice, Policy, Profile, Random, Security, SrtpSuite, TransportPlan};
use crate::sdp::attributes::{Candidate, Crypto, parse_fingerprint};
use crate::sdp::{MediaDescription, SessionDescription};

/// Fingerprints kept of one peer.
const MAX_FINGERPRINTS: usize = 8;
/// RFC 8839 §5.4.
const MAX_ICE_CREDENTIAL: usize = 256;
/// "discard": what clients write before they know a port (RFC 8840 §4.1.1).
const DISCARD_PORT: u16 = 9;

/// The peer's half of a transport.
#[derive(Clone, Debug)]
pub(super) struct PeerTransport {
    pub security: PeerSecurity,
    /// ufrag and pwd, where the peer does full ICE.
    pub ice: Option<(String, String)>,
    pub rtcp_mux: bool,
    pub remote: Option<(IpAddr, u16)>,
    pub remote_rtcp_port: Option<u16>,
    pub ipv6: bool,
}

#[derive(Clone, Debug)]
pub(super) enum PeerSecurity {
    Plain,
    Sdes {
        suite: SrtpSuite,
        tag: u32,
        key: Vec<u8>,
    },
    Dtls {
        fingerprints: Vec<(String, Vec<u8>)>,
        setup: Setup,
    },
}

/// `a=setup` (RFC 4145 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    Active,
    Passive,
    /// Also where it is left out or `holdconn`.
    Actpass,
}

/// Reads the transport of an m-line; the text says why it cannot be used.
pub(super) fn read(
    sdp: &SessionDescription,
    media: &MediaDescription,
    policy: &Policy,
) -> Result<PeerTransport, String> {
    let security = security(sdp, media, policy)?;
    let connection = sdp.connection(media);
    let address = connection.as_ref().and_then(|c| c.ip);
    let remote = address
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        .filter(|_| !matches!(media.port, 0 | DISCARD_PORT))
        .map(|ip| (ip, media.port));
    let rtcp_mux = media.section.has("rtcp-mux") || media.section.has("rtcp-mux-only");
    let rtcp = media
        .section
        .attribute("rtcp")
        .and_then(|value| value.split_ascii_whitespace().next())
        .and_then(|port| port.parse::<u16>().ok())
        .filter(|port| !matches!(*port, 0 | DISCARD_PORT));
    Ok(PeerTransport {
        security,
        ice: ice(sdp, media, remote),
        rtcp_mux,
        remote,
        remote_rtcp_port: if rtcp_mux {
            None
        } else {
            // RFC 3605: elsewhere only if it says so, else the next port.
            remote.and_then(|(_, port)| rtcp.or(port.checked_add(1)))
        },
        ipv6: connection.is_some_and(|c| c.ipv6),
    })
}

fn security(
    sdp: &SessionDescription,
    media: &MediaDescription,
    policy: &Policy,
) -> Result<PeerSecurity, String> {
    let sctp = ["UDP/DTLS/SCTP", "DTLS/SCTP"]
        .iter()
        .any(|p| p.eq_ignore_ascii_case(&media.protocol));
    // A data channel is never accepted, but its m-line may be the one that describes a BUNDLE transport.
    let profile = if sctp {
        Profile::UdpTlsSavpf
    } else {
        Profile::parse(&media.protocol)
            .ok_or_else(|| format!("transport {} is not supported", harmless(&media.protocol)))?
    };
    match profile {
        Profile::UdpTlsSavp | Profile::UdpTlsSavpf => dtls(sdp, media)
            .ok_or_else(|| format!("{} without a usable a=fingerprint", profile.as_str())),
        Profile::Savp | Profile::Savpf => match sdes(sdp, media, policy) {
            Ok(Some(sdes)) => Ok(sdes),
            // Stacks older than RFC 5764's names wrote RTP/SAVPF for DTLS-SRTP.
            Ok(None) => dtls(sdp, media)
                .ok_or_else(|| format!("{} without a=crypto or a=fingerprint", profile.as_str())),
            Err(text) => Err(text),
        },
        // Encryption where both can (RFC 8643 §3): keys offered on a plain profile.
        Profile::Avp | Profile::Avpf => {
            let keyed = match sdes(sdp, media, policy) {
                Ok(Some(sdes)) => Some(sdes),
                _ => dtls(sdp, media),
            };
            match keyed {
                Some(keyed) => Ok(keyed),
                None if policy.require_srtp => Err(format!(
                    "unencrypted {} offered, but this meeting takes only SRTP",
                    profile.as_str()
                )),
                None => Ok(PeerSecurity::Plain),
            }
        }
    }
}

/// The best crypto line by our preference; `None` where there is none at all.
fn sdes(
    sdp: &SessionDescription,
    media: &MediaDescription,
    policy: &Policy,
) -> Result<Option<PeerSecurity>, String> {
    let lines = sdp.all_inherited(media, "crypto");
    let offered: Vec<Crypto> = lines.iter().filter_map(|l| Crypto::parse(l)).collect();
    for &suite in &policy.suites {
        let fitting = offered.iter().find(|crypto| {
            crypto.suite.eq_ignore_ascii_case(suite.as_str())
                && crypto.key_salt.len() == suite.key_length()
        });
        if let Some(crypto) = fitting {
            return Ok(Some(PeerSecurity::Sdes {
                suite,
                tag: crypto.tag,
                key: crypto.key_salt.clone(),
            }));
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = lines
        .iter()
        .take(8)
        .filter_map(|line| line.split_ascii_whitespace().nth(1))
        .map(harmless)
        .collect();
    let ours: Vec<_> = policy.suites.iter().map(|suite| suite.as_str()).collect();
    Err(format!(
        "no usable SRTP suite: offered {}; we speak {}",
        names.join(", "),
        ours.join(", ")
    ))
}

fn dtls(sdp: &SessionDescription, media: &MediaDescription) -> Option<PeerSecurity> {
    let fingerprints: Vec<_> = sdp
        .all_inherited(media, "fingerprint")
        .into_iter()
        .filter_map(parse_fingerprint)
        .filter(|(algorithm, digest)| Some(digest.len()) == digest_length(algorithm))
        .take(MAX_FINGERPRINTS)
        .collect();
    let setup = match sdp.inherited(media, "setup").map(str::trim) {
        Some("active") => Setup::Active,
        Some("passive") => Setup::Passive,
        _ => Setup::Actpass,
    };
    (!fingerprints.is_empty()).then_some(PeerSecurity::Dtls {
        fingerprints,
        setup,
    })
}

/// Octets of a digest; `None` for hash functions we do not check (RFC 8122 §5 forbids MD2 and MD5).
fn digest_length(algorithm: &str) -> Option<usize> {
    match algorithm {
        "sha-1" => Some(20),
        "sha-224" => Some(28),
        "sha-256" => Some(32),
        "sha-384" => Some(48),
        "sha-512" => Some(64),
        _ => None,
    }
}

/// The peer's ICE credentials, where ICE can be used with it.
fn ice(
    sdp: &SessionDescription,
    media: &MediaDescription,
    remote: Option<(IpAddr, u16)>,
) -> Option<(String, String)> {
    // Two lite agents never check: then the address of c=/m= is all there is (RFC 8445 §6.1.1).
    if sdp.session.has("ice-lite") {
        return None;
    }
    let usable = |text: &str| {
        !text.is_empty()
            && text.len() <= MAX_ICE_CREDENTIAL
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'))
    };
    let credential = |name| sdp.inherited(media, name).filter(|text| usable(text));
    let (ufrag, pwd) = (credential("ice-ufrag")?, credential("ice-pwd")?);
    (!mismatch(sdp, media, remote)).then(|| (ufrag.to_owned(), pwd.to_owned()))
}

/// Something on the way changed c= or m= but not the candidates (RFC 8839 §5.4): ICE would lead past it.
fn mismatch(
    sdp: &SessionDescription,
    media: &MediaDescription,
    remote: Option<(IpAddr, u16)>,
) -> bool {
    let Some((ip, port)) = remote else {
        return false;
    };
    let trickles = |options: &str| options.split_ascii_whitespace().any(|o| o == "trickle");
    if sdp.session.all("ice-options").any(trickles)
        || media.section.all("ice-options").any(trickles)
    {
        return false;
    }
    let mut any = false;
    for candidate in media.section.all("candidate").filter_map(Candidate::parse) {
        match candidate.ip {
            Some(address) if address != ip || candidate.port != port => any = true,
            // It is there, or it hides behind a name (mDNS).
            _ => return false,
        }
    }
    any
}

/// Our half of a peer's transport; with `previous` the keys and credentials that may stay do.
pub(super) fn settle(
    index: usize,
    peer: PeerTransport,
    previous: Option<&TransportPlan>,
    random: &mut dyn Random,
) -> TransportPlan {
    let ice = peer.ice.map(|(remote_ufrag, remote_pwd)| {
        let kept = previous.and_then(|t| t.ice.as_ref()).filter(|ice| {
            // Not known yet: this is the answer to an offer of ours.
            ice.remote_ufrag.is_empty()
                // Changed: the peer restarts ICE, and so must we (RFC 8839 §4.4.1.1.1).
                || (ice.remote_ufrag == remote_ufrag && ice.remote_pwd == remote_pwd)
        });
        let (local_ufrag, local_pwd) = match kept {
            Some(ice) => (ice.local_ufrag.clone(), ice.local_pwd.clone()),
            None => (ice_text(random, 8), ice_text(random, 24)),
        };
        Ice {
            local_ufrag,
            local_pwd,
            remote_ufrag,
            remote_pwd,
        }
    });
    let security = match peer.security {
        PeerSecurity::Plain => Security::Plain,
        PeerSecurity::Sdes { suite, tag, key } => Security::Sdes {
            suite,
            tag,
            local_key: match previous.map(|t| &t.security) {
                Some(Security::Sdes {
                    suite: old,
                    local_key,
                    ..
                }) if *old == suite => local_key.clone(),
                _ => random_key(random, suite),
            },
            remote_key: key,
        },
        PeerSecurity::Dtls {
            fingerprints,
            setup,
        } => {
            // An association that stays keeps its roles (RFC 8842 §5.5).
            let client_before = match previous.map(|t| &t.security) {
                Some(Security::Dtls {
                    remote_fingerprints,
                    client,
                }) if *remote_fingerprints == fingerprints => *client,
                _ => false,
            };
            Security::Dtls {
                remote_fingerprints: fingerprints,
                client: match setup {
                    Setup::Active => false,
                    Setup::Passive => true,
                    Setup::Actpass => client_before,
                },
            }
        }
    };
    TransportPlan {
        index,
        security,
        ice,
        rtcp_mux: peer.rtcp_mux,
        remote: peer.remote,
        remote_rtcp_port: peer.remote_rtcp_port,
        ipv6: peer.ipv6,
    }
}

/// Draws new SDES keys for what we send: a sender that starts anew, without its roll-over counters, must
/// not use the old ones (RFC 3711 §9.1). `false` where there are none.
pub fn renew_keys(plan: &mut super::Plan, random: &mut dyn Random) -> bool {
    let mut renewed = false;
    for transport in &mut plan.transports {
        if let Security::Sdes {
            suite, local_key, ..
        } = &mut transport.security
        {
            *local_key = random_key(random, *suite);
            renewed = true;
        }
    }
    renewed
}

/// A fresh SDES master key and salt.
pub(super) fn random_key(random: &mut dyn Random, suite: SrtpSuite) -> Vec<u8> {
    let mut key = vec![0; suite.key_length()];
    random.fill(&mut key);
    key
}

/// `length` ice-chars (RFC 8839 §5.4), six random bits each.
pub(super) fn ice_text(random: &mut dyn Random, length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 63)]))
        .collect()
}
