//! Numbers as Go reads and writes them, for that is what expositions are made of.
//!
//! In: the text of a number. Out: a double, always the nearest one; what Go's `ParseFloat` refuses is refused: `_`, hexadecimal
//! (Prometheus keeps to Go before 1.13), a sign before `nan`, what no double can hold. Every NaN is the one that Prometheus writes.

use crate::sample::NORMAL_NAN;
use flow::units::{NANOS_PER_SECOND, UnixNanos};

/// Powers of ten that are doubles without error.
const TENS: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

fn is_end(byte: Option<&u8>) -> bool {
    matches!(byte, None | Some(b' ' | b'\t' | b'\n'))
}

/// Bytes up to a blank, a line's end or the text's.
pub fn token_len(text: &[u8]) -> usize {
    text.iter().position(|byte| is_end(Some(byte))).unwrap_or(text.len())
}

/// Reads the number at the front. Returns it and its length; `None`: what stands there is no number.
#[inline]
pub fn take(text: &[u8]) -> Option<(f64, usize)> {
    take_short(text).or_else(|| {
        let len = token_len(text);
        parse(&text[..len]).map(|value| (value, len))
    })
}

/// A mantissa below 2^53 and a power of ten up to 22 are doubles both, so one multiplication or division rounds as it should
/// (Clinger 1990).
#[inline]
fn take_short(text: &[u8]) -> Option<(f64, usize)> {
    let negative = text.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut mantissa = 0u64;
    let mut digits = |at: &mut usize| {
        let from = *at;
        while let Some(digit @ 0..=9) = text.get(*at).map(|byte| byte.wrapping_sub(b'0')) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            *at += 1;
        }
        *at - from
    };
    let whole = digits(&mut at);
    let mut fraction = 0;
    if text.get(at) == Some(&b'.') {
        at += 1;
        fraction = digits(&mut at);
    }
    if whole + fraction == 0 || whole + fraction > 19 {
        return None;
    }
    let mut exponent = -(fraction as i32);
    if let Some(b'e' | b'E') = text.get(at) {
        let (sign, skip) = match text.get(at + 1) {
            Some(b'-') => (-1, 2),
            Some(b'+') => (1, 2),
            _ => (1, 1),
        };
        at += skip;
        let (mut power, from) = (0i32, at);
        while let Some(digit @ 0..=9) = text.get(at).map(|byte| byte.wrapping_sub(b'0')) {
            power = power * 10 + i32::from(digit);
            at += 1;
            if at - from > 4 {
                return None;
            }
        }
        if at == from {
            return None;
        }
        exponent += sign * power;
    }
    if !is_end(text.get(at)) || mantissa > 1 << 53 || exponent.abs() > 22 {
        return None;
    }
    let ten = TENS[exponent.unsigned_abs() as usize];
    let value = if exponent < 0 { mantissa as f64 / ten } else { mantissa as f64 * ten };
    Some((if negative { -value } else { value }, at))
}

/// Reads a whole number.
pub fn parse(token: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(token).ok()?;
    let value: f64 = text.parse().ok()?;
    let has_letters_of_inf = text.contains(['n', 'N']);
    if value.is_nan() {
        return (text.len() == 3).then_some(f64::from_bits(NORMAL_NAN));
    }
    (value.is_finite() || has_letters_of_inf).then_some(value)
}

/// Seconds as OpenMetrics writes them: to the nanosecond, from the decimal text. `None`: no number, or beyond what can be counted.
pub fn parse_seconds(token: &[u8]) -> Option<UnixNanos> {
    let (negative, digits) = token.strip_prefix(b"-").map_or((false, token), |digits| (true, digits));
    let (whole, fraction) = match memchr::memchr(b'.', digits) {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b""[..]),
    };
    let is_plain = whole.iter().chain(fraction).all(u8::is_ascii_digit) && !whole.is_empty() && whole.len() <= 11;
    if !is_plain {
        return nanos(parse(token).filter(|value| value.is_finite())?);
    }
    let count = |text: &[u8]| text.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let kept = &fraction[..fraction.len().min(9)];
    let below = count(kept) * 10i64.pow(9 - kept.len() as u32);
    let total = count(whole).checked_mul(NANOS_PER_SECOND)?.checked_add(below)?;
    Some(UnixNanos(if negative { -total } else { total }))
}

/// Of seconds as a double.
pub fn nanos(seconds: f64) -> Option<UnixNanos> {
    let whole = seconds.floor();
    if whole.is_nan() || whole.abs() >= 9.2e9 {
        return None;
    }
    // A double of today's seconds knows microseconds, not more.
    let below = ((seconds - whole) * 1e6).round() as i64 * 1_000;
    Some(UnixNanos(whole as i64 * NANOS_PER_SECOND + below))
}

