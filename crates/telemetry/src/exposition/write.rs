//! Writes expositions: families of samples as text 0.0.4, OpenMetrics 1.0 or protobuf.
//!
//! In: [`Family`]s with flat samples, `x_bucket` and `x_count` as series of their own, in the order they should come. Out: a body, and
//! the Content-Type is [`Format::content_type`]. What was written reads back as the same samples, bit for bit; what a format has no
//! word for is left out: stale markers everywhere, exemplars and starts in text, native histograms but their count and sum in both
//! texts. Written as prometheus/common expfmt does; escapes are `\\`, `\n` and, in label values, `\"`. Bound: the output is at most a few times its input.

use super::lines;
pub use super::lines::Exemplar;
use super::media::{Escaping, Format};
use super::number;
use crate::histogram::{Buckets, Count, Histogram, ResetHint, Side};
use crate::remote::convert;
use crate::sample::{STALE, Type};
use crate::wire;
use flow::time::TimeParser;
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Samples of one metric and what is known of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// With or without `_total`, `_info`.
    pub name: String,
    pub kind: Type,
    pub help: String,
    /// Written where the name ends with it, as OpenMetrics wants.
    pub unit: String,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The series' whole name: `x_total`, `x_bucket`.
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: Value,
    pub at: Option<UnixNanos>,
    pub start: Option<UnixNanos>,
    pub exemplars: Vec<Exemplar>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Double(f64),
    Native(Histogram),
}

impl Default for Value {
    fn default() -> Value {
        Value::Double(0.0)
    }
}

/// Exemplars of a record of a sample, oldest first. `json`: its member `exemplars`.
pub fn exemplars_of(json: &[u8], sample_at: UnixNanos, times: &mut TimeParser) -> Vec<Exemplar> {
    let found = convert::exemplars(json, sample_at.0.div_euclid(1_000_000), times);
    let exemplar = |one: convert::Exemplar| {
        let at = Some(UnixNanos(one.at_ms.saturating_mul(1_000_000)));
        Exemplar { labels: one.labels, value: one.value, at }
    };
    found.into_iter().map(exemplar).collect()
}

/// Appends a whole body.
pub fn write(families: &[Family], format: Format, escaping: Escaping, out: &mut Vec<u8>) {
    for family in families {
        match format {
            Format::Text => text(family, escaping, out),
            Format::OpenMetrics => openmetrics(family, escaping, out),
            Format::Protobuf => protobuf(family, escaping, out),
        }
    }
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
}

/// What becomes of a name: prometheus/common model.EscapeName.
pub fn escape_name(name: &str, escaping: Escaping) -> Cow<'_, str> {
    let is_legacy = lines::name_len(name.as_bytes(), true) == name.len() && !name.is_empty();
    if name.is_empty() || escaping == Escaping::AllowUtf8 || is_legacy && escaping != Escaping::Dots {
        return name.into();
    }
    let mut out = String::from(if escaping == Escaping::Values { "U__" } else { "" });
    for (at, letter) in name.char_indices() {
        let stays = letter == '_' || letter == ':' || letter.is_ascii_alphabetic() || letter.is_ascii_digit() && at > 0;
        match (escaping, letter) {
            (Escaping::Dots | Escaping::Values, '_') => out.push_str("__"),
            (Escaping::Dots, '.') => out.push_str("_dot_"),
            _ if stays => out.push(letter),
            (Escaping::Dots, _) => out.push_str("__"),
            (Escaping::Values, _) => out.push_str(&format!("_{:x}_", u32::from(letter))),
            _ => out.push('_'),
        }
    }
    out.into()
}

fn is_stale(value: &Value) -> bool {
    matches!(value, Value::Double(value) if value.to_bits() == STALE)
}

/// The family's name without what OpenMetrics adds to its samples.
fn stem(family: &Family) -> &str {
    let name = family.name.as_str();
    match family.kind {
        Type::Counter => name.strip_suffix("_total").unwrap_or(name),
        Type::Info => name.strip_suffix("_info").unwrap_or(name),
        _ => name,
    }
}

/// Samples that have a family of their own in Prometheus' format, which knows no such suffixes.
const APART: [&str; 3] = ["_created", "_gsum", "_gcount"];

