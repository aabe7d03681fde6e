//! Audio codecs: what a rendition is made with, and what a level is read from.
//!
//! Opus is libopus; G.711 and G.722 are small enough to be our own. Linear audio is mono, 16 bit, at 8 or 16 kHz:
//! nothing a rendition goes to or comes from needs more.

pub mod g711;
pub mod g722;
pub mod resample;

use crate::AudioCodec;

/// Longest packet, ms (RFC 6716 §2.1.4); also what G.711 and G.722 packets are cut at.
pub const LONGEST_MS: usize = 120;

/// Most samples one packet decodes to.
pub const MOST_SAMPLES: usize = LONGEST_MS * 16;

/// bit/s of an Opus rendition. Raising it improves music more than voice.
const OPUS_BITRATE: i32 = 28_000;

/// 0..=10. Raising it costs CPU: 5 takes about a third of what 10 does, and few hear the difference in speech.
const OPUS_COMPLEXITY: i32 = 5;

/// libopus could not be set up or refused a packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The packet is not one of this codec.
    #[error("packet does not decode")]
    BadPacket,
    /// No memory for a codec state.
    #[error("codec state could not be made")]
    Unavailable,
}

/// Samples a second of what a codec is decoded to and encoded from, Hz.
#[must_use]
pub const fn linear_rate(codec: AudioCodec) -> usize {
    match codec {
        AudioCodec::Opus | AudioCodec::G722 => 16_000,
        AudioCodec::Pcmu | AudioCodec::Pcma => 8_000,
    }
}

/// RTP clock ticks a linear sample lasts.
#[must_use]
pub const fn ticks(codec: AudioCodec, samples: usize, rate: usize) -> u32 {
    (samples as u64 * codec.clock_rate() as u64 / rate as u64) as u32
}

/// Decoder state of one stream.
#[derive(Debug)]
pub enum Decoder {
    /// libopus.
    Opus(Box<opus::Decoder>),
    /// G.722.
    G722(Box<g722::Decoder>),
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl Decoder {
    /// A fresh state.
    ///
    /// # Errors
    /// [`CodecError::Unavailable`].
    pub fn new(codec: AudioCodec) -> Result<Self, CodecError> {
        Ok(match codec {
            AudioCodec::Opus => Self::Opus(Box::new(
                opus::Decoder::new(16_000, opus::Channels::Mono)
                    .map_err(|_| CodecError::Unavailable)?,
            )),
            AudioCodec::G722 => Self::G722(Box::default()),
            AudioCodec::Pcmu => Self::Pcmu,
            AudioCodec::Pcma => Self::Pcma,
        })
    }

    /// Decodes one packet into `pcm` ([`MOST_SAMPLES`] long); returns the number of samples. What is longer than
    /// [`LONGEST_MS`] is cut.
    ///
    /// # Errors
    /// [`CodecError::BadPacket`].
    pub fn decode(&mut self, payload: &[u8], pcm: &mut [i16]) -> Result<usize, CodecError> {
        match self {
            Self::Opus(_) if payload.is_empty() => Err(CodecError::BadPacket), // would conceal, not decode
            Self::Opus(decoder) => decoder
                .decode(payload, pcm, false)
                .map_err(|_| CodecError::BadPacket),
            Self::G722(decoder) => Ok(decoder.decode(payload, pcm)),
            Self::Pcmu => Ok(expand(payload, pcm, g711::ulaw_to_linear)),
            Self::Pcma => Ok(expand(payload, pcm, g711::alaw_to_linear)),
        }
    }

    /// Makes up for a lost packet of `samples`: from the next packet's redundancy where Opus carries it, else by
    /// Opus' own concealment; for the other codecs by `last`, fading.
    pub fn conceal(
        &mut self,
        next: Option<&[u8]>,
        samples: usize,
        last: &[i16],
        pcm: &mut [i16],
    ) -> usize {
        let samples = samples.min(pcm.len());
        let pcm = &mut pcm[..samples];
        if let Self::Opus(decoder) = self {
            let (payload, redundant) = next.map_or((&[][..], false), |p| (p, true));
            return decoder.decode(payload, pcm, redundant).unwrap_or(0);
        }
        for (i, sample) in pcm.iter_mut().enumerate() {
            let faded = last.get(i % last.len().max(1)).map_or(0, |s| i32::from(*s));
            *sample = (faded * (samples - i) as i32 / (2 * samples as i32)) as i16;
        }
        samples
    }
}

fn expand(payload: &[u8], pcm: &mut [i16], table: fn(u8) -> i16) -> usize {
    let samples = payload.len().min(LONGEST_MS * 8);
    for (octet, sample) in payload.iter().zip(&mut pcm[..samples]) {
        *sample = table(*octet);
    }
    samples
}

/// Encoder state of one stream.
#[derive(Debug)]
pub enum Encoder {
    /// libopus.
    Opus(Box<opus::Encoder>),
    /// G.722.
    G722(Box<g722::Encoder>),
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl Encoder {
    /// A fresh state for linear audio of `rate` Hz (8,000 or 16,000; only Opus takes both).
    ///
    /// # Errors
    /// [`CodecError::Unavailable`].
    pub fn new(codec: AudioCodec, rate: usize) -> Result<Self, CodecError> {
        Ok(match codec {
            AudioCodec::Opus => {
                let rate = u32::try_from(rate).map_err(|_| CodecError::Unavailable)?;
                let make = || -> Result<opus::Encoder, opus::Error> {
                    let mut encoder =
                        opus::Encoder::new(rate, opus::Channels::Mono, opus::Application::Voip)?;
                    encoder.set_bitrate(opus::Bitrate::Bits(OPUS_BITRATE))?;
                    encoder.set_complexity(OPUS_COMPLEXITY)?;
                    encoder.set_inband_fec(true)?;
                    encoder.set_packet_loss_perc(5)?;
                    Ok(encoder)
                };
                Self::Opus(Box::new(make().map_err(|_| CodecError::Unavailable)?))
            }
            AudioCodec::G722 => Self::G722(Box::default()),
            AudioCodec::Pcmu => Self::Pcmu,
            AudioCodec::Pcma => Self::Pcma,
        })
    }

    /// Encodes one frame into `out`; returns the number of octets.
    ///
    /// # Errors
    /// [`CodecError::BadPacket`] when libopus refuses the frame's length.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        match self {
            Self::Opus(encoder) => encoder.encode(pcm, out).map_err(|_| CodecError::BadPacket),
            Self::G722(encoder) => Ok(encoder.encode(pcm, out)),
            Self::Pcmu => Ok(compress(pcm, out, g711::linear_to_ulaw)),
            Self::Pcma => Ok(compress(pcm, out, g711::linear_to_alaw)),
        }
    }
}

