//! The walk over a request in protobuf, and what all lines have in common: resource and scope, attributes, values, refusals.
//!
//! In: a request's bytes. Out: lines appended to a buffer. Nothing is built in between: fields are written as they are found, the
//! text of a resource and of a scope is made once and copied into the line of each of their items. An item that is refused is cut off
//! again. A singular field that is there twice counts with its last value, also where it is a message.
//! Memory: the two texts and one entry for each attribute of the item at hand. Recursion: as deep as values may nest.

use super::text::{Clock, put_base64, put_hex, put_signed, put_string, put_unsigned};
use super::{Accepted, Options, Reason, Signal, logs, metrics, spans, transcode};
use crate::sample::put_double;
use crate::wire::{self, Field, Message};
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use std::collections::HashSet;

/// Deeper values do not fit in a record: `flow` reads 127 levels, of which a line uses a few for itself.
pub const DEPTH_MAX: usize = 100;

/// 1990-01-01 and 2101-01-01, as records have times.
const TIME_MIN: u64 = 631_152_000 * NANOS_PER_SECOND as u64;
const TIME_END: u64 = 4_133_980_800 * NANOS_PER_SECOND as u64;

/// Up to so many keys are compared each with each.
const FEW_KEYS: usize = 24;

pub enum Fault {
    /// The whole request.
    Malformed,
    /// This item.
    Item(Reason),
}

impl From<wire::Malformed> for Fault {
    fn from(_: wire::Malformed) -> Fault {
        Fault::Malformed
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Fault {
        Fault::Item(reason)
    }
}

/// The text of a resource or scope, with a comma in front; empty if nothing is known.
#[derive(Default)]
struct Shared {
    text: Vec<u8>,
    /// Its items are refused for it.
    fault: Option<Reason>,
    duplicates: u64,
}

type Pair<'a> = (&'a [u8], Option<&'a [u8]>);

/// Writes the lines of one request.
pub struct Lines<'a, 'o> {
    pub out: &'o mut Vec<u8>,
    pub options: &'o Options,
    pub clock: Clock,
    /// Attributes of the item, and on top of them of the value that is written.
    pub pairs: Vec<Pair<'a>>,
    /// Of a metric: everything before its resource.
    pub head: Vec<u8>,
    pub counts: Vec<u64>,
    pub bounds: Vec<f64>,
    pub accepted: Accepted,
    is_json: bool,
    start: usize,
    depth_max: usize,
    resource: Shared,
    scope: Shared,
    duplicates: u64,
    /// Resource, scope, metric, item.
    place: [usize; 4],
    signal: Signal,
}

/// Appends a line for each valid item. `is_json`: the bytes are transcoded, so items may be marked.
pub fn read(signal: Signal, body: &[u8], is_json: bool, options: &Options, out: &mut Vec<u8>) -> Result<Accepted, wire::Malformed> {
    let mut lines = Lines {
        start: out.len(),
        out,
        options,
        clock: Clock::default(),
        pairs: Vec::new(),
        head: Vec::new(),
        counts: Vec::new(),
        bounds: Vec::new(),
        accepted: Accepted::default(),
        is_json,
        depth_max: options.depth_max.min(DEPTH_MAX),
        resource: Shared::default(),
        scope: Shared::default(),
        duplicates: 0,
        place: [0; 4],
        signal,
    };
    lines.request(body)?;
    Ok(lines.accepted)
}

impl<'a> Lines<'a, '_> {
    fn request(&mut self, body: &'a [u8]) -> Result<(), wire::Malformed> {
        for field in Message::new(body) {
            if let (1, group) = field? {
                self.resource_group(group.bytes()?)?;
                self.place[0] += 1;
            }
        }
        Ok(())
    }

    /// `ResourceLogs`, `ResourceMetrics`, `ResourceSpans`: the resource is read first, wherever it stands.
    fn resource_group(&mut self, group: &'a [u8]) -> Result<(), wire::Malformed> {
        let (resource, schema_url) = head_of(group)?;
        self.put_resource(resource, schema_url)?;
        self.place[1] = 0;
        for field in Message::new(group) {
            if let (2, scope_group) = field? {
                self.scope_group(scope_group.bytes()?)?;
                self.place[1] += 1;
            }
        }
        Ok(())
    }

