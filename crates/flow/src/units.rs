//! Units: numbers that know what they count.
//!
//! Each has one text form in configuration; a limit lives in its type (`Ratio` refuses 15).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Nanoseconds since 1970-01-01T00:00:00Z, without leap seconds. Covers the years 1678 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub i64);

pub const NANOS_PER_SECOND: i64 = 1_000_000_000;
pub const NANOS_PER_MINUTE: i64 = 60 * NANOS_PER_SECOND;
pub const NANOS_PER_HOUR: i64 = 60 * NANOS_PER_MINUTE;
pub const NANOS_PER_DAY: i64 = 24 * NANOS_PER_HOUR;

impl UnixNanos {
    /// Whole minutes since the epoch, rounded down.
    pub fn minute(self) -> i64 {
        self.0.div_euclid(NANOS_PER_MINUTE)
    }

    /// Year, month, day, hour, minute, second and nanosecond in UTC.
    pub fn civil(self) -> Civil {
        let days = self.0.div_euclid(NANOS_PER_DAY);
        let rest = self.0.rem_euclid(NANOS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: (rest / NANOS_PER_HOUR) as u32,
            minute: (rest / NANOS_PER_MINUTE % 60) as u32,
            second: (rest / NANOS_PER_SECOND % 60) as u32,
            nano: (rest % NANOS_PER_SECOND) as u32,
        }
    }

    /// `2026-11-23T03:00:00Z`, with a fraction only where there is one (3, 6 or 9 digits).
    pub fn rfc3339(self) -> String {
        let c = self.civil();
        let base = format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second);
        match c.nano {
            0 => format!("{base}Z"),
            n if n % 1_000_000 == 0 => format!("{base}.{:03}Z", n / 1_000_000),
            n if n % 1_000 == 0 => format!("{base}.{:06}Z", n / 1_000),
            n => format!("{base}.{n:09}Z"),
        }
    }

    /// `2026-11-23`, the UTC day.
    pub fn day(self) -> String {
        let c = self.civil();
        format!("{:04}-{:02}-{:02}", c.year, c.month, c.day)
    }
}

/// A UTC date and time in parts; see [`UnixNanos::civil`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: i32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub nano: u32,
}

/// Days since the epoch of a proleptic Gregorian date. Method: Hinnant, `days_from_civil` (2013).
pub fn days_from_civil(year: i32, month: u32, day: u32) -> i64 {
    let y = i64::from(year) - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (i64::from(month) + 9) % 12;
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// Inverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i32, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    let year = (yoe + era * 400 + i64::from(month <= 2)) as i32;
    (year, month, day)
}

