//! The lines of a metric, one for each data point: a series part, then a sample part, as [`sample`](crate::sample) has them.
//!
//! A monotonic sum is a counter, another one a gauge with `"monotonic":false`; both, and histograms, say their temporality, so that
//! nothing is guessed on the way out (EB 4.7). Histograms: `"histogram":{"count","sum","min","max","bounds","counts"}`, exponential
//! ones `"exponential":{…,"scale","zero_count","zero_threshold","positive":{"offset","counts"},"negative"}`, summaries
//! `"quantiles":[[0.5,1.0]],"count","sum"`. A point without a recorded value is `"value":"stale","flags":1`. Descriptions are told
//! aside, for a line holds what tells series apart.

use super::Reason;
use super::lines::{Fault, Lines, optional_id, time};
use super::spans::put_list;
use super::text::{put_signed, put_unsigned};
use crate::sample::put_double;
use crate::wire::{self, Field, Message, read_varint};

pub const GAUGE: u32 = 5;
pub const SUM: u32 = 7;
pub const HISTOGRAM: u32 = 9;
pub const EXPONENTIAL: u32 = 10;
pub const SUMMARY: u32 = 11;

/// Of a point's flags: nothing was recorded.
pub const NO_VALUE: u64 = 1;

#[derive(Default)]
struct Metric<'a> {
    name: &'a [u8],
    description: &'a [u8],
    unit: &'a [u8],
    data: Option<(u32, &'a [u8])>,
    temporality: u64,
    is_monotonic: bool,
}

/// Writes a line for each point, or counts why not.
pub fn put<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<(), wire::Malformed> {
    lines.head.clear();
    let metric = parse(message)?;
    let Some((kind, data)) = metric.data else {
        // A marked metric never comes alone: the transcoder marks points.
        lines.reject(Reason::NoData);
        return Ok(());
    };
    let fault = match put_head(lines, &metric, kind, message) {
        Ok(()) => None,
        Err(Fault::Item(reason)) => Some(reason),
        Err(Fault::Malformed) => return Err(wire::Malformed),
    };
    let written = lines.accepted.items;
    for field in Message::new(data) {
        let (1, point) = field? else { continue };
        let point = point.bytes()?;
        match fault {
            Some(reason) => lines.reject(reason),
            None => lines.item(|lines| put_point(lines, kind, point))?,
        }
    }
    if lines.accepted.items > written {
        describe(lines, &metric);
    }
    Ok(())
}

fn parse(message: &[u8]) -> Result<Metric<'_>, wire::Malformed> {
    let mut metric = Metric::default();
    for field in Message::new(message) {
        match field? {
            (1, field) => metric.name = field.bytes()?,
            (2, field) => metric.description = field.bytes()?,
            (3, field) => metric.unit = field.bytes()?,
            (kind @ (GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY), field) => metric.data = Some((kind, field.bytes()?)),
            _ => {}
        }
    }
    for field in Message::new(metric.data.map_or(b"", |(_, data)| data)) {
        match field? {
            (2, field) => metric.temporality = field.varint()?,
            (3, field) => metric.is_monotonic = field.varint()? != 0,
            _ => {}
        }
    }
    Ok(metric)
}

/// The series part up to the resource.
fn put_head<'a>(lines: &mut Lines<'a, '_>, metric: &Metric<'a>, kind: u32, message: &'a [u8]) -> Result<(), Fault> {
    let start = lines.out.len();
    let result = write_head(lines, metric, kind, message);
    if result.is_ok() {
        lines.head.extend_from_slice(&lines.out[start..]);
    }
    lines.out.truncate(start);
    result
}

