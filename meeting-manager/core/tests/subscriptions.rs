//! Behaviour 25: the conference event package (RFC 4575, RFC 6665).

mod common;

use std::time::Duration;

use common::*;
use sip::{HeaderName, Message, Method};

const EVENT: &str =
    "Event: conference\r\nAccept: application/conference-info+xml\r\nExpires: 600\r\n";

fn notify(world: &mut World, ua: &Ua) -> Message {
    let notify = world.request(Method::Notify);
    let ok = ua.respond(&notify, 200, "", None);
    world.send(&ok);
    notify
}

/// The SUBSCRIBE's answer and the first NOTIFY.
fn subscribe(world: &mut World, ua: &mut Ua) -> (Message, Message) {
    let text = ua.request("SUBSCRIBE", EVENT, None);
    world.send(&text);
    let mut sent = world.sent();
    assert_eq!(sent.len(), 2, "{:?}", lines(&sent));
    let notify = sent.pop().unwrap();
    let ok = sent.pop().unwrap();
    assert_eq!(code(&ok), 200);
    ua.learn(&ok);
    let answer = ua.respond(&notify, 200, "", None);
    world.send(&answer);
    (ok, notify)
}

fn attribute(document: &str, name: &str) -> String {
    let xml = roxmltree::Document::parse(document).unwrap();
    xml.root_element().attribute(name).unwrap_or("").to_owned()
}

fn version(message: &Message) -> u32 {
    attribute(&body(message), "version").parse().unwrap()
}

#[test]
fn behaviour_25_full_state_then_partial_with_versions_that_count() {
    let mut world = World::default();
    join(&mut world, &mut Ua::new("alice"));
    let mut watcher = Ua::new("watcher");
    let (ok, first) = subscribe(&mut world, &mut watcher);
    assert_eq!(ok.header(HeaderName::Expires), Some("600"));
    assert_eq!(first.header(HeaderName::Event), Some("conference"));
    assert_eq!(
        first.header(HeaderName::SubscriptionState),
        Some("active;expires=600")
    );
    assert_eq!(first.content_type(), "application/conference-info+xml");
    assert_eq!(attribute(&body(&first), "state"), "full");

    assert!(body(&first).contains("sip:alice@example.org"));
    join_quietly(&mut world, &mut Ua::new("bob"));
    let partial = notify(&mut world, &watcher);
    assert_eq!(attribute(&body(&partial), "state"), "partial");
    assert!(body(&partial).contains("sip:bob@example.org"));
    assert!(
        !body(&partial).contains("sip:alice@example.org"),
        "only what changed"
    );
    assert_eq!(version(&partial), version(&first) + 1);
}

/// Joins where NOTIFYs go out meanwhile; they stay on the wire.
fn join_quietly(world: &mut World, ua: &mut Ua) {
    let invite = ua.invite(PHONE_OFFER, "");
    world.send(&invite);
    let at = world
        .wire
        .iter()
        .position(|m| m.status().is_some_and(|s| s.get() == 200))
        .unwrap();
    let ok = world.wire.remove(at).unwrap();
    ua.learn(&ok);
    let ack = ua.ack(None);
    world.send(&ack);
}

#[test]
fn behaviour_25_the_list_names_the_source_of_everybody() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let source = world.switch().leg("team").source;
    world.advance(Duration::from_secs(2));
    let mut watcher = Ua::new("watcher");
    let (_, first) = subscribe(&mut world, &mut watcher);
    let text = body(&first);
    assert!(
        text.contains(&format!("<src-id>{source}</src-id>")),
        "{text}"
    );
    assert!(text.contains("alice"));
}

#[test]
fn behaviour_25_notifications_are_throttled_to_one_a_second() {
    let mut world = World::default();
    join(&mut world, &mut Ua::new("alice"));
    let mut watcher = Ua::new("watcher");
    subscribe(&mut world, &mut watcher);
    world.advance(Duration::from_secs(5));
    while let Some(notify) = world.wire.pop_front() {
        let ok = watcher.respond(&notify, 200, "", None);
        world.send(&ok);
    }
    for name in ["b", "c", "d", "e", "f"] {
        join_quietly(&mut world, &mut Ua::new(name));
    }
    let now = world.request(Method::Notify);
    let ok = watcher.respond(&now, 200, "", None);
    world.send(&ok);
    world.advance(Duration::from_millis(900));
    assert!(world.sent().is_empty());
    world.advance(Duration::from_millis(200));
    let later = notify(&mut world, &watcher);
    for name in ["c", "d", "e", "f"] {
        assert!(
            body(&later).contains(&format!("sip:{name}@example.org")),
            "{name}"
        );
    }
    assert_eq!(version(&later), version(&now) + 1);
}

#[test]
fn behaviour_25_a_change_while_a_notify_is_under_way_is_told_as_full_state() {
    let mut world = World::default();
    join(&mut world, &mut Ua::new("alice"));
    let mut watcher = Ua::new("watcher");
    let text = watcher.request("SUBSCRIBE", EVENT, None);
    world.send(&text);
    let first = world.sent().pop().unwrap();
    world.advance(Duration::from_millis(100));
    world.sent();
    join_quietly(&mut world, &mut Ua::new("bob"));
    world.advance(Duration::from_millis(1_500));
    let retransmitted = |m: &Message| m.cseq().unwrap() == first.cseq().unwrap();
    assert!(world.sent().iter().all(retransmitted), "one at a time");
    let ok = watcher.respond(&first, 200, "", None);
    world.send(&ok);
    let next = world.request(Method::Notify);
    assert_eq!(attribute(&body(&next), "state"), "full");
    assert!(body(&next).contains("sip:bob@example.org"));
}

