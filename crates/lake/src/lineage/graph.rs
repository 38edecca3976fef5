//! Lineage as a graph: what lies before a dataset, model, service or report, and what after it.
//!
//! In: OpenLineage events in any order, repeated or not, ours or others'. Out: answers to `up` and `down`, as of any
//! time, as data, JSON or a tree. Edges know when they held: a service's from the first hour it was seen to the end of the
//! last, all others from their event on. Cycles end where they were entered.
//! Bound: memory is linear in distinct nodes and edges; an event that is no OpenLineage event is counted in
//! `Graph::refused` and changes nothing.

use super::{Event, REQUEST_LOG};
use flow::units::{NANOS_PER_MINUTE, UnixNanos};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::fmt::Write as _;

/// What a node is. Request logs and jobs that end join others and are not shown between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Job,
    Dataset,
    Log,
    Model,
    Service,
    Report,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Job => "job",
            Kind::Dataset => "dataset",
            Kind::Log => "log",
            Kind::Model => "model",
            Kind::Service => "service",
            Kind::Report => "report",
        }
    }

    fn is_shown(self) -> bool {
        match self {
            Kind::Job | Kind::Log => false,
            Kind::Dataset | Kind::Model | Kind::Service | Kind::Report => true,
        }
    }
}

/// A dataset or a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `dataset:NAMESPACE:NAME` or `job:NAMESPACE:NAME`.
    pub id: String,
    pub kind: Kind,
    pub name: String,
    /// Other names it is known by: its address, its model card.
    pub aliases: BTreeSet<String>,
}

/// When something held: from the first to the end of the last time it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Validity {
    pub from: UnixNanos,
    /// `None`: it still does.
    pub to: Option<UnixNanos>,
}

impl Validity {
    fn holds(self, at: Option<UnixNanos>) -> bool {
        at.is_none_or(|at| self.from <= at && self.to.is_none_or(|to| at < to))
    }

    fn join(self, other: Validity) -> Validity {
        let to = match (self.to, other.to) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        Validity { from: self.from.min(other.from), to }
    }

    /// When both held; if they never did together, when the first one did.
    fn meet(self, other: Validity) -> Validity {
        let to = match (self.to, other.to) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let from = self.from.max(other.from);
        if to.is_some_and(|to| to <= from) { self } else { Validity { from, to } }
    }
}

/// Edges of one node: by the node at the other end and the version of the dataset.
type Edges = BTreeMap<(usize, String), Validity>;

/// Everything that a set of events says. The order and repetition of the events do not matter.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    ids: BTreeMap<String, usize>,
    down: Vec<Edges>,
    up: Vec<Edges>,
    /// Events that are no OpenLineage events.
    pub refused: u64,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// No node has that name; these are close.
    Unknown { name: String, close: Vec<String> },
    /// Several nodes have that name; these are their ids.
    Ambiguous { name: String, ids: Vec<String> },
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::Unknown { name, close } if close.is_empty() => write!(f, "no dataset, model, service or report is named {name:?}"),
            Unanswered::Unknown { name, close } => {
                write!(f, "no dataset, model, service or report is named {name:?}\n  help: there is {}", close.join(", "))
            }
            Unanswered::Ambiguous { name, ids } => write!(f, "{name:?} names {} things\n  help: name one of {}", ids.len(), ids.join(", ")),
        }
    }
}

impl std::error::Error for Unanswered {}

/// An answer: what lies up or down of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    pub direction: Direction,
    pub root: Node,
    /// In the order of depth, then kind, then name; without the root.
    pub nodes: Vec<Reached>,
    /// In the order in which they were followed. `from` and `to` are ids, always in the direction the data flows.
    pub edges: Vec<Edge>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub node: Node,
    /// Steps from the root; request logs and jobs that end are no steps.
    pub depth: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    pub from: String,
    pub to: String,
    /// Versions of `from` that were read, in order; empty if none is known.
    pub from_versions: BTreeSet<String>,
    /// Versions of `to` that were written.
    pub to_versions: BTreeSet<String>,
    pub validity: Validity,
}

/// Up is against the flow of data, down is with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

