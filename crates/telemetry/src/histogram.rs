//! A native histogram: a sample whose buckets are laid out by a schema, as a value and as JSON.
//!
//! ```json
//! {"count":3,"sum":5.5,"schema":3,"zero_threshold":1e-128,"zero_count":0,"positive":{"spans":[[0,2]],"deltas":[1,1]},"reset_hint":"no"}
//! ```
//! Counts of a histogram of integers are integers, and its buckets are `deltas`, each to the one before; of a histogram of floats
//! they are doubles, and its buckets are `counts`. `positive`, `negative` and `custom_values` are left out where they are empty.
//! Bound: what is read is at most [`BUCKETS_MAX`] buckets. Source: <https://prometheus.io/docs/specs/native_histograms>.

use crate::sample::{parse_special, put_double};
use serde_json::value::Value as Json;

/// Of one side of a histogram; Prometheus' client libraries end at 160 by default.
pub const BUCKETS_MAX: usize = 1 << 16;
/// The schema of buckets with bounds of their own.
pub const CUSTOM_SCHEMA: i32 = -53;
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// What is known of a reset since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    #[default]
    Unknown,
    Yes,
    No,
    /// Of a gauge there are none.
    Gauge,
}

impl ResetHint {
    pub const ALL: [(&str, ResetHint); 4] =
        [("unknown", ResetHint::Unknown), ("yes", ResetHint::Yes), ("no", ResetHint::No), ("gauge", ResetHint::Gauge)];

    pub fn name(self) -> &'static str {
        ResetHint::ALL.into_iter().find(|(_, hint)| *hint == self).map_or("unknown", |(name, _)| name)
    }
}

/// Buckets that follow one another: how far after the span before (or, the first, after bucket 0), and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub offset: i32,
    pub len: u32,
}

/// A count in an integer histogram or a float one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    Int(u64),
    Float(f64),
}

impl Default for Count {
    fn default() -> Count {
        Count::Int(0)
    }
}

impl Count {
    pub fn double(self) -> f64 {
        match self {
            Count::Int(count) => count as f64,
            Count::Float(count) => count,
        }
    }
}

/// The populated buckets of one side.
#[derive(Clone, Debug, PartialEq)]
pub enum Buckets {
    /// Each to the one before, the first to 0.
    Deltas(Vec<i64>),
    Counts(Vec<f64>),
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets::Deltas(Vec::new())
    }
}

