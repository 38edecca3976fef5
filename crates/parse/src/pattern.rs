//! A compiled pattern: finds named fields in a line.
//!
//! In: a pattern in Ruby's dialect, as Fluent Bit's libraries have it; then lines of any bytes. Out: where the fields lie.
//! Every pattern is walked with back-tracking, which is fast for what log patterns look like, and exact. How many moves a line may
//! take is bounded: beyond, the linear engine takes over for patterns that it can say; for the others the answer is
//! [`Found::Limit`]. No line takes more than linear time.

mod class;
mod linear;
mod outline;
mod program;
mod read;
mod sieve;
mod tree;
mod walk;
mod word;

use linear::Linear;
use memchr::{memchr, memmem};
use program::{Anchor, Program};
pub use read::Refusal;
use regex_syntax::hir::Hir;
pub use sieve::{Sieve, Sifted, States};
use std::cell::RefCell;
use tree::Node;
use walk::{Memory, UNSET, Walked, Where};

/// Where a field lies in its line, in bytes; `None`: it took no part.
pub type Slot = Option<(u32, u32)>;

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Yes,
    No,
    /// The pattern needs more steps than it is given for this line.
    Limit,
}

/// How lines are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Every line is searched in linear time.
    Linear,
    /// The pattern needs back-tracking; a line that takes too long does not match.
    Backtracking,
}

/// What became of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub engine: Engine,
    /// What is not as in the `regex` crate's dialect, each once.
    pub rewrites: Vec<&'static str>,
    /// What the linear engine is given.
    pub translated: Option<String>,
    /// No group has a name: the pattern can decide, but gives no fields.
    pub has_no_fields: bool,
    /// Without this text in a line the pattern does not match; may be empty.
    pub required: String,
}

/// Moves before the linear engine takes over: some 50 ns per byte, as slow as that engine.
const MOVES_PER_BYTE: u64 = 16;
const MOVES_LEAST: u64 = 512;
/// Moves for a pattern that has no other engine: some 0.3 ms for a short line.
const ALONE_MOVES_PER_BYTE: u64 = 500;
const ALONE_MOVES_LEAST: u64 = 100_000;
/// However long the line is: some 20 ms, and 64 MiB at the worst.
const MOVES_MOST: u64 = 2_000_000;

pub struct Pattern {
    program: Program,
    linear: Option<Linear>,
    names: Vec<String>,
    /// For each name its groups, from 0 on.
    groups: Vec<Vec<u32>>,
    required: Option<memmem::Finder<'static>>,
    outline: Option<Hir>,
    /// A loop in a loop: a walk may try all ways of sharing the line between them before it fails.
    fails_late: bool,
    report: Report,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

impl Pattern {
    /// Compiles a pattern in Ruby's dialect, bare or as `/.../flags`.
    pub fn new(ruby: &str) -> Result<Pattern, Refusal> {
        let read = read::read(ruby)?;
        let refused = |reason: &'static str| Refusal { at: 0, reason: reason.to_string() };
        let program = program::compile(&read.tree, read.groups.len()).map_err(refused)?;
        let linear = Linear::new(&read.tree);
        let (names, groups) = fields(&read.groups);
        let required = word::required(&read.tree);
        let report = Report {
            engine: if linear.is_some() { Engine::Linear } else { Engine::Backtracking },
            rewrites: read.rewrites,
            translated: linear.as_ref().map(|linear| linear.text().to_string()),
            has_no_fields: names.is_empty(),
            required: required.clone(),
        };
        let required = (!required.is_empty()).then(|| memmem::Finder::new(&required).into_owned());
        let outline = outline::outline(&read.tree);
        let fails_late = read.tree.any(&|node| is_endless(node) && node.children()[0].any(&is_endless));
        Ok(Pattern { program, linear, names, groups, required, outline, fails_late, report })
    }

    /// The fields, in order of first mention; each once.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Lines that it may match, as one of many; `None`: that cannot be said.
    pub(crate) fn outline(&self) -> Option<&Hir> {
        self.outline.as_ref()
    }

    /// False if the pattern surely does not match; a glance, for streams with many patterns.
    pub fn may_match(&self, line: &[u8]) -> bool {
        let fits = self.may_begin_with(line.first().copied());
        if !fits && (self.program.anchor == Anchor::Text || memchr(b'\n', line).is_none()) {
            return false;
        }
        self.required.as_ref().is_none_or(|word| word.find(line).is_some())
    }

