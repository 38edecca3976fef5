//! What lanes, sinks and the syncer share while the hub runs: the window of frames in memory, how far each sink is, and
//! the account of what is published. One lock guards it; nobody touches the disk while holding it.
//!
//! Bound: the journal keeps published frames up to `window_bytes_max` in memory and drops the oldest beyond it (sinks
//! then read them from disk); the memory hub keeps a frame until every sink has committed it, and `accept` waits.
//! Per sink: what each frame given out and not committed kept for it, at most [`GIVEN_MAX`] entries; beyond, two neighbours
//! become one, and a commit between them shows in `delivered` only with the next one. What a sink took ahead of its turn: see
//! `express`.

use crate::account::Account;
use crate::express::{Express, Stretch};
use crate::frame::Frame;
use crate::frame::LostReason;
use crate::ledger::{Delta, Ledger, RowCount, SinkTotals, Tally, add_delta, take_delta};
use crate::losses::Losses;
use crate::recover::Segment;
use crate::segment::Place;
use crate::watch::Watchers;
use flow::event::StreamId;
use std::collections::{BTreeMap, HashMap, VecDeque};
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
    /// Of these the rows.
    pub droppable_bytes: u64,
    /// Behind its record.
    pub end: Place,
    /// What it kept, for whichever sink; filled in when it is published.
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
    /// What the sink passed without its rows.
    rejected: BTreeMap<LostReason, Vec<Tally>>,
    pub express: Express,
}

/// What a sink has of the frames before its first one, by name.
#[derive(Default)]
pub(crate) struct Had {
    pub delivered: BTreeMap<Vec<u8>, Tally>,
    pub rejected: BTreeMap<(Vec<u8>, LostReason), Tally>,
    /// What it has beyond its first frame, and in which frame that ends; also delivered.
    pub ahead: HashMap<StreamId, (Stretch, u64)>,
}

struct Given {
    seq: u64,
    end: Place,
    delta: Delta,
    lost: Option<LostReason>,
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
    pub watchers: Watchers,
    /// Lanes that wait for room.
    pub waiting: usize,
    /// Lanes that hold logs back because there is little room.
    pub holding: usize,
    pub closed: bool,
    /// Why nothing can be made durable any more.
    pub failed: Option<String>,
    /// What does not work at the moment and is tried again: what is done, and why it fails.
    pub trouble: BTreeMap<&'static str, String>,
    /// Behind the last published frame.
    pub published_end: Place,
    pub losses: Losses,
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
            watchers: Watchers::default(),
            waiting: 0,
            holding: 0,
            closed: false,
            failed: None,
            trouble: BTreeMap::new(),
            published_end: segments.back().map_or(Place::default(), |s| Place { segment: s.number, offset: s.bytes, generation: 0 }),
            losses: Losses::default(),
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

    /// Bytes in the hub that a sink was not given yet.
    pub fn backlog_bytes(&self, reader: &Reader) -> u64 {
        if self.segments.is_empty() {
            return self.window.iter().rev().take_while(|slot| slot.frame.seq > reader.given_seq).map(|slot| slot.bytes).sum();
        }
        let given = reader.given.back().map_or(reader.rest.1, |given| given.end);
        let left = self.segments.iter().filter(|s| s.number >= given.segment);
        left.map(|s| if s.number == given.segment { s.bytes.saturating_sub(given.offset) } else { s.bytes }).sum()
    }

    /// Everything up to here is durable at every sink.
    pub fn committed_by_all(&self) -> u64 {
        self.readers.iter().map(|r| r.committed).min().unwrap_or(self.published)
    }

