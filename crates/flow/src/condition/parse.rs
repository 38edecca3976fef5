//! From a condition's text to its nodes: lexer and recursive descent, with the way out in each error.
//!
//! In: the text and what resolves field paths. Out: the root node, or the first mistake with its byte offset. `value` is the
//! other grammar over the same words: expressions, which compute.
//! A part between `&&`, `||` and parentheses that is no plain comparison is read again as an expression; so is all before a `?`.
//! Expressions are never read again, so the work is at most the text times its nesting.
//! Bounds are those of `condition`; recursion is bounded by the nesting.

use super::expression::{Expr, Val};
use super::{ConditionError, LIST_MAX, NESTING_MAX, Node, Number, Op, Operand, REGEXES_MAX, Set, TEXT_BYTES_MAX, TextTest, compile};
use memchr::memmem::Finder;
use regex::bytes::Regex;

mod value;

use value::{FUNCTIONS, METHODS};

const EXAMPLE: &str = "a condition reads as level == \"error\" && status >= 500";

type Parsed<T> = Result<T, ConditionError>;

pub(super) fn parse(text: &str, resolve: &mut dyn FnMut(&str) -> usize) -> Parsed<Node> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the condition has {} bytes; the limit is {TEXT_BYTES_MAX}", text.len());
        return Err(fault(TEXT_BYTES_MAX, message, "write long alternatives as one list, `field in [..]`, or as several steps"));
    }
    let mut parser = Parser::new(text, resolve);
    parser.advance()?;
    if parser.token == Token::End {
        return Err(fault(0, "the condition is empty", EXAMPLE));
    }
    let term = parser.any()?;
    match parser.token {
        Token::End => parser.test(term),
        _ => Err(parser.unexpected(&term)),
    }
}

pub(super) use value::parse as parse_expression;

fn fault(at: usize, message: impl Into<String>, help: impl Into<String>) -> ConditionError {
    ConditionError { at, message: message.into(), help: help.into() }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(String),
    Symbol(&'static str),
    End,
}

/// Longer ones first, so that `<=` is not read as `<`. Those we do not know the use of get an error that helps.
const SYMBOLS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "=~", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-", "=", "&", "|", "?", ":", "+", "*", "/", "%",
];

/// A part of the text that was read, and where it stands.
struct Term {
    what: What,
    start: usize,
    end: usize,
}

enum What {
    Value(Operand),
    Test(Node),
    /// What computes, of whatever type.
    Computed(Expr),
}

struct Parser<'a> {
    text: &'a str,
    /// The lexer stands here, behind `token`.
    next_at: usize,
    /// The token to look at, and where it starts.
    token: Token,
    start: usize,
    previous_end: usize,
    nesting: usize,
    regexes: usize,
    /// Those compiled so far, by where they stand: what is read again is not compiled again.
    compiled: Vec<(usize, Result<Regex, regex::Error>)>,
    /// How what is read here may look, for errors.
    example: &'static str,
    resolve: &'a mut dyn FnMut(&str) -> usize,
}

/// Where a parser was, so that it can go back.
struct Mark {
    next_at: usize,
    token: Token,
    start: usize,
    previous_end: usize,
    nesting: usize,
    regexes: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, resolve: &'a mut dyn FnMut(&str) -> usize) -> Parser<'a> {
        Parser {
            text,
            next_at: 0,
            token: Token::End,
            start: 0,
            previous_end: 0,
            nesting: 0,
            regexes: 0,
            compiled: Vec::new(),
            example: EXAMPLE,
            resolve,
        }
    }

    fn mark(&self) -> Mark {
        let (next_at, start, previous_end) = (self.next_at, self.start, self.previous_end);
        Mark { next_at, token: self.token.clone(), start, previous_end, nesting: self.nesting, regexes: self.regexes }
    }

    fn go_back(&mut self, mark: Mark) {
        (self.next_at, self.token, self.start) = (mark.next_at, mark.token, mark.start);
        (self.previous_end, self.nesting, self.regexes) = (mark.previous_end, mark.nesting, mark.regexes);
    }
}