    /// False if no line that begins with this byte (`None`: an empty one) and holds no newline matches.
    pub fn may_begin_with(&self, byte: Option<u8>) -> bool {
        let first = &self.program.firsts[self.program.steps[self.program.start as usize].first as usize];
        self.program.anchor == Anchor::Anywhere || first.bytes[byte.map_or(256, usize::from)]
    }

    pub fn is_match(&self, line: &[u8]) -> bool {
        self.find(line, &mut Vec::new()) == Found::Yes
    }

    /// Finds the leftmost match. `slots`: cleared, then one per name.
    pub fn find(&self, line: &[u8], slots: &mut Vec<Slot>) -> Found {
        MEMORY.with_borrow_mut(|memory| self.find_with(line, memory, slots))
    }

    fn find_with(&self, line: &[u8], memory: &mut Memory, slots: &mut Vec<Slot>) -> Found {
        slots.clear();
        if line.len() >= UNSET as usize {
            return Found::Limit;
        }
        let found = self.search(line, memory);
        memory.trim();
        match found {
            Some(true) => {
                slots.extend(self.groups.iter().map(|groups| last_set(groups, &memory.slots)));
                Found::Yes
            }
            Some(false) => Found::No,
            None => Found::Limit,
        }
    }

    /// Fills the memory's slots; `None`: it takes too long.
    fn search(&self, line: &[u8], memory: &mut Memory) -> Option<bool> {
        let is_anchored = self.program.anchor != Anchor::Anywhere;
        if is_anchored && !self.fails_late {
            return self.walk(line, memory, Where::Anywhere); // which fails soon enough
        }
        if !is_anchored && !self.may_match(line) {
            return Some(false);
        }
        let Some((linear, text)) = self.linear.as_ref().and_then(|linear| Some((linear, linear.reads(line)?))) else {
            return self.walk(line, memory, Where::Anywhere);
        };
        // Most lines match at the first place that fits. If not, the linear engine says where they do, if at all.
        if !self.fails_late && self.walk(line, memory, Where::FirstPlace)? {
            return Some(true);
        }
        match linear.start(text) {
            Some(start) => self.walk(line, memory, Where::At(start)),
            None => Some(false),
        }
    }

    /// Walks the line; if that takes too long, searches it by the linear engine.
    fn walk(&self, line: &[u8], memory: &mut Memory, place: Where) -> Option<bool> {
        match walk::walk(&self.program, line, memory, place, self.moves(line)) {
            Walked::Yes => Some(true),
            Walked::No => Some(false),
            Walked::Limit => self.linear.as_ref()?.find(line, &mut memory.slots),
        }
    }

    fn moves(&self, line: &[u8]) -> u64 {
        let moves = match self.linear {
            Some(_) => MOVES_LEAST + MOVES_PER_BYTE * line.len() as u64,
            None => ALONE_MOVES_LEAST + ALONE_MOVES_PER_BYTE * line.len() as u64,
        };
        moves.min(MOVES_MOST)
    }
}

fn is_endless(node: &Node) -> bool {
    matches!(node, Node::Repeat { max: None, .. })
}

/// Each name once, and its groups.
fn fields(named: &[Option<String>]) -> (Vec<String>, Vec<Vec<u32>>) {
    let mut names: Vec<String> = Vec::new();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for (group, name) in named.iter().enumerate() {
        let Some(name) = name else { continue };
        match names.iter().position(|known| known == name) {
            Some(at) => groups[at].push(group as u32),
            None => {
                names.push(name.clone());
                groups.push(vec![group as u32]);
            }
        }
    }
    (names, groups)
}

/// The last group that took part and is not empty, or else the last that took part.
fn last_set(groups: &[u32], slots: &[u32]) -> Slot {
    let place = |group: &u32| {
        let (start, end) = (slots[*group as usize * 2], slots[*group as usize * 2 + 1]);
        (start != UNSET && end != UNSET).then_some((start, end))
    };
    if let [group] = groups {
        return place(group);
    }
    let set = || groups.iter().rev().filter_map(place);
    set().find(|(start, end)| start < end).or_else(|| set().next())
}
