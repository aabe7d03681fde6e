//! The registrar's configuration: one typed struct, checked before any socket opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use registrar_core::{CoreLimits, valid_meeting_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sip::Transport;
use sip::digest::Algorithm;

/// One registrar: where clients register, and through which every call goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of this registrar, unique in the cluster.
    pub node: String,
    /// Domain of the SIP addresses served here: sip:alice@<domain>. A host name that leads to the registrars, or
    /// their address.
    pub domain: String,
    /// Other domains and addresses that mean the same.
    pub aliases: Vec<String>,
    /// Realm of digest authentication; empty: the domain. Stored passwords are bound to it, so changing it makes
    /// all of them invalid.
    pub realm: String,
    /// Addresses to listen on for SIP over UDP. Port 0 takes a free one. 0.0.0.0 is all of IPv4, [::] all of IPv6; on
    /// a machine without IPv6, [::] beside an IPv4 address is passed over.
    #[schemars(with = "Vec<String>")]
    pub udp: Vec<SocketAddr>,
    /// Addresses to listen on for SIP over TCP.
    #[schemars(with = "Vec<String>")]
    pub tcp: Vec<SocketAddr>,
    /// Addresses to listen on for SIP over TLS.
    #[schemars(with = "Vec<String>")]
    pub tls: Vec<SocketAddr>,
    /// Addresses to listen on for the web page, its API and SIP over WebSocket, without encryption. Browsers give a
    /// camera and microphone to such a page only on localhost, so all others are sent to https.
    #[schemars(with = "Vec<String>")]
    pub http: Vec<SocketAddr>,
    /// Addresses to listen on for the web page, its API and SIP over secure WebSocket.
    #[schemars(with = "Vec<String>")]
    pub https: Vec<SocketAddr>,
    /// How clients reach this registrar where that differs from what it listens on (NAT, load balancer): an address or
    /// host name for all listeners, or transport:host:port for one ("tls:sip.example.org:5061"; transports udp, tcp,
    /// tls, ws, wss; IPv6 in brackets). Empty: the address that a client came to, and for those who have not come yet that
    /// of the network card which leads to the internet.
    pub advertise: Vec<String>,
    /// How meeting managers and other registrars reach this one, written the same way; empty: as clients do.
    pub advertise_internal: Vec<String>,
    /// Directory for the self-signed certificate that is made at the first start and kept.
    pub data: PathBuf,
    /// Certificate chain in PEM, instead of the self-signed one; needs `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Private key of the certificate, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// File with the users (rostrum user add|list|remove): TOML, or CSV where the name ends in .csv. Changes
    /// take effect within a second. Empty: nobody but guests.
    pub users: PathBuf,
    /// Meetings shown on the join page, and who may join them.
    pub meetings: Vec<Meeting>,
    /// Meeting addresses that make a new meeting at every call; must match the meeting managers'.
    pub factories: Vec<String>,
    /// How long a guest's identity is good, seconds. A guest may register and call for so long; running calls go on.
    pub guest_lifetime: u32,
    /// Networks whose hosts are not asked for a password and may say who a call is from: gateways, other parts of
    /// this cluster ("10.1.0.0/16"). Proxies that write a Path into their clients' registrations have to be in one
    /// (RFC 3327); whatever that Path names, too. Meeting managers of this cluster need no entry.
    pub trusted_networks: Vec<String>,
    /// Load balancers in front of this registrar: their connections must begin with a PROXY protocol header (version 1
    /// or 2), which is believed. A balancer that sends none and has several addresses must send each client's connections
    /// from the same one: a password's nonce is good at one address only, and browsers do not ask for a third.
    pub proxy_protocol_from: Vec<String>,
    /// Let authenticated users call addresses of other domains through this registrar.
    pub relay: bool,
    /// Let callers of other domains reach users and meetings here without a password.
    pub foreign_callers: bool,
    /// Shortest registration, seconds; clients that ask for less are told (423).
    pub min_expires: u32,
    /// Longest registration, seconds.
    pub max_expires: u32,
    /// Registration of clients that ask for no time, seconds.
    pub default_expires: u32,
    /// How often clients with a kept connection should send a keepalive, seconds (RFC 5626).
    pub flow_timer: u32,
    /// Digest algorithms offered, in order: "SHA-256", "MD5". Some old phones look at the first one only and need
    /// ["MD5"].
    #[schemars(with = "Vec<String>")]
    pub digest: Vec<Algorithm>,
    /// Tell clients to send their calls through this very registrar (Service-Route).
    pub service_route: bool,
    /// Other hosts whose pages may open a WebSocket here and that may stand in the address bar: host names without
    /// port. The domain, its aliases and the advertised hosts are always among them.
    pub web_hosts: Vec<String>,
    /// Address for the read-only HTTP API of this role alone; not set: only where the command serves it.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Bounds on what clients can make this registrar keep.
    pub limits: Limits,
}

