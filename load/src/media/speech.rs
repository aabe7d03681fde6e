//! The recording all speakers share, encoded once for each codec. See fixtures/README.md.

use std::io;

use switch_core::codec::g711;

use super::stamp::{STAMP, Stamp};

/// 8 kHz µ-law.
static RECORDING: &[u8] = include_bytes!("../../fixtures/speech.ulaw");

/// Samples of a 20 ms frame at 8 kHz.
const FRAME: usize = 160;

/// dBov above which a frame is voice; pauses of the recording are far below.
const VOICE: u8 = 45;

/// Opus, bit/s: what browsers use for speech.
const OPUS_BITRATE: i32 = 32_000;

/// Longest payload made here.
pub const MAX_AUDIO: usize = 400;

/// An audio codec we can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl Codec {
    /// By its SDP name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [
            ("opus", Self::Opus),
            ("pcmu", Self::Pcmu),
            ("pcma", Self::Pcma),
        ]
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, codec)| codec)
    }

    /// RTP clock units of a 20 ms frame.
    #[must_use]
    pub fn step(self) -> u32 {
        match self {
            // RFC 7587 §4.1: always 48 kHz
            Self::Opus => 960,
            Self::Pcmu | Self::Pcma => 160,
        }
    }
}

/// One 20 ms frame.
#[derive(Clone, Debug)]
struct Frame {
    opus: Box<[u8]>,
    pcmu: [u8; FRAME],
    level: u8,
}

/// The recording, and a frame of silence.
#[derive(Clone, Debug)]
pub struct Speech {
    frames: Vec<Frame>,
    silence: Frame,
    /// Frames at which a sentence begins.
    begins: Vec<usize>,
}

/// −dBov of a frame, 0 to 127 (RFC 6464: of its RMS, over the full scale's).
fn level(samples: &[i16]) -> u8 {
    let energy: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    let rms = (energy / samples.len() as f64).sqrt() / 32_768.0;
    if rms <= 0.0 {
        return 127;
    }
    (-20.0 * rms.log10()).round().clamp(0.0, 127.0) as u8
}

impl Speech {
    /// Decodes and encodes the recording; some 50 ms of work.
    ///
    /// # Errors
    /// What the Opus library says.
    pub fn new() -> io::Result<Self> {
        let failed = |e: opus::Error| io::Error::other(format!("Opus: {e}"));
        let mut encoder = opus::Encoder::new(8000, opus::Channels::Mono, opus::Application::Voip)
            .map_err(failed)?;
        encoder
            .set_bitrate(opus::Bitrate::Bits(OPUS_BITRATE))
            .map_err(failed)?;
        encoder.set_complexity(5).map_err(failed)?;
        let mut frame = |pcmu: [u8; FRAME]| {
            let samples = pcmu.map(g711::ulaw_to_linear);
            let opus = encoder.encode_vec(&samples, MAX_AUDIO - STAMP - 2);
            Ok(Frame {
                opus: opus.map_err(failed)?.into(),
                pcmu,
                level: level(&samples),
            })
        };
        let silence = frame([0xff; FRAME])?;
        let whole = RECORDING.as_chunks::<FRAME>().0;
        let frames: Vec<Frame> = whole.iter().map(|f| frame(*f)).collect::<io::Result<_>>()?;
        let loud = |at: usize| frames[at].level < VOICE;
        // a tenth of a second of quiet, then voice
        let begins = (5..frames.len())
            .filter(|at| loud(*at) && (1..=5).all(|back| !loud(at - back)))
            .collect();
        Ok(Self {
            frames,
            silence,
            begins,
        })
    }

    /// Where a spurt begins: each at another sentence, so that speakers do not say the same at once.
    #[must_use]
    pub fn begin(&self, speaker: u32, spurt: u16) -> usize {
        let Some(last) = self.begins.len().checked_sub(1) else {
            return 0;
        };
        self.begins[(speaker as usize + usize::from(spurt)) % (last + 1)]
    }

