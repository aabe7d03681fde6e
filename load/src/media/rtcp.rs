//! RTCP of one leg: what is wrong with what comes, and what there is to report (RFC 3550 §6).

use std::sync::atomic::{AtomicU32, Ordering};

use switch_core::rtcp::{Element, Elements, ReportBlock, nack_numbers};

use super::check::Stream;
use super::report::Findings;
use super::tally::{Tally, note};

/// How far the two clocks of a sender report may be apart from those of another, or of the packets, µs. Reports are
/// made when they are due, not when a packet leaves.
const CLOCK_TOLERANCE_US: i64 = 1_000_000;

/// A stream that has been quiet for longer says nothing about its clock, µs.
const QUIET_US: u64 = 2_000_000;

/// Packets a report may count more or less than came: some are on their way, some were sent before the leg's answer.
const COUNT_TOLERANCE: u64 = 100;

/// Jitter beyond this is a mistake in the arithmetic, s.
const MOST_JITTER: u32 = 5;

/// A stream of ours, as the sending thread tells of it.
#[derive(Debug)]
pub struct OwnStream {
    /// Its SSRC.
    pub ssrc: u32,
    /// Hz.
    pub clock_rate: AtomicU32,
    /// Highest sequence number sent.
    pub highest: AtomicU32,
    /// Packets sent.
    pub packets: AtomicU32,
}

impl OwnStream {
    /// One that has sent nothing.
    #[must_use]
    pub fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            clock_rate: AtomicU32::new(0),
            highest: AtomicU32::new(0),
            packets: AtomicU32::new(0),
        }
    }
}

/// What the peer wants of a stream of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// A key frame (PLI, FIR), of this SSRC.
    Keyframe(u32),
    /// This number of this SSRC again.
    Missing(u32, u16),
}

/// A sender report as it was seen.
#[derive(Clone, Copy, Debug)]
struct SenderReport {
    ssrc: u32,
    ntp: u64,
    rtp: u32,
    packets: u32,
    /// When it came, µs.
    at: u64,
    /// Packets of the stream that should have come by then.
    expected: u64,
}

/// The RTCP of one leg.
#[derive(Debug, Default)]
pub struct RtcpCheck {
    reports: Vec<SenderReport>,
}

/// Reports of other SSRCs are not kept beyond so many.
const MOST_REPORTS: usize = 64;

fn word(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|c| u32::from_be_bytes(*c))
}

/// µs between two NTP timestamps.
fn ntp_us(later: u64, earlier: u64) -> i64 {
    (((i128::from(later) - i128::from(earlier)) * 1_000_000) >> 32) as i64
}

/// µs of a distance of RTP timestamps.
fn rtp_us(later: u32, earlier: u32, clock_rate: u32) -> i64 {
    i64::from(later.wrapping_sub(earlier) as i32) * 1_000_000 / i64::from(clock_rate.max(1))
}

impl RtcpCheck {
    /// Checks a compound that came at `at` µs; what it asks for goes to `feedback`.
    pub fn on_compound(
        &mut self,
        compound: &[u8],
        at: u64,
        streams: &mut [Stream],
        own: &[&OwnStream],
        tally: &mut Tally,
        feedback: &mut Vec<Feedback>,
    ) {
        tally.rtcp.received += 1;
        check_form(compound, &mut tally.rtcp.findings);
        let mut elements = Elements::new(compound);
        let mut place = compound;
        for element in elements.by_ref() {
            let raw = place;
            let length = raw
                .get(2..4)
                .map_or(0, |l| usize::from(u16::from_be_bytes([l[0], l[1]])));
            place = place.get(4 + 4 * length..).unwrap_or_default();
            match element {
                Element::SenderReport {
                    ssrc,
                    ntp,
                    rtp,
                    blocks,
                } => {
                    tally.rtcp.sender_reports += 1;
                    let packets = word(raw, 20).unwrap_or(0);
                    let report = SenderReport {
                        ssrc,
                        ntp,
                        rtp,
                        packets,
                        at,
                        expected: 0,
                    };
                    self.on_sender_report(report, streams, &mut tally.rtcp.findings);
                    blocks.for_each(|block| check_block(&block, own, tally));
                }
                Element::ReceiverReport { blocks, .. } => {
                    blocks.for_each(|block| check_block(&block, own, tally));
                }
                Element::Bye(ssrcs) => {
                    tally.rtcp.byes += 1;
                    for ssrc in ssrcs {
                        streams
                            .iter_mut()
                            .filter(|s| s.ssrc == ssrc)
                            .for_each(|s| s.ended = true);
                        self.reports.retain(|r| r.ssrc != ssrc);
                    }
                }
                Element::Nack { media, pairs } => {
                    let numbers = pairs.flat_map(nack_numbers);
                    feedback.extend(numbers.map(|number| Feedback::Missing(media, number)));
                }
                Element::Pli { media } => {
                    tally.rtcp.keyframe_requests += 1;
                    feedback.push(Feedback::Keyframe(media));
                }
                Element::Fir { entries } => {
                    tally.rtcp.keyframe_requests += 1;
                    // SSRC and sequence number, a word each (RFC 5104 §4.3.1.1)
                    feedback.extend(entries.step_by(2).map(Feedback::Keyframe));
                }
                _ => {}
            }
        }
        if elements.malformed() {
            note(&mut tally.rtcp.findings, "a length that lies", || {
                hex(compound)
            });
        }
    }

