//! Quotas: how many records and bytes, and for how much money, each tenant or each value of a field may send in a calendar period.
//!
//! Reads time, tenant, weights, origin bytes and list prices (`prices`); drops for the reason `over_quota` what goes beyond, keeps
//! a share of it, keeps it for one sink alone, or keeps all of it and says until when the log it came from is to rest
//! (`Batch::rests_until`).
//! A period is a whole second, minute, hour, day or month in UTC. What is not used may be used later, up to `burst` periods:
//! a bucket that is filled at the start of each period. A record counts as many as it stands for, and costs what meters count;
//! one that does not fit is over and takes nothing. Where the log waits instead, every record takes all it costs, and the bucket
//! owes: the log rests until the period in which it holds something again. A late record counts into the open period; on the
//! arrival clock a time that lies more than a minute before it says that the clock was set back, and the period goes along.
//! Memory: see `keys`; a key whose bucket is full again is forgotten first, and so is the rest of a log that is over. Lanes share
//! the buckets. After a crash, records that were not durable count once more.

use super::keys::{Keys, State};
use crate::batch::Batch;
use crate::debts::{Class, Debts, Scratch, Term, Terms};
use crate::event::{Outcome, Reason};
use crate::hash::record_hash;
use crate::meter::Meters;
use crate::prices::Prices;
use crate::step::redact::Editor;
use crate::units::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SECOND, UnixNanos, days_from_civil};
use std::sync::Arc;

/// Limits of one step, at most.
pub const LIMITS_MAX: usize = 15;
const TAG: u8 = 0xd6;
const RESTS_TAG: u8 = 0xd7;
/// On the arrival clock: lanes differ by less.
const SET_BACK_NS: i64 = NANOS_PER_MINUTE;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Records,
    Bytes,
    /// List price, in 10^-12 of the rate card's currency.
    Money,
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
        match self.nanos() {
            Some(nanos) => time.0.div_euclid(nanos),
            None => {
                let civil = time.civil();
                (i64::from(civil.year) - 1970) * 12 + i64::from(civil.month) - 1
            }
        }
    }

    /// When a period begins; the end of time where nanoseconds do not reach.
    pub fn start(self, number: i64) -> UnixNanos {
        UnixNanos(match self.nanos() {
            Some(nanos) => number.saturating_mul(nanos),
            None => {
                let year = number.div_euclid(12).clamp(-10_000, 10_000) as i32 + 1970;
                days_from_civil(year, number.rem_euclid(12) as u32 + 1, 1).saturating_mul(NANOS_PER_DAY)
            }
        })
    }

    /// `None`: not all are of one length.
    fn nanos(self) -> Option<i64> {
        match self {
            Period::Second => Some(NANOS_PER_SECOND),
            Period::Minute => Some(NANOS_PER_MINUTE),
            Period::Hour => Some(NANOS_PER_HOUR),
            Period::Day => Some(NANOS_PER_DAY),
            Period::Month => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub unit: Unit,
    pub period: Period,
    /// Added at the start of each period; more than 0.
    pub amount: i128,
    /// Most that can gather.
    pub full: i128,
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
    /// They are kept, and their log rests until the bucket has paid.
    Delay,
}

pub struct Quota {
    pub name: Arc<str>,
    pub limits: Vec<Limit>,
    /// The field whose values have buckets of their own, within each tenant; `None`: each tenant has one.
    pub by: Option<usize>,
    pub over: Over,
    pub by_arrival: bool,
    /// Where a limit counts money.
    pub prices: Option<Prices>,
    pub buckets: Arc<Keys<Buckets>>,
    /// Until when logs rest, by [`Batch::log`]: a restart goes on with it.
    pub rests: Arc<Keys<Rest>>,
}

/// What a record takes out of buckets: records, bytes, money.
type Costs = [i128; 3];

/// What is left of each limit.
#[derive(Clone, Debug, Default)]
pub struct Buckets(Vec<Bucket>);

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// One more than the number of the open period; 0: nothing was taken yet.
    period: i64,
    /// Below 0: owed.
    left: i128,
}

/// Until when a log rests, and when that was decided.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    until: UnixNanos,
    since: UnixNanos,
}

impl State for Buckets {
    const PARTS: u64 = LIMITS_MAX as u64;