impl Graph {
    /// Reads the events, in any order.
    pub fn from_events(events: &[Event]) -> Graph {
        let mut graph = Graph::default();
        for event in events {
            graph.add_json(&event.json);
        }
        graph
    }

    /// Adds one event. What is no OpenLineage event is counted in `refused` and changes nothing.
    pub fn add_json(&mut self, json: &str) {
        match serde_json::from_str::<Value>(json).ok().filter(|event| check_event(event).is_ok()) {
            Some(event) => self.add(&event),
            None => self.refused += 1,
        }
    }

    fn add(&mut self, event: &Value) {
        if !event["dataset"].is_null() {
            self.dataset(&event["dataset"]);
            return;
        }
        let kind = match event["job"]["facets"]["jobType"]["processingType"].as_str() {
            Some("SERVICE") => Kind::Service,
            _ => Kind::Job,
        };
        let job = self.node("job", &event["job"], kind);
        let validity = validity_of(event);
        for input in list(&event["inputs"]) {
            let from = self.dataset(input);
            self.link(from, job, version_of(input), validity);
        }
        for output in list(&event["outputs"]) {
            let to = self.dataset(output);
            self.link(job, to, version_of(output), validity);
        }
    }

    fn dataset(&mut self, dataset: &Value) -> usize {
        let facets = &dataset["facets"];
        let kind = match (facets["datasetType"]["datasetType"].as_str(), facets["datasetType"]["subType"].as_str()) {
            (Some("MODEL"), _) => Kind::Model,
            (_, Some("REPORT")) => Kind::Report,
            (_, Some(REQUEST_LOG)) => Kind::Log,
            _ => Kind::Dataset,
        };
        let index = self.node("dataset", dataset, kind);
        for link in list(&facets["symlinks"]["identifiers"]) {
            if let (Some(namespace), Some(name)) = (link["namespace"].as_str(), link["name"].as_str()) {
                let aliases = &mut self.nodes[index].aliases;
                aliases.extend([name.to_string(), format!("{namespace}/{name}"), format!("dataset:{namespace}:{name}")]);
            }
        }
        index
    }

