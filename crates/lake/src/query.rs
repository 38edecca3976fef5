//! The query line: text in, a tree of tests out, or an error that points at the fault.
//!
//! `level:error AND (model:"x" OR latency_ms:>500) -service:auth reset "connection lost" trace_id:*`.
//! Words side by side mean AND; AND binds tighter than OR; `-` and NOT turn a test around. A backslash takes
//! the next character as it is. Bounds: [`QUERY_BYTES_MAX`] of text, [`DEPTH_MAX`] levels; beyond them the
//! query is refused.

use std::cmp::Ordering;
use std::fmt;

pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// Brackets and negations inside one another.
pub const DEPTH_MAX: usize = 100;

/// A parsed query. It knows no schema: what is a text field is decided where it is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub(crate) root: Node,
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
    /// The literal stretches between the stars, so at least two.
    Glob(Vec<String>),
    Exists,
    Compare(Op, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Op {
    pub(crate) fn holds(self, order: Ordering) -> bool {
        match self {
            Op::Less => order.is_lt(),
            Op::LessEqual => order.is_le(),
            Op::Greater => order.is_gt(),
            Op::GreaterEqual => order.is_ge(),
        }
    }
}

/// What is wrong with a query, where, and the way out. Displays with the line and a caret under the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// Byte offset in the query.
    pub at: usize,
    pub message: String,
    pub help: String,
    /// The part of the query around the fault, and the fault's column in it.
    excerpt: (String, usize),
}

impl std::error::Error for QueryError {}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = &self.excerpt;
        write!(f, "query:{}: {}\n  {line}\n  {:column$}^", self.at + 1, self.message, "")?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n  help: {}", self.help) }
    }
}

