//! Where requests go: meetings and their owners, flows, Record-Route and Route, GRUUs, guests, identity.

mod common;

use cluster::ownership::{Candidate, choose};
use common::{
    DOMAIN, Request, WALL, World, answer, caller_routes, hop, in_dialog, member, member_hop,
    settings, text, udp,
};
use registrar_core::GuestMint;
use sip::{HeaderName, Hop, Message, Transport};
use std::net::SocketAddr;
use std::time::Duration;

const LOBBY: &str = "sip:lobby@example.org";

/// Whom all members of the cluster choose for a meeting.
fn chosen(meeting: &str) -> u8 {
    let idle = |id| Candidate {
        id,
        load: 0,
        draining: false,
    };
    match choose(meeting, &[idle("m1"), idle("m2")]) {
        Some("m1") => 1,
        _ => 2,
    }
}

/// Alice on a WebSocket in the lobby: the routes of both sides.
fn meeting(world: &mut World, client: Hop) -> (Vec<String>, Vec<String>) {
    world.invite("alice", client, LOBBY);
    let invite = world.take_request("INVITE", member_hop(1));
    let callee: Vec<String> = invite
        .values(HeaderName::RecordRoute)
        .map(str::to_owned)
        .collect();
    world.deliver(
        member_hop(1),
        answer(
            &invite,
            200,
            &[(HeaderName::Contact, "<sip:lobby@example.org>;isfocus")],
        ),
    );
    let ok = world.take_status(200);
    (caller_routes(&ok), callee)
}

#[test]
fn meeting_goes_to_its_owner() {
    let mut world = World::new().with_members();
    world.invite("alice", udp(1), LOBBY);
    let invite = world.take_request("INVITE", member_hop(1));
    assert_eq!(invite.request_uri(), LOBBY);
    assert_eq!(invite.header(HeaderName::MaxForwards), Some("69"));
    world
        .core
        .handle_owner(world.now, world.wall, "lobby", Some("m2".into()));
    world.invite("bob", udp(2), LOBBY);
    world.take_request("INVITE", member_hop(2));
}

#[test]
fn unowned_meeting_goes_to_the_same_manager_from_every_registrar() {
    let first = chosen("fresh");
    for _ in 0..2 {
        let mut world = World::new().with_members();
        world.invite("alice", udp(1), "sip:fresh@example.org");
        world.take_request("INVITE", member_hop(first));
    }
}

#[test]
fn draining_manager_gets_no_new_meeting() {
    let mut world = World::new().with_members();
    let number = chosen("fresh");
    let first = format!("m{number}");
    let mut draining = member(number);
    draining.draining = true;
    world
        .core
        .handle_member(world.now, world.wall, &first, Some(draining));
    world.invite("alice", udp(1), "sip:fresh@example.org");
    world.take_request("INVITE", member_hop(3 - number));
}

#[test]
fn new_meetings_are_refused_where_all_managers_drain_and_running_ones_go_on() {
    let mut world = World::new().with_members();
    world
        .core
        .handle_owner(world.now, world.wall, "lobby", Some("m1".into()));
    for number in [1, 2] {
        let mut draining = member(number);
        draining.draining = true;
        world
            .core
            .handle_member(world.now, world.wall, &format!("m{number}"), Some(draining));
    }
    world.invite("alice", udp(1), "sip:fresh@example.org");
    let refused = world.take_status(503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
    world.invite("alice", udp(1), LOBBY);
    world.take_request("INVITE", member_hop(1));
}

#[test]
fn calls_to_a_factory_are_spread_over_the_managers() {
    let mut world = World::new().with_members();
    world.core.handle_factories(["new".to_owned()].into());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..16 {
        world.invite("alice", udp(1), "sip:new@example.org");
        seen.insert(world.take().hop.remote);
        world.sent.clear();
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn record_route_has_a_value_for_each_side() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    world.invite("alice", client, LOBBY);
    let invite = world.take_request("INVITE", member_hop(1));
    let values: Vec<&str> = invite.values(HeaderName::RecordRoute).collect();
    assert_eq!(values.len(), 2, "{values:?}");
    assert!(
        values[0].contains("@192.0.2.1:5060;transport=udp;lr"),
        "{values:?}"
    );
    assert!(
        values[1].contains("@192.0.2.1:443;transport=wss;lr"),
        "{values:?}"
    );
}

#[test]
fn in_dialog_request_of_the_meeting_goes_to_the_clients_connection() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (_, callee) = meeting(&mut world, client);
    let bye = in_dialog(
        "BYE",
        "sip:x7@k3.invalid;transport=ws",
        member_hop(1),
        &callee,
        90,
    );
    world.deliver(member_hop(1), bye.message());
    let sent = world.take();
    assert_eq!(sent.message.method().as_str(), "BYE");
    assert_eq!(sent.hop.flow, client.flow);
    assert_eq!(sent.message.request_uri(), "sip:x7@k3.invalid;transport=ws");
    assert_eq!(sent.message.values(HeaderName::Route).count(), 0);
    assert!(
        world.resolves.is_empty(),
        "a browser's host is never resolved"
    );
}

#[test]
fn in_dialog_request_of_the_client_goes_to_whoever_owns_the_meeting_now() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (caller, _) = meeting(&mut world, client);
    world
        .core
        .handle_owner(world.now, world.wall, "lobby", Some("m2".into()));
    let bye = in_dialog("BYE", LOBBY, client, &caller, 91);
    world.deliver(client, bye.message());
    let sent = world.take_request("BYE", member_hop(2));
    assert_eq!(sent.values(HeaderName::Route).count(), 0);
}

