//! Conditions: `level == "error" && status >= 500`, asked about every record.
//!
//! In: a text in a subset of CEL, Kubernetes' expression language, and later the spans of a batch. Out: for
//! each record whether the condition holds.
//!
//! - Values: `"text"` or `'text'` with CEL's escapes, `r"raw\d+"`, `500`, `-1.5e3`, `true`, `false`, `null`, fields:
//!   `level`, `kubernetes.labels.tenant`, `record["odd-key"]`, `labels["app-name"]`; `size(field)`.
//! - Operators, loosest first: `||`; `&&`; `== != < <= > >= in [..]`; `!`. Parentheses.
//! - Methods with a literal text: `.startsWith(t) .endsWith(t) .contains(t) .matches(regex)` (found anywhere in the
//!   field, RE2 syntax). `has(field)`: the field is there, be it null. A field alone holds if it is `true`.
//! - Whatever else an [`Expression`] takes, where it is true or false: `latency_ms / 1000 > 5`, `a + b == c`,
//!   `path.lowerAscii().startsWith("/v1")`, `x ? y : z`, `timestamp(ts).getHours() < 6`.
//!
//! What a comparison means:
//! - With a missing field or a null every comparison and method is false, `!=` too; `!` turns that around. So
//!   `level != "info"` needs a level, and `!(level == "info")` does not. The literal `null` can be asked for:
//!   `f == null` holds where f is there and null, `f != null` where it is there and not null.
//! - Texts compare by their bytes after unescaping. Bytes that are no UTF-8 compare as they are.
//! - Numbers compare exactly as decimals, never through a float. A number in quotes is a text.
//! - Values of different types are not equal (`!=` holds) and have no order. Objects and lists equal nothing.
//! - `size` counts characters of a text, elements of a list, keys of an object; of anything else it is missing.
//!
//! What computes is read as an [`Expression`], with CEL's types, from one `&&`, `||` or parenthesis to the next; a `c ? a : b`
//! from its beginning. Where that has an error (a missing field, a type it does not take, an overflow) it is false, and `!`
//! turns that around. So `a + 0 != 1` needs a number, as `a != 1` needs a value.
//!
//! A value of a type that a comparison, a method or a computation does not take is a mismatch: the answer is as said above, and
//! [`Condition::mismatches`] counts the record. A missing field and a null are none.
//!
//! Bounds: 16 KiB of text, nesting 64, lists of 1,000, 32 regexes of 1 MiB compiled each; beyond them the text is
//! refused with a reason. Evaluation allocates nothing per record but the texts that an expression makes: `contains`,
//! `endsWith` and `matches` on a text with escapes decode it into one buffer per thread, given back above 1 MiB.

use crate::decimal::{Decimal, small_integer};
use crate::escape::{unescape, unescape_into};
use crate::fields::{Kind, Span};
use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Memory};

mod constant;
mod expression;
mod parse;
#[cfg(test)]
mod tests;

pub use expression::Expression;

use expression::{Expr, Record, Val, Wrong};

