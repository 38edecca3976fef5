//! OTLP: logs, metrics and traces of OpenTelemetry, in protobuf and in JSON, to lines of JSON and back.
//!
//! In: the body of an `Export*ServiceRequest`, unpacked. Out ([`read`]): one line for each log record, metric data point or span:
//! ```json
//! {"timestamp":"…","observed":"…","severity":"Info","severityNumber":9,"body":"text","trace_id":"…","span_id":"…","flags":1,
//!  "event_name":"…","attributes":{…},"dropped_attributes_count":1,"resource":{…},"resource_schema_url":"…","scope":{"name":"…"}}
//! {"metric":"…","type":"counter","unit":"1","temporality":"delta","monotonic":true,"resource":{…},"labels":{…},"timestamp":"…","start":"…","value":5}
//! {"timestamp":"…","end":"…","duration_ns":5,"trace_id":"…","span_id":"…","name":"…","kind":"server","status":{"code":"ok"},…}
//! ```
//! What is absent, zero or empty is left out. A log record without a time has the observed one as `timestamp` and says
//! `"time_source":"observed"`. Values keep their kind: an integer is a number without a fraction, a double has one; bytes are text in
//! base64. Of a key that is there twice the last wins, and it is counted. So [`Writer`] makes the same items of these lines again,
//! except for bytes and doubles without a number (`"NaN"`) as values of attributes and bodies, which come back as text.
//!
//! An item that breaks a rule is refused with a [`Reason`] and counted, its neighbours are kept; a body that cannot be read at all
//! is [`Malformed`], and nothing of it is kept. JSON is read by way of protobuf ([`transcode`]), so that both mean the same.
//! Memory: the lines, bounded by [`Options`]; for JSON also its protobuf, at most twice the body
//! and in practice a third of it.

pub mod answer;
pub mod grpc;
mod json;
mod lines;
mod logs;
mod metrics;
mod schema;
mod spans;
pub mod text;
mod transcode;
mod write;
mod write_metrics;

#[cfg(test)]
mod tests;

pub use flow::event::Signal;
pub use write::{WriteOptions, Writer};

use std::fmt;

/// Where HTTP posts a signal.
pub fn http_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/v1/logs",
        Signal::Metrics => "/v1/metrics",
        Signal::Traces => "/v1/traces",
    }
}

/// The method of gRPC that exports a signal.
pub fn grpc_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    }
}

pub fn of_http_path(path: &str) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| http_path(*signal) == path)
}

pub fn of_grpc_path(path: &str) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| grpc_path(*signal) == path)
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        }
    }

    /// Of a `Content-Type`, in any case and whatever its parameters.
    pub fn of_content_type(value: &str) -> Option<Encoding> {
        let media = value.split(';').next().unwrap_or_default().trim();
        [Encoding::Protobuf, Encoding::Json].into_iter().find(|encoding| media.eq_ignore_ascii_case(encoding.content_type()))
    }
}

/// What a request may cost.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest line; an item that needs more is refused.
    pub line_bytes_max: usize,
    /// All lines of a request together; what comes after is refused. A large resource is written into each line, so this, not the
    /// body's length, bounds memory.
    pub bytes_max: usize,
    /// How deep values nest. At most 100 counts: deeper lines cannot be read as records.
    pub depth_max: usize,
    /// The attribute with a `traceparent` whose ids a log record without ids takes over (EB 4.6).
    pub inherit: Option<String>,
    /// How many descriptions of metrics are told.
    pub descriptions_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { line_bytes_max: 1 << 20, bytes_max: 256 << 20, depth_max: 64, inherit: None, descriptions_max: 10_000 }
    }
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Lines written.
    pub items: u64,
    /// How many items were refused, by reason.
    pub rejected: Vec<(Reason, u64)>,
    /// The place of the first refused item and the rule it breaks.
    pub first: Option<String>,
    /// Keys that were there before in the same list of attributes, in lines that were written.
    pub duplicates: u64,
    /// Metric and description, each metric once for each run of its points; lines do not carry descriptions.
    pub descriptions: Vec<(String, String)>,
}

