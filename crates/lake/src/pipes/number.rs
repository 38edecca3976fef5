//! Numbers of records: exact where they fit, and sums that do not depend on order.
//!
//! In: the text of a number; out: a [`Num`]. Up to 36 digits with up to 36 behind the point are kept as they
//! are written; a longer one is taken as the nearest float, and who uses it says so. A [`Sum`] is exact in 256
//! bits for each number of digits behind the point; floats are added as integers too, so the order in
//! which records come, and how they were split among threads, never shows. Memory of a sum: 48 bytes for each
//! number of digits behind the point that occurs (37 at most), 32 for each of at most 66 ranges of floats.

use super::table::Cell;
use flow::decimal::small_integer;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// Digits that are kept exactly: two such numbers can be brought to one scale or be told apart in an i128.
const DIGITS_MAX: usize = 36;

/// A decimal number: `mantissa` / 10^`scale`, without zeros behind its last digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    mantissa: i128,
    scale: u8,
}

/// A number as it was written, or the float nearest to it where it has too many digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Num {
    Exact(Number),
    Rough(f64),
}

/// Fifteen digits: each decimal with no more has a float of its own.
const SHORT_MAX: f64 = 1e15;
/// Powers of ten that are floats exactly.
const FLOAT_POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

fn power(n: u8) -> i128 {
    10i128.pow(u32::from(n))
}

impl Number {
    /// `mantissa` / 10^`scale`; `scale` is 38 at most.
    pub fn new(mut mantissa: i128, mut scale: u8) -> Number {
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        Number { mantissa, scale }
    }

    /// The number if it is a whole one.
    pub fn whole(self) -> Option<i128> {
        (self.scale == 0).then_some(self.mantissa)
    }

    /// The nearest float.
    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(0.0)
    }

    fn compare(self, other: Number) -> Ordering {
        if self.scale == other.scale {
            return self.mantissa.cmp(&other.mantissa);
        }
        if self.scale > other.scale {
            return other.compare(self).reverse();
        }
        match self.mantissa.checked_mul(power(other.scale - self.scale)) {
            Some(mantissa) => mantissa.cmp(&other.mantissa),
            None => self.mantissa.cmp(&0), // far beyond the other on its own side
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scale == 0 {
            return write!(f, "{}", self.mantissa);
        }
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let unit = power(self.scale).unsigned_abs();
        let magnitude = self.mantissa.unsigned_abs();
        write!(f, "{sign}{}.{:0width$}", magnitude / unit, magnitude % unit, width = usize::from(self.scale))
    }
}

impl Num {
    /// Reads `12`, `-0.5`, `+3`, `1e-7`; `None` for anything else. Allocates nothing.
    pub(crate) fn parse(text: &[u8]) -> Option<Num> {
        if let Some(small) = small_integer(text) {
            return Some(Num::Exact(Number { mantissa: i128::from(small), scale: 0 }));
        }
        Num::parse_any(text)
    }

    fn parse_any(text: &[u8]) -> Option<Num> {
        let (negative, rest) = match text.first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
        let (digits, power_text) = rest.split_at(end);
        let point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
        let (whole, part) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
        if whole.len() + part.len() == 0 || !whole.iter().chain(part).all(u8::is_ascii_digit) {
            return None;
        }
        let exponent = if power_text.is_empty() { 0 } else { parse_exponent(&power_text[1..])? };
        match exact(whole, part, exponent) {
            Some((mantissa, scale)) => Some(Num::Exact(Number { mantissa: if negative { -mantissa } else { mantissa }, scale })),
            None => {
                let float: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
                Some(Num::Rough(float.clamp(f64::MIN, f64::MAX)))
            }
        }
    }

    /// The number that this float's shortest text means.
    pub(crate) fn of_float(value: f64) -> Num {
        // A decimal of few digits is the shortest text of its float.
        for scale in 0..=6 {
            let unit = FLOAT_POWERS[usize::from(scale)];
            let mantissa = (value * unit).round();
            if mantissa.abs() < SHORT_MAX && mantissa / unit == value {
                return Num::Exact(Number::new(mantissa as i128, scale));
            }
        }
        let mut text = Vec::new();
        crate::logs::numbers::write_number(value, &mut text);
        Num::parse(&text).unwrap_or(Num::Rough(value))
    }

    /// The float from which [`Num::of_float`] makes this very number, where that is known without trying.
    pub(crate) fn short_float(self) -> Option<f64> {
        let Num::Exact(Number { mantissa, scale }) = self else { return None };
        // One division of two floats that are exact rounds correctly (Clinger 1990).
        let unit = FLOAT_POWERS.get(usize::from(scale))?;
        (mantissa.unsigned_abs() < SHORT_MAX as u128).then_some(mantissa as f64 / unit)
    }

    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Num::Exact(number) => number.to_f64(),
            Num::Rough(float) => float,
        }
    }

    pub(crate) fn cell(self) -> Cell {
        match self {
            Num::Exact(number) => number.whole().map_or(Cell::Decimal(number), Cell::Int),
            Num::Rough(float) => Cell::Float(float),
        }
    }

    /// A total order: exact numbers exactly, beside floats by the nearest float, and of equals the exact one first.
    pub(crate) fn compare(self, other: Num) -> Ordering {
        match (self, other) {
            (Num::Exact(a), Num::Exact(b)) => a.compare(b),
            (a, b) => {
                let kind = |n: Num| matches!(n, Num::Rough(_));
                a.to_f64().total_cmp(&b.to_f64()).then(kind(a).cmp(&kind(b)))
            }
        }
    }
}

