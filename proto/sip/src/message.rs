//! SIP messages: parsing, reading, editing and printing (RFC 3261 §7, §25).
//!
//! A [`Message`] keeps the bytes it was received in and an index over them. Edits are a list beside
//! them, so that what nobody touched goes out byte for byte as it came in, unknown methods and headers
//! included. Parsing frames first and validates second: a message with a bad header can still be
//! answered, because its Via, From, To, Call-ID and CSeq can still be read.
//!
//! What could be read in two ways never goes out as it came in: a line ended by a bare LF, a bare CR, a
//! NUL, white space before a colon. Such fields are rewritten into the edits while parsing.

use std::sync::OnceLock;

use bytes::Bytes;

mod build;
mod defect;
mod edit;
mod method;
mod name;
mod parse;
mod plain;
mod print;
mod read;

pub use method::{Method, StatusCode};
pub use name::HeaderName;
pub(crate) use parse::content_length_value;

/// Bounds on what is accepted; all are checked before anything is allocated for it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whole message, bytes. Beyond it: 513.
    pub message: usize,
    /// Header section, bytes. Beyond it: 513 (streams: the connection is closed).
    pub head: usize,
    /// Number of header fields. Beyond it: 513.
    pub headers: usize,
    /// Body, bytes. Beyond it: 413.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 65_535,
            head: 32_768,
            headers: 256,
            body: 65_535,
        }
    }
}

/// Most values read from one list header spread over any number of fields; more is a defect. Raising it
/// lets one message cost more memory, lowering it refuses long Record-Route and Contact lists.
const MAX_VALUES: usize = 256;

/// Why bytes are not a SIP message that can be worked with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not SIP at all: nothing can be answered; a datagram is dropped, a stream closed.
    #[error("not a SIP message: {0}")]
    NotSip(&'static str),
    /// A limit is exceeded so that not even the head could be indexed.
    #[error("message exceeds a limit: {0}")]
    TooLarge(&'static str),
}

/// What is wrong with a message that can still be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The status it deserves: 400, 413, 416, 505, 513, ...
    pub status: StatusCode,
    /// Reason phrase that says what is wrong, for the status line.
    pub reason: &'static str,
}

impl Defect {
    const fn new(status: u16, reason: &'static str) -> Self {
        Self {
            status: StatusCode::of(status),
            reason,
        }
    }
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// A request: method and Request-URI as received.
    Request {
        /// Method.
        method: Method,
        /// Request-URI, byte for byte.
        uri: String,
    },
    /// A response.
    Response {
        /// Status.
        status: StatusCode,
        /// Reason phrase, may be empty.
        reason: String,
    },
}

/// Bytes `start..end` of the received message or of the edits. 32 bits: longer messages are not parsed.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Callers have made sure that the offsets are below 2^32 (`parse`, `Edits`).
    #[allow(clippy::cast_possible_truncation)]
    fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        // Spans are only made of offsets into the same bytes; an empty slice instead of a panic all the same.
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or(&[])
    }
}

/// Where the bytes of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// As received.
    Raw,
    /// Received in folded lines: name and line as received, the value unfolded in the edits.
    Unfolded,
    /// All of it in the edits, as the line `name: value` that is printed.
    Edit,
}

/// One header field.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// Known name, or [`name::OTHER`].
    id: name::Id,
    place: Place,
    /// Length of the name at the start of `line`.
    name_len: u16,
    /// The whole field with its line end.
    line: Span,
    value: Span,
}

/// Request or response.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    Response(StatusCode),
}

/// One SIP request or response.
#[derive(Clone, Debug)]
pub struct Message {
    /// As received: one whole message. Empty for one that was built.
    raw: Bytes,
    /// Texts that are not in `raw`: edited and unfolded values, names, start line.
    edits: Vec<u8>,
    /// Every field in order, edits included.
    fields: Vec<Field>,
    kind: Kind,
    /// Of the request line, or of the CSeq of a response.
    method: Method,
    /// Request-URI or reason phrase.
    text: Span,
    /// `Raw`: `text` is in `raw`, in the start line as received. `Edit`: in the edits.
    start: Place,
    /// Where the start line ends in `raw`, line end included.
    start_end: u32,
    /// Where the body begins in `raw`.
    head_end: u32,
    /// A body that was set; else, once asked for, the one in `raw`.
    body: OnceLock<Bytes>,
    /// Whether it must be printed anew.
    edited: bool,
    /// The one Content-Length there is says how long the body is, and no edit has touched either.
    length_kept: bool,
    /// What was wrong with its framing, found while indexing.
    framing: Option<(u16, &'static str)>,
}

#[cfg(test)]
mod tests;
