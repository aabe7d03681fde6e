//! Which address family is offered to who offers nothing, and what if the answer is of the other one.

mod common;

use common::*;
use sip::{HeaderName, Method};

fn answer(address: &str) -> String {
    let family = if address.contains(':') { "IP6" } else { "IP4" };
    format!(
        "v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 0 RTP/AVP 96\r\n"
    )
}

/// INVITE without an offer from a client with that address; `received`: its first hop saw another one.
fn invite(ua: &mut Ua, address: &str, received: &str) -> String {
    ua.invite_without_offer("").replace(
        "Via: SIP/2.0/UDP 192.0.2.10:5080;",
        &format!("Via: SIP/2.0/UDP {address}:5080;{received}"),
    )
}

const V6: &str = "c=IN IP6 2001:db8::1\r\n";
const V4: &str = "c=IN IP4 198.51.100.1\r\n";

#[test]
fn a_caller_without_an_offer_is_offered_the_family_it_signals_with() {
    for (address, received, expected) in [
        ("192.0.2.10", "", V4),
        ("[2001:db8::10]", "", V6),
        ("phone.example", "received=2001:db8::10;", V6),
        ("[2001:db8::10]", "received=192.0.2.10;", V4),
        ("192.0.2.10", "received=[2001:db8::10];", V6),
        // By its Contact.
        ("phone.example", "", V4),
    ] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let text = invite(&mut alice, address, received);
        world.send(&text);
        let ok = world.answer();
        assert_eq!(code(&ok), 200, "{address} {received}");
        assert!(
            body(&ok).contains(expected),
            "{address} {received}: {}",
            body(&ok)
        );
        alice.learn(&ok);
        let theirs = if expected == V6 {
            "2001:db8::10"
        } else {
            "192.0.2.10"
        };
        let ack = alice.ack(Some(&answer(theirs)));
        world.send(&ack);
        assert!(world.sent().is_empty(), "it knows all");
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn a_contact_tells_the_family_where_no_via_does() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let text = invite(&mut alice, "phone.example", "").replace(
        "Contact: <sip:alice@192.0.2.10:5080>",
        "Contact: <sip:alice@[2001:db8::10]:5080>",
    );
    world.send(&text);
    assert!(body(&world.answer()).contains(V6));
}

#[test]
fn a_switch_of_one_family_offers_that_whatever_the_caller_signals_with() {
    for (only, address, expected) in [
        (true, "192.0.2.10", V6),
        (true, "[2001:db8::10]", V6),
        (false, "192.0.2.10", V4),
        (false, "[2001:db8::10]", V4),
    ] {
        let mut world = World::default();
        world.switch().only = Some(only);
        let mut alice = Ua::new("alice");
        let text = invite(&mut alice, address, "");
        world.send(&text);
        let ok = world.answer();
        assert_eq!(code(&ok), 200, "{}", ok.reason());
        assert!(body(&ok).contains(expected), "{}", body(&ok));
        alice.learn(&ok);
        let theirs = if only { "2001:db8::10" } else { "192.0.2.10" };
        let ack = alice.ack(Some(&answer(theirs)));
        world.send(&ack);
        assert!(world.sent().is_empty());
        let leg = world.switch().leg("team").clone();
        assert_eq!(leg.transports[0].remote_address, theirs);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn a_switch_without_any_address_refuses_a_caller_without_an_offer() {
    let mut world = World::default();
    world.switch().only = Some(true);
    world.faults.refuse_leg = Some("no address".into());
    world.faults.unsupported = true;
    let mut alice = Ua::new("alice");
    // IPv6 is refused by the fault, IPv4 by the switch.
    let text = invite(&mut alice, "[2001:db8::10]", "");
    world.send(&text);
    let refused = world.answer();
    assert_eq!(code(&refused), 488);
    assert!(
        refused
            .header(HeaderName::Warning)
            .unwrap()
            .starts_with("301 ")
    );
    let ack = alice.ack_refusal(&refused);
    world.send(&ack);
    world.assert_nothing_left();
}

#[test]
fn an_answer_of_the_other_family_has_the_new_address_told_by_reinvite() {
    for reliable in [false, true] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let extra = if reliable { "Require: 100rel\r\n" } else { "" };
        let text = alice.invite_without_offer(extra);
        world.send(&text);
        let first = world.answer();
        assert!(body(&first).contains(V4));
        alice.learn(&first);
        let theirs = answer("2001:db8::10");
        if reliable {
            let rseq = first.header(HeaderName::RSeq).unwrap();
            let rack = format!("RAck: {rseq} {} INVITE\r\n", alice.cseq);
            let prack = alice.request("PRACK", &rack, Some(("application/sdp", &theirs)));
            world.send(&prack);
            assert_eq!(world.sent().len(), 2);
            let ack = alice.ack_of(alice.cseq - 1, None);
            world.send(&ack);
        } else {
            let ack = alice.ack(Some(&theirs));
            world.send(&ack);
        }
        let ours = world.request(Method::Invite);
        let sdp = body(&ours);
        assert!(sdp.contains(V6) && sdp.contains("m=audio 30500"), "{sdp}");
        let ok = alice.respond(&ours, 200, "", Some(&theirs));
        world.send(&ok);
        world.request(Method::Ack);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}
