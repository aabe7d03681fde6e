//! Who may call what, and how everything else is refused.

mod common;

use common::*;
use meeting_core::{FocusConfig, MeetingConfig, MeetingId};
use sip::{HeaderName, Hop, Transport};

fn refused(config: FocusConfig, text: &str) -> (u16, String) {
    let mut world = World::new(config);
    world.send(text);
    let answer = world.answer();
    (code(&answer), answer.reason().to_owned())
}

fn meeting(change: fn(&mut MeetingConfig)) -> FocusConfig {
    let mut config = config();
    config.meetings.values_mut().for_each(change);
    config
}

#[test]
fn refusals_say_why_in_words_of_people() {
    let invite = || Ua::new("alice").invite(PHONE_OFFER, "");
    let other = |m: &'static str| Ua::calling("alice", m).invite(PHONE_OFFER, "");
    let guest = || {
        let mut ua = Ua::new("visitor");
        ua.asserted = false;
        ua.invite(PHONE_OFFER, "")
    };
    let closed = FocusConfig {
        first_call: None,
        ..config()
    };
    let cases: Vec<(u16, &str, FocusConfig, String)> = vec![
        (404, "There is no meeting nowhere", closed, other("nowhere")),
        (
            404,
            "No meeting can have this name",
            config(),
            other("a%20b"),
        ),
        (
            404,
            "elsewhere.org is not served here",
            config(),
            invite().replace("team@example.org SIP", "team@elsewhere.org SIP"),
        ),
        (
            416,
            "sip: or sips:",
            config(),
            invite().replace("sip:team@example.org SIP", "tel:+4930 SIP"),
        ),
        (603, "closed", meeting(|m| m.open = false), invite()),
        (
            403,
            "takes no guests",
            meeting(|m| m.guests = false),
            guest(),
        ),
        (
            403,
            "not on the list",
            meeting(|m| m.allowed = vec!["sip:bob@example.org".into()]),
            invite(),
        ),
        (
            486,
            "full: it takes 0",
            meeting(|m| m.max_participants = 0),
            invite(),
        ),
        (
            503,
            "as many calls as it can",
            FocusConfig {
                max_dialogs: 0,
                ..config()
            },
            invite(),
        ),
        (
            503,
            "as many meetings as it can",
            FocusConfig {
                max_meetings: 0,
                ..config()
            },
            invite(),
        ),
        (
            488,
            "GSM",
            config(),
            Ua::new("alice").invite(NOTHING_IN_COMMON, ""),
        ),
        (
            488,
            "SRTP",
            FocusConfig {
                require_srtp: true,
                ..config()
            },
            invite(),
        ),
        (
            400,
            "session description",
            config(),
            Ua::new("alice").invite("v=1\r\n", ""),
        ),
        (
            415,
            "application/sdp",
            config(),
            Ua::new("alice").request("INVITE", "", Some(("text/plain", "hello"))),
        ),
        (
            415,
            "encoding",
            config(),
            Ua::new("alice").invite(PHONE_OFFER, "Content-Encoding: gzip\r\n"),
        ),
        (
            420,
            "Bad Extension",
            config(),
            Ua::new("alice").invite(PHONE_OFFER, "Require: 100rel, teleport\r\n"),
        ),
        (
            405,
            "MESSAGE is not taken here",
            config(),
            Ua::new("alice").request("MESSAGE", "", None),
        ),
        (
            405,
            "FROB",
            config(),
            Ua::new("alice").request("FROB", "", None),
        ),
        (481, "no such dialog", config(), Ua::new("alice").bye()),
    ];
    for (status, words, config, text) in cases {
        let (code, reason) = refused(config, &text);
        assert_eq!(code, status, "{reason}");
        assert!(
            reason.to_lowercase().contains(&words.to_lowercase()),
            "{code} {reason}"
        );
    }
}

#[test]
fn refusals_have_the_headers_that_go_with_them() {
    let mut world = World::default();
    let text = Ua::new("a").request("MESSAGE", "", None);
    world.send(&text);
    assert!(world.answer().has_token(HeaderName::Allow, "INVITE"));
    let text = Ua::new("b").invite(PHONE_OFFER, "Require: 100rel, teleport\r\n");
    world.send(&text);
    assert_eq!(
        world.answer().header(HeaderName::Unsupported),
        Some("teleport")
    );
    let text = Ua::new("c").invite(NOTHING_IN_COMMON, "");
    world.send(&text);
    assert!(
        world
            .answer()
            .header(HeaderName::Warning)
            .unwrap()
            .starts_with("399 example.org ")
    );
    let text = Ua::new("d").request("INVITE", "", Some(("text/plain", "x")));
    world.send(&text);
    assert_eq!(
        world.answer().header(HeaderName::Accept),
        Some("application/sdp, multipart/mixed, multipart/alternative")
    );
}

#[test]
fn a_guest_gets_in_where_guests_may() {
    let mut world = World::default();
    let mut visitor = Ua::new("visitor");
    visitor.asserted = false;
    join(&mut world, &mut visitor);
    let view = world
        .focus
        .meeting(&MeetingId::new("team").unwrap())
        .unwrap();
    assert!(view.participants[0].guest);
    assert_eq!(view.participants[0].display, "visitor");
}

