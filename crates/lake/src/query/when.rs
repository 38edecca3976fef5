//! Time words: `since:15m`, `until:2026-11-23T03:00:00Z`, `since:yesterday`.
//!
//! In: the text after `since:` or `until:`; out: a moment, or one that depends on the clock of the caller. Days
//! are days of UTC, weeks have seven of them. No clock is read here.

use flow::fields::Kind;
use flow::time::TimeParser;
use flow::units::{NANOS_PER_DAY, Span, UnixNanos};

/// A moment as a query names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    At(UnixNanos),
    /// Nanoseconds before now.
    Ago(i64),
    /// The begin of the day of now, in UTC.
    Today,
    /// The begin of the day before that.
    Yesterday,
}

impl When {
    /// Reads `15m`, `1h30m`, `2w`, `now`, `today`, `yesterday`, `2026-11-23` or a time of RFC 3339.
    pub(crate) fn parse(text: &str) -> Option<When> {
        match text {
            "now" => return Some(When::Ago(0)),
            "today" => return Some(When::Today),
            "yesterday" => return Some(When::Yesterday),
            _ => {}
        }
        if let Some(nanos) = parse_span(text) {
            return Some(When::Ago(nanos));
        }
        let midnight = format!("{text}T00:00:00Z");
        let stamp = if text.len() == 10 { &midnight } else { text };
        parse_stamp(stamp.as_bytes()).map(When::At)
    }

    /// The moment, if it is `now`.
    pub fn resolve(self, now: UnixNanos) -> UnixNanos {
        let day = now.0.div_euclid(NANOS_PER_DAY).saturating_mul(NANOS_PER_DAY);
        match self {
            When::At(time) => time,
            When::Ago(nanos) => UnixNanos(now.0.saturating_sub(nanos)),
            When::Today => UnixNanos(day),
            When::Yesterday => UnixNanos(day.saturating_sub(NANOS_PER_DAY)),
        }
    }
}

/// A time of RFC 3339 with date and time of day; nothing else, no bare number.
pub(crate) fn parse_stamp(text: &[u8]) -> Option<UnixNanos> {
    if text.get(4) != Some(&b'-') {
        return None;
    }
    TimeParser::new().parse(text, Kind::Text)
}

/// Nanoseconds of `90s`, `1h30m`, `2w`: numbers with units, side by side.
pub(crate) fn parse_span(text: &str) -> Option<i64> {
    let mut nanos: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (part, after) = rest.split_at(digits + letters);
        rest = after;
        let part = match part.strip_suffix('w') {
            Some(weeks) => weeks.parse::<i64>().ok()?.checked_mul(7 * NANOS_PER_DAY)?,
            None => Span::parse(part).ok()?.0,
        };
        nanos = nanos.checked_add(part)?;
    }
    (!text.is_empty()).then_some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        let now = parse_stamp(b"2026-11-23T03:04:05Z").unwrap();
        assert_eq!(When::parse(text).map(|w| w.resolve(now).rfc3339()).as_deref(), want, "{text}");
    }

    #[test]
    fn time_words_are_relative_to_the_callers_clock() {
        check("15m", Some("2026-11-23T02:49:05Z"));
        check("1h30m", Some("2026-11-23T01:34:05Z"));
        check("1w", Some("2026-11-16T03:04:05Z"));
        check("now", Some("2026-11-23T03:04:05Z"));
        check("today", Some("2026-11-23T00:00:00Z"));
        check("yesterday", Some("2026-11-22T00:00:00Z"));
        check("2026-11-01", Some("2026-11-01T00:00:00Z"));
        check("2026-11-23T03:00:00+01:00", Some("2026-11-23T02:00:00Z"));
        for text in ["", "m", "15", "15x", "soon", "2026-13-01", "2026-11-23T25:00:00Z", "-5m", "99999999999d", "€10m", "2026-11-€"] {
            check(text, None);
        }
    }
}
