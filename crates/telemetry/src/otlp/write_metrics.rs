//! Samples to data points: those of OTLP as they were, those of Prometheus by what their type says.
//!
//! A counter of Prometheus is a cumulative monotonic sum, a gauge and what is unknown a gauge. The series of a classic histogram or
//! summary stay series: `_bucket`, `_count` and `_sum` are cumulative monotonic sums, others gauges. A native histogram becomes an
//! exponential one (bucket n of Prometheus ends where bucket n - 1 of OTLP does), one with bounds of its own an explicit one; counts
//! that are no whole numbers have no place in OTLP and are refused. `stale` is a point without a recorded value.

use super::Reason;
use super::json::Pairs;
use super::metrics::{EXPONENTIAL, GAUGE, HISTOGRAM, NO_VALUE, SUM, SUMMARY};
use super::transcode::{close, integer, open};
use super::write::{Members, Writer, count, elements, id, object, objects, put_attributes, put_pairs, str_of, text};
use crate::sample::{Number, STALE};
use crate::wire::{put_bytes, put_double, put_fixed64, put_message, put_raw_varint, put_varint, put_zigzag, zigzag};

/// A native histogram may be sparse; it is not made denser than this.
const BUCKETS_MAX: usize = 20_000;

/// What a metric is: points with the same go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Name, unit and metadata, encoded.
    fields: Vec<u8>,
    kind: u32,
    temporality: u64,
    is_monotonic: bool,
}

impl Key {
    pub fn id(&self) -> Vec<u8> {
        let mut id = vec![self.kind as u8, self.temporality as u8, u8::from(self.is_monotonic)];
        id.extend_from_slice(&self.fields);
        id
    }

    /// Writes the metric with its points.
    pub fn put(&self, out: &mut Vec<u8>, description: Option<&str>, points: &[u8]) {
        out.extend_from_slice(&self.fields);
        if let Some(description) = description {
            put_bytes(out, 2, description.as_bytes());
        }
        put_message(out, self.kind, |out| {
            out.extend_from_slice(points);
            if self.temporality > 0 {
                put_varint(out, 2, self.temporality);
            }
            if self.is_monotonic {
                put_varint(out, 3, 1);
            }
        });
    }
}

/// The members of the series part that tell the metric.
struct Series<'a> {
    name: String,
    kind: String,
    temporality: Option<u64>,
    is_monotonic: bool,
    labels: Members<'a>,
}

pub fn push(writer: &mut Writer, mut members: Members<'_>) -> Result<(), Reason> {
    let name = members.take_if("metric", text).and_then(|name| String::from_utf8(name.into_owned()).ok()).ok_or(Reason::Kind)?;
    if name.is_empty() {
        return Err(Reason::Name);
    }
    let at = members.get("timestamp").and_then(|value| writer.time(value)).ok_or(Reason::Time)?;
    members.take("timestamp");
    let mut fields = Vec::new();
    put_bytes(&mut fields, 1, name.as_bytes());
    if let Some(unit) = members.take_if("unit", text) {
        put_bytes(&mut fields, 3, &unit);
    }
    let depth_max = writer.options.depth_max;
    if let Some(metadata) = members.take_if("metadata", object) {
        put_pairs(&mut fields, 12, &metadata, depth_max)?;
    }
    let kind = members.take_if("type", text).map(|kind| String::from_utf8_lossy(&kind).into_owned()).unwrap_or_default();
    let temporality = members.take_if("temporality", |value| match text(value)?.as_ref() {
        b"delta" => Some(1),
        b"cumulative" => Some(2),
        _ => None,
    });
    let is_monotonic = members.take_if("monotonic", |value| str_of(value)?.parse().ok()).unwrap_or(kind == "counter");
    let labels = members.take_if("labels", |value| object(value).map(Members)).unwrap_or_default();
    let mut series = Series { name, kind, temporality, is_monotonic, labels };
    let resource = writer.resource_head(&mut members, Some(&mut series.labels))?;

    let mut point = Vec::new();
    if let Some(start) = members.take("start") {
        put_fixed64(&mut point, 2, writer.time(start).ok_or(Reason::Time)?.0 as u64);
    }
    put_fixed64(&mut point, 3, at.0 as u64);
    let data = put_data(writer, &mut members, &series, &mut point)?;
    let mut scope = members.take_scope();
    let attributes = match data.kind {
        HISTOGRAM => 9,
        EXPONENTIAL => 1,
        _ => 7,
    };
    members.0.extend(std::mem::take(&mut series.labels.0));
    put_pairs(&mut point, attributes, &keep_labels(members), depth_max)?;
    let key = Key { fields, ..data };
    writer.push_point(&mut scope, resource, &series.name, key, &point)
}

