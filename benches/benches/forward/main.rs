//! CPU time of a switch worker per forwarded packet, beside the floor: the least that anybody could spend on the same
//! packets.
//!
//! One speaker, many listeners, real loopback sockets. The worker's thread is charged for reading, forwarding, sealing
//! and sending, and, as the loopback device works, for the kernel's receiving half of every packet too. The floor is a
//! bare loop that copies, seals (aws-lc-rs) and sends the same packets to the same sockets in the best batched way the
//! kernel has: a burst of one receiver as one segmented send (UDP_SEGMENT), many receivers a system call (sendmmsg).
//! Both run in turn, several times; the least of each counts.
//!
//! `cargo bench --bench forward` ends with one line a case, `switch/floor <case> <ratio>`; an argument keeps the cases
//! whose name contains it. A case is named cipher-octets x packets in a burst-n receivers.

mod floor;
#[allow(dead_code)] // the bench of capacity uses the rest
mod meeting;
#[path = "../../../switch/core/tests/peer/mod.rs"]
mod peer;

use std::fmt;
use std::time::Duration;

use control::SrtpSuite;
use switch_core::srtp::Profile;

/// Forwarded packets a second: far below what a core does, so that nothing waits in buffers.
const RATE: u32 = 40_000;

/// How long a round of either takes.
const ROUND: Duration = Duration::from_millis(800);

/// Rounds; the least counts, since others use the machine too.
const ROUNDS: usize = 5;

/// Rounds at most, of which those with losses do not count: then others kept the listeners from reading.
const ATTEMPTS: usize = 15;

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    suite: Option<(SrtpSuite, Profile)>,
    /// RTP payload octets.
    payload: usize,
    listeners: u32,
    /// Packets sent back to back, like those of a video frame.
    burst: u32,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cipher = match self.suite.map(|(_, profile)| profile) {
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
    /// Between two bursts.
    fn pause(self) -> Duration {
        Duration::from_secs(1) * (self.listeners * self.burst) / RATE
    }
}

/// Nanoseconds a thread of this process has run, by its name.
fn cpu_ns(thread: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    tasks
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.trim() == thread)
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Nanoseconds a packet that arrived, of the floor and of the switch.
async fn measure(case: Case) -> (f64, f64) {
    let mut meeting = meeting::Meeting::begin(case).await;
    meeting.speak(ROUND).await; // warm up
    let mut least = (f64::MAX, f64::MAX);
    let mut counted = 0;
    let mut lossy = String::new();
    for _ in 0..ATTEMPTS {
        if counted == ROUNDS {
            break;
        }
        let remotes = meeting.remotes();
        let (ran, arrived) = meeting
            .count(async {
                tokio::task::spawn_blocking(move || floor::run(case, &remotes, ROUND))
                    .await
                    .expect("the floor")
            })
            .await;
        least.0 = least.0.min(ran as f64 / arrived.max(1) as f64);
        let before = cpu_ns("switch-worker-0");
        let (due, arrived) = meeting.speak(ROUND).await;
        let ran = cpu_ns("switch-worker-0") - before;
        if arrived * 100 < due * 99 {
            lossy = format!("{case}: {arrived} of {due} packets arrived");
            continue;
        }
        counted += 1;
        least.1 = least.1.min(ran as f64 / arrived as f64);
    }
    assert!(counted > 0, "{lossy}, and no other round was better");
    meeting.end().await;
    least
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` --test: then nothing is measured.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let suites = [
        None,
        Some((SrtpSuite::AesCm128HmacSha180, Profile::Aes128CmSha1_80)),
        Some((SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm)),
    ];
    let mut ratios = Vec::new();
    for suite in suites {
        for (payload, burst) in [(160, 1), (1200, 1), (1200, 4), (1200, 8)] {
            for listeners in [10, 100, 500] {
                let case = Case {
                    suite,
                    payload,
                    listeners,
                    burst,
                };
                if wanted.is_some_and(|wanted| !case.to_string().contains(wanted.as_str())) {
                    continue;
                }
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .expect("a runtime");
                let (floor, switch) = runtime.block_on(measure(case));
                println!("{case}: floor {floor:.0} ns, switch {switch:.0} ns a forwarded packet");
                ratios.push((case, switch / floor));
            }
        }
    }
    for (case, ratio) in ratios {
        println!("switch/floor {case} {ratio:.2}");
    }
}
