//! The meeting manager's configuration: one typed struct, checked before any socket opens.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cluster::Tls;
use cluster::records::Kind;
use ipnet::IpNet;
use meeting_core::{FocusConfig, MeetingConfig, MeetingId, SessionTimerConfig, SubscriptionConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sip::offer_answer::SrtpSuite;
use transport::cards;

const SUITES: [SrtpSuite; 4] = [
    SrtpSuite::AeadAes128Gcm,
    SrtpSuite::AeadAes256Gcm,
    SrtpSuite::AesCm128HmacSha1_80,
    SrtpSuite::AesCm128HmacSha1_32,
];

/// What a participant may speak.
const AUDIO_CODECS: [&str; 5] = ["opus", "G722", "PCMU", "PCMA", "telephone-event"];
/// What a participant may show.
const VIDEO_CODECS: [&str; 4] = ["VP8", "VP9", "H264", "AV1"];

/// One meeting manager: the other end of every call to a meeting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of this meeting manager, unique in the cluster.
    pub id: String,
    /// Domain of meeting addresses: sip:<meeting>@<domain>. The same as the registrars'.
    pub domain: String,
    /// Other domains and addresses that mean the same.
    pub aliases: Vec<String>,
    /// Addresses to listen on for SIP over UDP. Only registrars call here. Port 0 takes a free one.
    #[schemars(with = "Vec<String>")]
    pub udp: Vec<SocketAddr>,
    /// Addresses to listen on for SIP over TCP. The same port as UDP's serves best.
    #[schemars(with = "Vec<String>")]
    pub tcp: Vec<SocketAddr>,
    /// Addresses by which registrars reach this meeting manager, IPv4 and IPv6, where they differ from what is listened
    /// on. A family of which there is none here: the address listened on, and for 0.0.0.0 and :: that of the card which
    /// leads to the internet.
    #[schemars(with = "Vec<String>")]
    pub advertise: Vec<IpAddr>,
    /// Networks that the registrars are in. Requests from anywhere else are refused: registrars ask for passwords,
    /// and this role believes what they say.
    pub trusted_networks: Vec<String>,
    /// Meetings that may be called at any time.
    pub meetings: Vec<Meeting>,
    /// What happens to a call to a name that no meeting has.
    pub first_call: FirstCall,
    /// User part of the address that makes a new meeting at every call (RFC 4579); empty: there is none.
    pub factory: String,
    /// Codecs of audio, best first, by their names in SDP.
    pub audio_codecs: Vec<String>,
    /// Codecs of video, best first.
    pub video_codecs: Vec<String>,
    /// SRTP suites where the keys come by SDP, best first: AEAD_AES_128_GCM, AEAD_AES_256_GCM,
    /// AES_CM_128_HMAC_SHA1_80, AES_CM_128_HMAC_SHA1_32.
    pub suites: Vec<String>,
    /// Refuse calls whose media are not encrypted.
    pub require_srtp: bool,
    /// Seconds without a packet from a participant after which its call is ended.
    pub media_timeout: u64,
    /// Seconds after which a call that nobody refreshes is ended (session timers, RFC 4028), where the caller does not
    /// ask for less.
    pub session_expires: u64,
    /// Least of the above that a caller may ask for, seconds; not below 90.
    pub session_min: u64,
    /// Least time between two participant lists sent to the same subscriber, ms. Lowering it makes lists follow
    /// faster and costs messages where many join at once.
    pub roster_interval: u64,
    /// Meetings served at once.
    pub max_meetings: usize,
    /// Calls and subscriptions served at once.
    pub max_dialogs: usize,
    /// Seconds that ending calls may take at a shutdown.
    pub shutdown_patience: u64,
    /// Address for the read-only HTTP API of this role alone; not set: only where the command serves it.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// The certificates by which this meeting manager and the switches know each other.
    #[serde(skip)]
    pub tls: Option<Arc<Tls>>,
}

/// One meeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Meeting {
    /// User part of its address: letters, digits, dot, dash, underscore, plus.
    pub id: String,
    /// Shown to people; empty: the id.
    pub title: String,
    /// Whether people without an account may join.
    pub guests: bool,
    /// Whether anybody may join now; false declines every call.
    pub open: bool,
    /// Addresses that may join ("sip:alice@example.org"); empty: everybody whom the rest lets in.
    pub allowed: Vec<String>,
    /// Most participants.
    pub max_participants: usize,
    /// Loudest speakers heard at once, 1 to 3.
    pub audio_slots: usize,
    /// Pictures a browser may be sent at once; 0: a meeting without video.
    pub video_slots: usize,
}

