//! A meeting manager: the focus, and as much of its shell as a virtual world needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::Revision;
use cluster::records::{Member, Owner, RECORD_VERSION, RegistrarRecord, SwitchRecord, keys};
use meeting_core::{
    ApplyFailure, Command, Focus, FocusConfig, MeetingId, OpId, Ownership, Peer, SwitchId,
    SwitchInfo,
};
use sip::{Hop, Limits, Message, Transport};

use crate::DOMAIN;
use crate::net::{Msg, News, Node, Time};
use crate::shell::{Clock, Done, Shell};
use crate::takeover;

/// As the shell's: a switch that takes longer is passed over.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the switches are asked what they hold.
const SWEEP: Duration = Duration::from_secs(10);
/// An event stream of which nothing was heard for so long is opened anew.
const SILENT: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Stream {
    id: u64,
    heard: Time,
}

/// A manager.
#[derive(Debug)]
pub struct Manager {
    node: Node,
    id: String,
    clock: Clock,
    /// The focus.
    pub focus: Focus,
    /// Its shell.
    pub shell: Shell,
    members: BTreeMap<String, Member>,
    owners: BTreeMap<String, (String, Revision)>,
    switches: BTreeMap<String, SwitchRecord>,
    streams: BTreeMap<String, Stream>,
    applies: BTreeMap<u64, (OpId, Time)>,
    next_id: u64,
    /// Snapshots that have come.
    read: BTreeSet<String>,
    booted: bool,
    registrars: BTreeMap<String, Vec<String>>,
    next_sweep: Time,
}

