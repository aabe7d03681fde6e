//! SIP messages: parsing, reading, editing and printing (RFC 3261 §7, §25).
//!
//! A [`Message`] keeps the bytes it was received in and an index over them. Edits are a list beside
//! them, so that what nobody touched goes out byte for byte as it came in, unknown methods and headers
//! included. Parsing frames first and validates second: a message with a bad header can still be
//! answered, because its Via, From, To, Call-ID and CSeq can still be read.

use std::fmt;

use bytes::Bytes;

use crate::header::{CSeq, HeaderError, NameAddr, Via};

/// Bounds on what is accepted; all are checked before anything is allocated for it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whole message, bytes. Beyond it: 513.
    pub message: usize,
    /// Header section, bytes. Beyond it: 400 (streams: the connection is closed).
    pub head: usize,
    /// Number of header fields.
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

/// A SIP method: the known ones, or any other token, byte for byte and case-sensitive (RFC 3261 §7.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Prack,
    Update,
    Info,
    Subscribe,
    Notify,
    Refer,
    Message,
    Publish,
    Other(Box<str>),
}

impl Method {
    /// The token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        todo!()
    }

    /// Parses a token; anything that is a token is a method.
    #[must_use]
    pub fn from_token(token: &str) -> Self {
        todo!("{token}")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A status code, 100..=699.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusCode(u16);

impl StatusCode {
    /// `None` outside 100..=699.
    #[must_use]
    pub fn new(code: u16) -> Option<Self> {
        (100..700).contains(&code).then_some(Self(code))
    }

    /// For constants; panics outside 100..=699 (our bug).
    #[must_use]
    pub const fn of(code: u16) -> Self {
        assert!(code >= 100 && code < 700, "status code out of range");
        Self(code)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// 1xx.
    #[must_use]
    pub fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// 2xx.
    #[must_use]
    pub fn is_success(self) -> bool {
        (200..300).contains(&self.0)
    }

    /// 200 and above.
    #[must_use]
    pub fn is_final(self) -> bool {
        self.0 >= 200
    }

    /// The standard reason phrase of this code ("Unknown" where there is none).
    #[must_use]
    pub fn reason(self) -> &'static str {
        todo!()
    }
}

/// Names a header field. Known ones in long and compact form compare equal (RFC 3261 §7.3.3);
/// others go by [`HeaderName::Other`], case-insensitively.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum HeaderName<'a> {
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    Allow,
    AllowEvents,
    AuthenticationInfo,
    Authorization,
    CallId,
    Contact,
    ContentDisposition,
    ContentEncoding,
    ContentLength,
    ContentType,
    CSeq,
    Date,
    Event,
    Expires,
    FlowTimer,
    From,
    MaxForwards,
    MinExpires,
    MinSe,
    PAssertedIdentity,
    Path,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyRequire,
    RAck,
    Reason,
    RecordRoute,
    ReferTo,
    ReferredBy,
    Replaces,
    Require,
    RetryAfter,
    Route,
    RSeq,
    Server,
    ServiceRoute,
    SessionExpires,
    SubscriptionState,
    Supported,
    To,
    Unsupported,
    UserAgent,
    Via,
    Warning,
    WwwAuthenticate,
    Other(&'a str),
}

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

/// One SIP request or response.
#[derive(Clone, Debug)]
pub struct Message {
    // the implementer's choice; this is a placeholder
    raw: Bytes,
}

#[allow(unused_variables)]
impl Message {
    /// Indexes `bytes`, which must hold exactly one message (a datagram, a WebSocket frame, or what
    /// [`crate::frame::Framer`] cut out of a stream). Accepts what can be answered; what is wrong with
    /// it is told by [`Message::defect`].
    ///
    /// In a datagram bytes beyond Content-Length are dropped (RFC 3261 §18.3).
    ///
    /// # Errors
    /// [`ParseError`] when it is not even answerable.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Self, ParseError> {
        todo!()
    }

    /// The first thing wrong with the message by RFC 3261 (and 4475's lessons), or `None`: mandatory
    /// headers, single headers doubled, numbers out of range, Content-Length against the body, CSeq
    /// method against the request method, SIP version, white space before a colon, bare CR or LF, NUL in
    /// the head, malformed Via/From/To/Contact/Route...
    #[must_use]
    pub fn defect(&self) -> Option<Defect> {
        todo!()
    }

    // ---- building

    /// A request with only its start line; headers are appended in the order of the calls.
    #[must_use]
    pub fn request(method: Method, uri: &str) -> Self {
        todo!()
    }

    /// A response to `request`: Via list, From, To, Call-ID, CSeq copied (RFC 3261 §8.2.6.2); with
    /// `to_tag` added to To where it has none and the status is above 100. `reason` `None`: the standard one.
    #[must_use]
    pub fn response(
        request: &Message,
        status: StatusCode,
        reason: Option<&str>,
        to_tag: Option<&str>,
    ) -> Self {
        todo!()
    }

    // ---- reading

    /// Whether it is a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        todo!()
    }

    /// Method of the request, or of the CSeq for a response (`Method::Other("")` when unreadable).
    #[must_use]
    pub fn method(&self) -> &Method {
        todo!()
    }

    /// Request-URI as it stands, edits included; empty for a response.
    #[must_use]
    pub fn request_uri(&self) -> &str {
        todo!()
    }

    /// Status of a response; `None` for a request.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        todo!()
    }

    /// Reason phrase of a response; empty for a request.
    #[must_use]
    pub fn reason(&self) -> &str {
        todo!()
    }

    /// Value of the first header field of that name, unfolded bytes trimmed; `None` where absent or not UTF-8.
    #[must_use]
    pub fn header(&self, name: HeaderName<'_>) -> Option<&str> {
        todo!()
    }

    /// Values of all header fields of that name, one item a field line (comma lists not split).
    pub fn headers<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m str> {
        std::iter::empty()
    }

    /// Values of all header fields of that name, comma lists split (quotes and angle brackets respected).
    pub fn values<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m str> {
        std::iter::empty()
    }

    /// Every header field in order, as (name as written, value), edits included.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        std::iter::empty()
    }

    /// Call-ID; empty when absent (a defect).
    #[must_use]
    pub fn call_id(&self) -> &str {
        todo!()
    }

    /// CSeq.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn cseq(&self) -> Result<CSeq, HeaderError> {
        todo!()
    }

    /// From.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn from(&self) -> Result<NameAddr, HeaderError> {
        todo!()
    }

    /// To.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn to(&self) -> Result<NameAddr, HeaderError> {
        todo!()
    }

    /// The topmost Via.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn top_via(&self) -> Result<Via, HeaderError> {
        todo!()
    }

    /// Contact values (`*` is a `NameAddr` whose uri is `*`).
    ///
    /// # Errors
    /// One is malformed.
    pub fn contacts(&self) -> Result<Vec<NameAddr>, HeaderError> {
        todo!()
    }

    /// A name-addr list header: Route, Record-Route, Path, Service-Route, P-Asserted-Identity, ...
    ///
    /// # Errors
    /// One is malformed.
    pub fn addresses(&self, name: HeaderName<'_>) -> Result<Vec<NameAddr>, HeaderError> {
        todo!()
    }

    /// A header that is one number: Max-Forwards, Expires, Min-Expires, RSeq, ...
    ///
    /// # Errors
    /// Present and not a number up to 2^32-1.
    pub fn number(&self, name: HeaderName<'_>) -> Result<Option<u32>, HeaderError> {
        todo!()
    }

    /// Whether a token list header (Supported, Require, Allow, ...) has `token`, case-insensitively.
    #[must_use]
    pub fn has_token(&self, name: HeaderName<'_>, token: &str) -> bool {
        todo!()
    }

    /// Content-Type without parameters, lower case; empty when absent.
    #[must_use]
    pub fn content_type(&self) -> String {
        todo!()
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        todo!()
    }

    // ---- editing

    /// Replaces the Request-URI.
    pub fn set_request_uri(&mut self, uri: &str) {
        todo!()
    }

    /// Replaces all fields of that name by one (at the place of the first, else at the end).
    pub fn set(&mut self, name: HeaderName<'_>, value: impl Into<String>) {
        todo!()
    }

    /// Adds a field before all of that name (Via, Route, Record-Route, Path); before all headers where there is none.
    pub fn push_front(&mut self, name: HeaderName<'_>, value: impl Into<String>) {
        todo!()
    }

    /// Adds a field after all others.
    pub fn push_back(&mut self, name: HeaderName<'_>, value: impl Into<String>) {
        todo!()
    }

    /// Removes every field of that name.
    pub fn remove(&mut self, name: HeaderName<'_>) {
        todo!()
    }

    /// Removes the first *value* of that name (a comma list keeps its rest) and returns it.
    pub fn pop_front(&mut self, name: HeaderName<'_>) -> Option<String> {
        todo!()
    }

    /// Replaces the first *value* of that name (a comma list keeps its rest); adds one where there is none.
    pub fn set_front(&mut self, name: HeaderName<'_>, value: impl Into<String>) {
        todo!()
    }

    /// Replaces the body, its Content-Type and (when printed) Content-Length.
    pub fn set_body(&mut self, content_type: &str, body: impl Into<Bytes>) {
        todo!()
    }

    // ---- printing

    /// The bytes to send. Content-Length is always present and right; unedited messages are the received bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        todo!()
    }
}
