//! Printing: what was received goes out in as few copies as there are edits, into one buffer of the exact
//! size.

use bytes::Bytes;

use super::{Field, HeaderName, Kind, Message, Place, Span, name};
use crate::lex;

const END: &[u8] = b"\r\n";
const REQUEST_END: &[u8] = b" SIP/2.0\r\n";
const RESPONSE_START: &[u8] = b"SIP/2.0 ";
const LENGTH_NAME: &[u8] = b"Content-Length: ";
const CONTENT_LENGTH: name::Id = HeaderName::ContentLength.index();

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

/// Consecutive bytes of one source are written at once.
struct Run<'r> {
    raw: &'r [u8],
    edits: &'r [u8],
    /// What `pending` is a span of.
    source: &'r [u8],
    /// Still to be written.
    pending: Span,
    out: Vec<u8>,
}

impl Run<'_> {
    fn line(&mut self, field: &Field) {
        let source = match field.place {
            Place::Raw | Place::Unfolded => self.raw,
            Place::Edit => self.edits,
        };
        if self.pending.end == field.line.start && std::ptr::eq(self.source, source) {
            self.pending.end = field.line.end;
        } else {
            self.flush();
            self.source = source;
            self.pending = field.line;
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        self.flush();
        self.out.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        self.out.extend_from_slice(self.pending.of(self.source));
        self.pending = Span::default();
    }
}

impl Message {
    /// The bytes to send. Content-Length is always present and right; unedited messages are the received bytes.
    ///
    /// An unedited message without Content-Length (allowed over UDP) is given one too.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let length = if self.length_kept || self.says_length() {
            None
        } else {
            Some(Decimal::new(self.body_len()))
        };
        if !self.edited && length.is_none() {
            return self.raw.clone();
        }
        let drop_length = length.is_some();
        let kept = self
            .fields
            .iter()
            .filter(|f| !(f.id == CONTENT_LENGTH && drop_length));
        let lines: usize = kept.clone().map(|f| f.line.len()).sum();
        let new = length.as_ref().map_or(0, |digits| {
            LENGTH_NAME.len() + digits.as_bytes().len() + END.len()
        });
        let size = self.start_len() + lines + new + END.len() + self.body_len();
        let mut run = Run {
            raw: &self.raw,
            edits: &self.edits,
            source: &self.raw,
            pending: Span::default(),
            // Exact, so that `Bytes` takes the buffer over as it is.
            out: Vec::with_capacity(size),
        };
        self.write_start(&mut run);
        for field in kept {
            run.line(field);
        }
        if let Some(digits) = &length {
            run.text(LENGTH_NAME);
            run.text(digits.as_bytes());
            run.text(END);
        }
        run.text(END);
        run.text(self.body_bytes());
        debug_assert_eq!(run.out.len(), size);
        Bytes::from(run.out)
    }

    /// Whether the one Content-Length there is says how long the body is.
    fn says_length(&self) -> bool {
        let mut found = self.fields.iter().filter(|f| f.id == CONTENT_LENGTH);
        match (found.next(), found.next()) {
            (Some(field), None) => {
                lex::digits(self.value_bytes(field)) == Some(self.body_len() as u64)
            }
            _ => false,
        }
    }

    /// Length of what [`Self::write_start`] writes.
    fn start_len(&self) -> usize {
        match (self.start, self.kind) {
            (Place::Raw | Place::Unfolded, _) => self.start_end as usize,
            (Place::Edit, Kind::Request) => {
                self.method.as_str().len() + 1 + self.text.len() + REQUEST_END.len()
            }
            (Place::Edit, Kind::Response(_)) => {
                RESPONSE_START.len() + 3 + 1 + self.text.len() + END.len()
            }
        }
    }

    fn write_start(&self, run: &mut Run<'_>) {
        match (self.start, self.kind) {
            (Place::Raw | Place::Unfolded, _) => {
                run.pending = Span {
                    start: 0,
                    end: self.start_end,
                };
            }
            (Place::Edit, Kind::Request) => {
                run.text(self.method.as_str().as_bytes());
                run.text(b" ");
                run.text(self.start_text());
                run.text(REQUEST_END);
            }
            (Place::Edit, Kind::Response(status)) => {
                run.text(RESPONSE_START);
                // Three digits: 100 to 699.
                run.text(Decimal::new(usize::from(status.get())).as_bytes());
                run.text(b" ");
                run.text(self.start_text());
                run.text(END);
            }
        }
    }
}
