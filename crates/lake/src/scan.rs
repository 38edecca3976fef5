//! Hands out the rows that answer a query as columns, in no order: what histograms, facets and percentiles are made of.
//!
//! In: a query and the names of fields; out: batches of at most 4,096 rows with their times, severities, weights and
//! the fields' values. Values come from the file's columns where the field is one, else from the lines. Lines are read
//! only for what neither index nor columns decide. Files are gone through by several threads, one row group at a
//! time; each thread has a state of the caller's, so nothing is locked. Memory: a batch per thread, and one bit per row of the
//! files in question.

mod batch;

pub use batch::{Asked, Batch, Column, Times, Wanted};

use crate::columns::{ColumnJudge, number_column};
use crate::index::Bits;
use crate::matcher::{Matcher, Row};
use crate::opened::Footer;
use crate::query::Query;
use crate::rows::{LineRows, line_columns};
use crate::search::{SearchOptions, numbers, tenant_of, to_ranges};
use crate::stats::{Stats, since};
use crate::table;
use crate::view::{Access, Candidates, Choice, View, field_column, group_ranges, in_parallel};
use anyhow::{Context, bail};
use arrow_array::types::Int32Type;
use arrow_array::{Array, DictionaryArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt8Array, UInt32Array};
use arrow_schema::DataType;
use batch::Values;
use flow::event::Signal;
use flow::fields::{FIELDS_MAX, FieldSet, Scanner, Span};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// One row group of a file in question.
struct Piece<'a> {
    choice: &'a Choice<'a>,
    candidates: &'a Candidates,
    footer: Arc<Footer>,
    group: usize,
    /// Its rows in the file.
    range: Range<usize>,
}

/// What a thread has.
struct Worker<W> {
    state: W,
    matcher: Matcher,
    /// Finds the fields that are no columns.
    scanner: Scanner,
    spans: Vec<Span>,
    stats: Stats,
}

impl View<'_> {
    /// Shows every row that answers `query` to `each`, in no order. `make` makes a state for each thread; the states
    /// come back, in no order, for the caller to merge. Of [`SearchOptions`] tenant and times count.
    pub fn scan_columns<W: Send>(
        &self,
        query: &Query,
        options: &SearchOptions,
        asked: &Asked,
        make: &(dyn Fn() -> W + Sync),
        each: &(dyn Fn(&mut W, &Batch<'_>) + Sync),
    ) -> anyhow::Result<(Vec<W>, Stats)> {
        let start = Instant::now();
        let access = Access::new(*self);
        if asked.fields.len() > FIELDS_MAX {
            crate::unanswerable!("{} fields are asked for, {FIELDS_MAX} are possible", asked.fields.len());
        }
        let matcher = Matcher::new(query, &access.fields)?;
        let mut stats = Stats { passes: 1, ..Stats::default() };
        let chosen = access.choose(&matcher.check, options, &mut stats)?;
        stats.plan_ns += since(start);
        let (threads, stop) = (self.bounds.threads, || access.stop());
        let prepare = |found: &mut Vec<(usize, Candidates, Arc<Footer>, Stats)>, at: usize, choice: &Choice<'_>| {
            let mut stats = Stats::default();
            let candidates = access.candidates(choice, &matcher, true, &mut stats)?;
            found.push((at, candidates, access.footer(choice.file)?, stats));
            Ok(())
        };
        let (prepared, partial) = in_parallel(threads, &stop, &chosen, &Vec::new, &prepare)?;
        stats.partial = partial;
        let prepared: Vec<_> = prepared.into_iter().flatten().collect();
        let mut pieces = Vec::new();
        for (at, candidates, footer, cost) in &prepared {
            stats.add(cost);
            if candidates.rows.as_ref().is_some_and(Bits::is_empty) {
                continue;
            }
            stats.files_opened += 1;
            for (group, range) in group_ranges(footer).into_iter().enumerate() {
                stats.row_groups += 1;
                if candidates.rows.as_ref().is_some_and(|bits| bits.rows_in(range.clone()).next().is_none()) {
                    stats.row_groups_skipped += 1;
                    continue;
                }
                pieces.push(Piece { choice: &chosen[*at], candidates, footer: Arc::clone(footer), group, range });
            }
        }
        let names: Vec<&str> = asked.fields.iter().map(Wanted::name).collect();
        // Names may come twice, as text and as number; a set knows each once.
        let mut distinct = names.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let set = Arc::new(FieldSet::new(&distinct));
        let places: Vec<usize> = names.iter().filter_map(|name| distinct.iter().position(|d| d == name)).collect();
        let scan = Scan { access: &access, options, asked, places, each };
        // Compiling a query cannot fail a second time, but an error is still one.
        let worker = || -> anyhow::Result<Worker<W>> {
            Ok(Worker {
                state: make(),
                matcher: Matcher::new(query, &access.fields)?,
                scanner: Scanner::new(Arc::clone(&set)),
                spans: vec![Span::default(); set.len()],
                stats: Stats::default(),
            })
        };
        let one = |worker: &mut anyhow::Result<Worker<W>>, _: usize, piece: &Piece<'_>| match worker {
            Ok(worker) => scan.piece(piece, worker),
            Err(_) => bail!("the query cannot be run"),
        };
        let (mut workers, partial) = in_parallel(threads, &stop, &pieces, &worker, &one)?;
        stats.partial = stats.partial.or(partial);
        if let Some(Ok(worker)) = workers.first_mut() {
            scan.tail(worker)?;
        }
        let mut states = Vec::new();
        for worker in workers {
            let worker = worker?;
            stats.add(&worker.stats);
            states.push(worker.state);
        }
        stats.bytes_read = access.meter.total();
        Ok((states, stats))
    }
}

