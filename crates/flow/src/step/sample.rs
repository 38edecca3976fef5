//! Sampling: a policy per level. What it drops is dropped for volume: its cost counts, its bytes do not travel.
//!
//! Reads severity, time and the spans of keys and conditions; writes verdicts and weights. A kept record's
//! weight says how many records it stands for. Memory: zap's counters, 7 levels x 4,096 slots of 16 bytes.

use crate::batch::Batch;
use crate::condition::Condition;
use crate::counter::Counters;
use crate::event::{Outcome, Reason};
use crate::fields::Kind;
use crate::units::UnixNanos;

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
        weight: u32,
        key: Option<usize>,
    },
    /// zap's counter sampler: the first records of a message in each tick, then every n-th.
    Counter {
        first: u64,
        thereafter: u64,
        tick: i64,
    },
    /// Keeps what matches; each kept record stands for `weight`.
    When {
        when: Condition,
        weight: u32,
    },
}

pub struct Sample {
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
        let weight = if ratio > 0.0 { (1.0 / ratio).round().min(f64::from(u32::MAX)) as u32 } else { 1 };
        Policy::Ratio { below, weight, key }
    }
}

impl Sample {
    pub fn apply(&self, batch: &mut Batch, now: UnixNanos, mask: &mut Vec<bool>) {
        for (level, policy) in self.policies.iter().enumerate() {
            match policy {
                Policy::All => {}
                Policy::When { when, weight } => {
                    mask.clear();
                    mask.extend((0..batch.len()).map(|i| level_of(batch.severity[i]) == level));
                    let ours = mask.clone();
                    when.eval(&*batch, mask);
                    for i in 0..batch.len() {
                        if ours[i] {
                            settle(batch, i, mask[i].then_some(*weight));
                        }
                    }
                }
                _ => {
                    for i in 0..batch.len() {
                        if level_of(batch.severity[i]) == level && batch.outcome[i] == Outcome::Kept {
                            let kept = self.decide(policy, level, batch, i, now);
                            settle(batch, i, kept);
                        }
                    }
                }
            }
        }
    }

    /// The weight of a kept record; `None` if it is dropped.
    #[inline(always)]
    fn decide(&self, policy: &Policy, level: usize, batch: &Batch, i: usize, now: UnixNanos) -> Option<u32> {
        match policy {
            Policy::All | Policy::When { .. } => Some(1),
            Policy::None => None,
            Policy::Ratio { below, weight, key } => {
                let hash = match key.map(|k| batch.record_spans(i)[k]) {
                    Some(span) if !matches!(span.kind, Kind::Missing | Kind::Null) => {
                        key_hash(span.text(batch.record(i)).as_deref().unwrap_or_default())
                    }
                    _ => key_hash(batch.record(i)),
                };
                (hash < *below || *below == u64::MAX).then_some(*weight)
            }
            Policy::Counter { first, thereafter, tick } => {
                let time = if self.by_arrival { now } else { batch.time[i] };
                let message = batch.first_present(i, &self.message);
                let hash = message
                    .map_or_else(|| crate::counter::hash_raw(batch.record(i)), |span| crate::counter::hash_span(span, batch.record(i)));
                let decision = self.counters.check(level, hash, time, *tick, *first, *thereafter);
                decision.keep.then_some(decision.weight)
            }
        }
    }

    pub fn take_changes(&self, out: &mut Vec<u8>) {
        self.counters.take_changes(out);
    }

    pub fn restore(&self, entries: &[u8]) {
        self.counters.restore(entries);
    }
}

/// Writes one decision: the weight of a kept record multiplies what an earlier sampler gave it.
#[inline(always)]
fn settle(batch: &mut Batch, i: usize, kept: Option<u32>) {
    match kept {
        Some(weight) if batch.outcome[i] == Outcome::Kept => batch.weight[i] = batch.weight[i].saturating_mul(weight),
        Some(_) => {}
        None => batch.decide(i, Outcome::Dropped(Reason::Sampled)),
    }
}

/// FNV-1a-64 with a final mix (Steele 2014), so that the top bits depend on every byte. Part of the contract:
/// every node and every release decides alike.
pub fn key_hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}