/// What steps added, unless a label has its name, and the labels.
fn keep_labels<'a>(members: Members<'a>) -> Pairs<'a> {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<_> = members.0.into_iter().rev().filter(|(name, _)| seen.insert(name.clone())).collect();
    kept.reverse();
    kept
}

fn put_data(writer: &mut Writer, members: &mut Members<'_>, series: &Series<'_>, point: &mut Vec<u8>) -> Result<Key, Reason> {
    let flags = u64::from(members.take_if("flags", count).unwrap_or(0));
    let exemplars = members.take_if("exemplars", objects).unwrap_or_default();
    let cumulative = series.temporality.unwrap_or(2);
    let key = |kind, temporality, is_monotonic| Key { fields: Vec::new(), kind, temporality, is_monotonic };
    if let Some(value) = members.take("exponential") {
        put_exponential(point, object_of(value)?)?;
        finish(writer, point, exemplars, 11, flags, 10)?;
        return Ok(key(EXPONENTIAL, cumulative, false));
    }
    if let Some(value) = members.take("histogram") {
        let histogram = object_of(value)?;
        let kind = match histogram.get("schema") {
            Some(b"-53") => put_custom(point, histogram).map(|()| HISTOGRAM)?,
            Some(_) => put_native(point, histogram).map(|()| EXPONENTIAL)?,
            None => put_histogram(point, histogram).map(|()| HISTOGRAM)?,
        };
        finish(writer, point, exemplars, if kind == HISTOGRAM { 8 } else { 11 }, flags, 10)?;
        return Ok(key(kind, cumulative, false));
    }
    if let Some(quantiles) = members.take("quantiles") {
        put_summary(point, members, quantiles)?;
        finish(writer, point, Vec::new(), 0, flags, 8)?;
        return Ok(key(SUMMARY, 0, false));
    }
    let flags = put_number(point, members.take("value"), flags)?;
    finish(writer, point, exemplars, 5, flags, 8)?;
    let is_part = matches!(series.kind.as_str(), "histogram" | "summary")
        && ["_bucket", "_count", "_sum"].iter().any(|suffix| series.name.ends_with(suffix));
    Ok(match series.temporality {
        Some(temporality) => key(SUM, temporality, series.is_monotonic),
        None if series.kind == "counter" || is_part => key(SUM, 2, true),
        None => key(GAUGE, 0, false),
    })
}

fn object_of(value: &[u8]) -> Result<Members<'_>, Reason> {
    object(value).map(Members).ok_or(Reason::Histogram)
}

/// Flags and exemplars, which all kinds have under other numbers.
fn finish(
    writer: &mut Writer,
    point: &mut Vec<u8>,
    exemplars: Vec<Members<'_>>,
    number: u32,
    flags: u64,
    flags_number: u32,
) -> Result<(), Reason> {
    for exemplar in exemplars {
        put_exemplar(writer, point, exemplar, number)?;
    }
    if flags > 0 {
        put_varint(point, flags_number, flags);
    }
    Ok(())
}

fn put_exemplar(writer: &mut Writer, point: &mut Vec<u8>, mut exemplar: Members<'_>, number: u32) -> Result<(), Reason> {
    let at = open(point, number);
    if let Some(time) = exemplar.take("timestamp") {
        put_fixed64(point, 2, writer.time(time).ok_or(Reason::Time)?.0 as u64);
    }
    match exemplar.take("value").map(|value| Number::parse(value).ok_or(Reason::Value)).transpose()? {
        Some(Number::Int(value)) => put_fixed64(point, 6, value as u64),
        Some(Number::Double(value)) => put_double(point, 3, value),
        None => {}
    }
    if let Some(id) = exemplar.take_if("span_id", id::<8>) {
        put_bytes(point, 4, &id);
    }
    if let Some(id) = exemplar.take_if("trace_id", id::<16>) {
        put_bytes(point, 5, &id);
    }
    let labels = exemplar.take_if("labels", object).unwrap_or_default();
    exemplar.0.push((std::borrow::Cow::Borrowed(b"attributes"), b"{}"));
    put_pairs(point, 7, &labels, writer.options.depth_max)?;
    put_attributes(&mut exemplar, 7, writer.options.depth_max, point)?;
    close(point, at);
    Ok(())
}

