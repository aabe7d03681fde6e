//! Sequence numbers and timestamps of a slot over its sources.
//!
//! ```text
//!            bind(A)              bind(B)              bind(A)
//!  (fresh) ──────────► A's offsets ──────► B's offsets ──────► A's new offsets
//!                        │ skip(s): the packet is not for this listener;
//!                        ▼          the numbers close up behind it
//!                      A's offsets − 1
//! ```
//!
//! Within one binding the offsets never change, so the gaps of the source stay gaps
//! (the decoder must know of losses) and a late packet fills its own. Packets of a
//! source from before its binding are dropped. No sequence number is ever given to
//! two packets.

use std::time::{Duration, Instant};

use super::PictureOffsets;
use crate::rtp::sequence_delta;

/// Which stream holds a slot: the stream's place and how often it started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTag {
    /// The meeting's number of the stream.
    pub stream: u32,
    /// Grows with every restart (new SSRC, codec, numbering).
    pub generation: u32,
}

/// The offsets of one source in one slot.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Whose packets.
    pub tag: StreamTag,
    /// Payload type the listener knows this codec by.
    pub payload_type: u8,
    /// RTX payload type of the listener for it.
    pub rtx: Option<u8>,
    /// Who talks.
    pub csrc: u32,
    /// Picture counters.
    pub picture: PictureOffsets,
    /// Clock of the timestamps in Hz.
    pub clock_rate: u32,
    first_in: u16,
    highest_in: u16,
    sequence_offset: u16,
    timestamp_offset: u32,
}

impl Binding {
    /// The timestamp sent for a source's timestamp.
    pub const fn timestamp(&self, source: u32) -> u32 {
        source.wrapping_add(self.timestamp_offset)
    }

    /// The sequence number sent for a source's.
    pub const fn sequence(&self, source: u16) -> u16 {
        source.wrapping_add(self.sequence_offset)
    }

    fn source_of(&self, sent: u16) -> Option<u16> {
        let source = sent.wrapping_sub(self.sequence_offset);
        (sequence_delta(source, self.first_in) >= 0 && sequence_delta(self.highest_in, source) >= 0)
            .then_some(source)
    }
}

/// What a new binding needs to know of its source.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Whose packets.
    pub tag: StreamTag,
    /// The first packet's sequence number…
    pub sequence: u16,
    /// …and timestamp.
    pub timestamp: u32,
    /// Clock in Hz.
    pub clock_rate: u32,
    /// Payload type at the listener.
    pub payload_type: u8,
    /// RTX payload type at the listener.
    pub rtx: Option<u8>,
    /// Who talks.
    pub csrc: u32,
    /// Picture counters.
    pub picture: PictureOffsets,
    /// Smallest step of the timestamp over the change: a packet's duration.
    pub min_step: Duration,
}

/// The numbers a packet goes out with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// The first packet of the binding.
    pub first: bool,
    /// No packet with a higher sequence number was sent before.
    pub newest: bool,
}

/// Bindings remembered for NACKs that concern the source before.
const HISTORY: usize = 4;

/// One outgoing stream's numbering.
#[derive(Clone, Debug)]
pub struct Timeline {
    next_sequence: u16,
    last: Option<(u32, Instant)>,
    first_timestamp: u32,
    bindings: [Option<Binding>; HISTORY],
    current: usize,
    fresh: bool,
}

impl Timeline {
    /// A stream that begins with these numbers. The sequence number is taken modulo 2^15: an
    /// SRTP receiver that misses the first packets could otherwise guess a wrong rollover
    /// counter (RFC 3711 §3.3.1).
    pub const fn new(sequence: u16, timestamp: u32) -> Self {
        Self {
            next_sequence: sequence & 0x7fff,
            last: None,
            first_timestamp: timestamp,
            bindings: [None; HISTORY],
            current: 0,
            fresh: false,
        }
    }

    /// The binding in force.
    #[inline]
    pub fn current(&self) -> Option<&Binding> {
        self.bindings[self.current].as_ref()
    }