impl Query {
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        if text.len() > QUERY_BYTES_MAX {
            return Err(parser.error(QUERY_BYTES_MAX, "the query is too long", "a query has at most 64 KiB"));
        }
        parser.skip_space();
        if parser.peek().is_none() {
            return Ok(Query { root: Node::All });
        }
        let root = parser.or(None)?;
        match parser.peek() {
            None => Ok(Query { root }),
            Some(_) => Err(parser.error(parser.at, "this bracket closes nothing", "remove it, or write \\) to look for a bracket")),
        }
    }

    /// Every row.
    pub fn all() -> Query {
        Query { root: Node::All }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// A word as written: its literal stretches, cut at the stars that no backslash precedes.
struct Word {
    parts: Vec<String>,
    /// It contains a backslash, so it is never an operator.
    escaped: bool,
}

impl Word {
    fn is_operator(&self, name: &str) -> bool {
        !self.escaped && self.parts.len() == 1 && self.parts[0] == name
    }
}

impl Parser<'_> {
    fn error(&self, at: usize, message: impl Into<String>, help: impl Into<String>) -> QueryError {
        let at = floor_char(self.text, at.min(self.text.len()));
        let start = floor_char(self.text, at.saturating_sub(50));
        let end = floor_char(self.text, (at + 30).min(self.text.len()));
        let line: String = self.text[start..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let column = self.text[start..at].chars().count();
        QueryError { at, message: message.into(), help: help.into(), excerpt: (line, column) }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek().filter(|c| c.is_whitespace()) {
            self.at += c.len_utf8();
        }
    }

    /// The operator at this place, if there is one; it is not consumed.
    fn peek_operator(&self, name: &str) -> bool {
        let Some(rest) = self.text[self.at..].strip_prefix(name) else { return false };
        rest.chars().next().is_none_or(|c| c.is_whitespace() || c == '(' || c == ')' || c == '"')
    }

    fn deeper(&mut self) -> Result<(), QueryError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(
                self.at,
                "the query is nested too deep",
                format!("brackets and negations go {DEPTH_MAX} levels deep at most"),
            ));
        }
        Ok(())
    }

    fn or(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.and(field)?];
        loop {
            self.skip_space();
            if !self.peek_operator("OR") {
                return Ok(join(nodes, Node::Or));
            }
            let at = self.at;
            self.at += 2;
            self.operand(at, "OR")?;
            nodes.push(self.and(field)?);
        }
    }

    fn and(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.unary(field)?];
        loop {
            self.skip_space();
            if self.peek_operator("AND") {
                let at = self.at;
                self.at += 3;
                self.operand(at, "AND")?;
            } else if matches!(self.peek(), None | Some(')')) || self.peek_operator("OR") {
                return Ok(join(nodes, Node::And));
            }
            nodes.push(self.unary(field)?);
        }
    }

    /// Something must follow an operator.
    fn operand(&mut self, operator_at: usize, name: &str) -> Result<(), QueryError> {
        self.skip_space();
        if matches!(self.peek(), None | Some(')')) {
            return Err(self.error(
                operator_at,
                format!("nothing follows {name}"),
                format!("to look for the word itself, write \"{name}\""),
            ));
        }
        Ok(())
    }

    fn unary(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        self.skip_space();
        let at = self.at;
        let negated = if self.peek_operator("NOT") {
            self.at += 3;
            true
        } else if self.peek() == Some('-') && self.text[at + 1..].chars().next().is_some_and(|c| !c.is_whitespace()) {
            self.at += 1;
            true
        } else {
            false
        };
        if !negated {
            return self.primary(field);
        }
        self.operand(at, "NOT")?;
        self.deeper()?;
        let node = self.unary(field)?;
        self.depth -= 1;
        Ok(Node::Not(Box::new(node)))
    }

    fn primary(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let at = self.at;
        match self.peek() {
            Some('(') => self.group(field),
            Some('"') => {
                let phrase = self.quoted()?;
                Ok(leaf(field, Test::Phrase(phrase)))
            }
            None => Err(self.error(at, "a word or field:value is missing here", "")),
            Some(')') => Err(self.error(at, "this bracket closes nothing", "remove it, or write \\) to look for a bracket")),
            Some(_) => self.term(field),
        }
    }

    fn group(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let open = self.at;
        self.deeper()?;
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(')') {
            return Err(self.error(open, "there is nothing between these brackets", "write \\( to look for a bracket"));
        }
        let node = self.or(field)?;
        if self.peek() != Some(')') {
            return Err(self.error(open, "this bracket is never closed", "write \\( to look for a bracket"));
        }
        self.at += 1;
        self.depth -= 1;
        Ok(node)
    }

    fn term(&mut self, outer: Option<&str>) -> Result<Node, QueryError> {
        let at = self.at;
        let compare = if outer.is_some() { self.comparison() } else { None };
        if let Some(op) = compare {
            return self.compared(outer.unwrap_or_default(), op);
        }
        let word = self.word(outer.is_none())?;
        for name in ["AND", "OR"] {
            if word.is_operator(name) {
                return Err(self.error(at, format!("nothing precedes {name}"), format!("to look for the word itself, write \"{name}\"")));
            }
        }
        if outer.is_some() || self.peek() != Some(':') {
            return Ok(leaf(outer, word_test(word)));
        }
        if word.parts.len() > 1 {
            return Err(self.error(at, "a field name has no *", "write \\* if the name has a star in it"));
        }
        let field = word.parts.concat();
        if field.is_empty() {
            return Err(self.error(at, "a field name is missing before the colon", "write \\: to look for a colon"));
        }
        self.at += 1;
        self.value(&field)
    }

    /// What follows `field:`.
    fn value(&mut self, field: &str) -> Result<Node, QueryError> {
        let at = self.at;
        if let Some(op) = self.comparison() {
            return self.compared(field, op);
        }
        match self.peek() {
            Some('"') => {
                let phrase = self.quoted()?;
                Ok(leaf(Some(field), Test::Phrase(phrase)))
            }
            Some('(') => self.group(Some(field)),
            Some('[' | '{') => Err(self.error(at, "ranges in brackets are not known here", format!("write {field}:>=1 {field}:<5"))),
            Some(c) if !c.is_whitespace() && c != ')' => {
                let word = self.word(false)?;
                Ok(leaf(Some(field), word_test(word)))
            }
            _ => Err(self.error(
                at,
                format!("a value is missing after {field}:"),
                format!("{field}:* finds every record that has the field"),
            )),
        }
    }

    fn comparison(&mut self) -> Option<Op> {
        for (text, op) in [(">=", Op::GreaterEqual), ("<=", Op::LessEqual), (">", Op::Greater), ("<", Op::Less)] {
            if self.text[self.at..].starts_with(text) {
                self.at += text.len();
                return Some(op);
            }
        }
        None
    }

    fn compared(&mut self, field: &str, op: Op) -> Result<Node, QueryError> {
        let at = self.at;
        let value = match self.peek() {
            Some('"') => self.quoted()?,
            _ => {
                let word = self.word(false)?;
                word.parts.join("*")
            }
        };
        let is_level = field == "level" && crate::matcher::severity_class(&value).is_some();
        if Decimal::parse(&value).is_none() && !is_level {
            return Err(self.error(at, format!("{value:?} is no number"), format!("a comparison needs one, as in {field}:>500")));
        }
        Ok(leaf(Some(field), Test::Compare(op, value)))
    }

    /// A word up to a space, a bracket or a quote; `stop_at_colon` also ends it there.
    fn word(&mut self, stop_at_colon: bool) -> Result<Word, QueryError> {
        let mut word = Word { parts: vec![String::new()], escaped: false };
        while let Some(c) = self.peek() {
            let at = self.at;
            match c {
                '\\' => {
                    self.at += 1;
                    let Some(next) = self.peek() else {
                        return Err(self.error(at, "a backslash at the end escapes nothing", "write \\\\ to look for a backslash"));
                    };
                    word.escaped = true;
                    push(&mut word.parts, next);
                    self.at += next.len_utf8();
                }
                ':' if stop_at_colon => break,
                '(' | ')' | '"' => break,
                c if c.is_whitespace() => break,
                '*' => {
                    word.parts.push(String::new());
                    self.at += 1;
                }
                c => {
                    push(&mut word.parts, c);
                    self.at += c.len_utf8();
                }
            }
        }
        Ok(word)
    }

    fn quoted(&mut self) -> Result<String, QueryError> {
        let open = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => {
                    if let Some(next) = self.peek() {
                        text.push(next);
                        self.at += next.len_utf8();
                    }
                }
                c => text.push(c),
            }
        }
        Err(self.error(open, "this quote is never closed", "write \\\" to look for a quote"))
    }
}

