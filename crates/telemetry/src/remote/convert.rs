//! Points of OTLP as Prometheus has them: classic histograms, exponential ones, summaries, exemplars.
//!
//! In: JSON values of a record's members. Out: numbers, checked; what Prometheus cannot hold is refused with its reason.
//! Source: <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>.

use super::Reason;
use crate::histogram::{Buckets, Count, Histogram, Side, Span, double};
use crate::sample::STALE;
use flow::fields::Kind;
use flow::time::TimeParser;
use serde_json::value::Value as Json;

/// Prometheus' choice where OTLP says nothing.
const ZERO_THRESHOLD: f64 = 1e-128;

/// `{"count":…,"sum":…,"bounds":[…],"counts":[…]}`.
pub(super) struct Classic {
    pub count: u64,
    pub sum: Option<f64>,
    /// Upper bounds, growing, without `+Inf`.
    pub bounds: Vec<f64>,
    /// One more than bounds; or none at all.
    pub counts: Vec<u64>,
}

pub(super) fn classic(json: &Json, buckets_max: usize) -> Result<Classic, Reason> {
    let list = |name: &str| json.get(name).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let bounds: Option<Vec<f64>> = list("bounds").iter().map(double).collect();
    let counts: Option<Vec<u64>> = list("counts").iter().map(unsigned).collect();
    let (Some(bounds), Some(counts), Some(count)) = (bounds, counts, json.get("count").and_then(unsigned)) else {
        return Err(Reason::BadHistogram);
    };
    let fits = counts.len() == bounds.len() + 1 || (counts.is_empty() && bounds.is_empty());
    let total = counts.iter().try_fold(0u64, |total, count| total.checked_add(*count));
    let grows = bounds.iter().all(|bound| !bound.is_nan()) && bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !fits || !grows || bounds.len() > buckets_max || total.is_none_or(|total| total > count) {
        return Err(Reason::BadHistogram);
    }
    Ok(Classic { count, sum: json.get("sum").and_then(double), bounds, counts })
}

/// A bound or quantile as the value of a label: the shortest decimal, without an exponent.
pub(super) fn label_of(bound: f64) -> String {
    if bound == f64::INFINITY { "+Inf".to_owned() } else { bound.to_string() }
}

/// `{"count":…,"sum":…,"scale":…,"zero_count":…,"zero_threshold":…,"positive":{"offset":…,"counts":[…]},"negative":{…}}`.
pub(super) fn exponential(json: &Json, is_stale: bool) -> Result<Histogram, Reason> {
    let scale = json.get("scale").and_then(Json::as_i64).and_then(|scale| i32::try_from(scale).ok()).ok_or(Reason::BadHistogram)?;
    if scale < -4 {
        return Err(Reason::ScaleTooSmall);
    }
    if is_stale {
        return Ok(stale(scale.min(8)));
    }
    let scale_down = (i64::from(scale) - 8).max(0) as u32;
    let side = |name: &str| -> Option<Side> {
        let Some(side) = json.get(name).filter(|side| !side.is_null()) else { return Some(Default::default()) };
        let offset = side.get("offset").map_or(Some(0), Json::as_i64).and_then(|offset| i32::try_from(offset).ok())?;
        let counts: Option<Vec<u64>> =
            side.get("counts").and_then(Json::as_array).map_or(&[][..], Vec::as_slice).iter().map(unsigned).collect();
        layout(&counts?, offset, scale_down)
    };
    let (Some(positive), Some(negative)) = (side("positive"), side("negative")) else {
        return Err(Reason::BadHistogram);
    };
    let count = json.get("count").and_then(unsigned).ok_or(Reason::BadHistogram)?;
    let zero_count = json.get("zero_count").map_or(Some(0), unsigned).ok_or(Reason::BadHistogram)?;
    let zero_threshold = json.get("zero_threshold").and_then(double).filter(|threshold| *threshold > 0.0).unwrap_or(ZERO_THRESHOLD);
    let histogram = Histogram {
        count: Count::Int(count),
        // Without a sum, as where values below 0 were seen, the specification asks for the stale NaN, which would end the series
        // for every reader; Prometheus writes 0, and so does this.
        sum: json.get("sum").and_then(double).unwrap_or(0.0),
        schema: scale.min(8),
        zero_threshold,
        zero_count: Count::Int(zero_count),
        positive,
        negative,
        ..Histogram::default()
    };
    histogram.validate().map(|()| histogram).map_err(|_| Reason::BadHistogram)
}

/// The marker that a series of histograms has ended, as Prometheus writes it: a stale sum and nothing else.
fn stale(schema: i32) -> Histogram {
    Histogram { sum: f64::from_bits(STALE), schema, zero_threshold: ZERO_THRESHOLD, ..Histogram::default() }
}

