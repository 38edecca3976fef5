//! The query line: text in, a tree of tests and a chain of pipes out, or an error that points at the fault.
//!
//! `level:error AND (model:"x" OR latency_ms:>500) -service:auth since:15m | stats count() by (service)`. Words
//! side by side mean AND; AND binds tighter than OR; `-` and NOT turn a test around. A backslash takes the next
//! character as it is. What a test means is told in `matcher`, what a pipe does in `pipes`.
//!
//! Read in this order: `parser` (how tests are joined), `value` (what they look for), `pipes` (what follows `|`), then the words they use: `pattern`
//! (stars and regexes), `decimal`, `when`, `error`. Bounds: [`QUERY_BYTES_MAX`] of text, [`DEPTH_MAX`] levels,
//! [`TESTS_MAX`] tests, [`REGEXES_MAX`] regexes, [`PIPES_MAX`] pipes; beyond them a query is refused. Parsing takes time in
//! proportion to the text.

mod parser;
mod value;

mod pipes;

mod decimal;
mod error;
mod pattern;
mod when;

#[cfg(test)]
mod tests;

pub(crate) use decimal::Decimal;
pub use error::QueryError;
pub(crate) use error::nearest;
pub(crate) use pattern::{Glob, Pattern};
pub(crate) use pipes::PATTERN_COLUMNS;
pub use pipes::{Call, Function, Pipe, SortKey};
pub use when::When;
pub(crate) use when::parse_stamp;

use flow::conventions;
use flow::units::UnixNanos;

pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// Brackets and negations inside one another.
pub const DEPTH_MAX: usize = 100;
/// Words, phrases and values of fields: each is one look at every row.
pub const TESTS_MAX: usize = 1_000;
/// Each may take a mebibyte compiled.
pub const REGEXES_MAX: usize = 16;
pub const PIPES_MAX: usize = 16;
/// Columns that one pipe groups by.
pub const GROUP_COLUMNS_MAX: usize = 8;

/// What is known of every record besides the fields of its line, for pipes.
pub(crate) const RECORD_FIELDS: [&str; 7] = ["time", "severity", "level", "tenant", "weight", "stream", "position"];

/// A parsed query. It knows no schema: what is a text field is decided where it is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub(crate) root: Node,
    /// Only rows from this moment on.
    pub since: Option<When>,
    /// Only rows before this moment.
    pub until: Option<When>,
    /// What happens to the rows, in order.
    pub pipes: Vec<Pipe>,
    /// As it was written, for errors that are found later.
    text: String,
    /// Fields of records that it names, with the byte offsets where it does.
    mentions: Vec<(usize, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    All,
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// `field`: `None` for a bare word or phrase.
    Leaf {
        field: Option<String>,
        test: Test,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Word(String),
    Phrase(String),
    /// The whole value, also of a text field.
    Exact(String),
    Glob(Glob),
    Regex(Pattern),
    Exists,
    Range(Range),
}

/// From `low` to `high`; at least one of them is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub low: Option<Bound>,
    pub high: Option<Bound>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub text: String,
    pub inclusive: bool,
}

impl Query {
    /// Reads a query; the error is the first one from the left that matters.
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        parser::parse(text)
    }

    /// The best query that can be made of any text, and what is wrong with it.
    ///
    /// An unclosed bracket or quote is closed, a stray one is left out, a bad range or regex is looked for as
    /// words, a bad pipe is left out. Without errors it is what [`Query::parse`] gives.
    pub fn parse_lenient(text: &str) -> (Query, Vec<QueryError>) {
        parser::parse_lenient(text)
    }

    /// Every row.
    pub fn all() -> Query {
        Query { root: Node::All, since: None, until: None, pipes: Vec::new(), text: String::new(), mentions: Vec::new() }
    }

    /// First and last moment that rows may have: from the first on, before the last.
    pub fn range(&self, now: UnixNanos) -> (Option<UnixNanos>, Option<UnixNanos>) {
        (self.since.map(|when| when.resolve(now)), self.until.map(|when| when.resolve(now)))
    }

    /// Whether the answer is a table that a `Pipeline` makes; else it is records, as many as `limit` says, with `context` around them.
    pub fn makes_table(&self) -> bool {
        !self.pipes.iter().all(|pipe| matches!(pipe, Pipe::Limit(_) | Pipe::Context(_)))
    }

    /// The most records asked for, where the answer is records.
    pub fn limit(&self) -> Option<usize> {
        let limits = self.pipes.iter().take_while(|pipe| matches!(pipe, Pipe::Limit(_) | Pipe::Context(_)));
        limits.filter_map(|pipe| if let Pipe::Limit(n) = pipe { Some(*n) } else { None }).min()
    }

    /// The most records asked for of those that are yet to come. The error says what has no meaning there: times and all other pipes.
    pub fn tail_limit(&self) -> Result<Option<usize>, String> {
        if self.since.is_some() || self.until.is_some() {
            return Err("what is yet to come has no since: and until:; ask `weir search` for what was".into());
        }
        match self.pipes.iter().find(|pipe| !matches!(pipe, Pipe::Limit(_))) {
            None => Ok(self.limit()),
            Some(pipe) => Err(format!("what is yet to come has no end: | {} needs one; ask `weir search`, or leave it out", pipe.name())),
        }
    }

    /// How many lines before and after each hit in its stream are asked for.
    pub fn context(&self) -> Option<usize> {
        self.pipes.iter().find_map(|pipe| if let Pipe::Context(n) = pipe { Some(*n) } else { None })
    }

    /// The fields of records that filters and pipes name, each once, in order of the text.
    pub fn fields(&self) -> Vec<&str> {
        let mut seen = std::collections::HashSet::new();
        self.mentions.iter().map(|(_, name)| name.as_str()).filter(|name| seen.insert(*name)).collect()
    }

    /// An error for each field that nobody knows, with the nearest one that somebody does.
    ///
    /// `known`: the fields that records have. What every record has (its time, level, tenant and the like) need
    /// not be there, nor the names that stand for several spellings.
    pub fn unknown_fields(&self, known: &[&str]) -> Vec<QueryError> {
        let own = RECORD_FIELDS.into_iter().chain(["message", "trace_id", "span_id", "_line"]);
        let all: std::collections::HashSet<&str> = known.iter().copied().chain(own).collect();
        let unknown = self.mentions.iter().filter(|(_, name)| !all.contains(name.as_str()) && conventions::spellings(name).is_empty());
        let mut seen = std::collections::HashSet::new();
        unknown
            .filter(|(_, name)| seen.insert(name))
            .take(ERRORS_MAX)
            .map(|(at, name)| {
                let help = nearest(name, all.iter().copied()).map_or(String::new(), |meant| format!("did you mean {meant}?"));
                QueryError::new(&self.text, *at, format!("no record has a field {name}"), help)
            })
            .collect()
    }
}

/// Errors that are told of one query; the rest is left out.
const ERRORS_MAX: usize = 32;
