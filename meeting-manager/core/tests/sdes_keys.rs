//! SDES keys for what the switch sends: no instance of a switch sends with those of another, and the peer knows
//! those in force.

mod common;

use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use common::*;
use control::v1::{Fingerprint, Hello, event};
use meeting_core::ApplyFailure;
use sip::{Message, Method};

const SAVP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
    m=audio 4000 RTP/SAVP 0\r\n\
    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5\r\n";

/// What the switch sends with.
fn key_of(world: &mut World) -> Bytes {
    let leg = world.switch().leg("team").clone();
    leg.transports[0].sdes.clone().unwrap().local_key
}

/// What the message says the switch sends with.
fn told(message: &Message) -> Bytes {
    let sdp = body(message);
    let line = sdp.lines().find(|l| l.starts_with("a=crypto")).unwrap();
    let text = line.split("inline:").nth(1).unwrap();
    let text = text.split('|').next().unwrap();
    let key = base64::engine::general_purpose::STANDARD.decode(text);
    key.unwrap().into()
}

fn port(message: &Message) -> String {
    let sdp = body(message);
    let line = sdp.lines().find(|l| l.starts_with("m=audio")).unwrap();
    line.split(' ').nth(1).unwrap().to_owned()
}

fn sdp(version: u32) -> String {
    SAVP.replace("o=- 1 1", &format!("o=- 1 {version}"))
}

/// Alice is in, and the switch has a key of hers.
fn called(same_ports: bool) -> (World, Ua, Bytes) {
    let mut world = World::default();
    world.switch().same_ports = same_ports;
    let mut alice = Ua::new("alice");
    let ok = join_with(&mut world, &mut alice, SAVP, "");
    let key = key_of(&mut world);
    assert_eq!(told(&ok), key);
    (world, alice, key)
}

fn say_hello(world: &mut World) {
    let instance = format!("i{}", world.switch().instance);
    world.switch_event(event::Event::Hello(Hello {
        instance,
        // As the registry says.
        certificate: vec![Fingerprint {
            algorithm: "sha-256".into(),
            value: vec![0; 32].into(),
        }],
        ..Hello::default()
    }));
}

/// The one re-INVITE sent is answered: it told what the switch sends with, and nothing is left to tell.
fn told_anew(world: &mut World, alice: &mut Ua, before: &Bytes, version: u32) -> Bytes {
    let reinvite = world.request(Method::Invite);
    accept(world, alice, &reinvite, version);
    world.request(Method::Ack);
    let key = told(&reinvite);
    assert_eq!(key_of(world), key);
    assert_ne!(key, before);
    let ports = port(&reinvite);
    let shift = if world.switch().same_ports {
        0
    } else {
        world.switch().instance
    };
    assert_eq!(ports, (30_000 + shift * 1_000).to_string());
    key
}

fn accept(world: &mut World, alice: &Ua, reinvite: &Message, version: u32) {
    let ok = alice.respond(reinvite, 200, "", Some(&sdp(version)));
    world.send(&ok);
}

/// No key was ever given to two instances.
fn assert_no_key_twice(world: &mut World) {
    let all: Vec<_> = world.switch().keys.iter().cloned().collect();
    assert!(all.windows(2).all(|w| w[0].0 != w[1].0), "{all:?}");
}

