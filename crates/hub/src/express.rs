//! The express lane of one sink: what it took ahead of its turn, and how much it owes to whom.
//!
//! A sink that lags would let those who send little wait behind those who sent much. So out of the newest frames it may take
//! the parts of tenants to whom it owes less than their share: what it owes in all, divided by the tenants it owes. Streams
//! keep their order, each for itself: a part goes ahead only where the store stands just where the part begins, and where
//! the store has the file before it in the same log (`Part::also` names it). So the store's positions are all that is
//! needed for exactly once: when the cursor comes to the frame, the store passes over the part. A part that does not go
//! ahead holds back what follows in its stream until the cursor has passed it.
//!
//! The ledger books such a part when the store commits it, and not again when the cursor passes its frame; also where the
//! frame has lost its rows by then. Bound: [`STREAMS_MAX`] streams are ahead of the cursor at a time; no further one goes.

use crate::frame::{Frame, Part};
use crate::ledger::{Delta, Tally, has_rows};
use flow::event::StreamId;
use std::collections::{BTreeMap, HashMap};

/// 40 bytes each make 3 MiB, with the table's own.
const STREAMS_MAX: usize = 65_536;
/// What a sink takes at a time while nobody has measured it: a frame.
pub(crate) const STEP_BYTES_MAX: u64 = 1 << 20;
/// A sink lags once it owes more than so many steps.
const LAG_STEPS: u64 = 2;

/// A stretch of a stream: everything in (from, to].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub from: u64,
    pub to: u64,
}

impl Stretch {
    /// Whether a part lies in here with all that it counts. What stands for several lost frames counts others' records, too:
    /// then its bytes do not add up.
    pub fn covers(&self, frame: &Frame, part: &Part) -> bool {
        let is_within = part.from < part.to && self.from <= part.from && part.to <= self.to;
        is_within && (frame.lost.is_none() || part.adds_up())
    }
}

struct Ahead {
    stretch: Stretch,
    /// The last frame it was taken from.
    seq: u64,
}

pub(crate) struct Express {
    ahead: HashMap<StreamId, Ahead>,
    /// What was given ahead since the last commit, by number of the tenant.
    given: BTreeMap<u32, Tally>,
    /// The store may not have all of it for good.
    pub is_uncommitted: bool,
    /// Bytes published and not given, by number of the tenant.
    owed: Vec<u64>,
    owed_bytes: u64,
    /// Tenants that are owed anything.
    owing: u64,
    /// What the sink takes in a short while, as its thread has measured it.
    pub step_bytes: u64,
    /// The last frame of former runs: of a file that began in them nobody here knows which one it follows.
    opened_at: u64,
}

impl Express {
    /// `ahead`: what the store has beyond the cursor's start.
    pub fn new(ahead: &HashMap<StreamId, (Stretch, u64)>, opened_at: u64) -> Express {
        Express {
            ahead: ahead.iter().map(|(stream, (stretch, seq))| (*stream, Ahead { stretch: *stretch, seq: *seq })).collect(),
            given: BTreeMap::new(),
            is_uncommitted: false,
            owed: Vec::new(),
            owed_bytes: 0,
            owing: 0,
            step_bytes: STEP_BYTES_MAX,
            opened_at,
        }
    }

    /// Published: the sink owes it.
    pub fn owe(&mut self, delta: &[(u32, Tally)]) {
        for (tenant, tally) in delta.iter().filter(|(_, tally)| tally.bytes > 0) {
            let tenant = *tenant as usize;
            self.owed.resize(self.owed.len().max(tenant + 1), 0);
            self.owing += u64::from(self.owed[tenant] == 0);
            self.owed[tenant] += tally.bytes;
            self.owed_bytes += tally.bytes;
        }
    }

    /// Given to the sink, in its turn or ahead of it.
    pub fn settle(&mut self, delta: &[(u32, Tally)]) {
        for (tenant, tally) in delta {
            let Some(owed) = self.owed.get_mut(*tenant as usize).filter(|owed| **owed > 0) else { continue };
            let bytes = tally.bytes.min(*owed);
            *owed -= bytes;
            self.owing -= u64::from(*owed == 0);
            self.owed_bytes -= bytes;
        }
    }

    pub fn owed_bytes(&self) -> u64 {
        self.owed_bytes
    }

