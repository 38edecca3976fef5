//! Parquet in and out: how every table of the lake is written, and read from either disk.
//!
//! In: record batches; out: the bytes of one file, the same for the same rows. Rows come in groups of at most
//! [`GROUP_ROWS_MAX`], so a reader's memory is bounded by a group and not by the file.

use crate::stored::StoredFile;
use anyhow::{Context, bail};
use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use hub::disk::Disk;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) const GROUP_ROWS_MAX: usize = 128 << 10;
/// Rows that go through the columns at once, in both directions.
pub(crate) const BATCH_ROWS: usize = 4 << 10;
/// A page of wide values has a few hundred rows, so that a row here and there costs little; one of narrow values has 20,000.
const PAGE_BYTES: usize = 32 << 10;
/// After so many rows it is looked whether a page is full.
const PAGE_ROWS_STEP: usize = 256;
const DICTIONARY_BYTES: usize = 96 << 10;

/// What all tables share; a table adds what is special about its columns.
pub(crate) fn properties() -> anyhow::Result<WriterPropertiesBuilder> {
    Ok(WriterProperties::builder()
        .set_created_by("weir".into())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(PAGE_ROWS_STEP)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .set_statistics_enabled(EnabledStatistics::Page))
}

pub(crate) fn writer(schema: SchemaRef, properties: WriterProperties) -> anyhow::Result<ArrowWriter<Vec<u8>>> {
    // The arrow schema would be a second, larger copy of the Parquet schema.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    Ok(ArrowWriter::try_new_with_options(Vec::new(), schema, options)?)
}

/// Batches of the named columns; `rows`: only these rows, in order (ascending ranges), else all.
pub(crate) fn read(
    disk: &Disk,
    path: &Path,
    columns: &[&str],
    rows: Option<Vec<Range<usize>>>,
) -> anyhow::Result<ParquetRecordBatchReader> {
    let builder = open(disk, path, rows.is_some())?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    select(builder.with_projection(mask), path, rows)
}

/// Batches of all columns.
pub(crate) fn read_all(disk: &Disk, path: &Path, rows: Option<Vec<Range<usize>>>) -> anyhow::Result<ParquetRecordBatchReader> {
    select(open(disk, path, rows.is_some())?, path, rows)
}

fn open(disk: &Disk, path: &Path, picks_rows: bool) -> anyhow::Result<ParquetRecordBatchReaderBuilder<StoredFile>> {
    let policy = if picks_rows { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let options = ArrowReaderOptions::new().with_page_index_policy(policy);
    ParquetRecordBatchReaderBuilder::try_new_with_options(StoredFile::open(disk, path, &Arc::default())?, options)
        .with_context(|| format!("cannot read {}", path.display()))
}

fn select(
    builder: ParquetRecordBatchReaderBuilder<StoredFile>,
    path: &Path,
    rows: Option<Vec<Range<usize>>>,
) -> anyhow::Result<ParquetRecordBatchReader> {
    let mut builder = builder.with_batch_size(BATCH_ROWS);
    if let Some(ranges) = rows {
        let total = usize::try_from(builder.metadata().file_metadata().num_rows())?;
        builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges.into_iter(), total));
    }
    builder.build().with_context(|| format!("cannot read {}", path.display()))
}

/// Batches of the named columns, of which `texts` come as dictionaries; a column that the file lacks is left out.
pub(crate) fn read_dictionaries(disk: &Disk, path: &Path, columns: &[&str], texts: &[&str]) -> anyhow::Result<ParquetRecordBatchReader> {
    let cannot = || format!("cannot read {}", path.display());
    let file = StoredFile::open(disk, path, &Arc::default())?;
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
    let found = ArrowReaderMetadata::load(&file, options.clone()).with_context(cannot)?;
    let field = |field: &Arc<Field>| match texts.contains(&field.name().as_str()) {
        true => {
            let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            Arc::new(Field::new(field.name(), kind, field.is_nullable()))
        }
        false => Arc::clone(field),
    };
    let schema = Schema::new(found.schema().fields().iter().map(field).collect::<Vec<_>>());
    let metadata =
        ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options.with_schema(Arc::new(schema))).with_context(cannot)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().with_context(cannot)
}

/// A column of a batch as its type.
pub(crate) fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> anyhow::Result<&'a T> {
    let array = batch.column_by_name(name).with_context(|| format!("the file has no column {name:?}"))?;
    array.as_any().downcast_ref::<T>().with_context(|| format!("column {name:?} is of type {}", array.data_type()))
}

/// The column `tenant`: text where the tenant is UTF-8 (a file has one tenant), else bytes.
pub(crate) enum Tenants {
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

pub(crate) fn tenant_field(tenant: &[u8]) -> Field {
    let kind = if std::str::from_utf8(tenant).is_ok() { DataType::Utf8 } else { DataType::Binary };
    Field::new("tenant", kind, false)
}

impl Default for Tenants {
    fn default() -> Tenants {
        Tenants::Text(StringBuilder::new())
    }
}

impl Tenants {
    pub(crate) fn new(tenant: &[u8]) -> Tenants {
        if std::str::from_utf8(tenant).is_ok() { Tenants::default() } else { Tenants::Bytes(BinaryBuilder::new()) }
    }

    pub(crate) fn push(&mut self, tenant: &[u8]) {
        match self {
            Tenants::Text(builder) => builder.append_value(String::from_utf8_lossy(tenant)),
            Tenants::Bytes(builder) => builder.append_value(tenant),
        }
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Tenants::Text(builder) => Arc::new(builder.finish()),
            Tenants::Bytes(builder) => Arc::new(builder.finish()),
        }
    }
}

/// The tenant of a row.
pub(crate) fn tenant(batch: &RecordBatch, row: usize) -> anyhow::Result<&[u8]> {
    let array = batch.column_by_name("tenant").context("the file has no column \"tenant\"")?.as_any();
    match (array.downcast_ref::<StringArray>(), array.downcast_ref::<BinaryArray>()) {
        (Some(text), _) => Ok(text.value(row).as_bytes()),
        (None, Some(bytes)) => Ok(bytes.value(row)),
        (None, None) => bail!("column \"tenant\" is neither text nor bytes"),
    }
}

/// Names of a file's columns, in order.
pub(crate) fn column_names(disk: &Disk, path: &Path) -> anyhow::Result<Vec<String>> {
    let file = StoredFile::open(disk, path, &Arc::default())?;
    let found = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip));
    let found = found.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(found.schema().fields().iter().map(|field| field.name().clone()).collect())
}
