//! What a scan is asked for, and the batches that it shows.
//!
//! A batch borrows from the columns that were read; nothing is copied but what comes out of lines.

use crate::pipes::Value;
use arrow_array::types::Int32Type;
use arrow_array::{Array, DictionaryArray, Float64Array, StringArray};

/// What is asked of each row.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub fields: Vec<Wanted>,
    pub times: Times,
    pub severities: bool,
    pub weights: bool,
}

/// A field, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The text that the line has.
    Text(String),
    /// The number that the text is; what is none counts as missing.
    Number(String),
}

impl Wanted {
    pub(crate) fn name(&self) -> &str {
        match self {
            Wanted::Text(name) | Wanted::Number(name) => name,
        }
    }
}

/// How exactly the times are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    #[default]
    No,
    Exact,
    /// Any time of the same bucket will do: `[start + n * width, start + (n + 1) * width)`, in nanoseconds.
    Bucket {
        start: i64,
        width: i64,
    },
}

/// Some rows as columns. Only the rows in `rows` answer the query.
pub struct Batch<'a> {
    /// Whose rows they are.
    pub tenant: &'a [u8],
    pub rows: &'a [u32],
    /// Empty unless asked for; so are the next two.
    pub times: &'a [i64],
    pub severities: &'a [u8],
    pub weights: &'a [u32],
    /// One for each field asked for.
    pub columns: Vec<Column<'a>>,
}

/// The values of one field.
pub struct Column<'a> {
    pub(super) values: Values<'a>,
}

pub(super) enum Values<'a> {
    Codes(&'a DictionaryArray<Int32Type>, &'a StringArray),
    Texts(&'a StringArray),
    Numbers(&'a Float64Array),
    /// Of lines; `None`: missing.
    Lines(Vec<Option<Box<[u8]>>>),
}

#[cfg(test)]
impl Column<'_> {
    pub(crate) fn of_texts(texts: Vec<Option<Box<[u8]>>>) -> Self {
        Column { values: Values::Lines(texts) }
    }

    pub(crate) fn of_numbers(numbers: Float64Array) -> Self {
        Column { values: Values::Numbers(Box::leak(Box::new(numbers))) }
    }
}

impl Column<'_> {
    /// The value as text; `None` where the field is missing or null. Numbers asked for as such have none.
    pub fn text(&self, row: u32) -> Option<&[u8]> {
        let row = row as usize;
        match &self.values {
            Values::Codes(codes, values) => codes.is_valid(row).then(|| values.value(codes.keys().value(row) as usize).as_bytes()),
            Values::Texts(texts) => texts.is_valid(row).then(|| texts.value(row).as_bytes()),
            Values::Numbers(_) => None,
            Values::Lines(texts) => texts.get(row)?.as_deref(),
        }
    }

    /// The value for pipes: the text, or the number where the column has numbers.
    pub(crate) fn value(&self, row: u32) -> Value<'_> {
        match &self.values {
            Values::Numbers(numbers) if numbers.is_valid(row as usize) => Value::Float(numbers.value(row as usize)),
            _ => self.text(row).map_or(Value::Null, Value::Text),
        }
    }

    /// A number below [`Column::codes`] that stands for the row's text, equal for equal texts of this batch. Only where
    /// the file has it so: then a caller looks a text up once for each code.
    pub fn code(&self, row: u32) -> Option<usize> {
        match &self.values {
            Values::Codes(codes, _) if codes.is_valid(row as usize) => Some(codes.keys().value(row as usize) as usize),
            _ => None,
        }
    }

    /// How many codes there are; 0: the column has none.
    pub fn codes(&self) -> usize {
        match &self.values {
            Values::Codes(_, values) => values.len(),
            _ => 0,
        }
    }

    /// The value as a number; `None` where it is missing or no finite number.
    pub fn number(&self, row: u32) -> Option<f64> {
        match &self.values {
            Values::Numbers(numbers) => numbers.is_valid(row as usize).then(|| numbers.value(row as usize)),
            _ => std::str::from_utf8(self.text(row)?).ok()?.parse().ok().filter(|number: &f64| number.is_finite()),
        }
    }
}
