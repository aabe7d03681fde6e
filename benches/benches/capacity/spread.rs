//! The same number of packets over more receivers, more meetings, more workers.

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::crowd::{Crowd, Round, percentile};
use crate::{Case, RATE, ROUND, ROUNDS, meeting};

/// The least of several rounds.
#[derive(Clone, Copy)]
struct Least {
    /// Of a worker, a packet.
    ns: f64,
    /// Of the round with the least of the second.
    p50: f64,
    p99: f64,
    jitter: f64,
    /// Nanoseconds a second of a worker to whom nobody speaks.
    idle: f64,
    counted: usize,
}

impl Least {
    const NONE: Self = Self {
        ns: f64::INFINITY,
        p50: f64::INFINITY,
        p99: f64::INFINITY,
        jitter: f64::INFINITY,
        idle: f64::INFINITY,
        counted: 0,
    };

    /// A round; with losses it does not count.
    fn add(&mut self, round: &Round) {
        if round.arrived * 100 < round.due * 99 {
            return;
        }
        self.counted += 1;
        self.ns = self.ns.min(round.ran.ns as f64 / round.arrived as f64);
        let p99 = percentile(&round.delays, 99);
        if p99 < self.p99 {
            self.p99 = p99;
            self.p50 = percentile(&round.delays, 50);
        }
        self.jitter = self.jitter.min(percentile(&round.jitters, 99));
    }
}

/// Rounds that count, of at most three times as many.
fn rounds(what: &str, crowd: &mut Crowd) -> Least {
    crowd.speak(f64::from(RATE), ROUND / 2); // warm up
    let mut least = Least::NONE;
    for _ in 0..3 * ROUNDS {
        least.add(&crowd.speak(f64::from(RATE), ROUND));
        if least.counted == ROUNDS {
            break;
        }
    }
    for _ in 0..2 {
        least.idle = least.idle.min(crowd.idle(ROUND));
    }
    assert!(least.counted > 0, "{what}: packets are lost in every round");
    println!(
        "{what}: {:.0} ns a packet, delay p50 {:.0} us, p99 {:.0} us, jitter p99 {:.0} us, idle {:.0} us a second",
        least.ns,
        least.p50,
        least.p99,
        least.jitter,
        least.idle / 1000.0
    );
    least
}

/// Most over least.
fn flatness(ns: &[f64]) -> f64 {
    let most = ns.iter().copied().fold(0.0, f64::max);
    most / ns.iter().copied().fold(f64::INFINITY, f64::min)
}

fn crowd_of(
    runtime: &Runtime,
    case: Case,
    meetings: usize,
    workers: usize,
) -> (switch::Switch, Crowd) {
    let switch = runtime.block_on(meeting::start_switch(workers));
    let control = switch.control_address();
    let leg = |number, address| meeting::leg(case, number, address);
    let crowd = Crowd::join(runtime, control, case, meetings, leg);
    (switch, crowd)
}

/// One meeting of more and more receivers.
pub fn receivers(runtime: &Runtime, case: Case) -> Value {
    let mut rows = Vec::new();
    let mut costs = Vec::new();
    for listeners in [10, 30, 100, 300, 1000] {
        let case = Case { listeners, ..case };
        let (switch, mut crowd) = crowd_of(runtime, case, 1, 1);
        let least = rounds(&format!("receivers {case} {listeners}"), &mut crowd);
        runtime.block_on(switch.shutdown());
        costs.push(least.ns);
        rows.push(json!({
            "receivers": listeners, "ns": least.ns, "p50_us": least.p50, "p99_us": least.p99,
            "jitter_p99_us": least.jitter, "idle_us": least.idle / 1000.0,
        }));
    }
    let flat = flatness(&costs);
    println!("flat receivers {case} {flat:.2}");
    json!({"case": case.to_string(), "rate": RATE, "rows": rows, "flat": flat})
}

/// The same packets over more and more meetings.
pub fn meetings(runtime: &Runtime, case: Case) -> Value {
    let mut rows = Vec::new();
    let mut costs = Vec::new();
    for meetings in [1, 10, 100, 500] {
        let (switch, mut crowd) = crowd_of(runtime, case, meetings, 1);
        let least = rounds(&format!("meetings {case} {meetings}"), &mut crowd);
        runtime.block_on(switch.shutdown());
        costs.push(least.ns);
        rows.push(json!({
            "meetings": meetings, "ns": least.ns, "p50_us": least.p50, "p99_us": least.p99,
            "jitter_p99_us": least.jitter, "idle_us": least.idle / 1000.0,
        }));
    }
    let flat = flatness(&costs);
    println!("flat meetings {flat:.2}");
    json!({"case": case.to_string(), "rate": RATE, "listeners": case.listeners, "rows": rows, "flat": flat})
}

/// One meeting of five thousand, by one thread and by two. Only delay is told: the threads that help end with each burst,
/// and their time with them.
pub fn thousands(runtime: &Runtime, case: Case) -> Value {
    let case = Case {
        listeners: 5_000,
        ..case
    };
    let mut rows = Vec::new();
    for threads in [1, 2] {
        let (switch, mut crowd) = crowd_of(runtime, case, 1, threads);
        let least = rounds(&format!("thousands {case} {threads}"), &mut crowd);
        runtime.block_on(switch.shutdown());
        rows.push(json!({"threads": threads, "p50_us": least.p50, "p99_us": least.p99}));
    }
    json!({"case": case.to_string(), "rows": rows})
}

/// Meetings of one worker's switch, and as many for each worker of one with two.
pub fn workers(runtime: &Runtime, case: Case) -> Value {
    const MEETINGS: usize = 8;
    let case = Case {
        listeners: 25,
        ..case
    };
    let (one, mut alone) = crowd_of(runtime, case, MEETINGS, 1);
    let (two, mut both) = crowd_of(runtime, case, 2 * MEETINGS, 2);
    let mut least = [Least::NONE; 2];
    // In turn, so that what others do to the machine is done to both; the switch that is not spoken to costs nothing.
    for _ in 0..2 * ROUNDS {
        least[0].add(&alone.speak(f64::from(RATE), ROUND));
        least[1].add(&both.speak(f64::from(2 * RATE), ROUND));
    }
    drop((alone, both));
    runtime.block_on(one.shutdown());
    runtime.block_on(two.shutdown());
    let [one, two] = least;
    let scaling = 2.0 * one.ns / two.ns;
    println!(
        "workers {case}: one {:.0} ns a packet at {RATE} a second, two {:.0} ns at {} a second",
        one.ns,
        two.ns,
        2 * RATE
    );
    println!("scaling workers 2 {scaling:.2}");
    json!({"case": case.to_string(), "one_ns": one.ns, "two_ns": two.ns, "rate": RATE, "scaling": scaling})
}
