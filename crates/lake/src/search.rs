//! Finds rows: over the lake's files and the unsealed tail, in order of time, each row once.
//!
//! In: a query and a [`View`]; out: hits with their original bytes. Files are chosen by tenant and time, filters and
//! index propose rows of a file, and every row that is given out was judged from its own bytes. A file with many
//! candidates is gone through in slices of time, small ones first, of which only those are read that a row of the
//! answer can lie in; so the newest hundred of a million cost little, and the first row comes early. Hits wait in a
//! window of at most [`WINDOW_BYTES`] until no earlier row can come; what does not fit is dropped and found again in
//! another pass, so the order is exact at any size. Memory: the window once and once more over all threads, a batch
//! of 4,096 rows for each thread, one bit per row of the files being read and 4 bytes per row of the slices that
//! wait, of which there are at most [`SLICED_ROWS_MAX`] rows; files beyond that are read in one piece.

mod queue;
mod window;

use crate::columns::ColumnJudge;
use crate::matcher::{Matcher, Row};
use crate::opened::Cache;
use crate::query::Query;
use crate::rows::{HitRows, line_columns};
use crate::snapshot::Snapshot;
use crate::stats::{Partial, Stats, since};
use crate::store::Taken;
use crate::table;
use crate::view::{Access, Bounds, Choice, View, in_parallel};
use anyhow::Context;
use arrow_array::{TimestampNanosecondArray, UInt8Array};
use flow::event::{Severity, Signal, StreamId};
use flow::units::UnixNanos;
use hub::disk::Disk;
use hub::frame::{Frame, Part};
use queue::{Kind, Queue, Unit};
use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use window::{Place, Window, place};

/// Hits that wait for their turn, in bytes of their lines.
pub const WINDOW_BYTES: usize = 64 << 20;
/// Rows that wait in slices: 4 bytes each.
const SLICED_ROWS_MAX: usize = 8 << 20;
/// A file with so few candidates is read at once.
const DIRECT_ROWS: usize = if cfg!(test) { 8 } else { 1 << 10 }; // tests have small files
/// Rows of a file's first slice, at least; the same at most.
const SLICE_ROWS_FIRST: (usize, usize) = if cfg!(test) { (4, 16) } else { (64, 4 << 10) };
/// Rows of a file's last slices; they grow up to this, so that pages are not read too often.
const SLICE_ROWS_MAX: usize = 64 << 10;
/// Above this share of a file's rows a scan is cheaper than picking rows.
const WORTH_IT_PERCENT: usize = 35;

/// Which rows to look at, and in which order.
#[derive(Clone, Debug, Default)]
pub struct SearchOptions {
    /// Only this tenant's files are opened.
    pub tenant: Option<String>,
    /// From this time on.
    pub since: Option<UnixNanos>,
    /// Before this time.
    pub until: Option<UnixNanos>,
    /// At most this many hits: the first in the order asked for.
    pub limit: Option<usize>,
    pub newest_first: bool,
}

impl SearchOptions {
    pub(crate) fn holds_time(&self, time: i64) -> bool {
        self.since.is_none_or(|since| time >= since.0) && self.until.is_none_or(|until| time < until.0)
    }

    pub(crate) fn holds_tenant(&self, tenant: &[u8]) -> bool {
        self.tenant.as_ref().is_none_or(|want| want.as_bytes() == tenant)
    }
}

/// A row that answers the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub tenant: Vec<u8>,
    pub time: UnixNanos,
    pub severity: Severity,
    pub weight: u32,
    /// With `position`: the row's name for ever.
    pub stream: StreamId,
    pub position: u64,
    /// The line as it was received.
    pub raw: Vec<u8>,
}

impl Hit {
    /// A row of a frame that is not sealed.
    pub(crate) fn of_frame(frame: &Frame, part: &Part, row: usize) -> Hit {
        let rows = &frame.rows;
        Hit {
            tenant: tenant_of(frame, row).to_vec(),
            time: UnixNanos(rows.time[row]),
            severity: rows.severity[row],
            weight: rows.weight[row],
            stream: part.stream,
            position: rows.position[row],
            raw: rows.row(row).to_vec(),
        }
    }
}

