//! Rating: usage facts and a card become charges.
//!
//! In: facts in any order and any batching. They are added up per (tenant, meter, unit, dimensions, minute) first, so
//! neither can show; then each minute is priced by its own time (rule R9) and added up per UTC hour and price version
//! (rule R4), and each row is rounded once (rule R1). An interval is priced once for each version and then distributed over
//! its hours (rule R5). Out: charges, all usage priced or not, what has no price (R11), what is refused and what is in
//! quarantine, each in a fixed order.
//! Parts: `table` (facts laid out), `terms` (what the card says), `counted` (tiers and commitments), `share` (cost of several).
//! Bound: memory is linear in the facts; a quantity beyond 64 bits is refused and named, never wrapped (case P15).

mod counted;
mod share;
mod table;
mod terms;

pub use crate::facts::{Refusal, Refused};
pub use share::Conservation;

use crate::card::Card;
use crate::charge::{Category, Charge, Commitment, Series};
use crate::facts::{Facts, Quarantined, minute_range};
use crate::money::{Money, Overflow, apportion_signed};
use counted::{Counted, HourLot, Piece};
use flow::event::UsageFact;
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use table::{Interval, MS_PER_HOUR, MS_PER_MINUTE, Mark, Table};
use terms::{SeriesTerms, Tariff, TermKey};

const MINUTES_PER_HOUR: i64 = 60;
const MINUTES_PER_DAY: i64 = 1_440;
const NANOS_PER_MS: i64 = 1_000_000;
/// Quantity of one row: what INT64 columns hold.
const QUANTITY_MAX: u128 = i64::MAX as u128;

/// All that one series used in one hour, priced or not. What a share divides stands with those who got a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub series: Arc<Series>,
    pub hour: UnixNanos,
    pub quantity: i128,
    pub events: u64,
}

/// Usage without a price: costs nothing yet, and is priced when a card names it (rule R11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpriced {
    pub series: Arc<Series>,
    pub hour: UnixNanos,
    pub quantity: i128,
    pub events: u64,
    pub why: NoPrice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoPrice {
    /// No version of the card is valid at that time.
    NoVersion,
    /// No price of the version fits the meter and its dimensions.
    NoPrice,
    /// The price is in another currency, of which the card has no rate for that day (rule R16).
    NoRate,
}

impl NoPrice {
    pub fn name(self) -> &'static str {
        match self {
            NoPrice::NoVersion => "no_version",
            NoPrice::NoPrice => "no_price",
            NoPrice::NoRate => "no_rate",
        }
    }
}

/// What `rate` found; each list is in the order of (tenant, dimensions, meter, unit), then time; quarantine in that of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rating {
    pub currency: String,
    /// SHA-256 of the card.
    pub card: Arc<str>,
    pub rows: Vec<Charge>,
    pub usage: Vec<Usage>,
    pub unpriced: Vec<Unpriced>,
    pub refused: Vec<Refused>,
    /// Events that are not billed, by name.
    pub quarantine: Vec<Quarantined>,
    /// Copies of events that were dropped, and other content under a known key (rule R7), of all facts.
    pub duplicates: u64,
    pub conflicts: u64,
    /// For each share of the card, what was divided and what came of it.
    pub conservation: Vec<Conservation>,
}

impl Rating {
    /// Records whose usage has no price.
    pub fn unpriced_events(&self) -> u64 {
        self.unpriced.iter().fold(0, |sum, u| u64::saturating_add(sum, u.events))
    }

    /// Records whose usage is refused.
    pub fn refused_events(&self) -> u64 {
        self.refused.iter().fold(0, |sum, r| u64::saturating_add(sum, r.events))
    }

    pub fn total(&self) -> Result<Money, Overflow> {
        Money::sum(self.rows.iter().map(|row| row.billed))
    }
}

/// Prices the facts. The result depends on their sums per minute and on their events only.
pub fn rate(card: &Card, facts: &[UsageFact]) -> Rating {
    let mut all = Facts::new(card.dedup_window);
    facts.iter().for_each(|fact| all.add(fact));
    all.rate(card)
}

impl Facts {
    /// Prices all facts.
    ///
    /// Commitments are due for each month from the first usage to the last, and their unused rest is told for each.
    pub fn rate(&self, card: &Card) -> Rating {
        rate_range(self, card, None)
    }

    /// The same, of the charges that begin in [from, to): tiers and commitments count what was used of the month before.
    ///
    /// Commitments are due for each month that begins in it; the unused rest is told for those that end in it.
    /// What is in quarantine is told by its time; copies and conflicts are counted over all facts.
    pub fn rate_range(&self, card: &Card, from: UnixNanos, to: UnixNanos) -> Rating {
        rate_range(self, card, Some(from..to))
    }
}