/// Returns the flags: `stale` is one.
fn put_number(point: &mut Vec<u8>, value: Option<&[u8]>, flags: u64) -> Result<u64, Reason> {
    match value.map(|value| Number::parse(value).ok_or(Reason::NoValue)).transpose()? {
        Some(Number::Double(value)) if value.to_bits() == STALE => return Ok(flags | NO_VALUE),
        Some(Number::Double(value)) => put_double(point, 4, value),
        Some(Number::Int(value)) => put_fixed64(point, 6, value as u64),
        None if flags & NO_VALUE == 0 => return Err(Reason::NoValue),
        None => {}
    }
    Ok(flags)
}

fn double(value: &[u8]) -> Result<f64, Reason> {
    Number::parse(value).map(Number::double).ok_or(Reason::Histogram)
}

/// A count: a whole number that is not negative, also written as a double.
fn whole(value: &[u8]) -> Result<u64, Reason> {
    str_of(value).and_then(integer).and_then(|count| u64::try_from(count).ok()).ok_or(Reason::Histogram)
}

fn put_double_of(point: &mut Vec<u8>, members: &Members<'_>, name: &str, number: u32) -> Result<(), Reason> {
    if let Some(value) = members.get(name) {
        put_double(point, number, double(value)?);
    }
    Ok(())
}

fn put_whole_of(point: &mut Vec<u8>, members: &Members<'_>, name: &str, number: u32) -> Result<(), Reason> {
    match members.get(name).map(whole).transpose()? {
        Some(count) if count > 0 => put_fixed64(point, number, count),
        _ => {}
    }
    Ok(())
}

fn list<'a, T>(members: &Members<'a>, name: &str, read: impl Fn(&'a [u8]) -> Result<T, Reason>) -> Result<Vec<T>, Reason> {
    let Some(value) = members.get(name) else { return Ok(Vec::new()) };
    elements(value).ok_or(Reason::Histogram)?.into_iter().map(read).collect()
}

fn put_histogram(point: &mut Vec<u8>, histogram: Members<'_>) -> Result<(), Reason> {
    put_whole_of(point, &histogram, "count", 4)?;
    put_double_of(point, &histogram, "sum", 5)?;
    put_double_of(point, &histogram, "min", 11)?;
    put_double_of(point, &histogram, "max", 12)?;
    put_explicit(point, &list(&histogram, "counts", whole)?, &list(&histogram, "bounds", double)?)
}

fn put_explicit(point: &mut Vec<u8>, counts: &[u64], bounds: &[f64]) -> Result<(), Reason> {
    let fits = counts.len() == bounds.len() + 1 || (counts.is_empty() && bounds.is_empty());
    if !fits || bounds.iter().any(|bound| bound.is_nan()) || !bounds.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err(Reason::Histogram);
    }
    if !counts.is_empty() {
        put_message(point, 6, |out| counts.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes())));
    }
    if !bounds.is_empty() {
        put_message(point, 7, |out| bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes())));
    }
    Ok(())
}

fn put_exponential(point: &mut Vec<u8>, histogram: Members<'_>) -> Result<(), Reason> {
    put_whole_of(point, &histogram, "count", 4)?;
    put_double_of(point, &histogram, "sum", 5)?;
    put_double_of(point, &histogram, "min", 12)?;
    put_double_of(point, &histogram, "max", 13)?;
    put_whole_of(point, &histogram, "zero_count", 7)?;
    if let Some(threshold) = histogram.get("zero_threshold").map(double).transpose()?.filter(|threshold| *threshold != 0.0) {
        put_double(point, 14, threshold);
    }
    if let Some(scale) = histogram.get("scale").map(small).transpose()?.filter(|scale| *scale != 0) {
        put_zigzag(point, 6, i64::from(scale));
    }
    for (name, number) in [("positive", 8), ("negative", 9)] {
        let Some(side) = histogram.get(name) else { continue };
        let side = object_of(side)?;
        let offset = side.get("offset").map(small).transpose()?.unwrap_or(0);
        put_buckets(point, number, offset, &list(&side, "counts", whole)?);
    }
    Ok(())
}

fn small(value: &[u8]) -> Result<i32, Reason> {
    str_of(value).and_then(integer).and_then(|number| i32::try_from(number).ok()).ok_or(Reason::Histogram)
}

fn put_buckets(point: &mut Vec<u8>, number: u32, offset: i32, counts: &[u64]) {
    put_message(point, number, |out| {
        if offset != 0 {
            put_varint(out, 1, zigzag(i64::from(offset)));
        }
        if !counts.is_empty() {
            put_message(out, 2, |out| counts.iter().for_each(|count| put_raw_varint(out, *count)));
        }
    });
}

