//! Quotas: how many records and bytes each tenant, or each value of a field, may send in a calendar period.
//!
//! Reads time, tenant, weights and origin bytes; drops for the reason `over_quota` what goes beyond, keeps a share of it,
//! or keeps it for one sink alone.
//! A period is a whole second, minute, hour, day or month in UTC. What is not used may be used later, up to `burst` periods:
//! a bucket that is filled at the start of each period. A record counts as many as it stands for; one that does not fit is
//! over and takes nothing. A late record counts into the open period. Memory: see `keys`; a key whose bucket is full again is
//! forgotten first. Lanes share the buckets. After a crash, records that were not durable count once more.

use super::keys::{Keys, State};
use crate::batch::Batch;
use crate::debts::{Class, Debts, Term, Terms};
use crate::event::{Outcome, Reason};
use crate::step::sample::{key_hash, level_of};
use crate::units::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SECOND, UnixNanos};
use std::sync::Arc;

/// Limits of one step, at most.
pub const LIMITS_MAX: usize = 10;
const TAG: u8 = 0xd6;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Records,
    Bytes,
}

/// How long a limit holds, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
}

impl Period {
    /// Number of the period that a time lies in, counted from 1970.
    pub fn number(self, time: UnixNanos) -> i64 {
        match self {
            Period::Second => time.0.div_euclid(NANOS_PER_SECOND),
            Period::Minute => time.0.div_euclid(NANOS_PER_MINUTE),
            Period::Hour => time.0.div_euclid(NANOS_PER_HOUR),
            Period::Day => time.0.div_euclid(NANOS_PER_DAY),
            Period::Month => {
                let civil = time.civil();
                (i64::from(civil.year) - 1970) * 12 + i64::from(civil.month) - 1
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub unit: Unit,
    pub period: Period,
    /// Added at the start of each period.
    pub amount: u64,
    /// Most that can gather.
    pub full: u64,
}

/// What becomes of records over quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Over {
    Drop,
    /// Those whose hash is below this are kept.
    Sample {
        below: u64,
    },
    /// All are kept; this sink alone takes them.
    Divert {
        sink: u8,
    },
}

pub struct Quota {
    pub name: Arc<str>,
    pub limits: Vec<Limit>,
    /// The field whose values have buckets of their own, within each tenant; `None`: each tenant has one.
    pub by: Option<usize>,
    pub over: Over,
    pub by_arrival: bool,
    pub buckets: Arc<Keys<Buckets>>,
}

/// What is left of each limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buckets([Bucket; LIMITS_MAX]);

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// One more than the number of the open period; 0: nothing was taken yet.
    period: i64,
    left: u64,
}

impl State for Buckets {
    const PARTS: u64 = LIMITS_MAX as u64;

    fn part(&self, part: u64) -> [u8; 24] {
        let bucket = self.0[part as usize];
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&bucket.period.to_le_bytes());
        bytes[8..16].copy_from_slice(&bucket.left.to_le_bytes());
        bytes
    }

    fn restore(&mut self, part: u64, bytes: &[u8]) {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of 8 is 8 bytes"));
        self.0[part as usize] = Bucket { period: number(0) as i64, left: number(8) };
    }
}

impl Bucket {
    /// Opens the period that the time lies in, if it is a later one.
    fn fill(&mut self, limit: &Limit, period: i64) {
        if self.period == 0 {
            *self = Bucket { period: period + 1, left: limit.full };
        } else if period + 1 > self.period {
            let passed = (period + 1 - self.period) as u64;
            self.left = self.left.saturating_add(limit.amount.saturating_mul(passed)).min(limit.full);
            self.period = period + 1;
        }
    }
}

impl Quota {
    pub fn new(name: Arc<str>, limits: Vec<Limit>, by: Option<usize>, over: Over, by_arrival: bool, keys_max: usize) -> Quota {
        Quota { name, limits, by, over, by_arrival, buckets: Arc::new(Keys::new(keys_max, TAG)) }
    }

    pub fn terms(&self) -> Terms {
        let term = Term { class: Class::Exact, window_ns: NANOS_PER_MINUTE };
        Terms { name: Arc::clone(&self.name), by_arrival: self.by_arrival, levels: [term; 7] }
    }

    pub fn apply(&self, number: u16, batch: &mut Batch, now: UnixNanos, debts: &mut Debts) {
        for i in 0..batch.len() {
            if batch.outcome[i] != Outcome::Kept {
                continue;
            }
            let time = if self.by_arrival { now } else { batch.time[i].min(debts.ceiling) };
            let hash = debts.key(batch, i, Some(batch.tenant[i]), self.by.as_slice());
            let costs = [u64::from(batch.weight[i]), u64::from(batch.origin_bytes[i])];
            let within = self.take(hash, time, costs);
            let kept = within
                || match self.over {
                    Over::Drop => false,
                    Over::Sample { below } => key_hash(batch.record(i)) < below,
                    Over::Divert { sink } => {
                        batch.divert(i, sink);
                        true
                    }
                };
            debts.note(number, batch, i, level_of(batch.severity[i]), kept);
            if !kept {
                batch.leave_out(i, Reason::OverQuota, number);
            }
        }
    }