    fn part(&self, part: u64) -> [u8; 24] {
        let mut bytes = [0; 24];
        if let Some(bucket) = self.0.get(part as usize) {
            bytes[..8].copy_from_slice(&bucket.period.to_le_bytes());
            bytes[8..].copy_from_slice(&bucket.left.to_le_bytes());
        }
        bytes
    }

    fn restore(&mut self, part: u64, bytes: &[u8]) {
        let part = part as usize;
        self.0.resize(self.0.len().max(part + 1), Bucket::default());
        let (period, left) = bytes.split_at(8);
        self.0[part] = Bucket {
            period: i64::from_le_bytes(period.try_into().expect("split at 8")),
            left: i128::from_le_bytes(left.try_into().expect("16 of 24 are left")),
        };
    }
}

impl State for Rest {
    const PARTS: u64 = 1;

    fn part(&self, _: u64) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.until.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.since.0.to_le_bytes());
        bytes
    }

    fn restore(&mut self, _: u64, bytes: &[u8]) {
        let time = |at: usize| UnixNanos(i64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of 8 is 8 bytes")));
        *self = Rest { until: time(0), since: time(8) };
    }
}

impl Bucket {
    /// Opens the period that the time lies in, if it is a later one. `set_back`: where the clock says that the open one is still
    /// to come, that is not so.
    fn fill(&mut self, limit: &Limit, period: i64, set_back: Option<UnixNanos>) {
        if self.period == 0 {
            *self = Bucket { period: period + 1, left: limit.full };
        } else if period + 1 > self.period {
            let passed = i128::from(period + 1 - self.period);
            self.left = self.left.saturating_add(limit.amount.saturating_mul(passed)).min(limit.full);
            self.period = period + 1;
        } else if let Some(now) = set_back
            && period + 1 < self.period
            && limit.period.start(self.period - 1).0.saturating_sub(now.0) > SET_BACK_NS
        {
            self.period = period + 1;
        }
    }

    /// When it holds something again; `None`: it does.
    fn paid_at(&self, limit: &Limit) -> Option<UnixNanos> {
        if self.left > 0 {
            return None;
        }
        let periods = self.left.unsigned_abs() / limit.amount.max(1).unsigned_abs() + 1;
        let periods = i64::try_from(periods).unwrap_or(i64::MAX);
        Some(limit.period.start((self.period - 1).saturating_add(periods)))
    }
}

/// Numbers of the periods that a second lies in, one for each limit.
struct Periods {
    second: i64,
    /// On the arrival clock: a period long after this time is not open.
    set_back: Option<UnixNanos>,
    numbers: [i64; LIMITS_MAX],
}

impl Quota {
    pub fn new(name: Arc<str>, limits: Vec<Limit>, by: Option<usize>, over: Over, by_arrival: bool, keys_max: usize) -> Quota {
        let (buckets, rests) = (Arc::new(Keys::new(keys_max, TAG)), Arc::new(Keys::new(keys_max, RESTS_TAG)));
        Quota { name, limits, by, over, by_arrival, prices: None, buckets, rests }
    }

    /// Goes on with what another one remembers.
    pub fn share(&mut self, before: &Quota) {
        self.buckets = Arc::clone(&before.buckets);
        self.rests = Arc::clone(&before.rests);
    }

    pub fn terms(&self) -> Terms {
        let term = Term { is_counted: true, class: Class::Exact, window_ns: NANOS_PER_MINUTE };
        Terms { name: Arc::clone(&self.name), by_arrival: self.by_arrival, levels: [term; 7] }
    }

