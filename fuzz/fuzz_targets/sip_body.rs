//! Bodies of any structure: what is found lies in the body, and one that is wrapped is found again as it was.
//! Seeds: torture/rfc4475, sdp
#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use sip::{HeaderName, Limits, Message, Method, body};

const SDP: &str = "application/sdp";

fn read(message: &Message) {
    if let Ok(Some(found)) = body::find(message, SDP, "session") {
        let all = message.body().as_ptr_range();
        let part = found.as_ptr_range();
        assert!(found.is_empty() || (all.start <= part.start && part.end <= all.end));
    }
}

fn with_body(kind: &str, data: Vec<u8>) -> Message {
    let mut message = Message::request(Method::Invite, "sip:m@x");
    message.set_body(kind, data);
    message
}

rostrum_fuzz::target!(|data| {
    // As a whole message, then as the body of one whose boundary is its first line.
    if let Ok(message) = Message::parse(Bytes::copy_from_slice(data), &Limits::default()) {
        read(&message);
    }
    let line = data.split(|b| *b == b'\n').next().unwrap_or_default();
    if let Ok(line) = std::str::from_utf8(line)
        && !line.contains(char::is_control)
    {
        let boundary = line.trim_start_matches('-').replace(['"', '\\'], "");
        for subtype in ["mixed", "alternative"] {
            let kind = format!("multipart/{subtype};boundary=\"{boundary}\"");
            read(&with_body(&kind, data.to_vec()));
            let mut optional = with_body(&kind, data.to_vec());
            optional.push_back(HeaderName::ContentDisposition, line);
            read(&optional);
        }
    }
    // In between delimiters that it does not contain itself.
    let boundary = "qXw7Zk";
    if !data
        .windows(boundary.len())
        .any(|w| w == boundary.as_bytes())
    {
        let mut wrapped = format!("--{boundary}\r\nContent-Type: {SDP}\r\n\r\n").into_bytes();
        wrapped.extend_from_slice(data);
        wrapped.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let message = with_body(&format!("multipart/mixed;boundary={boundary}"), wrapped);
        assert_eq!(body::find(&message, SDP, "session"), Ok(Some(data)));
    }
});
