//! A frame: a header that says what was decided about a batch of records, and the rows that were kept.
//!
//! A frame is decided once, by a lane, and never changed. Everything that a sink, the bill or the ledger
//! needs is in it, by *part*: one stretch of one stream. A store that has a part (its position for the
//! stream is at or behind `to`) skips the whole part; parts never straddle a store's position.
//!
//! Encoded: version byte, the *head* (all but the rows), the rows: fixed-width little-endian numbers; columns are whole
//! arrays, so that writing a frame costs about a copy. The head can be read without the rows: it says how many there are
//! of each tenant, and it stays when rows are lost (`Frame::lost`). `decode` takes any bytes: it checks each length before it allocates, and each index and span,
//! and returns `Corrupt`; it never panics. Bound: a frame encodes to at most [`FRAME_BYTES_MAX`]; a larger one is refused.
//!
//! State of steps: `StateChange::bytes` is a list of entries of 32 bytes, an 8-byte key and a 24-byte value. The hub
//! does not know what they mean; it keeps the last value of each (step, key) and gives that map back at recovery. A
//! value of zeros takes the key out, a change without entries all keys of its step. So the journal's memory of it is
//! bounded by the keys that the present steps use, not by time.

use crate::codec::{Reader, put_bytes, put_i64, put_i64s, put_len, put_u16s, put_u32, put_u32s, put_u64, put_u64s};
use crate::ledger::RowCount;
use flow::event::{EventKind, Note, Outcome, Severity, Signal, Skip, StreamId};
use flow::units::UnixNanos;
use std::ops::Range;
use std::sync::Arc;

pub use crate::codec::Corrupt;

/// 256 MiB: a frame closes at 1 MiB of kept rows, one record of 10 MiB and its header still fit many times.
pub const FRAME_BYTES_MAX: usize = 256 << 20;
/// Length of one entry of a [`StateChange`]: 8 bytes of key, 24 of value.
pub const STATE_ENTRY_BYTES: usize = 32;
/// More records or bytes than one part can hold; sums of 65,536 such parts still fit u64.
const COUNT_MAX: u64 = 1 << 48;
/// Version 2 has [`Part::before`], and in its head the rows counted and what was lost; version 3, written
/// only where they say something, has [`Frame::sinks`], [`Part::selected`], [`Rows::sinks`] and [`Rows::requests`]; version 4, written
/// only where a fact has one, [`Fact::event`]; version 5, written only where records are no logs, [`Part::signal`]. All are read.
const VERSION: u8 = 5;
/// Sinks that a frame can tell apart.
pub const SINKS_MAX: usize = 32;
/// In [`Frame::sinks`]: every sink that has no name there. No sink's own name is empty.
pub const OTHERS: &[u8] = b"";
/// Longest key of a [`FactEvent`]; twice what a meter makes.
pub const KEY_BYTES_MAX: usize = 1024;
/// A missing value in `Rows::columns`.
pub const MISSING: u32 = u32::MAX;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Given by the hub at acceptance, from 1, without gaps.
    pub seq: u64,
    /// When the frame was closed. With `--once`: `newest`, so that two runs give the same bytes.
    pub received: UnixNanos,
    /// Newest event time among the records decided here.
    pub newest: UnixNanos,
    /// Dictionary of this frame: `Rows::tenant`, `Count::tenant` and `Fact::tenant` index it.
    pub tenants: Vec<Box<[u8]>>,
    /// Dictionary of this frame: `Fact::meter` indexes it.
    pub meters: Vec<Meter>,
    /// Dictionary of this frame: `Fact::dims` index it.
    pub values: Vec<Box<[u8]>>,
    /// Which fields `Rows::columns` are, as a hash of their names: a plan may have changed since.
    pub routes: u64,
    /// Dictionary of this frame: names of the sinks that `Rows::sinks` and `Selected::sinks` speak of, at most [`SINKS_MAX`].
    /// A sink that is not among them has no condition, or came later: it is one of [`OTHERS`], and where they are not among them
    /// either, it takes every row.
    pub sinks: Vec<Box<[u8]>>,
    pub parts: Vec<Part>,
    /// What the frame changed in the state of steps, in order: applied again at recovery.
    pub state: Vec<StateChange>,
    pub rows: Rows,
    /// The rows are gone, from the journal, for good; everything else in here is true.
    pub lost: Option<Box<Lost>>,
}

/// Rows that were kept and are gone: what the header counts as kept never reaches a sink that did not have it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub reason: LostReason,
    /// Several frames of which nothing is left but what they added up to are one frame: from this number to `Frame::seq`.
    pub first_seq: u64,
    /// What the rows had said, counted apart from the header: rows of each of the frame's tenants, and rows of no part.
    pub rows: Vec<u64>,
    pub stray_rows: u64,
}

/// Why rows never reached a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LostReason {
    /// The journal was full, and its config says that the oldest rows go.
    DroppedOldest = 1,
    /// The bytes on disk were damaged.
    Damaged = 2,
    /// The sink may take no more room, and its config says that the newest rows go.
    NoRoom = 3,
    /// The far side refuses them for good. Row by row: what it lost is told by the sink, no frame says it.
    Refused = 4,
}

impl LostReason {
    pub const ALL: [LostReason; 4] = [LostReason::DroppedOldest, LostReason::Damaged, LostReason::NoRoom, LostReason::Refused];

