//! Bodies of `POST /api/v1/usage`: CloudEvents 1.0 that say what somebody used, each of which becomes one record.
//!
//! In: one event (`application/cloudevents+json`), many (`application/cloudevents-batch+json`), or its data alone with the
//! attributes in `ce-` headers. Out: a line for each event. Data with a `meter` is usage in weir's own words
//! (`schemas/usage-event.schema.json`): its members stand in the record side by side with `source`, `id`, `time`, `type` and
//! `tenant`, as a meter with `usage: events` reads them. Any other event stays as it is, with its `data` within, for meters
//! that the pipeline names. One mistake refuses the request and nothing of it is taken, so it can be sent again when it is put
//! right; the answer lists mistakes by place, the first [`MISTAKES_MAX`] of them. An event that comes again is a record again,
//! with the same (source, id): rating counts it once.

use super::lines::{Bad, Lines, put_text};
use hyper::HeaderMap;
use serde_json::{Map, Value};

const MISTAKES_MAX: usize = 20;
/// Longest `id`, `source`, `type`, `subject`, name and value, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Most dimensions of one event.
const DIMS_MAX: usize = 32;

/// What is not a dimension.
const OWN: [&str; 12] = ["specversion", "id", "source", "type", "subject", "time", "tenant", "meter", "quantity", "unit", "start", "end"];

pub fn events(kind: &str, headers: &HeaderMap, body: &[u8], lines: &mut Lines) -> Result<(), Bad> {
    let value = |body: &[u8]| serde_json::from_slice::<Value>(body).map_err(|error| Bad::new(400, format!("the body is no JSON: {error}")));
    let events = match kind {
        "application/cloudevents-batch+json" => match value(body)? {
            Value::Array(events) => events,
            _ => return Err(Bad::new(400, "a batch is an array of events")),
        },
        "application/cloudevents+json" => vec![value(body)?],
        _ if headers.contains_key("ce-specversion") => vec![binary(kind, headers, value(body)?)?],
        // Not what the standard says, and what people try first.
        "" | "application/json" => match value(body)? {
            Value::Array(events) => events,
            event => vec![event],
        },
        other => {
            let shown: String = other.chars().take(100).collect();
            return Err(Bad::new(
                415,
                format!("{shown:?} holds no events; send application/cloudevents+json or application/cloudevents-batch+json"),
            ));
        }
    };
    let mut mistakes: Vec<String> = Vec::new();
    let mut wrong = 0;
    for (n, event) in events.iter().enumerate() {
        match put_event(event, lines) {
            Ok(()) => lines.end()?,
            Err(what) => {
                wrong += 1;
                let id = event.get("id").and_then(Value::as_str).map_or(String::new(), |id| format!(" ({:?})", cut(id)));
                if mistakes.len() < MISTAKES_MAX {
                    mistakes.push(format!("event {n}{id}: {what}"));
                }
            }
        }
    }
    if wrong > 0 {
        let more = if wrong > mistakes.len() { format!("; and {} more", wrong - mistakes.len()) } else { String::new() };
        return Err(Bad::new(
            400,
            format!("nothing is taken, {wrong} of {} events are wrong: {}{more}", events.len(), mistakes.join("; ")),
        ));
    }
    Ok(())
}

/// An event whose attributes are headers, and whose data is the body.
fn binary(kind: &str, headers: &HeaderMap, data: Value) -> Result<Value, Bad> {
    if !kind.is_empty() && kind != "application/json" && !kind.ends_with("+json") {
        return Err(Bad::new(415, "the data of an event is JSON; send it as application/json"));
    }
    let mut event = Map::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let text = percent_decoded(value.as_bytes()).ok_or_else(|| Bad::new(400, format!("the header ce-{name} is no text of UTF-8")))?;
        event.insert(name.to_owned(), Value::String(text));
    }
    event.insert("data".into(), data);
    Ok(Value::Object(event))
}

fn percent_decoded(value: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(u8::from_str_radix(std::str::from_utf8(&[*high, *low]).ok()?, 16).ok()?);
                rest = tail;
            }
            _ => out.push(*first),
        }
    }
    String::from_utf8(out).ok()
}

