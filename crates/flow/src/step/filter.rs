//! Filters: `drop` and `keep`. What they drop is not ours: no meter counts it unless told to.
//!
//! Reads the spans of the fields its condition names, writes verdicts. No memory of its own.

use crate::batch::Batch;
use crate::condition::Condition;
use crate::event::{Outcome, Reason};

pub struct Filter {
    pub when: Condition,
    /// Verdict of the condition that drops a record: `true` for `drop`, `false` for `keep`.
    pub drops: bool,
    /// Meters count what this filter drops.
    pub metered_anyway: bool,
}

impl Filter {
    pub fn apply(&self, batch: &mut Batch, mask: &mut Vec<bool>) {
        mask.clear();
        mask.resize(batch.len(), true);
        self.when.eval(&*batch, mask);
        for i in 0..batch.len() {
            if mask[i] != self.drops {
                continue;
            }
            if self.metered_anyway {
                batch.metered_anyway[i] |= batch.outcome[i] == Outcome::Kept;
            } else {
                batch.unmetered[i] = true;
            }
            batch.decide(i, Outcome::Dropped(Reason::Filtered));
        }
    }
}
