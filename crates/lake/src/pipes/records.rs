//! Records that stay rows of a table: `fields`, `sort`, `limit` and `where` on records.
//!
//! In: rows; out: a table of the fields that are asked for, newest first. Where a limit follows at once or after
//! a sort, only so many rows are kept (twice as many for a while); else all are, and too many are an error.

use super::groups::Value;
use super::number::Num;
use super::plan::{LINE, Names, Slot};
use super::table::{Cell, Table, compare_rows};
use super::{RowView, run_pipes};
use crate::Fields;
use crate::matcher::{Matcher, Row};
use crate::query::{Pipe, Query};
use flow::units::UnixNanos;
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// What a table of records shows where nobody says what.
const COLUMNS: [&str; 4] = ["time", "level", "tenant", LINE];

pub(super) struct Records {
    columns: Vec<String>,
    slots: Vec<Slot>,
    rows: Vec<(Place, Vec<Cell>)>,
    /// Only the first so many in the order of `keys` are wanted.
    keep: Option<usize>,
    keys: Vec<(usize, bool)>,
    /// The last row that was kept when too many were there: what comes after it is not wanted.
    edge: Option<(Place, Vec<Cell>)>,
    cost: usize,
    cost_max: usize,
    /// Which fields are text, for conditions on records.
    fields: Fields,
}

/// A row's place among all: time, tenant, stream, position, and the line's checksum.
type Place = (i64, Vec<u8>, u64, u64, u32);

impl Records {
    pub(super) fn new(pipes: &[Pipe], fields: &Fields, names: &mut Names, cost_max: usize) -> Records {
        let mut columns: Vec<String> = Vec::new();
        let mut add = |name: &str| {
            if !columns.iter().any(|own| own == name) {
                columns.push(name.to_owned());
            }
        };
        let mut is_open = true;
        for pipe in pipes {
            match pipe {
                Pipe::Limit(_) | Pipe::Context(_) => {}
                Pipe::Sort(keys) => keys.iter().for_each(|key| add(&key.field)),
                Pipe::Where(_) => ["severity", "tenant", LINE].into_iter().for_each(&mut add),
                Pipe::Fields(list) => list.iter().for_each(|name| add(name)),
                Pipe::Stats { calls, by } | Pipe::Timechart { calls, by, .. } => {
                    by.iter().chain(calls.iter().filter_map(|call| call.field.as_ref())).for_each(|name| add(name));
                    if matches!(pipe, Pipe::Timechart { .. }) {
                        add("time");
                    }
                }
                Pipe::Top { by, .. } => by.iter().for_each(|name| add(name)),
                Pipe::Patterns { .. } => {}
            }
            if !stays_records(pipe) {
                is_open = false;
                break;
            }
        }
        if is_open {
            COLUMNS.into_iter().for_each(&mut add);
        }
        let slots = columns.iter().map(|name| names.slot(name)).collect();
        let place = |name: &String| columns.iter().position(|own| own == name).unwrap_or(0);
        let keys = match pipes.first() {
            Some(Pipe::Sort(keys)) => keys.iter().map(|key| (place(&key.field), key.descending)).collect(),
            _ => Vec::new(),
        };
        let keep = match pipes {
            [Pipe::Limit(n), ..] | [Pipe::Sort(_), Pipe::Limit(n), ..] => Some(*n),
            [Pipe::Context(_), Pipe::Limit(n), ..] => Some(*n),
            _ => None,
        };
        Records { columns, slots, rows: Vec::new(), keep, keys, edge: None, cost: 0, cost_max, fields: fields.clone() }
    }

