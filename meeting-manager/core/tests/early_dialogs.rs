//! Early dialogs with reliable provisional responses (RFC 3262): PRACK and UPDATE (RFC 3311) that overlap, in every
//! order, while the switch or the store takes its time. The INVITE gets its final response whatever happens.

mod common;

use std::time::Duration;

use common::*;
use meeting_core::{ApplyFailure, StoreFailure};
use sip::{HeaderName, Message, Method};

/// An INVITE that was answered 183: what makes its PRACK.
struct Early {
    rack: String,
    invite: u32,
}

fn ring(world: &mut World, ua: &mut Ua) -> Early {
    let invite = ua.invite(PHONE_OFFER, "Require: 100rel\r\n");
    world.send(&invite);
    let progress = world.answer();
    assert_eq!(code(&progress), 183);
    ua.learn(&progress);
    let rseq = progress.header(HeaderName::RSeq).unwrap();
    Early {
        rack: format!("RAck: {rseq} {} INVITE\r\n", ua.cseq),
        invite: ua.cseq,
    }
}

/// Final responses to requests of a method, without repetitions.
fn finals(sent: &[Message], method: &Method) -> Vec<u16> {
    let to = |m: &&Message| m.method() == method && m.status().is_some_and(|s| s.get() >= 200);
    let mut codes: Vec<u16> = sent.iter().filter(to).map(code).collect();
    codes.dedup();
    codes
}

/// The call is there: the ACK is taken, and everything goes with its BYE.
fn confirm(world: &mut World, ua: &mut Ua, early: &Early) {
    let ack = ua.ack_of(early.invite, None);
    world.send(&ack);
    world.advance(Duration::from_secs(10));
    assert!(world.sent().is_empty(), "nothing is repeated");
    leave(world, ua);
    world.assert_nothing_left();
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Slow {
    Nothing,
    Switch,
    Store,
    Both,
}

fn hold(world: &mut World, slow: Slow) {
    world.faults.hold_apply = matches!(slow, Slow::Switch | Slow::Both);
    world.faults.hold_store = matches!(slow, Slow::Store | Slow::Both);
}

#[test]
fn update_and_prack_in_either_order_leave_no_invite_without_its_200() {
    for slow in [Slow::Nothing, Slow::Switch, Slow::Store, Slow::Both] {
        for update_first in [true, false] {
            let case = format!("{slow:?}, update first: {update_first}");
            let mut world = World::default();
            let mut alice = Ua::new("alice");
            let early = ring(&mut world, &mut alice);
            hold(&mut world, slow);
            let send_update = |world: &mut World, alice: &mut Ua| {
                let update = alice.update(Some(PHONE_HOLD), "");
                world.send(&update);
            };
            if update_first {
                send_update(&mut world, &mut alice);
            }
            let prack = alice.request("PRACK", &early.rack, None);
            world.send(&prack);
            if !update_first {
                send_update(&mut world, &mut alice);
            }
            world.release();
            let sent = world.sent();
            for method in [Method::Prack, Method::Update, Method::Invite] {
                assert_eq!(finals(&sent, &method), [200], "{method}; {case}");
            }
            assert!(!world.switch().leg("team").media[0].send, "{case}");
            confirm(&mut world, &mut alice, &early);
        }
    }
}

#[test]
fn an_update_that_fails_in_an_early_dialog_leaves_the_invite_and_its_media_as_they_were() {
    for prack_first in [true, false] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let early = ring(&mut world, &mut alice);
        if prack_first {
            world.faults.hold_store = true;
            let prack = alice.request("PRACK", &early.rack, None);
            world.send(&prack);
        }
        world.faults.apply.push_back(ApplyFailure::Refused);
        let update = alice.update(Some(PHONE_HOLD), "");
        world.send(&update);
        world.release();
        if !prack_first {
            let prack = alice.request("PRACK", &early.rack, None);
            world.send(&prack);
        }
        let sent = world.sent();
        assert_eq!(finals(&sent, &Method::Update), [503]);
        assert_eq!(finals(&sent, &Method::Prack), [200]);
        assert_eq!(finals(&sent, &Method::Invite), [200]);
        let media = &world.switch().leg("team").media[0];
        assert!(media.send && media.receive, "the leg is not on hold");
        confirm(&mut world, &mut alice, &early);
    }
}

#[test]
fn a_prack_with_an_offer_during_an_update_is_refused_and_both_get_their_answers() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let early = ring(&mut world, &mut alice);
    world.faults.hold_apply = true;
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    let prack = alice.request(
        "PRACK",
        &early.rack,
        Some(("application/sdp", PHONE_RESUMED)),
    );
    world.send(&prack);
    let refused = world.answer();
    assert_eq!(
        (code(&refused), refused.method().clone()),
        (500, Method::Prack)
    );
    assert!(refused.header(HeaderName::RetryAfter).is_some());
    world.release();
    let sent = world.sent();
    assert_eq!(finals(&sent, &Method::Update), [200]);
    assert_eq!(finals(&sent, &Method::Invite), [200]);
    confirm(&mut world, &mut alice, &early);
}

#[test]
fn without_a_prack_an_update_under_way_is_answered_too() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    ring(&mut world, &mut alice);
    world.advance(Duration::from_secs(31));
    world.sent();
    world.faults.hold_apply = true;
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    world.advance(Duration::from_secs(2));
    let sent = world.sent();
    assert_eq!(finals(&sent, &Method::Invite), [504]);
    assert_eq!(finals(&sent, &Method::Update), [487]);
    world.release();
    world.assert_nothing_left();
}

#[test]
fn cancel_during_an_update_of_an_early_dialog_ends_both() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    ring(&mut world, &mut alice);
    let cancel = alice.cancel();
    world.faults.hold_apply = true;
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    world.send(&cancel);
    world.release();
    let sent = world.sent();
    assert_eq!(finals(&sent, &Method::Invite), [487]);
    assert_eq!(finals(&sent, &Method::Update), [487]);
    assert_eq!(finals(&sent, &Method::Cancel), [200]);
    world.assert_nothing_left();
}

#[test]
fn a_store_that_fails_once_under_an_update_costs_the_update_only() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let early = ring(&mut world, &mut alice);
    world.faults.hold_store = true;
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    let prack = alice.request("PRACK", &early.rack, None);
    world.send(&prack);
    world.faults.store.push_back(StoreFailure::Unavailable);
    world.release();
    let sent = world.sent();
    assert_eq!(finals(&sent, &Method::Update), [503]);
    assert_eq!(finals(&sent, &Method::Invite), [200]);
    confirm(&mut world, &mut alice, &early);
}

#[test]
fn an_offer_is_not_answered_before_a_record_has_its_outcome() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let early = ring(&mut world, &mut alice);
    world.faults.hold_store = true;
    let prack = alice.request("PRACK", &early.rack, None);
    world.send(&prack);
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    world.sent();
    // The record that was asked for before the UPDATE came is written, the next one is not yet.
    world.release_one();
    assert!(finals(&world.sent(), &Method::Update).is_empty());
    world.release();
    let sent = world.sent();
    assert_eq!(finals(&sent, &Method::Update), [200]);
    assert_eq!(finals(&sent, &Method::Invite), [200]);
    confirm(&mut world, &mut alice, &early);
}