impl Buckets {
    pub fn len(&self) -> usize {
        match self {
            Buckets::Deltas(deltas) => deltas.len(),
            Buckets::Counts(counts) => counts.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    pub spans: Vec<Span>,
    pub buckets: Buckets,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    pub count: Count,
    pub sum: f64,
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: Count,
    pub positive: Side,
    pub negative: Side,
    /// Upper bounds, with [`CUSTOM_SCHEMA`] only.
    pub custom_values: Vec<f64>,
    pub reset_hint: ResetHint,
}

impl Histogram {
    pub fn is_float(&self) -> bool {
        matches!(self.count, Count::Float(_))
    }

    pub fn buckets(&self) -> usize {
        self.positive.buckets.len() + self.negative.buckets.len()
    }

    /// Writes it as JSON.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"count\":");
        put_count(out, self.count);
        out.extend_from_slice(b",\"sum\":");
        put_double(out, self.sum);
        out.extend_from_slice(b",\"schema\":");
        put_int(out, i64::from(self.schema));
        out.extend_from_slice(b",\"zero_threshold\":");
        put_double(out, self.zero_threshold);
        out.extend_from_slice(b",\"zero_count\":");
        put_count(out, self.zero_count);
        for (name, side) in [("positive", &self.positive), ("negative", &self.negative)] {
            if !side.spans.is_empty() || !side.buckets.is_empty() {
                put_side(out, name, side);
            }
        }
        if !self.custom_values.is_empty() {
            out.extend_from_slice(b",\"custom_values\":");
            put_list(out, &self.custom_values, |out, value| put_double(out, *value));
        }
        out.extend_from_slice(b",\"reset_hint\":\"");
        out.extend_from_slice(self.reset_hint.name().as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// Reads what [`Histogram::put`] wrote; `None`: it is no histogram.
    pub fn parse(json: &[u8]) -> Option<Histogram> {
        let json: Json = serde_json::from_slice(json).ok()?;
        let hint = json.get("reset_hint").and_then(Json::as_str).unwrap_or("unknown");
        let custom_values = match json.get("custom_values") {
            Some(values) => read_list(values, read_double)?,
            None => Vec::new(),
        };
        let histogram = Histogram {
            count: read_count(json.get("count")?)?,
            sum: read_double(json.get("sum")?)?,
            schema: json.get("schema")?.as_i64()?.try_into().ok()?,
            zero_threshold: read_double(json.get("zero_threshold")?)?,
            zero_count: read_count(json.get("zero_count")?)?,
            positive: read_side(json.get("positive"))?,
            negative: read_side(json.get("negative"))?,
            custom_values,
            reset_hint: ResetHint::ALL.into_iter().find(|(name, _)| *name == hint)?.1,
        };
        Some(histogram)
    }

    /// Checks what Prometheus checks before it stores one. Errors: the rule that is broken.
    pub fn validate(&self) -> Result<(), &'static str> {
        let sum = self.check_layout()?;
        let count = self.count.double();
        // Observations of NaN are counted and in no bucket. Floats add up with an error.
        let matches = match self.is_float() {
            true => sum <= count * (1.0 + 1e-9) + f64::MIN_POSITIVE || !sum.is_finite(),
            false if self.sum.is_nan() => sum <= count,
            false => sum == count,
        };
        if matches { Ok(()) } else { Err("the count is that of all buckets together") }
    }

    /// Checks that buckets are where their spans say, and that no count is negative. Returns the counts of all buckets together.
    pub fn check_layout(&self) -> Result<f64, &'static str> {
        let custom = self.schema == CUSTOM_SCHEMA;
        if !custom && !SCHEMAS.contains(&self.schema) {
            return Err("the schema is from -4 to 8, or -53 for bounds of its own");
        }
        if custom && (!self.negative.spans.is_empty() || self.zero_count.double() != 0.0 || self.zero_threshold != 0.0) {
            return Err("a histogram with bounds of its own has neither a zero bucket nor negative ones");
        }
        if custom && !self.custom_values.is_sorted_by(|low, high| low < high) {
            return Err("bounds grow");
        }
        let mut sum = self.zero_count.double();
        for side in [&self.positive, &self.negative] {
            sum += check_side(side, self.is_float())?;
        }
        if self.count.double() < 0.0 || self.zero_count.double() < 0.0 {
            return Err("counts are not negative");
        }
        Ok(sum)
    }

    /// Merges pairs of buckets, once for each step of the schema. Of bounds of its own there is no coarser schema: false.
    pub fn halve(&mut self) -> bool {
        if self.schema == CUSTOM_SCHEMA || self.schema <= *SCHEMAS.start() {
            return false;
        }
        self.schema -= 1;
        for side in [&mut self.positive, &mut self.negative] {
            *side = halve(side);
        }
        true
    }
}

fn check_side(side: &Side, is_float: bool) -> Result<f64, &'static str> {
    let spans: u64 = side.spans.iter().map(|span| u64::from(span.len)).sum();
    if spans != side.buckets.len() as u64 {
        return Err("spans cover as many buckets as there are");
    }
    if side.spans.iter().skip(1).any(|span| span.offset < 0) {
        return Err("a span begins after the one before");
    }
    let (mut count, mut sum) = (0i64, 0.0);
    match &side.buckets {
        Buckets::Deltas(deltas) if !is_float || deltas.is_empty() => {
            for delta in deltas {
                count = count.checked_add(*delta).filter(|count| *count >= 0).ok_or("counts are not negative")?;
                sum += count as f64;
            }
        }
        Buckets::Counts(counts) if is_float || counts.is_empty() => {
            for count in counts {
                if count.is_nan() || *count < 0.0 {
                    return Err("counts are not negative");
                }
                sum += count;
            }
        }
        _ => return Err("buckets are deltas of integers or counts of floats, as the count is"),
    }
    Ok(sum)
}

