//! What one leg is sent, packet by packet: numbers, timestamps, sources, pictures, stamps. Told the time, does no IO and
//! allocates nothing once a stream is known.

use std::time::Duration;

use switch_core::rewrite::vp8::Vp8Descriptor;
use switch_core::rtp::RtpView;

use super::schedule::Watch;
use super::sequence::{Order, Sequence};
use super::stamp::Stamp;
use super::tally::{Tally, note};
use crate::leg::Kind;

/// Streams of a leg that are followed; a server with more than that has lost its way.
const MOST_STREAMS: usize = 64;

/// How far a timestamp may be from real time since the packet before. Pauses in the network and the machine are well
/// below; a server that does not rewrite timestamps is far above.
const CLOCK_TOLERANCE_US: i64 = 500_000;

/// Timestamps further apart are two spurts: between them a server may take up the clock anew, which is no jitter.
const SPURT_GAP_US: i64 = 100_000;

/// While a picture does not begin, a key frame is asked for this often.
const PLI_INTERVAL_US: u64 = 500_000;

/// What a payload type means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Payload type.
    pub payload_type: u8,
    /// Audio or video.
    pub kind: Kind,
    /// Which of the leg's m-lines.
    pub media: usize,
    /// Hz.
    pub clock_rate: u32,
    /// Frames in VP8.
    pub vp8: bool,
    /// Media proper, not events, comfort noise or repairs, whose timestamps have rules of their own.
    pub proper: bool,
}

/// Who is in a stream now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Unknown,
    Csrc(u32),
    Sender(u16),
}

/// Packets of one CSRC that belong to one participant, not yet counted in the tally.
#[derive(Clone, Copy, Debug)]
struct Vote {
    csrc: u32,
    participant: u32,
    count: u64,
}

/// One received SSRC.
#[derive(Debug)]
pub struct Stream {
    /// Its SSRC.
    pub ssrc: u32,
    /// How it is read now.
    pub format: Format,
    /// Its numbers.
    pub sequence: Sequence,
    /// Timestamp and arrival of the newest packet.
    pub newest: (u32, u64),
    /// RFC 3550 §A.8, in clock units times 16.
    jitter: i64,
    source: Source,
    names_sources: bool,
    stamped: bool,
    /// The last one and when it came, while no gap and no change of source lie between.
    last_stamp: Option<(Stamp, u64)>,
    vote: Option<Vote>,
    picture: Option<(u16, bool)>,
    waits_for_keyframe: bool,
    pli_at: u64,
    /// Another source fills it, whose first stamp is still to come.
    turned: bool,
    /// BYE came.
    pub ended: bool,
}

/// Which packets of a speaker a leg has had.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    any: bool,
    highest: u32,
    seen: u64,
    spurt: Option<u16>,
}

impl Heard {
    /// Whether this packet had come before, in another stream or under another number.
    fn again(&mut self, counter: u32) -> bool {
        if !self.any {
            *self = Self {
                any: true,
                highest: counter,
                seen: 1,
                ..*self
            };
            return false;
        }
        let delta = counter.wrapping_sub(self.highest) as i32;
        if delta > 0 {
            self.seen = self.seen.checked_shl(delta as u32).unwrap_or(0) | 1;
            self.highest = counter;
            return false;
        }
        let bit = 1u64.checked_shl(delta.unsigned_abs()).unwrap_or(0);
        let again = self.seen & bit != 0;
        self.seen |= bit;
        again
    }
}

/// All checks of one leg.
#[derive(Debug)]
pub struct LegCheck {
    participant: u32,
    /// When the leg began, µs: spurts that began earlier say nothing about switching.
    connected: u64,
    streams: Vec<Stream>,
    /// Of each scheduled speaker, audio and video.
    audio: Vec<Heard>,
    video: Vec<Heard>,
    first_media: Option<u64>,
    /// Arrival of the newest RTP packet of any stream, µs.
    last_media: Option<u64>,
}

