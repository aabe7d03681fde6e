//! The index of a message with nothing unusual in its head, as nearly every one is: every line ended by CRLF,
//! none folded, no white space in front of a colon, no NUL, a start line by the book. One look at each line;
//! the first surprise ends it, and [`super::parse`] begins anew with all it knows of faults and rewriting.
//! What is indexed here is what it would index, and without a fault.

use super::parse::{Index, StartParts};
use super::{Field, Kind, Limits, Method, Place, Span, name};
use crate::lex;

/// Indexes a head with nothing unusual in it. `head` may go on beyond it.
pub(super) fn index(head: &[u8], limits: &Limits) -> Option<Index> {
    let first = line(head)?;
    let start = start_line(&head[..first])?;
    let start_end = first + 2;
    let mut fields = Vec::with_capacity(24);
    let head_end = read_fields(head, start_end, limits.headers, &mut fields)?;
    Some(Index {
        kind: start.kind,
        method: start.method,
        text: start.text,
        start: Place::Raw,
        start_end,
        head_end,
        fields,
        edits: Vec::new(),
        fault: None,
        rewritten: false,
        cut: false,
    })
}

/// Appends the fields from `at` on to `fields`; where the body begins.
fn read_fields(head: &[u8], mut at: usize, most: usize, fields: &mut Vec<Field>) -> Option<usize> {
    loop {
        let text = &head[at..];
        if text.starts_with(b"\r\n") {
            return Some(at + 2);
        }
        if fields.len() >= most {
            return None;
        }
        let (id, name_len) = name::leading(text)?;
        let colon = name_len + 1;
        let value = &text[colon..];
        let mut end = line(value)?;
        let next = at + colon + end + 2;
        let mut start = 0;
        // A line ends with a CR, which is no space.
        while value[start] == b' ' {
            start += 1;
        }
        while end > start && value[end - 1] == b' ' {
            end -= 1;
        }
        fields.push(Field {
            id,
            place: Place::Raw,
            // `leading` finds no longer ones.
            name_len: u16::try_from(name_len).ok()?,
            line: Span::new(at, next),
            value: Span::new(at + colon + start, at + colon + end),
        });
        at = next;
    }
}

/// Length of the text up to the line's CRLF. `None` where a control character is in it: tabs are allowed,
/// but rare.
#[inline]
fn line(s: &[u8]) -> Option<usize> {
    let end = lex::find_control(s)?;
    s[end..].starts_with(b"\r\n").then_some(end)
}

/// A start line with nothing to complain of.
fn start_line(line: &[u8]) -> Option<StartParts> {
    let Some(request) = line.strip_suffix(b" SIP/2.0") else {
        return StartParts::parse(line)
            .ok()
            .filter(|start| start.fault.is_none());
    };
    let method_len = lex::token_len(request);
    let uri = request[method_len..].strip_prefix(b" ")?;
    if method_len == 0 || uri.is_empty() || lex::find(uri, [b' ']).is_some() {
        return None;
    }
    Some(StartParts {
        kind: Kind::Request,
        method: Method::from_bytes(&request[..method_len])?,
        text: Span::new(method_len + 1, request.len()),
        fault: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADS: [&str; 2] = [
        "INVITE sip:bob@example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n\
         f: \"A\" <sip:a@example.com>;tag=1\r\n\
         TO:<sip:bob@example.com>\r\n\
         Call-ID:  x@192.0.2.1  \r\n\
         X-A-Name-That-Is-Longer-Than-All-Known: 1\r\n\
         CSeq: 1 INVITE\r\n\
         Subject:\r\n\
         l: 4\r\n\
         \r\n\
         a\r\nb",
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nP-Preferred-Identity: x\r\n\r\n",
    ];

    /// Everything [`Index`] says.
    fn told(index: &Index) -> String {
        let fields: Vec<_> = index
            .fields
            .iter()
            .map(|f| (f.id, f.place, f.name_len, f.line, f.value))
            .collect();
        format!(
            "{:?} {:?} {:?} {:?} {} {} {fields:?} {:?} {:?} {} {}",
            index.kind,
            index.method,
            index.text,
            index.start,
            index.start_end,
            index.head_end,
            index.edits,
            index.fault,
            index.rewritten,
            index.cut,
        )
    }

    #[test]
    fn the_common_message_is_indexed_in_one_look() {
        for head in HEADS {
            assert!(index(head.as_bytes(), &Limits::default()).is_some());
        }
    }

    #[test]
    fn anything_unusual_is_left_to_the_thorough_parser() {
        for (what, instead) in [
            ("CSeq: 1", "CSeq : 1"),
            ("CSeq: 1", "CSeq: 1\r\n "),
            ("CSeq: 1", "CSeq: \0 1"),
            ("CSeq: 1", "CSeq: \r 1"),
            ("INVITE\r\n", "INVITE\n"),
            ("CSeq: 1", "C\u{e9}eq: 1"),
            ("CSeq: 1 INVITE", "no colon"),
            ("CSeq: 1 INVITE", ": no name"),
            ("INVITE sip:bob@", "INVITE sip:b ob@"),
            ("INVITE sip:bob@", "INVITE  sip:bob@"),
            (" SIP/2.0\r\nVia", " SIP/3.0\r\nVia"),
            ("\r\n\r\n", "\r\n"),
        ] {
            let head = HEADS[0].replacen(what, instead, 1);
            assert_ne!(head, HEADS[0]);
            assert!(
                index(head.as_bytes(), &Limits::default()).is_none(),
                "{head}"
            );
        }
    }

    #[test]
    fn a_header_beyond_the_limit_is_left_to_the_thorough_parser() {
        let limits = |headers| Limits {
            headers,
            ..Limits::default()
        };
        assert!(index(HEADS[1].as_bytes(), &limits(2)).is_some());
        assert!(index(HEADS[1].as_bytes(), &limits(1)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn one_look_finds_what_the_thorough_parser_finds(
            which in 0..HEADS.len(),
            changes in prop::collection::vec((
                any::<prop::sample::Index>(),
                0usize..3,
                prop::sample::select(vec![
                    "", "\r", "\n", "\r\n", "\t", " ", "\0", ":", ";", "a", "\u{e9}", "\x01", "\x7f",
                    " SIP/2.0", "\r\n ", "To", "\r\nv:", "Route: <sip:h;lr>\r\n",
                ]),
            ), 0..3),
        ) {
            let mut head = HEADS[which].as_bytes().to_vec();
            for (at, cut, insert) in changes {
                let at = at.index(head.len());
                head.splice(at..head.len().min(at + cut), insert.bytes());
            }
            if let Some(quick) = index(&head, &Limits::default()) {
                let thorough = Index::of(&head, false, &Limits::default()).unwrap();
                prop_assert_eq!(told(&quick), told(&thorough));
                prop_assert!(quick.fault.is_none());
            }
        }
    }
}
