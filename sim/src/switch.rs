//! A switch: one real worker, and its shell's placements: which epochs are taken, and who is told what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster::records::{RECORD_VERSION, SwitchRecord, keys};
use control::v1 as ctl;
use meeting_core::{ApplyFailure, Held};
use switch_core::WallClock;
use switch_core::dtls::Identity;
use switch_core::worker::{ApplyError, PlainPorts, Ports, SocketId, Worker, WorkerConfig};

use crate::net::{Msg, Node, Time};
use crate::shell::{Clock, Done, Shell};

/// Ports are 20,000 and the socket's number.
const FIRST_PORT: u16 = 20_000;
/// Meetings whose owner and legs are silent for so long are ended.
const ORPHAN: Duration = Duration::from_secs(45);
/// How often streams are told that they live, and meetings looked at.
const TICK: Duration = Duration::from_secs(1);
const REAP: Duration = Duration::from_secs(4);

#[derive(Debug)]
struct SimPorts {
    ip: IpAddr,
    open: BTreeSet<u32>,
    next: u32,
}

impl SimPorts {
    fn socket(&mut self) -> SocketId {
        self.next += 1;
        self.open.insert(self.next);
        SocketId(self.next)
    }
}

fn port(socket: SocketId) -> u16 {
    FIRST_PORT + u16::try_from(socket.0).expect("a world opens few sockets")
}

impl Ports for SimPorts {
    fn webrtc(&self) -> Vec<(SocketId, Vec<SocketAddr>)> {
        vec![(SocketId(0), vec![SocketAddr::new(self.ip, FIRST_PORT)])]
    }

    fn advertised(&self, ipv6: bool, _: Option<IpAddr>) -> Option<IpAddr> {
        (!ipv6).then_some(self.ip)
    }

    fn open(&mut self, _: bool, _: Option<IpAddr>, with_rtcp: bool) -> Option<PlainPorts> {
        let rtp = self.socket();
        let rtcp = with_rtcp.then(|| self.socket());
        Some(PlainPorts {
            rtp,
            rtcp,
            advertised: self.ip,
            rtp_port: port(rtp),
            rtcp_port: rtcp.map_or(0, port),
        })
    }

    fn close(&mut self, socket: SocketId) {
        assert!(self.open.remove(&socket.0), "{socket:?} is closed twice");
    }
}

#[derive(Debug)]
struct Placement {
    member: String,
    epoch: u64,
    said: Time,
    present: Time,
    /// Addresses of legs that the last accepted orders leave in it, by leg.
    legs: BTreeMap<String, Vec<SocketAddr>>,
}

/// A switch.
pub struct Switch {
    node: Node,
    clock: Clock,
    /// Of this start.
    pub instance: String,
    worker: Worker,
    ports: SimPorts,
    /// Its shell.
    pub shell: Shell,
    placements: BTreeMap<String, Placement>,
    ended: VecDeque<(String, u64)>,
    listeners: BTreeMap<(Node, u64), String>,
    next_tick: Time,
    next_reap: Time,
    /// (meeting, epoch, member) of every order that was accepted.
    pub accepted: Vec<(String, u64, String)>,
    /// Rules that were broken.
    pub broken: Vec<String>,
    /// How many packets went out.
    pub sent: u64,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "switch {}", self.node)
    }
}

/// One certificate for all switches of all worlds: no leg here uses it, and making one takes long.
fn identity() -> Arc<Identity> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    let made = IDENTITY.get_or_init(|| Arc::new(Identity::generate().expect("a certificate")));
    Arc::clone(made)
}

impl Switch {
    /// A process that has just begun.
    #[must_use]
    pub fn new(n: u8, now: Time, clock: Clock, seed: [u8; 32], start: u32) -> Self {
        let node = Node::Switch(n);
        let instance = format!("{node}-{start}");
        let mut shell = Shell::new(now, &[]);
        let record = SwitchRecord {
            version: RECORD_VERSION,
            id: node.to_string(),
            instance: instance.clone(),
            control: "http://192.0.2.0:1".into(),
            load: 0,
            draining: false,
            fingerprints: Vec::new(),
        };
        let record = serde_json::to_vec(&record).expect("a switch record has text keys only");
        shell.keep(now, keys::switch(&node.to_string()), record);
        let config = WorkerConfig {
            clock: WallClock {
                origin: clock.at(now),
                unix: Duration::from_secs(1_700_000_000) + now,
            },
            video_bitrate: 1_000_000,
            speaker_interval: Duration::from_millis(40),
            max_legs: 1_000,
        };
        Self {
            node,
            clock,
            instance,
            worker: Worker::new(config, identity(), seed),
            ports: SimPorts {
                ip: node.address().ip(),
                open: BTreeSet::new(),
                next: 0,
            },
            shell,
            placements: BTreeMap::new(),
            ended: VecDeque::new(),
            listeners: BTreeMap::new(),
            next_tick: now + TICK,
            next_reap: now + REAP,
            accepted: Vec::new(),
            broken: Vec::new(),
            sent: 0,
        }
    }

