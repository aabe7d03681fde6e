//! Who is declared dead, on a virtual clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cluster::suspicion::{Action, Core, Event};
use tokio::time::Instant;

const A: &str = "member/a";
const B: &str = "member/b";
const S: &str = "switch/s";

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn port(key: &str) -> u16 {
    match key {
        A => 1,
        B => 2,
        _ => 3,
    }
}

struct World {
    core: Core,
    now: Instant,
}

impl World {
    /// All of `keys` are up.
    fn up(keys: &[&str]) -> Self {
        let mut world = Self::unknown(keys);
        for key in keys {
            world.tell(key, Event::Connected);
        }
        assert_eq!(world.actions(), []);
        world
    }

    /// Connections to all of `keys` were begun.
    fn unknown(keys: &[&str]) -> Self {
        let (core, now) = (Core::default(), Instant::now());
        let mut world = Self { core, now };
        world.peers(keys);
        let asked: Vec<_> = keys.iter().map(|key| connect(key)).collect();
        assert_eq!(world.actions(), asked);
        world
    }

    fn peers(&mut self, keys: &[&str]) {
        let peers: BTreeMap<_, _> = keys.iter().map(|k| (k.to_string(), at(port(k)))).collect();
        self.core.set_peers(self.now, peers);
    }

    fn tell(&mut self, key: &str, event: Event) {
        self.core.handle(self.now, key, at(port(key)), event);
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.poll(self.now)).collect()
    }
}

fn connect(key: &str) -> Action {
    Action::Connect(key.to_owned(), at(port(key)))
}

fn convict(key: &str) -> Action {
    Action::Convict(key.to_owned(), at(port(key)))
}

#[test]
fn a_broken_link_and_a_refused_one_are_death_at_once() {
    let mut world = World::up(&[A, B]);
    world.wait(60_000);
    world.tell(A, Event::Closed);
    assert_eq!(world.actions(), [connect(A)]);
    world.tell(A, Event::Refused);
    assert_eq!(world.actions(), [convict(A)]);
    assert_eq!(world.actions(), [], "once");
    world.peers(&[B]);
    world.tell(A, Event::Settled);
    world.wait(60_000);
    assert_eq!((world.actions(), world.core.timer()), (vec![], None));
}

#[test]
fn a_broken_link_that_can_be_had_again_is_nothing() {
    let mut world = World::up(&[A, B]);
    for _ in 0..100 {
        world.wait(1_000);
        world.tell(A, Event::Closed);
        assert_eq!(world.actions(), [connect(A)]);
        world.tell(A, Event::Connected);
        assert_eq!(world.actions(), []);
    }
}

#[test]
fn one_that_keeps_no_links_is_asked_more_and_more_rarely() {
    let mut world = World::up(&[A, B]);
    for pause in [10, 20, 40, 80, 160, 300, 300, 300, 300, 300] {
        world.tell(A, Event::Closed);
        assert_eq!(world.actions(), []);
        let next = world.now + Duration::from_millis(pause);
        assert_eq!(world.core.timer(), Some(next));
        world.wait(pause);
        assert_eq!(world.actions(), [connect(A)]);
        world.tell(A, Event::Connected);
    }
    world.wait(300);
    world.tell(A, Event::Closed);
    assert_eq!(world.actions(), [connect(A)], "that one lived");
}

#[test]
fn silence_is_never_death() {
    let mut world = World::up(&[A, B]);
    world.wait(1_000);
    world.tell(A, Event::Closed);
    assert_eq!(world.actions(), [connect(A)]);
    for _ in 0..100 {
        world.tell(A, Event::Unclear);
        assert_eq!(world.actions(), []);
        world.wait(300);
        assert_eq!(world.actions(), [connect(A)]);
    }
    world.tell(A, Event::Refused);
    assert_eq!(world.actions(), [convict(A)], "until it is refused");
}

#[test]
fn one_never_reached_is_not_declared_dead() {
    let mut world = World::unknown(&[A, B]);
    world.tell(B, Event::Connected);
    for _ in 0..100 {
        world.tell(A, Event::Refused);
        assert_eq!(
            world.actions(),
            [],
            "perhaps it is not to be reached from here"
        );
        world.wait(300);
        assert_eq!(world.actions(), [connect(A)]);
    }
}

#[test]
fn who_is_refused_by_all_suspects_itself() {
    let mut world = World::up(&[A, B, S]);
    world.wait(1_000);
    for key in [A, B, S] {
        world.tell(key, Event::Closed);
    }
    assert_eq!(world.actions(), [connect(A), connect(B), connect(S)]);
    for key in [A, B, S] {
        world.tell(key, Event::Refused);
    }
    assert_eq!(world.actions(), []);
    world.wait(300);
    assert_eq!(world.actions(), [connect(A), connect(B), connect(S)]);
    world.tell(B, Event::Connected);
    world.tell(A, Event::Refused);
    world.tell(S, Event::Unclear);
    assert_eq!(world.actions(), [convict(A)], "not alone any more");
}

#[test]
fn a_single_peer_needs_no_witness() {
    let mut world = World::up(&[S]);
    world.wait(1_000);
    world.tell(S, Event::Closed);
    assert_eq!(world.actions(), [connect(S)]);
    world.tell(S, Event::Refused);
    assert_eq!(world.actions(), [convict(S)]);
}

#[test]
fn a_verdict_that_could_not_be_carried_out_is_tried_again() {
    let mut world = World::up(&[A, B]);
    world.wait(1_000);
    world.tell(A, Event::Closed);
    world.actions();
    for _ in 0..10 {
        world.tell(A, Event::Refused);
        assert_eq!(world.actions(), [convict(A)]);
        world.tell(A, Event::Settled);
        assert_eq!(world.actions(), []);
        world.wait(300);
        assert_eq!(world.actions(), [connect(A)]);
    }
}

#[test]
fn a_new_address_begins_anew_and_word_of_the_old_one_is_ignored() {
    let mut world = World::up(&[A, B]);
    world.wait(1_000);
    world.tell(A, Event::Closed);
    world.actions();
    let peers = BTreeMap::from([(A.to_owned(), at(77)), (B.to_owned(), at(2))]);
    world.core.set_peers(world.now, peers);
    assert_eq!(world.actions(), [Action::Connect(A.into(), at(77))]);
    world.tell(A, Event::Refused);
    assert_eq!(world.actions(), []);
    assert_eq!(world.core.timer(), None, "still connecting to the new one");
}
