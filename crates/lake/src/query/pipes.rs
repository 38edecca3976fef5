//! What follows `|`: how rows become a table.
//!
//! In: the text after the filters; out: a chain of [`Pipe`]s whose columns fit one another. A pipe that is
//! misspelt, lacks something or names a column that the table before it has not is an error with the nearest name.

use super::error::{QueryError, nearest};
use super::parser::Parser;
use super::when::parse_span;
use super::{GROUP_COLUMNS_MAX, PIPES_MAX, Query};
use flow::units::Span;

/// One step from rows to a table, or from a table to the next.
#[derive(Clone, Debug, PartialEq)]
pub enum Pipe {
    /// One row for each combination of values of `by`.
    Stats {
        calls: Vec<Call>,
        by: Vec<String>,
    },
    /// The `n` most frequent combinations of values, or with `rare` the least frequent ones.
    Top {
        n: usize,
        by: Vec<String>,
        rare: bool,
    },
    Sort(Vec<SortKey>),
    Fields(Vec<String>),
    Limit(usize),
    /// Lines before and after each record in its stream: the search fetches them.
    Context(usize),
    /// The `n` most frequent templates of messages.
    Patterns {
        n: usize,
    },
    /// As `Stats`, for each stretch of time; without `span` some sixty of them.
    Timechart {
        span: Option<Span>,
        calls: Vec<Call>,
        by: Vec<String>,
    },
    /// Rows that pass; its pipes and time words are empty.
    Where(Query),
}

impl Pipe {
    /// As it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Pipe::Stats { .. } => "stats",
            Pipe::Top { rare: false, .. } => "top",
            Pipe::Top { .. } => "rare",
            Pipe::Sort(_) => "sort",
            Pipe::Fields(_) => "fields",
            Pipe::Limit(_) => "limit",
            Pipe::Context(_) => "context",
            Pipe::Patterns { .. } => "patterns",
            Pipe::Timechart { .. } => "timechart",
            Pipe::Where(_) => "where",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    pub field: String,
    pub descending: bool,
}

/// A function over the records of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub function: Function,
    /// `None` for `count()` and `weight()`.
    pub field: Option<String>,
    /// The column: what follows `as`, else the call as it is written.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Records; with a field those that have it.
    Count,
    /// Records that the kept ones stand for.
    Weight,
    Sum,
    Avg,
    Min,
    Max,
    /// Of a thousand values so many are not above it.
    Percentile(u16),
    /// Different values.
    Uniq,
}

/// Rows that `top`, `rare` and `patterns` give where no number says how many.
const ROWS_DEFAULT: usize = 10;
const PATTERNS_DEFAULT: usize = 50;
/// Most lines of context on one side.
const CONTEXT_MAX: usize = 1000;
/// Most rows that a number may ask for; the memory that they take is bounded elsewhere.
const ROWS_MAX: usize = 1_000_000;
/// Calls and names in one list.
const LIST_MAX: usize = 64;

const PIPES: [&str; 11] = ["stats", "top", "rare", "sort", "fields", "limit", "head", "context", "patterns", "timechart", "where"];
const FUNCTIONS: [&str; 12] = ["count", "weight", "sum", "avg", "min", "max", "p50", "p90", "p95", "p99", "p99.9", "uniq"];
/// What `patterns` gives.
pub(crate) const PATTERN_COLUMNS: [&str; 5] = ["pattern", "count", "first", "last", "example"];