/// What the leg knows of a packet before it is checked.
struct Packet<'a, 'b> {
    view: &'b RtpView<'a>,
    payload: &'a [u8],
    at: u64,
    stamp: Option<Stamp>,
    csrc: Option<u32>,
}

impl LegCheck {
    /// A leg that was answered at `connected` µs.
    #[must_use]
    pub fn new(participant: u32, speakers: usize, connected: u64) -> Self {
        Self {
            participant,
            connected,
            streams: Vec::new(),
            audio: vec![Heard::default(); speakers],
            video: vec![Heard::default(); speakers],
            first_media: None,
            last_media: None,
        }
    }

    /// Its streams.
    pub fn streams(&mut self) -> &mut [Stream] {
        &mut self.streams
    }

    /// When the first RTP came, µs.
    #[must_use]
    pub fn first_media(&self) -> Option<u64> {
        self.first_media
    }

    /// Counts what was kept back; the leg ends at `at` µs.
    pub fn finish(&mut self, at: u64, tally: &mut Tally) {
        if let Some(last) = self.last_media {
            tally.on_gap(self.participant, last, at);
        }
        for stream in &mut self.streams {
            flush_vote(stream, tally);
        }
    }

    /// SSRCs (and m-lines) of pictures that have not begun and should be asked for now.
    pub fn keyframes_missing(&mut self, at: u64) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.streams.iter_mut().filter_map(move |stream| {
            let due = stream.waits_for_keyframe && at >= stream.pli_at;
            due.then(|| {
                stream.pli_at = at + PLI_INTERVAL_US;
                (stream.format.media, stream.ssrc)
            })
        })
    }

    /// Checks a packet that arrived at `at` µs. `formats` are the payload types agreed on where it arrived.
    #[inline]
    pub fn on_rtp(
        &mut self,
        view: &RtpView<'_>,
        formats: &[Format],
        at: u64,
        tally: &mut Tally,
        watch: &mut Watch,
    ) {
        let Some(index) = self.stream(view, formats, at, tally) else {
            tally.malformed += 1;
            return;
        };
        let payload = view.payload();
        let packet = Packet {
            view,
            payload,
            at,
            stamp: Stamp::find(payload),
            csrc: view.csrcs().next(),
        };
        let stream = &mut self.streams[index];
        if stream.ended {
            note(&mut tally.rtcp.findings, "media after BYE", || {
                format!("SSRC {:#010x}", stream.ssrc)
            });
            stream.ended = false;
        }
        let kind = stream.format.kind;
        let order = stream.sequence.on_packet(view.sequence());
        let lost = count_order(stream, order, &packet, tally);
        if order == Order::Duplicate {
            return;
        }
        let delay = packet.stamp.map(|stamp| at.saturating_sub(stamp.sent));
        tally.on_received(at, lost, delay);
        let counts = tally.kind(kind);
        counts.counts.received += 1;
        counts.counts.received_octets += payload.len() as u64;
        if let Some(last) = self.last_media {
            tally.on_gap(self.participant, last, at);
        }
        self.last_media = Some(self.last_media.map_or(at, |last| last.max(at)));
        if self.first_media.is_none() {
            self.first_media = Some(at);
            tally.with_media += 1;
            tally.first_media.record(at.saturating_sub(self.connected));
        }
        if let (Some(delay), Some(stamp)) = (delay, packet.stamp) {
            stream.stamped = true;
            let counts = tally.kind(kind);
            counts.delay.record(delay);
            counts.counts.stamped += 1;
            if u32::from(stamp.sender) == self.participant {
                counts.counts.echoes += 1;
                note(&mut tally.findings, "own media came back", || {
                    format!("{kind:?} of participant {}", stamp.sender)
                });
            }
        }
        vote(stream, &packet, tally, watch);
        let changed = change_source(stream, &packet, tally);
        if !matches!(order, Order::Late { .. }) && stream.format.proper {
            let follows = order == Order::Newer(0);
            check_clock(stream, &packet, order, changed, tally);
            if stream.format.vp8 {
                check_picture(
                    stream,
                    &packet,
                    follows,
                    changed || order == Order::First,
                    tally,
                );
            }
            check_skipped(stream, &packet, follows && !changed, tally);
            stream.newest = (view.timestamp(), at);
        }
        // The stamp stands at the end of a frame, which is several packets after its begin.
        stream.turned |= changed || order == Order::First;
        if let Some(stamp) = packet.stamp {
            let turned = std::mem::take(&mut stream.turned);
            self.on_stamp(stamp, kind, turned, at, tally);
        }
    }

    fn stream(
        &mut self,
        view: &RtpView<'_>,
        formats: &[Format],
        at: u64,
        tally: &mut Tally,
    ) -> Option<usize> {
        let (ssrc, payload_type) = (view.ssrc(), view.payload_type());
        let known = self.streams.iter().position(|s| s.ssrc == ssrc);
        if let Some(known) = known
            && self.streams[known].format.payload_type == payload_type
        {
            return Some(known);
        }
        let format = formats.iter().find(|f| f.payload_type == payload_type);
        let Some(format) = format else {
            note(&mut tally.findings, "payload type not agreed on", || {
                format!("{payload_type} to participant {}", self.participant)
            });
            return None;
        };
        if let Some(known) = known {
            self.streams[known].format = *format;
            return Some(known);
        }
        if self.streams.len() >= MOST_STREAMS {
            note(&mut tally.findings, "more SSRCs than anybody needs", || {
                format!("to participant {}", self.participant)
            });
            return None;
        }
        self.streams.push(Stream {
            ssrc,
            format: *format,
            sequence: Sequence::default(),
            newest: (view.timestamp(), at),
            jitter: 0,
            source: Source::Unknown,
            names_sources: false,
            stamped: false,
            last_stamp: None,
            vote: None,
            picture: None,
            waits_for_keyframe: false,
            pli_at: 0,
            turned: false,
            ended: false,
        });
        Some(self.streams.len() - 1)
    }

    /// What only the leg as a whole can say of a stamped packet.
    fn on_stamp(&mut self, stamp: Stamp, kind: Kind, switched: bool, at: u64, tally: &mut Tally) {
        let all = match kind {
            Kind::Audio => &mut self.audio,
            Kind::Video => &mut self.video,
        };
        let Some(heard) = all.get_mut(usize::from(stamp.sender)) else {
            return;
        };
        if heard.again(stamp.counter) && kind == Kind::Audio {
            tally.audio.counts.doubled += 1;
            note(&mut tally.findings, "a speaker twice", || {
                let (sender, counter) = (stamp.sender, stamp.counter);
                format!("packet {counter} of {sender} to {}", self.participant)
            });
        }
        let Some(since) = stamp.since else {
            return;
        };
        let fresh = heard.spurt != Some(stamp.spurt);
        if kind == Kind::Video && !switched {
            // The picture of who begins to talk was there before: nothing was switched.
            return;
        }
        let began = stamp.sent.saturating_sub(u64::from(since) * 1000);
        if fresh && began >= self.connected {
            tally
                .kind(kind)
                .switch_delay
                .record(at.saturating_sub(began));
        }
        heard.spurt = Some(stamp.spurt);
    }
}

