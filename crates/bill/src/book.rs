//! The book of charges: what was published, and the rows that must follow so that it says what the facts say.
//!
//! In: events in the order in which they were committed, with their rows; a rating of all facts; the time of the
//! publication, as an argument. Out: rows to add. Nothing in the book is ever changed: more usage in an open period is a
//! *delta row* (same charge period, next revision), in a closed one a *correction* (rule R8), and what an operator takes
//! back is a row of its own (case P9), which no later rating undoes. A row is named by what it is about, so the same
//! facts give the same rows whatever their order. Bound: memory is linear in the rows published.

use crate::charge::{Category, Charge, Commitment};
use crate::money::{self, Money, Overflow};
use crate::rate::Rating;
use flow::units::{NANOS_PER_DAY, NANOS_PER_HOUR, UnixNanos, days_from_civil};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

/// A window is published when it is over for so long (rule R8).
pub const PUBLISH_AFTER_NS: i64 = 2 * NANOS_PER_HOUR;
/// A period is final when it is over for so long: day 3 of the next month, 00:00 UTC (rule R8).
pub const FINAL_AFTER_NS: i64 = 2 * NANOS_PER_DAY;

/// A UTC month, by its first instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(UnixNanos);

impl Month {
    pub fn of(time: UnixNanos) -> Month {
        let civil = time.civil();
        Month(UnixNanos(days_from_civil(civil.year, civil.month, 1).saturating_mul(NANOS_PER_DAY)))
    }

    /// Reads `2026-10`.
    pub fn parse(text: &str) -> Option<Month> {
        let (year, month) = text.split_once('-')?;
        let is_digits = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(year, 4) || !is_digits(month, 2) {
            return None;
        }
        let (year, month): (i32, u32) = (year.parse().ok()?, month.parse().ok()?);
        ((1970..=2261).contains(&year) && (1..=12).contains(&month))
            .then(|| Month(UnixNanos(days_from_civil(year, month, 1) * NANOS_PER_DAY)))
    }

    pub fn start(self) -> UnixNanos {
        self.0
    }

    /// The first instant of the next month.
    pub fn end(self) -> UnixNanos {
        let civil = self.0.civil();
        let (year, month) = if civil.month == 12 { (civil.year + 1, 1) } else { (civil.year, civil.month + 1) };
        UnixNanos(days_from_civil(year, month, 1).saturating_mul(NANOS_PER_DAY))
    }

    pub fn next(self) -> Month {
        Month(self.end())
    }

    /// From then on nothing of it changes but by corrections.
    pub fn final_at(self) -> UnixNanos {
        UnixNanos(self.end().0.saturating_add(FINAL_AFTER_NS))
    }

    /// `2026-10`.
    pub fn name(self) -> String {
        let civil = self.0.civil();
        format!("{:04}-{:02}", civil.year, civil.month)
    }
}

/// One published row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub charge: Charge,
    /// 1 for the first publication of a window, then one more for each that changed it.
    pub revision: u32,
    /// Its charge period was closed before: FOCUS ChargeClass `Correction`.
    pub is_correction: bool,
    /// The period whose invoice it is on.
    pub period: Month,
    /// When it was published, as the operator or the running process said; `None`: not published yet.
    pub published: Option<UnixNanos>,
    /// An operator took units of another row back.
    pub reversal: Option<Reversal>,
}

/// Which row was taken back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reversal {
    /// Name of the row.
    pub of: String,
    pub reason: String,
}

impl Row {
    /// The row's name for ever, 24 hex digits: what it is about, its revision, and how it came into the book.
    pub fn id(&self) -> String {
        let kind = match (&self.reversal, self.is_correction) {
            (Some(reversal), _) => format!("reversal of {} {}", reversal.of, reversal.reason),
            (None, true) => format!("correction in {}", self.period.name()),
            (None, false) => String::new(),
        };
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        Key::of(&self.charge).each(&mut put);
        put(&self.revision.to_le_bytes());
        put(kind.as_bytes());
        hash.finalize().iter().take(12).fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes every write");
            hex
        })
    }
}

/// What a line of the bill is about: rows with equal keys add up to one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    series: std::sync::Arc<crate::charge::Series>,
    hour: UnixNanos,
    end: UnixNanos,
    category: Category,
    sku: String,
    version: String,
    tier: u32,
    commitment: Option<Commitment>,
    /// Method and origin of a part, and whether it is idle.
    allocation: Option<(std::sync::Arc<str>, std::sync::Arc<str>, bool)>,
}

impl Key {
    fn of(charge: &Charge) -> Key {
        Key {
            series: charge.series.clone(),
            hour: charge.hour,
            end: charge.end,
            category: charge.category,
            sku: charge.sku.clone(),
            version: charge.version.clone(),
            tier: charge.tier,
            commitment: charge.commitment.clone(),
            allocation: charge.allocation.as_ref().map(|part| (part.method.clone(), part.origin.clone(), part.is_idle)),
        }
    }