/// Spans and deltas of dense buckets, of which 2^`scale_down` at a time become one. A bucket of OTLP is numbered by its lower
/// bound, one of Prometheus by its upper, so numbers are one higher. Up to two empty buckets are written out, more become a gap.
/// `None`: a number does not fit.
pub(super) fn layout(counts: &[u64], offset: i32, scale_down: u32) -> Option<Side> {
    let number = |n: usize| ((i64::from(offset) + n as i64) >> scale_down.min(63)) + 1;
    let (mut spans, mut deltas) = (Vec::<Span>::new(), Vec::new());
    let (mut next, mut before) = (0i64, 0i64);
    let mut at = 0;
    while at < counts.len() {
        let this = number(at);
        let merged = counts[at..].iter().enumerate().take_while(|(n, _)| number(at + n) == this).map(|(_, count)| *count);
        let (mut len, mut count) = (0, 0u64);
        for more in merged {
            len += 1;
            count = count.checked_add(more)?;
        }
        at += len;
        if count == 0 {
            continue;
        }
        let count = i64::try_from(count).ok()?;
        let gap = this - next;
        match spans.last_mut() {
            Some(span) if gap <= 2 => {
                for _ in 0..gap {
                    deltas.push(-before);
                    before = 0;
                }
                span.len += gap as u32 + 1;
            }
            _ => spans.push(Span { offset: i32::try_from(gap).ok()?, len: 1 }),
        }
        deltas.push(count - before);
        (before, next) = (count, this + 1);
    }
    Some(Side { spans, buckets: Buckets::Deltas(deltas) })
}

/// Quantiles of a summary with their values: pairs, objects of `quantile` and `value`, or an object by quantile.
pub(super) fn quantiles(json: &Json) -> Option<Vec<(f64, f64)>> {
    match json {
        Json::Array(list) => list
            .iter()
            .map(|item| match item {
                Json::Array(pair) => Some((double(pair.first()?)?, double(pair.get(1)?)?)),
                item => Some((double(item.get("quantile")?)?, double(item.get("value")?)?)),
            })
            .collect(),
        Json::Object(named) => named.iter().map(|(quantile, value)| Some((quantile.parse().ok()?, double(value)?))).collect(),
        _ => None,
    }
}

pub(super) fn unsigned(json: &Json) -> Option<u64> {
    json.as_u64().or_else(|| json.as_str()?.parse().ok())
}

pub(crate) struct Exemplar {
    /// Sorted by name, each once.
    pub labels: Vec<(String, String)>,
    pub value: f64,
    pub at_ms: i64,
}

/// Exemplars of a record; one that is none is passed over, one without a time has that of its sample.
pub(crate) fn exemplars(json: &[u8], sample_ms: i64, times: &mut TimeParser) -> Vec<Exemplar> {
    let Ok(Json::Array(list)) = serde_json::from_slice(json) else { return Vec::new() };
    let mut found: Vec<Exemplar> = list.iter().filter_map(|item| exemplar(item, sample_ms, times)).collect();
    found.sort_by_key(|exemplar| exemplar.at_ms);
    found
}

