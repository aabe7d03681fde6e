//! Which nonce counts were used (RFC 7616 §3.4, `nc`): a sliding window each, in bounded memory.

use std::collections::BTreeMap;

/// Counts that may come out of order behind the highest one. Bounded by the bits of the bitmap.
const WINDOW: u32 = 64;

/// What came of spending a nonce count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Never seen.
    First,
    /// Seen: a replay.
    Again,
    /// Too far behind, or of a nonce that was dropped for want of room: nobody knows.
    Forgotten,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    highest: u32,
    /// Bit n: `highest - n` was used.
    used: u64,
}

/// The windows by time of issue and identity, so that the oldest can be dropped first.
#[derive(Debug)]
pub(super) struct Counts {
    capacity: usize,
    windows: BTreeMap<(u64, [u8; 16]), Window>,
    /// Nonces issued up to here whose window is gone may have been used.
    forgotten_until: Option<u64>,
}

impl Counts {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            windows: BTreeMap::new(),
            forgotten_until: None,
        }
    }

    /// Uses `nc` of the nonce issued at `issued_ms` by the client `id`. Windows issued before `oldest_ms` have
    /// expired and are dropped.
    pub(super) fn spend(&mut self, oldest_ms: u64, issued_ms: u64, id: [u8; 16], nc: u32) -> Use {
        while let Some(first) = self.windows.first_entry() {
            if first.key().0 >= oldest_ms {
                break;
            }
            first.remove();
        }
        if let Some(window) = self.windows.get_mut(&(issued_ms, id)) {
            return window.spend(nc);
        }
        if self.forgotten_until.is_some_and(|until| issued_ms <= until) {
            return Use::Forgotten;
        }
        self.windows.insert(
            (issued_ms, id),
            Window {
                highest: nc,
                used: 1,
            },
        );
        if self.windows.len() > self.capacity
            && let Some(((dropped_ms, _), _)) = self.windows.pop_first()
        {
            self.forgotten_until = self.forgotten_until.max(Some(dropped_ms));
        }
        Use::First
    }
}

impl Window {
    fn spend(&mut self, nc: u32) -> Use {
        if nc > self.highest {
            let ahead = nc - self.highest;
            self.used = self.used.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = nc;
            return Use::First;
        }
        let behind = self.highest - nc;
        if behind >= WINDOW {
            return Use::Forgotten;
        }
        let bit = 1 << behind;
        if self.used & bit != 0 {
            return Use::Again;
        }
        self.used |= bit;
        Use::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 16] = [1; 16];
    const B: [u8; 16] = [2; 16];

    #[test]
    fn each_count_is_good_once_in_any_order_within_the_window() {
        let mut counts = Counts::new(10);
        for nc in [1, 3, 2, 66, 4, 70] {
            assert_eq!(counts.spend(0, 100, A, nc), Use::First, "{nc}");
        }
        for nc in [70, 66] {
            assert_eq!(counts.spend(0, 100, A, nc), Use::Again, "{nc}");
        }
        assert_eq!(counts.spend(0, 100, A, 7), Use::First);
        assert_eq!(counts.spend(0, 100, A, 7), Use::Again);
        assert_eq!(counts.spend(0, 100, A, 6), Use::Forgotten);
        assert_eq!(counts.spend(0, 100, A, u32::MAX), Use::First);
        assert_eq!(counts.spend(0, 100, A, 70), Use::Forgotten);
    }

    #[test]
    fn clients_do_not_share_counts() {
        let mut counts = Counts::new(10);
        assert_eq!(counts.spend(0, 100, A, 1), Use::First);
        assert_eq!(counts.spend(0, 100, B, 1), Use::First);
        assert_eq!(counts.spend(0, 100, B, 1), Use::Again);
    }

    #[test]
    fn a_full_memory_forgets_the_oldest_and_never_accepts_it_again() {
        let mut counts = Counts::new(2);
        assert_eq!(counts.spend(0, 100, A, 1), Use::First);
        assert_eq!(counts.spend(0, 200, A, 1), Use::First);
        assert_eq!(counts.spend(0, 300, A, 1), Use::First);
        assert_eq!(counts.windows.len(), 2);
        assert_eq!(counts.spend(0, 100, A, 1), Use::Forgotten);
        assert_eq!(counts.spend(0, 100, B, 9), Use::Forgotten);
        assert_eq!(counts.spend(0, 200, A, 1), Use::Again);
    }

    #[test]
    fn expired_windows_are_dropped() {
        let mut counts = Counts::new(10);
        counts.spend(0, 100, A, 1);
        counts.spend(0, 200, A, 1);
        counts.spend(150, 300, A, 1);
        assert_eq!(counts.windows.len(), 2);
    }
}
