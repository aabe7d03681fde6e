//! CPU time per forwarded packet of the switch and of peers that Debian ships, side by side: Janus (VideoRoom with RTP
//! forwarders) and rtpengine (in userspace).
//!
//! One who speaks, many who listen, on this machine's own addresses. All are sent the same packets at the same pace and
//! measured in turn, several times; the least of each counts. What a server costs while nobody speaks is measured first
//! and taken off. A round in which less than 99 % of the packets arrived counts for nobody.
//!
//! What is compared, and what to mind:
//! - **switch**: its worker's thread, through which every packet goes. Speaker and listeners have the protection that
//!   the case names.
//! - **janus**: the whole process. Its publisher is a WebRTC peer, so that what comes in is SRTP even where what goes
//!   out is plain: one packet opened for every packet fanned out. Each forwarder has a key of its own, as listeners
//!   have; with one key for all Janus would seal once. It forwards with counter mode only.
//! - **rtpengine-subscribe**: the whole process; one `publish`, a `subscribe` for every listener. The publisher is
//!   plain, the listeners have the case's protection.
//! - **rtpengine-calls**: the same process relaying as many calls, which is what it is mostly used for. Each forwarded
//!   packet is also a packet received.
//!
//! As the loopback device works, a server is charged for the kernel's receiving half of every packet too, all alike.
//!
//! `cargo bench --bench peers` ends with a table and one line for each peer and case, `switch/peer <peer> <case>
//! <ratio>`; an argument keeps the cases whose name contains it. A case is named as in the bench `forward`. The exit
//! status is 1 if there is a peer without a number.

mod bencode;
mod fanout;
mod janus;
#[path = "../forward/meeting.rs"]
#[allow(dead_code)] // the floor uses the rest
mod meeting;
#[path = "../../../switch/core/tests/peer/mod.rs"]
mod peer;
mod process;
mod publisher;
mod report;
mod rtpengine;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use control::SrtpSuite;
use switch_core::srtp::Profile;

use fanout::Fanout;
use meeting::Meeting;
use process::Clock;
use report::{Figures, Row};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Forwarded packets a second: what the slowest peer does with a third of a core.
const RATE: u32 = 20_000;

/// Shortest time between two packets of a speaker: timers here count milliseconds, and what they wake late for is sent
/// back to back, which is not what lone packets are to measure.
const MIN_PAUSE: Duration = Duration::from_millis(2);

/// How long a round takes.
const ROUND: Duration = Duration::from_millis(800);

/// Rounds; the least counts, since others use the machine too.
const ROUNDS: usize = 5;

/// What is measured. The meeting of the bench `forward` takes it.
#[derive(Clone, Copy)]
struct Case {
    suite: Option<(SrtpSuite, Profile)>,
    /// RTP payload octets.
    payload: usize,
    listeners: u32,
    /// Packets sent back to back; always one here, since the peers know no bursts.
    burst: u32,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cipher = match self.profile() {
            None => "plain",
            Some(Profile::AeadAes128Gcm) => "gcm",
            Some(_) => "cm",
        };
        let Self {
            payload,
            listeners,
            burst,
            ..
        } = self;
        write!(f, "{cipher}-{payload}x{burst}-n{listeners}")
    }
}

impl Case {
    /// Between two packets of the speaker.
    fn pause(self) -> Duration {
        (Duration::from_secs(1) * (self.listeners * self.burst) / RATE).max(MIN_PAUSE)
    }

    fn profile(self) -> Option<Profile> {
        self.suite.map(|(_, profile)| profile)
    }
}

/// A server with a speaker and listeners.
enum Server {
    Switch(Box<Meeting>),
    Peer(Box<Fanout>),
}

impl Server {
    /// Packets the listeners should get, and packets they got.
    async fn speak(&mut self, case: Case, length: Duration) -> (u64, u64) {
        match self {
            Self::Switch(meeting) => meeting.speak(length).await,
            Self::Peer(fanout) => fanout.speak(case, length).await,
        }
    }

