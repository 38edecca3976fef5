//! What SQL sees of a lake: each table's files and what is in them, and the tail as rows with the same columns.
//!
//! In: a snapshot, and the hub's tail taken before it; out: arrow batches of the columns that are asked for. The column `tenant` is text
//! everywhere: one that is no UTF-8 is written as `{"hex": "..."}`, like a key of usage. It comes from the commit log, never from a file.
//! The column `raw` of logs is the whole line: where a file has only its rest, it is put together again, and `rest` does not show.
//! Row groups tell their least and greatest values, so that whoever asks can leave them out. Memory: the footer of one file and one
//! batch, whose rows are as many as fit [`BATCH_BYTES`] on average; of the tail, the rows of one part.

mod tail;

pub use tail::Tail;

use crate::facts::{self, encode_key};
use crate::layout::{CHARGES, LINEAGE, LOGS, METRICS, TRACES, USAGE, escape_tenant, unescape_tenant};
use crate::logs::{Lines, field_columns};
use crate::snapshot::Snapshot;
use crate::stored::StoredFile;
use crate::{Fields, Options, charges, runs, samples};
use anyhow::Context;
use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use flow::units::UnixNanos;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::file::metadata::PageIndexPolicy;
use std::path::PathBuf;
use std::sync::Arc;

/// A batch has as many rows as fit into this, by the row group's average.
pub const BATCH_BYTES: u64 = 4 << 20;
const BATCH_ROWS_MAX: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Logs,
    /// Samples of series.
    Metrics,
    /// Spans, with the columns of logs.
    Traces,
    Usage,
    Charges,
    Lineage,
}

impl Table {
    pub const ALL: [Table; 6] = [Table::Logs, Table::Metrics, Table::Traces, Table::Usage, Table::Charges, Table::Lineage];

    pub fn name(self) -> &'static str {
        match self {
            Table::Logs => LOGS,
            Table::Metrics => METRICS,
            Table::Traces => TRACES,
            Table::Usage => USAGE,
            Table::Charges => CHARGES,
            Table::Lineage => LINEAGE,
        }
    }

    /// Columns of times that lie within [`FileView::min_time`] and [`FileView::max_time`].
    pub fn time_columns(self) -> &'static [&'static str] {
        match self {
            Table::Logs | Table::Metrics | Table::Traces => &["time"],
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
    /// Its lines are cut up among its columns.
    pub is_log: bool,
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
                is_log: matches!(table, Table::Logs | Table::Traces),
                min_time: UnixNanos(entry.min_time),
                max_time: UnixNanos(entry.max_time),
            })
        };
        entries.map(view).collect()
    }

    /// The columns that files of a table have, and the tail has: of `logs` one list for each set of fields that the writer or a commit
    /// names, the newest first. No file is opened for it. `writer`: how the lake is written now, if that is known.
    pub fn columns(&self, table: Table, writer: Option<&Options>) -> Vec<SchemaRef> {
        let tenant = Field::new("tenant", DataType::Utf8, false);
        match table {
            Table::Logs | Table::Traces => {
                let committed = self.log.fields.iter().chain(self.log.former_fields.iter().rev());
                let all = std::iter::once(self.newest_fields(writer)).chain(committed.cloned());
                all.map(|fields| tail::log_schema(&field_columns(&fields))).collect()
            }
            Table::Metrics => vec![samples::schema(tenant)],
            Table::Usage => vec![facts::schema(tenant)],
            Table::Charges => vec![charges::schema(tenant)],
            Table::Lineage => vec![runs::schema()],
        }
    }

    /// A lake without commits does not know its fields: then the writer does.
    fn newest_fields(&self, writer: Option<&Options>) -> Fields {
        writer.map_or_else(|| self.fields(), Options::fields)
    }

    /// Opens a file of this lake: its footer is read, no row yet.
    pub fn open(&self, file: &FileView) -> anyhow::Result<TableFile> {
        let path = self.root.join(&file.path);
        let stored = StoredFile::open(&self.disk, &path, &Arc::default())?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let metadata = ArrowReaderMetadata::load(&stored, options).with_context(|| format!("cannot read {}", path.display()))?;
        let is_rest = |field: &Field| field.name() == REST && *field.data_type() == DataType::Binary;
        // In a file of an older release a column of this name is a field's text, and `raw` has every line.
        let has_rest = file.is_log && metadata.schema().fields().iter().any(|field| is_rest(field));
        let shown =
            metadata.schema().fields().iter().filter(|field| !(has_rest && is_rest(field))).map(|field| match field.name() == "tenant" {
                true => Arc::new(Field::new("tenant", DataType::Utf8, false)),
                false => Arc::clone(field),
            });
        let schema = Arc::new(Schema::new(shown.collect::<Vec<_>>()));
        Ok(TableFile { path, stored, metadata, schema, has_rest, tenant: file.tenant_text() })
    }
}

/// The column that holds lines without what the other columns hold.
const REST: &str = "rest";
/// The column that shows whole lines.
const RAW: &str = "raw";

/// An open file of a table.
pub struct TableFile {
    path: PathBuf,
    stored: StoredFile,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    has_rest: bool,
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
    /// Columns of this file as they are shown, in its order.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a column is shown that has to be put together from all the others.
    pub fn is_made(&self, column: &str) -> bool {
        self.has_rest && column == RAW
    }

