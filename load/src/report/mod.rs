//! What a run found: for people (a table, a page) and for programs (JSON, verdicts).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::leg::Protection;
use crate::machine::MachineReport;
use crate::media::{KindReport, MediaReport, Percentiles, Resolution};
use crate::run::{Options, Target};

pub mod html;
mod plot;
pub mod text;
pub mod thresholds;
mod units;

use thresholds::Verdict;

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The meeting's URI, or where the fan-out is.
    pub target: String,
    /// Participants asked for.
    pub participants: u32,
    /// Those who talk.
    pub speakers: u32,
    /// Their picture.
    pub video: Option<Resolution>,
    /// `plain`, `sdes` or `dtls`.
    pub transport: &'static str,
    /// Seconds asked for.
    pub duration: f64,
    /// Any SIP server, or a fan-out: not held to what Rostrum promises alone.
    pub any_server: bool,
    /// Receiving threads.
    pub threads: usize,
    /// Of the schedule.
    pub seed: u64,
}

impl Settings {
    /// Of a run.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let (target, any_server) = match &options.target {
            Target::Sip {
                sip, any_server, ..
            } => (sip.meeting.to_string(), *any_server),
            Target::FanOut { to, .. } => (format!("fan-out at {to}"), true),
        };
        Self {
            target,
            participants: options.participants,
            speakers: options.speakers,
            video: options.video,
            transport: match options.protection {
                Protection::Plain => "plain",
                Protection::Sdes => "sdes",
                Protection::Dtls => "dtls",
            },
            duration: options.duration.as_secs_f64(),
            any_server,
            threads: options.threads,
            seed: options.seed,
        }
    }
}

/// As given on the command line.
fn resolution(video: Resolution) -> &'static str {
    match video {
        Resolution::P180 => "180p",
        Resolution::P360 => "360p",
        Resolution::P720 => "720p",
    }
}

/// A reason and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// SIP status, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// For people.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// How joining went.
#[derive(Clone, Debug, Serialize)]
pub struct Joins {
    /// Participants that were to join.
    pub asked: u32,
    /// Those who did.
    pub joined: u32,
    /// Those who did not in the end.
    pub refused: u32,
    /// Every refusal, those before a retry too.
    pub refusals: Vec<Counted>,
    /// INVITEs after a refusal.
    pub retried: u64,
    /// From the first INVITE sent to the ACK sent, challenges included, in µs.
    pub time: Option<Percentiles>,
    /// Each join: seconds since the first, and how many milliseconds it took.
    pub each: Vec<(f64, f64)>,
}

impl Joins {
    /// `times` in µs, sorted.
    #[must_use]
    pub fn new(
        asked: u32,
        joined: u32,
        retried: u64,
        refusals: impl Iterator<Item = Counted>,
        times: &[u64],
        each: impl Iterator<Item = (f64, f64)>,
    ) -> Self {
        Self {
            asked,
            joined,
            refused: asked.saturating_sub(joined),
            refusals: refusals.collect(),
            retried,
            time: percentiles(times),
            each: each.collect(),
        }
    }
}

