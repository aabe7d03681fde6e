//! What a message carries (RFC 3261 §7.4, RFC 5621): the body of a type that is understood, alone or in a multipart
//! body (RFC 2046 §5.1).
//!
//! What is not understood is an error where it must be understood, which is the default, and passed over where its
//! Content-Disposition says `handling=optional` (RFC 3261 §8.2.3, §20.11).

use memchr::memmem;

use crate::header::ParamsRef;
use crate::lex;
use crate::message::{HeaderName, Message};

/// Most parts read of one message, those within parts included.
const MAX_PARTS: usize = 16;

/// How deep multipart bodies are read within each other.
const MAX_DEPTH: usize = 3;

/// Longest boundary (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// Why a body cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It must be understood, and its type or disposition is not: 415 with Accept.
    #[error("a body of a type that is not taken here")]
    Type,
    /// It must be understood, and is encoded: 415 with Accept-Encoding.
    #[error("an encoded body")]
    Encoding,
    /// 400.
    #[error("{0}")]
    Malformed(&'static str),
}

/// The body of type `wanted` (lower case, without parameters) and of that disposition, which is what it has where
/// none is given. `None` where there is none and nothing else that must be understood.
///
/// # Errors
/// Something must be understood that is not, or the structure is broken.
pub fn find<'a>(
    message: &'a Message,
    wanted: &str,
    disposition: &str,
) -> Result<Option<&'a [u8]>, Unusable> {
    if message.body().is_empty() {
        return Ok(None);
    }
    let text = |name| message.header(name).unwrap_or("").to_owned();
    let head = Head {
        content_type: text(HeaderName::ContentType),
        disposition: text(HeaderName::ContentDisposition),
        encoding: text(HeaderName::ContentEncoding),
        transfer_encoding: String::new(),
    };
    Search {
        wanted,
        disposition,
        parts: 0,
    }
    .entity(&head, message.body(), 0)
}

/// The headers that say what a body is.
#[derive(Default)]
struct Head {
    content_type: String,
    disposition: String,
    encoding: String,
    transfer_encoding: String,
}

/// `value;parameters`, the value in lower case and without blanks.
fn split(header: &str) -> (String, &str) {
    let at = header.find(';').unwrap_or(header.len());
    let mut value = header[..at].to_ascii_lowercase();
    value.retain(|c| !matches!(c, ' ' | '\t'));
    (value, &header[at..])
}

fn param(params: &str, name: &str) -> Option<String> {
    let params = ParamsRef::parse(params).ok()?.to_params();
    params.get(name).map(ToOwned::to_owned)
}

impl Head {
    fn is_optional(&self) -> bool {
        let (_, params) = split(&self.disposition);
        param(params, "handling").is_some_and(|value| value.eq_ignore_ascii_case("optional"))
    }

    fn is_encoded(&self) -> bool {
        let (content, transfer) = (self.encoding.trim(), self.transfer_encoding.trim());
        let plain = |value: &str, forms: &[&str]| {
            value.is_empty() || forms.iter().any(|form| value.eq_ignore_ascii_case(form))
        };
        !plain(content, &["identity"]) || !plain(transfer, &["7bit", "8bit", "binary"])
    }
}

struct Search<'w> {
    wanted: &'w str,
    disposition: &'w str,
    parts: usize,
}