#[test]
fn phone_that_puts_us_before_its_route_set_is_still_known_by_its_token() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    world.invite("alice", client, "sip:bob@example.org");
    let invite = world.take_request("INVITE", udp(2));
    let contact = [(HeaderName::Contact, "<sip:bob@198.51.100.2>")];
    world.deliver(udp(2), answer(&invite, 200, &contact));
    let mut routes = caller_routes(&world.take_status(200));
    routes.insert(0, "<sip:192.0.2.1;lr>".to_owned());
    for (method, n) in [("ACK", 93), ("BYE", 94)] {
        let request = in_dialog(method, "sip:bob@198.51.100.2", client, &routes, n);
        world.deliver(client, request.message());
        world.take_request(method, udp(2));
    }
    // Of what is not ours nobody knows what stands behind it.
    routes.insert(0, "<sip:elsewhere.example;lr>".to_owned());
    let bye = in_dialog("BYE", "sip:bob@198.51.100.2", client, &routes, 95);
    world.deliver(client, bye.message());
    world.take_status(407);
}

#[test]
fn ack_of_a_2xx_goes_end_to_end_by_the_routes() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (caller, _) = meeting(&mut world, client);
    let ack = in_dialog("ACK", LOBBY, client, &caller, 92);
    world.deliver(client, ack.message());
    let ack = world.take_request("ACK", member_hop(1));
    assert_eq!(ack.values(HeaderName::Via).count(), 2);
}

#[test]
fn client_that_came_back_over_another_connection_still_reaches_the_meeting() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (caller, _) = meeting(&mut world, client);
    world.close(client);
    let back = hop(Transport::Wss, 9, 40_009);
    let update = in_dialog("UPDATE", LOBBY, back, &caller, 93);
    world.deliver(back, update.message());
    world.take_request("UPDATE", member_hop(1));
}

#[test]
fn meeting_reaches_a_client_that_came_back_by_its_gruu() {
    let mut world = World::new().with_members();
    let contact = "<sip:x@k.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"";
    let client = hop(Transport::Wss, 1, 40_000);
    world.register("alice", client, contact);
    let (_, callee) = meeting(&mut world, client);
    world.close(client);
    let gruu = "sip:alice@example.org;gr=urn:uuid:1";
    let info = in_dialog("INFO", gruu, member_hop(1), &callee, 94);
    world.deliver(member_hop(1), info.message());
    world.take_status(480);
    let back = hop(Transport::Wss, 9, 40_009);
    world.register("alice", back, contact);
    let info = in_dialog("INFO", gruu, member_hop(1), &callee, 95);
    world.deliver(member_hop(1), info.message());
    let sent = world.take();
    assert_eq!(sent.hop.flow, back.flow);
    assert_eq!(sent.message.request_uri(), "sip:x@k.invalid;transport=ws");
}

#[test]
fn dead_connection_without_a_gruu_is_430() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (_, callee) = meeting(&mut world, client);
    world.close(client);
    let bye = in_dialog("BYE", "sip:x7@k3.invalid", member_hop(1), &callee, 96);
    world.deliver(member_hop(1), bye.message());
    world.take_status(430);
}

#[test]
fn udp_client_is_reached_by_its_token_after_a_restart_of_the_registrar() {
    let mut before = World::new().with_members();
    let (_, callee) = meeting(&mut before, udp(1));
    let mut world = World::new().with_members();
    world.core = registrar_core::Core::new(world.now, settings(), &common::secrets(), [8; 32], 99);
    let bye = in_dialog("BYE", "sip:alice@10.7.7.7:5062", member_hop(1), &callee, 97);
    world.deliver(member_hop(1), bye.message());
    let sent = world.take();
    assert_eq!(sent.hop.remote, udp(1).remote);
    assert_eq!(sent.hop.transport, Transport::Udp);
}

