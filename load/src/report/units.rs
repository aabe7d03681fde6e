//! Numbers as people read them.

use std::time::Duration;

/// Microseconds: `850 µs`, `1.23 ms`, `45 ms`, `1.20 s`.
pub(super) fn micros(us: u64) -> String {
    let us = us as f64;
    match us {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1_000.0),
        us if us < 100_000.0 => format!("{:.1} ms", us / 1_000.0),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1_000.0),
        us => format!("{:.2} s", us / 1_000_000.0),
    }
}

/// A duration in the same way.
pub(super) fn duration(d: Duration) -> String {
    micros(d.as_micros().try_into().unwrap_or(u64::MAX))
}

/// `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bits a second: `64 kbit/s`, `1.80 Mbit/s`.
pub(super) fn rate(octets: u64, seconds: f64) -> String {
    let bits = octets as f64 * 8.0 / seconds.max(0.001);
    match bits {
        b if b < 1e6 => format!("{:.0} kbit/s", b / 1e3),
        b if b < 1e9 => format!("{:.2} Mbit/s", b / 1e6),
        b => format!("{:.2} Gbit/s", b / 1e9),
    }
}

/// `12.3 MB`.
pub(super) fn octets(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n < 1e6 => format!("{:.0} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

/// A share in percent with as many digits as it needs: `0 %`, `0.0013 %`, `1.25 %`.
pub(super) fn percent(part: u64, of: u64) -> String {
    if part == 0 || of == 0 {
        return "0 %".to_owned();
    }
    percent_of(100.0 * part as f64 / of as f64)
}

/// A number of percent in the same way.
pub(super) fn percent_of(percent: f64) -> String {
    match percent {
        0.0 => "0 %".to_owned(),
        p if p < 0.1 => format!("{p:.4} %"),
        p if p < 10.0 => format!("{p:.2} %"),
        p => format!("{p:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        assert_eq!(micros(0), "0 µs");
        assert_eq!(micros(1_234), "1.23 ms");
        assert_eq!(micros(45_678), "45.7 ms");
        assert_eq!(micros(456_780), "457 ms");
        assert_eq!(micros(1_200_000), "1.20 s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(rate(225_000, 1.0), "1.80 Mbit/s");
        assert_eq!(percent(1, 1_000_000), "0.0001 %");
        assert_eq!(percent(1, 80), "1.25 %");
        assert_eq!(percent(0, 0), "0 %");
        assert_eq!(octets(12_300_000), "12.3 MB");
    }
}
