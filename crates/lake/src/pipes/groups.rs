//! Groups of records and what is known of each: the heart of `stats`, `top` and `timechart`.
//!
//! In: for each record the values it is grouped by and those that functions look at; out: a row for each group.
//! A group is found by bytes without allocation. Memory is counted by content, not by capacity, so that where
//! the bound is reached does not depend on order: then percentiles and `uniq` become sketches, all at once, and if
//! that is not enough the groups are too many, which is an error.

use super::distinct::Distinct;
use super::number::{Num, Number, Sum};
use super::percentile::Values;
use super::table::Cell;
use crate::query::{Call, Function};
use flow::units::UnixNanos;
use hashbrown::HashMap;
use std::cmp::Ordering;
use std::io::Write;

/// A value of one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Text(&'a [u8]),
    Whole(i128),
    /// The number that the float's shortest text means.
    Float(f64),
    Time(i64),
}

impl Value<'_> {
    fn num(self) -> Option<Num> {
        match self {
            Value::Text(text) => Num::parse(text),
            Value::Whole(n) => Some(Num::Exact(Number::new(n, 0))),
            Value::Float(value) => Some(Num::of_float(value)),
            Value::Null | Value::Time(_) => None,
        }
    }

    /// The value as text; `buffer` holds it if it has to be written.
    fn text<'b>(&'b self, buffer: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        buffer.clear();
        match self {
            Value::Null => return None,
            Value::Text(text) => return Some(text),
            Value::Whole(n) => {
                let _ = write!(buffer, "{n}"); // memory does not refuse a write
            }
            Value::Float(value) => crate::logs::numbers::write_number(*value, buffer),
            Value::Time(time) => buffer.extend_from_slice(UnixNanos(*time).rfc3339().as_bytes()),
        }
        Some(buffer)
    }

    /// Appends what tells it from every other value.
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.push(0),
            Value::Text(text) => {
                out.push(1);
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text);
            }
            Value::Float(value) => {
                let mut text = Vec::new();
                crate::logs::numbers::write_number(*value, &mut text);
                Value::Text(&text).encode(out);
            }
            Value::Whole(n) => {
                out.push(2);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Value::Time(time) => {
                out.push(3);
                out.extend_from_slice(&time.to_le_bytes());
            }
        }
    }
}

/// Takes the first value off an encoded key.
fn decode(key: &mut &[u8]) -> Option<Cell> {
    let (tag, rest) = key.split_first()?;
    let (cell, rest) = match tag {
        0 => (Cell::Null, rest),
        1 => {
            let (len, rest) = rest.split_first_chunk()?;
            let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            (Cell::of_text(text), rest)
        }
        2 => {
            let (n, rest) = rest.split_first_chunk()?;
            (Cell::Int(i128::from_le_bytes(*n)), rest)
        }
        _ => {
            let (n, rest) = rest.split_first_chunk()?;
            (Cell::Time(UnixNanos(i64::from_le_bytes(*n))), rest)
        }
    };
    *key = rest;
    Some(cell)
}

/// What is known of one group for one call.
#[derive(Clone, Debug)]
enum State {
    Count(u64),
    Weight(u128),
    Sum(Box<Sum>),
    Extreme(Box<Extreme>),
    Percentile(Box<Values>),
    Uniq(Box<Distinct>),
}

/// The least or the greatest value: of numbers if there are some, else of times, else of texts.
#[derive(Clone, Debug, Default)]
struct Extreme {
    number: Option<Num>,
    time: Option<i64>,
    /// The first [`TEXT_MAX`] bytes.
    text: Option<Box<[u8]>>,
}

/// Texts are compared by so many bytes in `min` and `max`.
const TEXT_MAX: usize = 256;
/// What a group costs beside its key and states: its place in two tables.
const GROUP_BYTES: usize = 64;

impl Extreme {
    fn number(&mut self, num: Num, wanted: Ordering) {
        if self.number.is_none_or(|own| num.compare(own) == wanted) {
            self.number = Some(num);
        }
    }

