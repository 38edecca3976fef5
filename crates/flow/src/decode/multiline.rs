//! Which lines are one record: stack traces and whatever else a program writes in several lines.
//!
//! In: one line and the state of the group before it. Out: the line goes on with the group, starts one, or stands
//! alone. Presets are state machines with the rules of Fluent Bit's built-in parsers of the same names; `start` and
//! `continuation` are one pattern each. A line that begins with `{` (a JSON object) goes on with a group only
//! where a rule of a preset or the pattern `continuation` matches it. Bounds: `lines_max` and `bytes_max`, at which
//! a group is a record noted as `partial`. The rest is judged by itself: with a pattern it is another record; the rest of
//! a preset's trace has no start, so each of its lines is one. A pattern takes at most 1 MiB compiled.
//!
//! Groups are told apart by stream (stdout, stderr) of one log. Writers that share one file without such a mark
//! cannot be told apart: where their lines interleave, so do their groups.

use crate::units::{ByteSize, Span};
use parse::pattern::Pattern;
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Joining of lines that belong together. Give exactly one of `preset`, `start`, `continuation`, `end` and `rules`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultilineConfig {
    /// Stack traces as a language's runtime writes them.
    pub preset: Option<Preset>,
    /// A regular expression, found anywhere in a line: a line that matches starts a record, and all others go on
    /// with the record before them.
    pub start: Option<String>,
    /// A regular expression, found anywhere in a line: a line that matches goes on with the record before it.
    pub continuation: Option<String>,
    /// A pattern in Ruby's dialect, found anywhere in a line: a line that matches is the last of a record.
    pub end: Option<String>,
    /// Rules of a state machine, as Fluent Bit's multiline parsers have them: 1 to 64, tried in order.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
    /// Most lines of one record, at least 2; then it is noted as `partial`, and the rest is another record (with `preset`: one a line).
    #[serde(default = "lines_max")]
    pub lines_max: u32,
    /// Most bytes of one record, 1KiB to 64MiB; then it is noted as `partial`, and the rest is another record (with `preset`: one a line).
    #[serde(default = "bytes_max")]
    pub bytes_max: ByteSize,
    /// A record is complete when no line has come for this long.
    #[serde(default = "age")]
    pub age: Span,
}

/// One rule: a line that matches while a record is in one of these states takes it to the next one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// States before the line; `start_state` begins a record.
    pub from: Vec<String>,
    /// In Ruby's dialect, with or without `/.../`, found anywhere in the line.
    pub pattern: String,
    /// The state after it: one that a rule begins with, or that none does, so that the record ends where nothing goes on.
    pub to: String,
}

/// Whose stack traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Java and its kin, also C# and JavaScript: `Exception`, `at`, `Caused by`, `... 5 more`.
    Java,
    /// Go: `panic:` and the goroutines after it.
    Go,
    /// Python: from `Traceback` to the line that names the exception.
    Python,
    /// Ruby: `file:line:in` and the `from` lines after it.
    Ruby,
}

fn lines_max() -> u32 {
    1_000
}

fn bytes_max() -> ByteSize {
    ByteSize(1 << 20)
}

fn age() -> Span {
    Span(crate::units::NANOS_PER_SECOND)
}

/// A checked and compiled [`MultilineConfig`]. A clone has regex caches of its own: give each lane one.
#[derive(Clone, Debug)]
pub struct Multiline {
    machine: Machine,
    pub lines_max: usize,
    pub bytes_max: usize,
    pub age_ns: i64,
}

#[derive(Clone, Debug)]
enum Machine {
    Rules(Vec<Rule>),
    Start(Regex),
    Continuation(Regex),
    End(Matcher),
}

/// Says whether a line is of a kind.
#[derive(Clone)]
enum Matcher {
    Plain(Regex),
    /// In Ruby's dialect; one that needs more steps than it is given does not match.
    Ruby(Arc<Pattern>),
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Matcher::Plain(regex) => write!(f, "{regex:?}"),
            Matcher::Ruby(pattern) => write!(f, "{:?}", pattern.report().translated),
        }
    }
}

