//! The table `logs`: kept records of one tenant and day (or hour), as a Parquet file and its index.
//!
//! In: rows of frames; out: bytes of the two files, the same for the same rows. Rows are sorted by the first
//! indexed field, then time, stream and position: neighbours look alike, so they compress. A named field is a text
//! column, or a column of 64-bit floats: one type in all files, and a value that is of another type, or that a float
//! cannot hold, stays in the line and is counted in the file's metadata ([`INCOMPLETE`]). What the columns hold is
//! not stored again: `rest` is the line without it (`lines`), and `raw` the line where that cannot be. The line alone decides what
//! a search returns. Memory: 40 bytes a row of one file, a batch of 4,096 rows in columns, the compressed file, and what the
//! index gathers.

mod lines;
mod notes;
pub(crate) mod numbers;

pub(crate) use lines::Lines;

use crate::Fields;
use crate::index::Builder;
use crate::table;
use anyhow::Context;
use arrow_array::builder::{
    BinaryBuilder, Float64Builder, TimestampNanosecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flow::conventions::TIME;
use flow::event::{Severity, StreamId};
use flow::fields::{FIELDS_MAX, FieldSet, Kind, Scanner, Span};
use hub::frame::Frame;
use lines::{Cutter, Held};
pub(crate) use notes::Notes;
use notes::{INCOMPLETE, NOTES};
use parquet::basic::Encoding;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Columns that every log file has; a field of such a name gets the prefix `f_`.
const FIXED: [&str; 10] = ["time", "severity", "tenant", "weight", "stream", "position", "origin_bytes", "notes", "rest", "raw"];

/// Of so many rows one tells how long indexing takes.
const CLOCK_ROWS: usize = 16;

/// A field that has a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldColumn {
    pub name: String,
    pub field: String,
    pub is_number: bool,
}

/// Columns of the fields, in file order. A field that is indexed and a number is a column of numbers.
pub(crate) fn field_columns(fields: &Fields) -> Vec<FieldColumn> {
    let mut columns: Vec<FieldColumn> = Vec::new();
    for field in fields.index.iter().chain(&fields.text).chain(&fields.ids).chain(&fields.numbers) {
        if columns.iter().any(|c| c.field == *field) {
            continue;
        }
        let mut name = field.clone();
        while FIXED.iter().any(|f| f.eq_ignore_ascii_case(&name)) || columns.iter().any(|c| c.name.eq_ignore_ascii_case(&name)) {
            name.insert_str(0, "f_");
        }
        columns.push(FieldColumn { name, field: field.clone(), is_number: fields.numbers.contains(field) });
    }
    columns
}

/// The number that a column of numbers holds for this value of a line.
pub(crate) fn number(span: &Span, line: &[u8]) -> Option<f64> {
    parse_number(span, line).map(|number| number.value)
}

fn parse_number(span: &Span, line: &[u8]) -> Option<numbers::Number> {
    if span.kind == Kind::Number { numbers::parse(span.raw(line)) } else { None }
}

/// One kept row: which frame, which row of it, and the stream of its part.
#[derive(Clone, Copy)]
pub(crate) struct RowRef {
    pub frame: u32,
    pub row: u32,
    pub stream: StreamId,
}

/// Writes log files; holds the scanners, so one serves all files of a seal.
pub(crate) struct LogWriter {
    fields: Fields,
    columns: Vec<FieldColumn>,
    /// Finds the fields of the columns, then those that may hold the row's time.
    scanner: Scanner,
    /// Finds the field that rows are sorted by, if there is one.
    first: Option<Scanner>,
    cutter: Cutter,
}

/// Time that each stage of writing logs took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Rows put into file order.
    pub sort: Duration,
    /// Fields found in the lines and their values put into columns, lines made whole again.
    pub columns: Duration,
    /// Columns encoded and compressed.
    pub encode: Duration,
    /// Words and values gathered for the index.
    pub index: Duration,
    /// The index put into its form.
    pub index_finish: Duration,
    /// Files written and synced.
    pub files: Duration,
}

