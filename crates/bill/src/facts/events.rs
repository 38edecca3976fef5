//! Events with names, packed; copies and conflicts among them are found here (rule R7).
//!
//! In: events in any order. They lie in 256 parts by a hash of (meter, key), so that a part can be unpacked and sorted by
//! itself: whoever asks gets each event once. Of those with one (meter, key) the first received one stays, and counts; by position
//! where several were received at once. Others within the window are copies if all their content is the same, else conflicts.
//! Bound: an event takes about 20 bytes and its key, of which keys of digits, small letters and `-_.:/` take 5 bits a byte.

use super::{Doubt, Quarantined};
use crate::charge::Series;
use flow::event::{EventKind, StreamId};
use flow::units::{Span, UnixNanos};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

const PARTS: usize = 256;
/// Bytes that a part takes at a time, once it is not small any more.
const CHUNK_BYTES: usize = 16 << 10;
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
    /// The last one that was asked for, and its number: facts come stream by stream.
    last_stream: Option<(u64, u64)>,
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
            last_stream: None,
            scratch: Vec::new(),
        }
    }

    pub fn add(&mut self, event: &Event, key: &[u8], meter: &str) {
        let base = *self.base.get_or_insert(event.at.div_euclid(NANOS_PER_MS) * NANOS_PER_MS);
        let stream = self.stream_number(event.stream);
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        pack_key(key, &mut bytes);
        let hash = match key.is_empty() {
            true => mix(mix(1, event.stream), event.position),
            false => hash_of(meter, &bytes),
        };
        pack(event, stream, base, &mut bytes);
        let part = &mut self.parts[(hash >> 56) as usize];
        if part.last().is_none_or(|chunk| chunk.capacity() - chunk.len() < bytes.len()) {
            let next = part.last().map_or(64, |chunk| (chunk.capacity() * 2).min(CHUNK_BYTES));
            part.push(Vec::with_capacity(next.max(bytes.len())));
        }
        part.last_mut().expect("one was just made").extend_from_slice(&bytes);
        self.scratch = bytes;
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

    /// Calls `take` once for each event that counts, in no particular order. `series`: by number.
    pub fn each(&self, series: &[Arc<Series>], take: &mut dyn FnMut(&Event, Key<'_>)) -> Found {
        let mut found = Found::default();
        let mut events: Vec<(Event, Key<'_>)> = Vec::new();
        let mut order: Vec<(u64, u32)> = Vec::new();
        for part in &self.parts {
            events.clear();
            order.clear();
            for mut rest in part.iter().map(Vec::as_slice) {
                while !rest.is_empty() {
                    let key = unpack_key(&mut rest);
                    let event = unpack(&mut rest, self.base.unwrap_or(0), &self.stream_ids);
                    order.push((hash_of(&series[event.series as usize].meter, key.0), events.len() as u32));
                    events.push((event, key));
                }
            }
            order.sort_unstable();
            for group in order.chunk_by(|a, b| a.0 == b.0) {
                match group {
                    [(_, only)] => take(&events[*only as usize].0, events[*only as usize].1),
                    _ => self.judge(group, &events, series, take, &mut found),
                }
            }
        }
        found
    }

    /// Events whose hash is the same: almost always copies of one.
    fn judge<'a>(
        &self,
        group: &[(u64, u32)],
        events: &[(Event, Key<'a>)],
        series: &[Arc<Series>],
        take: &mut dyn FnMut(&Event, Key<'_>),
        found: &mut Found,
    ) {
        let of = |event: &Event| &series[event.series as usize];
        let mut members: Vec<&(Event, Key<'a>)> = group.iter().map(|(_, index)| &events[*index as usize]).collect();
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
        for member in members {
            let (event, key) = member;
            let original = first.filter(|(other, of_other)| {
                let age = i128::from(event.received) - i128::from(other.received);
                !key.is_empty() && *of_other == *key && of(other).meter == of(event).meter && age <= i128::from(self.window.0)
            });
            let Some((original, _)) = original else {
                first = Some(member);
                take(event, *key);
                continue;
            };
            let content = |e: &Event| (e.series, e.kind, e.quantity, e.at, e.end);
            if content(original) == content(event) {
                found.duplicates += 1;
                continue;
            }
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
    let length = (key.len() as u64) << 1;
    if key.is_empty() || key.iter().any(|byte| CODES[*byte as usize] == 255) {
        put_number(length, out);
        out.extend_from_slice(key);
        return;
    }
    put_number(length | 1, out);
    let (mut held, mut count) = (0u32, 0);
    for byte in key {
        held |= u32::from(CODES[*byte as usize]) << count;
        count += 5;
        if count >= 8 {
            out.push(held as u8);
            (held, count) = (held >> 8, count - 8);
        }
    }
    if count > 0 {
        out.push(held as u8);
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

const AT_MS: u8 = 8;
const RECEIVED_MS: u8 = 16;
const WIDE: u8 = 32;

/// First byte: kind and which forms follow. Then series, time, length, receipt, quantity, stream, position.
fn pack(event: &Event, stream: u64, base: i64, out: &mut Vec<u8>) {
    let is_ms = |time: i64| time.rem_euclid(NANOS_PER_MS) == 0;
    let small = i64::try_from(event.quantity).ok();
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
    let kind = EventKind::from_code(head & 7).expect("it was packed from a kind");
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

fn hash_of(meter: &str, key: &[u8]) -> u64 {
    let mut hash = Fold(mix(meter.len() as u64, key.len() as u64));
    hash.write(meter.as_bytes());
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
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.0 = mix(self.0, u64::from_le_bytes(last));
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
}
