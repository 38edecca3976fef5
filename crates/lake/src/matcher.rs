//! Says whether a row answers a query, from the row's own bytes.
//!
//! In: a parsed query, the names of text and id fields, and rows; out: yes or no. This is the only judge: an
//! index merely proposes rows. A field reads as text: strings unescaped, bytes that are no UTF-8 as U+FFFD,
//! numbers as written; null and absent are the same. `message`, `trace_id` and `span_id` stand for these fields under every name
//! that loggers give them. A line that is no JSON object is all text. A query may
//! name [`FIELDS_MAX`](flow::fields::FIELDS_MAX) fields, text and id fields included; beyond it is refused.

use crate::Fields;
use crate::query::{Decimal, Node, Op, Query, Test};
use crate::words::words;
use flow::conventions;
use flow::event::Severity;
use flow::fields::{FIELDS_MAX, FieldSet, Kind, Scanner, Span};
use std::borrow::Cow;
use std::sync::Arc;

/// What is known of a row besides its bytes. Loose lines have neither: then the line's own `tenant` and
/// `level` speak.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub line: &'a [u8],
    pub tenant: Option<&'a [u8]>,
    pub severity: Option<Severity>,
}

/// One test of a row, with everything looked up that can be.
#[derive(Debug)]
pub(crate) enum Check {
    All,
    Not(Box<Check>),
    And(Vec<Check>),
    Or(Vec<Check>),
    /// Words that follow one another in a text field, or the whole of an id field.
    Bare {
        words: Vec<String>,
        whole: String,
    },
    /// A word of a text field, or the whole of an id field.
    BareGlob(Vec<String>),
    /// All words, anywhere in the field.
    TextWords {
        field: usize,
        words: Vec<String>,
    },
    /// Words that follow one another in the field.
    TextPhrase {
        field: usize,
        words: Vec<String>,
    },
    /// A word of the field, in lower case.
    TextGlob {
        field: usize,
        parts: Vec<String>,
    },
    Contains {
        field: usize,
        text: String,
    },
    Equals {
        field: usize,
        text: String,
    },
    Glob {
        field: usize,
        parts: Vec<String>,
    },
    Exists {
        field: usize,
    },
    Compare {
        field: usize,
        op: Op,
        number: Decimal,
    },
    /// The field's text in any case, or the record's severity.
    Level {
        text: String,
        class: Option<(Severity, Severity)>,
    },
    LevelCompare {
        op: Op,
        class: (Severity, Severity),
    },
    Tenant(TenantTest),
}

