//! What the scenarios have shown, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::measure::{Outcome, misses};
use super::scenarios::Scenario;

/// A scenario's line.
#[derive(Debug, Serialize)]
pub struct Line {
    pub scenario: &'static str,
    pub runs: usize,
    pub dialogs_lost: u64,
    pub rtp_lost: u64,
    pub media_gap_ms_max: u64,
    /// `None`: nothing changed hands.
    pub takeover_ms_p99: Option<u64>,
    pub joins_failed: u64,
    /// The slowest run's; `None`: not in every run.
    pub joins_again_ms_max: Option<u64>,
    pub stale_writes_accepted: u64,
    pub orphans: u64,
    pub ok: bool,
    /// Why it could not be run here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cannot_run_here: Option<String>,
    /// What was missed, and what else was seen.
    pub notes: Vec<String>,
}

impl Line {
    /// Of all runs of a scenario; an error is a run in which nothing could be measured.
    pub fn of(scenario: &Scenario, runs: &[Result<Outcome, String>]) -> Self {
        let good: Vec<&Outcome> = runs.iter().flatten().collect();
        let sum = |of: fn(&Outcome) -> u64| good.iter().map(|o| of(o)).sum();
        let mut takeovers: Vec<u64> = good.iter().flat_map(|o| o.takeovers_ms.clone()).collect();
        takeovers.sort_unstable();
        let mut notes = Vec::new();
        let mut ok = !runs.is_empty();
        for (n, run) in runs.iter().enumerate() {
            let (missed, seen) = match run {
                Ok(outcome) => (misses(scenario.fault, outcome), outcome.notes.clone()),
                Err(e) => (vec![format!("nothing was measured: {e}")], Vec::new()),
            };
            ok &= missed.is_empty();
            let all = missed.into_iter().chain(seen);
            notes.extend(all.map(|note| format!("run {}: {note}", n + 1)));
        }
        let again: Option<Vec<u64>> = good.iter().map(|o| o.joins_again_ms).collect();
        Self {
            scenario: scenario.name,
            runs: runs.len(),
            dialogs_lost: sum(|o| o.dialogs_lost),
            rtp_lost: sum(|o| o.rtp_lost),
            media_gap_ms_max: good.iter().map(|o| o.media_gap_ms).max().unwrap_or(0),
            takeover_ms_p99: takeovers
                .len()
                .checked_sub(1)
                .map(|last| takeovers[(takeovers.len() * 99).div_ceil(100).min(last + 1) - 1]),
            joins_failed: sum(|o| o.joins_failed),
            joins_again_ms_max: again.and_then(|all| all.into_iter().max()),
            stale_writes_accepted: sum(|o| o.stale),
            orphans: sum(|o| o.orphans),
            ok,
            cannot_run_here: None,
            notes,
        }
    }

    /// Of one that was not run; `ok` only where that is allowed.
    pub fn skipped(scenario: &Scenario, why: &str, ok: bool) -> Self {
        let mut line = Self::of(scenario, &[]);
        line.ok = ok;
        line.cannot_run_here = Some(why.to_owned());
        line
    }

    /// For people.
    pub fn text(&self) -> String {
        if let Some(why) = &self.cannot_run_here {
            return format!("{:<32} cannot run here: {why}", self.scenario);
        }
        let ms = |value: Option<u64>| value.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        let mut text = format!(
            "{:<32} {}  takeover {}, gap {} ms, RTP lost {}, dialogs lost {}, joins failed {} (again after {}), stale {}, \
             orphans {}",
            self.scenario,
            if self.ok { "ok    " } else { "MISSED" },
            ms(self.takeover_ms_p99),
            self.media_gap_ms_max,
            self.rtp_lost,
            self.dialogs_lost,
            self.joins_failed,
            ms(self.joins_again_ms_max),
            self.stale_writes_accepted,
            self.orphans
        );
        for note in &self.notes {
            let _ = write!(text, "\n    {note}");
        }
        text
    }
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1080px;margin:0 auto;padding:24px}\
svg{display:block;width:100%;height:auto;background:#f6f7f9;border-radius:10px}.bad{color:#c4242b}.good{color:#0a7d4f}";
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 160.0;

/// A page with a timeline of each run: packets received in a second, and what happened.
pub fn page(all: &[(Line, Vec<Outcome>)]) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>Chaos</title><style>{STYLE}</style>\
         </head><body><h1>Chaos</h1>\n"
    );
    for (line, outcomes) in all {
        let class = if line.ok { "good" } else { "bad" };
        // writing to a String cannot fail
        let _ = writeln!(
            out,
            "<h2 class=\"{class}\">{}</h2><pre>{}</pre>",
            escaped(line.scenario),
            escaped(&line.text())
        );
        for outcome in outcomes {
            timeline(&mut out, outcome);
        }
    }
    out.push_str("</body></html>\n");
    out
}

fn timeline(out: &mut String, outcome: &Outcome) {
    let most = outcome.series.iter().copied().max().unwrap_or(0).max(1) as f64;
    let step = WIDTH / outcome.series.len().max(1) as f64;
    let points = outcome.series.iter().enumerate().map(|(n, received)| {
        let y = HEIGHT - *received as f64 / most * (HEIGHT - 20.0);
        format!("{:.1},{y:.1}", n as f64 * step)
    });
    let points: Vec<String> = points.collect();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\"><polyline fill=\"none\" stroke=\"#2563c9\" stroke-width=\"2\" \
         points=\"{}\"/>",
        points.join(" ")
    );
    for (second, what) in &outcome.events {
        let x = second * step;
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{HEIGHT}\" stroke=\"#c4242b\"/>\
             <text x=\"{:.1}\" y=\"14\" font-size=\"12\">{}</text>",
            x + 4.0,
            escaped(what)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"4\" y=\"30\" font-size=\"11\">at most {most} packets a second; longest gap {} ms</text></svg>",
        outcome.media_gap_ms
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
