//! Filters: words, phrases, fields, ranges, patterns, and how they are joined.
//!
//! In: the text; out: a tree. One pass from the left, each character looked at a bounded number of times. In
//! lenient mode every fault is noted and mended where it stands; what is nested too deep ends the query.

use super::error::{QueryError, floor_char};
use super::pattern::STRETCH_MAX;
use super::{Bound, DEPTH_MAX, ERRORS_MAX, Glob, Node, Pattern, Pipe, QUERY_BYTES_MAX, Query, REGEXES_MAX, Range, Test, When};

pub(super) fn parse(text: &str) -> Result<Query, QueryError> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(too_long(text));
    }
    Parser::new(text, false).query()
}

pub(super) fn parse_lenient(text: &str) -> (Query, Vec<QueryError>) {
    let mut errors = Vec::new();
    let mut shown = text;
    if text.len() > QUERY_BYTES_MAX {
        errors.push(too_long(text));
        shown = &text[..floor_char(text, QUERY_BYTES_MAX)];
    }
    let mut parser = Parser::new(shown, true);
    let outcome = parser.query();
    errors.append(&mut parser.errors);
    match outcome {
        Ok(query) => (query, errors),
        Err(error) => {
            errors.push(error);
            (Query::all(), errors)
        }
    }
}

fn too_long(text: &str) -> QueryError {
    QueryError::new(text, QUERY_BYTES_MAX, "the query is too long", "a query has at most 64 KiB")
}

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    depth: usize,
    /// Mend what is wrong and go on.
    pub(super) lenient: bool,
    pub(super) errors: Vec<QueryError>,
    regexes: usize,
    since: Option<When>,
    until: Option<When>,
    pub(super) mentions: Vec<(usize, String)>,
    /// The columns that fields are looked for in; `None`: the fields of records.
    pub(super) columns: Option<Vec<String>>,
}

/// A word as written: what lies between the stars, and in that what lies between the question marks.
struct Word {
    stretches: Vec<Vec<String>>,
    /// It contains a backslash, so it is never an operator.
    escaped: bool,
    /// As it reads if stars and question marks mean nothing.
    plain: String,
}

impl Word {
    fn is_plain(&self) -> bool {
        self.stretches.len() == 1 && self.stretches[0].len() == 1
    }

    fn is_operator(&self, name: &str) -> bool {
        !self.escaped && self.plain == name
    }

