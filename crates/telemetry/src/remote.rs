//! Prometheus remote write, 1.0 and 2.0, in and out.
//!
//! In: [`Version::of_content_type`], [`check_encoding`], [`unpack`], [`read`], and [`reply`] for what to answer. Out: a [`Writer`]
//! takes lines of samples and gives packed requests; [`headers`] go with them, [`after`] says what an answer means.
//!
//! Bound: [`unpack`] allocates at most what its caller allows, and never on the word of a length that the body cannot hold. [`read`]
//! writes at most `out_bytes_max` and remembers series and metadata within [`State`]'s bounds.
//! Sources: <https://prometheus.io/docs/specs/prw/remote_write_spec/>, <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>.

mod dictionary;
mod read;
mod v1;
mod v2;

pub(crate) mod convert;
mod write;

#[cfg(test)]
mod tests;

pub use read::{State, read};
pub use write::{External, Request, Translate, Writer, WriterOptions};

use std::fmt;

/// The message of a request: `prometheus.WriteRequest` or `io.prometheus.write.v2.Request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

const MEDIA_TYPE: &str = "application/x-protobuf";
const MESSAGES: [(Version, &str); 2] = [(Version::V1, "prometheus.WriteRequest"), (Version::V2, "io.prometheus.write.v2.Request")];

/// A type or an encoding that nobody here reads: status 415, with this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

impl Version {
    /// By the request's `Content-Type`; without one it is 1.0, as Prometheus has it. Parameters other than `proto` mean nothing.
    pub fn of_content_type(header: Option<&str>) -> Result<Version, Unsupported> {
        let header = header.map_or("", str::trim);
        if header.is_empty() {
            return Ok(Version::V1);
        }
        let (media_type, parameters) = header.split_once(';').unwrap_or((header, ""));
        if !media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(Unsupported(format!("content type {header:.100} is not supported; send {MEDIA_TYPE}")));
        }
        let mut version = Version::V1;
        for parameter in parameters.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()) {
            let Some((name, value)) = parameter.split_once('=') else {
                return Err(Unsupported(format!("content type {header:.100} has a parameter without a value")));
            };
            if !name.trim().eq_ignore_ascii_case("proto") {
                continue;
            }
            let message = value.trim().trim_matches('"');
            version = match MESSAGES.into_iter().find(|(_, name)| *name == message) {
                Some((version, _)) => version,
                None => {
                    let known = MESSAGES.map(|(_, name)| name).join(" and ");
                    return Err(Unsupported(format!("message {message:.100} is not supported; supported are {known}")));
                }
            };
        }
        Ok(version)
    }
}

/// Takes `snappy`, and nothing at all, which Prometheus takes for snappy.
pub fn check_encoding(header: Option<&str>) -> Result<(), Unsupported> {
    let header = header.map_or("", str::trim);
    if header.is_empty() || header.eq_ignore_ascii_case("snappy") {
        return Ok(());
    }
    Err(Unsupported(format!("content encoding {header:.100} is not supported; send snappy")))
}

/// A request of which nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Status 400.
    Broken(String),
    /// Status 413: it is, or would become, larger than allowed.
    TooLarge(String),
}

