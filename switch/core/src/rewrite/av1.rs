//! The AV1 dependency descriptor, a header extension (RTP payload format for AV1, appendix A).
//!
//! ```text
//! start_of_frame (1) end_of_frame (1) template_id (6) frame_number (16)
//! [structure present (1) 4 more flags, then with it: template_id_offset (6) dt_cnt_minus_one (5)
//!  template layers: next_layer_idc (2) … until 3]
//! ```
//!
//! Only frame number, template id and the structure's template id offset count over
//! a change of source. Template ids of a new source are moved behind those of the old one,
//! so that a packet of the old structure can never be read with the new one.

use super::PictureOffsets;

/// The template ids a structure defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Templates {
    /// template_id_offset.
    pub offset: u8,
    /// How many templates follow from there, modulo 64.
    pub count: u8,
}

/// The counting part of a dependency descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DependencyDescriptor {
    /// frame_number.
    pub frame_number: u16,
    /// The structure attached to this packet, where there is one.
    pub structure: Option<Templates>,
}

/// Longest descriptor that fits a header extension.
pub const MAX_DESCRIPTOR: usize = 255;

fn bits(data: &[u8], at: usize, count: usize) -> Option<u32> {
    let mut value = 0;
    for i in at..at + count {
        let octet = *data.get(i / 8)?;
        value = (value << 1) | u32::from((octet >> (7 - i % 8)) & 1);
    }
    Some(value)
}

fn put_bits(data: &mut [u8], at: usize, count: usize, value: u32) {
    for i in 0..count {
        let bit = (value >> (count - 1 - i)) & 1;
        let place = at + i;
        if let Some(octet) = data.get_mut(place / 8) {
            let mask = 1 << (7 - place % 8);
            *octet = if bit == 1 {
                *octet | mask
            } else {
                *octet & !mask
            };
        }
    }
}

impl DependencyDescriptor {
    /// Reads the counting part; `None` where the data ends within it.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let frame_number = u16::from_be_bytes([*data.get(1)?, *data.get(2)?]);
        let has_structure = data.len() > 3 && bits(data, 24, 1)? == 1;
        let structure = if has_structure {
            let offset = bits(data, 29, 6)? as u8;
            let mut count = 1u8;
            // template_layers(): bounded, since there are 64 ids.
            while bits(data, 40 + 2 * (usize::from(count) - 1), 2)? != 3 {
                count += 1;
                if count > 64 {
                    return None;
                }
            }
            Some(Templates { offset, count })
        } else {
            None
        };
        Some(Self {
            frame_number,
            structure,
        })
    }

    /// Writes `data` with the offsets applied; gives the length.
    pub fn write(
        &self,
        data: &[u8],
        offsets: &PictureOffsets,
        out: &mut [u8; MAX_DESCRIPTOR],
    ) -> usize {
        let len = data.len().min(MAX_DESCRIPTOR);
        out[..len].copy_from_slice(&data[..len]);
        if len < 3 {
            return len;
        }
        let template = (out[0] & 0x3f).wrapping_add(offsets.template) & 0x3f;
        out[0] = (out[0] & 0xc0) | template;
        out[1..3].copy_from_slice(&self.frame_number.wrapping_add(offsets.frame).to_be_bytes());
        if let Some(s) = self.structure {
            let moved = s.offset.wrapping_add(offsets.template) & 0x3f;
            put_bits(&mut out[..len], 29, 6, u32::from(moved));
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::{Descriptor, PictureState};

    /// A descriptor with a structure of `count` templates from `offset` on.
    fn with_structure(frame: u16, offset: u8, count: usize) -> Vec<u8> {
        let mut d = vec![0; 8 + count / 4];
        d[0] = 0xc0 | (offset & 0x3f);
        d[1..3].copy_from_slice(&frame.to_be_bytes());
        put_bits(&mut d, 24, 1, 1);
        put_bits(&mut d, 29, 6, u32::from(offset));
        put_bits(&mut d, 40 + 2 * (count - 1), 2, 3);
        d
    }

    #[test]
    fn a_new_source_goes_on_in_frame_numbers_and_moves_its_templates() {
        let mut state = PictureState::default();
        let first = with_structure(500, 0, 5);
        let d = DependencyDescriptor::parse(&first).unwrap();
        assert_eq!(
            d.structure,
            Some(Templates {
                offset: 0,
                count: 5
            })
        );
        let none = state.continue_with(&Descriptor::Av1(d));
        assert_eq!(none, PictureOffsets::default());
        state.on_sent(&Descriptor::Av1(d), &none);

        let second = with_structure(9, 3, 2);
        let d = DependencyDescriptor::parse(&second).unwrap();
        let offsets = state.continue_with(&Descriptor::Av1(d));
        let mut out = [0; MAX_DESCRIPTOR];
        let len = d.write(&second, &offsets, &mut out);
        let written = DependencyDescriptor::parse(&out[..len]).unwrap();
        assert_eq!(written.frame_number, 501);
        assert_eq!(
            written.structure,
            Some(Templates {
                offset: 5,
                count: 2
            })
        );
        assert_eq!(out[0] & 0x3f, 5);
    }

    #[test]
    fn a_structure_that_never_ends_is_refused() {
        let mut d = vec![0; 60];
        put_bits(&mut d, 24, 1, 1);
        assert_eq!(DependencyDescriptor::parse(&d), None);
        assert_eq!(DependencyDescriptor::parse(&d[..5]), None);
        assert_eq!(DependencyDescriptor::parse(&[1, 2]), None);
    }
}