impl Matcher {
    fn ruby(pattern: &str) -> Result<Matcher, String> {
        Pattern::new(pattern).map(|pattern| Matcher::Ruby(Arc::new(pattern))).map_err(|error| format!("pattern {pattern:?}: {error}"))
    }

    fn is_match(&self, line: &[u8]) -> bool {
        match self {
            Matcher::Plain(regex) => regex.is_match(line),
            Matcher::Ruby(pattern) => pattern.is_match(line),
        }
    }
}

/// One rule of a preset: a line that matches `pattern` in a state of `from` leads to `to`.
#[derive(Clone, Debug)]
struct Rule {
    /// Bits of states; bit [`START`]: it may start a group.
    from: u32,
    pattern: Matcher,
    to: State,
}

/// State of a group: a number of its preset, whose meaning is beside the rules.
pub(super) type State = u8;
/// No group is open, or only a new one may follow.
const START: State = 0;
const START_STATE: &str = "start_state";
const STATES_MAX: usize = 32;
const RULES_MAX: usize = 64;

/// What a line is to the group before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It goes on with the group, which is complete with it if `last`.
    Next { state: State, last: bool },
    /// It starts a group.
    First { state: State },
    /// It is a record by itself.
    Alone,
}

impl Multiline {
    /// Checks and compiles a config; what is wrong is a sentence for its reader.
    pub fn new(config: &MultilineConfig) -> Result<Multiline, String> {
        let own = (!config.rules.is_empty()).then_some(&config.rules);
        let machine = match (config.preset, &config.start, &config.continuation, &config.end, own) {
            (Some(preset), None, None, None, None) => Machine::Rules(rules(preset)),
            (None, Some(pattern), None, None, None) => Machine::Start(compile(pattern)?),
            (None, None, Some(pattern), None, None) => Machine::Continuation(compile(pattern)?),
            (None, None, None, Some(pattern), None) => Machine::End(Matcher::ruby(pattern)?),
            (None, None, None, None, Some(own)) => Machine::Rules(own_rules(own)?),
            _ => return Err("multiline takes exactly one of `preset`, `start`, `continuation`, `end` and `rules`".into()),
        };
        Ok(Multiline {
            machine,
            lines_max: config.lines_max.max(2) as usize,
            bytes_max: usize::try_from(config.bytes_max.0).unwrap_or(usize::MAX),
            age_ns: config.age.0,
        })
    }

    /// What `line` is after a group in state `open`; `None`: no group is open.
    pub(super) fn role(&self, open: Option<State>, line: &[u8]) -> Role {
        let object = line.first() == Some(&b'{');
        let next = Role::Next { state: START, last: false };
        let first = Role::First { state: START };
        match &self.machine {
            Machine::Rules(rules) => {
                let matches = |rule: &&Rule, state: State| rule.from & 1 << state != 0 && rule.pattern.is_match(line);
                // Going on comes before starting anew, and a rule that can start a group never goes on with one.
                let goes_on = |state| rules.iter().find(|rule| rule.from & 1 << START == 0 && matches(rule, state));
                if let Some(rule) = open.and_then(goes_on) {
                    let last = rules.iter().any(|r| r.from & 1 << START != 0 && r.from & 1 << rule.to != 0);
                    return Role::Next { state: rule.to, last };
                }
                rules.iter().find(|rule| matches(rule, START)).map_or(Role::Alone, |rule| Role::First { state: rule.to })
            }
            Machine::Start(pattern) if pattern.is_match(line) => first,
            Machine::Start(_) if object => Role::Alone,
            // Late lines of a record that was completed by its age are kept together as well.
            Machine::Start(_) => open.map_or(first, |_| next),
            Machine::Continuation(pattern) if open.is_some() && pattern.is_match(line) => next,
            Machine::Continuation(_) => first,
            Machine::End(pattern) => match (open, pattern.is_match(line)) {
                (None, true) => Role::Alone,
                (None, false) => first,
                (Some(_), last) => Role::Next { state: START, last },
            },
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let sized = RegexBuilder::new(pattern).size_limit(1 << 20).build();
    sized.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression takes more than 1 MiB compiled".to_string(),
        error => error.to_string(),
    })
}