    fn push(&mut self, c: char) {
        self.plain.push(c);
        if let Some(piece) = self.stretches.last_mut().and_then(|s| s.last_mut()) {
            piece.push(c);
        }
    }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, lenient: bool) -> Parser<'a> {
        Parser {
            text,
            at: 0,
            depth: 0,
            lenient,
            errors: Vec::new(),
            regexes: 0,
            since: None,
            until: None,
            mentions: Vec::new(),
            columns: None,
        }
    }

    fn query(&mut self) -> Result<Query, QueryError> {
        let mut root = self.filter()?;
        let mut pipes = Vec::new();
        self.pipes(&mut pipes)?;
        // A condition on records is a filter, wherever it is written.
        let mut conditions = Vec::new();
        while let Some(Pipe::Where(_)) = pipes.first() {
            if let Pipe::Where(query) = pipes.remove(0) {
                conditions.push(query.root);
            }
        }
        if !conditions.is_empty() {
            conditions.insert(0, root);
            root = join(conditions, Node::And);
        }
        let mentions = std::mem::take(&mut self.mentions);
        Ok(Query { root, since: self.since, until: self.until, pipes, text: self.text.to_owned(), mentions })
    }

    /// A condition in a pipe.
    pub(super) fn condition(&mut self) -> Result<Query, QueryError> {
        let at = self.at;
        self.skip_space();
        if matches!(self.peek(), None | Some('|')) {
            self.fault(at, "a condition is missing after where", "write where count:>10")?;
        }
        Ok(Query { root: self.filter()?, ..Query::all() })
    }

    /// Tests up to a pipe or the end.
    fn filter(&mut self) -> Result<Node, QueryError> {
        let mut nodes = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                None | Some('|') => return Ok(if nodes.is_empty() { Node::All } else { join(nodes, Node::And) }),
                Some(')') => {
                    self.fault(self.at, "this bracket closes nothing", "remove it, or write \\) to look for a bracket")?;
                    self.at += 1;
                }
                Some(_) => nodes.extend(self.or(None)?),
            }
        }
    }

    pub(super) fn error(&self, at: usize, message: impl Into<String>, help: impl Into<String>) -> QueryError {
        QueryError::new(self.text, at, message, help)
    }

    /// A fault that can be mended: ends the parse, or in lenient mode is noted.
    pub(super) fn fault(&mut self, at: usize, message: impl Into<String>, help: impl Into<String>) -> Result<(), QueryError> {
        let error = self.error(at, message, help);
        self.note(error)
    }

    pub(super) fn note(&mut self, error: QueryError) -> Result<(), QueryError> {
        if !self.lenient {
            return Err(error);
        }
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
        Ok(())
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    pub(super) fn skip_space(&mut self) {
        while let Some(c) = self.peek().filter(|c| c.is_whitespace()) {
            self.at += c.len_utf8();
        }
    }

    /// The operator at this place, if there is one; it is not consumed.
    fn peek_operator(&self, name: &str) -> bool {
        let Some(rest) = self.text[self.at..].strip_prefix(name) else { return false };
        rest.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"' | '|'))
    }

    /// What an operand cannot begin with.
    fn is_over(&self) -> bool {
        matches!(self.peek(), None | Some(')' | '|'))
    }

    /// One level down; `false` if there is none in lenient mode: then the rest of the text is passed over.
    fn deeper(&mut self) -> Result<bool, QueryError> {
        self.depth += 1;
        if self.depth <= DEPTH_MAX {
            return Ok(true);
        }
        let help = format!("brackets and negations go {DEPTH_MAX} levels deep at most");
        self.fault(self.at, "the query is nested too deep", help)?;
        self.at = self.text.len();
        Ok(false)
    }

    fn or(&mut self, field: Option<&str>) -> Result<Option<Node>, QueryError> {
        let start = self.at;
        let mut nodes = Vec::new();
        let mut empty = None;
        let mut operands = 0;
        let mut at = start;
        loop {
            operands += 1;
            match self.and(field)? {
                Some(node) => nodes.push(node),
                None => empty = empty.or(Some(at)),
            }
            self.skip_space();
            if !self.peek_operator("OR") {
                break;
            }
            let operator = self.at;
            self.at += 2;
            self.skip_space();
            at = self.at;
            if self.is_over() {
                self.missing_operand(operator, "OR")?;
                break;
            }
        }
        // In lenient mode an operand may be missing for a fault that is noted already.
        if let Some(at) = empty.filter(|_| operands > 1 && self.depth == 0 && self.errors.is_empty()) {
            let help = "write it beside the rest: since:15m (a OR b)";
            self.fault(at, "a time word is for the whole query, not for one side of OR", help)?;
        }
        Ok(if nodes.is_empty() { None } else { Some(join(nodes, Node::Or)) })
    }

    fn and(&mut self, field: Option<&str>) -> Result<Option<Node>, QueryError> {
        let mut nodes = Vec::new();
        loop {
            nodes.extend(self.unary(field)?);
            self.skip_space();
            if self.peek_operator("AND") {
                let operator = self.at;
                self.at += 3;
                self.skip_space();
                if self.is_over() {
                    self.missing_operand(operator, "AND")?;
                    break;
                }
            } else if self.is_over() || self.peek_operator("OR") {
                break;
            }
        }
        Ok(if nodes.is_empty() { None } else { Some(join(nodes, Node::And)) })
    }

    fn missing_operand(&mut self, operator: usize, name: &str) -> Result<(), QueryError> {
        self.fault(operator, format!("nothing follows {name}"), format!("to look for the word itself, write \"{name}\""))
    }

    fn unary(&mut self, field: Option<&str>) -> Result<Option<Node>, QueryError> {
        self.skip_space();
        let at = self.at;
        if self.peek_operator("NOT") {
            self.at += 3;
        } else if self.peek() == Some('-') && self.text[at + 1..].chars().next().is_some_and(|c| !c.is_whitespace()) {
            self.at += 1;
        } else {
            return self.primary(field);
        }
        self.skip_space();
        if self.is_over() {
            self.missing_operand(at, "NOT")?;
            return Ok(None);
        }
        if !self.deeper()? {
            return Ok(None);
        }
        let node = self.unary(field)?;
        self.depth -= 1;
        Ok(node.map(|node| Node::Not(Box::new(node))))
    }

    fn primary(&mut self, field: Option<&str>) -> Result<Option<Node>, QueryError> {
        let at = self.at;
        match self.peek() {
            Some('(') => self.group(field),
            Some('"') => {
                let phrase = self.quoted()?;
                self.bare_in_table(field, at)?;
                Ok(Some(leaf(field, Test::Phrase(phrase))))
            }
            None | Some('|' | ')') => {
                self.fault(at, "a word or field:value is missing here", "")?;
                Ok(None)
            }
            Some(_) => self.term(field),
        }
    }

    fn group(&mut self, field: Option<&str>) -> Result<Option<Node>, QueryError> {
        let open = self.at;
        if !self.deeper()? {
            return Ok(None);
        }
        self.at += 1;
        self.skip_space();
        let mut node = None;
        if self.peek() == Some(')') {
            self.fault(open, "there is nothing between these brackets", "write \\( to look for a bracket")?;
        } else if !self.is_over() {
            node = self.or(field)?;
        }
        match self.peek() {
            Some(')') => self.at += 1,
            Some('|') => {
                self.fault(self.at, "a pipe cannot begin inside brackets", "close the bracket before it, or write \\| to look for it")?
            }
            _ => self.fault(open, "this bracket is never closed", "write \\( to look for a bracket")?,
        }
        self.depth -= 1;
        Ok(node)
    }

    fn term(&mut self, outer: Option<&str>) -> Result<Option<Node>, QueryError> {
        let at = self.at;
        if let Some(field) = outer {
            if let Some(test) = self.special(field)? {
                return Ok(Some(leaf(outer, test)));
            }
        } else if let Some(test) = self.regex()? {
            self.bare_in_table(None, at)?;
            return Ok(Some(leaf(None, test)));
        }
        let mut word = self.word(outer.is_none())?;
        for name in ["AND", "OR"] {
            if word.is_operator(name) {
                self.fault(at, format!("nothing precedes {name}"), format!("to look for the word itself, write \"{name}\""))?;
                return Ok(None);
            }
        }
        if outer.is_none() && self.columns.is_some() && self.peek() == Some('(') {
            word.plain.push_str(&self.brackets());
        }
        if outer.is_some() || self.peek() != Some(':') {
            self.bare_in_table(outer, at)?;
            return Ok(Some(leaf(outer, self.word_test(word, at)?)));
        }
        if !word.is_plain() {
            self.fault(at, "a field name has no * and no ?", "write \\* if the name has a star in it")?;
        }
        let field = word.plain;
        self.at += 1;
        if field.is_empty() {
            self.fault(at, "a field name is missing before the colon", "write \\: to look for a colon")?;
            return Ok(None);
        }
        if self.columns.is_none() && !word.escaped && (field == "since" || field == "until") {
            self.time_word(at, &field)?;
            return Ok(None);
        }
        if field == "_exists_" {
            let name_at = self.at;
            let name = self.word(false)?.plain;
            if name.is_empty() {
                self.fault(name_at, "a field is missing after _exists_:", "write _exists_:service, or service:*")?;
                return Ok(None);
            }
            self.mention(name_at, &name)?;
            return Ok(Some(leaf(Some(&name), Test::Exists)));
        }
        self.mention(at, &field)?;
        self.value(&field)
    }

    /// The rest of a column's name such as `count()`, without blanks.
    fn brackets(&mut self) -> String {
        let rest = &self.text[self.at..];
        let Some(end) = rest.bytes().take(256).position(|b| b == b')') else { return String::new() };
        self.at += end + 1;
        rest[..=end].chars().filter(|c| !c.is_whitespace()).collect()
    }

    /// In a table every test names a column.
    fn bare_in_table(&mut self, field: Option<&str>, at: usize) -> Result<(), QueryError> {
        let Some(first) = self.columns.as_ref().filter(|_| field.is_none()).map(|c| c.first().cloned().unwrap_or_default()) else {
            return Ok(());
        };
        self.fault(at, "a condition on a table names a column", format!("write {first}:VALUE or {first}:>VALUE"))
    }

    /// Notes a field that is looked at; in a table it must be a column.
    pub(super) fn mention(&mut self, at: usize, name: &str) -> Result<(), QueryError> {
        let Some(columns) = &self.columns else {
            self.mentions.push((at, name.to_owned()));
            return Ok(());
        };
        if columns.iter().any(|column| column == name) {
            return Ok(());
        }
        let stem = |name: &'_ str| -> usize { name.find('(').unwrap_or(name.len()) };
        let meant = super::nearest(&name[..stem(name)], columns.iter().map(|column| &column[..stem(column)]));
        let help = match meant.and_then(|meant| columns.iter().find(|column| column.starts_with(meant))) {
            Some(column) => format!("did you mean {column}?"),
            None => format!("it has {}", columns.join(", ")),
        };
        self.fault(at, format!("the table has no column {name} here"), help)
    }

    fn time_word(&mut self, at: usize, name: &str) -> Result<(), QueryError> {
        let value_at = self.at;
        let value = match self.peek() {
            Some('"') => self.quoted()?,
            _ => self.word(false)?.plain,
        };
        if self.depth > 0 {
            let help = format!("write {name}:{value} outside of brackets and without NOT; a field of this name is \\{name}:");
            return self.fault(at, "a time word is for the whole query", help);
        }
        let Some(when) = When::parse(&value) else {
            let help = format!("write {name}:15m, {name}:today or {name}:2026-11-23T03:00:00Z; a field of this name is \\{name}:");
            return self.fault(value_at, format!("{value:?} is no time"), help);
        };
        let place = if name == "since" { &mut self.since } else { &mut self.until };
        if place.is_some() {
            return self.fault(at, format!("{name}: stands twice"), "leave one of them out");
        }
        *place = Some(when);
        Ok(())
    }

    /// What follows `field:`.
    fn value(&mut self, field: &str) -> Result<Option<Node>, QueryError> {
        let at = self.at;
        if let Some(test) = self.special(field)? {
            return Ok(Some(leaf(Some(field), test)));
        }
        match self.peek() {
            Some('"') => {
                let phrase = self.quoted()?;
                Ok(Some(leaf(Some(field), Test::Phrase(phrase))))
            }
            Some('(') => self.group(Some(field)),
            Some(c) if !c.is_whitespace() && c != ')' && c != '|' => {
                let word = self.word(false)?;
                Ok(Some(leaf(Some(field), self.word_test(word, at)?)))
            }
            _ => {
                self.fault(at, format!("a value is missing after {field}:"), format!("{field}:* finds every record that has the field"))?;
                Ok(Some(leaf(Some(field), Test::Exists)))
            }
        }
    }

    /// A comparison, a range, a regex or `=value`, if one stands here.
    fn special(&mut self, field: &str) -> Result<Option<Test>, QueryError> {
        let rest = &self.text[self.at..];
        for (sign, low, inclusive) in [(">=", true, true), ("<=", false, true), (">", true, false), ("<", false, false)] {
            if rest.starts_with(sign) {
                self.at += sign.len();
                let text = self.operand(field, sign)?;
                let bound = Some(Bound { text, inclusive });
                let range = if low { Range { low: bound, high: None } } else { Range { low: None, high: bound } };
                return Ok(Some(Test::Range(range)));
            }
        }
        if rest.starts_with('=') {
            self.at += 1;
            return Ok(Some(Test::Exact(self.operand(field, "=")?)));
        }
        if rest.starts_with(['[', '{']) {
            return self.range(field).map(Some);
        }
        self.regex()
    }

    fn operand(&mut self, field: &str, sign: &str) -> Result<String, QueryError> {
        let at = self.at;
        let text = match self.peek() {
            Some('"') => return self.quoted(),
            _ => self.word(false)?.plain,
        };
        if text.is_empty() {
            self.fault(
                at,
                format!("a value is missing after {sign}"),
                format!("write {field}:{sign}500, or {field}:{sign}\"\" for the empty text"),
            )?;
        }
        Ok(text)
    }

    fn range(&mut self, field: &str) -> Result<Test, QueryError> {
        let open = self.at;
        match self.try_range() {
            Ok(range) => Ok(if range == Range::default() { Test::Exists } else { Test::Range(range) }),
            Err(message) => {
                let help = format!("write {field}:[1 TO 5], {field}:{{1 TO *}}, or {field}:\"[\" for the sign itself");
                self.fault(open, message, help)?;
                // Mended: what stands there is looked for as words.
                self.at = open;
                let word = self.word(false)?.plain;
                let words: String = word.chars().map(|c| if matches!(c, '[' | ']' | '{' | '}') { ' ' } else { c }).collect();
                Ok(Test::Phrase(words.trim().to_owned()))
            }
        }
    }

    /// `[a TO b]`, with `{` and `}` for a bound that is left out and `*` for an open end.
    fn try_range(&mut self) -> Result<Range, &'static str> {
        const CLOSED: &str = "this range is never closed";
        let low_inclusive = self.peek() == Some('[');
        self.at += 1;
        let low = self.bound().ok_or(CLOSED)?;
        self.skip_space();
        let rest = &self.text[self.at..];
        if !rest.starts_with("TO") || !rest[2..].starts_with(char::is_whitespace) {
            return Err("a range has TO between its bounds");
        }
        self.at += 2;
        let high = self.bound().ok_or(CLOSED)?;
        self.skip_space();
        let high_inclusive = match self.peek() {
            Some(']') => true,
            Some('}') => false,
            None => return Err(CLOSED),
            Some(_) => return Err("a range has two bounds and ends with ] or }"),
        };
        self.at += 1;
        if self.peek().is_some_and(|c| !c.is_whitespace() && c != ')' && c != '|') {
            return Err("a blank is missing after this range");
        }
        let bound = |text: Option<String>, inclusive| text.map(|text| Bound { text, inclusive });
        Ok(Range { low: bound(low, low_inclusive), high: bound(high, high_inclusive) })
    }

    /// A bound of a range; the inner `None` is an open end, the outer one a missing bound.
    fn bound(&mut self) -> Option<Option<String>> {
        self.skip_space();
        if self.peek() == Some('"') {
            let lenient = std::mem::replace(&mut self.lenient, false);
            let text = self.quoted();
            self.lenient = lenient;
            return text.ok().map(Some);
        }
        let start = self.at;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, ']' | '}' | '|' | '(' | ')' | '"') {
                break;
            }
            self.at += c.len_utf8();
            if c != '\\' {
                text.push(c);
            } else if let Some(next) = self.peek() {
                text.push(next);
                self.at += next.len_utf8();
            }
        }
        match &self.text[start..self.at] {
            "" => None,
            "*" => Some(None),
            _ => Some(Some(text)),
        }
    }

    /// `/re/`, if one stands here: it ends with a slash before a blank, a bracket, a pipe or the end. Else it is a path.
    fn regex(&mut self) -> Result<Option<Test>, QueryError> {
        if self.peek() != Some('/') {
            return Ok(None);
        }
        let open = self.at;
        let bytes = self.text.as_bytes();
        let mut close = open + 1;
        while close < bytes.len() && bytes[close] != b'/' {
            close += if bytes[close] == b'\\' { 2 } else { 1 };
        }
        let after = self.text.get(close + 1..).and_then(|rest| rest.chars().next());
        if close >= bytes.len() || close == open + 1 || after.is_some_and(|c| !c.is_whitespace() && c != ')' && c != '|') {
            return Ok(None);
        }
        let text = &self.text[open + 1..close];
        self.at = close + 1;
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            self.fault(open, "the query has too many regexes", format!("{REGEXES_MAX} are possible; join some with |, as in /a|b/"))?;
            return Ok(Some(Test::Phrase(text.to_owned())));
        }
        match Pattern::new(text) {
            Ok(pattern) => Ok(Some(Test::Regex(pattern))),
            Err((offset, what)) => {
                let help = format!("write \"{text}\" to look for the text itself");
                let help = if text.len() > 60 { "write it in quotes to look for the text itself".to_owned() } else { help };
                self.fault(open + 1 + offset, format!("this regex is wrong: {what}"), help)?;
                Ok(Some(Test::Phrase(text.to_owned())))
            }
        }
    }

    /// A word up to a blank, a bracket, a quote or a pipe; `stop_at_colon` also ends it there.
    fn word(&mut self, stop_at_colon: bool) -> Result<Word, QueryError> {
        let mut word = Word { stretches: vec![vec![String::new()]], escaped: false, plain: String::new() };
        while let Some(c) = self.peek() {
            let at = self.at;
            match c {
                '\\' => {
                    self.at += 1;
                    word.escaped = true;
                    match self.peek() {
                        Some(next) => {
                            word.push(next);
                            self.at += next.len_utf8();
                        }
                        None => self.fault(at, "a backslash at the end escapes nothing", "write \\\\ to look for a backslash")?,
                    }
                }
                ':' if stop_at_colon => break,
                '(' | ')' | '"' | '|' => break,
                c if c.is_whitespace() => break,
                '*' => {
                    word.stretches.push(vec![String::new()]);
                    word.plain.push('*');
                    self.at += 1;
                }
                '?' => {
                    if let Some(stretch) = word.stretches.last_mut() {
                        stretch.push(String::new());
                    }
                    word.plain.push('?');
                    self.at += 1;
                }
                c => {
                    word.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        Ok(word)
    }

    fn word_test(&mut self, word: Word, at: usize) -> Result<Test, QueryError> {
        if word.is_plain() {
            return Ok(Test::Word(word.plain));
        }
        let length = |stretch: &Vec<String>| stretch.len() + stretch.iter().map(|p| p.chars().count()).sum::<usize>();
        if word.stretches.iter().any(|s| s.len() > 1 && length(s) > STRETCH_MAX) {
            self.fault(at, "this pattern is too long", format!("with ? in it, {STRETCH_MAX} characters are possible between two stars"))?;
            return Ok(Test::Phrase(word.plain));
        }
        let glob = Glob::new(word.stretches);
        Ok(if glob.is_any() { Test::Exists } else { Test::Glob(glob) })
    }

    pub(super) fn quoted(&mut self) -> Result<String, QueryError> {
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
        self.fault(open, "this quote is never closed", "write \\\" to look for a quote")?;
        Ok(text)
    }
}

fn leaf(field: Option<&str>, test: Test) -> Node {
    if field.is_none() && test == Test::Exists {
        return Node::All;
    }
    Node::Leaf { field: field.map(str::to_owned), test }
}

fn join(mut nodes: Vec<Node>, wrap: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { wrap(nodes) }
}
