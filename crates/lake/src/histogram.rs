//! How many records there were when: over the full range of a question, whatever a page of hits shows.
//!
//! In: a query, the buckets, and by what to split; out: for each group and bucket the records and their weights.
//! Memory: 16 bytes for each group and bucket in each thread; at most [`BUCKETS_MAX`] buckets and [`GROUPS_MAX`] groups, what
//! is beyond is one group of its own, [`Group::Others`].

use crate::query::Query;
use crate::scan::{Asked, Batch, Times, Wanted};
use crate::search::SearchOptions;
use crate::stats::Stats;
use crate::view::View;
use anyhow::bail;
use flow::units::UnixNanos;
use std::collections::{BTreeMap, HashMap};

pub const BUCKETS_MAX: usize = 10_000;
pub const GROUPS_MAX: usize = 1_000;

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
    /// Records of values beyond [`GROUPS_MAX`]: those that come last in the order of their texts.
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
            let own = self.groups.entry(group).or_insert_with(|| vec![Tally::default(); tallies.len()]);
            for (sum, more) in own.iter_mut().zip(tallies) {
                sum.records += more.records;
                sum.weight += more.weight;
            }
        }
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
struct Counts {
    /// Tallies of all buckets, group after group.
    tallies: Vec<Tally>,
    groups: HashMap<Option<Vec<u8>>, usize>,
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
            bail!("the histogram's buckets end beyond the year 2262")
        };
        if width <= 0 || count == 0 || count > BUCKETS_MAX {
            bail!("a histogram has 1 to {BUCKETS_MAX} buckets of at least a nanosecond, not {count} of {width} ns");
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
        let make = || Counts { tallies: Vec::new(), groups: HashMap::new(), of_code: Vec::new() };
        let each = |counts: &mut Counts, batch: &Batch<'_>| counts.add(batch, by, buckets);
        let (states, stats) = self.scan_columns(query, &options, &asked, &make, &each)?;
        let mut groups: BTreeMap<Group, Vec<Tally>> = BTreeMap::new();
        for state in &states {
            for (text, at) in &state.groups {
                let group = match text {
                    Some(text) => Group::Value(String::from_utf8_lossy(text).into_owned()),
                    None => Group::Missing,
                };
                add_tallies(groups.entry(group).or_insert_with(|| vec![Tally::default(); count]), &state.tallies[at * count..][..count]);
            }
        }
        limit(&mut groups, count);
        Ok((Histogram { start, width, groups }, stats))
    }
}

/// Puts what is beyond the bound into one group.
fn limit(groups: &mut BTreeMap<Group, Vec<Tally>>, count: usize) {
    let beyond: Vec<Group> = groups.keys().filter(|g| matches!(g, Group::Value(_))).skip(GROUPS_MAX).cloned().collect();
    for group in beyond {
        if let Some(tallies) = groups.remove(&group) {
            add_tallies(groups.entry(Group::Others).or_insert_with(|| vec![Tally::default(); count]), &tallies);
        }
    }
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

    fn group(&mut self, text: Option<&[u8]>, count: usize) -> usize {
        let key = text.map(<[u8]>::to_vec);
        if let Some(group) = self.groups.get(&key) {
            return *group;
        }
        let group = self.groups.len();
        self.groups.insert(key, group);
        self.tallies.resize((group + 1) * count, Tally::default());
        group
    }

    fn count(&mut self, group: usize, row: u32, batch: &Batch<'_>, buckets: Buckets) {
        let bucket = ((batch.times[row as usize] - buckets.start.0) / buckets.width) as usize;
        let tally = &mut self.tallies[group * buckets.count + bucket];
        tally.records += 1;
        tally.weight += u64::from(batch.weights[row as usize]);
    }
}
