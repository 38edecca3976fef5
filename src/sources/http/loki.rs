//! Bodies of Loki's push: streams of labels with entries of time and line, as JSON or as protobuf.
//!
//! In: the body, decompressed. Out: one line for each entry. A line that is a JSON object stays what it is, with `ts` (unless it
//! has a time), `labels` and `metadata` (structured metadata) put in front where it has none; any other becomes
//! `{"ts":..,"message":..,"labels":{..}}`. Bound: that of [`Lines`], asked after each entry, as labels repeat in each.

use super::lines::{Bad, Lines, RECORDS_MAX, put_text};
use flow::fields::{FieldSet, Kind, Scanner, Span};
use flow::units::UnixNanos;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a line may have of its own: times first.
const OWN: [&str; 6] = ["ts", "time", "@timestamp", "timestamp", "labels", "metadata"];
const TIMES: usize = 4;

/// Writes entries as lines.
struct Writer {
    scanner: Scanner,
    spans: [Span; OWN.len()],
    line: Vec<u8>,
}

impl Writer {
    fn new() -> Writer {
        let scanner = Scanner::new(Arc::new(FieldSet::new(&OWN.map(String::from))));
        Writer { scanner, spans: Default::default(), line: Vec::new() }
    }

    /// `labels` and `metadata`: objects of JSON, or nothing.
    fn put(&mut self, time: i64, line: &[u8], labels: &[u8], metadata: &[u8], lines: &mut Lines) -> Result<(), Bad> {
        let time = UnixNanos(time).rfc3339();
        let out = &mut lines.bytes;
        let trimmed = line.trim_ascii();
        out.push(b'{');
        let is_object = trimmed.first() == Some(&b'{') && {
            self.line.clear();
            self.line.extend(trimmed.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }));
            let shape = self.scanner.scan(&self.line, &mut self.spans);
            shape.malformed.is_none() && !shape.invalid_utf8
        };
        let lacks = |spans: &[Span]| !is_object || spans.iter().all(|span| span.kind == Kind::Missing);
        let start = out.len();
        if lacks(&self.spans[..TIMES]) {
            out.extend_from_slice(b"\"ts\":\"");
            out.extend_from_slice(time.as_bytes());
            out.extend_from_slice(b"\",");
        }
        if !is_object {
            out.extend_from_slice(b"\"message\":");
            put_text(line, out);
            out.push(b',');
        }
        for (name, value, span) in [("labels", labels, TIMES), ("metadata", metadata, TIMES + 1)] {
            if !value.is_empty() && lacks(&self.spans[span..=span]) {
                out.push(b'"');
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                out.extend_from_slice(value);
                out.push(b',');
            }
        }
        let rest = if is_object { self.line[1..].trim_ascii_start() } else { b"}" };
        if rest == b"}" && out.len() > start {
            out.pop();
        }
        out.extend_from_slice(rest);
        lines.end()
    }
}

/// An object of JSON; nothing where there are no pairs.
fn object<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        out.push(if out.is_empty() { b'{' } else { b',' });
        put_text(name, &mut out);
        out.push(b':');
        put_text(value, &mut out);
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow)]
    streams: Vec<Stream<'a>>,
}

#[derive(Deserialize)]
struct Stream<'a> {
    #[serde(default)]
    stream: BTreeMap<String, String>,
    #[serde(borrow, default)]
    values: Vec<Entry<'a>>,
}

struct Entry<'a> {
    time: i64,
    line: Cow<'a, str>,
    metadata: BTreeMap<String, String>,
}

/// Borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Entry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry<'a>, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Entry<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an entry, [\"nanoseconds\", \"line\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry<'de>, A::Error> {
                let time: Text = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let time = time.0.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&time.0), &"nanoseconds as text"))?;
                let line: Text = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                let metadata = seq.next_element()?.unwrap_or_default();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entry { time, line: line.0, metadata })
            }
        }
        deserializer.deserialize_seq(Pair)
    }
}

