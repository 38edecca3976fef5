//! Tail sampling: whole requests or traces are kept if one of their records matches, and a share of the others or none.
//!
//! In a lane the step only *marks*: which request a record is of, and whether it matches (`Batch::requests`). The *verdict* comes
//! later, from the marks alone, when the table has seen what was received up to `wait` after the record: a record received at
//! `r` is kept iff a matching one of its key was received in [r - wait, r + wait]; a record without key, iff it matches itself.
//! With `--once`, records were received when they say. Whoever sees the same frames in the same order gives the same verdicts. Keys of two tenants are never the same key.
//!
//! Memory: the table holds keys that have a match, at most `keys_max`, about 50 bytes each. When full, those whose time is over
//! go; if there are none, a new one is not remembered and counted: its matching records are still kept.

use super::Clock;
use super::sample::{level_of, whole};
use crate::batch::Batch;
use crate::condition::Condition;
use crate::debts::{Class, Debts, Term, Terms};
use crate::event::{Outcome, Reason};
use crate::fields::Kind;
use crate::hash::{mix, record_hash};
use crate::units::{NANOS_PER_MINUTE, UnixNanos};
use hashbrown::HashMap;
use std::sync::Arc;

/// The mark of a record that is kept whatever the table says: no key, and a match.
pub const KEEP: u64 = 1;
/// Makes the choice of the rest independent of what samplers before this one chose by the same hash.
const SALT: u64 = 0x7461_696c_2072_6573;

pub struct Tail {
    /// Its name in records that it gave a weight.
    pub name: Arc<str>,
    /// Candidates for the key, by number; the first that a record has counts.
    pub key: Vec<usize>,
    pub keep: Condition,
    pub rest: Rest,
    pub wait_ns: i64,
    pub keys_max: usize,
}

/// What is kept of requests without a match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rest {
    None,
    /// Those whose hash is below this, each record for `rate` of them on average.
    Share {
        below: u64,
        rate: f64,
    },
}

impl Rest {
    /// `ratio`: from 0 to 1.
    pub fn share(ratio: f64) -> Rest {
        if ratio <= 0.0 {
            return Rest::None;
        }
        Rest::Share { below: (ratio * 18_446_744_073_709_551_616.0) as u64, rate: (1.0 / ratio).min(f64::from(u32::MAX)) } // 2^64
    }
}

impl Tail {
    pub fn terms(&self) -> Terms {
        let class = if self.rest == Rest::None { Class::Exact } else { Class::Average };
        Terms { name: Arc::clone(&self.name), by_arrival: true, levels: [Term { is_counted: true, class, window_ns: NANOS_PER_MINUTE }; 7] }
    }

    /// Marks the records of a batch.
    pub fn apply(&self, batch: &mut Batch, mask: &mut Vec<bool>, debts: &mut Debts) {
        mask.clear();
        mask.resize(batch.len(), true);
        self.keep.eval(&*batch, mask);
        let mut requests = std::mem::take(&mut batch.requests);
        requests.clear();
        for (i, matches) in mask.iter().enumerate() {
            let spans = batch.record_spans(i);
            let present = |field: &&usize| !matches!(spans[**field].kind, Kind::Missing | Kind::Null);
            let key = self.key.iter().find(present).map_or(0, |field| {
                // 63 bits of it, and never that of no key: two of a million keys meet once in ten million plans.
                (debts.key(batch, i, Some(batch.tenant[i]), &[*field]) << 1).max(2)
            });
            requests.push(key | u64::from(*matches));
        }
        batch.requests = requests;
    }

    /// What a record stands for that was received at `received`, if it is kept. `weight`: before, `record`: its bytes.
    pub fn verdict(&self, table: &Table, mark: u64, received: UnixNanos, weight: u32, record: &[u8]) -> Option<u32> {
        if table.keeps(mark, received, self.wait_ns) {
            return Some(weight);
        }
        let Rest::Share { below, rate } = self.rest else { return None };
        let hash = if mark >> 1 == 0 { record_hash(record) } else { mark >> 1 };
        let is_kept = mix(hash ^ SALT) < below || below == u64::MAX;
        is_kept.then(|| whole(rate * f64::from(weight), record))
    }

