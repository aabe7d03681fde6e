//! Rewriting, so that a decoder sees one unbroken stream over any change of source.
//!
//! What is constant while one source holds a slot is a set of offsets: of the
//! sequence number and timestamp ([`rtp`]), and of the picture counters of the
//! payload ([`vp8`], [`vp9`], [`av1`]). The rewrite of a packet is therefore a pure
//! function of the packet and the offsets. That matters for more than tidiness: a
//! plain retransmission (without RTX) must repeat the very octets sent before, since
//! AES-GCM breaks when one sequence number protects two different packets.

pub mod av1;
pub mod rtp;
pub mod vp8;
pub mod vp9;

use av1::DependencyDescriptor;
use vp8::Vp8Descriptor;
use vp9::Vp9Descriptor;

use crate::codecs::VideoCodec;

/// The picture counters of a packet, read once when it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Descriptor {
    /// Audio, H.264, or nothing to rewrite.
    #[default]
    None,
    /// VP8 payload descriptor.
    Vp8(Vp8Descriptor),
    /// VP9 payload descriptor.
    Vp9(Vp9Descriptor),
    /// AV1 dependency descriptor (a header extension).
    Av1(DependencyDescriptor),
}

impl Descriptor {
    /// Reads the counters of a payload, or of the dependency descriptor that came with it.
    /// `None` where the payload is malformed: such a packet is not to be forwarded.
    pub fn read(codec: VideoCodec, payload: &[u8], dependency: Option<&[u8]>) -> Option<Self> {
        if payload.is_empty() {
            return Some(Self::None); // padding only
        }
        match codec {
            VideoCodec::Vp8 => Vp8Descriptor::parse(payload).map(Self::Vp8),
            VideoCodec::Vp9 => Vp9Descriptor::parse(payload).map(Self::Vp9),
            VideoCodec::H264 => Some(Self::None),
            VideoCodec::Av1 => Some(
                dependency
                    .and_then(DependencyDescriptor::parse)
                    .map_or(Self::None, Self::Av1),
            ),
        }
    }

    /// Widens 7-bit picture ids to 15 bits, so that they can go on from where another source
    /// with 15 bits stopped.
    pub fn widen(&mut self, unwrapper: &mut PictureIdUnwrapper) {
        match self {
            Self::Vp8(d) => {
                d.picture_id = d.picture_id.map(|p| unwrapper.unwrap(p, d.wide));
            }
            Self::Vp9(d) => {
                d.picture_id = d.picture_id.map(|p| unwrapper.unwrap(p, d.wide));
            }
            Self::None | Self::Av1(_) => {}
        }
    }

    /// Writes the rewritten head of the payload; gives its length and how many octets of the
    /// payload it replaces.
    #[inline]
    pub fn write(&self, offsets: &PictureOffsets, out: &mut [u8; MAX_PREFIX]) -> (usize, usize) {
        match self {
            Self::Vp8(d) => d.write(offsets, out),
            Self::Vp9(d) => d.write(offsets, out),
            Self::None | Self::Av1(_) => (0, 0),
        }
    }
}

/// Longest rewritten head of a payload.
pub const MAX_PREFIX: usize = 8;

/// Counts 7-bit picture ids on in 15 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct PictureIdUnwrapper {
    last: Option<u16>,
}

impl PictureIdUnwrapper {
    fn unwrap(&mut self, id: u16, wide: bool) -> u16 {
        let full = match self.last {
            Some(last) if !wide => {
                // Signed distance in 7 bits, -64..=63.
                let step = id.wrapping_sub(last) & 0x7f;
                let signed = if step >= 64 {
                    step.wrapping_sub(128)
                } else {
                    step
                };
                last.wrapping_add(signed) & 0x7fff
            }
            _ => id & 0x7fff,
        };
        let newer = self
            .last
            .is_none_or(|last| (full.wrapping_sub(last) & 0x7fff) < 0x4000);
        if newer {
            self.last = Some(full);
        }
        full
    }
}

/// What is added to a source's picture counters while it holds a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureOffsets {
    /// Modulo 2^15.
    pub picture_id: u16,
    /// Modulo 2^8.
    pub tl0: u8,
    /// AV1 frame number, modulo 2^16.
    pub frame: u16,
    /// AV1 template id, modulo 2^6.
    pub template: u8,
}

/// The picture counters a receiver saw last.
#[derive(Clone, Copy, Debug, Default)]
pub struct PictureState {
    picture_id: Option<u16>,
    tl0: Option<u8>,
    frame: Option<u16>,
    next_template: Option<u8>,
}

impl PictureState {
    /// The offsets with which a new source, beginning with this packet, goes on.
    pub fn continue_with(&self, first: &Descriptor) -> PictureOffsets {
        let mut offsets = PictureOffsets::default();
        let (picture_id, tl0) = match first {
            Descriptor::Vp8(d) => (d.picture_id, d.tl0),
            Descriptor::Vp9(d) => (d.picture_id, d.tl0),
            Descriptor::Av1(d) => {
                if let Some(last) = self.frame {
                    offsets.frame = last.wrapping_add(1).wrapping_sub(d.frame_number);
                }
                if let (Some(next), Some(s)) = (self.next_template, d.structure) {
                    offsets.template = next.wrapping_sub(s.offset) & 0x3f;
                }
                (None, None)
            }
            Descriptor::None => (None, None),
        };
        if let (Some(last), Some(now)) = (self.picture_id, picture_id) {
            offsets.picture_id = last.wrapping_add(1).wrapping_sub(now) & 0x7fff;
        }
        if let (Some(last), Some(now)) = (self.tl0, tl0) {
            offsets.tl0 = last.wrapping_add(1).wrapping_sub(now);
        }
        offsets
    }

    /// Takes note of the newest packet sent.
    #[inline]
    pub fn on_sent(&mut self, sent: &Descriptor, offsets: &PictureOffsets) {
        let (picture_id, tl0) = match sent {
            Descriptor::Vp8(d) => (d.picture_id, d.tl0),
            Descriptor::Vp9(d) => (d.picture_id, d.tl0),
            Descriptor::Av1(d) => {
                self.frame = Some(d.frame_number.wrapping_add(offsets.frame));
                if let Some(s) = d.structure {
                    let end = s
                        .offset
                        .wrapping_add(s.count)
                        .wrapping_add(offsets.template);
                    self.next_template = Some(end & 0x3f);
                }
                return;
            }
            Descriptor::None => return,
        };
        if let Some(p) = picture_id {
            self.picture_id = Some(p.wrapping_add(offsets.picture_id) & 0x7fff);
        }
        if let Some(t) = tl0 {
            self.tl0 = Some(t.wrapping_add(offsets.tl0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_bit_picture_ids_count_on_in_fifteen_bits() {
        let mut u = PictureIdUnwrapper::default();
        assert_eq!(u.unwrap(126, false), 126);
        assert_eq!(u.unwrap(127, false), 127);
        assert_eq!(u.unwrap(0, false), 128);
        assert_eq!(
            u.unwrap(127, false),
            127,
            "a late packet of the picture before"
        );
        assert_eq!(u.unwrap(1, false), 129);
        for i in 2..1000u16 {
            assert_eq!(u.unwrap(i & 0x7f, false), 128 + i);
        }
        assert_eq!(u.unwrap(9_000, true), 9_000);
    }
}
