//! Says whether a row answers a query, from the row's own bytes.
//!
//! In: a parsed query, the names of text and id fields, and rows; out: yes or no. This is the only judge: an
//! index merely proposes rows. A field reads as text: strings unescaped, bytes that are no UTF-8 as U+FFFD,
//! numbers as written; null and absent are the same. `message`, `trace_id` and `span_id` stand for these fields under every name
//! that loggers give them. A line that is no JSON object is all text. A query may
//! name [`FIELDS_MAX`](flow::fields::FIELDS_MAX) fields, text and id fields included; beyond it is refused.
//!
//! Read `bind` for what each form of a query means, and this file for how a row is judged.

mod bind;

#[cfg(test)]
mod tests;

pub(crate) use bind::{Check, Limit, TenantTest};

use crate::Fields;
use crate::query::Query;
use crate::words::{lower, words};
use flow::decimal::small_integer;
use flow::event::Severity;
use flow::fields::{FIELDS_MAX, FieldSet, Kind, Scanner, Span};
use flow::time::TimeParser;
use hashbrown::HashSet;
use std::cmp::Ordering;
use std::sync::Arc;

/// What is known of a row besides its bytes. Loose lines have neither: then the line's own `tenant` and
/// `level` speak.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub line: &'a [u8],
    pub tenant: Option<&'a [u8]>,
    pub severity: Option<Severity>,
}

pub(crate) struct Matcher {
    pub check: Check,
    reader: Reader,
}

/// Finds the fields of one line and reads them as text.
struct Reader {
    fields: Arc<FieldSet>,
    scanner: Scanner,
    spans: Vec<Span>,
    malformed: bool,
    text: Vec<usize>,
    ids: Vec<usize>,
    level: usize,
    tenant: usize,
}

impl Matcher {
    /// Refuses a query that names too many fields.
    pub(crate) fn new(query: &Query, fields: &Fields) -> anyhow::Result<Matcher> {
        let mut names: Vec<String> = Vec::new();
        let mut surplus = false;
        let mut slot = |name: &str| match names.iter().position(|n| n == name) {
            Some(at) => at,
            None if names.len() == FIELDS_MAX => {
                surplus = true;
                0
            }
            None => {
                names.push(name.to_owned());
                names.len() - 1
            }
        };
        let (level, tenant) = (slot("level"), slot("tenant"));
        let text: Vec<usize> = fields.text.iter().map(|name| slot(name)).collect();
        let ids: Vec<usize> = fields.ids.iter().map(|name| slot(name)).collect();
        let check = bind::bind(&query.root, fields, &mut slot);
        if surplus {
            crate::unanswerable!("the query names too many fields: {FIELDS_MAX} are possible, the text and id fields included");
        }
        let fields = Arc::new(FieldSet::new(&names));
        let spans = vec![Span::default(); fields.len()];
        let scanner = Scanner::new(Arc::clone(&fields));
        Ok(Matcher { check, reader: Reader { fields, scanner, spans, malformed: false, text, ids, level, tenant } })
    }

    pub(crate) fn matches(&mut self, row: Row<'_>) -> bool {
        if matches!(self.check, Check::All) {
            return true;
        }
        self.reader.scan(row.line);
        holds(&self.check, &self.reader, row)
    }

    /// The fields that bare words look at, by number.
    pub(crate) fn bare_fields(&self) -> impl Iterator<Item = usize> {
        self.reader.text.iter().chain(&self.reader.ids).copied()
    }

    /// Whether a line that has these fields side by side, in this order and by their whole names, is read as having each and no other.
    pub(crate) fn reads_flat(&self, fields: impl Iterator<Item = usize>) -> bool {
        let fields: Vec<usize> = fields.collect();
        let text = |field: &usize| format!("value {field}");
        let members = fields.iter().map(|field| format!("{}:\"{}\"", serde_json::Value::from(self.names()[*field].as_str()), text(field)));
        let line = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        let mut spans = vec![Span::default(); self.reader.spans.len()];
        Scanner::new(Arc::clone(&self.reader.fields)).scan(line.as_bytes(), &mut spans);
        spans.iter().enumerate().all(|(at, span)| {
            let want = fields.contains(&at).then(|| text(&at));
            span.text(line.as_bytes()).as_deref() == want.as_deref().map(str::as_bytes)
        })
    }

    /// The names of the fields that checks refer to by number.
    pub(crate) fn names(&self) -> &[String] {
        self.reader.fields.paths()
    }
}

impl Reader {
    fn scan(&mut self, line: &[u8]) {
        self.malformed = self.scanner.scan(line, &mut self.spans).malformed.is_some();
    }

    fn with_text<R>(&self, field: usize, line: &[u8], f: impl FnOnce(&str) -> R) -> Option<R> {
        let bytes = self.spans[field].text(line)?;
        Some(f(&String::from_utf8_lossy(&bytes)))
    }

    fn has(&self, field: usize, line: &[u8], f: impl FnOnce(&str) -> bool) -> bool {
        self.with_text(field, line, f).unwrap_or(false)
    }

    /// Whether any text field, or a line that is no JSON, passes `f`.
    fn any_text(&self, line: &[u8], f: impl Fn(&str) -> bool) -> bool {
        if self.malformed {
            return f(&String::from_utf8_lossy(line));
        }
        self.text.iter().any(|field| self.has(*field, line, &f))
    }

