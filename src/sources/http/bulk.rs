//! Bodies of Elasticsearch's `_bulk`: pairs of lines, an action and a document; each item has an answer of its own.
//!
//! In: the body, decompressed. Out: the documents as lines, and per item whether it is taken. A document that is no JSON object, or
//! too long, is refused alone, and so are updates and deletions, as weir appends only. Where the actions themselves cannot be told
//! apart, the body is refused as a whole, with the line. Ids are answered, not remembered: a document sent twice is two records.

use super::lines::{Bad, Check, Lines, put_text};
use serde::Deserialize;

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub action: &'static str,
    pub index: String,
    pub id: Option<String>,
    /// Its type and reason; none: it is taken.
    pub error: Option<(&'static str, String)>,
}

pub struct Rules<'a> {
    /// The index of the path, where an action names none.
    pub index: &'a str,
    /// Put the name of the index into this field.
    pub index_field: Option<&'a str>,
    pub line_bytes_max: usize,
}

#[derive(Deserialize)]
struct Action {
    index: Option<Meta>,
    create: Option<Meta>,
    update: Option<Meta>,
    delete: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "_index")]
    index: Option<String>,
    #[serde(rename = "_id")]
    id: Option<serde_json::Value>,
}

pub fn bulk(body: &[u8], rules: &Rules, lines: &mut Lines) -> Result<Vec<Item>, Bad> {
    let mut items = Vec::new();
    let mut check = Check::default();
    lines.bytes.reserve(body.len());
    let mut rest = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).enumerate();
    while let Some((n, line)) = rest.next() {
        if line.is_empty() {
            continue;
        }
        let mut item = action(line, rules.index).map_err(|what| Bad::new(400, format!("line {}: {what}", n + 1)))?;
        if item.action == "delete" {
            item.error = Some(("illegal_argument_exception", "weir appends; it deletes nothing".into()));
            items.push(item);
            continue;
        }
        let document = rest.next().map(|(_, document)| document).filter(|document| !document.is_empty());
        let Some(document) = document else {
            return Err(Bad::new(400, format!("line {}: the document of this action is missing", n + 1)));
        };
        item.error = match check.object(document) {
            _ if item.action == "update" => Some(("illegal_argument_exception", "weir appends; it updates nothing".into())),
            _ if document.len() > rules.line_bytes_max => {
                Some(("illegal_argument_exception", format!("line {}: the document is longer than {} bytes", n + 2, rules.line_bytes_max)))
            }
            Ok(()) => None,
            Err(what) => Some(("document_parsing_exception", format!("line {}: the document {what}", n + 2))),
        };
        if item.error.is_none() {
            put_document(document, rules.index_field, &item.index, &mut lines.bytes);
            lines.end()?;
        }
        items.push(item);
        if items.len() as u64 > super::lines::RECORDS_MAX {
            return Err(Bad::new(413, format!("more than {} items; send less at once", super::lines::RECORDS_MAX)));
        }
    }
    Ok(items)
}

fn action(line: &[u8], index: &str) -> Result<Item, String> {
    let action: Action = serde_json::from_slice(line).map_err(|error| format!("this is no action of a bulk request: {error}"))?;
    let named = [("index", action.index), ("create", action.create), ("update", action.update), ("delete", action.delete)];
    let mut named = named.into_iter().filter_map(|(name, meta)| Some((name, meta?)));
    let (Some((action, meta)), None) = (named.next(), named.next()) else {
        return Err("an action is one of index, create, update and delete".into());
    };
    let id = meta.id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_string));
    Ok(Item { action, index: meta.index.unwrap_or_else(|| index.to_string()), id, error: None })
}

/// The document as it came, with the name of its index in front where that is asked for and not there.
fn put_document(document: &[u8], field: Option<&str>, index: &str, out: &mut Vec<u8>) {
    let mut key = Vec::new();
    if let Some(field) = field {
        put_text(field.as_bytes(), &mut key);
    }
    if key.is_empty() || memchr::memmem::find(document, &key).is_some() {
        out.extend_from_slice(document);
        return;
    }
    out.push(b'{');
    out.extend_from_slice(&key);
    out.push(b':');
    put_text(index.as_bytes(), out);
    let rest = document[1..].trim_ascii_start();
    if rest != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(rest);
}

