//! What all frames up to one add up to: positions of streams, state of steps, totals. The journal writes it at the
//! head of each segment, so that older segments can go; the memory hub writes it to its checkpoint file.
//!
//! Bound: one entry per stream, per slot of a step and per tenant (`tenants_max`).

use crate::codec::{Corrupt, Reader, put_bytes, put_len, put_u32, put_u64, put_u64s};
use crate::frame::{Frame, STATE_ENTRY_BYTES, StateChange};
use crate::ledger::{Books, Delta, RowCount};
use flow::event::{Position, StreamId};
use std::collections::{BTreeMap, HashMap};

const VERSION: u8 = 1;

#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// The last frame that is in here; 0 before the first.
    pub seq: u64,
    pub positions: HashMap<StreamId, Position>,
    /// Last value of each (step, key).
    state: BTreeMap<(u32, [u8; 8]), [u8; 24]>,
    pub books: Books,
}

impl Account {
    pub fn new(tenants_max: usize) -> Account {
        Account { seq: 0, positions: HashMap::new(), state: BTreeMap::new(), books: Books::new(tenants_max) }
    }

    /// Adds the next frame; returns what it kept.
    pub fn fold(&mut self, frame: &Frame, rows: &RowCount) -> Delta {
        self.seq = frame.seq;
        for part in &frame.parts {
            self.positions.insert(part.stream, Position { resume: part.resume, done: part.to });
            for also in &part.also {
                self.positions.insert(also.stream, Position { resume: also.resume, done: also.done });
            }
        }
        for change in &frame.state {
            for entry in change.bytes.chunks_exact(STATE_ENTRY_BYTES) {
                let (key, value) = entry.split_at(8);
                let key = (change.step, key.try_into().expect("split at 8"));
                self.state.insert(key, value.try_into().expect("24 of 32 bytes are left"));
            }
        }
        self.books.book(frame, rows)
    }

    /// The state of steps as one change per step: applied to empty steps it gives what was.
    pub fn state(&self) -> Vec<StateChange> {
        let mut changes: Vec<StateChange> = Vec::new();
        for ((step, key), value) in &self.state {
            if changes.last().is_none_or(|c| c.step != *step) {
                changes.push(StateChange { step: *step, bytes: Vec::new() });
            }
            let change = changes.last_mut().expect("pushed just now");
            change.bytes.extend_from_slice(key);
            change.bytes.extend_from_slice(value);
        }
        changes
    }

    /// Forgets the state of steps, where nobody can use it.
    pub fn forget_state(&mut self) {
        self.state.clear();
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_u64(out, self.seq);
        let positions: BTreeMap<StreamId, Position> = self.positions.iter().map(|(s, p)| (*s, *p)).collect();
        put_len(out, positions.len());
        for (stream, position) in positions {
            put_u64s(out, &[stream.0, position.resume, position.done]);
        }
        let state = self.state();
        put_len(out, state.len());
        for change in state {
            put_u32(out, change.step);
            put_bytes(out, &change.bytes);
        }
        self.books.encode(out);
    }

    pub fn decode(bytes: &[u8], tenants_max: usize) -> Result<Account, Corrupt> {
        let r = &mut Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(r.corrupt("unknown version of a checkpoint"));
        }
        let mut account = Account::new(tenants_max);
        account.seq = r.u64()?;
        for _ in 0..r.count(24)? {
            account.positions.insert(StreamId(r.u64()?), Position { resume: r.u64()?, done: r.u64()? });
        }
        for _ in 0..r.count(8)? {
            let step = r.u32()?;
            let entries = r.bytes()?.chunks_exact(STATE_ENTRY_BYTES);
            if !entries.remainder().is_empty() {
                return Err(r.corrupt("state is no list of 32-byte entries"));
            }
            for entry in entries {
                let (key, value) = entry.split_at(8);
                account.state.insert((step, key.try_into().expect("split at 8")), value.try_into().expect("24 of 32 bytes are left"));
            }
        }
        account.books = Books::decode(r, tenants_max)?;
        r.end()?;
        Ok(account)
    }
}
