//! The switch's configuration: one typed struct, checked before any socket opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cluster::Tls;
use cluster::identity::is_certifiable;
use cluster::records::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One switch: forwards audio and video of the meetings that managers place on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of this switch, unique in the cluster.
    pub id: String,
    /// Address to listen on for orders of the meeting managers (gRPC). Beyond loopback it needs [cluster], as whoever
    /// reaches it would else command this switch. Port 0 takes a free one.
    #[schemars(with = "String")]
    pub control: SocketAddr,
    /// How meeting managers reach the above, "host:port"; empty: as it listens, and for 0.0.0.0 and :: by the card that
    /// leads to the internet.
    pub advertise_control: String,
    /// Addresses of the network cards to take media on, IPv4 and IPv6. 0.0.0.0 and :: take all of a family; on a machine
    /// without IPv6, :: beside an IPv4 address is passed over.
    #[schemars(with = "Vec<String>")]
    pub listen: Vec<IpAddr>,
    /// Addresses that participants are told to send media to, best first, where they differ from what is listened on
    /// (NAT). Where listen has several of a family: one for each, in the same order. A family of which there is none
    /// here: the address listened on, or of the card that leads to the internet.
    #[schemars(with = "Vec<String>")]
    pub advertise: Vec<IpAddr>,
    /// First UDP port for browsers (ICE); one port a worker. 0 takes free ones.
    pub webrtc_port: u16,
    /// First and last UDP port for phones. Phones whose address is known share a few ports of each worker; one behind NAT
    /// has two of its own for each kind of media. [0, 0] takes free ones.
    pub plain_ports: [u16; 2],
    /// Worker threads; 0: one a core. A meeting lives on one worker.
    pub workers: usize,
    /// Legs this switch takes; beyond it joins are refused.
    pub capacity: usize,
    /// Kernel buffer of each media socket, bytes, in each direction. Small ones lose packets when a keyframe comes.
    pub socket_buffer: usize,
    /// bit/s of video each sender is told to stay below.
    pub video_bitrate: u32,
    /// ms between decisions on the dominant speaker. Raising it makes the picture calmer and later.
    pub speaker_interval: u64,
    /// Seconds after which a meeting is ended of which its owner has said nothing while all its legs were silent, so
    /// that its ports are free again. 0: never.
    pub orphan_timeout: u64,
    /// With it only members of the cluster that show their certificate may give orders.
    #[serde(skip)]
    pub tls: Option<Arc<Tls>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: "switch-1".into(),
            control: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            advertise_control: String::new(),
            listen: vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            advertise: Vec::new(),
            webrtc_port: 40_000,
            plain_ports: [20_000, 29_999],
            workers: 0,
            capacity: 2_000,
            socket_buffer: 4 << 20,
            video_bitrate: 2_500_000,
            speaker_interval: 40,
            orphan_timeout: 300,
            tls: None,
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct Invalid {
    /// Name of the setting.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub instead: String,
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
        let mut found = Vec::new();
        let mut invalid = |key, what: &str, instead: &str| {
            found.push(Invalid {
                key,
                what: what.to_owned(),
                instead: instead.to_owned(),
            });
        };
        if self.id.is_empty() || self.id.contains('/') {
            invalid(
                "id",
                "must be a name without slashes",
                "write for example \"switch-1\"",
            );
        }
        if !self.advertise_control.is_empty() && !is_host_port(&self.advertise_control) {
            invalid(
                "advertise_control",
                &format!("{:?} is not host:port", self.advertise_control),
                "write for example \"switch-1.example.org:7070\" or \"192.0.2.7:7070\"",
            );
        }
        match &self.tls {
            None if !self.control.ip().is_loopback() => invalid(
                "control",
                &format!(
                    "whoever reaches {} would command this switch, as there is no [cluster] to know its members by",
                    self.control
                ),
                "write \"127.0.0.1:7070\", or set ca_file, cert_file and key_file in [cluster] (rostrum cluster init makes them)",
            ),
            Some(_) if !is_certifiable(&self.id) => invalid(
                "id",
                &format!("{:?} cannot stand in a certificate", self.id),
                "write lower-case letters, digits, \"-\", \"_\" and dots",
            ),
            Some(tls) if !tls.is_for(Kind::Switch, &self.id) => invalid(
                "id",
                &format!(
                    "the certificate of [cluster] is not that of switch {:?}",
                    self.id
                ),
                &format!(
                    "write the id it was made for ({}), or give it another certificate",
                    told(tls)
                ),
            ),
            _ => {}
        }
        if self.listen.is_empty() {
            invalid(
                "listen",
                "no address to take media on",
                "write [\"0.0.0.0\"], or the address of a card",
            );
        }
        if self
            .advertise
            .iter()
            .any(|a| a.is_unspecified() || a.is_multicast())
        {
            invalid(
                "advertise",
                "participants cannot send to such an address",
                "write the address they reach",
            );
        }
        let [first, last] = self.plain_ports;
        let is_range =
            (first == 0) == (last == 0) && (last == 0 || last >= first.saturating_add(3));
        if !is_range {
            invalid(
                "plain_ports",
                "not a range of at least 4 ports",
                "write for example [20000, 29999]",
            );
        }
        let workers = u16::try_from(self.workers()).unwrap_or(u16::MAX);
        let webrtc_last = self.webrtc_port.saturating_add(workers - 1);
        if self.webrtc_port != 0 && first != 0 && self.webrtc_port <= last && webrtc_last >= first {
            invalid(
                "webrtc_port",
                "lies in the range of plain_ports",
                "move one of them: a worker takes one port from webrtc_port on",
            );
        }
        if self.capacity == 0 {
            invalid(
                "capacity",
                "a switch without capacity takes no leg",
                "write 2000, or what your bench says",
            );
        }
        if !(10..=2000).contains(&self.speaker_interval) {
            invalid("speaker_interval", "must be 10 to 2000 ms", "write 40");
        }
        found.extend(self.card_problems());
        found
    }

    /// Worker threads to run.
    #[must_use]
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n.min(64),
        }
    }

    /// Time between decisions on the dominant speaker.
    #[must_use]
    pub fn speaker_interval(&self) -> Duration {
        Duration::from_millis(self.speaker_interval)
    }

    /// Each address listened on, with those that participants are told for it, best first. Where several of a family
    /// are listened on, the n-th has the n-th advertised one. A family without an advertised address has its own: as
    /// listened on, and for 0.0.0.0 and :: that of the card that leads to the internet, else loopback.
    #[must_use]
    pub fn cards(&self) -> Vec<Card> {
        let mut cards: Vec<Card> = Vec::new();
        let any_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let pass_over = self.listen.iter().any(IpAddr::is_ipv4)
            && std::net::UdpSocket::bind((any_ipv6, 0)).is_err();
        let listen = self.listen.iter();
        for listen in listen.filter(|ip| !pass_over || **ip != any_ipv6) {
            let of_family = |list: &[IpAddr]| -> Vec<IpAddr> {
                let same = |a: &&IpAddr| a.is_ipv4() == listen.is_ipv4();
                list.iter().filter(same).copied().collect()
            };
            let before = cards
                .iter()
                .filter(|c| c.listen.is_ipv4() == listen.is_ipv4());
            let told = match (of_family(&self.advertise), of_family(&self.listen).len()) {
                (told, _) if told.is_empty() => vec![own_address(*listen)],
                (told, 1) => told,
                (told, _) => told.get(before.count()).copied().into_iter().collect(),
            };
            cards.push(Card {
                listen: *listen,
                told,
            });
        }
        // Loopback stands in where a family has no card; nobody else can use it.
        if cards
            .iter()
            .flat_map(|c| &c.told)
            .any(|ip| !ip.is_loopback())
        {
            for card in cards.iter_mut().filter(|c| c.listen.is_unspecified()) {
                card.told.retain(|ip| !ip.is_loopback());
            }
        }
        cards
    }

    /// URL at which meeting managers reach the control server, which is bound to `control`.
    pub(crate) fn control_told(&self, control: SocketAddr) -> String {
        let scheme = self.tls.as_ref().map_or("http", |_| "https");
        match self.advertise_control.as_str() {
            "" => {
                let reached = SocketAddr::new(own_address(control.ip()), control.port());
                format!("{scheme}://{reached}")
            }
            given => format!("{scheme}://{given}"),
        }
    }

    /// All addresses that participants are told, best first.
    #[must_use]
    pub fn advertised(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = Vec::new();
        for ip in self.cards().into_iter().flat_map(|card| card.told) {
            if !all.contains(&ip) {
                all.push(ip);
            }
        }
        all
    }

    /// Each family's advertised addresses must have where to arrive, one each.
    fn card_problems(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        for (family, ipv6) in [("IPv4", false), ("IPv6", true)] {
            let count = |list: &[IpAddr]| list.iter().filter(|ip| ip.is_ipv6() == ipv6).count();
            let (listen, told) = (count(&self.listen), count(&self.advertise));
            let (what, instead) = if told > 0 && listen == 0 {
                let any = if ipv6 { "\"::\"" } else { "\"0.0.0.0\"" };
                (
                    format!("an {family} address, but listen has none"),
                    format!("add {any} to listen, or take it away here"),
                )
            } else if told > 0 && listen > 1 && told != listen {
                (
                    format!("{told} {family} addresses for {listen} listened on"),
                    "write one for each of listen, in the same order".to_owned(),
                )
            } else {
                continue;
            };
            found.push(Invalid {
                key: "advertise",
                what,
                instead,
            });
        }
        found
    }
}