fn text(family: &Family, escaping: Escaping, out: &mut Vec<u8>) {
    let stem = stem(family);
    let is_apart =
        |sample: &Sample| sample.name.strip_prefix(stem).is_some_and(|suffix| APART.contains(&suffix)) && sample.name != family.name;
    let (told, kind) = match family.kind {
        Type::Counter | Type::Info => {
            let first = family.samples.iter().find(|sample| !is_apart(sample)).map_or(family.name.as_str(), |sample| &sample.name);
            (first, if family.kind == Type::Counter { "counter" } else { "gauge" })
        }
        Type::Gauge | Type::StateSet => (stem, "gauge"),
        Type::Histogram | Type::GaugeHistogram => (stem, "histogram"),
        Type::Summary => (stem, "summary"),
        Type::Unknown => (stem, "untyped"),
    };
    put_comment(out, "HELP", &escape_name(told, escaping), |out| put_escaped(out, &family.help, false));
    put_comment(out, "TYPE", &escape_name(told, escaping), |out| out.extend_from_slice(kind.as_bytes()));
    let lines = |out: &mut Vec<u8>, sample: &Sample| {
        each_plain(sample, |name, label, value| {
            put_series(out, &escape_name(name, escaping), sample, label, escaping);
            out.push(b' ');
            number::put(out, value);
            if let Some(at) = sample.at {
                out.extend_from_slice(format!(" {}", at.0.div_euclid(1_000_000)).as_bytes());
            }
            out.push(b'\n');
        });
    };
    for sample in family.samples.iter().filter(|sample| !is_apart(sample)) {
        lines(out, sample);
    }
    for suffix in APART {
        let of_it = |sample: &&Sample| is_apart(sample) && sample.name.ends_with(suffix);
        if let Some(first) = family.samples.iter().find(of_it) {
            put_comment(out, "TYPE", &escape_name(&first.name, escaping), |out| out.extend_from_slice(b"gauge"));
            family.samples.iter().filter(of_it).for_each(|sample| lines(out, sample));
        }
    }
}

fn openmetrics(family: &Family, escaping: Escaping, out: &mut Vec<u8>) {
    let stem = stem(family);
    // A counter that does not end in _total is none here.
    let is_counter =
        family.samples.iter().all(|sample| sample.name.strip_prefix(stem).is_some_and(|suffix| matches!(suffix, "_total" | "_created")));
    let is_info = family.samples.iter().all(|sample| sample.name.strip_prefix(stem) == Some("_info"));
    let (told, kind) = match family.kind {
        Type::Counter if !is_counter => (family.samples.first().map_or(stem, |sample| &sample.name), Type::Unknown),
        Type::Info if !is_info => (family.samples.first().map_or(stem, |sample| &sample.name), Type::Unknown),
        kind => (stem, kind),
    };
    let name = escape_name(told, escaping);
    put_comment(out, "HELP", &name, |out| put_escaped(out, &family.help, true));
    put_comment(out, "TYPE", &name, |out| out.extend_from_slice(kind.name().as_bytes()));
    if !family.unit.is_empty() && name.strip_suffix(family.unit.as_str()).is_some_and(|stem| stem.len() > 1 && stem.ends_with('_')) {
        put_comment(out, "UNIT", &name, |out| out.extend_from_slice(family.unit.as_bytes()));
    }
    let said: HashSet<(&str, &[(String, String)])> = family
        .samples
        .iter()
        .filter(|sample| sample.name.ends_with("_created"))
        .map(|sample| (sample.name.as_str(), sample.labels.as_slice()))
        .collect();
    let created = format!("{stem}_created");
    let has_starts = matches!(kind, Type::Counter | Type::Histogram | Type::Summary);
    for (n, sample) in family.samples.iter().enumerate() {
        each_plain(sample, |name, label, value| {
            put_series(out, &escape_name(name, escaping), sample, label, escaping);
            out.push(b' ');
            let is_count = ["_count", "_bucket", "_gcount"].iter().any(|suffix| name.ends_with(suffix));
            if is_count && value == value.trunc() && (0.0..=9e15).contains(&value) && value.is_sign_positive() {
                out.extend_from_slice((value as u64).to_string().as_bytes());
            } else {
                number::put_openmetrics(out, value);
            }
            if let Some(at) = sample.at {
                out.push(b' ');
                put_seconds(out, at);
            }
            if let Some(exemplar) = sample.exemplars.last() {
                put_exemplar(out, exemplar, escaping);
            }
            out.push(b'\n');
        });
        // The start of a metric is a sample of its own, after the others of the same labels.
        let Some(start) = sample.start.filter(|_| has_starts && !is_stale(&sample.value)) else { continue };
        let own = own_labels(family.kind, &sample.labels);
        let goes_on = family.samples.get(n + 1).is_some_and(|next| next.start.is_some() && own_labels(family.kind, &next.labels) == own);
        let owned: Vec<(String, String)> = own.into_iter().cloned().collect();
        if !goes_on && !said.contains(&(created.as_str(), owned.as_slice())) {
            let start_of = Sample { labels: owned, ..Sample::default() };
            put_series(out, &escape_name(&created, escaping), &start_of, None, escaping);
            out.push(b' ');
            put_seconds(out, start);
            out.push(b'\n');
        }
    }
}

