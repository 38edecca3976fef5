//! Lines without what columns hold already, and lines made whole again.
//!
//! In: a line and where its fields lie; out: its `rest`, the line in which each value that a column holds exactly is
//! replaced by a mark of two bytes that no UTF-8 has. Back: the values take the place of their marks. The writer makes each
//! line whole again before it believes it, so what a mark means can cost space and never a byte of a line. A
//! line that is no JSON or no UTF-8 stands in `raw` as it is. Memory: one line.

use super::numbers;
use anyhow::{Context, anyhow, bail};
use arrow_array::types::Int32Type;
use arrow_array::{Array, BinaryArray, DictionaryArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use flow::escape::escape_into;
use flow::fields::{Kind, Span};
use flow::units::NANOS_PER_SECOND;

/// The value of a column, as it stands there. The byte behind each mark is the number of the column, for `TIME` the digits
/// of its fraction. None of these bytes occurs in UTF-8.
const VALUE: u8 = 0xff;
/// The value of a column, escaped as JSON wants it.
const ESCAPED: u8 = 0xfe;
/// The row's time in RFC 3339, in UTC.
const TIME: u8 = 0xfd;

/// Takes values out of lines.
#[derive(Default)]
pub(super) struct Cutter {
    /// Fields in the order in which they stood in the line before.
    order: Vec<u8>,
    scratch: Vec<u8>,
}

/// What the columns hold of one field of the row.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Held {
    #[default]
    Nothing,
    Value,
    Escaped,
    /// The row's time, with so many digits of a fraction.
    Time(u8),
}

impl Cutter {
    /// Appends the line's rest. `spans`, `held`: by field; what is held is cut.
    pub(super) fn cut(&mut self, line: &[u8], spans: &[Span], held: &[Held], out: &mut Vec<u8>) {
        if self.order.len() != spans.len() {
            self.order = (0..spans.len() as u8).collect();
        }
        // Lines mostly have the order of the line before.
        for i in 1..self.order.len() {
            let mut j = i;
            while j > 0 && spans[self.order[j] as usize].start < spans[self.order[j - 1] as usize].start {
                self.order.swap(j, j - 1);
                j -= 1;
            }
        }
        let mut done = 0;
        for field in &self.order {
            let (span, held) = (&spans[*field as usize], held[*field as usize]);
            let mark = match held {
                Held::Nothing => continue,
                _ if (span.start as usize) < done => continue, // inside of another value
                Held::Value => [VALUE, *field],
                Held::Escaped => [ESCAPED, *field],
                Held::Time(digits) => [TIME, digits],
            };
            out.extend_from_slice(&line[done..span.start as usize]);
            out.extend_from_slice(&mark);
            done = span.end as usize;
        }
        out.extend_from_slice(&line[done..]);
    }

    /// What a text column holds of this value: `text` is what the column gets.
    pub(super) fn text(&mut self, raw: &[u8], kind: Kind, text: &[u8]) -> Held {
        match kind {
            Kind::Missing | Kind::Null => Held::Nothing,
            Kind::Escaped => {
                self.scratch.clear();
                escape_into(text, &mut self.scratch);
                if self.scratch == raw { Held::Escaped } else { Held::Nothing }
            }
            _ => Held::Value,
        }
    }

    /// Whether this value is the row's time.
    pub(super) fn time(&mut self, raw: &[u8], kind: Kind, time: i64) -> Held {
        // 2026-11-23T03:00:00Z and a point with up to nine digits.
        let digits = match (kind, raw.len()) {
            (Kind::Text, 20) => 0,
            (Kind::Text, 22..=30) => raw.len() as u8 - 21,
            _ => return Held::Nothing,
        };
        self.scratch.clear();
        write_time(time, digits, &mut self.scratch);
        if self.scratch == raw { Held::Time(digits) } else { Held::Nothing }
    }
}

/// Appends a time as RFC 3339 with so many digits of a fraction (0 to 9; what they cannot say is lost).
fn write_time(time: i64, digits: u8, out: &mut Vec<u8>) {
    let (seconds, nanos) = (time.div_euclid(NANOS_PER_SECOND), time.rem_euclid(NANOS_PER_SECOND));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days of the civil calendar, counted from March (Hinnant 2013).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut put = |number: i64, width: u32, before: &[u8]| {
        out.extend_from_slice(before);
        for place in (0..width).rev() {
            out.push(b'0' + (number / 10i64.pow(place) % 10) as u8);
        }
    };
    put(year, 4, b""); // i64 nanoseconds stay within 1677 and 2262
    put(month, 2, b"-");
    put(day, 2, b"-");
    put(second / 3600, 2, b"T");
    put(second / 60 % 60, 2, b":");
    put(second % 60, 2, b":");
    if digits > 0 {
        put(nanos / 10i64.pow(9 - u32::from(digits.min(9))), u32::from(digits.min(9)), b".");
    }
    out.push(b'Z');
}

/// The lines of a batch of a log file; the batch has all columns.
pub(crate) struct Lines<'a> {
    time: &'a TimestampNanosecondArray,
    raw: &'a BinaryArray,
    rest: Option<&'a BinaryArray>,
    fields: Vec<Column<'a>>,
}

