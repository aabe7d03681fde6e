use super::*;
use crate::message::Message;

const OPTIONS: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nContent-Length: 4\r\n\r\nbody";

fn framer() -> Framer {
    Framer::new(Limits::default())
}

/// Every frame of `bytes`, fed `step` bytes at a time.
fn frames(bytes: &[u8], step: usize) -> Vec<Frame> {
    let mut framer = framer();
    let mut all = Vec::new();
    for chunk in bytes.chunks(step) {
        framer.push(chunk);
        while let Some(frame) = framer.next_frame().unwrap() {
            all.push(frame);
        }
    }
    all
}

fn error(bytes: &[u8], limits: Limits) -> FrameError {
    let mut framer = Framer::new(limits);
    framer.push(bytes);
    let error = framer.next_frame().unwrap_err();
    assert_eq!(
        framer.next_frame().unwrap_err(),
        error,
        "a broken stream stays broken"
    );
    error
}

#[test]
fn messages_are_cut_alike_however_the_bytes_arrive() {
    let stream = format!("{OPTIONS}{OPTIONS}");
    let whole = Frame::Message(Bytes::from_static(OPTIONS.as_bytes()));
    for step in [1, 2, 3, 7, 50, 1000] {
        assert_eq!(
            frames(stream.as_bytes(), step),
            [whole.clone(), whole.clone()],
            "{step} bytes at a time"
        );
    }
}

#[test]
fn keepalives_between_messages_are_told_apart() {
    let stream = format!("\r\n\r\n{OPTIONS}\r\n{OPTIONS}\r\n\r\n\r\n");
    let whole = Frame::Message(Bytes::from_static(OPTIONS.as_bytes()));
    assert_eq!(
        frames(stream.as_bytes(), 10_000),
        [
            Frame::Ping,
            whole.clone(),
            Frame::Pong,
            whole,
            Frame::Ping,
            Frame::Pong
        ]
    );
}

#[test]
fn a_lone_cr_waits_for_its_line_feed() {
    let mut framer = framer();
    framer.push(b"\r");
    assert_eq!(framer.next_frame(), Ok(None));
    framer.push(b"\n\r");
    assert_eq!(framer.next_frame(), Ok(None));
    framer.push(b"\n");
    assert_eq!(framer.next_frame(), Ok(Some(Frame::Ping)));
    assert_eq!(framer.next_frame(), Ok(None));
}

#[test]
fn content_length_is_found_compact_folded_and_spaced() {
    for header in [
        "l:4",
        "L : 4",
        "CONTENT-LENGTH:\r\n 4",
        "Content-Length   : 0004  ",
    ] {
        let stream =
            format!("BYE sip:a@b SIP/2.0\r\nX: y\r\n{header}\r\nCSeq: 1 BYE\r\n\r\nbodyNEXT");
        let got = frames(stream.as_bytes(), 1);
        assert_eq!(got.len(), 1, "{header}");
        let Frame::Message(message) = &got[0] else {
            panic!("{header}: no message")
        };
        assert!(message.ends_with(b"\r\n\r\nbody"));
        let parsed = Message::parse(message.clone(), &Limits::default()).unwrap();
        assert_eq!(parsed.body(), "body");
    }
}

#[test]
fn a_stream_message_without_content_length_can_still_be_answered() {
    let e = error(
        b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n\r\nbody",
        Limits::default(),
    );
    assert_eq!((e.status.get(), e.reason), (400, "Content-Length missing"));
    let message = Message::parse(e.answerable.unwrap(), &Limits::default()).unwrap();
    assert_eq!(message.top_via_ref().unwrap().branch(), "z9hG4bK1");
    assert!(message.body().is_empty());
}

#[test]
fn content_lengths_that_lie_close_the_stream() {
    for (header, status, reason) in [
        (
            "Content-Length: -999",
            400,
            "Content-Length is not a number",
        ),
        ("Content-Length: 1 2", 400, "Content-Length is not a number"),
        (
            "Content-Length: 4\r\nl: 4",
            400,
            "more than one Content-Length",
        ),
        ("Content-Length: 65536", 413, "body too large"),
        (
            "Content-Length: 18446744073709551615",
            413,
            "body too large",
        ),
        (
            "Content-Length: 99999999999999999999999999",
            413,
            "body too large",
        ),
        ("Content-Length: 65500", 513, "message too large"),
    ] {
        let stream = format!("BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n{header}\r\n\r\n");
        let e = error(stream.as_bytes(), Limits::default());
        assert_eq!((e.status.get(), e.reason), (status, reason), "{header}");
        let head = Message::parse(e.answerable.unwrap(), &Limits::default()).unwrap();
        assert_eq!(head.top_via_ref().unwrap().host, "h");
    }
}

#[test]
fn a_head_that_never_ends_is_refused_at_its_limit() {
    let limits = Limits {
        head: 100,
        ..Limits::default()
    };
    let e = error(
        format!(
            "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nX: {}",
            "x".repeat(100)
        )
        .as_bytes(),
        limits,
    );
    assert_eq!(
        (e.status.get(), e.reason),
        (513, "header section too large")
    );
    assert_eq!(
        e.answerable.unwrap(),
        "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n\r\n"
    );
    let e = error(&[b'x'; 101], limits);
    assert_eq!(e.answerable, None);
    let mut framer = Framer::new(limits);
    framer.push(&[b'x'; 100]);
    assert_eq!(
        framer.next_frame(),
        Ok(None),
        "up to its limit it may go on"
    );
}

#[test]
fn a_bare_line_feed_cannot_hide_a_second_message() {
    // One peer would see one message with a body, another two: here it is cut where `Message` cuts, and refused.
    let stream = b"BYE sip:a@b SIP/2.0\r\nContent-Length: 0\r\nX: y\n\nINVITE sip:evil@b SIP/2.0\r\nContent-Length: 0\r\n\r\n";
    let got = frames(stream, 5);
    assert_eq!(got.len(), 2);
    let Frame::Message(first) = &got[0] else {
        panic!("no message")
    };
    let first = Message::parse(first.clone(), &Limits::default()).unwrap();
    assert_eq!(
        first.defect().unwrap().reason,
        "bare CR or LF in the header section"
    );
}
