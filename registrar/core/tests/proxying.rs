//! The stateful proxy: forking, CANCEL, best response, timers.

mod common;

use common::{DOMAIN, Request, World, answer, caller_routes, hop, member_hop, text, udp};
use sip::{HeaderName, Message, Transport};
use std::time::Duration;

const BOB: &str = "sip:bob@example.org";

/// Bob at two phones with the same q.
fn forked() -> World {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    world.register("bob", udp(3), "<sip:bob@198.51.100.3>");
    world
}

fn to_bob(world: &mut World) -> Request {
    world.invite("alice", udp(1), BOB)
}

/// The INVITEs of a fork to phones 2 and 3, in this order.
fn two(world: &mut World) -> [Message; 2] {
    let first = world.take();
    let second = world.take();
    let mut both = [first, second];
    both.sort_by_key(|s| s.hop.remote);
    assert_eq!(both[0].hop.remote, udp(2).remote);
    assert_eq!(both[1].hop.remote, udp(3).remote);
    both.map(|s| s.message)
}

#[test]
fn invite_is_answered_100_within_200_ms() {
    let mut world = forked();
    to_bob(&mut world);
    two(&mut world);
    world.advance(Duration::from_millis(199));
    world.assert_silent();
    world.advance(Duration::from_millis(1));
    let sent = world.take();
    assert_eq!(sent.message.status().map(|s| s.get()), Some(100));
    assert_eq!(sent.hop.remote, udp(1).remote);
}

