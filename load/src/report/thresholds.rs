//! Limits that a run must keep, so that CI can judge it.

use std::time::Duration;

use serde::Serialize;

use super::{Report, units};
use crate::media::{KindReport, Percentiles};

/// Limits; `None`: anything goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Thresholds {
    /// Percent of packets.
    pub max_loss: Option<f64>,
    /// One-way delay, 99th percentile.
    pub max_p99: Option<Duration>,
    /// Jitter, 99th percentile.
    pub max_jitter: Option<Duration>,
    /// Join time, 99th percentile.
    pub max_join_p99: Option<Duration>,
    /// Switch delay, 99th percentile.
    pub max_switch_p99: Option<Duration>,
    /// Everything that should not have been.
    pub max_errors: Option<u64>,
}

/// A limit and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The option.
    pub name: &'static str,
    /// As given.
    pub limit: String,
    /// `None`: not measured, and so not kept.
    pub measured: Option<String>,
    /// Whether it was kept.
    pub kept: bool,
    /// A sentence for people.
    pub says: String,
}

/// Holds a report against limits.
#[must_use]
pub fn check(limits: &Thresholds, report: &Report) -> Vec<Verdict> {
    let mut all = Vec::new();
    if let Some(limit) = limits.max_loss {
        all.push(loss(limit, report));
    }
    let mut time = |name, what, limit: Option<Duration>, found, why_not| {
        if let Some(limit) = limit {
            all.push(time(name, what, limit, found, why_not));
        }
    };
    let worst = |of: fn(&KindReport) -> Option<Percentiles>| report.worst(of);
    let no_stamps = "no packet came with the mark that its sender had put into it (a server that mixes or transcodes \
                     takes it away)";
    time(
        "--max-p99",
        "one-way delay",
        limits.max_p99,
        worst(|k| k.delay),
        no_stamps,
    );
    time(
        "--max-jitter",
        "jitter",
        limits.max_jitter,
        worst(|k| k.jitter),
        "no stream came that it could be seen in",
    );
    let joined = report.joins.as_ref().and_then(|j| j.time);
    time(
        "--max-join-p99",
        "join time",
        limits.max_join_p99,
        joined.map(|p| ("all", p)),
        "a fan-out without SIP has no joins",
    );
    time(
        "--max-switch-p99",
        "switch delay",
        limits.max_switch_p99,
        worst(|k| k.switch_delay),
        "no listener heard a speaker begin (a run longer than a talk spurt, and at least two participants, are needed)",
    );
    if let Some(limit) = limits.max_errors {
        all.push(errors(limit, report));
    }
    all
}

fn loss(limit: f64, report: &Report) -> Verdict {
    let (lost, of) = report.lost();
    let name = "--max-loss";
    let told = units::percent_of(limit);
    if of == 0 {
        return unmeasured(name, told, "loss", "no packet came at all");
    }
    let share = 100.0 * lost as f64 / of as f64;
    let measured = units::percent(lost, of);
    let kept = share <= limit;
    let says = format!(
        "loss was {measured} ({} of {} packets), {} {told}",
        units::count(lost),
        units::count(of),
        relation(kept)
    );
    Verdict {
        name,
        limit: told,
        measured: Some(measured),
        kept,
        says,
    }
}

fn time(
    name: &'static str,
    what: &str,
    limit: Duration,
    found: Option<(&'static str, Percentiles)>,
    why_not: &str,
) -> Verdict {
    let told = units::duration(limit);
    let Some((kind, p)) = found else {
        return unmeasured(name, told, what, why_not);
    };
    let kept = u128::from(p.p99) <= limit.as_micros();
    let measured = units::micros(p.p99);
    let of = match kind {
        "all" => String::new(),
        kind => format!(" of {kind}"),
    };
    Verdict {
        name,
        says: format!(
            "p99 of {what}{of} was {measured}, {} {told}",
            relation(kept)
        ),
        limit: told,
        measured: Some(measured),
        kept,
    }
}

fn errors(limit: u64, report: &Report) -> Verdict {
    let total: u64 = report.errors.values().sum();
    let kept = total <= limit;
    let mut says = format!(
        "errors: {}, {} {limit}",
        units::count(total),
        relation(kept)
    );
    if total > 0 {
        let each = report.errors.iter();
        let each: Vec<String> = each.map(|(name, n)| format!("{n} {name}")).collect();
        says += &format!(" ({})", each.join(", "));
    }
    Verdict {
        name: "--max-errors",
        limit: limit.to_string(),
        measured: Some(total.to_string()),
        kept,
        says,
    }
}

fn relation(kept: bool) -> &'static str {
    match kept {
        true => "within",
        false => "above",
    }
}

fn unmeasured(name: &'static str, limit: String, what: &str, why: &str) -> Verdict {
    Verdict {
        name,
        limit,
        measured: None,
        kept: false,
        says: format!("{what} was not measured: {why}"),
    }
}
