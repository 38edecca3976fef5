//! Events with names, packed; copies and conflicts among them are found here (rule R7).
//!
//! In: events in any order. They lie in 64 parts by a hash of the key, so that a part can be looked through by itself:
//! whoever asks is told of each event whether it counts. Of those with one (meter, key) the first received one counts; by position
//! where several were received at once. Others within the window are copies if all their content is the same, else conflicts.
//! Most events have a key of their own, which their hashes tell: only those whose hash came twice are unpacked to be compared.
//! Points of one record with one key that come one after the other share all but series and quantity.
//! Bound: an event takes about 20 bytes and its key, or 5 where it shares them; of keys of digits, small letters and `-_.:/` a byte
//! takes 5 bits.

use super::{Doubt, Quarantined};
use crate::charge::Series;
use flow::event::{EventKind, StreamId};
use flow::units::{Span, UnixNanos};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// The ends of all parts, where events are written, fit the first cache.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 6;
/// Bytes that a part takes at a time, once it is not small any more.
const CHUNK_BYTES: usize = 32 << 10;
const NANOS_PER_MS: i64 = 1_000_000;

/// One event but for its key. `series` is a number of `Facts::series`; times in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub series: u32,
    pub kind: EventKind,
    pub quantity: i128,
    pub at: i64,
    pub end: i64,
    pub received: i64,
    pub stream: u64,
    pub position: u64,
}

impl Event {
    /// A point of 64 bits: `Facts` adds it up when it comes, as though it counted; almost all do.
    pub fn is_added_up(&self) -> bool {
        self.kind == EventKind::Point && small(self.quantity).is_some()
    }
}

/// Which events somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    All,
    /// Those that are added up already are told only if they do not count, or share their hash with others.
    NotAddedUp,
}

/// How an event stands to those with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Counts,
    Copy,
    Conflict,
}

/// Where an event lies: part, chunk and offset. It lies there for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    fn part(self) -> usize {
        (self.0 >> (64 - PART_BITS)) as usize
    }

    fn chunk(self) -> usize {
        (self.0 << PART_BITS >> (32 + PART_BITS)) as usize
    }
}

/// What was found besides the events that stay.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub duplicates: u64,
    pub conflicts: Vec<Quarantined>,
}

#[derive(Clone, Debug)]
pub struct Events {
    window: Span,
    parts: Vec<Vec<Vec<u8>>>,
    /// Times are kept as distances from the first one.
    base: Option<i64>,
    streams: HashMap<u64, u64>,
    stream_ids: Vec<u64>,
    /// By series: the hash of its meter.
    seeds: Vec<u64>,
    /// The last one that was asked for, and its number: facts come stream by stream.
    last_stream: Option<(u64, u64)>,
    /// The event that came last, where it lies, and at which offset its chunk tells its length; with its key.
    last: Option<(Event, Place, usize)>,
    last_key: Vec<u8>,
    scratch: Vec<u8>,
}

