//! The law: what came in is accounted for, per tenant, to the record and the byte.
//!
//! In: the headers of published frames, and how far each sink has committed. Out: totals and the residual, which is 0
//! when nothing leaks. Nothing is counted while records flow: *delivered* follows from committed positions. To make
//! the law able to fail, rows are counted a second time from the rows themselves.
//! Bound: `tenants_max` tenants; records of further ones are booked under [`OVER_LIMIT`] and counted as such.

use crate::codec::{Corrupt, Reader, put_bytes, put_i64, put_len, put_u64, put_u64s};
use crate::frame::{Count, Frame, LostReason, OTHERS, Part, Selected};
use flow::event::{Note, Outcome, Reason, Skip};
use std::collections::BTreeMap;

/// Who is booked for when there are too many tenants.
pub const OVER_LIMIT: &[u8] = b"_over_limit";

/// flow: `received + created = kept + dropped`; each sink: `kept = delivered + rejected + not selected + buffered`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// At the newest published frame.
    pub totals: Totals,
    /// At the committed frame of each sink; what it does not take at the newest published one.
    pub sinks: BTreeMap<String, SinkTotals>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub tenants: BTreeMap<Vec<u8>, TenantTotals>,
    pub streams: StreamTotals,
    /// Records booked under [`OVER_LIMIT`].
    pub over_limit_records: u64,
    /// Rows that belong to no part, or to two, or of whose sinks their frame's header says something else than they do.
    pub stray_rows: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantTotals {
    pub received: Tally,
    pub created: Tally,
    pub kept: Tally,
    pub dropped: BTreeMap<Reason, Tally>,
    pub notes: BTreeMap<Note, u64>,
    /// Kept records again, counted from the rows and not from the header.
    pub rows: u64,
}

/// `read = records + framing + skipped + held`, in bytes over all streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTotals {
    pub read_bytes: u64,
    pub records_bytes: u64,
    pub framing_bytes: u64,
    pub skipped: BTreeMap<Skip, u64>,
    pub held_bytes: i64,
}

/// By tenant; a tenant that is absent has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkTotals {
    pub delivered: BTreeMap<Vec<u8>, Tally>,
    pub buffered: BTreeMap<Vec<u8>, Tally>,
    /// Kept, and by config nothing for this sink.
    pub not_selected: BTreeMap<Vec<u8>, Tally>,
    /// Kept for this sink, and gone before it had them.
    pub rejected: BTreeMap<Vec<u8>, BTreeMap<LostReason, Tally>>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.records = plus(self.records, other.records);
        self.bytes = plus(self.bytes, other.bytes);
    }

    fn gap(&self, other: Tally) -> i128 {
        let apart = |a: u64, b: u64| i128::from(a.abs_diff(b));
        apart(self.records, other.records) + apart(self.bytes, other.bytes)
    }
}

/// A frame's counts are below 2^48, so a sum that overflows is a wrong program and not wrong input.
fn plus(a: u64, b: u64) -> u64 {
    a.checked_add(b).expect("fewer than 2^64 records and bytes pass in the life of a journal")
}

impl Ledger {
    /// Sum of the absolute violations of every equation; 0 when the law holds.
    pub fn residual(&self) -> i128 {
        let mut residual = i128::from(self.totals.stray_rows) + self.totals.streams.residual();
        for (tenant, totals) in &self.totals.tenants {
            residual += totals.residual();
            residual += self.sinks.values().map(|sink| sink.residual(tenant, totals.kept)).sum::<i128>();
        }
        residual
    }
}

impl TenantTotals {
    fn residual(&self) -> i128 {
        let mut came = self.received;
        came.add(self.created);
        let mut went = self.kept;
        self.dropped.values().for_each(|tally| went.add(*tally));
        came.gap(went) + i128::from(self.kept.records.abs_diff(self.rows))
    }
}

impl StreamTotals {
    fn residual(&self) -> i128 {
        let skipped: i128 = self.skipped.values().map(|b| i128::from(*b)).sum();
        (i128::from(self.read_bytes)
            - i128::from(self.records_bytes)
            - i128::from(self.framing_bytes)
            - skipped
            - i128::from(self.held_bytes))
        .abs()
    }
}

