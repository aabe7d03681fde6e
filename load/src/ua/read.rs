//! The peer's half of offer and answer, read into a [`Remote`].

use std::net::SocketAddr;

use sip::sdp::attributes::{
    Candidate, Crypto, ExtMap, RtpMap, parse_fingerprint, parse_group, parse_ssrc, payload_type_of,
};
use sip::sdp::{MediaDescription, SessionDescription};
use switch_core::srtp::Profile;

use super::description::{AUDIO_LEVEL, Codec, Description, DescriptionError, MID, codecs, token};
use crate::leg::{Keys, Kind, LocalMedia, Protection, Remote, RemoteMedia};

/// Which half it is.
pub(super) enum Theirs {
    /// To our offer.
    Answer,
    /// Inside the session.
    Offer {
        /// Our side of the DTLS handshake that took place.
        dtls_client: bool,
    },
}

/// Where a line's transport is described: itself, or the first line of its BUNDLE group (RFC 9143 §7).
struct Bundled<'a> {
    mids: Vec<&'a str>,
    first: Option<&'a MediaDescription>,
}

impl<'a> Bundled<'a> {
    fn of(all: &'a SessionDescription) -> Self {
        let mids: Vec<&str> = all
            .session
            .all("group")
            .filter_map(parse_group)
            .find(|(semantics, _)| semantics.eq_ignore_ascii_case("BUNDLE"))
            .map(|(_, mids)| mids)
            .unwrap_or_default();
        let first = mids
            .first()
            .and_then(|mid| all.media.iter().find(|m| m.mid() == Some(*mid)));
        Self { mids, first }
    }

