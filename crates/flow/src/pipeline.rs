//! One batch through every stage. This is the hot path; read it first.
//!
//! In: a batch whose records `decode` has split. Out: the same records with time, severity, tenant, verdict
//! and weight, and the sums of the meters. Nothing here allocates per record once its buffers have grown.

use crate::batch::{Batch, Payer};
use crate::condition::Condition;
use crate::conventions::{LevelField, TimeField};
use crate::debts::{Closing, Debts, Owed, Tallies};
use crate::decimal::small_integer;
use crate::event::{Note, Outcome, Reason, Severity};
use crate::fields::{FieldSet, Kind, Malformed, Scanner};
use crate::labels::{self, Labels};
use crate::meter::{Meters, Sums};
use crate::parse::{NO_TIME, drop_refused};
use crate::select::Selection;
use crate::step::{Editor, Step};
use crate::tenancy::{Tenancy, Tenants};
use crate::time::{TimeParser, in_range};
use crate::units::{NANOS_PER_SECOND, UnixNanos};
use std::sync::{Arc, Mutex};

/// How far event time may run ahead of the clock.
const AHEAD_NS: i64 = crate::units::NANOS_PER_MINUTE;

/// What all lanes of a pipeline share.
pub struct Rules {
    pub fields: Arc<FieldSet>,
    /// Candidates in order of preference, by index into `fields`.
    pub time: Vec<TimeField>,
    pub level: Vec<LevelField>,
    pub tenant: Vec<usize>,
    pub tenants: Arc<Tenants>,
    pub steps: Vec<Step>,
    /// A name for each step, the same as long as its config is: what a step remembers is kept under it.
    pub step_ids: Vec<u32>,
    pub meters: Meters,
    pub sampling: Sampling,
    pub selection: Selection,
    pub labels: Labels,
}

/// What lanes tell each other, and a restart tells them, of what samplers left out.
#[derive(Debug, Default)]
pub struct Sampling {
    /// Fields in which a record says how many it stands for, and who said so; `None` where nothing samples.
    pub rate: Option<usize>,
    pub sampler: Option<usize>,
    /// Debts of the last run that no lane has taken over yet.
    pub restored: Mutex<Vec<Owed>>,
    /// Since the start of this run, whatever was reloaded meanwhile.
    pub tallies: Arc<Tallies>,
}

/// How the records of one source are read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Records are JSON objects; else they are text and no field is ever present.
    pub json: bool,
    /// A line that is no JSON object is dropped instead of kept raw.
    pub drop_malformed: bool,
}

/// One lane's working state.
pub struct Worker {
    rules: Arc<Rules>,
    scanner: Scanner,
    times: TimeParser,
    tenancy: Tenancy,
    labels: labels::Reader,
    mask: Vec<bool>,
    debts: Debts,
    /// With `--once`: newest event time so far. The clock must not show in what comes out.
    newest: Option<UnixNanos>,
    editor: Editor,
}

impl Rules {
    /// How many records conditions met with a value of a type that they do not take, since the start or the last reload.
    pub fn mismatches(&self) -> u64 {
        let of_steps = self.steps.iter().filter_map(|step| if let Step::Filter(filter) = step { Some(&filter.when) } else { None });
        let of_sinks = self.selection.conditions.iter().map(|(_, when)| when);
        let of_meters = self.meters.groups.iter().filter_map(|group| group.when.as_ref());
        of_steps.chain(of_sinks).chain(of_meters).map(Condition::mismatches).sum()
    }

    /// Goes on with what `before` remembers, in every step whose config is the same; other steps start anew.
    pub fn share(&mut self, before: &Rules) {
        for (step, id) in self.steps.iter_mut().zip(&self.step_ids) {
            if let Some(at) = before.step_ids.iter().position(|other| other == id) {
                step.share(&before.steps[at]);
            }
        }
        self.sampling.tallies = Arc::clone(&before.sampling.tallies);
        self.labels.share(&before.labels);
    }
}

impl Worker {
    /// The only lane.
    pub fn new(rules: Arc<Rules>) -> Worker {
        Worker::of_lane(rules, 0, 1, false)
    }

