//! Sampling: a policy per level. What it drops is dropped for volume: its cost counts, its bytes do not travel.
//!
//! Reads severity, time and the spans of keys and conditions; writes verdicts and weights. A kept record's
//! weight says how many records it stands for; weights of others that reach a sampler count, not rows. Memory: zap's counters, 7 levels x 4,096 slots of 16 bytes.

use crate::batch::Batch;
use crate::condition::Condition;
use crate::counter::{Counters, Window};
use crate::debts::{Class, Debts, Term, Terms};
use crate::event::{Outcome, Reason};
use crate::fields::Kind;
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
    Counter(Window),
    /// Keeps what matches; each kept record stands for `weight`.
    When {
        when: Condition,
        weight: u32,
    },
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
            Policy::Counter(window) => (Class::Exact, window.tick_ns),
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
                            self.settle(number, batch, i, level, mask[i].then_some(*weight), debts);
                        }
                    }
                }
                _ => {
                    for i in 0..batch.len() {
                        if level_of(batch.severity[i]) == level && batch.outcome[i] == Outcome::Kept {
                            let kept = self.decide(policy, level, batch, i, now);
                            self.settle(number, batch, i, level, kept, debts);
                        }
                    }
                }
            }
        }
    }

    /// By how much the weight of a kept record is multiplied; `None` if it is dropped. Where weights are exact, `debts`
    /// adds to it later.
    #[inline(always)]
    fn decide(&self, policy: &Policy, level: usize, batch: &Batch, i: usize, now: UnixNanos) -> Option<u32> {
        match policy {
            Policy::All | Policy::When { .. } => Some(1),
            Policy::None => None,
            Policy::Ratio { below, rate, key } => {
                let hash = match key.map(|k| batch.record_spans(i)[k]) {
                    Some(span) if !matches!(span.kind, Kind::Missing | Kind::Null) => {
                        key_hash(span.text(batch.record(i)).as_deref().unwrap_or_default())
                    }
                    _ => key_hash(batch.record(i)),
                };
                let is_kept = hash < *below || *below == u64::MAX;
                is_kept.then(|| if key.is_some() { whole(*rate, batch.record(i)) } else { 1 })
            }
            Policy::Counter(window) => {
                let time = if self.by_arrival { now } else { batch.time[i] };
                let message = batch.first_present(i, &self.message);
                let hash = message
                    .map_or_else(|| crate::counter::hash_raw(batch.record(i)), |span| crate::counter::hash_span(span, batch.record(i)));
                self.counters.check(level, hash, time, batch.weight[i], *window).then_some(1)
            }
        }
    }

    /// Writes one decision: the weight of a kept record multiplies what it stood for before.
    #[inline(always)]
    fn settle(&self, number: u16, batch: &mut Batch, i: usize, level: usize, kept: Option<u32>, debts: &mut Debts) {
        debts.note(number, batch, i, level, kept.is_some());
        match kept {
            Some(1) => {}
            Some(weight) => {
                batch.weight[i] = batch.weight[i].saturating_mul(weight);
                batch.sampler[i] = number;
            }
            None => batch.leave_out(i, Reason::Sampled, number),
        }
    }

    pub fn take_changes(&self, out: &mut Vec<u8>) {
        self.counters.take_changes(out);
    }

    pub fn restore(&self, entries: &[u8]) {
        self.counters.restore(entries);
    }
}

/// A whole number that is `rate` on average: the hash of the record decides between the two next to it.
fn whole(rate: f64, record: &[u8]) -> u32 {
    let up = (key_hash(record) >> 11) as f64 / (1u64 << 53) as f64; // 53 bits fill a fraction
    (rate.floor() as u32).saturating_add(u32::from(up < rate.fract()))
}

/// FNV-1a-64 with a final mix (Steele 2014), so that the top bits depend on every byte. Part of the contract:
/// every node and every release decides alike.
pub fn key_hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}
