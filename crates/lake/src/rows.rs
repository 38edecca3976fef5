//! The columns of a log file that make up a row as it is given out.
//!
//! The one place that knows how a file holds its lines.

use crate::search::Hit;
use crate::table;
use arrow_array::{BinaryArray, RecordBatch, TimestampNanosecondArray, UInt8Array, UInt32Array, UInt64Array};
use flow::event::StreamId;
use flow::units::UnixNanos;

/// Columns of which lines are made.
pub(crate) const LINE_COLUMNS: [&str; 1] = ["raw"];
/// Columns that a hit needs besides its line.
const ROW_COLUMNS: [&str; 5] = ["time", "severity", "weight", "stream", "position"];

/// The columns that [`HitRows`] needs.
pub(crate) fn hit_columns() -> Vec<&'static str> {
    ROW_COLUMNS.into_iter().chain(LINE_COLUMNS).collect()
}

/// The lines of a batch with [`LINE_COLUMNS`].
pub(crate) struct LineRows<'a> {
    raw: &'a BinaryArray,
}

impl<'a> LineRows<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> anyhow::Result<LineRows<'a>> {
        Ok(LineRows { raw: table::column(batch, "raw")? })
    }

    pub(crate) fn line(&self, row: usize) -> &'a [u8] {
        self.raw.value(row)
    }
}

/// The rows of a batch with [`hit_columns`].
pub(crate) struct HitRows<'a> {
    pub times: &'a [i64],
    pub severities: &'a [u8],
    pub lines: LineRows<'a>,
    weight: &'a UInt32Array,
    stream: &'a UInt64Array,
    position: &'a UInt64Array,
}

impl<'a> HitRows<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> anyhow::Result<HitRows<'a>> {
        Ok(HitRows {
            times: table::column::<TimestampNanosecondArray>(batch, "time")?.values(),
            severities: table::column::<UInt8Array>(batch, "severity")?.values(),
            lines: LineRows::of(batch)?,
            weight: table::column(batch, "weight")?,
            stream: table::column(batch, "stream")?,
            position: table::column(batch, "position")?,
        })
    }

    pub(crate) fn hit(&self, row: usize, tenant: &[u8]) -> Hit {
        Hit {
            tenant: tenant.to_vec(),
            time: UnixNanos(self.times[row]),
            severity: self.severities[row],
            weight: self.weight.value(row),
            stream: StreamId(self.stream.value(row)),
            position: self.position.value(row),
            raw: self.lines.line(row).to_vec(),
        }
    }
}
