//! How many records there were when: over the full range of a question, whatever a page of hits shows.
//!
//! In: a query, the buckets, and by what to split; out: for each group and bucket the records and their weights.
//! Memory: 16 bytes for each group and bucket in each thread, at most [`CELLS_MAX`] of them: there are at most [`BUCKETS_MAX`]
//! buckets, and at most [`GROUPS_MAX`] groups or as many as cells are left for. Those that come first in the order of their texts
//! are told apart, whatever comes in which order; what is beyond is one group of its own, [`Group::Others`].

use crate::query::Query;
use crate::scan::{Asked, Batch, Times, Wanted};
use crate::search::SearchOptions;
use crate::stats::Stats;
use crate::view::View;
use flow::units::UnixNanos;
use std::collections::BTreeMap;

pub const BUCKETS_MAX: usize = 10_000;
/// Tallies of a thread: 16 MiB.
const CELLS_MAX: usize = 1 << 20;
pub const GROUPS_MAX: usize = 1_000;
/// A longer value is one of [`Group::Others`].
pub const GROUP_BYTES_MAX: usize = 4 << 10;

/// By what a histogram is split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistogramBy {
    Nothing,
    /// The class of the record's severity: trace to fatal, or unknown.
    Level,
    Field(String),
}

/// One part of a histogram.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Records that have the field, or all of them; the text as the line has it.
    Value(String),
    /// Records without the field.
    Missing,
    /// Records of values beyond [`GROUPS_MAX`], those that come last in the order of their texts, and of values that are longer than
    /// [`GROUP_BYTES_MAX`].
    Others,
}

/// Records, and what they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    pub weight: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    pub start: UnixNanos,
    /// Width of a bucket in nanoseconds.
    pub width: i64,
    /// For each group the tallies of all buckets, bucket 0 from `start` on.
    pub groups: BTreeMap<Group, Vec<Tally>>,
}

impl Histogram {
    /// Adds the counts of another one with the same buckets.
    pub fn add(&mut self, other: Histogram) {
        for (group, tallies) in other.groups {
            add_tallies(self.groups.entry(group).or_insert_with(|| vec![Tally::default(); tallies.len()]), &tallies);
        }
        limit(&mut self.groups);
    }
}

/// The buckets: `count` of them, `width` nanoseconds wide, from `start` on. Records outside are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub start: UnixNanos,
    pub width: i64,
    pub count: usize,
}

/// What a thread has counted.
#[derive(Default)]
struct Counts {
    /// Tallies of all buckets, group after group.
    tallies: Vec<Tally>,
    /// The first values in the order of their texts, as many as there may be, with their places in `tallies`.
    values: BTreeMap<Vec<u8>, usize>,
    missing: Option<usize>,
    others: Option<usize>,
    /// For each code of the current batch: the group, or none yet.
    of_code: Vec<Option<usize>>,
}

impl View<'_> {
    /// Counts the records that answer `query`, bucket by bucket.
    pub fn histogram(
        &self,
        query: &Query,
        options: &SearchOptions,
        by: &HistogramBy,
        buckets: Buckets,
    ) -> anyhow::Result<(Histogram, Stats)> {
        let Buckets { start, width, count } = buckets;
        let Some(end) = i64::try_from(count).ok().and_then(|n| n.checked_mul(width)).and_then(|span| start.0.checked_add(span)) else {
            crate::unanswerable!("the histogram's buckets end beyond the year 2262")
        };
        if width <= 0 || count == 0 || count > BUCKETS_MAX {
            crate::unanswerable!("a histogram has 1 to {BUCKETS_MAX} buckets of at least a nanosecond, not {count} of {width} ns");
        }
        let options = SearchOptions {
            since: Some(options.since.map_or(start, |since| since.max(start))),
            until: Some(options.until.map_or(UnixNanos(end), |until| until.min(UnixNanos(end)))),
            ..options.clone()
        };
        let fields = match by {
            HistogramBy::Field(name) => vec![Wanted::Text(name.clone())],
            _ => vec![],
        };
        let times = Times::Bucket { start: start.0, width };
        let asked = Asked { fields, times, severities: *by == HistogramBy::Level, weights: true };
        let make = Counts::default;
        let each = |counts: &mut Counts, batch: &Batch<'_>| counts.add(batch, by, buckets);
        let (states, stats) = self.scan_columns(query, &options, &asked, &make, &each)?;
        let mut groups: BTreeMap<Group, Vec<Tally>> = BTreeMap::new();
        for state in &states {
            let values = state.values.iter().map(|(text, at)| (Group::Value(String::from_utf8_lossy(text).into_owned()), *at));
            let rest = [(Group::Missing, state.missing), (Group::Others, state.others)];
            for (group, at) in values.chain(rest.into_iter().filter_map(|(group, at)| Some((group, at?)))) {
                add_tallies(groups.entry(group).or_insert_with(|| vec![Tally::default(); count]), &state.tallies[at * count..][..count]);
            }
        }
        limit(&mut groups);
        Ok((Histogram { start, width, groups }, stats))
    }
}

