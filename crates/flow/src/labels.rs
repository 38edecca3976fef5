//! Labels of records: those of the request, read from fields; and what came of records, counted by labels.
//!
//! In: decided batches. Out: for each record one value of each request label (`Batch::labels`), and [`Series`]: records and bytes
//! by source, tenant, verdict and values, for `/metrics`. Where neither the page nor a step reads them, nothing is done.
//!
//! What a request says of itself is not trusted: blanks around a value go; one that is too long, no UTF-8, holds control
//! characters, is not allowed or is one too many becomes the label's overflow value, and is counted. No field: no value.
//!
//! Bounds: `values_max` values of `bytes_max` bytes for each label; [`Limits`] on series. Beyond them a new series is folded:
//! into one of its tenant whose values overflow, or into one whose tenant does, too. Series only grow, and none moves into
//! another: no counter runs backwards. A series nobody added to for `idle` ends: the next page leaves it out, and its values
//! make room. Batches are counted as a whole, under one lock each.

use crate::batch::Batch;
use crate::event::Outcome;
use crate::fields::{Kind, Span};
use crate::units::UnixNanos;
use crate::word;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Number of no value, and of the overflow value.
const ABSENT: u32 = 0;
const OVERFLOW: u32 = 1;

/// What all lanes of a pipeline share.
#[derive(Debug, Default)]
pub struct Labels {
    pub request: Vec<Request>,
    /// Name and constant labels of each source.
    pub sources: Vec<(String, BTreeMap<String, String>)>,
    /// A step puts request labels into records.
    pub shaped: bool,
    /// Somebody may ask for the series.
    pub counted: bool,
    series: Arc<Mutex<Series>>,
}

/// Why a value is not taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    TooLong,
    Characters,
    NotAllowed,
    ValuesMax,
}

impl Refusal {
    pub const ALL: [Refusal; 4] = [Refusal::TooLong, Refusal::Characters, Refusal::NotAllowed, Refusal::ValuesMax];

    pub fn name(self) -> &'static str {
        match self {
            Refusal::TooLong => "too_long",
            Refusal::Characters => "characters",
            Refusal::NotAllowed => "not_allowed",
            Refusal::ValuesMax => "values_max",
        }
    }
}

/// What somebody outside wrote, as far as it can be taken for a name: without the blanks around it.
pub fn clean(text: &[u8], bytes_max: usize) -> Result<&str, Refusal> {
    let text = text.trim_ascii();
    if text.len() > bytes_max {
        return Err(Refusal::TooLong);
    }
    let text = std::str::from_utf8(text).map_err(|_| Refusal::Characters)?.trim();
    if text.chars().any(char::is_control) { Err(Refusal::Characters) } else { Ok(text) }
}

/// One label of the request layer.
#[derive(Debug)]
pub struct Request {
    pub name: String,
    /// Fields that may hold it, the first one a record has counts.
    pub from: Vec<usize>,
    /// Empty: any value.
    pub allow: HashSet<String>,
    pub overflow: Arc<str>,
    pub bytes_max: usize,
    pub values_max: usize,
    values: Arc<Mutex<HashSet<Arc<str>>>>,
    /// Counts up when values went: then lanes forget what they met.
    epoch: Arc<AtomicU64>,
    refused: Arc<[AtomicU64; Refusal::ALL.len()]>,
}

impl Request {
    pub fn new(name: &str, from: Vec<usize>, overflow: &str, bytes_max: usize, values_max: usize) -> Request {
        Request {
            name: name.to_string(),
            from,
            allow: HashSet::new(),
            overflow: overflow.into(),
            bytes_max,
            values_max,
            values: Arc::default(),
            epoch: Arc::default(),
            refused: Default::default(),
        }
    }

    /// Records whose value was not taken, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// The value as everybody shares it; `None`: there is no room for it.
    fn admit(&self, value: &str) -> Option<Arc<str>> {
        let mut values = lock(&self.values);
        if let Some(known) = values.get(value) {
            return Some(Arc::clone(known));
        }
        if values.len() >= self.values_max {
            return None;
        }
        let value: Arc<str> = value.into();
        values.insert(Arc::clone(&value));
        Some(value)
    }

