//! Questions about records: a query line over every lake of a data folder, what is not sealed included.
//!
//! In: a query, whose records, when, and how much the answer may cost. Out: hits in order of time, or the table that the query's
//! pipes make; counts over time, facets, neighbours of a record; and what it cost. The desk asks for the command line, `api` for
//! HTTP. Bound: `Limits`; an answer that reaches them is partial and says so. The tail is taken before the snapshot, so what is
//! sealed in between is found once. What is merged or dropped meanwhile lies there for a quarter of an hour more (`caretaker::GRACE`).

use crate::desk::{Desk, OpenLake};
use crate::env;
use anyhow::{Context, bail};
use flow::event::StreamId;
use flow::units::{ByteSize, UnixNanos};
use lake::{
    Batch, Bounds, Buckets, Cell, Facet, FacetCounts, Histogram, HistogramBy, Hit, Partial, PartialWhy, Pipeline, Query, RowView,
    SearchOptions, Stats, Table, View,
};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// Records of which the newest are looked at to learn which fields there are.
const SAMPLED: usize = 200;
const NAMES_MAX: usize = 2_000;
const PATH_DEPTH_MAX: usize = 5;
/// Most hits whose neighbours are fetched.
const CONTEXT_HITS_MAX: usize = 1_000;
/// Frames of a lake that are not sealed, as far as a question reads them: the lake seals long before that, unless it cannot.
pub const TAIL_BYTES_MAX: usize = 256 << 20;
/// Hits of each of several lakes that wait for their turn.
const HITS_WAITING_MAX: usize = 16;
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

/// A question that reads files starts anew so often where one was merged away meanwhile.
pub const STARTS_MAX: usize = 3;

impl Desk {
    /// All of every lake and its tail, for answers that would be wrong over a part of the rows.
    pub fn whole_lakes(&self) -> anyhow::Result<Vec<OpenLake>> {
        let lakes = self.lakes_within(TAIL_BYTES_MAX)?;
        if lakes.iter().any(|lake| lake.is_cut) {
            let most = ByteSize(TAIL_BYTES_MAX as u64);
            bail!("more records wait for the lake than a question reads, {most}; ask again when they are stored");
        }
        Ok(lakes)
    }
}

/// Whether a file of these lakes was merged away since they were opened: then the question starts anew.
pub fn are_outdated(lakes: &[OpenLake]) -> anyhow::Result<bool> {
    for lake in lakes {
        if lake.snapshot.is_outdated()? {
            return Ok(true);
        }
    }
    Ok(false)
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
}

/// The lakes as one question finds them.
struct Lakes<'a> {
    desk: &'a Desk,
    lakes: Vec<OpenLake>,
    limits: Limits,
}

/// Whether to go on with the next lake, and what this one cost.
type Answered = anyhow::Result<(ControlFlow<()>, Stats)>;

