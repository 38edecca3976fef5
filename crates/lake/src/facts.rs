//! The table `usage`: what tenants consumed, fact by fact, as lanes saw it.
//!
//! In: the facts of frames; out: Parquet files, and the facts again, exactly. Nothing is added up or removed
//! here: parts come exactly once, and summing is rating's business. Quantities are DECIMAL(38, 0); a larger
//! one (i128 goes to 1.7 x 10^38) is split over rows with the same sum. Dimensions are a JSON object in the
//! order of the meter's `by`; a value that is no UTF-8 is written as `{"hex": "..."}`, and so is a key. What is one event has
//! `kind`, `at`, `end`, `key` and `position`, which are null for sums; files of older releases lack them.
//!
//! Reading hands out one fact after the other, borrowed from its batch (`Reader`). Names and dimensions come as dictionaries and are
//! understood once. Memory: writing, the facts of one seal, about 200 bytes each; reading, one batch, and every name and set of
//! dimensions that occurs, once.

use crate::layout::{hash_hex, unescape_tenant};
use crate::table;
use anyhow::{Context, anyhow, bail};
use arrow_array::builder::{Decimal128Builder, StringBuilder, TimestampMicrosecondBuilder, TimestampMillisecondBuilder, UInt64Builder};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, Decimal128Array, DictionaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flow::event::{EventKind, StreamId, UsageEvent, UsageFact};
use flow::step::usage::NAMED;
use flow::units::{NANOS_PER_MINUTE, UnixNanos};
use hub::disk::Disk;
use hub::frame::{Fact, FactEvent, Frame, Part};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

const QUANTITY_MAX: i128 = 10i128.pow(38) - 1;
const MILLIS_PER_MINUTE: i64 = 60_000;
const NANOS_PER_MICRO: i64 = 1_000;

/// (name, value) in the order of the meter's `by`.
type Dims = Vec<(String, Vec<u8>)>;

/// The facts of one part that are items of a bill.
pub(crate) fn facts_of<'a>(frame: &'a Frame, part: &'a Part) -> impl Iterator<Item = anyhow::Result<UsageFact>> + 'a {
    let billed = |fact: &&Fact| frame.meters.get(fact.meter as usize).is_none_or(|meter| !meter.lineage);
    part.facts.iter().filter(billed).map(|fact| fact_of(frame, part, fact).with_context(|| format!("frame {} is damaged", frame.seq)))
}

fn fact_of(frame: &Frame, part: &Part, fact: &Fact) -> anyhow::Result<UsageFact> {
    let meter = frame.meters.get(fact.meter as usize).ok_or_else(|| anyhow!("a fact names a meter that is not there"))?;
    let tenant = frame.tenants.get(fact.tenant as usize).ok_or_else(|| anyhow!("a fact names a tenant that is not there"))?;
    // An event is of one record, whatever else was in its part; a refused one may stand for others that came later.
    let own = fact.event.as_ref().filter(|_| fact.events <= 1).map(|event| (event.position.saturating_sub(1), event.position));
    let (from, to) = own.unwrap_or((part.from, part.to));
    let mut dims = dims_of(frame, fact)?;
    let (mut name, mut unit) = (meter.name.clone(), meter.unit.clone());
    if NAMED.contains(&name.as_str()) && dims.len() >= 2 {
        // A usage event names its meter and unit itself.
        let mut own = dims.drain(..2).map(|(_, value)| String::from_utf8_lossy(&value).into_owned());
        name = own.next().unwrap_or_default();
        unit = own.next().unwrap_or_default();
    }
    Ok(UsageFact {
        tenant: tenant.to_vec(),
        meter: name,
        unit,
        dims,
        minute: fact.minute,
        quantity: fact.quantity,
        events: fact.events,
        stream: part.stream,
        from,
        to,
        received: whole(frame.received),
        event: fact.event.as_deref().map(|event| Box::new(event_of(event))),
    })
}