#[test]
fn retransmitted_invite_is_not_forwarded_again() {
    let mut world = forked();
    let n = world.unique();
    let mut request = Request::new("INVITE", BOB, udp(1), n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    world.deliver(udp(1), request.message());
    let challenge = world.take_status(407);
    let value = challenge
        .header(HeaderName::ProxyAuthenticate)
        .expect("one")
        .to_owned();
    let credentials = sip::digest::authorize(&value, "alice", "secret", "INVITE", BOB, "c", 1)
        .expect("answerable");
    request.cseq = 2;
    request.branch = "z9hG4bKtwice".into();
    request
        .headers
        .push(format!("Proxy-Authorization: {credentials}"));
    world.deliver(udp(1), request.message());
    two(&mut world);
    world.deliver(udp(1), request.message());
    assert!(world.sent.iter().all(|s| !s.message.is_request()));
}

#[test]
fn ack_of_a_challenge_answered_without_a_transaction_goes_nowhere() {
    let mut world = forked();
    let n = world.unique();
    let mut request = Request::new("INVITE", BOB, udp(1), n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    world.deliver(udp(1), request.message());
    let challenge = world.take_status(407);
    request.method = "ACK".into();
    request.to = challenge.header(HeaderName::To).expect("To").to_owned();
    world.deliver(udp(1), request.message());
    world.assert_silent();
}

#[test]
fn provisional_responses_of_every_branch_are_forwarded() {
    let mut world = forked();
    to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    world.deliver(udp(2), answer(&at2, 180, &[]));
    world.deliver(udp(3), answer(&at3, 183, &[]));
    world.take_status(180);
    world.take_status(183);
}

#[test]
fn winner_is_forwarded_at_once_and_the_other_branch_cancelled() {
    let mut world = forked();
    to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    world.deliver(udp(3), answer(&at3, 180, &[]));
    world.take_status(180);
    world.deliver(udp(2), answer(&at2, 200, &[]));
    let ok = world.take_status(200);
    assert_eq!(ok.values(HeaderName::Via).count(), 1, "our Via is off");
    let cancel = world.take_request("CANCEL", udp(3));
    assert!(
        cancel
            .header(HeaderName::Reason)
            .is_some_and(|r| r.contains("cause=200"))
    );
    assert_eq!(
        cancel.top_via().expect("Via").branch(),
        at3.top_via().expect("Via").branch()
    );
}

#[test]
fn cancel_of_a_branch_waits_for_its_first_provisional() {
    let mut world = forked();
    to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    world.deliver(udp(2), answer(&at2, 200, &[]));
    world.take_status(200);
    world.assert_silent();
    world.deliver(udp(3), answer(&at3, 180, &[]));
    world.take_request("CANCEL", udp(3));
}

#[test]
fn every_2xx_is_forwarded_repeated_ones_too() {
    let mut world = forked();
    to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    for (n, at) in [(2, &at2), (3, &at3)] {
        world.deliver(udp(n), answer(at, 200, &[]));
        world.take_status(200);
    }
    world.deliver(udp(2), answer(&at2, 200, &[]));
    world.take_status(200);
}

#[test]
fn caller_that_cancels_gets_487_when_the_branches_have_ended() {
    let mut world = forked();
    let mut request = to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    for (n, at) in [(2, &at2), (3, &at3)] {
        world.deliver(udp(n), answer(at, 180, &[]));
        world.take_status(180);
    }
    request.method = "CANCEL".into();
    request.branch = at2
        .values(HeaderName::Via)
        .nth(1)
        .and_then(|v| sip::header::Via::parse(v).ok())
        .expect("the caller's Via")
        .branch()
        .to_owned();
    request.headers = vec!["Reason: Q.850;cause=16".into()];
    world.deliver(udp(1), request.message());
    let ok = world.take_status(200);
    assert_eq!(ok.method().as_str(), "CANCEL");
    let cancel = world.take_request("CANCEL", udp(2));
    assert_eq!(cancel.header(HeaderName::Reason), Some("Q.850;cause=16"));
    world.take_request("CANCEL", udp(3));
    for (n, at) in [(2, &at2), (3, &at3)] {
        world.deliver(udp(n), answer(at, 487, &[]));
        world.take_request("ACK", udp(n));
    }
    let ended = world.take_status(487);
    assert_eq!(ended.method().as_str(), "INVITE");
}

#[test]
fn answer_that_crosses_the_cancel_wins() {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let mut request = to_bob(&mut world);
    let at2 = world.take_request("INVITE", udp(2));
    world.deliver(udp(2), answer(&at2, 180, &[]));
    world.take_status(180);
    request.method = "CANCEL".into();
    request.branch = at2
        .values(HeaderName::Via)
        .nth(1)
        .and_then(|v| sip::header::Via::parse(v).ok())
        .expect("the caller's Via")
        .branch()
        .to_owned();
    request.headers.clear();
    world.deliver(udp(1), request.message());
    world.take_status(200);
    world.take_request("CANCEL", udp(2));
    world.deliver(udp(2), answer(&at2, 200, &[]));
    let ok = world.take_status(200);
    assert_eq!(ok.method().as_str(), "INVITE");
}

#[test]
fn best_of_the_failures_is_forwarded_when_all_have_come() {
    let mut world = forked();
    to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    world.deliver(udp(2), answer(&at2, 500, &[]));
    world.take_request("ACK", udp(2));
    world.assert_silent();
    world.deliver(udp(3), answer(&at3, 486, &[]));
    world.take_request("ACK", udp(3));
    world.take_status(486);
}

#[test]
fn a_6xx_cancels_the_others_and_is_forwarded_when_they_ended() {
    let mut world = forked();
    to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    world.deliver(udp(2), answer(&at2, 180, &[]));
    world.take_status(180);
    world.deliver(udp(3), answer(&at3, 603, &[]));
    world.take_request("ACK", udp(3));
    world.take_request("CANCEL", udp(2));
    world.deliver(udp(2), answer(&at2, 487, &[]));
    world.take_request("ACK", udp(2));
    world.take_status(603);
}

#[test]
fn challenges_of_all_branches_are_merged_into_one_answer() {
    let mut world = forked();
    to_bob(&mut world);
    let [at2, at3] = two(&mut world);
    let challenge = |realm: &str| format!("Digest realm=\"{realm}\", nonce=\"n\"");
    world.deliver(
        udp(2),
        answer(
            &at2,
            401,
            &[(HeaderName::WwwAuthenticate, &challenge("two"))],
        ),
    );
    world.take_request("ACK", udp(2));
    world.deliver(
        udp(3),
        answer(
            &at3,
            407,
            &[(HeaderName::ProxyAuthenticate, &challenge("three"))],
        ),
    );
    world.take_request("ACK", udp(3));
    let sent = world.take();
    let message = sent.message;
    assert!(matches!(message.status().map(|s| s.get()), Some(401 | 407)));
    assert_eq!(message.headers(HeaderName::WwwAuthenticate).count(), 1);
    assert_eq!(message.headers(HeaderName::ProxyAuthenticate).count(), 1);
}

#[test]
fn overload_behind_us_is_forwarded_as_500() {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    to_bob(&mut world);
    let at2 = world.take_request("INVITE", udp(2));
    world.deliver(udp(2), answer(&at2, 503, &[]));
    world.take_request("ACK", udp(2));
    world.take_status(500);
}

#[test]
fn lower_q_is_only_tried_when_the_higher_failed() {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>;q=0.3");
    world.register("bob", udp(3), "<sip:bob@198.51.100.3>;q=0.9");
    to_bob(&mut world);
    let at3 = world.take_request("INVITE", udp(3));
    world.assert_silent();
    world.deliver(udp(3), answer(&at3, 486, &[]));
    world.take_request("ACK", udp(3));
    world.take_request("INVITE", udp(2));
}

#[test]
fn ringing_longer_than_timer_c_is_cancelled_and_answered_408() {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    to_bob(&mut world);
    let at2 = world.take_request("INVITE", udp(2));
    world.deliver(udp(2), answer(&at2, 180, &[]));
    world.take_status(180);
    world.advance(Duration::from_secs(189));
    world.assert_silent();
    // Another sign of life starts it anew.
    world.deliver(udp(2), answer(&at2, 180, &[]));
    world.take_status(180);
    world.advance(Duration::from_secs(189));
    world.assert_silent();
    world.advance(Duration::from_secs(2));
    world.take_request("CANCEL", udp(2));
    world.sent.clear();
    world.advance(Duration::from_secs(40));
    assert!(
        world
            .sent
            .iter()
            .any(|s| s.message.status().is_some_and(|c| c.get() == 408)),
        "the caller hears of it"
    );
    world.advance(Duration::from_secs(60));
    assert_eq!(world.core.stats().contexts, 0);
}

#[test]
fn silent_phone_ends_in_408_for_invite() {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    to_bob(&mut world);
    world.sent.clear();
    world.advance(Duration::from_secs(33));
    assert!(
        world
            .sent
            .iter()
            .any(|s| s.message.status().is_some_and(|c| c.get() == 408))
    );
}

#[test]
fn silent_phone_gives_no_late_408_for_a_message() {
    let mut world = World::new();
    world.register("bob", udp(2), "<sip:bob@198.51.100.2>");
    let n = world.unique();
    let mut request = Request::new("MESSAGE", BOB, udp(1), n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    request.body = "hello".into();
    request.headers.push("Content-Type: text/plain".into());
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_request("MESSAGE", udp(2));
    world.advance(Duration::from_secs(120));
    assert!(
        !world
            .sent
            .iter()
            .any(|s| s.message.status().is_some_and(|c| c.get() == 408)),
        "RFC 4320"
    );
    assert_eq!(world.core.stats().contexts, 0);
    assert_eq!(world.core.stats().server_transactions, 0);
}

#[test]
fn unreachable_flow_fails_over_to_the_other_flow_of_the_instance() {
    let mut world = World::new();
    let contact =
        |reg| format!("<sip:b@x.invalid;transport=ws>;reg-id={reg};+sip.instance=\"<urn:uuid:1>\"");
    let (first, second) = (
        hop(Transport::Wss, 2, 40_000),
        hop(Transport::Wss, 3, 40_001),
    );
    world.register("bob", first, &contact(1));
    world.advance(Duration::from_secs(1));
    world.register("bob", second, &contact(2));
    to_bob(&mut world);
    let sent = world.take();
    assert_eq!(
        sent.hop.flow, second.flow,
        "the newer one first, and never both"
    );
    world.assert_silent();
    world
        .core
        .handle_send_failed(world.now, world.wall, sent.id);
    world.pump();
    let again = world.take();
    assert_eq!(again.hop.flow, first.flow);
}

#[test]
fn nobody_registered_is_480_and_nobody_known_goes_to_no_meeting_without_managers() {
    let mut world = World::new();
    world.invite("alice", udp(1), BOB);
    world.take_status(480);
    world.invite("alice", udp(1), "sip:lobby@example.org");
    let refused = world.take_status(503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
}

#[test]
fn more_branches_than_max_breadth_are_440() {
    let mut world = forked();
    let n = world.unique();
    let mut request = Request::new("INVITE", BOB, udp(1), n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    request.headers.push("Max-Breadth: 1".into());
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_status(440);
}

#[test]
fn fork_shares_out_max_breadth() {
    let mut world = forked();
    to_bob(&mut world);
    for message in two(&mut world) {
        assert_eq!(message.header(HeaderName::Other("Max-Breadth")), Some("30"));
    }
}

#[test]
fn request_that_comes_back_unchanged_is_482_and_one_with_another_target_passes() {
    let mut world = World::new().with_members();
    world.invite("alice", udp(1), "sip:lobby@example.org");
    let forwarded = world.take_request("INVITE", member_hop(1));
    // It comes back as we sent it on, Route and Request-URI as they were when it first came.
    let mut looped = forwarded.clone();
    looped.push_front(
        HeaderName::Via,
        "SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bKback",
    );
    world.deliver(member_hop(1), looped);
    let refused = world.take_status(482);
    assert_eq!(refused.reason(), "Loop Detected");
    let mut spiral = forwarded.clone();
    spiral.set_request_uri("sip:other@example.org");
    spiral.push_front(
        HeaderName::Via,
        "SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bKspiral",
    );
    world.deliver(member_hop(1), spiral);
    let sent = world.take();
    assert!(sent.message.is_request(), "{}", text(&sent.message));
}

#[test]
fn large_request_goes_to_the_manager_over_tcp() {
    let mut world = World::new().with_members();
    let n = world.unique();
    let at = hop(Transport::Wss, 1, 40_000);
    let mut request = Request::new("INVITE", "sip:lobby@example.org", at, n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    request.headers.push("Content-Type: application/sdp".into());
    request.body = "v".repeat(2000);
    world.authenticated(at, "alice", "secret", &request);
    let sent = world.take();
    assert_eq!(sent.hop.transport, Transport::Tcp);
    assert_eq!(sent.hop.remote, member_hop(1).remote);
}

/// An INVITE of Alice, on a WebSocket, with a body of that size.
fn sized(world: &mut World, uri: &str, size: usize) {
    let n = world.unique();
    let at = hop(Transport::Wss, 1, 40_000);
    let mut request = Request::new("INVITE", uri, at, n);
    request.from = format!("<sip:alice@{DOMAIN}>;tag=f{n}");
    request.headers.push("Content-Type: application/sdp".into());
    request.body = "v".repeat(size);
    world.authenticated(at, "alice", "secret", &request);
}

#[test]
fn no_datagram_is_larger_than_1300_bytes_where_there_is_a_stream_with_all_we_add_counted() {
    let mut world = World::new().with_members();
    let mut seen = [0, 0];
    for size in (200..900).step_by(9) {
        sized(&mut world, "sip:lobby@example.org", size);
        let sent = world.take();
        let length = sent.message.to_bytes().len();
        let datagram = sent.hop.transport == Transport::Udp;
        assert_eq!(datagram, length <= 1300, "{length}");
        let via = sent.message.top_via().expect("a Via").to_string();
        let token = sent.hop.transport.via_token();
        assert!(via.starts_with(&format!("SIP/2.0/{token} ")), "{via}");
        let routes: Vec<&str> = sent.message.values(HeaderName::RecordRoute).collect();
        assert!(
            routes[0].contains(&format!("transport={};lr", sent.hop.transport)),
            "{routes:?}"
        );
        seen[usize::from(datagram)] += 1;
        world.sent.clear();
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
}

#[test]
fn large_request_that_no_stream_takes_goes_by_datagram_after_all() {
    let mut world = World::new().with_members();
    sized(&mut world, "sip:lobby@example.org", 2000);
    let stream = world.take();
    assert_eq!(stream.hop.transport, Transport::Tcp);
    world
        .core
        .handle_send_failed(world.now, world.wall, stream.id);
    world.pump();
    let datagram = world.take();
    assert_eq!(
        datagram.hop,
        sip::Hop::to(Transport::Udp, stream.hop.remote)
    );
    assert_eq!(datagram.message.request_uri(), "sip:lobby@example.org");
    let via = datagram.message.top_via().expect("a Via");
    assert!(via.to_string().starts_with("SIP/2.0/UDP "));
    world.deliver(datagram.hop, answer(&datagram.message, 486, &[]));
    world.take_request("ACK", datagram.hop);
    world.take_status(486);
}

#[test]
fn large_request_that_a_stream_took_is_not_tried_again_by_datagram() {
    let mut world = World::new().with_members();
    sized(&mut world, "sip:lobby@example.org", 2000);
    let stream = world.take();
    world.deliver(stream.hop, answer(&stream.message, 503, &[]));
    world.take_request("ACK", stream.hop);
    world.take_status(500);
}

#[test]
fn large_request_to_a_name_goes_by_stream_to_the_host_it_led_to() {
    let host = |transport, text: &str| (transport, text.parse().expect("an address"));
    for (uri, transport, port) in [
        ("sip:x@elsewhere.example", Transport::Tcp, 5070),
        (
            "sip:x@elsewhere.example;transport=udp",
            Transport::Udp,
            5060,
        ),
    ] {
        let mut world = World::with(|s| s.relay = true);
        sized(&mut world, uri, 2000);
        let (id, _) = world.resolves.pop_front().expect("a look-up");
        let mut hosts = vec![host(Transport::Udp, "203.0.113.1:5060")];
        if transport == Transport::Tcp {
            hosts.push(host(Transport::Tcp, "203.0.113.1:5070"));
        }
        world.core.handle_resolved(world.now, world.wall, id, hosts);
        world.pump();
        let sent = world.take();
        assert_eq!(sent.hop.transport, transport, "{uri}");
        assert_eq!(sent.hop.remote.port(), port, "{uri}");
    }
}

#[test]
fn host_found_by_name_must_prove_that_name_to_each_request_of_the_call() {
    for (uri, name) in [
        ("sips:x@Elsewhere.example", Some("elsewhere.example")),
        (
            "sips:x@elsewhere.example;maddr=b.example",
            Some("b.example"),
        ),
        ("sips:x@203.0.113.1", None),
    ] {
        let mut world = World::with(|s| s.relay = true);
        let mut request = world.invite("alice", udp(1), uri);
        if let Some((id, _)) = world.resolves.pop_front() {
            let at = "203.0.113.1:5061".parse().expect("an address");
            let hosts = vec![(Transport::Tls, at)];
            world.core.handle_resolved(world.now, world.wall, id, hosts);
            world.pump();
        }
        let invite = world.take();
        assert_eq!(invite.hop.transport, Transport::Tls, "{uri}");
        let named = |host: Option<&str>| host.map(str::to_ascii_lowercase).as_deref() == name;
        assert!(named(invite.host.as_deref()), "{uri} {:?}", invite.host);
        world.deliver(invite.hop, answer(&invite.message, 180, &[]));
        world.take_status(180);
        cancel(&mut world, &mut request, &invite.message);
        let sent = world.take();
        assert_eq!(sent.message.method().as_str(), "CANCEL");
        assert!(named(sent.host.as_deref()), "{uri} {:?}", sent.host);
        world.deliver(invite.hop, answer(&invite.message, 487, &[]));
        let sent = world.take();
        assert_eq!(sent.message.method().as_str(), "ACK");
        assert!(named(sent.host.as_deref()), "{uri} {:?}", sent.host);
        let ended = world.take();
        assert_eq!(
            ended.host, None,
            "an answer goes back where the request came from"
        );
    }
}

/// Alice cancels the call that was forwarded as `forwarded`; the 200 of the CANCEL is taken.
fn cancel(world: &mut World, request: &mut Request, forwarded: &Message) {
    request.method = "CANCEL".into();
    request.branch = forwarded
        .values(HeaderName::Via)
        .nth(1)
        .and_then(|v| sip::header::Via::parse(v).ok())
        .expect("the caller's Via")
        .branch()
        .to_owned();
    request.headers.clear();
    world.deliver(udp(1), request.message());
    let ok = world.take_status(200);
    assert_eq!(ok.method().as_str(), "CANCEL");
}

#[test]
fn cancel_while_the_next_way_is_looked_up_ends_the_call_and_sends_nothing_more() {
    let contact =
        |reg| format!("<sip:b@x.invalid;transport=ws>;reg-id={reg};+sip.instance=\"<urn:uuid:1>\"");
    let mut other = World::with(|s| {
        s.node = "edge-2".into();
        for a in &mut s.advertised {
            a.host = "edge-2.example.net".into();
        }
    });
    other.register("bob", hop(Transport::Wss, 9, 40_000), &contact(1));
    let mut world = World::new();
    world.store.entries = other.store.entries;
    world.store.revision = other.store.revision;
    let (set, revision) = world.store.read("sip:bob@example.org").expect("stored");
    world
        .core
        .handle_bindings("sip:bob@example.org", Some(set), revision);
    world.advance(Duration::from_secs(1));
    let near = hop(Transport::Wss, 2, 40_000);
    world.register("bob", near, &contact(2));
    let mut request = to_bob(&mut world);
    let first = world.take();
    assert_eq!(first.hop.flow, near.flow);
    world
        .core
        .handle_send_failed(world.now, world.wall, first.id);
    world.pump();
    let (id, _) = world.resolves.pop_front().expect("a look-up");
    cancel(&mut world, &mut request, &first.message);
    let ended = world.take_status(487);
    assert_eq!(ended.method().as_str(), "INVITE");
    let hosts = vec![(
        Transport::Udp,
        "203.0.113.1:5060".parse().expect("an address"),
    )];
    world.core.handle_resolved(world.now, world.wall, id, hosts);
    world.pump();
    world.assert_silent();
    assert_eq!(world.core.stats().contexts, 0);
}

#[test]
fn call_over_a_connection_that_closes_is_answered_at_once() {
    let mut world = World::new();
    let at = hop(Transport::Wss, 2, 40_000);
    world.register("bob", at, "<sip:b@x.invalid;transport=ws>");
    to_bob(&mut world);
    assert_eq!(world.take().hop.flow, at.flow);
    world.close(at);
    world.take_status(480);
    assert_eq!(world.core.stats().contexts, 0);
    assert_eq!(world.core.stats().client_transactions, 0);
}

#[test]
fn phone_that_rings_may_come_back_over_another_connection_for_a_while() {
    let mut world = World::new();
    let at = hop(Transport::Wss, 2, 40_000);
    let back = hop(Transport::Wss, 3, 40_001);
    for comes_back in [true, false] {
        world.register("bob", at, "<sip:b@x.invalid;transport=ws>");
        to_bob(&mut world);
        let invite = world.take().message;
        world.deliver(at, answer(&invite, 180, &[]));
        world.take_status(180);
        world.close(at);
        world.advance(Duration::from_secs(31));
        world.assert_silent();
        if comes_back {
            world.deliver(back, answer(&invite, 200, &[]));
            world.take_status(200);
        } else {
            world.advance(Duration::from_secs(2));
            world.take_status(480);
        }
        world.advance(Duration::from_secs(60));
        assert_eq!(world.core.stats().contexts, 0);
        world.sent.clear();
    }
}

#[test]
fn caller_that_cancels_a_phone_whose_connection_closed_gets_487_at_once() {
    let mut world = World::new();
    let at = hop(Transport::Wss, 2, 40_000);
    world.register("bob", at, "<sip:b@x.invalid;transport=ws>");
    let mut request = to_bob(&mut world);
    let invite = world.take().message;
    world.deliver(at, answer(&invite, 180, &[]));
    world.take_status(180);
    world.close(at);
    cancel(&mut world, &mut request, &invite);
    world.take_status(487);
    world.assert_silent();
}

#[test]
fn failed_manager_of_an_unowned_meeting_is_followed_by_the_next() {
    let mut world = World::new().with_members();
    world.invite("alice", udp(1), "sip:fresh@example.org");
    let first = world.take();
    world
        .core
        .handle_send_failed(world.now, world.wall, first.id);
    world.pump();
    let second = world.take();
    assert!(second.message.is_request());
    assert_ne!(second.hop.remote, first.hop.remote);
}

#[test]
fn overload_refuses_new_requests_with_retry_after_and_serves_dialogs() {
    let mut world = World::with(|s| s.limits.contexts = 1).with_members();
    world.invite("alice", udp(1), "sip:lobby@example.org");
    let invite = world.take_request("INVITE", member_hop(1));
    let second = Request::new("INVITE", "sip:lobby@example.org", udp(2), 77);
    world.deliver(udp(2), second.message());
    let refused = world.take_status(503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
    // A request of an early dialog passes.
    let ringing = answer(
        &invite,
        183,
        &[(HeaderName::Contact, "<sip:lobby@example.org>")],
    );
    let routes = caller_routes(&ringing);
    let mut prack = Request::new("PRACK", "sip:lobby@example.org", udp(1), 78);
    prack.to = "<sip:lobby@example.org>;tag=callee".into();
    prack.headers.push(format!("Route: {}", routes.join(", ")));
    world.deliver(udp(1), prack.message());
    world.take_request("PRACK", member_hop(1));
}
