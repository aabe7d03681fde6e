//! G.722 at 64 kbit/s (ITU-T G.722): 16 kHz audio in two ADPCM sub-bands, one octet per two samples.

const Q6: [i32; 32] = [
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940,
    1023, 1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919, 0, 0,
];
const ILN: [u8; 32] = [
    0, 63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11,
    10, 9, 8, 7, 6, 5, 4, 0,
];
const ILP: [u8; 32] = [
    0, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39,
    38, 37, 36, 35, 34, 33, 32, 0,
];
const WL: [i32; 8] = [-60, -30, 58, 172, 334, 538, 1198, 3042];
const RL42: [usize; 16] = [0, 7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 0];
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];
const QM2: [i32; 4] = [-7408, -1616, 7408, 1616];
const QM4: [i32; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584,
    1200, 0,
];
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232,
    -9360, -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776,
    -2400, -2032, -1688, -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280,
    11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776,
    2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
const IHN: [u8; 3] = [0, 1, 0];
const IHP: [u8; 3] = [0, 3, 2];
const WH: [i32; 3] = [0, -214, 798];
const RH2: [usize; 4] = [2, 1, 2, 1];
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

fn saturate(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

/// Predictor and quantizer scale of one sub-band.
#[derive(Clone, Debug)]
struct Band {
    /// Signal estimate, and its zero part.
    s: i32,
    sz: i32,
    r: [i32; 3],
    a: [i32; 3],
    p: [i32; 3],
    d: [i32; 7],
    b: [i32; 7],
    nb: i32,
    det: i32,
}

impl Band {
    fn new(det: i32) -> Self {
        Self {
            s: 0,
            sz: 0,
            r: [0; 3],
            a: [0; 3],
            p: [0; 3],
            d: [0; 7],
            b: [0; 7],
            nb: 0,
            det,
        }
    }

    /// Adapts the quantizer scale: LOGSCL/LOGSCH and SCALEL/SCALEH.
    fn rescale(&mut self, step: i32, limit: i32, shift: i32) {
        self.nb = (((self.nb * 127) >> 7) + step).clamp(0, limit);
        let mantissa = ILB[((self.nb >> 6) & 31) as usize];
        let exponent = shift - (self.nb >> 11);
        self.det = if exponent < 0 {
            mantissa << -exponent
        } else {
            mantissa >> exponent
        } << 2;
    }

    /// Adapts the predictor to the quantized difference: the blocks UPPOL, UPZERO, DELAYA, FILTEP, FILTEZ, PREDIC.
    fn adapt(&mut self, difference: i32) {
        let sign = |value: i32| value >> 15;
        self.d[0] = difference;
        self.r[0] = saturate(self.s + difference);
        self.p[0] = saturate(self.sz + difference);

        let doubled = saturate(self.a[1] << 2);
        let wd2 = if sign(self.p[0]) == sign(self.p[1]) {
            -doubled
        } else {
            doubled
        }
        .min(32_767);
        let wd3 = if sign(self.p[0]) == sign(self.p[2]) {
            128
        } else {
            -128
        } + (wd2 >> 7)
            + ((self.a[2] * 32_512) >> 15);
        let a2 = wd3.clamp(-12_288, 12_288);
        let wd1 = if sign(self.p[0]) == sign(self.p[1]) {
            192
        } else {
            -192
        };
        let bound = saturate(15_360 - a2);
        let a1 = saturate(wd1 + ((self.a[1] * 32_640) >> 15)).clamp(-bound, bound);

        let step = if difference == 0 { 0 } else { 128 };
        for i in 1..7 {
            let wd = if sign(self.d[i]) == sign(difference) {
                step
            } else {
                -step
            };
            self.b[i] = saturate(wd + ((self.b[i] * 32_640) >> 15));
        }
        for i in (1..7).rev() {
            self.d[i] = self.d[i - 1];
        }
        self.r = [self.r[0], self.r[0], self.r[1]];
        self.p = [self.p[0], self.p[0], self.p[1]];
        self.a = [0, a1, a2];

        let poles = ((self.a[1] * saturate(self.r[1] * 2)) >> 15)
            + ((self.a[2] * saturate(self.r[2] * 2)) >> 15);
        let zeros: i32 = (1..7)
            .map(|i| (self.b[i] * saturate(self.d[i] * 2)) >> 15)
            .sum();
        self.sz = saturate(zeros);
        self.s = saturate(saturate(poles) + self.sz);
    }

    fn adapt_low(&mut self, code: u8) {
        let index = usize::from(code >> 2);
        let difference = (self.det * QM4[index]) >> 15;
        self.rescale(WL[RL42[index]], 18_432, 8);
        self.adapt(difference);
    }

    fn adapt_high(&mut self, code: u8) {
        let difference = (self.det * QM2[usize::from(code)]) >> 15;
        self.rescale(WH[RH2[usize::from(code)]], 22_528, 10);
        self.adapt(difference);
    }
}

/// The quadrature mirror filter's memory.
#[derive(Clone, Debug)]
struct Qmf([i32; 24]);

impl Qmf {
    /// Takes two values in; gives the sums over even and odd taps.
    fn step(&mut self, first: i32, second: i32) -> (i32, i32) {
        self.0.copy_within(2.., 0);
        self.0[22] = first;
        self.0[23] = second;
        let mut even = 0;
        let mut odd = 0;
        for (i, coefficient) in QMF.iter().enumerate() {
            even += self.0[2 * i] * coefficient;
            odd += self.0[2 * i + 1] * QMF[11 - i];
        }
        (even, odd)
    }
}

/// Encoder state of one stream.
#[derive(Clone, Debug)]
pub struct Encoder {
    low: Band,
    high: Band,
    qmf: Qmf,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            low: Band::new(32),
            high: Band::new(8),
            qmf: Qmf([0; 24]),
        }
    }
}

