//! Building requests and responses.

use std::sync::OnceLock;

use bytes::Bytes;

use super::{HeaderName, Kind, Message, Method, Place, Span, StatusCode};
use crate::header::NameAddrRef;

impl Message {
    /// A request with only its start line; headers are appended in the order of the calls.
    #[must_use]
    pub fn request(method: Method, uri: &str) -> Self {
        let mut message = Self::empty(Kind::Request, method);
        message.set_request_uri(uri);
        message
    }

    /// A response to `request`: Via list, From, To, Call-ID, CSeq copied (RFC 3261 §8.2.6.2), in a 100 also
    /// Timestamp (§8.2.6.1); with `to_tag` added to To where it has none and the status is above 100.
    /// `reason` `None`: the standard one.
    #[must_use]
    pub fn response(
        request: &Message,
        status: StatusCode,
        reason: Option<&str>,
        to_tag: Option<&str>,
    ) -> Self {
        let mut message = Self::empty(Kind::Response(status), request.method.clone());
        message.set_start_text(reason.unwrap_or(status.reason()), |b| {
            !matches!(b, b'\r' | b'\n' | 0)
        });
        let tag = to_tag.filter(|_| status.get() > 100);
        let copied = [
            HeaderName::Via,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ];
        for name in copied {
            let id = name.id();
            for field in request.fields.iter().filter(|f| f.id == id) {
                message.copy(name, request.value_bytes(field), tag);
                if name != HeaderName::Via {
                    // A request with two of them is refused; one answer carries one.
                    break;
                }
            }
        }
        if status.get() == 100
            && let Some(timestamp) = request.header(HeaderName::Timestamp)
        {
            message.push_back(HeaderName::Timestamp, timestamp);
        }
        message
    }

    fn empty(kind: Kind, method: Method) -> Self {
        Self {
            raw: Bytes::new(),
            edits: Vec::new(),
            fields: Vec::with_capacity(16),
            kind,
            method,
            text: Span::default(),
            start: Place::Edit,
            start_end: 0,
            head_end: 0,
            body: OnceLock::new(),
            edited: true,
            length_kept: false,
            framing: None,
        }
    }

    /// Appends a received value as it is, also one that is not text; To with `tag`, where it has none.
    fn copy(&mut self, name: HeaderName<'_>, value: &[u8], tag: Option<&str>) {
        let untagged = |to: &[u8]| {
            // A To that cannot be read gets no tag: where it would go is unknown.
            std::str::from_utf8(to)
                .ok()
                .and_then(|to| NameAddrRef::parse(to).ok())
                .is_some_and(|to| to.tag().is_none())
        };
        let field = match tag {
            Some(tag) if name == HeaderName::To && untagged(value) => {
                self.make_of_bytes(name, &[value, b";tag=", tag.as_bytes()].concat())
            }
            _ => self.make_of_bytes(name, value),
        };
        self.fields.push(field);
    }
}
