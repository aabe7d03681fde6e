//! By which address of this machine others reach it, where nobody said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The address of one family that others most likely reach this machine by: that of the card which leads to the
/// internet, else that of the first card that is up; `None` where there is only loopback. Nothing is sent.
#[must_use]
pub fn outward(ipv6: bool) -> Option<IpAddr> {
    routed(ipv6).or_else(|| first_card(ipv6))
}

/// Whether sockets of the IPv6 family can be had at all.
#[must_use]
pub fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// What the routing table chooses as a source towards addresses outside (RFC 5737, RFC 3849).
fn routed(ipv6: bool) -> Option<IpAddr> {
    let (any, outside): (IpAddr, IpAddr) = if ipv6 {
        let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        (Ipv6Addr::UNSPECIFIED.into(), outside.into())
    } else {
        let outside = Ipv4Addr::new(192, 0, 2, 1);
        (Ipv4Addr::UNSPECIFIED.into(), outside.into())
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(outside, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    reachable(ip).then_some(ip)
}

/// All addresses of one family that others may reach this machine by, [`outward`] first.
#[must_use]
pub fn all(ipv6: bool) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = outward(ipv6).into_iter().collect();
    for ip in of_cards(ipv6) {
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

fn first_card(ipv6: bool) -> Option<IpAddr> {
    of_cards(ipv6).next()
}

fn of_cards(ipv6: bool) -> impl Iterator<Item = IpAddr> {
    let cards = getifaddrs().into_iter().flatten();
    cards.filter_map(move |card| {
        let up = card.flags.contains(InterfaceFlags::IFF_UP)
            && !card.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let address = card.address.filter(|_| up)?;
        let ip: IpAddr = match ipv6 {
            true => address.as_sockaddr_in6()?.ip().into(),
            false => address.as_sockaddr_in()?.ip().into(),
        };
        reachable(ip).then_some(ip)
    })
}

/// Whether another machine may be told this address: it means the same there.
fn reachable(ip: IpAddr) -> bool {
    let on_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || on_link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_of_the_family_and_means_the_same_elsewhere() {
        for ipv6 in [false, true] {
            for found in [routed(ipv6), first_card(ipv6), outward(ipv6)] {
                assert!(found.is_none_or(|ip| ip.is_ipv6() == ipv6 && reachable(ip)));
            }
            let all = all(ipv6);
            assert_eq!(all.first().copied(), outward(ipv6));
            assert!(all.iter().all(|ip| ip.is_ipv6() == ipv6 && reachable(*ip)));
        }
    }

    #[test]
    fn addresses_that_mean_something_else_on_another_machine_are_not_told() {
        for ip in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.2",
            "::1",
            "::",
            "fe80::1",
        ] {
            assert!(!reachable(ip.parse().expect("an address")), "{ip}");
        }
        for ip in ["192.0.2.7", "10.0.0.1", "2001:db8::7", "fd00::2"] {
            assert!(reachable(ip.parse().expect("an address")), "{ip}");
        }
    }
}
