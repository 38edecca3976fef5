//! What questions are asked of: a lake as of one snapshot, its tail, and the bounds of an answer.
//!
//! In: a snapshot and the tail that was taken before it; out: for each question the files that can answer, and of a
//! file the rows that can. Files are chosen by tenant and time, row groups by bloom filters, rows by the index.
//! Memory: one bit per row of the files in question, and the caller's cache.

use crate::bloom;
use crate::commit::FileEntry;
use crate::index::Bits;
use crate::layout::unescape_tenant;
use crate::matcher::{Check, Matcher, tenant_holds};
use crate::opened::{Cache, Footer};
use crate::search::{SearchOptions, tenant_of};
use crate::snapshot::Snapshot;
use crate::stats::{Partial, PartialWhy, Stats, since};
use crate::stored::{Meter, StoredFile};
use crate::{Fields, table};
use anyhow::{Context, bail};
use arrow_schema::{DataType, Field, Schema};
use flow::event::Signal;
use hub::disk::Disk;
use hub::frame::Frame;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// A lake, its unsealed tail (taken *before* the snapshot), and how much an answer may cost.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub disk: &'a Disk,
    pub snapshot: &'a Snapshot,
    pub tail: &'a [Arc<Frame>],
    pub cache: &'a Cache,
    pub bounds: Bounds<'a>,
}

/// How much an answer may cost. What stops early says so in [`Stats::partial`].
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// The caller's clock: true when the time is over. It is asked between slices of files and between row groups, so
    /// about every 64 thousand rows.
    pub is_over: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// Bytes to read of Parquet files; the piece that reaches it is still read.
    pub bytes_max: Option<u64>,
    /// Files are read by so many threads at once, at least one.
    pub threads: usize,
}

impl Default for Bounds<'_> {
    fn default() -> Self {
        Bounds { is_over: None, bytes_max: None, threads: 2 }
    }
}

impl View<'_> {
    /// Times of the oldest and the newest row, of one tenant or of all: from the commits and the tail, without opening a file.
    pub fn times(&self, tenant: Option<&str>) -> anyhow::Result<Option<(i64, i64)>> {
        let is_own = |name: &[u8]| tenant.is_none_or(|want| want.as_bytes() == name);
        let mut times: Option<(i64, i64)> = None;
        let mut add = |from: i64, to: i64| {
            let (first, last) = times.unwrap_or((from, to));
            times = Some((first.min(from), last.max(to)));
        };
        for file in self.snapshot.logs() {
            if unescape_tenant(&file.tenant).is_some_and(|name| is_own(&name)) {
                add(file.min_time, file.max_time);
            }
        }
        for (f, p) in self.snapshot.unsealed_of(Signal::Logs, self.tail)?.parts {
            let frame = &self.tail[f];
            for row in frame.parts[p].rows.clone() {
                let row = row as usize;
                if is_own(tenant_of(frame, row)) {
                    add(frame.rows.time[row], frame.rows.time[row]);
                }
            }
        }
        Ok(times)
    }
}

/// One question's way to the files.
pub(crate) struct Access<'a> {
    pub view: View<'a>,
    pub meter: Arc<Meter>,
    pub fields: Fields,
}

/// A file that can answer.
pub(crate) struct Choice<'a> {
    pub file: &'a FileEntry,
    pub tenant: Vec<u8>,
}

/// The rows of a file that can answer.
pub(crate) struct Candidates {
    /// `None`: all.
    pub rows: Option<Bits>,
    /// They are the answer: no row has to be judged.
    pub exact: bool,
}

