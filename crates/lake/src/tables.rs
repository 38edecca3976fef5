//! What SQL sees of a lake: each table's files and what is in them, and the tail as rows with the same columns.
//!
//! In: a snapshot, and the hub's tail taken before it; out: arrow batches of the columns that are asked for. The column `tenant` is text
//! everywhere: one that is no UTF-8 is written as `{"hex": "..."}`, like a key of usage. It comes from the commit log, never from a file.
//! Row groups tell their least and greatest values, so that whoever asks can leave them out. Memory: the footer of one file and one
//! batch, whose rows are as many as fit [`BATCH_BYTES`] on average; of the tail, the rows of one part.

use crate::facts::{self, encode_key};
use crate::layout::{CHARGES, LINEAGE, LOGS, USAGE, escape_tenant, unescape_tenant};
use crate::lineage::Block;
use crate::logs::field_columns;
use crate::snapshot::Snapshot;
use crate::store::new_events;
use crate::table::StoredFile;
use crate::{charges, runs};
use anyhow::{Context, anyhow};
use arrow_array::builder::{ArrayBuilder, BinaryBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use flow::fields::{FieldSet, Scanner, Span};
use flow::units::UnixNanos;
use hub::frame::{Frame, Part};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::file::metadata::PageIndexPolicy;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

/// A batch has as many rows as fit into this, by the row group's average.
pub const BATCH_BYTES: u64 = 4 << 20;
const BATCH_ROWS_MAX: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Logs,
    Usage,
    Charges,
    Lineage,
}

impl Table {
    pub const ALL: [Table; 4] = [Table::Logs, Table::Usage, Table::Charges, Table::Lineage];

    pub fn name(self) -> &'static str {
        match self {
            Table::Logs => LOGS,
            Table::Usage => USAGE,
            Table::Charges => CHARGES,
            Table::Lineage => LINEAGE,
        }
    }

    /// Columns of times that lie within [`FileView::min_time`] and [`FileView::max_time`].
    pub fn time_columns(self) -> &'static [&'static str] {
        match self {
            Table::Logs => &["time"],
            Table::Usage => &["minute"],
            Table::Charges => &["charge_period_start", "charge_period_end"],
            Table::Lineage => &["event_time"],
        }
    }
}

/// One file of a table, as its commit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// From the lake's root.
    pub path: String,
    /// Whose rows these are, all of them.
    pub tenant: Vec<u8>,
    pub rows: u64,
    pub stored_bytes: u64,
    pub min_time: UnixNanos,
    pub max_time: UnixNanos,
}

impl FileView {
    /// The tenant as the column of that name shows it.
    pub fn tenant_text(&self) -> String {
        encode_key(&self.tenant).into_owned()
    }
}

impl Snapshot {
    /// The files of a table, in the order of their commits; `tenant`: only this one's.
    pub fn files(&self, table: Table, tenant: Option<&[u8]>) -> anyhow::Result<Vec<FileView>> {
        let wanted = tenant.map(escape_tenant);
        let entries = self.log.table(table.name()).iter().filter(|entry| wanted.as_ref().is_none_or(|tenant| *tenant == entry.tenant));
        let view = |entry: &crate::commit::FileEntry| {
            let tenant = unescape_tenant(&entry.tenant).with_context(|| format!("{:?} is no tenant of a commit", entry.tenant))?;
            Ok(FileView {
                path: entry.path.clone(),
                tenant,
                rows: entry.rows,
                stored_bytes: entry.stored_bytes,
                min_time: UnixNanos(entry.min_time),
                max_time: UnixNanos(entry.max_time),
            })
        };
        entries.map(view).collect()
    }

    /// The columns that files of this release have, and the tail has: the least that a table shows.
    pub fn columns(&self, table: Table) -> SchemaRef {
        let tenant = Field::new("tenant", DataType::Utf8, false);
        match table {
            Table::Logs => log_schema(&field_columns(&self.fields())),
            Table::Usage => facts::schema(tenant),
            Table::Charges => charges::schema(tenant),
            Table::Lineage => runs::schema(),
        }
    }