pub fn json(body: &[u8], lines: &mut Lines) -> Result<(), Bad> {
    if memchr::memchr_iter(b'[', body).count() as u64 > RECORDS_MAX * 2 {
        return Err(Bad::new(413, format!("more than {RECORDS_MAX} entries; send less at once")));
    }
    let push: Push = serde_json::from_slice(body).map_err(|error| Bad::new(400, format!("this is no push of Loki: {error}")))?;
    let mut writer = Writer::new();
    let pairs = |map: &BTreeMap<String, String>| object(map.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    for stream in &push.streams {
        let labels = pairs(&stream.stream);
        for entry in &stream.values {
            writer.put(entry.time, entry.line.as_bytes(), &labels, &pairs(&entry.metadata), lines)?;
        }
    }
    Ok(())
}

/// logproto.PushRequest: streams (1) of labels (1, as text) and entries (2) of timestamp (1: seconds 1, nanos 2), line (2) and
/// structured metadata (3, pairs of name 1 and value 2). Other fields are passed over.
pub fn protobuf(body: &[u8], lines: &mut Lines) -> Result<(), Bad> {
    let mut writer = Writer::new();
    for field in Fields(body) {
        let (1, Value::Bytes(stream)) = field.map_err(torn)? else { continue };
        let mut labels = Vec::new();
        for field in Fields(stream) {
            if let (1, Value::Bytes(text)) = field.map_err(torn)? {
                let pairs = parse_labels(text).ok_or_else(|| {
                    let shown: String = String::from_utf8_lossy(text).chars().take(80).collect();
                    Bad::new(400, format!("the labels {shown:?} cannot be read; they are of the form {{name=\"value\"}}"))
                })?;
                labels = object(pairs.iter().map(|(name, value)| (*name, value.as_slice())));
            }
        }
        for field in Fields(stream) {
            let (2, Value::Bytes(entry)) = field.map_err(torn)? else { continue };
            let (mut time, mut line, mut metadata) = (0i64, &b""[..], Vec::new());
            for field in Fields(entry) {
                match field.map_err(torn)? {
                    (1, Value::Bytes(timestamp)) => time = timestamp_of(timestamp).map_err(torn)?,
                    (2, Value::Bytes(text)) => line = text,
                    (3, Value::Bytes(pair)) => metadata.push(pair_of(pair).map_err(torn)?),
                    _ => {}
                }
            }
            writer.put(time, line, &labels, &object(metadata.into_iter()), lines)?;
        }
    }
    Ok(())
}

fn torn(what: &'static str) -> Bad {
    Bad::new(400, format!("this is no push of Loki in protobuf: {what}"))
}

fn timestamp_of(bytes: &[u8]) -> Result<i64, &'static str> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Number(n)) => seconds = n as i64,
            (2, Value::Number(n)) => nanos = n as i64,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn pair_of(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (mut name, mut value) = (&b""[..], &b""[..]);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(text)) => name = text,
            (2, Value::Bytes(text)) => value = text,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The fields of one message of protobuf, in order.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = b"";
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), &'static str> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err("a field of an unknown kind"),
        };
        Ok((key >> 3, value))
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut number = 0;
        for (n, byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                self.0 = &self.0[n + 1..];
                return Ok(number);
            }
        }
        Err("a number does not end")
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.0.len()).ok_or("a field is longer than the message")?;
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(taken)
    }
}

/// Labels as Prometheus writes them: `{a="b", c="d\n"}`.
fn parse_labels(text: &[u8]) -> Option<Vec<(&[u8], Vec<u8>)>> {
    let mut rest = text.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let equals = memchr::memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let (value, behind) = parse_quoted(rest[equals + 1..].trim_ascii_start())?;
        labels.push((name, value));
        rest = behind.trim_ascii_start();
        rest = match rest.first() {
            None => rest,
            Some(b',') => rest[1..].trim_ascii_start(),
            Some(_) => return None,
        };
    }
    Some(labels)
}

