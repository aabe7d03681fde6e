//! `rostrum chaos`: a whole cluster on this machine, load on it, faults, and a judgement of what came of them.

mod cluster;
mod crowd;
mod faults;
mod http;
mod measure;
mod net;
mod report;
mod scenarios;

use std::path::PathBuf;
use std::time::Duration;

use ::load::leg::Protection;
use clap::Args;

use cluster::Cluster;
use net::Net;
use report::Line;
use scenarios::{ALL, Scenario};

/// Arguments of `rostrum chaos`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when everything promised was kept in every run, else 1.\n\nExamples:\n  \
rostrum chaos --scenario list\n  rostrum chaos --scenario kill-owner,stop-owner --runs 5 --html chaos.html"
)]
pub struct ChaosArgs {
    /// Which faults, by name; list prints them [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<String>,
    /// How often each
    #[arg(long, default_value_t = 1, value_name = "N")]
    runs: usize,
    /// Participants in all
    #[arg(long, default_value_t = 200, value_name = "N")]
    participants: u32,
    /// Meetings they are in
    #[arg(long, default_value_t = 20, value_name = "N")]
    meetings: u32,
    /// How long what is stopped or cut off stays so, seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pause: u64,
    /// On loopback, though root could have network namespaces; connections cannot be cut then
    #[arg(long)]
    loopback: bool,
    /// A scenario that cannot be run here is no failure
    #[arg(long)]
    allow_skips: bool,
    /// Keep logs and files of runs in which something was missed
    #[arg(long)]
    keep: bool,
    /// Print one JSON object a scenario and line
    #[arg(long)]
    json: bool,
    /// Write a page with timelines
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The load.
#[derive(Debug)]
pub struct Shape {
    /// In all meetings.
    pub participants: u32,
    /// How media is protected.
    pub protection: Protection,
    /// How long what is stopped or cut off stays so.
    pub pause: Duration,
}

/// Runs the scenarios.
///
/// # Errors
/// Something promised was not kept, or the arguments make no sense.
pub async fn run(args: ChaosArgs) -> Result<(), String> {
    if args.scenario.iter().any(|name| name == "list") {
        for scenario in ALL {
            println!("{:<32} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    let chosen = chosen(&args)?;
    // what runs is dropped, and with it processes and namespaces end
    tokio::select! {
        result = all(&args, &chosen) => result,
        () = told_to_end() => Err("stopped".to_owned()),
    }
}

async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn chosen(args: &ChaosArgs) -> Result<Vec<Scenario>, String> {
    if args.runs == 0 {
        return Err("--runs 0: nothing would be measured; write 1 or more".to_owned());
    }
    if args.meetings == 0 || args.participants < args.meetings * 3 {
        return Err(format!(
            "--participants {} --meetings {}: two talk in each meeting, and somebody must listen: write at least three \
             participants for each meeting",
            args.participants, args.meetings
        ));
    }
    if args.scenario.is_empty() {
        return Ok(ALL.to_vec());
    }
    let find = |name: &String| {
        let found = ALL.iter().find(|scenario| scenario.name == name);
        let told = || {
            format!("--scenario {name}: there is none of that name; --scenario list prints them")
        };
        found.copied().ok_or_else(told)
    };
    args.scenario.iter().map(find).collect()
}

async fn all(args: &ChaosArgs, chosen: &[Scenario]) -> Result<(), String> {
    let participants = u64::from(args.participants);
    ::load::machine::allow_open_files(participants * 2 + 4_096)
        .map_err(|most| format!("only {most} files may be open; raise it with ulimit -n"))?;
    let shape = Shape {
        participants: args.participants,
        protection: Protection::Plain,
        pause: Duration::from_secs(args.pause),
    };
    let can_cut = !args.loopback && nix::unistd::geteuid().is_root();
    let mut done = Vec::new();
    for scenario in chosen {
        let (line, outcomes) = match faults::impossible(scenario.fault, can_cut) {
            Some(why) => (Line::skipped(scenario, why, args.allow_skips), Vec::new()),
            None => {
                let mut runs = Vec::new();
                for _ in 0..args.runs {
                    runs.push(one(args, scenario, &shape).await);
                }
                let line = Line::of(scenario, &runs);
                (line, runs.into_iter().flatten().collect())
            }
        };
        match args.json {
            true => println!(
                "{}",
                serde_json::to_string(&line).map_err(|e| format!("JSON: {e}"))?
            ),
            false => println!("{}", line.text()),
        }
        done.push((line, outcomes));
    }
    if let Some(path) = &args.html {
        std::fs::write(path, report::page(&done))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let missed = done.iter().filter(|(line, _)| !line.ok).count();
    match missed {
        0 => Ok(()),
        n => Err(format!("{n} of {} scenarios were missed", done.len())),
    }
}

async fn one(
    args: &ChaosArgs,
    scenario: &Scenario,
    shape: &Shape,
) -> Result<measure::Outcome, String> {
    let net = match args.loopback || !nix::unistd::geteuid().is_root() {
        true => Net::loopback(),
        false => Net::namespaces(&cluster::hosts())?,
    };
    let mut cluster = Cluster::start(net, args.meetings as usize).await?;
    let outcome = measure::run(scenario, shape, &mut cluster).await;
    let missed = match &outcome {
        Ok(outcome) => !measure::misses(scenario.fault, outcome).is_empty(),
        Err(_) => true,
    };
    if missed && args.keep {
        eprintln!("{}: kept {}", scenario.name, cluster.keep().display());
    }
    outcome
}
