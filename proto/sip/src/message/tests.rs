use super::*;
use crate::header::HeaderError;

const INVITE: &str = "INVITE sip:bob@biloxi.com SIP/2.0\r\n\
Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bK776asdhds ,SIP/2.0/UDP second;branch=z9hG4bK2\r\n\
v:SIP/2.0/TCP third;branch=z9hG4bK3\r\n\
Max-Forwards: 70\r\n\
Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\r\n\
t: Bob <sip:bob@biloxi.com>\r\n\
From: Alice <sip:alice@atlanta.com>;tag=1928301774\r\n\
Call-ID: a84b4c76e66710@pc33.atlanta.com\r\n\
CSeq: 314159 INVITE\r\n\
X-Custom-Header :\tkept  \r\n\
m: <sip:alice@pc33.atlanta.com>\r\n\
Supported: timer,\r\n\t 100rel\r\n\
Content-Type: application/SDP ;charset=x\r\n\
Content-Length: 4\r\n\
\r\n\
v=0\n";

fn clean(s: &str) -> String {
    s.replace("X-Custom-Header :", "X-Custom-Header:")
}

fn parse(s: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(s.as_bytes()), &Limits::default()).unwrap()
}

fn invite() -> Message {
    parse(&clean(INVITE))
}

fn print(m: &Message) -> String {
    String::from_utf8(m.to_bytes().to_vec()).unwrap()
}

/// A message with these header lines (each with its line end) after the mandatory ones.
fn with(lines: &str) -> String {
    format!(
        "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
         To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n{lines}\r\n"
    )
}

fn defect(s: &str) -> Option<(u16, &'static str)> {
    parse(s).defect().map(|d| (d.status.get(), d.reason))
}

#[test]
fn an_unedited_message_goes_out_as_it_came_in() {
    assert_eq!(print(&invite()), clean(INVITE));
    assert_eq!(invite().defect(), None);
}

#[test]
fn headers_are_read_in_long_and_compact_form_and_across_folds() {
    let m = invite();
    assert!(m.is_request());
    assert_eq!(m.method(), &Method::Invite);
    assert_eq!(m.request_uri(), "sip:bob@biloxi.com");
    assert_eq!(m.status(), None);
    assert_eq!(m.call_id(), "a84b4c76e66710@pc33.atlanta.com");
    assert_eq!(m.cseq().unwrap().number, 314_159);
    assert_eq!(m.from().unwrap().tag(), Some("1928301774"));
    assert_eq!(m.from_ref().unwrap().tag(), Some("1928301774"));
    assert_eq!(m.to().unwrap().display, "Bob");
    assert_eq!(m.to_ref().unwrap().display(), "Bob");
    assert_eq!(m.top_via().unwrap().branch(), "z9hG4bK776asdhds");
    assert_eq!(m.headers(HeaderName::Via).count(), 2);
    assert_eq!(
        m.values(HeaderName::Via).collect::<Vec<_>>(),
        [
            "SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bK776asdhds",
            "SIP/2.0/UDP second;branch=z9hG4bK2",
            "SIP/2.0/TCP third;branch=z9hG4bK3"
        ]
    );
    assert_eq!(m.header(HeaderName::Supported), Some("timer, 100rel"));
    assert!(m.has_token(HeaderName::Supported, "100REL"));
    assert!(!m.has_token(HeaderName::Supported, "100"));
    assert_eq!(m.header(HeaderName::Other("x-custom-HEADER")), Some("kept"));
    assert_eq!(m.number(HeaderName::MaxForwards), Ok(Some(70)));
    assert_eq!(m.number(HeaderName::Expires), Ok(None));
    assert_eq!(m.content_type(), "application/sdp");
    assert_eq!(m.body(), "v=0\n");
    assert_eq!(m.addresses(HeaderName::Route).unwrap().len(), 2);
    assert_eq!(m.contacts().unwrap()[0].uri.host, "pc33.atlanta.com");
    assert_eq!(m.fields().count(), 13);
    assert_eq!(
        m.fields().nth(4),
        Some(("t", &b"Bob <sip:bob@biloxi.com>"[..]))
    );
}

