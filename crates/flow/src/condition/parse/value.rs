//! The grammar of expressions, over the words of conditions.
//!
//! In: the text and what resolves field paths. Out: the root of the expression, or the first mistake with its byte offset; a
//! mistake is also what is wrong for every record: types that never fit, a constant that cannot be computed.

use super::super::expression::{Expr, Method, Record, Sign, TimePart, Type, Val, Wrong, number, parse_offset};
use super::super::{ConditionError, NESTING_MAX, Op, TEXT_BYTES_MAX};
use super::{Parsed, Parser, TextTest, Token, fault, is_literal, same_word, short};

const EXAMPLE: &str = "an expression reads as service + \"-\" + string(status / 100)";
pub(super) const FUNCTIONS: [&str; 7] = ["has", "size", "string", "int", "double", "timestamp", "duration"];
pub(super) const METHODS: [&str; 24] = [
    "lowerAscii",
    "upperAscii",
    "trim",
    "replace",
    "substring",
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "size",
    "indexOf",
    "lastIndexOf",
    "charAt",
    "reverse",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];
const TYPES_HELP: &str = "string(x), int(x) and double(x) make one of the other";
const TIMES_HELP: &str = "as in timestamp(ts) + duration(\"1h\") > timestamp(\"2026-01-31T12:00:00Z\")";

pub(in super::super) fn parse(text: &str, resolve: &mut dyn FnMut(&str) -> usize) -> Parsed<Expr> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the expression has {} bytes; the limit is {TEXT_BYTES_MAX}", text.len());
        return Err(fault(TEXT_BYTES_MAX, message, "set several fields, each from a part of it"));
    }
    let mut parser = Parser { example: EXAMPLE, ..Parser::new(text, resolve) };
    parser.advance()?;
    if parser.token == Token::End {
        return Err(fault(0, "the expression is empty", EXAMPLE));
    }
    let part = parser.choice()?;
    match parser.token {
        Token::End => Ok(part.expr),
        _ => Err(parser.misplaced(part)),
    }
}

/// A part of the expression, and where it stands.
pub(super) struct Part {
    pub(super) expr: Expr,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Parser<'_> {
    fn part(&self, start: usize, expr: Expr) -> Part {
        Part { expr, start, end: self.previous_end }
    }

    /// What is made of constants alone is computed now; where that cannot be, it never can. `at`: where to say so.
    fn settle(&self, start: usize, at: usize, expr: Expr) -> Parsed<Part> {
        let is_const = |part: &Expr| matches!(part, Expr::Const(_));
        let constant = match &expr {
            Expr::Size(part) | Expr::Not(part) | Expr::Negative(part) | Expr::To(_, part) | Expr::In(part, _) => is_const(part),
            Expr::Compare(left, _, right) => is_const(left) && is_const(right),
            Expr::Compute(first, rest) => is_const(first) && rest.iter().all(|(_, part)| is_const(part)),
            Expr::Methods(receiver, methods) => is_const(receiver) && methods.iter().all(method_is_const),
            Expr::All(parts) | Expr::Any(parts) => parts.iter().all(is_const),
            Expr::If(parts) => parts.iter().all(is_const),
            Expr::Const(_) | Expr::Field(_) | Expr::Has(_) => false,
        };
        if !constant {
            return Ok(self.part(start, expr));
        }
        match expr.value(&Record::new(&[], &[])).map(Val::into_owned) {
            Ok(Some(value)) => Ok(self.part(start, Expr::Const(value))),
            Ok(None) => Ok(self.part(start, expr)),
            Err(why) => {
                let source = short(&self.text[start..self.previous_end]);
                Err(fault(
                    at,
                    format!("`{source}` never has a value: {}", why.why()),
                    "compute with values that fit, or leave the field out",
                ))
            }
        }
    }

