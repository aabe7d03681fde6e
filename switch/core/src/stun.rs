//! The part of STUN (RFC 8489) that an ICE-lite agent needs: read a Binding request, write its
//! answer. No allocation, every length checked, nothing kept.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

/// Longest STUN message read. Browsers send about 100 bytes.
pub const MAX_MESSAGE: usize = 1280;

/// Attributes read in one message; more is not a connectivity check.
const MAX_ATTRIBUTES: usize = 24;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Attribute types (RFC 8489 §18.3, RFC 8445 §16.1).
pub(crate) mod attribute {
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
}

/// Whether a datagram is STUN rather than DTLS or RTP: first byte 0..=3 (RFC 7983) and the cookie.
#[must_use]
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] < 4 && datagram[4..8] == COOKIE
}

/// The username of a message without checking anything else of it: enough to find whose it is.
#[must_use]
pub fn username(datagram: &[u8]) -> Option<&[u8]> {
    Message::parse(datagram)?.username
}

/// What matters of a parsed message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    bytes: &'a [u8],
    /// Message type, class and method.
    pub kind: u16,
    /// Transaction id.
    pub transaction: [u8; 12],
    pub username: Option<&'a [u8]>,
    pub use_candidate: bool,
    pub controlled: bool,
    pub priority: Option<u32>,
    /// First comprehension-required attribute we do not know.
    pub unknown: Option<u16>,
    /// Where MESSAGE-INTEGRITY begins, and its value.
    integrity: Option<(usize, [u8; 20])>,
}

/// A Binding request.
pub(crate) const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

impl<'a> Message<'a> {
    /// Reads a message; `None` for anything malformed, a wrong FINGERPRINT included.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !is_stun(bytes) || bytes.len() > MAX_MESSAGE {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if length % 4 != 0 || length + HEADER != bytes.len() {
            return None;
        }
        let mut message = Self {
            bytes,
            kind: u16::from_be_bytes([bytes[0], bytes[1]]),
            transaction: bytes[8..20].try_into().ok()?,
            username: None,
            use_candidate: false,
            controlled: false,
            priority: None,
            unknown: None,
            integrity: None,
        };
        let mut at = HEADER;
        for _ in 0..MAX_ATTRIBUTES {
            if at == bytes.len() {
                return Some(message);
            }
            let head = bytes.get(at..at + 4)?;
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let size = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let value = bytes.get(at + 4..at + 4 + size)?;
            if !message.take(kind, value, at)? {
                // FINGERPRINT is the last attribute (RFC 8489 §14.7).
                return Some(message);
            }
            at += 4 + size.next_multiple_of(4);
        }
        None
    }

    /// Takes in one attribute; `Some(false)` after the last.
    fn take(&mut self, kind: u16, value: &'a [u8], at: usize) -> Option<bool> {
        if kind == attribute::FINGERPRINT {
            let sent = u32::from_be_bytes(value.try_into().ok()?);
            let end = at + 8 == self.bytes.len();
            return (end && sent == crc32(&self.bytes[..at]) ^ FINGERPRINT_XOR).then_some(false);
        }
        // Whatever follows MESSAGE-INTEGRITY is not protected and ignored (§14.5).
        if self.integrity.is_some() {
            return Some(true);
        }
        match kind {
            attribute::USERNAME if value.len() <= 513 => self.username = Some(value),
            attribute::USERNAME => return None,
            attribute::MESSAGE_INTEGRITY => self.integrity = Some((at, value.try_into().ok()?)),
            attribute::PRIORITY => self.priority = Some(u32::from_be_bytes(value.try_into().ok()?)),
            attribute::USE_CANDIDATE => self.use_candidate = true,
            attribute::ICE_CONTROLLED => self.controlled = true,
            attribute::MESSAGE_INTEGRITY_SHA256 => {}
            other if other < 0x8000 => self.unknown = self.unknown.or(Some(other)),
            _ => {}
        }
        Some(true)
    }

    /// Whether MESSAGE-INTEGRITY was made with this short-term key (§14.5), in constant time.
    pub fn is_authentic(&self, key: &hmac::Key) -> bool {
        let Some((at, value)) = self.integrity else {
            return false;
        };
        // The length the sender hashed ends with MESSAGE-INTEGRITY itself.
        let Ok(length) = u16::try_from(at + 24 - HEADER) else {
            return false;
        };
        let mut context = hmac::Context::with_key(key);
        context.update(&self.bytes[..2]);
        context.update(&length.to_be_bytes());
        context.update(&self.bytes[4..at]);
        aws_lc_rs::constant_time::verify_slices_are_equal(context.sign().as_ref(), &value).is_ok()
    }
}

