//! From bytes to an index: framing only. What the headers say is looked at when it is asked for.

use std::sync::OnceLock;

use bytes::{Buf, Bytes};

use super::{
    Field, HeaderName, Kind, Limits, Message, Method, ParseError, Place, Span, StatusCode, name,
    plain,
};
use crate::header::split_cseq;
use crate::lex;

/// A framing defect: the status it deserves, and why.
pub(super) type Fault = (u16, &'static str);

const BARE: Fault = (400, "bare CR or LF in the header section");
const NUL: Fault = (400, "NUL in the header section");
const WHITE_SPACE: Fault = (400, "white space before the colon of a header");
const NO_COLON: Fault = (400, "header line without a colon");
const BAD_NAME: Fault = (400, "character not allowed in a header name");
const LEADING_FOLD: Fault = (400, "folded line before the first header");
const NO_END: Fault = (400, "no empty line behind the headers");
const TOO_MANY: Fault = (513, "too many headers");
const HEAD_SIZE: Fault = (513, "header section too large");
const START_SPACE: Fault = (400, "superfluous white space in the start line");
const URI_SPACE: Fault = (400, "white space in the Request-URI");
const VERSION: Fault = (505, "only SIP/2.0 is spoken here");
const MESSAGE_SIZE: Fault = (513, "message too large");
const BODY_SIZE: Fault = (413, "body too large");
const LENGTH_TWICE: Fault = (400, "more than one Content-Length");
const LENGTH_BAD: Fault = (400, "Content-Length is not a number");
const LENGTH_LONG: Fault = (400, "Content-Length beyond the end of the message");

/// One line.
struct Line {
    /// Behind the last byte of its text.
    end: usize,
    /// Where the next begins.
    next: usize,
    /// Ended by CRLF, and without a CR in it.
    clean: bool,
}

/// The line that begins at `at`; `None` where `head` ends before it does.
fn line(head: &[u8], at: usize) -> Option<Line> {
    let mut clean = true;
    let mut from = at;
    loop {
        let hit = from + memchr::memchr2(b'\r', b'\n', &head[from..])?;
        if head[hit] == b'\n' {
            return Some(Line {
                end: hit,
                next: hit + 1,
                clean: false,
            });
        }
        if head.get(hit + 1) == Some(&b'\n') {
            return Some(Line {
                end: hit,
                next: hit + 2,
                clean,
            });
        }
        clean = false;
        from = hit + 1;
    }
}

impl Message {
    /// Indexes `bytes`, which must hold exactly one message (a datagram, a WebSocket frame, or what
    /// [`crate::frame::Framer`] cut out of a stream). Accepts what can be answered; what is wrong with
    /// it is told by [`Message::defect`].
    ///
    /// In a datagram bytes beyond Content-Length are dropped (RFC 3261 §18.3).
    ///
    /// # Errors
    /// [`ParseError`] when it is not even answerable.
    pub fn parse(mut bytes: Bytes, limits: &Limits) -> Result<Self, ParseError> {
        // §7.5: line ends before the start line do not count.
        while bytes.starts_with(b"\r\n") {
            bytes.advance(2);
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(ParseError::TooLarge("message beyond 4 GiB"));
        }
        let size = bytes.len();
        let head = &bytes[..size.min(limits.head)];
        let index = match plain::index(head, limits) {
            Some(index) => index,
            None => Index::of(head, head.len() < size, limits)?,
        };
        let cut = index.cut;
        let mut message = Self {
            start: index.start,
            edited: index.rewritten,
            framing: index.fault,
            fields: index.fields,
            edits: index.edits,
            kind: index.kind,
            method: index.method,
            text: index.text,
            start_end: Span::new(0, index.start_end).end,
            head_end: Span::new(0, index.head_end).end,
            body: OnceLock::new(),
            length_kept: false,
            raw: bytes,
        };
        if cut {
            message.raw.truncate(message.head_end as usize);
        }
        message.frame_body(size, limits);
        if let Kind::Response(_) = message.kind {
            message.method = message
                .header(HeaderName::CSeq)
                .and_then(|v| split_cseq(v).ok())
                .map_or_else(|| Method::Other("".into()), |(_, m)| Method::from_token(m));
        }
        Ok(message)
    }

    /// Cuts the body to its Content-Length, and checks both against the limits. All in 64 bits, saturating:
    /// no number in a message can wrap.
    fn frame_body(&mut self, size: usize, limits: &Limits) {
        let present = self.raw.len() - self.head_end as usize;
        let length = self.content_length();
        let fault = match length {
            Err(fault) => Some(fault),
            Ok(None) => None,
            Ok(Some(length)) if length > present as u64 => Some(if length > limits.body as u64 {
                BODY_SIZE
            } else {
                LENGTH_LONG
            }),
            Ok(Some(length)) => {
                if length < present as u64 {
                    // Fits: it is less than a length that is a usize.
                    let end = self.head_end as usize + usize::try_from(length).unwrap_or(present);
                    self.raw.truncate(end);
                }
                None
            }
        };
        let body = self.raw.len() - self.head_end as usize;
        self.length_kept = length == Ok(Some(body as u64));
        let fault = if size > limits.message {
            Some(MESSAGE_SIZE)
        } else if body > limits.body {
            Some(BODY_SIZE)
        } else {
            fault
        };
        self.framing = self.framing.or(fault);
    }

    /// What Content-Length says; `None` without one.
    fn content_length(&self) -> Result<Option<u64>, Fault> {
        let mut found = None;
        for field in self
            .fields
            .iter()
            .filter(|f| f.id == HeaderName::ContentLength.id())
        {
            if found.is_some() {
                return Err(LENGTH_TWICE);
            }
            found = Some(lex::digits(self.value_bytes(field)).ok_or(LENGTH_BAD)?);
        }
        Ok(found)
    }
}

/// What parsing finds in the head.
pub(super) struct Index {
    pub(super) kind: Kind,
    pub(super) method: Method,
    pub(super) text: Span,
    pub(super) start: Place,
    /// Where the start line ends, line end included.
    pub(super) start_end: usize,
    /// Where the body begins.
    pub(super) head_end: usize,
    pub(super) fields: Vec<Field>,
    pub(super) edits: Vec<u8>,
    pub(super) fault: Option<Fault>,
    /// As in [`Scan`].
    pub(super) rewritten: bool,
    pub(super) cut: bool,
}

impl Index {
    /// Any head. `truncated`: it was cut at its limit.
    pub(super) fn of(head: &[u8], truncated: bool, limits: &Limits) -> Result<Self, ParseError> {
        let Some(first) = line(head, 0) else {
            return Err(if truncated {
                ParseError::TooLarge("start line")
            } else {
                ParseError::NotSip("no line end")
            });
        };
        let start = StartParts::parse(&head[..first.end])?;
        let mut scan = Scan {
            head,
            truncated,
            max_fields: limits.headers,
            fields: Vec::with_capacity(24),
            edits: Vec::new(),
            fault: start.fault,
            rewritten: false,
            folded: false,
            cut: false,
        };
        let head_end = scan.fields(first.next);
        scan.finish();
        let (text, place) = scan.start_line(&first, start.text);
        Ok(Self {
            kind: start.kind,
            method: start.method,
            text,
            start: place,
            start_end: first.next,
            head_end,
            fields: scan.fields,
            edits: scan.edits,
            fault: scan.fault,
            rewritten: scan.rewritten,
            cut: scan.cut,
        })
    }
}

/// What the start line says.
pub(super) struct StartParts {
    pub(super) kind: Kind,
    pub(super) method: Method,
    pub(super) text: Span,
    pub(super) fault: Option<Fault>,
}

impl StartParts {
    pub(super) fn parse(line: &[u8]) -> Result<Self, ParseError> {
        if line
            .get(..4)
            .is_some_and(|s| s.eq_ignore_ascii_case(b"SIP/"))
        {
            Self::status_line(line)
        } else {
            Self::request_line(line)
        }
    }

    /// `Method SP Request-URI SP SIP-Version` (§7.1). More or other white space than that is told from the
    /// parts, so that it can be answered.
    fn request_line(line: &[u8]) -> Result<Self, ParseError> {
        let not = ParseError::NotSip;
        let end = line
            .iter()
            .rposition(|b| !lex::is_blank(*b))
            .map_or(0, |i| i + 1);
        let method_end = line[..end]
            .iter()
            .position(|b| !lex::is_token_byte(*b))
            .ok_or(not("no request line"))?;
        if method_end == 0 || !lex::is_blank(line[method_end]) {
            return Err(not("no method"));
        }
        let version = line[..end]
            .iter()
            .rposition(|b| lex::is_blank(*b))
            .map_or(0, |i| i + 1);
        let is_sip = line[version..end]
            .get(..4)
            .is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/"));
        if !is_sip || version <= method_end + 1 {
            return Err(not("no SIP version"));
        }
        let (mut from, mut to) = (method_end + 1, version - 1);
        let mut fault = (end < line.len()).then_some(START_SPACE);
        while from < to && lex::is_blank(line[from]) {
            from += 1;
            fault = Some(START_SPACE);
        }
        while to > from && lex::is_blank(line[to - 1]) {
            to -= 1;
            fault = Some(START_SPACE);
        }
        if line[method_end] == b'\t' || line[version - 1] == b'\t' {
            fault = Some(START_SPACE);
        }
        if line[from..to].iter().any(|b| lex::is_blank(*b)) {
            fault = Some(URI_SPACE);
        }
        if !line[version..end].eq_ignore_ascii_case(b"SIP/2.0") {
            fault = Some(VERSION);
        }
        // Token bytes are ASCII.
        let method = std::str::from_utf8(&line[..method_end]).map_err(|_| not("no method"))?;
        Ok(Self {
            kind: Kind::Request,
            method: Method::from_token(method),
            text: Span::new(from, to),
            fault,
        })
    }

    /// `SIP-Version SP Status-Code SP Reason-Phrase` (§7.2). A response cannot be answered, so that one
    /// without a status is dropped at once. The space before an empty reason may be missing: some forget it.
    fn status_line(line: &[u8]) -> Result<Self, ParseError> {
        let not = ParseError::NotSip;
        let space = memchr::memchr(b' ', line).ok_or(not("no status code"))?;
        let fault = (!line[..space].eq_ignore_ascii_case(b"SIP/2.0")).then_some(VERSION);
        let rest = &line[space + 1..];
        let code = rest
            .get(..3)
            .and_then(lex::digits)
            .ok_or(not("no status code"))?;
        let status = u16::try_from(code)
            .ok()
            .and_then(StatusCode::new)
            .ok_or(not("status code out of range"))?;
        let text = match rest.get(3) {
            None => line.len(),
            Some(b' ') => space + 5,
            Some(_) => return Err(not("status code out of range")),
        };
        Ok(Self {
            kind: Kind::Response(status),
            // Set from CSeq once the headers are indexed.
            method: Method::Options,
            text: Span::new(text, line.len()),
            fault,
        })
    }
}

/// Indexes the header section.
struct Scan<'a> {
    head: &'a [u8],
    /// The head was cut at its limit.
    truncated: bool,
    max_fields: usize,
    fields: Vec<Field>,
    edits: Vec<u8>,
    fault: Option<Fault>,
    /// A field was rewritten or left out: the message does not go out as it came in.
    rewritten: bool,
    folded: bool,
    /// The end of the head was not reached: what follows is no body.
    cut: bool,
}

