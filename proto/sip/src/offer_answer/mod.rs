//! Offer/answer (RFC 3264, 8829, 8843, 5888, 4568, 5763, 8839): what two sides make of their SDPs.
//!
//! A [`Plan`] is the negotiated media of one dialog as data: it can be stored, given to a switch, and
//! printed as our offer or answer once the switch has said on which addresses it listens.

mod accept;
mod answer;
mod codec;
mod describe;
mod line;
mod offer;
mod transport;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use accept::accept_answer;
pub use answer::answer;
pub use describe::describe;
pub use offer::{OfferKind, offer};
pub use transport::renew_keys;

/// Audio or video; other media are always rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum MediaKind {
    Audio,
    Video,
}

/// Direction, from *our* side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// m-line protocol (RFC 3551, 3711, 4585, 5124, 5764).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Profile {
    Avp,
    Avpf,
    Savp,
    Savpf,
    UdpTlsSavp,
    UdpTlsSavpf,
}

/// SDES / DTLS-SRTP suites (RFC 4568, 7714).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum SrtpSuite {
    AesCm128HmacSha1_80,
    AesCm128HmacSha1_32,
    AeadAes128Gcm,
    AeadAes256Gcm,
}

/// What we are willing to do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Encoding names in our order of preference; the peer's order decides among equals in an answer.
    pub audio_codecs: Vec<String>,
    /// As above.
    pub video_codecs: Vec<String>,
    /// SDES suites in our order of preference.
    pub suites: Vec<SrtpSuite>,
    /// Header extension URIs we understand.
    pub extensions: Vec<String>,
    /// m-lines of audio that get a slot; more are answered with port 0.
    pub audio_slots: usize,
    /// m-lines of video that get a slot; 0 rejects video.
    pub video_slots: usize,
    /// Refuse offers without SRTP (488 with a reason that says so).
    pub require_srtp: bool,
}

/// How a transport is secured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// RTP/AVP(F).
    Plain,
    /// a=crypto, also on AVP where the peer offers it optionally (baresip, linphone).
    Sdes {
        /// Chosen suite.
        suite: SrtpSuite,
        /// Tag of the chosen crypto line.
        tag: u32,
        /// Master key and salt we send with.
        local_key: Vec<u8>,
        /// The peer's.
        remote_key: Vec<u8>,
    },
    /// DTLS-SRTP (RFC 5763).
    Dtls {
        /// (algorithm in lower case, digest)
        remote_fingerprints: Vec<(String, Vec<u8>)>,
        /// We are the DTLS client (a=setup:active in our SDP); else passive, or actpass in an offer of ours.
        client: bool,
    },
}

/// ICE credentials (RFC 8839); we are always ice-lite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Ice {
    pub local_ufrag: String,
    pub local_pwd: String,
    pub remote_ufrag: String,
    pub remote_pwd: String,
}

/// One 5-tuple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportPlan {
    /// Position in [`Plan::transports`].
    pub index: usize,
    /// Keys.
    pub security: Security,
    /// ICE, where the peer does it.
    pub ice: Option<Ice>,
    /// RTP and RTCP on one port (RFC 5761).
    pub rtcp_mux: bool,
    /// Peer's RTP address and port from c=/m=; `None` for 0.0.0.0, mDNS names, port 9.
    pub remote: Option<(IpAddr, u16)>,
    /// Peer's RTCP port where it is not muxed (a=rtcp, RFC 3605; else RTP + 1).
    pub remote_rtcp_port: Option<u16>,
    /// The family the peer's c= line names.
    pub ipv6: bool,
}

/// One negotiated codec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    /// As the offerer numbered it.
    pub payload_type: u8,
    /// As in rtpmap.
    pub name: String,
    /// Hz.
    pub clock_rate: u32,
    /// 0 for video.
    pub channels: u8,
    /// The fmtp to print in our SDP.
    pub fmtp: String,
    /// RTX payload type where negotiated (RFC 4588).
    pub rtx: Option<u8>,
    /// a=rtcp-fb values agreed: "nack", "nack pli", "ccm fir", "transport-cc", "goog-remb".
    pub feedback: Vec<String>,
}

