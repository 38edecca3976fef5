//! Facts that are one event each: of a meter with a key, of something held for a while, of a level, or refused.
//!
//! In: a record that counts, and where its fields lie. Out: one entry per meter and record, beside the row of the sums that says
//! tenant, dimensions and minute. A *key* is the values of the key fields, joined by 0x1f; two facts of one meter with the same
//! key are the same event. A key of more than [`KEY_BYTES_MAX`] bytes, or one whose values hold a 0x1f themselves, is cut to
//! [`KEY_HEAD_BYTES`] and ends in 32 hex digits of the SHA-256 of its values, each after its length: so no two are mixed up. A record
//! without any of the fields has an empty key and is noted as `no_key`: it counts, and nobody can tell its copy.
//!
//! What must not be counted is a *refused* entry: quantity 0, and as its key what the record says, cut at [`TEXT_BYTES_MAX`]. Of them
//! a frame holds [`REFUSED_MAX`]; what comes then is counted in one more entry for each meter, tenant and kind, which shows the
//! first of them. Memory: 64 bytes per entry and its key, in buffers that are kept.

use super::{DIM_BYTES_MAX, Group, Meter, Of, Quantities, Sums, read_quantity};
use crate::batch::Batch;
use crate::decimal::Decimal;
use crate::event::{EventKind, Note};
use crate::fields::{Kind, Span};
use crate::time::TimeParser;
use crate::units::{NANOS_PER_DAY, NANOS_PER_MINUTE, UnixNanos};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Longest key. Ids of requests and spans have 16 to 64 bytes; a few of them fit.
pub const KEY_BYTES_MAX: usize = 512;
/// What stays of a longer one, before 32 hex digits.
pub const KEY_HEAD_BYTES: usize = KEY_BYTES_MAX - 32;
/// Stands between the values of a key.
pub const KEY_SEPARATOR: u8 = 0x1f;
/// What a refused entry shows of the text that is no quantity.
pub const TEXT_BYTES_MAX: usize = 64;
/// Refused entries that a frame holds one by one: enough to see what is wrong, and 100 KiB.
pub const REFUSED_MAX: usize = 1_000;
/// How far event time may be ahead of its receipt (rule R13).
pub const AHEAD_NS_MAX: i64 = 5 * NANOS_PER_MINUTE;
/// The longest interval: what was held longer was not, but its start is wrong.
pub const INTERVAL_NS_MAX: i64 = 400 * NANOS_PER_DAY;

/// Of a group whose records become facts one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// [`EventKind::Point`], [`EventKind::Interval`] or [`EventKind::Sample`].
    pub kind: EventKind,
    /// Fields that name the event; empty: none does.
    pub key: Vec<usize>,
    pub times: Times,
}

/// Which fields say from when until when something was held. What is absent is the record's own time, or follows from the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub start: Option<usize>,
    pub end: Option<usize>,
    pub duration: Option<(usize, DurationUnit)>,
}

/// What a duration counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
pub enum DurationUnit {
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "min")]
    Minutes,
    #[serde(rename = "h")]
    Hours,
}

impl DurationUnit {
    /// The unit that a field's name ends in: `duration_ms`, `elapsedMs`, `request.seconds`.
    pub fn of_field(path: &str) -> Option<DurationUnit> {
        let name = path.rsplit('.').next().unwrap_or(path);
        let hump = name.rfind(|c: char| c.is_ascii_uppercase()).filter(|at| *at > 0 && !name[*at..].contains(['_', '-']));
        let word = hump.map_or_else(|| name.rsplit(['_', '-']).next().unwrap_or(name), |at| &name[at..]);
        Some(match word.to_ascii_lowercase().as_str() {
            "ns" | "nano" | "nanos" | "nanoseconds" => DurationUnit::Nanoseconds,
            "us" | "usec" | "micros" | "microseconds" => DurationUnit::Microseconds,
            "ms" | "msec" | "millis" | "milliseconds" => DurationUnit::Milliseconds,
            "s" | "sec" | "secs" | "second" | "seconds" => DurationUnit::Seconds,
            "minutes" => DurationUnit::Minutes, // `min` would be a minimum
            "h" | "hours" => DurationUnit::Hours,
            _ => return None,
        })
    }