fn compress(pcm: &[i16], out: &mut [u8], table: fn(i16) -> u8) -> usize {
    for (sample, octet) in pcm.iter().zip(&mut *out) {
        *octet = table(*sample);
    }
    pcm.len().min(out.len())
}

/// Level of linear audio in −dBov: 0 is a full-scale square wave, 127 is silence (RFC 6464 §3).
#[must_use]
pub fn dbov(pcm: &[i16]) -> u8 {
    let energy: u64 = pcm.iter().map(|s| u64::from(s.unsigned_abs()).pow(2)).sum();
    if energy == 0 {
        return 127;
    }
    let mean = energy as f64 / pcm.len() as f64;
    let level = -10.0 * (mean / 32_768.0_f64.powi(2)).log10();
    level.round().clamp(0.0, 127.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_is_0_at_full_scale_127_in_silence_and_falls_6_db_a_halving() {
        assert_eq!(dbov(&[32_767, -32_768]), 0);
        assert_eq!(dbov(&[16_384, -16_384]), 6);
        assert_eq!(dbov(&[0; 160]), 127);
        assert_eq!(dbov(&[]), 127);
    }

    #[test]
    fn opus_is_heard_through_loss() {
        let tone = |i: usize| {
            (8000.0 * (std::f64::consts::TAU * 300.0 * i as f64 / 16_000.0).sin()) as i16
        };
        let mut encoder = Encoder::new(AudioCodec::Opus, 16_000).expect("libopus");
        let mut decoder = Decoder::new(AudioCodec::Opus).expect("libopus");
        let (mut octets, mut pcm) = ([0; 1500], [0; MOST_SAMPLES]);
        for frame in 0..50 {
            let input: Vec<i16> = (0..320).map(|i| tone(frame * 320 + i)).collect();
            let length = encoder
                .encode(&input, &mut octets)
                .expect("a frame of 20 ms");
            let samples = if frame == 40 {
                decoder.conceal(None, 320, &[], &mut pcm)
            } else {
                decoder
                    .decode(&octets[..length], &mut pcm)
                    .expect("what was encoded")
            };
            assert_eq!(samples, 320);
            // after a loss libopus finds its way back within a few frames
            if frame > 5 && !(41..45).contains(&frame) {
                assert!(
                    dbov(&pcm[..samples]) < 30,
                    "frame {frame}: -{} dBov",
                    dbov(&pcm[..samples])
                );
            }
        }
    }

    #[test]
    fn garbage_is_refused_or_decoded_but_never_panics() {
        for codec in [
            AudioCodec::Opus,
            AudioCodec::G722,
            AudioCodec::Pcmu,
            AudioCodec::Pcma,
        ] {
            let mut decoder = Decoder::new(codec).expect("a decoder");
            let mut pcm = [0; MOST_SAMPLES];
            for length in [0usize, 1, 2, 3, 7, 160, 1400, 5000] {
                let payload: Vec<u8> = (0..length).map(|i| (i * 37 + length) as u8).collect();
                let _ = decoder.decode(&payload, &mut pcm);
            }
        }
    }
}