impl Stream {
    /// Interarrival jitter in clock units (RFC 3550 §A.8).
    #[must_use]
    pub fn jitter(&self) -> u32 {
        (self.jitter / 16) as u32
    }
}

/// Counts what the number says; how many more are missing.
fn count_order(
    stream: &mut Stream,
    order: Order,
    packet: &Packet<'_, '_>,
    tally: &mut Tally,
) -> i64 {
    let kind = stream.format.kind;
    let counts = tally.kind(kind);
    let lost = match order {
        Order::First => 0,
        Order::Newer(missing) => missing as i64,
        Order::Late { counted } => {
            counts.counts.late += 1;
            -i64::from(counted)
        }
        Order::Duplicate => {
            counts.counts.duplicates += 1;
            0
        }
        Order::Jump => {
            counts.counts.sequence_jumps += 1;
            note(&mut tally.findings, "sequence jump", || {
                let number = packet.view.sequence();
                format!("{kind:?} SSRC {:#010x} to {number}", stream.ssrc)
            });
            0
        }
    };
    tally.kind(kind).lost += lost;
    if let Order::Newer(1..) | Order::Jump = order {
        stream.last_stamp = None;
        stream.picture = None;
        if let Source::Csrc(before) = stream.source
            && packet.csrc.is_some_and(|now| now != before)
        {
            tally.kind(kind).counts.gaps_at_switches += 1;
            note(
                &mut tally.findings,
                "gap in the numbers at a change of source",
                || {
                    let (ssrc, number) = (stream.ssrc, packet.view.sequence());
                    format!("{kind:?} SSRC {ssrc:#010x}, before {number}")
                },
            );
        }
    }
    lost
}

