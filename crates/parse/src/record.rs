//! One record being written: a line's fields, each with its type, its decoders, or the line's time.
//!
//! In: fields as a format finds them. Out: `"name":value,` for each behind the `{` that the caller wrote, and the time.
//! Memory: what decoders make is at most `DECODED_RATIO` times the line and `DECODED_BYTES` more; beyond, fields stay as
//! they are. Everything else is at most six bytes for each of the line, and the names.

use crate::decode::{Decoded, Value, unescape, write_value};
use crate::definition::{Decode, Definition, Type};
use crate::emit::{Key, write_key, write_string};
use crate::json;
use crate::pattern::{Slot, States};
use crate::time::{TimeCache, TimeFormat};
use crate::types::write_typed;

const DECODED_RATIO: usize = 4; // several decoders may each keep what a field holds
const DECODED_BYTES: usize = 64 << 10; // short lines have room as well

/// What parsers need again and again; one per lane, for any number of parsers.
#[derive(Default)]
pub struct Scratch {
    pub(crate) times: TimeCache,
    pub(crate) slots: Vec<Slot>,
    pub(crate) states: States,
    /// A value or name without its escapes.
    pub(crate) text: Vec<u8>,
    decoded: Decoded,
}

/// What is done with a field.
pub struct Rule {
    name: Box<[u8]>,
    key: Key,
    kind: Type,
    is_time: bool,
    decoders: Box<[Decode]>,
    /// Copied as text: no type, no decoder, no time.
    is_plain: bool,
}

impl Rule {
    fn new(name: &str, definition: &Definition, time: Option<&str>) -> Rule {
        let kind = definition.types.iter().find(|(field, _)| field == name).map_or(Type::String, |(_, kind)| *kind);
        let decoders: Box<[Decode]> = definition.decode.iter().filter(|decode| decode.field == name).cloned().collect();
        let is_time = time == Some(name);
        let is_plain = kind == Type::String && decoders.is_empty() && !is_time;
        Rule { name: name.as_bytes().into(), key: Key::new(name.as_bytes()), kind, is_time, decoders, is_plain }
    }
}

/// What is done with the fields of a parser.
pub struct Plan {
    /// Fields that the format has, in its order.
    slots: Vec<Rule>,
    /// Those of fields whose names the lines bring that are more than text.
    named: Vec<Rule>,
    /// How times are written; a format that has several ways says which one a line has.
    times: Vec<TimeFormat>,
    keep_time: bool,
    /// A time that cannot be read stays a field.
    keep_failed: bool,
}

impl Plan {
    /// `fields`: those that the format has. `times`: how it writes them, none if lines have no time.
    pub fn new(definition: &Definition, fields: &[impl AsRef<str>], times: Vec<TimeFormat>, keep_failed: bool) -> Plan {
        let time = (!times.is_empty()).then(|| definition.time.key.as_deref().unwrap_or("time"));
        let rule = |name: &str| Rule::new(name, definition, time);
        let known = |name: &str| fields.iter().any(|field| field.as_ref() == name);
        let of_types = definition.types.iter().map(|(name, _)| name.as_str());
        let mut names: Vec<&str> = of_types.chain(definition.decode.iter().map(|d| d.field.as_str())).chain(time).collect();
        names.sort_unstable();
        names.dedup();
        Plan {
            slots: fields.iter().map(|name| rule(name.as_ref())).collect(),
            named: names.into_iter().filter(|name| !known(name)).map(rule).collect(),
            times,
            keep_time: definition.time.keep,
            keep_failed,
        }
    }

    /// Whether every field whose name a line brings is copied as it stands.
    pub fn copies_names(&self) -> bool {
        self.named.is_empty()
    }
}

pub struct Record<'a> {
    plan: &'a Plan,
    arrival_ns: i64,
    pub scratch: &'a mut Scratch,
    pub out: &'a mut Vec<u8>,
    pub time_ns: Option<i64>,
    /// Which way of writing times this line has.
    pub time_format: usize,
    allowance: usize,
}