    pub fn first_in_window(&self) -> u64 {
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
            segment.droppable_bytes += slot.droppable_bytes;
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
                let due = match slot.frame.sinks.is_empty() {
                    true => &slot.delta,
                    false => &self.account.books.due(&slot.frame, &reader.name, |_| true),
                };
                add_delta(&mut reader.buffered, due);
                reader.express.owe(due);
            }
            self.watchers.publish(&slot.frame);
            self.unsynced_bytes -= slot.record_bytes;
            self.published_end = slot.end;
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
            }
            self.window_bytes -= slot.bytes;
            self.window.pop_front();
        }
    }

    /// Adds a sink that has everything up to `rest.0 - 1`, which is `had`.
    pub fn register(&mut self, name: &str, rest: (u64, Place), had: &Had) -> usize {
        let committed = rest.0 - 1;
        let mut reader = Reader {
            name: name.to_owned(),
            committed,
            rest,
            given_seq: committed,
            given: VecDeque::new(),
            delivered: Vec::new(),
            buffered: Vec::new(),
            rejected: BTreeMap::new(),
            express: Express::new(&had.ahead, self.published),
        };
        let due: Delta = (0u32..).zip(self.account.books.due_totals(name)).map(|(number, (_, tally))| (number, tally)).collect();
        add_delta(&mut reader.buffered, &due);
        // A store may have more than this journal ever kept, where an account was lost: no more than that is booked.
        let take = |books: &mut crate::ledger::Books, buffered: &mut Vec<Tally>, tenant: &[u8], tally: Tally| -> (u32, Tally) {
            let number = books.number(tenant).0;
            add_delta(buffered, &[(number, Tally::default())]);
            let there = buffered[number as usize];
            let taken = Tally { records: tally.records.min(there.records), bytes: tally.bytes.min(there.bytes) };
            take_delta(buffered, &[(number, taken)]);
            (number, taken)
        };
        for ((tenant, reason), tally) in &had.rejected {
            let taken = take(&mut self.account.books, &mut reader.buffered, tenant, *tally);
            add_delta(reader.rejected.entry(*reason).or_default(), &[taken]);
        }
        for (tenant, tally) in &had.delivered {
            let taken = take(&mut self.account.books, &mut reader.buffered, tenant, *tally);
            add_delta(&mut reader.delivered, &[taken]);
        }
        let owed: Delta = reader.buffered.iter().enumerate().map(|(i, tally)| (i as u32, *tally)).collect();
        reader.express.owe(&owed);
        self.readers.push(reader);
        self.readers.len() - 1
    }

    /// Notes that a sink was given a frame. `delta` is known for frames in memory.
    pub fn give(&mut self, reader: usize, frame: &Frame, end: Place) {
        let Reader { name, express, .. } = &self.readers[reader];
        let delta = match self.slot(frame.seq) {
            _ if express.is_ahead() => self.account.books.due(frame, name, |part| !express.has(frame, part)),
            Some(slot) if frame.sinks.is_empty() => slot.delta.clone(),
            _ => self.account.books.due(frame, name, |_| true),
        };
        let reader = &mut self.readers[reader];
        reader.express.settle(&delta);
        reader.given_seq = frame.seq;
        let lost = frame.lost.as_ref().map(|lost| lost.reason);
        if reader.given.len() >= GIVEN_MAX {
            reader.merge();
        }
        reader.given.push_back(Given { seq: frame.seq, end, delta, lost });
    }

    /// Parts of a frame in memory that a sink may take ahead of its turn, by index; notes that it was given them.
    pub fn give_ahead(&mut self, reader: usize, frame: &Frame, stands: &dyn Fn(StreamId) -> Option<u64>) -> Vec<usize> {
        let numbers: Vec<u32> = frame.tenants.iter().map(|tenant| self.account.books.number(tenant).0).collect();
        let reader = &mut self.readers[reader];
        let picked = reader.express.pick(frame, &numbers, reader.given_seq, stands);
        if !picked.is_empty() {
            let mut at = 0..frame.parts.len();
            let delta = self.account.books.due(frame, &reader.name, |_| at.next().is_some_and(|i| picked.binary_search(&i).is_ok()));
            reader.express.give(frame, &picked, &delta);
        }
        picked
    }

    /// Notes that a sink will not take the rows of the frame it was given last.
    pub fn reject(&mut self, reader: usize, seq: u64, reason: LostReason) {
        let given = self.readers[reader].given.back_mut().filter(|given| given.seq == seq);
        given.expect("only the frame at hand is rejected").lost = Some(reason);
    }

    /// Of what a sink has, these rows were refused by the far side: they are rejected and not delivered.
    pub fn refuse(&mut self, reader: usize, rows: &BTreeMap<Vec<u8>, Tally>) {
        for (tenant, tally) in rows {
            let number = self.account.books.number(tenant).0;
            let reader = &mut self.readers[reader];
            add_delta(&mut reader.delivered, &[(number, Tally::default())]);
            let there = reader.delivered[number as usize];
            let taken = (number, Tally { records: tally.records.min(there.records), bytes: tally.bytes.min(there.bytes) });
            take_delta(&mut reader.delivered, &[taken]);
            add_delta(reader.rejected.entry(LostReason::Refused).or_default(), &[taken]);
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
            match given.lost {
                None => add_delta(&mut reader.delivered, &given.delta),
                Some(reason) => add_delta(reader.rejected.entry(reason).or_default(), &given.delta),
            }
            reader.rest = (given.seq + 1, given.end);
        }
        reader.committed = reader.committed.max(seq);
        let ahead = reader.express.commit(reader.committed);
        take_delta(&mut reader.buffered, &ahead);
        add_delta(&mut reader.delivered, &ahead);
        self.evict();
        Ok(())
    }

    /// Where frame `seq` stands, if `place` is behind the frame before it: there, or at the start of the next segment.
    pub fn place_of(&self, seq: u64, place: Place) -> Place {
        let after = self.segments.partition_point(|s| s.first_seq <= seq);
        match after.checked_sub(1).and_then(|i| self.segments.get(i)) {
            Some(segment) if segment.number != place.segment || segment.generation != place.generation => segment.place(),
            _ => place,
        }
    }

    /// The first segment that has ended and holds frames behind `seq`, all of them durable. With the number of its last frame.
    pub fn ended_after(&self, seq: u64) -> Option<(Segment, u64)> {
        let ended = self.segments.iter().zip(self.segments.iter().skip(1));
        let mut found = ended.map(|(segment, next)| (*segment, next.first_seq - 1));
        found.find(|(_, last)| *last > seq).filter(|(_, last)| *last <= self.published)
    }

    /// Takes the oldest segment if all its frames are durable at every sink and it is not the one being written.
    /// With the number of its last frame.
    pub fn deletable(&self) -> Option<(Segment, u64)> {
        let next = self.segments.get(1)?;
        let last = next.first_seq - 1;
        (last <= self.committed_by_all() && last <= self.published).then(|| (self.segments[0], last))
    }

    /// What was not published stands in a new segment now. `end`: behind the last published frame; `ends`: behind the moved
    /// ones. Returns how much of the old segment is good.
    pub fn move_unpublished(&mut self, segment: Segment, end: Place, ends: &[(u64, Place)]) -> Option<u64> {
        let first = self.first_in_window();
        for (seq, place) in ends {
            self.window[(seq - first) as usize].end = *place;
        }
        let good = self.segments.back_mut().map(|old| {
            old.bytes = if end.segment == old.number { end.offset } else { old.start };
            old.bytes
        });
        self.segments.push_back(segment);
        good
    }

    /// A segment was written anew without its rows.
    pub fn stripped(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segments.iter_mut().find(|s| s.number == number) {
            segment.bytes = bytes;
            segment.droppable_bytes = 0;
            segment.generation += 1;
        }
        if self.published_end.segment == number {
            self.published_end.generation += 1;
        }
    }

    /// The last frame of the run of frames from `seq` on whose rows are gone for a sink that reads them from disk.
    pub fn run_of_lost(&self, seq: u64) -> u64 {
        let in_memory = self.first_in_window().min(self.published + 1);
        let mut last = seq;
        for (i, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(i + 1).map_or(self.published + 1, |s| s.first_seq);
            if segment.first_seq <= last + 1 && next > last && segment.droppable_bytes == 0 {
                last = next - 1;
            }
        }
        last.min(in_memory.saturating_sub(1)).max(seq)
    }

    /// The oldest segment that holds rows and is not the one being written, unless headers alone take up `headers_max`.
    pub fn strippable(&self, headers_max: u64) -> Option<Segment> {
        let headers: u64 = self.segments.iter().map(|s| s.bytes.saturating_sub(s.droppable_bytes)).sum();
        if headers > headers_max {
            return None;
        }
        let old = self.segments.len().saturating_sub(1);
        self.segments.iter().take(old).find(|s| s.droppable_bytes > 0).copied()
    }

    pub fn ledger(&self) -> Ledger {
        let books = &self.account.books;
        let sink = |r: &Reader| {
            let mut totals = SinkTotals {
                delivered: books.by_name(&r.delivered),
                buffered: books.by_name(&r.buffered),
                not_selected: books.by_name(books.not_selected(r.name.as_bytes())),
                rejected: BTreeMap::new(),
            };
            for (reason, tallies) in &r.rejected {
                for (tenant, tally) in books.by_name(tallies) {
                    totals.rejected.entry(tenant).or_default().insert(*reason, tally);
                }
            }
            totals
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
            if let Some(next) = self.given.pop_front_if(|next| next.lost == given.lost) {
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