fn flush_vote(stream: &mut Stream, tally: &mut Tally) {
    if let Some(vote) = stream.vote.take() {
        tally.vote(stream.format.kind, vote.csrc, vote.participant, vote.count);
    }
}

/// Whose is the CSRC: the stamp knows; in a stream without stamps the schedule does while only one talks.
fn vote(stream: &mut Stream, packet: &Packet<'_, '_>, tally: &mut Tally, watch: &mut Watch) {
    let Some(csrc) = packet.csrc else {
        return;
    };
    let participant = match packet.stamp {
        Some(stamp) => u32::from(stamp.sender),
        None if stream.stamped || stream.format.kind == Kind::Video => return,
        None => match watch.alone(Duration::from_micros(packet.at)) {
            Some(speaker) => speaker,
            None => return,
        },
    };
    if let Some(vote) = &mut stream.vote
        && (vote.csrc, vote.participant) == (csrc, participant)
    {
        vote.count += 1;
        return;
    }
    flush_vote(stream, tally);
    stream.vote = Some(Vote {
        csrc,
        participant,
        count: 1,
    });
}

/// Whether the stream has another source now.
fn change_source(stream: &mut Stream, packet: &Packet<'_, '_>, tally: &mut Tally) -> bool {
    let kind = stream.format.kind;
    let now = match (packet.csrc, packet.stamp) {
        (Some(csrc), _) => Source::Csrc(csrc),
        // A frame's stamp comes with its last packet: too late to tell where the source changed.
        (None, Some(stamp)) if kind == Kind::Audio && !stream.names_sources => {
            Source::Sender(stamp.sender)
        }
        (None, _) => {
            if stream.names_sources {
                tally.kind(kind).counts.without_csrc += 1;
                note(
                    &mut tally.findings,
                    "no CSRC in a stream that has some",
                    || format!("{kind:?} SSRC {:#010x}", stream.ssrc),
                );
            }
            return false;
        }
    };
    stream.names_sources |= packet.csrc.is_some();
    let before = std::mem::replace(&mut stream.source, now);
    let changed = before != now && before != Source::Unknown;
    if changed {
        tally.kind(kind).counts.switches += 1;
    }
    changed
}

/// The timestamp goes on with real time, whoever the source is (RFC 3550 §5.1).
fn check_clock(
    stream: &mut Stream,
    packet: &Packet<'_, '_>,
    order: Order,
    changed: bool,
    tally: &mut Tally,
) {
    if !matches!(order, Order::Newer(_)) {
        return;
    }
    let (timestamp, arrival) = stream.newest;
    let rate = i64::from(stream.format.clock_rate).max(1);
    let units = i64::from(packet.view.timestamp().wrapping_sub(timestamp) as i32);
    let step = units * 1_000_000 / rate;
    let elapsed = packet.at.saturating_sub(arrival) as i64;
    let kind = stream.format.kind;
    let still = units == 0 && (changed || kind == Kind::Audio);
    if units < 0 || still || (step - elapsed).abs() > CLOCK_TOLERANCE_US {
        tally.kind(kind).counts.timestamp_breaks += 1;
        note(&mut tally.findings, "timestamp break", || {
            let (ssrc, number) = (stream.ssrc, packet.view.sequence());
            let place = if changed {
                "at a change of source"
            } else {
                "within a source"
            };
            format!(
                "{kind:?} SSRC {ssrc:#010x} number {number}: {} ms of timestamp in {} ms, {place}",
                step / 1000,
                elapsed / 1000
            )
        });
        return;
    }
    if changed || units == 0 || step > SPURT_GAP_US {
        return;
    }
    let variation = (step - elapsed).unsigned_abs();
    // stamps know better: when a packet really left
    if !stream.stamped {
        tally.kind(kind).jitter.record(variation);
    }
    let variation = variation as i64 * rate / 1_000_000;
    stream.jitter += variation - (stream.jitter + 8) / 16;
}

