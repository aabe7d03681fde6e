//! Structured header values read in place: checked like the owned forms, without an allocation.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{HeaderError, NameAddr, Params, Via};
use crate::lex;
use crate::uri::{Uri, UriRef, literal, view::host_port};

/// What is wrong, as text for a reason phrase.
type What = &'static str;

/// `;name=value` parameters read in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParamsRef<'a> {
    /// From the first semicolon on, checked; empty where there are none.
    text: &'a str,
}

impl<'a> ParamsRef<'a> {
    /// Checks that `text` is `*( SEMI name [ EQUAL value ] )` and nothing else.
    fn parse(text: &'a str) -> Result<Self, What> {
        let text = lex::trim(text);
        let mut rest = text;
        while !rest.is_empty() {
            let (_, _, tail) = Self::first(rest)?;
            rest = tail;
        }
        Ok(Self { text })
    }

    /// Name, value with its quotation marks, and the rest.
    #[inline]
    fn first(s: &'a str) -> Result<(&'a str, Option<&'a str>, &'a str), What> {
        let s = s.strip_prefix(';').ok_or("text after the address")?;
        let s = lex::trim_start(s);
        let end = s
            .bytes()
            .position(|b| !lex::is_token_byte(b))
            .unwrap_or(s.len());
        let (name, rest) = s.split_at(end);
        if name.is_empty() {
            return Err("empty parameter");
        }
        let rest = lex::trim_start(rest);
        let Some(rest) = rest.strip_prefix('=') else {
            return Ok((name, None, rest));
        };
        let rest = lex::trim_start(rest);
        let len = lex::value_len(rest).ok_or("unterminated quoted string")?;
        let (value, rest) = rest.split_at(len);
        if value.is_empty() {
            return Err("parameter without its value");
        }
        Ok((name, Some(value), lex::trim_start(rest)))
    }

    /// Every parameter in order; values as written, quotation marks included.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // Checked by `parse`; the fallback only ends the iteration.
            let (name, value, tail) = Self::first(rest).ok()?;
            rest = tail;
            Some((name, value))
        })
    }

    /// Value by case-insensitive name, quotation marks included (`Some("")` for one without a value).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.unwrap_or(""))
    }

    /// The owned form.
    #[must_use]
    pub fn to_params(&self) -> Params {
        let unquoted = |v: &str| match v.strip_prefix('"').and_then(|v| v.strip_suffix('"')) {
            Some(inner) => lex::unquote(inner),
            None => v.to_owned(),
        };
        Params(
            self.iter()
                .map(|(n, v)| (n.to_owned(), v.map(unquoted)))
                .collect(),
        )
    }
}

/// name-addr or addr-spec with header parameters, read in place.
#[derive(Clone, Copy, Debug)]
pub struct NameAddrRef<'a> {
    /// Display name as written, quotation marks included; empty where absent.
    display: &'a str,
    /// The URI as written.
    pub uri: &'a str,
    /// Whether the URI stood in angle brackets.
    pub bracketed: bool,
    /// Header parameters.
    pub params: ParamsRef<'a>,
}

impl<'a> NameAddrRef<'a> {
    /// Parses one value; the URI itself is not looked into ([`UriRef::parse`] does).
    ///
    /// # Errors
    /// What is wrong, as text for a 400.
    pub fn parse(s: &'a str) -> Result<Self, &'static str> {
        let s = lex::trim(s);
        if s == "*" {
            return Ok(Self {
                display: "",
                uri: "*",
                bracketed: false,
                params: ParamsRef::default(),
            });
        }
        let (display, rest) = if s.starts_with('"') {
            let end = lex::quoted_end(s.as_bytes()).ok_or("unterminated quoted string")?;
            let rest = lex::trim_start(&s[end..]);
            if !rest.starts_with('<') {
                return Err("no address after the display name");
            }
            (&s[..end], rest)
        } else {
            match memchr::memchr3(b'<', b'"', b';', s.as_bytes()) {
                Some(at) if s.as_bytes()[at] == b'<' => (lex::trim(&s[..at]), &s[at..]),
                _ => return Self::parse_addr_spec(s),
            }
        };
        // Tokens by the grammar (RFC 3261 §25.1). Accepted beyond: what cannot be taken for structure.
        if !display.starts_with('"')
            && display
                .bytes()
                .any(|b| matches!(b, b',' | b';' | b':' | b'\\' | b'>') || b.is_ascii_control())
        {
            return Err("display name needs quotation marks");
        }
        let end = memchr::memchr(b'>', rest.as_bytes()).ok_or("unclosed angle bracket")?;
        Ok(Self {
            display,
            uri: &rest[1..end],
            bracketed: true,
            params: ParamsRef::parse(&rest[end + 1..])?,
        })
    }

    /// RFC 3261 §20.10: without angle brackets a semicolon begins a header parameter, and a URI with a
    /// comma or a question mark may not stand.
    fn parse_addr_spec(s: &'a str) -> Result<Self, What> {
        let end = memchr::memchr3(b';', b' ', b'\t', s.as_bytes()).unwrap_or(s.len());
        let (uri, rest) = s.split_at(end);
        if uri.is_empty() {
            return Err("no address");
        }
        if uri.contains([',', '?']) {
            return Err("URI needs angle brackets");
        }
        Ok(Self {
            display: "",
            uri,
            bracketed: false,
            params: ParamsRef::parse(rest)?,
        })
    }

    /// Display name, unquoted; empty where absent.
    #[must_use]
    pub fn display(&self) -> Cow<'a, str> {
        let inner = self
            .display
            .strip_prefix('"')
            .and_then(|d| d.strip_suffix('"'));
        match inner {
            Some(inner) if inner.contains('\\') => Cow::Owned(lex::unquote(inner)),
            Some(inner) => Cow::Borrowed(inner),
            None => Cow::Borrowed(self.display),
        }
    }

