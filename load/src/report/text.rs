//! The table at the end.

use std::fmt::Write as _;

use super::{Counted, Report, units};
use crate::media::{KindReport, Percentiles};

/// Name in front of a line; the values are aligned behind it.
const NAME: usize = 16;

/// The whole table. `color`: with ANSI colors for verdicts.
#[must_use]
pub fn table(report: &Report, color: bool) -> String {
    let mut out = String::new();
    head(&mut out, report);
    joins(&mut out, report);
    media(&mut out, report);
    times(&mut out, report);
    machine(&mut out, report);
    problems(&mut out, report);
    verdicts(&mut out, report, color);
    out
}

fn line(out: &mut String, name: &str, value: impl AsRef<str>) {
    // writing to a String cannot fail
    let _ = writeln!(out, "  {name:<NAME$}{}", value.as_ref());
}

fn head(out: &mut String, report: &Report) {
    let s = &report.settings;
    let _ = writeln!(
        out,
        "\n{}: {:.1} s with {} participants, {} of them talking, over {}{}\n",
        s.target,
        report.seconds,
        s.participants,
        s.speakers,
        match s.transport {
            "plain" => "plain RTP",
            "sdes" => "SDES-SRTP",
            _ => "DTLS-SRTP",
        },
        match s.video {
            Some(video) => format!(", video {}", super::resolution(video)),
            None => String::new(),
        }
    );
}

fn joins(out: &mut String, report: &Report) {
    let Some(joins) = &report.joins else {
        return;
    };
    let mut told = format!("{} of {}", joins.joined, joins.asked);
    if let Some(p) = joins.time {
        let _ = write!(
            told,
            ", in {} (p50), {} (p99), at most {}",
            units::micros(p.p50),
            units::micros(p.p99),
            units::micros(p.max)
        );
    }
    line(out, "joined", told);
    if joins.retried > 0 {
        line(out, "tried again", units::count(joins.retried));
    }
    for refusal in &joins.refusals {
        line(out, "refused", counted(refusal));
    }
    for ended in &report.ended_early {
        line(out, "ended early", counted(ended));
    }
    let m = &report.media;
    if let Some(p) = m.connect_time
        && report.settings.transport == "dtls"
    {
        let told = format!(
            "{} (p50), {} (p99)",
            units::micros(p.p50),
            units::micros(p.p99)
        );
        line(out, "ICE and DTLS", told);
    }
    if let Some(p) = m.first_media {
        let told = format!(
            "{} (p50), {} (p99) after the answer",
            units::micros(p.p50),
            units::micros(p.p99)
        );
        line(out, "first media", told);
    }
}

pub(super) fn counted(c: &Counted) -> String {
    match c.status {
        Some(status) => format!("{} × {status} {}", c.count, c.reason),
        None => format!("{} × {}", c.count, c.reason),
    }
}

/// Columns aligned to the right, the first one to the left.
fn grid(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut text = String::from("  ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                let width = (*width).max(NAME - 2);
                let _ = write!(text, "{cell:<width$}");
            } else {
                let _ = write!(text, "  {cell:>width$}");
            }
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}

fn media(out: &mut String, report: &Report) {
    let used: Vec<(&str, &KindReport)> = report
        .kinds()
        .into_iter()
        .filter(|(_, k)| k.sent + k.received > 0)
        .collect();
    if used.is_empty() {
        out.push('\n');
        line(out, "media", "none came, and none was sent");
        return;
    }
    let seconds = report.media.seconds;
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(used.iter().map(|(name, _)| (*name).to_owned()));
    let mut row = |name: &str, of: &dyn Fn(&KindReport) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(used.iter().map(|(_, k)| of(k)));
        rows.push(row);
    };
    row("packets sent", &|k| units::count(k.sent));
    row("received", &|k| units::count(k.received));
    row("bit rate in", &|k| units::rate(k.received_octets, seconds));
    row("lost", &|k| share(k.lost, k.received + k.lost));
    row("not sent on", &|k| share(k.skipped, k.received + k.skipped));
    row("late", &|k| units::count(k.late));
    row("duplicates", &|k| units::count(k.duplicates + k.doubled));
    row("switches", &|k| units::count(k.switches));
    row("breaks", &|k| {
        units::count(k.sequence_jumps + k.gaps_at_switches + k.timestamp_breaks + k.picture_breaks)
    });
    row("wrong CSRC", &|k| units::count(k.wrong_csrc));
    if used.iter().any(|(name, _)| *name == "video") {
        row("key frames", &|k| units::count(k.keyframes));
        row("undecodable", &|k| units::count(k.undecodable_starts));
    }
    out.push('\n');
    grid(out, &rows);
}

