//! Runs many seeds, or one with its ladder.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;

/// Simulate clusters on virtual time, one a seed.
#[derive(Parser)]
struct Arguments {
    /// Replay one seed and print its ladder.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Threads; each runs worlds of its own.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let outcome = sim::run(seed, true);
        outcome.ladder.iter().for_each(|line| println!("{line}"));
        return told(&outcome);
    }
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first.saturating_add(arguments.seeds);
    let failed = Mutex::new(Vec::new());
    let delivered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = sim::run(seed, false);
                    delivered.fetch_add(outcome.delivered, Ordering::Relaxed);
                    if !outcome.broken.is_empty() {
                        told(&outcome);
                        failed.lock().expect("no thread panics").push(seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no thread panics");
    failed.sort_unstable();
    println!(
        "{} seeds, {} messages, {} failed {failed:?}",
        arguments.seeds,
        delivered.load(Ordering::Relaxed),
        failed.len()
    );
    if let Some(seed) = failed.first() {
        println!("replay: make simulate ARGS=\"--seed {seed}\"");
    }
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn told(outcome: &sim::Outcome) -> ExitCode {
    let well = outcome.broken.is_empty();
    println!(
        "seed {}: {} ({} messages, {} joins, {} media packets, trace {:016x})",
        outcome.seed,
        if well { "well" } else { "BROKEN" },
        outcome.delivered,
        outcome.joins,
        outcome.media,
        outcome.trace
    );
    outcome.broken.iter().for_each(|line| println!("  {line}"));
    ExitCode::from(u8::from(!well))
}
