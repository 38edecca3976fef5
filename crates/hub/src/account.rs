//! What all frames up to one add up to: positions of streams and totals. The journal writes it at the head of each segment,
//! so that older segments can go; the memory hub writes it to its checkpoint file. What they add up to for steps is in `state`.
//!
//! Bound: one entry per stream and per tenant (`tenants_max`).

use crate::codec::{Corrupt, Reader, put_len, put_u64, put_u64s};
use crate::frame::{Frame, Lost, LostReason, Part, Resumed, STATE_ENTRY_BYTES};
use crate::ledger::{Books, Delta, RowCount};
use flow::event::{Position, StreamId};
use std::collections::{BTreeMap, HashMap};

/// Version 2 has [`Position::before`]; version 3 does not have the state of steps; version 4, written only where sinks do not
/// take everything, what they did not take. Older ones are still read.
const VERSION: u8 = 4;

#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// The last frame that is in here; 0 before the first.
    pub seq: u64,
    pub positions: HashMap<StreamId, Position>,
    pub books: Books,
}

impl Account {
    pub fn new(tenants_max: usize) -> Account {
        Account { seq: 0, positions: HashMap::new(), books: Books::new(tenants_max) }
    }

    /// Adds the next frame; returns what it kept.
    pub fn fold(&mut self, frame: &Frame, rows: &RowCount) -> Delta {
        self.seq = frame.seq;
        for part in &frame.parts {
            self.positions.insert(part.stream, Position { resume: part.resume, done: part.to, before: part.before });
            for also in &part.also {
                // Nothing was read of an older stream, so what stands before `done` is what stood there.
                let before = self.positions.get(&also.stream).filter(|p| p.done == also.done).map_or(0, |p| p.before);
                self.positions.insert(also.stream, Position { resume: also.resume, done: also.done, before });
            }
        }
        self.books.book(frame, rows)
    }

    /// Stands in for frames from `first_seq` to `after.seq` of which nothing is left: one frame that adds to this account
    /// what they added. What was not read to its end in the streams that moved is told by the positions alone.
    pub fn gap(&self, after: &Account, first_seq: u64) -> Frame {
        let since = after.books.since(&self.books).unwrap_or_default();
        let (sinks, selected) = since.selected();
        let mut frame = Frame { seq: after.seq, tenants: since.names, sinks, ..Frame::default() };
        let mut also = Vec::new();
        let moved: BTreeMap<StreamId, Position> =
            after.positions.iter().filter(|(s, p)| self.positions.get(s) != Some(p)).map(|(s, p)| (*s, *p)).collect();
        let mut left = since.read_bytes;
        for (stream, position) in moved {
            let from = self.positions.get(&stream).map_or(0, |p| p.done);
            let Position { resume, done, before } = position;
            if from < done && resume <= done {
                // A stream that was read from its end on began somewhere: no more was read than was read.
                let from = from.max(done.saturating_sub(left));
                left -= done - from;
                frame.parts.push(Part { stream, from, to: done, resume, before, ..Part::default() });
            } else {
                also.push(Resumed { stream, resume, done });
            }
        }
        if frame.parts.is_empty() {
            // Somebody has to carry the counts: a stretch of nothing, where any stream stands.
            let anchor = also.first().map(|a| (a.stream, a.done)).or_else(|| after.positions.iter().map(|(s, p)| (*s, p.done)).min());
            if let Some((stream, at)) = anchor {
                let before = after.positions.get(&stream).map_or(0, |p| p.before);
                let resume = after.positions.get(&stream).map_or(at, |p| p.resume.min(at));
                frame.parts.push(Part { stream, from: at, to: at, resume, before, ..Part::default() });
            }
        }
        if let Some(part) = frame.parts.first_mut() {
            part.also = also;
            part.counts = since.counts;
            part.notes = since.notes;
            part.selected = selected;
            part.records_bytes = u64::try_from(since.records_bytes).unwrap_or(0);
            part.framing_bytes = since.framing_bytes;
            part.held_bytes = since.held_bytes;
            part.skipped = since.skipped.into_iter().filter(|s| s.1 > 0).collect();
        }
        let lost = Lost { reason: LostReason::Damaged, first_seq, rows: since.rows, stray_rows: since.stray_rows };
        frame.lost = Some(Box::new(lost));
        if frame.validate().is_err() {
            // Sums that no one frame can hold: only the numbers are kept, the account behind knows the rest.
            let empty = Lost { reason: LostReason::Damaged, first_seq, rows: Vec::new(), stray_rows: 0 };
            frame = Frame { seq: after.seq, lost: Some(Box::new(empty)), ..Frame::default() };
        }
        frame
    }

