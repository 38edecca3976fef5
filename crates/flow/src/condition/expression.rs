//! Expressions: `service + "/" + string(status / 100) + "xx"`, one value for each record, or none.
//!
//! In: a text in a subset of CEL, and later the spans of a record. Out: the value as JSON. Fields, literals, `==` and the other
//! comparisons, `in`, `&&`, `||`, `!`, `has`, `size` and `matches` are those of conditions; besides there are
//! - `c ? a : b`; `+` of texts; `+ - * /` of two ints or of two doubles, `%` of ints;
//! - `.lowerAscii() .upperAscii() .trim() .replace(old, new[, count]) .substring(from[, to]) .startsWith(t) .endsWith(t)
//!   .contains(t) .matches("regex") .size()`;
//! - `string(x)`, `int(x)`, `double(x)`.
//!
//! Types and errors are CEL's, not those of conditions: a missing field, a value of a type that an operator does not take, an
//! overflow, a division by zero and a text that is no number are errors, and an expression with an error has no value. Only what
//! is decided without it forgives one: the branch of `?` not taken, the other side of `false && ..` and `true || ..`.
//! A number without fraction and exponent is an int of 64 bits, any other a double; they do not mix: `double(n) / 1000.0`.
//! A number that is only passed on stays as it was written, however long. Texts are UTF-8: other bytes read as U+FFFD.
//! Texts are counted in characters. Objects and lists can be passed on and counted, and are never compared with each other.
//!
//! Bounds: those of conditions for text, nesting, lists and regexes; a text that is made here has at most 1 MiB, what is
//! longer is an error.

use super::{ConditionError, Numeric, Op, Set, Value, compare_numbers, holds, parse};
use crate::decimal::Decimal;
use crate::escape::{escape_into, unescape_into};
use crate::fields::{Kind, Span};
use regex::bytes::Regex;
use std::borrow::Cow;
use std::io::Write;

pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression {
    root: Expr,
}

impl Expression {
    /// Reads an expression. `resolve`: as for [`super::Condition::parse`]. What is wrong for every record is refused here.
    pub fn parse(text: &str, resolve: &mut dyn FnMut(&str) -> usize) -> Result<Expression, ConditionError> {
        Ok(Expression { root: parse::parse_expression(text, resolve)? })
    }

    /// Appends the value for one record, as JSON; `false`, and nothing appended, where it has none. `spans`: one per column.
    pub fn write(&self, line: &[u8], spans: &[Span], out: &mut Vec<u8>) -> bool {
        match self.root.value(line, spans) {
            Ok(value) => {
                value.write(out);
                true
            }
            Err(_) => false,
        }
    }
}

