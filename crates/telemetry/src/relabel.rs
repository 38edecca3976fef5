//! Relabelling, as Prometheus does it: rules that keep, drop, rename and rewrite the labels of targets and series.
//!
//! In: a set of labels and a list of [`Rule`]s. Out: the changed set, or that it is dropped. A label whose value is empty is no
//! label. Regular expressions are RE2's, anchored at both ends, `.` matches a newline (as since Prometheus 3). Pure and bounded: a
//! rule makes at most one label of each label, an expression is compiled to at most [`REGEX_BYTES_MAX`].
//! Source: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config>.

use regex::{Captures, Regex, RegexBuilder};
use std::collections::BTreeMap;

/// Labels by name; `__name__` is the metric.
pub type Labels = BTreeMap<String, String>;

/// Of a compiled expression; it is what the `regex` crate takes by default, 10 MiB.
pub const REGEX_BYTES_MAX: usize = 10 << 20;

const SEPARATOR: &str = ";";
const REGEX: &str = "(.*)";
const REPLACEMENT: &str = "$1";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Writes the expanded replacement to the target label if the expression matches.
    #[default]
    Replace,
    Keep,
    Drop,
    /// Keeps if the joined source labels equal the target label.
    KeepEqual,
    DropEqual,
    /// Writes the hash of the joined source labels, modulo `modulus`.
    HashMod,
    /// Copies labels whose name matches to the name that the replacement gives.
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

impl Action {
    pub const ALL: [(&str, Action); 11] = [
        ("replace", Action::Replace),
        ("keep", Action::Keep),
        ("drop", Action::Drop),
        ("keepequal", Action::KeepEqual),
        ("dropequal", Action::DropEqual),
        ("hashmod", Action::HashMod),
        ("labelmap", Action::LabelMap),
        ("labeldrop", Action::LabelDrop),
        ("labelkeep", Action::LabelKeep),
        ("lowercase", Action::Lowercase),
        ("uppercase", Action::Uppercase),
    ];

    /// In any case of letters.
    pub fn parse(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, action)| action)
    }

    pub fn name(self) -> &'static str {
        Action::ALL.into_iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// A rule as it stands in a configuration. `None`: not given, the default holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub source_labels: Vec<String>,
    pub separator: Option<String>,
    pub regex: Option<String>,
    pub modulus: u64,
    pub target_label: String,
    pub replacement: Option<String>,
    pub action: Action,
    /// Names of labels must be of letters, digits and `_`, as before Prometheus 3; otherwise any UTF-8 is a name.
    pub legacy_names: bool,
}

/// A checked rule.
#[derive(Clone, Debug)]
pub struct Rule {
    action: Action,
    source_labels: Vec<String>,
    separator: String,
    regex: Regex,
    modulus: u64,
    target_label: String,
    replacement: String,
    legacy_names: bool,
}

impl Rule {
    /// Errors: what of the rule cannot be, in a sentence that names the field.
    pub fn new(spec: &Spec) -> Result<Rule, String> {
        check(spec)?;
        Ok(Rule {
            action: spec.action,
            source_labels: spec.source_labels.clone(),
            separator: spec.separator.clone().unwrap_or_else(|| SEPARATOR.into()),
            regex: compile(spec.regex.as_deref().unwrap_or(REGEX))?,
            modulus: spec.modulus,
            target_label: spec.target_label.clone(),
            replacement: spec.replacement.clone().unwrap_or_else(|| REPLACEMENT.into()),
            legacy_names: spec.legacy_names,
        })
    }

    /// False: what has these labels is dropped.
    pub fn apply(&self, labels: &mut Labels) -> bool {
        match self.action {
            Action::Keep => return self.regex.is_match(&self.joined(labels)),
            Action::Drop => return !self.regex.is_match(&self.joined(labels)),
            Action::KeepEqual => return get(labels, &self.target_label) == self.joined(labels),
            Action::DropEqual => return get(labels, &self.target_label) != self.joined(labels),
            Action::Replace => self.replace(labels),
            Action::Lowercase => set(labels, &self.target_label, self.joined(labels).to_lowercase()),
            Action::Uppercase => set(labels, &self.target_label, self.joined(labels).to_uppercase()),
            Action::HashMod => {
                let [.., high, low] = md5(self.joined(labels).as_bytes());
                // The last 8 bytes, most significant first, as Prometheus has always read them.
                let hash = u64::from(high.swap_bytes()) << 32 | u64::from(low.swap_bytes());
                set(labels, &self.target_label, (hash % self.modulus).to_string());
            }
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
        }
        true
    }