    /// Lane number `lane` of `lanes`. `once`: time is event time, also where nothing comes.
    pub fn of_lane(rules: Arc<Rules>, lane: usize, lanes: usize, once: bool) -> Worker {
        let mut restored = rules.sampling.restored.lock().expect("nobody panics while taking debts over");
        let is_ours = |owed: &Owed| owed.lane as usize == lane || (lane == 0 && owed.lane as usize >= lanes);
        let (ours, others) = restored.drain(..).partition(is_ours);
        *restored = others;
        drop(restored);
        let mut debts = Debts::new(&rules, lane as u8, ours);
        debts.is_once = once;
        Worker {
            debts,
            newest: once.then_some(UnixNanos(i64::MIN)),
            scanner: Scanner::new(Arc::clone(&rules.fields)),
            times: TimeParser::default(),
            tenancy: Tenancy::new(rules.tenant.clone(), Arc::clone(&rules.tenants)),
            labels: labels::Reader::default(),
            mask: Vec::new(),
            editor: Editor::new(Arc::clone(&rules.fields)),
            rules,
        }
    }

    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Until when a log rests, as an earlier run or lane left it; it may be over.
    pub fn rest_of(&self, log: u64, now: UnixNanos) -> Option<UnixNanos> {
        let quotas = self.rules.steps.iter().filter_map(|step| if let Step::Quota(quota) = step { Some(quota) } else { None });
        quotas.filter_map(|quota| quota.rest_of(log, now)).max()
    }

    /// Decides about every record of the batch and adds what it used to `sums`.
    pub fn process(&mut self, batch: &mut Batch, reading: Reading, now: UnixNanos, sums: &mut Sums) {
        self.scan(batch, reading); // where the fields are, when it was, how severe
        leave_out(batch); // what a pod asked to leave out
        drop_refused(batch); // what no parser took
        self.tenancy.apply(batch); // who pays
        let rules = Arc::clone(&self.rules);
        self.labels.read(&rules.labels, batch); // what the request says of itself
        self.debts.clock = self.clock(batch, now);
        self.debts.ceiling = if self.newest.is_some() { UnixNanos(i64::MAX) } else { UnixNanos(now.0.saturating_add(AHEAD_NS)) };
        self.editor.begin();
        for (number, step) in (0u16..).zip(&rules.steps) {
            batch.step = number;
            // Keep or drop, and why; what nobody may read.
            step.apply(number, batch, now, &rules.meters, &mut self.mask, &mut self.debts, &mut self.editor);
        }
        self.debts.settle(batch); // whom kept records stand for
        self.editor.swap_originals(batch);
        rules.meters.apply(batch, sums); // what it used, as it was received
        self.editor.swap_originals(batch);
        rules.selection.apply(batch, &mut self.mask); // which sinks take it, as it leaves
        self.labels.count(&rules.labels, batch); // what came of it, by labels
        batch.assert_complete();
    }

    /// The time that windows without traffic end by.
    fn clock(&mut self, batch: &Batch, now: UnixNanos) -> UnixNanos {
        let Some(newest) = &mut self.newest else { return now };
        if self.debts.is_used() {
            let own = (0..batch.len()).filter(|i| batch.notes[*i] & Note::ArrivalTime.bit() == 0);
            *newest = own.map(|i| batch.time[i]).max().map_or(*newest, |time| time.max(*newest));
        }
        *newest
    }

    #[cfg(test)]
    pub(crate) fn debts(&self) -> &Debts {
        &self.debts
    }

    /// Whether a frame should close for what is owed, though nothing else came.
    pub fn is_due(&self, now: UnixNanos) -> bool {
        self.debts.is_due(self.newest.unwrap_or(now))
    }

    /// What the frame that closes now takes along: summaries of windows that are over, and changed debts. `all`: the run
    /// ends, and with it every window.
    pub fn close(&mut self, now: UnixNanos, all: bool) -> Closing {
        self.debts.close(self.newest.unwrap_or(now), all, &self.rules)
    }

    /// The one structural pass: spans, shape, time and severity of every record.
    fn scan(&mut self, batch: &mut Batch, reading: Reading) {
        let rules = Arc::clone(&self.rules);
        let n = batch.len();
        batch.fields = rules.fields.len();
        batch.is_json = reading.json;
        batch.spans.resize(n * batch.fields, Default::default());
        batch.undecided();
        batch.time.clear();
        batch.severity.clear();
        if !reading.json {
            batch.spans.fill(Default::default());
            batch.time.resize(n, batch.arrival);
            batch.severity.resize(n, 0);
            return;
        }
        // Where the records do not say who pays, a tenant that is named twice is no riddle.
        let named = if matches!(batch.payer, Payer::Named(_)) { [].as_slice() } else { &rules.tenant };
        let tenant_fields = named.iter().fold(0u64, |mask, f| mask | 1 << f);
        let mut spans = std::mem::take(&mut batch.spans);
        for i in 0..n {
            let (start, end) = (batch.start[i] as usize, batch.end[i] as usize);
            let shape = self.scanner.scan_in(&batch.arena, start, end, &mut spans[i * batch.fields..(i + 1) * batch.fields]);
            let mut notes = 0;
            if shape.invalid_utf8 {
                notes |= Note::InvalidUtf8.bit();
            }
            if let Some(malformed) = shape.malformed {
                notes |= match malformed {
                    Malformed::NotJson => Note::NotJson.bit(),
                    Malformed::TooDeep => Note::TooDeep.bit(),
                };
                if reading.drop_malformed {
                    batch.decide(i, Outcome::Dropped(Reason::Malformed));
                    batch.unmetered[i] = true;
                }
            }
            if shape.duplicates != 0 {
                notes |= duplicate_notes(shape.duplicates, tenant_fields, rules.meters.fields);
                // Nobody can tell what such a record says, so nobody is billed by a guess.
                batch.unmetered[i] |= notes & (Note::DuplicateTenant.bit() | Note::DuplicateMetered.bit()) != 0;
            }
            batch.notes[i] |= notes;
        }
        batch.spans = spans;
        self.read_times(batch);
        if let Some(field) = rules.sampling.rate {
            read_rates(batch, field);
        }
    }

