//! Usage that counts over the month: graduated tiers (rule R14) and commitments (rule R15).
//!
//! Everything of one tenant and UTC month is taken in the order of (event time, event key), as both rules say. An hour in which
//! no bound falls is taken as a whole, as its order cannot matter. In an hour with a bound each event stands for itself: those
//! with keys at their own time, what was only summed as one event at the start of its minute, in the order of series; a price
//! with `minus` is known by the minute only. An interval counts as one event at its start, cut at months and where its price
//! changes. What goes over a bound is cut there, to the unit of the meter.

use super::table::{Interval, MS_PER_HOUR, MS_PER_MINUTE, Mark, Points};
use super::terms::{SeriesTerms, TermKey};
use super::{Bill, MINUTES_PER_HOUR, RowKey, Sum, month_of};
use crate::card::Price;
use crate::charge::{Category, Charge, Commitment, Series};
use crate::money::{Money, apportion_signed};
use crate::unit::Unit;
use flow::units::{NANOS_PER_MINUTE, UnixNanos};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// A stretch of an interval under the same terms.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    pub interval: &'a Interval,
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Piece<'_> {
    /// Its quantity without its sign, in the unit of the series.
    pub fn units(&self) -> u128 {
        self.interval.quantity.unsigned_abs().saturating_mul((self.to_ms - self.from_ms).unsigned_abs().into())
    }

    /// How many of these units lie in each hour.
    pub fn hours(&self, units: &Range<u128>) -> Vec<(i64, u128)> {
        let each = self.interval.quantity.unsigned_abs();
        let mut start = 0;
        let mut parts = Vec::new();
        for (hour, ms) in super::hours(self.from_ms..self.to_ms) {
            let end = start + each * ms.unsigned_abs();
            let inside = end.min(units.end).saturating_sub(units.start.max(start));
            if inside > 0 {
                parts.push((hour, inside));
            }
            start = end;
        }
        parts
    }
}

/// Cells of one series in one hour under the same terms, added up.
pub struct HourLot {
    pub rank: u32,
    pub hour: i64,
    pub terms: TermKey,
    pub cells: Range<usize>,
    pub sum: Sum,
}

/// All of one tenant in one month that counts.
#[derive(Default)]
struct Month<'a> {
    hours: BTreeMap<i64, Hour<'a>>,
}

#[derive(Default)]
struct Hour<'a> {
    lots: Vec<(HourLot, &'a Price)>,
    pieces: Vec<(Piece<'a>, TermKey, &'a Price)>,
}

#[derive(Default)]
pub struct Counted<'a> {
    /// By tenant and the first minute of the month.
    months: BTreeMap<(Vec<u8>, i64), Month<'a>>,
    terms: HashMap<u32, SeriesTerms<'a>>,
    ranks: HashSet<u32>,
    /// What is left of each commitment at the end of a month, in its smallest units; by its number and the month.
    left: BTreeMap<(usize, i64), u128>,
    /// Shares of fees that were not used.
    unused_fees: BTreeMap<(usize, i64), Money>,
}

/// What was used in a month so far.
struct State {
    /// By SKU, in the smallest units.
    used: HashMap<String, u128>,
    /// Number of a commitment, and what is left of it.
    left: Vec<(usize, u128)>,
}

/// One event, or what counts as one.
struct Item<'b, 'a> {
    at: i64,
    key: Vec<u8>,
    rank: u32,
    terms: TermKey,
    sku: &'a Price,
    what: What<'b, 'a>,
}

enum What<'b, 'a> {
    Sum(Sum),
    Piece(&'b Piece<'a>),
}

/// Units of an item that have one price.
struct Part {
    tier: u32,
    cover: u32,
    units: Range<u128>,
}

impl<'a> Counted<'a> {
    pub fn add_lot(&mut self, tenant: &[u8], lot: HourLot, sku: &'a Price) {
        self.ranks.insert(lot.rank);
        let month = month_of(lot.hour * MINUTES_PER_HOUR).start;
        let month = self.months.entry((tenant.to_vec(), month)).or_default();
        month.hours.entry(lot.hour).or_default().lots.push((lot, sku));
    }

