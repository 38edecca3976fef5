//! zap's counter sampler, bit for bit: keep the first of each message in a window, then every n-th.
//!
//! In: level, hash of the message, the record's time and weight, and the policy. Out: keep or drop; what the dropped ones
//! owe is kept by `debts`. A window starts at its first record and is not aligned to the clock; a record with
//! an older time counts into the open window and never reopens one.
//!
//! Memory: 7 levels x 4,096 counters x 16 bytes = 448 KiB, fixed. Messages whose hashes meet share a counter,
//! as in zap. Lanes share the counters: each takes a level's lock once for all records of a batch. State travels in the
//! journal as 32-byte entries.

use crate::step::keys::State;
use crate::units::UnixNanos;
use std::sync::{Mutex, MutexGuard};

/// zap has 7 levels, debug to fatal; the caller says which number is which.
pub const LEVELS: usize = 7;
pub const COUNTERS_PER_LEVEL: usize = 4096;
/// 8 bytes key, 8 reset_at, 8 n, 8 zero; all little-endian.
pub const ENTRY_BYTES: usize = 32;

/// Counters of all levels; shared between lanes.
pub struct Counters {
    levels: [Mutex<Level>; LEVELS],
}

/// The counters of one level, held by one lane.
pub struct Level {
    counters: Box<[Counter]>,
    /// Bit per counter: touched since the last [`Counters::take_changes`].
    dirty: [u64; COUNTERS_PER_LEVEL / 64],
}

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    /// The open window ends before this time, in ns; never decreases.
    reset_at: i64,
    /// Records in the open window.
    n: u64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters::new()
    }
}

impl Counters {
    pub fn new() -> Counters {
        let level = || Level { counters: vec![Counter::default(); COUNTERS_PER_LEVEL].into(), dirty: [0; COUNTERS_PER_LEVEL / 64] };
        Counters { levels: std::array::from_fn(|_| Mutex::new(level())) }
    }

    /// The counters of a level, which is below [`LEVELS`].
    pub fn level(&self, level: usize) -> MutexGuard<'_, Level> {
        self.levels[level].lock().expect("no holder of this lock panics")
    }

    /// Appends an entry for each counter touched since the last call, in key order.
    pub fn take_changes(&self, out: &mut Vec<u8>) {
        for number in 0..LEVELS {
            let mut level = self.level(number);
            for at in 0..level.dirty.len() {
                let mut bits = std::mem::take(&mut level.dirty[at]);
                while bits != 0 {
                    let slot = at * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let counter = level.counters[slot];
                    out.extend_from_slice(&((number * COUNTERS_PER_LEVEL + slot) as u64).to_le_bytes());
                    out.extend_from_slice(&counter.reset_at.to_le_bytes());
                    out.extend_from_slice(&counter.n.to_le_bytes());
                    out.extend_from_slice(&[0; 8]);
                }
            }
        }
    }

    /// Takes over entries that [`Counters::take_changes`] wrote, in any order and any number of times: of two
    /// entries of a counter the later window wins, and in one window the larger count. Call before lanes run.
    ///
    /// The journal's checksum vouches for the bytes. What is no entry of ours (a counter that does not exist, a
    /// cut last entry) is passed over: the worst that can come of it is one fresh window.
    pub fn restore(&self, entries: &[u8]) {
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let key = number_at(entry, 0);
            if key >= (LEVELS * COUNTERS_PER_LEVEL) as u64 {
                continue;
            }
            let counter = &mut self.level(key as usize / COUNTERS_PER_LEVEL).counters[key as usize % COUNTERS_PER_LEVEL];
            let stored = Counter { reset_at: number_at(entry, 8) as i64, n: number_at(entry, 16) };
            if (stored.reset_at, stored.n) > (counter.reset_at, counter.n) {
                *counter = stored;
            }
        }
    }
}

impl Level {
    /// Counts one record that stands for `weight` and says whether to keep it.
    ///
    /// `slot`: from [`crate::hash::slots`]. In each window of `tick_ns` the first `first` records are kept, then every
    /// `thereafter`-th; 0 keeps none of the rest. A record that stands for several is kept if one of them would be.
    #[inline]
    pub fn check(&mut self, slot: u16, t: UnixNanos, weight: u32, window: Window) -> bool {
        let slot = usize::from(slot) % COUNTERS_PER_LEVEL;
        let counter = &mut self.counters[slot];
        if counter.reset_at <= t.0 {
            *counter = Counter { reset_at: t.0.saturating_add(window.tick_ns.max(0)), n: 0 };
        }
        let before = counter.n;
        counter.n = before.wrapping_add(u64::from(weight));
        self.dirty[slot / 64] |= 1 << (slot % 64);
        window.keeps(before, u64::from(weight))
    }
}

/// What a counter keeps of each of its windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub first: u64,
    pub thereafter: u64,
    pub tick_ns: i64,
}