    /// Takes what the kept records of a batch cost, with one lock for each shard of buckets.
    pub fn apply(&self, batch: &mut Batch, now: UnixNanos, meters: &Meters, mask: &mut Vec<bool>, debts: &mut Debts, editor: &mut Editor) {
        if self.over == Over::Delay && debts.is_once {
            return; // the clock must not show in what comes out
        }
        let mut scratch = std::mem::take(&mut debts.scratch);
        let Scratch { rows: [rows, ..], hashes, keeps, order, money, .. } = &mut scratch;
        money.clear();
        if let Some(prices) = &self.prices {
            editor.swap_originals(batch); // meters read records as they were received
            prices.costs(meters, batch, mask, money);
            editor.swap_originals(batch);
        }
        rows.clear();
        hashes.clear();
        keeps.clear();
        rows.extend((0u32..).zip(&batch.outcome).filter(|(_, outcome)| **outcome == Outcome::Kept).map(|(i, _)| i));
        hashes.extend(rows.iter().map(|i| debts.key(batch, *i as usize, Some(batch.tenant[*i as usize]), self.by.as_slice())));
        keeps.resize(hashes.len(), true);
        let time = |n: usize| if self.by_arrival { now } else { batch.time[rows[n] as usize].min(debts.ceiling) };
        let mut taking = (&mut *keeps, self.periods(now), None);
        self.buckets.change_each(
            hashes,
            order,
            &mut taking,
            |(_, periods, _), n, buckets| self.is_full_again(buckets, self.periods_at(periods, time(n))),
            |(keeps, periods, rests_until), n, buckets| {
                let i = rows[n] as usize;
                let costs = [i128::from(batch.weight[i]), i128::from(batch.origin_bytes[i]), money.get(i).copied().unwrap_or(0)];
                let buckets = self.fill(buckets, self.periods_at(periods, time(n)));
                match self.over {
                    Over::Delay => *rests_until = (*rests_until).max(self.owe_to(buckets, costs)),
                    Over::Drop | Over::Sample { .. } | Over::Divert { .. } => keeps[n] = self.take_from(buckets, costs),
                }
            },
        );
        let (.., rests_until) = taking;
        for (i, _) in rows.iter().zip(&*keeps).map(|(i, keep)| (*i as usize, keep)).filter(|(_, keep)| !**keep) {
            match self.over {
                Over::Divert { sink } => batch.divert(i, sink),
                Over::Sample { below } if record_hash(batch.record(i)) < below => {}
                Over::Drop | Over::Sample { .. } | Over::Delay => batch.leave_out(i, Reason::OverQuota),
            }
        }
        debts.scratch = scratch;
        if let Some(until) = rests_until.filter(|until| *until > now) {
            batch.rests_until = batch.rests_until.max(Some(until));
            self.rests.change(batch.log, |rest| rest.until <= now, |rest| *rest = Rest { until, since: now });
        }
    }

