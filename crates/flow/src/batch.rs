//! Records in one arena of bytes exactly as received, plus columns about them.
//!
//! A batch is filled by `decode`, then each later stage reads some columns and writes others; no stage
//! reorders or removes records. Memory: the arena is bounded by the source (a chunk, the longest line and
//! what was joined); columns take 62 bytes a record and 12 for each field the plan names.

use crate::condition::Columns;
use crate::event::{Note, Outcome, Reason, Severity, Skip, StreamId};
use crate::fields::Span;
use crate::labels::Column;
use crate::meter::AHEAD_NS_MAX;
use crate::units::UnixNanos;
use std::sync::Arc;

/// In [`Batch::sampler`] and [`Batch::dropped_by`]: no step.
pub const NO_STEP: u16 = u16::MAX;
/// In [`Batch::diverted`]: to nobody.
pub const NO_SINK: u8 = u8::MAX;
/// In [`Batch::dropped_by`]: what comes before the steps.
pub const BEFORE_STEPS: u16 = u16::MAX - 1;

#[derive(Default)]
pub struct Batch {
    /// Bytes as received; joined records stand behind them.
    pub arena: Vec<u8>,
    /// When the chunk was read; stands in for the time of records that have none.
    pub arrival: UnixNanos,
    /// When somebody who trusts the clock had the records: what is of a time more than 5 minutes later is refused by meters (rule R13).
    /// `None`: nobody asks.
    pub receipt: Option<UnixNanos>,
    /// Content of record i: `arena[start[i]..end[i]]`, without line end and without the runtime's prefix.
    pub start: Vec<u32>,
    pub end: Vec<u32>,
    /// How many bytes before `start` the runtime's time stands; 0 where there is none.
    pub prefix: Vec<u32>,
    /// Offset in the stream at which record i was complete (behind its newline).
    pub position: Vec<u64>,
    /// What record i took up in its stream, without line ends.
    pub origin_bytes: Vec<u32>,
    /// Bits of [`Note`].
    pub notes: Vec<u32>,
    /// `fields` spans for each record, one record after the other.
    pub spans: Vec<Span>,
    pub fields: usize,
    /// Records are read as JSON; else no field is present.
    pub is_json: bool,
    pub time: Vec<UnixNanos>,
    pub severity: Vec<Severity>,
    /// Numbers of [`crate::tenancy::Tenants`].
    pub tenant: Vec<u32>,
    pub outcome: Vec<Outcome>,
    /// No meter counts record i, whatever its outcome: it is not ours, or nobody can tell what it says.
    pub unmetered: Vec<bool>,
    /// A filter dropped it, but says that meters count it all the same (`metered: anyway`).
    pub metered_anyway: Vec<bool>,
    /// Records whose own time is of a year after 2100, and the field that says so: they have their arrival's.
    pub beyond: Vec<(u32, u16)>,
    /// How many records this one stands for, itself included.
    pub weight: Vec<u32>,
    /// Number of the step that dropped the record for volume, or that last gave it a weight; [`NO_STEP`]: none.
    pub sampler: Vec<u16>,
    /// Number of the step that dropped the record; [`NO_STEP`]: none.
    pub dropped_by: Vec<u16>,
    /// Number of the step that decides now, or [`BEFORE_STEPS`].
    pub step: u16,
    /// Number of the sink that alone takes the record, as [`crate::select::Selection`] counts them, or [`NO_SINK`]. Empty: none.
    pub diverted: Vec<u8>,
    /// Who takes the record, if it is kept: a bit for each sink. Empty where nobody asks.
    pub sinks: Vec<u32>,
    /// Which request each record is of, as a `tail` step marks it; empty where there is none.
    pub requests: Vec<u64>,
    /// Who pays, where the records' own fields do not say it alone.
    pub payer: Payer,
    /// The time that a parser found, or [`crate::parse::NO_TIME`]; empty where nothing is parsed.
    pub parsed_time: Vec<i64>,
    /// Records that no parser took and that are to be dropped for it. Empty: none.
    pub refused: Vec<bool>,
    /// Records that their pod asked to leave out: they are dropped as filtered. Empty: none.
    pub left_out: Vec<bool>,
    /// The stream that the records are of, and the number of its source in the pipeline.
    pub stream: StreamId,
    pub source: u16,
    /// Values of the request labels, where somebody reads them.
    pub labels: Column,
    /// The log that the stream is of: the same in every run.
    pub log: u64,
    /// Until when nothing more of the log is to be read, as a quota is used up; `None`: read on.
    pub rests_until: Option<UnixNanos>,
    /// Records that repeat an earlier one, in order: which, and the stream and position of the first.
    pub copies: Vec<(u32, StreamId, u64)>,
    /// What these records changed in the state of steps, as (step, entry): it travels in the frame they travel in.
    pub changes: Vec<(u32, [u8; 32])>,
    /// Use of the bytes between the records.
    pub law: Law,
}