    pub fn add_piece(&mut self, tenant: &[u8], piece: Piece<'a>, terms: TermKey, sku: &'a Price) {
        self.ranks.insert(piece.interval.rank);
        let month = month_of(piece.from_ms.div_euclid(MS_PER_MINUTE)).start;
        let month = self.months.entry((tenant.to_vec(), month)).or_default();
        month.hours.entry(piece.from_ms.div_euclid(MS_PER_HOUR)).or_default().pieces.push((piece, terms, sku));
    }

    /// Terms of a series that has something to count.
    pub fn keep_terms(&mut self, rank: u32, terms: SeriesTerms<'a>) {
        if self.ranks.contains(&rank) {
            self.terms.insert(rank, terms);
        }
    }

    pub fn rate(&mut self, bill: &mut Bill<'a>) {
        let months = std::mem::take(&mut self.months);
        let exact = self.hours_with_bounds(bill, &months);
        let points = bill.table.points(&exact);
        for ((tenant, start), month) in &months {
            let mut state = State::new(bill, tenant, *start);
            let covered = self.rate_month(bill, month, &mut state, &points);
            for (index, left) in state.left {
                self.left.insert((index, *start), left);
                self.spread_fee(bill, index, *start, left, &covered);
            }
        }
    }

    /// The (series, hour) pairs of which each event must be looked at. Runs through the months once, by sums.
    fn hours_with_bounds(&self, bill: &Bill<'a>, months: &BTreeMap<(Vec<u8>, i64), Month<'a>>) -> HashSet<(u32, i64)> {
        let mut exact = HashSet::new();
        for ((tenant, start), month) in months {
            let mut state = State::new(bill, tenant, *start);
            let mut is_sure = true;
            for (hour, all) in &month.hours {
                if !is_sure || !all.is_plain(bill, &state) {
                    exact.extend(all.lots.iter().map(|(lot, _)| (lot.rank, *hour)));
                    // Which of several commitments was used up depends on the order: from here on, look at each event.
                    is_sure = state.left.len() < 2;
                }
                for (rank, sku, units) in all.uses() {
                    let size = Unit::parse(&bill.table.series[rank as usize].unit).size;
                    state.take(bill, sku, size, units);
                }
            }
        }
        exact
    }

    /// Returns what commitments covered: by commitment, row and quantity in smallest units.
    fn rate_month(&self, bill: &mut Bill<'a>, month: &Month<'a>, state: &mut State, points: &Points) -> BTreeMap<(u32, RowKey), u128> {
        let mut covered = BTreeMap::new();
        for (hour, all) in &month.hours {
            let mut items = match all.is_plain(bill, state) {
                true => all.lots.iter().map(|(lot, sku)| lot.whole(sku)).collect(),
                false => all.lots.iter().flat_map(|(lot, sku)| self.single(bill, lot, sku, points)).collect::<Vec<_>>(),
            };
            items.extend(all.pieces.iter().map(|(piece, terms, sku)| Item {
                at: piece.from_ms.saturating_mul(1_000_000),
                key: piece.interval.key.clone(),
                rank: piece.interval.rank,
                terms: *terms,
                sku,
                what: What::Piece(piece),
            }));
            items.sort_by(|a, b| (a.at, &a.key, a.rank, a.terms, a.place()).cmp(&(b.at, &b.key, b.rank, b.terms, b.place())));
            for item in &items {
                self.count(bill, *hour, item, state, &mut covered);
            }
        }
        covered
    }

