//! A source's stream as it comes in, and who receives it.

use std::time::{Duration, Instant};

use crate::codecs::{AudioCodec, CodecList, Format};
use crate::dtmf::Keypad;
use crate::extensions::ExtensionIds;
use crate::keyframe::KeyframeRequester;
use crate::nack::{MissingTracker, RetransmitBuffer};
use crate::rewrite::rtp::StreamTag;
use crate::rewrite::{Descriptor, PictureIdUnwrapper};
use crate::slot::Kind;
use crate::stats::Reception;
use crate::{LegKey, Level, SourceId, TransportIndex};

/// Another SSRC may take over an m-line when the one before was silent for so long. Shorter: a
/// sender's change is followed sooner; longer: two streams on one m-line never alternate.
pub const TAKEOVER_SILENCE: Duration = Duration::from_millis(200);

/// Video without a packet for so long is gone: another picture is shown.
pub const VIDEO_SILENCE: Duration = Duration::from_secs(2);

/// What is kept with a packet for its retransmission.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Arrival since the Unix epoch.
    pub unix: Duration,
    /// What it is.
    pub format: Format,
    /// Picture counters.
    pub descriptor: Descriptor,
}

/// The last SR of a stream.
#[derive(Clone, Copy, Debug)]
pub struct SenderInfo {
    /// NTP timestamp.
    pub ntp: u64,
    /// RTP timestamp.
    pub rtp: u32,
    /// When it came.
    pub at: Instant,
}

/// One m-line's incoming media.
#[derive(Debug)]
pub struct Stream {
    pub leg: LegKey,
    pub source: SourceId,
    pub mid: Box<[u8]>,
    pub transport: TransportIndex,
    pub kind: Kind,
    pub codecs: CodecList,
    pub extensions: ExtensionIds,
    pub muted: bool,
    pub signalled: Vec<u32>,
    pub signalled_rtx: Vec<u32>,
    pub ssrc: Option<u32>,
    pub rtx_ssrc: Option<u32>,
    pub generation: u32,
    /// What it sends now; `None` before its first packet.
    pub format: Option<Format>,
    pub clock_rate: u32,
    pub reception: Reception,
    pub last_packet: Option<Instant>,
    pub sender: Option<SenderInfo>,
    pub level: Level,
    pub keypad: Keypad,
    /// Slots fed as it comes.
    pub direct: Vec<u32>,
    /// Slots that wait for its key frame.
    pub waiting: Vec<u32>,
    /// Slots fed through renditions, by codec.
    pub renditions: [Vec<u32>; 4],
    /// Renditions asked of the transcoder, a bit a codec.
    pub wanted: u8,
    pub restart: bool,
    pub alive: bool,
    pub unwrapper: PictureIdUnwrapper,
    pub requests: KeyframeRequester,
    pub fir_sequence: u8,
    pub missing: MissingTracker,
    pub buffer: Option<RetransmitBuffer<Meta>>,
    pub nacks: u64,
    pub plis: u64,
}

impl Stream {
    pub const fn tag(&self, stream: u32) -> StreamTag {
        StreamTag {
            stream,
            generation: self.generation,
        }
    }

    /// Whether packets of this SSRC may be taken for the stream; takes it over where they may.
    pub fn admit(&mut self, now: Instant, ssrc: u32, generation: &mut u32) -> bool {
        if self.ssrc == Some(ssrc) {
            return true;
        }
        let named = |s: u32| self.signalled.contains(&s);
        let silent = self
            .last_packet
            .is_none_or(|at| now.saturating_duration_since(at) >= TAKEOVER_SILENCE);
        let better = named(ssrc) && !self.ssrc.is_some_and(named);
        if self.ssrc.is_some() && !silent && !better {
            return false;
        }
        self.ssrc = Some(ssrc);
        self.reception = Reception::default();
        self.renew(generation);
        true
    }

    /// A new life: new SSRC, codec or numbering. What is known of the old one is void.
    pub fn renew(&mut self, generation: &mut u32) {
        *generation = generation.wrapping_add(1);
        self.generation = *generation;
        self.restart = true;
        self.sender = None;
        self.unwrapper = PictureIdUnwrapper::default();
        self.missing.clear();
        if let Some(buffer) = &mut self.buffer {
            buffer.clear();
        }
    }

    /// Video that can be shown.
    pub const fn shows(&self) -> bool {
        matches!(self.kind, Kind::Video) && self.alive && !self.muted
    }

    /// Somebody receives it or waits to.
    pub fn is_received(&self) -> bool {
        !self.direct.is_empty() || !self.waiting.is_empty()
    }
}

/// How many 20 ms frames a packet lasts.
pub fn audio_frames(codec: AudioCodec, payload: &[u8]) -> u32 {
    match codec {
        AudioCodec::G722 | AudioCodec::Pcmu | AudioCodec::Pcma => (payload.len() / 160) as u32,
        AudioCodec::Opus => {
            let Some(&toc) = payload.first() else {
                return 1;
            };
            // RFC 6716 §3.1, table 2, in units of 2.5 ms.
            let config = toc >> 3;
            let frame = match config {
                0..=11 => [4, 8, 16, 24][usize::from(config & 3)],
                12..=15 => [4, 8][usize::from(config & 1)],
                _ => [1, 2, 4, 8][usize::from(config & 3)],
            };
            let count = match toc & 3 {
                0 => 1,
                1 | 2 => 2,
                _ => u32::from(payload.get(1).copied().unwrap_or(1) & 0x3f),
            };
            frame * count / 8
        }
    }
    .clamp(1, 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_durations_come_from_the_payload() {
        assert_eq!(audio_frames(AudioCodec::Pcmu, &[0; 160]), 1);
        assert_eq!(audio_frames(AudioCodec::Pcma, &[0; 480]), 3);
        assert_eq!(audio_frames(AudioCodec::Opus, &[0x78, 1]), 1);
        assert_eq!(audio_frames(AudioCodec::Opus, &[19 << 3 | 1]), 2);
        assert_eq!(audio_frames(AudioCodec::Opus, &[11 << 3]), 3);
        assert_eq!(audio_frames(AudioCodec::Opus, &[0x03, 0x3f]), 6);
        assert_eq!(audio_frames(AudioCodec::Opus, &[]), 1);
    }
}
