//! Expressions: `service + "/" + string(status / 100) + "xx"`, one value for each record, or none.
//!
//! In: a text in a subset of CEL, and later the spans of a record. Out: the value as JSON. Fields, literals, `==` and the other
//! comparisons, `in`, `&&`, `||`, `!`, `has`, `size` and `matches` are those of conditions; besides there are
//! - `c ? a : b`; `+` of texts; `+ - * /` of two ints or of two doubles, `%` of ints;
//! - `.lowerAscii() .upperAscii() .trim() .replace(old, new[, count]) .substring(from[, to]) .startsWith(t) .endsWith(t)
//!   .contains(t) .matches("regex") .size() .indexOf(t) .lastIndexOf(t) .charAt(i) .reverse()`;
//! - `string(x)`, `int(x)`, `double(x)`;
//! - `timestamp(x)` of a text (RFC 3339 and its relatives) or a number (seconds, ms, us or ns by its size), of the years 1990 to
//!   2100; `duration("1h30m")` with h, m, s, ms, us and ns. They are compared with their like; `t - t`, `t + d`, `t - d`,
//!   `d + d`, `d - d`; `.getFullYear() .getMonth() .getDate() .getDayOfMonth() .getDayOfWeek() .getDayOfYear()` of timestamps,
//!   `.getHours() .getMinutes() .getSeconds() .getMilliseconds()` of both, of a duration all of it in that unit. Months and days
//!   count from 0, `getDate` from 1, 0 is a Sunday. Of a timestamp each takes an offset from UTC: `.getHours("+02:00")`; zones
//!   have none of their names here. As JSON they are texts: `2026-01-31T12:00:00Z`, `5400s`.
//!
//! Types and errors are CEL's, not those of conditions: a missing field, a value of a type that an operator does not take, an
//! overflow, a division by zero and a text that is no number are errors, and an expression with an error has no value. Only what
//! is decided without it forgives one: the branch of `?` not taken, the other side of `false && ..` and `true || ..`.
//! A number without fraction and exponent is an int of 64 bits, any other a double; they do not mix: `double(n) / 1000.0`.
//! A number that is only passed on stays as it was written, however long. Texts are UTF-8: other bytes read as U+FFFD.
//! Texts are counted in characters. Objects and lists can be passed on and counted, and are never compared with each other.
//!
//! Bounds: those of conditions for text, nesting, lists and regexes; a text that is made here has at most 1 MiB, what is
//! longer is an error. Timestamps and durations are 64 bits of nanoseconds; what goes beyond is an error.

use super::{ConditionError, Numeric, Op, Set, Value, compare_numbers, holds, parse};
use crate::decimal::{Decimal, small_integer};
use crate::escape::{escape_into, unescape_into};
use crate::fields::{Kind, Span};
use crate::time::TimeParser;
use crate::units::{NANOS_PER_SECOND, UnixNanos};
use regex::bytes::Regex;
use std::borrow::Cow;
use std::cell::Cell;
use std::io::Write;

mod time;

pub(super) use time::{TimePart, parse_offset};

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
        match self.root.value(&Record::new(line, spans)) {
            Ok(value) => {
                value.write(out);
                true
            }
            Err(_) => false,
        }
    }

    /// The value for one record as JSON, or why there is none. `spans`: one per column.
    pub fn value(&self, line: &[u8], spans: &[Span]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::new();
        self.root.value(&Record::new(line, spans)).map_err(Wrong::why)?.write(&mut out);
        Ok(out)
    }
}

/// The record that an expression is asked about.
pub(super) struct Record<'a> {
    line: &'a [u8],
    spans: &'a [Span],
    /// A value was of a type that is not taken, and yet there is a value of the whole.
    pub(super) mismatched: Cell<bool>,
}

