//! From decided batches to a frame: the last thing a lane does.
//!
//! In: batches whose records have their verdicts, stretch by stretch of their streams. Out: frames whose
//! parts hold the kept rows, the counts, the notes and the facts of one stretch each. A frame closes at
//! [`FRAME_ROWS_BYTES`] of kept rows, [`FRAME_READ_BYTES`] read, or as many facts as a meter may hold; the
//! lane closes it after 200 ms.

use crate::examples::{Example, PER_FRAME_MAX};
use crate::plan::Plan;
use flow::batch::{Batch, NO_STEP};
use flow::debts::{Closing, Summary};
use flow::event::{Note, Outcome, Position, Reason, Signal, StreamId};
use flow::fields::{Kind, Scanner, Span};
use flow::meter::{ClosedEvent, SUMS_MAX, Sums};
use flow::pipeline::Rules;
use flow::stamp::{Moves, stamp};
use flow::step::Step;
use flow::step::tail::KEEP;
use flow::tenancy::UNKNOWN;
use flow::units::UnixNanos;
use hub::frame::{Count, Fact, FactEvent, Frame, MISSING, Meter, Part, Resumed, Rows, Selected, StateChange};
use std::collections::HashMap;
use std::sync::Arc;

/// Kept bytes after which a frame closes: small enough to group-commit often, large enough to make calls rare.
pub const FRAME_ROWS_BYTES: usize = 1 << 20;
/// A full frame grows by the last chunk's rows: so much more is kept ready, or half of it is copied to grow.
const FRAME_ROWS_MORE: usize = super::tail::CHUNK_BYTES;
/// Bytes read after which a frame closes, however little of them is kept: bounds what a crash decides anew.
pub const FRAME_READ_BYTES: u64 = 16 << 20;

/// The frame that a lane is filling.
pub struct Builder {
    rules: Arc<Rules>,
    /// Fields that sinks route by, in the order of `Rows::columns`.
    columns: Vec<usize>,
    routes: u64,
    /// Finds those fields in what is created here.
    scanner: Scanner,
    /// Names of the steps that sample, by number.
    samplers: Vec<Arc<str>>,
    /// The stream of what is created here, and how far it is.
    created: (StreamId, u64),
    /// A lane's: it takes along what its steps changed, and rows say of which request they are if a step asks for it.
    is_lane: bool,
    marks: bool,
    /// First meter of each group in `Frame::meters`.
    first_meter: Vec<u32>,
    meters: Vec<Meter>,
    frame: Frame,
    /// Number in the tenant table to index in the frame's dictionary.
    tenants: Vec<u32>,
    values: HashMap<Box<[u8]>, u32>,
    pub sums: Sums,
    /// Facts of the parts that are finished, as [`Sums::len`] counts them.
    facts: usize,
    /// Newest event time of the frame; what is of the future counts as its receipt.
    received: UnixNanos,
    /// Kept, then each reason: (records, bytes) per tenant of the frame's dictionary, for the part being filled.
    counts: Vec<[(u64, u64); OUTCOMES]>,
    notes: Vec<[u64; Note::ALL.len()]>,
    /// Kept records that not every sink takes, per tenant: (who takes them, records, bytes), for the part being filled.
    selected: Vec<Vec<(u32, u64, u64)>>,
    open: bool,
    read_bytes: u64,
    /// Some of the records that were dropped.
    pub examples: Vec<Example>,
}

const OUTCOMES: usize = 1 + flow::event::Reason::ALL.len();
const NOWHERE: u32 = u32::MAX;

/// One stretch of a stream, as decided.
pub struct Stretch {
    pub stream: StreamId,
    /// Position before.
    pub from: u64,
    pub to: Position,
    pub also: Vec<Resumed>,
}

