//! Lines to export requests: what [`read`](super::read) wrote comes back as it was, records of other origin become items that make sense.
//!
//! In: lines. Out: one request of the items taken since the last, grouped by resource and scope in order of their first item. A log
//! record of another origin: its time, level, message and ids are found by the names of [`flow::conventions`], members that `resource`
//! names become attributes of the resource, all others attributes; a line that is no JSON object is a body. Of a name that is there
//! twice the last counts. Integers beyond 64 bits become text. What cannot be an item is refused with a [`Reason`].
//! Memory: the items encoded, and the keys of their groups; the caller sees [`Writer::bytes`] and decides when to finish.

use super::json::{self, Cursor, Pairs};
use super::text::hex_into;
use super::transcode::{self, close, open};
use super::{Encoding, Reason, Signal, lines, schema, spans, write_metrics};
use crate::wire::{put_bytes, put_double, put_fixed32, put_fixed64, put_message, put_varint};
use flow::conventions;
use flow::fields::Kind;
use flow::time::TimeParser;
use flow::units::UnixNanos;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// How lines become items.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// How deep values nest; at most 100 counts.
    pub depth_max: usize,
    /// Members (of metrics: labels) that become attributes of the resource: name, and name of the attribute.
    pub resource: Vec<(String, String)>,
}

impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions { depth_max: 64, resource: Vec::new() }
    }
}

/// Collects items for a request.
#[derive(Debug)]
pub struct Writer {
    signal: Signal,
    pub(super) options: WriteOptions,
    pub(super) times: TimeParser,
    groups: Vec<Group>,
    /// Resource and scope, encoded, to group and scope.
    places: HashMap<(Vec<u8>, Vec<u8>), (usize, usize)>,
    resources: HashMap<Vec<u8>, usize>,
    descriptions: HashMap<String, String>,
    items: u64,
    bytes: usize,
}

/// All of one resource: `ResourceLogs` and its like.
#[derive(Debug)]
struct Group {
    head: Vec<u8>,
    scopes: Vec<Scope>,
}

/// All of one scope: `ScopeLogs` and its like.
#[derive(Debug)]
struct Scope {
    head: Vec<u8>,
    /// Log records and spans.
    items: Vec<u8>,
    metrics: Vec<Metric>,
    places: HashMap<Vec<u8>, usize>,
}

/// All points of one metric.
#[derive(Debug)]
struct Metric {
    name: String,
    key: write_metrics::Key,
    points: Vec<u8>,
}

impl Writer {
    pub fn new(signal: Signal, options: WriteOptions) -> Writer {
        Writer {
            signal,
            options,
            times: TimeParser::new(),
            groups: Vec::new(),
            places: HashMap::new(),
            resources: HashMap::new(),
            descriptions: HashMap::new(),
            items: 0,
            bytes: 0,
        }
    }

    /// Tells a metric's description; it stays for later requests. An empty one forgets it.
    pub fn describe(&mut self, metric: &str, description: &str) {
        if description.is_empty() {
            self.descriptions.remove(metric);
        } else {
            self.descriptions.insert(metric.to_string(), description.to_string());
        }
    }

