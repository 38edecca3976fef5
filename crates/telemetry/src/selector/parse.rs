//! From text to a question: tokens are read as they are needed, and each mistake is told at its place.
//!
//! Bound: [`TEXT_BYTES_MAX`] of text, [`DEPTH_MAX`] of brackets, [`MATCHERS_MAX`] matchers.

use super::{Aggregate, At, Expr, Function, Matcher, NAME, Op, Selector};
use flow::units::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SECOND, UnixNanos};
use std::fmt;

pub const TEXT_BYTES_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 32;
const MATCHERS_MAX: usize = 100;

/// What is wrong with a question, and where. [`Mistake::show`] draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the text.
    pub at: usize,
    pub len: usize,
    pub what: String,
    pub help: String,
}

impl Mistake {
    /// ```text
    /// error: query:1:1: no function is called `rat`
    ///   rat(x[5m])
    ///   ^^^
    ///   help: did you mean `rate`?
    /// ```
    pub fn show(&self, text: &str) -> String {
        let before = text.get(..self.at).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        let column = text[start..before.len()].chars().count();
        let end = (self.at + self.len).min(start + line.len());
        let carets = text.get(before.len()..end).map_or(1, |marked| marked.chars().count()).max(1);
        // A long line is cut around the mistake.
        const AROUND: usize = 100;
        let cut = column.saturating_sub(AROUND);
        let shown: String = line.chars().skip(cut).take(2 * AROUND).map(|shown| if shown.is_control() { ' ' } else { shown }).collect();
        format!(
            "error: query:{}:{}: {}\n  {shown}\n  {}{}\n  help: {}",
            before.matches('\n').count() + 1,
            column + 1,
            self.what,
            " ".repeat(column - cut),
            "^".repeat(carets.min(AROUND)),
            self.help
        )
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}; {}", self.at + 1, self.what, self.help)
    }
}

impl std::error::Error for Mistake {}

/// The known word that a slip of the finger (a third of its letters) turns into this one.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let rated = known.into_iter().map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate));
    let near = rated.filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1));
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) between two words. Method: Levenshtein.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

pub(super) fn query(text: &str) -> Result<Expr, Mistake> {
    let mut parser = Parser::new(text)?;
    let expr = parser.expr(0)?;
    parser.expect_end()?;
    Ok(expr)
}

pub(super) fn selector(text: &str) -> Result<Selector, Mistake> {
    match query(text)? {
        Expr::Select(selector) if selector.range.is_none() && selector.offset == 0 && selector.at.is_none() => Ok(selector),
        _ => Err(Mistake {
            at: 0,
            len: text.len(),
            what: "a selector stands here, without a range, an offset or a function".into(),
            help: "write a name and labels, as in up{job=\"api\"}".into(),
        }),
    }
}

const FUNCTIONS: [&str; 6] = ["absent", "absent_over_time", "delta", "histogram_quantile", "increase", "rate"];
const AGGREGATES: [(&str, Aggregate); 5] =
    [("sum", Aggregate::Sum), ("avg", Aggregate::Avg), ("min", Aggregate::Min), ("max", Aggregate::Max), ("count", Aggregate::Count)];
const KNOWN: &str = "absent, absent_over_time, rate, increase, delta, histogram_quantile, sum, avg, min, max or count";

struct Parser<'t> {
    text: &'t str,
    at: usize,
    selectors: usize,
}

