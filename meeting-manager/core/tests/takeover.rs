//! A member is gone: another one goes on with its meetings, in the same dialogs.

mod common;

use std::time::Duration;

use common::*;
use control::v1::leg_event::Kind;
use meeting_core::{Focus, MeetingId, Ownership};
use sip::{HeaderName, Method};

fn team() -> MeetingId {
    MeetingId::new("team").unwrap()
}

fn dialogs(focus: &Focus) -> usize {
    focus.meeting(&team()).map_or(0, |m| m.participants.len())
}

/// A world with alice in it, whose member is gone, seen by `m2`.
fn orphaned(alice: &mut Ua) -> (World, Focus) {
    let mut world = World::default();
    join(&mut world, alice);
    world.settle();
    let before = world.another_member("m2");
    (world, before)
}

#[test]
fn meetings_of_a_member_that_is_gone_are_taken_over_at_once_and_nobody_is_told() {
    let mut alice = Ua::new("alice");
    let (mut world, _) = orphaned(&mut alice);
    let epoch = world.owners()[0].1.epoch;
    world.members(&["m2"]);
    assert_eq!(world.taken_over, [team()]);
    assert_eq!(dialogs(&world.focus), 1);
    assert!(world.sent().is_empty(), "the switch has the same addresses");
    assert!(world.owners()[0].1.epoch > epoch);
    let (seen, _) = world.switch().meetings["team"];
    assert!(seen > epoch.0, "the switch knows the new owner");

    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    assert_eq!(code(&world.answer()), 200);
    let ack = alice.ack(None);
    world.send(&ack);
    let info = alice.request("INFO", "", None);
    world.send(&info);
    assert_eq!(code(&world.answer()), 200);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn the_meetings_of_a_living_member_are_left_alone() {
    let mut alice = Ua::new("alice");
    let (mut world, _) = orphaned(&mut alice);
    let owner = world.config.member.clone();
    world.members(&["m2", &owner]);
    world.advance(Duration::from_secs(30));
    assert!(world.taken_over.is_empty());
    let info = alice.request("INFO", "", None);
    world.send(&info);
    let answer = world.answer();
    assert_eq!(code(&answer), 503, "no 481, which would end the call");
    assert!(answer.header(HeaderName::RetryAfter).is_some());
}

#[test]
fn whose_turn_it_is_not_waits_for_the_one_before_and_then_takes_over() {
    let mut late = 0;
    for name in ["m2", "m3", "m4", "m5"] {
        let mut alice = Ua::new("alice");
        let mut world = World::default();
        join(&mut world, &mut alice);
        world.settle();
        world.another_member(name);
        world.members(&["m2", "m3", "m4", "m5"]);
        if world.taken_over.is_empty() {
            late += 1;
            world.advance(Duration::from_secs(4));
        }
        assert_eq!(world.taken_over, [team()], "{name}");
    }
    assert_eq!(late, 3, "one of them is the first");
}

#[test]
fn a_request_that_comes_while_the_records_are_read_waits_for_them() {
    let mut alice = Ua::new("alice");
    let (mut world, _) = orphaned(&mut alice);
    world.faults.hold_claim = true;
    world.members(&["m2"]);
    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    let stranger = Ua {
        to_tag: "nobody".into(),
        ..Ua::new("bob")
    }
    .request("INFO", "", None);
    world.send(&stranger);
    let early = world.sent();
    assert!(early.iter().all(|m| code(m) == 100), "{:?}", lines(&early));
    world.release();
    let mut codes: Vec<u16> = world.sent().iter().map(code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 481]);
}

#[test]
fn a_claim_that_fails_is_tried_again_while_nobody_has_the_meeting() {
    let mut alice = Ua::new("alice");
    let (mut world, _) = orphaned(&mut alice);
    let failures = [meeting_core::StoreFailure::Unavailable; 2];
    world.faults.claim.extend(failures);
    world.members(&["m2"]);
    assert!(world.taken_over.is_empty());
    world.advance(Duration::from_secs(2));
    assert_eq!(world.taken_over, [team()]);
}

