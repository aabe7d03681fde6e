//! Calls from and to hosts that are neither clients nor of the cluster, and what later requests of theirs may do.

mod common;

use common::{Request, World, answer, caller_routes, hop, in_dialog, trusting, udp};
use sip::{HeaderName, Hop, Transport};

#[test]
fn user_calls_a_gateway_of_a_trusted_network_and_its_dialog_goes_on() {
    let mut world = World::with(|s| s.trusted = vec!["203.0.113.0/24".parse().expect("a net")]);
    world = world.with_members();
    let at = hop(Transport::Wss, 1, 40_000);
    let gateway = Hop::to(
        Transport::Udp,
        "203.0.113.50:5060".parse().expect("address"),
    );
    world.invite("alice", at, "sip:+1900@203.0.113.50");
    let invite = world.take_request("INVITE", gateway);
    let contact = [(HeaderName::Contact, "<sip:+1900@203.0.113.51>")];
    world.deliver(gateway, answer(&invite, 200, &contact));
    let routes = caller_routes(&world.take_status(200));
    let other = Hop::to(
        Transport::Udp,
        "203.0.113.51:5060".parse().expect("address"),
    );
    for (method, n) in [("ACK", 560), ("BYE", 561)] {
        let request = in_dialog(method, "sip:+1900@203.0.113.51", at, &routes, n);
        world.deliver(at, request.message());
        let got = world.take_request(method, other);
        assert_eq!(got.values(HeaderName::Route).count(), 0);
    }
    // By a member's address users call nobody.
    world.invite("alice", at, "sip:lobby@10.0.0.2:5070");
    world.take_status(403);
}

/// A gateway at 203.0.113.50 calls bob, who answers: the routes that bob has.
fn called_by_gateway(
    world: &mut World,
    bob: Hop,
    contact: &str,
    record: Option<&str>,
) -> Vec<String> {
    let gateway = Hop::to(
        Transport::Udp,
        "203.0.113.50:5060".parse().expect("address"),
    );
    let n = world.unique();
    let mut invite = Request::new("INVITE", "sip:bob@example.org", gateway, n);
    invite.from = "<sip:+49@203.0.113.50>;tag=g".into();
    invite.headers.push(format!("Contact: {contact}"));
    let record = record.map(|r| format!("Record-Route: {r}"));
    invite.headers.extend(record);
    world.deliver(gateway, invite.message());
    let invite = world.take_request("INVITE", bob);
    let answered = [(HeaderName::Contact, "<sip:x@k.invalid;transport=ws>")];
    world.deliver(bob, answer(&invite, 200, &answered));
    world.take_status(200);
    invite
        .values(HeaderName::RecordRoute)
        .map(str::to_owned)
        .collect()
}

#[test]
fn user_called_by_a_gateway_of_a_trusted_network_can_hang_up() {
    let mut world = World::with(|s| s.trusted = vec!["203.0.113.0/24".parse().expect("a net")]);
    world = world.with_members();
    let bob = hop(Transport::Wss, 2, 40_000);
    world.register("bob", bob, "<sip:x@k.invalid;transport=ws>");
    let sbc = "<sip:203.0.113.50;lr>";
    for (record, n) in [(None, 600), (Some(sbc), 610)] {
        let contact = "<sip:+49@203.0.113.51>";
        let routes = called_by_gateway(&mut world, bob, contact, record);
        let to = match record {
            None => "203.0.113.51:5060",
            Some(_) => "203.0.113.50:5060",
        };
        let to = Hop::to(Transport::Udp, to.parse().expect("address"));
        for (n, method) in (n..).zip(["INVITE", "ACK", "UPDATE", "BYE"]) {
            let request = in_dialog(method, "sip:+49@203.0.113.51", bob, &routes, n);
            world.deliver(bob, request.message());
            let got = world.take_request(method, to);
            let left: Vec<&str> = got.values(HeaderName::Route).collect();
            assert_eq!(left, Vec::from_iter(record), "{method}");
        }
    }
}

