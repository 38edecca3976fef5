//! A native histogram: a sample whose buckets are laid out by a schema, as a value and as JSON.
//!
//! ```json
//! {"count":3,"sum":5.5,"schema":3,"zero_threshold":1e-128,"zero_count":0,"positive":{"spans":[[0,2]],"deltas":[1,1]},"reset_hint":"no"}
//! ```
//! Counts of a histogram of integers are integers, and its buckets are `deltas`, each to the one before; of a histogram of floats
//! they are doubles, and its buckets are `counts`. `positive`, `negative` and `custom_values` are left out where they are empty; read
//! are empty ones as well. Doubles are kept bit for bit ([`put_double`]). Two checks: of the layout, before buckets are gone through
//! ([`Histogram::check_layout`]), and all that Prometheus checks before it stores one ([`Histogram::validate`]).
//! Bound: what is read is at most [`BUCKETS_MAX`] buckets. Source: <https://prometheus.io/docs/specs/native_histograms>.

use crate::sample::{parse_special, put_double};
use serde_json::value::Value as Json;

/// Of one side of a histogram; Prometheus' client libraries end at 160 by default.
pub const BUCKETS_MAX: usize = 1 << 16;
/// The schema of buckets with bounds of their own.
pub const CUSTOM_SCHEMA: i32 = -53;
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// What is known of a reset since the sample before; its number is that of remote write.
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
    /// In the order of their numbers.
    pub const ALL: [ResetHint; 4] = [ResetHint::Unknown, ResetHint::Yes, ResetHint::No, ResetHint::Gauge];

    pub fn name(self) -> &'static str {
        match self {
            ResetHint::Unknown => "unknown",
            ResetHint::Yes => "yes",
            ResetHint::No => "no",
            ResetHint::Gauge => "gauge",
        }
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

/// A side as messages have it: with buckets of either form.
#[derive(Debug, Default)]
pub(crate) struct Half {
    pub spans: Vec<Span>,
    pub deltas: Vec<i64>,
    pub counts: Vec<f64>,
}

impl Half {
    pub fn side(self, is_float: bool) -> Side {
        let buckets = if is_float { Buckets::Counts(self.counts) } else { Buckets::Deltas(self.deltas) };
        Side { spans: self.spans, buckets }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    pub count: Count,
    pub sum: f64,
    /// -4 to 8, or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: Count,
    pub positive: Side,
    pub negative: Side,
    /// Upper bounds without `+Inf`, with [`CUSTOM_SCHEMA`] only.
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
        let custom_values = json.get("custom_values").map_or(Some(Vec::new()), |values| read_list(values, double))?;
        let count = read_count(json.get("count")?)?;
        let is_float = matches!(count, Count::Float(_));
        let zero_count = read_count(json.get("zero_count")?)?;
        Some(Histogram {
            count,
            sum: double(json.get("sum")?)?,
            schema: json.get("schema")?.as_i64()?.try_into().ok()?,
            zero_threshold: double(json.get("zero_threshold")?)?,
            // `0` of a histogram of floats went through somebody who writes 0.0 so.
            zero_count: if is_float { Count::Float(zero_count.double()) } else { zero_count },
            positive: read_side(json.get("positive"), is_float)?,
            negative: read_side(json.get("negative"), is_float)?,
            custom_values,
            reset_hint: ResetHint::ALL.into_iter().find(|known| known.name() == hint)?,
        })
    }

