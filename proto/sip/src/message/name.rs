//! Names of header fields.

use crate::lex;

/// Declares [`HeaderName`] and its tables from one list: variant, long form, compact form.
macro_rules! names {
    ($($variant:ident = $long:literal $(| $compact:literal)?),+ $(,)?) => {
        /// Names a header field. Known ones in long and compact form compare equal (RFC 3261 §7.3.3);
        /// others go by [`HeaderName::Other`], case-insensitively.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        #[non_exhaustive]
        pub enum HeaderName<'a> {
            $($variant,)+
            Other(&'a str),
        }

        /// The long forms, by [`Id`].
        const LONG: &[&str] = &[$($long),+];
        /// The compact forms (IANA, RFC 3261 §7.3.3), by [`Id`]; 0 where there is none.
        const COMPACT: &[u8] = &[$(names!(@compact $($compact)?)),+];

        impl<'a> HeaderName<'a> {
            const KNOWN: &'static [HeaderName<'static>] = &[$(HeaderName::$variant),+];

            /// Position of a known name in the tables; [`OTHER`] for `Other`.
            #[inline]
            pub(super) const fn index(self) -> Id {
                /// The same variants without fields, so that they number themselves.
                enum Index { $($variant),+ }
                match self {
                    $(Self::$variant => Index::$variant as Id,)+
                    Self::Other(_) => OTHER,
                }
            }
        }
    };
    (@compact) => { 0 };
    (@compact $c:literal) => { $c };
}

names! {
    Accept = "Accept",
    AcceptContact = "Accept-Contact" | b'a',
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    AlertInfo = "Alert-Info",
    Allow = "Allow",
    AllowEvents = "Allow-Events" | b'u',
    AuthenticationInfo = "Authentication-Info",
    Authorization = "Authorization",
    CallId = "Call-ID" | b'i',
    CallInfo = "Call-Info",
    Contact = "Contact" | b'm',
    ContentDisposition = "Content-Disposition",
    ContentEncoding = "Content-Encoding" | b'e',
    ContentLanguage = "Content-Language",
    ContentLength = "Content-Length" | b'l',
    ContentType = "Content-Type" | b'c',
    CSeq = "CSeq",
    Date = "Date",
    ErrorInfo = "Error-Info",
    Event = "Event" | b'o',
    Expires = "Expires",
    FlowTimer = "Flow-Timer",
    From = "From" | b'f',
    Identity = "Identity" | b'y',
    IdentityInfo = "Identity-Info" | b'n',
    InReplyTo = "In-Reply-To",
    MaxForwards = "Max-Forwards",
    MimeVersion = "MIME-Version",
    MinExpires = "Min-Expires",
    MinSe = "Min-SE",
    Organization = "Organization",
    PAssertedIdentity = "P-Asserted-Identity",
    PPreferredIdentity = "P-Preferred-Identity",
    Path = "Path",
    Priority = "Priority",
    Privacy = "Privacy",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyRequire = "Proxy-Require",
    RAck = "RAck",
    Reason = "Reason",
    RecordRoute = "Record-Route",
    ReferTo = "Refer-To" | b'r',
    ReferredBy = "Referred-By" | b'b',
    RejectContact = "Reject-Contact" | b'j',
    Replaces = "Replaces",
    ReplyTo = "Reply-To",
    RequestDisposition = "Request-Disposition" | b'd',
    Require = "Require",
    RetryAfter = "Retry-After",
    Route = "Route",
    RSeq = "RSeq",
    Server = "Server",
    ServiceRoute = "Service-Route",
    SessionExpires = "Session-Expires" | b'x',
    SipEtag = "SIP-ETag",
    SipIfMatch = "SIP-If-Match",
    Subject = "Subject" | b's',
    SubscriptionState = "Subscription-State",
    Supported = "Supported" | b'k',
    Timestamp = "Timestamp",
    To = "To" | b't',
    Unsupported = "Unsupported",
    UserAgent = "User-Agent",
    Via = "Via" | b'v',
    Warning = "Warning",
    WwwAuthenticate = "WWW-Authenticate",
}

/// Number of names known.
pub(super) const COUNT: usize = LONG.len();

/// A known name as a small number: index into the tables.
pub(super) type Id = u8;

/// Every name that is not known.
pub(super) const OTHER: Id = u8::MAX;

/// Bytes of a name as words, zeros behind its end. No known name is longer.
type Words = [u64; 3];

/// Most bytes a name in [`Words`] has.
const WORDS_LEN: usize = 24;

#[inline]
const fn words(bytes: &[u8; WORDS_LEN]) -> Words {
    // Exactly three.
    let (words, _) = bytes.as_chunks::<8>();
    [
        u64::from_le_bytes(words[0]),
        u64::from_le_bytes(words[1]),
        u64::from_le_bytes(words[2]),
    ]
}

/// `name`, which must not be longer than [`WORDS_LEN`], with zeros behind it.
const fn padded(name: &[u8]) -> [u8; WORDS_LEN] {
    let mut bytes = [0; WORDS_LEN];
    let mut i = 0;
    while i < name.len() {
        bytes[i] = name[i];
        i += 1;
    }
    bytes
}