#[test]
fn token_of_a_gateways_dialog_leads_to_that_gateway_and_no_other() {
    for relay in [false, true] {
        let mut world = World::with(|s| {
            let net = |n: &str| n.parse().expect("a net");
            s.trusted = vec![net("203.0.113.0/24"), net("192.0.2.128/25")];
            s.relay = relay;
        })
        .with_members();
        let at = hop(Transport::Wss, 1, 40_000);
        let gateway = Hop::to(
            Transport::Udp,
            "203.0.113.50:5060".parse().expect("address"),
        );
        world.invite("alice", at, "sip:+1900@203.0.113.50");
        let invite = world.take_request("INVITE", gateway);
        let contact = [(HeaderName::Contact, "<sip:+1900@203.0.113.50>")];
        world.deliver(gateway, answer(&invite, 200, &contact));
        let routes = caller_routes(&world.take_status(200));
        for (n, uri) in (620..).zip(["sip:+1900@192.0.2.200", "sip:lobby@10.0.0.2:5070"]) {
            let request = in_dialog("INVITE", uri, at, &routes, n);
            world.deliver(at, request.message());
            let sent = world.take().message;
            let status = sent.status().map(|s| s.get());
            assert_eq!(status, Some(404), "{uri}");
            world.assert_silent();
        }
        let bye = in_dialog("BYE", "sip:+1900@203.0.113.50", at, &routes, 630);
        world.deliver(at, bye.message());
        world.take_request("BYE", gateway);
    }
}

#[test]
fn gateway_that_is_known_by_its_name_hears_that_its_call_has_ended() {
    let mut world = World::with(|s| s.trusted = vec!["203.0.113.0/24".parse().expect("a net")]);
    let bob = hop(Transport::Wss, 2, 40_000);
    world.register("bob", bob, "<sip:x@k.invalid;transport=ws>");
    let routes = called_by_gateway(&mut world, bob, "<sip:+49@gw.example>", None);
    for (n, method) in (640..).zip(["ACK", "BYE"]) {
        let request = in_dialog(method, "sip:+49@GW.example", bob, &routes, n);
        world.deliver(bob, request.message());
        let (_, name) = world.resolves.pop_front().expect("looked up");
        assert!(name.contains("gw.example"), "{name}");
    }
    let bye = in_dialog("BYE", "sip:+49@other.example", bob, &routes, 650);
    world.deliver(bob, bye.message());
    world.take_status(404);
}

#[test]
fn callee_outside_gets_to_no_gateway_by_a_name_of_its_own() {
    let mut world = World::with(|s| {
        trusting(s);
        s.relay = true;
    });
    let at = hop(Transport::Wss, 1, 40_000);
    let resolve = |world: &mut World, address: &str| {
        let (id, _) = world.resolves.pop_front().expect("a look-up");
        let hosts = vec![(Transport::Udp, address.parse().expect("address"))];
        world.core.handle_resolved(world.now, world.wall, id, hosts);
        world.pump();
    };
    world.invite("alice", at, "sip:x@elsewhere.example");
    resolve(&mut world, "198.51.100.66:5060");
    let invite = world.take().message;
    let answered = [(HeaderName::Contact, "<sip:x@elsewhere.example>")];
    world.deliver(udp(66), answer(&invite, 200, &answered));
    world.take_status(200);
    let routes: Vec<String> = invite
        .values(HeaderName::RecordRoute)
        .map(str::to_owned)
        .collect();
    for (n, (uri, address, status)) in (660..).zip([
        ("sip:y@elsewhere.example", "198.51.100.67:5060", None),
        ("sip:y@other.example", "198.51.100.67:5060", None),
        (
            "sip:+1900@elsewhere.example",
            "203.0.113.50:5060",
            Some(500),
        ),
        ("sip:+1900@other.example", "203.0.113.50:5060", Some(500)),
    ]) {
        let again = in_dialog("INVITE", uri, udp(66), &routes[..1], n);
        world.deliver(udp(66), again.message());
        resolve(&mut world, address);
        let sent = world.take().message;
        assert_eq!(sent.status().map(|s| s.get()), status, "{uri} at {address}");
    }
}
