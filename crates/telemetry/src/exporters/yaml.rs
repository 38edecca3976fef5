//! YAML files with several documents as trees that know line and column.
//!
//! Bound: [`TEXT_BYTES_MAX`] of a file, [`NODES_MAX`] nodes of which those that aliases repeat count each time (they are shared, not
//! copied), a nesting of 64. Beyond, and at broken YAML, the documents before are given, and what is wrong where.

use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;
use std::rc::Rc;

pub const TEXT_BYTES_MAX: usize = 4 << 20;
pub const NODES_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// From 1.
    pub line: u32,
    pub column: u32,
}

#[derive(Debug)]
pub struct Node {
    pub spot: Spot,
    /// Nodes in it, with itself.
    size: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    /// `is_plain`: without quotes, so `true` and `9090` are no text.
    Scalar {
        text: String,
        is_plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    /// Of a plain scalar that stands for nothing: `None`.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, is_plain } if !(*is_plain && matches!(text.as_str(), "" | "~" | "null")) => Some(text),
            _ => None,
        }
    }

    /// The value of a key; of repeated ones the last, as most readers take it; `<<` merges.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Kind::Map(entries) = &self.kind else { return None };
        let own = entries.iter().rev().find(|(name, _)| name.text() == Some(key));
        if let Some((_, value)) = own {
            return Some(value);
        }
        let (_, merged) = entries.iter().find(|(name, _)| name.text() == Some("<<"))?;
        match &merged.kind {
            Kind::List(maps) => maps.iter().find_map(|map| map.get(key)),
            _ => merged.get(key),
        }
    }

    /// `get` of `get`.
    pub fn at(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    pub fn items(&self) -> impl Iterator<Item = &Node> {
        let items = if let Kind::List(items) = &self.kind { items.as_slice() } else { &[] };
        items.iter().map(|item| &**item)
    }

    /// Keys with their values, what `<<` merges behind them.
    pub fn entries(&self) -> Vec<(&Node, &Node)> {
        let Kind::Map(entries) = &self.kind else { return Vec::new() };
        let is_merge = |name: &Node| name.text() == Some("<<");
        let mut all: Vec<(&Node, &Node)> =
            entries.iter().filter(|(name, _)| !is_merge(name)).map(|(name, value)| (&**name, &**value)).collect();
        for (_, merged) in entries.iter().filter(|(name, _)| is_merge(name)) {
            let maps = if let Kind::List(maps) = &merged.kind { maps.as_slice() } else { std::slice::from_ref(merged) };
            for map in maps {
                let Kind::Map(more) = &map.kind else { continue };
                for (name, value) in more {
                    if self.is_first(name, &all) {
                        all.push((name, value));
                    }
                }
            }
        }
        all
    }

    fn is_first(&self, name: &Node, so_far: &[(&Node, &Node)]) -> bool {
        // Merges are of a few keys; what is beyond is not looked at.
        so_far.len() < 1000 && so_far.iter().all(|(other, _)| other.text() != name.text())
    }
}

/// Why reading ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub spot: Spot,
    pub what: String,
}

struct Open {
    spot: Spot,
    anchor: usize,
    size: usize,
    kind: Kind,
    key: Option<Rc<Node>>,
}

/// The documents of a file, and why there are no more.
pub fn documents(text: &str) -> (Vec<Rc<Node>>, Option<Broken>) {
    let mut documents = Vec::new();
    let broken = read(text, &mut documents).err();
    (documents, broken)
}