    /// A decimal number of this unit in nanoseconds, cut; `None`: negative, or longer than an interval may be.
    pub(super) fn nanos(self, text: &[u8]) -> Option<i64> {
        let number = Decimal::parse(text).filter(|number| !number.is_negative())?;
        let (shift, factor) = match self {
            DurationUnit::Nanoseconds => (0, 1),
            DurationUnit::Microseconds => (3, 1),
            DurationUnit::Milliseconds => (6, 1),
            DurationUnit::Seconds => (9, 1),
            DurationUnit::Minutes => (9, 60),
            DurationUnit::Hours => (9, 3_600),
        };
        let nanos = i64::try_from(number.scaled(shift)?).ok()?.checked_mul(factor)?;
        (nanos <= INTERVAL_NS_MAX).then_some(nanos)
    }
}

impl Times {
    /// Whether a record lacks one of the fields.
    pub(super) fn is_missing(&self, spans: &[Span]) -> bool {
        let mut fields = [self.start, self.end, self.duration.map(|duration| duration.0)].into_iter().flatten();
        fields.any(|field| matches!(spans[field].kind, Kind::Missing | Kind::Null))
    }

    /// From when until when: `time` is the record's own. `None`: it has not all of these fields, and so is no event of this meter.
    /// `Err`: a field says no time, or one that cannot be.
    fn read(
        &self,
        record: &[u8],
        spans: &[Span],
        time: UnixNanos,
        parser: &mut TimeParser,
    ) -> Result<Option<(UnixNanos, UnixNanos)>, Refusal> {
        if self.is_missing(spans) {
            return Ok(None);
        }
        let mut time_of = |field: usize| {
            let (raw, kind) = (spans[field].raw(record), spans[field].kind);
            let refusal = || if TimeParser::is_beyond(raw, kind) { Refusal::Far(field) } else { Refusal::Time(field) };
            parser.parse(raw, kind).ok_or_else(refusal)
        };
        let start = self.start.map(&mut time_of).transpose()?;
        let end = self.end.map(&mut time_of).transpose()?;
        let length = self.duration.map(|(field, unit)| {
            let span = spans[field];
            Some(span).filter(|span| span.kind == Kind::Number).and_then(|span| unit.nanos(span.raw(record))).ok_or(Refusal::Time(field))
        });
        let length = length.transpose()?;
        let (start, end) = match (start, end, length) {
            (Some(start), None, Some(length)) => (start.0, start.0 + length),
            (Some(start), end, _) => (start.0, end.unwrap_or(time).0),
            (None, end, length) => {
                let end = end.unwrap_or(time).0;
                (end - length.unwrap_or(0), end)
            }
        };
        let last = self.end.or(self.start).or(self.duration.map(|duration| duration.0)).unwrap_or(0);
        let is_sound = start <= end && end - start <= INTERVAL_NS_MAX;
        if is_sound { Ok(Some((UnixNanos(start), UnixNanos(end)))) } else { Err(Refusal::Time(last)) }
    }
}

/// What one lane has of them since its frame began its present part.
#[derive(Default)]
pub(super) struct Buffer {
    entries: Vec<Entry>,
    keys: Vec<u8>,
    parser: TimeParser,
    /// How many refused entries the frame has; beyond the bound, those that count for others.
    refused: usize,
    more: HashMap<(u32, u8, EventKind, u32), usize>,
}

struct Entry {
    /// Of the sums: tenant, dimensions, minute.
    row: u32,
    meter: u8,
    kind: EventKind,
    events: u64,
    quantity: i64,
    at: UnixNanos,
    end: UnixNanos,
    position: u64,
    key: (u32, u32),
}

/// One event, borrowed from [`Sums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedEvent<'a> {
    /// Which of [`Sums::iter`] says tenant, dimensions and minute.
    pub row: usize,
    /// Number of the meter in the row's group.
    pub meter: usize,
    pub kind: EventKind,
    /// Records behind it: 1, or of a refused one those that nobody lists.
    pub events: u64,
    pub quantity: i64,
    pub at: UnixNanos,
    pub end: UnixNanos,
    pub position: u64,
    pub key: &'a [u8],
}

