//! The record of a sample: one line of JSON, first who it is of, then what it says.
//!
//! ```json
//! {"metric":"up","type":"gauge","labels":{"instance":"a:1","job":"x"},"timestamp":"2026-11-28T01:02:03.123Z","value":1.0}
//! ```
//! Everything up to the labels' end is the *series part*: the same bytes for each sample of a series, so writers copy it and readers
//! look it up instead of reading it. Members: `metric`, `type`, `unit`, `labels`, and of OTLP `temporality`, `monotonic`,
//! `resource`, `scope`; `labels` is there and is last. The *sample part*: `timestamp`, then `value` or `histogram`, and what else is
//! known of the sample. A value with a fraction or an exponent is a double (`1.0`), without an integer of OTLP. What JSON has no
//! number for is text: `"NaN"`, `"+Inf"`, `"-Inf"`, `"stale"` (the marker that a series has ended), and any other NaN with its bits,
//! `"NaN(7ff4000000000001)"`; so floats come back bit for bit.
//!
//! Steps may add members and move none into the series part, so a line that is not as written here is read member by member.

use flow::escape::escape_into;
use flow::units::{NANOS_PER_SECOND, UnixNanos, days_from_civil};
use serde_json::value::Value as Json;

/// The value that says: this series has ended. <https://prometheus.io/docs/specs/prw/remote_write_spec>
pub const STALE: u64 = 0x7ff0_0000_0000_0002;
/// The NaN that Prometheus writes for any other.
pub const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

/// What a series measures, as OpenMetrics names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    #[default]
    Unknown,
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
}

impl Type {
    pub const ALL: [Type; 8] =
        [Type::Unknown, Type::Counter, Type::Gauge, Type::Histogram, Type::GaugeHistogram, Type::Summary, Type::Info, Type::StateSet];

    pub fn name(self) -> &'static str {
        match self {
            Type::Unknown => "unknown",
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
            Type::GaugeHistogram => "gaugehistogram",
            Type::Summary => "summary",
            Type::Info => "info",
            Type::StateSet => "stateset",
        }
    }

    /// `untyped` is what the text format of Prometheus calls `unknown`.
    pub fn parse(name: &[u8]) -> Option<Type> {
        let named = Type::ALL.into_iter().find(|kind| kind.name().as_bytes() == name);
        named.or_else(|| (name == b"untyped").then_some(Type::Unknown))
    }
}

/// Writes the series part of a sample of Prometheus: `{"metric":…,"type":…,"labels":{…}`, without what is empty.
///
/// `labels`: sorted by name, without `__name__`, none empty.
pub fn put_series<'a>(out: &mut Vec<u8>, metric: &str, kind: Type, unit: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) {
    out.extend_from_slice(b"{\"metric\":\"");
    escape_into(metric.as_bytes(), out);
    out.extend_from_slice(b"\",\"type\":\"");
    out.extend_from_slice(kind.name().as_bytes());
    out.push(b'"');
    if !unit.is_empty() {
        out.extend_from_slice(b",\"unit\":");
        put_text(out, unit.as_bytes());
    }
    out.extend_from_slice(b",\"labels\":{");
    for (n, (name, value)) in labels.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put_text(out, name.as_bytes());
        out.push(b':');
        put_text(out, value.as_bytes());
    }
    out.push(b'}');
}

/// Writes a JSON string.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escape_into(text, out);
    out.push(b'"');
}

/// Writes `,"timestamp":"…"` once and copies it for samples of the same time.
#[derive(Clone, Debug)]
pub struct Stamp {
    at: UnixNanos,
    text: Vec<u8>,
}

impl Default for Stamp {
    fn default() -> Stamp {
        let mut stamp = Stamp { at: UnixNanos(0), text: Vec::new() };
        stamp.write();
        stamp
    }
}

impl Stamp {
    #[inline]
    pub fn put(&mut self, out: &mut Vec<u8>, at: UnixNanos) {
        if at != self.at {
            self.at = at;
            self.write();
        }
        out.extend_from_slice(&self.text);
    }

    fn write(&mut self) {
        self.text.clear();
        self.text.extend_from_slice(b",\"timestamp\":\"");
        self.text.extend_from_slice(self.at.rfc3339().as_bytes());
        self.text.push(b'"');
    }
}

