//! The manual, made from doc comments: JSON Schemas and a reference page.
//!
//! In: the config structs; out: the texts committed under `schemas/`, which `UPDATE_EXPECT=1 cargo test schemas` renews.

use super::model::Config;
use schemars::schema_for;
use serde_json::Value;
use std::fmt::Write as _;

/// JSON Schema of a pipeline file.
pub fn schema_config() -> Value {
    schema_for!(Config).to_value()
}

/// JSON Schema of a rate card.
pub fn schema_rate_card() -> Value {
    schema_for!(bill::CardConfig).to_value()
}

/// Every key of a pipeline file and of a rate card, for people.
pub fn reference_page() -> String {
    let mut out = String::from(
        "# Reference\n\nMade from the doc comments of the code; `UPDATE_EXPECT=1 cargo test schemas` renews it. `<name>` is yours to choose.\n",
    );
    let config = schema_config();
    Page { root: &config, out: &mut out }.object("Pipeline file", "", &config);
    let card = schema_rate_card();
    Page { root: &card, out: &mut out }.object("Rate card", "", &card);
    out
}

struct Page<'a> {
    root: &'a Value,
    out: &'a mut String,
}

/// One section to come: its path, and the schema it explains.
type Section = (String, Value);

impl Page<'_> {
    /// Writes the section of one map with keys, then those of what lies below.
    fn object(&mut self, title: &str, path: &str, schema: &Value) {
        let _ = writeln!(self.out, "\n{} {title}\n", if path.is_empty() { "##" } else { "###" });
        if let Some(text) = self.description(schema) {
            let _ = writeln!(self.out, "{text}\n");
        }
        let mut below = Vec::new();
        let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object();
        if properties.is_none_or(|properties| properties.is_empty()) {
            let _ = writeln!(self.out, "No keys.");
            return;
        }
        let _ = writeln!(self.out, "| key | type | default | meaning |\n|---|---|---|---|");
        let mut keys: Vec<_> = properties.into_iter().flatten().collect();
        keys.sort_by_key(|(key, _)| !required.contains(&key.as_str()));
        for (key, value) in keys {
            let default = match &value["default"] {
                _ if required.contains(&key.as_str()) => "**needed**".to_string(),
                Value::Null => String::new(),
                Value::String(text) => format!("`{text}`"),
                Value::Object(_) => "as below".to_string(),
                other => format!("`{other}`"),
            };
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let kind = self.kind(&at, value, &mut below);
            let text = self.description(value).unwrap_or_default();
            let _ = writeln!(self.out, "| `{key}` | {} | {} | {} |", cell(&kind), cell(&default), cell(&text));
        }
        for (path, schema) in below {
            self.section(&path, &schema);
        }
    }

    fn section(&mut self, path: &str, schema: &Value) {
        if schema["properties"].is_object() || schema["oneOf"].is_null() {
            return self.object(&format!("`{path}`"), path, schema);
        }
        let _ = writeln!(self.out, "\n### `{path}`\n");
        if let Some(text) = self.description(schema) {
            let _ = writeln!(self.out, "{text}\n");
        }
        let _ = writeln!(self.out, "One of:\n");
        let mut below = Vec::new();
        for choice in schema["oneOf"].as_array().into_iter().flatten() {
            let text = self.description(choice).unwrap_or_default();
            let words =
                choice["const"].as_str().into_iter().chain(choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str));
            for word in words {
                let _ = writeln!(self.out, "- `{word}`: {text}");
            }
            let Some(properties) = choice["properties"].as_object() else { continue };
            let names: Vec<&str> = properties.keys().map(String::as_str).collect();
            let is_component = names.len() == 1 && !properties[names[0]]["$ref"].is_null();
            if is_component {
                let _ = writeln!(self.out, "- `{}: {{ ... }}`: {text}", names[0]);
                below.push((format!("{path}.{}", names[0]), self.resolve(&properties[names[0]]).clone()));
            } else {
                let _ = writeln!(self.out, "- `{{ {} }}`: {text}", names.join(", "));
                for (key, value) in properties {
                    let text = self.description(value).unwrap_or_default();
                    let default =
                        if value["default"].is_null() { String::new() } else { format!(" Default: `{}`.", plain(&value["default"])) };
                    let _ = writeln!(self.out, "  - `{key}`: {text}{default}");
                }
            }
        }
        for (path, schema) in below {
            self.section(&path, &schema);
        }
    }

    /// Type of a value in words. What needs a section of its own is added to `below`, once.
    fn kind(&self, path: &str, value: &Value, below: &mut Vec<Section>) -> String {
        let target = self.resolve(value);
        if let Some(choices) = target["anyOf"].as_array() {
            let given = choices.iter().find(|choice| choice["type"] != "null");
            return given.map_or_else(String::new, |given| self.kind(path, given, below));
        }
        if let Some(choices) = target["oneOf"].as_array() {
            let words: Vec<&str> = choices.iter().filter_map(|choice| choice["const"].as_str()).collect();
            below.push((path.to_string(), target.clone()));
            return if words.len() == choices.len() {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
            } else {
                "choice".into()
            };
        }
        if target["properties"].is_object() {
            below.push((path.to_string(), target.clone()));
            return "map".into();
        }
        if target["additionalProperties"].is_object() {
            let inner = self.kind(&format!("{path}.<name>"), &target["additionalProperties"], below);
            return format!("map of {inner} by name");
        }
        if target["items"].is_object() {
            return format!("list of {}", self.kind(&format!("{path}[]"), &target["items"], below));
        }
        let name = value["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        match (name, kind_name(&target["type"])) {
            (Some("ByteSize"), _) => "size".into(),
            (Some("Span"), _) => "duration".into(),
            (Some("Ratio"), _) => "ratio".into(),
            (_, Some("string")) => "text".into(),
            (_, Some("integer")) => "whole number".into(),
            (_, Some(name)) => name.to_string(),
            (_, None) if target["additionalProperties"] == false => {
                below.push((path.to_string(), target.clone()));
                "map".into()
            }
            (_, None) => "any".into(),
        }
    }

    fn resolve<'b>(&'b self, value: &'b Value) -> &'b Value {
        let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        reference.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(value)
    }

    /// The nearest description: what stands at the key tells more than what stands at its type.
    fn description(&self, value: &Value) -> Option<String> {
        value["description"]
            .as_str()
            .or_else(|| self.resolve(value)["description"].as_str())
            .map(|text| text.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n"))
    }
}