impl Malformed {
    pub fn status(&self) -> u16 {
        match self {
            Malformed::Broken(_) => 400,
            Malformed::TooLarge(_) => 413,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Malformed::Broken(text) | Malformed::TooLarge(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Malformed {}

impl From<crate::wire::Malformed> for Malformed {
    fn from(error: crate::wire::Malformed) -> Malformed {
        Malformed::Broken(error.to_string())
    }
}

/// What a byte of snappy can become at most: a copy of 64 bytes takes three, and no element does better.
const SNAPPY_RATIO_MAX: usize = 32;

/// Unpacks snappy's block format. The length that the block claims is checked before anything is allocated: against `bytes_max`,
/// and against what so few bytes can become.
pub fn unpack(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Malformed> {
    if body.starts_with(b"\xff\x06\x00\x00sNaPpY") {
        return Err(Malformed::Broken("the body is in snappy's stream format; remote write takes its block format".into()));
    }
    if body.is_empty() {
        return Err(Malformed::Broken("the body is empty; a packed request of nothing is one byte".into()));
    }
    let broken = |error: snap::Error| Malformed::Broken(format!("the body is no snappy block: {error}"));
    let claimed = snap::raw::decompress_len(body).map_err(broken)?;
    if claimed > bytes_max {
        return Err(Malformed::TooLarge(format!("the body unpacks to {claimed} bytes; at most {bytes_max} are taken")));
    }
    if claimed > body.len().saturating_mul(SNAPPY_RATIO_MAX) {
        let len = body.len();
        return Err(Malformed::Broken(format!("the body is no snappy block: its {len} bytes cannot become {claimed}")));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(broken)
}

/// What is read of a request.
#[derive(Clone, Debug)]
pub struct Options {
    /// Labels of a series, its name among them.
    pub label_names_max: usize,
    pub label_name_bytes_max: usize,
    pub label_value_bytes_max: usize,
    /// Strings of a request of 2.0.
    pub symbols_max: usize,
    /// Buckets, spans and bounds of a native histogram, all together.
    pub buckets_max: usize,
    /// Names of metrics and labels are of the classic alphabet only (`[a-zA-Z_:][a-zA-Z0-9_:]*`), not any UTF-8.
    pub classic_names: bool,
    /// Bytes of lines that a request may become.
    pub out_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            label_names_max: 64,
            label_name_bytes_max: 1 << 10,
            label_value_bytes_max: 8 << 10,
            symbols_max: 1 << 20, // 16 MiB of slices
            buckets_max: 10_000,
            classic_names: false,
            out_bytes_max: 256 << 20, // 32 MiB of request, each series written in full
        }
    }
}

/// Why a series or one of its samples was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    LabelsNotSorted,
    RepeatedLabel,
    EmptyLabelName,
    EmptyLabelValue,
    NoMetricName,
    BadName,
    NotUtf8,
    TooManyLabels,
    LabelNameTooLong,
    LabelValueTooLong,
    /// 2.0: label references come in pairs.
    OddLabelRefs,
    /// 2.0: a reference beyond the table of symbols.
    SymbolOutOfRange,
    /// 2.0: neither a sample nor a histogram nor an exemplar.
    EmptySeries,
    OutOfOrder,
    DuplicateTime,
    TimeOutOfRange,
    BadHistogram,
    BadExemplar,
    /// Out: the line is no sample.
    NoSample,
    /// Out: a sample without a value.
    NoValue,
    /// Out: Prometheus has no deltas.
    DeltaTemporality,
    /// Out: an exponential histogram coarser than any schema.
    ScaleTooSmall,
}

impl Reason {
    pub const ALL: [Reason; 22] = [
        Reason::LabelsNotSorted,
        Reason::RepeatedLabel,
        Reason::EmptyLabelName,
        Reason::EmptyLabelValue,
        Reason::NoMetricName,
        Reason::BadName,
        Reason::NotUtf8,
        Reason::TooManyLabels,
        Reason::LabelNameTooLong,
        Reason::LabelValueTooLong,
        Reason::OddLabelRefs,
        Reason::SymbolOutOfRange,
        Reason::EmptySeries,
        Reason::OutOfOrder,
        Reason::DuplicateTime,
        Reason::TimeOutOfRange,
        Reason::BadHistogram,
        Reason::BadExemplar,
        Reason::NoSample,
        Reason::NoValue,
        Reason::DeltaTemporality,
        Reason::ScaleTooSmall,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Reason::LabelsNotSorted => "labels_not_sorted",
            Reason::RepeatedLabel => "repeated_label",
            Reason::EmptyLabelName => "empty_label_name",
            Reason::EmptyLabelValue => "empty_label_value",
            Reason::NoMetricName => "no_metric_name",
            Reason::BadName => "bad_name",
            Reason::NotUtf8 => "not_utf8",
            Reason::TooManyLabels => "too_many_labels",
            Reason::LabelNameTooLong => "label_name_too_long",
            Reason::LabelValueTooLong => "label_value_too_long",
            Reason::OddLabelRefs => "odd_label_refs",
            Reason::SymbolOutOfRange => "symbol_out_of_range",
            Reason::EmptySeries => "empty_series",
            Reason::OutOfOrder => "out_of_order",
            Reason::DuplicateTime => "duplicate_time",
            Reason::TimeOutOfRange => "time_out_of_range",
            Reason::BadHistogram => "bad_histogram",
            Reason::BadExemplar => "bad_exemplar",
            Reason::NoSample => "no_sample",
            Reason::NoValue => "no_value",
            Reason::DeltaTemporality => "delta_temporality",
            Reason::ScaleTooSmall => "scale_too_small",
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Written, as the reply's headers say.
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
    /// Samples, histograms and exemplars that were refused; a series that has none of them counts as one.
    pub rejected: Vec<(Reason, u64)>,
    /// Of the first that was refused: which series, and the rule.
    pub first_error: Option<String>,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// For people; empty where all went well.
    pub text: String,
}

/// Says what was written, with the headers that 2.0 asks for. Nothing but a request of which every part was written is a success.
pub fn reply(read: &Result<Received, Malformed>) -> Reply {
    match read {
        Ok(received) => {
            let (status, text) = match received.rejected.is_empty() {
                true => (204, String::new()),
                false => (400, refusal_text(received)),
            };
            Reply { status, headers: written_headers([received.samples, received.histograms, received.exemplars]), text }
        }
        Err(error) => Reply { status: error.status(), headers: written_headers([0; 3]), text: error.to_string() },
    }
}

/// The reply where what was read could not be kept: nothing is written, the sender shall ask again.
pub fn reply_busy(text: &str, retry_after_seconds: u64) -> Reply {
    let mut headers = written_headers([0; 3]);
    headers.push(("Retry-After", retry_after_seconds.to_string()));
    Reply { status: 503, headers, text: text.to_owned() }
}

/// The reply to a type or an encoding that is not supported.
pub fn reply_unsupported(unsupported: &Unsupported) -> Reply {
    Reply { status: 415, headers: Vec::new(), text: unsupported.0.clone() }
}

fn written_headers(counts: [u64; 3]) -> Vec<(&'static str, String)> {
    WRITTEN_HEADERS.into_iter().zip(counts.map(|count| count.to_string())).collect()
}

/// Samples, histograms, exemplars.
pub const WRITTEN_HEADERS: [&str; 3] = [
    "X-Prometheus-Remote-Write-Samples-Written",
    "X-Prometheus-Remote-Write-Histograms-Written",
    "X-Prometheus-Remote-Write-Exemplars-Written",
];

fn refusal_text(received: &Received) -> String {
    let reasons: Vec<String> = received.rejected.iter().map(|(reason, count)| format!("{count} {}", reason.name())).collect();
    let total: u64 = received.rejected.iter().map(|(_, count)| count).sum();
    let first = received.first_error.as_deref().unwrap_or_default();
    format!("{total} refused: {}; the first: {first}", reasons.join(", "))
}

/// The headers of a request that a sender must set, and that its users must not.
pub fn headers(version: Version, user_agent: &str) -> [(&'static str, String); 4] {
    let (content_type, number) = match version {
        Version::V1 => (MEDIA_TYPE.to_owned(), "0.1.0"),
        Version::V2 => (format!("{MEDIA_TYPE};proto={}", MESSAGES[1].1), "2.0.0"),
    };
    [
        ("Content-Encoding", "snappy".to_owned()),
        ("Content-Type", content_type),
        ("X-Prometheus-Remote-Write-Version", number.to_owned()),
        ("User-Agent", user_agent.to_owned()),
    ]
}

/// What a sender does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Done,
    /// Later, with back-off and heeding `Retry-After`.
    Retry,
    /// Never again: the answer's text says why.
    Drop,
    /// Again as 1.0.
    FallBack,
}

/// Reads an answer's status. `has_written_headers`: it has at least one of [`WRITTEN_HEADERS`]; a success of 2.0 without any comes
/// from a receiver of 1.0 that did not look at the type and read nothing.
pub fn after(version: Version, status: u16, has_written_headers: bool) -> After {
    match (status, version) {
        (200..=299, Version::V2) if !has_written_headers => After::FallBack,
        (200..=299, _) => After::Done,
        (415, Version::V2) => After::FallBack,
        (429 | 500..=599, _) => After::Retry,
        _ => After::Drop,
    }
}
