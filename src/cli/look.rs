//! How records look on a terminal or in a pipe: whole lines, their bytes alone, or some of their fields.
//!
//! In: a record and what is known of it. Out: one line. With `--json` exactly the bytes that were received. Control characters of
//! records are shown as spaces where a person reads, so that no record can steer a terminal.

use crate::desk::TableLine;
use anyhow::ensure;
use flow::fields::{FIELDS_MAX, FieldSet, Scanner, Span};
use flow::units::UnixNanos;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    fn is_on(self) -> bool {
        match self {
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            Color::Always => true,
            Color::Never => false,
        }
    }
}

pub struct Printer {
    json: bool,
    color: bool,
    for_people: bool,
    columns: Option<Columns>,
}

struct Columns {
    names: Vec<String>,
    scanner: Scanner,
    spans: Vec<Span>,
}

impl Printer {
    /// `columns`: fields that are shown instead of the whole line; empty: the line.
    pub fn new(json: bool, color: Color, columns: &[String]) -> anyhow::Result<Printer> {
        ensure!(columns.len() <= FIELDS_MAX, "{} columns are too many, {FIELDS_MAX} are possible", columns.len());
        let columns = (!columns.is_empty()).then(|| {
            let set = Arc::new(FieldSet::new(columns));
            Columns { names: columns.to_vec(), spans: vec![Span::default(); set.len()], scanner: Scanner::new(set) }
        });
        let color = color.is_on();
        Ok(Printer { json, color, for_people: color || io::stdout().is_terminal(), columns })
    }

    pub fn print(&mut self, out: &mut impl Write, time: UnixNanos, severity: u8, tenant: &[u8], raw: &[u8]) -> io::Result<()> {
        if self.json {
            out.write_all(raw)?;
            return out.write_all(b"\n");
        }
        let level = flow::severity::class_name(severity);
        let tenant = String::from_utf8_lossy(tenant);
        if self.color {
            let of_level = match severity {
                17.. => "\x1b[31m",
                13..=16 => "\x1b[33m",
                9..=12 => "\x1b[32m",
                _ => "\x1b[2m",
            };
            write!(out, "\x1b[2m{}\x1b[0m {of_level}{level:<5}\x1b[0m \x1b[36m{}\x1b[0m ", time.rfc3339(), plain(&tenant))?;
        } else {
            write!(out, "{} {level:<5} {tenant} ", time.rfc3339())?;
        }
        let Some(columns) = &mut self.columns else {
            match self.for_people {
                true => out.write_all(plain(&String::from_utf8_lossy(raw)).as_bytes())?,
                false => out.write_all(raw)?,
            }
            return out.write_all(b"\n");
        };
        columns.scanner.scan(raw, &mut columns.spans);
        let values = columns.spans.iter().map(|span| span.text(raw).map(|text| plain(&String::from_utf8_lossy(&text))));
        let cells: Vec<String> =
            columns.names.iter().zip(values).filter_map(|(name, value)| Some(format!("{name}={}", quoted(&value?)))).collect();
        writeln!(out, "{}", cells.join(" "))
    }
}

/// A table: columns side by side, numbers to the right; with `json` an object for each row.
pub fn print_table(out: &mut impl Write, table: &TableLine, json: bool) -> io::Result<()> {
    if json {
        for row in &table.rows {
            let members =
                table.columns.iter().zip(row).map(|(name, cell)| format!("{}:{}", serde_json::Value::from(name.as_str()), cell.json));
            writeln!(out, "{{{}}}", members.collect::<Vec<_>>().join(","))?;
        }
    } else {
        let text = |row: usize, column: usize| plain(&table.rows[row][column].text);
        let width = |column: usize| {
            let cells = (0..table.rows.len()).map(|row| text(row, column).chars().count());
            cells.chain([table.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
        let right: Vec<bool> = (0..table.columns.len()).map(|column| table.rows.iter().any(|row| row[column].is_number)).collect();
        let mut line = |cells: Vec<String>| {
            let cells = cells.iter().enumerate().map(|(column, cell)| {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                if right[column] { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
            });
            let text = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "{}", text.trim_end())
        };
        line(table.columns.iter().map(|name| plain(name)).collect())?;
        for row in 0..table.rows.len() {
            line((0..table.columns.len()).map(|column| text(row, column)).collect())?;
        }
    }
    out.flush()?;
    table.note.iter().for_each(|note| eprintln!("note: {note}"));
    Ok(())
}

/// Text that a terminal shows and does not obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// As it is, or in quotes where it would run into the next one.
fn quoted(text: &str) -> String {
    if !text.is_empty() && !text.contains([' ', '"', '=']) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(color: Color, columns: &[&str], raw: &str, want: &str) {
        let columns: Vec<String> = columns.iter().map(|name| name.to_string()).collect();
        let mut out = Vec::new();
        Printer::new(false, color, &columns).unwrap().print(&mut out, UnixNanos(1_000_000_000), 17, b"acme", raw.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn fields_are_shown_as_they_were_asked_for_and_no_record_steers_a_terminal() {
        let line = r#"{"b":"two words","a":{"c":7},"n":null}"#;
        check(Color::Never, &[], line, &format!("1970-01-01T00:00:01Z error acme {line}\n"));
        check(Color::Never, &["b", "a.c", "n", "x"], line, "1970-01-01T00:00:01Z error acme b=\"two words\" a.c=7\n");
        let red = "\x1b[2m1970-01-01T00:00:01Z\x1b[0m \x1b[31merror\x1b[0m \x1b[36macme\x1b[0m ";
        check(Color::Always, &[], "a\x1b[2Jb", &format!("{red}a [2Jb\n"));
    }
}
