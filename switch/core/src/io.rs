//! Where a meeting's packets go, and who decodes and encodes for it.

use std::time::Instant;

use crate::slot::{InPacket, Scratch, Slot};
use crate::{AudioCodec, LegKey, Level, SourceId, TransportIndex};

/// An RTP packet to be sent, in parts so that no intermediate copy is made:
/// the packet is `header`, then `prefix`, then `payload`.
#[derive(Clone, Copy, Debug)]
pub struct RtpOut<'a> {
    /// Fixed header, CSRCs and extensions; authenticated, not encrypted by SRTP.
    pub header: &'a [u8],
    /// The rewritten head of the payload (a payload descriptor, an RTX sequence number); often empty.
    pub prefix: &'a [u8],
    /// The rest of the payload, as received.
    pub payload: &'a [u8],
}

impl RtpOut<'_> {
    /// Octets of the packet before protection.
    pub fn len(&self) -> usize {
        self.header.len() + self.prefix.len() + self.payload.len()
    }

    /// Never: a packet has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes what a meeting sends: seals it and puts it into the send batch.
///
/// A packet for a leg whose transport is not up yet (no validated pair, no keys)
/// is dropped silently by the implementer.
pub trait Egress {
    /// One RTP packet.
    fn rtp(&mut self, leg: LegKey, transport: TransportIndex, packet: RtpOut<'_>);
    /// One compound (or reduced-size, RFC 5506) RTCP packet.
    fn rtcp(&mut self, leg: LegKey, transport: TransportIndex, compound: &[u8]);
    /// Packets of one stream to the slots it fills, by their places in `slots`; whether one of them waits for a key frame.
    fn fan_out(
        &mut self,
        now: Instant,
        packets: &[InPacket<'_>],
        direct: &[u32],
        slots: &mut [Option<Slot>],
        scratch: &mut Scratch,
    ) -> bool
    where
        Self: Sized,
    {
        let mut waits = false;
        for &s in direct {
            if let Some(slot) = slots[s as usize].as_mut() {
                waits |= slot.send_all(now, packets, scratch, self);
            }
        }
        waits
    }
}

/// A received audio frame, for decoding.
#[derive(Clone, Copy, Debug)]
pub struct MediaFrame<'a> {
    /// Who sent it.
    pub source: SourceId,
    /// What it is.
    pub codec: AudioCodec,
    /// RTP sequence number as received; may be late or doubled. Jumps to
    /// anywhere when the sender starts a new stream (`restart`).
    pub sequence: u16,
    /// RTP timestamp as received, in the codec's clock.
    pub timestamp: u32,
    /// A new SSRC or codec: what was known about sequence and timestamp is void.
    pub restart: bool,
    /// One frame, padding and header taken off. Empty: the packet was no audio (a pressed key), but its number is spent.
    pub payload: &'a [u8],
}

/// An encoded frame of a rendition.
#[derive(Clone, Copy, Debug)]
pub struct RenditionFrame<'a> {
    /// Whose voice.
    pub source: SourceId,
    /// Target codec.
    pub codec: AudioCodec,
    /// Counts frames of this rendition, +1 a frame sent.
    pub sequence: u16,
    /// In the target codec's clock; advances over silence and loss too.
    pub timestamp: u32,
    /// First frame of the rendition or after silence.
    pub marker: bool,
    /// The frame.
    pub payload: &'a [u8],
}

/// Decodes once and encodes once per target codec; owns every codec state.
pub trait Transcoder {
    /// The renditions now needed of `source`: exactly `targets`, empty = none. Called on change only.
    fn want(&mut self, source: SourceId, targets: &[AudioCodec]);
    /// A frame of a source of which renditions are wanted.
    fn push(&mut self, now: Instant, frame: MediaFrame<'_>);
    /// The next frame ready; called until `None` after every push and timeout.
    fn poll(&mut self, now: Instant) -> Option<RenditionFrame<'_>>;
    /// Voice level of a payload from a sender without RFC 6464, after it was pushed where renditions are wanted, so that
    /// nothing is decoded twice; `None` when it cannot be said.
    fn level(&mut self, source: SourceId, codec: AudioCodec, payload: &[u8]) -> Option<Level>;
    /// The source is gone: free everything about it.
    fn forget(&mut self, source: SourceId);
}
