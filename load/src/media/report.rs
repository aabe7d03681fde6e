//! What the media half has to say at the end, and while it runs.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A look at a running engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Legs that may send: keys are there, and with ICE a check has succeeded.
    pub connected: u64,
    /// Legs that have been sent RTP.
    pub with_media: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// RTP packets missing of those received.
    pub lost: u64,
    /// RTP packets received a second, over the last part of a second.
    pub packets_per_second: f64,
}

/// A histogram's summary in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// Least.
    pub min: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90 of 100 are below.
    pub p90: u64,
    /// 99 of 100 are below.
    pub p99: u64,
    /// 999 of 1000 are below.
    pub p999: u64,
    /// Greatest.
    pub max: u64,
}

impl Percentiles {
    /// Of a histogram in microseconds; `None` where nothing was measured.
    #[must_use]
    pub fn of<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

/// Part of a histogram: from, to, and how many values lie between.
pub type Bucket = (u64, u64, u64);

/// How much wider a bucket is than the one before. Lowering it draws finer and makes reports longer.
const WIDER: f64 = 1.15;

/// A histogram in buckets that grow with the values, for plots.
#[must_use]
pub fn buckets<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Vec<Bucket> {
    let mut from = 0;
    let steps = histogram.iter_log(1, WIDER).map(|step| {
        let to = step.value_iterated_to() + 1;
        let bucket = (from, to, step.count_since_last_iteration());
        from = to;
        bucket
    });
    steps.filter(|bucket| bucket.2 > 0).collect()
}

/// Something that should not be, how often it was seen, and one case of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How often.
    pub count: u64,
    /// The first case, for people.
    pub example: String,
}

/// Findings by their kind.
pub type Findings = BTreeMap<&'static str, Finding>;

/// Audio or video of all legs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KindReport {
    /// RTP packets sent.
    pub sent: u64,
    /// Octets of them, payload only.
    pub sent_octets: u64,
    /// RTP packets received, without duplicates.
    pub received: u64,
    /// Octets of them, payload only.
    pub received_octets: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Packets that came after one with a higher number.
    pub late: u64,
    /// Numbers that came again.
    pub duplicates: u64,
    /// Packets of a speaker that a leg got twice, under other numbers.
    pub doubled: u64,
    /// A source's packets (audio) or frames (video) left out between two that came with neighbouring numbers:
    /// lost on the way to the server, or by it.
    pub skipped: u64,
    /// Numbers so far from the last that they began a new count.
    pub sequence_jumps: u64,
    /// Changes of source with a gap in the numbers.
    pub gaps_at_switches: u64,
    /// Timestamps that went back, stood still at a change of source, or left the clock.
    pub timestamp_breaks: u64,
    /// Changes of source within a stream.
    pub switches: u64,
    /// Packets whose CSRC is mostly someone else's.
    pub wrong_csrc: u64,
    /// Packets that name no source, in streams that name sources else.
    pub without_csrc: u64,
    /// A leg's own voice or picture came back.
    pub echoes: u64,
    /// Video: key frames that began.
    pub keyframes: u64,
    /// Video: sources that did not begin with a key frame, so that nothing could be decoded.
    pub undecodable_starts: u64,
    /// Video: picture ids or frame starts that do not follow, without a gap in the numbers.
    pub picture_breaks: u64,
    /// Packets that carried our stamp. None: a mixer or transcoder is between, and no delay was measured.
    pub stamped: u64,
    /// One-way delay in µs; `None` where no stamps came.
    pub delay: Option<Percentiles>,
    /// How much closer or further apart two packets of a source came than they were sent (RFC 3393), in µs; where no
    /// stamps came, than their timestamps are (RFC 3550 §6.4.1, its D).
    pub jitter: Option<Percentiles>,
    /// From the begin of a talk spurt to the speaker's first packet at each listener, in µs; with video, to the change
    /// of picture. `None` where no stamps came.
    pub switch_delay: Option<Percentiles>,
    /// Values of [`Self::delay`] by size: from, to (µs) and how many; empty buckets left out.
    pub delay_histogram: Vec<Bucket>,
    /// The same of [`Self::switch_delay`].
    pub switch_delay_histogram: Vec<Bucket>,
}

/// RTCP of all legs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RtcpReport {
    /// Compounds sent.
    pub sent: u64,
    /// Compounds received.
    pub received: u64,
    /// Sender reports among them.
    pub sender_reports: u64,
    /// Report blocks about our streams.
    pub report_blocks: u64,
    /// NACKed packets that were sent again.
    pub retransmitted: u64,
    /// Requests for a key frame (PLI, FIR) received.
    pub keyframe_requests: u64,
    /// PLIs sent, since a picture did not begin.
    pub plis_sent: u64,
    /// BYEs received.
    pub byes: u64,
    /// What was wrong.
    pub findings: Findings,
}

/// One second of the run, all legs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// Seconds since the engine began.
    pub second: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// Numbers found missing.
    pub lost: i64,
    /// Median one-way delay in µs.
    pub delay_p50: Option<u64>,
    /// 99th percentile of it.
    pub delay_p99: Option<u64>,
}

/// A time in which a leg that had been sent RTP was sent none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Whose leg.
    pub participant: u32,
    /// Arrival of the last packet before, µs since the engine began.
    pub from: u64,
    /// Arrival of the first packet after, or the leg's end, µs since the engine began.
    pub to: u64,
}

/// All results.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MediaReport {
    /// Times without RTP of a leg, longer than a tenth of a second; the first ten thousand of each thread.
    pub gaps: Vec<Gap>,
    /// Length of the run in seconds.
    pub seconds: f64,
    /// Legs opened.
    pub legs: u64,
    /// Legs that could send.
    pub connected: u64,
    /// Legs that were to receive, and never got RTP.
    pub without_media: Vec<u32>,
    /// Legs that failed, and why.
    pub failed: BTreeMap<u32, String>,
    /// Audio.
    pub audio: KindReport,
    /// Video.
    pub video: KindReport,
    /// RTCP.
    pub rtcp: RtcpReport,
    /// From [`super::Engine::connect`] to keys (ICE and DTLS), in µs.
    pub connect_time: Option<Percentiles>,
    /// From [`super::Engine::connect`] to the first RTP packet, in µs.
    pub first_media: Option<Percentiles>,
    /// How long datagrams lay in our sockets before they were read, in µs: the tool's own part, not in the delays.
    pub queued: Option<Percentiles>,
    /// How late packets left against their time, in µs: the tool's own part, not in the delays.
    pub send_lag: Option<Percentiles>,
    /// Datagrams that were not authentic.
    pub not_authentic: u64,
    /// Datagrams that made no sense, or of payload types not agreed on.
    pub malformed: u64,
    /// Datagrams the socket refused to send.
    pub send_errors: u64,
    /// One case of each kind of error in what came.
    pub findings: Findings,
    /// Second by second.
    pub series: Vec<Second>,
}
