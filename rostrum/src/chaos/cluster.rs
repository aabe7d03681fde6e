//! The processes: etcd, registrars, meeting managers, switches, each with a file of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::crowd::ACCOUNT;
use super::http;
use super::net::Net;
use crate::cluster_command::init::{self, InitArgs};

/// Domain of all meetings.
pub const DOMAIN: &str = "chaos.test";
const CLIENT: u16 = 2379;
const PEER: u16 = 2380;
const ADMIN: u16 = 9090;
/// SIP of registrars.
pub const SIP: u16 = 5060;
const START: Duration = Duration::from_secs(40);
const END: Duration = Duration::from_secs(20);

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Etcd,
    Registrar,
    Manager,
    Switch,
}

/// One process.
pub struct Node {
    /// As in logs and events.
    pub name: String,
    /// Of which kind.
    pub kind: Kind,
    /// Its host's number.
    pub host: u8,
    child: Option<Child>,
    /// Stopped by SIGSTOP.
    stopped: bool,
}

/// All of them, ended when dropped.
pub struct Cluster {
    /// The processes, by their start.
    pub nodes: Vec<Node>,
    /// Names of the meetings.
    pub meetings: Vec<String>,
    folder: tempfile::TempDir,
    /// Last, so that it goes after the processes.
    pub net: Net,
}

/// The processes there are: name, kind, host.
fn plan() -> Vec<(String, Kind, u8)> {
    let mut all = Vec::new();
    for (letter, kind, first, count) in [
        ('e', Kind::Etcd, 10, 3),
        ('s', Kind::Switch, 20, 2),
        ('m', Kind::Manager, 30, 3),
        ('r', Kind::Registrar, 40, 2),
    ] {
        all.extend((1..=count).map(|n| (format!("{letter}{n}"), kind, first + n)));
    }
    all
}

/// Hosts of the processes.
pub fn hosts() -> Vec<u8> {
    plan().into_iter().map(|(_, _, host)| host).collect()
}