impl SinkTotals {
    fn residual(&self, tenant: &[u8], kept: Tally) -> i128 {
        let mut sum = Tally::default();
        for side in [&self.delivered, &self.buffered, &self.not_selected] {
            sum.add(side.get(tenant).copied().unwrap_or_default());
        }
        self.rejected.get(tenant).into_iter().flatten().for_each(|(_, tally)| sum.add(*tally));
        kept.gap(sum)
    }
}

/// What one frame kept, in all or for one sink, by number of the tenant in the books.
pub(crate) type Delta = Box<[(u32, Tally)]>;

/// What the rows of a frame say, counted apart from its header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowCount {
    pub by_tenant: Vec<u64>,
    pub stray: u64,
}

impl RowCount {
    pub fn of(frame: &Frame) -> RowCount {
        if let Some(lost) = &frame.lost {
            return RowCount { by_tenant: lost.rows.clone(), stray: lost.stray_rows };
        }
        let mut by_tenant = vec![0; frame.tenants.len()];
        let mut in_parts = 0;
        for part in &frame.parts {
            let rows = frame.rows.tenant.get(part.rows.start as usize..part.rows.end as usize).unwrap_or_default();
            for tenant in rows {
                if let Some(count) = by_tenant.get_mut(*tenant as usize) {
                    *count += 1;
                }
            }
            in_parts += rows.len() as u64;
        }
        RowCount { by_tenant, stray: in_parts.abs_diff(frame.rows.len() as u64) + unlike_header(frame) }
    }
}

/// By how much what rows say of the sinks that do not take them differs from what the header counts, by tenant and sink.
fn unlike_header(frame: &Frame) -> u64 {
    let sinks = frame.sinks.len();
    let mut differences = vec![0i64; frame.tenants.len() * sinks];
    let mut add = |tenant: u32, taken: u32, count: i64| {
        for sink in (0..sinks).filter(|sink| taken >> sink & 1 == 0) {
            if let Some(difference) = differences.get_mut(tenant as usize * sinks + sink) {
                *difference += count;
            }
        }
    };
    frame.rows.tenant.iter().zip(&frame.rows.sinks).for_each(|(tenant, taken)| add(*tenant, *taken, 1));
    for selected in frame.parts.iter().flat_map(|part| &part.selected) {
        add(selected.tenant, selected.sinks, -(selected.records as i64)); // at most 2^48, as validated
    }
    differences.into_iter().map(i64::unsigned_abs).sum()
}

/// What a sink did not take, by tenant.
#[derive(Debug)]
pub(crate) struct NotSelected {
    pub sink: Box<[u8]>,
    pub tallies: Vec<(u32, Tally)>,
}

/// What was booked between two accounts.
#[derive(Debug, Default)]
pub(crate) struct Since {
    pub names: Vec<Box<[u8]>>,
    pub counts: Vec<Count>,
    pub notes: Vec<(u32, Note, u64)>,
    /// By tenant.
    pub rows: Vec<u64>,
    pub stray_rows: u64,
    pub read_bytes: u64,
    pub records_bytes: i128,
    pub framing_bytes: u64,
    pub held_bytes: i64,
    pub skipped: Vec<(Skip, u64)>,
    /// A sink that is not among them is one of [`OTHERS`].
    pub not_selected: Vec<NotSelected>,
}

impl Since {
    /// What sinks did not take, as a frame says it: its dictionary, and an entry for each sink and tenant.
    pub fn selected(&self) -> (Vec<Box<[u8]>>, Vec<Selected>) {
        let mut selected = Vec::new();
        for (n, NotSelected { tallies, .. }) in (0u32..).zip(&self.not_selected) {
            let all_but_it = !1u32.checked_shl(n).unwrap_or(0); // more than a frame can name are refused by `validate`
            let entry = |(tenant, tally): &(u32, Tally)| Selected {
                tenant: *tenant,
                sinks: all_but_it,
                records: tally.records,
                bytes: tally.bytes,
            };
            selected.extend(tallies.iter().map(entry));
        }
        (self.not_selected.iter().map(|own| own.sink.clone()).collect(), selected)
    }
}

/// The totals while they grow. Tenants are numbered in the order they were first seen.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    tenants_max: usize,
    numbers: BTreeMap<Vec<u8>, u32>,
    names: Vec<Vec<u8>>,
    tenants: Vec<TenantTotals>,
    streams: StreamTotals,
    over_limit_records: u64,
    stray_rows: u64,
    /// What each sink that any frame named did not take, by number of the tenant; [`OTHERS`] stand for all that none did.
    not_selected: BTreeMap<Box<[u8]>, Vec<Tally>>,
}

