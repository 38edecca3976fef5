//! Writes into a kept record how many it stands for: `sample_rate` and `sampler`, EB 1.3.
//!
//! In: a record that is one JSON object, and the spans of these two fields. Out: the same bytes with the members in front of
//! the others, or with their values in place of those that were there. Nothing else of the record changes. No memory.

use crate::fields::{Kind, Span};
use std::io::Write;

/// Names of the fields.
pub const RATE: &str = "sample_rate";
pub const SAMPLER: &str = "sampler";

/// Where bytes were added or taken out: what stood behind `at` has moved.
#[derive(Clone, Copy, Debug, Default)]
struct Edit {
    at: u32,
    moved: i32,
}

/// Maps places of a record to places of what was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moves([Edit; 3]);

impl Moves {
    /// Where the byte at `place` of the record stands now. Places within a value that was replaced have no meaning.
    pub fn place(&self, place: u32) -> u32 {
        let moved: i32 = self.0.iter().filter(|edit| edit.at < place).map(|edit| edit.moved).sum();
        place.saturating_add_signed(moved)
    }
}

/// Appends `record` with its rate and the name of its sampler. `rate` and `sampler`: where the record has these fields.
pub fn stamp(record: &[u8], rate: Span, sampler: Span, weight: u32, name: &str, out: &mut Vec<u8>) -> Moves {
    let mut moves = Moves::default();
    let open = record.iter().position(|b| *b == b'{').map_or(0, |at| at + 1);
    out.extend_from_slice(&record[..open]);
    let before = out.len();
    if rate.kind == Kind::Missing {
        write!(out, "\"{RATE}\":{weight},").expect("writing to memory works");
    }
    if sampler.kind == Kind::Missing {
        write!(out, "\"{SAMPLER}\":\"{name}\",").expect("writing to memory works");
    }
    let is_empty = record[open..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
    if is_empty && out.len() > before {
        out.pop(); // the last comma
    }
    moves.0[0] = Edit { at: open as u32, moved: (out.len() - before) as i32 };
    let mut values = [(rate, false), (sampler, true)];
    values.sort_unstable_by_key(|value| value.0.start);
    let mut from = open;
    for ((span, is_name), edit) in values.into_iter().filter(|v| v.0.kind != Kind::Missing).zip(&mut moves.0[1..]) {
        // The quotes of a string stand outside of its span.
        let quote = usize::from(matches!(span.kind, Kind::Text | Kind::Escaped));
        let (start, end) = (span.start as usize - quote, span.end as usize + quote);
        out.extend_from_slice(&record[from..start]);
        let before = out.len();
        let written = if is_name { write!(out, "\"{name}\"") } else { write!(out, "{weight}") };
        written.expect("writing to memory works");
        *edit = Edit { at: span.start, moved: (out.len() - before) as i32 - (end - start) as i32 };
        from = end;
    }
    out.extend_from_slice(&record[from..]);
    moves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{FieldSet, Scanner};
    use proptest::prelude::*;
    use serde_json::{Map, Value};
    use std::sync::Arc;

    fn stamped(record: &str, weight: u32) -> (String, Moves, Vec<Span>) {
        let set = Arc::new(FieldSet::new(&[RATE, SAMPLER, "tenant"]));
        let mut spans = vec![Span::default(); 3];
        Scanner::new(set).scan(record.as_bytes(), &mut spans);
        let mut out = Vec::new();
        let moves = stamp(record.as_bytes(), spans[0], spans[1], weight, "steps[0].sample", &mut out);
        (String::from_utf8(out).expect("text stays text"), moves, spans)
    }

    #[test]
    fn eb_1_3_a_kept_record_says_its_rate_and_sampler() {
        #[track_caller]
        fn check(record: &str, want: &str) {
            assert_eq!(stamped(record, 7).0, want.replace('@', r#""sampler":"steps[0].sample""#));
        }
        check(r#"{"a":1}"#, r#"{"sample_rate":7,@,"a":1}"#);
        check(" {  } ", r#" {"sample_rate":7,@  } "#);
        check(r#"{"a":1,"sample_rate":5}"#, r#"{@,"a":1,"sample_rate":7}"#);
        check(r#"{"sample_rate" : 5 ,"sampler":"up\u0041","z":2}"#, r#"{"sample_rate" : 7 ,@,"z":2}"#);
        check(r#"{"sampler":null,"sample_rate":"5","z":2}"#, r#"{@,"sample_rate":7,"z":2}"#);
        check(r#"{"sampler":{"x":[1]},"z":2}"#, r#"{"sample_rate":7,@,"z":2}"#);
    }

    proptest! {
        /// serde_json reads from the stamped record what it read before, and the two members; a span found before still
        /// points at its value.
        #[test]
        fn nothing_else_changes(
            members in prop::collection::vec((prop::sample::select(vec!["a", "sample_rate", "sampler", "tenant", "b\\u0041"]), 0..6u8), 0..6),
            weight in 2..u32::MAX,
        ) {
            let value = |kind: u8| ["1", "\"t\\\"x\"", "null", "[1,{\"sampler\":2}]", "{}", "-0.5e3"][kind as usize];
            let mut seen = std::collections::BTreeSet::new();
            let members: Vec<String> =
                members.iter().filter(|m| seen.insert(m.0)).map(|(name, kind)| format!("\"{name}\" : {}", value(*kind))).collect();
            let record = format!("{{ {} }}", members.join(" , "));
            let (out, moves, spans) = stamped(&record, weight);
            let mut want: Map<String, Value> = serde_json::from_str(&record).expect("an object");
            want.insert(RATE.into(), weight.into());
            want.insert(SAMPLER.into(), "steps[0].sample".into());
            prop_assert_eq!(serde_json::from_str::<Map<String, Value>>(&out).expect("still an object"), want);
            let tenant = spans[2];
            if tenant.kind != Kind::Missing {
                let moved = &out[moves.place(tenant.start) as usize..moves.place(tenant.end) as usize];
                prop_assert_eq!(moved.as_bytes(), tenant.raw(record.as_bytes()));
            }
        }
    }
}