    fn time(&mut self, time: i64, wanted: Ordering) {
        if self.time.is_none_or(|own| time.cmp(&own) == wanted) {
            self.time = Some(time);
        }
    }

    fn text(&mut self, text: &[u8], wanted: Ordering) {
        let text = &text[..text.len().min(TEXT_MAX)];
        if self.text.as_ref().is_none_or(|own| text.cmp(own) == wanted) {
            self.text = Some(text.into());
        }
    }

    fn cell(&self) -> Cell {
        match (self.number, self.time, &self.text) {
            (Some(num), _, _) => num.cell(),
            (_, Some(time), _) => Cell::Time(UnixNanos(time)),
            (_, _, Some(text)) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
            _ => Cell::Null,
        }
    }
}

impl State {
    fn new(function: Function, sketched: bool) -> State {
        match function {
            Function::Count => State::Count(0),
            Function::Weight => State::Weight(0),
            Function::Sum | Function::Avg => State::Sum(Box::default()),
            Function::Min | Function::Max => State::Extreme(Box::default()),
            Function::Percentile(_) => State::Percentile(Box::new(Values::new(sketched))),
            Function::Uniq => State::Uniq(Box::new(Distinct::new(sketched))),
        }
    }

    fn add(&mut self, call: &Call, value: Value<'_>, weight: u32, buffer: &mut Vec<u8>) {
        match self {
            State::Count(n) => *n += u64::from(call.field.is_none() || value != Value::Null),
            State::Weight(n) => *n += u128::from(weight),
            State::Sum(sum) => value.num().into_iter().for_each(|num| sum.add(num)),
            State::Extreme(extreme) => {
                let wanted = wanted(call.function);
                match (value, value.num()) {
                    (_, Some(num)) => extreme.number(num, wanted),
                    (Value::Time(time), None) => extreme.time(time, wanted),
                    (Value::Text(text), None) => extreme.text(text, wanted),
                    (_, None) => {}
                }
            }
            State::Percentile(values) => match value {
                Value::Float(value) => values.add_float(value),
                value => value.num().into_iter().for_each(|num| values.add(num)),
            },
            State::Uniq(distinct) => value.text(buffer).into_iter().for_each(|text| distinct.add(text)),
        }
    }

    fn merge(&mut self, other: State, function: Function) {
        match (self, other) {
            (State::Count(own), State::Count(other)) => *own += other,
            (State::Weight(own), State::Weight(other)) => *own += other,
            (State::Sum(own), State::Sum(other)) => own.merge(&other),
            (State::Extreme(own), State::Extreme(other)) => {
                let wanted = wanted(function);
                other.number.into_iter().for_each(|num| own.number(num, wanted));
                other.time.into_iter().for_each(|time| own.time(time, wanted));
                other.text.iter().for_each(|text| own.text(text, wanted));
            }
            (State::Percentile(own), State::Percentile(other)) => own.merge(*other),
            (State::Uniq(own), State::Uniq(other)) => own.merge(*other),
            _ => {} // the states of one call have one kind
        }
    }

    fn sketch(&mut self) {
        match self {
            State::Percentile(values) => values.sketch(),
            State::Uniq(distinct) => distinct.sketch(),
            _ => {}
        }
    }

    /// Bytes beyond its own size, as they are at most where they change back and forth.
    fn cost(&self) -> usize {
        match self {
            State::Count(_) | State::Weight(_) => 0,
            State::Sum(_) => 160,
            State::Extreme(_) => size_of::<Extreme>() + TEXT_MAX,
            State::Percentile(values) => size_of::<Values>() + values.cost(),
            State::Uniq(distinct) => size_of::<Distinct>() + distinct.cost(),
        }
    }