    /// Whether somebody waits behind somebody else.
    pub fn lags(&self) -> bool {
        self.owing > 1 && self.is_behind()
    }

    /// Whether the sink takes less than comes.
    pub fn is_behind(&self) -> bool {
        self.owed_bytes > LAG_STEPS * self.step_bytes
    }

    /// Tenants that are owed more than half as much again as their share, of `tenants` at least: those who send about as much as
    /// others are not told apart.
    pub fn greedy(&self, tenants: u64) -> impl Iterator<Item = u32> + '_ {
        let share = self.owed_bytes / self.owing.max(tenants).max(1);
        self.owed.iter().enumerate().filter(move |(_, owed)| **owed > share + share / 2).map(|(tenant, _)| tenant as u32)
    }

    /// Whether this part was taken ahead of its turn.
    pub fn has(&self, frame: &Frame, part: &Part) -> bool {
        self.ahead.get(&part.stream).is_some_and(|ahead| ahead.stretch.covers(frame, part))
    }

    pub fn is_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    pub fn stretches(&self) -> Vec<(StreamId, Stretch)> {
        self.ahead.iter().map(|(stream, ahead)| (*stream, ahead.stretch)).collect()
    }

    /// The parts of a frame that may go ahead, by index. `numbers`: of the frame's tenants; `passed`: the last frame that the
    /// cursor gave out; `stands`: how far the store has taken each stream.
    pub fn pick(&self, frame: &Frame, numbers: &[u32], passed: u64, stands: &dyn Fn(StreamId) -> Option<u64>) -> Vec<usize> {
        let share = self.owed_bytes / self.owing.max(1);
        let is_small = |tenant: u32| self.owed.get(numbers[tenant as usize] as usize).is_none_or(|owed| *owed < share);
        let mut moved: HashMap<StreamId, u64> = HashMap::new();
        let mut picked = Vec::new();
        for (i, part) in frame.parts.iter().enumerate() {
            let done = |stream: StreamId| moved.get(&stream).copied().or_else(|| stands(stream));
            let goes_on = match done(part.stream) {
                Some(done) => done == part.from,
                None => part.from == 0 && passed >= self.opened_at,
            };
            let follows = part.also.iter().all(|also| done(also.stream).is_some_and(|done| done >= also.done));
            let has_place = self.ahead.contains_key(&part.stream) || self.ahead.len() + moved.len() < STREAMS_MAX;
            let kept = part.counts.iter().filter(|count| has_rows(count.outcome) && count.records > 0);
            if part.from < part.to && goes_on && follows && has_place && kept.map(|count| count.tenant).all(is_small) {
                moved.insert(part.stream, part.to);
                picked.push(i);
            }
        }
        picked
    }

    /// Notes that these parts were given; `delta` is what they kept.
    pub fn give(&mut self, frame: &Frame, picked: &[usize], delta: &Delta) {
        for part in picked.iter().map(|i| &frame.parts[*i]) {
            let ahead = self.ahead.entry(part.stream).or_insert(Ahead { stretch: Stretch { from: part.from, to: part.from }, seq: 0 });
            if ahead.stretch.to != part.from {
                ahead.stretch.from = part.from; // what lies before, the cursor has passed meanwhile
            }
            (ahead.stretch.to, ahead.seq) = (part.to, frame.seq);
        }
        for (tenant, tally) in delta {
            self.given.entry(*tenant).or_default().add(*tally);
        }
        self.settle(delta);
        self.is_uncommitted = true;
    }

    /// The store has for good what was given ahead, and everything up to `seq`. Returns the former.
    pub fn commit(&mut self, seq: u64) -> Delta {
        self.ahead.retain(|_, ahead| ahead.seq > seq);
        self.is_uncommitted = false;
        std::mem::take(&mut self.given).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Resumed;
    use crate::sample::plain;

    fn tally(bytes: u64) -> Tally {
        Tally { records: 1, bytes }
    }

    /// Tenant 0 is owed much, all others a little.
    fn lagging() -> Express {
        let mut express = Express::new(&HashMap::new(), 5);
        express.owe(&[(0, tally(10 << 20)), (1, tally(100)), (2, tally(100))]);
        assert!(express.lags());
        express
    }

    /// Which parts of a frame of `tenant` go ahead of a store that stands where `has` says.
    #[track_caller]
    fn check(tenant: u32, parts: &[(u64, u64, u64)], has: &[(u64, u64)], want: &[usize]) {
        let stands = |stream: StreamId| has.iter().find(|h| h.0 == stream.0).map(|h| h.1);
        assert_eq!(lagging().pick(&plain(parts, b"t", 1), &[tenant], 5, &stands), want);
    }

    #[test]
    fn only_what_goes_on_where_the_store_stands_goes_ahead() {
        check(1, &[(7, 10, 20)], &[(7, 10)], &[0]);
        check(1, &[(7, 10, 20)], &[(7, 9)], &[]); // something is in between
        check(1, &[(7, 10, 20)], &[(7, 20)], &[]); // it has it
        check(1, &[(7, 10, 20), (7, 20, 30), (8, 5, 6)], &[(7, 10), (8, 4)], &[0, 1]);
        check(1, &[(7, 0, 20)], &[], &[0]); // a stream begins
        check(1, &[(7, 3, 20)], &[], &[]); // it began before
        check(0, &[(7, 10, 20)], &[(7, 10)], &[]); // over its share
        check(3, &[(7, 10, 20)], &[(7, 10)], &[0]); // owed nothing
    }

    #[test]
    fn a_file_waits_for_the_one_before_it_in_its_log() {
        let mut frame = plain(&[(8, 0, 10)], b"t", 1);
        frame.parts[0].also = vec![Resumed { stream: StreamId(7), resume: 30, done: 30 }];
        let pick = |done: Option<u64>| lagging().pick(&frame, &[1], 5, &|stream| done.filter(|_| stream.0 == 7));
        assert_eq!((pick(None), pick(Some(29)), pick(Some(30))), (vec![], vec![], vec![0]));
        frame.parts[0].also.clear();
        let passed = |seq| lagging().pick(&frame, &[1], seq, &|_| None);
        assert_eq!((passed(4), passed(5)), (vec![], vec![0]), "nobody knows what it follows until the last run's frames are passed");
    }

    #[test]
    fn what_was_taken_ahead_is_known_until_the_cursor_has_committed_behind_it() {
        let mut express = lagging();
        let mut frame = |seq, from, to| {
            let frame = Frame { seq, ..plain(&[(7, from, to)], b"t", 1) };
            express.give(&frame, &[0], &vec![(1, tally(50))].into());
            frame
        };
        let (first, second) = (frame(9, 10, 20), frame(11, 20, 30));
        assert!(express.has(&first, &first.parts[0]) && express.has(&second, &second.parts[0]) && express.is_uncommitted);
        assert_eq!(*express.commit(9), [(1, Tally { records: 2, bytes: 100 })]);
        assert!(express.has(&second, &second.parts[0]) && !express.is_uncommitted);
        assert_eq!(*express.commit(11), []);
        assert!(!express.has(&second, &second.parts[0]) && !express.is_ahead());
        assert_eq!(express.owing, 2, "what was given is not owed");
    }

    #[test]
    fn streams_ahead_are_bounded() {
        let mut express = lagging();
        let parts: Vec<(u64, u64, u64)> = (0..STREAMS_MAX as u64 + 9).map(|stream| (stream, 0, 1)).collect();
        let frame = plain(&parts, b"t", 0);
        let picked = express.pick(&frame, &[1], 5, &|_| None);
        assert_eq!(picked.len(), STREAMS_MAX);
        express.give(&frame, &picked, &Delta::default());
        let more = plain(&[(3, 1, 2), (u64::MAX, 0, 1)], b"t", 0);
        assert_eq!(express.pick(&more, &[1], 5, &|stream| (stream.0 == 3).then_some(1)), [0]);
    }

    #[test]
    fn shares_are_of_what_is_owed() {
        let mut express = Express::new(&HashMap::new(), 0);
        express.owe(&[(0, tally(4 << 20))]);
        assert!(!express.lags() && express.is_behind(), "a tenant alone waits for nobody");
        assert_eq!((express.greedy(1).count(), express.greedy(2).collect::<Vec<_>>()), (0, vec![0]));
        express.owe(&[(5, tally(1)), (9, tally(0))]);
        assert!(express.lags());
        express.settle(&[(0, tally(9 << 20)), (5, tally(1)), (77, tally(1))]);
        assert_eq!((express.owed_bytes(), express.owing, express.lags()), (0, 0, false));
    }
}
