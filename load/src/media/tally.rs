//! What one thread counts; merged at the end.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;

use super::report::{
    Finding, Findings, Gap, KindReport, MediaReport, Percentiles, RtcpReport, Second,
};
use crate::leg::Kind;

/// Digits a histogram of the whole run keeps, and one of a second.
const DIGITS: u8 = 3;
const DIGITS_OF_A_SECOND: u8 = 2;

/// Seconds kept one by one; later ones go into the last. A day costs some 100 MB.
const MOST_SECONDS: usize = 86_400;

/// Shorter times without RTP are how packets come, µs.
const GAP: u64 = 100_000;
/// Times without RTP that are kept.
const MOST_GAPS: usize = 10_000;

/// Notes that something was wrong; the text is made for the first case of a kind only.
pub fn note(findings: &mut Findings, kind: &'static str, example: impl FnOnce() -> String) {
    match findings.get_mut(kind) {
        Some(known) => known.count += 1,
        None => {
            let example = example();
            findings.insert(kind, Finding { count: 1, example });
        }
    }
}

fn merge_findings(into: &mut Findings, from: Findings) {
    for (kind, finding) in from {
        let known = into.entry(kind).or_insert_with(|| Finding {
            count: 0,
            example: finding.example.clone(),
        });
        known.count += finding.count;
    }
}

/// A histogram that grows as it must, in µs.
#[derive(Clone, Debug)]
pub struct Micros(Histogram<u64>);

impl Default for Micros {
    fn default() -> Self {
        Self(Histogram::new(DIGITS).expect("3 digits are allowed"))
    }
}

impl Micros {
    /// Takes a value in.
    #[inline]
    pub fn record(&mut self, us: u64) {
        // it resizes itself: no value is refused
        let _ = self.0.record(us);
    }

    fn merge(&mut self, other: &Self) {
        let _ = self.0.add(&other.0);
    }

    /// Its summary.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        Percentiles::of(&self.0)
    }

    /// In parts, for plots.
    #[must_use]
    pub fn buckets(&self) -> Vec<super::report::Bucket> {
        super::report::buckets(&self.0)
    }
}

/// Counts of audio or video.
#[derive(Clone, Debug, Default)]
pub struct KindTally {
    /// Counts; percentiles are filled in at the end.
    pub counts: KindReport,
    /// Missing so far: a gap adds, a late packet takes one off.
    pub lost: i64,
    /// One-way delay.
    pub delay: Micros,
    /// Interarrival variation.
    pub jitter: Micros,
    /// From the begin of a spurt.
    pub switch_delay: Micros,
}

/// One second.
#[derive(Clone, Debug, Default)]
struct SecondTally {
    sent: u64,
    received: u64,
    lost: i64,
    delay: Option<Box<Histogram<u32>>>,
}

/// A CSRC of audio or video, and how often each participant was behind it.
type Votes = HashMap<(Kind, u32), Vec<(u32, u64)>>;

/// All a thread counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Audio.
    pub audio: KindTally,
    /// Video.
    pub video: KindTally,
    /// RTCP.
    pub rtcp: RtcpReport,
    /// From the answer to keys.
    pub connect_time: Micros,
    /// From the answer to the first packet.
    pub first_media: Micros,
    /// In our sockets.
    pub queued: Micros,
    /// Behind their time.
    pub send_lag: Micros,
    /// Not authentic.
    pub not_authentic: u64,
    /// Nonsense.
    pub malformed: u64,
    /// Refused by a socket.
    pub send_errors: u64,
    /// Legs with keys.
    pub connected: u64,
    /// Legs that got RTP.
    pub with_media: u64,
    /// Legs that did not.
    pub without_media: Vec<u32>,
    /// Legs that failed.
    pub failed: BTreeMap<u32, String>,
    /// Errors in what came.
    pub findings: Findings,
    votes: Votes,
    seconds: Vec<SecondTally>,
    gaps: Vec<Gap>,
}

impl Tally {
    /// Audio or video.
    #[inline]
    pub fn kind(&mut self, kind: Kind) -> &mut KindTally {
        match kind {
            Kind::Audio => &mut self.audio,
            Kind::Video => &mut self.video,
        }
    }

    fn second(&mut self, at_us: u64) -> &mut SecondTally {
        let at = ((at_us / 1_000_000) as usize).min(MOST_SECONDS - 1);
        if at >= self.seconds.len() {
            self.seconds.resize_with(at + 1, SecondTally::default);
        }
        &mut self.seconds[at]
    }