/// Writes `,"value":…}` and the line's end.
#[inline]
pub fn put_value_end(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(b",\"value\":");
    put_double(out, value);
    out.extend_from_slice(b"}\n");
}

/// Writes a double as JSON, so that [`parse_double`] gives the same bits.
#[inline]
pub fn put_double(out: &mut Vec<u8>, value: f64) {
    let whole = value as u32;
    if f64::from(whole).to_bits() == value.to_bits() {
        return put_whole(out, whole);
    }
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        return;
    }
    match value.to_bits() {
        STALE => out.extend_from_slice(b"\"stale\""),
        NORMAL_NAN => out.extend_from_slice(b"\"NaN\""),
        bits if value.is_nan() => out.extend_from_slice(format!("\"NaN({bits:016x})\"").as_bytes()),
        _ if value > 0.0 => out.extend_from_slice(b"\"+Inf\""),
        _ => out.extend_from_slice(b"\"-Inf\""),
    }
}

/// Writes a count, which most samples are, as the double that it is: `17.0`.
#[inline]
fn put_whole(out: &mut Vec<u8>, mut value: u32) {
    let mut text = *b"0000000000.0"; // u32 has at most 10 digits
    let mut at = 9;
    loop {
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&text[at..]);
        }
        at -= 1;
    }
}

/// A number as it stands in a record.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Double(f64),
    Int(i64),
}

impl Number {
    pub fn double(self) -> f64 {
        match self {
            Number::Double(value) => value,
            Number::Int(value) => value as f64,
        }
    }

    /// Reads what [`put_double`] or an integer of OTLP wrote: a JSON number, or one of the texts.
    pub fn parse(json: &[u8]) -> Option<Number> {
        let text = std::str::from_utf8(json).ok()?;
        if let Some(inside) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            return parse_special(inside).map(Number::Double);
        }
        if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return None;
        }
        if text.contains(['.', 'e', 'E']) {
            return text.parse().ok().map(Number::Double);
        }
        text.parse().map(Number::Int).or_else(|_| text.parse().map(Number::Double)).ok()
    }
}

/// Of what is no JSON number.
pub fn parse_special(text: &str) -> Option<f64> {
    Some(match text {
        "NaN" => f64::from_bits(NORMAL_NAN),
        "stale" => f64::from_bits(STALE),
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        _ => {
            let bits = u64::from_str_radix(text.strip_prefix("NaN(")?.strip_suffix(')')?, 16).ok()?;
            Some(f64::from_bits(bits)).filter(|value| value.is_nan())?
        }
    })
}

/// A sample as a reader sees it.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The bytes of the series part: equal bytes are the same series. Without its closing brace.
    pub series: &'a [u8],
    pub at: UnixNanos,
    /// A single number; `None`: the sample is a histogram, a summary or has no value, see its line.
    pub value: Option<Number>,
    /// It says nothing more than time and value.
    pub is_plain: bool,
}

/// Who a sample is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    pub metric: String,
    pub kind: Type,
    pub unit: String,
    /// Sorted by name; values that are no text as JSON writes them.
    pub labels: Vec<(String, String)>,
    /// Everything else, as it stands: `temporality`, `resource`, what steps added.
    pub others: serde_json::Map<String, Json>,
}

impl Series {
    /// Reads a series part; `None`: it is none.
    pub fn parse(part: &[u8]) -> Option<Series> {
        let mut whole = part.to_vec();
        whole.push(b'}');
        let Json::Object(mut members) = serde_json::from_slice(&whole).ok()? else { return None };
        let Json::String(metric) = members.remove("metric")? else { return None };
        let text = |value: Option<Json>| if let Some(Json::String(text)) = value { text } else { String::new() };
        let kind = Type::parse(text(members.remove("type")).as_bytes()).unwrap_or_default();
        let unit = text(members.remove("unit"));
        let Json::Object(labels) = members.remove("labels").unwrap_or_else(|| Json::Object(Default::default())) else { return None };
        let mut labels: Vec<(String, String)> =
            labels.into_iter().map(|(name, value)| (name, if let Json::String(text) = value { text } else { value.to_string() })).collect();
        labels.sort_unstable();
        Some(Series { metric, kind, unit, labels, others: members })
    }
}

/// Members of the sample part; all others are of the series.
const SAMPLE_MEMBERS: [&[u8]; 10] =
    [b"timestamp", b"start", b"value", b"histogram", b"exponential", b"quantiles", b"count", b"sum", b"exemplars", b"flags"];