fn share(part: u64, of: u64) -> String {
    match part {
        0 => "0".to_owned(),
        part => format!("{} ({})", units::count(part), units::percent(part, of)),
    }
}

fn times(out: &mut String, report: &Report) {
    let mut rows = Vec::new();
    let mut row = |name: String, p: Option<Percentiles>| {
        if let Some(p) = p {
            let cells = [p.p50, p.p90, p.p99, p.p999, p.max];
            let mut row = vec![name];
            row.extend(cells.map(units::micros));
            rows.push(row);
        }
    };
    for (name, kind) in report.kinds() {
        row(format!("{name} delay"), kind.delay);
        row(format!("{name} jitter"), kind.jitter);
        row(format!("{name} switch"), kind.switch_delay);
    }
    row("own queue".to_owned(), report.media.queued);
    row("own send lag".to_owned(), report.media.send_lag);
    if rows.is_empty() {
        return;
    }
    let head = ["", "p50", "p90", "p99", "p99.9", "max"];
    rows.insert(0, head.map(str::to_owned).to_vec());
    out.push('\n');
    grid(out, &rows);
}

fn machine(out: &mut String, report: &Report) {
    let machine = &report.machine;
    out.push('\n');
    let all = machine
        .servers
        .iter()
        .map(|p| ("server", p))
        .chain([("generator", &machine.generator)]);
    for (name, process) in all {
        if let Some(cpu) = process.mean_cpu() {
            let mut told = format!(
                "{cpu:.0} % of a core, {}",
                units::octets(process.most_memory())
            );
            if name == "server" {
                let _ = write!(
                    told,
                    "  ({} {}, {})",
                    process.name, process.pid, process.role
                );
            }
            line(out, &format!("CPU, {name}"), told);
        }
    }
    let rtcp = &report.media.rtcp;
    if rtcp.sent + rtcp.received > 0 {
        let told = format!(
            "{} sent, {} received, {} key frames asked for, {} packets sent again",
            units::count(rtcp.sent),
            units::count(rtcp.received),
            units::count(rtcp.keyframe_requests),
            units::count(rtcp.retransmitted)
        );
        line(out, "RTCP", told);
    }
}

/// Most cases of one kind that are told.
const CASES: usize = 12;

fn problems(out: &mut String, report: &Report) {
    let mut all: Vec<String> = Vec::new();
    for (name, count) in &report.errors {
        all.push(format!("{} {name}", units::count(*count)));
    }
    let findings = report.media.findings.iter().map(|f| ("", f));
    let of_rtcp = report.media.rtcp.findings.iter().map(|f| ("RTCP ", f));
    for (of, (name, finding)) in findings.chain(of_rtcp).take(CASES) {
        all.push(format!(
            "{of}{name}, {} times, such as: {}",
            units::count(finding.count),
            finding.example
        ));
    }
    let legs = report.unheard();
    if !legs.is_empty() {
        let some: Vec<String> = legs
            .iter()
            .take(CASES)
            .map(|l| (l + 1).to_string())
            .collect();
        let more = match legs.len() > CASES {
            true => ", ...",
            false => "",
        };
        all.push(format!(
            "never got media: participants {}{more}",
            some.join(", ")
        ));
    }
    for (leg, why) in report.media.failed.iter().take(CASES) {
        all.push(format!("participant {}: {why}", leg + 1));
    }
    if !all.is_empty() {
        out.push_str("\n  Errors\n");
        for text in all {
            let _ = writeln!(out, "    {text}");
        }
    }
    if !report.warnings.is_empty() {
        out.push_str("\n  Warnings\n");
        for text in &report.warnings {
            let _ = writeln!(out, "    {text}");
        }
    }
}

fn verdicts(out: &mut String, report: &Report, color: bool) {
    if report.thresholds.is_empty() {
        return;
    }
    out.push_str("\n  Limits\n");
    for verdict in &report.thresholds {
        let word = match (verdict.kept, color) {
            (true, false) => "kept  ",
            (false, false) => "MISSED",
            (true, true) => "\x1b[32mkept  \x1b[0m",
            (false, true) => "\x1b[31mMISSED\x1b[0m",
        };
        let _ = writeln!(out, "    {word}  {:<17} {}", verdict.name, verdict.says);
    }
}