type Parsed<T> = Result<T, Mistake>;

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Parsed<Parser<'t>> {
        let mut parser = Parser { text, at: 0, selectors: 0 };
        if text.len() > TEXT_BYTES_MAX {
            return parser.fail(0, 1, format!("the query has {} bytes", text.len()), format!("at most {TEXT_BYTES_MAX} bytes are read"));
        }
        parser.skip();
        if parser.at == text.len() {
            return parser.fail(0, 0, "the query is empty", "write a selector, as in up{job=\"api\"}");
        }
        Ok(parser)
    }

    fn fail<T>(&self, at: usize, len: usize, what: impl Into<String>, help: impl Into<String>) -> Parsed<T> {
        Err(Mistake { at, len, what: what.into(), help: help.into() })
    }

    /// A mistake at the next token.
    fn fail_here<T>(&self, expected: &str, help: impl Into<String>) -> Parsed<T> {
        let (found, len) = match self.rest().chars().next() {
            None => ("the end".to_string(), 0),
            Some(first) if is_word(first) => {
                let len = self.rest().find(|other| !is_word(other)).unwrap_or(self.rest().len());
                (format!("`{}`", &self.rest()[..len]), len)
            }
            Some(first) => (format!("`{}`", first.escape_debug()), first.len_utf8()),
        };
        self.fail(self.at, len, format!("found {found}, expected {expected}"), help)
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest().trim_start_matches([' ', '\t', '\n', '\r']);
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let is_there = self.rest().starts_with(token);
        if is_there {
            self.at += token.len();
            self.skip();
        }
        is_there
    }

    fn expect(&mut self, token: &str, help: &str) -> Parsed<()> {
        if self.take(token) { Ok(()) } else { self.fail_here(&format!("`{token}`"), help) }
    }

    /// A name at the front, without moving: with colons if it is a metric's.
    fn peek_name(&self, colons: bool) -> &'t str {
        let rest = self.rest();
        let is_part = |part: char| part.is_ascii_alphanumeric() || part == '_' || (colons && part == ':');
        let len = rest.find(|part| !is_part(part)).unwrap_or(rest.len());
        if rest.starts_with(|first: char| first.is_ascii_digit()) { "" } else { &rest[..len] }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_there = self.peek_name(false).eq_ignore_ascii_case(word);
        if is_there {
            self.at += word.len();
            self.skip();
        }
        is_there
    }

    fn expr(&mut self, depth: usize) -> Parsed<Expr> {
        if depth > DEPTH_MAX {
            return self.fail(self.at, 1, format!("more than {DEPTH_MAX} brackets within each other"), "take some of them away");
        }
        if self.take("(") {
            let inside = self.expr(depth + 1)?;
            self.expect(")", "each bracket that is opened is closed")?;
            return Ok(inside);
        }
        let (start, word) = (self.at, self.peek_name(true));
        let after = self.text[start + word.len()..].trim_start();
        let is_call = !word.is_empty() && after.starts_with('(');
        let aggregate = AGGREGATES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, op)| *op);
        if let Some(op) = aggregate
            && (is_call || starts_with_word(after, "by") || starts_with_word(after, "without"))
        {
            self.at += word.len();
            self.skip();
            return self.aggregate(op, depth);
        }
        if is_call {
            self.at += word.len();
            self.skip();
            return self.call(word, start, depth);
        }
        self.selector().map(Expr::Select)
    }

    fn call(&mut self, word: &str, start: usize, depth: usize) -> Parsed<Expr> {
        if !FUNCTIONS.contains(&word) {
            let known = FUNCTIONS.iter().copied().chain(AGGREGATES.iter().map(|(name, _)| *name));
            let help = nearest(word, known).map_or_else(|| format!("write {KNOWN}"), |meant| format!("did you mean `{meant}`?"));
            return self.fail(start, word.len(), format!("no function is called `{word}`"), help);
        }
        self.expect("(", "write what it is of")?;
        let expr = match word {
            "histogram_quantile" => {
                let quantile = self.number("a number from 0 to 1", "write the quantile first, as in histogram_quantile(0.9, …)")?;
                self.expect(",", "the buckets come after the quantile")?;
                Expr::HistogramQuantile(quantile, Box::new(self.instant(word, depth)?))
            }
            "absent" => Expr::Absent(Box::new(self.instant(word, depth)?)),
            "absent_over_time" => Expr::AbsentOverTime(self.ranged(word, depth)?),
            "rate" => Expr::Over(Function::Rate, self.ranged(word, depth)?),
            "increase" => Expr::Over(Function::Increase, self.ranged(word, depth)?),
            _ => Expr::Over(Function::Delta, self.ranged(word, depth)?),
        };
        self.expect(")", "each bracket that is opened is closed")?;
        self.refuse_modifier()?;
        Ok(expr)
    }

    fn aggregate(&mut self, op: Aggregate, depth: usize) -> Parsed<Expr> {
        let mut grouping = self.grouping()?;
        self.expect("(", "write what is aggregated, as in sum by (job) (up)")?;
        let of = Box::new(self.instant("an aggregation", depth)?);
        self.expect(")", "each bracket that is opened is closed")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        self.refuse_modifier()?;
        let (without, labels) = grouping.unwrap_or_default();
        Ok(Expr::Aggregate { op, without, labels, of })
    }

    fn grouping(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = match () {
            () if self.take_word("by") => false,
            () if self.take_word("without") => true,
            () => return Ok(None),
        };
        self.expect("(", "labels stand in brackets, as in by (job, instance)")?;
        let mut labels = Vec::new();
        while !self.take(")") {
            let name = match self.rest().starts_with(['"', '\'', '`']) {
                true => self.string()?,
                false => self.label_name()?,
            };
            labels.push(name);
            if !self.take(",") && !self.rest().starts_with(')') {
                return self.fail_here("`,` or `)`", "labels are parted by commas");
            }
        }
        Ok(Some((without, labels)))
    }

    /// The argument of what takes one value for each series.
    fn instant(&mut self, word: &str, depth: usize) -> Parsed<Expr> {
        let start = self.at;
        let expr = self.expr(depth + 1)?;
        if let Expr::Select(Selector { range: Some(_), .. }) = expr {
            let what = format!("{word} takes one value for each series, and this is a range of them");
            return self.fail(start, self.text[start..self.at].trim_end().len(), what, "take the range `[…]` away, or use rate(…)");
        }
        Ok(expr)
    }

    /// The argument of what takes a range of values for each series.
    fn ranged(&mut self, word: &str, depth: usize) -> Parsed<Selector> {
        let start = self.at;
        let expr = self.expr(depth + 1)?;
        match expr {
            Expr::Select(selector) if selector.range.is_some() => Ok(selector),
            _ => {
                let what = format!("{word} takes a range of values for each series");
                self.fail(
                    start,
                    self.text[start..self.at].trim_end().len(),
                    what,
                    format!("write a range behind the selector, as in {word}(x[5m])"),
                )
            }
        }
    }

    fn selector(&mut self) -> Parsed<Selector> {
        let (start, name) = (self.at, self.peek_name(true));
        let mut matchers = Vec::new();
        self.at += name.len();
        if name.is_empty() && !self.rest().starts_with('{') {
            return self
                .fail_here("a selector", "write a name and labels, as in up{job=\"api\"}; a name with other letters stands in {\"a.b\"}");
        }
        self.skip();
        if !name.is_empty() {
            matchers.push(Matcher::new(NAME, Op::Equal, name).expect("equality compiles nothing"));
        }
        if self.take("{") {
            self.matchers(&mut matchers, !name.is_empty())?;
        }
        if matchers.iter().all(|matcher| matcher.matches("")) {
            let (len, help) =
                (self.text[start..self.at].trim_end().len(), "say what one label must be, as in {job=\"api\"} or {job=~\".+\"}");
            return self.fail(start, len, "this selects every series there is: each of its matchers takes an empty label too", help);
        }
        let mut selector = Selector { matchers, range: None, offset: 0, at: None, number: self.selectors };
        self.selectors += 1;
        if self.rest().starts_with('[') {
            selector.range = Some(self.range()?);
        }
        self.modifiers(&mut selector)?;
        Ok(selector)
    }

    fn matchers(&mut self, matchers: &mut Vec<Matcher>, mut has_name: bool) -> Parsed<()> {
        let outside = has_name;
        while !self.take("}") {
            let start = self.at;
            let is_quoted = self.rest().starts_with(['"', '\'', '`']);
            let label = if is_quoted { self.string()? } else { self.label_name()? };
            let is_name_alone = is_quoted && (self.rest().starts_with([',', '}']));
            if matchers.len() >= MATCHERS_MAX {
                return self.fail(
                    start,
                    1,
                    format!("more than {MATCHERS_MAX} matchers"),
                    "join some of them in one regex, as in a=~\"b|c\"",
                );
            }
            if (is_name_alone && has_name) || (label == NAME && outside) {
                let len = self.text[start..self.at].trim_end().len();
                return self.fail(
                    start,
                    len,
                    "the name of the metric is given twice",
                    "write it before the brace or inside of it, not both",
                );
            }
            if is_name_alone {
                if label.is_empty() {
                    return self.fail(start, 2, "the name of a metric is not empty", "write {\"a.b\"}");
                }
                has_name = true;
                matchers.push(Matcher::new(NAME, Op::Equal, &label).expect("equality compiles nothing"));
            } else {
                has_name |= label == NAME;
                matchers.push(self.matcher(&label)?);
            }
            if !self.take(",") && !self.rest().starts_with('}') {
                return self.fail_here("`,` or `}`", "matchers are parted by commas and end with a brace, as in {a=\"b\",c=\"d\"}");
            }
        }
        Ok(())
    }

    fn matcher(&mut self, label: &str) -> Parsed<Matcher> {
        let start = self.at;
        let (op, token) = match self.rest().as_bytes() {
            [b'=', b'~', ..] => (Op::Matches, "=~"),
            [b'=', b'=', ..] => return self.fail(start, 2, "`==` compares no labels", "did you mean `=`?"),
            [b'=', ..] => (Op::Equal, "="),
            [b'!', b'=', ..] => (Op::NotEqual, "!="),
            [b'!', b'~', ..] => (Op::NotMatches, "!~"),
            [b'~', b'=', ..] => return self.fail(start, 2, "`~=` compares no labels", "did you mean `=~`?"),
            [b'~', ..] => return self.fail(start, 1, "`~` compares no labels", "did you mean `=~`?"),
            [b'!', ..] => return self.fail(start, 1, "`!` compares no labels", "did you mean `!=`?"),
            [b':', ..] => return self.fail(start, 1, "`:` compares no labels", "did you mean `=`?"),
            [b'<', b'>', ..] => return self.fail(start, 2, "`<>` compares no labels", "did you mean `!=`?"),
            _ => return self.fail_here("=, !=, =~ or !~", format!("write {label}=\"…\"")),
        };
        self.take(token);
        let start = self.at;
        if !self.rest().starts_with(['"', '\'', '`']) {
            let word = self.peek_name(true);
            let help = if word.is_empty() { "write it in quotes".to_string() } else { format!("did you mean {label}{token}\"{word}\"?") };
            return self.fail_here("the value in quotes", help);
        }
        let value = self.string()?;
        let len = self.text[start..self.at].trim_end().len();
        match Matcher::new(label, op, &value) {
            Ok(matcher) => Ok(matcher),
            Err(why) => self.fail(start, len, why, "write a regex of RE2: no look-around, no back-references; for a plain text write `=`"),
        }
    }

    fn label_name(&mut self) -> Parsed<String> {
        let name = self.peek_name(false);
        if name.is_empty() {
            return self.fail_here("the name of a label", "letters, digits and _; any other name stands in quotes, as in \"k8s.pod\"");
        }
        self.at += name.len();
        self.skip();
        Ok(name.to_string())
    }

    /// `[5m]`
    fn range(&mut self) -> Parsed<i64> {
        self.expect("[", "")?;
        let start = self.at;
        let nanos = self.duration()?;
        if self.rest().starts_with(':') {
            return self.fail(self.at, 1, "a subquery cannot be asked here", "take `:…` away: a range is of points as they were written");
        }
        if nanos <= 0 {
            return self.fail(
                start,
                self.text[start..self.at].trim_end().len(),
                "a range is longer than 0",
                "write a duration, as in [5m]",
            );
        }
        self.expect("]", "a range is one duration, as in [5m]")?;
        Ok(nanos)
    }

    fn modifiers(&mut self, selector: &mut Selector) -> Parsed<()> {
        let (mut has_offset, start) = (false, self.at);
        loop {
            let here = self.at;
            if self.take("@") {
                if selector.at.replace(self.moment()?).is_some() {
                    return self.fail(here, 1, "`@` stands here twice", "take one of them away");
                }
            } else if self.take_word("offset") {
                if has_offset {
                    return self.fail(here, 6, "`offset` stands here twice", "take one of them away");
                }
                let is_back = self.take("-");
                let nanos = self.duration()?;
                (has_offset, selector.offset) = (true, if is_back { -nanos } else { nanos });
            } else if self.rest().starts_with('[') && self.at > start {
                return self.fail(here, 1, "a range comes before `offset` and `@`", "write x[5m] offset 1h");
            } else if self.rest().starts_with('[') {
                return self.fail(here, 1, "a second range", "take one of them away");
            } else {
                return Ok(());
            }
        }
    }

    /// Behind a function or an aggregation nothing more may stand.
    fn refuse_modifier(&mut self) -> Parsed<()> {
        let word = self.peek_name(false);
        if self.rest().starts_with(['[', '@']) || word.eq_ignore_ascii_case("offset") {
            return self.fail(
                self.at,
                word.len().max(1),
                "ranges, `offset` and `@` are of selectors",
                "write it behind the selector, as in rate(x[5m] offset 1h)",
            );
        }
        Ok(())
    }

    fn moment(&mut self) -> Parsed<At> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.take_word(word) {
                self.expect("(", "write @ start() or @ end()")?;
                self.expect(")", "write @ start() or @ end()")?;
                return Ok(at);
            }
        }
        let start = self.at;
        let seconds = self.number("a time in seconds since 1970", "write @ 1764291723, @ start() or @ end()")?;
        // Times of Prometheus are whole milliseconds.
        let millis = (seconds * 1e3).round();
        if millis.is_nan() || millis.abs() >= (i64::MAX / 1_000_000) as f64 {
            return self.fail(
                start,
                self.text[start..self.at].trim_end().len(),
                "no such time",
                "times are from 1678 to 2262, in seconds since 1970",
            );
        }
        Ok(At::Time(UnixNanos(millis as i64 * 1_000_000)))
    }

    fn number(&mut self, expected: &str, help: &str) -> Parsed<f64> {
        let (start, rest) = (self.at, self.rest());
        let unsigned = rest.trim_start_matches(['+', '-']);
        let is_special = ["inf", "nan"].iter().any(|word| unsigned.get(..3).is_some_and(|front| front.eq_ignore_ascii_case(word)));
        let is_part = |n: usize, part: char| {
            part.is_ascii_digit()
                || part == '.'
                || (is_special && part.is_ascii_alphabetic())
                || matches!(part, 'e' | 'E')
                || (matches!(part, '+' | '-') && (n == 0 || rest.as_bytes()[n - 1].eq_ignore_ascii_case(&b'e')))
        };
        let len = rest.char_indices().find(|(n, part)| !is_part(*n, *part)).map_or(rest.len(), |(n, _)| n);
        match rest[..len].parse::<f64>() {
            Ok(number) => {
                self.at = start + len;
                self.skip();
                Ok(number)
            }
            Err(_) => self.fail_here(expected, help),
        }
    }

    /// `1h30m`, or a number of seconds; in nanoseconds.
    fn duration(&mut self) -> Parsed<i64> {
        const UNITS: [(&str, i64); 7] = [
            ("y", 365 * NANOS_PER_DAY),
            ("w", 7 * NANOS_PER_DAY),
            ("d", NANOS_PER_DAY),
            ("h", NANOS_PER_HOUR),
            ("m", NANOS_PER_MINUTE),
            ("s", NANOS_PER_SECOND),
            ("ms", 1_000_000),
        ];
        let (start, rest) = (self.at, self.rest());
        let len = rest.find(|part: char| !(part.is_ascii_alphanumeric() || matches!(part, '.' | '_'))).unwrap_or(rest.len());
        let word = &rest[..len];
        let refuse = |what: String| {
            self.fail(start, len.max(1), what, "a duration is written 5m, 1h30m or 250ms: numbers with y, w, d, h, m, s or ms, the longest first, each once; or a number of seconds")
        };
        if len == 0 {
            return self.fail_here("a duration", "write one as in 5m, 1h30m or 250ms");
        }
        let (mut left, mut total, mut units) = (word, 0i64, UNITS.as_slice());
        let is_number = !word.contains(|part: char| part.is_ascii_alphabetic()) || word.contains(['e', 'E']);
        if is_number {
            // A whole number of milliseconds, as times of Prometheus are.
            let Some(seconds) = word.parse::<f64>().ok().filter(|seconds| *seconds < 9e9) else {
                return refuse(format!("`{word}` is no duration"));
            };
            total = (seconds * 1e3).round() as i64 * 1_000_000;
            left = "";
        }
        while !left.is_empty() {
            let digits = left.bytes().take_while(u8::is_ascii_digit).count();
            let unit_len = left[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &left[digits..digits + unit_len];
            let Some(place) = units.iter().position(|(name, _)| *name == unit) else { return refuse(format!("`{word}` is no duration")) };
            let nanos = left[..digits].parse::<i64>().ok().and_then(|number| number.checked_mul(units[place].1));
            let Some(sum) = nanos.and_then(|nanos| total.checked_add(nanos)) else {
                return refuse(format!("`{word}` is no duration, or more than 292 years"));
            };
            (total, units, left) = (sum, &units[place + 1..], &left[digits + unit_len..]);
        }
        self.at = start + len;
        self.skip();
        Ok(total)
    }

    /// `"…"` and `'…'` with the escapes of Go, and `` `…` `` without any.
    fn string(&mut self) -> Parsed<String> {
        let (start, rest) = (self.at, self.rest());
        let quote = rest.as_bytes()[0];
        let mut value = Vec::new();
        let mut at = 1;
        loop {
            let Some(byte) = rest.as_bytes().get(at).copied().filter(|byte| quote == b'`' || *byte != b'\n') else {
                return self.fail(start, 1, "this quote is not closed", format!("write `{}` at its end", quote as char));
            };
            at += 1;
            match byte {
                _ if byte == quote => break,
                b'\\' if quote != b'`' => match unescape(&rest[at..], quote, &mut value) {
                    Some(len) => at += len,
                    None => {
                        let shown = rest[at..].chars().next();
                        let what = format!("`\\{}` is no escape", shown.map_or(String::new(), |shown| shown.to_string()));
                        let len = 1 + shown.map_or(0, char::len_utf8);
                        return self.fail(start + at - 1, len, what, "a backslash is written `\\\\`, or stands in backquotes: `a\\.b`");
                    }
                },
                _ => value.push(byte),
            }
        }
        self.at = start + at;
        self.skip();
        match String::from_utf8(value) {
            Ok(value) => Ok(value),
            Err(_) => self.fail(start, at, "the escapes of this text make no UTF-8", "write letters as they are, or as \\u00e9"),
        }
    }

    fn expect_end(&mut self) -> Parsed<()> {
        let rest = self.rest();
        let word = self.peek_name(false);
        let is_operator = rest.starts_with(['+', '-', '*', '/', '%', '^', '=', '!', '<', '>'])
            || ["and", "or", "unless", "bool", "on", "ignoring"].iter().any(|operator| word.eq_ignore_ascii_case(operator));
        match () {
            () if rest.is_empty() => Ok(()),
            () if is_operator => {
                let help = format!("ask one side after the other; a question is a selector, or {KNOWN} of one");
                self.fail(self.at, word.len().max(1), "operators between series cannot be asked here", help)
            }
            () if nearest(word, ["offset"]).is_some() && !word.is_empty() => {
                self.fail(self.at, word.len(), format!("found `{word}`, expected the end"), "did you mean `offset`?")
            }
            () => self.fail_here("the end", "a question is one selector, or one function of it"),
        }
    }
}