    /// A packet of ours left.
    pub fn on_sent(&mut self, at_us: u64) {
        self.second(at_us).sent += 1;
    }

    /// A packet came, with so many newly missing before it (−1: it was one of those), and this delay.
    #[inline]
    pub fn on_received(&mut self, at_us: u64, lost: i64, delay: Option<u64>) {
        let second = self.second(at_us);
        second.received += 1;
        second.lost += lost;
        if let Some(delay) = delay {
            let histogram = second.delay.get_or_insert_with(|| {
                let empty = Histogram::new(DIGITS_OF_A_SECOND);
                Box::new(empty.expect("2 digits are allowed"))
            });
            let _ = histogram.record(delay);
        }
    }

    /// A leg was sent nothing between two times in µs.
    #[inline]
    pub fn on_gap(&mut self, participant: u32, from: u64, to: u64) {
        if to.saturating_sub(from) > GAP && self.gaps.len() < MOST_GAPS {
            self.gaps.push(Gap {
                participant,
                from,
                to,
            });
        }
    }

    /// So many packets with this CSRC were the participant's.
    pub fn vote(&mut self, kind: Kind, csrc: u32, participant: u32, count: u64) {
        let votes = self.votes.entry((kind, csrc)).or_default();
        match votes.iter_mut().find(|(known, _)| *known == participant) {
            Some((_, known)) => *known += count,
            None => votes.push((participant, count)),
        }
    }

    /// RTP packets received, and missing.
    #[must_use]
    pub fn received_and_lost(&self) -> (u64, u64) {
        let lost = self.audio.lost + self.video.lost;
        (
            self.audio.counts.received + self.video.counts.received,
            lost.max(0) as u64,
        )
    }

    /// Takes in what another thread counted.
    pub fn merge(&mut self, other: Self) {
        merge_kind(&mut self.audio, other.audio);
        merge_kind(&mut self.video, other.video);
        merge_rtcp(&mut self.rtcp, other.rtcp);
        self.connect_time.merge(&other.connect_time);
        self.first_media.merge(&other.first_media);
        self.queued.merge(&other.queued);
        self.send_lag.merge(&other.send_lag);
        self.not_authentic += other.not_authentic;
        self.malformed += other.malformed;
        self.send_errors += other.send_errors;
        self.connected += other.connected;
        self.with_media += other.with_media;
        self.without_media.extend(other.without_media);
        self.failed.extend(other.failed);
        merge_findings(&mut self.findings, other.findings);
        self.gaps.extend(other.gaps);
        for ((kind, csrc), votes) in other.votes {
            for (participant, count) in votes {
                self.vote(kind, csrc, participant, count);
            }
        }
        for (at, second) in other.seconds.into_iter().enumerate() {
            let mine = self.second(at as u64 * 1_000_000);
            mine.sent += second.sent;
            mine.received += second.received;
            mine.lost += second.lost;
            match (&mut mine.delay, second.delay) {
                (Some(mine), Some(theirs)) => {
                    let _ = mine.add(&*theirs);
                }
                (none @ None, theirs) => *none = theirs,
                (Some(_), None) => {}
            }
        }
    }

    /// A CSRC is whose it mostly was; what was another's is wrong.
    fn judge_votes(&mut self) {
        let votes = std::mem::take(&mut self.votes);
        let mut votes: Vec<_> = votes.into_iter().collect();
        votes.sort_unstable_by_key(|(key, _)| *key);
        for ((kind, csrc), mut votes) in votes {
            votes.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
            let Some(((owner, most), others)) = votes.split_first() else {
                continue;
            };
            for (other, count) in others {
                self.kind(kind).counts.wrong_csrc += count;
                let finding = self.findings.entry("wrong CSRC").or_insert_with(|| Finding {
                    count: 0,
                    example: format!(
                        "{kind:?}: CSRC {csrc:#010x} was participant {owner} in {most} packets and {other} in {count}"
                    ),
                });
                finding.count += count;
            }
        }
    }

