//! What a report says, and how limits judge it.

use std::time::Duration;

use load::machine::{MachineReport, Process, Sample};
use load::media::{KindReport, MediaReport, Percentiles, Resolution, Second};
use load::report::thresholds::{Thresholds, check};
use load::report::{Counted, Joins, Report, Settings, errors, html, text, warnings};

fn percentiles(p50: u64, p99: u64) -> Percentiles {
    Percentiles {
        count: 1_000,
        min: p50 / 2,
        mean: p50 as f64,
        p50,
        p90: (p50 + p99) / 2,
        p99,
        p999: p99 * 2,
        max: p99 * 4,
    }
}

fn process(name: &str, pid: u32, role: &str, cpu: f64) -> Process {
    let sample = |n: u32| Sample {
        second: f64::from(n + 1),
        cpu: cpu + f64::from(n % 7),
        busiest_thread: cpu * 0.8,
        memory: 45_000_000,
    };
    Process {
        pid,
        name: name.to_owned(),
        role: role.to_owned(),
        samples: (0..60).map(sample).collect(),
    }
}

/// A run of a minute as it should be.
fn report() -> Report {
    let histogram = |from: u64| -> Vec<(u64, u64, u64)> {
        let sizes = [2, 9, 40, 160, 300, 220, 90, 40, 12, 5, 1];
        let edge = |n: usize| (from as f64 * 1.3f64.powi(n as i32)) as u64;
        let buckets = sizes.iter().enumerate();
        buckets
            .map(|(n, count)| (edge(n), edge(n + 1), *count))
            .collect()
    };
    let kind = |packets: u64| KindReport {
        sent: packets / 20,
        sent_octets: packets * 50,
        received: packets,
        received_octets: packets * 1_000,
        switches: 412,
        stamped: packets,
        delay: Some(percentiles(220, 1_400)),
        jitter: Some(percentiles(90, 700)),
        switch_delay: Some(percentiles(21_000, 64_000)),
        delay_histogram: histogram(80),
        switch_delay_histogram: histogram(9_000),
        ..KindReport::default()
    };
    let second = |n: u64| Second {
        second: n,
        sent: 840 + n % 5,
        received: 16_400 + 37 * (n % 9),
        lost: 0,
        delay_p50: Some(220 + n % 13),
        delay_p99: Some(1_100 + 31 * (n % 11)),
    };
    let mut times: Vec<u64> = (0..200).map(|n| 6_000 + n * 45).collect();
    times.sort_unstable();
    Report {
        version: "0.1.0",
        started_unix: 1_796_101_920,
        seconds: 60.0,
        joining_seconds: 4.0,
        stopped_early: false,
        settings: Settings {
            target: "sip:standup@192.0.2.7".to_owned(),
            participants: 200,
            speakers: 3,
            video: Some(Resolution::P720),
            transport: "dtls",
            duration: 60.0,
            any_server: false,
            threads: 1,
            seed: 4_711,
        },
        joins: Some(Joins::new(
            200,
            200,
            0,
            std::iter::empty(),
            &times,
            (0..200).map(|n| (f64::from(n) / 50.0, 6.0 + f64::from(n % 17))),
        )),
        ended_early: Vec::new(),
        media: MediaReport {
            seconds: 60.0,
            legs: 200,
            connected: 200,
            audio: kind(598_000),
            video: kind(412_000),
            connect_time: Some(percentiles(14_000, 33_000)),
            first_media: Some(percentiles(22_000, 80_000)),
            queued: Some(percentiles(30, 400)),
            send_lag: Some(percentiles(15, 200)),
            series: (0..60).map(second).collect(),
            ..MediaReport::default()
        },
        machine: MachineReport {
            cores: 2,
            generator: process("rostrum", 4_001, "generator", 34.0),
            servers: vec![process("rostrum", 3_999, "SIP and RTP", 58.0)],
            socket_drops: Some(0),
            receive_buffer_errors: Some(0),
        },
        errors: Default::default(),
        warnings: Vec::new(),
        thresholds: Vec::new(),
        passed: true,
    }
}

fn judged(limits: Thresholds, mut report: Report) -> Report {
    report.errors = errors(&report);
    report.warnings = warnings(&report);
    report.thresholds = check(&limits, &report);
    report.passed = report.thresholds.iter().all(|t| t.kept);
    report
}

fn all_limits() -> Thresholds {
    Thresholds {
        max_loss: Some(0.0),
        max_p99: Some(Duration::from_millis(5)),
        max_jitter: Some(Duration::from_millis(1)),
        max_join_p99: Some(Duration::from_millis(100)),
        max_switch_p99: Some(Duration::from_millis(100)),
        max_errors: Some(0),
    }
}