    fn joined(&self, labels: &Labels) -> String {
        let values: Vec<&str> = self.source_labels.iter().map(|name| get(labels, name)).collect();
        values.join(&self.separator)
    }

    fn replace(&self, labels: &mut Labels) {
        let source = self.joined(labels);
        let Some(captures) = self.regex.captures(&source) else { return };
        let target = expand(&self.target_label, &captures);
        if is_name(&target, self.legacy_names) {
            let value = expand(&self.replacement, &captures);
            set(labels, &target, value);
        }
    }

    fn map_names(&self, labels: &mut Labels) {
        let mapped: Vec<(String, String)> = labels
            .iter()
            .filter_map(|(name, value)| Some((expand(&self.replacement, &self.regex.captures(name)?), value.clone())))
            .collect();
        for (name, value) in mapped {
            set(labels, &name, value);
        }
    }
}

/// Applies rules in order. False: dropped, and what the labels are then means nothing.
pub fn apply(rules: &[Rule], labels: &mut Labels) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

/// Why a target cannot be scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// A rule dropped it.
    Dropped,
    /// No `__address__` is left.
    NoAddress,
}

/// Relabels a target: `labels` are those of its discovery with `__address__`, `__scheme__`, `__metrics_path__`, `job` and
/// `__param_*`. What is left has no `__meta_*` and no `__tmp*`, and `instance` if nothing else gave it is the address.
pub fn target(rules: &[Rule], mut labels: Labels) -> Result<Labels, NoTarget> {
    labels.retain(|_, value| !value.is_empty());
    if !apply(rules, &mut labels) {
        return Err(NoTarget::Dropped);
    }
    let address = labels.get("__address__").cloned().ok_or(NoTarget::NoAddress)?;
    labels.retain(|name, _| !name.starts_with("__meta_") && !name.starts_with("__tmp"));
    labels.entry("instance".into()).or_insert(address);
    Ok(labels)
}

/// The labels that a target's series get: those that do not begin with `__`, sorted.
pub fn public(labels: &Labels) -> Vec<(String, String)> {
    labels.iter().filter(|(name, _)| !name.starts_with("__")).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn get<'a>(labels: &'a Labels, name: &str) -> &'a str {
    labels.get(name).map_or("", String::as_str)
}

fn set(labels: &mut Labels, name: &str, value: String) {
    if value.is_empty() {
        labels.remove(name);
    } else {
        labels.insert(name.into(), value);
    }
}

fn is_name(name: &str, legacy: bool) -> bool {
    let first_is_fine = name.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic());
    !name.is_empty() && (!legacy || first_is_fine && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()))
}

/// `^(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+$`: a name in which variables stand for letters.
fn is_template(text: &str) -> bool {
    let name = Regex::new(r"^(?:(?:[a-zA-Z_]|\$(?:\{[0-9A-Za-z_]+\}|[0-9A-Za-z_]+))+[0-9A-Za-z_]*)+$").expect("it is an expression");
    name.is_match(text)
}

fn check(spec: &Spec) -> Result<(), String> {
    let (action, target) = (spec.action.name(), &spec.target_label);
    let (has_separator, has_replacement) = (spec.separator.is_some(), spec.replacement.is_some());
    let writes_plain = matches!(spec.action, Action::Lowercase | Action::Uppercase | Action::HashMod);
    let compares = matches!(spec.action, Action::KeepEqual | Action::DropEqual);
    if (writes_plain || compares || spec.action == Action::Replace) && target.is_empty() {
        return Err(format!("{action} needs target_label: the label to write or compare"));
    }
    if (writes_plain || compares) && (target.contains('$') || !is_name(target, spec.legacy_names)) {
        return Err(format!("target_label {target:?} is no name of a label, and {action} expands no variables"));
    }
    if spec.action == Action::Replace && spec.legacy_names && !is_template(target) {
        return Err(format!("target_label {target:?} is no name of a label"));
    }
    if spec.action == Action::HashMod && spec.modulus == 0 {
        return Err("hashmod needs modulus, a number from 1".into());
    }
    if matches!(spec.action, Action::Lowercase | Action::Uppercase) && has_replacement {
        return Err(format!("{action} takes no replacement"));
    }
    let mapped = spec.replacement.as_deref().unwrap_or(REPLACEMENT);
    if spec.action == Action::LabelMap && (mapped.is_empty() || spec.legacy_names && !is_template(mapped)) {
        return Err(format!("replacement {mapped:?} makes no name of a label"));
    }
    if compares && (spec.regex.is_some() || spec.modulus != 0 || has_separator || has_replacement) {
        return Err(format!("{action} takes source_labels and target_label, nothing else"));
    }
    let by_name = matches!(spec.action, Action::LabelDrop | Action::LabelKeep);
    let has_source = !spec.source_labels.is_empty() || !target.is_empty();
    if by_name && (has_source || spec.modulus != 0 || has_separator || has_replacement) {
        return Err(format!("{action} takes regex, nothing else"));
    }
    Ok(())
}

