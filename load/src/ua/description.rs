//! Our half of offer and answer (RFC 3264): what a participant offers, and what it answers a re-offer with.

use std::net::{IpAddr, SocketAddr};

use sip::sdp::attributes::{Candidate, Crypto, ExtMap, print_digest};
use sip::sdp::{MediaDescription, SessionDescription};

use super::read::{self, Theirs};
use crate::leg::{Keys, Kind, Local, LocalMedia, Protection, Remote};

/// URI of the client-to-mixer audio level (RFC 6464).
pub(super) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// URI of the MID header extension (RFC 9143 §15).
pub(super) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// Header extension ids we offer: below 15, so that they fit one-byte headers (RFC 8285 §4.2).
const AUDIO_LEVEL_ID: u8 = 1;
const MID_ID: u8 = 3;

/// A codec as we offer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codec {
    /// Payload type in our offers.
    pub payload_type: u8,
    /// Encoding name.
    pub name: &'static str,
    /// Hz.
    pub clock_rate: u32,
    /// As in rtpmap; 1 is not written.
    channels: u8,
    fmtp: Option<&'static str>,
}

const fn codec(
    payload_type: u8,
    name: &'static str,
    clock_rate: u32,
    channels: u8,
    fmtp: Option<&'static str>,
) -> Codec {
    Codec {
        payload_type,
        name,
        clock_rate,
        channels,
        fmtp,
    }
}

const AUDIO: [Codec; 4] = [
    codec(
        111,
        "opus",
        48_000,
        2,
        Some("minptime=10;useinbandfec=1;usedtx=1"),
    ),
    codec(0, "PCMU", 8_000, 1, None),
    codec(126, "telephone-event", 48_000, 1, Some("0-16")),
    codec(101, "telephone-event", 8_000, 1, Some("0-16")),
];

const VIDEO: [Codec; 1] = [codec(96, "VP8", 90_000, 1, None)];

/// What we offer for a kind of media, best first.
pub(super) fn codecs(kind: Kind) -> &'static [Codec] {
    match kind {
        Kind::Audio => &AUDIO,
        Kind::Video => &VIDEO,
    }
}

pub(super) fn token(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    }
}

fn protocol(protection: Protection) -> &'static str {
    match protection {
        Protection::Plain => "RTP/AVP",
        Protection::Sdes => "RTP/SAVP",
        Protection::Dtls => "UDP/TLS/RTP/SAVPF",
    }
}

/// Why a description of the peer's cannot be gone along with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// Not SDP.
    #[error("{0}")]
    NotSdp(#[from] sip::sdp::SdpError),
    /// It has no body.
    #[error("there is no SDP in it")]
    Missing,
    /// Fewer m-lines than ours (RFC 3264 §6).
    #[error("the answer has {answered} m-lines where the offer has {offered}")]
    Count {
        /// Ours.
        offered: usize,
        /// Theirs.
        answered: usize,
    },
    /// Port 0 everywhere.
    #[error("every m-line is refused")]
    NothingAccepted,
    /// No usable address.
    #[error("m-line {0} has no address that can be sent to")]
    NoAddress(usize),
    /// No codec of ours.
    #[error("m-line {0} has no codec that was offered")]
    NoCodec(usize),
    /// Protection as asked for was not granted.
    #[error("m-line {0} is answered without the keys that were asked for")]
    NoKeys(usize),
    /// DTLS without ICE credentials.
    #[error("there are no ICE credentials")]
    NoIce,
}

/// Offer and answer of one participant.
#[derive(Debug)]
pub struct Description {
    pub(super) local: Local,
    pub(super) protection: Protection,
    /// Sends video where there is any; the others only receive it.
    speaks: bool,
    id: u64,
    version: u64,
    /// The last one that was sent, `o=` left out.
    body: Option<String>,
}

impl Description {
    /// Of a participant who has yet to offer. `id` goes into `o=` and keeps sessions apart (RFC 8866 §5.2).
    #[must_use]
    pub fn new(local: Local, protection: Protection, speaks: bool, id: u64) -> Self {
        Self {
            local,
            protection,
            speaks,
            // RFC 3264 §5: must fit 62 bits
            id: id >> 2,
            version: 1,
            body: None,
        }
    }

    /// The offer, or, later on, what is in force.
    pub fn offer(&mut self) -> String {
        let body = match self.body.take() {
            Some(body) => body,
            None => self.first_offer(),
        };
        self.body = Some(body.clone());
        self.whole(&body)
    }

