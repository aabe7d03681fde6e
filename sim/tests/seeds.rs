//! Worlds of many seeds: none breaks a rule.

use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of every run.
const SEEDS: u64 = 200;

/// Seeds that once broke a rule, and what that was: a bug of the cores, or of this model of the shells.
const NAMED: &[(u64, &str)] = &[];

fn assert_well(outcome: &sim::Outcome, why: &str) {
    if outcome.broken.is_empty() {
        return;
    }
    let replay = sim::run(outcome.seed, true);
    panic!(
        "seed {} {why}:\n{}\n{}\nreplay: make simulate ARGS=\"--seed {}\"",
        outcome.seed,
        replay.ladder.join("\n"),
        outcome.broken.join("\n"),
        outcome.seed
    );
}

#[test]
fn two_hundred_worlds_break_no_rule() {
    let next = AtomicU64::new(0);
    let (joins, media) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let run = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS {
                    return;
                }
                let outcome = sim::run(seed, false);
                assert_well(&outcome, "breaks a rule");
                joins.fetch_add(u64::from(outcome.joins), Ordering::Relaxed);
                media.fetch_add(outcome.media, Ordering::Relaxed);
            }
        };
        let threads = [scope.spawn(run), scope.spawn(run)];
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    // The worlds are not empty: people got in, and were heard.
    assert!(joins.into_inner() > SEEDS * 4);
    assert!(media.into_inner() > SEEDS * 500);
}

#[test]
fn a_seed_replays_identically() {
    for seed in [1, 2, 3] {
        let (first, second) = (sim::run(seed, false), sim::run(seed, true));
        assert_eq!(first.trace, second.trace, "with and without a ladder");
        assert_eq!(first.delivered, second.delivered);
        assert!(second.ladder.iter().any(|line| line.contains("INVITE")));
        assert!(second.ladder.iter().any(|line| line.contains("apply #")));
        assert_ne!(first.trace, sim::run(seed + 100, false).trace);
    }
}

#[test]
fn seeds_that_once_broke_a_rule_break_none() {
    for (seed, why) in NAMED {
        assert_well(&sim::run(*seed, false), why);
    }
}