impl<'a> Record<'a> {
    pub(super) fn new(line: &'a [u8], spans: &'a [Span]) -> Record<'a> {
        Record { line, spans, mismatched: Cell::new(false) }
    }

    fn span(&self, field: usize) -> Span {
        self.spans.get(field).copied().unwrap_or_default()
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
    /// Nanoseconds since the epoch.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
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
    Time,
    Duration,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Type::Null => "null",
            Type::Bool => "true or false",
            Type::Int => "an int",
            Type::Double => "a double",
            Type::Text => "a text",
            Type::Time => "a timestamp",
            Type::Duration => "a duration",
        }
    }

    pub(super) fn is_time(self) -> bool {
        matches!(self, Type::Time | Type::Duration)
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

impl Sign {
    /// The type of what is computed of two values that fit, as far as it is known.
    pub(super) fn result(self, left: Option<Type>, right: Option<Type>) -> Option<Type> {
        use Type::{Duration, Time};
        match (left, self, right) {
            (None | Some(Time), Sign::Minus, Some(Time)) => Some(Duration),
            (Some(Time), Sign::Minus, None) => None, // of a timestamp, or of a duration
            (Some(Time), ..) | (.., Some(Time)) => Some(Time),
            (None, _, Some(Duration)) | (Some(Duration), Sign::Plus, None) => None, // a timestamp, or a duration
            _ => left.or(right),
        }
    }
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
    IndexOf(Expr),
    LastIndexOf(Expr),
    CharAt(Expr),
    Reverse,
    /// With how far ahead of UTC, in seconds.
    Time(TimePart, i64),
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A field is not there, or null.
    Absent(&'static str),
    /// It is of a type that is not taken.
    Type(&'static str),
    /// Its type is right.
    Value(&'static str),
}

type Found<'a> = Result<Val<'a>, Wrong>;

const MISSING: Wrong = Wrong::Absent("the field is not there");
const OVERFLOW: Wrong = Wrong::Value("it does not fit into 64 bits");
const NOT_FINITE: Wrong = Wrong::Value("it is no finite number");
const TOO_LONG: Wrong = Wrong::Value("the text grows beyond 1 MiB");
const OUTSIDE: Wrong = Wrong::Value("the text does not reach so far");
const NOT_COMPARED: Wrong = Wrong::Type("objects and lists are not compared");

impl Wrong {
    pub(super) fn why(self) -> &'static str {
        match self {
            Wrong::Absent(why) | Wrong::Type(why) | Wrong::Value(why) => why,
        }
    }

    /// The value is of a type that is not taken, unless it is null.
    fn type_of(value: &Val<'_>, why: &'static str) -> Wrong {
        match value {
            Val::Null => Wrong::Absent("it is null"),
            _ => Wrong::Type(why),
        }
    }
}

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
            Expr::Compute(first, rest) => rest.iter().fold(first.known(), |so_far, (sign, part)| sign.result(so_far, part.known())),
            Expr::Methods(_, methods) => methods.last().map(Method::result),
            Expr::To(target, _) => Some(*target),
        }
    }

    /// It is true or false, as far as anybody can tell; else what it is.
    pub(super) fn is_test(&self) -> Result<(), &'static str> {
        match (self.known(), self) {
            (Some(Type::Bool), _) => Ok(()),
            (Some(known), _) => Err(known.name()),
            (None, Expr::Compute(..)) => Err("computed, and neither true nor false"),
            (None, Expr::Negative(_)) => Err("a number"),
            (None, _) => Ok(()),
        }
    }

    /// The same as an operand: a number of the text is read as a double once, where that changes nothing.
    pub(super) fn operand(self) -> Expr {
        match &self {
            Expr::Const(value) => value.plain_double().map_or(self, |value| Expr::Const(Val::Double(value))),
            _ => self,
        }
    }

    pub(super) fn value<'a>(&'a self, record: &Record<'a>) -> Found<'a> {
        let of = |part: &'a Expr| part.value(record);
        let truth = |part: &'a Expr| match part.value(record)? {
            Val::Bool(value) => Ok(value),
            other => Err(Wrong::type_of(&other, "it is neither true nor false")),
        };
        match self {
            Expr::Const(value) => Ok(value.borrowed()),
            Expr::Field(field) => field_value(record.span(*field), record.line),
            Expr::Has(field) => Ok(Val::Bool(record.span(*field).kind != Kind::Missing)),
            Expr::Size(part) => of(part)?.size(),
            Expr::Not(part) => Ok(Val::Bool(!truth(part)?)),
            Expr::Negative(part) => negative(of(part)?),
            Expr::All(parts) => decide(parts, false, record, truth),
            Expr::Any(parts) => decide(parts, true, record, truth),
            Expr::If(parts) => of(&parts[if truth(&parts[0])? { 1 } else { 2 }]),
            Expr::Compare(left, op, right) => compare(of(left)?, *op, of(right)?, record).map(Val::Bool),
            Expr::In(item, set) => of(item)?.is_in(set, record).map(Val::Bool),
            Expr::Compute(first, rest) => rest.iter().try_fold(of(first)?, |so_far, (sign, part)| compute(so_far, *sign, of(part)?)),
            Expr::Methods(receiver, methods) => methods.iter().try_fold(of(receiver)?, |so_far, method| method.call(so_far, record)),
            Expr::To(target, part) => convert(of(part)?, *target),
        }
    }
}

