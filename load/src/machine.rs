//! What the machine says of server and generator: CPU, memory, and datagrams that nobody fetched in time.
//!
//! All of it is read from /proc; where that is not permitted, or elsewhere than on Linux, nothing is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Ticks a second in /proc/PID/stat (USER_HZ): 100 on every Linux of today.
const TICKS: f64 = 100.0;

/// Time that is sampled at all: over less, a tick more or less makes any number.
const SHORTEST: Duration = Duration::from_millis(400);

/// One second of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since sampling began.
    pub second: f64,
    /// CPU in percent of one core.
    pub cpu: f64,
    /// Of its busiest thread.
    pub busiest_thread: f64,
    /// Resident memory in octets.
    pub memory: u64,
}

/// A process over the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What it was found by: "SIP", "RTP", "SIP and RTP", "--server-pid".
    pub role: String,
    /// Second by second.
    pub samples: Vec<Sample>,
}

impl Process {
    /// Mean CPU in percent of one core.
    #[must_use]
    pub fn mean_cpu(&self) -> Option<f64> {
        let sum: f64 = self.samples.iter().map(|s| s.cpu).sum();
        (!self.samples.is_empty()).then(|| sum / self.samples.len() as f64)
    }

    /// Most memory, octets.
    #[must_use]
    pub fn most_memory(&self) -> u64 {
        self.samples.iter().map(|s| s.memory).max().unwrap_or(0)
    }
}

/// Results.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MachineReport {
    /// CPU cores of this machine.
    pub cores: usize,
    /// Ourselves.
    pub generator: Process,
    /// The server's processes, where they run on this machine.
    pub servers: Vec<Process>,
    /// Datagrams that our own sockets had no room for; `None` where that cannot be read.
    pub socket_drops: Option<u64>,
    /// UDP receive buffer errors of the whole machine during the run (RcvbufErrors).
    pub receive_buffer_errors: Option<u64>,
}

/// Lets this process have so many files open (each leg is a socket or two), as far as its hard limit goes.
///
/// # Errors
/// How many it may have, where that is fewer.
pub fn allow_open_files(wanted: u64) -> Result<(), u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Where the limit cannot be read or set, opening sockets will tell.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    if wanted <= soft {
        return Ok(());
    }
    if wanted > hard {
        return Err(hard);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(|_| soft)
}

/// CPU ticks of a process and of its threads when last looked at.
#[derive(Debug, Default)]
struct Before {
    process: Option<u64>,
    threads: BTreeMap<u32, u64>,
}

#[derive(Debug)]
struct Watched {
    process: Process,
    before: Before,
}

/// Samples processes each time it is asked to.
#[derive(Debug)]
pub struct Watch {
    begin: Instant,
    last: Option<Instant>,
    own: Watched,
    servers: Vec<Watched>,
    errors_before: Option<u64>,
    socket_drops: Option<u64>,
}

impl Watch {
    /// Of ourselves, and of a server where its process is named.
    #[must_use]
    pub fn new(server: Option<u32>) -> Self {
        let own = watched(std::process::id(), "generator");
        let servers = server.map(|pid| watched(pid, "--server-pid"));
        Self {
            begin: Instant::now(),
            last: None,
            own,
            servers: servers.into_iter().collect(),
            errors_before: receive_buffer_errors(),
            socket_drops: None,
        }
    }

