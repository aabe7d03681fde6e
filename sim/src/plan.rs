//! What happens in a world, drawn from its seed: what people do, and what breaks.

use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::net::{Node, Time};
use crate::store::Health;

/// Until when things happen; then everything heals.
const BUSY: u64 = 60_000;

/// What a person does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Calls a meeting; what it was in is left first.
    Join(String),
    /// Hangs up, or cancels.
    Leave,
    /// On hold, or off it.
    Hold,
    /// The phone dies without a word.
    Vanish,
    /// It is switched on again.
    Return,
}

/// What breaks.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The process dies, and begins anew after so long.
    Crash(Node, Duration),
    /// The process stands still for so long (SIGSTOP, SIGCONT).
    Pause(Node, Duration),
    /// The way from one to another is cut, or both ways.
    Cut {
        /// From.
        from: Node,
        /// To.
        to: Node,
        /// Both ways.
        both: bool,
        /// Streams lose what they carry, or it comes late.
        lose: bool,
        /// How long.
        lasts: Duration,
    },
    /// The store is ill for so long.
    Store(Health, Duration),
    /// The store forgets its history.
    Compact,
    /// So many of 1,000 datagrams are lost for so long.
    Loss(u32, Duration),
}

impl Fault {
    /// How long it lasts.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Crash(_, d) | Self::Pause(_, d) | Self::Store(_, d) | Self::Loss(_, d) => *d,
            Self::Cut { lasts, .. } => *lasts,
            Self::Compact => Duration::ZERO,
        }
    }
}

/// A world's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many registrars.
    pub registrars: u8,
    /// How many managers.
    pub managers: u8,
    /// How many switches.
    pub switches: u8,
    /// How many phones.
    pub clients: u8,
    /// Of 1,000 datagrams so many are lost all the time.
    pub loss: u32,
    /// Of 1,000 datagrams so many come twice.
    pub twice: u32,
    /// What people do, in no order.
    pub acts: Vec<(Time, u8, Act)>,
    /// What breaks, in no order.
    pub faults: Vec<(Time, Fault)>,
    /// When all has healed.
    pub calm: Time,
}

fn ms(rng: &mut ChaCha8Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..to))
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut plan = Self {
            registrars: rng.random_range(1..=2),
            managers: rng.random_range(2..=3),
            switches: rng.random_range(1..=2),
            clients: rng.random_range(3..=6),
            loss: *[0, 5, 20, 50].choose(rng).expect("not empty"),
            twice: *[0, 10, 50].choose(rng).expect("not empty"),
            acts: Vec::new(),
            faults: Vec::new(),
            calm: Duration::from_millis(BUSY),
        };
        plan.draw_acts(rng);
        for _ in 0..rng.random_range(1..=6) {
            let at = ms(rng, 6_000, BUSY - 10_000);
            let fault = plan.draw_fault(rng);
            plan.calm = plan.calm.max(at + fault.lasts());
            plan.faults.push((at, fault));
        }
        plan
    }

    fn draw_acts(&mut self, rng: &mut ChaCha8Rng) {
        let meeting = |rng: &mut ChaCha8Rng| format!("m{}", rng.random_range(0..2));
        for client in 0..self.clients {
            let begin = ms(rng, 2_000, 12_000);
            let act = Act::Join(meeting(rng));
            self.acts.push((begin, client, act));
            for _ in 0..rng.random_range(0..4) {
                let at = ms(rng, 8_000, BUSY);
                let act = match rng.random_range(0..10) {
                    0..3 => Act::Leave,
                    3..6 => Act::Hold,
                    6 => Act::Vanish,
                    _ => Act::Join(meeting(rng)),
                };
                if matches!(act, Act::Leave | Act::Vanish) && rng.random_bool(0.7) {
                    let back = at + ms(rng, 200, 10_000);
                    self.acts.push((back, client, Act::Return));
                    let act = Act::Join(meeting(rng));
                    self.acts.push((back + ms(rng, 1, 3_000), client, act));
                }
                self.acts.push((at, client, act));
            }
        }
    }

    fn process(&self, rng: &mut ChaCha8Rng) -> Node {
        match rng.random_range(0..10) {
            0..5 => Node::Manager(rng.random_range(0..self.managers)),
            5..7 => Node::Registrar(rng.random_range(0..self.registrars)),
            _ => Node::Switch(rng.random_range(0..self.switches)),
        }
    }

    fn way(&self, rng: &mut ChaCha8Rng) -> (Node, Node) {
        let registrar = Node::Registrar(rng.random_range(0..self.registrars));
        let manager = Node::Manager(rng.random_range(0..self.managers));
        let switch = Node::Switch(rng.random_range(0..self.switches));
        let client = Node::Client(rng.random_range(0..self.clients));
        let pairs = [
            (manager, Node::Store),
            (manager, Node::Store),
            (manager, switch),
            (registrar, manager),
            (registrar, Node::Store),
            (switch, Node::Store),
            (client, registrar),
            (client, switch),
        ];
        let (a, b) = *pairs.choose(rng).expect("not empty");
        match rng.random_bool(0.5) {
            true => (a, b),
            false => (b, a),
        }
    }

    fn draw_fault(&self, rng: &mut ChaCha8Rng) -> Fault {
        match rng.random_range(0..12) {
            0..4 => Fault::Crash(self.process(rng), ms(rng, 100, 8_000)),
            4..6 => Fault::Pause(self.process(rng), ms(rng, 200, 12_000)),
            6..9 => {
                let (from, to) = self.way(rng);
                Fault::Cut {
                    from,
                    to,
                    both: rng.random_bool(0.6),
                    lose: rng.random_bool(0.5),
                    lasts: ms(rng, 300, 12_000),
                }
            }
            9 => {
                let health = match rng.random_bool(0.5) {
                    true => Health::Unavailable,
                    false => Health::Flaky,
                };
                Fault::Store(health, ms(rng, 300, 10_000))
            }
            10 => Fault::Compact,
            _ => Fault::Loss(rng.random_range(50..300), ms(rng, 500, 10_000)),
        }
    }
}
