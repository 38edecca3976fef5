//! All usage of a time, taken in one fact at a time and kept small.
//!
//! In: facts in any order, any number of times. Sums are added up by (series, minute) at once. Events keep a name of their own:
//! `facts::events` holds them packed, finds copies by (meter, key) and tells a copy from a conflict (rule R7); that is
//! done when somebody rates them, so that neither order nor batching can show. What cannot be usage goes to quarantine with
//! its position. Bound: memory is linear in the sums' (series, minute) pairs and in the events: with a key of 24 bytes about
//! 68 bytes for an event that comes alone, and 42 on average where records bring three that come together.

pub mod cells;
pub mod events;
pub mod marks;

use crate::charge::Series;
use crate::unit;
use cells::{Cell, Cells, Minutes};
use events::{Event, Events, Secret};
use flow::event::{EventKind, StreamId, UsageFact};
use flow::units::{NANOS_PER_DAY, NANOS_PER_MINUTE, Span, UnixNanos};
use marks::Marks;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Quantity of one sum or point: 2^31 of them cannot overflow a sum in 128 bits.
pub const QUANTITY_MAX: u128 = 1 << 96;
/// Quantity of an interval or a sample; times the milliseconds of 400 days it is below `QUANTITY_MAX` times 2.
pub const HELD_MAX: u128 = 1 << 62;
/// A longer interval is a mistake of its source; work is linear in its hours.
pub const INTERVAL_MAX: Span = Span(400 * NANOS_PER_DAY);
/// Minutes whose whole hour fits `UnixNanos`.
const MINUTES: Range<i64> = -153_000_000..153_000_000;

/// A fact, borrowed: see `UsageFact` for the meaning of each field.
#[derive(Clone, Copy, Debug)]
pub struct FactRef<'a> {
    pub tenant: &'a [u8],
    pub meter: &'a str,
    pub unit: &'a str,
    /// In any order.
    pub dims: &'a [(&'a str, &'a [u8])],
    pub minute: i64,
    pub quantity: i128,
    pub events: u64,
    pub stream: StreamId,
    pub received: UnixNanos,
    pub event: Option<EventRef<'a>>,
}

/// What is known of a fact that is one event: see `UsageEvent`.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    pub kind: EventKind,
    pub at: UnixNanos,
    pub end: UnixNanos,
    pub key: &'a [u8],
    pub position: u64,
}

/// An event that is not billed, and why; with the place of its record, so that somebody can look at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quarantined {
    pub at: UnixNanos,
    pub end: UnixNanos,
    pub series: Arc<Series>,
    pub why: Doubt,
    pub quantity: i128,
    /// Its key; of `BadQuantity` the text that is no quantity.
    pub key: Vec<u8>,
    pub stream: StreamId,
    pub position: u64,
    pub received: UnixNanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// Its key came before with other content (rule R7).
    Conflict,
    /// An interval that does not end after it begins, or lasts more than 400 days.
    BadInterval,
    /// No quantity, as the meter saw it.
    BadQuantity,
    /// More than 5 minutes ahead of its receipt (rule R13).
    Future,
    /// A part above its whole in one record (rule R10).
    PartAboveWhole,
}

impl Doubt {
    pub fn name(self) -> &'static str {
        match self {
            Doubt::Conflict => "conflict",
            Doubt::BadInterval => "bad_interval",
            Doubt::BadQuantity => "bad_quantity",
            Doubt::Future => "future",
            Doubt::PartAboveWhole => "part_above_whole",
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
    /// The meter's unit does not measure what the price's unit measures (or is not that of the part that `minus` names).
    UnitMismatch { sku: String, unit: String },
    /// The part that `minus` names is larger than the whole (rule R10). Both are refused for that minute.
    PartAboveWhole { whole: String, part: String },
    /// A quantity needs more than 64 bits.
    TooLarge,
    /// The cost needs more than 38 digits.
    CostOverflow,
    /// The minute is not within the years 1679 to 2260.
    TimeOutOfRange,
    /// Tiers and commitments count what was used in a month; nobody can use less than nothing of them.
    Negative { sku: String },
}

impl Refusal {
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::UnitMismatch { .. } => "unit_mismatch",
            Refusal::PartAboveWhole { .. } => "part_above_whole",
            Refusal::TooLarge => "too_large",
            Refusal::CostOverflow => "cost_overflow",
            Refusal::TimeOutOfRange => "time_out_of_range",
            Refusal::Negative { .. } => "negative",
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
            Refusal::Negative { sku } => write!(f, "is negative, and {sku} has tiers or a commitment"),
        }
    }
}