#[test]
fn token_of_another_registrar_sends_the_request_there() {
    let mut other = World::with(|s| {
        s.node = "edge-2".into();
        for a in &mut s.advertised {
            a.host = "192.0.2.2".into();
        }
    })
    .with_members();
    let (_, callee) = meeting(&mut other, hop(Transport::Wss, 1, 40_000));
    let mut world = World::new().with_members();
    let bye = in_dialog("BYE", "sip:x7@k3.invalid", member_hop(1), &callee, 98);
    world.deliver(member_hop(1), bye.message());
    let sent = world.take();
    // The wss value is the one with the flow; its address is literal.
    assert_eq!(sent.hop.remote.ip().to_string(), "192.0.2.2");
    let routes: Vec<&str> = sent.message.values(HeaderName::Route).collect();
    assert_eq!(routes.len(), 1, "{routes:?}");
}

#[test]
fn binding_held_by_another_registrar_is_reached_through_it() {
    let mut other = World::with(|s| {
        s.node = "edge-2".into();
        for a in &mut s.advertised {
            a.host = "192.0.2.2".into();
        }
    });
    other.register(
        "bob",
        hop(Transport::Wss, 5, 40_000),
        "<sip:b@x.invalid;transport=ws>",
    );
    let (set, revision) = other.store.read("sip:bob@example.org").expect("stored");
    let mut world = World::new();
    world
        .core
        .handle_bindings("sip:bob@example.org", Some(set), revision);
    world.invite("alice", udp(1), "sip:bob@example.org");
    let sent = world.take();
    assert_eq!(
        sent.hop.remote,
        "192.0.2.2:5060".parse::<SocketAddr>().expect("address")
    );
    // The other one takes the request as from a peer, without a challenge, and finds the flow.
    let mut arriving = sent.message.clone();
    assert_eq!(arriving.values(HeaderName::Route).count(), 1);
    let from_first = Hop {
        remote: "192.0.2.1:5060".parse().expect("address"),
        ..udp(1)
    };
    arriving.set(HeaderName::MaxForwards, "69");
    other.deliver(from_first, arriving);
    let delivered = other.take();
    assert_eq!(delivered.hop.flow, hop(Transport::Wss, 5, 40_000).flow);
    assert_eq!(
        delivered.message.request_uri(),
        "sip:b@x.invalid;transport=ws"
    );
}

#[test]
fn two_users_talk_over_the_flows_of_both() {
    let mut world = World::new();
    let (a, b) = (
        hop(Transport::Wss, 1, 40_000),
        hop(Transport::Tcp, 2, 40_001),
    );
    world.register("bob", b, "<sip:bob@10.2.2.2:5062;transport=tcp>");
    world.invite("alice", a, "sip:bob@example.org");
    let sent = world.take();
    assert_eq!(sent.hop.flow, b.flow);
    let invite = sent.message;
    assert_eq!(invite.request_uri(), "sip:bob@10.2.2.2:5062;transport=tcp");
    let callee: Vec<String> = invite
        .values(HeaderName::RecordRoute)
        .map(str::to_owned)
        .collect();
    world.deliver(
        b,
        answer(
            &invite,
            200,
            &[(HeaderName::Contact, "<sip:bob@10.2.2.2:5062>")],
        ),
    );
    let ok = world.take_status(200);
    let caller = caller_routes(&ok);
    let bye = in_dialog("BYE", "sip:bob@10.2.2.2:5062", a, &caller, 99);
    world.deliver(a, bye.message());
    assert_eq!(world.take().hop.flow, b.flow);
    let bye = in_dialog("BYE", "sip:a@k.invalid", b, &callee, 100);
    world.deliver(b, bye.message());
    assert_eq!(world.take().hop.flow, a.flow);
}

#[test]
fn callee_that_accepts_connections_is_called_back_when_its_own_is_gone() {
    let mut world = World::new();
    let b = hop(Transport::Tcp, 2, 5064);
    world.register("bob", b, "<sip:bob@198.51.100.2:5064;transport=tcp>");
    world.close(b);
    world.invite("alice", udp(1), "sip:bob@example.org");
    let sent = world.take();
    assert_eq!(sent.hop.remote, b.remote);
    assert_eq!(sent.hop.flow, None);
    let ok = answer(
        &sent.message,
        200,
        &[(
            HeaderName::Contact,
            "<sip:bob@198.51.100.2:5064;transport=tcp>",
        )],
    );
    world.deliver(b, ok);
    let ok = world.take_status(200);
    let bye = in_dialog(
        "BYE",
        "sip:bob@198.51.100.2:5064;transport=tcp",
        udp(1),
        &caller_routes(&ok),
        101,
    );
    world.deliver(udp(1), bye.message());
    assert_eq!(world.take().hop.remote, b.remote);
}