    /// Rows of each row group.
    pub fn group_rows(&self) -> Vec<u64> {
        self.metadata.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect()
    }

    /// What the footer says of a column; `None` where it says nothing, as for the tenant.
    pub fn bounds(&self, column: &str) -> Option<Bounds> {
        if column == "tenant" || self.is_made(column) {
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

    /// Places of these columns in the file; no column lies within another one.
    fn places(&self, columns: &[&str]) -> Vec<usize> {
        let fields = self.metadata.schema().fields();
        let whole = columns.iter().any(|name| self.is_made(name));
        let wanted = |name: &str| name != "tenant" && (whole || columns.contains(&name));
        (0..fields.len()).filter(|at| wanted(fields[*at].name())).collect()
    }

    /// Bytes on disk of these columns in these row groups.
    pub fn stored_bytes(&self, columns: &[&str], groups: &[usize]) -> u64 {
        let (places, all) = (self.places(columns), self.metadata.metadata().row_groups());
        let chunks = groups.iter().filter_map(|at| all.get(*at)).flat_map(|group| places.iter().map(|at| group.column(*at)));
        chunks.map(|chunk| u64::try_from(chunk.compressed_size()).unwrap_or(0)).sum()
    }

    /// Rows of a batch whose columns at these places, in these row groups, are [`BATCH_BYTES`] long on average.
    fn batch_rows(&self, places: &[usize], groups: &[usize]) -> usize {
        let (mut bytes, mut rows) = (0u64, 0u64);
        for group in groups.iter().filter_map(|at| self.metadata.metadata().row_groups().get(*at)) {
            rows += u64::try_from(group.num_rows()).unwrap_or(0);
            for at in places {
                bytes = bytes.saturating_add(u64::try_from(group.column(*at).uncompressed_size()).unwrap_or(0));
            }
        }
        let row_bytes = (bytes / rows.max(1)).max(1);
        usize::try_from(BATCH_BYTES / row_bytes).unwrap_or(1).clamp(1, BATCH_ROWS_MAX)
    }

    /// Rows of these row groups, in file order, with those of `columns` that the file has, in the file's order. `filter`: columns
    /// that it looks at, none of them made ([`TableFile::is_made`]), and the judge; the other columns are read of its rows only.
    pub fn read(self, columns: &[&str], groups: Vec<usize>, filter: Option<(Vec<String>, Predicate)>) -> anyhow::Result<Rows> {
        let places = self.places(columns);
        let batch_rows = self.batch_rows(&places, &groups);
        let tenant: Arc<str> = Arc::from(self.tenant.as_str());
        let parquet_schema = self.metadata.metadata().file_metadata().schema_descr_ptr();
        let row_filter = filter.map(|(names, mut judge)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (own, tenant) = (names.contains(&"tenant"), Arc::clone(&tenant));
            let judge = move |batch: RecordBatch| judge(if own { with_tenant(batch, &tenant)? } else { batch });
            let mask = ProjectionMask::leaves(&parquet_schema, self.places(&names));
            RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, judge))])
        });
        let made = columns.iter().any(|name| self.is_made(name));
        let kept = made.then(|| columns.iter().map(|name| (*name).to_owned()).collect());
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.stored, self.metadata)
            .with_projection(ProjectionMask::leaves(&parquet_schema, places))
            .with_row_groups(groups)
            .with_batch_size(batch_rows);
        if let Some(filter) = row_filter {
            builder = builder.with_row_filter(filter);
        }
        let reader = builder.build().with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(Rows { path: self.path, reader, kept, tenant: columns.contains(&"tenant").then_some(tenant) })
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

/// The columns that are asked for, after whole lines have taken the place of `raw`.
fn with_lines(batch: &RecordBatch, kept: &[String]) -> anyhow::Result<RecordBatch> {
    let lines = Lines::of(batch)?;
    let (mut raw, mut buffer) = (BinaryBuilder::new(), Vec::new());
    for row in 0..batch.num_rows() {
        raw.append_value(lines.line(row, &mut buffer)?);
    }
    let raw: ArrayRef = Arc::new(raw.finish());
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()).filter(|(field, _)| kept.contains(field.name())) {
        fields.push(Arc::clone(field));
        columns.push(Arc::clone(if field.name() == RAW { &raw } else { column }));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// Batches of a file; where the tenant is asked for, it is the first column.
pub struct Rows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    /// Where lines have to be put together: the columns that are left then.
    kept: Option<Vec<String>>,
    tenant: Option<Arc<str>>,
}

impl Rows {
    fn finish(&self, batch: RecordBatch) -> anyhow::Result<RecordBatch> {
        let batch = match &self.kept {
            Some(kept) => with_lines(&batch, kept)?,
            None => batch,
        };
        Ok(match &self.tenant {
            Some(tenant) => with_tenant(batch, tenant)?,
            None => batch,
        })
    }
}

impl Iterator for Rows {
    type Item = anyhow::Result<RecordBatch>;

    fn next(&mut self) -> Option<anyhow::Result<RecordBatch>> {
        let batch = self.reader.next()?.map_err(Into::into).and_then(|batch| self.finish(batch));
        Some(batch.with_context(|| format!("cannot read {}", self.path.display())))
    }
}
