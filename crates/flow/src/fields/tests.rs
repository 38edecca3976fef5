//! The scanner against serde_json: the same lines are objects, the same fields have the same values.

use super::*;
use serde_json::Value;

const PATHS: [&str; 6] = ["a", "level", "kubernetes.labels.tenant", "n", "log.level", "é"];

fn levels() -> Vec<Level> {
    let mut levels = vec![Level::Portable];
    if Level::detect() == Level::Avx2 {
        levels.push(Level::Avx2);
    }
    levels
}

/// What serde_json says of a field, as the text a span would give.
fn oracle(value: &Value, path: &str) -> Option<String> {
    let text = |v: &Value| match v {
        Value::Null => None,
        Value::String(s) => Some(s.clone()),
        other => Some(other.to_string()),
    };
    if let Some(flat) = value.get(path) {
        return text(flat);
    }
    path.split('.').try_fold(value, |v, key| v.get(key)).and_then(text)
}

#[track_caller]
fn check(line: &[u8]) {
    let set = Arc::new(FieldSet::new(&PATHS));
    let mut answers = Vec::new();
    for level in levels() {
        // Alone, and between others: what stands around a line must not matter.
        for around in ["", "\"a\":1,{\"", "\n{\"a\":\"x\\\\\",\"level\":\"some line that is longer than a block of sixty-four bytes\"}"] {
            let arena = [around.as_bytes(), line, around.as_bytes()].concat();
            let mut scanner = Scanner::with_level(Arc::clone(&set), level);
            let mut spans = vec![Span { start: 1, end: 7, kind: Kind::True }; PATHS.len()];
            let shape = scanner.scan_in(&arena, around.len(), around.len() + line.len(), &mut spans);
            answers.push((shape, spans));
        }
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "levels or surroundings differ on {:?}", String::from_utf8_lossy(line));
    let (shape, spans) = &answers[0];
    let lossy = String::from_utf8_lossy(line);
    let parsed: Result<serde_json::Map<String, Value>, _> = serde_json::from_str(&lossy);
    // What serde_json refuses for its own reasons: numbers beyond f64, lone surrogates.
    let own_reason = parsed.as_ref().is_err_and(|e| ["out of range", "surrogate", "hex escape"].iter().any(|r| e.to_string().contains(r)));
    if own_reason {
        return;
    }
    assert_eq!(shape.malformed.is_none(), parsed.is_ok(), "{lossy:?}: {shape:?} against {:?}", parsed.as_ref().err());
    assert_eq!(shape.invalid_utf8, std::str::from_utf8(line).is_err(), "{lossy:?}");
    let Ok(map) = parsed else { return };
    let value = Value::Object(map);
    if lossy.matches("log.level").count() > 0 || shape.duplicates != 0 && lossy.contains("kubernetes.labels") {
        return; // both a flat and a nested form: the last one wins here, serde_json keeps both
    }
    for (path, span) in PATHS.iter().zip(spans) {
        let got = span.text(line).map(|t| String::from_utf8_lossy(&t).into_owned());
        let want = oracle(&value, path);
        match (&got, &want) {
            (Some(got), Some(want)) if got != want => {
                // Numbers and containers are given as written: compare their meaning.
                let (a, b): (Value, Value) =
                    (serde_json::from_str(got).unwrap_or_default(), serde_json::from_str(want).unwrap_or_default());
                assert_eq!(a, b, "{path} of {lossy:?}");
            }
            _ => assert_eq!(got, want, "{path} of {lossy:?}"),
        }
    }
}

#[test]
fn good_lines_give_the_fields_that_serde_json_gives() {
    for line in [
        r#"{}"#,
        r#" { "a" : 1 , "level" : "info" } "#,
        r#"{"a":"x\"y\\","level":"in\u0066o","n":-0.5e+10}"#,
        r#"{"kubernetes":{"labels":{"tenant":"t1","x":[1,{"tenant":"no"}]},"tenant":"no"},"a":[{"a":3}]}"#,
        r#"{"kubernetes.labels.tenant":"flat"}"#,
        r#"{"kubernetes":{"labels":{"tenant":"old"}},"kubernetes":{"labels":{}}}"#,
        r#"{"kubernetes":{"labels":{"tenant":"old"}},"kubernetes":7}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"a":[],"level":{},"n":[[],{}]}"#,
        r#"{"é":"ü – «x»","a":true,"n":null,"level":false}"#,
        r#"{"a":9007199254740993,"n":123456789012345678901234567890}"#,
        "{\"a\":\"\\\\\",\"n\":1}",
        "{\"a\":1}\r",
    ] {
        check(line.as_bytes());
    }
}