/// Compiles an expression of RE2, to match all of a text.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    // The pattern alone first: `a)(b` is no expression, though it is one between brackets.
    let translated = translate(pattern);
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    build(&translated)
        .and_then(|_| build(&format!("^(?s:{translated})$")))
        .map_err(|error| format!("regex {pattern:?} is no regular expression: {error}"))
}

/// From RE2's syntax to that of the `regex` crate, where they differ: `\d`, `\w`, `\s` and `\b` know ASCII only, `\Q…\E` quotes, `[`,
/// `&&`, `--` and `~~` in a class and a brace that counts nothing stand for themselves.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let (mut rest, mut class_len) = (pattern, None::<usize>);
    while let Some(first) = rest.chars().next() {
        let tail = &rest[first.len_utf8()..];
        let in_class = class_len.is_some();
        match first {
            '\\' => {
                let Some(second) = tail.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &tail[second.len_utf8()..];
                match second {
                    'd' => out.push_str("[0-9]"),
                    'D' => out.push_str("[^0-9]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    's' => out.push_str(r"[\t\n\x0c\r ]"),
                    'S' => out.push_str(r"[^\t\n\x0c\r ]"),
                    'b' | 'B' if !in_class => out.push_str(&format!(r"(?-u:\{second})")),
                    'Q' if !in_class => {
                        let (quoted, after) = rest.split_once(r"\E").unwrap_or((rest, ""));
                        out.push_str(&regex::escape(quoted));
                        rest = after;
                    }
                    _ => out.extend(['\\', second]),
                }
                class_len = class_len.map(|len| len + 1);
                continue;
            }
            '[' if !in_class => {
                out.push('[');
                rest = tail;
                if let Some(tail) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = tail;
                }
                class_len = Some(0);
                continue;
            }
            ']' if class_len == Some(0) => out.push_str(r"\]"),
            ']' if in_class => {
                out.push(']');
                class_len = None;
                rest = tail;
                continue;
            }
            '[' if tail.starts_with(':') && tail[1..].contains(":]") => {
                let len = tail.find(":]").map_or(0, |at| at + 2);
                out.push('[');
                out.push_str(&tail[..len]);
                rest = &tail[len..];
                class_len = class_len.map(|len| len + 1);
                continue;
            }
            '[' | '&' | '~' if in_class => out.extend(['\\', first]),
            '-' if in_class && tail.starts_with('-') => {
                out.push_str(r"-\-");
                rest = &tail[1..];
                continue;
            }
            '{' if !in_class && !counts(tail) => out.push_str(r"\{"),
            _ => out.push(first),
        }
        class_len = class_len.map(|len| len + 1);
        rest = tail;
    }
    out
}

/// `3}`, `3,}` or `3,5}` follows.
fn counts(text: &str) -> bool {
    let Some((inside, _)) = text.split_once('}') else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        Some((least, most)) => is_number(least) && (most.is_empty() || is_number(most)),
        None => is_number(inside),
    }
}

/// Go's templates: `$1`, `${1}`, `$name`, `$$`; a name is as long as it can be; what names no group is empty.
fn expand(template: &str, captures: &Captures<'_>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = variable(after) else {
            out.push('$');
            rest = after;
            continue;
        };
        let group = match name.parse::<usize>() {
            Ok(number) if name.bytes().all(|byte| byte.is_ascii_digit()) => captures.get(number),
            _ => captures.name(name),
        };
        out.push_str(group.map_or("", |group| group.as_str()));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn variable(text: &str) -> Option<(&str, &str)> {
    let (inside, braced) = text.strip_prefix('{').map_or((text, false), |inside| (inside, true));
    let len = inside.find(|letter: char| letter != '_' && !letter.is_alphanumeric()).unwrap_or(inside.len());
    let (name, after) = inside.split_at(len);
    let after = if braced { after.strip_prefix('}')? } else { after };
    (!name.is_empty()).then_some((name, after))
}