    /// What the peer's answer to [`Self::offer`] makes of it.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn read_answer(&self, body: &[u8]) -> Result<Remote, DescriptionError> {
        let theirs = parse(body)?;
        if theirs.media.len() < self.local.media.len() {
            return Err(DescriptionError::Count {
                offered: self.local.media.len(),
                answered: theirs.media.len(),
            });
        }
        read::remote(self, &theirs, &Theirs::Answer)
    }

    /// Answers an offer of the peer's inside the session with the same media, and says what is agreed on then.
    /// `dtls_client`: which side we are of the handshake that took place.
    ///
    /// # Errors
    /// [`DescriptionError`]; the offer deserves a 488, and all stays as it was.
    pub fn answer(
        &mut self,
        offer: &[u8],
        dtls_client: bool,
    ) -> Result<(String, Remote), DescriptionError> {
        let theirs = parse(offer)?;
        let remote = read::remote(self, &theirs, &Theirs::Offer { dtls_client })?;
        let body = self.answer_body(&theirs, &remote);
        // RFC 3264 §8: the version goes up where something changed, and only there.
        if self.body.as_ref() != Some(&body) {
            self.version += 1;
            self.body = Some(body.clone());
        }
        Ok((self.whole(&body), remote))
    }

    /// Whether we send on the m-line.
    pub(super) fn sends(&self, index: usize) -> bool {
        match self.local.media.get(index).map(|m| m.kind) {
            // a second line of a kind is one more to hear or see somebody by
            Some(kind) => self.is_first(index, kind) && (kind == Kind::Audio || self.speaks),
            None => false,
        }
    }

    fn is_first(&self, index: usize, kind: Kind) -> bool {
        self.local.media.iter().position(|m| m.kind == kind) == Some(index)
    }

    fn address(&self) -> IpAddr {
        let first = self.local.media.first().map(|m| m.address);
        first.map_or(IpAddr::from([127, 0, 0, 1]), |a: SocketAddr| a.ip())
    }

    fn whole(&self, body: &str) -> String {
        let (id, version, at) = (self.id, self.version, connection(self.address()));
        format!("v=0\r\no=- {id} {version} {at}\r\n{body}")
    }

    /// Session part without `v=` and `o=`.
    fn session(&self, bundle: &[String]) -> SessionDescription {
        let mut all = SessionDescription::default();
        all.session.push('s', "-");
        all.session.push('c', connection(self.address()));
        all.session.push('t', "0 0");
        if self.protection == Protection::Dtls && !bundle.is_empty() {
            let group = format!("BUNDLE {}", bundle.join(" "));
            all.session.push_attribute("group", group);
        }
        all
    }

    fn first_offer(&self) -> String {
        let mids: Vec<String> = (0..self.local.media.len()).map(|i| i.to_string()).collect();
        let mut all = self.session(&mids);
        for (index, ours) in self.local.media.iter().enumerate() {
            let direction = match self.sends(index) {
                true => "sendrecv",
                false => "recvonly",
            };
            let codecs: Vec<(u8, &Codec)> = codecs(ours.kind)
                .iter()
                .map(|codec| (codec.payload_type, codec))
                .collect();
            // RFC 9143 §7.2.1: an address of its own, or none and bundle-only.
            let bundle_only = self.protection == Protection::Dtls && index > 0;
            let mut media = self.media(ours, protocol(self.protection), &codecs, direction);
            if bundle_only {
                media.port = 0;
                media.section.push_flag("bundle-only");
            }
            media.section.push_attribute("mid", index);
            if ours.kind == Kind::Audio {
                extension(&mut media, AUDIO_LEVEL_ID, AUDIO_LEVEL);
            }
            extension(&mut media, MID_ID, MID);
            for (n, (profile, key)) in ours.keys.iter().enumerate() {
                let crypto = Crypto {
                    tag: n as u32 + 1,
                    suite: profile.name().into(),
                    key_salt: key.clone(),
                };
                media.section.push_attribute("crypto", crypto);
            }
            self.push_dtls(&mut media, ours, "actpass", !bundle_only);
            all.media.push(media);
        }
        without_version_line(&all)
    }

    fn answer_body(&self, theirs: &SessionDescription, remote: &Remote) -> String {
        let taken = |index: usize| remote.media.iter().find(|m| m.index == index);
        let mids: Vec<String> = theirs
            .media
            .iter()
            .enumerate()
            .filter(|(index, _)| taken(*index).is_some())
            .filter_map(|(_, media)| media.mid().map(str::to_owned))
            .collect();
        let mut all = self.session(&mids);
        for (index, offered) in theirs.media.iter().enumerate() {
            let (Some(agreed), Some(ours)) = (taken(index), self.local.media.get(index)) else {
                let formats = offered.formats.clone();
                let refused = MediaDescription::new(&offered.kind, 0, &offered.protocol, formats);
                all.media.push(refused);
                continue;
            };
            let codecs: Vec<(u8, &Codec)> = read::common(offered, ours.kind);
            let direction = match (agreed.sends, agreed.receives) {
                (true, true) => "sendrecv",
                (true, false) => "sendonly",
                (false, true) => "recvonly",
                (false, false) => "inactive",
            };
            let mut media = self.media(ours, &offered.protocol, &codecs, direction);
            if let Some(mid) = offered.mid() {
                media.section.push_attribute("mid", mid);
            }
            for map in offered.section.all("extmap").filter_map(ExtMap::parse) {
                if map.uri == MID || map.uri == AUDIO_LEVEL {
                    extension(&mut media, map.id, &map.uri);
                }
            }
            if let Keys::Sdes { profile, .. } = &agreed.keys {
                let chosen = read::crypto(offered, ours);
                let key = ours.keys.iter().find(|(p, _)| p == profile);
                if let (Some((theirs, _)), Some((_, key))) = (chosen, key) {
                    let crypto = Crypto {
                        key_salt: key.clone(),
                        ..theirs
                    };
                    media.section.push_attribute("crypto", crypto);
                }
            }
            let role = match agreed.keys {
                Keys::Dtls { client: true, .. } => "active",
                _ => "passive",
            };
            self.push_dtls(&mut media, ours, role, all.media.is_empty());
            all.media.push(media);
        }
        without_version_line(&all)
    }

    /// What offers and answers have in common.
    fn media(
        &self,
        ours: &LocalMedia,
        protocol: &str,
        codecs: &[(u8, &Codec)],
        direction: &str,
    ) -> MediaDescription {
        let formats = codecs.iter().map(|(pt, _)| pt.to_string()).collect();
        let mut media =
            MediaDescription::new(token(ours.kind), ours.address.port(), protocol, formats);
        let section = &mut media.section;
        if ours.address.ip() != self.address() {
            section.push('c', connection(ours.address.ip()));
        }
        for (pt, codec) in codecs {
            let channels = match codec.channels {
                1 => String::new(),
                n => format!("/{n}"),
            };
            let map = format!("{pt} {}/{}{channels}", codec.name, codec.clock_rate);
            section.push_attribute("rtpmap", map);
            if let Some(fmtp) = codec.fmtp {
                section.push_attribute("fmtp", format!("{pt} {fmtp}"));
            }
            if ours.kind == Kind::Video {
                for feedback in ["nack", "nack pli", "ccm fir"] {
                    section.push_attribute("rtcp-fb", format!("{pt} {feedback}"));
                }
            }
        }
        if ours.kind == Kind::Audio {
            section.push_attribute("ptime", 20);
        }
        section.push_flag("rtcp-mux");
        section.push_flag(direction);
        let source = format!("{} cname:{}", ours.ssrc, self.local.cname);
        section.push_attribute("ssrc", source);
        media
    }

    fn push_dtls(&self, media: &mut MediaDescription, ours: &LocalMedia, role: &str, leads: bool) {
        if self.protection != Protection::Dtls {
            return;
        }
        let section = &mut media.section;
        section.push_attribute("setup", role);
        if let Some(digest) = &self.local.fingerprint {
            let digest = print_digest(digest);
            section.push_attribute("fingerprint", format!("sha-256 {digest}"));
        }
        if let Some((ufrag, password)) = &self.local.ice {
            section.push_attribute("ice-ufrag", ufrag);
            section.push_attribute("ice-pwd", password);
        }
        // RFC 9143 §7.1: candidates of the group stand in its first line.
        if leads {
            let candidate = Candidate {
                foundation: "1".into(),
                component: 1,
                transport: "udp".into(),
                priority: Candidate::host_priority(0, 1),
                host: ours.address.ip().to_string(),
                ip: Some(ours.address.ip()),
                port: ours.address.port(),
                kind: "host".into(),
            };
            section.push_attribute("candidate", candidate);
            section.push_flag("end-of-candidates");
        }
    }
}

fn parse(body: &[u8]) -> Result<SessionDescription, DescriptionError> {
    match body {
        [] => Err(DescriptionError::Missing),
        body => Ok(SessionDescription::parse(body)?),
    }
}

fn extension(media: &mut MediaDescription, id: u8, uri: &str) {
    media
        .section
        .push_attribute("extmap", format!("{id} {uri}"));
}

fn connection(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("IN IP4 {ip}"),
        IpAddr::V6(ip) => format!("IN IP6 {ip}"),
    }
}

/// `v=0` is written in front of `o=`, which stands before the rest.
fn without_version_line(all: &SessionDescription) -> String {
    let text = all.to_string();
    match text.strip_prefix("v=0\r\n") {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}
