//! Judges rows by the columns of their fields, so that most lines need not be read.
//!
//! In: a check whose fields are all columns of the file, and their texts; out: the rows that pass. The texts are put
//! into a small line and handed to the one judge, so there is no second one that could disagree: a field reads as
//! text, and the column holds that text, or a number that is compared as one. Bare words look at
//! the columns of text and ids, unless the file has a line that is no JSON, which is all text.

use crate::logs::numbers::write_number;
use crate::matcher::{Check, Limit, Matcher, Row};
use crate::opened::Footer;
use crate::view::field_column;
use arrow_array::{Array, Float64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use flow::event::Severity;
use std::collections::BTreeMap;

pub(crate) struct ColumnJudge {
    /// Names of the columns of its fields; of fields that nobody has there are none.
    pub columns: Vec<String>,
    /// `"name":` as JSON, for each field.
    keys: Vec<String>,
    /// Limits that a row has to keep, by column: what is beyond one of them needs no judge.
    bounds: Vec<(usize, Bound)>,
    line: Vec<u8>,
}

impl ColumnJudge {
    /// `None`: only the lines can tell.
    pub(crate) fn new(matcher: &Matcher, footer: &Footer) -> Option<ColumnJudge> {
        let mut asked = BTreeMap::new();
        let bare: Vec<usize> = matcher.bare_fields().collect();
        let bare = footer.notes.is_all_json().then_some(bare.as_slice());
        if !collect_fields(&matcher.check, matcher.names(), bare, &mut asked) {
            return None;
        }
        // A name with a dot is a member of a member, too: it must be read as what it is. A later whole replaces its parts: it comes first.
        let mut asked: Vec<(usize, bool)> = asked.into_iter().collect();
        asked.sort_by_key(|(field, _)| &matcher.names()[*field]);
        if !matcher.reads_flat(asked.iter().map(|(field, _)| *field)) {
            return None;
        }
        let (mut columns, mut keys, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
        let needed = needed_bounds(&matcher.check);
        for (field, is_number) in asked {
            let name = matcher.names()[field].as_str();
            // A number's column does where nobody looks at how the number is written.
            let at = field_column(footer, name, &DataType::Utf8).or_else(|| number_column(footer, name).filter(|_| is_number))?;
            let column = footer.metadata.schema().field(at).name();
            if !footer.notes.is_empty(column) {
                bounds.extend(needed.iter().filter(|(of, _)| *of == field).map(|(_, bound)| (columns.len(), *bound)));
                columns.push(column.clone());
                keys.push(format!("{}:", serde_json::Value::from(name)));
            }
        }
        Some(ColumnJudge { columns, keys, bounds, line: Vec::new() })
    }

    /// Whether a row passes; `columns`: the batch's [`ColumnJudge::columns`], in order.
    pub(crate) fn passes(
        &mut self,
        matcher: &mut Matcher,
        columns: &[FieldColumn<'_>],
        row: usize,
        tenant: &[u8],
        severity: Severity,
    ) -> bool {
        let is_beyond = |(at, bound): &(usize, Bound)| matches!(&columns[*at], FieldColumn::Numbers(n) if bound.excludes(n, row));
        if self.bounds.iter().any(is_beyond) {
            return false;
        }
        self.line.clear();
        self.line.push(b'{');
        for (key, column) in self.keys.iter().zip(columns) {
            if column.is_null(row) {
                continue;
            }
            if self.line.len() > 1 {
                self.line.push(b',');
            }
            self.line.extend_from_slice(key.as_bytes());
            match column {
                FieldColumn::Texts(texts) => push_quoted(&mut self.line, texts.value(row)),
                FieldColumn::Numbers(numbers) => write_number(numbers.value(row), &mut self.line),
            }
        }
        self.line.push(b'}');
        matcher.matches(Row { line: &self.line, tenant: Some(tenant), severity: Some(severity) })
    }

    /// The columns in a batch, in order.
    pub(crate) fn values<'b>(&self, batch: &'b RecordBatch) -> anyhow::Result<Vec<FieldColumn<'b>>> {
        let column = |field: &String| match crate::table::column(batch, field) {
            Ok(texts) => Ok(FieldColumn::Texts(texts)),
            Err(_) => crate::table::column(batch, field).map(FieldColumn::Numbers),
        };
        self.columns.iter().map(column).collect()
    }
}

/// One end of a range of numbers.
#[derive(Clone, Copy)]
struct Bound {
    /// The float nearest to it.
    value: f64,
    is_low: bool,
}

impl Bound {
    /// Whether the row's number surely is beyond: of two floats that differ, the decimals for which they stand differ in the same way.
    fn excludes(self, numbers: &Float64Array, row: usize) -> bool {
        let value = numbers.value(row);
        numbers.is_null(row) || if self.is_low { value < self.value } else { value > self.value }
    }
}

/// The limits of numbers that every row that passes keeps, with their fields.
fn needed_bounds(check: &Check) -> Vec<(usize, Bound)> {
    match check {
        Check::And(checks) => checks.iter().flat_map(needed_bounds).collect(),
        Check::Range { field, limits } => {
            limits.iter().filter_map(|limit| Some((*field, Bound { value: limit.nearest_float()?, is_low: limit.is_low }))).collect()
        }
        _ => Vec::new(),
    }
}

/// A field's values in a batch.
pub(crate) enum FieldColumn<'a> {
    Texts(&'a StringArray),
    Numbers(&'a Float64Array),
}

impl FieldColumn<'_> {
    fn is_null(&self, row: usize) -> bool {
        match self {
            FieldColumn::Texts(texts) => texts.is_null(row),
            FieldColumn::Numbers(numbers) => numbers.is_null(row),
        }
    }
}

/// The field's column of numbers, if that has all its values.
pub(crate) fn number_column(footer: &Footer, field: &str) -> Option<usize> {
    let at = field_column(footer, field, &DataType::Float64)?;
    (!footer.notes.incomplete.contains_key(footer.metadata.schema().field(at).name())).then_some(at)
}

fn push_quoted(line: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        line.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    } else {
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    }
}