impl Scan<'_> {
    /// The first fault stays: it is the one told.
    fn fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Indexes fields from `at` on; where the body begins.
    fn fields(&mut self, mut at: usize) -> usize {
        loop {
            let Some(line) = line(self.head, at) else {
                self.fault(if self.truncated { HEAD_SIZE } else { NO_END });
                self.rewritten = true;
                self.cut = true;
                // What is left is no whole line; the datagram's last one may only lack its end.
                if !self.truncated && at < self.head.len() && !lex::is_blank(self.head[at]) {
                    self.field(at, self.head.len(), self.head.len(), false);
                }
                return self.head.len();
            };
            if line.end == at {
                if !line.clean {
                    self.fault(BARE);
                    self.rewritten = true;
                }
                return line.next;
            }
            if !line.clean {
                self.fault(BARE);
            }
            if lex::is_blank(self.head[at]) {
                self.continuation(&line);
            } else if self.fields.len() >= self.max_fields {
                self.fault(TOO_MANY);
                self.rewritten = true;
                self.cut = true;
                return self.head.len();
            } else {
                self.field(at, line.end, line.next, line.clean);
            }
            at = line.next;
        }
    }

    /// A line that goes on with the field before it (§7.3.1).
    fn continuation(&mut self, line: &Line) {
        let Some(field) = self.fields.last_mut() else {
            self.fault(LEADING_FOLD);
            self.rewritten = true;
            return;
        };
        self.folded = true;
        field.value.end = Span::new(0, line.end).end;
        field.line.end = Span::new(0, line.next).end;
        if field.place != Place::Edit {
            field.place = Place::Unfolded;
        }
        if !line.clean {
            field.place = Place::Edit;
        }
    }

    /// A line `name: value`. One that is none is left out.
    fn field(&mut self, at: usize, end: usize, next: usize, clean: bool) {
        let text = &self.head[at..end];
        let name_len = lex::token_len(text);
        let mut colon = name_len;
        while text.get(colon).copied().is_some_and(lex::is_blank) {
            colon += 1;
        }
        if name_len == 0 || text.get(colon) != Some(&b':') || name_len > u16::MAX as usize {
            self.fault(if memchr::memchr(b':', text).is_some() {
                BAD_NAME
            } else {
                NO_COLON
            });
            self.rewritten = true;
            return;
        }
        let id = name::id_of(&text[..name_len]);
        let mut place = if clean { Place::Raw } else { Place::Edit };
        if colon > name_len {
            // The grammar allows it (§25.1 HCOLON; RFC 4475 §3.1.1.1), but others have let headers through
            // that a filter took for unknown. So: names of RFC 3261 are read and go out without the white
            // space; behind any other name it is a defect.
            place = Place::Edit;
            if !name::in_rfc3261(id) {
                self.fault(WHITE_SPACE);
            }
        }
        let mut value = colon + 1;
        while text.get(value).copied().is_some_and(lex::is_blank) {
            value += 1;
        }
        let mut value_end = text.len();
        while value_end > value && lex::is_blank(text[value_end - 1]) {
            value_end -= 1;
        }
        self.fields.push(Field {
            id,
            place,
            // Checked above.
            name_len: u16::try_from(name_len).unwrap_or(0),
            line: Span::new(at, next),
            value: Span::new(at + value, at + value_end),
        });
    }

    /// Unfolds and rewrites what must be, once all fields are known. Rare: the common message has nothing.
    fn finish(&mut self) {
        let head = self.head;
        let nul = memchr::memchr(0, head).is_some();
        if self.fault.is_none()
            && !self.folded
            && !nul
            && self.fields.iter().all(|f| f.place == Place::Raw)
        {
            return;
        }
        for i in 0..self.fields.len() {
            let mut field = self.fields[i];
            let value = field.value.of(head);
            if nul && memchr::memchr(0, value).is_some() && !nul_is_quoted(value) {
                self.fault.get_or_insert(NUL);
                field.place = Place::Edit;
            }
            if field.place == Place::Raw {
                continue;
            }
            if field.place == Place::Edit {
                let name = &head[field.line.start as usize..][..field.name_len as usize];
                let start = self.edits.len();
                self.edits.extend_from_slice(name);
                self.edits.extend_from_slice(b": ");
                field.value = unfold(&mut self.edits, value);
                self.edits.extend_from_slice(b"\r\n");
                field.line = Span::new(start, self.edits.len());
                self.rewritten = true;
            } else {
                field.value = unfold(&mut self.edits, value);
            }
            self.fields[i] = field;
        }
    }

    /// The text of the start line, and where it is: rewritten where a bare CR or a NUL is in it.
    fn start_line(&mut self, first: &Line, text: Span) -> (Span, Place) {
        let nul = memchr::memchr(0, &self.head[..first.end]).is_some();
        if nul || !first.clean {
            self.fault(if nul { NUL } else { BARE });
            self.rewritten = true;
            return (unfold(&mut self.edits, text.of(self.head)), Place::Edit);
        }
        (text, Place::Raw)
    }
}

