//! Structured header values read in place: checked like the owned forms, without an allocation.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{HeaderError, NameAddr, Params, Via};
use crate::lex;
use crate::uri::{Uri, UriError, UriRef, literal, view::host_port};

/// What is wrong, as text for a reason phrase.
type What = &'static str;

/// Where the parts of one parameter are.
struct Param {
    name: (usize, usize),
    /// Quotation marks included.
    value: Option<(usize, usize)>,
    /// Where the next semicolon is, or the end.
    end: usize,
}

/// `;name=value` parameters read in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParamsRef<'a> {
    /// From the first semicolon on, checked; empty where there are none.
    text: &'a str,
}

impl<'a> ParamsRef<'a> {
    /// Checks that `text` is `*( SEMI name [ EQUAL value ] )` and nothing else.
    pub(crate) fn parse(text: &'a str) -> Result<Self, What> {
        let text = lex::trim(text);
        let s = text.as_bytes();
        let mut at = 0;
        while at < s.len() {
            at = match Self::plain(s, at) {
                Some(end) => end,
                None => Self::next(s, at)?.end,
            };
        }
        Ok(Self { text })
    }

    /// Where the parameter ends whose semicolon is at `at`: one without white space, quotation marks and faults.
    #[inline]
    fn plain(s: &[u8], at: usize) -> Option<usize> {
        let name = s[at..].strip_prefix(b";")?;
        let len = lex::token_len(name);
        let mut end = at + 1 + len;
        if let Some(value) = name[len..].strip_prefix(b"=") {
            let value_len = lex::bare_value_len(value);
            if value_len == 0 {
                return None;
            }
            end += 1 + value_len;
        }
        (len > 0 && matches!(s.get(end), None | Some(b';'))).then_some(end)
    }

    /// The parameter whose semicolon is at `at`.
    fn next(s: &[u8], at: usize) -> Result<Param, What> {
        if s[at] != b';' {
            return Err("text after the address");
        }
        let name = lex::skip_blanks(s, at + 1);
        let name_end = name + lex::token_len(&s[name..]);
        if name == name_end {
            return Err("empty parameter");
        }
        let equal = lex::skip_blanks(s, name_end);
        if s.get(equal) != Some(&b'=') {
            return Ok(Param {
                name: (name, name_end),
                value: None,
                end: equal,
            });
        }
        let value = lex::skip_blanks(s, equal + 1);
        let len = lex::value_len(&s[value..]).ok_or("unterminated quoted string")?;
        if len == 0 {
            return Err("parameter without its value");
        }
        Ok(Param {
            name: (name, name_end),
            value: Some((value, value + len)),
            end: lex::skip_blanks(s, value + len),
        })
    }