    fn on_sender_report(
        &mut self,
        mut report: SenderReport,
        streams: &[Stream],
        findings: &mut Findings,
    ) {
        let ssrc = report.ssrc;
        let stream = streams.iter().find(|s| s.ssrc == ssrc);
        if let Some(stream) = stream {
            report.expected = stream.sequence.expected_and_received().0;
            let (timestamp, arrival) = stream.newest;
            let quiet = report.at.saturating_sub(arrival);
            let off = rtp_us(report.rtp, timestamp, stream.format.clock_rate) - quiet as i64;
            if quiet < QUIET_US && off.abs() > CLOCK_TOLERANCE_US {
                note(
                    findings,
                    "sender report far from its stream's timestamps",
                    || format!("SSRC {ssrc:#010x}: {} ms", off / 1000),
                );
            }
        } else if u64::from(report.packets) > COUNT_TOLERANCE {
            note(findings, "sender report of packets that never came", || {
                format!("SSRC {ssrc:#010x}: {}", report.packets)
            });
        }
        let Some(known) = self.reports.iter_mut().find(|r| r.ssrc == ssrc) else {
            if self.reports.len() < MOST_REPORTS {
                self.reports.push(report);
            }
            return;
        };
        let before = std::mem::replace(known, report);
        let Some(stream) = stream else {
            return;
        };
        let wall = ntp_us(report.ntp, before.ntp);
        let media = rtp_us(report.rtp, before.rtp, stream.format.clock_rate);
        if (wall - media).abs() > CLOCK_TOLERANCE_US {
            note(findings, "sender reports whose clocks part", || {
                let (wall, media) = (wall / 1000, media / 1000);
                format!("SSRC {ssrc:#010x}: {wall} ms NTP, {media} ms RTP")
            });
        }
        let told = u64::from(report.packets.wrapping_sub(before.packets));
        let due = report.expected.saturating_sub(before.expected);
        if before.expected > 0 && told.abs_diff(due) > COUNT_TOLERANCE + due / 10 {
            note(
                findings,
                "sender report that counts other packets than came",
                || format!("SSRC {ssrc:#010x}: {told} sent, {due} by their numbers"),
            );
        }
    }