fn event_of(event: &FactEvent) -> UsageEvent {
    UsageEvent { kind: event.kind, at: whole(event.at), end: whole(event.end), key: event.key.to_vec(), position: event.position }
}

/// Times are whole microseconds, in the tail too: finer ones cannot be read by Spark, and a copy must say what the first one said.
fn whole(time: UnixNanos) -> UnixNanos {
    UnixNanos(time.0 - time.0.rem_euclid(NANOS_PER_MICRO))
}

fn micros(time: UnixNanos) -> i64 {
    time.0.div_euclid(NANOS_PER_MICRO)
}

fn of_micros(micros: i64) -> UnixNanos {
    UnixNanos(micros.saturating_mul(NANOS_PER_MICRO))
}

/// Names and values of a fact's dimensions.
pub(crate) fn dims_of(frame: &Frame, fact: &Fact) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let meter = frame.meters.get(fact.meter as usize).ok_or_else(|| anyhow!("a fact names a meter that is not there"))?;
    let value =
        |at: &u32| frame.values.get(*at as usize).map(|v| v.to_vec()).ok_or_else(|| anyhow!("a fact names a value that is not there"));
    meter.dims.iter().zip(&fact.dims).map(|(name, at)| Ok((name.clone(), value(at)?))).collect()
}

/// One Parquet file of these facts, all of one tenant; sorts them.
pub(crate) fn write(facts: &mut Vec<UsageFact>) -> anyhow::Result<Vec<u8>> {
    split_large(facts);
    facts.sort_by(|a, b| key(a).cmp(&key(b)));
    let schema = schema(table::tenant_field(facts.first().map_or(&[], |f| &f.tenant)));
    let mut writer = table::writer(Arc::clone(&schema), table::properties()?.build())?;
    for chunk in facts.chunks(table::BATCH_ROWS) {
        let mut columns = Columns { tenant: table::Tenants::new(&chunk[0].tenant), ..Columns::default() };
        chunk.iter().try_for_each(|fact| columns.push(fact))?;
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns.finish()?)?)?;
    }
    Ok(writer.into_inner()?)
}

/// The columns of the table, with this one for the tenant.
pub(crate) fn schema(tenant: Field) -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    Arc::new(Schema::new(vec![
        tenant,
        text("meter", false),
        text("unit", false),
        Field::new("minute", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        text("service", true),
        text("model", true),
        text("dims", false),
        Field::new("quantity", DataType::Decimal128(38, 0), false),
        number("events"),
        number("stream"),
        number("from"),
        number("to"),
        Field::new("received", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        text("id", false),
        text("kind", true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("end", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        text("key", true),
        Field::new("position", DataType::UInt64, true),
    ]))
}

/// These facts as a file has them, but for the tenant, which is text in any case: see [`encode_key`].
pub(crate) fn batch(mut facts: Vec<UsageFact>) -> anyhow::Result<RecordBatch> {
    split_large(&mut facts);
    let mut columns = Columns::default();
    facts.iter().try_for_each(|fact| columns.push(fact))?;
    let mut arrays = columns.finish()?;
    arrays[0] = Arc::new(facts.iter().map(|fact| Some(encode_key(&fact.tenant))).collect::<StringArray>());
    Ok(RecordBatch::try_new(schema(Field::new("tenant", DataType::Utf8, false)), arrays)?)
}

fn split_large(facts: &mut Vec<UsageFact>) {
    for i in 0..facts.len() {
        let over = facts[i].quantity - facts[i].quantity.clamp(-QUANTITY_MAX, QUANTITY_MAX);
        if over != 0 {
            facts[i].quantity -= over;
            let rest = UsageFact { quantity: over, events: 0, ..facts[i].clone() };
            facts.push(rest);
        }
    }
}

type Key<'a> = (Place<'a>, &'a [(String, Vec<u8>)], StreamId, u64, u64, i128, Option<&'a UsageEvent>);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Sum {
        meter: &'a str,
        minute: i64,
    },
    /// What one record tells stands together: it has one key, which is then stored, and taken in, once.
    Event {
        minute: i64,
        stream: StreamId,
        position: u64,
        meter: &'a str,
    },
}

/// The order of rows in a file.
fn key(fact: &UsageFact) -> Key<'_> {
    let (meter, minute, stream) = (fact.meter.as_str(), fact.minute, fact.stream);
    let place = match &fact.event {
        None => Place::Sum { meter, minute },
        Some(event) => Place::Event { minute, stream, position: event.position, meter },
    };
    (place, &fact.dims, stream, fact.from, fact.to, fact.quantity, fact.event.as_deref())
}

