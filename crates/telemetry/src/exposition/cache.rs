//! What is known of a target's series from scrape to scrape.
//!
//! Two tables. *Entries*: the text of a series as it stands in the body, and which series it is after merging and relabelling, so
//! that this is done once. *Series*: the bytes of the series part, ready to be copied, and in which scrape it was last seen, so that
//! its end is noticed. Texts come in the same order scrape after scrape, so each entry remembers which one followed: as a rule finding
//! one is comparing bytes, without hashing and without looking for its end. All bytes lie in one arena, in the order of the body.
//!
//! Bound: entries and series of the last good scrape and of the present one, which the body's size bounds.

use super::lines;
use crate::sample::Type;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::ops::Range;

pub const NONE: u32 = u32::MAX;
/// In the place of a series: relabelling drops it.
pub const DROPPED: u32 = u32::MAX - 1;
/// In the place of a series: its value is the start of others and no sample.
pub const START_ONLY: u32 = u32::MAX - 2;
/// Families that are remembered beyond twice those of the last scrape.
const METAS_SPARE: usize = 1_000;
const GARBAGE_MIN: usize = 64 << 10;

#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    at: u32,
    len: u32,
}

impl Piece {
    fn range(self) -> Range<usize> {
        self.at as usize..self.at as usize + self.len as usize
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Empty: the entry is free.
    key: Piece,
    pub series: u32,
    /// The family that the body spoke of when this was read; under another one it is read anew.
    pub family: u32,
    /// Which samples share a start with it; [`NONE`]: not asked yet.
    pub point: u32,
    next: u32,
    pub seen: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// Empty: the series is free.
    part: Piece,
    /// The part without what lies between is who it is: type and unit are not.
    metric_len: u32,
    labels_at: u32,
    refs: u32,
    /// Its last sample was written in this scrape, at `last_at`.
    pub seen: u32,
    pub last_at: i64,
    /// The scrape that last promised to tell of its end.
    pub tracked: u32,
    /// It had a sample in the last good scrape, and nobody was told of its end.
    pub is_live: bool,
}

/// A metric family, as the lines before its samples tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    pub name: Vec<u8>,
    pub kind: Type,
    pub unit: Vec<u8>,
}

#[derive(Default)]
pub struct Cache {
    arena: Vec<u8>,
    garbage: usize,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    index: HashTable<u32>,
    series: Vec<Series>,
    free_series: Vec<u32>,
    series_index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    families: Vec<Family>,
    family_index: HashTable<u32>,
    /// Number of `families[0]`: numbers are never given twice.
    families_base: u32,
    families_seen: u32,
    /// The scrape that is being read.
    pub scrape: u32,
    /// Which entry is expected, and which one was the last.
    guess: u32,
    last: u32,
}