/// A value, borrowed from the record or the expression where nothing was computed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A double that was computed; finite.
    Double(f64),
    /// A number as it was written that is no int of 64 bits.
    Number(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
    /// An object or a list, as it was written.
    Nested(&'a [u8], Kind),
}

/// What is known of a value before there is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Bool,
    Int,
    Double,
    Text,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Type::Null => "null",
            Type::Bool => "true or false",
            Type::Int => "an int",
            Type::Double => "a double",
            Type::Text => "a text",
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Type::Int | Type::Double)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Expr {
    Const(Val<'static>),
    Field(usize),
    Has(usize),
    Size(Box<Expr>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    /// Condition, then, else.
    If(Box<[Expr; 3]>),
    Compare(Box<Expr>, Op, Box<Expr>),
    In(Box<Expr>, Set),
    /// From left to right, so that long sums do not nest.
    Compute(Box<Expr>, Vec<(Sign, Expr)>),
    /// From left to right.
    Methods(Box<Expr>, Vec<Method>),
    To(Type, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
    Times,
    Divide,
    Rest,
}

#[derive(Clone, Debug)]
pub(super) enum Method {
    LowerAscii,
    UpperAscii,
    Trim,
    Size,
    Replace(Expr, Expr, Option<Expr>),
    Substring(Expr, Option<Expr>),
    StartsWith(Expr),
    EndsWith(Expr),
    Contains(Expr),
    Matches(Regex),
}

/// Why there is no value.
pub(super) type Wrong = &'static str;
type Found<'a> = Result<Val<'a>, Wrong>;

const NO_TEXT: Wrong = "it is no text";
const NO_BOOL: Wrong = "it is neither true nor false";
const OVERFLOW: Wrong = "it does not fit into 64 bits";
const NOT_FINITE: Wrong = "it is no finite number";
const TOO_LONG: Wrong = "the text grows beyond 1 MiB";

impl Expr {
    /// The type that the value has, if it has one at all; `None`: any.
    pub(super) fn known(&self) -> Option<Type> {
        match self {
            Expr::Const(value) => value.known(),
            Expr::Field(_) => None,
            Expr::Has(_) | Expr::Not(_) | Expr::All(_) | Expr::Any(_) | Expr::Compare(..) | Expr::In(..) => Some(Type::Bool),
            Expr::Size(_) => Some(Type::Int),
            Expr::Negative(inner) => inner.known(),
            Expr::If(parts) => parts[1].known().filter(|known| parts[2].known() == Some(*known)),
            Expr::Compute(first, rest) => first.known().or_else(|| rest.iter().find_map(|(_, part)| part.known())),
            Expr::Methods(_, methods) => methods.last().map(|method| match method {
                Method::LowerAscii | Method::UpperAscii | Method::Trim | Method::Replace(..) | Method::Substring(..) => Type::Text,
                Method::Size => Type::Int,
                Method::StartsWith(_) | Method::EndsWith(_) | Method::Contains(_) | Method::Matches(_) => Type::Bool,
            }),
            Expr::To(target, _) => Some(*target),
        }
    }

    pub(super) fn value<'a>(&'a self, line: &'a [u8], spans: &'a [Span]) -> Found<'a> {
        let of = |part: &'a Expr| part.value(line, spans);
        let truth = |part: &'a Expr| match part.value(line, spans)? {
            Val::Bool(value) => Ok(value),
            _ => Err(NO_BOOL),
        };
        let span = |field: usize| spans.get(field).copied().unwrap_or_default();
        match self {
            Expr::Const(value) => Ok(value.borrowed()),
            Expr::Field(field) => field_value(span(*field), line),
            Expr::Has(field) => Ok(Val::Bool(span(*field).kind != Kind::Missing)),
            Expr::Size(part) => of(part)?.size(),
            Expr::Not(part) => Ok(Val::Bool(!truth(part)?)),
            Expr::Negative(part) => negative(of(part)?),
            Expr::All(parts) => decide(parts, false, truth),
            Expr::Any(parts) => decide(parts, true, truth),
            Expr::If(parts) => of(&parts[if truth(&parts[0])? { 1 } else { 2 }]),
            Expr::Compare(left, op, right) => compare(of(left)?, *op, of(right)?).map(Val::Bool),
            Expr::In(item, set) => of(item)?.is_in(set).map(Val::Bool),
            Expr::Compute(first, rest) => rest.iter().try_fold(of(first)?, |so_far, (sign, part)| compute(so_far, *sign, of(part)?)),
            Expr::Methods(receiver, methods) => methods.iter().try_fold(of(receiver)?, |so_far, method| method.call(so_far, line, spans)),
            Expr::To(target, part) => convert(of(part)?, *target),
        }
    }
}

/// `&&` and `||` as CEL has them: what decides wins over an error, wherever it stands.
fn decide<'a>(parts: &'a [Expr], winner: bool, truth: impl Fn(&'a Expr) -> Result<bool, Wrong>) -> Found<'a> {
    let mut wrong = None;
    for part in parts {
        match truth(part) {
            Ok(value) if value == winner => return Ok(Val::Bool(winner)),
            Ok(_) => {}
            Err(why) => wrong = wrong.or(Some(why)),
        }
    }
    wrong.map_or(Ok(Val::Bool(!winner)), Err)
}

fn field_value(span: Span, line: &[u8]) -> Found<'_> {
    Ok(match span.kind {
        Kind::Missing => return Err("the field is not there"),
        Kind::Null => Val::Null,
        Kind::True => Val::Bool(true),
        Kind::False => Val::Bool(false),
        Kind::Number => number(span.raw(line)),
        Kind::Text => Val::Text(String::from_utf8_lossy(span.raw(line))),
        Kind::Escaped => {
            let mut text = Vec::new();
            unescape_into(span.raw(line), &mut text);
            Val::Text(owned_text(text))
        }
        Kind::Object | Kind::Array => Val::Nested(span.raw(line), span.kind),
    })
}

