//! Joining and leaving, from both sides.

mod common;

use std::time::Duration;

use common::*;
use control::v1::leg_event::Kind;
use meeting_core::MeetingId;
use sip::{HeaderName, Method};

#[test]
fn a_phone_joins_and_hangs_up_and_nothing_is_left() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let ok = join(&mut world, &mut alice);

    assert_eq!(
        ok.header(HeaderName::Contact),
        Some("<sip:team@example.org>;isfocus")
    );
    assert!(ok.has_token(HeaderName::Allow, "UPDATE"));
    assert!(ok.has_token(HeaderName::Supported, "timer"));
    assert_eq!(ok.header(HeaderName::AllowEvents), Some("conference"));
    assert!(
        body(&ok).contains("198.51.100.1"),
        "the switch's address: {}",
        body(&ok)
    );
    assert!(
        body(&ok).contains("m=audio 30000 RTP/AVP 0 101"),
        "{}",
        body(&ok)
    );
    assert_eq!(world.switch().legs("team"), 1);
    assert_eq!(world.dialog_records("team"), 1);

    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn the_record_is_durable_before_the_200() {
    let mut world = World::default();
    world.faults.hold_store = true;
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    assert!(world.sent().iter().all(|m| code(m) == 100));
    world.release();
    assert_eq!(code(&world.answer()), 200);
    assert_eq!(world.dialog_records("team"), 1);
}

#[test]
fn a_join_changes_nothing_in_other_dialogs() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let mut bob = Ua::new("bob");
    join(&mut world, &mut alice);
    join(&mut world, &mut bob);
    world.advance(Duration::from_secs(5));
    assert!(world.sent().is_empty(), "no word to alice");
    assert_eq!(world.switch().legs("team"), 2);
    leave(&mut world, &mut alice);
    assert_eq!(world.switch().legs("team"), 1);
    leave(&mut world, &mut bob);
    world.assert_nothing_left();
}

#[test]
fn each_participant_has_a_source_of_its_own() {
    let mut world = World::default();
    for name in ["a", "b", "c", "d"] {
        join(&mut world, &mut Ua::new(name));
    }
    let view = world
        .focus
        .meeting(&MeetingId::new("team").unwrap())
        .unwrap();
    let mut sources: Vec<u32> = view.participants.iter().map(|p| p.source).collect();
    sources.sort_unstable();
    sources.dedup();
    assert_eq!(sources.len(), 4);
    assert!(!sources.contains(&0));
}

#[test]
fn media_timeout_ends_the_dialog_with_a_reason() {
    for (kind, text) in [
        (Kind::MediaTimeout, "No media came for too long"),
        (Kind::ConsentLost, "The media path was lost"),
        (Kind::DtlsFailed, "The media could not be secured"),
    ] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        join(&mut world, &mut alice);
        world.leg_event("team", kind);
        let bye = world.request(Method::Bye);
        let reason = bye.header(HeaderName::Reason).unwrap();
        assert!(reason.contains(text), "{reason}");
        assert_eq!(bye.request_uri(), "sip:alice@192.0.2.10:5080");
        assert_eq!(
            bye.header(HeaderName::Route),
            Some("<sip:127.0.0.1:5060;lr>")
        );
        let ok = alice.respond(&bye, 200, "", None);
        world.send(&ok);
        world.assert_nothing_left();
    }
}

#[test]
fn a_bye_that_nobody_answers_ends_by_its_time_out() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.leg_event("team", Kind::MediaTimeout);
    assert_eq!(world.switch().legs("team"), 0, "the leg goes at once");
    world.advance(Duration::from_secs(33));
    world.sent();
    world.assert_nothing_left();
}

#[test]
fn byes_of_both_sides_may_cross() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.leg_event("team", Kind::MediaTimeout);
    let ours = world.request(Method::Bye);
    leave(&mut world, &mut alice);
    let gone = alice.respond(&ours, 481, "", None);
    world.send(&gone);
    world.assert_nothing_left();
}