#[test]
fn strict_routers_request_uri_is_put_right() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (caller, _) = meeting(&mut world, client);
    // A strict router puts the next Route into the Request-URI and the target at the end.
    let top = caller[0].trim_matches(['<', '>']).to_owned();
    let mut routes = caller[1..].to_vec();
    routes.push(format!("<{LOBBY}>"));
    let bye = in_dialog("BYE", &top, client, &routes, 102);
    world.deliver(client, bye.message());
    let bye = world.take_request("BYE", member_hop(1));
    assert_eq!(bye.request_uri(), LOBBY);
}

#[test]
fn only_a_recorded_route_in_the_request_uri_makes_the_last_route_the_target() {
    // RFC 3261 §16.4. A gateway in a trusted network must not be reached so either.
    let gateway = "203.0.113.50:5060";
    let mut world = World::with(|s| s.trusted = vec!["203.0.113.0/24".parse().expect("a net")]);
    world = world.with_members();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let victims = [
        "sip:bob@example.org".to_owned(),
        format!("sip:+1901@{gateway}"),
    ];
    for own in [
        "sip:lobby@example.org;lr",
        "sip:lobby@192.0.2.1;lr",
        "sip:192.0.2.1;lr",
    ] {
        for (n, method) in ["INVITE", "MESSAGE", "OPTIONS", "ACK"]
            .into_iter()
            .enumerate()
        {
            for victim in &victims {
                let id = 500 + n as u64;
                let mut request = in_dialog(method, own, udp(66), &[format!("<{victim}>")], id);
                request.branch = format!("z9hG4bK{}", world.unique());
                world.deliver(udp(66), request.message());
                for sent in world.sent.drain(..) {
                    let to_victim =
                        sent.hop.remote == udp(2).remote || sent.hop.remote.to_string() == gateway;
                    assert!(
                        !to_victim,
                        "{method} {own} {victim}: {}",
                        text(&sent.message)
                    );
                }
            }
        }
    }
}

