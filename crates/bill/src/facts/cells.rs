//! What each series used in each minute, added up while it is collected.
//!
//! Bound: twice as many cells as there are (series, minute) pairs, or 2^18: when there are more, they are added up.

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
