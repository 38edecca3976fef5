//! Debts: what a lane's samplers left out, and whom its kept records stand for.
//!
//! In: decided batches. Out: weights of kept records, and summaries. A record that a step with exact weights drops becomes a
//! debt of its (step, tenant, level). The next kept record of that tenant and level pays it, if it comes within the step's
//! window; else a summary tells of it. So the weights of kept records and summaries add up to the records received, less
//! those that are not ours: exactly, per tenant and level. Steps that choose by a hash give fixed weights, right on average;
//! for them a summary of weight 0 tells what was seen in each window.
//!
//! Debts belong to one lane, so a frame holds exactly the changes that its own records made: after a crash, what was not
//! durable is decided anew and owed once. Memory: 64 bytes per step, tenant and level that was sampled, and 8 to count
//! them; with `tenants_max` tenants the bound is 504 bytes for each step and tenant. State in frames: one 32-byte entry each.

use crate::batch::{Batch, NO_STEP};
use crate::escape::{escape_into, unescape_into};
use crate::event::Severity;
use crate::fields::Kind;
use crate::pipeline::Rules;
use crate::step::Step;
use crate::step::sample::{LEVELS, key_hash, level_of, mix};
use crate::tenancy::{Tenants, UNKNOWN};
use crate::units::UnixNanos;
use crate::word;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};

/// How what a step drops is made good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// The level is not sampled, or it is off.
    #[default]
    Nothing,
    /// Kept records and summaries stand for everything: sums are exact.
    Exact,
    /// Weights are right on average; a summary tells what was seen.
    Average,
}

/// What a step promises of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// The step decides about this level at all.
    pub is_counted: bool,
    pub class: Class,
    /// How long a debt waits for a kept record, or how long is counted for one summary; in ns.
    pub window_ns: i64,
}

/// What a step promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Name of the sampler in records.
    pub name: Arc<str>,
    pub by_arrival: bool,
    pub levels: [Term; LEVELS.len()],
}

/// A record that weir makes: how many records nobody else stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub sampler: Arc<str>,
    pub tenant: u32,
    /// Index into [`LEVELS`].
    pub level: usize,
    /// When the newest of them was.
    pub time: UnixNanos,
    pub records: u64,
    /// Of all `records` seen so many were kept; `None`: these records were left out.
    pub kept: Option<u64>,
}

/// A debt as a frame's state tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    pub step_id: u32,
    pub key: [u8; 8],
    pub tenant: u32,
    pub level: usize,
    pub lane: u8,
    pub time: UnixNanos,
    pub records: u64,
    pub kept: Option<u64>,
}

/// What a lane's frame takes along.
#[derive(Debug, Default)]
pub struct Closing {
    pub summaries: Vec<Summary>,
    /// Changed state, by step.
    pub changes: Vec<(u32, Vec<u8>)>,
}

/// Which levels a step decides about; steps go by their ids, which a reload does not change.
type Counted = (u32, [bool; LEVELS.len()]);
/// (id of the step, tenant, level), and records kept and dropped.
type Counts = BTreeMap<(u32, u32, usize), [u64; 2]>;

/// What became of the records that one lane decided by one plan. Whoever asks adds up the lanes.
#[derive(Debug, Default)]
pub struct Tally {
    /// By tenant and level, 7 for each tenant: records that came to the steps.
    seen: Vec<u64>,
    /// By tenant, level and step: records that the step dropped.
    dropped: Vec<u64>,
    steps: Vec<Counted>,
}

impl Tally {
    fn make_room(&mut self, tenants: usize) {
        if self.seen.len() < tenants * LEVELS.len() {
            self.seen.resize(tenants * LEVELS.len(), 0);
            self.dropped.resize(self.seen.len() * self.steps.len(), 0);
        }
    }

    fn add_to(&self, rows: &mut Counts) {
        for (at, seen) in self.seen.iter().enumerate().filter(|(_, seen)| **seen > 0) {
            // What a step did not drop went on to the next.
            let mut left = *seen;
            for (step, (id, counts)) in self.steps.iter().enumerate() {
                let dropped = self.dropped[at * self.steps.len() + step];
                left -= dropped;
                if counts[at % LEVELS.len()] && left + dropped > 0 {
                    let row = rows.entry((*id, (at / LEVELS.len()) as u32, at % LEVELS.len())).or_default();
                    *row = [row[0] + left, row[1] + dropped];
                }
            }
        }
    }
}

