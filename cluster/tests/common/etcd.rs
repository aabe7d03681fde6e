//! An etcd of our own, of one member or several, on free ports.
#![allow(dead_code)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::etcd::EtcdStore;
use cluster::{EtcdConfig, Store};

const BINARY: &str = "/usr/bin/etcd";

/// What the cluster asks of etcd.
const FLAGS: [&str; 7] = [
    "--heartbeat-interval=50",
    "--election-timeout=500",
    "--grpc-keepalive-min-time=200ms",
    "--quota-backend-bytes=8589934592",
    "--auto-compaction-retention=1h",
    "--logger=zap",
    "--log-level=error",
];

/// Members that end with the test.
pub struct Etcd {
    members: Vec<Member>,
    /// Client URL of the first member.
    pub url: String,
    directory: tempfile::TempDir,
}

struct Member {
    child: Option<Child>,
    url: String,
    arguments: Vec<String>,
}

impl Member {
    fn start(&mut self) {
        let child = Command::new(BINARY)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }
}

impl Etcd {
    /// `None`, said aloud, where there is no etcd; in CI that is a failure.
    pub fn start() -> Option<Self> {
        Self::start_with("http", &[])
    }

    /// With `https` and the arguments that name its certificate, say.
    pub fn start_with(scheme: &str, arguments: &[&str]) -> Option<Self> {
        Self::members(1, scheme, &FLAGS, arguments)
    }

    /// A cluster of three.
    pub fn start_three() -> Option<Self> {
        Self::members(3, "http", &FLAGS, &[])
    }

    /// `count` members with exactly these flags and arguments.
    pub fn members(count: usize, scheme: &str, flags: &[&str], more: &[&str]) -> Option<Self> {
        if !std::path::Path::new(BINARY).exists() {
            assert!(std::env::var_os("CI").is_none(), "CI must have {BINARY}");
            eprintln!("skipped: {BINARY} is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * count);
        let urls: Vec<String> = ports[..count]
            .iter()
            .map(|port| format!("{scheme}://127.0.0.1:{port}"))
            .collect();
        let peers: Vec<String> = ports[count..]
            .iter()
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect();
        let all: Vec<_> = (0..count).map(|n| format!("m{n}={}", peers[n])).collect();
        let members = (0..count).map(|n| {
            let data = directory.path().join(format!("m{n}"));
            let fixed = [
                format!("--name=m{n}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={}", urls[n]),
                format!("--advertise-client-urls={}", urls[n]),
                format!("--listen-peer-urls={}", peers[n]),
                format!("--initial-advertise-peer-urls={}", peers[n]),
                format!("--initial-cluster={}", all.join(",")),
            ];
            let given = flags.iter().chain(more).map(ToString::to_string);
            let mut member = Member {
                child: None,
                url: urls[n].clone(),
                arguments: fixed.into_iter().chain(given).collect(),
            };
            member.start();
            member
        });
        Some(Self {
            members: members.collect(),
            url: urls[0].clone(),
            directory,
        })
    }

    pub fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: self.members.iter().map(|m| m.url.clone()).collect(),
            ..EtcdConfig::default()
        }
    }

    /// Only this member is known.
    pub fn config_of(&self, member: usize) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![self.members[member].url.clone()],
            ..EtcdConfig::default()
        }
    }

    /// This member is asked first, the others after it.
    pub fn config_from(&self, member: usize) -> EtcdConfig {
        let mut config = self.config();
        config.endpoints.rotate_left(member);
        config
    }

    pub async fn store(&self) -> Arc<dyn Store> {
        self.store_with(&self.config()).await
    }

    /// Waits until it answers.
    pub async fn store_with(&self, config: &EtcdConfig) -> Arc<dyn Store> {
        let store = EtcdStore::new(config).unwrap();
        let start = Instant::now();
        while let Err(e) = store.status().await {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "etcd did not start: {e}"
            );
        }
        Arc::new(store)
    }

    pub fn signal(&self, signal: &str) {
        self.signal_to(0, signal);
    }

    pub fn signal_to(&self, member: usize, signal: &str) {
        let child = self.members[member].child.as_ref().expect("runs");
        let pid = child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// `kill -9`.
    pub fn kill(&mut self, member: usize) {
        let mut child = self.members[member].child.take().expect("runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a killed member again, with the data it had.
    pub fn restart(&mut self, member: usize) {
        self.members[member].start();
    }

    /// Where a member keeps its data.
    pub fn data(&self, member: usize) -> std::path::PathBuf {
        self.directory.path().join(format!("m{member}"))
    }

    /// Which member leads; waits until one does.
    pub async fn leader(&self) -> usize {
        let start = Instant::now();
        loop {
            for (n, member) in self.members.iter().enumerate() {
                if member.child.is_some() && leads(&member.url).await {
                    return n;
                }
            }
            assert!(start.elapsed() < Duration::from_secs(30), "no leader");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn leads(url: &str) -> bool {
    let asked = async {
        let mut client = etcd_client::Client::connect([url], None).await.ok()?;
        let status = client.status().await.ok()?;
        let own = status.header()?.member_id();
        Some(status.leader() != 0 && status.leader() == own)
    };
    let answer = tokio::time::timeout(Duration::from_millis(500), asked).await;
    answer.ok().flatten() == Some(true)
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|m| m.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All at once, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    held.iter()
        .map(|held| held.local_addr().unwrap().port())
        .collect()
}