impl Books {
    pub fn new(tenants_max: usize) -> Books {
        Books {
            tenants_max,
            numbers: BTreeMap::new(),
            names: Vec::new(),
            tenants: Vec::new(),
            streams: StreamTotals::default(),
            over_limit_records: 0,
            stray_rows: 0,
            not_selected: BTreeMap::new(),
        }
    }

    /// The number of a tenant, and whether it is over the limit.
    pub fn number(&mut self, tenant: &[u8]) -> (u32, bool) {
        if let Some(number) = self.numbers.get(tenant) {
            return (*number, false);
        }
        if self.names.len() >= self.tenants_max && tenant != OVER_LIMIT {
            return (self.number(OVER_LIMIT).0, true);
        }
        let number = self.names.len() as u32;
        self.numbers.insert(tenant.to_vec(), number);
        self.names.push(tenant.to_vec());
        self.tenants.push(TenantTotals::default());
        (number, false)
    }

    /// Books one frame; returns what it kept.
    pub fn book(&mut self, frame: &Frame, rows: &RowCount) -> Delta {
        let numbers: Vec<(u32, bool)> = frame.tenants.iter().map(|t| self.number(t)).collect();
        for part in &frame.parts {
            self.book_part(part, &numbers);
        }
        for ((number, _), rows) in numbers.iter().zip(&rows.by_tenant) {
            let tenant = &mut self.tenants[*number as usize];
            tenant.rows = plus(tenant.rows, *rows);
        }
        self.stray_rows = plus(self.stray_rows, rows.stray);
        self.book_selected(frame, &numbers);
        kept_by(frame, &numbers, None, |_| true)
    }

    fn book_selected(&mut self, frame: &Frame, numbers: &[(u32, bool)]) {
        for name in &frame.sinks {
            if !self.not_selected.contains_key(name) {
                // Until now no frame named it.
                let others = self.not_selected.get(OTHERS).cloned().unwrap_or_default();
                self.not_selected.insert(name.clone(), others);
            }
        }
        for (name, tallies) in &mut self.not_selected {
            let bit = frame.bit_of(name);
            for selected in frame.parts.iter().flat_map(|part| passed_by(part, bit)) {
                let tally = Tally { records: selected.records, bytes: selected.bytes };
                add_delta(tallies, &[(numbers[selected.tenant as usize].0, tally)]);
            }
        }
    }

    /// What some parts of a frame kept for a sink; books nothing.
    pub fn due(&mut self, frame: &Frame, sink: &str, counts: impl FnMut(&Part) -> bool) -> Delta {
        let numbers: Vec<(u32, bool)> = frame.tenants.iter().map(|t| self.number(t)).collect();
        kept_by(frame, &numbers, frame.bit_of(sink.as_bytes()), counts)
    }

    /// What a sink did not take, by number of the tenant.
    pub fn not_selected(&self, sink: &[u8]) -> &[Tally] {
        self.not_selected.get(sink).or_else(|| self.not_selected.get(OTHERS)).map_or(&[], Vec::as_slice)
    }

    /// Whether both say the same of what sinks did not take, over all tenants.
    pub fn agrees_on_selection(&self, other: &Books) -> bool {
        let sum = |books: &Books, sink: &[u8]| {
            let tallies = books.not_selected(sink).iter();
            tallies.fold((0, 0), |sum, tally| (sum.0 + u128::from(tally.records), sum.1 + u128::from(tally.bytes)))
        };
        self.not_selected.keys().chain(other.not_selected.keys()).all(|sink| sum(self, sink) == sum(other, sink))
    }

    /// Whether any sink ever did not take everything.
    pub fn selects(&self) -> bool {
        !self.not_selected.is_empty()
    }

