//! Reading: everything is parsed when it is asked for, edits included.

use bytes::Bytes;

use super::{
    Field, HeaderName, Kind, MAX_VALUES, Message, Method, Place, StartLine, StatusCode, name,
};
use crate::header::{CSeq, HeaderError, NameAddr, NameAddrRef, Via, ViaRef};
use crate::lex::{self, Commas};

/// UTF-8 or nothing.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

impl Message {
    /// Whether it is a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.kind, Kind::Request)
    }

    /// Method of the request, or of the CSeq for a response (`Method::Other("")` when unreadable).
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Request-URI as it stands, edits included; empty for a response.
    #[must_use]
    pub fn request_uri(&self) -> &str {
        match self.kind {
            Kind::Request => text(self.start_text()).unwrap_or(""),
            Kind::Response(_) => "",
        }
    }

    /// Status of a response; `None` for a request.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self.kind {
            Kind::Request => None,
            Kind::Response(status) => Some(status),
        }
    }

    /// Reason phrase of a response; empty for a request.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self.kind {
            Kind::Request => "",
            Kind::Response(_) => text(self.start_text()).unwrap_or(""),
        }
    }

    /// The first line, owned.
    #[must_use]
    pub fn start_line(&self) -> StartLine {
        match self.kind {
            Kind::Request => StartLine::Request {
                method: self.method.clone(),
                uri: self.request_uri().to_owned(),
            },
            Kind::Response(status) => StartLine::Response {
                status,
                reason: self.reason().to_owned(),
            },
        }
    }

    /// Request-URI or reason phrase.
    pub(super) fn start_text(&self) -> &[u8] {
        self.text.of(match self.start {
            Place::Raw | Place::Unfolded => &self.raw,
            Place::Edit => &self.edits,
        })
    }

    /// Unfolded and trimmed.
    pub(super) fn value_bytes(&self, field: &Field) -> &[u8] {
        field.value.of(match field.place {
            Place::Raw => &self.raw,
            Place::Unfolded | Place::Edit => &self.edits,
        })
    }

    /// As written.
    pub(super) fn name_bytes(&self, field: &Field) -> &[u8] {
        let line = field.line.of(match field.place {
            Place::Raw | Place::Unfolded => &self.raw,
            Place::Edit => &self.edits,
        });
        line.get(..field.name_len as usize).unwrap_or(&[])
    }

    fn value_text(&self, field: &Field) -> Option<&str> {
        text(self.value_bytes(field))
    }

    /// Every field of that name.
    fn named<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m Field> {
        let id = name.id();
        self.fields
            .iter()
            .filter(move |f| self.is_named(f, name, id))
    }

    /// Whether the field has that name, whose id is `id`.
    #[inline]
    pub(super) fn is_named(&self, field: &Field, name: HeaderName<'_>, id: name::Id) -> bool {
        field.id == id
            && (id != name::OTHER
                || self
                    .name_bytes(field)
                    .eq_ignore_ascii_case(name.as_str().as_bytes()))
    }

    /// Index of the first field from `from` on that has the name, whose id is `id`.
    #[inline]
    pub(super) fn find(&self, name: HeaderName<'_>, id: name::Id, from: usize) -> Option<usize> {
        let mut fields = self.fields.get(from..)?.iter();
        let at = if id == name::OTHER {
            fields.position(|f| self.is_named(f, name, id))
        } else {
            fields.position(|f| f.id == id)
        };
        at.map(|at| from + at)
    }

    /// Value of the first header field of that name, unfolded bytes trimmed; `None` where absent or not UTF-8.
    #[must_use]
    pub fn header(&self, name: HeaderName<'_>) -> Option<&str> {
        self.value_text(&self.fields[self.find(name, name.id(), 0)?])
    }

    /// Values of all header fields of that name, one item a field line (comma lists not split).
    pub fn headers<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m str> {
        self.named(name).filter_map(|f| self.value_text(f))
    }

    /// Values of all header fields of that name, comma lists split (quotes and angle brackets respected).
    /// Headers that are no lists, like From, Date or Authorization, are not split (RFC 3261 §7.3.1).
    pub fn values<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m str> {
        let single = name::is_single(name.id());
        self.headers(name).flat_map(move |v| Values::new(v, single))
    }

    /// Every header field in order, as (name as written, value), edits included.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|f| {
            (
                // Token bytes are ASCII.
                text(self.name_bytes(f)).unwrap_or(""),
                self.value_bytes(f),
            )
        })
    }

    /// Call-ID; empty when absent (a defect).
    #[must_use]
    pub fn call_id(&self) -> &str {
        self.header(HeaderName::CallId).unwrap_or("")
    }

    /// CSeq.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn cseq(&self) -> Result<CSeq, HeaderError> {
        CSeq::parse(self.required(HeaderName::CSeq.index(), "CSeq")?)
    }

    /// From.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn from(&self) -> Result<NameAddr, HeaderError> {
        NameAddr::parse_as("From", self.required(HeaderName::From.index(), "From")?)
    }

    /// To.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn to(&self) -> Result<NameAddr, HeaderError> {
        NameAddr::parse_as("To", self.required(HeaderName::To.index(), "To")?)
    }

    /// From, read in place; its URI is not looked into.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn from_ref(&self) -> Result<NameAddrRef<'_>, HeaderError> {
        NameAddrRef::parse(self.required(HeaderName::From.index(), "From")?)
            .map_err(|what| HeaderError::Malformed("From", what))
    }

    /// To, read in place; its URI is not looked into.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn to_ref(&self) -> Result<NameAddrRef<'_>, HeaderError> {
        NameAddrRef::parse(self.required(HeaderName::To.index(), "To")?)
            .map_err(|what| HeaderError::Malformed("To", what))
    }

    /// The topmost Via.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn top_via(&self) -> Result<Via, HeaderError> {
        self.top_via_ref().map(|v| v.to_via())
    }

    /// The topmost Via, read in place.
    ///
    /// # Errors
    /// Absent or malformed.
    pub fn top_via_ref(&self) -> Result<ViaRef<'_>, HeaderError> {
        let list = self.required(HeaderName::Via.index(), "Via")?;
        // Mostly the field has one value, and what parses as one needs no search for a comma.
        ViaRef::parse(list).or_else(|_| ViaRef::parse(Commas::new(list).next().unwrap_or("")))
    }

    /// Contact values (`*` is a `NameAddr` whose uri is `*`).
    ///
    /// # Errors
    /// One is malformed.
    pub fn contacts(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.addresses(HeaderName::Contact)
    }

    /// A name-addr list header: Route, Record-Route, Path, Service-Route, P-Asserted-Identity, ...
    ///
    /// # Errors
    /// One is malformed, or there are more than 256.
    pub fn addresses(&self, name: HeaderName<'_>) -> Result<Vec<NameAddr>, HeaderError> {
        let id = name.id();
        let header = match name::long(id) {
            "" => "header",
            long => long,
        };
        let malformed = |what| HeaderError::Malformed(header, what);
        let mut all = Vec::new();
        for field in self.fields.iter().filter(|f| self.is_named(f, name, id)) {
            let value = self.value_text(field).ok_or(malformed("not UTF-8"))?;
            for value in Commas::new(value) {
                if all.len() == MAX_VALUES {
                    return Err(malformed("too many values"));
                }
                all.push(NameAddr::parse_as(header, value)?);
            }
        }
        Ok(all)
    }

    /// A header that is one number: Max-Forwards, Expires, Min-Expires, RSeq, ... Of Session-Expires,
    /// Min-SE and Retry-After the number in front of parameters and comments.
    ///
    /// # Errors
    /// Present and not a number up to 2^32-1.
    pub fn number(&self, name: HeaderName<'_>) -> Result<Option<u32>, HeaderError> {
        let id = name.id();
        let Some(at) = self.find(name, id, 0) else {
            return Ok(None);
        };
        let mut value = self.value_bytes(&self.fields[at]);
        if matches!(
            name,
            HeaderName::SessionExpires | HeaderName::MinSe | HeaderName::RetryAfter
        ) {
            let end = value.iter().position(|b| b";( \t".contains(b));
            value = &value[..end.unwrap_or(value.len())];
        }
        let header = match name::long(id) {
            "" => "header",
            long => long,
        };
        let number = lex::digits(value).ok_or(HeaderError::Malformed(header, "not a number"))?;
        u32::try_from(number)
            .map(Some)
            .map_err(|_| HeaderError::Malformed(header, "number out of range"))
    }

    /// Whether a token list header (Supported, Require, Allow, ...) has `token`, case-insensitively.
    #[must_use]
    pub fn has_token(&self, name: HeaderName<'_>, token: &str) -> bool {
        let id = name.id();
        self.fields
            .iter()
            .filter(|f| self.is_named(f, name, id))
            .filter_map(|f| self.value_text(f))
            .flat_map(Commas::new)
            .any(|t| t.eq_ignore_ascii_case(token))
    }

    /// Content-Type without parameters, lower case; empty when absent.
    #[must_use]
    pub fn content_type(&self) -> String {
        let value = self.header(HeaderName::ContentType).unwrap_or("");
        let end = value.find(';').unwrap_or(value.len());
        let mut kind = value[..end].to_ascii_lowercase();
        // `type SLASH subtype`: white space may stand around the slash (§25.1).
        kind.retain(|c| !matches!(c, ' ' | '\t'));
        kind
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.body
            .get_or_init(|| self.raw.slice(self.head_end as usize..))
    }

    /// The body, without making a handle to it.
    pub(super) fn body_bytes(&self) -> &[u8] {
        match self.body.get() {
            Some(body) => body,
            None => &self.raw[self.head_end as usize..],
        }
    }

    /// Length of the body in bytes.
    pub(super) fn body_len(&self) -> usize {
        self.body_bytes().len()
    }

    /// `id`: of a known name.
    fn required(&self, id: name::Id, long: &'static str) -> Result<&str, HeaderError> {
        let field = self
            .fields
            .iter()
            .find(|f| f.id == id)
            .ok_or(HeaderError::Missing(long))?;
        self.value_text(field)
            .ok_or(HeaderError::Malformed(long, "not UTF-8"))
    }
}

/// The values of one field: its items, or itself.
#[derive(Debug)]
enum Values<'a> {
    One(Option<&'a str>),
    Many(Commas<'a>),
}

impl<'a> Values<'a> {
    fn new(value: &'a str, single: bool) -> Self {
        if single {
            Self::One((!value.is_empty()).then_some(value))
        } else {
            Self::Many(Commas::new(value))
        }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match self {
            Self::One(value) => value.take(),
            Self::Many(items) => items.next(),
        }
    }
}