impl Default for Meeting {
    fn default() -> Self {
        let core = MeetingConfig::default();
        Self {
            id: String::new(),
            title: core.title,
            guests: core.guests,
            open: core.open,
            allowed: core.allowed,
            max_participants: core.max_participants,
            audio_slots: core.audio_slots,
            video_slots: core.video_slots,
        }
    }
}

/// Calls to names that no meeting has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FirstCall {
    /// Such a call makes a meeting, which ends with its last participant; false: it is answered 404.
    pub creates: bool,
    /// Whether people without an account may join meetings made so, or by the factory.
    pub guests: bool,
    /// Most participants of such a meeting.
    pub max_participants: usize,
    /// Loudest speakers heard at once, 1 to 3.
    pub audio_slots: usize,
    /// Pictures a browser may be sent at once.
    pub video_slots: usize,
}

impl Default for FirstCall {
    fn default() -> Self {
        let core = MeetingConfig::default();
        Self {
            creates: true,
            guests: false,
            max_participants: 100,
            audio_slots: core.audio_slots,
            video_slots: core.video_slots,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let core = FocusConfig::default();
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 5070));
        Self {
            id: "manager-1".into(),
            domain: "localhost".into(),
            aliases: Vec::new(),
            udp: vec![local],
            tcp: vec![local],
            advertise: Vec::new(),
            trusted_networks: vec!["127.0.0.0/8".into(), "::1/128".into()],
            meetings: Vec::new(),
            first_call: FirstCall::default(),
            factory: String::new(),
            audio_codecs: core.audio_codecs,
            video_codecs: core.video_codecs,
            suites: core.suites.iter().map(|s| s.as_str().to_owned()).collect(),
            require_srtp: false,
            media_timeout: core.media_timeout.as_secs(),
            session_expires: core.session_timer.interval.as_secs(),
            session_min: core.session_timer.min.as_secs(),
            roster_interval: 1_000,
            max_meetings: core.max_meetings,
            max_dialogs: core.max_dialogs,
            shutdown_patience: 2,
            admin: None,
            tls: None,
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}; {instead}")]
pub struct Invalid {
    /// Name of the setting.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub instead: String,
}

fn invalid(key: &'static str, what: impl Into<String>, instead: impl Into<String>) -> Invalid {
    Invalid {
        key,
        what: what.into(),
        instead: instead.into(),
    }
}

impl Meeting {
    fn core(&self) -> MeetingConfig {
        MeetingConfig {
            title: if self.title.is_empty() {
                self.id.clone()
            } else {
                self.title.clone()
            },
            guests: self.guests,
            open: self.open,
            allowed: self.allowed.clone(),
            max_participants: self.max_participants,
            audio_slots: self.audio_slots,
            video_slots: self.video_slots,
        }
    }
}

impl FirstCall {
    fn core(&self) -> MeetingConfig {
        MeetingConfig {
            guests: self.guests,
            max_participants: self.max_participants,
            audio_slots: self.audio_slots,
            video_slots: self.video_slots,
            ..MeetingConfig::default()
        }
    }
}

impl Config {
    /// What is wrong, if anything.
    ///
    /// # Errors
    /// [`Invalid`] for the first setting that cannot be.
    pub fn check(&self) -> Result<(), Invalid> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that is wrong.
    #[must_use]
    pub fn problems(&self) -> Vec<Invalid> {
        let mut found = self.service_problems();
        found.extend(self.meeting_problems());
        if self.id.is_empty() {
            found.push(invalid(
                "id",
                "is empty",
                "give this meeting manager a name",
            ));
        }
        if let Some(tls) = &self.tls
            && !tls.is_for(Kind::MeetingManager, &self.id)
        {
            let of: Vec<String> = tls
                .identities()
                .iter()
                .map(|(kind, id)| format!("{kind} {id:?}"))
                .collect();
            found.push(invalid(
                "id",
                format!(
                    "the certificate of [cluster] is not that of meeting manager {:?}",
                    self.id
                ),
                format!(
                    "write the id it was made for ({}), or give it another certificate",
                    of.join(", ")
                ),
            ));
        }
        if self.udp.is_empty() && self.tcp.is_empty() {
            let instead = "write an address, for example udp = [\"127.0.0.1:5070\"]";
            found.push(invalid("udp", "nothing to listen on", instead));
        }
        for ip in &self.advertise {
            let mut all = self.udp.iter().chain(&self.tcp);
            if ip.is_unspecified() || ip.is_multicast() {
                found.push(invalid(
                    "advertise",
                    format!("nobody can send to {ip}"),
                    "write the address by which registrars reach this machine",
                ));
            } else if !all.any(|a| a.is_ipv4() == ip.is_ipv4()) {
                found.push(invalid(
                    "advertise",
                    format!("{ip} is of a family that is not listened on"),
                    "listen on one of that family in udp or tcp, or take it away here",
                ));
            }
        }
        found
    }