    /// Opens a file of this lake: its footer is read, no row yet.
    pub fn open(&self, file: &FileView) -> anyhow::Result<TableFile> {
        let path = self.root.join(&file.path);
        let stored = StoredFile::open(&self.disk, &path)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let metadata = ArrowReaderMetadata::load(&stored, options).with_context(|| format!("cannot read {}", path.display()))?;
        let fields = metadata.schema().fields().iter().map(|field| match field.name() == "tenant" {
            true => Arc::new(Field::new("tenant", DataType::Utf8, false)),
            false => Arc::clone(field),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(TableFile { path, stored, metadata, schema, tenant: file.tenant_text() })
    }
}

/// An open file of a table.
pub struct TableFile {
    path: PathBuf,
    stored: StoredFile,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    tenant: String,
}

/// Least values, greatest values, missing values of a column: one of each per row group.
pub struct Bounds {
    pub min: ArrayRef,
    pub max: ArrayRef,
    pub missing: UInt64Array,
}

/// Says which rows of a batch are wanted; the batch has the columns that were named, in the file's order.
pub type Predicate = Box<dyn FnMut(RecordBatch) -> Result<BooleanArray, ArrowError> + Send>;

impl TableFile {
    /// Columns of this file, in its order.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows of each row group.
    pub fn group_rows(&self) -> Vec<u64> {
        self.metadata.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect()
    }

    /// What the footer says of a column; `None` where it says nothing, as for the tenant.
    pub fn bounds(&self, column: &str) -> Option<Bounds> {
        if column == "tenant" {
            return None;
        }
        let metadata = self.metadata.metadata();
        let schema = self.metadata.schema();
        let converter = StatisticsConverter::try_new(column, schema, metadata.file_metadata().schema_descr()).ok()?;
        let groups = || metadata.row_groups().iter();
        Some(Bounds {
            min: converter.row_group_mins(groups()).ok()?,
            max: converter.row_group_maxes(groups()).ok()?,
            missing: converter.row_group_null_counts(groups()).ok()?,
        })
    }

    /// Bytes of these columns in these row groups, uncompressed.
    fn bytes_of(&self, columns: &[&str], groups: &[usize]) -> (u64, u64) {
        let (mut bytes, mut rows) = (0u64, 0u64);
        for group in groups.iter().filter_map(|at| self.metadata.metadata().row_groups().get(*at)) {
            rows += u64::try_from(group.num_rows()).unwrap_or(0);
            for column in group.columns().iter().filter(|column| columns.contains(&column.column_path().string().as_str())) {
                bytes = bytes.saturating_add(u64::try_from(column.uncompressed_size()).unwrap_or(0));
            }
        }
        (bytes, rows)
    }

    /// Rows of these row groups, in file order, with those of `columns` that the file has, in the file's order. `filter`: columns
    /// that it looks at, and the judge; the other columns are read of its rows only.
    pub fn read(self, columns: &[&str], groups: Vec<usize>, filter: Option<(Vec<String>, Predicate)>) -> anyhow::Result<Rows> {
        let (bytes, rows) = self.bytes_of(columns, &groups);
        let row_bytes = (bytes / rows.max(1)).max(1);
        let batch_rows = usize::try_from(BATCH_BYTES / row_bytes).unwrap_or(1).clamp(1, BATCH_ROWS_MAX);
        let tenant: Arc<str> = Arc::from(self.tenant.as_str());
        let parquet_schema = self.metadata.metadata().file_metadata().schema_descr_ptr();
        let mask = |names: &[&str]| ProjectionMask::columns(&parquet_schema, names.iter().copied().filter(|name| *name != "tenant"));
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.stored, self.metadata)
            .with_projection(mask(columns))
            .with_row_groups(groups)
            .with_batch_size(batch_rows);
        if let Some((names, mut judge)) = filter {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (own, tenant) = (names.contains(&"tenant"), Arc::clone(&tenant));
            let judge = move |batch: RecordBatch| judge(if own { with_tenant(batch, &tenant)? } else { batch });
            builder = builder.with_row_filter(RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask(&names), judge))]));
        }
        let reader = builder.build().with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(Rows { path: self.path, reader, tenant: columns.contains(&"tenant").then_some(tenant) })
    }
}