    /// The events of a lot, one by one, and what was only summed, by the minute.
    fn single<'b>(&self, bill: &Bill<'a>, lot: &HourLot, sku: &'a Price, points: &Points) -> Vec<Item<'b, 'a>> {
        let mut items = Vec::new();
        let series = &bill.table.series[lot.rank as usize];
        let terms = self.terms[&lot.rank].version(lot.terms.version);
        let of_hour = points.get(&(lot.rank, lot.hour)).map(Vec::as_slice).unwrap_or_default();
        for cell in bill.table.cells(lot.cells.clone()) {
            let Ok(billable) = terms.billable(bill.table, series, &cell) else { continue };
            let item = |at: i64, key: Vec<u8>, sum: Sum| Item { at, key, rank: lot.rank, terms: lot.terms, sku, what: What::Sum(sum) };
            let minute = i64::from(cell.minute);
            let events: Vec<_> = of_hour.iter().filter(|(at, ..)| UnixNanos(*at).minute() == minute).collect();
            let before = items.len();
            let mut rest = Sum { quantity: cell.quantity, billable, events: cell.events, ..Sum::default() };
            // With `minus`, what of a single event is to be paid is not known; nor is it where one of them takes back.
            if sku.minus.is_empty() && events.iter().all(|(_, _, quantity)| *quantity >= 0) {
                for (at, key, quantity) in events {
                    let mut mark = Mark::default();
                    mark.add(*at, || key.clone());
                    items.push(item(*at, key.clone(), Sum { quantity: *quantity, billable: *quantity, events: 1, mark, ..Sum::default() }));
                    rest.quantity -= quantity;
                    rest.billable -= quantity;
                    rest.events = rest.events.saturating_sub(1);
                }
                if rest.billable < 0 {
                    // Sums take back what events used: the minute is one event after all.
                    items.truncate(before);
                    rest = Sum { quantity: cell.quantity, billable, events: cell.events, ..Sum::default() };
                }
            } else {
                events.iter().for_each(|(at, key, _)| rest.mark.add(*at, || key.clone()));
            }
            items.push(item(minute * NANOS_PER_MINUTE, Vec::new(), rest));
        }
        items
    }

    /// Cuts an item at the bounds and adds each part to its row.
    fn count(&self, bill: &mut Bill<'a>, hour: i64, item: &Item<'_, 'a>, state: &mut State, covered: &mut BTreeMap<(u32, RowKey), u128>) {
        let size = Unit::parse(&bill.table.series[item.rank as usize].unit).size;
        let parts = state.take(bill, item.sku, size, item.units());
        for (number, part) in parts.iter().enumerate() {
            let mut key = RowKey { rank: item.rank, hour, terms: item.terms, tier: part.tier, cover: part.cover };
            let units = part.units.end - part.units.start;
            match &item.what {
                What::Sum(sum) => {
                    let billable = i128::try_from(units).unwrap_or(i128::MAX);
                    // What `minus` took away stands with the first part.
                    let taken = if number == 0 { sum.quantity.saturating_sub(sum.billable) } else { 0 };
                    let part = Sum {
                        quantity: billable.saturating_add(taken),
                        billable,
                        unpriced: billable,
                        list: 0,
                        contracted: 0,
                        ..sum.clone()
                    };
                    bill.add(key, &part);
                    note(covered, key, units, size);
                }
                What::Piece(piece) => {
                    bill.add_piece(&self.terms[&item.rank], piece, item.terms, part.tier, part.cover, part.units.clone());
                    for (hour, units) in piece.hours(&part.units) {
                        key.hour = hour;
                        note(covered, key, units, size);
                    }
                }
            }
        }
    }

    /// Divides the fee among what was covered and what was not used (rules R15 and R6).
    fn spread_fee(&mut self, bill: &mut Bill<'a>, index: usize, month: i64, left: u128, covered: &BTreeMap<(u32, RowKey), u128>) {
        let contract = &bill.card.commitments[index];
        let number = index as u32 + 1;
        let mut rows: Vec<(RowKey, u128)> =
            covered.iter().filter(|((cover, _), _)| *cover == number).map(|((_, key), units)| (*key, *units)).collect();
        rows.sort_unstable_by_key(|(key, _)| (key.hour, *key));
        let weights: Vec<u128> = rows.iter().map(|(_, units)| *units).chain([left]).collect();
        // Weights are parts of a quantity of 128 bits, so they add up; a fee has at most 38 digits, as have its parts.
        let parts = apportion_signed(contract.fee.0, &weights).ok().flatten().unwrap_or_default();
        for ((key, _), part) in rows.iter().zip(&parts) {
            if let Some(row) = bill.rows.get_mut(key) {
                row.effective = Money(*part);
            }
        }
        self.unused_fees.insert((index, month), parts.last().map_or(contract.fee, |part| Money(*part)));
    }

    /// The fees, and what was not used, of all months that are due.
    pub fn contracts(&self, bill: &Bill<'a>, range: Option<&Range<UnixNanos>>) -> Vec<(u32, Charge)> {
        let hours = bill.usage.keys().map(|(_, hour)| *hour);
        let span = match range {
            Some(range) if range.start < range.end => Some((range.start.minute(), UnixNanos(range.end.0 - 1).minute())),
            Some(_) => None,
            None => hours.clone().min().zip(hours.max()).map(|(first, last)| (first * MINUTES_PER_HOUR, last * MINUTES_PER_HOUR)),
        };
        let Some((first, last)) = span else { return vec![] };
        let mut rows = Vec::new();
        for (index, contract) in bill.card.commitments.iter().enumerate() {
            let mut month = month_of(first.max(contract.from_minute));
            while month.start <= last && month.start < contract.to_minute {
                let left = self.left.get(&(index, month.start)).copied().unwrap_or(contract.quantity);
                let rest = self.unused_fees.get(&(index, month.start)).copied().unwrap_or(contract.fee);
                rows.push((0, contract_row(bill, index, &month, None)));
                if left > 0 {
                    rows.push((0, contract_row(bill, index, &month, Some((left, rest)))));
                }
                month = month_of(month.end);
            }
        }
        rows
    }
}