/// Who pays for the records of a batch, which are all of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Payer {
    /// Whom each record names.
    #[default]
    Record,
    /// This tenant, or else the unknown one; what a record says of tenants is not read.
    Named(Option<Arc<[u8]>>),
    /// Whom the record names; this tenant if it names nobody.
    RecordOr(Arc<[u8]>),
}

/// What became of the bytes of a stretch of a stream.
///
/// `records + framing + skipped + held` is what was read; `held` is negative where records were completed
/// that began before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Law {
    pub records_bytes: u64,
    pub framing_bytes: u64,
    pub skipped: Vec<(Skip, u64)>,
    pub held_bytes: i64,
}

impl Law {
    pub fn skip(&mut self, reason: Skip, bytes: u64) {
        match self.skipped.iter_mut().find(|s| s.0 == reason) {
            Some(entry) => entry.1 += bytes,
            None => self.skipped.push((reason, bytes)),
        }
    }

    /// All bytes accounted for.
    pub fn total(&self) -> i64 {
        let skipped: u64 = self.skipped.iter().map(|s| s.1).sum();
        (self.records_bytes + self.framing_bytes + skipped) as i64 + self.held_bytes
    }

    pub fn add(&mut self, other: &Law) {
        self.records_bytes += other.records_bytes;
        self.framing_bytes += other.framing_bytes;
        self.held_bytes += other.held_bytes;
        for (reason, bytes) in &other.skipped {
            self.skip(*reason, *bytes);
        }
    }
}

impl Batch {
    pub fn len(&self) -> usize {
        self.start.len()
    }

    pub fn is_empty(&self) -> bool {
        self.start.is_empty()
    }

    /// Forgets the records, keeps the arena and all memory.
    pub fn clear_records(&mut self) {
        self.start.clear();
        self.end.clear();
        self.prefix.clear();
        self.position.clear();
        self.origin_bytes.clear();
        self.notes.clear();
        self.payer = Payer::Record;
        self.parsed_time.clear();
        self.refused.clear();
        self.left_out.clear();
        self.copies.clear();
        self.diverted.clear();
        self.sinks.clear();
        self.changes.clear();
        self.rests_until = None;
        self.law = Law::default();
    }

    /// Adds a record; the other columns are written by the stages.
    pub fn push(&mut self, start: usize, end: usize, position: u64, origin_bytes: usize, notes: u32) {
        self.start.push(start as u32);
        self.end.push(end as u32);
        self.prefix.push(0);
        self.position.push(position);
        self.origin_bytes.push(origin_bytes as u32);
        self.notes.push(notes);
        self.law.records_bytes += origin_bytes as u64;
    }

    /// The record pushed last has the runtime's time this many bytes before its content.
    pub fn set_prefix(&mut self, bytes: usize) {
        *self.prefix.last_mut().expect("a record was pushed before") = bytes as u32;
    }

    /// Record `i` becomes `content`, which stands behind all else in `arena` (this batch's own, taken out); its runtime's time is
    /// still found.
    pub(crate) fn stand_anew(&mut self, i: usize, arena: &mut Vec<u8>, content: &[u8]) {
        let prefix = self.start[i] - self.prefix[i]..self.start[i];
        arena.extend_from_within(prefix.start as usize..prefix.end as usize);
        self.start[i] = arena.len() as u32;
        arena.extend_from_slice(content);
        self.end[i] = arena.len() as u32;
    }

