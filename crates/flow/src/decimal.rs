//! Decimal numbers as they are written: exact order and exact scaling, without floats.
//!
//! In: the text of a JSON number. Out: its order against another, or a scaled whole number. Nothing is
//! copied, so 9007199254740993 and a number of a million digits are compared as they stand. An exponent
//! beyond 10^15 either way counts as 10^15: no real quantity reaches it.

use std::cmp::Ordering;

/// More digits than any line can hold, so a clamped exponent still outweighs every digit string.
const EXPONENT_MAX: i64 = 1_000_000_000_000_000;

/// A number read as sign, digits and the place of its point: the value is `0.d1d2d3...` x 10^`point`, where
/// d1 is not 0. Zero has no digits.
#[derive(Clone, Copy, Debug)]
pub struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    point: i64,
}

impl<'a> Decimal<'a> {
    /// Reads `-12.50e3`: JSON's grammar, except that leading zeros are allowed. `None` for anything else.
    pub fn parse(text: &'a [u8]) -> Option<Decimal<'a>> {
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, mut rest) = split_digits(text)?;
        let mut fraction: &[u8] = &[];
        if let Some(after) = rest.strip_prefix(b".") {
            (fraction, rest) = split_digits(after)?;
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', after @ ..] => parse_exponent(after)?,
            _ => return None,
        };
        Some(Decimal::normal(negative, whole, fraction, exponent))
    }

    /// Drops zeros in front, so that equal numbers have equal points and digits (but for zeros behind).
    fn normal(negative: bool, whole: &'a [u8], fraction: &'a [u8], exponent: i64) -> Decimal<'a> {
        let whole = &whole[leading_zeros(whole)..];
        let (fraction, point) = match whole.len() {
            0 => {
                let zeros = leading_zeros(fraction);
                (&fraction[zeros..], -(zeros as i64))
            }
            digits => (fraction, digits as i64),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Decimal { negative: false, whole, fraction, point: 0 };
        }
        Decimal { negative, whole, fraction, point: point + exponent }
    }

    pub fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// How many digits stand before the point, if the number is 1 or more; 0 or less if it is smaller.
    pub fn whole_digits(&self) -> i64 {
        self.point
    }

    /// The exact order of two numbers.
    pub fn compare(&self, other: &Decimal<'_>) -> Ordering {
        self.sign().cmp(&other.sign()).then_with(|| {
            let magnitude = self.point.cmp(&other.point).then_with(|| self.compare_digits(other));
            if self.negative { magnitude.reverse() } else { magnitude }
        })
    }

    /// The number without its sign times 10^`shift`, rounded towards 0; `None` if that has more than 19 digits.
    pub fn scaled(&self, shift: i64) -> Option<u64> {
        let digits = self.point + shift;
        if digits > 19 && !self.is_zero() {
            return None; // 19 nines are less than 2^64
        }
        let mut value = 0;
        let mut own = self.digits();
        for _ in 0..digits {
            value = value * 10 + u64::from(own.next().unwrap_or(0));
        }
        Some(value)
    }

    fn sign(&self) -> i8 {
        match (self.is_zero(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).map(|digit| digit - b'0')
    }

    fn compare_digits(&self, other: &Decimal<'_>) -> Ordering {
        let (mut ours, mut theirs) = (self.digits(), other.digits());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return Ordering::Equal,
                (a, b) => match a.unwrap_or(0).cmp(&b.unwrap_or(0)) {
                    Ordering::Equal => {}
                    order => return order,
                },
            }
        }
    }
}

/// A whole number of at most 18 digits, the common case; `None` sends the caller to [`Decimal`].
#[inline]
pub fn small_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

/// A whole number of one to eight digits and nothing else, read without a loop.
#[inline(always)]
pub fn short_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 8 {
        return None;
    }
    // The last digit in the highest byte, zeros in front of the first.
    let word = match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let (first, last) = (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)));
            last << 32 | (first << 32) >> ((text.len() - 4) * 8)
        }
        _ => text.iter().fold(0, |word, digit| word >> 8 | u64::from(*digit) << 56),
    };
    let empty = 0x3030_3030_3030_3030u64.checked_shr(text.len() as u32 * 8).unwrap_or(0);
    eight_digits(word | empty).map(i64::from)
}

/// The number of eight digits, the first in the lowest byte. Method: Lemire 2018, "Quickly parsing eight digits".
#[inline(always)]
pub fn eight_digits(word: u64) -> Option<u32> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    if word & HIGH != ZEROS || (word.wrapping_add(0x0606_0606_0606_0606)) & HIGH != ZEROS {
        return None;
    }
    let digits = word - ZEROS;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    const MASK: u64 = 0x0000_00ff_0000_00ff;
    let high = (pairs & MASK).wrapping_mul(0x000f_4240_0000_0064);
    let low = (pairs >> 16 & MASK).wrapping_mul(0x0000_2710_0000_0001);
    Some((high.wrapping_add(low) >> 32) as u32)
}

/// At least one digit, and what follows them.
fn split_digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 { None } else { Some(text.split_at(digits)) }
}