#[test]
fn a_proxys_edits_touch_their_own_lines_only() {
    let mut m = invite();
    m.push_front(HeaderName::Via, "SIP/2.0/UDP proxy;branch=z9hG4bKp");
    m.set(HeaderName::MaxForwards, "69");
    assert_eq!(
        m.pop_front(HeaderName::Route).as_deref(),
        Some("<sip:p1.example.com;lr>")
    );
    m.push_front(HeaderName::RecordRoute, "<sip:proxy;lr>");
    m.set_request_uri("sip:bob@192.0.2.4");
    let expected = format!(
        "Record-Route: <sip:proxy;lr>\r\nVia: SIP/2.0/UDP proxy;branch=z9hG4bKp\r\n{}",
        clean(INVITE)
            .split_once("\r\n")
            .unwrap()
            .1
            .replace("Max-Forwards: 70", "Max-Forwards: 69")
            .replace("<sip:p1.example.com;lr>, ", "")
    );
    assert_eq!(
        print(&m),
        format!("INVITE sip:bob@192.0.2.4 SIP/2.0\r\n{expected}")
    );
    assert_eq!(m.request_uri(), "sip:bob@192.0.2.4");
    assert_eq!(m.top_via().unwrap().host, "proxy");
    let again = parse(&print(&m));
    assert_eq!(again.defect(), None);
    assert_eq!(again.values(HeaderName::Via).count(), 4);
}

#[test]
fn the_first_of_a_list_is_replaced_and_the_rest_stays() {
    let mut m = invite();
    m.set_front(HeaderName::Via, "SIP/2.0/UDP new");
    let vias: Vec<_> = m.values(HeaderName::Via).collect();
    assert_eq!(vias[0], "SIP/2.0/UDP new");
    assert_eq!(vias[1], "SIP/2.0/UDP second;branch=z9hG4bK2");
    assert_eq!(vias.len(), 3);
    m.set_front(HeaderName::Path, "<sip:edge;lr>");
    assert_eq!(m.header(HeaderName::Path), Some("<sip:edge;lr>"));
    for left in (0..3).rev() {
        assert!(m.drop_front(HeaderName::Via));
        assert_eq!(m.values(HeaderName::Via).count(), left);
    }
    assert!(!m.drop_front(HeaderName::Via));
    assert_eq!(m.pop_front(HeaderName::Via), None);
}

#[test]
fn headers_that_are_no_lists_are_popped_whole() {
    let mut m = parse(&with("Authorization: Digest a=\"1\", b=2\r\n"));
    assert_eq!(m.values(HeaderName::Authorization).count(), 1);
    assert_eq!(
        m.pop_front(HeaderName::Authorization).as_deref(),
        Some("Digest a=\"1\", b=2")
    );
    assert_eq!(m.header(HeaderName::Authorization), None);
}

#[test]
fn set_leaves_one_and_remove_none() {
    let mut m = invite();
    m.set(HeaderName::Via, "SIP/2.0/UDP one");
    assert_eq!(
        m.headers(HeaderName::Via).collect::<Vec<_>>(),
        ["SIP/2.0/UDP one"]
    );
    m.remove(HeaderName::Other("X-CUSTOM-header"));
    assert_eq!(m.header(HeaderName::Other("X-Custom-Header")), None);
    m.set(HeaderName::Other("X-New"), "1");
    assert!(print(&m).contains("\r\nX-New: 1\r\n\r\nv=0"));
}