fn own_labels(kind: Type, labels: &[(String, String)]) -> Vec<&(String, String)> {
    let apart = match kind {
        Type::Histogram | Type::GaugeHistogram => "le",
        Type::Summary => "quantile",
        _ => "",
    };
    labels.iter().filter(|(name, _)| name != apart).collect()
}

/// The plain samples of a sample: itself, or what a native histogram says without its buckets.
fn each_plain(sample: &Sample, mut put: impl FnMut(&str, Option<(&str, f64)>, f64)) {
    match &sample.value {
        Value::Double(value) if value.to_bits() == STALE => {}
        Value::Double(value) => put(&sample.name, None, *value),
        Value::Native(native) => {
            put(&format!("{}_bucket", sample.name), Some(("le", f64::INFINITY)), native.count.double());
            put(&format!("{}_sum", sample.name), None, native.sum);
            put(&format!("{}_count", sample.name), None, native.count.double());
        }
    }
}

fn put_comment(out: &mut Vec<u8>, word: &str, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(format!("# {word} ").as_bytes());
    put_name(out, name, true);
    out.push(b' ');
    fill(out);
    out.push(b'\n');
}

fn put_name(out: &mut Vec<u8>, name: &str, metric: bool) {
    if !name.is_empty() && lines::name_len(name.as_bytes(), metric) == name.len() {
        return out.extend_from_slice(name.as_bytes());
    }
    out.push(b'"');
    put_escaped(out, name, true);
    out.push(b'"');
}

/// `\`, line ends and, if asked, quotes.
fn put_escaped(out: &mut Vec<u8>, text: &str, quotes: bool) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(br"\\"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'"' if quotes => out.extend_from_slice(br#"\""#),
            _ => out.push(byte),
        }
    }
}

fn put_series(out: &mut Vec<u8>, name: &str, sample: &Sample, extra: Option<(&str, f64)>, escaping: Escaping) {
    let is_quoted = lines::name_len(name.as_bytes(), true) != name.len();
    let mut separator = b'{';
    if is_quoted {
        out.push(b'{');
        separator = b',';
    }
    put_name(out, name, true);
    for (name, value) in &sample.labels {
        out.push(separator);
        put_name(out, &escape_name(name, escaping), false);
        out.extend_from_slice(b"=\"");
        put_escaped(out, value, true);
        out.push(b'"');
        separator = b',';
    }
    if let Some((name, value)) = extra {
        out.push(separator);
        out.extend_from_slice(format!("{name}=\"").as_bytes());
        number::put_label(out, value);
        out.push(b'"');
        separator = b',';
    }
    if separator == b',' {
        out.push(b'}');
    }
}

/// Seconds with as many digits of a fraction as there are.
fn put_seconds(out: &mut Vec<u8>, at: UnixNanos) {
    let (sign, nanos) = if at.0 < 0 { ("-", at.0.unsigned_abs()) } else { ("", at.0.unsigned_abs()) };
    let (whole, fraction) = (nanos / NANOS_PER_SECOND as u64, nanos % NANOS_PER_SECOND as u64);
    let text = format!("{sign}{whole}.{fraction:09}");
    let trimmed = text.trim_end_matches('0');
    out.extend_from_slice(trimmed.as_bytes());
    if trimmed.ends_with('.') {
        out.push(b'0');
    }
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar, escaping: Escaping) {
    out.extend_from_slice(b" # {");
    for (n, (name, value)) in exemplar.labels.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put_name(out, &escape_name(name, escaping), false);
        out.extend_from_slice(b"=\"");
        put_escaped(out, value, true);
        out.push(b'"');
    }
    out.extend_from_slice(b"} ");
    number::put_openmetrics(out, exemplar.value);
    if let Some(at) = exemplar.at {
        out.push(b' ');
        put_seconds(out, at);
    }
}

/// What becomes one `Metric` message: the samples of a family that differ in `le` or `quantile` only.
#[derive(Default)]
struct Point<'a> {
    labels: Vec<&'a (String, String)>,
    at: Option<UnixNanos>,
    start: Option<UnixNanos>,
    value: f64,
    count: f64,
    sum: f64,
    /// Bound or quantile, and what is there.
    steps: Vec<(f64, f64, Option<&'a Exemplar>)>,
    exemplar: Option<&'a Exemplar>,
    native: Option<&'a Sample>,
}

