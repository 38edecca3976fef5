//! The table `metrics`: samples of one tenant and day (or hour), as a Parquet file sorted by series and time.
//!
//! In: rows of frames, each the record of a sample (`telemetry::sample`); out: bytes of the file, the same for the same rows, and the
//! lines again. Who a sample is of stands in `metric`, `type`, `unit` and `labels`, which are dictionaries: a series is stored once in a
//! row group. Where its line begins with more than they say (temporality, a resource), or in another way, `series` has that beginning.
//! Times are differences, values are split by byte. `detail` has the rest of a line that says more than its time and one number (a
//! histogram, exemplars), and `raw` a whole line that is built otherwise: then steps have changed it, or it is no sample. So every line comes back
//! as it was. Memory: 60 bytes a row of one file, and each series once.

use crate::logs::RowRef;
use crate::table;
use anyhow::Context;
use arrow_array::builder::{
    BinaryBuilder, Float64Builder, StringBuilder, TimestampNanosecondBuilder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::{Array, ArrayRef, BinaryArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flow::event::StreamId;
use flow::time::TimeParser;
use flow::units::UnixNanos;
use hashbrown::HashMap;
use hub::frame::Frame;
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use telemetry::sample::{self, Number, Series, Stamp, Type};

/// Bytes of all texts of one column in a row group, before they are stored row by row.
const DICTIONARY_BYTES: usize = 4 << 20;

/// Who samples are of, as columns hold it.
struct Key {
    /// The beginning of its lines.
    part: Rc<str>,
    kind: &'static str,
    names: Names,
}

enum Names {
    /// The part is as `put_series` writes it, and lies in these pieces: the columns say it.
    Pieces { metric: Range<usize>, unit: Range<usize>, labels: Range<usize> },
    /// It says more than that, or in another way: the column `series` has it, too.
    Own { metric: String, unit: String, labels: String },
}

impl Key {
    fn of(part: &Rc<str>) -> Option<Key> {
        Key::written(part).or_else(|| Key::read(part))
    }

    fn written(part: &Rc<str>) -> Option<Key> {
        let (metric, rest) = part.strip_prefix(METRIC)?.split_once(TYPE)?;
        let (name, rest) = rest.split_once('"')?;
        let (unit, labels) = match rest.strip_prefix(UNIT) {
            Some(rest) => rest.split_once(LABELS_AFTER_UNIT)?,
            None => ("", rest.strip_prefix(LABELS)?),
        };
        let is_plain = |text: &str| memchr::memchr2(b'"', b'\\', text.as_bytes()).is_none();
        // Labels without brackets and escapes within are a flat object of texts.
        let inside = labels.strip_prefix('{')?.strip_suffix('}')?.as_bytes();
        let is_flat = memchr::memchr3(b'{', b'}', b'\\', inside).is_none() && memchr::memchr2(b'[', b']', inside).is_none();
        let kind = Type::parse(name.as_bytes()).map(Type::name).filter(|kind| *kind == name)?;
        let is_whole = rest.starts_with(UNIT) != unit.is_empty();
        if !is_plain(metric) || !is_plain(unit) || !is_flat || !is_whole {
            return None;
        }
        let place = |piece: &str| {
            let from = piece.as_ptr().addr() - part.as_ptr().addr();
            from..from + piece.len()
        };
        let unit = if unit.is_empty() { 0..0 } else { place(unit) };
        Some(Key { part: Rc::clone(part), kind, names: Names::Pieces { metric: place(metric), unit, labels: place(labels) } })
    }

    fn read(part: &Rc<str>) -> Option<Key> {
        let Series { metric, kind, unit, labels, .. } = Series::parse(part.as_bytes())?;
        let labels: serde_json::Map<String, serde_json::Value> =
            labels.into_iter().map(|(name, value)| (name, serde_json::Value::String(value))).collect();
        let labels = serde_json::Value::Object(labels).to_string();
        Some(Key { part: Rc::clone(part), kind: kind.name(), names: Names::Own { metric, unit, labels } })
    }

    /// Metric, unit and labels.
    fn names(&self) -> [&str; 3] {
        match &self.names {
            Names::Pieces { metric, unit, labels } => [metric, unit, labels].map(|piece| &self.part[piece.clone()]),
            Names::Own { metric, unit, labels } => [metric, unit, labels],
        }
    }

    /// What the column `series` has.
    fn series(&self) -> Option<&str> {
        matches!(self.names, Names::Own { .. }).then_some(&*self.part)
    }
}

const METRIC: &str = "{\"metric\":\"";
const TYPE: &str = "\",\"type\":\"";
const UNIT: &str = ",\"unit\":\"";
const LABELS: &str = ",\"labels\":";
const LABELS_AFTER_UNIT: &str = "\",\"labels\":";

/// A part in pieces, put together again.
fn put_part(out: &mut Vec<u8>, metric: &str, kind: &str, unit: &str, labels: &str) {
    for piece in [METRIC, metric, TYPE, kind, "\""] {
        out.extend_from_slice(piece.as_bytes());
    }
    let with_unit: &[&str] = if unit.is_empty() { &[LABELS, labels] } else { &[UNIT, unit, LABELS_AFTER_UNIT, labels] };
    with_unit.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
}

/// What a row says.
struct Read {
    /// Number of its key; `None`: it is no sample.
    key: Option<u32>,
    value: Option<f64>,
    rest: Rest,
}

/// How the line comes back.
enum Rest {
    /// Out of time and value.
    Plain,
    /// This follows the series, with a comma in place of its brace.
    Detail(String),
    /// It is stored whole.
    Raw,
}

/// Reads rows; each series part is read once.
#[derive(Default)]
pub(crate) struct Reader {
    times: TimeParser,
    buffer: Vec<u8>,
    numbers: HashMap<Rc<str>, Option<u32>>,
    keys: Vec<Key>,
    stamp: Stamp,
    made: Vec<u8>,
}

impl Reader {
    fn read(&mut self, line: &[u8], time: i64) -> Read {
        let Some(sample) = sample::read(line, &mut self.times, &mut self.buffer) else {
            return Read { key: None, value: None, rest: Rest::Raw };
        };
        let Ok(part) = std::str::from_utf8(sample.series) else { return Read { key: None, value: None, rest: Rest::Raw } };
        let key = match self.numbers.get(part) {
            Some(key) => *key,
            None => {
                let part: Rc<str> = part.into();
                let key = Key::of(&part).and_then(|key| {
                    let number = u32::try_from(self.keys.len()).ok()?;
                    self.keys.push(key);
                    Some(number)
                });
                self.numbers.insert(part, key);
                key
            }
        };
        let value = sample.value.map(Number::double);
        let rest = match line.strip_prefix(sample.series) {
            Some(tail) => {
                self.made.clear();
                put_tail(&mut self.made, &mut self.stamp, time, value.unwrap_or_default());
                match tail.strip_prefix(b",").map(|inside| std::str::from_utf8(inside)) {
                    _ if value.is_some() && tail == self.made => Rest::Plain,
                    Some(Ok(inside)) => Rest::Detail(format!("{{{inside}")),
                    _ => Rest::Raw,
                }
            }
            None => Rest::Raw,
        };
        Read { key, value, rest }
    }
}

/// What follows the series in the line of a sample that is one number.
fn put_tail(out: &mut Vec<u8>, stamp: &mut Stamp, time: i64, value: f64) {
    stamp.put(out, UnixNanos(time));
    sample::put_value_end(out, value);
    out.pop(); // the line's end is not stored
}

/// The lines of a batch of a file.
pub(crate) struct Lines<'a> {
    time: &'a TimestampNanosecondArray,
    /// Metric, type, unit and labels.
    names: [&'a StringArray; 4],
    series: &'a StringArray,
    value: &'a Float64Array,
    detail: &'a StringArray,
    raw: &'a BinaryArray,
    stamp: Stamp,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> anyhow::Result<Lines<'a>> {
        Ok(Lines {
            time: table::column(batch, "time")?,
            names: [
                table::column(batch, "metric")?,
                table::column(batch, "type")?,
                table::column(batch, "unit")?,
                table::column(batch, "labels")?,
            ],
            series: table::column(batch, "series")?,
            value: table::column(batch, "value")?,
            detail: table::column(batch, "detail")?,
            raw: table::column(batch, "raw")?,
            stamp: Stamp::default(),
        })
    }

    /// Appends a line, as it came.
    pub(crate) fn put(&mut self, row: usize, out: &mut Vec<u8>) {
        if self.raw.is_valid(row) {
            return out.extend_from_slice(self.raw.value(row));
        }
        if self.series.is_valid(row) {
            out.extend_from_slice(self.series.value(row).as_bytes());
        } else {
            let [metric, kind, unit, labels] = self.names.map(|column| if column.is_valid(row) { column.value(row) } else { "" });
            put_part(out, metric, kind, unit, labels);
        }
        if self.detail.is_valid(row) {
            out.push(b',');
            out.extend_from_slice(self.detail.value(row).strip_prefix('{').unwrap_or_default().as_bytes());
            return;
        }
        put_tail(out, &mut self.stamp, self.time.value(row), self.value.value(row));
    }
}

/// The columns; `tenant` as the file or the tail has it.
pub(crate) fn schema(tenant: Field) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        tenant,
        Field::new("metric", DataType::Utf8, true),
        Field::new("type", DataType::Utf8, true),
        Field::new("unit", DataType::Utf8, true),
        Field::new("labels", DataType::Utf8, true),
        Field::new("series", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
        Field::new("detail", DataType::Utf8, true),
        Field::new("weight", DataType::UInt32, false),
        Field::new("stream", DataType::UInt64, false),
        Field::new("position", DataType::UInt64, false),
        Field::new("origin_bytes", DataType::UInt32, false),
        Field::new("notes", DataType::UInt16, false),
        Field::new("raw", DataType::Binary, true),
    ]))
}

