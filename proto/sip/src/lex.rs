//! The lexical ground of SIP's grammar (RFC 3261 §25.1), over unfolded text.

/// Byte classes, one bit each, so that a scan is one table look-up a byte.
const TOKEN: u8 = 1;
/// What a parameter value may hold unquoted: everything visible that cannot end the value. Wider than
/// `token / host`, because deployed branches, tags and flow tokens are, and still without ambiguity.
const VALUE: u8 = 2;
/// What needs no quotes when we write it: `token / host`.
const PLAIN_VALUE: u8 = 4;
/// `user` of a SIP URI, without the escapes; `#` is not in the grammar, but telephones dial it.
const USER: u8 = 8;
/// `password` of a SIP URI, without the escapes.
const PASSWORD: u8 = 16;
/// `paramchar` of a SIP URI, without the escapes.
const URI_PARAM: u8 = 32;
/// `hname`, `hvalue` of a SIP URI, without the escapes.
const URI_HEADER: u8 = 64;
/// `host` as a name or an IPv4 address; `_` is not in the grammar, but in many a DNS zone.
const HOST: u8 = 128;

static CLASS: [u8; 256] = classes();

const fn mark(table: &mut [u8; 256], set: &[u8], bits: u8) {
    let mut i = 0;
    while i < set.len() {
        table[set[i] as usize] |= bits;
        i += 1;
    }
}

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut b = 0x21;
    while b < 0x7f {
        if !matches!(b, b'"' | b'<' | b'>' | b',' | b';') {
            table[b as usize] |= VALUE;
        }
        if b.is_ascii_alphanumeric() {
            table[b as usize] |=
                TOKEN | PLAIN_VALUE | USER | PASSWORD | URI_PARAM | URI_HEADER | HOST;
        }
        b += 1;
    }
    mark(&mut table, b"-.!%*_+`'~", TOKEN | PLAIN_VALUE);
    mark(&mut table, b"[]:", PLAIN_VALUE);
    mark(
        &mut table,
        b"-_.!~*'()",
        USER | PASSWORD | URI_PARAM | URI_HEADER,
    );
    mark(&mut table, b"&=+$,;?/#", USER);
    mark(&mut table, b"&=+$,", PASSWORD);
    mark(&mut table, b"[]/:&+$", URI_PARAM);
    mark(&mut table, b"[]/?:+$", URI_HEADER);
    mark(&mut table, b"-._", HOST);
    table
}

const fn is(b: u8, bits: u8) -> bool {
    CLASS[b as usize] & bits != 0
}

fn all(s: &str, bits: u8) -> bool {
    run(s.as_bytes(), bits) == s.len()
}

/// Length of the run of bytes of the class at the start of `s`. Eight at a time, so that not every byte asks
/// whether the text has ended.
#[inline]
fn run(s: &[u8], bits: u8) -> usize {
    let (chunks, tail) = s.as_chunks::<8>();
    let mut at = 0;
    for chunk in chunks {
        for (i, b) in chunk.iter().enumerate() {
            if !is(*b, bits) {
                return at + i;
            }
        }
        at += 8;
    }
    for b in tail {
        if !is(*b, bits) {
            break;
        }
        at += 1;
    }
    at
}

/// Length of the run of bytes of the class, and of `%HH` escapes, at the start of `s`.
#[inline]
fn run_escaped(s: &[u8], bits: u8) -> usize {
    let mut at = run(s, bits);
    while s.get(at) == Some(&b'%') && hex_pair(s, at + 1).is_some() {
        at += 3;
        at += run(&s[at..], bits);
    }
    at
}

const fn splat(b: u8) -> u64 {
    u64::from_ne_bytes([b; 8])
}

/// Which bytes of a word are `b`: the lowest bit set is in the first of them. Nothing is said of those
/// behind it.
#[inline]
pub(crate) const fn hits(word: u64, b: u8) -> u64 {
    let zero = word ^ splat(b);
    zero.wrapping_sub(splat(1)) & !zero & splat(0x80)
}

/// Index of the first byte of a little-endian word that [`hits`] tells.
#[inline]
pub(crate) const fn first_hit(hits: u64) -> usize {
    (hits.trailing_zeros() / 8) as usize
}

/// Index of the first control character, tabs among them (0x7f not).
#[inline]
pub(crate) fn find_control(s: &[u8]) -> Option<usize> {
    let (blocks, tail) = s.as_chunks::<16>();
    let mut at = 0;
    for block in blocks {
        // Without a branch a byte, so that it becomes a few instructions.
        if block.iter().fold(false, |any, b| any | (*b < b' ')) {
            let (words, _) = block.as_chunks::<8>();
            let below = |word: [u8; 8]| {
                let word = u64::from_le_bytes(word);
                word.wrapping_sub(splat(b' ')) & !word & splat(0x80)
            };
            let low = below(words[0]);
            return Some(if low != 0 {
                at + first_hit(low)
            } else {
                at + 8 + first_hit(below(words[1]))
            });
        }
        at += 16;
    }
    let i = tail.iter().position(|b| *b < b' ')?;
    Some(at + i)
}

