//! A number of a query at any size and precision, for exact comparison.
//!
//! In: text; out: a number with a total order. Memory: its digits. No float is involved, so 9007199254740993 is
//! more than 9007199254740992 and 0.10 is 0.1.

use std::cmp::Ordering;

/// A number of any size and precision, for exact comparison: 0.d1d2d3... x 10^exponent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Without leading and trailing zeros; empty for zero.
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Reads `12`, `-0.5`, `+3`, `1e-7`; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let bytes = text.as_bytes();
        let (negative, rest) = match bytes.first()? {
            b'-' => (true, &bytes[1..]),
            b'+' => (false, &bytes[1..]),
            _ => (false, bytes),
        };
        let mantissa_len = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
        let (mantissa, power) = rest.split_at(mantissa_len);
        let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
        let whole = &mantissa[..point];
        let part = mantissa.get(point + 1..).unwrap_or_default();
        if whole.len() + part.len() == 0 || !whole.iter().chain(part).all(u8::is_ascii_digit) {
            return None;
        }
        let power = if power.is_empty() { 0 } else { parse_power(&power[1..])? };
        let zeros = whole.iter().chain(part).take_while(|b| **b == b'0').count();
        let mut digits: Vec<u8> = whole.iter().chain(part).skip(zeros).copied().collect();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Decimal { negative: false, digits, exponent: 0 });
        }
        let exponent = whole.len() as i64 - zeros as i64 + power;
        Some(Decimal { negative, digits, exponent })
    }

    fn cmp_magnitude(&self, other: &Decimal) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The digits after the `e`, held within +-10^12: no text is long enough to see the difference.
fn parse_power(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.first()? {
        b'-' => (true, &bytes[1..]),
        b'+' => (false, &bytes[1..]),
        _ => (false, bytes),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let power = digits.iter().fold(0i64, |n, d| (n * 10 + i64::from(d - b'0')).min(1_000_000_000_000));
    Some(if negative { -power } else { power })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_exactly() {
        let ordered = [
            "-1e9",
            "-10",
            "-9.5",
            "-0.001",
            "0",
            "1e-20",
            "0.1",
            "0.10000000000000000001",
            "9007199254740993",
            "9007199254740993.5",
            "1e400",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                let (a, b) = (Decimal::parse(a).unwrap(), Decimal::parse(b).unwrap());
                assert_eq!(a.cmp(&b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
        assert_eq!(Decimal::parse("100"), Decimal::parse("1e2"));
        assert_eq!(Decimal::parse("-0"), Decimal::parse("0.00"));
        for text in ["", "-", "1.2.3", "1e", "e5", "0x10", "1_000", "NaN", "."] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
