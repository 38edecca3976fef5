//! The table `usage`: what tenants consumed, fact by fact, as lanes saw it.
//!
//! In: the facts of frames; out: Parquet files, and the facts again, exactly. Nothing is added up or removed
//! here: parts come exactly once, and summing is rating's business. Quantities are DECIMAL(38, 0); a larger
//! one (i128 goes to 1.7 x 10^38) is split over rows with the same sum. Dimensions are a JSON object in the
//! order of the meter's `by`; a value that is no UTF-8 is written as `{"hex": "..."}`. Memory: the facts of
//! one seal, about 200 bytes each.

use crate::layout::hash_hex;
use crate::table;
use anyhow::{Context, anyhow, bail};
use arrow_array::builder::{Decimal128Builder, StringBuilder, TimestampMillisecondBuilder, TimestampNanosecondBuilder, UInt64Builder};
use arrow_array::{ArrayRef, Decimal128Array, RecordBatch, StringArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use flow::event::{StreamId, UsageFact};
use flow::units::UnixNanos;
use hub::disk::Disk;
use hub::frame::{Fact, Frame, Part};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

const QUANTITY_MAX: i128 = 10i128.pow(38) - 1;
const MILLIS_PER_MINUTE: i64 = 60_000;

/// The facts of one part that are items of a bill.
pub(crate) fn facts_of<'a>(frame: &'a Frame, part: &'a Part) -> impl Iterator<Item = anyhow::Result<UsageFact>> + 'a {
    let billed = |fact: &&Fact| frame.meters.get(fact.meter as usize).is_none_or(|meter| !meter.lineage);
    part.facts.iter().filter(billed).map(|fact| fact_of(frame, part, fact).with_context(|| format!("frame {} is damaged", frame.seq)))
}

fn fact_of(frame: &Frame, part: &Part, fact: &Fact) -> anyhow::Result<UsageFact> {
    let meter = frame.meters.get(fact.meter as usize).ok_or_else(|| anyhow!("a fact names a meter that is not there"))?;
    let tenant = frame.tenants.get(fact.tenant as usize).ok_or_else(|| anyhow!("a fact names a tenant that is not there"))?;
    Ok(UsageFact {
        tenant: tenant.to_vec(),
        meter: meter.name.clone(),
        unit: meter.unit.clone(),
        dims: dims_of(frame, fact)?,
        minute: fact.minute,
        quantity: fact.quantity,
        events: fact.events,
        stream: part.stream,
        from: part.from,
        to: part.to,
        received: frame.received,
        event: None,
    })
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
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    let schema = Arc::new(Schema::new(vec![
        table::tenant_field(facts.first().map_or(&[], |f| &f.tenant)),
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
        Field::new("received", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        text("id", false),
    ]));
    let mut writer = table::writer(Arc::clone(&schema), table::properties()?.build())?;
    for chunk in facts.chunks(table::BATCH_ROWS) {
        let mut columns = Columns { tenant: table::Tenants::new(&chunk[0].tenant), ..Columns::default() };
        chunk.iter().try_for_each(|fact| columns.push(fact))?;
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns.finish()?)?)?;
    }
    Ok(writer.into_inner()?)
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

type Key<'a> = (&'a str, i64, &'a [(String, Vec<u8>)], StreamId, u64, u64, i128);

fn key(fact: &UsageFact) -> Key<'_> {
    (&fact.meter, fact.minute, &fact.dims, fact.stream, fact.from, fact.to, fact.quantity)
}

/// The fact's name for ever: two facts with the same one are the same fact.
fn id_of(fact: &UsageFact, dims: &str) -> String {
    let numbers = format!("\0{}\0{}\0{}\0{}\0{}", fact.minute, fact.stream.0, fact.from, fact.to, fact.quantity);
    hash_hex(16, &[&fact.tenant, b"\0", fact.meter.as_bytes(), b"\0", dims.as_bytes(), numbers.as_bytes()])
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
    received: TimestampNanosecondBuilder,
    id: StringBuilder,
}

impl Columns {
    fn push(&mut self, fact: &UsageFact) -> anyhow::Result<()> {
        let dims = encode_dims(&fact.dims);
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
        self.received.append_value(fact.received.0);
        self.id.append_value(id_of(fact, &dims));
        self.dims.append_value(dims);
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
        ])
    }
}

/// The facts of one file, in file order.
pub(crate) fn read(disk: &Disk, path: &Path, out: &mut Vec<UsageFact>) -> anyhow::Result<()> {
    let columns = ["tenant", "meter", "unit", "minute", "dims", "quantity", "events", "stream", "from", "to", "received"];
    for batch in table::read(disk, path, &columns, None)? {
        let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
        let text = |name: &str| table::column::<StringArray>(&batch, name);
        let number = |name: &str| table::column::<UInt64Array>(&batch, name);
        let (meter, unit, dims) = (text("meter")?, text("unit")?, text("dims")?);
        let (events, stream, from, to) = (number("events")?, number("stream")?, number("from")?, number("to")?);
        let minute: &TimestampMillisecondArray = table::column(&batch, "minute")?;
        let quantity: &Decimal128Array = table::column(&batch, "quantity")?;
        let received: &TimestampNanosecondArray = table::column(&batch, "received")?;
        for row in 0..batch.num_rows() {
            out.push(UsageFact {
                tenant: table::tenant(&batch, row)?.to_vec(),
                meter: meter.value(row).to_owned(),
                unit: unit.value(row).to_owned(),
                dims: decode_dims(dims.value(row)).with_context(|| format!("{} is damaged", path.display()))?,
                minute: minute.value(row).div_euclid(MILLIS_PER_MINUTE),
                quantity: quantity.value(row),
                events: events.value(row),
                stream: StreamId(stream.value(row)),
                from: from.value(row),
                to: to.value(row),
                received: UnixNanos(received.value(row)),
                event: None,
            });
        }
    }
    Ok(())
}

fn encode_dims(dims: &[(String, Vec<u8>)]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::from("{");
    for (i, (name, value)) in dims.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let value = match std::str::from_utf8(value) {
            Ok(text) => quote(text),
            Err(_) => format!("{{\"hex\":\"{}\"}}", value.iter().fold(String::new(), |out, byte| format!("{out}{byte:02x}"))),
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
