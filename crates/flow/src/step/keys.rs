//! A bounded table of state by key, which lanes share and a restart brings back.
//!
//! In: 52-bit hashes of keys. Out: their states, to be changed under the lock of one of 16 shards, which is taken once for all
//! records of a batch. Memory: at most `keys_max` keys of about 64 bytes. When a shard is full, keys whose state is that of a new one are forgotten; if there are none,
//! further keys share one state. Entries in frames: 8 bytes of key (tag, part, hash), 24 of value; zeros mean that the key
//! was forgotten. Two keys whose hashes meet share a state: with a million keys once in ten thousand plans.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::sync::{Mutex, MutexGuard};

/// A lane holds a shard for a batch's records of it, a few hundred ns of each 300 us: more would only cost more locks.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 4;
const HASH_BITS: u32 = 52;
const HASH: u64 = (1 << HASH_BITS) - 1;
/// A full shard is searched for keys to forget after so many keys that found no room.
const SWEEP_EVERY: u32 = 256;

pub struct Keys<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    per_shard_max: usize,
    tag: u8,
}

struct Shard<V> {
    keys: HashTable<Slot<V>>,
    dirty: Vec<u64>,
    forgotten: Vec<u64>,
    refused: u32,
}

struct Slot<V> {
    key: u64,
    is_dirty: bool,
    value: V,
}

/// State of one key.
pub trait State: Default {
    /// How many entries it takes in a frame.
    const PARTS: u64;
    /// Entry number `part`; zeros where a new state has nothing to tell.
    fn part(&self, part: u64) -> [u8; 24];
    /// Takes over what [`State::part`] gave.
    fn restore(&mut self, part: u64, bytes: &[u8]);
}

impl<V: State> Keys<V> {
    /// `tag`: last byte of its keys in frames, one for each use.
    pub fn new(keys_max: usize, tag: u8) -> Keys<V> {
        let shard = || Mutex::new(Shard { keys: HashTable::new(), dirty: Vec::new(), forgotten: Vec::new(), refused: 0 });
        Keys { shards: (0..SHARDS).map(|_| shard()).collect(), per_shard_max: keys_max.div_ceil(SHARDS).max(1), tag }
    }

    /// Changes the state of one key. `is_idle`: whether a state may be forgotten.
    pub fn change<R>(&self, hash: u64, is_idle: impl Fn(&V) -> bool, change: impl FnOnce(&mut V) -> R) -> R {
        change(self.shard(shard_of(hash)).slot(hash & HASH, self.per_shard_max, is_idle))
    }

    /// Looks at the state of a key, if there is one.
    pub fn get<R>(&self, hash: u64, read: impl FnOnce(&V) -> R) -> Option<R> {
        let key = hash & HASH;
        self.shard(shard_of(hash)).keys.find(spread(key), |slot| slot.key == key).map(|slot| read(&slot.value))
    }