    /// Meetings with the ids of their legs.
    #[must_use]
    pub fn legs(&self, now: Time) -> Vec<(String, Vec<String>)> {
        let views = self.worker.inspect(self.clock.at(now), None);
        views
            .into_iter()
            .map(|view| (view.meeting, view.legs.into_iter().map(|l| l.id).collect()))
            .collect()
    }

    /// What it holds, in lines.
    #[must_use]
    pub fn picture(&self, now: Time) -> Vec<String> {
        let mut lines = Vec::new();
        for view in self.worker.inspect(self.clock.at(now), None) {
            let (id, epoch, active) = (&view.meeting, view.epoch, &view.active);
            lines.push(format!(
                "{} has {id} of epoch {epoch}, active {active:?}",
                self.node
            ));
            for leg in view.legs {
                let packets = |s: &Option<ctl::StreamStats>| s.as_ref().map_or(0, |s| s.packets);
                let holders: Vec<&str> = leg.slots.iter().map(|s| s.holder.as_str()).collect();
                lines.push(format!(
                    "  leg {} at {}: {} received, {} sent, level {}, slots of {holders:?}",
                    leg.id,
                    leg.remote,
                    packets(&leg.received),
                    packets(&leg.sent),
                    leg.level
                ));
            }
        }
        lines
    }

    /// A message came.
    pub fn handle(&mut self, now: Time, from: Node, msg: Msg) {
        self.shell.store.at(now);
        match msg {
            Msg::Reply(id, reply) => self.shell.store.answer(id, reply),
            Msg::Apply(id, request) => {
                let result = self.apply(now, &request).map(Box::new);
                self.shell.out.push((from, Msg::Applied(id, result)));
            }
            Msg::Inspect => {
                let views = self.worker.inspect(self.clock.at(now), None);
                let held = views.into_iter().map(|view| Held {
                    meeting: view.meeting,
                    epoch: view.epoch,
                    legs: view.legs.into_iter().map(|leg| leg.id).collect(),
                });
                let told = Msg::Inventory(held.collect());
                self.shell.out.push((from, told));
            }
            Msg::Listen { stream, member } => self.listen(from, stream, &member),
            Msg::Media {
                from,
                to,
                mut bytes,
            } => {
                if let Some(number) = to.port().checked_sub(FIRST_PORT) {
                    let socket = SocketId(u32::from(number));
                    let at = self.clock.at(now);
                    self.worker.handle_datagram(at, socket, from, &mut bytes);
                }
            }
            _ => {}
        }
        self.pump(now);
    }

    fn listen(&mut self, from: Node, stream: u64, member: &str) {
        self.listeners.retain(|(node, _), _| *node != from);
        self.listeners.insert((from, stream), member.to_owned());
        let hello = ctl::Hello {
            instance: self.instance.clone(),
            version: control::VERSION,
            certificate: Vec::new(),
        };
        let event = ctl::Event {
            event: Some(ctl::event::Event::Hello(hello)),
        };
        let told = Msg::Event(stream, Some(Box::new(event)));
        self.shell.out.push((from, told));
        let of_member = self.placements.iter().filter(|(_, p)| p.member == member);
        let meetings: Vec<String> = of_member.map(|(id, _)| id.clone()).collect();
        meetings.iter().for_each(|id| self.worker.retell(id));
    }

    /// As the control server does it.
    fn apply(
        &mut self,
        now: Time,
        request: &ctl::ApplyRequest,
    ) -> Result<ctl::ApplyResponse, ApplyFailure> {
        let response = |legs| ctl::ApplyResponse {
            instance: self.instance.clone(),
            epoch: request.epoch,
            legs,
        };
        let known = self.placements.get(&request.meeting);
        if known.is_none() && !request.legs.is_empty() && !self.shell.is_alive() {
            return Err(ApplyFailure::Unavailable);
        }
        if known.is_none() && request.end {
            return Ok(response(Vec::new()));
        }
        let highest = match known {
            Some(placement) => Some(placement.epoch),
            None => {
                let mut ended = self.ended.iter();
                ended
                    .find(|(id, _)| *id == request.meeting)
                    .map(|(_, epoch)| *epoch)
            }
        };
        if highest.is_some_and(|highest| request.epoch < highest) {
            return Err(ApplyFailure::Fenced);
        }
        let is_new = known.is_none();
        let at = self.clock.at(now);
        let result = self.worker.apply(at, request, &mut self.ports);
        let answer = match result {
            Ok(legs) => Ok(response(legs)),
            Err(ApplyError::Stale { .. }) => Err(ApplyFailure::Fenced),
            Err(_) => Err(ApplyFailure::Unavailable),
        };
        answer.as_ref().map_err(Clone::clone)?;
        let accepted = (
            request.meeting.clone(),
            request.epoch,
            request.member.clone(),
        );
        self.accepted.push(accepted);
        let placement = self
            .placements
            .entry(request.meeting.clone())
            .or_insert_with(|| Placement {
                member: String::new(),
                epoch: 0,
                said: now,
                present: now,
                legs: BTreeMap::new(),
            });
        // What went out before belongs to legs that were there then.
        placement.member.clone_from(&request.member);
        placement.epoch = request.epoch;
        placement.said = now;
        placement.present = now;
        if request.full {
            placement.legs.clear();
        }
        for id in &request.removed_legs {
            placement.legs.remove(id);
        }
        for leg in &request.legs {
            placement.legs.insert(leg.id.clone(), addresses(leg));
        }
        if request.end {
            self.end(&request.meeting);
        } else if is_new {
            self.ended.retain(|(id, _)| *id != request.meeting);
        }
        answer
    }

