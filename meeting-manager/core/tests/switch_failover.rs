//! A switch is gone or drains: its meetings go on at another one.

mod common;

use std::time::Duration;

use common::*;
use meeting_core::{SwitchId, SwitchInfo};
use sip::{HeaderName, Message, Method};

/// A world with two switches, the meeting of `who` on the first.
fn on_first(who: &mut [Ua]) -> World {
    let mut world = World::default();
    world.switches.insert("sw2".into(), other());
    world.announce_switches();
    for ua in who.iter_mut() {
        join(&mut world, ua);
    }
    world.settle();
    assert_eq!(legs(&world), [who.len(), 0]);
    world
}

fn other() -> FakeSwitch {
    FakeSwitch {
        instance: 5,
        ..FakeSwitch::default()
    }
}

/// Legs of the meeting on either switch.
fn legs(world: &World) -> [usize; 2] {
    ["sw1", "sw2"].map(|id| world.switches.get(id).map_or(0, |s| s.legs("team")))
}

fn gone(world: &mut World) {
    world.switches.remove("sw1");
    world.announce_switches();
    world.run();
}

fn drain(world: &mut World, drains: &[&str]) {
    let info = |(id, switch): (&String, &FakeSwitch)| {
        let info = SwitchInfo {
            instance: format!("i{}", switch.instance),
            draining: drains.contains(&id.as_str()),
            ..SwitchInfo::default()
        };
        (SwitchId::new(id), info)
    };
    let infos = world.switches.iter().map(info).collect();
    world.focus.handle_switches(world.now, infos);
    world.run();
}

/// The re-INVITEs that were sent, each of which tells of the second switch.
fn reinvites(world: &mut World) -> Vec<Message> {
    let sent = world.sent();
    let invites: Vec<Message> = sent
        .into_iter()
        .filter(|m| m.is_request() && *m.method() == Method::Invite)
        .collect();
    for invite in &invites {
        assert!(body(invite).contains("m=audio 35000"), "{}", body(invite));
    }
    invites
}

fn accept(world: &mut World, who: &[Ua], invites: &[Message]) {
    for invite in invites {
        let ua = who.iter().find(|ua| ua.call_id == invite.call_id());
        let ok = ua.unwrap().respond(invite, 200, "", Some(PHONE_RESUMED));
        world.send(&ok);
        world.request(Method::Ack);
    }
}

#[test]
fn meetings_of_a_switch_that_is_gone_are_made_on_another_one_and_everybody_is_told() {
    let mut who = [Ua::new("alice"), Ua::new("bob")];
    let mut world = on_first(&mut who);
    gone(&mut world);
    assert_eq!(legs(&world), [0, 2], "before anybody is told");
    let invites = reinvites(&mut world);
    assert_eq!(invites.len(), 2);
    accept(&mut world, &who, &invites);
    for ua in &mut who {
        leave(&mut world, ua);
    }
    world.assert_nothing_left();
}

#[test]
fn who_comes_while_a_switch_is_gone_is_let_in_on_the_other_one() {
    let mut who = [Ua::new("alice")];
    let mut world = on_first(&mut who);
    // It does not answer, and is not known to be gone yet.
    world.faults.hold_apply = true;
    let mut bob = Ua::new("bob");
    let invite = bob.invite(PHONE_OFFER, "");
    world.send(&invite);
    world.held.clear();
    world.faults.hold_apply = false;
    world.sent();
    gone(&mut world);
    let sent = world.sent();
    let ok = sent.iter().find(|m| m.status().is_some()).unwrap();
    assert_eq!(code(ok), 200);
    assert!(body(ok).contains("m=audio 35000"));
    assert_eq!(legs(&world), [0, 2]);
}

#[test]
fn a_call_waits_for_a_switch_when_there_is_none_at_the_moment() {
    let mut who = [Ua::new("alice")];
    let mut world = World::default();
    join(&mut world, &mut who[0]);
    world.settle();
    gone(&mut world);
    world.advance(Duration::from_secs(3));
    assert!(world.sent().is_empty());
    world.switches.insert("sw2".into(), other());
    world.announce_switches();
    world.advance(Duration::from_secs(1));
    let invites = reinvites(&mut world);
    assert_eq!(invites.len(), 1);
    accept(&mut world, &who, &invites);
    leave(&mut world, &mut who[0]);
    world.assert_nothing_left();
}

#[test]
fn a_switch_that_drains_forwards_until_everybody_knows_the_new_place() {
    let mut who = [Ua::new("alice"), Ua::new("bob")];
    let mut world = on_first(&mut who);
    drain(&mut world, &["sw1"]);
    assert_eq!(legs(&world), [2, 2], "made before the old ones are broken");
    let invites = reinvites(&mut world);
    accept(&mut world, &who, &invites[..1]);
    assert_eq!(legs(&world), [2, 2], "one has not answered");
    accept(&mut world, &who, &invites[1..]);
    assert_eq!(legs(&world), [0, 2]);
    drain(&mut world, &["sw1"]);
    assert!(world.sent().is_empty(), "told once");
    for ua in &mut who {
        leave(&mut world, ua);
    }
    world.assert_nothing_left();
}

#[test]
fn a_switch_that_drains_does_not_wait_for_ever_for_somebody_who_does_not_answer() {
    let mut who = [Ua::new("alice")];
    let mut world = on_first(&mut who);
    drain(&mut world, &["sw1"]);
    assert_eq!(reinvites(&mut world).len(), 1);
    world.advance(Duration::from_secs(9));
    assert_eq!(legs(&world), [1, 1]);
    world.advance(Duration::from_secs(2));
    assert_eq!(legs(&world), [0, 1]);
}

#[test]
fn meetings_stay_on_a_switch_that_drains_where_there_is_no_other() {
    let mut who = [Ua::new("alice")];
    let mut world = on_first(&mut who);
    drain(&mut world, &["sw1", "sw2"]);
    assert!(world.sent().is_empty());
    assert_eq!(legs(&world), [1, 0]);
}

#[test]
fn the_second_switch_may_be_gone_too_before_anybody_has_answered() {
    let mut who = [Ua::new("alice")];
    let mut world = on_first(&mut who);
    drain(&mut world, &["sw1"]);
    let first = reinvites(&mut world).remove(0);
    world.switches.remove("sw2");
    world.announce_switches();
    world.run();
    // The answer to the first offer still comes, and then there is another one.
    let ok = who[0].respond(&first, 200, "", Some(PHONE_RESUMED));
    world.send(&ok);
    let next = world
        .sent()
        .into_iter()
        .find(|m| *m.method() == Method::Invite && m.is_request())
        .unwrap();
    assert!(body(&next).contains("m=audio 30000"), "{}", body(&next));
    assert_eq!(next.header(HeaderName::CallId), Some("call-alice"));
}
