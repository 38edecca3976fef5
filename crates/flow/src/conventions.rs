//! How loggers write when, how bad, what and which trace: eleven conventions in one order of preference.
//!
//! zap, logrus, Go's slog, zerolog, bunyan, pino, logback, ECS, GCP, OpenTelemetry's JSON and journald differ in names and
//! scales and never contradict each other, so no stream has to be told to be of one: each record is read by the first of these
//! fields that it has and that can be read. So what a record means never depends on the records before it, on where a chunk
//! ends or on a restart. A field that a record lacks costs one comparison.

use crate::event::Severity;
use crate::fields::Kind;
use crate::severity;

pub const TIME: [&str; 8] =
    ["ts", "time", "@timestamp", "timestamp", "timestampSeconds", "timestamp.seconds", "timeUnixNano", "__REALTIME_TIMESTAMP"];
pub const LEVEL: [&str; 7] = ["level", "severity", "log.level", "severityNumber", "severityText", "level_value", "PRIORITY"];
pub const MESSAGE: [&str; 7] = ["msg", "message", "body.stringValue", "body", "MESSAGE", "log", "content"];
pub const TRACE_ID: [&str; 4] = ["trace_id", "traceId", "trace.id", "logging.googleapis.com/trace"];
pub const SPAN_ID: [&str; 4] = ["span_id", "spanId", "span.id", "logging.googleapis.com/spanId"];

/// A field that holds a time, and one that holds the nanoseconds beyond it.
#[derive(Clone, Copy, Debug)]
pub struct TimeField {
    pub field: usize,
    pub nanos: Option<usize>,
}

/// A field that holds a level, and how its numbers are meant.
#[derive(Clone, Copy, Debug)]
pub struct LevelField {
    pub field: usize,
    pub scale: Scale,
}

/// What a number means in a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As pino, bunyan and logback write it.
    Loggers,
    /// 1 to 24.
    OpenTelemetry,
    /// 0 (emergency) to 7 (debug).
    Syslog,
}

impl From<usize> for TimeField {
    fn from(field: usize) -> TimeField {
        TimeField { field, nanos: None }
    }
}

impl From<usize> for LevelField {
    fn from(field: usize) -> LevelField {
        LevelField { field, scale: Scale::Loggers }
    }
}

/// The field beside one with seconds: `timestampNanos` beside `timestampSeconds`, `timestamp.nanos` beside `timestamp.seconds`.
pub fn nanos_beside(time: &str) -> Option<String> {
    let upper = time.strip_suffix("Seconds").map(|stem| format!("{stem}Nanos"));
    upper.or_else(|| time.strip_suffix(".seconds").map(|stem| format!("{stem}.nanos")))
}

/// The names that loggers give to what `message`, `trace_id` or `span_id` stands for in a query; none for any other field.
pub fn spellings(name: &str) -> &'static [&'static str] {
    match name {
        "message" => &MESSAGE,
        "trace_id" => &TRACE_ID,
        "span_id" => &SPAN_ID,
        _ => &[],
    }
}

/// How numbers in a level field of this name are meant.
pub fn scale(level: &str) -> Scale {
    let name = level.rsplit('.').next().unwrap_or(level);
    match name {
        "severityNumber" | "severity_number" => Scale::OpenTelemetry,
        name if name.eq_ignore_ascii_case("priority") => Scale::Syslog,
        _ => Scale::Loggers,
    }
}

impl Scale {
    /// The severity that a level field's value means; 0: unknown.
    pub fn severity(self, raw: &[u8], kind: Kind) -> Severity {
        let number = match self {
            Scale::Loggers => 0,
            Scale::OpenTelemetry => severity::parse_otel_number(raw, kind),
            Scale::Syslog => severity::parse_syslog_number(raw, kind),
        };
        if number > 0 { number } else { severity::parse(raw, kind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_mean_what_the_name_of_their_field_says() {
        for (field, raw, want) in [
            ("level", "30", severity::INFO),
            ("severityNumber", "13", severity::WARN),
            ("PRIORITY", "3", severity::ERROR),
            ("PRIORITY", "6", severity::INFO),
            ("PRIORITY", "0", severity::FATAL),
            ("PRIORITY", "9", severity::UNKNOWN),
            ("level_value", "40000", severity::ERROR),
        ] {
            assert_eq!(scale(field).severity(raw.as_bytes(), Kind::Number), want, "{field} {raw}");
            assert_eq!(scale(field).severity(raw.as_bytes(), Kind::Text), want, "{field} {raw} as text");
        }
        assert_eq!(scale("PRIORITY").severity(b"warning", Kind::Text), severity::WARN);
    }

    #[test]
    fn nanoseconds_stand_beside_their_seconds() {
        assert_eq!(nanos_beside("timestampSeconds").as_deref(), Some("timestampNanos"));
        assert_eq!(nanos_beside("timestamp.seconds").as_deref(), Some("timestamp.nanos"));
        assert_eq!(nanos_beside("ts"), None);
    }
}
