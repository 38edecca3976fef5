//! Rows to the body of a request: JSON lines, Elasticsearch's `_bulk`, Loki's push; packed or not.
//!
//! In: rows of frames, in order. Out: the body's bytes. JSON lines hold rows as they are. A bulk action carries an id made of
//! stream and position, so a document that was indexed before is a conflict and no second document. Rows that are no JSON object
//! are wrapped as `message` for Elasticsearch; Loki takes any line. Pure: no network, no clock.

use crate::sinks::config::{HttpBody, HttpCompress, RemoteWriteVersion};
use anyhow::Context;
use flow::escape::{escape_into, unescape_into};
use flow::severity::class_name;
use hub::Frame;
use hub::frame::MISSING;
use std::collections::HashMap;
use std::io::Write;
use telemetry::otlp::Encoding;
use telemetry::remote::{self, Version};
use telemetry::trace_context;

/// zlib and zstd at their fastest: logs shrink to a fifth even so.
const GZIP_LEVEL: u32 = 1;
const ZSTD_LEVEL: i32 = 1;

/// A text with fields of the record in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Tenant,
    Level,
    /// A column of the frame's rows.
    Column(usize),
}

/// The pieces of a pattern: text, or the name in braces.
pub fn pieces(text: &str) -> Result<Vec<Result<String, String>>, usize> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(brace) = rest.find(['{', '}']) {
        let at = text.len() - rest.len() + brace;
        if brace > 0 {
            pieces.push(Ok(rest[..brace].to_string()));
        }
        match rest[brace..].strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some((name, behind)) if !name.contains('{') && !name.split('.').any(str::is_empty) => {
                pieces.push(Err(name.to_string()));
                rest = behind;
            }
            _ => return Err(at),
        }
    }
    if !rest.is_empty() {
        pieces.push(Ok(rest.to_string()));
    }
    Ok(pieces)
}

/// The fields of the record that a pattern names.
pub fn fields_of(text: &str) -> Vec<String> {
    let names = pieces(text).unwrap_or_default().into_iter().filter_map(Result::err);
    names.filter(|name| name != "tenant" && name != "level").collect()
}

impl Pattern {
    /// `column`: the column of a field.
    pub fn new(text: &str, column: &mut dyn FnMut(&str) -> usize) -> Option<Pattern> {
        let piece = |piece: Result<String, String>| match piece {
            Ok(text) => Piece::Text(text),
            Err(name) if name == "tenant" => Piece::Tenant,
            Err(name) if name == "level" => Piece::Level,
            Err(name) => Piece::Column(column(&name)),
        };
        Some(Pattern(pieces(text).ok()?.into_iter().map(piece).collect()))
    }

    /// Appends the value for a row. False where a field is missing.
    fn put(&self, frame: &Frame, row: usize, out: &mut Vec<u8>) -> bool {
        let mut is_whole = true;
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Tenant => out.extend_from_slice(&frame.tenants[frame.rows.tenant[row] as usize]),
                Piece::Level => out.extend_from_slice(class_name(frame.rows.severity[row]).as_bytes()),
                Piece::Column(column) => match frame.rows.columns[*column][row] {
                    (MISSING, _) => is_whole = false,
                    (start, len) => unescape_into(&frame.rows.row(row)[start as usize..(start + len) as usize], out),
                },
            }
        }
        is_whole
    }
}

/// What bodies are made by.
#[derive(Clone, Debug)]
pub struct Shape {
    pub body: HttpBody,
    pub index: Pattern,
    /// By name, in order.
    pub labels: Vec<(String, Pattern)>,
    pub compress: HttpCompress,
    /// `traceparent` and `tracestate` of a record, where requests go on with its trace.
    pub context: Option<[Pattern; 2]>,
}

impl Shape {
    /// Where in which trace a row is; `None`: nobody says, or nobody asks.
    pub fn context(&self, frame: &Frame, row: usize) -> Option<trace_context::Context> {
        let [parent, state] = self.context.as_ref()?;
        let mut values = [Vec::new(), Vec::new()];
        if !parent.put(frame, row, &mut values[0]) {
            return None;
        }
        let states: &[&[u8]] = if state.put(frame, row, &mut values[1]) { &[&values[1]] } else { &[] };
        trace_context::extract(&[&values[0]], states)
    }

