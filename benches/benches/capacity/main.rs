//! How much a switch carries and what it adds: CPU time a forwarded packet, delay and jitter by receivers and by
//! meetings, the highest rate without loss, memory a leg, what a second worker brings.
//!
//! Real loopback sockets. All clients share one socket on every address of 127.0.0.0/8 (see `crowd`), so that
//! thousands of listeners cost little beside the switch that is measured on the same cores.
//!
//! `cargo bench --bench capacity` measures all, or the parts named by arguments (receivers, meetings, thousands, rate,
//! memory, workers), prints a line a result, and keeps results in target/benchmarks/capacity.json.
//! `cargo bench --bench capacity -- --write docs/benchmarks.md` measures nothing: it puts the last results into that
//! document's tables and draws its plots.

mod crowd;
mod document;
#[path = "../forward/meeting.rs"]
#[allow(dead_code)] // the bench of the floor uses the rest
mod meeting;
mod memory;
#[path = "../../../switch/core/tests/peer/mod.rs"]
mod peer;
mod plot;
mod rate;
mod results;
mod spread;

use std::fmt;
use std::time::Duration;

use control::SrtpSuite;
use serde_json::json;
use switch_core::srtp::Profile;
use tokio::runtime::Runtime;

use results::Results;

/// Forwarded packets a second where the rate is not what is measured: below half of what a core does.
const RATE: u32 = 40_000;

/// How long a round takes.
const ROUND: Duration = Duration::from_millis(800);

/// Rounds; the least counts, since others use the machine too.
const ROUNDS: usize = 5;

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    suite: Option<(SrtpSuite, Profile)>,
    /// RTP payload octets.
    payload: usize,
    /// Of each meeting.
    listeners: u32,
    /// Packets sent back to back, like those of a video frame.
    burst: u32,
}

/// Phones' voice, a packet at a time.
const AUDIO: Case = Case {
    suite: Some((SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm)),
    payload: 160,
    listeners: 10,
    burst: 1,
};

/// Pictures of four full packets.
const VIDEO: Case = Case {
    payload: 1200,
    burst: 4,
    ..AUDIO
};

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cipher = if self.suite.is_some() { "gcm" } else { "plain" };
        write!(f, "{cipher}-{}x{}", self.payload, self.burst)
    }
}

impl Case {
    /// Between two bursts of one speaker.
    fn pause(self) -> Duration {
        Duration::from_secs(1) * (self.listeners * self.burst) / RATE
    }
}

/// What the workers of this process did.
#[derive(Clone, Copy, Default)]
struct Ran {
    /// Nanoseconds on a core.
    ns: u64,
    /// Nanoseconds ready to run while others had the cores.
    waited: u64,
}

impl std::ops::Sub for Ran {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            ns: self.ns - earlier.ns,
            waited: self.waited - earlier.waited,
        }
    }
}

/// All workers together, so far.
fn workers() -> Ran {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    tasks
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.starts_with("switch-worker-"))
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .fold(Ran::default(), |sum, stat| {
            let mut fields = stat.split(' ').map(|field| field.parse().unwrap_or(0));
            Ran {
                ns: sum.ns + fields.next().unwrap_or(0),
                waited: sum.waited + fields.next().unwrap_or(0),
            }
        })
}

/// What the parts are called, in the order they run in.
const PARTS: [&str; 6] = [
    "receivers",
    "meetings",
    "thousands",
    "workers",
    "memory",
    "rate",
];

fn main() {
    // `cargo bench` passes --bench, `cargo test` does not: then nothing is measured.
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == memory::CHILD)
    {
        return memory::serve();
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    arguments.retain(|argument| argument != "--bench");
    if let [write, document] = &arguments[..]
        && write == "--write"
    {
        return document::write(document);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut results = Results::read();
    for part in PARTS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == part) {
            let value = measure(part, &runtime);
            results.set(part, value);
        }
    }
}

fn measure(part: &str, runtime: &Runtime) -> serde_json::Value {
    match part {
        "receivers" => json!([
            spread::receivers(runtime, AUDIO),
            spread::receivers(runtime, VIDEO)
        ]),
        "meetings" => spread::meetings(runtime, AUDIO),
        "thousands" => json!([
            spread::thousands(runtime, AUDIO),
            spread::thousands(runtime, VIDEO)
        ]),
        "workers" => spread::workers(runtime, AUDIO),
        "memory" => memory::measure(runtime),
        _ => json!([rate::measure(runtime, AUDIO), rate::measure(runtime, VIDEO)]),
    }
}