/// The MD5 of a text as four words, least significant byte first. It only spreads load here. <https://www.rfc-editor.org/rfc/rfc1321>
fn md5(text: &[u8]) -> [u32; 4] {
    const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let sines: [u32; 64] = std::array::from_fn(|n| ((n as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32);
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(text.len() as u64).wrapping_mul(8).to_le_bytes());
    let mut state = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks_exact(64) {
        let words: [u32; 16] = std::array::from_fn(|n| u32::from_le_bytes(std::array::from_fn(|byte| block[4 * n + byte])));
        let [mut a, mut b, mut c, mut d] = state;
        for n in 0..64 {
            let (mixed, word) = match n / 16 {
                0 => (b & c | !b & d, n),
                1 => (d & b | !d & c, 5 * n + 1),
                2 => (b ^ c ^ d, 3 * n + 5),
                _ => (c ^ (b | !d), 7 * n),
            };
            let sum = a.wrapping_add(mixed).wrapping_add(sines[n]).wrapping_add(words[word % 16]);
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(TURNS[n / 16][n % 4]));
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d]) {
            *sum = sum.wrapping_add(part);
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> Labels {
        text.split_terminator('|').map(|pair| pair.split_once('=').expect("a=b")).map(|(a, b)| (a.into(), b.into())).collect()
    }

    /// `action source,source separator regex target replacement modulus`, by name.
    fn rule(text: &str) -> Spec {
        let mut spec = Spec::default();
        for field in text.split(" @") {
            let (name, value) = field.trim_start_matches('@').split_once('=').expect("name=value");
            match name {
                "action" => spec.action = Action::parse(value).expect("an action"),
                "source" => spec.source_labels = value.split(',').map(String::from).collect(),
                "separator" => spec.separator = Some(value.into()),
                "regex" => spec.regex = Some(value.into()),
                "target" => spec.target_label = value.into(),
                "replacement" => spec.replacement = Some(value.into()),
                "modulus" => spec.modulus = value.parse().expect("a number"),
                "legacy" => spec.legacy_names = value == "true",
                _ => panic!("{name}"),
            }
        }
        spec
    }

    #[track_caller]
    fn check_rules(input: &str, rules: &[&str], want: Option<&str>) {
        let rules: Vec<Rule> = rules.iter().map(|text| Rule::new(&rule(text)).expect(text)).collect();
        let mut got = labels(input);
        let kept = apply(&rules, &mut got);
        assert_eq!(kept.then_some(got), want.map(labels), "{input}");
    }

    /// prometheus/model/relabel/relabel_test.go, TestRelabel.
    #[test]
    fn rules_do_what_those_of_prometheus_do() {
        let abc = "a=foo|b=bar|c=baz";
        check_rules(abc, &["@source=a @regex=f(.*) @target=d @replacement=ch${1}-ch${1}"], Some("a=foo|b=bar|c=baz|d=choo-choo"));
        check_rules(
            abc,
            &[
                "@source=a,b @regex=f(.*);(.*)r @target=a @replacement=b${1}${2}m",
                "@source=c,a @regex=(b).*b(.*)ba(.*) @target=d @replacement=$1$2$2$3",
            ],
            Some("a=boobam|b=bar|c=baz|d=boooom"),
        );
        check_rules("a=foo", &["@source=a @regex=.*o.* @action=drop", "@source=a @regex=f(.*) @target=d @replacement=ch$1-ch$1"], None);
        check_rules("a=foo|b=bar", &["@source=a @regex=.*o.* @action=drop"], None);
        check_rules("a=abc", &["@source=a @regex=.*(b).* @target=d @replacement=$1"], Some("a=abc|d=b"));
        check_rules("a=foo", &["@source=a @regex=no-match @action=drop"], Some("a=foo"));
        check_rules("a=foo", &["@source=a @regex=f|o @action=drop"], Some("a=foo"));
        check_rules("a=foo", &["@source=a @regex=no-match @action=keep"], None);
        check_rules("a=foo", &["@source=a @regex=f.* @action=keep"], Some("a=foo"));
        check_rules("a=boo", &["@source=a @regex=f @target=b @replacement=bar"], Some("a=boo"));
        // Blank replacement deletes, and with the default expression an absent source matches.
        check_rules("a=foo|f=baz", &["@source=a @regex=(f).* @target=f @replacement="], Some("a=foo"));
        check_rules("a=foo", &["@target=b @replacement=bar"], Some("a=foo|b=bar"));
        check_rules(abc, &["@source=c @target=d @action=hashmod @modulus=1000"], Some("a=foo|b=bar|c=baz|d=976"));
        check_rules("a=foo\nbar", &["@source=a @target=b @action=hashmod @modulus=1000"], Some("a=foo\nbar|b=734"));
        check_rules(
            "a=foo|b1=bar|b2=baz",
            &["@regex=(b.*) @replacement=bar_${1} @action=labelmap"],
            Some("a=foo|b1=bar|b2=baz|bar_b1=bar|bar_b2=baz"),
        );
        check_rules(
            "a=foo|__meta_my_bar=aaa|__meta_my_baz=bbb|__meta_other=ccc",
            &["@regex=__meta_(my.*) @replacement=${1} @action=labelmap"],
            Some("a=foo|__meta_my_bar=aaa|__meta_my_baz=bbb|__meta_other=ccc|my_bar=aaa|my_baz=bbb"),
        );
        let some = "@source=a @regex=some-([^-]+)-([^,]+)";
        check_rules("a=some-name-value", &[&format!("{some} @replacement=${{2}} @target=${{1}}")], Some("a=some-name-value|name=value"));
        check_rules("a=some-name-value", &[&format!("{some} @replacement=${{3}} @target=${{1}}")], Some("a=some-name-value"));
        check_rules("a=some-name-0", &[&format!("{some} @replacement=${{1}} @target=${{3}}")], Some("a=some-name-0"));
        let tags = "__meta_sd_tags=path:/secret,job:some-job,label:foo=bar";
        check_rules(
            tags,
            &[
                "@source=__meta_sd_tags @regex=(?:.+,|^)path:(/[^,]+).* @replacement=${1} @target=__metrics_path__",
                "@source=__meta_sd_tags @regex=(?:.+,|^)job:([^,]+).* @replacement=${1} @target=job",
                "@source=__meta_sd_tags @regex=(?:.+,|^)label:([^=]+)=([^,]+).* @replacement=${2} @target=${1}",
            ],
            Some(&format!("{tags}|__metrics_path__=/secret|job=some-job|foo=bar")),
        );
        let (port, annotation) = ("__meta_kubernetes_pod_container_port_name", "__meta_kubernetes_pod_annotation_XXX_metrics_port");
        check_rules(
            &format!("{port}=foo|{annotation}=9091"),
            &[
                &format!("@action=labeldrop @regex=^{port}$"),
                &format!("@source={annotation} @regex=(.+) @replacement=metrics @target={port}"),
                &format!("@source={port} @regex=^metrics$ @action=keep"),
            ],
            Some(&format!("{annotation}=9091|{port}=metrics")),
        );
        check_rules("a=foo|b1=bar|b2=baz", &["@regex=(b.*) @action=labelkeep"], Some("b1=bar|b2=baz"));
        check_rules("a=foo|b1=bar|b2=baz", &["@regex=(b.*) @action=labeldrop"], Some("a=foo"));
        check_rules(
            "foo=bAr123Foo",
            &["@source=foo @action=uppercase @target=up", "@source=foo @action=LowerCase @target=low"],
            Some("foo=bAr123Foo|up=BAR123FOO|low=bar123foo"),
        );
        let ports = "__tmp_port=1234|__port1=1234|__port2=5678";
        check_rules(ports, &["@source=__tmp_port @action=keepequal @target=__port1"], Some(ports));
        check_rules(ports, &["@source=__tmp_port @action=dropequal @target=__port1"], None);
        check_rules(ports, &["@source=__tmp_port @action=dropequal @target=__port2"], Some(ports));
        check_rules(ports, &["@source=__tmp_port @action=keepequal @target=__port2"], None);
        // A line break is matched by a dot, and `$1x` names the group `1x`.
        check_rules("a=foo\nbar", &["@source=a @regex=f(.*)r @target=b @replacement=<$1>$1x$$$"], Some("a=foo\nbar|b=<oo\nba>$$"));
    }

    #[test]
    fn an_impossible_rule_says_which_field() {
        for (text, want) in [
            ("@action=replace", "needs target_label"),
            ("@action=lowercase", "needs target_label"),
            ("@action=lowercase @target=${3}", "\"${3}\" is no name"),
            ("@action=replace @target=0${3} @legacy=true", "\"0${3}\" is no name"),
            ("@action=replace @target=-${3} @legacy=true", "\"-${3}\" is no name"),
            ("@action=hashmod @target=a", "modulus"),
            ("@action=uppercase @target=a @replacement=x", "no replacement"),
            ("@action=keepequal @target=a @regex=x", "nothing else"),
            ("@action=labeldrop @source=a", "nothing else"),
            ("@action=labelmap @replacement=-x @legacy=true", "makes no name"),
            ("@action=keep @regex=(", "is no regular expression"),
            ("@action=keep @regex=a)(b", "is no regular expression"),
        ] {
            let error = Rule::new(&rule(text)).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
        assert!(Rule::new(&rule("@source=a @regex=some-([^-]+)-([^,]+) @replacement=${1} @target=${3} @legacy=true")).is_ok());
    }

    #[test]
    fn a_template_of_a_name_is_what_prometheus_takes() {
        for name in ["label", "label${1}", "${1}label", "${1}", "$1", "asd$2asd", "_${1}_", "foo${bar}foo"] {
            assert!(is_template(name), "{name}");
        }
        for name in ["-label", "${", "$", "${}", "foo${", "-foo${1}bar-"] {
            assert!(!is_template(name), "{name}");
        }
    }

    #[test]
    fn expressions_are_those_of_re2() {
        for (pattern, text, want) in [
            (r"\d+", "12", true),
            (r"\d+", "\u{0661}", false),
            (r"\w", "\u{e9}", false),
            (r"[\w.]+", "a.b", true),
            (r"[^\s]+", "a\u{a0}b", true),
            (r"\Qa.b\E+", "a.bb", true),
            (r"\Qa.b", "axb", false),
            ("[[a]+", "[a", true),
            ("[]a]+", "]a", true),
            ("[^]a]+", "xy", true),
            ("[a&&b]+", "a&b", true),
            ("[[:alpha:]_]+", "ab_", true),
            ("[+--]", ",", true),
            ("a{,2}", "a{,2}", true),
            ("a{1,2}", "aa", true),
            ("{}", "{}", true),
            (r"\bab\b", "ab", true),
            ("(?i)AB", "ab", true),
            ("a$|b", "b", true),
            ("a|b", "ab", false),
        ] {
            assert_eq!(compile(pattern).expect(pattern).is_match(text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn a_target_loses_what_its_discovery_knew() {
        let rules = [Rule::new(&rule("@source=__meta_pod @target=pod")).expect("a rule")];
        let got = target(&rules, labels("__address__=a:1|__meta_pod=p|__tmp_x=1|__param_q=2|job=j|empty=")).expect("a target");
        assert_eq!(got, labels("__address__=a:1|__param_q=2|job=j|pod=p|instance=a:1"));
        assert_eq!(public(&got), [("instance", "a:1"), ("job", "j"), ("pod", "p")].map(|(a, b)| (a.into(), b.into())));
        assert_eq!(target(&[], labels("job=j")), Err(NoTarget::NoAddress));
    }

    #[test]
    fn md5_is_md5() {
        let hex = |text: &str| md5(text.as_bytes()).map(|word| format!("{:08x}", word.swap_bytes())).concat();
        assert_eq!(hex(""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex("message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
        let digits = "1234567890".repeat(8);
        assert_eq!(hex(&digits), "57edf4a22be3c955ac49da2e2107b67a");
    }

    proptest! {
        #[test]
        fn no_pattern_is_a_panic(pattern in "[\\[\\]\\\\^$(){}a-c0-3,&~|.*+?QEdwsb:-]{0,20}", text in "\\PC{0,10}", template in "[${}a1]{0,8}") {
            if let Ok(regex) = compile(&pattern)
                && let Some(captures) = regex.captures(&text)
            {
                expand(&template, &captures);
            }
        }
    }
}
