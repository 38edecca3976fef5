//! What lanes, sinks and the syncer share while the hub runs: the window of frames in memory, how far each sink is, and
//! the account of what is published. One lock guards it; nobody touches the disk while holding it.
//!
//! Bound: the journal keeps published frames up to `window_bytes_max` in memory and drops the oldest beyond it (sinks
//! then read them from disk); the memory hub keeps a frame until every sink has committed it, and `accept` waits.
//! Per sink: what each frame given out and not committed kept, at most [`GIVEN_MAX`] entries; beyond, two neighbours
//! become one, and a commit between them shows in `delivered` only with the next one.

use crate::account::Account;
use crate::frame::Frame;
use crate::ledger::{Delta, Ledger, RowCount, SinkTotals, Tally, add_delta, take_delta};
use crate::recover::Segment;
use crate::segment::Place;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

const GIVEN_MAX: usize = 4096;

/// A frame in memory.
pub(crate) struct Slot {
    pub frame: Arc<Frame>,
    pub rows: RowCount,
    pub bytes: u64,
    /// Length of its record in the journal.
    pub record_bytes: u64,
    /// Behind its record.
    pub end: Place,
    /// What it kept; filled in when it is published.
    pub delta: Delta,
}

/// One sink.
pub(crate) struct Reader {
    pub name: String,
    /// Everything up to this frame is durable at the sink.
    pub committed: u64,
    /// A frame at or before the one after `committed`, and where it stands.
    pub rest: (u64, Place),
    /// The last frame that was given out.
    pub given_seq: u64,
    given: VecDeque<Given>,
    delivered: Vec<Tally>,
    buffered: Vec<Tally>,
}

struct Given {
    seq: u64,
    end: Place,
    delta: Delta,
}

pub(crate) struct Queue {
    /// Frames without gaps, up to `accepted`.
    window: VecDeque<Slot>,
    window_bytes: u64,
    /// The journal can read old frames again; `None` for the memory hub, whose frames are nowhere else.
    pub drop_beyond_bytes: Option<u64>,
    pub accepted: u64,
    pub published: u64,
    pub unsynced_bytes: u64,
    /// At `published`.
    pub account: Account,
    /// Memory hub: at the slowest sink's committed frame.
    pub settled: Option<Account>,
    pub readers: Vec<Reader>,
    /// Lanes that wait for room.
    pub waiting: usize,
    pub closed: bool,
    /// Why nothing can be made durable any more.
    pub failed: Option<String>,
    /// Journal: files in order; the last one is written to.
    pub segments: VecDeque<Segment>,
}

impl Queue {
    pub fn new(account: Account, drop_beyond_bytes: Option<u64>, segments: VecDeque<Segment>) -> Queue {
        Queue {
            window: VecDeque::new(),
            window_bytes: 0,
            drop_beyond_bytes,
            accepted: account.seq,
            published: account.seq,
            unsynced_bytes: 0,
            settled: drop_beyond_bytes.is_none().then(|| account.clone()),
            account,
            readers: Vec::new(),
            waiting: 0,
            closed: false,
            failed: None,
            segments,
        }
    }