#[derive(Debug)]
pub(crate) enum TenantTest {
    Equals(String),
    Glob(Vec<String>),
    Any,
    Never,
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
        let mut slot = |name: &str| match names.iter().position(|n| n == name) {
            Some(at) => at,
            None => {
                names.push(name.to_owned());
                names.len() - 1
            }
        };
        let (level, tenant) = (slot("level"), slot("tenant"));
        let text: Vec<usize> = fields.text.iter().map(|name| slot(name)).collect();
        let ids: Vec<usize> = fields.ids.iter().map(|name| slot(name)).collect();
        let check = bind(&query.root, fields, &mut slot);
        if names.len() > FIELDS_MAX {
            anyhow::bail!("the query names too many fields: {} with the text and id fields, {FIELDS_MAX} are possible", names.len());
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

/// Resolves a query's names; `slot` gives each field name its number.
fn bind(node: &Node, fields: &Fields, slot: &mut impl FnMut(&str) -> usize) -> Check {
    match node {
        Node::All => Check::All,
        Node::Not(node) => Check::Not(Box::new(bind(node, fields, slot))),
        Node::And(nodes) => Check::And(nodes.iter().map(|n| bind(n, fields, slot)).collect()),
        Node::Or(nodes) => Check::Or(nodes.iter().map(|n| bind(n, fields, slot)).collect()),
        Node::Leaf { field: None, test } => bind_bare(test),
        Node::Leaf { field: Some(name), test } if name == "tenant" => Check::Tenant(bind_tenant(test)),
        Node::Leaf { field: Some(name), test } if !conventions::spellings(name).is_empty() => {
            let each = |own: &&str| bind_field(own, test, fields.text.iter().any(|text| text == own), slot(own));
            Check::Or(conventions::spellings(name).iter().map(each).collect())
        }
        Node::Leaf { field: Some(name), test } => bind_field(name, test, fields.text.contains(name), slot(name)),
    }
}

fn bind_bare(test: &Test) -> Check {
    match test {
        Test::Word(text) | Test::Phrase(text) => Check::Bare { words: split(text), whole: text.clone() },
        Test::Glob(parts) => Check::BareGlob(parts.clone()),
        // The parser makes `All` of a bare star and knows no bare comparison.
        Test::Exists | Test::Compare(..) => Check::All,
    }
}

fn bind_tenant(test: &Test) -> TenantTest {
    match test {
        Test::Word(text) | Test::Phrase(text) => TenantTest::Equals(text.clone()),
        Test::Glob(parts) => TenantTest::Glob(parts.clone()),
        Test::Exists => TenantTest::Any,
        Test::Compare(..) => TenantTest::Never,
    }
}

fn bind_field(name: &str, test: &Test, is_text: bool, field: usize) -> Check {
    match test {
        Test::Word(text) | Test::Phrase(text) if name == "level" => Check::Level { text: text.clone(), class: severity_class(text) },
        Test::Compare(op, value) => match (Decimal::parse(value), severity_class(value)) {
            (Some(number), _) => Check::Compare { field, op: *op, number },
            (None, Some(class)) => Check::LevelCompare { op: *op, class },
            (None, None) => Check::Not(Box::new(Check::All)),
        },
        Test::Exists => Check::Exists { field },
        Test::Word(text) | Test::Phrase(text) if !is_text => Check::Equals { field, text: text.clone() },
        Test::Word(text) | Test::Phrase(text) => {
            let words = split(text);
            match test {
                // Nothing but signs: looked for as it stands.
                _ if words.is_empty() => Check::Contains { field, text: text.clone() },
                Test::Word(_) => Check::TextWords { field, words },
                _ => Check::TextPhrase { field, words },
            }
        }
        Test::Glob(parts) if is_text && is_one_word(parts) => Check::TextGlob { field, parts: parts.iter().map(|p| lower(p)).collect() },
        Test::Glob(parts) => Check::Glob { field, parts: parts.clone() },
    }
}

fn split(text: &str) -> Vec<String> {
    words(text).map(Cow::into_owned).collect()
}

fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn is_one_word(parts: &[String]) -> bool {
    parts.iter().all(|p| p.chars().all(char::is_alphanumeric))
}

fn holds(check: &Check, reader: &Reader, row: Row<'_>) -> bool {
    let line = row.line;
    match check {
        Check::All => true,
        Check::Not(check) => !holds(check, reader, row),
        Check::And(checks) => checks.iter().all(|c| holds(c, reader, row)),
        Check::Or(checks) => checks.iter().any(|c| holds(c, reader, row)),
        Check::Bare { words, whole } => {
            reader.any_text(line, |text| if words.is_empty() { text.contains(whole.as_str()) } else { has_phrase(text, words) })
                || reader.any_id(line, |text| text == whole)
        }
        Check::BareGlob(parts) => {
            let lowered: Vec<String> = parts.iter().map(|p| lower(p)).collect();
            reader.any_text(line, |text| words(text).any(|word| glob_matches(&lowered, &word)))
                || reader.any_id(line, |text| glob_matches(parts, text))
        }
        Check::TextWords { field, words } => reader.has(*field, line, |text| words.iter().all(|w| has_word(text, w))),
        Check::TextPhrase { field, words } => reader.has(*field, line, |text| has_phrase(text, words)),
        Check::TextGlob { field, parts } => reader.has(*field, line, |text| words(text).any(|word| glob_matches(parts, &word))),
        Check::Contains { field, text } => reader.has(*field, line, |have| have.contains(text.as_str())),
        Check::Equals { field, text } => reader.has(*field, line, |have| have == text),
        Check::Glob { field, parts } => reader.has(*field, line, |have| glob_matches(parts, have)),
        Check::Exists { field } => reader.has(*field, line, |_| true),
        Check::Compare { field, op, number } => {
            reader.has(*field, line, |have| Decimal::parse(have).is_some_and(|have| op.holds(have.cmp(number))))
        }
        Check::Level { text, class } => {
            reader.has(reader.level, line, |have| lower(have) == lower(text))
                || class.is_some_and(|c| (c.0..=c.1).contains(&severity(reader, row)))
        }
        Check::LevelCompare { op, class } => {
            let severity = severity(reader, row);
            let order = if severity < class.0 {
                std::cmp::Ordering::Less
            } else if severity > class.1 {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Equal
            };
            severity != 0 && op.holds(order)
        }
        Check::Tenant(test) => match row.tenant {
            Some(tenant) => tenant_holds(test, &String::from_utf8_lossy(tenant)),
            None => reader.has(reader.tenant, line, |have| tenant_holds(test, have)),
        },
    }
}

pub(crate) fn tenant_holds(test: &TenantTest, tenant: &str) -> bool {
    match test {
        TenantTest::Equals(text) => tenant == text,
        TenantTest::Glob(parts) => glob_matches(parts, tenant),
        TenantTest::Any => true,
        TenantTest::Never => false,
    }
}

/// The record's severity; a loose line's is read from its level.
fn severity(reader: &Reader, row: Row<'_>) -> Severity {
    let span = reader.spans[reader.level];
    row.severity.unwrap_or_else(|| flow::severity::parse(span.raw(row.line), span.kind))
}

/// First and last severity number of the class that a level's name belongs to.
pub(crate) fn severity_class(name: &str) -> Option<(Severity, Severity)> {
    match flow::severity::parse(name.as_bytes(), Kind::Text) {
        0 => None,
        severity => Some(((severity - 1) / 4 * 4 + 1, (severity - 1) / 4 * 4 + 4)),
    }
}

fn has_word(text: &str, word: &str) -> bool {
    words(text).any(|w| w == word)
}

fn has_phrase(text: &str, phrase: &[String]) -> bool {
    let [first, rest @ ..] = phrase else { return false };
    let mut from = words(text);
    while let Some(word) = from.next() {
        if word == first.as_str() {
            let mut follow = words(from.rest());
            if rest.iter().all(|want| follow.next().is_some_and(|have| have == want.as_str())) {
                return true;
            }
        }
    }
    false
}

/// `parts`: the literal stretches between the stars, at least two.
pub(crate) fn glob_matches(parts: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = parts else { return parts.iter().any(|p| p == text) };
    let Some(mut rest) = text.strip_prefix(first.as_str()).and_then(|t| t.strip_suffix(last.as_str())) else { return false };
    for part in middle {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, line: &str, want: bool) {
        let mut matcher = Matcher::new(&Query::parse(query).unwrap(), &Fields::default()).unwrap();
        let got = matcher.matches(Row { line: line.as_bytes(), tenant: Some(b"acme"), severity: Some(13) });
        assert_eq!(got, want, "{query} on {line}");
    }

    #[test]
    fn words_phrases_and_fields_match_as_the_manual_says() {
        let line =
            r#"{"msg":"Conn-Reset by\tpeer É","service":"auth api","n":12.50,"trace_id":"ab-12","a":{"b":["x"]},"z":null,"ok":true}"#;
        for (query, want) in [
            ("conn", true),
            ("CONN", true),
            ("con", false),
            ("con*", true),
            ("*ese*", true),
            ("conn-reset", true),
            ("reset-conn", false),
            ("\"reset by peer é\"", true),
            ("\"conn by\"", false),
            ("msg:peer-conn", true),
            ("msg:\"peer conn\"", false),
            ("msg:pe*r", true),
            ("msg:\"-\"", true),
            ("msg:\"+\"", false),
            ("ab-12", true),
            ("ab", false),
            ("service:auth", false),
            ("service:\"auth api\"", true),
            ("service:auth*", true),
            ("service:*API", false),
            ("n:12.50", true),
            ("n:12.5", false),
            ("n:>=12.5 n:<=12.500 n:<13 n:>12", true),
            ("a.b:\"[\\\"x\\\"]\"", true),
            ("z:*", false),
            ("ok:true", true),
            ("nothing:*", false),
            ("level:warn", true),
            ("level:WARNING", true),
            ("level:error", false),
            ("level:>=warn level:<error", true),
            ("level:>warn", false),
            ("tenant:acme", true),
            ("tenant:ac*", true),
            ("-tenant:acme", false),
            ("tenant:other OR (conn -auth)", true),
        ] {
            check(query, line, want);
        }
    }

    #[test]
    fn the_level_field_matches_in_any_case_beside_the_severity() {
        check("level:error", r#"{"level":"ERROR"}"#, true);
        check("level:odd", r#"{"level":"Odd"}"#, true);
        check("level:odd", r#"{"level":"even"}"#, false);
    }

    #[test]
    fn a_line_that_is_no_json_is_all_text() {
        check("lost", "connection lost {", true);
        check("\"connection lost\"", "connection lost {", true);
        check("msg:lost", "connection lost {", false);
        check("lost", r#"{"other":"lost"}"#, false);
    }

    #[test]
    fn stars_match_in_order_and_without_overlap() {
        for (parts, text, want) in [
            (vec!["a", "a"], "a", false),
            (vec!["a", "a"], "aa", true),
            (vec!["", "b", ""], "abc", true),
            (vec!["a", "b", "b"], "ab", false),
            (vec!["", ""], "", true),
        ] {
            let parts: Vec<String> = parts.into_iter().map(str::to_owned).collect();
            assert_eq!(glob_matches(&parts, text), want, "{parts:?} {text}");
        }
    }

    #[test]
    fn too_many_fields_are_refused() {
        let query: String = (0..70).map(|i| format!("f{i}:x ")).collect();
        assert!(Matcher::new(&Query::parse(&query).unwrap(), &Fields::default()).is_err());
    }
}
