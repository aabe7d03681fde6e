//! Counters of received streams (RFC 3550 §6.4 and appendix A) and a byte budget.

use std::time::{Duration, Instant};

/// Jumps forward by more than this are a restart of the sender (RFC 3550 A.1 MAX_DROPOUT).
pub const MAX_DROPOUT: i32 = 3_000;

/// How many packets back one is still taken and told from a duplicate. Higher: RTX that comes
/// very late is still used, 8 octets a 64 packets and stream. Video at 4 Mbit/s is 400 packets/s.
pub const WINDOW: usize = 512;

/// What the sequence number of a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The newest so far; `missing` numbers before it were skipped.
    Newest {
        /// Sequence numbers skipped.
        missing: u16,
    },
    /// Reordered or retransmitted, not seen before.
    Late,
    /// Seen before, or too old to say.
    Duplicate,
    /// Far from anything expected; a second one in a row makes it a [`Arrival::Restart`].
    Suspicious,
    /// The sender started again: everything about the numbering before is void.
    Restart,
}

/// Loss, jitter and duplicates of one received stream.
#[derive(Clone, Debug)]
pub struct Reception {
    started: bool,
    base: u32,
    cycles: u32,
    highest: u16,
    bad_next: Option<u16>,
    seen: [u64; WINDOW / 64],
    received: u64,
    total: u64,
    bytes: u64,
    jitter_16: u64,
    last_transit: Option<(u32, u32)>,
    expected_prior: u64,
    received_prior: u64,
    lost_before: u64,
}

impl Default for Reception {
    fn default() -> Self {
        Self {
            started: false,
            base: 0,
            cycles: 0,
            highest: 0,
            bad_next: None,
            seen: [0; WINDOW / 64],
            received: 0,
            total: 0,
            bytes: 0,
            jitter_16: 0,
            last_transit: None,
            expected_prior: 0,
            received_prior: 0,
            lost_before: 0,
        }
    }
}

/// The numbers of a report block that come from the receiver side (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportNumbers {
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start, 24 bits signed.
    pub cumulative_lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Interarrival jitter in clock units.
    pub jitter: u32,
}

impl Reception {
    /// Takes the sequence number of a packet of `bytes` octets.
    pub fn on_packet(&mut self, sequence: u16, bytes: usize) -> Arrival {
        if !self.started {
            self.restart(sequence);
            self.count(bytes);
            return Arrival::Newest { missing: 0 };
        }
        let delta = crate::rtp::sequence_delta(sequence, self.highest);
        if delta > 0 && delta < MAX_DROPOUT {
            if sequence < self.highest {
                self.cycles = self.cycles.wrapping_add(0x1_0000);
            }
            self.forget_between(sequence, delta as usize);
            self.highest = sequence;
            self.mark(sequence);
            self.count(bytes);
            self.bad_next = None;
            return Arrival::Newest {
                missing: (delta - 1) as u16,
            };
        }
        if delta <= 0 && delta > -(WINDOW as i32) {
            if self.is_marked(sequence) {
                return Arrival::Duplicate;
            }
            self.mark(sequence);
            self.count(bytes);
            return Arrival::Late;
        }
        if self.bad_next == Some(sequence) {
            self.restart(sequence);
            self.count(bytes);
            return Arrival::Restart;
        }
        self.bad_next = Some(sequence.wrapping_add(1));
        Arrival::Suspicious
    }

    /// Takes the times of a packet for the jitter estimate (RFC 3550 §6.4.1); `arrival` in clock units.
    pub fn on_times(&mut self, timestamp: u32, arrival: u32) {
        if let Some((last_timestamp, last_arrival)) = self.last_transit {
            let d = arrival
                .wrapping_sub(last_arrival)
                .wrapping_sub(timestamp.wrapping_sub(last_timestamp)) as i32;
            // A talkspurt's jump of the timestamp is no jitter; a minute's worth is a new base.
            let d = u64::from(d.unsigned_abs());
            if d < 1 << 22 {
                self.jitter_16 = self.jitter_16 + d - ((self.jitter_16 + 8) >> 4);
            }
        }
        self.last_transit = Some((timestamp, arrival));
    }

    fn restart(&mut self, sequence: u16) {
        self.lost_before = self.lost();
        self.started = true;
        self.base = u32::from(sequence);
        self.cycles = 0;
        self.highest = sequence;
        self.bad_next = None;
        self.seen = [0; WINDOW / 64];
        self.mark(sequence);
        self.last_transit = None;
        self.received_prior = 0;
        self.expected_prior = 0;
        self.received = 0;
    }

    fn count(&mut self, bytes: usize) {
        self.received += 1;
        self.total += 1;
        self.bytes += bytes as u64;
    }

    fn mark(&mut self, sequence: u16) {
        let at = usize::from(sequence) % WINDOW;
        self.seen[at / 64] |= 1 << (at % 64);
    }

    fn is_marked(&self, sequence: u16) -> bool {
        let at = usize::from(sequence) % WINDOW;
        self.seen[at / 64] & (1 << (at % 64)) != 0
    }

