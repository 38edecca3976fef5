//! Which values some fields have, and how often: the sidebar beside the hits.
//!
//! In: a query and names of fields; out: for each the values that come most often, how many different ones there are,
//! and how many records lack it. Memory: the different values of a field in each thread; of a field with more than
//! [`VALUES_MAX`], or more than [`VALUES_BYTES_MAX`] of text, no more are taken in, and the facet says that it is capped: then its
//! numbers are lower bounds.

use crate::query::Query;
use crate::scan::{Asked, Batch, Wanted};
use crate::search::SearchOptions;
use crate::stats::Stats;
use crate::view::View;
use std::cmp::Reverse;
use std::collections::HashMap;

pub const VALUES_MAX: usize = 100_000;
/// Their texts of one field in one thread.
const VALUES_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facet {
    pub field: String,
    /// The values that come most often with their records, most often first, then by text.
    pub values: Vec<(String, u64)>,
    /// Different values.
    pub distinct: u64,
    /// Records without the field.
    pub missing: u64,
    /// There were too many different values: all numbers but `missing` are lower bounds.
    pub is_capped: bool,
}

#[derive(Default)]
struct Counts {
    fields: Vec<Count>,
    /// Records of each code of the current batch.
    of_code: Vec<u64>,
}

#[derive(Default)]
struct Count {
    values: HashMap<Box<[u8]>, u64>,
    /// Length of all values.
    bytes: usize,
    missing: u64,
    is_capped: bool,
}

/// Values of some fields and how often they came, not yet cut down to the most frequent.
#[derive(Default)]
pub struct FacetCounts(Vec<Count>);

impl View<'_> {
    /// Counts the values of `fields` among the records that answer `query`.
    pub fn facet_counts(&self, query: &Query, options: &SearchOptions, fields: &[String]) -> anyhow::Result<(FacetCounts, Stats)> {
        let asked = Asked { fields: fields.iter().map(|name| Wanted::Text(name.clone())).collect(), ..Asked::default() };
        let make = || Counts { fields: fields.iter().map(|_| Count::default()).collect(), of_code: Vec::new() };
        let (states, stats) = self.scan_columns(query, options, &asked, &make, &|counts: &mut Counts, batch| counts.add(batch))?;
        let mut sums = FacetCounts(fields.iter().map(|_| Count::default()).collect());
        states.into_iter().for_each(|state| sums.add(FacetCounts(state.fields)));
        Ok((sums, stats))
    }

    /// The most frequent values of `fields`; `top`: so many of each.
    pub fn facets(&self, query: &Query, options: &SearchOptions, fields: &[String], top: usize) -> anyhow::Result<(Vec<Facet>, Stats)> {
        let (counts, stats) = self.facet_counts(query, options, fields)?;
        Ok((counts.facets(fields, top), stats))
    }
}

impl FacetCounts {
    /// Adds what was counted elsewhere of the same fields.
    pub fn add(&mut self, other: FacetCounts) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            sum.missing += count.missing;
            sum.is_capped |= count.is_capped;
            for (value, records) in count.values {
                sum.add(&value, records);
            }
        }
    }

    /// The `top` most frequent values of each field.
    pub fn facets(self, fields: &[String], top: usize) -> Vec<Facet> {
        fields.iter().zip(self.0).map(|(field, count)| count.facet(field, top)).collect()
    }
}

impl Counts {
    fn add(&mut self, batch: &Batch<'_>) {
        for (column, count) in batch.columns.iter().zip(&mut self.fields) {
            self.of_code.clear();
            self.of_code.resize(column.codes(), 0);
            // Of a row of each code, for its text.
            let mut row_of_code = vec![0; column.codes()];
            for row in batch.rows {
                if let Some(code) = column.code(*row) {
                    self.of_code[code] += 1;
                    row_of_code[code] = *row;
                } else if let Some(text) = column.text(*row) {
                    count.add(text, 1);
                } else {
                    count.missing += 1;
                }
            }
            for (records, row) in self.of_code.iter().zip(row_of_code).filter(|(records, _)| **records > 0) {
                if let Some(text) = column.text(row) {
                    count.add(text, *records);
                }
            }
        }
    }
}

impl Count {
    fn add(&mut self, text: &[u8], records: u64) {
        if let Some(count) = self.values.get_mut(text) {
            *count += records;
        } else if self.values.len() < VALUES_MAX && self.bytes + text.len() <= VALUES_BYTES_MAX {
            self.bytes += text.len();
            self.values.insert(text.into(), records);
        } else {
            self.is_capped = true;
        }
    }

    fn facet(self, field: &str, top: usize) -> Facet {
        let distinct = self.values.len() as u64;
        let mut values: Vec<(Box<[u8]>, u64)> = self.values.into_iter().collect();
        values.sort_unstable_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        values.truncate(top);
        let values = values.into_iter().map(|(value, records)| (String::from_utf8_lossy(&value).into_owned(), records)).collect();
        Facet { field: field.into(), values, distinct, missing: self.missing, is_capped: self.is_capped }
    }
}
