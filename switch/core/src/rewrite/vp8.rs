//! The VP8 payload descriptor (RFC 7741 §4.2).
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! |X|R|N|S|R| PID | required
//! |I|L|T|K| RSV   | with X
//! |M| PictureID   | with I; with M a second octet
//! |   TL0PICIDX   | with L
//! |TID|Y| KEYIDX  | with T or K
//! ```

use super::{MAX_PREFIX, PictureOffsets};

/// A parsed descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Descriptor {
    first: u8,
    extended: u8,
    /// Picture id; 7 bits until widened, unless `wide`.
    pub picture_id: Option<u16>,
    /// The id came in 15 bits.
    pub wide: bool,
    /// TL0PICIDX.
    pub tl0: Option<u8>,
    layer: Option<u8>,
    consumed: u8,
    key: bool,
}

impl Vp8Descriptor {
    /// Reads a descriptor; `None` when the payload ends within it or carries nothing more.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut octet = || {
            let o = payload.get(at).copied();
            at += 1;
            o
        };
        let first = octet()?;
        let mut d = Self {
            first,
            extended: 0,
            picture_id: None,
            wide: false,
            tl0: None,
            layer: None,
            consumed: 0,
            key: false,
        };
        if first & 0x80 != 0 {
            d.extended = octet()?;
            if d.extended & 0x80 != 0 {
                let high = octet()?;
                d.wide = high & 0x80 != 0;
                let mut id = u16::from(high & 0x7f);
                if d.wide {
                    id = (id << 8) | u16::from(octet()?);
                }
                d.picture_id = Some(id);
            }
            if d.extended & 0x40 != 0 {
                d.tl0 = Some(octet()?);
            }
            if d.extended & 0x30 != 0 {
                d.layer = Some(octet()?);
            }
        }
        d.consumed = at as u8;
        let frame = *payload.get(at)?;
        // Start of the first partition, and not P in the frame header (RFC 7741 §4.3).
        d.key = first & 0x17 == 0x10 && frame & 1 == 0;
        Some(d)
    }

    /// The packet begins a key frame.
    pub const fn starts_keyframe(&self) -> bool {
        self.key
    }

    pub(super) fn write(
        &self,
        offsets: &PictureOffsets,
        out: &mut [u8; MAX_PREFIX],
    ) -> (usize, usize) {
        if self.extended & 0xc0 == 0 {
            return (0, 0); // nothing that counts
        }
        out[0] = self.first;
        out[1] = self.extended;
        let mut at = 2;
        if let Some(id) = self.picture_id {
            let id = id.wrapping_add(offsets.picture_id) & 0x7fff;
            out[2..4].copy_from_slice(&(id | 0x8000).to_be_bytes());
            at = 4;
        }
        if let Some(tl0) = self.tl0 {
            out[at] = tl0.wrapping_add(offsets.tl0);
            at += 1;
        }
        if let Some(layer) = self.layer {
            out[at] = layer;
            at += 1;
        }
        (at, usize::from(self.consumed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_id_and_tl0_are_offset_and_the_rest_is_kept() {
        let payload = [0x90, 0xe0, 0x92, 0x34, 0x07, 0x60, 0x00, 0xaa];
        let d = Vp8Descriptor::parse(&payload).unwrap();
        assert_eq!((d.picture_id, d.tl0), (Some(0x1234), Some(7)));
        assert!(d.starts_keyframe());
        let mut out = [0; MAX_PREFIX];
        let offsets = PictureOffsets {
            picture_id: 0x7fff,
            tl0: 250,
            ..Default::default()
        };
        let (len, consumed) = d.write(&offsets, &mut out);
        assert_eq!(&out[..len], &[0x90, 0xe0, 0x92, 0x33, 0x01, 0x60]);
        assert_eq!(consumed, 6);
    }

    #[test]
    fn a_seven_bit_id_is_written_in_fifteen() {
        let payload = [0x90, 0x80, 0x05, 0x01];
        let d = Vp8Descriptor::parse(&payload).unwrap();
        assert!(!d.starts_keyframe());
        let mut out = [0; MAX_PREFIX];
        let offsets = PictureOffsets {
            picture_id: 1000,
            ..Default::default()
        };
        assert_eq!(d.write(&offsets, &mut out), (4, 3));
        assert_eq!(&out[..4], &[0x90, 0x80, 0x83, 0xed]);
    }

    #[test]
    fn a_plain_descriptor_is_left_alone_and_a_cut_one_refused() {
        let d = Vp8Descriptor::parse(&[0x10, 0x00]).unwrap();
        assert!(d.starts_keyframe());
        assert_eq!(
            d.write(&PictureOffsets::default(), &mut [0; MAX_PREFIX]),
            (0, 0)
        );
        for cut in [
            &[][..],
            &[0x80],
            &[0x90, 0xe0, 0x92],
            &[0x90, 0xe0, 0x92, 0x34, 7, 0x60],
        ] {
            assert_eq!(Vp8Descriptor::parse(cut), None);
        }
    }
}
