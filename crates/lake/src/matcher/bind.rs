//! From a query's tree to tests of rows: names become numbers, and each form gets its meaning.
//!
//! In: the tree, and which fields are text; out: checks. A word on a text field is looked for among its words,
//! elsewhere it is the whole value; `field:=value` is always the whole value. A bound of a range that is a number
//! compares numbers, one that is a time of RFC 3339 compares times, a level's name on `level` compares severities,
//! any other compares text by its bytes. A regex may match anywhere in the value.

use crate::Fields;
use crate::query::{Bound, Decimal, Glob, Node, Pattern, Range, Test, parse_stamp};
use crate::words::words;
use flow::conventions;
use flow::decimal::small_integer;
use flow::event::Severity;
use flow::fields::Kind;
use flow::units::UnixNanos;
use std::borrow::Cow;

/// One test of a row, with everything looked up that can be.
#[derive(Debug)]
pub(crate) enum Check {
    All,
    Not(Box<Check>),
    And(Vec<Check>),
    Or(Vec<Check>),
    /// Words that follow one another in a text field, or the whole of an id field.
    Bare {
        phrase: Phrase,
        whole: String,
    },
    /// A word of a text field, in lower case, or the whole of an id field.
    BareGlob {
        glob: Glob,
        lowered: Glob,
    },
    /// Anywhere in a text field.
    BareRegex(Pattern),
    /// All words, anywhere in the field.
    TextWords {
        field: usize,
        words: Vec<String>,
    },
    /// Words that follow one another in the field.
    TextPhrase {
        field: usize,
        phrase: Phrase,
    },
    /// A word of the field, in lower case.
    TextGlob {
        field: usize,
        glob: Glob,
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
        glob: Glob,
    },
    Regex {
        field: usize,
        pattern: Pattern,
    },
    Exists {
        field: usize,
    },
    /// The value is on the inner side of each limit.
    Range {
        field: usize,
        limits: Vec<Limit>,
    },
    /// The field's text in any case, or the record's severity.
    Level {
        text: String,
        class: Option<(Severity, Severity)>,
    },
    LevelLimit {
        is_low: bool,
        inclusive: bool,
        class: (Severity, Severity),
    },
    Tenant(TenantTest),
}

/// Words that follow one another.
#[derive(Debug)]
pub(crate) struct Phrase {
    pub words: Vec<String>,
    /// Of each beginning of the words: how many words at its end are the beginning again (Knuth, Morris, Pratt 1977).
    back: Vec<usize>,
}

impl Phrase {
    fn new(words: Vec<String>) -> Phrase {
        let mut back = vec![0; words.len()];
        for at in 1..words.len() {
            let mut same = back[at - 1];
            while same > 0 && words[same] != words[at] {
                same = back[same - 1];
            }
            back[at] = same + usize::from(words[same] == words[at]);
        }
        Phrase { words, back }
    }

    /// Whether the text has the words in a row; each of its words is looked at a bounded number of times.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let mut found = 0;
        for word in words(text) {
            while found > 0 && self.words[found] != word {
                found = self.back[found - 1];
            }
            found += usize::from(self.words[found] == word);
            if found == self.words.len() {
                return true;
            }
        }
        false
    }
}

/// One end of a range.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub value: Value,
    pub is_low: bool,
    pub inclusive: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `text`: as it was written. `small`: the same as a machine's integer, where it is one.
    Number {
        text: String,
        exact: Decimal,
        small: Option<i64>,
    },
    Time(UnixNanos),
    Text(String),
}

#[derive(Debug)]
pub(crate) enum TenantTest {
    Equals(String),
    Glob(Glob),
    Regex(Pattern),
    Range(Vec<Limit>),
    Any,
}

/// Resolves a query's names; `slot` gives each field name its number.
pub(super) fn bind(node: &Node, fields: &Fields, slot: &mut impl FnMut(&str) -> usize) -> Check {
    match node {
        Node::All => Check::All,
        Node::Not(node) => Check::Not(Box::new(bind(node, fields, slot))),
        Node::And(nodes) => Check::And(nodes.iter().map(|n| bind(n, fields, slot)).collect()),
        Node::Or(nodes) => Check::Or(nodes.iter().map(|n| bind(n, fields, slot)).collect()),
        Node::Leaf { field: None, test } => bind_bare(test),
        Node::Leaf { field: Some(name), test } if name == "tenant" => Check::Tenant(bind_tenant(test)),
        Node::Leaf { field: Some(name), test: Test::Range(range) } if name == "level" => bind_levels(range, slot("level")),
        Node::Leaf { field: Some(name), test } if !conventions::spellings(name).is_empty() => {
            let each = |own: &&str| bind_field(own, test, fields.text.iter().any(|text| text == own), slot(own));
            Check::Or(conventions::spellings(name).iter().map(each).collect())
        }
        Node::Leaf { field: Some(name), test } => bind_field(name, test, fields.text.contains(name), slot(name)),
    }
}