#[test]
fn bad_lines_are_malformed() {
    for line in [
        "",
        " ",
        "{",
        "}",
        "[]",
        "1",
        "\"a\"",
        "{]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{\"a\":1 2}",
        "{\"a\":x}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":\"x}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":{]}",
        "{\"a\":1}{\"b\":2}",
        "{\"a\":1} x",
        "{\"a\":tru}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\0\"}",
        "{\"a\"x:1}",
        "{x\"a\":1}",
        "{\"a\":x\"b\"}",
        "{\"a\":\"b\"x}",
        "{\"a\":1}}",
        "{\"a\":[1}",
        "{\"\\q\":1}",
        "{\"a\":\"\\",
        "{\"a\":nul}",
        "{1:2}",
        "{\"a\":\"b\",\"c\"}",
        "\u{feff}{\"a\":1}",
        "{\"a\":1\u{a0}}",
    ] {
        check(line.as_bytes());
    }
    let deep = |n: usize| format!("{{\"a\":{}1{}}}", "[".repeat(n), "]".repeat(n));
    for n in [1, 100, 125, 126, 127, 128, 1_000] {
        check(deep(n).as_bytes());
    }
    check(&[b"{\"a\":\"".as_slice(), &[0xff, 0xfe], b"\"}"].concat());
    check(&[b"{\"a\":".as_slice(), &[0xff], b"}"].concat());
}

#[test]
fn duplicates_are_told_and_the_last_one_wins() {
    let set = Arc::new(FieldSet::new(&["a", "b.c", "d"]));
    let mut scanner = Scanner::new(set);
    let mut spans = [Span::default(); 3];
    let line = br#"{"a":1,"d":0,"b":{"c":1},"\u0061":2,"b":{"c":3}}"#;
    let shape = scanner.scan(line, &mut spans);
    assert_eq!(shape.duplicates, 0b011);
    assert_eq!(spans[0].raw(line), b"2");
    assert_eq!(spans[1].raw(line), b"3");
}

#[test]
fn ten_thousand_keys_and_a_megabyte_string_are_a_record() {
    let keys: Vec<String> = (0..10_000).map(|i| format!("\"k{i}\":{i}")).collect();
    check(format!("{{{},\"a\":\"end\"}}", keys.join(",")).as_bytes());
    check(format!("{{\"a\":\"{}\",\"n\":1}}", "x\\\"".repeat(400_000)).as_bytes());
}

/// Pieces that lines are made of, so that random lines are often nearly right.
const PIECES: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\"a\"",
    "\"level\"",
    "\"kubernetes\"",
    "\"labels\"",
    "\"tenant\"",
    "\"n\"",
    "1",
    "-1.5",
    "true",
    "null",
    "\"x\"",
    "\"\\\"\"",
    "\\\\",
    "\"\\u0061\"",
    " ",
    "\t",
    "\"é\"",
    "{\"a\":1}",
    "\"k\":{\"z\":[1,2]}",
    "\"a\":\"info\",",
    "\"level\":\"warn\",",
    "\"kubernetes\":{\"labels\":{\"tenant\":\"t\"}},",
    "0",
    "1e5",
    "e",
    "\u{1}",
    "{}",
    "[]",
    "«",
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
    "\"n\":3",
    "}}",
];

/// Numbers below a bound (xorshift).
fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % bound
    }
}

#[test]
fn random_lines_agree_with_serde_json_at_every_level() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_123);
    println!("SEED={seed}");
    let mut next = random(seed);
    for round in 0..60_000 {
        let mut line = Vec::new();
        if round % 2 == 0 {
            line.push(b'{');
        }
        for _ in 0..next(14) {
            line.extend_from_slice(PIECES[next(PIECES.len())].as_bytes());
        }
        if round % 4 == 0 {
            line.push(b'}');
        }
        if next(8) == 0 && !line.is_empty() {
            let at = next(line.len());
            line[at] = next(256) as u8;
        }
        line.retain(|b| *b != b'\n');
        check(&line);
    }
}