impl Lakes<'_> {
    /// Shows each lake to `each`, which gives back what that cost, until it breaks or the answer is partial. The sum of all costs.
    fn each(&self, each: &mut dyn FnMut(View<'_>) -> Answered) -> anyhow::Result<Stats> {
        let is_over = || self.limits.is_over();
        let mut sum = Stats::default();
        for lake in &self.lakes {
            let bytes_max = self.limits.read_bytes_max.map(|max| max.saturating_sub(sum.bytes_read));
            let bounds = Bounds { is_over: Some(&is_over), bytes_max, ..Bounds::default() };
            let view = View { disk: self.desk.disk(), snapshot: &lake.snapshot, tail: &lake.tail, cache: self.desk.cache(), bounds };
            let (flow, cost) = each(view)?;
            sum.add(&cost);
            if lake.is_cut {
                sum.partial = sum.partial.or(partial(PartialWhy::Tail));
            }
            if flow.is_break() || sum.partial.is_some() {
                break;
            }
        }
        Ok(sum)
    }

    fn fields(&self) -> Vec<lake::Fields> {
        self.lakes.iter().map(|lake| lake.snapshot.fields()).collect()
    }

    fn hits(&self, inquiry: &Inquiry, show: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        let options = inquiry.options();
        match self.lakes.len() {
            1 => self.each(&mut |view| Ok((ControlFlow::Break(()), view.search(&inquiry.query, &options, show)?))),
            _ => self.merged(inquiry, &options, show),
        }
    }

    /// Hits of several lakes in order of time: each is searched by a thread of its own, which waits until its next hit's turn comes.
    fn merged(&self, inquiry: &Inquiry, options: &SearchOptions, show: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        let bytes_max = self.limits.read_bytes_max.map(|max| max / self.lakes.len() as u64);
        std::thread::scope(|scope| {
            let search = |lake: &OpenLake| {
                let (sender, receiver) = sync_channel(HITS_WAITING_MAX);
                let (limits, desk) = (self.limits, self.desk);
                let part = Lakes { desk, lakes: vec![lake.clone()], limits: Limits { read_bytes_max: bytes_max, ..limits } };
                let searched = scope.spawn(move || {
                    part.each(&mut |view| {
                        let hit = &mut |hit| if sender.send(hit).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
                        Ok((ControlFlow::Continue(()), view.search(&inquiry.query, options, hit)?))
                    })
                });
                (receiver, searched)
            };
            let (mut receivers, searches): (Vec<_>, Vec<_>) = self.lakes.iter().map(search).unzip();
            let mut heads: Vec<Option<Hit>> = receivers.iter().map(|receiver| receiver.recv().ok()).collect();
            let (mut left, mut shown) = (options.limit.unwrap_or(usize::MAX), 0);
            let order = |hit: &Hit| (hit.time, hit.stream, hit.position);
            while left > 0 {
                let all = heads.iter().enumerate().filter_map(|(at, head)| Some((order(head.as_ref()?), at)));
                let Some((_, at)) = (if options.newest_first { all.max() } else { all.min() }) else { break };
                let next = std::mem::replace(&mut heads[at], receivers[at].recv().ok());
                left -= 1;
                shown += 1;
                if next.is_some_and(|hit| show(hit).is_break()) {
                    break;
                }
            }
            receivers.clear(); // whoever waits for a turn ends
            let mut sum = Stats::default();
            for searched in searches {
                sum.add(&searched.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            sum.hits = shown; // each lake has found a few more that wait for their turn
            Ok(sum)
        })
    }

    /// The records of a stream around a position.
    fn context(&self, options: &SearchOptions, at: (StreamId, u64), before: usize, after: usize) -> anyhow::Result<(Vec<Hit>, Stats)> {
        let mut found = Vec::new();
        let stats = self.each(&mut |view| {
            let (hits, stats) = view.context(options, at, before, after)?;
            found = hits;
            // A stream lies in one lake, or in each of several whole.
            Ok((if found.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }, stats))
        })?;
        Ok((found, stats))
    }

    fn hits_in_context(&self, inquiry: &Inquiry, lines: usize, show: &mut dyn FnMut(Found) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        let mut hits = Vec::new();
        let mut is_cut = false;
        let mut stats = self.hits(inquiry, &mut |hit| {
            is_cut = hits.len() == CONTEXT_HITS_MAX;
            if is_cut {
                return ControlFlow::Break(());
            }
            hits.push((hit.stream, hit.position, hit.raw));
            ControlFlow::Continue(())
        })?;
        let options = SearchOptions { tenant: inquiry.tenant.clone(), ..SearchOptions::default() };
        let own: HashSet<&(StreamId, u64, Vec<u8>)> = hits.iter().collect();
        let mut shown = HashSet::new();
        for (stream, position, _) in &hits {
            if self.limits.is_over() {
                stats.partial = stats.partial.or(partial(PartialWhy::Deadline));
                break;
            }
            if self.limits.read_bytes_max.is_some_and(|max| stats.bytes_read >= max) {
                stats.partial = stats.partial.or(partial(PartialWhy::Bytes));
                break;
            }
            let (around, cost) = self.context(&options, (*stream, *position), lines, lines)?;
            stats.add(&cost);
            let name = |hit: &Hit| (hit.stream, hit.position, hit.raw.clone());
            let mut is_apart = !shown.is_empty() && around.first().is_none_or(|first| !shown.contains(&name(first)));
            for near in around {
                let name = name(&near);
                let is_context = !own.contains(&name);
                if !shown.insert(name) {
                    continue;
                }
                if show(Found { hit: near, is_context, is_apart }).is_break() {
                    return Ok(stats);
                }
                is_apart = false;
            }
        }
        if is_cut {
            stats.partial = stats.partial.or(partial(PartialWhy::Neighbours));
        }
        Ok(stats)
    }
}

fn partial(why: PartialWhy) -> Option<Partial> {
    Some(Partial { why, complete_to: None })
}

impl Limits {
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl Desk {
    fn lakes_of_question(&self, limits: Limits) -> anyhow::Result<Lakes<'_>> {
        Ok(Lakes { desk: self, lakes: self.lakes_within(TAIL_BYTES_MAX)?, limits })
    }

    /// Hands out the records that answer, in order of time.
    pub fn hits(&self, inquiry: &Inquiry, show: &mut dyn FnMut(Found) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        let lakes = self.lakes_of_question(inquiry.limits)?;
        match inquiry.query.context() {
            Some(lines) if lines > 0 => lakes.hits_in_context(inquiry, lines, show),
            _ => lakes.hits(inquiry, &mut |hit| show(Found { hit, is_context: false, is_apart: false })),
        }
    }

    /// The table that the query's pipes make of all records that answer.
    pub fn table(&self, inquiry: &Inquiry) -> anyhow::Result<(Table, Stats)> {
        let options = SearchOptions { limit: None, ..inquiry.options() };
        let mut whole: Option<Pipeline> = None;
        let stats = self.lakes_of_question(inquiry.limits)?.each(&mut |view| {
            let make = |bytes| Pipeline::new(&inquiry.query, &view.snapshot.fields(), bytes);
            let threads = view.bounds.threads.max(1);
            let pipeline = make(inquiry.limits.memory_bytes)?;
            let (part, stats) = match pipeline.is_columnar() {
                true => by_columns(view, inquiry, &options, pipeline, &|| make(inquiry.limits.memory_bytes / threads))?,
                false => by_lines(view, inquiry, &options, pipeline)?,
            };
            match &mut whole {
                Some(whole) => whole.merge(part)?,
                None => whole = Some(part),
            }
            Ok((ControlFlow::Continue(()), stats))
        })?;
        let mut whole = whole.context("there is no lake")?;
        whole.show_range(options.since, options.until)?;
        Ok((whole.finish()?, stats))
    }

    /// Counts over time; `width` of a bucket in nanoseconds, or as fits about `buckets` of them.
    pub fn histogram(
        &self,
        inquiry: &Inquiry,
        by: &HistogramBy,
        width: Option<i64>,
        buckets: Option<usize>,
    ) -> anyhow::Result<(Histogram, Stats)> {
        let lakes = self.lakes_of_question(inquiry.limits)?;
        let options = SearchOptions { limit: None, ..inquiry.options() };
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        lakes.each(&mut |view| {
            if let Some((from, to)) = view.times(options.tenant.as_deref())? {
                (first, last) = (first.min(from), last.max(to));
            }
            Ok((ControlFlow::Continue(()), Stats::default()))
        })?;
        if let Some(since) = options.since {
            first = since.0;
        }
        if let Some(until) = options.until {
            last = until.0.saturating_sub(1);
        }
        let buckets = buckets_of(first.min(last), last, width, buckets)?;
        let mut whole: Option<Histogram> = None;
        let stats = lakes.each(&mut |view| {
            let (part, stats) = view.histogram(&inquiry.query, &options, by, buckets)?;
            match &mut whole {
                Some(whole) => whole.add(part),
                None => whole = Some(part),
            }
            Ok((ControlFlow::Continue(()), stats))
        })?;
        Ok((whole.context("there is no lake")?, stats))
    }

    /// The most frequent values of fields, in all lakes together; without names those of the indexed fields.
    pub fn facets(&self, inquiry: &Inquiry, fields: &[String], top: usize) -> anyhow::Result<(Vec<Facet>, Stats)> {
        let lakes = self.lakes_of_question(inquiry.limits)?;
        let options = SearchOptions { limit: None, ..inquiry.options() };
        let indexed = || lakes.fields().into_iter().flat_map(|fields| fields.index).collect::<BTreeSet<String>>().into_iter().collect();
        let fields: Vec<String> = if fields.is_empty() { indexed() } else { fields.to_vec() };
        let mut all: Option<FacetCounts> = None;
        let stats = lakes.each(&mut |view| {
            let (counts, stats) = view.facet_counts(&inquiry.query, &options, &fields)?;
            match &mut all {
                Some(all) => all.add(counts),
                None => all = Some(counts),
            }
            Ok((ControlFlow::Continue(()), stats))
        })?;
        Ok((all.context("there is no lake")?.facets(&fields, top), stats))
    }

    /// The records of a stream around a position.
    pub fn context(
        &self,
        tenant: Option<String>,
        at: (StreamId, u64),
        before: usize,
        after: usize,
        limits: Limits,
    ) -> anyhow::Result<(Vec<Hit>, Stats)> {
        let options = SearchOptions { tenant, ..SearchOptions::default() };
        self.lakes_of_question(limits)?.context(&options, at, before, after)
    }

    /// Fields that the newest records have, by path.
    pub fn field_names(&self, tenant: Option<String>, limits: Limits) -> anyhow::Result<BTreeSet<String>> {
        let query = Query::all();
        let inquiry = Inquiry { query, tenant, since: None, until: None, limit: Some(SAMPLED), newest_first: true, limits };
        let mut names = BTreeSet::new();
        self.lakes_of_question(limits)?.hits(&inquiry, &mut |hit| {
            if let Ok(Value::Object(record)) = serde_json::from_slice(&hit.raw) {
                paths(&record, "", 1, &mut names);
            }
            if names.len() < NAMES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(names)
    }

    /// Fields of the query that the newest records do not have, each as an error with the nearest that they do have.
    pub fn unknown_fields(&self, inquiry: &Inquiry) -> anyhow::Result<Vec<lake::QueryError>> {
        let asked = inquiry.query.fields();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut known = self.field_names(inquiry.tenant.clone(), inquiry.limits)?;
        known.extend(self.lake_fields()?.index.into_iter().filter(|name| asked.contains(&name.as_str())));
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Ok(if known.is_empty() { Vec::new() } else { inquiry.query.unknown_fields(&known) })
    }
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
    mut whole: Pipeline,
    make: &(dyn Fn() -> anyhow::Result<Pipeline> + Sync),
) -> anyhow::Result<(Pipeline, Stats)> {
    let each = |state: &mut anyhow::Result<Pipeline>, batch: &Batch<'_>| {
        if let Ok(pipeline) = state
            && let Err(error) = pipeline.push_batch(batch)
        {
            *state = Err(error);
        }
    };
    let (parts, stats) = view.scan_columns(&inquiry.query, options, &whole.asked(), make, &each)?;
    for part in parts {
        whole.merge(part?)?;
    }
    Ok((whole, stats))
}

/// Buckets that cover a stretch of time and begin at a multiple of their width.
fn buckets_of(first: i64, last: i64, width: Option<i64>, buckets: Option<usize>) -> anyhow::Result<Buckets> {
    let about = i64::try_from(buckets.unwrap_or(BUCKETS as usize)).unwrap_or(BUCKETS).max(1);
    let width = width.unwrap_or_else(|| round_width(last.saturating_sub(first) / about));
    if width <= 0 {
        return Err(lake::Unanswerable("a bucket has at least a nanosecond".into()).into());
    }
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