    /// `ScopeLogs`, `ScopeMetrics`, `ScopeSpans`.
    fn scope_group(&mut self, group: &'a [u8]) -> Result<(), wire::Malformed> {
        let (scope, schema_url) = head_of(group)?;
        self.put_scope(scope, schema_url)?;
        self.place[2] = 0;
        self.place[3] = 0;
        for field in Message::new(group) {
            let (2, item) = field? else { continue };
            let item = item.bytes()?;
            match self.signal {
                Signal::Logs => self.item(|lines| logs::put(lines, item))?,
                Signal::Traces => self.item(|lines| spans::put(lines, item))?,
                Signal::Metrics => {
                    metrics::put(self, item)?;
                    self.place[2] += 1;
                    self.place[3] = 0;
                }
            }
        }
        Ok(())
    }

    /// Writes one item's line, or counts why not.
    #[inline]
    pub fn item(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Fault>) -> Result<(), wire::Malformed> {
        let start = self.out.len();
        self.pairs.clear();
        self.duplicates = self.resource.duplicates + self.scope.duplicates;
        let written = match self.fault_before() {
            Some(reason) => Err(Fault::Item(reason)),
            None => write(self).and_then(|()| self.check_length(start)),
        };
        match written {
            Ok(()) => {
                self.accepted.items += 1;
                self.accepted.duplicates += self.duplicates;
                self.place[3] += 1;
            }
            Err(Fault::Item(reason)) => {
                self.out.truncate(start);
                self.reject(reason);
            }
            Err(Fault::Malformed) => return Err(wire::Malformed),
        }
        Ok(())
    }

    /// What can be said before the line is written: large texts are not copied in vain.
    fn fault_before(&self) -> Option<Reason> {
        let shared = self.resource.text.len() + self.scope.text.len() + self.head.len();
        let length = (shared > self.options.line_bytes_max).then_some(Reason::LineBytes);
        let total = (self.out.len() - self.start + shared > self.options.bytes_max).then_some(Reason::BodyBytes);
        self.resource.fault.or(self.scope.fault).or(length).or(total)
    }

    fn check_length(&self, start: usize) -> Result<(), Fault> {
        if self.out.len() - start > self.options.line_bytes_max {
            return Err(Fault::Item(Reason::LineBytes));
        }
        if self.out.len() - self.start > self.options.bytes_max {
            return Err(Fault::Item(Reason::BodyBytes));
        }
        Ok(())
    }