/// The arena is full: 4 GiB.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl Cache {
    pub fn begin(&mut self) {
        self.scrape = self.scrape.wrapping_add(1).max(1);
        self.last = NONE;
        self.guess = 0;
        self.families_seen = 0;
    }

    pub fn entries(&self) -> usize {
        self.entries.len() - self.free_entries.len()
    }

    #[inline]
    pub fn entry(&mut self, number: u32) -> &mut Entry {
        &mut self.entries[number as usize]
    }

    #[inline]
    pub fn series(&mut self, number: u32) -> &mut Series {
        &mut self.series[number as usize]
    }

    /// The bytes of a series part, without its closing brace.
    #[inline]
    pub fn part(&self, series: u32) -> &[u8] {
        &self.arena[self.series[series as usize].part.range()]
    }

    /// Finds the text that `rest` begins with. Returns its entry and length; `Err`: where a series that is not known would end, or
    /// `None` if no series stands there.
    #[inline]
    pub fn find(&mut self, rest: &[u8]) -> Result<(u32, usize), Option<usize>> {
        if let Some(entry) = self.entries.get(self.guess as usize) {
            let len = entry.key.len as usize;
            let key = &self.arena[entry.key.range()];
            if len > 0 && rest.len() > len + 1 && rest.starts_with(key) {
                // A name alone may go on, or its labels stand after a blank.
                let ends = key[len - 1] == b'}' || rest[len] == b' ' && !matches!(rest[len + 1], b' ' | b'\t' | b'{');
                if ends {
                    self.last = self.guess;
                    self.guess = entry.next;
                    return Ok((self.last, len));
                }
            }
        }
        let len = lines::series_len(rest).ok_or(None)?;
        self.find_key(&rest[..len]).map(|number| (number, len)).ok_or(Some(len))
    }

    /// Finds a whole key.
    pub fn find_key(&mut self, key: &[u8]) -> Option<u32> {
        if let Some(entry) = self.entries.get(self.guess as usize)
            && !key.is_empty()
            && self.arena[entry.key.range()] == *key
        {
            self.last = self.guess;
            self.guess = entry.next;
            return Some(self.last);
        }
        let hash = self.hasher.hash_one(key);
        let (entries, arena) = (&self.entries, &self.arena);
        let number = *self.index.find(hash, |number| arena[entries[*number as usize].key.range()] == *key)?;
        self.follow(number);
        Some(number)
    }

    fn follow(&mut self, number: u32) {
        if let Some(last) = self.entries.get_mut(self.last as usize) {
            last.next = number;
        }
        self.last = number;
        self.guess = self.entries[number as usize].next;
    }

    /// Adds an entry for a key that is not known.
    pub fn add(&mut self, key: &[u8], family: u32) -> Result<u32, Full> {
        let key_piece = self.keep(key)?;
        let entry = Entry { key: key_piece, series: NONE, family, point: NONE, next: NONE, seen: self.scrape };
        let number = match self.free_entries.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        // As a rule the next one comes to lie behind it.
        self.entries[number as usize].next = number + 1;
        let hash = self.hasher.hash_one(key);
        let (entries, arena, hasher) = (&self.entries, &self.arena, &self.hasher);
        self.index.insert_unique(hash, number, |number| hasher.hash_one(&arena[entries[*number as usize].key.range()]));
        self.follow(number);
        Ok(number)
    }

    /// Says which series an entry is, or [`DROPPED`]. `part`: the series part; `None` drops. Returns its number.
    pub fn assign(&mut self, entry: u32, part: Option<&[u8]>, dropped: u32) -> Result<u32, Full> {
        let series = match part {
            Some(part) => self.find_or_add_series(part)?,
            None => dropped,
        };
        let before = std::mem::replace(&mut self.entries[entry as usize].series, series);
        if let Some(series) = self.series.get_mut(series as usize) {
            series.refs += 1;
        }
        if let Some(before) = self.series.get_mut(before as usize) {
            before.refs -= 1;
        }
        Ok(series)
    }

    fn find_or_add_series(&mut self, part: &[u8]) -> Result<u32, Full> {
        let (metric_len, labels_at) = identity(part);
        let hash = self.hasher.hash_one((&part[..metric_len], &part[labels_at..]));
        let (all, arena) = (&self.series, &self.arena);
        let who = |number: &u32| {
            let series = &all[*number as usize];
            let bytes = &arena[series.part.range()];
            (&bytes[..series.metric_len as usize], &bytes[series.labels_at as usize..])
        };
        if let Some(&number) = self.series_index.find(hash, |number| who(number) == (&part[..metric_len], &part[labels_at..])) {
            if self.part(number) != part {
                // Its type or unit is another one now.
                self.garbage += self.part(number).len();
                let piece = self.keep(part)?;
                let series = &mut self.series[number as usize];
                (series.part, series.metric_len, series.labels_at) = (piece, metric_len as u32, labels_at as u32);
            }
            return Ok(number);
        }
        let number = self.free_series.last().copied().unwrap_or(self.series.len() as u32);
        let series = Series {
            part: self.keep(part)?,
            metric_len: metric_len as u32,
            labels_at: labels_at as u32,
            refs: 0,
            seen: 0,
            last_at: 0,
            tracked: 0,
            is_live: false,
        };
        match self.free_series.pop() {
            Some(number) => self.series[number as usize] = series,
            None => self.series.push(series),
        }
        let (all, arena, hasher) = (&self.series, &self.arena, &self.hasher);
        self.series_index.insert_unique(hash, number, |number| hash_series(hasher, arena, &all[*number as usize]));
        Ok(number)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Piece, Full> {
        let (at, len) = (self.arena.len(), bytes.len());
        if at + len > NONE as usize {
            return Err(Full);
        }
        self.arena.extend_from_slice(bytes);
        Ok(Piece { at: at as u32, len: len as u32 })
    }

    /// The number of a family.
    pub fn family(&mut self, name: &[u8], kind: Type, unit: &[u8]) -> u32 {
        let is_it = |family: &Family| family.name == name && family.kind == kind && family.unit == unit;
        let guess = self.families_seen;
        self.families_seen += 1;
        if self.families.get(guess as usize).is_some_and(is_it) {
            return self.families_base + guess;
        }
        let hash = self.hasher.hash_one((name, kind, unit));
        let families = &self.families;
        if let Some(number) = self.family_index.find(hash, |number| is_it(&families[*number as usize])) {
            return self.families_base + number;
        }
        let number = self.families.len() as u32;
        self.families.push(Family { name: name.to_vec(), kind, unit: unit.to_vec() });
        let (families, hasher) = (&self.families, &self.hasher);
        let hash_of = |family: &Family| hasher.hash_one((family.name.as_slice(), family.kind, family.unit.as_slice()));
        self.family_index.insert_unique(hash, number, |number| hash_of(&families[*number as usize]));
        self.families_base + number
    }

    /// Bodies of another format write the same series with the same bytes, but by other rules: every text is read anew.
    pub fn forget_entries(&mut self) {
        for number in 0..self.entries.len() as u32 {
            self.remove_entry(number);
        }
        self.entries.clear();
        self.free_entries.clear();
        self.index.clear();
    }

    /// Numbers of points are given anew.
    pub fn forget_points(&mut self) {
        for entry in &mut self.entries {
            entry.point = NONE;
        }
    }

    fn remove_entry(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        if entry.key.len == 0 {
            return;
        }
        let (key, series) = (entry.key, entry.series);
        let hash = self.hasher.hash_one(&self.arena[key.range()]);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == number) {
            found.remove();
        }
        self.entries[number as usize].key = Piece::default();
        self.free_entries.push(number);
        self.garbage += key.len as usize;
        if let Some(series) = self.series.get_mut(series as usize) {
            series.refs -= 1;
        }
    }

    /// After a good scrape: hands out every series that was live before and is not now, and forgets what was not in the body if
    /// `forget`.
    pub fn end(&mut self, forget: bool, mut ended: impl FnMut(&[u8])) {
        for series in &mut self.series {
            if series.tracked == self.scrape && series.part.len > 0 {
                series.is_live = true;
            } else if std::mem::take(&mut series.is_live) {
                ended(&self.arena[series.part.range()]);
            }
        }
        if forget {
            self.forget_unseen();
        }
    }

    /// After a failed scrape: hands out every live series.
    pub fn fail(&mut self, mut ended: impl FnMut(&[u8])) {
        for series in &mut self.series {
            if std::mem::take(&mut series.is_live) {
                ended(&self.arena[series.part.range()]);
            }
        }
    }

    pub fn forget_unseen(&mut self) {
        for number in (0..self.entries.len() as u32).rev() {
            if self.entries[number as usize].seen != self.scrape {
                self.remove_entry(number);
            }
        }
        for number in 0..self.series.len() as u32 {
            let series = self.series[number as usize];
            if series.refs > 0 || series.is_live || series.part.len == 0 {
                continue;
            }
            let hash = hash_series(&self.hasher, &self.arena, &series);
            if let Ok(found) = self.series_index.find_entry(hash, |other| *other == number) {
                found.remove();
            }
            self.garbage += series.part.len as usize;
            self.series[number as usize].part = Piece::default();
            self.free_series.push(number);
        }
        if self.families.len() > METAS_SPARE + 2 * self.families_seen as usize {
            self.families_base += self.families.len() as u32;
            self.families.clear();
            self.family_index.clear();
        }
        if self.garbage > GARBAGE_MIN && self.garbage > self.arena.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let before = std::mem::take(&mut self.arena);
        let mut moved = vec![false; self.series.len()];
        for entry in 0..self.entries.len() {
            let Entry { key, series, .. } = self.entries[entry];
            self.entries[entry].key = self.keep(&before[key.range()]).expect("less than before");
            if let Some(false) = moved.get(series as usize) {
                moved[series as usize] = true;
                self.series[series as usize].part =
                    self.keep(&before[self.series[series as usize].part.range()]).expect("less than before");
            }
        }
        for series in 0..self.series.len() {
            if !moved[series] {
                self.series[series].part = self.keep(&before[self.series[series].part.range()]).expect("less than before");
            }
        }
        self.arena.shrink_to_fit();
        self.garbage = 0;
    }
}