impl Events {
    pub fn new(window: Span) -> Events {
        Events {
            window,
            parts: vec![Vec::new(); PARTS],
            base: None,
            streams: HashMap::new(),
            stream_ids: Vec::new(),
            seeds: Vec::new(),
            last_stream: None,
            last: None,
            last_key: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The next series, by number, and its meter.
    pub fn add_series(&mut self, meter: &str) {
        let mut hash = Fold(meter.len() as u64);
        hash.write(meter.as_bytes());
        self.seeds.push(hash.finish());
    }

    /// Returns where its key lies.
    pub fn add(&mut self, event: &Event, key: &[u8]) -> Place {
        if let Some(place) = self.add_to_last(event, key) {
            return place;
        }
        let base = *self.base.get_or_insert(event.at.div_euclid(NANOS_PER_MS) * NANOS_PER_MS);
        let stream = self.stream_number(event.stream);
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        pack_key(key, &mut bytes);
        let hash = match key.is_empty() {
            true => mix(mix(1, event.stream), event.position),
            false => hash_of(&bytes),
        };
        let body = bytes.len();
        bytes.push(0);
        pack(event, stream, base, &mut bytes);
        bytes[body] = (bytes.len() - body - 1) as u8; // at most 72: 9 numbers, the longest of 16 bytes
        let number = hash >> (64 - PART_BITS);
        let part = &mut self.parts[number as usize];
        if part.last().is_none_or(|chunk| chunk.capacity() - chunk.len() < bytes.len()) {
            let next = part.last().map_or(64, |chunk| (chunk.capacity() * 2).min(CHUNK_BYTES));
            part.push(Vec::with_capacity(next.max(bytes.len())));
        }
        let index = part.len() as u64 - 1;
        let chunk = part.last_mut().expect("one was just made");
        let place = Place(number << (64 - PART_BITS) | index << 32 | chunk.len() as u64);
        self.last = Some((*event, place, chunk.len() + body));
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        chunk.extend_from_slice(&bytes);
        self.scratch = bytes;
        place
    }

    /// Another meter's point of the record that came last: its series and quantity follow the event that lies there.
    fn add_to_last(&mut self, event: &Event, key: &[u8]) -> Option<Place> {
        let (last, place, length_at) = self.last.as_mut()?;
        let record = |e: &'_ Event| (e.at, e.received, e.stream, e.position);
        let is_same = record(last) == record(event) && last.is_added_up() && event.is_added_up();
        if !is_same || key.is_empty() || self.last_key != key {
            return None;
        }
        self.scratch.clear();
        self.scratch.push(0);
        put_number(event.series.into(), &mut self.scratch);
        put_number(zigzag(event.quantity as i64), &mut self.scratch);
        self.scratch[0] = self.scratch.len() as u8 - 1;
        let chunk = &mut self.parts[place.part()][place.chunk()];
        if chunk.capacity() - chunk.len() < self.scratch.len() {
            return None;
        }
        chunk[*length_at] |= MORE;
        *length_at = chunk.len();
        chunk.extend_from_slice(&self.scratch);
        Some(*place)
    }

    /// The key of the event that lies there.
    pub fn key_at(&self, place: Place) -> Key<'_> {
        let chunk = &self.parts[place.part()][place.chunk()];
        unpack_key(&mut &chunk[place.0 as u32 as usize..])
    }

    fn stream_number(&mut self, stream: u64) -> u64 {
        if let Some((last, number)) = self.last_stream
            && last == stream
        {
            return number;
        }
        let number = *self.streams.entry(stream).or_insert_with(|| {
            self.stream_ids.push(stream);
            self.stream_ids.len() as u64 - 1
        });
        self.last_stream = Some((stream, number));
        number
    }

    pub fn memory_bytes(&self) -> usize {
        self.parts.iter().flatten().map(|chunk| chunk.capacity() + size_of::<Vec<u8>>()).sum()
    }

    /// Calls `take` for each event that is asked for, in no particular order. `series`: by number.
    pub fn each(&self, asked: Asked, series: &[Arc<Series>], take: &mut dyn FnMut(&Event, Key<'_>, Standing)) -> Found {
        let mut found = Found::default();
        let mut entries: Vec<(u64, Entry<'_>)> = Vec::new();
        let mut hashes = Hashes::default();
        for part in &self.parts {
            entries.clear();
            for mut rest in part.iter().map(Vec::as_slice) {
                while !rest.is_empty() {
                    let key = unpack_key(&mut rest);
                    let key_hash = hash_of(key.0);
                    let mut entry = Entry { key, body: &[], other: &[] };
                    let mut is_more = true;
                    while is_more {
                        let bytes;
                        (bytes, is_more) = take_body(&mut rest);
                        match entry.body.is_empty() {
                            true => entry.body = bytes,
                            false => entry.other = bytes,
                        }
                        entries.push((mix(key_hash, self.seeds[entry.series() as usize]), entry));
                    }
                }
            }
            let mut again = hashes.of_several(&entries);
            let mut next_again = again.iter().map(|(_, index)| *index as usize).peekable();
            for (index, (_, entry)) in entries.iter().enumerate() {
                if next_again.next_if_eq(&index).is_none() && (asked == Asked::All || !entry.is_added_up()) {
                    take(&self.unpack(entry), entry.key, Standing::Counts);
                }
            }
            again.sort_unstable();
            for group in again.chunk_by(|a, b| a.0 == b.0) {
                let group = group.iter().map(|(_, index)| &entries[*index as usize].1);
                self.judge(group.map(|entry| (self.unpack(entry), entry.key)).collect(), series, take, &mut found);
            }
        }
        found
    }

    fn unpack(&self, entry: &Entry<'_>) -> Event {
        let mut event = unpack(&mut &entry.body[..], self.base.unwrap_or(0), &self.stream_ids);
        if !entry.other.is_empty() {
            let mut rest = entry.other;
            event.series = take_number(&mut rest) as u32;
            event.quantity = unzigzag(take_number(&mut rest)).into();
        }
        event
    }

    /// Events whose hash is the same: almost always copies of one.
    fn judge<'a>(
        &self,
        mut members: Vec<(Event, Key<'a>)>,
        series: &[Arc<Series>],
        take: &mut dyn FnMut(&Event, Key<'_>, Standing),
        found: &mut Found,
    ) {
        let of = |event: &Event| &series[event.series as usize];
        members.sort_by(|(a, key_a), (b, key_b)| {
            let order = |e: &'_ Event| (e.received, e.stream, e.position);
            let content = |e: &'_ Event| (e.kind, e.quantity, e.at, e.end);
            (&of(a).meter, key_a.0)
                .cmp(&(&of(b).meter, key_b.0))
                .then(order(a).cmp(&order(b)))
                .then_with(|| of(a).cmp(of(b)))
                .then(content(a).cmp(&content(b)))
        });
        let mut first: Option<&(Event, Key<'a>)> = None;
        for member in &members {
            let (event, key) = member;
            let original = first.filter(|(other, of_other)| {
                let age = i128::from(event.received) - i128::from(other.received);
                *of_other == *key && of(other).meter == of(event).meter && age <= i128::from(self.window.0)
            });
            let Some((original, _)) = original else {
                first = Some(member);
                take(event, *key, Standing::Counts);
                continue;
            };
            let content = |e: &Event| (e.series, e.kind, e.quantity, e.at, e.end);
            if content(original) == content(event) {
                found.duplicates += 1;
                take(event, *key, Standing::Copy);
                continue;
            }
            take(event, *key, Standing::Conflict);
            found.conflicts.push(Quarantined {
                at: UnixNanos(event.at),
                end: UnixNanos(event.end),
                series: of(event).clone(),
                why: Doubt::Conflict,
                quantity: event.quantity,
                key: key.bytes(),
                stream: StreamId(event.stream),
                position: event.position,
                received: UnixNanos(event.received),
            });
        }
    }
}

/// An event as it lies in its part: its key; the length of the rest in one byte, with the bit `MORE` if another event of this
/// record follows; the rest. What follows is length, series and quantity.
#[derive(Clone, Copy)]
struct Entry<'a> {
    key: Key<'a>,
    body: &'a [u8],
    /// Series and quantity, if they are not those of the body; else empty.
    other: &'a [u8],
}

const MORE: u8 = 128;

impl Entry<'_> {
    fn series(&self) -> u32 {
        let mut rest = if self.other.is_empty() { &self.body[1..] } else { self.other };
        take_number(&mut rest) as u32
    }

    /// As `Event::is_added_up`.
    fn is_added_up(&self) -> bool {
        self.body[0] & (KIND | WIDE) == EventKind::Point as u8
    }
}

/// What the next length is the length of, and whether more follows.
fn take_body<'a>(rest: &mut &'a [u8]) -> (&'a [u8], bool) {
    let (body, after) = rest[1..].split_at((rest[0] & !MORE).into());
    let is_more = rest[0] & MORE != 0;
    *rest = after;
    (body, is_more)
}

/// Finds the hashes of a part that occur more than once. An open table: 32 bits of the hash, and 1 more than an entry's index.
#[derive(Default)]
struct Hashes {
    slots: Vec<(u32, u32)>,
}

impl Hashes {
    /// Hash and index of each entry that shares its hash, in the order of indices. What has no key shares with nobody.
    fn of_several(&mut self, entries: &[(u64, Entry<'_>)]) -> Vec<(u64, u32)> {
        self.slots.clear();
        self.slots.resize((entries.len() * 2).next_power_of_two(), (0, 0));
        let mask = self.slots.len() - 1;
        let mut several = Vec::new();
        for (index, (hash, entry)) in entries.iter().enumerate() {
            if entry.key.is_empty() {
                continue;
            }
            let mark = (*hash >> 20) as u32;
            let mut at = *hash as usize & mask;
            loop {
                let slot = &mut self.slots[at];
                if slot.1 == 0 {
                    *slot = (mark, index as u32 + 1);
                    break;
                }
                if slot.0 == mark && entries[slot.1 as usize - 1].0 == *hash {
                    several.extend([(*hash, slot.1 - 1), (*hash, index as u32)]);
                    break;
                }
                at = (at + 1) & mask;
            }
        }
        several.sort_unstable_by_key(|(_, index)| *index);
        several.dedup();
        several
    }
}

/// A key as it is packed: equal keys are equal bytes, but their order is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a>(&'a [u8]);

/// What keys are mostly made of: 32 signs, 5 bits each.
const SIGNS: &[u8; 32] = b"0123456789abcdef-_.:/\x1filnopqrstu";

const CODES: [u8; 256] = {
    let mut codes = [255; 256];
    let mut code = 0;
    while code < SIGNS.len() {
        codes[SIGNS[code] as usize] = code as u8;
        code += 1;
    }
    codes
};

impl Key<'_> {
    pub fn is_empty(self) -> bool {
        self.0 == [0]
    }

    /// The key as it came.
    pub fn bytes(self) -> Vec<u8> {
        let mut rest = self.0;
        let head = take_number(&mut rest);
        let length = (head >> 1) as usize;
        if head & 1 == 0 {
            return rest.to_vec();
        }
        let mut bits = Bits::default();
        let mut rest = rest.iter();
        (0..length).map(|_| SIGNS[bits.take(5, &mut rest) as usize]).collect()
    }
}

#[derive(Default)]
struct Bits {
    held: u32,
    count: u32,
}

impl Bits {
    fn take(&mut self, count: u32, bytes: &mut std::slice::Iter<'_, u8>) -> u32 {
        if self.count < count {
            self.held |= u32::from(bytes.next().copied().unwrap_or(0)) << self.count;
            self.count += 8;
        }
        let value = self.held & ((1 << count) - 1);
        (self.held, self.count) = (self.held >> count, self.count - count);
        value
    }
}

fn pack_key(key: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    put_number((key.len() as u64) << 1 | 1, out);
    let (groups, rest) = key.as_chunks::<8>();
    let mut all = 0;
    for group in groups {
        // 8 signs are 40 bits; a byte that is no sign leaves its mark in `all`.
        let mut bits = 0u64;
        for (index, byte) in group.iter().enumerate() {
            let code = CODES[*byte as usize];
            all |= code;
            bits |= u64::from(code) << (5 * index);
        }
        out.extend_from_slice(&bits.to_le_bytes()[..5]);
    }
    let mut bits = 0u64;
    for (index, byte) in rest.iter().enumerate() {
        let code = CODES[*byte as usize];
        all |= code;
        bits |= u64::from(code) << (5 * index);
    }
    out.extend(bits.to_le_bytes().iter().take((rest.len() * 5).div_ceil(8)));
    if key.is_empty() || all >= 32 {
        out.truncate(start);
        put_number((key.len() as u64) << 1, out);
        out.extend_from_slice(key);
    }
}

fn unpack_key<'a>(rest: &mut &'a [u8]) -> Key<'a> {
    let whole = *rest;
    let head = take_number(rest);
    let length = (head >> 1) as usize;
    let bytes = if head & 1 == 0 { length } else { (length * 5).div_ceil(8) };
    *rest = &rest[bytes..];
    Key(&whole[..whole.len() - rest.len()])
}

const KIND: u8 = 7;
const AT_MS: u8 = 8;
const RECEIVED_MS: u8 = 16;
const WIDE: u8 = 32;

/// A quantity of 64 bits whose negative is one, too.
fn small(quantity: i128) -> Option<i64> {
    i64::try_from(quantity).ok().filter(|small| *small != i64::MIN)
}

/// First byte: kind and which forms follow. Then series, time, length, receipt, quantity, stream, position.
fn pack(event: &Event, stream: u64, base: i64, out: &mut Vec<u8>) {
    let is_ms = |time: i64| time.rem_euclid(NANOS_PER_MS) == 0;
    let small = small(event.quantity);
    let form = |flag: u8, is: bool| if is { flag } else { 0 };
    let head = event.kind as u8
        | form(AT_MS, is_ms(event.at))
        | form(RECEIVED_MS, is_ms(event.received.wrapping_sub(event.at)))
        | form(WIDE, small.is_none());
    out.push(head);
    put_number(u64::from(event.series), out);
    put_time(event.at, base, out);
    if event.kind == EventKind::Interval {
        put_number(event.end.wrapping_sub(event.at) as u64, out);
    }
    put_time(event.received.wrapping_sub(event.at), 0, out);
    match small {
        Some(small) => put_number(zigzag(small), out),
        None => out.extend_from_slice(&event.quantity.to_le_bytes()),
    }
    put_number(stream, out);
    put_number(event.position, out);
}

fn unpack(rest: &mut &[u8], base: i64, streams: &[u64]) -> Event {
    let head = rest[0];
    *rest = &rest[1..];
    let kind = EventKind::from_code(head & KIND).expect("it was packed from a kind");
    let series = take_number(rest) as u32;
    let at = take_time(rest, base, head & AT_MS != 0);
    let end = if kind == EventKind::Interval { at.wrapping_add(take_number(rest) as i64) } else { at };
    let received = at.wrapping_add(take_time(rest, 0, head & RECEIVED_MS != 0));
    let quantity = if head & WIDE == 0 {
        i128::from(unzigzag(take_number(rest)))
    } else {
        let (bytes, after) = rest.split_first_chunk::<16>().expect("16 bytes were packed");
        *rest = after;
        i128::from_le_bytes(*bytes)
    };
    let stream = streams[take_number(rest) as usize];
    let position = take_number(rest);
    Event { series, kind, quantity, at, end, received, stream, position }
}

fn put_time(time: i64, base: i64, out: &mut Vec<u8>) {
    let distance = match time.rem_euclid(NANOS_PER_MS) {
        0 => time.div_euclid(NANOS_PER_MS) - base.div_euclid(NANOS_PER_MS),
        _ => time.wrapping_sub(base),
    };
    put_number(zigzag(distance), out);
}

fn take_time(rest: &mut &[u8], base: i64, is_ms: bool) -> i64 {
    let distance = unzigzag(take_number(rest));
    if is_ms { (distance + base.div_euclid(NANOS_PER_MS)) * NANOS_PER_MS } else { base.wrapping_add(distance) }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// 7 bits a byte, the lowest first.
fn put_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_number(rest: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return value;
        }
        shift += 7;
    }
}