/// Writes an event as a line, without its end; nothing where it is wrong.
fn put_event(event: &Value, lines: &mut Lines) -> Result<(), String> {
    let Value::Object(event) = event else { return Err("is no object".into()) };
    if event.get("specversion").and_then(Value::as_str) != Some("1.0") {
        return Err("specversion is not \"1.0\"".into());
    }
    for name in ["id", "source", "type"] {
        match event.get(name) {
            Some(Value::String(text)) => check_text(name, text)?,
            Some(_) => return Err(format!("{name} is no text")),
            None => return Err(format!("{name} is missing")),
        }
    }
    for name in ["subject", "time", "datacontenttype"] {
        match event.get(name) {
            None => {}
            Some(Value::String(text)) => check_text(name, text)?,
            Some(_) => return Err(format!("{name} is no text")),
        }
    }
    if let Some(time) = event.get("time").and_then(Value::as_str) {
        check_time("time", time)?;
    }
    if event.get("datacontenttype").and_then(Value::as_str).is_some_and(|kind| !kind.ends_with("json")) || event.contains_key("data_base64")
    {
        return Err("its data is not JSON".into());
    }
    match event.get("data") {
        Some(Value::Object(data)) if data.contains_key("meter") => put_usage(event, data, lines),
        Some(Value::Object(_)) => {
            put_value(&Value::Object(event.clone()), &mut lines.bytes);
            Ok(())
        }
        Some(_) => Err("data is no object".into()),
        None => Err("data is missing".into()),
    }
}

fn put_usage(event: &Map<String, Value>, data: &Map<String, Value>, lines: &mut Lines) -> Result<(), String> {
    for (name, value) in data {
        match (name.as_str(), value) {
            ("meter" | "unit", Value::String(text)) | ("tenant", Value::String(text)) => check_text(name, text)?,
            ("meter" | "unit" | "tenant", _) => return Err(format!("data.{name} is no text")),
            ("quantity", value) => drop(quantity(value)?),
            ("start" | "end", Value::String(text)) => check_time(name, text)?,
            ("start" | "end", _) => return Err(format!("data.{name} is no time; write RFC 3339, as in 2026-11-23T09:50:00Z")),
            ("dims", Value::Object(dims)) => check_dims(dims)?,
            ("dims", _) => return Err("data.dims is no object".into()),
            (other, _) => {
                return Err(format!("data.{:?} is not known; data has meter, quantity, unit, tenant, start, end and dims", cut(other)));
            }
        }
    }
    if data.contains_key("start") != data.contains_key("end") {
        return Err("data has one of start and end; an interval has both".into());
    }
    let amount = match data.get("quantity") {
        Some(value) => quantity(value)?,
        None if data.contains_key("start") => "1".into(),
        None => return Err("data.quantity is missing".into()),
    };
    let unit = data.get("unit").and_then(Value::as_str).ok_or("data.unit is missing")?;
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let tenant = data.get("tenant").and_then(Value::as_str).or_else(|| text("subject"));
    let out = &mut lines.bytes;
    out.push(b'{');
    let members = [("time", text("time")), ("source", text("source")), ("id", text("id")), ("type", text("type")), ("tenant", tenant)];
    for (name, value) in members.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        put_text(name.as_bytes(), out);
        out.push(b':');
        put_text(value.as_bytes(), out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"meter\":");
    put_value(&data["meter"], out);
    out.extend_from_slice(b",\"quantity\":");
    out.extend_from_slice(amount.as_bytes());
    out.extend_from_slice(b",\"unit\":");
    put_text(unit.as_bytes(), out);
    for name in ["start", "end"] {
        if let Some(time) = data.get(name) {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            put_value(time, out);
        }
    }
    for (name, value) in data.get("dims").and_then(Value::as_object).into_iter().flatten() {
        out.push(b',');
        put_text(name.as_bytes(), out);
        out.push(b':');
        put_value(value, out);
    }
    out.push(b'}');
    Ok(())
}

/// The digits of a whole number from 0 to 2^63 - 1: a number, or text for readers whose numbers are floats.
fn quantity(value: &Value) -> Result<String, String> {
    let digits = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err("data.quantity is no number".into()),
    };
    let is_whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<i64>() {
        Ok(whole) if is_whole => Ok(whole.to_string()),
        _ => Err(format!(
            "data.quantity is {}; a quantity is a whole number from 0 to 9223372036854775807, of the smallest unit",
            cut(&digits)
        )),
    }
}

