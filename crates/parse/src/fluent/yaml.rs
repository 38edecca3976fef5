//! Fluent Bit's YAML format, as the sections that the classic one has.
//!
//! Bound: [`NODES_MAX`] values, those that aliases repeat counted each time, and 64 levels; beyond, the file is left out with a
//! warning.

use super::{Entry, Reading, Section};
use granit_parser::{Event, Parser};
use std::collections::HashMap;

const NODES_MAX: usize = 100_000;

#[derive(Clone)]
struct Node {
    line: u32,
    size: usize,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

pub(super) fn read(reading: &mut Reading<'_>, file: &str, text: &str) {
    let root = match tree(text) {
        Ok(Some(root)) => root,
        Ok(None) => return,
        Err((line, reason)) => return reading.left_out(file, line, reason),
    };
    let mut yaml = Yaml { reading, file };
    let entries = root.entries();
    if entries.is_empty() {
        yaml.reading.left_out(file, root.line, "a file is a mapping: `parsers:`, `pipeline:`".to_string());
    }
    // Variables first: they may be used above the place where they stand.
    for (key, value) in entries.iter().filter(|(key, _)| *key == "env") {
        yaml.top(key, value);
    }
    for (key, value) in entries.iter().filter(|(key, _)| *key != "env") {
        yaml.top(key, value);
    }
}

struct Yaml<'a, 'r> {
    reading: &'a mut Reading<'r>,
    file: &'a str,
}

impl Yaml<'_, '_> {
    fn top(&mut self, key: &str, value: &Node) {
        match key {
            "env" => {
                for (name, value) in value.entries() {
                    let text = self.reading.expand(self.file, value.line, value.text());
                    self.reading.variables.insert(name.to_string(), text);
                }
            }
            "includes" => {
                for name in value.items() {
                    let text = self.reading.expand(self.file, name.line, name.text());
                    self.reading.include(self.file, name.line, &text);
                }
            }
            "pipeline" => {
                for (part, value) in value.entries() {
                    self.part(part, value);
                }
            }
            "service" => self.section("service", value),
            _ => self.part(key, value),
        }
    }

    /// A list of things of a kind: `inputs`, `parsers`.
    fn part(&mut self, key: &str, value: &Node) {
        let kind = key.strip_suffix('s').unwrap_or(key).to_ascii_lowercase();
        match &value.kind {
            Kind::List(items) => items.iter().for_each(|item| self.section(&kind, item)),
            Kind::Map(_) => self.section(&kind, value),
            Kind::Scalar(text) if text.is_empty() => {}
            Kind::Scalar(_) => self.reading.left_out(self.file, value.line, format!("`{key}` is a list")),
        }
    }

    fn section(&mut self, kind: &str, value: &Node) {
        let mut entries = Vec::new();
        if value.entries().is_empty() {
            return self.reading.left_out(self.file, value.line, format!("this {kind} is no mapping"));
        }
        self.flatten("", value, &mut entries);
        self.reading.sections.push(Section { kind: kind.to_string(), file: self.file.to_string(), line: value.line, entries });
    }

    fn flatten(&mut self, path: &str, node: &Node, entries: &mut Vec<Entry>) {
        match &node.kind {
            Kind::Scalar(text) => {
                let value = self.reading.expand(self.file, node.line, text);
                entries.push(Entry { key: path.to_string(), value, line: node.line });
            }
            Kind::Map(_) => {
                for (key, value) in node.entries() {
                    let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
                    self.flatten(&path, value, entries);
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let is_plain = matches!(item.kind, Kind::Scalar(_));
                    let path = if is_plain { path.to_string() } else { format!("{path}[{index}]") };
                    self.flatten(&path, item, entries);
                }
            }
        }
    }
}

impl Node {
    fn text(&self) -> &str {
        match &self.kind {
            Kind::Scalar(text) => text,
            _ => "",
        }
    }

    /// None if it is no mapping.
    fn entries(&self) -> Vec<(&str, &Node)> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().map(|(key, value)| (key.text(), value)).collect(),
            _ => Vec::new(),
        }
    }

    fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }
}

struct Open {
    node: Node,
    anchor: usize,
    key: Option<Node>,
}

/// The first document; or line and reason why there is none.
fn tree(text: &str) -> Result<Option<Node>, (u32, String)> {
    let options = granit_parser::options! { flow_nesting_limit: 64, block_nesting_limit: 64 };
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut size = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|e| (e.marker().line() as u32, format!("this is no YAML: {}", e.info())))?;
        let line = span.start.line() as u32;
        let (done, anchor) = match event {
            Event::Scalar(value, _, anchor, _) => (Node { line, size: 1, kind: Kind::Scalar(value.to_string()) }, anchor),
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open { node: Node { line, size: 1, kind: Kind::List(Vec::new()) }, anchor, key: None });
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                open.push(Open { node: Node { line, size: 1, kind: Kind::Map(Vec::new()) }, anchor, key: None });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(closed) => (closed.node, closed.anchor),
                None => continue,
            },
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (node.clone(), 0),
                None => return Err((line, "this alias stands within what it repeats".to_string())),
            },
            _ => continue,
        };
        size += done.size;
        if size > NODES_MAX {
            return Err((line, format!("the file has more than {NODES_MAX} values")));
        }
        if anchor != 0 {
            anchors.insert(anchor, done.clone());
        }
        match open.last_mut() {
            Some(parent) => parent.attach(done),
            None => return Ok(Some(done)),
        }
    }
    Ok(None)
}

impl Open {
    fn attach(&mut self, child: Node) {
        self.node.size += child.size;
        match &mut self.node.kind {
            Kind::List(items) => items.push(child),
            Kind::Map(entries) => match self.key.take() {
                Some(key) => entries.push((key, child)),
                None => self.key = Some(child),
            },
            Kind::Scalar(_) => {}
        }
    }
}
