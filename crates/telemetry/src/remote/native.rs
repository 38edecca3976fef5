//! The native histogram of Prometheus as part of a record.
//!
//! ```json
//! {"count":12,"sum":18.4,"schema":1,"zero_threshold":1e-128,"zero_count":2,
//!  "positive":{"spans":[[0,2],[1,2]],"deltas":[1,1,-1,0]},"negative":{"spans":[],"deltas":[]},"custom_values":[],"reset_hint":"unknown"}
//! ```
//! An integer histogram has `deltas` (of each bucket to the one before) and integers as counts; a float histogram has `counts` and
//! doubles. Schema -53 has its bounds in `custom_values`. Doubles are written as [`crate::sample::put_double`] does, bit for bit.
//! Source: <https://prometheus.io/docs/specs/native_histograms/>.

use crate::sample::{parse_special, put_double};
use serde_json::value::Value as Json;

/// The schema of custom buckets.
pub const CUSTOM_SCHEMA: i32 = -53;

/// A native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    pub counts: Counts,
    pub sum: f64,
    /// -4 to 8, or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    pub zero_threshold: f64,
    /// Gap to the span before (or the first bucket's number), and how many buckets follow each other.
    pub positive_spans: Vec<(i32, u32)>,
    pub negative_spans: Vec<(i32, u32)>,
    /// Upper bounds of custom buckets, the last one without `+Inf`.
    pub custom_values: Vec<f64>,
    pub reset_hint: ResetHint,
}

/// What was counted, in one of two ways.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// `positive` and `negative`: differences to the bucket before.
    Int { count: u64, zero_count: u64, positive: Vec<i64>, negative: Vec<i64> },
    /// `positive` and `negative`: counts of each bucket.
    Float { count: f64, zero_count: f64, positive: Vec<f64>, negative: Vec<f64> },
}

/// What the sender knows of a reset between this histogram and the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    #[default]
    Unknown,
    Yes,
    No,
    Gauge,
}

impl ResetHint {
    /// In the order of their numbers in remote write.
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

impl Histogram {
    /// Writes it as a JSON object.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"count\":");
        match &self.counts {
            Counts::Int { count, .. } => put_int(out, *count as i128),
            Counts::Float { count, .. } => put_double(out, *count),
        }
        out.extend_from_slice(b",\"sum\":");
        put_double(out, self.sum);
        out.extend_from_slice(b",\"schema\":");
        put_int(out, i128::from(self.schema));
        out.extend_from_slice(b",\"zero_threshold\":");
        put_double(out, self.zero_threshold);
        out.extend_from_slice(b",\"zero_count\":");
        match &self.counts {
            Counts::Int { zero_count, positive, negative, .. } => {
                put_int(out, *zero_count as i128);
                let deltas = |out: &mut Vec<u8>, deltas: &[i64]| put_list(out, deltas, |out, delta| put_int(out, i128::from(*delta)));
                put_side(out, "positive", &self.positive_spans, "deltas", |out| deltas(out, positive));
                put_side(out, "negative", &self.negative_spans, "deltas", |out| deltas(out, negative));
            }
            Counts::Float { zero_count, positive, negative, .. } => {
                put_double(out, *zero_count);
                let counts = |out: &mut Vec<u8>, counts: &[f64]| put_list(out, counts, |out, count| put_double(out, *count));
                put_side(out, "positive", &self.positive_spans, "counts", |out| counts(out, positive));
                put_side(out, "negative", &self.negative_spans, "counts", |out| counts(out, negative));
            }
        }
        out.extend_from_slice(b",\"custom_values\":");
        put_list(out, &self.custom_values, |out, value| put_double(out, *value));
        out.extend_from_slice(b",\"reset_hint\":\"");
        out.extend_from_slice(self.reset_hint.name().as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// Reads what [`Histogram::put`] wrote; `None`: it is none.
    pub fn parse(json: &[u8]) -> Option<Histogram> {
        let whole: Json = serde_json::from_slice(json).ok()?;
        let (positive, negative) = (whole.get("positive")?, whole.get("negative")?);
        let spans =
            |side: &Json| list(side.get("spans")?, |span| Some((int32(span.get(0)?)?, u32::try_from(span.get(1)?.as_u64()?).ok()?)));
        let counts = match whole.get("count")?.as_u64() {
            Some(count) => Counts::Int {
                count,
                zero_count: whole.get("zero_count")?.as_u64()?,
                positive: list(positive.get("deltas")?, Json::as_i64)?,
                negative: list(negative.get("deltas")?, Json::as_i64)?,
            },
            None => Counts::Float {
                count: double(whole.get("count")?)?,
                zero_count: double(whole.get("zero_count")?)?,
                positive: list(positive.get("counts")?, double)?,
                negative: list(negative.get("counts")?, double)?,
            },
        };
        let hint = whole.get("reset_hint").and_then(Json::as_str).unwrap_or("unknown");
        Some(Histogram {
            counts,
            sum: double(whole.get("sum")?)?,
            schema: int32(whole.get("schema")?)?,
            zero_threshold: double(whole.get("zero_threshold")?)?,
            positive_spans: spans(positive)?,
            negative_spans: spans(negative)?,
            custom_values: whole.get("custom_values").map_or(Some(Vec::new()), |values| list(values, double))?,
            reset_hint: ResetHint::ALL.into_iter().find(|known| known.name() == hint)?,
        })
    }

    /// What is wrong with it, by the rules of Prometheus (`Histogram.Validate`); `None`: nothing.
    pub fn fault(&self) -> Option<&'static str> {
        let is_custom = self.schema == CUSTOM_SCHEMA;
        if !is_custom && !(-4..=8).contains(&self.schema) {
            return Some("a schema is from -4 to 8, or -53");
        }
        let (positive, negative, is_zero_free) = match &self.counts {
            Counts::Int { positive, negative, zero_count, .. } => (positive.len(), negative.len(), *zero_count == 0),
            Counts::Float { positive, negative, zero_count, .. } => (positive.len(), negative.len(), *zero_count == 0.0),
        };
        for (spans, buckets) in [(&self.positive_spans, positive), (&self.negative_spans, negative)] {
            if spans.iter().skip(1).any(|(offset, _)| *offset < 0) {
                return Some("only the first span may have an offset below 0");
            }
            if spans.iter().map(|(_, length)| u64::from(*length)).sum::<u64>() != buckets as u64 {
                return Some("spans and buckets differ in number");
            }
        }
        if is_custom {
            return self.custom_fault(negative, is_zero_free).or_else(|| self.count_fault());
        }
        if !self.custom_values.is_empty() {
            return Some("only schema -53 has custom values");
        }
        self.count_fault()
    }

