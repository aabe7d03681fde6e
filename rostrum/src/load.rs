//! `rostrum load`: participants by the hundred for a conference server, and a judgement of what they are sent.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ::load::leg::Protection;
use ::load::media::Resolution;
use ::load::report::thresholds::Thresholds;
use ::load::report::{Report, html, text};
use ::load::run::{self, Options, Target};
use ::load::ua::{Account, SipOptions, read_accounts};
use clap::{Args, ValueEnum};
use progress::Progress;
use tokio_util::sync::CancellationToken;
use transport::tls::Trust;

mod progress;

/// Exit code for a limit that was missed.
const MISSED: u8 = 1;
/// Exit code for a run that could not be.
const NO_RUN: u8 = 2;

/// Participants of one generator: they are told apart by 16 bits, and have a port each.
const MOST: u32 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Media {
    /// RTP without keys
    Plain,
    /// SRTP with keys in the SDP (RFC 4568)
    Sdes,
    /// DTLS-SRTP with ICE, as browsers do
    Dtls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Picture {
    /// 320×180, 150 kbit/s
    #[value(name = "180p")]
    P180,
    /// 640×360, 600 kbit/s
    #[value(name = "360p")]
    P360,
    /// 1280×720, 1.8 Mbit/s
    #[value(name = "720p")]
    P720,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Signalling {
    Udp,
    Tcp,
    Tls,
}

/// Arguments of `rostrum load`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when all limits were kept, 1 when one was missed, 2 when nothing could be measured.\n\n\
Examples:\n  \
rostrum load --meeting sip:standup@192.0.2.7 --user alice --password cbmeajft6v --participants 200 --video 720p\n  \
rostrum load --meeting sip:3000@192.0.2.9 --sip --transport sdes --max-loss 0 --max-p99 5ms --json load.json\n  \
rostrum load --rtp-to 192.0.2.9:5004 --rtp-listen 192.0.2.7:40000-40099 --html load.html"
)]
pub struct LoadArgs {
    /// Meeting to join, as sip:standup@192.0.2.7
    #[arg(long, value_name = "URI", required_unless_present = "rtp_to")]
    meeting: Option<String>,
    /// How many join
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    participants: u32,
    /// How many of them talk, in turns
    #[arg(long, default_value_t = 3, value_name = "N")]
    speakers: u32,
    /// Those who talk send a picture too, of this size; without, there is no video
    #[arg(long, value_enum, value_name = "SIZE")]
    video: Option<Picture>,
    /// How media is protected
    #[arg(long, value_enum, default_value = "plain")]
    transport: Media,
    /// How long, from the last join on: 500ms, 60s, 10m, 1h
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    duration: Duration,

    /// The server is not Rostrum: do not hold it to naming the source of every packet (CSRC)
    #[arg(long, help_heading = "Server")]
    sip: bool,
    /// Outbound proxy, host or host:port [default: the meeting's host]
    #[arg(long, value_name = "HOST", help_heading = "Server")]
    proxy: Option<String>,
    /// Transport of SIP [default: as the meeting's URI says, else udp]
    #[arg(long, value_enum, value_name = "TRANSPORT", help_heading = "Server")]
    sip_transport: Option<Signalling>,
    /// Certificates that TLS believes, PEM [default: those of the system]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    tls_ca: Option<PathBuf>,
    /// TLS believes anybody
    #[arg(long, conflicts_with = "tls_ca", help_heading = "Server")]
    tls_insecure: bool,
    /// Own address for SIP and media [default: the one that leads to the server]
    #[arg(long, value_name = "ADDRESS", help_heading = "Server")]
    bind: Option<IpAddr>,
    /// The server's process, to show its CPU [default: found by itself, where it runs here and may be seen]
    #[arg(long, value_name = "PID", help_heading = "Server")]
    server_pid: Option<u32>,

