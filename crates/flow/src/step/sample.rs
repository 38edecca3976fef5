//! Sampling: a policy per level. What it drops is dropped for volume: its cost counts, its bytes do not travel.
//!
//! Reads severity, time and the spans of keys and conditions; writes verdicts and weights. A kept record's
//! weight says how many records it stands for; weights that reach a sampler count, not rows. Memory: zap's counters, 7 levels x
//! 4,096 slots of 16 bytes; what `keys`, `rates` and `threshold` say.

use crate::batch::Batch;
use crate::condition::Condition;
use crate::counter::{Counters, ExactCounter, Window};
use crate::debts::{Class, Debts, Scratch, Term, Terms};
use crate::escape::unescape_into;
use crate::event::{Outcome, Reason};
use crate::fields::{Kind, Span};
use crate::hash::{SIDE_BY_SIDE, record_hash};
use crate::step::keys::Keys;
use crate::step::rates::{self, Method, Rates};
use crate::step::threshold::Threshold;
use crate::units::{NANOS_PER_MINUTE, UnixNanos};
use std::sync::Arc;

pub use crate::hash::{key_hash, mix};

/// Where a policy has no window of its own.
const WINDOW_NS: i64 = NANOS_PER_MINUTE;

/// Levels in the order of their severity numbers, four numbers each; 0 is unknown.
pub const LEVELS: [&str; 7] = ["unknown", "trace", "debug", "info", "warn", "error", "fatal"];

/// Which level a severity number belongs to: index into [`LEVELS`].
pub fn level_of(severity: u8) -> usize {
    usize::from(severity).div_ceil(4).min(6)
}

pub enum Policy {
    All,
    None,
    /// Keeps the records whose key hashes into the lowest `ratio`: all records of one key alike, on every node.
    Ratio {
        below: u64,
        /// How many each kept one stands for, where there is a key; without, the weights of kept records are exact.
        rate: f64,
        key: Option<usize>,
    },
    /// zap's counter sampler: the first records of a message in each tick, then every n-th.
    Counter(Counting),
    /// A rate for each key.
    Rates(Arc<Rates>, Key),
    /// About so many of each window.
    Threshold(Arc<Threshold>, Key),
    /// Keeps what matches; each kept record stands for `weight`.
    When {
        when: Condition,
        weight: u32,
    },
}

/// By what records are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub fields: Vec<usize>,
    /// Each tenant has keys of its own.
    pub per_tenant: bool,
}

impl Key {
    fn tenant(&self, batch: &Batch, i: usize) -> Option<u32> {
        self.per_tenant.then(|| batch.tenant[i])
    }
}

/// What a counter sampler counts by.
pub struct Counting {
    pub window: Window,
    /// Without fields: the message.
    pub key: Key,
    /// Counters that no two keys share; `None`: zap's slots.
    pub exact: Option<Arc<Keys<ExactCounter>>>,
}

/// First of the tags of exact counters in frames: one for each level.
const TAG: u8 = 0xe0;

impl Counting {
    /// `exact`: most keys with counters of their own; 0: zap's slots. `level`: index into [`LEVELS`].
    pub fn new(window: Window, key: Key, exact: usize, level: usize) -> Counting {
        let exact = (exact > 0).then(|| Arc::new(Keys::new(exact, TAG + level as u8)));
        Counting { window, key, exact }
    }
}

pub struct Sample {
    /// Its name in records that it gave a weight.
    pub name: Arc<str>,
    /// One policy per level, in the order of [`LEVELS`].
    pub policies: [Policy; 7],
    /// Candidates for the message, which zap's sampler counts by.
    pub message: Vec<usize>,
    /// The sampling clock is arrival time instead of event time.
    pub by_arrival: bool,
    pub counters: Arc<Counters>,
}

impl Policy {
    /// `ratio`: from 0 to 1; `key`: the field whose value decides, else the whole record.
    pub fn ratio(ratio: f64, key: Option<usize>) -> Policy {
        // 2^64 as f64 is exact; a ratio of 1 saturates to "all".
        let below = (ratio * 18_446_744_073_709_551_616.0) as u64;
        let rate = if ratio > 0.0 { (1.0 / ratio).min(f64::from(u32::MAX)) } else { 1.0 };
        Policy::Ratio { below, rate, key }
    }