enum Column<'a> {
    Text(&'a StringArray),
    /// The same as numbers of different texts.
    Codes(&'a DictionaryArray<Int32Type>, &'a StringArray),
    Number(&'a Float64Array),
}

impl Column<'_> {
    /// The text of a row, where the column has texts.
    fn text(&self, row: usize) -> Option<&str> {
        match self {
            Column::Text(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Column::Codes(codes, texts) => codes.is_valid(row).then(|| texts.value(codes.keys().value(row) as usize)),
            Column::Number(_) => None,
        }
    }
}

impl<'a> Lines<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> anyhow::Result<Lines<'a>> {
        let schema = batch.schema_ref();
        let place = |name: &str| schema.index_of(name).map_err(|_| anyhow!("the file has no column {name:?}: it is no log file of a lake"));
        fn of_kind<'a, T: 'static>(array: &'a dyn Array, name: &str) -> anyhow::Result<&'a T> {
            array.as_any().downcast_ref().with_context(|| format!("column {name:?} is of type {}", array.data_type()))
        }
        let time = of_kind(batch.column(place("time")?).as_ref(), "time")?;
        let raw = of_kind(batch.column(place("raw")?).as_ref(), "raw")?;
        // Files of older releases have every line in `raw`; a column `rest` of theirs is a field's text.
        let rest = place("rest").ok().and_then(|at| Some((at, batch.column(at).as_any().downcast_ref::<BinaryArray>()?)));
        let (Some((end, rest)), Ok(notes)) = (rest, place("notes")) else { return Ok(Lines { time, raw, rest: None, fields: Vec::new() }) };
        let (first, rest) = (notes + 1, Some(rest));
        let columns = (first..end).map(|at| {
            let array = batch.column(at).as_any();
            let codes = array.downcast_ref::<DictionaryArray<Int32Type>>();
            let codes = codes.and_then(|codes| Some((codes, codes.values().as_any().downcast_ref::<StringArray>()?)));
            match (array.downcast_ref::<StringArray>(), array.downcast_ref::<Float64Array>(), codes) {
                (Some(text), _, _) => Ok(Column::Text(text)),
                (_, Some(numbers), _) => Ok(Column::Number(numbers)),
                (_, _, Some((codes, texts))) => Ok(Column::Codes(codes, texts)),
                _ => bail!("column {:?} is of type {}", schema.field(at).name(), batch.column(at).data_type()),
            }
        });
        Ok(Lines { time, raw, rest, fields: columns.collect::<anyhow::Result<_>>()? })
    }

    /// The line of a row as it was received. `buffer`: room for one.
    pub(crate) fn line<'b>(&'b self, row: usize, buffer: &'b mut Vec<u8>) -> anyhow::Result<&'b [u8]> {
        let rest = match self.rest {
            Some(rest) if rest.is_valid(row) => rest.value(row),
            _ if self.raw.is_valid(row) => return Ok(self.raw.value(row)),
            _ => bail!("the file is damaged: a row has no line"),
        };
        buffer.clear();
        let mut done = 0;
        // Marks stand above every byte of UTF-8.
        while let Some(at) = memchr::memchr3(VALUE, ESCAPED, TIME, &rest[done..]) {
            let at = done + at;
            buffer.extend_from_slice(&rest[done..at]);
            let what = *rest.get(at + 1).context("the file is damaged: a line ends in a mark")?;
            match (rest[at], self.fields.get(usize::from(what))) {
                (TIME, _) => write_time(self.time.value(row), what, buffer),
                (VALUE, Some(column)) if column.text(row).is_some() => {
                    column.text(row).into_iter().for_each(|text| buffer.extend_from_slice(text.as_bytes()));
                }
                (VALUE, Some(Column::Number(numbers))) if numbers.is_valid(row) => numbers::write_number(numbers.value(row), buffer),
                (ESCAPED, Some(column)) if column.text(row).is_some() => {
                    column.text(row).into_iter().for_each(|text| escape_into(text.as_bytes(), buffer));
                }
                _ => bail!("the file is damaged: a line lacks a value"),
            }
            done = at + 2;
        }
        buffer.extend_from_slice(&rest[done..]);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_a_calendar_says() {
        let check = |time: i64, digits: u8, want: &str| {
            let mut out = Vec::new();
            write_time(time, digits, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        };
        check(0, 0, "1970-01-01T00:00:00Z");
        check(1_795_402_800_123_456_789, 9, "2026-11-23T03:00:00.123456789Z");
        check(1_795_402_800_120_000_000, 2, "2026-11-23T03:00:00.12Z");
        check(1_709_164_799_999_000_000, 3, "2024-02-28T23:59:59.999Z");
        check(1_709_164_800_000_000_000, 3, "2024-02-29T00:00:00.000Z");
        check(-1, 9, "1969-12-31T23:59:59.999999999Z");
        check(i64::MIN, 9, "1677-09-21T00:12:43.145224192Z");
        check(i64::MAX, 9, "2262-04-11T23:47:16.854775807Z");
    }
}
