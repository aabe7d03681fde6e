//! Typed views of structured headers.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::lex;
use crate::message::Method;
use crate::uri::{Uri, literal};

mod view;

pub use view::{NameAddrRef, ParamsRef, ViaRef};

/// A header value that does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Not there.
    #[error("{0} missing")]
    Missing(&'static str),
    /// There, and malformed: header and what is wrong.
    #[error("{0}: {1}")]
    Malformed(&'static str, &'static str),
}

/// `;name=value` parameters in order; values unquoted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub Vec<(String, Option<String>)>);

impl Params {
    /// Value by case-insensitive name (`Some("")` for one without a value).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_deref().unwrap_or(""))
    }

    /// Sets or adds; `None`: without a value.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self
            .0
            .iter_mut()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
        {
            Some(param) => param.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }
}

/// Feature tags whose values are quoted whatever they hold (RFC 3840 §9; those of other trees begin with `+`).
const FEATURE_TAGS: [&str; 18] = [
    "actor",
    "application",
    "audio",
    "automata",
    "class",
    "control",
    "data",
    "description",
    "duplex",
    "events",
    "extensions",
    "isfocus",
    "language",
    "methods",
    "mobility",
    "priority",
    "schemes",
    "video",
];

/// Prints values in quotes where they need them.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            write!(f, ";{name}")?;
            let Some(value) = value else { continue };
            f.write_char('=')?;
            let quoted =
                name.starts_with('+') || FEATURE_TAGS.iter().any(|t| name.eq_ignore_ascii_case(t));
            if !quoted && lex::is_plain_value(value) {
                f.write_str(value)?;
            } else {
                lex::write_quoted(f, value)?;
            }
        }
        Ok(())
    }
}

/// name-addr or addr-spec with header parameters: From, To, Contact, Route, ... (RFC 3261 §20.10).
#[derive(Clone, Debug)]
pub struct NameAddr {
    /// Display name, unquoted; empty where absent.
    pub display: String,
    /// The URI. For `Contact: *` the scheme and host are empty and [`NameAddr::is_star`] is true.
    pub uri: Uri,
    /// Header parameters: tag, expires, q, +sip.instance, reg-id, ... (for an addr-spec without <> all
    /// parameters are the header's).
    pub params: Params,
}

impl NameAddr {
    /// Parses one value.
    ///
    /// # Errors
    /// What is wrong, as text for a 400.
    pub fn parse(s: &str) -> Result<Self, HeaderError> {
        Self::parse_as("address", s)
    }

    /// As [`Self::parse`], with the header's name for the error.
    pub(crate) fn parse_as(header: &'static str, s: &str) -> Result<Self, HeaderError> {
        NameAddrRef::parse(s)
            .and_then(|view| view.to_name_addr())
            .map_err(|what| HeaderError::Malformed(header, what))
    }

    /// `<uri>` without display name or parameters.
    #[must_use]
    pub fn new(uri: Uri) -> Self {
        Self {
            display: String::new(),
            uri,
            params: Params::default(),
        }
    }

    /// The `tag` parameter.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag")
    }

    /// `Contact: *`.
    #[must_use]
    pub fn is_star(&self) -> bool {
        self.uri.scheme.is_empty()
    }
}

/// Always with angle brackets, so that no parameter changes sides; the display name in quotes.
impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_star() {
            return f.write_char('*');
        }
        if !self.display.is_empty() {
            lex::write_quoted(f, &self.display)?;
            f.write_char(' ')?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

/// CSeq (RFC 3261 §20.16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31 for those we make.
    pub number: u32,
    /// Method.
    pub method: Method,
}

impl CSeq {
    /// Parses `1*DIGIT LWS Method`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(s: &str) -> Result<Self, HeaderError> {
        let (number, method) = split_cseq(s)?;
        Ok(Self {
            number,
            method: Method::from_token(method),
        })
    }
}

/// Number and method token of a CSeq.
pub(crate) fn split_cseq(s: &str) -> Result<(u32, &str), HeaderError> {
    let bad = |what| HeaderError::Malformed("CSeq", what);
    let s = lex::trim(s);
    let space = lex::find(s.as_bytes(), [b' ', b'\t']).ok_or(bad("no method"))?;
    let (number, method) = s.split_at(space);
    let number = lex::digits(number.as_bytes()).ok_or(bad("no number"))?;
    // RFC 3261 §8.1.1.5: below 2**31.
    if number >= 1 << 31 {
        return Err(bad("number out of range"));
    }
    let number = u32::try_from(number).map_err(|_| bad("number out of range"))?;
    let method = lex::trim_start(method);
    if !lex::is_token(method) {
        return Err(bad("method is not a token"));
    }
    Ok((number, method))
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

/// One Via value (RFC 3261 §20.42, RFC 3581).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// Transport token as written: `UDP`, `TCP`, ... or one we do not know.
    pub transport: String,
    /// sent-by host (IPv6 with brackets, as written).
    pub host: String,
    /// sent-by port.
    pub port: Option<u16>,
    /// branch, received, rport, maddr, ttl, others.
    pub params: Params,
}

impl Via {
    /// Parses one value.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(s: &str) -> Result<Self, HeaderError> {
        Ok(ViaRef::parse(s)?.to_via())
    }

    /// branch; empty where absent.
    #[must_use]
    pub fn branch(&self) -> &str {
        self.params.get("branch").unwrap_or("")
    }

    /// `received`, where it is an address; IPv6 with brackets or without (RFC 5118 §4.5).
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        literal(self.params.get("received")?)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

#[cfg(test)]
mod tests;
