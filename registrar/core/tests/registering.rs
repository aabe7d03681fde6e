//! REGISTER: who may, what is kept, what is answered.

mod common;

use common::{
    DOMAIN, Request, WALL, World, answer, hop, in_dialog, member_hop, proxy, settings, text,
    trusting, udp,
};
use registrar_core::{Settings, StoreReply, User};
use sip::{FlowId, HeaderName, Hop, Transport};
use std::time::Duration;

fn contacts(message: &sip::Message) -> Vec<String> {
    message
        .values(HeaderName::Contact)
        .map(str::to_owned)
        .collect()
}

#[test]
fn challenge_offers_sha_256_before_md5_with_qop_auth() {
    let mut world = World::new();
    let request = world.register_request("alice", udp(1), "<sip:alice@198.51.100.1>");
    world.deliver(udp(1), request.message());
    let response = world.take_status(401);
    let challenges: Vec<&str> = response.headers(HeaderName::WwwAuthenticate).collect();
    assert_eq!(challenges.len(), 2);
    assert!(challenges[0].contains("SHA-256"), "{challenges:?}");
    assert!(challenges[1].contains("MD5"), "{challenges:?}");
    assert!(challenges.iter().all(|c| c.contains("qop=\"auth\"")));
}

#[test]
fn algorithm_that_no_user_can_answer_is_not_offered() {
    let md5_only = |name: &str| User {
        name: name.into(),
        display: String::new(),
        sha256: None,
        md5: Some(sip::digest::Ha1::new(name, DOMAIN, "secret").md5),
    };
    let mut world = World::new();
    world
        .core
        .handle_users(["alice", "bob"].map(md5_only).into_iter().collect());
    // `register` answers the first challenge, as phones do.
    let ok = world.register("alice", udp(1), "<sip:alice@198.51.100.1>");
    assert_eq!(contacts(&ok).len(), 1);
    world
        .core
        .handle_users([md5_only("bob")].into_iter().collect());
    world.register("bob", udp(1), "<sip:bob@198.51.100.1>");
}

#[test]
fn unauthenticated_requests_leave_nothing_behind() {
    let mut world = World::new();
    for _ in 0..50 {
        let request = world.register_request("alice", udp(1), "<sip:alice@198.51.100.1>");
        world.deliver(udp(1), request.message());
        world.take_status(401);
    }
    assert_eq!(world.core.stats().server_transactions, 0);
}

#[test]
fn received_and_rport_are_put_into_the_answer_also_without_a_transaction() {
    let mut world = World::new();
    let mut request = world.register_request("alice", udp(1), "<sip:alice@10.9.9.9>");
    request.sent_by = "10.9.9.9:5062".into();
    world.deliver(udp(1), request.message());
    let sent = world.take();
    let via = sent.message.top_via().expect("a Via");
    assert_eq!(via.params.get("received"), Some("198.51.100.1"));
    assert_eq!(via.params.get("rport"), Some("5060"));
    assert_eq!(sent.hop.remote, udp(1).remote);
}