    /// Writes the payload of a frame (`None`: of silence) with the stamp in it; its length, and the octet of its
    /// RFC 6464 level.
    pub fn write(
        &self,
        frame: Option<usize>,
        codec: Codec,
        stamp: Stamp,
        out: &mut [u8; MAX_AUDIO],
    ) -> (usize, u8) {
        let frame = frame.map_or(&self.silence, |at| &self.frames[at % self.frames.len()]);
        let voice = if frame.level < VOICE { 0x80 } else { 0 };
        let stamp = stamp.to_bytes();
        let len = match codec {
            Codec::Opus => write_opus(&frame.opus, &stamp, out),
            Codec::Pcmu | Codec::Pcma => {
                out[..FRAME].copy_from_slice(&frame.pcmu);
                if codec == Codec::Pcma {
                    for octet in &mut out[..FRAME] {
                        *octet = g711::linear_to_alaw(g711::ulaw_to_linear(*octet));
                    }
                }
                out[FRAME - STAMP..FRAME].copy_from_slice(&stamp);
                FRAME
            }
        };
        (len, frame.level | voice)
    }
}

/// An Opus packet of one frame as one with padding (RFC 6716 §3.2.5, code 3), the stamp in the padding.
fn write_opus(packet: &[u8], stamp: &[u8; STAMP], out: &mut [u8; MAX_AUDIO]) -> usize {
    // The encoder gives code 0 for 20 ms; an empty packet would be DTX, which is off.
    let Some((toc, frame)) = packet.split_first() else {
        return 0;
    };
    const PADDING_ONE_FRAME: u8 = 0x41;
    out[0] = toc | 3;
    out[1] = PADDING_ONE_FRAME;
    out[2] = STAMP as u8;
    let end = 3 + frame.len();
    out[3..end].copy_from_slice(frame);
    out[end..end + STAMP].copy_from_slice(stamp);
    end + STAMP
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            sender: 3,
            sent: 99,
            counter: 1,
            spurt: 2,
            since: Some(40),
        }
    }

    #[test]
    fn stamped_opus_decodes_to_the_speech_it_was() {
        let speech = Speech::new().unwrap();
        let mut decoder = opus::Decoder::new(8000, opus::Channels::Mono).unwrap();
        let mut plain = opus::Decoder::new(8000, opus::Channels::Mono).unwrap();
        let (mut out, mut pcm, mut same) = ([0; MAX_AUDIO], [0i16; 960], [0i16; 960]);
        for at in 0..speech.frames.len() {
            let (len, _) = speech.write(Some(at), Codec::Opus, stamp(), &mut out);
            assert_eq!(Stamp::find(&out[..len]), Some(stamp()));
            assert_eq!(decoder.decode(&out[..len], &mut pcm, false).unwrap(), FRAME);
            let original = &speech.frames[at].opus;
            assert_eq!(original[0] & 3, 0, "one frame a packet");
            plain.decode(original, &mut same, false).unwrap();
            assert_eq!(pcm, same);
        }
    }

    #[test]
    fn g711_keeps_all_but_the_last_three_milliseconds() {
        let speech = Speech::new().unwrap();
        let mut out = [0; MAX_AUDIO];
        for codec in [Codec::Pcmu, Codec::Pcma] {
            let (len, _) = speech.write(Some(20), codec, stamp(), &mut out);
            assert_eq!(len, FRAME);
            assert_eq!(Stamp::find(&out[..len]), Some(stamp()));
            let decode = |octet: &u8| match codec {
                Codec::Pcmu => g711::ulaw_to_linear(*octet),
                _ => g711::alaw_to_linear(*octet),
            };
            for (sent, meant) in out.iter().zip(&speech.frames[20].pcmu).take(FRAME - STAMP) {
                let meant = g711::ulaw_to_linear(*meant);
                let off = (i32::from(decode(sent)) - i32::from(meant)).abs();
                assert!(off <= 8 + i32::from(meant).abs() / 16, "{meant} {off}");
            }
        }
    }

    #[test]
    fn levels_are_those_of_speech_and_spurts_begin_with_voice() {
        let speech = Speech::new().unwrap();
        let voiced = speech.frames.iter().filter(|f| f.level < VOICE).count();
        assert!(voiced * 10 > speech.frames.len() * 6, "{voiced}");
        let loudest = speech.frames.iter().map(|f| f.level).min().unwrap();
        assert!((5..25).contains(&loudest), "{loudest}");
        assert!(speech.begins.len() >= 3, "{:?}", speech.begins);
        let mut out = [0; MAX_AUDIO];
        for speaker in 0..4 {
            let begin = speech.begin(speaker, 1);
            let (_, octet) = speech.write(Some(begin), Codec::Opus, stamp(), &mut out);
            assert_eq!(octet & 0x80, 0x80);
        }
        let (_, octet) = speech.write(None, Codec::Opus, stamp(), &mut out);
        assert_eq!(octet, 127);
        assert_eq!(level(&[i16::MAX; 8]), 0);
        assert_eq!(level(&[0; 8]), 127);
    }
}
