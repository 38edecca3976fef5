//! Compiles a tree into steps for the walker.
//!
//! Steps are laid out from the end of the pattern to its start, so that each knows what may come after it. From that come the two
//! things that make walking fast: a choice is only remembered if the next byte allows both ways, and a run whose characters
//! cannot begin what follows never gives any back.
//! Bound: [`STEPS_MAX`] steps; a pattern whose counted repeats need more is refused.

use super::class::Class;
use super::tree::{Assert, Greed, Node};
use std::collections::{BTreeSet, HashMap};

const STEPS_MAX: usize = 20_000; // about 1 MiB
/// How far back equal sets and their numbers are looked for.
const SETS_COMPARED_MAX: usize = 64;

/// The step that ends the pattern, or a look-around within it.
pub const DONE: u32 = 0;
pub const ENDLESS: u32 = u32::MAX;

pub struct Program {
    pub steps: Vec<Step>,
    pub sets: Vec<Set>,
    pub firsts: Vec<First>,
    pub start: u32,
    pub anchor: Anchor,
    /// Two per group: where it begins and ends.
    pub slots: usize,
    /// Places where loops note where their turn began.
    pub marks: usize,
    /// Where the groups begin that are called; 0 is the whole.
    pub called: HashMap<u32, u32>,
}

pub struct Step {
    pub op: Op,
    pub next: u32,
    /// Number of what may be the next byte here.
    pub first: u32,
}

#[derive(Debug)]
pub enum Op {
    Done,
    Byte(u8),
    Bytes(Box<[u8]>),
    Set(u32),
    /// `min` to `max` characters of a set.
    Run {
        set: u32,
        min: u32,
        max: u32,
        greed: Greed,
    },
    /// A group that is a run of a set and never gives any back: three steps in one, as most fields are.
    Field {
        slot: u32,
        set: u32,
        min: u32,
        max: u32,
    },
    /// `next`, and if that fails `other`.
    Split {
        other: u32,
    },
    Save(u32),
    /// The end of a group that is called: it began where the mark says, whatever calls within it have saved since.
    SaveBoth {
        slot: u32,
        mark: u32,
    },
    Assert(Assert),
    /// A turn of a loop begins.
    Mark(u32),
    /// A turn that took nothing ends the loop.
    Turned {
        mark: u32,
        exit: u32,
    },
    Ahead {
        body: u32,
        negated: bool,
    },
    /// Bodies and how many characters before this place they begin.
    Behind {
        bodies: Box<[(u32, u32)]>,
        negated: bool,
    },
    Atomic(u32),
    Absent(u32),
    Back {
        groups: Box<[u32]>,
        fold: bool,
    },
    Call(u32),
    Return,
    If {
        groups: Box<[u32]>,
        no: u32,
    },
}

/// Where matches can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Anywhere,
    Line,
    Text,
}

/// A class by bytes.
pub struct Set {
    /// Whether a character that begins so may be in; all there is to know for ASCII.
    pub bytes: [bool; 256],
    pub beyond: Beyond,
    /// The only byte that is not in, if all of UTF-8 is.
    pub stop: Option<u8>,
    class: Class,
}

/// What a set has beyond ASCII.
pub enum Beyond {
    None,
    All,
    Some(Class),
}

/// What may be the next byte; entry 256: the line's end.
pub struct First {
    pub bytes: [bool; 257],
    /// The only one, if it is one.
    pub only: Option<u8>,
    bits: Bits,
}

const END: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Bits([u64; 5]);

impl Bits {
    const NONE: Bits = Bits([0; 5]);
    const ALL: Bits = Bits([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 1]);

    fn of(values: &[usize]) -> Bits {
        let mut bits = Bits::NONE;
        for value in values {
            bits.0[value / 64] |= 1 << (value % 64);
        }
        bits
    }

    fn has(&self, value: usize) -> bool {
        self.0[value / 64] >> (value % 64) & 1 == 1
    }