    /// Timestamp sent last and when.
    pub const fn last(&self) -> Option<(u32, Instant)> {
        self.last
    }

    /// The source has left the slot: its late packets are no longer taken.
    pub fn unbind(&mut self) {
        if self.bindings[self.current].is_some() {
            self.current = (self.current + 1) % HISTORY;
            self.bindings[self.current] = None;
        }
    }

    /// No source is remembered: nothing sent so far can be sent again.
    pub fn forget(&mut self) {
        self.bindings = [None; HISTORY];
    }

    /// A new source goes on from here, beginning with the packet described.
    pub fn bind(&mut self, now: Instant, source: Source) {
        let timestamp = match self.last {
            None => self.first_timestamp,
            Some((last, at)) => {
                let elapsed = now.saturating_duration_since(at).max(source.min_step);
                last.wrapping_add(ticks(elapsed, source.clock_rate))
            }
        };
        self.push(Binding {
            tag: source.tag,
            payload_type: source.payload_type,
            rtx: source.rtx,
            csrc: source.csrc,
            picture: source.picture,
            clock_rate: source.clock_rate,
            first_in: source.sequence,
            highest_in: source.sequence.wrapping_sub(1),
            sequence_offset: self.next_sequence.wrapping_sub(source.sequence),
            timestamp_offset: timestamp.wrapping_sub(source.timestamp),
        });
        self.fresh = true;
    }

    fn push(&mut self, binding: Binding) {
        self.current = (self.current + 1) % HISTORY;
        self.bindings[self.current] = Some(binding);
    }

    /// The numbers of a packet of the current source; `None` for one from before the binding.
    #[inline]
    pub fn map(&mut self, now: Instant, sequence: u16, timestamp: u32) -> Option<Numbers> {
        let b = self.bindings[self.current].as_mut()?;
        if sequence_delta(sequence, b.first_in) < 0 {
            return None;
        }
        let newest = sequence_delta(sequence, b.highest_in) > 0;
        if newest {
            b.highest_in = sequence;
            // Serial arithmetic spans half the numbers: keep the beginning within reach.
            if sequence_delta(sequence, b.first_in) > 0x4000 {
                b.first_in = sequence.wrapping_sub(0x2000);
            }
        }
        let numbers = Numbers {
            sequence: b.sequence(sequence),
            timestamp: b.timestamp(timestamp),
            first: std::mem::take(&mut self.fresh),
            newest,
        };
        if newest {
            self.next_sequence = numbers.sequence.wrapping_add(1);
            self.last = Some((numbers.timestamp, now));
        }
        Some(numbers)
    }

    /// A packet of the current source is not for this listener: no gap is left where it was.
    /// One that is late leaves the gap it already left.
    pub fn skip(&mut self, sequence: u16) {
        let Some(b) = self.bindings[self.current] else {
            return;
        };
        if sequence_delta(sequence, b.highest_in) <= 0 {
            return;
        }
        let next = sequence.wrapping_add(1);
        let follow = b.sequence(sequence);
        self.next_sequence = follow;
        self.push(Binding {
            first_in: next,
            highest_in: sequence,
            sequence_offset: follow.wrapping_sub(next),
            ..b
        });
    }

    /// Which packet of which source was, or would have been, sent under this number.
    pub fn lookup(&self, sent: u16) -> Option<(&Binding, u16)> {
        (0..HISTORY).find_map(|back| {
            let at = (self.current + HISTORY - back) % HISTORY;
            let b = self.bindings[at].as_ref()?;
            b.source_of(sent).map(|source| (b, source))
        })
    }
}