    /// Items of the request so far.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Bytes of the request so far, nearly, in protobuf.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a line; it may end with a newline.
    pub fn push(&mut self, line: &[u8]) -> Result<(), Reason> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let members = match std::str::from_utf8(line) {
            Ok(_) => json::members(line).ok().flatten().map(Members),
            Err(_) => None,
        };
        match (self.signal, members) {
            (Signal::Logs, Some(members)) => self.push_log(members),
            (Signal::Logs, None) => self.push_text(line),
            (Signal::Traces, Some(members)) => self.push_span(members),
            (Signal::Metrics, Some(members)) => write_metrics::push(self, members),
            (_, None) => Err(Reason::Kind),
        }
    }

    /// The request; the writer is empty again.
    pub fn finish(&mut self, encoding: Encoding) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes + 64);
        for group in &self.groups {
            put_message(&mut out, 1, |out| {
                out.extend_from_slice(&group.head);
                for scope in &group.scopes {
                    put_message(out, 2, |out| self.put_scope(out, scope));
                }
            });
        }
        self.groups.clear();
        self.places.clear();
        self.resources.clear();
        (self.items, self.bytes) = (0, 0);
        match encoding {
            Encoding::Protobuf => out,
            Encoding::Json => {
                let mut text = Vec::with_capacity(out.len() * 2);
                transcode::to_json(schema::request(self.signal), &out, &mut text).expect("what was written here is read");
                text
            }
        }
    }

    fn put_scope(&self, out: &mut Vec<u8>, scope: &Scope) {
        out.extend_from_slice(&scope.head);
        out.extend_from_slice(&scope.items);
        for metric in &scope.metrics {
            put_message(out, 2, |out| metric.key.put(out, self.descriptions.get(&metric.name).map(String::as_str), &metric.points));
        }
    }

    /// The scope that an item belongs to, made if it is new. Takes the members that say so.
    fn scope(&mut self, members: &mut Members<'_>, resource: Vec<u8>) -> Result<&mut Scope, Reason> {
        let head = scope_head(members, self.options.depth_max)?;
        let key = (resource, head);
        let (group, scope) = match self.places.get(&key) {
            Some(place) => *place,
            None => {
                let (resource, head) = key.clone();
                let group = *self.resources.entry(resource.clone()).or_insert_with(|| {
                    self.groups.push(Group { head: resource, scopes: Vec::new() });
                    self.groups.len() - 1
                });
                self.bytes += key.0.len() + head.len() + 16;
                let scopes = &mut self.groups[group].scopes;
                scopes.push(Scope { head, items: Vec::new(), metrics: Vec::new(), places: HashMap::new() });
                let place = (group, scopes.len() - 1);
                self.places.insert(key, place);
                place
            }
        };
        Ok(&mut self.groups[group].scopes[scope])
    }

    fn push_item(
        &mut self,
        members: &mut Members<'_>,
        resource: Vec<u8>,
        encode: impl FnOnce(&mut Writer, &mut Members<'_>, &mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        // The scope's members are taken first, so that what is left are attributes; it is made last, when nothing can fail.
        let mut scope_members = members.take_scope();
        let mut item = Vec::new();
        encode(self, members, &mut item)?;
        let scope = self.scope(&mut scope_members, resource)?;
        put_bytes(&mut scope.items, 2, &item);
        self.items += 1;
        self.bytes += item.len() + 4;
        Ok(())
    }

    /// Points of one metric lie together.
    pub(super) fn push_point(
        &mut self,
        members: &mut Members<'_>,
        resource: Vec<u8>,
        name: &str,
        key: write_metrics::Key,
        point: &[u8],
    ) -> Result<(), Reason> {
        let scope = self.scope(members, resource)?;
        let id = key.id();
        let at = match scope.places.get(&id) {
            Some(at) => *at,
            None => {
                scope.metrics.push(Metric { name: name.to_string(), key, points: Vec::new() });
                scope.places.insert(id, scope.metrics.len() - 1);
                scope.metrics.len() - 1
            }
        };
        put_bytes(&mut scope.metrics[at].points, 1, point);
        self.items += 1;
        self.bytes += point.len() + 4;
        Ok(())
    }

    /// The resource's message and schema, of the members that say so.
    pub(super) fn resource_head<'a>(&self, members: &mut Members<'a>, labels: Option<&mut Members<'a>>) -> Result<Vec<u8>, Reason> {
        let mut named = Vec::new();
        let mut sources = [Some(&mut *members), labels];
        for (name, attribute) in &self.options.resource {
            let found = sources.iter_mut().flatten().find_map(|source| source.take(name));
            if let Some(value) = found {
                named.push((Cow::Borrowed(attribute.as_bytes()), value));
            }
        }
        let mut message = Vec::new();
        if let Some(Some(attributes)) = members.get("resource").map(object) {
            members.take("resource");
            put_pairs(&mut message, 1, &merge(attributes, named), self.options.depth_max)?;
        } else {
            put_pairs(&mut message, 1, &named, self.options.depth_max)?;
        }
        if let Some(count) = members.take_if("resource_dropped_attributes_count", count) {
            put_varint(&mut message, 2, u64::from(count));
        }
        let mut head = Vec::new();
        if !message.is_empty() {
            put_bytes(&mut head, 1, &message);
        }
        if let Some(address) = members.take_if("resource_schema_url", text) {
            put_bytes(&mut head, 3, &address);
        }
        Ok(head)
    }

    /// The time that a member's value means.
    pub(super) fn time(&mut self, value: &[u8]) -> Option<UnixNanos> {
        let (raw, kind) = raw(value);
        self.times.parse(raw, kind)
    }

    fn push_text(&mut self, line: &[u8]) -> Result<(), Reason> {
        self.push_item(&mut Members(Vec::new()), Vec::new(), |_, _, out| {
            let number = if std::str::from_utf8(line).is_ok() { 1 } else { 7 };
            put_message(out, 5, |out| put_bytes(out, number, line));
            Ok(())
        })
    }

    fn push_log(&mut self, mut members: Members<'_>) -> Result<(), Reason> {
        let is_ours = members.0.iter().all(|(name, _)| LOG_MEMBERS.iter().any(|known| known.as_bytes() == name.as_ref()));
        let resource = self.resource_head(&mut members, None)?;
        self.push_item(&mut members, resource, |writer, members, out| {
            writer.put_log_times(members, out);
            put_level(members, is_ours, out);
            put_body(members, is_ours, writer.options.depth_max, out)?;
            put_log_ids(members, out);
            if let Some(count) = members.take_if("dropped_attributes_count", count) {
                put_varint(out, 7, u64::from(count));
            }
            if let Some(flags) = members.take_if("flags", count) {
                put_fixed32(out, 8, flags);
            }
            if let Some(name) = members.take_if("event_name", text) {
                put_bytes(out, 12, &name);
            }
            put_attributes(members, 6, writer.options.depth_max, out)
        })
    }

    fn put_log_times(&mut self, members: &mut Members<'_>, out: &mut Vec<u8>) {
        let mut at = None;
        for name in conventions::TIME {
            at = members.find(name).and_then(|value| self.time(value));
            if let Some(at) = &mut at {
                members.take(name);
                let beside = conventions::nanos_beside(name);
                if let Some(nanos) =
                    beside.and_then(|beside| Some((members.find(&beside).and_then(count)?, members.take(&beside))).map(|(nanos, _)| nanos))
                {
                    at.0 += i64::from(nanos.min(999_999_999));
                }
                break;
            }
        }
        let is_observed =
            at.is_some() && members.take_if("time_source", |value| text(value).filter(|source| source.as_ref() == b"observed")).is_some();
        if let Some(at) = at {
            put_fixed64(out, if is_observed { 11 } else { 1 }, at.0 as u64);
        }
        if !is_observed && let Some(observed) = members.get("observed").and_then(|value| self.time(value)) {
            members.take("observed");
            put_fixed64(out, 11, observed.0 as u64);
        }
    }

    fn push_span(&mut self, mut members: Members<'_>) -> Result<(), Reason> {
        let resource = self.resource_head(&mut members, None)?;
        self.push_item(&mut members, resource, |writer, members, out| {
            let start = members.get("timestamp").and_then(|value| writer.time(value)).ok_or(Reason::Time)?;
            members.take("timestamp");
            put_bytes(out, 1, &members.take_if("trace_id", id::<16>).ok_or(Reason::TraceId)?);
            put_bytes(out, 2, &members.take_if("span_id", id::<8>).ok_or(Reason::SpanId)?);
            if let Some(state) = members.take_if("trace_state", text) {
                put_bytes(out, 3, &state);
            }
            if let Some(parent) = members.take_if("parent_span_id", id::<8>) {
                put_bytes(out, 4, &parent);
            }
            if let Some(name) = members.take_if("name", text) {
                put_bytes(out, 5, &name);
            }
            if let Some(kind) = members.take_if("kind", |value| named(value, &spans::KINDS)).filter(|kind| *kind > 0) {
                put_varint(out, 6, kind);
            }
            put_fixed64(out, 7, start.0 as u64);
            let duration = members.take_if("duration_ns", |value| transcode::integer(str_of(value)?));
            let end = members.get("end").and_then(|value| writer.time(value));
            let end_of = |duration| i128::from(start.0) + duration;
            match (end, duration.and_then(|duration| u64::try_from(end_of(duration)).ok())) {
                (Some(end), _) => {
                    members.take("end");
                    put_fixed64(out, 8, end.0 as u64);
                }
                (None, Some(end)) => put_fixed64(out, 8, end),
                (None, None) => {}
            }
            writer.put_span_rest(members, out)
        })
    }

    fn put_span_rest(&mut self, members: &mut Members<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        for (name, number) in [("dropped_attributes_count", 10), ("dropped_events_count", 12), ("dropped_links_count", 14)] {
            if let Some(count) = members.take_if(name, count) {
                put_varint(out, number, u64::from(count));
            }
        }
        if let Some(flags) = members.take_if("flags", count) {
            put_fixed32(out, 16, flags);
        }
        if let Some(mut status) = members.take_if("status", |value| object(value).map(Members)) {
            let at = open(out, 15);
            if let Some(message) = status.take_if("message", text) {
                put_bytes(out, 2, &message);
            }
            if let Some(code) = status.take_if("code", |value| named(value, &spans::CODES)).filter(|code| *code > 0) {
                put_varint(out, 3, code);
            }
            close(out, at);
        }
        for event in members.take_if("events", objects).unwrap_or_default() {
            self.put_event(event, out)?;
        }
        for link in members.take_if("links", objects).unwrap_or_default() {
            self.put_link(link, out)?;
        }
        put_attributes(members, 9, self.options.depth_max, out)
    }

    fn put_event(&mut self, mut event: Members<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        let at = open(out, 11);
        if let Some(time) = event.take("timestamp") {
            put_fixed64(out, 1, self.time(time).ok_or(Reason::Time)?.0 as u64);
        }
        if let Some(name) = event.take_if("name", text) {
            put_bytes(out, 2, &name);
        }
        if let Some(count) = event.take_if("dropped_attributes_count", count) {
            put_varint(out, 4, u64::from(count));
        }
        put_attributes(&mut event, 3, self.options.depth_max, out)?;
        close(out, at);
        Ok(())
    }

    fn put_link(&mut self, mut link: Members<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        let at = open(out, 13);
        put_bytes(out, 1, &link.take_if("trace_id", id::<16>).ok_or(Reason::TraceId)?);
        put_bytes(out, 2, &link.take_if("span_id", id::<8>).ok_or(Reason::SpanId)?);
        if let Some(state) = link.take_if("trace_state", text) {
            put_bytes(out, 3, &state);
        }
        if let Some(count) = link.take_if("dropped_attributes_count", count) {
            put_varint(out, 5, u64::from(count));
        }
        if let Some(flags) = link.take_if("flags", count) {
            put_fixed32(out, 6, flags);
        }
        put_attributes(&mut link, 4, self.options.depth_max, out)?;
        close(out, at);
        Ok(())
    }
}

