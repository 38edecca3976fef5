//! A pipeline as it is written into a file: YAML in block style, made from a JSON value.
//!
//! Texts stand in double quotes wherever YAML could read them as something else; `$` is doubled, as a pipeline file reads `${NAME}`
//! as a variable. What comes out reads back as the same value.

use serde_json::Value;

/// Keys of a pipeline in the order in which people read them; others come after, by name.
const ORDER: [&str; 19] = [
    "name",
    "data",
    "parser_files",
    "parsers",
    "sources",
    "tenancy",
    "fields",
    "steps",
    "hub",
    "sinks",
    "format",
    "time",
    "types",
    "include",
    "exclude",
    "parse",
    "with",
    "from",
    "pattern",
];

fn in_order(members: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(name, _)| place(name));
    members
}

/// The value as YAML, of which each line is indented by `indent` blanks.
pub fn to_yaml(value: &Value, indent: usize) -> String {
    let mut out = String::new();
    block(value, indent, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(members) => {
            for (name, value) in in_order(members) {
                out.push_str(&format!("{pad}{}:", text(name)));
                behind(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                block(item, indent + 2, &mut inner);
                let inner = inner.strip_prefix(&" ".repeat(indent + 2)).map(String::from).unwrap_or(inner);
                out.push_str(&format!("{pad}- {inner}"));
            }
        }
        scalar => out.push_str(&format!("{pad}{}\n", flow(scalar))),
    }
}

/// A value behind its key.
fn behind(value: &Value, indent: usize, out: &mut String) {
    let is_block = match value {
        Value::Object(members) => !members.is_empty() && flow(value).len() > 100,
        Value::Array(items) => !items.is_empty() && (flow(value).len() > 100 || items.iter().any(Value::is_object)),
        _ => false,
    };
    if is_block || value.as_object().is_some_and(|members| members.values().any(|value| value.is_object() || value.is_array())) {
        out.push('\n');
        block(value, indent + 2, out);
    } else {
        out.push_str(&format!(" {}\n", flow(value)));
    }
}

/// On one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(own) => text(own),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(members) if members.is_empty() => "{}".into(),
        Value::Object(members) => {
            let members: Vec<String> =
                in_order(members).into_iter().map(|(name, value)| format!("{}: {}", text(name), flow(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text, in quotes unless it is a plain word.
fn text(own: &str) -> String {
    let is_word = own.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && own.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'));
    let is_taken = matches!(own.to_ascii_lowercase().as_str(), "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n");
    if is_word && !is_taken {
        return own.to_string();
    }
    Value::String(own.replace('$', "$$")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_well() {
        let value = json!({
            "sources": { "tail": { "file": { "include": ["/var/log/*.log"], "format": "text", "parse": [{ "with": ["nginx"] }] } } },
            "parsers": { "p": { "format": { "regex": "^(?<a>\\d+)$" } } },
            "steps": [{ "drop": { "when": "a == \"no\"" } }, { "shape": { "remove": ["x"] } }],
            "on": "yes",
        });
        expect_test::expect![[r#"
            parsers:
              p:
                format: { regex: "^(?<a>\\d+)$$" }
            sources:
              tail:
                file:
                  format: text
                  include: ["/var/log/*.log"]
                  parse:
                    - with: [nginx]
            steps:
              - drop: { when: "a == \"no\"" }
              - shape:
                  remove: [x]
            "on": "yes"
        "#]]
        .assert_eq(&to_yaml(&value, 0));
    }
}