/// Adds the places of the fields that the check reads, and whether it takes them as numbers only; false: it reads more than fields.
/// `bare`: the fields that bare words look at, if they look at nothing else.
fn collect_fields(check: &Check, names: &[String], bare: Option<&[usize]>, fields: &mut BTreeMap<usize, bool>) -> bool {
    let mut add = |field: usize, is_number: bool| {
        fields.entry(field).and_modify(|own| *own &= is_number).or_insert(is_number);
        true
    };
    match check {
        Check::All | Check::Tenant(_) | Check::LevelLimit { .. } => true,
        Check::Bare { .. } | Check::BareGlob { .. } | Check::BareRegex(_) => {
            bare.is_some_and(|bare| bare.iter().all(|field| add(*field, false)))
        }
        Check::Not(check) => collect_fields(check, names, bare, fields),
        Check::And(checks) | Check::Or(checks) => checks.iter().all(|c| collect_fields(c, names, bare, fields)),
        Check::Level { .. } => names.iter().position(|name| name == "level").is_some_and(|at| add(at, false)),
        Check::TextWords { field, .. }
        | Check::TextPhrase { field, .. }
        | Check::TextGlob { field, .. }
        | Check::Contains { field, .. }
        | Check::Equals { field, .. }
        | Check::Glob { field, .. }
        | Check::Regex { field, .. } => add(*field, false),
        Check::Exists { field } => add(*field, true),
        Check::Range { field, limits } => add(*field, limits.iter().all(Limit::is_number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fields;
    use crate::query::Query;

    #[test]
    fn the_usual_fields_of_bare_words_can_be_judged_by_columns() {
        let matcher = Matcher::new(&Query::parse("some words").unwrap(), &Fields::default()).unwrap();
        let mut bare: Vec<usize> = matcher.bare_fields().collect();
        assert!(!matcher.reads_flat(bare.iter().copied()), "body would take body.stringValue with it");
        bare.sort_by_key(|field| &matcher.names()[*field]);
        assert!(matcher.reads_flat(bare.into_iter()));
    }
}