    /// Account that all join with [default: they join without]
    #[arg(long, requires = "password", help_heading = "Joining")]
    user: Option<String>,
    /// Its password
    #[arg(
        long,
        requires = "user",
        env = "ROSTRUM_PASSWORD",
        hide_env_values = true,
        help_heading = "Joining"
    )]
    password: Option<String>,
    /// Accounts used in turn: a file of name:password lines
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "user",
        help_heading = "Joining"
    )]
    users: Option<PathBuf>,
    /// Register the accounts first
    #[arg(long, help_heading = "Joining")]
    register: bool,
    /// Joins a second, as 50 or 50/s
    #[arg(long, default_value = "50", value_parser = per_second, value_name = "N", help_heading = "Joining")]
    join_rate: f64,
    /// How often a participant whom the server has no room for tries again, heeding Retry-After
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Joining")]
    retry: u32,

    /// Without SIP: send one speaker's plain RTP there
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "rtp_listen",
        conflicts_with = "meeting",
        help_heading = "Fan-out without SIP"
    )]
    rtp_to: Option<SocketAddr>,
    /// Without SIP: where copies come to, as 192.0.2.7:40000-40099 (or only ports)
    #[arg(
        long,
        value_name = "FIRST-LAST",
        requires = "rtp_to",
        help_heading = "Fan-out without SIP"
    )]
    rtp_listen: Option<String>,

    /// Receiving threads
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        help_heading = "Generator"
    )]
    threads: usize,
    /// Draw the schedule of talk from this number, to repeat a run
    #[arg(long, value_name = "N", help_heading = "Generator")]
    seed: Option<u64>,

    /// Most packets lost, in percent: 0, 0.1
    #[arg(long, value_parser = percent, value_name = "PERCENT", help_heading = "Limits (exit code 1 when missed)")]
    max_loss: Option<f64>,
    /// Longest one-way delay (99th percentile): 5ms
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Limits (exit code 1 when missed)")]
    max_p99: Option<Duration>,
    /// Most jitter (99th percentile)
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Limits (exit code 1 when missed)")]
    max_jitter: Option<Duration>,
    /// Longest time to join (99th percentile)
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Limits (exit code 1 when missed)")]
    max_join_p99: Option<Duration>,
    /// Longest time from the begin of talk until listeners have it (99th percentile)
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Limits (exit code 1 when missed)")]
    max_switch_p99: Option<Duration>,
    /// Most errors: breaks, duplicates, wrong sources, pictures that cannot be decoded, RTCP that makes no sense,
    /// participants not let in
    #[arg(
        long,
        value_name = "N",
        help_heading = "Limits (exit code 1 when missed)"
    )]
    max_errors: Option<u64>,

    /// Write the report as JSON; - is standard output
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    json: Option<PathBuf>,
    /// Write the report as a page with plots
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    html: Option<PathBuf>,
}

/// `500ms`, `60s`, `1.5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let Some(at) = at else {
        return Err(format!("a unit is missing: write {text}s or {text}ms"));
    };
    let (number, unit) = text.split_at(at);
    let number: f64 = number
        .parse()
        .map_err(|_| "write a number and a unit, as 500ms, 60s, 10m or 1h".to_owned())?;
    let seconds = match unit.trim() {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3_600.0,
        other => return Err(format!("{other} is no unit: write us, ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| "too long".to_owned())
}

/// `50`, `50/s`.
fn per_second(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("write how many join in a second, as 50 or 0.5/s".to_owned()),
    }
}

/// `0`, `0.1`, `0.1%`.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write a percentage from 0 to 100, as 0 or 0.1".to_owned()),
    }
}

