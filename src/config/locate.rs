//! YAML as a tree that remembers where everything stands.
//!
//! In: the text of one file and the environment; out: a tree of nodes with line and column, and the mistakes of the text
//! itself (syntax, repeated keys, tags, unset variables). Each mistake found later is told at its node, and the node is
//! then taken out of the tree, so that reading can go on and find the next one.
//! Bound: [`TEXT_BYTES_MAX`] of text and [`NODES_MAX`] nodes, copies made by aliases included; beyond, one mistake says so.

use super::report::{MISTAKES_MAX, Mistake, Spot};
use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

/// Looks a variable up in the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// About 100 bytes each make 10 MiB.
const NODES_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

pub struct Tree {
    pub file: String,
    text: String,
    /// Byte offset at which each line starts.
    lines: Vec<usize>,
    nodes: Vec<Node>,
    /// Values with variables put in, and how they were written; those too short to be a secret are left out.
    secrets: Vec<(String, String)>,
    pub root: NodeId,
}

/// A shorter value is no secret, and occurs in messages by chance.
const SECRET_BYTES_MIN: usize = 4;

pub struct Node {
    pub kind: Kind,
    spot: Spot,
    role: Role,
    removed: bool,
    /// Keys that must be there and are not; reading goes on as if they were.
    pub placeholders: Vec<&'static str>,
    /// The mapping was read as a choice: it is nothing without its one entry.
    pub is_choice: Cell<bool>,
}

pub enum Kind {
    Scalar(Scalar),
    Seq(Vec<NodeId>),
    Map(Vec<(NodeId, NodeId)>),
}

pub struct Scalar {
    pub value: String,
    /// As it was written, where variables were put in: a secret must not show in a message.
    pub written: Option<String>,
    style: ScalarStyle,
    range: Option<Range<usize>>,
}

/// What a plain scalar stands for in YAML 1.2.
pub enum Plain<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

#[derive(Clone, Copy)]
enum Role {
    Root,
    Key(NodeId, u32),
    Value(NodeId, u32),
    Item(NodeId, u32),
}

/// A way through a config, as in `steps[0].sample.other`. Indexes count what is left after mistakes were taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Seg>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seg {
    Key(String),
    Index(usize),
}

impl Path {
    pub fn key(&self, key: &str) -> Path {
        let mut path = self.clone();
        path.0.push(Seg::Key(key.to_string()));
        path
    }

