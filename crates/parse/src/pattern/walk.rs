//! Walks a program along a line, step by step and back: the engine for every pattern, in Ruby's order of preference.
//!
//! In: a program and a line; out: the groups' places. Bound: a number of moves given by the caller, and some 32 bytes for each;
//! when they are used up the answer is [`Walked::Limit`], never a wrong one.

use super::class::{Class, WORD};
use super::program::{Anchor, Beyond, DONE, ENDLESS, Op, Program, Set};
use super::tree::{Assert, Greed};
use memchr::{memchr, memrchr};

/// A slot of a group that took no part.
pub const UNSET: u32 = u32::MAX;
const NESTED_MAX: usize = 100; // look-arounds within called groups
const CALLS_MAX: usize = 10_000;
const MARKS_MAX: usize = 1 << 20; // 4 MiB
/// What is kept of the trail from line to line.
const TRAIL_KEPT_MAX: usize = 1 << 12; // 64 KiB

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    Yes,
    No,
    Limit,
}

/// What a walk needs to remember; kept from line to line.
#[derive(Default)]
pub struct Memory {
    /// Two per group.
    pub slots: Vec<u32>,
    trail: Vec<Turn>,
    marks: Vec<u32>,
    calls: Vec<u32>,
}

impl Memory {
    /// Gives back what only an odd line needed.
    pub fn trim(&mut self) {
        if self.trail.capacity() > TRAIL_KEPT_MAX {
            self.trail = Vec::new();
        }
    }
}

/// Where another way is open, or what must be undone on the way back.
#[derive(Clone, Copy)]
enum Turn {
    Branch {
        step: u32,
        at: u32,
    },
    /// A greedy run may give back, down to `low`.
    Shorter {
        step: u32,
        low: u32,
        at: u32,
    },
    /// A lazy run may take more, `left` at most.
    Longer {
        step: u32,
        at: u32,
        left: u32,
    },
    Slot {
        slot: u32,
        was: u32,
    },
    Mark {
        mark: u32,
        was: u32,
    },
    Called,
    Returned {
        to: u32,
    },
}

struct OutOfMoves;

/// Where a match is looked for.
#[derive(Clone, Copy)]
pub enum Where {
    Anywhere,
    /// Only at the first place that fits by its first byte.
    FirstPlace,
    At(usize),
}

/// Finds the leftmost match; at most `moves` moves.
pub fn walk(program: &Program, line: &[u8], memory: &mut Memory, place: Where, moves: u64) -> Walked {
    let mut walker = Walker { program, line, memory, moves: moves.min(i64::MAX as u64) as i64, nested: 0 };
    let found = match place {
        Where::Anywhere => walker.search(),
        Where::FirstPlace => walker.candidate(0).map_or(Ok(false), |start| walker.attempt(start)),
        Where::At(start) => walker.attempt(start),
    };
    match found {
        Ok(true) => Walked::Yes,
        Ok(false) => Walked::No,
        Err(OutOfMoves) => Walked::Limit,
    }
}

struct Walker<'a> {
    program: &'a Program,
    line: &'a [u8],
    memory: &'a mut Memory,
    moves: i64,
    nested: usize,
}