    /// The node of a dataset or job, new or known. An event that says less of its kind does not take back what another one said.
    fn node(&mut self, prefix: &str, entity: &Value, kind: Kind) -> usize {
        let text = |field: &str| entity[field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let id = format!("{prefix}:{namespace}:{name}");
        let next = self.nodes.len();
        let index = *self.ids.entry(id.clone()).or_insert(next);
        if index == next {
            let aliases = BTreeSet::from([format!("{namespace}/{name}")]);
            self.nodes.push(Node { id, kind, name: name.to_string(), aliases });
            self.down.push(Edges::new());
            self.up.push(Edges::new());
        }
        self.nodes[index].kind = self.nodes[index].kind.max(kind);
        index
    }

    fn link(&mut self, from: usize, to: usize, version: &str, validity: Validity) {
        let join = |edges: &mut Edges, end: usize| {
            let held = edges.entry((end, version.to_string())).or_insert(validity);
            *held = held.join(validity);
        };
        join(&mut self.down[from], to);
        join(&mut self.up[to], from);
    }

    /// What `node` was made from: services, models and datasets behind it. `as_of`: only what held at that time.
    pub fn up(&self, node: &str, as_of: Option<UnixNanos>) -> Result<Reach, Unanswered> {
        Ok(self.reach(self.find(node)?, as_of, Direction::Up))
    }

    /// What depends on `node`: models, services and reports after it. `as_of`: only what held at that time.
    pub fn down(&self, node: &str, as_of: Option<UnixNanos>) -> Result<Reach, Unanswered> {
        Ok(self.reach(self.find(node)?, as_of, Direction::Down))
    }

    /// Finds a node by its id, else by its name or an alias if only one shown node has it, else one that is not shown.
    fn find(&self, name: &str) -> Result<usize, Unanswered> {
        if let Some(index) = self.ids.get(name) {
            return Ok(*index);
        }
        let named: Vec<usize> =
            (0..self.nodes.len()).filter(|i| self.nodes[*i].name == name || self.nodes[*i].aliases.contains(name)).collect();
        let shown: Vec<usize> = named.iter().copied().filter(|i| self.nodes[*i].kind.is_shown()).collect();
        match (shown.as_slice(), named.as_slice()) {
            ([only], _) | ([], [only]) => Ok(*only),
            ([], []) => Err(Unanswered::Unknown { name: name.to_string(), close: self.close_to(name) }),
            ([], several) | (several, _) => {
                let mut ids: Vec<String> = several.iter().map(|i| self.nodes[*i].id.clone()).collect();
                ids.sort();
                Err(Unanswered::Ambiguous { name: name.to_string(), ids })
            }
        }
    }

    fn close_to(&self, name: &str) -> Vec<String> {
        let name = name.to_lowercase();
        let mut close: Vec<(usize, &str)> = Vec::new();
        for node in self.nodes.iter().filter(|node| node.kind.is_shown()) {
            let other = node.name.to_lowercase();
            let distance = distance(&name, &other);
            if distance <= 2.max(name.chars().count() / 3) || (name.len() >= 3 && other.contains(&name)) {
                close.push((distance, &node.name));
            }
        }
        close.sort();
        close.dedup();
        close.into_iter().take(3).map(|(_, name)| name.to_string()).collect()
    }

    /// Breadth first, so each node has its smallest depth and a cycle ends where it was entered.
    fn reach(&self, root: usize, as_of: Option<UnixNanos>, direction: Direction) -> Reach {
        let ranks = self.ranks();
        let mut depths: Vec<Option<usize>> = vec![None; self.nodes.len()];
        depths[root] = Some(0);
        let mut found = Vec::new();
        let mut queue = VecDeque::from([(root, 0)]);
        let mut edges = Vec::new();
        while let Some((at, depth)) = queue.pop_front() {
            let mut steps: Vec<(usize, Step)> = self.steps(at, as_of, direction).into_iter().collect();
            steps.sort_by_key(|(next, _)| ranks[*next]);
            for (next, Step { near, far, validity }) in steps {
                let id = |index: usize| self.nodes[index].id.clone();
                edges.push(match direction {
                    Direction::Down => Edge { from: id(at), to: id(next), from_versions: near, to_versions: far, validity },
                    Direction::Up => Edge { from: id(next), to: id(at), from_versions: far, to_versions: near, validity },
                });
                if depths[next].is_none() {
                    depths[next] = Some(depth + 1);
                    found.push((depth + 1, ranks[next], next));
                    queue.push_back((next, depth + 1));
                }
            }
        }
        found.sort_unstable();
        let nodes = found.into_iter().map(|(depth, _, index)| Reached { node: self.nodes[index].clone(), depth }).collect();
        Reach { direction, root: self.nodes[root].clone(), nodes, edges }
    }

    /// The place of each node in the order of kind, name and id.
    fn ranks(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|index| {
            let node = &self.nodes[*index];
            (node.kind, &node.name, &node.id)
        });
        let mut ranks = vec![0; order.len()];
        for (rank, index) in order.into_iter().enumerate() {
            ranks[index] = rank;
        }
        ranks
    }

    /// The next shown nodes, through those that are not shown.
    fn steps(&self, from: usize, as_of: Option<UnixNanos>, direction: Direction) -> BTreeMap<usize, Step> {
        let all = match direction {
            Direction::Down => &self.down,
            Direction::Up => &self.up,
        };
        let mut steps: BTreeMap<usize, Step> = BTreeMap::new();
        let mut passed: HashMap<(usize, &str), Validity> = HashMap::new(); // looked up, never walked
        let mut stack: Vec<(usize, Option<(&str, Validity)>)> = vec![(from, None)];
        while let Some((at, before)) = stack.pop() {
            for ((next, version), validity) in all[at].iter().filter(|(_, validity)| validity.holds(as_of)) {
                let (first, validity) = before.map_or((version.as_str(), *validity), |(first, held)| (first, held.meet(*validity)));
                if self.nodes[*next].kind.is_shown() {
                    let step = steps.entry(*next).or_insert_with(|| Step { near: BTreeSet::new(), far: BTreeSet::new(), validity });
                    step.validity = step.validity.join(validity);
                    step.near.extend(self.version(from, first));
                    step.far.extend(self.version(*next, version));
                    continue;
                }
                // Passed again only if that adds time, so this ends.
                let wider = passed.get(&(*next, first)).map_or(validity, |held| held.join(validity));
                if passed.insert((*next, first), wider) != Some(wider) {
                    stack.push((*next, Some((first, wider))));
                }
            }
        }
        steps
    }