impl Cluster {
    /// Starts all, and waits until they are ready.
    ///
    /// # Errors
    /// For people.
    pub async fn start(net: Net, meetings: usize) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
        let nodes = plan().into_iter().map(|(name, kind, host)| Node {
            name,
            kind,
            host,
            child: None,
            stopped: false,
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            meetings: (1..=meetings).map(|n| format!("meeting-{n}")).collect(),
            folder,
            net,
        };
        cluster.write_files()?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Starts those that do not run, and waits until they are ready.
    ///
    /// # Errors
    /// For people.
    pub async fn start_all(&mut self) -> Result<(), String> {
        for kind in [Kind::Etcd, Kind::Switch, Kind::Manager, Kind::Registrar] {
            let mut begun = Vec::new();
            for n in 0..self.nodes.len() {
                if self.nodes[n].kind == kind && !self.runs(n) {
                    self.spawn(n)?;
                    begun.push(n);
                }
            }
            for n in begun {
                self.await_ready(n).await?;
            }
        }
        Ok(())
    }

    fn address(&self, n: usize, port: u16) -> SocketAddr {
        SocketAddr::from((self.net.address(self.nodes[n].host), port))
    }

    /// Client addresses of etcd.
    pub fn endpoints(&self) -> Vec<String> {
        let all = self.of(Kind::Etcd).into_iter();
        all.map(|n| format!("http://{}", self.address(n, CLIENT)))
            .collect()
    }

    /// The numbers of the processes of a kind.
    pub fn of(&self, kind: Kind) -> Vec<usize> {
        let all = 0..self.nodes.len();
        all.filter(|n| self.nodes[*n].kind == kind).collect()
    }

    /// A registrar's SIP address.
    pub fn sip(&self, n: usize) -> SocketAddr {
        self.address(n, SIP)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_files(&self) -> Result<(), String> {
        let write = |path: PathBuf, text: String| {
            fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
        };
        let users = self.path("users.toml");
        registrar::users::add(&users, "chaos", ACCOUNT.0, ACCOUNT.1, "")
            .map_err(|e| e.to_string())?;
        let certified = |node: &Node| {
            let address = self.net.address(node.host).to_string();
            (node.name.clone(), vec![address])
        };
        let members = self.nodes.iter().map(certified).collect();
        init::make(&InitArgs::new(self.path("tls"), members))?;
        let endpoints = self.endpoints();
        let meetings = |role: &str| -> String {
            let one = |id: &String| {
                format!("[[{role}.meetings]]\nid = \"{id}\"\ntitle = \"{id}\"\nguests = true\n")
            };
            self.meetings.iter().map(one).collect()
        };
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let (name, ip) = (&node.name, self.net.address(node.host));
            let role = match node.kind {
                Kind::Etcd => continue,
                Kind::Registrar => format!(
                    "[registrar]\nnode = \"{name}\"\ndomain = \"{DOMAIN}\"\nrealm = \"chaos\"\nusers = \"{}\"\ndata = \"{}\"\n\
                     udp = [\"{ip}:{SIP}\"]\ntcp = [\"{ip}:{SIP}\"]\ntls = []\nhttp = []\nhttps = []\nadvertise = [\"{ip}\"]\n{}",
                    users.display(),
                    self.path(&format!("{name}-data")).display(),
                    meetings("registrar")
                ),
                Kind::Manager => format!(
                    "[meeting_manager]\nid = \"{name}\"\ndomain = \"{DOMAIN}\"\nudp = [\"{ip}:5070\"]\ntcp = [\"{ip}:5070\"]\n\
                     trusted_networks = [\"127.0.0.0/8\", \"{}\"]\n{}",
                    self.net.network(),
                    meetings("meeting_manager")
                ),
                Kind::Switch => format!(
                    "[switch]\nid = \"{name}\"\ncontrol = \"{ip}:5080\"\nlisten = [\"{ip}\"]\nadvertise = [\"{ip}\"]\n\
                     webrtc_port = 0\nplain_ports = [0, 0]\nworkers = 1\n"
                ),
            };
            let tls = self.path("tls");
            let tls = tls.display();
            let text = format!(
                "[cluster]\nca_file = \"{tls}/ca.pem\"\ncert_file = \"{tls}/{name}.pem\"\nkey_file = \"{tls}/{name}.key\"\n\
                 [log]\nlevel = \"info\"\n[admin]\nlisten = \"{ip}:{ADMIN}\"\ndrain_seconds = 1\n\
                 [store]\nengine = \"etcd\"\nendpoints = {endpoints:?}\n{role}"
            );
            write(self.path(&format!("{name}.toml")), text)?;
        }
        Ok(())
    }

    fn command(&self, n: usize) -> Result<Command, String> {
        let node = &self.nodes[n];
        let role = match node.kind {
            Kind::Etcd => return Ok(self.etcd(n)),
            Kind::Registrar => "registrar",
            Kind::Manager => "meeting-manager",
            Kind::Switch => "switch",
        };
        let own = std::env::current_exe().map_err(|e| format!("our own program: {e}"))?;
        let mut command = self.net.command(node.host, &own);
        let file = self.path(&format!("{}.toml", node.name));
        command.arg(role).arg("--config").arg(file);
        Ok(command)
    }

    fn etcd(&self, n: usize) -> Command {
        let node = &self.nodes[n];
        let url = |n: usize, port| format!("http://{}", self.address(n, port));
        let (client, peer) = (url(n, CLIENT), url(n, PEER));
        let all = self.of(Kind::Etcd).into_iter();
        let all: Vec<String> = all
            .map(|n| format!("{}={}", self.nodes[n].name, url(n, PEER)))
            .collect();
        let mut command = self.net.command(node.host, Path::new("etcd"));
        for (name, value) in [
            ("name", &node.name),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &all.join(",")),
            ("heartbeat-interval", &"50".to_owned()),
            ("election-timeout", &"500".to_owned()),
            ("grpc-keepalive-min-time", &"200ms".to_owned()),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        command
            .arg("--data-dir")
            .arg(self.path(&format!("{}-data", node.name)));
        command
    }

    fn spawn(&mut self, n: usize) -> Result<(), String> {
        let mut command = self.command(n)?;
        let name = &self.nodes[n].name;
        let log = self.path(&format!("{name}.log"));
        let told = |e: std::io::Error| format!("{name}: {e} (scripts/setup test installs etcd)");
        let file = fs::File::options().create(true).append(true).open(&log);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.map_err(told)?)
            .spawn()
            .map_err(told)?;
        self.nodes[n].child = Some(child);
        self.nodes[n].stopped = false;
        Ok(())
    }

