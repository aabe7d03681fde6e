//! Cutting SIP messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §4.4.1).

use bytes::{Bytes, BytesMut};

use crate::lex;
use crate::message::{Limits, StatusCode, content_length_value};

/// What a stream holds next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The bytes of one whole message, for [`crate::Message::parse`].
    Message(Bytes),
    /// A double CRLF keepalive: answer with one CRLF.
    Ping,
    /// A single CRLF: the peer's answer to our ping, or leading white space.
    Pong,
}

/// Why a stream cannot be read on; the connection must be closed (after `answer`, where there is one).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct FrameError {
    /// What happened; also the reason phrase of the answer.
    pub reason: &'static str,
    /// The status the answer carries.
    pub status: StatusCode,
    /// The head as far as it goes, so that a 4xx/513 can be sent before closing (RFC 3261 §18.3): if
    /// [`crate::Message::parse`] makes a request of it. `None` where there is not even a start line.
    pub answerable: Option<Bytes>,
}

/// A push parser over one connection; holds at most one message, and what was read with it.
///
/// Lines are ended by LF, with or without CR, exactly as [`crate::Message::parse`] has it; that parser
/// then calls a bare LF a defect. So the two never disagree on where a message ends.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: BytesMut,
    /// Bytes of the buffer looked at; none is looked at twice.
    scanned: usize,
    /// Where the line begins that is being scanned.
    line: usize,
    /// Where the header field begins that is being scanned: its first line.
    field: usize,
    /// Lines so far; the first is the start line.
    lines: usize,
    /// What Content-Length said.
    length: Option<u64>,
    /// Where the head ends, once found.
    head_end: Option<usize>,
    /// The stream is broken: every further call says so again.
    broken: Option<FrameError>,
}

impl Framer {
    /// A framer for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: BytesMut::new(),
            scanned: 0,
            line: 0,
            field: 0,
            lines: 0,
            length: None,
            head_end: None,
            broken: None,
        }
    }

    /// Where the socket may read into. Only ever append to it.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes held that make no whole frame yet. A peer that leaves some for long is slow or hostile.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole frame, or `None` until more bytes came. Never rescans what it has scanned.
    ///
    /// A lone CRLF at the end of what was received is a [`Frame::Pong`] at once: a pong is not followed by
    /// anything, so that it cannot be waited whether another CRLF makes a ping of it.
    ///
    /// # Errors
    /// [`FrameError`]: limits exceeded, Content-Length missing, unreadable or beyond the limit.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let result = self.advance();
        if let Err(error) = &result {
            self.broken = Some(error.clone());
            // Nothing of it is read any more.
            self.buffer = BytesMut::new();
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.scanned == 0
            && let Some(keepalive) = self.keepalive()
        {
            return Ok(keepalive);
        }
        if self.head_end.is_none() {
            self.scan_head()?;
        }
        let Some(head_end) = self.head_end else {
            return Ok(None);
        };
        let Some(length) = self.length else {
            // §20.14: mandatory over streams; without it there is no telling where the next message is.
            return Err(self.error(400, "Content-Length missing", head_end));
        };
        // The limits are far below 2^64, and the sum below 2^64 once `length` is under one.
        if length > self.limits.body as u64 {
            return Err(self.error(413, "body too large", head_end));
        }
        let whole = head_end as u64 + length;
        if whole > self.limits.message as u64 {
            return Err(self.error(513, "message too large", head_end));
        }
        let Ok(whole) = usize::try_from(whole) else {
            return Err(self.error(513, "message too large", head_end));
        };
        if self.buffer.len() < whole {
            // Room for the rest at once: bounded by the limits checked above.
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let message = self.buffer.split_to(whole).freeze();
        self.reset();
        Ok(Some(Frame::Message(message)))
    }

    /// What begins with CRLF where a message could begin. `Some(None)`: too few bytes to tell.
    fn keepalive(&mut self) -> Option<Option<Frame>> {
        let (frame, len) = match &self.buffer[..] {
            [b'\r', b'\n', b'\r', b'\n', ..] => (Frame::Ping, 4),
            [b'\r'] | [b'\r', b'\n', b'\r'] | [] => return Some(None),
            [b'\r', b'\n', ..] => (Frame::Pong, 2),
            _ => return None,
        };
        let _ = self.buffer.split_to(len);
        Some(Some(frame))
    }

    /// Looks at lines as they become whole, up to the empty one.
    fn scan_head(&mut self) -> Result<(), FrameError> {
        while let Some(hit) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
            let end = self.scanned + hit;
            self.scanned = end + 1;
            if end >= self.limits.head {
                return Err(self.head_too_large());
            }
            let empty =
                end == self.line || (end == self.line + 1 && self.buffer[self.line] == b'\r');
            // A field is whole when the next line does not go on with it.
            let folded = lex::is_blank(self.buffer[self.line]);
            if !folded {
                self.close_field(self.line)?;
                self.field = self.line;
            }
            self.line = end + 1;
            self.lines += 1;
            if empty {
                self.head_end = Some(end + 1);
                return Ok(());
            }
        }
        self.scanned = self.buffer.len();
        if self.scanned > self.limits.head {
            return Err(self.head_too_large());
        }
        Ok(())
    }

    /// Takes Content-Length from the field that ends at `end`, if it is one.
    fn close_field(&mut self, end: usize) -> Result<(), FrameError> {
        let field = &self.buffer[self.field..end];
        // The start line is no header; and most lines are told by their first letter.
        if self.field == 0 || !matches!(field.first(), Some(b'c' | b'C' | b'l' | b'L')) {
            return Ok(());
        }
        let Some(value) = content_length_value(field) else {
            return Ok(());
        };
        let length = lex::digits(value);
        if length.is_none() {
            return Err(self.error(400, "Content-Length is not a number", end));
        }
        if self.length.is_some() {
            return Err(self.error(400, "more than one Content-Length", end));
        }
        self.length = length;
        Ok(())
    }

    fn head_too_large(&mut self) -> FrameError {
        let end = self.line;
        self.error(513, "header section too large", end)
    }

    /// Hands out the head up to `end`, closed by an empty line, for an answer.
    fn error(&mut self, status: u16, reason: &'static str, end: usize) -> FrameError {
        let end = end.min(self.limits.head).min(self.buffer.len());
        let mut head = self.buffer.split_to(end);
        if !head.is_empty() && !head.ends_with(b"\r\n\r\n") {
            head.extend_from_slice(b"\r\n");
        }
        FrameError {
            reason,
            status: StatusCode::of(status),
            answerable: (self.lines > 0).then(|| head.freeze()),
        }
    }

    fn reset(&mut self) {
        self.scanned = 0;
        self.line = 0;
        self.field = 0;
        self.lines = 0;
        self.length = None;
        self.head_end = None;
    }
}

#[cfg(test)]
mod tests;
