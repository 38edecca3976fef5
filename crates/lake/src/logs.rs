//! The table `logs`: kept records of one tenant and day (or hour), as a Parquet file and its index.
//!
//! In: rows of frames; out: bytes of the two files, the same for the same rows. Rows are sorted by the first
//! indexed field, then time, stream and position: neighbours look alike, so they compress. Each named field
//! is a text column, so no type can conflict and no row is lost; `raw` holds the line as it was received and
//! alone decides what a search returns. Memory: the spans of the rows of one file (12 bytes per row and
//! field), a batch of 4,096 rows in columns, the compressed file, and the index's arena.

use crate::Fields;
use crate::index::Builder;
use crate::table;
use anyhow::Context;
use arrow_array::builder::{
    BinaryBuilder, StringBuilder, TimestampNanosecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flow::event::{Severity, StreamId};
use flow::fields::{FieldSet, Scanner, Span};
use hub::frame::Frame;
use parquet::basic::Encoding;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Columns that every log file has; a field of such a name gets the prefix `f_`.
const FIXED: [&str; 9] = ["time", "severity", "tenant", "weight", "stream", "position", "origin_bytes", "notes", "raw"];

/// Columns of the fields, in file order: (column name, field).
pub(crate) fn field_columns(fields: &Fields) -> Vec<(String, String)> {
    let mut columns: Vec<(String, String)> = Vec::new();
    for field in fields.index.iter().chain(&fields.text).chain(&fields.ids) {
        if columns.iter().any(|c| c.1 == *field) {
            continue;
        }
        let mut name = field.clone();
        while FIXED.iter().any(|f| f.eq_ignore_ascii_case(&name)) || columns.iter().any(|c| c.0.eq_ignore_ascii_case(&name)) {
            name.insert_str(0, "f_");
        }
        columns.push((name, field.clone()));
    }
    columns
}

/// One kept row: which frame, which row of it, and the stream of its part.
#[derive(Clone, Copy)]
pub(crate) struct RowRef {
    pub frame: u32,
    pub row: u32,
    pub stream: StreamId,
}

/// Writes log files; holds the scanner, so one serves all files of a seal.
pub(crate) struct LogWriter {
    fields: Fields,
    columns: Vec<(String, String)>,
    set: Arc<FieldSet>,
    scanner: Scanner,
}

pub(crate) struct LogFile {
    pub parquet: Vec<u8>,
    pub index: Option<Vec<u8>>,
}

impl LogWriter {
    pub(crate) fn new(fields: &Fields) -> LogWriter {
        let columns = field_columns(fields);
        let set = Arc::new(FieldSet::new(&columns.iter().map(|c| c.1.as_str()).collect::<Vec<_>>()));
        LogWriter { fields: fields.clone(), columns, scanner: Scanner::new(Arc::clone(&set)), set }
    }

    /// The file of these rows, all of `tenant`; `rows` is put into file order.
    pub(crate) fn write(&mut self, frames: &[Arc<Frame>], rows: &mut [RowRef], tenant: &[u8], indexed: bool) -> anyhow::Result<LogFile> {
        let width = self.set.len();
        let mut spans = vec![Span::default(); width * rows.len()];
        let mut malformed = vec![false; rows.len()];
        for (i, row) in rows.iter().enumerate() {
            let shape = self.scanner.scan(line(frames, row), &mut spans[i * width..(i + 1) * width]);
            malformed[i] = shape.malformed.is_some();
        }
        let order = sort(frames, rows, &spans, width);
        let schema = self.schema(tenant);
        let mut writer = table::writer(Arc::clone(&schema), self.properties()?)?;
        let names: Vec<&str> = self.columns.iter().map(|c| c.1.as_str()).collect();
        let mut index = if indexed { Some(Builder::new(&self.fields, &names)?) } else { None };
        for chunk in order.chunks(table::BATCH_ROWS) {
            let mut columns = Columns::new(width, tenant);
            for at in chunk {
                let at = *at as usize;
                let row = &rows[at];
                let line = line(frames, row);
                let texts: Vec<Option<Cow<'_, [u8]>>> = spans[at * width..(at + 1) * width].iter().map(|span| span.text(line)).collect();
                let texts: Vec<Option<Cow<'_, str>>> = texts.iter().map(|text| text.as_deref().map(String::from_utf8_lossy)).collect();
                let severity = columns.push(&frames[row.frame as usize], row, &texts, tenant);
                if let Some(index) = &mut index {
                    let whole = malformed[at].then(|| String::from_utf8_lossy(line));
                    index.add(&texts, whole.as_deref(), severity)?;
                }
            }
            writer.write(&columns.finish(&schema)?)?;
        }
        let ordered: Vec<RowRef> = order.iter().map(|at| rows[*at as usize]).collect();
        rows.copy_from_slice(&ordered);
        Ok(LogFile { parquet: writer.into_inner()?, index: index.map(Builder::finish).transpose()? })
    }

    fn schema(&self, tenant: &[u8]) -> SchemaRef {
        let mut fields = vec![
            Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
            Field::new("severity", DataType::UInt8, false),
            table::tenant_field(tenant),
            Field::new("weight", DataType::UInt32, false),
            Field::new("stream", DataType::UInt64, false),
            Field::new("position", DataType::UInt64, false),
            Field::new("origin_bytes", DataType::UInt32, false),
            Field::new("notes", DataType::UInt16, false),
        ];
        fields.extend(self.columns.iter().map(|c| Field::new(&c.0, DataType::Utf8, true)));
        fields.push(Field::new("raw", DataType::Binary, false));
        Arc::new(Schema::new(fields))
    }

    fn properties(&self) -> anyhow::Result<WriterProperties> {
        let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
        let mut properties = table::properties()?;
        for name in ["raw", "time", "position", "origin_bytes"] {
            properties = properties.set_column_dictionary_enabled(path(name), false);
        }
        for name in ["time", "position"] {
            properties = properties.set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
        }
        for (name, field) in &self.columns {
            if self.fields.ids.contains(field) {
                properties = properties
                    .set_column_dictionary_enabled(path(name), false)
                    .set_column_bloom_filter_fpp(path(name), 0.01)
                    .set_column_bloom_filter_max_ndv(path(name), table::GROUP_ROWS_MAX as u64);
            } else if self.fields.text.contains(field) {
                properties = properties.set_column_dictionary_enabled(path(name), false);
            }
        }
        Ok(properties.build())
    }
}

fn line<'a>(frames: &'a [Arc<Frame>], row: &RowRef) -> &'a [u8] {
    frames[row.frame as usize].rows.row(row.row as usize)
}