    pub fn name(self) -> &'static str {
        match self {
            LostReason::DroppedOldest => "dropped_oldest",
            LostReason::Damaged => "damaged",
            LostReason::NoRoom => "no_room",
            LostReason::Refused => "refused",
        }
    }

    pub fn from_code(code: u8) -> Option<LostReason> {
        LostReason::ALL.into_iter().find(|r| *r as u8 == code)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    pub name: String,
    pub unit: String,
    pub dims: Vec<String>,
    /// Not an item of a bill but a sighting of a service for lineage (name `lineage`, dims service, model).
    pub lineage: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub stream: StreamId,
    /// What its records are; the same in every part of a stream.
    pub signal: Signal,
    /// Records complete in (from, to] of the stream are decided in this part.
    pub from: u64,
    pub to: u64,
    /// Where to read again after a restart: at most `to`, less where parts of a record are held.
    pub resume: u64,
    /// Hash of up to 256 bytes of the stream before `to`; 0 where nobody knows.
    pub before: u64,
    /// Older streams of the same log whose held bytes this part completed: their new positions.
    pub also: Vec<Resumed>,
    /// Bytes of (from, to] by use: `records + framing + skipped + held == to - from`, where `held` is what
    /// the part added to (positive) or took out of (negative) unfinished records.
    pub records_bytes: u64,
    pub framing_bytes: u64,
    pub skipped: Vec<(Skip, u64)>,
    pub held_bytes: i64,
    /// This part's rows in `Frame::rows`.
    pub rows: Range<u32>,
    pub counts: Vec<Count>,
    pub notes: Vec<(u32, Note, u64)>,
    pub facts: Vec<Fact>,
    /// Kept records that not every sink takes, by tenant and by who takes them; they are in `counts`, too.
    pub selected: Vec<Selected>,
}

/// Kept records of one tenant that only some sinks take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    pub tenant: u32,
    /// Bit n: sink n of `Frame::sinks` takes them.
    pub sinks: u32,
    pub records: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    pub stream: StreamId,
    pub resume: u64,
    pub done: u64,
}

/// Records of one tenant with one outcome. `bytes` are origin bytes: a joined record owns all its parts'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub tenant: u32,
    pub outcome: Outcome,
    pub records: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    pub tenant: u32,
    pub meter: u32,
    /// Event time, minutes since the epoch.
    pub minute: i64,
    /// One per dimension of the meter: index into `Frame::values`.
    pub dims: Vec<u32>,
    pub quantity: i128,
    pub events: u64,
    /// One event by itself; `None`: a sum.
    pub event: Option<Box<FactEvent>>,
}

/// What is known of a fact that is one event: see [`flow::event::UsageEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactEvent {
    pub kind: EventKind,
    pub at: UnixNanos,
    /// Not before `at`.
    pub end: UnixNanos,
    /// At most [`KEY_BYTES_MAX`].
    pub key: Box<[u8]>,
    pub position: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChange {
    /// Which step: the plan's name for it, the same as long as the step's config is.
    pub step: u32,
    /// Entries of [`STATE_ENTRY_BYTES`]: key and value; the last value of a key counts.
    pub bytes: Vec<u8>,
}

/// The kept rows, column by column; row i's bytes are `bytes[ends[i-1]..ends[i]]`, as they were received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub bytes: Vec<u8>,
    pub ends: Vec<u32>,
    pub tenant: Vec<u32>,
    pub time: Vec<i64>,
    pub severity: Vec<Severity>,
    /// How many records this one stands for, itself included.
    pub weight: Vec<u32>,
    /// Offset in the stream at which the record was complete: with the stream, the record's name for ever.
    pub position: Vec<u64>,
    /// Origin bytes: what the record took up in its stream, without line ends.
    pub origin_bytes: Vec<u32>,
    /// Bits of [`Note`].
    pub notes: Vec<u16>,
    /// Values of the fields that sinks route by (`Frame` does not say which: the plan does), as (start, len)
    /// in the row, strings still escaped; u32::MAX where missing. One vector per field, one entry per row.
    pub columns: Vec<Vec<(u32, u32)>>,
    /// Who takes each row: bit n is sink n of `Frame::sinks`. Empty where every sink takes every row.
    pub sinks: Vec<u32>,
    /// Which request or trace each row is of, for a verdict that comes later: its meaning is the plan's. Empty where nobody asks.
    pub requests: Vec<u64>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Some of these rows, by ascending index.
    fn only(&self, rows: &[u32]) -> Rows {
        fn pick<T: Copy>(column: &[T], rows: &[u32]) -> Vec<T> {
            if column.is_empty() { Vec::new() } else { rows.iter().map(|row| column[*row as usize]).collect() }
        }
        let mut only = Rows {
            bytes: Vec::with_capacity(rows.iter().map(|row| self.row(*row as usize).len()).sum()),
            ends: Vec::with_capacity(rows.len()),
            tenant: pick(&self.tenant, rows),
            time: pick(&self.time, rows),
            severity: pick(&self.severity, rows),
            weight: pick(&self.weight, rows),
            position: pick(&self.position, rows),
            origin_bytes: pick(&self.origin_bytes, rows),
            notes: pick(&self.notes, rows),
            columns: self.columns.iter().map(|column| pick(column, rows)).collect(),
            sinks: pick(&self.sinks, rows),
            requests: pick(&self.requests, rows),
        };
        for row in rows {
            only.bytes.extend_from_slice(self.row(*row as usize));
            only.ends.push(only.bytes.len() as u32);
        }
        only
    }

    /// The bytes of row `i`.
    pub fn row(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[start..self.ends[i] as usize]
    }

    /// Where the bytes of some rows lie.
    fn span(&self, rows: &Range<u32>) -> Range<usize> {
        let end_of = |row: u32| row.checked_sub(1).map_or(0, |last| self.ends[last as usize] as usize);
        end_of(rows.start)..end_of(rows.end)
    }

    /// How many bytes some rows have.
    pub fn bytes_of(&self, rows: &Range<u32>) -> u64 {
        self.span(rows).len() as u64
    }
}

