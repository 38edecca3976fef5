//! Records by stretches of time, without gaps.
//!
//! In: as groups, with a time; out: a row for each stretch and combination, empty ones too. Without a span the
//! finest one is taken that covers the range with at most [`BUCKETS_AUTO`]: some sixty. Each span is a multiple of
//! the one before it, so that groups of a finer one join into those of a coarser one as the range grows.
//! Memory: the groups, and at most [`ROWS_MAX`] rows at the end; more is an error.

use super::groups::{Groups, Value};
use super::table::{Cell, compare_rows};
use crate::query::Call;
use flow::units::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SECOND, UnixNanos};
use std::collections::BTreeMap;

const BUCKETS_AUTO: i64 = 100;
pub(crate) const ROWS_MAX: usize = 100_000;

const SPANS: [i64; 21] = [
    1_000_000,
    10_000_000,
    100_000_000,
    NANOS_PER_SECOND,
    5 * NANOS_PER_SECOND,
    10 * NANOS_PER_SECOND,
    30 * NANOS_PER_SECOND,
    NANOS_PER_MINUTE,
    5 * NANOS_PER_MINUTE,
    10 * NANOS_PER_MINUTE,
    30 * NANOS_PER_MINUTE,
    NANOS_PER_HOUR,
    3 * NANOS_PER_HOUR,
    6 * NANOS_PER_HOUR,
    12 * NANOS_PER_HOUR,
    NANOS_PER_DAY,
    7 * NANOS_PER_DAY,
    28 * NANOS_PER_DAY,
    364 * NANOS_PER_DAY,
    1820 * NANOS_PER_DAY,
    3640 * NANOS_PER_DAY,
];

#[derive(Clone)]
pub(crate) struct Chart {
    pub(crate) groups: Groups,
    calls: Vec<Call>,
    cost_max: usize,
    span: i64,
    is_auto: bool,
    /// First and last moment that is shown: of the query's range, and of what was seen.
    ends: Option<(i64, i64)>,
}

impl Chart {
    pub(crate) fn new(calls: &[Call], span: Option<i64>, cost_max: usize) -> Chart {
        let groups = Groups::new(calls, cost_max);
        Chart { groups, calls: calls.to_vec(), cost_max, span: span.unwrap_or(SPANS[0]), is_auto: span.is_none(), ends: None }
    }

    /// The stretch of time that a row stands for, in nanoseconds; it grows by whole multiples.
    pub(crate) fn span(&self) -> i64 {
        self.span
    }

    /// The chart shows this moment, whether something was there or not.
    pub(crate) fn show(&mut self, time: i64) -> anyhow::Result<()> {
        let (first, last) = self.ends.unwrap_or((time, time));
        self.ends = Some((first.min(time), last.max(time)));
        self.coarsen()
    }

    pub(crate) fn add<'a>(
        &mut self,
        time: i64,
        by: impl Iterator<Item = Value<'a>>,
        inputs: impl Iterator<Item = Value<'a>>,
        weight: u32,
    ) -> anyhow::Result<()> {
        if self.ends.is_none_or(|(first, last)| time < first || time > last) {
            self.show(time)?;
        }
        let bucket = Value::Time(floor(time, self.span));
        self.groups.add(std::iter::once(bucket).chain(by), inputs, weight)
    }

    /// Takes the next span until it covers what is to be shown.
    fn coarsen(&mut self) -> anyhow::Result<()> {
        let Some((first, last)) = self.ends.filter(|_| self.is_auto) else { return Ok(()) };
        let fits = |span: i64| floor(last, span).saturating_sub(floor(first, span)) / span < BUCKETS_AUTO;
        let Some(span) = SPANS.into_iter().find(|span| *span >= self.span && fits(*span)) else { return Ok(()) };
        self.set_span(span)
    }

    fn set_span(&mut self, span: i64) -> anyhow::Result<()> {
        if span == self.span {
            return Ok(());
        }
        self.span = span;
        let finer = std::mem::replace(&mut self.groups, Groups::new(&self.calls, self.cost_max));
        self.groups.merge_as(finer, |key, out| {
            // A time in front: its tag, then eight bytes.
            match key.get(1..9).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
                Some(time) => {
                    out.push(key[0]);
                    out.extend_from_slice(&floor(i64::from_le_bytes(time), span).to_le_bytes());
                    out.extend_from_slice(&key[9..]);
                }
                None => out.extend_from_slice(key),
            }
        })
    }

    pub(crate) fn merge(&mut self, mut other: Chart) -> anyhow::Result<()> {
        if let Some((first, last)) = other.ends {
            self.show(first)?;
            self.show(last)?;
        }
        // Both as coarse as the coarser one.
        let span = self.span.max(other.span);
        self.set_span(span)?;
        other.set_span(span)?;
        self.groups.merge(other.groups)
    }

    /// `by`: how many columns it is grouped by, beside the time.
    pub(crate) fn rows(&self, by: usize) -> anyhow::Result<Vec<Vec<Cell>>> {
        let Some((first, last)) = self.ends else { return Ok(Vec::new()) };
        let (first, last) = (floor(first, self.span), floor(last, self.span));
        let mut found: BTreeMap<i64, Vec<Vec<Cell>>> = BTreeMap::new();
        let mut series: Vec<Vec<Cell>> = Vec::new();
        for row in self.groups.rows(1 + by) {
            if let Cell::Time(time) = row[0] {
                series.push(row[1..=by].to_vec());
                found.entry(time.0).or_default().push(row);
            }
        }
        let keys: Vec<(usize, bool)> = (0..by).map(|at| (at, false)).collect();
        series.sort_by(|a, b| compare_rows(a, b, &keys));
        series.dedup();
        if by == 0 {
            series = vec![Vec::new()];
        }
        let buckets = (last.saturating_sub(first) / self.span) as usize + 1;
        if buckets.saturating_mul(series.len()) > ROWS_MAX {
            crate::unanswerable!(
                "the chart has {buckets} stretches of time for each of {} series: more than {ROWS_MAX} rows\n  help: take a longer span, a shorter time, or group by fewer values",
                series.len()
            );
        }
        let nothing = self.groups.nothing();
        let mut rows = Vec::new();
        for bucket in 0..buckets as i64 {
            let time = first + bucket * self.span;
            let mut own = found.remove(&time).unwrap_or_default().into_iter().peekable();
            for one in &series {
                match own.next_if(|row| row[1..=by] == one[..]) {
                    Some(row) => rows.push(row),
                    None => rows.push([&[Cell::Time(UnixNanos(time))], &one[..], &nothing[..]].concat()),
                }
            }
        }
        Ok(rows)
    }
}

/// The begin of the stretch that the time lies in.
fn floor(time: i64, span: i64) -> i64 {
    time.div_euclid(span).saturating_mul(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_is_a_multiple_of_the_one_before_it() {
        assert!(SPANS.windows(2).all(|pair| pair[1] % pair[0] == 0));
    }
}
