//! The messages of RFC 4475 and RFC 5118: which are refused, with what, and that all can be lived with.

use std::path::PathBuf;

use bytes::Bytes;
use sip::frame::{Frame, Framer};
use sip::{HeaderName, Limits, Message, ParseError, StatusCode};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing is wrong with its syntax; whether it is served is for others to say.
    Fine,
    /// A request answered with that status.
    Refused(u16),
    /// A response that is dropped: parsed, with a defect.
    Dropped,
    /// Not parsed at all.
    NotSip,
}
use Fate::{Dropped, Fine, NotSip, Refused};

/// RFC 4475, in its order. Where it leaves a choice the comment says which was made.
const RFC4475: &[(&str, Fate)] = &[
    // 3.1.1 Valid messages
    ("wsinv", Fine),
    ("intmeth", Fine),
    ("esc01", Fine),
    ("escnull", Fine),
    ("esc02", Fine),
    ("lwsdisp", Fine),
    ("longreq", Fine),
    ("dblreq", Fine),
    ("semiuri", Fine),
    ("transports", Fine),
    ("mpart01", Fine),
    ("unreason", Fine),
    ("noreason", Fine),
    // 3.1.2 Invalid messages
    ("badinv01", Refused(400)),
    ("clerr", Refused(400)),
    ("ncl", Refused(400)),
    ("scalar02", Refused(400)),
    ("scalarlg", Dropped),
    ("quotbal", Refused(400)),
    ("ltgtruri", Refused(400)),
    ("lwsruri", Refused(400)),
    ("lwsstart", Refused(400)),
    ("trws", Refused(400)),
    // Liberal elements may take it without the escaped headers; we do not guess.
    ("escruri", Refused(400)),
    // A server that makes no use of Date may ignore what is wrong with it.
    ("baddate", Fine),
    ("regbadct", Refused(400)),
    // Liberal elements may ignore the white space; we do not guess.
    ("badaspec", Refused(400)),
    ("baddn", Refused(400)),
    ("badvers", Refused(505)),
    ("mismatch01", Refused(400)),
    // 501 or 400: unknown methods pass through a proxy, a CSeq that lies does not.
    ("mismatch02", Refused(400)),
    ("bigcode", NotSip),
    // 3.2 Transaction layer semantics: the transaction layer may match it by the rules of RFC 2543.
    ("badbranch", Fine),
    // 3.3 Application-layer semantics
    ("insuf", Refused(400)),
    ("unkscm", Refused(416)),
    ("novelsc", Refused(416)),
    // Unknown schemes in To, From and Contact are for the registrar to refuse.
    ("unksm2", Fine),
    ("bext01", Fine),
    ("invut", Fine),
    ("regaut01", Fine),
    ("multi01", Refused(400)),
    ("mcl01", Refused(400)),
    // Dropped by whoever finds that the second Via is not its own.
    ("bcast", Fine),
    ("zeromf", Fine),
    ("cparam01", Fine),
    ("cparam02", Fine),
    ("regescrt", Fine),
    ("sdp01", Fine),
    // 3.4 Backward compatibility
    ("inv2543", Fine),
    // Not of the RFC; came with the set: a request line without a version.
    ("test", NotSip),
];

/// RFC 5118, in its order.
const RFC5118: &[(&str, Fate)] = &[
    ("ipv6-good", Fine),
    ("ipv6-bad", Refused(400)),
    ("port-ambiguous", Fine),
    ("port-unambiguous", Fine),
    ("via-received-param-with-delim", Fine),
    ("via-received-param-no-delim", Fine),
    ("ipv6-in-sdp", Fine),
    ("mult-ip-in-header", Fine),
    ("mult-ip-in-sdp", Fine),
    ("ipv4-mapped-ipv6", Fine),
    // §4.10: the third colon may be ignored.
    ("ipv6-bug-abnf-3-colons", Fine),
    ("ipv6-correct-abnf-2-colons", Fine),
];

/// Fine as datagrams, but Content-Length is missing or less than there is.
const LENGTH_IS_OTHER: [&str; 5] = [
    "inv2543",
    "dblreq",
    "ipv6-in-sdp",
    "mult-ip-in-sdp",
    "ipv4-mapped-ipv6",
];