    /// The `tag` parameter.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        self.params.get("tag")
    }

    /// `Contact: *`.
    #[must_use]
    pub fn is_star(&self) -> bool {
        self.uri == "*"
    }

    /// The owned form; fails where the URI does not parse.
    pub(super) fn to_name_addr(self) -> Result<NameAddr, What> {
        let uri = if self.is_star() {
            Uri {
                scheme: String::new(),
                user: String::new(),
                password: None,
                host: String::new(),
                port: None,
                params: Vec::new(),
                headers: Vec::new(),
            }
        } else {
            UriRef::parse(self.uri).map_err(|e| e.0)?.to_uri()
        };
        Ok(NameAddr {
            display: self.display().into_owned(),
            uri,
            params: self.params.to_params(),
        })
    }
}

/// One Via value, read in place.
#[derive(Clone, Copy, Debug)]
pub struct ViaRef<'a> {
    /// Transport token as written.
    pub transport: &'a str,
    /// sent-by host as written, IPv6 with brackets.
    pub host: &'a str,
    /// sent-by port.
    pub port: Option<u16>,
    /// Parameters.
    pub params: ParamsRef<'a>,
}

impl<'a> ViaRef<'a> {
    /// Parses one value: `SIP/2.0/transport host[:port]` and parameters, white space around every
    /// separator allowed (RFC 3261 §25.1, `via-parm`).
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(s: &'a str) -> Result<Self, HeaderError> {
        Self::parse_text(s).map_err(|what| HeaderError::Malformed("Via", what))
    }

    fn parse_text(s: &'a str) -> Result<Self, What> {
        let (transport, rest) = sent_protocol(lex::trim(s))?;
        let sent_by = lex::trim_start(rest);
        if sent_by.len() == rest.len() {
            return Err("no host");
        }
        let end = memchr::memchr(b';', sent_by.as_bytes()).unwrap_or(sent_by.len());
        let (sent_by, params) = sent_by.split_at(end);
        let (host, port) = split_sent_by(lex::trim(sent_by))?;
        Ok(Self {
            transport,
            host,
            port,
            params: ParamsRef::parse(params)?,
        })
    }

    /// branch; empty where absent.
    #[must_use]
    pub fn branch(&self) -> &'a str {
        self.params.get("branch").unwrap_or("")
    }

    /// `received`, where it is an address.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        literal(self.params.get("received")?)
    }

    /// The owned form.
    #[must_use]
    pub fn to_via(&self) -> Via {
        Via {
            transport: self.transport.to_owned(),
            host: self.host.to_owned(),
            port: self.port,
            params: self.params.to_params(),
        }
    }
}

/// The transport token behind `SIP/2.0/`, and the rest from the white space behind it.
fn sent_protocol(s: &str) -> Result<(&str, &str), What> {
    let bad = "not SIP/2.0";
    let slash = |s| lex::trim_start(s).strip_prefix('/').map(lex::trim_start);
    let (name, rest) = s.split_at_checked(3).ok_or(bad)?;
    if !name.eq_ignore_ascii_case("SIP") {
        return Err(bad);
    }
    let rest = slash(rest).and_then(|r| r.strip_prefix("2.0")).ok_or(bad)?;
    let rest = slash(rest).ok_or(bad)?;
    let end = rest
        .bytes()
        .position(|b| !lex::is_token_byte(b))
        .unwrap_or(rest.len());
    if end == 0 {
        return Err("no transport");
    }
    Ok(rest.split_at(end))
}

/// Host (IPv6 with its brackets) and port; the grammar allows white space around the colon.
fn split_sent_by(s: &str) -> Result<(&str, Option<u16>), What> {
    let after_bracket = if s.starts_with('[') {
        s.find(']').ok_or("unclosed bracket")?
    } else {
        0
    };
    let (host, port) = match s[after_bracket..].split_once(':') {
        None => (s, None),
        Some((tail, port)) => {
            let host = lex::trim(&s[..after_bracket + tail.len()]);
            let port = lex::digits(lex::trim(port).as_bytes())
                .and_then(|n| u16::try_from(n).ok())
                .ok_or("bad port")?;
            (host, Some(port))
        }
    };
    match host_port(host) {
        Ok((_, None)) => Ok((host, port)),
        Ok(_) => Err("bad port"),
        Err(e) => Err(e.0),
    }
}