    /// Takes what a record costs (records, bytes) out of every bucket, or nothing if one has not enough.
    fn take(&self, hash: u64, time: UnixNanos, costs: [u64; 2]) -> bool {
        let mut periods = [0; LIMITS_MAX];
        for (period, limit) in periods.iter_mut().zip(&self.limits) {
            *period = limit.period.number(time);
        }
        let cost = |limit: &Limit| costs[usize::from(limit.unit == Unit::Bytes)];
        let is_full_again = |buckets: &Buckets| {
            let mut buckets = buckets.0;
            let mut limits = buckets.iter_mut().zip(&self.limits).zip(&periods);
            limits.all(|((bucket, limit), period)| {
                bucket.fill(limit, *period);
                bucket.left == limit.full
            })
        };
        self.buckets.change(hash, is_full_again, |buckets| {
            let mut within = true;
            for ((bucket, limit), period) in buckets.0.iter_mut().zip(&self.limits).zip(&periods) {
                bucket.fill(limit, *period);
                within &= bucket.left >= cost(limit);
            }
            if within {
                buckets.0.iter_mut().zip(&self.limits).for_each(|(bucket, limit)| bucket.left -= cost(limit));
            }
            within
        })
    }

    pub fn take_changes(&self, out: &mut Vec<u8>) {
        self.buckets.take_changes(out);
    }

    pub fn restore(&self, entries: &[u8]) {
        self.buckets.restore(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::days_from_civil;

    fn at(day: (i32, u32, u32), seconds: i64) -> UnixNanos {
        UnixNanos((days_from_civil(day.0, day.1, day.2) * 86_400 + seconds) * NANOS_PER_SECOND)
    }

    fn quota(limits: &[(Unit, Period, u64, u64)], keys_max: usize) -> Quota {
        let limits = limits.iter().map(|(unit, period, amount, full)| Limit { unit: *unit, period: *period, amount: *amount, full: *full });
        Quota::new("test".into(), limits.collect(), None, Over::Drop, false, keys_max)
    }

    #[test]
    fn a_day_and_a_month_are_those_of_the_calendar() {
        let quota = quota(&[(Unit::Records, Period::Day, 2, 2), (Unit::Bytes, Period::Month, 500, 500)], 10);
        let take = |time| quota.take(7, time, [1, 100]);
        assert_eq!(
            [take(at((2024, 2, 28), 86_399)), take(at((2024, 2, 28), 86_399)), take(at((2024, 2, 28), 86_399))],
            [true, true, false]
        );
        assert_eq!([take(at((2024, 2, 29), 0)), take(at((2024, 2, 29), 5)), take(at((2024, 2, 29), 86_000))], [true, true, false]);
        assert!(take(at((2024, 3, 1), 0)), "a new month, a new day");
        assert_eq!([(); 3].map(|()| quota.take(8, at((2024, 3, 1), 0), [1, 499])), [true, false, false], "another key, in bytes");
    }

    #[test]
    fn eb_1_7_late_records_count_into_the_open_period_and_never_reopen_one() {
        let quota = quota(&[(Unit::Records, Period::Second, 1, 1)], 10);
        let take = |second| quota.take(7, at((2026, 11, 20), second), [1, 1]);
        assert_eq!([take(10), take(9), take(-100_000), take(10), take(11), take(10)], [true, false, false, false, true, false]);
        for time in [UnixNanos(i64::MIN), UnixNanos(0), UnixNanos(i64::MAX), UnixNanos(-1)] {
            quota.take(9, time, [u64::MAX, u64::MAX]);
            quota.take(9, time, [1, 1]);
        }
    }

    #[test]
    fn what_is_not_used_gathers_up_to_the_burst() {
        let quota = quota(&[(Unit::Records, Period::Second, 2, 6)], 10);
        let take = |second: i64| (0..10).filter(|_| quota.take(7, at((2026, 11, 20), second), [1, 1])).count();
        assert_eq!([take(0), take(1), take(2), take(4), take(100)], [6, 2, 2, 4, 6]);
    }

    #[test]
    fn a_record_counts_as_many_as_it_stands_for_and_takes_all_or_nothing() {
        let quota = quota(&[(Unit::Records, Period::Hour, 10, 10), (Unit::Bytes, Period::Hour, 100, 100)], 10);
        let take = |records, bytes| quota.take(7, at((2026, 11, 20), 0), [records, bytes]);
        assert_eq!([take(7, 10), take(7, 10), take(1, 95), take(3, 90), take(0, 0), take(0, 1)], [true, false, false, true, true, false]);
    }

    #[test]
    fn state_comes_back_and_full_buckets_are_forgotten() {
        let limits = [(Unit::Records, Period::Minute, 3, 3), (Unit::Bytes, Period::Day, 1_000, 1_000)];
        let (first, second) = (quota(&limits, 1_000), quota(&limits, 1_000));
        let mut state = std::collections::BTreeMap::new();
        let mut changes = Vec::new();
        for n in 0..2_000u64 {
            first.take(key_hash(&(n % 50).to_le_bytes()), at((2026, 11, 20), n as i64), [1, 7]);
            if n % 100 == 0 {
                changes.clear();
                first.take_changes(&mut changes);
                changes.chunks_exact(32).for_each(|e| drop(state.insert(e[..8].to_vec(), e[8..].to_vec())));
            }
        }
        changes.clear();
        first.take_changes(&mut changes);
        changes.chunks_exact(32).for_each(|e| drop(state.insert(e[..8].to_vec(), e[8..].to_vec())));
        state.iter().for_each(|(key, value)| second.restore(&[key.as_slice(), value].concat()));
        for n in 2_000..3_000u64 {
            let take = |quota: &Quota| quota.take(key_hash(&(n % 50).to_le_bytes()), at((2026, 11, 20), n as i64 / 7), [1, 7]);
            assert_eq!(take(&first), take(&second), "{n}");
        }
        let small = quota(&[(Unit::Records, Period::Second, 1, 1)], 64);
        for n in 0..100_000u64 {
            small.take(key_hash(&n.to_le_bytes()), at((2026, 11, 20), n as i64 / 10), [1, 1]);
        }
        assert!(small.buckets.count() <= 128, "{}", small.buckets.count());
    }
}
