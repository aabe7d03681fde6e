//! STUN keepalives on the SIP port: nothing, or an answer that is hardly longer than what asked for it.
#![cfg_attr(fuzzing, no_main)]

use std::net::SocketAddr;

use transport::stun::{answer, is_stun};

const BINDING: [u8; 2] = [0, 1];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

fn check(datagram: &[u8], source: SocketAddr) -> bool {
    let Some(answer) = answer(datagram, source) else {
        return false;
    };
    assert!(is_stun(datagram) && is_stun(&answer));
    assert_eq!(answer[4..20], datagram[4..20], "the same transaction");
    assert_eq!(
        usize::from(u16::from_be_bytes([answer[2], answer[3]])),
        answer.len() - 20
    );
    let most = if source.is_ipv6() { 24 } else { 12 };
    assert!(answer.len() <= datagram.len() + most);
    true
}

rostrum_fuzz::target!(|data| {
    let v4 = SocketAddr::from(([192, 0, 2, 1], 5060));
    let v6 = SocketAddr::from((
        [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        5060,
    ));
    for source in [v4, v6] {
        check(data, source);
        // With a head that is right, so that the attributes count.
        let attributes = &data[..data.len().min(1_000)];
        let length = u16::try_from(attributes.len())
            .expect("short")
            .to_be_bytes();
        let whole = [&BINDING[..], &length, &COOKIE, b"transactions", attributes].concat();
        assert!(
            check(&whole, source) || !attributes.is_empty(),
            "a bare request is answered"
        );
    }
});