pub const TEXT_BYTES_MAX: usize = 16 << 10;
pub const NESTING_MAX: usize = 64;
pub const LIST_MAX: usize = 1_000;
pub const REGEXES_MAX: usize = 32;
const REGEX_BYTES_MAX: usize = 1 << 20; // 32 of them make 32 MiB at worst
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// A parsed condition. A clone has regex caches of its own: give each lane one. All clones count mismatches together.
#[derive(Clone, Debug)]
pub struct Condition {
    root: Node,
    mismatches: Arc<AtomicU64>,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionError {
    /// Byte offset in the text.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
    /// The way out.
    pub help: String,
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for ConditionError {}

/// Records with the spans of their fields, as a batch holds them.
pub trait Columns {
    fn len(&self) -> usize;
    fn line(&self, i: usize) -> &[u8];
    fn span(&self, field: usize, i: usize) -> Span;
    /// All spans of one record, by field.
    fn spans(&self, i: usize) -> &[Span];

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Condition {
    /// Reads a condition. `resolve` gives the column of a field path such as `kubernetes.labels.tenant`; keys in
    /// brackets are joined with dots too.
    pub fn parse(text: &str, resolve: &mut dyn FnMut(&str) -> usize) -> Result<Condition, ConditionError> {
        Ok(Condition { root: parse::parse(text, resolve)?, mismatches: Arc::default() })
    }

    /// How many records had a value of a type that the condition does not take, since it was read; clones count together.
    pub fn mismatches(&self) -> u64 {
        self.mismatches.load(Memory::Relaxed)
    }

    /// Narrows `mask`: of the records marked in it, those for which the condition holds stay marked.
    ///
    /// `mask`: one per record of `view`.
    pub fn eval<C: Columns + ?Sized>(&self, view: &C, mask: &mut [bool]) {
        debug_assert_eq!(view.len(), mask.len());
        // 64 records at a time: each node loops over them, and `&&` and `||` hand on only what is still open.
        let mut mismatches = 0;
        for (block, marks) in mask.chunks_mut(64).enumerate() {
            let mut active = 0;
            for (bit, mark) in marks.iter().enumerate() {
                active |= u64::from(*mark) << bit;
            }
            let mut mismatched = 0;
            let held = self.root.select(view, block * 64, active, &mut mismatched);
            mismatches += u64::from(mismatched.count_ones());
            for (bit, mark) in marks.iter_mut().enumerate() {
                *mark = held >> bit & 1 == 1;
            }
        }
        self.count(mismatches);
    }

    /// Whether the condition holds for one record. `spans`: one per column; a column beyond them is missing.
    pub fn matches_one(&self, line: &[u8], spans: &[Span]) -> bool {
        let mut mismatched = 0;
        let held = self.root.select(&OneRecord { line, spans }, 0, 1, &mut mismatched);
        self.count(mismatched);
        held == 1
    }

    /// Lanes share the counter: it is written once per batch, and only where there is something to count.
    fn count(&self, mismatches: u64) {
        if mismatches > 0 {
            self.mismatches.fetch_add(mismatches, Memory::Relaxed);
        }
    }
}

struct OneRecord<'a> {
    line: &'a [u8],
    spans: &'a [Span],
}

impl Columns for OneRecord<'_> {
    fn len(&self) -> usize {
        1
    }

    fn line(&self, _: usize) -> &[u8] {
        self.line
    }

    fn span(&self, field: usize, _: usize) -> Span {
        self.spans.get(field).copied().unwrap_or_default()
    }

    fn spans(&self, _: usize) -> &[Span] {
        self.spans
    }
}

/// A part of a condition that holds or does not.
#[derive(Clone, Debug)]
enum Node {
    Const(bool),
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Has(usize),
    IsTrue(usize),
    IsNull {
        field: usize,
        wanted: bool,
    },
    /// `field == "text"`, the common case of `Compare`; `wanted` is false for `!=`.
    Equal {
        field: usize,
        text: Box<[u8]>,
        wanted: bool,
    },
    /// `field >= 500`.
    Against {
        field: usize,
        op: Op,
        number: Number,
    },
    Compare {
        left: Operand,
        op: Op,
        right: Operand,
    },
    In {
        item: Operand,
        set: Set,
    },
    Text {
        field: usize,
        test: TextTest,
    },
    /// What computes: it holds where its value is `true`.
    Expr(Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// One side of a comparison.
#[derive(Clone, Debug)]
enum Operand {
    Field(usize),
    Size(usize),
    Text(Box<[u8]>),
    Number(Number),
    Bool(bool),
    Null,
}

/// A number of the condition's text.
#[derive(Clone, Debug)]
struct Number {
    text: Box<[u8]>,
    small: Option<i64>,
}

/// The literals of a list, each kind sorted.
#[derive(Clone, Debug, Default)]
struct Set {
    texts: Vec<Box<[u8]>>,
    numbers: Vec<Number>,
    has_true: bool,
    has_false: bool,
    has_null: bool,
}

#[derive(Clone, Debug)]
enum TextTest {
    StartsWith(Box<[u8]>),
    EndsWith(Box<[u8]>),
    Contains(Box<Finder<'static>>),
    Matches(Regex),
}

impl Node {
    /// Which of the records `base + bit` for the bits of `active` it holds for. Marks in `odd` those with a value of a type that
    /// it does not take.
    fn select<C: Columns + ?Sized>(&self, view: &C, base: usize, active: u64, odd: &mut u64) -> u64 {
        match self {
            Node::Const(true) => active,
            Node::Const(false) => 0,
            Node::All(nodes) => {
                let mut left = active;
                for node in nodes {
                    if left == 0 {
                        break;
                    }
                    left = node.select(view, base, left, odd);
                }
                left
            }
            Node::Any(nodes) => {
                let mut open = active;
                for node in nodes {
                    if open == 0 {
                        break;
                    }
                    open &= !node.select(view, base, open, odd);
                }
                active & !open
            }
            Node::Not(node) => active & !node.select(view, base, active, odd),
            Node::Has(field) => each(base, active, odd, |i, _| view.span(*field, i).kind != Kind::Missing),
            Node::IsTrue(field) => each(base, active, odd, |i, odd| is_true(view.span(*field, i), odd)),
            Node::IsNull { field, wanted } => each(base, active, odd, |i, _| match view.span(*field, i).kind {
                Kind::Missing => false,
                kind => (kind == Kind::Null) == *wanted,
            }),
            Node::Equal { field, text, wanted } => {
                each(base, active, odd, |i, odd| is_equal(view.span(*field, i), view.line(i), text, *wanted, odd))
            }
            Node::Against { field, op, number } => {
                each(base, active, odd, |i, odd| is_against(view.span(*field, i), view.line(i), *op, number, odd))
            }
            Node::Compare { left, op, right } => {
                each(base, active, odd, |i, odd| holds(left.value(view, i, odd), *op, right.value(view, i, odd), odd))
            }
            Node::In { item, set } => each(base, active, odd, |i, odd| set.holds(item.value(view, i, odd), odd)),
            Node::Text { field, test } => each(base, active, odd, |i, odd| test.holds(view.span(*field, i), view.line(i), odd)),
            Node::Expr(expr) => each(base, active, odd, |i, odd| is_true_value(expr, &Record::new(view.line(i), view.spans(i)), odd)),
        }
    }
}

/// Asks about each record of a mask. `test` says of each, in its second argument, whether a value was of a wrong type.
#[inline(always)]
fn each(base: usize, active: u64, odd: &mut u64, mut test: impl FnMut(usize, &mut bool) -> bool) -> u64 {
    let (mut rest, mut held) = (active, 0);
    while rest != 0 {
        let bit = rest.trailing_zeros();
        rest &= rest - 1;
        let mut is_odd = false;
        held |= u64::from(test(base + bit as usize, &mut is_odd)) << bit;
        *odd |= u64::from(is_odd) << bit;
    }
    held
}

#[inline(always)]
fn is_true(span: Span, odd: &mut bool) -> bool {
    *odd = !matches!(span.kind, Kind::True | Kind::False | Kind::Missing | Kind::Null);
    span.kind == Kind::True
}

#[inline(always)]
fn is_equal(span: Span, line: &[u8], text: &[u8], wanted: bool, odd: &mut bool) -> bool {
    match span.kind {
        Kind::Text => (span.raw(line) == text) == wanted,
        Kind::Escaped => unescape(span.raw(line)).eq(text.iter().copied()) == wanted,
        Kind::Missing | Kind::Null => false,
        _ => {
            *odd = true;
            !wanted
        }
    }
}

#[inline(always)]
fn is_against(span: Span, line: &[u8], op: Op, number: &Number, odd: &mut bool) -> bool {
    match span.kind {
        Kind::Number => compare_numbers(Numeric::read(span.raw(line)), number.numeric()).is_some_and(|order| op.allows(order)),
        Kind::Missing | Kind::Null => false,
        _ => {
            *odd = true;
            op == Op::Ne
        }
    }
}

fn is_true_value(expr: &Expr, record: &Record<'_>, odd: &mut bool) -> bool {
    let value = expr.value(record);
    *odd = record.mismatched.get() || matches!(value, Err(Wrong::Type(_)));
    match value {
        Ok(Val::Bool(value)) => value,
        // A field alone, as in `x ? y : z`: only its type is wrong, unless it is null.
        Ok(value) => {
            *odd |= value != Val::Null;
            false
        }
        Err(_) => false,
    }
}

/// A value as it stands in a line or in the condition.
#[derive(Clone, Copy)]
enum Value<'a> {
    Missing,
    Null,
    Bool(bool),
    Number(Numeric<'a>),
    Text(&'a [u8]),
    Escaped(&'a [u8]),
    /// An object or a list.
    Nested,
}

#[derive(Clone, Copy)]
enum Numeric<'a> {
    Small(i64),
    Long(&'a [u8]),
}

impl Numeric<'_> {
    #[inline(always)]
    fn read(text: &[u8]) -> Numeric<'_> {
        match small_integer(text) {
            Some(small) => Numeric::Small(small),
            None => Numeric::Long(text),
        }
    }
}

impl Number {
    fn new(text: &str) -> Number {
        Number { text: text.as_bytes().into(), small: small_integer(text.as_bytes()) }
    }

    #[inline(always)]
    fn numeric(&self) -> Numeric<'_> {
        match self.small {
            Some(small) => Numeric::Small(small),
            None => Numeric::Long(&self.text),
        }
    }
}

impl Operand {
    #[inline]
    fn value<'a, C: Columns + ?Sized>(&'a self, view: &'a C, i: usize, odd: &mut bool) -> Value<'a> {
        match self {
            Operand::Field(field) => field_value(view.span(*field, i), view.line(i)),
            Operand::Size(field) => {
                let span = view.span(*field, i);
                match size(span, view.line(i)) {
                    Some(size) => Value::Number(Numeric::Small(size)),
                    None => {
                        *odd |= !matches!(span.kind, Kind::Missing | Kind::Null);
                        Value::Missing
                    }
                }
            }
            Operand::Text(text) => Value::Text(text),
            Operand::Number(number) => Value::Number(number.numeric()),
            Operand::Bool(value) => Value::Bool(*value),
            Operand::Null => Value::Null,
        }
    }
}

#[inline]
fn field_value(span: Span, line: &[u8]) -> Value<'_> {
    match span.kind {
        Kind::Missing => Value::Missing,
        Kind::Null => Value::Null,
        Kind::True => Value::Bool(true),
        Kind::False => Value::Bool(false),
        Kind::Text => Value::Text(span.raw(line)),
        Kind::Escaped => Value::Escaped(span.raw(line)),
        Kind::Number => Value::Number(Numeric::read(span.raw(line))),
        Kind::Object | Kind::Array => Value::Nested,
    }
}

fn holds(left: Value<'_>, op: Op, right: Value<'_>, odd: &mut bool) -> bool {
    use Value::{Bool, Escaped, Missing, Null, Number, Text};
    let order = match (left, right) {
        (Missing | Null, _) | (_, Missing | Null) => return false,
        (Bool(a), Bool(b)) => Some(a.cmp(&b)),
        (Number(a), Number(b)) => match compare_numbers(a, b) {
            Some(order) => Some(order),
            None => return false, // a token that is no number: the scanner lets none through
        },
        (Text(a), Text(b)) => Some(a.cmp(b)),
        (Text(a), Escaped(b)) => Some(a.iter().copied().cmp(unescape(b))),
        (Escaped(a), Text(b)) => Some(unescape(a).cmp(b.iter().copied())),
        (Escaped(a), Escaped(b)) => Some(unescape(a).cmp(unescape(b))),
        _ => None,
    };
    match order {
        Some(order) => op.allows(order),
        None => {
            *odd = true;
            op == Op::Ne
        }
    }
}

impl Op {
    #[inline(always)]
    fn allows(self, order: Ordering) -> bool {
        match self {
            Op::Eq => order.is_eq(),
            Op::Ne => order.is_ne(),
            Op::Lt => order.is_lt(),
            Op::Le => order.is_le(),
            Op::Gt => order.is_gt(),
            Op::Ge => order.is_ge(),
        }
    }
}

#[inline(always)]
fn compare_numbers(a: Numeric<'_>, b: Numeric<'_>) -> Option<Ordering> {
    match (a, b) {
        (Numeric::Small(a), Numeric::Small(b)) => Some(a.cmp(&b)),
        (a, b) => compare_decimals(a, b),
    }
}

#[cold]
fn compare_decimals(a: Numeric<'_>, b: Numeric<'_>) -> Option<Ordering> {
    let (mut room_a, mut room_b) = ([0; 20], [0; 20]);
    let (a, b) = (Decimal::parse(a.digits(&mut room_a))?, Decimal::parse(b.digits(&mut room_b))?);
    Some(a.compare(&b))
}

impl<'a> Numeric<'a> {
    /// The number as text; a small one is written into `room`.
    fn digits<'b>(&self, room: &'b mut [u8; 20]) -> &'b [u8]
    where
        'a: 'b,
    {
        let small = match *self {
            Numeric::Long(text) => return text,
            Numeric::Small(small) => small,
        };
        let (mut rest, mut at) = (small.unsigned_abs(), room.len());
        loop {
            at -= 1;
            room[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if small < 0 {
            at -= 1; // at most 18 digits, so there is room
            room[at] = b'-';
        }
        &room[at..]
    }
}

impl Set {
    fn holds(&self, item: Value<'_>, odd: &mut bool) -> bool {
        let held = self.has(item);
        *odd |= !held && !self.takes(item);
        held
    }

    /// Whether it has a value of this type; a missing one and null are of any.
    fn takes(&self, item: Value<'_>) -> bool {
        match item {
            Value::Missing | Value::Null => true,
            Value::Nested => false,
            Value::Bool(_) => self.has_true || self.has_false,
            Value::Number(_) => !self.numbers.is_empty(),
            Value::Text(_) | Value::Escaped(_) => !self.texts.is_empty(),
        }
    }

    fn has(&self, item: Value<'_>) -> bool {
        match item {
            Value::Missing | Value::Nested => false,
            Value::Null => self.has_null,
            Value::Bool(true) => self.has_true,
            Value::Bool(false) => self.has_false,
            Value::Number(number) => {
                self.numbers.binary_search_by(|own| compare_numbers(own.numeric(), number).unwrap_or(Ordering::Less)).is_ok()
            }
            // Few texts are told apart faster by their lengths than by their order.
            Value::Text(text) if self.texts.len() <= 8 => self.texts.iter().any(|own| **own == *text),
            Value::Text(text) => self.texts.binary_search_by(|own| (**own).cmp(text)).is_ok(),
            Value::Escaped(raw) => self.texts.binary_search_by(|own| own.iter().copied().cmp(unescape(raw))).is_ok(),
        }
    }

    fn sort(&mut self) {
        self.texts.sort_unstable();
        self.numbers.sort_by(|a, b| compare_numbers(a.numeric(), b.numeric()).unwrap_or(Ordering::Equal));
    }
}

impl TextTest {
    #[inline]
    fn holds(&self, span: Span, line: &[u8], odd: &mut bool) -> bool {
        match (span.kind, self) {
            (Kind::Text, _) => self.holds_for(span.raw(line)),
            (Kind::Escaped, TextTest::StartsWith(start)) => unescape(span.raw(line)).take(start.len()).eq(start.iter().copied()),
            (Kind::Escaped, _) => with_unescaped(span.raw(line), |text| self.holds_for(text)),
            (Kind::Missing | Kind::Null, _) => false,
            _ => {
                *odd = true;
                false
            }
        }
    }

    #[inline]
    fn holds_for(&self, text: &[u8]) -> bool {
        match self {
            TextTest::StartsWith(start) => text.starts_with(start),
            TextTest::EndsWith(end) => text.ends_with(end),
            TextTest::Contains(part) => part.find(text).is_some(),
            TextTest::Matches(regex) => regex.is_match(text),
        }
    }
}

/// Decodes a text into this thread's buffer.
fn with_unescaped(raw: &[u8], test: impl FnOnce(&[u8]) -> bool) -> bool {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        unescape_into(raw, scratch);
        let held = test(scratch);
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            *scratch = Vec::new();
        }
        held
    })
}

/// Characters of a text, elements of a list, keys of an object; `None` for anything else.
fn size(span: Span, line: &[u8]) -> Option<i64> {
    let starts_character = |byte: &u8| byte & 0xc0 != 0x80;
    let count = match span.kind {
        Kind::Text => span.raw(line).iter().filter(|byte| starts_character(byte)).count(),
        Kind::Escaped => unescape(span.raw(line)).filter(starts_character).count(),
        Kind::Object | Kind::Array => count_members(span.raw(line)),
        _ => return None,
    };
    Some(count as i64)
}

/// Members of a well-formed object or list: commas at its own level and one more, if there is anything inside.
fn count_members(raw: &[u8]) -> usize {
    let (mut depth, mut commas, mut empty, mut at) = (0usize, 0, true, 0);
    while let Some(&byte) = raw.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => commas += 1,
            b'"' => {
                while raw.get(at).is_some_and(|&inside| inside != b'"') {
                    at += if raw[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            _ => {}
        }
        // The first byte is the bracket itself; any other that is no blank before the end is a member's.
        empty &= at <= 1 || byte.is_ascii_whitespace() || depth == 0;
    }
    if empty { 0 } else { commas + 1 }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build()
}