/// The fact's name for ever: two facts with the same one are the same fact.
fn id_of(fact: &UsageFact, dims: &str) -> String {
    let numbers = format!("\0{}\0{}\0{}\0{}\0{}", fact.minute, fact.stream.0, fact.from, fact.to, fact.quantity);
    let event = fact.event.as_ref();
    let times = event.map_or(String::new(), |e| format!("\0{}\0{}\0{}\0{}\0", e.kind as u8, e.at.0, e.end.0, e.position));
    let key = event.map_or(&[][..], |event| &event.key);
    let all: [&[u8]; 8] = [&fact.tenant, b"\0", fact.meter.as_bytes(), b"\0", dims.as_bytes(), numbers.as_bytes(), times.as_bytes(), key];
    hash_hex(16, &all)
}

#[derive(Default)]
struct Columns {
    tenant: table::Tenants,
    meter: StringBuilder,
    unit: StringBuilder,
    minute: TimestampMillisecondBuilder,
    service: StringBuilder,
    model: StringBuilder,
    dims: StringBuilder,
    quantity: Decimal128Builder,
    events: UInt64Builder,
    stream: UInt64Builder,
    from: UInt64Builder,
    to: UInt64Builder,
    received: TimestampMicrosecondBuilder,
    id: StringBuilder,
    kind: StringBuilder,
    at: TimestampMicrosecondBuilder,
    end: TimestampMicrosecondBuilder,
    key: StringBuilder,
    position: UInt64Builder,
    /// The dimensions of the row before, which are mostly those of the next one.
    last: Option<(Dims, String)>,
}

impl Columns {
    fn push(&mut self, fact: &UsageFact) -> anyhow::Result<()> {
        let dims = match self.last.take() {
            Some((dims, text)) if dims == fact.dims => (dims, text),
            _ => (fact.dims.clone(), encode_dims(&fact.dims)),
        };
        let event = fact.event.as_deref();
        let dim = |name: &str| fact.dims.iter().find(|d| d.0 == name).map(|d| String::from_utf8_lossy(&d.1));
        self.tenant.push(&fact.tenant);
        self.meter.append_value(&fact.meter);
        self.unit.append_value(&fact.unit);
        self.minute.append_value(fact.minute.checked_mul(MILLIS_PER_MINUTE).context("a fact's minute is beyond the calendar")?);
        self.service.append_option(dim("service"));
        self.model.append_option(dim("model"));
        self.quantity.append_value(fact.quantity);
        self.events.append_value(fact.events);
        self.stream.append_value(fact.stream.0);
        self.from.append_value(fact.from);
        self.to.append_value(fact.to);
        self.received.append_value(micros(fact.received));
        self.id.append_value(id_of(fact, &dims.1));
        self.dims.append_value(&dims.1);
        self.last = Some(dims);
        self.kind.append_option(event.map(|event| event.kind.name()));
        self.at.append_option(event.map(|event| micros(event.at)));
        self.end.append_option(event.map(|event| micros(event.end)));
        self.key.append_option(event.map(|event| encode_key(&event.key)));
        self.position.append_option(event.map(|event| event.position));
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<Vec<ArrayRef>> {
        Ok(vec![
            self.tenant.finish(),
            Arc::new(self.meter.finish()),
            Arc::new(self.unit.finish()),
            Arc::new(self.minute.finish().with_timezone("UTC")),
            Arc::new(self.service.finish()),
            Arc::new(self.model.finish()),
            Arc::new(self.dims.finish()),
            Arc::new(self.quantity.finish().with_precision_and_scale(38, 0)?),
            Arc::new(self.events.finish()),
            Arc::new(self.stream.finish()),
            Arc::new(self.from.finish()),
            Arc::new(self.to.finish()),
            Arc::new(self.received.finish().with_timezone("UTC")),
            Arc::new(self.id.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.at.finish().with_timezone("UTC")),
            Arc::new(self.end.finish().with_timezone("UTC")),
            Arc::new(self.key.finish()),
            Arc::new(self.position.finish()),
        ])
    }
}

/// One fact, borrowed for as long as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct FactView<'a> {
    pub tenant: &'a [u8],
    pub meter: &'a str,
    pub unit: &'a str,
    pub dims: &'a [(String, Vec<u8>)],
    /// A number from 0 on, in order of first sight: equal exactly where tenant, meter, unit and dimensions are, within one call.
    pub series: u32,
    pub minute: i64,
    pub quantity: i128,
    pub events: u64,
    pub stream: StreamId,
    pub from: u64,
    pub to: u64,
    pub received: UnixNanos,
    pub event: Option<EventView<'a>>,
}