/// Records that policies kept and dropped since the start of this run, by all lanes and all plans.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Lanes>);

#[derive(Debug, Default)]
struct Lanes {
    tallies: Vec<Arc<Mutex<Tally>>>,
    /// What lanes counted by plans before.
    before: Counts,
}

impl Tallies {
    fn join(&self, steps: Vec<Counted>) -> Arc<Mutex<Tally>> {
        let tally = Arc::new(Mutex::new(Tally { steps, ..Tally::default() }));
        let mut lanes = lock(&self.0);
        lanes.fold();
        lanes.tallies.push(Arc::clone(&tally));
        tally
    }

    /// (id of the step, tenant, level), and records kept and dropped.
    pub fn rows(&self) -> Counts {
        let lanes = lock(&self.0);
        let mut rows = lanes.before.clone();
        lanes.tallies.iter().for_each(|tally| lock(tally).add_to(&mut rows));
        rows
    }

    /// Forgets steps that are gone, once no lane runs them any more.
    pub fn forget(&self, step_ids: &[u32]) {
        let mut lanes = lock(&self.0);
        lanes.fold();
        lanes.before.retain(|(id, ..), _| !step_ids.contains(id));
    }
}

impl Lanes {
    /// Adds up what nobody goes on with.
    fn fold(&mut self) {
        let before = &mut self.before;
        self.tallies.retain(|tally| {
            let is_used = Arc::strong_count(tally) > 1;
            if !is_used {
                lock(tally).add_to(before);
            }
            is_used
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while counting")
}

pub struct Debts {
    lane: u8,
    steps: Vec<StepDebts>,
    /// Numbers of the steps with exact weights.
    exact: Vec<u16>,
    /// Cells of exact steps in which something is owed: of all, and by tenant and level.
    open: usize,
    open_at: Vec<u32>,
    tally: Arc<Mutex<Tally>>,
    /// What windows without traffic end by.
    pub clock: UnixNanos,
    /// Event times beyond this are taken for it: a clock that runs ahead must not open a window nobody can close.
    pub ceiling: UnixNanos,
    tenants: Arc<Tenants>,
    /// With `--once`: the clock must not show.
    pub is_once: bool,
    /// Draws of samplers that choose by chance.
    draws: u64,
    /// Space that steps share.
    pub scratch: Scratch,
    /// A value without its escapes.
    plain: Vec<u8>,
    /// By number of the tenant; 0 where it is not known yet.
    tenant_hashes: Vec<u64>,
    /// When the first window ends.
    due: i64,
    /// Debts of steps and lanes that are gone: told of in the first frame.
    orphans: Vec<Owed>,
}

/// Space that steps work in, so that nothing is allocated for each batch.
#[derive(Default)]
pub struct Scratch {
    /// Kept records of each level.
    pub rows: [Vec<u32>; LEVELS.len()],
    /// Of each record: its list price.
    pub money: Vec<i128>,
    /// Of each of these rows: a hash, and whether the record stays.
    pub hashes: Vec<u64>,
    pub slots: Vec<u16>,
    pub keeps: Vec<bool>,
    /// Numbers of rows in another order.
    pub order: Vec<u32>,
    /// Texts, one after the other, and where each ends.
    pub bytes: Vec<u8>,
    pub ends: Vec<u32>,
}

struct StepDebts {
    id: u32,
    terms: Option<Terms>,
    /// By tenant and level: 7 for each tenant.
    cells: Vec<Cell>,
    /// Cells to look at when a frame closes.
    listed: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    /// Exact: owed. On average: seen.
    records: u64,
    /// On average: kept of those seen.
    kept: u64,
    /// Time of the first of them, of the newest, and what the lane's clock said at the first.
    since: i64,
    time: i64,
    since_now: i64,
    /// Its name in the state of steps, once there was one.
    key: [u8; 8],
    is_listed: bool,
    is_dirty: bool,
    /// Nobody pays it any more: a summary comes with the next frame.
    is_overdue: bool,
}

/// Last byte of our keys in the state of steps; keys of counters have a 0 there.
const KEY_TAG: u8 = 0xd5;
const ENTRY_BYTES: usize = 32;

impl Debts {
    /// Of a lane. What becomes of the records that a tail sampler marks is not known there.
    pub fn new(rules: &Rules, lane: u8, restored: Vec<Owed>) -> Debts {
        Debts::of(rules, lane, restored, |step| !matches!(step, Step::Tail(_)))
    }

    /// Of whoever gives the verdicts of tail sampling, and counts nothing else: lanes did.
    pub fn of_decider(rules: &Rules, restored: Vec<Owed>) -> Debts {
        Debts::of(rules, 0, restored, |step| matches!(step, Step::Tail(_)))
    }

    fn of(rules: &Rules, lane: u8, restored: Vec<Owed>, counts: impl Fn(&Step) -> bool) -> Debts {
        let steps: Vec<StepDebts> = rules
            .steps
            .iter()
            .zip(&rules.step_ids)
            .map(|(step, id)| StepDebts { id: *id, terms: step.terms(), cells: Vec::new(), listed: Vec::new() })
            .collect();
        let is_exact = |s: &StepDebts| s.terms.as_ref().is_some_and(|t| t.levels.iter().any(|l| l.class == Class::Exact));
        let exact = (0u16..).zip(&steps).filter(|(_, s)| is_exact(s)).map(|(n, _)| n).collect();
        let counted = |(step, debts): (&Step, &StepDebts)| {
            let terms = debts.terms.as_ref().filter(|_| counts(step));
            (debts.id, terms.map_or([false; LEVELS.len()], |terms| terms.levels.map(|level| level.is_counted)))
        };
        let tally = rules.sampling.tallies.join(rules.steps.iter().zip(&steps).map(counted).collect());
        let mut debts = Debts {
            lane,
            steps,
            exact,
            open: 0,
            open_at: Vec::new(),
            tally,
            clock: UnixNanos(i64::MIN),
            ceiling: UnixNanos(i64::MAX),
            is_once: false,
            tenants: Arc::clone(&rules.tenants),
            draws: u64::from(lane),
            scratch: Scratch::default(),
            plain: Vec::new(),
            tenant_hashes: Vec::new(),
            due: i64::MAX,
            orphans: Vec::new(),
        };
        for owed in restored {
            debts.restore(owed);
        }
        debts
    }

    fn restore(&mut self, owed: Owed) {
        let class = if owed.kept.is_some() { Class::Average } else { Class::Exact };
        let step = self.steps.iter().position(|s| s.id == owed.step_id && s.class(owed.level) == class);
        self.due = i64::MIN;
        match step {
            Some(step) if owed.lane == self.lane => {
                let cell = self.steps[step].cell(owed.tenant, owed.level);
                let time = owed.time.0;
                *cell =
                    Cell { records: owed.records, kept: owed.kept.unwrap_or(0), since: time, time, since_now: i64::MIN, ..cell.clone() };
                if class == Class::Exact {
                    let at = owed.tenant as usize * LEVELS.len() + owed.level;
                    self.open_at.resize(self.open_at.len().max(at + 1), 0);
                    (self.open, self.open_at[at]) = (self.open + 1, self.open_at[at] + 1);
                }
            }
            _ => self.orphans.push(owed),
        }
    }

    /// Whether any step of the plan samples.
    pub fn is_used(&self) -> bool {
        self.steps.iter().any(|step| step.terms.is_some())
    }

    /// Hash of a tenant, if any, and of the values of some fields of record `i`: the same in every lane and run.
    #[inline(always)]
    pub fn key(&mut self, batch: &Batch, i: usize, tenant: Option<u32>, fields: &[usize]) -> u64 {
        let mut hash = tenant.map_or(0xcbf2_9ce4_8422_2325, |tenant| self.tenant_hash(tenant));
        if fields.is_empty() {
            return hash;
        }
        let (record, spans) = (batch.record(i), batch.record_spans(i));
        for field in fields {
            let span = spans[*field];
            hash = match span.kind {
                Kind::Missing | Kind::Null => word::hash(&[0xfe], hash), // no byte of UTF-8
                Kind::Escaped => {
                    self.plain.clear();
                    unescape_into(span.raw(record), &mut self.plain);
                    word::hash(&self.plain, hash)
                }
                _ => word::hash(span.raw(record), hash),
            };
        }
        mix(hash)
    }

    /// The same as bytes, in the order of a sorted list of keys; appended to `out`.
    #[inline(always)]
    pub fn push_key(&mut self, batch: &Batch, i: usize, tenant: Option<u32>, fields: &[usize], out: &mut Vec<u8>) {
        if let Some(tenant) = tenant {
            out.extend_from_slice(&self.tenant_hash(tenant).to_be_bytes());
        }
        for field in fields {
            let span = batch.record_spans(i)[*field];
            match span.kind {
                Kind::Missing | Kind::Null => out.push(0xfe),
                Kind::Escaped => unescape_into(span.raw(batch.record(i)), out),
                _ => out.extend_from_slice(span.raw(batch.record(i))),
            }
            out.push(0xff);
        }
    }

    /// True once in `rate` draws, on average; the same draws in every run.
    pub fn draw(&mut self, rate: u32) -> bool {
        self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        rate <= 1 || mix(self.draws).is_multiple_of(u64::from(rate))
    }

    #[inline(always)]
    fn tenant_hash(&mut self, tenant: u32) -> u64 {
        let at = tenant as usize;
        match self.tenant_hashes.get(at) {
            Some(hash) if *hash != 0 => *hash,
            _ => {
                self.tenant_hashes.resize(self.tenant_hashes.len().max(at + 1), 0);
                self.tenant_hashes[at] = key_hash(&self.tenants.name(tenant)).max(1);
                self.tenant_hashes[at]
            }
        }
    }

    /// Counts what a step whose weights are right on average decided about record `i`, which no step dropped before.
    #[inline(always)]
    pub fn see(&mut self, step: u16, batch: &Batch, i: usize, level: usize, kept: bool) {
        let now = self.clock;
        let debts = &mut self.steps[step as usize];
        let window_ns = debts.terms.as_ref().map_or(0, |terms| terms.levels[level].window_ns);
        let cell = debts.cell(batch.tenant[i], level);
        if cell.records == 0 {
            cell.since_now = now.0;
            self.due = self.due.min(now.0.saturating_add(window_ns));
        }
        cell.records = cell.records.saturating_add(u64::from(batch.weight[i]));
        cell.kept += u64::from(kept);
        cell.time = batch.time[i].0;
        cell.is_dirty = true;
    }

    /// Counts what became of records; makes those that samplers dropped debts, and lets kept ones pay. All verdicts are final.
    pub fn settle(&mut self, batch: &mut Batch) {
        if !self.is_used() {
            return;
        }
        let steps = self.steps.len();
        let tenants = batch.tenant.iter().copied().max().map_or(0, |tenant| tenant as usize + 1);
        let tally = Arc::clone(&self.tally);
        let mut tally = lock(&tally);
        tally.make_room(tenants);
        self.open_at.resize(self.open_at.len().max(tally.seen.len()), 0);
        for i in 0..batch.len() {
            let level = level_of(batch.severity[i]);
            let at = batch.tenant[i] as usize * LEVELS.len() + level;
            if batch.dropped_by[i] == NO_STEP {
                tally.seen[at] += 1;
                if self.open > 0 && self.open_at[at] > 0 {
                    self.pay(batch, i, level, at);
                }
            } else if let Some(step) = Some(batch.dropped_by[i] as usize).filter(|step| *step < steps) {
                tally.seen[at] += 1;
                tally.dropped[at * steps + step] += 1;
                if batch.sampler[i] as usize == step {
                    self.owe(batch, i, level, at);
                }
            }
        }
    }

    fn owe(&mut self, batch: &Batch, i: usize, level: usize, at: usize) {
        let now = self.clock;
        let debts = &mut self.steps[batch.sampler[i] as usize];
        let Some(terms) = debts.terms.as_ref().filter(|t| t.levels[level].class == Class::Exact) else { return };
        let (by_arrival, window) = (terms.by_arrival, terms.levels[level].window_ns);
        let cell = debts.cell(batch.tenant[i], level);
        if cell.records == 0 {
            cell.since = if by_arrival { batch.arrival.0 } else { batch.time[i].0 };
            cell.since_now = now.0;
            (self.open, self.open_at[at]) = (self.open + 1, self.open_at[at] + 1);
            self.due = self.due.min(now.0.saturating_add(window));
        }
        cell.records = cell.records.saturating_add(u64::from(batch.weight[i]));
        cell.time = batch.time[i].0;
        cell.is_dirty = true;
    }

    fn pay(&mut self, batch: &mut Batch, i: usize, level: usize, at: usize) {
        for number in &self.exact {
            let debts = &mut self.steps[*number as usize];
            let Some(cell) = debts.cells.get_mut(at).filter(|cell| cell.records > 0 && !cell.is_overdue) else { continue };
            let Some(terms) = debts.terms.as_ref().filter(|t| t.levels[level].class == Class::Exact) else { continue };
            if !terms.by_arrival && batch.time[i].0.saturating_sub(cell.since) >= terms.levels[level].window_ns {
                cell.is_overdue = true;
                self.due = i64::MIN;
                continue;
            }
            // What a weight cannot hold stays owed.
            let paid = cell.records.min(u64::from(u32::MAX - batch.weight[i]));
            batch.weight[i] += paid as u32;
            batch.sampler[i] = *number;
            cell.records -= paid;
            cell.is_dirty = true;
            if cell.records == 0 {
                (self.open, self.open_at[at]) = (self.open - 1, self.open_at[at] - 1);
            }
        }
    }

    /// What is owed and no frame told of: tenant, level, records.
    #[cfg(test)]
    pub fn owed(&self) -> Vec<(u32, usize, u64)> {
        let exact = self.steps.iter().filter(|step| step.terms.is_some()).flat_map(|step| {
            let cells = step.cells.iter().enumerate().map(|(at, cell)| ((at / LEVELS.len()) as u32, at % LEVELS.len(), cell.records));
            cells.filter(|(_, level, records)| *records > 0 && step.class(*level) == Class::Exact)
        });
        let orphans = self.orphans.iter().filter(|owed| owed.kept.is_none()).map(|owed| (owed.tenant, owed.level, owed.records));
        exact.chain(orphans).collect()
    }

    /// Whether a frame should close for what is owed, though nothing else came.
    pub fn is_due(&self, now: UnixNanos) -> bool {
        now.0 >= self.due
    }

    /// Ends the windows that are over, or all of them, and hands out what a frame takes along.
    pub fn close(&mut self, now: UnixNanos, all: bool, rules: &Rules) -> Closing {
        let mut closing = Closing::default();
        self.due = i64::MAX;
        for owed in std::mem::take(&mut self.orphans) {
            let Owed { tenant, level, time, records, kept, .. } = owed;
            closing.summaries.push(Summary { sampler: "earlier".into(), tenant, level, time, records, kept });
            let mut entry = owed.key.to_vec();
            entry.resize(ENTRY_BYTES, 0);
            closing.changes.push((owed.step_id, entry));
        }
        for step in &mut self.steps {
            let Some(terms) = &step.terms else { continue };
            let mut bytes = Vec::new();
            let mut still = Vec::new();
            for at in std::mem::take(&mut step.listed) {
                let (tenant, level) = (at / LEVELS.len() as u32, at as usize % LEVELS.len());
                let cell = &mut step.cells[at as usize];
                let term = terms.levels[level];
                let ends = cell.since_now.saturating_add(term.window_ns);
                if cell.records > 0 && (all || cell.is_overdue || now.0 >= ends) {
                    let kept = (term.class == Class::Average).then_some(cell.kept);
                    let (sampler, time) = (Arc::clone(&terms.name), UnixNanos(cell.time));
                    closing.summaries.push(Summary { sampler, tenant, level, time, records: cell.records, kept });
                    if kept.is_none() {
                        (self.open, self.open_at[at as usize]) = (self.open - 1, self.open_at[at as usize] - 1);
                    }
                    (cell.records, cell.kept, cell.is_dirty) = (0, 0, true);
                }
                cell.is_overdue = false;
                if std::mem::take(&mut cell.is_dirty) {
                    if cell.key == [0; 8] {
                        cell.key = key(self.lane, level, &rules.tenants.name(tenant));
                    }
                    cell.write(term.class, &mut bytes);
                }
                cell.is_listed = cell.records > 0;
                if cell.is_listed {
                    still.push(at);
                    self.due = self.due.min(ends);
                }
            }
            step.listed = still;
            if !bytes.is_empty() {
                closing.changes.push((step.id, bytes));
            }
        }
        closing
    }
}

impl StepDebts {
    fn class(&self, level: usize) -> Class {
        self.terms.as_ref().map_or(Class::Nothing, |terms| terms.levels[level].class)
    }

    #[inline(always)]
    fn cell(&mut self, tenant: u32, level: usize) -> &mut Cell {
        let at = tenant as usize * LEVELS.len() + level;
        if at >= self.cells.len() {
            self.cells.resize(at - level + LEVELS.len(), Cell::default());
        }
        let cell = &mut self.cells[at];
        if !cell.is_listed {
            cell.is_listed = true;
            self.listed.push(at as u32);
        }
        cell
    }
}

impl Cell {
    /// Appends its entry; one of zeros says that there is nothing any more.
    fn write(&self, class: Class, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        if self.records == 0 {
            return out.resize(out.len() + ENTRY_BYTES - self.key.len(), 0);
        }
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        let is_average = u64::from(class == Class::Average);
        out.extend_from_slice(&(self.kept << 1 | is_average).to_le_bytes());
    }
}

/// 45 bits of the tenant's hash: of 10,000 tenants two meet once in a million plans. Then one's debt hides the other's.
fn key(lane: u8, level: usize, tenant: &[u8]) -> [u8; 8] {
    let hash = key_hash(tenant) >> 19 | (level as u64) << 45 | u64::from(lane) << 48 | u64::from(KEY_TAG) << 56;
    hash.to_le_bytes()
}

impl Owed {
    /// Whether an entry with this key, of any step, is a debt.
    pub fn is_named(key: &[u8]) -> bool {
        key.get(7) == Some(&KEY_TAG)
    }

    /// Reads the debts among entries of a step's state, each of which is the last of its key. `rules` know the tenants of the journal's books.
    pub fn read(step_id: u32, entries: &[u8], rules: &Rules) -> Vec<Owed> {
        let ours: Vec<&[u8]> = entries.chunks_exact(ENTRY_BYTES).filter(|e| e[7] == KEY_TAG && e[8..16] != [0; 8]).collect();
        if ours.is_empty() {
            return Vec::new();
        }
        const HASH: u64 = (1 << 45) - 1;
        let tenants: BTreeMap<u64, u32> = (0..rules.tenants.len()).map(|n| (key_hash(&rules.tenants.name(n)) >> 19, n)).collect();
        let number = |entry: &[u8], at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("a range of 8 is 8 bytes"));
        let owed = |entry: &[u8]| {
            let (key, last) = (number(entry, 0), number(entry, 24));
            Owed {
                step_id,
                key: key.to_le_bytes(),
                // Somebody has to stand for it.
                tenant: tenants.get(&(key & HASH)).copied().unwrap_or(UNKNOWN),
                level: ((key >> 45) as usize & 7).min(LEVELS.len() - 1),
                lane: (key >> 48) as u8,
                time: UnixNanos(number(entry, 16) as i64),
                records: number(entry, 8),
                kept: (last & 1 == 1).then_some(last >> 1),
            }
        };
        ours.into_iter().map(owed).collect()
    }
}

impl Summary {
    pub fn severity(&self) -> Severity {
        [0, 1, 5, 9, 13, 17, 21][self.level]
    }

    /// How many records it stands for, row by row: a weight has 32 bits.
    pub fn weights(&self) -> impl Iterator<Item = u32> {
        let mut left = self.records;
        let mut first = true;
        let is_seen = self.kept.is_some();
        std::iter::from_fn(move || {
            let weight = if is_seen { 0 } else { left.min(u64::from(u32::MAX)) as u32 };
            let is_more = if is_seen { first } else { left > 0 };
            left -= u64::from(weight);
            first = false;
            is_more.then_some(weight)
        })
    }

    /// Appends it as a JSON object in the fields that this plan reads; `weight`: one of [`Summary::weights`].
    pub fn write(&self, weight: u32, rules: &Rules, out: &mut Vec<u8>) {
        let name = |field: Option<usize>, other: &'static str| field.map_or(other.into(), |field| rules.fields.paths()[field].clone());
        out.push(b'{');
        push_member(out, &name(rules.time.first().map(|time| time.field), "ts"), self.time.rfc3339().as_bytes());
        if self.level > 0 {
            push_member(out, &name(rules.level.first().map(|level| level.field), "level"), LEVELS[self.level].as_bytes());
        }
        push_member(out, &name(rules.tenant.first().copied(), "tenant"), &rules.tenants.name(self.tenant));
        push_member(out, "weir.summary", if self.kept.is_some() { b"seen" } else { b"sampled" });
        push_member(out, "sampler", self.sampler.as_bytes());
        let written = match self.kept {
            Some(kept) => write!(out, "\"seen\":{},\"kept\":{kept}}}", self.records),
            None => write!(out, "\"sample_rate\":{weight}}}"),
        };
        written.expect("writing to memory works");
    }
}

/// `"name":"value",`
fn push_member(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(b'"');
    escape_into(name.as_bytes(), out);
    out.extend_from_slice(b"\":\"");
    escape_into(value, out);
    out.extend_from_slice(b"\",");
}

#[cfg(test)]
mod tests;
