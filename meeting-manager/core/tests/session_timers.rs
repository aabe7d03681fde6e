//! Behaviour 23: session timers (RFC 4028).

mod common;

use std::time::Duration;

use common::*;
use sip::{HeaderName, Method};

#[test]
fn behaviour_23_an_interval_that_is_too_small_is_answered_422() {
    let mut world = World::default();
    let invite =
        Ua::new("alice").invite(PHONE_OFFER, "Supported: timer\r\nSession-Expires: 60\r\n");
    world.send(&invite);
    let refused = world.answer();
    assert_eq!(code(&refused), 422);
    assert_eq!(refused.header(HeaderName::MinSe), Some("90"));
    assert_eq!(world.switch().legs("team"), 0);
}

#[test]
fn behaviour_23_a_client_that_can_is_the_refresher() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let ok = join_with(
        &mut world,
        &mut alice,
        PHONE_OFFER,
        "Supported: timer\r\nSession-Expires: 300\r\n",
    );
    assert_eq!(
        ok.header(HeaderName::SessionExpires),
        Some("300;refresher=uac")
    );
    assert!(ok.has_token(HeaderName::Require, "timer"));
    // It refreshes by re-INVITE and by UPDATE, and the call goes on.
    world.advance(Duration::from_secs(150));
    assert!(world.sent().is_empty());
    let refresh = alice.invite(
        PHONE_OFFER,
        "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\n",
    );
    world.send(&refresh);
    let ok = world.answer();
    assert_eq!(code(&ok), 200);
    assert_eq!(
        ok.header(HeaderName::SessionExpires),
        Some("300;refresher=uac")
    );
    let ack = alice.ack(None);
    world.send(&ack);
    world.advance(Duration::from_secs(150));
    let refresh = alice.update(
        None,
        "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\n",
    );
    world.send(&refresh);
    let ok = world.answer();
    assert_eq!(code(&ok), 200);
    assert!(ok.body().is_empty());
    world.advance(Duration::from_secs(200));
    assert!(world.sent().is_empty());
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_23_a_session_that_the_client_does_not_refresh_is_ended() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join_with(
        &mut world,
        &mut alice,
        PHONE_OFFER,
        "Supported: timer\r\nSession-Expires: 300\r\n",
    );
    world.advance(Duration::from_secs(267));
    assert!(world.sent().is_empty(), "until 32 s before the end");
    world.advance(Duration::from_secs(2));
    let bye = world.sent().remove(0);
    assert_eq!(*bye.method(), Method::Bye);
    let ok = alice.respond(&bye, 200, "", None);
    world.send(&ok);
    world.assert_nothing_left();
}

#[test]
fn behaviour_23_a_client_that_cannot_is_refreshed_by_update() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let ok = join(&mut world, &mut alice);
    assert_eq!(
        ok.header(HeaderName::SessionExpires),
        Some("1800;refresher=uas")
    );
    assert!(!ok.has_token(HeaderName::Require, "timer"));
    let records = world.store.clone();
    world.advance(Duration::from_secs(901));
    let update = world.sent().remove(0);
    assert_eq!(*update.method(), Method::Update);
    assert!(update.body().is_empty());
    assert!(update.header(HeaderName::SessionExpires).is_some());
    let ok = alice.respond(&update, 200, "", None);
    world.send(&ok);
    assert_ne!(
        world.store, records,
        "whoever goes on with the dialog knows of the refresh"
    );
    world.advance(Duration::from_secs(890));
    assert!(world.sent().is_empty());
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_23_without_update_a_refresh_is_a_reinvite_with_the_same_sdp() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.request(
        "INVITE",
        "Allow: INVITE, ACK, BYE\r\n",
        Some(("application/sdp", PHONE_OFFER)),
    );
    world.send(&invite);
    let ok = world.answer();
    alice.learn(&ok);
    let ack = alice.ack(None);
    world.send(&ack);
    world.advance(Duration::from_secs(901));
    let refresh = world.sent().remove(0);
    assert_eq!(*refresh.method(), Method::Invite);
    let origin = |sdp: &str| {
        sdp.lines()
            .find(|l| l.starts_with("o="))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        origin(&body(&refresh)),
        origin(&body(&ok)),
        "nothing changed, nor does the version"
    );
    let ok = alice.respond(&refresh, 200, "", Some(PHONE_OFFER));
    world.send(&ok);
    world.request(Method::Ack);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_23_a_refresh_that_nobody_answers_ends_the_call() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.advance(Duration::from_secs(901));
    world.sent();
    world.advance(Duration::from_secs(33));
    assert!(world.sent().iter().any(|m| *m.method() == Method::Bye));
    world.advance(Duration::from_secs(33));
    world.sent();
    world.assert_nothing_left();
}

#[test]
fn behaviour_23_the_refresher_survives_a_restart() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.advance(Duration::from_secs(600));
    world.restart_focus();
    // Nobody has written down when the last refresh was: there is one soon, but not of all calls at once.
    world.advance(Duration::from_secs(434));
    let update = world.sent().remove(0);
    assert_eq!(*update.method(), Method::Update);
    let ok = alice.respond(&update, 200, "", None);
    world.send(&ok);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}