/// One meeting of the join page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Meeting {
    /// User part of its address.
    pub id: String,
    /// Shown to people; empty: the id.
    #[serde(default)]
    pub title: String,
    /// Whether a name is enough to join.
    #[serde(default)]
    pub guests: bool,
}

/// Bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections in all. Each costs about 10 kB (TLS: 40 kB) and a file descriptor.
    pub connections: usize,
    /// Connections from one address. Lower locks out offices behind one address.
    pub connections_per_source: usize,
    /// HTTP connections that have not become a WebSocket.
    pub http_connections: usize,
    /// Contacts of one user.
    pub contacts_per_user: usize,
    /// Calls and other requests in progress; beyond it new ones are answered 503.
    pub requests: usize,
    /// Devices one call is forked to.
    pub branches: usize,
    /// Wrong passwords one address may send for one user in a minute; ten times as many for all users.
    pub wrong_passwords_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let core = CoreLimits::default();
        Self {
            connections: 16_384,
            connections_per_source: 1_024,
            http_connections: 1_024,
            contacts_per_user: core.bindings_per_aor,
            requests: core.contexts,
            branches: core.branches,
            wrong_passwords_per_minute: core.failures_per_source,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let any = |port| {
            vec![
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            ]
        };
        Self {
            node: "registrar-1".into(),
            domain: "localhost".into(),
            aliases: Vec::new(),
            realm: String::new(),
            udp: any(5060),
            tcp: any(5060),
            tls: any(5061),
            http: any(8080),
            https: any(8443),
            advertise: Vec::new(),
            advertise_internal: Vec::new(),
            data: "data/registrar".into(),
            certificate: None,
            key: None,
            users: "users.toml".into(),
            meetings: Vec::new(),
            factories: Vec::new(),
            guest_lifetime: 12 * 3600,
            trusted_networks: Vec::new(),
            proxy_protocol_from: Vec::new(),
            relay: false,
            foreign_callers: false,
            min_expires: 60,
            max_expires: 7200,
            default_expires: 600,
            flow_timer: 120,
            digest: vec![Algorithm::Sha256, Algorithm::Md5],
            service_route: true,
            web_hosts: Vec::new(),
            admin: None,
            limits: Limits::default(),
        }
    }
}

/// What is wrong with a configuration, and under which key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct Invalid {
    /// The key.
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

/// One entry of `advertise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advertise {
    /// `None`: all listeners.
    pub transport: Option<Transport>,
    pub host: String,
    /// `None`: the listener's.
    pub port: Option<u16>,
}

/// A host name or address, without brackets; `None` where it is neither.
fn host(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let name = !bare.is_empty()
        && bare.len() <= 253
        && bare
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    // RFC 1123 §2.1: what ends in a number is an address, or a mistake in one
    let last = bare.trim_end_matches('.').rsplit('.').next();
    let numeric = last.is_none_or(|label| label.bytes().all(|b| b.is_ascii_digit()));
    (name && !numeric || bare.parse::<IpAddr>().is_ok()).then(|| bare.to_ascii_lowercase())
}

pub(crate) fn parse_advertise(text: &str) -> Option<Advertise> {
    let (transport, rest) = match text.split_once(':') {
        Some((token, rest)) if token.parse::<Transport>().is_ok() => {
            (Some(token.parse().ok()?), rest)
        }
        _ => (None, text),
    };
    let bracket_end = rest.rfind(']').unwrap_or(0);
    let whole_is_v6 = rest.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    let (name, port) = match rest.rfind(':') {
        Some(colon) if colon > bracket_end && !whole_is_v6 => {
            (&rest[..colon], Some(rest[colon + 1..].parse().ok()?))
        }
        _ => (rest, None),
    };
    Some(Advertise {
        transport,
        host: host(name)?,
        port,
    })
}

