//! Answers a question from series and their points, at one moment or step by step.
//!
//! In: series with points in the order of their times. Out: elements sorted by labels. Which series a selector means is found once, not
//! for each step; a step costs a binary search for each series, and the points of its window where there is one. Bound: [`STEPS_MAX`]
//! steps. Semantics: Prometheus 3 (promql/engine.go, functions.go, quantile.go).

use super::{Aggregate, At, Expr, Function, Labels, NAME, Query, Selector, label, select};
use crate::sample::{self, STALE};
use flow::units::{NANOS_PER_MINUTE, UnixNanos};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;

/// How far back the last point of a series may be, in nanoseconds.
pub const LOOKBACK: i64 = 5 * NANOS_PER_MINUTE;
/// As in Prometheus.
pub const STEPS_MAX: usize = 11_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub at: UnixNanos,
    pub value: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Series {
    pub labels: Labels,
    /// In the order of their times, stale markers among them.
    pub points: Vec<Point>,
}

impl Series {
    /// Without points yet. What steps added to a record, such as its tenant, is a label too where no label has its name.
    pub fn of(series: &sample::Series) -> Series {
        const OTLP: [&str; 4] = ["temporality", "monotonic", "resource", "scope"];
        let mut labels: Labels = series.labels.iter().filter(|(name, value)| name != NAME && !value.is_empty()).cloned().collect();
        labels.push((NAME.to_string(), series.metric.clone()));
        let added = series
            .others
            .iter()
            .filter(|(name, _)| !OTLP.contains(&name.as_str()) && series.labels.iter().all(|(label, _)| label != *name));
        for (name, value) in added {
            match value {
                Json::String(text) if !text.is_empty() && name != NAME => labels.push((name.clone(), text.clone())),
                Json::Number(_) | Json::Bool(_) if name != NAME => labels.push((name.clone(), value.to_string())),
                _ => {}
            }
        }
        labels.sort_unstable();
        Series { labels, points: Vec::new() }
    }
}

/// One series of an answer at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    pub labels: Labels,
    pub value: f64,
}

/// One series of an answer over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub labels: Labels,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Vector(Vec<Element>),
    /// The points themselves: the question was a selector with a range.
    Matrix(Vec<Row>),
}

/// The question is well formed, and has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Two series differ in the name of their metric only, and the answer has none.
    SameLabels(Labels),
    RangeOverTime,
    Steps(usize),
    NoStep,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::SameLabels(labels) => {
                write!(f, "two series of the answer have the same labels, {labels:?}; select one metric by name")
            }
            Refused::RangeOverTime => {
                f.write_str("a range of values cannot be asked step by step; write rate(…) around it, or take the range away")
            }
            Refused::Steps(steps) => write!(f, "{steps} steps; at most {STEPS_MAX} are answered: take a longer step"),
            Refused::NoStep => f.write_str("a step is longer than 0, and the end is not before the start"),
        }
    }
}

impl std::error::Error for Refused {}

/// The answer at one moment.
pub fn instant(query: &Query, series: &[Series], at: UnixNanos, lookback: i64) -> Result<Answer, Refused> {
    let run = Run { series, from: at, to: at, lookback, chosen: choose(query, series) };
    if let Expr::Select(selector @ Selector { range: Some(_), .. }) = &query.expr {
        let rows = run.windows(selector, at);
        let mut rows: Vec<Row> =
            rows.map(|(series, points)| Row { labels: series.labels.clone(), points: numbers(points).collect() }).collect();
        rows.retain(|row| !row.points.is_empty());
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        return Ok(Answer::Matrix(rows));
    }
    run.vector(&query.expr, at).map(Answer::Vector)
}