impl Spent {
    /// The stages with their names, in the order of the work.
    pub fn named(&self) -> [(&'static str, Duration); 6] {
        [
            ("sort", self.sort),
            ("columns", self.columns),
            ("encode, zstd", self.encode),
            ("index rows", self.index),
            ("index finish", self.index_finish),
            ("files", self.files),
        ]
    }

    pub fn total(&self) -> Duration {
        self.named().iter().map(|stage| stage.1).sum()
    }
}

/// Adds the time since `start`, and returns now.
fn lap(start: Instant, spent: &mut Duration) -> Instant {
    let now = Instant::now();
    *spent += now - start;
    now
}

pub(crate) struct LogFile {
    pub parquet: Vec<u8>,
    pub index: Option<Vec<u8>>,
}

impl LogWriter {
    pub(crate) fn new(fields: &Fields) -> LogWriter {
        let columns = field_columns(fields);
        let mut names: Vec<&str> = columns.iter().map(|c| c.field.as_str()).collect();
        let times: Vec<&str> = TIME.into_iter().filter(|time| !names.contains(time)).collect();
        names.extend(times);
        names.truncate(FIELDS_MAX);
        let scanner = Scanner::new(Arc::new(FieldSet::new(&names)));
        let first = fields.index.first().map(|first| Scanner::new(Arc::new(FieldSet::new(&[first.as_str()]))));
        LogWriter { fields: fields.clone(), columns, scanner, first, cutter: Cutter::default() }
    }

    /// The file of these rows, all of `tenant`; `rows` is put into file order.
    pub(crate) fn write(
        &mut self,
        frames: &[Arc<Frame>],
        rows: &mut [RowRef],
        tenant: &[u8],
        indexed: bool,
        spent: &mut Spent,
    ) -> anyhow::Result<LogFile> {
        let mut at = Instant::now();
        sort(frames, rows, self.first.as_mut());
        let schema = self.schema(tenant);
        let mut writer = table::writer(Arc::clone(&schema), self.properties(rows.len())?)?;
        let names: Vec<&str> = self.columns.iter().map(|c| c.field.as_str()).collect();
        let mut index = if indexed { Some(Builder::new(&self.fields, &names)?) } else { None };
        let mut incomplete = vec![0; self.columns.len()];
        let (mut malformed, mut is_filled) = (0, vec![false; self.columns.len()]);
        at = lap(at, &mut spent.sort);
        let mut spans = vec![Span::default(); self.scanner.fields().len()];
        let mut held = vec![Held::default(); spans.len()];
        let mut room = vec![0; self.columns.len() + 1];
        for chunk in rows.chunks(table::BATCH_ROWS) {
            let mut columns = Columns::new(&self.columns, tenant, chunk.len(), &room);
            let mut indexing = Duration::ZERO;
            let mut values: Vec<Option<Cow<'_, [u8]>>> = Vec::with_capacity(self.columns.len());
            for (i, row) in chunk.iter().enumerate() {
                let line = line(frames, row);
                let shape = self.scanner.scan(line, &mut spans);
                malformed += u64::from(shape.malformed.is_some());
                values.clear();
                let text = |span: &Span| {
                    span.text(line).map(|text| if shape.invalid_utf8 || span.kind == Kind::Escaped { as_utf8(text) } else { text })
                };
                values.extend(spans[..self.columns.len()].iter().map(text));
                is_filled.iter_mut().zip(&values).for_each(|(is_filled, value)| *is_filled |= value.is_some());
                let severity = columns.push(&frames[row.frame as usize], row, tenant);
                let mut cutter = (!shape.invalid_utf8 && shape.malformed.is_none()).then_some(&mut self.cutter);
                held.fill(Held::Nothing);
                columns.push_values(&values, &spans, line, cutter.as_deref_mut(), &mut held, &mut incomplete);
                match cutter {
                    Some(cutter) => {
                        let times = &spans[self.columns.len()..];
                        if let Some(i) = times.iter().position(|span| span.kind != Kind::Missing) {
                            held[self.columns.len() + i] =
                                cutter.time(times[i].raw(line), times[i].kind, frames[row.frame as usize].rows.time[row.row as usize]);
                        }
                        columns.push_rest(cutter, line, &spans, &held);
                    }
                    None => columns.rests.push(None),
                }
                if let Some(index) = &mut index {
                    // A look at the clock for each row would be a stage of its own.
                    let start = (i % CLOCK_ROWS == 0).then(Instant::now);
                    let whole = shape.malformed.is_some().then(|| String::from_utf8_lossy(line));
                    index.add(&values, whole.as_deref(), severity)?;
                    indexing += start.map_or(Duration::ZERO, |start| start.elapsed() * CLOCK_ROWS as u32);
                }
            }
            let batch = columns.finish(&schema, &mut room, |i| line(frames, &chunk[i]))?;
            let now = Instant::now();
            spent.columns += (now - at).saturating_sub(indexing);
            spent.index += indexing;
            at = now;
            writer.write(&batch)?;
            at = lap(at, &mut spent.encode);
        }
        let missing: BTreeMap<&str, u64> =
            self.columns.iter().zip(&incomplete).filter(|(_, n)| **n > 0).map(|(c, n)| (c.name.as_str(), *n)).collect();
        if !missing.is_empty() {
            writer.append_key_value_metadata(KeyValue::new(INCOMPLETE.into(), serde_json::to_string(&missing)?));
        }
        let notes = Notes {
            malformed: Some(malformed),
            renamed: self.columns.iter().filter(|c| c.name != c.field).map(|c| (c.field.clone(), c.name.clone())).collect(),
            empty: self.columns.iter().zip(&is_filled).filter(|(_, is_filled)| !**is_filled).map(|(c, _)| c.name.clone()).collect(),
            incomplete: BTreeMap::new(),
        };
        writer.append_key_value_metadata(KeyValue::new(NOTES.into(), serde_json::to_string(&notes)?));
        let parquet = writer.into_inner()?;
        at = lap(at, &mut spent.encode);
        let index = index.map(Builder::finish).transpose()?;
        lap(at, &mut spent.index_finish);
        Ok(LogFile { parquet, index })
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
        fields.extend(self.columns.iter().map(|c| Field::new(&c.name, if c.is_number { DataType::Float64 } else { DataType::Utf8 }, true)));
        fields.push(Field::new("rest", DataType::Binary, true));
        fields.push(Field::new("raw", DataType::Binary, true));
        Arc::new(Schema::new(fields))
    }

