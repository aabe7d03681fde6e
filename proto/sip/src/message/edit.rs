//! Editing: texts go into the edits, fields point at them; what was received is never touched.

use std::sync::OnceLock;

use bytes::Bytes;

use super::parse::nul_is_quoted;
use super::{Field, HeaderName, Message, Place, Span, name};
use crate::lex::{self, Commas};

impl Message {
    /// Replaces the Request-URI. White space and control characters, which cannot stand in one, are left out.
    pub fn set_request_uri(&mut self, uri: &str) {
        if self.is_request() {
            self.set_start_text(uri, |b| b > b' ' && b != 0x7f);
        }
    }

    /// Puts a Request-URI or reason phrase into the edits, without the bytes that may not stand there.
    pub(super) fn set_start_text(&mut self, text: &str, keep: fn(u8) -> bool) {
        self.reserve(text.len());
        let start = self.edits.len();
        self.edits.extend(text.bytes().filter(|b| keep(*b)));
        self.text = Span::new(start, self.edits.len());
        self.start = Place::Edit;
        self.edited = true;
    }

    /// Replaces all fields of that name by one (at the place of the first, else at the end).
    pub fn set(&mut self, name: HeaderName<'_>, value: impl AsRef<str>) {
        let field = self.make(name, value.as_ref());
        match self.first(name) {
            Some(at) => {
                self.fields[at] = field;
                self.retain_from(at + 1, name);
            }
            None => self.fields.push(field),
        }
    }

    /// Adds a field before all of that name (Via, Route, Record-Route, Path); before all headers where there is none.
    pub fn push_front(&mut self, name: HeaderName<'_>, value: impl AsRef<str>) {
        let field = self.make(name, value.as_ref());
        let at = self.first(name).unwrap_or(0);
        self.fields.insert(at, field);
    }

    /// Adds a field after all others.
    pub fn push_back(&mut self, name: HeaderName<'_>, value: impl AsRef<str>) {
        let field = self.make(name, value.as_ref());
        self.fields.push(field);
    }

    /// Removes every field of that name.
    pub fn remove(&mut self, name: HeaderName<'_>) {
        self.touch(name.id());
        self.retain_from(0, name);
    }

    /// Removes the first *value* of that name (a comma list keeps its rest) and returns it.
    pub fn pop_front(&mut self, name: HeaderName<'_>) -> Option<String> {
        let mut popped = None;
        self.take_front(name, |value| popped = Some(value.to_owned()));
        popped
    }

    /// As [`Self::pop_front`], without making a string of what was removed: whether there was one.
    pub fn drop_front(&mut self, name: HeaderName<'_>) -> bool {
        let mut found = false;
        self.take_front(name, |_| found = true);
        found
    }

    /// Replaces the first *value* of that name (a comma list keeps its rest); adds one where there is none.
    pub fn set_front(&mut self, name: HeaderName<'_>, value: impl AsRef<str>) {
        let at = self.take_front(name, |_| {}).unwrap_or(self.fields.len());
        let field = self.make(name, value.as_ref());
        self.fields.insert(at, field);
    }

    /// Replaces the body, its Content-Type and (when printed) Content-Length. An empty `content_type`
    /// removes that header.
    pub fn set_body(&mut self, content_type: &str, body: impl Into<Bytes>) {
        let body = body.into();
        if content_type.is_empty() {
            self.remove(HeaderName::ContentType);
        } else {
            self.set(HeaderName::ContentType, content_type);
        }
        if self.first(HeaderName::ContentLength).is_some() {
            self.set(HeaderName::ContentLength, body.len().to_string());
        }
        self.body = OnceLock::from(body);
        self.edited = true;
        self.length_kept = false;
    }

    /// Room for a few edits at once, so that most messages allocate for them once.
    fn reserve(&mut self, more: usize) {
        if self.edits.capacity() - self.edits.len() < more {
            self.edits.reserve(more.max(512));
        }
    }

    /// A field in the edits. A line end or NUL in the value becomes a space: no value can make a header of
    /// its own. A character that may not stand in a name becomes `-`.
    fn make(&mut self, header: HeaderName<'_>, value: &str) -> Field {
        self.make_of_bytes(header, value.as_bytes())
    }