    fn book_part(&mut self, part: &Part, numbers: &[(u32, bool)]) {
        for count in &part.counts {
            let (number, over) = numbers[count.tenant as usize];
            let tenant = &mut self.tenants[number as usize];
            let tally = Tally { records: count.records, bytes: count.bytes };
            if count.outcome != Outcome::Created {
                tenant.received.add(tally);
            }
            match count.outcome {
                Outcome::Kept => tenant.kept.add(tally),
                Outcome::Created => {
                    tenant.created.add(tally);
                    tenant.kept.add(tally);
                }
                Outcome::Dropped(reason) => tenant.dropped.entry(reason).or_default().add(tally),
            }
            if over {
                self.over_limit_records = plus(self.over_limit_records, count.records);
            }
        }
        for (tenant, note, records) in &part.notes {
            let notes = self.tenants[numbers[*tenant as usize].0 as usize].notes.entry(*note).or_default();
            *notes = plus(*notes, *records);
        }
        let streams = &mut self.streams;
        streams.read_bytes = plus(streams.read_bytes, part.to - part.from);
        streams.records_bytes = plus(streams.records_bytes, part.records_bytes);
        streams.framing_bytes = plus(streams.framing_bytes, part.framing_bytes);
        for (skip, bytes) in &part.skipped {
            let skipped = streams.skipped.entry(*skip).or_default();
            *skipped = plus(*skipped, *bytes);
        }
        streams.held_bytes = streams.held_bytes.checked_add(part.held_bytes).expect("held bytes are below 2^48 a part");
    }

    /// What was booked since `before`, as counts and notes of tenants whose numbers are indexes of the names returned;
    /// `None` where these books do not go on from those.
    pub fn since(&self, before: &Books) -> Option<Since> {
        let mut since = Since::default();
        let none = TenantTotals::default();
        for (name, totals) in self.names.iter().zip(&self.tenants) {
            let old = before.numbers.get(name).map_or(&none, |n| &before.tenants[*n as usize]);
            let tenant = since.names.len() as u32;
            let mut count = |outcome, new: Tally, old: Tally| -> Option<()> {
                let (records, bytes) = (new.records.checked_sub(old.records)?, new.bytes.checked_sub(old.bytes)?);
                if records > 0 || bytes > 0 {
                    since.counts.push(Count { tenant, outcome, records, bytes });
                }
                Some(())
            };
            count(Outcome::Kept, less(totals.kept, totals.created)?, less(old.kept, old.created)?)?;
            count(Outcome::Created, totals.created, old.created)?;
            for (reason, tally) in &totals.dropped {
                count(Outcome::Dropped(*reason), *tally, old.dropped.get(reason).copied().unwrap_or_default())?;
            }
            for (note, records) in &totals.notes {
                let more = records.checked_sub(old.notes.get(note).copied().unwrap_or_default())?;
                if more > 0 {
                    since.notes.push((tenant, *note, more));
                }
            }
            since.rows.push(totals.rows.checked_sub(old.rows)?);
            since.names.push(name.as_slice().into());
        }
        let (new, old) = (&self.streams, &before.streams);
        since.read_bytes = new.read_bytes.checked_sub(old.read_bytes)?;
        since.records_bytes = i128::from(new.records_bytes) - i128::from(old.records_bytes);
        since.framing_bytes = new.framing_bytes.checked_sub(old.framing_bytes)?;
        since.held_bytes = new.held_bytes.checked_sub(old.held_bytes)?;
        for (skip, bytes) in &new.skipped {
            since.skipped.push((*skip, bytes.checked_sub(old.skipped.get(skip).copied().unwrap_or_default())?));
        }
        since.stray_rows = self.stray_rows.checked_sub(before.stray_rows)?;
        let others = self.not_selected_since(before, OTHERS)?;
        for name in self.not_selected.keys() {
            let tallies = self.not_selected_since(before, name)?;
            // Who lacks the same as the others needs no name.
            let is_told = if **name == *OTHERS { !tallies.is_empty() } else { tallies != others };
            if is_told {
                since.not_selected.push(NotSelected { sink: name.clone(), tallies });
            }
        }
        Some(since)
    }

    fn not_selected_since(&self, before: &Books, sink: &[u8]) -> Option<Vec<(u32, Tally)>> {
        let mut tallies = Vec::new();
        for (number, tally) in (0u32..).zip(self.not_selected(sink)) {
            let old = before.numbers.get(&self.names[number as usize]).and_then(|n| before.not_selected(sink).get(*n as usize));
            let more = less(*tally, old.copied().unwrap_or_default())?;
            if more != Tally::default() {
                tallies.push((number, more));
            }
        }
        Some(tallies)
    }