fn write_head<'a>(lines: &mut Lines<'a, '_>, metric: &Metric<'a>, kind: u32, message: &'a [u8]) -> Result<(), Fault> {
    std::str::from_utf8(metric.description).map_err(|_| Reason::Utf8)?;
    if metric.name.is_empty() {
        return Err(Fault::Item(Reason::Name));
    }
    lines.put_text(b"{\"metric\":", metric.name)?;
    let named = match kind {
        SUM if metric.is_monotonic => "counter",
        SUM | GAUGE => "gauge",
        SUMMARY => "summary",
        _ => "histogram",
    };
    lines.put_text(b",\"type\":", named.as_bytes())?;
    lines.put_text(b",\"unit\":", metric.unit)?;
    if matches!(kind, SUM | HISTOGRAM | EXPONENTIAL) {
        let temporality = match metric.temporality {
            1 => "delta",
            2 => "cumulative",
            _ => return Err(Fault::Item(Reason::Temporality)),
        };
        lines.put_text(b",\"temporality\":", temporality.as_bytes())?;
    }
    if kind == SUM {
        lines.out.extend_from_slice(if metric.is_monotonic { b",\"monotonic\":true" } else { b",\"monotonic\":false" });
    }
    lines.pairs.clear();
    for field in Message::new(message) {
        if let (12, field) = field? {
            lines.add_pair(field)?;
        }
    }
    lines.put_attributes(b",\"metadata\":", 0)
}

fn describe(lines: &mut Lines<'_, '_>, metric: &Metric<'_>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned(); // checked
    let descriptions = &lines.accepted.descriptions;
    let is_told = descriptions
        .last()
        .is_some_and(|(name, description)| name.as_bytes() == metric.name && description.as_bytes() == metric.description);
    if metric.description.is_empty() || is_told || descriptions.len() >= lines.options.descriptions_max {
        return;
    }
    lines.accepted.descriptions.push((text(metric.name), text(metric.description)));
}

/// What points of all kinds have; the numbers of their fields differ.
struct Numbers {
    attributes: u32,
    exemplars: u32,
    flags: u32,
}

const fn numbers(kind: u32) -> Numbers {
    match kind {
        HISTOGRAM => Numbers { attributes: 9, exemplars: 8, flags: 10 },
        EXPONENTIAL => Numbers { attributes: 1, exemplars: 11, flags: 10 },
        SUMMARY => Numbers { attributes: 7, exemplars: 0, flags: 8 },
        _ => Numbers { attributes: 7, exemplars: 5, flags: 8 },
    }
}

fn put_point<'a>(lines: &mut Lines<'a, '_>, kind: u32, point: &'a [u8]) -> Result<(), Fault> {
    let numbers = numbers(kind);
    let (mut start, mut at, mut flags, mut has_exemplars) = (0, 0, 0, false);
    for field in Message::new(point) {
        match field? {
            (2, field) => start = field.fixed64()?,
            (3, field) => at = field.fixed64()?,
            (number, field) if number == numbers.attributes => lines.add_pair(field)?,
            (number, field) if number == numbers.flags => flags = u64::from(field.varint()? as u32),
            (number, _) if number == numbers.exemplars => has_exemplars = true,
            (number, field) => lines.other(number, field)?,
        }
    }
    let (at, start) = (time(at)?.ok_or(Reason::Time)?, time(start)?);
    lines.out.extend_from_slice(&lines.head);
    lines.put_shared();
    lines.out.extend_from_slice(b",\"labels\":");
    lines.put_object(0, 0)?;
    lines.put_time(b",\"timestamp\":", Some(at));
    lines.put_time(b",\"start\":", start);
    match kind {
        HISTOGRAM => put_histogram(lines, point)?,
        EXPONENTIAL => put_exponential(lines, point)?,
        SUMMARY => put_summary(lines, point)?,
        _ => put_number(lines, point, flags)?,
    }
    if has_exemplars {
        put_list(lines, point, numbers.exemplars, b",\"exemplars\":[", put_exemplar)?;
    }
    lines.put_count(b",\"flags\":", flags);
    lines.out.extend_from_slice(b"}\n");
    Ok(())
}

/// `as_double` is field `double` here, `as_int` is 6; the last one counts. False: there is none.
fn put_value(lines: &mut Lines<'_, '_>, message: &[u8], double: u32) -> Result<bool, Fault> {
    let mut value = None;
    for field in Message::new(message) {
        match field? {
            (number, field) if number == double || number == 6 => value = Some((number, field.fixed64()?)),
            _ => {}
        }
    }
    let Some((number, bits)) = value else { return Ok(false) };
    lines.out.extend_from_slice(b",\"value\":");
    match number {
        6 => put_signed(lines.out, bits as i64),
        _ => put_double(lines.out, f64::from_bits(bits)),
    }
    Ok(true)
}

