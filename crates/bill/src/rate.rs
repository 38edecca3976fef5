//! Rating: usage facts and a card become charges.
//!
//! In: facts in any order and any batching. They are added up per (tenant, meter, unit, dimensions, minute) first, so
//! neither can show; then each minute is priced by its own time (rule R9) and added up per UTC hour and price version
//! (rule R4), and each row is rounded once (rule R1). Out: charges, all usage priced or not, what has no price (R11)
//! and what is refused, each in a fixed order.
//! Bound: memory is linear in the facts; a quantity beyond 64 bits is refused and named, never wrapped (case P15).

use crate::card::{Card, Price, Version};
use crate::charge::{Category, Charge, Series};
use crate::money::{Money, Overflow, cost};
use flow::event::UsageFact;
use flow::units::{NANOS_PER_HOUR, NANOS_PER_MINUTE, UnixNanos};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

const MINUTES_PER_HOUR: i64 = 60;
/// Quantity of one row: what INT64 columns hold.
const QUANTITY_MAX: i128 = i64::MAX as i128;
/// Quantity of one fact: 2^31 of them cannot overflow a sum in 128 bits.
const FACT_QUANTITY_MAX: i128 = 1 << 96;
/// Minutes whose whole hour fits `UnixNanos`.
const MINUTES: Range<i64> = -153_000_000..153_000_000;

/// All that one series used in one hour, priced or not.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoPrice {
    /// No version of the card is valid at that time.
    NoVersion,
    /// No price of the version fits the meter and its dimensions.
    NoPrice,
}

impl NoPrice {
    pub fn name(self) -> &'static str {
        match self {
            NoPrice::NoVersion => "no_version",
            NoPrice::NoPrice => "no_price",
        }
    }
}

/// Usage that cannot be right. It is listed and counted, and costs nothing until somebody looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub series: Arc<Series>,
    /// The time it is about, one minute or (of a row that is too large) one hour; `TimeOutOfRange` has none and says 0.
    pub from: UnixNanos,
    pub to: UnixNanos,
    pub quantity: i128,
    pub events: u64,
    pub why: Refusal,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The meter counts in another unit than the price (or than the part that `minus` names).
    UnitMismatch { sku: String, unit: String },
    /// The part that `minus` names is larger than the whole (rule R10). Both are refused for that minute.
    PartAboveWhole { whole: String, part: String },
    /// A quantity needs more than 64 bits.
    TooLarge,
    /// The cost needs more than 38 digits.
    CostOverflow,
    /// The minute is not within the years 1679 to 2260.
    TimeOutOfRange,
}

impl Refusal {
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::UnitMismatch { .. } => "unit_mismatch",
            Refusal::PartAboveWhole { .. } => "part_above_whole",
            Refusal::TooLarge => "too_large",
            Refusal::CostOverflow => "cost_overflow",
            Refusal::TimeOutOfRange => "time_out_of_range",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {} ", self.series, self.from.rfc3339(), self.quantity)?;
        match &self.why {
            Refusal::UnitMismatch { sku, unit } => write!(f, "{} does not fit the price {sku}, which is for {unit}", self.series.unit),
            Refusal::PartAboveWhole { whole, part } => write!(f, "refused, as {part} is more than {whole} in this minute"),
            Refusal::TooLarge => write!(f, "is more than a quantity of 64 bits"),
            Refusal::CostOverflow => write!(f, "costs more than 38 digits can hold"),
            Refusal::TimeOutOfRange => write!(f, "lies outside of the years 1679 to 2260"),
        }
    }
}

/// What `rate` found; each list is in the order of (tenant, dimensions, meter, unit), then time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rating {
    pub currency: String,
    /// SHA-256 of the card.
    pub card: Arc<str>,
    pub rows: Vec<Charge>,
    pub usage: Vec<Usage>,
    pub unpriced: Vec<Unpriced>,
    pub refused: Vec<Refused>,
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