fn check_dims(dims: &Map<String, Value>) -> Result<(), String> {
    if dims.len() > DIMS_MAX {
        return Err(format!("data.dims has {} members, {DIMS_MAX} are possible", dims.len()));
    }
    for (name, value) in dims {
        check_text("a name in data.dims", name)?;
        if OWN.contains(&name.as_str()) {
            return Err(format!("data.dims.{name} has a name of the event itself"));
        }
        match value {
            Value::String(text) if text.len() <= TEXT_BYTES_MAX => {}
            Value::Number(_) | Value::Bool(_) => {}
            Value::String(_) => return Err(format!("data.dims.{} is longer than {TEXT_BYTES_MAX} bytes", cut(name))),
            _ => return Err(format!("data.dims.{} is no text, number or bool", cut(name))),
        }
    }
    Ok(())
}

fn check_text(name: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("{name} is not of 1 to {TEXT_BYTES_MAX} bytes without control characters"));
    }
    Ok(())
}

fn check_time(name: &str, text: &str) -> Result<(), String> {
    match flow::time::TimeParser::new().parse(text.as_bytes(), flow::fields::Kind::Text) {
        Some(_) => Ok(()),
        None => Err(format!("{name} is {:?}, no time; write RFC 3339, as in 2026-11-23T09:50:00Z", cut(text))),
    }
}

fn put_value(value: &Value, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a Vec takes every write");
}