/// The members that a log record of OTLP has and no others; a record with only these is read as one, with nothing guessed.
const LOG_MEMBERS: [&str; 17] = [
    "timestamp",
    "time_source",
    "observed",
    "severity",
    "severityNumber",
    "body",
    "trace_id",
    "span_id",
    "flags",
    "event_name",
    "attributes",
    "dropped_attributes_count",
    "resource",
    "resource_dropped_attributes_count",
    "resource_schema_url",
    "scope",
    "scope_schema_url",
];

/// The level: its number where one is said or meant, its text where there is one.
fn put_level(members: &mut Members<'_>, is_ours: bool, out: &mut Vec<u8>) {
    let number = |value| {
        let token = text(value).unwrap_or(Cow::Borrowed(value));
        transcode::integer(str_of(&token)?).and_then(|number| i32::try_from(number).ok()).filter(|number| *number != 0)
    };
    let mut severity = members.take_if("severityNumber", number).unwrap_or(0);
    if is_ours {
        if let Some(text) = members.take_if("severity", text) {
            put_bytes(out, 3, &text);
        }
    } else {
        let meant = |members: &Members<'_>, name: &str| {
            members.find(name).map(raw).map_or(0, |(raw, kind)| i32::from(conventions::scale(name).severity(raw, kind)))
        };
        let is_text = |members: &Members<'_>, name: &str| members.find(name).is_some_and(|value| text(value).is_some());
        let names = conventions::LEVEL;
        let found =
            names.into_iter().find(|name| meant(members, name) > 0).or_else(|| names.into_iter().find(|name| is_text(members, name)));
        if let Some(name) = found {
            if severity == 0 {
                severity = meant(members, name);
            }
            if let Some(value) = members.find(name) {
                put_bytes(out, 3, &text(value).unwrap_or(Cow::Borrowed(value)));
            }
            members.take(name);
        }
    }
    if severity != 0 {
        put_varint(out, 2, i64::from(severity) as u64);
    }
}