/// Mantissa and scale, if they fit.
fn exact(whole: &[u8], part: &[u8], exponent: i64) -> Option<(i128, u8)> {
    let all = || whole.iter().chain(part);
    let leading = all().take_while(|d| **d == b'0').count();
    let count = whole.len() + part.len();
    if leading == count {
        return Some((0, 0));
    }
    let trailing = part.iter().rev().chain(whole.iter().rev()).take_while(|d| **d == b'0').count();
    let significant = count - leading - trailing;
    if significant > DIGITS_MAX {
        return None;
    }
    let mantissa = all().skip(leading).take(significant).fold(0i128, |n, d| n * 10 + i128::from(d - b'0'));
    let shift = exponent - part.len() as i64 + trailing as i64;
    if shift < 0 {
        let scale = u8::try_from(-shift).ok().filter(|scale| usize::from(*scale) <= DIGITS_MAX)?;
        return Some((mantissa, scale));
    }
    let shift = u8::try_from(shift).ok().filter(|shift| significant + usize::from(*shift) <= DIGITS_MAX)?;
    Some((mantissa * power(shift), 0))
}

/// The digits after the `e`, held within +-10^12: no text is long enough to see the difference.
fn parse_exponent(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.first()? {
        b'-' => (true, &bytes[1..]),
        b'+' => (false, &bytes[1..]),
        _ => (false, bytes),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0i64, |n, d| (n * 10 + i64::from(d - b'0')).min(1_000_000_000_000));
    Some(if negative { -n } else { n })
}

/// A signed integer of 256 bits: no sum of records overflows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wide {
    high: i128,
    low: u128,
}

impl Wide {
    fn add(&mut self, value: i128) {
        self.add_wide(Wide { high: value >> 127, low: value.cast_unsigned() });
    }

    fn add_wide(&mut self, other: Wide) {
        let (low, carry) = self.low.overflowing_add(other.low);
        self.low = low;
        self.high = self.high.wrapping_add(other.high).wrapping_add(i128::from(carry));
    }

    fn to_i128(self) -> Option<i128> {
        let low = self.low.cast_signed();
        (self.high == low >> 127).then_some(low)
    }

    fn to_f64(self) -> f64 {
        self.high as f64 * 2f64.powi(128) + self.low as f64
    }
}