fn note(covered: &mut BTreeMap<(u32, RowKey), u128>, key: RowKey, units: u128, size: u128) {
    if key.cover > 0 {
        *covered.entry((key.cover, key)).or_default() += units.saturating_mul(size);
    }
}

/// The fee of a month, or (`unused`) what nobody used of it and that part of the fee.
fn contract_row(bill: &Bill<'_>, index: usize, month: &Range<i64>, unused: Option<(u128, Money)>) -> Charge {
    let contract = &bill.card.commitments[index];
    let zero = Money::ZERO;
    let (unit, quantity) = match unused {
        None => ("Months", 1),
        Some((left, _)) => (contract.unit.as_str(), i128::try_from(left / Unit::parse(&contract.unit).size).unwrap_or(i128::MAX)),
    };
    let price = if unused.is_some() { zero } else { contract.fee };
    Charge {
        series: Arc::new(Series { tenant: contract.tenant.clone(), dims: vec![], meter: "commitment".into(), unit: unit.into() }),
        hour: UnixNanos(month.start.saturating_mul(NANOS_PER_MINUTE)),
        end: UnixNanos(month.end.saturating_mul(NANOS_PER_MINUTE)),
        category: if unused.is_some() { Category::Usage } else { Category::Purchase },
        sku: contract.id.to_string(),
        version: "commitment".into(),
        card: bill.digest.clone(),
        tier: 0,
        commitment: Some(if unused.is_some() { Commitment::Unused(contract.id.clone()) } else { Commitment::Fee(contract.id.clone()) }),
        allocation: None,
        quantity,
        billable: quantity,
        unit: Arc::from(unit),
        per: 1,
        scale: (1, 1),
        price,
        contracted_price: price,
        exchange: None,
        list: price,
        contracted: price,
        effective: unused.map_or(zero, |(_, rest)| rest),
        billed: price,
        events: 0,
        first_event: vec![],
        last_event: vec![],
    }
}

impl HourLot {
    fn whole<'b, 'a>(&self, sku: &'a Price) -> Item<'b, 'a> {
        Item { at: self.hour, key: vec![], rank: self.rank, terms: self.terms, sku, what: What::Sum(self.sum.clone()) }
    }
}

impl Item<'_, '_> {
    fn units(&self) -> u128 {
        match &self.what {
            What::Sum(sum) => u128::try_from(sum.billable).unwrap_or(0),
            What::Piece(piece) => piece.units(),
        }
    }