impl Frame {
    /// Appends the encoding of this frame to `out`. Only a frame that passes [`Frame::validate`] can be decoded again.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes());
        self.encode_head(&RowCount::of(self), out);
        self.rows.encode_columns(self.version(), out);
        out.extend_from_slice(&self.rows.bytes);
    }

    /// The oldest version that can say what this frame says.
    pub(crate) fn version(&self) -> u8 {
        let selects = !self.sinks.is_empty() || self.parts.iter().any(|part| !part.selected.is_empty());
        if self.parts.iter().any(|part| part.signal != Signal::Logs) {
            5
        } else if self.parts.iter().flat_map(|part| &part.facts).any(|fact| fact.event.is_some()) {
            4
        } else if selects || !self.rows.sinks.is_empty() || !self.rows.requests.is_empty() {
            3
        } else {
            2
        }
    }

    /// Appends everything but the rows. `counted`: what the rows say.
    pub(crate) fn encode_head(&self, counted: &RowCount, out: &mut Vec<u8>) {
        let version = self.version();
        out.push(version);
        put_u64(out, self.seq);
        put_i64(out, self.received.0);
        put_i64(out, self.newest.0);
        put_list(out, &self.tenants);
        put_len(out, self.meters.len());
        for meter in &self.meters {
            put_bytes(out, meter.name.as_bytes());
            put_bytes(out, meter.unit.as_bytes());
            put_len(out, meter.dims.len());
            for dim in &meter.dims {
                put_bytes(out, dim.as_bytes());
            }
            out.push(u8::from(meter.lineage));
        }
        put_list(out, &self.values);
        put_u64(out, self.routes);
        put_len(out, self.parts.len());
        for part in &self.parts {
            part.encode(version, out);
        }
        put_len(out, self.state.len());
        for change in &self.state {
            put_u32(out, change.step);
            put_bytes(out, &change.bytes);
        }
        match &self.lost {
            None => out.push(0),
            Some(lost) => {
                out.push(lost.reason as u8);
                put_u64(out, lost.first_seq);
            }
        }
        put_len(out, counted.by_tenant.len());
        put_u64s(out, &counted.by_tenant);
        put_u64(out, counted.stray);
        if version >= 3 {
            put_list(out, &self.sinks);
        }
    }

    /// Reads what [`Frame::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Frame, Corrupt> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Corrupt { what: "frame is larger than any", at: 0 });
        }
        let r = &mut Reader::new(bytes);
        let (mut frame, counted) = Frame::read_head(r)?;
        let version = bytes[0]; // the head was read: it is there
        frame.rows = Rows::decode(r, version)?;
        r.end()?;
        if version > frame.version().max(2) {
            return Err(r.corrupt("a frame is of a version it has no use for"));
        }
        frame.validate().map_err(|what| r.corrupt(what))?;
        if counted.is_some_and(|counted| counted != RowCount::of(&frame)) {
            return Err(r.corrupt("the rows are not those that the head counts"));
        }
        Ok(frame)
    }

    /// Reads a frame without its rows, and what they say. `None` for version 1, whose head says nothing of the rows.
    pub(crate) fn decode_head(bytes: &[u8]) -> Result<Option<(Frame, RowCount)>, Corrupt> {
        let r = &mut Reader::new(bytes);
        let (frame, Some(counted)) = Frame::read_head(r)? else { return Ok(None) };
        r.end()?;
        if counted.by_tenant.len() != frame.tenants.len() || counted.by_tenant.iter().chain([&counted.stray]).any(|n| *n > COUNT_MAX) {
            return Err(r.corrupt("the rows are counted wrongly"));
        }
        let rows: u64 = frame.parts.iter().map(|p| u64::from(p.rows.end)).max().unwrap_or(0);
        let indexes = frame.validate_indexes(u32::try_from(rows).unwrap_or(u32::MAX) as usize);
        indexes.map_err(|what| r.corrupt(what))?;
        Ok(Some((frame, counted)))
    }

    /// The bit of a sink in the masks of this frame; `None`: it takes every row.
    pub fn bit_of(&self, sink: &[u8]) -> Option<u32> {
        let at = |name: &[u8]| self.sinks.iter().position(|known| **known == *name);
        at(sink).or_else(|| at(OTHERS)).map(|at| 1 << at)
    }

    /// This frame as a sink takes it: without the rows of others; its parts stay, with their positions, counts and facts.
    /// The same frame where it takes all.
    pub fn only_for(self: Arc<Frame>, sink: &str) -> Arc<Frame> {
        match self.bit_of(sink.as_bytes()) {
            Some(bit) if self.rows.sinks.iter().any(|sinks| sinks & bit == 0) => Arc::new(self.only(bit)),
            _ => self,
        }
    }

    fn only(&self, bit: u32) -> Frame {
        let own: Vec<u32> = (0..self.rows.len() as u32).filter(|row| self.rows.sinks[*row as usize] & bit != 0).collect();
        let mut parts = self.parts.clone();
        for part in &mut parts {
            let before = |row: u32| own.partition_point(|own| *own < row) as u32;
            part.rows = before(part.rows.start)..before(part.rows.end);
        }
        Frame { state: self.state.clone(), lost: self.lost.clone(), ..self.of(parts, self.rows.only(&own)) }
    }

    /// Some of this frame's parts and rows, under its number and with its dictionaries.
    fn of(&self, parts: Vec<Part>, rows: Rows) -> Frame {
        Frame {
            seq: self.seq,
            received: self.received,
            newest: self.newest,
            tenants: self.tenants.clone(),
            meters: self.meters.clone(),
            values: self.values.clone(),
            routes: self.routes,
            sinks: self.sinks.clone(),
            parts,
            rows,
            ..Frame::default()
        }
    }

    /// This frame as it is when its rows are gone: without them.
    pub(crate) fn without_rows(mut self, counted: &RowCount, reason: LostReason) -> Frame {
        if self.lost.is_none() {
            let (rows, stray_rows) = (counted.by_tenant.clone(), counted.stray);
            self.lost = Some(Box::new(Lost { reason, first_seq: self.seq, rows, stray_rows }));
        }
        self.rows = Rows::default();
        self.parts.iter_mut().for_each(|part| part.rows = 0..0);
        self
    }

    /// This frame as a sink may take it ahead of its turn: some of its parts, by index in order, with their rows. What it changed in
    /// the state of steps is no sink's.
    pub(crate) fn some_parts(&self, picked: &[usize]) -> Frame {
        let rows: Vec<u32> = picked.iter().flat_map(|i| self.parts[*i].rows.clone()).collect();
        let mut end = 0;
        let parts = picked.iter().map(|i| {
            let part = self.parts[*i].clone();
            let start = end;
            end += part.rows.len() as u32;
            Part { rows: start..end, ..part }
        });
        self.of(parts.collect(), self.rows.only(&rows))
    }

    /// The first of the numbers that this frame stands for; nearly always its only one.
    pub fn first_seq(&self) -> u64 {
        self.lost.as_ref().map_or(self.seq, |lost| lost.first_seq.min(self.seq))
    }

    fn read_head(r: &mut Reader) -> Result<(Frame, Option<RowCount>), Corrupt> {
        let version = r.u8()?;
        if version > VERSION {
            return Err(r.corrupt("it was written by a newer version of weir"));
        }
        if version == 0 {
            return Err(r.corrupt("unknown version of a frame"));
        }
        let mut frame = Frame {
            seq: r.u64()?,
            received: UnixNanos(r.i64()?),
            newest: UnixNanos(r.i64()?),
            tenants: list(r)?,
            meters: meters(r)?,
            values: list(r)?,
            routes: r.u64()?,
            sinks: Vec::new(),
            parts: parts(r, version)?,
            state: state(r)?,
            rows: Rows::default(),
            lost: None,
        };
        if version == 1 {
            return Ok((frame, None));
        }
        let lost = match r.u8()? {
            0 => None,
            code => Some((LostReason::from_code(code).ok_or_else(|| r.corrupt("rows are lost for no known reason"))?, r.u64()?)),
        };
        let n = r.count(8)?;
        let counted = RowCount { by_tenant: r.u64s(n)?, stray: r.u64()? };
        if let Some((reason, first_seq)) = lost {
            let (rows, stray_rows) = (counted.by_tenant.clone(), counted.stray);
            frame.lost = Some(Box::new(Lost { reason, first_seq, rows, stray_rows }));
        }
        if version >= 3 {
            frame.sinks = list(r)?;
        }
        Ok((frame, Some(counted)))
    }

    /// Memory this frame holds, in bytes, near enough to bound a queue by it.
    pub fn bytes(&self) -> usize {
        let blobs = |list: &[Box<[u8]>]| list.iter().map(|b| b.len() + 24).sum::<usize>();
        let parts = |p: &Part| {
            size_of::<Part>()
                + p.counts.len() * 32
                + p.notes.len() * 16
                + p.also.len() * 24
                + p.selected.len() * 24
                + p.facts.iter().map(|f| 112 + f.dims.len() * 4 + f.event.as_ref().map_or(0, |event| 64 + event.key.len())).sum::<usize>()
        };
        let rows = self.rows.bytes.capacity()
            + self.rows.len() * (40 + 8 * self.rows.columns.len())
            + self.rows.sinks.len() * 4
            + self.rows.requests.len() * 8;
        size_of::<Frame>()
            + blobs(&self.tenants)
            + blobs(&self.sinks)
            + blobs(&self.values)
            + self.meters.len() * 128
            + self.parts.iter().map(parts).sum::<usize>()
            + self.state.iter().map(|s| s.bytes.len() + 32).sum::<usize>()
            + rows
    }

    /// Checks every index, range and length inside the frame; the error names what is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.rows.validate(self.tenants.len())?;
        self.validate_indexes(self.rows.len())
    }

    fn validate_indexes(&self, rows: usize) -> Result<(), &'static str> {
        if let Some(lost) = &self.lost
            && (rows > 0 || lost.rows.len() != self.tenants.len() || lost.rows.iter().any(|n| *n > COUNT_MAX))
        {
            return Err("rows are there and lost");
        }
        if self.sinks.len() > SINKS_MAX {
            return Err("a frame names more sinks than it can tell apart");
        }
        for part in &self.parts {
            self.validate_part(part, rows)?;
        }
        match self.state.iter().all(|change| change.bytes.len() % STATE_ENTRY_BYTES == 0) {
            true => Ok(()),
            false => Err("a change of state is no list of 32-byte entries"),
        }
    }

    fn validate_part(&self, part: &Part, rows: usize) -> Result<(), &'static str> {
        let tenant = |t: u32| (t as usize) < self.tenants.len();
        if part.from > part.to || part.resume > part.to {
            return Err("a part ends before it starts");
        }
        if part.rows.start > part.rows.end || part.rows.end as usize > rows {
            return Err("a part's rows lie outside of the frame");
        }
        if part.counts.iter().any(|c| !tenant(c.tenant) || c.records > COUNT_MAX || c.bytes > COUNT_MAX) {
            return Err("a count is of no tenant or out of bounds");
        }
        if part.notes.iter().any(|n| !tenant(n.0) || n.2 > COUNT_MAX) {
            return Err("a note is of no tenant or out of bounds");
        }
        let bytes = [part.records_bytes, part.framing_bytes, part.held_bytes.unsigned_abs(), part.to - part.from];
        if bytes.into_iter().chain(part.skipped.iter().map(|s| s.1)).any(|n| n > COUNT_MAX) {
            return Err("a part is larger than any");
        }
        if part.selected.iter().any(|s| !tenant(s.tenant) || s.records > COUNT_MAX || s.bytes > COUNT_MAX) {
            return Err("a selection is of no tenant or out of bounds");
        }
        for fact in &part.facts {
            let meter = self.meters.get(fact.meter as usize).ok_or("a fact is of no meter")?;
            if !tenant(fact.tenant) || fact.dims.len() != meter.dims.len() || fact.dims.iter().any(|v| *v as usize >= self.values.len()) {
                return Err("a fact is of no tenant or names a value that is not there");
            }
            if fact.event.as_ref().is_some_and(|event| event.end < event.at || event.key.len() > KEY_BYTES_MAX) {
                return Err("an event ends before it starts, or has a key longer than any");
            }
        }
        Ok(())
    }
}

