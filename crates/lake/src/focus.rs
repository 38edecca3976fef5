//! FOCUS files in Parquet: typed cells to a file, and the cells of any such file as text.
//!
//! In: columns and rows of cells as `bill::focus` makes them. Out: one Parquet file, amounts as DECIMAL(38, 12) and times
//! as UTC timestamps; the same rows give the same bytes. The way back shows any Parquet file as texts, a row at a time,
//! for a check: amounts with the digits of their type, times as `YYYY-MM-DDTHH:MM:SSZ`. Memory: one batch of rows.

use crate::table;
use anyhow::{Context, bail};
use arrow_array::builder::{Decimal128Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use bill::focus::{Cell, Column, Kind};
use flow::units::UnixNanos;
use hub::disk::Disk;
use std::path::Path;
use std::sync::Arc;

/// One Parquet file of these rows, each with a cell for every column. An error of a row is passed on.
pub fn focus_parquet<E: Into<anyhow::Error>>(
    columns: &[&'static Column],
    rows: impl Iterator<Item = Result<Vec<Cell>, E>>,
) -> anyhow::Result<Vec<u8>> {
    let field = |column: &&'static Column| {
        let kind = match column.kind {
            Kind::Decimal => DataType::Decimal128(38, 12),
            Kind::Integer => DataType::Int64,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Text | Kind::Json => DataType::Utf8,
        };
        Field::new(column.name, kind, column.is_nullable)
    };
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let mut writer = table::writer(Arc::clone(&schema), table::properties()?.build())?;
    let mut batch: Vec<Vec<Cell>> = Vec::new();
    for row in rows {
        batch.push(row.map_err(Into::into)?);
        if batch.len() == table::BATCH_ROWS {
            writer.write(&record_batch(&schema, columns, &batch)?)?;
            batch.clear();
        }
    }
    writer.write(&record_batch(&schema, columns, &batch)?)?;
    Ok(writer.into_inner()?)
}

fn record_batch(schema: &Arc<Schema>, columns: &[&'static Column], rows: &[Vec<Cell>]) -> anyhow::Result<RecordBatch> {
    let arrays = columns.iter().enumerate().map(|(at, column)| array(column, rows.iter().map(|row| &row[at])));
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays.collect::<anyhow::Result<_>>()?)?)
}

fn array<'a>(column: &Column, cells: impl Iterator<Item = &'a Cell>) -> anyhow::Result<ArrayRef> {
    let wrong = |cell: &Cell| anyhow::anyhow!("column {} cannot hold {cell:?}", column.name);
    Ok(match column.kind {
        Kind::Decimal => {
            let mut builder = Decimal128Builder::new();
            for cell in cells {
                builder.append_option(match cell {
                    Cell::Null => None,
                    Cell::Decimal(units) => Some(*units),
                    other => return Err(wrong(other)),
                });
            }
            Arc::new(builder.finish().with_precision_and_scale(38, 12)?)
        }
        Kind::Integer => {
            let mut builder = Int64Builder::new();
            for cell in cells {
                builder.append_option(match cell {
                    Cell::Null => None,
                    Cell::Integer(number) => Some(*number),
                    other => return Err(wrong(other)),
                });
            }
            Arc::new(builder.finish())
        }
        Kind::Time => {
            let mut builder = TimestampMicrosecondBuilder::new();
            for cell in cells {
                builder.append_option(match cell {
                    Cell::Null => None,
                    Cell::Time(time) => Some(time.0.div_euclid(1_000)),
                    other => return Err(wrong(other)),
                });
            }
            Arc::new(builder.finish().with_timezone("UTC"))
        }
        Kind::Text | Kind::Json => {
            let mut builder = StringBuilder::new();
            for cell in cells {
                builder.append_option(match cell {
                    Cell::Null => None,
                    Cell::Text(text) => Some(text.as_str()),
                    other => return Err(wrong(other)),
                });
            }
            Arc::new(builder.finish())
        }
    })
}

/// Shows every row of a Parquet file as texts: first the names of the columns, then each row; null is `None`.
///
/// Text, decimals, whole numbers and timestamps can be shown; another type is an error that names the column.
pub fn read_cells(disk: &Disk, path: &Path, each: &mut dyn FnMut(&[Option<String>]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let names = table::column_names(disk, path)?;
    each(&names.iter().cloned().map(Some).collect::<Vec<_>>())?;
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    for batch in table::read(disk, path, &all, None)? {
        let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
        for row in 0..batch.num_rows() {
            let cells =
                batch.columns().iter().zip(&names).map(|(column, name)| cell(column, row).with_context(|| format!("column {name:?}")));
            each(&cells.collect::<anyhow::Result<Vec<_>>>()?)?;
        }
    }
    Ok(())
}

fn cell(column: &ArrayRef, row: usize) -> anyhow::Result<Option<String>> {
    if column.is_null(row) {
        return Ok(None);
    }
    let time = |nanos: i64| UnixNanos(nanos).rfc3339();
    Ok(Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            time(column.as_primitive::<TimestampMicrosecondType>().value(row).saturating_mul(1_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            time(column.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => time(column.as_primitive::<TimestampNanosecondType>().value(row)),
        other => bail!("a value of type {other} cannot be read; FOCUS has texts, decimals and times"),
    }))
}
