//! `weir eval EXPR [FILE...]`: what an expression gives on real lines.
//!
//! In: an expression as `when` and `shape.set` take it, and lines of JSON. Out: for each line its value as JSON, or why it has
//! none; then how often what came of it. Where there is no value and the text is a condition, what `when` makes of the line stands
//! before the reason.

use super::lines::each_line;
use super::{Mistake, say};
use flow::condition::{Condition, Expression};
use flow::fields::{FIELDS_MAX, FieldSet, Scanner, Span};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Longest piece of a line that is shown beside its value.
const SHOWN_BYTES_MAX: usize = 160;

pub struct Options {
    pub expression: String,
    pub files: Vec<PathBuf>,
    /// At most this many lines.
    pub limit: Option<u64>,
    pub json: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut paths: Vec<String> = Vec::new();
    let expression = Expression::parse(&options.expression, &mut |path| number(&mut paths, path)).map_err(|error| {
        let caret = format!("{}^", " ".repeat(options.expression[..error.at.min(options.expression.len())].chars().count()));
        Mistake(format!("{}\n  {}\n  {caret}\n  help: {}", error.message, options.expression, error.help))
    })?;
    let condition = Condition::parse(&options.expression, &mut |path| number(&mut paths, path)).ok();
    if paths.len() > FIELDS_MAX {
        return Err(Mistake(format!("the expression names {} fields; {FIELDS_MAX} are possible", paths.len())).into());
    }
    let mut scanner = Scanner::new(Arc::new(FieldSet::new(&paths)));
    let mut spans = vec![Span::default(); paths.len()];
    let mut tally = Tally::default();
    let standard_input = [PathBuf::from("-")];
    let files = if options.files.is_empty() { standard_input.as_slice() } else { &options.files };
    for file in files {
        each_line(file, &mut |line| {
            if options.limit.is_some_and(|limit| tally.lines >= limit) {
                return Ok(ControlFlow::Break(()));
            }
            tally.lines += 1;
            let malformed = scanner.scan(line, &mut spans).malformed.is_some();
            let found = if malformed { Err("the line is no JSON object") } else { expression.value(line, &spans) };
            // Conditions mean something without a field, and whatever the line is.
            let holds = condition.as_ref().filter(|_| found.is_err()).map(|condition| {
                spans.iter_mut().filter(|_| malformed).for_each(|span| *span = Span::default());
                condition.matches_one(line, &spans)
            });
            tally.count(&found, holds);
            say(&row(tally.lines, &found, holds, line, options.json))?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    if !options.json {
        say(&tally.summary())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn number(paths: &mut Vec<String>, path: &str) -> usize {
    paths.iter().position(|known| known == path).unwrap_or_else(|| {
        paths.push(path.to_string());
        paths.len() - 1
    })
}

fn row(line_number: u64, found: &Result<Vec<u8>, &'static str>, holds: Option<bool>, line: &[u8], json: bool) -> String {
    if json {
        return match (found, holds) {
            (Ok(value), _) => format!("{{\"line\":{line_number},\"value\":{}}}\n", String::from_utf8_lossy(value)),
            (Err(why), Some(holds)) => format!("{{\"line\":{line_number},\"holds\":{holds},\"error\":\"{why}\"}}\n"),
            (Err(why), None) => format!("{{\"line\":{line_number},\"error\":\"{why}\"}}\n"),
        };
    }
    let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES_MAX)]);
    match found {
        Ok(value) => format!("{}\t{shown}\n", String::from_utf8_lossy(value)),
        Err(why) => format!("{} ({why})\t{shown}\n", holds.map_or("-".into(), |holds| holds.to_string())),
    }
}

#[derive(Default)]
struct Tally {
    lines: u64,
    is_true: u64,
    is_false: u64,
    values: u64,
    errors: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn count(&mut self, found: &Result<Vec<u8>, &'static str>, holds: Option<bool>) {
        match (found.as_deref(), holds) {
            (Ok(b"true"), _) | (Err(_), Some(true)) => self.is_true += 1,
            (Ok(b"false"), _) | (Err(_), Some(false)) => self.is_false += 1,
            (Ok(_), _) => self.values += 1,
            (Err(why), None) => *self.errors.entry(why).or_default() += 1,
        }
    }

    fn summary(&self) -> String {
        let mut parts = Vec::new();
        let kinds = [(self.is_true, "true"), (self.is_false, "false"), (self.values, "with a value")];
        parts.extend(kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")));
        parts.extend(self.errors.iter().map(|(why, count)| format!("{count} without one ({why})")));
        format!("{} lines: {}\n", self.lines, if parts.is_empty() { "none".into() } else { parts.join(", ") })
    }
}