/// Whether a member of this name is of the sample part.
pub fn is_of_sample(name: &[u8]) -> bool {
    SAMPLE_MEMBERS.contains(&name)
}

/// Reads a line; `None`: it is no sample. `buffer` holds the series part of a line that is not as [`put_series`] writes it.
pub fn read<'a>(line: &'a [u8], times: &mut flow::time::TimeParser, buffer: &'a mut Vec<u8>) -> Option<Sample<'a>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if !line.starts_with(b"{\"metric\":\"") {
        return read_members(line, times, buffer);
    }
    match read_plain(line, times) {
        Some(sample) => Some(sample),
        None => read_members(line, times, buffer),
    }
}

/// `…},"timestamp":"…","value":…}` at the very end. The end of the line is the end of the record, so nothing inside of a label or a
/// nested object can look like it.
fn read_plain<'a>(line: &'a [u8], times: &mut flow::time::TimeParser) -> Option<Sample<'a>> {
    const MARK: &[u8] = b"},\"timestamp\":\"";
    const VALUE: &[u8] = b",\"value\":";
    let body = line.strip_suffix(b"}")?;
    let from = body.len().saturating_sub(MARK.len() + 40 + VALUE.len() + 30);
    let at = from + memchr::memmem::rfind(&body[from..], MARK)?;
    let (stamp, tail) = body[at + MARK.len()..].split_at(memchr::memchr(b'"', &body[at + MARK.len()..])?);
    let value = tail.strip_prefix(b"\"")?.strip_prefix(VALUE)?;
    let at_nanos = time(stamp, times)?;
    Some(Sample { series: &line[..=at], at: at_nanos, value: Some(Number::parse(value)?), is_plain: true })
}

/// A stamp of any year: samples may be of times that no log is.
fn time(stamp: &[u8], times: &mut flow::time::TimeParser) -> Option<UnixNanos> {
    times.parse(stamp, flow::fields::Kind::Text).or_else(|| far_time(stamp))
}