/// `&&` and `||` as CEL has them: what decides wins over an error, wherever it stands.
fn decide<'a>(parts: &'a [Expr], winner: bool, record: &Record<'a>, truth: impl Fn(&'a Expr) -> Result<bool, Wrong>) -> Found<'a> {
    let mut wrong = None;
    for part in parts {
        match truth(part) {
            Ok(value) if value == winner => return Ok(Val::Bool(winner)),
            Ok(_) => {}
            Err(why) => {
                record.mismatched.set(record.mismatched.get() || matches!(why, Wrong::Type(_)));
                wrong = wrong.or(Some(why));
            }
        }
    }
    wrong.map_or(Ok(Val::Bool(!winner)), Err)
}

fn field_value(span: Span, line: &[u8]) -> Found<'_> {
    Ok(match span.kind {
        Kind::Missing => return Err(MISSING),
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
    if let Some(small) = small_integer(text) {
        return Val::Int(small);
    }
    if !is_int(text) {
        return Val::Number(Cow::Borrowed(text));
    }
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
            Val::Time(_) => Type::Time,
            Val::Duration(_) => Type::Duration,
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
            Val::Time(nanos) => Val::Time(nanos),
            Val::Duration(nanos) => Val::Duration(nanos),
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
            Val::Time(nanos) => write!(out, "\"{}\"", UnixNanos(*nanos).rfc3339()).expect("writing to memory works"),
            Val::Duration(nanos) => write!(out, "\"{}\"", time::write_duration(*nanos)).expect("writing to memory works"),
            Val::Nested(raw, _) => out.extend_from_slice(String::from_utf8_lossy(raw).as_bytes()),
        }
    }

    fn text(self) -> Result<Cow<'a, str>, Wrong> {
        match self {
            Val::Text(text) => Ok(text),
            other => Err(Wrong::type_of(&other, "it is no text")),
        }
    }

    fn int(self) -> Result<i64, Wrong> {
        match self {
            Val::Int(value) => Ok(value),
            other => Err(Wrong::type_of(&other, "it is no int")),
        }
    }

    fn size(self) -> Found<'a> {
        let count = match self {
            Val::Text(text) => text.chars().count() as i64,
            Val::Nested(raw, _) => super::count_members(raw) as i64,
            other => return Err(Wrong::type_of(&other, "only texts, lists and objects have a size")),
        };
        Ok(Val::Int(count))
    }

    /// As conditions see it; they know nothing of time. `digits`: room for a double's text.
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
            Val::Time(_) | Val::Duration(_) | Val::Nested(..) => Value::Nested,
        }
    }

    /// As a double, where doubles are in the same order as the numbers that are written: computed ones, and those of at most 15
    /// digits, which no double stands for twice.
    fn plain_double(&self) -> Option<f64> {
        match self {
            Val::Double(value) => Some(*value),
            Val::Number(text) if text.len() <= 15 && !text.iter().any(|byte| matches!(byte, b'e' | b'E')) => parse_double(text).ok(),
            _ => None,
        }
    }

    fn is_in(&self, set: &Set, record: &Record<'_>) -> Result<bool, Wrong> {
        let (mut digits, mut odd) = (String::new(), false);
        if let Val::Nested(..) = self {
            return Err(NOT_COMPARED);
        }
        let held = set.holds(self.plain(&mut digits), &mut odd);
        record.mismatched.set(record.mismatched.get() || odd);
        Ok(held)
    }
}

