//! The INVITE that is measured, and what a proxy does to it.

use bytes::Bytes;
use sip::{HeaderName, Limits, Message, Method};

/// A phone's INVITE as its registrar receives it: 14 headers and an SDP offer, 1,030 bytes.
pub const INVITE: &[u8] = b"INVITE sip:meeting-42@example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.33:5060;branch=z9hG4bK-524287-1---a1b2c3d4e5f60718;rport\r\n\
Max-Forwards: 70\r\n\
Route: <sip:edge1.example.com;lr;transport=udp>\r\n\
Contact: <sip:alice@192.0.2.33:5060;transport=udp>;+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\"\r\n\
To: <sip:meeting-42@example.com>\r\n\
From: \"Alice Example\" <sip:alice@example.com>;tag=8f3a2b71\r\n\
Call-ID: 98asjd6s7d6f5sd7f65sd76f5sd76f57@192.0.2.33\r\n\
CSeq: 1 INVITE\r\n\
Allow: INVITE, ACK, CANCEL, BYE, REFER, OPTIONS, NOTIFY, SUBSCRIBE, UPDATE, PRACK\r\n\
Supported: replaces, 100rel, timer, outbound\r\n\
Session-Expires: 1800;refresher=uac\r\n\
User-Agent: Softphone 5.1 (Linux)\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 302\r\n\
\r\n\
v=0\r\n\
o=alice 3870239 3870239 IN IP4 192.0.2.33\r\n\
s=call\r\n\
c=IN IP4 192.0.2.33\r\n\
t=0 0\r\n\
m=audio 40000 RTP/AVP 96 9 0 8 101\r\n\
a=rtpmap:96 opus/48000/2\r\n\
a=fmtp:96 useinbandfec=1\r\n\
a=rtpmap:9 G722/8000\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=fmtp:101 0-16\r\n\
a=sendrecv\r\n";

/// Parses, reads what matching and routing need, edits as a proxy that records its route, prints. `check`:
/// every rule of [`Message::defect`] too, as for a message from outside.
///
/// # Panics
/// When the message is not what [`INVITE`] is.
#[must_use]
pub fn proxy(received: Bytes, limits: &Limits, check: bool) -> Bytes {
    let mut m = Message::parse(received, limits).expect("an INVITE");
    assert!(!check || m.defect().is_none());
    read(&m);
    let hops = m
        .number(HeaderName::MaxForwards)
        .expect("a number")
        .expect("Max-Forwards");
    let mut digits = [0u8; 3];
    m.set(HeaderName::MaxForwards, decimal(hops - 1, &mut digits));
    assert!(m.drop_front(HeaderName::Route));
    m.push_front(
        HeaderName::RecordRoute,
        "<sip:edge1.example.com;lr;transport=udp>",
    );
    m.push_front(
        HeaderName::Via,
        "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK9d1f0c77aa35;rport",
    );
    m.to_bytes()
}

/// Via, From, To, Call-ID and CSeq, in place.
fn read(m: &Message) {
    let via = m.top_via_ref().expect("Via");
    assert_eq!(via.branch().len(), 35);
    assert_eq!(via.params.get("rport"), Some(""));
    assert!(m.from_ref().expect("From").tag().is_some());
    assert!(m.to_ref().expect("To").tag().is_none());
    assert_eq!(m.call_id().len(), 43);
    let cseq = m.cseq().expect("CSeq");
    assert_eq!((cseq.number, cseq.method), (1, Method::Invite));
}

/// A number up to 255 as text.
fn decimal(n: u32, digits: &mut [u8; 3]) -> &str {
    let mut n = n;
    let mut from = digits.len();
    while from > 0 && (n > 0 || from == digits.len()) {
        from -= 1;
        digits[from] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
    }
    std::str::from_utf8(&digits[from..]).unwrap_or("0")
}