fn put_list(out: &mut Vec<u8>, list: &[Box<[u8]>]) {
    put_len(out, list.len());
    for bytes in list {
        put_bytes(out, bytes);
    }
}

fn list(r: &mut Reader) -> Result<Vec<Box<[u8]>>, Corrupt> {
    let n = r.count(4)?;
    (0..n).map(|_| Ok(r.bytes()?.into())).collect()
}

fn meters(r: &mut Reader) -> Result<Vec<Meter>, Corrupt> {
    let n = r.count(13)?;
    let mut meters = Vec::with_capacity(n);
    for _ in 0..n {
        let (name, unit) = (r.text()?, r.text()?);
        let dims = r.count(4)?;
        let dims = (0..dims).map(|_| r.text()).collect::<Result<_, _>>()?;
        let lineage = match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(r.corrupt("a meter is neither of lineage nor not")),
        };
        meters.push(Meter { name, unit, dims, lineage });
    }
    Ok(meters)
}

fn state(r: &mut Reader) -> Result<Vec<StateChange>, Corrupt> {
    let n = r.count(8)?;
    (0..n).map(|_| Ok(StateChange { step: r.u32()?, bytes: r.bytes()?.to_vec() })).collect()
}

fn parts(r: &mut Reader, version: u8) -> Result<Vec<Part>, Corrupt> {
    let n = r.count(PART_BYTES_LEAST)?;
    (0..n).map(|_| Part::decode(r, version)).collect()
}