impl Parser<'_> {
    /// Reads pipes up to the end of the text.
    pub(super) fn pipes(&mut self, pipes: &mut Vec<Pipe>) -> Result<(), QueryError> {
        loop {
            self.skip_space();
            let at = self.at;
            match self.peek() {
                None => return Ok(()),
                Some('|') => self.at += 1,
                Some(_) => {
                    self.fault(at, "a pipe ends here", "write | before the next one, or a comma in a list")?;
                    self.skip_to_pipe();
                    continue;
                }
            }
            if pipes.len() == PIPES_MAX {
                self.at = self.text.len();
                return self.fault(at, "the query has too many pipes", format!("{PIPES_MAX} are possible"));
            }
            match self.pipe(pipes) {
                Ok(Some(pipe)) => pipes.push(pipe),
                Ok(None) => {}
                Err(error) => {
                    self.note(error)?;
                    self.skip_to_pipe();
                }
            }
        }
    }

    fn skip_to_pipe(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find('|').unwrap_or(rest.len());
    }

    /// One pipe. In lenient mode too an error leaves it out: half a pipe would answer something else.
    fn pipe(&mut self, before: &[Pipe]) -> Result<Option<Pipe>, QueryError> {
        self.skip_space();
        let at = self.at;
        let word = self.bare_name();
        let pipe = match word.as_str() {
            "stats" => self.stats()?,
            "top" | "rare" => self.top(word == "rare")?,
            "sort" => self.sort()?,
            "fields" => {
                let names = self.names("fields time, service")?;
                self.columns = Some(names.clone());
                Pipe::Fields(names)
            }
            "limit" | "head" => {
                Pipe::Limit(self.number(ROWS_MAX)?.ok_or_else(|| self.error(self.at, "a number is missing after limit", "write limit 10"))?)
            }
            "context" => self.context(at, before)?,
            "patterns" => self.patterns(at)?,
            "timechart" => self.timechart(at)?,
            "where" => Pipe::Where(self.condition()?),
            "" => return Err(self.error(at, "a pipe is missing here", format!("it is one of {}", PIPES.join(", ")))),
            other => return Err(self.error(at, format!("there is no pipe {other}"), meant(other, &PIPES))),
        };
        if matches!(pipe, Pipe::Stats { .. } | Pipe::Top { .. } | Pipe::Patterns { .. } | Pipe::Timechart { .. })
            && before.iter().any(|pipe| matches!(pipe, Pipe::Context(_)))
        {
            return Err(self.error(
                at,
                format!("{word} cannot follow context"),
                "lines around a hit are shown, not counted: leave context out",
            ));
        }
        Ok(Some(pipe))
    }

    fn stats(&mut self) -> Result<Pipe, QueryError> {
        let mut by = self.by()?;
        let calls = self.calls("stats")?;
        if by.is_empty() {
            by = self.by()?;
        }
        self.new_columns(by.clone(), &calls)?;
        Ok(Pipe::Stats { calls, by })
    }

    fn top(&mut self, rare: bool) -> Result<Pipe, QueryError> {
        let n = self.number(ROWS_MAX)?.unwrap_or(ROWS_DEFAULT);
        let at = self.at;
        let mut by = self.by()?;
        if by.is_empty() {
            by = self.names(if rare { "rare 10 service" } else { "top 10 service" })?;
        }
        self.bounded_groups(at, &by)?;
        let count = Call { function: Function::Count, field: None, name: "count".into() };
        self.new_columns(by.clone(), &[count])?;
        Ok(Pipe::Top { n, by, rare })
    }

    fn sort(&mut self) -> Result<Pipe, QueryError> {
        if self.keyword("by") {
            self.skip_space();
        }
        let mut keys: Vec<SortKey> = Vec::new();
        loop {
            let field = self.name("sort count desc")?;
            let descending = self.keyword("desc");
            if !descending {
                self.keyword("asc");
            }
            keys.push(SortKey { field, descending });
            if !self.comma(keys.len())? {
                return Ok(Pipe::Sort(keys));
            }
        }
    }

    fn context(&mut self, at: usize, before: &[Pipe]) -> Result<Pipe, QueryError> {
        if !before.iter().all(|pipe| matches!(pipe, Pipe::Limit(_) | Pipe::Where(_))) {
            return Err(self.error(
                at,
                "context comes first",
                "lines around a hit are fetched before anything else: write it as the first pipe",
            ));
        }
        let n = self.number(CONTEXT_MAX)?;
        n.map(Pipe::Context).ok_or_else(|| self.error(self.at, "a number is missing after context", "write context 5"))
    }

    fn patterns(&mut self, at: usize) -> Result<Pipe, QueryError> {
        if self.columns.is_some() {
            return Err(self.error(at, "patterns are made of records, and here is a table", "write it as the first pipe"));
        }
        let n = self.number(ROWS_MAX)?.unwrap_or(PATTERNS_DEFAULT);
        self.columns = Some(PATTERN_COLUMNS.map(String::from).to_vec());
        Ok(Pipe::Patterns { n })
    }

    fn timechart(&mut self, at: usize) -> Result<Pipe, QueryError> {
        if self.columns.as_ref().is_some_and(|columns| !columns.iter().any(|c| c == "time")) {
            return Err(self.error(at, "timechart needs a time, and this table has no column time", "write it as the first pipe"));
        }
        self.skip_space();
        let span_at = self.at;
        let mut span = None;
        if self.peek().is_some_and(|c| c.is_ascii_digit()) {
            let text = self.bare_name();
            let nanos = parse_span(&text).filter(|n| *n > 0);
            let Some(nanos) = nanos else {
                return Err(self.error(span_at, format!("{text:?} is no span of time"), "write timechart 5m count() by level"));
            };
            span = Some(Span(nanos));
        }
        let mut by = self.by()?;
        let calls = self.calls("timechart")?;
        if by.is_empty() {
            by = self.by()?;
        }
        if let Some(at) = by.iter().position(|name| name == "time") {
            by.remove(at); // it is there already
        }
        let mut columns = vec!["time".to_owned()];
        columns.extend(by.iter().cloned());
        self.new_columns(columns, &calls)?;
        Ok(Pipe::Timechart { span, calls, by })
    }

    /// The table has these columns from here on; no two may have one name.
    fn new_columns(&mut self, mut columns: Vec<String>, calls: &[Call]) -> Result<(), QueryError> {
        columns.extend(calls.iter().map(|call| call.name.clone()));
        for (i, name) in columns.iter().enumerate() {
            if columns[..i].contains(name) {
                return Err(self.error(
                    self.at,
                    format!("two columns are called {name}"),
                    format!("name one of them: count() as {name}_2"),
                ));
            }
        }
        self.columns = Some(columns);
        Ok(())
    }

    fn calls(&mut self, pipe: &str) -> Result<Vec<Call>, QueryError> {
        let mut calls = Vec::new();
        loop {
            calls.push(self.call(pipe)?);
            if !self.comma(calls.len())? {
                return Ok(calls);
            }
        }
    }

    /// `sum(x) as total`.
    fn call(&mut self, pipe: &str) -> Result<Call, QueryError> {
        self.skip_space();
        let at = self.at;
        let word = self.bare_name();
        if word.is_empty() {
            return Err(self.error(at, format!("a function is missing after {pipe}"), format!("write {pipe} count() by (service)")));
        }
        let function = match word.as_str() {
            "count" => Function::Count,
            "weight" => Function::Weight,
            "sum" => Function::Sum,
            "avg" => Function::Avg,
            "min" => Function::Min,
            "max" => Function::Max,
            "uniq" => Function::Uniq,
            other => self.percentile(at, other)?,
        };
        self.skip_space();
        if self.peek() != Some('(') {
            let example =
                if matches!(function, Function::Count | Function::Weight) { format!("{word}()") } else { format!("{word}(latency_ms)") };
            return Err(self.error(self.at, format!("brackets are missing after {word}"), format!("write {example}")));
        }
        self.at += 1;
        self.skip_space();
        let mut field = None;
        if self.peek() != Some(')') {
            field = Some(self.name(&format!("{word}(latency_ms)"))?);
        }
        self.skip_space();
        if self.peek() != Some(')') {
            return Err(self.error(
                self.at,
                format!("the bracket of {word} is never closed"),
                format!("write {word}({})", field.as_deref().unwrap_or_default()),
            ));
        }
        self.at += 1;
        match (&field, function) {
            (None, Function::Count | Function::Weight) | (Some(_), Function::Count) => {}
            (Some(_), Function::Weight) => {
                return Err(self.error(at, "weight() has no field", "every record has one weight: write weight()"));
            }
            (Some(_), _) => {}
            (None, _) => return Err(self.error(at, format!("{word} needs a field"), format!("write {word}(latency_ms)"))),
        }
        let mut name = format!("{word}({})", field.as_deref().unwrap_or_default());
        if self.keyword("as") {
            self.skip_space();
            let name_at = self.at;
            name = self.any_name()?;
            if name.is_empty() {
                return Err(self.error(name_at, "a name is missing after as", format!("write {word}(...) as total")));
            }
        }
        Ok(Call { function, field, name })
    }

    /// `p50`, `p99.9`.
    fn percentile(&self, at: usize, word: &str) -> Result<Function, QueryError> {
        let digits = word.strip_prefix('p').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let Some(digits) = digits else {
            return Err(self.error(at, format!("there is no function {word}"), meant(word, &FUNCTIONS)));
        };
        let (whole, tenth) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = tenth.len() == 1 && whole.len() <= 3 && whole.bytes().chain(tenth.bytes()).all(|b| b.is_ascii_digit());
        let thousandths = if is_number { format!("{whole}{tenth}").parse::<u16>().ok().filter(|n| *n <= 1000) } else { None };
        thousandths.map(Function::Percentile).ok_or_else(|| {
            self.error(
                at,
                format!("{word} is no percentile"),
                "they go from p0 to p100, with at most one digit after the point, as in p99.9",
            )
        })
    }

    /// `by (a, b)` or `by a, b`; empty if there is no `by`.
    fn by(&mut self) -> Result<Vec<String>, QueryError> {
        if !self.keyword("by") {
            return Ok(Vec::new());
        }
        self.skip_space();
        let at = self.at;
        let names = self.names("by (service, level)")?;
        self.bounded_groups(at, &names)?;
        Ok(names)
    }

    fn bounded_groups(&self, at: usize, names: &[String]) -> Result<(), QueryError> {
        if names.len() <= GROUP_COLUMNS_MAX {
            return Ok(());
        }
        Err(self.error(at, format!("these are {} columns to group by", names.len()), format!("{GROUP_COLUMNS_MAX} are possible")))
    }

    /// `a, b` or `(a, b)`, each name once.
    fn names(&mut self, example: &str) -> Result<Vec<String>, QueryError> {
        self.skip_space();
        let open = self.at;
        let in_brackets = self.peek() == Some('(');
        self.at += usize::from(in_brackets);
        let mut names: Vec<String> = Vec::new();
        let mut read = 0;
        loop {
            let name = self.name(example)?;
            read += 1;
            if !names.contains(&name) {
                names.push(name);
            }
            if !self.comma(read)? {
                break;
            }
        }
        if in_brackets {
            self.skip_space();
            if self.peek() != Some(')') {
                return Err(self.error(open, "this bracket is never closed", format!("write {example}")));
            }
            self.at += 1;
        }
        Ok(names)
    }

    fn comma(&mut self, so_far: usize) -> Result<bool, QueryError> {
        self.skip_space();
        if self.peek() != Some(',') {
            return Ok(false);
        }
        if so_far >= LIST_MAX {
            return Err(self.error(self.at, "this list is too long", format!("{LIST_MAX} are possible")));
        }
        self.at += 1;
        Ok(true)
    }

    /// A field of records, or a column of the table before.
    fn name(&mut self, example: &str) -> Result<String, QueryError> {
        self.skip_space();
        let at = self.at;
        let name = self.any_name()?;
        if name.is_empty() {
            return Err(self.error(at, "a field is missing here", format!("write {example}")));
        }
        // A column that is not there fails the pipe, in lenient mode too.
        let lenient = std::mem::replace(&mut self.lenient, false);
        let outcome = self.mention(at, &name);
        self.lenient = lenient;
        outcome.map(|()| name)
    }

    fn any_name(&mut self) -> Result<String, QueryError> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let mut name = self.bare_name();
        // A column of a table may be called `count()`.
        if self.columns.is_some() && self.peek() == Some('(') {
            let rest = &self.text[self.at..];
            if let Some(end) = rest.bytes().take(256).position(|b| b == b')') {
                name.extend(rest[..=end].chars().filter(|c| !c.is_whitespace()));
                self.at += end + 1;
            }
        }
        Ok(name)
    }

    /// Up to a blank, a comma, a bracket, a quote or a pipe; a backslash takes the next character as it is.
    fn bare_name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, ',' | '(' | ')' | '"' | '|') {
                break;
            }
            self.at += c.len_utf8();
            if c != '\\' {
                name.push(c);
            } else if let Some(next) = self.peek() {
                name.push(next);
                self.at += next.len_utf8();
            }
        }
        name
    }

    /// Takes the word if it stands here.
    fn keyword(&mut self, word: &str) -> bool {
        self.skip_space();
        let Some(rest) = self.text[self.at..].strip_prefix(word) else { return false };
        let ends = rest.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ',' | '|' | '"'));
        if ends {
            self.at += word.len();
        }
        ends
    }

    /// A whole number up to `max`, if one stands here.
    fn number(&mut self, max: usize) -> Result<Option<usize>, QueryError> {
        self.skip_space();
        let at = self.at;
        let digits = self.text[at..].bytes().take_while(u8::is_ascii_digit).count();
        let rest = &self.text[at + digits..];
        let ends = rest.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '|'));
        if digits == 0 || !ends {
            return Ok(None);
        }
        self.at += digits;
        match self.text[at..at + digits].parse::<usize>() {
            Ok(n) if n <= max => Ok(Some(n)),
            _ => Err(self.error(at, "this number is too large", format!("{max} is the most"))),
        }
    }
}

fn meant(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("it is one of {}", known.join(", ")),
    }
}
