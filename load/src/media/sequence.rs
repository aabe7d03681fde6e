//! Sequence numbers of one received stream: what is missing, late, or came twice (RFC 3550 §A.1).

/// Numbers behind the newest that are still told apart. A retransmission comes some hundred packets late.
const WINDOW: u64 = 512;

/// A gap larger than this is a new count (RFC 3550 §A.1, MAX_DROPOUT).
const MAX_DROPOUT: i64 = 3000;

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first of the stream.
    First,
    /// Newer than all, with so many missing before it.
    Newer(u64),
    /// Of those that were missing; `counted` where it was counted as such.
    Late {
        /// It was counted as missing, so that there is one less.
        counted: bool,
    },
    /// It has come before.
    Duplicate,
    /// Too far away: the count begins anew.
    Jump,
}

/// The numbers of a stream.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    begun: bool,
    first: u64,
    highest: u64,
    seen: [u64; (WINDOW / 64) as usize],
    /// Of counts before a jump.
    before: (u64, u64),
    received: u64,
    /// At the last report (RFC 3550 §A.3).
    reported: (u64, u64),
}

impl Sequence {
    fn bit(index: u64) -> (usize, u64) {
        let bit = index % WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn set(&mut self, index: u64) {
        let (word, bit) = Self::bit(index);
        self.seen[word] |= bit;
    }

    fn restart(&mut self, number: u16) {
        // room below, for those that come late
        let index = (1 << 16) + u64::from(number);
        self.seen = [0; (WINDOW / 64) as usize];
        self.first = index;
        self.highest = index;
        self.set(index);
        self.received += 1;
    }

    /// A packet of this number came.
    #[inline]
    pub fn on_packet(&mut self, number: u16) -> Order {
        if !self.begun {
            self.begun = true;
            self.restart(number);
            return Order::First;
        }
        let delta = i64::from(number.wrapping_sub(self.highest as u16) as i16);
        let index = self.highest.wrapping_add_signed(delta);
        if delta > MAX_DROPOUT || delta <= -(WINDOW as i64) {
            self.before = self.expected_and_received();
            self.received = 0;
            self.restart(number);
            return Order::Jump;
        }
        if delta > 0 {
            if delta as u64 >= WINDOW {
                self.seen = [0; (WINDOW / 64) as usize];
            } else {
                for passed in self.highest + 1..index {
                    let (word, bit) = Self::bit(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = index;
            self.set(index);
            self.received += 1;
            return Order::Newer(delta as u64 - 1);
        }
        let (word, bit) = Self::bit(index);
        if self.seen[word] & bit != 0 {
            return Order::Duplicate;
        }
        self.set(index);
        let counted = index >= self.first;
        self.received += u64::from(counted);
        Order::Late { counted }
    }

    /// Packets that should have come, and did.
    #[must_use]
    pub fn expected_and_received(&self) -> (u64, u64) {
        if !self.begun {
            return (0, 0);
        }
        (
            self.before.0 + self.highest - self.first + 1,
            self.before.1 + self.received,
        )
    }

    /// The extended highest number, and the cumulative and fraction lost of a report block; the fraction is of the
    /// time since this was last called (RFC 3550 §A.3).
    pub fn report(&mut self) -> (u32, i32, u8) {
        let (expected, received) = self.expected_and_received();
        let due = expected.saturating_sub(self.reported.0);
        let came = received.saturating_sub(self.reported.1);
        self.reported = (expected, received);
        let fraction = match due.saturating_sub(came) {
            0 => 0,
            lost => (lost * 256 / due).min(255) as u8,
        };
        let lost = (expected as i64 - received as i64) as i32;
        // the count of roll-overs begins at 0
        ((self.highest - (1 << 16)) as u32, lost, fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_late_ones_and_duplicates_are_told_apart_over_the_wrap() {
        let mut s = Sequence::default();
        assert_eq!(s.on_packet(65_534), Order::First);
        assert_eq!(s.on_packet(65_535), Order::Newer(0));
        assert_eq!(s.on_packet(2), Order::Newer(2));
        assert_eq!(s.on_packet(0), Order::Late { counted: true });
        assert_eq!(s.on_packet(0), Order::Duplicate);
        assert_eq!(s.on_packet(2), Order::Duplicate);
        assert_eq!(s.on_packet(65_533), Order::Late { counted: false });
        assert_eq!(s.on_packet(3), Order::Newer(0));
        assert_eq!(s.expected_and_received(), (6, 5));
        assert_eq!(s.report(), (0x1_0003, 1, 42));
        assert_eq!(s.report(), (0x1_0003, 1, 0));
    }

    #[test]
    fn a_jump_begins_a_new_count_and_keeps_the_old() {
        let mut s = Sequence::default();
        for number in 100..110 {
            s.on_packet(number);
        }
        assert_eq!(s.on_packet(20_000), Order::Jump);
        assert_eq!(s.on_packet(20_002), Order::Newer(1));
        assert_eq!(s.expected_and_received(), (13, 12));
        assert_eq!(s.on_packet(10_000), Order::Jump);
    }

    #[test]
    fn a_number_a_window_ago_is_not_taken_for_a_duplicate() {
        let mut s = Sequence::default();
        s.on_packet(0);
        assert_eq!(s.on_packet(600), Order::Newer(599));
        for number in 89..600 {
            assert_eq!(s.on_packet(number), Order::Late { counted: true });
        }
        assert_eq!(s.on_packet(601), Order::Newer(0));
        assert_eq!(s.on_packet(1113), Order::Newer(511));
        assert_eq!(s.on_packet(602), Order::Late { counted: true });
    }
}