impl Builder {
    /// `created`: the stream of what this lane creates, and how far it is.
    pub fn of(plan: &Plan, created: (StreamId, u64)) -> Builder {
        let (rules, columns) = (Arc::clone(&plan.rules), plan.columns.clone());
        let mut first_meter = Vec::new();
        let mut meters = Vec::new();
        for group in &rules.meters.groups {
            first_meter.push(meters.len() as u32);
            for meter in &group.meters {
                let dims = group.dims.iter().map(|d| d.0.clone()).collect();
                meters.push(Meter { name: meter.name.clone(), unit: meter.unit.clone(), dims, lineage: meter.lineage });
            }
        }
        let names: Vec<&str> = columns.iter().map(|c| rules.fields.paths()[*c].as_str()).collect();
        let mut builder = Builder {
            routes: crate::plan::routes(&names),
            scanner: Scanner::new(Arc::clone(&rules.fields)),
            samplers: rules.steps.iter().map(|step| step.terms().map_or_else(|| "".into(), |terms| terms.name)).collect(),
            created,
            is_lane: true,
            marks: rules.steps.iter().any(|step| matches!(step, Step::Tail(_))),
            rules,
            columns,
            first_meter,
            meters,
            frame: Frame::default(),
            tenants: Vec::new(),
            values: HashMap::new(),
            sums: Sums::default(),
            facts: 0,
            received: UnixNanos(i64::MIN),
            counts: Vec::new(),
            notes: Vec::new(),
            selected: Vec::new(),
            open: false,
            read_bytes: 0,
            examples: Vec::with_capacity(PER_FRAME_MAX),
        };
        builder.start_frame();
        builder
    }

    /// Of the decider, which goes on with frames that lanes closed.
    pub fn of_decider(plan: &Plan, created: (StreamId, u64)) -> Builder {
        Builder { is_lane: false, marks: false, ..Builder::of(plan, created) }
    }

    /// Goes on with a frame that was closed before, of the same columns.
    pub fn adopt(&mut self, frame: Frame) {
        debug_assert!(self.is_empty() && frame.routes == self.routes);
        self.frame = frame;
        for index in 0..self.frame.tenants.len() {
            let number = self.rules.tenants.number(&self.frame.tenants[index]).unwrap_or(UNKNOWN) as usize;
            if self.tenants.len() <= number {
                self.tenants.resize(number + 1, NOWHERE);
            }
            self.tenants[number] = index as u32;
        }
    }

    fn start_frame(&mut self) {
        self.frame = Frame { meters: self.meters.clone(), newest: UnixNanos(i64::MIN), routes: self.routes, ..Frame::default() };
        self.frame.sinks.clone_from(&self.rules.selection.names);
        self.frame.rows.columns = vec![Vec::new(); self.columns.len()];
        self.tenants.clear();
        self.values.clear();
        self.read_bytes = 0;
        self.facts = 0;
        self.received = UnixNanos(i64::MIN);
        self.sums.start_frame();
    }

    /// Bytes that a chunk should have at most: where each record may become many facts, a frame is full before it is too large.
    pub fn chunk_bytes_max(&self) -> usize {
        super::tail::CHUNK_BYTES / (self.rules.meters.event_meters() / 4).max(1)
    }

    /// Call before the records of a stretch are decided: their sums belong to a part of this stream.
    pub fn enter(&mut self, stream: StreamId, signal: Signal, from: u64) {
        let goes_on = self.open && self.frame.parts.last().is_some_and(|part| part.stream == stream && part.to == from);
        if !goes_on {
            self.finish_part();
            let row = self.frame.rows.len() as u32;
            self.frame.parts.push(Part { stream, signal, from, to: from, resume: from, rows: row..row, ..Part::default() });
            self.open = true;
        }
    }

