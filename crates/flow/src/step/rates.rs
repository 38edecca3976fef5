//! Dynamic sampling: a rate for each key, so that rare keys are kept and frequent ones thinned out.
//!
//! In: a key, a time and a weight. Out: the key's rate r, keep 1 in r. Rates are made anew at the end of each interval from
//! what was counted in it (`Average`), from moving averages (`Ema`), or so that about so many records a second are kept
//! (`Throughput`). Method: Honeycomb's dynsampler. Memory: `keys_max` keys of about 100 bytes; when it is reached, new keys
//! are not counted and have rate 1 (before any rates are known, the goal). A restart learns anew.

use crate::units::{NANOS_PER_SECOND, UnixNanos};
use crate::word;
use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};
use std::sync::{Mutex, MutexGuard};

/// How rates follow from counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// On average 1 in so many.
    Average(u32),
    /// The same, from moving averages.
    Ema(u32),
    /// So many records a second, shared alike among the keys.
    Throughput(u32),
}

/// Of a moving average, what the newest interval makes up; averages below it are forgotten.
const EMA_WEIGHT: f64 = 0.5;
/// A burst of so many times the averages ends an interval early, once this many intervals have passed.
const BURST_MULTIPLE: f64 = 2.0;
const BURST_AFTER: u32 = 3;

pub struct Rates {
    method: Method,
    interval_ns: i64,
    keys_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ends: Option<i64>,
    keys: HashTable<Counted>,
    /// Keys that this interval has counted, and records.
    keys_counted: usize,
    counted: f64,
    averages: HashMap<Box<[u8]>, f64>,
    /// The sum of the averages.
    usual: f64,
    has_rates: bool,
    intervals: u32,
}

struct Counted {
    hash: u64,
    key: Box<[u8]>,
    /// In this interval; 0: it is not among those that are counted.
    count: f64,
    /// From the last interval; 1 where none is known.
    rate: u32,
}

/// Rates in the hands of one lane.
pub struct Held<'a> {
    rates: &'a Rates,
    state: MutexGuard<'a, State>,
}

/// Hash of a key, for [`Held::rate`].
pub fn hash(key: &[u8]) -> u64 {
    word::hash(key, 0)
}

impl Rates {
    pub fn new(method: Method, interval_ns: i64, keys_max: usize) -> Rates {
        Rates { method, interval_ns, keys_max, state: Mutex::default() }
    }

    pub fn method(&self) -> Method {
        self.method
    }

    pub fn interval_ns(&self) -> i64 {
        self.interval_ns
    }

    /// A lane holds them for all records of a batch.
    pub fn hold(&self) -> Held<'_> {
        Held { rates: self, state: self.state.lock().expect("no holder of this lock panics") }
    }
}

impl Held<'_> {
    /// Counts a record and returns the rate of its key. `hash`: of the key, from [`hash`].
    #[inline]
    pub fn rate(&mut self, key: &[u8], hash: u64, time: UnixNanos, weight: u32) -> u32 {
        let (rates, state) = (self.rates, &mut *self.state);
        let ends = *state.ends.get_or_insert(time.0.saturating_add(rates.interval_ns));
        if time.0 >= ends || state.is_burst(rates.method) {
            state.end_interval(rates);
            state.ends = Some(time.0.saturating_add(rates.interval_ns));
        }
        let weight = f64::from(weight);
        let has_room = state.keys_counted < rates.keys_max;
        let mut rate = 1;
        match state.keys.entry(hash, |counted| counted.hash == hash && word::same(&counted.key, key), |counted| counted.hash) {
            Entry::Occupied(slot) => {
                let counted = slot.into_mut();
                rate = counted.rate;
                if counted.count > 0.0 || has_room {
                    state.keys_counted += usize::from(counted.count == 0.0);
                    counted.count += weight;
                }
            }
            Entry::Vacant(slot) if has_room => {
                state.keys_counted += 1;
                slot.insert(Counted { hash, key: key.into(), count: weight, rate });
            }
            Entry::Vacant(_) => {}
        }
        state.counted += weight;
        match (state.has_rates, rates.method) {
            (true, _) => rate,
            (false, Method::Average(goal) | Method::Ema(goal)) => goal.max(1),
            (false, Method::Throughput(_)) => 1,
        }
    }
}

impl State {
    fn is_burst(&self, method: Method) -> bool {
        matches!(method, Method::Ema(_)) && self.intervals >= BURST_AFTER && self.counted > self.usual * BURST_MULTIPLE
    }

    fn end_interval(&mut self, rates: &Rates) {
        let counted = self.keys.drain().filter(|counted| counted.count > 0.0);
        let counts: HashMap<Box<[u8]>, f64> = counted.map(|counted| (counted.key, counted.count)).collect();
        (self.keys_counted, self.counted) = (0, 0.0);
        self.intervals = self.intervals.saturating_add(1);
        let new = match rates.method {
            Method::Average(goal) => rates_of(&counts, f64::from(goal)),
            Method::Ema(goal) => {
                // An interval without traffic says nothing about the next one.
                if !counts.is_empty() {
                    follow(&mut self.averages, &counts);
                    self.usual = self.averages.values().sum();
                }
                rates_of(&self.averages, f64::from(goal))
            }
            Method::Throughput(goal) => {
                let slots = f64::from(goal) * rates.interval_ns as f64 / NANOS_PER_SECOND as f64 / counts.len().max(1) as f64;
                counts.into_iter().map(|(key, count)| (key, (count / slots).ceil().max(1.0) as u32)).collect()
            }
        };
        for (key, rate) in new {
            let hash = hash(&key);
            self.keys.insert_unique(hash, Counted { hash, key, count: 0.0, rate }, |counted| counted.hash);
        }
        self.has_rates = true;
    }
}