    /// The periods of a time; most records lie in the second of the one before.
    fn periods_at<'a>(&self, last: &'a mut Periods, time: UnixNanos) -> &'a Periods {
        if Period::Second.number(time) != last.second {
            *last = self.periods(time);
        }
        last
    }

    fn periods(&self, time: UnixNanos) -> Periods {
        let mut numbers = [0; LIMITS_MAX];
        for (number, limit) in numbers.iter_mut().zip(&self.limits) {
            *number = limit.period.number(time);
        }
        Periods { second: Period::Second.number(time), set_back: self.by_arrival.then_some(time), numbers }
    }

    /// Nothing would be different without these buckets.
    fn is_full_again(&self, buckets: &Buckets, periods: &Periods) -> bool {
        buckets.0.iter().zip(&self.limits).zip(&periods.numbers).all(|((bucket, limit), period)| {
            let mut bucket = *bucket;
            bucket.fill(limit, *period, periods.set_back);
            bucket.left == limit.full
        })
    }

    /// The buckets of a key, filled for these periods.
    #[inline]
    fn fill<'a>(&self, buckets: &'a mut Buckets, periods: &Periods) -> &'a mut [Bucket] {
        if buckets.0.len() < self.limits.len() {
            buckets.0.resize(self.limits.len(), Bucket::default());
        }
        for ((bucket, limit), period) in buckets.0.iter_mut().zip(&self.limits).zip(&periods.numbers) {
            bucket.fill(limit, *period, periods.set_back);
        }
        &mut buckets.0
    }

    /// Takes what a record costs out of every bucket, or nothing if one has not enough.
    #[inline]
    fn take_from(&self, buckets: &mut [Bucket], costs: Costs) -> bool {
        let within = buckets.iter().zip(&self.limits).all(|(bucket, limit)| bucket.left >= costs[limit.unit as usize]);
        if within {
            buckets.iter_mut().zip(&self.limits).for_each(|(bucket, limit)| bucket.left -= costs[limit.unit as usize]);
        }
        within
    }

    /// Takes what a record costs out of every bucket, whatever is in it. Returns until when its log is to rest.
    #[inline]
    fn owe_to(&self, buckets: &mut [Bucket], costs: Costs) -> Option<UnixNanos> {
        let mut until = None;
        for (bucket, limit) in buckets.iter_mut().zip(&self.limits) {
            let cost = costs[limit.unit as usize];
            bucket.left = bucket.left.saturating_sub(cost);
            // Where nothing is sold nobody has to wait.
            until = until.max(bucket.paid_at(limit).filter(|_| cost > 0));
        }
        until
    }

    /// Until when a log was to rest when this was last said of it; it may be over. Where the clock was set back since, it rests as
    /// long as it was to rest then.
    pub fn rest_of(&self, log: u64, now: UnixNanos) -> Option<UnixNanos> {
        let rest = self.rests.get(log, |rest| *rest)?;
        let ahead = rest.since.0.saturating_sub(now.0);
        Some(if ahead > SET_BACK_NS { UnixNanos(rest.until.0.saturating_sub(ahead)) } else { rest.until })
    }

    pub fn take_changes(&self, out: &mut Vec<u8>) {
        self.buckets.take_changes(out);
        self.rests.take_changes(out);
    }

    pub fn restore(&self, entries: &[u8]) {
        self.buckets.restore(entries);
        self.rests.restore(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Quota {
        /// One record.
        fn take(&self, hash: u64, time: UnixNanos, costs: Costs) -> bool {
            self.change(hash, time, |buckets| self.take_from(buckets, costs))
        }

        fn owe(&self, hash: u64, time: UnixNanos, costs: Costs) -> Option<UnixNanos> {
            self.change(hash, time, |buckets| self.owe_to(buckets, costs))
        }

        fn change<R>(&self, hash: u64, time: UnixNanos, change: impl FnOnce(&mut [Bucket]) -> R) -> R {
            let periods = self.periods(time);
            self.buckets.change(hash, |buckets| self.is_full_again(buckets, &periods), |buckets| change(self.fill(buckets, &periods)))
        }
    }

    use crate::hash::key_hash;
    use crate::units::days_from_civil;

    fn at(day: (i32, u32, u32), seconds: i64) -> UnixNanos {
        UnixNanos((days_from_civil(day.0, day.1, day.2) * 86_400 + seconds) * NANOS_PER_SECOND)
    }

    fn quota(limits: &[(Unit, Period, i128, i128)], keys_max: usize) -> Quota {
        let limits = limits.iter().map(|(unit, period, amount, full)| Limit { unit: *unit, period: *period, amount: *amount, full: *full });
        Quota::new("test".into(), limits.collect(), None, Over::Drop, false, keys_max)
    }

    #[test]
    fn a_day_and_a_month_are_those_of_the_calendar() {
        let quota = quota(&[(Unit::Records, Period::Day, 2, 2), (Unit::Bytes, Period::Month, 500, 500)], 10);
        let take = |time| quota.take(7, time, [1, 100, 0]);
        assert_eq!(
            [take(at((2024, 2, 28), 86_399)), take(at((2024, 2, 28), 86_399)), take(at((2024, 2, 28), 86_399))],
            [true, true, false]
        );
        assert_eq!([take(at((2024, 2, 29), 0)), take(at((2024, 2, 29), 5)), take(at((2024, 2, 29), 86_000))], [true, true, false]);
        assert!(take(at((2024, 3, 1), 0)), "a new month, a new day");
        assert_eq!([(); 3].map(|()| quota.take(8, at((2024, 3, 1), 0), [1, 499, 0])), [true, false, false], "another key, in bytes");
    }

    #[test]
    fn eb_1_7_late_records_count_into_the_open_period_and_never_reopen_one() {
        let quota = quota(&[(Unit::Records, Period::Second, 1, 1)], 10);
        let take = |second| quota.take(7, at((2026, 11, 20), second), [1, 1, 0]);
        assert_eq!([take(10), take(9), take(-100_000), take(10), take(11), take(10)], [true, false, false, false, true, false]);
        for time in [UnixNanos(i64::MIN), UnixNanos(0), UnixNanos(i64::MAX), UnixNanos(-1)] {
            quota.take(9, time, [u64::MAX.into(), u64::MAX.into(), i128::MAX]);
            quota.take(9, time, [1, 1, 0]);
        }
    }

    #[test]
    fn what_is_not_used_gathers_up_to_the_burst() {
        let quota = quota(&[(Unit::Records, Period::Second, 2, 6)], 10);
        let take = |second: i64| (0..10).filter(|_| quota.take(7, at((2026, 11, 20), second), [1, 1, 0])).count();
        assert_eq!([take(0), take(1), take(2), take(4), take(100)], [6, 2, 2, 4, 6]);
    }

    #[test]
    fn a_record_counts_as_many_as_it_stands_for_and_takes_all_or_nothing() {
        let quota = quota(&[(Unit::Records, Period::Hour, 10, 10), (Unit::Bytes, Period::Hour, 100, 100)], 10);
        let take = |records, bytes| quota.take(7, at((2026, 11, 20), 0), [records, bytes, 0]);
        assert_eq!([take(7, 10), take(7, 10), take(1, 95), take(3, 90), take(0, 0), take(0, 1)], [true, false, false, true, true, false]);
    }

    fn second(second: i64) -> UnixNanos {
        at((2026, 11, 20), second)
    }

    /// Until when a record that costs nothing would have to wait if it had to.
    fn rest(quota: &Quota, time: i64) -> Option<UnixNanos> {
        quota.change(7, second(time), |buckets| buckets.iter().zip(&quota.limits).filter_map(|(b, limit)| b.paid_at(limit)).max())
    }

    fn delay(limits: &[(Unit, Period, i128, i128)]) -> Quota {
        Quota { over: Over::Delay, by_arrival: true, ..quota(limits, 10) }
    }

    #[test]
    fn a_bucket_that_owes_says_when_it_has_paid() {
        let limits = [(Unit::Records, Period::Second, 10, 20), (Unit::Bytes, Period::Minute, 600, 600), (Unit::Money, Period::Day, 5, 5)];
        // What a record costs, when it comes, and until when its log rests.
        let table = [
            ([19, 1, 0], 0, None),
            ([1, 0, 0], 0, Some(1)),             // 0 is not enough to go on
            ([25, 0, 0], 1, Some(3)),            // 10 - 25 = -15: two seconds make 5
            ([1, 0, 0], 2, Some(3)),             // somebody else's chunk meanwhile: -6
            ([4, 0, 0], 3, Some(4)),             // 4 - 4
            ([1, 1_799, 0], 60, Some(180)),      // 600 - 1,799 = -1,199: two minutes make 1
            ([0, 0, 20], 180, Some(86_400 * 4)), // 5 - 20 = -15: four days make 5
            ([1, 1, 0], 240, None),              // it costs nothing of what is owed
        ];
        let quota = delay(&limits);
        for (costs, time, until) in table {
            assert_eq!(quota.owe(7, second(time), costs), until.map(second), "{costs:?} at {time}");
        }
        assert_eq!([86_400 * 4 - 1, 86_400 * 4].map(|time| rest(&quota, time)), [Some(second(86_400 * 4)), None]);
    }

    #[test]
    fn a_month_pays_at_its_first_instant() {
        let quota = delay(&[(Unit::Money, Period::Month, 100, 100)]);
        assert_eq!(quota.owe(7, at((2027, 12, 31), 86_399), [1, 1, 99]), None);
        assert_eq!(quota.owe(7, at((2027, 12, 31), 86_399), [1, 1, 1]), Some(at((2028, 1, 1), 0)));
        assert_eq!(quota.owe(7, at((2027, 12, 31), 86_399), [1, 1, 150]), Some(at((2028, 2, 1), 0)));
        assert_eq!(quota.owe(7, at((2028, 2, 1), 0), [0, 0, 49]), None);
        for number in -3_400..3_500 {
            assert_eq!(Period::Month.number(Period::Month.start(number)), number);
        }
    }

    #[test]
    fn clocks_that_jump_and_costs_without_end_neither_panic_nor_wait_for_ever() {
        let limits = [(Unit::Records, Period::Second, 1, 1), (Unit::Bytes, Period::Month, 1, 1), (Unit::Money, Period::Day, 1, i128::MAX)];
        let quota = delay(&limits);
        for time in [UnixNanos(i64::MIN), UnixNanos(-1), UnixNanos(0), UnixNanos(i64::MAX), UnixNanos(0), UnixNanos(i64::MAX)] {
            for cost in [0, 1, i128::from(u64::MAX), i128::MAX] {
                let until = quota.owe(9, time, [cost; 3]);
                assert!(until.is_none_or(|until| until >= time), "{until:?} at {time:?}");
            }
        }
        // Set back by an hour: what is owed is paid from then on.
        let quota = delay(&[(Unit::Records, Period::Second, 10, 10)]);
        assert_eq!(quota.owe(7, second(7_200), [35, 0, 0]), Some(second(7_203)));
        assert_eq!(rest(&quota, 7_199), Some(second(7_203)), "another lane's clock");
        assert_eq!([3_600, 3_603].map(|time| rest(&quota, time)), [Some(second(3_603)), None]);
        // Event time never opens a period again.
        let quota = self::quota(&[(Unit::Records, Period::Second, 1, 1)], 10);
        assert_eq!([7_200, 3_600, 3_601].map(|time| quota.take(7, second(time), [1, 0, 0])), [true, false, false]);
    }

    /// Logs that read chunks of `chunk` records of one key whenever they do not rest, for some seconds; how many were read in each.
    fn read_logs(logs: usize, chunk: i128, per_second: i128, seconds: i64) -> Vec<i128> {
        let quota = delay(&[(Unit::Records, Period::Second, per_second, per_second)]);
        let mut rests = vec![UnixNanos(0); logs];
        let mut read = Vec::new();
        for tick in 0..seconds * 10 {
            let now = UnixNanos(second(0).0 + tick * NANOS_PER_SECOND / 10);
            let mut taken = 0;
            for rest in rests.iter_mut().filter(|rest| **rest <= now) {
                let until = (0..chunk).filter_map(|_| quota.owe(7, now, [1, 0, 0])).max();
                *rest = until.unwrap_or(*rest);
                taken += chunk;
            }
            read.push(taken);
        }
        read.chunks(10).map(|second| second.iter().sum()).collect()
    }

    #[test]
    fn a_delayed_rate_is_the_quota_within_one_chunk_of_each_log() {
        for (logs, chunk, per_second) in [(1, 70, 100), (1, 1_000, 100), (3, 64, 1_000), (5, 10_000, 3)] {
            let read = read_logs(logs, chunk, per_second, 600);
            let mut sum = 0;
            for (n, taken) in read.iter().enumerate() {
                sum += taken;
                let due = per_second * (n as i128 + 1);
                assert!(sum <= due + chunk * logs as i128, "{sum} of {due} after {n} s, {logs} logs, chunks of {chunk}");
                assert!(sum > due - per_second.max(1), "{sum} of {due} after {n} s, {logs} logs, chunks of {chunk}: too slow");
            }
        }
    }

    #[test]
    fn what_is_owed_and_who_rests_survive_a_restart() {
        let limits = [(Unit::Records, Period::Day, 10, 10), (Unit::Money, Period::Month, 1 << 90, 1 << 91)];
        let (first, second_run) = (delay(&limits), delay(&limits));
        let until = first.owe(7, second(5), [35, 0, (1 << 91) + 5]);
        let until = until.expect("it owes");
        first.rests.change(99, |_| false, |rest| *rest = Rest { until, since: second(5) });
        let mut changes = Vec::new();
        first.take_changes(&mut changes);
        second_run.restore(&changes);
        assert_eq!([6, 0].map(|now| second_run.rest_of(99, second(now))), [Some(until); 2]);
        let hour = 3_600 * NANOS_PER_SECOND;
        assert_eq!(second_run.rest_of(99, UnixNanos(second(5).0 - hour)), Some(UnixNanos(until.0 - hour)), "a clock that was set back");
        assert_eq!(second_run.rest_of(98, second(6)), None);
        for (time, costs) in [(6, [0, 0, 0]), (7, [1, 0, 1 << 91]), (86_400 * 40, [0, 0, 0])] {
            assert_eq!(first.owe(7, second(time), costs), second_run.owe(7, second(time), costs), "{time}");
            assert_eq!(rest(&first, time), rest(&second_run, time), "{time}");
        }
    }

    #[test]
    fn state_comes_back_and_full_buckets_are_forgotten() {
        let limits = [(Unit::Records, Period::Minute, 3, 3), (Unit::Bytes, Period::Day, 1_000, 1_000)];
        let (first, second) = (quota(&limits, 1_000), quota(&limits, 1_000));
        let mut state = std::collections::BTreeMap::new();
        let mut changes = Vec::new();
        for n in 0..2_000u64 {
            first.take(key_hash(&(n % 50).to_le_bytes()), at((2026, 11, 20), n as i64), [1, 7, 0]);
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
            let take = |quota: &Quota| quota.take(key_hash(&(n % 50).to_le_bytes()), at((2026, 11, 20), n as i64 / 7), [1, 7, 0]);
            assert_eq!(take(&first), take(&second), "{n}");
        }
        let small = quota(&[(Unit::Records, Period::Second, 1, 1)], 64);
        for n in 0..100_000u64 {
            small.take(key_hash(&n.to_le_bytes()), at((2026, 11, 20), n as i64 / 10), [1, 1, 0]);
        }
        assert!(small.buckets.count() <= 128, "{}", small.buckets.count());
    }
}
