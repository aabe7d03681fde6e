//! The world of a seed: all nodes, the order of events, and what breaks.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::client::{Client, State};
use crate::ladder;
use crate::manager::Manager;
use crate::net::{Msg, Net, Node, Time};
use crate::plan::{Act, Fault, Plan};
use crate::registrar::Registrar;
use crate::shell::Clock;
use crate::store::{Health, StoreModel};
use crate::switch::Switch;

/// Wall-clock time at the start, ms since the Unix epoch.
const UNIX_START: u64 = 1_700_000_000_000;
/// How long it is calm at the end; orphans have to be gone then.
const CALM: Duration = Duration::from_secs(100);
/// Datagrams that wait for a process that stands still, at most.
const BACKLOG: usize = 200;

enum Ev {
    Deliver {
        to: Node,
        /// The very process it is for, on a stream.
        life: Option<u32>,
        from: Node,
        msg: Msg,
    },
    Wake(Node),
    Act(u8, Act),
    Fault(Fault),
    Start(Node),
    Resume(Node),
    StoreWell,
    LossOver(u32),
    Calm,
}

/// See the module.
pub struct World {
    /// What time it is.
    pub now: Time,
    clock: Clock,
    /// What happens in it.
    pub plan: Plan,
    rng: ChaCha8Rng,
    queue: BTreeMap<(Time, u64), Ev>,
    next: u64,
    wakes: BTreeMap<Node, Time>,
    net: Net,
    /// The store.
    pub store: StoreModel,
    /// Managers that run.
    pub managers: BTreeMap<u8, Manager>,
    /// Registrars that run.
    pub registrars: BTreeMap<u8, Registrar>,
    /// Switches that run.
    pub switches: BTreeMap<u8, Switch>,
    /// Phones.
    pub clients: BTreeMap<u8, Client>,
    lives: BTreeMap<Node, u32>,
    skews: BTreeMap<Node, u64>,
    stopped: BTreeMap<Node, VecDeque<Ev>>,
    /// Who spoke for a meeting under an epoch.
    speakers: BTreeMap<(String, u64), String>,
    /// Highest epoch a start of a switch took, by meeting.
    highest: BTreeMap<(String, String), u64>,
    /// Rules that were broken.
    pub broken: Vec<String>,
    /// The ladder, where it is wanted.
    pub log: Option<Vec<String>>,
    /// Of all that was delivered, so that two runs can be compared.
    pub trace: u64,
    /// How much was delivered.
    pub delivered: u64,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(seed: u64, origin: Instant, log: bool) -> Self {
        let mut plans = ChaCha8Rng::seed_from_u64(seed);
        let plan = Plan::draw(&mut plans);
        let mut world = Self {
            now: Time::ZERO,
            clock: Clock(origin),
            rng: plans,
            queue: BTreeMap::new(),
            next: 0,
            wakes: BTreeMap::new(),
            net: Net::new(plan.loss, plan.twice),
            store: StoreModel::default(),
            managers: BTreeMap::new(),
            registrars: BTreeMap::new(),
            switches: BTreeMap::new(),
            clients: BTreeMap::new(),
            lives: BTreeMap::new(),
            skews: BTreeMap::new(),
            stopped: BTreeMap::new(),
            speakers: BTreeMap::new(),
            highest: BTreeMap::new(),
            broken: Vec::new(),
            log: log.then(Vec::new),
            trace: 0xcbf2_9ce4_8422_2325,
            delivered: 0,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let plan = self.plan.clone();
        let registrars = (0..plan.registrars).map(Node::Registrar);
        let managers = (0..plan.managers).map(Node::Manager);
        let switches = (0..plan.switches).map(Node::Switch);
        let nodes: Vec<Node> = switches.chain(managers).chain(registrars).collect();
        for node in nodes {
            // Clocks of machines are a minute apart.
            let skew = u64::from(self.rng.next_u32() % 60_000);
            self.skews.insert(node, skew);
            self.start(node);
        }
        for n in 0..plan.clients {
            let client = Client::new(n, self.clock, self.seed(), plan.registrars);
            self.clients.insert(n, client);
        }
        for (at, client, act) in plan.acts {
            self.push(at, Ev::Act(client, act));
        }
        for (at, fault) in plan.faults {
            self.push(at, Ev::Fault(fault));
        }
        self.push(plan.calm, Ev::Calm);
        self.wakes.insert(Node::Store, Time::ZERO);
        self.push(Time::ZERO, Ev::Wake(Node::Store));
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    fn push(&mut self, at: Time, event: Ev) {
        self.next += 1;
        self.queue.insert((at.max(self.now), self.next), event);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10.3}  {}", now.as_secs_f64(), text()));
        }
    }

