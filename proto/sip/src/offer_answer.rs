//! Offer/answer (RFC 3264, 8829, 8843, 5888, 4568, 5763, 8839): what two sides make of their SDPs.
//!
//! A [`Plan`] is the negotiated media of one dialog as data: it can be stored, given to a switch, and
//! printed as our offer or answer once the switch has said on which addresses it listens.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::sdp::SessionDescription;

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
    /// Our outgoing SSRC on this m-line where we send (a slot).
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

/// Makes our half of a peer's offer. With `previous` (the plan in force) it is a re-offer: slots, SSRCs, keys,
/// credentials of unchanged m-lines stay; ICE restart is noticed by a changed ufrag. An offer in which every
/// m-line ends up rejected is [`Unacceptable`].
///
/// # Errors
/// [`Unacceptable`], with the text for the 488's Warning and reason.
pub fn answer(
    _offer: &SessionDescription,
    _policy: &Policy,
    _previous: Option<&Plan>,
    _random: &mut dyn Random,
) -> Result<Plan, Unacceptable> {
    todo!()
}

/// What kind of leg an offer of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OfferKind {
    /// RTP/AVP, one m-line a kind: what every phone understands (delayed offer, dial-out).
    Phone { video: bool },
    /// UDP/TLS/RTP/SAVPF, BUNDLE, ICE-lite, setup:actpass.
    WebRtc {
        audio_slots: usize,
        video_slots: usize,
    },
}

/// A fresh offer of ours (delayed offer, dial-out), or with `previous` a re-offer of the plan in force.
pub fn offer(
    _kind: OfferKind,
    _policy: &Policy,
    _previous: Option<&Plan>,
    _random: &mut dyn Random,
) -> Plan {
    todo!()
}

/// Takes in the peer's answer to our offer.
///
/// # Errors
/// [`Unacceptable`] where the answer does not fit the offer.
pub fn accept_answer(
    _offered: &Plan,
    _answer: &SessionDescription,
    _policy: &Policy,
) -> Result<Plan, Unacceptable> {
    todo!()
}

/// Our SDP for a plan: an answer, or with `is_offer` an offer.
#[must_use]
pub fn describe(_plan: &Plan, _local: &LocalMedia, _is_offer: bool) -> SessionDescription {
    todo!()
}
