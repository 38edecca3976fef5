//! Meters: what each tenant used, as integers, from records that were kept or dropped for volume only.
//!
//! Reads verdicts, tenants, times and the spans of the metered fields; changes nothing but notes. A meter
//! keeps no windows: it adds up per (tenant, dimensions, minute of event time) until the frame is closed and
//! hands the sums out as facts. It counts where it is told to, whatever stands before or after it: a record
//! that a sampler or a quota dropped costs what it cost. What has a key, lasts or is a level is not added up: it is one fact per
//! record (`events`); so is what must not be counted: no quantity, or of a time more than 5 minutes ahead of its receipt. Memory: one
//! entry per distinct (tenant, dimensions, minute) of a frame, and one per event; a frame closes at [`SUMS_MAX`] entries.

mod events;

pub use events::{
    AHEAD_NS_MAX, ClosedEvent, DurationUnit, Events, INTERVAL_NS_MAX, KEY_BYTES_MAX, KEY_HEAD_BYTES, KEY_SEPARATOR, REFUSED_MAX,
    TEXT_BYTES_MAX, Times,
};

use crate::batch::Batch;
use crate::condition::Condition;
use crate::event::{EventKind, Note, Outcome, ReasonClass};
use crate::fields::{Kind, Span};
use crate::units::UnixNanos;
use crate::word;
use events::{Buffer, Refusal};
use hashbrown::HashTable;
use std::borrow::Cow;

/// Entries after which a frame is closed early: 64 Ki entries of about 150 bytes are 10 MiB.
pub const SUMS_MAX: usize = 1 << 16;

/// Most bytes of one dimension's value; the rest is cut, as no service has such a name.
const DIM_BYTES_MAX: usize = 256;

/// Meters that share their dimensions and condition: their records are grouped once.
#[derive(Debug)]
pub struct Group {
    pub dims: Vec<(String, usize)>,
    pub when: Option<Condition>,
    /// The condition as it was written: meters that say the same share a group.
    pub when_text: Option<String>,
    /// `None`: quantities are added up by minute.
    pub events: Option<Events>,
    pub meters: Vec<Meter>,
}

#[derive(Debug)]
pub struct Meter {
    pub name: String,
    pub unit: String,
    /// Field that holds the quantity; `None` counts records.
    pub quantity: Option<usize>,
    /// Fields whose quantity must not exceed this one's (cached input is part of input, rule R10).
    pub parts: Vec<usize>,
    /// Fields whose quantity this one must not exceed.
    pub wholes: Vec<usize>,
    /// Sightings for lineage, not items of a bill.
    pub lineage: bool,
}

#[derive(Debug, Default)]
pub struct Meters {
    pub groups: Vec<Group>,
    /// Bit per field that a meter reads: such a key must not occur twice.
    pub fields: u64,
}

/// One lane's sums since its frame began its present part.
#[derive(Default)]
pub struct Sums {
    table: HashTable<u32>,
    rows: Vec<Sum>,
    /// Dimension values of all rows, one after the other.
    keys: Vec<u8>,
    /// Quantities, one per meter of the row's group.
    quantities: Vec<Quantity>,
    mask: Vec<bool>,
    events: Buffer,
    /// Of the batch at hand: what is later than this is of the future.
    ceiling: i64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    pub total: i128,
    pub events: u64,
}

struct Sum {
    hash: u64,
    of: Of,
    key_start: u32,
    key_len: u32,
    quantities: u32,
}

/// One closed sum, borrowed from [`Sums`].
pub struct ClosedSum<'a> {
    pub group: usize,
    pub tenant: u32,
    pub minute: i64,
    /// Values of the group's dimensions, in order.
    pub dims: Vec<&'a [u8]>,
    /// One per meter of the group, in order.
    pub quantities: &'a [Quantity],
}

impl Meters {
    /// Adds the batch to `sums`. Runs after every step, when verdicts are final.
    pub fn apply(&self, batch: &mut Batch, sums: &mut Sums) {
        sums.ceiling = batch.latest_time();
        for (number, group) in self.groups.iter().enumerate() {
            match &group.events {
                None => group.apply(number, batch, sums, |batch, i, sums| group.add(number, batch, i, sums)),
                Some(events) => group.apply(number, batch, sums, |batch, i, sums| group.add_event(number, events, batch, i, sums)),
            }
        }
    }