    /// Every parameter in order; values as written, quotation marks included.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let text = self.text;
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= text.len() {
                return None;
            }
            // Checked by `parse`; the fallback only ends the iteration.
            let param = Self::next(text.as_bytes(), at).ok()?;
            at = param.end;
            let slice = |(from, to): (usize, usize)| &text[from..to];
            Some((slice(param.name), param.value.map(slice)))
        })
    }

    /// Value by case-insensitive name, quotation marks included (`Some("")` for one without a value).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let s = self.text.as_bytes();
        let mut at = 0;
        while at < s.len() {
            // Checked by `parse`: what is not the name can be jumped over, up to a quoted value.
            let start = lex::skip_blanks(s, at + 1);
            if lex::begins_with(&s[start..], name.as_bytes()) {
                let end = start + name.len();
                match (s.get(end), s.get(end + 1)) {
                    (None | Some(b';'), _) => return Some(""),
                    // Unquoted, and nothing to skip: it ends where its kind of byte does.
                    (Some(b'='), Some(b)) if !matches!(b, b'"' | b' ' | b'\t') => {
                        let value = &self.text[end + 1..];
                        let len = lex::find(value.as_bytes(), [b';', b' ', b'\t']);
                        return Some(&value[..len.unwrap_or(value.len())]);
                    }
                    _ => {}
                }
                let param = Self::next(s, at).ok()?;
                if param.name.1 == end {
                    return Some(param.value.map_or("", |(from, to)| &self.text[from..to]));
                }
                at = param.end;
                continue;
            }
            at = match lex::find(&s[start..], [b';', b'"']) {
                Some(i) if s[start + i] == b';' => start + i,
                Some(_) => Self::next(s, at).ok()?.end,
                None => return None,
            };
        }
        None
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
            match lex::find(s.as_bytes(), [b'<', b'"', b';']).map(|at| (at, s.as_bytes()[at])) {
                Some((at, b'<')) => (lex::trim(&s[..at]), &s[at..]),
                // Neither a token nor in a URI; and a list would be split by it.
                Some((_, b'"')) => return Err("quotation mark in the address"),
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
        let end = lex::find(rest.as_bytes(), [b'>']).ok_or("unclosed angle bracket")?;
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
        let end = lex::find(s.as_bytes(), [b';', b' ', b'\t']).unwrap_or(s.len());
        let (uri, rest) = s.split_at(end);
        if uri.is_empty() {
            return Err("no address");
        }
        if uri == "*" {
            // §20.10: it stands alone.
            return Err("text after the asterisk");
        }
        if lex::find(uri.as_bytes(), [b',', b'?']).is_some() {
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
        self.uri == "*" && !self.bracketed
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
        let (host, port, params) = split_sent_by(sent_by)?;
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
    if let Some(rest) = s.strip_prefix("SIP/2.0/") {
        let end = lex::token_len(rest.as_bytes());
        if end > 0 {
            return Ok(rest.split_at(end));
        }
    }
    let slash = |s| lex::strip(lex::trim_start(s), b'/').map(lex::trim_start);
    let (name, rest) = s.split_at_checked(3).ok_or(bad)?;
    if !name.eq_ignore_ascii_case("SIP") {
        return Err(bad);
    }
    let rest = slash(rest).and_then(|r| r.strip_prefix("2.0")).ok_or(bad)?;
    let rest = slash(rest).ok_or(bad)?;
    let end = lex::token_len(rest.as_bytes());
    if end == 0 {
        return Err("no transport");
    }
    Ok(rest.split_at(end))
}

/// Host (IPv6 with its brackets), port, and the parameters behind them. The grammar allows white space
/// around the colon; hardly anybody writes it.
fn split_sent_by(s: &str) -> Result<(&str, Option<u16>, &str), What> {
    if let Some(parts) = split_plain_sent_by(s) {
        return Ok(parts);
    }
    let end = lex::find(s.as_bytes(), [b';']).unwrap_or(s.len());
    let (sent_by, params) = s.split_at(end);
    let sent_by = lex::trim(sent_by);
    let after_bracket = if sent_by.starts_with('[') {
        lex::find(sent_by.as_bytes(), [b']']).ok_or("unclosed bracket")?
    } else {
        0
    };
    let colon = lex::find(&sent_by.as_bytes()[after_bracket..], [b':']);
    let (host, port) = match colon.map(|i| i + after_bracket) {
        None => (sent_by, None),
        Some(colon) => {
            let port = lex::digits(lex::trim(&sent_by[colon + 1..]).as_bytes())
                .and_then(|n| u16::try_from(n).ok())
                .ok_or("bad port")?;
            (lex::trim(&sent_by[..colon]), Some(port))
        }
    };
    match host_port(host) {
        Ok((_, None)) => Ok((host, port, params)),
        Ok(_) => Err("bad port"),
        Err(UriError("text after host")) => Err("character not allowed in host"),
        Err(e) => Err(e.0),
    }
}

/// As [`split_sent_by`], where there is neither white space nor a bracket nor a fault.
fn split_plain_sent_by(s: &str) -> Option<(&str, Option<u16>, &str)> {
    let bytes = s.as_bytes();
    let host = lex::host_name_len(bytes);
    let mut end = host;
    let mut port = None;
    if bytes.get(host) == Some(&b':') {
        let digits = lex::digits_len(&bytes[host + 1..]);
        end = host + 1 + digits;
        port = Some(u16::try_from(lex::digits(&bytes[host + 1..end])?).ok()?);
    }
    if host == 0 || !matches!(bytes.get(end), None | Some(b';')) {
        return None;
    }
    Some((&s[..host], port, &s[end..]))
}
