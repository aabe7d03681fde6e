//! Subscriptions and the store: a SUBSCRIBE is answered when its record is durable, or not at all.

mod common;

use std::time::Duration;

use cluster::records::keys;
use common::*;
use meeting_core::StoreFailure;
use sip::{HeaderName, Message, Method};

const EVENT: &str = "Event: conference\r\nExpires: 600\r\n";

/// A watcher, in a dialog of its own or in that of its call, before it subscribes.
fn watcher(shared: bool) -> (World, Ua) {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.settle();
    let watcher = if shared { alice } else { Ua::new("watcher") };
    (world, watcher)
}

fn kinds(messages: &[Message]) -> Vec<(Method, u16)> {
    let kind = |m: &Message| (m.method().clone(), m.status().map_or(0, |s| s.get()));
    messages.iter().map(kind).collect()
}

fn is_recorded(world: &World) -> bool {
    let prefix = keys::dialogs("team");
    let mut records = world.store.iter().filter(|(k, _)| k.starts_with(&prefix));
    records.any(|(_, (value, _))| String::from_utf8_lossy(value).contains("expires_at"))
}

/// Subscribes, answers the NOTIFY.
fn subscribe(world: &mut World, ua: &mut Ua) {
    let text = ua.request("SUBSCRIBE", EVENT, None);
    world.send(&text);
    let sent = world.sent();
    assert_eq!(
        kinds(&sent),
        [(Method::Subscribe, 200), (Method::Notify, 0)]
    );
    ua.learn(&sent[0]);
    let ok = ua.respond(&sent[1], 200, "", None);
    world.send(&ok);
}

fn refused(world: &mut World, status: u16) -> Message {
    let mut sent = world.sent();
    assert_eq!(kinds(&sent), [(Method::Subscribe, status)]);
    sent.remove(0)
}

#[test]
fn the_200_and_the_notify_go_out_once_the_record_is_durable() {
    for shared in [false, true] {
        let (mut world, mut ua) = watcher(shared);
        world.faults.hold_store = true;
        let text = ua.request("SUBSCRIBE", EVENT, None);
        world.send(&text);
        // What changes meanwhile is told with the first NOTIFY.
        world.advance(Duration::from_millis(1_500));
        assert!(world.sent().is_empty());
        world.release_one();
        assert!(is_recorded(&world));
        let sent = world.sent();
        assert_eq!(
            kinds(&sent),
            [(Method::Subscribe, 200), (Method::Notify, 0)]
        );
        assert_eq!(sent[0].header(HeaderName::Expires), Some("600"));
        assert_eq!(
            sent[1].header(HeaderName::SubscriptionState),
            Some("active;expires=600")
        );
    }
}

#[test]
fn a_subscription_that_cannot_be_recorded_is_answered_503_and_nothing_is_left() {
    for shared in [false, true] {
        for failure in [StoreFailure::Unavailable, StoreFailure::Unknown] {
            let (mut world, mut ua) = watcher(shared);
            world.faults.store.push_back(failure);
            let text = ua.request("SUBSCRIBE", EVENT, None);
            world.send(&text);
            let answer = refused(&mut world, 503);
            assert!(answer.header(HeaderName::RetryAfter).is_some());
            assert_eq!(world.focus.counts().subscriptions, 0);
            world.settle();
            assert!(!is_recorded(&world));
            // It may be tried again.
            let mut again = Ua::new("again");
            subscribe(&mut world, if shared { &mut ua } else { &mut again });
            assert!(is_recorded(&world));
        }
    }
}

