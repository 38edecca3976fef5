//! Finds rows: over the lake's files and the unsealed tail, in order of time, each row once.
//!
//! In: a query, a snapshot and the tail taken before it; out: hits with their original bytes. Files are
//! chosen by tenant and time, the index proposes rows of a file, and every row is judged from its own bytes.
//! Hits wait in a window of at most [`WINDOW_BYTES`] until no earlier row can come; what does not fit is
//! dropped and found again in another pass, so the order is exact at any size and memory is bounded. The
//! window, one batch of 4,096 rows and the index's postings are all that is held.

use crate::Fields;
use crate::commit::FileEntry;
use crate::index::Proposer;
use crate::layout::unescape_tenant;
use crate::logs::Lines;
use crate::matcher::{Check, Matcher, Row, tenant_holds};
use crate::query::Query;
use crate::snapshot::Snapshot;
use crate::store::Taken;
use crate::table;
use anyhow::{Context, bail};
use arrow_array::{TimestampNanosecondArray, UInt8Array, UInt32Array, UInt64Array};
use flow::event::{Severity, StreamId};
use flow::units::UnixNanos;
use hub::disk::Disk;
use hub::frame::Frame;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Hits that wait for their turn, in bytes of their lines.
pub const WINDOW_BYTES: usize = 64 << 20;

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

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files of the snapshot.
    pub files: u64,
    /// Left out by tenant or time, without being opened.
    pub files_pruned: u64,
    /// Answered with the index: only proposed rows were read.
    pub files_by_index: u64,
    /// An index that is missing or damaged: the file was scanned.
    pub index_failures: u64,
    /// Rows of files that were judged; a row counts again in each pass.
    pub rows_scanned: u64,
    /// Rows of the tail that were judged.
    pub tail_rows: u64,
    pub hits: u64,
    /// How often the files were gone through because the hits did not fit the window.
    pub passes: u64,
    /// Loose lines longer than is read: only their beginning was searched.
    pub lines_cut: u64,
}

/// Hands every row that answers `query` to `hit`, until it breaks.
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
    let fields = snapshot.fields();
    let mut matcher = Matcher::new(query, &fields)?;
    let taken = snapshot.unsealed(tail)?;
    let mut stats = Stats { files: snapshot.logs().len() as u64, ..Stats::default() };
    let mut sources = Vec::new();
    for file in snapshot.logs() {
        match choose(file, &matcher.check, options)? {
            Some(tenant) => sources.push(Source { first: file.min_time, last: file.max_time, kind: Kind::File { file, tenant } }),
            None => stats.files_pruned += 1,
        }
    }
    if let Some((first, last)) = tail_times(tail, &taken) {
        sources.push(Source { first, last, kind: Kind::Tail });
    }
    let newest_first = options.newest_first;
    sources.sort_by_key(|s| if newest_first { -i128::from(s.last) } else { i128::from(s.first) });
    let mut run = Run { disk, snapshot, tail, taken: &taken, fields, options, stats, emitted: 0, after: None };
    loop {
        run.stats.passes += 1;
        let mut window =
            Window::new(newest_first, window_bytes, options.limit.map(|limit| limit - run.emitted.min(limit)), run.after.clone());
        let stopped = run.pass(&sources, &mut matcher, &mut window, hit)?;
        if stopped || window.edge.is_none() || run.is_done() {
            return Ok(run.stats);
        }
    }
}

/// Something with rows, and the times of its first and last row.
struct Source<'a> {
    first: i64,
    last: i64,
    kind: Kind<'a>,
}

enum Kind<'a> {
    File { file: &'a FileEntry, tenant: Vec<u8> },
    Tail,
}

/// The file's tenant if rows of it can answer.
fn choose(file: &FileEntry, check: &Check, options: &SearchOptions) -> anyhow::Result<Option<Vec<u8>>> {
    let in_time = options.since.is_none_or(|since| file.max_time >= since.0) && options.until.is_none_or(|until| file.min_time < until.0);
    let Some(tenant) = unescape_tenant(&file.tenant) else { bail!("the commit log names a tenant {:?} that nobody wrote", file.tenant) };
    let text = String::from_utf8_lossy(&tenant).into_owned();
    let ours = options.tenant.as_ref().is_none_or(|want| *want == text) && tenant_possible(check, &text);
    Ok((in_time && ours).then_some(tenant))
}

/// Whether a row of this tenant can pass at all.
fn tenant_possible(check: &Check, tenant: &str) -> bool {
    match check {
        Check::Tenant(test) => tenant_holds(test, tenant),
        Check::And(checks) => checks.iter().all(|c| tenant_possible(c, tenant)),
        Check::Or(checks) => checks.iter().any(|c| tenant_possible(c, tenant)),
        Check::Not(check) => match check.as_ref() {
            Check::Tenant(test) => !tenant_holds(test, tenant),
            _ => true,
        },
        _ => true,
    }
}