    /// Adds a decided batch, which is the stretch `stretch`, to the part entered before.
    pub fn add(&mut self, batch: &Batch, stretch: Stretch) {
        let latest = batch.latest_time();
        for i in 0..batch.len() {
            let tenant = self.tenant(batch.tenant[i]);
            let outcome = batch.outcome[i];
            let count = &mut self.counts[tenant as usize][outcome.code() as usize];
            count.0 += 1;
            count.1 += u64::from(batch.origin_bytes[i]);
            if count.0 == 1
                && let Outcome::Dropped(reason) = outcome
            {
                self.push_example(batch, i, reason, stretch.stream);
            }
            if batch.notes[i] != 0 {
                self.count_notes(tenant, batch.notes[i]);
            }
            self.frame.newest = self.frame.newest.max(batch.time[i]);
            let is_past = batch.time[i].0 <= latest;
            self.received = self.received.max(if is_past { batch.time[i] } else { batch.receipt.unwrap_or(batch.time[i]) });
            if outcome == Outcome::Kept {
                self.push_row(batch, i, tenant);
                if let Some(sinks) = batch.sinks.get(i) {
                    self.select(tenant, *sinks, u64::from(batch.origin_bytes[i]));
                }
            }
        }
        self.push_conflict(batch, stretch.stream);
        let part = self.frame.parts.last_mut().expect("a part was entered before");
        debug_assert_eq!((part.stream, part.to), (stretch.stream, stretch.from));
        self.read_bytes += stretch.to.done - stretch.from;
        part.to = stretch.to.done;
        part.resume = stretch.to.resume;
        part.before = stretch.to.before;
        for resumed in stretch.also {
            part.also.retain(|r| r.stream != resumed.stream);
            part.also.push(resumed);
        }
        part.records_bytes += batch.law.records_bytes;
        part.framing_bytes += batch.law.framing_bytes;
        part.held_bytes += batch.law.held_bytes;
        for (reason, bytes) in &batch.law.skipped {
            match part.skipped.iter_mut().find(|s| s.0 == *reason) {
                Some(entry) => entry.1 += bytes,
                None => part.skipped.push((*reason, *bytes)),
            }
        }
        part.rows.end = self.frame.rows.len() as u32;
        for (step, entry) in &batch.changes {
            self.change(*step).extend_from_slice(entry);
        }
    }

    /// What this frame changes in the state of a step.
    fn change(&mut self, step: u32) -> &mut Vec<u8> {
        let state = &mut self.frame.state;
        let at = state.iter().position(|change| change.step == step).unwrap_or_else(|| {
            state.push(StateChange { step, bytes: Vec::new() });
            state.len() - 1
        });
        &mut state[at].bytes
    }

    /// The first record that a tenant lost for this reason in this stretch.
    #[cold]
    fn push_example(&mut self, batch: &Batch, i: usize, reason: Reason, stream: StreamId) {
        if self.examples.len() < PER_FRAME_MAX {
            let tenant = self.rules.tenants.name(batch.tenant[i]);
            // What an earlier step dropped no later one redacted.
            let redacts = self.rules.steps.iter().any(|step| matches!(step, Step::Redact(_) | Step::Shape(_)));
            let record = if redacts { b"(not shown, as this pipeline redacts)" } else { batch.record(i) };
            let mut example = Example::new(tenant.as_ref(), reason, stream, batch.position[i], batch.time[i], record);
            let is_copy = matches!(reason, Reason::Duplicate | Reason::Conflict);
            let copy = batch.copies.iter().find(|copy| is_copy && copy.0 as usize == i);
            example.first = copy.map(|(_, stream, position)| (stream.0, *position));
            example.is_kept = batch.outcome[i] == Outcome::Kept;
            self.examples.push(example);
        }
    }

    /// The first record of this stretch that says something else than the one whose key it has, and was kept.
    fn push_conflict(&mut self, batch: &Batch, stream: StreamId) {
        let is_kept = |copy: &&(u32, StreamId, u64)| batch.outcome[copy.0 as usize] == Outcome::Kept;
        if let Some((i, ..)) = batch.copies.iter().find(is_kept) {
            self.push_example(batch, *i as usize, Reason::Conflict, stream);
        }
    }

    #[inline(always)]
    fn push_row(&mut self, batch: &Batch, i: usize, tenant: u32) {
        let rows = &mut self.frame.rows;
        if rows.bytes.capacity() == 0 {
            rows.bytes.reserve(FRAME_ROWS_BYTES + FRAME_ROWS_MORE);
        }
        if batch.weight[i] > 1 && batch.sampler[i] != NO_STEP {
            return self.push_stamped(batch, i, tenant);
        }
        rows.bytes.extend_from_slice(batch.record(i));
        push_columns(rows, batch, i, tenant);
        let spans = batch.record_spans(i);
        for (column, field) in rows.columns.iter_mut().zip(&self.columns) {
            column.push(value_span(spans[*field]));
        }
    }

