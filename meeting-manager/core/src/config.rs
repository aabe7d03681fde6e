//! What the focus is told at the start.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use sip::offer_answer::SrtpSuite;
use sip::transaction::Timers;

use crate::ids::MeetingId;

/// A meeting that exists by configuration, or the template of those that come into being by a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeetingConfig {
    /// What people see.
    pub title: String,
    /// Lets in who is not a registered user.
    pub guests: bool,
    /// Lets anybody in at all; `false` declines (603) who calls.
    pub open: bool,
    /// Addresses of record that may join; empty: everybody whom the rest lets in.
    pub allowed: Vec<String>,
    /// More than so many are refused with 486. Memory grows by some 20 kB a participant.
    pub max_participants: usize,
    /// Loudest speakers heard at once, 1..=3; also the audio m-lines of a browser that get a slot.
    pub audio_slots: usize,
    /// Video m-lines that get a slot; 0: no video.
    pub video_slots: usize,
}

impl Default for MeetingConfig {
    fn default() -> Self {
        Self {
            title: String::new(),
            guests: true,
            open: true,
            allowed: Vec::new(),
            max_participants: 1_000,
            audio_slots: 3,
            video_slots: 4,
        }
    }
}

/// Session timers (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimerConfig {
    /// Session-Expires asked for where the peer names none. Lowering it finds dead peers sooner and costs requests.
    pub interval: Duration,
    /// Min-SE: shorter intervals are answered 422. RFC 4028 §4 forbids less than 90 s.
    pub min: Duration,
}

impl Default for SessionTimerConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1_800),
            min: Duration::from_secs(90),
        }
    }
}

/// Conference event package (RFC 4575, 6665).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionConfig {
    /// Shortest distance between two NOTIFYs of one subscription. Lowering it costs messages when many join at once.
    pub throttle: Duration,
    /// Longest and default duration.
    pub max_expires: Duration,
    /// Shorter ones, save 0, are answered 423.
    pub min_expires: Duration,
    /// Subscriptions of one meeting that are not a participant's own.
    pub max_standalone: usize,
}

impl Default for SubscriptionConfig {
    fn default() -> Self {
        Self {
            throttle: Duration::from_secs(1),
            max_expires: Duration::from_secs(3_600),
            min_expires: Duration::from_secs(10),
            max_standalone: 200,
        }
    }
}

/// Everything the focus is told at the start.
#[derive(Clone, Debug)]
pub struct FocusConfig {
    /// Our member id.
    pub member: String,
    /// Domain of meeting URIs, IPv6 in brackets; stands in Contacts, so that they name the cluster and not this
    /// machine.
    pub domain: String,
    /// Other names and addresses a Request-URI may carry for this domain (lower case).
    pub aliases: Vec<String>,
    /// `host[:port]` for our Via over UDP: how registrars reach this member.
    pub sent_by: String,
    /// The same over TCP and TLS, where it listens on another port.
    pub sent_by_stream: String,
    /// Requests from elsewhere are refused: registrars authenticate, this element believes them.
    pub trusted: Vec<IpNet>,
    /// Meetings that exist by configuration.
    pub meetings: BTreeMap<MeetingId, MeetingConfig>,
    /// What a meeting is like that the first call to a free name brings into being; `None`: 404.
    pub first_call: Option<MeetingConfig>,
    /// User part of the conference factory URI (RFC 4579 §5.4), and what its meetings are like.
    pub factory: Option<(MeetingId, MeetingConfig)>,
    /// Meetings this member serves at once; more are refused with 503.
    pub max_meetings: usize,
    /// Dialogs this member holds at once; more are refused with 503.
    pub max_dialogs: usize,
    /// Encoding names in order of preference.
    pub audio_codecs: Vec<String>,
    /// Encoding names in order of preference.
    pub video_codecs: Vec<String>,
    /// SDES suites in order of preference.
    pub suites: Vec<SrtpSuite>,
    /// Refuse calls without SRTP.
    pub require_srtp: bool,
    /// No packet on a receiving leg for so long ends its dialog.
    pub media_timeout: Duration,
    /// Session timers.
    pub session_timer: SessionTimerConfig,
    /// Conference event package.
    pub subscription: SubscriptionConfig,
    /// SIP base timers.
    pub timers: Timers,
    /// Server header.
    pub server: String,
}

/// RTP header extensions the switch reads, rewrites or passes on.
pub(crate) const EXTENSIONS: &[&str] = &[
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "urn:3gpp:video-orientation",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
];

impl Default for FocusConfig {
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Self {
            member: "manager-1".into(),
            domain: "localhost".into(),
            aliases: Vec::new(),
            sent_by: "127.0.0.1".into(),
            sent_by_stream: "127.0.0.1".into(),
            trusted: vec![
                "127.0.0.0/8".parse().expect("a literal network parses"),
                "::1/128".parse().expect("a literal network parses"),
            ],
            meetings: BTreeMap::new(),
            first_call: Some(MeetingConfig::default()),
            factory: None,
            max_meetings: 10_000,
            max_dialogs: 50_000,
            audio_codecs: names(&["opus", "G722", "PCMU", "PCMA", "telephone-event"]),
            video_codecs: names(&["VP8", "VP9", "H264", "AV1"]),
            suites: vec![
                SrtpSuite::AeadAes128Gcm,
                SrtpSuite::AeadAes256Gcm,
                SrtpSuite::AesCm128HmacSha1_80,
            ],
            require_srtp: false,
            media_timeout: Duration::from_secs(30),
            session_timer: SessionTimerConfig::default(),
            subscription: SubscriptionConfig::default(),
            timers: Timers::default(),
            server: concat!("Rostrum/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}
