//! Our Contact: SIPS where the caller asks for it (RFC 3261 §12.1.1).

mod common;

use common::*;
use sip::{HeaderName, Message};

const SECURE: &str = "<sips:team@example.org>;isfocus";
const PLAIN: &str = "<sip:team@example.org>;isfocus";

fn contact(message: &Message) -> &str {
    message.header(HeaderName::Contact).unwrap()
}

/// With these in place of the Request-URI's scheme, the Record-Route and the Contact.
fn dressed(text: &str, scheme: &str, route: &str, theirs: &str) -> String {
    text.replace(
        " sip:team@example.org SIP/2.0",
        &format!(" {scheme}:team@example.org SIP/2.0"),
    )
    .replace("Record-Route: <sip:127.0.0.1:5060;lr>\r\n", route)
    .replace("Contact: <sip:", &format!("Contact: <{theirs}:"))
}

#[test]
fn the_contact_is_sips_where_the_request_uri_the_first_route_or_else_the_peers_contact_is() {
    const ROUTE: &str = "Record-Route: <sip:127.0.0.1:5060;lr>\r\n";
    const SECURE_ROUTE: &str = "Record-Route: <sips:127.0.0.1:5061;lr>\r\n";
    const BEHIND: &str = "Record-Route: <sip:127.0.0.1:5060;lr>, <sips:edge.example.org;lr>\r\n";
    for (scheme, route, theirs, expected) in [
        ("sip", ROUTE, "sip", PLAIN),
        ("sips", ROUTE, "sip", SECURE),
        ("sip", SECURE_ROUTE, "sip", SECURE),
        ("sip", BEHIND, "sip", PLAIN),
        ("sip", ROUTE, "sips", PLAIN),
        ("sip", "", "sips", SECURE),
        ("sip", "", "sip", PLAIN),
    ] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let invite = dressed(&alice.invite(PHONE_OFFER, ""), scheme, route, theirs);
        world.send(&invite);
        let ok = world.answer();
        assert_eq!(code(&ok), 200);
        assert_eq!(contact(&ok), expected, "{scheme} {route} {theirs}");
        let mut watcher = Ua::new("watcher");
        let text = watcher.request("SUBSCRIBE", "Event: conference\r\n", None);
        world.send(&dressed(&text, scheme, route, theirs));
        let sent = world.sent();
        assert_eq!(contact(&sent[0]), expected, "in a 200");
        assert_eq!(contact(&sent[1]), expected, "in a NOTIFY");
    }
}

#[test]
fn each_dialog_keeps_the_contact_it_began_with() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = dressed(&alice.invite(PHONE_OFFER, ""), "sips", "", "sips");
    world.send(&invite);
    let ok = world.answer();
    alice.learn(&ok);
    assert_eq!(alice.target, "sips:team@example.org");
    let ack = alice.ack(None);
    world.send(&ack);
    let mut bob = Ua::new("bob");
    assert_eq!(contact(&join(&mut world, &mut bob)), PLAIN);
    world.settle();
    world.restart_focus();
    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    assert_eq!(contact(&world.answer()), SECURE);
    let ack = alice.ack(None);
    world.send(&ack);
    leave(&mut world, &mut alice);
    leave(&mut world, &mut bob);
    world.assert_nothing_left();
}