    /// `rows`: of the file.
    fn properties(&self, rows: usize) -> anyhow::Result<WriterProperties> {
        let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
        let mut properties = table::properties()?;
        for name in ["rest", "raw", "time", "position", "origin_bytes"] {
            properties = properties.set_column_dictionary_enabled(path(name), false);
        }
        for name in ["time", "position"] {
            properties = properties.set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
        }
        for name in ["rest", "raw"] {
            properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::None);
        }
        for column in &self.columns {
            let name = path(&column.name);
            if column.is_number {
                continue; // whatever else the field is: these settings are for text
            }
            if self.fields.ids.contains(&column.field) {
                properties = properties
                    .set_column_dictionary_enabled(name.clone(), false)
                    .set_column_statistics_enabled(name.clone(), EnabledStatistics::Chunk)
                    .set_column_bloom_filter_fpp(name.clone(), 0.01)
                    .set_column_bloom_filter_max_ndv(name, rows.clamp(1, table::GROUP_ROWS_MAX) as u64);
            } else if self.fields.text.contains(&column.field) {
                properties = properties
                    .set_column_dictionary_enabled(name.clone(), false)
                    .set_column_statistics_enabled(name, EnabledStatistics::None);
            }
        }
        Ok(properties.build())
    }
}

fn line<'a>(frames: &'a [Arc<Frame>], row: &RowRef) -> &'a [u8] {
    frames[row.frame as usize].rows.row(row.row as usize)
}

/// The text with every byte that is no UTF-8 replaced.
fn as_utf8(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match std::str::from_utf8(&text) {
        Ok(_) => text,
        Err(_) => Cow::Owned(String::from_utf8_lossy(&text).into_owned().into_bytes()),
    }
}