/// Whose row it is; the empty tenant's where the frame names none.
pub(crate) fn tenant_of(frame: &Frame, row: usize) -> &[u8] {
    frame.tenants.get(frame.rows.tenant[row] as usize).map_or(&[], |tenant| tenant)
}

/// Hands every row that answers `query` to `hit`, until it breaks. With a cache of its own and no bounds; whoever asks
/// more than once keeps a [`Cache`] and asks a [`View`].
pub fn search(
    disk: &Disk,
    snapshot: &Snapshot,
    tail: &[Arc<Frame>],
    query: &Query,
    options: &SearchOptions,
    hit: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> anyhow::Result<Stats> {
    search_within(disk, snapshot, tail, query, options, WINDOW_BYTES, hit)
}

pub(crate) fn search_within(
    disk: &Disk,
    snapshot: &Snapshot,
    tail: &[Arc<Frame>],
    query: &Query,
    options: &SearchOptions,
    window_bytes: usize,
    hit: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> anyhow::Result<Stats> {
    let view = View { disk, snapshot, tail, cache: &Cache::default(), bounds: Bounds::default() };
    view.search_within(query, options, window_bytes, hit)
}

impl View<'_> {
    /// Hands every row that answers `query` to `hit`, in order of time, until it breaks or a bound is reached.
    pub fn search(&self, query: &Query, options: &SearchOptions, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<Stats> {
        self.search_within(query, options, WINDOW_BYTES, hit)
    }

    pub(crate) fn search_within(
        &self,
        query: &Query,
        options: &SearchOptions,
        window_bytes: usize,
        hit: &mut dyn FnMut(Hit) -> ControlFlow<()>,
    ) -> anyhow::Result<Stats> {
        let start = Instant::now();
        let access = Access::new(*self);
        let matcher = Matcher::new(query, &access.fields)?;
        let taken = self.snapshot.unsealed_of(Signal::Logs, self.tail)?;
        let mut stats = Stats::default();
        let chosen = access.choose(&matcher.check, options, &mut stats)?;
        stats.plan_ns += since(start);
        let mut run = Run {
            access: &access,
            query,
            taken: &taken,
            options,
            chosen: &chosen,
            matchers: Mutex::new(vec![matcher]),
            window_bytes,
            stats,
            emitted: 0,
            after: None,
        };
        run.all_passes(hit)?;
        run.stats.bytes_read = access.meter.total();
        Ok(run.stats)
    }
}

struct Run<'a> {
    access: &'a Access<'a>,
    query: &'a Query,
    taken: &'a Taken,
    options: &'a SearchOptions,
    chosen: &'a [Choice<'a>],
    /// One for each thread: a matcher holds scratch space.
    matchers: Mutex<Vec<Matcher>>,
    window_bytes: usize,
    stats: Stats,
    emitted: usize,
    /// Place of the newest hit that was given out.
    after: Option<Place>,
}

/// What a thread found.
struct Found {
    window: Window,
    units: Vec<Unit>,
    stats: Stats,
    matcher: Matcher,
}

