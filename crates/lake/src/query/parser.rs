//! Filters: words, phrases, fields, ranges, patterns, and how they are joined.
//!
//! In: the text; out: a tree. One pass from the left, each character looked at a bounded number of times. In
//! lenient mode every fault is noted and mended where it stands; what is nested too deep ends the query.

use super::error::{QueryError, floor_char};
use super::{DEPTH_MAX, ERRORS_MAX, Node, Pipe, QUERY_BYTES_MAX, Query, TESTS_MAX, Test, When};

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
    pub(super) regexes: usize,
    tests: usize,
    since: Option<When>,
    until: Option<When>,
    pub(super) mentions: Vec<(usize, String)>,
    /// The columns that fields are looked for in; `None`: the fields of records.
    pub(super) columns: Option<Vec<String>>,
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
            tests: 0,
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
        if !matches!(self.peek(), None | Some('(' | ')' | '|')) {
            self.tests += 1;
            if self.tests > TESTS_MAX {
                self.fault(at, "the query has too many words and values", format!("{TESTS_MAX} are possible"))?;
                self.at = self.text.len();
                return Ok(None);
            }
        }
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