fn owned_text(bytes: Vec<u8>) -> Cow<'static, str> {
    let text = String::from_utf8(bytes);
    Cow::Owned(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// A number as it is written in JSON or in an expression.
pub(super) fn number(text: &[u8]) -> Val<'_> {
    match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
        Some(int) => Val::Int(int),
        None => Val::Number(Cow::Borrowed(text)),
    }
}

/// Whether a number is written as an int, however long.
fn is_int(text: &[u8]) -> bool {
    !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

fn finite(value: f64) -> Found<'static> {
    if value.is_finite() { Ok(Val::Double(value)) } else { Err(NOT_FINITE) }
}

fn parse_double(text: &[u8]) -> Result<f64, Wrong> {
    let text = std::str::from_utf8(text).map_err(|_| NOT_FINITE)?;
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(NOT_FINITE)
}

impl<'a> Val<'a> {
    pub(super) fn known(&self) -> Option<Type> {
        Some(match self {
            Val::Null => Type::Null,
            Val::Bool(_) => Type::Bool,
            Val::Int(_) => Type::Int,
            Val::Number(text) if is_int(text) => Type::Int,
            Val::Double(_) | Val::Number(_) => Type::Double,
            Val::Text(_) => Type::Text,
            Val::Nested(..) => return None,
        })
    }

    fn borrowed(&self) -> Val<'_> {
        match self {
            Val::Number(text) => Val::Number(Cow::Borrowed(text)),
            Val::Text(text) => Val::Text(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }

    /// The same, of the expression's own; an object has none.
    pub(super) fn into_owned(self) -> Option<Val<'static>> {
        Some(match self {
            Val::Null => Val::Null,
            Val::Bool(value) => Val::Bool(value),
            Val::Int(value) => Val::Int(value),
            Val::Double(value) => Val::Double(value),
            Val::Number(text) => Val::Number(Cow::Owned(text.into_owned())),
            Val::Text(text) => Val::Text(Cow::Owned(text.into_owned())),
            Val::Nested(..) => return None,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Val::Null => out.extend_from_slice(b"null"),
            Val::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Val::Int(value) => write!(out, "{value}").expect("writing to memory works"),
            // With a fraction or an exponent, so that it is read as a double again.
            Val::Double(value) => write!(out, "{value:?}").expect("writing to memory works"),
            Val::Number(text) => out.extend_from_slice(text),
            Val::Text(text) => {
                out.push(b'"');
                escape_into(text.as_bytes(), out);
                out.push(b'"');
            }
            Val::Nested(raw, _) => out.extend_from_slice(String::from_utf8_lossy(raw).as_bytes()),
        }
    }

    fn text(self) -> Result<Cow<'a, str>, Wrong> {
        match self {
            Val::Text(text) => Ok(text),
            _ => Err(NO_TEXT),
        }
    }

    fn int(self) -> Result<i64, Wrong> {
        match self {
            Val::Int(value) => Ok(value),
            _ => Err("it is no int"),
        }
    }

    fn size(self) -> Found<'a> {
        let count = match self {
            Val::Text(text) => text.chars().count() as i64,
            Val::Nested(raw, _) => super::count_members(raw) as i64,
            _ => return Err("only texts, lists and objects have a size"),
        };
        Ok(Val::Int(count))
    }

    /// As conditions see it. `digits`: room for a double's text.
    fn plain<'b>(&'b self, digits: &'b mut String) -> Value<'b> {
        match self {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::Bool(*value),
            Val::Int(value) => Value::Number(Numeric::Small(*value)),
            Val::Double(value) => {
                *digits = value.to_string();
                Value::Number(Numeric::Long(digits.as_bytes()))
            }
            Val::Number(text) => Value::Number(Numeric::read(text)),
            Val::Text(text) => Value::Text(text.as_bytes()),
            Val::Nested(..) => Value::Nested,
        }
    }

    fn is_in(&self, set: &Set) -> Result<bool, Wrong> {
        match self {
            Val::Nested(..) => Err("objects and lists are not compared"),
            _ => Ok(set.has(self.plain(&mut String::new()))),
        }
    }
}

