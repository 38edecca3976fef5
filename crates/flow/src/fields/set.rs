//! The fields that somebody asks for, as a trie of keys.
//!
//! In: paths. Out: for a key of an object, the field it is and the node of the keys below it. Memory: one node of 256
//! buckets per nesting of a path; nodes and entries are numbered by u8, so deeper paths are found flat only.

use super::FIELDS_MAX;
use crate::word::words;

pub(super) const NONE: u8 = u8::MAX;
const BUCKETS: usize = 256;

/// The fields that somebody asks for, by path. At most [`FIELDS_MAX`].
///
/// A path is a top-level key or keys joined by dots: `kubernetes.labels.tenant` finds the nested value, and
/// also a key that holds dots itself, at any depth.
#[derive(Debug)]
pub struct FieldSet {
    paths: Vec<String>,
    pub(super) nodes: Vec<Node>,
}

/// The keys looked for in one object.
#[derive(Debug)]
pub(super) struct Node {
    /// First entry of each bucket of [`bucket`].
    heads: [u8; BUCKETS],
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    /// What tells keys of at most 16 bytes apart.
    words: (u64, u64),
    pub(super) field: u8,
    pub(super) child: u8,
    /// Next entry of the bucket.
    next: u8,
    /// The fields at and below this key: what a second occurrence of the key replaces.
    pub(super) covers: u64,
}

/// Spreads keys by length, first and last byte: enough to tell most keys from the few that are asked for.
#[inline(always)]
fn bucket(key: &[u8]) -> usize {
    match (key.first(), key.last()) {
        (Some(first), Some(last)) => (key.len() * 31 + *first as usize * 5 + *last as usize * 17) % BUCKETS,
        _ => 0,
    }
}

impl Node {
    fn new() -> Node {
        Node { heads: [NONE; BUCKETS], entries: Vec::new() }
    }

    #[inline(always)]
    pub(super) fn find(&self, key: &[u8]) -> u8 {
        match self.first(key) {
            NONE => NONE,
            first => self.find_from(first, key),
        }
    }

    /// The first entry of the key's bucket: most keys are told by it that nobody asks for them.
    #[inline(always)]
    pub(super) fn first(&self, key: &[u8]) -> u8 {
        self.heads[bucket(key)]
    }

    /// The entry of a key among those of its bucket.
    #[inline(always)]
    pub(super) fn find_from(&self, first: u8, key: &[u8]) -> u8 {
        let words = words(key);
        let mut at = first;
        while at != NONE {
            let entry = &self.entries[at as usize];
            let is_alike = entry.words == words && entry.key.len() == key.len();
            if is_alike && (key.len() <= 16 || *entry.key == *key) {
                return at;
            }
            at = entry.next;
        }
        NONE
    }

    fn find_or_add(&mut self, key: &[u8]) -> usize {
        let found = self.find(key);
        if found != NONE {
            return found as usize;
        }
        let at = self.entries.len();
        let slot = &mut self.heads[bucket(key)];
        self.entries.push(Entry { key: key.into(), words: words(key), field: NONE, child: NONE, next: *slot, covers: 0 });
        *slot = at as u8;
        at
    }
}

impl FieldSet {
    /// # Panics
    /// With more than [`FIELDS_MAX`] distinct paths; the plan refuses that before.
    pub fn new<S: AsRef<str>>(paths: &[S]) -> FieldSet {
        assert!(paths.len() <= FIELDS_MAX, "a plan names at most {FIELDS_MAX} fields");
        let mut set = FieldSet { paths: Vec::new(), nodes: vec![Node::new()] };
        for (field, path) in paths.iter().map(AsRef::as_ref).enumerate() {
            set.paths.push(path.to_string());
            let bit = 1 << field;
            let keys: Vec<&str> = path.split('.').collect();
            let mut node = 0;
            for depth in 0..keys.len() {
                // What is left of the path may stand here as one key: `log.level`, or a label's name with dots.
                let flat = set.nodes[node].find_or_add(keys[depth..].join(".").as_bytes());
                set.nodes[node].entries[flat].field = field as u8;
                set.nodes[node].entries[flat].covers |= bit;
                // Each nesting adds one node, and nodes are numbered by u8: deeper paths are found flat only.
                if depth + 1 == keys.len() || set.nodes.len() >= NONE as usize {
                    break;
                }
                let at = set.nodes[node].find_or_add(keys[depth].as_bytes());
                set.nodes[node].entries[at].covers |= bit;
                if set.nodes[node].entries[at].child == NONE {
                    set.nodes[node].entries[at].child = set.nodes.len() as u8;
                    set.nodes.push(Node::new());
                }
                node = set.nodes[node].entries[at].child as usize;
            }
        }
        set
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Index of a path in the set.
    pub fn index(&self, path: &str) -> Option<usize> {
        self.paths.iter().position(|p| p == path)
    }
}