impl Parser<'_> {
    fn any(&mut self) -> Parsed<Term> {
        let begin = self.mark();
        let term = self.chain("||", Parser::all, Node::Any)?;
        if !self.is("?") {
            return Ok(term);
        }
        self.go_back(begin); // `?` binds loosest: all so far is its condition
        Ok(computed(self.choice()?))
    }

    fn all(&mut self) -> Parsed<Term> {
        self.chain("&&", Parser::relation, Node::All)
    }

    /// One term, or several joined by `symbol`.
    fn chain(&mut self, symbol: &'static str, part: fn(&mut Self) -> Parsed<Term>, join: fn(Vec<Node>) -> Node) -> Parsed<Term> {
        let first = part(self)?;
        if !self.is(symbol) {
            return Ok(first);
        }
        let start = first.start;
        let mut nodes = vec![self.test(first)?];
        while self.take(symbol)? {
            let next = part(self)?;
            nodes.push(self.test(next)?);
        }
        Ok(self.term(start, What::Test(join(nodes))))
    }

    /// A plain comparison, or else what computes. Of two mistakes the one that got further is told.
    fn relation(&mut self) -> Parsed<Term> {
        let begin = self.mark();
        let plain = self.plain_relation();
        if plain.is_ok() && self.ends_relation() {
            return plain;
        }
        let plain_end = self.mark();
        self.go_back(begin);
        match (plain, self.comparison()) {
            (Ok(_), Ok(part)) if self.start > plain_end.start => Ok(computed(part)),
            (Ok(term), Ok(_)) => {
                self.go_back(plain_end);
                Ok(term)
            }
            (Err(mistake), Ok(part)) if self.ends_relation() || self.start > mistake.at => Ok(computed(part)),
            (Err(mistake), Ok(_)) => Err(mistake),
            (Ok(_), Err(mistake)) => Err(mistake),
            (Err(plain), Err(mistake)) => Err(if mistake.at > plain.at { mistake } else { plain }),
        }
    }

    fn ends_relation(&self) -> bool {
        matches!(self.token, Token::End | Token::Symbol("&&" | "||" | ")" | "?"))
    }

    fn plain_relation(&mut self) -> Parsed<Term> {
        let left = self.unary()?;
        if self.token == Token::Name("in".into()) {
            let left_start = left.start;
            let item = self.operand(left)?;
            self.advance()?;
            let set = self.list()?;
            self.refuse_second_relation()?;
            return Ok(self.term(left_start, What::Test(Node::In { item, set })));
        }
        let Some(op) = self.relation_op() else {
            return Ok(left);
        };
        let (at, left_start) = (self.start, left.start);
        self.advance()?;
        let right = self.unary()?;
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        self.refuse_second_relation()?;
        let node = compare(left, op, right).map_err(|(message, help)| fault(at, message, help))?;
        Ok(self.term(left_start, What::Test(node)))
    }

    fn relation_op(&self) -> Option<Op> {
        match self.token {
            Token::Symbol("==") => Some(Op::Eq),
            Token::Symbol("!=") => Some(Op::Ne),
            Token::Symbol("<") => Some(Op::Lt),
            Token::Symbol("<=") => Some(Op::Le),
            Token::Symbol(">") => Some(Op::Gt),
            Token::Symbol(">=") => Some(Op::Ge),
            _ => None,
        }
    }

    fn refuse_second_relation(&self) -> Parsed<()> {
        match self.relation_op() {
            Some(_) => {
                Err(fault(self.start, "a comparison cannot be compared again", "join two comparisons with &&, as in 1 < a && a < 5"))
            }
            None => Ok(()),
        }
    }

    fn unary(&mut self) -> Parsed<Term> {
        let start = self.start;
        if !self.take("!")? {
            return self.primary();
        }
        self.enter(start)?;
        let inner = self.unary()?;
        self.nesting -= 1;
        let node = self.test(inner)?;
        if self.relation_op().is_some() || self.token == Token::Name("in".into()) {
            return Err(fault(
                start,
                "`!` binds tighter than a comparison",
                "put the comparison in parentheses, as in !(level == \"info\")",
            ));
        }
        Ok(self.term(start, What::Test(Node::Not(Box::new(node)))))
    }

    fn primary(&mut self) -> Parsed<Term> {
        let start = self.start;
        match self.token.clone() {
            Token::Symbol("(") => {
                self.enter(start)?;
                self.advance()?;
                let inner = self.any()?;
                if !self.is(")") {
                    return Err(match self.token {
                        Token::End => fault(start, "this parenthesis is never closed", "write a `)` where it ends"),
                        _ => self.unexpected(&inner),
                    });
                }
                self.advance()?;
                self.nesting -= 1;
                Ok(self.term(start, inner.what))
            }
            Token::Name(name) if !is_literal(&name) => self.path_or_call(name, start),
            Token::Name(_) | Token::Text(_) | Token::Number(_) | Token::Symbol("-") => {
                let value = self.literal()?;
                if self.is(".") {
                    return Err(fault(self.start, "only a field has methods", "write the field first, as in path.startsWith(\"/v1/\")"));
                }
                Ok(self.term(start, What::Value(value)))
            }
            Token::Symbol("[") => Err(fault(start, "a list stands only after `in`", "write level in [\"warn\", \"error\"]")),
            Token::End => Err(fault(start, "a value is missing at the end", EXAMPLE)),
            Token::Symbol(symbol) => Err(self.unexpected_symbol(symbol, None)),
        }
    }

    /// A text, number, `true`, `false` or `null`.
    fn literal(&mut self) -> Parsed<Operand> {
        let at = self.start;
        let negative = self.take("-")?;
        let value = match (self.token.clone(), negative) {
            (Token::Number(number), false) => Operand::Number(Number::new(&number)),
            (Token::Number(number), true) if self.start == at + 1 => Operand::Number(Number::new(&format!("-{number}"))),
            (_, true) => return Err(fault(at, "`-` stands only before a number", NAME_HELP)),
            (Token::Text(text), false) => Operand::Text(text.into_bytes().into()),
            (Token::Name(name), false) if is_literal(&name) && name != "in" => match name.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                _ => Operand::Null,
            },
            (Token::End, false) => return Err(fault(at, "a value is missing at the end", EXAMPLE)),
            (Token::Name(name), false) if name == "in" => {
                return Err(fault(
                    at,
                    "a value is missing before `in`",
                    "write level in [\"warn\", \"error\"], or record[\"in\"] for a field of that name",
                ));
            }
            _ => {
                return Err(fault(
                    at,
                    "a text, a number, true, false or null must stand here",
                    "put texts in quotes, as in level in [\"warn\", \"error\"]",
                ));
            }
        };
        self.advance()?;
        Ok(value)
    }

    fn list(&mut self) -> Parsed<Set> {
        let start = self.start;
        if !self.take("[")? {
            return Err(fault(start, "after `in` stands a list", "write level in [\"warn\", \"error\"]"));
        }
        let (mut set, mut count) = (Set::default(), 0);
        while !self.is("]") {
            count += 1;
            if count > LIST_MAX {
                return Err(fault(
                    self.start,
                    format!("a list has at most {LIST_MAX} values"),
                    "split it over several lists joined with ||",
                ));
            }
            match self.literal()? {
                Operand::Text(text) => set.texts.push(text),
                Operand::Number(number) => set.numbers.push(number),
                Operand::Bool(true) => set.has_true = true,
                Operand::Bool(false) => set.has_false = true,
                Operand::Null => set.has_null = true,
                Operand::Field(_) | Operand::Size(_) => {} // a literal is neither
            }
            if !self.take(",")? && !self.is("]") {
                return Err(match self.token {
                    Token::End => fault(start, "this list is never closed", "write a `]` where it ends"),
                    _ => fault(self.start, "a comma or `]` must stand here", "write level in [\"warn\", \"error\"]"),
                });
            }
        }
        self.advance()?;
        set.sort();
        Ok(set)
    }

    /// `a.b["c"]`, `a.b.method("x")`, `function(a.b)`.
    fn path_or_call(&mut self, name: String, start: usize) -> Parsed<Term> {
        self.advance()?;
        if self.is("(") {
            return self.call(&name, start);
        }
        match self.path(name)? {
            (path, Some((method, at))) => self.method(&path, &method, start, at),
            (path, None) => {
                let field = (self.resolve)(&path);
                Ok(self.term(start, What::Value(Operand::Field(field))))
            }
        }
    }

    /// The rest of a path behind its first name; the method and its place if one is called on it.
    fn path(&mut self, name: String) -> Parsed<(String, Option<(String, usize)>)> {
        // `record["x"]` is the whole record's field; a field that is itself called `record` has no bracket.
        let mut path = if name == "record" && self.is("[") { String::new() } else { name };
        loop {
            if self.take(".")? {
                let at = self.start;
                let Token::Name(name) = self.token.clone() else {
                    return Err(fault(at, "a field name must stand after the dot", NAME_HELP));
                };
                self.advance()?;
                if self.is("(") {
                    return Ok((path, Some((name, at))));
                }
                path = format!("{path}.{name}");
            } else if self.take("[")? {
                let at = self.start;
                let Token::Text(key) = self.token.clone() else {
                    return Err(fault(
                        at,
                        "a field name in quotes must stand in the brackets",
                        "write record[\"odd-key\"]; elements of lists have no number here",
                    ));
                };
                if key.is_empty() {
                    return Err(fault(at, "a field name is empty", "write the name in the quotes, as in record[\"odd-key\"]"));
                }
                self.advance()?;
                if !self.take("]")? {
                    return Err(fault(self.start, "`]` is missing after the field name", "write record[\"odd-key\"]"));
                }
                path = if path.is_empty() { key } else { format!("{path}.{key}") };
            } else {
                return Ok((path, None));
            }
        }
    }

    fn call(&mut self, name: &str, start: usize) -> Parsed<Term> {
        if !matches!(name, "has" | "size") {
            let help = match (same_word(name, &FUNCTIONS), same_word(name, &METHODS)) {
                (Some(known), _) => format!("write {known}(field)"),
                (None, Some(known)) => format!("write field.{known}({})", value::example_argument(known)),
                (None, None) => unknown_help(),
            };
            return Err(fault(start, format!("there is no function `{name}`"), help));
        }
        self.advance()?;
        let at = self.start;
        let argument = match &self.token {
            Token::Name(field) if !is_literal(field) => {
                let field = field.clone();
                self.path_or_call(field, at)?.what
            }
            _ => What::Value(Operand::Null),
        };
        let What::Value(Operand::Field(field)) = argument else {
            return Err(fault(at, format!("{name} takes a field"), format!("write {name}(kubernetes.labels.tenant)")));
        };
        self.close(name)?;
        let what = match name {
            "has" => What::Test(Node::Has(field)),
            _ => What::Value(Operand::Size(field)),
        };
        Ok(self.term(start, what))
    }

    fn method(&mut self, path: &str, name: &str, start: usize, at: usize) -> Parsed<Term> {
        if !matches!(name, "startsWith" | "endsWith" | "contains" | "matches") {
            let help = match (same_word(name, &METHODS), same_word(name, &FUNCTIONS)) {
                (Some(known), _) => format!("write {path}.{known}({})", value::example_argument(known)),
                (None, Some(known)) => format!("write {known}({path})"),
                (None, None) => unknown_help(),
            };
            return Err(fault(at, format!("there is no method `{name}`"), help));
        }
        self.advance()?;
        let argument_at = self.start;
        let Token::Text(argument) = self.token.clone() else {
            let quotes = if name == "matches" { " in quotes" } else { "" }; // the others take what is computed, too
            return Err(fault(argument_at, format!("{name} takes a text{quotes}"), format!("write {path}.{name}(\"..\")")));
        };
        self.advance()?;
        let argument_end = self.previous_end;
        self.close(name)?;
        let field = (self.resolve)(path);
        let test = match name {
            "startsWith" => TextTest::StartsWith(argument.into_bytes().into()),
            "endsWith" => TextTest::EndsWith(argument.into_bytes().into()),
            "contains" => TextTest::Contains(Box::new(Finder::new(argument.as_bytes()).into_owned())),
            _ => self.regex(&argument, argument_at, argument_end)?,
        };
        Ok(self.term(start, What::Test(Node::Text { field, test })))
    }

    fn regex(&mut self, pattern: &str, at: usize, end: usize) -> Parsed<TextTest> {
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            return Err(fault(
                at,
                format!("a condition has at most {REGEXES_MAX} regexes"),
                "join them with |, as in matches(\"timeout|refused\")",
            ));
        }
        let compiled = match self.compiled.iter().find(|(place, _)| *place == at) {
            Some((_, compiled)) => compiled.clone(),
            None => {
                let compiled = compile(pattern);
                self.compiled.push((at, compiled.clone()));
                compiled
            }
        };
        compiled.map(TextTest::Matches).map_err(|error| {
            let (column, message) = regex_mistake(&error);
            // The column counts in the pattern; where the literal has escapes, that is not its place in the text.
            let literal = &self.text[at..end];
            let at = match (column, literal.find(pattern)) {
                (Some(column), Some(inside)) if pattern.is_char_boundary(column) => at + inside + column,
                _ => at,
            };
            fault(at, message, "a pattern is in RE2 syntax; write r\"\\d+\" so that backslashes stay as they are")
        })
    }

    fn close(&mut self, name: &str) -> Parsed<()> {
        if self.take(")")? {
            return Ok(());
        }
        Err(fault(self.start, format!("`)` is missing after the argument of {name}"), format!("{name} takes one argument")))
    }

    /// A term used as something that holds or not.
    fn test(&self, term: Term) -> Parsed<Node> {
        let found = match term.what {
            What::Test(node) => return Ok(node),
            What::Computed(expr) => match expr.is_test() {
                Ok(()) => return Ok(lower(expr)),
                Err(found) => found,
            },
            What::Value(Operand::Bool(value)) => return Ok(Node::Const(value)),
            What::Value(Operand::Field(field)) => return Ok(Node::IsTrue(field)),
            What::Value(operand) => operand.type_name().expect("a field was answered above"),
        };
        let source = &self.text[term.start..term.end];
        Err(fault(
            term.start,
            format!("`{}` is {found}; here stands something that is true or false", short(source)),
            "compare it, as in size(message) > 100",
        ))
    }

    /// A term used as one side of a comparison.
    fn operand(&self, term: Term) -> Parsed<Operand> {
        match term.what {
            What::Value(operand) => Ok(operand),
            What::Test(_) => Err(fault(
                term.start,
                "a comparison cannot be compared again",
                "join conditions with && and ||, turn one around with !(..)",
            )),
            What::Computed(_) => Err(fault(term.start, "here computes what is compared", self.example)), // and is read again as that
        }
    }

    fn term(&self, start: usize, what: What) -> Term {
        Term { what, start, end: self.previous_end }
    }

    fn enter(&mut self, at: usize) -> Parsed<()> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(fault(
                at,
                format!("the condition is nested deeper than {NESTING_MAX}"),
                "leave out parentheses that change nothing",
            ));
        }
        Ok(())
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(&self.token, Token::Symbol(own) if *own == symbol)
    }

    fn take(&mut self, symbol: &str) -> Parsed<bool> {
        let found = self.is(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// The error for a token that cannot follow `before`.
    fn unexpected(&self, before: &Term) -> ConditionError {
        match &self.token {
            Token::Symbol(symbol) => self.unexpected_symbol(symbol, Some(before)),
            Token::Name(name) => {
                let left = short(&self.text[before.start..before.end]);
                let help = match name.to_ascii_lowercase().as_str() {
                    "and" => "write && for `and`".into(),
                    "or" => "write || for `or`".into(),
                    "not" => format!("write !({left} in [..]) for `not in`"),
                    _ => match same_word(name, &["startsWith", "endsWith", "contains", "matches"]) {
                        Some(known) => format!("write {left}.{known}(\"..\")"),
                        None => "join conditions with && or ||; put texts in quotes".into(),
                    },
                };
                fault(self.start, format!("`{}` cannot stand here", short(name)), help)
            }
            Token::Text(_) | Token::Number(_) => fault(self.start, "an operator is missing before this value", EXAMPLE),
            Token::End => fault(self.start, "the condition ends too early", EXAMPLE),
        }
    }

    fn unexpected_symbol(&self, symbol: &str, before: Option<&Term>) -> ConditionError {
        let help = match (symbol, before) {
            ("=", Some(before)) => {
                let rest = self.text[self.next_at..].trim_start();
                let right = rest.split(['&', '|', ')', '\n']).next().unwrap_or_default().trim_end();
                format!("write {} == {}", short(&self.text[before.start..before.end]), short(right))
            }
            ("=~", _) => "write field.matches(\"..\")".into(),
            ("&", _) => "write && for `and`".into(),
            ("|", _) => "write || for `or`".into(),
            (")", _) => "leave it out, or open it with `(`".into(),
            ("-", Some(_)) => NAME_HELP.into(),
            (":", Some(_)) => "write level == \"error\" ? status > 500 : status > 400".into(),
            _ => EXAMPLE.into(),
        };
        let message = match (symbol, before) {
            ("=", _) => "`=` is no comparison".into(),
            (")", _) => "this parenthesis was never opened".into(),
            (_, None) => format!("a value is missing before `{symbol}`"),
            _ => format!("`{symbol}` cannot stand here"),
        };
        fault(self.start, message, help)
    }

    /// Reads the next token.
    fn advance(&mut self) -> Parsed<()> {
        self.previous_end = self.next_at;
        let rest = self.text[self.next_at..].trim_start_matches([' ', '\t', '\r', '\n']);
        self.start = self.text.len() - rest.len();
        let (token, length) = self.lex(rest)?;
        self.token = token;
        self.next_at = self.start + length;
        Ok(())
    }

    fn lex(&self, rest: &str) -> Parsed<(Token, usize)> {
        let bytes = rest.as_bytes();
        match bytes {
            [] => Ok((Token::End, 0)),
            [b'r' | b'R', b'"' | b'\'', ..] => lex_raw_text(rest, self.start),
            [b'"' | b'\'', ..] => lex_text(rest, self.start),
            [b'0'..=b'9', ..] => lex_number(rest, self.start),
            [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] => {
                let length = bytes.iter().take_while(|&&byte| is_name_byte(byte)).count();
                Ok((Token::Name(rest[..length].into()), length))
            }
            _ => match SYMBOLS.iter().find(|&&symbol| rest.starts_with(symbol)) {
                Some(symbol) => Ok((Token::Symbol(symbol), symbol.len())),
                None => Err(unknown_character(rest, self.start)),
            },
        }
    }
}

fn computed(part: value::Part) -> Term {
    Term { what: What::Computed(part.expr), start: part.start, end: part.end }
}

/// What computes as a node; `!` in front of all of it turns errors around, as it does for nodes.
fn lower(expr: Expr) -> Node {
    match expr {
        Expr::Const(Val::Bool(value)) => Node::Const(value),
        Expr::Field(field) => Node::IsTrue(field),
        Expr::Not(inner) => Node::Not(Box::new(lower(*inner))),
        expr => Node::Expr(Box::new(expr)),
    }
}

fn unknown_help() -> String {
    format!("the functions are {}; the methods {}", FUNCTIONS.join(", "), METHODS.join(", "))
}

const NAME_HELP: &str = "a name with other characters than letters, digits and _ is written record[\"odd-key\"]";

/// Builds the node of a comparison; the common shapes get nodes of their own. Error: message and help.
fn compare(left: Operand, op: Op, right: Operand) -> Result<Node, (&'static str, &'static str)> {
    Ok(match (left, op, right) {
        (Operand::Field(field), Op::Eq | Op::Ne, Operand::Null) | (Operand::Null, Op::Eq | Op::Ne, Operand::Field(field)) => {
            Node::IsNull { field, wanted: op == Op::Eq }
        }
        (Operand::Null, ..) | (.., Operand::Null) => {
            return Err(("only == and != compare a field with null", "write field != null, or has(field) to ask whether it is there"));
        }
        (Operand::Field(field), Op::Eq | Op::Ne, Operand::Text(text)) | (Operand::Text(text), Op::Eq | Op::Ne, Operand::Field(field)) => {
            Node::Equal { field, text, wanted: op == Op::Eq }
        }
        (Operand::Field(field), op, Operand::Number(number)) => Node::Against { field, op, number },
        (left, op, right) => {
            let is_equality = matches!(op, Op::Eq | Op::Ne);
            let of_size = matches!((&left, &right), (Operand::Size(_), _) | (_, Operand::Size(_)));
            if let (Some(a), Some(b)) = (left.type_name(), right.type_name())
                && a != b
                && (of_size || !is_equality)
            {
                return Err(("values of these types are never compared so", "a text is in quotes, a number and true are not"));
            }
            Node::Compare { left, op, right }
        }
    })
}

impl Operand {
    /// What it is for every record.
    fn type_name(&self) -> Option<&'static str> {
        match self {
            Operand::Field(_) => None,
            Operand::Size(_) | Operand::Number(_) => Some("a number"),
            Operand::Text(_) => Some("a text"),
            Operand::Bool(_) => Some("true or false"),
            Operand::Null => Some("null"),
        }
    }
}