#[test]
fn no_edit_can_make_a_line_of_its_own() {
    let mut m = Message::request(Method::Options, "sip:a@b\r\nEvil: 1 x");
    m.push_back(HeaderName::Subject, "x\r\nEvil: 2");
    m.push_back(HeaderName::Other("X\r\nEvil"), "3");
    let r = Message::response(&m, StatusCode::of(400), Some("no\r\nEvil: 4"), None);
    assert_eq!(
        print(&m),
        "OPTIONS sip:a@bEvil:1x SIP/2.0\r\nSubject: x  Evil: 2\r\nX--Evil: 3\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(
        print(&r),
        "SIP/2.0 400 noEvil: 4\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn content_length_is_always_there_and_right() {
    let mut m = invite();
    m.set_body("application/sdp", "v=0\r\ns=-\r\n");
    assert!(
        print(&m)
            .ends_with("Content-Type: application/sdp\r\nContent-Length: 10\r\n\r\nv=0\r\ns=-\r\n")
    );
    m.set_body("", Bytes::new());
    assert!(print(&m).ends_with("Content-Length: 0\r\n\r\n"));
    assert_eq!(m.header(HeaderName::ContentType), None);
    m.set(HeaderName::ContentLength, "99");
    m.push_back(HeaderName::ContentLength, "98");
    assert!(print(&m).ends_with("\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(print(&m).matches("Content-Length").count(), 1);
    let m = parse(&with(""));
    assert!(print(&m).ends_with("INVITE\r\nContent-Length: 0\r\n\r\n"));
}

#[test]
fn bytes_beyond_content_length_are_dropped() {
    let m = parse(&format!("{}trailing garbage", clean(INVITE)));
    assert_eq!(m.body(), "v=0\n");
    assert_eq!(print(&m), clean(INVITE));
    assert_eq!(m.defect(), None);
}

#[test]
fn a_response_carries_what_ties_it_to_the_request() {
    let r = Message::response(&invite(), StatusCode::of(180), None, Some("tt"));
    assert_eq!(
        print(&r),
        "SIP/2.0 180 Ringing\r\n\
         Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bK776asdhds ,SIP/2.0/UDP second;branch=z9hG4bK2\r\n\
         Via: SIP/2.0/TCP third;branch=z9hG4bK3\r\n\
         From: Alice <sip:alice@atlanta.com>;tag=1928301774\r\n\
         To: Bob <sip:bob@biloxi.com>;tag=tt\r\n\
         Call-ID: a84b4c76e66710@pc33.atlanta.com\r\n\
         CSeq: 314159 INVITE\r\n\
         Content-Length: 0\r\n\r\n"
    );
    assert_eq!(r.method(), &Method::Invite);
    assert_eq!(r.reason(), "Ringing");
    let back = parse(&print(&r));
    assert_eq!(back.status(), Some(StatusCode::of(180)));
    assert_eq!(back.method(), &Method::Invite);
    assert_eq!(back.defect(), None);
}

#[test]
fn a_100_gets_no_tag_but_the_timestamp() {
    let request = parse(&with("Timestamp: 54\r\n"));
    let r = Message::response(&request, StatusCode::of(100), None, Some("tt"));
    assert_eq!(r.to().unwrap().tag(), None);
    assert_eq!(r.header(HeaderName::Timestamp), Some("54"));
    let r = Message::response(&request, StatusCode::of(200), None, Some("tt"));
    assert_eq!(r.to().unwrap().tag(), Some("tt"));
    assert_eq!(r.header(HeaderName::Timestamp), None);
    // One that is there already stays.
    let mut request = request;
    request.set(HeaderName::To, "<sip:b@h>;tag=old");
    let r = Message::response(&request, StatusCode::of(200), None, Some("tt"));
    assert_eq!(r.to().unwrap().tag(), Some("old"));
}

#[test]
fn smuggled_lines_are_defects_and_never_go_out_as_they_came() {
    for (lines, reason) in [
        (
            "X-User : admin\r\n",
            "white space before the colon of a header",
        ),
        (
            "P-Asserted-Identity\t: <sip:x@h>\r\n",
            "white space before the colon of a header",
        ),
        (
            "X: y\nX-User: admin\r\n",
            "bare CR or LF in the header section",
        ),
        (
            "X: y\rX-User: admin\r\n",
            "bare CR or LF in the header section",
        ),
        ("X: y\0z\r\n", "NUL in the header section"),
        ("X: \"y\0z\"\r\n", "NUL in the header section"),
        ("X-User admin\r\n", "header line without a colon"),
        (
            "X(User): admin\r\n",
            "character not allowed in a header name",
        ),
        (": admin\r\n", "character not allowed in a header name"),
    ] {
        let mut m = parse(&with(lines));
        let defect = m
            .defect()
            .unwrap_or_else(|| panic!("{lines:?} is no defect"));
        assert_eq!(
            (defect.status.get(), defect.reason),
            (400, reason),
            "{lines:?}"
        );
        m.push_back(HeaderName::Other("Y"), "1");
        let out = parse(&print(&m));
        assert_eq!(out.defect(), None, "{lines:?}");
    }
}

#[test]
fn white_space_before_the_colon_of_a_standard_header_is_read_and_not_sent_on() {
    let m = parse(&with("Route : <sip:p;lr>\r\n"));
    assert_eq!(m.defect(), None);
    assert_eq!(m.header(HeaderName::Route), Some("<sip:p;lr>"));
    assert!(print(&m).contains("\r\nRoute: <sip:p;lr>\r\n"));
}

#[test]
fn an_escaped_nul_in_a_quoted_string_is_part_of_the_grammar() {
    let s = with("Subject: \"a\\\0b\"\r\nContent-Length: 0\r\n");
    assert_eq!(defect(&s), None);
    assert_eq!(print(&parse(&s)), s);
}

#[test]
fn content_length_is_never_trusted() {
    for (lines, status, reason) in [
        (
            "Content-Length: 1\r\n",
            400,
            "Content-Length beyond the end of the message",
        ),
        ("Content-Length: 4294967296\r\n", 413, "body too large"),
        (
            "Content-Length: 18446744073709551616\r\n",
            413,
            "body too large",
        ),
        (
            "Content-Length: -1\r\n",
            400,
            "Content-Length is not a number",
        ),
        (
            "Content-Length: +1\r\n",
            400,
            "Content-Length is not a number",
        ),
        ("Content-Length:\r\n", 400, "Content-Length is not a number"),
        (
            "Content-Length: 0\r\nl: 0\r\n",
            400,
            "more than one Content-Length",
        ),
    ] {
        assert_eq!(defect(&with(lines)), Some((status, reason)), "{lines:?}");
    }
}

#[test]
fn each_limit_has_its_answer() {
    let limits = |f: fn(&mut Limits)| {
        let mut l = Limits::default();
        f(&mut l);
        l
    };
    let text = clean(INVITE);
    for (limits, status, reason) in [
        (limits(|l| l.message = 300), 513, "message too large"),
        (limits(|l| l.head = 300), 513, "header section too large"),
        (limits(|l| l.headers = 7), 513, "too many headers"),
        (limits(|l| l.body = 3), 413, "body too large"),
    ] {
        let m = Message::parse(Bytes::copy_from_slice(text.as_bytes()), &limits).unwrap();
        let d = m.defect().unwrap();
        assert_eq!((d.status.get(), d.reason), (status, reason));
        // Still answerable: the headers before the limit are there.
        let answer = Message::response(&m, d.status, Some(d.reason), Some("t"));
        assert_eq!(answer.top_via().unwrap().host, "pc33.atlanta.com");
    }
    assert_eq!(
        Message::parse(
            Bytes::copy_from_slice(text.as_bytes()),
            &limits(|l| l.head = 10)
        )
        .unwrap_err(),
        ParseError::TooLarge("start line")
    );
}

#[test]
fn what_cannot_be_answered_is_not_parsed() {
    for s in [
        "",
        "\r\n\r\n",
        "\0\0\0\0",
        "hello",
        "hello\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "INVITE sip:a@b\r\n\r\n",
        "INVITE SIP/2.0\r\n\r\n",
        " INVITE sip:a@b SIP/2.0\r\n\r\n",
        "SIP/2.0\r\n\r\n",
        "SIP/2.0 OK\r\n\r\n",
        "SIP/2.0 099 x\r\n\r\n",
        "SIP/2.0 700 x\r\n\r\n",
        "SIP/2.0 2000 x\r\n\r\n",
        "SIP/2.0 4294967301 better not break the receiver\r\n\r\n",
    ] {
        let got = Message::parse(Bytes::copy_from_slice(s.as_bytes()), &Limits::default());
        assert!(matches!(got, Err(ParseError::NotSip(_))), "{s:?}");
    }
}

#[test]
fn each_broken_rule_is_told() {
    let missing = |name: &str| {
        let text = with("");
        let start = text.find(&format!("\r\n{name}:")).unwrap() + 2;
        let end = start + text[start..].find("\r\n").unwrap() + 2;
        format!("{}{}", &text[..start], &text[end..])
    };
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        let (status, reason) = defect(&missing(name)).unwrap();
        assert_eq!((status, reason), (400, format!("{name} missing").as_str()));
    }
    for (lines, reason) in [
        ("t: <sip:c@h>\r\n", "more than one To"),
        (
            "Max-Forwards: 1\r\nMax-Forwards: 2\r\n",
            "more than one Max-Forwards",
        ),
        ("Max-Forwards: 256\r\n", "Max-Forwards out of range"),
        ("Max-Forwards: x\r\n", "Max-Forwards is not a number"),
        ("Contact: *\r\n", "Contact * outside REGISTER"),
        ("Contact: <sip:a@>\r\n", "bad URI in Contact"),
        (
            "Contact: sip:a@h?x=y\r\n",
            "Contact URI needs angle brackets",
        ),
        ("Route: sip:p;lr\r\n", "Route URI needs angle brackets"),
        ("Record-Route: <sip:p;lr\r\n", "malformed Route"),
        ("Via: SIP/2.0/UDP h,\r\n", "malformed Via"),
        ("Expires: soon\r\n", "Expires is not a number"),
    ] {
        assert_eq!(defect(&with(lines)), Some((400, reason)), "{lines:?}");
    }
    for (from, to, status, reason) in [
        (
            "CSeq: 1 INVITE",
            "CSeq: 1 BYE",
            400,
            "CSeq method is not the method of the request",
        ),
        (
            "CSeq: 1 INVITE",
            "CSeq: 2147483648 INVITE",
            400,
            "CSeq number out of range",
        ),
        ("CSeq: 1 INVITE", "CSeq: INVITE", 400, "malformed CSeq"),
        (
            "SIP/2.0\r\nVia",
            "SIP/3.0\r\nVia",
            505,
            "only SIP/2.0 is spoken here",
        ),
        (
            "INVITE sip:b@h",
            "INVITE urn:x",
            416,
            "only sip, sips and tel URIs are served",
        ),
        ("INVITE sip:b@h", "INVITE sip:b@", 400, "bad Request-URI"),
        (
            "INVITE sip:b@h",
            "INVITE <sip:b@h>",
            400,
            "Request-URI in angle brackets",
        ),
        (
            "INVITE sip:b@h",
            "INVITE sip:b@h?x=y",
            400,
            "headers in the Request-URI",
        ),
        (
            "INVITE sip:b@h",
            "INVITE sip:b @h",
            400,
            "white space in the Request-URI",
        ),
        (
            "INVITE sip:b@h",
            "INVITE\tsip:b@h",
            400,
            "superfluous white space in the start line",
        ),
        (";tag=1", ";tag", 400, "malformed From"),
        (";tag=1", ";tag=\"1\"", 400, "malformed From"),
        ("Call-ID: c", "Call-ID: c d", 400, "malformed Call-ID"),
        (
            "To: <sip:b@h>\r\n",
            "To: \"b <sip:b@h>\r\n",
            400,
            "malformed To",
        ),
        ("\r\n\r\n", "\r\n", 400, "no empty line behind the headers"),
        (
            "SIP/2.0\r\nVia",
            "SIP/2.0\r\n x\r\nVia",
            400,
            "folded line before the first header",
        ),
    ] {
        let text = with("").replacen(from, to, 1);
        assert_eq!(defect(&text), Some((status, reason)), "{to:?}");
    }
}

#[test]
fn list_bombs_are_refused() {
    let routes = vec!["<sip:p;lr>"; 257].join(",");
    assert_eq!(
        defect(&with(&format!("Route: {routes}\r\n"))),
        Some((400, "too many Route values"))
    );
    assert_eq!(
        parse(&with(&format!("Route: {routes}\r\n")))
            .addresses(HeaderName::Route)
            .unwrap_err(),
        HeaderError::Malformed("Route", "too many values")
    );
}

#[test]
fn a_number_stands_in_front_of_parameters_where_they_are_allowed() {
    let m = parse(&with(
        "Session-Expires: 1800;refresher=uac\r\nRetry-After: 5 (busy)\r\nExpires: 4294967296\r\nMin-Expires: 4294967295\r\n",
    ));
    assert_eq!(m.number(HeaderName::SessionExpires), Ok(Some(1800)));
    assert_eq!(m.number(HeaderName::RetryAfter), Ok(Some(5)));
    assert_eq!(m.number(HeaderName::MinExpires), Ok(Some(u32::MAX)));
    assert_eq!(
        m.number(HeaderName::Expires),
        Err(HeaderError::Malformed("Expires", "number out of range"))
    );
}

#[test]
fn a_message_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Message>();
}

#[test]
fn an_answer_carries_even_what_is_not_text_byte_for_byte() {
    let mut bytes = with("")
        .replace("To: <sip:b@h>", "To: \"a\\\0b\" <sip:b@h>")
        .into_bytes();
    let at = bytes
        .windows(11)
        .position(|w| w == b"Call-ID: c\r")
        .unwrap()
        + 9;
    bytes[at] = 0xff;
    let m = Message::parse(bytes.into(), &Limits::default()).unwrap();
    let r = Message::response(&m, StatusCode::of(400), None, Some("t")).to_bytes();
    let has = |needle: &[u8]| r.windows(needle.len()).any(|w| w == needle);
    assert!(has(b"\r\nCall-ID: \xff\r\n"));
    assert!(has(b"\r\nTo: \"a\\\0b\" <sip:b@h>;tag=t\r\n"));
}