    /// Stands in for frames of which nothing is left and nothing is known but where the streams stood before, and that
    /// `next` follows.
    pub fn unknown_gap(&self, next: &Frame) -> Frame {
        let mut frame = Frame { seq: next.first_seq() - 1, ..Frame::default() };
        for part in &next.parts {
            let stands = self.positions.get(&part.stream).map(|p| p.done);
            let named = frame.parts.iter().any(|p| p.stream == part.stream);
            if let Some(from) = stands.filter(|from| *from < part.from && !named) {
                let (stream, to) = (part.stream, part.from);
                frame.parts.push(Part { stream, from, to, resume: to, records_bytes: to - from, ..Part::default() });
            }
        }
        if let Some(first) = next.parts.first().filter(|_| frame.parts.is_empty()) {
            let at = first.from;
            frame.parts.push(Part { stream: first.stream, from: at, to: at, resume: at, ..Part::default() });
        }
        frame.lost = Some(Box::new(Lost { reason: LostReason::Damaged, first_seq: self.seq + 1, rows: Vec::new(), stray_rows: 0 }));
        frame
    }

    /// The account `seq` that, with what `folded` has, gives `after`: its totals only, and the positions that no frame moved.
    pub fn gap_books(mut self, after: &Account, folded: &Account, seq: u64) -> Account {
        let before = folded.gap(after, seq);
        self.fold(&before, &RowCount::of(&before));
        for stream in folded.positions.keys() {
            self.positions.remove(stream);
        }
        self.seq = seq;
        self
    }

    /// Puts into an unknown gap what the next account tells about it; `self` is the account with everything in it that is
    /// left, `gap` included.
    pub fn explain_gap(&self, after: &Account, gap: &mut Frame) {
        let Some(since) = after.books.since(&self.books) else { return };
        let mut told = gap.clone();
        let (sinks, selected) = since.selected();
        (told.tenants, told.sinks) = (since.names, sinks);
        if let Some(lost) = &mut told.lost {
            (lost.rows, lost.stray_rows) = (since.rows, since.stray_rows);
        }
        if let Some(part) = told.parts.first_mut() {
            let records = i128::from(part.records_bytes) + since.records_bytes;
            part.records_bytes = u64::try_from(records).unwrap_or(0);
            part.framing_bytes = since.framing_bytes;
            part.held_bytes = since.held_bytes;
            part.skipped = since.skipped.into_iter().filter(|s| s.1 > 0).collect();
            (part.counts, part.notes, part.selected) = (since.counts, since.notes, selected);
        }
        if told.validate().is_ok() {
            *gap = told;
        }
    }

    /// Whether both say the same of positions and, over all tenants, of totals: who is over a limit is for the hub to know.
    pub fn agrees(&self, other: &Account) -> bool {
        let sums = |account: &Account| {
            let totals = account.books.totals();
            let records = totals.tenants.values().fold((0, 0, 0), |(received, kept, rows), t| {
                (received + u128::from(t.received.records), kept + u128::from(t.kept.bytes), rows + u128::from(t.rows))
            });
            (records, totals.streams)
        };
        self.positions == other.positions && sums(self) == sums(other) && self.books.agrees_on_selection(&other.books)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.books.selects() { VERSION } else { 3 });
        put_u64(out, self.seq);
        let positions: BTreeMap<StreamId, Position> = self.positions.iter().map(|(s, p)| (*s, *p)).collect();
        put_len(out, positions.len());
        for (stream, position) in positions {
            put_u64s(out, &[stream.0, position.resume, position.done, position.before]);
        }
        self.books.encode(out);
    }

    pub fn decode(bytes: &[u8], tenants_max: usize) -> Result<Account, Corrupt> {
        Account::decode_with_state(bytes, tenants_max, &mut |_, _| {})
    }

    /// Shows the state of steps where it is part of an account, which was so before version 3; returns the account's frame
    /// then.
    pub fn state_in(bytes: &[u8], show: &mut dyn FnMut(u32, &[u8])) -> Result<Option<u64>, Corrupt> {
        let account = Account::decode_with_state(bytes, usize::MAX, show)?;
        Ok((bytes[0] < 3).then_some(account.seq))
    }

    fn decode_with_state(bytes: &[u8], tenants_max: usize, show: &mut dyn FnMut(u32, &[u8])) -> Result<Account, Corrupt> {
        let r = &mut Reader::new(bytes);
        let version = r.u8()?;
        if version > VERSION {
            return Err(r.corrupt(crate::segment::NEWER));
        }
        if version == 0 {
            return Err(r.corrupt("unknown version of a checkpoint"));
        }
        let mut account = Account::new(tenants_max);
        account.seq = r.u64()?;
        for _ in 0..r.count(24)? {
            let stream = StreamId(r.u64()?);
            let (resume, done) = (r.u64()?, r.u64()?);
            let before = if version >= 2 { r.u64()? } else { 0 };
            account.positions.insert(stream, Position { resume, done, before });
        }
        for _ in 0..if version < 3 { r.count(8)? } else { 0 } {
            let (step, entries) = (r.u32()?, r.bytes()?);
            if entries.len() % STATE_ENTRY_BYTES != 0 {
                return Err(r.corrupt("state is no list of 32-byte entries"));
            }
            show(step, entries);
        }
        account.books = Books::decode(r, tenants_max, version >= 4)?;
        r.end()?;
        Ok(account)
    }
}