fn follow(averages: &mut HashMap<Box<[u8]>, f64>, counts: &HashMap<Box<[u8]>, f64>) {
    for key in counts.keys() {
        averages.entry(key.clone()).or_insert(0.0);
    }
    for (key, average) in averages.iter_mut() {
        let count = counts.get(key).copied().unwrap_or(0.0);
        *average = EMA_WEIGHT * count + (1.0 - EMA_WEIGHT) * *average;
    }
    averages.retain(|_, average| *average >= EMA_WEIGHT);
}

/// Each key gets kept records by the logarithm of its count; what one does not use passes to later ones.
fn rates_of(counts: &HashMap<Box<[u8]>, f64>, goal_rate: f64) -> HashMap<Box<[u8]>, u32> {
    let mut keys: Vec<(&Box<[u8]>, f64)> = counts.iter().map(|(key, count)| (key, count.max(1.0))).collect();
    keys.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let goal = counts.values().sum::<f64>() / goal_rate;
    let ratio = goal / keys.iter().map(|(_, count)| count.log10()).sum::<f64>();
    let mut unused = 0.0;
    let mut left = keys.len();
    let mut rates = HashMap::with_capacity(left);
    for (key, count) in keys {
        let share = unused / left as f64;
        unused -= share;
        left -= 1;
        let slots = (count.log10() * ratio).max(1.0) + share;
        let rate = if count <= slots || !ratio.is_finite() { 1.0 } else { (count / slots).ceil() };
        unused += if ratio.is_finite() { slots - count / rate } else { 0.0 };
        rates.insert(key.clone(), rate as u32);
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = NANOS_PER_SECOND;

    fn counts(list: &[(&str, f64)]) -> HashMap<Box<[u8]>, f64> {
        list.iter().map(|(key, count)| (key.as_bytes().into(), *count)).collect()
    }

    fn count(rates: &Rates, key: &str, second: i64, times: u32) -> u32 {
        (0..times).map(|_| rates.hold().rate(key.as_bytes(), hash(key.as_bytes()), UnixNanos(second * SECOND), 1)).last().unwrap_or(0)
    }

    #[test]
    fn eb_1_4_average_rate_of_the_vector() {
        let rates = rates_of(&counts(&[("a", 1000.0), ("b", 10.0)]), 10.0);
        assert_eq!((rates[b"a".as_slice()], rates[b"b".as_slice()]), (14, 1));
        let ones = rates_of(&counts(&[("a", 1.0), ("b", 1.0)]), 10.0);
        assert!(ones.values().all(|rate| *rate == 1), "counts of 1 have no logarithm: {ones:?}");
        assert!(rates_of(&counts(&[]), 10.0).is_empty());
    }

    #[test]
    fn eb_1_4_before_data_the_goal_and_for_unknown_keys_1() {
        let rates = Rates::new(Method::Average(10), 30 * SECOND, 2);
        assert_eq!(count(&rates, "a", 0, 1000), 10);
        assert_eq!(count(&rates, "b", 0, 10), 10);
        assert_eq!(count(&rates, "c", 0, 5_000), 10, "a third key is not counted");
        assert_eq!(count(&rates, "a", 29, 1), 10);
        assert_eq!(count(&rates, "a", 30, 1), 14);
        assert_eq!((count(&rates, "b", 31, 1), count(&rates, "c", 31, 1)), (1, 1));
    }

    #[test]
    fn eb_1_4_moving_averages_remember_and_a_pause_does_not_age_them() {
        let rates = Rates::new(Method::Ema(10), 15 * SECOND, 500);
        count(&rates, "a", 0, 2000);
        count(&rates, "b", 0, 20);
        // Averages are 1000 and 10: the vector again; an hour of silence changes nothing.
        assert_eq!(count(&rates, "a", 3600, 1), 14);
        assert_eq!(count(&rates, "b", 3600, 1), 1);
        // A burst is answered before its interval ends, once three have passed.
        let rates = Rates::new(Method::Ema(10), 15 * SECOND, 500);
        for interval in 0..4 {
            for key in ["a", "b"] {
                count(&rates, key, interval * 15, 100);
            }
        }
        assert_eq!(count(&rates, "new", 46, 1), 1);
        let burst = count(&rates, "new", 47, 5_000);
        assert!(burst > 5, "{burst}");
    }

    #[test]
    fn eb_1_4_throughput_is_shared_among_keys() {
        let rates = Rates::new(Method::Throughput(10), SECOND, 500);
        count(&rates, "a", 0, 1000);
        count(&rates, "b", 0, 3);
        assert_eq!((count(&rates, "a", 1, 1), count(&rates, "b", 1, 1)), (200, 1));
    }

    #[test]
    fn eb_1_7_old_times_count_into_the_open_interval() {
        let rates = Rates::new(Method::Average(10), SECOND, 5);
        for time in [5, i64::MIN, 0, -3, i64::MAX, i64::MAX - 1, 6] {
            assert!(rates.hold().rate(b"a", hash(b"a"), UnixNanos(time), u32::MAX) >= 1);
        }
    }
}