impl Buffer {
    /// Entries, as if a key were one of 128 bytes.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.keys.len() / 128
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.keys.clear();
        self.more.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ClosedEvent<'_>> {
        self.entries.iter().map(|entry| ClosedEvent {
            row: entry.row as usize,
            meter: entry.meter as usize,
            kind: entry.kind,
            events: entry.events,
            quantity: entry.quantity,
            at: entry.at,
            end: entry.end,
            position: entry.position,
            key: &self.keys[entry.key.0 as usize..(entry.key.0 + entry.key.1) as usize],
        })
    }

    pub(super) fn start_frame(&mut self) {
        self.refused = 0;
    }

    /// Appends the key of a record; returns where it lies.
    #[inline(always)]
    fn push_key(&mut self, fields: &[usize], record: &[u8], spans: &[Span]) -> (u32, u32) {
        let start = self.keys.len();
        let (mut is_there, mut is_plain) = (false, true);
        for (n, field) in fields.iter().enumerate() {
            if n > 0 {
                self.keys.push(KEY_SEPARATOR);
            }
            let before = self.keys.len();
            match spans[*field].kind {
                Kind::Missing | Kind::Null => {}
                Kind::Escaped => {
                    crate::escape::unescape_into(spans[*field].raw(record), &mut self.keys);
                    is_plain &= !self.keys[before..].contains(&KEY_SEPARATOR);
                }
                _ => self.keys.extend_from_slice(spans[*field].raw(record)),
            }
            is_there |= self.keys.len() > before;
        }
        if !is_there {
            self.keys.truncate(start);
        } else if !is_plain || self.keys.len() - start > KEY_BYTES_MAX {
            self.hash_key(start, fields, record, spans);
        }
        (start as u32, (self.keys.len() - start) as u32)
    }

    #[cold]
    fn hash_key(&mut self, start: usize, fields: &[usize], record: &[u8], spans: &[Span]) {
        let mut hash = Sha256::new();
        for field in fields {
            let value = spans[*field].text(record).unwrap_or_default();
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(&value);
        }
        let head = cut(&self.keys[start..], KEY_HEAD_BYTES).len();
        self.keys.truncate(start + head);
        for byte in hash.finalize().iter().take(16) {
            self.keys.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }

    fn refuse(&mut self, of: (u32, u8, EventKind, u32), row: u32, times: (UnixNanos, UnixNanos), position: u64, text: &[u8]) {
        let (_, meter, kind, _) = of;
        if self.refused >= REFUSED_MAX {
            if let Some(at) = self.more.get(&of) {
                self.entries[*at].events += 1;
                return;
            }
            self.more.insert(of, self.entries.len());
        }
        self.refused += 1;
        let text = cut(text, TEXT_BYTES_MAX);
        let key = (self.keys.len() as u32, text.len() as u32);
        self.keys.extend_from_slice(text);
        self.entries.push(Entry { row, meter, kind, events: 1, quantity: 0, at: times.0, end: times.1, position, key });
    }
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[nibble as usize]
}

/// The first `bytes_max` bytes of a text, less where a character would be cut.
fn cut(text: &[u8], bytes_max: usize) -> &[u8] {
    if text.len() <= bytes_max {
        return text;
    }
    let is_inside = |at: usize| text[at] & 0xc0 == 0x80;
    let end = (bytes_max.saturating_sub(3)..=bytes_max).rev().find(|at| !is_inside(*at)).unwrap_or(bytes_max);
    &text[..end]
}

/// Why a record is refused.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    /// What its meters read is no quantity, or a part above its whole: each meter says which.
    Quantity,
    /// The field says no time, or one that cannot be.
    Time(usize),
    /// It is ahead of its receipt.
    Future,
    /// So is what the field says, or the record's own time: of a year after 2100.
    Far(usize),
    Beyond,
    /// A key that a meter or the tenant is read from stands in it twice.
    Twice,
}

impl Group {
    /// One fact per record and meter.
    #[inline(always)]
    pub(super) fn add_event(&self, number: usize, events: &Events, batch: &mut Batch, i: usize, sums: &mut Sums) {
        let record = batch.record(i);
        let spans = batch.record_spans(i);
        let Quantities { values: quantities, found, mut notes, refused } = self.quantities(record, spans);
        let times = match events.kind {
            EventKind::Interval => events.times.read(record, spans, batch.time[i], &mut sums.events.parser),
            _ => Ok(Some((batch.time[i], batch.time[i]))),
        };
        if refused != 0 {
            self.refuse(number, batch, i, Refusal::Quantity, refused, (batch.time[i], batch.time[i]), sums);
        }
        match times {
            _ if found == 0 => {}
            Ok(Some((at, end))) if end.0 <= sums.ceiling => {
                let of = Of { group: number as u32, tenant: batch.tenant[i], minute: at.minute() };
                let row = self.entry(of, record, spans, sums) as u32;
                let key = sums.events.push_key(&events.key, record, spans);
                if key.1 == 0 && !events.key.is_empty() {
                    notes |= Note::NoKey.bit();
                }
                let position = batch.position[i];
                for (n, quantity) in (0u8..).zip(quantities).filter(|(n, _)| found >> n & 1 != 0) {
                    sums.events.entries.push(Entry { row, meter: n, kind: events.kind, events: 1, quantity, at, end, position, key });
                }
            }
            Ok(Some(times)) => {
                notes |= Note::Future.bit();
                self.refuse(number, batch, i, Refusal::Future, found, times, sums);
            }
            Ok(None) => {}
            Err(why) => {
                notes |= if matches!(why, Refusal::Far(_)) { Note::Future.bit() } else { Note::BadQuantity.bit() };
                self.refuse(number, batch, i, why, found, (batch.time[i], batch.time[i]), sums);
            }
        }
        if notes != 0 {
            batch.notes[i] |= notes;
        }
    }