impl Accepted {
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(|(_, count)| count).sum()
    }

    /// For the answer: how many of which reason, and the first. Empty: nothing was refused.
    pub fn message(&self) -> String {
        let counts: Vec<String> = self.rejected.iter().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
        match &self.first {
            Some(first) => format!("refused: {}; first: {first}", counts.join(", ")),
            None => String::new(),
        }
    }
}

/// Why an item is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    TraceId,
    SpanId,
    Time,
    NoData,
    NoValue,
    Name,
    Temporality,
    Histogram,
    Quantile,
    Enum,
    Utf8,
    Depth,
    LineBytes,
    BodyBytes,
    Value,
    /// Of a line: it is none of the signal.
    Kind,
}

impl Reason {
    pub const ALL: [Reason; 16] = [
        Reason::TraceId,
        Reason::SpanId,
        Reason::Time,
        Reason::NoData,
        Reason::NoValue,
        Reason::Name,
        Reason::Temporality,
        Reason::Histogram,
        Reason::Quantile,
        Reason::Enum,
        Reason::Utf8,
        Reason::Depth,
        Reason::LineBytes,
        Reason::BodyBytes,
        Reason::Value,
        Reason::Kind,
    ];

    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::TraceId => "trace_id",
            Reason::SpanId => "span_id",
            Reason::Time => "time",
            Reason::NoData => "no_data",
            Reason::NoValue => "no_value",
            Reason::Name => "name",
            Reason::Temporality => "temporality",
            Reason::Histogram => "histogram",
            Reason::Quantile => "quantile",
            Reason::Enum => "enum",
            Reason::Utf8 => "utf8",
            Reason::Depth => "depth",
            Reason::LineBytes => "line_bytes",
            Reason::BodyBytes => "body_bytes",
            Reason::Value => "value",
            Reason::Kind => "kind",
        }
    }

    /// For people.
    pub fn rule(self) -> &'static str {
        match self {
            Reason::TraceId => "a trace id has 16 bytes (32 hex digits) and is not all zero",
            Reason::SpanId => "a span id has 8 bytes (16 hex digits) and is not all zero",
            Reason::Time => "a time is in the years 1990 to 2100, and a metric point and a span have one",
            Reason::NoData => "a metric has data: a gauge, sum, histogram, exponential histogram or summary",
            Reason::NoValue => "a number point has a value, or a flag that says that none was recorded",
            Reason::Name => "a metric has a name",
            Reason::Temporality => "a sum or histogram is delta (1) or cumulative (2)",
            Reason::Histogram => "a histogram has one count more than bounds, which rise, or none of both",
            Reason::Quantile => "a quantile is from 0 to 1",
            Reason::Enum => "an enum is one of its numbers",
            Reason::Utf8 => "text is UTF-8",
            Reason::Depth => "values do not nest deeper than the limit",
            Reason::LineBytes => "a record is not longer than the limit",
            Reason::BodyBytes => "the records of one request are not longer than the limit",
            Reason::Value => "a value has the type that its name says, within its range",
            Reason::Kind => "the line is a record of the signal",
        }
    }
}

/// The body is no request: 400, or INVALID_ARGUMENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The byte of a JSON text.
    pub at: Option<usize>,
    pub rule: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "the body is no OTLP request in JSON: byte {at}: {}", self.rule),
            None => write!(f, "the body is no OTLP request: {}", self.rule),
        }
    }
}

impl std::error::Error for Malformed {}

impl From<crate::wire::Malformed> for Malformed {
    fn from(_: crate::wire::Malformed) -> Malformed {
        Malformed { at: None, rule: "it is no protobuf message of the expected kind" }
    }
}

/// Reads the body of an export request and appends a line for each item that is valid.
///
/// After an error `out` is as it was.
pub fn read(signal: Signal, encoding: Encoding, body: &[u8], options: &Options, out: &mut Vec<u8>) -> Result<Accepted, Malformed> {
    let start = out.len();
    let result = match encoding {
        Encoding::Protobuf => lines::read(signal, body, false, options, out),
        Encoding::Json => {
            let body = transcode::from_json(schema::request(signal), body, options.depth_max)?;
            lines::read(signal, &body, true, options, out)
        }
    };
    if result.is_err() {
        out.truncate(start);
    }
    Ok(result?)
}
