//! Reports: charges and usage added up by tenant, service, model, meter, SKU, hour, day, month or tag.
//!
//! In: what was charged and used (`Ledger`), perhaps that of an earlier period, and what to group by. Out: rows, their
//! shares of the total, their changes, and the total. Costs are sums of rows that were rounded once; nothing is rounded
//! here, so every grouping has the same total. Quantities are as metered, priced or not; what has no price, no tenant, no
//! user (idle) or is refused stands in rows of its own. Bound: as many rows as there are keys.
//! `render` makes tables, CSV and JSON of a report; `page` an HTML page.

mod render;
#[cfg(test)]
pub(crate) mod tests;

pub use render::{Table, show};

use crate::charge::{Category, Charge, Commitment, Series};
use crate::facts::{Doubt, Quarantined};
use crate::money::{Money, Overflow, multiply_divide};
use crate::rate::{Rating, Refused, Unpriced, Usage};
use crate::zone::Days;
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What to group by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dim {
    Tenant,
    Meter,
    /// Empty: what has no price.
    Sku,
    /// Name of the price version; empty: what has no price.
    Version,
    /// `Usage` or `Purchase`, the fee of a commitment.
    Category,
    /// See [`Status`].
    Status,
    /// UTC hour, as `2026-11-23T03:00:00Z`.
    Hour,
    /// Day, as `2026-11-23`: of UTC, or of a time zone (`Options::days`). Month-long charges belong to their first day.
    Day,
    /// Month, as `2026-11`, of the same days.
    Month,
    /// A dimension of the meters or a tag, as `service` or `model`.
    Field(String),
}

impl Dim {
    /// Names that are ours; any other one is a dimension of the meters.
    pub const NAMES: [&str; 9] = ["tenant", "meter", "sku", "version", "category", "status", "hour", "day", "month"];

    /// Reads a name. `tag:NAME` is always a dimension of the meters, whatever its name.
    pub fn parse(name: &str) -> Dim {
        match name {
            "tenant" => Dim::Tenant,
            "meter" => Dim::Meter,
            "sku" => Dim::Sku,
            "version" => Dim::Version,
            "category" => Dim::Category,
            "status" => Dim::Status,
            "hour" => Dim::Hour,
            "day" => Dim::Day,
            "month" => Dim::Month,
            field => Dim::Field(field.strip_prefix("tag:").unwrap_or(field).to_string()),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Dim::Tenant => "tenant",
            Dim::Meter => "meter",
            Dim::Sku => "sku",
            Dim::Version => "version",
            Dim::Category => "category",
            Dim::Status => "status",
            Dim::Hour => "hour",
            Dim::Day => "day",
            Dim::Month => "month",
            Dim::Field(field) => field,
        }
    }
}

/// How usage stands to the bill; the order is that of a report's rows with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Attributed,
    /// Priced, but nobody could be told to pay (rule R11).
    Unattributed,
    /// The part of a shared cost that nobody used: idle (rule R12).
    Unallocated,
    /// Has no price and costs nothing yet (rule R11).
    Unpriced,
    /// Cannot be right, and costs nothing until somebody looks.
    Quarantined,
}

impl Status {
    pub const ALL: [Status; 5] = [Status::Attributed, Status::Unattributed, Status::Unallocated, Status::Unpriced, Status::Quarantined];

    pub fn name(self) -> &'static str {
        match self {
            Status::Attributed => "attributed",
            Status::Unattributed => "unattributed",
            Status::Unallocated => "unallocated",
            Status::Unpriced => "unpriced",
            Status::Quarantined => "quarantined",
        }
    }

    fn of(charge: &Charge) -> Status {
        match charge.attribution() {
            "unallocated" => Status::Unallocated,
            "unattributed" => Status::Unattributed,
            _ => Status::Attributed,
        }
    }

    fn of_series(series: &Series) -> Status {
        if series.tenant.is_empty() { Status::Unattributed } else { Status::Attributed }
    }
}

/// All that a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'a> {
    pub currency: &'a str,
    pub charges: &'a [Charge],
    /// All usage, priced or not. `None`: only the other lists are known, and quantities are what they say.
    pub usage: Option<&'a [Usage]>,
    pub unpriced: &'a [Unpriced],
    pub refused: &'a [Refused],
    /// Events that are in quarantine by name and in no other list.
    pub held: &'a [Quarantined],
}

