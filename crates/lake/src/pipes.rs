//! Pipes: rows that answer a query become a table.
//!
//! In: a query and, one after the other in any order, the rows that answer its filters; out: a table. Bounded by
//! the bytes that the caller gives: beyond them percentiles and `uniq` become estimates, which the table's note
//! says, and what still does not fit is an error that names the way out. Two pipelines over parts of the rows can
//! be merged; the table does not depend on the order of rows nor on how they were split.
//!
//! `count`, `sum`, `avg`, percentiles and all others look at each kept record once, whatever it stands for;
//! `weight()` is what the kept records stand for, so it is the estimate of a count where records were sampled.
//! A sum, an average and a percentile take numbers only; `min` and `max` take the least and greatest number, where
//! there is none the time, where there is none the text. Records without a field form a group of their own,
//! except in `top` and `rare`. Records as rows of a table come newest first.
//!
//! Read in this order: `plan` (names to places), this file (rows in, table out), `groups` (what functions know),
//! `batches` (rows as columns), `chart`, `templates`, `records` (rows that stay rows), `table` (what happens to a table); below them `number`,
//! `percentile`, `distinct`.

mod plan;

mod batches;
mod chart;
mod groups;
mod records;
mod templates;

mod table;

mod distinct;
mod number;
mod percentile;

#[cfg(test)]
mod tests;

pub use number::Number;
pub use table::{Cell, Table};

use crate::Fields;
use crate::query::{Call, Function, Pipe, Query};
use crate::search::Hit;
use anyhow::bail;
use chart::Chart;
use flow::escape::unescape_into;
use flow::event::{Severity, StreamId};
use flow::fields::{FIELDS_MAX, FieldSet, Kind, Scanner, Span};
use flow::units::UnixNanos;
use groups::Groups;
pub(crate) use groups::Value;
use plan::{Names, Slot};
use records::Records;
use std::ops::ControlFlow;
use std::sync::Arc;
use templates::Templates;

/// A row that answers a query.
#[derive(Clone, Copy, Debug)]
pub struct RowView<'a> {
    /// The line as it was received.
    pub line: &'a [u8],
    pub tenant: &'a [u8],
    pub time: UnixNanos,
    pub severity: Severity,
    /// How many records it stands for.
    pub weight: u32,
    /// With `position`: the row's name for ever.
    pub stream: StreamId,
    pub position: u64,
}

impl<'a> From<&'a Hit> for RowView<'a> {
    fn from(hit: &'a Hit) -> RowView<'a> {
        RowView {
            line: &hit.raw,
            tenant: &hit.tenant,
            time: hit.time,
            severity: hit.severity,
            weight: hit.weight,
            stream: hit.stream,
            position: hit.position,
        }
    }
}

/// A query's pipes at work. One per thread; merge them at the end.
pub struct Pipeline {
    names: Names,
    scanner: Scanner,
    spans: Vec<Span>,
    /// Texts of this row that had to be written anew.
    scratch: Vec<u8>,
    sink: Sink,
    /// Pipes after the first that makes a table of groups.
    rest: Vec<Pipe>,
    bytes_max: usize,
}

/// What rows go into.
enum Sink {
    Groups { groups: Groups, by: Vec<Slot>, inputs: Vec<Slot>, columns: Vec<String>, top: Option<Top> },
    Chart { chart: Chart, by: Vec<Slot>, inputs: Vec<Slot>, columns: Vec<String> },
    Templates { templates: Templates, text: Slot, n: usize },
    Records(Records),
}

#[derive(Clone, Copy)]
struct Top {
    n: usize,
    rare: bool,
}

impl Pipeline {
    /// `fields`: which fields are text. `bytes_max`: memory for what is kept of the rows.
    ///
    /// Refuses pipes that name more than [`FIELDS_MAX`] fields, those that stand for several counted one by one.
    pub fn new(query: &Query, fields: &Fields, bytes_max: usize) -> anyhow::Result<Pipeline> {
        let mut names = Names::default();
        let pipes = &query.pipes;
        let (sink, rest) = match pipes.first() {
            Some(Pipe::Stats { .. } | Pipe::Top { .. } | Pipe::Timechart { .. }) => {
                (group_sink(&pipes[0], &mut names, bytes_max), &pipes[1..])
            }
            Some(Pipe::Patterns { n }) => {
                let text = names.first_of(fields.text.iter().map(String::as_str));
                (Sink::Templates { templates: Templates::new(bytes_max), text, n: *n }, &pipes[1..])
            }
            _ => (Sink::Records(Records::new(pipes, fields, &mut names, bytes_max)), &pipes[..]),
        };
        if names.names().len() > FIELDS_MAX {
            crate::unanswerable!("the pipes name too many fields: {}, and {FIELDS_MAX} are possible", names.names().len());
        }
        let fields = Arc::new(FieldSet::new(names.names()));
        let spans = vec![Span::default(); fields.len()];
        Ok(Pipeline { names, scanner: Scanner::new(fields), spans, scratch: Vec::new(), sink, rest: rest.to_vec(), bytes_max })
    }