fn exemplar(item: &Json, sample_ms: i64, times: &mut TimeParser) -> Option<Exemplar> {
    let value = item.get("value").and_then(double)?;
    let mut labels: Vec<(String, String)> = Vec::new();
    for (name, value) in item.get("labels").and_then(Json::as_object).into_iter().flatten() {
        labels.push((name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    }
    for name in ["trace_id", "span_id"] {
        if let Some(id) = item.get(name).and_then(Json::as_str)
            && !labels.iter().any(|(known, _)| known == name)
        {
            labels.push((name.to_owned(), id.to_owned()));
        }
    }
    labels.retain(|(name, value)| !name.is_empty() && !value.is_empty());
    labels.sort_unstable();
    let stamp = item.get("timestamp").and_then(Json::as_str);
    let at = stamp.and_then(|stamp| times.parse(stamp.as_bytes(), Kind::Text));
    Some(Exemplar { labels, value, at_ms: at.map_or(sample_ms, |at| at.0.div_euclid(1_000_000)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::tests::side;

    /// Vectors of prometheus/prometheus, `TestConvertBucketsLayout`.
    #[test]
    fn dense_buckets_become_spans_and_deltas() {
        type Row = (&'static [u64], i32, u32, &'static [(i32, u32)], &'static [i64]);
        let table: [Row; 24] = [
            (&[4, 3, 2, 1], 0, 0, &[(1, 4)], &[4, -1, -1, -1]),
            (&[4, 3, 2, 1], 0, 1, &[(1, 2)], &[7, -4]),
            (&[4, 3, 2, 1], 0, 2, &[(1, 1)], &[10]),
            (&[4, 3, 2, 1], 1, 0, &[(2, 4)], &[4, -1, -1, -1]),
            (&[4, 3, 2, 1], 1, 1, &[(1, 3)], &[4, 1, -4]),
            (&[4, 3, 2, 1], 1, 2, &[(1, 2)], &[9, -8]),
            (&[4, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 4, 0, &[(5, 4), (12, 1)], &[4, -2, -2, 2, -1]),
            (&[4, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 4, 1, &[(3, 2), (6, 1)], &[6, -4, -1]),
            (&[4, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 4, 2, &[(2, 1), (3, 1)], &[8, -7]),
            (&[4, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1], 4, 0, &[(5, 4), (8, 1)], &[4, -2, -2, 2, -1]),
            (&[4, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1], 4, 1, &[(3, 2), (4, 1)], &[6, -4, -1]),
            (&[4, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1], 4, 2, &[(2, 4)], &[8, -8, 0, 1]),
            (&[3, 1, 0, 0, 0, 1], -2, 0, &[(-1, 2), (3, 1)], &[3, -2, 0]),
            (&[3, 1, 0, 0, 0, 1], -2, 1, &[(0, 3)], &[4, -4, 1]),
            (&[3, 1, 0, 0, 0, 1], -2, 2, &[(0, 2)], &[4, -3]),
            (&[3, 1, 0, 1, 0, 1], -2, 0, &[(-1, 6)], &[3, -2, -1, 1, -1, 1]),
            (&[3, 1, 0, 1, 0, 1], -2, 1, &[(0, 3)], &[4, -3, 0]),
            (&[3, 1, 0, 1, 0, 1], -2, 2, &[(0, 2)], &[4, -2]),
            (&[3, 0, 0, 1, 0, 0, 1], -2, 0, &[(-1, 7)], &[3, -3, 0, 1, -1, 0, 1]),
            (&[3, 0, 0, 1, 0, 0, 1], -2, 1, &[(0, 4)], &[3, -2, -1, 1]),
            (&[3, 0, 0, 1, 0, 0, 1], -2, 2, &[(0, 3)], &[3, -2, 0]),
            (&[], 3, 0, &[], &[]),
            (&[0, 0, 0], 3, 0, &[], &[]),
            (&[0, 0, 0, 0, 5, 0], 0, 0, &[(5, 1)], &[5]),
        ];
        for (counts, offset, scale_down, spans, deltas) in table {
            assert_eq!(layout(counts, offset, scale_down), Some(side(spans, deltas)), "{counts:?} from {offset} down {scale_down}");
        }
        assert_eq!(layout(&[1], i32::MAX, 0), None);
        assert_eq!(layout(&[u64::MAX], 0, 0), None);
        assert_eq!(layout(&[1, 2], i32::MIN, u32::MAX), Some(side(&[(0, 1)], &[3])));
    }

    /// Vectors of prometheus/prometheus, `TestExponentialToNativeHistogram`.
    #[test]
    fn exponential_histograms_become_native_ones() {
        let parse = |json: &str| exponential(&serde_json::from_str(json).expect("JSON"), false);
        let one = r#"{"count":5,"sum":10.1,"scale":1,"zero_count":1,"positive":{"offset":1,"counts":[1,1]},"negative":{"offset":1,"counts":[1,1]}}"#;
        let mut out = Vec::new();
        parse(one).expect("a histogram").put(&mut out);
        let want = r#"{"count":5,"sum":10.1,"schema":1,"zero_threshold":1e-128,"zero_count":1,"positive":{"spans":[[2,2]],"deltas":[1,0]},"negative":{"spans":[[2,2]],"deltas":[1,0]},"reset_hint":"unknown"}"#;
        assert_eq!(String::from_utf8_lossy(&out), want);
        let down = r#"{"count":7,"sum":10.1,"scale":9,"zero_count":1,"positive":{"offset":1,"counts":[1,1,1]},"negative":{"offset":2,"counts":[1,1,1]}}"#;
        let down = parse(down).expect("a histogram");
        assert_eq!((down.schema, down.count, down.zero_count), (8, Count::Int(7), Count::Int(1)));
        assert_eq!((down.positive, down.negative), (side(&[(1, 2)], &[1, 1]), side(&[(2, 2)], &[2, -1])));
        assert_eq!(parse(r#"{"count":0,"scale":-10}"#), Err(Reason::ScaleTooSmall));
        assert_eq!(parse(r#"{"count":3,"scale":0,"positive":{"offset":0,"counts":[1]}}"#), Err(Reason::BadHistogram));
        let stale = exponential(&serde_json::json!({"count": 0, "scale": 20}), true).expect("a marker");
        assert_eq!((stale.sum.to_bits(), stale.schema), (STALE, 8));
    }

    #[test]
    fn bounds_are_written_without_an_exponent() {
        let bounds = [0.005, 1.0, 2.5, 1e21, -0.5, f64::INFINITY];
        assert_eq!(bounds.map(label_of), ["0.005", "1", "2.5", "1000000000000000000000", "-0.5", "+Inf"]);
    }
}