/// A duration in ticks of a clock, modulo 2^32.
pub fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    let whole = duration.as_secs().wrapping_mul(u64::from(clock_rate));
    let part = u64::from(duration.subsec_nanos()) * u64::from(clock_rate) / 1_000_000_000;
    whole.wrapping_add(part) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(stream: u32, sequence: u16, timestamp: u32) -> Source {
        Source {
            tag: StreamTag {
                stream,
                generation: 0,
            },
            sequence,
            timestamp,
            clock_rate: 48_000,
            payload_type: 111,
            rtx: None,
            csrc: stream,
            picture: PictureOffsets::default(),
            min_step: Duration::from_millis(20),
        }
    }

    fn ms(t: Instant, n: u64) -> Instant {
        t + Duration::from_millis(n)
    }

    #[test]
    fn a_change_of_source_goes_on_in_sequence_and_by_wall_time() {
        let t = Instant::now();
        let mut line = Timeline::new(100, 5_000);
        line.bind(t, source(1, 60_000, 1));
        let a = line.map(t, 60_000, 1).unwrap();
        assert_eq!((a.sequence, a.timestamp, a.first), (100, 5_000, true));
        let b = line.map(ms(t, 20), 60_001, 961).unwrap();
        assert_eq!((b.sequence, b.timestamp, b.first), (101, 5_960, false));
        line.bind(ms(t, 120), source(2, 7, 4_000_000_000));
        let c = line.map(ms(t, 120), 7, 4_000_000_000).unwrap();
        assert_eq!(
            (c.sequence, c.timestamp, c.first),
            (102, 5_960 + 4_800, true)
        );
    }

    #[test]
    fn the_gap_of_a_loss_stays_and_a_late_packet_fills_it() {
        let t = Instant::now();
        let mut line = Timeline::new(0, 0);
        line.bind(t, source(1, 10, 0));
        line.map(t, 10, 0).unwrap();
        assert_eq!(line.map(t, 12, 1920).unwrap().sequence, 2);
        let late = line.map(t, 11, 960).unwrap();
        assert_eq!((late.sequence, late.newest), (1, false));
    }

    #[test]
    fn packets_from_before_the_binding_are_dropped() {
        let t = Instant::now();
        let mut line = Timeline::new(0, 0);
        line.bind(t, source(1, 10, 0));
        assert_eq!(line.map(t, 9, 0), None);
        line.map(t, 10, 0).unwrap();
        line.unbind();
        assert_eq!(line.map(t, 11, 0), None);
    }

    #[test]
    fn a_skipped_packet_leaves_no_gap_and_its_number_is_never_used_twice() {
        let t = Instant::now();
        let mut line = Timeline::new(0, 0);
        line.bind(t, source(1, 10, 0));
        line.map(t, 10, 0).unwrap();
        line.skip(11);
        line.skip(12);
        assert_eq!(line.map(t, 13, 0).unwrap().sequence, 1);
        assert_eq!(line.map(t, 9, 0), None);
        assert_eq!(line.map(t, 12, 0), None);
        assert_eq!(line.map(t, 11, 0), None);
    }

    #[test]
    fn a_nack_is_traced_to_the_source_that_had_the_slot_then() {
        let t = Instant::now();
        let mut line = Timeline::new(0, 0);
        line.bind(t, source(1, 100, 0));
        for s in 100..105 {
            line.map(t, s, 0).unwrap();
        }
        line.bind(t, source(2, 9, 0));
        for s in 9..12 {
            line.map(t, s, 0).unwrap();
        }
        let (b, s) = line.lookup(3).unwrap();
        assert_eq!((b.tag.stream, s), (1, 103));
        let (b, s) = line.lookup(6).unwrap();
        assert_eq!((b.tag.stream, s), (2, 10));
        assert!(line.lookup(8).is_none());
    }

    #[test]
    fn a_long_stream_wraps_many_times_without_a_break() {
        let t = Instant::now();
        let mut line = Timeline::new(0, 0);
        line.bind(t, source(1, 65_000, 0));
        let mut s = 65_000u16;
        for i in 0..200_000u32 {
            assert_eq!(line.map(t, s, i).unwrap().sequence, i as u16);
            s = s.wrapping_add(1);
        }
    }
}