    fn forget_between(&mut self, newest: u16, delta: usize) {
        if delta >= WINDOW {
            self.seen = [0; WINDOW / 64];
            return;
        }
        for back in 0..delta {
            let at = usize::from(newest.wrapping_sub(back as u16)) % WINDOW;
            self.seen[at / 64] &= !(1 << (at % 64));
        }
    }

    fn expected(&self) -> u64 {
        if !self.started {
            return 0;
        }
        u64::from(self.cycles) + u64::from(self.highest) + 1 - u64::from(self.base)
    }

    /// Packets counted, over restarts too.
    pub fn packets(&self) -> u64 {
        self.total
    }

    /// Octets counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Packets lost in all.
    pub fn lost(&self) -> u64 {
        self.lost_before + self.expected().saturating_sub(self.received)
    }

    /// Jitter in clock units.
    pub fn jitter(&self) -> u32 {
        (self.jitter_16 >> 4) as u32
    }

    /// The highest sequence number seen.
    pub fn highest(&self) -> u16 {
        self.highest
    }

    /// The numbers of a report; starts the next interval.
    pub fn report(&mut self) -> ReportNumbers {
        let expected = self.expected();
        let interval = expected.saturating_sub(self.expected_prior);
        let got = self.received.saturating_sub(self.received_prior);
        self.expected_prior = expected;
        self.received_prior = self.received;
        let lost = interval.saturating_sub(got);
        let fraction_lost = (lost << 8).checked_div(interval).unwrap_or(0).min(255) as u8;
        ReportNumbers {
            fraction_lost,
            cumulative_lost: self.lost().min(0x7f_ffff) as i32,
            highest: self.cycles.wrapping_add(u32::from(self.highest)),
            jitter: self.jitter(),
        }
    }
}

/// A budget that refills with time: so many units a second, saved up to a burst.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    per_second: u64,
    burst: u64,
    left: u64,
    at: Instant,
}

impl Budget {
    /// A full budget.
    pub const fn new(per_second: u64, burst: u64, now: Instant) -> Self {
        Self {
            per_second,
            burst,
            left: burst,
            at: now,
        }
    }

    /// Takes `amount`, or says that there is not enough.
    pub fn take(&mut self, now: Instant, amount: u64) -> bool {
        let since = now
            .saturating_duration_since(self.at)
            .min(Duration::from_secs(60));
        let refill = (since.as_micros() as u64).saturating_mul(self.per_second) / 1_000_000;
        if refill > 0 {
            self.left = self.burst.min(self.left.saturating_add(refill));
            self.at = now;
        }
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_late_packets_are_told_apart_across_the_wrap() {
        let mut r = Reception::default();
        assert_eq!(r.on_packet(65_534, 1), Arrival::Newest { missing: 0 });
        assert_eq!(r.on_packet(1, 1), Arrival::Newest { missing: 2 });
        assert_eq!(r.on_packet(65_535, 1), Arrival::Late);
        assert_eq!(r.on_packet(65_535, 1), Arrival::Duplicate);
        assert_eq!(r.on_packet(0, 1), Arrival::Late);
        assert_eq!(r.on_packet(1, 1), Arrival::Duplicate);
        assert_eq!(r.lost(), 0);
        assert_eq!(r.report().highest, 0x1_0001);
    }

    #[test]
    fn a_jump_counts_only_when_a_second_packet_confirms_it() {
        let mut r = Reception::default();
        r.on_packet(100, 1);
        assert_eq!(r.on_packet(40_000, 1), Arrival::Suspicious);
        assert_eq!(r.on_packet(101, 1), Arrival::Newest { missing: 0 });
        assert_eq!(r.on_packet(40_001, 1), Arrival::Suspicious);
        assert_eq!(r.on_packet(40_002, 1), Arrival::Restart);
        assert_eq!(r.on_packet(40_003, 1), Arrival::Newest { missing: 0 });
    }

    #[test]
    fn the_fraction_lost_is_of_the_last_interval() {
        let mut r = Reception::default();
        for s in [0u16, 1, 2, 4, 5, 6, 7] {
            r.on_packet(s, 1);
        }
        let first = r.report();
        assert_eq!((first.fraction_lost, first.cumulative_lost), (32, 1));
        for s in 8u16..16 {
            r.on_packet(s, 1);
        }
        let second = r.report();
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, 1));
    }

    #[test]
    fn jitter_is_zero_for_a_steady_sender_and_grows_with_spread() {
        let mut r = Reception::default();
        for i in 0..50u32 {
            r.on_times(i * 160, 5_000 + i * 160);
        }
        assert_eq!(r.jitter(), 0);
        for i in 50..400u32 {
            r.on_times(i * 160, 5_000 + i * 160 + (i % 2) * 80);
        }
        assert!((70..=80).contains(&r.jitter()), "{}", r.jitter());
    }

    #[test]
    fn a_budget_refills_with_time_and_never_beyond_its_burst() {
        let t = Instant::now();
        let mut b = Budget::new(1_000, 100, t);
        assert!(b.take(t, 100));
        assert!(!b.take(t, 1));
        assert!(b.take(t + Duration::from_millis(50), 50));
        assert!(!b.take(t + Duration::from_secs(9), 101));
    }
}
