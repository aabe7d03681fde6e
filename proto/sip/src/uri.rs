//! SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966); other schemes keep their bytes.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::hop::Transport;
use crate::lex;

pub(crate) mod view;

pub use view::UriRef;

/// A parsed URI. Equality is RFC 3261 §19.1.4's, not byte equality.
#[derive(Clone, Debug)]
pub struct Uri {
    /// Lower case: `sip`, `sips`, `tel`, or another.
    pub scheme: String,
    /// User part, escapes kept as written; empty where absent. For tel: the number as written.
    pub user: String,
    /// Password, if any.
    pub password: Option<String>,
    /// Host, lower case; IPv6 without brackets. Empty for tel. For other schemes: everything after the
    /// colon, as written.
    pub host: String,
    /// Port, if written.
    pub port: Option<u16>,
    /// `;name=value` parameters in order; names as written.
    pub params: Vec<(String, Option<String>)>,
    /// `?name=value` headers in order, escapes kept.
    pub headers: Vec<(String, String)>,
}

/// Why it is not a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad URI: {0}")]
pub struct UriError(pub &'static str);

impl Uri {
    /// Parses a URI without angle brackets.
    ///
    /// # Errors
    /// [`UriError`] with what is wrong.
    pub fn parse(s: &str) -> Result<Self, UriError> {
        Ok(UriRef::parse(s)?.to_uri())
    }

    /// `sip:user@host`. `user` is text: what may not stand in a user part is escaped, `%HH` is taken for
    /// an escape already made. `host` may carry a port, and IPv6 may have its brackets or not.
    #[must_use]
    pub fn sip(user: &str, host: &str) -> Self {
        let (host, port) = match view::host_port(host) {
            Ok((host, port)) => (host, port),
            // A bare IPv6 address, or something that fails when it is resolved.
            Err(_) => (host, None),
        };
        Self {
            scheme: "sip".into(),
            user: escape_user(user, true),
            password: None,
            host: host.to_ascii_lowercase(),
            port,
            params: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// A parameter's value by case-insensitive name (`Some("")` for one without a value).
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(n, _)| same_param_name(n, name))
            .map(|(_, v)| v.as_deref().unwrap_or(""))
    }

    /// Sets or adds a parameter; `None`: without a value.
    pub fn set_param(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self
            .params
            .iter_mut()
            .find(|(n, _)| same_param_name(n, name))
        {
            Some(param) => param.1 = value,
            None => self.params.push((name.to_owned(), value)),
        }
    }

    /// Removes a parameter.
    pub fn remove_param(&mut self, name: &str) {
        self.params.retain(|(n, _)| !same_param_name(n, name));
    }

    /// The `transport` parameter, or the scheme's default (sip: UDP, sips: TLS); `None` where unknown.
    ///
    /// In a sips URI every transport runs over TLS (RFC 3261 §26.2.2): `tcp` there is TLS, `ws` is WSS.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        let secure = match self.scheme.as_str() {
            "sip" => false,
            "sips" => true,
            _ => return None,
        };
        match self.param("transport") {
            None | Some("") if secure => Some(Transport::Tls),
            None | Some("") => Some(Transport::Udp),
            Some(token) => match Transport::from_str(token).ok()? {
                Transport::Tcp if secure => Some(Transport::Tls),
                Transport::Ws if secure => Some(Transport::Wss),
                Transport::Udp if secure => None,
                transport => Some(transport),
            },
        }
    }

    /// `lr` present.
    #[must_use]
    pub fn is_loose_router(&self) -> bool {
        self.param("lr").is_some()
    }

    /// User part with escapes decoded, for look-ups; `None` where an escape is bad or gives a control character.
    #[must_use]
    pub fn user_decoded(&self) -> Option<String> {
        let bytes = self.user.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut i = 0;
        while i < bytes.len() {
            if bytes[i] == b'%' {
                out.push(lex::hex_pair(bytes, i + 1)?);
                i += 3;
            } else {
                out.push(bytes[i]);
                i += 1;
            }
        }
        let user = String::from_utf8(out).ok()?;
        (!user.chars().any(char::is_control)).then_some(user)
    }

    /// Canonical address of record: scheme, user, host; port, password and parameters dropped (RFC 3261 §10.3
    /// step 5). Escapes that need not be are decoded, the others are written in upper case, so that the
    /// result is itself a URI and two users share it only if they are the same user.
    ///
    /// For tel: the number without its visual separators. For other schemes: the URI as it is.
    #[must_use]
    pub fn aor(&self) -> String {
        let mut out = String::with_capacity(self.user.len() + self.host.len() + 8);
        out.push_str(&self.scheme);
        out.push(':');
        match self.scheme.as_str() {
            "sip" | "sips" => {
                if !self.user.is_empty() {
                    out.push_str(&canonical_user(&self.user));
                    out.push('@');
                }
                // Writing to a String cannot fail.
                let _ = write_host(&mut out, &self.host);
            }
            "tel" => out.extend(bare_number(&self.user)),
            _ => out.push_str(&self.host),
        }
        out
    }

    /// Whether the host is a literal address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        literal(&self.host)
    }

    /// `sips`.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.scheme == "sips"
    }

    fn is_sip(&self) -> bool {
        matches!(self.scheme.as_str(), "sip" | "sips")
    }

    /// RFC 3261 §19.1.4 for SIP and SIPS.
    fn same_sip(&self, other: &Self) -> bool {
        let secret = |u: &Self| u.password.as_deref().map(|p| decode_unreserved(p, false));
        self.port == other.port
            && decode_unreserved(&self.user, false) == decode_unreserved(&other.user, false)
            && secret(self) == secret(other)
            && same_host(&self.host, &other.host)
            && self.params_agree(other)
            && other.params_agree(self)
            && same_headers(&self.headers, &other.headers)
    }

    /// Every parameter of ours that `other` has too is equal there; one that decides where or how the
    /// request goes must not be missing there.
    fn params_agree(&self, other: &Self) -> bool {
        /// §19.1.4 names the first four; its examples add transport.
        const NEVER_IGNORED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
        self.params.iter().all(|(name, value)| {
            let ours = value.as_deref().unwrap_or("");
            match other.param(name) {
                Some(theirs) => decode_unreserved(ours, true) == decode_unreserved(theirs, true),
                None => !NEVER_IGNORED.iter().any(|n| same_param_name(n, name)),
            }
        })
    }

    /// RFC 3966 §4: visual separators do not count, parameters do, in any order.
    fn same_tel(&self, other: &Self) -> bool {
        let subset = |a: &Self, b: &Self| {
            a.params.iter().all(|(name, value)| {
                b.param(name)
                    .is_some_and(|v| v.eq_ignore_ascii_case(value.as_deref().unwrap_or("")))
            })
        };
        bare_number(&self.user).eq(bare_number(&other.user))
            && subset(self, other)
            && subset(other, self)
    }
}

