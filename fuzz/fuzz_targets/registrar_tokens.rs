//! Flow tokens and guests' names, which anybody may write into a URI, and records of bindings: what we did not make is
//! none, and what we made says what it was made for.
#![cfg_attr(fuzzing, no_main)]

use std::net::{IpAddr, SocketAddr};

use registrar_core::{BindingSet, GuestMint, GuestName, TokenKind, TokenMint, valid_meeting_name};
use sip::{FlowId, Hop, Transport};

fn address(bytes: &[u8]) -> SocketAddr {
    let mut octets = [0; 16];
    for (octet, byte) in octets.iter_mut().zip(bytes) {
        *octet = *byte;
    }
    let ip: IpAddr = match octets[0] & 1 {
        0 => IpAddr::from([octets[1], octets[2], octets[3], octets[4]]),
        _ => IpAddr::from(octets),
    };
    SocketAddr::new(ip, u16::from_be_bytes([octets[14], octets[15]]))
}

rostrum_fuzz::target!(|data| {
    let mint = TokenMint::new([1; 32], "edge-1", 9);
    let transports = [
        Transport::Udp,
        Transport::Tcp,
        Transport::Tls,
        Transport::Ws,
        Transport::Wss,
    ];
    let number = data.first().copied().unwrap_or(0);
    let (near, far) = data.split_at(data.len() / 2);
    let hop = Hop {
        transport: transports[usize::from(number) % transports.len()],
        remote: address(near),
        local: (number & 0x20 != 0).then(|| address(far)),
        flow: (number & 0x40 != 0).then_some(FlowId(number.into())),
    };
    let token = mint.mint(TokenKind::Edge, Some(&hop));
    let opened = mint.open(&token).and_then(|t| t.flow).expect("our own");
    assert_eq!(
        (opened.transport, opened.remote, opened.local, opened.flow),
        (hop.transport, hop.remote, hop.local, hop.flow)
    );
    // One character of it is another's.
    let mut forged = token.into_bytes();
    let place = usize::from(number) % forged.len();
    forged[place] = match forged[place] {
        b'A' => b'B',
        _ => b'A',
    };
    // The last character may have bits that say nothing.
    if place + 1 < forged.len() {
        let forged = String::from_utf8(forged).expect("base64");
        assert_eq!(mint.open(&forged), None);
    }

    if let Ok(set) = BindingSet::decode(data) {
        assert_eq!(BindingSet::decode(&set.encode()).expect("our own"), set);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    assert_eq!(mint.open(text), None);
    let outside = mint.mint_outside(hop.remote, text);
    let host = mint
        .open(&outside)
        .and_then(|t| t.outside)
        .expect("our own");
    assert!(host.address == hop.remote.ip() && host.is_named(text));
    let guests = GuestMint::new([3; 32]);
    if let Some(name) = GuestName::parse(text) {
        assert!(valid_meeting_name(&name.meeting), "{name:?}");
    }
    let pass = guests.issue(text, 1_800_000_000, 7);
    assert_eq!(pass.is_some(), valid_meeting_name(text));
    if let Some(pass) = pass {
        let name = GuestName::parse(&pass.user).expect("our own");
        assert_eq!((name.meeting.as_str(), name.expires), (text, 1_800_000_000));
    }
});
