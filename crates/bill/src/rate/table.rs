//! All usage of `Facts` laid out for rating: what each series used in each minute, what was held from when to when, and which
//! events come first and last.
//!
//! Points and sums become cells of (series, minute). Samples become cells too: a level counts from its sample to the next one of
//! its series, at most `Card::sample_gap`, and cut at minutes; the last one of all counts nothing, as nobody saw how long it
//! lasted. Intervals stay as they are. Numbers of series are ranks from here on: their order is that of the series.

use crate::card::Card;
use crate::charge::Series;
use crate::facts::cells::{Cell, Cells};
use crate::facts::events::{Event, Fold, Found, Key};
use crate::facts::{Facts, Quarantined};
use flow::event::EventKind;
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::Arc;

pub const MS_PER_MINUTE: i64 = 60_000;
pub const MS_PER_HOUR: i64 = 3_600_000;
const NANOS_PER_MS: i64 = 1_000_000;

/// Something held: `quantity` of it, from `from_ms` to `to_ms` since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    pub rank: u32,
    pub at: i64,
    pub key: Vec<u8>,
    pub stream: u64,
    pub position: u64,
    pub from_ms: i64,
    pub to_ms: i64,
    pub quantity: i128,
}

/// The first and the last event of a row, by (time, key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    ends: Option<[(i64, Vec<u8>); 2]>,
}

impl Mark {
    /// `key` is asked for only if it may count.
    pub fn add(&mut self, at: i64, key: impl Fn() -> Vec<u8>) {
        let Some([first, last]) = &mut self.ends else {
            let key = key();
            self.ends = Some([(at, key.clone()), (at, key)]);
            return;
        };
        if at <= first.0 {
            let new = (at, key());
            if new < *first {
                *first = new;
            }
        }
        if at >= last.0 {
            let new = (at, key());
            if new > *last {
                *last = new;
            }
        }
    }

    pub fn merge(&mut self, other: &Mark) {
        for (at, key) in other.ends.iter().flatten() {
            self.add(*at, || key.clone());
        }
    }

    pub fn keys(self) -> (Vec<u8>, Vec<u8>) {
        self.ends.map(|[first, last]| (first.1, last.1)).unwrap_or_default()
    }
}

/// A level seen at a time.
struct Level {
    series: u32,
    at_ms: i64,
    received: i64,
    stream: u64,
    position: u64,
    quantity: i128,
}

/// Events one by one: (time, key, quantity), by rank and hour.
pub type Points = HashMap<(u32, i64), Vec<(i64, Vec<u8>, i128)>>;

/// By rank, hour and stretch of the card.
type Marks = HashMap<(u32, i64, u32), Mark, BuildHasherDefault<Fold>>;

pub struct Table<'a> {
    facts: &'a Facts,
    /// In order; the place in it is a series' rank.
    pub series: Vec<Arc<Series>>,
    /// Rank of each series of the facts.
    ranks: Vec<u32>,
    /// In order of (rank, minute), each once.
    pub cells: Vec<Cell>,
    /// Where the cells of each rank begin, and the end.
    starts: Vec<usize>,
    /// In order.
    pub intervals: Vec<Interval>,
    marks: Marks,
    pub duplicates: u64,
    pub conflicts: Vec<Quarantined>,
}