    fn any_id(&self, line: &[u8], f: impl Fn(&str) -> bool) -> bool {
        self.ids.iter().any(|field| self.has(*field, line, &f))
    }
}

fn holds(check: &Check, reader: &Reader, row: Row<'_>) -> bool {
    let line = row.line;
    match check {
        Check::All => true,
        Check::Not(check) => !holds(check, reader, row),
        Check::And(checks) => checks.iter().all(|c| holds(c, reader, row)),
        Check::Or(checks) => checks.iter().any(|c| holds(c, reader, row)),
        Check::Bare { phrase, whole } => {
            reader.any_text(line, |text| if phrase.words.is_empty() { text.contains(whole.as_str()) } else { phrase.is_in(text) })
                || reader.any_id(line, |text| text == whole)
        }
        Check::BareGlob { glob, lowered } => {
            reader.any_text(line, |text| words(text).any(|word| lowered.matches(&word))) || reader.any_id(line, |text| glob.matches(text))
        }
        Check::BareRegex(pattern) => reader.any_text(line, |text| pattern.matches(text)),
        Check::TextWords { field, words } => reader.has(*field, line, |text| has_words(text, words)),
        Check::TextPhrase { field, phrase } => reader.has(*field, line, |text| phrase.is_in(text)),
        Check::TextGlob { field, glob } => reader.has(*field, line, |text| words(text).any(|word| glob.matches(&word))),
        Check::Contains { field, text } => reader.has(*field, line, |have| have.contains(text.as_str())),
        Check::Equals { field, text } => reader.has(*field, line, |have| have == text),
        Check::Glob { field, glob } => reader.has(*field, line, |have| glob.matches(have)),
        Check::Regex { field, pattern } => reader.has(*field, line, |have| pattern.matches(have)),
        Check::Exists { field } => reader.has(*field, line, |_| true),
        Check::Range { field, limits } => reader.has(*field, line, |have| limits.iter().all(|limit| limit.holds(have))),
        Check::Level { text, class } => {
            reader.has(reader.level, line, |have| lower(have) == lower(text))
                || class.is_some_and(|c| (c.0..=c.1).contains(&severity(reader, row)))
        }
        Check::LevelLimit { is_low, inclusive, class } => {
            let severity = severity(reader, row);
            let order = if severity < class.0 {
                Ordering::Less
            } else if severity > class.1 {
                Ordering::Greater
            } else {
                Ordering::Equal
            };
            severity != 0 && within(order, *is_low, *inclusive)
        }
        Check::Tenant(test) => match row.tenant {
            Some(tenant) => tenant_holds(test, &String::from_utf8_lossy(tenant)),
            None => reader.has(reader.tenant, line, |have| tenant_holds(test, have)),
        },
    }
}

/// Whether a value that stands so to a bound is on its inner side.
pub(crate) fn within(order: Ordering, is_low: bool, inclusive: bool) -> bool {
    match order {
        Ordering::Equal => inclusive,
        Ordering::Less => !is_low,
        Ordering::Greater => is_low,
    }
}

impl Limit {
    /// A value that is no number is on no side of a number, one that is no time on no side of a time.
    pub(crate) fn holds(&self, have: &str) -> bool {
        self.order(have).is_some_and(|order| within(order, self.is_low, self.inclusive))
    }

    /// Whether only the number counts, however it is written.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self.value, bind::Value::Number { .. })
    }

    /// The float nearest to the number that it is.
    pub(crate) fn nearest_float(&self) -> Option<f64> {
        match &self.value {
            bind::Value::Number { text, .. } => text.parse().ok(),
            _ => None,
        }
    }

    fn order(&self, have: &str) -> Option<Ordering> {
        match &self.value {
            bind::Value::Number { small: Some(small), .. } if let Some(have) = small_integer(have.as_bytes()) => Some(have.cmp(small)),
            bind::Value::Number { exact, .. } => Some(crate::query::Decimal::parse(have)?.cmp(exact)),
            bind::Value::Time(time) => Some(TimeParser::new().parse(have.as_bytes(), Kind::Text)?.cmp(time)),
            bind::Value::Text(text) => Some(have.as_bytes().cmp(text.as_bytes())),
        }
    }
}

pub(crate) fn tenant_holds(test: &TenantTest, tenant: &str) -> bool {
    match test {
        TenantTest::Equals(text) => tenant == text,
        TenantTest::Glob(glob) => glob.matches(tenant),
        TenantTest::Regex(pattern) => pattern.matches(tenant),
        TenantTest::Range(limits) => limits.iter().all(|limit| limit.holds(tenant)),
        TenantTest::Any => true,
    }
}

/// The record's severity; a loose line's is read from its level.
fn severity(reader: &Reader, row: Row<'_>) -> Severity {
    let span = reader.spans[reader.level];
    row.severity.unwrap_or_else(|| flow::severity::parse(span.raw(row.line), span.kind))
}

/// Whether the text has all the words, in any order.
fn has_words(text: &str, wanted: &[String]) -> bool {
    if let [word] = wanted {
        return words(text).any(|w| w == word.as_str());
    }
    let mut missing: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    words(text).any(|word| missing.remove(word.as_ref()) && missing.is_empty())
}