/// The answer to a bulk request. `name`: tells documents without an id apart.
pub fn answer(items: &[Item], took_ms: u128, name: &str) -> Vec<u8> {
    let errors = items.iter().any(|item| item.error.is_some());
    let mut out = format!("{{\"took\":{took_ms},\"errors\":{errors},\"items\":[").into_bytes();
    for (n, item) in items.iter().enumerate() {
        out.extend_from_slice(if n == 0 { b"{\"" } else { b",{\"" });
        out.extend_from_slice(item.action.as_bytes());
        out.extend_from_slice(b"\":{\"_index\":");
        put_text(item.index.as_bytes(), &mut out);
        out.extend_from_slice(b",\"_id\":");
        match &item.id {
            Some(id) => put_text(id.as_bytes(), &mut out),
            None => out.extend_from_slice(format!("\"{name}-{n}\"").as_bytes()),
        }
        match &item.error {
            None => out.extend_from_slice(b",\"_version\":1,\"result\":\"created\",\"status\":201}}"),
            Some((kind, reason)) => {
                out.extend_from_slice(format!(",\"status\":400,\"error\":{{\"type\":\"{kind}\",\"reason\":").as_bytes());
                put_text(reason.as_bytes(), &mut out);
                out.extend_from_slice(b"}}}");
            }
        }
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(index_field: Option<&str>, body: &str, want: Expect) {
        let mut lines = Lines::new(10_000);
        let rules = Rules { index: "logs", index_field, line_bytes_max: 40 };
        let text = match bulk(body.as_bytes(), &rules, &mut lines) {
            Ok(items) => String::from_utf8([lines.bytes, answer(&items, 0, "x")].concat()).unwrap(),
            Err(bad) => format!("{} {}", bad.status, bad.message),
        };
        want.assert_eq(&text);
    }

    #[test]
    fn each_item_has_its_own_answer() {
        let bad = "{\"index\":{\"_id\":7}}\n{\"a\":}\n";
        let long = format!("{{\"create\":{{}}}}\n{{\"a\":\"{}\"}}\n", "x".repeat(40));
        let body = format!(
            "{{\"create\":{{\"_index\":\"i\",\"_id\":\"k\"}}}}\n{{\"a\":1}}\n{bad}{{\"delete\":{{}}}}\n{{\"update\":{{}}}}\n{{}}\n\n{long}{{\"index\":{{}}}}\r\n{{ }}"
        );
        check(
            Some("_index"),
            &body,
            expect![[r#"
            {"_index":"i","a":1}
            {"_index":"logs"}
            {"took":0,"errors":true,"items":[{"create":{"_index":"i","_id":"k","_version":1,"result":"created","status":201}},{"index":{"_index":"logs","_id":"7","status":400,"error":{"type":"document_parsing_exception","reason":"line 4: the document is no JSON object"}}},{"delete":{"_index":"logs","_id":"x-2","status":400,"error":{"type":"illegal_argument_exception","reason":"weir appends; it deletes nothing"}}},{"update":{"_index":"logs","_id":"x-3","status":400,"error":{"type":"illegal_argument_exception","reason":"weir appends; it updates nothing"}}},{"create":{"_index":"logs","_id":"x-4","status":400,"error":{"type":"illegal_argument_exception","reason":"line 10: the document is longer than 40 bytes"}}},{"index":{"_index":"logs","_id":"x-5","_version":1,"result":"created","status":201}}]}"#]],
        );
    }

    #[test]
    fn documents_leave_as_they_came_unless_asked_for() {
        check(
            None,
            "{\"index\":{}}\n{ \"a\" : 1 }\n",
            expect![[r#"
            { "a" : 1 }
            {"took":0,"errors":false,"items":[{"index":{"_index":"logs","_id":"x-0","_version":1,"result":"created","status":201}}]}"#]],
        );
        check(
            Some("_index"),
            "{\"index\":{}}\n{\"_index\":\"own\"}\n",
            expect![[r#"
            {"_index":"own"}
            {"took":0,"errors":false,"items":[{"index":{"_index":"logs","_id":"x-0","_version":1,"result":"created","status":201}}]}"#]],
        );
        check(None, "", expect![[r#"{"took":0,"errors":false,"items":[]}"#]]);
    }

    #[test]
    fn a_body_whose_items_cannot_be_told_apart_is_refused() {
        check(None, "{\"index\":{}}\n", expect!["400 line 1: the document of this action is missing"]);
        check(None, "{\"index\":{}}\n{}\n{\"a\":1}\n", expect!["400 line 3: an action is one of index, create, update and delete"]);
        check(None, "nonsense\n", expect!["400 line 1: this is no action of a bulk request: expected ident at line 1 column 2"]);
    }

    proptest! {
        #[test]
        fn no_body_stops_the_program(body in "(\\{\"(index|create|delete)\":\\{\\}\\}|\\{\\}|[\\[\\]{}\":,a]|\n){0,30}") {
            let rules = Rules { index: "logs", index_field: Some("i"), line_bytes_max: 1000 };
            let mut lines = Lines::new(10_000);
            if let Ok(items) = bulk(body.as_bytes(), &rules, &mut lines) {
                prop_assert_eq!(items.iter().filter(|item| item.error.is_none()).count() as u64, lines.records);
                let answer: serde_json::Value = serde_json::from_slice(&answer(&items, 1, "x")).unwrap();
                prop_assert_eq!(answer["items"].as_array().unwrap().len(), items.len());
            }
        }
    }
}