impl<'a> From<&'a Rating> for Ledger<'a> {
    fn from(rating: &'a Rating) -> Ledger<'a> {
        Ledger {
            currency: &rating.currency,
            charges: &rating.rows,
            usage: Some(&rating.usage),
            unpriced: &rating.unpriced,
            refused: &rating.refused,
            held: &rating.quarantine,
        }
    }
}

/// Instants [from, to); a charge belongs to the period in which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: UnixNanos,
    pub to: UnixNanos,
}

impl Period {
    fn holds(&self, at: UnixNanos) -> bool {
        self.from <= at && at < self.to
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Key,
    /// The most expensive first; equal costs by key.
    Cost,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub by: Vec<Dim>,
    /// Only what has one of the values given for each dimension named.
    pub only: Vec<(Dim, Vec<u8>)>,
    /// `None`: all there is. What has no time (refused for its time) is in every period.
    pub period: Option<Period>,
    /// Period of the earlier ledger. Its hours, days and months are compared with those as far from the start of `period`.
    pub before: Option<Period>,
    /// Days of a time zone; they must cover both periods. `None`: UTC.
    pub days: Option<Days>,
    /// Gives every status rows of its own.
    pub by_status: bool,
    pub sort: Sort,
    /// How many of the largest changes to name.
    pub movers: usize,
}

/// Sums of one meter in one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantity {
    /// As metered, priced or not.
    pub quantity: i128,
    /// What was priced at the meter's own price, after `minus`.
    pub billable: i128,
    /// What has no price.
    pub unpriced: i128,
    /// What is refused; see `Rating::refused`. Held at the limits of 128 bits: what is refused may be any number.
    pub refused: i128,
    /// Records behind `quantity`.
    pub events: u64,
}

impl Quantity {
    fn add(&mut self, other: &Quantity) -> Result<(), Overflow> {
        self.quantity = self.quantity.checked_add(other.quantity).ok_or(Overflow)?;
        self.billable = self.billable.checked_add(other.billable).ok_or(Overflow)?;
        self.unpriced = self.unpriced.checked_add(other.unpriced).ok_or(Overflow)?;
        self.refused = self.refused.saturating_add(other.refused);
        self.events = self.events.saturating_add(other.events);
        Ok(())
    }
}

/// Hundredths of a percent. Text form: `12.34`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub i128);

impl Percent {
    pub const ALL: Percent = Percent(10_000);

    /// `part` of `whole`, rounded half to even; `None` of nothing, and beyond 128 bits.
    pub fn of(part: Money, whole: Money) -> Option<Percent> {
        let divisor = whole.0.unsigned_abs();
        let (units, rest) = multiply_divide(part.0.unsigned_abs(), 10_000, divisor)?;
        let up = match rest.cmp(&(divisor - rest)) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Greater => 1,
            std::cmp::Ordering::Equal => units & 1,
        };
        let units = i128::try_from(units.checked_add(up)?).ok()?;
        Some(Percent(if (part.0 < 0) == (whole.0 < 0) { units } else { -units }))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        f.pad(&format!("{sign}{}.{:02}", units / 100, units % 100))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The earlier period has no such row.
    New,
    /// Only the earlier period has such a row.
    Gone,
    Changed,
    Same,
}

impl ChangeKind {
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::New => "new",
            ChangeKind::Gone => "gone",
            ChangeKind::Changed => "changed",
            ChangeKind::Same => "same",
        }
    }
}

/// Against the earlier period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub before: Money,
    /// Cost now less cost before.
    pub amount: Money,
    /// `amount` of the size of what it was; `None` if it was nothing.
    pub percent: Option<Percent>,
}