fn put_number(lines: &mut Lines<'_, '_>, point: &[u8], flags: u64) -> Result<(), Fault> {
    if put_value(lines, point, 4)? {
        return Ok(());
    }
    if flags & NO_VALUE == 0 {
        return Err(Fault::Item(Reason::NoValue));
    }
    lines.out.extend_from_slice(b",\"value\":\"stale\"");
    Ok(())
}

fn put_exemplar<'a>(lines: &mut Lines<'a, '_>, message: &'a [u8]) -> Result<(), Fault> {
    let (mut at, mut trace_id, mut span_id, base) = (0, &b""[..], &b""[..], lines.pairs.len());
    for field in Message::new(message) {
        match field? {
            (2, field) => at = field.fixed64()?,
            (4, field) => span_id = field.bytes()?,
            (5, field) => trace_id = field.bytes()?,
            (7, field) => lines.add_pair(field)?,
            _ => {}
        }
    }
    lines.put_attributes(b",\"labels\":", base)?;
    put_value(lines, message, 3)?;
    lines.put_time(b",\"timestamp\":", time(at)?);
    lines.put_id(b",\"trace_id\":", optional_id::<16>(trace_id, Reason::TraceId)?);
    lines.put_id(b",\"span_id\":", optional_id::<8>(span_id, Reason::SpanId)?);
    Ok(())
}

fn put_double_member(lines: &mut Lines<'_, '_>, before: &[u8], value: Option<f64>) {
    if let Some(value) = value {
        lines.out.extend_from_slice(before);
        put_double(lines.out, value);
    }
}

fn put_histogram(lines: &mut Lines<'_, '_>, point: &[u8]) -> Result<(), Fault> {
    let (mut count, mut sum, mut min, mut max) = (0, None, None, None);
    lines.counts.clear();
    lines.bounds.clear();
    for field in Message::new(point) {
        match field? {
            (4, field) => count = field.fixed64()?,
            (5, field) => sum = Some(field.double()?),
            (6, field) => each_fixed64(field, |bits| lines.counts.push(bits))?,
            (7, field) => each_fixed64(field, |bits| lines.bounds.push(f64::from_bits(bits)))?,
            (11, field) => min = Some(field.double()?),
            (12, field) => max = Some(field.double()?),
            _ => {}
        }
    }
    let fits = lines.counts.len() == lines.bounds.len() + 1 || (lines.counts.is_empty() && lines.bounds.is_empty());
    let rises = lines.bounds.iter().all(|bound| !bound.is_nan()) && lines.bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !fits || !rises {
        return Err(Fault::Item(Reason::Histogram));
    }
    lines.out.extend_from_slice(b",\"histogram\":{\"count\":");
    put_unsigned(lines.out, count);
    put_double_member(lines, b",\"sum\":", sum);
    put_double_member(lines, b",\"min\":", min);
    put_double_member(lines, b",\"max\":", max);
    if !lines.counts.is_empty() {
        lines.out.extend_from_slice(b",\"bounds\":[");
        for (n, bound) in lines.bounds.iter().enumerate() {
            lines.out.extend_from_slice(if n > 0 { b"," } else { b"" });
            put_double(lines.out, *bound);
        }
        lines.out.extend_from_slice(b"],\"counts\":[");
        for (n, count) in lines.counts.iter().enumerate() {
            lines.out.extend_from_slice(if n > 0 { b"," } else { b"" });
            put_unsigned(lines.out, *count);
        }
        lines.out.push(b']');
    }
    lines.out.push(b'}');
    Ok(())
}

/// Packed or one by one.
fn each_fixed64(field: Field<'_>, mut each: impl FnMut(u64)) -> Result<(), wire::Malformed> {
    let Field::Bytes(packed) = field else {
        each(field.fixed64()?);
        return Ok(());
    };
    let (chunks, rest) = packed.as_chunks::<8>();
    chunks.iter().for_each(|bits| each(u64::from_le_bytes(*bits)));
    if rest.is_empty() { Ok(()) } else { Err(wire::Malformed) }
}

