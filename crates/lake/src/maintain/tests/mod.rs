//! What keeping a lake promises, tested from outside: `crashes` (a crash between any two steps), `twins` (others write at the same
//! time), `random` (any order of events against a model), and each promise by itself below.
//!
//! The model is the list of rows that were delivered; it shares nothing with the commit log but the folders' names.

mod crashes;
mod promises;
mod random;
mod twins;

use super::*;
use crate::tests::{DAY, Line, START, find, frame, line, options};
use crate::{Lake, SearchOptions, Snapshot, table};
use arrow_array::{TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array};
use flow::units::NANOS_PER_HOUR;
use hub::disk::Sim;
use hub::frame::Frame;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Everything that is stored of a row: tenant, time, severity, weight, stream, position, origin bytes, notes, raw.
type Stored = (Vec<u8>, i64, u8, u32, u64, u64, u32, u16, Vec<u8>);

/// A frame whose rows differ in all columns, closed at `received`.
fn batch(seq: u64, stream: u64, from: u64, received: i64, lines: &[Line]) -> Arc<Frame> {
    let mut frame = (*frame(seq, stream, from, lines)).clone();
    frame.received = UnixNanos(received);
    for at in 0..lines.len() {
        frame.rows.notes[at] = (seq as u16) * 8 + at as u16 % 7;
        frame.rows.origin_bytes[at] += at as u32 % 3;
    }
    Arc::new(frame)
}

/// The rows of these frames, in order of tenant, time and place.
fn delivered(frames: &[Arc<Frame>]) -> Vec<Stored> {
    let mut all = Vec::new();
    for frame in frames {
        let rows = &frame.rows;
        for at in 0..rows.len() {
            all.push((
                frame.tenants[rows.tenant[at] as usize].to_vec(),
                rows.time[at],
                rows.severity[at],
                rows.weight[at],
                frame.parts[0].stream.0,
                rows.position[at],
                rows.origin_bytes[at],
                rows.notes[at],
                rows.row(at).to_vec(),
            ));
        }
    }
    all.sort();
    all
}

/// The rows of the lake as its Parquet files have them, in the same order.
fn stored(snapshot: &Snapshot) -> anyhow::Result<Vec<Stored>> {
    let mut all = Vec::new();
    let mut buffer = Vec::new();
    for file in snapshot.logs() {
        for batch in table::read_all(&snapshot.disk, &snapshot.root.join(&file.path), None)? {
            let batch = batch?;
            let lines = crate::logs::Lines::of(&batch)?;
            for at in 0..batch.num_rows() {
                all.push((
                    table::tenant(&batch, at)?.to_vec(),
                    table::column::<TimestampNanosecondArray>(&batch, "time")?.value(at),
                    table::column::<UInt8Array>(&batch, "severity")?.value(at),
                    table::column::<UInt32Array>(&batch, "weight")?.value(at),
                    table::column::<UInt64Array>(&batch, "stream")?.value(at),
                    table::column::<UInt64Array>(&batch, "position")?.value(at),
                    table::column::<UInt32Array>(&batch, "origin_bytes")?.value(at),
                    table::column::<UInt16Array>(&batch, "notes")?.value(at),
                    lines.line(at, &mut buffer)?.to_vec(),
                ));
            }
        }
    }
    all.sort();
    Ok(all)
}

/// Rows and origin bytes by tenant.
fn sums(rows: &[Stored]) -> BTreeMap<Vec<u8>, (u64, u64)> {
    let mut sums: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let sum = sums.entry(row.0.clone()).or_default();
        *sum = (sum.0 + 1, sum.1 + u64::from(row.6));
    }
    sums
}

/// What is stored and what expired, together.
fn stored_and_expired(snapshot: &Snapshot) -> anyhow::Result<BTreeMap<Vec<u8>, (u64, u64)>> {
    let mut all = snapshot.rows_by_tenant()?;
    for (tenant, more) in snapshot.expired_by_tenant() {
        let sum = all.entry(tenant.clone()).or_default();
        *sum = (sum.0 + more.0, sum.1 + more.1);
    }
    Ok(all)
}

