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
use hashbrown::HashTable;

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
    key: Vec<u8>,
    mask: Vec<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    pub total: i128,
    pub events: u64,
}

struct Sum {
    hash: u64,
    group: u32,
    tenant: u32,
    minute: i64,
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
            let mut mask = std::mem::take(&mut sums.mask);
            mask.clear();
            mask.resize(batch.len(), true);
            if let Some(when) = &group.when {
                when.eval(&*batch, &mut mask);
            }
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
    }
}

impl Group {
    #[inline(always)]
    fn add(&self, number: usize, batch: &mut Batch, i: usize, sums: &mut Sums) {
        // Quantities first: a record that has none of them takes no entry.
        let mut found = [None::<i128>; METERS_PER_GROUP_MAX];
        let mut any = false;
        for (slot, meter) in found.iter_mut().zip(&self.meters) {
            match meter.read(batch, i) {
                Ok(quantity) => {
                    any |= quantity.is_some();
                    *slot = quantity;
                }
                Err(note) => batch.note(i, note),
            }
        }
        if !any {
            return;
        }
        let row = self.entry(number, batch, i, sums);
        let at = sums.rows[row].quantities as usize;
        for (sum, quantity) in sums.quantities[at..at + self.meters.len()].iter_mut().zip(found) {
            if let Some(quantity) = quantity {
                // 2^63 per record: 2^64 records of that size fit before an i128 overflows.
                sum.total += quantity;
                sum.events += 1;
            }
        }
    }

    /// The row of this record's tenant, minute and dimensions; added where it is new.
    #[inline(always)]
    fn entry(&self, number: usize, batch: &Batch, i: usize, sums: &mut Sums) -> usize {
        let record = batch.record(i);
        let spans = batch.record_spans(i);
        sums.key.clear();
        for (_, field) in &self.dims {
            let span = spans[*field];
            let at = sums.key.len();
            sums.key.extend_from_slice(&[0; 2]);
            match span.kind {
                Kind::Missing | Kind::Null => {}
                Kind::Escaped => sums.key.extend(crate::escape::unescape(span.raw(record)).take(DIM_BYTES_MAX)),
                _ => sums.key.extend_from_slice(&span.raw(record)[..span.raw(record).len().min(DIM_BYTES_MAX)]),
            }
            let len = (sums.key.len() - at - 2) as u16;
            sums.key[at..at + 2].copy_from_slice(&len.to_le_bytes());
        }
        let tenant = batch.tenant[i];
        let minute = batch.time[i].minute();
        let hash = hash(&sums.key, u64::from(tenant) << 32 ^ (number as u64) << 56 ^ minute as u64);
        let (rows, keys) = (&sums.rows, &sums.keys);
        let same = |row: &u32| {
            let row = &rows[*row as usize];
            row.tenant == tenant && row.minute == minute && row.group == number as u32 && row.key(keys) == sums.key
        };
        if let Some(row) = sums.table.find(hash, same) {
            return *row as usize;
        }
        let row = sums.rows.len();
        sums.rows.push(Sum {
            hash,
            group: number as u32,
            tenant,
            minute,
            key_start: sums.keys.len() as u32,
            key_len: sums.key.len() as u32,
            quantities: sums.quantities.len() as u32,
        });
        sums.keys.extend_from_slice(&sums.key);
        sums.quantities.resize(sums.quantities.len() + self.meters.len(), Quantity::default());
        let rows = &sums.rows;
        sums.table.insert_unique(hash, row as u32, |row| rows[*row as usize].hash);
        row
    }
}

/// Meters with the same dimensions and condition; the plan opens a second group beyond.
pub const METERS_PER_GROUP_MAX: usize = 8;

impl Meter {
    /// The quantity of one record; `None` where it has none; `Err` where it must not be counted.
    #[inline(always)]
    fn read(&self, batch: &Batch, i: usize) -> Result<Option<i128>, Note> {
        let Some(field) = self.quantity else { return Ok(Some(1)) };
        let record = batch.record(i);
        let spans = batch.record_spans(i);
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
        Ok(Some(i128::from(quantity)))
    }
}

/// A whole number from 0 to 2^63 - 1. A string, a fraction or a negative number is no quantity.
#[inline(always)]
fn read_quantity(span: Span, record: &[u8]) -> Result<Option<i64>, Note> {
    match span.kind {
        Kind::Missing | Kind::Null => Ok(None),
        Kind::Number => {
            let digits = span.raw(record);
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
}

impl Sums {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The sums in the order in which they were begun.
    pub fn iter(&self) -> impl Iterator<Item = ClosedSum<'_>> {
        self.rows.iter().enumerate().map(|(n, row)| {
            let end = self.rows.get(n + 1).map_or(self.quantities.len(), |next| next.quantities as usize);
            ClosedSum {
                group: row.group as usize,
                tenant: row.tenant,
                minute: row.minute,
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

/// Folded multiplication over 8-byte words (the method of wyhash); only for tables in memory.
#[inline(always)]
fn hash(bytes: &[u8], seed: u64) -> u64 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut hash = seed ^ K;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word), K | 1);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(hash ^ u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56, 0xD6E8_FEB8_6659_FD93)
}