fn hash_of(key: &[u8]) -> u64 {
    let mut hash = Fold(key.len() as u64);
    hash.write(key);
    hash.finish()
}

/// Folded multiplication, as in wyhash: it only spreads events over parts; equality is judged by the keys.
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word ^ 0xa076_1d64_78bd_642f) * u128::from(word.rotate_left(32) ^ 0xe703_7ed1_a0b4_28db);
    (product >> 64) as u64 ^ product as u64
}

/// The same for maps: of numbers that nobody else chooses, or, from a secret seed, of names that somebody might.
#[derive(Clone, Debug, Default)]
pub struct Fold(u64);

/// Starts `Fold` at a number that nobody outside knows. What a map holds does not depend on it.
#[derive(Clone, Debug)]
pub struct Secret(u64);

impl Default for Secret {
    fn default() -> Secret {
        Secret(std::hash::RandomState::new().hash_one(0u64))
    }
}

impl BuildHasher for Secret {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold(self.0)
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.0 = mix(self.0, u64::from_le_bytes(*word)));
        // With the length known, as each caller says it, these words are as good as the bytes.
        let word = |at: usize| u64::from(u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]));
        let last = match rest.len() {
            0 => 0,
            1..4 => u64::from(rest[0]) | u64::from(rest[rest.len() / 2]) << 8 | u64::from(rest[rest.len() - 1]) << 16,
            length => word(0) | word(length - 4) << 32,
        };
        self.0 = mix(self.0, last);
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = mix(self.0, value as u64);
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = mix(self.0, value.into());
    }

    fn write_i64(&mut self, value: i64) {
        self.0 = mix(self.0, value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_comes_out_as_it_went_in() {
        let seed = crate::seed();
        let mut random = crate::Random(seed);
        for round in 0..20_000 {
            let time = |random: &mut crate::Random| {
                let time = random.next() as i64 >> random.below(60);
                if random.below(2) == 0 { time / NANOS_PER_MS * NANOS_PER_MS } else { time }
            };
            let at = time(&mut random);
            let kind = [EventKind::Point, EventKind::Interval, EventKind::Sample][random.below(3) as usize];
            let event = Event {
                series: random.next() as u32,
                kind,
                quantity: random.wide() as i128,
                at,
                end: if kind == EventKind::Interval { at.saturating_add(random.next() as i64 >> 8) } else { at },
                received: time(&mut random),
                stream: 77,
                position: random.next() >> random.below(64),
            };
            let alphabet: &[u8] = if random.below(2) == 0 { SIGNS } else { b"ABC abc\x00\xff" };
            let key: Vec<u8> = (0..random.below(60)).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]).collect();
            let base = time(&mut random).div_euclid(NANOS_PER_MS) * NANOS_PER_MS;
            let mut bytes = Vec::new();
            pack_key(&key, &mut bytes);
            pack(&event, 0, base, &mut bytes);
            let mut rest = bytes.as_slice();
            let back = unpack_key(&mut rest);
            assert_eq!(back.bytes(), key, "seed {seed} round {round}");
            assert_eq!(back.is_empty(), key.is_empty());
            assert_eq!(unpack(&mut rest, base, &[77]), event, "seed {seed} round {round}");
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn all_events_are_told_whatever_they_share() {
        let seed = crate::seed();
        let mut random = crate::Random(seed);
        let meters = ["in", "cached", "out"];
        let series = |meter: &&str| Arc::new(Series { tenant: b"t".into(), dims: vec![], meter: meter.to_string(), unit: "".into() });
        let series: Vec<Arc<Series>> = meters.iter().map(series).collect();
        let mut events = Events::new(Span(0));
        meters.iter().for_each(|meter| events.add_series(meter));
        let mut want = Vec::new();
        for record in 0..20_000u64 {
            let at = (random.next() >> 4) as i64;
            // Some records differ from the one before in one thing only.
            let (stream, position) = (random.below(2), record / 2);
            for number in 0..3 {
                let quantity = if random.below(9) == 0 { random.wide() as i128 } else { i128::from(random.below(5_000)) };
                let kind = if random.below(9) == 0 { EventKind::Sample } else { EventKind::Point };
                let event = Event { series: number, kind, quantity, at, end: at, received: at + random.below(2) as i64, stream, position };
                let key = format!("{record}{}", ["", "A", &"long".repeat(random.below(40) as usize)][random.below(3) as usize]);
                let place = events.add(&event, key.as_bytes());
                assert_eq!(events.key_at(place).bytes(), key.as_bytes(), "seed {seed} record {record}");
                want.push((event, key.into_bytes(), Standing::Counts));
            }
        }
        let order = |(event, key, _): &(Event, Vec<u8>, Standing)| (event.series, key.clone());
        want.sort_by_key(order);
        let is_told = |(event, ..): &(Event, Vec<u8>, Standing)| !event.is_added_up();
        for (asked, want) in [(Asked::All, want.clone()), (Asked::NotAddedUp, want.into_iter().filter(is_told).collect())] {
            let mut told = Vec::new();
            let found = events.each(asked, &series, &mut |event, key, standing| told.push((*event, key.bytes(), standing)));
            told.sort_by_key(order);
            assert!(told == want, "seed {seed}, {asked:?}: {} of {} events", told.len(), want.len());
            assert_eq!((found.duplicates, found.conflicts.len()), (0, 0));
        }
    }
}