pub(crate) fn networks(key: &'static str, list: &[String]) -> Result<Vec<IpNet>, Invalid> {
    list.iter()
        .map(|text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| {
                    invalid(
                        key,
                        format!("{text:?} is not a network"),
                        "an address, or a network like \"10.1.0.0/16\"",
                    )
                })
        })
        .collect()
}

impl Config {
    /// Whether any meeting is open to guests.
    #[must_use]
    pub fn lets_guests_in(&self) -> bool {
        self.meetings.iter().any(|m| m.guests)
    }

    /// The realm in use.
    #[must_use]
    pub fn realm(&self) -> &str {
        if self.realm.is_empty() {
            &self.domain
        } else {
            &self.realm
        }
    }

    /// How long a guest is good.
    #[must_use]
    pub fn guest_lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.guest_lifetime))
    }

    /// The domain and its aliases, lower case.
    #[must_use]
    pub fn domains(&self) -> Vec<String> {
        std::iter::once(&self.domain)
            .chain(&self.aliases)
            .filter_map(|d| host(d))
            .collect()
    }

    /// Whether everything fits together, before any socket opens.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), Invalid> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that does not fit.
    #[must_use]
    pub fn problems(&self) -> Vec<Invalid> {
        let mut found = self.name_problems();
        let trusted = networks("trusted_networks", &self.trusted_networks);
        found.extend(trusted.err());
        let balancers = networks("proxy_protocol_from", &self.proxy_protocol_from);
        found.extend(balancers.err());
        if self.certificate.is_some() != self.key.is_some() {
            found.push(invalid(
                "certificate",
                "certificate and key belong together",
                "both, or neither",
            ));
        }
        found.extend(self.listener_problems());
        found.extend(self.time_problems());
        found.extend(self.meeting_problems());
        found
    }

    fn name_problems(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        if self.node.is_empty() || self.node.len() > 64 {
            found.push(invalid(
                "node",
                "must have 1 to 64 characters",
                "\"registrar-1\"",
            ));
        }
        for (key, list) in [
            ("domain", std::slice::from_ref(&self.domain)),
            ("aliases", &self.aliases),
            ("web_hosts", &self.web_hosts),
        ] {
            found.extend(list.iter().filter(|h| host(h).is_none()).map(|bad| {
                invalid(
                    key,
                    format!("{bad:?} is not a host name"),
                    "a host name like \"example.org\", or an address",
                )
            }));
        }
        if self.realm.contains(['"', '\\']) {
            found.push(invalid("realm", "may not have quotes", "the domain"));
        }
        for (key, list) in [
            ("advertise", &self.advertise),
            ("advertise_internal", &self.advertise_internal),
        ] {
            let is_bad = |text: &&String| parse_advertise(text).is_none();
            found.extend(list.iter().filter(is_bad).map(|bad| {
                invalid(
                    key,
                    format!("{bad:?} is not an address"),
                    "\"203.0.113.5\", \"[2001:db8::5]\" or \"tls:sip.example.org:5061\"",
                )
            }));
        }
        found
    }

    fn listener_problems(&self) -> Vec<Invalid> {
        let lists = [&self.udp, &self.tcp, &self.tls, &self.http, &self.https];
        if lists.iter().all(|l| l.is_empty()) {
            return vec![invalid(
                "udp",
                "no listener at all",
                "udp = [\"0.0.0.0:5060\"]",
            )];
        }
        let streams = [
            ("tcp", self.tcp.as_slice()),
            ("tls", &self.tls),
            ("http", &self.http),
            ("https", &self.https),
            ("admin", self.admin.as_slice()),
        ];
        let mut found = taken_twice(&[("udp", self.udp.as_slice())]);
        found.extend(taken_twice(&streams));
        found
    }

    fn time_problems(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        let ordered = self.min_expires >= 1
            && self.min_expires <= self.default_expires
            && self.default_expires <= self.max_expires;
        if !ordered {
            found.push(invalid(
                "default_expires",
                "min_expires, default_expires and max_expires must grow in this order",
                "60, 600 and 7200",
            ));
        }
        if self.digest.is_empty() {
            found.push(invalid(
                "digest",
                "no algorithm to authenticate with",
                "[\"SHA-256\", \"MD5\"]",
            ));
        }
        if !(60..=7 * 86_400).contains(&self.guest_lifetime) {
            found.push(invalid(
                "guest_lifetime",
                "must lie between a minute and a week",
                "43200",
            ));
        }
        if !(10..=3600).contains(&self.flow_timer) {
            found.push(invalid("flow_timer", "must lie between 10 and 3600", "120"));
        }
        if self.limits.branches == 0 || self.limits.contacts_per_user == 0 {
            found.push(invalid("limits", "bounds must be at least 1", "16"));
        }
        found
    }

    fn meeting_problems(&self) -> Vec<Invalid> {
        let ids = self.meetings.iter().map(|m| ("meetings", &m.id));
        let factories = self.factories.iter().map(|f| ("factories", f));
        ids.chain(factories)
            .filter(|(_, id)| !valid_meeting_name(id))
            .map(|(key, id)| {
                invalid(
                    key,
                    format!("{id:?} cannot be a meeting's address"),
                    "letters, digits, dots, dashes, underscores; at most 64",
                )
            })
            .collect()
    }
}