impl<'a> Record<'a> {
    pub fn new(plan: &'a Plan, line: &[u8], arrival_ns: i64, scratch: &'a mut Scratch, out: &'a mut Vec<u8>) -> Record<'a> {
        let allowance = line.len() * DECODED_RATIO + DECODED_BYTES;
        Record { plan, arrival_ns, scratch, out, time_ns: None, time_format: 0, allowance }
    }

    /// A field that the format has.
    #[inline]
    pub fn text(&mut self, slot: usize, value: &[u8]) {
        let rule = &self.plan.slots[slot];
        if !rule.is_plain {
            return self.apply(rule, value);
        }
        rule.key.write_member(self.out, value);
    }

    /// A field of the format that is a number where it has only digits, unless it has a type of its own.
    #[inline]
    pub fn number(&mut self, slot: usize, digits: &[u8]) {
        let rule = &self.plan.slots[slot];
        if !rule.is_plain || !is_number(digits) {
            return self.text(slot, digits);
        }
        rule.key.write(self.out);
        self.out.extend_from_slice(digits);
        self.out.push(b',');
    }

    /// Begins a field of the format whose value the caller writes, with the comma.
    pub fn begin(&mut self, slot: usize) {
        self.plan.slots[slot].key.write(self.out);
    }

    /// A field whose name the line brings.
    #[inline]
    pub fn named(&mut self, name: &[u8], value: &[u8]) {
        if let Some(rule) = self.rule(name) {
            return self.apply(rule, value);
        }
        write_key(self.out, name);
        write_string(self.out, value);
        self.out.push(b',');
    }

    /// The same for a value that is not there: it is true.
    pub fn named_true(&mut self, name: &[u8]) {
        write_key(self.out, name);
        self.out.extend_from_slice(b"true,");
    }

    /// The same for name and value as JSON has them, the name without its quotes.
    pub fn member(&mut self, name: &[u8], value: &[u8]) {
        let Some(rule) = self.rule(name) else { return self.copy(name, value) };
        match json::string(value) {
            Some(inside) => self.unescaped(inside, |record, text| record.apply(rule, text)),
            None if rule.is_time && self.take_time(value) => {}
            None => self.copy(name, value),
        }
    }

    #[inline]
    fn rule(&self, name: &[u8]) -> Option<&'a Rule> {
        let plan: &'a Plan = self.plan;
        plan.named.iter().find(|rule| *rule.name == *name)
    }

    fn copy(&mut self, name: &[u8], value: &[u8]) {
        self.out.push(b'"');
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b"\":");
        self.out.extend_from_slice(value);
        self.out.push(b',');
    }

    /// Calls `then` with text whose escapes, if any, are replaced.
    pub fn unescaped(&mut self, text: &[u8], then: impl FnOnce(&mut Self, &[u8])) {
        if memchr::memchr(b'\\', text).is_none() {
            return then(self, text);
        }
        let mut buffer = std::mem::take(&mut self.scratch.text);
        buffer.clear();
        unescape(text, &mut buffer, true);
        then(self, &buffer);
        self.scratch.text = buffer;
    }

    /// A field that is more than text.
    fn apply(&mut self, rule: &Rule, value: &[u8]) {
        if rule.is_time && self.take_time(value) {
            return;
        }
        if rule.kind == Type::String && !rule.decoders.is_empty() {
            return self.decode(rule, value);
        }
        rule.key.write(self.out);
        write_typed(self.out, value, rule.kind);
        self.out.push(b',');
    }

    /// Reads the line's time; true: it is no field.
    fn take_time(&mut self, value: &[u8]) -> bool {
        let format = self.plan.times.get(self.time_format).expect("a field is the time only where there is a format");
        match format.parse(value, self.arrival_ns, &mut self.scratch.times) {
            Some(ns) => {
                self.time_ns = Some(ns);
                !self.plan.keep_time
            }
            None => !self.plan.keep_failed,
        }
    }

    fn decode(&mut self, rule: &Rule, value: &[u8]) {
        let mut decoded = std::mem::take(&mut self.scratch.decoded);
        decoded.run(&rule.decoders, value, &mut self.allowance);
        rule.key.write(self.out);
        match decoded.value {
            Value::Unchanged => write_string(self.out, value),
            Value::Text | Value::Json => write_value(self.out, &decoded),
        }
        self.out.push(b',');
        self.out.extend_from_slice(&decoded.members);
        self.scratch.decoded = decoded;
    }
}

/// Digits that JSON takes for a number and that fit 64 bits.
fn is_number(digits: &[u8]) -> bool {
    let fits = matches!(digits.len(), 1..=18) && (digits[0] != b'0' || digits.len() == 1);
    fits && digits.iter().all(u8::is_ascii_digit)
}