/// Index of the first byte that is one of `of`. For texts of some tens of bytes, where calling a searcher
/// made for long ones costs more than the search.
#[inline]
pub(crate) fn find<const N: usize>(s: &[u8], of: [u8; N]) -> Option<usize> {
    let any = |chunk: &[u8; 8]| {
        let word = u64::from_le_bytes(*chunk);
        of.iter().fold(0, |all, b| all | hits(word, *b))
    };
    let (chunks, tail) = s.as_chunks::<8>();
    let mut at = 0;
    for chunk in chunks {
        let hits = any(chunk);
        if hits != 0 {
            return Some(at + first_hit(hits));
        }
        at += 8;
    }
    let i = tail.iter().position(|b| of.contains(b))?;
    Some(at + i)
}

/// Length of what may be `user` at the start of `s`.
pub(crate) fn user_len(s: &str) -> usize {
    run_escaped(s.as_bytes(), USER)
}

/// Length of what may be `password`.
pub(crate) fn password_len(s: &str) -> usize {
    run_escaped(s.as_bytes(), PASSWORD)
}

/// Length of what may be the name or value of a URI parameter.
pub(crate) fn uri_param_len(s: &[u8]) -> usize {
    run_escaped(s, URI_PARAM)
}

/// Length of what may be the name or value of a URI header.
pub(crate) fn uri_header_len(s: &[u8]) -> usize {
    run_escaped(s, URI_HEADER)
}

/// Length of the token at the start of `s`.
pub(crate) fn token_len(s: &[u8]) -> usize {
    run(s, TOKEN)
}

pub(crate) fn is_token_byte(b: u8) -> bool {
    is(b, TOKEN)
}

pub(crate) fn is_token(s: &str) -> bool {
    !s.is_empty() && all(s, TOKEN)
}

/// Whether a parameter value may stand without quotes when we write it.
pub(crate) fn is_plain_value(s: &str) -> bool {
    !s.is_empty() && all(s, PLAIN_VALUE)
}

/// A byte that may stand in `user` as it is.
pub(crate) fn is_user_byte(b: u8) -> bool {
    is(b, USER)
}

/// Length of the host name or IPv4 address at the start of `s`.
pub(crate) fn host_name_len(s: &[u8]) -> usize {
    run(s, HOST)
}

/// The byte that two hex digits at `at` stand for.
pub(crate) fn hex_pair(s: &[u8], at: usize) -> Option<u8> {
    let digit = |b: u8| (b as char).to_digit(16);
    let high = digit(*s.get(at)?)?;
    let low = digit(*s.get(at + 1)?)?;
    u8::try_from(high * 16 + low).ok()
}

pub(crate) const fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

// The texts are short: plain loops over bytes beat the searchers of `str`.

/// Without spaces and tabs at either end.
pub(crate) fn trim(s: &str) -> &str {
    let s = trim_start(s);
    let bytes = s.as_bytes();
    let mut end = bytes.len();
    while end > 0 && is_blank(bytes[end - 1]) {
        end -= 1;
    }
    &s[..end]
}

/// Without spaces and tabs in front.
pub(crate) fn trim_start(s: &str) -> &str {
    let bytes = s.as_bytes();
    let mut start = 0;
    while start < bytes.len() && is_blank(bytes[start]) {
        start += 1;
    }
    &s[start..]
}

/// What is before and behind the first `at`, an ASCII byte.
pub(crate) fn split(s: &str, at: u8) -> Option<(&str, &str)> {
    debug_assert!(at.is_ascii());
    let i = find(s.as_bytes(), [at])?;
    Some((&s[..i], &s[i + 1..]))
}

/// What follows `first`, an ASCII byte, where `s` begins with it.
pub(crate) fn strip(s: &str, first: u8) -> Option<&str> {
    debug_assert!(first.is_ascii());
    (s.as_bytes().first() == Some(&first)).then(|| &s[1..])
}

/// Whether `s` begins with `name`, whatever the case of letters.
#[inline]
pub(crate) fn begins_with(s: &[u8], name: &[u8]) -> bool {
    let Some(start) = s.get(..name.len()) else {
        return false;
    };
    // Most that differ do in the first letter, and most that do not are spelt the same.
    start.first().map(|b| b | 0x20) == name.first().map(|b| b | 0x20)
        && (start == name || start.eq_ignore_ascii_case(name))
}

/// `s` begins with a quotation mark: the index behind the closing one.
pub(crate) fn quoted_end(s: &[u8]) -> Option<usize> {
    let mut i = 1;
    loop {
        i += find(s.get(i..)?, [b'"', b'\\', b'\r', b'\n'])?;
        match s[i] {
            b'"' => return Some(i + 1),
            b'\\' if !matches!(s.get(i + 1), Some(b'\r' | b'\n')) => i += 2,
            // CR and LF are not allowed, not even escaped (§25.1 quoted-pair).
            _ => return None,
        }
    }
}

