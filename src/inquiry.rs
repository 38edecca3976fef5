//! Questions about records: a query line over every lake of a data folder, what is not sealed included.
//!
//! In: a query, whose records, when, and how much the answer may cost. Out: hits in order of time, or the table that the query's
//! pipes make; counts over time, facets, neighbours of a record; and what it cost. The desk asks for the command line, `api` for
//! HTTP. Bound: `Limits`; an answer that reaches them is partial and says so. The tail is taken before the snapshot, so what is
//! sealed in between is found once. What is merged or dropped meanwhile lies there for a quarter of an hour more (`caretaker::GRACE`).

use crate::desk::Desk;
use crate::env;
use anyhow::Context;
use flow::units::UnixNanos;
use lake::{
    Batch, Bounds, Buckets, Cell, Facet, Histogram, HistogramBy, Hit, Partial, PartialWhy, Pipe, Pipeline, Query, RowView, SearchOptions,
    Stats, Table, Times, View, Wanted,
};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::time::Instant;

/// Records of which the newest are looked at to learn which fields there are.
const SAMPLED: usize = 200;
const NAMES_MAX: usize = 2_000;
const PATH_DEPTH_MAX: usize = 5;
/// Most hits whose neighbours are fetched.
const CONTEXT_HITS_MAX: usize = 1_000;
/// Buckets of a histogram whose width nobody gave.
const BUCKETS: i64 = 60;

/// What is asked.
pub struct Inquiry {
    pub query: Query,
    /// Only this tenant's records.
    pub tenant: Option<String>,
    pub since: Option<UnixNanos>,
    pub until: Option<UnixNanos>,
    /// At most this many hits; a table is made of all records.
    pub limit: Option<usize>,
    pub newest_first: bool,
    pub limits: Limits,
}

/// How much an answer may cost.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    pub deadline: Option<Instant>,
    pub read_bytes_max: Option<u64>,
    /// Bytes for what pipes keep.
    pub memory_bytes: usize,
}

/// A record of an answer.
pub struct Found {
    pub hit: Hit,
    /// It stands beside a hit and is none.
    pub is_context: bool,
    /// It does not follow the one before it.
    pub is_apart: bool,
}

impl Inquiry {
    /// As narrow as the query's own time words make it.
    fn options(&self) -> SearchOptions {
        let (since, until) = self.query.range(env::now());
        SearchOptions {
            tenant: self.tenant.clone(),
            since: self.since.into_iter().chain(since).max(),
            until: self.until.into_iter().chain(until).min(),
            limit: self.limit.into_iter().chain(self.query.limit()).min(),
            newest_first: self.newest_first,
        }
    }

    /// Whether columns are enough for its pipes: then no line is read.
    fn is_columnar(&self) -> bool {
        let groups = matches!(self.query.pipes.first(), Some(Pipe::Stats { .. } | Pipe::Top { .. } | Pipe::Timechart { .. }));
        groups && !self.query.fields().iter().any(|name| ["stream", "position", "_line"].contains(name))
    }
}

