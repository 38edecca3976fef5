//! Reads the protobuf format: messages `io.prometheus.client.MetricFamily`, each with its length in front.
//!
//! In: a body. Out: samples, put by the [`Scraper`]. A classic histogram or a summary becomes the series that the text formats have,
//! a native histogram one sample. A series is looked up by the bytes of its labels, so that known ones are not decoded. Nesting is as
//! deep as the messages are, five; nothing is allocated beyond what the body holds. Source: prometheus/prometheus
//! prompb/io/prometheus/client/metrics.proto and model/textparse/protobufparse.go.

use super::lines::{Exemplar, Parsed};
use super::number;
use super::scraper::{Fault, Reason, Scraper, Value};
use crate::histogram::{Count, Half, Histogram, ResetHint, Span};
use crate::sample::{NORMAL_NAN, Type};
use crate::wire::{Field, Malformed, Message, read_varint, unzigzag};
use flow::units::{NANOS_PER_SECOND, UnixNanos};

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::new(Reason::Malformed, malformed.to_string())
    }
}

pub(super) fn read(scraper: &mut Scraper, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut rest = body;
    let mut buffers = Buffers::default();
    while !rest.is_empty() {
        let len = usize::try_from(read_varint(&mut rest)?).map_err(|_| Malformed)?;
        let (message, tail) = rest.split_at_checked(len).ok_or(Malformed)?;
        rest = tail;
        family(scraper, message, &mut buffers, out)?;
    }
    Ok(())
}

/// Reused from metric to metric.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    native: Histogram,
}

fn family(scraper: &mut Scraper, message: &[u8], buffers: &mut Buffers, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (mut name, mut unit, mut number) = ("", "", 0);
    let mut has_metrics = false;
    for field in Message::new(message) {
        match field? {
            (1, field) => name = field.text()?,
            (2, field) => _ = field.text()?,
            (3, field) => number = field.varint()?,
            (4, _) => has_metrics = true,
            (5, field) => unit = field.text()?,
            _ => {}
        }
    }
    if !has_metrics {
        return Ok(());
    }
    if name.is_empty() {
        return Err(Fault::new(Reason::NoName, "a metric family has a name"));
    }
    let kind = match number {
        0 => Type::Counter,
        1 => Type::Gauge,
        2 => Type::Summary,
        3 => Type::Unknown,
        4 => Type::Histogram,
        5 => Type::GaugeHistogram,
        _ => return Err(Fault::new(Reason::Malformed, format!("the type of {name:?} is {number}, which is none"))),
    };
    let stem = if kind == Type::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
    if !unit.is_empty() && !stem.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_')) {
        return Err(Fault::new(Reason::Malformed, format!("the unit {unit:?} is not the end of the name {name:?}")));
    }
    scraper.turn_to_family(name.as_bytes(), kind, unit.as_bytes());
    for field in Message::new(message) {
        if let (4, field) = field? {
            metric(scraper, name, kind, field.bytes()?, buffers, out)?;
        }
    }
    Ok(())
}

/// A metric of a family: who it is, and what goes for all of its series.
struct Metric<'a> {
    name: &'a str,
    message: &'a [u8],
    at: Option<UnixNanos>,
    start: Option<UnixNanos>,
}

fn metric(scraper: &mut Scraper, name: &str, kind: Type, message: &[u8], buffers: &mut Buffers, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (mut at, mut value) = (None, None);
    let wanted = match kind {
        Type::Gauge => 2,
        Type::Counter => 3,
        Type::Summary => 4,
        Type::Histogram | Type::GaugeHistogram => 7,
        _ => 5,
    };
    for field in Message::new(message) {
        match field? {
            // Proto3 does not tell 0 from none.
            (6, field) => at = Some(field.varint()? as i64).filter(|millis| *millis != 0),
            (number, field) if number == wanted => value = Some(field.bytes()?),
            _ => {}
        }
    }
    let value = value.ok_or_else(|| Fault::new(Reason::Malformed, format!("a metric of {name:?} has no value of its family's type")))?;
    // What cannot be counted in nanoseconds is out of bounds, and said so by the latest time there is.
    let at = at.map(|millis: i64| UnixNanos(millis.checked_mul(1_000_000).unwrap_or(i64::MAX)));
    let mut metric = Metric { name, message, at, start: None };
    match kind {
        Type::Histogram | Type::GaugeHistogram => histogram(scraper, &mut metric, kind, value, buffers, out),
        Type::Summary => summary(scraper, &mut metric, value, buffers, out),
        _ => simple(scraper, &mut metric, kind, value, buffers, out),
    }
}