/// A string as Go quotes it, and what stands behind it.
fn parse_quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let quote = *text.first().filter(|b| matches!(b, b'"' | b'`'))?;
    let mut value = Vec::new();
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b if b == quote => return Some((value, &text[at + 1..])),
            b'\\' if quote == b'"' => {
                let (byte, digits) = (*text.get(at + 1)?, text.get(at + 2..).unwrap_or_default());
                let code = |n: usize, radix| u32::from_str_radix(std::str::from_utf8(digits.get(..n)?).ok()?, radix).ok();
                let used = match byte {
                    b'n' | b't' | b'r' | b'a' | b'b' | b'f' | b'v' => {
                        value.push(match byte {
                            b'n' => b'\n',
                            b't' => b'\t',
                            b'r' => b'\r',
                            b'a' => 7,
                            b'b' => 8,
                            b'f' => 12,
                            _ => 11,
                        });
                        2
                    }
                    b'x' => {
                        value.push(code(2, 16)? as u8);
                        4
                    }
                    b'u' | b'U' => {
                        let n = if byte == b'u' { 4 } else { 8 };
                        value.extend_from_slice(char::from_u32(code(n, 16)?)?.encode_utf8(&mut [0; 4]).as_bytes());
                        2 + n
                    }
                    b'\\' | b'"' | b'\'' => {
                        value.push(byte);
                        2
                    }
                    _ => return None,
                };
                at += used;
            }
            b => {
                value.push(b);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(of: fn(&[u8], &mut Lines) -> Result<(), Bad>, body: &[u8], want: Expect) {
        let mut lines = Lines::new(10_000);
        let text = match of(body, &mut lines) {
            Ok(()) => String::from_utf8(lines.bytes).unwrap(),
            Err(bad) => format!("{} {}", bad.status, bad.message),
        };
        want.assert_eq(&text);
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
    }

    #[test]
    fn entries_of_json_become_records() {
        let body = r#"{"streams":[{"values":[["1000000000","plain \"x\""],["1500000000","{\"a\":1}",{"trace":"t"}],["0","{}"]],"stream":{"job":"api"}},
            {"stream":{},"values":[["0","{\"time\":\"own\",\"labels\":1}"],["1","{broken"]]},{"stream":{"x":"y"}}]}"#;
        check(
            json,
            body.as_bytes(),
            expect![[r#"
            {"ts":"1970-01-01T00:00:01Z","message":"plain \"x\"","labels":{"job":"api"}}
            {"ts":"1970-01-01T00:00:01.500Z","labels":{"job":"api"},"metadata":{"trace":"t"},"a":1}
            {"ts":"1970-01-01T00:00:00Z","labels":{"job":"api"}}
            {"time":"own","labels":1}
            {"ts":"1970-01-01T00:00:00.000000001Z","message":"{broken"}
        "#]],
        );
        check(
            json,
            b"{\"streams\":[{\"stream\":{},\"values\":[[\"x\",\"\"]]}]}",
            expect![[r#"400 this is no push of Loki: invalid value: string "x", expected nanoseconds as text at line 1 column 40"#]],
        );
        check(
            json,
            b"[]",
            expect!["400 this is no push of Loki: invalid length 0, expected struct Push with 1 element at line 1 column 2"],
        );
    }

    #[test]
    fn entries_of_protobuf_become_records() {
        let entry = [field(1, &[8, 1, 16, 5]), field(2, b"a line\n"), field(3, &[field(1, b"k"), field(2, b"v")].concat())].concat();
        let stream =
            [field(1, br#"{job="a\"b", host="h\u00e9"}"#), field(2, &entry), field(2, &field(2, b"{\"n\":2}")), vec![24, 9]].concat();
        check(
            protobuf,
            &[field(1, &stream), field(9, b"unknown")].concat(),
            expect![[r#"
            {"ts":"1970-01-01T00:00:01.000000005Z","message":"a line\n","labels":{"job":"a\"b","host":"hé"},"metadata":{"k":"v"}}
            {"ts":"1970-01-01T00:00:00Z","labels":{"job":"a\"b","host":"hé"},"n":2}
        "#]],
        );
        check(protobuf, b"", expect![""]);
        check(
            protobuf,
            &field(1, &field(1, b"job=a")),
            expect![[r#"400 the labels "job=a" cannot be read; they are of the form {name="value"}"#]],
        );
        check(protobuf, &[10, 200, 1], expect!["400 this is no push of Loki in protobuf: a field is longer than the message"]);
    }

    proptest! {
        #[test]
        fn no_body_stops_the_program(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "[\\[\\]{}\":,a0\\\\streamvalu ]{0,60}") {
            for body in [&bytes[..], &field(1, &bytes), &field(1, &[field(1, b"{}"), field(2, &bytes)].concat()), text.as_bytes()] {
                let (mut lines, mut more) = (Lines::new(10_000), Lines::new(10_000));
                let _ = (json(body, &mut lines), protobuf(body, &mut more)); // neither panics
            }
            parse_labels(text.as_bytes());
        }
    }
}
