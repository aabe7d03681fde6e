//! Typed readings of attribute values. Each `parse` takes what follows the colon and returns `None` for
//! what it cannot read: offer/answer ignores such an attribute rather than refusing the whole description.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// `a=rtpmap` (RFC 8866 §6.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpMap {
    /// 0 to 127.
    pub payload_type: u8,
    /// Encoding name as written; compared without case (RFC 4855 §3).
    pub name: String,
    /// Hz.
    pub clock_rate: u32,
    /// Audio channels; 1 where not written.
    pub channels: u8,
}

impl RtpMap {
    #[allow(missing_docs)]
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (payload_type, rest) = value.trim().split_once(' ')?;
        let mut parts = rest.trim().split('/');
        let name = parts.next()?.trim();
        let clock_rate: u32 = parts.next()?.trim().parse().ok()?;
        let channels = match parts.next() {
            Some(channels) => channels.trim().parse().ok()?,
            None => 1,
        };
        (!name.is_empty() && clock_rate > 0).then_some(())?;
        Some(Self {
            payload_type: payload_type_of(payload_type)?,
            name: name.to_owned(),
            clock_rate,
            channels,
        })
    }
}

/// Reads a payload type: 0 to 127.
#[must_use]
pub fn payload_type_of(text: &str) -> Option<u8> {
    text.parse().ok().filter(|pt| *pt < 128)
}

/// Splits `a=fmtp` into payload type and parameters (RFC 8866 §6.15).
#[must_use]
pub fn parse_fmtp(value: &str) -> Option<(u8, &str)> {
    let (payload_type, parameters) = value.trim().split_once(' ')?;
    Some((payload_type_of(payload_type)?, parameters.trim()))
}

/// One `name=value` of an fmtp; names without case.
#[must_use]
pub fn fmtp_parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim()
            .eq_ignore_ascii_case(name)
            .then_some(value.trim())
    })
}

/// `a=rtcp-fb` (RFC 4585 §4.2): payload type (`None` = `*`) and the feedback, single-spaced.
#[must_use]
pub fn parse_rtcp_fb(value: &str) -> Option<(Option<u8>, String)> {
    let mut words = value.split_ascii_whitespace();
    let payload_type = match words.next()? {
        "*" => None,
        number => Some(payload_type_of(number)?),
    };
    let feedback = words.collect::<Vec<_>>().join(" ");
    (!feedback.is_empty()).then_some((payload_type, feedback))
}

/// `a=extmap` (RFC 8285 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtMap {
    /// 1 to 255; others are not taken.
    pub id: u8,
    /// "sendonly", ... as written after the id.
    pub direction: Option<String>,
    /// The URI.
    pub uri: String,
}

impl ExtMap {
    #[allow(missing_docs)]
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let (id, uri) = (words.next()?, words.next()?);
        let (id, direction) = match id.split_once('/') {
            Some((id, direction)) => (id, Some(direction.to_owned())),
            None => (id, None),
        };
        Some(Self {
            id: id.parse().ok().filter(|id| *id > 0)?,
            direction,
            uri: uri.to_owned(),
        })
    }
}

/// `a=fingerprint` (RFC 8122 §5): algorithm in lower case, and digest.
#[must_use]
pub fn parse_fingerprint(value: &str) -> Option<(String, Vec<u8>)> {
    let (algorithm, digest) = value.trim().split_once(' ')?;
    let digest = digest
        .trim()
        .split(':')
        .map(|byte| {
            let mut octet = [0];
            hex::decode_to_slice(byte, &mut octet).ok()?;
            Some(octet[0])
        })
        .collect::<Option<Vec<u8>>>()?;
    Some((algorithm.to_ascii_lowercase(), digest))
}

/// Prints a digest as `a=fingerprint` does: upper-case hex with colons.
#[must_use]
pub fn print_digest(digest: &[u8]) -> String {
    let mut text = hex::encode_upper(digest);
    for at in (1..digest.len()).rev() {
        text.insert(at * 2, ':');
    }
    text
}

/// `a=crypto` (RFC 4568 §9.1). A line with an MKI, several keys or session parameters that change how
/// packets look is not taken: it would have to be obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crypto {
    /// Chosen by the offerer, echoed by the answerer.
    pub tag: u32,
    /// Suite name as written.
    pub suite: String,
    /// Master key and master salt.
    pub key_salt: Vec<u8>,
}

impl Crypto {
    #[allow(missing_docs)]
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next()?.parse().ok()?;
        let suite = words.next()?.to_owned();
        let key = words.next()?;
        // WSH is only a hint for the replay window (§6.3.7).
        if words.any(|parameter| !parameter.starts_with("WSH=")) || key.contains(';') {
            return None;
        }
        let (method, info) = key.split_once(':')?;
        if !method.eq_ignore_ascii_case("inline") {
            return None;
        }
        let mut parts = info.split('|');
        let encoded = parts.next()?;
        // A lifetime has no colon; an MKI has.
        if parts.any(|part| part.contains(':')) {
            return None;
        }
        let encoded = encoded.trim_end_matches('=');
        Some(Self {
            tag,
            suite,
            key_salt: STANDARD_NO_PAD.decode(encoded).ok()?,
        })
    }
}

impl fmt::Display for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode(&self.key_salt);
        write!(f, "{} {} inline:{key}", self.tag, self.suite)
    }
}

/// `a=candidate` (RFC 8839 §5.1), extensions left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Same for candidates of one base, type and server.
    pub foundation: String,
    /// 1 RTP, 2 RTCP.
    pub component: u16,
    /// "udp", "tcp", in lower case.
    pub transport: String,
    /// Higher is better.
    pub priority: u32,
    /// Address, or an mDNS name where `ip` is `None`.
    pub host: String,
    /// The address, if it is one.
    pub ip: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// "host", "srflx", "prflx", "relay".
    pub kind: String,
}

impl Candidate {
    #[allow(missing_docs)]
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let mut next = || words.next();
        let candidate = Self {
            foundation: next()?.to_owned(),
            component: next()?.parse().ok()?,
            transport: next()?.to_ascii_lowercase(),
            priority: next()?.parse().ok()?,
            host: next()?.to_owned(),
            ip: None,
            port: next()?.parse().ok()?,
            kind: (next()? == "typ").then(&mut next)??.to_owned(),
        };
        Some(Self {
            ip: candidate.host.parse().ok(),
            ..candidate
        })
    }

    /// Priority of a host candidate (RFC 8445 §5.1.2.1): `rank` 0 is the best local address.
    #[must_use]
    pub fn host_priority(rank: u16, component: u16) -> u32 {
        const HOST: u32 = 126;
        let local = u32::from(u16::MAX - rank);
        (HOST << 24) | (local << 8) | (256 - u32::from(component.min(255)))
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {} {} typ {}",
            self.foundation,
            self.component,
            self.transport,
            self.priority,
            self.host,
            self.port,
            self.kind
        )
    }
}

/// `a=ssrc` (RFC 5576 §4.1): the SSRC, the attribute's name and its value.
#[must_use]
pub fn parse_ssrc(value: &str) -> Option<(u32, &str, &str)> {
    let (ssrc, attribute) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
    Some((ssrc.parse().ok()?, name.trim(), value))
}

/// `a=ssrc-group` (RFC 5576 §4.2) and `a=group` (RFC 5888): semantics and members.
#[must_use]
pub fn parse_group(value: &str) -> Option<(&str, Vec<&str>)> {
    let mut words = value.split_ascii_whitespace();
    Some((words.next()?, words.collect()))
}
