//! A table of answers, and the pipes that turn one table into another: sort, fields, limit, where.
//!
//! In: named columns and rows of cells; out: the same. The order of cells is total: nothing, then numbers by
//! value, then times, then text by bytes; a text that is a number counts as one. Memory: the table.

use super::number::{Num, Number};
use crate::Fields;
use crate::matcher::{Matcher, Row};
use crate::query::{Query, SortKey};
use flow::units::UnixNanos;
use std::cmp::Ordering;
use std::fmt;

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub columns: Vec<String>,
    /// As many cells in each as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// What the reader has to know of the numbers, as where they are estimates.
    pub note: Option<String>,
}

/// One value of a table. Displays as text, nothing as the empty one.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Int(i128),
    Decimal(Number),
    Float(f64),
    Text(String),
    Time(UnixNanos),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => Ok(()),
            Cell::Int(n) => write!(f, "{n}"),
            Cell::Decimal(n) => write!(f, "{n}"),
            Cell::Float(n) if n.abs() >= 1e21 || (*n != 0.0 && n.abs() < 1e-7) => write!(f, "{n:e}"),
            Cell::Float(n) => write!(f, "{n}"),
            Cell::Text(text) => f.write_str(text),
            Cell::Time(time) => f.write_str(&time.rfc3339()),
        }
    }
}

impl Cell {
    /// A field's value: a number where it is written as this program writes it, else text.
    pub(crate) fn of_text(text: &[u8]) -> Cell {
        if text.len() <= 40
            && let Some(Num::Exact(number)) = Num::parse(text)
            && number.to_string().as_bytes() == text
        {
            return Num::Exact(number).cell();
        }
        Cell::Text(String::from_utf8_lossy(text).into_owned())
    }

    /// Appends the value as JSON: numbers as numbers, times as strings.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::Int(_) | Cell::Decimal(_) | Cell::Float(_) => out.extend_from_slice(self.to_string().as_bytes()),
            Cell::Text(text) => write_string(text, out),
            Cell::Time(time) => write_string(&time.rfc3339(), out),
        }
    }

    /// Bytes that it takes.
    pub(crate) fn cost(&self) -> usize {
        size_of::<Cell>() + if let Cell::Text(text) = self { text.len() } else { 0 }
    }

    fn rank(&self) -> Rank<'_> {
        match self {
            Cell::Null => Rank::Null,
            Cell::Int(n) => Rank::Number(Num::Exact(Number::new(*n, 0))),
            Cell::Decimal(n) => Rank::Number(Num::Exact(*n)),
            Cell::Float(n) => Rank::Number(Num::Rough(*n)),
            Cell::Time(time) => Rank::Time(time.0),
            Cell::Text(text) => match Num::parse(text.as_bytes()) {
                Some(num) => Rank::Number(num),
                None => Rank::Text(text),
            },
        }
    }

    /// The order of cells; those that count the same are told apart by how they are written.
    pub(crate) fn compare(&self, other: &Cell) -> Ordering {
        match (self.rank(), other.rank()) {
            (Rank::Number(a), Rank::Number(b)) => a.compare(b).then_with(|| self.to_string().cmp(&other.to_string())),
            (Rank::Time(a), Rank::Time(b)) => a.cmp(&b),
            (Rank::Text(a), Rank::Text(b)) => a.cmp(b),
            (a, b) => a.class().cmp(&b.class()),
        }
    }
}

enum Rank<'a> {
    Null,
    Number(Num),
    Time(i64),
    Text(&'a str),
}

impl Rank<'_> {
    fn class(&self) -> u8 {
        match self {
            Rank::Null => 0,
            Rank::Number(_) => 1,
            Rank::Time(_) => 2,
            Rank::Text(_) => 3,
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
}

/// Orders rows by `keys`, each a place and whether it is descending; rows that are the same there keep their order.
pub(crate) fn compare_rows(a: &[Cell], b: &[Cell], keys: &[(usize, bool)]) -> Ordering {
    for (at, descending) in keys {
        let order = a[*at].compare(&b[*at]);
        if order.is_ne() {
            return if *descending { order.reverse() } else { order };
        }
    }
    Ordering::Equal
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> anyhow::Result<usize> {
        let found = self.columns.iter().position(|column| column == name);
        found.ok_or_else(|| crate::Unanswerable(format!("the table has no column {name}; it has {}", self.columns.join(", "))).into())
    }

    pub(crate) fn sort(&mut self, keys: &[SortKey]) -> anyhow::Result<()> {
        let keys: Vec<(usize, bool)> =
            keys.iter().map(|key| Ok((self.column(&key.field)?, key.descending))).collect::<anyhow::Result<_>>()?;
        self.rows.sort_by(|a, b| compare_rows(a, b, &keys));
        Ok(())
    }

    pub(crate) fn select(&mut self, names: &[String]) -> anyhow::Result<()> {
        let places: Vec<usize> = names.iter().map(|name| self.column(name)).collect::<anyhow::Result<_>>()?;
        for row in &mut self.rows {
            *row = places.iter().map(|at| row[*at].clone()).collect();
        }
        self.columns = names.to_vec();
        Ok(())
    }

    /// Keeps the rows that pass: each is judged as a record whose fields are the columns.
    pub(crate) fn filter(&mut self, condition: &Query) -> anyhow::Result<()> {
        let fields = Fields { index: Vec::new(), text: Vec::new(), ids: Vec::new(), numbers: Vec::new() };
        let mut matcher = Matcher::new(condition, &fields)?;
        let mut line = Vec::new();
        let columns = &self.columns;
        self.rows.retain(|row| {
            line.clear();
            for (name, cell) in columns.iter().zip(row) {
                line.push(if line.is_empty() { b'{' } else { b',' });
                write_string(name, &mut line);
                line.push(b':');
                cell.write_json(&mut line);
            }
            line.push(b'}');
            matcher.matches(Row { line: &line, tenant: None, severity: None })
        });
        Ok(())
    }
}