/// A sum of numbers that is the same in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// By digits behind the point; most fields have one such number.
    exact: Vec<(u8, Wide)>,
    /// Floats as whole multiples of 2^(32 k), by k.
    rough: BTreeMap<i16, Wide>,
    pub(crate) numbers: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, num: Num) {
        self.numbers += 1;
        match num {
            Num::Exact(number) => self.bucket(number.scale).add(number.mantissa),
            Num::Rough(float) => self.add_float(float),
        }
    }

    fn bucket(&mut self, scale: u8) -> &mut Wide {
        let at = match self.exact.iter().position(|(s, _)| *s == scale) {
            Some(at) => at,
            None => {
                self.exact.push((scale, Wide::default()));
                self.exact.len() - 1
            }
        };
        &mut self.exact[at].1
    }

    /// A float is an integer of 53 bits times a power of two; the power's multiple of 32 chooses the range.
    fn add_float(&mut self, float: f64) {
        let bits = float.to_bits();
        let biased = (bits >> 52 & 0x7ff) as i16;
        let fraction = (bits & ((1 << 52) - 1)) as i128;
        let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        let mantissa = mantissa << exponent.rem_euclid(32);
        self.rough.entry(exponent.div_euclid(32)).or_default().add(if float < 0.0 { -mantissa } else { mantissa });
    }

    pub(crate) fn merge(&mut self, other: &Sum) {
        self.numbers += other.numbers;
        for (scale, wide) in &other.exact {
            self.bucket(*scale).add_wide(*wide);
        }
        for (range, wide) in &other.rough {
            self.rough.entry(*range).or_default().add_wide(*wide);
        }
    }

    /// The sum; `None` without a number. A float where a part is one, or it has more than 38 digits.
    pub(crate) fn total(&self) -> Option<Num> {
        if self.numbers == 0 {
            return None;
        }
        if self.rough.is_empty()
            && let Some(total) = self.exact_total()
        {
            return Some(Num::Exact(total));
        }
        let mut parts = self.exact.clone();
        parts.sort_by_key(|part| part.0);
        let exact: f64 = parts.iter().map(|(scale, wide)| wide.to_f64() / power(*scale) as f64).sum();
        let rough: f64 = self.rough.iter().rev().map(|(range, wide)| wide.to_f64() * 2f64.powi(i32::from(*range) * 32)).sum();
        Some(Num::Rough((exact + rough).clamp(f64::MIN, f64::MAX)))
    }

    fn exact_total(&self) -> Option<Number> {
        let scale = self.exact.iter().map(|(scale, _)| *scale).max()?;
        let mut parts = self.exact.clone();
        parts.sort_by_key(|part| part.0);
        let mut total = 0i128;
        for (own, wide) in parts {
            total = total.checked_add(wide.to_i128()?.checked_mul(power(scale - own))?)?;
        }
        Some(Number::new(total, scale))
    }

    /// The sum divided by how many numbers there are, rounded half to even, with six digits more than the sum has.
    pub(crate) fn average(&self) -> Option<Num> {
        let total = match self.total()? {
            Num::Exact(total) => total,
            Num::Rough(float) => return Some(Num::Rough(float / self.numbers as f64)),
        };
        let count = i128::from(self.numbers);
        let (digits, scaled) = (0..=6u8)
            .rev()
            .filter(|digits| total.scale + digits <= DIGITS_MAX as u8)
            .find_map(|digits| Some((digits, total.mantissa.checked_mul(power(digits))?)))
            .unwrap_or((0, total.mantissa));
        let (quotient, rest) = (scaled.div_euclid(count), scaled.rem_euclid(count));
        let up = match (rest * 2).cmp(&count) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => quotient % 2 != 0,
        };
        Some(Num::Exact(Number::new(quotient + i128::from(up), total.scale + digits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn num(text: &str) -> Num {
        Num::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    fn show(num: Option<Num>) -> String {
        num.map_or("none".into(), |num| num.cell().to_string())
    }

    #[test]
    fn numbers_are_kept_as_they_are_written() {
        for (text, want) in [
            ("12", "12"),
            ("-0.50", "-0.5"),
            ("+3", "3"),
            ("1e3", "1000"),
            ("1.5e-3", "0.0015"),
            ("-0", "0"),
            ("9007199254740993", "9007199254740993"),
            ("99999999999999999999.25", "99999999999999999999.25"),
            ("000120", "120"),
            ("0.000e99", "0"),
        ] {
            assert_eq!(show(Some(num(text))), want, "{text}");
        }
        assert!(matches!(num("1e40"), Num::Rough(_)));
        assert_eq!(num("1e400"), Num::Rough(f64::MAX));
        for text in ["", "-", "1.2.3", "1e", "e5", "0x10", "1_000", "NaN", "inf", ".", "1 ", "é"] {
            assert!(Num::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_float_is_the_number_of_its_shortest_text() {
        for text in
            ["0", "-0", "7", "-12.5", "0.1", "0.30000000000000004", "123456.789", "1e-7", "1e23", "9007199254740993", "1e300", "5e-324"]
        {
            let value: f64 = text.parse().unwrap();
            let want = num(&format!("{value}"));
            assert_eq!(Num::of_float(value).compare(want), Ordering::Equal, "{text}");
            assert!(want.short_float().is_none_or(|short| short == value), "{text}");
        }
        let mut state = 3u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (digits, scale) = (1 + (state >> 8) % 15, (state >> 16) % 16);
            let want = Num::Exact(Number::new(i128::from((state >> 20) % 10u64.pow(digits as u32)), scale as u8));
            assert_eq!(Num::of_float(want.short_float().unwrap()), want, "{}", want.cell());
        }
    }

    #[test]
    fn numbers_have_one_order() {
        let ordered = ["-1e400", "-1e35", "-9.5", "-0.001", "0", "1e-36", "0.1", "0.10000000000000000001", "3", "1e35", "1e36", "1e300"];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(num(a).compare(num(b)), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[track_caller]
    fn check(numbers: &[&str], sum: &str, average: &str) {
        let mut forward = Sum::default();
        numbers.iter().for_each(|n| forward.add(num(n)));
        let mut split = Sum::default();
        for n in numbers.iter().rev() {
            let mut one = Sum::default();
            one.add(num(n));
            split.merge(&one);
        }
        assert_eq!((show(forward.total()), show(forward.average())), (sum.to_owned(), average.to_owned()));
        assert_eq!((show(split.total()), show(split.average())), (sum.to_owned(), average.to_owned()));
    }

    #[test]
    fn sums_are_exact_and_do_not_depend_on_order() {
        check(&[], "none", "none");
        check(&["0.1", "0.2"], "0.3", "0.15");
        check(&["1", "1", "2"], "4", "1.333333");
        check(&["-1", "-1", "0"], "-2", "-0.666667");
        check(&["0.0000005", "0.0000005", "0", "0"], "0.000001", "0.00000025");
        check(&["9007199254740993", "1", "-0.5"], "9007199254740993.5", "3002399751580331.1666667");
        check(&["1e35", "8e35", "-9e35", "7"], "7", "1.75");
        check(&["1e300", "1", "-1e300"], "1", "0.3333333333333333");
        let big = vec!["999999999999999999999999999999999999"; 100];
        check(&big, "99999999999999999999999999999999999900", "999999999999999999999999999999999999");
    }
}
