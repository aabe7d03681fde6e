//! A client whose registrar died comes back through another one, and its dialogs go on (RFC 5626 §4.2, §5.3).

mod common;

use common::*;
use sip::{HeaderName, Hop, Transport};

const LOBBY: &str = "sip:lobby@example.org";
const BROWSER: &str = "<sip:x@k.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"";
const CONTACT: &str = "sip:x@k.invalid;transport=ws";
const GRUU: &str = "sip:alice@example.org;gr=urn:uuid:1";

/// Another registrar of the cluster, at an address of its own.
fn second() -> World {
    let mut world = World::with(|settings| {
        settings.node = "edge-2".into();
        for address in &mut settings.advertised {
            address.host = "192.0.2.2".into();
        }
    })
    .with_members();
    // Requests made here are others than those made there.
    world.next = 100;
    world
}

/// The second has the store of the first, and its watch has told it of alice's bindings.
fn watch(from: &mut World, to: &mut World) {
    std::mem::swap(&mut from.store, &mut to.store);
    let (set, revision) = to.store.read("sip:alice@example.org").expect("registered");
    to.core
        .handle_bindings("sip:alice@example.org", Some(set), revision);
}

/// Route sets of a dialog made through the first registrar: the caller's and the manager's.
fn dialog(world: &mut World, client: Hop) -> (Vec<String>, Vec<String>) {
    world.register("alice", client, BROWSER);
    world.invite("alice", client, LOBBY);
    let invite = world.take_request("INVITE", member_hop(1));
    let manager = invite
        .values(HeaderName::RecordRoute)
        .map(str::to_owned)
        .collect();
    let contact = (HeaderName::Contact, "<sip:lobby@10.0.0.1>");
    world.deliver(member_hop(1), answer(&invite, 200, &[contact]));
    (caller_routes(&world.take_status(200)), manager)
}

fn client() -> Hop {
    hop(Transport::Wss, 1, 40_000)
}

fn back() -> Hop {
    hop(Transport::Wss, 9, 40_009)
}

#[test]
fn requests_of_a_client_that_moved_reach_its_meeting_by_the_old_route_set() {
    let mut first = World::new().with_members();
    let (caller, _) = dialog(&mut first, client());
    let mut other = second();
    other.register("alice", back(), BROWSER);
    let bye = in_dialog("BYE", LOBBY, back(), &caller, 90);
    other.deliver(back(), bye.message());
    other.take_request("BYE", member_hop(1));
}

#[test]
fn requests_to_a_client_that_moved_reach_it_over_its_new_connection() {
    for uri in [GRUU, CONTACT] {
        let mut first = World::new().with_members();
        let (_, manager) = dialog(&mut first, client());
        let mut other = second();
        watch(&mut first, &mut other);
        other.register("alice", back(), BROWSER);
        let info = in_dialog("INFO", uri, member_hop(1), &manager, 91);
        other.deliver(member_hop(1), info.message());
        let sent = other.take();
        assert_eq!(sent.hop.flow, back().flow, "{uri}: {}", text(&sent.message));
        assert_eq!(sent.message.request_uri(), CONTACT);
        assert_eq!(sent.message.header(HeaderName::Route), None);
    }
}

#[test]
fn requests_to_a_client_that_stayed_go_to_the_registrar_of_their_token() {
    for uri in [GRUU, CONTACT] {
        let mut first = World::new().with_members();
        let (_, manager) = dialog(&mut first, client());
        let mut other = second();
        watch(&mut first, &mut other);
        let info = in_dialog("INFO", uri, member_hop(1), &manager, 92);
        other.deliver(member_hop(1), info.message());
        let sent = other.take();
        assert_eq!(sent.hop.remote.ip().to_string(), "192.0.2.1", "{uri}");
    }
}

#[test]
fn a_contact_that_a_client_thought_of_is_not_looked_up() {
    let mut first = World::new().with_members();
    let (_, manager) = dialog(&mut first, client());
    let mut other = second();
    other.register("alice", back(), BROWSER);
    let stranger = hop(Transport::Wss, 5, 40_005);
    let info = in_dialog("INFO", CONTACT, stranger, &manager, 93);
    other.deliver(stranger, info.message());
    let sent = other.take();
    assert_eq!(
        sent.hop.remote.ip().to_string(),
        "192.0.2.1",
        "as if nobody had moved"
    );
}
