//! What stood before and after a line in its own stream, whatever a query would find.
//!
//! In: a row's stream and position; out: the rows around it, in order of position. Only row groups whose statistics
//! let that stream in are looked at, by two columns; lines are read for what is given out. Memory: 24 bytes for each row
//! given out, and their lines.

use crate::rows::{HitRows, line_columns};
use crate::search::{Hit, SearchOptions, tenant_of, to_ranges};
use crate::stats::{Stats, since};
use crate::table;
use crate::view::{Access, Choice, View, group_ranges};
use anyhow::Context;
use arrow_array::UInt64Array;
use flow::event::{Signal, StreamId};
use parquet::file::statistics::Statistics;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Most rows that are given out on one side.
pub const CONTEXT_MAX: usize = 10_000;

/// Where a row is: in the tail (frame, part, row), or in a file (file, row).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Where {
    File(usize, usize),
    Tail(usize, usize, usize),
}

/// The rows nearest to a position, on both sides of it.
struct Nearest {
    position: u64,
    before_max: usize,
    after_max: usize,
    before: BTreeSet<(u64, Where)>,
    at: BTreeSet<(u64, Where)>,
    after: BTreeSet<(u64, Where)>,
}

impl Nearest {
    /// Whether a row at any of these positions would be one of the nearest.
    fn admits(&self, min: u64, max: u64) -> bool {
        let before = min < self.position
            && self.before_max > 0
            && (self.before.len() < self.before_max || self.before.first().is_some_and(|first| max.min(self.position - 1) >= first.0));
        let after = max > self.position
            && self.after_max > 0
            && (self.after.len() < self.after_max || self.after.last().is_some_and(|last| min.max(self.position + 1) <= last.0));
        before || after || (min..=max).contains(&self.position)
    }

    fn add(&mut self, position: u64, place: Where) {
        if position < self.position {
            self.before.insert((position, place));
            if self.before.len() > self.before_max {
                self.before.pop_first();
            }
        } else if position > self.position {
            self.after.insert((position, place));
            if self.after.len() > self.after_max {
                self.after.pop_last();
            }
        } else {
            self.at.insert((position, place));
        }
    }
}

impl View<'_> {
    /// The rows of `stream` around `position`, that of the row itself included: at most so many before and after it,
    /// in order of position. Of `options` the tenant counts: other tenants' rows of the stream are left out.
    pub fn context(
        &self,
        options: &SearchOptions,
        (stream, position): (StreamId, u64),
        before: usize,
        after: usize,
    ) -> anyhow::Result<(Vec<Hit>, Stats)> {
        if before > CONTEXT_MAX || after > CONTEXT_MAX {
            crate::unanswerable!("at most {CONTEXT_MAX} lines are shown before and after a line, not {before} and {after}");
        }
        let start = Instant::now();
        let access = Access::new(*self);
        let mut stats = Stats { passes: 1, ..Stats::default() };
        let anywhen = SearchOptions { tenant: options.tenant.clone(), ..SearchOptions::default() };
        let chosen = access.choose(&crate::matcher::Check::All, &anywhen, &mut stats)?;
        stats.plan_ns += since(start);
        let mut nearest = Nearest {
            position,
            before_max: before,
            after_max: after,
            before: BTreeSet::new(),
            at: BTreeSet::new(),
            after: BTreeSet::new(),
        };
        self.tail_places(&anywhen, stream, &mut nearest, &mut stats)?;
        let start = Instant::now();
        file_places(&access, &chosen, stream, &mut nearest, &mut stats)?;
        let hits = self.fetch(&access, &chosen, nearest)?;
        stats.read_ns += since(start);
        stats.hits = hits.len() as u64;
        stats.bytes_read = access.meter.total();
        Ok((hits, stats))
    }

    fn tail_places(&self, options: &SearchOptions, stream: StreamId, nearest: &mut Nearest, stats: &mut Stats) -> anyhow::Result<()> {
        for (f, p) in self.snapshot.unsealed_of(Signal::Logs, self.tail)?.parts {
            let frame = &self.tail[f];
            for row in frame.parts[p].rows.clone().filter(|_| frame.parts[p].stream == stream) {
                let row = row as usize;
                if options.holds_tenant(tenant_of(frame, row)) {
                    stats.tail_rows += 1;
                    nearest.add(frame.rows.position[row], Where::Tail(f, p, row));
                }
            }
        }
        Ok(())
    }

    /// Reads the lines of what was found.
    fn fetch(&self, access: &Access<'_>, chosen: &[Choice<'_>], nearest: Nearest) -> anyhow::Result<Vec<Hit>> {
        let places: Vec<(u64, Where)> = nearest.before.into_iter().chain(nearest.at).chain(nearest.after).collect();
        let mut rows: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut hits: BTreeMap<(u64, Where), Hit> = BTreeMap::new();
        for (position, place) in places {
            match place {
                Where::File(at, row) => {
                    rows.entry(at).or_default().insert(row);
                }
                Where::Tail(f, p, row) => {
                    let frame = &self.tail[f];
                    hits.insert((position, place), Hit::of_frame(frame, &frame.parts[p], row));
                }
            }
        }
        for (at, rows) in rows {
            let mut numbers = rows.iter();
            let footer = access.footer(chosen[at].file)?;
            for batch in access.read(chosen[at].file, &line_columns(&footer), &[], None, Some(to_ranges(rows.iter().copied())))? {
                let batch = batch.with_context(|| format!("cannot read {}", chosen[at].file.path))?;
                let found = HitRows::of(&batch)?;
                for (row, number) in (0..batch.num_rows()).zip(&mut numbers) {
                    let hit = found.hit(row, &chosen[at].tenant);
                    hits.insert((hit.position, Where::File(at, *number)), hit);
                }
            }
        }
        Ok(hits.into_values().collect())
    }
}