fn push(parts: &mut [String], c: char) {
    if let Some(last) = parts.last_mut() {
        last.push(c);
    }
}

fn leaf(field: Option<&str>, test: Test) -> Node {
    if field.is_none() && test == Test::Exists {
        return Node::All;
    }
    Node::Leaf { field: field.map(str::to_owned), test }
}

fn word_test(mut word: Word) -> Test {
    if word.parts.len() == 1 {
        return Test::Word(word.parts.remove(0));
    }
    if word.parts.iter().all(String::is_empty) { Test::Exists } else { Test::Glob(word.parts) }
}

fn join(mut nodes: Vec<Node>, wrap: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { wrap(nodes) }
}

fn floor_char(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A number of any size and precision, for exact comparison: 0.d1d2d3... x 10^exponent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Without leading and trailing zeros; empty for zero.
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Reads `12`, `-0.5`, `+3`, `1e-7`; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let bytes = text.as_bytes();
        let (negative, rest) = match bytes.first()? {
            b'-' => (true, &bytes[1..]),
            b'+' => (false, &bytes[1..]),
            _ => (false, bytes),
        };
        let mantissa_len = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
        let (mantissa, power) = rest.split_at(mantissa_len);
        let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
        let whole = &mantissa[..point];
        let part = mantissa.get(point + 1..).unwrap_or_default();
        if whole.len() + part.len() == 0 || !whole.iter().chain(part).all(u8::is_ascii_digit) {
            return None;
        }
        let power = if power.is_empty() { 0 } else { parse_power(&power[1..])? };
        let zeros = whole.iter().chain(part).take_while(|b| **b == b'0').count();
        let mut digits: Vec<u8> = whole.iter().chain(part).skip(zeros).copied().collect();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Decimal { negative: false, digits, exponent: 0 });
        }
        let exponent = whole.len() as i64 - zeros as i64 + power;
        Some(Decimal { negative, digits, exponent })
    }

    fn cmp_magnitude(&self, other: &Decimal) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The digits after the `e`, held within +-10^12: no text is long enough to see the difference.
