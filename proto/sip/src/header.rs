//! Typed views of structured headers.

use std::fmt;
use std::net::IpAddr;

use crate::message::Method;
use crate::uri::Uri;

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

#[allow(unused_variables)]
impl Params {
    /// Value by case-insensitive name (`Some("")` for one without a value).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        todo!()
    }
    /// Sets or adds; `None`: without a value.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        todo!()
    }
    /// Removes.
    pub fn remove(&mut self, name: &str) {
        todo!()
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

#[allow(unused_variables)]
impl NameAddr {
    /// Parses one value.
    ///
    /// # Errors
    /// What is wrong, as text for a 400.
    pub fn parse(s: &str) -> Result<Self, HeaderError> {
        todo!()
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
        todo!()
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
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

#[allow(unused_variables)]
impl Via {
    /// Parses one value.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(s: &str) -> Result<Self, HeaderError> {
        todo!()
    }
    /// branch; empty where absent.
    #[must_use]
    pub fn branch(&self) -> &str {
        self.params.get("branch").unwrap_or("")
    }
    /// `received`, where it is an address.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        todo!()
    }
}

impl fmt::Display for Via {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