/// Of version 1: seven numbers of 8 bytes, two of 4, five lengths of 4.
const PART_BYTES_LEAST: usize = 7 * 8 + 2 * 4 + 5 * 4;
const FACT_BYTES_LEAST: usize = 4 + 4 + 8 + 16 + 8 + 4;

impl Part {
    /// Whether its bytes are accounted for: they are where it stands for itself alone.
    pub(crate) fn adds_up(&self) -> bool {
        let skipped: i128 = self.skipped.iter().map(|(_, bytes)| i128::from(*bytes)).sum();
        let used = i128::from(self.records_bytes) + i128::from(self.framing_bytes) + i128::from(self.held_bytes) + skipped;
        used == i128::from(self.to - self.from)
    }

    fn encode(&self, version: u8, out: &mut Vec<u8>) {
        put_u64s(out, &[self.stream.0, self.from, self.to, self.resume, self.before, self.records_bytes, self.framing_bytes]);
        put_i64(out, self.held_bytes);
        put_u32s(out, &[self.rows.start, self.rows.end]);
        put_len(out, self.also.len());
        for also in &self.also {
            put_u64s(out, &[also.stream.0, also.resume, also.done]);
        }
        put_len(out, self.skipped.len());
        for (skip, bytes) in &self.skipped {
            out.push(*skip as u8);
            put_u64(out, *bytes);
        }
        put_len(out, self.counts.len());
        for count in &self.counts {
            put_u32(out, count.tenant);
            out.push(count.outcome.code());
            put_u64s(out, &[count.records, count.bytes]);
        }
        put_len(out, self.notes.len());
        for (tenant, note, records) in &self.notes {
            put_u32(out, *tenant);
            out.push(*note as u8);
            put_u64(out, *records);
        }
        put_len(out, self.facts.len());
        for fact in &self.facts {
            put_u32s(out, &[fact.tenant, fact.meter]);
            put_i64(out, fact.minute);
            out.extend_from_slice(&fact.quantity.to_le_bytes());
            put_u64(out, fact.events);
            put_len(out, fact.dims.len());
            put_u32s(out, &fact.dims);
            if version >= 4 {
                put_event(out, fact.event.as_deref());
            }
        }
        if version < 3 {
            return;
        }
        put_len(out, self.selected.len());
        for selected in &self.selected {
            put_u32s(out, &[selected.tenant, selected.sinks]);
            put_u64s(out, &[selected.records, selected.bytes]);
        }
        if version >= 5 {
            out.push(self.signal as u8);
        }
    }