impl Change {
    fn between(before: Option<Money>, now: Option<Money>) -> Result<Change, Overflow> {
        let (old, new) = (before.unwrap_or_default(), now.unwrap_or_default());
        let amount = new.checked_add(Money(-old.0))?; // within 38 digits, so it has an opposite
        let kind = match (before, now) {
            (None, _) => ChangeKind::New,
            (_, None) => ChangeKind::Gone,
            _ if amount == Money::ZERO => ChangeKind::Same,
            _ => ChangeKind::Changed,
        };
        Ok(Change { kind, before: old, amount, percent: Percent::of(amount, Money(old.0.abs())) })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportRow {
    /// One value for each dimension of the report, as bytes; empty where there is none.
    pub key: Vec<Vec<u8>>,
    /// `None` where rows are not told apart by status, and of the total.
    pub status: Option<Status>,
    /// By (meter, unit): tokens in and tokens out are never added up.
    pub quantities: BTreeMap<(String, String), Quantity>,
    /// As billed.
    pub cost: Money,
    pub list: Money,
    pub contracted: Money,
    pub effective: Money,
    /// Of the total cost, by largest remainder: shares add up to exactly 100.00. `None` if the total is 0.
    pub share: Option<Percent>,
    /// `None` without an earlier period.
    pub change: Option<Change>,
}

impl ReportRow {
    fn add(&mut self, charge: &Charge) -> Result<(), Overflow> {
        self.cost = self.cost.checked_add(charge.billed)?;
        self.list = self.list.checked_add(charge.list)?;
        self.contracted = self.contracted.checked_add(charge.contracted)?;
        self.effective = self.effective.checked_add(charge.effective)?;
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub by: Vec<Dim>,
    pub currency: String,
    /// In the order of keys (then of status), or by cost.
    pub rows: Vec<ReportRow>,
    /// Of all rows; its key is empty.
    pub total: ReportRow,
    /// Places in `rows` of the largest changes either way, the largest first.
    pub movers: Vec<usize>,
}

/// Groups a rating. The total is the same for every `by`.
pub fn report(rating: &Rating, by: &[Dim]) -> Result<Report, Overflow> {
    summarize(&rating.into(), None, &Options { by: by.to_vec(), ..Options::default() })
}

/// Groups a ledger, and compares it with an earlier one (which may be the same one, with another period).
pub fn summarize(ledger: &Ledger, before: Option<&Ledger>, options: &Options) -> Result<Report, Overflow> {
    let now = Calendar { days: options.days.as_ref(), moved: Moved::default() };
    let mut groups = group(ledger, options, options.period, &now)?;
    let mut total = total_of(groups.values())?;
    share_out(&mut groups, total.cost);
    total.share = (total.cost != Money::ZERO).then_some(Percent::ALL);
    if let Some(before) = before {
        let calendar = Calendar { days: options.days.as_ref(), moved: Moved::between(options) };
        let earlier = group(before, options, options.before, &calendar)?;
        total.change = Some(Change::between(Some(total_of(earlier.values())?.cost), Some(total.cost))?);
        compare(&mut groups, &earlier)?;
    }
    let mut rows: Vec<ReportRow> = groups.into_values().collect();
    if options.sort == Sort::Cost {
        rows.sort_by_key(|row| Reverse(row.cost)); // stable: equal costs stay in the order of keys
    }
    let movers = movers(&rows, options.movers);
    Ok(Report { by: options.by.clone(), currency: ledger.currency.to_string(), rows, total, movers })
}

type Groups = BTreeMap<(Vec<Vec<u8>>, Option<Status>), ReportRow>;

/// A piece of usage with all by which it can be grouped.
struct Entry<'a> {
    series: &'a Series,
    /// `None`: it has no time.
    hour: Option<UnixNanos>,
    charge: Option<&'a Charge>,
    status: Status,
    quantity: Quantity,
}

fn group(ledger: &Ledger, options: &Options, period: Option<Period>, calendar: &Calendar) -> Result<Groups, Overflow> {
    let mut groups = Groups::new();
    each_entry(ledger, |entry| {
        let is_in_period = entry.hour.is_none_or(|hour| period.is_none_or(|period| period.holds(hour)));
        if !is_in_period || !passes(&options.only, &entry, calendar) {
            return Ok(());
        }
        let key: Vec<Vec<u8>> = options.by.iter().map(|dim| value_of(dim, &entry, calendar)).collect();
        let status = options.by_status.then_some(entry.status);
        let row = groups.entry((key.clone(), status)).or_insert_with(|| ReportRow { key, status, ..ReportRow::default() });
        if entry.quantity != Quantity::default() || entry.charge.is_none() {
            row.quantities.entry((entry.series.meter.clone(), entry.series.unit.clone())).or_default().add(&entry.quantity)?;
        }
        entry.charge.map_or(Ok(()), |charge| row.add(charge))
    })?;
    Ok(groups)
}

/// All usage in pieces: what was charged, what has no price, what is refused, and what is left of it, which was subtracted
/// as a part of something else (`minus`) or is of no quantity. Metered quantities are in exactly one piece each.
fn each_entry<'a>(ledger: &Ledger<'a>, mut take: impl FnMut(Entry<'a>) -> Result<(), Overflow>) -> Result<(), Overflow> {
    let mut left = Left::of(ledger);
    for charge in ledger.charges {
        // A fee and an unused rest were not metered.
        let is_metered = charge.category == Category::Usage && !matches!(charge.commitment, Some(Commitment::Unused(_)));
        let (quantity, events) = if is_metered { left.take(&charge.series, charge.hour, charge.quantity, charge.events) } else { (0, 0) };
        let quantity = Quantity { quantity, events, billable: charge.billable, ..Quantity::default() };
        take(Entry { series: &charge.series, hour: Some(charge.hour), charge: Some(charge), status: Status::of(charge), quantity })?;
    }
    for unpriced in ledger.unpriced {
        let (quantity, events) = left.take(&unpriced.series, unpriced.hour, unpriced.quantity, unpriced.events);
        let quantity = Quantity { quantity, events, unpriced: unpriced.quantity, ..Quantity::default() };
        take(Entry { series: &unpriced.series, hour: Some(unpriced.hour), charge: None, status: Status::Unpriced, quantity })?;
    }
    for refused in ledger.refused {
        let hour = (refused.from != refused.to).then(|| hour_of(refused.from));
        let (quantity, events) = match hour {
            Some(hour) if ledger.usage.is_some() => left.take(&refused.series, hour, refused.quantity, refused.events),
            _ => (0, 0),
        };
        let quantity = Quantity { quantity, events, refused: refused.quantity, ..Quantity::default() };
        take(Entry { series: &refused.series, hour, charge: None, status: Status::Quarantined, quantity })?;
    }
    for held in ledger.held {
        let quantity = Quantity { refused: held.quantity, ..Quantity::default() };
        // A time in the future is not believed: it belongs to every period.
        let hour = (held.why != Doubt::Future).then(|| hour_of(held.at));
        take(Entry { series: &held.series, hour, charge: None, status: Status::Quarantined, quantity })?;
    }
    for usage in ledger.usage.unwrap_or_default() {
        let status = Status::of_series(&usage.series);
        let (quantity, events) = match left.rest(usage) {
            Some(rest) => rest,
            None => continue,
        };
        let quantity = Quantity { quantity, events, ..Quantity::default() };
        take(Entry { series: &usage.series, hour: Some(usage.hour), charge: None, status, quantity })?;
    }
    Ok(())
}

/// What of the usage is in no piece yet, by series and hour.
struct Left<'a> {
    left: Option<HashMap<(&'a Series, UnixNanos), Rest>>,
}

#[derive(Default)]
struct Rest {
    quantity: i128,
    events: u64,
    is_touched: bool,
}

impl<'a> Left<'a> {
    fn of(ledger: &Ledger<'a>) -> Left<'a> {
        let mut left: HashMap<_, Rest> = HashMap::new();
        for usage in ledger.usage.unwrap_or_default() {
            let rest = left.entry((&*usage.series, usage.hour)).or_default();
            rest.quantity = rest.quantity.saturating_add(usage.quantity);
            rest.events = rest.events.saturating_add(usage.events);
        }
        Left { left: ledger.usage.map(|_| left) }
    }

    /// At most what is left: a reversal or a correction bills what was not metered again.
    fn take(&mut self, series: &'a Series, hour: UnixNanos, quantity: i128, events: u64) -> (i128, u64) {
        let Some(left) = &mut self.left else {
            return (quantity, events);
        };
        let Some(rest) = left.get_mut(&(series, hour)) else {
            return (0, 0);
        };
        let quantity = if rest.quantity >= 0 { quantity.clamp(0, rest.quantity) } else { quantity.clamp(rest.quantity, 0) };
        let events = events.min(rest.events);
        rest.quantity -= quantity;
        rest.events -= events;
        rest.is_touched = true;
        (quantity, events)
    }

    /// All that is left, once; `None` if nothing is.
    fn rest(&mut self, usage: &'a Usage) -> Option<(i128, u64)> {
        let rest = self.left.as_mut()?.remove(&(&*usage.series, usage.hour))?;
        let is_nothing = rest.is_touched && rest.quantity == 0 && rest.events == 0;
        (!is_nothing).then_some((rest.quantity, rest.events))
    }
}

fn passes(only: &[(Dim, Vec<u8>)], entry: &Entry, calendar: &Calendar) -> bool {
    only.iter().all(|(dim, _)| {
        let value = value_of(dim, entry, calendar);
        only.iter().any(|(other, wanted)| other == dim && *wanted == value)
    })
}

fn value_of(dim: &Dim, entry: &Entry, calendar: &Calendar) -> Vec<u8> {
    match dim {
        Dim::Tenant => entry.series.tenant.clone(),
        Dim::Meter => entry.series.meter.clone().into_bytes(),
        Dim::Sku => entry.charge.map_or(vec![], |charge| charge.sku.clone().into_bytes()),
        Dim::Version => entry.charge.map_or(vec![], |charge| charge.version.clone().into_bytes()),
        Dim::Category => match entry.charge.map(|charge| charge.category) {
            None | Some(Category::Usage) => b"Usage".to_vec(),
            Some(Category::Purchase) => b"Purchase".to_vec(),
        },
        Dim::Status => entry.status.name().as_bytes().to_vec(),
        Dim::Hour => entry.hour.map_or(vec![], |hour| calendar.hour(hour).into_bytes()),
        Dim::Day => entry.hour.map_or(vec![], |hour| calendar.day(hour).into_bytes()),
        Dim::Month => entry.hour.map_or(vec![], |hour| calendar.month(hour).into_bytes()),
        Dim::Field(name) => entry.series.dim(name).to_vec(),
    }
}

/// Names of hours, days and months; those of an earlier period are moved to the later one.
struct Calendar<'a> {
    days: Option<&'a Days>,
    moved: Moved,
}

/// How far the later period is from the earlier one.
#[derive(Default)]
struct Moved {
    nanos: i64,
    /// Of `Options::days`.
    days: i64,
    months: i64,
}

impl Moved {
    fn between(options: &Options) -> Moved {
        let (Some(now), Some(before)) = (options.period, options.before) else {
            return Moved::default();
        };
        let day = |at: UnixNanos| options.days.as_ref().and_then(|days| days.index(at)).map_or(0, |index| index as i64);
        let base = Calendar { days: options.days.as_ref(), moved: Moved::default() };
        let month = |at: UnixNanos| month_number(&base.month(at)).unwrap_or(0);
        Moved {
            nanos: now.from.0.saturating_sub(before.from.0),
            days: day(now.from) - day(before.from),
            months: month(now.from) - month(before.from),
        }
    }
}

/// What no day of the time zone holds.
const OUTSIDE: &str = "outside";

impl Calendar<'_> {
    fn hour(&self, hour: UnixNanos) -> String {
        self.move_by_time(hour).rfc3339()
    }

    fn day(&self, hour: UnixNanos) -> String {
        match self.days {
            None => self.move_by_time(hour).day(),
            Some(days) => {
                let index = days.index(hour).and_then(|index| usize::try_from(index as i64 + self.moved.days).ok());
                index.and_then(|index| days.name(index)).unwrap_or(OUTSIDE).to_string()
            }
        }
    }

    fn month(&self, hour: UnixNanos) -> String {
        let name = match self.days {
            None => hour.day(),
            Some(days) => match days.index(hour).and_then(|index| days.name(index)) {
                Some(name) => name.to_string(),
                None => return OUTSIDE.to_string(),
            },
        };
        match month_number(&name) {
            Some(number) => {
                let moved = number + self.moved.months;
                format!("{:04}-{:02}", moved.div_euclid(12), moved.rem_euclid(12) + 1)
            }
            None => name[..7].to_string(),
        }
    }

    fn move_by_time(&self, hour: UnixNanos) -> UnixNanos {
        UnixNanos(hour.0.saturating_add(self.moved.nanos))
    }
}

/// Months since year 0 of a name such as `2026-03-29`.
fn month_number(day: &str) -> Option<i64> {
    let (year, rest) = day.split_once('-')?;
    let month: i64 = rest.get(..2)?.parse().ok()?;
    let year: i64 = year.parse().ok().filter(|year| (0..10_000).contains(year))?;
    (1..=12).contains(&month).then_some(year * 12 + month - 1)
}

pub(crate) fn hour_of(time: UnixNanos) -> UnixNanos {
    UnixNanos(time.0.saturating_sub(time.0.rem_euclid(NANOS_PER_HOUR)))
}

fn total_of<'a>(rows: impl Iterator<Item = &'a ReportRow>) -> Result<ReportRow, Overflow> {
    let mut total = ReportRow::default();
    for row in rows {
        total.cost = total.cost.checked_add(row.cost)?;
        total.list = total.list.checked_add(row.list)?;
        total.contracted = total.contracted.checked_add(row.contracted)?;
        total.effective = total.effective.checked_add(row.effective)?;
        for (meter, quantity) in &row.quantities {
            total.quantities.entry(meter.clone()).or_default().add(quantity)?;
        }
    }
    Ok(total)
}