/// The beginning of a text of others, for a message.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    const BATCH: &str = "application/cloudevents-batch+json";
    const ONE: &str = "application/cloudevents+json";

    fn read(kind: &str, headers: &[(&str, &str)], body: &str) -> Result<String, Bad> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let mut lines = Lines::new(100_000);
        events(kind, &map, body.as_bytes(), &mut lines).map(|()| String::from_utf8(lines.bytes).unwrap())
    }

    #[track_caller]
    fn check(kind: &str, headers: &[(&str, &str)], body: &str, want: Expect) {
        let text = read(kind, headers, body).unwrap_or_else(|bad| format!("{} {}", bad.status, bad.message));
        want.assert_eq(&text);
    }

    /// An event with this data.
    fn event(id: &str, data: &str) -> String {
        let head = r#""specversion":"1.0","source":"chat","type":"weir.usage.v1","subject":"acme","time":"2026-11-23T09:00:00Z""#;
        format!(r#"{{{head},"id":"{id}","data":{data}}}"#)
    }

    #[test]
    fn usage_stands_in_the_record_side_by_side() {
        let data = r#"{"meter":"tokens_out","quantity":345,"unit":"Tokens","dims":{"service":"chat","model":"o\"rca","n":2}}"#;
        check(
            ONE,
            &[],
            &event("r1/out", data),
            expect![[r#"
                {"time":"2026-11-23T09:00:00Z","source":"chat","id":"r1/out","type":"weir.usage.v1","tenant":"acme","meter":"tokens_out","quantity":345,"unit":"Tokens","model":"o\"rca","n":2,"service":"chat"}
            "#]],
        );
        let held = r#"{"meter":"gpu","unit":"GPUs","tenant":"b","start":"2026-11-23T09:50:00Z","end":"2026-11-23T10:20:30Z"}"#;
        check(
            BATCH,
            &[],
            &format!("[{},{}]", event("a", held), event("b", r#"{"meter":"m","quantity":"9223372036854775807","unit":"Tokens"}"#)),
            expect![[r#"
                {"time":"2026-11-23T09:00:00Z","source":"chat","id":"a","type":"weir.usage.v1","tenant":"b","meter":"gpu","quantity":1,"unit":"GPUs","start":"2026-11-23T09:50:00Z","end":"2026-11-23T10:20:30Z"}
                {"time":"2026-11-23T09:00:00Z","source":"chat","id":"b","type":"weir.usage.v1","tenant":"acme","meter":"m","quantity":9223372036854775807,"unit":"Tokens"}
            "#]],
        );
    }

    #[test]
    fn other_events_stay_as_they_are() {
        check(
            ONE,
            &[],
            &event("r1", r#"{"tokens": 5}"#),
            expect![[r#"
                {"data":{"tokens":5},"id":"r1","source":"chat","specversion":"1.0","subject":"acme","time":"2026-11-23T09:00:00Z","type":"weir.usage.v1"}
            "#]],
        );
    }

    #[test]
    fn attributes_can_be_headers() {
        let headers = [("ce-specversion", "1.0"), ("ce-id", "r%20%C3%BC"), ("ce-source", "chat"), ("ce-type", "t"), ("ce-subject", "acme")];
        let body = r#"{"meter":"m","quantity":1,"unit":"Tokens"}"#;
        check(
            "application/json",
            &headers,
            body,
            expect![[r#"
                {"source":"chat","id":"r ü","type":"t","tenant":"acme","meter":"m","quantity":1,"unit":"Tokens"}
            "#]],
        );
        check("text/plain", &headers, body, expect!["415 the data of an event is JSON; send it as application/json"]);
        check(
            "application/json",
            &headers[..2],
            body,
            expect![[r#"400 nothing is taken, 1 of 1 events are wrong: event 0 ("r ü"): source is missing"#]],
        );
    }

    #[test]
    fn one_mistake_refuses_all_and_each_is_told() {
        let quantity = |n: &str| event("q", &format!(r#"{{"meter":"m","quantity":{n},"unit":"Tokens"}}"#));
        let body = ["1", "-1", "1.5", "9223372036854775808", "\"x\"", "1e3", "null"].map(quantity).join(",");
        check(
            BATCH,
            &[],
            &format!("[{body}]"),
            expect![[
                r#"400 nothing is taken, 6 of 7 events are wrong: event 1 ("q"): data.quantity is -1; a quantity is a whole number from 0 to 9223372036854775807, of the smallest unit; event 2 ("q"): data.quantity is 1.5; a quantity is a whole number from 0 to 9223372036854775807, of the smallest unit; event 3 ("q"): data.quantity is 9223372036854775808; a quantity is a whole number from 0 to 9223372036854775807, of the smallest unit; event 4 ("q"): data.quantity is x; a quantity is a whole number from 0 to 9223372036854775807, of the smallest unit; event 5 ("q"): data.quantity is 1000.0; a quantity is a whole number from 0 to 9223372036854775807, of the smallest unit; event 6 ("q"): data.quantity is no number"#
            ]],
        );
        for (what, want) in [
            (r#"{"meter":"m","quantity":1}"#, "data.unit is missing"),
            (r#"{"meter":"m","unit":"T"}"#, "data.quantity is missing"),
            (r#"{"meter":"","quantity":1,"unit":"T"}"#, "meter is not of 1 to"),
            (r#"{"meter":"m","quantity":1,"unit":"T","amount":3}"#, "\"amount\" is not known"),
            (r#"{"meter":"m","quantity":1,"unit":"T","dims":{"id":"x"}}"#, "name of the event itself"),
            (r#"{"meter":"m","quantity":1,"unit":"T","dims":{"a":{}}}"#, "no text, number or bool"),
            (r#"{"meter":"m","unit":"T","start":"2026-11-23T09:50:00Z"}"#, "has one of start and end"),
            (r#"{"meter":"m","unit":"T","start":"yesterday","end":"2026-11-23T09:50:00Z"}"#, "no time"),
            ("7", "data is no object"),
        ] {
            let bad = read(ONE, &[], &event("x", what)).unwrap_err();
            assert!(bad.status == 400 && bad.message.contains(want), "{what}: {}", bad.message);
        }
        assert_eq!(read(BATCH, &[], "{}").unwrap_err().status, 400);
        assert_eq!(read("text/plain", &[], "{}").unwrap_err().status, 415);
        assert!(read(ONE, &[], "{\"specversion\":\"0.3\"}").unwrap_err().message.contains("specversion"));
        let many = format!("[{}]", vec!["1"; 50].join(","));
        assert!(read(BATCH, &[], &many).unwrap_err().message.ends_with("; and 30 more"));
    }

    proptest! {
        #[test]
        fn no_body_stops_the_program(body in "[\\[\\]{}\":,\\\\a1 ]{0,60}") {
            for kind in [ONE, BATCH, ""] {
                let _ = read(kind, &[], &body);
            }
        }
    }
}