fn leading_zeros(digits: &[u8]) -> usize {
    digits.iter().take_while(|&&digit| digit == b'0').count()
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (digits, rest) = split_digits(digits)?;
    if !rest.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for &digit in digits {
        value = (value * 10 + i64::from(digit - b'0')).min(EXPONENT_MAX);
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(smaller: &str, order: Ordering, larger: &str) {
        let a = Decimal::parse(smaller.as_bytes()).expect(smaller);
        let b = Decimal::parse(larger.as_bytes()).expect(larger);
        assert_eq!(a.compare(&b), order, "{smaller} against {larger}");
        assert_eq!(b.compare(&a), order.reverse(), "{larger} against {smaller}");
    }

    #[test]
    fn order_is_exact_where_floats_are_not() {
        check("9007199254740992", Ordering::Less, "9007199254740993");
        check("-9007199254740993", Ordering::Less, "-9007199254740992");
        check("0.1", Ordering::Less, "0.10000000000000000000000000001");
        check("18446744073709551616", Ordering::Less, "18446744073709551617");
        check("1e400", Ordering::Less, "2e400");
        check("1e-400", Ordering::Less, "2e-400");
        check("1e99999999999999999999", Ordering::Equal, "1e99999999999999999998");
        check(&"9".repeat(2000), Ordering::Less, &format!("1{}", "0".repeat(2000)));
    }

    #[test]
    fn equal_numbers_are_equal_however_written() {
        for (a, b) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("1E+2", "100.000"),
            ("0.001", "1e-3"),
            ("-0", "0e5"),
            ("0", "-0.000e-9"),
            ("1230", "0.0123E5"),
            ("007", "7"),
        ] {
            check(a, Ordering::Equal, b);
        }
        for (a, b) in [("-1", "0"), ("-1", "1e-9"), ("0", "1e-9"), ("9", "10"), ("-10", "-9"), ("0.09", "0.1"), ("99e-1", "10")] {
            check(a, Ordering::Less, b);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", "+1", ".5", "5.", "1e", "1e+", "1.e5", "1x", "NaN", "Infinity", "0x10", "1_000", " 1", "1 ", "--1", "1e5.0"] {
            assert!(Decimal::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        assert_eq!(small_integer(b"-999999999999999999"), Some(-999_999_999_999_999_999));
        for text in ["", "-", "1.0", "1e3", "1000000000000000000", "1a"] {
            assert_eq!(small_integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn short_integers_are_whole_numbers_of_up_to_eight_digits() {
        let check = |text: &str| {
            let want = (text.len() <= 8 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().expect(text));
            assert_eq!(short_integer(text.as_bytes()), want, "{text:?}");
        };
        for text in ["", "0", "7", "07", "123456789", "-1", "+1", "1.5", "1e3", " 12", "12 ", "/", ":", "1234567:", "/2345678"] {
            check(text);
        }
        let mut number: u64 = 1;
        for n in 0..2_000u64 {
            number = number.wrapping_mul(6364136223846793005).wrapping_add(n | 1);
            let text = (number >> 32).to_string();
            for length in 0..text.len().min(9) {
                check(&text[..length + 1]);
                let mut bytes = text.as_bytes()[..length + 1].to_vec();
                bytes[number as usize % (length + 1)] = (number >> 24) as u8 & 0x7f;
                check(std::str::from_utf8(&bytes).expect("ASCII"));
            }
        }
    }

    #[test]
    fn scaling_moves_the_point_and_cuts() {
        let scaled = |text: &str, shift| Decimal::parse(text.as_bytes()).expect(text).scaled(shift);
        assert_eq!(scaled("1700000000.1234567899", 9), Some(1_700_000_000_123_456_789));
        assert_eq!(scaled("1.7e9", 9), Some(1_700_000_000_000_000_000));
        assert_eq!(scaled("0.0005", 3), Some(0));
        assert_eq!(scaled("9999999999999999999", 0), Some(9_999_999_999_999_999_999));
        assert_eq!(scaled("10000000000000000000", 0), None);
        assert_eq!(scaled("0", 400), Some(0));
        assert_eq!(scaled("5e-1000000", 9), Some(0));
    }

    proptest! {
        #[test]
        fn order_agrees_with_scaled_integers(a in -100_000i64..100_000, b in -100_000i64..100_000, ea in -6i32..6, eb in -6i32..6, za in 0usize..3) {
            let text = |n: i64, e: i32, zeros: usize| format!("{n}.{}e{e}", "0".repeat(zeros + 1));
            let exact = |n: i64, e: i32| i128::from(n) * 10i128.pow((e + 6) as u32);
            let (ta, tb) = (text(a, ea, za), text(b, eb, 0));
            let (da, db) = (Decimal::parse(ta.as_bytes()).expect("a number"), Decimal::parse(tb.as_bytes()).expect("a number"));
            prop_assert_eq!(da.compare(&db), exact(a, ea).cmp(&exact(b, eb)), "{} {}", ta, tb);
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in proptest::collection::vec(proptest::sample::select(b"0123456789.eE+-x".to_vec()), 0..12)) {
            let ours = Decimal::parse(&text).is_some();
            let json = serde_json::from_slice::<serde_json::Number>(&text).is_ok();
            // JSON refuses leading zeros and, as f64, what is too large; all it takes we take.
            prop_assert!(ours || !json, "{:?}", String::from_utf8_lossy(&text));
        }
    }
}
