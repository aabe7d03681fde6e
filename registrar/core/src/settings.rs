//! What the core is told once, at its start.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use sip::transaction::Timers;
use sip::{Hop, Transport, Uri};

/// An address under which others reach this registrar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Transport.
    pub transport: Transport,
    /// Host name or address as it stands in a URI (IPv6 without brackets).
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Advertised {
    /// `host:port` as in a Via or URI, IPv6 bracketed.
    #[must_use]
    pub fn host_port(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn is_v6(&self) -> Option<bool> {
        self.host.parse::<IpAddr>().ok().map(|a| a.is_ipv6())
    }
}

/// Bounds of what the core keeps.
#[derive(Clone, Copy, Debug)]
pub struct CoreLimits {
    /// Bindings of one address of record. Beyond it a REGISTER is refused with 403.
    pub bindings_per_aor: usize,
    /// Contacts one REGISTER may carry.
    pub contacts_per_request: usize,
    /// REGISTERs waiting for the store, all together. Beyond it: 503.
    pub pending_registrations: usize,
    /// Proxied requests in progress. Beyond it requests outside a dialog are answered 503; requests in a
    /// dialog are served up to twice as many.
    pub contexts: usize,
    /// Branches one request may be forked to. Lowering it limits amplification (RFC 5393).
    pub branches: usize,
    /// In-dialog requests waiting for a meeting to get a new owner.
    pub parked: usize,
    /// Route, Record-Route or Via values accepted in one request: more than Max-Forwards lets there be are an attack.
    pub route_values: usize,
    /// Wrong passwords one source address may send for one user within a minute before that user is turned away there
    /// with 403; ten times as many for all users together.
    pub failures_per_source: u32,
}

impl Default for CoreLimits {
    fn default() -> Self {
        Self {
            bindings_per_aor: 16,
            contacts_per_request: 16,
            pending_registrations: 10_000,
            contexts: 20_000,
            branches: 16,
            parked: 10_000,
            route_values: 70,
            failures_per_source: 60,
        }
    }
}

/// Keys shared by all registrars of a cluster.
#[derive(Clone)]
pub struct Secrets {
    /// Signs digest nonces.
    pub nonce: [u8; 32],
    /// Signs flow tokens and GRUUs.
    pub flow: [u8; 32],
    /// Derives guests' passwords.
    pub guest: [u8; 32],
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// What a registrar is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this registrar, unique in the cluster.
    pub node: String,
    /// Domains served, lower case; the first is the one addresses of record are written with.
    pub domains: Vec<String>,
    /// Digest realm.
    pub realm: String,
    /// How clients and other domains reach us.
    pub advertised: Vec<Advertised>,
    /// How meeting managers and other registrars reach us; empty: as clients do.
    pub internal: Vec<Advertised>,
    /// Sockets that datagrams are sent from: a client behind NAT must be sent to from the one it knows, as long
    /// as that is still open. Empty: any.
    pub datagram_sockets: Vec<SocketAddr>,
    /// Networks whose requests are neither challenged nor stripped of their asserted identity.
    pub trusted: Vec<IpNet>,
    /// Whether authenticated users may call foreign domains through us.
    pub relay: bool,
    /// Whether callers of other domains may reach users and meetings here unauthenticated.
    pub foreign_callers: bool,
    /// Shortest registration accepted, seconds (else 423).
    pub min_expires: u32,
    /// Longest registration granted, seconds.
    pub max_expires: u32,
    /// Granted where the client asks for nothing, seconds.
    pub default_expires: u32,
    /// Flow-Timer told to Outbound clients, seconds (RFC 5626 §4.4).
    pub flow_timer: u32,
    /// Digest algorithms offered, in order.
    pub digest: Vec<sip::digest::Algorithm>,
    /// Whether any meeting lets guests in.
    pub guests: bool,
    /// Whether a Service-Route is given to clients (RFC 3608).
    pub service_route: bool,
    /// How long a digest nonce is good.
    pub nonce_lifetime: Duration,
    /// Base timers of transactions.
    pub timers: Timers,
    /// Timer C: how long a proxied INVITE may ring without news (RFC 3261 §16.6: more than three minutes).
    pub timer_c: Duration,
    /// How long an in-dialog request waits for its meeting's new owner.
    pub park: Duration,
    /// Bounds.
    pub limits: CoreLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: "registrar-1".into(),
            domains: vec!["localhost".into()],
            realm: "localhost".into(),
            advertised: Vec::new(),
            internal: Vec::new(),
            datagram_sockets: Vec::new(),
            trusted: Vec::new(),
            relay: false,
            foreign_callers: false,
            min_expires: 60,
            max_expires: 7200,
            default_expires: 600,
            flow_timer: 120,
            digest: vec![sip::digest::Algorithm::Sha256, sip::digest::Algorithm::Md5],
            guests: false,
            service_route: true,
            nonce_lifetime: Duration::from_secs(300),
            timers: Timers::default(),
            timer_c: Duration::from_secs(190),
            park: Duration::from_secs(3),
            limits: CoreLimits::default(),
        }
    }
}