    /// `a`, or `c ? a : b`.
    pub(super) fn choice(&mut self) -> Parsed<Part> {
        let condition = self.disjunction()?;
        if !self.is("?") {
            return Ok(condition);
        }
        self.enter(self.start)?;
        let start = condition.start;
        let condition = self.truth(condition)?;
        self.advance()?;
        let then = self.choice()?;
        if !self.take(":")? {
            let help = "write level == \"error\" ? \"bad\" : \"good\"";
            return Err(match self.token {
                Token::End => fault(self.start, "`:` and a value are missing after `?`", help),
                _ => fault(self.start, "`:` must stand here, for what else the value is", help),
            });
        }
        let otherwise = self.choice()?;
        self.nesting -= 1;
        self.settle(start, start, Expr::If(Box::new([condition, then.expr, otherwise.expr])))
    }

    fn disjunction(&mut self) -> Parsed<Part> {
        self.joined("||", Parser::conjunction, Expr::Any)
    }

    fn conjunction(&mut self) -> Parsed<Part> {
        self.joined("&&", Parser::comparison, Expr::All)
    }

    fn joined(&mut self, symbol: &'static str, next: fn(&mut Self) -> Parsed<Part>, join: fn(Vec<Expr>) -> Expr) -> Parsed<Part> {
        let first = next(self)?;
        if !self.is(symbol) {
            return Ok(first);
        }
        let start = first.start;
        let mut parts = vec![self.truth(first)?];
        while self.take(symbol)? {
            let part = next(self)?;
            parts.push(self.truth(part)?);
        }
        self.settle(start, start, join(parts))
    }

    pub(super) fn comparison(&mut self) -> Parsed<Part> {
        let left = self.sum()?;
        let at = self.start;
        if self.token == Token::Name("in".into()) {
            self.advance()?;
            if let Some(known) = left.expr.known().filter(|known| known.is_time()) {
                let help = "string(x) makes a text of it; compare times with < and >=";
                return Err(fault(at, format!("a list holds no times, and this is {}", known.name()), help));
            }
            let set = self.list()?;
            self.refuse_second_relation()?;
            return self.settle(left.start, at, Expr::In(Box::new(left.expr), set));
        }
        let Some(op) = self.relation_op() else {
            return Ok(left);
        };
        self.advance()?;
        let right = self.sum()?;
        self.refuse_second_relation()?;
        let (known, other) = (left.expr.known(), right.expr.known());
        let is_null = known == Some(Type::Null) || other == Some(Type::Null);
        if is_null && !matches!(op, Op::Eq | Op::Ne) {
            return Err(fault(at, "null has no order", "write a != null, or has(a) to ask whether it is there"));
        }
        if let (Some(a), Some(b)) = (known, other)
            && a != b
            && !is_null
            && !(a.is_number() && b.is_number())
        {
            if let (Expr::Not(_), b'!') = (&left.expr, self.text.as_bytes()[left.start]) {
                let help = "put the comparison in parentheses, as in !(level == \"info\")";
                return Err(fault(left.start, "`!` binds tighter than a comparison", help));
            }
            return Err(fault(at, format!("{} is never compared with {}", a.name(), b.name()), types_help(a, b)));
        }
        self.refuse_bare_time(at, &left.expr, &right)?;
        self.settle(left.start, at, Expr::Compare(Box::new(left.expr.operand()), op, Box::new(right.expr.operand())))
    }

    /// A field is no time, whatever it says.
    fn refuse_bare_time(&self, at: usize, left: &Expr, right: &Part) -> Parsed<()> {
        let (known, field) = match (left, &right.expr) {
            (Expr::Field(_), other) => (other.known(), "left"),
            (other, Expr::Field(_)) => (other.known(), "right"),
            _ => return Ok(()),
        };
        match known.filter(|known| known.is_time()) {
            None => Ok(()),
            Some(known) => {
                let message = format!("a field is never {}, and here is one on the {field}", known.name());
                Err(fault(at, message, "write timestamp(ts) for a field with a time, duration(took) for one such as 1.5s"))
            }
        }
    }

