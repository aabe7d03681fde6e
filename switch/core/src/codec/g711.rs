//! G.711 µ-law and A-law (ITU-T G.711): one octet a sample at 8 kHz.

/// µ-law octet to linear, 16-bit.
#[must_use]
pub const fn ulaw_to_linear(octet: u8) -> i16 {
    let u = !octet;
    let magnitude = ((((u & 0x0f) as i16) << 3) + 0x84) << ((u & 0x70) >> 4);
    if u & 0x80 != 0 {
        0x84 - magnitude
    } else {
        magnitude - 0x84
    }
}

/// Linear to µ-law.
#[must_use]
pub const fn linear_to_ulaw(sample: i16) -> u8 {
    const BIAS: i32 = 0x84;
    const CLIP: i32 = 32_635;
    let mut value = sample as i32;
    let sign = if value < 0 { 0x80 } else { 0 };
    if value < 0 {
        value = -value;
    }
    if value > CLIP {
        value = CLIP;
    }
    value += BIAS;
    // position of the highest set bit above bit 7 is the segment
    let segment = (24 - (value as u32).leading_zeros()) as i32;
    let mantissa = (value >> (segment + 3)) & 0x0f;
    !(sign | ((segment << 4) as u8) | mantissa as u8)
}

/// A-law octet to linear, 16-bit.
#[must_use]
pub const fn alaw_to_linear(octet: u8) -> i16 {
    let a = octet ^ 0x55;
    let segment = (a & 0x70) >> 4;
    let mantissa = ((a & 0x0f) as i16) << 4;
    let magnitude = match segment {
        0 => mantissa + 8,
        s => (mantissa + 0x108) << (s - 1),
    };
    if a & 0x80 != 0 { magnitude } else { -magnitude }
}

/// Linear to A-law.
#[must_use]
pub const fn linear_to_alaw(sample: i16) -> u8 {
    let (sign, magnitude) = if sample >= 0 {
        (0x80, sample as i32)
    } else {
        (0, -(sample as i32) - 1)
    };
    let magnitude = magnitude >> 3;
    let octet = if magnitude < 32 {
        magnitude >> 1
    } else {
        let segment = 27 - (magnitude as u32).leading_zeros() as i32;
        (segment << 4) | ((magnitude >> segment) & 0x0f)
    };
    (sign | octet as u8) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_survives_decoding_and_encoding() {
        for octet in 0..=255u8 {
            // 0x7f and 0xff both mean zero in µ-law
            if octet != 0x7f {
                assert_eq!(
                    linear_to_ulaw(ulaw_to_linear(octet)),
                    octet,
                    "µ-law {octet:#x}"
                );
            }
            assert_eq!(
                linear_to_alaw(alaw_to_linear(octet)),
                octet,
                "A-law {octet:#x}"
            );
        }
    }

    #[test]
    fn known_values_of_the_standard() {
        assert_eq!(ulaw_to_linear(0xff), 0);
        assert_eq!(ulaw_to_linear(0x80), 32_124);
        assert_eq!(ulaw_to_linear(0x00), -32_124);
        assert_eq!(alaw_to_linear(0xd5), 8);
        assert_eq!(alaw_to_linear(0xaa), 32_256);
        assert_eq!(alaw_to_linear(0x2a), -32_256);
    }

    #[test]
    fn encoding_errs_by_at_most_half_a_step() {
        for sample in i16::MIN..=i16::MAX {
            let limit = 16 + i32::from(sample).abs() / 16;
            let u = i32::from(ulaw_to_linear(linear_to_ulaw(sample)));
            let a = i32::from(alaw_to_linear(linear_to_alaw(sample)));
            assert!(
                (u - i32::from(sample)).abs() <= limit + 650,
                "µ-law {sample} -> {u}"
            );
            assert!(
                (a - i32::from(sample)).abs() <= limit + 520,
                "A-law {sample} -> {a}"
            );
        }
    }
}
