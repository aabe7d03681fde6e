//! One self-contained page: the numbers, and plots of what they come from.

use std::fmt::Write as _;

use super::plot::{self, COLORS, Series, Shape};
use super::{Report, resolution, units};
use crate::media::report::Bucket;
use crate::media::{KindReport, Percentiles};

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#5b6470;--grid:#d5dae1;--good:#0a7d4f;--bad:#c4242b}\
@media(prefers-color-scheme:dark){:root{--back:#14171b;--card:#1d2126;--ink:#e6e9ed;--soft:#9aa4b1;--grid:#3a414a;--good:#3fcf8e;--bad:#ff6b70}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:24px 20px 48px;max-width:1080px;background:var(--back);color:var(--ink);font:15px/1.45 system-ui,sans-serif}\
h1{font-size:24px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:16px;margin:0 0 8px}\
p{margin:0 0 8px}.soft{color:var(--soft)}\
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}\
.card,section{background:var(--card);border-radius:10px;padding:14px 16px}\
.card b{display:block;font-size:22px;font-weight:600;font-variant-numeric:tabular-nums}\
.card span{color:var(--soft);font-size:13px}\
section{margin:0 0 16px}\
.plots{margin:0 0 16px;display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:16px}.plots section{margin:0}\
@media(max-width:520px){.plots{grid-template-columns:1fr}}\
svg{display:block;width:100%;height:auto}\
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--soft);font-size:13px}\
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--grid);white-space:nowrap}\
th{font-weight:500;color:var(--soft)}th:first-child,td:first-child{text-align:left;padding-left:0}\
td.text{text-align:left;white-space:normal}\
tr:last-child td{border-bottom:0}.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}\
ul{margin:0;padding-left:18px}li{overflow-wrap:anywhere}";

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let s = &report.settings;
    let title = escaped(&s.target);
    let video = match s.video {
        Some(video) => format!(", video {}", resolution(video)),
        None => String::new(),
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\
         <title>Load: {title}</title><style>{STYLE}{}</style></head><body>\n\
         <h1>{title}</h1>\n<p class=\"soft\">{} participants, {} of them talking, over {}{video}; {:.1} s, from {}. \
         rostrum load {}, seed {}.</p>\n",
        plot::STYLE,
        s.participants,
        s.speakers,
        match s.transport {
            "plain" => "plain RTP",
            "sdes" => "SDES-SRTP",
            _ => "DTLS-SRTP",
        },
        report.seconds,
        utc(report.started_unix),
        report.version,
        s.seed,
    );
    cards(&mut out, report);
    verdicts(&mut out, report);
    list(&mut out, "Warnings", &report.warnings);
    list(&mut out, "Errors", &problems(report));
    out.push_str("<div class=\"plots\">\n");
    plots(&mut out, report);
    out.push_str("</div>\n");
    counts(&mut out, report);
    times(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn cards(out: &mut String, report: &Report) {
    let mut card = |value: String, name: &str| {
        // writing to a String cannot fail
        let _ = write!(
            out,
            "<div class=\"card\"><b>{}</b><span>{name}</span></div>",
            escaped(&value)
        );
    };
    let mut all: Vec<(String, String)> = Vec::new();
    if let Some(joins) = &report.joins {
        all.push((
            format!("{} / {}", joins.joined, joins.asked),
            "joined".into(),
        ));
        if let Some(p) = joins.time {
            all.push((units::micros(p.p99), "join time, p99".into()));
        }
    }
    let (lost, of) = report.lost();
    all.push((
        units::percent(lost, of),
        format!("lost, of {}", units::count(of)),
    ));
    for (what, found) in [
        ("one-way delay, p99", report.worst(|k| k.delay)),
        ("switch delay, p99", report.worst(|k| k.switch_delay)),
        ("jitter, p99", report.worst(|k| k.jitter)),
    ] {
        if let Some((kind, p)) = found {
            all.push((units::micros(p.p99), format!("{what} ({kind})")));
        }
    }
    let errors: u64 = report.errors.values().sum();
    all.push((units::count(errors), "errors".into()));
    for server in &report.machine.servers {
        if let Some(cpu) = server.mean_cpu() {
            let name = format!("of a core: {} ({})", server.name, server.role);
            all.push((format!("{cpu:.0} %"), name));
        }
    }
    let text = |(value, name): (String, String)| card(value, &escaped(&name));
    let before = all.into_iter();
    before.for_each(text);
    let cards = std::mem::take(out);
    // the cards were written behind the head: give them their frame
    match cards.find("<div class=\"card\">") {
        Some(at) => {
            out.push_str(&cards[..at]);
            let _ = writeln!(out, "<div class=\"cards\">{}</div>", &cards[at..]);
        }
        None => *out = cards,
    }
}

fn verdicts(out: &mut String, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    out.push_str("<section><h2>Limits</h2><div class=\"scroll\"><table>");
    for verdict in &report.thresholds {
        let (class, word) = match verdict.kept {
            true => ("good", "kept"),
            false => ("bad", "missed"),
        };
        let _ = write!(
            out,
            "<tr><td><span class=\"{class}\">{word}</span></td><td class=\"text\">{}</td><td class=\"text\">{}</td></tr>",
            verdict.name,
            escaped(&verdict.says)
        );
    }
    out.push_str("</table></div></section>\n");
}

fn list(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(out, "<section><h2>{title}</h2><ul>");
    for line in lines {
        let _ = write!(out, "<li>{}</li>", escaped(line));
    }
    out.push_str("</ul></section>\n");
}

fn problems(report: &Report) -> Vec<String> {
    let counts = report.errors.iter();
    let mut all: Vec<String> = counts
        .map(|(name, n)| format!("{} {name}", units::count(*n)))
        .collect();
    if let Some(joins) = &report.joins {
        all.extend(joins.refusals.iter().map(super::text::counted));
    }
    all.extend(report.ended_early.iter().map(super::text::counted));
    let media = &report.media;
    for (name, finding) in media.findings.iter().chain(&media.rtcp.findings) {
        all.push(format!(
            "{name}, {} times, such as: {}",
            units::count(finding.count),
            finding.example
        ));
    }
    all
}

fn plots(out: &mut String, report: &Report) {
    let seconds = &report.media.series;
    let over = |name: &str, of: &dyn Fn(&crate::media::Second) -> Option<f64>| Series {
        name: name.to_owned(),
        points: seconds
            .iter()
            .filter_map(|s| Some((s.second as f64, of(s)?)))
            .collect(),
    };
    let ms = |us: Option<u64>| us.map(|us| us as f64 / 1_000.0);
    let delay = [
        over("p50", &|s| ms(s.delay_p50)),
        over("p99", &|s| ms(s.delay_p99)),
    ];
    figure(out, "One-way delay", "ms", Shape::Lines, &delay);
    let packets = [
        over("received", &|s| Some(s.received as f64)),
        over("sent", &|s| Some(s.sent as f64)),
    ];
    figure(out, "Packets", "a second", Shape::Lines, &packets);
    let lost = [over("missing", &|s| Some(s.lost.max(0) as f64))];
    figure(out, "Lost packets", "a second", Shape::Bars, &lost);
    let machine = &report.machine;
    let of = |name: String, process: &crate::machine::Process| Series {
        name,
        points: process
            .samples
            .iter()
            .map(|s| (s.second + report.joining_seconds, s.cpu))
            .collect(),
    };
    let mut cpu: Vec<Series> = machine
        .servers
        .iter()
        .map(|p| of(format!("server: {} ({})", p.name, p.role), p))
        .collect();
    cpu.push(of("generator".to_owned(), &machine.generator));
    figure(out, "CPU", "% of a core", Shape::Lines, &cpu);
    for (title, of) in [
        (
            "Distribution of delay",
            (|k| &k.delay_histogram) as fn(&KindReport) -> &Vec<Bucket>,
        ),
        ("Distribution of switch delay", |k| {
            &k.switch_delay_histogram
        }),
    ] {
        let series: Vec<_> = report
            .kinds()
            .into_iter()
            .filter(|(_, kind)| !of(kind).is_empty())
            .map(|(name, kind)| (name.to_owned(), of(kind).clone()))
            .collect();
        if let Some(svg) = plot::distribution(&series) {
            let names = series.iter().map(|(name, _)| name.as_str());
            framed(out, title, &names.collect::<Vec<_>>(), &svg);
        }
    }
    if let Some(joins) = &report.joins {
        let each = [Series {
            name: "a participant".to_owned(),
            points: joins.each.clone(),
        }];
        figure(out, "Join time", "ms", Shape::Points, &each);
    }
}

fn figure(out: &mut String, title: &str, unit: &str, shape: Shape, series: &[Series]) {
    if let Some(svg) = plot::over_time(unit, shape, series) {
        let names = series.iter().map(|s| s.name.as_str());
        framed(out, title, &names.collect::<Vec<_>>(), &svg);
    }
}

fn framed(out: &mut String, title: &str, names: &[&str], svg: &str) {
    let _ = write!(out, "<section><h2>{title}</h2>{svg}<div class=\"legend\">");
    for (name, color) in names.iter().zip(COLORS.iter().cycle()) {
        let name = escaped(name);
        let _ = write!(
            out,
            "<span><i style=\"background:{color}\"></i>{name}</span>"
        );
    }
    out.push_str("</div></section>\n");
}

fn counts(out: &mut String, report: &Report) {
    let seconds = report.media.seconds;
    type Of<'a> = &'a dyn Fn(&KindReport) -> String;
    let rows: [(&str, Of<'_>); 12] = [
        ("packets sent", &|k| units::count(k.sent)),
        ("packets received", &|k| units::count(k.received)),
        ("bit rate in", &|k| units::rate(k.received_octets, seconds)),
        ("lost", &|k| units::count(k.lost)),
        ("not sent on", &|k| units::count(k.skipped)),
        ("late", &|k| units::count(k.late)),
        ("duplicates", &|k| units::count(k.duplicates + k.doubled)),
        ("switches", &|k| units::count(k.switches)),
        ("breaks", &|k| {
            units::count(
                k.sequence_jumps + k.gaps_at_switches + k.timestamp_breaks + k.picture_breaks,
            )
        }),
        ("wrong CSRC", &|k| units::count(k.wrong_csrc)),
        ("key frames", &|k| units::count(k.keyframes)),
        ("undecodable", &|k| units::count(k.undecodable_starts)),
    ];
    out.push_str("<section><h2>Counts</h2><div class=\"scroll\"><table><tr><th></th>");
    for (name, _) in report.kinds() {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("</tr>");
    for (name, of) in rows {
        let _ = write!(out, "<tr><td>{name}</td>");
        for (_, kind) in report.kinds() {
            let _ = write!(out, "<td>{}</td>", of(kind));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div></section>\n");
}

fn times(out: &mut String, report: &Report) {
    let mut rows: Vec<(String, Percentiles)> = Vec::new();
    let mut row = |name: String, p: Option<Percentiles>| rows.extend(p.map(|p| (name, p)));
    if let Some(joins) = &report.joins {
        row("join".to_owned(), joins.time);
    }
    row("ICE and DTLS".to_owned(), report.media.connect_time);
    row("first media".to_owned(), report.media.first_media);
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
    out.push_str(
        "<section><h2>Times</h2><div class=\"scroll\"><table><tr><th></th><th>values</th><th>min</th><th>p50</th>\
         <th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>",
    );
    for (name, p) in rows {
        let _ = write!(out, "<tr><td>{name}</td><td>{}</td>", units::count(p.count));
        for us in [p.min, p.p50, p.p90, p.p99, p.p999, p.max] {
            let _ = write!(out, "<td>{}</td>", units::micros(us));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div></section>\n");
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// `2026-12-01 05:12:00 UTC`, by Hinnant's algorithm of days and civil dates.
fn utc(unix: u64) -> String {
    let (days, rest) = (unix / 86_400, unix % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_796_101_920), "2026-12-01 05:12:00 UTC");
    }

    #[test]
    fn what_others_wrote_makes_no_markup() {
        assert_eq!(escaped("<b>\"&\""), "&lt;b&gt;&quot;&amp;&quot;");
    }
}
