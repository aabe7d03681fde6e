//! What belongs to nothing is found and put right.

mod common;

use std::time::Duration;

use bytes::Bytes;
use cluster::records::keys;
use common::*;
use control::v1 as ctl;
use meeting_core::{Held, MeetingId, Orphans, Ownership, SwitchId};

fn team() -> MeetingId {
    MeetingId::new("team").unwrap()
}

/// Shows the focus what the switch holds.
fn sweep(world: &mut World) -> Orphans {
    let held = world.switch().meetings.iter();
    let held: Vec<Held> = held
        .map(|(meeting, (epoch, legs))| Held {
            meeting: meeting.clone(),
            epoch: *epoch,
            legs: legs.keys().cloned().collect(),
        })
        .collect();
    let switch = SwitchId::new("sw1");
    let orphans = world.focus.handle_inventory(world.now, &switch, &held);
    world.run();
    orphans
}

/// Nothing at first sight; this at the second, and nothing any more after it.
fn found(world: &mut World, expected: Orphans) {
    assert_eq!(sweep(world), Orphans::default(), "it may be under way");
    assert_eq!(sweep(world), expected);
    assert_eq!(sweep(world), Orphans::default());
    assert_eq!(sweep(world), Orphans::default(), "it was put right");
}

fn in_meeting() -> World {
    let mut world = World::default();
    join(&mut world, &mut Ua::new("alice"));
    join(&mut world, &mut Ua::new("bob"));
    world.settle();
    world
}

fn legs(world: &mut World) -> &mut std::collections::BTreeMap<String, ctl::Leg> {
    &mut world.switch().meetings.get_mut("team").unwrap().1
}

#[test]
fn a_leg_without_a_dialog_is_removed() {
    let mut world = in_meeting();
    legs(&mut world).insert("ghost".into(), ctl::Leg::default());
    let expected = Orphans {
        legs: 1,
        ..Orphans::default()
    };
    found(&mut world, expected);
    assert_eq!(world.switch().legs("team"), 2);
    assert!(world.sent().is_empty(), "nobody hears of it");
}

#[test]
fn a_dialog_without_a_leg_gets_it_again_also_where_all_are_gone() {
    for all in [false, true] {
        let mut world = in_meeting();
        match all {
            true => world.switch().meetings.clear(),
            false => {
                legs(&mut world).pop_first();
            }
        }
        let expected = Orphans {
            dialogs: if all { 2 } else { 1 },
            ..Orphans::default()
        };
        found(&mut world, expected);
        assert_eq!(world.switch().legs("team"), 2);
    }
}

#[test]
fn a_meeting_that_nobody_has_is_ended_on_the_switch_and_one_of_another_member_is_not() {
    let mut world = in_meeting();
    let stray = (3, [("leg".to_owned(), ctl::Leg::default())].into());
    world
        .switch()
        .meetings
        .insert("stray".into(), stray.clone());
    world.switch().meetings.insert("theirs".into(), stray);
    let owner = Ownership {
        member: "m2".into(),
        epoch: cluster::Revision(3),
    };
    let id = MeetingId::new("theirs").unwrap();
    world.focus.handle_owner(world.now, &id, Some(owner));
    let expected = Orphans {
        meetings: 1,
        ..Orphans::default()
    };
    found(&mut world, expected);
    assert_eq!(world.switch().legs("stray"), 0);
    assert_eq!(world.switch().legs("theirs"), 1);
    assert_eq!(world.switch().legs("team"), 2);
}

#[test]
fn who_joins_or_leaves_meanwhile_is_no_orphan() {
    let mut world = in_meeting();
    sweep(&mut world);
    world.faults.hold_apply = true;
    let invite = Ua::new("carol").invite(PHONE_OFFER, "");
    world.send(&invite);
    assert_eq!(sweep(&mut world), Orphans::default());
    assert_eq!(sweep(&mut world), Orphans::default());
    world.release();
    world.advance(Duration::from_secs(1));
    assert_eq!(sweep(&mut world), Orphans::default());
    assert_eq!(world.switch().legs("team"), 3);
}

#[test]
fn a_record_of_no_dialog_is_deleted() {
    let mut world = in_meeting();
    let key = keys::dialog("team", "ghost");
    world
        .store
        .insert(key.clone(), (Bytes::from_static(b"{}"), 1));
    let prefix = keys::dialogs("team");
    let look = |world: &mut World| {
        let keys = world.store.keys().filter_map(|k| k.strip_prefix(&prefix));
        let keys: Vec<String> = keys.map(str::to_owned).collect();
        let orphans = world.focus.handle_records(&team(), &keys);
        world.run();
        orphans.records
    };
    assert_eq!(look(&mut world), 0);
    assert_eq!(look(&mut world), 1);
    assert_eq!(look(&mut world), 0);
    assert!(!world.store.contains_key(&key));
    assert_eq!(world.dialog_records("team"), 2);
}