#[test]
fn the_full_meeting_takes_the_next_when_one_leaves() {
    let mut world = World::new(meeting(|m| m.max_participants = 1));
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let text = Ua::new("bob").invite(PHONE_OFFER, "");
    world.send(&text);
    assert_eq!(code(&world.answer()), 486);
    leave(&mut world, &mut alice);
    join(&mut world, &mut Ua::new("carol"));
}

#[test]
fn the_factory_makes_a_new_meeting_at_every_call() {
    let mut config = config();
    config.factory = Some((MeetingId::new("new").unwrap(), MeetingConfig::default()));
    let mut world = World::new(config);
    let mut alice = Ua::calling("alice", "new");
    let mut bob = Ua::calling("bob", "new");
    let first = join(&mut world, &mut alice);
    let second = join(&mut world, &mut bob);
    let contact = |m: &sip::Message| m.header(HeaderName::Contact).unwrap().to_owned();
    assert_ne!(contact(&first), contact(&second));
    assert!(contact(&first).ends_with(";isfocus"));
    assert!(!contact(&first).contains("sip:new@"));
    assert_eq!(world.focus.counts().meetings, 2);
    // The address in the Contact is the meeting: others call it.
    let mut carol = Ua::new("carol");
    carol.target = first.contacts().unwrap()[0].uri.to_string();
    join(&mut world, &mut carol);
    assert_eq!(world.focus.counts().meetings, 2);
    for ua in [&mut alice, &mut bob, &mut carol] {
        leave(&mut world, ua);
    }
    world.assert_nothing_left();
}

#[test]
fn options_tells_what_an_invite_would_meet() {
    let mut world = World::default();
    let text = Ua::new("a").request("OPTIONS", "", None);
    world.send(&text);
    let ok = world.answer();
    assert_eq!(code(&ok), 200);
    for method in [
        "INVITE",
        "ACK",
        "CANCEL",
        "BYE",
        "OPTIONS",
        "PRACK",
        "UPDATE",
        "SUBSCRIBE",
        "INFO",
    ] {
        assert!(ok.has_token(HeaderName::Allow, method), "{method}");
    }
    assert_eq!(
        ok.header(HeaderName::Accept),
        Some("application/sdp, multipart/mixed, multipart/alternative")
    );
    assert_eq!(
        ok.header(HeaderName::Contact),
        Some("<sip:team@example.org>;isfocus")
    );
    let text = Ua::new("b")
        .request("OPTIONS", "", None)
        .replace("sip:team@", "sip:");
    world.send(&text);
    assert_eq!(code(&world.answer()), 200, "a health check");
    let text = Ua::new("c")
        .request("OPTIONS", "", None)
        .replace("@example.org SIP", "@elsewhere.org SIP");
    world.send(&text);
    assert_eq!(code(&world.answer()), 404);
    assert_eq!(world.focus.counts().meetings, 0);
}

#[test]
fn options_to_the_factory_name_no_focus() {
    let mut config = config();
    let factory = MeetingId::new("factory").unwrap();
    config.factory = Some((factory, MeetingConfig::default()));
    let mut world = World::new(config);
    let text = Ua::calling("a", "factory").request("OPTIONS", "", None);
    world.send(&text);
    let ok = world.answer();
    assert_eq!((code(&ok), ok.header(HeaderName::Contact)), (200, None));
}

#[test]
fn a_meeting_that_only_watchers_hold_takes_no_call_while_draining() {
    let mut world = World::default();
    let mut watcher = Ua::new("watcher");
    let text = watcher.request("SUBSCRIBE", "Event: conference\r\n", None);
    world.send(&text);
    let notify = world.sent().pop().unwrap();
    let ok = watcher.respond(&notify, 200, "", None);
    world.send(&ok);
    world.focus.drain();
    let invite = Ua::new("alice").invite(PHONE_OFFER, "");
    world.send(&invite);
    let refused = world.answer();
    assert_eq!(code(&refused), 503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
}

#[test]
fn a_meeting_with_participants_takes_calls_while_draining() {
    let mut world = World::default();
    join(&mut world, &mut Ua::new("alice"));
    world.focus.drain();
    join(&mut world, &mut Ua::new("bob"));
}

#[test]
fn strangers_are_turned_away_without_a_trace() {
    let mut world = World::default();
    let stranger = Hop::to(Transport::Udp, "203.0.113.5:5060".parse().unwrap());
    let mut alice = Ua::new("alice");
    let text = alice.invite(PHONE_OFFER, "");
    world.send_from(&text, stranger);
    assert_eq!(code(&world.one()), 403);
    assert_eq!(world.focus.counts().server_transactions, 0);
    let ack = alice.ack(None);
    world.send_from(&ack, stranger);
    assert!(world.sent().is_empty());
}

#[test]
fn a_stranger_cannot_end_a_call() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let stranger = Hop::to(Transport::Udp, "203.0.113.5:5060".parse().unwrap());
    let bye = alice.bye();
    world.send_from(&bye, stranger);
    assert_eq!(code(&world.one()), 403);
    assert_eq!(world.switch().legs("team"), 1);
}

#[test]
fn malformed_requests_are_answered_with_what_is_wrong() {
    let mut world = World::default();
    let text = Ua::new("a")
        .invite(PHONE_OFFER, "")
        .replace("CSeq: 1 INVITE", "CSeq: 1 BYE");
    world.send(&text);
    assert_eq!(code(&world.one()), 400);
    assert_eq!(world.focus.counts().server_transactions, 0);
}
