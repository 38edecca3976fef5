//! The table `charges`: rows of the bill that were published, and the log of what was published, closed and taken back.
//!
//! In: rows and the event that they belong to; out: Parquet files by tenant and day, and one commit with the event: a
//! program that publishes at the same time is told that it came second, so nothing is published twice. Facts are late when
//! they are committed after the event (rule R8). Columns are for readers; `row` holds the row itself, from which it comes
//! back exactly. Memory: the rows of one event.

use crate::commit::{ChargeEvent, Charged, Commit, FileEntry, Log, publish};
use crate::layout::{CHARGES, USAGE, day_and_hour, escape_tenant, folder};
use crate::snapshot::Snapshot;
use crate::store::NewFiles;
use crate::table;
use anyhow::{Context, anyhow};
use arrow_array::builder::{Decimal128Builder, StringBuilder, TimestampMillisecondBuilder, UInt32Builder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bill::stored::StoredRow;
use bill::{Book, Month, Row};
use flow::units::UnixNanos;
use hub::disk::Disk;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// All that was published.
pub struct Charges {
    pub book: Book,
    /// In the order of their commits.
    pub rows: Vec<Row>,
    pub events: Vec<Published>,
}

/// An event of the log, and where it stands.
#[derive(Clone, Debug)]
pub struct Published {
    /// Number of its commit.
    pub number: u64,
    pub event: ChargeEvent,
    /// Its rows in [`Charges::rows`].
    pub rows: Range<usize>,
    /// So many files of usage were committed before it; see [`Snapshot::each_fact_of_files`].
    pub usage_files: usize,
}

impl Charges {
    /// Number of the commit of the last event; 0 where there is none.
    pub fn number(&self) -> u64 {
        self.events.last().map_or(0, |event| event.number)
    }
}

impl Snapshot {
    /// What was published up to this snapshot.
    pub fn charges(&self) -> anyhow::Result<Charges> {
        let files = self.log.table(CHARGES);
        let mut charges = Charges { book: Book::default(), rows: Vec::new(), events: Vec::new() };
        let mut begun = 0;
        for Charged { number, event, charges: files_end, usage } in &self.log.charges {
            let first = charges.rows.len();
            for file in &files[begun..*files_end] {
                read(&self.disk, &self.root.join(&file.path), &mut charges.rows)?;
            }
            begun = *files_end;
            let damaged = || format!("commit {number} of the lake is damaged");
            charges.book.add(&charges.rows[first..]).with_context(damaged)?;
            if let Some(until) = event.published_until_ns {
                charges.book.publish(UnixNanos(until));
            }
            for month in &event.closed {
                charges.book.close(Month::parse(month).with_context(damaged)?);
            }
            let rows = first..charges.rows.len();
            charges.events.push(Published { number: *number, event: event.clone(), rows, usage_files: *usage });
        }
        Ok(charges)
    }
}

/// What a file of usage is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageFile {
    /// Oldest and newest time in it; of an interval its end, of a sum the start of its minute.
    pub min_time: UnixNanos,
    pub max_time: UnixNanos,
    /// It was committed after charges were last published.
    pub is_new: bool,
}

impl Snapshot {
    pub fn usage_files(&self) -> impl Iterator<Item = UsageFile> + '_ {
        let published = self.log.charges.iter().rev().find(|charged| charged.event.published_until_ns.is_some());
        let known = published.map_or(0, |charged| charged.usage);
        let files = self.log.table(USAGE).iter().enumerate();
        files.map(move |(at, file)| UsageFile {
            min_time: UnixNanos(file.min_time),
            max_time: UnixNanos(file.max_time),
            is_new: at >= known,
        })
    }
}

