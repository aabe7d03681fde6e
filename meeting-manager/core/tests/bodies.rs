//! Bodies that are not just a session description (RFC 3261 §8.2.3, RFC 5621).

mod common;

use common::*;
use sip::HeaderName;

fn call(kind: &str, extra: &str, text: &str) -> sip::Message {
    let mut world = World::default();
    let invite = Ua::new("alice").request("INVITE", extra, Some((kind, text)));
    world.send(&invite);
    world.answer()
}

fn mixed(other: &str) -> String {
    format!(
        "--x\r\nContent-Type: application/sdp\r\n\r\n{PHONE_OFFER}\r\n--x\r\n{other}\r\n\r\n\u{1}\u{0}\r\n--x--\r\n"
    )
}

#[test]
fn an_offer_in_a_multipart_body_is_answered() {
    let optional =
        "Content-Type: application/isup\r\nContent-Disposition: signal;handling=optional";
    let ok = call("multipart/mixed;boundary=x", "", &mixed(optional));
    assert_eq!(code(&ok), 200, "{}", ok.reason());
    assert!(body(&ok).contains("m=audio 30000 RTP/AVP 0 101"));

    let required = "Content-Type: application/isup";
    let refused = call("multipart/mixed;boundary=x", "", &mixed(required));
    assert_eq!(code(&refused), 415);
    assert_eq!(
        refused.header(HeaderName::Accept),
        Some("application/sdp, multipart/mixed, multipart/alternative")
    );
    assert_eq!(code(&call("multipart/mixed", "", "--x--")), 400);
}

#[test]
fn a_body_that_need_not_be_understood_is_passed_over() {
    let extra = "Content-Disposition: signal;handling=optional\r\n";
    let ok = call("application/isup", extra, "\u{1}\u{0}");
    assert_eq!(code(&ok), 200, "{}", ok.reason());
    assert!(body(&ok).contains("m=audio"), "it offered nothing: we do");
    assert_eq!(code(&call("application/isup", "", "\u{1}\u{0}")), 415);
    let required = "Content-Disposition: signal;handling=required\r\n";
    assert_eq!(code(&call("application/isup", required, "\u{1}\u{0}")), 415);
}

#[test]
fn an_answer_in_a_multipart_ack_is_taken() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite_without_offer("");
    world.send(&invite);
    alice.learn(&world.answer());
    let answer = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
                  m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 0 RTP/AVP 96\r\n";
    let text = format!("--x\r\nContent-Type: application/sdp\r\n\r\n{answer}\r\n--x--\r\n");
    let ack = alice.ack(Some(&text)).replace(
        "application/sdp\r\nContent-Length",
        "multipart/mixed;boundary=x\r\nContent-Length",
    );
    world.send(&ack);
    assert!(world.sent().is_empty());
    assert_eq!(world.switch().leg("team").transports[0].remote_port, 4000);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}
