//! Reservoir and priority sampling without delay: about `size` records of each window, by a threshold that the past decides.
//!
//! In: a time and a weight. Out: with which probability to keep the record. Exactly `size` of a window can be known only when
//! it is over, and nothing is held back here: so the threshold is what would have kept `size` of the last window, or of this
//! one so far if that is less. It depends on records before this one only, so a weight of 1/probability is right on average.
//! A window that begins with nothing known keeps its first `size` records whole, and so a few more than `size` of all.
//! Reservoir: every record alike. Priority: by weight; heavy records are certain (Duffield, Lund, Thorup 2007). Memory: 40
//! bytes, or with `per_tenant` so many for each tenant; beyond [`KEYS_MAX`] they share one window. A restart begins anew.

use crate::hash::mix;
use crate::units::UnixNanos;
use hashbrown::HashMap;
use std::sync::{Mutex, MutexGuard};

const KEYS_MAX: usize = 10_000;

pub struct Threshold {
    size: f64,
    tick_ns: i64,
    by_weight: bool,
    windows: Mutex<HashMap<u64, Window>>,
}

struct Window {
    ends: i64,
    /// What the window has had: weight, or records.
    seen: f64,
    /// What the window before would have been cut down by.
    last: f64,
    draws: u64,
}

/// The windows in the hands of one lane.
pub struct Held<'a> {
    threshold: &'a Threshold,
    windows: MutexGuard<'a, HashMap<u64, Window>>,
}

impl Threshold {
    pub fn new(size: u32, tick_ns: i64, by_weight: bool) -> Threshold {
        Threshold { size: f64::from(size), tick_ns, by_weight, windows: Mutex::default() }
    }

    pub fn tick_ns(&self) -> i64 {
        self.tick_ns
    }

    /// A lane holds the windows for all records of a batch.
    pub fn hold(&self) -> Held<'_> {
        Held { threshold: self, windows: self.windows.lock().expect("no holder of this lock panics") }
    }
}

impl Held<'_> {
    /// What a kept record stands for; `None` if it is dropped.
    #[inline]
    pub fn check(&mut self, key: u64, time: UnixNanos, weight: u32) -> Option<f64> {
        let (size, tick_ns, windows) = (self.threshold.size, self.threshold.tick_ns, &mut *self.windows);
        let key = if windows.len() >= KEYS_MAX && !windows.contains_key(&key) { 0 } else { key };
        let next = time.0.saturating_add(tick_ns);
        let window = windows.entry(key).or_insert(Window { ends: next, seen: 0.0, last: 1.0, draws: key });
        if time.0 >= window.ends {
            let is_next = time.0.saturating_sub(window.ends) < tick_ns;
            window.last = if is_next { (size / window.seen).min(1.0) } else { 1.0 };
            (window.ends, window.seen) = (next, 0.0);
        }
        let own = if self.threshold.by_weight { f64::from(weight) } else { 1.0 };
        let threshold = window.last.min(size / (window.seen + own));
        let probability = (threshold * own).min(1.0);
        window.seen += own;
        window.draws = window.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let draw = (mix(window.draws) >> 11) as f64 / (1u64 << 53) as f64;
        (draw < probability).then(|| f64::from(weight) / probability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kept records and their weights in each of `windows` windows of the records with these weights.
    fn run(threshold: &Threshold, windows: i64, weights: impl Fn(u64) -> u32, count: u64) -> Vec<(usize, f64)> {
        let window = |w| {
            let kept: Vec<f64> =
                (0..count).filter_map(|n| threshold.hold().check(1, UnixNanos(w * 1_000 + n as i64 % 1_000), weights(n))).collect();
            (kept.len(), kept.iter().sum())
        };
        (0..windows).map(window).collect()
    }

    #[test]
    fn eb_1_4_a_reservoir_keeps_about_its_size_and_counts_are_right_on_average() {
        let threshold = Threshold::new(100, 1_000, false);
        let got = run(&threshold, 200, |_| 1, 10_000);
        assert!((100..=800).contains(&got[0].0), "a first window keeps size times 1 + ln(n / size): {:?}", got[0]);
        let kept: usize = got[1..].iter().map(|w| w.0).sum();
        let sum: f64 = got.iter().map(|w| w.1).sum();
        assert!((kept as f64 / 199.0 - 100.0).abs() < 5.0, "{kept}");
        assert!((sum / 2_000_000.0 - 1.0).abs() < 0.02, "{sum}");
        assert_eq!(run(&Threshold::new(100, 1_000, false), 3, |_| 1, 100), [(100, 100.0); 3], "what fits is kept");
    }

    #[test]
    fn eb_1_4_priority_keeps_the_heavy_ones_and_sums_are_right_on_average() {
        let threshold = Threshold::new(100, 1_000, true);
        let weights = |n: u64| if n.is_multiple_of(1_000) { 5_000 } else { 1 };
        let sum: f64 = run(&threshold, 300, weights, 10_000).iter().map(|w| w.1).sum();
        let want = 300.0 * (10.0 * 5_000.0 + 9_990.0);
        assert!((sum / want - 1.0).abs() < 0.02, "{sum} {want}");
        let heavy = (0..100).filter(|n| threshold.hold().check(1, UnixNanos(300_000 + n), 5_000).is_some()).count();
        assert!(heavy > 50, "{heavy}");
    }

    #[test]
    fn eb_1_7_times_that_jump_end_no_window_twice() {
        let threshold = Threshold::new(1, 1_000, false);
        let kept = [0, -5, i64::MIN, 999].map(|time| threshold.hold().check(1, UnixNanos(time), 1).is_some());
        assert!(kept[0]);
        for time in [i64::MAX, 0, i64::MAX - 1] {
            threshold.hold().check(1, UnixNanos(time), u32::MAX);
        }
    }
}