/// The answer at `from`, `from + step`, … up to `to`. `step` in nanoseconds.
pub fn range(query: &Query, series: &[Series], from: UnixNanos, to: UnixNanos, step: i64, lookback: i64) -> Result<Vec<Row>, Refused> {
    if step <= 0 || to < from {
        return Err(Refused::NoStep);
    }
    let steps = (i128::from(to.0) - i128::from(from.0)) / i128::from(step) + 1;
    if steps > STEPS_MAX as i128 {
        return Err(Refused::Steps(usize::try_from(steps).unwrap_or(usize::MAX)));
    }
    if matches!(query.expr, Expr::Select(Selector { range: Some(_), .. })) {
        return Err(Refused::RangeOverTime);
    }
    let run = Run { series, from, to, lookback, chosen: choose(query, series) };
    let mut rows: BTreeMap<Labels, Vec<Point>> = BTreeMap::new();
    for n in 0..steps as i64 {
        let at = UnixNanos(from.0 + n * step);
        for element in run.vector(&query.expr, at)? {
            rows.entry(element.labels).or_default().push(Point { at, value: element.value });
        }
    }
    Ok(rows.into_iter().map(|(labels, points)| Row { labels, points }).collect())
}

/// Whether the last point up to `at` says that a series is there: no further back than `lookback`, and no stale marker.
pub fn is_fresh(points: &[Point], at: UnixNanos, lookback: i64) -> bool {
    current(points, at.0, lookback).is_some()
}

fn current(points: &[Point], at: i64, lookback: i64) -> Option<f64> {
    let last = points[..points.partition_point(|point| point.at.0 <= at)].last()?;
    (last.at.0 > at.saturating_sub(lookback) && last.value.to_bits() != STALE).then_some(last.value)
}

/// The moment at which a selector looks, `at` being the one of the question.
pub(super) fn moment(selector: &Selector, at: UnixNanos, from: UnixNanos, to: UnixNanos) -> i64 {
    let base = match selector.at {
        None => at,
        Some(At::Time(time)) => time,
        Some(At::Start) => from,
        Some(At::End) => to,
    };
    base.0.saturating_sub(selector.offset)
}

/// For each selector the series that it means.
fn choose(query: &Query, series: &[Series]) -> Vec<Vec<usize>> {
    let all = query.selectors().into_iter();
    all.map(|selector| (0..series.len()).filter(|n| select(&selector.matchers, &series[*n].labels)).collect()).collect()
}

fn numbers(points: &[Point]) -> impl Iterator<Item = Point> {
    points.iter().copied().filter(|point| point.value.to_bits() != STALE)
}

struct Run<'s> {
    series: &'s [Series],
    from: UnixNanos,
    to: UnixNanos,
    lookback: i64,
    chosen: Vec<Vec<usize>>,
}

impl<'s> Run<'s> {
    fn vector(&self, expr: &Expr, at: UnixNanos) -> Result<Vec<Element>, Refused> {
        let mut elements = match expr {
            Expr::Select(selector) => self.current(selector, at),
            Expr::Absent(of) => {
                let labels = if let Expr::Select(selector) = &**of { selector.absent_labels() } else { Labels::new() };
                absent(self.vector(of, at)?.is_empty(), labels)
            }
            Expr::AbsentOverTime(selector) => {
                let is_absent = self.windows(selector, at).all(|(_, points)| numbers(points).next().is_none());
                absent(is_absent, selector.absent_labels())
            }
            Expr::Over(function, selector) => self.over(*function, selector, at),
            Expr::Aggregate { op, without, labels, of } => aggregate(*op, *without, labels, self.vector(of, at)?),
            Expr::HistogramQuantile(quantile, of) => histogram_quantile(*quantile, self.vector(of, at)?),
        };
        elements.sort_by(|a, b| a.labels.cmp(&b.labels));
        match elements.windows(2).find(|pair| pair[0].labels == pair[1].labels) {
            Some(pair) => Err(Refused::SameLabels(pair[0].labels.clone())),
            None => Ok(elements),
        }
    }