    fn clock(&self) -> Clock {
        match self {
            Self::Switch(_) => Clock::Thread("switch-worker-0"),
            Self::Peer(fanout) => Clock::Process(fanout.pid()),
        }
    }

    /// Why its numbers would be worth nothing.
    fn fault(&mut self) -> Option<String> {
        match self {
            Self::Switch(_) => None,
            Self::Peer(fanout) => fanout.fault(),
        }
    }
}

/// Nanoseconds of CPU time that went by while `something` was done, and how long that took.
async fn spent<T>(clock: Clock, something: impl Future<Output = T>) -> (T, u64, Duration) {
    let (before, start) = (clock.read(), Instant::now());
    let done = something.await;
    (done, clock.read().since(&before), start.elapsed())
}

/// Starts a server, lets all join and speaks a little.
async fn start(name: &str, case: Case) -> Result<Server> {
    let mut server = match name {
        "switch" => Server::Switch(Box::new(Meeting::begin(case).await)),
        "janus" => Server::Peer(Box::new(janus::start(case).await?)),
        "rtpengine-subscribe" => Server::Peer(Box::new(rtpengine::subscribe(case).await?)),
        _ => Server::Peer(Box::new(rtpengine::calls(case).await?)),
    };
    server.speak(case, ROUND / 2).await;
    match server.fault() {
        Some(fault) => Err(fault.into()),
        None => Ok(server),
    }
}

/// The servers of a case.
fn servers(case: Case) -> Vec<&'static str> {
    let mut names = vec!["switch", "rtpengine-subscribe", "rtpengine-calls"];
    if case.profile() != Some(Profile::AeadAes128Gcm) {
        names.insert(1, "janus");
    }
    names
}

/// Measures all servers with one case.
async fn compare(case: Case) -> Vec<Row> {
    let mut running = Vec::new();
    let mut rows = Vec::new();
    for server in servers(case) {
        match start(server, case).await {
            Ok(started) => running.push((server, started, Figures::default())),
            Err(reason) => {
                eprintln!("{case}: {server} cannot be measured: {reason}");
                rows.push(Row {
                    case,
                    server,
                    outcome: Err(reason.to_string()),
                });
            }
        }
    }
    for (_, server, figures) in &mut running {
        let ((), ran, took) = spent(server.clock(), tokio::time::sleep(ROUND)).await;
        figures.idle = ran as f64 / took.as_secs_f64();
    }
    for _ in 0..ROUNDS {
        for (_, server, figures) in &mut running {
            let clock = server.clock();
            let ((due, arrived), ran, took) = spent(clock, server.speak(case, ROUND)).await;
            figures.add(due, arrived, ran as f64 - figures.idle * took.as_secs_f64());
        }
    }
    for (name, mut server, figures) in running {
        let outcome = match server.fault() {
            Some(fault) => Err(fault),
            None => figures.verdict(),
        };
        let row = Row {
            case,
            server: name,
            outcome,
        };
        eprintln!("{row}");
        rows.push(row);
        if let Server::Switch(meeting) = server {
            meeting.end().await;
        }
    }
    rows
}

fn main() -> ExitCode {
    // `cargo bench` passes --bench, `cargo test` does not: then nothing is measured.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    report::environment();
    let suites = [
        None,
        Some((SrtpSuite::AesCm128HmacSha180, Profile::Aes128CmSha1_80)),
        Some((SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm)),
    ];
    let mut rows = Vec::new();
    for payload in [160, 1200] {
        for listeners in [10, 100, 500] {
            for suite in suites {
                let case = Case {
                    suite,
                    payload,
                    listeners,
                    burst: 1,
                };
                if wanted.is_some_and(|wanted| !case.to_string().contains(wanted.as_str())) {
                    continue;
                }
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .expect("a runtime");
                rows.extend(runtime.block_on(compare(case)));
            }
        }
    }
    if rows.is_empty() {
        println!("no case has that in its name");
        return ExitCode::FAILURE;
    }
    report::table(&rows);
    report::ratios(&rows);
    if report::failures(&rows) == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
