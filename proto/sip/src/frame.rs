//! Cutting SIP messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §4.4.1).

use bytes::{Bytes, BytesMut};

use crate::message::Limits;

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
    /// What happened.
    pub reason: &'static str,
    /// The head as far as it goes, so that a 4xx/513 can be sent before closing (RFC 3261 §18.3).
    pub answerable: Option<Bytes>,
}

/// A push parser over one connection; holds at most one message.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: BytesMut,
}

impl Framer {
    /// A framer for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: BytesMut::new(),
        }
    }

    /// Where the socket may read into.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes came. Never rescans what it has scanned.
    ///
    /// # Errors
    /// [`FrameError`]: limits exceeded, Content-Length missing, unreadable or beyond the limit.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let _ = self.limits;
        todo!()
    }
}