    /// The version on an edge is that of its dataset; a job has none.
    fn version(&self, index: usize, version: &str) -> Option<String> {
        (!version.is_empty() && self.nodes[index].id.starts_with("dataset:")).then(|| version.to_string())
    }
}

/// From one shown node to the next: the versions at both ends, and when it held.
struct Step {
    near: BTreeSet<String>,
    far: BTreeSet<String>,
    validity: Validity,
}

/// When the edges of an event held: for a service its hour, for what happened once from then on.
fn validity_of(event: &Value) -> Validity {
    let nominal = &event["run"]["facets"]["nominalTime"];
    let time = |value: &Value| value.as_str().and_then(parse_time);
    let from = time(&nominal["nominalStartTime"]).or_else(|| time(&event["eventTime"])).unwrap_or_default();
    let to = match event["job"]["facets"]["jobType"]["processingType"].as_str() {
        Some("SERVICE") => time(&nominal["nominalEndTime"]),
        _ => None,
    };
    Validity { from, to }
}

fn version_of(dataset: &Value) -> &str {
    dataset["facets"]["version"]["datasetVersion"].as_str().unwrap_or("")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What OpenLineage 2-0-2 requires of an event, as far as the graph relies on it.
pub fn check_event(event: &Value) -> Result<(), String> {
    let text = |value: &Value, path: &str| match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_string()),
        _ => Err(format!("{path} is missing or no text")),
    };
    let time = text(&event["eventTime"], "eventTime")?;
    parse_time(&time).ok_or_else(|| format!("eventTime is {time:?}, no time"))?;
    text(&event["producer"], "producer")?;
    text(&event["schemaURL"], "schemaURL")?;
    let entity = |value: &Value, path: &str| -> Result<(), String> {
        text(&value["namespace"], &format!("{path}.namespace"))?;
        text(&value["name"], &format!("{path}.name"))?;
        let facets = value["facets"].as_object().map(Map::iter).into_iter().flatten();
        for (name, facet) in facets {
            text(&facet["_producer"], &format!("{path}.facets.{name}._producer"))?;
            text(&facet["_schemaURL"], &format!("{path}.facets.{name}._schemaURL"))?;
        }
        Ok(())
    };
    if !event["dataset"].is_null() {
        return entity(&event["dataset"], "dataset");
    }
    entity(&event["job"], "job")?;
    for (index, dataset) in list(&event["inputs"]).iter().chain(list(&event["outputs"])).enumerate() {
        entity(dataset, &format!("inputs and outputs [{index}]"))?;
    }
    if event["run"].is_null() {
        return Ok(()); // a JobEvent: declared, not run
    }
    let run = text(&event["run"]["runId"], "run.runId")?;
    let hex = |(at, byte): (usize, u8)| if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    if run.len() != 36 || !run.bytes().enumerate().all(hex) {
        return Err(format!("run.runId is {run:?}, no UUID"));
    }
    match event["eventType"].as_str() {
        Some("START" | "RUNNING" | "COMPLETE" | "ABORT" | "FAIL" | "OTHER") => Ok(()),
        None if event["eventType"].is_null() => Ok(()),
        _ => Err(format!("eventType is {}; it is START, RUNNING, COMPLETE, ABORT, FAIL or OTHER", event["eventType"])),
    }
}

