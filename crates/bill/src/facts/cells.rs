//! What each series used in each minute, added up while it is collected.
//!
//! `Minutes` takes what is small, 16 bytes a minute: almost everything. `Cells` takes the rest.
//! Bound of both: half as many cells again as there are (series, minute) pairs, or 2^18 (of `Minutes` 2^8 a series): when there
//! are more, they are added up.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub quantity: i128,
    pub events: u64,
    pub series: u32,
    /// Minutes since the epoch; those of the years 1679 to 2260 fit.
    pub minute: i32,
}

#[derive(Clone, Debug, Default)]
pub struct Cells {
    list: Vec<Cell>,
    add_up_at: usize,
}

const ADD_UP_MIN: usize = 1 << 18;

impl Cells {
    /// A sum that is too large for 128 bits stays at the largest number: it is refused later as too large.
    pub fn add(&mut self, series: u32, minute: i64, quantity: i128, events: u64) {
        if self.list.len() >= self.add_up_at.max(ADD_UP_MIN) {
            self.add_up();
            self.add_up_at = self.list.len() / 2 * 3;
        }
        let minute = i32::try_from(minute).expect("facts outside of the years 1679 to 2260 were refused");
        self.list.push(Cell { quantity, events, series, minute });
    }

    fn add_up(&mut self) {
        self.list.sort_unstable_by_key(|cell| u64::from(cell.series) << 32 | u64::from(cell.minute as u32 ^ 1 << 31));
        self.list.dedup_by(|cell, into| {
            let same = (cell.series, cell.minute) == (into.series, into.minute);
            if same {
                into.quantity = into.quantity.saturating_add(cell.quantity);
                into.events = into.events.saturating_add(cell.events);
            }
            same
        });
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Every pair once, in order of (rank, minute), where `ranks` gives each series' number in some order.
    pub fn ranked(mut self, ranks: &[u32]) -> Vec<Cell> {
        for cell in &mut self.list {
            cell.series = ranks[cell.series as usize];
        }
        self.add_up();
        self.list.shrink_to_fit();
        self.list
    }
}

/// What one series used in one minute, if that is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Small {
    pub minute: i32,
    pub events: i32,
    pub quantity: i64,
}

/// By series, in the order in which they came: facts that come in the order of time are added up at once.
#[derive(Clone, Debug, Default)]
pub struct Minutes {
    /// The minute that each series is in. They lie together, as every fact goes there first.
    open: Vec<Small>,
    closed: Vec<Lane>,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    list: Vec<Small>,
    add_up_at: usize,
}

const LANE_ADD_UP_MIN: usize = 1 << 8;

impl Minutes {
    pub fn add(&mut self, series: u32, minute: i64, quantity: i64, events: i32) {
        let minute = i32::try_from(minute).expect("facts outside of the years 1679 to 2260 were refused");
        let next = Small { minute, events, quantity };
        match self.open.get_mut(series as usize) {
            Some(open) => {
                if !open.join(&next) {
                    let last = std::mem::replace(open, next);
                    // A series that was never asked for is open with nothing.
                    if last.events != 0 {
                        self.closed[series as usize].push(last);
                    }
                }
            }
            None => {
                self.open.resize(series as usize + 1, Small { minute: 0, events: 0, quantity: 0 });
                self.closed.resize_with(series as usize + 1, Lane::default);
                self.open[series as usize] = next;
            }
        }
    }

    /// What one series used, in the order in which it came; a minute may stand there several times.
    pub fn of(&self, series: u32) -> impl Iterator<Item = &Small> {
        let closed = self.closed.get(series as usize).map_or(&[][..], |lane| &lane.list);
        closed.iter().chain(self.open.get(series as usize).filter(|open| open.events != 0))
    }

    pub fn memory_bytes(&self) -> usize {
        let lanes = self.closed.iter().map(|lane| lane.list.capacity() * size_of::<Small>() + size_of::<Lane>() + size_of::<Small>());
        lanes.sum()
    }
}

impl Lane {
    fn push(&mut self, small: Small) {
        if self.list.len() >= self.add_up_at.max(LANE_ADD_UP_MIN) {
            if !self.list.is_sorted_by_key(|small| small.minute) {
                self.list.sort_unstable_by_key(|small| small.minute);
                self.list.dedup_by(|small, into| into.join(small));
            }
            self.add_up_at = self.list.len() / 2 * 3;
        }
        if self.list.len() == self.list.capacity() {
            self.list.reserve_exact(self.list.len() / 4 + 4);
        }
        self.list.push(small);
    }
}

impl Small {
    /// Takes in another one of the same minute, if the sum is small, too.
    fn join(&mut self, other: &Small) -> bool {
        let (quantity, events) = (self.quantity.checked_add(other.quantity), self.events.checked_add(other.events));
        let (Some(quantity), Some(events), true) = (quantity, events, self.minute == other.minute) else {
            return false;
        };
        (self.quantity, self.events) = (quantity, events);
        true
    }
}