fn kind_name(kind: &Value) -> Option<&str> {
    match kind {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Text that stays inside its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect_file;

    fn pretty(value: &Value) -> String {
        format!("{}\n", serde_json::to_string_pretty(value).expect("a schema is JSON"))
    }

    #[test]
    fn committed_schemas_are_those_of_the_code() {
        expect_file!["../../schemas/config.schema.json"].assert_eq(&pretty(&schema_config()));
        expect_file!["../../schemas/rate-card.schema.json"].assert_eq(&pretty(&schema_rate_card()));
        expect_file!["../../schemas/reference/config.md"].assert_eq(&reference_page());
    }

    #[test]
    fn every_key_is_explained() {
        for schema in [schema_config(), schema_rate_card()] {
            let mut stack = vec![(String::new(), &schema)];
            let root = &schema;
            while let Some((path, value)) = stack.pop() {
                for (key, property) in value["properties"].as_object().into_iter().flatten() {
                    let page = Page { root, out: &mut String::new() };
                    // A choice with keys of its own is explained as a whole.
                    let is_choice = value["required"] == serde_json::json!([key]) && value["description"].is_string();
                    assert!(is_choice || page.description(property).is_some(), "{path}.{key} has no doc comment");
                }
                match value {
                    Value::Object(map) => stack.extend(map.iter().map(|(key, value)| (format!("{path}.{key}"), value))),
                    Value::Array(items) => stack.extend(items.iter().map(|value| (path.clone(), value))),
                    _ => {}
                }
            }
        }
    }
}
