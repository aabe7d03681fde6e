//! Restarts of the meeting manager between a 200 and its ACK (RFC 3261 §13.3.1.4).

mod common;

use std::time::Duration;

use common::*;
use sip::{HeaderName, Message, Method};

const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 0 RTP/AVP 96\r\n";

/// A call that got its 200, before the ACK; the process has been started anew since.
fn restarted_before_the_ack(with_offer: bool) -> (World, Ua, Message) {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = if with_offer {
        alice.invite(PHONE_OFFER, "")
    } else {
        alice.invite_without_offer("")
    };
    world.send(&invite);
    let ok = world.answer();
    alice.learn(&ok);
    world.restart_focus();
    (world, alice, ok)
}

#[test]
fn after_a_restart_the_2xx_is_repeated_until_the_ack() {
    for with_offer in [true, false] {
        let (mut world, mut alice, ok) = restarted_before_the_ack(with_offer);
        let again = world.answer();
        for header in [
            HeaderName::Via,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
            HeaderName::Contact,
            HeaderName::RecordRoute,
            HeaderName::Server,
        ] {
            assert_eq!(
                again.headers(header).collect::<Vec<_>>(),
                ok.headers(header).collect::<Vec<_>>()
            );
        }
        assert_eq!(body(&again), body(&ok));
        world.advance(Duration::from_secs(8));
        assert_eq!(world.sent().len(), 4, "as by the process before");
        let ack = alice.ack((!with_offer).then_some(ANSWER));
        world.send(&ack);
        world.advance(Duration::from_secs(70));
        assert!(world.sent().is_empty());
        let leg = world.switch().leg("team").clone();
        assert_eq!(leg.transports[0].remote_address, "192.0.2.10");
        assert_eq!(leg.media.len(), 1);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn after_a_restart_a_call_that_nobody_acknowledges_is_ended() {
    for with_offer in [true, false] {
        for answered in [true, false] {
            let (mut world, alice, _) = restarted_before_the_ack(with_offer);
            world.advance(Duration::from_millis(32_010));
            let mut sent = world.sent();
            let ours = sent.pop().unwrap();
            assert_eq!(*ours.method(), Method::Invite, "is anybody there?");
            assert!(ours.is_request());
            assert!(sent.iter().all(|m| code(m) == 200));
            assert_eq!(
                ours.header(HeaderName::Route),
                Some("<sip:127.0.0.1:5060;lr>")
            );
            if answered {
                let gone = alice.respond(&ours, 481, "", None);
                world.send(&gone);
            } else {
                world.advance(Duration::from_millis(32_010));
                let bye = world
                    .sent()
                    .into_iter()
                    .find(|m| *m.method() == Method::Bye)
                    .expect("a BYE");
                let ok = alice.respond(&bye, 200, "", None);
                world.send(&ok);
            }
            world.assert_nothing_left();
        }
    }
}

#[test]
fn after_a_restart_who_does_not_repeat_its_ack_is_asked_for_its_answer_and_stays() {
    for with_offer in [true, false] {
        let (mut world, mut alice, _) = restarted_before_the_ack(with_offer);
        world.advance(Duration::from_millis(32_010));
        let ours = world.sent().pop().unwrap();
        let answer = if with_offer { PHONE_RESUMED } else { ANSWER };
        let ok = alice.respond(&ours, 200, "", Some(answer));
        world.send(&ok);
        world.request(Method::Ack);
        world.advance(Duration::from_secs(70));
        assert!(world.sent().is_empty());
        let leg = world.switch().leg("team").clone();
        assert_eq!(leg.transports[0].remote_port, 4000);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn after_a_long_outage_only_an_answer_that_is_missing_is_asked_for() {
    for with_offer in [true, false] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let invite = if with_offer {
            alice.invite(PHONE_OFFER, "")
        } else {
            alice.invite_without_offer("")
        };
        world.send(&invite);
        let ok = world.answer();
        alice.learn(&ok);
        // Nothing runs meanwhile.
        world.now += Duration::from_secs(33);
        world.restart_focus();
        if with_offer {
            assert!(world.sent().is_empty());
            world.advance(Duration::from_secs(70));
            assert!(world.sent().is_empty());
        } else {
            let ours = world.request(Method::Invite);
            let ok = alice.respond(&ours, 200, "", Some(ANSWER));
            world.send(&ok);
            world.request(Method::Ack);
            assert_eq!(world.switch().leg("team").media.len(), 1);
        }
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn a_restart_before_the_record_knows_of_the_ack_costs_one_more_ack() {
    for with_offer in [true, false] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let invite = if with_offer {
            alice.invite(PHONE_OFFER, "")
        } else {
            alice.invite_without_offer("")
        };
        world.send(&invite);
        alice.learn(&world.answer());
        world.faults.hold_store = true;
        let ack = alice.ack((!with_offer).then_some(ANSWER));
        world.send(&ack);
        world.faults.hold_store = false;
        world.restart_focus();
        assert_eq!(code(&world.answer()), 200);
        world.send(&ack);
        world.settle();
        world.restart_focus();
        assert!(world.sent().is_empty(), "now the record knows");
        assert_eq!(world.switch().leg("team").media.len(), 1);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn a_join_is_two_writes_of_its_record_also_for_who_subscribes_at_once() {
    for (with_offer, subscribes) in [(true, false), (true, true), (false, false)] {
        let mut world = World::default();
        join(&mut world, &mut Ua::new("bob"));
        world.settle();
        let before = world.revision;
        let mut alice = Ua::new("alice");
        if with_offer {
            join(&mut world, &mut alice);
        } else {
            let invite = alice.invite_without_offer("");
            world.send(&invite);
            alice.learn(&world.answer());
            let ack = alice.ack(Some(ANSWER));
            world.send(&ack);
        }
        if subscribes {
            let text = alice.request("SUBSCRIBE", "Event: conference\r\nExpires: 600\r\n", None);
            world.send(&text);
            let notify = world.request(Method::Notify);
            let ok = alice.respond(&notify, 200, "", None);
            world.send(&ok);
        }
        world.advance(Duration::from_secs(60));
        assert_eq!(world.revision - before, 2, "{with_offer} {subscribes}");
        world.sent();
        world.restart_focus();
        assert!(world.sent().iter().all(|m| m.is_request()));
    }
}

#[test]
fn a_hold_whose_ack_a_restart_missed_goes_on() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.settle();
    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    let ok = world.answer();
    world.restart_focus();
    let again = world.answer();
    assert_eq!(again.cseq().unwrap(), ok.cseq().unwrap());
    assert_eq!(body(&again), body(&ok));
    let ack = alice.ack(None);
    world.send(&ack);
    world.advance(Duration::from_secs(40));
    assert!(world.sent().is_empty());
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn records_of_builds_that_kept_nothing_of_an_ack_are_read() {
    let (mut world, mut alice, _) = restarted_before_the_ack(true);
    world.sent();
    for (key, (value, _)) in &mut world.store {
        if key.starts_with("dialog/") || key.contains("/dialog/") {
            let mut json: serde_json::Value = serde_json::from_slice(value).unwrap();
            assert!(
                json.as_object_mut()
                    .unwrap()
                    .remove("unacknowledged")
                    .is_some()
            );
            *value = serde_json::to_vec(&json).unwrap().into();
        }
    }
    world.restart_focus();
    assert!(world.sent().is_empty());
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn after_a_restart_of_both_the_new_addresses_are_told_once_the_2xx_is_acknowledged() {
    for with_offer in [true, false] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let invite = if with_offer {
            alice.invite(PHONE_OFFER, "")
        } else {
            alice.invite_without_offer("")
        };
        world.send(&invite);
        alice.learn(&world.answer());
        world.switch().restart();
        world.restart_focus();
        assert!(body(&world.answer()).contains("m=audio 30000"));
        let ack = alice.ack((!with_offer).then_some(ANSWER));
        world.send(&ack);
        let ours = world.request(Method::Invite);
        assert!(body(&ours).contains("m=audio 31000"), "{}", body(&ours));
        let answer = if with_offer { PHONE_RESUMED } else { ANSWER };
        let ok = alice.respond(&ours, 200, "", Some(answer));
        world.send(&ok);
        world.request(Method::Ack);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}
