//! Whatever fails, at whatever step: nothing stays allocated.

mod common;

use std::time::Duration;

use common::*;
use meeting_core::{ApplyFailure, StoreFailure};
use sip::{HeaderName, Method};

type Break = fn(&mut World);

/// (what fails, how, status of the answer)
const JOIN_FAILURES: &[(&str, Break, u16)] = &[
    (
        "claim refused",
        |w| w.faults.claim.push_back(StoreFailure::Unavailable),
        503,
    ),
    (
        "claim unknown",
        |w| w.faults.claim.push_back(StoreFailure::Unknown),
        503,
    ),
    (
        "meeting is another's",
        |w| w.faults.theirs = Some("other".into()),
        503,
    ),
    (
        "no switch",
        |w| {
            w.switches.clear();
            w.announce_switches();
        },
        503,
    ),
    (
        "switch silent",
        |w| w.faults.unreachable.push("sw1".into()),
        503,
    ),
    (
        "switch refuses the request",
        |w| w.faults.apply.push_back(ApplyFailure::Refused),
        503,
    ),
    (
        "switch refuses the leg",
        |w| w.faults.refuse_leg = Some("no ports left".into()),
        503,
    ),
    (
        "switch has no address of the family",
        |w| {
            w.faults.refuse_leg = Some("the media server has no IPv6 address".into());
            w.faults.unsupported = true;
        },
        488,
    ),
    (
        "switch knows a higher epoch",
        |w| w.faults.apply.push_back(ApplyFailure::Fenced),
        503,
    ),
    (
        "record not written",
        |w| w.faults.store.push_back(StoreFailure::Unavailable),
        503,
    ),
    (
        "record written or not",
        |w| w.faults.store.push_back(StoreFailure::Unknown),
        503,
    ),
    (
        "record not written, nor deleted at first",
        |w| {
            w.faults.store.extend([
                StoreFailure::Unknown,
                StoreFailure::Unavailable,
                StoreFailure::Unavailable,
            ])
        },
        503,
    ),
];

#[test]
fn a_join_that_fails_at_any_step_leaves_nothing() {
    for (what, fail, status) in JOIN_FAILURES {
        let mut world = World::default();
        fail(&mut world);
        let mut alice = Ua::new("alice");
        let invite = alice.invite(PHONE_OFFER, "");
        world.send(&invite);
        let refused = world.answer();
        assert_eq!(code(&refused), *status, "{what}: {}", refused.reason());
        let retry = refused.header(HeaderName::RetryAfter).is_some();
        assert_eq!(retry, *status == 503, "{what}");
        let warning = refused.header(HeaderName::Warning).unwrap_or("");
        assert_eq!(
            warning.starts_with("301 "),
            *status == 488,
            "{what}: {warning}"
        );
        let ack = alice.ack_refusal(&refused);
        world.send(&ack);
        if what.contains("epoch") {
            // The owner record stays: it is somebody else's now.
            world.store.clear();
        }
        world.assert_nothing_left();
    }
}

#[test]
fn a_join_that_failed_may_be_tried_again() {
    for (what, fail, _) in JOIN_FAILURES {
        let mut world = World::default();
        fail(&mut world);
        let mut alice = Ua::new("alice");
        let invite = alice.invite(PHONE_OFFER, "");
        world.send(&invite);
        let refused = world.answer();
        let ack = alice.ack_refusal(&refused);
        world.send(&ack);
        world.faults = Faults::default();
        world.switches.entry("sw1".into()).or_default();
        world.announce_switches();
        world.advance(Duration::from_secs(3));
        let mut bob = Ua::new("bob");
        join(&mut world, &mut bob);
        leave(&mut world, &mut bob);
        if !what.contains("epoch") {
            world.assert_nothing_left();
        }
    }
}

/// What may fail when somebody in a meeting changes media.
const CHANGE_FAILURES: &[(&str, Break)] = &[
    ("switch silent", |w| {
        w.faults.apply.push_back(ApplyFailure::Unavailable)
    }),
    ("switch refuses the request", |w| {
        w.faults.apply.push_back(ApplyFailure::Refused)
    }),
    ("switch refuses the leg", |w| {
        w.faults.refuse_leg = Some("no".into())
    }),
    ("record not written", |w| {
        w.faults.store.push_back(StoreFailure::Unavailable)
    }),
    ("record written or not", |w| {
        w.faults.store.push_back(StoreFailure::Unknown)
    }),
];