/// Puts rows into file order: by the text of the first field (missing first), time, stream, position.
fn sort(frames: &[Arc<Frame>], rows: &mut [RowRef], mut first: Option<&mut Scanner>) {
    let mut names: HashMap<Cow<'_, [u8]>, u32> = HashMap::new();
    let mut name_of: Vec<u32> = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        let text = first.as_mut().and_then(|scanner| {
            let mut span = [Span::default()];
            scanner.scan(line(frames, row), &mut span);
            span[0].text(line(frames, row))
        });
        let next = names.len() as u32 + 1;
        name_of.push(text.map_or(0, |text| *names.entry(text).or_insert(next)));
    }
    let mut sorted: Vec<(&Cow<'_, [u8]>, u32)> = names.iter().map(|(text, number)| (text, *number)).collect();
    sorted.sort_unstable();
    let mut rank = vec![0u32; names.len() + 1];
    for (place, (_, number)) in sorted.iter().enumerate() {
        rank[*number as usize] = place as u32 + 1;
    }
    let mut keyed: Vec<_> = rows
        .iter()
        .zip(&name_of)
        .map(|(row, name)| {
            let columns = &frames[row.frame as usize].rows;
            (rank[*name as usize], columns.time[row.row as usize], row.stream, columns.position[row.row as usize], *row)
        })
        .collect();
    keyed.sort_by_key(|k| (k.0, k.1, k.2, k.3));
    rows.iter_mut().zip(keyed).for_each(|(row, keyed)| *row = keyed.4);
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
    fields: Vec<Values>,
    /// Where each row's rest ends among the bytes, if it has one.
    rests: Vec<Option<usize>>,
    rest_bytes: Vec<u8>,
}

enum Values {
    /// UTF-8, checked as a whole in the end.
    Text(BinaryBuilder),
    Number(Float64Builder),
}

impl Columns {
    /// `room`: the bytes of each column of text and of the rests, as they were in the batch before.
    fn new(columns: &[FieldColumn], tenant: &[u8], rows: usize, room: &[usize]) -> Columns {
        let values = |(c, room): (&FieldColumn, &usize)| match c.is_number {
            true => Values::Number(Float64Builder::with_capacity(rows)),
            false => Values::Text(BinaryBuilder::with_capacity(rows, room + room / 8)),
        };
        Columns {
            time: TimestampNanosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            severity: UInt8Builder::with_capacity(rows),
            tenant: table::Tenants::new(tenant),
            weight: UInt32Builder::with_capacity(rows),
            stream: UInt64Builder::with_capacity(rows),
            position: UInt64Builder::with_capacity(rows),
            origin_bytes: UInt32Builder::with_capacity(rows),
            notes: UInt16Builder::with_capacity(rows),
            fields: columns.iter().zip(room).map(values).collect(),
            rests: Vec::with_capacity(rows),
            rest_bytes: Vec::with_capacity(room.last().map_or(0, |room| room + room / 8)),
        }
    }

    fn push(&mut self, frame: &Frame, at: &RowRef, tenant: &[u8]) -> Severity {
        let (rows, row) = (&frame.rows, at.row as usize);
        self.time.append_value(rows.time[row]);
        self.severity.append_value(rows.severity[row]);
        self.tenant.push(tenant);
        self.weight.append_value(rows.weight[row]);
        self.stream.append_value(at.stream.0);
        self.position.append_value(rows.position[row]);
        self.origin_bytes.append_value(rows.origin_bytes[row]);
        self.notes.append_value(rows.notes[row]);
        rows.severity[row]
    }