/// The text of a quoted string given without its quotation marks.
pub(crate) fn unquote(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// Writes `s` as a quoted string. CR and LF cannot stand in one, not even escaped: they are left out.
pub(crate) fn write_quoted(f: &mut impl std::fmt::Write, s: &str) -> std::fmt::Result {
    f.write_char('"')?;
    for c in s.chars() {
        match c {
            '"' | '\\' | '\0' => {
                f.write_char('\\')?;
                f.write_char(c)?;
            }
            '\r' | '\n' => {}
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A parameter value at the start of `s`: its length, quotation marks included. `None`: a quoted string
/// that never ends.
pub(crate) fn value_len(s: &[u8]) -> Option<usize> {
    if s.first() == Some(&b'"') {
        return quoted_end(s);
    }
    Some(bare_value_len(s))
}

/// As [`value_len`], where it is not quoted: 0 where it is.
pub(crate) fn bare_value_len(s: &[u8]) -> usize {
    run(s, VALUE)
}

/// Index of the first byte from `at` on that is neither space nor tab.
pub(crate) fn skip_blanks(s: &[u8], mut at: usize) -> usize {
    while at < s.len() && is_blank(s[at]) {
        at += 1;
    }
    at
}

/// Where the comma is that ends the first item of a list: commas in quotation marks and in angle
/// brackets do not count (RFC 3261 §7.3.1).
fn comma(s: &[u8]) -> Option<usize> {
    // Most lists are of one.
    find(s, [b','])?;
    let mut i = 0;
    while i < s.len() {
        match s[i] {
            b',' => return Some(i),
            b'"' => i += quoted_end(&s[i..])?,
            b'<' => i += find(&s[i..], [b'>'])? + 1,
            _ => i += 1,
        }
    }
    None
}

/// The items of a comma list, trimmed. An empty list has none; an item between two commas may be empty.
#[derive(Clone, Debug)]
pub(crate) struct Commas<'a> {
    rest: Option<&'a str>,
}

impl<'a> Commas<'a> {
    pub(crate) fn new(list: &'a str) -> Self {
        let list = trim(list);
        Self {
            rest: (!list.is_empty()).then_some(list),
        }
    }

    /// The whole text as the only item.
    pub(crate) fn remaining(&self) -> Option<&'a str> {
        self.rest
    }
}

impl<'a> Iterator for Commas<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let s = self.rest?;
        // A comma is ASCII, so that the halves are whole characters.
        if let Some(at) = comma(s.as_bytes()) {
            self.rest = Some(trim(&s[at + 1..]));
            Some(trim(&s[..at]))
        } else {
            self.rest = None;
            Some(s)
        }
    }
}

/// Length of the run of digits at the start of `s`.
pub(crate) fn digits_len(s: &[u8]) -> usize {
    s.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Digits only, in 64 bits; numbers beyond saturate, so that "too large" can be told from "not a number".
pub(crate) fn digits(s: &[u8]) -> Option<u64> {
    let number = s.iter().try_fold(0u64, |n, b| {
        let digit = b.wrapping_sub(b'0');
        (digit < 10).then(|| n.saturating_mul(10).saturating_add(u64::from(digit)))
    })?;
    (!s.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_do_not_split() {
        let items: Vec<_> =
            Commas::new(r#""a, \", b" <sip:x,y@z> , <sip:b?c=d,e>;p="," ,sip:c"#).collect();
        assert_eq!(
            items,
            [
                r#""a, \", b" <sip:x,y@z>"#,
                r#"<sip:b?c=d,e>;p=",""#,
                "sip:c"
            ]
        );
        assert_eq!(Commas::new(" ").count(), 0);
        assert_eq!(Commas::new(",").collect::<Vec<_>>(), ["", ""]);
    }

    #[test]
    fn an_open_quote_swallows_the_rest_of_the_list() {
        assert_eq!(
            Commas::new(r#"a, "b, c"#).collect::<Vec<_>>(),
            ["a", r#""b, c"#]
        );
    }

    #[test]
    fn huge_numbers_saturate_instead_of_wrapping() {
        assert_eq!(digits(b"4294967301"), Some(4_294_967_301));
        assert_eq!(digits(b"99999999999999999999999"), Some(u64::MAX));
        assert_eq!(digits(b"-1"), None);
        assert_eq!(digits(b""), None);
    }

    proptest! {
        #[test]
        fn searches_find_the_first(
            s in prop::collection::vec(prop::sample::select(&b"ab;\"\r\n\t\0\x1f \x7f\x80\xff;<"[..]), 0..50)
                .prop_flat_map(|s| (Just(s), 0usize..40))
                .prop_map(|(s, plain)| [vec![b'a'; plain], s].concat()),
        ) {
            let first = |of: &[u8]| s.iter().position(|b| of.contains(b));
            prop_assert_eq!(find(&s, [b';']), first(b";"));
            prop_assert_eq!(find(&s, [b'"', b'<', b'\n']), first(b"\"<\n"));
            prop_assert_eq!(find_control(&s), s.iter().position(|b| *b < 32));
            prop_assert_eq!(
                token_len(&s),
                s.iter().position(|b| !is_token_byte(*b)).unwrap_or(s.len())
            );
        }
    }
}
