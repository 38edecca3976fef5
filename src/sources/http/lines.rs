//! Bodies to lines: each record becomes one line of JSON, as a file would hold it.
//!
//! In: the body of a request, decompressed. Out: lines, or what is wrong with the body and where. Lines of NDJSON are data,
//! whatever they hold: the lane says which are no JSON. An array or a text of JSON that is broken has no records that could be
//! told apart, so it is refused as a whole. Bound: `bytes_max` of lines, and [`RECORDS_MAX`] records.

use flow::fields::{FieldSet, Malformed, Scanner};
use std::sync::Arc;

/// Records of one request; what is noted of each takes up to 100 bytes while it is read.
pub const RECORDS_MAX: u64 = 500_000;

/// Why a body is refused: a status of HTTP, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub status: u16,
    pub message: String,
}

impl Bad {
    pub fn new(status: u16, message: impl Into<String>) -> Bad {
        Bad { status, message: message.into() }
    }
}

/// The lines that are made of one body.
pub struct Lines {
    pub bytes: Vec<u8>,
    pub records: u64,
    bytes_max: usize,
}

impl Lines {
    pub fn new(bytes_max: usize) -> Lines {
        Lines { bytes: Vec::new(), records: 0, bytes_max }
    }

    /// None, with the same bound.
    pub fn emptied(&self) -> Lines {
        Lines::new(self.bytes_max)
    }

    /// The line that was written behind the last one is a record.
    pub fn end(&mut self) -> Result<(), Bad> {
        self.bytes.push(b'\n');
        self.records += 1;
        if self.bytes.len() > self.bytes_max || self.records > RECORDS_MAX {
            let message = format!("the records are more than {} bytes or {RECORDS_MAX} records; send less at once", self.bytes_max);
            return Err(Bad::new(413, message));
        }
        Ok(())
    }
}

/// One record a line; what it holds is not looked at.
pub fn ndjson(body: &[u8], lines: &mut Lines) -> Result<(), Bad> {
    lines.bytes.reserve(body.len() + 1);
    for line in body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        lines.bytes.extend_from_slice(line);
        lines.end()?;
    }
    Ok(())
}

/// One record a line, as its `message`.
pub fn text(body: &[u8], lines: &mut Lines) -> Result<(), Bad> {
    for line in body.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            lines.bytes.extend_from_slice(b"{\"message\":");
            put_text(line, &mut lines.bytes);
            lines.bytes.push(b'}');
            lines.end()?;
        }
    }
    Ok(())
}

/// A string of JSON; what is no UTF-8 becomes U+FFFD.
pub fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    match std::str::from_utf8(text) {
        Ok(_) => flow::escape::escape_into(text, out),
        Err(_) => flow::escape::escape_into(String::from_utf8_lossy(text).as_bytes(), out),
    }
    out.push(b'"');
}

/// Objects, and arrays of objects, one after the other.
pub fn json(body: &[u8], lines: &mut Lines) -> Result<(), Bad> {
    let mut check = Check::default();
    let mut at = skip_space(body, 0);
    while at < body.len() {
        at = match body[at] {
            b'[' => array(body, at + 1, lines, &mut check)?,
            b'{' => object(body, at, lines, &mut check)?,
            _ => return Err(broken(body, at, "here begins neither an object nor an array of objects")),
        };
        at = skip_space(body, at);
    }
    Ok(())
}

/// The elements of an array, from behind its bracket; returns where it ends.
fn array(body: &[u8], mut at: usize, lines: &mut Lines, check: &mut Check) -> Result<usize, Bad> {
    at = skip_space(body, at);
    if body.get(at) == Some(&b']') {
        return Ok(at + 1);
    }
    loop {
        if body.get(at) != Some(&b'{') {
            return Err(broken(body, at, "an element of the array is no object; each record is a JSON object"));
        }
        at = skip_space(body, object(body, at, lines, check)?);
        match body.get(at) {
            Some(b',') => at = skip_space(body, at + 1),
            Some(b']') => return Ok(at + 1),
            Some(_) => return Err(broken(body, at, "a comma or the end of the array should stand here")),
            None => return Err(broken(body, at, "the array does not end")),
        }
    }
}

/// Takes one object as a line; returns where it ends.
fn object(body: &[u8], at: usize, lines: &mut Lines, check: &mut Check) -> Result<usize, Bad> {
    let end = object_end(body, at).ok_or_else(|| broken(body, at, "the object that begins here does not end"))?;
    let start = lines.bytes.len();
    // Within strings there are no bare newlines, so these are blanks.
    lines.bytes.extend(body[at..end].iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }));
    match check.object(&lines.bytes[start..]) {
        Ok(()) => lines.end().map(|()| end),
        Err(message) => Err(broken(body, at, &format!("the object that begins here {message}"))),
    }
}