    /// Where registrars send to, for a listener at that address: what is advertised for its family, else its own.
    pub(crate) fn told(&self, listening: SocketAddr) -> Vec<SocketAddr> {
        let of_family = |ip: &IpAddr| ip.is_ipv4() == listening.is_ipv4();
        let given = self.advertise.iter().copied().filter(of_family);
        let mut told: Vec<IpAddr> = given.collect();
        // Of several cards each stands for itself.
        if told.is_empty() || told.contains(&listening.ip()) {
            told = match (listening.ip().is_unspecified(), listening.ip()) {
                (false, ip) => vec![ip],
                (true, any) => {
                    let loopback: IpAddr = match any {
                        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                    };
                    vec![cards::outward(any.is_ipv6()).unwrap_or(loopback)]
                }
            };
        }
        let port = listening.port();
        told.into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }

    fn service_problems(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        if self.domain.is_empty() {
            let instead = "write the domain of the meeting addresses";
            found.push(invalid("domain", "is empty", instead));
        }
        if self.session_min < 90 {
            let instead = "write 90 or more (RFC 4028 §4)";
            found.push(invalid("session_min", "is too short", instead));
        }
        if self.session_expires < self.session_min {
            let instead = "write as much or more";
            found.push(invalid("session_expires", "is below session_min", instead));
        }
        found.extend(codecs("audio_codecs", &self.audio_codecs, &AUDIO_CODECS).err());
        found.extend(codecs("video_codecs", &self.video_codecs, &VIDEO_CODECS).err());
        if self.audio_codecs.is_empty() {
            let instead = "write for example [\"opus\", \"G722\", \"PCMU\", \"PCMA\"]";
            found.push(invalid("audio_codecs", "nobody could be heard", instead));
        }
        found.extend(networks(&self.trusted_networks).err());
        found.extend(self.suites().err());
        found
    }

    fn meeting_problems(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for meeting in &self.meetings {
            match meeting_id("meetings.id", &meeting.id) {
                Err(e) => found.push(e),
                Ok(id) if !seen.insert(id.clone()) => found.push(invalid(
                    "meetings.id",
                    format!("{:?} is there twice", meeting.id),
                    "give each meeting a name of its own",
                )),
                Ok(_) => {}
            }
            found.extend(slots("meetings.audio_slots", meeting.audio_slots).err());
        }
        found.extend(slots("first_call.audio_slots", self.first_call.audio_slots).err());
        if !self.factory.is_empty() {
            found.extend(meeting_id("factory", &self.factory).err());
        }
        found
    }

    /// What the core is told. `sent_by` is `host[:port]` for our Via, whatever the transport.
    ///
    /// # Errors
    /// [`Invalid`] for the first setting that cannot be.
    pub(crate) fn focus(&self, sent_by: &str) -> Result<FocusConfig, Invalid> {
        self.check()?;
        let mut meetings = BTreeMap::new();
        for meeting in &self.meetings {
            meetings.insert(meeting_id("meetings.id", &meeting.id)?, meeting.core());
        }
        let factory = match self.factory.as_str() {
            "" => None,
            name => Some((meeting_id("factory", name)?, self.first_call.core())),
        };
        Ok(FocusConfig {
            member: self.id.clone(),
            domain: uri_host(&self.domain),
            aliases: self.aliases.clone(),
            sent_by: sent_by.to_owned(),
            sent_by_stream: sent_by.to_owned(),
            trusted: networks(&self.trusted_networks)?,
            meetings,
            first_call: self.first_call.creates.then(|| self.first_call.core()),
            factory,
            max_meetings: self.max_meetings,
            max_dialogs: self.max_dialogs,
            audio_codecs: self.audio_codecs.clone(),
            video_codecs: self.video_codecs.clone(),
            suites: self.suites()?,
            require_srtp: self.require_srtp,
            media_timeout: Duration::from_secs(self.media_timeout),
            session_timer: SessionTimerConfig {
                interval: Duration::from_secs(self.session_expires),
                min: Duration::from_secs(self.session_min),
            },
            subscription: SubscriptionConfig {
                throttle: Duration::from_millis(self.roster_interval),
                ..SubscriptionConfig::default()
            },
            ..FocusConfig::default()
        })
    }