    /// Report blocks about the streams of an m-line.
    pub fn blocks(&self, streams: &mut [Stream], media: usize, at: u64) -> Vec<ReportBlock> {
        let of_media = streams
            .iter_mut()
            .filter(|s| s.format.media == media && !s.ended);
        of_media
            .take(switch_core::rtcp::MAX_BLOCKS)
            .map(|stream| {
                let (highest, cumulative_lost, fraction_lost) = stream.sequence.report();
                let report = self.reports.iter().find(|r| r.ssrc == stream.ssrc);
                // RFC 3550 §6.4.1: middle 32 bits; delay in 1/65536 s
                let (last_sr, delay) = report.map_or((0, 0), |r| {
                    let delay = u128::from(at.saturating_sub(r.at)) * 65_536 / 1_000_000;
                    ((r.ntp >> 16) as u32, delay as u32)
                });
                ReportBlock {
                    ssrc: stream.ssrc,
                    fraction_lost,
                    cumulative_lost,
                    highest,
                    jitter: stream.jitter(),
                    last_sr,
                    delay,
                }
            })
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(64).map(|b| format!("{b:02x}")).collect()
}

/// RFC 3550 §6.1: SR or RR first, a CNAME in each.
fn check_form(compound: &[u8], findings: &mut Findings) {
    const SR: u8 = 200;
    const RR: u8 = 201;
    const SDES: u8 = 202;
    const CNAME: u8 = 1;
    if !matches!(compound.get(1), Some(&(SR | RR))) {
        note(
            findings,
            "a compound that begins with neither SR nor RR",
            || hex(compound),
        );
        return;
    }
    let mut rest = compound;
    while let Some(head) = rest.first_chunk::<4>() {
        let length = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        if head[1] == SDES && rest.get(8) == Some(&CNAME) {
            return;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    note(findings, "a compound without CNAME", || hex(compound));
}

fn check_block(block: &ReportBlock, own: &[&OwnStream], tally: &mut Tally) {
    let findings = &mut tally.rtcp.findings;
    let Some(stream) = own.iter().find(|s| s.ssrc == block.ssrc) else {
        note(findings, "a report about a stream that is not ours", || {
            format!("{:#010x}", block.ssrc)
        });
        return;
    };
    tally.rtcp.report_blocks += 1;
    let packets = stream.packets.load(Ordering::Relaxed);
    let highest = stream.highest.load(Ordering::Relaxed) as u16;
    let clock_rate = stream.clock_rate.load(Ordering::Relaxed);
    if (block.highest as u16).wrapping_sub(highest) as i16 > 0 {
        note(findings, "a report of numbers that were not sent", || {
            format!(
                "{} of {:#010x}, {highest} was the last",
                block.highest as u16, block.ssrc
            )
        });
    }
    if i64::from(block.cumulative_lost) > i64::from(packets) {
        note(findings, "a report of more loss than was sent", || {
            let lost = block.cumulative_lost;
            format!("{lost} of {packets} of {:#010x}", block.ssrc)
        });
    }
    if clock_rate > 0 && block.jitter > MOST_JITTER * clock_rate {
        note(findings, "a report of impossible jitter", || {
            format!("{} units at {clock_rate} Hz", block.jitter)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{Format, LegCheck};
    use super::super::schedule::{Schedule, Watch};
    use super::*;
    use crate::leg::Kind;
    use std::time::Duration;
    use switch_core::rtcp::{CompoundBuf, ntp};
    use switch_core::rtp::{Fixed, HeaderBuf, RtpView};

    const SECOND: u64 = 1_000_000;

    struct Rig {
        leg: LegCheck,
        rtcp: RtcpCheck,
        tally: Tally,
        own: OwnStream,
        feedback: Vec<Feedback>,
    }

    impl Rig {
        /// A leg that has been sent 20 ms packets for a second, until second 1, number 50.
        fn new() -> Self {
            let own = OwnStream::new(5);
            own.clock_rate.store(48_000, Ordering::Relaxed);
            own.highest.store(70_000, Ordering::Relaxed);
            own.packets.store(1000, Ordering::Relaxed);
            let mut rig = Self {
                leg: LegCheck::new(1, 0, 0),
                rtcp: RtcpCheck::default(),
                tally: Tally::default(),
                own,
                feedback: Vec::new(),
            };
            for number in 1..=50 {
                rig.packet(number);
            }
            rig
        }

        fn packet(&mut self, number: u16) {
            let format = Format {
                payload_type: 111,
                kind: Kind::Audio,
                media: 0,
                clock_rate: 48_000,
                vp8: false,
                proper: true,
            };
            let mut buf = HeaderBuf::default();
            let fixed = Fixed {
                marker: false,
                payload_type: 111,
                sequence: number,
                timestamp: u32::from(number) * 960,
                ssrc: 7,
                csrc: None,
            };
            let packet = buf.write(fixed, &[]).to_vec();
            let view = RtpView::parse(&packet).unwrap();
            let mut watch = Watch::new(Schedule::new(1, 0));
            let at = u64::from(number) * 20_000;
            self.leg
                .on_rtp(&view, &[format], at, &mut self.tally, &mut watch);
        }

        fn read(&mut self, compound: &[u8], at: u64) {
            let streams = self.leg.streams();
            let (tally, feedback) = (&mut self.tally, &mut self.feedback);
            self.rtcp
                .on_compound(compound, at, streams, &[&self.own], tally, feedback);
        }

        fn sender_report(&mut self, at: u64, rtp: u32, packets: u32) {
            let mut compound = CompoundBuf::default();
            let wall = ntp(Duration::from_secs(1_700_000_000) + Duration::from_micros(at));
            compound.sender_report(7, wall, rtp, packets, 0, &[]);
            compound.cname(7, "server");
            self.read(compound.bytes(), at);
        }

        fn block(&mut self, block: ReportBlock) {
            let mut compound = CompoundBuf::default();
            compound.receiver_report(9, &[block]);
            compound.cname(9, "server");
            self.read(compound.bytes(), SECOND);
        }

        fn findings(&self) -> Vec<&'static str> {
            self.tally.rtcp.findings.keys().copied().collect()
        }
    }

    fn good() -> ReportBlock {
        ReportBlock {
            ssrc: 5,
            fraction_lost: 0,
            cumulative_lost: 3,
            highest: 70_000,
            jitter: 100,
            last_sr: 0,
            delay: 0,
        }
    }

    #[test]
    fn good_reports_have_nothing_wrong() {
        let mut rig = Rig::new();
        rig.sender_report(SECOND, 48_000, 50);
        for number in 51..=150 {
            rig.packet(number);
        }
        rig.sender_report(3 * SECOND, 3 * 48_000, 150);
        rig.block(good());
        assert_eq!(rig.findings(), [] as [&str; 0]);
        assert_eq!(rig.tally.rtcp.sender_reports, 2);
        assert_eq!(rig.tally.rtcp.report_blocks, 1);
    }

    #[test]
    fn a_sender_report_off_its_stream_or_off_itself_is_found() {
        let mut rig = Rig::new();
        rig.sender_report(SECOND, 48_000 * 5, 50);
        assert_eq!(
            rig.findings(),
            ["sender report far from its stream's timestamps"]
        );
        let mut rig = Rig::new();
        rig.sender_report(SECOND, 48_000, 50);
        rig.sender_report(20 * SECOND, 48_000 * 7, 50);
        assert_eq!(rig.findings(), ["sender reports whose clocks part"]);
        let mut rig = Rig::new();
        rig.sender_report(SECOND, 48_000, 50);
        rig.sender_report(2 * SECOND, 48_000 * 2, 500);
        assert_eq!(
            rig.findings(),
            ["sender report that counts other packets than came"]
        );
    }

    #[test]
    fn blocks_about_others_and_of_impossible_values_are_found() {
        let cases = [
            (
                ReportBlock { ssrc: 6, ..good() },
                "a report about a stream that is not ours",
            ),
            (
                ReportBlock {
                    highest: 70_001,
                    ..good()
                },
                "a report of numbers that were not sent",
            ),
            (
                ReportBlock {
                    cumulative_lost: 1001,
                    ..good()
                },
                "a report of more loss than was sent",
            ),
            (
                ReportBlock {
                    jitter: 48_000 * 9,
                    ..good()
                },
                "a report of impossible jitter",
            ),
        ];
        for (block, finding) in cases {
            let mut rig = Rig::new();
            rig.block(block);
            assert_eq!(rig.findings(), [finding]);
        }
    }

    #[test]
    fn the_form_of_compounds_is_checked() {
        let mut compound = CompoundBuf::default();
        compound.pli(1, 5);
        let mut rig = Rig::new();
        rig.read(compound.bytes(), SECOND);
        assert_eq!(
            rig.findings(),
            ["a compound that begins with neither SR nor RR"]
        );
        assert_eq!(rig.feedback, [Feedback::Keyframe(5)]);
        compound.clear();
        compound.receiver_report(1, &[]);
        let mut rig = Rig::new();
        rig.read(compound.bytes(), SECOND);
        assert_eq!(rig.findings(), ["a compound without CNAME"]);
        compound.cname(1, "a");
        let mut cut = compound.bytes().to_vec();
        cut.extend_from_slice(&[0x80, 201, 0, 9]);
        let mut rig = Rig::new();
        rig.read(&cut, SECOND);
        assert_eq!(rig.findings(), ["a length that lies"]);
    }

    #[test]
    fn requests_reach_the_sender_and_bye_ends_a_stream() {
        let mut compound = CompoundBuf::default();
        compound.receiver_report(1, &[]);
        compound.cname(1, "a");
        compound.fir(1, 5, 3);
        compound.nack(1, 5, &[9, 11]);
        let mut bytes = compound.bytes().to_vec();
        bytes.extend_from_slice(&[0x81, 203, 0, 1, 0, 0, 0, 7]);
        let mut rig = Rig::new();
        rig.read(&bytes, SECOND);
        let missing = |number| Feedback::Missing(5, number);
        assert_eq!(
            rig.feedback,
            [Feedback::Keyframe(5), missing(9), missing(11)]
        );
        assert!(rig.leg.streams()[0].ended);
        assert_eq!(rig.findings(), [] as [&str; 0]);
    }

    #[test]
    fn our_report_blocks_tell_of_loss_and_of_the_last_sender_report() {
        let mut rig = Rig::new();
        rig.sender_report(SECOND, 48_000, 50);
        rig.packet(54);
        let at = SECOND * 3 / 2;
        let blocks = rig.rtcp.blocks(rig.leg.streams(), 0, at);
        assert_eq!(blocks.len(), 1);
        let block = blocks[0];
        assert_eq!(
            (block.ssrc, block.highest, block.cumulative_lost),
            (7, 54, 3)
        );
        assert_eq!(block.fraction_lost, (3 * 256 / 54) as u8);
        assert_eq!(block.delay, 32_768);
        assert_ne!(block.last_sr, 0);
        assert!(rig.rtcp.blocks(rig.leg.streams(), 1, at).is_empty());
    }
}