/// Data files that lie there, and those that the newest commit names.
fn lying_and_named(disk: &Disk, root: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let snapshot = Snapshot::read(disk, root).unwrap();
    let files = snapshot.log.files.values().flatten();
    let named = files.flat_map(|f| [Some(f.path.clone()), f.index.clone()]).flatten().collect();
    let mut lying = BTreeSet::new();
    let mut folders = vec!["logs".to_owned(), "usage".into(), "lineage".into()];
    while let Some(folder) = folders.pop() {
        for name in disk.list(&root.join(&folder)).unwrap() {
            let name = name.to_str().unwrap();
            let path = format!("{folder}/{name}");
            if name.contains('=') { folders.push(path) } else { assert!(lying.insert(path)) }
        }
    }
    (lying, named)
}

/// The rows that a search finds, as place and line.
fn found(disk: &Disk, root: &Path, query: &str) -> Vec<(u64, u64, Vec<u8>)> {
    let (hits, _) = find(disk, root, &[], query, &SearchOptions::default());
    let mut found: Vec<_> = hits.into_iter().map(|hit| (hit.stream.0, hit.position, hit.raw)).collect();
    found.sort();
    found
}

fn places(rows: &[Stored]) -> Vec<(u64, u64, Vec<u8>)> {
    let mut places: Vec<_> = rows.iter().map(|row| (row.4, row.5, row.8.clone())).collect();
    places.sort();
    places
}

fn compact_options() -> CompactOptions {
    CompactOptions {
        cold_after: Span(NANOS_PER_HOUR),
        file_bytes_min: 1 << 20,
        target_bytes: 2 << 20,
        files_min: 2,
        memory_bytes_max: 64 << 20,
        bytes_max: u64::MAX,
        index_bytes_min: u64::MAX,
    }
}

fn reindex_options() -> ReindexOptions {
    ReindexOptions { index_bytes_min: 0, memory_bytes_max: 64 << 20, bytes_max: u64::MAX }
}

fn retention(age: i64) -> Retention {
    Retention { age: Some(Span(age)), ..Retention::default() }
}

fn sim() -> Disk {
    Disk::Sim(Arc::new(Sim::new(1)))
}

fn open(disk: &Disk, root: &Path, index_bytes_min: u64) -> Lake {
    Lake::open(disk.clone(), root, options(index_bytes_min)).unwrap()
}

/// Seals `frames` one by one.
fn seal_each(lake: &mut Lake, frames: &[Arc<Frame>]) {
    for frame in frames {
        lake.seal(std::slice::from_ref(frame)).unwrap().unwrap();
    }
}

/// `count` frames of one stream of 4 rows each: two tenants, the day `day` after [`START`], closed in that day.
fn frames_of_day(stream: u64, day: i64, count: u64) -> Vec<Arc<Frame>> {
    frames_of(["acme", "zeta"], stream, day, count)
}

fn frames_of(tenants: [&str; 2], stream: u64, day: i64, count: u64) -> Vec<Arc<Frame>> {
    let mut from = 0;
    let frame = |seq: u64| {
        let text = |i: u64| format!(r#"{{"service":"s{}","level":"info","msg":"row {i} of day {day}","trace_id":"t{i}"}}"#, (i * 7) % 3);
        let at = |i: u64| START + day * DAY + ((i * 5) % 11) as i64 * NANOS_PER_HOUR;
        let lines: Vec<Line> = (seq * 4..seq * 4 + 4).map(|i| line(tenants[i as usize % 2], at(i), &text(i))).collect();
        let frame = batch(seq + 1, stream, from, START + day * DAY + 12 * NANOS_PER_HOUR, &lines);
        from = crate::tests::end(&frame);
        frame
    };
    (0..count).map(frame).collect()
}

const ROOT: &str = "/data/lake";

fn root() -> &'static Path {
    Path::new(ROOT)
}

/// Long after everything in these tests.
fn later(days: i64) -> UnixNanos {
    UnixNanos(START + days * DAY)
}
