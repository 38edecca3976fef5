//! The table of what was seen: which key, when, where first, with what content.
//!
//! In: fingerprints of records, their time and place. Out: whether each is new, a copy or a conflict, and what changed, as
//! entries of 32 bytes for the frame of the record that made them. Shared by all lanes: [`SHARDS`] parts, each behind its
//! own lock. Memory: at most `keys_max` entries of 32 bytes and about 9 bytes of index each. When full, the entry that was
//! made first is forgotten and counted: a copy may then pass, but a new record is never taken for a copy.

use hashbrown::HashTable;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Length of an entry in a frame: 8 bytes of key, 24 of value.
pub const ENTRY_BYTES: usize = 32;
/// Parts of a table; one that holds fewer than [`KEYS_PER_SHARD_MIN`] each has a single one.
const SHARDS: usize = 64;
const KEYS_PER_SHARD_MIN: usize = 4096;
/// Keys that a frame takes out at once after a table became smaller: 128 KiB.
const OWED_MAX: usize = 4096;
/// A record further away than this is as far away as this: 2^47 ms are 4,459 years.
const MILLIS_MAX: i64 = (1 << 47) - 1;
const POSITION_MAX: u64 = (1 << 40) - 1;

/// What identifies a record, and what it says: parts of hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print {
    /// 63 + 15 bits of the fingerprint: among 10 million keys two meet by chance in one of 10^9 tables.
    pub key: u64,
    pub check: u16,
    /// 24 bits: of 16 million conflicts one is taken for a copy.
    pub content: u32,
    /// A mirrored copy, by its host or a marker.
    pub mirrored: bool,
}

/// Where and when a record was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub stream: u64,
    pub position: u64,
    pub millis: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    New,
    /// The same key and content within the window. `first`: stream and position of the first one.
    Copy {
        first: (u64, u64),
    },
    /// The same key within the window, but other content.
    Conflict {
        first: (u64, u64),
    },
}

/// Which repeats count as copies.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    /// Two records further apart than this are not copies of each other.
    pub window_millis: i64,
    /// Only if exactly one of both is marked as mirrored.
    pub mirrored_only: bool,
}

/// Key; time (48 bits), check (15), mirrored (1); position (40), content (24); stream.
type Entry = [u64; 4];

pub struct Seen {
    shards: Box<[Mutex<Shard>]>,
    forgotten: AtomicU64,
    /// Keys that restoring forgot: the journal still has them and is to be told.
    owed: Mutex<Vec<u64>>,
}

#[derive(Default)]
struct Shard {
    /// In the order they were made; grows to `keys_max`, then `next` is the oldest. A dead entry is all zero.
    ring: Vec<Entry>,
    next: usize,
    keys_max: usize,
    /// Places in the ring, by key.
    index: HashTable<u32>,
}

impl Seen {
    /// `keys_max`: at least 1, below 2^32.
    pub fn new(keys_max: usize) -> Seen {
        let shards = if keys_max >= SHARDS * KEYS_PER_SHARD_MIN { SHARDS } else { 1 };
        let of = |n: usize| Mutex::new(Shard { keys_max: (keys_max + n) / shards, ..Shard::default() });
        Seen { shards: (0..shards).map(of).collect(), forgotten: AtomicU64::new(0), owed: Mutex::default() }
    }

