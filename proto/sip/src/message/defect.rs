//! What is wrong with a message that was framed: the syntax of what every element must read.

use super::{Defect, Field, HeaderName, Kind, MAX_VALUES, Message, Method, Place, name};
use crate::header::{HeaderError, NameAddrRef, ViaRef, split_cseq};
use crate::lex::{self, Commas};
use crate::uri::UriRef;

/// A 400 with that reason.
const fn bad(reason: &'static str) -> Defect {
    Defect::new(400, reason)
}

/// Headers that must be there (RFC 3261 §8.1.1). Max-Forwards is not among them: RFC 2543 did not know it
/// (§16.3 item 3; RFC 4475 §3.4.1).
const MANDATORY: [(HeaderName<'static>, &str); 5] = [
    (HeaderName::Via, "Via missing"),
    (HeaderName::From, "From missing"),
    (HeaderName::To, "To missing"),
    (HeaderName::CallId, "Call-ID missing"),
    (HeaderName::CSeq, "CSeq missing"),
];

/// Headers that may be there once only (§7.3.1; RFC 4475 §3.3.8). Content-Length is checked with the framing.
const SINGLE: [(HeaderName<'static>, &str); 10] = [
    (HeaderName::From, "more than one From"),
    (HeaderName::To, "more than one To"),
    (HeaderName::CallId, "more than one Call-ID"),
    (HeaderName::CSeq, "more than one CSeq"),
    (HeaderName::MaxForwards, "more than one Max-Forwards"),
    (HeaderName::ContentType, "more than one Content-Type"),
    (HeaderName::Expires, "more than one Expires"),
    (HeaderName::Event, "more than one Event"),
    (HeaderName::SessionExpires, "more than one Session-Expires"),
    (HeaderName::ReferTo, "more than one Refer-To"),
];

/// A bit for each name that must or may only once be there, by [`name::Id`]; 0 for all others.
static BITS: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < MANDATORY.len() {
        table[MANDATORY[i].0.index() as usize] = 1 << i;
        i += 1;
    }
    i = 0;
    while i < SINGLE.len() {
        let bit = &mut table[SINGLE[i].0.index() as usize];
        if *bit == 0 {
            *bit = 1 << (MANDATORY.len() + i);
        }
        i += 1;
    }
    table
};

const fn bits<const N: usize>(names: &[(HeaderName<'static>, &str); N]) -> u16 {
    let mut bits = 0;
    let mut i = 0;
    while i < N {
        bits |= BITS[names[i].0.index() as usize];
        i += 1;
    }
    bits
}

/// All of [`MANDATORY`].
const MUST: u16 = bits(&MANDATORY);
/// All of [`SINGLE`].
const ONCE: u16 = bits(&SINGLE);

/// Values of one header, counted over all its fields.
#[derive(Default)]
struct Counts {
    via: usize,
    contact: usize,
    route: usize,
}

impl Message {
    /// The first thing wrong with the message by RFC 3261 (and 4475's lessons), or `None`: mandatory
    /// headers, single headers doubled, numbers out of range, Content-Length against the body, CSeq
    /// method against the request method, SIP version, white space before a colon, bare CR or LF, NUL in
    /// the head, malformed Via/From/To/Contact/Route...
    ///
    /// White space before the colon of a header of RFC 3261 is no defect: its grammar has it. Such a field
    /// is printed without.
    ///
    /// In a response it says why to drop it.
    #[must_use]
    pub fn defect(&self) -> Option<Defect> {
        if let Some((status, reason)) = self.framing {
            return Some(Defect::new(status, reason));
        }
        self.check().err()
    }

    fn check(&self) -> Result<(), Defect> {
        self.check_counts()?;
        let mut counts = Counts::default();
        // Looked at once for all fields, where it is text as a whole.
        let head = self.raw.get(..self.head_end as usize);
        let head = head.and_then(|head| std::str::from_utf8(head).ok());
        for field in &self.fields {
            if field.id != name::OTHER {
                self.check_field(field, head, &mut counts)?;
            }
        }
        if counts.via == 0 {
            return Err(bad("Via missing"));
        }
        match self.kind {
            Kind::Request => self.check_request_uri(),
            Kind::Response(_) => Ok(()),
        }
    }

    fn check_counts(&self) -> Result<(), Defect> {
        let (mut seen, mut twice) = (0, 0);
        for field in &self.fields {
            let bit = BITS[field.id as usize];
            twice |= seen & bit;
            seen |= bit;
        }
        if seen & MUST == MUST && twice & ONCE == 0 {
            return Ok(());
        }
        let has = |names: u16, name: HeaderName<'_>| names & BITS[name.index() as usize] != 0;
        for (name, reason) in MANDATORY {
            if !has(seen, name) {
                return Err(bad(reason));
            }
        }
        for (name, reason) in SINGLE {
            if has(twice, name) {
                return Err(bad(reason));
            }
        }
        Ok(())
    }

    /// `head`: the received one, where it is text.
    fn check_field(
        &self,
        field: &Field,
        head: Option<&str>,
        counts: &mut Counts,
    ) -> Result<(), Defect> {
        use HeaderName as H;
        let in_head = || match field.place {
            Place::Raw => head?.get(field.value.start as usize..field.value.end as usize),
            Place::Unfolded | Place::Edit => None,
        };
        let value = || in_head().map_or_else(|| std::str::from_utf8(self.value_bytes(field)), Ok);
        match HeaderName::by_id(field.id) {
            H::Via => check_vias(
                value().map_err(|_| bad("Via is not UTF-8"))?,
                &mut counts.via,
            ),
            H::From => check_party(
                value().map_err(|_| bad("From is not UTF-8"))?,
                "malformed From",
                "bad URI in From",
            ),
            H::To => check_party(
                value().map_err(|_| bad("To is not UTF-8"))?,
                "malformed To",
                "bad URI in To",
            ),
            H::CallId => check_call_id(self.value_bytes(field)),
            H::CSeq => self.check_cseq(value().map_err(|_| bad("CSeq is not UTF-8"))?),
            H::MaxForwards => check_max_forwards(self.value_bytes(field)),
            H::Contact => self.check_contacts(
                value().map_err(|_| bad("Contact is not UTF-8"))?,
                &mut counts.contact,
            ),
            H::Route | H::RecordRoute | H::Path | H::ServiceRoute => check_routes(
                value().map_err(|_| bad("Route is not UTF-8"))?,
                &mut counts.route,
            ),
            H::Expires | H::MinExpires => check_digits(self.value_bytes(field)),
            _ => Ok(()),
        }
    }

    fn check_cseq(&self, value: &str) -> Result<(), Defect> {
        match split_cseq(value) {
            Err(HeaderError::Malformed(_, "number out of range")) => {
                Err(bad("CSeq number out of range"))
            }
            Err(_) => Err(bad("malformed CSeq")),
            // Not equal to the method of the start line; of a response it is the method.
            Ok((_, method)) if method != self.method.as_str() => {
                Err(bad("CSeq method is not the method of the request"))
            }
            Ok(_) => Ok(()),
        }
    }

    fn check_contacts(&self, value: &str, count: &mut usize) -> Result<(), Defect> {
        each(value, NameAddrRef::parse, |contact| {
            let address = contact.map_err(|what| {
                bad(match what {
                    "URI needs angle brackets" => "Contact URI needs angle brackets",
                    _ => "malformed Contact",
                })
            })?;
            *count += 1;
            if *count > MAX_VALUES {
                return Err(bad("too many Contact values"));
            }
            if address.is_star() {
                // §10.2.2: only to remove all bindings.
                if self.method != Method::Register || !self.is_request() {
                    return Err(bad("Contact * outside REGISTER"));
                }
            } else {
                UriRef::parse(address.uri).map_err(|_| bad("bad URI in Contact"))?;
            }
            Ok(())
        })
    }

    fn check_request_uri(&self) -> Result<(), Defect> {
        let text = self.request_uri();
        if text.starts_with('<') {
            return Err(bad("Request-URI in angle brackets"));
        }
        let uri = UriRef::parse(text).map_err(|_| bad("bad Request-URI"))?;
        if !uri.is_sip() && !uri.scheme.eq_ignore_ascii_case("tel") {
            // §8.2.2.1, §16.3 item 2.
            return Err(Defect::new(416, "only sip, sips and tel URIs are served"));
        }
        if uri.headers.is_some() {
            // §19.1.1 table 1; RFC 4475 §3.1.2.11.
            return Err(bad("headers in the Request-URI"));
        }
        Ok(())
    }
}

fn check_vias(value: &str, count: &mut usize) -> Result<(), Defect> {
    each(value, ViaRef::parse, |via| {
        via.map_err(|_| bad("malformed Via"))?;
        *count += 1;
        if *count > MAX_VALUES {
            return Err(bad("too many Via values"));
        }
        Ok(())
    })
}

/// Hands what `parse` makes of each value of a list to `check`. A text that parses as one value has no comma
/// that separates: it is not searched for one.
fn each<'a, T, E>(
    list: &'a str,
    parse: fn(&'a str) -> Result<T, E>,
    mut check: impl FnMut(Result<T, E>) -> Result<(), Defect>,
) -> Result<(), Defect> {
    match parse(list) {
        Ok(one) => check(Ok(one)),
        Err(_) => Commas::new(list).try_for_each(|value| check(parse(value))),
    }
}

fn check_party(value: &str, malformed: &'static str, bad_uri: &'static str) -> Result<(), Defect> {
    let address = NameAddrRef::parse(value).map_err(|_| bad(malformed))?;
    UriRef::parse(address.uri).map_err(|_| bad(bad_uri))?;
    match address.tag() {
        // A tag is a token (§25.1): it has a value, and no quotation marks.
        Some(tag) if tag.is_empty() || tag.starts_with('"') => Err(bad(malformed)),
        _ => Ok(()),
    }
}

/// `word [ "@" word ]`: visible characters without white space (§25.1).
fn check_call_id(value: &[u8]) -> Result<(), Defect> {
    // Without a branch a byte, so that it becomes a few instructions.
    let visible = value
        .iter()
        .fold(true, |all, b| all & (0x21..0x7f).contains(b));
    if value.is_empty() || !visible {
        return Err(bad("malformed Call-ID"));
    }
    Ok(())
}

/// §20.22: 0 to 255.
fn check_max_forwards(value: &[u8]) -> Result<(), Defect> {
    match lex::digits(value) {
        None => Err(bad("Max-Forwards is not a number")),
        Some(0..=255) => Ok(()),
        Some(_) => Err(bad("Max-Forwards out of range")),
    }
}

/// Out of range is no defect: a malformed expiry is taken for a default (§20.19, §10.3).
fn check_digits(value: &[u8]) -> Result<(), Defect> {
    match lex::digits(value) {
        None => Err(bad("Expires is not a number")),
        Some(_) => Ok(()),
    }
}

/// §20.30, §20.34: name-addr only.
fn check_routes(value: &str, count: &mut usize) -> Result<(), Defect> {
    each(value, NameAddrRef::parse, |route| {
        let address = route.map_err(|_| bad("malformed Route"))?;
        if !address.bracketed {
            return Err(bad("Route URI needs angle brackets"));
        }
        UriRef::parse(address.uri).map_err(|_| bad("bad URI in Route"))?;
        *count += 1;
        if *count > MAX_VALUES {
            return Err(bad("too many Route values"));
        }
        Ok(())
    })
}