fn compare(left: Val<'_>, op: Op, right: Val<'_>, record: &Record<'_>) -> Result<bool, Wrong> {
    match (&left, &right) {
        (Val::Time(a), Val::Time(b)) | (Val::Duration(a), Val::Duration(b)) => return Ok(op.allows(a.cmp(b))),
        (Val::Nested(..), Val::Nested(..)) => return Err(NOT_COMPARED),
        _ => {}
    }
    if let (Some(a), Some(b)) = (left.plain_double(), right.plain_double()) {
        return a.partial_cmp(&b).map(|order| op.allows(order)).ok_or(NOT_FINITE);
    }
    let (mut left_digits, mut right_digits) = (String::new(), String::new());
    let (a, b) = (left.plain(&mut left_digits), right.plain(&mut right_digits));
    let is_equality = matches!(op, Op::Eq | Op::Ne);
    match (a, b) {
        (Value::Null, Value::Null) if is_equality => Ok(op == Op::Eq),
        (Value::Null, _) | (_, Value::Null) if is_equality => Ok(op == Op::Ne),
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).map(|order| op.allows(order)).ok_or(NOT_FINITE),
        (Value::Bool(_), Value::Bool(_)) | (Value::Text(_), Value::Text(_)) => Ok(holds(a, op, b, &mut false)),
        (Value::Null, _) | (_, Value::Null) => Err(Wrong::Absent("null has no order")),
        _ if is_equality => {
            record.mismatched.set(true);
            Ok(op == Op::Ne)
        }
        _ => Err(Wrong::Type("values of these types have no order")),
    }
}