    /// Decides about one record, and remembers it if it is new. `changed`: gets the entries that go with the record's frame.
    pub fn check(&self, print: Print, place: Place, rule: Match, changed: &mut impl FnMut([u8; ENTRY_BYTES])) -> Sight {
        let place = Place { millis: place.millis.clamp(-MILLIS_MAX, MILLIS_MAX), position: place.position.clamp(1, POSITION_MAX), ..place };
        let mut shard = self.shard(print.key);
        let found = shard.find(print.key);
        if let Some(slot) = found {
            let entry = shard.ring[slot as usize];
            let apart = millis(&entry).abs_diff(place.millis);
            let same_key = check(&entry) == print.check & 0x7fff;
            let near = apart <= rule.window_millis as u64;
            let first = (entry[3], entry[2] >> 24);
            if same_key && first == (place.stream, place.position) {
                return Sight::New; // read again: it is the first one itself
            }
            if same_key && near && (!rule.mirrored_only || mirrored(&entry) != print.mirrored) {
                let same = entry[2] & 0xff_ffff == u64::from(print.content & 0xff_ffff);
                return if same { Sight::Copy { first } } else { Sight::Conflict { first } };
            }
            shard.take_out(slot);
        }
        let entry = pack(print, place);
        if let Some(forgotten) = shard.put(entry) {
            if millis(&forgotten).abs_diff(place.millis) <= rule.window_millis as u64 {
                self.forgotten.fetch_add(1, Ordering::Relaxed);
            }
            changed(gone(&forgotten));
        }
        changed(bytes(&entry));
        Sight::New
    }

    /// Live entries that were forgotten because the table was full.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).index.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over entries that [`Seen::check`] gave out, in the order in which they were made, as often as there are some. Of
    /// more than there is room for, the latest stay.
    pub fn restore(&self, entries: &[u8]) {
        for entry in entries.chunks_exact(ENTRY_BYTES).map(unpack) {
            let mut shard = self.shard(entry[0]);
            if let Some(slot) = shard.find(entry[0]) {
                shard.take_out(slot);
            }
            if entry[1..] != [0; 3]
                && let Some(forgotten) = shard.put(entry)
            {
                lock(&self.owed).push(forgotten[0]);
            }
        }
    }

    /// What restoring forgot and the journal was not told of yet: some of it, for one frame.
    pub fn take_owed(&self) -> Vec<[u8; ENTRY_BYTES]> {
        let mut owed = lock(&self.owed);
        let rest = owed.len().saturating_sub(OWED_MAX);
        let keys: Vec<u64> = owed.drain(rest..).collect();
        if rest == 0 {
            *owed = Vec::new(); // it may have been a large one
        }
        // Later entries may have brought a key back.
        keys.into_iter().filter(|key| self.shard(*key).find(*key).is_none()).map(|key| gone(&[key, 0, 0, 0])).collect()
    }

    #[inline]
    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[(key >> 40) as usize % self.shards.len()])
    }
}

impl Shard {
    #[inline]
    fn find(&self, key: u64) -> Option<u32> {
        self.index.find(key, |slot| self.ring[*slot as usize][0] == key).copied()
    }

    fn take_out(&mut self, slot: u32) {
        let key = self.ring[slot as usize][0];
        if let Ok(found) = self.index.find_entry(key, |other| *other == slot) {
            found.remove();
        }
        self.ring[slot as usize] = [0; 4];
    }

    /// Adds an entry whose key is not there; returns the one that had to go.
    fn put(&mut self, entry: Entry) -> Option<Entry> {
        let mut forgotten = None;
        let slot = if self.ring.len() < self.keys_max {
            if self.ring.capacity() == self.ring.len() {
                // Doubling, but never beyond the bound.
                let more = self.ring.len().clamp(64, self.keys_max.max(64)).min(self.keys_max - self.ring.len());
                self.ring.reserve_exact(more);
            }
            self.ring.push(entry);
            self.ring.len() - 1
        } else {
            let slot = self.next;
            self.next = (slot + 1) % self.keys_max;
            if self.ring[slot] != [0; 4] {
                forgotten = Some(self.ring[slot]);
                self.take_out(slot as u32);
            }
            self.ring[slot] = entry;
            slot
        };
        let ring = &self.ring;
        self.index.insert_unique(entry[0], slot as u32, |slot| ring[*slot as usize][0]);
        forgotten
    }
}

fn pack(print: Print, place: Place) -> Entry {
    let flags = u64::from(print.check & 0x7fff) << 1 | u64::from(print.mirrored);
    let when = (place.millis << 16) as u64 | flags;
    [print.key, when, place.position << 24 | u64::from(print.content & 0xff_ffff), place.stream]
}