/// The picture can be decoded: it begins with a key frame, and ids and frame starts follow one another.
fn check_picture(
    stream: &mut Stream,
    packet: &Packet<'_, '_>,
    follows: bool,
    begins: bool,
    tally: &mut Tally,
) {
    let Some(descriptor) = Vp8Descriptor::parse(packet.payload) else {
        note(&mut tally.findings, "VP8 descriptor", || {
            format!("SSRC {:#010x}: nothing behind it", stream.ssrc)
        });
        return;
    };
    // S, and the first partition (RFC 7741 §4.2)
    let starts = packet.payload[0] & 0x17 == 0x10;
    let counts = &mut tally.video.counts;
    if descriptor.starts_keyframe() {
        counts.keyframes += 1;
        stream.waits_for_keyframe = false;
    } else if begins {
        counts.undecodable_starts += 1;
        stream.waits_for_keyframe = true;
        stream.pli_at = packet.at;
        note(
            &mut tally.findings,
            "a source that does not begin with a key frame",
            || {
                let (ssrc, number) = (stream.ssrc, packet.view.sequence());
                format!("SSRC {ssrc:#010x} number {number}")
            },
        );
    }
    let Some(id) = descriptor.picture_id else {
        return;
    };
    let marker = packet.view.marker();
    let before = stream.picture.replace((id, marker));
    let Some((last, ended)) = before.filter(|_| follows) else {
        return;
    };
    let mask = if descriptor.wide { 0x7fff } else { 0x7f };
    let expected = if ended {
        last.wrapping_add(1) & mask
    } else {
        last
    };
    if id != expected || starts != ended {
        tally.video.counts.picture_breaks += 1;
        note(&mut tally.findings, "picture break", || {
            let (ssrc, number) = (stream.ssrc, packet.view.sequence());
            let what = if starts { "begins" } else { "goes on with" };
            format!("SSRC {ssrc:#010x} number {number} {what} picture {id}, {expected} was due")
        });
    }
}

/// Between packets that follow one another, nothing of the source is missing; and how much closer or further apart they
/// came than they were sent.
fn check_skipped(stream: &mut Stream, packet: &Packet<'_, '_>, follows: bool, tally: &mut Tally) {
    let kind = stream.format.kind;
    if !follows {
        stream.last_stamp = None;
    }
    let Some(stamp) = packet.stamp else {
        return;
    };
    if let Some((last, arrival)) = stream.last_stamp.replace((stamp, packet.at))
        && last.sender == stamp.sender
        // a pause is no loss: the switch may have given the place away meanwhile
        && (last.spurt == stamp.spurt || kind == Kind::Video)
    {
        let (came, left) = (
            packet.at.wrapping_sub(arrival),
            stamp.sent.wrapping_sub(last.sent),
        );
        let variation = (came.wrapping_sub(left) as i64).unsigned_abs();
        tally.kind(kind).jitter.record(variation);
        let missing = stamp.counter.wrapping_sub(last.counter).wrapping_sub(1);
        if (1..1000).contains(&missing) {
            tally.kind(kind).counts.skipped += u64::from(missing);
            note(&mut tally.findings, "lost before or in the server", || {
                let number = packet.view.sequence();
                format!(
                    "{missing} of {kind:?} of participant {}, before number {number}",
                    stamp.sender
                )
            });
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