    fn decode(r: &mut Reader, version: u8) -> Result<Part, Corrupt> {
        let mut part = Part {
            stream: StreamId(r.u64()?),
            from: r.u64()?,
            to: r.u64()?,
            resume: r.u64()?,
            before: if version >= 2 { r.u64()? } else { 0 },
            records_bytes: r.u64()?,
            framing_bytes: r.u64()?,
            held_bytes: r.i64()?,
            rows: r.u32()?..r.u32()?,
            ..Part::default()
        };
        let n = r.count(24)?;
        part.also =
            (0..n).map(|_| Ok(Resumed { stream: StreamId(r.u64()?), resume: r.u64()?, done: r.u64()? })).collect::<Result<_, _>>()?;
        let n = r.count(9)?;
        part.skipped =
            (0..n).map(|_| Ok((Skip::from_code(r.u8()?).ok_or_else(|| r.corrupt("unknown skip"))?, r.u64()?))).collect::<Result<_, _>>()?;
        let n = r.count(21)?;
        part.counts = (0..n).map(|_| count(r)).collect::<Result<_, _>>()?;
        let n = r.count(13)?;
        part.notes = (0..n).map(|_| Ok((r.u32()?, note(r)?, r.u64()?))).collect::<Result<_, _>>()?;
        let n = r.count(FACT_BYTES_LEAST)?;
        part.facts = (0..n).map(|_| fact(r, version)).collect::<Result<_, _>>()?;
        if version >= 3 {
            let n = r.count(24)?;
            let selected = |r: &mut Reader| Ok(Selected { tenant: r.u32()?, sinks: r.u32()?, records: r.u64()?, bytes: r.u64()? });
            part.selected = (0..n).map(|_| selected(r)).collect::<Result<_, _>>()?;
        }
        if version >= 5 {
            part.signal = Signal::from_code(r.u8()?).ok_or_else(|| r.corrupt("unknown signal of a part"))?;
        }
        Ok(part)
    }
}

fn count(r: &mut Reader) -> Result<Count, Corrupt> {
    let tenant = r.u32()?;
    let outcome = Outcome::from_code(r.u8()?).ok_or_else(|| r.corrupt("unknown outcome"))?;
    Ok(Count { tenant, outcome, records: r.u64()?, bytes: r.u64()? })
}

fn note(r: &mut Reader) -> Result<Note, Corrupt> {
    let code = r.u8()?;
    Note::ALL.into_iter().find(|n| *n as u8 == code).ok_or_else(|| r.corrupt("unknown note"))
}

fn fact(r: &mut Reader, version: u8) -> Result<Fact, Corrupt> {
    let (tenant, meter, minute, quantity, events) = (r.u32()?, r.u32()?, r.i64()?, r.i128()?, r.u64()?);
    let n = r.count(4)?;
    let dims = r.u32s(n)?;
    Ok(Fact { tenant, meter, minute, quantity, events, dims, event: if version >= 4 { event(r)? } else { None } })
}

/// 0 for a sum, else 1 more than the kind, and what belongs to it.
fn put_event(out: &mut Vec<u8>, event: Option<&FactEvent>) {
    let Some(event) = event else { return out.push(0) };
    out.push(event.kind as u8 + 1);
    put_i64s(out, &[event.at.0, event.end.0]);
    put_u64(out, event.position);
    put_bytes(out, &event.key);
}

fn event(r: &mut Reader) -> Result<Option<Box<FactEvent>>, Corrupt> {
    let Some(code) = r.u8()?.checked_sub(1) else { return Ok(None) };
    let kind = EventKind::from_code(code).ok_or_else(|| r.corrupt("unknown kind of an event"))?;
    let (at, end, position) = (UnixNanos(r.i64()?), UnixNanos(r.i64()?), r.u64()?);
    Ok(Some(Box::new(FactEvent { kind, at, end, key: r.bytes()?.into(), position })))
}

/// Which of the columns that not every frame has are there.
const HAS_SINKS: u8 = 1;
const HAS_REQUESTS: u8 = 2;