    // ---- running

    /// Runs to the end.
    pub fn run(&mut self) {
        let end = self.plan.calm + CALM;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > end || !self.broken.is_empty() {
                break;
            }
            self.now = at;
            self.on(event);
        }
        self.now = end;
    }

    fn on(&mut self, event: Ev) {
        match event {
            Ev::Deliver {
                to,
                life,
                from,
                msg,
            } => self.deliver(to, life, from, msg),
            Ev::Wake(node) => {
                if self.wakes.get(&node) == Some(&self.now) {
                    self.wakes.remove(&node);
                }
                if let Some(waiting) = self.stopped.get_mut(&node) {
                    waiting.push_back(Ev::Wake(node));
                } else {
                    self.wake(node);
                }
            }
            Ev::Act(client, act) => self.act(client, &act),
            Ev::Fault(fault) => self.strike(fault),
            Ev::Start(node) => {
                self.note(|| format!("---- {node} starts"));
                self.start(node);
            }
            Ev::Resume(node) => {
                self.note(|| format!("---- {node} goes on"));
                for event in self.stopped.remove(&node).unwrap_or_default() {
                    self.push(self.now, event);
                }
                self.settle(node);
            }
            Ev::StoreWell => {
                self.note(|| "---- the store is well".into());
                self.store.health = Health::Well;
            }
            Ev::LossOver(loss) => self.net.loss = loss,
            Ev::Calm => {
                self.note(|| "---- calm".into());
                self.net.loss = self.plan.loss.min(5);
            }
        }
    }

    fn is_running(&self, node: Node) -> bool {
        match node {
            Node::Store => true,
            Node::Registrar(n) => self.registrars.contains_key(&n),
            Node::Manager(n) => self.managers.contains_key(&n),
            Node::Switch(n) => self.switches.contains_key(&n),
            Node::Client(n) => self.clients.contains_key(&n),
        }
    }

    fn deliver(&mut self, to: Node, life: Option<u32>, from: Node, msg: Msg) {
        if !self.is_running(to) || life.is_some_and(|life| life != self.life(to)) {
            return;
        }
        if let Some(waiting) = self.stopped.get_mut(&to) {
            if msg.is_stream() || waiting.len() < BACKLOG {
                waiting.push_back(Ev::Deliver {
                    to,
                    life,
                    from,
                    msg,
                });
            }
            return;
        }
        if self.log.is_some()
            && let Some(text) = ladder::text(from, to, &msg)
        {
            self.note(|| text);
        }
        self.delivered += 1;
        let (at, size) = (self.now.as_nanos() as u64, ladder::size(&msg));
        for word in [at, ladder::number(from), ladder::number(to), size] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
        }
        let now = self.now;
        match to {
            Node::Store => self.store.handle(now, from, msg),
            Node::Registrar(n) => {
                if let Some(node) = self.registrars.get_mut(&n) {
                    node.handle(now, msg);
                }
            }
            Node::Manager(n) => {
                if let Some(node) = self.managers.get_mut(&n) {
                    node.handle(now, from, msg);
                }
            }
            Node::Switch(n) => {
                if let Some(node) = self.switches.get_mut(&n) {
                    node.handle(now, from, msg);
                }
            }
            Node::Client(n) => {
                if let Some(node) = self.clients.get_mut(&n) {
                    node.handle(now, msg);
                }
            }
        }
        self.settle(to);
    }

    fn wake(&mut self, node: Node) {
        if self.timeout(node).is_some_and(|at| at <= self.now) {
            let now = self.now;
            match node {
                Node::Store => self.store.handle_timeout(now),
                Node::Registrar(n) => {
                    if let Some(node) = self.registrars.get_mut(&n) {
                        node.handle_timeout(now);
                    }
                }
                Node::Manager(n) => {
                    if let Some(node) = self.managers.get_mut(&n) {
                        node.handle_timeout(now);
                    }
                }
                Node::Switch(n) => {
                    if let Some(node) = self.switches.get_mut(&n) {
                        node.handle_timeout(now);
                    }
                }
                Node::Client(n) => {
                    if let Some(node) = self.clients.get_mut(&n) {
                        node.handle_timeout(now);
                    }
                }
            }
        }
        self.settle(node);
    }

    fn timeout(&self, node: Node) -> Option<Time> {
        match node {
            Node::Store => Some(self.store.poll_timeout()),
            Node::Registrar(n) => self.registrars.get(&n)?.poll_timeout(),
            Node::Manager(n) => self.managers.get(&n)?.poll_timeout(),
            Node::Switch(n) => self.switches.get(&n)?.poll_timeout(),
            Node::Client(n) => self.clients.get(&n)?.poll_timeout(),
        }
    }

    /// Sends what a node has to send, looks at what it did, and sets its alarm.
    fn settle(&mut self, node: Node) {
        let out = match node {
            Node::Store => std::mem::take(&mut self.store.out),
            Node::Registrar(n) => {
                let node = self.registrars.get_mut(&n);
                node.map_or_else(Vec::new, |r| std::mem::take(&mut r.shell.out))
            }
            Node::Manager(n) => {
                let node = self.managers.get_mut(&n);
                node.map_or_else(Vec::new, |m| std::mem::take(&mut m.shell.out))
            }
            Node::Switch(n) => {
                let node = self.switches.get_mut(&n);
                node.map_or_else(Vec::new, |s| std::mem::take(&mut s.shell.out))
            }
            Node::Client(n) => {
                let node = self.clients.get_mut(&n);
                node.map_or_else(Vec::new, |c| std::mem::take(&mut c.out))
            }
        };
        for (to, msg) in out {
            self.send(node, to, msg);
        }
        self.look(node);
        if self.stopped.contains_key(&node) {
            return;
        }
        if let Some(at) = self.timeout(node) {
            let at = at.max(self.now + Duration::from_micros(100));
            if self.wakes.get(&node).is_none_or(|set| at < *set) {
                self.wakes.insert(node, at);
                self.push(at, Ev::Wake(node));
            }
        }
    }

    fn life(&self, node: Node) -> u32 {
        self.lives.get(&node).copied().unwrap_or(0)
    }

    fn send(&mut self, from: Node, to: Node, msg: Msg) {
        let stream = msg.is_stream();
        let arrivals = self.net.arrivals(&mut self.rng, self.now, from, to, stream);
        if arrivals.is_empty()
            && self.log.is_some()
            && let Some(text) = ladder::text(from, to, &msg)
        {
            self.note(|| format!("{text}   (lost)"));
        }
        // A stream that lost something has ended: it does not go on with a gap.
        if stream && arrivals.is_empty() {
            match from {
                Node::Store => self.store.forget(to),
                Node::Switch(n) => {
                    if let Some(node) = self.switches.get_mut(&n) {
                        node.forget(to);
                    }
                }
                _ => {}
            }
        }
        // Nobody listens there: that is known at once.
        if stream && !self.is_running(to) {
            if let (Msg::Apply(id, _), Some(at)) = (&msg, arrivals.first()) {
                let refused = Msg::Applied(*id, Err(meeting_core::ApplyFailure::Unavailable));
                let event = Ev::Deliver {
                    to: from,
                    life: Some(self.life(from)),
                    from: to,
                    msg: refused,
                };
                self.push(*at, event);
            }
            return;
        }
        let life = stream.then(|| self.life(to));
        for at in arrivals {
            let msg = msg.clone();
            let event = Ev::Deliver {
                to,
                life,
                from,
                msg,
            };
            self.push(at, event);
        }
    }

    /// Whether what a node just did is allowed.
    fn look(&mut self, node: Node) {
        self.broken.append(&mut self.store.broken);
        let Node::Switch(n) = node else { return };
        let Some(switch) = self.switches.get_mut(&n) else {
            return;
        };
        self.broken.append(&mut switch.broken);
        let accepted = std::mem::take(&mut switch.accepted);
        let instance = switch.instance.clone();
        for (meeting, epoch, member) in accepted {
            let speaker = self
                .speakers
                .entry((meeting.clone(), epoch))
                .or_insert_with(|| member.clone());
            if *speaker != member {
                self.broken.push(format!(
                    "{instance} takes orders for {meeting} of epoch {epoch} from {speaker} and from {member}"
                ));
            }
            let highest = self
                .highest
                .entry((instance.clone(), meeting.clone()))
                .or_insert(epoch);
            if epoch < *highest {
                self.broken.push(format!(
                    "{instance} took an order of {member} for {meeting} of epoch {epoch} after one of {highest}"
                ));
            }
            *highest = epoch.max(*highest);
        }
    }

    // ---- what happens

    fn act(&mut self, n: u8, act: &Act) {
        self.note(|| format!("---- c{n}: {act:?}"));
        let seed = self.seed();
        let now = self.now;
        let Some(client) = self.clients.get_mut(&n) else {
            return;
        };
        match act {
            Act::Return => client.vanished = false,
            _ if client.vanished => {}
            Act::Join(meeting) => {
                if client.state == State::Joined {
                    client.leave(now);
                }
                client.join(now, meeting);
            }
            Act::Leave => client.leave(now),
            Act::Hold => client.toggle_hold(now),
            // Held calls are found dead by the session timer only, which is longer than a world lasts.
            Act::Vanish if client.is_on_hold() => client.leave(now),
            Act::Vanish => client.vanish(seed),
        }
        self.settle(Node::Client(n));
    }

    fn strike(&mut self, fault: Fault) {
        self.note(|| format!("---- {fault:?}"));
        let (now, until) = (self.now, self.now + fault.lasts());
        match fault {
            Fault::Crash(node, _) => {
                if self.is_running(node) && !self.stopped.contains_key(&node) {
                    self.stop(node);
                    self.push(until, Ev::Start(node));
                }
            }
            Fault::Pause(node, _) => {
                if self.is_running(node) && !self.stopped.contains_key(&node) {
                    self.stopped.insert(node, VecDeque::new());
                    self.wakes.remove(&node);
                    self.push(until, Ev::Resume(node));
                }
            }
            Fault::Cut {
                from,
                to,
                both,
                lose,
                ..
            } => {
                self.net.cut(from, to, until, lose);
                if both {
                    self.net.cut(to, from, until, lose);
                }
            }
            Fault::Store(health, _) => {
                self.store.health = health;
                self.push(until, Ev::StoreWell);
            }
            Fault::Compact => self.store.compact(),
            Fault::Loss(loss, _) => {
                self.net.loss = loss;
                self.push(until, Ev::LossOver(self.plan.loss));
            }
        }
        debug_assert!(now <= until);
    }

    fn stop(&mut self, node: Node) {
        *self.lives.entry(node).or_default() += 1;
        self.wakes.remove(&node);
        match node {
            Node::Registrar(n) => drop(self.registrars.remove(&n)),
            Node::Manager(n) => drop(self.managers.remove(&n)),
            Node::Switch(n) => drop(self.switches.remove(&n)),
            Node::Store | Node::Client(_) => {}
        }
        self.store.forget(node);
        for switch in self.switches.values_mut() {
            switch.forget(node);
        }
    }

    fn start(&mut self, node: Node) {
        let seed = self.seed();
        let (now, clock, life) = (self.now, self.clock, self.life(node));
        let elapsed = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let unix = UNIX_START + self.skews.get(&node).copied().unwrap_or(0);
        match node {
            Node::Registrar(n) => {
                let unix = Duration::from_millis(unix);
                let registrar = Registrar::new(n, now, clock, seed, life + 1, unix);
                self.registrars.insert(n, registrar);
            }
            Node::Manager(n) => {
                let manager = Manager::new(n, now, clock, seed, unix + elapsed);
                self.managers.insert(n, manager);
            }
            Node::Switch(n) => {
                let switch = Switch::new(n, now, clock, seed, life);
                self.switches.insert(n, switch);
            }
            Node::Store | Node::Client(_) => {}
        }
        self.settle(node);
    }
}