    async fn await_ready(&mut self, n: usize) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let ready = match self.nodes[n].kind {
                Kind::Etcd => http::call(self.address(n, CLIENT), "GET", "/health", "").await,
                _ => http::call(self.address(n, ADMIN), "GET", "/readyz", "").await,
            };
            // three etcds are ready together
            if ready.is_ok() {
                return Ok(());
            }
            if !self.runs(n) || begin.elapsed() > START {
                let name = &self.nodes[n].name;
                let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
                let from = log.len().saturating_sub(2_000);
                let tail = log.get(from..).unwrap_or_default();
                return Err(format!("{name} did not become ready:\n{tail}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether the process is there, stopped or not.
    pub fn runs(&mut self, n: usize) -> bool {
        let child = self.nodes[n].child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal; SIGKILL is awaited.
    ///
    /// # Errors
    /// It runs no more.
    pub fn signal(&mut self, n: usize, signal: Signal) -> Result<(), String> {
        let node = &mut self.nodes[n];
        let told = |e: &str| format!("{}: {e}", node.name);
        let child = node.child.as_mut().ok_or_else(|| told("does not run"))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, signal).map_err(|e| told(&e.to_string()))?;
        match signal {
            Signal::SIGKILL => {
                let _ = child.wait();
                node.child = None;
            }
            Signal::SIGSTOP => node.stopped = true,
            Signal::SIGCONT => node.stopped = false,
            _ => {}
        }
        Ok(())
    }

    /// Lets one that was stopped go on.
    ///
    /// # Errors
    /// As of [`Self::signal`].
    pub fn let_all_go_on(&mut self) -> Result<(), String> {
        for n in 0..self.nodes.len() {
            if self.nodes[n].stopped {
                self.signal(n, Signal::SIGCONT)?;
            }
        }
        Ok(())
    }

    /// SIGTERM, its end, and a new start. A second SIGTERM where meetings do not leave it.
    ///
    /// # Errors
    /// For people.
    pub async fn restart(&mut self, n: usize) -> Result<(), String> {
        self.signal(n, Signal::SIGTERM)?;
        let begin = Instant::now();
        let mut asked = 1;
        while self.runs(n) {
            if begin.elapsed() > END * asked {
                asked += 1;
                self.signal(n, Signal::SIGTERM)?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.spawn(n)?;
        self.await_ready(n).await
    }

    /// A role's view.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn view(&self, n: usize, path: &str) -> Result<Value, String> {
        http::json(self.address(n, ADMIN), "GET", path, "").await
    }

    /// A question to an etcd member's JSON gateway.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ask_etcd(&self, n: usize, path: &str, body: &str) -> Result<Value, String> {
        http::json(self.address(n, CLIENT), "POST", path, body).await
    }

    /// The last lines of a process that has not said its last word well, for people.
    pub fn panics(&self) -> Vec<String> {
        let all = self.nodes.iter().filter_map(|node| {
            let log = fs::read_to_string(self.path(&format!("{}.log", node.name))).ok()?;
            let line = log.lines().find(|line| line.contains("panicked"))?;
            Some(format!("{}: {line}", node.name))
        });
        all.collect()
    }

    /// Keeps logs and files for whoever wants to see them.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
