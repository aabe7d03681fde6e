use proptest::prelude::*;

use super::*;
use crate::message::Method;

const SDP: &str = "application/sdp";

fn message(headers: &[(HeaderName<'_>, &str)], body: &str) -> Message {
    let mut message = Message::request(Method::Invite, "sip:m@x");
    message.set_body("x/y", body.as_bytes().to_vec());
    message.remove(HeaderName::ContentType);
    for (name, value) in headers {
        message.push_back(*name, *value);
    }
    message
}

fn found(headers: &[(HeaderName<'_>, &str)], body: &str) -> Result<Option<String>, Unusable> {
    let message = message(headers, body);
    let found = find(&message, SDP, "session")?;
    Ok(found.map(|data| String::from_utf8(data.to_vec()).unwrap()))
}

fn multipart(body: &str) -> Result<Option<String>, Unusable> {
    let kind = "multipart/mixed; boundary=\"b 1\"";
    found(&[(HeaderName::ContentType, kind)], body)
}

const OFFER: &str = "Content-Type: application/sdp\r\n\r\nv=0\r\n";

#[test]
fn a_body_alone_is_found_by_type_and_disposition() {
    use HeaderName as H;
    for (headers, expected) in [
        (&[(H::ContentType, SDP)][..], Ok(true)),
        (
            &[(H::ContentType, "Application / SDP;charset=utf-8")],
            Ok(true),
        ),
        (
            &[(H::ContentType, SDP), (H::ContentDisposition, "session")],
            Ok(true),
        ),
        (
            &[
                (H::ContentType, SDP),
                (H::ContentDisposition, "Session;handling=required"),
            ],
            Ok(true),
        ),
        (
            &[
                (H::ContentType, SDP),
                (H::ContentDisposition, "early-session"),
            ],
            Err(Unusable::Type),
        ),
        (
            &[
                (H::ContentType, SDP),
                (H::ContentDisposition, "early-session;handling=optional"),
            ],
            Ok(false),
        ),
        (&[], Err(Unusable::Type)),
        (&[(H::ContentType, "text/plain")], Err(Unusable::Type)),
        (
            &[
                (H::ContentType, "application/isup;version=x"),
                (H::ContentDisposition, "signal; handling=Optional"),
            ],
            Ok(false),
        ),
        (
            &[
                (H::ContentType, "text/plain"),
                (H::ContentDisposition, "render;handling=required"),
            ],
            Err(Unusable::Type),
        ),
        (
            &[(H::ContentType, SDP), (H::ContentEncoding, "gzip")],
            Err(Unusable::Encoding),
        ),
        (
            &[(H::ContentType, SDP), (H::ContentEncoding, "Identity")],
            Ok(true),
        ),
        (
            &[
                (H::ContentType, SDP),
                (H::ContentEncoding, "gzip"),
                (H::ContentDisposition, "session;handling=optional"),
            ],
            Ok(false),
        ),
    ] {
        let outcome = found(headers, "v=0\r\n");
        assert_eq!(outcome.map(|f| f.is_some()), expected, "{headers:?}");
    }
    assert_eq!(
        found(&[(H::ContentType, "text/plain")], ""),
        Ok(None),
        "no body"
    );
}

#[test]
fn a_part_of_a_multipart_body_is_found_without_the_breaks_of_its_delimiters() {
    for (body, expected) in [
        (format!("--b 1\r\n{OFFER}\r\n--b 1--\r\n"), "v=0\r\n"),
        // Preamble, epilogue, white space behind a boundary, a longer boundary in the content.
        (
            format!("hello\r\n--b 1 \t\r\n{OFFER}--b 12\r\n\r\n--b 1--\r\nbye --b 1\r\n"),
            "v=0\r\n--b 12\r\n",
        ),
        // A folded header, in any case; parts that may be passed over.
        (
            "--b 1\r\nContent-Type: application/isup\r\ncontent-disposition: signal;\r\n\
             \thandling=optional\r\n\r\n\0\x01\r\n--b 1\r\nCONTENT-TYPE:\r\n application/sdp\r\n\r\nv=0\r\n--b 1--"
                .to_owned(),
            "v=0",
        ),
        // Bare line feeds, as some write.
        (
            "--b 1\nContent-Type: application/sdp\nContent-Transfer-Encoding: binary\n\nv=0\n\n--b 1--\n"
                .to_owned(),
            "v=0\n",
        ),
        // Within another.
        (
            format!(
                "--b 1\r\nContent-Type: multipart/related;boundary=in\r\n\r\n--in\r\n{OFFER}\r\n--in--\r\n\r\n--b 1--"
            ),
            "v=0\r\n",
        ),
    ] {
        assert_eq!(multipart(&body), Ok(Some(expected.to_owned())), "{body}");
    }
}

#[test]
fn parts_that_must_be_understood_and_are_not_spoil_the_body() {
    for (body, expected) in [
        (
            format!("--b 1\r\n{OFFER}\r\n--b 1\r\nContent-Type: application/isup\r\n\r\nx\r\n--b 1--"),
            Unusable::Type,
        ),
        // Without a type it is text/plain.
        (
            format!("--b 1\r\n\r\nhello\r\n--b 1\r\n{OFFER}\r\n--b 1--"),
            Unusable::Type,
        ),
        (
            "--b 1\r\nContent-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n\r\ndj0w\r\n--b 1--"
                .to_owned(),
            Unusable::Encoding,
        ),
        (
            format!("--b 1\r\n{OFFER}\r\n--b 1\r\n{OFFER}\r\n--b 1--"),
            Unusable::Malformed("two bodies where one is expected"),
        ),
        (
            format!("--b 1\r\n{OFFER}"),
            Unusable::Malformed("multipart body without its end"),
        ),
        (
            "--b 1--\r\n".to_owned(),
            Unusable::Malformed("multipart body without parts"),
        ),
        (
            "--b 1\r\nno colon\r\n\r\nx\r\n--b 1--".to_owned(),
            Unusable::Malformed("a header of a part without its colon"),
        ),
        (
            format!("{}--b 1--", format!("--b 1\r\n{OFFER}\r\n").repeat(17)),
            Unusable::Malformed("a body of too many parts"),
        ),
    ] {
        assert_eq!(multipart(&body), Err(expected), "{body}");
    }
    for kind in ["multipart/mixed", "multipart/mixed;boundary=\"\""] {
        let outcome = found(&[(HeaderName::ContentType, kind)], "--\r\n\r\nx");
        assert_eq!(
            outcome,
            Err(Unusable::Malformed("multipart body without a boundary"))
        );
    }
}

#[test]
fn of_alternatives_the_last_one_that_is_understood_counts() {
    let kind = [(HeaderName::ContentType, "multipart/alternative;boundary=b")];
    let other = "Content-Type: text/html\r\n\r\n<p>";
    let body = format!("--b\r\n{OFFER}1\r\n--b\r\n{OFFER}2\r\n--b\r\n{other}\r\n--b--");
    assert_eq!(found(&kind, &body), Ok(Some("v=0\r\n2".to_owned())));
    let body = format!("--b\r\n{other}\r\n--b--");
    assert_eq!(found(&kind, &body), Err(Unusable::Type));
}

#[test]
fn a_nest_of_multipart_bodies_is_read_to_a_bounded_depth() {
    let nest = |depth: usize| {
        let mut body = OFFER.to_owned();
        for n in (0..depth).rev() {
            body = format!(
                "Content-Type: multipart/mixed;boundary=n{n}\r\n\r\n--n{n}\r\n{body}\r\n--n{n}--\r\n"
            );
        }
        let (kind, body) = body.split_once("\r\n\r\n").unwrap();
        let kind = kind.strip_prefix("Content-Type: ").unwrap().to_owned();
        found(&[(HeaderName::ContentType, kind.as_str())], body)
    };
    assert_eq!(nest(3), Ok(Some("v=0\r\n".to_owned())));
    assert!(matches!(nest(4), Err(Unusable::Malformed(_))));
    assert!(matches!(nest(500), Err(Unusable::Malformed(_))));
}

proptest! {
    #[test]
    fn any_content_comes_out_of_a_multipart_body_as_it_went_in(
        content in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), any::<u8>()], 0..200),
    ) {
        prop_assume!(memmem::find(&content, b"--b0undary").is_none());
        let mut body = format!("--b0undary\r\nContent-Type: {SDP}\r\n\r\n").into_bytes();
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n--b0undary--");
        let mut message = Message::request(Method::Invite, "sip:m@x");
        message.set_body("multipart/mixed;boundary=b0undary", body);
        prop_assert_eq!(find(&message, SDP, "session"), Ok(Some(&content[..])));
    }

    #[test]
    fn no_arrangement_of_delimiters_and_headers_is_too_much(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("--b"), Just("--b--"), Just("\r\n"), Just("\n"), Just("\r\n\r\n"), Just(" "), Just("--"),
                Just("Content-Type: application/sdp"), Just("Content-Type: multipart/mixed;boundary=b"),
                Just("Content-Disposition: session;handling=optional"), Just("v=0"),
            ],
            0..60,
        ),
    ) {
        let text = pieces.concat();
        let kind = [(HeaderName::ContentType, "multipart/mixed;boundary=b")];
        if let Ok(Some(part)) = found(&kind, &text) {
            prop_assert!(text.contains(&part));
        }
    }
}