    pub(super) fn add(&mut self, values: &[Value<'_>], row: &RowView<'_>) -> anyhow::Result<ControlFlow<()>> {
        if self.keep == Some(0) {
            return Ok(ControlFlow::Break(()));
        }
        if self.is_beyond(values, row) {
            return Ok(ControlFlow::Continue(()));
        }
        let place = (row.time.0, row.tenant.to_vec(), row.stream.0, row.position, crc32fast::hash(row.line));
        let cells = self.slots.iter().map(|slot| cell(slot.value(values, row))).collect();
        self.put(place, cells)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Whether so many rows come before this one that it is not wanted; asked before anything is copied.
    fn is_beyond(&self, values: &[Value<'_>], row: &RowView<'_>) -> bool {
        let Some((place, cells)) = &self.edge else { return false };
        for (at, descending) in &self.keys {
            let order = cell(self.slots[*at].value(values, row)).compare(&cells[*at]);
            if order.is_ne() {
                return order.is_gt() != *descending;
            }
        }
        row.time.0 < place.0
    }

    fn put(&mut self, place: Place, cells: Vec<Cell>) -> anyhow::Result<()> {
        self.cost += cost(&place, &cells);
        self.rows.push((place, cells));
        let is_double = self.keep.is_some_and(|keep| self.rows.len() >= keep.saturating_mul(2).max(64));
        if is_double || self.cost > self.cost_max {
            self.prune();
        }
        if self.cost > self.cost_max {
            crate::unanswerable!(
                "{} records take more than the {} bytes that this query may use\n  help: add a limit, a filter or a shorter time, or name fewer fields",
                self.rows.len(),
                self.cost_max
            );
        }
        Ok(())
    }

    /// The order of the table: by `keys`, then the newest first.
    fn order(&mut self) {
        let keys = &self.keys;
        self.rows.sort_by(|a, b| -> Ordering { compare_rows(&a.1, &b.1, keys).then_with(|| b.0.cmp(&a.0)) });
    }

    fn prune(&mut self) {
        let Some(keep) = self.keep.filter(|keep| self.rows.len() > *keep) else { return };
        self.order();
        self.rows.truncate(keep);
        self.edge = self.rows.last().cloned();
        self.cost = self.rows.iter().map(|(place, cells)| cost(place, cells)).sum();
    }

    pub(super) fn merge(&mut self, other: Records) -> anyhow::Result<()> {
        other.rows.into_iter().try_for_each(|(place, cells)| self.put(place, cells))
    }

    pub(super) fn finish(mut self, pipes: &[Pipe], bytes_max: usize) -> anyhow::Result<Table> {
        self.keys.clear(); // the sort itself comes below
        self.order();
        let mut table = Table { columns: self.columns, rows: self.rows.into_iter().map(|(_, cells)| cells).collect(), note: None };
        let own = pipes.iter().position(|pipe| !stays_records(pipe)).unwrap_or(pipes.len());
        for pipe in &pipes[..own] {
            match pipe {
                Pipe::Where(condition) => filter(&mut table, condition, &self.fields)?,
                Pipe::Sort(keys) => table.sort(keys)?,
                Pipe::Limit(n) => table.rows.truncate(*n),
                _ => {}
            }
        }
        if own == pipes.len() {
            table.select(&COLUMNS.map(String::from))?;
        }
        run_pipes(table, &pipes[own..], Vec::new(), bytes_max)
    }
}

/// Rows are still whole records after this pipe.
fn stays_records(pipe: &Pipe) -> bool {
    matches!(pipe, Pipe::Sort(_) | Pipe::Limit(_) | Pipe::Context(_) | Pipe::Where(_))
}

/// Judges records as the search does.
fn filter(table: &mut Table, condition: &Query, fields: &Fields) -> anyhow::Result<()> {
    let mut matcher = Matcher::new(condition, fields)?;
    let places = [table.column(LINE)?, table.column("tenant")?, table.column("severity")?];
    table.rows.retain(|row| {
        let line = row[places[0]].to_string();
        let tenant = row[places[1]].to_string();
        let severity = if let Cell::Int(n) = row[places[2]] { u8::try_from(n).ok() } else { None };
        matcher.matches(Row { line: line.as_bytes(), tenant: Some(tenant.as_bytes()), severity })
    });
    Ok(())
}

fn cell(value: Value<'_>) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Text(text) => Cell::of_text(text),
        Value::Whole(n) => Cell::Int(n),
        Value::Float(value) => Num::of_float(value).cell(),
        Value::Time(time) => Cell::Time(UnixNanos(time)),
    }
}

fn cost(place: &Place, cells: &[Cell]) -> usize {
    size_of::<Place>() + place.1.len() + size_of::<Vec<Cell>>() + cells.iter().map(Cell::cost).sum::<usize>()
}