impl<'a> Table<'a> {
    pub fn build(facts: &'a Facts, card: &Card) -> Table<'a> {
        let mut order: Vec<u32> = (0..facts.series.len() as u32).collect();
        order.sort_unstable_by(|a, b| facts.series[*a as usize].cmp(&facts.series[*b as usize]));
        let mut ranks = vec![0; order.len()];
        order.iter().enumerate().for_each(|(rank, number)| ranks[*number as usize] = rank as u32);
        let series: Vec<Arc<Series>> = order.iter().map(|number| facts.series[*number as usize].clone()).collect();
        let mut gather =
            Gather { card, ranks: &ranks, cells: facts.sums.clone(), levels: vec![], intervals: vec![], marks: Marks::default() };
        let Found { duplicates, conflicts } = facts.events.each(&facts.series, &mut |event, key| gather.take(event, key));
        gather.integrate();
        let Gather { cells, mut intervals, marks, .. } = gather;
        intervals.sort_unstable();
        let cells = cells.ranked(&ranks);
        let starts = (0..=series.len() as u32).map(|rank| cells.partition_point(|cell| cell.series < rank)).collect();
        Table { facts, series, ranks, cells, starts, intervals, marks, duplicates, conflicts }
    }

    pub fn range_of(&self, rank: usize) -> Range<usize> {
        self.starts[rank]..self.starts[rank + 1]
    }

    /// The series of another meter of the same tenant with the same dimensions, in any unit.
    pub fn partners(&self, of: &Series, meter: &str) -> Range<usize> {
        let key = |s: &Arc<Series>| (s.tenant.as_slice(), s.dims.as_slice(), s.meter.as_str()).cmp(&(&of.tenant, &of.dims, meter));
        let first = self.series.partition_point(|s| key(s).is_lt());
        let count = self.series[first..].iter().take_while(|s| key(s).is_eq()).count();
        first..first + count
    }

    /// What they used in this minute, or the unit that is not `unit`.
    pub fn used(&self, partners: Range<usize>, unit: &str, minute: i32) -> Result<i128, &str> {
        let mut sum = 0i128;
        for rank in partners {
            let cells = &self.cells[self.range_of(rank)];
            if let Ok(found) = cells.binary_search_by_key(&minute, |cell| cell.minute) {
                if self.series[rank].unit != unit {
                    return Err(&self.series[rank].unit);
                }
                sum = sum.saturating_add(cells[found].quantity);
            }
        }
        Ok(sum)
    }

    /// First and last event of a series in an hour, in these stretches of the card.
    pub fn mark(&self, rank: u32, hour: i64, stretches: Range<usize>) -> Mark {
        let mut all = Mark::default();
        for stretch in stretches {
            if let Some(mark) = self.marks.get(&(rank, hour, stretch as u32)) {
                all.merge(mark);
            }
        }
        all
    }

    /// The points with keys of these series and hours, once more, one by one.
    pub fn points(&self, wanted: &HashSet<(u32, i64)>) -> Points {
        let mut all = Points::new();
        if !wanted.is_empty() {
            self.facts.events.each(&self.facts.series, &mut |event, key| {
                let place = (self.ranks[event.series as usize], hour_of_nanos(event.at));
                if event.kind == EventKind::Point && wanted.contains(&place) {
                    all.entry(place).or_default().push((event.at, key.bytes(), event.quantity));
                }
            });
        }
        all
    }
}

/// Hours since the epoch.
pub fn hour_of_nanos(at: i64) -> i64 {
    at.div_euclid(NANOS_PER_HOUR)
}

struct Gather<'a> {
    card: &'a Card,
    ranks: &'a [u32],
    cells: Cells,
    levels: Vec<Level>,
    intervals: Vec<Interval>,
    marks: Marks,
}

impl Gather<'_> {
    fn take(&mut self, event: &Event, key: Key<'_>) {
        let minute = UnixNanos(event.at).minute();
        let rank = self.ranks[event.series as usize];
        if !key.is_empty() && event.kind != EventKind::Interval {
            let place = (rank, hour_of_nanos(event.at), self.card.stretch(minute) as u32);
            self.marks.entry(place).or_default().add(event.at, || key.bytes());
        }
        match event.kind {
            EventKind::Interval => self.intervals.push(Interval {
                rank,
                at: event.at,
                key: key.bytes(),
                stream: event.stream,
                position: event.position,
                from_ms: event.at.div_euclid(NANOS_PER_MS),
                to_ms: event.end.div_euclid(NANOS_PER_MS),
                quantity: event.quantity,
            }),
            EventKind::Sample => self.levels.push(Level {
                series: event.series,
                at_ms: event.at.div_euclid(NANOS_PER_MS),
                received: event.received,
                stream: event.stream,
                position: event.position,
                quantity: event.quantity,
            }),
            _ => self.cells.add(event.series, minute, event.quantity, 1),
        }
    }

    /// Of two samples at one time the one that was received last counts.
    fn integrate(&mut self) {
        let order = |l: &Level| (l.series, l.at_ms, l.received, l.stream, l.position, l.quantity);
        self.levels.sort_unstable_by_key(order);
        let gap_ms = self.card.sample_gap.0 / NANOS_PER_MS;
        for (index, level) in self.levels.iter().enumerate() {
            let next = self.levels.get(index + 1).filter(|next| next.series == level.series);
            let end = next.map_or(level.at_ms, |next| next.at_ms.min(level.at_ms + gap_ms));
            self.cells.add(level.series, level.at_ms.div_euclid(MS_PER_MINUTE), 0, 1);
            let mut from = level.at_ms;
            while from < end {
                let minute = from.div_euclid(MS_PER_MINUTE);
                let to = end.min((minute + 1) * MS_PER_MINUTE);
                self.cells.add(level.series, minute, level.quantity.saturating_mul(i128::from(to - from)), 0);
                from = to;
            }
        }
    }
}