    /// Meters whose records become facts one by one.
    pub fn event_meters(&self) -> usize {
        self.groups.iter().filter(|group| group.events.is_some()).map(|group| group.meters.len()).sum()
    }
}

/// What meters do with a record.
enum Fate {
    Counts,
    /// Filtered, a copy, malformed, made by weir: none of their business.
    NotOurs,
    Refused(Refusal),
}

/// Kept, or dropped only to save volume, and not void. `ceiling`: what is later is refused.
#[inline(always)]
fn fate(batch: &Batch, i: usize, ceiling: i64) -> Fate {
    let is_ours = match batch.outcome[i] {
        Outcome::Kept => true,
        Outcome::Dropped(reason) => reason.class() == ReasonClass::Volume || batch.metered_anyway[i],
        Outcome::Created => false,
    };
    if !is_ours {
        return Fate::NotOurs;
    }
    if batch.unmetered[i] {
        if batch.notes[i] & Note::Future.bit() != 0 {
            return Fate::Refused(Refusal::Beyond);
        }
        let is_twice = batch.notes[i] & (Note::DuplicateMetered.bit() | Note::DuplicateTenant.bit()) != 0;
        let is_conflict = batch.notes[i] & Note::Conflict.bit() != 0;
        return if is_twice && !is_conflict { Fate::Refused(Refusal::Twice) } else { Fate::NotOurs };
    }
    if batch.time[i].0 > ceiling { Fate::Refused(Refusal::Future) } else { Fate::Counts }
}

/// What the meters of a group find in one record.
pub(crate) struct Quantities {
    pub values: [i64; METERS_PER_GROUP_MAX],
    /// Bit n: meter n has a quantity.
    pub found: u32,
    /// Bit n: meter n has something that is none.
    refused: u32,
    notes: u32,
}

impl Group {
    /// Hands the records that count to `add`, and refuses what must not be counted.
    #[inline(always)]
    fn apply(&self, number: usize, batch: &mut Batch, sums: &mut Sums, mut add: impl FnMut(&mut Batch, usize, &mut Sums)) {
        let mut mask = std::mem::take(&mut sums.mask);
        let is_picky = self.when.is_some();
        if is_picky {
            self.select(batch, &mut mask);
        }
        // What is held from start to end says itself when it was.
        let has_own_times = self.events.as_ref().is_some_and(|events| events.kind == EventKind::Interval);
        let ceiling = if has_own_times { i64::MAX } else { sums.ceiling };
        for i in 0..batch.len() {
            if is_picky && !mask[i] {
                continue;
            }
            match fate(batch, i, ceiling) {
                Fate::Counts => add(batch, i, sums),
                Fate::NotOurs => {}
                Fate::Refused(why) => self.refuse_whole(number, batch, i, why, sums),
            }
        }
        sums.mask = mask;
    }

    /// No meter of the group counts this record.
    #[cold]
    fn refuse_whole(&self, number: usize, batch: &mut Batch, i: usize, why: Refusal, sums: &mut Sums) {
        let spans = batch.record_spans(i);
        if self.events.as_ref().is_some_and(|events| events.times.is_missing(spans)) {
            return; // no event of this meter
        }
        let Quantities { found, refused, notes, .. } = self.quantities(batch.record(i), spans);
        let times: (UnixNanos, UnixNanos) = (batch.time[i], batch.time[i]);
        if matches!(why, Refusal::Twice) {
            return self.refuse(number, batch, i, why, u32::MAX, times, sums);
        }
        batch.notes[i] |= Note::Future.bit();
        self.refuse(number, batch, i, why, found, times, sums);
        self.refuse(number, batch, i, Refusal::Quantity, refused, times, sums);
        batch.notes[i] |= notes;
    }

    /// Writes into `mask` which records of a batch the group's condition selects.
    pub(crate) fn select(&self, batch: &Batch, mask: &mut Vec<bool>) {
        mask.clear();
        mask.resize(batch.len(), true);
        if let Some(when) = &self.when {
            when.eval(batch, mask);
        }
    }

    /// The quantities of one record.
    #[inline(always)]
    pub(crate) fn quantities(&self, record: &[u8], spans: &[Span]) -> Quantities {
        let mut quantities = Quantities { values: [0; METERS_PER_GROUP_MAX], found: 0, refused: 0, notes: 0 };
        for (n, (slot, meter)) in quantities.values.iter_mut().zip(&self.meters).enumerate() {
            match meter.read(record, spans) {
                Ok(Some(quantity)) => {
                    *slot = quantity;
                    quantities.found |= 1 << n;
                }
                Ok(None) => {}
                Err(note) => {
                    quantities.notes |= note.bit();
                    quantities.refused |= 1 << n;
                }
            }
        }
        quantities
    }