/// Listeners that cannot be opened since one before has the port.
fn taken_twice(lists: &[(&'static str, &[SocketAddr])]) -> Vec<Invalid> {
    let mut found = Vec::new();
    let mut seen: Vec<(&str, SocketAddr)> = Vec::new();
    for (key, list) in lists {
        for address in list.iter().filter(|a| a.port() != 0) {
            if let Some((other, _)) = seen.iter().find(|(_, a)| clash(*a, *address)) {
                found.push(invalid(
                    key,
                    format!("{address} is taken by {other}"),
                    "another port",
                ));
            }
            seen.push((key, *address));
        }
    }
    found
}

/// Two listeners of the same protocol family that cannot both be opened.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_configuration_is_valid_and_reads_back() {
        let config = Config::default();
        config.check().expect("valid");
        let text = toml::to_string(&config).expect("TOML");
        assert_eq!(toml::from_str::<Config>(&text).expect("reads"), config);
    }

    #[test]
    fn unknown_key_is_refused() {
        let error = toml::from_str::<Config>("domian = \"x\"").unwrap_err();
        assert!(error.message().contains("domian"), "{error}");
    }

    #[test]
    fn advertised_addresses_are_read_in_every_form() {
        let parse = |t| parse_advertise(t).map(|a| (a.transport, a.host, a.port));
        assert_eq!(
            parse("203.0.113.5"),
            Some((None, "203.0.113.5".into(), None))
        );
        assert_eq!(
            parse("2001:db8::5"),
            Some((None, "2001:db8::5".into(), None))
        );
        assert_eq!(
            parse("[2001:db8::5]"),
            Some((None, "2001:db8::5".into(), None))
        );
        assert_eq!(
            parse("tls:SIP.example.org:5061"),
            Some((Some(Transport::Tls), "sip.example.org".into(), Some(5061)))
        );
        assert_eq!(
            parse("wss:[2001:db8::5]:443"),
            Some((Some(Transport::Wss), "2001:db8::5".into(), Some(443)))
        );
        for bad in [
            "",
            "a b",
            "tls:",
            "host:port",
            "1.2.3.400",
            "udp:300.1.1.1:5060",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_key() {
        let key = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().key
        };
        assert_eq!(key(|c| c.domain = "a b".into()), "domain");
        assert_eq!(key(|c| c.tls = c.tcp.clone()), "tls");
        assert_eq!(key(|c| c.certificate = Some("x".into())), "certificate");
        assert_eq!(key(|c| c.min_expires = 9_000), "default_expires");
        assert_eq!(
            key(|c| c.trusted_networks = vec!["10/8".into()]),
            "trusted_networks"
        );
        assert_eq!(key(|c| c.factories = vec!["a b".into()]), "factories");
    }
}