fn parse_power(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.first()? {
        b'-' => (true, &bytes[1..]),
        b'+' => (false, &bytes[1..]),
        _ => (false, bytes),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let power = digits.iter().fold(0i64, |n, d| (n * 10 + i64::from(d - b'0')).min(1_000_000_000_000));
    Some(if negative { -power } else { power })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// The tree in brackets, so that precedence can be seen.
    fn show(node: &Node) -> String {
        let list = |nodes: &[Node], name: &str| format!("({name} {})", nodes.iter().map(show).collect::<Vec<_>>().join(" "));
        match node {
            Node::All => "all".into(),
            Node::Not(node) => format!("(not {})", show(node)),
            Node::And(nodes) => list(nodes, "and"),
            Node::Or(nodes) => list(nodes, "or"),
            Node::Leaf { field, test } => {
                let name = field.as_ref().map_or(String::new(), |f| format!("{f}:"));
                match test {
                    Test::Word(text) => format!("{name}{text}"),
                    Test::Phrase(text) => format!("{name}{text:?}"),
                    Test::Glob(parts) => format!("{name}glob{parts:?}"),
                    Test::Exists => format!("{name}*"),
                    Test::Compare(op, value) => format!("{name}{op:?}({value})"),
                }
            }
        }
    }

    #[track_caller]
    fn check(text: &str, want: Expect) {
        let got = match Query::parse(text) {
            Ok(query) => show(&query.root),
            Err(error) => error.to_string(),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn and_binds_tighter_than_or_and_is_implied() {
        check("a b OR c AND d", expect!["(or (and a b) (and c d))"]);
        check("a (b OR c) -d", expect!["(and a (or b c) (not d))"]);
        check("NOT a b", expect!["(and (not a) b)"]);
        check("NOT (a OR b) OR -\"x y\"", expect![[r#"(or (not (or a b)) (not "x y"))"#]]);
        check("", expect!["all"]);
        check("*", expect!["all"]);
    }

    #[test]
    fn every_form_of_a_term_reads_as_written() {
        check("level:error", expect!["level:error"]);
        check("url:http://x:80/a-b", expect!["url:http://x:80/a-b"]);
        check(r#"msg:"conn \"reset\"""#, expect![[r#"msg:"conn \"reset\"""#]]);
        check("latency_ms:>=500 x:<1e3", expect!["(and latency_ms:GreaterEqual(500) x:Less(1e3))"]);
        check("trace_id:*", expect!["trace_id:*"]);
        check("model:gpt* *val* a*b", expect![[r#"(and model:glob["gpt", ""] glob["", "val", ""] glob["a", "b"])"#]]);
        check(r"a\:b:c\*d", expect!["a:b:c*d"]);
        check("level:(warn OR error)", expect!["(or level:warn level:error)"]);
        check("n:(>1 <=2)", expect!["(and n:Greater(1) n:LessEqual(2))"]);
        check("level:>=warn", expect!["level:GreaterEqual(warn)"]);
        check("ANDROID ORDER a-b - x", expect!["(and ANDROID ORDER a-b - x)"]);
    }

    #[test]
    fn an_error_points_at_the_fault() {
        check(
            "level:error AND",
            expect![[r#"
            query:13: nothing follows AND
              level:error AND
                          ^
              help: to look for the word itself, write "AND""#]],
        );
        check(
            "a (b OR c",
            expect![[r#"
            query:3: this bracket is never closed
              a (b OR c
                ^
              help: write \( to look for a bracket"#]],
        );
        check(
            "a) b",
            expect![[r#"
            query:2: this bracket closes nothing
              a) b
               ^
              help: remove it, or write \) to look for a bracket"#]],
        );
        check(
            "latency_ms:>fast",
            expect![[r#"
            query:13: "fast" is no number
              latency_ms:>fast
                          ^
              help: a comparison needs one, as in latency_ms:>500"#]],
        );
        check(
            "ä service:",
            expect![[r#"
            query:12: a value is missing after service:
              ä service:
                        ^
              help: service:* finds every record that has the field"#]],
        );
        check(
            "\"abc",
            expect![[r#"
            query:1: this quote is never closed
              "abc
              ^
              help: write \" to look for a quote"#]],
        );
        check(
            "OR a",
            expect![[r#"
            query:1: nothing precedes OR
              OR a
              ^
              help: to look for the word itself, write "OR""#]],
        );
        check(
            "n:[1 TO 5]",
            expect![[r#"
            query:3: ranges in brackets are not known here
              n:[1 TO 5]
                ^
              help: write n:>=1 n:<5"#]],
        );
    }

    #[test]
    fn size_and_depth_are_bounded() {
        assert!(Query::parse(&"a ".repeat(32 << 10)).is_ok());
        assert!(Query::parse(&"a".repeat(QUERY_BYTES_MAX + 1)).unwrap_err().message.contains("too long"));
        let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
        assert!(Query::parse(&nested(DEPTH_MAX)).is_ok());
        assert!(Query::parse(&nested(DEPTH_MAX + 1)).unwrap_err().message.contains("too deep"));
        assert!(Query::parse(&nested(10_000)).is_err());
        assert!(Query::parse(&"-".repeat(10_000)).is_err());
        assert!(Query::parse(&"NOT ".repeat(10_000)).is_err());
    }

    #[test]
    fn numbers_compare_exactly() {
        let ordered = [
            "-1e9",
            "-10",
            "-9.5",
            "-0.001",
            "0",
            "1e-20",
            "0.1",
            "0.10000000000000000001",
            "9007199254740993",
            "9007199254740993.5",
            "1e400",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                let (a, b) = (Decimal::parse(a).unwrap(), Decimal::parse(b).unwrap());
                assert_eq!(a.cmp(&b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
        assert_eq!(Decimal::parse("100"), Decimal::parse("1e2"));
        assert_eq!(Decimal::parse("-0"), Decimal::parse("0.00"));
        for text in ["", "-", "1.2.3", "1e", "e5", "0x10", "1_000", "NaN", "."] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