fn read(text: &str, documents: &mut Vec<Rc<Node>>) -> Result<(), Broken> {
    if text.len() > TEXT_BYTES_MAX {
        let what = format!("the file has {} bytes; at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(Broken { spot: Spot { line: 1, column: 1 }, what });
    }
    let options = granit_parser::options! { flow_nesting_limit: 64, block_nesting_limit: 64 };
    let (mut open, mut anchors, mut size) = (Vec::<Open>::new(), HashMap::<usize, Rc<Node>>::new(), 0usize);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            Broken {
                spot: Spot { line: marker.line() as u32, column: marker.col() as u32 + 1 },
                what: format!("this is no YAML: {}", error.info()),
            }
        })?;
        let spot = Spot { line: span.start.line() as u32, column: span.start.col() as u32 + 1 };
        let more = match &event {
            Event::Alias(anchor) => anchors.get(anchor).map_or(1, |node| node.size),
            event => usize::from(event.is_node()),
        };
        size = size.saturating_add(more);
        if size > NODES_MAX {
            return Err(Broken {
                spot,
                what: format!("the file has more than {NODES_MAX} values; what aliases (`*name`) repeat counts each time"),
            });
        }
        let (done, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let kind = Kind::Scalar { text: text.to_string(), is_plain: matches!(style, ScalarStyle::Plain) };
                (Rc::new(Node { spot, size: 1, kind }), anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open { spot, anchor, size: 1, kind: Kind::List(Vec::new()), key: None });
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                open.push(Open { spot, anchor, size: 1, kind: Kind::Map(Vec::new()), key: None });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(closed) => (Rc::new(Node { spot: closed.spot, size: closed.size, kind: closed.kind }), closed.anchor),
                None => continue,
            },
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (Rc::clone(node), 0),
                None => return Err(Broken { spot, what: "this alias stands within what it repeats".into() }),
            },
            Event::DocumentStart(..) => {
                anchors.clear();
                continue;
            }
            _ => continue,
        };
        if anchor != 0 {
            anchors.insert(anchor, Rc::clone(&done));
        }
        match open.last_mut() {
            None => documents.push(done),
            Some(parent) => {
                parent.size = parent.size.saturating_add(done.size);
                match &mut parent.kind {
                    Kind::List(items) => items.push(done),
                    Kind::Map(entries) => match parent.key.take() {
                        Some(key) => entries.push((key, done)),
                        None => parent.key = Some(done),
                    },
                    Kind::Scalar { .. } => {}
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_know_their_places_over_documents_and_merges() {
        let (documents, broken) = documents("a: 1\n---\nb: &x { c: \"d\", e: f }\ng:\n  <<: *x\n  e: h\n");
        assert!(broken.is_none());
        let value = documents[1].at(&["g", "c"]).unwrap();
        assert_eq!((value.text(), value.spot), (Some("d"), Spot { line: 3, column: 12 }));
        assert_eq!(documents[1].at(&["g", "e"]).unwrap().text(), Some("h"));
        assert_eq!(documents[1].get("g").unwrap().entries().len(), 2);
    }

    #[test]
    fn bombs_are_refused_at_their_place_and_what_came_before_is_given() {
        let aliases: String = (1..30).map(|n| format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1)).collect();
        for bomb in [
            format!("a0: &a0 [x, x]\n{aliases}"),
            "[".repeat(100_000),
            (0..200).map(|n| " ".repeat(n) + "- \n").collect::<String>() + &"- ".repeat(500),
            "- x\n".repeat(NODES_MAX + 1),
            "a: &a [*a]".into(),
            "a: [b".into(),
            "a: {{ .Values.x }}".into(),
            "x".repeat(TEXT_BYTES_MAX + 1),
        ] {
            let (before, broken) = documents(&format!("first: 1\n---\n{bomb}"));
            let shown: String = bomb.chars().take(40).collect();
            // A map as a key is YAML; nobody looks for it.
            assert!(broken.is_some() || shown.contains("{{"), "{shown}");
            assert!(before.len() <= 2);
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(any: String, near in "[-a:{}\\[\\]&*|>\"' \n#!]{0,60}") {
            for text in [any, near] {
                for document in documents(&text).0 {
                    let _ = (document.get("a"), document.entries().len(), document.items().count());
                }
            }
        }
    }
}
