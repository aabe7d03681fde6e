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
fn behaviour_25_a_change_while_a_notify_is_under_way_is_told_when_that_is_answered() {
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
    assert_eq!(attribute(&body(&next), "state"), "partial");
    assert!(body(&next).contains("sip:bob@example.org"));
    assert_eq!(version(&next), version(&first) + 1);
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
        world.settle();
        world.restart_focus();
        let full = notify(&mut world, &watcher);
        assert_eq!(attribute(&body(&full), "state"), "full");
        assert!(version(&full) > version(&last));
        assert!(full.cseq().unwrap().number > last.cseq().unwrap().number);
    }
}

/// As a subscriber keeps it (RFC 4575 §4.4): users by entity; every document must follow on the one before.
#[derive(Default)]
struct List {
    version: Option<u32>,
    users: std::collections::BTreeSet<String>,
}

impl List {
    fn take(&mut self, notify: &Message) {
        let text = body(notify);
        let xml = roxmltree::Document::parse(&text).unwrap();
        if attribute(&text, "state") == "full" {
            self.users.clear();
        } else {
            assert_eq!(self.version.map(|v| v + 1), Some(version(notify)), "no gap");
        }
        self.version = Some(version(notify));
        let users = xml
            .descendants()
            .filter(|n| n.has_tag_name(("urn:ietf:params:xml:ns:conference-info", "user")));
        for user in users {
            let entity = user.attribute("entity").unwrap().to_owned();
            if user.attribute("state") == Some("deleted") {
                assert!(self.users.remove(&entity));
            } else {
                self.users.insert(entity);
            }
        }
    }
}

/// Answers NOTIFYs until there are none; the longest body.
fn take_all(world: &mut World, ua: &Ua, list: &mut List) -> usize {
    let mut longest = 0;
    loop {
        let sent = world.sent();
        let Some(notify) = sent.into_iter().find(|m| *m.method() == Method::Notify) else {
            return longest;
        };
        longest = longest.max(notify.body().len());
        list.take(&notify);
        let ok = ua.respond(&notify, 200, "", None);
        world.send(&ok);
    }
}

fn crowd(world: &mut World, people: std::ops::Range<u32>) {
    for n in people {
        let name: &'static str = format!("user{n:04}").leak();
        let mut ua = Ua::new(name);
        join_quietly(world, &mut ua);
        world.wire.retain(|m| *m.method() == Method::Notify);
    }
}

#[test]
fn behaviour_25_a_thousand_participants_are_told_in_parts_that_go_anywhere() {
    let mut world = World::default();
    crowd(&mut world, 0..990);
    for (name, transport, limit) in [
        ("udp", "", 5_000),
        ("tcp", ";transport=tcp", 17_000),
        ("ws", ";transport=ws", 17_000),
    ] {
        let mut watcher = Ua::new(name);
        let contact = format!("@192.0.2.10:5080{transport}>\r\nRecord-Route");
        let text = watcher
            .request("SUBSCRIBE", EVENT, None)
            .replace("@192.0.2.10:5080>\r\nRecord-Route", &contact);
        world.send(&text);
        let ok = world.wire.pop_front().unwrap();
        assert_eq!(code(&ok), 200);
        watcher.learn(&ok);
        let mut list = List::default();
        let longest = take_all(&mut world, &watcher, &mut list);
        assert!(
            longest > limit / 2 && longest < limit,
            "{longest} over {name}"
        );
        assert_eq!(list.users.len(), 990);
        let end = watcher.request("SUBSCRIBE", "Event: conference\r\nExpires: 0\r\n", None);
        world.send(&end);
        world.sent();
    }

    // Who comes while it is told in parts is not lost.
    let mut watcher = Ua::new("watcher");
    let text = watcher.request("SUBSCRIBE", EVENT, None);
    world.send(&text);
    watcher.learn(&world.wire.pop_front().unwrap());
    crowd(&mut world, 990..1_000);
    let mut list = List::default();
    take_all(&mut world, &watcher, &mut list);
    world.advance(Duration::from_secs(2));
    take_all(&mut world, &watcher, &mut list);
    assert_eq!(list.users.len(), 1_000);
}

#[test]
fn behaviour_25_a_fetch_is_one_document_whatever_the_size() {
    let mut world = World::default();
    crowd(&mut world, 0..300);
    let mut fetcher = Ua::new("fetcher");
    let text = fetcher
        .request("SUBSCRIBE", "Event: conference\r\nExpires: 0\r\n", None)
        .replace(
            "@192.0.2.10:5080>\r\nRecord-Route",
            "@192.0.2.10:5080;transport=tcp>\r\nRecord-Route",
        );
    world.send(&text);
    let only = world.request(Method::Notify);
    assert!(only.body().len() < 50_000 && only.body().len() > 40_000);
    assert!(body(&only).contains("<user-count>300</user-count>"));
}

#[test]
fn behaviour_25_a_subscriber_that_could_not_take_a_notify_is_told_again() {
    for (headers, wait) in [
        ("", 5),
        ("Retry-After: 20\r\n", 20),
        ("Retry-After: 99999\r\n", 60),
    ] {
        let mut world = World::default();
        join(&mut world, &mut Ua::new("alice"));
        let mut watcher = Ua::new("watcher");
        let (_, first) = subscribe(&mut world, &mut watcher);
        world.advance(Duration::from_secs(2));
        join_quietly(&mut world, &mut Ua::new("bob"));
        let partial = world.request(Method::Notify);
        let busy = watcher.respond(&partial, 500, headers, None);
        world.send(&busy);
        join_quietly(&mut world, &mut Ua::new("carol"));
        world.advance(Duration::from_millis(wait * 1_000 - 100));
        assert!(
            world.sent().iter().all(|m| *m.method() != Method::Notify),
            "not before {wait} s"
        );
        world.advance(Duration::from_millis(200));
        let again = notify(&mut world, &watcher);
        assert_eq!(attribute(&body(&again), "state"), "full");
        for name in ["alice", "bob", "carol"] {
            assert!(body(&again).contains(&format!("sip:{name}@example.org")));
        }
        assert_eq!(version(&again), version(&first) + 2);
        world.advance(Duration::from_secs(10));
        assert!(world.sent().is_empty(), "once");
    }
}

#[test]
fn nobody_calls_a_meeting_into_being_to_watch_it() {
    let mut world = World::default();
    let mut watcher = Ua::calling("watcher", "adhoc");
    let text = watcher.request("SUBSCRIBE", EVENT, None);
    world.send(&text);
    assert_eq!(code(&world.answer()), 404);
    world.assert_nothing_left();
}

#[test]
fn what_goes_over_tcp_names_the_tcp_port_in_its_via() {
    let mut world = World::default();
    join(&mut world, &mut Ua::new("alice"));
    join(&mut world, &mut Ua::new("bob"));
    let mut watcher = Ua::new("watcher");
    let (_, long) = subscribe(&mut world, &mut watcher);
    assert!(long.to_bytes().len() > 1_300);
    let via = long.header(HeaderName::Via).unwrap();
    assert!(via.starts_with("SIP/2.0/TCP 127.0.0.1:5071;"), "{via}");
    world.advance(Duration::from_secs(601));
    let short = world.sent().remove(0);
    let via = short.header(HeaderName::Via).unwrap();
    assert!(via.starts_with("SIP/2.0/UDP 127.0.0.1:5070;"), "{via}");
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
