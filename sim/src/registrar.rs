//! A registrar: its core, fed by watches.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use cluster::records::{Member, Owner, keys};
use registrar_core::{Advertised, Command, Core, Secrets, Settings, StoreReply};
use sip::{Hop, Limits, Message, Transport};

use crate::DOMAIN;
use crate::net::{Msg, News, Node, Time};
use crate::shell::{Clock, Done, Shell};

/// A registrar.
pub struct Registrar {
    node: Node,
    clock: Clock,
    /// Wall-clock time at the start of the world.
    unix: Duration,
    core: Core,
    /// Its shell.
    pub shell: Shell,
    members: BTreeSet<String>,
    owners: BTreeSet<String>,
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "registrar {}", self.node)
    }
}

impl Registrar {
    /// A process that has just begun; `generation` differs from its predecessors'.
    #[must_use]
    pub fn new(
        n: u8,
        now: Time,
        clock: Clock,
        seed: [u8; 32],
        generation: u32,
        unix: Duration,
    ) -> Self {
        let node = Node::Registrar(n);
        let settings = Settings {
            node: node.to_string(),
            domains: vec![DOMAIN.into()],
            realm: DOMAIN.into(),
            advertised: vec![Advertised {
                transport: Transport::Udp,
                host: node.address().ip().to_string(),
                port: node.address().port(),
            }],
            trusted: vec!["198.51.100.0/24".parse().expect("a literal network parses")],
            guests: true,
            ..Settings::default()
        };
        let secrets = Secrets {
            nonce: [1; 32],
            flow: [2; 32],
            guest: [3; 32],
        };
        Self {
            node,
            clock,
            unix,
            core: Core::new(clock.at(now), settings, &secrets, seed, generation),
            shell: Shell::new(now, &[keys::members(), keys::owners()]),
            members: BTreeSet::new(),
            owners: BTreeSet::new(),
        }
    }

    /// A message came.
    pub fn handle(&mut self, now: Time, msg: Msg) {
        self.shell.store.at(now);
        match msg {
            Msg::Sip { from, to, bytes } => {
                if let Ok(message) = Message::parse(bytes, &Limits::default()) {
                    let hop = Hop {
                        local: Some(to),
                        ..Hop::to(Transport::Udp, from)
                    };
                    let (at, wall) = (self.clock.at(now), self.unix + now);
                    self.core.handle_message(at, wall, message, hop);
                }
            }
            Msg::Reply(id, reply) => self.shell.store.answer(id, reply),
            Msg::News(id, news) => {
                if let Some(prefix) = self.shell.news(now, id, &news) {
                    self.on_news(now, &prefix, news);
                }
            }
            _ => {}
        }
        self.pump(now);
    }

    fn on_news(&mut self, now: Time, prefix: &str, news: News) {
        let is_members = prefix == keys::members();
        match news {
            News::All(entries, _) => {
                let there: BTreeSet<String> = entries
                    .iter()
                    .map(|e| e.key[prefix.len()..].to_owned())
                    .collect();
                let known = match is_members {
                    true => &mut self.members,
                    false => &mut self.owners,
                };
                let gone: Vec<String> = known.difference(&there).cloned().collect();
                *known = there;
                gone.iter()
                    .for_each(|name| self.gone(now, is_members, name));
                for entry in entries {
                    let name = entry.key[prefix.len()..].to_owned();
                    self.put(now, is_members, &name, &entry.value);
                }
            }
            News::Put(entry) => {
                let name = entry.key[prefix.len()..].to_owned();
                match is_members {
                    true => self.members.insert(name.clone()),
                    false => self.owners.insert(name.clone()),
                };
                self.put(now, is_members, &name, &entry.value);
            }
            News::Gone(key, _) => {
                let name = &key[prefix.len()..];
                match is_members {
                    true => self.members.remove(name),
                    false => self.owners.remove(name),
                };
                self.gone(now, is_members, name);
            }
            News::Progress(_) | News::Lost => {}
        }
    }

    fn put(&mut self, now: Time, is_members: bool, name: &str, value: &[u8]) {
        let (at, wall) = (self.clock.at(now), self.unix + now);
        if is_members {
            let member: Member = serde_json::from_slice(value).expect("a member record");
            self.core.handle_member(at, wall, name, Some(member));
        } else {
            let owner: Owner = serde_json::from_slice(value).expect("an owner record");
            self.core.handle_owner(at, wall, name, Some(owner.member));
        }
    }

    fn gone(&mut self, now: Time, is_members: bool, name: &str) {
        let (at, wall) = (self.clock.at(now), self.unix + now);
        match is_members {
            true => self.core.handle_member(at, wall, name, None),
            false => self.core.handle_owner(at, wall, name, None),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let core = self.core.poll_timeout().map(|at| self.clock.of(at));
        [core, self.shell.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.shell.handle_timeout(now);
        self.core
            .handle_timeout(self.clock.at(now), self.unix + now);
        self.pump(now);
    }

    fn pump(&mut self, now: Time) {
        let (at, wall) = (self.clock.at(now), self.unix + now);
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Transmit { hop, bytes, .. } => {
                    if let Some(node) = Node::at(hop.remote.ip()) {
                        let msg = Msg::Sip {
                            from: self.node.address(),
                            to: hop.remote,
                            bytes,
                        };
                        self.shell.out.push((node, msg));
                    }
                }
                // Nobody registers here.
                Command::Store { id, .. } => {
                    self.core
                        .handle_store(at, wall, id, StoreReply::Unavailable);
                }
                Command::Resolve { id, uri } => {
                    let port = uri.port.unwrap_or(5060);
                    let found = uri
                        .ip()
                        .map(|ip| (Transport::Udp, SocketAddr::new(ip, port)));
                    let hosts = found.into_iter().collect();
                    self.core.handle_resolved(at, wall, id, hosts);
                }
                other => panic!("the simulation does not know the command {other:?}"),
            }
        }
        for done in self.shell.tasks.poll() {
            if let Done::Lease(held) = done {
                self.shell.renewed(now, held);
            }
        }
        self.shell.flush();
    }
}