fn negative(value: Val<'_>) -> Found<'_> {
    match value {
        Val::Int(value) => value.checked_neg().map(Val::Int).ok_or(OVERFLOW),
        Val::Double(value) => Ok(Val::Double(-value)),
        Val::Number(text) if !is_int(&text) => Ok(Val::Double(-parse_double(&text)?)),
        Val::Number(_) => Err(OVERFLOW),
        other => Err(Wrong::type_of(&other, "it is no number")),
    }
}

fn compute<'a>(left: Val<'a>, sign: Sign, right: Val<'a>) -> Found<'a> {
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => {
            let result = match sign {
                Sign::Plus => a.checked_add(b),
                Sign::Minus => a.checked_sub(b),
                Sign::Times => a.checked_mul(b),
                Sign::Divide | Sign::Rest if b == 0 => return Err(Wrong::Value("it divides by zero")),
                Sign::Divide => a.checked_div(b),
                Sign::Rest => a.checked_rem(b),
            };
            result.map(Val::Int).ok_or(OVERFLOW)
        }
        (Val::Text(a), Val::Text(b)) if sign == Sign::Plus => {
            if a.len() + b.len() > VALUE_BYTES_MAX {
                return Err(TOO_LONG);
            }
            let mut text = match a {
                Cow::Owned(text) => text,
                Cow::Borrowed(start) => {
                    let mut text = String::with_capacity(start.len() + b.len());
                    text.push_str(start);
                    text
                }
            };
            text.push_str(&b);
            Ok(Val::Text(Cow::Owned(text)))
        }
        (a @ (Val::Double(_) | Val::Number(_)), b @ (Val::Double(_) | Val::Number(_))) => {
            let (a, b) = (double(a)?, double(b)?);
            finite(match sign {
                Sign::Plus => a + b,
                Sign::Minus => a - b,
                Sign::Times => a * b,
                Sign::Divide => a / b,
                Sign::Rest => return Err(Wrong::Type("doubles have no rest")),
            })
        }
        (Val::Time(a), Val::Time(b)) if sign == Sign::Minus => a.checked_sub(b).map(Val::Duration).ok_or(OVERFLOW),
        (Val::Time(a), Val::Duration(b)) if sign == Sign::Minus => a.checked_sub(b).map(Val::Time).ok_or(OVERFLOW),
        (Val::Duration(a), Val::Duration(b)) if sign == Sign::Minus => a.checked_sub(b).map(Val::Duration).ok_or(OVERFLOW),
        (Val::Duration(a), Val::Duration(b)) if sign == Sign::Plus => a.checked_add(b).map(Val::Duration).ok_or(OVERFLOW),
        (Val::Time(a), Val::Duration(b)) | (Val::Duration(b), Val::Time(a)) if sign == Sign::Plus => {
            a.checked_add(b).map(Val::Time).ok_or(OVERFLOW)
        }
        (Val::Null, _) | (_, Val::Null) => Err(Wrong::Absent("null is not computed with")),
        _ => Err(Wrong::Type("values of these types are not computed with each other")),
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
        (Type::Int, Val::Text(digits)) => digits.parse().map(Val::Int).map_err(|_| Wrong::Value("the text is no int")),
        (Type::Double, Val::Int(value)) => Ok(Val::Double(value as f64)),
        (Type::Double, value @ Val::Double(_)) => Ok(value),
        (Type::Double, Val::Number(digits)) if is_int(&digits) => Ok(Val::Double(parse_double(&digits)?)),
        (Type::Double, value @ Val::Number(_)) => Ok(value),
        (Type::Double, Val::Text(digits)) => {
            Decimal::parse(digits.as_bytes()).ok_or(Wrong::Value("the text is no number"))?;
            Ok(Val::Double(parse_double(digits.as_bytes())?))
        }
        (Type::Text, Val::Time(nanos)) => text(UnixNanos(nanos).rfc3339()),
        (Type::Text, Val::Duration(nanos)) => text(time::write_duration(nanos)),
        (Type::Int, Val::Time(nanos)) => Ok(Val::Int(nanos.div_euclid(NANOS_PER_SECOND))),
        (Type::Time, value @ Val::Time(_)) | (Type::Duration, value @ Val::Duration(_)) => Ok(value),
        (Type::Time, Val::Text(stamp)) => timestamp(stamp.as_bytes(), Kind::Text),
        (Type::Time, Val::Int(value)) => timestamp(value.to_string().as_bytes(), Kind::Number),
        (Type::Time, Val::Double(value)) => timestamp(value.to_string().as_bytes(), Kind::Number),
        (Type::Time, Val::Number(digits)) => timestamp(&digits, Kind::Number),
        (Type::Duration, Val::Text(length)) => {
            time::parse_duration(&length).map(Val::Duration).ok_or(Wrong::Value("it is no duration of at most 292 years"))
        }
        (_, other) => Err(Wrong::type_of(&other, "a value of this type is not converted")),
    }
}

fn timestamp(raw: &[u8], kind: Kind) -> Found<'static> {
    let time = TimeParser::new().parse(raw, kind);
    time.map(|time| Val::Time(time.0)).ok_or(Wrong::Value("it is no time of the years 1990 to 2100"))
}

/// The int that is left when the fraction goes.
fn whole(digits: &[u8]) -> Found<'static> {
    let decimal = Decimal::parse(digits).ok_or(NOT_FINITE)?;
    let size = i128::from(decimal.scaled(0).ok_or(OVERFLOW)?);
    i64::try_from(if decimal.is_negative() { -size } else { size }).map(Val::Int).map_err(|_| OVERFLOW)
}

