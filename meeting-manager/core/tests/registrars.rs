//! A registrar is gone: requests in dialogs that came through it go through another one.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::*;
use meeting_core::Command;
use sip::{Hop, Message, Method, Transport};

/// The one that dialogs of these tests come through, and another.
const FIRST: &str = "sip:token@127.0.0.1:5060;transport=udp;lr";
const SECOND: &str = "sip:token@127.0.0.2:5060;transport=udp;lr";

fn living(world: &mut World, routes: &[&str]) {
    let living: BTreeMap<String, Vec<String>> = routes
        .iter()
        .map(|route| ((*route).to_owned(), vec![(*route).to_owned()]))
        .collect();
    world.focus.handle_registrars(world.now, &living);
}

/// What the focus sends, with where to.
fn transmits(world: &mut World) -> Vec<(Hop, Message)> {
    let mut sent = Vec::new();
    while let Some(command) = world.focus.poll_command() {
        if let Command::Transmit(transmit) = command {
            let message = Message::parse(transmit.bytes, &sip::Limits::default()).unwrap();
            sent.push((transmit.hop, message));
        } else {
            world.carry_out(command);
        }
    }
    sent
}

/// Alice in a meeting, whose session is ours to refresh.
fn in_meeting() -> World {
    let mut world = World::default();
    living(&mut world, &[FIRST, SECOND]);
    join(&mut world, &mut Ua::new("alice"));
    world.settle();
    world
}

fn refresh(world: &mut World) -> (Hop, Message) {
    world.now += Duration::from_secs(901);
    world.focus.handle_timeout(world.now);
    let mut sent = transmits(world);
    assert_eq!(sent.len(), 1);
    sent.remove(0)
}

fn second(hop: Hop, message: &Message) {
    assert_eq!(hop.transport, Transport::Udp);
    assert_eq!(hop.remote.to_string(), "127.0.0.2:5060");
    assert_eq!(*message.method(), Method::Update);
    let route = message.header(sip::HeaderName::Route);
    assert_eq!(route, Some("<sip:127.0.0.1:5060;lr>"), "it says which flow");
}

#[test]
fn requests_go_the_way_the_dialog_came_while_that_registrar_lives() {
    let mut world = in_meeting();
    let (hop, _) = refresh(&mut world);
    assert_eq!(hop.remote.to_string(), "127.0.0.1:5060");
}

#[test]
fn requests_go_through_another_registrar_once_the_first_is_gone() {
    let mut world = in_meeting();
    living(&mut world, &[SECOND]);
    let (hop, update) = refresh(&mut world);
    second(hop, &update);
    living(&mut world, &[FIRST, SECOND]);
}

#[test]
fn what_was_sent_before_it_was_known_is_sent_again() {
    let mut world = in_meeting();
    let (_, first) = refresh(&mut world);
    living(&mut world, &[SECOND]);
    let sent = transmits(&mut world);
    assert_eq!(sent.len(), 1);
    let (hop, again) = &sent[0];
    second(*hop, again);
    assert_eq!(first.cseq(), again.cseq());
    // The first transaction is over: nothing of it is repeated.
    world.now += Duration::from_millis(500);
    world.focus.handle_timeout(world.now);
    let repeated = transmits(&mut world);
    assert!(
        repeated
            .iter()
            .all(|(hop, _)| hop.remote.to_string() == "127.0.0.2:5060")
    );
}

#[test]
fn a_registrar_that_comes_back_is_used_again() {
    let mut world = in_meeting();
    living(&mut world, &[SECOND]);
    living(&mut world, &[FIRST, SECOND]);
    let (hop, _) = refresh(&mut world);
    assert_eq!(hop.remote.to_string(), "127.0.0.1:5060");
}

#[test]
fn where_no_other_registrar_lives_the_first_is_tried() {
    let mut world = in_meeting();
    living(&mut world, &[]);
    let (hop, _) = refresh(&mut world);
    assert_eq!(hop.remote.to_string(), "127.0.0.1:5060");
}

/// Nothing of what the focus sends can be; the methods of what it tried.
fn unsendable(world: &mut World) -> Vec<Method> {
    let mut tried = Vec::new();
    while let Some(command) = world.focus.poll_command() {
        let Command::Transmit(transmit) = command else {
            world.carry_out(command);
            continue;
        };
        let message = Message::parse(transmit.bytes, &sip::Limits::default()).unwrap();
        if let Some(client) = transmit.client {
            tried.push(message.method().clone());
            world.focus.handle_transport_error(world.now, client);
        }
    }
    tried
}

#[test]
fn a_call_is_not_given_up_because_no_registrar_is_there_for_a_while() {
    let mut world = in_meeting();
    living(&mut world, &[]);
    world.switch().restart();
    let hello = control::v1::Hello {
        instance: "i1".into(),
        ..control::v1::Hello::default()
    };
    let event = control::v1::Event {
        event: Some(control::v1::event::Event::Hello(hello)),
    };
    let switch = meeting_core::SwitchId::new("sw1");
    world.focus.handle_switch_event(world.now, &switch, event);
    // Where the media are now is to be told, and cannot be.
    assert_eq!(unsendable(&mut world), [Method::Invite]);
    for _ in 0..10 {
        world.now += Duration::from_secs(1);
        world.focus.handle_timeout(world.now);
        assert_eq!(unsendable(&mut world), [Method::Invite]);
    }
    world.advance(Duration::from_secs(1));
    let reinvite = world.request(Method::Invite);
    assert!(body(&reinvite).contains("m=audio 31000"));
}
