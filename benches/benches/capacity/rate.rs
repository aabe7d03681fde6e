//! The highest rate without loss, and what is added below it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::crowd::{Crowd, Round, percentile};
use crate::{Case, meeting};

/// How long a rate is tried.
const TRY: Duration = Duration::from_millis(1500);

/// Meetings and listeners of each: voices of many, since packets of one that pile up are forwarded together, which makes
/// them cheaper than any real load would be.
const MEETINGS: usize = 20;
const LISTENERS: u32 = 50;

/// What may have queued up when the last burst is sent; with more, the rate is not one that can be kept up.
const BEHIND: Duration = Duration::from_millis(100);

/// Where a rate stops being carried: how, or `None` where nothing was lost.
fn limit(asked: f64, round: &Round) -> Option<String> {
    let (listeners, switch) = round.dropped;
    let lost = round.due.saturating_sub(round.arrived);
    if lost > 0 {
        return Some(format!(
            "{lost} of {} lost: {listeners} had no room at the listeners' socket, {switch} (of the speaker's) at the switch's",
            round.due
        ));
    }
    if u128::from(round.behind) > BEHIND.as_nanos() {
        let waited = round.ran.waited / 1_000_000;
        return Some(format!(
            "{} ms were queued at the end ({waited} ms of waiting for a core)",
            round.behind / 1_000_000
        ));
    }
    (round.rate < 0.98 * asked).then(|| format!("the speaker sent for {:.0} only", round.rate))
}

/// A rate is tried twice before it is given up: once, others may have had the machine.
fn carried(crowd: &mut Crowd, rate: f64) -> Result<(), String> {
    let mut why = String::new();
    for _ in 0..2 {
        match limit(rate, &crowd.speak(rate, TRY)) {
            None => return Ok(()),
            Some(reason) => why = reason,
        }
    }
    Err(why)
}

/// The highest rate that is carried, within 5 %, and what happens above.
fn highest(crowd: &mut Crowd) -> (f64, String) {
    let (mut low, mut high) = (0.0, 20_000.0);
    let mut why = loop {
        match carried(crowd, high) {
            Ok(()) => (low, high) = (high, high * 1.5),
            Err(why) => break why,
        }
    };
    while high - low > 0.05 * high && high > 1000.0 {
        let middle = (low + high) / 2.0;
        match carried(crowd, middle) {
            Ok(()) => low = middle,
            Err(reason) => (high, why) = (middle, reason),
        }
    }
    (low, format!("at {high:.0} {why}"))
}

/// One worker.
pub fn measure(runtime: &Runtime, case: Case) -> Value {
    let case = Case {
        listeners: LISTENERS,
        ..case
    };
    let switch = runtime.block_on(meeting::start_switch(1));
    let leg = |number, address| meeting::leg(case, number, address);
    let mut crowd = Crowd::join(runtime, switch.control_address(), case, MEETINGS, leg);
    crowd.speak(10_000.0, TRY); // warm up
    let (highest, why) = highest(&mut crowd);
    println!("rate {case}: {highest:.0} packets a second without loss; {why}");
    let most = crowd.speak(0.8 * highest, Duration::from_secs(10));
    let lost = most.due.saturating_sub(most.arrived);
    println!(
        "loss at 80 % {case}: {lost} of {} ({} at the listeners' socket, {} at the switch's)",
        most.due, most.dropped.0, most.dropped.1
    );
    let half = crowd.speak(0.5 * highest, Duration::from_secs(5));
    let (p50, p99) = (percentile(&half.delays, 50), percentile(&half.delays, 99));
    let jitter = percentile(&half.jitters, 99);
    // of the time it was ready to run
    let waited = half.ran.waited as f64 / (half.ran.ns + half.ran.waited) as f64 * 100.0;
    println!(
        "at 50 % {case}: delay p50 {p50:.0} us, p99 {p99:.0} us, jitter p99 {jitter:.0} us; the worker waited for a core {waited:.1} % of the time"
    );
    drop(crowd);
    runtime.block_on(switch.shutdown());
    json!({
        "case": case.to_string(), "highest": highest, "why": why, "lost_at_80": lost, "due_at_80": most.due,
        "p50_us": p50, "p99_us": p99, "jitter_p99_us": jitter,
        "waited": waited,
    })
}