/// Prices the facts. The result depends on their sums per minute only.
pub fn rate(card: &Card, facts: &[UsageFact]) -> Rating {
    let digest: Arc<str> = Arc::from(card.digest.as_str());
    let (table, refused) = Table::build(facts);
    let mut out = Rating { currency: card.currency.clone(), card: digest, rows: vec![], usage: vec![], unpriced: vec![], refused };
    for rank in 0..table.series.len() {
        let cells = table.cells_of(rank);
        let mut start = 0;
        while start < cells.len() {
            let hour = hour_of(cells[start].minute);
            let end = start + cells[start..].partition_point(|cell| hour_of(cell.minute) == hour);
            rate_hour(card, &table, rank, hour, &cells[start..end], &mut out);
            start = end;
        }
    }
    out.refused.sort_by(|a, b| (&a.series, a.from, &a.why).cmp(&(&b.series, b.from, &b.why)));
    out
}

/// A series as a fact names it: tenant, meter, unit and dimensions, borrowed and in the fact's order.
type Names<'a> = (&'a [u8], &'a str, &'a str, &'a [(String, Vec<u8>)]);

/// What one series used in one minute.
#[derive(Clone, Copy)]
struct Cell {
    rank: u32,
    minute: i64,
    quantity: i128,
    events: u64,
}

/// All usage, added up by minute.
struct Table {
    /// Sorted; the place in it is a series' rank.
    series: Vec<Arc<Series>>,
    /// Sorted by rank and minute.
    cells: Vec<Cell>,
    /// Where the cells of each rank begin, and the end.
    starts: Vec<usize>,
}

impl Table {
    fn build(facts: &[UsageFact]) -> (Table, Vec<Refused>) {
        // Facts name few series many times: they are compared once each, then numbers are sorted.
        let mut seen: HashMap<Names, u32> = HashMap::new();
        let mut named: Vec<Arc<Series>> = Vec::new();
        let mut cells = Vec::with_capacity(facts.len());
        let mut refused: Vec<Refused> = Vec::new();
        for fact in facts {
            let next = named.len() as u32;
            let id = *seen.entry((&fact.tenant, &fact.meter, &fact.unit, &fact.dims)).or_insert(next);
            if id == next {
                named.push(Arc::new(series_of(fact)));
            }
            match refusal(fact) {
                Some(why) => refused.push(refuse_fact(&named[id as usize], fact, why)),
                None => cells.push(Cell { rank: id, minute: fact.minute, quantity: fact.quantity, events: fact.events }),
            }
        }
        // Two meters may list the same dimensions in another order: one series.
        let series: Vec<Arc<Series>> = named.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let ranks: Vec<u32> = named.iter().map(|s| series.partition_point(|other| other < s) as u32).collect();
        for cell in &mut cells {
            cell.rank = ranks[cell.rank as usize];
        }
        cells.sort_unstable_by_key(|cell| (cell.rank, cell.minute));
        cells.dedup_by(|cell, into| {
            let same = (cell.rank, cell.minute) == (into.rank, into.minute);
            if same {
                into.quantity += cell.quantity; // cannot overflow: see FACT_QUANTITY_MAX
                into.events = into.events.saturating_add(cell.events);
            }
            same
        });
        let starts = (0..=series.len() as u32).map(|rank| cells.partition_point(|cell| cell.rank < rank)).collect();
        (Table { series, cells, starts }, refused)
    }

    fn cells_of(&self, rank: usize) -> &[Cell] {
        &self.cells[self.starts[rank]..self.starts[rank + 1]]
    }

    /// The series of another meter of the same tenant with the same dimensions, in any unit.
    fn partners(&self, of: &Series, meter: &str) -> Range<usize> {
        let key = |s: &Arc<Series>| (s.tenant.as_slice(), s.dims.as_slice(), s.meter.as_str()).cmp(&(&of.tenant, &of.dims, meter));
        let first = self.series.partition_point(|s| key(s).is_lt());
        let count = self.series[first..].iter().take_while(|s| key(s).is_eq()).count();
        first..first + count
    }

    /// What they used in this minute, or the unit that is not `unit`.
    fn used(&self, partners: Range<usize>, unit: &str, minute: i64) -> Result<i128, &str> {
        let mut sum = 0;
        for rank in partners {
            let cells = self.cells_of(rank);
            if let Ok(found) = cells.binary_search_by_key(&minute, |cell| cell.minute) {
                if self.series[rank].unit != unit {
                    return Err(&self.series[rank].unit);
                }
                sum += cells[found].quantity;
            }
        }
        Ok(sum)
    }
}