/// What is known of a fact that is one event: see [`UsageEvent`].
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    pub kind: EventKind,
    pub at: UnixNanos,
    pub end: UnixNanos,
    pub key: &'a [u8],
    pub position: u64,
}

impl FactView<'_> {
    pub fn to_fact(&self) -> UsageFact {
        UsageFact {
            tenant: self.tenant.to_vec(),
            meter: self.meter.to_owned(),
            unit: self.unit.to_owned(),
            dims: self.dims.to_vec(),
            minute: self.minute,
            quantity: self.quantity,
            events: self.events,
            stream: self.stream,
            from: self.from,
            to: self.to,
            received: self.received,
            event: self.event.map(|event| {
                let EventView { kind, at, end, key, position } = event;
                Box::new(UsageEvent { kind, at, end, key: key.to_vec(), position })
            }),
        }
    }

    /// Whether any of it lies in `[from, to)`. A sum is of its whole minute.
    fn is_within(&self, (from, to): (UnixNanos, UnixNanos)) -> bool {
        let start = self.minute.saturating_mul(NANOS_PER_MINUTE);
        let (at, end) = self.event.map_or((start, start.saturating_add(NANOS_PER_MINUTE)), |event| (event.at.0, event.end.0));
        at < to.0 && (end > from.0 || at >= from.0)
    }
}

/// Numbers texts in order of first sight.
#[derive(Default)]
struct Names<T> {
    numbers: HashMap<String, u32>,
    list: Vec<T>,
}

impl<T> Names<T> {
    fn number(&mut self, text: &str, make: impl FnOnce(&str) -> anyhow::Result<T>) -> anyhow::Result<u32> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        let number = u32::try_from(self.list.len()).context("more names than can be numbered")?;
        self.list.push(make(text)?);
        self.numbers.insert(text.to_owned(), number);
        Ok(number)
    }
}

/// Shows facts one after the other, and remembers what they have in common.
#[derive(Default)]
pub(crate) struct Reader {
    /// Only what lies in here.
    range: Option<(UnixNanos, UnixNanos)>,
    names: Names<String>,
    dims: Names<Dims>,
    tenants: HashMap<Vec<u8>, u32>,
    series: HashMap<Series, u32>,
    last: Option<(Series, u32)>,
    key: Vec<u8>,
}

/// Numbers of tenant, meter, unit, dimensions.
type Series = [u32; 4];

impl Reader {
    pub(crate) fn new(range: Option<(UnixNanos, UnixNanos)>) -> Reader {
        Reader { range, ..Reader::default() }
    }

    fn tenant(&mut self, tenant: &[u8]) -> u32 {
        let next = self.tenants.len() as u32;
        match self.tenants.get(tenant) {
            Some(number) => *number,
            None => *self.tenants.entry(tenant.to_vec()).or_insert(next),
        }
    }