/// Name, labels and time.
type PointKey<'a> = (&'a str, Vec<&'a (String, String)>, Option<UnixNanos>);

fn protobuf(family: &Family, escaping: Escaping, out: &mut Vec<u8>) {
    let is_complex = matches!(family.kind, Type::Histogram | Type::GaugeHistogram | Type::Summary);
    // Counters have their whole name in this format; each series name that is not of the family's shape is a family of its own.
    let (mut names, mut points) = (Vec::<&str>::new(), Vec::<Vec<Point<'_>>>::new());
    let mut groups: HashMap<&str, usize> = HashMap::new();
    let mut index: HashMap<PointKey<'_>, (usize, usize)> = HashMap::new();
    for sample in family.samples.iter().filter(|sample| !is_stale(&sample.value)) {
        let suffix = sample.name.strip_prefix(&family.name).filter(|_| is_complex);
        let part = suffix.filter(|suffix| match family.kind {
            Type::Summary => matches!(*suffix, "" | "_sum" | "_count"),
            _ => matches!(*suffix, "" | "_bucket" | "_sum" | "_count" | "_gsum" | "_gcount"),
        });
        let name = if part.is_some() { family.name.as_str() } else { sample.name.as_str() };
        let own = if part.is_some() { own_labels(family.kind, &sample.labels) } else { sample.labels.iter().collect() };
        let (group, at) = *index.entry((name, own.clone(), sample.at)).or_insert_with(|| {
            let group = *groups.entry(name).or_insert_with(|| {
                names.push(name);
                points.push(Vec::new());
                names.len() - 1
            });
            points[group].push(Point { labels: own, at: sample.at, ..Point::default() });
            (group, points[group].len() - 1)
        });
        let point = &mut points[group][at];
        point.start = point.start.or(sample.start);
        let Value::Double(value) = sample.value else {
            point.native = Some(sample);
            continue;
        };
        let step =
            |label: &str| sample.labels.iter().find(|(name, _)| name == label).and_then(|(_, value)| number::parse(value.as_bytes()));
        match part.unwrap_or("none") {
            "_count" | "_gcount" => point.count = value,
            "_sum" | "_gsum" => point.sum = value,
            "_bucket" => point.steps.extend(step("le").map(|bound| (bound, value, sample.exemplars.last()))),
            "" => point.steps.extend(step("quantile").map(|quantile| (quantile, value, None))),
            _ => (point.value, point.exemplar) = (value, sample.exemplars.last()),
        }
    }
    for (name, points) in names.into_iter().zip(points) {
        let kind = if is_complex && name != family.name { Type::Unknown } else { family.kind };
        let mut message = Vec::new();
        wire::put_bytes(&mut message, 1, escape_name(name, escaping).as_bytes());
        wire::put_bytes(&mut message, 2, family.help.as_bytes());
        let (number, field) = match kind {
            Type::Counter => (0, 3),
            Type::Gauge | Type::Info | Type::StateSet => (1, 2),
            Type::Summary => (2, 4),
            Type::Unknown => (3, 5),
            Type::Histogram => (4, 7),
            Type::GaugeHistogram => (5, 7),
        };
        wire::put_varint(&mut message, 3, number);
        for point in &points {
            wire::put_message(&mut message, 4, |out| put_metric(out, point, kind, field, escaping));
        }
        let told = name.strip_suffix("_total").filter(|_| kind == Type::Counter).unwrap_or(name);
        if !family.unit.is_empty() && told.strip_suffix(&family.unit).is_some_and(|stem| stem.len() > 1 && stem.ends_with('_')) {
            wire::put_bytes(&mut message, 5, family.unit.as_bytes());
        }
        wire::put_raw_varint(out, message.len() as u64);
        out.extend_from_slice(&message);
    }
}

fn put_metric(out: &mut Vec<u8>, point: &Point<'_>, kind: Type, field: u32, escaping: Escaping) {
    for (name, value) in &point.labels {
        put_pair(out, name, value, escaping);
    }
    if let Some(at) = point.at {
        wire::put_varint(out, 6, at.0.div_euclid(1_000_000) as u64);
    }
    wire::put_message(out, field, |out| match kind {
        Type::Histogram | Type::GaugeHistogram => put_histogram(out, point, escaping),
        Type::Summary => {
            wire::put_varint(out, 1, point.count as u64);
            wire::put_double(out, 2, point.sum);
            for (quantile, value, _) in &point.steps {
                wire::put_message(out, 3, |out| {
                    wire::put_double(out, 1, *quantile);
                    wire::put_double(out, 2, *value);
                });
            }
            put_timestamp(out, 4, point.start);
        }
        Type::Counter => {
            wire::put_double(out, 1, point.value);
            if let Some(exemplar) = point.exemplar {
                put_exemplar_message(out, 2, exemplar, escaping);
            }
            put_timestamp(out, 3, point.start);
        }
        _ => wire::put_double(out, 1, point.value),
    });
}

fn put_histogram(out: &mut Vec<u8>, point: &Point<'_>, escaping: Escaping) {
    let is_whole = |count: f64| count >= 0.0 && count == count.trunc() && count <= 9e15;
    let put_count = |out: &mut Vec<u8>, whole: u32, float: u32, count: f64| match is_whole(count) {
        true => wire::put_varint(out, whole, count as u64),
        false => wire::put_double(out, float, count),
    };
    let native = point.native.and_then(|sample| if let Value::Native(native) = &sample.value { Some((native, sample)) } else { None });
    match native {
        None => {
            put_count(out, 1, 4, point.count);
            wire::put_double(out, 2, point.sum);
        }
        Some((native, sample)) => put_native(out, native, &sample.exemplars, escaping),
    }
    for (bound, count, exemplar) in &point.steps {
        wire::put_message(out, 3, |out| {
            put_count(out, 1, 4, *count);
            wire::put_double(out, 2, *bound);
            if let Some(exemplar) = exemplar {
                put_exemplar_message(out, 3, exemplar, escaping);
            }
        });
    }
    put_timestamp(out, 15, point.start);
}

fn put_native(out: &mut Vec<u8>, native: &Histogram, exemplars: &[Exemplar], escaping: Escaping) {
    for (count, whole, float) in [(native.count, 1, 4), (native.zero_count, 7, 8)] {
        match count {
            Count::Int(count) => wire::put_varint(out, whole, count),
            Count::Float(count) => wire::put_double(out, float, count),
        }
    }
    wire::put_double(out, 2, native.sum);
    wire::put_zigzag(out, 5, i64::from(native.schema));
    wire::put_double(out, 6, native.zero_threshold);
    for (side, first) in [(&native.negative, 9), (&native.positive, 12)] {
        put_side(out, side, first);
    }
    let is_empty = native.positive.spans.is_empty() && native.negative.spans.is_empty() && native.zero_threshold == 0.0;
    if is_empty && native.reset_hint != ResetHint::Yes {
        // A span of nothing tells a native histogram from a classic one.
        wire::put_message(out, 12, |out| wire::put_zigzag(out, 1, 0));
    }
    for exemplar in exemplars {
        put_exemplar_message(out, 16, exemplar, escaping);
    }
}

fn put_side(out: &mut Vec<u8>, side: &Side, first: u32) {
    for span in &side.spans {
        wire::put_message(out, first, |out| {
            wire::put_zigzag(out, 1, i64::from(span.offset));
            wire::put_varint(out, 2, u64::from(span.len));
        });
    }
    match &side.buckets {
        Buckets::Deltas(deltas) => deltas.iter().for_each(|delta| wire::put_zigzag(out, first + 1, *delta)),
        Buckets::Counts(counts) => counts.iter().for_each(|count| wire::put_double(out, first + 2, *count)),
    }
}

fn put_pair(out: &mut Vec<u8>, name: &str, value: &str, escaping: Escaping) {
    wire::put_message(out, 1, |out| {
        wire::put_bytes(out, 1, escape_name(name, escaping).as_bytes());
        wire::put_bytes(out, 2, value.as_bytes());
    });
}

fn put_exemplar_message(out: &mut Vec<u8>, number: u32, exemplar: &Exemplar, escaping: Escaping) {
    wire::put_message(out, number, |out| {
        for (name, value) in &exemplar.labels {
            put_pair(out, name, value, escaping);
        }
        wire::put_double(out, 2, exemplar.value);
        put_timestamp(out, 3, exemplar.at);
    });
}

fn put_timestamp(out: &mut Vec<u8>, number: u32, at: Option<UnixNanos>) {
    let Some(at) = at else { return };
    wire::put_message(out, number, |out| {
        wire::put_varint(out, 1, at.0.div_euclid(NANOS_PER_SECOND) as u64);
        wire::put_varint(out, 2, at.0.rem_euclid(NANOS_PER_SECOND) as u64);
    });
}

#[cfg(test)]
mod tests;