    /// Puts a refused entry for each meter of `which`, a bit for each, beside the facts.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "of whom, of what, why and when: nobody else needs these together")]
    pub(super) fn refuse(
        &self,
        number: usize,
        batch: &Batch,
        i: usize,
        why: Refusal,
        which: u32,
        times: (UnixNanos, UnixNanos),
        sums: &mut Sums,
    ) {
        let (record, spans) = (batch.record(i), batch.record_spans(i));
        let of = Of { group: number as u32, tenant: batch.tenant[i], minute: times.0.minute() };
        let mut row = None;
        for (n, meter) in self.meters.iter().enumerate().filter(|(n, meter)| which >> n & 1 != 0 && !meter.lineage) {
            let own = || meter.quantity.map_or(Vec::new(), |field| shown(spans[field], record));
            let (kind, text) = match why {
                Refusal::Quantity => match meter.read(record, spans) {
                    Err(Note::PartAboveWhole) => (EventKind::PartAboveWhole, meter.part_above_whole(record, spans)),
                    _ => (EventKind::BadQuantity, meter.bad_quantity(record, spans)),
                },
                Refusal::Time(field) => (EventKind::BadQuantity, shown(spans[field], record)),
                Refusal::Far(field) => (EventKind::Future, shown(spans[field], record)),
                Refusal::Beyond => {
                    let at = batch.beyond.binary_search_by_key(&(i as u32), |beyond| beyond.0);
                    let field = at.ok().map(|at| batch.beyond[at].1 as usize);
                    (EventKind::Future, field.map_or(Vec::new(), |field| shown(spans[field], record)))
                }
                Refusal::Future => (EventKind::Future, own()),
                Refusal::Twice if meter.quantity.is_some_and(|field| spans[field].kind == Kind::Missing) => continue,
                Refusal::Twice => (EventKind::BadQuantity, own()),
            };
            let row = *row.get_or_insert_with(|| self.entry(of, record, spans, sums) as u32);
            sums.events.refuse((of.group, n as u8, kind, of.tenant), row, times, batch.position[i], &text);
        }
    }
}

impl Meter {
    /// The text that is no quantity: its own, or a part's or whole's that it has to be held against.
    fn bad_quantity(&self, record: &[u8], spans: &[Span]) -> Vec<u8> {
        let mut fields = self.quantity.iter().chain(&self.parts).chain(&self.wholes);
        let bad = fields.find(|field| read_quantity(spans[**field], record).is_err());
        bad.map_or(Vec::new(), |field| shown(spans[*field], record))
    }

    /// `900>800`: the part and what it should be in.
    fn part_above_whole(&self, record: &[u8], spans: &[Span]) -> Vec<u8> {
        let number = |field: usize| read_quantity(spans[field], record).ok().flatten();
        let pairs = |whole: usize, part: usize| number(part).is_some_and(|part| number(whole).is_none_or(|whole| part > whole));
        let own = self.quantity.unwrap_or(0);
        let as_whole = self.parts.iter().map(|part| (own, *part));
        let found = as_whole.chain(self.wholes.iter().map(|whole| (*whole, own))).find(|(whole, part)| pairs(*whole, *part));
        found.map_or(Vec::new(), |(whole, part)| [&*shown(spans[part], record), b">", &*shown(spans[whole], record)].concat())
    }
}

/// A value as it stands in the record, a text with its quotes. No more of it than is shown.
fn shown(span: Span, record: &[u8]) -> Vec<u8> {
    let raw = match span.kind {
        Kind::Missing => &[],
        _ => span.raw(record),
    };
    let raw = &raw[..raw.len().min(DIM_BYTES_MAX)];
    match span.kind {
        Kind::Text | Kind::Escaped => [b"\"", raw, b"\""].concat(),
        _ => raw.to_vec(),
    }
}
