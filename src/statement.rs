//! One SQL statement, asked of all lakes of a data folder.
//!
//! In: a statement, a tenant, bounds; out: rows as text, batch by batch, and what they cost. What is not sealed yet is found like
//! everything else: the tail is taken before the snapshot. A file that was merged away in between makes the statement start anew, as
//! long as nothing was handed out, at most [`STARTS_MAX`] times. Bounds: [`Statement`]; an answer that reaches one says so.

use crate::desk::{Desk, DoneLine, OpenLake};
use crate::env;
use crate::inquiry::{STARTS_MAX, are_outdated};
use anyhow::bail;
use flow::units::ByteSize;
use serde::{Deserialize, Serialize};
use sql::{Format, Partial, Printer, Source, SqlError, SqlOptions, Stats};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is asked, and how much the answer may cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Statement {
    pub sql: String,
    /// Only this tenant's rows exist.
    pub tenant: Option<String>,
    pub format: Format,
    /// More rows than these are told of and not given.
    pub rows_max: u64,
    pub memory_bytes: u64,
    /// Bytes of stored files; a statement that reads more has no answer.
    pub read_bytes_max: Option<u64>,
    pub deadline: Duration,
}

/// A line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqlPiece {
    /// So many bytes of rows follow, and a newline.
    Rows(usize),
    /// The statement is wrong, and where. Nothing follows.
    Mistake(String),
    /// The last one.
    Done(DoneLine),
}

impl Desk {
    /// Hands out the rows as text, in pieces of whole lines.
    pub fn rows(&self, statement: &Statement, show: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<Stats, SqlError> {
        let begun = Instant::now();
        let is_over = || begun.elapsed() >= statement.deadline;
        let options = SqlOptions {
            tenant: statement.tenant.as_ref().map(|tenant| tenant.as_bytes().to_vec()),
            memory_bytes_max: statement.memory_bytes,
            read_bytes_max: statement.read_bytes_max,
            rows_max: statement.rows_max,
            now: env::now(),
            is_over: &is_over,
        };
        let mut start = 1;
        loop {
            // A sum over a part of the rows would be wrong.
            let lakes = self.whole_lakes().map_err(SqlError::World)?;
            let sources = lakes.iter().map(|lake| self.source(lake)).collect();
            let (mut printer, mut text, mut shown) = (Printer::new(statement.format), String::new(), false);
            let answer = sql::query(sources, &statement.sql, &options, &mut |batch| {
                text.clear();
                printer.add(batch, &mut text);
                shown |= !text.is_empty();
                if text.is_empty() { ControlFlow::Continue(()) } else { show(&text) }
            });
            match answer {
                Err(SqlError::World(_)) if !shown && start < STARTS_MAX && are_outdated(&lakes).map_err(SqlError::World)? => start += 1,
                answer => return answer,
            }
        }
    }

    fn source(&self, lake: &OpenLake) -> Source {
        Source { writer: self.writers.get(&lake.root).cloned(), snapshot: Arc::clone(&lake.snapshot), tail: lake.tail.clone() }
    }

    /// Writes the answer for the one who asked over the socket.
    pub fn write_rows(&self, statement: &Statement, out: &mut dyn Write) -> anyhow::Result<()> {
        let (mut broken, mut begun) = (Ok(()), false);
        let answer = self.rows(statement, &mut |text| {
            let begin = if std::mem::replace(&mut begun, true) { Ok(()) } else { writeln!(out, "ok") };
            broken = begin.and_then(|()| write_piece(out, &SqlPiece::Rows(text.len()))).and_then(|()| writeln!(out, "{text}"));
            if broken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        broken?;
        let last = match answer {
            Ok(stats) => {
                let partial = stats.partial.map(|partial| why(partial, statement));
                SqlPiece::Done(DoneLine { cost: cost(&stats), partial, warnings: Vec::new() })
            }
            Err(SqlError::Mistake(mistake)) => SqlPiece::Mistake(mistake.to_string()),
            Err(error) => bail!("{error}"),
        };
        if !begun {
            writeln!(out, "ok")?;
        }
        Ok(write_piece(out, &last)?)
    }
}

fn write_piece(out: &mut dyn Write, piece: &SqlPiece) -> std::io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(piece).expect("plain data"))
}

/// Why an answer is not whole.
pub fn why(partial: Partial, statement: &Statement) -> String {
    match partial {
        Partial::Rows => format!("there are more than {} rows", statement.rows_max),
        Partial::Time => format!("the {} s for one question were over", statement.deadline.as_secs_f64()),
        Partial::Receiver => "the answer is larger than it may be".to_owned(),
    }
}

/// What an answer cost, by name.
pub fn cost(stats: &Stats) -> Vec<(String, String)> {
    let of = |part: u64, whole: u64| format!("{part} of {whole}");
    let cost = [
        ("files read", of(stats.files_read, stats.files)),
        ("row groups read", of(stats.groups_read, stats.groups)),
        ("bytes read of files", ByteSize(stats.bytes_read).to_string()),
        ("rows read of files", stats.rows_read.to_string()),
        ("rows read of the tail", stats.tail_rows.to_string()),
        ("rows", stats.rows.to_string()),
    ];
    cost.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
