//! SDP (RFC 8866): a lossless, bounded parser and a printer.
//!
//! A description is kept as its lines. Nothing is thrown away or put in another order, so that what is
//! not understood here still prints as it came; typed values (`a=rtpmap`, `a=candidate`, ...) are read on
//! demand through [`attributes`]. The printer always ends lines with CRLF.

pub mod attributes;
mod parse;
mod print;

use std::net::IpAddr;

/// Octets an SDP may have.
pub const MAX_SIZE: usize = 64 * 1024;
/// Lines an SDP may have.
pub const MAX_LINES: usize = 2_000;
/// m-lines an SDP may have.
pub const MAX_MEDIA: usize = 256;
/// Formats an m-line may name; there are 128 payload types.
pub const MAX_FORMATS: usize = 256;

/// Why it is not SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SDP line {line}: {what}")]
pub struct SdpError {
    /// 1-based.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// One line that is neither `v=` nor `m=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The letter before `=`.
    pub kind: char,
    /// What follows `=`. Octets that were not UTF-8 are replaced by U+FFFD.
    pub value: String,
}

/// The lines of the session part or of one media part, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    lines: Vec<Line>,
}

/// One SDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDescription {
    /// What stands before the first m-line, `v=0` left out (the printer writes it).
    pub session: Section,
    /// One per m-line.
    pub media: Vec<MediaDescription>,
}

/// An m-line and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaDescription {
    /// Media type: "audio", "video", "application", ...
    pub kind: String,
    /// Transport port; 0 = rejected, or bundle-only.
    pub port: u16,
    /// Number of ports where it is written ("49170/2").
    pub port_count: Option<u16>,
    /// Protocol as written: "RTP/AVP", "UDP/TLS/RTP/SAVPF", ...
    pub protocol: String,
    /// Formats as written: payload types for RTP.
    pub formats: Vec<String>,
    /// The lines after the m-line.
    pub section: Section,
}

/// The address of a `c=` line (RFC 8866 §5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The address as written, TTL and count cut off; a host name where `ip` is `None`.
    pub host: String,
    /// The address, if it is one.
    pub ip: Option<IpAddr>,
    /// `IN IP6`.
    pub ipv6: bool,
}

/// The `o=` line (RFC 8866 §5.2). The numbers stay text: some peers write more than 64 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Origin {
    pub username: String,
    pub session_id: String,
    pub session_version: String,
    pub address: String,
}

impl Section {
    /// All lines.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// The value of the first line of a kind.
    #[must_use]
    pub fn line(&self, kind: char) -> Option<&str> {
        self.lines
            .iter()
            .find(|line| line.kind == kind)
            .map(|line| line.value.as_str())
    }