/// A number of bytes. Text form: `64KiB`, `200MiB`, `10GiB`, `5MB`, or a whole number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl ByteSize {
    pub fn parse(text: &str) -> Result<ByteSize, String> {
        let rule = "a size is a whole number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, as in 64MiB";
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| format!("{text:?} is no size; {rule}"))?;
        let unit = match text[digits..].trim() {
            "" => 1,
            unit => BYTE_UNITS.iter().find(|u| u.0 == unit).map(|u| u.1).ok_or_else(|| format!("{text:?} is no size; {rule}"))?,
        };
        number.checked_mul(unit).map(ByteSize).ok_or_else(|| format!("{text:?} is more than 2^64 bytes"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A length of time in nanoseconds. Text form: `250ms`, `1s`, `10m`, `6h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub i64);

const SPAN_UNITS: [(&str, i64); 7] = [
    ("d", NANOS_PER_DAY),
    ("h", NANOS_PER_HOUR),
    ("m", NANOS_PER_MINUTE),
    ("s", NANOS_PER_SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Span {
    pub fn parse(text: &str) -> Result<Span, String> {
        let rule = "a duration is a whole number with ns, us, ms, s, m, h or d, as in 10m";
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = text[..digits].parse().map_err(|_| format!("{text:?} is no duration; {rule}"))?;
        let unit = SPAN_UNITS.iter().find(|u| u.0 == text[digits..].trim()).ok_or_else(|| format!("{text:?} is no duration; {rule}"))?;
        number.checked_mul(unit.1).map(Span).ok_or_else(|| format!("{text:?} is more than 292 years"))
    }

    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.max(0) as u64)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit) in SPAN_UNITS {
            if self.0 != 0 && self.0 % unit == 0 {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "0s")
    }
}

/// Digits after the point of an amount of money, which is an integer of 10^-12 of a currency.
pub const MONEY_DIGITS: u32 = 12;
/// 10^38 - 1 units, the most that `DECIMAL(38,12)` holds.
pub const MONEY_UNITS_MAX: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// Reads `12`, `0.50` or `-1.000000000001` in units of 10^-12: digits, at most one point, at most 12 digits after it (rule R2).
pub fn parse_money(text: &str) -> Result<i128, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || (digits.contains('.') && fraction.is_empty()) {
        return Err(format!("{text:?} is no amount; an amount is digits with a point, as in 0.50"));
    }
    if fraction.len() > MONEY_DIGITS as usize {
        return Err(format!("{text:?} has {} digits after the point; at most {MONEY_DIGITS} are kept", fraction.len()));
    }
    let too_long = || format!("{text:?} is out of range; an amount has at most 26 digits before the point");
    let mut units: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', MONEY_DIGITS as usize - fraction.len())) {
        let next = units.checked_mul(10).and_then(|u| u.checked_add(i128::from(byte - b'0')));
        units = next.filter(|u| *u <= MONEY_UNITS_MAX).ok_or_else(too_long)?;
    }
    Ok(sign * units)
}

/// An amount of money that is not negative, in 10^-12 of the currency of a rate card. Text form: `12.50`, or `12.50 USD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    pub units: i128,
    /// Three capital letters; must then be the card's.
    pub currency: Option<[u8; 3]>,
}

impl Amount {
    pub fn parse(text: &str) -> Result<Amount, String> {
        let text = text.trim();
        let (number, currency) = match text.split_once(' ') {
            None => (text, None),
            Some((number, code)) => match <[u8; 3]>::try_from(code.trim_start().as_bytes()) {
                Ok(code) if code.iter().all(u8::is_ascii_uppercase) => (number, Some(code)),
                _ => return Err(format!("{code:?} is no currency; a currency is three capital letters, as in 12.50 USD")),
            },
        };
        let units = parse_money(number)?;
        if units < 0 {
            return Err(format!("{text:?} is negative; an amount to spend is more than 0, as in 12.50"));
        }
        Ok(Amount { units, currency })
    }

    pub fn currency(&self) -> Option<&str> {
        self.currency.as_ref().map(|code| std::str::from_utf8(code).expect("capital letters"))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10i128.pow(MONEY_DIGITS);
        write!(f, "{}", self.units / one)?;
        let fraction = format!("{:012}", self.units % one);
        // Cents are always written, further digits where there are any.
        write!(f, ".{}{}", &fraction[..2], fraction[2..].trim_end_matches('0'))?;
        self.currency().map_or(Ok(()), |code| write!(f, " {code}"))
    }
}

/// As text, whatever it is written as: a float would round it.
impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as \"12.50\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                Amount::parse(text).map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A share from 0 to 1. Text form: a number such as `0.15`. Never used for money.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    pub fn new(value: f64) -> Result<Ratio, String> {
        if (0.0..=1.0).contains(&value) {
            return Ok(Ratio(value));
        }
        let help = if value > 1.0 && value <= 100.0 { format!("; to keep {value} %, write {}", value / 100.0) } else { String::new() };
        Err(format!("{value} is no ratio; a ratio is the share of records to keep, from 0 to 1{help}"))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

struct TextOr<T>(&'static str, fn(&str) -> Result<T, String>, fn(u64) -> Result<T, String>);

impl<T> Visitor<'_> for TextOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.2)(number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => (self.2)(number).map_err(E::custom),
            Err(_) => Err(E::custom(format!("{number} is negative; {} is needed", self.0))),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr("a size such as 64MiB", ByteSize::parse, |n| Ok(ByteSize(n))))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOr("a duration such as 10m", Span::parse, |n| {
            Err(format!("{n} has no unit; a duration is written as 10m or 250ms"))
        }))
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(d)?;
        Ratio::new(value).map_err(de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.0)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes: 64KiB, 200MiB, 10GiB, 5MB, or a whole number.",
            "type": ["string", "integer"], "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)?$", "minimum": 0
        })
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: 250ms, 1s, 10m, 6h, 30d.",
            "type": "string", "pattern": "^[0-9]+ *(ns|us|ms|s|m|h|d)$"
        })
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount of money: \"12.50\" in the currency of the rate card, or \"12.50 USD\"; at most 12 digits after the point.",
            "type": ["string", "number"], "pattern": "^[0-9]+(\\.[0-9]{1,12})?( +[A-Z]{3})?$", "exclusiveMinimum": 0
        })
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "A share from 0 to 1.", "type": "number", "minimum": 0, "maximum": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_as_written() {
        assert_eq!(ByteSize::parse("64MiB"), Ok(ByteSize(64 << 20)));
        assert_eq!(ByteSize::parse("5 MB"), Ok(ByteSize(5_000_000)));
        assert_eq!(ByteSize::parse("12"), Ok(ByteSize(12)));
        assert!(ByteSize::parse("64 megs").is_err());
        assert!(ByteSize::parse("99999999TiB").is_err());
        assert_eq!(Span::parse("250ms").map(|s| s.to_string()), Ok("250ms".into()));
        assert_eq!(Span::parse("48h").map(|s| s.to_string()), Ok("2d".into()));
        assert!(Span::parse("10").is_err());
        assert!(Ratio::new(15.0).unwrap_err().contains("write 0.15"));
    }

    #[test]
    fn amounts_are_exact_and_never_negative() {
        for (text, units, shown) in [
            ("12.50", 12_500_000_000_000, "12.50"),
            ("7", 7_000_000_000_000, "7.00"),
            ("0.000000000001 EUR", 1, "0.000000000001 EUR"),
            ("12345678901234567.123456789012", 12_345_678_901_234_567_123_456_789_012, "12345678901234567.123456789012"),
        ] {
            let amount = Amount::parse(text).expect(text);
            assert_eq!((amount.units, amount.to_string().as_str()), (units, shown));
            assert_eq!(Amount::parse(shown), Ok(amount));
        }
        for bad in ["", "-1", "1e3", "0.0000000000001", "1.", ".5", "5 usd", "5 DOLLARS", "5 USD x", "100000000000000000000000000"] {
            assert!(Amount::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        for (text, seconds) in [
            ("2026-11-23T03:00:00Z", 1_795_402_800),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2024-02-29T12:00:00Z", 1_709_208_000),
        ] {
            assert_eq!(UnixNanos(seconds * NANOS_PER_SECOND).rfc3339(), text);
        }
        for days in (-200_000..200_000).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }
}
