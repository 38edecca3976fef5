//! The first and the last event of each series in each hour, by (time, key), kept while events come.
//!
//! In: every event with a key that is no interval, whether it will count or not; a key is a place in `Events`. Out: the ends of
//! an hour, or nothing. Whoever rates looks again at hours where an event does not count, or where the card changes.
//! Bound: 48 bytes for each hour of a series, and its entry in a map.

use super::events::{Events, Fold, Place};
use flow::units::NANOS_PER_HOUR;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub first: (i64, Place),
    pub last: (i64, Place),
}

#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// Series and hour since the epoch, to a place in `list`.
    hours: HashMap<(u32, i64), u32, BuildHasherDefault<Fold>>,
    list: Vec<Ends>,
    /// By series: the hour that was asked for last, and its place. Facts come in the order of time, mostly.
    latest: Vec<Option<(i64, u32)>>,
}

impl Marks {
    pub fn add(&mut self, series: u32, at: i64, key: &[u8], place: Place, events: &Events) {
        let hour = at.div_euclid(NANOS_PER_HOUR);
        if self.latest.len() <= series as usize {
            self.latest.resize(series as usize + 1, None);
        }
        let latest = &mut self.latest[series as usize];
        let index = match *latest {
            Some((known, index)) if known == hour => index,
            _ => {
                let new = self.list.len() as u32;
                let index = *self.hours.entry((series, hour)).or_insert(new);
                if index == new {
                    self.list.push(Ends { first: (at, place), last: (at, place) });
                }
                *latest = Some((hour, index));
                index
            }
        };
        let ends = &mut self.list[index as usize];
        let key_at = |place| events.key_at(place).bytes();
        if at < ends.first.0 || (at == ends.first.0 && key < key_at(ends.first.1).as_slice()) {
            ends.first = (at, place);
        }
        if at > ends.last.0 || (at == ends.last.0 && key > key_at(ends.last.1).as_slice()) {
            ends.last = (at, place);
        }
    }

    pub fn get(&self, series: u32, hour: i64) -> Option<&Ends> {
        self.hours.get(&(series, hour)).map(|index| &self.list[*index as usize])
    }

    /// Whether any series has an event with a key in one of these hours.
    pub fn has_any(&self, hours: &[i64]) -> bool {
        !hours.is_empty() && self.hours.keys().any(|(_, hour)| hours.contains(hour))
    }

    pub fn memory_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Ends>() + self.hours.capacity() * size_of::<((u32, i64), u32)>()
    }
}