    /// Notes who takes the row that was pushed last.
    fn select(&mut self, tenant: u32, sinks: u32, bytes: u64) {
        self.frame.rows.sinks.push(sinks);
        if sinks == self.rules.selection.all() {
            return;
        }
        let own = &mut self.selected[tenant as usize];
        match own.iter_mut().find(|entry| entry.0 == sinks) {
            Some(entry) => (entry.1, entry.2) = (entry.1 + 1, entry.2 + bytes),
            None => own.push((sinks, 1, bytes)), // few ways to be taken occur
        }
    }

    /// A row that says how many records it stands for, if it can.
    fn push_stamped(&mut self, batch: &Batch, i: usize, tenant: u32) {
        let rows = &mut self.frame.rows;
        let spans = batch.record_spans(i);
        let sampling = &self.rules.sampling;
        let is_object = batch.is_json && batch.notes[i] & (Note::NotJson.bit() | Note::TooDeep.bit()) == 0;
        let moves = match (sampling.rate, sampling.sampler) {
            (Some(rate), Some(sampler)) if is_object => {
                let name = &self.samplers[batch.sampler[i] as usize];
                stamp(batch.record(i), spans[rate], spans[sampler], batch.weight[i], name, &mut rows.bytes)
            }
            // Only the column tells it.
            _ => {
                rows.bytes.extend_from_slice(batch.record(i));
                Moves::default()
            }
        };
        push_columns(rows, batch, i, tenant);
        for (column, field) in rows.columns.iter_mut().zip(&self.columns) {
            let span = spans[*field];
            column.push(value_span(Span { start: moves.place(span.start), end: moves.place(span.end), ..span }));
        }
    }

    #[inline(always)]
    fn tenant(&mut self, number: u32) -> u32 {
        match self.tenants.get(number as usize) {
            Some(index) if *index != NOWHERE => *index,
            _ => self.add_tenant(number),
        }
    }

    #[cold]
    fn add_tenant(&mut self, number: u32) -> u32 {
        let slot = number as usize;
        if self.tenants.len() <= slot {
            self.tenants.resize(slot + 1, NOWHERE);
        }
        let index = self.frame.tenants.len() as u32;
        self.frame.tenants.push(self.rules.tenants.name(number).as_ref().into());
        self.tenants[slot] = index;
        self.counts.resize(self.counts.len().max(index as usize + 1), [(0, 0); OUTCOMES]);
        self.notes.resize(self.notes.len().max(index as usize + 1), [0; Note::ALL.len()]);
        self.selected.resize(self.selected.len().max(index as usize + 1), Vec::new());
        index
    }

    #[cold]
    fn count_notes(&mut self, tenant: u32, notes: u32) {
        for note in Note::ALL {
            if notes & note.bit() != 0 {
                self.notes[tenant as usize][note as usize] += 1;
            }
        }
    }