#[test]
fn a_change_of_media_that_fails_leaves_them_as_they_were() {
    for (what, fail) in CHANGE_FAILURES {
        for update in [false, true] {
            let mut world = World::default();
            let mut alice = Ua::new("alice");
            join(&mut world, &mut alice);
            let before = world.switch().leg("team").clone();
            let record = world
                .store
                .values()
                .map(|(v, _)| v.clone())
                .max_by_key(|v| v.len())
                .unwrap();
            fail(&mut world);
            let change = if update {
                alice.update(Some(PHONE_HOLD), "")
            } else {
                alice.invite(PHONE_HOLD, "")
            };
            world.send(&change);
            let refused = world.answer();
            assert_eq!(code(&refused), 503, "{what}");
            if !update {
                let ack = alice.ack_refusal(&refused);
                world.send(&ack);
            }
            world.advance(Duration::from_secs(5));
            world.sent();
            assert_eq!(*world.switch().leg("team"), before, "{what}");
            let after = world
                .store
                .values()
                .map(|(v, _)| v.clone())
                .max_by_key(|v| v.len())
                .unwrap();
            let plan = |bytes: &[u8]| {
                let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                value["plan"].clone()
            };
            assert_eq!(plan(&after), plan(&record), "{what}");
            leave(&mut world, &mut alice);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn the_next_switch_is_taken_when_the_least_loaded_does_not_answer() {
    let mut world = World::default();
    world.switches.insert("sw2".into(), FakeSwitch::default());
    world.announce_switches();
    world.faults.unreachable.push("sw1".into());
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    assert_eq!(world.switches["sw2"].legs("team"), 1);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_conflict_drops_the_meeting_in_silence() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    // Another member takes the meeting over.
    let owner = cluster::records::keys::owner("team");
    world
        .store
        .insert(owner, (bytes::Bytes::from_static(b"{}"), 1_000));
    let update = alice.update(None, "Supported: timer\r\nSession-Expires: 300\r\n");
    world.send(&update);
    assert_eq!(code(&world.answer()), 503);
    assert_eq!(world.focus.counts().meetings, 0);
    assert_eq!(world.focus.counts().dialogs, 0);
    assert_eq!(world.dialog_records("team"), 1, "the other member's now");
    assert_eq!(world.switch().legs("team"), 1, "media go on");
    world.advance(Duration::from_secs(70));
    assert!(world.sent().iter().all(|m| *m.method() != Method::Bye));
}

#[test]
fn a_fencing_switch_drops_the_meeting_in_silence() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.switch().meetings.get_mut("team").unwrap().0 = 1_000;
    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    assert_eq!(code(&world.answer()), 503);
    assert_eq!(world.focus.counts().meetings, 0);
    world.advance(Duration::from_secs(70));
    assert!(world.sent().iter().all(|m| *m.method() != Method::Bye));
}

#[test]
fn a_leave_that_the_switch_does_not_hear_is_told_again() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let mut bob = Ua::new("bob");
    join(&mut world, &mut alice);
    join(&mut world, &mut bob);
    world.faults.apply.push_back(ApplyFailure::Unavailable);
    leave(&mut world, &mut alice);
    assert_eq!(world.switch().legs("team"), 2);
    world.advance(Duration::from_secs(2));
    assert_eq!(world.switch().legs("team"), 1);
    leave(&mut world, &mut bob);
    world.assert_nothing_left();
}

#[test]
fn the_end_of_a_meeting_is_told_until_the_switch_hears_it() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.faults.apply.extend([
        ApplyFailure::Unavailable,
        ApplyFailure::Unavailable,
        ApplyFailure::Unavailable,
    ]);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_release_that_the_store_refuses_is_tried_again() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.faults.store.extend([
        StoreFailure::Unavailable,
        StoreFailure::Unavailable,
        StoreFailure::Unavailable,
        StoreFailure::Unknown,
    ]);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}
