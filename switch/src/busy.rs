//! How much of its time a worker's thread computes.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How often it is measured.
const WINDOW: Duration = Duration::from_secs(1);

/// The share of one thread's time, window by window. To be used on that thread: it counts the processor time that the
/// thread had, so that others who use the machine do not make it look busy.
pub struct Busy {
    began: Instant,
    computed: Duration,
}

/// Processor time of the calling thread so far.
fn computed() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

impl Busy {
    /// The first window begins.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            computed: computed(),
        }
    }

    /// When the window ends.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.began + WINDOW
    }

    /// Ends the window and begins the next; per mille of the time that the thread computed.
    pub fn measure(&mut self, now: Instant) -> u32 {
        let next = Self::new(now);
        let took = now.saturating_duration_since(self.began).as_micros().max(1);
        let ran = next.computed.saturating_sub(self.computed).as_micros();
        *self = next;
        u32::try_from(ran * 1_000 / took)
            .unwrap_or(1_000)
            .min(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_computes_is_busy_and_one_who_waits_is_not() {
        let mut busy = Busy::new(Instant::now());
        // Until the thread had 50 ms, however long that takes on a busy machine.
        let begin = computed();
        while computed() - begin < Duration::from_millis(50) {}
        let counted = busy.measure(busy.began + Duration::from_millis(100));
        assert!((500..=520).contains(&counted), "{counted}");
        let idle = busy.measure(busy.began + Duration::from_secs(10));
        assert!(idle < 10, "{idle}");
    }
}