/// Of sorted values, by nearest rank.
fn percentiles(sorted: &[u64]) -> Option<Percentiles> {
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let at = |quantile: f64| {
        let rank = (quantile * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    };
    Some(Percentiles {
        count: sorted.len() as u64,
        min,
        mean: sorted.iter().sum::<u64>() as f64 / sorted.len() as f64,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max,
    })
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of Rostrum.
    pub version: &'static str,
    /// Seconds since 1970.
    pub started_unix: u64,
    /// How long all were in the meeting, seconds.
    pub seconds: f64,
    /// How long that took to come about, seconds: media's series begins with it, the samples of CPU after it.
    pub joining_seconds: f64,
    /// By Ctrl-C.
    pub stopped_early: bool,
    /// What was asked for.
    pub settings: Settings,
    /// SIP; `None` for a fan-out.
    pub joins: Option<Joins>,
    /// Calls that the server ended.
    pub ended_early: Vec<Counted>,
    /// Media.
    pub media: MediaReport,
    /// CPU and buffers.
    pub machine: MachineReport,
    /// What should not have been, by kind; what `--max-errors` counts.
    pub errors: BTreeMap<&'static str, u64>,
    /// What the reader must know to judge the numbers.
    pub warnings: Vec<String>,
    /// One for each limit given.
    pub thresholds: Vec<Verdict>,
    /// All limits were kept.
    pub passed: bool,
}

impl Report {
    /// Audio and video, named.
    pub(crate) fn kinds(&self) -> [(&'static str, &KindReport); 2] {
        [("audio", &self.media.audio), ("video", &self.media.video)]
    }

    /// Packets that never came, those the server did not send on included; and of how many.
    #[must_use]
    pub fn lost(&self) -> (u64, u64) {
        let kinds = self.kinds();
        let lost = kinds.iter().map(|(_, k)| k.lost + k.skipped).sum();
        let received: u64 = kinds.iter().map(|(_, k)| k.received).sum();
        (lost, received + lost)
    }

    /// Participants that never got media and should have: those who talk need another to talk too, and time for that,
    /// since nobody is sent himself.
    #[must_use]
    pub fn unheard(&self) -> Vec<u32> {
        let speakers = self.settings.speakers;
        let all_had_turns = speakers > 1 && self.seconds >= TURNS;
        let legs = self.media.without_media.iter().copied();
        legs.filter(|leg| *leg >= speakers || all_had_turns)
            .collect()
    }

    /// The worse of audio and video of something measured.
    pub(crate) fn worst(
        &self,
        of: impl Fn(&KindReport) -> Option<Percentiles>,
    ) -> Option<(&'static str, Percentiles)> {
        self.kinds()
            .into_iter()
            .filter_map(|(name, kind)| Some((name, of(kind)?)))
            .max_by_key(|(_, p)| p.p99)
    }
}

/// Counts what should not have been. Loss, lateness and delay have limits of their own.
#[must_use]
pub fn errors(report: &Report) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    let mut count = |name: &'static str, n: u64| {
        if n > 0 {
            *all.entry(name).or_default() += n;
        }
    };
    for (_, kind) in report.kinds() {
        count("duplicates", kind.duplicates);
        count("packets sent twice under other numbers", kind.doubled);
        count("jumps of the sequence number", kind.sequence_jumps);
        count("gaps at changes of speaker", kind.gaps_at_switches);
        count("breaks of the timestamp", kind.timestamp_breaks);
        count("wrong CSRCs", kind.wrong_csrc);
        count("own media that came back", kind.echoes);
        count("pictures without a key frame", kind.undecodable_starts);
        count("breaks of the picture", kind.picture_breaks);
        if !report.settings.any_server {
            count("packets without a CSRC", kind.without_csrc);
        }
    }
    for finding in report.media.rtcp.findings.values() {
        count("RTCP findings", finding.count);
    }
    count("packets not authentic", report.media.not_authentic);
    count("packets malformed", report.media.malformed);
    count("legs without media", report.unheard().len() as u64);
    count("legs failed", report.media.failed.len() as u64);
    let refused = report.joins.as_ref().map_or(0, |j| u64::from(j.refused));
    count("participants not let in", refused);
    let ended = report.ended_early.iter().map(|e| e.count).sum();
    count("calls ended by the server", ended);
    all
}

/// In a run of so many seconds everybody who talks has heard another.
const TURNS: f64 = 30.0;
/// A receiving or sending thread above this share of a core is no longer a fair judge, percent.
const BUSY: f64 = 90.0;
/// What packets may lie in our own sockets, or leave late, before the reader is told, µs.
const OWN_DELAY: u64 = 5_000;

/// What the reader must know to judge the numbers.
#[must_use]
pub fn warnings(report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    let machine = &report.machine;
    let samples = &machine.generator.samples;
    let busy = samples.iter().filter(|s| s.busiest_thread > BUSY).count();
    if busy > 0 {
        all.push(format!(
            "the generator was the bottleneck: one of its threads was above {BUSY} % of a core in {busy} of {} seconds; \
             loss and delay may be its own (more --threads, or another machine)",
            samples.len()
        ));
    }
    if let Some(drops @ 1..) = machine.socket_drops {
        all.push(format!(
            "{drops} datagrams were dropped at the generator's own sockets: loss may be the generator's \
             (more --threads, or a larger net.core.rmem_max)"
        ));
    } else if let Some(errors @ 1..) = machine.receive_buffer_errors {
        all.push(format!(
            "{errors} datagrams were dropped at full receive buffers of this machine (RcvbufErrors), though not at the \
             generator's"
        ));
    }
    let late = |what: &str, p: Option<Percentiles>| {
        p.filter(|p| p.p99 > OWN_DELAY)
            .map(|p| format!("{what} {} (p99)", units::micros(p.p99)))
    };
    all.extend(late(
        "the generator is slow to read: packets lay in its sockets for",
        report.media.queued,
    ));
    all.extend(late(
        "the generator is slow to send: packets left late by",
        report.media.send_lag,
    ));
    if report.media.send_errors > 0 {
        all.push(format!(
            "{} packets could not be sent by this machine",
            report.media.send_errors
        ));
    }
    if report.stopped_early {
        all.push("stopped before its time".to_owned());
    }
    all
}
