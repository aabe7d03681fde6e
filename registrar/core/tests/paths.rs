//! Path (RFC 3327): whose is believed, and where calls go by it.

mod common;

use std::net::SocketAddr;

use common::{DOMAIN, Request, WALL, World, hop, member_hop, proxy, text, trusting, udp};
use registrar_core::GuestMint;
use sip::{HeaderName, Hop, Transport};

const ELSEWHERE: &str = "203.0.113.50:5060";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A REGISTER that has been through another element, with the Path that it wrote.
fn register_by(world: &mut World, from: Hop, path: &str, contact: &str) -> Request {
    let mut request = world.register_request("bob", from, contact);
    let n = world.unique();
    request.call_id = format!("path-{n}");
    request
        .headers
        .push("Via: SIP/2.0/UDP 10.2.2.2;branch=z9hG4bKphone".into());
    request.headers.push(format!("Path: {path}"));
    request
}

#[test]
fn path_of_a_binding_becomes_the_route_and_a_strict_one_the_request_uri() {
    let mut world = World::with(trusting);
    for (lr, uri) in [(";lr", "sip:bob@10.2.2.2"), ("", "sip:203.0.113.50")] {
        let path = format!("<sip:203.0.113.50{lr}>");
        let request = register_by(&mut world, proxy(2), &path, "<sip:bob@10.2.2.2>");
        world.authenticated(proxy(2), "bob", "secret", &request);
        world.take_status(200);
        world.invite("alice", udp(1), "sip:bob@example.org");
        let sent = world.take();
        assert_eq!(sent.hop.remote, address(ELSEWHERE));
        assert_eq!(sent.message.request_uri(), uri, "{}", text(&sent.message));
        assert_eq!(sent.message.values(HeaderName::Route).count(), 1);
        world.sent.clear();
    }
}

#[test]
fn path_that_a_client_invents_is_refused() {
    for relay in [false, true] {
        let mut world = World::with(|s| {
            trusting(s);
            s.relay = relay;
        })
        .with_members();
        let pass = GuestMint::new([3; 32])
            .issue("lobby", WALL + 1000, 7)
            .expect("valid");
        for (n, path) in [
            "<sip:203.0.113.50;lr>",
            "<sip:10.0.0.2:5070;lr>",
            "<sip:gateway.example.net;lr>",
            "<sip:192.0.2.1;lr>",
        ]
        .into_iter()
        .enumerate()
        {
            let from = udp(2);
            let user = register_by(&mut world, from, path, "<sip:+1900@203.0.113.50>");
            world.authenticated(from, "bob", "secret", &user);
            world.take_status(403);
            // Without a second Via it is a lie all the same.
            let mut direct = user.clone();
            direct.headers.retain(|h| !h.starts_with("Via"));
            direct.call_id = format!("direct-{n}");
            world.authenticated(from, "bob", "secret", &direct);
            world.take_status(403);
            let mut guest = user.clone();
            guest.call_id = format!("guest-{n}");
            guest.from = format!("<sip:{}@{DOMAIN}>;tag=g", pass.user);
            guest.to = format!("<sip:{}@{DOMAIN}>", pass.user);
            world.authenticated(from, &pass.user, &pass.password, &guest);
            world.take_status(403);
            // A stranger does not even get so far.
            let mut stranger = user.clone();
            stranger.call_id = format!("stranger-{n}");
            stranger.branch = format!("z9hG4bKstranger{n}");
            world.deliver(from, stranger.message());
            world.take_status(401);
        }
        assert_eq!(world.core.stats().bindings, 0);
    }
}

#[test]
fn members_own_path_is_no_more_than_a_clients() {
    let mut world = World::new().with_members();
    let request = register_by(
        &mut world,
        member_hop(1),
        "<sip:10.0.0.1:5070;lr>",
        "<sip:bob@10.2.2.2>",
    );
    world.authenticated(member_hop(1), "bob", "secret", &request);
    world.take_status(403);
}

