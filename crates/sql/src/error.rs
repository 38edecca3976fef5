//! What can go wrong with a query, for the one who wrote it and for the one who runs the lake.
//!
//! In: errors of the parser, the planner and the operators; out: a message with the line, a caret under the fault and the way out
//! where they are known. A mistake of the query (exit 2) is told from a failure of the world (exit 1).

use crate::guard::QUERY_BYTES_MAX;
use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use flow::units::ByteSize;
use lake::tables::Table;
use std::fmt;

/// Longest stretch of the query's line that an error shows.
const EXCERPT_CHARS_MAX: usize = 120;

#[derive(Debug)]
pub enum SqlError {
    /// The query is wrong or asks for what is not there: exit 2.
    Mistake(Mistake),
    /// The query needs more than `query.memory`: exit 1.
    Memory { bytes_max: u64, what: String },
    /// The query reads more of files than `query.read_bytes_max`: exit 1.
    Bytes { bytes_max: u64 },
    /// A file cannot be read, or the engine failed: exit 1.
    World(anyhow::Error),
}

impl SqlError {
    /// Whether the query has to change, and not the world.
    pub fn is_mistake(&self) -> bool {
        matches!(self, SqlError::Mistake(_))
    }
}

/// What is wrong with a query, where, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub message: String,
    /// Line and column, both from 1; `None` where nobody knows.
    pub place: Option<(usize, usize)>,
    /// Empty where there is none.
    pub help: String,
    /// The line of the query around the fault, and the characters before the caret.
    excerpt: Option<(String, usize)>,
}

impl std::error::Error for SqlError {}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlError::Mistake(mistake) => mistake.fmt(f),
            SqlError::Memory { bytes_max, what } => write!(
                f,
                "the query needs more memory than query.memory allows, {}: {what}\n  help: narrow the time, group by or sort fewer rows, or raise query.memory",
                ByteSize(*bytes_max)
            ),
            SqlError::Bytes { bytes_max } => {
                write!(f, "{}\n  help: narrow the time, or name fewer columns", TooMuch { bytes_max: *bytes_max })
            }
            SqlError::World(error) => write!(f, "{error:#}"),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "query:{line}:{column}: {}", self.message)?,
            None => write!(f, "query: {}", self.message)?,
        }
        if let Some((text, before)) = &self.excerpt {
            write!(f, "\n  {text}\n  {:before$}^", "")?;
        }
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n  help: {}", self.help) }
    }
}

impl Mistake {
    /// `place`: line and column from 1, in characters.
    pub(crate) fn new(sql: &str, place: Option<(usize, usize)>, message: impl Into<String>, help: impl Into<String>) -> Mistake {
        let excerpt = place.and_then(|(line, column)| excerpt(sql, line, column));
        Mistake { message: one_line(&message.into()), place, help: help.into(), excerpt }
    }
}

/// A part of the line that holds the fault, and the fault's place in it, in characters.
fn excerpt(sql: &str, line: usize, column: usize) -> Option<(String, usize)> {
    let text: Vec<char> = sql.lines().nth(line.checked_sub(1)?)?.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let at = column.checked_sub(1)?.min(text.len());
    let start = at.saturating_sub(EXCERPT_CHARS_MAX / 2);
    let end = text.len().min(start + EXCERPT_CHARS_MAX);
    Some((text[start..end].iter().collect(), at - start))
}

/// The first kilobyte of a message: some repeat the query, which may be long.
fn one_line(message: &str) -> String {
    let mut text: String = message.chars().take(1024).collect();
    if text.len() < message.len() {
        text.push_str(" ...");
    }
    text
}

/// What a failure of DataFusion means to a person. `bytes_max`: `query.memory`.
pub(crate) fn explain(error: DataFusionError, sql: &str, bytes_max: u64) -> SqlError {
    let place = diagnostic(&error).and_then(|found| found.span).map(|span| (span.start.line as usize, span.start.column as usize));
    let helps = diagnostic(&error).map(|found| found.helps.iter().map(|help| help.message.clone()).collect::<Vec<_>>());
    let help = helps.and_then(|helps| helps.into_iter().next()).unwrap_or_default();
    let mistake = |message: String, help: String| SqlError::Mistake(Mistake::new(sql, place, message, help));
    match root(error) {
        DataFusionError::SQL(error, _) => SqlError::Mistake(syntax(&error, sql)),
        DataFusionError::ResourcesExhausted(what) => SqlError::Memory { bytes_max, what: first_line(&what) },
        DataFusionError::SchemaError(error, _) => {
            let (message, help) = schema_error(&error, help);
            mistake(message, help)
        }
        DataFusionError::Plan(message) => match missing_table(&message) {
            Some(name) => mistake(format!("there is no table {}", quoted(name)), table_help(name)),
            None => mistake(message, help),
        },
        DataFusionError::NotImplemented(message) => mistake(format!("not possible here: {message}"), help),
        DataFusionError::Execution(message) => mistake(message, help),
        DataFusionError::Configuration(message) => mistake(message, help),
        DataFusionError::ArrowError(error, _) => match *error {
            arrow @ (datafusion::arrow::error::ArrowError::IoError(..) | datafusion::arrow::error::ArrowError::ParquetError(_)) => {
                SqlError::World(anyhow::Error::new(arrow))
            }
            arrow => mistake(arrow.to_string(), help),
        },
        DataFusionError::External(error) => match error.downcast::<Failed>() {
            Ok(failed) => match failed.0.downcast_ref::<TooMuch>() {
                Some(TooMuch { bytes_max }) => SqlError::Bytes { bytes_max: *bytes_max },
                None => SqlError::World(failed.0),
            },
            Err(other) => SqlError::World(anyhow::anyhow!("{other}")),
        },
        other => SqlError::World(anyhow::Error::new(other)),
    }
}

