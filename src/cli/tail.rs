//! `weir tail`: records of a running process as they are kept, those that answer a query.
//!
//! In: a query. Out: one record a line, as `weir search` prints them. What went by unread, because whoever reads us is slower
//! than what comes, is told on standard error.

use super::Mistake;
use super::look::Printer;
use crate::desk::{self, IDLE, MISSED, Piece, Question};
use anyhow::{Context, bail};
use flow::units::UnixNanos;
use lake::Query;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

pub struct Options {
    pub query: String,
    pub data: PathBuf,
    pub tenant: Option<String>,
    pub limit: Option<usize>,
    pub printer: Printer,
}

pub fn run(mut options: Options) -> anyhow::Result<ExitCode> {
    let query = Query::parse(&options.query).map_err(|e| Mistake(e.to_string()))?;
    let limit = query.tail_limit().map_err(Mistake)?;
    let question = Question::Follow { query: options.query.clone(), tenant: options.tenant.clone() };
    let mut answer = desk::ask_running(&options.data, &question)?;
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut left = options.limit.into_iter().chain(limit).min().unwrap_or(usize::MAX);
    while left > 0 {
        let Some(line) = answer.line()? else { break };
        if line == IDLE {
            out.flush()?;
        } else if let Some(missed) = line.strip_prefix(MISSED) {
            eprintln!("{missed} records went by unread: they came faster than they were taken");
        } else {
            let piece = serde_json::from_str(&line).with_context(|| format!("not a hit: {line}"))?;
            let Piece::Hit(hit) = piece else { bail!("not a hit: {line}") };
            let raw = answer.bytes(hit.len)?;
            options.printer.print(&mut out, UnixNanos(hit.time), hit.severity, hit.tenant.as_bytes(), &raw)?;
            left -= 1;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
