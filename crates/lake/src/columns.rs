//! Judges rows by the columns of their fields, so that most lines need not be read.
//!
//! In: a check whose fields are all columns of the file, and their texts; out: the rows that pass. The texts are put
//! into a small line and handed to the one judge, so there is no second one that could disagree: a field reads as
//! text, and the column holds that text, or a number that is compared as one. Bare words are left to the lines: a line that is no JSON is all text.

use crate::logs::numbers::write_number;
use crate::matcher::{Check, Limit, Matcher, Row};
use crate::opened::Footer;
use crate::view::field_column;
use arrow_array::{Array, Float64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use flow::event::Severity;
use std::collections::BTreeMap;

pub(crate) struct ColumnJudge {
    /// Names of the columns, which are those of the fields.
    pub fields: Vec<String>,
    /// `"name":` as JSON, for each field.
    keys: Vec<String>,
    line: Vec<u8>,
}

impl ColumnJudge {
    /// `None`: only the lines can tell.
    pub(crate) fn new(matcher: &Matcher, footer: &Footer) -> Option<ColumnJudge> {
        let mut asked = BTreeMap::new();
        if !collect_fields(&matcher.check, matcher.names(), &mut asked) {
            return None;
        }
        // A number's column does where nobody looks at how the number is written.
        let is_column = |(field, is_number): (&usize, &bool)| {
            let name = &matcher.names()[*field];
            field_column(footer, name, &DataType::Utf8).is_some() || *is_number && number_column(footer, name)
        };
        if !asked.iter().all(is_column) {
            return None;
        }
        let fields: Vec<String> = asked.keys().map(|n| matcher.names()[*n].clone()).collect();
        // A field inside of another one could be taken for a part of it.
        let is_inside = |a: &String, b: &String| a.strip_prefix(b.as_str()).is_some_and(|rest| rest.starts_with('.'));
        if fields.iter().any(|a| fields.iter().any(|b| is_inside(a, b))) {
            return None;
        }
        let keys = fields.iter().map(|field| format!("{}:", serde_json::Value::from(field.as_str()))).collect();
        Some(ColumnJudge { fields, keys, line: Vec::new() })
    }

    /// Whether a row passes; `columns`: those of [`ColumnJudge::fields`], in order.
    pub(crate) fn passes(
        &mut self,
        matcher: &mut Matcher,
        columns: &[FieldColumn<'_>],
        row: usize,
        tenant: &[u8],
        severity: Severity,
    ) -> bool {
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
    pub(crate) fn columns<'b>(&self, batch: &'b RecordBatch) -> anyhow::Result<Vec<FieldColumn<'b>>> {
        let column = |field: &String| match crate::table::column(batch, field) {
            Ok(texts) => Ok(FieldColumn::Texts(texts)),
            Err(_) => crate::table::column(batch, field).map(FieldColumn::Numbers),
        };
        self.fields.iter().map(column).collect()
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

/// Whether the field is a column of numbers that has all its values.
pub(crate) fn number_column(footer: &Footer, field: &str) -> bool {
    let lacks_none =
        || crate::logs::incomplete(footer.metadata.metadata().file_metadata()).is_ok_and(|lacking| !lacking.contains_key(field));
    field_column(footer, field, &DataType::Float64).is_some() && lacks_none()
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
fn collect_fields(check: &Check, names: &[String], fields: &mut BTreeMap<usize, bool>) -> bool {
    let mut add = |field: usize, is_number: bool| {
        fields.entry(field).and_modify(|own| *own &= is_number).or_insert(is_number);
        true
    };
    match check {
        Check::All | Check::Tenant(_) | Check::LevelLimit { .. } => true,
        Check::Bare { .. } | Check::BareGlob { .. } | Check::BareRegex(_) => false,
        Check::Not(check) => collect_fields(check, names, fields),
        Check::And(checks) | Check::Or(checks) => checks.iter().all(|c| collect_fields(c, names, fields)),
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