fn series_of(fact: &UsageFact) -> Series {
    let mut dims = fact.dims.clone();
    dims.sort();
    Series { tenant: fact.tenant.clone(), dims, meter: fact.meter.clone(), unit: fact.unit.clone() }
}

fn refusal(fact: &UsageFact) -> Option<Refusal> {
    match (MINUTES.contains(&fact.minute), fact.quantity.unsigned_abs() <= FACT_QUANTITY_MAX.unsigned_abs()) {
        (false, _) => Some(Refusal::TimeOutOfRange),
        (true, false) => Some(Refusal::TooLarge),
        (true, true) => None,
    }
}

fn refuse_fact(series: &Arc<Series>, fact: &UsageFact, why: Refusal) -> Refused {
    let (from, to) = match why {
        Refusal::TimeOutOfRange => (UnixNanos(0), UnixNanos(0)),
        _ => minute_range(fact.minute),
    };
    Refused { series: series.clone(), from, to, quantity: fact.quantity, events: fact.events, why }
}

fn hour_of(minute: i64) -> UnixNanos {
    UnixNanos(minute.div_euclid(MINUTES_PER_HOUR) * NANOS_PER_HOUR)
}

fn minute_range(minute: i64) -> (UnixNanos, UnixNanos) {
    (UnixNanos(minute * NANOS_PER_MINUTE), UnixNanos((minute + 1) * NANOS_PER_MINUTE))
}

/// A quantity and the records behind it.
#[derive(Clone, Copy, Default)]
struct Sum {
    quantity: i128,
    billable: i128,
    events: u64,
}

impl Sum {
    fn add(&mut self, cell: &Cell, billable: i128) {
        self.quantity += cell.quantity;
        self.billable += billable;
        self.events = self.events.saturating_add(cell.events);
    }
}

/// Rates the cells of one series in one hour. Each version that is valid in it makes a row of its own.
fn rate_hour(card: &Card, table: &Table, rank: usize, hour: UnixNanos, cells: &[Cell], out: &mut Rating) {
    let series = &table.series[rank];
    let mut all = Sum::default();
    cells.iter().for_each(|cell| all.add(cell, 0));
    out.usage.push(Usage { series: series.clone(), hour, quantity: all.quantity, events: all.events });
    let mut rest = cells;
    while let Some(cell) = rest.first() {
        let version = card.version_at(cell.minute);
        let count = rest.partition_point(|other| card.version_at(other.minute) == version);
        let (now, later) = rest.split_at(count);
        rest = later;
        match version.map(|index| &card.versions[index]) {
            None => list_unpriced(series, hour, now, NoPrice::NoVersion, out),
            Some(version) => rate_version(version, table, series, hour, now, out),
        }
    }
}

fn rate_version(version: &Version, table: &Table, series: &Arc<Series>, hour: UnixNanos, cells: &[Cell], out: &mut Rating) {
    let terms = Terms::find(version, table, series);
    let mut sum = Sum::default();
    let mut good = Vec::with_capacity(cells.len());
    for cell in cells {
        match terms.billable(table, series, cell) {
            Ok(billable) => {
                sum.add(cell, billable);
                good.push(*cell);
            }
            Err(why) => {
                let (from, to) = minute_range(cell.minute);
                out.refused.push(Refused { series: series.clone(), from, to, quantity: cell.quantity, events: cell.events, why });
            }
        }
    }
    let Some(price) = terms.price else {
        return list_unpriced(series, hour, &good, NoPrice::NoPrice, out);
    };
    match charge(price, version, series, hour, sum, &out.card) {
        Ok(row) => out.rows.extend(row),
        Err(why) => {
            let to = UnixNanos(hour.0 + NANOS_PER_HOUR);
            out.refused.push(Refused { series: series.clone(), from: hour, to, quantity: sum.quantity, events: sum.events, why });
        }
    }
}

