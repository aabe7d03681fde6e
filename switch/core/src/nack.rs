//! Repair of losses: asking a source for what is missing, and giving receivers
//! again what they miss.

use std::time::{Duration, Instant};

/// Packets kept per video source. Higher: longer round trips can be repaired; each costs
/// [`MAX_PACKET`] octets. 512 is more than a second of 3 Mbit/s.
pub const KEPT: usize = 512;

/// Longest packet kept; longer ones are forwarded, and lost if lost.
pub const MAX_PACKET: usize = 1_500;

/// What is kept beside the octets of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Kept<M> {
    /// Sequence number.
    pub sequence: u16,
    /// When it came; a packet is not given again when it is older than [`MAX_AGE`].
    pub at: Instant,
    /// What its rewriting needs.
    pub meta: M,
    len: usize,
}

/// How old a packet may be to be given again: later, no decoder waits for it, and
/// sequence numbers could have come round.
pub const MAX_AGE: Duration = Duration::from_secs(3);

/// The last packets of one source, shared by all who receive it. One allocation, made
/// when the first receiver that negotiated NACK appears.
#[derive(Clone, Debug)]
pub struct RetransmitBuffer<M> {
    octets: Box<[u8]>,
    entries: Box<[Option<Kept<M>>]>,
}

impl<M: Copy> RetransmitBuffer<M> {
    /// An empty buffer of [`KEPT`] × [`MAX_PACKET`] octets.
    pub fn new() -> Self {
        Self {
            octets: vec![0; KEPT * MAX_PACKET].into_boxed_slice(),
            entries: vec![None; KEPT].into_boxed_slice(),
        }
    }

    /// Keeps a packet given in parts; the oldest with the same place goes.
    pub fn insert(&mut self, now: Instant, sequence: u16, parts: [&[u8]; 3], meta: M) {
        let len = parts.iter().map(|p| p.len()).sum();
        let place = usize::from(sequence) % KEPT;
        if len > MAX_PACKET {
            self.entries[place] = None;
            return;
        }
        let mut at = place * MAX_PACKET;
        for part in parts {
            self.octets[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.entries[place] = Some(Kept {
            sequence,
            at: now,
            meta,
            len,
        });
    }

    /// A kept packet that is young enough.
    pub fn get(&self, now: Instant, sequence: u16) -> Option<(&Kept<M>, &[u8])> {
        let place = usize::from(sequence) % KEPT;
        let kept = self.entries[place].as_ref()?;
        let young = now.saturating_duration_since(kept.at) <= MAX_AGE;
        (kept.sequence == sequence && young)
            .then(|| (kept, &self.octets[place * MAX_PACKET..][..kept.len]))
    }

    /// Forgets all: the source started anew.
    pub fn clear(&mut self) {
        self.entries.fill(None);
    }
}

impl<M: Copy> Default for RetransmitBuffer<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Most sequence numbers missing at once; with more, only a key frame helps.
pub const MAX_MISSING: usize = 64;

/// How often one packet is asked for.
pub const MAX_TRIES: u8 = 8;

/// First wait before a packet is asked for again; every further one is half as long again.
/// Shorter than the round trip asks twice for nothing.
pub const RETRY: Duration = Duration::from_millis(40);

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u16,
    tries: u8,
    next: Instant,
}

/// What a source has to send again.
#[derive(Clone, Debug)]
pub struct MissingTracker {
    missing: Vec<Missing>,
}

impl MissingTracker {
    /// For a stream of which repairs can be asked for, or not.
    #[must_use]
    pub fn new(repairs: bool) -> Self {
        Self {
            missing: Vec::with_capacity(if repairs { MAX_MISSING } else { 0 }),
        }
    }

    /// `count` packets before `newest` did not come. False: too many, ask for a key frame.
    pub fn on_gap(&mut self, now: Instant, newest: u16, count: u16) -> bool {
        if self.missing.len() + usize::from(count) > MAX_MISSING {
            self.missing.clear();
            return false;
        }
        for back in (1..=count).rev() {
            self.missing.push(Missing {
                sequence: newest.wrapping_sub(back),
                tries: 0,
                next: now,
            });
        }
        true
    }

    /// A late or repeated packet came.
    pub fn on_received(&mut self, sequence: u16) {
        self.missing.retain(|m| m.sequence != sequence);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.missing.clear();
    }

    /// Nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }

    /// When [`MissingTracker::due`] has something to ask for.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.missing.iter().map(|m| m.next).min()
    }

    /// Writes the numbers to be asked for now into `out`; gives how many. `rtt` where it is known.
    pub fn due(
        &mut self,
        now: Instant,
        rtt: Option<Duration>,
        out: &mut [u16; MAX_MISSING],
    ) -> usize {
        let mut n = 0;
        let base = rtt
            .unwrap_or(RETRY)
            .clamp(RETRY / 2, Duration::from_millis(500));
        self.missing.retain_mut(|m| {
            if m.next > now {
                return true;
            }
            if m.tries >= MAX_TRIES || n == MAX_MISSING {
                return false;
            }
            out[n] = m.sequence;
            n += 1;
            m.tries += 1;
            let wait = base + base * u32::from(m.tries - 1) / 2;
            m.next = now + wait;
            true
        });
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_packet_is_found_until_it_is_overwritten_or_old() {
        let t = Instant::now();
        let mut b = RetransmitBuffer::new();
        b.insert(t, 65_535, [b"he", b"ad", b"tail"], 7u8);
        let (kept, octets) = b.get(t, 65_535).unwrap();
        assert_eq!((kept.meta, octets), (7, &b"headtail"[..]));
        assert!(b.get(t, 511).is_none());
        assert!(
            b.get(t + MAX_AGE + Duration::from_millis(1), 65_535)
                .is_none()
        );
        b.insert(t, 511, [b"x", b"", b""], 8);
        assert!(b.get(t, 65_535).is_none());
        b.insert(t, 511, [&[0; MAX_PACKET], b"!", b""], 9);
        assert!(
            b.get(t, 511).is_none(),
            "too long to keep, and the old one must not answer for it"
        );
    }

    #[test]
    fn a_missing_packet_is_asked_for_at_once_then_ever_more_slowly_then_given_up() {
        let mut t = Instant::now();
        let mut m = MissingTracker::new(true);
        let mut out = [0; MAX_MISSING];
        assert!(m.on_gap(t, 1, 3));
        assert_eq!(m.due(t, None, &mut out), 3);
        assert_eq!(out[..3], [65_534, 65_535, 0]);
        assert_eq!(m.due(t, None, &mut out), 0);
        m.on_received(65_535);
        let mut asked = 1;
        while let Some(next) = m.poll_timeout() {
            assert!(next > t);
            t = next;
            if m.due(t, None, &mut out) > 0 {
                asked += 1;
            }
        }
        assert_eq!(asked, usize::from(MAX_TRIES));
        assert!(m.is_empty());
    }

    #[test]
    fn too_much_missing_is_not_asked_for_piece_by_piece() {
        let t = Instant::now();
        let mut m = MissingTracker::new(true);
        assert!(m.on_gap(t, 100, 60));
        assert!(!m.on_gap(t, 200, 60));
        assert!(m.is_empty());
    }
}
