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

/// `host [":" port]` and nothing behind it, IPv6 returned without its brackets.
pub(crate) fn host_port(s: &str) -> Result<(&str, Option<u16>), UriError> {
    match scan_host_port(s)? {
        (host, port, "") => Ok((host, port)),
        _ => Err(UriError("text after host")),
    }
}

/// `host [":" port]` at the start of `s`, IPv6 returned without its brackets; and what is behind it.
pub(crate) fn scan_host_port(s: &str) -> Result<(&str, Option<u16>, &str), UriError> {
    let (host, rest) = if let Some(inner) = lex::strip(s, b'[') {
        let (host, rest) = lex::split(inner, b']').ok_or(UriError("unclosed bracket"))?;
        if host.parse::<Ipv6Addr>().is_err() && literal(host).is_none() {
            return Err(UriError("not an IPv6 address"));
        }
        (host, rest)
    } else {
        let (host, rest) = s.split_at(lex::host_name_len(s.as_bytes()));
        if !matches!(
            rest.as_bytes().first(),
            None | Some(b':' | b';' | b'?' | b' ' | b'\t')
        ) {
            return Err(UriError("character not allowed in host"));
        }
        if host.is_empty() {
            return Err(UriError("no host"));
        }
        (host, rest)
    };
    let Some(port) = lex::strip(rest, b':') else {
        return Ok((host, None, rest));
    };
    let len = lex::digits_len(port.as_bytes());
    let (digits, rest) = port.split_at(len);
    let port = lex::digits(digits.as_bytes())
        .and_then(|n| u16::try_from(n).ok())
        .ok_or(UriError("bad port"))?;
    if !matches!(
        rest.as_bytes().first(),
        None | Some(b';' | b'?' | b' ' | b'\t')
    ) {
        return Err(UriError("bad port"));
    }
    Ok((host, Some(port), rest))
}

/// Length of `name [ "=" value ] *( ";" name [ "=" value ] )` at the start of `s`, up to its end or a `?`.
fn scan_params(s: &[u8]) -> Result<usize, UriError> {
    let mut at = 0;
    loop {
        let name = lex::uri_param_len(&s[at..]);
        if name == 0 && matches!(s.get(at), None | Some(b';' | b'=')) {
            return Err(UriError("empty parameter"));
        }
        at += name;
        if s.get(at) == Some(&b'=') {
            at += 1 + lex::uri_param_len(&s[at + 1..]);
        }
        match s.get(at) {
            None | Some(b'?') => return Ok(at),
            Some(b';') => at += 1,
            Some(_) => return Err(UriError("character not allowed in parameter")),
        }
    }
}

/// Checks `name "=" value *( "&" name "=" value )`.
fn check_headers(s: &[u8]) -> Result<(), UriError> {
    let mut at = 0;
    loop {
        let name = lex::uri_header_len(&s[at..]);
        at += name;
        match s.get(at) {
            Some(b'=') if name > 0 => at += 1,
            None | Some(b'&') => return Err(UriError("header without a value")),
            Some(_) => return Err(UriError("character not allowed in header")),
        }
        at += lex::uri_header_len(&s[at..]);
        match s.get(at) {
            None => return Ok(()),
            Some(b'&') => at += 1,
            Some(_) => return Err(UriError("character not allowed in header")),
        }
    }
}

/// `user [":" password]`.
fn split_userinfo(s: &str) -> Result<(&str, Option<&str>), UriError> {
    let (user, rest) = s.split_at(lex::user_len(s));
    let password = match lex::strip(rest, b':') {
        None if rest.is_empty() => None,
        None => return Err(UriError("character not allowed in user")),
        Some(password) if lex::password_len(password) < password.len() => {
            return Err(UriError("character not allowed in password"));
        }
        Some(password) => Some(password),
    };
    if user.is_empty() {
        return Err(UriError("empty user"));
    }
    Ok((user, password))
}

impl<'a> UriRef<'a> {
    /// Parses a URI without angle brackets.
    ///
    /// # Errors
    /// [`UriError`] with what is wrong.
    pub fn parse(s: &'a str) -> Result<Self, UriError> {
        if let Some((scheme @ ("sip:" | "SIP:"), rest)) = s.split_at_checked(4) {
            return Self::parse_sip(&scheme[..3], rest);
        }
        let (scheme, rest) = lex::split(s, b':').ok_or(UriError("no scheme"))?;
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
        let (userinfo, rest) = match lex::find(rest.as_bytes(), [b'@']) {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (user, password) = match userinfo {
            None => ("", None),
            Some(userinfo) => split_userinfo(userinfo)?,
        };
        let (host, port, rest) = scan_host_port(rest)?;
        let (params, rest) = match lex::strip(rest, b';') {
            Some(rest) => rest.split_at(scan_params(rest.as_bytes())?),
            None => ("", rest),
        };
        let headers = lex::strip(rest, b'?');
        if let Some(headers) = headers {
            check_headers(headers.as_bytes())?;
        } else if !rest.is_empty() {
            return Err(UriError("text after host"));
        }
        Ok(Self {
            scheme,
            user,
            password,
            host,
            port,
            params,
            headers,
        })
    }

    fn parse_tel(scheme: &'a str, rest: &'a str) -> Result<Self, UriError> {
        let (number, params) = lex::split(rest, b';').unwrap_or((rest, ""));
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
        if number.len() != rest.len() && scan_params(params.as_bytes())? < params.len() {
            return Err(UriError("character not allowed in parameter"));
        }
        Ok(Self {
            scheme,
            user: number,
            password: None,
            host: "",
            port: None,
            params,
            headers: None,
        })
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