/// `192.0.2.7:40000-40099`, `[::1]:40000-40099`, or only the ports, on `own`.
fn addresses(text: &str, own: IpAddr) -> Result<Vec<SocketAddr>, String> {
    let bad = || format!("--rtp-listen {text}: write 192.0.2.7:40000-40099, or only 40000-40099");
    let (host, ports) = match text.rsplit_once(':') {
        Some((host, ports)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            (host.parse().map_err(|_| bad())?, ports)
        }
        None => (own, text),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (
        first.parse().map_err(|_| bad())?,
        last.parse().map_err(|_| bad())?,
    );
    if first == 0 || last < first {
        return Err(bad());
    }
    let all = first..=last;
    Ok(all.map(|port| SocketAddr::new(host, port)).collect())
}

impl LoadArgs {
    fn options(&self) -> Result<Options, String> {
        let target = match (self.rtp_to, &self.rtp_listen) {
            (Some(to), Some(listen)) => self.fan_out(to, listen)?,
            _ => self.server()?,
        };
        let (participants, speakers) = match &target {
            // the speaker is one more
            Target::FanOut { listen, .. } => (listen.len() as u32 + 1, 1),
            Target::Sip { .. } => (self.participants, self.speakers.min(self.participants)),
        };
        if participants == 0 {
            return Err("--participants 0: at least one has to join".to_owned());
        }
        if speakers == 0 {
            return Err("--speakers 0: one has to talk, or nothing is sent".to_owned());
        }
        if participants > MOST {
            return Err(format!(
                "--participants {participants}: at most {MOST}; start several for more"
            ));
        }
        if self.duration.is_zero() {
            return Err("--duration 0: nothing could be measured; write 10s or more".to_owned());
        }
        Ok(Options {
            target,
            participants,
            speakers,
            video: self.video.map(|video| match video {
                Picture::P180 => Resolution::P180,
                Picture::P360 => Resolution::P360,
                Picture::P720 => Resolution::P720,
            }),
            protection: match self.transport {
                Media::Plain => Protection::Plain,
                Media::Sdes => Protection::Sdes,
                Media::Dtls => Protection::Dtls,
            },
            duration: self.duration,
            threads: self.threads,
            // few enough bits for any reader of JSON
            seed: self
                .seed
                .unwrap_or_else(|| u64::from(rand::random::<u32>())),
            server_pid: self.server_pid,
            thresholds: Thresholds {
                max_loss: self.max_loss,
                max_p99: self.max_p99,
                max_jitter: self.max_jitter,
                max_join_p99: self.max_join_p99,
                max_switch_p99: self.max_switch_p99,
                max_errors: self.max_errors,
            },
        })
    }

    fn fan_out(&self, to: SocketAddr, listen: &str) -> Result<Target, String> {
        if self.transport != Media::Plain {
            return Err(
                "--rtp-to: without SIP there are no keys; write --transport plain".to_owned(),
            );
        }
        let own = match self.bind {
            Some(ip) => ip,
            None => ::load::ua::towards(to).map_err(|e| format!("--rtp-to {to}: {e}"))?,
        };
        Ok(Target::FanOut {
            to,
            listen: addresses(listen, own)?,
        })
    }

    fn server(&self) -> Result<Target, String> {
        let text = self.meeting.as_deref().unwrap_or_default();
        let sip = SipOptions {
            meeting: ::load::ua::meeting(text)
                .map_err(|e| format!("--meeting {text}: {e}; write sip:standup@192.0.2.7"))?,
            proxy: self.proxy.clone(),
            transport: self.sip_transport.map(|t| match t {
                Signalling::Udp => ::load::ua::Transport::Udp,
                Signalling::Tcp => ::load::ua::Transport::Tcp,
                Signalling::Tls => ::load::ua::Transport::Tls,
            }),
            bind: self.bind,
            trust: match (&self.tls_ca, self.tls_insecure) {
                (Some(file), _) => Trust::File(file.clone()),
                (None, true) => Trust::Unverified,
                (None, false) => Trust::System,
            },
        };
        let accounts = self.accounts()?;
        if self.register && accounts.is_empty() {
            return Err(
                "--register: give an account with --user and --password, or --users".into(),
            );
        }
        Ok(Target::Sip {
            sip: Box::new(sip),
            accounts,
            register: self.register,
            join_rate: self.join_rate,
            retries: self.retry,
            any_server: self.sip,
        })
    }

    fn accounts(&self) -> Result<Vec<Account>, String> {
        if let Some(file) = &self.users {
            let told = |e: &dyn std::fmt::Display| format!("--users {}: {e}", file.display());
            let text = std::fs::read_to_string(file).map_err(|e| told(&e))?;
            let accounts = read_accounts(&text).map_err(|e| told(&e))?;
            return match accounts.is_empty() {
                true => Err(told(&"there is no name:password line in it")),
                false => Ok(accounts),
            };
        }
        let account = self.user.clone().zip(self.password.clone());
        let account = account.map(|(user, password)| Account { user, password });
        Ok(account.into_iter().collect())
    }
}

/// Runs it; the exit code says how it went.
pub fn run(args: &LoadArgs) -> ExitCode {
    let done = args.options().and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // media has threads of its own
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| format!("runtime: {e}"))?;
        runtime.block_on(go(options))
    });
    let told = done.and_then(|report| {
        tell(args, &report)?;
        Ok(report)
    });
    match told {
        Ok(report) if report.passed => ExitCode::SUCCESS,
        Ok(report) => {
            for verdict in report.thresholds.iter().filter(|v| !v.kept) {
                eprintln!("rostrum: {} missed: {}", verdict.name, verdict.says);
            }
            ExitCode::from(MISSED)
        }
        Err(e) => {
            eprintln!("rostrum: {e}");
            ExitCode::from(NO_RUN)
        }
    }
}