#[test]
fn a_refresh_that_cannot_be_recorded_leaves_the_subscription_as_it_was() {
    for shared in [false, true] {
        let (mut world, mut ua) = watcher(shared);
        subscribe(&mut world, &mut ua);
        world.advance(Duration::from_secs(500));
        world.faults.store.push_back(StoreFailure::Unavailable);
        let text = ua.request("SUBSCRIBE", EVENT, None);
        world.send(&text);
        refused(&mut world, 503);
        world.advance(Duration::from_secs(99));
        assert!(world.sent().is_empty());
        world.advance(Duration::from_millis(1_100));
        let last = world.request(Method::Notify);
        assert_eq!(
            last.header(HeaderName::SubscriptionState),
            Some("terminated;reason=timeout")
        );
    }
}

#[test]
fn a_refresh_that_came_in_time_is_not_too_late_for_a_slow_store() {
    for stored in [true, false] {
        let (mut world, mut ua) = watcher(false);
        subscribe(&mut world, &mut ua);
        world.advance(Duration::from_secs(599));
        world.faults.hold_store = true;
        let text = ua.request("SUBSCRIBE", EVENT, None);
        world.send(&text);
        world.advance(Duration::from_secs(3));
        assert!(world.sent().is_empty());
        if !stored {
            world.faults.store.push_back(StoreFailure::Unavailable);
        }
        world.release();
        let sent = world.sent();
        let status = if stored { 200 } else { 503 };
        assert_eq!(
            kinds(&sent),
            [(Method::Subscribe, status), (Method::Notify, 0)]
        );
        let state = sent[1].header(HeaderName::SubscriptionState).unwrap();
        assert_eq!(state.starts_with("active"), stored, "{state}");
    }
}

#[test]
fn a_second_subscribe_before_the_first_is_recorded_is_answered_500_with_retry_after() {
    let (mut world, mut ua) = watcher(true);
    world.faults.hold_store = true;
    let first = ua.request("SUBSCRIBE", EVENT, None);
    world.send(&first);
    let second = ua.request("SUBSCRIBE", EVENT, None);
    world.send(&second);
    let answer = refused(&mut world, 500);
    assert!(answer.header(HeaderName::RetryAfter).is_some());
    world.release();
    assert_eq!(
        kinds(&world.sent()),
        [(Method::Subscribe, 200), (Method::Notify, 0)]
    );
}

#[test]
fn a_subscription_in_a_call_that_ends_first_is_answered_481() {
    let (mut world, mut ua) = watcher(true);
    world.faults.hold_store = true;
    let text = ua.request("SUBSCRIBE", EVENT, None);
    world.send(&text);
    let bye = ua.bye();
    world.send(&bye);
    assert_eq!(
        kinds(&world.sent()),
        [(Method::Bye, 200), (Method::Subscribe, 481)]
    );
    world.release();
    assert!(world.sent().is_empty());
    world.assert_nothing_left();
}

#[test]
fn a_subscription_to_a_meeting_that_ends_first_is_answered_481_and_its_record_goes() {
    let mut world = World::default();
    let mut alice = Ua::calling("alice", "adhoc");
    join(&mut world, &mut alice);
    world.settle();
    world.faults.hold_store = true;
    let text = Ua::calling("watcher", "adhoc").request("SUBSCRIBE", EVENT, None);
    world.send(&text);
    world.focus.shutdown(world.now);
    world.run();
    let sent = world.sent();
    assert!(kinds(&sent).contains(&(Method::Subscribe, 481)));
    // The call ends when its record has.
    world.release();
    let bye = world.request(Method::Bye);
    let ok = alice.respond(&bye, 200, "", None);
    world.send(&ok);
    world.assert_nothing_left();
}

#[test]
fn a_subscription_to_a_meeting_that_somebody_else_has_taken_is_answered_503() {
    for shared in [false, true] {
        let (mut world, mut ua) = watcher(shared);
        // Another member claimed it.
        world.revision += 1;
        let revision = world.revision;
        world.store.get_mut(&keys::owner("team")).unwrap().1 = revision;
        let text = ua.request("SUBSCRIBE", EVENT, None);
        world.send(&text);
        refused(&mut world, 503);
        assert_eq!(world.focus.counts().meetings, 0);
    }
}