    /// Whether a server's process is watched.
    #[must_use]
    pub fn has_server(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Looks for the processes behind these addresses, where they are this machine's.
    pub fn find(&mut self, role: &str, addresses: &BTreeSet<SocketAddr>) {
        for pid in owners(addresses) {
            if pid == self.own.process.pid {
                continue;
            }
            match self.servers.iter_mut().find(|w| w.process.pid == pid) {
                Some(known) if known.process.role != role => {
                    known.process.role = format!("{} and {role}", known.process.role);
                }
                Some(_) => {}
                None => self.servers.push(watched(pid, role)),
            }
        }
    }

    /// Forgets what was measured so far: the run proper begins.
    pub fn begin(&mut self) {
        self.begin = Instant::now();
        self.last = None;
        self.errors_before = receive_buffer_errors();
        for watched in std::iter::once(&mut self.own).chain(&mut self.servers) {
            watched.process.samples.clear();
            watched.before = Before::default();
        }
        self.sample();
    }

    /// One sample of each; to be called about once a second.
    pub fn sample(&mut self) {
        let now = Instant::now();
        let since = self.last.map(|last| now.saturating_duration_since(last));
        if since.is_none_or(|since| since >= SHORTEST) {
            self.last = Some(now);
            let second = now.saturating_duration_since(self.begin).as_secs_f64();
            for watched in std::iter::once(&mut self.own).chain(&mut self.servers) {
                watched.sample(second, since);
            }
        }
        if let Some(drops) = socket_drops() {
            self.socket_drops = Some(self.socket_drops.unwrap_or(0).max(drops));
        }
    }

    /// Results.
    #[must_use]
    pub fn finish(self) -> MachineReport {
        let errors = receive_buffer_errors();
        MachineReport {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            generator: self.own.process,
            servers: self.servers.into_iter().map(|w| w.process).collect(),
            socket_drops: self.socket_drops,
            receive_buffer_errors: errors
                .zip(self.errors_before)
                .map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

impl Watched {
    fn sample(&mut self, second: f64, since: Option<Duration>) {
        let root = format!("/proc/{}", self.process.pid);
        let Some(ticks) = ticks(Path::new(&root)) else {
            return;
        };
        let mut threads = BTreeMap::new();
        for id in numbers(&format!("{root}/task")) {
            if let Some(ticks) = self::ticks(Path::new(&format!("{root}/task/{id}"))) {
                threads.insert(id, ticks);
            }
        }
        let before = std::mem::replace(
            &mut self.before,
            Before {
                process: Some(ticks),
                threads,
            },
        );
        let (Some(since), Some(was)) = (since, before.process) else {
            return;
        };
        let percent = |ticks: u64| 100.0 * ticks as f64 / TICKS / since.as_secs_f64().max(0.001);
        let busiest = self.before.threads.iter().map(|(id, ticks)| {
            let was = before.threads.get(id).copied().unwrap_or(0);
            ticks.saturating_sub(was)
        });
        self.process.samples.push(Sample {
            second,
            cpu: percent(ticks.saturating_sub(was)),
            busiest_thread: percent(busiest.max().unwrap_or(0)),
            memory: memory(&root).unwrap_or(0),
        });
    }
}

fn watched(pid: u32, role: &str) -> Watched {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Watched {
        process: Process {
            pid,
            name: name.trim().to_owned(),
            role: role.to_owned(),
            samples: Vec::new(),
        },
        before: Before::default(),
    }
}

/// User and system time of a process or thread (proc_pid_stat(5), fields 14 and 15).
fn ticks(of: &Path) -> Option<u64> {
    let stat = fs::read_to_string(of.join("stat")).ok()?;
    // the name in parentheses may hold anything
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: u64 = rest.nth(11)?.parse().ok()?;
    let system: u64 = rest.next()?.parse().ok()?;
    Some(user + system)
}

fn memory(root: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("{root}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilo: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilo * 1024)
}

fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Inodes of the sockets a process has open.
fn sockets_of(pid: &str) -> BTreeSet<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter();
    entries
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect()
}

/// A line of /proc/net/{udp,tcp}{,6}.
#[derive(Debug, PartialEq)]
struct SocketLine {
    local: SocketAddr,
    inode: u64,
    /// UDP only.
    drops: Option<u64>,
}

fn socket_lines(table: &str) -> Vec<SocketLine> {
    let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    text.lines().skip(1).filter_map(socket_line).collect()
}

fn socket_line(line: &str) -> Option<SocketLine> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    Some(SocketLine {
        local: address(words.get(1)?)?,
        inode: words.get(9)?.parse().ok()?,
        drops: words.get(12).and_then(|d| d.parse().ok()),
    })
}

/// `0100007F:13C4`: 32-bit words in the machine's byte order, the port in the network's.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |n: usize| u32::from_str_radix(ip.get(n * 8..n * 8 + 8)?, 16).ok();
    let ip: IpAddr = match ip.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        32 => {
            let mut octets = [0; 16];
            for n in 0..4 {
                octets[n * 4..n * 4 + 4].copy_from_slice(&word(n)?.to_ne_bytes());
            }
            IpAddr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Processes with sockets on these addresses, where those are ours.
fn owners(addresses: &BTreeSet<SocketAddr>) -> BTreeSet<u32> {
    let local: Vec<&SocketAddr> = addresses.iter().filter(|a| is_ours(a.ip())).collect();
    if local.is_empty() {
        return BTreeSet::new();
    }
    let lines = ["udp", "udp6", "tcp", "tcp6"].map(socket_lines);
    let fits = |line: &SocketLine| {
        local.iter().any(|wanted| {
            line.local.port() == wanted.port()
                && (line.local.ip() == wanted.ip() || line.local.ip().is_unspecified())
        })
    };
    let inodes: BTreeSet<u64> = lines
        .iter()
        .flatten()
        .filter(|line| line.inode != 0 && fits(line))
        .map(|line| line.inode)
        .collect();
    let all = numbers("/proc");
    all.filter(|pid| !sockets_of(&pid.to_string()).is_disjoint(&inodes))
        .collect()
}

/// Whether an address is one of this machine's: nothing else can be bound to.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// Datagrams dropped by all our UDP sockets that are open.
fn socket_drops() -> Option<u64> {
    let own = sockets_of("self");
    let lines = ["udp", "udp6"].map(socket_lines);
    let ours: Vec<u64> = lines
        .iter()
        .flatten()
        .filter(|line| own.contains(&line.inode))
        .filter_map(|line| line.drops)
        .collect();
    (!ours.is_empty()).then(|| ours.iter().sum())
}

/// RcvbufErrors of all UDP sockets, IPv4 and IPv6.
fn receive_buffer_errors() -> Option<u64> {
    let v4 = fs::read_to_string("/proc/net/snmp").ok()?;
    let mut lines = v4.lines().filter_map(|l| l.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names
        .split_ascii_whitespace()
        .position(|name| name == "RcvbufErrors")?;
    let v4: u64 = values.split_ascii_whitespace().nth(at)?.parse().ok()?;
    let v6 = fs::read_to_string("/proc/net/snmp6").unwrap_or_default();
    let v6 = v6.lines().find_map(|l| l.strip_prefix("Udp6RcvbufErrors"));
    Some(v4 + v6.and_then(|v| v.trim().parse::<u64>().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_net_udp_is_read() {
        let line = "  118: 0100007F:13C4 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 31337 2 0000000000000000 12";
        let read = socket_line(line).expect("a socket");
        assert_eq!(
            read.local,
            "127.0.0.1:5060".parse::<SocketAddr>().expect("an address")
        );
        assert_eq!((read.inode, read.drops), (31_337, Some(12)));
        let v6 = address("00000000000000000000000001000000:13C4");
        assert_eq!(v6, Some("[::1]:5060".parse().expect("an address")));
    }

    #[test]
    fn who_owns_a_socket_of_this_machine_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = socket.local_addr().expect("bound");
        let found = owners(&BTreeSet::from([address]));
        assert!(found.contains(&std::process::id()), "{found:?}");
        // TEST-NET-3 is nobody's
        let elsewhere = "203.0.113.1:5060".parse().expect("an address");
        assert!(owners(&BTreeSet::from([elsewhere])).is_empty());
    }

    #[test]
    fn cpu_and_memory_of_this_process_are_sampled() {
        let mut watch = Watch::new(None);
        watch.begin();
        let begin = Instant::now();
        let mut x = 1u64;
        // enough for a few ticks
        while begin.elapsed() < Duration::from_millis(450) {
            x = std::hint::black_box(x.wrapping_mul(31));
        }
        watch.sample();
        let report = watch.finish();
        let sample = report.generator.samples.last().expect("a sample");
        assert!(sample.cpu > 1.0 && sample.memory > 1 << 20, "{sample:?}");
    }

    #[test]
    fn datagrams_that_nobody_fetches_are_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let to = receiver.local_addr().expect("bound");
        let before = socket_drops();
        for _ in 0..4_000 {
            let _ = sender.send_to(&[0; 1_400], to);
        }
        assert!(socket_drops() > before, "{before:?}");
    }
}