    fn suites(&self) -> Result<Vec<SrtpSuite>, Invalid> {
        self.suites
            .iter()
            .map(|name| {
                SUITES.into_iter().find(|s| s.as_str() == name).ok_or_else(|| {
                    invalid(
                        "suites",
                        format!("{name:?} is not known"),
                        "write AEAD_AES_128_GCM, AEAD_AES_256_GCM, AES_CM_128_HMAC_SHA1_80 or AES_CM_128_HMAC_SHA1_32",
                    )
                })
            })
            .collect()
    }
}

/// Names in SDP are compared without regard to case (RFC 4566 §6).
fn codecs(key: &'static str, names: &[String], known: &[&str]) -> Result<(), Invalid> {
    let unknown = |name: &&String| !known.iter().any(|k| k.eq_ignore_ascii_case(name));
    match names.iter().find(unknown) {
        None => Ok(()),
        Some(name) => Err(invalid(
            key,
            format!("{name:?} is no codec that is served here"),
            format!("write some of {}", known.join(", ")),
        )),
    }
}

/// A host as it stands in a URI: an IPv6 address in brackets (RFC 3261 §19.1.1).
fn uri_host(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    }
}

fn meeting_id(key: &'static str, name: &str) -> Result<MeetingId, Invalid> {
    MeetingId::new(name).ok_or_else(|| {
        invalid(
            key,
            format!("{name:?} cannot stand in an address"),
            "use at most 64 letters, digits, dots, dashes, underscores or plus signs",
        )
    })
}

fn slots(key: &'static str, slots: usize) -> Result<(), Invalid> {
    if (1..=3).contains(&slots) {
        Ok(())
    } else {
        Err(invalid(
            key,
            format!("{slots} is out of range"),
            "write 1, 2 or 3",
        ))
    }
}

fn networks(list: &[String]) -> Result<Vec<IpNet>, Invalid> {
    list.iter()
        .map(|text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| {
                    invalid(
                        "trusted_networks",
                        format!("{text:?} is no network"),
                        "write an address or a network, for example \"10.1.0.0/16\"",
                    )
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_configuration_is_valid() {
        Config::default().check().unwrap();
    }

    #[test]
    fn an_ipv6_domain_stands_in_brackets_in_uris() {
        let config = Config {
            domain: "2001:db8::1".into(),
            ..Config::default()
        };
        assert_eq!(config.focus("127.0.0.1").unwrap().domain, "[2001:db8::1]");
    }

    #[test]
    fn every_listener_is_told_of_by_an_address_of_its_family() {
        let told = |advertise: &[&str], listening: &str| -> Vec<String> {
            let config = Config {
                advertise: advertise.iter().map(|ip| ip.parse().unwrap()).collect(),
                ..Config::default()
            };
            let told = config.told(listening.parse().unwrap());
            told.iter().map(ToString::to_string).collect()
        };
        let both = ["203.0.113.5", "2001:db8::5"];
        assert_eq!(told(&both, "0.0.0.0:5070"), ["203.0.113.5:5070"]);
        assert_eq!(told(&both, "[::]:5070"), ["[2001:db8::5]:5070"]);
        assert_eq!(
            told(&both[..1], "[2001:db8::7]:5070"),
            ["[2001:db8::7]:5070"]
        );
        let cards = ["10.0.0.1", "10.0.0.2"];
        assert_eq!(told(&cards, "10.0.0.2:5070"), ["10.0.0.2:5070"]);
        for (any, first) in [("0.0.0.0:5070", both[1]), ("[::]:5070", both[0])] {
            let own = told(&[first], any);
            let own: SocketAddr = own[0].parse().unwrap();
            assert!(!own.ip().is_unspecified(), "{own}");
            assert_eq!(own.is_ipv4(), any.starts_with('0'));
        }
    }

    #[test]
    fn each_bad_setting_is_named() {
        let bad = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().key
        };
        assert_eq!(bad(|c| c.domain.clear()), "domain");
        assert_eq!(bad(|c| c.session_min = 10), "session_min");
        assert_eq!(bad(|c| c.session_expires = 89), "session_expires");
        assert_eq!(bad(|c| c.audio_codecs.push("opsu".into())), "audio_codecs");
        assert_eq!(bad(|c| c.audio_codecs.clear()), "audio_codecs");
        assert_eq!(bad(|c| c.video_codecs.push("opus".into())), "video_codecs");
        assert_eq!(bad(|c| c.factory = "a b".into()), "factory");
        assert_eq!(
            bad(|c| c.trusted_networks.push("x".into())),
            "trusted_networks"
        );
        assert_eq!(bad(|c| c.suites.push("ROT13".into())), "suites");
        assert_eq!(
            bad(|c| c.advertise.push(Ipv4Addr::UNSPECIFIED.into())),
            "advertise"
        );
        assert_eq!(
            bad(|c| c.advertise.push(Ipv6Addr::LOCALHOST.into())),
            "advertise"
        );
        assert_eq!(
            bad(|c| c.first_call.audio_slots = 0),
            "first_call.audio_slots"
        );
        assert_eq!(
            bad(|c| c.meetings = vec![
                Meeting {
                    id: "a".into(),
                    ..Meeting::default()
                };
                2
            ]),
            "meetings.id"
        );
    }
}
