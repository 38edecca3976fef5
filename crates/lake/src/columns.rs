//! Judges rows by the columns of their fields, so that most lines need not be read.
//!
//! In: a check whose fields are all columns of the file, and their texts; out: the rows that pass. The texts are put
//! into a small line and handed to the one judge, so there is no second one that could disagree: a field reads as
//! text, and the column holds that text. Bare words are left to the lines: a line that is no JSON is all text.

use crate::matcher::{Check, Matcher, Row};
use crate::opened::Footer;
use crate::view::field_column;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use flow::event::Severity;

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
        let mut numbers = Vec::new();
        if !collect_fields(&matcher.check, matcher.names(), &mut numbers) {
            return None;
        }
        numbers.sort_unstable();
        numbers.dedup();
        let fields: Vec<String> = numbers.iter().map(|n| matcher.names()[*n].clone()).collect();
        if !fields.iter().all(|field| field_column(footer, field, &DataType::Utf8).is_some()) {
            return None;
        }
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
        columns: &[&StringArray],
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
            push_quoted(&mut self.line, column.value(row));
        }
        self.line.push(b'}');
        matcher.matches(Row { line: &self.line, tenant: Some(tenant), severity: Some(severity) })
    }

    /// The columns in a batch, in order.
    pub(crate) fn columns<'b>(&self, batch: &'b RecordBatch) -> anyhow::Result<Vec<&'b StringArray>> {
        self.fields.iter().map(|field| crate::table::column(batch, field)).collect()
    }
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

/// Adds the numbers of the fields that the check reads; false: it reads more than fields.
fn collect_fields(check: &Check, names: &[String], numbers: &mut Vec<usize>) -> bool {
    match check {
        Check::All | Check::Tenant(_) | Check::LevelLimit { .. } => true,
        Check::Bare { .. } | Check::BareGlob { .. } | Check::BareRegex(_) => false,
        Check::Not(check) => collect_fields(check, names, numbers),
        Check::And(checks) | Check::Or(checks) => checks.iter().all(|c| collect_fields(c, names, numbers)),
        Check::Level { .. } => names.iter().position(|name| name == "level").is_some_and(|at| {
            numbers.push(at);
            true
        }),
        Check::TextWords { field, .. }
        | Check::TextPhrase { field, .. }
        | Check::TextGlob { field, .. }
        | Check::Contains { field, .. }
        | Check::Equals { field, .. }
        | Check::Glob { field, .. }
        | Check::Exists { field }
        | Check::Regex { field, .. }
        | Check::Range { field, .. } => {
            numbers.push(*field);
            true
        }
    }
}