impl Walker<'_> {
    fn search(&mut self) -> Result<bool, OutOfMoves> {
        let mut at = 0;
        while let Some(start) = self.candidate(at) {
            if self.attempt(start)? {
                return Ok(true);
            }
            if start == self.line.len() {
                break;
            }
            at = start + width(self.line, start);
        }
        Ok(false)
    }

    /// The first place from `at` on where a match may begin.
    fn candidate(&self, mut at: usize) -> Option<usize> {
        let line = self.line;
        match self.program.anchor {
            Anchor::Text => (at == 0).then_some(0),
            Anchor::Line if at == 0 => Some(0),
            Anchor::Line if line[at - 1] == b'\n' => Some(at),
            Anchor::Line => memchr(b'\n', &line[at..]).map(|found| at + found + 1),
            Anchor::Anywhere => {
                let first = &self.program.firsts[self.program.steps[self.program.start as usize].first as usize];
                if let Some(only) = first.only.filter(u8::is_ascii) {
                    return memchr(only, &line[at..]).map(|found| at + found);
                }
                while at < line.len() && !first.bytes[line[at] as usize] {
                    at += width(line, at);
                }
                (at < line.len() || first.bytes[256]).then_some(at)
            }
        }
    }

    fn attempt(&mut self, start: usize) -> Result<bool, OutOfMoves> {
        if !self.fits(self.program.start, start) {
            return Ok(false);
        }
        self.memory.slots.clear();
        self.memory.slots.resize(self.program.slots, UNSET);
        self.memory.trail.clear();
        self.memory.calls.clear();
        self.reserve_marks(0)?;
        self.spend(self.program.slots / 16)?;
        Ok(self.run(self.program.start, start, self.line.len())?.is_some())
    }

    /// Whether what stands at `at` allows step `step`.
    #[inline(always)]
    fn fits(&self, step: u32, at: usize) -> bool {
        let value = self.line.get(at).map_or(256, |byte| *byte as usize);
        self.program.firsts[self.program.steps[step as usize].first as usize].bytes[value]
    }

    /// Walks from `step` to the end of the pattern or look-around, taking nothing beyond `end`; returns where it ended.
    fn run(&mut self, step: u32, at: usize, end: usize) -> Result<Option<usize>, OutOfMoves> {
        let floor = self.memory.trail.len();
        let (mut step, mut at) = (step, at);
        loop {
            self.spend(1)?;
            if step == DONE {
                return Ok(Some(at));
            }
            let moved = match self.advance(step, at, end)? {
                Some(moved) => Some(moved),
                None => self.retreat(floor, end)?,
            };
            match moved {
                Some(moved) => (step, at) = moved,
                None => return Ok(None),
            }
        }
    }

    #[inline(always)]
    fn spend(&mut self, moves: usize) -> Result<(), OutOfMoves> {
        self.moves -= moves as i64;
        if self.moves < 0 { Err(OutOfMoves) } else { Ok(()) }
    }

    /// One step forward: the next step and place, or none if it fails.
    #[inline(always)]
    fn advance(&mut self, number: u32, at: usize, end: usize) -> Result<Option<(u32, usize)>, OutOfMoves> {
        let program = self.program;
        let step = &program.steps[number as usize];
        let next = step.next;
        Ok(match &step.op {
            Op::Done => Some((DONE, at)),
            Op::Byte(byte) => (at < end && self.line[at] == *byte).then_some((next, at + 1)),
            Op::Bytes(bytes) => self.line[at..end].starts_with(bytes).then_some((next, at + bytes.len())),
            Op::Set(set) => match self.taken(&program.sets[*set as usize], at, end) {
                0 => None,
                width => Some((next, at + width)),
            },
            Op::Run { set, min, max, greed: Greed::Lazy } => self.lazy(number, &program.sets[*set as usize], at, end, *min, *max)?,
            Op::Run { set, min, max, greed } => {
                let Some((low, high)) = self.extent(&program.sets[*set as usize], at, end, *min, *max) else { return Ok(None) };
                self.spend((high - at) / 16)?;
                if *greed == Greed::Possessive { Some((next, high)) } else { self.shorter(number, low, high)? }
            }
            Op::Field { slot, set, min, max } => {
                let Some((_, high)) = self.extent(&program.sets[*set as usize], at, end, *min, *max) else { return Ok(None) };
                self.spend((high - at) / 16)?;
                self.save(*slot, at as u32);
                self.save(*slot + 1, high as u32);
                Some((next, high))
            }
            Op::Split { other } => Some(self.split(next, *other, at)),
            Op::Save(slot) => {
                self.save(*slot, at as u32);
                Some((next, at))
            }
            Op::Assert(assert) => self.holds(*assert, at).then_some((next, at)),
            Op::Mark(mark) => {
                self.mark(*mark, at as u32);
                Some((next, at))
            }
            Op::Turned { mark, exit } => {
                let began = self.memory.marks[self.mark_index(*mark)];
                Some((if began == at as u32 { *exit } else { next }, at))
            }
            _ => self.rare(number, at, end)?,
        })
    }

    /// Steps that few patterns have.
    #[inline(never)]
    fn rare(&mut self, number: u32, at: usize, end: usize) -> Result<Option<(u32, usize)>, OutOfMoves> {
        let program = self.program;
        let step = &program.steps[number as usize];
        let next = step.next;
        Ok(match &step.op {
            Op::Ahead { body, negated } => (self.look(*body, at, *negated)? != *negated).then_some((next, at)),
            Op::Behind { bodies, negated } => (self.looks_back(bodies, at, *negated)? != *negated).then_some((next, at)),
            Op::Atomic(body) => self.atomic(*body, at, end)?.map(|at| (next, at)),
            Op::Absent(body) => match self.absent(*body, at, end)? {
                Some(high) => self.shorter(number, at, high)?,
                None => None,
            },
            Op::Back { groups, fold } => self.back(groups, *fold, at, end)?.map(|at| (next, at)),
            Op::SaveBoth { slot, mark } => {
                self.save(*slot, self.memory.marks[self.mark_index(*mark)]);
                self.save(*slot + 1, at as u32);
                Some((next, at))
            }
            Op::Call(group) => Some((self.call(*group, next)?, at)),
            Op::Return => {
                let to = self.memory.calls.pop().unwrap_or(DONE);
                self.memory.trail.push(Turn::Returned { to });
                Some((to, at))
            }
            Op::If { groups, no } => Some((if groups.iter().any(|group| self.group(*group).is_some()) { next } else { *no }, at)),
            _ => None,
        })
    }

    /// Back to the last place where another way is open; none above `floor`: the walk failed.
    fn retreat(&mut self, floor: usize, end: usize) -> Result<Option<(u32, usize)>, OutOfMoves> {
        while self.memory.trail.len() > floor {
            self.spend(1)?;
            let Some(turn) = self.memory.trail.pop() else { break };
            let moved = match turn {
                Turn::Branch { step, at } => Some((step, at as usize)),
                Turn::Shorter { step, low, at } => match before(self.line, low as usize, at as usize) {
                    Some(at) => self.shorter(step, low as usize, at)?,
                    None => None,
                },
                Turn::Longer { step, at, left } => self.longer(step, at as usize, end, left)?,
                undo => {
                    self.undo(undo);
                    None
                }
            };
            if moved.is_some() {
                return Ok(moved);
            }
        }
        Ok(None)
    }

    fn undo(&mut self, turn: Turn) {
        match turn {
            Turn::Slot { slot, was } => self.memory.slots[slot as usize] = was,
            Turn::Mark { mark, was } => self.memory.marks[mark as usize] = was,
            Turn::Called => drop(self.memory.calls.pop()),
            Turn::Returned { to } => self.memory.calls.push(to),
            Turn::Branch { .. } | Turn::Shorter { .. } | Turn::Longer { .. } => {}
        }
    }

    #[inline(always)]
    fn split(&mut self, preferred: u32, other: u32, at: usize) -> (u32, usize) {
        if !self.fits(preferred, at) {
            return (other, at);
        }
        if self.fits(other, at) {
            self.memory.trail.push(Turn::Branch { step: other, at: at as u32 });
        }
        (preferred, at)
    }

    #[inline(always)]
    fn save(&mut self, slot: u32, at: u32) {
        let was = std::mem::replace(&mut self.memory.slots[slot as usize], at);
        // Without another way open there is no way back on which to undo it.
        if !self.memory.trail.is_empty() || self.nested > 0 {
            self.memory.trail.push(Turn::Slot { slot, was });
        }
    }

    /// Makes room for the marks of so many calls within each other. A mark is written before it is read.
    fn reserve_marks(&mut self, calls: usize) -> Result<(), OutOfMoves> {
        let needed = (calls + 1) * self.program.marks;
        if needed > MARKS_MAX {
            return Err(OutOfMoves);
        }
        if self.memory.marks.len() < needed {
            self.memory.marks.resize(needed, 0);
        }
        Ok(())
    }

    /// Each call of a group has marks of its own.
    fn mark_index(&self, mark: u32) -> usize {
        self.memory.calls.len() * self.program.marks + mark as usize
    }

    fn mark(&mut self, mark: u32, at: u32) {
        let index = self.mark_index(mark);
        let was = std::mem::replace(&mut self.memory.marks[index], at);
        self.memory.trail.push(Turn::Mark { mark: index as u32, was });
    }

    /// How many bytes the character at `at` has if it is in the set, else 0.
    #[inline(always)]
    fn taken(&self, set: &Set, at: usize, end: usize) -> usize {
        if at >= end || !set.bytes[self.line[at] as usize] {
            return 0;
        }
        if self.line[at] < 0x80 {
            return 1;
        }
        taken_beyond(set, self.line, at)
    }

    /// Where a run of at least `min` and at most `max` characters may end: nearest and farthest place.
    #[inline(always)]
    fn extent(&self, set: &Set, at: usize, end: usize, min: u32, max: u32) -> Option<(usize, usize)> {
        match &set.beyond {
            Beyond::None => {
                let end = end.min(at.saturating_add(max as usize));
                let high = at + leading(&self.line[at..end], set);
                (high - at >= min as usize).then_some((at + min as usize, high))
            }
            Beyond::All if max == ENDLESS && min <= 1 => {
                let high = at + leading(&self.line[at..end], set);
                match min {
                    0 => Some((at, high)),
                    _ => (high > at).then(|| (at + width(self.line, at), high)),
                }
            }
            _ => self.extent_by_chars(set, at, end, min, max),
        }
    }

    fn extent_by_chars(&self, set: &Set, at: usize, end: usize, min: u32, max: u32) -> Option<(usize, usize)> {
        let (mut low, mut high, mut count) = (at, at, 0);
        while count < max {
            let width = self.taken(set, high, end);
            if width == 0 {
                break;
            }
            high += width;
            count += 1;
            if count == min {
                low = high;
            }
        }
        (count >= min).then_some((low, high))
    }

    /// Ends a run at the farthest place up to `high` where what follows may begin.
    #[inline(always)]
    fn shorter(&mut self, number: u32, low: usize, high: usize) -> Result<Option<(u32, usize)>, OutOfMoves> {
        let next = self.program.steps[number as usize].next;
        let mut at = high;
        if !self.fits(next, high) {
            match self.fitting_before(next, low, high) {
                Some(found) => at = found,
                None => return self.spend((high - low) / 16).map(|()| None),
            }
            self.spend((high - at) / 16)?;
        }
        if at > low {
            self.memory.trail.push(Turn::Shorter { step: number, low: low as u32, at: at as u32 });
        }
        Ok(Some((next, at)))
    }

    /// The last place in `low..high` at which a character begins and step `next` may.
    fn fitting_before(&self, next: u32, low: usize, high: usize) -> Option<usize> {
        let first = &self.program.firsts[self.program.steps[next as usize].first as usize];
        if let Some(only) = first.only.filter(u8::is_ascii) {
            return memrchr(only, &self.line[low..high]).map(|found| low + found);
        }
        let mut end = high;
        while let Some(found) = self.line[low..end].iter().rposition(|byte| first.bytes[*byte as usize]) {
            if is_boundary(self.line, low + found) {
                return Some(low + found);
            }
            end = low + found;
        }
        None
    }

    fn lazy(&mut self, number: u32, set: &Set, at: usize, end: usize, min: u32, max: u32) -> Result<Option<(u32, usize)>, OutOfMoves> {
        let (mut at, mut left) = (at, max);
        for _ in 0..min {
            let width = self.taken(set, at, end);
            if width == 0 {
                return Ok(None);
            }
            at += width;
            left = fewer(left);
        }
        self.reach(number, set, at, end, left)
    }

    /// Ends a lazy run at the nearest place from `at` on where what follows may begin.
    fn reach(&mut self, number: u32, set: &Set, at: usize, end: usize, left: u32) -> Result<Option<(u32, usize)>, OutOfMoves> {
        let next = self.program.steps[number as usize].next;
        let (start, mut at, mut left) = (at, at, left);
        loop {
            let width = if left == 0 { 0 } else { self.taken(set, at, end) };
            if self.fits(next, at) {
                self.spend((at - start) / 8)?;
                if width > 0 {
                    self.memory.trail.push(Turn::Longer { step: number, at: at as u32, left });
                }
                return Ok(Some((next, at)));
            }
            if width == 0 {
                self.spend((at - start) / 8)?;
                return Ok(None);
            }
            at += width;
            left = fewer(left);
        }
    }

    /// One character more than the lazy run had.
    fn longer(&mut self, number: u32, at: usize, end: usize, left: u32) -> Result<Option<(u32, usize)>, OutOfMoves> {
        let Op::Run { set, .. } = &self.program.steps[number as usize].op else { return Ok(None) };
        let set = &self.program.sets[*set as usize];
        match self.taken(set, at, end) {
            0 => Ok(None),
            width => self.reach(number, set, at + width, end, fewer(left)),
        }
    }

    fn holds(&self, assert: Assert, at: usize) -> bool {
        let line = self.line;
        match assert {
            Assert::TextStart => at == 0,
            Assert::TextEnd => at == line.len(),
            // No line begins after a newline that ends the text.
            Assert::LineStart => at == 0 || (line[at - 1] == b'\n' && at < line.len()),
            Assert::LineEnd => at == line.len() || line[at] == b'\n',
            Assert::TextEndOrNewline => at == line.len() || (at + 1 == line.len() && line[at] == b'\n'),
            Assert::Word => self.is_edge(at),
            Assert::NotWord => !self.is_edge(at),
        }
    }

    /// Whether a word begins or ends here.
    fn is_edge(&self, at: usize) -> bool {
        let is_word = |at: usize| match self.line.get(at) {
            None => false,
            Some(byte) if *byte < 0x80 => byte.is_ascii_alphanumeric() || *byte == b'_',
            Some(_) => char_at(self.line, at).is_some_and(|c| WORD.has(c)),
        };
        before(self.line, 0, at).is_some_and(is_word) != is_word(at)
    }

    fn nested(&mut self, body: u32, at: usize, end: usize) -> Result<Option<usize>, OutOfMoves> {
        if self.nested == NESTED_MAX {
            return Err(OutOfMoves);
        }
        self.nested += 1;
        let result = self.run(body, at, end);
        self.nested -= 1;
        result
    }

    /// Takes the trail back to `floor`, undoing what was done since.
    fn unwind(&mut self, floor: usize) {
        while self.memory.trail.len() > floor {
            let Some(turn) = self.memory.trail.pop() else { break };
            self.undo(turn);
        }
    }

    /// Closes the ways opened since `floor`, but keeps what is to be undone.
    fn settle(&mut self, floor: usize) {
        let mut kept = floor;
        for i in floor..self.memory.trail.len() {
            let turn = self.memory.trail[i];
            if !matches!(turn, Turn::Branch { .. } | Turn::Shorter { .. } | Turn::Longer { .. }) {
                self.memory.trail[kept] = turn;
                kept += 1;
            }
        }
        self.memory.trail.truncate(kept);
    }

    fn atomic(&mut self, body: u32, at: usize, end: usize) -> Result<Option<usize>, OutOfMoves> {
        let floor = self.memory.trail.len();
        let found = self.nested(body, at, end)?;
        self.settle(floor);
        Ok(found)
    }

    /// Whether the body matches here; what it saved stays unless `negated`.
    fn look(&mut self, body: u32, at: usize, negated: bool) -> Result<bool, OutOfMoves> {
        let floor = self.memory.trail.len();
        let found = self.nested(body, at, self.line.len())?;
        if negated {
            self.unwind(floor);
        } else {
            self.settle(floor);
        }
        Ok(found.is_some())
    }

    fn looks_back(&mut self, bodies: &[(u32, u32)], at: usize, negated: bool) -> Result<bool, OutOfMoves> {
        for (body, width) in bodies {
            let start = (0..*width).try_fold(at, |at, _| before(self.line, 0, at));
            self.spend(*width as usize)?;
            if let Some(start) = start
                && self.look(*body, start, negated)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The farthest end of a text from `at` on in which the body does not match; none if it matches even in the empty one.
    fn absent(&mut self, body: u32, at: usize, end: usize) -> Result<Option<usize>, OutOfMoves> {
        let (mut start, mut high) = (at, end);
        while start <= high {
            self.spend(1)?;
            let floor = self.memory.trail.len();
            let found = self.nested(body, start, high)?;
            self.unwind(floor);
            match found {
                Some(found) => match before(self.line, start, found) {
                    Some(shorter) => high = shorter,
                    None => return Ok(None),
                },
                None if start < high => start += width(self.line, start),
                None => break,
            }
        }
        Ok(Some(high))
    }

    fn group(&self, group: u32) -> Option<(usize, usize)> {
        let slot = (group as usize - 1) * 2;
        let (start, end) = (self.memory.slots[slot], self.memory.slots[slot + 1]);
        (start != UNSET && end != UNSET && start <= end).then_some((start as usize, end as usize))
    }

    fn back(&mut self, groups: &[u32], fold: bool, at: usize, end: usize) -> Result<Option<usize>, OutOfMoves> {
        for group in groups.iter().rev() {
            let Some((from, to)) = self.group(*group) else { continue };
            self.spend((to - from) / 8)?;
            let wanted = &self.line[from..to];
            let found = match fold {
                false => self.line[at..end].starts_with(wanted).then_some(at + wanted.len()),
                true => same_letters(wanted, &self.line[at..end]).map(|length| at + length),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn call(&mut self, group: u32, back: u32) -> Result<u32, OutOfMoves> {
        if self.memory.calls.len() == CALLS_MAX {
            return Err(OutOfMoves);
        }
        self.memory.calls.push(back);
        self.memory.trail.push(Turn::Called);
        self.reserve_marks(self.memory.calls.len())?;
        Ok(self.program.called.get(&group).copied().unwrap_or(DONE))
    }
}

fn fewer(left: u32) -> u32 {
    if left == ENDLESS { ENDLESS } else { left - 1 }
}

/// How many bytes from the start on are in the set.
#[inline(always)]
fn leading(bytes: &[u8], set: &Set) -> usize {
    match set.stop {
        Some(stop) => memchr(stop, bytes).unwrap_or(bytes.len()),
        None => bytes.iter().position(|byte| !set.bytes[*byte as usize]).unwrap_or(bytes.len()),
    }
}

fn taken_beyond(set: &Set, line: &[u8], at: usize) -> usize {
    let is_in = |class: &Class| char_at(line, at).map_or(class.invalid, |c| class.has(c));
    match &set.beyond {
        Beyond::None => 0,
        Beyond::All => width(line, at),
        Beyond::Some(class) => {
            if is_in(class) {
                width(line, at)
            } else {
                0
            }
        }
    }
}

/// The character that begins here; none: the byte is no UTF-8.
pub fn char_at(line: &[u8], at: usize) -> Option<char> {
    let length = match line[at] {
        0..0x80 => 1,
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => return None,
    };
    std::str::from_utf8(line.get(at..at + length)?).ok()?.chars().next()
}

/// Bytes of the character that begins here; 1 if the byte is no UTF-8.
#[inline(always)]
pub fn width(line: &[u8], at: usize) -> usize {
    if line[at] < 0x80 { 1 } else { char_at(line, at).map_or(1, char::len_utf8) }
}

/// Whether a character begins here. A lead byte is never within another character, so looking three bytes back is enough.
#[inline(always)]
fn is_boundary(line: &[u8], at: usize) -> bool {
    match line.get(at) {
        Some(0x80..0xc0) => (1..=3.min(at)).all(|back| width(line, at - back) <= back),
        _ => true,
    }
}

/// Where the character before `at` begins; none if that is before `low`.
fn before(line: &[u8], low: usize, at: usize) -> Option<usize> {
    let last = at.checked_sub(1)?;
    let start = (0..=3.min(last)).map(|back| last - back).find(|start| is_boundary(line, *start))?;
    (start >= low).then_some(start)
}

/// How much of `text` is `wanted` in any case.
fn same_letters(wanted: &[u8], text: &[u8]) -> Option<usize> {
    let (mut i, mut j) = (0, 0);
    while i < wanted.len() {
        if j == text.len() {
            return None;
        }
        let same = match (char_at(wanted, i), char_at(text, j)) {
            (Some(a), Some(b)) => a.to_lowercase().eq(b.to_lowercase()),
            (None, None) => wanted[i] == text[j],
            _ => false,
        };
        if !same {
            return None;
        }
        i += width(wanted, i);
        j += width(text, j);
    }
    Some(j)
}