#[test]
fn a_first_call_meeting_ends_with_its_last_participant() {
    let mut world = World::default();
    let mut alice = Ua::calling("alice", "adhoc");
    let mut bob = Ua::calling("bob", "adhoc");
    join(&mut world, &mut alice);
    join(&mut world, &mut bob);
    leave(&mut world, &mut alice);
    assert_eq!(world.focus.counts().meetings, 1);
    leave(&mut world, &mut bob);
    assert_eq!(world.focus.counts().meetings, 0);
    world.assert_nothing_left();
}

#[test]
fn a_call_that_comes_while_the_meeting_ends_opens_it_again() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.faults.hold_apply = true;
    leave(&mut world, &mut alice);
    let mut bob = Ua::new("bob");
    let invite = bob.invite(PHONE_OFFER, "");
    world.send(&invite);
    world.release();
    let ok = world.answer();
    assert_eq!(code(&ok), 200);
    bob.learn(&ok);
    let ack = bob.ack(None);
    world.send(&ack);
    leave(&mut world, &mut bob);
    world.assert_nothing_left();
}

#[test]
fn many_who_join_at_once_cost_few_requests_to_the_switch() {
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut world = World::default();
    world.faults.hold_apply = true;
    for name in NAMES {
        let invite = Ua::new(name).invite(PHONE_OFFER, "");
        world.send(&invite);
    }
    world.release();
    let accepted = world.sent().iter().filter(|m| code(m) == 200).count();
    assert_eq!(accepted, NAMES.len());
    assert_eq!(
        world.switch().applies,
        2,
        "the first, and all others together"
    );
}

#[test]
fn shutdown_says_bye_to_everybody() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let mut bob = Ua::calling("bob", "other");
    join(&mut world, &mut alice);
    join(&mut world, &mut bob);
    world.focus.shutdown(world.now);
    world.run();
    for message in world.sent() {
        assert_eq!(*message.method(), Method::Bye);
        let who = if message.call_id() == alice.call_id {
            &alice
        } else {
            &bob
        };
        let ok = who.respond(&message, 200, "", None);
        world.send(&ok);
    }
    assert_eq!(world.focus.counts().meetings, 0);
    world.assert_nothing_left();
}

#[test]
fn a_draining_member_takes_no_new_meeting_and_goes_on_with_those_it_has() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.focus.drain();
    join(&mut world, &mut Ua::new("bob"));
    let invite = Ua::calling("carol", "other").invite(PHONE_OFFER, "");
    world.send(&invite);
    let refused = world.answer();
    assert_eq!(code(&refused), 503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
}

#[test]
fn requests_go_to_names_after_a_look_up_and_fail_where_there_is_none() {
    for (route, reached) in [
        ("sip:known.example;lr", true),
        ("sip:unknown.example;lr", false),
    ] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let invite = alice
            .invite(PHONE_OFFER, "")
            .replace("sip:127.0.0.1:5060;lr", route);
        world.send(&invite);
        let ok = world.answer();
        alice.learn(&ok);
        let ack = alice.ack(None);
        world.send(&ack);
        world.leg_event("team", Kind::MediaTimeout);
        let byes: Vec<_> = world
            .sent()
            .into_iter()
            .filter(|m| *m.method() == Method::Bye)
            .collect();
        if reached {
            assert_eq!(byes.len(), 1);
            let ok = alice.respond(&byes[0], 200, "", None);
            world.send(&ok);
        }
        world.assert_nothing_left();
    }
}

#[test]
fn a_phone_behind_nat_is_latched_and_others_are_not() {
    for (via, latch) in [
        ("192.0.2.10:5080;received=203.0.113.9", true),
        ("192.0.2.10:5080;received=192.0.2.10", false),
        ("192.0.2.10:5080", false),
        ("phone.example:5080;received=203.0.113.9", false),
    ] {
        let mut world = World::default();
        let invite = Ua::new("alice")
            .invite(PHONE_OFFER, "")
            .replace("UDP 192.0.2.10:5080", &format!("UDP {via}"));
        world.send(&invite);
        assert_eq!(
            world.switch().leg("team").transports[0].latch,
            latch,
            "{via}"
        );
    }
}