    /// Tells events apart that agree in all else.
    fn place(&self) -> (u64, u64, u128) {
        match &self.what {
            What::Sum(_) => (0, 0, self.units()),
            What::Piece(piece) => (piece.interval.stream, piece.interval.position, piece.units()),
        }
    }
}

impl<'a> Hour<'a> {
    /// (series, SKU, units) of all that is used.
    fn uses(&self) -> impl Iterator<Item = (u32, &'a Price, u128)> {
        let lots = self.lots.iter().map(|(lot, sku)| (lot.rank, *sku, u128::try_from(lot.sum.billable).unwrap_or(0)));
        lots.chain(self.pieces.iter().map(|(piece, _, sku)| (piece.interval.rank, *sku, piece.units())))
    }

    /// No bound falls into the hour: each SKU stays in its tier, and each commitment that is used lasts.
    fn is_plain(&self, bill: &Bill<'_>, state: &State) -> bool {
        let mut used: BTreeMap<&str, u128> = BTreeMap::new();
        let mut left: BTreeMap<usize, u128> = BTreeMap::new();
        for (rank, sku, units) in self.uses() {
            let size = Unit::parse(&bill.table.series[rank as usize].unit).size;
            let units = units.saturating_mul(size);
            let sum = used.entry(&sku.sku).or_default();
            *sum = sum.saturating_add(units);
            if *sum > state.room_in_tier(sku, size) {
                return false;
            }
            if let Some((index, room)) = state.cover(bill, sku, size) {
                let sum = left.entry(index).or_default();
                *sum = sum.saturating_add(units);
                if *sum > room {
                    return false;
                }
            }
        }
        true
    }
}

impl State {
    fn new(bill: &Bill<'_>, tenant: &[u8], month: i64) -> State {
        let valid = bill.card.commitments.iter().enumerate();
        let valid = valid.filter(|(_, c)| c.tenant == tenant && (c.from_minute..c.to_minute).contains(&month));
        State { used: HashMap::new(), left: valid.map(|(index, contract)| (index, contract.quantity)).collect() }
    }

    /// Which tier the next unit of this size is in.
    fn tier(&self, sku: &Price, size: u128) -> Option<usize> {
        let used = self.used.get(&sku.sku).copied().unwrap_or(0);
        sku.tiers.iter().position(|tier| tier.up_to == u128::MAX || tier.up_to.saturating_sub(used) >= size)
    }

    fn room_in_tier(&self, sku: &Price, size: u128) -> u128 {
        let used = self.used.get(&sku.sku).copied().unwrap_or(0);
        match self.tier(sku, size).map(|index| sku.tiers[index].up_to) {
            None | Some(u128::MAX) => u128::MAX,
            Some(up_to) => up_to - used,
        }
    }

    /// The commitment that covers the next unit of this size, and what is left of it.
    fn cover(&self, bill: &Bill<'_>, sku: &Price, size: u128) -> Option<(usize, u128)> {
        let fits = |(index, left): &&(usize, u128)| *left >= size && bill.card.commitments[*index].skus.contains(&sku.sku);
        self.left.iter().find(fits).copied()
    }

    /// Uses so many units of `size` smallest ones, and says what each part of them is.
    fn take(&mut self, bill: &Bill<'_>, sku: &Price, size: u128, units: u128) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut start = 0;
        while start < units {
            let tier = self.tier(sku, size);
            let mut count = (units - start).min((self.room_in_tier(sku, size) / size).max(1));
            let cover = self.cover(bill, sku, size);
            if let Some((index, room)) = cover {
                count = count.min(room / size);
                if let Some((_, left)) = self.left.iter_mut().find(|(other, _)| *other == index) {
                    *left -= count * size;
                }
            }
            if !sku.tiers.is_empty() {
                let used = self.used.entry(sku.sku.clone()).or_default();
                *used = used.saturating_add(count.saturating_mul(size));
            }
            let tier = tier.map_or(0, |index| index as u32 + 1);
            parts.push(Part { tier, cover: cover.map_or(0, |(index, _)| index as u32 + 1), units: start..start + count });
            start += count;
        }
        parts
    }
}