    #[inline]
    fn series(&mut self, of: Series) -> u32 {
        match self.last {
            Some((last, number)) if last == of => number,
            _ => {
                let next = self.series.len() as u32;
                let number = *self.series.entry(of).or_insert(next);
                self.last = Some((of, number));
                number
            }
        }
    }

    /// A fact that no file has yet.
    pub(crate) fn show(&mut self, fact: &UsageFact, each: &mut dyn FnMut(&FactView<'_>)) -> anyhow::Result<()> {
        let name = |text: &str| Ok(text.to_owned());
        let (meter, unit) = (self.names.number(&fact.meter, name)?, self.names.number(&fact.unit, name)?);
        let dims = self.dims.number(&encode_dims(&fact.dims), |_| Ok(fact.dims.clone()))?;
        let series = [self.tenant(&fact.tenant), meter, unit, dims];
        let view = FactView {
            tenant: &fact.tenant,
            meter: &fact.meter,
            unit: &fact.unit,
            dims: &fact.dims,
            series: self.series(series),
            minute: fact.minute,
            quantity: fact.quantity,
            events: fact.events,
            stream: fact.stream,
            from: fact.from,
            to: fact.to,
            received: fact.received,
            event: fact.event.as_deref().map(|event| {
                let UsageEvent { kind, at, end, key, position } = event;
                EventView { kind: *kind, at: *at, end: *end, key, position: *position }
            }),
        };
        if self.range.is_none_or(|range| view.is_within(range)) {
            each(&view);
        }
        Ok(())
    }

    /// The facts of one file, in file order. `tenant`: as its commit writes it; a file has one.
    pub(crate) fn read(&mut self, disk: &Disk, path: &Path, tenant: &str, each: &mut dyn FnMut(&FactView<'_>)) -> anyhow::Result<()> {
        let tenant = unescape_tenant(tenant).with_context(|| format!("{tenant:?} is no tenant of a commit"))?;
        let number = self.tenant(&tenant);
        let texts = ["meter", "unit", "dims", "kind"];
        let others = ["minute", "quantity", "events", "stream", "from", "to", "received", "at", "end", "key", "position"];
        let columns = [&texts[..], &others[..]].concat();
        for batch in table::read_dictionaries(disk, path, &columns, &texts)? {
            let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
            self.read_batch(&batch, (&tenant, number), each).with_context(|| format!("{} is damaged", path.display()))?;
        }
        Ok(())
    }

    fn read_batch(&mut self, batch: &RecordBatch, tenant: (&[u8], u32), each: &mut dyn FnMut(&FactView<'_>)) -> anyhow::Result<()> {
        let text = |name: &str| Texts::of(batch, name);
        let number = |name: &str| table::column::<UInt64Array>(batch, name);
        let (mut meter, mut unit, mut dims) = (text("meter")?, text("unit")?, text("dims")?);
        let (events, stream, from, to) = (number("events")?, number("stream")?, number("from")?, number("to")?);
        let minute: &TimestampMillisecondArray = table::column(batch, "minute")?;
        let quantity: &Decimal128Array = table::column(batch, "quantity")?;
        let received: &TimestampMicrosecondArray = table::column(batch, "received")?;
        let event = EventColumns::of(batch)?;
        let name = |text: &str| Ok(text.to_owned());
        for row in 0..batch.num_rows() {
            let of = [
                tenant.1,
                meter.number(row, &mut self.names, name)?,
                unit.number(row, &mut self.names, name)?,
                dims.number(row, &mut self.dims, decode_dims)?,
            ];
            let series = self.series(of);
            let event = match &event {
                Some(columns) => columns.get(row, &mut self.key)?,
                None => None,
            };
            let view = FactView {
                tenant: tenant.0,
                meter: &self.names.list[of[1] as usize],
                unit: &self.names.list[of[2] as usize],
                dims: &self.dims.list[of[3] as usize],
                series,
                minute: minute.value(row).div_euclid(MILLIS_PER_MINUTE),
                quantity: quantity.value(row),
                events: events.value(row),
                stream: StreamId(stream.value(row)),
                from: from.value(row),
                to: to.value(row),
                received: of_micros(received.value(row)),
                event,
            };
            if self.range.is_none_or(|range| view.is_within(range)) {
                each(&view);
            }
        }
        Ok(())
    }
}

/// A column of few different texts: each is looked up once per batch.
struct Texts<'a> {
    keys: &'a [i32],
    values: &'a StringArray,
    numbers: Vec<u32>,
}

impl<'a> Texts<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> anyhow::Result<Texts<'a>> {
        let array: &DictionaryArray<Int32Type> = table::column(batch, name)?;
        let values = array.values().as_any().downcast_ref::<StringArray>().with_context(|| format!("column {name:?} is no text"))?;
        Ok(Texts { keys: array.keys().values(), values, numbers: vec![u32::MAX; values.len()] })
    }

    #[inline]
    fn number<T>(&mut self, row: usize, names: &mut Names<T>, make: impl FnOnce(&str) -> anyhow::Result<T>) -> anyhow::Result<u32> {
        let at = usize::try_from(self.keys[row]).context("a text is missing")?;
        let slot = self.numbers.get_mut(at).context("a text is missing")?;
        if *slot == u32::MAX {
            *slot = names.number(self.values.value(at), make)?;
        }
        Ok(*slot)
    }
}

/// The columns of what is one event; a file of an older release has none.
struct EventColumns<'a> {
    kinds: &'a DictionaryArray<Int32Type>,
    /// By number in the dictionary.
    kind: Vec<Option<EventKind>>,
    at: &'a TimestampMicrosecondArray,
    end: &'a TimestampMicrosecondArray,
    key: &'a StringArray,
    position: &'a UInt64Array,
}

