//! What is still to be gone through, in the order in which its first row comes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Rows to be gone through at once.
pub(super) struct Unit {
    /// Times of its first and last row.
    pub first: i64,
    pub last: i64,
    pub kind: Kind,
}

pub(super) enum Kind {
    /// All of a chosen file.
    File(usize),
    /// Some rows of a chosen file, ascending, and their times where they are few.
    Slice {
        at: usize,
        rows: Vec<u32>,
        times: Vec<i64>,
    },
    Tail,
}

/// Units by the time of the row that comes first in the order.
pub(super) struct Queue {
    newest_first: bool,
    heap: BinaryHeap<Reverse<(i128, u64)>>,
    units: HashMap<u64, Unit>,
    pushed: u64,
    /// Rows that wait in slices.
    pub sliced_rows: usize,
}

impl Queue {
    pub fn new(newest_first: bool) -> Queue {
        Queue { newest_first, heap: BinaryHeap::new(), units: Default::default(), pushed: 0, sliced_rows: 0 }
    }

    pub fn push(&mut self, unit: Unit) {
        let near = if self.newest_first { -i128::from(unit.last) } else { i128::from(unit.first) };
        if let Kind::Slice { rows, .. } = &unit.kind {
            self.sliced_rows += rows.len();
        }
        self.heap.push(Reverse((near, self.pushed)));
        self.units.insert(self.pushed, unit);
        self.pushed += 1;
    }

    /// The time of the next unit's first row in the order.
    pub fn near(&self) -> Option<i64> {
        let near = self.heap.peek()?.0.0;
        i64::try_from(if self.newest_first { -near } else { near }).ok()
    }

    pub fn pop(&mut self) -> Option<Unit> {
        let unit = self.units.remove(&self.heap.pop()?.0.1)?;
        if let Kind::Slice { rows, .. } = &unit.kind {
            self.sliced_rows -= rows.len();
        }
        Some(unit)
    }
}