    /// The time that a field says, if it has one.
    #[inline(always)]
    fn time_of(&mut self, batch: &Batch, i: usize, time: TimeField) -> Option<UnixNanos> {
        let (spans, record) = (batch.record_spans(i), batch.record(i));
        let span = spans[time.field];
        if span.kind == Kind::Missing {
            return None;
        }
        let whole = self.times.parse(span.raw(record), span.kind)?;
        let nanos = time.nanos.map(|field| spans[field]).filter(|span| span.kind != Kind::Missing);
        let beyond = nanos.and_then(|span| small_integer(span.raw(record))).filter(|nanos| (0..NANOS_PER_SECOND).contains(nanos));
        Some(UnixNanos(whole.0 + beyond.unwrap_or(0)))
    }

    fn read_times(&mut self, batch: &mut Batch) {
        let rules = Arc::clone(&self.rules);
        batch.beyond.clear();
        for i in 0..batch.len() {
            let parsed = batch.parsed_time.get(i).filter(|time| **time != NO_TIME).and_then(|time| in_range(UnixNanos(*time)));
            let own = parsed.or_else(|| rules.time.iter().find_map(|time| self.time_of(batch, i, *time)));
            if own.is_none() {
                mark_beyond(batch, i, &rules.time);
            }
            let time = own.or_else(|| self.times.parse(batch.outer_time(i), Kind::Text));
            if time.is_none() {
                batch.note(i, Note::ArrivalTime);
            }
            batch.time.push(time.unwrap_or(batch.arrival));
            let severity = rules.level.iter().map(|level| severity_of(batch, i, *level)).find(|severity| *severity > 0).unwrap_or(0);
            batch.severity.push(severity);
        }
    }
}

/// Nobody is billed for what says that it is of a year after 2100, which is no time that can be told.
fn mark_beyond(batch: &mut Batch, i: usize, fields: &[TimeField]) {
    let (spans, record) = (batch.record_spans(i), batch.record(i));
    let is_beyond = |time: &&TimeField| match spans[time.field].kind {
        Kind::Missing => false,
        kind => TimeParser::is_beyond(spans[time.field].raw(record), kind),
    };
    if let Some(time) = fields.iter().find(is_beyond) {
        batch.beyond.push((i as u32, time.field as u16));
        batch.unmetered[i] = true;
        batch.note(i, Note::Future);
    }
}

#[inline(always)]
fn severity_of(batch: &Batch, i: usize, level: LevelField) -> Severity {
    let span = batch.record_spans(i)[level.field];
    match span.kind {
        Kind::Missing => 0,
        kind => level.scale.severity(span.raw(batch.record(i)), kind),
    }
}

/// A record that comes from a sampler stands for several: weights count, not rows.
fn read_rates(batch: &mut Batch, field: usize) {
    for i in 0..batch.len() {
        let span = batch.record_spans(i)[field];
        if span.kind == Kind::Number {
            let rate = small_integer(span.raw(batch.record(i))).and_then(|rate| u32::try_from(rate).ok());
            batch.weight[i] = rate.unwrap_or(1).max(1);
        }
    }
}

fn leave_out(batch: &mut Batch) {
    let left_out = std::mem::take(&mut batch.left_out);
    for (i, _) in left_out.iter().enumerate().filter(|(_, left_out)| **left_out) {
        batch.decide(i, Outcome::Dropped(Reason::Filtered));
        batch.unmetered[i] = true;
    }
    batch.left_out = left_out;
}

fn duplicate_notes(duplicates: u64, tenant: u64, metered: u64) -> u32 {
    let mut notes = 0;
    for (fields, note) in
        [(tenant, Note::DuplicateTenant), (metered & !tenant, Note::DuplicateMetered), (!(tenant | metered), Note::DuplicateKey)]
    {
        if duplicates & fields != 0 {
            notes |= note.bit();
        }
    }
    notes
}