/// Whose certificate it is, for people.
fn told(tls: &Tls) -> String {
    let all: Vec<String> = tls
        .identities()
        .iter()
        .map(|(kind, id)| format!("{kind} {id:?}"))
        .collect();
    match all.is_empty() {
        true => "no member of the cluster's".to_owned(),
        false => all.join(", "),
    }
}

/// A name or an address (IPv6 in brackets), and a port.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let known = text.parse::<SocketAddr>().is_ok() || !host.is_empty() && host.bytes().all(name);
    known && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// An address listened on, and how participants reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// As bound.
    pub listen: IpAddr,
    /// As told, best first.
    pub told: Vec<IpAddr>,
}

/// How a listening address is reached where nobody said.
fn own_address(listen: IpAddr) -> IpAddr {
    let (target, loopback): (IpAddr, IpAddr) = match listen {
        IpAddr::V4(_) => (IpAddr::from([192, 0, 2, 1]), IpAddr::from([127, 0, 0, 1])),
        IpAddr::V6(_) => (
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ),
    };
    if !listen.is_unspecified() {
        return listen;
    }
    // one that is good on its own link only would mean another machine elsewhere
    let on_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    source_towards(target)
        .filter(|ip| !on_link(ip))
        .unwrap_or(loopback)
}

/// The address of this machine that packets to another leave from; nothing is sent.
pub(crate) fn source_towards(target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(target, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn overlapping_port_ranges_are_told() {
        let config = Config {
            webrtc_port: 25_000,
            ..Config::default()
        };
        assert_eq!(config.check().expect_err("overlap").key, "webrtc_port");
    }

    #[test]
    fn managers_are_told_no_address_that_nobody_can_connect_to() {
        let told = |config: &Config, control: &str| config.control_told(control.parse().unwrap());
        let config = Config::default();
        assert_eq!(told(&config, "10.0.0.1:7070"), "http://10.0.0.1:7070");
        for any in ["0.0.0.0:7070", "[::]:7070"] {
            let told = told(&config, any);
            let told = told.strip_prefix("http://").expect("a URL");
            let told: SocketAddr = told.parse().expect("an address");
            assert!(!told.ip().is_unspecified() && told.port() == 7070, "{told}");
            assert_eq!(told.is_ipv4(), any.starts_with('0'));
        }
        let config = Config {
            advertise_control: "switch.example.org:7070".into(),
            ..config
        };
        let named = "http://switch.example.org:7070";
        assert_eq!(told(&config, "0.0.0.0:7070"), named);
    }

    #[test]
    fn without_certificates_orders_are_taken_on_loopback_only() {
        for (control, good) in [
            ("127.0.0.1:7070", true),
            ("[::1]:0", true),
            ("0.0.0.0:7070", false),
            ("192.0.2.7:7070", false),
        ] {
            let config = Config {
                control: control.parse().unwrap(),
                ..Config::default()
            };
            let problem = config.check().map_err(|e| e.key);
            assert_eq!(
                problem,
                if good { Ok(()) } else { Err("control") },
                "{control}"
            );
        }
    }

    #[test]
    fn an_address_nobody_can_send_to_is_not_advertised() {
        let config = Config {
            advertise: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            ..Config::default()
        };
        assert_eq!(config.check().expect_err("unspecified").key, "advertise");
        assert!(!Config::default().advertised()[0].is_unspecified());
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        let parse = |text: &&str| text.parse().expect("an address");
        list.iter().map(parse).collect()
    }

    fn cards(listen: &[&str], advertise: &[&str]) -> Vec<Vec<IpAddr>> {
        let config = Config {
            listen: addresses(listen),
            advertise: addresses(advertise),
            ..Config::default()
        };
        config.check().expect("valid");
        config.cards().into_iter().map(|card| card.told).collect()
    }

    #[test]
    fn each_card_is_told_by_its_own_address() {
        let own = cards(&["192.0.2.7", "198.51.100.7", "2001:db8::7"], &[]);
        assert_eq!(
            own,
            [["192.0.2.7"], ["198.51.100.7"], ["2001:db8::7"]].map(|c| addresses(&c))
        );
        let behind_nat = cards(
            &["10.0.0.1", "::1", "10.0.1.1"],
            &["203.0.113.1", "203.0.113.2"],
        );
        assert_eq!(
            behind_nat,
            [["203.0.113.1"], ["::1"], ["203.0.113.2"]].map(|c| addresses(&c))
        );
        let two_ways_in = cards(&["10.0.0.1"], &["203.0.113.1", "198.51.100.1"]);
        assert_eq!(two_ways_in, [addresses(&["203.0.113.1", "198.51.100.1"])]);
    }

    #[test]
    fn advertised_addresses_that_nothing_listens_for_are_told() {
        for (listen, advertise) in [
            (vec!["::"], vec!["203.0.113.1"]),
            (vec!["10.0.0.1", "10.0.1.1"], vec!["203.0.113.1"]),
        ] {
            let config = Config {
                listen: addresses(&listen),
                advertise: addresses(&advertise),
                ..Config::default()
            };
            assert_eq!(config.check().expect_err("unreachable").key, "advertise");
        }
    }
}