#[test]
fn to_tag_alone_opens_the_way_to_meetings_and_nobody_else() {
    let mut world = World::with(|s| s.trusted = vec!["203.0.113.0/24".parse().expect("a net")]);
    world = world.with_members();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let info = in_dialog("INFO", LOBBY, udp(66), &[], 510);
    world.deliver(udp(66), info.message());
    world.take_request("INFO", member_hop(1));
    let own = "<sip:192.0.2.1;lr>".to_owned();
    let info = in_dialog("INFO", LOBBY, udp(66), std::slice::from_ref(&own), 511);
    world.deliver(udp(66), info.message());
    world.take_request("INFO", member_hop(1));
    for (n, (uri, routes)) in [
        ("sip:bob@example.org", vec![]),
        ("sip:bob@example.org", vec![own.clone()]),
        (LOBBY, vec!["<sip:203.0.113.50;lr>".to_owned()]),
        (LOBBY, vec![own, "<sip:10.0.0.2:5070;lr>".to_owned()]),
        ("sip:lobby@10.0.0.2:5070", vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        let request = in_dialog("MESSAGE", uri, udp(66), &routes, 520 + n as u64);
        world.deliver(udp(66), request.message());
        world.take_status(407);
        world.assert_silent();
    }
}

/// A guest of the lobby at `at`, and the Route that its call there was given.
fn guest_in_the_lobby(world: &mut World, at: Hop) -> (registrar_core::GuestPass, Vec<String>) {
    let pass = GuestMint::new([3; 32])
        .issue("lobby", WALL + 100, 7)
        .expect("valid");
    let n = world.unique();
    let mut invite = Request::new("INVITE", LOBBY, at, n);
    invite.from = format!("<sip:{}@{DOMAIN}>;tag=f{n}", pass.user);
    world.authenticated(at, &pass.user, &pass.password, &invite);
    let invite = world.take_request("INVITE", member_hop(1));
    let contact = [(HeaderName::Contact, "<sip:lobby@example.org>;isfocus")];
    world.deliver(member_hop(1), answer(&invite, 200, &contact));
    let ok = world.take_status(200);
    (pass, caller_routes(&ok))
}

#[test]
fn token_of_a_guests_dialog_leads_to_meetings_and_nowhere_else() {
    let mut world = World::with(|s| {
        s.trusted = vec!["203.0.113.0/24".parse().expect("a net")];
        s.relay = true;
    })
    .with_members();
    let contact = "<sip:x@k.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"";
    world.register("bob", hop(Transport::Wss, 2, 40_000), contact);
    let at = hop(Transport::Wss, 1, 40_000);
    let (_, routes) = guest_in_the_lobby(&mut world, at);
    let top = routes[0].trim_matches(['<', '>']).to_owned();
    for (n, uri) in [
        "sip:bob@example.org",
        "sip:bob@example.org;gr=urn:uuid:1",
        "sip:+1900@203.0.113.50",
        "sip:x@elsewhere.example",
        "sip:lobby@10.0.0.2:5070",
    ]
    .into_iter()
    .enumerate()
    {
        let invite = in_dialog("INVITE", uri, at, &routes, 530 + n as u64);
        world.deliver(at, invite.message());
        let sent = world.take();
        let status = sent.message.status().map(|s| s.get());
        assert!(matches!(status, Some(403 | 404)), "{}", text(&sent.message));
        // The same with our URI where a strict router puts it.
        let mut strict = routes[1..].to_vec();
        strict.push(format!("<{uri}>"));
        let invite = in_dialog("INVITE", &top, at, &strict, 540 + n as u64);
        world.deliver(at, invite.message());
        let sent = world.take();
        let status = sent.message.status().map(|s| s.get());
        assert!(matches!(status, Some(403 | 404)), "{}", text(&sent.message));
        world.assert_silent();
        assert!(world.resolves.is_empty());
    }
}

#[test]
fn guest_and_stranger_reach_no_gateway_and_no_manager_by_address() {
    let mut world = World::with(|s| {
        s.trusted = vec!["203.0.113.0/24".parse().expect("a net")];
        s.relay = true;
        s.foreign_callers = true;
    })
    .with_members();
    let at = hop(Transport::Wss, 1, 40_000);
    let (pass, _) = guest_in_the_lobby(&mut world, at);
    for (uri, route) in [
        ("sip:+1900@203.0.113.50", None),
        ("sip:other@10.0.0.2:5070", None),
        ("sip:other@example.org", Some("<sip:10.0.0.2:5070;lr>")),
        (LOBBY, Some("<sip:10.0.0.2:5070;lr>")),
        (LOBBY, Some("<sip:203.0.113.50;lr>")),
        (LOBBY, Some("<sip:elsewhere.example;lr>")),
    ] {
        let n = world.unique();
        let mut invite = Request::new("INVITE", uri, at, n);
        invite.from = format!("<sip:{}@{DOMAIN}>;tag=f{n}", pass.user);
        invite.headers.extend(route.map(|r| format!("Route: {r}")));
        world.authenticated(at, &pass.user, &pass.password, &invite);
        world.take_status(403);
        world.assert_silent();
        assert!(world.resolves.is_empty());
        let n = world.unique();
        let mut invite = Request::new("INVITE", uri, udp(66), n);
        invite.from = "<sip:eve@elsewhere.example>;tag=e".into();
        invite.headers.extend(route.map(|r| format!("Route: {r}")));
        world.deliver(udp(66), invite.message());
        let sent = world.take();
        let status = sent.message.status().map(|s| s.get());
        assert!(matches!(status, Some(403 | 407)), "{}", text(&sent.message));
        assert!(world.resolves.is_empty());
    }
}

#[test]
fn invented_route_token_is_no_way_in() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (_, callee) = meeting(&mut world, client);
    let forged = callee.last().expect("one").replacen("sip:", "sip:A", 1);
    let bye = in_dialog("BYE", "sip:x7@k3.invalid", udp(66), &[forged], 103);
    world.deliver(udp(66), bye.message());
    let sent = world.take();
    assert!(!sent.message.is_request(), "{}", text(&sent.message));
}

#[test]
fn dialogs_token_does_not_let_new_calls_in() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (_, callee) = meeting(&mut world, client);
    let mut invite = Request::new("INVITE", "sip:x7@k3.invalid", udp(66), 104);
    invite.headers.push(format!("Route: {}", callee.join(", ")));
    world.deliver(udp(66), invite.message());
    world.take_status(407);
}

