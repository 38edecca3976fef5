//! Answers from the index alone, where it knows exactly which rows pass.
//!
//! In: a check; out: the rows that pass it, all of them and no other, or `None` where the rows' bytes have to be asked.
//! A field whose index left out values that are too long is not decided here. Whoever counts saves the lines.

use super::{Asking, Bits, LONG_TEXT, Proposer, class_term, long_term};
use crate::Fields;
use crate::matcher::{Check, tenant_holds, within};
use std::cmp::Ordering;
use tantivy::schema::Field;

impl Proposer {
    /// The rows of `tenant`'s file that pass `check`. `names`: the fields that checks refer to by number;
    /// `asked`: what bare words are looked for in.
    ///
    /// `absent`: texts that are surely in no id field of this file.
    pub(crate) fn decide(
        &self,
        check: &Check,
        names: &[String],
        asked: &Fields,
        absent: &[&str],
        tenant: &str,
    ) -> anyhow::Result<Option<Bits>> {
        let bare = asked.text.iter().all(|f| self.names.text.contains(f)) && asked.ids.iter().all(|f| self.names.ids.contains(f));
        // A field that the file's index knows and the question does not ask for would add rows.
        let same = bare && self.names.text.len() == asked.text.len() && self.names.ids.len() == asked.ids.len();
        Deciding { asking: Asking { proposer: self, names, bare: same, absent }, tenant }.rows(check)
    }

    /// The rows that may pass `check`, however many; `None`: any row may. Arguments as for [`Proposer::decide`].
    pub(crate) fn candidates(&self, check: &Check, names: &[String], asked: &Fields, absent: &[&str]) -> anyhow::Result<Option<Bits>> {
        let bare = asked.text.iter().all(|f| self.names.text.contains(f)) && asked.ids.iter().all(|f| self.names.ids.contains(f));
        Asking { proposer: self, names, bare, absent }.rows(check)
    }
}

struct Deciding<'a> {
    asking: Asking<'a>,
    tenant: &'a str,
}

impl Deciding<'_> {
    fn rows(&self, check: &Check) -> anyhow::Result<Option<Bits>> {
        let index = self.asking.proposer;
        let keyword = |field: usize| index.keyword(&self.asking.names[field]);
        Ok(match check {
            Check::All => Some(Bits::all(index.rows)),
            Check::Tenant(test) => Some(if tenant_holds(test, self.tenant) { Bits::all(index.rows) } else { Bits::none(index.rows) }),
            Check::Not(check) => self.rows(check)?.map(|bits| bits.inverse()),
            Check::And(checks) => self.fold(checks, Bits::all(index.rows), Bits::and)?,
            Check::Or(checks) => self.fold(checks, Bits::none(index.rows), Bits::or)?,
            Check::Bare { phrase, whole } if phrase.words.len() == 1 => self.bare(check, self.asking.absent.contains(&whole.as_str()))?,
            // Of ids it may know a hash only.
            Check::Equals { field, .. } | Check::Glob { field, .. } => match keyword(*field) {
                Some(_) if index.names.ids.contains(&self.asking.names[*field]) => None,
                Some(at) if self.is_whole(&long_term(at))? => self.asking.rows(check)?,
                _ => None,
            },
            Check::Level { .. } => match index.keyword("level") {
                Some(_) if index.names.ids.iter().any(|name| name == "level") => None,
                Some(at) if self.is_whole(&long_term(at))? => self.asking.rows(check)?,
                _ => None,
            },
            Check::LevelLimit { is_low, inclusive, class } => {
                let passes = |term: &str| {
                    // Any severity of a class compares as its first one; beyond the last class there is no name.
                    let order = if term == class_term(u8::MAX) {
                        Ordering::Greater
                    } else {
                        let Some(first) = (1..=21u8).step_by(4).find(|first| class_term(*first) == term) else { return false };
                        first.cmp(&class.0)
                    };
                    within(order, *is_low, *inclusive)
                };
                index.terms(index.fields.severity, "", usize::MAX, &passes)?
            }
            _ => None,
        })
    }

    /// A word of any text field, where it surely is no id.
    fn bare(&self, check: &Check, is_no_id: bool) -> anyhow::Result<Option<Bits>> {
        if is_no_id && self.is_whole(LONG_TEXT)? { self.asking.rows(check) } else { Ok(None) }
    }

    fn fold(&self, checks: &[Check], start: Bits, join: fn(&mut Bits, &Bits)) -> anyhow::Result<Option<Bits>> {
        let mut all = start;
        for check in checks {
            match self.rows(check)? {
                Some(bits) => join(&mut all, &bits),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Whether no row has a value here that was too long for the index.
    fn is_whole(&self, mark: &str) -> anyhow::Result<bool> {
        let index = self.asking.proposer;
        index.has_no(index.fields.long, mark)
    }
}

impl Proposer {
    fn has_no(&self, field: Field, text: &str) -> anyhow::Result<bool> {
        Ok(self.segment.inverted_index(field)?.get_term_info(&tantivy::Term::from_field_text(field, text))?.is_none())
    }
}

impl Bits {
    fn inverse(mut self) -> Bits {
        self.words.iter_mut().for_each(|word| *word = !*word);
        if let Some(last) = self.words.last_mut().filter(|_| !self.rows.is_multiple_of(64)) {
            *last &= (1 << (self.rows % 64)) - 1;
        }
        self
    }

    /// Removes the rows outside of `ranges` (ascending).
    pub(crate) fn keep(&mut self, ranges: &[std::ops::Range<usize>]) {
        let mut kept = Bits::none(self.rows);
        for range in ranges {
            for row in range.clone() {
                kept.set(row);
            }
        }
        self.and(&kept);
    }

    /// The rows that are set within `range`, ascending.
    pub(crate) fn rows_in(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let words = range.start / 64..range.end.min(self.rows).div_ceil(64);
        words
            .flat_map(|at| {
                let mut rest = self.words[at];
                std::iter::from_fn(move || {
                    let row = at * 64 + rest.trailing_zeros() as usize;
                    (rest != 0).then(|| {
                        rest &= rest - 1;
                        row
                    })
                })
            })
            .filter(move |row| range.contains(row))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}
