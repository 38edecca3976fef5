//! What expressions know of time: the parts of timestamps and durations, offsets, and how durations are written.
//!
//! In: nanoseconds since the epoch, or of a duration, or their text. Out: ints and texts; `None` where there is none, or where it
//! does not fit into 64 bits of nanoseconds: timestamps go from 1678 to 2262, durations to 292 years. All of it is exact.

use crate::units::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SECOND, UnixNanos, days_from_civil};

const NANOS_PER_MILLISECOND: i64 = 1_000_000;

/// What `.getHours()` and its like ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum TimePart {
    FullYear,
    /// From 0.
    Month,
    /// Of the month, from 1.
    Date,
    /// From 0.
    DayOfMonth,
    /// From 0, which is a Sunday.
    DayOfWeek,
    /// From 0.
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl TimePart {
    pub(in super::super) fn of_method(name: &str) -> Option<TimePart> {
        Some(match name {
            "getFullYear" => TimePart::FullYear,
            "getMonth" => TimePart::Month,
            "getDate" => TimePart::Date,
            "getDayOfMonth" => TimePart::DayOfMonth,
            "getDayOfWeek" => TimePart::DayOfWeek,
            "getDayOfYear" => TimePart::DayOfYear,
            "getHours" => TimePart::Hours,
            "getMinutes" => TimePart::Minutes,
            "getSeconds" => TimePart::Seconds,
            "getMilliseconds" => TimePart::Milliseconds,
            _ => return None,
        })
    }

    /// `ahead_seconds`: how far the clock that is asked is ahead of UTC.
    pub(super) fn of_time(self, time: i64, ahead_seconds: i64) -> Option<i64> {
        let local = time.checked_add(ahead_seconds * NANOS_PER_SECOND)?;
        let (civil, days) = (UnixNanos(local).civil(), local.div_euclid(NANOS_PER_DAY));
        Some(match self {
            TimePart::FullYear => i64::from(civil.year),
            TimePart::Month => i64::from(civil.month) - 1,
            TimePart::Date => i64::from(civil.day),
            TimePart::DayOfMonth => i64::from(civil.day) - 1,
            TimePart::DayOfWeek => (days + 4).rem_euclid(7), // the epoch is a Thursday
            TimePart::DayOfYear => days - days_from_civil(civil.year, 1, 1),
            TimePart::Hours => i64::from(civil.hour),
            TimePart::Minutes => i64::from(civil.minute),
            TimePart::Seconds => i64::from(civil.second),
            TimePart::Milliseconds => i64::from(civil.nano) / NANOS_PER_MILLISECOND,
        })
    }

    /// All of the duration in this unit, rounded towards 0; `None`: durations have no such part.
    pub(in super::super) fn of_duration(self, nanos: i64) -> Option<i64> {
        match self {
            TimePart::Hours => Some(nanos / NANOS_PER_HOUR),
            TimePart::Minutes => Some(nanos / NANOS_PER_MINUTE),
            TimePart::Seconds => Some(nanos / NANOS_PER_SECOND),
            TimePart::Milliseconds => Some(nanos / NANOS_PER_MILLISECOND),
            _ => None,
        }
    }
}

/// How far `+02:00`, `-0530`, `02:00`, `Z` or `UTC` is ahead of UTC, in seconds. Names of places are not known here.
pub(in super::super) fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "UTC") {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    let ([h, g, b':', m, n] | [h, g, m, n]) = digits else { return None };
    let two = |tens: &u8, ones: &u8| {
        let number = [tens, ones].iter().all(|digit| digit.is_ascii_digit());
        number.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    };
    let (hours, minutes) = (two(h, g)?, two(m, n)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// CEL's durations: `1h30m`, `-1.5s`, `250ms`, `0`. What is less than a nanosecond is cut.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c| !is_digit(c))?);
        let (unit, next) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
        nanos = nanos.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = next;
    }
    i64::try_from(sign * nanos).ok()
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "h" => NANOS_PER_HOUR,
        "m" => NANOS_PER_MINUTE,
        "s" => NANOS_PER_SECOND,
        "ms" => NANOS_PER_MILLISECOND,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// `1.5` times a unit.
fn scaled(number: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // An hour has 3.6e12 nanoseconds: what stands behind 18 digits is less than one of them.
    let (mut part, mut scale) = (0, 1);
    for digit in fraction.bytes().take(18) {
        part = part * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    Some(i128::from(whole) * i128::from(unit) + part * i128::from(unit) / scale)
}

/// `5400s`, `-0.25s`: seconds, as CEL writes durations.
pub(super) fn write_duration(nanos: i64) -> String {
    let (sign, size) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (size / NANOS_PER_SECOND as u64, size % NANOS_PER_SECOND as u64);
    match rest {
        0 => format!("{sign}{seconds}s"),
        rest => format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0')),
    }
}