impl<'a> Access<'a> {
    pub(crate) fn new(view: View<'a>) -> Access<'a> {
        Access { view, meter: Arc::default(), fields: view.snapshot.fields() }
    }

    /// Why to stop now, if so.
    pub(crate) fn stop(&self) -> Option<PartialWhy> {
        if self.view.bounds.bytes_max.is_some_and(|max| self.meter.total() >= max) {
            return Some(PartialWhy::Bytes);
        }
        self.view.bounds.is_over.is_some_and(|is_over| is_over()).then_some(PartialWhy::Deadline)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.view.snapshot.root.join(path)
    }

    pub(crate) fn footer(&self, file: &FileEntry) -> anyhow::Result<Arc<Footer>> {
        let footer = self.view.cache.footer(self.view.disk, &self.path(&file.path), &self.meter)?;
        // Rows are picked by their numbers, so the file must have as many as its commit says.
        let counts = footer.metadata.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).ok());
        let rows = counts.sum::<Option<u64>>();
        let says = u64::try_from(footer.metadata.metadata().file_metadata().num_rows()).ok();
        if rows != Some(file.rows) || says != rows {
            bail!("{} does not hold what its commit says: it is damaged", file.path);
        }
        Ok(footer)
    }

    /// The files in question, in the order of their commits.
    pub(crate) fn choose(&self, check: &Check, options: &SearchOptions, stats: &mut Stats) -> anyhow::Result<Vec<Choice<'a>>> {
        let mut chosen = Vec::new();
        for file in self.view.snapshot.logs() {
            let in_time =
                options.since.is_none_or(|since| file.max_time >= since.0) && options.until.is_none_or(|until| file.min_time < until.0);
            let Some(tenant) = unescape_tenant(&file.tenant) else {
                bail!("the commit log names a tenant {:?} that nobody wrote", file.tenant)
            };
            if !options.holds_tenant(&tenant) {
                continue; // nobody learns how much others have
            }
            stats.files += 1;
            if in_time && tenant_possible(check, &String::from_utf8_lossy(&tenant)) {
                chosen.push(Choice { file, tenant });
            } else {
                stats.files_pruned += 1;
            }
        }
        Ok(chosen)
    }

    /// The rows of the file that can pass; `exact`: try to decide without lines.
    pub(crate) fn candidates(&self, choice: &Choice<'_>, matcher: &Matcher, exact: bool, stats: &mut Stats) -> anyhow::Result<Candidates> {
        let start = Instant::now();
        let found = self.find_candidates(choice, matcher, exact, stats);
        stats.index_ns += since(start);
        found
    }

    fn find_candidates(&self, choice: &Choice<'_>, matcher: &Matcher, exact: bool, stats: &mut Stats) -> anyhow::Result<Candidates> {
        let check = &matcher.check;
        if is_all(check, &String::from_utf8_lossy(&choice.tenant)) {
            return Ok(Candidates { rows: None, exact: true });
        }
        let mut groups = None;
        let mut absent = Vec::new();
        if asks_ids(check) {
            let footer = self.footer(choice.file)?;
            let file = StoredFile::open(self.view.disk, &self.path(&choice.file.path), &self.meter)?;
            let filters = Filters { file: &file, footer: &footer, names: matcher.names(), fields: &self.fields };
            groups = filters.groups(check);
            if groups.as_ref().is_some_and(|groups| groups.iter().all(|may| !may)) {
                stats.files_pruned_by_bloom += 1;
                return Ok(Candidates { rows: Some(Bits::none(choice.file.rows as usize)), exact: true });
            }
            filters.absent(check, &mut absent);
        }
        let mut found = self.ask_index(choice, matcher, exact, &absent, stats);
        if let Some(groups) = groups {
            let footer = self.footer(choice.file)?;
            let ranges: Vec<Range<usize>> =
                group_ranges(&footer).into_iter().zip(&groups).filter(|(_, may)| **may).map(|(r, _)| r).collect();
            let rows = found.rows.get_or_insert_with(|| Bits::all(choice.file.rows as usize));
            rows.keep(&ranges);
        }
        if found.rows.as_ref().is_some_and(Bits::is_empty) {
            stats.files_pruned_by_index += 1;
        }
        Ok(found)
    }

    fn ask_index(&self, choice: &Choice<'_>, matcher: &Matcher, exact: bool, absent: &[&str], stats: &mut Stats) -> Candidates {
        let unknown = Candidates { rows: None, exact: false };
        let Some(index) = choice.file.index.as_ref() else { return unknown };
        let path = self.path(index);
        let (check, names) = (&matcher.check, matcher.names());
        let asked = || -> anyhow::Result<(Candidates, u64)> {
            let before = self.view.cache.index_bytes_read(&path);
            let index = self.view.cache.index(self.view.disk, &path, choice.file.rows)?;
            let decided = match exact {
                true => index.decide(check, names, &self.fields, absent, &String::from_utf8_lossy(&choice.tenant))?,
                false => None,
            };
            let found = match decided {
                Some(rows) => Candidates { rows: Some(rows), exact: true },
                None => Candidates { rows: index.candidates(check, names, &self.fields, absent)?, exact: false },
            };
            Ok((found, index.bytes_read().saturating_sub(before)))
        };
        match asked() {
            Ok((found, bytes)) => {
                stats.index_bytes_read += bytes;
                stats.files_by_index += u64::from(found.rows.is_some());
                found
            }
            Err(_) => {
                // The index only saves time; the scan gives the same answer.
                self.view.cache.forget(&path);
                stats.index_failures += 1;
                unknown
            }
        }
    }

    /// Batches of the named columns, of which `dictionaries` come as codes and values. `groups`: only these row
    /// groups; `rows`: of what is left only these, counted from its beginning.
    pub(crate) fn read(
        &self,
        file: &FileEntry,
        columns: &[&str],
        dictionaries: &[&str],
        groups: Option<Vec<usize>>,
        rows: Option<Vec<Range<usize>>>,
    ) -> anyhow::Result<ParquetRecordBatchReader> {
        let path = self.path(&file.path);
        let cannot = || format!("cannot read {}", path.display());
        let footer = self.footer(file)?;
        let source = StoredFile::open(self.view.disk, &path, &self.meter)?;
        let metadata = if dictionaries.is_empty() { footer.metadata.clone() } else { with_dictionaries(&footer, dictionaries)? };
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(source, metadata);
        // By place: the reader takes a dot in a name for a member of a struct, and no column of ours has any.
        let places = columns.iter().filter_map(|name| footer.metadata.schema().index_of(name).ok());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), places);
        let mut builder = builder.with_projection(mask).with_batch_size(table::BATCH_ROWS);
        let mut total = builder.metadata().file_metadata().num_rows() as usize;
        if let Some(groups) = groups {
            total = groups.iter().map(|g| builder.metadata().row_group(*g).num_rows() as usize).sum();
            builder = builder.with_row_groups(groups);
        }
        if let Some(ranges) = rows {
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges.into_iter(), total));
        }
        builder.build().with_context(cannot)
    }
}

