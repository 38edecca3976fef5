//! A tree said in the syntax of the `regex` crate, and searched by it: the way out for lines on which walking takes too long.
//!
//! Only trees without look-around, references and the like can be said so. Classes are written out as ranges, so that both engines
//! read the same ones. In a line that is no UTF-8 each odd byte is replaced by an unassigned character: it is then, as for the
//! walker, in negated classes only.
//! Time is linear in the line, whatever the pattern; memory is the `regex` crate's, at most [`PROGRAM_BYTES_MAX`].

use super::class::Class;
use super::tree::{Assert, Greed, Node};
use super::walk::UNSET;
use regex::{Regex, RegexBuilder};
use std::fmt::Write;

const PROGRAM_BYTES_MAX: usize = 16 << 20;
/// Stands for byte 0 that is no UTF-8; 255 more follow. No character is assigned in this plane.
const ODD: u32 = 0xd_0000;

pub struct Linear {
    regex: Regex,
    /// Where `^` and `\Z` stand depends on a last newline in a way that the `regex` crate cannot say.
    minds_last_newline: bool,
}

impl Linear {
    /// `None`: this tree cannot be said so.
    pub fn new(tree: &Node) -> Option<Linear> {
        if tree.any(&is_beyond) {
            return None;
        }
        let regex = RegexBuilder::new(&say(tree)).size_limit(PROGRAM_BYTES_MAX).build().ok()?;
        let minds = |node: &Node| matches!(node, Node::Assert(Assert::LineStart | Assert::TextEndOrNewline));
        Some(Linear { regex, minds_last_newline: tree.any(&minds) })
    }

    pub fn text(&self) -> &str {
        self.regex.as_str()
    }

    /// The line as it can be searched without mending; `None`: it cannot.
    pub fn reads<'l>(&self, line: &'l [u8]) -> Option<&'l str> {
        if self.minds_last_newline && line.ends_with(b"\n") {
            return None;
        }
        std::str::from_utf8(line).ok()
    }

    /// Where the leftmost match begins: many times faster than finding its groups too.
    pub fn start(&self, text: &str) -> Option<usize> {
        self.regex.find(text).map(|found| found.start())
    }

    /// Finds the leftmost match; `slots`: two per group. `None`: this line is beyond it.
    pub fn find(&self, line: &[u8], slots: &mut Vec<u32>) -> Option<bool> {
        if self.minds_last_newline && line.ends_with(b"\n") {
            return None;
        }
        slots.clear();
        match std::str::from_utf8(line) {
            Ok(text) => Some(self.search(text, slots)),
            Err(_) => {
                let text = mended(line);
                let found = self.search(&text, slots);
                mend_slots(line, slots);
                Some(found)
            }
        }
    }

    fn search(&self, text: &str, slots: &mut Vec<u32>) -> bool {
        let Some(captures) = self.regex.captures(text) else { return false };
        for group in captures.iter().skip(1) {
            let (start, end) = group.map_or((UNSET, UNSET), |group| (group.start() as u32, group.end() as u32));
            slots.extend([start, end]);
        }
        true
    }
}

fn is_beyond(node: &Node) -> bool {
    match node {
        Node::Look { .. } | Node::Atomic(_) | Node::Back { .. } | Node::Call(_) | Node::Absent(_) | Node::If { .. } => true,
        Node::Repeat { greed: Greed::Possessive, .. } => true,
        // What a group keeps of a turn that took nothing is another thing in each engine.
        Node::Repeat { node, max: None, .. } => node.may_be_empty() && node.any(&|node| matches!(node, Node::Group(..))),
        _ => false,
    }
}

/// A line with characters for its odd bytes.
fn mended(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len() + 16);
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(ODD + *byte as u32)));
    }
    text
}

