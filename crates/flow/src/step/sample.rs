//! Sampling: a policy per level. What it drops is dropped for volume: its cost counts, its bytes do not travel.
//!
//! Reads severity, time and the spans of keys and conditions; writes verdicts and weights. A kept record's
//! weight says how many records it stands for; weights that reach a sampler count, not rows. Memory: zap's counters, 7 levels x
//! 4,096 slots of 16 bytes; what `keys`, `rates` and `threshold` say.

use crate::batch::Batch;
use crate::condition::Condition;
use crate::counter::{Counters, ExactCounter, Window};
use crate::debts::{Class, Debts, Term, Terms};
use crate::event::{Outcome, Reason};
use crate::fields::Kind;
use crate::step::keys::Keys;
use crate::step::rates::{Method, Rates};
use crate::step::threshold::Threshold;
use crate::units::{NANOS_PER_MINUTE, UnixNanos};
use std::sync::Arc;

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
    Rates(Box<Rates>, Key),
    /// About so many of each window.
    Threshold(Box<Threshold>, Key),
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
    pub exact: Option<Box<Keys<ExactCounter>>>,
}

/// First of the tags of exact counters in frames: one for each level.
const TAG: u8 = 0xe0;

impl Counting {
    /// `exact`: most keys with counters of their own; 0: zap's slots. `level`: index into [`LEVELS`].
    pub fn new(window: Window, key: Key, exact: usize, level: usize) -> Counting {
        let exact = (exact > 0).then(|| Box::new(Keys::new(exact, TAG + level as u8)));
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
    pub counters: Counters,
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
        Term { class, window_ns }
    }
}

impl Sample {
    pub fn terms(&self) -> Terms {
        Terms { name: Arc::clone(&self.name), by_arrival: self.by_arrival, levels: self.policies.each_ref().map(Policy::term) }
    }

    pub fn apply(&self, number: u16, batch: &mut Batch, now: UnixNanos, mask: &mut Vec<bool>, debts: &mut Debts) {
        for (level, policy) in self.policies.iter().enumerate() {
            match policy {
                Policy::All => {}
                Policy::When { when, weight } => {
                    mask.clear();
                    mask.extend((0..batch.len()).map(|i| level_of(batch.severity[i]) == level));
                    let ours = mask.clone();
                    when.eval(&*batch, mask);
                    for i in (0..batch.len()).filter(|i| ours[*i]) {
                        if batch.outcome[i] == Outcome::Kept {
                            self.settle(number, batch, i, level, mask[i].then_some(batch.weight[i].saturating_mul(*weight)), debts);
                        }
                    }
                }
                _ => {
                    for i in 0..batch.len() {
                        if level_of(batch.severity[i]) == level && batch.outcome[i] == Outcome::Kept {
                            let kept = self.decide(policy, level, batch, i, now, debts);
                            self.settle(number, batch, i, level, kept, debts);
                        }
                    }
                }
            }
        }
    }

    /// What a kept record stands for; `None` if it is dropped. Where weights are exact, `debts` adds to it later.
    #[inline(always)]
    fn decide(&self, policy: &Policy, level: usize, batch: &Batch, i: usize, now: UnixNanos, debts: &mut Debts) -> Option<u32> {
        let weight = batch.weight[i];
        match policy {
            Policy::All | Policy::When { .. } => Some(weight),
            Policy::None => None,
            Policy::Ratio { below, rate, key } => {
                let hash = match key.map(|k| batch.record_spans(i)[k]) {
                    Some(span) if !matches!(span.kind, Kind::Missing | Kind::Null) => {
                        key_hash(span.text(batch.record(i)).as_deref().unwrap_or_default())
                    }
                    _ => key_hash(batch.record(i)),
                };
                let is_kept = hash < *below || *below == u64::MAX;
                is_kept.then(|| if key.is_some() { whole(rate * f64::from(weight), batch.record(i)) } else { weight })
            }
            Policy::Counter(counting) => self.count(counting, level, batch, i, self.time(batch, i, now, debts), debts).then_some(weight),
            Policy::Rates(rates, key) => {
                let mut bytes = std::mem::take(&mut debts.scratch);
                debts.key_bytes(batch, i, key.tenant(batch, i), &key.fields, &mut bytes);
                let rate = rates.rate(&bytes, self.time(batch, i, now, debts), weight);
                debts.scratch = bytes;
                let is_exact = matches!(rates.method(), Method::Throughput(_));
                debts.draw(rate).then(|| if is_exact { weight } else { weight.saturating_mul(rate) })
            }
            Policy::Threshold(threshold, key) => {
                let hash = debts.key(batch, i, key.tenant(batch, i), &[]);
                let stands_for = threshold.check(hash, self.time(batch, i, now, debts), weight)?;
                Some(whole(stands_for, batch.record(i)))
            }
        }
    }

    fn time(&self, batch: &Batch, i: usize, now: UnixNanos, debts: &Debts) -> UnixNanos {
        if self.by_arrival { now } else { batch.time[i].min(debts.ceiling) }
    }

    #[inline(always)]
    fn count(&self, counting: &Counting, level: usize, batch: &Batch, i: usize, time: UnixNanos, debts: &mut Debts) -> bool {
        let (record, window) = (batch.record(i), counting.window);
        let spans = batch.record_spans(i);
        let present = |field: &usize| !matches!(spans[*field].kind, Kind::Missing | Kind::Null);
        let message = self.message.iter().position(present).map(|at| &self.message[at..=at]);
        let fields = if counting.key.fields.is_empty() { message } else { Some(counting.key.fields.as_slice()) };
        match &counting.exact {
            Some(keys) => {
                let tenant = counting.key.tenant(batch, i);
                let mut hash = debts.key(batch, i, tenant, fields.unwrap_or_default());
                if fields.is_none() {
                    hash = mix(hash ^ key_hash(record));
                }
                keys.change(hash, |counter| counter.is_over(time), |counter| counter.check(time, batch.weight[i], window))
            }
            None => {
                let hash = match fields {
                    Some([field]) => crate::counter::hash_span(spans[*field], record),
                    Some(fields) => crate::counter::hash_values(fields.iter().map(|field| spans[*field]), record),
                    None => crate::counter::hash_raw(record),
                };
                self.counters.check(level, hash, time, batch.weight[i], window)
            }
        }
    }

    /// Writes one decision: what a kept record stands for.
    #[inline(always)]
    fn settle(&self, number: u16, batch: &mut Batch, i: usize, level: usize, kept: Option<u32>, debts: &mut Debts) {
        debts.note(number, batch, i, level, kept.is_some());
        match kept {
            Some(weight) if weight == batch.weight[i] => {}
            Some(weight) => {
                batch.weight[i] = weight;
                batch.sampler[i] = number;
            }
            None => batch.leave_out(i, Reason::Sampled, number),
        }
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
}

/// A whole number that is `rate` on average: the hash of the record decides between the two next to it.
pub(super) fn whole(rate: f64, record: &[u8]) -> u32 {
    let up = (key_hash(record) >> 11) as f64 / (1u64 << 53) as f64; // 53 bits fill a fraction
    (rate.floor() as u32).saturating_add(u32::from(up < rate.fract()))
}

/// FNV-1a-64 with a final mix (Steele 2014), so that the top bits depend on every byte. Part of the contract:
/// every node and every release decides alike.
pub fn key_hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)))
}

/// Makes every bit of a hash depend on every other.
pub fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}
