//! The VP9 payload descriptor (RFC 9628 §4.2).
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! |I|P|L|F|B|E|V|Z| required
//! |M| PICTURE ID  | with I; with M a second octet
//! | TID |U| SID |D| with L
//! |   TL0PICIDX   | with L and not F
//! |  P_DIFFs, SS  | relative or self-contained: left as they are
//! ```

use super::{MAX_PREFIX, PictureOffsets};

/// A parsed descriptor, as far as it counts pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Descriptor {
    first: u8,
    /// Picture id; 7 bits until widened, unless `wide`.
    pub picture_id: Option<u16>,
    /// The id came in 15 bits.
    pub wide: bool,
    layer: Option<u8>,
    /// TL0PICIDX, in non-flexible mode.
    pub tl0: Option<u8>,
    consumed: u8,
}

impl Vp9Descriptor {
    /// Reads a descriptor; `None` when the payload ends within it.
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
            picture_id: None,
            wide: false,
            layer: None,
            tl0: None,
            consumed: 0,
        };
        if first & 0x80 != 0 {
            let high = octet()?;
            d.wide = high & 0x80 != 0;
            let mut id = u16::from(high & 0x7f);
            if d.wide {
                id = (id << 8) | u16::from(octet()?);
            }
            d.picture_id = Some(id);
        }
        if first & 0x20 != 0 {
            d.layer = Some(octet()?);
            if first & 0x10 == 0 {
                d.tl0 = Some(octet()?);
            }
        }
        d.consumed = at as u8;
        payload.get(at)?;
        Some(d)
    }

    /// The packet begins a key frame: start of a frame, not inter-picture predicted, base layer.
    pub const fn starts_keyframe(&self) -> bool {
        let base = match self.layer {
            Some(layer) => (layer >> 1) & 0x07 == 0,
            None => true,
        };
        self.first & 0x40 == 0 && self.first & 0x08 != 0 && base
    }

    pub(super) fn write(
        &self,
        offsets: &PictureOffsets,
        out: &mut [u8; MAX_PREFIX],
    ) -> (usize, usize) {
        out[0] = self.first;
        let mut at = 1;
        if let Some(id) = self.picture_id {
            let id = id.wrapping_add(offsets.picture_id) & 0x7fff;
            out[1..3].copy_from_slice(&(id | 0x8000).to_be_bytes());
            at = 3;
        }
        if let Some(layer) = self.layer {
            out[at] = layer;
            at += 1;
        }
        if let Some(tl0) = self.tl0 {
            out[at] = tl0.wrapping_add(offsets.tl0);
            at += 1;
        }
        (at, usize::from(self.consumed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_offset_in_non_flexible_mode() {
        let payload = [0xa8, 0x85, 0x00, 0x20, 0xff, 0x99];
        let d = Vp9Descriptor::parse(&payload).unwrap();
        assert!(d.starts_keyframe());
        let mut out = [0; MAX_PREFIX];
        let offsets = PictureOffsets {
            picture_id: 3,
            tl0: 2,
            ..Default::default()
        };
        let (len, consumed) = d.write(&offsets, &mut out);
        assert_eq!(&out[..len], &[0xa8, 0x85, 0x03, 0x20, 0x01]);
        assert_eq!(consumed, 5);
    }

    #[test]
    fn flexible_mode_has_no_tl0_and_predicted_frames_are_no_key() {
        let payload = [0xf8, 0x05, 0x20, 0x04, 0x99];
        let d = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(d.tl0, None);
        assert!(!d.starts_keyframe());
        assert_eq!(Vp9Descriptor::parse(&[0xf8, 0x85]), None);
        assert_eq!(Vp9Descriptor::parse(&[]), None);
    }

    #[test]
    fn an_upper_spatial_layer_begins_no_key_frame() {
        // P=0, B=1, L=1, SID=1
        let d = Vp9Descriptor::parse(&[0x28, 0x02, 0x00, 0x99]).unwrap();
        assert!(!d.starts_keyframe());
    }
}
