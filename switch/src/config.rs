//! The switch's configuration: one typed struct, checked before any socket opens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One switch: forwards audio and video of the meetings that managers place on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of this switch, unique in the cluster.
    pub id: String,
    /// Address to listen on for orders of the meeting managers (gRPC). Whoever reaches it commands this switch: keep it
    /// on loopback or on a network of the cluster's own. Port 0 takes a free one.
    #[schemars(with = "String")]
    pub control: SocketAddr,
    /// How meeting managers reach the above, "host:port"; empty: as it listens.
    pub advertise_control: String,
    /// Addresses of the network cards to take media on, IPv4 and IPv6. 0.0.0.0 and :: take all of a family.
    #[schemars(with = "Vec<String>")]
    pub listen: Vec<IpAddr>,
    /// Addresses that participants are told to send media to, best first, where they differ from what is listened on
    /// (NAT, several cards). Empty: the address of the card that leads to the internet.
    #[schemars(with = "Vec<String>")]
    pub advertise: Vec<IpAddr>,
    /// First UDP port for browsers (ICE); one port a worker. 0 takes free ones.
    pub webrtc_port: u16,
    /// First and last UDP port for phones; two ports a phone and kind of media. [0, 0] takes free ones.
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: "switch-1".into(),
            control: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            advertise_control: String::new(),
            listen: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            advertise: Vec::new(),
            webrtc_port: 40_000,
            plain_ports: [20_000, 29_999],
            workers: 0,
            capacity: 2_000,
            socket_buffer: 4 << 20,
            video_bitrate: 2_500_000,
            speaker_interval: 40,
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
        let invalid = |key, what: &str, instead: &str| {
            Err(Invalid {
                key,
                what: what.to_owned(),
                instead: instead.to_owned(),
            })
        };
        if self.id.is_empty() || self.id.contains('/') {
            return invalid(
                "id",
                "must be a name without slashes",
                "write for example \"switch-1\"",
            );
        }
        if self.listen.is_empty() {
            return invalid(
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
            return invalid(
                "advertise",
                "participants cannot send to such an address",
                "write the address they reach",
            );
        }
        let [first, last] = self.plain_ports;
        if first > last || (first == 0) != (last == 0) || (first != 0 && last - first < 3) {
            return invalid(
                "plain_ports",
                "not a range of at least 4 ports",
                "write for example [20000, 29999]",
            );
        }
        let workers = u16::try_from(self.workers()).unwrap_or(u16::MAX);
        let webrtc_last = self.webrtc_port.saturating_add(workers - 1);
        if self.webrtc_port != 0 && first != 0 && self.webrtc_port <= last && webrtc_last >= first {
            return invalid(
                "webrtc_port",
                "lies in the range of plain_ports",
                "move one of them: a worker takes one port from webrtc_port on",
            );
        }
        if self.capacity == 0 {
            return invalid(
                "capacity",
                "a switch without capacity takes no leg",
                "write 2000, or what your bench says",
            );
        }
        if !(10..=2000).contains(&self.speaker_interval) {
            return invalid("speaker_interval", "must be 10 to 2000 ms", "write 40");
        }
        Ok(())
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

    /// Addresses that participants are told, best first; by default the cards listened on, and for 0.0.0.0 and :: the
    /// card that leads to the internet, else loopback.
    #[must_use]
    pub fn advertised(&self) -> Vec<IpAddr> {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for listen in &self.listen {
            let address = if listen.is_unspecified() {
                outward(*listen)
            } else {
                *listen
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

/// The address this machine would use towards the internet; nothing is sent.
fn outward(any: IpAddr) -> IpAddr {
    let (target, loopback): (SocketAddr, IpAddr) = match any {
        IpAddr::V4(_) => (
            SocketAddr::from(([192, 0, 2, 1], 9)),
            IpAddr::from([127, 0, 0, 1]),
        ),
        IpAddr::V6(_) => (
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)),
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ),
    };
    std::net::UdpSocket::bind(SocketAddr::new(any, 0))
        .and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        })
        .map_or(loopback, |local| local.ip())
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
    fn an_address_nobody_can_send_to_is_not_advertised() {
        let config = Config {
            advertise: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            ..Config::default()
        };
        assert_eq!(config.check().expect_err("unspecified").key, "advertise");
        assert!(!Config::default().advertised()[0].is_unspecified());
    }
}