    fn release(&self, gone: &HashSet<Arc<str>>) {
        lock(&self.values).retain(|value| !gone.contains(value));
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}

/// Values of the request labels of a batch's records.
#[derive(Debug, Default)]
pub struct Column {
    /// Labels of each record; 0: nobody reads any.
    count: usize,
    /// `count` numbers for each record, one record after the other.
    numbers: Vec<u32>,
    /// By label and number.
    texts: Vec<Vec<Arc<str>>>,
}

impl Column {
    /// The value of a label of record `i`; empty if it has none.
    pub fn text(&self, i: usize, label: usize) -> &str {
        if self.count == 0 { "" } else { &self.texts[label][self.numbers[i * self.count + label] as usize] }
    }

    fn numbers(&self, i: usize) -> &[u32] {
        &self.numbers[i * self.count..(i + 1) * self.count]
    }
}

/// One lane's view: asks what is shared only for values it has not met.
#[derive(Debug, Default)]
pub struct Reader {
    column: Column,
    met: Vec<Met>,
    slots: Vec<Slot>,
    /// Number of a slot by hash, with open addressing; its size is a power of two.
    places: Vec<u32>,
}

/// Length of a value, its bytes as two words, and its number.
type Recent = Option<(u8, (u64, u64), u32)>;

/// Numbers of the values that a lane has met of one label.
#[derive(Debug, Default)]
struct Met {
    numbers: HashMap<Arc<str>, u32>,
    /// The last whose hash falls on each place, of at most 16 bytes as they are received: most records find theirs here.
    recent: Vec<Recent>,
    epoch: u64,
    /// There is room for no other: what was not met is one too many.
    is_full: bool,
    refused: [u64; Refusal::ALL.len()],
}

const RECENT: usize = 64;

/// Records of a batch that agree in tenant, verdict and values.
#[derive(Debug)]
struct Slot {
    /// The first of them.
    record: u32,
    place: u32,
    records: u64,
    bytes: u64,
}

const EMPTY: u32 = u32::MAX;

impl Reader {
    /// Reads the request labels of every record as it was received.
    pub fn read(&mut self, labels: &Labels, batch: &mut Batch) {
        if labels.request.is_empty() || !(labels.shaped || labels.counted) {
            return;
        }
        let column = &mut self.column;
        column.count = labels.request.len();
        column.texts.resize_with(column.count, Vec::new);
        self.met.resize_with(column.count, Met::default);
        for ((label, met), texts) in labels.request.iter().zip(&mut self.met).zip(&mut column.texts) {
            met.begin(label, texts);
        }
        column.numbers.clear();
        for i in 0..batch.len() {
            for (n, label) in labels.request.iter().enumerate() {
                let number = match batch.first_present(i, &label.from) {
                    Some(span) => self.met[n].number(label, span, batch.record(i), &mut column.texts[n]),
                    None => ABSENT,
                };
                column.numbers.push(number);
            }
        }
        for (label, met) in labels.request.iter().zip(&mut self.met) {
            for (total, count) in label.refused.iter().zip(&mut met.refused).filter(|(_, count)| **count > 0) {
                total.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        }
        std::mem::swap(&mut self.column, &mut batch.labels);
    }

    /// Counts every record with its verdict, and takes the column back.
    pub fn count(&mut self, labels: &Labels, batch: &mut Batch) {
        if labels.counted {
            self.fill_slots(batch);
            let overflow: Vec<Arc<str>> = labels.request.iter().map(|label| Arc::clone(&label.overflow)).collect();
            let mut series = lock(&labels.series);
            for slot in &self.slots {
                let i = slot.record as usize;
                let values = batch.labels.numbers(i).iter().zip(&batch.labels.texts).map(|(n, texts)| Arc::clone(&texts[*n as usize]));
                let values = values.collect();
                let key = SeriesKey { source: batch.source, tenant: Some(batch.tenant[i]), outcome: batch.outcome[i], values };
                series.add(key, &overflow, slot.records, slot.bytes);
            }
        }
        std::mem::swap(&mut self.column, &mut batch.labels);
        // Another pipeline's records have none of these.
        batch.labels.count = 0;
    }

    fn fill_slots(&mut self, batch: &Batch) {
        for slot in self.slots.drain(..) {
            self.places[slot.place as usize] = EMPTY;
        }
        let same = |a: usize, b: usize| {
            batch.tenant[a] == batch.tenant[b] && batch.outcome[a] == batch.outcome[b] && batch.labels.numbers(a) == batch.labels.numbers(b)
        };
        for i in 0..batch.len() {
            if self.places.len() < 2 * (self.slots.len() + 1) {
                self.grow(batch);
            }
            let mut place = place_of(batch, i, self.places.len());
            loop {
                match self.places[place] {
                    EMPTY => {
                        self.places[place] = self.slots.len() as u32;
                        self.slots.push(Slot { record: i as u32, place: place as u32, records: 0, bytes: 0 });
                        break;
                    }
                    slot if same(self.slots[slot as usize].record as usize, i) => break,
                    _ => place = (place + 1) % self.places.len(),
                }
            }
            let slot = &mut self.slots[self.places[place] as usize];
            slot.records += 1;
            slot.bytes += u64::from(batch.origin_bytes[i]);
        }
    }

    #[cold]
    fn grow(&mut self, batch: &Batch) {
        let size = (self.places.len() * 2).max(256);
        self.places = vec![EMPTY; size];
        for (n, slot) in self.slots.iter_mut().enumerate() {
            let mut place = place_of(batch, slot.record as usize, size);
            while self.places[place] != EMPTY {
                place = (place + 1) % size;
            }
            self.places[place] = n as u32;
            slot.place = place as u32;
        }
    }
}

/// Where to look for a record's slot first. Method: FNV-1a over words instead of bytes, its high half folded in.
fn place_of(batch: &Batch, i: usize, places: usize) -> usize {
    let words = [batch.tenant[i], u32::from(batch.outcome[i].code())];
    let words = words.iter().chain(batch.labels.numbers(i));
    let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| (hash ^ u64::from(*word)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ hash >> 32) as usize % places
}

impl Met {
    fn begin(&mut self, label: &Request, texts: &mut Vec<Arc<str>>) {
        let epoch = label.epoch.load(Ordering::Relaxed);
        if texts.is_empty() || epoch != self.epoch {
            *self = Met { recent: vec![None; RECENT], epoch, ..Met::default() };
            *texts = vec!["".into(), Arc::clone(&label.overflow)];
        }
    }