    /// What a request says of its body.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        if let Some(version) = self.version() {
            let [encoding, kind, version, _agent] = remote::headers(version, "");
            return vec![encoding, kind, version];
        }
        let kind = match self.body {
            HttpBody::Ndjson | HttpBody::Bulk => "application/x-ndjson",
            HttpBody::Loki => "application/json",
            HttpBody::RemoteWrite(_) | HttpBody::Otlp(_) => Encoding::Protobuf.content_type(),
        };
        let packed = match self.compress {
            HttpCompress::None => None,
            HttpCompress::Gzip => Some("gzip"),
            HttpCompress::Zstd => Some("zstd"),
        };
        let packed = packed.map(|packed| ("content-encoding", packed.to_owned()));
        [("content-type", kind.to_owned())].into_iter().chain(packed).collect()
    }

    /// The version of remote write, if it is that.
    pub fn version(&self) -> Option<Version> {
        match self.body {
            HttpBody::RemoteWrite(RemoteWriteVersion::V1) => Some(Version::V1),
            HttpBody::RemoteWrite(RemoteWriteVersion::V2) => Some(Version::V2),
            _ => None,
        }
    }

    /// The body of a request with these rows.
    pub fn body<'a>(&self, rows: impl Iterator<Item = (&'a Frame, usize)>) -> anyhow::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(1 << 20);
        match self.body {
            HttpBody::Ndjson => rows.for_each(|(frame, row)| {
                plain.extend_from_slice(frame.rows.row(row));
                plain.push(b'\n');
            }),
            HttpBody::Bulk => rows.for_each(|(frame, row)| self.put_item(frame, row, &mut plain)),
            HttpBody::Loki => self.put_streams(rows, &mut plain),
            HttpBody::RemoteWrite(_) | HttpBody::Otlp(_) => unreachable!("`signals` makes these bodies"),
        }
        self.pack(plain).context("cannot compress a body")
    }

    pub(super) fn pack(&self, plain: Vec<u8>) -> std::io::Result<Vec<u8>> {
        match self.compress {
            HttpCompress::None => Ok(plain),
            HttpCompress::Gzip => {
                let out = Vec::with_capacity(plain.len() / 4);
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(&plain)?;
                encoder.finish()
            }
            HttpCompress::Zstd => zstd::encode_all(&plain[..], ZSTD_LEVEL),
        }
    }

    fn put_item(&self, frame: &Frame, row: usize, out: &mut Vec<u8>) {
        let mut index = Vec::new();
        self.index.put(frame, row, &mut index);
        index.iter_mut().for_each(|b| *b = index_byte(*b));
        out.extend_from_slice(b"{\"create\":{\"_index\":");
        put_text(&index, out);
        out.extend_from_slice(format!(",\"_id\":\"{}\"}}}}\n", id_of(frame, row)).as_bytes());
        let line = frame.rows.row(row);
        if is_object(frame, row) {
            out.extend_from_slice(line);
        } else {
            out.extend_from_slice(b"{\"message\":");
            put_text(line, out);
            out.push(b'}');
        }
        out.push(b'\n');
    }

    /// Rows of equal labels are a stream, each in order.
    fn put_streams<'a>(&self, rows: impl Iterator<Item = (&'a Frame, usize)>, out: &mut Vec<u8>) {
        let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut streams: Vec<Vec<u8>> = Vec::new();
        let (mut labels, mut value) = (Vec::new(), Vec::new());
        for (frame, row) in rows {
            labels.clear();
            for (name, pattern) in &self.labels {
                value.clear();
                if pattern.put(frame, row, &mut value) {
                    labels.push(if labels.is_empty() { b'{' } else { b',' });
                    put_text(name.as_bytes(), &mut labels);
                    labels.push(b':');
                    put_text(&value, &mut labels);
                }
            }
            labels.extend_from_slice(if labels.is_empty() { b"{}" } else { b"}" });
            let number = *numbers.entry(labels.clone()).or_insert_with(|| {
                streams.push([b"{\"stream\":", &labels[..], b",\"values\":["].concat());
                streams.len() - 1
            });
            let stream = &mut streams[number];
            if stream.last() == Some(&b']') {
                stream.push(b',');
            }
            stream.extend_from_slice(format!("[\"{}\",", frame.rows.time[row]).as_bytes());
            put_text(frame.rows.row(row), stream);
            stream.push(b']');
        }
        out.extend_from_slice(b"{\"streams\":[");
        for (n, stream) in streams.iter().enumerate() {
            out.extend_from_slice(if n == 0 { b"" } else { b"," });
            out.extend_from_slice(stream);
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
    }
}

