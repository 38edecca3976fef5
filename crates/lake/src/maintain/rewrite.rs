//! Rows out of files of records and into one: what merging and mending share.
//!
//! In: files of one partition; out: a file as the writer would make it today from the same rows, in its order, with its columns
//! and its index. Tenant, times, rows, raw bytes and origin bytes must be what the files' commits say: a file that holds anything
//! else is damaged, and is not rewritten. The same files give the same bytes. Memory: [`held_bytes`] of the files, the new file, and
//! its index.

use crate::Fields;
use crate::commit::FileEntry;
use crate::layout::{METRICS, unescape_tenant};
use crate::logs::{Lines, LogFile, LogWriter, RowRef, Spent, field_columns};
use crate::{samples, table};
use anyhow::{Context, bail, ensure};
use arrow_array::{TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array};
use flow::event::StreamId;
use hub::disk::Disk;
use hub::frame::{Frame, Rows};
use std::path::Path;
use std::sync::Arc;

/// Of a row beside its line and fields: 35 in the frame's columns, 16 for its place, 16 to sort it.
const ROW_BYTES: u64 = 72;
/// Of a field of a row: where its text lies in the line.
const SPAN_BYTES: u64 = 12;

/// What the rows of a file take in memory, in bytes.
pub(super) fn held_bytes(file: &FileEntry, fields: &Fields) -> u64 {
    let columns = field_columns(fields).len() as u64;
    file.raw_bytes.saturating_add(file.rows.saturating_mul(ROW_BYTES + SPAN_BYTES * columns))
}

enum AnyLines<'a> {
    Logs(Lines<'a>),
    Samples(samples::Lines<'a>),
}

/// Rows of one tenant, out of files of one table.
pub(super) struct Loaded {
    pub tenant: Vec<u8>,
    is_metrics: bool,
    /// One per file.
    pub frames: Vec<Arc<Frame>>,
    /// In the order of the files and of their rows.
    pub rows: Vec<RowRef>,
}

impl Loaded {
    /// `file`: the first of them.
    pub(super) fn new(file: &FileEntry) -> anyhow::Result<Loaded> {
        let tenant = &file.tenant;
        let Some(tenant) = unescape_tenant(tenant) else { bail!("the commit log names a tenant {tenant:?} that nobody wrote") };
        let is_metrics = file.path.split('/').next() == Some(METRICS);
        Ok(Loaded { tenant, is_metrics, frames: Vec::new(), rows: Vec::new() })
    }

    /// Reads the rows of one more file.
    pub(super) fn add(&mut self, disk: &Disk, root: &Path, file: &FileEntry) -> anyhow::Result<()> {
        let path = root.join(&file.path);
        let damaged = || format!("{} is damaged", path.display());
        let mut rows = Rows::default();
        let mut buffer = Vec::new();
        let number = u32::try_from(self.frames.len())?;
        for batch in table::read_all(disk, &path, None)? {
            let batch = batch.with_context(damaged)?;
            let time: &TimestampNanosecondArray = table::column(&batch, "time")?;
            let weight: &UInt32Array = table::column(&batch, "weight")?;
            let stream: &UInt64Array = table::column(&batch, "stream")?;
            let position: &UInt64Array = table::column(&batch, "position")?;
            let origin_bytes: &UInt32Array = table::column(&batch, "origin_bytes")?;
            let notes: &UInt16Array = table::column(&batch, "notes")?;
            let mut lines = match self.is_metrics {
                true => AnyLines::Samples(samples::Lines::of(&batch).with_context(damaged)?),
                false => AnyLines::Logs(Lines::of(&batch).with_context(damaged)?),
            };
            if batch.num_rows() > 0 && table::tenant(&batch, 0)? != self.tenant {
                bail!("{} is about another tenant than its commit says", path.display());
            }
            let more = || format!("{} holds more than its commit says", path.display());
            ensure!((rows.len() + batch.num_rows()) as u64 <= file.rows, more());
            for at in 0..batch.num_rows() {
                self.rows.push(RowRef { frame: number, row: rows.len() as u32, stream: StreamId(stream.value(at)) });
                match &mut lines {
                    AnyLines::Logs(lines) => rows.bytes.extend_from_slice(lines.line(at, &mut buffer).with_context(damaged)?),
                    AnyLines::Samples(lines) => lines.put(at, &mut rows.bytes),
                }
                ensure!(rows.bytes.len() as u64 <= file.raw_bytes, more());
                rows.ends.push(u32::try_from(rows.bytes.len()).with_context(|| format!("{} is too large", path.display()))?);
            }
            rows.time.extend_from_slice(time.values());
            match self.is_metrics {
                true => rows.severity.resize(rows.time.len(), flow::severity::UNKNOWN),
                false => rows.severity.extend_from_slice(table::column::<UInt8Array>(&batch, "severity")?.values()),
            }
            rows.weight.extend_from_slice(weight.values());
            rows.position.extend_from_slice(position.values());
            rows.origin_bytes.extend_from_slice(origin_bytes.values());
            rows.notes.extend_from_slice(notes.values());
        }
        let origin_bytes: u64 = rows.origin_bytes.iter().map(|bytes| u64::from(*bytes)).sum();
        let times = (rows.time.iter().min().copied().unwrap_or(0), rows.time.iter().max().copied().unwrap_or(0));
        let counts = (rows.len() as u64, rows.bytes.len() as u64, origin_bytes);
        if counts != (file.rows, file.raw_bytes, file.origin_bytes) || times != (file.min_time, file.max_time) {
            bail!("{} does not hold what its commit says", path.display());
        }
        rows.tenant = vec![0; rows.len()];
        self.frames.push(Arc::new(Frame { tenants: vec![self.tenant.as_slice().into()], rows, ..Frame::default() }));
        Ok(())
    }

    /// The rows as the writer would store them today. Afterwards they are in file order.
    pub(super) fn write(&mut self, fields: &Fields, indexed: bool) -> anyhow::Result<LogFile> {
        if self.is_metrics {
            return Ok(LogFile { parquet: samples::write(&self.frames, &mut self.rows, &self.tenant)?, index: None });
        }
        LogWriter::new(fields).write(&self.frames, &mut self.rows, &self.tenant, indexed, &mut Spent::default())
    }

    /// Of a single file: whether its rows are in the order in which they were read.
    pub(super) fn is_in_order(&self) -> bool {
        self.rows.iter().enumerate().all(|(at, row)| row.row as usize == at)
    }
}