    /// Attributes in order: name, and value where there is one.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.lines
            .iter()
            .filter(|line| line.kind == 'a')
            .map(|line| match line.value.split_once(':') {
                Some((name, value)) => (name, Some(value)),
                None => (line.value.as_str(), None),
            })
    }

    /// Values of every attribute of a name, in order; "" where it has none. Names are case-sensitive
    /// (RFC 8866 §9).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes()
            .filter(move |(n, _)| *n == name)
            .map(|(_, value)| value.unwrap_or_default())
    }

    /// Value of the first attribute of a name.
    #[must_use]
    pub fn attribute<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Is there an attribute of this name, with or without a value?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.attributes().any(|(n, _)| n == name)
    }

    /// Adds a line at the end.
    pub fn push(&mut self, kind: char, value: impl Into<String>) {
        self.lines.push(Line {
            kind,
            value: one_line(value.into()),
        });
    }

    /// Adds `a=name:value` at the end.
    pub fn push_attribute(&mut self, name: &str, value: impl std::fmt::Display) {
        self.push('a', format!("{name}:{value}"));
    }

    /// Adds `a=name` at the end.
    pub fn push_flag(&mut self, name: &str) {
        self.push('a', name);
    }

    /// Takes out every attribute of a name.
    pub fn remove_attribute(&mut self, name: &str) {
        self.lines.retain(|line| {
            line.kind != 'a' || line.value.split(':').next().unwrap_or_default() != name
        });
    }

    /// The first `c=` line, if there is one and it can be read.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        let mut words = self.line('c')?.split_ascii_whitespace();
        let (net, family, address) = (words.next()?, words.next()?, words.next()?);
        if !net.eq_ignore_ascii_case("IN") {
            return None;
        }
        let host = address.split('/').next().unwrap_or(address);
        Some(Connection {
            host: host.to_owned(),
            ip: host.parse().ok(),
            ipv6: family.eq_ignore_ascii_case("IP6"),
        })
    }

    /// bit/s from `b=TIAS` (RFC 3890), else from `b=AS` (kbit/s, RFC 8866 §5.8).
    #[must_use]
    pub fn bandwidth(&self) -> Option<u64> {
        let of = |name: &str| {
            self.lines.iter().filter(|l| l.kind == 'b').find_map(|l| {
                let (kind, value) = l.value.split_once(':')?;
                (kind == name).then(|| value.trim().parse::<u64>().ok())?
            })
        };
        of("TIAS").or_else(|| of("AS").map(|kilo| kilo.saturating_mul(1_000)))
    }
}

/// A line end in a value would let it speak as further lines.
fn one_line(mut value: String) -> String {
    if value.contains(['\r', '\n', '\0']) {
        value.retain(|c| !matches!(c, '\r' | '\n' | '\0'));
    }
    value
}

impl MediaDescription {
    /// An m-line without attributes.
    #[must_use]
    pub fn new(kind: &str, port: u16, protocol: &str, formats: Vec<String>) -> Self {
        Self {
            kind: one_line(kind.to_owned()),
            port,
            port_count: None,
            protocol: one_line(protocol.to_owned()),
            formats: formats.into_iter().map(one_line).collect(),
            section: Section::default(),
        }
    }

    /// `a=mid`.
    #[must_use]
    pub fn mid(&self) -> Option<&str> {
        self.section.attribute("mid").map(str::trim)
    }
}

impl SessionDescription {
    /// Parses; at most 64 kB, 2,000 lines and 256 media. CRLF and bare LF both end a line (RFC 8866 §9).
    ///
    /// # Errors
    /// [`SdpError`] for a 400.
    pub fn parse(text: &[u8]) -> Result<Self, SdpError> {
        parse::parse(text)
    }

    /// The `o=` line.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        let mut words = self.session.line('o')?.split_ascii_whitespace();
        let mut next = || words.next().map(str::to_owned);
        let (username, session_id, session_version) = (next()?, next()?, next()?);
        let (_net, _family) = (next()?, next()?);
        Some(Origin {
            username,
            session_id,
            session_version,
            address: next()?,
        })
    }

    /// The first attribute of a name of an m-line, or else of the session (ICE credentials, fingerprints,
    /// direction and others may stand at either).
    #[must_use]
    pub fn inherited<'a>(&'a self, media: &'a MediaDescription, name: &'a str) -> Option<&'a str> {
        media
            .section
            .attribute(name)
            .or_else(|| self.session.attribute(name))
    }

    /// All attributes of a name of an m-line, or of the session where the m-line has none.
    #[must_use]
    pub fn all_inherited<'a>(&'a self, media: &'a MediaDescription, name: &'a str) -> Vec<&'a str> {
        let own: Vec<_> = media.section.all(name).collect();
        if own.is_empty() {
            self.session.all(name).collect()
        } else {
            own
        }
    }

    /// The `c=` line that holds for an m-line.
    #[must_use]
    pub fn connection(&self, media: &MediaDescription) -> Option<Connection> {
        media
            .section
            .connection()
            .or_else(|| self.session.connection())
    }
}