/// `"positive":{"spans":[[0,2]],"deltas":[1,1]}`, or `counts` in place of `deltas`.
fn put_native(point: &mut Vec<u8>, histogram: Members<'_>) -> Result<(), Reason> {
    let scale = histogram.get("schema").map(small).transpose()?.unwrap_or(0);
    put_whole_of(point, &histogram, "count", 4)?;
    put_double_of(point, &histogram, "sum", 5)?;
    put_whole_of(point, &histogram, "zero_count", 7)?;
    if let Some(threshold) = histogram.get("zero_threshold").map(double).transpose()?.filter(|threshold| *threshold != 0.0) {
        put_double(point, 14, threshold);
    }
    if scale != 0 {
        put_zigzag(point, 6, i64::from(scale));
    }
    for (name, number) in [("positive", 8), ("negative", 9)] {
        if let Some((first, counts)) = native_side(&histogram, name)? {
            let offset = first.checked_sub(1).and_then(|first| i32::try_from(first).ok()).ok_or(Reason::Histogram)?;
            put_buckets(point, number, offset, &counts);
        }
    }
    Ok(())
}

/// The index of the first bucket, and the counts from there on.
fn native_side(histogram: &Members<'_>, name: &str) -> Result<Option<(i64, Vec<u64>)>, Reason> {
    let Some(side) = histogram.get(name) else { return Ok(None) };
    let side = object_of(side)?;
    let counts = if side.get("deltas").is_some() {
        let mut count = 0i64;
        let deltas = list(&side, "deltas", |value| str_of(value).and_then(|text| text.parse::<i64>().ok()).ok_or(Reason::Histogram))?;
        let add = |delta: i64| {
            count = count.checked_add(delta).filter(|count| *count >= 0)?;
            Some(count as u64)
        };
        deltas.into_iter().map(add).collect::<Option<Vec<u64>>>().ok_or(Reason::Histogram)?
    } else {
        list(&side, "counts", whole)?
    };
    let mut left = counts.into_iter();
    let (mut first, mut dense) = (None, Vec::new());
    for span in list(&side, "spans", |span| elements(span).ok_or(Reason::Histogram))? {
        let [offset, length] = span.as_slice() else { return Err(Reason::Histogram) };
        let (offset, length) = (i64::from(small(offset)?), usize::try_from(small(length)?).map_err(|_| Reason::Histogram)?);
        let gap = match first {
            None => {
                first = Some(offset);
                0
            }
            Some(_) => usize::try_from(offset).map_err(|_| Reason::Histogram)?,
        };
        if dense.len() + gap.min(BUCKETS_MAX + 1) + length.min(BUCKETS_MAX + 1) > BUCKETS_MAX {
            return Err(Reason::Histogram);
        }
        dense.resize(dense.len() + gap, 0);
        for _ in 0..length {
            dense.push(left.next().ok_or(Reason::Histogram)?);
        }
    }
    if left.next().is_some() {
        return Err(Reason::Histogram);
    }
    Ok(first.filter(|_| !dense.is_empty()).map(|first| (first, dense)))
}

/// Bounds of its own: `custom_values`, and the buckets between them counted from 0.
fn put_custom(point: &mut Vec<u8>, histogram: Members<'_>) -> Result<(), Reason> {
    put_whole_of(point, &histogram, "count", 4)?;
    put_double_of(point, &histogram, "sum", 5)?;
    let bounds = list(&histogram, "custom_values", double)?;
    let (first, dense) = native_side(&histogram, "positive")?.unwrap_or((0, Vec::new()));
    let first = usize::try_from(first).map_err(|_| Reason::Histogram)?;
    if first.saturating_add(dense.len()) > bounds.len() + 1 {
        return Err(Reason::Histogram);
    }
    let mut counts = vec![0; bounds.len() + 1];
    counts[first..first + dense.len()].copy_from_slice(&dense);
    put_explicit(point, &counts, &bounds)
}

fn put_summary(point: &mut Vec<u8>, members: &mut Members<'_>, quantiles: &[u8]) -> Result<(), Reason> {
    for (name, number) in [("count", 4), ("sum", 5)] {
        let Some(value) = members.take(name) else { continue };
        match number {
            4 => put_fixed64(point, 4, whole(value)?),
            _ => put_double(point, 5, double(value)?),
        }
    }
    for pair in elements(quantiles).ok_or(Reason::Quantile)? {
        let pair = elements(pair).ok_or(Reason::Quantile)?;
        let [quantile, value] = pair.as_slice() else { return Err(Reason::Quantile) };
        let (quantile, value) = (double(quantile)?, double(value)?);
        if !(0.0..=1.0).contains(&quantile) {
            return Err(Reason::Quantile);
        }
        put_message(point, 6, |out| {
            put_double(out, 1, quantile);
            put_double(out, 2, value);
        });
    }
    Ok(())
}
