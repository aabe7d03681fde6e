//! Telephone events (RFC 4733), each reported once.
//!
//! ```text
//!        first packet of an event            end bit, or another event, or silence
//!  idle ─────────────────────────► pressed ───────────────────────────────────────► report, idle
//!    ▲                                                                                    │
//!    └──────────────── repeated end packets of the same event are nothing new ────────────┘
//! ```

use std::time::{Duration, Instant};

/// Events above are not digits: flash, tones.
const LAST_DIGIT: u8 = 15;

/// An event of which nothing came for this long is over: its end packets were lost.
const LOST_END: Duration = Duration::from_millis(250);

/// One pressed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit {
    /// 0..=15 (RFC 4733 §3.2).
    pub digit: u8,
    /// How long it was held.
    pub duration: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Pressed {
    digit: u8,
    timestamp: u32,
    duration: u32,
    clock_rate: u32,
    heard: Instant,
    reported: bool,
}

impl Pressed {
    fn digit(&self) -> Digit {
        let micros = u64::from(self.duration) * 1_000_000 / u64::from(self.clock_rate.max(1));
        Digit {
            digit: self.digit,
            duration: Duration::from_micros(micros),
        }
    }
}

/// The events of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keypad {
    pressed: Option<Pressed>,
}

impl Keypad {
    /// Takes an event packet; gives a digit whose end is now known.
    pub fn on_event(
        &mut self,
        now: Instant,
        timestamp: u32,
        clock_rate: u32,
        payload: &[u8],
    ) -> Option<Digit> {
        let &[event, flags, high, low, ..] = payload else {
            return None;
        };
        if event > LAST_DIGIT {
            return None;
        }
        let end = flags & 0x80 != 0;
        let duration = u32::from(u16::from_be_bytes([high, low]));
        let mut done = None;
        match &mut self.pressed {
            Some(p) if p.timestamp == timestamp && p.digit == event => {
                p.duration = p.duration.max(duration);
                p.heard = now;
            }
            other => {
                done = other.filter(|p| !p.reported).map(|p| p.digit());
                *other = Some(Pressed {
                    digit: event,
                    timestamp,
                    duration,
                    clock_rate,
                    heard: now,
                    reported: false,
                });
            }
        }
        if end && done.is_none() {
            done = self.finish();
        }
        done
    }

    fn finish(&mut self) -> Option<Digit> {
        let p = self.pressed.as_mut().filter(|p| !p.reported)?;
        p.reported = true;
        Some(p.digit())
    }

    /// Gives a digit whose end packets were lost.
    pub fn on_timeout(&mut self, now: Instant) -> Option<Digit> {
        let p = self.pressed?;
        (now.saturating_duration_since(p.heard) >= LOST_END)
            .then(|| self.finish())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_end_packets_are_one_digit() {
        let t = Instant::now();
        let mut k = Keypad::default();
        assert_eq!(k.on_event(t, 1000, 8000, &[5, 10, 0, 160]), None);
        assert_eq!(k.on_event(t, 1000, 8000, &[5, 10, 1, 64]), None);
        let d = k.on_event(t, 1000, 8000, &[5, 0x8a, 3, 32]).unwrap();
        assert_eq!((d.digit, d.duration.as_millis()), (5, 100));
        assert_eq!(k.on_event(t, 1000, 8000, &[5, 0x8a, 3, 32]), None);
        assert_eq!(k.on_event(t, 1000, 8000, &[5, 0x8a, 3, 32]), None);
        assert!(
            k.on_event(t, 9000, 8000, &[5, 0x8a, 3, 32]).is_some(),
            "the same key again"
        );
    }

    #[test]
    fn a_digit_without_its_end_is_reported_by_the_next_or_by_silence() {
        let t = Instant::now();
        let mut k = Keypad::default();
        k.on_event(t, 1, 8000, &[1, 10, 0, 160]);
        assert_eq!(
            k.on_event(t, 2, 8000, &[2, 10, 0, 160]).map(|d| d.digit),
            Some(1)
        );
        assert_eq!(k.on_timeout(t + Duration::from_millis(100)), None);
        assert_eq!(
            k.on_timeout(t + Duration::from_millis(250))
                .map(|d| d.digit),
            Some(2)
        );
        assert_eq!(k.on_timeout(t + Duration::from_secs(9)), None);
    }

    #[test]
    fn flash_and_cut_packets_are_no_digits() {
        let t = Instant::now();
        let mut k = Keypad::default();
        assert_eq!(k.on_event(t, 1, 8000, &[16, 0x8a, 0, 160]), None);
        assert_eq!(k.on_event(t, 1, 8000, &[1, 0x8a, 0]), None);
        assert_eq!(k.on_timeout(t + Duration::from_secs(1)), None);
    }
}