    #[inline(always)]
    fn number(&mut self, label: &Request, span: Span, record: &[u8], texts: &mut Vec<Arc<str>>) -> u32 {
        let raw = span.raw(record);
        if raw.len() > 16 || matches!(span.kind, Kind::Escaped | Kind::Object | Kind::Array) {
            return self.look_up(label, span, record, texts);
        }
        let (words, place) = (word::words(raw), word::hash(raw, 0) as usize % RECENT);
        match self.recent[place] {
            Some((length, own, number)) if usize::from(length) == raw.len() && own == words => return number,
            _ => {}
        }
        let number = self.look_up(label, span, record, texts);
        // What overflows is counted, each time.
        if number != OVERFLOW {
            self.recent[place] = Some((raw.len() as u8, words, number));
        }
        number
    }

    fn look_up(&mut self, label: &Request, span: Span, record: &[u8], texts: &mut Vec<Arc<str>>) -> u32 {
        let number = self.taken(label, span, record, texts);
        number.unwrap_or_else(|why| {
            self.refused[why as usize] += 1;
            OVERFLOW
        })
    }

    fn taken(&mut self, label: &Request, span: Span, record: &[u8], texts: &mut Vec<Arc<str>>) -> Result<u32, Refusal> {
        if matches!(span.kind, Kind::Object | Kind::Array) {
            return Err(Refusal::Characters);
        }
        let text = span.text(record).unwrap_or_default();
        let text = clean(&text, label.bytes_max)?;
        if text.is_empty() {
            return Ok(ABSENT);
        }
        if *text == *label.overflow {
            return Ok(OVERFLOW);
        }
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        if !label.allow.is_empty() && !label.allow.contains(text) {
            return Err(Refusal::NotAllowed);
        }
        if self.is_full {
            return Err(Refusal::ValuesMax);
        }
        let Some(value) = label.admit(text) else {
            // Nobody admits another before some go: from here on nothing is asked.
            for value in lock(&label.values).iter() {
                self.meet(value, texts);
            }
            self.is_full = true;
            return self.numbers.get(text).copied().ok_or(Refusal::ValuesMax);
        };
        Ok(self.meet(&value, texts))
    }

