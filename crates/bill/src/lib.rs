//! Usage facts and a rate card become charges. No clock, disk or network; the only crate that computes money.
//!
//! Read in this order: `money` (integers of 10^-12 and the two ways to round), `unit` (what measures the same), `card` (prices,
//! checked once), `facts` (usage, each event once), `charge` (one row of a bill), `rate` (facts to charges), `book` (what was
//! published, and what must follow) with `stored`; then what is told of charges: `report` and `page` (added up by tenant,
//! model, day ...), `budget`, `explain` (the facts behind one), `focus` (the export, and a check of it).
//! Rules R1 to R22 are those of the cost specification. No floating point number occurs in here; a test holds that.
#![deny(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod book;
pub mod budget;
pub mod card;
pub mod charge;
pub mod explain;
pub mod facts;
pub mod focus;
pub mod money;
pub mod page;
pub mod rate;
pub mod report;
pub mod stored;
pub mod unit;
pub mod zone;

#[cfg(test)]
mod cases;

pub use book::{Book, Month, Row, Scope};
pub use budget::{Alert, Budget, BudgetConfig, BudgetState, budget_state};
pub use card::{Card, CardConfig, CardError};
pub use charge::{Allocation, Category, Charge, Commitment, Exchange, Series};
pub use explain::{Explanation, explain};
pub use facts::{Doubt, EventRef, FactRef, Facts, Quarantined};
pub use money::{Money, Overflow, apportion};
pub use page::{Page, page};
pub use rate::{Conservation, Rating, rate};
pub use report::{Dim, Ledger, Options, Period, Report, ReportRow, Sort, report, summarize};
pub use zone::Days;

#[cfg(test)]
use testing::{Random, seed};

#[cfg(test)]
mod testing {
    //! Random input for tests: a seed is printed, and taken back from `WEIR_SEED`.

    pub fn seed() -> u64 {
        let seed = std::env::var("WEIR_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_123);
        println!("seed {seed}; WEIR_SEED takes another");
        seed
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    pub struct Random(pub u64);

    impl Random {
        pub fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        pub fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }

        /// Up to 128 bits, all lengths likely.
        pub fn wide(&mut self) -> u128 {
            let value = u128::from(self.next()) << 64 | u128::from(self.next());
            value >> self.below(128)
        }

        pub fn shuffle<T>(&mut self, items: &mut [T]) {
            for i in (1..items.len()).rev() {
                items.swap(i, self.below(i as u64 + 1) as usize);
            }
        }
    }
}