    fn term(&self) -> Term {
        let (class, window_ns) = match self {
            Policy::All | Policy::None | Policy::When { .. } => (Class::Nothing, 0),
            Policy::Ratio { key: None, .. } => (Class::Exact, WINDOW_NS),
            Policy::Ratio { key: Some(_), .. } => (Class::Average, WINDOW_NS),
            Policy::Counter(counting) => (Class::Exact, counting.window.tick_ns),
            Policy::Rates(rates, _) => match rates.method() {
                Method::Throughput(_) => (Class::Exact, rates.interval_ns()),
                Method::Average(_) | Method::Ema(_) => (Class::Average, rates.interval_ns()),
            },
            Policy::Threshold(threshold, _) => (Class::Average, threshold.tick_ns()),
        };
        Term { is_counted: !matches!(self, Policy::All), class, window_ns }
    }
}

impl Sample {
    pub fn terms(&self) -> Terms {
        Terms { name: Arc::clone(&self.name), by_arrival: self.by_arrival, levels: self.policies.each_ref().map(Policy::term) }
    }

    pub fn apply(&self, number: u16, batch: &mut Batch, now: UnixNanos, mask: &mut Vec<bool>, debts: &mut Debts) {
        let mut rows = std::mem::take(&mut debts.scratch.rows);
        rows.iter_mut().for_each(Vec::clear);
        for i in 0..batch.len() {
            if batch.outcome[i] == Outcome::Kept {
                rows[level_of(batch.severity[i])].push(i as u32);
            }
        }
        for (level, (policy, rows)) in self.policies.iter().zip(&rows).enumerate().filter(|(_, (_, rows))| !rows.is_empty()) {
            let rows = Rows { number, level, rows, now, by_arrival: self.by_arrival };
            match policy {
                Policy::All => {}
                Policy::None => rows.each().for_each(|i| batch.leave_out(i, Reason::Sampled)),
                Policy::When { when, weight } => rows.select(when, *weight, batch, mask),
                Policy::Ratio { below, key: None, .. } => rows.hash_records(*below, batch, debts),
                Policy::Ratio { below, rate, key: Some(key) } => rows.hash_keys(*below, *rate, *key, batch, debts),
                Policy::Counter(counting) => match &counting.exact {
                    Some(keys) => self.count_keys(keys, counting, &rows, batch, debts),
                    None => self.count_slots(counting, &rows, batch, debts),
                },
                Policy::Rates(rates, key) => rows.rate(rates, key, batch, debts),
                Policy::Threshold(threshold, key) => rows.draw(threshold, key, batch, debts),
            }
        }
        debts.scratch.rows = rows;
    }

    /// The fields that a counter tells records apart by; none: the whole record.
    #[inline(always)]
    fn counted_by<'a>(&'a self, counting: &'a Counting, batch: &Batch, i: usize) -> &'a [usize] {
        if !counting.key.fields.is_empty() {
            return &counting.key.fields;
        }
        let spans = batch.record_spans(i);
        let message = self.message.iter().position(|field| !matches!(spans[*field].kind, Kind::Missing | Kind::Null));
        message.map_or(&[], |at| &self.message[at..=at])
    }

    fn count_keys(&self, keys: &Keys<ExactCounter>, counting: &Counting, rows: &Rows, batch: &mut Batch, debts: &mut Debts) {
        let mut scratch = std::mem::take(&mut debts.scratch);
        let Scratch { hashes, keeps, order, .. } = &mut scratch;
        hashes.clear();
        for i in rows.each() {
            let fields = self.counted_by(counting, batch, i);
            let hash = debts.key(batch, i, counting.key.tenant(batch, i), fields);
            hashes.push(if fields.is_empty() { mix(hash ^ record_hash(batch.record(i))) } else { hash });
        }
        keeps.clear();
        keeps.resize(hashes.len(), false);
        let time = |n: usize| rows.time(batch, rows.rows[n] as usize, debts);
        keys.change_each(
            hashes,
            order,
            keeps,
            |_, n, counter| counter.is_over(time(n)),
            |keeps, n, counter| keeps[n] = counter.check(time(n), batch.weight[rows.rows[n] as usize], counting.window),
        );
        rows.leave_out(keeps, batch);
        debts.scratch = scratch;
    }