fn millis(entry: &Entry) -> i64 {
    entry[1] as i64 >> 16
}

fn check(entry: &Entry) -> u16 {
    (entry[1] as u16) >> 1
}

fn mirrored(entry: &Entry) -> bool {
    entry[1] & 1 == 1
}

fn bytes(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let mut out = [0; ENTRY_BYTES];
    for (word, to) in entry.iter().zip(out.chunks_exact_mut(8)) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// A value of zeros: the key is out.
fn gone(entry: &Entry) -> [u8; ENTRY_BYTES] {
    bytes(&[entry[0], 0, 0, 0])
}

fn unpack(bytes: &[u8]) -> Entry {
    std::array::from_fn(|n| u64::from_le_bytes(bytes[n * 8..n * 8 + 8].try_into().expect("a range of 8 is 8 bytes")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const RULE: Match = Match { window_millis: 1_000, mirrored_only: false };

    fn print(n: u64) -> Print {
        Print { key: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), check: n as u16, content: 7, mirrored: false }
    }

    fn place(position: u64, millis: i64) -> Place {
        Place { stream: 9, position, millis }
    }

    #[test]
    fn first_wins_within_the_window_on_both_sides_of_a_bucket() {
        let seen = Seen::new(10);
        let see = |n, at, millis| seen.check(print(n), place(at, millis), RULE, &mut |_| {});
        assert_eq!(see(1, 10, 1_900), Sight::New);
        assert_eq!(see(1, 20, 2_900), Sight::Copy { first: (9, 10) }, "over the edge of a bucket");
        assert_eq!(see(1, 30, 900), Sight::Copy { first: (9, 10) }, "late by a window");
        assert_eq!(see(1, 10, 1_900), Sight::New, "the first one, read again, is not its own copy");
        assert_eq!(see(1, 40, 2_901), Sight::New, "the window is over");
        assert_eq!(see(1, 50, 3_000), Sight::Copy { first: (9, 40) });
        assert_eq!(see(2, 60, i64::MAX), Sight::New);
        assert_eq!(see(2, 70, i64::MIN), Sight::New);
    }

    #[test]
    fn other_content_is_a_conflict_and_marks_can_be_asked_for() {
        let seen = Seen::new(10);
        let see = |print, at, rule| seen.check(print, place(at, 0), rule, &mut |_| {});
        assert_eq!(see(print(1), 1, RULE), Sight::New);
        assert_eq!(see(Print { content: 8, ..print(1) }, 2, RULE), Sight::Conflict { first: (9, 1) });
        assert_eq!(see(Print { check: 2, ..print(1) }, 3, RULE), Sight::New, "another key with the same first 64 bits");
        let marked = Match { mirrored_only: true, ..RULE };
        assert_eq!(see(print(5), 4, marked), Sight::New);
        assert_eq!(see(Print { mirrored: true, ..print(5) }, 5, marked), Sight::Copy { first: (9, 4) });
        assert_eq!(see(print(5), 6, marked), Sight::New, "an honest repeat");
    }

    /// Against a list that does the same by searching.
    #[test]
    fn it_decides_as_a_plain_list_does_and_comes_back_from_its_entries() {
        for keys_max in [1, 2, 7, 50, 1_000] {
            let mut log = Vec::new();
            let mut seen = Seen::new(keys_max);
            let mut list: Vec<(u64, i64, u64)> = Vec::new();
            let mut stored: HashMap<[u8; 8], [u8; 24]> = HashMap::new();
            let mut random = 0x2545_f491_4f6c_dd1du64;
            let mut forgotten = 0;
            for n in 1..20_000u64 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let (key, millis) = (random >> 20 & 127, (n / 4 + (random & 1023)) as i64);
                let at = list.iter().position(|e| e.0 == key);
                let want = match at.map(|at| list[at]) {
                    Some(e) if e.1.abs_diff(millis) <= 1_000 => Sight::Copy { first: (9, e.2) },
                    _ => {
                        // A taken out entry leaves its place empty until its turn comes, as in the ring.
                        if let Some(at) = at {
                            list[at].0 = u64::MAX;
                        }
                        if list.len() == keys_max {
                            let old = list.remove(0);
                            forgotten += u64::from(old.0 != u64::MAX && old.1.abs_diff(millis) <= 1_000);
                        }
                        list.push((key, millis, n));
                        Sight::New
                    }
                };
                let got = seen.check(print(key), place(n, millis), RULE, &mut |entry| {
                    log.extend(entry);
                    let (key, value) = (entry[..8].try_into().unwrap(), entry[8..].try_into().unwrap());
                    if value == [0; 24] {
                        stored.remove(&key);
                    } else {
                        stored.insert(key, value);
                    }
                });
                assert_eq!(got, want, "record {n} of {keys_max} keys");
                assert!(seen.len() <= keys_max && stored.len() == seen.len(), "{} entries, {} stored", seen.len(), stored.len());
            }
            assert_eq!(seen.forgotten(), forgotten);
            // From all that it said, part by part, it comes back as it was, down to what is forgotten next.
            let again = Seen::new(keys_max);
            log.chunks(ENTRY_BYTES * 37).for_each(|part| again.restore(part));
            assert_eq!((again.len(), again.take_owed().len()), (seen.len(), 0));
            for n in 20_000..25_000u64 {
                let key = n.wrapping_mul(0x9e37_79b9) >> 7 & 255;
                let see = |seen: &Seen| {
                    let mut said = Vec::new();
                    let sight = seen.check(print(key), place(n, n as i64 / 4), RULE, &mut |entry| said.push(entry));
                    (sight, said)
                };
                assert_eq!(see(&again), see(&seen), "record {n} of {keys_max} keys");
            }
            // Everything in it is found again, and nothing else; what does not fit is told.
            let bytes: Vec<u8> = stored.iter().flat_map(|(key, value)| key.iter().chain(value).copied().collect::<Vec<u8>>()).collect();
            seen = Seen::new(keys_max);
            seen.restore(&bytes);
            for (key, millis, n) in list.iter().filter(|e| e.0 != u64::MAX) {
                assert_eq!(seen.check(print(*key), place(n + 1, *millis), RULE, &mut |_| {}), Sight::Copy { first: (9, *n) });
            }
            let small = Seen::new(keys_max.div_ceil(2));
            small.restore(&bytes);
            assert_eq!(small.len() + small.take_owed().len(), bytes.len() / ENTRY_BYTES);
        }
    }

    /// `cargo test --release -p flow -- --ignored --nocapture ten_million`
    #[test]
    #[ignore = "measures: 10 million keys, about 0.4 GiB"]
    fn ten_million_live_keys() {
        let keys = 10_000_000u64;
        let rss = || -> u64 {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
        };
        let cpu_ns = || -> u64 {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let before = rss();
        let seen = Seen::new(keys as usize);
        let rule = Match { window_millis: 600_000, ..RULE };
        let run = |what: &str, from: u64, want: fn(&Sight) -> bool| {
            let at = cpu_ns();
            let good = (from..from + keys).filter(|n| want(&seen.check(print(n + 1), place(n + 1, 0), rule, &mut |_| {}))).count();
            println!("{what}: {:.2} M records per CPU second, as expected {good}", keys as f64 / (cpu_ns() - at) as f64 * 1e3);
        };
        run("new, growing", 0, |s| *s == Sight::New);
        println!("{} keys live, {} MiB resident more", seen.len(), (rss() - before) >> 20);
        run("seen again", 0, |s| *s == Sight::New);
        run("new, each forgets one", keys, |s| *s == Sight::New);
        println!("forgotten {}", seen.forgotten());
    }
}