    fn end(&mut self, meeting: &str) {
        if let Some(placement) = self.placements.remove(meeting) {
            self.ended.retain(|(id, _)| id != meeting);
            self.ended.push_back((meeting.to_owned(), placement.epoch));
        }
    }

    fn reap(&mut self, now: Time) {
        let listening: BTreeSet<&String> = self.listeners.values().collect();
        let mut asked = Vec::new();
        for (id, placement) in &mut self.placements {
            if listening.contains(&placement.member) {
                placement.present = now;
            }
            if now.saturating_sub(placement.said) >= ORPHAN {
                let unowned = now.saturating_sub(placement.present) >= ORPHAN;
                asked.push((id.clone(), unowned));
            }
        }
        let at = self.clock.at(now);
        for (id, unowned) in asked {
            if self.worker.reap(at, &id, ORPHAN, unowned, &mut self.ports) {
                self.end(&id);
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let worker = self.worker.poll_timeout().map(|at| self.clock.of(at));
        let own = Some(self.next_tick.min(self.next_reap));
        [worker, own, self.shell.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.shell.handle_timeout(now);
        self.worker.handle_timeout(self.clock.at(now));
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            for (node, stream) in self.listeners.keys() {
                self.shell.out.push((*node, Msg::Event(*stream, None)));
            }
        }
        if self.next_reap <= now {
            self.next_reap = now + REAP;
            self.reap(now);
        }
        self.pump(now);
    }

    /// A peer died: its connections are reset.
    pub fn forget(&mut self, node: Node) {
        self.listeners.retain(|(n, _), _| *n != node);
    }

    fn pump(&mut self, now: Time) {
        while let Some(transmit) = self.worker.poll_transmit() {
            let to = transmit.remote;
            let mut placed = self.placements.values();
            // A meeting that is reaped may still send RTCP to its legs; that carries nobody's media (RFC 5761 §4).
            let is_rtcp = transmit
                .bytes
                .get(1)
                .is_some_and(|b| (64..96).contains(&(b & 0x7f)));
            if !is_rtcp && !placed.any(|p| p.legs.values().flatten().any(|a| *a == to)) {
                self.broken.push(format!(
                    "{} sends media to {to}, of no leg that it was told to serve",
                    self.node
                ));
            }
            self.sent += 1;
            let Some(node) = Node::at(to.ip()) else {
                continue;
            };
            let msg = Msg::Media {
                from: SocketAddr::new(self.ports.ip, port(transmit.socket)),
                to,
                bytes: transmit.bytes.to_vec(),
            };
            self.shell.out.push((node, msg));
        }
        while let Some(event) = self.worker.poll_event() {
            self.publish(&event);
        }
        for done in self.shell.tasks.poll() {
            if let Done::Lease(held) = done {
                self.shell.renewed(now, held);
            }
        }
        self.shell.flush();
    }

    fn publish(&mut self, event: &ctl::Event) {
        let meeting = match &event.event {
            Some(ctl::event::Event::Leg(event)) => &event.meeting,
            Some(ctl::event::Event::Slots(event)) => &event.meeting,
            _ => return,
        };
        let Some(placement) = self.placements.get(meeting) else {
            return;
        };
        for ((node, stream), member) in &self.listeners {
            if *member == placement.member {
                let told = Msg::Event(*stream, Some(Box::new(event.clone())));
                self.shell.out.push((*node, told));
            }
        }
    }
}

/// Where a leg's media go: RTP and RTCP.
fn addresses(leg: &ctl::Leg) -> Vec<SocketAddr> {
    let of = |t: &ctl::Transport| {
        let ip: IpAddr = t.remote_address.parse().ok()?;
        let rtp = u16::try_from(t.remote_port).ok()?;
        let rtcp = match t.remote_rtcp_port {
            0 => rtp + 1,
            other => u16::try_from(other).ok()?,
        };
        Some([SocketAddr::new(ip, rtp), SocketAddr::new(ip, rtcp)])
    };
    leg.transports.iter().filter_map(of).flatten().collect()
}
