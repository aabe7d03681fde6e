//! What is printed.

use std::collections::BTreeSet;
use std::fmt;
use std::process::Command;

use crate::process::version;
use crate::{Case, MIN_PAUSE, RATE, ROUND, ROUNDS};

/// What was measured of a server.
#[derive(Clone, Copy, Default)]
pub struct Figures {
    /// Nanoseconds a second while nobody speaks.
    pub idle: f64,
    /// Least nanoseconds a packet that arrived, of rounds that count.
    least: Option<f64>,
    /// Rounds that count.
    counted: usize,
    /// Largest share of packets that arrived in a round.
    arrived: f64,
}

impl Figures {
    /// A round, with what it cost more than idling. It counts if all but 1 % arrived, and nothing twice.
    pub fn add(&mut self, due: u64, arrived: u64, ran: f64) {
        let share = arrived as f64 / due.max(1) as f64;
        self.arrived = self.arrived.max(share);
        if (0.99..=1.01).contains(&share) {
            let each = ran / arrived as f64;
            self.counted += 1;
            self.least = Some(self.least.map_or(each, |least| least.min(each)));
        }
    }

    /// Itself, if there is a number in it.
    pub fn verdict(self) -> Result<Self, String> {
        match self.least {
            Some(_) => Ok(self),
            None => Err(format!(
                "at best {:.1} % of the packets arrived",
                self.arrived * 100.0
            )),
        }
    }
}

/// A server's result with a case.
pub struct Row {
    pub case: Case,
    pub server: &'static str,
    pub outcome: Result<Figures, String>,
}

impl Row {
    fn least(&self) -> Option<f64> {
        self.outcome.as_ref().ok()?.least
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, server, .. } = self;
        match &self.outcome {
            Ok(figures) => {
                let least = figures.least.unwrap_or(f64::NAN);
                write!(f, "{case}: {server} {least:.0} ns a forwarded packet")?;
                if figures.counted < ROUNDS {
                    write!(f, ", {} of {ROUNDS} rounds count", figures.counted)?;
                }
                Ok(())
            }
            Err(reason) => write!(f, "{case}: {server}: {reason}"),
        }
    }
}

/// The value of a line `name : value` of a file.
fn field(file: &str, name: &str) -> Option<String> {
    let file = std::fs::read_to_string(file).ok()?;
    let line = file.lines().find(|line| line.starts_with(name))?;
    Some(
        line.split_once([':', '='])?
            .1
            .trim()
            .trim_matches('"')
            .into(),
    )
}

/// What git calls this checkout.
fn revision() -> Option<String> {
    let output = Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
        ])
        .output()
        .ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().into())
}

/// Prints where and with what it is measured.
pub fn environment() {
    let unknown = || "unknown".to_owned();
    let read = |file: &str| std::fs::read_to_string(file).map(|text| text.trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "cpu        {}",
        field("/proc/cpuinfo", "model name").unwrap_or_else(unknown)
    );
    println!("cores      {cores}");
    println!(
        "kernel     {}",
        read("/proc/sys/kernel/osrelease").unwrap_or_else(|_| unknown())
    );
    println!(
        "system     {}",
        field("/etc/os-release", "PRETTY_NAME").unwrap_or_else(unknown)
    );
    println!(
        "load       {}",
        read("/proc/loadavg").unwrap_or_else(|_| unknown())
    );
    println!(
        "rostrum    {} ({})",
        env!("CARGO_PKG_VERSION"),
        revision().unwrap_or_else(unknown)
    );
    println!("janus      {}", version("janus"));
    println!("rtpengine  {}", version("rtpengine"));
    println!(
        "packets    {RATE} forwarded a second, at most one each {} ms from the speaker; \
         least of {ROUNDS} rounds of {} ms",
        MIN_PAUSE.as_millis(),
        ROUND.as_millis()
    );
}

/// The switch's number for a case.
fn switch(rows: &[Row], case: Case) -> Option<f64> {
    let name = case.to_string();
    rows.iter()
        .find(|row| row.server == "switch" && row.case.to_string() == name)?
        .least()
}

/// Prints all side by side: a line for each case, a column for each server.
pub fn table(rows: &[Row]) {
    let servers = ["switch", "janus", "rtpengine-subscribe", "rtpengine-calls"];
    println!(
        "\nCPU nanoseconds a forwarded packet (microseconds a second when idle; !: rounds with losses do not count)\n"
    );
    println!("| case | {} |", servers.join(" | "));
    println!("|---|{}", "---:|".repeat(servers.len()));
    let mut printed = BTreeSet::new();
    for case in rows.iter().map(|row| row.case.to_string()) {
        if !printed.insert(case.clone()) {
            continue;
        }
        let cells = servers.map(|server| {
            let row = rows
                .iter()
                .find(|row| row.server == server && row.case.to_string() == case);
            match row.map(|row| &row.outcome) {
                None => "does not do this".to_owned(),
                Some(Err(_)) => "FAILED".to_owned(),
                Some(Ok(figures)) => format!(
                    "{:.0} ({:.0}){}",
                    figures.least.unwrap_or(f64::NAN),
                    figures.idle / 1000.0,
                    // packets were lost in the others
                    if figures.counted < ROUNDS { " !" } else { "" }
                ),
            }
        });
        println!("| {case} | {} |", cells.join(" | "));
    }
    println!();
}

/// Prints what the switch costs for each nanosecond of a peer.
pub fn ratios(rows: &[Row]) {
    for row in rows.iter().filter(|row| row.server != "switch") {
        if let (Some(switch), Some(peer)) = (switch(rows, row.case), row.least()) {
            println!(
                "switch/peer {} {} {:.2}",
                row.server,
                row.case,
                switch / peer
            );
        }
    }
}

/// Prints who has no number and why; how many.
pub fn failures(rows: &[Row]) -> usize {
    let failed = rows.iter().filter(|row| row.outcome.is_err());
    failed.inspect(|row| println!("FAILED {row}")).count()
}