    fn cell(&self, function: Function) -> Cell {
        match self {
            State::Count(n) => Cell::Int(i128::from(*n)),
            State::Weight(n) => Cell::Int(i128::try_from(*n).unwrap_or(i128::MAX)),
            State::Sum(sum) if function == Function::Avg => sum.average().map_or(Cell::Null, Num::cell),
            State::Sum(sum) => sum.total().map_or(Cell::Null, Num::cell),
            State::Extreme(extreme) => extreme.cell(),
            State::Percentile(values) => match function {
                Function::Percentile(thousandths) => values.at(thousandths).map_or(Cell::Null, Num::cell),
                _ => Cell::Null,
            },
            State::Uniq(distinct) => Cell::Int(i128::from(distinct.count())),
        }
    }
}

fn wanted(function: Function) -> Ordering {
    if function == Function::Min { Ordering::Less } else { Ordering::Greater }
}

#[derive(Clone)]
pub(crate) struct Groups {
    pub(crate) calls: Vec<Call>,
    map: HashMap<Box<[u8]>, u32>,
    /// Of each group one for each call.
    states: Vec<State>,
    /// Bytes, by content.
    cost: usize,
    cost_max: usize,
    pub(crate) sketched: bool,
    key: Vec<u8>,
    buffer: Vec<u8>,
}

impl Groups {
    pub(crate) fn new(calls: &[Call], cost_max: usize) -> Groups {
        Groups {
            calls: calls.to_vec(),
            map: HashMap::new(),
            states: Vec::new(),
            cost: 0,
            cost_max,
            sketched: false,
            key: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// `by`: what it is grouped by; `inputs`: one value for each call.
    pub(crate) fn add<'a>(
        &mut self,
        by: impl Iterator<Item = Value<'a>>,
        inputs: impl Iterator<Item = Value<'a>>,
        weight: u32,
    ) -> anyhow::Result<()> {
        self.key.clear();
        by.for_each(|value| value.encode(&mut self.key));
        let first = self.find();
        for ((call, value), state) in self.calls.iter().zip(inputs).zip(&mut self.states[first..]) {
            // Only these grow with each record.
            let grows = matches!(state, State::Percentile(_) | State::Uniq(_));
            let before = if grows { state.cost() } else { 0 };
            state.add(call, value, weight, &mut self.buffer);
            if grows {
                self.cost += state.cost() - before;
            }
        }
        self.bound()
    }

    /// The group of a value of each column that it is grouped by; it is made if it is new.
    pub(crate) fn group<'a>(&mut self, by: impl Iterator<Item = Value<'a>>) -> usize {
        self.key.clear();
        by.for_each(|value| value.encode(&mut self.key));
        self.find() / self.calls.len().max(1)
    }

