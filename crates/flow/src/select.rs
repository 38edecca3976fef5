//! Who takes a record that is kept: the conditions of sinks, and what quotas divert.
//!
//! Reads outcomes, spans and `diverted`; writes `sinks`, a mask for each record, when all verdicts are final and changed records
//! are as they leave: a condition sees what its sink gets. A diverted record goes to its sink alone; what weir creates goes to
//! every sink but those. Where no sink has a condition and nothing is diverted, nothing is done.
//! Memory: 4 bytes a record. Bound: as many sinks as a mask has bits, held by the plan.

use crate::batch::{Batch, NO_SINK};
use crate::condition::Condition;
use crate::event::Outcome;

#[derive(Default)]
pub struct Selection {
    /// Bit n of a mask is sink n. A sink without condition has no name here; the empty name, the last one if it is there, stands
    /// for all of them. Without it they take everything.
    pub names: Vec<Box<[u8]>>,
    /// Conditions, and the bits of their sinks.
    pub conditions: Vec<(u32, Condition)>,
    /// Who takes any record that is not diverted.
    pub unconditional: u32,
}

impl Selection {
    /// Every sink.
    pub fn all(&self) -> u32 {
        ((1u64 << self.names.len()) - 1) as u32
    }

    /// Who takes what weir creates: it stands for others, so no condition can be asked about it.
    pub fn created(&self) -> u32 {
        self.conditions.iter().fold(self.unconditional, |sinks, (bit, _)| sinks | bit)
    }

    pub fn apply(&self, batch: &mut Batch, mask: &mut Vec<bool>) {
        if self.names.is_empty() {
            return;
        }
        batch.sinks.clear();
        batch.sinks.resize(batch.len(), self.unconditional);
        for (bit, when) in &self.conditions {
            mask.clear();
            mask.extend(batch.outcome.iter().map(|outcome| *outcome == Outcome::Kept));
            when.eval(&*batch, mask);
            batch.sinks.iter_mut().zip(&*mask).for_each(|(sinks, takes)| *sinks |= bit * u32::from(*takes));
        }
        for (sinks, diverted) in batch.sinks.iter_mut().zip(&batch.diverted).filter(|(_, diverted)| **diverted != NO_SINK) {
            *sinks = 1 << diverted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decoder, End, Format, Limits};
    use crate::event::Reason;
    use crate::fields::{FieldSet, Scanner, Span};
    use crate::units::UnixNanos;
    use std::sync::Arc;

    /// Sinks by letter for each record of `input`; a record named in `diverted` goes to sink 0, one in `dropped` is not kept.
    #[track_caller]
    fn check(input: &[&str], dropped: &[usize], diverted: &[usize], want: &[&str]) {
        let mut fields: Vec<String> = Vec::new();
        let mut condition = |text: &str| {
            let number = &mut |path: &str| {
                fields.iter().position(|field| field == path).unwrap_or_else(|| {
                    fields.push(path.to_string());
                    fields.len() - 1
                })
            };
            Condition::parse(text, number).unwrap()
        };
        let conditions = vec![(0b010, condition("level == \"error\"")), (0b100, condition("!(level == \"debug\") && n < 3"))];
        let selection =
            Selection { names: ["cold", "errors", "small", ""].map(|n| n.as_bytes().into()).to_vec(), conditions, unconditional: 0b1000 };
        assert_eq!((selection.all(), selection.created()), (0b1111, 0b1110));
        let mut batch = Batch { arena: (input.join("\n") + "\n").into_bytes(), ..Batch::default() };
        let limits = Limits { line_bytes_max: 1 << 20, join_bytes_max: 1 << 20, join_age_ns: 0 };
        Decoder::new(Format::Json, limits).decode(&mut batch, 0, End::Log, UnixNanos(0));
        batch.outcome = vec![Outcome::Kept; batch.len()];
        batch.dropped_by = vec![crate::batch::NO_STEP; batch.len()];
        batch.fields = fields.len();
        let mut scanner = Scanner::new(Arc::new(FieldSet::new(&fields)));
        for i in 0..batch.len() {
            let mut spans = vec![Span::default(); fields.len()];
            scanner.scan(batch.record(i), &mut spans);
            batch.spans.extend(spans);
        }
        dropped.iter().for_each(|i| batch.decide(*i, Outcome::Dropped(Reason::Sampled)));
        diverted.iter().for_each(|i| batch.divert(*i, 0));
        selection.apply(&mut batch, &mut Vec::new());
        let letters = |sinks: u32| "ceso".chars().enumerate().filter(|(bit, _)| sinks >> bit & 1 == 1).map(|(_, c)| c).collect::<String>();
        let kept = (0..batch.len()).filter(|i| batch.outcome[*i] == Outcome::Kept);
        assert_eq!(kept.map(|i| letters(batch.sinks[i])).collect::<Vec<_>>(), want);
    }

    #[test]
    fn each_sink_takes_what_its_condition_holds_for_and_a_diverted_record_goes_to_one() {
        let input =
            ["{\"level\":\"error\",\"n\":1}", "{\"level\":\"info\",\"n\":1}", "{\"n\":7}", "{\"level\":\"debug\",\"n\":1}", "no json"];
        check(&input, &[], &[], &["eso", "so", "o", "o", "o"]);
        check(&input, &[], &[0, 2], &["c", "so", "c", "o", "o"]);
        check(&input, &[0], &[0, 4], &["so", "o", "o", "c"]);
    }

    #[test]
    fn the_first_quota_that_diverts_wins_and_a_new_batch_starts_anew() {
        let mut batch = Batch::default();
        batch.push(0, 0, 1, 0, 0);
        batch.divert(0, 3);
        batch.divert(0, 1);
        assert_eq!(batch.diverted, [3]);
        batch.clear_records();
        assert!(batch.diverted.is_empty() && batch.sinks.is_empty());
    }

    #[test]
    fn without_conditions_nothing_is_written() {
        let mut batch = Batch::default();
        batch.push(0, 0, 1, 0, 0);
        Selection::default().apply(&mut batch, &mut Vec::new());
        assert!(batch.sinks.is_empty());
    }
}