    /// Checks that buckets are where their spans say, and that all counts are numbers of at least 0. Errors: the rule that is broken.
    pub fn check_layout(&self) -> Result<(), &'static str> {
        self.check_sides()?;
        let is_nan = |side: &Side| matches!(&side.buckets, Buckets::Counts(counts) if counts.iter().any(|count| count.is_nan()));
        if is_nan(&self.positive) || is_nan(&self.negative) { Err(NEGATIVE) } else { Ok(()) }
    }

    /// Checks what Prometheus checks before it stores one (`Histogram.Validate`). Errors: the rule that is broken.
    pub fn validate(&self) -> Result<(), &'static str> {
        let total = self.check_sides()?;
        if self.schema == CUSTOM_SCHEMA {
            self.check_bounds()?;
        } else if !self.custom_values.is_empty() {
            return Err("only schema -53 has bounds of its own");
        }
        let fits = match self.count {
            // Observations of NaN are counted and in no bucket.
            Count::Int(count) if self.sum.is_nan() => total <= u128::from(count),
            Count::Int(count) => total == u128::from(count),
            Count::Float(_) => true, // Floats add up with an error.
        };
        if fits { Ok(()) } else { Err("the count is that of all buckets together") }
    }

    /// Both checks begin here. Returns the counts of all buckets of integers together.
    fn check_sides(&self) -> Result<u128, &'static str> {
        let custom = self.schema == CUSTOM_SCHEMA;
        if !custom && !SCHEMAS.contains(&self.schema) {
            return Err("the schema is from -4 to 8, or -53 for bounds of its own");
        }
        if custom && (!self.negative.spans.is_empty() || self.zero_count.double() != 0.0 || self.zero_threshold != 0.0) {
            return Err("a histogram with bounds of its own has neither a zero bucket nor negative ones");
        }
        if custom && !self.custom_values.is_sorted_by(|low, high| low < high) {
            return Err(BOUNDS);
        }
        let total = check_side(&self.positive, self.is_float())? + check_side(&self.negative, self.is_float())?;
        match (self.count, self.zero_count) {
            (Count::Int(_), Count::Int(zero)) => Ok(total + u128::from(zero)),
            (Count::Float(count), Count::Float(zero)) if count < 0.0 || zero < 0.0 => Err(NEGATIVE),
            (Count::Float(_), Count::Float(_)) => Ok(0),
            _ => Err(MIXED),
        }
    }

    fn check_bounds(&self) -> Result<(), &'static str> {
        if self.custom_values.iter().any(|bound| !bound.is_finite()) {
            return Err(BOUNDS);
        }
        let spans = &self.positive.spans;
        let begin = spans.first().map_or(0, |span| span.offset);
        let end: i64 = spans.iter().map(|span| i64::from(span.offset) + i64::from(span.len)).sum();
        // The last bucket is that up to +Inf.
        let fits = begin >= 0 && end <= self.custom_values.len() as i64 + 1;
        if fits { Ok(()) } else { Err("buckets are between the bounds that there are") }
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

const BOUNDS: &str = "bounds are finite and grow";
const NEGATIVE: &str = "counts are not negative";
const MIXED: &str = "buckets are counted in integers or in floats, as the count is";

/// Returns the counts of buckets of integers together.
fn check_side(side: &Side, is_float: bool) -> Result<u128, &'static str> {
    let spans: u64 = side.spans.iter().map(|span| u64::from(span.len)).sum();
    if spans != side.buckets.len() as u64 {
        return Err("spans cover as many buckets as there are");
    }
    if side.spans.iter().skip(1).any(|span| span.offset < 0) {
        return Err("a span begins after the one before");
    }
    let (mut count, mut total) = (0i64, 0);
    match &side.buckets {
        Buckets::Deltas(deltas) if !is_float || deltas.is_empty() => {
            for delta in deltas {
                count = count.checked_add(*delta).filter(|count| *count >= 0).ok_or(NEGATIVE)?;
                total += count as u128;
            }
        }
        Buckets::Counts(counts) if is_float || counts.is_empty() => {
            if counts.iter().any(|count| *count < 0.0) {
                return Err(NEGATIVE);
            }
        }
        _ => return Err(MIXED),
    }
    Ok(total)
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

/// A double as [`put_double`] writes it.
pub(crate) fn double(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| parse_special(json.as_str()?))
}

fn read_count(json: &Json) -> Option<Count> {
    json.as_u64().map(Count::Int).or_else(|| double(json).map(Count::Float))
}

fn read_list<T>(json: &Json, read: impl FnMut(&Json) -> Option<T>) -> Option<Vec<T>> {
    let list = json.as_array().filter(|list| list.len() <= BUCKETS_MAX)?;
    list.iter().map(read).collect()
}