    fn meet(&mut self, value: &Arc<str>, texts: &mut Vec<Arc<str>>) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        texts.push(Arc::clone(value));
        let number = texts.len() as u32 - 1;
        self.numbers.insert(Arc::clone(value), number);
        number
    }
}

/// Limits on what is counted by labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Series of one metric, of one tenant in it, and of all metrics together.
    pub per_metric: usize,
    pub per_tenant: usize,
    pub total: usize,
    /// How long nothing may be added to a series until it ends.
    pub idle_ns: i64,
}

/// Metrics that have these series: records, bytes.
pub const METRICS: usize = 2;

/// Which limit folded a record's series into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    PerMetric,
    PerTenant,
    Total,
}

impl Limit {
    pub const ALL: [Limit; 3] = [Limit::PerMetric, Limit::PerTenant, Limit::Total];

    pub fn name(self) -> &'static str {
        match self {
            Limit::PerMetric => "per_metric",
            Limit::PerTenant => "per_tenant",
            Limit::Total => "total",
        }
    }
}

/// What tells series apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    pub source: u16,
    /// Number of the tenant; `None`: tenants for whom there was no room.
    pub tenant: Option<u32>,
    pub outcome: Outcome,
    /// Of the request labels.
    pub values: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    /// Something was added since the last page.
    touched: bool,
    /// The page on which that showed first.
    used: UnixNanos,
    /// It counts as one of its tenant's.
    of_tenant: bool,
}

/// Counts by labels, since the start.
#[derive(Debug, Default)]
pub struct Series {
    limits: Limits,
    rows: HashMap<SeriesKey, Counts>,
    per_tenant: HashMap<u32, usize>,
    /// Series that have a tenant: the limits are on these.
    counted: usize,
    folded: [u64; Limit::ALL.len()],
    ended: u64,
}

/// What a page shows.
#[derive(Debug, Default)]
pub struct Shown {
    /// Key, records, bytes; in order.
    pub rows: Vec<(SeriesKey, u64, u64)>,
    /// Records whose series was folded into another, by limit.
    pub folded: Vec<(Limit, u64)>,
    /// Series that ended.
    pub ended: u64,
}

impl Labels {
    pub fn new(request: Vec<Request>, sources: Vec<(String, BTreeMap<String, String>)>, limits: Limits) -> Labels {
        let series = Arc::new(Mutex::new(Series { limits, ..Series::default() }));
        Labels { request, sources, shaped: false, counted: false, series }
    }

    /// Goes on with what labels of the same config counted, while lanes may still count there.
    pub fn share(&mut self, before: &Labels) {
        self.series = Arc::clone(&before.series);
        for (own, other) in self.request.iter_mut().zip(&before.request) {
            (own.values, own.epoch, own.refused) = (Arc::clone(&other.values), Arc::clone(&other.epoch), Arc::clone(&other.refused));
        }
    }