    fn custom_fault(&self, negative: usize, is_zero_free: bool) -> Option<&'static str> {
        if self.custom_values.iter().any(|bound| !bound.is_finite()) || self.custom_values.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Some("custom values are finite and grow");
        }
        if negative > 0 || !self.negative_spans.is_empty() || !is_zero_free || self.zero_threshold != 0.0 {
            return Some("custom buckets have neither a zero bucket nor negative ones");
        }
        let end: i64 = self.positive_spans.iter().map(|(offset, length)| i64::from(*offset) + i64::from(*length)).sum();
        let begins_below = self.positive_spans.first().is_some_and(|(offset, _)| *offset < 0);
        (begins_below || end > self.custom_values.len() as i64 + 1).then_some("there are more buckets than custom values")
    }

    fn count_fault(&self) -> Option<&'static str> {
        match &self.counts {
            Counts::Int { count, zero_count, positive, negative } => {
                let mut total = u128::from(*zero_count);
                for deltas in [positive, negative] {
                    let mut bucket = 0i128;
                    for delta in deltas {
                        bucket += i128::from(*delta);
                        total += u128::try_from(bucket).ok().map_or(u128::MAX >> 1, |bucket| bucket).min(u128::from(u64::MAX));
                        if bucket < 0 {
                            return Some("a bucket counts less than 0");
                        }
                    }
                }
                // Observations that are no number are in no bucket.
                let fits = if self.sum.is_nan() { u128::from(*count) >= total } else { u128::from(*count) == total };
                (!fits).then_some("the count is not that of the buckets")
            }
            Counts::Float { count, zero_count, positive, negative } => {
                let is_negative = *count < 0.0 || *zero_count < 0.0 || positive.iter().chain(negative).any(|count| *count < 0.0);
                is_negative.then_some("a bucket counts less than 0")
            }
        }
    }
}