fn put_body(members: &mut Members<'_>, is_ours: bool, depth_max: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
    let names = conventions::MESSAGE.into_iter().filter(|name| !is_ours || *name == "body");
    for name in names {
        // Only a body may be something else than text: `log` of ECS is an object with a level.
        let Some(value) = members.find(name).filter(|value| name == "body" || value.starts_with(b"\"")) else { continue };
        let at = open(out, 5);
        put_value(out, value, depth_max)?;
        close(out, at);
        members.take(if name == "body.stringValue" { "body" } else { name });
        return Ok(());
    }
    Ok(())
}

fn put_log_ids(members: &mut Members<'_>, out: &mut Vec<u8>) {
    let trace = conventions::TRACE_ID.into_iter().find_map(|name| Some((name, members.find(name).and_then(trace_id)?)));
    if let Some((name, id)) = trace {
        put_bytes(out, 9, &id);
        members.take(name);
    }
    let span = conventions::SPAN_ID.into_iter().find_map(|name| Some((name, members.find(name).and_then(id::<8>)?)));
    if let Some((name, id)) = span {
        put_bytes(out, 10, &id);
        members.take(name);
    }
}

/// GCP writes `projects/x/traces/<id>`.
fn trace_id(value: &[u8]) -> Option<Vec<u8>> {
    id::<16>(value).or_else(|| {
        let text = text(value)?;
        let at = memchr::memrchr(b'/', &text)?;
        hex::<16>(&text[at + 1..])
    })
}