    /// Writes the verdicts of records of which the columns `tenant`, `severity`, `weight`, `time`, `outcome` and `dropped_by` are
    /// known. `number`: the step's own; `marks` and `record`: of each. Those that are not `Kept` have theirs already.
    #[expect(clippy::too_many_arguments, reason = "columns of the batch, and what a frame has beside them")]
    pub fn settle<'a>(
        &self,
        number: u16,
        batch: &mut Batch,
        clock: Clock,
        table: &Table,
        marks: &[u64],
        record: impl Fn(usize) -> &'a [u8],
        debts: &mut Debts,
    ) {
        batch.step = number;
        for i in 0..batch.len() {
            if batch.outcome[i] != Outcome::Kept {
                continue;
            }
            let received = if clock == Clock::Event { batch.time[i] } else { batch.arrival };
            let stands_for = self.verdict(table, marks[i], received, batch.weight[i], record(i));
            if self.rest != Rest::None {
                debts.see(number, batch, i, level_of(batch.severity[i]), stands_for.is_some());
            }
            match stands_for {
                Some(weight) if weight == batch.weight[i] => {}
                Some(weight) => {
                    batch.weight[i] = weight;
                    batch.sampler[i] = number;
                }
                None => batch.leave_out(i, Reason::Sampled),
            }
        }
        debts.settle(batch);
    }
}

/// When keys had a match.
#[derive(Debug, Default)]
pub struct Table {
    /// Received first and last.
    matches: HashMap<u64, (i64, i64)>,
    keys_max: usize,
    /// Until the time of a verdict is beyond this, nothing can be forgotten.
    sweep_at: i64,
    /// Matches that were not remembered, as the table was full.
    pub passed_over: u64,
}

impl Table {
    pub fn new(keys_max: usize) -> Table {
        Table { keys_max, sweep_at: i64::MIN, ..Table::default() }
    }

    pub fn len(&self) -> usize {
        self.matches.len()
    }

    pub fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    /// Takes in the marks of one frame, and when each record was received. `horizon`: no verdict is due any more on what was
    /// received before.
    pub fn see(&mut self, marks: &[u64], received: impl Fn(usize) -> UnixNanos, horizon: UnixNanos, wait_ns: i64) {
        for (i, mark) in marks.iter().enumerate().filter(|(_, mark)| **mark & 1 == 1 && **mark != KEEP) {
            let received = received(i);
            if let Some((first, last)) = self.matches.get_mut(&(mark >> 1)) {
                (*first, *last) = ((*first).min(received.0), (*last).max(received.0));
                continue;
            }
            if self.matches.len() >= self.keys_max {
                self.forget(horizon.0.saturating_sub(wait_ns));
            }
            if self.matches.len() < self.keys_max {
                self.matches.insert(mark >> 1, (received.0, received.0));
            } else {
                self.passed_over += 1;
            }
        }
    }

    /// Forgets keys without a match since `before`.
    fn forget(&mut self, before: i64) {
        if before <= self.sweep_at {
            return;
        }
        self.matches.retain(|_, (_, last)| *last >= before);
        self.sweep_at = self.matches.values().map(|(_, last)| *last).min().unwrap_or(before);
    }