    fn count_slots(&self, counting: &Counting, rows: &Rows, batch: &mut Batch, debts: &mut Debts) {
        let mut scratch = std::mem::take(&mut debts.scratch);
        let Scratch { keeps, slots, bytes, .. } = &mut scratch;
        slots.clear();
        for group in rows.rows.chunks(SIDE_BY_SIDE) {
            // Where a text does not stand in the record as it is meant, it is written down first.
            bytes.clear();
            let mut written = [const { None }; SIDE_BY_SIDE];
            let mut raw = [[].as_slice(); SIDE_BY_SIDE];
            for (n, i) in group.iter().map(|i| *i as usize).enumerate() {
                let (record, spans) = (batch.record(i), batch.record_spans(i));
                match self.counted_by(counting, batch, i) {
                    [] => raw[n] = record,
                    [field] if spans[*field].kind != Kind::Escaped => raw[n] = raw_of(spans[*field], record),
                    fields => {
                        let from = bytes.len();
                        for (nth, field) in fields.iter().enumerate() {
                            if nth > 0 {
                                bytes.push(0xff);
                            }
                            match spans[*field].kind {
                                Kind::Escaped => unescape_into(spans[*field].raw(record), bytes),
                                _ => bytes.extend_from_slice(raw_of(spans[*field], record)),
                            }
                        }
                        written[n] = Some(from..bytes.len());
                    }
                }
            }
            for (text, range) in raw.iter_mut().zip(written) {
                if let Some(range) = range {
                    *text = &bytes[range];
                }
            }
            slots.extend_from_slice(&crate::hash::slots(&raw[..group.len()])[..group.len()]);
        }
        keeps.clear();
        let mut counters = self.counters.level(rows.level);
        keeps.extend(
            rows.each().zip(&*slots).map(|(i, slot)| counters.check(*slot, rows.time(batch, i, debts), batch.weight[i], counting.window)),
        );
        drop(counters);
        rows.leave_out(keeps, batch);
        debts.scratch = scratch;
    }

    fn exact(&self) -> impl Iterator<Item = &Keys<ExactCounter>> {
        self.policies.iter().filter_map(|policy| match policy {
            Policy::Counter(counting) => counting.exact.as_deref(),
            _ => None,
        })
    }

    pub fn take_changes(&self, out: &mut Vec<u8>) {
        self.counters.take_changes(out);
        self.exact().for_each(|keys| keys.take_changes(out));
    }

    pub fn restore(&self, entries: &[u8]) {
        self.counters.restore(entries);
        self.exact().for_each(|keys| keys.restore(entries));
    }

    pub fn share(&mut self, before: &Sample) {
        self.counters = Arc::clone(&before.counters);
        for (policy, before) in self.policies.iter_mut().zip(&before.policies) {
            match (policy, before) {
                (Policy::Counter(counting), Policy::Counter(before)) => counting.exact.clone_from(&before.exact),
                (Policy::Rates(rates, _), Policy::Rates(before, _)) => *rates = Arc::clone(before),
                (Policy::Threshold(threshold, _), Policy::Threshold(before, _)) => *threshold = Arc::clone(before),
                _ => {} // nothing that remembers
            }
        }
    }
}

/// The kept records of one level in a batch, and what all their decisions share.
struct Rows<'a> {
    number: u16,
    level: usize,
    rows: &'a [u32],
    now: UnixNanos,
    by_arrival: bool,
}