fn rate_range(facts: &Facts, card: &Card, range: Option<Range<UnixNanos>>) -> Rating {
    let table = Table::build(facts, card);
    let mut bill = Bill::new(card, &table, facts.refused.clone());
    for rank in 0..table.series.len() as u32 {
        bill.rate_series(rank);
    }
    let mut counted = std::mem::take(&mut bill.counted);
    counted.rate(&mut bill);
    let mut rows = bill.charges();
    rows.append(&mut counted.contracts(&bill, range.as_ref()));
    let conservation = share::divide(&mut bill, &mut rows, range.as_ref());
    rows.sort_by(|(version_a, a), (version_b, b)| order(*version_a, a).cmp(&order(*version_b, b)));
    let mut rating = bill.finish(rows.into_iter().map(|(_, row)| row).collect());
    rating.conservation = conservation;
    rating.quarantine = facts.quarantine.iter().chain(&table.conflicts).cloned().collect();
    rating.quarantine.sort_unstable();
    (rating.duplicates, rating.conflicts) = (table.duplicates, table.conflicts.len() as u64);
    if let Some(range) = range {
        rating.rows.retain(|row| is_told(row, &range));
        rating.usage.retain(|usage| range.contains(&usage.hour));
        rating.unpriced.retain(|unpriced| range.contains(&unpriced.hour));
        // What has no time is told wherever it may belong.
        rating.refused.retain(|refused| refused.why == Refusal::TimeOutOfRange || range.contains(&refused.from));
        rating.quarantine.retain(|one| range.contains(&one.at));
    }
    rating
}

/// An unused rest is told once its month is over, everything else when it begins.
fn is_told(row: &Charge, range: &Range<UnixNanos>) -> bool {
    match row.commitment {
        Some(Commitment::Unused(_)) => range.start < row.end && row.end <= range.end,
        _ => range.contains(&row.hour),
    }
}

#[expect(clippy::type_complexity, reason = "the order of rows, told in one place")]
fn order(
    version: u32,
    row: &Charge,
) -> (
    &Arc<Series>,
    UnixNanos,
    Category,
    u32,
    &str,
    u32,
    &Option<Commitment>,
    Money,
    &Option<crate::charge::Allocation>,
    &Option<crate::charge::Exchange>,
) {
    (
        &row.series,
        row.hour,
        row.category,
        version,
        &row.sku,
        row.tier,
        &row.commitment,
        row.contracted_price,
        &row.allocation,
        &row.exchange,
    )
}

pub(crate) fn hour_of(minute: i64) -> i64 {
    minute.div_euclid(MINUTES_PER_HOUR)
}

fn hour_start(hour: i64) -> UnixNanos {
    UnixNanos(hour * NANOS_PER_HOUR)
}

/// First minute of the UTC month in which this minute lies, and of the next one.
fn month_of(minute: i64) -> Range<i64> {
    let (year, month, _) = flow::units::civil_from_days(minute.div_euclid(MINUTES_PER_DAY));
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let start = |year, month| flow::units::days_from_civil(year, month, 1) * MINUTES_PER_DAY;
    start(year, month)..start(next_year, next_month)
}

/// What becomes one row: a series in an hour under the same terms, of one tier, covered by one commitment or by none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    rank: u32,
    hour: i64,
    terms: TermKey,
    /// From 1; 0 where there are no tiers.
    tier: u32,
    /// 1 more than the number of the commitment; 0: not covered.
    cover: u32,
}

/// A row while it is added up.
#[derive(Clone, Debug, Default)]
struct Sum {
    quantity: i128,
    billable: i128,
    /// What of `billable` is priced when the row is complete; the rest is parts of intervals.
    unpriced: i128,
    list: i128,
    contracted: i128,
    events: u64,
    mark: Mark,
    /// Its share of a commitment's fee.
    effective: Money,
}

/// The bill while it is made.
struct Bill<'a> {
    card: &'a Card,
    table: &'a Table<'a>,
    digest: Arc<str>,
    /// Meters that are only weights of shares: they need no price.
    weights: Vec<&'a str>,
    rows: BTreeMap<RowKey, Sum>,
    usage: BTreeMap<(u32, i64), (i128, u64)>,
    unpriced: BTreeMap<(u32, i64, NoPrice), (i128, u64)>,
    refused: Vec<Refused>,
    counted: Counted<'a>,
    /// Usage that shares moved to those who got a part.
    moved: Option<Vec<Usage>>,
}

