//! A byte stream: however it is chopped, the same messages come out of it, and the parser agrees on where
//! they end.
//! Seeds: torture/rfc4475, torture/rfc5118
#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use sip::frame::{Frame, Framer};
use sip::{Limits, Message};

/// Small, so that limits are met.
const LIMITS: Limits = Limits {
    message: 2048,
    head: 1024,
    headers: 32,
    body: 1024,
};

/// The messages in `data` given in pieces of `step` bytes, and why it ended, if it did. Keepalives are left
/// out: a lone CRLF is one by itself, or half of another, by when it came.
fn cut(data: &[u8], step: usize) -> (Vec<Bytes>, Option<&'static str>) {
    let mut framer = Framer::new(LIMITS);
    let mut messages = Vec::new();
    for piece in data.chunks(step) {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Message(m))) => messages.push(m),
                Ok(Some(_)) => {}
                Err(e) => {
                    if let Some(head) = e.answerable {
                        assert!(head.len() <= LIMITS.head + 2);
                        let _ = Message::parse(head, &LIMITS).map(|m| m.defect());
                    }
                    return (messages, Some(e.reason));
                }
            }
        }
        assert!(framer.pending() <= LIMITS.message + step);
    }
    (messages, None)
}

rostrum_fuzz::target!(|data| {
    let Some((&step, data)) = data.split_first() else {
        return;
    };
    let whole = cut(data, data.len().max(1));
    assert_eq!(whole, cut(data, usize::from(step).max(1)));
    for message in whole.0 {
        let Ok(m) = Message::parse(message.clone(), &LIMITS) else {
            continue;
        };
        // The parser must not find a shorter message in what the framer took for one: the rest would be
        // another to somebody else.
        if m.defect().is_none() {
            assert!(message.ends_with(m.body()));
            let head = message.len() - m.body().len();
            assert!(message[..head].ends_with(b"\r\n\r\n"));
        }
    }
});