/// Bucket n of a schema is in bucket ceil(n / 2) of the next coarser one.
fn halve(side: &Side) -> Side {
    let mut merged: Vec<(i64, i64, f64)> = Vec::with_capacity(side.buckets.len());
    let (mut index, mut bucket, mut running) = (0i64, 0, 0i64);
    for span in &side.spans {
        index += i64::from(span.offset);
        for _ in 0..span.len {
            let (int, float) = match &side.buckets {
                Buckets::Deltas(deltas) => (deltas.get(bucket).copied().unwrap_or(0), 0.0),
                Buckets::Counts(counts) => (0, counts.get(bucket).copied().unwrap_or(0.0)),
            };
            running = running.wrapping_add(int);
            let coarse = (index + 1).div_euclid(2);
            match merged.last_mut() {
                Some(last) if last.0 == coarse => (last.1, last.2) = (last.1.wrapping_add(running), last.2 + float),
                _ => merged.push((coarse, running, float)),
            }
            (index, bucket) = (index + 1, bucket + 1);
            if bucket > side.buckets.len() {
                break;
            }
        }
    }
    let mut spans: Vec<Span> = Vec::new();
    let (mut next, mut before, mut deltas) = (0i64, 0i64, Vec::new());
    for (coarse, count, _) in &merged {
        match spans.last_mut() {
            Some(last) if *coarse == next => last.len += 1,
            _ => spans.push(Span { offset: (coarse - next) as i32, len: 1 }),
        }
        next = coarse + 1;
        deltas.push(count.wrapping_sub(before));
        before = *count;
    }
    let buckets = match side.buckets {
        Buckets::Deltas(_) => Buckets::Deltas(deltas),
        Buckets::Counts(_) => Buckets::Counts(merged.into_iter().map(|(.., float)| float).collect()),
    };
    Side { spans, buckets }
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(value.to_string().as_bytes());
}

fn put_count(out: &mut Vec<u8>, count: Count) {
    match count {
        Count::Int(count) => out.extend_from_slice(count.to_string().as_bytes()),
        Count::Float(count) => put_double(out, count),
    }
}

fn put_list<T>(out: &mut Vec<u8>, list: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (n, item) in list.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

fn put_side(out: &mut Vec<u8>, name: &str, side: &Side) {
    out.extend_from_slice(format!(",\"{name}\":{{\"spans\":").as_bytes());
    put_list(out, &side.spans, |out, span| out.extend_from_slice(format!("[{},{}]", span.offset, span.len).as_bytes()));
    match &side.buckets {
        Buckets::Deltas(deltas) => {
            out.extend_from_slice(b",\"deltas\":");
            put_list(out, deltas, |out, delta| put_int(out, *delta));
        }
        Buckets::Counts(counts) => {
            out.extend_from_slice(b",\"counts\":");
            put_list(out, counts, |out, count| put_double(out, *count));
        }
    }
    out.push(b'}');
}

fn read_double(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => parse_special(text),
        _ => None,
    }
}

fn read_count(json: &Json) -> Option<Count> {
    json.as_u64().map(Count::Int).or_else(|| read_double(json).map(Count::Float))
}

fn read_list<T>(json: &Json, read: impl FnMut(&Json) -> Option<T>) -> Option<Vec<T>> {
    let list = json.as_array().filter(|list| list.len() <= BUCKETS_MAX)?;
    list.iter().map(read).collect()
}