    /// The value of dimension `n`, as facts tell it: unescaped and cut, empty where there is none.
    pub(crate) fn dim<'a>(&self, n: usize, record: &'a [u8], spans: &[Span]) -> Cow<'a, [u8]> {
        let span = spans[self.dims[n].1];
        match span.kind {
            Kind::Missing | Kind::Null => Cow::Borrowed(&[]),
            Kind::Escaped => Cow::Owned(crate::escape::unescape(span.raw(record)).take(DIM_BYTES_MAX).collect()),
            _ => Cow::Borrowed(&span.raw(record)[..span.raw(record).len().min(DIM_BYTES_MAX)]),
        }
    }

    #[inline(always)]
    fn add(&self, number: usize, batch: &mut Batch, i: usize, sums: &mut Sums) {
        let record = batch.record(i);
        let spans = batch.record_spans(i);
        // Quantities first: a record that has none of them takes no entry.
        let Quantities { values: quantities, found, notes, refused } = self.quantities(record, spans);
        if found != 0 {
            let of = Of { group: number as u32, tenant: batch.tenant[i], minute: batch.time[i].minute() };
            let row = self.entry(of, record, spans, sums);
            let at = sums.rows[row].quantities as usize;
            for (n, (sum, quantity)) in sums.quantities[at..at + self.meters.len()].iter_mut().zip(quantities).enumerate() {
                // 2^63 per record: 2^64 records of that size fit before an i128 overflows.
                sum.total += i128::from(quantity);
                sum.events += u64::from(found >> n & 1);
            }
        }
        if notes != 0 {
            self.refuse(number, batch, i, Refusal::Quantity, refused, (batch.time[i], batch.time[i]), sums);
            batch.notes[i] |= notes;
        }
    }

    /// The row of this record's tenant, minute and dimensions; added where it is new.
    #[inline(always)]
    fn entry(&self, of: Of, record: &[u8], spans: &[Span], sums: &mut Sums) -> usize {
        let plain = |field: usize| match spans[field].kind {
            Kind::Missing | Kind::Null => &[],
            _ => spans[field].raw(record),
        };
        let mut is_plain = true;
        for (_, field) in &self.dims {
            is_plain &= spans[*field].kind != Kind::Escaped && (spans[*field].end - spans[*field].start) as usize <= DIM_BYTES_MAX;
        }
        if is_plain {
            return sums.entry(of, self.meters.len(), self.dims.iter().map(|(_, field)| plain(*field)));
        }
        self.entry_rewritten(of, record, spans, sums)
    }

    /// The row of a record whose dimensions are unescaped or cut first.
    #[cold]
    fn entry_rewritten(&self, of: Of, record: &[u8], spans: &[Span], sums: &mut Sums) -> usize {
        let values: Vec<_> = (0..self.dims.len()).map(|n| self.dim(n, record, spans)).collect();
        sums.entry(of, self.meters.len(), values.iter().map(|value| &**value))
    }
}

/// What a row is of, besides its dimensions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Of {
    group: u32,
    tenant: u32,
    minute: i64,
}

/// Meters with the same dimensions and condition; the plan opens a second group beyond.
pub const METERS_PER_GROUP_MAX: usize = 8;

impl Meter {
    /// The quantity of one record; `None` where it has none; `Err` where it must not be counted.
    #[inline(always)]
    fn read(&self, record: &[u8], spans: &[Span]) -> Result<Option<i64>, Note> {
        let Some(field) = self.quantity else { return Ok(Some(1)) };
        let Some(quantity) = read_quantity(spans[field], record)? else { return Ok(None) };
        for part in &self.parts {
            if read_quantity(spans[*part], record)?.is_some_and(|part| part > quantity) {
                return Err(Note::PartAboveWhole);
            }
        }
        for whole in &self.wholes {
            if read_quantity(spans[*whole], record)?.is_none_or(|whole| whole < quantity) {
                return Err(Note::PartAboveWhole);
            }
        }
        Ok(Some(quantity))
    }
}