/// Collects facts; see the head of the file.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Series by the names of a fact, packed; several may mean one series, as dimensions have no order.
    names: HashMap<Vec<u8>, u32, Secret>,
    numbers: HashMap<Arc<Series>, u32>,
    pub(crate) series: Vec<Arc<Series>>,
    /// Sums, and points as though each counted.
    pub(crate) minutes: Minutes,
    /// Sums that are too large for `minutes`, or of no event.
    pub(crate) sums: Cells,
    pub(crate) events: Events,
    pub(crate) marks: Marks,
    pub(crate) refused: Vec<Refused>,
    pub(crate) quarantine: Vec<Quarantined>,
    scratch: Vec<u8>,
}

impl Facts {
    /// `window`: an event with the key of one that was received at most so long before it is a copy (`Card::dedup_window`).
    pub fn new(window: Span) -> Facts {
        Facts {
            names: HashMap::default(),
            numbers: HashMap::new(),
            series: Vec::new(),
            minutes: Minutes::default(),
            sums: Cells::default(),
            events: Events::new(window),
            marks: Marks::default(),
            refused: Vec::new(),
            quarantine: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub fn add(&mut self, fact: &UsageFact) {
        let event = fact.event.as_deref().map(|e| EventRef { kind: e.kind, at: e.at, end: e.end, key: &e.key, position: e.position });
        let dims = fact.dims.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let head = FactRef {
            tenant: &fact.tenant,
            meter: &fact.meter,
            unit: &fact.unit,
            dims: &[],
            minute: fact.minute,
            quantity: fact.quantity,
            events: fact.events,
            stream: fact.stream,
            received: fact.received,
            event,
        };
        self.take(&head, dims);
    }

    pub fn add_ref(&mut self, fact: FactRef<'_>) {
        self.take(&fact, fact.dims.iter().copied());
    }

    fn take<'a>(&mut self, fact: &FactRef<'_>, dims: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) {
        let is_held = fact.event.is_some_and(|event| matches!(event.kind, EventKind::Interval | EventKind::Sample));
        let series = self.number(fact, dims, is_held);
        let Some(event) = fact.event else {
            return match refusal(fact.minute, fact.quantity, QUANTITY_MAX) {
                Some(why) => self.refuse(series, fact, fact.minute, why),
                None => self.add_sum(series, fact.minute, fact.quantity, fact.events),
            };
        };
        if let Some(why) = doubt(&event) {
            return self.doubt(series, fact, &event, why);
        }
        let max = if is_held { HELD_MAX } else { QUANTITY_MAX };
        if let Some(why) = refusal(event.at.minute(), fact.quantity, max).or(refusal(event.end.minute(), 0, max)) {
            return self.refuse(series, fact, event.at.minute(), why);
        }
        if event.kind == EventKind::Point && event.key.is_empty() {
            return self.add_sum(series, event.at.minute(), fact.quantity, fact.events);
        }
        let packed = Event {
            series,
            kind: event.kind,
            quantity: fact.quantity,
            at: event.at.0,
            end: if event.kind == EventKind::Interval { event.end.0 } else { event.at.0 },
            received: fact.received.0,
            stream: fact.stream.0,
            position: event.position,
        };
        let place = self.events.add(&packed, event.key);
        if event.kind != EventKind::Interval && !event.key.is_empty() {
            self.marks.add(series, event.at.0, event.key, place, &self.events);
        }
        if packed.is_added_up() {
            self.minutes.add(series, event.at.minute(), packed.quantity as i64, 1);
        }
    }

    /// What is of no event has no place in `minutes`: there, no events means that all were taken out again.
    fn add_sum(&mut self, series: u32, minute: i64, quantity: i128, events: u64) {
        match (i64::try_from(quantity), i32::try_from(events)) {
            (Ok(quantity), Ok(events)) if events > 0 => self.minutes.add(series, minute, quantity, events),
            _ => self.sums.add(series, minute, quantity, events),
        }
    }

    /// The number of a fact's series; numbers say nothing of order.
    fn number<'a>(&mut self, fact: &FactRef<'_>, dims: impl Iterator<Item = (&'a str, &'a [u8])> + Clone, is_held: bool) -> u32 {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.push(u8::from(is_held));
        for part in
            [fact.tenant, fact.meter.as_bytes(), fact.unit.as_bytes()].into_iter().chain(dims.clone().flat_map(|(n, v)| [n.as_bytes(), v]))
        {
            scratch.extend_from_slice(&(part.len() as u64).to_le_bytes()[..4]);
            scratch.extend_from_slice(part);
        }
        let known = self.names.get(scratch.as_slice()).copied();
        let number = known.unwrap_or_else(|| {
            let mut sorted: Vec<(String, Vec<u8>)> = dims.map(|(name, value)| (name.to_string(), value.to_vec())).collect();
            sorted.sort();
            let unit = if is_held { unit::over_time(fact.unit).into_owned() } else { fact.unit.to_string() };
            let series = Arc::new(Series { tenant: fact.tenant.to_vec(), dims: sorted, meter: fact.meter.to_string(), unit });
            let number = *self.numbers.entry(series.clone()).or_insert_with(|| {
                self.events.add_series(&series.meter);
                self.series.push(series);
                (self.series.len() - 1) as u32
            });
            self.names.insert(scratch.clone(), number);
            number
        });
        self.scratch = scratch;
        number
    }