fn with_dictionaries(footer: &Footer, names: &[&str]) -> anyhow::Result<ArrowReaderMetadata> {
    let field = |field: &Arc<Field>| match names.contains(&field.name().as_str()) {
        true => {
            let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            Arc::new(Field::new(field.name(), kind, field.is_nullable()))
        }
        false => Arc::clone(field),
    };
    let schema = Schema::new(footer.metadata.schema().fields().iter().map(field).collect::<Vec<_>>());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    Ok(ArrowReaderMetadata::try_new(Arc::clone(footer.metadata.metadata()), options)?)
}

/// The rows of each row group.
pub(crate) fn group_ranges(footer: &Footer) -> Vec<Range<usize>> {
    let mut at = 0;
    let rows = |group: &parquet::file::metadata::RowGroupMetaData| {
        let range = at..at + group.num_rows() as usize;
        at = range.end;
        range
    };
    footer.metadata.metadata().row_groups().iter().map(rows).collect()
}

/// The column of a field in this file, if it has one that surely is this field.
pub(crate) fn field_column(footer: &Footer, field: &str, kind: &DataType) -> Option<usize> {
    let (at, found) = footer.metadata.schema().column_with_name(footer.notes.column(field)?)?;
    (found.is_nullable() && found.data_type() == kind).then_some(at)
}

