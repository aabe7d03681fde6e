//! STUN binding requests on the SIP port, as keepalives of UDP flows (RFC 5626 §4.4.2 and §8, RFC 5389).
//!
//! Only what §8 asks for: no authentication, no FINGERPRINT, no state. The answer is 12 bytes (IPv6: 24)
//! longer than the smallest request, which makes the port useless for amplification.

use std::net::{IpAddr, SocketAddr};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Comprehension-required attributes a request may carry and that change nothing here:
/// USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, PRIORITY, USE-CANDIDATE.
const KNOWN_REQUIRED: [u16; 6] = [0x0006, 0x0008, 0x0014, 0x0015, 0x0024, 0x0025];
/// More unknown attributes than this are not listed back.
const MAX_UNKNOWN: usize = 8;

/// Whether a datagram is STUN and not SIP: two zero bits and the magic cookie (RFC 5389 §8).
#[must_use]
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] & 0xc0 == 0 && datagram[4..8] == COOKIE
}

/// The answer to a binding request from `source`; `None` for anything else, and for what is malformed.
#[must_use]
pub fn answer(request: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    if !is_stun(request) || u16_at(request, 0)? != BINDING_REQUEST {
        return None;
    }
    if usize::from(u16_at(request, 2)?) != request.len() - HEADER
        || !request.len().is_multiple_of(4)
    {
        return None;
    }
    let unknown = unknown_required(&request[HEADER..])?;
    let transaction = &request[4..HEADER];
    if unknown.is_empty() {
        let value = xor_address(source, transaction);
        return Some(message(
            BINDING_SUCCESS,
            transaction,
            &[(XOR_MAPPED_ADDRESS, value)],
        ));
    }
    // 420 without a reason phrase: class 4, number 20 (RFC 5389 §15.6).
    let list = unknown.iter().flat_map(|a| a.to_be_bytes()).collect();
    Some(message(
        BINDING_ERROR,
        transaction,
        &[(ERROR_CODE, vec![0, 0, 4, 20]), (UNKNOWN_ATTRIBUTES, list)],
    ))
}

/// Comprehension-required attributes (below 0x8000) that are not understood; `None` if malformed.
fn unknown_required(mut attributes: &[u8]) -> Option<Vec<u16>> {
    let mut unknown = Vec::new();
    while !attributes.is_empty() {
        let kind = u16_at(attributes, 0)?;
        let padded = usize::from(u16_at(attributes, 2)?).next_multiple_of(4);
        attributes = attributes.get(4 + padded..)?;
        if kind < 0x8000 && !KNOWN_REQUIRED.contains(&kind) && unknown.len() < MAX_UNKNOWN {
            unknown.push(kind);
        }
    }
    Some(unknown)
}

/// RFC 5389 §15.2; `transaction` is the cookie and the transaction id.
fn xor_address(address: SocketAddr, transaction: &[u8]) -> Vec<u8> {
    let port = address.port() ^ 0x2112;
    let (family, mut ip) = match address.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    for (byte, mask) in ip.iter_mut().zip(transaction) {
        *byte ^= mask;
    }
    let mut value = vec![0, family];
    value.extend_from_slice(&port.to_be_bytes());
    value.extend_from_slice(&ip);
    value
}

fn message(kind: u16, transaction: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(transaction);
    for (kind, value) in attributes {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&be16(value.len()));
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    let length = be16(out.len() - HEADER);
    out[2..4].copy_from_slice(&length);
    out
}

fn be16(n: usize) -> [u8; 2] {
    u16::try_from(n)
        .expect("answers are built from bounded parts, far below 64 kB")
        .to_be_bytes()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut r = vec![0, 1, 0, u8::try_from(attributes.len()).unwrap()];
        r.extend_from_slice(&COOKIE);
        r.extend_from_slice(b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");
        r.extend_from_slice(attributes);
        r
    }

    #[test]
    fn mapped_addresses_are_those_of_rfc_5769() {
        // RFC 5769 §2.2 and §2.3: the same transaction id, these addresses, these encoded values.
        let v4 = answer(&request(&[]), "192.0.2.1:32853".parse().unwrap()).unwrap();
        assert_eq!(v4.len(), 32);
        assert_eq!(
            v4[20..],
            *b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"
        );
        let source = "[2001:db8:1234:5678:11:2233:4455:6677]:32853"
            .parse()
            .unwrap();
        let v6 = answer(&request(&[]), source).unwrap();
        assert_eq!(
            v6[20..],
            *b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9"
        );
    }

    #[test]
    fn unknown_required_attributes_are_named_in_a_420() {
        let source = "127.0.0.1:5060".parse().unwrap();
        let a = answer(&request(b"\x7f\x01\x00\x01x\0\0\0\x80\x22\x00\x00"), source).unwrap();
        assert_eq!(u16_at(&a, 0), Some(BINDING_ERROR));
        assert_eq!(
            a[20..],
            *b"\x00\x09\x00\x04\0\0\x04\x14\x00\x0a\x00\x02\x7f\x01\0\0"
        );
        assert!(
            answer(&request(b"\x80\x22\x00\x00"), source).is_some_and(|a| a[1] == 1 && a[0] == 1)
        );
    }

    #[test]
    fn malformed_and_foreign_stun_is_not_answered() {
        let source = "127.0.0.1:5060".parse().unwrap();
        let good = request(&[]);
        for cut in 0..good.len() {
            assert!(answer(&good[..cut], source).is_none());
        }
        assert!(
            answer(&request(b"\x00\x06\x00\x08abcd"), source).is_none(),
            "attribute too long"
        );
        let mut indication = good.clone();
        indication[1] = 0x11;
        assert!(answer(&indication, source).is_none());
        let mut answerless = good;
        answerless[0] = 1;
        assert!(
            answer(&answerless, source).is_none(),
            "a response is never answered"
        );
    }
}