fn bind_bare(test: &Test) -> Check {
    match test {
        Test::Word(text) | Test::Phrase(text) | Test::Exact(text) => Check::Bare { phrase: Phrase::new(split(text)), whole: text.clone() },
        Test::Glob(glob) => Check::BareGlob { glob: glob.clone(), lowered: glob.lower() },
        Test::Regex(pattern) => Check::BareRegex(pattern.clone()),
        // The parser makes `All` of a bare star and knows no bare range.
        Test::Exists | Test::Range(_) => Check::All,
    }
}

fn bind_tenant(test: &Test) -> TenantTest {
    match test {
        Test::Word(text) | Test::Phrase(text) | Test::Exact(text) => TenantTest::Equals(text.clone()),
        Test::Glob(glob) => TenantTest::Glob(glob.clone()),
        Test::Regex(pattern) => TenantTest::Regex(pattern.clone()),
        Test::Exists => TenantTest::Any,
        Test::Range(range) => TenantTest::Range(limits(range)),
    }
}

/// Each end is a level's name, or else a bound of the field's own value.
fn bind_levels(range: &Range, field: usize) -> Check {
    let end = |bound: &Bound, is_low: bool| match severity_class(&bound.text) {
        Some(class) if Decimal::parse(&bound.text).is_none() => Check::LevelLimit { is_low, inclusive: bound.inclusive, class },
        _ => Check::Range { field, limits: vec![limit(bound, is_low)] },
    };
    let low = range.low.iter().map(|bound| end(bound, true));
    let high = range.high.iter().map(|bound| end(bound, false));
    Check::And(low.chain(high).collect())
}

fn bind_field(name: &str, test: &Test, is_text: bool, field: usize) -> Check {
    match test {
        Test::Word(text) | Test::Phrase(text) if name == "level" => Check::Level { text: text.clone(), class: severity_class(text) },
        Test::Exists => Check::Exists { field },
        Test::Exact(text) => Check::Equals { field, text: text.clone() },
        Test::Word(text) | Test::Phrase(text) if !is_text => Check::Equals { field, text: text.clone() },
        Test::Word(text) | Test::Phrase(text) => {
            let words = split(text);
            match test {
                // Nothing but signs: looked for as it stands.
                _ if words.is_empty() => Check::Contains { field, text: text.clone() },
                Test::Word(_) => Check::TextWords { field, words },
                _ => Check::TextPhrase { field, phrase: Phrase::new(words) },
            }
        }
        Test::Glob(glob) if is_text && glob.is_word() => Check::TextGlob { field, glob: glob.lower() },
        Test::Glob(glob) => Check::Glob { field, glob: glob.clone() },
        Test::Regex(pattern) => Check::Regex { field, pattern: pattern.clone() },
        Test::Range(range) => Check::Range { field, limits: limits(range) },
    }
}

fn limits(range: &Range) -> Vec<Limit> {
    let low = range.low.iter().map(|bound| limit(bound, true));
    low.chain(range.high.iter().map(|bound| limit(bound, false))).collect()
}

fn limit(bound: &Bound, is_low: bool) -> Limit {
    let text = &bound.text;
    let value = if let Some(exact) = Decimal::parse(text) {
        Value::Number { text: text.clone(), exact, small: small_integer(text.as_bytes()) }
    } else if let Some(time) = parse_stamp(text.as_bytes()) {
        Value::Time(time)
    } else {
        Value::Text(text.clone())
    };
    Limit { value, is_low, inclusive: bound.inclusive }
}

/// First and last severity number of the class that a level's name belongs to.
fn severity_class(name: &str) -> Option<(Severity, Severity)> {
    match flow::severity::parse(name.as_bytes(), Kind::Text) {
        0 => None,
        severity => Some(((severity - 1) / 4 * 4 + 1, (severity - 1) / 4 * 4 + 4)),
    }
}

fn split(text: &str) -> Vec<String> {
    words(text).map(Cow::into_owned).collect()
}