/// One m-line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaPlan {
    /// m-line position; never changes, never removed (RFC 3264 §8).
    pub index: usize,
    /// a=mid.
    pub mid: Option<String>,
    /// Kind; `None` for media we do not do (kept as rejected, its media type in `raw_kind`).
    pub kind: Option<MediaKind>,
    /// Media type as written: "audio", "video", "application", ...
    pub raw_kind: String,
    /// Protocol as the offer wrote it.
    pub protocol: String,
    /// Formats as the offer wrote them, to be echoed on a rejected line.
    pub formats: Vec<String>,
    /// Port 0 in our SDP.
    pub rejected: bool,
    /// Index into [`Plan::transports`].
    pub transport: usize,
    /// Ours.
    pub direction: Direction,
    /// Chosen codecs in the order we print them, telephone-event included.
    pub codecs: Vec<Codec>,
    /// (id, uri)
    pub extensions: Vec<(u8, String)>,
    /// (id, our direction) of extensions the peer offered in one direction only (RFC 8285 §5); the others
    /// go with the m-line.
    #[serde(default)]
    pub one_way_extensions: Vec<(u8, Direction)>,
    /// Both forms of header extensions may be mixed in one stream (RFC 8285 §6); in our offer, that we can.
    #[serde(default)]
    pub extmap_allow_mixed: bool,
    /// Our outgoing SSRC on this m-line where it has a slot; 0 where it has none (the peer only sends here).
    /// A slot is kept while the line is on hold.
    pub ssrc: u32,
    /// Our outgoing RTX SSRC where RTX is negotiated.
    pub rtx_ssrc: Option<u32>,
    /// Rank of the slot among those of this kind.
    pub slot: usize,
    /// Peer's announced primary SSRCs.
    pub remote_ssrcs: Vec<u32>,
    /// Peer's announced RTX SSRCs.
    pub remote_rtx_ssrcs: Vec<u32>,
    /// ms.
    pub ptime: Option<u32>,
    /// bit/s from b=TIAS or b=AS.
    pub bandwidth: Option<u64>,
    /// a=rtcp-rsize agreed.
    pub rtcp_rsize: bool,
}

/// The media of one dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// 5-tuples.
    pub transports: Vec<TransportPlan>,
    /// m-lines in order.
    pub media: Vec<MediaPlan>,
    /// mids of the BUNDLE group, as agreed; empty without.
    pub bundle: Vec<String>,
    /// Our o= session id.
    pub session_id: u64,
    /// Our o= version; counted up whenever what we print changes.
    pub session_version: u64,
    /// CNAME we print and use.
    pub cname: String,
}

/// Where the switch listens for one transport of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTransport {
    /// Index of the transport in the plan.
    pub index: usize,
    /// Advertised addresses, best first; the first goes to c=/m=, all go to candidates with ICE.
    pub addresses: Vec<(IpAddr, u16)>,
    /// RTCP port where it is not muxed.
    pub rtcp_port: Option<u16>,
}

/// Everything our SDP needs that is not in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalMedia {
    /// By transport.
    pub transports: Vec<LocalTransport>,
    /// (algorithm, digest) of the switch's DTLS certificate.
    pub fingerprints: Vec<(String, Vec<u8>)>,
}

/// Why an SDP cannot be agreed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unacceptable {
    /// 488: nothing in common; text says what was offered and what we can do.
    #[error("{0}")]
    NotAcceptable(String),
    /// 400: the SDP breaks offer/answer rules (m-lines removed or reordered, ...).
    #[error("{0}")]
    Violation(&'static str),
}

/// Random bits for SSRCs, ICE credentials and keys come from here, so that a core stays deterministic.
pub trait Random {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]);
}