impl<'a> EventColumns<'a> {
    fn of(batch: &'a RecordBatch) -> anyhow::Result<Option<EventColumns<'a>>> {
        if batch.column_by_name("kind").is_none() {
            return Ok(None);
        }
        let kinds: &DictionaryArray<Int32Type> = table::column(batch, "kind")?;
        let names = kinds.values().as_any().downcast_ref::<StringArray>().context("column \"kind\" is no text")?;
        let kind = (0..names.len()).map(|n| EventKind::from_name(names.value(n))).collect();
        let (at, end) = (table::column(batch, "at")?, table::column(batch, "end")?);
        Ok(Some(EventColumns { kinds, kind, at, end, key: table::column(batch, "key")?, position: table::column(batch, "position")? }))
    }

    #[inline]
    fn get<'b>(&'b self, row: usize, scratch: &'b mut Vec<u8>) -> anyhow::Result<Option<EventView<'b>>> {
        if self.kinds.is_null(row) {
            return Ok(None);
        }
        let kind = usize::try_from(self.kinds.keys().value(row)).ok().and_then(|at| *self.kind.get(at)?);
        let kind = kind.context("an event is of a kind that this release does not know")?;
        Ok(Some(EventView {
            kind,
            at: of_micros(self.at.value(row)),
            end: of_micros(self.end.value(row)),
            key: decode_key(self.key.value(row), scratch)?,
            position: self.position.value(row),
        }))
    }
}

const HEX: &str = "{\"hex\":\"";

fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from(HEX), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a string cannot fail");
        out
    }) + "\"}"
}

/// A key as text; one that is none, or looks like the form for that, in hexadecimal.
pub(crate) fn encode_key(key: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(text) if !text.starts_with(HEX) => text.into(),
        _ => hex_text(key).into(),
    }
}

fn decode_key<'a>(text: &'a str, scratch: &'a mut Vec<u8>) -> anyhow::Result<&'a [u8]> {
    let Some(hex) = text.strip_prefix(HEX) else { return Ok(text.as_bytes()) };
    let hex = hex.strip_suffix("\"}").with_context(|| format!("{text:?} is no key"))?;
    *scratch = Value::Hex(hex.to_owned()).bytes()?;
    Ok(scratch)
}