fn is_word(part: char) -> bool {
    part.is_alphanumeric() || part == '_'
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|front| front.eq_ignore_ascii_case(word)) && !text[word.len()..].starts_with(is_word)
}

/// Reads what stands after a backslash, in the way of Go; its length.
fn unescape(rest: &str, quote: u8, value: &mut Vec<u8>) -> Option<usize> {
    let bytes = rest.as_bytes();
    let plain = match *bytes.first()? {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        other if other == quote => quote,
        b'0'..=b'7' => {
            value.push(u8::try_from(u32::from_str_radix(digits(rest, 0, 3)?, 8).ok()?).ok()?);
            return Some(3);
        }
        b'x' => {
            value.push(u8::from_str_radix(digits(rest, 1, 2)?, 16).ok()?);
            return Some(3);
        }
        long @ (b'u' | b'U') => {
            let len = if long == b'u' { 4 } else { 8 };
            let letter = char::from_u32(u32::from_str_radix(digits(rest, 1, len)?, 16).ok()?)?;
            value.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(1 + len);
        }
        _ => return None,
    };
    value.push(plain);
    Some(1)
}

/// `from_str_radix` takes a sign too; digits are all that may be here.
fn digits(rest: &str, from: usize, len: usize) -> Option<&str> {
    rest.get(from..from + len).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}
