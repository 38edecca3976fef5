//! `weir sql`: answers one SQL statement over the tables of a data folder.
//!
//! In: a statement that reads. Out: a table, or with `--json` and `--csv` rows for programs. What is not sealed yet is found like
//! everything else. A statement that is wrong exits 2 and shows where; an answer that is not whole exits 1 and says why.

use super::Mistake;
use super::search::tell;
use crate::desk::{self, Question};
use crate::statement::{SqlPiece, Statement};
use anyhow::Context;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

pub struct Options {
    pub statement: Statement,
    pub data: PathBuf,
    pub explain: bool,
}

pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut answer = desk::ask(&options.data, &Question::Sql(options.statement))?;
    let mut code = ExitCode::SUCCESS;
    while let Some(line) = answer.line()? {
        match serde_json::from_str(&line).with_context(|| format!("not a piece of an answer: {line}"))? {
            SqlPiece::Rows(len) => out.write_all(&answer.bytes(len)?)?,
            SqlPiece::Mistake(text) => return Err(Mistake(text).into()),
            SqlPiece::Done(done) => {
                out.flush()?;
                tell(&done, options.explain);
                if done.partial.is_some() {
                    code = ExitCode::from(1);
                }
            }
        }
    }
    out.flush()?;
    Ok(code)
}