impl Run<'_> {
    fn is_done(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.emitted >= limit)
    }

    fn all_passes(&mut self, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<()> {
        loop {
            self.stats.passes += 1;
            let left = self.options.limit.map(|limit| limit - self.emitted.min(limit));
            let mut window = Window::new(self.options.newest_first, self.window_bytes, left, self.after.clone());
            let stopped = self.pass(&mut window, hit)?;
            if stopped || window.edge.is_none() || self.is_done() {
                return Ok(());
            }
        }
    }

    /// Goes through the files and the tail once. Returns whether to stop altogether.
    fn pass(&mut self, window: &mut Window, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> anyhow::Result<bool> {
        let mut queue = Queue::new(window.newest_first);
        for (at, choice) in self.chosen.iter().enumerate() {
            queue.push(Unit { first: choice.file.min_time, last: choice.file.max_time, kind: Kind::File(at) });
        }
        if let Some((first, last)) = self.tail_times() {
            queue.push(Unit { first, last, kind: Kind::Tail });
        }
        loop {
            let Some(near) = queue.near() else { return Ok(self.give(window, None, hit)) };
            if self.give(window, Some(near), hit) || self.is_done() {
                return Ok(true);
            }
            if let Some(why) = self.access.stop() {
                // What an earlier pass gave out was complete, too.
                let given = self.after.as_ref().map_or(near, |after| after.0);
                let complete_to = Some(UnixNanos(if window.newest_first { near.min(given) } else { near.max(given) }));
                self.stats.partial = Some(Partial { why, complete_to });
                return Ok(true);
            }
            let mut wave = Vec::new();
            while wave.len() < self.access.view.bounds.threads.max(1) {
                let Some(unit) = queue.pop() else { break };
                if window.admits(unit.first, unit.last) {
                    wave.push(unit);
                }
            }
            for unit in self.wave(&wave, queue.sliced_rows, window)? {
                queue.push(unit);
            }
        }
    }

    /// Goes through a few units at once; returns the slices into which files were cut.
    fn wave(&mut self, wave: &[Unit], sliced_rows: usize, window: &mut Window) -> anyhow::Result<Vec<Unit>> {
        let thread_bytes = self.window_bytes / wave.len().max(1);
        // Each unit has its own window and counts, so that what is found does not hang on which thread is faster.
        let found: Mutex<Vec<(usize, Found)>> = Mutex::new(Vec::new());
        let (this, ends) = (&*self, &*window);
        let work = |_: &mut (), at: usize, unit: &Unit| -> anyhow::Result<()> {
            let idle = this.matchers.lock().unwrap_or_else(|e| e.into_inner()).pop();
            let matcher = idle.map_or_else(|| Matcher::new(this.query, &this.access.fields), Ok)?;
            let mut one = Found { window: ends.for_thread(thread_bytes), units: Vec::new(), stats: Stats::default(), matcher };
            this.unit(unit, sliced_rows, &mut one)?;
            found.lock().unwrap_or_else(|e| e.into_inner()).push((at, one));
            Ok(())
        };
        // Bounds hold between waves: a wave is whole, so that how far the answer is complete is known.
        in_parallel(self.access.view.bounds.threads, &|| None, wave, &|| (), &work)?;
        let mut found = found.into_inner().unwrap_or_else(|e| e.into_inner());
        found.sort_by_key(|f| f.0);
        let mut units = Vec::new();
        for (_, one) in found {
            self.stats.add(&one.stats);
            self.matchers.lock().unwrap_or_else(|e| e.into_inner()).push(one.matcher);
            window.take(one.window);
            units.extend(one.units);
        }
        Ok(units)
    }

    /// Gives out the hits whose turn has come. Returns whether the receiver has had enough.
    fn give(&mut self, window: &mut Window, time: Option<i64>, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> bool {
        while let Some(next) = window.next_before(time) {
            self.after = Some(place(&next));
            self.emitted += 1;
            self.stats.hits += 1;
            if hit(next).is_break() {
                return true;
            }
        }
        false
    }

    fn tail_times(&self) -> Option<(i64, i64)> {
        let tail = self.access.view.tail;
        let times =
            || self.taken.parts.iter().flat_map(|(f, p)| tail[*f].parts[*p].rows.clone().map(|row| tail[*f].rows.time[row as usize]));
        Some((times().min()?, times().max()?))
    }

    fn unit(&self, unit: &Unit, sliced_rows: usize, found: &mut Found) -> anyhow::Result<()> {
        match &unit.kind {
            Kind::Tail => {
                self.tail(found);
                Ok(())
            }
            Kind::File(at) => self.file(*at, sliced_rows, found),
            Kind::Slice { at, rows, times } => {
                // What other files gave meanwhile may have left no room for some.
                let has_room = |i: usize| times.get(i).is_none_or(|time| found.window.admits_time(*time));
                let rows: Vec<usize> = rows.iter().enumerate().filter(|(i, _)| has_room(*i)).map(|(_, row)| *row as usize).collect();
                self.rows(*at, Some(rows.into_iter()), found)
            }
        }
    }

    fn tail(&self, found: &mut Found) {
        let start = Instant::now();
        for (f, p) in &self.taken.parts {
            let frame = &self.access.view.tail[*f];
            let part = &frame.parts[*p];
            for row in part.rows.clone() {
                let row = row as usize;
                let rows = &frame.rows;
                let tenant = tenant_of(frame, row);
                if !self.options.holds_tenant(tenant) {
                    continue;
                }
                found.stats.tail_rows += 1;
                let time = rows.time[row];
                if !self.options.holds_time(time) || !found.window.admits_time(time) {
                    continue;
                }
                let line = rows.row(row);
                if found.matcher.matches(Row { line, tenant: Some(tenant), severity: Some(rows.severity[row]) }) {
                    found.window.add(Hit::of_frame(frame, part, row));
                }
            }
        }
        found.stats.judge_ns += since(start);
    }

    /// Finds the candidates of a file, and either reads them or cuts them into slices.
    fn file(&self, at: usize, sliced_rows: usize, found: &mut Found) -> anyhow::Result<()> {
        let choice = &self.chosen[at];
        let candidates = self.access.candidates(choice, &found.matcher, false, &mut found.stats)?;
        let total = choice.file.rows as usize;
        let count = candidates.rows.as_ref().map_or(total, |bits| bits.count());
        if count == 0 {
            return Ok(());
        }
        let footer = self.access.footer(choice.file)?;
        found.stats.files_opened += 1;
        found.stats.row_groups += footer.metadata.metadata().num_row_groups() as u64;
        if let Some(bits) = &candidates.rows {
            let skipped =
                crate::view::group_ranges(&footer).into_iter().filter(|range| bits.rows_in(range.clone()).next().is_none()).count();
            found.stats.row_groups_skipped += skipped as u64;
        }
        let picked = candidates.rows.as_ref().filter(|bits| self.options.limit.is_some() || bits.count() * 100 <= total * WORTH_IT_PERCENT);
        if count <= DIRECT_ROWS || sliced_rows + total > SLICED_ROWS_MAX {
            return self.rows(at, picked.map(|bits| bits.rows_in(0..total)), found);
        }
        let mut times = self.times(at, picked.map(|bits| bits.ranges()), found)?;
        match self.options.newest_first {
            true => times.sort_unstable_by_key(|(time, row)| Reverse((*time, *row))),
            false => times.sort_unstable(),
        }
        let mut rest = times.as_slice();
        // Other files have some of the rows asked for, too.
        let mut len = self.options.limit.map_or(256, |limit| limit / 2).clamp(SLICE_ROWS_FIRST.0, SLICE_ROWS_FIRST.1);
        while !rest.is_empty() {
            let (slice, after) = rest.split_at(len.min(rest.len()));
            let ends = (slice[0].0, slice[slice.len() - 1].0);
            let mut slice = slice.to_vec();
            slice.sort_unstable_by_key(|(_, row)| *row);
            let times = if slice.len() <= SLICE_ROWS_FIRST.1 { slice.iter().map(|s| s.0).collect() } else { Vec::new() };
            let kind = Kind::Slice { at, rows: slice.iter().map(|s| s.1).collect(), times };
            found.units.push(Unit { first: ends.0.min(ends.1), last: ends.0.max(ends.1), kind });
            rest = after;
            len = (len * 4).min(SLICE_ROWS_MAX);
        }
        Ok(())
    }

    /// Times and numbers of the rows that can still get in.
    fn times(&self, at: usize, ranges: Option<Vec<Range<usize>>>, found: &mut Found) -> anyhow::Result<Vec<(i64, u32)>> {
        let start = Instant::now();
        let mut rows = numbers(&ranges, self.chosen[at].file.rows as usize);
        let mut times = Vec::new();
        for batch in self.access.read(self.chosen[at].file, &["time"], &[], None, ranges.clone())? {
            let batch = batch.with_context(|| format!("cannot read {}", self.chosen[at].file.path))?;
            let time: &TimestampNanosecondArray = table::column(&batch, "time")?;
            for (time, row) in time.values().iter().zip(&mut rows) {
                if self.options.holds_time(*time) && found.window.admits_time(*time) {
                    times.push((*time, row as u32));
                }
            }
        }
        found.stats.read_ns += since(start);
        Ok(times)
    }

    /// Judges rows of a file: by their columns first where that decides, then by their lines.
    fn rows(&self, at: usize, rows: Option<impl Iterator<Item = usize>>, found: &mut Found) -> anyhow::Result<()> {
        let choice = &self.chosen[at];
        let footer = self.access.footer(choice.file)?;
        let mut ranges = rows.map(to_ranges);
        let is_large = ranges.as_ref().is_none_or(|ranges| ranges.iter().map(Range::len).sum::<usize>() > DIRECT_ROWS);
        if is_large && let Some(mut judge) = ColumnJudge::new(&found.matcher, &footer) {
            ranges = Some(self.by_columns(at, ranges, &mut judge, found)?);
        }
        if ranges.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let mut start = Instant::now();
        for batch in self.access.read(choice.file, &line_columns(&footer), &[], None, ranges)? {
            let batch = batch.with_context(|| format!("cannot read {}", choice.file.path))?;
            found.stats.read_ns += since(start);
            start = Instant::now();
            let rows = HitRows::of(&batch)?;
            for row in 0..batch.num_rows() {
                found.stats.rows_scanned += 1;
                if !self.options.holds_time(rows.times[row]) || !found.window.admits_time(rows.times[row]) {
                    continue;
                }
                let about = Row { line: rows.lines.line(row), tenant: Some(&choice.tenant), severity: Some(rows.severities[row]) };
                if found.matcher.matches(about) {
                    found.window.add(rows.hit(row, &choice.tenant));
                }
            }
            found.stats.judge_ns += since(start);
            start = Instant::now();
        }
        Ok(())
    }

    /// The rows that pass as far as their columns say.
    fn by_columns(
        &self,
        at: usize,
        ranges: Option<Vec<Range<usize>>>,
        judge: &mut ColumnJudge,
        found: &mut Found,
    ) -> anyhow::Result<Vec<Range<usize>>> {
        let choice = &self.chosen[at];
        let mut numbers = numbers(&ranges, choice.file.rows as usize);
        let mut passed = Vec::new();
        let columns: Vec<&str> = judge.columns.iter().map(String::as_str).chain(["severity"]).collect();
        let mut start = Instant::now();
        for batch in self.access.read(choice.file, &columns, &[], None, ranges.clone())? {
            let batch = batch.with_context(|| format!("cannot read {}", choice.file.path))?;
            found.stats.read_ns += since(start);
            start = Instant::now();
            let severity: &UInt8Array = table::column(&batch, "severity")?;
            let texts = judge.values(&batch)?;
            found.stats.rows_by_columns += batch.num_rows() as u64;
            for (row, number) in (0..severity.len()).zip(&mut numbers) {
                if judge.passes(&mut found.matcher, &texts, row, &choice.tenant, severity.value(row)) {
                    passed.push(number);
                }
            }
            found.stats.judge_ns += since(start);
            start = Instant::now();
        }
        Ok(to_ranges(passed.into_iter()))
    }
}

/// The numbers of the rows in some ranges.
pub(crate) fn numbers(ranges: &Option<Vec<Range<usize>>>, total: usize) -> impl Iterator<Item = usize> + use<> {
    ranges.clone().unwrap_or_else(|| std::iter::once(0..total).collect()).into_iter().flatten()
}

pub(crate) fn to_ranges(rows: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in rows {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}
