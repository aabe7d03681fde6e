//! One datagram: whatever is in it, it is parsed or refused, read, answered, edited and printed.
//! Seeds: torture/rfc4475, torture/rfc5118
#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use sip::{HeaderName, Limits, Message, StatusCode};

/// Every view.
fn read(m: &Message) {
    let _ = (m.from(), m.to(), m.cseq(), m.top_via(), m.contacts());
    let _ = (m.content_type(), m.start_line());
    for (name, value) in m.fields() {
        assert!(!name.is_empty() && !value.contains(&b'\r') && !value.contains(&b'\n'));
        let name = HeaderName::of(name);
        let _ = (m.number(name), m.addresses(name), m.values(name).count());
    }
}

rostrum_fuzz::target!(|data| {
    let limits = Limits::default();
    let Ok(m) = Message::parse(Bytes::copy_from_slice(data), &limits) else {
        return;
    };
    read(&m);
    let defect = m.defect();

    // Printed, it is the same message, and not worse than it was.
    let printed = Message::parse(m.to_bytes(), &limits).expect("what was printed parses");
    assert_eq!(printed.body(), m.body());
    if defect.is_none() {
        assert_eq!(printed.defect(), None);
        assert!(m.top_via_ref().is_ok() && m.cseq().is_ok());
        assert!(m.from().is_ok() && m.to().is_ok() && m.contacts().is_ok());
    }

    // Anything can be answered, and the answer goes back where the request came from.
    let status = defect.map_or(StatusCode::of(200), |d| d.status);
    let answer = Message::response(&m, status, None, Some("tag"));
    let answer = Message::parse(answer.to_bytes(), &limits).expect("an answer parses");
    assert_eq!(answer.call_id(), m.call_id());

    // An edit is there afterwards, and adds one line.
    let mut edited = m.clone();
    edited.push_front(HeaderName::Via, "SIP/2.0/UDP h;branch=z9hG4bK");
    edited.drop_front(HeaderName::Route);
    edited.set(HeaderName::Other("X-Edit"), "1");
    let edited = Message::parse(edited.to_bytes(), &limits).expect("what was edited parses");
    if edited.defect().is_none_or(|d| d.status.get() != 513) {
        assert_eq!(edited.top_via().expect("our Via").host, "h");
        assert_eq!(edited.header(HeaderName::Other("x-edit")), Some("1"));
    }
});