/// `2026-11-28T01:02:03.123Z`, as [`Stamp`] writes it.
#[cold]
fn far_time(stamp: &[u8]) -> Option<UnixNanos> {
    let text = std::str::from_utf8(stamp).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let part = |from: usize, to: usize| whole.get(from..to)?.parse::<u32>().ok();
    let (year, month, day) = (part(0, 4)? as i32, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let is_time = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !is_time || whole.len() != 19 || fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = fraction.parse::<i64>().ok()? * 10i64.pow(9 - fraction.len() as u32);
    let seconds = days_from_civil(year, month, day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos).map(UnixNanos)
}

/// Member by member, whatever their order.
fn read_members<'a>(line: &'a [u8], times: &mut flow::time::TimeParser, buffer: &'a mut Vec<u8>) -> Option<Sample<'a>> {
    buffer.clear();
    let (mut at, mut value, mut is_plain, mut is_metric) = (None, None, true, false);
    for (name, json) in members(line)? {
        match name {
            b"timestamp" => at = time(json.strip_prefix(b"\"")?.strip_suffix(b"\"")?, times),
            b"value" => value = Some(Number::parse(json)?),
            name if is_of_sample(name) => is_plain = false,
            name => {
                is_metric |= name == b"metric";
                buffer.push(if buffer.is_empty() { b'{' } else { b',' });
                buffer.push(b'"');
                buffer.extend_from_slice(name);
                buffer.extend_from_slice(b"\":");
                buffer.extend_from_slice(json);
            }
        }
    }
    is_metric.then_some(Sample { series: buffer, at: at?, value, is_plain })
}

/// The members of a JSON object: names as they stand between their quotes, and the bytes of values. `None`: it is no object, or
/// its brackets and quotes do not match; nothing else is checked.
pub fn members(line: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    let mut rest = line.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    while !rest.is_empty() {
        let name_len = string_len(rest)?;
        let name = &rest[1..name_len - 1];
        rest = rest[name_len..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let len = value_len(rest)?;
        found.push((name, rest[..len].trim_ascii_end()));
        rest = rest[len..].trim_ascii_start();
        match rest.strip_prefix(b",") {
            Some(more) if !more.is_empty() => rest = more.trim_ascii_start(),
            None if rest.is_empty() => {}
            _ => return None,
        }
    }
    Some(found)
}

/// Bytes of the string at the front, with its quotes.
fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    text.strip_prefix(b"\"")?;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Bytes of the value at the front, up to the comma or the end.
fn value_len(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                at += string_len(&text[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => break,
            _ => {}
        }
        at += 1;
    }
    (depth == 0 && at > 0).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(value: f64) -> Vec<u8> {
        let mut out = Vec::new();
        put_series(&mut out, "up", Type::Gauge, "", [("a", "x\"},\"timestamp\":\"y"), ("job", "b")].into_iter());
        Stamp::default().put(&mut out, UnixNanos(1_764_291_723_123_000_000));
        put_value_end(&mut out, value);
        out
    }

    #[test]
    fn a_sample_looks_like_this() {
        let want = r#"{"metric":"up","type":"gauge","labels":{"a":"x\"},\"timestamp\":\"y","job":"b"},"timestamp":"2025-11-28T01:02:03.123Z","value":3.0}"#;
        assert_eq!(String::from_utf8(line(3.0)).unwrap(), format!("{want}\n"));
        let (mut times, mut buffer) = (flow::time::TimeParser::new(), Vec::new());
        let written = line(3.0);
        let sample = read(&written, &mut times, &mut buffer).unwrap();
        assert!(sample.is_plain && sample.at == UnixNanos(1_764_291_723_123_000_000));
        let series = Series::parse(sample.series).unwrap();
        assert_eq!((series.metric.as_str(), series.kind, series.labels.len()), ("up", Type::Gauge, 2));
        assert_eq!(series.labels[0].1, "x\"},\"timestamp\":\"y");
    }

    #[test]
    fn times_of_any_year_come_back() {
        for nanos in [0, -1_000_000, 123_123_000_000, i64::MAX / 1_000_000 * 1_000_000, 4_200_000_000_000_000_001] {
            let mut out = Vec::new();
            put_series(&mut out, "m", Type::Gauge, "", [].into_iter());
            Stamp::default().put(&mut out, UnixNanos(nanos));
            put_value_end(&mut out, 1.0);
            let (mut times, mut buffer) = (flow::time::TimeParser::new(), Vec::new());
            assert_eq!(read(&out, &mut times, &mut buffer).map(|sample| sample.at), Some(UnixNanos(nanos)), "{nanos}");
        }
        assert_eq!(far_time(b"1970-13-01T00:00:00Z"), None);
    }

    #[test]
    fn members_that_steps_added_are_of_the_series() {
        let (mut times, mut buffer) = (flow::time::TimeParser::new(), Vec::new());
        let text = br#"{ "metric":"up","labels":{},"timestamp":"2025-11-28T01:02:03Z","value":"stale", "tenant" : "a" }"#;
        let sample = read(text, &mut times, &mut buffer).unwrap();
        assert_eq!(sample.series, br#"{"metric":"up","labels":{},"tenant":"a""#);
        assert_eq!(sample.value.unwrap().double().to_bits(), STALE);
        for other in ["{}", "{\"metric\":1", "[1]", "{\"value\":1,\"timestamp\":\"2025-11-28T01:02:03Z\"}", "{\"metric\":\"a\",}"] {
            assert!(read(other.as_bytes(), &mut times, &mut Vec::new()).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_double_comes_back_bit_for_bit(bits: u64, small in -1_000_000i64..1_000_000) {
            for value in [f64::from_bits(bits), small as f64, small as f64 / 100.0] {
                let written = line(value);
                let (mut times, mut buffer) = (flow::time::TimeParser::new(), Vec::new());
                let sample = read(&written, &mut times, &mut buffer).unwrap();
                prop_assert!(matches!(sample.value, Some(Number::Double(read)) if read.to_bits() == value.to_bits()));
                let json: Json = serde_json::from_slice(&written).unwrap();
                prop_assert!(!value.is_finite() || json["value"].as_f64().unwrap().to_bits() == value.to_bits());
            }
        }

        #[test]
        fn no_line_is_a_panic(bytes: Vec<u8>, text in "[{}\\[\\]\",:a\\\\ ]{0,40}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let mut buffer = Vec::new();
                let _ = read(bytes, &mut flow::time::TimeParser::new(), &mut buffer);
            }
        }
    }
}
