//! SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966); other schemes keep their bytes.

use std::fmt;

use crate::hop::Transport;

/// A parsed URI. Equality is RFC 3261 §19.1.4's, not byte equality.
#[derive(Clone, Debug)]
pub struct Uri {
    /// Lower case: `sip`, `sips`, `tel`, or another.
    pub scheme: String,
    /// User part, escapes kept as written; empty where absent.
    pub user: String,
    /// Password, if any.
    pub password: Option<String>,
    /// Host, lower case; IPv6 without brackets. For other schemes: everything after the colon.
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

#[allow(unused_variables)]
impl Uri {
    /// Parses a URI without angle brackets.
    ///
    /// # Errors
    /// [`UriError`] with what is wrong.
    pub fn parse(s: &str) -> Result<Self, UriError> {
        todo!()
    }

    /// `sip:user@host`.
    #[must_use]
    pub fn sip(user: &str, host: &str) -> Self {
        todo!()
    }

    /// A parameter's value by case-insensitive name (`Some("")` for one without a value).
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        todo!()
    }

    /// Sets or adds a parameter; `None`: without a value.
    pub fn set_param(&mut self, name: &str, value: Option<&str>) {
        todo!()
    }

    /// Removes a parameter.
    pub fn remove_param(&mut self, name: &str) {
        todo!()
    }

    /// The `transport` parameter, or the scheme's default (sip: UDP, sips: TLS); `None` where unknown.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        todo!()
    }

    /// `lr` present.
    #[must_use]
    pub fn is_loose_router(&self) -> bool {
        todo!()
    }

    /// User part with escapes decoded, for look-ups; `None` where an escape is bad or gives a control character.
    #[must_use]
    pub fn user_decoded(&self) -> Option<String> {
        todo!()
    }

    /// Canonical address of record: scheme, decoded user, host, port dropped; no params (RFC 3261 §10.3 step 5).
    #[must_use]
    pub fn aor(&self) -> String {
        todo!()
    }

    /// Whether the host is a literal address.
    #[must_use]
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        todo!()
    }

    /// `sips`.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.scheme == "sips"
    }
}

impl PartialEq for Uri {
    fn eq(&self, _other: &Self) -> bool {
        todo!("RFC 3261 §19.1.4")
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
