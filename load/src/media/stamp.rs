//! A stamp in the last octets of a payload: who sent it and when, so that a receiver in the same process measures the
//! one-way delay without a common clock, and knows the true source whatever the headers say.
//!
//! It lies where decoders do not look (padding of an Opus packet, octets behind a VP8 frame) or hardly harms (the last
//! three milliseconds of a G.711 frame). A mixer or transcoder loses it.
//!
//! ```text
//!  4 magic │ 2 sender │ 6 sent, µs │ 4 counter │ 2 spurt │ 2 since its begin, ms │ 4 checksum
//! ```

/// Octets of a stamp.
pub const STAMP: usize = 24;

const MAGIC: [u8; 4] = [0xc3, b'R', b'l', 0x9d];

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Participant who sent it.
    pub sender: u16,
    /// When, in µs since the engine began; 48 bits are used.
    pub sent: u64,
    /// The source's how manieth packet (audio) or frame (video).
    pub counter: u32,
    /// Which talk spurt of the sender's it is, or the last one was.
    pub spurt: u16,
    /// ms since the spurt began; `None` while the sender does not talk.
    pub since: Option<u16>,
}

/// FNV-1a: enough to tell a stamp from chance.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = bytes.iter().fold(0x811c_9dc5u32, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    sum.to_be_bytes()
}

const NOT_TALKING: u16 = u16::MAX;

impl Stamp {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; STAMP] {
        let mut b = [0; STAMP];
        b[0..4].copy_from_slice(&MAGIC);
        b[4..6].copy_from_slice(&self.sender.to_be_bytes());
        b[6..12].copy_from_slice(&self.sent.to_be_bytes()[2..]);
        b[12..16].copy_from_slice(&self.counter.to_be_bytes());
        b[16..18].copy_from_slice(&self.spurt.to_be_bytes());
        let since = self.since.map_or(NOT_TALKING, |ms| ms.min(NOT_TALKING - 1));
        b[18..20].copy_from_slice(&since.to_be_bytes());
        let sum = checksum(&b[..20]);
        b[20..].copy_from_slice(&sum);
        b
    }

    /// The stamp at the end of a payload, if it has one.
    #[inline]
    #[must_use]
    pub fn find(payload: &[u8]) -> Option<Self> {
        let b: &[u8; STAMP] = payload.last_chunk()?;
        if b[..4] != MAGIC || b[20..] != checksum(&b[..20]) {
            return None;
        }
        let since = u16::from_be_bytes([b[18], b[19]]);
        Some(Self {
            sender: u16::from_be_bytes([b[4], b[5]]),
            sent: u64::from_be_bytes([0, 0, b[6], b[7], b[8], b[9], b[10], b[11]]),
            counter: u32::from_be_bytes([b[12], b[13], b[14], b[15]]),
            spurt: u16::from_be_bytes([b[16], b[17]]),
            since: (since != NOT_TALKING).then_some(since),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_behind_anything_and_chance_is_not() {
        for since in [None, Some(0), Some(1234)] {
            let stamp = Stamp {
                sender: 65_000,
                sent: 0x1234_5678_9abc,
                counter: u32::MAX - 1,
                spurt: 7,
                since,
            };
            let mut payload = vec![1, 2, 3];
            payload.extend_from_slice(&stamp.to_bytes());
            assert_eq!(Stamp::find(&payload), Some(stamp));
            for at in 3..payload.len() {
                let mut broken = payload.clone();
                broken[at] ^= 1;
                assert_eq!(Stamp::find(&broken), None, "octet {at}");
            }
            payload.push(0);
            assert_eq!(Stamp::find(&payload), None);
        }
        assert_eq!(Stamp::find(&[]), None);
    }
}