impl Search<'_> {
    fn entity<'a>(
        &mut self,
        head: &Head,
        data: &'a [u8],
        depth: usize,
    ) -> Result<Option<&'a [u8]>, Unusable> {
        match self.understand(head, data, depth) {
            Err(Unusable::Type | Unusable::Encoding) if head.is_optional() => Ok(None),
            outcome => outcome,
        }
    }

    fn understand<'a>(
        &mut self,
        head: &Head,
        data: &'a [u8],
        depth: usize,
    ) -> Result<Option<&'a [u8]>, Unusable> {
        let (kind, params) = split(&head.content_type);
        let (disposition, _) = split(&head.disposition);
        if head.is_encoded() {
            Err(Unusable::Encoding)
        } else if let Some(subtype) = kind.strip_prefix("multipart/") {
            if depth == MAX_DEPTH {
                return Err(Unusable::Malformed("multipart bodies in too deep a nest"));
            }
            let boundary = param(params, "boundary")
                .filter(|boundary| (1..=MAX_BOUNDARY).contains(&boundary.len()))
                .ok_or(Unusable::Malformed("multipart body without a boundary"))?;
            let parts = self.split_parts(data, &boundary)?;
            if subtype == "alternative" {
                self.alternative(&parts, depth)
            } else {
                // Other subtypes are treated as mixed (RFC 2046 §5.1.3).
                self.mixed(&parts, depth)
            }
        } else if kind == self.wanted && (disposition.is_empty() || disposition == self.disposition)
        {
            Ok(Some(data))
        } else {
            Err(Unusable::Type)
        }
    }

    /// Every part counts (RFC 5621 §3.1).
    fn mixed<'a>(
        &mut self,
        parts: &[&'a [u8]],
        depth: usize,
    ) -> Result<Option<&'a [u8]>, Unusable> {
        let mut found = None;
        for part in parts {
            let (head, data) = read_part(part)?;
            if let Some(data) = self.entity(&head, data, depth + 1)?
                && found.replace(data).is_some()
            {
                return Err(Unusable::Malformed("two bodies where one is expected"));
            }
        }
        Ok(found)
    }

    /// The last part that is understood counts (RFC 2046 §5.1.4).
    fn alternative<'a>(
        &mut self,
        parts: &[&'a [u8]],
        depth: usize,
    ) -> Result<Option<&'a [u8]>, Unusable> {
        let mut outcome = Err(Unusable::Type);
        for part in parts {
            let (head, data) = read_part(part)?;
            match self.understand(&head, data, depth + 1) {
                Err(Unusable::Type | Unusable::Encoding) => {}
                Ok(found) => outcome = Ok(found),
                malformed => return malformed,
            }
        }
        outcome
    }

    /// What is between the delimiter lines (RFC 2046 §5.1.1); text in front of the first and behind the last is not
    /// for anybody.
    fn split_parts<'a>(
        &mut self,
        data: &'a [u8],
        boundary: &str,
    ) -> Result<Vec<&'a [u8]>, Unusable> {
        let delimiter = format!("--{boundary}");
        let mut parts = Vec::new();
        let mut begin = None;
        for at in memmem::find_iter(data, delimiter.as_bytes()) {
            if at > 0 && data[at - 1] != b'\n' {
                continue;
            }
            let rest = &data[at + delimiter.len()..];
            let last = rest.starts_with(b"--");
            let line = rest.iter().position(|b| *b == b'\n');
            let tail = &rest[..line.unwrap_or(rest.len())];
            // Another boundary may begin with this one.
            if !last && !tail.iter().all(|b| b" \t\r".contains(b)) {
                continue;
            }
            if let Some(begin) = begin {
                self.parts += 1;
                if self.parts > MAX_PARTS {
                    return Err(Unusable::Malformed("a body of too many parts"));
                }
                // The line break belongs to the delimiter.
                let part: &[u8] = data.get(begin..at).unwrap_or_default();
                let part = part.strip_suffix(b"\n").unwrap_or(part);
                parts.push(part.strip_suffix(b"\r").unwrap_or(part));
            }
            if last {
                return if parts.is_empty() {
                    Err(Unusable::Malformed("multipart body without parts"))
                } else {
                    Ok(parts)
                };
            }
            begin = Some(at + delimiter.len() + line.map_or(rest.len(), |line| line + 1));
        }
        Err(Unusable::Malformed("multipart body without its end"))
    }
}

/// Headers and content of a part.
fn read_part(part: &[u8]) -> Result<(Head, &[u8]), Unusable> {
    let mut head = Head::default();
    let mut fields: Vec<String> = Vec::new();
    let mut rest = part;
    loop {
        let end = memchr::memchr(b'\n', rest);
        let line = &rest[..end.unwrap_or(rest.len())];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = end.map_or(&[][..], |end| &rest[end + 1..]);
        if line.is_empty() {
            break;
        }
        let line = std::str::from_utf8(line)
            .map_err(|_| Unusable::Malformed("headers of a part that are not text"))?;
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => field.push_str(line),
            _ => fields.push(line.to_owned()),
        }
    }
    for field in &fields {
        let (name, value) = field
            .split_once(':')
            .ok_or(Unusable::Malformed("a header of a part without its colon"))?;
        let value = lex::trim(value).to_owned();
        match lex::trim(name).to_ascii_lowercase().as_str() {
            "content-type" => head.content_type = value,
            "content-disposition" => head.disposition = value,
            "content-encoding" => head.encoding = value,
            "content-transfer-encoding" => head.transfer_encoding = value,
            _ => {}
        }
    }
    Ok((head, rest))
}

#[cfg(test)]
mod tests;