impl Window {
    /// Whether one of the `weight` records after the first `before` is one to keep.
    pub fn keeps(&self, before: u64, weight: u64) -> bool {
        match (before.checked_sub(self.first), self.thereafter) {
            (None, _) => true,
            (Some(_), 0) => false,
            (Some(past), n) => past.saturating_add(weight) / n > past / n,
        }
    }
}

/// The counter of one key that shares with no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactCounter {
    reset_at: i64,
    n: u64,
}

impl ExactCounter {
    /// Nothing would be different without it.
    pub fn is_over(&self, t: UnixNanos) -> bool {
        self.reset_at <= t.0
    }

    /// As [`Counters::check`].
    pub fn check(&mut self, t: UnixNanos, weight: u32, window: Window) -> bool {
        if self.is_over(t) {
            *self = ExactCounter { reset_at: t.0.saturating_add(window.tick_ns.max(0)), n: 0 };
        }
        let before = self.n;
        self.n = before.saturating_add(u64::from(weight));
        window.keeps(before, u64::from(weight))
    }
}

impl State for ExactCounter {
    const PARTS: u64 = 1;

    fn part(&self, _: u64) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.reset_at.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.n.to_le_bytes());
        bytes
    }

    fn restore(&mut self, _: u64, bytes: &[u8]) {
        *self = ExactCounter { reset_at: number_at(bytes, 0) as i64, n: number_at(bytes, 8) };
    }
}

