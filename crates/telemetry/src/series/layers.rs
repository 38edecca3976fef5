//! Labels in three layers: global (start parameters), service (constant), request (from a header) (EB 5.1, 5.2).
//!
//! In: layers from the first to the last. Out: the labels together, and every mistake. A later layer does not override an earlier one
//! unless it is allowed to; an empty label equals an absent one, so a variable that nobody set overrides nothing and is not written,
//! and where it is required it is a mistake. Bound: [`LABELS_MAX`] labels, [`VALUE_BYTES_MAX`] bytes of a value.

use crate::selector::Labels;
use std::collections::BTreeMap;
use std::fmt;

pub const LABELS_MAX: usize = 128;
pub const VALUE_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Global,
    Service,
    Request,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Global => "global",
            Level::Service => "service",
            Level::Request => "request",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Layer {
    pub level: Level,
    /// As they were given: names may repeat, values may be empty.
    pub labels: Vec<(String, String)>,
    /// Must have a value that is not white space.
    pub required: Vec<String>,
    /// Labels of earlier layers that this one may override.
    pub may_override: Vec<String>,
}

impl Layer {
    pub fn new(level: Level, labels: &[(&str, &str)]) -> Layer {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Layer { level, labels, required: Vec::new(), may_override: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Required, and empty or white space.
    Required,
    Duplicate,
    Reserved,
    /// Not a name at all.
    Name,
    Override(Level),
    ValueLength,
    TooMany,
}

impl Rule {
    /// For counts of what requests bring.
    pub fn reason(self) -> &'static str {
        match self {
            Rule::Required => "required_label_empty",
            Rule::Duplicate => "duplicate_label",
            Rule::Reserved => "reserved_label",
            Rule::Name => "invalid_label_name",
            Rule::Override(_) => "label_override",
            Rule::ValueLength => "label_value_too_long",
            Rule::TooMany => "too_many_labels",
        }
    }
}

/// What is wrong with one label of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub level: Level,
    pub label: String,
    pub rule: Rule,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "label `{}` of the {} layer ", self.label.escape_debug(), self.level.name())?;
        match self.rule {
            Rule::Required => f.write_str("is required and is empty; give it a value, or take it from the required ones"),
            Rule::Duplicate => f.write_str("stands there twice; take one of them away"),
            Rule::Reserved => {
                f.write_str("is reserved: names that begin with `__`, `le` and `quantile` have a meaning of their own; rename it")
            }
            Rule::Name => f.write_str("is no name of a label: a letter or `_`, then letters, digits and `_`"),
            Rule::Override(by) => {
                write!(f, "stands in the {} layer already; an earlier layer wins: rename it, or allow it to override", by.name())
            }
            Rule::ValueLength => write!(f, "has a value of more than {VALUE_BYTES_MAX} bytes"),
            Rule::TooMany => write!(f, "is one too many; at most {LABELS_MAX} labels are put together"),
        }
    }
}

impl std::error::Error for Mistake {}

/// Puts layers together. What is wrong is left out and told: a mistake of the first two layers must end the start (exit code 2), one
/// of a request is counted.
pub fn merge(layers: &[Layer]) -> (Labels, Vec<Mistake>) {
    let mut merged: BTreeMap<&str, (Level, &str)> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for layer in layers {
        for required in &layer.required {
            let is_given = layer.labels.iter().any(|(name, value)| name == required && !value.trim().is_empty());
            if !is_given {
                mistakes.push(Mistake { level: layer.level, label: required.clone(), rule: Rule::Required });
            }
        }
        let mut names = std::collections::HashSet::new();
        for (name, value) in &layer.labels {
            let there = merged.get(name.as_str()).map(|(level, _)| *level);
            let rule = match there {
                _ if !is_name(name) => Some(Rule::Name),
                _ if is_reserved(name) => Some(Rule::Reserved),
                _ if !names.insert(name.as_str()) => Some(Rule::Duplicate),
                _ if value.trim().is_empty() => continue, // equals an absent one
                _ if value.len() > VALUE_BYTES_MAX => Some(Rule::ValueLength),
                Some(level) if !layer.may_override.contains(name) => Some(Rule::Override(level)),
                None if merged.len() >= LABELS_MAX => Some(Rule::TooMany),
                _ => None,
            };
            match rule {
                Some(rule) => mistakes.push(Mistake { level: layer.level, label: name.clone(), rule }),
                None => {
                    merged.insert(name, (layer.level, value));
                }
            }
        }
    }
    (merged.into_iter().map(|(name, (_, value))| (name.to_string(), value.to_string())).collect(), mistakes)
}

pub fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(is_part)
}

/// Names that a configuration may not set.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("__") || matches!(name, "le" | "quantile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(layers: &[Layer], want: &[(&str, &str)], mistakes: &[&str]) {
        let (labels, told) = merge(layers);
        assert_eq!(labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), want);
        let told: Vec<String> =
            told.iter().map(|mistake| format!("{} {} {}", mistake.level.name(), mistake.label, mistake.rule.reason())).collect();
        assert_eq!(told, mistakes);
    }

    #[test]
    fn eb_5_1_a_later_layer_overrides_an_earlier_one_only_where_it_is_allowed() {
        let global = Layer::new(Level::Global, &[("env", "prod"), ("zone", "a"), ("empty", "")]);
        let service = Layer::new(Level::Service, &[("service", "pay"), ("env", "dev"), ("empty", "now")]);
        let request =
            Layer { may_override: vec!["zone".into()], ..Layer::new(Level::Request, &[("zone", "b"), ("service", "x"), ("env", "")]) };
        check(
            &[global, service, request],
            &[("empty", "now"), ("env", "prod"), ("service", "pay"), ("zone", "b")],
            &["service env label_override", "request service label_override"],
        );
    }

    #[test]
    fn eb_5_1_reserved_and_duplicate_names_are_refused() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        for (label, reason) in [
            (("__name__", "x"), "reserved_label"),
            (("__tenant", "x"), "reserved_label"),
            (("le", "1"), "reserved_label"),
            (("quantile", "1"), "reserved_label"),
            (("", "x"), "invalid_label_name"),
            (("1a", "x"), "invalid_label_name"),
            (("a-b", "x"), "invalid_label_name"),
            (("é", "x"), "invalid_label_name"),
            (("twice", "x"), "duplicate_label"),
            (("long", long.as_str()), "label_value_too_long"),
        ] {
            let layer = Layer::new(Level::Global, &[("twice", "x"), label]);
            check(&[layer], &[("twice", "x")], &[&format!("global {} {reason}", label.0)]);
        }
        let many: Vec<(String, String)> = (0..1000).map(|n| (format!("l{n}"), "x".to_string())).collect();
        let (labels, mistakes) = merge(&[Layer { labels: many, ..Layer::new(Level::Request, &[]) }]);
        assert_eq!((labels.len(), mistakes.len()), (LABELS_MAX, 1000 - LABELS_MAX));
    }

    #[test]
    fn eb_5_2_a_required_label_that_is_empty_is_named_with_its_layer() {
        for given in [vec![], vec![("service_name", "")], vec![("service_name", " \t")]] {
            let layer = Layer { required: vec!["service_name".into()], ..Layer::new(Level::Service, &given) };
            let (labels, mistakes) = merge(&[layer]);
            assert!(labels.is_empty());
            let text =
                "label `service_name` of the service layer is required and is empty; give it a value, or take it from the required ones";
            assert_eq!(mistakes[0].to_string(), text);
        }
    }
}