/// Members of a JSON object, each name once.
#[derive(Clone, Debug, Default)]
pub struct Members<'a>(pub Pairs<'a>);

impl<'a> Members<'a> {
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(other, _)| other.as_ref() == name.as_bytes()).map(|(_, value)| *value)
    }

    /// Also of a path: `trace.id` is the member of that name, or `id` in the object `trace`.
    pub fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.get(name).or_else(|| {
            let (outer, inner) = name.split_once('.')?;
            Members(object(self.get(outer)?)?).get(inner)
        })
    }

    /// Takes a member of this very name; one of an object stays in it.
    pub fn take(&mut self, name: &str) -> Option<&'a [u8]> {
        let at = self.0.iter().position(|(other, _)| other.as_ref() == name.as_bytes())?;
        Some(self.0.remove(at).1)
    }

    /// Takes a member if its value can be read; else it stays, to become an attribute.
    pub fn take_if<T>(&mut self, name: &str, read: impl FnOnce(&'a [u8]) -> Option<T>) -> Option<T> {
        let value = read(self.get(name)?)?;
        self.take(name);
        Some(value)
    }

    /// Takes what says which scope it is, if that can be read.
    pub fn take_scope(&mut self) -> Members<'a> {
        let mut taken = Members(Vec::new());
        let is_scope = |value| {
            let known = ["name", "version", "attributes", "dropped_attributes_count"];
            object(value).filter(|members| members.iter().all(|(name, _)| known.iter().any(|known| known.as_bytes() == name.as_ref())))
        };
        if self.get("scope").and_then(is_scope).is_some()
            && let Some(value) = self.take("scope")
        {
            taken.0.push((Cow::Borrowed(b"scope"), value));
        }
        if self.get("scope_schema_url").and_then(text).is_some()
            && let Some(value) = self.take("scope_schema_url")
        {
            taken.0.push((Cow::Borrowed(b"scope_schema_url"), value));
        }
        taken
    }
}

/// The scope's message and schema.
fn scope_head(members: &mut Members<'_>, depth_max: usize) -> Result<Vec<u8>, Reason> {
    let mut head = Vec::new();
    if let Some(mut scope) = members.take_if("scope", |value| object(value).map(Members)) {
        let at = open(&mut head, 1);
        if let Some(name) = scope.take_if("name", text) {
            put_bytes(&mut head, 1, &name);
        }
        if let Some(version) = scope.take_if("version", text) {
            put_bytes(&mut head, 2, &version);
        }
        if let Some(count) = scope.take_if("dropped_attributes_count", count) {
            put_varint(&mut head, 4, u64::from(count));
        }
        put_attributes(&mut scope, 3, depth_max, &mut head)?;
        close(&mut head, at);
    }
    if let Some(address) = members.take_if("scope_schema_url", text) {
        put_bytes(&mut head, 3, &address);
    }
    Ok(head)
}

/// What `attributes` holds, and all members that are left.
pub fn put_attributes(members: &mut Members<'_>, number: u32, depth_max: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
    let inner = members.take_if("attributes", object).unwrap_or_default();
    let rest = std::mem::take(&mut members.0);
    put_pairs(out, number, &merge(inner, rest), depth_max)
}