struct Scan<'a, W> {
    access: &'a Access<'a>,
    options: &'a SearchOptions,
    asked: &'a Asked,
    /// For each field asked for: its place among the spans.
    places: Vec<usize>,
    each: &'a (dyn Fn(&mut W, &Batch<'_>) + Sync),
}

/// Where a row group's times, severities or weights come from.
enum Source<T> {
    Not,
    Constant(T),
    Read,
}

impl<W> Scan<'_, W> {
    fn piece(&self, piece: &Piece<'_>, worker: &mut Worker<W>) -> anyhow::Result<()> {
        let group = piece.footer.metadata.metadata().row_group(piece.group);
        let mut rows: Option<Vec<Range<usize>>> =
            piece.candidates.rows.as_ref().map(|bits| to_ranges(bits.rows_in(piece.range.clone()).map(|row| row - piece.range.start)));
        let mut exact = piece.candidates.exact;
        if !exact && let Some(mut judge) = ColumnJudge::new(&worker.matcher, &piece.footer) {
            rows = Some(self.by_columns(piece, rows, &mut judge, worker)?);
            exact = true;
        }
        if rows.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let time_bounds = integers(group, &piece.footer, "time");
        let in_time = time_bounds.is_some_and(|(min, max)| self.options.holds_time(min) && self.options.holds_time(max));
        let times = match (self.asked.times, time_bounds) {
            (Times::No, _) if in_time => Source::Not,
            (Times::Bucket { start, width }, Some((min, max))) if in_time && same_bucket(start, width, min, max) => Source::Constant(min),
            _ => Source::Read,
        };
        let severities = self.constant(self.asked.severities || !exact, integers(group, &piece.footer, "severity"));
        let weights = self.constant(self.asked.weights, integers(group, &piece.footer, "weight"));
        let kinds: Vec<Option<ColumnKind<'_>>> = self.asked.fields.iter().map(|field| column_kind(&piece.footer, group, field)).collect();
        let with_lines = !exact || kinds.iter().any(Option::is_none);
        let mut columns: Vec<&str> = Vec::new();
        let mut dictionaries: Vec<&str> = Vec::new();
        for (name, is_read) in [
            ("time", matches!(times, Source::Read)),
            ("severity", matches!(severities, Source::Read)),
            ("weight", matches!(weights, Source::Read)),
        ] {
            if is_read {
                columns.push(name);
            }
        }
        if with_lines {
            columns.extend(line_columns(&piece.footer));
        }
        for kind in kinds.iter().flatten() {
            columns.push(kind.column);
            if kind.has_codes {
                dictionaries.push(kind.column);
            }
        }
        if columns.is_empty() {
            let count = rows.as_ref().map_or(group.num_rows() as usize, |ranges| ranges.iter().map(Range::len).sum());
            return self.constants(&piece.choice.tenant, count, &times, &severities, &weights, worker);
        }
        let mut start = Instant::now();
        for batch in self.access.read(piece.choice.file, &columns, &dictionaries, Some(vec![piece.group]), rows)? {
            let batch = batch.with_context(|| format!("cannot read {}", piece.choice.file.path))?;
            worker.stats.read_ns += since(start);
            start = Instant::now();
            let n = batch.num_rows();
            let time_values = values(&times, n, || Ok(table::column::<TimestampNanosecondArray>(&batch, "time")?.values()))?;
            let severity_values = values(&severities, n, || Ok(table::column::<UInt8Array>(&batch, "severity")?.values()))?;
            let weight_values = values(&weights, n, || Ok(table::column::<UInt32Array>(&batch, "weight")?.values()))?;
            let lines = if with_lines { Some(LineRows::of(&batch)?) } else { None };
            let mut passing: Vec<u32> = Vec::with_capacity(n);
            for row in 0..n {
                if matches!(times, Source::Read) && !self.options.holds_time(time_values[row]) {
                    continue;
                }
                if let (false, Some(lines)) = (exact, &lines) {
                    worker.stats.rows_scanned += 1;
                    let row = Row { line: lines.line(row), tenant: Some(&piece.choice.tenant), severity: Some(severity_values[row]) };
                    if !worker.matcher.matches(row) {
                        continue;
                    }
                }
                passing.push(row as u32);
            }
            if passing.is_empty() {
                worker.stats.judge_ns += since(start);
                start = Instant::now();
                continue;
            }
            let line = |row: u32| lines.as_ref().map_or(&[][..], |lines| lines.line(row as usize));
            let found = self.columns(Some(&batch), &kinds, n, &passing, &line, &mut worker.scanner, &mut worker.spans)?;
            let tenant = piece.choice.tenant.as_slice();
            let shown = Batch {
                tenant,
                rows: &passing,
                times: &time_values,
                severities: &severity_values,
                weights: &weight_values,
                columns: found,
            };
            worker.stats.hits += passing.len() as u64;
            (self.each)(&mut worker.state, &shown);
            worker.stats.judge_ns += since(start);
            start = Instant::now();
        }
        Ok(())
    }

    fn constant<T: TryFrom<i64>>(&self, is_asked: bool, bounds: Option<(i64, i64)>) -> Source<T> {
        match bounds {
            _ if !is_asked => Source::Not,
            Some((min, max)) if min == max => T::try_from(min).map_or(Source::Read, Source::Constant),
            _ => Source::Read,
        }
    }

    /// Rows of which the footer says all that was asked.
    fn constants(
        &self,
        tenant: &[u8],
        count: usize,
        times: &Source<i64>,
        severities: &Source<u8>,
        weights: &Source<u32>,
        worker: &mut Worker<W>,
    ) -> anyhow::Result<()> {
        let all: Vec<u32> = (0..table::BATCH_ROWS.min(count) as u32).collect();
        let nothing = || bail!("a column that is read");
        let (times, severities, weights) = (
            values(times, all.len(), || -> anyhow::Result<&[i64]> {
                nothing()?;
                Ok(&[])
            })?,
            values(severities, all.len(), || -> anyhow::Result<&[u8]> {
                nothing()?;
                Ok(&[])
            })?,
            values(weights, all.len(), || -> anyhow::Result<&[u32]> {
                nothing()?;
                Ok(&[])
            })?,
        );
        let mut left = count;
        while left > 0 {
            let n = left.min(all.len());
            let batch = Batch { tenant, rows: &all[..n], times: &times, severities: &severities, weights: &weights, columns: Vec::new() };
            (self.each)(&mut worker.state, &batch);
            left -= n;
        }
        worker.stats.hits += count as u64;
        Ok(())
    }

    /// The rows of the group that pass as their columns say.
    fn by_columns(
        &self,
        piece: &Piece<'_>,
        rows: Option<Vec<Range<usize>>>,
        judge: &mut ColumnJudge,
        worker: &mut Worker<W>,
    ) -> anyhow::Result<Vec<Range<usize>>> {
        let mut numbers = numbers(&rows, piece.range.len());
        let mut passed = Vec::new();
        let columns: Vec<&str> = judge.columns.iter().map(String::as_str).chain(["severity"]).collect();
        let mut start = Instant::now();
        for batch in self.access.read(piece.choice.file, &columns, &[], Some(vec![piece.group]), rows)? {
            let batch = batch.with_context(|| format!("cannot read {}", piece.choice.file.path))?;
            worker.stats.read_ns += since(start);
            start = Instant::now();
            let severity: &UInt8Array = table::column(&batch, "severity")?;
            let texts = judge.values(&batch)?;
            worker.stats.rows_by_columns += batch.num_rows() as u64;
            for (row, number) in (0..batch.num_rows()).zip(&mut numbers) {
                if judge.passes(&mut worker.matcher, &texts, row, &piece.choice.tenant, severity.value(row)) {
                    passed.push(number);
                }
            }
            worker.stats.judge_ns += since(start);
            start = Instant::now();
        }
        Ok(to_ranges(passed.into_iter()))
    }

    /// The values of the fields asked for: from the batch where it has them, else from the lines of the rows that pass.
    #[expect(clippy::too_many_arguments, reason = "the scanner and its spans are parts of the worker that is borrowed elsewhere")]
    fn columns<'b, 'l>(
        &self,
        batch: Option<&'b RecordBatch>,
        kinds: &[Option<ColumnKind<'_>>],
        count: usize,
        passing: &[u32],
        line: &dyn Fn(u32) -> &'l [u8],
        scanner: &mut Scanner,
        spans: &mut [Span],
    ) -> anyhow::Result<Vec<Column<'b>>> {
        let mut of_lines: Vec<Vec<Option<Box<[u8]>>>> =
            kinds.iter().map(|k| if k.is_none() { vec![None; count] } else { Vec::new() }).collect();
        if kinds.iter().any(Option::is_none) {
            for row in passing {
                let line = line(*row);
                scanner.scan(line, spans);
                for ((texts, place), _) in of_lines.iter_mut().zip(&self.places).zip(kinds).filter(|(_, kind)| kind.is_none()) {
                    texts[*row as usize] = spans[*place].text(line).map(|text| Box::from(lossy(text).as_ref()));
                }
            }
        }
        let mut columns = Vec::new();
        for (kind, texts) in kinds.iter().zip(of_lines) {
            let values = match (kind, batch) {
                (Some(ColumnKind { column, has_codes: true }), Some(batch)) => {
                    let codes: &DictionaryArray<Int32Type> = table::column(batch, column)?;
                    let values = codes.values().as_any().downcast_ref::<StringArray>().context("a dictionary of text has other values")?;
                    Values::Codes(codes, values)
                }
                (Some(ColumnKind { column, .. }), Some(batch)) => match table::column::<StringArray>(batch, column) {
                    Ok(texts) => Values::Texts(texts),
                    Err(_) => Values::Numbers(table::column(batch, column)?),
                },
                _ => Values::Lines(texts),
            };
            columns.push(Column { values });
        }
        Ok(columns)
    }

    /// The rows of the tail.
    fn tail(&self, worker: &mut Worker<W>) -> anyhow::Result<()> {
        let view = &self.access.view;
        let kinds: Vec<Option<ColumnKind<'_>>> = self.asked.fields.iter().map(|_| None).collect();
        for (f, p) in view.snapshot.unsealed_of(Signal::Logs, view.tail)?.parts {
            let frame = &view.tail[f];
            let rows = &frame.rows;
            // By tenant, as rows of files are.
            let mut passing: Vec<(u32, u32)> = Vec::new();
            for row in frame.parts[p].rows.clone() {
                let at = row as usize;
                let tenant = tenant_of(frame, at);
                if !self.options.holds_tenant(tenant) {
                    continue;
                }
                worker.stats.tail_rows += 1;
                let about = Row { line: rows.row(at), tenant: Some(tenant), severity: Some(rows.severity[at]) };
                if self.options.holds_time(rows.time[at]) && worker.matcher.matches(about) {
                    passing.push((rows.tenant[at], row));
                }
            }
            passing.sort_unstable();
            for passing in passing.chunk_by(|a, b| a.0 == b.0).flat_map(|of_tenant| of_tenant.chunks(table::BATCH_ROWS)) {
                let tenant = tenant_of(frame, passing[0].1 as usize);
                let places = || passing.iter().map(|(_, row)| *row as usize);
                let all: Vec<u32> = (0..passing.len() as u32).collect();
                let line = |row: u32| rows.row(passing[row as usize].1 as usize);
                let columns = self.columns(None, &kinds, all.len(), &all, &line, &mut worker.scanner, &mut worker.spans)?;
                let times: Vec<i64> = places().map(|row| rows.time[row]).collect();
                let severities: Vec<u8> = places().map(|row| rows.severity[row]).collect();
                let weights: Vec<u32> = places().map(|row| rows.weight[row]).collect();
                let shown = Batch { tenant, rows: &all, times: &times, severities: &severities, weights: &weights, columns };
                worker.stats.hits += passing.len() as u64;
                (self.each)(&mut worker.state, &shown);
            }
        }
        Ok(())
    }
}