    /// What `timechart` shows even where nothing is: from `since` on, before `until`.
    pub fn show_range(&mut self, since: Option<UnixNanos>, until: Option<UnixNanos>) -> anyhow::Result<()> {
        if let Sink::Chart { chart, .. } = &mut self.sink {
            for time in since.map(|t| t.0).into_iter().chain(until.map(|t| t.0.saturating_sub(1))) {
                chart.show(time)?;
            }
        }
        Ok(())
    }

    /// Takes one row. `Break`: no further row can change the table.
    pub fn push(&mut self, row: RowView<'_>) -> anyhow::Result<ControlFlow<()>> {
        if self.spans.is_empty() && !matches!(self.sink, Sink::Templates { .. }) {
            return self.take(&[], row, false);
        }
        let shape = self.scanner.scan(row.line, &mut self.spans);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let mut written = [(0, 0); FIELDS_MAX];
        for (i, span) in self.spans.iter().enumerate() {
            let start = scratch.len();
            if span.kind == Kind::Escaped {
                unescape_into(span.raw(row.line), &mut scratch);
            }
            if shape.invalid_utf8 && span.text(row.line).is_some() {
                let raw = if span.kind == Kind::Escaped { scratch.split_off(start) } else { span.raw(row.line).to_vec() };
                scratch.extend_from_slice(String::from_utf8_lossy(&raw).as_bytes());
            }
            written[i] = (start, scratch.len());
        }
        let mut values = [Value::Null; FIELDS_MAX];
        for (i, span) in self.spans.iter().enumerate() {
            values[i] = match span.kind {
                Kind::Missing | Kind::Null => Value::Null,
                Kind::Escaped => Value::Text(&scratch[written[i].0..written[i].1]),
                _ if shape.invalid_utf8 => Value::Text(&scratch[written[i].0..written[i].1]),
                _ => Value::Text(span.raw(row.line)),
            };
        }
        let outcome = self.take(&values[..self.spans.len()], row, shape.malformed.is_some());
        self.scratch = scratch;
        outcome
    }