/// A restart of the manager alone changes nothing now; and all ends well.
fn settled(mut world: World, mut alice: Ua) {
    let key = key_of(&mut world);
    world.faults.registry_lags = false;
    world.settle();
    world.restart_focus();
    let sent = world.sent();
    assert!(sent.is_empty(), "nobody is told: {:?}", lines(&sent));
    assert_eq!(key_of(&mut world), key);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_restarted_switch_never_sends_with_a_key_it_may_have_used() {
    for same_ports in [false, true] {
        let (mut world, mut alice, before) = called(same_ports);
        world.switch().restart();
        say_hello(&mut world);
        told_anew(&mut world, &mut alice, &before, 2);
        assert_no_key_twice(&mut world);
        settled(world, alice);
    }
}

#[test]
fn a_restart_of_the_manager_alone_changes_no_key() {
    let (world, alice, _) = called(false);
    settled(world, alice);
}

#[test]
fn after_a_restart_of_both_new_keys_are_told_even_where_the_addresses_are_the_same() {
    for same_ports in [false, true] {
        let (mut world, mut alice, before) = called(same_ports);
        world.switch().restart();
        world.settle();
        world.restart_focus();
        told_anew(&mut world, &mut alice, &before, 2);
        assert_no_key_twice(&mut world);
        settled(world, alice);
    }
}

#[test]
fn a_restart_of_both_that_the_registry_does_not_know_of_yet_is_noticed_by_the_answer() {
    for same_ports in [false, true] {
        let (mut world, mut alice, before) = called(same_ports);
        world.switch().restart();
        world.faults.registry_lags = true;
        world.settle();
        world.restart_focus();
        told_anew(&mut world, &mut alice, &before, 2);
        settled(world, alice);
    }
}

#[test]
fn a_record_that_does_not_say_whose_its_keys_are_is_given_new_ones() {
    let (mut world, mut alice, before) = called(false);
    world.settle();
    for (value, _) in world.store.values_mut() {
        let mut json: serde_json::Value = serde_json::from_slice(value).unwrap();
        if json.as_object_mut().unwrap().remove("instance").is_some() {
            *value = serde_json::to_vec(&json).unwrap().into();
        }
    }
    world.restart_focus();
    told_anew(&mut world, &mut alice, &before, 2);
    settled(world, alice);
}

#[test]
fn keys_that_were_recorded_but_not_told_are_told_after_a_restart_of_the_manager() {
    for same_ports in [false, true] {
        let (mut world, mut alice, before) = called(same_ports);
        world.switch().restart();
        world.faults.hold_apply = true;
        say_hello(&mut world);
        let refresh = alice.update(None, "");
        world.send(&refresh);
        assert_eq!(code(&world.answer()), 200);
        world.release();
        world.request(Method::Invite);
        world.settle();
        world.restart_focus();
        told_anew(&mut world, &mut alice, &before, 2);
        assert_no_key_twice(&mut world);
        settled(world, alice);
    }
}

#[test]
fn a_restart_under_a_request_that_fails_is_noticed_by_the_answer_to_the_next() {
    for same_ports in [false, true] {
        let (mut world, mut alice, before) = called(same_ports);
        world.switch().restart();
        world.faults.apply.push_back(ApplyFailure::Unavailable);
        let mut bob = Ua::new("bob");
        let invite = bob.invite(PHONE_OFFER, "");
        world.send(&invite);
        assert_eq!(code(&world.answer()), 503);
        // Not so long that the re-INVITE is repeated.
        world.advance(Duration::from_millis(1_200));
        told_anew(&mut world, &mut alice, &before, 2);
        settled(world, alice);
    }
}

#[test]
fn keys_drawn_while_a_reinvite_waits_for_its_answer_are_told_by_another() {
    for same_ports in [false, true] {
        let (mut world, mut alice, _) = called(same_ports);
        world.switch().restart();
        say_hello(&mut world);
        let reinvite = world.request(Method::Invite);
        world.switch().restart();
        say_hello(&mut world);
        assert!(world.sent().is_empty(), "one is under way");
        accept(&mut world, &alice, &reinvite, 2);
        let sent = world.sent();
        assert_eq!(sent.len(), 2, "{:?}", lines(&sent));
        assert_eq!(*sent[0].method(), Method::Ack);
        // It meets one of the peer's: what it would have told is told later.
        let glare = alice.respond(&sent[1], 491, "", None);
        world.send(&glare);
        world.request(Method::Ack);
        while world.wire.is_empty() {
            world.advance(Duration::from_millis(10));
        }
        told_anew(&mut world, &mut alice, &told(&reinvite), 3);
        assert_no_key_twice(&mut world);
        settled(world, alice);
    }
}

#[test]
fn keys_drawn_while_an_answered_reinvite_is_recorded_are_told_by_another() {
    for same_ports in [false, true] {
        let (mut world, mut alice, _) = called(same_ports);
        world.switch().restart();
        say_hello(&mut world);
        let reinvite = world.request(Method::Invite);
        world.faults.hold_store = true;
        accept(&mut world, &alice, &reinvite, 2);
        world.switch().restart();
        say_hello(&mut world);
        assert!(world.sent().is_empty());
        world.release();
        let sent = world.sent();
        assert_eq!(sent.len(), 2, "{:?}", lines(&sent));
        assert_eq!(*sent[0].method(), Method::Ack);
        world.wire.push_back(sent[1].clone());
        told_anew(&mut world, &mut alice, &told(&reinvite), 3);
        assert_no_key_twice(&mut world);
        settled(world, alice);
    }
}

#[test]
fn keys_drawn_while_the_switch_is_told_the_answer_are_told_by_another_reinvite() {
    for same_ports in [false, true] {
        let (mut world, mut alice, _) = called(same_ports);
        world.switch().restart();
        say_hello(&mut world);
        let reinvite = world.request(Method::Invite);
        world.faults.hold_apply = true;
        let elsewhere = sdp(2).replace("audio 4000", "audio 4100");
        let ok = alice.respond(&reinvite, 200, "", Some(&elsewhere));
        world.send(&ok);
        world.switch().restart();
        say_hello(&mut world);
        world.release();
        let sent = world.sent();
        assert_eq!(sent.len(), 2, "{:?}", lines(&sent));
        assert_eq!(*sent[0].method(), Method::Ack);
        world.wire.push_back(sent[1].clone());
        told_anew(&mut world, &mut alice, &told(&reinvite), 3);
        settled(world, alice);
    }
}

#[test]
fn keys_drawn_while_the_peers_offer_is_recorded_are_in_the_answer() {
    for same_ports in [false, true] {
        let (mut world, mut alice, before) = called(same_ports);
        world.faults.hold_store = true;
        let hold = alice.invite(&(sdp(2) + "a=sendonly\r\n"), "");
        world.send(&hold);
        world.switch().restart();
        say_hello(&mut world);
        world.release();
        let ok = world.answer();
        assert_eq!(told(&ok), key_of(&mut world));
        assert_ne!(told(&ok), before);
        let ack = alice.ack(None);
        world.send(&ack);
        if same_ports {
            assert!(world.sent().is_empty(), "all was told");
        } else {
            told_anew(&mut world, &mut alice, &before, 3);
        }
        assert_no_key_twice(&mut world);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}