    pub fn index(&self, index: usize) -> Path {
        let mut path = self.clone();
        path.0.push(Seg::Index(index));
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, seg) in self.0.iter().enumerate() {
            match seg {
                Seg::Key(key) if i == 0 => f.write_str(key)?,
                Seg::Key(key) => write!(f, ".{key}")?,
                Seg::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a path leads.
pub enum Found {
    /// To this node.
    Node(NodeId),
    /// To nothing that is written down; this is the nearest node above.
    Above(NodeId),
    /// To something that was taken out because of a mistake: nothing more is said of it.
    Lost,
}

impl Tree {
    /// Reads one document. Mistakes of the text are added to `mistakes`; `None` if there is nothing to go on with.
    pub fn parse(file: &str, text: &str, env: Env<'_>, mistakes: &mut Vec<Mistake>) -> Option<Tree> {
        // YAML ends a line at LF, CR LF or a CR alone.
        let bytes = text.as_bytes();
        let ends = |i: usize| bytes[i] == b'\n' || (bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n'));
        let lines = std::iter::once(0).chain((0..bytes.len()).filter(|i| ends(*i)).map(|i| i + 1)).collect();
        let tree = Tree { file: file.into(), text: text.into(), lines, nodes: Vec::new(), secrets: Vec::new(), root: NodeId(0) };
        let mut builder = Builder { tree, env, mistakes, open: Vec::new(), anchors: HashMap::new(), root: None };
        builder.run(text).then_some(builder.tree)
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// What is left of a list.
    pub fn items<'t>(&'t self, items: &'t [NodeId]) -> impl Iterator<Item = NodeId> + 't {
        items.iter().copied().filter(|id| !self.node(*id).removed)
    }

    /// What is left of a mapping.
    pub fn entries<'t>(&'t self, entries: &'t [(NodeId, NodeId)]) -> impl Iterator<Item = (NodeId, NodeId)> + 't {
        entries.iter().copied().filter(|(_, value)| !self.node(*value).removed)
    }

    /// Whether the entry `key` of a mapping was taken out, and none of that name is left.
    pub fn lost(&self, map: NodeId, key: &str) -> bool {
        match &self.node(map).kind {
            Kind::Map(entries) => {
                let named = || entries.iter().filter(|(k, _)| self.text_of(*k) == Some(key));
                named().next().is_some() && named().all(|(_, value)| self.node(*value).removed)
            }
            Kind::Scalar(_) | Kind::Seq(_) => false,
        }
    }

    /// Whether an entry of a mapping was taken out: what is said of the mapping as a whole may only follow from that.
    pub fn lost_any(&self, map: NodeId) -> bool {
        match &self.node(map).kind {
            Kind::Map(entries) => entries.iter().any(|(_, value)| self.node(*value).removed),
            Kind::Scalar(_) | Kind::Seq(_) => false,
        }
    }

    /// Takes a key as the one that was probably meant, so that this one is not called missing.
    pub fn rename(&mut self, key: NodeId, meant: &str) {
        if let Kind::Scalar(scalar) = &mut self.node_mut(key).kind {
            scalar.value = meant.to_string();
        }
    }

    /// Whether anything at or below a node was taken out: then what lacks there is no mistake of its own.
    pub fn damaged(&self, id: NodeId) -> bool {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let node = self.node(id);
            if node.removed || !node.placeholders.is_empty() {
                return true;
            }
            match &node.kind {
                Kind::Scalar(_) => {}
                Kind::Seq(items) => stack.extend(items),
                Kind::Map(entries) => stack.extend(entries.iter().flat_map(|(k, v)| [*k, *v])),
            }
        }
        false
    }

    pub fn text_of(&self, id: NodeId) -> Option<&str> {
        match &self.node(id).kind {
            Kind::Scalar(scalar) => Some(&scalar.value),
            _ => None,
        }
    }

    /// Whether `key` is written at the top level.
    pub fn has_key(&self, key: &str) -> bool {
        matches!(self.find(&Path::default().key(key)), Found::Node(_))
    }

    /// Takes the smallest thing around a node out that can be missing: its entry, its list item, or the choice it makes up.
    /// False if nothing is left to take out.
    pub fn remove(&mut self, id: NodeId) -> bool {
        match self.node(id).role {
            Role::Root => false,
            Role::Item(..) => {
                self.node_mut(id).removed = true;
                true
            }
            Role::Key(map, at) | Role::Value(map, at) => {
                if self.node(map).is_choice.get() {
                    return self.remove(map);
                }
                let (key, value) = match &self.node(map).kind {
                    Kind::Map(entries) => entries[at as usize],
                    Kind::Scalar(_) | Kind::Seq(_) => unreachable!("the role of a key or value names its mapping"),
                };
                self.node_mut(key).removed = true;
                self.node_mut(value).removed = true;
                true
            }
        }
    }

    /// Lets reading go on as if `key` were there. False if that was done before and did not help.
    pub fn put_placeholder(&mut self, map: NodeId, key: &'static str) -> bool {
        let placeholders = &mut self.node_mut(map).placeholders;
        if placeholders.contains(&key) {
            return false;
        }
        placeholders.push(key);
        true
    }

    /// The way to a node as it is written, mistakes included.
    pub fn path_of(&self, id: NodeId) -> Path {
        let mut segs = Vec::new();
        let mut at = id;
        loop {
            at = match self.node(at).role {
                Role::Root => break,
                Role::Key(map, _) => map,
                Role::Item(seq, index) => {
                    segs.push(Seg::Index(index as usize));
                    seq
                }
                Role::Value(map, index) => {
                    if let Kind::Map(entries) = &self.node(map).kind {
                        segs.push(Seg::Key(self.text_of(entries[index as usize].0).unwrap_or("?").to_string()));
                    }
                    map
                }
            };
        }
        segs.reverse();
        Path(segs)
    }

    pub fn find(&self, path: &Path) -> Found {
        let mut at = self.root;
        for seg in &path.0 {
            let next = match (seg, &self.node(at).kind) {
                (Seg::Key(key), Kind::Map(entries)) => {
                    if self.lost(at, key) || self.node(at).placeholders.contains(&key.as_str()) {
                        return Found::Lost;
                    }
                    self.entries(entries).find(|(k, _)| self.text_of(*k) == Some(key)).map(|(_, value)| value)
                }
                (Seg::Index(index), Kind::Seq(items)) => self.items(items).nth(*index),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return Found::Above(at),
            }
        }
        Found::Node(at)
    }

    /// Where a path in its text form leads, as other crates give it, from `base` down. Keys may hold dots: the longest
    /// key that fits is taken.
    pub fn find_text(&self, base: &Path, text: &str) -> Found {
        let mut path = base.clone();
        let mut rest = text;
        while !rest.is_empty() {
            let at = match self.find(&path) {
                Found::Node(id) => id,
                end => return end,
            };
            if let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                path = path.index(index.parse().unwrap_or(usize::MAX));
                rest = after;
            } else {
                rest = rest.strip_prefix('.').unwrap_or(rest);
                let fits = |key: &&str| rest.strip_prefix(key).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']));
                let keys = match &self.node(at).kind {
                    Kind::Map(entries) => entries.as_slice(),
                    Kind::Scalar(_) | Kind::Seq(_) => &[],
                };
                match keys.iter().filter_map(|(key, _)| self.text_of(*key)).filter(fits).max_by_key(|key| key.len()) {
                    Some(key) => {
                        path = path.key(key);
                        rest = &rest[key.len()..];
                    }
                    None if self.node(at).placeholders.iter().any(fits) => return Found::Lost,
                    None => return Found::Above(at),
                }
            }
        }
        self.find(&path)
    }

    /// The node of the key under which a value stands; the value itself if it has none.
    pub fn key_of(&self, id: NodeId) -> NodeId {
        match self.node(id).role {
            Role::Value(map, at) => match &self.node(map).kind {
                Kind::Map(entries) => entries[at as usize].0,
                Kind::Scalar(_) | Kind::Seq(_) => id,
            },
            Role::Root | Role::Key(..) | Role::Item(..) => id,
        }
    }

    pub fn spot(&self, id: NodeId) -> Spot {
        self.node(id).spot
    }

    /// The place of a byte inside a scalar's value, if the scalar stands on one line as it is; else where it starts.
    pub fn spot_inside(&self, id: NodeId, byte: usize) -> Spot {
        let spot = self.spot(id);
        match &self.node(id).kind {
            Kind::Scalar(scalar) => match self.column_inside(scalar, byte) {
                Some(chars) => Spot { column: spot.column + chars, width: 1, ..spot },
                None => spot,
            },
            Kind::Seq(_) | Kind::Map(_) => spot,
        }
    }

    fn column_inside(&self, scalar: &Scalar, byte: usize) -> Option<usize> {
        if scalar.written.is_some() {
            return None;
        }
        let written = self.text.get(scalar.range.clone()?)?;
        let before = scalar.value.get(..byte.min(scalar.value.len()))?.chars().count();
        if written.contains('\n') {
            return None;
        }
        match scalar.style {
            ScalarStyle::Plain => Some(before),
            ScalarStyle::SingleQuoted => {
                let mut chars = written.chars().skip(1).peekable();
                let mut columns = 1;
                for _ in 0..before {
                    columns += if chars.next() == Some('\'') && chars.next_if_eq(&'\'').is_some() { 2 } else { 1 };
                }
                Some(columns)
            }
            ScalarStyle::DoubleQuoted => {
                let mut chars = written.chars().skip(1);
                let mut columns = 1;
                for _ in 0..before {
                    columns += 1;
                    if chars.next() == Some('\\') {
                        let more = match chars.next() {
                            Some('x') => 2,
                            Some('u') => 4,
                            Some('U') => 8,
                            _ => 0,
                        };
                        columns += 1 + more;
                        chars.by_ref().take(more).for_each(drop);
                    }
                }
                Some(columns)
            }
            ScalarStyle::Literal | ScalarStyle::Folded => None,
        }
    }

    /// The parser may name a place beyond the end of a line or of the text: the end is meant.
    fn inside(&self, spot: Spot) -> Spot {
        let written = |line: usize| !self.line(line).trim().is_empty();
        let line = (1..=spot.line.min(self.lines.len())).rev().find(|line| written(*line)).unwrap_or(1);
        let end = self.line(line).chars().count() + 1;
        Spot { line, column: if line == spot.line { spot.column.min(end) } else { end }, width: 1 }
    }

    /// A line of the file, without its end.
    pub fn line(&self, line: usize) -> &str {
        let Some(start) = line.checked_sub(1).and_then(|i| self.lines.get(i)) else { return "" };
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        self.text.get(*start..end).unwrap_or("").trim_end_matches('\r')
    }

    /// A mistake at a place of this file. `message` may hold the rule and the way out, divided by `; `.
    pub fn mistake(&self, spot: Spot, path: String, message: &str) -> Mistake {
        let message = self.without_secrets(message);
        let mut parts = message.splitn(3, "; ").map(str::to_string);
        Mistake {
            file: self.file.clone(),
            line: spot.line,
            column: spot.column,
            width: spot.width,
            path,
            message: parts.next().unwrap_or_default(),
            rule: parts.next(),
            help: parts.next(),
            source: self.line(spot.line).to_string(),
        }
    }
}

impl Tree {
    /// What came from the environment shows as it was written.
    pub fn without_secrets(&self, message: &str) -> String {
        let mut message = message.to_string();
        for (value, written) in &self.secrets {
            message = message.replace(value, written);
        }
        message
    }
}

impl Node {
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(scalar) => match scalar.plain() {
                Plain::Null => "nothing",
                Plain::Bool(_) => "a truth value",
                Plain::Unsigned(_) | Plain::Signed(_) | Plain::Float(_) => "a number",
                Plain::Text(_) => "text",
            },
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if matches!(scalar.plain(), Plain::Null))
    }
}

impl Scalar {
    /// What the scalar stands for when nobody asks for text: quoted ones are always text.
    pub fn plain(&self) -> Plain<'_> {
        let text = self.value.as_str();
        if self.style != ScalarStyle::Plain {
            return Plain::Text(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
            "true" | "True" | "TRUE" => return Plain::Bool(true),
            "false" | "False" | "FALSE" => return Plain::Bool(false),
            _ => {}
        }
        let based = |prefix, radix| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok());
        if let Some(number) = based("0x", 16).or(based("0o", 8)) {
            return Plain::Unsigned(number);
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return match (text.trim_start_matches('+').parse::<u64>(), text.parse::<i64>()) {
                (Ok(number), _) => Plain::Unsigned(number),
                (Err(_), Ok(number)) => Plain::Signed(number),
                (Err(_), Err(_)) => Plain::Float(text.parse().unwrap_or(f64::MAX)),
            };
        }
        let numeric = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
        match text.parse::<f64>() {
            Ok(number) if numeric && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => Plain::Float(number),
            _ => Plain::Text(text),
        }
    }
}

