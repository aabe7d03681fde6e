//! A URI read in place.

use std::net::Ipv6Addr;

use super::{Uri, UriError, literal};
use crate::lex;

/// A URI read in place: checked like [`Uri`], without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct UriRef<'a> {
    /// As written; compare without regard to case.
    pub scheme: &'a str,
    /// As in [`Uri::user`].
    pub user: &'a str,
    /// Password, if any.
    pub password: Option<&'a str>,
    /// Host as written; IPv6 without brackets. For tel empty, for other schemes everything after the colon.
    pub host: &'a str,
    /// Port, if written.
    pub port: Option<u16>,
    /// Parameters as written, without the first semicolon; empty where there are none.
    pub params: &'a str,
    /// Headers as written, without the question mark, where there is one.
    pub headers: Option<&'a str>,
}

/// `host [":" port]`, IPv6 returned without its brackets.
pub(crate) fn host_port(s: &str) -> Result<(&str, Option<u16>), UriError> {
    let (host, rest) = if let Some(inner) = s.strip_prefix('[') {
        let end = inner.find(']').ok_or(UriError("unclosed bracket"))?;
        let host = &inner[..end];
        if host.parse::<Ipv6Addr>().is_err() && literal(host).is_none() {
            return Err(UriError("not an IPv6 address"));
        }
        (host, &inner[end + 1..])
    } else {
        let end = s.find(':').unwrap_or(s.len());
        let host = &s[..end];
        if host.is_empty() {
            return Err(UriError("no host"));
        }
        if !lex::is_host_name(host) {
            return Err(UriError("character not allowed in host"));
        }
        (host, &s[end..])
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return Err(UriError("text after host")),
        Some(port) => Some(
            lex::digits(port.as_bytes())
                .and_then(|n| u16::try_from(n).ok())
                .ok_or(UriError("bad port"))?,
        ),
    };
    Ok((host, port))
}

/// Splits at the first `;`: before it, and what follows it.
fn split_params(s: &str) -> (&str, &str) {
    s.split_once(';').unwrap_or((s, ""))
}

impl<'a> UriRef<'a> {
    /// Parses a URI without angle brackets.
    ///
    /// # Errors
    /// [`UriError`] with what is wrong.
    pub fn parse(s: &'a str) -> Result<Self, UriError> {
        let (scheme, rest) = s.split_once(':').ok_or(UriError("no scheme"))?;
        // RFC 3986 §3.1.
        let mut letters = scheme.bytes();
        if !letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            || !letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        {
            return Err(UriError("no scheme"));
        }
        if scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips") {
            Self::parse_sip(scheme, rest)
        } else if scheme.eq_ignore_ascii_case("tel") {
            Self::parse_tel(scheme, rest)
        } else {
            Self::parse_other(scheme, rest)
        }
    }

    fn parse_sip(scheme: &'a str, rest: &'a str) -> Result<Self, UriError> {
        // No `@` may stand unescaped anywhere but behind the user info (§25.1).
        let (userinfo, rest) = match memchr::memchr(b'@', rest.as_bytes()) {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (user, password) = match userinfo {
            None => ("", None),
            Some(userinfo) => match userinfo.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (userinfo, None),
            },
        };
        if userinfo.is_some() && user.is_empty() {
            return Err(UriError("empty user"));
        }
        if !lex::is_user(user) {
            return Err(UriError("character not allowed in user"));
        }
        if password.is_some_and(|p| !lex::is_password(p)) {
            return Err(UriError("character not allowed in password"));
        }
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        let (host, params) = split_params(rest);
        let has_params = host.len() != rest.len();
        let (host, port) = host_port(host)?;
        let uri = Self {
            scheme,
            user,
            password,
            host,
            port,
            params,
            headers,
        };
        if has_params {
            uri.check_params(lex::is_uri_param)?;
        }
        uri.check_headers()?;
        Ok(uri)
    }

    fn parse_tel(scheme: &'a str, rest: &'a str) -> Result<Self, UriError> {
        let (number, params) = split_params(rest);
        let digits = number.strip_prefix('+').unwrap_or(number);
        let global = digits.len() != number.len();
        let dialled = |b: u8| {
            b.is_ascii_digit()
                || matches!(b, b'-' | b'.' | b'(' | b')')
                || (!global && (b.is_ascii_hexdigit() || matches!(b, b'*' | b'#')))
        };
        if !digits.bytes().all(dialled)
            || !digits
                .bytes()
                .any(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b'#'))
        {
            return Err(UriError("not a telephone number"));
        }
        let uri = Self {
            scheme,
            user: number,
            password: None,
            host: "",
            port: None,
            params,
            headers: None,
        };
        if number.len() != rest.len() {
            uri.check_params(lex::is_uri_param)?;
        }
        Ok(uri)
    }

    fn parse_other(scheme: &'a str, rest: &'a str) -> Result<Self, UriError> {
        if rest.is_empty() {
            return Err(UriError("nothing after the scheme"));
        }
        // Visible ASCII without the delimiters of RFC 3986 appendix C: nothing that could end it early.
        if !rest
            .bytes()
            .all(|b| (0x21..0x7f).contains(&b) && !matches!(b, b'"' | b'<' | b'>'))
        {
            return Err(UriError("character not allowed"));
        }
        Ok(Self {
            scheme,
            user: "",
            password: None,
            host: rest,
            port: None,
            params: "",
            headers: None,
        })
    }

    fn check_params(&self, allowed: fn(&str) -> bool) -> Result<(), UriError> {
        for param in self.params.split(';') {
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            if name.is_empty() {
                return Err(UriError("empty parameter"));
            }
            if !allowed(name) || !allowed(value) {
                return Err(UriError("character not allowed in parameter"));
            }
        }
        Ok(())
    }

    fn check_headers(&self) -> Result<(), UriError> {
        for header in self.headers.into_iter().flat_map(|h| h.split('&')) {
            let Some((name, value)) = header.split_once('=') else {
                return Err(UriError("header without a value"));
            };
            if name.is_empty() || !lex::is_uri_header(name) || !lex::is_uri_header(value) {
                return Err(UriError("character not allowed in header"));
            }
        }
        Ok(())
    }

    /// Whether the scheme is sip or sips.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sip") || self.scheme.eq_ignore_ascii_case("sips")
    }

    /// A parameter's value by case-insensitive name, escapes in the name not decoded (`Some("")` for one
    /// without a value).
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params
            .split(';')
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    /// The owned form.
    #[must_use]
    pub fn to_uri(&self) -> Uri {
        let scheme = self.scheme.to_ascii_lowercase();
        let host = if self.is_sip() {
            self.host.to_ascii_lowercase()
        } else {
            self.host.to_owned()
        };
        let params =
            self.params
                .split(';')
                .filter(|p| !p.is_empty())
                .map(|p| match p.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (p.to_owned(), None),
                });
        let headers = self
            .headers
            .into_iter()
            .flat_map(|h| h.split('&'))
            .filter_map(|h| h.split_once('='));
        Uri {
            scheme,
            user: self.user.to_owned(),
            password: self.password.map(str::to_owned),
            host,
            port: self.port,
            params: params.collect(),
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        }
    }
}