impl Direction {
    /// From what each side does.
    #[must_use]
    pub fn new(send: bool, receive: bool) -> Self {
        match (send, receive) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Is something sent?
    #[must_use]
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Is something received?
    #[must_use]
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// As the other side would say it.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// The SDP attribute (RFC 8866 §6.7).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// Reads the SDP attribute.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::SendRecv,
            Self::SendOnly,
            Self::RecvOnly,
            Self::Inactive,
        ]
        .into_iter()
        .find(|direction| direction.as_str() == text)
    }
}

impl MediaKind {
    /// The media type of an m-line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// Reads a media type; `None` for what we do not do.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Audio, Self::Video]
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }
}

impl Profile {
    /// As on the m-line.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Avp => "RTP/AVP",
            Self::Avpf => "RTP/AVPF",
            Self::Savp => "RTP/SAVP",
            Self::Savpf => "RTP/SAVPF",
            Self::UdpTlsSavp => "UDP/TLS/RTP/SAVP",
            Self::UdpTlsSavpf => "UDP/TLS/RTP/SAVPF",
        }
    }

    /// Reads an m-line's protocol; `None` for those we do not do.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Avp,
            Self::Avpf,
            Self::Savp,
            Self::Savpf,
            Self::UdpTlsSavp,
            Self::UdpTlsSavpf,
        ]
        .into_iter()
        .find(|profile| profile.as_str().eq_ignore_ascii_case(text))
    }
}

impl SrtpSuite {
    /// As in `a=crypto` (RFC 4568 §6.2, RFC 7714 §14.2).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// Octets of master key and master salt together.
    #[must_use]
    pub fn key_length(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 16 + 14,
            Self::AeadAes128Gcm => 16 + 12,
            Self::AeadAes256Gcm => 32 + 12,
        }
    }
}

impl Default for Policy {
    /// Everything the engine can do, three audio slots and one of video.
    fn default() -> Self {
        let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            audio_codecs: strings(&["opus", "G722", "PCMU", "PCMA"]),
            video_codecs: strings(&["VP8", "VP9", "H264", "AV1"]),
            // AEAD first: it costs a third of AES-CM with SHA-1 here.
            suites: vec![
                SrtpSuite::AeadAes128Gcm,
                SrtpSuite::AeadAes256Gcm,
                SrtpSuite::AesCm128HmacSha1_80,
                SrtpSuite::AesCm128HmacSha1_32,
            ],
            extensions: strings(&[
                "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
                "urn:ietf:params:rtp-hdrext:sdes:mid",
                // Never used, but a Chromium that once offered simulcast cannot make a second offer without.
                "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
                "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
                "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
                "urn:3gpp:video-orientation",
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
            ]),
            audio_slots: 3,
            video_slots: 1,
            require_srtp: false,
        }
    }
}

impl Policy {
    fn codecs(&self, kind: MediaKind) -> &[String] {
        match kind {
            MediaKind::Audio => &self.audio_codecs,
            MediaKind::Video => &self.video_codecs,
        }
    }

    fn slots(&self, kind: MediaKind) -> usize {
        match kind {
            MediaKind::Audio => self.audio_slots,
            MediaKind::Video => self.video_slots,
        }
    }
}

impl Security {
    /// Is this DTLS-SRTP?
    #[must_use]
    pub fn is_dtls(&self) -> bool {
        matches!(self, Self::Dtls { .. })
    }
}

impl MediaPlan {
    /// Has this line a slot, that is an outgoing stream of its own?
    #[must_use]
    pub fn has_slot(&self) -> bool {
        !self.rejected && self.ssrc != 0
    }
}

impl Plan {
    /// The m-lines that are not rejected.
    pub fn accepted(&self) -> impl Iterator<Item = &MediaPlan> {
        self.media.iter().filter(|media| !media.rejected)
    }

    /// Transports that carry something. One in the middle of [`Plan::transports`] may carry nothing any
    /// more (its m-line was switched off); it stays so that the others keep their index.
    pub fn transports_in_use(&self) -> impl Iterator<Item = &TransportPlan> {
        self.transports
            .iter()
            .filter(|transport| self.accepted().any(|m| m.transport == transport.index))
    }
}