#[test]
fn in_dialog_request_waits_for_a_takeover_and_then_goes_to_the_new_owner() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (caller, _) = meeting(&mut world, client);
    world.core.handle_member(world.now, world.wall, "m1", None);
    let bye = in_dialog("BYE", LOBBY, client, &caller, 105);
    world.deliver(client, bye.message());
    world.assert_silent();
    world.advance(Duration::from_secs(1));
    world
        .core
        .handle_owner(world.now, world.wall, "lobby", Some("m2".into()));
    world.pump();
    world.take_request("BYE", member_hop(2));
}

#[test]
fn takeover_that_does_not_come_ends_in_503() {
    let mut world = World::new().with_members();
    let client = hop(Transport::Wss, 1, 40_000);
    let (caller, _) = meeting(&mut world, client);
    world.core.handle_member(world.now, world.wall, "m1", None);
    let bye = in_dialog("BYE", LOBBY, client, &caller, 106);
    world.deliver(client, bye.message());
    world.advance(Duration::from_secs(3));
    world.take_status(503);
    assert_eq!(world.core.stats().parked, 0);
}

#[test]
fn managers_are_not_challenged_and_reach_registered_users() {
    let mut world = World::new().with_members();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let mut invite = Request::new("INVITE", "sip:bob@example.org", member_hop(1), 107);
    invite.from = format!("<{LOBBY}>;tag=focus");
    invite
        .headers
        .push(format!("P-Asserted-Identity: <{LOBBY}>"));
    world.deliver(member_hop(1), invite.message());
    let got = world.take_request("INVITE", udp(2));
    assert_eq!(
        got.header(HeaderName::PAssertedIdentity),
        Some("<sip:lobby@example.org>")
    );
    // The same from elsewhere is challenged.
    world.deliver(udp(66), {
        let mut other = invite.clone();
        other.branch = "z9hG4bKforeign".into();
        other.message()
    });
    world.take_status(407);
}

#[test]
fn request_with_the_route_from_the_store_is_taken_as_from_a_member() {
    let mut world = World::new().with_members();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let route = world.core.member_routes().remove(0);
    assert!(route.starts_with("sip:") && route.ends_with("@192.0.2.1:5060;transport=udp;lr"));
    let from = hop(Transport::Tcp, 77, 45_000);
    let mut invite = Request::new("INVITE", "sip:bob@example.org", from, 117);
    invite.from = format!("<{LOBBY}>;tag=focus");
    invite.headers.push(format!("Route: <{route}>"));
    world.deliver(from, invite.message());
    let got = world.take_request("INVITE", udp(2));
    assert_eq!(got.values(HeaderName::Route).count(), 0);
    assert!(!text(&got).contains(&route), "the secret goes no further");
}

#[test]
fn proved_identity_is_asserted_and_a_claimed_one_stripped() {
    let mut world = World::new().with_members();
    let n = world.unique();
    let mut request = Request::new("INVITE", LOBBY, udp(1), n);
    request.from = format!("\"Alice at home\" <sip:alice@{DOMAIN}>;tag=f{n}");
    request
        .headers
        .push("P-Asserted-Identity: <sip:boss@example.org>".into());
    world.authenticated(udp(1), "alice", "secret", &request);
    let invite = world.take_request("INVITE", member_hop(1));
    let asserted: Vec<&str> = invite.headers(HeaderName::PAssertedIdentity).collect();
    assert_eq!(asserted, ["\"Alice at home\" <sip:alice@example.org>"]);
    assert_eq!(
        invite.header(HeaderName::ProxyAuthorization),
        None,
        "credentials go no further"
    );
}

#[test]
fn identity_that_wants_privacy_is_asserted_to_managers_and_not_to_clients() {
    let mut world = World::new().with_members();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    for (uri, to, count) in [
        (LOBBY, member_hop(1), 1),
        ("sip:bob@example.org", udp(2), 0),
    ] {
        let n = world.unique();
        let mut request = Request::new("INVITE", uri, udp(1), n);
        request.from = format!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=f{n}");
        request.headers.push("Privacy: id".into());
        world.authenticated(udp(1), "alice", "secret", &request);
        let got = world.take_request("INVITE", to);
        assert_eq!(
            got.headers(HeaderName::PAssertedIdentity).count(),
            count,
            "{uri}"
        );
    }
}

#[test]
fn cancel_of_nothing_is_481_and_leaves_nothing_behind() {
    let mut world = World::new().with_members();
    let cancel = Request::new("CANCEL", LOBBY, udp(66), 118);
    world.deliver(udp(66), cancel.message());
    world.take_status(481);
    assert_eq!(world.core.stats().server_transactions, 0);
}