/// The long forms as words.
static LONG_WORDS: [Words; COUNT] = {
    let mut table = [[0; 3]; COUNT];
    let mut i = 0;
    while i < COUNT {
        table[i] = words(&padded(LONG[i].as_bytes()));
        i += 1;
    }
    table
};

/// Known names in a hash table with open addressing, made at compile time: nearly always one look-up and
/// one comparison a header line.
static BUCKETS: [Id; 256] = buckets();

/// Chosen so that today's names do not collide; a name added later may, and is probed for.
const MULTIPLIER: u64 = 0x14af_1f57_8b02_d635;

/// Whatever the case of the letters.
const fn hash(words: &Words) -> u8 {
    const CASE: u64 = 0x2020_2020_2020_2020;
    let mixed =
        (words[0] | CASE) ^ (words[1] | CASE).rotate_left(7) ^ (words[2] | CASE).rotate_left(13);
    (mixed.wrapping_mul(MULTIPLIER) >> 56) as u8
}

const fn buckets() -> [Id; 256] {
    let mut table = [OTHER; 256];
    let mut i = 0;
    while i < LONG.len() {
        let mut slot = hash(&words(&padded(LONG[i].as_bytes())));
        while table[slot as usize] != OTHER {
            slot = slot.wrapping_add(1);
        }
        table[slot as usize] = i as Id;
        i += 1;
    }
    table
}

/// The compact forms by letter, in lower and in upper case.
static BY_LETTER: [Id; 256] = {
    let mut table = [OTHER; 256];
    let mut i = 0;
    while i < COMPACT.len() {
        if COMPACT[i] != 0 {
            table[COMPACT[i] as usize] = i as Id;
            table[COMPACT[i].to_ascii_uppercase() as usize] = i as Id;
        }
        i += 1;
    }
    table
};

/// The known name these words are the long form of; the same as bytes in `name`.
#[inline]
fn lookup(words: Words, name: &[u8]) -> Id {
    let slot = hash(&words);
    let id = BUCKETS[slot as usize];
    match LONG_WORDS.get(id as usize) {
        // As the RFC spells it, mostly. A NUL looks like the end in words, but not in the length.
        Some(long) if *long == words && LONG[id as usize].len() == name.len() => id,
        Some(_) => probe(slot, name),
        None => OTHER,
    }
}

/// [`lookup`] from `slot` on, in any case of letters.
fn probe(mut slot: u8, name: &[u8]) -> Id {
    loop {
        let id = BUCKETS[slot as usize];
        if id == OTHER || LONG[id as usize].as_bytes().eq_ignore_ascii_case(name) {
            return id;
        }
        slot = slot.wrapping_add(1);
    }
}

/// The known name these bytes spell, in long or compact form and any case; [`OTHER`] where none.
pub(super) fn id_of(name: &[u8]) -> Id {
    match name {
        [c] => BY_LETTER[*c as usize],
        [] => OTHER,
        _ if name.len() > WORDS_LEN => OTHER,
        _ => lookup(words(&padded(name)), name),
    }
}

/// The name at the start of a line and its length; `None` where what is there is no name with its colon right
/// behind it. `text` may go on beyond the line.
#[inline]
pub(super) fn leading(text: &[u8]) -> Option<(Id, usize)> {
    let Some(bytes) = text.first_chunk::<WORDS_LEN>() else {
        return leading_rare(text);
    };
    let [a, b, c] = words(bytes);
    // The bytes of a word in front of its first hit.
    let before = |word: u64, hits: u64| word & (hits ^ (hits - 1)) >> 8;
    let hits = lex::hits(a, b':');
    let (len, words) = if hits != 0 {
        (lex::first_hit(hits), [before(a, hits), 0, 0])
    } else {
        let hits = lex::hits(b, b':');
        if hits != 0 {
            (8 + lex::first_hit(hits), [a, before(b, hits), 0])
        } else {
            let hits = lex::hits(c, b':');
            if hits == 0 {
                return leading_rare(text);
            }
            (16 + lex::first_hit(hits), [a, b, before(c, hits)])
        }
    };
    match lookup(words, &bytes[..len]) {
        OTHER => leading_rare(text),
        id => Some((id, len)),
    }
}

/// As [`leading`]: a compact name, an unknown one, one longer than all known ones, and one so near the end of
/// the message that no words can be read.
fn leading_rare(text: &[u8]) -> Option<(Id, usize)> {
    let len = lex::token_len(text);
    (len > 0 && len <= u16::MAX as usize && text.get(len) == Some(&b':'))
        .then(|| (id_of(&text[..len]), len))
}

/// The long form of a known name; empty for [`OTHER`].
pub(super) fn long(id: Id) -> &'static str {
    LONG.get(id as usize).copied().unwrap_or("")
}