/// A whole number from 0 to 2^63 - 1. A string, a fraction or a negative number is no quantity.
#[inline(always)]
fn read_quantity(span: Span, record: &[u8]) -> Result<Option<i64>, Note> {
    match span.kind {
        Kind::Missing | Kind::Null => Ok(None),
        Kind::Number => {
            let digits = span.raw(record);
            if let Some(value) = crate::decimal::short_integer(digits) {
                return Ok(Some(value));
            }
            if digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
                return Err(Note::BadQuantity);
            }
            // 19 digits fit u64; what is beyond i64 is refused.
            let value = digits.iter().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
            i64::try_from(value).map(Some).map_err(|_| Note::BadQuantity)
        }
        _ => Err(Note::BadQuantity),
    }
}

impl Sum {
    fn key<'a>(&self, keys: &'a [u8]) -> &'a [u8] {
        &keys[self.key_start as usize..(self.key_start + self.key_len) as usize]
    }

    /// Are these the row's dimensions?
    #[inline(always)]
    fn has<'a>(&self, keys: &[u8], dims: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut key = self.key(keys);
        for value in dims {
            match key.split_first_chunk::<2>() {
                Some((len, rest)) if usize::from(u16::from_le_bytes(*len)) == value.len() => {
                    let (own, rest) = rest.split_at(value.len());
                    if !word::same(own, value) {
                        return false;
                    }
                    key = rest;
                }
                _ => return false,
            }
        }
        true // rows of one group have the same number of dimensions
    }
}

impl Sums {
    /// Entries: rows, events, and their keys as if of 128 bytes each.
    pub fn len(&self) -> usize {
        self.rows.len() + self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is one event each, in the order in which they were seen.
    pub fn events(&self) -> impl Iterator<Item = ClosedEvent<'_>> {
        self.events.iter()
    }

    /// A frame begins: it has room for refused entries again.
    pub fn start_frame(&mut self) {
        self.events.start_frame();
    }

    /// The row of these dimensions; added where it is new.
    #[inline(always)]
    fn entry<'a>(&mut self, of: Of, quantities: usize, dims: impl Iterator<Item = &'a [u8]> + Clone) -> usize {
        let seed = u64::from(of.tenant) << 32 ^ u64::from(of.group) << 56 ^ of.minute as u64;
        let hash = dims.clone().fold(seed, |so_far, value| word::hash(value, so_far));
        let (rows, keys) = (&self.rows, &self.keys);
        let same = |row: &u32| {
            let row = &rows[*row as usize];
            row.hash == hash && row.of == of && row.has(keys, dims.clone())
        };
        match self.table.find(hash, same) {
            Some(row) => *row as usize,
            None => self.add(of, hash, quantities, dims),
        }
    }

    #[cold]
    fn add<'a>(&mut self, of: Of, hash: u64, quantities: usize, dims: impl Iterator<Item = &'a [u8]>) -> usize {
        let row = self.rows.len();
        let key_start = self.keys.len();
        for value in dims {
            self.keys.extend_from_slice(&(value.len() as u16).to_le_bytes());
            self.keys.extend_from_slice(value);
        }
        let key_len = (self.keys.len() - key_start) as u32;
        self.rows.push(Sum { hash, of, key_start: key_start as u32, key_len, quantities: self.quantities.len() as u32 });
        self.quantities.resize(self.quantities.len() + quantities, Quantity::default());
        let rows = &self.rows;
        self.table.insert_unique(hash, row as u32, |row| rows[*row as usize].hash);
        row
    }

    /// The sums in the order in which they were begun.
    pub fn iter(&self) -> impl Iterator<Item = ClosedSum<'_>> {
        self.rows.iter().enumerate().map(|(n, row)| {
            let end = self.rows.get(n + 1).map_or(self.quantities.len(), |next| next.quantities as usize);
            ClosedSum {
                group: row.of.group as usize,
                tenant: row.of.tenant,
                minute: row.of.minute,
                dims: split_key(row.key(&self.keys)),
                quantities: &self.quantities[row.quantities as usize..end],
            }
        })
    }

    /// Starts anew, keeps the memory.
    pub fn clear(&mut self) {
        self.table.clear();
        self.rows.clear();
        self.keys.clear();
        self.quantities.clear();
        self.events.clear();
    }
}

fn split_key(mut key: &[u8]) -> Vec<&[u8]> {
    let mut dims = Vec::new();
    while let Some((len, rest)) = key.split_first_chunk::<2>() {
        let (value, rest) = rest.split_at(u16::from_le_bytes(*len) as usize);
        dims.push(value);
        key = rest;
    }
    dims
}

#[cfg(test)]
mod tests;