fn tail_times(tail: &[Arc<Frame>], taken: &Taken) -> Option<(i64, i64)> {
    let times = || taken.parts.iter().flat_map(|(f, p)| tail[*f].parts[*p].rows.clone().map(|row| tail[*f].rows.time[row as usize]));
    Some((times().min()?, times().max()?))
}

/// A row's place in the answer. A group of lines and the line that ended it have one position: their bytes tell them apart.
type Place = (i64, Vec<u8>, StreamId, u64, u32);

fn place(hit: &Hit) -> Place {
    (hit.time.0, hit.tenant.clone(), hit.stream, hit.position, crc32fast::hash(&hit.raw))
}

/// The hits nearest to the start of the order that fit.
struct Window {
    newest_first: bool,
    bytes_max: usize,
    count_max: usize,
    bytes: usize,
    hits: BTreeMap<Place, Hit>,
    /// Hits up to here were given out in an earlier pass.
    after: Option<Place>,
    /// Something was dropped, from here on.
    edge: Option<Place>,
}

impl Window {
    fn new(newest_first: bool, bytes_max: usize, count: Option<usize>, after: Option<Place>) -> Window {
        Window { newest_first, bytes_max, count_max: count.unwrap_or(usize::MAX), bytes: 0, hits: BTreeMap::new(), after, edge: None }
    }

    /// Whether `a` comes before `b`.
    fn before(&self, a: &Place, b: &Place) -> bool {
        if self.newest_first { a > b } else { a < b }
    }

    /// Whether a row of this time can still get in.
    fn admits_time(&self, time: i64) -> bool {
        let beyond = |edge: i64| if self.newest_first { time < edge } else { time > edge };
        let passed = |after: i64| if self.newest_first { time > after } else { time < after };
        !self.edge.as_ref().is_some_and(|edge| beyond(edge.0)) && !self.after.as_ref().is_some_and(|after| passed(after.0))
    }

    /// Whether any row between these times can still get in.
    fn admits(&self, first: i64, last: i64) -> bool {
        let (near, far) = if self.newest_first { (last, first) } else { (first, last) };
        let beyond = |edge: i64| if self.newest_first { near < edge } else { near > edge };
        let passed = |after: i64| if self.newest_first { far > after } else { far < after };
        !self.edge.as_ref().is_some_and(|edge| beyond(edge.0)) && !self.after.as_ref().is_some_and(|after| passed(after.0))
    }

    fn add(&mut self, hit: Hit) {
        let at = place(&hit);
        let given = self.after.as_ref().is_some_and(|after| !self.before(after, &at));
        let beyond = self.edge.as_ref().is_some_and(|edge| !self.before(&at, edge));
        if given || beyond {
            return;
        }
        self.bytes += hit.raw.len() + size_of::<Hit>();
        self.hits.insert(at, hit);
        while self.hits.len() > self.count_max || (self.bytes > self.bytes_max && self.hits.len() > 1) {
            let dropped = if self.newest_first { self.hits.pop_first() } else { self.hits.pop_last() };
            let Some((at, hit)) = dropped else { return };
            self.bytes -= hit.raw.len() + size_of::<Hit>();
            self.edge = Some(at);
        }
    }

    /// The next hit, if no row of the given time or later in the order can come before it.
    fn next_before(&mut self, time: Option<i64>) -> Option<Hit> {
        let entry = if self.newest_first { self.hits.last_entry() } else { self.hits.first_entry() }?;
        let ready = match time {
            None => true,
            Some(time) if self.newest_first => entry.key().0 > time,
            Some(time) => entry.key().0 < time,
        };
        let hit = if ready { Some(entry.remove()) } else { None }?;
        self.bytes -= hit.raw.len() + size_of::<Hit>();
        self.count_max = self.count_max.saturating_sub(1);
        Some(hit)
    }
}

struct Run<'a> {
    disk: &'a Disk,
    snapshot: &'a Snapshot,
    tail: &'a [Arc<Frame>],
    taken: &'a Taken,
    fields: Fields,
    options: &'a SearchOptions,
    stats: Stats,
    emitted: usize,
    /// Place of the newest hit that was given out.
    after: Option<Place>,
}