impl Rows {
    /// Everything but the bytes themselves, which follow.
    pub(crate) fn encode_columns(&self, version: u8, out: &mut Vec<u8>) {
        put_len(out, self.len());
        put_len(out, self.columns.len());
        put_u32s(out, &self.ends);
        put_u32s(out, &self.tenant);
        put_i64s(out, &self.time);
        out.extend_from_slice(&self.severity);
        put_u32s(out, &self.weight);
        put_u64s(out, &self.position);
        put_u32s(out, &self.origin_bytes);
        put_u16s(out, &self.notes);
        if version >= 3 {
            let has_sinks = if self.sinks.is_empty() { 0 } else { HAS_SINKS };
            let has_requests = if self.requests.is_empty() { 0 } else { HAS_REQUESTS };
            out.push(has_sinks | has_requests);
        }
        put_u32s(out, &self.sinks);
        put_u64s(out, &self.requests);
        for column in &self.columns {
            let start = out.len();
            out.resize(start + column.len() * 8, 0);
            for (bytes, (offset, len)) in out[start..].chunks_exact_mut(8).zip(column) {
                bytes[..4].copy_from_slice(&offset.to_le_bytes());
                bytes[4..].copy_from_slice(&len.to_le_bytes());
            }
        }
        put_len(out, self.bytes.len());
    }

    fn decode(r: &mut Reader, version: u8) -> Result<Rows, Corrupt> {
        let n = r.count(35)?; // 35 bytes of a row are in the fixed columns
        let columns = r.u32()? as usize;
        if n == 0 && columns > 0xffff {
            return Err(r.corrupt("more columns than any plan has"));
        }
        let mut rows = Rows {
            ends: r.u32s(n)?,
            tenant: r.u32s(n)?,
            time: r.i64s(n)?,
            severity: r.take(n)?.to_vec(),
            weight: r.u32s(n)?,
            position: r.u64s(n)?,
            origin_bytes: r.u32s(n)?,
            notes: r.u16s(n)?,
            ..Rows::default()
        };
        if version >= 3 {
            let has = r.u8()?;
            if has & !(HAS_SINKS | HAS_REQUESTS) != 0 || (n == 0 && has != 0) {
                return Err(r.corrupt("rows have columns that nobody knows"));
            }
            rows.sinks = r.u32s(if has & HAS_SINKS != 0 { n } else { 0 })?;
            rows.requests = r.u64s(if has & HAS_REQUESTS != 0 { n } else { 0 })?;
        }
        for _ in 0..columns {
            let bytes = r.take(n * 8)?;
            let number = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes"));
            rows.columns.push(bytes.chunks_exact(8).map(|b| (number(&b[..4]), number(&b[4..]))).collect());
        }
        rows.bytes = r.bytes()?.to_vec();
        Ok(rows)
    }

    fn validate(&self, tenants: usize) -> Result<(), &'static str> {
        let n = self.len();
        let lengths = [
            self.tenant.len(),
            self.time.len(),
            self.severity.len(),
            self.weight.len(),
            self.position.len(),
            self.origin_bytes.len(),
            self.notes.len(),
        ];
        let optional = [self.sinks.len(), self.requests.len()];
        let differ = lengths.iter().any(|l| *l != n) || optional.iter().any(|l| *l != n && *l != 0);
        if differ || self.columns.iter().any(|c| c.len() != n) {
            return Err("columns of the rows differ in length");
        }
        if !self.ends.is_sorted() || self.ends.last().copied().unwrap_or(0) as usize != self.bytes.len() {
            return Err("rows do not fill their bytes in order");
        }
        if self.tenant.iter().any(|t| *t as usize >= tenants) {
            return Err("a row is of no tenant");
        }
        for column in &self.columns {
            let mut start = 0;
            for ((offset, len), end) in column.iter().zip(&self.ends) {
                if *offset != MISSING && offset.checked_add(*len).is_none_or(|stop| stop > end - start) {
                    return Err("a value lies outside of its row");
                }
                start = *end;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, Random};

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        for seed in 1..200 {
            let frame = sample::frame(&mut Random(seed));
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            assert_eq!(Frame::decode(&bytes).as_ref(), Ok(&frame), "seed {seed}");
            assert!(frame.bytes() >= frame.rows.bytes.len());
        }
        let mut bytes = Vec::new();
        Frame::default().encode(&mut bytes);
        assert_eq!(Frame::decode(&bytes), Ok(Frame::default()));
    }

    /// A frame of logs without events is byte for byte what an older release wrote and reads.
    #[test]
    fn a_version_is_written_only_where_it_is_needed() {
        let mut seen = [0; 6];
        for seed in 1..400 {
            let frame = sample::frame(&mut Random(seed));
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let has_event = frame.parts.iter().flat_map(|p| &p.facts).any(|f| f.event.is_some());
            let is_logs = frame.parts.iter().all(|p| p.signal == Signal::Logs);
            assert_eq!((bytes[0] == 5, bytes[0] >= 4), (!is_logs, has_event || !is_logs), "seed {seed}");
            seen[bytes[0] as usize] += 1;
        }
        assert!(seen[2..].iter().all(|n| *n > 20), "{seen:?}");
        // A sum in the present version, where version 2 does: refused, as there is one encoding.
        let mut frame = sample::plain(&[(1, 0, 10)], b"acme", 1);
        frame.meters.push(Meter::default());
        let event = FactEvent { kind: EventKind::Point, at: UnixNanos(0), end: UnixNanos(0), key: b"k"[..].into(), position: 1 };
        frame.parts[0].facts.push(Fact { event: Some(Box::new(event)), ..Fact::default() });
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(Frame::decode(&bytes).as_ref(), Ok(&frame));
        let kind = bytes.iter().rposition(|b| *b == b'k').expect("the key") - 4 - 8 - 16 - 1;
        assert_eq!(bytes[kind], 1, "a point");
        bytes[kind] = 99;
        assert_eq!(Frame::decode(&bytes).unwrap_err().what, "unknown kind of an event");
    }

