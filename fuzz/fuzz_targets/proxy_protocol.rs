//! PROXY headers as balancers send them, and as anybody may: the source they name, or a refusal.
#![cfg_attr(fuzzing, no_main)]

use std::net::SocketAddr;

use transport::proxy_protocol::parse_header;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, TCP, with the bytes of source, destination and both ports, and TLVs behind.
fn version_2(v6: bool, addresses: &[u8], tlvs: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[0x21, if v6 { 0x21 } else { 0x11 }]);
    let length = u16::try_from(addresses.len() + tlvs.len()).expect("short");
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(addresses);
    header.extend_from_slice(tlvs);
    header
}

fn source(v6: bool, addresses: &[u8]) -> SocketAddr {
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    if v6 {
        let ip: [u8; 16] = addresses[..16].try_into().expect("long enough");
        SocketAddr::from((ip, port(32)))
    } else {
        let ip: [u8; 4] = addresses[..4].try_into().expect("long enough");
        SocketAddr::from((ip, port(8)))
    }
}

rostrum_fuzz::target!(|data| {
    // As it is.
    if let Ok((_, length)) = parse_header(data) {
        assert!(length <= data.len());
        assert!(parse_header(&data[..length]).is_ok());
        assert!(parse_header(&data[..length - 1]).is_err());
    }
    // With a beginning that is right, so that every byte counts.
    let _ = parse_header(&[b"PROXY ", data, b"\r\n"].concat());
    let _ = parse_header(&[SIGNATURE, data].concat());
    // Both versions tell the same source, whatever it is and whatever follows.
    for (v6, length) in [(false, 12), (true, 36)] {
        let Some((addresses, rest)) = data.split_at_checked(length) else {
            continue;
        };
        let wanted = source(v6, addresses);
        let header = version_2(v6, addresses, &rest[..rest.len().min(100)]);
        let found = parse_header(&[&header, rest].concat()).expect("a header");
        assert_eq!(found, (Some(wanted), header.len()));
        let (family, ip) = (if v6 { 6 } else { 4 }, wanted.ip());
        let line = format!("PROXY TCP{family} {ip} {ip} {} 5060\r\n", wanted.port());
        let found = parse_header(&[line.as_bytes(), rest].concat()).expect("a header");
        assert_eq!(found, (Some(wanted), line.len()));
    }
});