/// Numbers the states by their first mention; `start_state` is the start.
fn own_rules(own: &[RuleConfig]) -> Result<Vec<Rule>, String> {
    let mut names = vec![START_STATE];
    let mut number = |name| match names.iter().position(|known| *known == name) {
        Some(number) => number,
        None => {
            names.push(name);
            names.len() - 1
        }
    };
    let mut rules = Vec::new();
    for rule in own {
        let from = rule.from.iter().fold(0u64, |bits, state| bits | 1u64.checked_shl(number(state.as_str()) as u32).unwrap_or(0));
        let to = number(rule.to.as_str());
        rules.push(Rule { from: from as u32, pattern: Matcher::ruby(&rule.pattern)?, to: to as State });
    }
    if names.len() > STATES_MAX || own.len() > RULES_MAX {
        return Err(format!(
            "there are {} rules over {} states; at most {RULES_MAX} and {STATES_MAX} are possible",
            own.len(),
            names.len()
        ));
    }
    if !own.iter().any(|rule| rule.from.iter().any(|state| state == START_STATE)) {
        return Err(format!("no rule begins a record; one of them is `from: [{START_STATE}]`"));
    }
    Ok(rules)
}

/// The rules of Fluent Bit's parsers, in its order (src/multiline/flb_ml_parser_*.c). Two things are different:
/// `$` also stands where Fluent Bit wants the newline that it has cut off before, and classes are ASCII as in Ruby.
fn rules(preset: Preset) -> Vec<Rule> {
    let (a, b, c, d, e) = (1, 2, 3, 4, 5); // states, named beside each preset
    let table: &[(&[State], &str, State)] = match preset {
        // a: java_start_exception, b: java_after_exception, c: java
        Preset::Java => &[
            (&[START, a], r"(.)(?:Exception|Error|Throwable|V8 errors stack trace)(?:[:\r\n]|$)", b),
            (&[b], r"^[\t ]*nested exception is:[\t ]*", a),
            (&[b], r"^[\r\n]*$", b),
            (&[b, c], r"^[\t ]+(?:eval )?at ", c),
            (&[b, c], r"^[\t ]+--- End of inner exception stack trace ---$", c),
            (&[b, c], r"^--- End of stack trace from previous location where exception was thrown ---$", c),
            (&[b, c], r"^[\t ]*(?:Caused by|Suppressed):", b),
            (&[b, c], r"^[\t ]*... \d+ (?:more|common frames omitted)", c),
        ],
        // a: go_after_panic, b: go_after_signal, c: go_goroutine, d: go_frame_1, e: go_frame_2
        Preset::Go => &[
            (&[START], r"\bpanic: ", a),
            (&[START], r"http: panic serving", c),
            (&[a, b, d], r"^$", c),
            (&[a], r"^\[signal ", b),
            (&[c], r"^goroutine \d+ \[[^\]]+\]:$", d),
            (&[d], r"^(?:[^\s.:]+\.)*[^\s.():]+\(|^created by ", e),
            (&[e], r"^\s", d),
        ],
        // a: python, b: python_code; the line that names the exception leads back to the start: the group is complete
        Preset::Python => &[
            (&[START], r"^Traceback \(most recent call last\):$", a),
            (&[a], r"^[\t ]+File ", b),
            (&[b], r"[^\t ]", a),
            (&[a], r"^(?:[^\s.():]+\.)*[^\s.():]+:", START),
        ],
        // a: ruby_after_exception, b: ruby
        Preset::Ruby => &[(&[START], r"^.+:\d+:in\s+.*", a), (&[a, b], r"^\s+from\s+.*:\d+:in\s+.*", b)],
    };
    let rule = |(from, pattern, to): &(&[State], &str, State)| Rule {
        from: from.iter().fold(0, |bits, state| bits | 1 << state),
        pattern: Matcher::Plain(RegexBuilder::new(pattern).unicode(false).build().expect("the patterns of presets are tested")),
        to: *to,
    };
    table.iter().map(rule).collect()
}
