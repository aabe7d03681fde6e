//! Digest authentication (RFC 7616, RFC 8760, RFC 3261 §22): SHA-256 and MD5, qop=auth, stateless nonces.
//!
//! A nonce is the time it was made and an HMAC over that and the address it was sent to: any member of the cluster
//! with the key can check one that another has issued, and one sent to somebody else proves nothing. What is remembered, in bounded memory, is which nonce counts were used, so that nothing is
//! accepted twice by one process. The memory is per (nonce, user, cnonce): a repeated request has all three.

mod credentials;
mod window;

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use self::credentials::{Credentials, Refused};
use self::window::{Counts, Use};
use crate::message::{HeaderName, Message};
use crate::uri::Uri;

pub use self::credentials::authorize;

/// Hash algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    #[serde(rename = "SHA-256")]
    Sha256,
    #[serde(rename = "MD5")]
    Md5,
}

impl Algorithm {
    /// The token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    fn from_token(token: &str) -> Option<Self> {
        [Self::Sha256, Self::Md5]
            .into_iter()
            .find(|a| token.eq_ignore_ascii_case(a.as_str()))
    }

    /// H of RFC 7616 §3.3, over the parts joined by colons, in lower-case hex.
    fn hash(self, parts: &[&str]) -> String {
        fn over<D: sha2::Digest>(parts: &[&str]) -> String {
            let mut digest = D::new();
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    digest.update(b":");
                }
                digest.update(part.as_bytes());
            }
            hex::encode(digest.finalize())
        }
        match self {
            Self::Sha256 => over::<Sha256>(parts),
            Self::Md5 => over::<Md5>(parts),
        }
    }

    /// The response of RFC 7616 §3.4.1 with qop=auth.
    fn response(self, ha1: &str, c: &Answered<'_>) -> String {
        let ha2 = self.hash(&[c.method, c.uri]);
        self.hash(&[ha1, c.nonce, c.nc, c.cnonce, "auth", &ha2])
    }
}

/// What goes into a response besides the password.
struct Answered<'a> {
    method: &'a str,
    uri: &'a str,
    nonce: &'a str,
    nc: &'a str,
    cnonce: &'a str,
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
    pub fn new(user: &str, realm: &str, password: &str) -> Self {
        let parts = [user, realm, password];
        Self {
            sha256: Algorithm::Sha256.hash(&parts),
            md5: Algorithm::Md5.hash(&parts),
        }
    }

    fn of(&self, algorithm: Algorithm) -> &str {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Md5 => &self.md5,
        }
    }
}

/// Whether the request proves who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Credentials are right: the authenticated user name.
    Ok(String),
    /// None for our realm, or not understood: challenge.
    Missing,
    /// The nonce is none that was issued to this source lately, or nc is out of its window: challenge with
    /// stale=true. Whether the password was right is not told (RFC 7616 §3.3 asks only that the nonce is invalid), so
    /// that nobody can guess with nonces that are not his.
    Stale,
    /// Wrong password, user unknown, replay, uri mismatch (the caller cannot tell which from the time it took), for a
    /// nonce that was issued to this source: it did get our challenge. With the user name it claimed.
    Wrong(String),
    /// Malformed: 400.
    Malformed(&'static str),
}

/// Nonces and cnonces in use at once. Raising it costs 80 bytes each; when it is exceeded the oldest clients are
/// asked again (stale=true), and nothing is ever accepted twice.
const COUNTS: usize = 65_536;

/// Issues and checks stateless nonces: time and HMAC; nc is checked in a bounded window per nonce.
/// "Now" is wall-clock time since the Unix epoch, so that every member of the cluster agrees.
#[derive(Debug)]
pub struct Authenticator {
    nonces: Nonces,
    realm: String,
    lifetime_ms: u64,
    counts: Counts,
    algorithms: Vec<Algorithm>,
    /// Stands in for the HA1 of users there are not.
    nobody: Ha1,
}