struct Builder<'a> {
    tree: Tree,
    env: Env<'a>,
    mistakes: &'a mut Vec<Mistake>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    root: Option<NodeId>,
}

struct Open {
    id: NodeId,
    /// In a mapping: the key whose value comes next.
    key: Option<NodeId>,
    /// In a mapping: keys so far.
    seen: HashSet<String>,
}

impl Builder<'_> {
    /// True if there is a tree to go on with.
    fn run(&mut self, text: &str) -> bool {
        let options = granit_parser::options! { flow_nesting_limit: 64, block_nesting_limit: 64 };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = match event {
                Ok(next) => next,
                Err(error) => {
                    let message = format!("this is no YAML: {}", error.info());
                    let spot = self.tree.inside(spot_of(error.marker(), error.marker()));
                    self.mistake(spot, "", &message);
                    return false;
                }
            };
            if !self.take(event, span) {
                return false;
            }
        }
        match self.root {
            Some(root) if !self.tree.node(root).is_null() => {
                self.tree.root = root;
                true
            }
            _ => {
                let message = "the file is empty";
                let help = "`weir schema` prints what may be in it, pipelines/quickstart.yaml is a complete one";
                self.mistakes.push(Mistake::of_file(&self.tree.file, message, help));
                false
            }
        }
    }

    /// Adds one event to the tree; false if reading cannot go on.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let spot = spot_of(&span.start, &span.end);
        if event.is_node() && self.tree.nodes.len() >= NODES_MAX {
            self.mistake(spot, "", &format!("the file has more than {NODES_MAX} values; what aliases (`*name`) repeat counts each time"));
            return false;
        }
        if self.root.is_some() && self.open.is_empty() && matches!(event, Event::DocumentStart(..)) {
            self.mistake(spot, "", "a second document begins here; a pipeline file holds one pipeline; write each into a file of its own and name them all: weir run a.yaml b.yaml");
            return false;
        }
        if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema()) {
            let at = span.tag_span().map_or(spot, |span| spot_of(&span.start, &span.end));
            let message = format!("the tag `{}` means nothing here; no tags are used; leave it out", tag.original());
            self.mistake(at, "", &message);
        }
        match event {
            Event::Scalar(value, style, anchor, _) => {
                let scalar = self.scalar(&value, style, span, spot);
                let id = self.push(Kind::Scalar(scalar), spot);
                self.anchor(anchor, id);
                self.attach(id);
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Kind::Seq(Vec::new()), spot, anchor),
            Event::MappingStart(_, anchor, _) => self.begin(Kind::Map(Vec::new()), spot, anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.attach(open.id);
                }
            }
            Event::Alias(anchor) => return self.alias(anchor, spot),
            _ => {}
        }
        true
    }

    fn push(&mut self, kind: Kind, spot: Spot) -> NodeId {
        let id = NodeId(self.tree.nodes.len() as u32);
        self.tree.nodes.push(Node { kind, spot, role: Role::Root, removed: false, placeholders: Vec::new(), is_choice: Cell::new(false) });
        id
    }

    fn anchor(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
    }

    fn begin(&mut self, kind: Kind, spot: Spot, anchor: usize) {
        let spot = Spot { width: 1, ..spot };
        let id = self.push(kind, spot);
        self.anchor(anchor, id);
        self.open.push(Open { id, key: None, seen: HashSet::new() });
    }

    /// Puts a finished node where it belongs.
    fn attach(&mut self, id: NodeId) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(id);
            return;
        };
        let parent = open.id;
        match &mut self.tree.nodes[parent.0 as usize].kind {
            Kind::Seq(items) => {
                items.push(id);
                let at = items.len() as u32 - 1;
                self.tree.node_mut(id).role = Role::Item(parent, at);
            }
            Kind::Map(entries) => match open.key.take() {
                None => open.key = Some(id),
                Some(key) => {
                    entries.push((key, id));
                    let at = entries.len() as u32 - 1;
                    self.tree.node_mut(key).role = Role::Key(parent, at);
                    self.tree.node_mut(id).role = Role::Value(parent, at);
                    self.check_key(parent, key, id);
                }
            },
            Kind::Scalar(_) => unreachable!("only lists and maps are opened"),
        }
    }

    /// A key is text, and occurs once. Of two the first one stays.
    fn check_key(&mut self, map: NodeId, key: NodeId, value: NodeId) {
        let message = match self.tree.text_of(key).map(str::to_string) {
            None => "a key is a word; this one is a list or a map; quote it if it is meant as text".to_string(),
            Some(word) => {
                if self.open.last_mut().is_none_or(|open| open.seen.insert(word.clone())) {
                    return;
                }
                let first = match &self.tree.node(map).kind {
                    Kind::Map(entries) => entries.iter().find(|(k, _)| self.tree.text_of(*k) == Some(&word)),
                    Kind::Scalar(_) | Kind::Seq(_) => None,
                };
                let line = first.map_or(0, |(first, _)| self.tree.spot(*first).line);
                format!("the key `{word}` occurs twice; it stands in line {line} already; leave one of them out")
            }
        };
        let spot = self.tree.spot(key);
        self.mistake(spot, "", &message);
        // Without its name the entry cannot be taken for a lost one: the first one is still there.
        self.tree.node_mut(key).kind = Kind::Seq(Vec::new());
        self.tree.node_mut(key).removed = true;
        self.tree.node_mut(value).removed = true;
    }

    fn alias(&mut self, anchor: usize, spot: Spot) -> bool {
        let Some(target) = self.anchors.get(&anchor).copied() else { return true };
        if self.open.iter().any(|open| open.id == target) {
            self.mistake(spot, "", "this alias repeats what it is part of; such a value never ends; leave it out");
            return false;
        }
        match self.copy(target) {
            Some(id) => {
                self.attach(id);
                true
            }
            None => {
                self.mistake(
                    spot,
                    "",
                    &format!("the file has more than {NODES_MAX} values; what aliases (`*name`) repeat counts each time"),
                );
                false
            }
        }
    }

    /// Copies a finished node with all below it: each place of use can then be right or wrong by itself.
    fn copy(&mut self, from: NodeId) -> Option<NodeId> {
        if self.tree.nodes.len() >= NODES_MAX {
            return None;
        }
        let spot = self.tree.spot(from);
        let removed = self.tree.node(from).removed;
        let id = self.push(Kind::Seq(Vec::new()), spot);
        self.tree.node_mut(id).removed = removed;
        enum Below {
            Items(Vec<NodeId>),
            Entries(Vec<(NodeId, NodeId)>),
        }
        let below = match &self.tree.node(from).kind {
            Kind::Scalar(scalar) => {
                let scalar = Scalar {
                    value: scalar.value.clone(),
                    written: scalar.written.clone(),
                    style: scalar.style,
                    range: scalar.range.clone(),
                };
                self.tree.node_mut(id).kind = Kind::Scalar(scalar);
                return Some(id);
            }
            Kind::Seq(items) => Below::Items(items.clone()),
            Kind::Map(entries) => Below::Entries(entries.clone()),
        };
        let kind = match below {
            Below::Items(items) => {
                let mut copies = Vec::new();
                for (at, item) in items.into_iter().enumerate() {
                    let copy = self.copy(item)?;
                    self.tree.node_mut(copy).role = Role::Item(id, at as u32);
                    copies.push(copy);
                }
                Kind::Seq(copies)
            }
            Below::Entries(entries) => {
                let mut copies = Vec::new();
                for (at, (key, value)) in entries.into_iter().enumerate() {
                    let (key, value) = (self.copy(key)?, self.copy(value)?);
                    self.tree.node_mut(key).role = Role::Key(id, at as u32);
                    self.tree.node_mut(value).role = Role::Value(id, at as u32);
                    copies.push((key, value));
                }
                Kind::Map(copies)
            }
        };
        self.tree.node_mut(id).kind = kind;
        Some(id)
    }

    /// A scalar with its variables put in. Keys stay as they are: a config's shape does not depend on the environment.
    fn scalar(&mut self, value: &str, style: ScalarStyle, span: Span, spot: Spot) -> Scalar {
        let is_key = self.open.last().is_some_and(|open| open.key.is_none() && matches!(self.tree.node(open.id).kind, Kind::Map(_)));
        let range = span.byte_range();
        let plain = Scalar { value: value.to_string(), written: None, style, range };
        if is_key || !value.contains('$') {
            return plain;
        }
        match substitute(value, self.env) {
            Ok(text) if text == value => plain,
            Ok(text) => {
                if text.len() >= SECRET_BYTES_MIN {
                    self.tree.secrets.push((text.clone(), value.to_string()));
                }
                Scalar { value: text, written: Some(value.to_string()), ..plain }
            }
            Err((at, message)) => {
                let chars = value.get(..at).map_or(0, |before| before.chars().count());
                let column = spot.column + if style == ScalarStyle::Plain { chars } else { chars + 1 };
                let one_line = span.start.line() == span.end.line();
                let spot = if one_line { Spot { column, width: 1, ..spot } } else { spot };
                let path = self.here().to_string();
                self.mistake(spot, &path, &message);
                plain
            }
        }
    }

    /// The path of the value that comes next.
    fn here(&self) -> Path {
        let mut path = Path::default();
        for open in &self.open {
            path = match (&self.tree.node(open.id).kind, open.key) {
                (Kind::Seq(items), _) => path.index(items.len()),
                (_, Some(key)) => path.key(self.tree.text_of(key).unwrap_or("?")),
                (_, None) => path,
            };
        }
        path
    }

    fn mistake(&mut self, spot: Spot, path: &str, message: &str) {
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(self.tree.mistake(spot, path.to_string(), message));
        }
    }
}

fn spot_of(start: &Marker, end: &Marker) -> Spot {
    let width = if start.line() == end.line() { end.col().saturating_sub(start.col()).max(1) } else { 1 };
    Spot { line: start.line().max(1), column: start.col() + 1, width }
}

/// Puts variables in: `${NAME}` is the value of NAME, `$$` is `$`, any other `$` stands for itself.
/// An error is the byte it is at, and what is wrong.
fn substitute(text: &str, env: Env<'_>) -> Result<String, (usize, String)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let at = text.len() - rest.len() + dollar;
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let Some((name, after)) = after.split_once('}').filter(|(name, _)| is_name(name)) else {
                let message = "`${` begins a variable here; a variable is written as ${NAME}, of letters, digits and _; for a dollar sign itself write $$";
                return Err((at, message.into()));
            };
            match env(name) {
                Some(value) => out.push_str(&value),
                None => {
                    let message = format!(
                        "the environment has no variable {name}; a variable in a config must be set; set it (export {name}=...), or write $$ for a dollar sign"
                    );
                    return Err((at, message));
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}