/// A row's name, the same in every run: its stream and its position there.
pub fn id_of(frame: &Frame, row: usize) -> String {
    let part = frame.parts.iter().find(|part| part.rows.contains(&(row as u32)));
    format!("{:016x}-{}", part.map_or(0, |part| part.stream.0), frame.rows.position[row])
}

fn is_object(frame: &Frame, row: usize) -> bool {
    let is_json = u32::from(frame.rows.notes[row]) & flow::event::Note::NotJson.bit() == 0;
    is_json && frame.rows.row(row).first() == Some(&b'{')
}

/// Names of indices are in lower case and hold no characters of paths and patterns.
fn index_byte(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        b if b <= b' ' || br#"\/*?"<>|,#:"#.contains(&b) => b'-',
        b => b,
    }
}

/// A string of JSON; what is no UTF-8 becomes U+FFFD.
pub fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    match std::str::from_utf8(text) {
        Ok(_) => escape_into(text, out),
        Err(_) => escape_into(String::from_utf8_lossy(text).as_bytes(), out),
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use flow::event::StreamId;
    use hub::frame::{Part, Rows};

    fn frame() -> Frame {
        let mut rows = Rows::default();
        for (n, line) in ["{\"service\":\"a\\\"b\"}", "no json", "{\"service\":\"c\"}"].into_iter().enumerate() {
            rows.bytes.extend_from_slice(line.as_bytes());
            rows.ends.push(rows.bytes.len() as u32);
            rows.tenant.push(0);
            rows.time.push(n as i64 + 1);
            rows.severity.push(17);
            rows.position.push(n as u64 * 10 + 10);
            rows.notes.push(if n == 1 { flow::event::Note::NotJson.bit() as u16 } else { 0 });
        }
        rows.columns = vec![vec![(12, 4), (MISSING, MISSING), (12, 1)]];
        let part = Part { stream: StreamId(7), to: 30, rows: 0..3, ..Part::default() };
        Frame { tenants: vec![b"Acme/x"[..].into()], parts: vec![part], rows, ..Frame::default() }
    }

    fn check(body: HttpBody, want: Expect) {
        let pattern = |text: &str| Pattern::new(text, &mut |_| 0).unwrap();
        let labels = [("job", "weir"), ("level", "{level}"), ("service", "{service}")];
        let labels = labels.into_iter().map(|(name, text)| (name.to_string(), pattern(text))).collect();
        let shape = Shape { body, index: pattern("logs-{tenant}"), labels, compress: HttpCompress::None, context: None };
        let frame = frame();
        want.assert_eq(&String::from_utf8(shape.body((0..3).map(|row| (&frame, row))).unwrap()).unwrap());
    }

    #[test]
    fn bodies_hold_rows_in_order() {
        check(
            HttpBody::Ndjson,
            expect![[r#"
            {"service":"a\"b"}
            no json
            {"service":"c"}
        "#]],
        );
        check(
            HttpBody::Bulk,
            expect![[r#"
            {"create":{"_index":"logs-acme-x","_id":"0000000000000007-10"}}
            {"service":"a\"b"}
            {"create":{"_index":"logs-acme-x","_id":"0000000000000007-20"}}
            {"message":"no json"}
            {"create":{"_index":"logs-acme-x","_id":"0000000000000007-30"}}
            {"service":"c"}
        "#]],
        );
        check(
            HttpBody::Loki,
            expect![[
                r#"{"streams":[{"stream":{"job":"weir","level":"error","service":"a\"b"},"values":[["1","{\"service\":\"a\\\"b\"}"]]},{"stream":{"job":"weir","level":"error"},"values":[["2","no json"]]},{"stream":{"job":"weir","level":"error","service":"c"},"values":[["3","{\"service\":\"c\"}"]]}]}"#
            ]],
        );
    }

    #[test]
    fn patterns_are_text_and_names() {
        assert_eq!(pieces("a-{b.c}{tenant}").unwrap(), [Ok("a-".into()), Err("b.c".into()), Err("tenant".into())]);
        assert_eq!((pieces("a{"), pieces("}"), pieces("x{}")), (Err(1), Err(0), Err(1)));
        assert_eq!(fields_of("{tenant}-{level}-{service}"), ["service"]);
    }
}
