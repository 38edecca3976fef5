//! JSON numbers as 64-bit floats and back, so that a column of numbers holds what the line says or nothing.
//!
//! In: the text of a number; out: the float and whether its shortest text is this very text. No memory.

use std::io::Write;

/// Digits that a float holds whatever they are.
const DIGITS_MAX: usize = 15;
/// Powers of ten that a float holds exactly.
const POWERS: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number {
    pub value: f64,
    /// [`write_number`] gives back the text as it was.
    pub is_plain: bool,
}

/// `None`: a float would not be the number that the text means (more digits than it has, or out of its range).
///
/// A text of up to 15 digits is always told apart from its neighbours, so reading and writing it is exact. Method: of such
/// digits and a power of ten up to 22 the one multiplication or division rounds correctly (Clinger 1990).
pub(crate) fn parse(text: &[u8]) -> Option<Number> {
    let (is_negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let (mut mantissa, mut significant, mut scale, mut at) = (0u64, 0, 0i32, 0);
    let mut after_point = None;
    while let Some(byte) = digits.get(at) {
        match byte {
            b'0'..=b'9' => {
                if mantissa != 0 || *byte != b'0' {
                    significant += 1;
                }
                if significant > DIGITS_MAX {
                    return parse_long(text);
                }
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                scale -= i32::from(after_point.is_some());
            }
            b'.' if after_point.is_none() => after_point = Some(at + 1),
            _ => break,
        }
        at += 1;
    }
    let mut is_plain = !(mantissa == 0 && is_negative) && after_point.is_none_or(|from| at > from && digits[at - 1] != b'0');
    match digits.get(at) {
        None => {}
        Some(b'e' | b'E') => {
            let exponent: i32 = std::str::from_utf8(&digits[at + 1..]).ok()?.parse().ok()?;
            scale = scale.checked_add(exponent)?;
            is_plain = false;
        }
        Some(_) => return None,
    }
    let power = *POWERS.get(scale.unsigned_abs() as usize)?;
    let value = if scale < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
    Some(Number { value: if is_negative { -value } else { value }, is_plain })
}

/// More digits than every float holds: some are the shortest text of a float, as other programs print them.
fn parse_long(text: &[u8]) -> Option<Number> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let mut again = Vec::new();
    write_number(value, &mut again);
    (value.is_finite() && again == text).then_some(Number { value, is_plain: true })
}

/// Appends the shortest decimal that means this float, without an exponent.
pub(crate) fn write_number(value: f64, out: &mut Vec<u8>) {
    let whole = value as i64;
    let written = if whole as f64 == value && whole.unsigned_abs() < 1 << 53 { write!(out, "{whole}") } else { write!(out, "{value}") };
    written.expect("a vector takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<(f64, bool)>) {
        let got = parse(text.as_bytes());
        assert_eq!(got.map(|n| (n.value, n.is_plain)), want, "{text}");
        if let Some(Number { value, is_plain }) = got {
            assert_eq!(value, text.parse::<f64>().unwrap(), "{text}");
            let mut again = Vec::new();
            write_number(value, &mut again);
            assert!(!is_plain || again == text.as_bytes(), "{text} comes back as {}", String::from_utf8_lossy(&again));
        }
    }

    #[test]
    fn a_number_comes_back_as_it_was_or_is_not_plain() {
        for (text, value) in [("0", 0.0), ("7", 7.0), ("-12.5", -12.5), ("0.001", 0.001), ("123456789.012345", 123456789.012345)] {
            check(text, Some((value, true)));
        }
        for (text, value) in [("1.50", 1.5), ("-0", -0.0), ("0.0", 0.0), ("1e3", 1000.0), ("2.5E-2", 0.025), ("10e22", 1e23)] {
            check(text, Some((value, false)));
        }
        check("0.30000000000000004", Some((0.30000000000000004, true)));
        check("9007199254740993", None); // 2^53 + 1
        check("99999999999999999999", None);
        check("1e400", None);
        check("0.1000000000000000000001", None);
    }

    #[test]
    fn random_numbers_agree_with_the_standard_library() {
        let mut state = 88_172_645_463_325_252u64;
        for _ in 0..200_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let (digits, point) = (1 + state % 17, (state >> 8) % 12);
            let number = (state >> 3) % 10u64.pow(digits as u32);
            let mut text = format!("{number:0width$}", width = point as usize + 1);
            if point > 0 {
                text.insert(text.len() - point as usize, '.');
            }
            if let Some(Number { value, is_plain }) = parse(text.as_bytes()) {
                assert_eq!(value, text.parse::<f64>().unwrap(), "{text}");
                assert_eq!(is_plain, format!("{value}") == text, "{text}");
            }
        }
    }
}
