//! Which value of a row a name in a pipe means.
//!
//! In: names; out: slots, and the fields of lines that have to be found for them, each once. What every record
//! has (its time, level, tenant and the like) hides fields of lines with these names. `message`, `trace_id` and
//! `span_id` are the first that is there of the spellings that loggers use.

use super::RowView;
use super::groups::Value;
use flow::conventions;

/// The raw line in a table of records.
pub(crate) const LINE: &str = "_line";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Nothing,
    /// The first of these fields that is there.
    Fields(Vec<usize>),
    Time,
    Severity,
    /// The name of the severity's class.
    Level,
    Tenant,
    Weight,
    Stream,
    Position,
    Line,
}

impl Slot {
    /// `values`: of the fields of lines.
    pub(crate) fn value<'a>(&self, values: &[Value<'a>], row: &RowView<'a>) -> Value<'a> {
        match self {
            Slot::Nothing => Value::Null,
            Slot::Fields(fields) => fields.iter().map(|at| values[*at]).find(|value| *value != Value::Null).unwrap_or(Value::Null),
            Slot::Time => Value::Time(row.time.0),
            Slot::Severity => Value::Whole(i128::from(row.severity)),
            Slot::Level => Value::Text(flow::severity::class_name(row.severity).as_bytes()),
            Slot::Tenant => Value::Text(row.tenant),
            Slot::Weight => Value::Whole(i128::from(row.weight)),
            Slot::Stream => Value::Whole(i128::from(row.stream.0)),
            Slot::Position => Value::Whole(i128::from(row.position)),
            Slot::Line => Value::Text(row.line),
        }
    }
}

/// Fields of lines, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    names: Vec<String>,
}

impl Names {
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn slot(&mut self, name: &str) -> Slot {
        match name {
            "time" => Slot::Time,
            "severity" => Slot::Severity,
            "level" => Slot::Level,
            "tenant" => Slot::Tenant,
            "weight" => Slot::Weight,
            "stream" => Slot::Stream,
            "position" => Slot::Position,
            LINE => Slot::Line,
            _ => match conventions::spellings(name) {
                [] => Slot::Fields(vec![self.add(name)]),
                spellings => self.first_of(spellings.iter().copied()),
            },
        }
    }

    pub(crate) fn first_of<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Slot {
        Slot::Fields(names.map(|name| self.add(name)).collect())
    }

    fn add(&mut self, name: &str) -> usize {
        match self.names.iter().position(|own| own == name) {
            Some(at) => at,
            None => {
                self.names.push(name.to_owned());
                self.names.len() - 1
            }
        }
    }
}