fn read_side(json: Option<&Json>) -> Option<Side> {
    let Some(json) = json else { return Some(Side::default()) };
    let spans = read_list(json.get("spans")?, |span| {
        let [offset, len] = span.as_array()?.as_slice() else { return None };
        Some(Span { offset: offset.as_i64()?.try_into().ok()?, len: len.as_u64()?.try_into().ok()? })
    })?;
    let buckets = match json.get("deltas") {
        Some(deltas) => Buckets::Deltas(read_list(deltas, Json::as_i64)?),
        None => Buckets::Counts(read_list(json.get("counts")?, read_double)?),
    };
    Some(Side { spans, buckets })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    fn side(spans: &[(i32, u32)], deltas: &[i64]) -> Side {
        let spans = spans.iter().map(|(offset, len)| Span { offset: *offset, len: *len }).collect();
        Side { spans, buckets: Buckets::Deltas(deltas.to_vec()) }
    }

    pub fn example() -> Histogram {
        Histogram {
            count: Count::Int(175),
            sum: 0.0008280461746287094,
            schema: 3,
            zero_threshold: 2.938735877055719e-39,
            zero_count: Count::Int(2),
            positive: side(&[(-161, 1), (8, 3)], &[1, 2, -1, -1]),
            negative: side(&[(-162, 1), (23, 4)], &[1, 3, -2, -1, 1]),
            ..Histogram::default()
        }
    }

    #[test]
    fn it_looks_like_this() {
        let mut out = Vec::new();
        example().put(&mut out);
        let want = concat!(
            r#"{"count":175,"sum":0.0008280461746287094,"schema":3,"zero_threshold":2.938735877055719e-39,"zero_count":2,"#,
            r#""positive":{"spans":[[-161,1],[8,3]],"deltas":[1,2,-1,-1]},"negative":{"spans":[[-162,1],[23,4]],"deltas":[1,3,-2,-1,1]},"#,
            r#""reset_hint":"unknown"}"#
        );
        assert_eq!(String::from_utf8_lossy(&out), want);
    }

    #[test]
    fn a_histogram_that_cannot_be_is_refused() {
        let good =
            || Histogram { count: Count::Int(21), positive: side(&[(0, 2), (1, 1)], &[5, 1, -1]), zero_count: Count::Int(5), ..example() };
        let good = || Histogram { negative: Side::default(), ..good() };
        assert_eq!(good().validate(), Ok(()));
        for (histogram, want) in [
            (Histogram { count: Count::Int(20), ..good() }, "the count is"),
            (Histogram { schema: 9, ..good() }, "the schema"),
            (Histogram { positive: side(&[(0, 2)], &[5, 1, -1]), ..good() }, "as many buckets"),
            (Histogram { positive: side(&[(0, 2), (-1, 1)], &[5, 1, -1]), ..good() }, "after the one before"),
            (Histogram { positive: side(&[(0, 3)], &[5, 1, -7]), ..good() }, "not negative"),
            (Histogram { positive: side(&[(0, 2)], &[i64::MAX, i64::MAX]), ..good() }, "not negative"),
            (Histogram { schema: CUSTOM_SCHEMA, ..good() }, "neither a zero bucket"),
            (Histogram { count: Count::Float(21.0), ..good() }, "as the count is"),
        ] {
            assert!(histogram.validate().expect_err(want).contains(want), "{want}");
        }
        // NaN is observed, counted, and in no bucket.
        assert_eq!(Histogram { count: Count::Int(30), sum: f64::NAN, ..good() }.validate(), Ok(()));
    }

    /// prometheus/model/histogram, TestReduceResolutionHistogram.
    #[test]
    fn a_coarser_schema_merges_pairs_of_buckets() {
        let mut histogram = Histogram {
            positive: side(&[(0, 2), (2, 1)], &[1, 0, 2]), // Buckets 0, 1 and 4 with 1, 1 and 3.
            negative: side(&[(-3, 2)], &[1, 1]),           // Buckets -3 and -2 with 1 and 2.
            ..example()
        };
        assert!(histogram.halve());
        assert_eq!(histogram.schema, 2);
        assert_eq!(histogram.positive, side(&[(0, 3)], &[1, 0, 2]));
        assert_eq!(histogram.negative, side(&[(-1, 1)], &[3]));
        histogram.schema = -4;
        assert!(!histogram.halve());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(sum: u64, count: u64, offset: i32, deltas in prop::collection::vec(any::<i64>(), 0..5), is_float: bool) {
            let mut histogram = Histogram { sum: f64::from_bits(sum), count: Count::Int(count), ..example() };
            histogram.positive = side(&[(offset, deltas.len() as u32)], &deltas);
            if is_float {
                histogram.count = Count::Float(count as f64);
                histogram.zero_count = Count::Float(0.25);
                histogram.positive.buckets = Buckets::Counts(deltas.iter().map(|delta| *delta as f64).collect());
                histogram.custom_values = vec![0.5, f64::INFINITY];
            }
            let mut out = Vec::new();
            histogram.put(&mut out);
            let read = Histogram::parse(&out).expect("a histogram");
            prop_assert_eq!(read.sum.to_bits(), histogram.sum.to_bits());
            histogram.sum = 0.0;
            prop_assert_eq!(Histogram { sum: 0.0, ..read }, histogram);
        }

        #[test]
        fn coarser_buckets_hold_what_the_finer_ones_held(offset in -20i32..20, counts in prop::collection::vec(0i64..9, 1..12), gap in 0i32..5) {
            let deltas: Vec<i64> = counts.iter().scan(0, |before, count| Some(count - std::mem::replace(before, *count))).collect();
            let split = counts.len() / 2;
            let mut histogram = example();
            histogram.positive = side(&[(offset, split as u32), (gap, (counts.len() - split) as u32)], &deltas);
            histogram.halve();
            prop_assert_eq!(check_side(&histogram.positive, false), Ok(counts.iter().sum::<i64>() as f64));
        }
    }
}