impl Desk {
    /// Shows every lake, and what of it is not sealed.
    fn each_view(&self, limits: Limits, each: &mut dyn FnMut(View<'_>) -> anyhow::Result<ControlFlow<()>>) -> anyhow::Result<()> {
        let is_over = || limits.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        for (_, tail, snapshot) in &self.lakes()? {
            let bounds = Bounds { is_over: Some(&is_over), bytes_max: limits.read_bytes_max, ..Bounds::default() };
            let view = View { disk: self.disk(), snapshot, tail, cache: self.cache(), bounds };
            if each(view)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Hands out the records that answer, in order of time.
    pub fn hits(&self, inquiry: &Inquiry, show: &mut dyn FnMut(Found) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        match inquiry.query.context() {
            Some(lines) if lines > 0 => self.hits_in_context(inquiry, lines, show),
            _ => self.plain_hits(inquiry, &mut |hit| show(Found { hit, is_context: false, is_apart: false })),
        }
    }

    fn plain_hits(&self, inquiry: &Inquiry, show: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        let mut sum = Stats::default();
        let mut options = inquiry.options();
        self.each_view(inquiry.limits, &mut |view| {
            let mut gone = false;
            let stats = view.search(&inquiry.query, &options, &mut |hit| options_left(&mut gone, show(hit)))?;
            options.limit = options.limit.map(|limit| limit.saturating_sub(usize::try_from(stats.hits).unwrap_or(usize::MAX)));
            sum.add(&stats);
            Ok(if gone || options.limit == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(sum)
    }

    fn hits_in_context(&self, inquiry: &Inquiry, lines: usize, show: &mut dyn FnMut(Found) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        let mut hits = Vec::new();
        let mut stats = self.plain_hits(inquiry, &mut |hit| {
            hits.push(hit);
            if hits.len() < CONTEXT_HITS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let name = |hit: &Hit| (hit.stream, hit.position, hit.raw.clone());
        let own: HashSet<_> = hits.iter().map(name).collect();
        let mut shown = HashSet::new();
        for hit in &hits {
            let (around, cost) = self.context(inquiry.tenant.clone(), (hit.stream, hit.position), lines, lines, inquiry.limits)?;
            stats.add(&cost);
            let mut is_apart = !shown.is_empty() && around.first().is_none_or(|first| !shown.contains(&name(first)));
            for near in around {
                let is_context = !own.contains(&name(&near));
                if !shown.insert(name(&near)) {
                    continue;
                }
                if show(Found { hit: near, is_context, is_apart }).is_break() {
                    return Ok(stats);
                }
                is_apart = false;
            }
        }
        Ok(stats)
    }

    /// The table that the query's pipes make of all records that answer.
    pub fn table(&self, inquiry: &Inquiry) -> anyhow::Result<(Table, Stats)> {
        let options = SearchOptions { limit: None, ..inquiry.options() };
        let mut whole: Option<Pipeline> = None;
        let mut sum = Stats::default();
        self.each_view(inquiry.limits, &mut |view| {
            let make = |bytes| Pipeline::new(&inquiry.query, &view.snapshot.fields(), bytes);
            let (part, stats) = if inquiry.is_columnar() {
                let threads = view.bounds.threads.max(1);
                by_columns(view, inquiry, &options, &|| make(inquiry.limits.memory_bytes / (threads + 1)))?
            } else {
                by_lines(view, inquiry, &options, make(inquiry.limits.memory_bytes)?)?
            };
            sum.add(&stats);
            match &mut whole {
                Some(whole) => whole.merge(part)?,
                None => whole = Some(part),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut whole = whole.context("there is no lake")?;
        whole.show_range(options.since, options.until)?;
        Ok((whole.finish()?, sum))
    }

    /// Counts over time; `width` of a bucket in nanoseconds, or as fits about `buckets` of them.
    pub fn histogram(
        &self,
        inquiry: &Inquiry,
        by: &HistogramBy,
        width: Option<i64>,
        buckets: Option<usize>,
    ) -> anyhow::Result<(Histogram, Stats)> {
        let options = SearchOptions { limit: None, ..inquiry.options() };
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        self.each_view(inquiry.limits, &mut |view| {
            if let Some((from, to)) = view.times(options.tenant.as_deref())? {
                (first, last) = (first.min(from), last.max(to));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(since) = options.since {
            first = since.0;
        }
        if let Some(until) = options.until {
            last = until.0.saturating_sub(1);
        }
        let buckets = buckets_of(first.min(last), last, width, buckets)?;
        let mut whole: Option<Histogram> = None;
        let mut sum = Stats::default();
        self.each_view(inquiry.limits, &mut |view| {
            let (part, stats) = view.histogram(&inquiry.query, &options, by, buckets)?;
            sum.add(&stats);
            match &mut whole {
                Some(whole) => whole.add(part),
                None => whole = Some(part),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((whole.context("there is no lake")?, sum))
    }

    /// The most frequent values of fields; without names those of the indexed fields.
    pub fn facets(&self, inquiry: &Inquiry, fields: &[String], top: usize) -> anyhow::Result<(Vec<Facet>, Stats)> {
        let options = SearchOptions { limit: None, ..inquiry.options() };
        let mut all = Vec::new();
        let mut sum = Stats::default();
        self.each_view(inquiry.limits, &mut |view| {
            let indexed = view.snapshot.fields().index;
            let (facets, stats) = view.facets(&inquiry.query, &options, if fields.is_empty() { &indexed } else { fields }, top)?;
            sum.add(&stats);
            all.extend(facets);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((all, sum))
    }

    /// The records of a stream around a position.
    pub fn context(
        &self,
        tenant: Option<String>,
        at: (flow::event::StreamId, u64),
        before: usize,
        after: usize,
        limits: Limits,
    ) -> anyhow::Result<(Vec<Hit>, Stats)> {
        let options = SearchOptions { tenant, ..SearchOptions::default() };
        let mut found = (Vec::new(), Stats::default());
        self.each_view(limits, &mut |view| {
            let (hits, stats) = view.context(&options, at, before, after)?;
            found.1.add(&stats);
            found.0 = hits;
            // A stream lies in one lake, or in each of several whole.
            Ok(if found.0.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// Fields that the newest records have, by path.
    pub fn field_names(&self, tenant: Option<String>, limits: Limits) -> anyhow::Result<BTreeSet<String>> {
        let query = Query::all();
        let inquiry = Inquiry { query, tenant, since: None, until: None, limit: Some(SAMPLED), newest_first: true, limits };
        let mut names = BTreeSet::new();
        self.plain_hits(&inquiry, &mut |hit| {
            if let Ok(Value::Object(record)) = serde_json::from_slice(&hit.raw) {
                paths(&record, "", 1, &mut names);
            }
            if names.len() < NAMES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(names)
    }

    /// Fields of the query that the newest records do not have, each as an error with the nearest that they do have.
    pub fn unknown_fields(&self, inquiry: &Inquiry) -> anyhow::Result<Vec<lake::QueryError>> {
        if inquiry.query.fields().is_empty() {
            return Ok(Vec::new());
        }
        let mut known = self.field_names(inquiry.tenant.clone(), inquiry.limits)?;
        for (_, _, snapshot) in &self.lakes()? {
            let fields = snapshot.fields();
            known.extend(fields.index.into_iter().filter(|name| inquiry.query.fields().contains(&name.as_str())));
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Ok(if known.is_empty() { Vec::new() } else { inquiry.query.unknown_fields(&known) })
    }
}

fn options_left(gone: &mut bool, flow: ControlFlow<()>) -> ControlFlow<()> {
    *gone = flow.is_break();
    flow
}

/// Rows as lines, in order, on one thread.
fn by_lines(view: View<'_>, inquiry: &Inquiry, options: &SearchOptions, mut pipeline: Pipeline) -> anyhow::Result<(Pipeline, Stats)> {
    let mut failed = Ok(());
    // Records as rows come newest first, and may be enough early.
    let options = SearchOptions { newest_first: true, ..options.clone() };
    let stats = view.search(&inquiry.query, &options, &mut |hit| match pipeline.push(RowView::from(&hit)) {
        Ok(flow) => flow,
        Err(error) => {
            failed = Err(error);
            ControlFlow::Break(())
        }
    })?;
    failed?;
    Ok((pipeline, stats))
}

/// Rows as columns, on all threads.
fn by_columns(
    view: View<'_>,
    inquiry: &Inquiry,
    options: &SearchOptions,
    make: &(dyn Fn() -> anyhow::Result<Pipeline> + Sync),
) -> anyhow::Result<(Pipeline, Stats)> {
    let mut whole = make()?;
    let fields = whole.field_names().iter().map(|name| Wanted::Text(name.clone())).collect();
    let asked = lake::Asked { fields, times: Times::Exact, severities: true, weights: true };
    let each = |state: &mut anyhow::Result<Pipeline>, batch: &Batch<'_>| {
        if let Ok(pipeline) = state
            && let Err(error) = push_batch(pipeline, batch)
        {
            *state = Err(error);
        }
    };
    let (parts, stats) = view.scan_columns(&inquiry.query, options, &asked, &make, &each)?;
    for part in parts {
        whole.merge(part?)?;
    }
    Ok((whole, stats))
}

fn push_batch(pipeline: &mut Pipeline, batch: &Batch<'_>) -> anyhow::Result<()> {
    let mut values: Vec<Option<&[u8]>> = vec![None; batch.columns.len()];
    for row in batch.rows {
        for (value, column) in values.iter_mut().zip(&batch.columns) {
            *value = column.text(*row);
        }
        let at = *row as usize;
        let about = RowView {
            line: &[],
            tenant: batch.tenant,
            time: UnixNanos(batch.times[at]),
            severity: batch.severities[at],
            weight: batch.weights[at],
            stream: flow::event::StreamId(0),
            position: 0,
        };
        let _ = pipeline.push_values(&values, about)?; // groups are never complete before the last row
    }
    Ok(())
}

/// Buckets that cover a stretch of time and begin at a multiple of their width.
fn buckets_of(first: i64, last: i64, width: Option<i64>, buckets: Option<usize>) -> anyhow::Result<Buckets> {
    let about = i64::try_from(buckets.unwrap_or(BUCKETS as usize)).unwrap_or(BUCKETS).max(1);
    let width = width.unwrap_or_else(|| round_width(last.saturating_sub(first) / about));
    anyhow::ensure!(width > 0, "a bucket has at least a nanosecond");
    let start = first.div_euclid(width).saturating_mul(width);
    let count = usize::try_from((last.saturating_sub(start)) / width + 1)?;
    Ok(Buckets { start: UnixNanos(start), width, count })
}

/// A width that people count in, not below the one given.
fn round_width(least: i64) -> i64 {
    const SECOND: i64 = 1_000_000_000;
    let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 604_800];
    let seconds = steps.into_iter().map(|step| step * SECOND).find(|step| *step >= least);
    seconds.unwrap_or_else(|| least.div_euclid(604_800 * SECOND).saturating_add(1).saturating_mul(604_800 * SECOND))
}

fn paths(record: &serde_json::Map<String, Value>, above: &str, depth: usize, names: &mut BTreeSet<String>) {
    for (key, value) in record {
        if names.len() >= NAMES_MAX {
            return;
        }
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match value {
            Value::Object(inner) if depth < PATH_DEPTH_MAX => paths(inner, &path, depth + 1, names),
            _ => {
                names.insert(path);
            }
        }
    }
}

/// A cell as JSON text.
pub fn cell_json(cell: &Cell) -> String {
    let mut text = Vec::new();
    cell.write_json(&mut text);
    String::from_utf8(text).expect("JSON is text")
}

/// Why an answer is not whole.
pub fn why(partial: &Partial) -> &'static str {
    match partial.why {
        PartialWhy::Deadline => "the time for one question was over",
        PartialWhy::Bytes => "as many bytes were read as one question may",
    }
}