    #[test]
    fn some_parts_of_a_frame_are_a_frame_with_their_rows() {
        for seed in 1..200 {
            let random = &mut Random(seed);
            let frame = sample::frame(random);
            let picked: Vec<usize> = (0..frame.parts.len()).filter(|_| random.below(2) == 0).collect();
            let some = frame.some_parts(&picked);
            assert_eq!(some.validate(), Ok(()), "seed {seed}");
            let rows = |frame: &Frame, part: &Part| -> Vec<(Vec<u8>, u32, u64)> {
                let row = |i: u32| (frame.rows.row(i as usize).to_vec(), frame.rows.tenant[i as usize], frame.rows.position[i as usize]);
                part.rows.clone().map(row).collect()
            };
            for (part, i) in some.parts.iter().zip(&picked) {
                let whole = &frame.parts[*i];
                assert_eq!(rows(&some, part), rows(&frame, whole), "seed {seed}");
                assert_eq!(&Part { rows: whole.rows.clone(), ..part.clone() }, whole, "seed {seed}");
                assert_eq!(frame.rows.bytes_of(&whole.rows), rows(&some, part).iter().map(|r| r.0.len() as u64).sum::<u64>());
            }
            let optional = |rows: &Rows| (rows.sinks.is_empty(), rows.requests.is_empty(), rows.columns.len());
            assert!(some.rows.is_empty() || optional(&some.rows) == optional(&frame.rows), "seed {seed}");
        }
    }

    #[test]
    fn damaged_bytes_give_an_error_or_a_valid_frame_and_never_a_panic() {
        let (mut refused, mut passed) = (0, 0);
        for seed in 1..4000u64 {
            let random = &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut bytes = Vec::new();
            sample::frame(random).encode(&mut bytes);
            for _ in 0..1 + random.below(4) {
                damage(&mut bytes, random);
            }
            match Frame::decode(&bytes) {
                Err(_) => refused += 1,
                Ok(frame) => {
                    passed += 1;
                    assert_eq!(frame.validate(), Ok(()), "seed {seed}");
                    let mut again = Vec::new();
                    frame.encode(&mut again);
                    assert_eq!(again, bytes, "seed {seed}: one meaning, one encoding");
                }
            }
        }
        assert!(refused > 500 && passed > 50, "the damage is neither always fatal nor never: {refused} {passed}");
    }

    fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.below(256) as u8),
            2 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&[0xff; 4]),
            3 if at + 8 <= bytes.len() => bytes[at..at + 8].copy_from_slice(&random.next().to_le_bytes()),
            4 => bytes.extend_from_slice(&[0; 40]),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }

    #[track_caller]
    fn refuse(change: impl Fn(&mut Frame), want: &str) {
        let mut frame = sample::plain(&[(1, 0, 10)], b"acme", 1);
        assert_eq!(frame.validate(), Ok(()));
        change(&mut frame);
        assert_eq!(frame.validate(), Err(want));
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert!(Frame::decode(&bytes).is_err(), "{want}");
    }

    #[test]
    fn an_index_or_span_that_points_nowhere_is_refused() {
        refuse(|f| f.rows.tenant[0] = 1, "a row is of no tenant");
        refuse(|f| f.rows.ends[0] += 1, "rows do not fill their bytes in order");
        refuse(|f| f.rows.columns = vec![vec![(1, u32::MAX - 1)]], "a value lies outside of its row");
        refuse(|f| f.parts[0].rows.end = 2, "a part's rows lie outside of the frame");
        refuse(|f| f.parts[0].rows.start = 2, "a part's rows lie outside of the frame");
        refuse(|f| f.parts[0].from = 11, "a part ends before it starts");
        refuse(|f| f.parts[0].resume = 11, "a part ends before it starts");
        refuse(|f| f.parts[0].counts[0].tenant = 1, "a count is of no tenant or out of bounds");
        refuse(|f| f.parts[0].notes.push((1, Note::NotJson, 1)), "a note is of no tenant or out of bounds");
        refuse(|f| f.parts[0].facts.push(Fact::default()), "a fact is of no meter");
        let event = |at, end, key: usize| FactEvent {
            kind: EventKind::Interval,
            at: UnixNanos(at),
            end: UnixNanos(end),
            key: vec![b'k'; key].into(),
            position: 9,
        };
        let with = |f: &mut Frame, event| {
            f.meters.push(Meter::default());
            f.parts[0].facts.push(Fact { event: Some(Box::new(event)), ..Fact::default() });
        };
        refuse(|f| with(f, event(1, 0, 3)), "an event ends before it starts, or has a key longer than any");
        refuse(|f| with(f, event(0, 1, KEY_BYTES_MAX + 1)), "an event ends before it starts, or has a key longer than any");
        refuse(|f| f.parts[0].selected.push(Selected { tenant: 1, ..Selected::default() }), "a selection is of no tenant or out of bounds");
        refuse(|f| f.sinks = vec![Box::default(); SINKS_MAX + 1], "a frame names more sinks than it can tell apart");
        refuse(|f| f.state.push(StateChange { step: 0, bytes: vec![0; 33] }), "a change of state is no list of 32-byte entries");
    }
}
