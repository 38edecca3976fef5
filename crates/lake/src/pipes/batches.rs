//! Rows as columns into groups: the way of `stats`, `top` and `timechart` over files, where no line is read.
//!
//! In: batches as a scan shows them; out: the same groups as row by row. A group is looked up once for each code of a column with
//! codes, so that a row costs a few additions. Memory: four bytes for each row and code of a batch.

use super::groups::{Groups, Value};
use super::plan::Slot;
use super::{Pipeline, RowView, Sink};
use crate::query::{Call, Function};
use crate::scan::{Asked, Batch, Times, Wanted};
use anyhow::bail;
use flow::event::StreamId;
use flow::units::UnixNanos;

impl Pipeline {
    /// Whether columns are enough for it; if so, `asked` says which.
    pub fn is_columnar(&self) -> bool {
        self.slots().is_some_and(|(by, inputs, _)| by.iter().chain(inputs).all(Slot::is_column))
    }

    /// What a scan has to find for [`Pipeline::push_batch`].
    pub fn asked(&self) -> Asked {
        let names = self.names.names();
        let Some((by, inputs, calls)) = self.slots() else { return Asked::default() };
        let has = |slot: Slot| by.iter().chain(inputs).any(|own| *own == slot);
        // A number does where nobody looks at its text.
        let is_number = |at: usize| {
            let alone = |slot: &Slot| *slot == Slot::Fields(vec![at]);
            let other = |slot: &Slot| matches!(slot, Slot::Fields(fields) if fields.contains(&at));
            let input = |(slot, call): (&Slot, &Call)| !other(slot) || alone(slot) && call.function != Function::Uniq;
            !by.iter().any(other) && inputs.iter().zip(calls).all(input)
        };
        let wanted = |(at, name): (usize, &String)| if is_number(at) { Wanted::Number(name.clone()) } else { Wanted::Text(name.clone()) };
        let times = match &self.sink {
            _ if has(Slot::Time) => Times::Exact,
            // Every longer stretch of time is a multiple of it.
            Sink::Chart { chart, .. } => Times::Bucket { start: 0, width: chart.span() },
            _ => Times::No,
        };
        Asked {
            fields: names.iter().enumerate().map(wanted).collect(),
            times,
            severities: has(Slot::Severity) || has(Slot::Level),
            weights: has(Slot::Weight) || calls.iter().any(|call| call.function == Function::Weight),
        }
    }

    /// What it groups by, what its calls look at, and these.
    fn slots(&self) -> Option<(&[Slot], &[Slot], &[Call])> {
        match &self.sink {
            Sink::Groups { groups, by, inputs, .. } => Some((by, inputs, &groups.calls)),
            Sink::Chart { chart, by, inputs, .. } => Some((by, inputs, &chart.groups.calls)),
            Sink::Templates { .. } | Sink::Records(_) => None,
        }
    }

    /// Takes the rows of a batch that [`Pipeline::asked`] asked for.
    pub fn push_batch(&mut self, batch: &Batch<'_>) -> anyhow::Result<()> {
        if batch.columns.len() != self.names.names().len() {
            bail!("{} columns were given for {} fields", batch.columns.len(), self.names.names().len());
        }
        match &mut self.sink {
            Sink::Groups { groups, by, inputs, top, .. } => {
                let is_kept = |row: u32| top.is_none() || by.iter().any(|slot| value(slot, batch, row) != Value::Null);
                let rows = rows_with_groups(groups, by, batch, &is_kept);
                for (call, slot) in inputs.iter().enumerate() {
                    groups.add_all(call, rows.iter().map(|(row, group)| (*group as usize, value(slot, batch, *row), weight(batch, *row))));
                }
                groups.bound()
            }
            Sink::Chart { chart, by, inputs, .. } => {
                for row in batch.rows {
                    let time = batch.times[*row as usize];
                    let value = |slot: &Slot| value(slot, batch, *row);
                    chart.add(time, by.iter().map(value), inputs.iter().map(value), weight(batch, *row))?;
                }
                Ok(())
            }
            Sink::Templates { .. } | Sink::Records(_) => bail!("these pipes take lines, not columns"),
        }
    }
}

/// The rows that count, and the group of each.
fn rows_with_groups(groups: &mut Groups, by: &[Slot], batch: &Batch<'_>, is_kept: &dyn Fn(u32) -> bool) -> Vec<(u32, u32)> {
    const UNKNOWN: u32 = u32::MAX;
    // What stands for all that a row is grouped by, and how many of those there are.
    let code = |row: u32| match by {
        [] | [Slot::Tenant] => Some(0),
        [Slot::Level | Slot::Severity] => Some(batch.severities[row as usize] as usize),
        [Slot::Fields(fields)] if fields.len() == 1 => batch.columns[fields[0]].code(row),
        _ => None,
    };
    let codes = match by {
        [Slot::Fields(fields)] if fields.len() == 1 => batch.columns[fields[0]].codes(),
        _ => 256,
    };
    let mut known = vec![UNKNOWN; codes];
    let mut rows = Vec::with_capacity(batch.rows.len());
    for row in batch.rows {
        let code = code(*row);
        if let Some(group) = code.map(|code| known[code]).filter(|group| *group != UNKNOWN) {
            rows.push((*row, group));
        } else if is_kept(*row) {
            let group = groups.group(by.iter().map(|slot| value(slot, batch, *row))) as u32;
            if let Some(code) = code {
                known[code] = group;
            }
            rows.push((*row, group));
        }
    }
    rows
}

fn value<'a>(slot: &Slot, batch: &'a Batch<'_>, row: u32) -> Value<'a> {
    let at = row as usize;
    match slot {
        Slot::Fields(fields) => {
            fields.iter().map(|field| batch.columns[*field].value(row)).find(|v| *v != Value::Null).unwrap_or(Value::Null)
        }
        slot => {
            let about = RowView {
                line: &[],
                tenant: batch.tenant,
                time: UnixNanos(batch.times.get(at).copied().unwrap_or_default()),
                severity: batch.severities.get(at).copied().unwrap_or_default(),
                weight: weight(batch, row),
                stream: StreamId(0),
                position: 0,
            };
            slot.value(&[], &about)
        }
    }
}

/// 1 where nobody asks for it.
fn weight(batch: &Batch<'_>, row: u32) -> u32 {
    batch.weights.get(row as usize).copied().unwrap_or(1)
}

impl Slot {
    /// Whether a batch has it.
    fn is_column(&self) -> bool {
        !matches!(self, Slot::Stream | Slot::Position | Slot::Line)
    }
}