    /// All that it says, piece by piece, for the name of a row: never change the order.
    fn each(&self, put: &mut impl FnMut(&[u8])) {
        put(&self.series.tenant);
        put(self.series.meter.as_bytes());
        put(self.series.unit.as_bytes());
        put(&(self.series.dims.len() as u64).to_le_bytes());
        for (name, value) in &self.series.dims {
            put(name.as_bytes());
            put(value);
        }
        put(&self.hour.0.to_le_bytes());
        put(&self.end.0.to_le_bytes());
        put(self.category.name().as_bytes());
        put(self.sku.as_bytes());
        put(self.version.as_bytes());
        put(&self.tier.to_le_bytes());
        let (status, id) = self.commitment.as_ref().map_or(("", ""), |commitment| (commitment.status(), commitment.id()));
        put(status.as_bytes());
        put(id.as_bytes());
        if let Some((method, origin, is_idle)) = &self.allocation {
            put(method.as_bytes());
            put(origin.as_bytes());
            put(&[u8::from(*is_idle)]);
        }
    }
}

/// What is published of a key.
#[derive(Clone, Debug)]
struct Line {
    /// The last row of it.
    last: Charge,
    sums: Sums,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    quantity: i128,
    billable: i128,
    list: Money,
    contracted: Money,
    effective: Money,
    billed: Money,
    events: i128,
}

impl Sums {
    fn of(charge: &Charge) -> Sums {
        Sums {
            quantity: charge.quantity,
            billable: charge.billable,
            list: charge.list,
            contracted: charge.contracted,
            effective: charge.effective,
            billed: charge.billed,
            events: i128::from(charge.events),
        }
    }

    fn combine(self, other: Sums, sign: i128) -> Result<Sums, Overflow> {
        let number = |a: i128, b: i128| b.checked_mul(sign).and_then(|b| a.checked_add(b)).ok_or(Overflow);
        let money = |a: Money, b: Money| a.checked_add(Money(sign * b.0));
        Ok(Sums {
            quantity: number(self.quantity, other.quantity)?,
            billable: number(self.billable, other.billable)?,
            list: money(self.list, other.list)?,
            contracted: money(self.contracted, other.contracted)?,
            effective: money(self.effective, other.effective)?,
            billed: money(self.billed, other.billed)?,
            events: number(self.events, other.events)?,
        })
    }

    /// Nothing to add to a bill. Events do not count: those that went away are in no row.
    fn is_nothing(self) -> bool {
        Sums { events: 0, ..self } == Sums::default()
    }

    /// The charge with these amounts. Events that went away cannot be told by a count: it stays at 0.
    fn put(self, charge: &Charge) -> Charge {
        Charge {
            quantity: self.quantity,
            billable: self.billable,
            list: self.list,
            contracted: self.contracted,
            effective: self.effective,
            billed: self.billed,
            events: u64::try_from(self.events).unwrap_or(0),
            ..charge.clone()
        }
    }
}

/// What was published so far.
#[derive(Clone, Debug, Default)]
pub struct Book {
    lines: BTreeMap<Key, Line>,
    /// How often each charge period was published or changed.
    windows: BTreeMap<UnixNanos, u32>,
    closed: BTreeSet<Month>,
    /// Windows that ended by then were published at least once.
    pub published_until: Option<UnixNanos>,
}