fn put_exponential<'a>(lines: &mut Lines<'a, '_>, point: &'a [u8]) -> Result<(), Fault> {
    let (mut count, mut sum, mut min, mut max, mut scale, mut zero_count, mut threshold) = (0, None, None, None, 0, 0, 0.0);
    let (mut positive, mut negative) = (None, None);
    for field in Message::new(point) {
        match field? {
            (4, field) => count = field.fixed64()?,
            (5, field) => sum = Some(field.double()?),
            (6, field) => scale = i64::from(field.zigzag()? as i32),
            (7, field) => zero_count = field.fixed64()?,
            (8, field) => positive = Some(field.bytes()?),
            (9, field) => negative = Some(field.bytes()?),
            (12, field) => min = Some(field.double()?),
            (13, field) => max = Some(field.double()?),
            (14, field) => threshold = field.double()?,
            _ => {}
        }
    }
    if threshold.is_nan() || threshold < 0.0 {
        return Err(Fault::Item(Reason::Histogram));
    }
    lines.out.extend_from_slice(b",\"exponential\":{\"count\":");
    put_unsigned(lines.out, count);
    put_double_member(lines, b",\"sum\":", sum);
    put_double_member(lines, b",\"min\":", min);
    put_double_member(lines, b",\"max\":", max);
    lines.out.extend_from_slice(b",\"scale\":");
    put_signed(lines.out, scale);
    lines.out.extend_from_slice(b",\"zero_count\":");
    put_unsigned(lines.out, zero_count);
    lines.out.extend_from_slice(b",\"zero_threshold\":");
    put_double(lines.out, threshold);
    put_buckets(lines, b",\"positive\":{\"offset\":", positive)?;
    put_buckets(lines, b",\"negative\":{\"offset\":", negative)?;
    lines.out.push(b'}');
    Ok(())
}

fn put_buckets<'a>(lines: &mut Lines<'a, '_>, before: &[u8], buckets: Option<&'a [u8]>) -> Result<(), Fault> {
    let Some(buckets) = buckets else { return Ok(()) };
    let mut offset = 0;
    for field in Message::new(buckets) {
        if let (1, field) = field? {
            offset = i64::from(field.zigzag()? as i32);
        }
    }
    lines.out.extend_from_slice(before);
    put_signed(lines.out, offset);
    lines.out.extend_from_slice(b",\"counts\":[");
    let mut is_first = true;
    let mut put = |count: u64| {
        lines.out.extend_from_slice(if std::mem::replace(&mut is_first, false) { b"" } else { b"," });
        put_unsigned(lines.out, count);
    };
    for field in Message::new(buckets) {
        match field? {
            (2, Field::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    put(read_varint(&mut packed)?);
                }
            }
            (2, field) => put(field.varint()?),
            _ => {}
        }
    }
    lines.out.extend_from_slice(b"]}");
    Ok(())
}

fn put_summary(lines: &mut Lines<'_, '_>, point: &[u8]) -> Result<(), Fault> {
    let (mut count, mut sum) = (0, 0.0);
    lines.out.extend_from_slice(b",\"quantiles\":[");
    let mut is_first = true;
    for field in Message::new(point) {
        match field? {
            (4, field) => count = field.fixed64()?,
            (5, field) => sum = field.double()?,
            (6, field) => {
                let (mut quantile, mut value) = (0.0, 0.0);
                for field in field.message()? {
                    match field? {
                        (1, field) => quantile = field.double()?,
                        (2, field) => value = field.double()?,
                        _ => {}
                    }
                }
                if !(0.0..=1.0).contains(&quantile) {
                    return Err(Fault::Item(Reason::Quantile));
                }
                lines.out.extend_from_slice(if std::mem::replace(&mut is_first, false) { b"[" } else { b",[" });
                put_double(lines.out, quantile);
                lines.out.push(b',');
                put_double(lines.out, value);
                lines.out.push(b']');
            }
            _ => {}
        }
    }
    lines.out.extend_from_slice(b"],\"count\":");
    put_unsigned(lines.out, count);
    lines.out.extend_from_slice(b",\"sum\":");
    put_double(lines.out, sum);
    Ok(())
}