fn compare(left: Val<'_>, op: Op, right: Val<'_>) -> Result<bool, Wrong> {
    let (mut left_digits, mut right_digits) = (String::new(), String::new());
    let (a, b) = (left.plain(&mut left_digits), right.plain(&mut right_digits));
    let is_equality = matches!(op, Op::Eq | Op::Ne);
    match (a, b) {
        (Value::Nested, Value::Nested) => Err("objects and lists are not compared"),
        (Value::Null, Value::Null) if is_equality => Ok(op == Op::Eq),
        (Value::Null, _) | (_, Value::Null) if is_equality => Ok(op == Op::Ne),
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).map(|order| op.allows(order)).ok_or(NOT_FINITE),
        (Value::Bool(_), Value::Bool(_)) | (Value::Text(_), Value::Text(_)) => Ok(holds(a, op, b)),
        _ if is_equality => Ok(op == Op::Ne),
        _ => Err("values of these types have no order"),
    }
}

fn negative(value: Val<'_>) -> Found<'_> {
    match value {
        Val::Int(value) => value.checked_neg().map(Val::Int).ok_or(OVERFLOW),
        Val::Double(value) => Ok(Val::Double(-value)),
        Val::Number(text) if !is_int(&text) => Ok(Val::Double(-parse_double(&text)?)),
        Val::Number(_) => Err(OVERFLOW),
        _ => Err("it is no number"),
    }
}

fn compute<'a>(left: Val<'a>, sign: Sign, right: Val<'a>) -> Found<'a> {
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => {
            let result = match sign {
                Sign::Plus => a.checked_add(b),
                Sign::Minus => a.checked_sub(b),
                Sign::Times => a.checked_mul(b),
                Sign::Divide | Sign::Rest if b == 0 => return Err("it divides by zero"),
                Sign::Divide => a.checked_div(b),
                Sign::Rest => a.checked_rem(b),
            };
            result.map(Val::Int).ok_or(OVERFLOW)
        }
        (Val::Text(a), Val::Text(b)) if sign == Sign::Plus => {
            if a.len() + b.len() > VALUE_BYTES_MAX {
                return Err(TOO_LONG);
            }
            Ok(Val::Text(Cow::Owned(a.into_owned() + &b)))
        }
        (a @ (Val::Double(_) | Val::Number(_)), b @ (Val::Double(_) | Val::Number(_))) => {
            let (a, b) = (double(a)?, double(b)?);
            finite(match sign {
                Sign::Plus => a + b,
                Sign::Minus => a - b,
                Sign::Times => a * b,
                Sign::Divide => a / b,
                Sign::Rest => return Err("doubles have no rest"),
            })
        }
        _ => Err("values of these types are not computed with each other"),
    }
}

/// The operand of a computation with doubles.
fn double(value: Val<'_>) -> Result<f64, Wrong> {
    match value {
        Val::Double(value) => Ok(value),
        Val::Number(text) if !is_int(&text) => parse_double(&text),
        _ => Err(OVERFLOW),
    }
}