#[test]
fn wrong_password_and_unknown_user_are_answered_alike() {
    let mut world = World::new();
    let mut answers = Vec::new();
    for user in ["alice", "nobody"] {
        let request = world.register_request(user, udp(1), "<sip:x@198.51.100.1>");
        world.authenticated(udp(1), user, "wrong", &request);
        answers.push(world.take_status(401).reason().to_owned());
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(world.core.stats().authentication_failures, 2);
}

#[test]
fn guessing_passwords_is_cut_off_for_a_minute() {
    let mut world = World::with(|s| s.limits.failures_per_source = 3);
    for _ in 0..3 {
        let request = world.register_request("alice", udp(1), "<sip:x@198.51.100.1>");
        world.authenticated(udp(1), "alice", "wrong", &request);
        world.take_status(401);
    }
    let request = world.register_request("alice", udp(1), "<sip:x@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_status(403);
    // Another user there and the same one elsewhere are not locked out, and neither is this one for ever.
    world.register("bob", udp(1), "<sip:bob@198.51.100.1>");
    world.register("alice", udp(2), "<sip:alice@198.51.100.2>");
    world.advance(Duration::from_secs(61));
    world.register("alice", udp(1), "<sip:alice@198.51.100.1>");
}

#[test]
fn one_password_tried_on_many_users_is_cut_off_too() {
    let mut world = World::with(|s| s.limits.failures_per_source = 3);
    for n in 0..30 {
        let user = format!("user{n}");
        let request = world.register_request(&user, udp(1), "<sip:x@198.51.100.1>");
        world.authenticated(udp(1), &user, "123456", &request);
        world.take_status(401);
    }
    let request = world.register_request("alice", udp(1), "<sip:x@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_status(403);
    world.register("alice", udp(2), "<sip:alice@198.51.100.2>");
}

#[test]
fn credentials_for_challenges_the_source_never_got_lock_nobody_out() {
    let mut world = World::with(|s| s.limits.failures_per_source = 3);
    // What somebody who writes another's address can send: a made-up nonce, and one that was sent to himself.
    let request = world.register_request("alice", udp(9), "<sip:x@198.51.100.1>");
    world.deliver(udp(9), request.message());
    let challenge = world.take_status(401);
    let value = challenge
        .header(HeaderName::WwwAuthenticate)
        .expect("one")
        .to_owned();
    let made_up = "Digest realm=\"example.org\", nonce=\"junk\", algorithm=MD5, qop=\"auth\"";
    for n in 0..200 {
        let challenge = if n % 2 == 0 { made_up } else { &value };
        let uri = format!("sip:{DOMAIN}");
        let credentials =
            sip::digest::authorize(challenge, "alice", "guess", "REGISTER", &uri, "c", n + 1)
                .expect("answerable");
        let mut junk = world.register_request("alice", udp(1), "<sip:x@198.51.100.1>");
        junk.headers.push(format!("Authorization: {credentials}"));
        world.deliver(udp(1), junk.message());
        let again = world.take_status(401);
        let stale = again
            .headers(HeaderName::WwwAuthenticate)
            .all(|v| v.contains("stale=true"));
        assert!(stale, "{}", text(&again));
    }
    world.register("alice", udp(1), "<sip:alice@198.51.100.1>");
}

#[test]
fn registration_is_answered_only_when_it_is_durable() {
    let mut world = World::new();
    world.store.held = true;
    let request = world.register_request("alice", udp(1), "<sip:alice@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    world.assert_silent();
    world.commit();
    let ok = world.take_status(200);
    assert_eq!(contacts(&ok).len(), 1);
    let (set, _) = world.store.read("sip:alice@example.org").expect("stored");
    assert_eq!(set.bindings[0].contact, "sip:alice@198.51.100.1");
    assert_eq!(
        (set.bindings[0].expires_at, set.bindings[0].granted),
        (WALL + 1800, 600),
        "stored for longer than granted"
    );
}

#[test]
fn unavailable_store_is_told_with_503_and_nothing_is_kept() {
    let mut world = World::new();
    world.store.held = true;
    let request = world.register_request("alice", udp(1), "<sip:alice@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    let (id, _, _) = world.store.waiting.pop_front().expect("a write");
    world.reply(id, StoreReply::Unavailable);
    let refused = world.take_status(503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
    assert_eq!(world.core.stats().bindings, 0);
}

#[test]
fn write_of_another_registrar_is_merged_not_overwritten() {
    let mut world = World::new();
    world.store.held = true;
    let request = world.register_request("alice", udp(1), "<sip:alice@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    let mut other = World::new();
    other.register("alice", udp(2), "<sip:alice@198.51.100.2>");
    world.store.entries = other.store.entries;
    world.store.revision = 5;
    world.store.held = false;
    world.commit();
    let ok = world.take_status(200);
    assert_eq!(contacts(&ok).len(), 2, "{}", text(&ok));
}

#[test]
fn write_whose_answer_was_lost_is_recognised_as_done() {
    let mut world = World::new();
    world.store.held = true;
    let request = world.register_request("alice", udp(1), "<sip:alice@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    let (id, aor, txn) = world.store.waiting.pop_front().expect("a write");
    world.store.apply(&txn).expect("written");
    let there = world.store.read(&aor);
    world.reply(id, StoreReply::Changed(there));
    world.take_status(200);
}

#[test]
fn two_registrations_of_one_user_at_once_both_count() {
    let mut world = World::new();
    world.store.held = true;
    for n in [1, 2] {
        let request =
            world.register_request("alice", udp(n), &format!("<sip:alice@198.51.100.{n}>"));
        world.authenticated(udp(n), "alice", "secret", &request);
    }
    assert_eq!(
        world.store.waiting.len(),
        1,
        "the second waits for the first"
    );
    world.commit();
    world.pump();
    world.commit();
    world.take_status(200);
    let second = world.take_status(200);
    assert_eq!(contacts(&second).len(), 2);
}

#[test]
fn several_contacts_keep_their_q_and_own_expiry() {
    let mut world = World::new();
    let ok = world.register(
        "alice",
        udp(1),
        "<sip:a@198.51.100.1>;q=0.5;expires=100, <sip:b@198.51.100.1>;q=0.8;audio",
    );
    let list = contacts(&ok);
    assert_eq!(
        list,
        [
            "<sip:a@198.51.100.1>;expires=100;q=0.5",
            "<sip:b@198.51.100.1>;expires=600;q=0.8;audio"
        ]
    );
}

#[test]
fn too_brief_an_interval_is_answered_423_with_the_least_and_changes_nothing() {
    let mut world = World::new();
    let request = world.register_request(
        "alice",
        udp(1),
        "<sip:a@198.51.100.1>;expires=600, <sip:b@198.51.100.1>;expires=5",
    );
    world.authenticated(udp(1), "alice", "secret", &request);
    let refused = world.take_status(423);
    assert_eq!(refused.header(HeaderName::MinExpires), Some("60"));
    assert!(world.store.entries.is_empty(), "all or nothing");
}

#[test]
fn longer_than_the_maximum_is_granted_the_maximum() {
    let mut world = World::new();
    let ok = world.register("alice", udp(1), "<sip:a@198.51.100.1>;expires=4000000000");
    assert!(contacts(&ok)[0].contains("expires=7200"));
}

#[test]
fn star_with_expires_0_removes_all() {
    let mut world = World::new();
    world.register(
        "alice",
        udp(1),
        "<sip:a@198.51.100.1>, <sip:b@198.51.100.1>",
    );
    let mut request = world.register_request("alice", udp(1), "*");
    request.headers.push("Expires: 0".into());
    world.authenticated(udp(1), "alice", "secret", &request);
    let ok = world.take_status(200);
    assert!(contacts(&ok).is_empty());
    assert!(world.store.entries.is_empty());
}

#[test]
fn star_with_anything_else_is_400() {
    let mut world = World::new();
    for (contact, expires) in [("*", "60"), ("*, <sip:a@198.51.100.1>", "0")] {
        let mut request = world.register_request("alice", udp(1), contact);
        request.headers.push(format!("Expires: {expires}"));
        world.authenticated(udp(1), "alice", "secret", &request);
        world.take_status(400);
    }
}

#[test]
fn lower_cseq_of_the_same_call_id_changes_nothing() {
    let mut world = World::new();
    let mut request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
    request.cseq = 10;
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_status(200);
    let mut late = request.clone();
    late.cseq = 5;
    late.branch = "z9hG4bKlate".into();
    late.headers[0] = "Contact: <sip:a@198.51.100.1>;expires=0".into();
    world.authenticated(udp(1), "alice", "secret", &late);
    world.take_status(500);
    assert_eq!(
        world
            .store
            .read("sip:alice@example.org")
            .expect("kept")
            .0
            .bindings
            .len(),
        1
    );
}

#[test]
fn contact_named_twice_in_one_request_is_no_disorder() {
    let mut world = World::new();
    let twice = "<sip:a@198.51.100.1>;expires=100, <sip:a@198.51.100.1>;expires=200";
    for _ in 0..2 {
        let ok = world.register("alice", udp(1), twice);
        assert_eq!(contacts(&ok), ["<sip:a@198.51.100.1>;expires=200;q=1"]);
    }
    // Given and taken back in one request: the order in it decides.
    let ok = world.register(
        "alice",
        udp(1),
        "<sip:b@198.51.100.1>, <sip:b@198.51.100.1>;expires=0",
    );
    assert_eq!(contacts(&ok).len(), 1);
}

#[test]
fn longest_path_that_is_stored_is_held_to() {
    let mut world = World::with(trusting);
    for (user, status) in [("p".repeat(900), 200), ("p".repeat(1100), 400)] {
        let mut request = world.register_request("alice", proxy(1), "<sip:a@198.51.100.1>");
        request
            .headers
            .push(format!("Path: <sip:{user}@p1.example.net;lr>"));
        world.authenticated(proxy(1), "alice", "secret", &request);
        world.take_status(status);
    }
}

#[test]
fn query_lists_bindings_and_writes_nothing() {
    let mut world = World::new();
    world.register("alice", udp(1), "<sip:a@198.51.100.1>");
    let writes = world.store.writes;
    let mut request = world.register_request("alice", udp(1), "");
    request.headers.remove(0);
    world.authenticated(udp(1), "alice", "secret", &request);
    let ok = world.take_status(200);
    assert_eq!(contacts(&ok).len(), 1);
    assert_eq!(world.store.writes, writes);
}

#[test]
fn nobody_registers_somebody_else() {
    let mut world = World::new();
    let request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
    world.authenticated(udp(1), "bob", "secret", &request);
    world.take_status(403);
}

#[test]
fn more_contacts_than_allowed_are_refused_as_a_whole() {
    let mut world = World::with(|s| s.limits.bindings_per_aor = 2);
    world.register(
        "alice",
        udp(1),
        "<sip:a@198.51.100.1>, <sip:b@198.51.100.1>",
    );
    let request = world.register_request("alice", udp(1), "<sip:c@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    world.take_status(403);
    assert_eq!(world.core.stats().bindings, 2);
}

const BROWSER: &str = "<sip:x7@k3.invalid;transport=ws>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-000000000001>\"";

#[test]
fn same_instance_and_reg_id_replace_the_binding_whatever_its_contact() {
    let mut world = World::new();
    let ok = world.register("alice", hop(Transport::Wss, 1, 40_000), BROWSER);
    assert_eq!(ok.header(HeaderName::Require), Some("outbound"));
    assert_eq!(ok.header(HeaderName::FlowTimer), Some("120"));
    let moved = BROWSER.replace("x7@k3", "y8@l4");
    let ok = world.register("alice", hop(Transport::Wss, 2, 40_001), &moved);
    let list = contacts(&ok);
    assert_eq!(list.len(), 1);
    assert!(list[0].starts_with("<sip:y8@l4.invalid"), "{list:?}");
    let second_flow = BROWSER.replace("reg-id=1", "reg-id=2");
    let ok = world.register("alice", hop(Transport::Wss, 3, 40_002), &second_flow);
    assert_eq!(contacts(&ok).len(), 2);
}

#[test]
fn gruus_are_given_to_who_asks_for_them() {
    let mut world = World::new();
    let ok = world.register("alice", hop(Transport::Wss, 1, 40_000), BROWSER);
    let contact = &contacts(&ok)[0];
    assert!(
        contact.contains(
            "pub-gruu=\"sip:alice@example.org;gr=urn:uuid:00000000-0000-4000-8000-000000000001\""
        ),
        "{contact}"
    );
    assert!(contact.contains("temp-gruu=\"sip:tgruu."), "{contact}");
    let mut request = world.register_request("alice", hop(Transport::Wss, 1, 40_000), BROWSER);
    request.headers[1] = "Supported: path".into();
    world.authenticated(hop(Transport::Wss, 1, 40_000), "alice", "secret", &request);
    let ok = world.take_status(200);
    assert!(!text(&ok).contains("gruu=\""));
}

#[test]
fn gruus_of_an_ipv6_domain_are_uris() {
    let mut world = World::with(|s| s.domains = vec!["2001:db8::1".into()]);
    let client = hop(Transport::Wss, 1, 40_000);
    let mut request = world.register_request("alice", client, BROWSER);
    request.uri = "sip:[2001:db8::1]".into();
    request.from = "<sip:alice@[2001:db8::1]>;tag=f".into();
    request.to = "<sip:alice@[2001:db8::1]>".into();
    world.authenticated(client, "alice", "secret", &request);
    let ok = world.take_status(200);
    let contact = &contacts(&ok)[0];
    for name in ["pub-gruu", "temp-gruu"] {
        let (_, rest) = contact.split_once(&format!("{name}=\"")).expect(name);
        let (gruu, _) = rest.split_once('"').expect(name);
        let uri = sip::Uri::parse(gruu).unwrap_or_else(|e| panic!("{gruu}: {}", e.0));
        assert_eq!(uri.host, "2001:db8::1", "{gruu}");
    }
}

#[test]
fn outbound_over_a_first_hop_that_does_not_keep_flows_is_439() {
    let mut world = World::with(trusting);
    let mut request = world.register_request("alice", proxy(1), BROWSER);
    request
        .headers
        .push("Via: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKinner".into());
    request.headers.push("Path: <sip:p1.example.net;lr>".into());
    world.authenticated(proxy(1), "alice", "secret", &request);
    world.take_status(439);
    let mut with_ob = request.clone();
    with_ob.call_id = "another".into();
    let last = with_ob.headers.len() - 1;
    with_ob.headers[last] = "Path: <sip:p1.example.net;lr;ob>".into();
    world.authenticated(proxy(1), "alice", "secret", &with_ob);
    world.take_status(200);
}

#[test]
fn path_is_kept_and_given_back_and_service_route_names_this_edge() {
    let mut world = World::with(trusting);
    let mut request = world.register_request("alice", proxy(1), "<sip:a@10.1.1.1>");
    request
        .headers
        .push("Path: <sip:p1.example.net;lr>, <sip:p2.example.net;lr>".into());
    world.authenticated(proxy(1), "alice", "secret", &request);
    let ok = world.take_status(200);
    let path: Vec<&str> = ok.values(HeaderName::Path).collect();
    assert_eq!(path, ["<sip:p1.example.net;lr>", "<sip:p2.example.net;lr>"]);
    assert_eq!(
        ok.header(HeaderName::ServiceRoute),
        Some("<sip:192.0.2.1:5060;transport=udp;lr>")
    );
}

#[test]
fn guest_registers_with_its_derived_password_until_it_expires() {
    let mut world = World::new();
    let mint = registrar_core::GuestMint::new([3; 32]);
    let pass = mint.issue("lobby", WALL + 100, 1).expect("valid");
    let at = hop(Transport::Wss, 1, 40_000);
    let request = world.register_request(&pass.user, at, BROWSER);
    world.authenticated(at, &pass.user, &pass.password, &request);
    let ok = world.take_status(200);
    assert!(
        contacts(&ok)[0].contains("expires=100;"),
        "ends with the guest"
    );
    world.advance(Duration::from_secs(101));
    let request = world.register_request(&pass.user, at, BROWSER);
    world.authenticated(at, &pass.user, &pass.password, &request);
    let refused = world.take_status(403);
    assert_eq!(refused.reason(), "Guest Pass Expired");
}

#[test]
fn forged_guest_is_refused() {
    let mut world = World::new();
    let user = format!("guest-{}-lobby-0000000000000001", WALL + 100);
    let request = world.register_request(&user, udp(1), "<sip:g@198.51.100.1>");
    world.authenticated(udp(1), &user, "guessed", &request);
    world.take_status(401);
}

#[test]
fn expired_bindings_are_not_listed_and_swept_from_the_store() {
    let mut world = World::new();
    world.register("alice", udp(1), "<sip:a@198.51.100.1>;expires=60");
    world.advance(Duration::from_secs(61));
    let mut request = world.register_request("alice", udp(1), "");
    request.headers.remove(0);
    world.authenticated(udp(1), "alice", "secret", &request);
    assert!(contacts(&world.take_status(200)).is_empty());
    world.advance(Duration::from_secs(120));
    assert!(world.store.entries.is_empty());
}

#[test]
fn replayed_credentials_are_challenged_again() {
    let mut world = World::new();
    let request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
    world.deliver(udp(1), request.message());
    let challenge = world.take_status(401);
    let value = challenge
        .header(HeaderName::WwwAuthenticate)
        .expect("one")
        .to_owned();
    let credentials = sip::digest::authorize(
        &value,
        "alice",
        "secret",
        "REGISTER",
        "sip:example.org",
        "c",
        1,
    )
    .expect("answerable");
    let mut good = request.clone();
    good.cseq = 2;
    good.branch = "z9hG4bKgood".into();
    good.headers.push(format!("Authorization: {credentials}"));
    world.deliver(udp(1), good.message());
    world.take_status(200);
    let mut replay = good.clone();
    replay.cseq = 3;
    replay.branch = "z9hG4bKreplay".into();
    replay.call_id = "stolen".into();
    for thief in [udp(9), udp(1)] {
        world.deliver(thief, replay.message());
        world.take_status(401);
        replay.branch.push('x');
    }
}

#[test]
fn old_nonce_is_stale_and_not_a_wrong_password() {
    let mut world = World::with(|s: &mut Settings| s.nonce_lifetime = Duration::from_secs(30));
    let request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
    world.deliver(udp(1), request.message());
    let challenge = world.take_status(401);
    let value = challenge
        .header(HeaderName::WwwAuthenticate)
        .expect("one")
        .to_owned();
    world.advance(Duration::from_secs(40));
    let credentials = sip::digest::authorize(
        &value,
        "alice",
        "secret",
        "REGISTER",
        "sip:example.org",
        "c",
        1,
    )
    .expect("answerable");
    let mut late = request.clone();
    late.cseq = 2;
    late.branch = "z9hG4bKold".into();
    late.headers.push(format!("Authorization: {credentials}"));
    world.deliver(udp(1), late.message());
    let again = world.take_status(401);
    let values: Vec<&str> = again.headers(HeaderName::WwwAuthenticate).collect();
    assert!(
        values
            .iter()
            .all(|v| v.to_ascii_lowercase().contains("stale=true")),
        "{values:?}"
    );
    assert_eq!(world.core.stats().authentication_failures, 0);
}

#[test]
fn merged_copy_of_a_register_is_482() {
    let mut world = World::new();
    world.store.held = true;
    let request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
    world.authenticated(udp(1), "alice", "secret", &request);
    let mut copy = request.clone();
    copy.cseq = request.cseq;
    copy.branch = "z9hG4bKotherway".into();
    // The same request (same From tag, Call-ID, CSeq) came another way, with credentials of its own.
    world.deliver(udp(2), {
        let mut first = copy.clone();
        first.cseq += 1;
        first.message()
    });
    let challenge = world.take_status(401);
    let value = challenge
        .header(HeaderName::WwwAuthenticate)
        .expect("one")
        .to_owned();
    let credentials = sip::digest::authorize(
        &value,
        "alice",
        "secret",
        "REGISTER",
        "sip:example.org",
        "c",
        1,
    )
    .expect("answerable");
    copy.cseq += 1;
    copy.branch = "z9hG4bKotherway2".into();
    copy.headers.push(format!("Authorization: {credentials}"));
    world.deliver(udp(2), copy.message());
    let refused = world.take_status(482);
    assert_eq!(refused.reason(), "Merged Request");
}

#[test]
fn draining_registrar_sends_registrations_elsewhere() {
    let mut world = World::new();
    world.core.handle_draining(true);
    let request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
    world.deliver(udp(1), request.message());
    let refused = world.take_status(503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
}

#[test]
fn closing_registrar_sends_new_calls_elsewhere_and_serves_dialogs() {
    let mut world = World::new().with_members();
    let lobby = "sip:lobby@example.org";
    world.core.handle_draining(true);
    world.invite("alice", udp(1), lobby);
    let ringing = world.take_request("INVITE", member_hop(1));
    assert_eq!(world.core.pending(), 1);
    world.core.handle_closing();
    let n = world.unique();
    let invite = Request::new("INVITE", lobby, udp(2), n);
    world.deliver(udp(2), invite.message());
    let refused = world.take_status(503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
    let bye = in_dialog("BYE", lobby, udp(3), &[], 700);
    world.deliver(udp(3), bye.message());
    world.take_request("BYE", member_hop(1));
    world.deliver(member_hop(1), answer(&ringing, 200, &[]));
    world.take_status(200);
    assert_eq!(world.core.pending(), 1, "the BYE");
}

#[test]
fn md5_is_offered_to_guests_browsers_where_users_have_sha_256_only() {
    let offered = |guests: bool| {
        let mut world = World::with(|s| s.guests = guests);
        let user = User {
            name: "alice".into(),
            display: String::new(),
            sha256: Some("a".repeat(64)),
            md5: None,
        };
        world.core.handle_users([user].into_iter().collect());
        let request = world.register_request("alice", udp(1), "<sip:a@198.51.100.1>");
        world.deliver(udp(1), request.message());
        let challenge = world.take_status(401);
        let values = challenge.headers(HeaderName::WwwAuthenticate);
        values.map(|v| v.contains("MD5")).collect::<Vec<bool>>()
    };
    assert_eq!(offered(false), [false]);
    assert_eq!(offered(true), [false, true], "users' phones take the first");
}

#[test]
fn guesser_with_all_addresses_of_a_site_is_cut_off() {
    let mut world = World::with(|s| s.limits.failures_per_source = 1);
    let guess = |world: &mut World, subnet: u16| {
        let remote = format!("[2001:db8:7:{subnet:x}::1]:5060");
        let from = Hop {
            remote: remote.parse().expect("an address"),
            ..udp(1)
        };
        let request = world.register_request("alice", from, "<sip:a@198.51.100.1>");
        world.authenticated(from, "alice", "wrong", &request);
        world.take().message.status().expect("a response").get()
    };
    for subnet in 0..100 {
        assert_eq!(guess(&mut world, subnet), 401, "{subnet}");
    }
    assert_eq!(guess(&mut world, 100), 403);
    world.advance(Duration::from_secs(60));
    assert_eq!(guess(&mut world, 100), 401);
}

#[test]
fn settings_of_these_tests_serve_the_domain() {
    let settings = settings();
    for (uri, ours) in [
        (format!("sip:{DOMAIN}"), true),
        (format!("sip:a@{DOMAIN}:5060"), true),
        ("sip:a@alias.example".into(), true),
        ("sip:192.0.2.1:5060".into(), true),
        ("sip:192.0.2.1:5999".into(), false),
        ("sip:a@elsewhere.example".into(), false),
        ("tel:+123".into(), false),
    ] {
        let parsed = sip::Uri::parse(&uri).expect("a URI");
        assert_eq!(settings.is_ours(&parsed), ours, "{uri}");
    }
    assert_eq!(FlowId(1), hop(Transport::Tcp, 1, 1).flow.expect("a flow"));
}