fn hash_series(hasher: &DefaultHashBuilder, arena: &[u8], series: &Series) -> u64 {
    let bytes = &arena[series.part.range()];
    hasher.hash_one((&bytes[..series.metric_len as usize], &bytes[series.labels_at as usize..]))
}

/// Where a series part's metric ends, and where its labels begin. See [`crate::sample::put_series`].
fn identity(part: &[u8]) -> (usize, usize) {
    // Quotes inside of a JSON text are escaped, so these bytes are no part of one.
    let metric = memchr::memmem::find(part, b"\",\"type\":\"").expect("a series part has a type");
    let labels = memchr::memmem::find(&part[metric..], b",\"labels\":{").expect("a series part has labels");
    (metric, metric + labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(metric: &str, kind: &str, labels: &str) -> Vec<u8> {
        format!("{{\"metric\":\"{metric}\",\"type\":\"{kind}\",\"labels\":{{{labels}}}").into_bytes()
    }

    #[test]
    fn who_a_series_is_does_not_depend_on_its_type() {
        let mut cache = Cache::default();
        cache.begin();
        let first = cache.add(b"a", 0).expect("room");
        let second = cache.add(b"a{}", 0).expect("room");
        let other = cache.add(b"b", 0).expect("room");
        let series = cache.assign(first, Some(&part("a", "gauge", "")), NONE).expect("room");
        assert_eq!(cache.assign(second, Some(&part("a", "counter", "")), NONE).expect("room"), series);
        assert_eq!(cache.part(series), part("a", "counter", ""));
        assert_ne!(cache.assign(other, Some(&part("a", "gauge", "\"x\":\"y\"")), NONE).expect("room"), series);
    }

    #[test]
    fn what_is_gone_leaves_no_bytes_behind() {
        let mut cache = Cache::default();
        for scrape in 0..200 {
            cache.begin();
            for n in 0..50 {
                let key = format!("a{{n=\"{}\"}}", scrape * 25 + n);
                let entry = cache.find_key(key.as_bytes()).unwrap_or_else(|| cache.add(key.as_bytes(), 0).expect("room"));
                cache.entry(entry).seen = cache.scrape;
                let labels = format!("\"n\":\"{}\",\"pad\":\"{}\"", scrape * 25 + n, "x".repeat(100));
                let series = cache.assign(entry, Some(&part("a", "gauge", &labels)), NONE).expect("room");
                cache.series(series).tracked = cache.scrape;
            }
            let mut ended = 0;
            cache.end(true, |_| ended += 1);
            assert_eq!(ended, if scrape == 0 { 0 } else { 25 });
            assert_eq!(cache.entries(), 50);
            assert_eq!((cache.index.len(), cache.series_index.len()), (50, 50));
        }
        assert!(cache.arena.len() < 2 * GARBAGE_MIN, "{}", cache.arena.len());
    }
}