    /// Counts one refused item, and goes to the next.
    #[cold]
    pub fn reject(&mut self, reason: Reason) {
        match self.accepted.rejected.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, count)) => *count += 1,
            None => self.accepted.rejected.push((reason, 1)),
        }
        if self.accepted.first.is_none() {
            let [resource, scope, metric, item] = self.place;
            let place = match self.signal {
                Signal::Logs => format!("resourceLogs[{resource}].scopeLogs[{scope}].logRecords[{item}]"),
                Signal::Traces => format!("resourceSpans[{resource}].scopeSpans[{scope}].spans[{item}]"),
                Signal::Metrics if reason == Reason::NoData => {
                    format!("resourceMetrics[{resource}].scopeMetrics[{scope}].metrics[{metric}]")
                }
                Signal::Metrics => format!("resourceMetrics[{resource}].scopeMetrics[{scope}].metrics[{metric}].dataPoints[{item}]"),
            };
            self.accepted.first = Some(format!("{place}: {}", reason.rule()));
        }
        self.place[3] += 1;
    }

    /// A field that the item does not have: the mark of the transcoder says why the item is refused.
    pub fn other(&self, number: u32, field: Field<'_>) -> Result<(), Fault> {
        if number == transcode::MARK && self.is_json {
            let index = field.varint()? as usize;
            return Err(Fault::Item(Reason::ALL.get(index).copied().unwrap_or(Reason::Value)));
        }
        Ok(())
    }

    fn put_resource(&mut self, resource: Option<&'a [u8]>, schema_url: &'a [u8]) -> Result<(), wire::Malformed> {
        let shared = self.shared(|lines| {
            let dropped = lines.gather(resource.unwrap_or_default(), 1, 2)?;
            lines.put_attributes(b",\"resource\":", 0)?;
            lines.put_count(b",\"resource_dropped_attributes_count\":", dropped);
            lines.put_text(b",\"resource_schema_url\":", schema_url)
        })?;
        self.resource = shared;
        Ok(())
    }

    fn put_scope(&mut self, scope: Option<&'a [u8]>, schema_url: &'a [u8]) -> Result<(), wire::Malformed> {
        let shared = self.shared(|lines| {
            let scope = scope.unwrap_or_default();
            let (mut name, mut version) = (&b""[..], &b""[..]);
            for field in Message::new(scope) {
                match field? {
                    (1, field) => name = field.bytes()?,
                    (2, field) => version = field.bytes()?,
                    _ => {}
                }
            }
            let dropped = lines.gather(scope, 3, 4)?;
            if !(name.is_empty() && version.is_empty() && lines.pairs.is_empty() && dropped == 0) {
                let start = lines.out.len();
                lines.put_text(b",\"name\":", name)?;
                lines.put_text(b",\"version\":", version)?;
                lines.put_attributes(b",\"attributes\":", 0)?;
                lines.put_count(b",\"dropped_attributes_count\":", dropped);
                lines.wrap(b",\"scope\":{", start);
                lines.out.push(b'}');
            }
            lines.put_text(b",\"scope_schema_url\":", schema_url)
        })?;
        self.scope = shared;
        Ok(())
    }

    /// Puts `before` where the comma at `start` stands.
    fn wrap(&mut self, before: &[u8], start: usize) {
        self.out.splice(start..=start, before.iter().copied());
    }

    /// Takes off `out` again what `write` appended.
    fn shared(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Fault>) -> Result<Shared, wire::Malformed> {
        let start = self.out.len();
        self.pairs.clear();
        self.duplicates = 0;
        let fault = match write(self) {
            Ok(()) => None,
            Err(Fault::Item(reason)) => Some(reason),
            Err(Fault::Malformed) => return Err(wire::Malformed),
        };
        let text = if fault.is_none() { self.out[start..].to_vec() } else { Vec::new() };
        self.out.truncate(start);
        Ok(Shared { text, fault, duplicates: self.duplicates })
    }

    /// Attributes and the count of those dropped, of a message that has nothing else to read.
    fn gather(&mut self, message: &'a [u8], attributes: u32, dropped: u32) -> Result<u64, Fault> {
        let mut count = 0;
        for field in Message::new(message) {
            match field? {
                (number, field) if number == attributes => self.add_pair(field)?,
                (number, field) if number == dropped => count = u64::from(field.varint()? as u32),
                _ => {}
            }
        }
        Ok(count)
    }

    #[inline]
    pub fn put_shared(&mut self) {
        self.out.extend_from_slice(&self.resource.text);
        self.out.extend_from_slice(&self.scope.text);
    }

    /// `before` and a string, unless it is empty.
    #[inline]
    pub fn put_text(&mut self, before: &[u8], text: &[u8]) -> Result<(), Fault> {
        if !text.is_empty() {
            self.out.extend_from_slice(before);
            put_string(self.out, text)?;
        }
        Ok(())
    }

    /// `before` and a number, unless it is zero.
    #[inline]
    pub fn put_count(&mut self, before: &[u8], count: u64) {
        if count > 0 {
            self.out.extend_from_slice(before);
            put_unsigned(self.out, count);
        }
    }

    /// `before` and a time, unless there is none.
    #[inline]
    pub fn put_time(&mut self, before: &[u8], at: Option<UnixNanos>) {
        if let Some(at) = at {
            self.out.extend_from_slice(before);
            self.out.push(b'"');
            self.clock.put(self.out, at);
            self.out.push(b'"');
        }
    }

    /// `before` and an id in hex, unless it is absent or all zero.
    #[inline]
    pub fn put_id(&mut self, before: &[u8], id: Option<&[u8]>) {
        if let Some(id) = id {
            self.out.extend_from_slice(before);
            self.out.push(b'"');
            put_hex(self.out, id);
            self.out.push(b'"');
        }
    }

    /// Takes up a `KeyValue`.
    #[inline]
    pub fn add_pair(&mut self, field: Field<'a>) -> Result<(), Fault> {
        let (mut key, mut value) = (&b""[..], None);
        for field in field.message()? {
            match field? {
                (1, field) => key = field.bytes()?,
                (2, field) => value = Some(field.bytes()?),
                _ => {}
            }
        }
        self.pairs.push((key, value));
        Ok(())
    }

    /// `before` and the pairs from `base` on as an object, unless there are none.
    #[inline]
    pub fn put_attributes(&mut self, before: &[u8], base: usize) -> Result<(), Fault> {
        if self.pairs.len() == base {
            return Ok(());
        }
        self.out.extend_from_slice(before);
        self.put_object(base, 0)
    }

    /// The pairs from `base` on as an object; they are taken off.
    pub fn put_object(&mut self, base: usize, depth: usize) -> Result<(), Fault> {
        if has_duplicates(&self.pairs[base..]) {
            self.keep_last(base);
        }
        self.out.push(b'{');
        for n in base..self.pairs.len() {
            let (key, value) = self.pairs[n];
            if n > base {
                self.out.push(b',');
            }
            put_string(self.out, key)?;
            self.out.push(b':');
            self.put_any(value, depth)?;
        }
        self.out.push(b'}');
        self.pairs.truncate(base);
        Ok(())
    }

    #[cold]
    fn keep_last(&mut self, base: usize) {
        let mut seen = HashSet::new();
        let mut kept: Vec<Pair<'a>> = self.pairs[base..].iter().rev().filter(|(key, _)| seen.insert(*key)).copied().collect();
        kept.reverse();
        self.duplicates += (self.pairs.len() - base - kept.len()) as u64;
        self.pairs.truncate(base);
        self.pairs.append(&mut kept);
    }

    /// An `AnyValue`; `depth` containers are around it.
    pub fn put_any(&mut self, value: Option<&'a [u8]>, depth: usize) -> Result<(), Fault> {
        let mut last = None;
        for field in Message::new(value.unwrap_or_default()) {
            let (number, field) = field?;
            if (1..=7).contains(&number) {
                last = Some((number, field));
            }
        }
        match last {
            None => self.out.extend_from_slice(b"null"),
            Some((1, field)) => put_string(self.out, field.bytes()?)?,
            Some((2, field)) => self.out.extend_from_slice(if field.varint()? == 0 { b"false" } else { b"true" }),
            Some((3, field)) => put_signed(self.out, field.varint()? as i64),
            Some((4, field)) => put_double(self.out, field.double()?),
            Some((7, field)) => {
                self.out.push(b'"');
                put_base64(self.out, field.bytes()?);
                self.out.push(b'"');
            }
            Some(_) if depth >= self.depth_max => return Err(Fault::Item(Reason::Depth)),
            Some((5, field)) => self.put_array(field, depth + 1)?,
            Some((_, field)) => {
                let base = self.pairs.len();
                for field in field.message()? {
                    if let (1, pair) = field? {
                        self.add_pair(pair)?;
                    }
                }
                self.put_object(base, depth + 1)?;
            }
        }
        Ok(())
    }

    fn put_array(&mut self, array: Field<'a>, depth: usize) -> Result<(), Fault> {
        self.out.push(b'[');
        let mut is_first = true;
        for field in array.message()? {
            let (1, value) = field? else { continue };
            if !std::mem::replace(&mut is_first, false) {
                self.out.push(b',');
            }
            self.put_any(Some(value.bytes()?), depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// The line's first comma becomes its brace, and it ends.
    #[inline]
    pub fn end_line(&mut self, start: usize) {
        match self.out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.extend_from_slice(b"}\n");
    }
}

/// The resource or scope of a group, and its schema's address.
fn head_of(group: &[u8]) -> Result<(Option<&[u8]>, &[u8]), wire::Malformed> {
    let (mut head, mut schema_url) = (None, &b""[..]);
    for field in Message::new(group) {
        match field? {
            (1, field) => head = Some(field.bytes()?),
            (3, field) => schema_url = field.bytes()?,
            _ => {}
        }
    }
    Ok((head, schema_url))
}

#[inline]
fn has_duplicates(pairs: &[Pair<'_>]) -> bool {
    if pairs.len() > FEW_KEYS {
        let mut seen = HashSet::with_capacity(pairs.len());
        return !pairs.iter().all(|(key, _)| seen.insert(*key));
    }
    let is_same = |a: &[u8], b: &[u8]| a.len() == b.len() && a.last() == b.last() && a == b;
    pairs.iter().enumerate().any(|(n, (key, _))| pairs[..n].iter().any(|(other, _)| is_same(other, key)))
}

/// 0 is no time.
#[inline]
pub fn time(nanos: u64) -> Result<Option<UnixNanos>, Fault> {
    match nanos {
        0 => Ok(None),
        TIME_MIN..TIME_END => Ok(Some(UnixNanos(nanos as i64))),
        _ => Err(Fault::Item(Reason::Time)),
    }
}

/// An id that may be absent: empty or all zero.
#[inline]
pub fn optional_id<const N: usize>(id: &[u8], reason: Reason) -> Result<Option<&[u8]>, Fault> {
    match id.len() {
        0 => Ok(None),
        len if len != N => Err(Fault::Item(reason)),
        _ => Ok(id.iter().any(|byte| *byte != 0).then_some(id)),
    }
}

pub fn required_id<const N: usize>(id: &[u8], reason: Reason) -> Result<&[u8], Fault> {
    optional_id::<N>(id, reason)?.ok_or(Fault::Item(reason))
}
