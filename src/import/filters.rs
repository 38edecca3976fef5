//! Filters of Fluent Bit become stages of parsing, groups of lines and steps.
//!
//! In: one filter, the sources that its tag matches and the steps so far; both grow. What works on lines goes to the sources, as
//! steps see records; all else is a step, in the order of the filters.

use super::fluent_bit::{Import, Keys, RAW, group, is_on, name_of};
use parse::fluent::Section;
use parse::pattern::Pattern;
use serde_json::{Map, Value, json};

/// A source, and whether its lines are still unread.
type Source<'a> = (&'a mut Map<String, Value>, &'a mut bool);

pub fn filter(section: &Section, sources: &mut [Source<'_>], steps: &mut Vec<Value>, import: &mut Import) {
    let plugin = name_of(section).unwrap_or_default().to_ascii_lowercase();
    let mut keys = Keys::new(section);
    match plugin.as_str() {
        "parser" => parser(&mut keys, sources, import),
        "multiline" => multiline(&mut keys, sources, import),
        "kubernetes" => kubernetes(&mut keys, sources, import),
        "grep" => grep(&mut keys, steps, import),
        "modify" => modify(section, &mut keys, steps, import),
        "record_modifier" => record_modifier(&mut keys, steps, import),
        "throttle" => throttle(&mut keys, steps, import),
        _ => {
            import.missing(section, section.line, format!("filter {plugin}: no equivalent"));
            return;
        }
    }
    keys.finish(import);
}

/// `$a['b']` and `a` as paths of fields.
pub fn path(accessor: &str) -> String {
    let bare = accessor.strip_prefix('$').unwrap_or(accessor);
    bare.replace("']['", ".").replace("['", ".").replace("']", "").replace("[\"", ".").replace("\"]", "")
}

/// A field as conditions write it.
fn field(path: &str) -> String {
    let is_plain = |key: &str| {
        key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if path.split('.').all(is_plain) { path.to_string() } else { format!("record[{}]", Value::String(path.into())) }
}

fn text(value: &str) -> String {
    Value::String(value.into()).to_string()
}

fn parser(keys: &mut Keys, sources: &mut [Source<'_>], import: &mut Import) {
    let key = keys.take("key_name").map_or_else(|| RAW.to_string(), |(key, _)| path(key));
    let keeps_field = keys.is_on("preserve_key") == Some(true);
    let keeps_others = keys.is_on("reserve_data") == Some(true);
    let mut names = Vec::new();
    for (name, line) in keys.all("parser") {
        if import.library.parsers.iter().any(|(parser, _)| parser.name == name) {
            names.push(name);
        } else {
            import.missing(keys.section, line, format!("parser {name}: no library defines it"));
        }
    }
    if keys.is_on("unescape_key") == Some(true) {
        import.note(keys.section, keys.section.line, "parser: unescape_key: texts are always read unescaped");
    }
    for (source, is_raw) in sources.iter_mut() {
        let stages = source.entry("parse").or_insert_with(|| json!([])).as_array_mut().expect("it is made as a list");
        let mut stage = json!({ "with": names });
        if **is_raw && key == RAW {
            // The line itself.
            if keeps_field {
                stage["original"] = json!(RAW);
            }
            **is_raw = false;
        } else {
            stage["field"] = json!(key);
            stage["keep_field"] = json!(keeps_field);
            stage["keep_others"] = json!(keeps_others);
        }
        stages.push(stage);
    }
}

fn multiline(keys: &mut Keys, sources: &mut [Source<'_>], import: &mut Import) {
    let section = keys.section;
    let key = keys.take("multiline.key_content").map_or(RAW, |(key, _)| key);
    let names: Vec<String> =
        keys.all("multiline.parser").into_iter().flat_map(|(names, _)| names.split(',')).map(|n| n.trim().into()).collect();
    let why = "lines are joined where they are read";
    keys.pass(import, &["buffer", "emitter_name", "emitter_storage.type", "emitter_mem_buf_limit", "flush_ms", "mode"], why);
    for (source, is_raw) in sources.iter_mut() {
        if !**is_raw || key != RAW {
            import.missing(section, section.line, format!("multiline on {key}: lines are joined before parsers, on the whole line"));
            continue;
        }
        for name in names.iter().filter(|name| !matches!(name.as_str(), "docker" | "cri")) {
            if source.contains_key("multiline") {
                import.missing(section, section.line, format!("multiline parser {name}: a source joins lines in one way"));
            } else {
                group(name, section, source, import);
            }
        }
    }
}

fn kubernetes(keys: &mut Keys, sources: &mut [Source<'_>], import: &mut Import) {
    let own = ["kube_url", "kube_ca_file", "kube_ca_path", "kube_token_file", "kube_tag_prefix", "kube_token_ttl", "kube_meta_cache_ttl"];
    keys.pass(import, &own, "pods are read from a file or folder, see `kubernetes.metadata`; the API server is never asked");
    let buffers = ["buffer_size", "tls.debug", "tls.verify", "use_kubelet", "kubelet_port", "dns_retries", "dns_wait_time"];
    keys.pass(import, &buffers, "the API server is never asked");
    keys.pass(
        import,
        &["merge_log", "merge_log_trim", "keep_log"],
        "what a container writes is the record, and its members stand at the top",
    );
    keys.pass(import, &["k8s-logging.parser", "k8s-logging.exclude"], "write `kubernetes.annotations.obey: true` to let pods ask");
    for name in ["labels", "annotations"] {
        if keys.is_on(name) == Some(false) && name == "labels" {
            sources.iter_mut().for_each(|(source, _)| drop(source.insert("kubernetes".into(), json!({ "labels": [] }))));
        }
    }
    for (source, _) in sources.iter_mut() {
        source.entry("kubernetes").or_insert_with(|| json!({}));
        if source.get("format") == Some(&json!("text")) {
            source.insert("format".into(), json!("container"));
        }
    }
}

/// A pattern as conditions read it; `None`: only back-tracking can say it.
fn matching(keys: &Keys, rule: &str, line: u32, import: &mut Import) -> Option<String> {
    let (key, pattern) = rule.split_once(' ').map(|(key, pattern)| (key, pattern.trim()))?;
    match Pattern::new(pattern).map(|pattern| pattern.report().translated.clone()) {
        Ok(Some(translated)) => Some(format!("{}.matches({})", field(&path(key)), text(&translated))),
        Ok(None) => {
            import.missing(keys.section, line, format!("grep: {pattern}: conditions have no look-around and no back-references"));
            None
        }
        Err(refusal) => {
            import.missing(keys.section, line, format!("grep: {pattern}: {refusal}"));
            None
        }
    }
}

fn grep(keys: &mut Keys, steps: &mut Vec<Value>, import: &mut Import) {
    let is_or = keys.take("logical_op").is_some_and(|(op, _)| op.eq_ignore_ascii_case("or"));
    for (key, verb) in [("regex", "keep"), ("exclude", "drop")] {
        let rules = keys.all(key);
        let conditions: Vec<String> = rules.iter().filter_map(|(rule, line)| matching(keys, rule, *line, import)).collect();
        // Without a logical operator each rule stands alone: all that are to match, or any that excludes.
        let joins_by_or = if keys_have_operator(keys) { is_or } else { verb == "drop" };
        if !conditions.is_empty() {
            steps.push(json!({ verb: { "when": conditions.join(if joins_by_or { " || " } else { " && " }) } }));
        }
    }
}

fn keys_have_operator(keys: &Keys) -> bool {
    keys.section.entries.iter().any(|entry| entry.key.eq_ignore_ascii_case("logical_op") && !entry.value.eq_ignore_ascii_case("legacy"))
}

/// Rules of `modify` in order; neighbours of one kind share a step.
fn modify(section: &Section, keys: &mut Keys, steps: &mut Vec<Value>, import: &mut Import) {
    let conditions = keys.all("condition");
    if let Some((condition, line)) = conditions.first() {
        import.missing(section, *line, format!("modify: condition {condition}: a shape step has none; its rules are left out"));
        ["add", "set", "remove", "rename", "hard_rename", "copy", "hard_copy", "remove_wildcard", "remove_regex"]
            .iter()
            .for_each(|key| drop(keys.all(key)));
        return;
    }
    for entry in &section.entries {
        let (first, second) = entry.value.split_once(' ').map_or((entry.value.as_str(), ""), |(a, b)| (a, b.trim()));
        let step = match entry.key.to_ascii_lowercase().as_str() {
            "set" => json!({ "set": { first: { "text": second } } }),
            "add" => json!({ "set": { first: { "expr": format!("has({0}) ? {0} : {1}", field(first), text(second)) } } }),
            "remove" => json!({ "remove": [first] }),
            "hard_rename" => json!({ "rename": { first: second } }),
            "rename" => {
                import.note(section, entry.line, format!("modify: rename {first} {second}: a member {second} that is there gives way"));
                json!({ "rename": { first: second } })
            }
            "hard_copy" => json!({ "set": { second: { "field": first } } }),
            "copy" => json!({ "set": { second: { "expr": format!("has({0}) ? {0} : {1}", field(second), field(first)) } } }),
            _ => continue,
        };
        steps.push(json!({ "shape": step }));
    }
    ["add", "set", "remove", "rename", "hard_rename", "copy", "hard_copy"].iter().for_each(|key| drop(keys.all(key)));
}

fn record_modifier(keys: &mut Keys, steps: &mut Vec<Value>, import: &mut Import) {
    let mut shape = Map::new();
    let kept: Vec<String> =
        ["allowlist_key", "whitelist_key"].iter().flat_map(|key| keys.all(key)).map(|(key, _)| key.to_string()).collect();
    let removed: Vec<String> = keys.all("remove_key").into_iter().map(|(key, _)| key.to_string()).collect();
    if !kept.is_empty() {
        shape.insert("keep".into(), json!(kept));
    }
    if !removed.is_empty() {
        shape.insert("remove".into(), json!(removed));
    }
    if !shape.is_empty() {
        steps.push(json!({ "shape": shape }));
    }
    let set: Map<String, Value> = keys
        .all("record")
        .into_iter()
        .filter_map(|(record, _)| record.split_once(' '))
        .map(|(key, value)| (key.to_string(), json!({ "text": value.trim() })))
        .collect();
    if !set.is_empty() {
        steps.push(json!({ "shape": { "set": set } }));
    }
    if let Some((key, line)) = keys.take("uuid_key") {
        import.missing(
            keys.section,
            line,
            format!("record_modifier: uuid_key {key}: no equivalent; a record is named by stream and position"),
        );
    }
}

fn throttle(keys: &mut Keys, steps: &mut Vec<Value>, import: &mut Import) {
    let section = keys.section;
    let rate = keys.take("rate").and_then(|(rate, _)| rate.parse::<u64>().ok()).unwrap_or(1);
    let window = keys.take("window").and_then(|(window, _)| window.parse::<u32>().ok()).unwrap_or(5);
    let interval = keys.take("interval").map_or("1s", |(interval, _)| interval);
    let limit = match interval {
        "1s" | "1" => "records_per_second",
        "1m" | "60s" => "records_per_minute",
        "1h" | "60m" => "records_per_hour",
        _ => {
            import.missing(
                section,
                section.line,
                format!("throttle: interval {interval}: quotas are by second, minute, hour, day or month"),
            );
            "records_per_second"
        }
    };
    if keys.take("print_status").is_some_and(|(value, _)| is_on(value)) {
        import.note(section, section.line, "throttle: print_status: `weir ledger` says what was dropped");
    }
    import.note(section, section.line, "throttle: each tenant has its own quota, and what is dropped is counted and billed");
    steps.push(json!({ "quota": { limit: rate, "burst": window.saturating_sub(1) } }));
}