pub(crate) fn encode_dims(dims: &[(String, Vec<u8>)]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::from("{");
    for (i, (name, value)) in dims.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let value = match std::str::from_utf8(value) {
            Ok(text) => quote(text),
            Err(_) => hex_text(value),
        };
        write!(out, "{comma}{}:{value}", quote(name)).expect("writing to a string cannot fail");
    }
    out.push('}');
    out
}

fn decode_dims(text: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let pairs: Pairs = serde_json::from_str(text).context("dims is no object of texts")?;
    pairs.0.into_iter().map(|(name, value)| Ok((name, value.bytes()?))).collect()
}

/// A JSON object whose order and repetitions count.
struct Pairs(Vec<(String, Value)>);

enum Value {
    Text(String),
    Hex(String),
}

impl Value {
    fn bytes(self) -> anyhow::Result<Vec<u8>> {
        match self {
            Value::Text(text) => Ok(text.into_bytes()),
            Value::Hex(hex) if hex.len() % 2 == 0 && hex.is_ascii() => {
                (0..hex.len()).step_by(2).map(|i| Ok(u8::from_str_radix(&hex[i..i + 2], 16)?)).collect()
            }
            Value::Hex(hex) => bail!("{hex:?} is not hexadecimal"),
        }
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(PairsVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or { hex: ... }")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match map.next_entry::<String, String>()? {
            Some((key, hex)) if key == "hex" => Ok(Value::Hex(hex)),
            _ => Err(serde::de::Error::custom("a value is a text or { hex: ... }")),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_come_back_in_order_and_byte_for_byte() {
        let dims: Vec<(String, Vec<u8>)> = vec![
            ("service".into(), b"z \"q\"\n".to_vec()),
            ("a".into(), b"\xff\x00".to_vec()),
            ("model".into(), vec![]),
            ("a".into(), "ü".into()),
        ];
        assert_eq!(encode_dims(&dims), r#"{"service":"z \"q\"\n","a":{"hex":"ff00"},"model":"","a":"ü"}"#);
        assert_eq!(decode_dims(&encode_dims(&dims)).unwrap(), dims);
        assert_eq!(decode_dims("{}").unwrap(), []);
        assert!(decode_dims(r#"{"a":{"hex":"f"}}"#).is_err());
        assert!(decode_dims(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn a_key_comes_back_byte_for_byte() {
        for (key, text) in [
            (&b"req-1\x1f7"[..], "req-1\u{1f}7"),
            (b"", ""),
            (b"\xff\x00", "{\"hex\":\"ff00\"}"),
            (b"{\"hex\":\"00\"}", "{\"hex\":\"7b22686578223a223030227d\"}"),
            ("ü".as_bytes(), "ü"),
        ] {
            assert_eq!(encode_key(key), text);
            assert_eq!(decode_key(text, &mut Vec::new()).unwrap(), key);
        }
        assert!(decode_key("{\"hex\":\"ff", &mut Vec::new()).is_err());
        assert!(decode_key("{\"hex\":\"f\"}", &mut Vec::new()).is_err());
    }

    #[test]
    fn a_quantity_beyond_38_digits_is_split_and_keeps_its_sum() {
        for quantity in [i128::MAX, i128::MIN + 1, QUANTITY_MAX, 0, -5] {
            let mut facts = vec![UsageFact {
                tenant: vec![],
                meter: String::new(),
                unit: String::new(),
                dims: vec![],
                minute: 0,
                quantity,
                events: 3,
                stream: StreamId(0),
                from: 0,
                to: 1,
                received: UnixNanos(0),
                event: None,
            }];
            split_large(&mut facts);
            assert_eq!(facts.iter().map(|f| f.quantity).sum::<i128>(), quantity);
            assert_eq!(facts.iter().map(|f| f.events).sum::<u64>(), 3);
            assert!(facts.iter().all(|f| f.quantity.abs() <= QUANTITY_MAX));
        }
    }
}