    fn sum(&mut self) -> Parsed<Part> {
        self.computed(&[("+", Sign::Plus), ("-", Sign::Minus)], Parser::product)
    }

    fn product(&mut self) -> Parsed<Part> {
        self.computed(&[("*", Sign::Times), ("/", Sign::Divide), ("%", Sign::Rest)], Parser::signed)
    }

    fn computed(&mut self, signs: &[(&'static str, Sign)], next: fn(&mut Self) -> Parsed<Part>) -> Parsed<Part> {
        let first = next(self)?;
        let (start, mut known, mut first, mut rest) = (first.start, first.expr.known(), first.expr, Vec::new());
        while let Some((symbol, sign)) = signs.iter().copied().find(|(symbol, _)| self.is(symbol)) {
            let at = self.start;
            self.advance()?;
            let part = next(self)?;
            check_operand(at, symbol, sign, known, part.expr.known())?;
            if rest.is_empty() {
                self.refuse_bare_time(at, &first, &part)?;
            }
            known = sign.result(known, part.expr.known());
            if matches!(sign, Sign::Divide | Sign::Rest) && matches!(part.expr, Expr::Const(Val::Int(0))) {
                return Err(fault(part.start, "this divides by zero", "divide by something else, as in n == 0 ? 0 : total / n"));
            }
            if rest.is_empty() {
                let computed = self.settle(start, at, Expr::Compute(Box::new(first.operand()), vec![(sign, part.expr.operand())]))?;
                match computed.expr {
                    Expr::Compute(own, own_rest) => (first, rest) = (*own, own_rest),
                    constant => first = constant,
                }
            } else {
                rest.push((sign, part.expr.operand()));
            }
        }
        Ok(self.part(start, if rest.is_empty() { first } else { Expr::Compute(Box::new(first), rest) }))
    }

    fn signed(&mut self) -> Parsed<Part> {
        let start = self.start;
        if self.take("!")? {
            self.enter(start)?;
            let inner = self.signed()?;
            self.nesting -= 1;
            let inner = self.truth(inner)?;
            return self.settle(start, start, Expr::Not(Box::new(inner)));
        }
        if !self.take("-")? {
            return self.member();
        }
        if let Token::Number(digits) = &self.token {
            let digits = format!("-{digits}");
            return self.number(&digits, start);
        }
        self.enter(start)?;
        let inner = self.signed()?;
        self.nesting -= 1;
        if let Some(known) = inner.expr.known().filter(|known| !known.is_number()) {
            return Err(fault(start, format!("`-` stands before numbers, and this is {}", known.name()), self.example));
        }
        self.settle(start, start, Expr::Negative(Box::new(inner.expr)))
    }

    fn number(&mut self, digits: &str, start: usize) -> Parsed<Part> {
        self.advance()?;
        let help = "an int has 64 bits: write a number with a fraction, or a text in quotes";
        let value = match number(digits.as_bytes()) {
            value @ Val::Int(_) => value,
            value if value.known() == Some(Type::Int) => return Err(fault(start, "this number does not fit into an int", help)),
            _ if digits.parse::<f64>().is_ok_and(|value| !value.is_finite()) => {
                return Err(fault(start, "this number does not fit into a double", "a double goes to 1.79e308"));
            }
            value => value,
        };
        let value = value.into_owned().expect("a number is no object");
        let part = self.part(start, Expr::Const(value));
        self.methods(part)
    }

    fn member(&mut self) -> Parsed<Part> {
        let start = self.start;
        let part = match self.token.clone() {
            Token::Symbol("(") => {
                self.enter(start)?;
                self.advance()?;
                let inner = self.choice()?;
                if !self.is(")") {
                    return Err(match self.token {
                        Token::End => fault(start, "this parenthesis is never closed", "write a `)` where it ends"),
                        _ => self.misplaced(inner),
                    });
                }
                self.advance()?;
                self.nesting -= 1;
                self.part(start, inner.expr)
            }
            Token::Number(digits) => return self.number(&digits, start),
            Token::Text(text) => {
                self.advance()?;
                self.part(start, Expr::Const(Val::Text(text.into())))
            }
            Token::Name(name) if is_literal(&name) => {
                let value = match name.as_str() {
                    "true" => Val::Bool(true),
                    "false" => Val::Bool(false),
                    "null" => Val::Null,
                    _ => return Err(fault(start, "a value is missing before `in`", self.example)),
                };
                self.advance()?;
                self.part(start, Expr::Const(value))
            }
            Token::Name(name) => {
                self.advance()?;
                if self.is("(") {
                    self.function(&name, start)?
                } else {
                    return self.field(name, start);
                }
            }
            Token::Symbol("[") => {
                return Err(fault(start, "a list stands only after `in`", "write level in [\"warn\", \"error\"]"));
            }
            Token::End => return Err(fault(start, "a value is missing at the end", self.example)),
            Token::Symbol(symbol) => return Err(fault(start, format!("a value is missing before `{symbol}`"), self.example)),
        };
        self.methods(part)
    }

    fn field(&mut self, name: String, start: usize) -> Parsed<Part> {
        let (path, method) = self.path(name)?;
        let receiver = Expr::Field((self.resolve)(&path));
        let mut part = self.part(start, receiver);
        if let Some((name, at)) = method {
            let method = self.method_of(&name, at, &part.expr)?;
            part = self.part(start, Expr::Methods(Box::new(part.expr), vec![method]));
        }
        self.methods(part)
    }

    /// `.trim().lowerAscii()` behind a value.
    fn methods(&mut self, mut part: Part) -> Parsed<Part> {
        while self.take(".")? {
            let at = self.start;
            let Token::Name(name) = self.token.clone() else {
                return Err(fault(at, "a method must stand after the dot", format!("the methods are {}", METHODS.join(", "))));
            };
            self.advance()?;
            if !self.is("(") {
                return Err(fault(at, "only a field has fields", format!("the methods are {}", METHODS.join(", "))));
            }
            let method = self.method_of(&name, at, &part.expr)?;
            let expr = match part.expr {
                Expr::Methods(receiver, mut methods) => {
                    methods.push(method);
                    Expr::Methods(receiver, methods)
                }
                receiver => Expr::Methods(Box::new(receiver), vec![method]),
            };
            part = self.settle(part.start, at, expr)?;
        }
        Ok(part)
    }

    /// A method whose `(` is the token to look at.
    fn method_of(&mut self, name: &str, at: usize, receiver: &Expr) -> Parsed<Method> {
        if !METHODS.contains(&name) {
            let help = match (same_word(name, &METHODS), same_word(name, &FUNCTIONS)) {
                (Some(known), _) => format!("write .{known}(..)"),
                (None, Some(known)) => format!("write {known}(..) around the value"),
                (None, None) => format!("the methods are {}", METHODS.join(", ")),
            };
            return Err(fault(at, format!("there is no method `{name}`"), help));
        }
        if let Some(part) = TimePart::of_method(name) {
            return self.time_method(name, part, at, receiver);
        }
        match receiver.known() {
            None | Some(Type::Text) => {}
            Some(known) => {
                return Err(fault(
                    at,
                    format!("{name} is a method of texts, and this is {}", known.name()),
                    "string(x) makes a text of it",
                ));
            }
        }
        self.enter(at)?;
        self.advance()?;
        let method = match name {
            "matches" => {
                let (start, Token::Text(pattern)) = (self.start, self.token.clone()) else {
                    return Err(fault(self.start, "matches takes a text in quotes", "write path.matches(\"^/v1/\")"));
                };
                self.advance()?;
                let TextTest::Matches(regex) = self.regex(&pattern, start, self.previous_end)? else {
                    unreachable!("a regex is what was asked for")
                };
                Method::Matches(regex)
            }
            "lowerAscii" => Method::LowerAscii,
            "upperAscii" => Method::UpperAscii,
            "trim" => Method::Trim,
            "size" => Method::Size,
            "reverse" => Method::Reverse,
            "indexOf" => Method::IndexOf(self.argument(Type::Text)?),
            "lastIndexOf" => Method::LastIndexOf(self.argument(Type::Text)?),
            "charAt" => Method::CharAt(self.argument(Type::Int)?),
            "replace" => {
                let old = self.argument(Type::Text)?;
                if !self.take(",")? {
                    return Err(fault(self.start, "replace takes two texts, and a comma between them", call_help(name)));
                }
                let new = self.argument(Type::Text)?;
                Method::Replace(old, new, self.further(Type::Int)?)
            }
            "substring" => {
                let from = self.argument(Type::Int)?;
                Method::Substring(from, self.further(Type::Int)?)
            }
            "startsWith" => Method::StartsWith(self.argument(Type::Text)?),
            "endsWith" => Method::EndsWith(self.argument(Type::Text)?),
            _ => Method::Contains(self.argument(Type::Text)?),
        };
        self.close_call(name)?;
        Ok(method)
    }

    /// `getHours("+02:00")` and its like.
    fn time_method(&mut self, name: &str, part: TimePart, at: usize, receiver: &Expr) -> Parsed<Method> {
        let found = match (receiver, receiver.known()) {
            (Expr::Field(_), _) => Some("a field"),
            (_, None | Some(Type::Time)) => None,
            (_, Some(Type::Duration)) if part.of_duration(0).is_some() => None,
            (_, Some(known)) => Some(known.name()),
        };
        if let Some(found) = found {
            let message = format!("{name} is a method of timestamps, and this is {found}");
            return Err(fault(at, message, format!("timestamp(x) makes one of a text or a number, as in timestamp(ts).{name}()")));
        }
        self.enter(at)?;
        self.advance()?;
        let mut ahead_seconds = 0;
        let start = self.start;
        if let Token::Text(offset) = self.token.clone() {
            if receiver.known() == Some(Type::Duration) {
                return Err(fault(start, "a duration is the same in every zone", format!("write .{name}()")));
            }
            let Some(seconds) = parse_offset(&offset) else {
                let message = format!("`{}` is no offset from UTC", short(&offset));
                return Err(fault(
                    start,
                    message,
                    "write \"+02:00\" or \"UTC\"; names of zones, which change their offset, are not known here",
                ));
            };
            ahead_seconds = seconds;
            self.advance()?;
        }
        self.close_call(name)?;
        Ok(Method::Time(part, ahead_seconds))
    }

    fn argument(&mut self, wanted: Type) -> Parsed<Expr> {
        let start = self.start;
        if self.is(")") {
            return Err(fault(start, format!("{} is missing here", wanted.name()), argument_help(wanted)));
        }
        let part = self.choice()?;
        if let Some(known) = part.expr.known().filter(|known| *known != wanted) {
            return Err(fault(start, format!("here stands {}, and this is {}", wanted.name(), known.name()), argument_help(wanted)));
        }
        Ok(part.expr)
    }

    /// An argument that may be left out.
    fn further(&mut self, wanted: Type) -> Parsed<Option<Expr>> {
        if self.take(",")? { self.argument(wanted).map(Some) } else { Ok(None) }
    }

    fn close_call(&mut self, name: &str) -> Parsed<()> {
        let close = self.start;
        if !self.take(")")? {
            return Err(fault(close, format!("`)` is missing after what {name} takes"), call_help(name)));
        }
        self.nesting -= 1;
        Ok(())
    }

    fn function(&mut self, name: &str, start: usize) -> Parsed<Part> {
        if !FUNCTIONS.contains(&name) {
            let help = match (same_word(name, &FUNCTIONS), same_word(name, &METHODS)) {
                (Some(known), _) => format!("write {known}(..)"),
                (None, Some(known)) => format!("write field.{known}(..)"),
                (None, None) => format!("the functions are {}; the methods {}", FUNCTIONS.join(", "), METHODS.join(", ")),
            };
            return Err(fault(start, format!("there is no function `{name}`"), help));
        }
        self.enter(start)?;
        self.advance()?;
        let at = self.start;
        if self.is(")") {
            return Err(fault(at, format!("{name} takes a value"), call_help(name)));
        }
        let part = self.choice()?;
        let known = part.expr.known();
        let expr = match name {
            "has" => match part.expr {
                Expr::Field(field) => Expr::Has(field),
                _ => return Err(fault(at, "has takes a field", "write has(kubernetes.labels.tenant)")),
            },
            "size" if known.is_some_and(|known| known != Type::Text) => {
                return Err(fault(at, "only texts, lists and objects have a size", "write size(message)"));
            }
            "size" => Expr::Size(Box::new(part.expr)),
            _ => {
                let target = match name {
                    "string" => Type::Text,
                    "int" => Type::Int,
                    "double" => Type::Double,
                    "timestamp" => Type::Time,
                    _ => Type::Duration,
                };
                if let Some(known) = known.filter(|known| !is_made_of(target, *known)) {
                    let help = match known {
                        Type::Bool => "write flag ? 1 : 0",
                        Type::Duration => "write d.getSeconds()",
                        _ => call_help(name),
                    };
                    return Err(fault(at, format!("{name} makes nothing of {}", known.name()), help));
                }
                let expr = Expr::To(target, Box::new(part.expr));
                // No record is read where there is a constant.
                if target.is_time()
                    && let Err(Wrong::Value(why)) = expr.value(&Record::new(&[], &[]))
                {
                    let source = short(&self.text[part.start..part.end]);
                    return Err(fault(at, format!("{source} cannot be read: {why}"), call_help(name)));
                }
                expr
            }
        };
        self.close_call(name)?;
        self.settle(start, start, expr)
    }

    /// A part that is true or false, as far as anybody can tell.
    fn truth(&self, part: Part) -> Parsed<Expr> {
        match part.expr.is_test() {
            Ok(()) => Ok(part.expr),
            Err(found) => {
                let source = short(&self.text[part.start..part.end]);
                let message = format!("`{source}` is {found}; here stands something that is true or false");
                Err(fault(part.start, message, "compare it, as in size(message) > 100"))
            }
        }
    }

    /// The error for a token that cannot follow `before`.
    fn misplaced(&self, before: Part) -> ConditionError {
        let help = match &self.token {
            Token::Symbol("=") => "write == to compare",
            Token::Symbol("&") => "write && for `and`",
            Token::Symbol("|") => "write || for `or`",
            Token::Symbol(")") => "leave it out, or open it with `(`",
            Token::Name(name) if name.eq_ignore_ascii_case("and") => "write && for `and`",
            Token::Name(name) if name.eq_ignore_ascii_case("or") => "write || for `or`",
            Token::Text(_) => "join texts with +",
            _ => self.example,
        };
        let message = match &self.token {
            Token::End => "the expression ends too early".into(),
            _ => format!("`{}` cannot stand here", short(&self.text[self.start..self.next_at])),
        };
        debug_assert!(before.end <= self.start);
        fault(self.start, message, help)
    }
}

fn method_is_const(method: &Method) -> bool {
    let is_const = |part: &Expr| matches!(part, Expr::Const(_));
    let may_be = |part: &Option<Expr>| part.as_ref().is_none_or(is_const);
    match method {
        Method::LowerAscii | Method::UpperAscii | Method::Trim | Method::Size | Method::Reverse => true,
        Method::Matches(_) | Method::Time(..) => true,
        Method::IndexOf(part) | Method::LastIndexOf(part) | Method::CharAt(part) => is_const(part),
        Method::Replace(old, new, count) => is_const(old) && is_const(new) && may_be(count),
        Method::Substring(from, to) => is_const(from) && may_be(to),
        Method::StartsWith(part) | Method::EndsWith(part) | Method::Contains(part) => is_const(part),
    }
}

/// Whether a conversion takes values of this type.
fn is_made_of(target: Type, known: Type) -> bool {
    match target {
        Type::Text => known != Type::Null,
        Type::Int => matches!(known, Type::Int | Type::Double | Type::Text | Type::Time),
        Type::Time => matches!(known, Type::Int | Type::Double | Type::Text | Type::Time),
        Type::Duration => matches!(known, Type::Text | Type::Duration),
        _ => matches!(known, Type::Int | Type::Double | Type::Text),
    }
}

/// Whether values of these types can be computed with each other, as far as they are known.
fn check_operand(at: usize, symbol: &str, sign: Sign, so_far: Option<Type>, next: Option<Type>) -> Parsed<()> {
    let takes = |known: Type| match sign {
        Sign::Plus => known.is_number() || known == Type::Text || known.is_time(),
        Sign::Minus => known.is_number() || known.is_time(),
        Sign::Rest => known == Type::Int,
        Sign::Times | Sign::Divide => known.is_number(),
    };
    if let Some(known) = [so_far, next].into_iter().flatten().find(|known| !takes(*known)) {
        let takes = match sign {
            Sign::Plus => "texts and numbers",
            Sign::Rest => "ints",
            Sign::Minus | Sign::Times | Sign::Divide => "numbers",
        };
        let help = if known.is_time() { TIMES_HELP } else { TYPES_HELP };
        return Err(fault(at, format!("`{symbol}` takes {takes}, and this is {}", known.name()), help));
    }
    let fits = match (so_far, next) {
        (Some(Type::Time), Some(Type::Time)) => sign == Sign::Minus,
        (Some(Type::Time), Some(Type::Duration)) => true,
        (Some(Type::Duration), Some(Type::Time)) => sign == Sign::Plus,
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    match (so_far, next) {
        (Some(a), Some(b)) if !fits => {
            let message = match sign {
                _ if a == b => format!("`{symbol}` does not take two timestamps"),
                _ => format!("{} and {} are not computed with each other", a.name(), b.name()),
            };
            Err(fault(at, message, types_help(a, b)))
        }
        _ => Ok(()),
    }
}

fn types_help(a: Type, b: Type) -> &'static str {
    if a.is_time() || b.is_time() { TIMES_HELP } else { TYPES_HELP }
}

/// What stands between the parentheses of a method, for errors.
pub(super) fn example_argument(method: &str) -> &'static str {
    match method {
        "startsWith" | "endsWith" | "contains" | "matches" | "indexOf" | "lastIndexOf" => "\"..\"",
        "replace" | "substring" | "charAt" => "..",
        _ => "",
    }
}

fn argument_help(wanted: Type) -> &'static str {
    match wanted {
        Type::Int => "characters are counted from 0, as in name.substring(0, 3)",
        _ => "write a text in quotes, a field, or string(x)",
    }
}

fn call_help(name: &str) -> &'static str {
    match name {
        "has" => "write has(kubernetes.labels.tenant)",
        "size" => "write size(message)",
        "replace" => "write path.replace(\"/\", \"-\")",
        "substring" => "write name.substring(0, 3)",
        "string" | "int" | "double" => "write string(status)",
        "timestamp" => "write timestamp(ts), or timestamp(\"2026-01-31T12:00:00Z\")",
        "duration" => "write duration(\"1h30m\"), with h, m, s, ms, us and ns",
        "indexOf" | "lastIndexOf" => "write path.indexOf(\"/\")",
        "charAt" => "write name.charAt(0)",
        "matches" => "write path.matches(\"^/v1/\")",
        "lowerAscii" | "upperAscii" | "trim" | "reverse" => "write name.trim()",
        _ if name.starts_with("get") => "write timestamp(ts).getHours(\"+02:00\")",
        _ => "write path.startsWith(\"/v1/\")",
    }
}

const _: () = assert!(NESTING_MAX <= 64, "evaluation recurses as deep as expressions nest");
