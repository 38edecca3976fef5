//! A bounded table of state by key, which lanes share and a restart brings back.
//!
//! In: a 52-bit hash of a key. Out: its state, to be changed under the lock of one of 64 shards. Memory: at most `keys_max`
//! keys of about 64 bytes. When a shard is full, keys whose state is that of a new one are forgotten; if there are none,
//! further keys share one state. Entries in frames: 8 bytes of key (tag, part, hash), 24 of value; zeros mean that the key
//! was forgotten. Two keys whose hashes meet share a state: with a million keys once in ten thousand plans.

use hashbrown::HashMap;
use std::sync::Mutex;

const SHARDS: usize = 64;
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
    keys: HashMap<u64, Slot<V>>,
    dirty: Vec<u64>,
    forgotten: Vec<u64>,
    refused: u32,
}

struct Slot<V> {
    value: V,
    is_dirty: bool,
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
        let shard = || Mutex::new(Shard { keys: HashMap::new(), dirty: Vec::new(), forgotten: Vec::new(), refused: 0 });
        Keys { shards: (0..SHARDS).map(|_| shard()).collect(), per_shard_max: keys_max.div_ceil(SHARDS).max(1), tag }
    }

    /// Changes the state of a key. `is_idle`: whether a state may be forgotten.
    #[inline]
    pub fn change<R>(&self, hash: u64, is_idle: impl Fn(&V) -> bool, change: impl FnOnce(&mut V) -> R) -> R {
        let mut key = hash & HASH;
        let shard = &mut *self.shard(key);
        if !shard.keys.contains_key(&key) && shard.keys.len() >= self.per_shard_max {
            shard.make_room(is_idle);
            if shard.keys.len() >= self.per_shard_max {
                key %= SHARDS as u64; // one for each shard: no second lock
            }
        }
        let slot = shard.keys.entry(key).or_insert_with(|| Slot { value: V::default(), is_dirty: false });
        if !slot.is_dirty {
            slot.is_dirty = true;
            shard.dirty.push(key);
        }
        change(&mut slot.value)
    }

    /// Looks at the state of a key, if there is one.
    pub fn get<R>(&self, hash: u64, read: impl FnOnce(&V) -> R) -> Option<R> {
        let key = hash & HASH;
        self.shard(key).keys.get(&key).map(|slot| read(&slot.value))
    }

    fn shard(&self, key: u64) -> std::sync::MutexGuard<'_, Shard<V>> {
        self.shards[key as usize % SHARDS].lock().expect("no holder of this lock panics")
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
                let Some(slot) = shard.keys.get_mut(&key) else { continue };
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
            let mut shard = self.shard(key);
            if entry[8..] == [0; 24] {
                shard.keys.remove(&key); // all its parts are taken out together
            } else if part < V::PARTS {
                let slot = shard.keys.entry(key).or_insert_with(|| Slot { value: V::default(), is_dirty: false });
                slot.value.restore(part, &entry[8..]);
            }
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|s| s.lock().expect("no holder of this lock panics").keys.len()).sum()
    }
}

impl<V> Shard<V> {
    #[cold]
    fn make_room(&mut self, is_idle: impl Fn(&V) -> bool) {
        self.refused += 1;
        if self.refused % SWEEP_EVERY == 1 {
            let forgotten = &mut self.forgotten;
            self.keys.retain(|key, slot| {
                let keep = !is_idle(&slot.value);
                if !keep {
                    forgotten.push(*key);
                }
                keep
            });
        }
    }
}