/// Writes the value on one line: each fold, and each CR, LF or NUL that has no business there, becomes one
/// space.
fn unfold(edits: &mut Vec<u8>, value: &[u8]) -> Span {
    let keep_nul = nul_is_quoted(value);
    let start = edits.len();
    let mut broken = false;
    for &b in value {
        match b {
            b'\r' | b'\n' => broken = true,
            0 if !keep_nul => broken = true,
            b' ' | b'\t' if broken => {}
            b => {
                if broken {
                    // White space in front of the fold goes with it.
                    while edits.len() > start && edits.last().copied().is_some_and(lex::is_blank) {
                        edits.pop();
                    }
                    if edits.len() > start {
                        edits.push(b' ');
                    }
                    broken = false;
                }
                edits.push(b);
            }
        }
    }
    while edits.len() > start && edits.last().copied().is_some_and(lex::is_blank) {
        edits.pop();
    }
    Span::new(start, edits.len())
}

/// Whether every NUL stands escaped in a quoted string, the one place the grammar has for it (§25.1
/// quoted-pair; RFC 4475 §3.1.1.2).
pub(super) fn nul_is_quoted(value: &[u8]) -> bool {
    let mut quoted = false;
    let mut i = 0;
    while i < value.len() {
        match value[i] {
            0 => return false,
            b'\\' if quoted => i += 1,
            b'"' => quoted = !quoted,
            _ => {}
        }
        i += 1;
    }
    true
}

/// The value of a header line that is a Content-Length, folded or not, for the stream framer: it must see
/// what [`Message::parse`] will see.
pub(crate) fn content_length_value(line: &[u8]) -> Option<&[u8]> {
    let end = line.iter().position(|b| !lex::is_token_byte(*b))?;
    if name::id_of(&line[..end]) != HeaderName::ContentLength.id() {
        return None;
    }
    line[end..]
        .trim_ascii_start()
        .strip_prefix(b":")
        .map(<[u8]>::trim_ascii)
}