/// A short-term credential's key.
#[must_use]
pub(crate) fn short_term_key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// Room for any answer written here.
pub const MAX_ANSWER: usize = 96;

/// An answer being written.
struct Writer {
    out: [u8; MAX_ANSWER],
    len: usize,
}

impl Writer {
    fn new(kind: u16, transaction: &[u8; 12]) -> Self {
        let mut out = [0u8; MAX_ANSWER];
        out[..2].copy_from_slice(&kind.to_be_bytes());
        out[4..8].copy_from_slice(&COOKIE);
        out[8..20].copy_from_slice(transaction);
        Self { out, len: HEADER }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let at = self.len;
        let padded = value.len().next_multiple_of(4);
        self.out[at..at + 2].copy_from_slice(&kind.to_be_bytes());
        self.out[at + 2..at + 4].copy_from_slice(&(value.len() as u16).to_be_bytes());
        self.out[at + 4..at + 4 + value.len()].copy_from_slice(value);
        self.len += 4 + padded;
    }

    fn set_length(&mut self, length: usize) {
        self.out[2..4].copy_from_slice(&((length - HEADER) as u16).to_be_bytes());
    }

    fn finish(mut self, key: &hmac::Key) -> Answer {
        self.set_length(self.len + 24);
        let tag = hmac::sign(key, &self.out[..self.len]);
        self.attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref());
        self.set_length(self.len + 8);
        let crc = crc32(&self.out[..self.len]) ^ FINGERPRINT_XOR;
        self.attribute(attribute::FINGERPRINT, &crc.to_be_bytes());
        Answer {
            bytes: self.out,
            len: self.len,
        }
    }
}

/// A whole answer, ready to send.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    bytes: [u8; MAX_ANSWER],
    len: usize,
}

impl Answer {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A Binding success response: where the request came from (RFC 8489 §14.2).
pub(crate) fn success(transaction: &[u8; 12], remote: SocketAddr, key: &hmac::Key) -> Answer {
    let mut writer = Writer::new(BINDING_SUCCESS, transaction);
    let mut value = [0u8; 20];
    let port = remote.port().to_be_bytes();
    value[2] = port[0] ^ COOKIE[0];
    value[3] = port[1] ^ COOKIE[1];
    let mut mask = [0u8; 16];
    mask[..4].copy_from_slice(&COOKIE);
    mask[4..].copy_from_slice(transaction);
    let len = match remote.ip() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    for (byte, mask) in value[4..len].iter_mut().zip(mask) {
        *byte ^= mask;
    }
    writer.attribute(attribute::XOR_MAPPED_ADDRESS, &value[..len]);
    writer.finish(key)
}

/// A Binding error response without a reason phrase: never longer than the request.
pub(crate) fn error(
    transaction: &[u8; 12],
    code: u16,
    unknown: Option<u16>,
    key: &hmac::Key,
) -> Answer {
    let mut writer = Writer::new(BINDING_ERROR, transaction);
    let value = [0, 0, (code / 100) as u8, (code % 100) as u8];
    writer.attribute(attribute::ERROR_CODE, &value);
    if let Some(unknown) = unknown {
        writer.attribute(attribute::UNKNOWN_ATTRIBUTES, &unknown.to_be_bytes());
    }
    writer.finish(key)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut at = 0;
    while at < 256 {
        let mut value = at as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (0xEDB8_8320 & (value & 1).wrapping_neg());
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
};

/// The CRC-32 of ITU V.42 that FINGERPRINT uses.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (crc >> 8) ^ CRC_TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize]
    })
}
