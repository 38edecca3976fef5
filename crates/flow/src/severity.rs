//! How bad a record is: level names and numbers of many loggers to one scale.
//!
//! In: the value of a record's level field. Out: OpenTelemetry's severity number (`event::Severity`), of which
//! the first of each class is used (1 5 9 13 17 21) and 10 for `notice`; 0 where nothing is known. Never
//! fails; the record keeps its own text.
//!
//! Names in any case, with blanks around, with colour codes, with slog's `+1`. Whole numbers are read as
//! pino and bunyan write them (10 trace to 60 fatal) or as logback's level_value (5000 to 50000). Numbers below
//! 10 are 0: syslog's 3 is an error, OpenTelemetry's 3 is a trace, and the number alone cannot tell.

use crate::decimal::small_integer;
use crate::escape::unescape;
use crate::event::Severity;
use crate::fields::Kind;

pub const UNKNOWN: Severity = 0;
pub const TRACE: Severity = 1;
pub const DEBUG: Severity = 5;
pub const INFO: Severity = 9;
/// Between info and warn: syslog's and GCP's `notice`, as OpenTelemetry's mapping has it.
pub const NOTICE: Severity = 10;
pub const WARN: Severity = 13;
pub const ERROR: Severity = 17;
pub const FATAL: Severity = 21;

/// Longer than any name we know with its colour codes; what does not fit is unknown.
const NAME_BYTES_MAX: usize = 24;

/// The severity that a level field's value means.
#[inline]
pub fn parse(raw: &[u8], kind: Kind) -> Severity {
    match kind {
        Kind::Text => match raw {
            b"info" => INFO,
            b"debug" => DEBUG,
            b"error" => ERROR,
            b"warn" => WARN,
            _ => parse_name(raw.iter().copied()),
        },
        Kind::Escaped => parse_name(unescape(raw)),
        Kind::Number => parse_number(raw),
        Kind::Missing | Kind::True | Kind::False | Kind::Null | Kind::Object | Kind::Array => UNKNOWN,
    }
}

/// OpenTelemetry's own `severityNumber`, 1 to 24, number or string; 0 for anything else.
pub fn parse_otel_number(raw: &[u8], kind: Kind) -> Severity {
    match (kind, small_integer(raw)) {
        (Kind::Number | Kind::Text, Some(number @ 1..=24)) => number as Severity,
        _ => UNKNOWN,
    }
}

/// Syslog's own priority, 0 to 7, number or string; 0 for anything else.
pub fn parse_syslog_number(raw: &[u8], kind: Kind) -> Severity {
    const CLASSES: [Severity; 8] = [FATAL, FATAL, FATAL, ERROR, WARN, NOTICE, INFO, DEBUG];
    match (kind, small_integer(raw)) {
        (Kind::Number | Kind::Text, Some(number @ 0..=7)) => CLASSES[number as usize],
        _ => UNKNOWN,
    }
}

/// `trace`, `debug`, `info`, `warn`, `error`, `fatal` or `unknown`.
pub fn class_name(severity: Severity) -> &'static str {
    match severity {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => "unknown",
    }
}

fn parse_name(bytes: impl Iterator<Item = u8>) -> Severity {
    let mut buffer = [0; NAME_BYTES_MAX];
    match plain_lower(bytes, &mut buffer) {
        Some(name) if name.first().is_some_and(u8::is_ascii_digit) => parse_number(name),
        Some(name) => name_severity(without_offset(name)),
        None => UNKNOWN,
    }
}

/// Lower case, without blanks around and without ANSI colour codes; `None` if it is too long for a name.
fn plain_lower(mut bytes: impl Iterator<Item = u8>, buffer: &mut [u8; NAME_BYTES_MAX]) -> Option<&[u8]> {
    let mut length = 0;
    while let Some(byte) = bytes.next() {
        if byte == 0x1b {
            // ESC [ 3 4 m: skip to the letter that ends it.
            bytes.by_ref().find(u8::is_ascii_alphabetic)?;
        } else if length > 0 || !byte.is_ascii_whitespace() {
            // Blanks behind a name may be many (fixed-width layouts), so they cost no room.
            match buffer.get_mut(length) {
                Some(place) => {
                    *place = byte.to_ascii_lowercase();
                    length += 1;
                }
                None if byte.is_ascii_whitespace() => {}
                None => return None,
            }
        }
    }
    Some(buffer[..length].trim_ascii_end())
}

/// `warn+1` is `warn`: slog writes levels between its names as an offset.
fn without_offset(name: &[u8]) -> &[u8] {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match &name[..name.len() - digits] {
        [base @ .., b'+' | b'-'] if digits > 0 => base,
        _ => name,
    }
}