/// Whether a row of this tenant can pass at all.
pub(crate) fn tenant_possible(check: &Check, tenant: &str) -> bool {
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

/// Whether every row of this tenant surely passes.
fn is_all(check: &Check, tenant: &str) -> bool {
    match check {
        Check::All => true,
        Check::Tenant(test) => tenant_holds(test, tenant),
        Check::And(checks) => checks.iter().all(|c| is_all(c, tenant)),
        Check::Or(checks) => checks.iter().any(|c| is_all(c, tenant)),
        _ => false,
    }
}

/// Whether a bloom filter could say something.
fn asks_ids(check: &Check) -> bool {
    match check {
        Check::Equals { .. } | Check::Bare { .. } => true,
        Check::And(checks) | Check::Or(checks) => checks.iter().any(asks_ids),
        Check::Not(check) => asks_ids(check),
        _ => false,
    }
}

/// The bloom filters of one file.
struct Filters<'a> {
    file: &'a StoredFile,
    footer: &'a Footer,
    names: &'a [String],
    fields: &'a Fields,
}

impl Filters<'_> {
    /// Which row groups may hold a row that passes; `None`: nothing is known.
    fn groups(&self, check: &Check) -> Option<Vec<bool>> {
        let join = |checks: &[Check], all: bool| -> Option<Vec<bool>> {
            let mut joined: Option<Vec<bool>> = None;
            for check in checks {
                match (&mut joined, self.groups(check)) {
                    (_, None) if all => {}
                    (_, None) => return None,
                    (Some(joined), Some(more)) => joined.iter_mut().zip(more).for_each(|(a, b)| *a = if all { *a && b } else { *a || b }),
                    (joined, some) => *joined = some,
                }
            }
            joined
        };
        match check {
            Check::And(checks) => join(checks, true),
            Check::Or(checks) => join(checks, false),
            Check::Equals { field, text } if self.fields.ids.contains(&self.names[*field]) => self.holders(&self.names[*field], text),
            _ => None,
        }
    }

    /// Which row groups may hold this text in the id field; `None`: it is no column of this file.
    fn holders(&self, field: &str, text: &str) -> Option<Vec<bool>> {
        let column = field_column(self.footer, field, &DataType::Utf8)?;
        let groups = self.footer.metadata.metadata().row_groups().iter();
        Some(
            groups
                .map(|group| {
                    let chunk = group.column(column);
                    let nulls = chunk.statistics().and_then(|s| s.null_count_opt());
                    nulls != Some(group.num_rows() as u64) && bloom::may_hold(self.file, chunk, text.as_bytes())
                })
                .collect(),
        )
    }

    /// Bare texts that are surely in no id field of the file.
    fn absent<'c>(&self, check: &'c Check, absent: &mut Vec<&'c str>) {
        match check {
            Check::And(checks) | Check::Or(checks) => checks.iter().for_each(|c| self.absent(c, absent)),
            Check::Not(check) => self.absent(check, absent),
            Check::Bare { whole, .. } if absent.len() < 8 => {
                let is_absent = |id: &String| self.holders(id, whole).is_some_and(|groups| groups.iter().all(|may| !may));
                if self.fields.ids.iter().all(is_absent) {
                    absent.push(whole);
                }
            }
            _ => {}
        }
    }
}

/// Runs `work` over `items`, by several threads that each have a state of their own; stops at the first error, or when
/// `stop` says so. Returns the states; the first one is that of the calling thread.
pub(crate) fn in_parallel<I: Sync, W: Send>(
    threads: usize,
    stop: &(dyn Fn() -> Option<PartialWhy> + Sync),
    items: &[I],
    make: &(dyn Fn() -> W + Sync),
    work: &(dyn Fn(&mut W, usize, &I) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<(Vec<W>, Option<Partial>)> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || -> anyhow::Result<(W, Option<PartialWhy>)> {
        let mut state = make();
        while !stopped.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            if let Some(why) = stop() {
                stopped.store(true, Ordering::Relaxed);
                return Ok((state, Some(why)));
            }
            if let Err(error) = work(&mut state, at, item) {
                stopped.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok((state, None))
    };
    let helpers = threads.clamp(1, 64).min(items.len().max(1)) - 1;
    let outcomes = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..helpers).map(|_| scope.spawn(run)).collect();
        let mut outcomes = vec![run()];
        for handle in handles {
            outcomes.push(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        outcomes
    });
    let (mut states, mut why) = (Vec::new(), None);
    for outcome in outcomes {
        let (state, stopped) = outcome?;
        states.push(state);
        why = why.or(stopped);
    }
    Ok((states, why.map(|why| Partial { why, complete_to: None })))
}