/// Both lists; of a name in both the second counts.
fn merge<'a>(mut first: Pairs<'a>, second: Pairs<'a>) -> Pairs<'a> {
    if !first.is_empty() && !second.is_empty() {
        let names: HashSet<&[u8]> = second.iter().map(|(name, _)| name.as_ref()).collect();
        first.retain(|(name, _)| !names.contains(name.as_ref()));
    }
    first.extend(second);
    first
}

/// `KeyValue`s.
pub fn put_pairs(out: &mut Vec<u8>, number: u32, pairs: &[(Cow<'_, [u8]>, &[u8])], depth_max: usize) -> Result<(), Reason> {
    for (key, value) in pairs {
        let pair = open(out, number);
        put_bytes(out, 1, key);
        if *value != b"null" {
            let at = open(out, 2);
            put_value(out, value, depth_max)?;
            close(out, at);
        }
        close(out, pair);
    }
    Ok(())
}

/// An `AnyValue`; at most `depth` containers within each other.
pub fn put_value(out: &mut Vec<u8>, value: &[u8], depth: usize) -> Result<(), Reason> {
    match value.first() {
        Some(b'"') => put_bytes(out, 1, &text(value).ok_or(Reason::Value)?),
        Some(b't') => put_varint(out, 2, 1),
        Some(b'f') => put_varint(out, 2, 0),
        Some(b'n') | None => {}
        Some(b'{' | b'[') if depth == 0 => return Err(Reason::Depth),
        Some(b'{') => {
            let at = open(out, 6);
            put_pairs(out, 1, &object(value).ok_or(Reason::Value)?, (depth - 1).min(lines::DEPTH_MAX))?;
            close(out, at);
        }
        Some(b'[') => {
            let at = open(out, 5);
            for value in elements(value).ok_or(Reason::Value)? {
                let at = open(out, 1);
                put_value(out, value, (depth - 1).min(lines::DEPTH_MAX))?;
                close(out, at);
            }
            close(out, at);
        }
        Some(_) => put_number(out, str_of(value).ok_or(Reason::Value)?),
    }
    Ok(())
}

/// An integer, a double, or text for what is neither within its bits.
fn put_number(out: &mut Vec<u8>, token: &str) {
    if !token.contains(['.', 'e', 'E']) {
        match token.parse::<i64>() {
            Ok(number) => put_varint(out, 3, number as u64),
            Err(_) => put_bytes(out, 1, token.as_bytes()),
        }
        return;
    }
    match token.parse::<f64>() {
        Ok(number) if number.is_finite() => put_double(out, 4, number),
        _ => put_bytes(out, 1, token.as_bytes()),
    }
}

/// The bytes and the kind of a value, as `flow` has them.
fn raw(value: &[u8]) -> (&[u8], Kind) {
    match value {
        [b'"', inside @ .., b'"'] => (inside, if memchr::memchr(b'\\', inside).is_some() { Kind::Escaped } else { Kind::Text }),
        [b'-' | b'0'..=b'9', ..] => (value, Kind::Number),
        _ => (value, Kind::Null),
    }
}

pub fn text(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut cursor = Cursor::new(value);
    (cursor.peek() == Some(b'"')).then(|| cursor.string().ok())?.map(|raw| raw.decode())
}

pub fn str_of(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

pub fn count(value: &[u8]) -> Option<u32> {
    transcode::integer(str_of(value)?)?.try_into().ok()
}

pub fn object(value: &[u8]) -> Option<Pairs<'_>> {
    json::members(value).ok().flatten()
}

pub fn elements(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut cursor = Cursor::new(value);
    let (mut found, mut is_first) = (Vec::new(), true);
    if !cursor.open(b'[') {
        return None;
    }
    while cursor.element(&mut is_first).ok()? {
        found.push(cursor.skip().ok()?);
    }
    Some(found)
}

/// An array of objects only.
pub fn objects(value: &[u8]) -> Option<Vec<Members<'_>>> {
    elements(value)?.into_iter().map(|element| object(element).map(Members)).collect()
}

/// An id in hex that is not all zero.
pub fn id<const N: usize>(value: &[u8]) -> Option<Vec<u8>> {
    hex::<N>(&text(value)?)
}

fn hex<const N: usize>(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(N);
    let is_id = text.len() == 2 * N && hex_into(text, &mut bytes) && bytes.iter().any(|byte| *byte != 0);
    is_id.then_some(bytes)
}

/// Which of the names it is.
fn named(value: &[u8], names: &[&str]) -> Option<u64> {
    let text = text(value)?;
    names.iter().position(|name| name.as_bytes() == text.as_ref()).map(|at| at as u64)
}