/// Hundredths of a percent by largest remainder; equal remainders go to the earlier key. Shares may be below 0 or above
/// 100 where costs have both signs; none is given if one is beyond 128 bits.
fn share_out(groups: &mut Groups, total: Money) {
    let floors: Option<Vec<(i128, u128)>> = groups.values().map(|row| share_floor(row.cost, total)).collect();
    let Some(floors) = floors else { return };
    let Some(sum) = floors.iter().try_fold(0i128, |sum, floor| sum.checked_add(floor.0)) else { return };
    let mut order: Vec<usize> = (0..floors.len()).collect();
    order.sort_by_key(|index| Reverse(floors[*index].1));
    // The exact shares add up to 10,000 and each is less than 1 above its floor: fewer are left than there are rows.
    let left = usize::try_from(Percent::ALL.0 - sum).unwrap_or(0);
    let mut shares: Vec<i128> = floors.iter().map(|floor| floor.0).collect();
    order.iter().take(left).for_each(|index| shares[*index] += 1);
    groups.values_mut().zip(shares).for_each(|(row, share)| row.share = Some(Percent(share)));
}

/// `part` of `whole` in hundredths of a percent: rounded down, and the rest in units of `whole`.
fn share_floor(part: Money, whole: Money) -> Option<(i128, u128)> {
    let divisor = whole.0.unsigned_abs();
    let (units, rest) = multiply_divide(part.0.unsigned_abs(), Percent::ALL.0.unsigned_abs(), divisor)?;
    let units = i128::try_from(units).ok()?;
    match ((part.0 < 0) == (whole.0 < 0), rest) {
        (true, _) => Some((units, rest)),
        (false, 0) => Some((-units, 0)),
        (false, _) => Some((-units - 1, divisor - rest)),
    }
}

fn compare(groups: &mut Groups, earlier: &Groups) -> Result<(), Overflow> {
    for (key, row) in groups.iter_mut() {
        row.change = Some(Change::between(earlier.get(key).map(|old| old.cost), Some(row.cost))?);
    }
    for (key, old) in earlier {
        if !groups.contains_key(key) {
            let change = Some(Change::between(Some(old.cost), None)?);
            let share = groups.values().next().and_then(|row| row.share).map(|_| Percent::default());
            let row = ReportRow { key: key.0.clone(), status: key.1, change, share, ..ReportRow::default() };
            groups.insert(key.clone(), row);
        }
    }
    Ok(())
}

fn movers(rows: &[ReportRow], count: usize) -> Vec<usize> {
    let size = |index: &usize| rows[*index].change.map_or(0, |change| change.amount.0.unsigned_abs());
    let mut places: Vec<usize> = (0..rows.len()).filter(|index| size(index) > 0).collect();
    places.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| (&rows[*a].key, rows[*a].status).cmp(&(&rows[*b].key, rows[*b].status))));
    places.truncate(count);
    places
}