/// Reads an RFC 3339 time of the years 1970 to 2261; digits beyond nanoseconds are cut.
pub fn parse_time(text: &str) -> Option<UnixNanos> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = |(byte, want): (&u8, &u8)| if *want == b'd' { byte.is_ascii_digit() } else { byte.eq_ignore_ascii_case(want) };
    if bytes.len() <= shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0i64, |n, b| n * 10 + i64::from(b - b'0'));
    let (year, month, day) = (number(0..4) as i32, number(5..7) as u32, number(8..10) as u32);
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    let days = flow::units::days_from_civil(year, month, day);
    let real = flow::units::civil_from_days(days) == (year, month, day) && (1970..=2261).contains(&year);
    if !real || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &bytes[shape.len()..];
    let mut nanos = 0;
    if rest[0] == b'.' {
        let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let kept = &rest[1..=digits.min(9)];
        nanos = kept.iter().fold(0i64, |n, b| n * 10 + i64::from(b - b'0')) * 10i64.pow(9 - kept.len() as u32);
        rest = &rest[1 + digits..];
        if digits == 0 {
            return None;
        }
    }
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) => {
            let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            (two(h1, h2) * 60 + two(m1, m2)) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some(UnixNanos((days * 1_440 + hour * 60 + minute - offset) * NANOS_PER_MINUTE + second * 1_000_000_000 + nanos))
}

/// Edit distance (Levenshtein 1966) over at most the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Validity {
    fn json(self) -> Value {
        json!({ "from": self.from.rfc3339(), "to": self.to.map(UnixNanos::rfc3339) })
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) => write!(f, "{} to {}", self.from.rfc3339(), to.rfc3339()),
            None => write!(f, "since {}", self.from.rfc3339()),
        }
    }
}

impl Reach {
    /// As JSON: `root`, `nodes` with depth, `edges` with versions and validity.
    pub fn json(&self) -> Value {
        let node = |node: &Node, depth: usize| json!({ "id": node.id, "kind": node.kind.name(), "name": node.name, "depth": depth });
        let edge = |edge: &Edge| json!({ "from": edge.from, "to": edge.to, "from_versions": edge.from_versions, "to_versions": edge.to_versions, "valid": edge.validity.json() });
        json!({
            "root": node(&self.root, 0),
            "nodes": self.nodes.iter().map(|reached| node(&reached.node, reached.depth)).collect::<Vec<_>>(),
            "edges": self.edges.iter().map(edge).collect::<Vec<_>>(),
        })
    }

    /// As a tree, one line a node. A node that is reached again is named again and not followed again.
    pub fn tree(&self) -> String {
        let mut known: BTreeMap<&str, &Node> = self.nodes.iter().map(|reached| (reached.node.id.as_str(), &reached.node)).collect();
        known.insert(&self.root.id, &self.root);
        let mut next: BTreeMap<&str, Vec<(&str, &Edge)>> = BTreeMap::new();
        let mut followed = BTreeSet::from([self.root.id.as_str()]);
        for edge in &self.edges {
            let (parent, child) = match self.direction {
                Direction::Down => (&edge.from, &edge.to),
                Direction::Up => (&edge.to, &edge.from),
            };
            next.entry(parent).or_default().push((child, edge));
        }
        let mut out = format!("{} {}\n", self.root.kind.name(), self.root.name);
        let mut stack: Vec<(&str, &Edge, String, bool)> = Vec::new();
        let push = |stack: &mut Vec<_>, id: &str, indent: &str| {
            let children = next.get(id).map_or(&[][..], Vec::as_slice);
            for (index, (child, edge)) in children.iter().enumerate().rev() {
                stack.push((*child, *edge, indent.to_string(), index + 1 == children.len()));
            }
        };
        push(&mut stack, &self.root.id, "");
        while let Some((id, edge, indent, last)) = stack.pop() {
            let node = known[id];
            let again = !followed.insert(id);
            let versions: Vec<&str> = self.versions_of_child(edge).iter().map(String::as_str).collect();
            let versions = if versions.is_empty() { String::new() } else { format!(" ({})", versions.join(", ")) };
            let note = if again { ", see above" } else { "" };
            let branch = if last { "└─ " } else { "├─ " };
            writeln!(out, "{indent}{branch}{} {}{versions}  {}{note}", node.kind.name(), node.name, edge.validity)
                .expect("a String takes every write");
            if !again {
                push(&mut stack, id, &format!("{indent}{}", if last { "   " } else { "│  " }));
            }
        }
        out
    }
    fn versions_of_child<'a>(&self, edge: &'a Edge) -> &'a BTreeSet<String> {
        match self.direction {
            Direction::Down => &edge.to_versions,
            Direction::Up => &edge.from_versions,
        }
    }
}