fn convert(value: Val<'_>, target: Type) -> Found<'_> {
    let text = |text: String| Ok(Val::Text(Cow::Owned(text)));
    match (target, value) {
        (Type::Text, value @ Val::Text(_)) => Ok(value),
        (Type::Text, Val::Bool(value)) => text(value.to_string()),
        (Type::Text, Val::Int(value)) => text(value.to_string()),
        (Type::Text, Val::Double(value)) => text(value.to_string()),
        (Type::Text, Val::Number(digits)) => text(String::from_utf8_lossy(&digits).into_owned()),
        (Type::Int, value @ Val::Int(_)) => Ok(value),
        (Type::Int, Val::Double(value)) => whole(value.to_string().as_bytes()),
        (Type::Int, Val::Number(digits)) => whole(&digits),
        (Type::Int, Val::Text(digits)) => digits.parse().map(Val::Int).map_err(|_| "the text is no int"),
        (Type::Double, Val::Int(value)) => Ok(Val::Double(value as f64)),
        (Type::Double, value @ Val::Double(_)) => Ok(value),
        (Type::Double, Val::Number(digits)) if is_int(&digits) => Ok(Val::Double(parse_double(&digits)?)),
        (Type::Double, value @ Val::Number(_)) => Ok(value),
        (Type::Double, Val::Text(digits)) => {
            Decimal::parse(digits.as_bytes()).ok_or("the text is no number")?;
            Ok(Val::Double(parse_double(digits.as_bytes())?))
        }
        _ => Err("a value of this type is not converted"),
    }
}

/// The int that is left when the fraction goes.
fn whole(digits: &[u8]) -> Found<'static> {
    let decimal = Decimal::parse(digits).ok_or(NOT_FINITE)?;
    let size = i128::from(decimal.scaled(0).ok_or(OVERFLOW)?);
    i64::try_from(if decimal.is_negative() { -size } else { size }).map(Val::Int).map_err(|_| OVERFLOW)
}

impl Method {
    fn call<'a>(&'a self, receiver: Val<'a>, line: &'a [u8], spans: &'a [Span]) -> Found<'a> {
        if let Method::Size = self {
            return receiver.size();
        }
        let receiver = receiver.text()?;
        let text = |part: &'a Expr| part.value(line, spans)?.text();
        let int = |part: &'a Expr| part.value(line, spans)?.int();
        Ok(match self {
            Method::LowerAscii => Val::Text(Cow::Owned(receiver.to_ascii_lowercase())),
            Method::UpperAscii => Val::Text(Cow::Owned(receiver.to_ascii_uppercase())),
            Method::Trim => Val::Text(match receiver {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_string()),
            }),
            Method::Size => unreachable!("answered above"),
            Method::Replace(old, new, count) => {
                let count = count.as_ref().map(int).transpose()?.unwrap_or(-1);
                Val::Text(Cow::Owned(replace(&receiver, &text(old)?, &text(new)?, count)?))
            }
            Method::Substring(from, to) => {
                let (from, to) = (int(from)?, to.as_ref().map(int).transpose()?);
                Val::Text(Cow::Owned(substring(&receiver, from, to)?.to_string()))
            }
            Method::StartsWith(part) => Val::Bool(receiver.starts_with(&*text(part)?)),
            Method::EndsWith(part) => Val::Bool(receiver.ends_with(&*text(part)?)),
            Method::Contains(part) => Val::Bool(receiver.contains(&*text(part)?)),
            Method::Matches(regex) => Val::Bool(regex.is_match(receiver.as_bytes())),
        })
    }
}

/// `count`: how many at most; all where it is negative.
fn replace(text: &str, old: &str, new: &str, count: i64) -> Result<String, Wrong> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let found = text.matches(old).take(most).count();
    let length = (text.len() - found * old.len()).saturating_add(found.saturating_mul(new.len()));
    if length > VALUE_BYTES_MAX && length > text.len() {
        return Err(TOO_LONG);
    }
    Ok(text.replacen(old, new, most))
}

fn substring(text: &str, from: i64, to: Option<i64>) -> Result<&str, Wrong> {
    const OUTSIDE: Wrong = "the text does not reach so far";
    let place = |at: i64| {
        let at = usize::try_from(at).map_err(|_| OUTSIDE)?;
        let mut ends = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
        ends.nth(at).ok_or(OUTSIDE)
    };
    let (from, to) = (place(from)?, to.map_or(Ok(text.len()), place)?);
    text.get(from..to).ok_or(OUTSIDE)
}

#[cfg(test)]
mod tests;