impl Method {
    /// The type that it gives.
    fn result(&self) -> Type {
        match self {
            Method::LowerAscii | Method::UpperAscii | Method::Trim | Method::Replace(..) | Method::Substring(..) => Type::Text,
            Method::CharAt(_) | Method::Reverse => Type::Text,
            Method::Size | Method::IndexOf(_) | Method::LastIndexOf(_) | Method::Time(..) => Type::Int,
            Method::StartsWith(_) | Method::EndsWith(_) | Method::Contains(_) | Method::Matches(_) => Type::Bool,
        }
    }

    fn call<'a>(&'a self, receiver: Val<'a>, record: &Record<'a>) -> Found<'a> {
        match self {
            Method::Size => return receiver.size(),
            Method::Time(part, ahead_seconds) => return time_part(receiver, *part, *ahead_seconds),
            _ => {}
        }
        let receiver = receiver.text()?;
        let text = |part: &'a Expr| part.value(record)?.text();
        let int = |part: &'a Expr| part.value(record)?.int();
        Ok(match self {
            Method::LowerAscii => Val::Text(Cow::Owned(receiver.to_ascii_lowercase())),
            Method::UpperAscii => Val::Text(Cow::Owned(receiver.to_ascii_uppercase())),
            Method::Trim => Val::Text(match receiver {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_string()),
            }),
            Method::Size | Method::Time(..) => unreachable!("answered above"),
            Method::Replace(old, new, count) => {
                let count = count.as_ref().map(int).transpose()?.unwrap_or(-1);
                Val::Text(Cow::Owned(replace(&receiver, &text(old)?, &text(new)?, count)?))
            }
            Method::Substring(from, to) => {
                let (from, to) = (int(from)?, to.as_ref().map(int).transpose()?);
                Val::Text(match receiver {
                    Cow::Borrowed(text) => Cow::Borrowed(substring(text, from, to)?),
                    Cow::Owned(text) => Cow::Owned(substring(&text, from, to)?.to_string()),
                })
            }
            Method::StartsWith(part) => Val::Bool(receiver.starts_with(&*text(part)?)),
            Method::EndsWith(part) => Val::Bool(receiver.ends_with(&*text(part)?)),
            Method::Contains(part) => Val::Bool(receiver.contains(&*text(part)?)),
            Method::Matches(regex) => Val::Bool(regex.is_match(receiver.as_bytes())),
            Method::IndexOf(part) => characters_before(&receiver, receiver.find(&*text(part)?)),
            Method::LastIndexOf(part) => characters_before(&receiver, receiver.rfind(&*text(part)?)),
            Method::CharAt(at) => Val::Text(Cow::Owned(char_at(&receiver, int(at)?)?)),
            Method::Reverse => Val::Text(Cow::Owned(receiver.chars().rev().collect())),
        })
    }
}

fn time_part(receiver: Val<'_>, part: TimePart, ahead_seconds: i64) -> Found<'_> {
    match receiver {
        Val::Time(nanos) => part.of_time(nanos, ahead_seconds).map(Val::Int).ok_or(OVERFLOW),
        Val::Duration(nanos) => part.of_duration(nanos).map(Val::Int).ok_or(Wrong::Type("durations have no such part")),
        other => Err(Wrong::type_of(&other, "it is no timestamp")),
    }
}

/// Which character of the text starts at this byte; -1: none.
fn characters_before(text: &str, byte: Option<usize>) -> Val<'static> {
    Val::Int(byte.map_or(-1, |byte| text[..byte].chars().count() as i64))
}

/// The character as a text; behind the last one stands an empty text.
fn char_at(text: &str, at: i64) -> Result<String, Wrong> {
    let mut rest = text.chars();
    match usize::try_from(at).map_err(|_| OUTSIDE)? {
        0 => {}
        at => drop(rest.nth(at - 1).ok_or(OUTSIDE)?),
    }
    Ok(rest.next().map(String::from).unwrap_or_default())
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
