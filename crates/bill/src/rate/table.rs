//! All usage of `Facts` laid out for rating: what each series used in each minute, what was held from when to when, and which
//! events come first and last.
//!
//! Points and sums become cells of (series, minute). Samples become cells too: a level counts from its sample to the next one of
//! its series, at most `Card::sample_gap`, and cut at minutes; the last one of all counts nothing, as nobody saw how long it
//! lasted. Intervals stay as they are. Numbers of series are ranks from here on: their order is that of the series.

use crate::card::Card;
use crate::charge::Series;
use crate::facts::cells::{Cell, Cells, Small};
use crate::facts::events::{Asked, Event, Fold, Found, Key, Standing};
use crate::facts::{Facts, Quarantined};
use flow::event::EventKind;
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::Arc;

const MINUTES_PER_HOUR: i64 = super::MINUTES_PER_HOUR;
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

/// What a series used in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    pub minute: i32,
    pub quantity: i128,
    pub events: u64,
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

/// By rank, hour and stretch of the card, where those that were kept while events came do not say it.
type Marks = HashMap<(u32, i64, u32), Mark, BuildHasherDefault<Fold>>;

pub struct Table<'a> {
    facts: &'a Facts,
    /// In order; the place in it is a series' rank.
    pub series: Vec<Arc<Series>>,
    /// Number of the facts' series of each rank, and the other way round.
    order: Vec<u32>,
    ranks: Vec<u32>,
    grid: Grid,
    /// Where the cells of each rank begin, and the end.
    starts: Vec<usize>,
    /// In order.
    pub intervals: Vec<Interval>,
    doubtful: Doubtful,
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
        let mut gather = Gather {
            ranks: &ranks,
            cells: facts.sums.clone(),
            dropped: vec![],
            levels: vec![],
            intervals: vec![],
            conflicts: HashSet::new(),
        };
        let each = &mut |event: &Event, key: Key<'_>, standing| gather.take(event, key, standing);
        let Found { duplicates, conflicts } = facts.events.each(Asked::NotAddedUp, &facts.series, each);
        gather.integrate(card);
        let Gather { cells: sums, mut dropped, mut intervals, conflicts: conflict_hours, .. } = gather;
        intervals.sort_unstable();
        let doubtful = Doubtful { hours: hours_with_changes(card), conflicts: conflict_hours };
        let marks = doubtful.look_up(facts, card, &ranks);
        let sums = sums.ranked(&ranks);
        dropped.sort_unstable_by_key(|(rank, _)| *rank);
        let mut layout = Layout { sums: &sums, dropped: &dropped, scratch: vec![], grid: Grid::default() };
        let mut starts = vec![0];
        for (rank, number) in order.iter().enumerate() {
            layout.add(rank as u32, facts.minutes.of(*number));
            starts.push(layout.grid.cells.len());
        }
        let grid = layout.grid;
        Table { facts, order, series, ranks, grid, starts, intervals, doubtful, marks, duplicates, conflicts }
    }

    pub fn range_of(&self, rank: usize) -> Range<usize> {
        self.starts[rank]..self.starts[rank + 1]
    }

    /// Cells by their place in the order of (rank, minute).
    pub fn cells(&self, places: Range<usize>) -> impl Iterator<Item = Amount> {
        places.map(|place| self.cell(place))
    }

    pub fn cell(&self, place: usize) -> Amount {
        let (quantity, events) = self.grid.amount(place);
        Amount { minute: self.grid.cells[place].minute, quantity, events }
    }

    pub fn minute(&self, place: usize) -> i64 {
        self.grid.cells[place].minute.into()
    }

    /// The first of these places whose minute is this one or a later one.
    pub fn place_of(&self, places: Range<usize>, minute: i64) -> usize {
        places.start + self.grid.cells[places].partition_point(|cell| i64::from(cell.minute) < minute)
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
            let places = self.range_of(rank);
            if let Ok(found) = self.grid.cells[places.clone()].binary_search_by_key(&minute, |cell| cell.minute) {
                if self.series[rank].unit != unit {
                    return Err(&self.series[rank].unit);
                }
                sum = sum.saturating_add(self.grid.amount(places.start + found).0);
            }
        }
        Ok(sum)
    }

    /// First and last event of a series in an hour, in these stretches of the card.
    pub fn mark(&self, rank: u32, hour: i64, stretches: Range<usize>) -> Mark {
        let mut all = Mark::default();
        if !self.doubtful.has(rank, hour) {
            if let Some(ends) = self.facts.marks.get(self.order[rank as usize], hour) {
                let end = |(at, place)| (at, self.facts.events.key_at(place).bytes());
                all.ends = Some([end(ends.first), end(ends.last)]);
            }
            return all;
        }
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
            self.facts.events.each(Asked::All, &self.facts.series, &mut |event, key, standing| {
                let place = (self.ranks[event.series as usize], hour_of_nanos(event.at));
                if standing == Standing::Counts && event.kind == EventKind::Point && wanted.contains(&place) {
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

/// Hours of which the first and the last event are to be looked up again.
struct Doubtful {
    /// In them the card changes: the stretches before and after it are rows of their own.
    hours: Vec<i64>,
    /// In these, by rank and hour, lies an event that does not count.
    conflicts: HashSet<(u32, i64)>,
}

/// Hours within which the card changes.
fn hours_with_changes(card: &Card) -> Vec<i64> {
    let changes = std::iter::successors(card.next_change(i64::MIN), |change| card.next_change(*change));
    changes.filter(|minute| minute.rem_euclid(MINUTES_PER_HOUR) != 0).map(super::hour_of).collect()
}

impl Doubtful {
    fn has(&self, rank: u32, hour: i64) -> bool {
        self.hours.binary_search(&hour).is_ok() || self.conflicts.contains(&(rank, hour))
    }

    fn look_up(&self, facts: &Facts, card: &Card, ranks: &[u32]) -> Marks {
        let mut marks = Marks::default();
        if self.conflicts.is_empty() && !facts.marks.has_any(&self.hours) {
            return marks;
        }
        facts.events.each(Asked::All, &facts.series, &mut |event, key, standing| {
            let (rank, hour) = (ranks[event.series as usize], hour_of_nanos(event.at));
            let is_marked = standing == Standing::Counts && !key.is_empty() && event.kind != EventKind::Interval;
            if is_marked && self.has(rank, hour) {
                let stretch = card.stretch(UnixNanos(event.at).minute()) as u32;
                marks.entry((rank, hour, stretch)).or_default().add(event.at, || key.bytes());
            }
        });
        marks
    }
}

/// Puts the cells of one series after the other.
struct Layout<'a> {
    /// In order of (rank, minute), each once.
    sums: &'a [Cell],
    /// What of the minutes does not count, in the order of ranks.
    dropped: &'a [(u32, Small)],
    scratch: Vec<(i32, i128, i64)>,
    grid: Grid,
}

/// In order of (rank, minute), each once. What is not small has no events there, and the place of its amount in `large`.
#[derive(Default)]
struct Grid {
    cells: Vec<Small>,
    large: Vec<(i128, u64)>,
}

impl Grid {
    fn push(&mut self, minute: i32, quantity: i128, events: u64) {
        let small = match (i64::try_from(quantity), i32::try_from(events)) {
            (Ok(quantity), Ok(events)) if events > 0 => Small { minute, events, quantity },
            _ => {
                self.large.push((quantity, events));
                Small { minute, events: 0, quantity: self.large.len() as i64 - 1 }
            }
        };
        self.cells.push(small);
    }

    fn amount(&self, place: usize) -> (i128, u64) {
        let small = self.cells[place];
        match small.events {
            0 => self.large[small.quantity as usize],
            events => (small.quantity.into(), events.unsigned_abs().into()),
        }
    }
}

impl Layout<'_> {
    /// Ranks come in order.
    fn add<'m>(&mut self, rank: u32, minutes: impl Iterator<Item = &'m Small>) {
        let (dropped, later) = self.dropped.split_at(self.dropped.partition_point(|(of, _)| *of == rank));
        self.dropped = later;
        let (mut sums, later) = self.sums.split_at(self.sums.partition_point(|cell| cell.series == rank));
        self.sums = later;
        let unpack = |small: &Small| (small.minute, i128::from(small.quantity), i64::from(small.events));
        self.scratch.clear();
        self.scratch.extend(minutes.map(unpack));
        self.scratch.extend(dropped.iter().map(|(_, small)| unpack(small)));
        if !self.scratch.is_sorted_by_key(|(minute, ..)| *minute) {
            self.scratch.sort_unstable_by_key(|(minute, ..)| *minute);
        }
        for group in self.scratch.chunk_by(|a, b| a.0 == b.0) {
            let minute = group[0].0;
            let (quantity, events) = group.iter().fold((0, 0), |sum, (_, quantity, events)| (sum.0 + quantity, sum.1 + events));
            // Each of them was of an event, so none of them counts.
            if events == 0 {
                continue;
            }
            let (before, after) = sums.split_at(sums.partition_point(|cell| cell.minute < minute));
            before.iter().for_each(|sum| self.grid.push(sum.minute, sum.quantity, sum.events));
            sums = after;
            let (mut quantity, mut events) = (quantity, events.unsigned_abs());
            if let Some((same, after)) = sums.split_first().filter(|(same, _)| same.minute == minute) {
                quantity = quantity.saturating_add(same.quantity);
                events = events.saturating_add(same.events);
                sums = after;
            }
            self.grid.push(minute, quantity, events);
        }
        sums.iter().for_each(|sum| self.grid.push(sum.minute, sum.quantity, sum.events));
    }
}

struct Gather<'a> {
    ranks: &'a [u32],
    cells: Cells,
    /// By rank, what `Facts::minutes` has and does not count, negative.
    dropped: Vec<(u32, Small)>,
    levels: Vec<Level>,
    intervals: Vec<Interval>,
    /// Rank and hour of events with keys that do not count.
    conflicts: HashSet<(u32, i64)>,
}

impl Gather<'_> {
    fn take(&mut self, event: &Event, key: Key<'_>, standing: Standing) {
        let minute = UnixNanos(event.at).minute();
        let rank = self.ranks[event.series as usize];
        if standing == Standing::Conflict && event.kind != EventKind::Interval {
            self.conflicts.insert((rank, hour_of_nanos(event.at)));
        }
        if event.is_added_up() {
            if standing != Standing::Counts {
                let minute = i32::try_from(minute).expect("its minute was taken");
                self.dropped.push((rank, Small { minute, events: -1, quantity: -(event.quantity as i64) }));
            }
            return;
        }
        if standing != Standing::Counts {
            return;
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
    fn integrate(&mut self, card: &Card) {
        let order = |l: &Level| (l.series, l.at_ms, l.received, l.stream, l.position, l.quantity);
        self.levels.sort_unstable_by_key(order);
        let gap_ms = card.sample_gap.0 / NANOS_PER_MS;
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