#[test]
fn from_of_another_local_user_is_refused() {
    let mut world = World::new().with_members();
    let n = world.unique();
    let mut request = Request::new("INVITE", LOBBY, udp(1), n);
    request.from = format!("<sip:bob@{DOMAIN}>;tag=f{n}");
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_status(403);
}

#[test]
fn guest_may_call_its_meeting_and_nothing_else() {
    let mut world = World::new().with_members();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let pass = GuestMint::new([3; 32])
        .issue("lobby", WALL + 100, 7)
        .expect("valid");
    let at = hop(Transport::Wss, 1, 40_000);
    let request = |world: &mut World, uri: &str| {
        let n = world.unique();
        let mut request = Request::new("INVITE", uri, at, n);
        request.from = format!("\"Zoe\" <sip:{}@{DOMAIN}>;tag=f{n}", pass.user);
        request
    };
    let invite = request(&mut world, LOBBY);
    world.authenticated(at, &pass.user, &pass.password, &invite);
    let got = world.take_request("INVITE", member_hop(1));
    assert_eq!(
        got.header(HeaderName::PAssertedIdentity),
        Some(format!("\"Zoe\" <sip:{}@{DOMAIN}>", pass.user).as_str())
    );
    for uri in [
        "sip:bob@example.org",
        "sip:other@example.org",
        "sip:x@elsewhere.example",
    ] {
        let invite = request(&mut world, uri);
        world.authenticated(at, &pass.user, &pass.password, &invite);
        world.take_status(403);
    }
}

#[test]
fn other_domains_are_not_relayed_to_unless_allowed() {
    let mut world = World::new();
    world.invite("alice", udp(1), "sip:x@elsewhere.example");
    world.take_status(403);
    let mut world = World::with(|s| s.relay = true);
    world.invite("alice", udp(1), "sip:x@elsewhere.example");
    let (id, uri) = world.resolves.pop_front().expect("a look-up");
    assert_eq!(uri, "sip:x@elsewhere.example");
    let hosts: Vec<(Transport, SocketAddr)> = ["203.0.113.1:5060", "203.0.113.2:5060"]
        .into_iter()
        .map(|a| (Transport::Udp, a.parse().expect("address")))
        .collect();
    world
        .core
        .handle_resolved(world.now, world.wall, id, hosts.clone());
    world.pump();
    let first = world.take();
    assert_eq!(first.hop.remote, hosts[0].1);
    // RFC 3263 §4.3: the next host is tried when one fails.
    world
        .core
        .handle_send_failed(world.now, world.wall, first.id);
    world.pump();
    assert_eq!(world.take().hop.remote, hosts[1].1);
}