    /// The values of the fields; tells what they hold of the line, if the line can be cut at all.
    fn push_values(
        &mut self,
        values: &[Option<Cow<'_, [u8]>>],
        spans: &[Span],
        line: &[u8],
        mut cutter: Option<&mut Cutter>,
        held: &mut [Held],
        incomplete: &mut [u64],
    ) {
        for (i, column) in self.fields.iter_mut().enumerate() {
            match column {
                Values::Text(builder) => {
                    builder.append_option(values[i].as_deref());
                    if let (Some(cutter), Some(text)) = (&mut cutter, &values[i]) {
                        held[i] = cutter.text(spans[i].raw(line), spans[i].kind, text);
                    }
                }
                Values::Number(builder) => {
                    let number = parse_number(&spans[i], line);
                    builder.append_option(number.map(|n| n.value));
                    incomplete[i] += u64::from(number.is_none() && values[i].is_some());
                    if cutter.is_some() && number.is_some_and(|n| n.is_plain) {
                        held[i] = Held::Value;
                    }
                }
            }
        }
    }

    fn push_rest(&mut self, cutter: &mut Cutter, line: &[u8], spans: &[Span], held: &[Held]) {
        cutter.cut(line, spans, held, &mut self.rest_bytes);
        self.rests.push(Some(self.rest_bytes.len()));
    }

    fn rest(&self, is_good: impl Fn(usize) -> bool) -> BinaryArray {
        let mut builder = BinaryBuilder::with_capacity(self.rests.len(), self.rest_bytes.len());
        let mut start = 0;
        for (row, end) in self.rests.iter().enumerate() {
            builder.append_option(end.filter(|_| is_good(row)).map(|end| &self.rest_bytes[start..end]));
            start = end.unwrap_or(start);
        }
        builder.finish()
    }

    /// `line`: of a row. A line that would not come back as it is goes into `raw`.
    fn finish<'a>(mut self, schema: &SchemaRef, room: &mut [usize], line: impl Fn(usize) -> &'a [u8]) -> anyhow::Result<RecordBatch> {
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
        for (values, room) in self.fields.iter_mut().zip(room.iter_mut()) {
            arrays.push(match values {
                Values::Text(builder) => {
                    *room = builder.values_slice().len();
                    Arc::new(StringArray::try_from_binary(builder.finish())?)
                }
                Values::Number(builder) => Arc::new(builder.finish()),
            });
        }
        let rows = self.rests.len();
        if let Some(room) = room.last_mut() {
            *room = self.rest_bytes.len();
        }
        arrays.push(Arc::new(self.rest(|_| true)));
        arrays.push(Arc::new(BinaryArray::new_null(rows)));
        let mut batch = RecordBatch::try_new(Arc::clone(schema), arrays).context("the columns of a log file do not fit together")?;
        let lines = Lines::of(&batch)?;
        let mut buffer = Vec::new();
        let is_good: Vec<bool> =
            (0..rows).map(|row| self.rests[row].is_some() && lines.line(row, &mut buffer).is_ok_and(|whole| whole == line(row))).collect();
        if is_good.contains(&false) {
            let mut arrays = batch.columns().to_vec();
            let raw: BinaryArray = (0..rows).map(|row| (!is_good[row]).then(|| line(row))).collect();
            arrays.truncate(arrays.len() - 2);
            arrays.push(Arc::new(self.rest(|row| is_good[row])));
            arrays.push(Arc::new(raw));
            batch = RecordBatch::try_new(Arc::clone(schema), arrays).context("the columns of a log file do not fit together")?;
        }
        Ok(batch)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A batch as files had it before there was a `rest`.
    pub(crate) fn old_batch(raws: &[&[u8]]) -> RecordBatch {
        let fields = vec![
            Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
            Field::new("notes", DataType::UInt16, false),
            Field::new("msg", DataType::Utf8, true),
            Field::new("raw", DataType::Binary, false),
        ];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(arrow_array::TimestampNanosecondArray::from(vec![5; raws.len()]).with_timezone("UTC")),
            Arc::new(arrow_array::UInt16Array::from(vec![0; raws.len()])),
            Arc::new(StringArray::new_null(raws.len())),
            Arc::new(BinaryArray::from(raws.to_vec())),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    #[test]
    fn a_field_named_like_a_fixed_column_gets_a_prefix() {
        let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let fields = Fields {
            index: names(&["service", "Time", "f_time", "tenant"]),
            text: names(&["msg", "service"]),
            ids: names(&["raw"]),
            numbers: names(&["n", "time"]),
        };
        let columns: Vec<String> = field_columns(&fields).into_iter().map(|c| c.name).collect();
        assert_eq!(columns, ["service", "f_Time", "f_f_time", "f_tenant", "msg", "f_raw", "n", "f_f_f_time"]);
    }
}