    /// Nothing is decided about any record yet.
    pub fn undecided(&mut self) {
        let n = self.len();
        fill(&mut self.outcome, n, Outcome::Kept);
        fill(&mut self.unmetered, n, false);
        fill(&mut self.metered_anyway, n, false);
        fill(&mut self.weight, n, 1);
        fill(&mut self.sampler, n, NO_STEP);
        fill(&mut self.dropped_by, n, NO_STEP);
        self.requests.clear();
        self.step = BEFORE_STEPS;
    }

    /// The runtime's time of record `i`, as text; empty where there is none.
    pub fn outer_time(&self, i: usize) -> &[u8] {
        let start = self.start[i] as usize;
        let text = &self.arena[start - self.prefix[i] as usize..start];
        text.split(|b| *b == b' ').next().unwrap_or(text)
    }

    /// Content of record `i`.
    #[inline(always)]
    pub fn record(&self, i: usize) -> &[u8] {
        &self.arena[self.start[i] as usize..self.end[i] as usize]
    }

    /// The spans of record `i`, one per field of the plan.
    #[inline(always)]
    pub fn record_spans(&self, i: usize) -> &[Span] {
        &self.spans[i * self.fields..(i + 1) * self.fields]
    }

    /// The first of `candidates` that record `i` has.
    #[inline(always)]
    pub fn first_present(&self, i: usize, candidates: &[usize]) -> Option<Span> {
        let spans = self.record_spans(i);
        candidates.iter().map(|f| spans[*f]).find(|s| !matches!(s.kind, crate::fields::Kind::Missing | crate::fields::Kind::Null))
    }

    pub fn note(&mut self, i: usize, note: Note) {
        self.notes[i] |= note.bit();
    }

    /// Drops record `i` for `outcome` unless an earlier step dropped it: the first drop wins.
    pub fn decide(&mut self, i: usize, outcome: Outcome) {
        if self.outcome[i] == Outcome::Kept {
            self.outcome[i] = outcome;
            self.dropped_by[i] = self.step;
        }
    }

    /// Drops record `i` for volume: the first drop wins.
    #[inline(always)]
    pub fn leave_out(&mut self, i: usize, reason: Reason) {
        if self.outcome[i] == Outcome::Kept {
            self.outcome[i] = Outcome::Dropped(reason);
            (self.dropped_by[i], self.sampler[i]) = (self.step, self.step);
        }
    }

    /// Record `i`, if it stays kept, goes to this sink alone: the first diversion wins.
    pub fn divert(&mut self, i: usize, sink: u8) {
        self.diverted.resize(self.len(), NO_SINK);
        if self.diverted[i] == NO_SINK {
            self.diverted[i] = sink;
        }
    }

    /// The latest time that a meter takes for one of the past, in ns.
    pub fn latest_time(&self) -> i64 {
        self.receipt.map_or(i64::MAX, |receipt| receipt.0.saturating_add(AHEAD_NS_MAX))
    }

    /// Every column speaks of every record.
    pub fn assert_complete(&self) {
        let n = self.len();
        assert!(
            self.end.len() == n
                && self.position.len() == n
                && self.spans.len() == n * self.fields
                && self.time.len() == n
                && self.tenant.len() == n
                && self.outcome.len() == n
                && self.weight.len() == n
                && self.sampler.len() == n
                && self.dropped_by.len() == n
                && (self.requests.is_empty() || self.requests.len() == n),
            "a stage left a column short"
        );
    }
}

fn fill<T: Clone>(column: &mut Vec<T>, n: usize, value: T) {
    column.clear();
    column.resize(n, value);
}

impl Columns for Batch {
    fn len(&self) -> usize {
        self.start.len()
    }

    fn line(&self, i: usize) -> &[u8] {
        self.record(i)
    }

    fn span(&self, field: usize, i: usize) -> Span {
        self.spans[i * self.fields + field]
    }

    fn spans(&self, i: usize) -> &[Span] {
        self.record_spans(i)
    }
}