/// The message files, where they are at hand.
fn torture() -> Option<PathBuf> {
    let shared = std::env::var_os("ROSTRUM_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let dir = shared.join("torture");
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no torture messages: set ROSTRUM_SHARED"
    );
    eprintln!("skipped: no torture messages (set ROSTRUM_SHARED)");
    None
}

fn read(name: &str) -> Option<Bytes> {
    let dir = torture()?;
    let path = if RFC5118.iter().any(|(n, _)| *n == name) {
        dir.join("rfc5118").join(name)
    } else {
        dir.join("rfc4475").join(format!("{name}.dat"))
    };
    Some(
        std::fs::read(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .into(),
    )
}

fn fate(bytes: &Bytes) -> Fate {
    match Message::parse(bytes.clone(), &Limits::default()) {
        Err(ParseError::NotSip(_)) => NotSip,
        Err(e) => panic!("{e}"),
        Ok(m) => match m.defect() {
            None => Fine,
            Some(d) if m.is_request() => Refused(d.status.get()),
            Some(_) => Dropped,
        },
    }
}

/// Every view of a message, also of a broken one.
fn read_everything(m: &Message) {
    let _ = (m.from(), m.to(), m.cseq(), m.top_via(), m.contacts());
    let _ = (
        m.call_id(),
        m.method(),
        m.reason(),
        m.content_type(),
        m.body().len(),
    );
    for (name, value) in m.fields() {
        let name = HeaderName::of(name);
        let _ = (m.number(name), m.addresses(name), value.len());
        let _ = (m.values(name).count(), m.has_token(name, "x"));
    }
}

#[test]
fn every_message_of_rfc_4475_and_5118_meets_its_fate() {
    if torture().is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for (name, expected) in RFC4475.iter().chain(RFC5118) {
        let bytes = read(name).expect("checked above");
        let got = fate(&bytes);
        if got != *expected {
            let why = Message::parse(bytes, &Limits::default()).map(|m| m.defect());
            wrong.push(format!("{name}: {got:?}, not {expected:?}: {why:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tables_name_every_file_there_is() {
    let Some(dir) = torture() else { return };
    for (sub, table, suffix) in [("rfc4475", RFC4475, ".dat"), ("rfc5118", RFC5118, "")] {
        let mut there: Vec<_> = std::fs::read_dir(dir.join(sub))
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort_unstable();
        let mut named: Vec<_> = table.iter().map(|(n, _)| format!("{n}{suffix}")).collect();
        named.sort_unstable();
        assert_eq!(there, named);
    }
}

#[test]
fn every_torture_message_can_be_read_answered_and_edited() {
    if torture().is_none() {
        return;
    }
    for (name, fate) in RFC4475.iter().chain(RFC5118) {
        let bytes = read(name).expect("checked above");
        let Ok(mut m) = Message::parse(bytes, &Limits::default()) else {
            continue;
        };
        read_everything(&m);
        let status = m.defect().map_or(StatusCode::of(200), |d| d.status);
        let answer = Message::response(&m, status, None, Some("tag"));
        let answer = Message::parse(answer.to_bytes(), &Limits::default()).unwrap();
        assert_eq!(answer.status(), Some(status), "{name}");
        assert_eq!(answer.call_id(), m.call_id(), "{name}");
        assert_eq!(
            answer.values(HeaderName::Via).collect::<Vec<_>>(),
            m.values(HeaderName::Via).collect::<Vec<_>>(),
            "{name}"
        );
        if *fate == Fine {
            assert_eq!(answer.defect(), None, "{name}");
        }
        m.push_front(HeaderName::Via, "SIP/2.0/UDP proxy;branch=z9hG4bKp");
        m.drop_front(HeaderName::Route);
        let sent = Message::parse(m.to_bytes(), &Limits::default()).unwrap();
        assert_eq!(sent.top_via().unwrap().host, "proxy", "{name}");
        if *fate == Fine {
            assert_eq!(sent.defect(), None, "{name}");
            assert_eq!(sent.body(), m.body(), "{name}");
        }
    }
}

#[test]
fn what_is_fine_goes_out_byte_for_byte() {
    for (name, fate) in RFC4475.iter().chain(RFC5118) {
        // Not those with white space before a colon: that is not sent on.
        if *fate != Fine || LENGTH_IS_OTHER.contains(name) || ["wsinv", "longreq"].contains(name) {
            continue;
        }
        let Some(bytes) = read(name) else { return };
        let m = Message::parse(bytes.clone(), &Limits::default()).unwrap();
        assert_eq!(m.to_bytes(), bytes, "{name}");
    }
}

#[test]
fn the_tortuous_invite_is_understood() {
    let Some(bytes) = read("wsinv") else { return };
    let m = Message::parse(bytes, &Limits::default()).unwrap();
    assert_eq!(m.to().unwrap().tag(), Some("1918181833n"));
    let from = m.from().unwrap();
    assert_eq!(from.display, r#"J Rosenberg \""#);
    assert_eq!(from.tag(), Some("98asjd8"));
    assert_eq!(m.number(HeaderName::MaxForwards), Ok(Some(68)));
    assert_eq!(m.cseq().unwrap().number, 9);
    let vias: Vec<_> = m
        .values(HeaderName::Via)
        .map(|v| sip::header::Via::parse(v).unwrap())
        .collect();
    let seen: Vec<_> = vias
        .iter()
        .map(|v| (v.transport.as_str(), v.host.as_str(), v.branch()))
        .collect();
    assert_eq!(
        seen,
        [
            ("UDP", "192.0.2.2", "390skdjuw"),
            ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
            ("UDP", "192.168.255.111", "z9hG4bK30239"),
        ]
    );
    let contact = &m.contacts().unwrap()[0];
    assert_eq!(contact.display, r#"Quoted string """#);
    assert_eq!(contact.params.get("newparam"), Some("newvalue"));
    assert_eq!(contact.params.get("q"), Some("0.33"));
    assert_eq!(
        m.header(HeaderName::Other("NewFangledHeader")),
        Some("newfangled value continued newfangled value")
    );
    assert_eq!(m.body().len(), 150);
}

#[test]
fn escapes_are_neither_lost_nor_taken_for_what_they_hide() {
    let Some(bytes) = read("esc01") else { return };
    let m = Message::parse(bytes, &Limits::default()).unwrap();
    let uri = sip::Uri::parse(m.request_uri()).unwrap();
    assert_eq!(uri.scheme, "sip");
    assert_eq!(uri.user, "sips%3Auser%40example.com");
    assert_eq!(uri.host, "example.net");
    assert_eq!(
        m.to().unwrap().uri,
        sip::Uri::parse("sip:user@example.com").unwrap()
    );
    let contact = &m.contacts().unwrap()[0].uri;
    assert_eq!(contact.user_decoded().as_deref(), Some("caller"));
    assert!(contact.is_loose_router());

    let m = Message::parse(read("esc02").unwrap(), &Limits::default()).unwrap();
    assert_eq!(m.method().as_str(), "RE%47IST%45R");
    assert_eq!(
        m.contacts().unwrap().len(),
        2,
        "C%6Fntact is another header"
    );
    assert_eq!(m.from().unwrap().display, "%Z%45");

    let m = Message::parse(read("escnull").unwrap(), &Limits::default()).unwrap();
    let contacts = m.contacts().unwrap();
    assert_ne!(contacts[0].uri, contacts[1].uri);
    assert_ne!(contacts[0].uri.aor(), contacts[1].uri.aor());
}

#[test]
fn a_stream_of_all_well_framed_messages_is_cut_into_them() {
    if torture().is_none() {
        return;
    }
    let names = RFC4475
        .iter()
        .chain(RFC5118)
        .filter(|(name, fate)| *fate == Fine && !LENGTH_IS_OTHER.contains(name));
    let whole: Vec<Bytes> = names
        .map(|(name, _)| read(name).expect("checked above"))
        .collect();
    let stream = whole.concat();
    for step in [1, 13, 1400] {
        let mut framer = Framer::new(Limits::default());
        let mut cut = Vec::new();
        for chunk in stream.chunks(step) {
            framer.push(chunk);
            while let Some(frame) = framer.next_frame().unwrap() {
                match frame {
                    Frame::Message(m) => cut.push(m),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(cut == whole, "{step} bytes at a time");
    }
}