fn simple(
    scraper: &mut Scraper,
    metric: &mut Metric<'_>,
    kind: Type,
    message: &[u8],
    buffers: &mut Buffers,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (mut value, mut seen) = (0.0, None);
    for field in Message::new(message) {
        match field? {
            (1, field) => value = field.double()?,
            (2, field) if kind == Type::Counter => seen = Some(exemplar(field.bytes()?)?),
            (3, field) if kind == Type::Counter => metric.start = timestamp(field.bytes()?)?,
            _ => {}
        }
    }
    put(scraper, metric, "", None, value, seen.as_slice(), buffers, out)
}

fn summary(scraper: &mut Scraper, metric: &mut Metric<'_>, message: &[u8], buffers: &mut Buffers, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (mut count, mut sum) = (0, 0.0);
    for field in Message::new(message) {
        match field? {
            (1, field) => count = field.varint()?,
            (2, field) => sum = field.double()?,
            (4, field) => metric.start = timestamp(field.bytes()?)?,
            _ => {}
        }
    }
    put(scraper, metric, "_count", None, count as f64, &[], buffers, out)?;
    put(scraper, metric, "_sum", None, sum, &[], buffers, out)?;
    for field in Message::new(message) {
        let (3, field) = field? else { continue };
        let (mut quantile, mut value) = (0.0, 0.0);
        for field in field.message()? {
            match field? {
                (1, field) => quantile = field.double()?,
                (2, field) => value = field.double()?,
                _ => {}
            }
        }
        put(scraper, metric, "", Some(("quantile", quantile)), value, &[], buffers, out)?;
    }
    Ok(())
}

/// Counts that are integers, unless there is one above 0 that is none.
#[derive(Clone, Copy, Default)]
struct Counted {
    int: u64,
    float: f64,
}

impl Counted {
    fn double(self) -> f64 {
        if self.float > 0.0 { self.float } else { self.int as f64 }
    }
}

fn histogram(
    scraper: &mut Scraper,
    metric: &mut Metric<'_>,
    kind: Type,
    message: &[u8],
    buffers: &mut Buffers,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (mut count, mut zero, mut sum) = (Counted::default(), Counted::default(), 0.0);
    let mut native = Native::default();
    let mut exemplars = Vec::new();
    let mut has_buckets = false;
    for field in Message::new(message) {
        match field? {
            (1, field) => count.int = field.varint()?,
            (2, field) => sum = field.double()?,
            (3, _) => has_buckets = true,
            (4, field) => count.float = field.double()?,
            (5, field) => native.schema = i32::try_from(field.zigzag()?).map_err(|_| Malformed)?,
            (6, field) => native.zero_threshold = field.double()?,
            (7, field) => zero.int = field.varint()?,
            (8, field) => zero.float = field.double()?,
            (9, field) => native.negative.spans.push(span(field)?),
            (10, field) => signed(field, &mut native.negative.deltas)?,
            (11, field) => doubles(field, &mut native.negative.counts)?,
            (12, field) => native.positive.spans.push(span(field)?),
            (13, field) => signed(field, &mut native.positive.deltas)?,
            (14, field) => doubles(field, &mut native.positive.counts)?,
            (15, field) => metric.start = timestamp(field.bytes()?)?,
            (16, field) => exemplars.push(exemplar(field.bytes()?)?),
            _ => {}
        }
    }
    let is_native =
        !native.positive.spans.is_empty() || !native.negative.spans.is_empty() || native.zero_threshold > 0.0 || zero.double() > 0.0;
    if !is_native || !scraper.target().native_histograms {
        return classic(scraper, metric, message, count, sum, buffers, out);
    }
    if exemplars.is_empty() {
        bucket_exemplars(message, &mut exemplars)?;
    }
    let all = exemplars.len();
    exemplars.retain(|exemplar| exemplar.at.is_some());
    scraper.counts().exemplars_dropped += all - exemplars.len();
    let is_float = count.float > 0.0 || zero.float > 0.0;
    let pick = |counted: Counted| if is_float { Count::Float(counted.float) } else { Count::Int(counted.int) };
    buffers.native = Histogram {
        count: pick(count),
        sum,
        schema: native.schema,
        zero_threshold: native.zero_threshold,
        zero_count: pick(zero),
        positive: native.positive.side(is_float),
        negative: native.negative.side(is_float),
        custom_values: Vec::new(),
        reset_hint: if kind == Type::GaugeHistogram { ResetHint::Gauge } else { ResetHint::Unknown },
    };
    let wrong = |what: &str| Fault::new(Reason::InvalidHistogram, format!("a histogram of {:?} cannot be: {what}", metric.name));
    buffers.native.check_layout().map_err(wrong)?;
    let limit = scraper.target().limits.buckets;
    while limit > 0 && buffers.native.buckets() > limit {
        if !buffers.native.halve() {
            let what = format!("a histogram of {:?} has more than {limit} buckets in the coarsest schema", metric.name);
            return Err(Fault::new(Reason::BucketLimit, what));
        }
    }
    let entry = enter(scraper, metric, "", None, &mut buffers.key)?;
    match entry {
        Some(entry) => scraper.put(entry, Value::Histogram(&buffers.native), metric.at, metric.start, &exemplars, out),
        None => scraper.count_unremembered(),
    }
    if scraper.target().classic_too && has_buckets {
        classic(scraper, metric, message, count, sum, buffers, out)?;
    }
    Ok(())
}

