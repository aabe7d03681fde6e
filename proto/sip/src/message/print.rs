//! Printing: what was received goes out in as few copies as there are edits, into one buffer of the exact
//! size.

use bytes::Bytes;

use super::{HeaderName, Kind, Message, Place, Span};
use crate::lex;

/// Writes bytes as decimal digits; `usize` has at most 20.
struct Decimal {
    digits: [u8; 20],
    from: usize,
}

impl Decimal {
    fn new(mut n: usize) -> Self {
        let mut digits = [b'0'; 20];
        let mut from = 20;
        loop {
            from -= 1;
            // A remainder of ten fits.
            digits[from] = b'0' + u8::try_from(n % 10).unwrap_or(0);
            n /= 10;
            if n == 0 {
                return Self { digits, from };
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

/// Consecutive received bytes are written at once.
struct Run<'r, F> {
    raw: &'r [u8],
    pending: Span,
    write: F,
}

impl<F: FnMut(&[u8])> Run<'_, F> {
    fn raw(&mut self, span: Span) {
        if self.pending.end == span.start {
            self.pending.end = span.end;
        } else {
            self.flush();
            self.pending = span;
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        self.flush();
        (self.write)(bytes);
    }

    fn flush(&mut self) {
        if self.pending.end > self.pending.start {
            (self.write)(self.pending.of(self.raw));
        }
        self.pending = Span::default();
    }
}

impl Message {
    /// The bytes to send. Content-Length is always present and right; unedited messages are the received bytes.
    ///
    /// An unedited message without Content-Length (allowed over UDP) is given one too.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let keeps_length = self.keeps_length();
        if !self.edited && keeps_length {
            return self.raw.clone();
        }
        let mut size = 0;
        self.emit(keeps_length, |bytes| size += bytes.len());
        // Exact, so that `Bytes` takes the buffer over as it is.
        let mut out = Vec::with_capacity(size);
        self.emit(keeps_length, |bytes| out.extend_from_slice(bytes));
        debug_assert_eq!(out.len(), size);
        Bytes::from(out)
    }

    /// Whether the one Content-Length there is says how long the body is.
    fn keeps_length(&self) -> bool {
        let id = HeaderName::ContentLength.id();
        let mut found = self.fields.iter().filter(|f| f.id == id);
        match (found.next(), found.next()) {
            (Some(field), None) => {
                lex::digits(self.value_bytes(field)) == Some(self.body_len() as u64)
            }
            _ => false,
        }
    }

    /// Hands the message to `write` piece by piece.
    fn emit(&self, keeps_length: bool, write: impl FnMut(&[u8])) {
        let mut run = Run {
            raw: &self.raw,
            pending: Span::default(),
            write,
        };
        self.emit_start(&mut run);
        for field in &self.fields {
            if !keeps_length && field.id == HeaderName::ContentLength.id() {
                continue;
            }
            match field.place {
                Place::Raw | Place::Unfolded => run.raw(field.line),
                Place::Edit => {
                    run.text(self.name_bytes(field));
                    run.text(b": ");
                    run.text(self.value_bytes(field));
                    run.text(b"\r\n");
                }
            }
        }
        if !keeps_length {
            run.text(b"Content-Length: ");
            run.text(Decimal::new(self.body_len()).as_bytes());
            run.text(b"\r\n");
        }
        run.text(b"\r\n");
        if let Some(body) = self.body.get() {
            run.text(body);
        } else {
            run.raw(Span::new(self.head_end as usize, self.raw.len()));
        }
        run.flush();
    }

    fn emit_start<F: FnMut(&[u8])>(&self, run: &mut Run<'_, F>) {
        if self.start == Place::Raw {
            run.raw(Span {
                start: 0,
                end: self.start_end,
            });
            return;
        }
        match self.kind {
            Kind::Request => {
                run.text(self.method.as_str().as_bytes());
                run.text(b" ");
                run.text(self.start_text());
                run.text(b" SIP/2.0\r\n");
            }
            Kind::Response(status) => {
                run.text(b"SIP/2.0 ");
                run.text(Decimal::new(usize::from(status.get())).as_bytes());
                run.text(b" ");
                run.text(self.start_text());
                run.text(b"\r\n");
            }
        }
    }
}