impl Encoder {
    /// Encodes pairs of 16 kHz samples; writes one octet a pair and returns how many.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> usize {
        let mut written = 0;
        for (pair, octet) in pcm.chunks_exact(2).zip(out) {
            let (even, odd) = self.qmf.step(i32::from(pair[0]), i32::from(pair[1]));
            let low = self.code_low((odd + even) >> 14);
            let high = self.code_high((odd - even) >> 14);
            *octet = (high << 6) | low;
            written += 1;
        }
        written
    }

    fn code_low(&mut self, x: i32) -> u8 {
        let e = saturate(x - self.low.s);
        let magnitude = if e >= 0 { e } else { -(e + 1) };
        let level = (1..30)
            .find(|i| magnitude < (Q6[*i] * self.low.det) >> 12)
            .unwrap_or(30);
        let code = if e < 0 { ILN[level] } else { ILP[level] };
        self.low.adapt_low(code);
        code
    }

    fn code_high(&mut self, x: i32) -> u8 {
        let e = saturate(x - self.high.s);
        let magnitude = if e >= 0 { e } else { -(e + 1) };
        let level = if magnitude >= (564 * self.high.det) >> 12 {
            2
        } else {
            1
        };
        let code = if e < 0 { IHN[level] } else { IHP[level] };
        self.high.adapt_high(code);
        code
    }
}

/// Decoder state of one stream.
#[derive(Clone, Debug)]
pub struct Decoder {
    low: Band,
    high: Band,
    qmf: Qmf,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            low: Band::new(32),
            high: Band::new(8),
            qmf: Qmf([0; 24]),
        }
    }
}

impl Decoder {
    /// Decodes octets into two 16 kHz samples each; returns how many samples.
    pub fn decode(&mut self, octets: &[u8], pcm: &mut [i16]) -> usize {
        let mut written = 0;
        for (octet, pair) in octets.iter().zip(pcm.chunks_exact_mut(2)) {
            let (low_code, high_code) = (octet & 0x3f, octet >> 6);
            let low = (self.low.s + ((self.low.det * QM6[usize::from(low_code)]) >> 15))
                .clamp(-16_384, 16_383);
            self.low.adapt_low(low_code);
            let high = (self.high.s + ((self.high.det * QM2[usize::from(high_code)]) >> 15))
                .clamp(-16_384, 16_383);
            self.high.adapt_high(high_code);
            let (even, odd) = self.qmf.step(low + high, low - high);
            pair[0] = saturate(odd >> 11) as i16;
            pair[1] = saturate(even >> 11) as i16;
            written += 2;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tones(samples: usize) -> Vec<i16> {
        let tone = |i: usize, hz: f64| (std::f64::consts::TAU * hz * i as f64 / 16_000.0).sin();
        (0..samples)
            .map(|i| {
                (6000.0 * tone(i, 440.0) + 3000.0 * tone(i, 1900.0) + 800.0 * tone(i, 5200.0))
                    as i16
            })
            .collect()
    }

    fn snr_db(reference: &[i16], heard: &[i16]) -> f64 {
        let power = |x: f64| x * x;
        let signal: f64 = reference.iter().map(|s| power(f64::from(*s))).sum();
        let noise: f64 = reference
            .iter()
            .zip(heard)
            .map(|(a, b)| power(f64::from(*a) - f64::from(*b)))
            .sum();
        10.0 * (signal / noise.max(1.0)).log10()
    }

    fn round_trip(pcm: &[i16]) -> Vec<i16> {
        let mut octets = vec![0; pcm.len() / 2];
        Encoder::default().encode(pcm, &mut octets);
        let mut heard = vec![0; pcm.len()];
        Decoder::default().decode(&octets, &mut heard);
        heard
    }

    #[test]
    fn what_is_encoded_is_heard() {
        let pcm = tones(16_000);
        let heard = round_trip(&pcm);
        // both filters together delay by 22 samples
        let snr = snr_db(&pcm[1000..15_000], &heard[1022..15_022]);
        assert!(snr > 20.0, "{snr} dB");
    }

    #[test]
    fn silence_stays_silent() {
        assert!(round_trip(&[0; 3200]).iter().all(|s| s.abs() < 20));
    }

    #[test]
    fn any_octets_decode() {
        let octets: Vec<u8> = (0..4000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        assert_eq!(Decoder::default().decode(&octets, &mut vec![0; 8000]), 8000);
    }
}