#[derive(Default)]
struct Native {
    schema: i32,
    zero_threshold: f64,
    positive: Half,
    negative: Half,
}

fn classic(
    scraper: &mut Scraper,
    metric: &Metric<'_>,
    message: &[u8],
    count: Counted,
    sum: f64,
    buffers: &mut Buffers,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    put(scraper, metric, "_count", None, count.double(), &[], buffers, out)?;
    put(scraper, metric, "_sum", None, sum, &[], buffers, out)?;
    let mut has_infinity = false;
    for field in Message::new(message) {
        let (3, field) = field? else { continue };
        let bucket = bucket(field)?;
        has_infinity |= bucket.bound == f64::INFINITY;
        let seen = bucket.exemplar.map(exemplar).transpose()?;
        put(scraper, metric, "_bucket", Some(("le", bucket.bound)), bucket.count.double(), seen.as_slice(), buffers, out)?;
    }
    if !has_infinity {
        put(scraper, metric, "_bucket", Some(("le", f64::INFINITY)), count.double(), &[], buffers, out)?;
    }
    Ok(())
}

#[derive(Default)]
struct Bucket<'a> {
    count: Counted,
    bound: f64,
    exemplar: Option<&'a [u8]>,
}

fn bucket(field: Field<'_>) -> Result<Bucket<'_>, Malformed> {
    let mut bucket = Bucket::default();
    for field in field.message()? {
        match field? {
            (1, field) => bucket.count.int = field.varint()?,
            (2, field) => bucket.bound = field.double()?,
            (3, field) => bucket.exemplar = Some(field.bytes()?),
            (4, field) => bucket.count.float = field.double()?,
            _ => {}
        }
    }
    Ok(bucket)
}

fn bucket_exemplars(message: &[u8], exemplars: &mut Vec<Exemplar>) -> Result<(), Malformed> {
    for field in Message::new(message) {
        if let (3, field) = field?
            && let Some(message) = bucket(field)?.exemplar
        {
            exemplars.push(exemplar(message)?);
        }
    }
    Ok(())
}

/// Writes a sample of one of the metric's series: its name's suffix, and a label that is a number.
#[expect(clippy::too_many_arguments, reason = "who, what, and where to")]
fn put(
    scraper: &mut Scraper,
    metric: &Metric<'_>,
    suffix: &str,
    label: Option<(&str, f64)>,
    value: f64,
    exemplars: &[Exemplar],
    buffers: &mut Buffers,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let value = if value.is_nan() { f64::from_bits(NORMAL_NAN) } else { value };
    match enter(scraper, metric, suffix, label, &mut buffers.key)? {
        Some(entry) => scraper.put(entry, Value::Double(value), metric.at, metric.start, exemplars, out),
        None => scraper.count_unremembered(),
    }
    Ok(())
}

fn enter(
    scraper: &mut Scraper,
    metric: &Metric<'_>,
    suffix: &str,
    label: Option<(&str, f64)>,
    key: &mut Vec<u8>,
) -> Result<Option<u32>, Fault> {
    // No text of a series begins with 0.
    key.clear();
    key.push(0);
    key.extend_from_slice(metric.name.as_bytes());
    key.push(0xff);
    key.extend_from_slice(suffix.as_bytes());
    key.push(0xff);
    if let Some((_, number)) = label {
        key.extend_from_slice(&number.to_bits().to_le_bytes());
    }
    for field in Message::new(metric.message) {
        if let (1, field) = field? {
            let bytes = field.bytes()?;
            key.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            key.extend_from_slice(bytes);
        }
    }
    scraper.find_or_enter(key, |parsed| fill(metric, suffix, label, parsed))
}

fn fill(metric: &Metric<'_>, suffix: &str, label: Option<(&str, f64)>, parsed: &mut Parsed) -> Result<(), Fault> {
    parsed.name.clear();
    parsed.name.extend_from_slice(metric.name.as_bytes());
    parsed.name.extend_from_slice(suffix.as_bytes());
    parsed.labels.clear();
    for field in Message::new(metric.message) {
        if let (1, field) = field? {
            let (name, value) = pair(field)?;
            parsed.labels.push((name.into(), value.into()));
        }
    }
    if let Some((name, number)) = label {
        let mut value = Vec::new();
        number::put_label(&mut value, number);
        parsed.labels.push((name.into(), value));
    }
    Ok(())
}

fn pair(field: Field<'_>) -> Result<(&str, &str), Malformed> {
    let (mut name, mut value) = ("", "");
    for field in field.message()? {
        match field? {
            (1, field) => name = field.text()?,
            (2, field) => value = field.text()?,
            _ => {}
        }
    }
    Ok((name, value))
}

fn exemplar(message: &[u8]) -> Result<Exemplar, Malformed> {
    let mut exemplar = Exemplar::default();
    for field in Message::new(message) {
        match field? {
            (1, field) => {
                let (name, value) = pair(field)?;
                exemplar.labels.push((name.into(), value.into()));
            }
            (2, field) => exemplar.value = field.double()?,
            (3, field) => exemplar.at = timestamp(field.bytes()?)?,
            _ => {}
        }
    }
    exemplar.labels.sort_unstable();
    Ok(exemplar)
}

/// `google.protobuf.Timestamp`; `None`: it cannot be counted in nanoseconds.
fn timestamp(message: &[u8]) -> Result<Option<UnixNanos>, Malformed> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Message::new(message) {
        match field? {
            (1, field) => seconds = field.varint()? as i64,
            (2, field) => nanos = i64::from(field.varint()? as i32),
            _ => {}
        }
    }
    Ok(seconds.checked_mul(NANOS_PER_SECOND).and_then(|total| total.checked_add(nanos)).map(UnixNanos))
}

fn span(field: Field<'_>) -> Result<Span, Malformed> {
    let mut span = Span::default();
    for field in field.message()? {
        match field? {
            (1, field) => span.offset = i32::try_from(field.zigzag()?).map_err(|_| Malformed)?,
            (2, field) => span.len = u32::try_from(field.varint()?).map_err(|_| Malformed)?,
            _ => {}
        }
    }
    Ok(span)
}

/// One, or many that are packed.
fn signed(field: Field<'_>, into: &mut Vec<i64>) -> Result<(), Malformed> {
    let Field::Bytes(mut packed) = field else {
        into.push(field.zigzag()?);
        return Ok(());
    };
    while !packed.is_empty() {
        into.push(unzigzag(read_varint(&mut packed)?));
    }
    Ok(())
}

fn doubles(field: Field<'_>, into: &mut Vec<f64>) -> Result<(), Malformed> {
    let Field::Bytes(packed) = field else {
        into.push(field.double()?);
        return Ok(());
    };
    let (numbers, rest) = packed.as_chunks::<8>();
    into.extend(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)));
    if rest.is_empty() { Ok(()) } else { Err(Malformed) }
}