impl Manager {
    /// A process that has just begun. `unix_ms`: what its wall clock says.
    #[must_use]
    pub fn new(n: u8, now: Time, clock: Clock, seed: [u8; 32], unix_ms: u64) -> Self {
        let node = Node::Manager(n);
        let id = node.to_string();
        let config = FocusConfig {
            member: id.clone(),
            domain: DOMAIN.into(),
            sent_by: node.address().to_string(),
            sent_by_stream: node.address().to_string(),
            trusted: vec!["192.0.2.0/24".parse().expect("a literal network parses")],
            ..FocusConfig::default()
        };
        let prefixes = [
            keys::members(),
            keys::owners(),
            keys::switches(),
            keys::registrars(),
        ];
        let mut shell = Shell::new(now, &prefixes);
        let member = Member {
            version: RECORD_VERSION,
            id: id.clone(),
            sip: vec![("udp".into(), node.address())],
            api: String::new(),
            load: 0,
            draining: false,
        };
        let record = serde_json::to_vec(&member).expect("a member record has text keys only");
        shell.keep(now, keys::member(&id), record);
        Self {
            node,
            id,
            clock,
            focus: Focus::new(config, seed, clock.at(now), unix_ms),
            shell,
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            switches: BTreeMap::new(),
            streams: BTreeMap::new(),
            applies: BTreeMap::new(),
            next_id: 0,
            read: BTreeSet::new(),
            booted: false,
            registrars: BTreeMap::new(),
            next_sweep: now + SWEEP,
        }
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A message came.
    pub fn handle(&mut self, now: Time, from: Node, msg: Msg) {
        self.shell.store.at(now);
        let at = self.clock.at(now);
        match msg {
            Msg::Sip { from, to, bytes } => {
                if let Ok(message) = Message::parse(bytes, &Limits::default()) {
                    let hop = Hop {
                        local: Some(to),
                        ..Hop::to(Transport::Udp, from)
                    };
                    self.focus.handle_message(at, message, hop);
                }
            }
            Msg::Reply(id, reply) => self.shell.store.answer(id, reply),
            Msg::News(id, news) => {
                if let Some(prefix) = self.shell.news(now, id, &news) {
                    self.on_news(now, &prefix, news);
                }
            }
            Msg::Applied(id, result) => {
                if let Some((op, _)) = self.applies.remove(&id) {
                    self.focus.handle_applied(at, op, result.map(|r| *r));
                }
            }
            Msg::Event(stream, event) => {
                let found = self.streams.iter_mut().find(|(_, s)| s.id == stream);
                if let Some((switch, open)) = found {
                    open.heard = now;
                    let switch = SwitchId::new(switch);
                    if let Some(event) = event {
                        self.focus.handle_switch_event(at, &switch, *event);
                    }
                }
            }
            Msg::Inventory(held) => {
                let switch = SwitchId::new(&from.to_string());
                self.focus.handle_inventory(at, &switch, &held);
            }
            _ => {}
        }
        self.pump(now);
    }

    fn on_news(&mut self, now: Time, prefix: &str, news: News) {
        let whole = matches!(news, News::All(..));
        let entries = match news {
            News::All(entries, _) => {
                self.read.insert(prefix.to_owned());
                match prefix {
                    _ if prefix == keys::members() => self.members.clear(),
                    _ if prefix == keys::owners() => self.owners.clear(),
                    _ if prefix == keys::registrars() => self.registrars.clear(),
                    _ => self.switches.clear(),
                }
                entries
            }
            News::Put(entry) => vec![entry],
            News::Gone(key, _) => {
                let name = &key[prefix.len()..];
                self.members
                    .retain(|id, _| prefix != keys::members() || id != name);
                self.owners
                    .retain(|id, _| prefix != keys::owners() || id != name);
                self.switches
                    .retain(|id, _| prefix != keys::switches() || id != name);
                self.registrars
                    .retain(|id, _| prefix != keys::registrars() || id != name);
                if self.booted
                    && prefix == keys::owners()
                    && let Some(id) = MeetingId::new(name)
                {
                    self.focus.handle_owner(self.clock.at(now), &id, None);
                }
                Vec::new()
            }
            News::Progress(_) | News::Lost => return,
        };
        for entry in entries {
            let name = entry.key[prefix.len()..].to_owned();
            if prefix == keys::members() {
                let member = serde_json::from_slice(&entry.value).expect("a member record");
                self.members.insert(name, member);
            } else if prefix == keys::owners() {
                let owner: Owner = serde_json::from_slice(&entry.value).expect("an owner record");
                if self.booted
                    && let Some(id) = MeetingId::new(&name)
                {
                    let owner = Ownership {
                        member: owner.member.clone(),
                        epoch: entry.modified,
                    };
                    self.focus
                        .handle_owner(self.clock.at(now), &id, Some(owner));
                }
                self.owners.insert(name, (owner.member, entry.modified));
            } else if prefix == keys::registrars() {
                let registrar: RegistrarRecord =
                    serde_json::from_slice(&entry.value).expect("a registrar record");
                self.registrars.insert(name, registrar.routes);
            } else {
                let switch = serde_json::from_slice(&entry.value).expect("a switch record");
                self.switches.insert(name, switch);
            }
        }
        match prefix {
            _ if prefix == keys::switches() => self.tell_switches(now),
            _ if prefix == keys::registrars() => self.tell_registrars(now),
            _ if prefix == keys::members() && self.booted => self.tell_members(now),
            _ if prefix == keys::owners() && self.booted && whole => self.tell_owners(now),
            _ => {}
        }
        self.boot(now);
    }

    fn tell_owners(&mut self, now: Time) {
        let ownership = |(name, (member, epoch)): (&String, &(String, Revision))| {
            let (member, epoch) = (member.clone(), *epoch);
            Some((MeetingId::new(name)?, Ownership { member, epoch }))
        };
        let owners = self.owners.iter().filter_map(ownership).collect();
        self.focus.handle_owners(self.clock.at(now), owners);
    }

    fn tell_switches(&mut self, now: Time) {
        let info = |record: &SwitchRecord| SwitchInfo {
            load: record.load,
            draining: record.draining,
            instance: record.instance.clone(),
            fingerprints: Vec::new(),
            leaseless: false,
        };
        let infos: BTreeMap<SwitchId, SwitchInfo> = self
            .switches
            .values()
            .map(|record| (SwitchId::new(&record.id), info(record)))
            .collect();
        self.focus.handle_switches(self.clock.at(now), infos);
        let new: Vec<String> = self
            .switches
            .keys()
            .filter(|id| !self.streams.contains_key(*id))
            .cloned()
            .collect();
        new.iter().for_each(|switch| self.listen(now, switch));
    }

    fn listen(&mut self, now: Time, switch: &str) {
        let id = self.next_id();
        let Some(node) = switch_node(switch) else {
            return;
        };
        let stream = Stream { id, heard: now };
        self.streams.insert(switch.to_owned(), stream);
        let member = self.id.clone();
        let listen = Msg::Listen { stream: id, member };
        self.shell.out.push((node, listen));
    }

    /// Tells the focus what there is, once all of it was read and this member's own key and a switch are there.
    fn boot(&mut self, now: Time) {
        let known = self.read.len() == 4 && !self.switches.is_empty();
        if self.booted || !known || !self.shell.is_alive() {
            return;
        }
        self.booted = true;
        self.tell_owners(now);
        self.tell_members(now);
    }

    fn tell_members(&mut self, now: Time) {
        let peer = |(id, m): (&String, &Member)| {
            let (load, draining) = (m.load, m.draining);
            (id.clone(), Peer { load, draining })
        };
        let living = self.members.iter().map(peer).collect();
        self.focus.handle_members(self.clock.at(now), living);
    }

    fn tell_registrars(&mut self, now: Time) {
        let at = self.clock.at(now);
        self.focus.handle_registrars(at, &self.registrars);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let focus = self.focus.poll_timeout().map(|at| self.clock.of(at));
        let applies = self.applies.values().map(|(_, at)| *at);
        let streams = self.streams.values().map(|s| s.heard + SILENT);
        let own = applies.chain(streams).chain([self.next_sweep]).min();
        [focus, own, self.shell.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let at = self.clock.at(now);
        self.shell.handle_timeout(now);
        self.focus.handle_timeout(at);
        let late: Vec<u64> = self
            .applies
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some((op, _)) = self.applies.remove(&id) {
                self.focus
                    .handle_applied(at, op, Err(ApplyFailure::Unavailable));
            }
        }
        let silent: Vec<String> = self
            .streams
            .iter()
            .filter(|(_, s)| s.heard + SILENT <= now)
            .map(|(switch, _)| switch.clone())
            .collect();
        silent.iter().for_each(|switch| self.listen(now, switch));
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP;
            let switches: Vec<Node> = self.streams.keys().filter_map(|s| switch_node(s)).collect();
            for node in switches {
                self.shell.out.push((node, Msg::Inspect));
            }
        }
        self.pump(now);
    }

