//! Refreshes of registrations: most of them are not written, and nobody is misled by that.

mod common;

use std::time::Duration;

use common::{Request, WALL, World, hop, text, udp};
use sip::{HeaderName, Hop, Transport};

const AOR: &str = "sip:alice@example.org";
const CONTACT: &str = "<sip:a@198.51.100.1>";

/// A client that registers again and again in one Call-ID.
struct Client {
    request: Request,
    hop: Hop,
}

impl Client {
    fn new(world: &mut World, hop: Hop, contact: &str) -> Self {
        let request = world.register_request("alice", hop, contact);
        Self { request, hop }
    }

    /// Refreshes; the Contacts of the answer.
    fn register(&mut self, world: &mut World) -> Vec<String> {
        self.request.cseq += 2;
        self.request.branch = format!("z9hG4bKr{}", world.unique());
        world.authenticated(self.hop, "alice", "secret", &self.request);
        let ok = world.take_status(200);
        ok.values(HeaderName::Contact).map(str::to_owned).collect()
    }
}

fn refresh_every(seconds: u64, times: usize) -> usize {
    let mut world = World::new();
    let mut client = Client::new(&mut world, udp(1), CONTACT);
    for _ in 0..times {
        let answer = client.register(&mut world);
        assert_eq!(answer, ["<sip:a@198.51.100.1>;expires=600;q=1"]);
        let (set, _) = world.store.read(AOR).expect("stored");
        let now = world.wall.as_secs();
        assert!(
            set.bindings[0].expires_at >= now + 600,
            "what is stored outlasts what was granted"
        );
        world.advance(Duration::from_secs(seconds));
    }
    world.store.writes
}

#[test]
fn every_third_refresh_is_written_or_fewer() {
    assert_eq!(refresh_every(590, 30), 10);
    assert_eq!(refresh_every(540, 30), 10);
    assert_eq!(refresh_every(300, 30), 6);
}

#[test]
fn one_that_goes_without_a_word_is_gone_when_its_time_is_over_and_not_when_the_stored_one_is() {
    let mut world = World::new();
    let mut client = Client::new(&mut world, udp(1), CONTACT);
    client.register(&mut world);
    world.advance(Duration::from_secs(500));
    client.register(&mut world);
    assert_eq!(world.store.writes, 1);
    world.advance(Duration::from_secs(599));
    let mut query = world.register_request("alice", udp(1), "");
    query.headers.remove(0);
    world.authenticated(udp(1), "alice", "secret", &query);
    let there = world.take_status(200);
    let there: Vec<_> = there.values(HeaderName::Contact).collect();
    assert_eq!(there, ["<sip:a@198.51.100.1>;expires=1;q=1"]);
    world.advance(Duration::from_secs(2));
    let mut query = world.register_request("alice", udp(1), "");
    query.headers.remove(0);
    world.authenticated(udp(1), "alice", "secret", &query);
    let gone = world.take_status(200);
    assert_eq!(
        gone.values(HeaderName::Contact).count(),
        0,
        "{}",
        text(&gone)
    );
    // Its registrar says so to the others, long before what is stored ends.
    world.advance(Duration::from_secs(120));
    assert!(world.store.entries.is_empty());
    assert!(world.wall.as_secs() < WALL + 1_800);
}

#[test]
fn leaving_moving_and_changing_are_written_at_once() {
    let mut world = World::new();
    let mut client = Client::new(&mut world, udp(1), CONTACT);
    client.register(&mut world);
    client.register(&mut world);
    assert_eq!(world.store.writes, 1);
    client.request.headers[0] = format!("Contact: {CONTACT};q=0.5");
    client.register(&mut world);
    assert_eq!(world.store.writes, 2, "another q");
    client.request.headers[0] = format!("Contact: {CONTACT};q=0.5;expires=300");
    client.register(&mut world);
    assert_eq!(world.store.writes, 3, "another interval");
    client.hop = hop(Transport::Tcp, 7, 40_000);
    client.register(&mut world);
    assert_eq!(world.store.writes, 4, "another flow");
    client.request.headers[0] = format!("Contact: {CONTACT};expires=0");
    assert!(client.register(&mut world).is_empty());
    assert_eq!(world.store.writes, 5);
    assert!(world.store.entries.is_empty(), "gone for all at once");
}

#[test]
fn a_late_request_is_told_from_a_refresh_that_was_not_written() {
    let mut world = World::new();
    let mut client = Client::new(&mut world, udp(1), CONTACT);
    client.register(&mut world);
    let mut late = client.request.clone();
    for _ in 0..3 {
        client.register(&mut world);
    }
    assert_eq!(world.store.writes, 1);
    // Beyond the life of a transaction.
    world.advance(Duration::from_secs(60));
    late.cseq += 1;
    late.branch = "z9hG4bKlate".into();
    late.headers[0] = format!("Contact: {CONTACT};expires=0");
    world.authenticated(udp(1), "alice", "secret", &late);
    world.take_status(500);
    assert!(world.store.read(AOR).is_some());
}

#[test]
fn another_registrar_takes_it_for_alive_and_its_writes_keep_what_only_this_one_knows() {
    let mut world = World::new();
    let mut client = Client::new(&mut world, udp(1), CONTACT);
    client.register(&mut world);
    world.advance(Duration::from_secs(550));
    client.register(&mut world);
    let mut other = World::with(|settings| settings.node = "edge-2".into());
    other.store.entries.clone_from(&world.store.entries);
    other.store.revision = world.store.revision;
    let (set, revision) = world.store.read(AOR).expect("stored");
    other.core.handle_bindings(AOR, Some(set), revision);
    // A second device comes in there, after the time that was granted when the record was written.
    other.advance(Duration::from_secs(700));
    let mut second = Client::new(&mut other, udp(2), "<sip:b@198.51.100.2>");
    let both = second.register(&mut other);
    assert_eq!(
        both,
        [
            "<sip:a@198.51.100.1>;expires=600;q=1",
            "<sip:b@198.51.100.2>;expires=600;q=1"
        ]
    );
    world.advance(Duration::from_secs(150));
    let (set, revision) = other.store.read(AOR).expect("stored");
    world.store.entries.clone_from(&other.store.entries);
    world.store.revision = other.store.revision;
    world.core.handle_bindings(AOR, Some(set), revision);
    let writes = world.store.writes;
    let both = client.register(&mut world);
    assert_eq!(both.len(), 2);
    assert_eq!(
        world.store.writes, writes,
        "still covered by what is stored"
    );
    // The late one is still known, though the other registrar wrote an older CSeq.
    let mut late = client.request.clone();
    late.cseq -= 3;
    late.branch = "z9hG4bKlate".into();
    world.authenticated(udp(1), "alice", "secret", &late);
    world.take_status(500);
    // It goes without a word; the other one stays.
    world.advance(Duration::from_secs(601));
    let mut query = world.register_request("alice", udp(1), "");
    query.headers.remove(0);
    world.authenticated(udp(1), "alice", "secret", &query);
    let left = world.take_status(200);
    let left: Vec<_> = left.values(HeaderName::Contact).collect();
    assert_eq!(left.len(), 1);
    assert!(left[0].starts_with("<sip:b@"));
}
