//! A pipeline tried out on some lines: in memory, in one piece, by the same code as a run.
//!
//! In: a compiled plan, the lines of one source, when they arrive and when they were received, if that is to be asked. Out: what became of each record, the rows that sinks would
//! get, and the facts. Opens no file and no folder. What knows of containers (`kubernetes`) stays out, and the verdict of a `tail`
//! step, which comes later than all others, is not waited for.

use super::build::{Builder, Stretch};
use crate::plan::{Plan, SourcePlan};
use flow::batch::Batch;
use flow::decode::{Decoder, End};
use flow::event::{Note, Outcome, Position, Signal, StreamId, UsageEvent};
use flow::parse::LineParser;
use flow::pipeline::Worker;
use flow::units::UnixNanos;
use hub::frame::{Fact, FactEvent, Frame, OTHERS};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came of the lines.
pub struct Trial {
    /// One for each record, in order.
    pub records: Vec<Decided>,
    /// What sinks would get: kept records in order, then those that weir creates.
    pub rows: Vec<Row>,
    pub facts: Vec<Used>,
}

/// What became of a record.
pub struct Decided {
    /// `kept`, or why it was dropped.
    pub verdict: &'static str,
    /// Names of its notes.
    pub notes: Vec<&'static str>,
}

pub struct Row {
    pub bytes: Vec<u8>,
    pub tenant: Vec<u8>,
    pub time: UnixNanos,
    /// Sinks that take it, by name.
    pub sinks: Vec<String>,
}

/// A quantity of the whole trial, whatever the minute, or one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    pub meter: String,
    pub tenant: String,
    pub by: BTreeMap<String, String>,
    pub quantity: i128,
    pub events: u64,
    pub event: Option<UsageEvent>,
}

/// Runs `lines`, which arrive at `now` from `source`, through `plan`. `receipt`: what is of a time more than 5 minutes later is
/// refused by meters. `sinks`: names of all sinks.
pub fn run(plan: &Plan, source: &SourcePlan, lines: &[u8], now: UnixNanos, receipt: Option<UnixNanos>, sinks: &[String]) -> Trial {
    let number = plan.sources.iter().position(|other| std::ptr::eq(other, source)).unwrap_or(0);
    let stream = StreamId(1);
    let mut decoder = Decoder::new(source.format, source.limits).with(source.multiline.clone(), source.encoding);
    let mut builder = Builder::of(plan, (StreamId(2), 0));
    let mut worker = Worker::of_lane(Arc::clone(&plan.rules), 0, 1, true);
    let mut parser = LineParser::default();
    let mut batch = Batch { arena: lines.to_vec(), ..Batch::default() };
    let used = decoder.decode(&mut batch, 0, End::Log, now) as u64;
    (batch.arrival, batch.receipt, batch.stream, batch.source) = (now, receipt, stream, number as u16);
    builder.enter(stream, Signal::Logs, 0);
    let reading = source.parsing.as_ref().map_or(source.reading, |parsing| parser.parse(&mut batch, parsing, source.reading));
    worker.process(&mut batch, reading, now, &mut builder.sums);
    let records = (0..batch.len()).map(|i| decided(&batch, i)).collect();
    let to = Position { resume: used, done: used, before: 0 };
    builder.add(&batch, Stretch { stream, from: 0, to, also: Vec::new() });
    builder.finish_part();
    let closing = worker.close(now, true);
    builder.add_created(closing);
    let frame = builder.close(Some(now));
    Trial { records, rows: (0..frame.rows.len()).map(|i| row(&frame, i, sinks)).collect(), facts: facts(&frame) }
}

fn decided(batch: &Batch, i: usize) -> Decided {
    let verdict = match batch.outcome[i] {
        Outcome::Kept | Outcome::Created => "kept",
        Outcome::Dropped(reason) => reason.name(),
    };
    let notes = Note::ALL.into_iter().filter(|note| batch.notes[i] & note.bit() != 0).map(Note::name).collect();
    Decided { verdict, notes }
}

fn row(frame: &Frame, i: usize, sinks: &[String]) -> Row {
    let bit = |name: &[u8]| frame.sinks.iter().position(|own| **own == *name);
    let taken_by = |name: &&String| match (frame.rows.sinks.get(i), bit(name.as_bytes()).or_else(|| bit(OTHERS))) {
        (Some(mask), Some(bit)) => mask & 1 << bit != 0,
        _ => true,
    };
    Row {
        bytes: frame.rows.row(i).to_vec(),
        tenant: frame.tenants[frame.rows.tenant[i] as usize].to_vec(),
        time: UnixNanos(frame.rows.time[i]),
        sinks: sinks.iter().filter(taken_by).cloned().collect(),
    }
}

fn facts(frame: &Frame) -> Vec<Used> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut sums: Vec<Used> = Vec::new();
    for fact in frame.parts.iter().flat_map(|part| &part.facts) {
        let Fact { tenant, meter, dims, quantity, events, event, .. } = fact;
        let meter = &frame.meters[*meter as usize];
        if meter.lineage {
            continue;
        }
        let by = meter.dims.iter().zip(dims).map(|(name, value)| (name.clone(), text(&frame.values[*value as usize]))).collect();
        let tenant = text(&frame.tenants[*tenant as usize]);
        let event = event.as_deref().map(|event| {
            let FactEvent { kind, at, end, key, position } = event.clone();
            UsageEvent { kind, at, end, key: key.into_vec(), position }
        });
        let used = Used { meter: meter.name.clone(), tenant, by, quantity: *quantity, events: *events, event };
        if used.event.is_some() {
            sums.push(used);
            continue;
        }
        match sums.iter_mut().find(|sum| sum.event.is_none() && (&sum.meter, &sum.tenant, &sum.by) == (&used.meter, &used.tenant, &used.by))
        {
            Some(sum) => (sum.quantity, sum.events) = (sum.quantity + used.quantity, sum.events + used.events),
            None => sums.push(used),
        }
    }
    sums.sort();
    sums
}