    fn or(self, other: Bits) -> Bits {
        Bits(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    fn and(self, other: Bits) -> Bits {
        Bits(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

/// Why a tree has no program; text for a person.
pub type Unfit = &'static str;

/// `groups`: how many there are.
pub fn compile(tree: &Node, groups: usize) -> Result<Program, Unfit> {
    let mut called = BTreeSet::new();
    find_calls(tree, &mut called);
    let program = Program {
        steps: Vec::new(),
        sets: Vec::new(),
        firsts: Vec::new(),
        start: DONE,
        anchor: anchor(tree),
        slots: 2 * groups,
        marks: 0,
        called: HashMap::new(),
    };
    let mut compiler = Compiler { program, numbers: HashMap::new(), called };
    compiler.push(Op::Done, DONE, Bits::ALL)?;
    compiler.program.start = compiler.node(tree, DONE)?;
    compiler.subroutines(tree)?;
    Ok(compiler.program)
}

fn find_calls(node: &Node, called: &mut BTreeSet<u32>) {
    if let Node::Call(group) = node {
        called.insert(*group);
    }
    node.children().into_iter().for_each(|child| find_calls(child, called));
}

/// Where matches of a node can begin.
pub fn anchor(node: &Node) -> Anchor {
    match node {
        Node::Assert(Assert::LineStart) => Anchor::Line,
        Node::Assert(Assert::TextStart) => Anchor::Text,
        Node::Concat(nodes) => anchor(&nodes[0]),
        Node::Group(_, node) | Node::Atomic(node) => anchor(node),
        Node::Alt(nodes) => {
            let first = anchor(&nodes[0]);
            if nodes.iter().all(|node| anchor(node) == first) { first } else { Anchor::Anywhere }
        }
        Node::Repeat { node, min: 1.., .. } => anchor(node),
        _ => Anchor::Anywhere,
    }
}

struct Compiler {
    program: Program,
    numbers: HashMap<Bits, u32>,
    /// Groups that something calls; they are compiled as subroutines.
    called: BTreeSet<u32>,
}

type Compiled = Result<u32, Unfit>;

impl Compiler {
    fn push(&mut self, op: Op, next: u32, first: Bits) -> Compiled {
        if self.program.steps.len() == STEPS_MAX {
            return Err("its counted repeats make it too large");
        }
        let first = self.number(first);
        self.program.steps.push(Step { op, next, first });
        Ok(self.program.steps.len() as u32 - 1)
    }

    fn number(&mut self, bits: Bits) -> u32 {
        let firsts = &mut self.program.firsts;
        *self.numbers.entry(bits).or_insert_with(|| {
            let bytes = std::array::from_fn(|value| bits.has(value));
            let mut values = (0..=END).filter(|value| bits.has(*value));
            let only = match (values.next(), values.next()) {
                (Some(value), None) => u8::try_from(value).ok(),
                _ => None,
            };
            firsts.push(First { bytes, only, bits });
            firsts.len() as u32 - 1
        })
    }

    fn first(&self, step: u32) -> Bits {
        self.program.firsts[self.program.steps[step as usize].first as usize].bits
    }

    fn mark(&mut self) -> u32 {
        self.program.marks += 1;
        self.program.marks as u32 - 1
    }

    /// Compiles a node that is followed by step `next`; returns where it begins.
    fn node(&mut self, node: &Node, next: u32) -> Compiled {
        match node {
            Node::Empty => Ok(next),
            Node::Char(c) => self.literal(&[*c], next),
            Node::Class(class) => {
                let set = self.set(class);
                self.push(Op::Set(set), next, lead(class))
            }
            Node::Concat(nodes) => self.concat(nodes, next),
            Node::Alt(nodes) => self.alternatives(nodes, next),
            Node::Repeat { node, min, max, greed } => self.repeat(node, *min, *max, *greed, next),
            Node::Group(index, _) if self.called.contains(index) => self.push(Op::Call(*index), next, Bits::ALL),
            Node::Group(index, node) => self.group(*index, node, next),
            Node::Assert(assert) => self.assert(*assert, next),
            Node::Look { behind: false, negated, node } => {
                let body = self.node(node, DONE)?;
                self.push(Op::Ahead { body, negated: *negated }, next, self.first(next))
            }
            Node::Look { behind: true, negated, node } => self.behind(node, *negated, next),
            Node::Atomic(node) => {
                let body = self.node(node, DONE)?;
                let first = first_before(node, self.first(next));
                self.push(Op::Atomic(body), next, first)
            }
            Node::Back { groups, fold } => self.push(Op::Back { groups: groups.clone().into(), fold: *fold }, next, Bits::ALL),
            Node::Call(group) => self.push(Op::Call(*group), next, Bits::ALL),
            Node::Absent(node) => {
                let body = self.node(node, DONE)?;
                self.push(Op::Absent(body), next, Bits::ALL)
            }
            Node::If { groups, yes, no } => {
                let yes = self.node(yes, next)?;
                let no = self.node(no, next)?;
                let first = self.first(yes).or(self.first(no));
                self.push(Op::If { groups: groups.clone().into(), no }, yes, first)
            }
        }
    }

    fn literal(&mut self, chars: &[char], next: u32) -> Compiled {
        let text: String = chars.iter().collect();
        let bytes = text.as_bytes();
        let first = Bits::of(&[bytes[0] as usize]);
        match bytes {
            [byte] => self.push(Op::Byte(*byte), next, first),
            _ => self.push(Op::Bytes(bytes.into()), next, first),
        }
    }

    /// Characters in a row become one step.
    fn concat(&mut self, nodes: &[Node], next: u32) -> Compiled {
        let mut at = next;
        let mut end = nodes.len();
        while end > 0 {
            let chars: Vec<char> = nodes[..end].iter().rev().map_while(as_char).collect();
            if chars.is_empty() {
                at = self.node(&nodes[end - 1], at)?;
                end -= 1;
            } else {
                end -= chars.len();
                let chars: Vec<char> = chars.into_iter().rev().collect();
                at = self.literal(&chars, at)?;
            }
        }
        Ok(at)
    }

    fn alternatives(&mut self, nodes: &[Node], next: u32) -> Compiled {
        let mut at = None;
        for node in nodes.iter().rev() {
            let branch = self.node(node, next)?;
            at = Some(match at {
                None => branch,
                Some(other) => self.split(branch, other)?,
            });
        }
        Ok(at.unwrap_or(next))
    }

    fn split(&mut self, preferred: u32, other: u32) -> Compiled {
        let first = self.first(preferred).or(self.first(other));
        self.push(Op::Split { other }, preferred, first)
    }

    fn group(&mut self, index: u32, node: &Node, next: u32) -> Compiled {
        let slot = (index - 1) * 2;
        if let Some((class, min, max)) = self.as_field(node, next) {
            let lead = lead(class);
            let first = if min == 0 { lead.or(self.first(next)) } else { lead };
            let set = self.set(class);
            return self.push(Op::Field { slot, set, min, max: max.unwrap_or(ENDLESS) }, next, first);
        }
        let end = self.push(Op::Save(slot + 1), next, self.first(next))?;
        let body = self.node(node, end)?;
        self.push(Op::Save(slot), body, self.first(body))
    }

    /// A run that takes all it can or fails, whatever follows.
    fn as_field<'n>(&self, node: &'n Node, next: u32) -> Option<(&'n Class, u32, Option<u32>)> {
        let Node::Repeat { node, min, max, greed } = node else { return None };
        let Node::Class(class) = &**node else { return None };
        let keeps = match greed {
            Greed::Greedy => lead(class).and(self.first(next)) == Bits::NONE,
            Greed::Possessive => true,
            Greed::Lazy => false,
        };
        keeps.then_some((class, *min, *max))
    }

    /// A group that is called, as a subroutine.
    fn called_group(&mut self, index: u32, node: &Node, next: u32) -> Compiled {
        let mark = self.mark();
        let end = self.push(Op::SaveBoth { slot: (index - 1) * 2, mark }, next, Bits::ALL)?;
        let body = self.node(node, end)?;
        self.push(Op::Mark(mark), body, self.first(body))
    }

    fn assert(&mut self, assert: Assert, next: u32) -> Compiled {
        let allowed = match assert {
            Assert::LineEnd | Assert::TextEndOrNewline => Bits::of(&[b'\n' as usize, END]),
            Assert::TextEnd => Bits::of(&[END]),
            _ => Bits::ALL,
        };
        self.push(Op::Assert(assert), next, self.first(next).and(allowed))
    }

    fn behind(&mut self, node: &Node, negated: bool, next: u32) -> Compiled {
        let branches = match node {
            Node::Alt(nodes) => nodes.as_slice(),
            node => std::slice::from_ref(node),
        };
        let mut bodies = Vec::new();
        for branch in branches {
            let Some(width) = branch.width() else { return Err("what it looks back at has no fixed length") };
            bodies.push((self.node(branch, DONE)?, width));
        }
        self.push(Op::Behind { bodies: bodies.into(), negated }, next, self.first(next))
    }

    fn repeat(&mut self, node: &Node, min: u32, max: Option<u32>, greed: Greed, next: u32) -> Compiled {
        if let Some(class) = as_class(node) {
            return self.run(&class, min, max, greed, next);
        }
        if greed == Greed::Possessive {
            let inner = Node::Repeat { node: Box::new(node.clone()), min, max, greed: Greed::Greedy };
            return self.node(&Node::Atomic(Box::new(inner)), next);
        }
        let mut at = next;
        let mut copies = min;
        match max {
            Some(max) => at = self.optional(node, max.saturating_sub(min), greed, next)?,
            None => {
                at = self.endless(node, min > 0, greed, at)?;
                copies = min.saturating_sub(1);
            }
        }
        for _ in 0..copies {
            let before = self.program.steps.len();
            at = self.node(node, at)?;
            if self.program.steps.len() == before {
                break; // nothing to repeat, however often
            }
        }
        Ok(at)
    }

    fn run(&mut self, class: &Class, min: u32, max: Option<u32>, greed: Greed, next: u32) -> Compiled {
        let lead = lead(class);
        let after = self.first(next);
        let greed = if greed == Greed::Greedy && lead.and(after) == Bits::NONE { Greed::Possessive } else { greed };
        let set = self.set(class);
        let first = if min == 0 { lead.or(after) } else { lead };
        self.push(Op::Run { set, min, max: max.unwrap_or(ENDLESS), greed }, next, first)
    }

    /// Up to `count` turns, each within the one before.
    fn optional(&mut self, node: &Node, count: u32, greed: Greed, next: u32) -> Compiled {
        let mut at = next;
        for _ in 0..count {
            let before = self.program.steps.len();
            let body = self.node(node, at)?;
            if self.program.steps.len() == before {
                break;
            }
            at = match greed {
                Greed::Lazy => self.split(next, body)?,
                _ => self.split(body, next)?,
            };
        }
        Ok(at)
    }

    /// Turns without end; `once`: at least one.
    fn endless(&mut self, node: &Node, once: bool, greed: Greed, next: u32) -> Compiled {
        let first = first_before(node, self.first(next)).or(self.first(next));
        let head = self.push(Op::Split { other: next }, next, first)?;
        let body = if node.may_be_empty() {
            let mark = self.mark();
            let turned = self.push(Op::Turned { mark, exit: next }, head, first)?;
            let body = self.node(node, turned)?;
            self.push(Op::Mark(mark), body, self.first(body))?
        } else {
            self.node(node, head)?
        };
        let step = &mut self.program.steps[head as usize];
        match greed {
            Greed::Lazy => step.op = Op::Split { other: body },
            _ => step.next = body,
        }
        Ok(if once { body } else { head })
    }

    /// The groups that are called, each ending in a return.
    fn subroutines(&mut self, tree: &Node) -> Result<(), Unfit> {
        for group in self.called.clone() {
            let back = self.push(Op::Return, DONE, Bits::ALL)?;
            let start = match find_group(tree, group) {
                Some(node) => self.called_group(group, node, back)?,
                None => self.node(tree, back)?,
            };
            self.program.called.insert(group, start);
        }
        Ok(())
    }

    fn set(&mut self, class: &Class) -> u32 {
        let sets = &mut self.program.sets;
        if let Some(at) = sets.iter().rev().take(SETS_COMPARED_MAX).position(|set| set.class == *class) {
            return (sets.len() - 1 - at) as u32;
        }
        sets.push(Set::new(class));
        sets.len() as u32 - 1
    }
}

impl Set {
    fn new(class: &Class) -> Set {
        let lead = lead(class);
        let bytes: [bool; 256] = std::array::from_fn(|value| lead.has(value));
        let ranges = class.chars.ranges();
        let beyond = match ranges.last() {
            _ if class.invalid && has_all_beyond(class) => Beyond::All,
            Some(last) if !last.end().is_ascii() => Beyond::Some(class.clone()),
            _ if class.invalid => Beyond::Some(class.clone()),
            _ => Beyond::None,
        };
        let mut out = (0..=255u8).filter(|byte| !bytes[*byte as usize]);
        let stop = match (matches!(beyond, Beyond::All), out.next(), out.next()) {
            (true, Some(byte), None) => Some(byte),
            _ => None,
        };
        Set { bytes, beyond, stop, class: class.clone() }
    }
}

fn has_all_beyond(class: &Class) -> bool {
    let mut beyond = Class::of(&[('\u{80}', char::MAX)]);
    beyond.keep(class);
    beyond == Class::of(&[('\u{80}', char::MAX)])
}

/// The bytes with which characters of a class begin; beyond ASCII all or none.
fn lead(class: &Class) -> Bits {
    let mut bits = Bits::NONE;
    for range in class.chars.ranges() {
        for value in range.start() as u32..=(range.end() as u32).min(0x7f) {
            bits.0[value as usize / 64] |= 1 << (value % 64);
        }
    }
    if class.invalid || class.chars.ranges().last().is_some_and(|range| !range.end().is_ascii()) {
        bits.0[2] = u64::MAX;
        bits.0[3] = u64::MAX;
    }
    bits
}

/// What may be the first byte of a node followed by what begins with `after`.
fn first_before(node: &Node, after: Bits) -> Bits {
    match node {
        Node::Empty | Node::Assert(_) | Node::Look { .. } => after,
        Node::Char(c) => {
            let mut buffer = [0; 4];
            Bits::of(&[c.encode_utf8(&mut buffer).as_bytes()[0] as usize])
        }
        Node::Class(class) => lead(class),
        Node::Concat(nodes) => nodes.iter().rev().fold(after, |after, node| first_before(node, after)),
        Node::Alt(nodes) => nodes.iter().fold(Bits::NONE, |first, node| first.or(first_before(node, after))),
        Node::Repeat { min: 0, node, .. } => first_before(node, after).or(after),
        Node::Repeat { node, .. } | Node::Group(_, node) | Node::Atomic(node) => first_before(node, after),
        Node::Back { .. } | Node::Call(_) | Node::Absent(_) | Node::If { .. } => Bits::ALL,
    }
}

fn as_char(node: &Node) -> Option<char> {
    match node {
        Node::Char(c) => Some(*c),
        _ => None,
    }
}

fn as_class(node: &Node) -> Option<Class> {
    match node {
        Node::Char(c) => Some(Class::of(&[(*c, *c)])),
        Node::Class(class) => Some(class.clone()),
        _ => None,
    }
}

fn find_group(node: &Node, index: u32) -> Option<&Node> {
    match node {
        Node::Group(found, body) if *found == index => Some(body),
        node => node.children().into_iter().find_map(|child| find_group(child, index)),
    }
}