fn read_side(json: Option<&Json>, is_float: bool) -> Option<Side> {
    let Some(json) = json else { return Some(Half::default().side(is_float)) };
    let spans = read_list(json.get("spans")?, |span| {
        let [offset, len] = span.as_array()?.as_slice() else { return None };
        Some(Span { offset: offset.as_i64()?.try_into().ok()?, len: len.as_u64()?.try_into().ok()? })
    })?;
    let buckets = match json.get("deltas") {
        Some(deltas) => Buckets::Deltas(read_list(deltas, Json::as_i64)?),
        None => Buckets::Counts(read_list(json.get("counts")?, double)?),
    };
    Some(Side { spans, buckets })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn side(spans: &[(i32, u32)], deltas: &[i64]) -> Side {
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

    fn floats(spans: &[(i32, u32)], counts: &[f64]) -> Side {
        Side { buckets: Buckets::Counts(counts.to_vec()), ..side(spans, &[]) }
    }

    #[track_caller]
    fn check(histogram: &Histogram, want: &str) {
        let mut out = Vec::new();
        histogram.put(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), want);
        let back = Histogram::parse(&out).expect("a histogram");
        assert_eq!(format!("{back:?}"), format!("{histogram:?}"), "NaN is not NaN, but its text is");
        assert_eq!(back.sum.to_bits(), histogram.sum.to_bits());
    }

    #[test]
    fn it_looks_like_this_and_comes_back() {
        check(
            &example(),
            concat!(
                r#"{"count":175,"sum":0.0008280461746287094,"schema":3,"zero_threshold":2.938735877055719e-39,"zero_count":2,"#,
                r#""positive":{"spans":[[-161,1],[8,3]],"deltas":[1,2,-1,-1]},"negative":{"spans":[[-162,1],[23,4]],"deltas":[1,3,-2,-1,1]},"#,
                r#""reset_hint":"unknown"}"#
            ),
        );
        let float = Histogram {
            count: Count::Float(7.0),
            sum: f64::from_bits(crate::sample::STALE),
            schema: 1,
            zero_threshold: 1e-128,
            zero_count: Count::Float(2.5),
            positive: floats(&[(0, 2), (1, 2)], &[1.0, 2.0, 0.5, 1.0]),
            negative: floats(&[], &[]),
            reset_hint: ResetHint::No,
            ..Histogram::default()
        };
        check(
            &float,
            r#"{"count":7.0,"sum":"stale","schema":1,"zero_threshold":1e-128,"zero_count":2.5,"positive":{"spans":[[0,2],[1,2]],"counts":[1.0,2.0,0.5,1.0]},"reset_hint":"no"}"#,
        );
        let big = Histogram { count: Count::Int(u64::MAX), positive: side(&[(0, 4)], &[i64::MIN, i64::MAX, 0, 0]), ..Histogram::default() };
        check(
            &big,
            r#"{"count":18446744073709551615,"sum":0.0,"schema":0,"zero_threshold":0.0,"zero_count":0,"positive":{"spans":[[0,4]],"deltas":[-9223372036854775808,9223372036854775807,0,0]},"reset_hint":"unknown"}"#,
        );
        assert_eq!(big.validate(), Err(NEGATIVE));
    }

    #[test]
    fn what_is_empty_is_read_whether_it_stands_there_or_not() {
        for (count, zero, buckets) in [("3", "3", "deltas"), ("3.0", "3.0", "counts"), ("3.0", "3", "counts")] {
            let head = format!(r#"{{"count":{count},"sum":1.5,"schema":1,"zero_threshold":0.5,"zero_count":{zero}"#);
            let side = format!(r#"{{"spans":[],"{buckets}":[]}}"#);
            let full = format!(r#"{head},"positive":{side},"negative":{side},"custom_values":[],"reset_hint":"unknown"}}"#);
            let read = Histogram::parse(full.as_bytes()).expect("a histogram");
            assert_eq!(Some(&read), Histogram::parse(format!("{head}}}").as_bytes()).as_ref());
            assert_eq!((read.validate(), read.is_float(), read.buckets()), (Ok(()), buckets == "counts", 0));
        }
        for other in ["{}", "[]", r#"{"count":1,"sum":1,"schema":1}"#, r#"{"count":1,"sum":1,"schema":1,"zero_threshold":0}"#] {
            assert_eq!(Histogram::parse(other.as_bytes()), None, "{other}");
        }
    }

    /// `scraped`: whether the layout is good, which is all that a scrape asks for.
    #[test]
    fn a_histogram_that_cannot_be_is_refused() {
        let good = || Histogram {
            count: Count::Int(21),
            zero_count: Count::Int(5),
            positive: side(&[(0, 2), (1, 1)], &[5, 1, -1]),
            negative: Side::default(),
            ..example()
        };
        let custom = || Histogram {
            count: Count::Int(3),
            sum: 1.0,
            schema: CUSTOM_SCHEMA,
            positive: side(&[(0, 2)], &[1, 1]),
            custom_values: vec![5.0],
            ..Histogram::default()
        };
        let float = |counts: &[f64]| Histogram {
            count: Count::Float(9.0),
            zero_count: Count::Float(0.5),
            positive: floats(&[(0, counts.len() as u32)], counts),
            ..Histogram::default()
        };
        // Observations of NaN are counted and in no bucket; floats add up with an error.
        let nan = Histogram { count: Count::Int(30), sum: f64::NAN, ..good() };
        for histogram in [good(), custom(), nan, float(&[1.0, 2.0])] {
            assert_eq!((histogram.validate(), histogram.check_layout()), (Ok(()), Ok(())), "{histogram:?}");
        }
        for (histogram, want, scraped) in [
            (Histogram { count: Count::Int(20), ..good() }, "the count is that of all buckets", true),
            (Histogram { count: Count::Int(20), sum: f64::NAN, ..good() }, "the count is that of all buckets", true),
            (Histogram { count: Count::Int(4), ..custom() }, "the count is that of all buckets", true),
            (Histogram { positive: side(&[(0, 2), (0, 1)], &[i64::MAX, 0, 0]), ..good() }, "the count is that of all buckets", true),
            (Histogram { schema: 9, ..good() }, "the schema", false),
            (Histogram { schema: 9, ..custom() }, "the schema", false),
            (Histogram { schema: 3, ..custom() }, "only schema -53", true),
            (Histogram { positive: side(&[(0, 2)], &[5, 1, -1]), ..good() }, "as many buckets", false),
            (Histogram { positive: side(&[(0, u32::MAX), (0, u32::MAX)], &[1, 1]), ..good() }, "as many buckets", false),
            (Histogram { positive: side(&[(0, 2), (-1, 1)], &[5, 1, -1]), ..good() }, "after the one before", false),
            (Histogram { positive: side(&[(0, 3)], &[5, 1, -7]), ..good() }, "not negative", false),
            (Histogram { positive: side(&[(0, 2)], &[i64::MAX, i64::MAX]), ..good() }, "not negative", false),
            (float(&[1.0, -0.5]), "not negative", false),
            (Histogram { count: Count::Float(-1.0), ..float(&[]) }, "not negative", false),
            (Histogram { zero_count: Count::Float(-1.0), ..float(&[]) }, "not negative", false),
            (Histogram { schema: CUSTOM_SCHEMA, ..good() }, "neither a zero bucket", false),
            (Histogram { zero_threshold: 1.0, ..custom() }, "neither a zero bucket", false),
            (Histogram { custom_values: vec![2.0, 1.0], ..custom() }, "finite and grow", false),
            (Histogram { custom_values: vec![f64::NAN], ..custom() }, "finite and grow", true),
            (Histogram { custom_values: vec![5.0, f64::INFINITY], ..custom() }, "finite and grow", true),
            (Histogram { custom_values: vec![], ..custom() }, "between the bounds", true),
            (Histogram { positive: side(&[(-1, 2)], &[1, 1]), ..custom() }, "between the bounds", true),
            (Histogram { count: Count::Float(21.0), ..good() }, "as the count is", false),
            (Histogram { zero_count: Count::Float(5.0), ..good() }, "as the count is", false),
        ] {
            assert!(histogram.validate().expect_err(want).contains(want), "{want}: {histogram:?}");
            assert_eq!(histogram.check_layout().is_ok(), scraped, "{histogram:?}");
        }
        // Prometheus takes buckets of NaN from a sender; a scrape does not.
        assert_eq!((float(&[f64::NAN]).validate(), float(&[f64::NAN]).check_layout()), (Ok(()), Err(NEGATIVE)));
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
            prop_assert_eq!(check_side(&histogram.positive, false), Ok(counts.iter().sum::<i64>() as u128));
        }
    }
}