    fn refuse(&mut self, series: u32, fact: &FactRef<'_>, minute: i64, why: Refusal) {
        let (from, to) = match why {
            Refusal::TimeOutOfRange => (UnixNanos(0), UnixNanos(0)),
            _ => minute_range(minute),
        };
        let series = self.series[series as usize].clone();
        self.refused.push(Refused { series, from, to, quantity: fact.quantity, events: fact.events, why });
    }

    fn doubt(&mut self, series: u32, fact: &FactRef<'_>, event: &EventRef<'_>, why: Doubt) {
        self.quarantine.push(Quarantined {
            at: event.at,
            end: event.end,
            series: self.series[series as usize].clone(),
            why,
            quantity: fact.quantity,
            key: event.key.to_vec(),
            stream: fact.stream,
            position: event.position,
            received: fact.received,
        });
    }

    /// Bytes that sums and events take.
    pub fn memory_bytes(&self) -> usize {
        let sums = self.minutes.memory_bytes() + self.sums.len() * size_of::<Cell>();
        self.events.memory_bytes() + self.marks.memory_bytes() + sums
    }
}

fn refusal(minute: i64, quantity: i128, max: u128) -> Option<Refusal> {
    match (MINUTES.contains(&minute), quantity.unsigned_abs() <= max) {
        (false, _) => Some(Refusal::TimeOutOfRange),
        (true, false) => Some(Refusal::TooLarge),
        (true, true) => None,
    }
}

fn doubt(event: &EventRef<'_>) -> Option<Doubt> {
    match event.kind {
        EventKind::BadQuantity => Some(Doubt::BadQuantity),
        EventKind::Future => Some(Doubt::Future),
        EventKind::PartAboveWhole => Some(Doubt::PartAboveWhole),
        EventKind::Interval => {
            let length = i128::from(event.end.0) - i128::from(event.at.0);
            (length <= 0 || length > i128::from(INTERVAL_MAX.0)).then_some(Doubt::BadInterval)
        }
        EventKind::Point | EventKind::Sample => None,
    }
}

pub(crate) fn minute_range(minute: i64) -> (UnixNanos, UnixNanos) {
    (UnixNanos(minute * NANOS_PER_MINUTE), UnixNanos((minute + 1) * NANOS_PER_MINUTE))
}