fn name_severity(name: &[u8]) -> Severity {
    match name {
        b"trace" | b"trc" | b"verbose" | b"finest" | b"finer" | b"t" => TRACE,
        b"debug" | b"dbg" | b"fine" | b"d" => DEBUG,
        b"info" | b"inf" | b"information" | b"informational" | b"i" => INFO,
        b"notice" => NOTICE,
        b"warn" | b"warning" | b"wrn" | b"w" => WARN,
        b"error" | b"err" | b"severe" | b"e" => ERROR,
        b"fatal" | b"ftl" | b"critical" | b"crit" | b"panic" | b"dpanic" | b"emerg" | b"emergency" | b"alert" | b"f" => FATAL,
        _ => UNKNOWN,
    }
}

fn parse_number(raw: &[u8]) -> Severity {
    match small_integer(raw) {
        Some(10..=19 | 5_000) => TRACE,
        Some(20..=29 | 10_000) => DEBUG,
        Some(30..=39 | 20_000) => INFO,
        Some(40..=49 | 30_000) => WARN,
        Some(50..=59 | 40_000) => ERROR,
        Some(60 | 50_000) => FATAL,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raws: &[&str], kind: Kind, want: Severity) {
        for raw in raws {
            assert_eq!(parse(raw.as_bytes(), kind), want, "{raw:?} as {kind:?}");
        }
    }

    #[test]
    fn names_read_in_any_case_and_spelling() {
        check(&["trace", "TRACE", "Trc", "FINEST", "T", "verbose"], Kind::Text, TRACE);
        check(&["debug", "DEBUG", "dbg", "D", "DEBUG-4", "Fine"], Kind::Text, DEBUG);
        check(&["info", "INFO", "Information", "I", "INFO+2", "INFO-2", "\tinfo "], Kind::Text, INFO);
        check(&["notice", "NOTICE"], Kind::Text, NOTICE);
        check(&["warn", "WARN", "warning", "WARN+1", " WARN", "W", "wrn"], Kind::Text, WARN);
        check(&["error", "ERROR", "err", "ERROR+2", "E", "SEVERE", "error                               "], Kind::Text, ERROR);
        check(&["fatal", "critical", "CRIT", "panic", "dpanic", "emerg", "EMERGENCY", "alert", "F"], Kind::Text, FATAL);
    }

    #[test]
    fn unknown_levels_are_zero() {
        let unknown =
            ["", " ", "Level(9)", "DEFAULT", "warn+", "+1", "warn+1x", "error: something very long happened", "infos", "-", "x", "inf o"];
        check(&unknown, Kind::Text, UNKNOWN);
        check(&["true"], Kind::True, UNKNOWN);
        check(&["{\"level\":\"info\"}"], Kind::Object, UNKNOWN);
        check(&[""], Kind::Missing, UNKNOWN);
        check(&["null"], Kind::Null, UNKNOWN);
    }

    #[test]
    fn numbers_read_as_pino_and_logback_write_them() {
        for kind in [Kind::Number, Kind::Text] {
            check(&["10", "5000"], kind, TRACE);
            check(&["20", "10000"], kind, DEBUG);
            check(&["30", "35", "20000"], kind, INFO);
            check(&["40", "30000"], kind, WARN);
            check(&["50", "40000"], kind, ERROR);
            check(&["60", "50000"], kind, FATAL);
            check(&["0", "1", "7", "9", "-30", "61", "30.5", "3e1", "99999999999999999999"], kind, UNKNOWN);
        }
    }

    #[test]
    fn colour_codes_and_escapes_do_not_hide_a_level() {
        check(&[r"\u001b[34mINFO\u001b[0m", r"\u0069nfo"], Kind::Escaped, INFO);
        check(&[r"\u001b[31;1mERROR\u001b[0m"], Kind::Escaped, ERROR);
        check(&["\x1b[33mWARN\x1b[0m"], Kind::Text, WARN);
        check(&[r"\u001b[", r"\u001b", r"\"], Kind::Escaped, UNKNOWN);
    }

    #[test]
    fn otel_numbers_pass_and_each_has_a_class() {
        for number in 1..=24u8 {
            assert_eq!(parse_otel_number(number.to_string().as_bytes(), Kind::Number), number);
        }
        for raw in ["0", "25", "-1", "9.0", "info", ""] {
            assert_eq!(parse_otel_number(raw.as_bytes(), Kind::Text), UNKNOWN);
        }
        assert_eq!(parse_otel_number(b"9", Kind::Null), UNKNOWN);
        let classes = [UNKNOWN, TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, FATAL, 4, 8, 12, 16, 20, 24, 25].map(class_name);
        let want = [
            "unknown", "trace", "debug", "info", "info", "warn", "error", "fatal", "trace", "debug", "info", "warn", "error", "fatal",
            "unknown",
        ];
        assert_eq!(classes, want);
    }
}