fn properties() -> anyhow::Result<WriterProperties> {
    let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let mut properties = table::properties()?.set_dictionary_page_size_limit(DICTIONARY_BYTES);
    for name in ["time", "position", "origin_bytes"] {
        properties =
            properties.set_column_dictionary_enabled(path(name), false).set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    properties =
        properties.set_column_dictionary_enabled(path("value"), false).set_column_encoding(path("value"), Encoding::BYTE_STREAM_SPLIT);
    for name in ["detail", "raw"] {
        properties =
            properties.set_column_dictionary_enabled(path(name), false).set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    Ok(properties.build())
}

fn read_row(reader: &mut Reader, frame: &Frame, row: usize) -> Read {
    reader.read(frame.rows.row(row), frame.rows.time[row])
}

/// One file. Puts `rows` into its order: by metric, labels and what else is said of the series, then time, stream and position.
pub(crate) fn write(frames: &[Arc<Frame>], rows: &mut [RowRef], tenant: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut reader = Reader::default();
    let mut read: Vec<(Read, RowRef)> =
        rows.iter().map(|row| (read_row(&mut reader, &frames[row.frame as usize], row.row as usize), *row)).collect();
    let mut order: Vec<u32> = (0..reader.keys.len() as u32).collect();
    order.sort_unstable_by(|a, b| reader.keys[*a as usize].part.cmp(&reader.keys[*b as usize].part));
    let mut rank = vec![0u32; order.len()];
    order.iter().enumerate().for_each(|(place, key)| rank[*key as usize] = place as u32 + 1);
    let at =
        |row: &RowRef| (frames[row.frame as usize].rows.time[row.row as usize], frames[row.frame as usize].rows.position[row.row as usize]);
    read.sort_by_cached_key(|(read, row)| (read.key.map_or(0, |key| rank[key as usize]), at(row).0, row.stream, at(row).1));
    let mut writer = table::writer(schema(table::tenant_field(tenant)), properties()?)?;
    for chunk in read.chunks(table::BATCH_ROWS) {
        let mut columns = Columns::new(table::Tenants::new(tenant));
        for (read, row) in chunk {
            columns.push(&reader.keys, read, &frames[row.frame as usize], row.row as usize, row.stream, tenant);
        }
        writer.write(&columns.finish(schema(table::tenant_field(tenant)))?)?;
    }
    rows.iter_mut().zip(&read).for_each(|(row, (_, sorted))| *row = *sorted);
    Ok(writer.into_inner()?)
}

/// Rows of the tail, in their order. `rows`: row and the tenant as it is shown.
pub(crate) fn batch<'a>(frame: &Frame, stream: StreamId, rows: impl Iterator<Item = (usize, &'a str)>) -> anyhow::Result<RecordBatch> {
    let mut reader = Reader::default();
    let mut columns = Columns::new(table::Tenants::default());
    for (row, tenant) in rows {
        let read = read_row(&mut reader, frame, row);
        columns.push(&reader.keys, &read, frame, row, stream, tenant.as_bytes());
    }
    columns.finish(schema(Field::new("tenant", DataType::Utf8, false)))
}