#[test]
fn path_of_a_trusted_proxy_may_not_lead_out_of_the_trusted_networks() {
    for (path, status) in [
        ("<sip:203.0.113.50;lr>, <sip:10.9.9.9;lr>", 200),
        ("<sip:198.51.100.9;lr>", 403),
        ("<sip:203.0.113.7:5070;lr>", 403),
        ("<sip:[::ffff:203.0.113.7]:5070;lr>", 403),
    ] {
        let mut world = World::with(trusting);
        let mut manager = common::member(7);
        manager.sip = vec![("udp".into(), address("203.0.113.7:5070"))];
        world
            .core
            .handle_member(world.now, world.wall, "m7", Some(manager));
        let request = register_by(&mut world, proxy(2), path, "<sip:bob@10.2.2.2>");
        world.authenticated(proxy(2), "bob", "secret", &request);
        world.take_status(status);
    }
}

#[test]
fn named_path_is_followed_to_trusted_networks_only() {
    let mut world = World::with(trusting);
    let path = "<sip:edge.example.net;lr>";
    let request = register_by(&mut world, proxy(2), path, "<sip:bob@10.2.2.2>");
    world.authenticated(proxy(2), "bob", "secret", &request);
    world.take_status(200);
    for (found, expected) in [(ELSEWHERE, true), ("198.51.100.9:5060", false)] {
        world.invite("alice", udp(1), "sip:bob@example.org");
        let (id, _) = world.resolves.pop_front().expect("a look-up");
        let hosts = vec![(Transport::Udp, address(found))];
        world.core.handle_resolved(world.now, world.wall, id, hosts);
        world.pump();
        let sent = world.take().message;
        assert_eq!(sent.is_request(), expected, "{}", text(&sent));
        world.sent.clear();
    }
}

#[test]
fn path_kept_from_before_is_not_followed_where_it_is_no_longer_trusted() {
    // What one registrar let in, another that trusts nobody reads in the store.
    let mut before = World::with(trusting);
    let request = register_by(
        &mut before,
        proxy(2),
        "<sip:203.0.113.50;lr>",
        "<sip:bob@10.2.2.2>",
    );
    before.authenticated(proxy(2), "bob", "secret", &request);
    before.take_status(200);
    let kept = before.store.read("sip:bob@example.org").expect("a record");
    let mut world = World::new();
    world
        .core
        .handle_bindings("sip:bob@example.org", Some(kept.0), kept.1);
    world.invite("alice", udp(1), "sip:bob@example.org");
    world.take_status(480);
    world.assert_silent();
}

#[test]
fn path_kept_of_an_untrusted_client_gets_into_no_route_of_another_registrar() {
    // A direct client's record as it was written before Path was refused: with its flow, and a Path that names the
    // registrar which holds it.
    let mut other = World::with(|s| {
        s.node = "edge-2".into();
        s.advertised[0].host = "192.0.2.2".into();
    });
    let client = hop(Transport::Udp, 2, 5060);
    other.register("bob", client, "<sip:+1900@203.0.113.50>");
    let (mut kept, revision) = other.store.read("sip:bob@example.org").expect("a record");
    kept.bindings[0].path = vec!["sip:192.0.2.2;lr".into()];
    let mut world = World::with(trusting);
    world
        .core
        .handle_bindings("sip:bob@example.org", Some(kept), revision);
    world.invite("alice", udp(1), "sip:bob@example.org");
    let sent = world.take().message;
    let routes: Vec<&str> = sent.values(HeaderName::Route).collect();
    assert_eq!(routes.len(), 1, "the edge alone: {routes:?}");
}

#[test]
fn name_of_another_domain_leads_to_no_manager() {
    let mut world = World::with(|s| s.relay = true).with_members();
    for (found, expected) in [("198.51.100.9:5060", true), ("10.0.0.2:5070", false)] {
        world.invite("alice", udp(1), "sip:lobby@elsewhere.example");
        let (id, _) = world.resolves.pop_front().expect("a look-up");
        let hosts = vec![(Transport::Udp, address(found))];
        world.core.handle_resolved(world.now, world.wall, id, hosts);
        world.pump();
        let sent = world.take().message;
        assert_eq!(sent.is_request(), expected, "{}", text(&sent));
        world.sent.clear();
    }
}