fn number_at(entry: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(entry[at..at + 8].try_into().expect("a range of 8 is 8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::NANOS_PER_SECOND;

    const SECOND: i64 = NANOS_PER_SECOND;
    const T0: i64 = 1_700_000_000 * NANOS_PER_SECOND;
    const INFO: usize = 1;

    fn slot(message: &str) -> u16 {
        crate::hash::slots(&[message.as_bytes()])[0]
    }

    fn keeps(sampler: &Counters, level: usize, message: &str, t: i64, window: Window) -> bool {
        sampler.level(level).check(slot(message), UnixNanos(t), 1, window)
    }

    fn window(first: u64, thereafter: u64) -> Window {
        Window { first, thereafter, tick_ns: SECOND }
    }

    #[test]
    fn eb_1_3_a_record_that_stands_for_several_counts_as_several() {
        let sampler = Counters::new();
        let keep = |weight| sampler.level(INFO).check(1, UnixNanos(T0), weight, window(10, 10));
        // 1-8, 9-16, 17-20 (20 is one to keep), 21-29, 30.
        assert_eq!([8, 8, 4, 9, 1].map(keep), [true, true, true, false, true]);
        let sampler = Counters::new();
        assert!(sampler.level(INFO).check(1, UnixNanos(T0), u32::MAX, window(1, 0)));
        assert!(!sampler.level(INFO).check(1, UnixNanos(T0), 1, window(1, 0)));
    }

    /// Runs info entries of one message at these times (after T0); returns the indices kept, from 1.
    #[track_caller]
    fn check(first: u64, thereafter: u64, tick_ns: i64, times: impl IntoIterator<Item = i64>, want: &[usize]) {
        let sampler = Counters::new();
        let window = Window { first, thereafter, tick_ns };
        let keep = |time| keeps(&sampler, INFO, "m", T0 + time, window);
        let kept: Vec<usize> = times.into_iter().enumerate().filter_map(|(n, time)| keep(time).then_some(n + 1)).collect();
        assert_eq!(kept, want);
    }

    #[test]
    fn eb_1_1_the_first_are_kept_and_then_every_nth() {
        check(2, 3, 60 * NANOS_PER_SECOND, 0..9, &[1, 2, 5, 8]);
        check(0, 3, SECOND, 0..9, &[3, 6, 9]);
        check(2, 1, SECOND, 0..5, &[1, 2, 3, 4, 5]);
        check(0, 0, SECOND, 0..5, &[]);
    }

    #[test]
    fn eb_1_1_three_windows_decide_alike() {
        let times = (0..3).flat_map(|window| (0..17).map(move |entry| window * 10_000_000 + entry));
        let want: Vec<usize> = (0..3).flat_map(|window| [1, 2, 3, 4, 5, 15].map(|entry| window * 17 + entry)).collect();
        check(5, 10, 10_000_000, times, &want);
    }

    #[test]
    fn eb_1_1_a_record_at_the_end_of_a_window_opens_the_next() {
        let times = std::iter::repeat_n(0, 1000).chain(std::iter::repeat_n(NANOS_PER_SECOND, 1000));
        check(2, 0, SECOND, times, &[1, 2, 1001, 1002]);
        check(1, 0, SECOND, [0, NANOS_PER_SECOND - 1], &[1]);
        // The window starts at its first record, not at a whole second.
        check(1, 0, SECOND, [NANOS_PER_SECOND / 2, NANOS_PER_SECOND, NANOS_PER_SECOND * 3 / 2], &[1, 3]);
    }

    #[test]
    fn eb_1_1_a_thousand_a_second_of_fifteen_hundred() {
        check(1000, 0, SECOND, 0..1500, &(1..=1000).collect::<Vec<_>>());
    }

    #[test]
    fn eb_1_7_late_and_absurd_times_count_into_the_open_window() {
        check(2, 0, SECOND, [0, -NANOS_PER_SECOND, -5 * NANOS_PER_SECOND, 1, -T0], &[1, 2]);
        check(1, 0, SECOND, [0, -NANOS_PER_SECOND, NANOS_PER_SECOND - 1, NANOS_PER_SECOND], &[1, 4]);
        check(1, 0, i64::MAX, [0, i64::MAX - T0], &[1, 2]);
        check(1, 0, -5, [0, 0, 0], &[1, 2, 3]);
        // Before the first window zap's reset_at is 0: a time before 1970 counts as if one were open.
        check(1, 0, SECOND, [-T0 - 5, -T0 - 4, -T0 - 1_000_000 * NANOS_PER_SECOND], &[1]);
    }

    #[test]
    fn eb_1_1_levels_do_not_share_counters() {
        let sampler = Counters::new();
        for level in 0..LEVELS {
            assert!(keeps(&sampler, level, "m", T0, window(1, 100)));
            assert!(!keeps(&sampler, level, "m", T0, window(1, 100)));
        }
        let mut changes = Vec::new();
        sampler.take_changes(&mut changes);
        assert_eq!(changes.len(), LEVELS * ENTRY_BYTES);
    }

    #[test]
    fn eb_1_1_messages_whose_hashes_meet_share_a_budget() {
        let message = |i: usize| format!("m{i}");
        let other = (1..).find(|&i| slot(&message(i)) == slot("m0")).expect("slots repeat");
        let apart = (1..).find(|&i| slot(&message(i)) != slot("m0")).expect("slots differ");
        let sampler = Counters::new();
        let keep = |i: usize| keeps(&sampler, INFO, &message(i), T0, window(1, 0));
        assert_eq!([keep(0), keep(other), keep(apart)], [true, false, true]);
    }

    #[test]
    fn state_comes_back_from_its_changes() {
        let original = Counters::new();
        let mut journal: Vec<Vec<u8>> = Vec::new();
        let ask =
            |sampler: &Counters, i: i64| keeps(sampler, (i % 7) as usize, &format!("message {}", i % 97), T0 + i * 7_000_000, window(3, 5));
        for frame in 0..10 {
            let kept = (frame * 500..(frame + 1) * 500).filter(|i| ask(&original, *i)).count();
            assert!(kept > 0);
            let mut changes = Vec::new();
            original.take_changes(&mut changes);
            let keys: Vec<u64> = changes.chunks_exact(ENTRY_BYTES).map(|entry| number_at(entry, 0)).collect();
            assert!(keys.is_sorted() && !keys.is_empty());
            assert!(changes.chunks_exact(ENTRY_BYTES).all(|entry| entry[24..] == [0; 8]));
            journal.push(changes);
        }
        let mut none = Vec::new();
        original.take_changes(&mut none);
        assert_eq!(none, b"", "nothing changed since");
        let (forward, backward) = (Counters::new(), Counters::new());
        journal.iter().for_each(|entries| forward.restore(entries));
        journal.iter().rev().chain(&journal).for_each(|entries| backward.restore(entries));
        for i in 5000..8000 {
            let want = ask(&original, i);
            assert_eq!(ask(&forward, i), want);
            assert_eq!(ask(&backward, i), want);
        }
    }

    #[test]
    fn entries_of_no_counter_are_passed_over() {
        let sampler = Counters::new();
        let mut entries = vec![0u8; 3 * ENTRY_BYTES];
        for (entry, (key, n)) in [((LEVELS * COUNTERS_PER_LEVEL) as u64, 5u8), (u64::MAX, 6), (0, 7)].into_iter().enumerate() {
            entries[entry * ENTRY_BYTES..entry * ENTRY_BYTES + 8].copy_from_slice(&key.to_le_bytes());
            entries[entry * ENTRY_BYTES + 16] = n;
        }
        let counted = || (0..LEVELS).map(|level| sampler.level(level).counters.iter().map(|c| c.n).sum::<u64>()).sum::<u64>();
        sampler.restore(&entries[..95]);
        assert_eq!(counted(), 0, "a cut entry is none");
        sampler.restore(&entries);
        assert_eq!(counted(), 7);
    }

    #[test]
    fn lanes_together_count_every_record_once() {
        let sampler = Counters::new();
        let (lanes, each) = (4, 20_000u64);
        let check = || sampler.level(INFO).check(7, UnixNanos(T0), 1, window(100, 10));
        assert!(check());
        let kept: u64 = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..lanes).map(|_| scope.spawn(|| (0..each).filter(|_| check()).count() as u64)).collect();
            runs.into_iter().map(|run| run.join().expect("a lane ends")).sum()
        });
        assert_eq!(kept + 1, 100 + (lanes * each + 1 - 100) / 10);
        let mut changes = Vec::new();
        sampler.take_changes(&mut changes);
        assert_eq!(number_at(&changes, 16), lanes * each + 1);
    }
}