    /// Does what the focus asks for.
    pub fn pump(&mut self, now: Time) {
        if self.booted {
            let alive = self.shell.is_alive();
            self.focus.handle_standing(self.clock.at(now), alive);
        }
        loop {
            while let Some(command) = self.focus.poll_command() {
                self.perform(now, command);
            }
            let done = self.shell.tasks.poll();
            if done.is_empty() {
                break;
            }
            for done in done {
                self.on_done(now, done);
            }
        }
        self.shell.flush();
    }

    fn on_done(&mut self, now: Time, done: Done) {
        let at = self.clock.at(now);
        match done {
            Done::Lease(held) => {
                self.shell.renewed(now, held);
                self.boot(now);
            }
            Done::Claimed(op, result) => self.focus.handle_claimed(at, op, result),
            Done::Stored(op, result) => self.focus.handle_store(at, op, result),
        }
    }

    fn perform(&mut self, now: Time, command: Command) {
        match command {
            Command::Transmit(transmit) => {
                let to = transmit.hop.remote;
                let Some(node) = Node::at(to.ip()) else {
                    return;
                };
                let msg = Msg::Sip {
                    from: self.node.address(),
                    to,
                    bytes: transmit.bytes,
                };
                self.shell.out.push((node, msg));
            }
            Command::Claim {
                op,
                meeting,
                record,
                from,
            } => {
                let (store, member) = (self.shell.store.clone(), self.id.clone());
                self.shell.tasks.spawn(async move {
                    let meeting = meeting.as_str();
                    let claimed = takeover::claim(&store, meeting, &member, record, from).await;
                    Done::Claimed(op, claimed)
                });
            }
            Command::TookOver { .. } => {}
            Command::Store { op, txn } => {
                let store = self.shell.store.clone();
                self.shell
                    .tasks
                    .spawn(async move { Done::Stored(op, takeover::write(&store, txn).await) });
            }
            Command::Apply {
                op,
                switch,
                request,
            } => {
                let id = self.next_id();
                let node = switch_node(switch.as_str()).expect("switches have names of ours");
                self.applies.insert(id, (op, now + PATIENCE));
                self.shell
                    .out
                    .push((node, Msg::Apply(id, Box::new(request))));
            }
            Command::Resolve { op, .. } => self.focus.handle_resolved(self.clock.at(now), op, &[]),
            other => panic!("the simulation does not know the command {other:?}"),
        }
    }
}

fn switch_node(id: &str) -> Option<Node> {
    id.strip_prefix('s')?.parse().ok().map(Node::Switch)
}
