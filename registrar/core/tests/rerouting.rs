//! Requests under way to a meeting manager that is gone: they find whoever goes on with the meeting.

mod common;

use std::time::Duration;

use common::{World, answer, caller_routes, hop, in_dialog, member_hop};
use sip::{HeaderName, Hop, Message, Transport};

const LOBBY: &str = "sip:lobby@example.org";

fn owner(world: &mut World, member: &str) {
    let (now, wall) = (world.now, world.wall);
    world
        .core
        .handle_owner(now, wall, "lobby", Some(member.into()));
    world.pump();
}

fn gone(world: &mut World, member: &str) {
    let (now, wall) = (world.now, world.wall);
    world.core.handle_member(now, wall, member, None);
    world.pump();
}

/// Alice in the lobby, which m1 serves; the route of her requests.
fn in_lobby() -> (World, Hop, Vec<String>) {
    let mut world = World::new().with_members();
    owner(&mut world, "m1");
    let client = hop(Transport::Wss, 1, 40_000);
    world.invite("alice", client, LOBBY);
    let invite = world.take_request("INVITE", member_hop(1));
    let contact = [(HeaderName::Contact, "<sip:lobby@example.org>;isfocus")];
    world.deliver(member_hop(1), answer(&invite, 200, &contact));
    let routes = caller_routes(&world.take_status(200));
    (world, client, routes)
}

fn bye(world: &mut World, client: Hop, routes: &[String]) -> Message {
    let bye = in_dialog("BYE", LOBBY, client, routes, 200);
    world.deliver(client, bye.message());
    world.take_request("BYE", member_hop(1))
}

/// What was sent to m1 last could not be.
fn fail(world: &mut World) {
    let to_first = |sent: &&common::Sent| sent.hop.remote == member_hop(1).remote;
    let id = world.sent.iter().rev().find(to_first).map(|sent| sent.id);
    world.sent.clear();
    let (now, wall) = (world.now, world.wall);
    world.core.handle_send_failed(now, wall, id.expect("sent"));
    world.pump();
}

#[test]
fn a_request_that_was_sent_before_the_manager_was_known_to_be_gone_goes_to_the_new_owner() {
    let (mut world, client, routes) = in_lobby();
    bye(&mut world, client, &routes);
    world.advance(Duration::from_millis(100));
    gone(&mut world, "m1");
    world.assert_silent();
    world.advance(Duration::from_secs(1));
    owner(&mut world, "m2");
    let again = world.take_request("BYE", member_hop(2));
    world.deliver(member_hop(2), answer(&again, 200, &[]));
    world.take_status(200);
    assert_eq!(world.core.pending(), 0);
}

#[test]
fn a_manager_that_refuses_connections_is_waited_for_until_another_has_the_meeting() {
    let (mut world, client, routes) = in_lobby();
    let bye = in_dialog("BYE", LOBBY, client, &routes, 200);
    world.deliver(client, bye.message());
    fail(&mut world);
    world.assert_silent();
    gone(&mut world, "m1");
    owner(&mut world, "m2");
    world.take_request("BYE", member_hop(2));
}

#[test]
fn what_nobody_takes_over_is_refused_in_time_however_often_it_was_tried() {
    let (mut world, client, routes) = in_lobby();
    let bye = in_dialog("BYE", LOBBY, client, &routes, 200);
    world.deliver(client, bye.message());
    for _ in 0..4 {
        fail(&mut world);
        world.advance(Duration::from_millis(700));
        // News, but no other owner.
        owner(&mut world, "m1");
    }
    fail(&mut world);
    world.advance(Duration::from_secs(1));
    // A 503 of what is behind a proxy is its own 500 (RFC 3261 §16.7 step 6).
    world.take_status(500);
    assert_eq!(world.core.pending(), 0);
}

#[test]
fn a_deposed_manager_that_says_503_is_passed_over() {
    let (mut world, client, routes) = in_lobby();
    let sent = bye(&mut world, client, &routes);
    owner(&mut world, "m2");
    world.deliver(member_hop(1), answer(&sent, 503, &[]));
    world.take_request("BYE", member_hop(2));
}

#[test]
fn the_owners_own_503_is_passed_on() {
    let (mut world, client, routes) = in_lobby();
    let sent = bye(&mut world, client, &routes);
    world.deliver(member_hop(1), answer(&sent, 503, &[]));
    assert!(world.take().message.status().is_some());
}

#[test]
fn a_call_that_the_dead_manager_had_begun_to_answer_goes_to_who_takes_over() {
    let mut world = World::new().with_members();
    owner(&mut world, "m1");
    let client = hop(Transport::Wss, 1, 40_000);
    world.invite("alice", client, LOBBY);
    let invite = world.take_request("INVITE", member_hop(1));
    world.deliver(member_hop(1), answer(&invite, 100, &[]));
    gone(&mut world, "m1");
    let again = world.take_request("INVITE", member_hop(2));
    assert_eq!(again.call_id(), invite.call_id());
    assert_eq!(again.cseq(), invite.cseq());
    let contact = [(HeaderName::Contact, "<sip:lobby@example.org>;isfocus")];
    world.deliver(member_hop(2), answer(&again, 200, &contact));
    world.take_status(200);
}

#[test]
fn a_call_that_is_given_up_while_it_waits_ends() {
    let (mut world, client, routes) = in_lobby();
    let reinvite = in_dialog("INVITE", LOBBY, client, &routes, 201);
    world.deliver(client, reinvite.message());
    world.take_request("INVITE", member_hop(1));
    gone(&mut world, "m1");
    let mut cancel = reinvite.clone();
    cancel.method = "CANCEL".into();
    world.deliver(client, cancel.message());
    world.take_status(200);
    world.take_status(487);
    owner(&mut world, "m2");
    world.assert_silent();
}

#[test]
fn what_a_deposed_manager_sends_is_turned_away_and_the_owners_goes_on() {
    for (deposed, expected) in [(true, 503), (false, 0)] {
        let mut world = World::new().with_members();
        owner(&mut world, "m1");
        let client = hop(Transport::Wss, 1, 40_000);
        world.invite("alice", client, LOBBY);
        let invite = world.take_request("INVITE", member_hop(1));
        let routes: Vec<String> = invite
            .values(HeaderName::RecordRoute)
            .map(str::to_owned)
            .collect();
        let contact = [(HeaderName::Contact, "<sip:lobby@example.org>;isfocus")];
        world.deliver(member_hop(1), answer(&invite, 200, &contact));
        world.take_status(200);
        if deposed {
            owner(&mut world, "m2");
        }
        let target = "sip:alice@198.51.100.1;transport=ws";
        let mut bye = in_dialog("BYE", target, member_hop(1), &routes, 202);
        bye.from = format!("<{LOBBY}>;tag=focus");
        world.deliver(member_hop(1), bye.message());
        let sent = world.take();
        assert_eq!(sent.message.status().map_or(0, |s| s.get()), expected);
        assert_eq!(sent.hop == client, !deposed);
    }
}