struct Columns {
    time: TimestampNanosecondBuilder,
    tenant: table::Tenants,
    metric: StringBuilder,
    kind: StringBuilder,
    unit: StringBuilder,
    labels: StringBuilder,
    series: StringBuilder,
    value: Float64Builder,
    detail: StringBuilder,
    weight: UInt32Builder,
    stream: UInt64Builder,
    position: UInt64Builder,
    origin_bytes: UInt32Builder,
    notes: UInt16Builder,
    raw: BinaryBuilder,
}

impl Columns {
    fn new(tenant: table::Tenants) -> Columns {
        Columns {
            time: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            tenant,
            metric: StringBuilder::new(),
            kind: StringBuilder::new(),
            unit: StringBuilder::new(),
            labels: StringBuilder::new(),
            series: StringBuilder::new(),
            value: Float64Builder::new(),
            detail: StringBuilder::new(),
            weight: UInt32Builder::new(),
            stream: UInt64Builder::new(),
            position: UInt64Builder::new(),
            origin_bytes: UInt32Builder::new(),
            notes: UInt16Builder::new(),
            raw: BinaryBuilder::new(),
        }
    }

    fn push(&mut self, keys: &[Key], read: &Read, frame: &Frame, row: usize, stream: StreamId, tenant: &[u8]) {
        let rows = &frame.rows;
        let key = read.key.map(|key| &keys[key as usize]);
        let names = key.map(Key::names);
        self.time.append_value(rows.time[row]);
        self.tenant.push(tenant);
        self.metric.append_option(names.map(|names| names[0]));
        self.kind.append_option(key.map(|key| key.kind));
        self.unit.append_option(names.map(|names| names[1]).filter(|unit| !unit.is_empty()));
        self.labels.append_option(names.map(|names| names[2]));
        let is_raw = matches!(read.rest, Rest::Raw);
        self.series.append_option(key.and_then(Key::series).filter(|_| !is_raw));
        self.value.append_option(read.value.filter(|_| key.is_some()));
        self.detail.append_option(if let Rest::Detail(detail) = &read.rest { Some(detail) } else { None });
        self.weight.append_value(rows.weight[row]);
        self.stream.append_value(stream.0);
        self.position.append_value(rows.position[row]);
        self.origin_bytes.append_value(rows.origin_bytes[row]);
        self.notes.append_value(rows.notes[row]);
        self.raw.append_option(is_raw.then(|| rows.row(row)));
    }