/// A host as it stands in a URI.
pub(crate) fn in_uri(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

impl Settings {
    /// The domain addresses of record are written with, IPv6 without brackets.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.domains.first().map_or("localhost", String::as_str)
    }

    /// The same as it stands in a URI: an IPv6 address in brackets (RFC 3261 §19.1.1).
    #[must_use]
    pub fn domain_in_uri(&self) -> String {
        in_uri(self.domain())
    }

    /// Whether `host` is a domain of ours.
    #[must_use]
    pub fn is_domain(&self, host: &str) -> bool {
        self.domains.iter().any(|d| d.eq_ignore_ascii_case(host))
    }

    fn all_advertised(&self) -> impl Iterator<Item = &Advertised> {
        self.advertised.iter().chain(&self.internal)
    }

    /// Whether a URI names this registrar or a domain it serves (RFC 3261 §16.4, §16.5).
    ///
    /// A port that is not ours makes it somebody else's: a client on the same host has a Contact with our
    /// host and its own port.
    #[must_use]
    pub fn is_ours(&self, uri: &Uri) -> bool {
        if uri.scheme != "sip" && uri.scheme != "sips" {
            return false;
        }
        match uri.port {
            None => {
                self.is_domain(&uri.host)
                    || self.all_advertised().any(|a| {
                        a.host.eq_ignore_ascii_case(&uri.host)
                            && a.port == a.transport.default_port()
                    })
            }
            Some(port) => {
                (self.is_domain(&uri.host)
                    && (self.all_advertised().any(|a| a.port == port)
                        || (uri.ip().is_none() && matches!(port, 5060 | 5061))))
                    || self
                        .all_advertised()
                        .any(|a| a.port == port && a.host.eq_ignore_ascii_case(&uri.host))
            }
        }
    }

    /// Our addresses of a transport, as managers and other registrars (`inner`) or clients reach us.
    fn addresses(&self, transport: Transport, inner: bool) -> impl Iterator<Item = &Advertised> {
        let is_own = move |a: &&Advertised| a.transport == transport;
        let list = if inner && self.internal.iter().any(|a| is_own(&a)) {
            &self.internal
        } else {
            &self.advertised
        };
        list.iter().filter(is_own)
    }

    fn or_domain(&self, found: Option<&Advertised>, transport: Transport) -> Advertised {
        found.cloned().unwrap_or_else(|| Advertised {
            transport,
            host: self.domain().to_owned(),
            port: transport.default_port(),
        })
    }

    /// Our address for a peer that is not known yet.
    #[must_use]
    pub fn address_for(&self, transport: Transport, inner: bool) -> Advertised {
        self.or_domain(self.addresses(transport, inner).next(), transport)
    }

    /// Our address towards a peer: the one its flow arrived at where we advertise that, else one of the same address,
    /// else of the same family, where there is one.
    #[must_use]
    pub fn address_towards(&self, hop: &Hop, inner: bool) -> Advertised {
        let all = || self.addresses(hop.transport, inner);
        let local = hop.local.map(|local| local.ip());
        let own = |a: &&Advertised| local.is_some() && a.host.parse().ok() == local;
        let port = hop.local.map(|local| local.port());
        let same = |a: &&Advertised| own(a) && Some(a.port) == port;
        let fits = |a: &&Advertised| a.is_v6().is_none_or(|v6| v6 == hop.remote.is_ipv6());
        let found = all().find(same).or_else(|| all().find(own));
        let found = found.or_else(|| all().find(fits));
        self.or_domain(found.or_else(|| all().next()), hop.transport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_the_address_it_came_to_or_one_of_its_family() {
        let told = |host: &str| Advertised {
            transport: Transport::Udp,
            host: host.into(),
            port: 5060,
        };
        let settings = Settings {
            advertised: ["192.0.2.7", "198.51.100.7", "2001:db8::7"]
                .map(told)
                .to_vec(),
            ..Settings::default()
        };
        let towards = |local: Option<&str>, remote: &str| {
            let parse = |text: &str| text.parse().expect("an address");
            let hop = Hop {
                local: local.map(parse),
                ..Hop::to(Transport::Udp, parse(remote))
            };
            settings.address_towards(&hop, false).host
        };
        let second = Some("198.51.100.7:5060");
        assert_eq!(towards(second, "203.0.113.1:5060"), "198.51.100.7");
        let behind_nat = Some("10.0.0.1:5060");
        assert_eq!(towards(behind_nat, "203.0.113.1:5060"), "192.0.2.7");
        assert_eq!(towards(None, "203.0.113.1:5060"), "192.0.2.7");
        assert_eq!(towards(None, "[2001:db8::1]:5060"), "2001:db8::7");
    }

    #[test]
    fn a_peer_is_told_the_port_it_came_to_where_one_address_has_two() {
        let told = |port| Advertised {
            transport: Transport::Udp,
            host: "192.0.2.7".into(),
            port,
        };
        let settings = Settings {
            advertised: [5060, 5080].map(told).to_vec(),
            ..Settings::default()
        };
        let towards = |local: &str| {
            let parse = |text: &str| text.parse().expect("an address");
            let hop = Hop {
                local: Some(parse(local)),
                ..Hop::to(Transport::Udp, parse("203.0.113.1:5060"))
            };
            settings.address_towards(&hop, false).port
        };
        assert_eq!(towards("192.0.2.7:5080"), 5080);
        assert_eq!(towards("192.0.2.7:5060"), 5060);
        assert_eq!(towards("192.0.2.7:49152"), 5060, "a connection of our own");
    }
}