/// Behind the brace that closes the object at `at`.
fn object_end(body: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut i) = (0usize, at);
    while i < body.len() {
        match body[i] {
            b'"' => i = string_end(body, i + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// The quote that ends a string.
fn string_end(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        if body[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

fn skip_space(body: &[u8], at: usize) -> usize {
    body[at..].iter().position(|b| !b.is_ascii_whitespace()).map_or(body.len(), |n| at + n)
}

/// With the place of the mistake, as an editor shows it.
fn broken(body: &[u8], at: usize, what: &str) -> Bad {
    let at = at.min(body.len());
    let line = memchr::memchr_iter(b'\n', &body[..at]).count() + 1;
    let column = at - memchr::memrchr(b'\n', &body[..at]).map_or(0, |newline| newline + 1) + 1;
    Bad::new(400, format!("line {line}, column {column} (byte {at}): {what}"))
}

/// Finds out whether a line is one JSON object.
pub struct Check(Scanner);

impl Default for Check {
    fn default() -> Check {
        Check(Scanner::new(Arc::new(FieldSet::new(&[] as &[String]))))
    }
}

impl Check {
    pub fn object(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let shape = self.0.scan(line, &mut []);
        match shape.malformed {
            None if shape.invalid_utf8 => Err("holds bytes that are no UTF-8"),
            None => Ok(()),
            Some(Malformed::NotJson) => Err("is no JSON object"),
            Some(Malformed::TooDeep) => Err("is nested too deep"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(of: fn(&[u8], &mut Lines) -> Result<(), Bad>, body: &str, want: Expect) {
        let mut lines = Lines::new(200);
        let text = match of(body.as_bytes(), &mut lines) {
            Ok(()) => String::from_utf8(lines.bytes).unwrap(),
            Err(bad) => format!("{} {}", bad.status, bad.message),
        };
        want.assert_eq(&text);
    }

    #[test]
    fn lines_are_taken_as_they_are() {
        check(
            ndjson,
            "{\"a\":1}\r\n\n  no json \n{}",
            expect![[r#"
            {"a":1}
            no json
            {}
        "#]],
        );
        check(
            text,
            "GET / \"x\"\r\n\n\tb",
            expect![[r#"
            {"message":"GET / \"x\""}
            {"message":"\tb"}
        "#]],
        );
    }

    #[test]
    fn objects_and_arrays_become_lines() {
        check(
            json,
            " [ {\"a\": \"]}\\\"\"},\n {\n \"b\": [1, {}]\n} ]\n{\"c\":1}{\"d\":2} []",
            expect![[r#"
            {"a": "]}\""}
            {  "b": [1, {}] }
            {"c":1}
            {"d":2}
        "#]],
        );
        check(json, "", expect![""]);
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        check(
            json,
            "[{\"a\":1},\n 7]",
            expect!["400 line 2, column 2 (byte 11): an element of the array is no object; each record is a JSON object"],
        );
        check(json, "[{\"a\":1},\n{\"b\":}]", expect!["400 line 2, column 1 (byte 10): the object that begins here is no JSON object"]);
        check(json, "[{\"a\":1}", expect!["400 line 1, column 9 (byte 8): the array does not end"]);
        check(json, "{\"a\":\"", expect!["400 line 1, column 1 (byte 0): the object that begins here does not end"]);
        check(json, "{} x", expect!["400 line 1, column 4 (byte 3): here begins neither an object nor an array of objects"]);
        check(ndjson, &"{}\n".repeat(67), expect!["413 the records are more than 200 bytes or 500000 records; send less at once"]);
    }

    proptest! {
        #[test]
        fn no_body_stops_the_program(body in "[\\[\\]{}\",:\\\\a1 \n]{0,60}") {
            for of in [ndjson, text, json] {
                let mut lines = Lines::new(10_000);
                let result = of(body.as_bytes(), &mut lines);
                let records = lines.bytes.iter().filter(|b| **b == b'\n').count() as u64;
                prop_assert!(result.is_err() || records == lines.records);
            }
        }

        #[test]
        fn arrays_are_read_as_serde_json_reads_them(body in "\\[\\{[\"a:1,{}\\[\\]]{0,8}\\}\\]") {
            let mut lines = Lines::new(10_000);
            let ours = json(body.as_bytes(), &mut lines).is_ok();
            let theirs = serde_json::from_str::<Vec<serde_json::Map<String, serde_json::Value>>>(&body);
            prop_assert!(!ours || theirs.is_ok(), "{body}");
            prop_assert!(theirs.is_err() || ours, "{body}");
        }
    }
}