    fn take(&mut self, values: &[Value<'_>], row: RowView<'_>, malformed: bool) -> anyhow::Result<ControlFlow<()>> {
        match &mut self.sink {
            Sink::Groups { groups, by, inputs, top, .. } => {
                if top.is_none() || by.iter().any(|slot| slot.value(values, &row) != Value::Null) {
                    let value = |slot: &Slot| slot.value(values, &row);
                    groups.add(by.iter().map(value), inputs.iter().map(value), row.weight)?;
                }
            }
            Sink::Chart { chart, by, inputs, .. } => {
                let value = |slot: &Slot| slot.value(values, &row);
                chart.add(row.time.0, by.iter().map(value), inputs.iter().map(value), row.weight)?;
            }
            Sink::Templates { templates, text, .. } => {
                let message = if malformed { Value::Text(row.line) } else { text.value(values, &row) };
                if let Value::Text(message) = message {
                    templates.add(message, row.time.0)?;
                }
            }
            Sink::Records(records) => return records.add(values, &row),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Joins what another pipeline of the same query has seen.
    pub fn merge(&mut self, other: Pipeline) -> anyhow::Result<()> {
        match (&mut self.sink, other.sink) {
            (Sink::Groups { groups, .. }, Sink::Groups { groups: other, .. }) => groups.merge(other),
            (Sink::Chart { chart, .. }, Sink::Chart { chart: other, .. }) => chart.merge(other),
            (Sink::Templates { templates, .. }, Sink::Templates { templates: other, .. }) => templates.merge(other),
            (Sink::Records(records), Sink::Records(other)) => records.merge(other),
            _ => bail!("these pipelines are of different queries"),
        }
    }

    /// The table of all rows that were pushed.
    pub fn finish(self) -> anyhow::Result<Table> {
        let (table, notes) = match self.sink {
            Sink::Groups { groups, by, columns, top, .. } => (group_rows(&groups, by.len(), columns, top), groups.notes()),
            Sink::Chart { chart, by, columns, .. } => (Table { columns, rows: chart.rows(by.len())?, note: None }, chart.groups.notes()),
            Sink::Templates { templates, n, .. } => {
                let note = templates.note();
                let columns = crate::query::PATTERN_COLUMNS.map(String::from).to_vec();
                (Table { columns, rows: templates.rows(n), note: None }, note.into_iter().collect())
            }
            Sink::Records(records) => return records.finish(&self.rest, self.bytes_max),
        };
        run_pipes(table, &self.rest, notes, self.bytes_max)
    }
}

fn group_sink(pipe: &Pipe, names: &mut Names, bytes_max: usize) -> Sink {
    let (calls, by, top) = group_plan(pipe);
    let slots: Vec<Slot> = by.iter().map(|name| names.slot(name)).collect();
    let inputs = calls.iter().map(|call| call.field.as_deref().map_or(Slot::Nothing, |name| names.slot(name))).collect();
    let mut columns: Vec<String> = by.iter().cloned().chain(calls.iter().map(|call| call.name.clone())).collect();
    if let Pipe::Timechart { span, .. } = pipe {
        columns.insert(0, "time".into());
        let chart = Chart::new(&calls, span.map(|span| span.0), bytes_max);
        return Sink::Chart { chart, by: slots, inputs, columns };
    }
    Sink::Groups { groups: Groups::new(&calls, bytes_max), by: slots, inputs, columns, top }
}

/// What a pipe that groups counts, and by what.
fn group_plan(pipe: &Pipe) -> (Vec<Call>, Vec<String>, Option<Top>) {
    match pipe {
        Pipe::Stats { calls, by } | Pipe::Timechart { calls, by, .. } => (calls.clone(), by.clone(), None),
        Pipe::Top { n, by, rare } => {
            let count = Call { function: Function::Count, field: None, name: "count".into() };
            (vec![count], by.clone(), Some(Top { n: *n, rare: *rare }))
        }
        _ => (Vec::new(), Vec::new(), None),
    }
}

fn group_rows(groups: &Groups, by: usize, columns: Vec<String>, top: Option<Top>) -> Table {
    let mut rows = groups.rows(by);
    if groups.len() == 0 && by == 0 {
        rows.push(groups.nothing()); // no record is an answer, too
    }
    if let Some(top) = top {
        // The rows of one count keep the order of their values.
        rows.sort_by(|a, b| if top.rare { a[by].compare(&b[by]) } else { b[by].compare(&a[by]) });
        rows.truncate(top.n);
    }
    Table { columns, rows, note: None }
}

/// Runs pipes over a table.
fn run_pipes(mut table: Table, pipes: &[Pipe], mut notes: Vec<String>, bytes_max: usize) -> anyhow::Result<Table> {
    for pipe in pipes {
        match pipe {
            Pipe::Sort(keys) => table.sort(keys)?,
            Pipe::Fields(names) => table.select(names)?,
            Pipe::Limit(n) => table.rows.truncate(*n),
            Pipe::Where(condition) => table.filter(condition)?,
            Pipe::Context(_) => {} // it was fetched before
            Pipe::Patterns { .. } => crate::unanswerable!("patterns are made of records, and here is a table"),
            Pipe::Stats { .. } | Pipe::Top { .. } | Pipe::Timechart { .. } => table = regroup(table, pipe, &mut notes, bytes_max)?,
        }
    }
    notes.dedup();
    table.note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(table)
}

/// Groups the rows of a table.
fn regroup(mut table: Table, pipe: &Pipe, notes: &mut Vec<String>, bytes_max: usize) -> anyhow::Result<Table> {
    let (calls, by, top) = group_plan(pipe);
    let places: Vec<usize> = by.iter().map(|name| table.column(name)).collect::<anyhow::Result<_>>()?;
    let place = |call: &Call| call.field.as_ref().map(|name| table.column(name)).transpose();
    let inputs: Vec<Option<usize>> = calls.iter().map(place).collect::<anyhow::Result<_>>()?;
    let mut columns: Vec<String> = by.iter().cloned().chain(calls.iter().map(|call| call.name.clone())).collect();
    for cell in table.rows.iter_mut().flatten() {
        if matches!(cell, Cell::Decimal(_) | Cell::Float(_)) {
            *cell = Cell::Text(cell.to_string()); // groups know numbers by their text
        }
    }
    if let Pipe::Timechart { span, .. } = pipe {
        let time_at = table.column("time")?;
        columns.insert(0, "time".into());
        let mut chart = Chart::new(&calls, span.map(|span| span.0), bytes_max);
        for row in &table.rows {
            if let Cell::Time(time) = row[time_at] {
                chart.add(
                    time.0,
                    places.iter().map(|at| cell_value(&row[*at])),
                    inputs.iter().map(|at| at.map_or(Value::Null, |at| cell_value(&row[at]))),
                    1,
                )?;
            }
        }
        notes.extend(chart.groups.notes());
        return Ok(Table { columns, rows: chart.rows(by.len())?, note: None });
    }
    let mut groups = Groups::new(&calls, bytes_max);
    for row in &table.rows {
        if top.is_none() || places.iter().any(|at| row[*at] != Cell::Null) {
            groups.add(
                places.iter().map(|at| cell_value(&row[*at])),
                inputs.iter().map(|at| at.map_or(Value::Null, |at| cell_value(&row[at]))),
                1,
            )?;
        }
    }
    notes.extend(groups.notes());
    Ok(group_rows(&groups, by.len(), columns, top))
}

fn cell_value(cell: &Cell) -> Value<'_> {
    match cell {
        Cell::Int(n) => Value::Whole(*n),
        Cell::Text(text) => Value::Text(text.as_bytes()),
        Cell::Time(time) => Value::Time(time.0),
        Cell::Null | Cell::Decimal(_) | Cell::Float(_) => Value::Null,
    }
}
