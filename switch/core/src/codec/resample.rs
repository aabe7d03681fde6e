//! Between 8 and 16 kHz by a half-band filter; the only two rates renditions are made at.

/// Taps of the low-pass: 3.4 kHz passes, 4.6 kHz is 60 dB down. More taps: steeper, later.
const TAPS: usize = 47;

/// Windowed sinc at half the band (Blackman window), gain 1 at 0 Hz.
fn taps() -> [f32; TAPS] {
    let mut taps = [0.0; TAPS];
    let middle = (TAPS / 2) as f64;
    let mut sum = 0.0;
    for (i, tap) in taps.iter_mut().enumerate() {
        let x = i as f64 - middle;
        let sinc = if x == 0.0 {
            0.5
        } else {
            (std::f64::consts::FRAC_PI_2 * x).sin() / (std::f64::consts::PI * x)
        };
        let phase = std::f64::consts::TAU * i as f64 / (TAPS - 1) as f64;
        let value = sinc * (0.42 - 0.5 * phase.cos() + 0.08 * (2.0 * phase).cos());
        sum += value;
        *tap = value as f32;
    }
    taps.map(|t| (f64::from(t) / sum) as f32)
}

fn to_pcm(value: f32) -> i16 {
    value.round().clamp(-32_768.0, 32_767.0) as i16
}

/// A stream's filter memory, at 16 kHz.
#[derive(Clone, Debug)]
pub struct HalfBand {
    taps: [f32; TAPS],
    memory: Vec<f32>,
}

impl Default for HalfBand {
    fn default() -> Self {
        Self {
            taps: taps(),
            memory: vec![0.0; TAPS - 1],
        }
    }
}

impl HalfBand {
    fn at(&self, end: usize) -> f32 {
        self.memory[end..end + TAPS]
            .iter()
            .zip(&self.taps)
            .map(|(x, t)| x * t)
            .sum()
    }

    /// 16 kHz to 8 kHz; appends half as many samples to `out`.
    pub fn down(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        self.memory.extend(pcm.iter().map(|s| f32::from(*s)));
        out.extend((0..pcm.len() / 2).map(|i| to_pcm(self.at(2 * i))));
        self.memory.drain(..pcm.len());
    }

    /// 8 kHz to 16 kHz; appends twice as many samples to `out`.
    pub fn up(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        // zeros between the samples halve the power of each tap's sum: hence the factor
        self.memory
            .extend(pcm.iter().flat_map(|s| [2.0 * f32::from(*s), 0.0]));
        out.extend((0..2 * pcm.len()).map(|i| to_pcm(self.at(i))));
        self.memory.drain(..2 * pcm.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: f64, hz: f64, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|i| (10_000.0 * (std::f64::consts::TAU * hz * i as f64 / rate).sin()) as i16)
            .collect()
    }

    fn rms(pcm: &[i16]) -> f64 {
        (pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt()
    }

    #[test]
    fn speech_band_passes_and_what_would_alias_does_not() {
        for (hz, least, most) in [
            (300.0, 0.97, 1.03),
            (3000.0, 0.95, 1.05),
            (5000.0, 0.0, 0.01),
            (7000.0, 0.0, 0.01),
        ] {
            let pcm = tone(16_000.0, hz, 3200);
            let mut out = Vec::new();
            HalfBand::default().down(&pcm, &mut out);
            assert_eq!(out.len(), 1600);
            let gain = rms(&out[200..]) / rms(&pcm);
            assert!((least..=most).contains(&gain), "{hz} Hz: {gain}");
        }
    }

    #[test]
    fn up_and_down_again_in_pieces_keeps_the_signal() {
        let pcm = tone(8000.0, 700.0, 1600);
        let (mut up, mut down) = (HalfBand::default(), HalfBand::default());
        let (mut wide, mut back) = (Vec::new(), Vec::new());
        for piece in pcm.chunks(160) {
            wide.clear();
            up.up(piece, &mut wide);
            down.down(&wide, &mut back);
        }
        assert_eq!(back.len(), pcm.len());
        let gain = rms(&back[200..]) / rms(&pcm);
        assert!((0.97..1.03).contains(&gain), "{gain}");
    }
}