    /// Changes the states of the keys of a batch: those of one key in their order. Both closures get `context`, which is theirs, and
    /// the number of a hash; `order` is scratch space.
    #[inline(always)]
    pub fn change_each<C: ?Sized>(
        &self,
        hashes: &[u64],
        order: &mut Vec<u32>,
        context: &mut C,
        is_idle: impl Fn(&mut C, usize, &V) -> bool,
        change: impl Fn(&mut C, usize, &mut V),
    ) {
        // A counting sort by shard.
        let mut ends = [0u32; SHARDS];
        hashes.iter().for_each(|hash| ends[shard_of(*hash)] += 1);
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        order.resize(hashes.len(), 0);
        for (n, hash) in (0u32..).zip(hashes) {
            let at = &mut ends[shard_of(*hash)];
            order[*at as usize] = n;
            *at += 1;
        }
        let mut start = 0;
        for (number, end) in ends.into_iter().enumerate().filter(|(_, end)| *end > 0) {
            let numbers = &order[start..end as usize];
            start = end as usize;
            if numbers.is_empty() {
                continue;
            }
            let mut shard = self.shard(number);
            for n in numbers.iter().map(|n| *n as usize) {
                let state = shard.slot(hashes[n] & HASH, self.per_shard_max, |value| is_idle(context, n, value));
                change(context, n, state);
            }
        }
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Shard<V>> {
        self.shards[number].lock().expect("no holder of this lock panics")
    }

    /// Appends the entries that changed since the last call.
    pub fn take_changes(&self, out: &mut Vec<u8>) {
        let name = |key: u64, part: u64| (key | part << HASH_BITS | u64::from(self.tag) << 56).to_le_bytes();
        for shard in &self.shards {
            let mut shard = shard.lock().expect("no holder of this lock panics");
            for key in std::mem::take(&mut shard.forgotten) {
                for part in 0..V::PARTS {
                    out.extend_from_slice(&name(key, part));
                    out.extend_from_slice(&[0; 24]);
                }
            }
            for key in std::mem::take(&mut shard.dirty) {
                let Some(slot) = shard.keys.find_mut(spread(key), |slot| slot.key == key) else { continue };
                slot.is_dirty = false;
                for (part, bytes) in (0..V::PARTS).map(|part| (part, slot.value.part(part))).filter(|(_, bytes)| *bytes != [0; 24]) {
                    out.extend_from_slice(&name(key, part));
                    out.extend_from_slice(&bytes);
                }
            }
        }
    }

    /// Takes over entries that [`Keys::take_changes`] wrote, in that order; others are passed over.
    pub fn restore(&self, entries: &[u8]) {
        for entry in entries.chunks_exact(32).filter(|entry| entry[7] == self.tag) {
            let name = u64::from_le_bytes(entry[..8].try_into().expect("a range of 8 is 8 bytes"));
            let (key, part) = (name & HASH, name >> HASH_BITS & 0xf);
            let mut shard = self.shard(shard_of(key));
            let entry_of = shard.keys.entry(spread(key), |slot| slot.key == key, |slot| spread(slot.key));
            if entry[8..] == [0; 24] {
                // All its parts are taken out together.
                if let Entry::Occupied(slot) = entry_of {
                    slot.remove();
                }
            } else if part < V::PARTS {
                let mut slot = entry_of.or_insert_with(|| Slot { key, is_dirty: false, value: V::default() });
                slot.get_mut().value.restore(part, &entry[8..]);
            }
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|s| s.lock().expect("no holder of this lock panics").keys.len()).sum()
    }
}

/// The shard of a hash: its highest bits.
fn shard_of(hash: u64) -> usize {
    ((hash & HASH) >> (HASH_BITS - SHARD_BITS)) as usize
}

/// A key as a table wants it, with its top bits filled: they differ within a shard.
fn spread(key: u64) -> u64 {
    key ^ key << 16
}

impl<V: State> Shard<V> {
    /// The state of a key, or the one that keys share for which there is no room.
    #[inline(always)]
    fn slot(&mut self, key: u64, keys_max: usize, is_idle: impl FnMut(&V) -> bool) -> &mut V {
        let has_room = self.keys.len() < keys_max || self.keys.find(spread(key), |slot| slot.key == key).is_some();
        // One for each shard: no second lock.
        let key = if has_room || self.make_room(keys_max, is_idle) { key } else { key & HASH << (HASH_BITS - SHARD_BITS) };
        let dirty = &mut self.dirty;
        let slot = match self.keys.entry(spread(key), |slot| slot.key == key, |slot| spread(slot.key)) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => slot.insert(Slot { key, is_dirty: false, value: V::default() }).into_mut(),
        };
        if !slot.is_dirty {
            slot.is_dirty = true;
            dirty.push(key);
        }
        &mut slot.value
    }

    /// Whether there is room now.
    #[cold]
    fn make_room(&mut self, keys_max: usize, mut is_idle: impl FnMut(&V) -> bool) -> bool {
        self.refused += 1;
        if self.refused % SWEEP_EVERY == 1 {
            let forgotten = &mut self.forgotten;
            self.keys.retain(|slot| {
                let keep = !is_idle(&slot.value);
                if !keep {
                    forgotten.push(slot.key);
                }
                keep
            });
        }
        self.keys.len() < keys_max
    }
}