/// Words that are no field names.
fn is_literal(name: &str) -> bool {
    matches!(name, "true" | "false" | "null" | "in")
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The known word that was meant, if only case and underscores differ.
fn same_word<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |word: &str| word.replace('_', "").to_ascii_lowercase();
    known.iter().copied().find(|own| plain(own) == plain(word))
}

/// The start of a piece of text, for a message.
fn short(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

fn unknown_character(rest: &str, at: usize) -> ConditionError {
    let character = rest.chars().next().unwrap_or(' ');
    let help = match character {
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{2018}' | '\u{2019}' => "write plain quotes: \"..\" or '..'",
        '#' => "put comments into the YAML around the condition",
        _ => NAME_HELP,
    };
    fault(at, format!("`{}` cannot stand here", character.escape_debug()), help)
}

fn lex_number(rest: &str, at: usize) -> Parsed<(Token, usize)> {
    let digits = |from: usize| rest.as_bytes()[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let byte = |at: usize| rest.as_bytes().get(at).copied().unwrap_or(0);
    let mut end = digits(0);
    if byte(end) == b'.' && byte(end + 1).is_ascii_digit() {
        end += 1 + digits(end + 1);
    }
    if matches!(byte(end), b'e' | b'E') {
        let sign = usize::from(matches!(byte(end + 1), b'+' | b'-'));
        if byte(end + 1 + sign).is_ascii_digit() {
            end += 1 + sign + digits(end + 1 + sign);
        }
    }
    if is_name_byte(byte(end)) || byte(end) == b'.' {
        return Err(fault(at, "this is no number", "a number is written 500, -1.5 or 1e6, without a unit; put texts in quotes"));
    }
    Ok((Token::Number(rest[..end].into()), end))
}

fn lex_raw_text(rest: &str, at: usize) -> Parsed<(Token, usize)> {
    let quote = char::from(rest.as_bytes()[1]);
    match rest[2..].find([quote, '\n']) {
        Some(length) if rest[2 + length..].starts_with(quote) => Ok((Token::Text(rest[2..2 + length].into()), length + 3)),
        _ => Err(unclosed_text(at, quote)),
    }
}

fn lex_text(rest: &str, at: usize) -> Parsed<(Token, usize)> {
    let quote = char::from(rest.as_bytes()[0]);
    let mut text = String::new();
    let mut place = 1;
    loop {
        let Some(character) = rest[place..].chars().next() else {
            return Err(unclosed_text(at, quote));
        };
        match character {
            '\n' => return Err(unclosed_text(at, quote)),
            '\\' => {
                let (decoded, length) = lex_escape(&rest[place..], at + place)?;
                text.push(decoded);
                place += length;
            }
            _ if character == quote => return Ok((Token::Text(text), place + 1)),
            _ => {
                text.push(character);
                place += character.len_utf8();
            }
        }
    }
}

fn unclosed_text(at: usize, quote: char) -> ConditionError {
    fault(at, "this text is never closed", format!("write a {quote} at its end; a line break in a text is written \\n"))
}

/// CEL's escapes: the character, and how many bytes it takes with its backslash.
fn lex_escape(rest: &str, at: usize) -> Parsed<(char, usize)> {
    let unknown =
        || fault(at, "this escape is unknown", "write \\\\ for a backslash, or r\"..\" for a text in which backslashes stay as they are");
    let coded = |from: usize, length: usize, radix: u32| {
        let digits = rest.get(from..from + length).filter(|digits| digits.bytes().all(|digit| char::from(digit).is_digit(radix)));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
        code.and_then(char::from_u32).map(|decoded| (decoded, from + length)).ok_or_else(unknown)
    };
    let simple = match rest.as_bytes().get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'a') => '\u{7}',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'v') => '\u{b}',
        Some(&same @ (b'\\' | b'"' | b'\'' | b'`' | b'?')) => char::from(same),
        Some(b'x' | b'X') => return coded(2, 2, 16),
        Some(b'u') => return coded(2, 4, 16),
        Some(b'U') => return coded(2, 8, 16),
        Some(b'0'..=b'3') => return coded(1, 3, 8),
        _ => return Err(unknown()),
    };
    Ok((simple, 2))
}

/// Where in the pattern the mistake is, if the library's picture of it shows that, and what it is.
fn regex_mistake(error: &regex::Error) -> (Option<usize>, String) {
    if let regex::Error::CompiledTooBig(_) = error {
        return (None, "this pattern is too large when compiled (1 MiB)".into());
    }
    // The picture: "regex parse error:\n    a(b\n     ^\nerror: unclosed group".
    let picture = error.to_string();
    let message = picture.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("the pattern cannot be read");
    let caret = picture.lines().find(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty());
    let column = caret.and_then(|line| line.find('^')).and_then(|column| column.checked_sub(4));
    (column, format!("this is no regex: {message}"))
}