    fn transport(&self, media: &'a MediaDescription) -> &'a MediaDescription {
        match (media.mid(), self.first) {
            (Some(mid), Some(first)) if self.mids.contains(&mid) => first,
            _ => media,
        }
    }
}

pub(super) fn remote(
    ours: &Description,
    theirs: &SessionDescription,
    half: &Theirs,
) -> Result<Remote, DescriptionError> {
    let bundled = Bundled::of(theirs);
    let mut media = Vec::new();
    let mut ice = None;
    for (index, (line, local)) in theirs.media.iter().zip(&ours.local.media).enumerate() {
        let refused = line.port == 0 && !line.section.has("bundle-only");
        if refused || !line.kind.eq_ignore_ascii_case(token(local.kind)) {
            continue;
        }
        let transport = bundled.transport(line);
        if ours.protection == Protection::Dtls && ice.is_none() {
            let of = |name| theirs.inherited(transport, name).map(str::to_owned);
            ice = of("ice-ufrag").zip(of("ice-pwd"));
        }
        media.push(self::line(ours, theirs, half, index, line, transport)?);
    }
    if media.is_empty() {
        return Err(DescriptionError::NothingAccepted);
    }
    if ours.protection == Protection::Dtls && ice.is_none() {
        return Err(DescriptionError::NoIce);
    }
    Ok(Remote { media, ice })
}

fn line(
    ours: &Description,
    all: &SessionDescription,
    half: &Theirs,
    index: usize,
    line: &MediaDescription,
    transport: &MediaDescription,
) -> Result<RemoteMedia, DescriptionError> {
    let local = &ours.local.media[index];
    let address = address(ours.protection, all, transport, local)
        .ok_or(DescriptionError::NoAddress(index))?;
    let agreed = common(line, local.kind);
    let spoken = agreed
        .iter()
        .find(|(_, codec)| codec.name != "telephone-event")
        .ok_or(DescriptionError::NoCodec(index))?;
    // What comes has the numbers of whoever receives (RFC 3264 §5.1): in an answer to us, those of our offer.
    let accepted = agreed.iter().map(|(theirs, codec)| {
        let number = match half {
            Theirs::Answer => codec.payload_type,
            Theirs::Offer { .. } => *theirs,
        };
        (number, codec.name.to_owned(), codec.clock_rate)
    });
    let accepted = accepted.collect();
    let (they_send, they_take) = direction(all, line);
    // RFC 2543's way of putting on hold.
    let held = address.ip().is_unspecified();
    let extensions: Vec<ExtMap> = line
        .section
        .all("extmap")
        .filter_map(ExtMap::parse)
        .collect();
    let extension = |uri: &str| {
        let found = extensions.iter().find(|map| map.uri == uri);
        found.map(|map| map.id)
    };
    let mid = line
        .mid()
        .and_then(|mid| Some((extension(MID)?, mid.to_owned())));
    let mut ssrcs = Vec::new();
    for (ssrc, ..) in line.section.all("ssrc").filter_map(parse_ssrc) {
        if !ssrcs.contains(&ssrc) {
            ssrcs.push(ssrc);
        }
    }
    Ok(RemoteMedia {
        kind: local.kind,
        index,
        address,
        rtcp: rtcp(line, address),
        codec: (spoken.0, spoken.1.name.to_owned(), spoken.1.clock_rate),
        accepted,
        audio_level: extension(AUDIO_LEVEL).filter(|_| local.kind == Kind::Audio),
        mid,
        sends: they_take && !held && ours.sends(index),
        receives: they_send,
        ssrcs,
        keys: keys(ours.protection, all, half, line, transport, local)
            .ok_or(DescriptionError::NoKeys(index))?,
    })
}

/// Codecs of ours that a line has, in its order, with its payload types.
pub(super) fn common(line: &MediaDescription, kind: Kind) -> Vec<(u8, &'static Codec)> {
    let maps: Vec<RtpMap> = line
        .section
        .all("rtpmap")
        .filter_map(RtpMap::parse)
        .collect();
    let ours = codecs(kind);
    let codec_of = |pt: u8| match maps.iter().find(|map| map.payload_type == pt) {
        Some(map) => ours.iter().find(|codec| {
            codec.name.eq_ignore_ascii_case(&map.name) && codec.clock_rate == map.clock_rate
        }),
        // Static ones need no rtpmap (RFC 3551 §6); some answer without one for others of our offer, too.
        None => ours.iter().find(|codec| codec.payload_type == pt),
    };
    let formats = line.formats.iter().filter_map(|f| payload_type_of(f));
    formats.filter_map(|pt| Some((pt, codec_of(pt)?))).collect()
}

/// Where a line's media go.
fn address(
    protection: Protection,
    all: &SessionDescription,
    line: &MediaDescription,
    local: &LocalMedia,
) -> Option<SocketAddr> {
    let written = all
        .connection(line)
        .and_then(|c| c.ip)
        .map(|ip| SocketAddr::new(ip, line.port));
    if protection != Protection::Dtls {
        return written.filter(|a| a.port() != 0);
    }
    let candidates = line.section.all("candidate").filter_map(Candidate::parse);
    let best = candidates
        .filter(|c| c.component == 1 && c.transport == "udp" && c.port != 0)
        .filter_map(|c| Some((c.priority, SocketAddr::new(c.ip?, c.port))))
        .filter(|(_, address)| address.is_ipv4() == local.address.is_ipv4())
        .max_by_key(|(priority, _)| *priority);
    best.map(|(_, address)| address)
        // Port 9 stands for "none yet" (RFC 8840 §4.1.1).
        .or(written.filter(|a| !matches!(a.port(), 0 | 9) && !a.ip().is_unspecified()))
}

/// Where RTCP goes when not to the same port: one above (RFC 3550 §11), or as `a=rtcp` says (RFC 3605).
fn rtcp(line: &MediaDescription, address: SocketAddr) -> Option<SocketAddr> {
    if line.section.has("rtcp-mux") {
        return None;
    }
    let Some(written) = line.section.attribute("rtcp") else {
        return Some(SocketAddr::new(
            address.ip(),
            address.port().checked_add(1)?,
        ));
    };
    let mut words = written.split_ascii_whitespace();
    let port = words.next()?.parse().ok()?;
    let ip = words.nth(2).and_then(|ip| ip.parse().ok());
    Some(SocketAddr::new(ip.unwrap_or(address.ip()), port))
}

/// Whether the peer sends, and takes.
fn direction(all: &SessionDescription, line: &MediaDescription) -> (bool, bool) {
    let of = |section: &sip::sdp::Section| {
        section.attributes().find_map(|(name, _)| match name {
            "sendrecv" => Some((true, true)),
            "sendonly" => Some((true, false)),
            "recvonly" => Some((false, true)),
            "inactive" => Some((false, false)),
            _ => None,
        })
    };
    of(&line.section)
        .or_else(|| of(&all.session))
        .unwrap_or((true, true))
}

fn profile(suite: &str) -> Option<Profile> {
    [
        Profile::AeadAes128Gcm,
        Profile::AeadAes256Gcm,
        Profile::Aes128CmSha1_80,
        Profile::Aes128CmSha1_32,
    ]
    .into_iter()
    .find(|profile| profile.name().eq_ignore_ascii_case(suite))
}

/// The first crypto line of the peer's whose suite is one of ours.
pub(super) fn crypto(line: &MediaDescription, local: &LocalMedia) -> Option<(Crypto, Profile)> {
    line.section
        .all("crypto")
        .filter_map(Crypto::parse)
        .find_map(|crypto| {
            let profile = profile(&crypto.suite)?;
            let fits = crypto.key_salt.len() == profile.key_len() + profile.salt_len()
                && local.keys.iter().any(|(ours, _)| *ours == profile);
            fits.then_some((crypto, profile))
        })
}

fn keys(
    protection: Protection,
    all: &SessionDescription,
    half: &Theirs,
    line: &MediaDescription,
    transport: &MediaDescription,
    local: &LocalMedia,
) -> Option<Keys> {
    match protection {
        Protection::Plain => Some(Keys::Plain),
        Protection::Sdes => {
            let (crypto, profile) = crypto(line, local)?;
            Some(Keys::Sdes {
                profile,
                remote: crypto.key_salt,
            })
        }
        Protection::Dtls => {
            let fingerprints: Vec<_> = all
                .all_inherited(transport, "fingerprint")
                .into_iter()
                .filter_map(parse_fingerprint)
                .collect();
            let best = fingerprints.iter().find(|(name, _)| name == "sha-256");
            let fingerprint = best.or(fingerprints.first())?.clone();
            let client = match (all.inherited(transport, "setup").map(str::trim), half) {
                (Some("active"), _) => false,
                (Some("passive"), _) => true,
                (_, Theirs::Offer { dtls_client }) => *dtls_client,
                // RFC 4145 §4.1: an answer without the attribute is active.
                (_, Theirs::Answer) => false,
            };
            Some(Keys::Dtls {
                client,
                fingerprint,
            })
        }
    }
}
