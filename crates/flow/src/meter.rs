//! Meters: what each tenant used, as integers, from records that were kept or dropped for volume only.
//!
//! Reads verdicts, tenants, times and the spans of the metered fields; changes nothing but notes. A meter
//! keeps no windows: it adds up per (tenant, dimensions, minute of event time) until the frame is closed and
//! hands the sums out as facts. It counts where it is told to, whatever stands before or after it: a record
//! that a sampler or a quota dropped costs what it cost. Memory: one entry per distinct (tenant, dimensions,
//! minute) of a frame; a frame closes at [`SUMS_MAX`] entries.

use crate::batch::Batch;
use crate::condition::Condition;
use crate::event::{Note, Outcome, ReasonClass};
use crate::fields::{Kind, Span};
use crate::word;
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
        for (number, group) in self.groups.iter().enumerate() {
            if group.when.is_none() {
                for i in 0..batch.len() {
                    if counts(batch, i) {
                        group.add(number, batch, i, sums);
                    }
                }
                continue;
            }
            let mut mask = std::mem::take(&mut sums.mask);
            group.select(batch, &mut mask);
            for i in 0..batch.len() {
                if mask[i] && counts(batch, i) {
                    group.add(number, batch, i, sums);
                }
            }
            sums.mask = mask;
        }
    }
}

/// Kept, or dropped only to save volume, and not void.
#[inline(always)]
fn counts(batch: &Batch, i: usize) -> bool {
    match batch.outcome[i] {
        _ if batch.unmetered[i] => false,
        Outcome::Kept => true,
        Outcome::Dropped(reason) => reason.class() == ReasonClass::Volume || batch.metered_anyway[i],
        Outcome::Created => false,
    }
}

/// What the meters of a group find in one record.
pub(crate) struct Quantities {
    pub values: [i64; METERS_PER_GROUP_MAX],
    /// Bit n: meter n has a quantity.
    pub found: u32,
    notes: u32,
}

impl Group {
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
        let mut quantities = Quantities { values: [0; METERS_PER_GROUP_MAX], found: 0, notes: 0 };
        for (n, (slot, meter)) in quantities.values.iter_mut().zip(&self.meters).enumerate() {
            match meter.read(record, spans) {
                Ok(Some(quantity)) => {
                    *slot = quantity;
                    quantities.found |= 1 << n;
                }
                Ok(None) => {}
                Err(note) => quantities.notes |= note.bit(),
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
        let Quantities { values: quantities, found, notes } = self.quantities(record, spans);
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
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
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
