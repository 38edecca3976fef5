//! From a `[MULTILINE_PARSER]` section to a definition.

use super::{Entry, Place, Section, Warning, plain, switch};
use std::collections::BTreeMap;

/// How lines are joined to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultilineDefinition {
    pub name: String,
    pub kind: MultilineKind,
    /// After so long without a line the record ends.
    pub flush_timeout_ms: u64,
    /// The field that holds the line.
    pub key_content: Option<String>,
    /// The field by which streams are told apart.
    pub key_group: Option<String>,
    pub key_pattern: Option<String>,
    /// The parser that reads each line first.
    pub parser: Option<String>,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultilineKind {
    /// The first rule is for `start_state`.
    Regex(Vec<MultilineRule>),
    /// A line that ends so ends the record; `negate`: one that does not.
    EndsWith {
        text: String,
        negate: bool,
    },
    Equal {
        text: String,
        negate: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultilineRule {
    pub states: Vec<String>,
    /// In Ruby's dialect, as it is written.
    pub pattern: String,
    pub next: String,
    pub line: u32,
}

const START: &str = "start_state";
const FLUSH_TIMEOUT_MS: u64 = 4000; // as Fluent Bit
const KEYS: [&str; 11] =
    ["name", "type", "match_string", "negate", "flush_timeout", "key_content", "key_group", "key_pattern", "parser", "rule", "rules"];

/// `None`: it cannot be used, a warning says why.
pub(super) fn parser(section: &Section, warnings: &mut Vec<Warning>) -> Option<MultilineDefinition> {
    let value = |key: &str| section.entry(key).map(|entry| entry.value.clone()).filter(|value| !value.is_empty());
    let Some(name) = value("name") else {
        warnings.push(section.left_out(section.line, "this multiline parser has no name".to_string()));
        return None;
    };
    unknown_keys(section, &name, warnings);
    let kind = match kind(section) {
        Ok(kind) => kind,
        Err((line, reason)) => {
            warnings.push(section.left_out(line, format!("multiline parser `{name}`: {reason}")));
            return None;
        }
    };
    let flush_timeout_ms = flush_timeout(section, &name, warnings);
    Some(MultilineDefinition {
        name,
        kind,
        flush_timeout_ms,
        key_content: value("key_content"),
        key_group: value("key_group"),
        key_pattern: value("key_pattern"),
        parser: value("parser"),
        place: section.place(),
    })
}

fn unknown_keys(section: &Section, name: &str, warnings: &mut Vec<Warning>) {
    for entry in &section.entries {
        let key = plain(entry.key.split('[').next().unwrap_or_default());
        if !KEYS.iter().any(|known| plain(known) == key) {
            warnings.push(section.warning(entry.line, format!("multiline parser `{name}`: key `{}` is not known", entry.key)));
        }
    }
}

/// In milliseconds.
fn flush_timeout(section: &Section, name: &str, warnings: &mut Vec<Warning>) -> u64 {
    let Some(entry) = section.entry("flush_timeout") else { return FLUSH_TIMEOUT_MS };
    entry.value.parse().unwrap_or_else(|_| {
        let text = format!(
            "multiline parser `{name}`: flush_timeout is a number of milliseconds, not `{}`; {FLUSH_TIMEOUT_MS} is used",
            entry.value
        );
        warnings.push(section.warning(entry.line, text));
        FLUSH_TIMEOUT_MS
    })
}

type Wrong = (u32, String);

fn kind(section: &Section) -> Result<MultilineKind, Wrong> {
    let Some(entry) = section.entry("type") else { return Err((section.line, "it has no type".to_string())) };
    let kind = entry.value.to_ascii_lowercase();
    match kind.as_str() {
        "regex" => Ok(MultilineKind::Regex(rules(section)?)),
        "endswith" | "equal" | "eq" => {
            let Some(text) = section.entry("match_string") else { return Err((section.line, "it has no match_string".to_string())) };
            let text = text.value.clone();
            let negate = section.entry("negate").is_some_and(|entry| switch(&entry.value) == Some(true));
            Ok(if kind == "endswith" { MultilineKind::EndsWith { text, negate } } else { MultilineKind::Equal { text, negate } })
        }
        _ => Err((entry.line, format!("type `{}` is none of regex, endswith and equal", entry.value))),
    }
}

fn rules(section: &Section) -> Result<Vec<MultilineRule>, Wrong> {
    let mut rules = Vec::new();
    let mut nested: BTreeMap<usize, Vec<&Entry>> = BTreeMap::new();
    for entry in &section.entries {
        match plain(&entry.key).as_str() {
            "rule" => rules.push(classic_rule(entry)?),
            key => {
                let index = key.strip_prefix("rules[").and_then(|rest| rest.split_once(']')).and_then(|(index, _)| index.parse().ok());
                if let Some(index) = index {
                    nested.entry(index).or_default().push(entry);
                }
            }
        }
    }
    for entries in nested.values() {
        rules.push(nested_rule(entries)?);
    }
    check(&rules, section.line)?;
    Ok(rules)
}

/// `"state[, state]" "/regex/" "next"`.
fn classic_rule(entry: &Entry) -> Result<MultilineRule, Wrong> {
    match quoted(&entry.value).as_deref() {
        Some([states, pattern, next]) => Ok(rule(states, pattern, next, entry.line)),
        _ => Err((entry.line, "a rule is \"state\" \"/regex/\" \"next state\", each in double quotes".to_string())),
    }
}

fn nested_rule(entries: &[&Entry]) -> Result<MultilineRule, Wrong> {
    let line = entries.first().map_or(0, |entry| entry.line);
    let value = |key: &str| {
        let found = entries.iter().find(|entry| plain(&entry.key).ends_with(key));
        found.map(|entry| entry.value.as_str()).ok_or_else(|| (line, format!("a rule has state, regex and next_state; `{key}` is missing")))
    };
    Ok(rule(value("].state")?, value("].regex")?, value("].nextstate")?, line))
}

fn rule(states: &str, pattern: &str, next: &str, line: u32) -> MultilineRule {
    let states = states.split(',').map(|state| state.trim().to_string()).filter(|state| !state.is_empty()).collect();
    MultilineRule { states, pattern: pattern.to_string(), next: next.trim().to_string(), line }
}

/// Texts in double quotes; a quote within is written `\"`, other backslashes are the pattern's own.
fn quoted(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        rest = rest.strip_prefix('"')?;
        let end = end_of_quoted(rest)?;
        all.push(rest[..end].replace("\\\"", "\""));
        rest = rest[end + 1..].trim_start();
    }
    Some(all)
}

fn end_of_quoted(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return Some(at),
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    None
}

fn check(rules: &[MultilineRule], line: u32) -> Result<(), Wrong> {
    let Some(first) = rules.first() else { return Err((line, "it has no rule".to_string())) };
    if !first.states.iter().any(|state| state == START) {
        return Err((first.line, format!("its first rule is not for {START}")));
    }
    for rule in rules {
        let is_known = rules.iter().any(|other| other.states.contains(&rule.next));
        if !rule.next.is_empty() && !is_known {
            return Err((rule.line, format!("no rule is for the state `{}`", rule.next)));
        }
    }
    Ok(())
}
