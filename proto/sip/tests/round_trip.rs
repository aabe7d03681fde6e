//! Properties that hold for any message, not only for those somebody thought of.

use bytes::Bytes;
use proptest::prelude::*;
use sip::frame::{Frame, Framer};
use sip::header::{NameAddr, Via};
use sip::{HeaderName, Limits, Message, Uri};

fn parse(bytes: impl Into<Bytes>) -> Result<Message, sip::ParseError> {
    Message::parse(bytes.into(), &Limits::default())
}

/// A header line: a known or unknown name in any spelling, any text, folded now and then.
fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[A-Za-z][A-Za-z0-9.!%*_+`'~-]{0,20}",
        prop::sample::select(vec![
            "Subject",
            "s",
            "ROUTE",
            "record-route",
            "k",
            "Contact",
            "WARNING"
        ])
        .prop_map(str::to_owned),
    ];
    let text = "[ -~\u{a1}-\u{17f}]{0,40}";
    (
        name,
        "[ \t]{0,2}",
        text,
        prop::option::of("\r\n[ \t]{1,3}[!-~]{1,10}"),
    )
        .prop_filter("its own Content-Length", |(name, ..)| {
            HeaderName::of(name) != HeaderName::ContentLength
        })
        .prop_map(|(name, space, text, fold)| {
            format!("{name}:{space}{text}{}\r\n", fold.unwrap_or_default())
        })
}

/// A message whose framing is right, whatever its headers say.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        ("[A-Z]{1,10}", "sips?:[a-z0-9]{1,8}@[a-z.]{1,12}")
            .prop_map(|(m, u)| format!("{m} {u} SIP/2.0\r\n")),
        (100u16..700, "[ -~]{0,20}").prop_map(|(c, r)| format!("SIP/2.0 {c} {r}\r\n")),
    ];
    (
        start,
        prop::collection::vec(line(), 0..12),
        prop::collection::vec(any::<u8>(), 0..200),
        prop::sample::select(vec![
            "Content-Length: ",
            "l:",
            "CONTENT-LENGTH:\t",
            "Content-Length:\r\n ",
        ]),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(start, mut lines, body, name, at)| {
            let length = format!("{name}{}\r\n", body.len());
            lines.insert(at.index(lines.len() + 1), length);
            let mut out = start.into_bytes();
            out.extend(lines.concat().into_bytes());
            out.extend(b"\r\n");
            out.extend(body);
            out
        })
}

proptest! {
    // Cases that failed become tests by name, not files.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_unedited_message_prints_as_it_was_received(bytes in message()) {
        let m = parse(bytes.clone()).unwrap();
        prop_assert_eq!(m.to_bytes(), bytes);
    }

    #[test]
    fn an_edit_changes_its_own_line_only(bytes in message(), value in "[!-~]{1,20}") {
        let mut m = parse(bytes.clone()).unwrap();
        m.push_back(HeaderName::Other("X-Last"), &value);
        let line = format!("X-Last: {value}\r\n");
        let out = m.to_bytes();
        let head = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 2;
        prop_assert!(out[..head].ends_with(line.as_bytes()));
        let rest = [&out[..head - line.len()], &out[head..]].concat();
        prop_assert_eq!(&rest, &bytes);
        m.remove(HeaderName::Other("x-last"));
        prop_assert_eq!(m.to_bytes(), bytes);
    }

    #[test]
    fn what_is_printed_after_any_edits_parses_and_says_the_same(
        bytes in message(),
        edits in prop::collection::vec((0..7u8, ".{0,20}", "\\PC{0,20}|[\r\n\0 -~]{0,20}"), 0..8),
    ) {
        let mut m = parse(bytes).unwrap();
        for (kind, name, value) in &edits {
            let name = if kind % 2 == 0 { HeaderName::Other(name) } else { HeaderName::Route };
            // Names that begin with nothing would be no header.
            if name.as_str().is_empty() { continue }
            match kind {
                0 | 1 => m.set(name, value),
                2 | 3 => m.push_front(name, value),
                4 => m.push_back(name, value),
                5 => { m.pop_front(name); }
                _ => m.set_front(name, value),
            }
        }
        let again = parse(m.to_bytes()).unwrap();
        prop_assert_eq!(again.body(), m.body());
        prop_assert_eq!(again.start_line(), m.start_line());
        let of = |m: &Message| m
            .fields()
            .filter(|(n, _)| HeaderName::of(n) != HeaderName::ContentLength)
            .map(|(n, v)| (n.to_owned(), v.to_vec()))
            .collect::<Vec<_>>();
        prop_assert_eq!(of(&again), of(&m));
        prop_assert_eq!(again.to_bytes(), m.to_bytes());
    }

    #[test]
    fn no_bytes_make_it_panic_and_framer_and_parser_agree(
        bytes in prop::collection::vec(
            prop_oneof![
                4 => prop::sample::select(b"\r\n :;,<>\"\\\0\tlLcCvVsSiIpP/2.0@[]".to_vec()),
                1 => any::<u8>(),
            ],
            0..300,
        ),
        start in prop::bool::ANY,
    ) {
        let mut all = if start { b"INVITE sip:a@b SIP/2.0\r\nl: 5\r\n".to_vec() } else { Vec::new() };
        all.extend(bytes);
        if let Ok(mut m) = parse(all.clone()) {
            let _ = m.defect();
            let _ = (m.from(), m.to(), m.cseq(), m.top_via(), m.contacts(), m.content_type());
            m.push_front(HeaderName::Via, "SIP/2.0/UDP h");
            let again = parse(m.to_bytes()).unwrap();
            prop_assert_eq!(again.body(), m.body());
        }
        let mut framer = Framer::new(Limits::default());
        framer.push(&all);
        while let Ok(Some(frame)) = framer.next_frame() {
            if let Frame::Message(cut) = frame
                && let Ok(m) = parse(cut.clone())
            {
                // What the framer took for one message is one, body and all.
                prop_assert!(cut.ends_with(m.body()));
                prop_assert!(
                    m.defect().is_some_and(|d| d.reason.contains("header"))
                        || cut.len() == m.to_bytes().len()
                        || m.defect().is_some()
                );
            }
        }
    }

    #[test]
    fn a_printed_uri_parses_to_an_equal_one(
        s in "(sip|sips|SIP):([a-zA-Z0-9;?/&=+$,*'()~_.!-]{1,10}(:[a-z&=+$,0-9]{0,5})?@)?([a-z0-9.-]{1,10}|\\[2001:db8::[0-9a-f]{1,4}\\])(:[0-9]{1,4})?(;[a-z]{1,5}(=[a-z0-9%41]{0,0}[a-z0-9]{1,5})?){0,3}(\\?[a-z]{1,4}=[a-z0-9]{0,4}(&[a-z]{1,4}=[a-z]{0,4})?)?",
    ) {
        let uri = Uri::parse(&s).unwrap();
        let again = Uri::parse(&uri.to_string()).unwrap();
        prop_assert_eq!(uri.to_string(), again.to_string());
        prop_assert_eq!(&uri.aor(), &again.aor());
        // Twice the same parameter with two values is equal to nothing.
        let mut names: Vec<_> = uri.params.iter().map(|p| &p.0).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() == uri.params.len() {
            prop_assert_eq!(uri, again);
        }
    }

    #[test]
    fn any_text_makes_an_address_of_record_that_is_its_own(user in "\\PC{1,12}", host in "[a-z]{1,8}") {
        let uri = Uri::sip(&user, &host);
        let again = Uri::parse(&uri.to_string()).unwrap();
        prop_assert_eq!(&uri, &again);
        prop_assert_eq!(Uri::parse(&uri.aor()).unwrap().aor(), uri.aor());
        if !user.contains('%') {
            prop_assert_eq!(again.user_decoded(), Some(user));
        }
    }

    #[test]
    fn a_printed_address_parses_to_the_same(
        display in "\\PC{0,20}",
        tag in "[a-zA-Z0-9.-]{1,10}",
        value in "\\PC{1,10}",
    ) {
        let mut a = NameAddr::new(Uri::sip("a", "b"));
        a.display.clone_from(&display);
        a.params.set("tag", Some(&tag));
        a.params.set("+x", Some(&value));
        a.params.set("ob", None);
        let again = NameAddr::parse(&a.to_string()).unwrap();
        prop_assert_eq!(again.display, display);
        prop_assert_eq!(again.params, a.params);
    }

    #[test]
    fn a_printed_via_parses_to_the_same(
        s in "SIP/2\\.0/(UDP|TLS|WSS|X-Y) (h[a-z.-]{0,8}|\\[::1\\])(:[1-9][0-9]{0,3})?;branch=z9hG4bK[a-z0-9.-]{0,10}(;rport(=[0-9]{1,4})?)?(;received=192\\.0\\.2\\.1)?",
    ) {
        let via = Via::parse(&s).unwrap();
        prop_assert_eq!(via.to_string(), s);
    }
}