impl PartialEq for Uri {
    fn eq(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && if self.is_sip() {
                self.same_sip(other)
            } else if self.scheme == "tel" {
                self.same_tel(other)
            } else {
                self.host == other.host
            }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme.is_empty() {
            return f.write_char('*');
        }
        write!(f, "{}:{}", self.scheme, self.user)?;
        if let Some(password) = &self.password {
            write!(f, ":{password}")?;
        }
        if self.is_sip() {
            if !self.user.is_empty() {
                f.write_char('@')?;
            }
            write_host(f, &self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for (name, value) in &self.params {
            write!(f, ";{name}")?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        for (i, (name, value)) in self.headers.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(s: &str) -> Result<Self, UriError> {
        Self::parse(s)
    }
}

/// The address a host text is. Brackets are allowed; so is the third colon that RFC 3261's grammar lets
/// into `[2001:db8:::192.0.2.1]` (RFC 5118 §4.10).
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    if host.contains(":::") {
        return host
            .replacen(":::", "::", 1)
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6);
    }
    None
}

/// Hosts are compared as addresses where they are (RFC 5954 §4), else without regard to case.
pub(crate) fn same_host(a: &str, b: &str) -> bool {
    if a.eq_ignore_ascii_case(b) {
        return true;
    }
    match (literal(a), literal(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn write_host(f: &mut impl fmt::Write, host: &str) -> fmt::Result {
    if host.contains(':') && !host.starts_with('[') {
        write!(f, "[{host}]")
    } else {
        f.write_str(host)
    }
}

fn same_param_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
        || ((a.contains('%') || b.contains('%'))
            && decode_unreserved(a, true) == decode_unreserved(b, true))
}

/// Same set of headers, names without and values with regard to case (§19.1.4: any in one must be in both).
fn same_headers(a: &[(String, String)], b: &[(String, String)]) -> bool {
    let normal = |headers: &[(String, String)]| {
        let mut all: Vec<_> = headers
            .iter()
            .map(|(n, v)| (decode_unreserved(n, true), decode_unreserved(v, false)))
            .collect();
        all.sort_unstable();
        all
    };
    a.len() == b.len() && normal(a) == normal(b)
}

/// Decodes the escapes of characters outside the reserved set, which mean the same either way (§19.1.4);
/// writes the others in upper case. `fold`: lower-case what is case-insensitive.
fn decode_unreserved(s: &str, fold: bool) -> Vec<u8> {
    let bytes = s.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let plain = |b: u8| if fold { b.to_ascii_lowercase() } else { b };
        match (bytes[i], lex::hex_pair(bytes, i + 1)) {
            // `%` itself stays escaped, or "%2541" would turn into "%41" and mean "A".
            (b'%', Some(b)) if !b";/?:@&=+$,%".contains(&b) => {
                out.push(plain(b));
                i += 3;
            }
            (b'%', Some(b)) => {
                out.extend_from_slice(format!("%{b:02X}").as_bytes());
                i += 3;
            }
            (b, _) => {
                out.push(plain(b));
                i += 1;
            }
        }
    }
    out
}

/// Every escape decoded that a user part can do without, every other in upper case.
fn canonical_user(user: &str) -> String {
    let bytes = user.as_bytes();
    let mut out = String::with_capacity(user.len());
    let mut i = 0;
    while i < bytes.len() {
        let b = match (bytes[i], lex::hex_pair(bytes, i + 1)) {
            (b'%', Some(b)) => {
                i += 3;
                b
            }
            (b, _) => {
                i += 1;
                b
            }
        };
        push_user_byte(&mut out, b);
    }
    out
}

/// Escapes what may not stand in a user part. `keep`: `%HH` is an escape already made.
fn escape_user(user: &str, keep: bool) -> String {
    let bytes = user.as_bytes();
    let mut out = String::with_capacity(user.len());
    for (i, &b) in bytes.iter().enumerate() {
        if b == b'%' && keep && lex::hex_pair(bytes, i + 1).is_some() {
            out.push('%');
        } else {
            push_user_byte(&mut out, b);
        }
    }
    out
}

fn push_user_byte(out: &mut String, b: u8) {
    if lex::is_user_byte(b) {
        out.push(b as char);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "%{b:02X}");
    }
}

/// A telephone number without visual separators (RFC 3966 §3), letters of local numbers folded.
fn bare_number(number: &str) -> impl Iterator<Item = char> {
    number
        .chars()
        .filter(|c| !matches!(c, '-' | '.' | '(' | ')'))
        .map(|c| c.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