/// Puts what is beyond the bound into one group.
fn limit(groups: &mut BTreeMap<Group, Vec<Tally>>) {
    let Some(count) = groups.values().next().map(Vec::len) else { return };
    let beyond: Vec<Group> = groups.keys().filter(|g| matches!(g, Group::Value(_))).skip(groups_max(count)).cloned().collect();
    for group in beyond {
        if let Some(tallies) = groups.remove(&group) {
            add_tallies(groups.entry(Group::Others).or_insert_with(|| vec![Tally::default(); count]), &tallies);
        }
    }
}

/// How many values are told apart.
fn groups_max(buckets: usize) -> usize {
    (CELLS_MAX / buckets).clamp(1, GROUPS_MAX)
}

fn add_tallies(sum: &mut [Tally], more: &[Tally]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        sum.records += more.records;
        sum.weight += more.weight;
    }
}

impl Counts {
    fn add(&mut self, batch: &Batch<'_>, by: &HistogramBy, buckets: Buckets) {
        match by {
            HistogramBy::Nothing => {
                let group = self.group(Some(b""), buckets.count);
                batch.rows.iter().for_each(|row| self.count(group, *row, batch, buckets));
            }
            HistogramBy::Level => {
                // Groups by severity, looked up when one first comes.
                let mut of_severity = [None; 256];
                for row in batch.rows {
                    let severity = batch.severities[*row as usize];
                    let group = match of_severity[severity as usize] {
                        Some(group) => group,
                        None => self.group(Some(flow::severity::class_name(severity).as_bytes()), buckets.count),
                    };
                    of_severity[severity as usize] = Some(group);
                    self.count(group, *row, batch, buckets);
                }
            }
            HistogramBy::Field(_) => {
                let column = &batch.columns[0];
                self.of_code.clear();
                self.of_code.resize(column.codes(), None);
                for row in batch.rows {
                    let code = column.code(*row);
                    let known = code.and_then(|code| self.of_code[code]);
                    let group = known.unwrap_or_else(|| self.group(column.text(*row), buckets.count));
                    if let Some(code) = code {
                        self.of_code[code] = Some(group);
                    }
                    self.count(group, *row, batch, buckets);
                }
            }
        }
    }

    /// Where a value's tallies are.
    fn group(&mut self, text: Option<&[u8]>, count: usize) -> usize {
        let Some(text) = text else {
            let at = self.missing.unwrap_or_else(|| self.room(count));
            return *self.missing.insert(at);
        };
        if let Some(at) = self.values.get(text) {
            return *at;
        }
        let is_long = text.len() > GROUP_BYTES_MAX;
        if !is_long && self.values.len() < groups_max(count) {
            let at = self.room(count);
            self.values.insert(text.to_vec(), at);
            return at;
        }
        let others = self.others.unwrap_or_else(|| self.room(count));
        self.others = Some(others);
        let Some(last) = self.values.last_entry().filter(|last| !is_long && last.key().as_slice() > text) else { return others };
        // The last one makes room; codes of this batch may have stood for it.
        let at = last.remove();
        self.of_code.fill(None);
        let moved = self.tallies[at * count..][..count].to_vec();
        self.tallies[at * count..][..count].fill(Tally::default());
        add_tallies(&mut self.tallies[others * count..][..count], &moved);
        self.values.insert(text.to_vec(), at);
        at
    }

    fn room(&mut self, count: usize) -> usize {
        let at = self.tallies.len() / count;
        self.tallies.resize((at + 1) * count, Tally::default());
        at
    }

    fn count(&mut self, group: usize, row: u32, batch: &Batch<'_>, buckets: Buckets) {
        let bucket = ((batch.times[row as usize] - buckets.start.0) / buckets.width) as usize;
        let tally = &mut self.tallies[group * buckets.count + bucket];
        tally.records += 1;
        tally.weight += u64::from(batch.weights[row as usize]);
    }
}