#[test]
fn foreign_route_is_no_open_relay() {
    let mut world = World::new().with_members();
    let n = world.unique();
    let mut request = Request::new("INVITE", LOBBY, udp(1), n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    request.headers.push("Route: <sip:203.0.113.9;lr>".into());
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_status(403);
}

#[test]
fn temporary_gruu_leads_to_its_device() {
    let mut world = World::new();
    let b = hop(Transport::Wss, 2, 40_000);
    let ok = world.register(
        "bob",
        b,
        "<sip:b@x.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:2>\"",
    );
    let contact = ok.header(HeaderName::Contact).expect("one").to_owned();
    let from = contact.find("temp-gruu=\"").expect("given") + "temp-gruu=\"".len();
    let gruu = contact[from..]
        .split('"')
        .next()
        .expect("quoted")
        .to_owned();
    world.invite("alice", udp(1), &gruu);
    let sent = world.take();
    assert_eq!(sent.hop.flow, b.flow);
    assert_eq!(sent.message.request_uri(), "sip:b@x.invalid;transport=ws");
    let forged = gruu.replacen("tgruu.", "tgruu.A", 1);
    world.invite("alice", udp(1), &forged);
    world.take_status(404);
}

#[test]
fn public_gruu_rings_one_device_and_the_address_all() {
    let mut world = World::new();
    for n in [2, 3] {
        world.register(
            "bob",
            hop(Transport::Wss, n, 40_000),
            &format!("<sip:b{n}@x.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:{n}>\""),
        );
    }
    world.invite("alice", udp(1), "sip:bob@example.org;gr=urn:uuid:3");
    assert_eq!(world.take().hop.flow, hop(Transport::Wss, 3, 1).flow);
    world.assert_silent();
    world.invite("alice", udp(1), "sip:bob@example.org");
    assert_eq!(
        world.sent.iter().filter(|s| s.message.is_request()).count(),
        2
    );
}

#[test]
fn unknown_method_header_and_body_pass_byte_for_byte() {
    let mut world = World::new().with_members();
    let n = world.unique();
    let mut request = Request::new("FROBNICATE", LOBBY, udp(1), n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    request
        .headers
        .push("X-Strange:   odd ; values,\tkept  ".into());
    request
        .headers
        .push("Content-Type: application/x-raw".into());
    request.body = "\u{1}\u{2} raw body \r\n.".into();
    world.authenticated(udp(1), "alice", "secret", &request);
    let sent = world.take_request("FROBNICATE", member_hop(1));
    let out = text(&sent);
    assert!(out.contains("X-Strange:   odd ; values,\tkept"), "{out}");
    assert_eq!(sent.body().as_ref(), request.body.as_bytes());
}

#[test]
fn options_to_the_registrar_are_answered_without_a_password() {
    let mut world = World::new();
    let options = Request::new("OPTIONS", "sip:192.0.2.1:5060", udp(1), 200);
    world.deliver(udp(1), options.message());
    let ok = world.take_status(200);
    assert!(ok.header(HeaderName::Allow).is_some());
    world.core.handle_draining(true);
    let mut again = options.clone();
    again.branch = "z9hG4bKlater".into();
    again.call_id = "later".into();
    world.deliver(udp(1), again.message());
    world.take_status(503);
}

fn refused(world: &mut World, change: impl FnOnce(&mut Request)) -> Message {
    let n = world.unique();
    let mut request = Request::new("INVITE", LOBBY, udp(1), n);
    change(&mut request);
    world.deliver(udp(1), request.message());
    world.take().message
}

#[test]
fn what_cannot_be_served_is_told_apart_by_status() {
    let mut world = World::new().with_members();
    let status = |m: Message| m.status().map(|s| s.get());
    let spent = refused(&mut world, |r| r.max_forwards = Some(0));
    assert_eq!(status(spent), Some(483));
    let extension = refused(&mut world, |r| {
        r.headers.push("Proxy-Require: teleport".into())
    });
    assert_eq!(extension.header(HeaderName::Unsupported), Some("teleport"));
    assert_eq!(status(extension), Some(420));
    let scheme = refused(&mut world, |r| r.uri = "tel:+4912345".into());
    assert_eq!(status(scheme), Some(416));
    let version =
        Request::new("INVITE", LOBBY, udp(1), 999)
            .text()
            .replacen("SIP/2.0\r\n", "SIP/7.0\r\n", 1);
    world.send(udp(1), &version);
    assert_eq!(status(world.take().message), Some(505));
    let twice = refused(&mut world, |r| r.headers.push("Call-ID: again".into()));
    assert_eq!(status(twice), Some(400));
    let bomb = refused(&mut world, |r| {
        for n in 0..80 {
            r.headers.push(format!("Route: <sip:h{n}.example;lr>"));
        }
    });
    assert_eq!(status(bomb), Some(400));
}

#[test]
fn require_of_a_register_is_checked_by_the_registrar() {
    let mut world = World::new();
    for uri in ["sip:example.org", "sip:alice@example.org", "sip:192.0.2.1"] {
        let mut request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
        request.uri = uri.into();
        request.headers.push("Require: path, teleport".into());
        world.deliver(udp(1), request.message());
        let refused = world.take_status(420);
        assert_eq!(refused.header(HeaderName::Unsupported), Some("teleport"));
    }
}

#[test]
fn sips_call_is_delivered_over_tls_or_not_at_all() {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let ws = hop(Transport::Ws, 3, 40_000);
    world.register("bob", ws, "<sip:b@x.invalid;transport=ws>");
    world.invite("alice", udp(1), "sips:bob@example.org");
    world.take_status(480);
    world.assert_silent();
    let wss = hop(Transport::Wss, 4, 40_000);
    world.register("bob", wss, "<sip:b@y.invalid;transport=ws>");
    world.invite("alice", udp(1), "sips:bob@example.org");
    assert_eq!(world.take().hop.flow, wss.flow);
    world.assert_silent();
    world.invite("alice", udp(1), "sip:bob@example.org");
    assert_eq!(world.sent.len(), 3, "all of them");
}

#[test]
fn headers_and_method_of_a_contact_do_not_get_into_the_request_uri() {
    let mut world = World::new();
    world.register(
        "bob",
        udp(2),
        "<sip:bob@198.51.100.2;method=BYE;x=1?Subject=hi&Route=%3Csip:evil.example%3E>",
    );
    world.invite("alice", udp(1), "sip:bob@example.org");
    let invite = world.take_request("INVITE", udp(2));
    assert_eq!(invite.request_uri(), "sip:bob@198.51.100.2;x=1");
}