#[test]
fn a_member_that_has_no_lease_claims_nothing() {
    let mut alice = Ua::new("alice");
    let (mut world, _) = orphaned(&mut alice);
    world.focus.handle_standing(world.now, false);
    world.members(&["m2"]);
    world.advance(Duration::from_secs(5));
    assert!(world.taken_over.is_empty());
    world.focus.handle_standing(world.now, true);
    world.run();
    assert_eq!(world.taken_over, [team()]);
}

#[test]
fn a_deposed_member_that_wakes_up_hangs_up_on_nobody() {
    let mut alice = Ua::new("alice");
    let (mut world, before) = orphaned(&mut alice);
    world.members(&["m2"]);
    assert_eq!(dialogs(&world.focus), 1);
    let records = world.store.clone();
    let heir = std::mem::replace(&mut world.focus, before);
    // What was due while it was paused comes all at once, before any watch has told it.
    world.leg_event_of_old("team", Kind::MediaTimeout);
    world.advance(Duration::from_secs(40));
    let sent = world.sent();
    assert!(
        sent.iter().all(|m| *m.method() != Method::Bye),
        "{:?}",
        lines(&sent)
    );
    assert_eq!(world.store, records, "it has written nothing");
    assert_eq!(world.focus.counts().meetings, 0);
    world.focus = heir;
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_member_that_learns_of_a_new_owner_forgets_the_meeting_in_silence() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let (id, owner) = world.owners().remove(0);
    // An older record, as a watch that begins again may bring, changes nothing.
    let old = Ownership {
        member: "m2".into(),
        epoch: cluster::Revision(owner.epoch.0 - 1),
    };
    world.focus.handle_owner(world.now, &id, Some(old));
    assert_eq!(dialogs(&world.focus), 1);
    let new = Ownership {
        member: "m2".into(),
        epoch: cluster::Revision(owner.epoch.0 + 1),
    };
    world.focus.handle_owner(world.now, &id, Some(new));
    world.run();
    assert!(world.sent().is_empty());
    assert_eq!(world.focus.counts().meetings, 0);
    assert_eq!(world.switch().legs("team"), 1, "its media go on");
}

#[test]
fn while_the_store_is_away_nobody_is_let_in_but_calls_go_on_and_may_end() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let mut bob = Ua::new("bob");
    join(&mut world, &mut alice);
    join(&mut world, &mut bob);
    world.settle();
    world.focus.handle_standing(world.now, false);
    world.advance(Duration::from_secs(3));
    world.faults.hold_store = true;

    let mut carol = Ua::new("carol");
    let invite = carol.invite(PHONE_OFFER, "");
    world.send(&invite);
    let answer = world.answer();
    let ack = carol.ack_refusal(&answer);
    world.send(&ack);
    assert_eq!(code(&answer), 503);
    assert!(answer.header(HeaderName::RetryAfter).is_some());
    let info = alice.request("INFO", "", None);
    world.send(&info);
    assert_eq!(code(&world.answer()), 200);
    let refresh = alice.update(None, "");
    world.send(&refresh);
    assert_eq!(code(&world.answer()), 200, "a refresh changes no record");
    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    let answer = world.answer();
    assert_eq!(code(&answer), 503, "at once, not after a time-out");
    let ack = alice.ack_refusal(&answer);
    world.send(&ack);
    leave(&mut world, &mut bob);
    assert_eq!(dialogs(&world.focus), 2, "its record is still there");

    world.focus.handle_standing(world.now, true);
    world.release();
    world.settle();
    assert_eq!(dialogs(&world.focus), 1);
    assert_eq!(world.dialog_records("team"), 1);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn an_invite_that_comes_again_to_the_heir_is_answered_in_the_dialog_it_made() {
    let mut alice = Ua::new("alice");
    let mut world = World::default();
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    // The 200 was written down, and lost with the member that sent it.
    let lost = world.answer();
    world.another_member("m2");
    world.members(&["m2"]);
    world.sent();
    world.send(&invite);
    let again = world.answer();
    assert_eq!(code(&again), 200);
    assert_eq!(
        again.to().unwrap().tag(),
        lost.to().unwrap().tag(),
        "one dialog, not two"
    );
    assert_eq!(body(&again), body(&lost));
    alice.learn(&again);
    let ack = alice.ack(None);
    world.send(&ack);
    assert_eq!(dialogs(&world.focus), 1);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}
