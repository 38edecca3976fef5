//! What every match of a pattern has, said so that one automaton can look for many patterns at once.
//!
//! In: a tree. Out: a set of lines that holds every line the pattern matches, and hardly another. It is for lines without a
//! newline, knows no groups, and takes whatever is beyond ASCII for the same; so it stays small. What decides nothing is left
//! out: a match that may go on with anything ends before, and one that may begin with anything begins behind it.
//! None for trees with look-around, references and the like, of which too little would be left, and for those above [`WEIGHT_MAX`].

use super::class::Class;
use super::program::{Anchor, anchor};
use super::tree::{Assert, Greed, Node};
use regex_syntax::hir::{self, ClassBytes, ClassBytesRange, Hir, Look, Repetition};

/// Characters that a match is made of, repeats counted.
const WEIGHT_MAX: u32 = 4000;
/// Longer counts are "so many and more".
const COUNT_MAX: u32 = 16;

pub fn outline(tree: &Node) -> Option<Hir> {
    if tree.any(&is_beyond) || weight(tree) > WEIGHT_MAX {
        return None;
    }
    let tree = trimmed(trimmed(tree.clone(), Edge::End), Edge::Start);
    let body = say(&tree);
    Some(match anchor(&tree) {
        Anchor::Anywhere => Hir::concat(vec![repeated(Hir::dot(hir::Dot::AnyByte), 0, None), body]),
        Anchor::Line | Anchor::Text => body,
    })
}

fn is_beyond(node: &Node) -> bool {
    matches!(node, Node::Look { .. } | Node::Back { .. } | Node::Call(_) | Node::Absent(_) | Node::If { .. })
}

fn weight(node: &Node) -> u32 {
    let below = || node.children().into_iter().fold(1, |sum: u32, child| sum.saturating_add(weight(child)));
    match node {
        Node::Repeat { node, min, max, .. } => {
            let (min, max) = counts(*min, *max);
            weight(node).saturating_mul(max.unwrap_or(min).max(1))
        }
        _ => below(),
    }
}

fn counts(min: u32, max: Option<u32>) -> (u32, Option<u32>) {
    (min.min(COUNT_MAX), max.filter(|max| *max <= COUNT_MAX))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    End,
}

/// The tree without what decides nothing at an edge: before and behind a match anything may stand.
fn trimmed(node: Node, edge: Edge) -> Node {
    match node {
        Node::Concat(nodes) => trimmed_row(nodes, edge),
        Node::Alt(nodes) => Node::Alt(nodes.into_iter().map(|node| trimmed(node, edge)).collect()),
        Node::Group(_, node) | Node::Atomic(node) => trimmed(*node, edge),
        Node::Repeat { min: 0, .. } => Node::Empty,
        Node::Repeat { node, min: 1, .. } => trimmed(*node, edge),
        Node::Repeat { node, min, .. } => Node::Repeat { node, min, max: Some(min), greed: Greed::Greedy },
        node => node,
    }
}

fn trimmed_row(mut nodes: Vec<Node>, edge: Edge) -> Node {
    // The edge is the end of the list.
    let turn = |nodes: &mut Vec<Node>| {
        if edge == Edge::Start {
            nodes.reverse()
        }
    };
    turn(&mut nodes);
    while let Some(node) = nodes.pop() {
        if is_edge(&node, edge) && nodes.last().is_some_and(takes_all) {
            continue;
        }
        let node = trimmed(node, edge);
        if node != Node::Empty {
            nodes.push(node);
            break;
        }
    }
    turn(&mut nodes);
    if nodes.is_empty() { Node::Empty } else { Node::Concat(nodes) }
}

fn is_edge(node: &Node, edge: Edge) -> bool {
    match (node, edge) {
        (Node::Assert(assert), Edge::Start) => matches!(assert, Assert::LineStart | Assert::TextStart),
        (Node::Assert(assert), Edge::End) => matches!(assert, Assert::LineEnd | Assert::TextEnd | Assert::TextEndOrNewline),
        _ => false,
    }
}

/// Whether it takes whatever is there, up to the edge of the line.
fn takes_all(node: &Node) -> bool {
    match node {
        Node::Group(_, node) | Node::Atomic(node) => takes_all(node),
        Node::Repeat { node, max: None, .. } => match &**node {
            Node::Class(class) => {
                let outside = class.clone().negated();
                !outside.invalid && outside.chars.ranges().iter().all(|range| (range.start(), range.end()) == ('\n', '\n'))
            }
            _ => false,
        },
        _ => false,
    }
}

fn say(node: &Node) -> Hir {
    match node {
        Node::Char(c) => Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()),
        Node::Class(class) if is_wide(class) => Hir::alternation(vec![bytes(class, false), repeated(high(), 1, Some(4))]),
        Node::Class(class) => bytes(class, false),
        Node::Concat(nodes) => Hir::concat(nodes.iter().map(say).collect()),
        Node::Alt(nodes) => Hir::alternation(nodes.iter().map(say).collect()),
        Node::Repeat { node, min, max, .. } => {
            let (min, max) = counts(*min, *max);
            match &**node {
                Node::Class(class) if is_wide(class) => repeated(bytes(class, true), min, None),
                node => repeated(say(node), min, max),
            }
        }
        Node::Group(_, node) | Node::Atomic(node) => say(node),
        Node::Assert(Assert::LineStart | Assert::TextStart) => Hir::look(Look::Start),
        Node::Assert(Assert::LineEnd | Assert::TextEnd | Assert::TextEndOrNewline) => Hir::look(Look::End),
        _ => Hir::empty(),
    }
}

fn repeated(hir: Hir, min: u32, max: Option<u32>) -> Hir {
    Hir::repetition(Repetition { min, max, greedy: false, sub: Box::new(hir) })
}

/// Whether anything beyond ASCII is in.
fn is_wide(class: &Class) -> bool {
    class.invalid || class.chars.ranges().last().is_some_and(|range| !range.end().is_ascii())
}

/// The ASCII that is in; `wide`: and all beyond.
fn bytes(class: &Class, wide: bool) -> Hir {
    let ascii = class.chars.ranges().iter().filter(|range| range.start().is_ascii());
    let ascii = ascii.map(|range| ClassBytesRange::new(range.start() as u8, (range.end() as u32).min(0x7f) as u8));
    let beyond = wide.then(|| ClassBytesRange::new(0x80, 0xff));
    Hir::class(hir::Class::Bytes(ClassBytes::new(ascii.chain(beyond))))
}

fn high() -> Hir {
    Hir::class(hir::Class::Bytes(ClassBytes::new([ClassBytesRange::new(0x80, 0xff)])))
}
