//! A selector of series as PromQL writes it, with the few wrappers that answer "what is there, what is gone, how fast".
//!
//! ```text
//! http_requests_total{tenant="a",code!~"5.."}[5m] offset 1h @ 1764291723     rate increase delta absent absent_over_time
//! {"http.server.duration","k8s.pod"=~"api-.+"}                             sum avg min max count by|without (…), histogram_quantile
//! ```
//! In: text of at most [`TEXT_BYTES_MAX`] bytes, then series with their points. Out: a [`Query`], or a [`Mistake`] with its place;
//! then elements. Labels are Prometheus': an absent label equals an empty one, a regex is anchored at both ends, and at least one matcher
//! of a selector must refuse the empty text. Source: <https://prometheus.io/docs/prometheus/latest/querying/basics>.
//!
//! Windows are open at their left, as in Prometheus 3: a point exactly `range` (or the look-back) before is no part of them.

mod eval;
mod parse;
mod regex;

pub use eval::{Answer, Element, LOOKBACK, Point, Refused, Row, STEPS_MAX, Series, instant, is_fresh, range};
pub use parse::{Mistake, TEXT_BYTES_MAX, nearest};
pub use regex::compile as anchored;

use flow::units::UnixNanos;

/// The label that holds the name of the metric.
pub const NAME: &str = "__name__";

/// Labels of a series, sorted by name, none empty, `__name__` among them.
pub type Labels = Vec<(String, String)>;

/// The value of a label; empty where there is none.
pub fn label<'l>(labels: &'l [(String, String)], name: &str) -> &'l str {
    labels.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Equal,
    NotEqual,
    Matches,
    NotMatches,
}

impl Op {
    pub fn text(self) -> &'static str {
        match self {
            Op::Equal => "=",
            Op::NotEqual => "!=",
            Op::Matches => "=~",
            Op::NotMatches => "!~",
        }
    }
}

/// One condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: String,
    pub op: Op,
    pub value: String,
    /// Of the last two operators only.
    pattern: Option<::regex::Regex>,
}

impl Matcher {
    /// Fails where `value` is no regex, or one that is too large; the text says why.
    pub fn new(name: &str, op: Op, value: &str) -> Result<Matcher, String> {
        let pattern = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Matches | Op::NotMatches => Some(regex::compile(value)?),
        };
        Ok(Matcher { name: name.to_string(), op, value: value.to_string(), pattern })
    }

    /// `value`: empty for an absent label.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.pattern) {
            (Op::Equal, _) => self.value == value,
            (Op::NotEqual, _) => self.value != value,
            (Op::Matches, Some(pattern)) => pattern.is_match(value),
            (_, pattern) => !pattern.as_ref().is_some_and(|pattern| pattern.is_match(value)),
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

/// Whether a series is meant by all of the matchers.
pub fn select(matchers: &[Matcher], labels: &[(String, String)]) -> bool {
    matchers.iter().all(|matcher| matcher.matches(label(labels, &matcher.name)))
}

/// The moment that `@` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Time(UnixNanos),
    /// Of the whole question.
    Start,
    End,
}

/// Which series, and which of their points.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    pub matchers: Vec<Matcher>,
    /// `[5m]`, in nanoseconds; more than 0.
    pub range: Option<i64>,
    /// `offset 5m`, in nanoseconds; may be less than 0.
    pub offset: i64,
    pub at: Option<At>,
    /// Which one it is among the selectors of its query.
    pub(crate) number: usize,
}

impl Selector {
    /// Reads one instant selector without range, offset and wrapper: what rules select by.
    pub fn parse(text: &str) -> Result<Selector, Mistake> {
        parse::selector(text)
    }

    /// The labels that an `absent` over it has: those of equality matchers; one that is matched twice, however, has none.
    pub fn absent_labels(&self) -> Labels {
        let others = self.matchers.iter().filter(|matcher| matcher.name != NAME);
        let mut labels: Labels = Vec::new();
        for matcher in others.clone() {
            let is_once = others.clone().filter(|other| other.name == matcher.name).count() == 1;
            if matcher.op == Op::Equal && is_once && !matcher.value.is_empty() {
                labels.push((matcher.name.clone(), matcher.value.clone()));
            }
        }
        labels.sort_unstable();
        labels
    }

    /// The name of the metric, where an equality matcher gives one.
    pub fn metric(&self) -> Option<&str> {
        self.matchers.iter().find(|matcher| matcher.name == NAME && matcher.op == Op::Equal).map(|matcher| matcher.value.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Rate,
    Increase,
    Delta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Sum,
    Avg,
    Min,
    Max,
    Count,
}

/// What a question is made of; [`Query::parse`] checks that kinds fit.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// An instant vector, or a range vector if it has a range.
    Select(Selector),
    Absent(Box<Expr>),
    AbsentOverTime(Selector),
    Over(Function, Selector),
    Aggregate {
        op: Aggregate,
        /// The labels are those that go, not those that stay.
        without: bool,
        labels: Vec<String>,
        of: Box<Expr>,
    },
    HistogramQuantile(f64, Box<Expr>),
}

/// A question that can be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub expr: Expr,
}

impl Query {
    pub fn parse(text: &str) -> Result<Query, Mistake> {
        parse::query(text).map(|expr| Query { expr })
    }

    /// Its selectors, as they stand in the text.
    pub fn selectors(&self) -> Vec<&Selector> {
        let (mut found, mut expr) = (Vec::new(), &self.expr);
        loop {
            match expr {
                Expr::Select(selector) | Expr::AbsentOverTime(selector) | Expr::Over(_, selector) => {
                    found.push(selector);
                    return found;
                }
                Expr::Absent(of) | Expr::Aggregate { of, .. } | Expr::HistogramQuantile(_, of) => expr = of,
            }
        }
    }

    /// The points that [`instant`] (`from` and `to` are its moment) or [`range`] will look at: later than the first time, up to the second.
    pub fn window(&self, from: UnixNanos, to: UnixNanos, lookback: i64) -> (UnixNanos, UnixNanos) {
        let mut window = (i64::MAX, i64::MIN);
        for selector in self.selectors() {
            let before = selector.range.unwrap_or(lookback);
            let (first, last) = (eval::moment(selector, from, from, to), eval::moment(selector, to, from, to));
            window = (window.0.min(first.saturating_sub(before)), window.1.max(last));
        }
        (UnixNanos(window.0), UnixNanos(window.1))
    }
}

#[cfg(test)]
mod tests;