    /// As [`Self::make`], for values that need not be text.
    pub(super) fn make_of_bytes(&mut self, header: HeaderName<'_>, value: &[u8]) -> Field {
        let id = header.id();
        self.touch(id);
        let start = self.edits.len();
        let name_len = match header {
            HeaderName::Other(written) => {
                // Longer names than 16 bits count are ours to begin with; cut, they stay a name.
                let written = &written.as_bytes()[..written.len().min(u16::MAX as usize)];
                self.reserve(written.len() + value.len() + 4);
                let token = |&b: &u8| if lex::is_token_byte(b) { b } else { b'-' };
                self.edits.extend(written.iter().map(token));
                written.len()
            }
            known => {
                let written = known.as_str().as_bytes();
                self.reserve(written.len() + value.len() + 4);
                self.edits.extend_from_slice(written);
                written.len()
            }
        };
        self.edits.extend_from_slice(b": ");
        let mid = self.edits.len();
        let value = trim_ends(value);
        if lex::find_control(value).is_none() {
            self.edits.extend_from_slice(value);
        } else {
            let keep_nul = nul_is_quoted(value);
            let unfit = |b: u8| matches!(b, b'\r' | b'\n') || (b == 0 && !keep_nul);
            let clean = |&b: &u8| if unfit(b) { b' ' } else { b };
            self.edits.extend(value.iter().map(clean));
        }
        let end = self.edits.len();
        self.edits.extend_from_slice(b"\r\n");
        Field {
            id,
            place: Place::Edit,
            name_len: u16::try_from(name_len).unwrap_or(u16::MAX),
            line: Span::new(start, end + 2),
            value: Span::new(mid, end),
        }
    }

    /// A field of that name is added, changed or removed: the message is printed anew, and perhaps with
    /// another Content-Length.
    fn touch(&mut self, id: name::Id) {
        self.edited = true;
        self.length_kept &= id != HeaderName::ContentLength.index();
    }

    /// Index of the first field of that name.
    fn first(&self, name: HeaderName<'_>) -> Option<usize> {
        self.find(name, name.id(), 0)
    }

    fn retain_from(&mut self, mut from: usize, name: HeaderName<'_>) {
        let id = name.id();
        while let Some(at) = self.find(name, id, from) {
            self.fields.remove(at);
            from = at;
        }
    }

    /// Removes the first value of that name and hands it to `with`; where in the list of fields it was.
    /// Empty fields in front of it go too.
    fn take_front(&mut self, name: HeaderName<'_>, with: impl FnOnce(&str)) -> Option<usize> {
        let id = name.id();
        let single = name::is_single(id);
        while let Some(at) = self.first(name) {
            self.touch(id);
            let field = self.fields[at];
            let Ok(value) = std::str::from_utf8(self.value_bytes(&field)) else {
                // Not text: nothing to return, and nothing to split.
                self.fields.remove(at);
                return Some(at);
            };
            if value.is_empty() {
                self.fields.remove(at);
                continue;
            }
            let mut items = Commas::new(value);
            let first = if single {
                items.remaining()
            } else {
                items.next()
            };
            with(first.unwrap_or(""));
            match items.remaining() {
                Some(rest) if !single && !rest.is_empty() => {
                    let skipped = value.len() - rest.len();
                    self.shorten(at, skipped);
                }
                _ => {
                    self.fields.remove(at);
                }
            }
            return Some(at);
        }
        None
    }

    /// Leaves out the first `skipped` bytes of a field's value: a known name in its long form, another as it
    /// was written.
    fn shorten(&mut self, at: usize, skipped: usize) {
        let old = self.fields[at];
        let value = self.value_bytes(&old);
        let (name, rest) = (self.name_bytes(&old), &value[skipped..]);
        let line = [name, b": ", rest, b"\r\n"].concat();
        let start = self.edits.len();
        let (mid, end) = (start + name.len() + 2, start + line.len());
        self.edits.extend_from_slice(&line);
        self.fields[at] = Field {
            place: Place::Edit,
            line: Span::new(start, end),
            value: Span::new(mid, end - 2),
            ..old
        };
    }
}

/// Without white space, line ends and NULs at either end.
fn trim_ends(mut value: &[u8]) -> &[u8] {
    let empty = |b: u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0);
    while let [b, rest @ ..] = value
        && empty(*b)
    {
        value = rest;
    }
    while let [rest @ .., b] = value
        && empty(*b)
    {
        value = rest;
    }
    value
}