    fn chosen(&self, selector: &Selector) -> impl Iterator<Item = &'s Series> {
        self.chosen[selector.number].iter().map(|n| &self.series[*n])
    }

    fn current(&self, selector: &Selector, at: UnixNanos) -> Vec<Element> {
        let at = moment(selector, at, self.from, self.to);
        let there = self.chosen(selector).filter_map(|series| Some((series, current(&series.points, at, self.lookback)?)));
        there.map(|(series, value)| Element { labels: series.labels.clone(), value }).collect()
    }

    /// Of each series the points in the range of the selector.
    fn windows(&self, selector: &Selector, at: UnixNanos) -> impl Iterator<Item = (&'s Series, &'s [Point])> {
        let to = moment(selector, at, self.from, self.to);
        let from = to.saturating_sub(selector.range.unwrap_or(0));
        self.chosen(selector).map(move |series| {
            let points = &series.points;
            (series, &points[points.partition_point(|point| point.at.0 <= from)..points.partition_point(|point| point.at.0 <= to)])
        })
    }

    fn over(&self, function: Function, selector: &Selector, at: UnixNanos) -> Vec<Element> {
        let (to, length) = (moment(selector, at, self.from, self.to), selector.range.unwrap_or(0));
        let mut elements = Vec::new();
        for (series, points) in self.windows(selector, at) {
            if let Some(value) = extrapolate(function, points, to, length) {
                elements.push(Element { labels: without_name(&series.labels), value });
            }
        }
        elements
    }
}

fn absent(is_absent: bool, labels: Labels) -> Vec<Element> {
    if is_absent { vec![Element { labels, value: 1.0 }] } else { Vec::new() }
}

fn without_name(labels: &Labels) -> Labels {
    labels.iter().filter(|(name, _)| name != NAME).cloned().collect()
}

fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// How much a series grows in a range of `length` that ends at `to`. `None`: it has fewer than two points there.
///
/// Method: Prometheus' extrapolatedRate. Points need not lie at the range's edges; the slope is carried on to an edge that is nearer
/// than 1.1 mean intervals, else by half an interval, and a counter never below 0.
fn extrapolate(function: Function, points: &[Point], to: i64, length: i64) -> Option<f64> {
    let mut values = numbers(points);
    let (first, mut last, mut count, mut grown) = (values.next()?, None::<Point>, 0u64, 0.0);
    let is_counter = function != Function::Delta;
    for point in values {
        let before = last.unwrap_or(first);
        if is_counter && point.value < before.value {
            grown += before.value;
        }
        (last, count) = (Some(point), count + 1);
    }
    let last = last?;
    // As there: first the difference of the ends, then what resets took away, in their order.
    let mut result = last.value - first.value;
    if grown != 0.0 || grown.is_nan() {
        result = resets(points, result);
    }
    let interval = seconds(last.at.0 - first.at.0);
    let mean = interval / count as f64;
    let near = mean * 1.1;
    let (mut before, mut after) = (seconds(first.at.0 - (to - length)), seconds(to - last.at.0));
    if before >= near {
        before = mean / 2.0;
    }
    if is_counter && result > 0.0 && first.value >= 0.0 {
        let to_zero = interval * (first.value / result);
        if to_zero < before {
            before = to_zero;
        }
    }
    if after >= near {
        after = mean / 2.0;
    }
    let mut factor = (interval + before + after) / interval;
    if function == Function::Rate {
        factor /= seconds(length);
    }
    Some(result * factor)
}

fn resets(points: &[Point], mut result: f64) -> f64 {
    let mut before = None::<f64>;
    for point in numbers(points) {
        if let Some(before) = before.filter(|before| point.value < *before) {
            result += before;
        }
        before = Some(point.value);
    }
    result
}

fn aggregate(op: Aggregate, without: bool, names: &[String], elements: Vec<Element>) -> Vec<Element> {
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for Element { mut labels, value } in elements {
        match without {
            true => labels.retain(|(name, _)| name != NAME && !names.contains(name)),
            false => labels.retain(|(name, _)| names.contains(name)),
        }
        groups.entry(labels).or_default().push(value);
    }
    let value = |values: &[f64]| match op {
        Aggregate::Sum => sum(values),
        Aggregate::Avg => average(values),
        Aggregate::Min => extreme(values, |value, least| value < least),
        Aggregate::Max => extreme(values, |value, most| value > most),
        Aggregate::Count => values.len() as f64,
    };
    groups.into_iter().map(|(labels, values)| Element { value: value(&values), labels }).collect()
}