    /// What was kept for a sink, in the order of the tenants' numbers.
    pub fn due_totals(&self, sink: &str) -> impl Iterator<Item = (&[u8], Tally)> {
        let passed = self.not_selected(sink.as_bytes()).iter().copied().chain(std::iter::repeat(Tally::default()));
        self.names.iter().zip(&self.tenants).zip(passed).map(|((name, totals), passed)| (name.as_slice(), rest(totals.kept, passed)))
    }

    pub fn name(&self, number: u32) -> &[u8] {
        &self.names[number as usize]
    }

    /// What was kept in all, by number of the tenant.
    pub fn kept_totals(&self) -> impl Iterator<Item = (&[u8], Tally)> {
        self.names.iter().zip(&self.tenants).map(|(name, totals)| (name.as_slice(), totals.kept))
    }

    pub fn totals(&self) -> Totals {
        Totals {
            tenants: self.names.iter().cloned().zip(self.tenants.iter().cloned()).collect(),
            streams: self.streams.clone(),
            over_limit_records: self.over_limit_records,
            stray_rows: self.stray_rows,
        }
    }

    /// Names for tallies that are kept by number.
    pub fn by_name(&self, tallies: &[Tally]) -> BTreeMap<Vec<u8>, Tally> {
        self.names.iter().cloned().zip(tallies.iter().copied()).filter(|(_, t)| *t != Tally::default()).collect()
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_len(out, self.names.len());
        for (name, totals) in self.names.iter().zip(&self.tenants) {
            put_bytes(out, name);
            for tally in [totals.received, totals.created, totals.kept] {
                put_u64s(out, &[tally.records, tally.bytes]);
            }
            put_u64(out, totals.rows);
            put_len(out, totals.dropped.len());
            for (reason, tally) in &totals.dropped {
                out.push(*reason as u8);
                put_u64s(out, &[tally.records, tally.bytes]);
            }
            put_len(out, totals.notes.len());
            for (note, records) in &totals.notes {
                out.push(*note as u8);
                put_u64(out, *records);
            }
        }
        let streams = &self.streams;
        put_u64s(out, &[streams.read_bytes, streams.records_bytes, streams.framing_bytes]);
        put_i64(out, streams.held_bytes);
        put_len(out, streams.skipped.len());
        for (skip, bytes) in &streams.skipped {
            out.push(*skip as u8);
            put_u64(out, *bytes);
        }
        put_u64s(out, &[self.over_limit_records, self.stray_rows]);
        if !self.selects() {
            return;
        }
        put_len(out, self.not_selected.len());
        for (name, tallies) in &self.not_selected {
            put_bytes(out, name);
            put_len(out, tallies.len());
            tallies.iter().for_each(|tally| put_u64s(out, &[tally.records, tally.bytes]));
        }
    }

    /// `selects`: what [`Books::selects`] said when it was written.
    pub fn decode(r: &mut Reader, tenants_max: usize, selects: bool) -> Result<Books, Corrupt> {
        let mut books = Books::new(tenants_max);
        for number in 0..r.count(68)? {
            let name = r.bytes()?.to_vec();
            if books.numbers.insert(name.clone(), number as u32).is_some() {
                return Err(r.corrupt("a tenant occurs twice"));
            }
            books.names.push(name);
            let mut totals =
                TenantTotals { received: tally(r)?, created: tally(r)?, kept: tally(r)?, rows: r.u64()?, ..TenantTotals::default() };
            for _ in 0..r.count(17)? {
                let reason = Reason::from_code(r.u8()?).ok_or_else(|| r.corrupt("unknown reason"))?;
                totals.dropped.insert(reason, tally(r)?);
            }
            for _ in 0..r.count(9)? {
                let code = r.u8()?;
                let note = Note::ALL.into_iter().find(|n| *n as u8 == code).ok_or_else(|| r.corrupt("unknown note"))?;
                totals.notes.insert(note, r.u64()?);
            }
            books.tenants.push(totals);
        }
        let streams = &mut books.streams;
        (streams.read_bytes, streams.records_bytes, streams.framing_bytes, streams.held_bytes) = (r.u64()?, r.u64()?, r.u64()?, r.i64()?);
        for _ in 0..r.count(9)? {
            let skip = Skip::from_code(r.u8()?).ok_or_else(|| r.corrupt("unknown skip"))?;
            streams.skipped.insert(skip, r.u64()?);
        }
        (books.over_limit_records, books.stray_rows) = (r.u64()?, r.u64()?);
        for _ in 0..if selects { r.count(8)? } else { 0 } {
            let name = r.bytes()?.into();
            let n = r.count(16)?;
            if n > books.names.len() {
                return Err(r.corrupt("a sink has tallies of tenants that are not there"));
            }
            let tallies = (0..n).map(|_| tally(r)).collect::<Result<_, _>>()?;
            books.not_selected.insert(name, tallies);
        }
        Ok(books)
    }
}

