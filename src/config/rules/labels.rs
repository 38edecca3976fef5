//! Labels in three layers: of the process, of a source, of the request.
//!
//! A name is Prometheus', is nobody else's, and is given once: a later layer gives it again only where `labels_override` says so.
//! What must not be missing is not blank before anything starts.

use super::Rules;
use crate::config::locate::Path;
use crate::config::model::{Config, LabelLimitsConfig, RequestLabelConfig};
use crate::config::report::{Mistake, nearest};
use crate::metrics::OWN_LABELS;
use flow::labels::clean;
use flow::units::NANOS_PER_SECOND;

const NAME_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1024;
/// One more column for each record.
const REQUEST_LABELS_MAX: usize = 16;

/// Names that a scraper, a histogram or a summary puts there itself.
const RESERVED: [&str; 4] = ["le", "quantile", "job", "instance"];

impl Rules<'_> {
    pub(super) fn labels(&mut self, config: &Config, root: &Path) {
        let global = root.key("labels");
        for (name, value) in &config.labels {
            self.label_name(&global.key(name), name);
            self.label_value(&global.key(name), value);
        }
        for (source, of_source) in &config.sources {
            let at = root.key("sources").key(source).key(of_source.kind()).key("labels");
            for (name, value) in of_source.labels() {
                self.label_name(&at.key(name), name);
                self.label_value(&at.key(name), value);
                if config.labels.contains_key(name) {
                    self.given_again(&at.key(name), name, "the global layer (`labels`)", config);
                }
            }
        }
        let request = root.key("request_labels");
        if config.request_labels.len() > REQUEST_LABELS_MAX {
            let count = config.request_labels.len();
            self.at_key(&request, format!("has {count} labels; each is one more column for every record, so there are at most {REQUEST_LABELS_MAX}; leave some out"));
        }
        for (name, label) in &config.request_labels {
            let at = request.key(name);
            self.label_name(&at, name);
            let of_source = config.sources.iter().find(|(_, source)| source.labels().contains_key(name));
            match of_source {
                _ if config.labels.contains_key(name) => self.given_again(&at, name, "the global layer (`labels`)", config),
                Some((source, _)) => self.given_again(&at, name, &format!("the service layer (source `{source}`)"), config),
                None => {}
            }
            self.request_label(&at, label);
        }
        self.labels_required(config, root);
        let all =
            || config.labels.keys().chain(config.request_labels.keys()).chain(config.sources.values().flat_map(|s| s.labels().keys()));
        for (i, name) in config.labels_override.iter().enumerate() {
            if !all().any(|known| known == name) {
                let help =
                    nearest(name, all().map(String::as_str)).map_or("leave it out".into(), |known| format!("did you mean `{known}`?"));
                let rule = "it names labels that a later layer gives another value";
                self.at(&root.key("labels_override").index(i), format!("no layer has a label `{name}`; {rule}; {help}"));
            }
        }
        self.label_limits(&root.key("label_limits"), config.label_limits);
    }

    fn label_name(&mut self, at: &Path, name: &str) {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fine) || name.starts_with(|c: char| c.is_ascii_digit()) {
            let rule = format!("a name is letters, digits and `_`, at most {NAME_BYTES_MAX}, and begins with no digit");
            self.at_key(at, format!("`{name}` is no name of a label; {rule}; write node_pool"));
        } else if name.starts_with("__") || RESERVED.contains(&name) {
            let rule = "names that begin with `__`, le, quantile, job and instance are Prometheus' own";
            self.at_key(at, format!("`{name}` is reserved; {rule}; write app_{}", name.trim_start_matches('_')));
        } else if OWN_LABELS.contains(&name) {
            let rule = format!("weir puts these on its metrics itself: {}", OWN_LABELS.join(", "));
            self.at_key(at, format!("`{name}` is reserved; {rule}; write app_{name}"));
        }
    }

    fn label_value(&mut self, at: &Path, value: &str) {
        if value.len() > VALUE_BYTES_MAX {
            self.at(at, format!("has {} bytes; the value of a label has at most {VALUE_BYTES_MAX}; write a shorter one", value.len()));
        }
    }

    fn given_again(&mut self, at: &Path, name: &str, earlier: &str, config: &Config) {
        if !config.labels_override.iter().any(|allowed| allowed == name) {
            let rule = "a later layer gives no label another value unless that is allowed";
            self.at_key(at, format!("{earlier} has a label `{name}` already; {rule}; write another name, or labels_override: [{name}]"));
        }
    }

    fn request_label(&mut self, at: &Path, label: &RequestLabelConfig) {
        let from = at.key("from");
        if label.from.is_empty() && !self.damaged(&from) {
            self.at(&from, "is empty; a label of the request is read from a field of the record; write [http.route, route]");
        }
        self.field_list(&from, &label.from);
        self.ask_all(&label.from);
        for (key, value, max) in [("values_max", label.values_max, 100_000), ("bytes_max", label.bytes_max, 1024)] {
            if !(1..=max).contains(&value) {
                self.at(&at.key(key), format!("is {value}; it must be from 1 to {max}; write {}", value.clamp(1, max)));
            }
        }
        let is_taken =
            |value: &str| clean(value.as_bytes(), label.bytes_max as usize).is_ok_and(|clean| clean == value && !clean.is_empty());
        if label.overflow.is_empty() || label.overflow.len() > VALUE_BYTES_MAX || !clean_of_any_length(&label.overflow) {
            let rule = "it stands for every value that is not taken, without blanks around it and control characters";
            self.at(&at.key("overflow"), format!("{:?} is no value; {rule}; write __other__", label.overflow));
        }
        for (i, value) in label.allow.iter().enumerate() {
            let at = at.key("allow").index(i);
            if !is_taken(value) {
                let rule = "a value has no blanks around it, no control characters and at most `bytes_max` bytes";
                self.at(&at, format!("{value:?} is never a value; {rule}; write it as it is without them"));
            }
            if label.allow[..i].contains(value) {
                self.at(&at, format!("`{value}` stands in this list already; each value is named once; leave one out"));
            }
        }
        if label.allow.len() > label.values_max as usize {
            let count = label.allow.len();
            self.at(
                &at.key("values_max"),
                format!("is {}, and {count} values are allowed; there must be room for each; write {count}", label.values_max),
            );
        }
    }

    /// EB 5.2: nothing starts without them.
    fn labels_required(&mut self, config: &Config, root: &Path) {
        for (i, name) in config.labels_required.iter().enumerate() {
            let at = root.key("labels_required").index(i);
            let rule = "a required label has a value that is not blank before anything starts";
            if let Some(value) = config.labels.get(name) {
                // A source without the label has this one.
                if value.trim().is_empty() {
                    let help = "set it, or take it out of `labels_required`";
                    self.at(&root.key("labels").key(name), format!("the label `{name}` of the global layer is empty; {rule}; {help}"));
                }
            }
            let global = root.key("labels");
            let is_global = config.labels.contains_key(name) || self.lost_key(&global, name);
            let mut without = Vec::new();
            for (source, of_source) in &config.sources {
                let labels = root.key("sources").key(source).key(of_source.kind()).key("labels");
                match of_source.labels().get(name) {
                    Some(value) if value.trim().is_empty() => {
                        let help = "set it, or take it out of `labels_required`";
                        let message = format!("the label `{name}` of the service layer (source `{source}`) is empty; {rule}; {help}");
                        self.at(&labels.key(name), message);
                    }
                    Some(_) => {}
                    None if is_global || self.lost_key(&labels, name) => {}
                    None => without.push(format!("`{source}`")),
                }
            }
            if !without.is_empty() {
                let layers = if config.request_labels.contains_key(name) { "a request may come without it, and " } else { "" };
                let sources = without.join(", ");
                let help = "add it to `labels` of the file or of each source, or take it out of `labels_required`";
                self.at(&at, format!("the label `{name}` is missing: {layers}neither the global layer nor the service layer of {sources} has it; {rule}; {help}"));
            }
        }
    }

    fn label_limits(&mut self, at: &Path, limits: LabelLimitsConfig) {
        for (key, value, min, max) in [
            ("per_metric", limits.per_metric, 1, 1_000_000),
            ("per_tenant", limits.per_tenant, 1, 1_000_000),
            ("total", limits.total, 2, 2_000_000),
        ] {
            if !(min..=max).contains(&value) {
                self.at(&at.key(key), format!("is {value}; it must be from {min} to {max}; write {}", value.clamp(min, max)));
            }
        }
        self.span(&at.key("idle"), limits.idle, NANOS_PER_SECOND, 366 * 86_400 * NANOS_PER_SECOND);
    }
}

fn clean_of_any_length(value: &str) -> bool {
    clean(value.as_bytes(), value.len()).is_ok_and(|clean| clean == value)
}

/// A variable that is not set leaves a label without a value: says which one, of which layer (EB 5.2).
pub fn name_layers(mistakes: &mut [Mistake]) {
    for mistake in mistakes.iter_mut().filter(|mistake| mistake.message.starts_with("the environment has no variable")) {
        let parts: Vec<&str> = mistake.path.split('.').collect();
        let (name, layer) = match parts[..] {
            ["labels", name] => (name, "global layer".to_string()),
            ["sources", source, _, "labels", name] => (name, format!("service layer (source `{source}`)")),
            _ => continue,
        };
        mistake.message = format!("the label `{name}` of the {layer} is empty: {}", mistake.message);
    }
}