impl<'a> Bill<'a> {
    fn new(card: &'a Card, table: &'a Table<'a>, refused: Vec<Refused>) -> Bill<'a> {
        let is_priced = |meter: &str| card.versions.iter().any(|version| version.prices.contains_key(meter));
        Bill {
            card,
            table,
            digest: Arc::from(card.digest.as_str()),
            weights: card.shares.iter().map(|share| share.by.as_str()).filter(|by| !is_priced(by)).collect(),
            rows: BTreeMap::new(),
            usage: BTreeMap::new(),
            unpriced: BTreeMap::new(),
            refused,
            counted: Counted::default(),
            moved: None,
        }
    }

    fn rate_series(&mut self, rank: u32) {
        let terms = SeriesTerms::new(self.card, self.table, rank);
        let cells = self.table.range_of(rank as usize);
        let mut start = cells.start;
        while start < cells.end {
            let hour = hour_of(self.table.minute(start));
            let end = self.table.place_of(start..cells.end, (hour + 1) * MINUTES_PER_HOUR);
            self.rate_hour(&terms, rank, hour, start..end);
            start = end;
        }
        let intervals = self.table.intervals.partition_point(|i| i.rank < rank)..self.table.intervals.partition_point(|i| i.rank <= rank);
        for index in intervals {
            self.rate_interval(&terms, &self.table.intervals[index]);
        }
        self.counted.keep_terms(rank, terms);
    }

    /// Rates the cells of one series in one hour. Other terms make a row of its own.
    fn rate_hour(&mut self, terms: &SeriesTerms<'a>, rank: u32, hour: i64, cells: Range<usize>) {
        for cell in self.table.cells(cells.clone()) {
            self.use_up(rank, hour, cell.quantity, cell.events);
        }
        let mut start = cells.start;
        while start < cells.end {
            let minute = self.table.minute(start);
            let until = terms.until(minute, (hour + 1) * MINUTES_PER_HOUR);
            let end = self.table.place_of(start..cells.end, until);
            self.rate_stretch(terms, rank, hour, start..end, minute..until);
            start = end;
        }
    }

    fn rate_stretch(&mut self, terms: &SeriesTerms<'a>, rank: u32, hour: i64, cells: Range<usize>, minutes: Range<i64>) {
        let (version, key) = terms.at(minutes.start);
        let series = &self.table.series[rank as usize];
        let mut sum = Sum::default();
        for cell in self.table.cells(cells.clone()) {
            let billable = version.map_or(Ok(cell.quantity), |version| terms.version(version).billable(self.table, series, &cell));
            match billable {
                Ok(billable) => {
                    sum.quantity = sum.quantity.saturating_add(cell.quantity);
                    sum.billable = sum.billable.saturating_add(billable);
                    sum.events = sum.events.saturating_add(cell.events);
                }
                Err(why) => {
                    let (from, to) = minute_range(cell.minute.into());
                    self.refused.push(Refused { series: series.clone(), from, to, quantity: cell.quantity, events: cell.events, why });
                }
            }
        }
        let key = match key {
            Ok(key) => key,
            Err(why) => return self.list_unpriced(rank, hour, sum.quantity, sum.events, why),
        };
        let stretches = self.card.stretch(minutes.start)..self.card.stretch(minutes.end - 1) + 1;
        sum.mark = self.table.mark(rank, hour, stretches);
        if terms.version(key.version).is_counted {
            let sku = terms.version(key.version).price.expect("a term key is given for a price only");
            return self.counted.add_lot(&series.tenant, HourLot { rank, hour, terms: key, cells, sum }, sku);
        }
        sum.unpriced = sum.billable;
        self.add(RowKey { rank, hour, terms: key, tier: 0, cover: 0 }, &sum);
    }

    /// Cuts an interval where its terms change (rule R5); each piece is priced once.
    fn rate_interval(&mut self, terms: &SeriesTerms<'a>, interval: &'a Interval) {
        for (hour, ms) in hours(interval.from_ms..interval.to_ms) {
            self.use_up(interval.rank, hour, interval.quantity.saturating_mul(ms), 1);
        }
        let end_minute = (interval.to_ms - 1).div_euclid(MS_PER_MINUTE) + 1;
        let mut from_ms = interval.from_ms;
        while from_ms < interval.to_ms {
            let minute = from_ms.div_euclid(MS_PER_MINUTE);
            let mut until = terms.until(minute, end_minute);
            let (version, key) = terms.at(minute);
            let is_counted = key.is_ok_and(|key| terms.version(key.version).is_counted);
            if is_counted {
                until = until.min(month_of(minute).end);
            }
            let to_ms = interval.to_ms.min(until * MS_PER_MINUTE);
            let piece = Piece { interval, from_ms, to_ms };
            from_ms = to_ms;
            let refusal = version.and_then(|version| terms.version(version).check_interval(interval.quantity).err());
            match (key, refusal) {
                (_, Some(why)) => self.refuse_piece(&piece, why),
                (Err(why), None) => {
                    for (hour, ms) in hours(piece.from_ms..piece.to_ms) {
                        self.list_unpriced(interval.rank, hour, interval.quantity.saturating_mul(ms), 1, why);
                    }
                }
                (Ok(key), None) if is_counted => {
                    let sku = terms.version(key.version).price.expect("a term key is given for a price only");
                    self.counted.add_piece(&self.table.series[interval.rank as usize].tenant, piece, key, sku);
                }
                (Ok(key), None) => self.add_piece(terms, &piece, key, 0, 0, 0..piece.units()),
            }
        }
    }

    fn refuse_piece(&mut self, piece: &Piece<'_>, why: Refusal) {
        let series = self.table.series[piece.interval.rank as usize].clone();
        let (from, to) = (UnixNanos(piece.from_ms * NANOS_PER_MS), UnixNanos(piece.to_ms * NANOS_PER_MS));
        let quantity = piece.interval.quantity.saturating_mul(i128::from(piece.to_ms - piece.from_ms));
        self.refused.push(Refused { series, from, to, quantity, events: 1, why });
    }

    /// Prices these units of a piece once and distributes them over its hours (rules R5 and R6).
    fn add_piece(&mut self, terms: &SeriesTerms<'a>, piece: &Piece<'a>, key: TermKey, tier: u32, cover: u32, units: Range<u128>) {
        let tariff = Tariff::new(self.card, terms, key, tier);
        let sign = if piece.interval.quantity < 0 { -1 } else { 1 };
        let parts = piece.hours(&units);
        let weights: Vec<u128> = parts.iter().map(|part| part.1).collect();
        let whole = (units.end - units.start) as i128 * sign;
        if whole == 0 {
            return;
        }
        let amounts = tariff.amounts(whole).and_then(|(list, contracted)| {
            let divide = |amount: Money| Ok(apportion_signed(amount.0, &weights)?.unwrap_or_default());
            Ok((divide(list)?, divide(contracted)?))
        });
        let Ok((list, contracted)) = amounts else {
            return self.refuse_piece(piece, Refusal::CostOverflow);
        };
        for (index, (hour, units)) in parts.into_iter().enumerate() {
            let quantity = units as i128 * sign;
            let mut sum =
                Sum { quantity, billable: quantity, list: list[index], contracted: contracted[index], events: 1, ..Sum::default() };
            if !piece.interval.key.is_empty() {
                sum.mark.add(piece.interval.at, || piece.interval.key.clone());
            }
            self.add(RowKey { rank: piece.interval.rank, hour, terms: key, tier, cover }, &sum);
        }
    }

    fn use_up(&mut self, rank: u32, hour: i64, quantity: i128, events: u64) {
        let used = self.usage.entry((rank, hour)).or_default();
        *used = (used.0.saturating_add(quantity), used.1.saturating_add(events));
    }

    /// Lists what has no price; nothing was used of a quantity of zero, so nothing is listed.
    fn list_unpriced(&mut self, rank: u32, hour: i64, quantity: i128, events: u64, why: NoPrice) {
        if quantity != 0 && !self.weights.contains(&self.table.series[rank as usize].meter.as_str()) {
            let used = self.unpriced.entry((rank, hour, why)).or_default();
            *used = (used.0.saturating_add(quantity), used.1.saturating_add(events));
        }
    }

    fn add(&mut self, key: RowKey, part: &Sum) {
        let sum = self.rows.entry(key).or_default();
        sum.quantity = sum.quantity.saturating_add(part.quantity);
        sum.billable = sum.billable.saturating_add(part.billable);
        sum.unpriced = sum.unpriced.saturating_add(part.unpriced);
        sum.list = sum.list.saturating_add(part.list);
        sum.contracted = sum.contracted.saturating_add(part.contracted);
        sum.events = sum.events.saturating_add(part.events);
        sum.mark.merge(&part.mark);
    }

    /// The rows, each with the number of its version.
    fn charges(&mut self) -> Vec<(u32, Charge)> {
        let mut charges = Vec::with_capacity(self.rows.len());
        let mut terms: Option<(u32, SeriesTerms<'a>)> = None;
        for (key, sum) in std::mem::take(&mut self.rows) {
            if terms.as_ref().is_none_or(|(rank, _)| *rank != key.rank) {
                terms = Some((key.rank, SeriesTerms::new(self.card, self.table, key.rank)));
            }
            let (_, terms) = terms.as_ref().expect("it was just found");
            let tariff = Tariff::new(self.card, terms, key.terms, key.tier);
            let (quantity, events) = (sum.quantity, sum.events);
            match self.charge(&key, sum, &tariff) {
                Ok(row) => charges.extend(row.map(|row| (key.terms.version, row))),
                Err(why) => {
                    let (from, to) = (hour_start(key.hour), hour_start(key.hour + 1));
                    self.refused.push(Refused { series: self.table.series[key.rank as usize].clone(), from, to, quantity, events, why });
                }
            }
        }
        charges
    }

    /// The row, or none for a quantity of zero (rule R17: zero quantity, no row; zero price, a row).
    fn charge(&self, key: &RowKey, sum: Sum, tariff: &Tariff<'_>) -> Result<Option<Charge>, Refusal> {
        if sum.quantity.unsigned_abs() > QUANTITY_MAX || sum.billable.unsigned_abs() > QUANTITY_MAX {
            return Err(Refusal::TooLarge);
        }
        if sum.billable == 0 && sum.list == 0 {
            return Ok(None);
        }
        let (list, contracted) = tariff.amounts(sum.unpriced).map_err(|Overflow| Refusal::CostOverflow)?;
        let plus = |a: Money, b: i128| a.checked_add(Money(b)).map_err(|Overflow| Refusal::CostOverflow);
        let (list, contracted) = (plus(list, sum.list)?, plus(contracted, sum.contracted)?);
        let cover = key.cover.checked_sub(1).map(|index| &self.card.commitments[index as usize]);
        let (billed, effective) = if cover.is_some() { (Money::ZERO, sum.effective) } else { (contracted, contracted) };
        let (first_event, last_event) = sum.mark.keys();
        Ok(Some(Charge {
            series: self.table.series[key.rank as usize].clone(),
            hour: hour_start(key.hour),
            end: hour_start(key.hour + 1),
            category: Category::Usage,
            sku: tariff.sku.sku.clone(),
            version: tariff.version.name.clone(),
            card: self.digest.clone(),
            tier: key.tier,
            commitment: cover.map(|contract| Commitment::Used(contract.id.clone())),
            allocation: None,
            quantity: sum.quantity,
            billable: sum.billable,
            unit: Arc::from(tariff.sku.unit.as_str()),
            per: tariff.sku.per,
            scale: tariff.scale,
            price: tariff.price,
            contracted_price: tariff.contracted_price(),
            exchange: tariff.exchange.clone(),
            list,
            contracted,
            effective,
            billed,
            events: sum.events,
            first_event,
            last_event,
        }))
    }

    fn finish(self, rows: Vec<Charge>) -> Rating {
        let of = |rank: u32| self.table.series[rank as usize].clone();
        let used = self.usage.iter();
        let usage = used.map(|((rank, hour), (quantity, events))| Usage {
            series: of(*rank),
            hour: hour_start(*hour),
            quantity: *quantity,
            events: *events,
        });
        let usage = self.moved.unwrap_or_else(|| usage.collect());
        let unpriced = self.unpriced.iter().map(|((rank, hour, why), (quantity, events))| Unpriced {
            series: of(*rank),
            hour: hour_start(*hour),
            quantity: *quantity,
            events: *events,
            why: *why,
        });
        let unpriced = unpriced.collect();
        let mut refused = self.refused;
        refused.sort_by(|a, b| {
            let order = |r: &'_ Refused| (r.from, r.to, r.quantity, r.events);
            a.series.cmp(&b.series).then(a.from.cmp(&b.from)).then_with(|| a.why.cmp(&b.why)).then(order(a).cmp(&order(b)))
        });
        Rating {
            currency: self.card.currency.clone(),
            card: self.digest,
            rows,
            usage,
            unpriced,
            refused,
            quarantine: vec![],
            duplicates: 0,
            conflicts: 0,
            conservation: vec![],
        }
    }
}

/// The hours that [from, to) touches, with its ms in each.
fn hours(ms: Range<i64>) -> impl Iterator<Item = (i64, i128)> {
    let last = if ms.is_empty() { ms.start.div_euclid(MS_PER_HOUR) } else { (ms.end - 1).div_euclid(MS_PER_HOUR) + 1 };
    (ms.start.div_euclid(MS_PER_HOUR)..last).map(move |hour| {
        let (from, to) = (ms.start.max(hour * MS_PER_HOUR), ms.end.min((hour + 1) * MS_PER_HOUR));
        (hour, i128::from(to - from))
    })
}