/// Values of flat lines: right, nearly right, and wrong.
const VALUES: [&str; 44] = [
    "0",
    "7",
    "-1",
    "12",
    "429",
    "01",
    "00",
    "-",
    "-0",
    "-01",
    "1.5",
    "0.5",
    "00.5",
    "1.",
    ".5",
    "1.5.5",
    "1234567890123456",
    "12345678901234567",
    "123456789012345.",
    "1234567890123.56",
    "0123456789.12345",
    "1e5",
    "1E+5",
    "1e",
    "1.5e-3",
    "true",
    "false",
    "null",
    "nul",
    "truefalse",
    "",
    "\"\"",
    "\"info\"",
    "\"a:b,c{d}[e]\"",
    "\"\\\"\"",
    "\"\\\\\"",
    "\"x\\u00e9\"",
    "\"\\u12\"",
    "\"\\x\"",
    "\"é\"",
    "\"1\"2",
    "1\"2\"",
    "[]",
    "{\"a\":1}",
];

const KEYS: [&str; 16] = [
    "a",
    "level",
    "n",
    "log.level",
    "é",
    "",
    "b",
    "lev",
    "levels",
    "kubernetes",
    "kubernetes.labels.tenant",
    "kubernetes.labels.tenanT",
    "kubernetes.labelz.tenant",
    "\\u0061",
    "a long key that nobody asks for, with a colon: and a comma",
    "msg",
];

#[test]
fn random_flat_lines_agree_with_serde_json_wherever_blocks_end() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_124);
    println!("SEED={seed}");
    let mut next = random(seed);
    for round in 0..60_000 {
        let mut line = b"{".to_vec();
        for n in 0..next(12) {
            if n > 0 {
                line.push(b',');
            }
            line.push(b'"');
            line.extend_from_slice(KEYS[next(KEYS.len())].as_bytes());
            line.extend_from_slice(b"\":");
            match next(4) {
                0 => line.extend_from_slice(VALUES[next(VALUES.len())].as_bytes()),
                1 => line.extend_from_slice(b"42"),
                // A string of any length moves what follows over the borders of blocks.
                _ => line.extend_from_slice(format!("\"{}\"", "x".repeat(next(80))).as_bytes()),
            }
        }
        line.push(b'}');
        // Every third line has one byte replaced, left out or put in.
        let at = next(line.len());
        let byte = b"\"\\{}[]:, 0x\t\0\x0c\x1a\xff\r"[next(17)];
        match round % 9 {
            0 => line[at] = byte,
            3 => line.insert(at, byte),
            6 => drop(line.remove(at)),
            _ => {}
        }
        line.retain(|b| *b != b'\n');
        check(&line);
    }
}

#[test]
fn flat_lines_are_taken_as_such() {
    if Level::detect() != Level::Avx2 {
        return; // there is one way only
    }
    let mut scanner = Scanner::new(Arc::new(FieldSet::new(&["a"])));
    let mut spans = [Span::default()];
    for length in 0..200 {
        let line = format!(
            "{{\"b\":\"{}\",\"a\":1,\"c\":{}}}",
            "x\\n".repeat(length / 4) + &"é".repeat(length % 4),
            ["\"\"", "-1.5e3", "true"][length % 3]
        );
        for behind in ["", "\n{\"a\":{}}\n"] {
            scanner.scan_in([&line, behind].concat().as_bytes(), 0, line.len(), &mut spans);
            assert_eq!((scanner.not_flat, scanner.not_flat_next), (0, 0), "{line}");
        }
    }
}

#[test]
fn lines_of_other_shapes_do_not_change_how_the_next_one_reads() {
    let set = Arc::new(FieldSet::new(&["a"]));
    let mut scanner = Scanner::new(set);
    let mut spans = [Span::default()];
    for n in 0..2_000 {
        let (line, want): (&[u8], _) = match n / 100 % 4 {
            0 => (b"{\"b\":0,\"a\":1}", Kind::Number),
            1 => (b"{\"b\":{\"c\":0}, \"a\":1}", Kind::Number),
            2 => (b"{\"a\":\"x\"}", Kind::Text),
            _ => (b"{\"a\":\"x\"", Kind::Missing),
        };
        let shape = scanner.scan(line, &mut spans);
        assert_eq!((spans[0].kind, shape.malformed.is_some()), (want, want == Kind::Missing), "line {n}");
    }
}