    /// Ends the part being filled: its sums become facts, its counts are written down.
    pub fn finish_part(&mut self) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let sums = std::mem::take(&mut self.sums);
        let facts = self.facts_of(&sums);
        self.facts += sums.len();
        self.sums = sums;
        self.sums.clear();
        let part = self.frame.parts.last_mut().expect("an open part is the last one");
        part.facts = facts;
        for (tenant, counts) in self.counts.iter_mut().enumerate() {
            for (code, (records, bytes)) in counts.iter_mut().enumerate().filter(|(_, c)| c.0 > 0) {
                let outcome = Outcome::from_code(code as u8).expect("counts have one slot per outcome");
                part.counts.push(Count { tenant: tenant as u32, outcome, records: *records, bytes: *bytes });
                (*records, *bytes) = (0, 0);
            }
        }
        for (tenant, notes) in self.notes.iter_mut().enumerate() {
            for note in Note::ALL {
                let count = std::mem::take(&mut notes[note as usize]);
                if count > 0 {
                    part.notes.push((tenant as u32, note, count));
                }
            }
        }
        for (tenant, selected) in self.selected.iter_mut().enumerate() {
            let entry = |(sinks, records, bytes)| Selected { tenant: tenant as u32, sinks, records, bytes };
            part.selected.extend(selected.drain(..).map(entry));
        }
        if part.from == part.to && part.rows.is_empty() && part.counts.is_empty() && part.also.is_empty() {
            self.frame.parts.pop();
        }
    }

    /// Sums in the order in which they were begun, then what is one event each.
    fn facts_of(&mut self, sums: &Sums) -> Vec<Fact> {
        let mut facts = Vec::new();
        // Of rows that events name: sums need no more of them.
        let (has_events, mut rows) = (sums.events().next().is_some(), Vec::new());
        for row in sums.iter() {
            let dims: Vec<u32> = row.dims.iter().map(|value| self.value(value)).collect();
            let tenant = self.tenant(row.tenant);
            for (n, quantity) in row.quantities.iter().enumerate().filter(|(_, q)| q.events > 0) {
                let meter = self.first_meter[row.group] + n as u32;
                let (quantity, events) = (quantity.total, quantity.events);
                facts.push(Fact { tenant, meter, minute: row.minute, dims: dims.clone(), quantity, events, event: None });
            }
            if has_events {
                rows.push((tenant, row.group, row.minute, dims));
            }
        }
        for ClosedEvent { row, meter, kind, events, quantity, at, end, position, key } in sums.events() {
            let (tenant, group, minute, dims) = &rows[row];
            facts.push(Fact {
                tenant: *tenant,
                meter: self.first_meter[*group] + meter as u32,
                minute: *minute,
                dims: dims.clone(),
                quantity: quantity.into(),
                events,
                event: Some(Box::new(FactEvent { kind, at, end, key: key.into(), position })),
            });
        }
        facts
    }

    /// The stream of what is created, and how far it is.
    pub fn created(&self) -> (StreamId, u64) {
        self.created
    }

    /// Takes what steps remember out of the hub's account.
    pub fn forget(&mut self, step_ids: &[u32]) {
        self.frame.state.extend(step_ids.iter().map(|id| StateChange { step: *id, bytes: Vec::new() }));
    }

    /// Adds what the frame takes along: summaries as rows of a part of their own, changed debts.
    pub fn add_created(&mut self, closing: Closing) {
        for (step, bytes) in closing.changes {
            self.frame.state.push(StateChange { step, bytes });
        }
        if closing.summaries.is_empty() {
            return;
        }
        self.finish_part();
        let (stream, from) = self.created;
        let start = self.frame.rows.len() as u32;
        self.frame.parts.push(Part { stream, from, rows: start..start, ..Part::default() });
        for summary in &closing.summaries {
            summary.weights().for_each(|weight| self.push_created(summary, weight));
        }
        let to = self.created.1;
        let rows = self.frame.rows.len() as u32;
        let part = self.frame.parts.last_mut().expect("pushed just before");
        (part.to, part.resume, part.rows.end) = (to, to, rows);
    }

    /// A line of the stream of what is created: so its name is its offset there, like any other's.
    fn push_created(&mut self, summary: &Summary, weight: u32) {
        let tenant = self.tenant(summary.tenant);
        let rows = &mut self.frame.rows;
        let start = rows.bytes.len();
        summary.write(weight, &self.rules, &mut rows.bytes);
        let selection = &self.rules.selection;
        // A frame that waited may be of a plan with other sinks: each of those takes it.
        let all = ((1u64 << self.frame.sinks.len()) - 1) as u32;
        let created = if self.frame.sinks == selection.names { selection.created() } else { all };
        rows.sinks.extend((all > 0).then_some(created));
        let bytes = rows.bytes.len() - start;
        let mut spans = vec![Span::default(); self.rules.fields.len()];
        self.scanner.scan(&rows.bytes[start..], &mut spans);
        for (column, field) in rows.columns.iter_mut().zip(&self.columns) {
            column.push(value_span(spans[*field]));
        }
        self.created.1 += bytes as u64 + 1;
        rows.ends.push(rows.bytes.len() as u32);
        rows.tenant.push(tenant);
        rows.time.push(summary.time.0);
        rows.severity.push(summary.severity());
        rows.weight.push(weight);
        rows.position.push(self.created.1);
        rows.origin_bytes.push(bytes as u32);
        rows.notes.push(0);
        if self.marks {
            rows.requests.push(KEEP);
        }
        self.frame.newest = self.frame.newest.max(summary.time);
        self.received = self.received.max(summary.time);
        let part = self.frame.parts.last_mut().expect("the part of what is created");
        part.records_bytes += bytes as u64;
        part.framing_bytes += 1;
        let outcome = Outcome::Created;
        match part.counts.iter_mut().find(|count| count.tenant == tenant) {
            Some(count) => (count.records, count.bytes) = (count.records + 1, count.bytes + bytes as u64),
            None => part.counts.push(Count { tenant, outcome, records: 1, bytes: bytes as u64 }),
        }
        if created != all {
            match part.selected.iter_mut().find(|selected| selected.tenant == tenant) {
                Some(selected) => (selected.records, selected.bytes) = (selected.records + 1, selected.bytes + bytes as u64),
                None => part.selected.push(Selected { tenant, sinks: created, records: 1, bytes: bytes as u64 }),
            }
        }
    }

    fn value(&mut self, value: &[u8]) -> u32 {
        if let Some(index) = self.values.get(value) {
            return *index;
        }
        let index = self.frame.values.len() as u32;
        self.frame.values.push(value.into());
        self.values.insert(value.into(), index);
        index
    }

    /// Has nothing been added since the last frame?
    pub fn is_empty(&self) -> bool {
        self.frame.parts.is_empty() && self.frame.state.is_empty()
    }

    /// Is it time to close, whatever the clock says? `rows_bytes`: so much is enough, if it is less than a frame may hold.
    pub fn is_full(&self, rows_bytes: u64) -> bool {
        self.frame.rows.bytes.len() as u64 >= rows_bytes.min(FRAME_ROWS_BYTES as u64)
            || self.read_bytes >= FRAME_READ_BYTES
            || self.facts + self.sums.len() >= SUMS_MAX
    }

    /// Closes the frame. `received`: the wall clock, or `None` to take the newest event time instead, less what is of the future.
    pub fn close(&mut self, received: Option<UnixNanos>) -> Frame {
        self.finish_part();
        let mut frame = std::mem::take(&mut self.frame);
        frame.rows.bytes.shrink_to_fit(); // a hub counts what is reserved
        if frame.parts.iter().all(|part| part.selected.is_empty()) {
            frame.sinks.clear();
            frame.rows.sinks.clear();
        }
        if frame.newest.0 == i64::MIN {
            frame.newest = UnixNanos(0);
        }
        let newest = if self.received.0 == i64::MIN { frame.newest } else { self.received };
        frame.received = received.unwrap_or(newest);
        for (step, rules_step) in self.rules.steps.iter().enumerate().filter(|_| self.is_lane) {
            let mut bytes = Vec::new();
            rules_step.take_changes(&mut bytes);
            if !bytes.is_empty() {
                frame.state.push(StateChange { step: self.rules.step_ids[step], bytes });
            }
        }
        self.start_frame();
        frame
    }
}

/// Where a value lies in its row, as frames say it.
pub fn value_span(span: Span) -> (u32, u32) {
    let missing = matches!(span.kind, Kind::Missing | Kind::Null);
    if missing { (MISSING, MISSING) } else { (span.start, span.end - span.start) }
}

/// What frames say of a row besides its bytes, which were pushed before.
#[inline(always)]
fn push_columns(rows: &mut Rows, batch: &Batch, i: usize, tenant: u32) {
    rows.ends.push(rows.bytes.len() as u32);
    rows.tenant.push(tenant);
    rows.time.push(batch.time[i].0);
    rows.severity.push(batch.severity[i]);
    rows.weight.push(batch.weight[i]);
    rows.position.push(batch.position[i]);
    rows.origin_bytes.push(batch.origin_bytes[i]);
    rows.notes.push(batch.notes[i] as u16); // a row has room for the first sixteen
    if let Some(request) = batch.requests.get(i) {
        rows.requests.push(*request);
    }
}