#[test]
fn a_good_run_keeps_all_limits() {
    let report = judged(all_limits(), report());
    assert!(report.passed, "{:#?}", report.thresholds);
    assert_eq!(report.thresholds.len(), 6);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn each_limit_that_is_missed_is_named() {
    let mut bad = report();
    bad.media.audio.lost = 3;
    bad.media.video.wrong_csrc = 2;
    bad.media.video.delay = Some(percentiles(800, 5_001));
    bad.media.audio.jitter = Some(percentiles(800, 1_001));
    bad.media.audio.switch_delay = Some(percentiles(800, 100_001));
    bad.joins.as_mut().expect("joins").time = Some(percentiles(800, 100_001));
    let report = judged(all_limits(), bad);
    assert!(!report.passed);
    assert!(report.thresholds.iter().all(|v| !v.kept));
    let says: Vec<&str> = report.thresholds.iter().map(|v| v.says.as_str()).collect();
    assert_eq!(
        says[0],
        "loss was 0.0003 % (3 of 1,010,003 packets), above 0 %"
    );
    assert_eq!(
        says[1],
        "p99 of one-way delay of video was 5.00 ms, above 5.00 ms"
    );
    assert_eq!(says[5], "errors: 2, above 0 (2 wrong CSRCs)");
}

#[test]
fn what_was_not_measured_is_not_kept_and_says_why() {
    let mut bad = report();
    bad.media.audio = KindReport::default();
    bad.media.video = KindReport::default();
    bad.joins = None;
    let report = judged(all_limits(), bad);
    for verdict in &report.thresholds[..5] {
        assert!(!verdict.kept && verdict.measured.is_none(), "{verdict:?}");
        assert!(verdict.says.contains("was not measured: "), "{verdict:?}");
    }
}

#[test]
fn a_missing_csrc_is_an_error_of_rostrum_alone() {
    let mut mixed = report();
    mixed.media.audio.without_csrc = 5;
    assert_eq!(errors(&mixed).values().sum::<u64>(), 5);
    mixed.settings.any_server = true;
    assert!(errors(&mixed).is_empty());
}

#[test]
fn who_talks_may_hear_nobody_in_a_short_run_but_listeners_must() {
    let mut short = report();
    short.media.without_media = vec![0, 7];
    assert_eq!(short.unheard(), [0, 7]);
    short.seconds = 5.0;
    assert_eq!(short.unheard(), [7]);
    assert_eq!(errors(&short).get("legs without media"), Some(&1));
    short.seconds = 600.0;
    short.settings.speakers = 1;
    assert_eq!(short.unheard(), [7]);
}

#[test]
fn a_generator_at_its_limit_says_so() {
    let mut busy = report();
    busy.machine.generator.samples[7].busiest_thread = 97.0;
    busy.machine.socket_drops = Some(12);
    let told = warnings(&busy);
    assert!(
        told[0].contains("the generator was the bottleneck"),
        "{told:?}"
    );
    assert!(told[1].contains("loss may be the generator's"), "{told:?}");
}

#[test]
fn the_table_is_aligned_and_whole() {
    let table = text::table(&judged(all_limits(), report()), false);
    for expected in [
        "sip:standup@192.0.2.7: 60.0 s with 200 participants, 3 of them talking, over DTLS-SRTP, video 720p",
        "joined          200 of 200, in 10.5 ms (p50)",
        "CPU, server     61 % of a core, 45.0 MB  (rostrum 3999, SIP and RTP)",
        "kept    --max-loss",
    ] {
        assert!(table.contains(expected), "{expected}\n{table}");
    }
    let row = |name: &str| {
        let line = table.lines().find(|l| l.trim_start().starts_with(name));
        line.map(|l| l.chars().count())
    };
    // two columns, aligned to the right
    assert_eq!(row("packets sent"), row("switches"), "{table}");
    assert!(!table.contains("Errors"), "{table}");
}

#[test]
fn the_page_is_well_formed_and_has_its_plots() {
    let mut bad = report();
    bad.media.series[20].lost = 40;
    bad.media.audio.lost = 40;
    bad.settings.target = "sip:<x>&\"y\"@192.0.2.7".to_owned();
    bad.machine.socket_drops = Some(40);
    if let Some(joins) = &mut bad.joins {
        joins.refusals.push(Counted {
            status: Some(503),
            reason: "Service Unavailable".to_owned(),
            count: 2,
        });
    }
    let page = html::page(&judged(all_limits(), bad));
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join("load.html"), &page).expect("written");
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let document = roxmltree::Document::parse_with_options(&page, options).expect("well-formed");
    let titles: Vec<&str> = document
        .descendants()
        .filter(|n| n.has_tag_name("h2"))
        .filter_map(|n| n.text())
        .collect();
    assert_eq!(
        titles,
        [
            "Limits",
            "Warnings",
            "Errors",
            "One-way delay",
            "Packets",
            "Lost packets",
            "CPU",
            "Distribution of delay",
            "Distribution of switch delay",
            "Join time",
            "Counts",
            "Times"
        ]
    );
    // nothing is fetched from elsewhere
    assert!(!page.contains("src=") && !page.contains("href="));
}