/// The tenant as the first column: a file has one.
fn with_tenant(batch: RecordBatch, tenant: &str) -> Result<RecordBatch, ArrowError> {
    let (schema, mut columns, rows) = batch.into_parts();
    let mut fields = vec![Arc::new(Field::new("tenant", DataType::Utf8, false))];
    fields.extend(schema.fields().iter().cloned());
    columns.insert(0, Arc::new(std::iter::repeat_n(Some(tenant), rows).collect::<StringArray>()));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Batches of a file; where the tenant is asked for, it is the first column.
pub struct Rows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    tenant: Option<Arc<str>>,
}

impl Iterator for Rows {
    type Item = anyhow::Result<RecordBatch>;

    fn next(&mut self) -> Option<anyhow::Result<RecordBatch>> {
        let batch = self.reader.next()?.and_then(|batch| match &self.tenant {
            Some(tenant) => with_tenant(batch, tenant),
            None => Ok(batch),
        });
        Some(batch.with_context(|| format!("cannot read {}", self.path.display())))
    }
}

/// The rows of a table that the lake does not have yet, part by part.
pub struct Tail {
    table: Table,
    columns: Vec<(String, String)>,
    frames: Vec<Arc<Frame>>,
    /// (frame, part), in order.
    parts: Vec<(usize, usize)>,
    /// Rows of `lineage`, which hang on one another.
    events: Option<RecordBatch>,
}

impl Snapshot {
    /// What `tail` adds to a table. `block`: as the lake's writer has it; without it the tail tells no lineage.
    pub fn tail(&self, table: Table, tail: &[Arc<Frame>], block: Option<&Block>) -> anyhow::Result<Tail> {
        let taken = self.unsealed(tail)?;
        let mut rest = Tail { table, columns: Vec::new(), frames: tail.to_vec(), parts: Vec::new(), events: None };
        match (table, block) {
            (Table::Logs, _) => (rest.columns, rest.parts) = (field_columns(&self.fields()), taken.parts),
            (Table::Usage, _) => rest.parts = taken.parts,
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
            (Some(events), _) if tenant.is_none_or(|tenant| tenant == crate::layout::NOBODY) => events.clone(),
            (Some(events), _) => events.slice(0, 0),
            (None, Some((f, p))) => {
                let (frame, part) = (&self.frames[*f], &self.frames[*f].parts[*p]);
                match self.table {
                    Table::Logs => return self.log_batch(frame, part, columns, tenant),
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
        let chosen: Vec<usize> = part
            .rows
            .clone()
            .map(|row| row as usize)
            .filter(|row| tenant.is_none_or(|tenant| frame.tenants.get(rows.tenant[*row] as usize).is_some_and(|own| **own == *tenant)))
            .collect();
        let names: Vec<String> = frame.tenants.iter().map(|tenant| encode_key(tenant).into_owned()).collect();
        let all = log_schema(&self.columns);
        let fields: Vec<_> = all.fields().iter().filter(|field| columns.contains(&field.name().as_str())).cloned().collect();
        let mut texts = self.field_texts(frame, &chosen, columns).into_iter();
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
                _ => texts.next().context("a column of a field is missing")?,
            });
        }
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(chosen.len()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }

    /// The columns of fields that are asked for, in the table's order; lines are scanned only where there are any.
    fn field_texts(&self, frame: &Frame, chosen: &[usize], columns: &[&str]) -> Vec<ArrayRef> {
        let wanted: Vec<&str> = self.columns.iter().filter(|column| columns.contains(&column.0.as_str())).map(|c| c.1.as_str()).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let set = Arc::new(FieldSet::new(&wanted));
        let mut scanner = Scanner::new(Arc::clone(&set));
        let mut spans = vec![Span::default(); set.len()];
        let mut builders: Vec<StringBuilder> = wanted.iter().map(|_| StringBuilder::new()).collect();
        for row in chosen {
            let line = frame.rows.row(*row);
            spans.fill(Span::default());
            scanner.scan(line, &mut spans);
            for (builder, span) in builders.iter_mut().zip(&spans) {
                builder.append_option(span.text(line).as_deref().map(String::from_utf8_lossy));
            }
        }
        builders.iter_mut().map(|builder| ArrayBuilder::finish(builder)).collect()
    }
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

/// The columns of a log file with these fields.
fn log_schema(columns: &[(String, String)]) -> SchemaRef {
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
    fields.extend(columns.iter().map(|column| Field::new(&column.0, DataType::Utf8, true)));
    fields.push(Field::new("raw", DataType::Binary, false));
    Arc::new(Schema::new(fields))
}