/// Writes as Go's `FormatFloat(value, 'g', -1, 64)`, which is what client libraries send.
pub fn put(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    if value == value.trunc() && value.abs() < 1e6 && (value != 0.0 || value.is_sign_positive()) {
        return out.extend_from_slice((value as i64).to_string().as_bytes());
    }
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').expect("that is what {:e} writes");
    let exponent: i32 = exponent.parse().expect("an exponent is an integer");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    out.extend_from_slice(sign.as_bytes());
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if !(-4..6).contains(&exponent) {
        out.extend_from_slice(mantissa.as_bytes());
        let mark = if exponent < 0 { '-' } else { '+' };
        return out.extend_from_slice(format!("e{mark}{:02}", exponent.abs()).as_bytes());
    }
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        return out.extend_from_slice(digits.as_bytes());
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        out.extend_from_slice(digits.as_bytes());
        return out.resize(out.len() + whole - digits.len(), b'0');
    }
    out.extend_from_slice(&digits.as_bytes()[..whole]);
    out.push(b'.');
    out.extend_from_slice(&digits.as_bytes()[whole..]);
}

/// As [`put`], with `.0` where there is neither a point nor an exponent: OpenMetrics tells floats from integers.
pub fn put_openmetrics(out: &mut Vec<u8>, value: f64) {
    let from = out.len();
    put(out, value);
    if value.is_finite() && !out[from..].iter().any(|byte| matches!(byte, b'.' | b'e')) {
        out.extend_from_slice(b".0");
    }
}

/// As the values of `le` and `quantile` are written: as [`put_openmetrics`], and 0 has no sign.
pub fn put_label(out: &mut Vec<u8>, value: f64) {
    put_openmetrics(out, if value == 0.0 { 0.0 } else { value });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, want) in [
            ("0", 0.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("+1", 1.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("7.424100000000001e-05", 7.424100000000001e-05),
            ("179769313486231570000000000000000000000", 1.7976931348623157e38),
            ("1e-400", 0.0),
            ("inf", f64::INFINITY),
            ("+Inf", f64::INFINITY),
            ("-INFINITY", f64::NEG_INFINITY),
        ] {
            assert_eq!(take(text.as_bytes()), Some((want, text.len())), "{text}");
        }
        assert_eq!(take(b"-0 1").map(|(value, len)| (value.to_bits(), len)), Some(((-0f64).to_bits(), 2)));
        for text in ["nan", "NaN"] {
            assert_eq!(take(text.as_bytes()).map(|(value, _)| value.to_bits()), Some(NORMAL_NAN));
        }
        for text in
            ["", "-", ".", "e1", "1e", "1e+", "1_2", "0x1p-3", "0x1", "0b1", "+nan", "-NaN", "1e999", "-1e309", "infin", "true", "1z"]
        {
            assert_eq!(take(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, plain, openmetrics) in [
            (0.0, "0", "0.0"),
            (-0.0, "-0", "-0.0"),
            (1.0, "1", "1.0"),
            (-1.5, "-1.5", "-1.5"),
            (999_999.0, "999999", "999999.0"),
            (123_456.75, "123456.75", "123456.75"),
            (1e6, "1e+06", "1e+06"),
            (1_234_567.0, "1.234567e+06", "1.234567e+06"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "1e-05"),
            (4.9351e-05, "4.9351e-05", "4.9351e-05"),
            (1e21, "1e+21", "1e+21"),
            (1e100, "1e+100", "1e+100"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            let (mut out, mut open) = (Vec::new(), Vec::new());
            put(&mut out, value);
            put_openmetrics(&mut open, value);
            assert_eq!((String::from_utf8_lossy(&out), String::from_utf8_lossy(&open)), (plain.into(), openmetrics.into()));
        }
    }

    #[test]
    fn seconds_are_read_to_the_nanosecond() {
        for (text, want) in [
            ("1520879607.789", 1_520_879_607_789_000_000),
            ("0.123456789012", 123_456_789),
            ("-1.5", -1_500_000_000),
            ("1.520879607789e9", 1_520_879_607_789_000_000),
            ("1", 1_000_000_000),
        ] {
            assert_eq!(parse_seconds(text.as_bytes()), Some(UnixNanos(want)), "{text}");
        }
        for text in ["NaN", "Inf", "-Inf", "1e99", "", "1.1.1", "1z", "99999999999"] {
            assert_eq!(parse_seconds(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_bit_for_bit(bits: u64, small in -1_000_000i64..1_000_000, places in 0i32..8) {
            for value in [f64::from_bits(bits), small as f64 / 10f64.powi(places), small as f64 * 1e9] {
                prop_assume!(!value.is_nan());
                for put in [put, put_openmetrics] {
                    let mut out = Vec::new();
                    put(&mut out, value);
                    let (read, len) = take(&out).expect("a number");
                    prop_assert_eq!((read.to_bits(), len), (value.to_bits(), out.len()));
                }
            }
        }

        #[test]
        fn short_numbers_are_rounded_as_the_standard_library_rounds(text in "-?[0-9]{1,17}(\\.[0-9]{0,6})?(e[+-]?[0-9]{1,2})?") {
            if let Some((value, _)) = take(text.as_bytes()) {
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().expect("a number").to_bits());
            }
        }
    }
}
