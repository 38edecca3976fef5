//! Series that were checked and written once: from the bytes of their labels to their series part.
//!
//! In: keys, any bytes. Out: the bytes kept for an equal key; equal is equal byte for byte, so a collision of hashes mixes nothing.
//! Bound: keys and parts take at most `bytes_max`, and with them come 40 bytes of tables each. When the younger half is full, the
//! older one is forgotten; what is asked for in the older half moves to the younger, so what is in use stays.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    hasher: DefaultHashBuilder,
    half_bytes_max: usize,
    young: Half,
    old: Half,
}

#[derive(Clone, Debug, Default)]
struct Half {
    /// Keys, each with its part behind it.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    table: HashTable<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    at: usize,
    key_len: u32,
    part_len: u32,
    /// Of the metadata that the part was written with.
    epoch: u32,
}

impl Dictionary {
    pub fn new(bytes_max: usize) -> Dictionary {
        Dictionary { half_bytes_max: bytes_max / 2, ..Dictionary::default() }
    }

    /// Where the part of `key` is, for [`Dictionary::part`]; `None`: unknown, or written in another epoch.
    #[inline]
    pub fn find(&mut self, key: &[u8], epoch: u32) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        if let Some(found) = self.young.find(hash, key) {
            return (self.young.entries[found as usize].epoch == epoch).then_some(found);
        }
        let entry = self.old.entries[self.old.find(hash, key)? as usize];
        if entry.epoch != epoch {
            return None;
        }
        let part_at = entry.at + entry.key_len as usize;
        let old = std::mem::take(&mut self.old);
        let found = self.young.insert(hash, key, &old.bytes[part_at..part_at + entry.part_len as usize], epoch);
        self.old = old;
        self.age();
        // Aged: it is the last of the older half now, and found there when it is asked for again.
        if self.young.entries.is_empty() { None } else { Some(found) }
    }

    #[inline]
    pub fn part(&self, found: u32) -> &[u8] {
        let entry = self.young.entries[found as usize];
        let at = entry.at + entry.key_len as usize;
        &self.young.bytes[at..at + entry.part_len as usize]
    }

    /// Keeps a part, if it is not too large for that.
    pub fn insert(&mut self, key: &[u8], part: &[u8], epoch: u32) {
        if key.len() + part.len() > self.half_bytes_max {
            return;
        }
        if self.young.bytes.len() + key.len() + part.len() > self.half_bytes_max {
            self.turn();
        }
        let hash = self.hasher.hash_one(key);
        self.young.insert(hash, key, part, epoch);
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.young.bytes.len() + self.old.bytes.len()
    }

    fn age(&mut self) {
        if self.young.bytes.len() > self.half_bytes_max {
            self.turn();
        }
    }

    fn turn(&mut self) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.bytes.clear();
        self.young.entries.clear();
        self.young.table.clear();
    }
}

impl Half {
    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is_it = |n: &u32| {
            let entry = &self.entries[*n as usize];
            entry.hash == hash && &self.bytes[entry.at..entry.at + entry.key_len as usize] == key
        };
        self.table.find(hash, is_it).copied()
    }

    /// An entry of an earlier epoch with this key gives way; its bytes stay until the half is forgotten.
    fn insert(&mut self, hash: u64, key: &[u8], part: &[u8], epoch: u32) -> u32 {
        let entry = Entry { hash, at: self.bytes.len(), key_len: key.len() as u32, part_len: part.len() as u32, epoch };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(part);
        let known = self.find(hash, key);
        if let Some(known) = known {
            self.entries[known as usize] = entry;
            return known;
        }
        let number = self.entries.len() as u32;
        self.entries.push(entry);
        self.table.insert_unique(hash, number, |n| self.entries[*n as usize].hash);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn what_is_found_is_what_was_kept_and_never_more_than_allowed(
            steps in prop::collection::vec((0u32..40, 0usize..60, 0u32..2), 1..300),
        ) {
            let mut dictionary = Dictionary::new(1000);
            let mut kept = HashMap::new();
            for (key, len, epoch) in steps {
                let key = key.to_be_bytes();
                match dictionary.find(&key, epoch) {
                    Some(found) => prop_assert_eq!(dictionary.part(found), kept[&(key, epoch)]),
                    None => {
                        let part = [&[b'p'].repeat(len)[..], &[epoch as u8]].concat().leak();
                        dictionary.insert(&key, part, epoch);
                        kept.insert((key, epoch), &*part);
                        let found = dictionary.find(&key, epoch).expect("it was kept just now");
                        prop_assert_eq!(dictionary.part(found), &*part);
                    }
                }
                prop_assert!(dictionary.bytes() <= 1000 + 70, "{}", dictionary.bytes());
            }
        }
    }
}
