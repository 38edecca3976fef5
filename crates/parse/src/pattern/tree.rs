//! A pattern as a tree, whatever dialect it was written in.
//!
//! All meaning that flags and syntax gave is already in the nodes: a letter under `i` is a class of both letters, `.` is a class,
//! names are group numbers. Depth: at most [`DEPTH_MAX`], so that functions may walk it by recursion.

use super::class::Class;

/// Groups within groups; a deeper pattern is refused.
pub const DEPTH_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Empty,
    Char(char),
    /// One character.
    Class(Class),
    Concat(Vec<Node>),
    Alt(Vec<Node>),
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    },
    /// A group that keeps what it matched; numbers begin at 1.
    Group(u32, Box<Node>),
    Assert(Assert),
    Look {
        behind: bool,
        negated: bool,
        node: Box<Node>,
    },
    /// Once matched, never reconsidered.
    Atomic(Box<Node>),
    /// What one of these groups matched, the last one that did; `fold`: in any case.
    Back {
        groups: Vec<u32>,
        fold: bool,
    },
    /// The group's pattern once more; 0: the whole.
    Call(u32),
    /// The longest text without a match of the node.
    Absent(Box<Node>),
    /// Whether one of the groups matched decides how it goes on.
    If {
        groups: Vec<u32>,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greed {
    Greedy,
    Lazy,
    Possessive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assert {
    LineStart,
    LineEnd,
    TextStart,
    TextEnd,
    /// At the end, or before a newline that is the end.
    TextEndOrNewline,
    Word,
    NotWord,
}

impl Node {
    /// The nodes directly below.
    pub fn children(&self) -> Vec<&Node> {
        match self {
            Node::Concat(nodes) | Node::Alt(nodes) => nodes.iter().collect(),
            Node::Repeat { node, .. } | Node::Look { node, .. } | Node::Group(_, node) | Node::Atomic(node) | Node::Absent(node) => {
                vec![node]
            }
            Node::If { yes, no, .. } => vec![yes, no],
            _ => Vec::new(),
        }
    }

    /// Whether this node or one below it is so.
    pub fn any(&self, is: &dyn Fn(&Node) -> bool) -> bool {
        is(self) || self.children().into_iter().any(|child| child.any(is))
    }

    /// Whether it may match without taking a character; true in doubt.
    pub fn may_be_empty(&self) -> bool {
        match self {
            Node::Char(_) | Node::Class(_) => false,
            Node::Concat(nodes) => nodes.iter().all(Node::may_be_empty),
            Node::Alt(nodes) => nodes.iter().any(Node::may_be_empty),
            Node::Repeat { node, min, .. } => *min == 0 || node.may_be_empty(),
            Node::Group(_, node) | Node::Atomic(node) => node.may_be_empty(),
            Node::If { yes, no, .. } => yes.may_be_empty() || no.may_be_empty(),
            _ => true,
        }
    }

    /// How many characters it takes, if always the same number.
    pub fn width(&self) -> Option<u32> {
        match self {
            Node::Empty | Node::Assert(_) | Node::Look { .. } => Some(0),
            Node::Char(_) | Node::Class(_) => Some(1),
            Node::Concat(nodes) => nodes.iter().try_fold(0u32, |sum, node| sum.checked_add(node.width()?)),
            Node::Alt(nodes) => same(nodes.iter().map(Node::width)),
            Node::Repeat { node, min, max, .. } if *max == Some(*min) => node.width()?.checked_mul(*min),
            Node::Group(_, node) | Node::Atomic(node) => node.width(),
            Node::If { yes, no, .. } => same([yes.width(), no.width()].into_iter()),
            _ => None,
        }
    }
}

fn same(mut widths: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let first = widths.next()??;
    widths.all(|width| width == Some(first)).then_some(first)
}
