//! Our re-INVITE at a time when the peer cannot take it (RFC 3261 §14.2).

mod common;

use std::time::Duration;

use common::*;
use sip::{HeaderName, Message, Method};

/// A call whose media have moved, with our re-INVITE that says so.
fn moved() -> (World, Ua, Message) {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.settle();
    world.switch().restart();
    world.switch_event(control::v1::event::Event::Hello(control::v1::Hello {
        instance: "i1".into(),
        ..control::v1::Hello::default()
    }));
    let ours = world.request(Method::Invite);
    (world, alice, ours)
}

fn refuse(world: &mut World, ua: &Ua, ours: &Message, status: u16, extra: &str) {
    let text = ua.respond(ours, status, extra, None);
    world.send(&text);
}

#[test]
fn a_peer_that_is_busy_is_told_of_moved_media_when_it_says() {
    for (status, extra, wait) in [
        (500, "Retry-After: 7\r\n", 7_000),
        (500, "Retry-After: 0\r\n", 500),
        (503, "Retry-After: 3 (busy);duration=60\r\n", 3_000),
    ] {
        let (mut world, mut alice, ours) = moved();
        refuse(&mut world, &alice, &ours, status, extra);
        assert_eq!(*world.one().method(), Method::Ack, "{status}");
        world.advance(Duration::from_millis(wait - 10));
        assert!(world.sent().is_empty(), "{extra}");
        world.advance(Duration::from_millis(20));
        let again = world.request(Method::Invite);
        assert!(body(&again).contains("m=audio 31000"), "{}", body(&again));
        assert!(again.cseq().unwrap().number > ours.cseq().unwrap().number);
        let ok = alice.respond(&again, 200, "", Some(PHONE_RESUMED));
        world.send(&ok);
        world.request(Method::Ack);
        world.advance(Duration::from_secs(60));
        assert!(world.sent().is_empty());
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn a_peer_that_is_busy_for_longer_than_media_may_be_missing_is_hung_up_on() {
    for (extra, tries) in [
        ("Retry-After: 7\r\n", 5),
        ("Retry-After: 31\r\n", 1),
        ("", 1),
        ("Retry-After: soon\r\n", 1),
    ] {
        let (mut world, alice, ours) = moved();
        assert_eq!(world.config.media_timeout, Duration::from_secs(30));
        let mut next = Some(ours);
        let mut seen = 0;
        while let Some(ours) = next.take() {
            seen += 1;
            refuse(&mut world, &alice, &ours, 500, extra);
            world.advance(Duration::from_millis(7_400));
            let mut sent = world.sent();
            if let Some(bye) = sent.iter().find(|m| *m.method() == Method::Bye) {
                assert!(bye.header(HeaderName::Reason).unwrap().contains("refused"));
                let ok = alice.respond(bye, 200, "", None);
                world.send(&ok);
                break;
            }
            sent.retain(|m| *m.method() == Method::Invite);
            next = Some(sent.remove(0));
        }
        assert_eq!(seen, tries, "{extra}");
        world.assert_nothing_left();
    }
}
