//! The columns of a log file that make up a row as it is given out.
//!
//! In: batches of all columns of a file; out: lines and hits. Lines are put together from the columns (`logs::Lines`), all of a batch at
//! once. Memory: the lines of one batch of 4,096 rows.

use crate::logs::Lines;
use crate::opened::Footer;
use crate::search::Hit;
use crate::table;
use arrow_array::{RecordBatch, TimestampNanosecondArray, UInt8Array, UInt32Array, UInt64Array};
use flow::event::StreamId;
use flow::units::UnixNanos;

/// The columns of which lines and hits are made: all that the file has.
pub(crate) fn line_columns(footer: &Footer) -> Vec<&str> {
    footer.metadata.schema().fields().iter().map(|field| field.name().as_str()).collect()
}

/// The lines of a batch of [`line_columns`].
pub(crate) struct LineRows {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl LineRows {
    pub(crate) fn of(batch: &RecordBatch) -> anyhow::Result<LineRows> {
        let lines = Lines::of(batch)?;
        let (mut rows, mut buffer) = (LineRows { bytes: Vec::new(), ends: Vec::with_capacity(batch.num_rows()) }, Vec::new());
        for row in 0..batch.num_rows() {
            rows.bytes.extend_from_slice(lines.line(row, &mut buffer)?);
            rows.ends.push(rows.bytes.len());
        }
        Ok(rows)
    }

    pub(crate) fn line(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }
}

/// The rows of a batch of [`line_columns`].
pub(crate) struct HitRows<'a> {
    pub times: &'a [i64],
    pub severities: &'a [u8],
    pub lines: LineRows,
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