fn tally(r: &mut Reader) -> Result<Tally, Corrupt> {
    Ok(Tally { records: r.u64()?, bytes: r.u64()? })
}

fn less(a: Tally, b: Tally) -> Option<Tally> {
    Some(Tally { records: a.records.checked_sub(b.records)?, bytes: a.bytes.checked_sub(b.bytes)? })
}

/// What is left of what was kept. A header that says of more records than there are that a sink does not take them
/// contradicts itself: the residual tells.
fn rest(kept: Tally, passed: Tally) -> Tally {
    Tally { records: kept.records.saturating_sub(passed.records), bytes: kept.bytes.saturating_sub(passed.bytes) }
}

/// Whether records with this outcome have rows.
pub(crate) fn has_rows(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Kept | Outcome::Created)
}

/// What some parts of a frame kept; with the bit of a sink, what they kept for it. By number of the tenant in the books.
fn kept_by(frame: &Frame, numbers: &[(u32, bool)], bit: Option<u32>, counts: impl FnMut(&Part) -> bool) -> Delta {
    let mut kept: BTreeMap<u32, Tally> = BTreeMap::new();
    for (tenant, tally) in kept_in(frame, bit, counts) {
        kept.entry(numbers[tenant].0).or_default().add(tally);
    }
    kept.into_iter().collect()
}

/// What some parts of a frame kept for a sink, by name of the tenant.
pub(crate) fn due_of(frame: &Frame, sink: &str, counts: impl FnMut(&Part) -> bool) -> BTreeMap<Vec<u8>, Tally> {
    let mut due: BTreeMap<Vec<u8>, Tally> = BTreeMap::new();
    for (tenant, tally) in kept_in(frame, frame.bit_of(sink.as_bytes()), counts) {
        due.entry(frame.tenants[tenant].to_vec()).or_default().add(tally);
    }
    due
}

/// By the frame's own tenants, those without anything left out. `counts` is asked once for each part, in order.
fn kept_in(frame: &Frame, bit: Option<u32>, mut counts: impl FnMut(&Part) -> bool) -> impl Iterator<Item = (usize, Tally)> {
    let mut kept = vec![Tally::default(); frame.tenants.len()];
    let mut passed = kept.clone();
    for part in frame.parts.iter().filter(|part| counts(part)) {
        for count in part.counts.iter().filter(|count| has_rows(count.outcome)) {
            kept[count.tenant as usize].add(Tally { records: count.records, bytes: count.bytes });
        }
        for selected in passed_by(part, bit) {
            passed[selected.tenant as usize].add(Tally { records: selected.records, bytes: selected.bytes });
        }
    }
    let due = kept.into_iter().zip(passed).map(|(kept, passed)| rest(kept, passed));
    due.enumerate().filter(|(_, tally)| *tally != Tally::default())
}

/// What the sink with this bit does not take of a part.
fn passed_by(part: &Part, bit: Option<u32>) -> impl Iterator<Item = &Selected> {
    part.selected.iter().filter(move |selected| bit.is_some_and(|bit| selected.sinks & bit == 0))
}

/// Adds what a frame kept to tallies by number.
pub(crate) fn add_delta(tallies: &mut Vec<Tally>, delta: &[(u32, Tally)]) {
    for (number, tally) in delta {
        let i = *number as usize;
        if tallies.len() <= i {
            tallies.resize(i + 1, Tally::default());
        }
        tallies[i].add(*tally);
    }
}

/// Takes away what [`add_delta`] added before.
pub(crate) fn take_delta(tallies: &mut [Tally], delta: &[(u32, Tally)]) {
    for (number, tally) in delta {
        let t = &mut tallies[*number as usize];
        t.records = t.records.checked_sub(tally.records).expect("what is committed was buffered before");
        t.bytes = t.bytes.checked_sub(tally.bytes).expect("what is committed was buffered before");
    }
}
