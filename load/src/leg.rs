//! A participant's media as offer and answer make it: what the signalling half and the media half tell each other.

use std::net::SocketAddr;

use switch_core::srtp::Profile;

/// How media is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// RTP/AVP, no keys, no ICE.
    Plain,
    /// Keys in the SDP (RFC 4568).
    Sdes,
    /// DTLS-SRTP with ICE (RFC 5764), all of it on one bundled port.
    Dtls,
}

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// One m-line of ours, before the offer is written.
#[derive(Clone, Debug)]
pub struct LocalMedia {
    /// Audio or video.
    pub kind: Kind,
    /// The socket's own port; the same for all when bundled.
    pub address: SocketAddr,
    /// What we send with.
    pub ssrc: u32,
    /// SDES: the key we send with, for each profile offered, best first.
    pub keys: Vec<(Profile, Vec<u8>)>,
}

/// What the media half has opened for a participant.
#[derive(Clone, Debug)]
pub struct Local {
    /// m-lines, audio first.
    pub media: Vec<LocalMedia>,
    /// ICE user fragment and password, with DTLS.
    pub ice: Option<(String, String)>,
    /// SHA-256 of the DTLS certificate.
    pub fingerprint: Option<[u8; 32]>,
    /// RTCP canonical name.
    pub cname: String,
}

/// Keys of an m-line after the answer.
#[derive(Clone, Debug)]
pub enum Keys {
    /// None.
    Plain,
    /// SDES: the profile accepted and the peer's master key and salt.
    Sdes {
        /// Profile accepted.
        profile: Profile,
        /// The peer's master key and salt.
        remote: Vec<u8>,
    },
    /// DTLS-SRTP.
    Dtls {
        /// We begin the handshake (the peer answered `passive`).
        client: bool,
        /// (algorithm, digest) of the peer's certificate.
        fingerprint: (String, Vec<u8>),
    },
}

/// One m-line as answered.
#[derive(Clone, Debug)]
pub struct RemoteMedia {
    /// Audio or video.
    pub kind: Kind,
    /// Position of the m-line in the offer.
    pub index: usize,
    /// Where to send.
    pub address: SocketAddr,
    /// RTCP on the same port (RFC 5761); else one above, or as `a=rtcp` said.
    pub rtcp: Option<SocketAddr>,
    /// Payload type, encoding name and clock rate chosen for what we send.
    pub codec: (u8, String, u32),
    /// All payload types agreed on: what may come.
    pub accepted: Vec<(u8, String, u32)>,
    /// Header extension id of the client-to-mixer audio level (RFC 6464), where agreed on.
    pub audio_level: Option<u8>,
    /// Header extension id of the MID (RFC 8843) and its value, where agreed on.
    pub mid: Option<(u8, String)>,
    /// The peer takes what we send.
    pub sends: bool,
    /// The peer sends to us.
    pub receives: bool,
    /// SSRCs the peer announced (`a=ssrc`), if any.
    pub ssrcs: Vec<u32>,
    /// Keys.
    pub keys: Keys,
}

/// What the answer says.
#[derive(Clone, Debug)]
pub struct Remote {
    /// m-lines that were accepted.
    pub media: Vec<RemoteMedia>,
    /// ICE user fragment and password, with DTLS.
    pub ice: Option<(String, String)>,
}