impl Rows<'_> {
    fn each(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|i| *i as usize)
    }

    #[inline(always)]
    fn time(&self, batch: &Batch, i: usize, debts: &Debts) -> UnixNanos {
        if self.by_arrival { self.now } else { batch.time[i].min(debts.ceiling) }
    }

    /// `keeps`: one for each row. Kept ones stand for what they stood for.
    fn leave_out(&self, keeps: &[bool], batch: &mut Batch) {
        for (i, _) in self.each().zip(keeps).filter(|(_, keep)| !**keep) {
            batch.leave_out(i, Reason::Sampled);
        }
    }

    /// Writes one decision of a sampler whose weights are right on average: what a kept record stands for.
    #[inline(always)]
    fn settle(&self, batch: &mut Batch, i: usize, kept: Option<u32>, debts: &mut Debts) {
        debts.see(self.number, batch, i, self.level, kept.is_some());
        match kept {
            Some(weight) => self.weigh(batch, i, weight),
            None => batch.leave_out(i, Reason::Sampled),
        }
    }

    #[inline(always)]
    fn weigh(&self, batch: &mut Batch, i: usize, weight: u32) {
        if weight != batch.weight[i] {
            (batch.weight[i], batch.sampler[i]) = (weight, self.number);
        }
    }

    fn select(&self, when: &Condition, weight: u32, batch: &mut Batch, mask: &mut Vec<bool>) {
        mask.clear();
        mask.resize(batch.len(), false);
        self.each().for_each(|i| mask[i] = true);
        when.eval(&*batch, mask);
        for i in self.each() {
            if mask[i] {
                self.weigh(batch, i, batch.weight[i].saturating_mul(weight));
            } else {
                batch.leave_out(i, Reason::Sampled);
            }
        }
    }

    /// Keeps the records whose hash is below this.
    fn hash_records(&self, below: u64, batch: &mut Batch, debts: &mut Debts) {
        let mut keeps = std::mem::take(&mut debts.scratch.keeps);
        keeps.clear();
        keeps.extend(self.each().map(|i| is_below(record_hash(batch.record(i)), below)));
        self.leave_out(&keeps, batch);
        debts.scratch.keeps = keeps;
    }

    /// The same by the hash of a field, where there is one; each kept record stands for `rate`.
    fn hash_keys(&self, below: u64, rate: f64, key: usize, batch: &mut Batch, debts: &mut Debts) {
        let mut hashes = std::mem::take(&mut debts.scratch.hashes);
        hashes.clear();
        for i in self.each() {
            let (span, record) = (batch.record_spans(i)[key], batch.record(i));
            hashes.push(match span.kind {
                Kind::Missing | Kind::Null => record_hash(record),
                Kind::Escaped => key_hash(&span.text(record).unwrap_or_default()),
                _ => key_hash(span.raw(record)),
            });
        }
        for (i, hash) in self.each().zip(&hashes) {
            let kept = is_below(*hash, below).then(|| whole(rate * f64::from(batch.weight[i]), batch.record(i)));
            self.settle(batch, i, kept, debts);
        }
        debts.scratch.hashes = hashes;
    }

    fn rate(&self, rates: &Rates, key: &Key, batch: &mut Batch, debts: &mut Debts) {
        let mut scratch = std::mem::take(&mut debts.scratch);
        let Scratch { bytes, ends, hashes, .. } = &mut scratch;
        bytes.clear();
        ends.clear();
        hashes.clear();
        for i in self.each() {
            let start = bytes.len();
            debts.push_key(batch, i, key.tenant(batch, i), &key.fields, bytes);
            ends.push(bytes.len() as u32);
            hashes.push(rates::hash(&bytes[start..]));
        }
        let mut start = 0;
        let mut held = rates.hold();
        for ((i, end), hash) in self.each().zip(&*ends).zip(&mut *hashes) {
            let rate = held.rate(&bytes[start..*end as usize], *hash, self.time(batch, i, debts), batch.weight[i]);
            (start, *hash) = (*end as usize, u64::from(rate));
        }
        drop(held);
        let is_exact = matches!(rates.method(), Method::Throughput(_));
        for (i, rate) in self.each().zip(&*hashes).map(|(i, rate)| (i, *rate as u32)) {
            let kept = debts.draw(rate);
            match (is_exact, kept) {
                (true, true) => {}
                (true, false) => batch.leave_out(i, Reason::Sampled),
                (false, _) => self.settle(batch, i, kept.then(|| batch.weight[i].saturating_mul(rate)), debts),
            }
        }
        debts.scratch = scratch;
    }

    fn draw(&self, threshold: &Threshold, key: &Key, batch: &mut Batch, debts: &mut Debts) {
        let mut held = threshold.hold();
        for i in self.each() {
            let hash = debts.key(batch, i, key.tenant(batch, i), &[]);
            let stands_for = held.check(hash, self.time(batch, i, debts), batch.weight[i]);
            let kept = stands_for.map(|rate| whole(rate, batch.record(i)));
            self.settle(batch, i, kept, debts);
        }
    }
}

/// Whether a hash is among the lowest; 2^64 cannot be said, and its neighbour is all.
fn is_below(hash: u64, below: u64) -> bool {
    hash < below || below == u64::MAX
}

/// A value as it stands; a missing one is empty.
fn raw_of(span: Span, record: &[u8]) -> &[u8] {
    if span.kind == Kind::Missing { &[] } else { span.raw(record) }
}

/// A whole number that is `rate` on average: the hash of the record decides between the two next to it.
pub(super) fn whole(rate: f64, record: &[u8]) -> u32 {
    if rate.fract() == 0.0 {
        return rate as u32;
    }
    let up = (record_hash(record) >> 11) as f64 / (1u64 << 53) as f64; // 53 bits fill a fraction
    (rate.floor() as u32).saturating_add(u32::from(up < rate.fract()))
}
