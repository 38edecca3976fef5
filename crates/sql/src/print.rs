//! Batches as text: an aligned table for people, JSON lines and CSV for programs.
//!
//! In: batches of one query, all with the same columns; out: text. Whole numbers are numbers, decimals are written exactly (in JSON as
//! texts, since a JSON number would lose digits on its way), times are RFC 3339 with nanoseconds, bytes are text where they are UTF-8 and
//! hexadecimal where not. A table's columns are as wide as the widest value of its first batch, at most [`CELL_CHARS_MAX`]; in a table,
//! control characters are shown as signs. Memory: one batch as text.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use flow::units::civil_from_days;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Write;

/// A longer value is cut in a table, and ends with `…`.
pub const CELL_CHARS_MAX: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Table,
    /// An object a row.
    Json,
    /// An array a row; the first has the names of the columns.
    JsonArrays,
    Csv,
}

/// Turns the batches of one query into text.
pub struct Printer {
    format: Format,
    /// Of a table: width of each column, known once the first batch is there.
    widths: Vec<usize>,
    begun: bool,
}

/// A value that is there.
enum Value<'a> {
    /// As it is in JSON too.
    Plain(String),
    Text(Cow<'a, str>),
}

impl Value<'_> {
    fn text(&self) -> &str {
        match self {
            Value::Plain(text) => text,
            Value::Text(text) => text,
        }
    }
}

impl Printer {
    pub fn new(format: Format) -> Printer {
        Printer { format, widths: Vec::new(), begun: false }
    }

    /// Appends the rows of a batch, and before the first ones the names of the columns where the format has them.
    pub fn add(&mut self, batch: &RecordBatch, out: &mut String) {
        match self.format {
            Format::Table => self.add_table(batch, out),
            Format::Json => add_json(batch, out),
            Format::JsonArrays => self.add_arrays(batch, out),
            Format::Csv => self.add_csv(batch, out),
        }
    }

    fn add_table(&mut self, batch: &RecordBatch, out: &mut String) {
        let names: Vec<String> = batch.schema_ref().fields().iter().map(|field| cell(field.name())).collect();
        let rows: Vec<Vec<String>> = (0..batch.num_rows())
            .map(|row| batch.columns().iter().map(|column| value(column, row).map_or(String::new(), |value| cell(value.text()))).collect())
            .collect();
        let numeric: Vec<bool> = batch.columns().iter().map(|column| column.data_type().is_numeric()).collect();
        if !self.begun {
            self.begun = true;
            self.widths =
                (0..names.len()).map(|at| rows.iter().map(|row| chars(&row[at])).chain([chars(&names[at])]).max().unwrap_or(0)).collect();
            self.line(&names, &numeric, out);
            let rules: Vec<String> = self.widths.iter().map(|width| "-".repeat(*width)).collect();
            self.line(&rules, &numeric, out);
        }
        for row in &rows {
            self.line(row, &numeric, out);
        }
    }

    fn line(&self, cells: &[String], numeric: &[bool], out: &mut String) {
        let start = out.len();
        for (at, text) in cells.iter().enumerate() {
            let pad = self.widths[at].saturating_sub(chars(text));
            let gap = if at == 0 { "" } else { "  " };
            let (before, after) = if numeric[at] { (pad, 0) } else { (0, pad) };
            write!(out, "{gap}{:before$}{text}{:after$}", "", "").expect("writing to a string cannot fail");
        }
        out.truncate(start + out[start..].trim_end().len());
        out.push('\n');
    }

    fn add_arrays(&mut self, batch: &RecordBatch, out: &mut String) {
        if !self.begun {
            self.begun = true;
            let names: Vec<String> = batch.schema_ref().fields().iter().map(|field| json_text(field.name())).collect();
            out.push_str(&format!("[{}]\n", names.join(",")));
        }
        for row in 0..batch.num_rows() {
            out.push('[');
            for (at, column) in batch.columns().iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                push_json(column, row, out);
            }
            out.push_str("]\n");
        }
    }

    fn add_csv(&mut self, batch: &RecordBatch, out: &mut String) {
        if !self.begun {
            self.begun = true;
            csv_line(batch.schema_ref().fields().iter().map(|field| Some(Cow::Borrowed(field.name().as_str()))), out);
        }
        for row in 0..batch.num_rows() {
            csv_line(batch.columns().iter().map(|column| value(column, row).map(|value| Cow::Owned(value.text().to_owned()))), out);
        }
    }
}

fn add_json(batch: &RecordBatch, out: &mut String) {
    let names: Vec<String> = batch.schema_ref().fields().iter().map(|field| json_text(field.name())).collect();
    for row in 0..batch.num_rows() {
        out.push('{');
        for (at, (name, column)) in names.iter().zip(batch.columns()).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(out, "{comma}{name}:").expect("writing to a string cannot fail");
            push_json(column, row, out);
        }
        out.push_str("}\n");
    }
}

fn push_json(column: &ArrayRef, row: usize, out: &mut String) {
    match value(column, row) {
        None => out.push_str("null"),
        Some(Value::Plain(text)) => out.push_str(&text),
        Some(Value::Text(text)) => out.push_str(&json_text(&text)),
    }
}

fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a string cannot fail"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// RFC 4180. A missing value is nothing at all, an empty text is `""`.
fn csv_line<'a>(cells: impl Iterator<Item = Option<Cow<'a, str>>>, out: &mut String) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(',');
        }
        match cell {
            None => {}
            Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
                write!(out, "\"{}\"", text.replace('"', "\"\"")).expect("writing to a string cannot fail");
            }
            Some(text) => out.push_str(&text),
        }
    }
    out.push('\n');
}

/// A value in one line of a table.
fn cell(text: &str) -> String {
    let mut shown: String = text.chars().take(CELL_CHARS_MAX).map(sign).collect();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// What a terminal would obey is shown, and not sent.
fn sign(c: char) -> char {
    match u32::from(c) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or('\u{fffd}'),
        0x7f..=0x9f | 0x200b..=0x200f | 0x202a..=0x202e | 0x2066..=0x2069 => '\u{fffd}',
        _ => c,
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// `None`: missing.
fn value(column: &ArrayRef, row: usize) -> Option<Value<'_>> {
    if column.is_null(row) {
        return None;
    }
    let plain = |number: &dyn ToString| Some(Value::Plain(number.to_string()));
    match column.data_type() {
        DataType::Null => None,
        DataType::Boolean => plain(&column.as_boolean().value(row)),
        DataType::Int8 => plain(&column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => plain(&column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => plain(&column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => plain(&column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => plain(&column.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => plain(&column.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => plain(&column.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => plain(&column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float64 => Some(float(column.as_primitive::<datafusion::arrow::datatypes::Float64Type>().value(row))),
        DataType::Float32 => Some(float(f64::from(column.as_primitive::<datafusion::arrow::datatypes::Float32Type>().value(row)))),
        DataType::Decimal128(_, scale) => Some(Value::Text(decimal(column.as_primitive::<Decimal128Type>().value(row), *scale).into())),
        DataType::Timestamp(unit, _) => Some(Value::Text(timestamp(column, row, *unit).into())),
        DataType::Utf8 => Some(Value::Text(column.as_string::<i32>().value(row).into())),
        DataType::LargeUtf8 => Some(Value::Text(column.as_string::<i64>().value(row).into())),
        DataType::Utf8View => Some(Value::Text(column.as_string_view().value(row).into())),
        DataType::Binary => Some(Value::Text(bytes(column.as_binary::<i32>().value(row)))),
        DataType::LargeBinary => Some(Value::Text(bytes(column.as_binary::<i64>().value(row)))),
        DataType::BinaryView => Some(Value::Text(bytes(column.as_binary_view().value(row)))),
        // Lists, intervals and dates: as arrow writes them.
        _ => {
            let options = FormatOptions::default();
            let text = ArrayFormatter::try_new(column, &options).map_or_else(|error| error.to_string(), |f| f.value(row).to_string());
            Some(Value::Text(text.into()))
        }
    }
}

/// JSON has no infinity and no "not a number": there they are texts.
fn float(number: f64) -> Value<'static> {
    if number.is_finite() { Value::Plain(format!("{number:?}")) } else { Value::Text(number.to_string().into()) }
}

fn bytes(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes
            .iter()
            .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
                write!(out, "{byte:02x}").expect("writing to a string cannot fail");
                out
            })
            .into(),
    }
}

/// `number` x 10^-scale with all its digits, without zeros at the end of the fraction.
fn decimal(number: i128, scale: i8) -> String {
    let Ok(places) = usize::try_from(scale) else {
        return format!("{number}{}", "0".repeat(usize::from(scale.unsigned_abs())));
    };
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let fraction = fraction.trim_end_matches('0');
    let sign = if number < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn timestamp(column: &ArrayRef, row: usize, unit: TimeUnit) -> String {
    let (value, per_second) = match unit {
        TimeUnit::Second => (column.as_primitive::<TimestampSecondType>().value(row), 1),
        TimeUnit::Millisecond => (column.as_primitive::<TimestampMillisecondType>().value(row), 1_000),
        TimeUnit::Microsecond => (column.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000),
        TimeUnit::Nanosecond => (column.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000i64),
    };
    let (seconds, nanos) = (value.div_euclid(per_second), value.rem_euclid(per_second) * (1_000_000_000 / per_second));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    if !(-1_000_000..=2_932_896).contains(&days) {
        return format!("{seconds}.{nanos:09} s"); // beyond the years that RFC 3339 can write
    }
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_all_its_digits() {
        for (number, scale, text) in [
            (0, 12, "0"),
            (1, 12, "0.000000000001"),
            (-1_500_000_000_000, 12, "-1.5"),
            (i128::MAX, 12, "170141183460469231731687303.715884105727"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
            (7, -2, "700"),
        ] {
            assert_eq!(decimal(number, scale), text);
        }
    }

    #[test]
    fn a_terminal_is_not_commanded_by_data() {
        assert_eq!(cell("a\x1b[31m\n\u{202e}"), "a␛[31m␊\u{fffd}");
        assert_eq!(cell(&"x".repeat(81)), "x".repeat(79) + "…");
        assert_eq!(cell(&"x".repeat(80)), "x".repeat(80));
    }
}