impl Run<'_> {
    fn is_done(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.emitted >= limit)
    }

    /// Goes through the sources once. Returns whether to stop altogether.
    fn pass(
        &mut self,
        sources: &[Source<'_>],
        matcher: &mut Matcher,
        window: &mut Window,
        hit: &mut dyn FnMut(Hit) -> ControlFlow<()>,
    ) -> anyhow::Result<bool> {
        for source in sources {
            let near = if window.newest_first { source.last } else { source.first };
            if self.give(window, Some(near), hit) || self.is_done() {
                return Ok(true);
            }
            if !window.admits(source.first, source.last) {
                continue;
            }
            match &source.kind {
                Kind::File { file, tenant } => self.file(file, tenant, matcher, window)?,
                Kind::Tail => self.tail(matcher, window),
            }
        }
        Ok(self.give(window, None, hit))
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

    fn in_time(&self, time: i64) -> bool {
        self.options.since.is_none_or(|since| time >= since.0) && self.options.until.is_none_or(|until| time < until.0)
    }

    fn tail(&mut self, matcher: &mut Matcher, window: &mut Window) {
        for (f, p) in &self.taken.parts {
            let frame = &self.tail[*f];
            let part = &frame.parts[*p];
            for row in part.rows.clone() {
                let row = row as usize;
                let rows = &frame.rows;
                let tenant: &[u8] = frame.tenants.get(rows.tenant[row] as usize).map_or(&[], |t| t);
                self.stats.tail_rows += 1;
                let ours = self.options.tenant.as_ref().is_none_or(|want| *want == String::from_utf8_lossy(tenant));
                if !ours || !self.in_time(rows.time[row]) || !window.admits_time(rows.time[row]) {
                    continue;
                }
                let line = rows.row(row);
                if matcher.matches(Row { line, tenant: Some(tenant), severity: Some(rows.severity[row]) }) {
                    window.add(Hit {
                        tenant: tenant.to_vec(),
                        time: UnixNanos(rows.time[row]),
                        severity: rows.severity[row],
                        weight: rows.weight[row],
                        stream: part.stream,
                        position: rows.position[row],
                        raw: line.to_vec(),
                    });
                }
            }
        }
    }

    fn file(&mut self, file: &FileEntry, tenant: &[u8], matcher: &mut Matcher, window: &mut Window) -> anyhow::Result<()> {
        let rows = self.propose(file, matcher);
        if rows.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let path = self.snapshot.root.join(&file.path);
        let mut buffer = Vec::new();
        for batch in table::read_all(self.disk, &path, rows)? {
            let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
            let time: &TimestampNanosecondArray = table::column(&batch, "time")?;
            let severity: &UInt8Array = table::column(&batch, "severity")?;
            let weight: &UInt32Array = table::column(&batch, "weight")?;
            let stream: &UInt64Array = table::column(&batch, "stream")?;
            let position: &UInt64Array = table::column(&batch, "position")?;
            let lines = Lines::of(&batch).with_context(|| format!("cannot read {}", path.display()))?;
            for row in 0..batch.num_rows() {
                self.stats.rows_scanned += 1;
                if !self.in_time(time.value(row)) || !window.admits_time(time.value(row)) {
                    continue;
                }
                let line = lines.line(row, &mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
                if matcher.matches(Row { line, tenant: Some(tenant), severity: Some(severity.value(row)) }) {
                    window.add(Hit {
                        tenant: tenant.to_vec(),
                        time: UnixNanos(time.value(row)),
                        severity: severity.value(row),
                        weight: weight.value(row),
                        stream: StreamId(stream.value(row)),
                        position: position.value(row),
                        raw: line.to_vec(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The rows that the file's index proposes; `None`: all of them.
    fn propose(&mut self, file: &FileEntry, matcher: &Matcher) -> Option<Vec<Range<usize>>> {
        let path = self.snapshot.root.join(file.index.as_ref()?);
        let asked =
            || -> anyhow::Result<_> { Proposer::open(self.disk, &path, file.rows)?.propose(&matcher.check, matcher.names(), &self.fields) };
        match asked() {
            Ok(bits) => {
                let ranges = bits?.ranges();
                self.stats.files_by_index += 1;
                Some(ranges)
            }
            Err(_) => {
                // The index only saves time; the scan gives the same answer.
                self.stats.index_failures += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_keeps_what_comes_first_and_knows_what_it_dropped() {
        let hit = |time: i64| Hit {
            tenant: vec![],
            time: UnixNanos(time),
            severity: 0,
            weight: 1,
            stream: StreamId(1),
            position: time as u64,
            raw: vec![b'x'; 100],
        };
        for newest_first in [false, true] {
            let mut window = Window::new(newest_first, 3 * (100 + size_of::<Hit>()), None, None);
            for time in [5, 1, 9, 7, 3] {
                window.add(hit(time));
            }
            let kept: Vec<i64> = std::iter::from_fn(|| window.next_before(None)).map(|h| h.time.0).collect();
            assert_eq!(kept, if newest_first { [9, 7, 5] } else { [1, 3, 5] });
            assert_eq!(window.edge.as_ref().map(|e| e.0), Some(if newest_first { 3 } else { 7 }));
        }
    }
}