#[test]
fn behaviour_25_a_refresh_is_answered_with_full_state() {
    let mut world = World::default();
    let mut watcher = Ua::new("watcher");
    subscribe(&mut world, &mut watcher);
    world.advance(Duration::from_secs(500));
    world.sent();
    let (_, again) = subscribe(&mut world, &mut watcher);
    assert_eq!(attribute(&body(&again), "state"), "full");
    world.advance(Duration::from_secs(500));
    assert!(world.sent().is_empty(), "not expired");
}

#[test]
fn behaviour_25_a_subscription_that_is_not_refreshed_is_terminated() {
    let mut world = World::default();
    let mut watcher = Ua::new("watcher");
    subscribe(&mut world, &mut watcher);
    world.advance(Duration::from_secs(601));
    let last = world.sent().remove(0);
    assert_eq!(
        last.header(HeaderName::SubscriptionState),
        Some("terminated;reason=timeout")
    );
    let ok = watcher.respond(&last, 200, "", None);
    world.send(&ok);
    world.assert_nothing_left();
}

#[test]
fn behaviour_25_expires_0_fetches_once_or_ends() {
    let mut world = World::default();
    let mut fetcher = Ua::new("fetcher");
    let text = fetcher.request("SUBSCRIBE", "Event: conference\r\nExpires: 0\r\n", None);
    world.send(&text);
    let last = notify(&mut world, &fetcher);
    assert_eq!(attribute(&body(&last), "state"), "full");
    assert_eq!(
        last.header(HeaderName::SubscriptionState),
        Some("terminated;reason=timeout")
    );
    world.assert_nothing_left();
}

#[test]
fn behaviour_25_in_the_invite_dialog_it_shares_cseqs_and_ends_with_the_call() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let (_, first) = subscribe(&mut world, &mut alice);
    assert_eq!(first.call_id(), alice.call_id);
    world.advance(Duration::from_secs(2));
    for sent in world.sent() {
        let ok = alice.respond(&sent, 200, "", None);
        world.send(&ok);
    }
    let bye = alice.bye();
    world.send(&bye);
    let sent = world.sent();
    let last = sent.iter().find(|m| *m.method() == Method::Notify).unwrap();
    assert_eq!(
        last.header(HeaderName::SubscriptionState),
        Some("terminated;reason=noresource")
    );
    assert!(last.cseq().unwrap().number > first.cseq().unwrap().number);
    world.assert_nothing_left();
}

#[test]
fn behaviour_25_a_meeting_that_ends_terminates_its_watchers() {
    let mut world = World::default();
    let mut alice = Ua::calling("alice", "adhoc");
    join(&mut world, &mut alice);
    let mut watcher = Ua::calling("watcher", "adhoc");
    subscribe(&mut world, &mut watcher);
    world.advance(Duration::from_secs(2));
    world.sent();
    let bye = alice.bye();
    world.send(&bye);
    let last = world
        .sent()
        .into_iter()
        .rfind(|m| *m.method() == Method::Notify)
        .unwrap();
    assert_eq!(
        last.header(HeaderName::SubscriptionState),
        Some("terminated;reason=noresource")
    );
    assert_eq!(attribute(&body(&last), "state"), "deleted");
    world.assert_nothing_left();
}

#[test]
fn behaviour_25_a_watcher_that_is_gone_is_forgotten() {
    for answered in [true, false] {
        let mut world = World::default();
        let mut watcher = Ua::new("watcher");
        let text = watcher.request("SUBSCRIBE", EVENT, None);
        world.send(&text);
        let first = world.sent().pop().unwrap();
        if answered {
            let gone = watcher.respond(&first, 481, "", None);
            world.send(&gone);
        }
        world.advance(Duration::from_secs(40));
        world.sent();
        world.assert_nothing_left();
    }
}

#[test]
fn behaviour_25_it_goes_on_after_a_restart_with_a_higher_version() {
    for shared in [true, false] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        join(&mut world, &mut alice);
        let mut watcher = if shared {
            alice.clone()
        } else {
            Ua::new("watcher")
        };
        let (_, first) = subscribe(&mut world, &mut watcher);
        // NOTIFYs are not stored one by one.
        let mut last = first;
        for name in ["bob", "carol", "dave"] {
            join_quietly(&mut world, &mut Ua::new(name));
            last = notify(&mut world, &watcher);
            world.advance(Duration::from_millis(1_100));
        }
        world.restart_focus();
        let full = notify(&mut world, &watcher);
        assert_eq!(attribute(&body(&full), "state"), "full");
        assert!(version(&full) > version(&last));
        assert!(full.cseq().unwrap().number > last.cseq().unwrap().number);
    }
}

#[test]
fn subscribes_that_do_not_fit_are_refused() {
    for (headers, status, header) in [
        (
            "Event: presence\r\n",
            489,
            Some((HeaderName::AllowEvents, "conference")),
        ),
        ("", 489, None),
        (
            "Event: conference\r\nExpires: 5\r\n",
            423,
            Some((HeaderName::MinExpires, "10")),
        ),
        ("Event: conference\r\nAccept: text/plain\r\n", 406, None),
        ("Event: conference\r\nExpires: soon\r\n", 400, None),
    ] {
        let mut world = World::default();
        let text = Ua::new("watcher").request("SUBSCRIBE", headers, None);
        world.send(&text);
        let refused = world.answer();
        assert_eq!(code(&refused), status, "{headers}");
        if let Some((name, value)) = header {
            assert_eq!(refused.header(name), Some(value));
        }
        world.assert_nothing_left();
    }
}