/// Reading was ended by a bound.
#[derive(Debug)]
pub(crate) struct TooMuch {
    pub bytes_max: u64,
}

impl std::error::Error for TooMuch {}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the query reads more of stored files than query.read_bytes_max allows, {}", ByteSize(self.bytes_max))
    }
}

/// A failure of reading, on its way through DataFusion.
#[derive(Debug)]
pub(crate) struct Failed(pub anyhow::Error);

impl std::error::Error for Failed {}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

pub(crate) fn failed(error: anyhow::Error) -> DataFusionError {
    DataFusionError::External(Box::new(Failed(error)))
}

fn diagnostic(error: &DataFusionError) -> Option<&Diagnostic> {
    match error {
        DataFusionError::Diagnostic(found, inner) => diagnostic(inner).or(Some(found)),
        DataFusionError::Context(_, inner) => diagnostic(inner),
        DataFusionError::Shared(inner) => diagnostic(inner),
        DataFusionError::Collection(all) => all.first().and_then(diagnostic),
        _ => None,
    }
}

/// The error without what was wrapped around it.
fn root(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root(*inner),
        DataFusionError::Collection(mut all) if !all.is_empty() => root(all.swap_remove(0)),
        DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
            Ok(inner) => root(inner),
            Err(shared) => shared_root(&shared),
        },
        DataFusionError::ArrowError(arrow, text) => match *arrow {
            datafusion::arrow::error::ArrowError::ExternalError(inner) => match inner.downcast::<DataFusionError>() {
                Ok(inner) => root(*inner),
                Err(other) => DataFusionError::External(other),
            },
            arrow => DataFusionError::ArrowError(Box::new(arrow), text),
        },
        other => other,
    }
}

/// Several partitions may hold one error: what it says is copied.
fn shared_root(error: &DataFusionError) -> DataFusionError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(what) => DataFusionError::ResourcesExhausted(what.clone()),
        DataFusionError::Execution(what) => DataFusionError::Execution(what.clone()),
        DataFusionError::External(error) => match error.downcast_ref::<Failed>().and_then(|failed| failed.0.downcast_ref::<TooMuch>()) {
            Some(TooMuch { bytes_max }) => failed(TooMuch { bytes_max: *bytes_max }.into()),
            None => failed(anyhow::anyhow!("{error}")),
        },
        other => DataFusionError::Internal(other.to_string()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches([':', '.']).to_owned()
}

/// The name in the planner's `table 'weir.public.log' not found`.
fn missing_table(message: &str) -> Option<&str> {
    let name = message.strip_prefix("table '")?.strip_suffix("' not found")?;
    Some(name.strip_prefix("weir.public.").unwrap_or(name))
}

fn table_help(name: &str) -> String {
    match nearest(name, &Table::ALL.map(Table::name)) {
        Some(near) => format!("did you mean {near}?"),
        None => "the tables are logs, metrics, traces, usage, charges and lineage".to_owned(),
    }
}

fn schema_error(error: &SchemaError, help: String) -> (String, String) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            let help = match nearest(&field.name, &known) {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None if known.is_empty() => help,
                None => format!("the columns are {}", known.iter().take(40).map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
            };
            (format!("there is no column {}", quoted(&field.name)), help)
        }
        SchemaError::AmbiguousReference { field } => {
            (format!("the column {} is in several tables", quoted(&field.name)), "write it as table.column".to_owned())
        }
        other => (other.to_string(), help),
    }
}

/// A name as it has to be written: capitals and signs need quotation marks.
fn quoted(name: &str) -> String {
    let plain =
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The known name that is nearest, where it is near: at most a third of its letters differ.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().take(64).collect();
    let far = |other: &str| distance(&name, &other.to_lowercase().chars().take(64).collect::<Vec<_>>());
    let best = known.iter().map(|other| (far(other), *other)).min()?;
    (best.0 <= name.len().max(3) / 3).then_some(best.1)
}

/// Letters to change, add or leave out (Levenshtein 1965).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// A parser's error: it tells the place in its text, as `... at Line: 1, Column: 8`.
pub(crate) fn syntax(error: &ParserError, sql: &str) -> Mistake {
    match error {
        ParserError::RecursionLimitExceeded => Mistake::new(
            sql,
            None,
            "the query is nested too deep",
            format!("brackets and subqueries go {} levels deep at most", crate::DEPTH_MAX),
        ),
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            let (message, place) = split_place(text);
            let end = || (sql.lines().count().max(1), sql.lines().last().map_or(0, |line| line.chars().count()) + 1);
            let place = place.or_else(|| message.ends_with("found: EOF").then(end));
            Mistake::new(sql, place, message, "")
        }
    }
}

fn split_place(text: &str) -> (&str, Option<(usize, usize)>) {
    let Some((message, rest)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let place = rest.split_once(", Column: ").and_then(|(line, column)| Some((line.trim().parse().ok()?, column.trim().parse().ok()?)));
    match place {
        // Line 0 is the parser's word for the end of the text.
        Some((0, _)) | None => (message, None),
        place => (message, place),
    }
}

pub(crate) fn too_long(sql: &str) -> Mistake {
    Mistake::new(sql, None, "the query is too long", format!("a query has at most {}", ByteSize(QUERY_BYTES_MAX as u64)))
}
