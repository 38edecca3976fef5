//! The rows that are durable and not sealed yet, with the columns that files have.
//!
//! In: frames of the hub's tail, and a snapshot read after them; out: one batch per part that the lake does not have, or all events of
//! lineage at once. Fields are found in the lines, only those that are asked for. Memory: the rows of one part.

use super::Table;
use crate::Options;
use crate::facts::{self, encode_key};
use crate::layout::{LINEAGE, NOBODY};
use crate::logs::{FieldColumn, field_columns, number};
use crate::snapshot::Snapshot;
use crate::store::new_events;
use crate::{runs, samples};
use anyhow::{Context, anyhow};
use arrow_array::builder::{ArrayBuilder, BinaryBuilder, Float64Builder, StringBuilder};
use arrow_array::{
    ArrayRef, RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flow::event::Signal;
use flow::fields::{FieldSet, Scanner, Span};
use hub::frame::{Frame, Part};
use std::collections::HashSet;
use std::sync::Arc;

/// The rows of a table that the lake does not have yet, part by part.
pub struct Tail {
    table: Table,
    columns: Vec<FieldColumn>,
    frames: Vec<Arc<Frame>>,
    /// (frame, part), in order.
    parts: Vec<(usize, usize)>,
    /// Rows of `lineage`, which hang on one another.
    events: Option<RecordBatch>,
}

impl Snapshot {
    /// What `tail` adds to a table. `writer`: how the lake is written now; without it the tail tells no lineage.
    pub fn tail(&self, table: Table, tail: &[Arc<Frame>], writer: Option<&Options>) -> anyhow::Result<Tail> {
        let taken = match table {
            Table::Logs => self.unsealed_of(Signal::Logs, tail)?,
            Table::Metrics => self.unsealed_of(Signal::Metrics, tail)?,
            Table::Traces => self.unsealed_of(Signal::Traces, tail)?,
            Table::Usage | Table::Charges | Table::Lineage => self.unsealed(tail)?,
        };
        let mut rest = Tail { table, columns: Vec::new(), frames: tail.to_vec(), parts: Vec::new(), events: None };
        match (table, writer.and_then(|writer| writer.lineage.as_ref())) {
            (Table::Logs | Table::Traces, _) => (rest.columns, rest.parts) = (field_columns(&self.newest_fields(writer)), taken.parts),
            (Table::Metrics | Table::Usage, _) => rest.parts = taken.parts,
            (Table::Lineage, Some(block)) if !taken.parts.is_empty() => {
                let mut known: HashSet<String> = HashSet::new();
                for file in self.log.table(LINEAGE) {
                    runs::read_keys(&self.disk, &self.root.join(&file.path), &mut known)?;
                }
                rest.events = Some(runs::batch(&new_events(tail, &taken, block, &known)?)?);
            }
            (Table::Lineage | Table::Charges, _) => {} // charges are there once they are committed
        }
        Ok(rest)
    }
}

impl Tail {
    /// How many batches there are at most.
    pub fn parts(&self) -> usize {
        if self.events.is_some() { 1 } else { self.parts.len() }
    }

    /// Batch number `at`, with those of `columns` that the table has, in its order; `tenant`: only this one's rows.
    pub fn batch(&self, at: usize, columns: &[&str], tenant: Option<&[u8]>) -> anyhow::Result<RecordBatch> {
        let batch = match (&self.events, self.parts.get(at)) {
            // Lineage is about the platform: it is nobody's.
            (Some(events), _) if tenant.is_none_or(|tenant| tenant == NOBODY) => events.clone(),
            (Some(events), _) => events.slice(0, 0),
            (None, Some((f, p))) => {
                let (frame, part) = (&self.frames[*f], &self.frames[*f].parts[*p]);
                match self.table {
                    Table::Logs | Table::Traces => return self.log_batch(frame, part, columns, tenant),
                    Table::Metrics => sample_batch(frame, part, tenant)?,
                    _ => usage_batch(frame, part, tenant)?,
                }
            }
            (None, None) => return Err(anyhow!("the tail has no batch {at}")),
        };
        let wanted = |at: &usize| columns.contains(&batch.schema_ref().field(*at).name().as_str());
        let columns: Vec<usize> = (0..batch.num_columns()).filter(wanted).collect();
        Ok(batch.project(&columns)?)
    }

    fn log_batch(&self, frame: &Frame, part: &Part, columns: &[&str], tenant: Option<&[u8]>) -> anyhow::Result<RecordBatch> {
        let rows = &frame.rows;
        let chosen: Vec<usize> = rows_of(frame, part, tenant).collect();
        let names: Vec<String> = frame.tenants.iter().map(|tenant| encode_key(tenant).into_owned()).collect();
        let all = log_schema(&self.columns);
        let fields: Vec<_> = all.fields().iter().filter(|field| columns.contains(&field.name().as_str())).cloned().collect();
        let mut values = self.field_values(frame, &chosen, columns).into_iter();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(fields.len());
        for field in &fields {
            let each = chosen.iter().copied();
            arrays.push(match field.name().as_str() {
                "time" => Arc::new(TimestampNanosecondArray::from_iter_values(each.map(|row| rows.time[row])).with_timezone("UTC")),
                "severity" => Arc::new(UInt8Array::from_iter_values(each.map(|row| rows.severity[row]))),
                "tenant" => {
                    let name = |row: usize| names.get(rows.tenant[row] as usize).map(String::as_str);
                    let tenants: Option<StringArray> = each.map(|row| name(row).map(Some)).collect();
                    Arc::new(tenants.with_context(|| format!("frame {} is damaged: a row names a tenant that is not there", frame.seq))?)
                }
                "weight" => Arc::new(UInt32Array::from_iter_values(each.map(|row| rows.weight[row]))),
                "stream" => Arc::new(UInt64Array::from_iter_values(each.map(|_| part.stream.0))),
                "position" => Arc::new(UInt64Array::from_iter_values(each.map(|row| rows.position[row]))),
                "origin_bytes" => Arc::new(UInt32Array::from_iter_values(each.map(|row| rows.origin_bytes[row]))),
                "notes" => Arc::new(UInt16Array::from_iter_values(each.map(|row| rows.notes[row]))),
                "raw" => {
                    let mut raw = BinaryBuilder::new();
                    each.for_each(|row| raw.append_value(rows.row(row)));
                    Arc::new(raw.finish())
                }
                _ => values.next().context("a column of a field is missing")?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(chosen.len()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }

    /// The columns of fields that are asked for, in the table's order; lines are scanned only where there are any.
    fn field_values(&self, frame: &Frame, chosen: &[usize], columns: &[&str]) -> Vec<ArrayRef> {
        let wanted: Vec<&FieldColumn> = self.columns.iter().filter(|column| columns.contains(&column.name.as_str())).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let names: Vec<&str> = wanted.iter().map(|column| column.field.as_str()).collect();
        let set = Arc::new(FieldSet::new(&names));
        let mut spans = vec![Span::default(); set.len()];
        let mut scanner = Scanner::new(set);
        let mut values: Vec<Values> = wanted.iter().map(|column| Values::new(column.is_number)).collect();
        for row in chosen {
            let line = frame.rows.row(*row);
            scanner.scan(line, &mut spans);
            for (values, span) in values.iter_mut().zip(&spans) {
                match values {
                    Values::Text(builder) => builder.append_option(span.text(line).as_deref().map(String::from_utf8_lossy)),
                    Values::Number(builder) => builder.append_option(number(span, line)),
                }
            }
        }
        values.into_iter().map(Values::finish).collect()
    }
}

enum Values {
    Text(StringBuilder),
    Number(Float64Builder),
}

impl Values {
    fn new(is_number: bool) -> Values {
        if is_number { Values::Number(Float64Builder::new()) } else { Values::Text(StringBuilder::new()) }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Values::Text(mut builder) => ArrayBuilder::finish(&mut builder),
            Values::Number(mut builder) => ArrayBuilder::finish(&mut builder),
        }
    }
}

/// The rows of a part, of one tenant or of all.
fn rows_of<'a>(frame: &'a Frame, part: &Part, tenant: Option<&'a [u8]>) -> impl Iterator<Item = usize> + 'a {
    let own = move |row: &usize| frame.tenants.get(frame.rows.tenant[*row] as usize);
    part.rows.clone().map(|row| row as usize).filter(move |row| tenant.is_none_or(|tenant| own(row).is_some_and(|own| **own == *tenant)))
}

fn sample_batch(frame: &Frame, part: &Part, tenant: Option<&[u8]>) -> anyhow::Result<RecordBatch> {
    let names: Vec<String> = frame.tenants.iter().map(|tenant| encode_key(tenant).into_owned()).collect();
    let row = |row: usize| Some((row, names.get(frame.rows.tenant[row] as usize)?.as_str()));
    let rows: Option<Vec<_>> = rows_of(frame, part, tenant).map(row).collect();
    let rows = rows.with_context(|| format!("frame {} is damaged: a row names a tenant that is not there", frame.seq))?;
    samples::batch(frame, part.stream, rows.into_iter())
}

fn usage_batch(frame: &Frame, part: &Part, tenant: Option<&[u8]>) -> anyhow::Result<RecordBatch> {
    let mut facts = Vec::new();
    for fact in facts::facts_of(frame, part) {
        let fact = fact?;
        if tenant.is_none_or(|tenant| fact.tenant == tenant) {
            facts.push(fact);
        }
    }
    facts::batch(facts)
}

/// The columns of a log file with these fields, as they are shown.
pub(super) fn log_schema(columns: &[FieldColumn]) -> SchemaRef {
    let mut fields = vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        Field::new("severity", DataType::UInt8, false),
        Field::new("tenant", DataType::Utf8, false),
        Field::new("weight", DataType::UInt32, false),
        Field::new("stream", DataType::UInt64, false),
        Field::new("position", DataType::UInt64, false),
        Field::new("origin_bytes", DataType::UInt32, false),
        Field::new("notes", DataType::UInt16, false),
    ];
    let kind = |column: &FieldColumn| if column.is_number { DataType::Float64 } else { DataType::Utf8 };
    fields.extend(columns.iter().map(|column| Field::new(&column.name, kind(column), true)));
    fields.push(Field::new(super::RAW, DataType::Binary, true));
    Arc::new(Schema::new(fields))
}
