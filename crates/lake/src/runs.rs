//! The table `lineage`: which run read which input, as OpenLineage events, each one once.
//!
//! In: sightings of services from frames; out: Parquet rows, and the events again. What an event says is
//! `lineage`'s business; here its key keeps it from being written twice. Memory: the keys of all events, which
//! is services x hours, not records.

use crate::facts::dims_of;
use crate::lineage::{Event, Sighting};
use crate::table;
use anyhow::Context;
use arrow_array::builder::{StringBuilder, TimestampNanosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flow::units::UnixNanos;
use hub::disk::Disk;
use hub::frame::{Frame, Part};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Sightings by (service, model, minute): how many records.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<(String, String, i64), u64>);

impl Seen {
    pub(crate) fn add(&mut self, frame: &Frame, part: &Part) -> anyhow::Result<()> {
        for fact in &part.facts {
            if !frame.meters.get(fact.meter as usize).is_some_and(|meter| meter.lineage) {
                continue;
            }
            let dims = dims_of(frame, fact).with_context(|| format!("frame {} is damaged", frame.seq))?;
            let dim = |name: &str| dims.iter().find(|d| d.0 == name).map_or(String::new(), |d| String::from_utf8_lossy(&d.1).into_owned());
            let records = self.0.entry((dim("service"), dim("model"), fact.minute)).or_default();
            *records = records.saturating_add(fact.events);
        }
        Ok(())
    }

    pub(crate) fn sightings(self) -> Vec<Sighting> {
        let sighting = |((service, model, minute), records)| Sighting { service, model, minute, records };
        self.0.into_iter().map(sighting).collect()
    }
}

const TEXTS: [&str; 6] = ["key", "event_type", "run_id", "job_namespace", "job_name", "event"];

/// One Parquet file of these events, sorted by time and key.
pub(crate) fn write(events: &mut [Event]) -> anyhow::Result<Vec<u8>> {
    events.sort_by(|a, b| (a.event_time, &a.key).cmp(&(b.event_time, &b.key)));
    let mut writer = table::writer(schema(), table::properties()?.build())?;
    for chunk in events.chunks(table::BATCH_ROWS) {
        writer.write(&batch(chunk)?)?;
    }
    Ok(writer.into_inner()?)
}

/// The columns of the table.
pub(crate) fn schema() -> SchemaRef {
    let mut fields = vec![Field::new("event_time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false)];
    fields.extend(TEXTS.iter().map(|name| Field::new(*name, DataType::Utf8, false)));
    Arc::new(Schema::new(fields))
}

/// These events as a file has them.
pub(crate) fn batch(events: &[Event]) -> anyhow::Result<RecordBatch> {
    let mut time = TimestampNanosecondBuilder::new();
    let mut texts: Vec<StringBuilder> = TEXTS.iter().map(|_| StringBuilder::new()).collect();
    for event in events {
        time.append_value(event.event_time.0);
        let values = [&event.key, &event.event_type, &event.run_id, &event.job_namespace, &event.job_name, &event.json];
        texts.iter_mut().zip(values).for_each(|(builder, value)| builder.append_value(value));
    }
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(time.finish().with_timezone("UTC"))];
    arrays.extend(texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
    Ok(RecordBatch::try_new(schema(), arrays)?)
}

/// The events of one file, in file order.
pub(crate) fn read(disk: &Disk, path: &Path, out: &mut Vec<Event>) -> anyhow::Result<()> {
    let mut columns = TEXTS.to_vec();
    columns.push("event_time");
    for batch in table::read(disk, path, &columns, None)? {
        let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
        let time: &TimestampNanosecondArray = table::column(&batch, "event_time")?;
        let text = |name: &str| table::column::<StringArray>(&batch, name);
        let (key, event_type, run_id) = (text("key")?, text("event_type")?, text("run_id")?);
        let (job_namespace, job_name, json) = (text("job_namespace")?, text("job_name")?, text("event")?);
        for row in 0..batch.num_rows() {
            out.push(Event {
                key: key.value(row).to_owned(),
                event_time: UnixNanos(time.value(row)),
                event_type: event_type.value(row).to_owned(),
                run_id: run_id.value(row).to_owned(),
                job_namespace: job_namespace.value(row).to_owned(),
                job_name: job_name.value(row).to_owned(),
                json: json.value(row).to_owned(),
            });
        }
    }
    Ok(())
}

/// The keys alone.
pub(crate) fn read_keys(disk: &Disk, path: &Path, out: &mut impl Extend<String>) -> anyhow::Result<()> {
    for batch in table::read(disk, path, &["key"], None)? {
        let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
        let keys: &StringArray = table::column(&batch, "key")?;
        out.extend(keys.iter().flatten().map(str::to_owned));
    }
    Ok(())
}
