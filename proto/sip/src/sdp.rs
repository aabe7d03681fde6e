//! SDP (RFC 8866): a lossless, bounded parser and a printer.

use std::fmt;

/// One SDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDescription {
    // the implementer's choice; this is a placeholder
    _lines: Vec<String>,
}

/// Why it is not SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SDP line {line}: {what}")]
pub struct SdpError {
    /// 1-based.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl SessionDescription {
    /// Parses; at most 64 kB, 2,000 lines and 256 media.
    ///
    /// # Errors
    /// [`SdpError`] for a 400.
    pub fn parse(_text: &[u8]) -> Result<Self, SdpError> {
        todo!()
    }
}

impl fmt::Display for SessionDescription {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