impl Authenticator {
    /// `key`: shared by all registrars. `lifetime`: nonces older are stale.
    #[must_use]
    pub fn new(key: [u8; 32], realm: &str, lifetime: Duration) -> Self {
        let nonces = Nonces { key };
        // Hex of the right length that nobody can answer for without the key.
        let sha256 = hex::encode(nonces.mac(realm, b"nobody", 0, &[]));
        Self {
            nonces,
            realm: realm.to_owned(),
            lifetime_ms: u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX),
            counts: Counts::new(COUNTS),
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            nobody: Ha1 {
                md5: sha256[..32].to_owned(),
                sha256,
            },
        }
    }

    /// Offers only these algorithms, in this order. Some clients look at the first challenge alone.
    #[must_use]
    pub fn offering(mut self, algorithms: &[Algorithm]) -> Self {
        self.offer(algorithms);
        self
    }

    /// As [`Self::offering`], from now on.
    pub fn offer(&mut self, algorithms: &[Algorithm]) {
        self.algorithms = algorithms.to_vec();
    }

    /// Challenge values, by default SHA-256 then MD5 (RFC 8760 §2.4), for WWW-Authenticate or Proxy-Authenticate.
    /// Only requests from `source` can answer them.
    #[must_use]
    pub fn challenges(&self, now_unix: Duration, source: IpAddr, stale: bool) -> Vec<String> {
        let nonce = self.nonces.issue(&self.realm, source, millis(now_unix));
        let realm = credentials::quoted(&self.realm);
        let stale = if stale { ", stale=true" } else { "" };
        let challenge = |algorithm: &Algorithm| {
            format!(
                "Digest realm={realm}, nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
                algorithm.as_str()
            )
        };
        self.algorithms.iter().map(challenge).collect()
    }

    /// Checks Authorization (`proxy` false) or Proxy-Authorization of a request from `source`. `ha1` looks a user up; for unknown users the same
    /// work is done. Body is not covered (qop=auth only).
    ///
    /// A 2xx of ours does not depend on which member issued the nonce, but a replay is only noticed by the process
    /// that accepted the original: a short lifetime bounds what that is worth.
    pub fn verify(
        &mut self,
        now_unix: Duration,
        source: IpAddr,
        request: &Message,
        proxy: bool,
        ha1: &dyn Fn(&str) -> Option<Ha1>,
    ) -> Verdict {
        let name = if proxy {
            HeaderName::ProxyAuthorization
        } else {
            HeaderName::Authorization
        };
        let mut verdict = Verdict::Missing;
        // Others' credentials may stand beside ours, one a field (§20.7).
        for value in request.headers(name).take(credentials::MAX_FIELDS) {
            match Credentials::parse(value, &self.realm) {
                Ok(credentials) => {
                    return self.judge(millis(now_unix), source, request, &credentials, ha1);
                }
                Err(Refused::NotOurs) => {}
                Err(Refused::Malformed(what)) => verdict = Verdict::Malformed(what),
            }
        }
        verdict
    }

    fn judge(
        &mut self,
        now_ms: u64,
        source: IpAddr,
        request: &Message,
        c: &Credentials,
        ha1: &dyn Fn(&str) -> Option<Ha1>,
    ) -> Verdict {
        let known = ha1(&c.username);
        let ha1 = known.as_ref().unwrap_or(&self.nobody);
        let expected = c.algorithm.response(
            ha1.of(c.algorithm),
            &Answered {
                method: request.method().as_str(),
                uri: &c.uri,
                nonce: &c.nonce,
                nc: &c.nc_text,
                cnonce: &c.cnonce,
            },
        );
        // Everything is worked out before anything is decided, so that the time taken tells nothing.
        let right = bool::from(
            expected
                .as_bytes()
                .ct_eq(c.response.to_ascii_lowercase().as_bytes()),
        );
        let issued = self.nonces.check(&self.realm, source, &c.nonce);
        let same_uri = is_same_uri(&c.uri, request.request_uri());
        let Some(issued_ms) = issued.filter(|issued| self.is_fresh(*issued, now_ms)) else {
            return Verdict::Stale;
        };
        if !right || !same_uri || known.is_none() {
            return Verdict::Wrong(c.username.clone());
        }
        let oldest = now_ms.saturating_sub(self.lifetime_ms);
        let mut id = [0u8; 16];
        let hash = Sha256::digest(format!("{}\n{}\n{}", c.nonce, c.cnonce, c.username));
        id.copy_from_slice(&hash[..16]);
        match self.counts.spend(oldest, issued_ms, id, c.nc) {
            Use::First => Verdict::Ok(c.username.clone()),
            Use::Again => Verdict::Wrong(c.username.clone()),
            Use::Forgotten => Verdict::Stale,
        }
    }

    /// Not too old; and not from the future, but for clocks that differ by less than a lifetime.
    fn is_fresh(&self, issued_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(issued_ms) < self.lifetime_ms
            && issued_ms.saturating_sub(now_ms) < self.lifetime_ms
    }
}

/// RFC 7616 §3.4.6: the two must mean the same; a proxy on the way may have written the Request-URI another way.
fn is_same_uri(claimed: &str, request_uri: &str) -> bool {
    if claimed == request_uri {
        return true;
    }
    match (Uri::parse(claimed), Uri::parse(request_uri)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Eight bytes of time (milliseconds since the Unix epoch, big-endian), sixteen of HMAC-SHA-256 over time, source and
/// realm, in base64url.
struct Nonces {
    key: [u8; 32],
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces { .. }")
    }
}

impl Nonces {
    fn mac(&self, realm: &str, purpose: &[u8], time_ms: u64, source: &[u8]) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.key)
            .expect("HMAC takes a key of any length");
        mac.update(purpose);
        mac.update(&time_ms.to_be_bytes());
        mac.update(source);
        mac.update(realm.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn tag(&self, realm: &str, source: IpAddr, time_ms: u64) -> [u8; 32] {
        // IPv4 as IPv6, so that every source has the same length.
        let source = match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        self.mac(realm, b"nonce", time_ms, &source.octets())
    }

    fn issue(&self, realm: &str, source: IpAddr, time_ms: u64) -> String {
        let mut nonce = [0u8; 24];
        nonce[..8].copy_from_slice(&time_ms.to_be_bytes());
        nonce[8..].copy_from_slice(&self.tag(realm, source, time_ms)[..16]);
        URL_SAFE_NO_PAD.encode(nonce)
    }

    /// When it was issued; `None` if not by us, or to another.
    fn check(&self, realm: &str, source: IpAddr, nonce: &str) -> Option<u64> {
        // The length first: what a peer sends is not decoded into memory of its choice.
        if nonce.len() != 32 {
            return None;
        }
        let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        let (time, tag) = bytes.split_at(8);
        let time_ms = u64::from_be_bytes(time.try_into().ok()?);
        let expected = self.tag(realm, source, time_ms);
        bool::from(expected[..16].ct_eq(tag)).then_some(time_ms)
    }
}

#[cfg(test)]
mod tests;