/// Method: Kahan 1965, Neumaier 1974.
fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut rest) = (0.0f64, 0.0f64);
    for value in values {
        let next = sum + value;
        if next.is_infinite() {
            rest = 0.0;
        } else if sum.abs() >= value.abs() {
            rest += (sum - next) + value;
        } else {
            rest += (value - next) + sum;
        }
        sum = next;
    }
    sum + rest
}

/// Where the sum is beyond the doubles and its values are not, their mean is found step by step.
fn average(values: &[f64]) -> f64 {
    let sum = sum(values);
    if sum.is_finite() || values.iter().any(|value| !value.is_finite()) {
        return sum / values.len() as f64;
    }
    let mut mean = 0.0;
    for (n, value) in values.iter().enumerate() {
        mean += value / (n + 1) as f64 - mean / (n + 1) as f64;
    }
    mean
}

/// NaN only where there is nothing else.
fn extreme(values: &[f64], is_beyond: fn(f64, f64) -> bool) -> f64 {
    values.iter().copied().reduce(|best, value| if best.is_nan() || is_beyond(value, best) { value } else { best }).unwrap_or(f64::NAN)
}

/// For each set of labels without `le` the quantile of its buckets. What has no number as `le` is passed over.
fn histogram_quantile(quantile: f64, elements: Vec<Element>) -> Vec<Element> {
    let mut groups: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for element in elements {
        let Some(bound) = label(&element.labels, "le").parse::<f64>().ok().filter(|bound| !bound.is_nan()) else { continue };
        let labels = element.labels.into_iter().filter(|(name, _)| name != NAME && name != "le").collect();
        groups.entry(labels).or_default().push((bound, element.value));
    }
    groups.into_iter().map(|(labels, buckets)| Element { labels, value: bucket_quantile(quantile, buckets) }).collect()
}

/// Linear within a bucket; in the last one, the bound before it. `buckets`: upper bound and how many are at most that.
fn bucket_quantile(quantile: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    match () {
        () if quantile.is_nan() => return f64::NAN,
        () if quantile < 0.0 => return f64::NEG_INFINITY,
        () if quantile > 1.0 => return f64::INFINITY,
        () => buckets.sort_by(|a, b| a.0.total_cmp(&b.0)),
    }
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        return f64::NAN;
    }
    // `0.1` and `1e-1` are one bound.
    buckets.dedup_by(|next, kept| {
        next.0 == kept.0 && {
            kept.1 += next.1;
            true
        }
    });
    make_monotonic(&mut buckets);
    let observations = buckets[buckets.len() - 1].1;
    if buckets.len() < 2 || observations == 0.0 {
        return f64::NAN;
    }
    let mut rank = quantile * observations;
    let last = buckets.len() - 1;
    // A binary search on purpose: counts that are NaN are found where Prometheus finds them.
    let place = buckets[..last]
        .partition_point(|bucket| !matches!(bucket.1.partial_cmp(&rank), Some(std::cmp::Ordering::Greater | std::cmp::Ordering::Equal)));
    if place == last {
        return buckets[last - 1].0;
    }
    let (end, mut count) = buckets[place];
    if place == 0 {
        return if end <= 0.0 { end } else { end * (rank / count) };
    }
    let (start, before) = buckets[place - 1];
    count -= before;
    rank -= before;
    start + (end - start) * (rank / count)
}

/// Sums of floats may differ in their last bits, and scrapes are not of one moment: a bucket never has less than the one before it.
fn make_monotonic(buckets: &mut [(f64, f64)]) {
    let mut before = buckets[0].1;
    for bucket in &mut buckets[1..] {
        let delta = (bucket.1 - before).abs();
        match delta / bucket.1 <= 1e-12 {
            _ if delta == 0.0 => {}
            true => bucket.1 = before,
            false => before = bucket.1,
        }
    }
    let mut most = buckets[0].1;
    for bucket in &mut buckets[1..] {
        if bucket.1 > most {
            most = bucket.1;
        } else if bucket.1 < most {
            bucket.1 = most;
        }
    }
}