    /// The report of it all.
    #[must_use]
    pub fn report(mut self, seconds: f64, legs: u64) -> MediaReport {
        self.judge_votes();
        self.without_media.sort_unstable();
        let series = self.seconds.iter().enumerate().map(|(at, second)| {
            let quantile = |q: f64| {
                let delay = second.delay.as_ref();
                delay.map(|delay| delay.value_at_quantile(q))
            };
            Second {
                second: at as u64,
                sent: second.sent,
                received: second.received,
                lost: second.lost,
                delay_p50: quantile(0.5),
                delay_p99: quantile(0.99),
            }
        });
        MediaReport {
            seconds,
            legs,
            connected: self.connected,
            series: series.collect(),
            without_media: self.without_media,
            failed: self.failed,
            audio: finish_kind(self.audio),
            video: finish_kind(self.video),
            rtcp: self.rtcp,
            connect_time: self.connect_time.percentiles(),
            first_media: self.first_media.percentiles(),
            queued: self.queued.percentiles(),
            send_lag: self.send_lag.percentiles(),
            not_authentic: self.not_authentic,
            malformed: self.malformed,
            send_errors: self.send_errors,
            findings: self.findings,
            gaps: self.gaps,
        }
    }
}

fn finish_kind(kind: KindTally) -> KindReport {
    KindReport {
        lost: kind.lost.max(0) as u64,
        delay: kind.delay.percentiles(),
        jitter: kind.jitter.percentiles(),
        switch_delay: kind.switch_delay.percentiles(),
        delay_histogram: kind.delay.buckets(),
        switch_delay_histogram: kind.switch_delay.buckets(),
        ..kind.counts
    }
}

fn merge_kind(into: &mut KindTally, from: KindTally) {
    let (a, b) = (&mut into.counts, from.counts);
    a.sent += b.sent;
    a.sent_octets += b.sent_octets;
    a.received += b.received;
    a.received_octets += b.received_octets;
    a.late += b.late;
    a.duplicates += b.duplicates;
    a.doubled += b.doubled;
    a.skipped += b.skipped;
    a.sequence_jumps += b.sequence_jumps;
    a.gaps_at_switches += b.gaps_at_switches;
    a.timestamp_breaks += b.timestamp_breaks;
    a.switches += b.switches;
    a.without_csrc += b.without_csrc;
    a.echoes += b.echoes;
    a.keyframes += b.keyframes;
    a.undecodable_starts += b.undecodable_starts;
    a.picture_breaks += b.picture_breaks;
    a.stamped += b.stamped;
    into.lost += from.lost;
    into.delay.merge(&from.delay);
    into.jitter.merge(&from.jitter);
    into.switch_delay.merge(&from.switch_delay);
}

fn merge_rtcp(into: &mut RtcpReport, from: RtcpReport) {
    into.sent += from.sent;
    into.received += from.received;
    into.sender_reports += from.sender_reports;
    into.report_blocks += from.report_blocks;
    into.retransmitted += from.retransmitted;
    into.keyframe_requests += from.keyframe_requests;
    into.plis_sent += from.plis_sent;
    into.byes += from.byes;
    merge_findings(&mut into.findings, from.findings);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csrc_is_whose_it_mostly_was_over_all_threads() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.vote(Kind::Audio, 9, 1, 5);
        one.vote(Kind::Audio, 9, 2, 7);
        two.vote(Kind::Audio, 9, 1, 4);
        two.vote(Kind::Video, 9, 2, 4);
        one.merge(two);
        let report = one.report(1.0, 2);
        assert_eq!(report.audio.wrong_csrc, 7);
        assert_eq!(report.video.wrong_csrc, 0);
        let finding = &report.findings["wrong CSRC"];
        assert_eq!(finding.count, 7);
        assert!(
            finding.example.contains("participant 1 in 9"),
            "{finding:?}"
        );
    }

    #[test]
    fn times_without_media_are_kept_where_they_are_long() {
        let mut tally = Tally::default();
        tally.on_gap(1, 1_000_000, 1_100_000);
        tally.on_gap(2, 1_000_000, 1_100_001);
        let gaps = tally.report(2.0, 2).gaps;
        assert_eq!(gaps.len(), 1);
        assert_eq!((gaps[0].participant, gaps[0].to), (2, 1_100_001));
    }

    #[test]
    fn seconds_of_threads_are_added() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.on_received(2_500_000, 3, Some(100));
        two.on_received(2_600_000, -1, Some(300));
        two.on_received(1_000_000, 0, None);
        two.on_sent(0);
        one.merge(two);
        let series = one.report(3.0, 1).series;
        assert_eq!(series.len(), 3);
        assert_eq!((series[0].sent, series[1].received), (1, 1));
        assert_eq!((series[2].received, series[2].lost), (2, 2));
        assert_eq!(
            (series[2].delay_p50, series[2].delay_p99),
            (Some(100), Some(301))
        );
        assert_eq!(series[1].delay_p50, None);
    }
}
