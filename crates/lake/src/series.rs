//! Series and their points, for questions of PromQL's kind: read from the table `metrics`, sealed or not.
//!
//! In: a query's selectors, a window of time; out: the series that a selector means, each with its points in order of time, none
//! twice. Files are left out by tenant and time, row groups by the name of the metric, which rows are sorted by. A series of a
//! tenant has the label `tenant`, unless it has one of its own. Bound: [`Wanted::points_max`] points; more are an error that says so.

use crate::snapshot::Snapshot;
use crate::tables::Table;
use crate::unanswerable;
use anyhow::Context;
use arrow_array::{Array, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use flow::units::UnixNanos;
use hub::frame::Frame;
use std::collections::HashMap;
use std::sync::Arc;
use telemetry::selector::{NAME, Point, Query, Selector, Series, select};

/// Columns that are read.
const COLUMNS: [&str; 5] = ["time", "tenant", "metric", "labels", "value"];

/// What is asked for.
pub struct Wanted<'a> {
    pub query: &'a Query,
    /// Only this tenant's series.
    pub tenant: Option<&'a [u8]>,
    /// Points later than the first, up to the second.
    pub window: (UnixNanos, UnixNanos),
    pub points_max: usize,
    /// The caller's clock: true when the time is over.
    pub is_over: &'a dyn Fn() -> bool,
}

/// Reads the series of lakes and their tails, each of which was taken before its snapshot. A series that several have is one.
pub fn read_series<'l>(
    lakes: impl IntoIterator<Item = (&'l Snapshot, &'l [Arc<Frame>])>,
    wanted: &Wanted<'_>,
) -> anyhow::Result<Vec<Series>> {
    let mut found = Found { wanted, selectors: wanted.query.selectors(), numbers: HashMap::new(), series: Vec::new(), points: 0 };
    for (snapshot, tail) in lakes {
        read_lake(snapshot, tail, &mut found)?;
    }
    Ok(found.finish())
}

fn read_lake(snapshot: &Snapshot, tail: &[Arc<Frame>], found: &mut Found<'_>) -> anyhow::Result<()> {
    let wanted = found.wanted;
    let (after, to) = wanted.window;
    for file in snapshot.files(Table::Metrics, wanted.tenant)? {
        if file.max_time <= after || file.min_time > to {
            continue;
        }
        if (wanted.is_over)() {
            unanswerable!("the time for one question was over; ask for less time, or for one metric by name");
        }
        let open = snapshot.open(&file)?;
        let groups = found.groups(&open);
        if groups.is_empty() {
            continue;
        }
        for batch in open.read(&COLUMNS, groups, None)? {
            found.add(&batch?)?;
        }
    }
    let rest = snapshot.tail(Table::Metrics, tail, None)?;
    for part in 0..rest.parts() {
        found.add(&rest.batch(part, &COLUMNS, wanted.tenant)?)?;
    }
    Ok(())
}

struct Found<'a> {
    wanted: &'a Wanted<'a>,
    selectors: Vec<&'a Selector>,
    /// By tenant, metric and labels as they stand in the table; `None`: no selector means it.
    numbers: HashMap<(String, String, String), Option<usize>>,
    series: Vec<Series>,
    points: usize,
}

impl Found<'_> {
    /// Row groups that may hold a metric that is asked for.
    fn groups(&self, file: &crate::tables::TableFile) -> Vec<usize> {
        let all = 0..file.group_rows().len();
        let names: Option<Vec<&str>> = self.selectors.iter().map(|selector| selector.metric()).collect();
        let (Some(names), Some(bounds)) = (names, file.bounds("metric")) else { return all.collect() };
        let text = |array: &Arc<dyn Array>| array.as_any().downcast_ref::<StringArray>().cloned();
        let (Some(min), Some(max)) = (text(&bounds.min), text(&bounds.max)) else { return all.collect() };
        let holds = |group: &usize| {
            // Bounds may be cut at some length: what begins alike may be there.
            let in_bounds = |name: &&str| {
                (min.is_null(*group) || min.value(*group) <= *name)
                    && (max.is_null(*group) || max.value(*group) >= *name || name.starts_with(max.value(*group)))
            };
            names.iter().any(in_bounds)
        };
        all.filter(holds).collect()
    }

    fn add(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let text = |name: &str| -> anyhow::Result<&StringArray> {
            let column = batch.column_by_name(name).with_context(|| format!("the table has no column {name:?}"))?;
            column.as_any().downcast_ref().with_context(|| format!("the column {name:?} is of another type"))
        };
        let (tenant, metric, labels) = (text("tenant")?, text("metric")?, text("labels")?);
        let time = batch.column_by_name("time").and_then(|c| c.as_any().downcast_ref::<TimestampNanosecondArray>());
        let value = batch.column_by_name("value").and_then(|c| c.as_any().downcast_ref::<Float64Array>());
        let (time, value) = (time.context("the table has no times")?, value.context("the table has no values")?);
        let mut last: Option<(usize, Option<usize>)> = None;
        for row in 0..batch.num_rows() {
            let at = UnixNanos(time.value(row));
            if at <= self.wanted.window.0 || at > self.wanted.window.1 || value.is_null(row) || metric.is_null(row) {
                continue;
            }
            // Rows of a series lie side by side.
            let is_same = |other: usize| {
                tenant.value(other) == tenant.value(row)
                    && metric.value(other) == metric.value(row)
                    && labels.value(other) == labels.value(row)
            };
            let number = match last {
                Some((other, number)) if is_same(other) => number,
                _ => self.number(tenant.value(row), metric.value(row), labels.value(row)),
            };
            last = Some((row, number));
            if let Some(number) = number {
                self.points += 1;
                if self.points > self.wanted.points_max {
                    unanswerable!("the question needs more than {} points; ask for less time, or for fewer series", self.wanted.points_max);
                }
                self.series[number].points.push(Point { at, value: value.value(row) });
            }
        }
        Ok(())
    }

    fn number(&mut self, tenant: &str, metric: &str, labels: &str) -> Option<usize> {
        let key = (tenant.to_owned(), metric.to_owned(), labels.to_owned());
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let mut all: Vec<(String, String)> = vec![(NAME.to_owned(), metric.to_owned())];
        let read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(labels).unwrap_or_default();
        all.extend(read.into_iter().filter_map(|(name, value)| Some((name, value.as_str().filter(|text| !text.is_empty())?.to_owned()))));
        if all.iter().all(|(name, _)| name != "tenant") {
            all.push(("tenant".to_owned(), tenant.to_owned()));
        }
        all.sort_unstable();
        let number = self.selectors.iter().any(|selector| select(&selector.matchers, &all)).then(|| {
            self.series.push(Series { labels: all, points: Vec::new() });
            self.series.len() - 1
        });
        self.numbers.insert(key, number);
        number
    }

    /// Points in order of time; of two at the same time the one that came last.
    fn finish(mut self) -> Vec<Series> {
        for series in &mut self.series {
            series.points.sort_by_key(|point| point.at);
            series.points.reverse();
            series.points.dedup_by_key(|point| point.at);
            series.points.reverse();
        }
        self.series.retain(|series| !series.points.is_empty());
        self.series
    }
}