async fn go(options: Options) -> Result<Report, String> {
    let stop = CancellationToken::new();
    tokio::spawn(stop_at_signal(stop.clone()));
    let progress = Progress::new();
    let report = run::run(options, &progress, stop).await;
    progress.finish();
    report.map_err(|e| e.to_string())
}

/// The first one ends the run in order, the second one at once.
async fn stop_at_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    for last in [false, true] {
        tokio::select! {
            result = tokio::signal::ctrl_c() => if result.is_err() {
                return;
            },
            _ = terminate.recv() => {}
        }
        if last {
            std::process::exit(i32::from(NO_RUN));
        }
        stop.cancel();
    }
}

fn tell(args: &LoadArgs, report: &Report) -> Result<(), String> {
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        eprint!("{}", text::table(report, std::io::stderr().is_terminal()));
    } else {
        let table = text::table(report, std::io::stdout().is_terminal());
        // a reader that went away is no failure of the run
        let _ = std::io::stdout().write_all(table.as_bytes());
    }
    let written = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    };
    if let Some(path) = &args.json {
        let mut json = serde_json::to_string_pretty(report).map_err(|e| format!("JSON: {e}"))?;
        json.push('\n');
        match to_stdout {
            true => print!("{json}"),
            false => written(path, &json)?,
        }
    }
    if let Some(path) = &args.html {
        written(path, &html::page(report))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("60").is_err_and(|e| e.contains("60s")));
        assert!(duration("5 parsecs").is_err());
        assert!(duration("s").is_err());
    }

    #[test]
    fn rates_and_percentages_are_what_they_say() {
        assert_eq!(per_second("50/s"), Ok(50.0));
        assert!(per_second("0").is_err() && per_second("-1").is_err());
        assert_eq!(percent("0.1%"), Ok(0.1));
        assert!(percent("101").is_err());
    }

    #[test]
    fn listeners_are_a_range_of_ports() {
        let own = IpAddr::from([127, 0, 0, 1]);
        let all = addresses("192.0.2.7:40000-40002", own).expect("a range");
        assert_eq!(all.len(), 3);
        assert_eq!(all[2].to_string(), "192.0.2.7:40002");
        assert_eq!(addresses("5004", own), Ok(vec![SocketAddr::new(own, 5004)]));
        assert_eq!(addresses("[::1]:5004-5005", own).map(|a| a.len()), Ok(2));
        for bad in ["", "x-y", "2-1", "host:1-2", "0-3"] {
            assert!(addresses(bad, own).is_err(), "{bad}");
        }
    }
}
