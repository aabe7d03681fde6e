//! Loops told from spirals (RFC 3261 §16.3, RFC 5393 §4).

use hmac::{Hmac, Mac};
use sha2::Sha256;
use sip::{HeaderName, Message};

/// The magic cookie every branch begins with.
const COOKIE: &str = "z9hG4bK";

/// Hex digits of the loop-detecting part.
const PART: usize = 16;

/// What routing depends on, hashed: a request that comes back with all of it unchanged loops; one that comes
/// back with another Request-URI or Route spirals, which is fine.
pub(crate) fn loop_part(key: &[u8; 32], message: &Message) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    let mut add = |value: &str| {
        mac.update(&(value.len() as u64).to_be_bytes());
        mac.update(value.as_bytes());
    };
    add("loop");
    add(message.request_uri());
    for route in message.values(HeaderName::Route) {
        add(route);
    }
    add("tags");
    for address in [message.from(), message.to()] {
        add(address.as_ref().ok().and_then(|a| a.tag()).unwrap_or(""));
    }
    add(message.call_id());
    if let Ok(cseq) = message.cseq() {
        add(&cseq.number.to_string());
        add(cseq.method.as_str());
    }
    // Proxy-Authorization stays out: ours is taken off on the way.
    for value in message.headers(HeaderName::ProxyRequire) {
        add(value);
    }
    hex::encode(mac.finalize().into_bytes())[..PART].to_owned()
}

/// A branch that can be recognised.
pub(crate) fn branch(part: &str, unique: u64) -> String {
    format!("{COOKIE}{part}.{unique:016x}")
}

/// Whether the request has been through a registrar of this cluster as it is now.
pub(crate) fn is_loop(part: &str, message: &Message) -> bool {
    message
        .values(HeaderName::Via)
        .filter_map(|value| sip::header::Via::parse(value).ok())
        .any(|via| {
            via.branch()
                .strip_prefix(COOKIE)
                .and_then(|rest| rest.split_once('.'))
                .is_some_and(|(seen, _)| seen == part)
        })
}