    pub fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(why) => Err(io::Error::other(why.clone())),
            None => Ok(()),
        }
    }

    pub fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Everything up to here is durable at every sink.
    pub fn committed_by_all(&self) -> u64 {
        self.readers.iter().map(|r| r.committed).min().unwrap_or(self.published)
    }

    fn first_in_window(&self) -> u64 {
        self.accepted + 1 - self.window.len() as u64
    }

    pub fn slot(&self, seq: u64) -> Option<&Slot> {
        self.window.get(usize::try_from(seq.checked_sub(self.first_in_window())?).ok()?)
    }

    /// Adds a frame that was just numbered; returns the bytes that are not durable yet, without and with it.
    pub fn push(&mut self, slot: Slot) -> (u64, u64) {
        let before = self.unsynced_bytes;
        self.accepted = slot.frame.seq;
        self.window_bytes += slot.bytes;
        self.unsynced_bytes += slot.record_bytes;
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += slot.record_bytes;
        }
        self.window.push_back(slot);
        (before, self.unsynced_bytes)
    }

    /// Lets the sinks see everything up to `seq`.
    pub fn publish(&mut self, seq: u64) {
        let first = self.first_in_window();
        while self.published < seq {
            let slot = &mut self.window[(self.published + 1 - first) as usize];
            slot.delta = self.account.fold(&slot.frame, &slot.rows);
            for reader in &mut self.readers {
                add_delta(&mut reader.buffered, &slot.delta);
            }
            self.unsynced_bytes -= slot.record_bytes;
            self.published += 1;
        }
        self.evict();
    }

    /// Drops frames from memory that nobody needs there.
    pub fn evict(&mut self) {
        let committed = self.committed_by_all();
        while let Some(slot) = self.window.front() {
            let too_much = self.drop_beyond_bytes.is_some_and(|max| self.window_bytes > max);
            if slot.frame.seq > self.published || (slot.frame.seq > committed && !too_much) {
                return;
            }
            if let Some(settled) = &mut self.settled {
                settled.fold(&slot.frame, &slot.rows);
                settled.forget_state();
            }
            self.window_bytes -= slot.bytes;
            self.window.pop_front();
        }
    }

    /// Adds a sink that has everything up to `rest.0 - 1`, which is `delivered` by name.
    pub fn register(&mut self, name: &str, rest: (u64, Place), delivered: &BTreeMap<Vec<u8>, Tally>) -> usize {
        let committed = rest.0 - 1;
        let mut reader = Reader {
            name: name.to_owned(),
            committed,
            rest,
            given_seq: committed,
            given: VecDeque::new(),
            delivered: Vec::new(),
            buffered: Vec::new(),
        };
        let kept: Delta = self.account.books.kept_totals().enumerate().map(|(i, (_, tally))| (i as u32, tally)).collect();
        add_delta(&mut reader.buffered, &kept);
        let delivered: Delta = delivered.iter().map(|(tenant, tally)| (self.account.books.number(tenant).0, *tally)).collect();
        add_delta(&mut reader.buffered, &delivered.iter().map(|(n, _)| (*n, Tally::default())).collect::<Vec<_>>());
        take_delta(&mut reader.buffered, &delivered);
        add_delta(&mut reader.delivered, &delivered);
        self.readers.push(reader);
        self.readers.len() - 1
    }

    /// Notes that a sink was given a frame. `delta` is known for frames in memory.
    pub fn give(&mut self, reader: usize, frame: &Frame, end: Place) {
        let delta = match self.slot(frame.seq) {
            Some(slot) => slot.delta.clone(),
            None => self.account.books.kept(frame),
        };
        let reader = &mut self.readers[reader];
        reader.given_seq = frame.seq;
        reader.given.push_back(Given { seq: frame.seq, end, delta });
        if reader.given.len() > GIVEN_MAX {
            reader.merge();
        }
    }

    /// Notes that a sink has everything up to `seq`.
    pub fn commit(&mut self, reader: usize, seq: u64) -> io::Result<()> {
        let reader = &mut self.readers[reader];
        if seq > reader.given_seq {
            let text = format!("sink {} says it has frame {seq}, but was given only {}", reader.name, reader.given_seq);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        while reader.given.front().is_some_and(|g| g.seq <= seq) {
            let given = reader.given.pop_front().expect("the front was looked at");
            take_delta(&mut reader.buffered, &given.delta);
            add_delta(&mut reader.delivered, &given.delta);
            reader.rest = (given.seq + 1, given.end);
        }
        reader.committed = reader.committed.max(seq);
        self.evict();
        Ok(())
    }

    /// Where frame `seq` stands, if `place` is behind the frame before it: there, or at the start of the next segment.
    pub fn place_of(&self, seq: u64, place: Place) -> Place {
        let after = self.segments.partition_point(|s| s.first_seq <= seq);
        match after.checked_sub(1).and_then(|i| self.segments.get(i)) {
            Some(segment) if segment.number != place.segment => Place { segment: segment.number, offset: segment.start },
            _ => place,
        }
    }

    /// Takes the oldest segment if all its frames are durable at every sink and it is not the one being written.
    pub fn deletable(&self) -> Option<Segment> {
        let next = self.segments.get(1)?;
        (next.first_seq <= self.committed_by_all() + 1 && next.first_seq <= self.published + 1).then(|| self.segments[0])
    }

    pub fn ledger(&self) -> Ledger {
        let books = &self.account.books;
        let sink = |r: &Reader| SinkTotals {
            delivered: books.by_name(&r.delivered),
            buffered: books.by_name(&r.buffered),
            ..SinkTotals::default()
        };
        Ledger { totals: books.totals(), sinks: self.readers.iter().map(|r| (r.name.clone(), sink(r))).collect() }
    }
}

impl Reader {
    pub fn holds_some(&self) -> bool {
        self.given_seq > self.committed
    }

    /// Joins neighbours, so that the list is half as long.
    fn merge(&mut self) {
        let mut merged: VecDeque<Given> = VecDeque::with_capacity(self.given.len() / 2 + 1);
        while let Some(mut given) = self.given.pop_front() {
            if let Some(next) = self.given.pop_front() {
                let mut sum: BTreeMap<u32, Tally> = BTreeMap::new();
                for (number, tally) in given.delta.iter().chain(&next.delta) {
                    sum.entry(*number).or_default().add(*tally);
                }
                given = Given { delta: sum.into_iter().collect(), ..next };
            }
            merged.push_back(given);
        }
        self.given = merged;
    }
}