/// Commits rows and their event. `seen`: [`Charges::number`] of what they were made from. `None`: another program has published
/// since, and nothing is left of this try.
pub fn append_charges(disk: &Disk, root: &Path, seen: u64, event: &ChargeEvent, rows: &[Row]) -> anyhow::Result<Option<u64>> {
    let mut files = NewFiles::new(disk, root);
    let tables = match write_files(&mut files, rows).and_then(|tables| files.sync_folders().map(|()| tables)) {
        Ok(tables) => tables,
        Err(error) => {
            files.discard(); // the disk may be full: give back what is of no use
            return Err(error);
        }
    };
    loop {
        let log = Log::read(disk, root)?;
        if log.charges.last().map_or(0, |last| last.number) != seen {
            files.discard();
            return Ok(None);
        }
        let mut commit = Commit::new(log.number + 1, [0, 0], log.fields.unwrap_or_default());
        if !tables.is_empty() {
            commit.tables.insert(CHARGES.to_owned(), tables.clone());
        }
        commit.charges = Some(event.clone());
        if publish(disk, root, &commit)? {
            return Ok(Some(commit.number));
        }
    }
}

fn write_files(files: &mut NewFiles<'_>, rows: &[Row]) -> anyhow::Result<Vec<FileEntry>> {
    let mut groups: BTreeMap<(&[u8], i64), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let day = day_and_hour(row.charge.hour.0).0;
        groups.entry((&row.charge.series.tenant, day)).or_default().push(row);
    }
    let mut entries = Vec::new();
    for ((tenant, day), rows) in groups {
        let bytes = write(tenant, &rows)?;
        let path = files.add(&folder(CHARGES, tenant, day, None), "parquet", &bytes, None)?;
        entries.push(FileEntry {
            path,
            tenant: escape_tenant(tenant),
            rows: rows.len() as u64,
            raw_bytes: 0,
            origin_bytes: 0,
            stored_bytes: bytes.len() as u64,
            min_time: rows.iter().map(|row| row.charge.hour.0).min().unwrap_or(0),
            max_time: rows.iter().map(|row| row.charge.end.0).max().unwrap_or(0),
            index: None,
            index_bytes: 0,
            committed_ns: 0,
        });
    }
    Ok(entries)
}

/// One Parquet file of these rows, all of one tenant, in their order.
fn write(tenant: &[u8], rows: &[&Row]) -> anyhow::Result<Vec<u8>> {
    let schema = schema(table::tenant_field(tenant));
    let mut writer = table::writer(Arc::clone(&schema), table::properties()?.build())?;
    for chunk in rows.chunks(table::BATCH_ROWS) {
        let columns = columns(tenant, chunk)?;
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    Ok(writer.into_inner()?)
}

/// The columns of the table, with this one for the tenant.
pub(crate) fn schema(tenant: Field) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let maybe = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str, nullable| Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), nullable);
    let whole = |name: &str| Field::new(name, DataType::Decimal128(38, 0), false);
    let money = |name: &str| Field::new(name, DataType::Decimal128(38, 12), false);
    Arc::new(Schema::new(vec![
        tenant,
        text("id"),
        time("charge_period_start", false),
        time("charge_period_end", false),
        text("billing_period"),
        Field::new("revision", DataType::UInt32, false),
        maybe("charge_class"),
        text("category"),
        text("attribution"),
        text("meter"),
        maybe("service"),
        maybe("model"),
        text("dims"),
        text("sku"),
        text("sku_price_id"),
        whole("quantity"),
        whole("billable"),
        text("meter_unit"),
        money("pricing_quantity"),
        text("pricing_unit"),
        money("list_cost"),
        money("contracted_cost"),
        money("effective_cost"),
        money("billed_cost"),
        Field::new("events", DataType::UInt64, false),
        text("card"),
        time("published", true),
        maybe("reversal_of"),
        maybe("reversal_reason"),
        text("row"),
    ]))
}