/// From places in the mended line to places in the line.
fn mend_slots(line: &[u8], slots: &mut [u32]) {
    for slot in slots.iter_mut().filter(|slot| **slot != UNSET) {
        let (mut mended, mut at) = (0, 0);
        for chunk in line.utf8_chunks() {
            let within = (*slot as usize - mended).min(chunk.valid().len());
            mended += within;
            at += within;
            for _ in chunk.invalid() {
                if mended < *slot as usize {
                    mended += 4;
                    at += 1;
                }
            }
        }
        *slot = at as u32;
    }
}

/// The tree as a pattern of the `regex` crate.
pub fn say(tree: &Node) -> String {
    let mut text = String::new();
    say_node(tree, &mut text);
    text
}

fn say_node(node: &Node, text: &mut String) {
    match node {
        Node::Char(c) => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        Node::Class(class) => say_class(class, text),
        Node::Concat(nodes) => nodes.iter().for_each(|node| say_within(node, matches!(node, Node::Alt(_)), text)),
        Node::Alt(nodes) => {
            for (i, node) in nodes.iter().enumerate() {
                text.push_str(if i > 0 { "|" } else { "" });
                say_node(node, text);
            }
        }
        Node::Repeat { node, min, max, greed } => {
            say_within(node, !matches!(**node, Node::Char(_) | Node::Class(_) | Node::Group(..)), text);
            say_count(*min, *max, text);
            text.push_str(if *greed == Greed::Lazy { "?" } else { "" });
        }
        Node::Group(_, node) => {
            text.push('(');
            say_node(node, text);
            text.push(')');
        }
        Node::Assert(assert) => text.push_str(match assert {
            Assert::LineStart => "(?m:^)",
            Assert::LineEnd => "(?m:$)",
            Assert::TextStart => r"\A",
            Assert::TextEnd | Assert::TextEndOrNewline => r"\z",
            Assert::Word => r"\b",
            Assert::NotWord => r"\B",
        }),
        _ => {}
    }
}

fn say_within(node: &Node, in_group: bool, text: &mut String) {
    text.push_str(if in_group { "(?:" } else { "" });
    say_node(node, text);
    text.push_str(if in_group { ")" } else { "" });
}

fn say_count(min: u32, max: Option<u32>, text: &mut String) {
    let written = match (min, max) {
        (0, None) => text.write_char('*'),
        (1, None) => text.write_char('+'),
        (0, Some(1)) => text.write_char('?'),
        (min, None) => write!(text, "{{{min},}}"),
        (min, Some(max)) => write!(text, "{{{min},{max}}}"),
    };
    written.expect("a string takes any text");
}

/// As ranges; as what is left out, if that is shorter.
fn say_class(class: &Class, text: &mut String) {
    let class = &with_odd(class);
    let outside = class.clone().negated();
    let negated = outside.chars.ranges().len() < class.chars.ranges().len() || class.invalid;
    let ranges = if negated { outside.chars.ranges() } else { class.chars.ranges() };
    text.push_str(match (ranges.is_empty(), negated) {
        (true, true) => return text.push_str("(?s:.)"),
        (_, true) => "[^",
        (_, false) => "[",
    });
    for range in ranges {
        say_end(range.start(), text);
        if range.end() != range.start() {
            text.push('-');
            say_end(range.end(), text);
        }
    }
    // An empty class takes nothing.
    text.push_str(if ranges.is_empty() { "a&&b]" } else { "]" });
}

/// The class with or without the characters that stand for odd bytes.
fn with_odd(class: &Class) -> Class {
    let end = |byte: u32| char::from_u32(ODD + byte).expect("no surrogates in this plane");
    let odd = Class::of(&[(end(0), end(255))]);
    let mut class = class.clone();
    match class.invalid {
        true => class.add(&odd),
        false if class.has(end(0)) => class.keep(&odd.negated()),
        false => {}
    }
    class
}

fn say_end(c: char, text: &mut String) {
    if c.is_ascii_alphanumeric() {
        text.push(c);
    } else {
        write!(text, "\\x{{{:X}}}", c as u32).expect("a string takes any text");
    }
}
