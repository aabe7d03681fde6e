//! G.722 and G.711 against FFmpeg's implementations, both ways: what either encodes the other decodes to the same.

use std::io::Write;
use std::process::{Command, Stdio};

use switch_core::AudioCodec;
use switch_core::codec::{Decoder, Encoder, MOST_SAMPLES, linear_rate};

/// Runs FFmpeg over bytes; `None` where it is not installed.
fn ffmpeg(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if std::env::var_os("CI").is_some() => panic!("ffmpeg: {e}"),
        Err(e) => {
            eprintln!("skipped: ffmpeg: {e}");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "ffmpeg {arguments:?}");
    Some(output.stdout)
}

fn names(codec: AudioCodec) -> (&'static str, &'static str) {
    match codec {
        AudioCodec::G722 => ("g722", "g722"),
        AudioCodec::Pcmu => ("pcm_mulaw", "mulaw"),
        AudioCodec::Pcma => ("pcm_alaw", "alaw"),
        AudioCodec::Opus => panic!("a container's codec"),
    }
}

/// Arguments to decode with. The rate of G.722 is given by its format.
fn decoding(codec: AudioCodec) -> Vec<&'static str> {
    let (_, format) = names(codec);
    let rate: &[&str] = match codec {
        AudioCodec::G722 => &[],
        _ => &["-ar", "8000", "-ac", "1"],
    };
    [&["-f", format], rate, &["-i", "-", "-f", "s16le", "-"]].concat()
}

/// Two seconds of a sweep whose loudness swells, in whole 20 ms frames.
fn sweep(rate: usize) -> Vec<i16> {
    let mut phase = 0.0f64;
    (0..2 * rate)
        .map(|at| {
            let t = at as f64 / rate as f64;
            let top = rate as f64 * 0.4;
            phase += std::f64::consts::TAU * (100.0 + (top - 100.0) * t / 2.0) / rate as f64;
            let loudness = 3_000.0 + 5_000.0 * (t * 5.0).sin().abs();
            (phase.sin() * loudness) as i16
        })
        .collect()
}

fn bytes(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|s| s.to_le_bytes()).collect()
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes
        .chunks_exact(2)
        .map(|b| i16::from_le_bytes([b[0], b[1]]))
        .collect()
}

fn encode(codec: AudioCodec, pcm: &[i16]) -> Vec<u8> {
    let rate = linear_rate(codec);
    let mut encoder = Encoder::new(codec, rate).unwrap();
    let mut out = [0u8; 400];
    pcm.chunks_exact(rate / 50)
        .flat_map(|frame| {
            let len = encoder.encode(frame, &mut out).unwrap();
            out[..len].to_vec()
        })
        .collect()
}

fn decode(codec: AudioCodec, octets: &[u8]) -> Vec<i16> {
    let mut decoder = Decoder::new(codec).unwrap();
    let mut pcm = [0i16; MOST_SAMPLES];
    octets
        .chunks(160)
        .flat_map(|packet| {
            let len = decoder.decode(packet, &mut pcm).unwrap();
            pcm[..len].to_vec()
        })
        .collect()
}

/// dB of signal over the difference, at the best delay of up to 64 samples.
fn agreement(one: &[i16], other: &[i16]) -> f64 {
    let len = one.len().min(other.len()) - 64;
    (0..64)
        .map(|delay| {
            let pairs = one[..len].iter().zip(&other[delay..delay + len]);
            let (mut signal, mut noise) = (0.0f64, 1e-9f64);
            for (a, b) in pairs {
                signal += f64::from(*a).powi(2);
                noise += (f64::from(*a) - f64::from(*b)).powi(2);
            }
            10.0 * (signal / noise).log10()
        })
        .fold(f64::MIN, f64::max)
}

#[test]
fn what_ffmpeg_encodes_we_decode_as_it_does_itself() {
    for codec in [AudioCodec::G722, AudioCodec::Pcmu, AudioCodec::Pcma] {
        let rate = linear_rate(codec).to_string();
        let (encoder, format) = names(codec);
        let pcm = sweep(linear_rate(codec));
        let raw = ["-f", "s16le", "-ar", &rate, "-ac", "1", "-i", "-"];
        let to = ["-c:a", encoder, "-f", format, "-"];
        let Some(octets) = ffmpeg(&[&raw[..], &to[..]].concat(), &bytes(&pcm)) else {
            return;
        };
        let back = decoding(codec);
        let theirs = samples(&ffmpeg(&back, &octets).unwrap());
        let ours = decode(codec, &octets);
        let db = agreement(&ours, &theirs);
        assert!(db > 60.0, "{codec:?}: {db:.1} dB");
    }
}

#[test]
fn what_we_encode_ffmpeg_decodes_as_well_as_what_it_encodes() {
    for codec in [AudioCodec::G722, AudioCodec::Pcmu, AudioCodec::Pcma] {
        let rate = linear_rate(codec).to_string();
        let (encoder, format) = names(codec);
        let pcm = sweep(linear_rate(codec));
        let back = decoding(codec);
        let Some(heard) = ffmpeg(&back, &encode(codec, &pcm)) else {
            return;
        };
        let raw = ["-f", "s16le", "-ar", &rate, "-ac", "1", "-i", "-"];
        let to = ["-c:a", encoder, "-f", format, "-"];
        let octets = ffmpeg(&[&raw[..], &to[..]].concat(), &bytes(&pcm)).unwrap();
        let reference = agreement(&pcm, &samples(&ffmpeg(&back, &octets).unwrap()));
        let ours = agreement(&pcm, &samples(&heard));
        assert!(
            ours > reference - 1.0,
            "{codec:?}: {ours:.1} dB, FFmpeg's own {reference:.1} dB"
        );
    }
}