fn columns(tenant: &[u8], rows: &[&Row]) -> anyhow::Result<Vec<ArrayRef>> {
    let mut tenants = table::Tenants::new(tenant);
    rows.iter().for_each(|_| tenants.push(tenant));
    let texts = |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        let mut builder = StringBuilder::new();
        rows.iter().for_each(|row| builder.append_option(of(row)));
        Arc::new(builder.finish())
    };
    let times = |of: &dyn Fn(&Row) -> Option<UnixNanos>| -> ArrayRef {
        let mut builder = TimestampMillisecondBuilder::new();
        rows.iter().for_each(|row| builder.append_option(of(row).map(|time| time.0.div_euclid(NANOS_PER_MILLI))));
        Arc::new(builder.finish().with_timezone("UTC"))
    };
    let decimals = |scale: i8, of: &dyn Fn(&Row) -> i128| -> anyhow::Result<ArrayRef> {
        let mut builder = Decimal128Builder::new();
        rows.iter().for_each(|row| builder.append_value(of(row)));
        Ok(Arc::new(builder.finish().with_precision_and_scale(38, scale)?))
    };
    let dim = |row: &Row, name: &str| {
        let value = row.charge.series.dim(name);
        (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
    };
    let mut revision = UInt32Builder::new();
    let mut events = UInt64Builder::new();
    let mut stored = StringBuilder::new();
    let mut pricing_quantity = Decimal128Builder::new();
    for row in rows {
        revision.append_value(row.revision);
        events.append_value(row.charge.events);
        stored.append_value(serde_json::to_string(&StoredRow::of(row))?);
        pricing_quantity.append_value(row.charge.pricing_quantity().with_context(|| format!("charge {}", row.id()))?.0);
    }
    Ok(vec![
        tenants.finish(),
        texts(&|row| Some(row.id())),
        times(&|row| Some(row.charge.hour)),
        times(&|row| Some(row.charge.end)),
        texts(&|row| Some(row.period.name())),
        Arc::new(revision.finish()),
        texts(&|row| row.is_correction.then(|| "Correction".to_owned())),
        texts(&|row| Some(row.charge.category.name().to_owned())),
        texts(&|row| Some(row.charge.attribution().to_owned())),
        texts(&|row| Some(row.charge.series.meter.clone())),
        texts(&|row| dim(row, "service")),
        texts(&|row| dim(row, "model")),
        texts(&|row| Some(crate::facts::encode_dims(&row.charge.series.dims))),
        texts(&|row| Some(row.charge.sku.clone())),
        texts(&|row| Some(row.charge.sku_price_id())),
        decimals(0, &|row| row.charge.quantity)?,
        decimals(0, &|row| row.charge.billable)?,
        texts(&|row| Some(row.charge.series.unit.clone())),
        Arc::new(pricing_quantity.finish().with_precision_and_scale(38, 12)?),
        texts(&|row| Some(row.charge.pricing_unit())),
        decimals(12, &|row| row.charge.list.0)?,
        decimals(12, &|row| row.charge.contracted.0)?,
        decimals(12, &|row| row.charge.effective.0)?,
        decimals(12, &|row| row.charge.billed.0)?,
        Arc::new(events.finish()),
        texts(&|row| Some(row.charge.card.to_string())),
        times(&|row| row.published),
        texts(&|row| row.reversal.as_ref().map(|reversal| reversal.of.clone())),
        texts(&|row| row.reversal.as_ref().map(|reversal| reversal.reason.clone())),
        Arc::new(stored.finish()),
    ])
}

/// The rows of one file, in file order.
fn read(disk: &Disk, path: &Path, out: &mut Vec<Row>) -> anyhow::Result<()> {
    for batch in table::read(disk, path, &["row"], None)? {
        let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
        let rows: &StringArray = table::column(&batch, "row")?;
        for at in 0..batch.num_rows() {
            let stored: StoredRow = serde_json::from_str(rows.value(at)).with_context(|| format!("{} is damaged", path.display()))?;
            out.push(stored.row().map_err(|what| anyhow!("{} is damaged: {what}", path.display()))?);
        }
    }
    Ok(())
}