    /// The series as of now; those that were idle too long end, and values that nobody has any more make room.
    pub fn page(&self, now: UnixNanos) -> Shown {
        let (shown, gone) = lock(&self.series).page(now, self.request.len());
        for (label, gone) in self.request.iter().zip(gone).filter(|(_, gone)| !gone.is_empty()) {
            label.release(&gone);
        }
        shown
    }
}

impl Series {
    /// `overflow`: the values that stand for any other.
    fn add(&mut self, key: SeriesKey, overflow: &[Arc<str>], records: u64, bytes: u64) {
        if self.add_to(&key, records, bytes) {
            return;
        }
        let rows_max = self.limits.per_metric.min(self.limits.total / METRICS);
        // The series of those without room are a few for each source, and always have some.
        let is_full = self.counted >= rows_max;
        let of_tenant = key.tenant.and_then(|tenant| self.per_tenant.get(&tenant)).copied().unwrap_or(0);
        if !is_full && of_tenant < self.limits.per_tenant {
            *self.per_tenant.entry(key.tenant.unwrap_or_default()).or_default() += 1;
            return self.insert(key, records, bytes, true);
        }
        let why = match is_full {
            false => Limit::PerTenant,
            true if rows_max < self.limits.per_metric => Limit::Total,
            true => Limit::PerMetric,
        };
        self.folded[why as usize] += records;
        let of_tenant = SeriesKey { values: overflow.to_vec(), ..key };
        if self.add_to(&of_tenant, records, bytes) {
            return;
        }
        if !is_full && !overflow.is_empty() {
            return self.insert(of_tenant, records, bytes, false);
        }
        let of_all = SeriesKey { tenant: None, ..of_tenant };
        if !self.add_to(&of_all, records, bytes) {
            self.insert(of_all, records, bytes, false);
        }
    }

    fn add_to(&mut self, key: &SeriesKey, records: u64, bytes: u64) -> bool {
        let Some(counts) = self.rows.get_mut(key) else { return false };
        counts.records += records;
        counts.bytes += bytes;
        counts.touched = true;
        true
    }

    fn insert(&mut self, key: SeriesKey, records: u64, bytes: u64, of_tenant: bool) {
        self.counted += usize::from(key.tenant.is_some());
        self.rows.insert(key, Counts { records, bytes, touched: true, used: UnixNanos(0), of_tenant });
    }

    /// What to show, and for each label the values that went.
    fn page(&mut self, now: UnixNanos, labels: usize) -> (Shown, Vec<HashSet<Arc<str>>>) {
        let mut gone = vec![HashSet::new(); labels];
        let idle_ns = self.limits.idle_ns;
        let (per_tenant, counted, ended) = (&mut self.per_tenant, &mut self.counted, &mut self.ended);
        self.rows.retain(|key, counts| {
            if std::mem::take(&mut counts.touched) {
                counts.used = now;
            }
            let is_idle = now.0.saturating_sub(counts.used.0) >= idle_ns;
            let Some(tenant) = key.tenant.filter(|_| is_idle) else { return true };
            for (gone, value) in gone.iter_mut().zip(&key.values) {
                gone.insert(Arc::clone(value));
            }
            *ended += 1;
            *counted -= 1;
            if counts.of_tenant
                && let Some(count) = per_tenant.get_mut(&tenant)
            {
                *count -= 1;
                if *count == 0 {
                    per_tenant.remove(&tenant);
                }
            }
            false
        });
        if gone.iter().any(|gone| !gone.is_empty()) {
            for key in self.rows.keys() {
                for (gone, value) in gone.iter_mut().zip(&key.values) {
                    gone.remove(value);
                }
            }
        }
        let mut rows: Vec<_> = self.rows.iter().map(|(key, counts)| (key.clone(), counts.records, counts.bytes)).collect();
        rows.sort_unstable();
        (Shown { rows, folded: Limit::ALL.into_iter().zip(self.folded).collect(), ended: self.ended }, gone)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding labels")
}

#[cfg(test)]
mod tests;