    fn finish(mut self, schema: SchemaRef) -> anyhow::Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish()),
            self.tenant.finish(),
            Arc::new(self.metric.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.unit.finish()),
            Arc::new(self.labels.finish()),
            Arc::new(self.series.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.weight.finish()),
            Arc::new(self.stream.finish()),
            Arc::new(self.position.finish()),
            Arc::new(self.origin_bytes.finish()),
            Arc::new(self.notes.finish()),
            Arc::new(self.raw.finish()),
        ];
        RecordBatch::try_new(schema, columns).context("the columns of samples do not fit together")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a parser of JSON a series is read as with one, or not at all; and its pieces are the whole.
    #[test]
    fn the_short_way_to_a_series_says_the_same() {
        let labels: [&[(&str, &str)]; 6] =
            [&[], &[("a", "b")], &[("job", "x"), ("le", "+Inf")], &[("a", "q\"}]\\")], &[("path", "/{id}")], &[("ü", "é,\"labels\":")]];
        let (mut short, mut long) = (0, 0);
        for (labels, metric, unit) in labels.iter().flat_map(|l| [(l, "up", ""), (l, "size_bytes", "bytes"), (l, "a.b \"c", "s")]) {
            let mut part = Vec::new();
            sample::put_series(&mut part, metric, Type::Gauge, unit, labels.iter().copied());
            let part: Rc<str> = String::from_utf8(part).expect("text").into();
            let read = Key::read(&part).expect("a series");
            let Some(written) = Key::written(&part) else {
                long += 1;
                continue;
            };
            short += 1;
            assert_eq!((written.names(), written.kind), (read.names(), read.kind), "{part}");
            let [metric, unit, labels] = written.names();
            let mut again = Vec::new();
            put_part(&mut again, metric, written.kind, unit, labels);
            assert_eq!(String::from_utf8_lossy(&again), *part);
        }
        assert!(short >= 6 && long >= 6, "{short} {long}");
        for other in [
            "{\"metric\":\"a\",\"type\":\"gauge\",\"temporality\":\"delta\",\"labels\":{}",
            "{\"metric\":\"a\",\"type\":\"untyped\",\"labels\":{}",
            "{\"metric\":\"a\",\"type\":\"gauge\",\"unit\":\"\",\"labels\":{}",
            "{\"metric\":1,\"labels\":{}",
            "{",
        ] {
            assert!(Key::written(&other.into()).is_none(), "{other}");
        }
    }
}