fn put_int(out: &mut Vec<u8>, value: i128) {
    out.extend_from_slice(value.to_string().as_bytes());
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

fn put_side(out: &mut Vec<u8>, side: &str, spans: &[(i32, u32)], buckets: &str, put: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(format!(",\"{side}\":{{\"spans\":").as_bytes());
    put_list(out, spans, |out, (offset, length)| out.extend_from_slice(format!("[{offset},{length}]").as_bytes()));
    out.extend_from_slice(format!(",\"{buckets}\":").as_bytes());
    put(out);
    out.push(b'}');
}

fn list<T>(json: &Json, item: impl Fn(&Json) -> Option<T>) -> Option<Vec<T>> {
    json.as_array()?.iter().map(item).collect()
}

fn int32(json: &Json) -> Option<i32> {
    i32::try_from(json.as_i64()?).ok()
}

/// A double as [`put_double`] writes it.
pub(crate) fn double(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| parse_special(json.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Histogram {
        Histogram {
            counts: Counts::Int { count: 7, zero_count: 2, positive: vec![1, 1, -1, 0], negative: vec![] },
            sum: 18.4,
            schema: 1,
            zero_threshold: 1e-128,
            positive_spans: vec![(0, 2), (1, 2)],
            negative_spans: vec![],
            custom_values: vec![],
            reset_hint: ResetHint::No,
        }
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
    fn a_histogram_looks_like_this_and_comes_back() {
        check(
            &example(),
            r#"{"count":7,"sum":18.4,"schema":1,"zero_threshold":1e-128,"zero_count":2,"positive":{"spans":[[0,2],[1,2]],"deltas":[1,1,-1,0]},"negative":{"spans":[],"deltas":[]},"custom_values":[],"reset_hint":"no"}"#,
        );
        let mut float = example();
        float.counts = Counts::Float { count: 7.0, zero_count: 2.5, positive: vec![1.0, 2.0, 0.5, 1.0], negative: vec![] };
        float.sum = f64::from_bits(crate::sample::STALE);
        check(
            &float,
            r#"{"count":7.0,"sum":"stale","schema":1,"zero_threshold":1e-128,"zero_count":2.5,"positive":{"spans":[[0,2],[1,2]],"counts":[1.0,2.0,0.5,1.0]},"negative":{"spans":[],"counts":[]},"custom_values":[],"reset_hint":"no"}"#,
        );
        let mut big = example();
        big.counts = Counts::Int { count: u64::MAX, zero_count: 0, positive: vec![i64::MIN, i64::MAX, 0, 0], negative: vec![] };
        let mut out = Vec::new();
        big.put(&mut out);
        assert_eq!(Histogram::parse(&out), Some(big.clone()));
        assert_eq!(big.fault(), Some("a bucket counts less than 0"));
    }

    #[test]
    fn what_prometheus_refuses_is_refused() {
        assert_eq!(example().fault(), None);
        let custom = Histogram {
            counts: Counts::Int { count: 3, zero_count: 0, positive: vec![1, 1], negative: vec![] },
            sum: 1.0,
            schema: CUSTOM_SCHEMA,
            zero_threshold: 0.0,
            positive_spans: vec![(0, 2)],
            negative_spans: vec![],
            custom_values: vec![5.0],
            reset_hint: ResetHint::Unknown,
        };
        assert_eq!(custom.fault(), None);
        type Change = fn(&mut Histogram);
        let table: [(&Histogram, Change, &str); 9] = [
            (&custom, |h| h.custom_values = vec![], "there are more buckets than custom values"),
            (&custom, |h| h.custom_values = vec![f64::NAN], "custom values are finite and grow"),
            (&custom, |h| h.custom_values = vec![2.0, 1.0], "custom values are finite and grow"),
            (&custom, |h| h.zero_threshold = 1.0, "custom buckets have neither a zero bucket nor negative ones"),
            (&custom, |h| h.schema = 9, "a schema is from -4 to 8, or -53"),
            (&custom, |h| h.schema = 3, "only schema -53 has custom values"),
            (&custom, |h| h.positive_spans = vec![(0, u32::MAX), (0, u32::MAX)], "spans and buckets differ in number"),
            (&custom, |h| h.positive_spans = vec![(0, 1), (-1, 1)], "only the first span may have an offset below 0"),
            (
                &custom,
                |h| h.counts = Counts::Int { count: 4, zero_count: 0, positive: vec![1, 1], negative: vec![] },
                "the count is not that of the buckets",
            ),
        ];
        for (histogram, change, want) in table {
            let mut changed = histogram.clone();
            change(&mut changed);
            assert_eq!(changed.fault(), Some(want));
        }
    }
}