fn file_places(
    access: &Access<'_>,
    chosen: &[Choice<'_>],
    stream: StreamId,
    nearest: &mut Nearest,
    stats: &mut Stats,
) -> anyhow::Result<()> {
    // Groups near the position first: then most others need not be looked at.
    let mut groups = Vec::new();
    for (at, choice) in chosen.iter().enumerate() {
        let footer = access.footer(choice.file)?;
        for (group, range) in group_ranges(&footer).into_iter().enumerate() {
            stats.row_groups += 1;
            let metadata = footer.metadata.metadata().row_group(group);
            let bounds = |name: &str| {
                let (column, _) = footer.metadata.schema().column_with_name(name)?;
                unsigned(metadata.column(column).statistics()?)
            };
            let (streams, positions) = (bounds("stream"), bounds("position").unwrap_or((0, u64::MAX)));
            if streams.is_none_or(|(min, max)| (min..=max).contains(&stream.0)) {
                let distance = nearest.position.clamp(positions.0, positions.1).abs_diff(nearest.position);
                groups.push((distance, at, group, range, positions));
            }
        }
    }
    groups.sort_by_key(|g| (g.0, g.1, g.2));
    let all = stats.row_groups;
    let mut looked = 0;
    for (_, at, group, range, (min, max)) in groups {
        if !nearest.admits(min, max) {
            continue;
        }
        if let Some(why) = access.stop() {
            stats.partial = Some(crate::stats::Partial { why, complete_to: None });
            break;
        }
        looked += 1;
        let mut row = range.start;
        for batch in access.read(chosen[at].file, &["stream", "position"], &[], Some(vec![group]), None)? {
            let batch = batch.with_context(|| format!("cannot read {}", chosen[at].file.path))?;
            let streams: &UInt64Array = table::column(&batch, "stream")?;
            let positions: &UInt64Array = table::column(&batch, "position")?;
            for (of, position) in streams.values().iter().zip(positions.values()) {
                if *of == stream.0 {
                    nearest.add(*position, Where::File(at, row));
                }
                row += 1;
            }
        }
    }
    stats.row_groups_skipped = all - looked;
    Ok(())
}

/// Bounds of a column of u64, which Parquet keeps as i64 in unsigned order.
fn unsigned(statistics: &Statistics) -> Option<(u64, u64)> {
    match statistics {
        Statistics::Int64(s) => {
            let (min, max) = (s.min_opt()?.cast_unsigned(), s.max_opt()?.cast_unsigned());
            (min <= max).then_some((min, max))
        }
        _ => None,
    }
}