    /// Whether a record with this mark, received then, or one of its key near it, matches.
    pub fn keeps(&self, mark: u64, received: UnixNanos, wait_ns: i64) -> bool {
        let near = |(first, last): &(i64, i64)| *first <= received.0.saturating_add(wait_ns) && *last >= received.0.saturating_sub(wait_ns);
        mark & 1 == 1 || self.matches.get(&(mark >> 1)).is_some_and(near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::key_hash;

    const WAIT: i64 = 10;

    /// Frames as `time key[!]...` with `!` for a match and `-` for no key. The verdicts of each as letters: kept, or not.
    ///
    /// Done as the delay line does it: the table has seen every frame up to the first one received later than `WAIT` after the
    /// one that is decided. `restart`: before this frame is decided, the table is lost and read again from the oldest frame that
    /// is not older than `WAIT` before it.
    fn verdicts(frames: &str, keys_max: usize, restart: Option<usize>) -> (String, u64) {
        let parse = |frame: &str| {
            let mut words = frame.split_whitespace();
            let received = UnixNanos(words.next().expect("a time").parse().expect("a number"));
            let mark = |word: &str| {
                let key = word.trim_end_matches('!');
                let hash = if key == "-" { 0 } else { (key_hash(key.as_bytes()) << 1).max(2) };
                hash | u64::from(word.ends_with('!'))
            };
            (received, words.map(mark).collect::<Vec<u64>>())
        };
        let frames: Vec<(UnixNanos, Vec<u64>)> = frames.split(';').map(parse).collect();
        let (mut table, mut seen, mut passed_over) = (Table::new(keys_max), 0, 0);
        let mut out = String::new();
        for (n, (received, marks)) in frames.iter().enumerate() {
            if restart == Some(n) {
                passed_over += table.passed_over;
                table = Table::new(keys_max);
                seen = frames.iter().position(|f| f.0.0 >= received.0 - WAIT).expect("the frame itself is there");
            }
            while seen < frames.len() && frames[seen].0.0 <= received.0 + WAIT {
                table.see(&frames[seen].1, |_| frames[seen].0, *received, WAIT);
                seen += 1;
            }
            out.extend(marks.iter().map(|mark| if table.keeps(*mark, *received, WAIT) { 'k' } else { '.' }));
        }
        (out, passed_over + table.passed_over)
    }

    #[track_caller]
    fn check(frames: &str, want: &str) {
        let count = frames.split(';').count();
        for restart in [None].into_iter().chain((0..count).map(Some)) {
            assert_eq!(verdicts(frames, 1_000, restart).0, want, "restart before {restart:?}");
        }
    }

    #[test]
    fn a_request_is_kept_as_a_whole_if_one_of_its_records_matches_in_time() {
        check("0 a b; 1 a! b; 2 a", "k.k.k");
        check("0 a; 10 a!", "kk"); // at the edge
        check("0 a; 11 a!", ".k"); // beyond it
        check("0 a!; 10 a; 11 a", "kk."); // and after it
        check("0 a!; 9 a; 18 a!; 27 a; 28 a; 29 a", "kkkkk.");
        check("0 a; 100 a!; 105 a; 200 a", ".kk."); // a request that comes back
        check("0 a!; 100 a; 200 a!", "k.k");
        check("5 a; 3 a!; 14 a", "kk."); // lanes close frames at the same time: a little out of order
    }

    #[test]
    fn a_record_without_a_key_speaks_for_itself() {
        check("0 - -! -; 1 a", ".k..");
    }

    #[test]
    fn a_full_table_forgets_what_is_over_and_else_passes_over_what_is_new() {
        // c is not remembered: its match is kept, its other record is not.
        assert_eq!(verdicts("0 a! b! c! a b c", 2, None), ("kkkkk.".into(), 1));
        // a and b are over when c comes.
        assert_eq!(verdicts("0 a! b!; 50 c! c a", 2, None), ("kkkk.".into(), 0));
        let many: String = (0..1_000).map(|n| format!("{n} r{n}!")).collect::<Vec<_>>().join(";");
        assert_eq!(verdicts(&many, 30, None).1, 0, "as many as there are in two waits");
        assert!(verdicts(&many, 5, None).1 > 0);
    }

    #[test]
    fn the_rest_is_a_share_of_whole_requests_right_on_average_and_no_echo_of_an_earlier_choice() {
        let keep = Condition::parse("level == \"error\"", &mut |_| 0).expect("a condition");
        let (name, table) = ("tail".into(), Table::new(1));
        let mut tail = Tail { name, key: vec![], keep, rest: Rest::share(0.25), wait_ns: WAIT, keys_max: 1 };
        let mut sums = (0, 0, 0);
        for n in 0..40_000u64 {
            let (line, hash) = (format!("{{\"n\":{n}}}"), key_hash(&n.to_le_bytes()));
            let mark = if n % 2 == 0 { 0 } else { (hash << 1).max(2) };
            let verdict = |line: &str| tail.verdict(&table, mark, UnixNanos(0), 1, line.as_bytes());
            let kept = verdict(&line);
            if mark != 0 {
                assert_eq!(kept.is_some(), verdict("other bytes of the same request").is_some());
            }
            // A sampler that kept the lower half of all hashes stands before this one.
            let of_earlier = record_hash(line.as_bytes()) < u64::MAX / 2;
            sums.0 += kept.map_or(0, u64::from);
            sums.1 += u64::from(of_earlier && mark == 0);
            sums.2 += if of_earlier && mark == 0 { kept.map_or(0, u64::from) } else { 0 };
        }
        let near = |sum: u64, want: u64| sum.abs_diff(want) * 20 < want;
        assert!(near(sums.0, 40_000) && near(sums.2, sums.1), "{sums:?}");
        assert_eq!(tail.terms().levels[3].class, Class::Average);
        tail.rest = Rest::share(0.0);
        assert_eq!((tail.rest, tail.terms().levels[3].class), (Rest::None, Class::Exact));
    }
}