/// Names of RFC 3261 itself.
pub(super) fn in_rfc3261(id: Id) -> bool {
    use HeaderName as H;
    HeaderName::KNOWN.get(id as usize).is_some_and(|name| {
        matches!(
            name,
            H::Accept
                | H::AcceptEncoding
                | H::AcceptLanguage
                | H::AlertInfo
                | H::Allow
                | H::AuthenticationInfo
                | H::Authorization
                | H::CallId
                | H::CallInfo
                | H::Contact
                | H::ContentDisposition
                | H::ContentEncoding
                | H::ContentLanguage
                | H::ContentLength
                | H::ContentType
                | H::CSeq
                | H::Date
                | H::ErrorInfo
                | H::Expires
                | H::From
                | H::InReplyTo
                | H::MaxForwards
                | H::MimeVersion
                | H::MinExpires
                | H::Organization
                | H::Priority
                | H::ProxyAuthenticate
                | H::ProxyAuthorization
                | H::ProxyRequire
                | H::RecordRoute
                | H::ReplyTo
                | H::Require
                | H::RetryAfter
                | H::Route
                | H::Server
                | H::Subject
                | H::Supported
                | H::Timestamp
                | H::To
                | H::Unsupported
                | H::UserAgent
                | H::Via
                | H::Warning
                | H::WwwAuthenticate
        )
    })
}

/// Headers whose value is one, commas and all (RFC 3261 §7.3.1, §20): they are never split.
pub(super) fn is_single(id: Id) -> bool {
    use HeaderName as H;
    HeaderName::KNOWN.get(id as usize).is_some_and(|name| {
        matches!(
            name,
            H::Authorization
                | H::CallId
                | H::CSeq
                | H::ContentLength
                | H::ContentType
                | H::Date
                | H::Event
                | H::From
                | H::Identity
                | H::MaxForwards
                | H::Organization
                | H::ProxyAuthenticate
                | H::ProxyAuthorization
                | H::ReferTo
                | H::ReferredBy
                | H::Replaces
                | H::RetryAfter
                | H::Server
                | H::SessionExpires
                | H::Subject
                | H::SubscriptionState
                | H::To
                | H::UserAgent
                | H::WwwAuthenticate
        )
    })
}

impl<'a> HeaderName<'a> {
    /// The name these characters spell: long or compact, in any case.
    #[must_use]
    pub fn of(name: &'a str) -> Self {
        Self::KNOWN
            .get(id_of(name.as_bytes()) as usize)
            .map_or(Self::Other(name), |&known| known)
    }

    /// The long form, or the characters of [`HeaderName::Other`].
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        match *self {
            Self::Other(name) => name,
            known => long(known.id()),
        }
    }

    /// Position in the tables. `Other` with the characters of a known name is that name.
    #[inline]
    pub(super) fn id(self) -> Id {
        match self {
            Self::Other(name) => id_of(name.as_bytes()),
            known => known.index(),
        }
    }

    /// The known name with that id; `Other("")` for [`OTHER`].
    pub(super) fn by_id(id: Id) -> HeaderName<'static> {
        HeaderName::KNOWN
            .get(id as usize)
            .copied()
            .unwrap_or(HeaderName::Other(""))
    }
}

impl std::fmt::Display for HeaderName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_in_its_compact_form() {
        for (i, long) in LONG.iter().enumerate() {
            for spelling in [
                (*long).to_owned(),
                long.to_ascii_lowercase(),
                long.to_ascii_uppercase(),
            ] {
                assert_eq!(id_of(spelling.as_bytes()) as usize, i, "{spelling}");
            }
            assert_eq!(HeaderName::KNOWN[i].id() as usize, i);
            assert_eq!(HeaderName::of(long).as_str(), *long);
            if COMPACT[i] != 0 {
                assert_eq!(id_of(&[COMPACT[i].to_ascii_uppercase()]) as usize, i);
            }
        }
    }

    #[test]
    fn a_line_begins_with_its_name_wherever_the_message_ends() {
        for name in LONG
            .iter()
            .chain(&["i", "X-Y", "An-Unknown-Name-Longer-Than-All"])
        {
            for name in [(*name).to_owned(), name.to_ascii_lowercase()] {
                let found = Some((id_of(name.as_bytes()), name.len()));
                for behind in ["", " 1\r\n\r\n", " 1:2\r\nVia: SIP/2.0/UDP h\r\n"] {
                    assert_eq!(leading(format!("{name}:{behind}").as_bytes()), found);
                    assert_eq!(leading(format!("{name} :{behind}").as_bytes()), None);
                    assert_eq!(leading(format!(":{name}{behind}").as_bytes()), None);
                }
            }
        }
        // The words of a name end in zeros; the name does not.
        assert_eq!(leading(b"Via\0: 1                      "), None);
        // Not letters that differ in case, though their bytes differ as those do.
        assert_eq!(leading(b"Call\rID: 1                      "), None);
        assert_eq!(leading(b"CSeq                            "), None);
    }

    #[test]
    fn unknown_names_stay_themselves() {
        for name in ["X-Custom", "z", "", "Vias", "Vi", "Via\0", "\0", "!"] {
            assert_eq!(HeaderName::of(name), HeaderName::Other(name));
        }
        assert_eq!(HeaderName::Other("v").id(), HeaderName::Via.id());
    }
}
