//! Where the processes of the cluster live: a network namespace each, or addresses of loopback.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Our own place in the network, where the load comes from.
pub const OURSELVES: u8 = 1;

/// A network of this run alone; taken down when dropped.
#[derive(Debug)]
pub struct Net {
    /// The first three octets of all addresses.
    base: [u8; 3],
    /// What our namespaces' names begin with; `None` on loopback.
    tag: Option<String>,
    made: Vec<u8>,
}

impl Net {
    /// On loopback: nothing to be made, and nothing that could be cut.
    #[must_use]
    pub fn loopback() -> Self {
        let id = std::process::id();
        Self {
            // 127.0.0.x is everybody's
            base: [127, 1 + (id >> 8) as u8 % 254, id as u8],
            tag: None,
            made: Vec::new(),
        }
    }

    /// A namespace for each of `hosts`, all on one bridge.
    ///
    /// # Errors
    /// What `ip` says, as where we are not root.
    pub fn namespaces(hosts: &[u8]) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("only root may make network namespaces".to_owned());
        }
        let id = std::process::id();
        let tag = format!("rc{id}-");
        // made bit by bit, so that what there is goes again where the next step fails
        let mut net = Self {
            base: [10, 200 + (id >> 8) as u8 % 50, id as u8],
            tag: Some(tag.clone()),
            made: Vec::new(),
        };
        let bridge = format!("{tag}0");
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        net.made.push(0);
        let own = format!("{}/24", net.address(OURSELVES));
        ip(&["addr", "add", &own, "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for host in hosts {
            let name = format!("{tag}{host}");
            ip(&["netns", "add", &name])?;
            net.made.push(*host);
            ip(&[
                "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            ip(&["link", "set", &name, "master", &bridge, "up"])?;
            let address = format!("{}/24", net.address(*host));
            let inside = |words: &[&str]| ip(&[&["-n", name.as_str()], words].concat());
            inside(&["addr", "add", &address, "dev", "eth0"])?;
            inside(&["link", "set", "lo", "up"])?;
            inside(&["link", "set", "eth0", "up"])?;
            // rules of ours must be asked before the one for local addresses
            inside(&["rule", "add", "pref", "100", "lookup", "local"])?;
            inside(&["rule", "del", "pref", "0"])?;
        }
        Ok(net)
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.base;
        Ipv4Addr::new(a, b, c, host)
    }

    /// All of them.
    #[must_use]
    pub fn network(&self) -> String {
        let [a, b, c] = self.base;
        format!("{a}.{b}.{c}.0/24")
    }

    /// A program at that host.
    #[must_use]
    pub fn command(&self, host: u8, program: &Path) -> Command {
        let Some(tag) = &self.tag else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{tag}{host}")]);
        command.arg(program);
        command
    }

    /// From now on nothing that `from` sends arrives at `to`, and nobody is told.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cut(&self, from: u8, to: u8) -> Result<(), String> {
        self.rule("add", from, to)
    }

    /// Takes [`Self::cut`] back.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn heal(&self, from: u8, to: u8) -> Result<(), String> {
        self.rule("del", from, to)
    }

    fn rule(&self, what: &str, from: u8, to: u8) -> Result<(), String> {
        let Some(tag) = &self.tag else {
            return Err("loopback cannot be cut".to_owned());
        };
        let (at, from) = (format!("{tag}{to}"), self.address(from).to_string());
        ip(&[
            "-n",
            &at,
            "rule",
            what,
            "pref",
            "50",
            "from",
            &from,
            "blackhole",
        ])?;
        // what is already routed is asked about again
        ip(&["-n", &at, "route", "flush", "cache"])
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let Some(tag) = &self.tag else {
            return;
        };
        for host in self.made.iter().rev() {
            let name = format!("{tag}{host}");
            // a namespace's own end of the pair would go some time after it
            let link = ip(&["link", "del", &name]);
            let gone = match host {
                0 => link,
                _ => ip(&["netns", "del", &name]).and(link),
            };
            if let Err(e) = gone {
                eprintln!("rostrum: {e}");
            }
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let told = |e: &str| format!("ip {}: {}", words.join(" "), e.trim());
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|e| told(&format!("{e} (install iproute2)")))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(told(&String::from_utf8_lossy(&output.stderr))),
    }
}