    /// Adds many records to one call: the group, the value and the weight of each. Then the bound has to be looked at.
    pub(crate) fn add_all<'a>(&mut self, call: usize, records: impl Iterator<Item = (usize, Value<'a>, u32)>) {
        let width = self.calls.len();
        let function = self.calls[call].function;
        let mut grown = 0;
        for (group, value, weight) in records {
            let state = &mut self.states[group * width + call];
            match (state, value) {
                (State::Percentile(values), Value::Float(value)) if !self.sketched => {
                    values.add_float(value);
                    grown += size_of::<f64>();
                }
                (state, value) => {
                    // Only these grow with each record.
                    let before = if matches!(function, Function::Percentile(_) | Function::Uniq) { state.cost() } else { 0 };
                    state.add(&self.calls[call], value, weight, &mut self.buffer);
                    if before > 0 {
                        grown += state.cost() - before;
                    }
                }
            }
        }
        self.cost += grown;
    }

    /// The first state of the group in `key`; it is made if it is new.
    fn find(&mut self) -> usize {
        if let Some(group) = self.map.get(self.key.as_slice()) {
            return *group as usize * self.calls.len();
        }
        let group = self.map.len();
        self.map.insert(self.key.as_slice().into(), group as u32);
        self.cost += GROUP_BYTES + self.key.len();
        for call in &self.calls {
            let state = State::new(call.function, self.sketched);
            self.cost += size_of::<State>() + state.cost();
            self.states.push(state);
        }
        group * self.calls.len()
    }

    /// Where too much is kept, percentiles and the like become estimates; where that is not enough, it is an error.
    pub(crate) fn bound(&mut self) -> anyhow::Result<()> {
        if self.cost <= self.cost_max {
            return Ok(());
        }
        if !self.sketched && self.calls.iter().any(|call| matches!(call.function, Function::Percentile(_) | Function::Uniq)) {
            self.sketch();
        }
        if self.cost > self.cost_max {
            crate::unanswerable!(
                "{} groups take more than the {} bytes that this query may use\n  help: add a filter or a shorter time, or group by fields with fewer values",
                self.map.len(),
                self.cost_max
            );
        }
        Ok(())
    }

    fn sketch(&mut self) {
        self.sketched = true;
        let before: usize = self.states.iter().map(State::cost).sum();
        self.states.iter_mut().for_each(State::sketch);
        let after: usize = self.states.iter().map(State::cost).sum();
        self.cost = self.cost - before + after;
    }

    pub(crate) fn merge(&mut self, other: Groups) -> anyhow::Result<()> {
        self.merge_as(other, |key, out| out.extend_from_slice(key))
    }

    /// As `merge`, with other keys: `rename` appends the new one.
    pub(crate) fn merge_as(&mut self, mut other: Groups, rename: impl Fn(&[u8], &mut Vec<u8>)) -> anyhow::Result<()> {
        if self.sketched && !other.sketched {
            other.sketch();
        } else if other.sketched && !self.sketched {
            self.sketch();
        }
        let width = self.calls.len();
        let mut states: Vec<Option<State>> = other.states.into_iter().map(Some).collect();
        for (key, group) in &other.map {
            self.key.clear();
            rename(key, &mut self.key);
            let first = self.find();
            for i in 0..width {
                let Some(more) = states[*group as usize * width + i].take() else { continue };
                let state = &mut self.states[first + i];
                let before = state.cost();
                state.merge(more, self.calls[i].function);
                self.cost = self.cost + state.cost() - before;
            }
            self.bound()?;
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// A row for each group: what it is grouped by, then the calls; sorted by the first.
    pub(crate) fn rows(&self, width: usize) -> Vec<Vec<Cell>> {
        let mut rows: Vec<Vec<Cell>> = self
            .map
            .iter()
            .map(|(key, group)| {
                let mut key = &key[..];
                let mut row: Vec<Cell> = (0..width).map(|_| decode(&mut key).unwrap_or(Cell::Null)).collect();
                let first = *group as usize * self.calls.len();
                row.extend(self.calls.iter().zip(&self.states[first..]).map(|(call, state)| state.cell(call.function)));
                row
            })
            .collect();
        let keys: Vec<(usize, bool)> = (0..width + self.calls.len()).map(|at| (at, false)).collect();
        rows.sort_by(|a, b| super::table::compare_rows(a, b, &keys));
        rows
    }

    /// What the calls give for no record at all.
    pub(crate) fn nothing(&self) -> Vec<Cell> {
        self.calls.iter().map(|call| State::new(call.function, false).cell(call.function)).collect()
    }

    /// What the reader has to know.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let has = |test: fn(&Function) -> bool| self.calls.iter().any(|call| test(&call.function));
        if self.sketched && has(|f| matches!(f, Function::Percentile(_))) {
            notes.push("percentiles are estimates, at most 1 % off: the values did not fit into the memory of the query".to_owned());
        }
        if self.sketched && has(|f| matches!(f, Function::Uniq)) {
            notes.push("uniq is an estimate, some 2 % off: the values did not fit into the memory of the query".to_owned());
        }
        let rough = self.states.iter().any(|state| matches!(state, State::Sum(sum) if matches!(sum.total(), Some(Num::Rough(_)))));
        if rough {
            notes.push("some sums are floats: their numbers have more digits than are added exactly".to_owned());
        }
        notes
    }
}