impl Book {
    /// Takes over rows that were committed, in the order of their commits.
    pub fn add(&mut self, rows: &[Row]) -> Result<(), Overflow> {
        for row in rows {
            let revision = self.windows.entry(row.charge.hour).or_default();
            *revision = (*revision).max(row.revision);
            if row.reversal.is_some() {
                continue; // what was taken back stays so: a rating knows nothing of it
            }
            let sums = Sums::of(&row.charge);
            match self.lines.entry(Key::of(&row.charge)) {
                std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(Line { last: row.charge.clone(), sums })),
                std::collections::btree_map::Entry::Occupied(mut line) => {
                    let line = line.get_mut();
                    line.sums = line.sums.combine(sums, 1)?;
                    line.last = row.charge.clone();
                }
            }
        }
        Ok(())
    }

    /// Windows up to `until` were published, whether they had rows or not.
    pub fn publish(&mut self, until: UnixNanos) {
        self.published_until = self.published_until.max(Some(until));
    }

    pub fn close(&mut self, month: Month) {
        self.closed.insert(month);
    }

    pub fn is_closed(&self, month: Month) -> bool {
        self.closed.contains(&month)
    }

    pub fn closed(&self) -> impl Iterator<Item = Month> + '_ {
        self.closed.iter().copied()
    }

    /// The rows that make the book say what `rating` says, as of `at`. `Scope::Published`: only of charge periods that are
    /// over for [`PUBLISH_AFTER_NS`]; `Scope::All`: of all, as a report shows them.
    ///
    /// `range`: only charge periods that begin in it, as the rating knows no others; `None`: all. In the order of what the rows
    /// are about. `published` of each is empty: the caller sets it when it commits them.
    pub fn settle(&self, rating: &Rating, at: UnixNanos, scope: Scope, range: Option<&Range<UnixNanos>>) -> Result<Vec<Row>, Overflow> {
        let covers = |charge: &Charge| scope.covers(charge, at) && range.is_none_or(|range| range.contains(&charge.hour));
        let mut wanted: BTreeMap<Key, (&Charge, Sums)> = BTreeMap::new();
        for charge in rating.rows.iter().filter(|charge| covers(charge)) {
            let sums = Sums::of(charge);
            match wanted.entry(Key::of(charge)) {
                std::collections::btree_map::Entry::Vacant(free) => drop(free.insert((charge, sums))),
                std::collections::btree_map::Entry::Occupied(mut line) => {
                    let so_far = line.get().1;
                    line.get_mut().1 = so_far.combine(sums, 1)?;
                }
            }
        }
        let mut rows = Vec::new();
        for (key, (charge, sums)) in &wanted {
            let has = self.lines.get(key).map(|line| line.sums).unwrap_or_default();
            let more = sums.combine(has, -1)?;
            if !more.is_nothing() || !self.lines.contains_key(key) {
                rows.push(self.row(more.put(charge), at));
            }
        }
        // What was published and is rated no more: its facts turned out to be copies, or a price was put right.
        for (key, line) in &self.lines {
            if !wanted.contains_key(key) && !line.sums.is_nothing() && covers(&line.last) {
                let gone = Sums::default().combine(line.sums, -1)?;
                rows.push(self.row(gone.put(&line.last), at));
            }
        }
        rows.sort_by(|a, b| (Key::of(&a.charge), a.revision).cmp(&(Key::of(&b.charge), b.revision)));
        Ok(rows)
    }

    /// What an operator takes back of a published row: `billable` units of it at the prices of that row (case P9).
    ///
    /// Amounts are the row's own share: all of it where all is taken back, so that row and reversal add up to nothing.
    pub fn reverse(&self, row: &Row, billable: i128, reason: &str, at: UnixNanos) -> Result<Row, ReverseError> {
        let whole = row.charge.billable;
        if row.reversal.is_some() {
            return Err(ReverseError::IsReversal);
        }
        if billable <= 0 || whole <= 0 || billable > whole {
            return Err(ReverseError::Quantity { whole });
        }
        let share = |amount: Money| money::share(amount, billable.unsigned_abs(), whole.unsigned_abs()).map(|m| Money(-m.0));
        let charge = &row.charge;
        let sums = Sums {
            quantity: -billable,
            billable: -billable,
            list: share(charge.list)?,
            contracted: share(charge.contracted)?,
            effective: share(charge.effective)?,
            billed: share(charge.billed)?,
            events: 0,
        };
        let mut reversal = self.row(sums.put(charge), at);
        reversal.reversal = Some(Reversal { of: row.id(), reason: reason.to_owned() });
        Ok(reversal)
    }

    fn row(&self, charge: Charge, at: UnixNanos) -> Row {
        let own = Month::of(charge.hour);
        let is_correction = self.is_closed(own);
        let mut period = if is_correction { own.max(Month::of(at)) } else { own };
        while self.is_closed(period) {
            period = period.next();
        }
        let window_end = charge.end;
        let was_published = self.published_until.is_some_and(|until| window_end <= until);
        let seen = self.windows.get(&charge.hour).copied().unwrap_or(0).max(u32::from(was_published));
        Row { charge, revision: seen + 1, is_correction, period, published: None, reversal: None }
    }
}

/// Which charge periods a settlement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that are over for [`PUBLISH_AFTER_NS`].
    Due,
    /// Those, and all that begin before this instant: a period that is closed by hand.
    Before(UnixNanos),
    All,
}

impl Scope {
    fn covers(self, charge: &Charge, at: UnixNanos) -> bool {
        // The fee of a month is due when the month has begun.
        let over = if charge.category == Category::Purchase { charge.hour } else { charge.end };
        match self {
            Scope::Due => over.0.saturating_add(PUBLISH_AFTER_NS) <= at.0,
            Scope::Before(end) => charge.hour < end || over.0.saturating_add(PUBLISH_AFTER_NS) <= at.0,
            Scope::All => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReverseError {
    /// A reversal cannot be reversed: publish the usage anew.
    IsReversal,
    /// At least 1 and at most what the row has.
    Quantity {
        whole: i128,
    },
    Overflow,
}

impl From<Overflow> for ReverseError {
    fn from(_: Overflow) -> ReverseError {
        ReverseError::Overflow
    }
}

impl std::fmt::Display for ReverseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReverseError::IsReversal => f.write_str("the row is a reversal itself; only usage can be taken back"),
            ReverseError::Quantity { whole } => write!(f, "from 1 to {whole} units of this row can be taken back"),
            ReverseError::Overflow => Overflow.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
