//! Digest authentication (RFC 7616, RFC 8760, RFC 3261 §22): SHA-256 and MD5, qop=auth, stateless nonces.

use std::time::Duration;

use crate::message::Message;

/// Hash algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    #[serde(rename = "SHA-256")]
    Sha256,
    #[serde(rename = "MD5")]
    Md5,
}

/// What is stored of a password: H(user:realm:password) in lower-case hex, one an algorithm.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct Ha1 {
    pub sha256: String,
    pub md5: String,
}

impl Ha1 {
    /// From a password.
    #[must_use]
    pub fn new(_user: &str, _realm: &str, _password: &str) -> Self {
        todo!()
    }
}

/// Whether the request proves who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Credentials are right: the authenticated user name.
    Ok(String),
    /// None for our realm, or not understood: challenge.
    Missing,
    /// Right but for the nonce (expired, or nc out of window): challenge with stale=true.
    Stale,
    /// Wrong password, user unknown, replay, uri mismatch (the caller cannot tell which from the time it took).
    Wrong,
    /// Malformed: 400.
    Malformed(&'static str),
}

/// Issues and checks stateless nonces: time and HMAC; nc is checked in a bounded window per nonce.
/// "Now" is wall-clock time since the Unix epoch, so that every member of the cluster agrees.
#[derive(Debug)]
pub struct Authenticator {
    _private: (),
}

#[allow(unused_variables)]
impl Authenticator {
    /// `key`: shared by all registrars. `lifetime`: nonces older are stale.
    #[must_use]
    pub fn new(key: [u8; 32], realm: &str, lifetime: Duration) -> Self {
        todo!()
    }

    /// Challenge values in order SHA-256, MD5 (RFC 8760 §2.4) for WWW-Authenticate or Proxy-Authenticate.
    #[must_use]
    pub fn challenges(&self, now_unix: Duration, stale: bool) -> [String; 2] {
        todo!()
    }

    /// Checks Authorization (`proxy` false) or Proxy-Authorization. `ha1` looks a user up; for unknown users the same
    /// work is done. Body is not covered (qop=auth only).
    pub fn verify(
        &mut self,
        now_unix: Duration,
        request: &Message,
        proxy: bool,
        ha1: &dyn Fn(&str) -> Option<Ha1>,
    ) -> Verdict {
        todo!()
    }
}

/// Client side: the Authorization value that answers a challenge (for dial-out, load and tests).
#[must_use]
pub fn authorize(
    _challenge: &str,
    _user: &str,
    _password: &str,
    _method: &str,
    _uri: &str,
    _cnonce: &str,
    _nc: u32,
) -> Option<String> {
    todo!()
}