/// File order of the rows: by the text of the first field (missing first), time, stream, position.
fn sort(frames: &[Arc<Frame>], rows: &[RowRef], spans: &[Span], width: usize) -> Vec<u32> {
    let mut names: HashMap<Cow<'_, [u8]>, u32> = HashMap::new();
    let mut name_of: Vec<u32> = Vec::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        let text = if width == 0 { None } else { spans[i * width].text(line(frames, row)) };
        let next = names.len() as u32 + 1;
        name_of.push(text.map_or(0, |text| *names.entry(text).or_insert(next)));
    }
    let mut sorted: Vec<(&Cow<'_, [u8]>, u32)> = names.iter().map(|(text, number)| (text, *number)).collect();
    sorted.sort_unstable();
    let mut rank = vec![0u32; names.len() + 1];
    for (place, (_, number)) in sorted.iter().enumerate() {
        rank[*number as usize] = place as u32 + 1;
    }
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_cached_key(|at| {
        let row = &rows[*at as usize];
        let columns = &frames[row.frame as usize].rows;
        (rank[name_of[*at as usize] as usize], columns.time[row.row as usize], row.stream, columns.position[row.row as usize])
    });
    order
}

/// The columns of up to 4,096 rows.
struct Columns {
    time: TimestampNanosecondBuilder,
    severity: UInt8Builder,
    tenant: table::Tenants,
    weight: UInt32Builder,
    stream: UInt64Builder,
    position: UInt64Builder,
    origin_bytes: UInt32Builder,
    notes: UInt16Builder,
    fields: Vec<StringBuilder>,
    raw: BinaryBuilder,
}

impl Columns {
    fn new(width: usize, tenant: &[u8]) -> Columns {
        Columns {
            time: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            severity: UInt8Builder::new(),
            tenant: table::Tenants::new(tenant),
            weight: UInt32Builder::new(),
            stream: UInt64Builder::new(),
            position: UInt64Builder::new(),
            origin_bytes: UInt32Builder::new(),
            notes: UInt16Builder::new(),
            fields: (0..width).map(|_| StringBuilder::new()).collect(),
            raw: BinaryBuilder::new(),
        }
    }

    fn push(&mut self, frame: &Frame, at: &RowRef, texts: &[Option<Cow<'_, str>>], tenant: &[u8]) -> Severity {
        let (rows, row) = (&frame.rows, at.row as usize);
        self.time.append_value(rows.time[row]);
        self.severity.append_value(rows.severity[row]);
        self.tenant.push(tenant);
        self.weight.append_value(rows.weight[row]);
        self.stream.append_value(at.stream.0);
        self.position.append_value(rows.position[row]);
        self.origin_bytes.append_value(rows.origin_bytes[row]);
        self.notes.append_value(rows.notes[row]);
        for (builder, text) in self.fields.iter_mut().zip(texts) {
            builder.append_option(text.as_deref());
        }
        self.raw.append_value(rows.row(row));
        rows.severity[row]
    }

    fn finish(mut self, schema: &SchemaRef) -> anyhow::Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish()),
            Arc::new(self.severity.finish()),
            self.tenant.finish(),
            Arc::new(self.weight.finish()),
            Arc::new(self.stream.finish()),
            Arc::new(self.position.finish()),
            Arc::new(self.origin_bytes.finish()),
            Arc::new(self.notes.finish()),
        ];
        arrays.extend(self.fields.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        arrays.push(Arc::new(self.raw.finish()));
        RecordBatch::try_new(Arc::clone(schema), arrays).context("the columns of a log file do not fit together")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_named_like_a_fixed_column_gets_a_prefix() {
        let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let fields =
            Fields { index: names(&["service", "Time", "f_time", "tenant"]), text: names(&["msg", "service"]), ids: names(&["raw"]) };
        let columns: Vec<String> = field_columns(&fields).into_iter().map(|c| c.0).collect();
        assert_eq!(columns, ["service", "f_Time", "f_f_time", "f_tenant", "msg", "f_raw"]);
    }
}