/// What one version says about one series.
struct Terms<'a> {
    price: Option<&'a Price>,
    /// The series that `minus` of the price names.
    part: Option<(&'a str, Range<usize>)>,
    /// The meters of which this one is a part, and their series.
    wholes: Vec<(&'a str, Range<usize>)>,
}

impl<'a> Terms<'a> {
    fn find(version: &'a Version, table: &Table, series: &Series) -> Terms<'a> {
        let price = version.price(&series.meter, &series.dims);
        let part = price.and_then(|p| p.minus.as_deref()).map(|minus| (minus, table.partners(series, minus)));
        let best = version.prices.keys().filter_map(|meter| version.price(meter, &series.dims));
        let wholes = best.filter(|p| p.minus.as_deref() == Some(series.meter.as_str()));
        let wholes = wholes.map(|p| (p.meter.as_str(), table.partners(series, &p.meter))).collect();
        Terms { price, part, wholes }
    }

    /// What of a minute is to be priced, or why none of it can be.
    ///
    /// Rule R10: a part above its whole cannot be right, so neither of them is priced for that minute. A part
    /// without any whole is such a case too: the two meters then have other dimensions, and the whole would be overcharged.
    fn billable(&self, table: &Table, series: &Series, cell: &Cell) -> Result<i128, Refusal> {
        for (meter, ranks) in &self.wholes {
            // A whole in another unit is refused where it stands; here it counts for nothing, so the part is refused too.
            if cell.quantity > table.used(ranks.clone(), &series.unit, cell.minute).unwrap_or(0) {
                return Err(Refusal::PartAboveWhole { whole: meter.to_string(), part: series.meter.clone() });
            }
        }
        let Some(price) = self.price else {
            return Ok(cell.quantity);
        };
        let mismatch = |unit: &str| Refusal::UnitMismatch { sku: price.sku.clone(), unit: unit.to_string() };
        if price.unit != series.unit {
            return Err(mismatch(&price.unit));
        }
        let Some((meter, ranks)) = &self.part else {
            return Ok(cell.quantity);
        };
        let part = table.used(ranks.clone(), &series.unit, cell.minute).map_err(mismatch)?;
        if part > cell.quantity {
            return Err(Refusal::PartAboveWhole { whole: series.meter.clone(), part: meter.to_string() });
        }
        Ok(cell.quantity - part)
    }
}

/// The row, or none for a quantity of zero (rule R17: zero quantity, no row; zero price, a row).
fn charge(
    price: &Price,
    version: &Version,
    series: &Arc<Series>,
    hour: UnixNanos,
    sum: Sum,
    card: &Arc<str>,
) -> Result<Option<Charge>, Refusal> {
    if sum.quantity.unsigned_abs() > QUANTITY_MAX.unsigned_abs() || sum.billable.unsigned_abs() > QUANTITY_MAX.unsigned_abs() {
        return Err(Refusal::TooLarge);
    }
    if sum.billable == 0 {
        return Ok(None);
    }
    let list = cost(sum.billable, price.price, price.per).map_err(|Overflow| Refusal::CostOverflow)?;
    Ok(Some(Charge {
        series: series.clone(),
        hour,
        end: UnixNanos(hour.0 + NANOS_PER_HOUR),
        category: Category::Usage,
        sku: price.sku.clone(),
        version: version.name.clone(),
        card: card.clone(),
        tier: 0,
        commitment: None,
        allocation: None,
        quantity: sum.quantity,
        billable: sum.billable,
        unit: Arc::from(price.unit.as_str()),
        per: price.per,
        scale: (1, 1),
        price: price.price,
        contracted_price: price.price,
        exchange: None,
        list,
        contracted: list,
        effective: list,
        billed: list,
        events: sum.events,
        first_event: Vec::new(),
        last_event: Vec::new(),
    }))
}

/// Lists what has no price; nothing was used of a quantity of zero, so nothing is listed.
fn list_unpriced(series: &Arc<Series>, hour: UnixNanos, cells: &[Cell], why: NoPrice, out: &mut Rating) {
    let mut sum = Sum::default();
    cells.iter().for_each(|cell| sum.add(cell, 0));
    if sum.quantity != 0 {
        out.unpriced.push(Unpriced { series: series.clone(), hour, quantity: sum.quantity, events: sum.events, why });
    }
}