fn lossy(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(replaced) => Cow::Owned(replaced.into_bytes()),
    }
}

/// How a file has a field.
struct ColumnKind<'a> {
    column: &'a str,
    /// As codes and values; else the values themselves.
    has_codes: bool,
}

/// `None`: the file does not have it as it is asked for.
fn column_kind<'a>(footer: &'a Footer, group: &RowGroupMetaData, field: &Wanted) -> Option<ColumnKind<'a>> {
    let name = |at: usize| footer.metadata.schema().field(at).name().as_str();
    if let Wanted::Number(field) = field
        && let Some(at) = number_column(footer, field)
    {
        return Some(ColumnKind { column: name(at), has_codes: false });
    }
    let at = field_column(footer, field.name(), &DataType::Utf8)?;
    Some(ColumnKind { column: name(at), has_codes: group.column(at).dictionary_page_offset().is_some() })
}

fn values<'b, T: Copy>(source: &Source<T>, count: usize, read: impl FnOnce() -> anyhow::Result<&'b [T]>) -> anyhow::Result<Cow<'b, [T]>>
where
    [T]: ToOwned<Owned = Vec<T>>,
{
    Ok(match source {
        Source::Not => Cow::Borrowed(&[]),
        Source::Constant(value) => Cow::Owned(vec![*value; count]),
        Source::Read => Cow::Borrowed(read()?),
    })
}

fn same_bucket(start: i64, width: i64, min: i64, max: i64) -> bool {
    let bucket = |time: i64| (i128::from(time) - i128::from(start)).div_euclid(i128::from(width.max(1)));
    bucket(min) == bucket(max)
}

/// Least and greatest value of a column of integers, as the row group's statistics say.
fn integers(group: &RowGroupMetaData, footer: &Footer, name: &str) -> Option<(i64, i64)> {
    let (at, _) = footer.metadata.schema().column_with_name(name)?;
    match group.column(at).statistics()? {
        Statistics::Int32(s) => Some((i64::from(*s.min_opt()?), i64::from(*s.max_opt()?))),
        Statistics::Int64(s) => Some((*s.min_opt()?, *s.max_opt()?)),
        _ => None,
    }
}
