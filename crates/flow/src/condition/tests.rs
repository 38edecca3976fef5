//! Conditions against an independent reading of the same text over serde_json.

use super::*;
use serde_json::Value as Json;

mod computing;

/// Records as JSON lines with the spans of some top-level fields; the finder is serde_json's.
struct Lines {
    fields: Vec<String>,
    lines: Vec<Vec<u8>>,
    spans: Vec<Vec<Span>>,
}

impl Columns for Lines {
    fn len(&self) -> usize {
        self.lines.len()
    }

    fn line(&self, i: usize) -> &[u8] {
        &self.lines[i]
    }

    fn span(&self, field: usize, i: usize) -> Span {
        self.spans[i][field]
    }

    fn spans(&self, i: usize) -> &[Span] {
        &self.spans[i]
    }
}

/// Parses a condition and finds its fields in these lines.
#[track_caller]
fn compile_for(text: &str, lines: &[&str]) -> (Condition, Lines) {
    let mut fields: Vec<String> = Vec::new();
    let mut resolve = |path: &str| {
        fields.iter().position(|own| own == path).unwrap_or_else(|| {
            fields.push(path.into());
            fields.len() - 1
        })
    };
    let condition = Condition::parse(text, &mut resolve).unwrap_or_else(|e| panic!("{text}\n{}^ {e}", " ".repeat(e.at)));
    let spans = lines.iter().map(|line| fields.iter().map(|path| find(line, path)).collect()).collect();
    let lines = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    (condition, Lines { fields, lines, spans })
}

/// The value at the start of `text`, and what follows it, read by serde_json.
fn split_value(text: &str) -> (Json, &str, &str) {
    let text = text.trim_start_matches([' ', '\n', ',', ':']);
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next().expect("a value").expect("a line is JSON");
    let (raw, rest) = text.split_at(values.byte_offset());
    (value, raw, rest)
}

/// The raw value of a path in an object: a nested key or the flat one.
fn member<'a>(object: &'a str, path: &str) -> Option<&'a str> {
    let mut rest = object.strip_prefix('{')?;
    while rest.trim_start() != "}" {
        let (key, _, after) = split_value(rest);
        let (_, raw, after) = split_value(after);
        rest = after;
        let key = key.as_str().expect("a key is a text");
        let below = path.strip_prefix(key).and_then(|below| below.strip_prefix('.'));
        match below.and_then(|below| member(raw, below)) {
            _ if key == path => return Some(raw),
            Some(found) => return Some(found),
            None => {}
        }
    }
    None
}

fn find(line: &str, path: &str) -> Span {
    let Some(raw) = member(line, path) else {
        return Span::default();
    };
    let start = raw.as_ptr() as usize - line.as_ptr() as usize;
    let (from, to, kind) = match raw.as_bytes()[0] {
        b'"' => (start + 1, start + raw.len() - 1, if raw.contains('\\') { Kind::Escaped } else { Kind::Text }),
        b't' => (start, start + 4, Kind::True),
        b'f' => (start, start + 5, Kind::False),
        b'n' => (start, start + 4, Kind::Null),
        b'{' => (start, start + raw.len(), Kind::Object),
        b'[' => (start, start + raw.len(), Kind::Array),
        _ => (start, start + raw.len(), Kind::Number),
    };
    Span { start: from as u32, end: to as u32, kind }
}

/// The condition holds for exactly these lines of the table.
#[track_caller]
fn check(text: &str, holds_for: &[&str], fails_for: &[&str]) {
    let all: Vec<&str> = holds_for.iter().chain(fails_for).copied().collect();
    let (condition, lines) = compile_for(text, &all);
    let mut mask = vec![true; all.len()];
    condition.eval(&lines, &mut mask);
    for (i, line) in all.iter().enumerate() {
        let want = i < holds_for.len();
        assert_eq!(mask[i], want, "{text} in a batch, for {line}");
        assert_eq!(condition.matches_one(&lines.lines[i], &lines.spans[i]), want, "{text} alone, for {line}");
    }
}

/// The text is refused at this offset; `want` is message and help.
#[track_caller]
fn refused(text: &str, want_at: usize, want: &str) {
    let error = Condition::parse(text, &mut |_| 0).expect_err(text);
    assert_eq!((error.at, error.to_string().as_str()), (want_at, want), "{text}");
}

#[test]
fn texts_compare_by_what_they_mean() {
    check(
        r#"level == "error""#,
        &[r#"{"level":"error"}"#, r#"{"level":"\u0065rror"}"#],
        &[r#"{"level":"errors"}"#, r#"{"level":"Error"}"#, r#"{"level":"\u0065rro"}"#],
    );
    check("a == 'x\"y'", &[r#"{"a":"x\"y"}"#], &[r#"{"a":"x\\\"y"}"#, r#"{"a":"xy"}"#]);
    check(
        r#"a < "b""#,
        &[r#"{"a":"a"}"#, r#"{"a":"azzz"}"#, r#"{"a":""}"#, r#"{"a":"\u0061"}"#],
        &[r#"{"a":"b"}"#, r#"{"a":"ba"}"#, r#"{"a":"\u0062"}"#],
    );
    check(r#""b" <= a"#, &[r#"{"a":"b"}"#, r#"{"a":"ba"}"#], &[r#"{"a":"a"}"#]);
    check(
        "a == b",
        &[r#"{"a":"x","b":"\u0078"}"#, r#"{"a":"\t","b":"\u0009"}"#, r#"{"a":1.0,"b":1}"#, r#"{"a":true,"b":true}"#],
        &[r#"{"a":"1","b":1}"#, r#"{"a":{},"b":{}}"#, "{}"],
    );
    check(
        r#"a == "\u00e9\x41\101\U0001F600\n\\\"""#,
        &[r#"{"a":"éAA😀\n\\\""}"#, r#"{"a":"\u00e9A\u0041\ud83d\ude00\n\\\""}"#],
        &[r#"{"a":"é"}"#],
    );
    check(r#"a == r"\d'""#, &[r#"{"a":"\\d'"}"#], &[r#"{"a":"d'"}"#]);
}

#[test]
fn numbers_compare_exactly() {
    check(
        "id == 9007199254740993",
        &[r#"{"id":9007199254740993}"#, r#"{"id":9007199254740993.0}"#],
        &[r#"{"id":9007199254740992}"#, r#"{"id":"9007199254740993"}"#],
    );
    check(
        "id > 18446744073709551615",
        &[r#"{"id":18446744073709551616}"#, r#"{"id":1e20}"#],
        &[r#"{"id":18446744073709551615}"#, r#"{"id":-1e20}"#, r#"{"id":5}"#],
    );
    check("x == 0.1", &[r#"{"x":0.1}"#, r#"{"x":1e-1}"#, r#"{"x":0.10}"#], &[r#"{"x":0.1000000000000000055511151231257827}"#]);
    check("x >= -5", &[r#"{"x":-5}"#, r#"{"x":-4.99}"#, r#"{"x":0}"#], &[r#"{"x":-5.0000001}"#, r#"{"x":-6}"#]);
    check("500 <= status && status < 600", &[r#"{"status":500}"#, r#"{"status":599.9}"#], &[r#"{"status":499}"#, r#"{"status":600}"#]);
    check("x == 1e3", &[r#"{"x":1000}"#], &[r#"{"x":100}"#]);
    check("-1.5 == x", &[r#"{"x":-1.50}"#], &[r#"{"x":1.5}"#]);
    check(
        "used > limit",
        &[r#"{"used":2,"limit":1}"#, r#"{"used":1e30,"limit":1}"#],
        &[r#"{"used":1,"limit":1}"#, r#"{"used":2}"#, r#"{"used":2,"limit":"1"}"#],
    );
}

#[test]
fn a_missing_field_or_a_null_makes_every_comparison_false() {
    let absent = ["{}", r#"{"a":null}"#];
    for text in [
        r#"a == "x""#,
        r#"a != "x""#,
        r#"a < "x""#,
        "a == 1",
        "a != 1",
        "a >= 1",
        "a == true",
        "a != true",
        r#"a in ["x", 1]"#,
        r#"a.contains("")"#,
        r#"a.startsWith("")"#,
        r#"a.endsWith("")"#,
        r#"a.matches("")"#,
        "a",
        "size(a) >= 0",
        "size(a) != 9",
        "a == a",
        "a != a",
        "1 != a",
    ] {
        check(text, &[], &absent);
        check(&format!("!({text})"), &absent, &[]);
    }
    check("has(a)", &[r#"{"a":null}"#, r#"{"a":""}"#, r#"{"a":{}}"#], &["{}", r#"{"b":1}"#]);
    check("a == null", &[r#"{"a":null}"#], &["{}", r#"{"a":"null"}"#, r#"{"a":0}"#, r#"{"a":false}"#]);
    check("a != null", &[r#"{"a":0}"#, r#"{"a":""}"#], &["{}", r#"{"a":null}"#]);
    check("a in [null, 1]", &[r#"{"a":null}"#, r#"{"a":1}"#], &["{}", r#"{"a":2}"#]);
}

#[test]
fn values_of_different_types_are_unequal_and_have_no_order() {
    let others = [r#"{"a":1}"#, r#"{"a":true}"#, r#"{"a":{"b":1}}"#, r#"{"a":["x"]}"#];
    check(r#"a != "x""#, &others, &[r#"{"a":"x"}"#]);
    check(r#"a == "x" || a < "x" || a >= "x""#, &[r#"{"a":"x"}"#], &others);
    check("a != 1", &[r#"{"a":"1"}"#, r#"{"a":false}"#, r#"{"a":[1]}"#], &[r#"{"a":1}"#, r#"{"a":1.0}"#]);
    check("a == true", &[r#"{"a":true}"#], &[r#"{"a":false}"#, r#"{"a":"true"}"#, r#"{"a":1}"#]);
    check("a != true", &[r#"{"a":false}"#, r#"{"a":"true"}"#], &[r#"{"a":true}"#]);
    check("1 < 2 && \"a\" != 1 && true", &["{}"], &[]);
}

#[test]
fn lists_find_values_of_each_type() {
    check(
        r#"a in ["warn", 'error', 5, 1.5, true]"#,
        &[r#"{"a":"warn"}"#, r#"{"a":"\u0065rror"}"#, r#"{"a":5.0}"#, r#"{"a":15e-1}"#, r#"{"a":true}"#],
        &[r#"{"a":"5"}"#, r#"{"a":"war"}"#, r#"{"a":6}"#, r#"{"a":false}"#, r#"{"a":null}"#, r#"{"a":[5]}"#],
    );
    check("a in []", &[], &[r#"{"a":1}"#, "{}"]);
    check("a in [1,]", &[r#"{"a":1}"#], &[]);
    check("\"x\" in [\"x\"] && size(a) in [2]", &[r#"{"a":"xy"}"#], &[r#"{"a":"x"}"#]);
    let many: Vec<String> = (0..1000).map(|i| format!("\"v{i}\", ")).collect();
    check(
        &format!("a in [{}]", many.concat()),
        &[r#"{"a":"v0"}"#, r#"{"a":"v999"}"#, r#"{"a":"v\u0031\u0032"}"#],
        &[r#"{"a":"v1000"}"#, r#"{"a":"v"}"#],
    );
}

#[test]
fn methods_look_into_texts() {
    check(
        r#"a.startsWith("/v1/")"#,
        &[r#"{"a":"/v1/chat"}"#, r#"{"a":"\/v1\/"}"#],
        &[r#"{"a":"/v1"}"#, r#"{"a":"\/v1"}"#, r#"{"a":1}"#, r#"{"a":["/v1/"]}"#],
    );
    check(
        r#"a.endsWith("0")"#,
        &[r#"{"a":"req-10"}"#, r#"{"a":"\u0030"}"#, r#"{"a":"0"}"#],
        &[r#"{"a":"01"}"#, r#"{"a":""}"#, r#"{"a":10}"#, r#"{"a":"\n1"}"#],
    );
    check("a.contains(\"x\\ny\")", &[r#"{"a":"..x\ny"}"#, r#"{"a":"x\u000ay"}"#], &[r#"{"a":"x\\ny"}"#, r#"{"a":"xny"}"#]);
    check(
        r#"a.matches("^(GET|PUT) /v\\d+")"#,
        &[r#"{"a":"GET /v12/x"}"#, r#"{"a":"PUT \/v1"}"#],
        &[r#"{"a":" GET /v1"}"#, r#"{"a":"GET /v"}"#],
    );
    check(r#"a.matches(r"\bOOM\b")"#, &[r#"{"a":"an OOM kill"}"#], &[r#"{"a":"ZOOM"}"#]);
    check(
        r#"kubernetes.labels["app-name"].startsWith("a")"#,
        &[r#"{"kubernetes":{"labels":{"app-name":"abc"}}}"#],
        &[r#"{"kubernetes":{"labels":{}}}"#],
    );
}

#[test]
fn size_counts_characters_elements_and_keys() {
    let sizes = [
        ("\"\"", 0),
        ("\"aé😀\"", 3),
        (r#""\u00e9\ud83d\ude00\n""#, 3),
        ("[]", 0),
        ("[ ]", 0),
        ("{}", 0),
        ("{ \n}", 0),
        ("[1]", 1),
        ("[[1,2],[3]]", 2),
        (r#"["a,]\"[",{"b":[1,2]},null]"#, 3),
        (r#"{"a":1,"b":{"c":1,"d":2}}"#, 2),
        ("[[]]", 1),
        (r#"[""]"#, 1),
        ("[\"\\\\\",2]", 2),
    ];
    for (value, size) in sizes {
        let line = format!("{{\"a\":{value}}}");
        check(&format!("size(a) == {size}"), &[&line], &["{}", r#"{"a":7}"#, r#"{"a":true}"#]);
        check(&format!("size(a) != {size}"), &[], &[&line]);
    }
    check("size(a) > 1.5", &[r#"{"a":"xx"}"#], &[r#"{"a":"x"}"#]);
}

#[test]
fn operators_bind_as_in_cel() {
    let all = |text: &str, want: &[bool]| {
        let lines: Vec<String> = (0..8).map(|n| format!(r#"{{"a":{},"b":{},"c":{}}}"#, n & 4 > 0, n & 2 > 0, n & 1 > 0)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (condition, view) = compile_for(text, &lines);
        let mut mask = vec![true; 8];
        condition.eval(&view, &mut mask);
        assert_eq!(mask, want, "{text}");
    };
    let truth = |f: fn(bool, bool, bool) -> bool| -> Vec<bool> { (0..8).map(|n| f(n & 4 > 0, n & 2 > 0, n & 1 > 0)).collect() };
    all("a || b && c", &truth(|a, b, c| a || b && c));
    all("(a || b) && c", &truth(|a, b, c| (a || b) && c));
    all("!a && b || !(b || c)", &truth(|a, b, c| !a && b || !(b || c)));
    all("!!a && !!!b", &truth(|a, b, _| a && !b));
    all("a == b || b != c && a", &truth(|a, b, c| a == b || b != c && a));
    all("a < b", &truth(|a, b, _| !a & b));
    all("a\n  && b\r\n\t&& true", &truth(|a, b, _| a && b));
    all("false || c", &truth(|_, _, c| c));
}

#[test]
fn field_paths_are_joined_with_dots() {
    let paths = |text: &str| {
        let mut seen = Vec::new();
        Condition::parse(text, &mut |path| {
            seen.push(path.to_string());
            0
        })
        .unwrap_or_else(|e| panic!("{text}: {e}"));
        seen.join(" ")
    };
    assert_eq!(paths("a && kubernetes.labels.tenant == 'x'"), "a kubernetes.labels.tenant");
    assert_eq!(paths(r#"record["odd-key"] == 1 && record["@timestamp"] != '' && record['a']['b'] > 2"#), "odd-key @timestamp a.b");
    assert_eq!(
        paths(r#"record.x == 1 && labels["app.io/name"].contains("y") && has(a.b) && size(record["c"].d) < 3"#),
        "record.x labels.app.io/name a.b c.d"
    );
    assert_eq!(paths("size == 1 && has != 2 && matches.contains('x') && r == 1"), "size has matches r");
}

#[test]
fn only_marked_records_are_asked_about_across_blocks() {
    let lines: Vec<String> = (0..200).map(|i| format!(r#"{{"n":{i},"t":"{}"}}"#, if i % 3 == 0 { "\\u0078" } else { "y" })).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (condition, view) = compile_for(r#"n >= 10 && (t == "x" || n in [11, 64, 128, 199]) && !(n == 63)"#, &lines);
    let mut mask: Vec<bool> = (0..200).map(|i| i % 2 == 1).collect();
    condition.eval(&view, &mut mask);
    for (i, held) in mask.into_iter().enumerate() {
        let alone = i >= 10 && (i % 3 == 0 || [11, 64, 128, 199].contains(&i)) && i != 63;
        assert_eq!(held, alone && i % 2 == 1, "record {i}");
        assert_eq!(condition.matches_one(&view.lines[i], &view.spans[i]), alone, "record {i}");
    }
    assert_eq!(view.fields, ["n", "t"]);
    assert!(!condition.matches_one(b"{}", &[]), "columns beyond the spans are missing");
}

#[test]
fn each_mistake_says_where_and_what_to_write() {
    refused("", 0, "the condition is empty; a condition reads as level == \"error\" && status >= 500");
    refused("level = \"error\" && x", 6, "`=` is no comparison; write level == \"error\"");
    refused("level == \"error\" and x", 17, "`and` cannot stand here; write && for `and`");
    refused("a || b or c", 7, "`or` cannot stand here; write || for `or`");
    refused("a & b", 2, "`&` cannot stand here; write && for `and`");
    refused("a not in ['x']", 2, "`not` cannot stand here; write !(a in [..]) for `not in`");
    refused("msg contains \"x\"", 4, "`contains` cannot stand here; write msg.contains(\"..\")");
    refused("msg =~ \"x\"", 4, "`=~` cannot stand here; write field.matches(\"..\")");
    refused("level ==", 8, "a value is missing at the end; a condition reads as level == \"error\" && status >= 500");
    refused("&& a", 0, "a value is missing before `&&`; a condition reads as level == \"error\" && status >= 500");
    refused("a == \"x", 5, "this text is never closed; write a \" at its end; a line break in a text is written \\n");
    refused("a == r'x", 5, "this text is never closed; write a ' at its end; a line break in a text is written \\n");
    refused("(a || b", 0, "this parenthesis is never closed; write a `)` where it ends");
    refused("a || b)", 6, "this parenthesis was never opened; leave it out, or open it with `(`");
    refused("a in [1, 2", 5, "this list is never closed; write a `]` where it ends");
    refused("a in [1 2]", 8, "a comma or `]` must stand here; write level in [\"warn\", \"error\"]");
    refused(
        "a in [b]",
        6,
        "a text, a number, true, false or null must stand here; put texts in quotes, as in level in [\"warn\", \"error\"]",
    );
    refused("a in b", 5, "after `in` stands a list; write level in [\"warn\", \"error\"]");
    refused("\"x\"", 0, "`\"x\"` is a text; here stands something that is true or false; compare it, as in size(message) > 100");
    refused("a && size(b)", 5, "`size(b)` is a number; here stands something that is true or false; compare it, as in size(message) > 100");
    refused("1 < a < 5", 6, "a comparison cannot be compared again; join two comparisons with &&, as in 1 < a && a < 5");
    refused("!level == \"x\"", 0, "`!` binds tighter than a comparison; put the comparison in parentheses, as in !(level == \"info\")");
    refused("a < null", 2, "only == and != compare a field with null; write field != null, or has(field) to ask whether it is there");
    let all = "the functions are has, size, string, int, double, timestamp, duration; the methods lowerAscii, upperAscii, trim, replace, \
               substring, startsWith, endsWith, contains, matches, size, indexOf, lastIndexOf, charAt, reverse, getFullYear, getMonth, \
               getDate, getDayOfMonth, getDayOfWeek, getDayOfYear, getHours, getMinutes, getSeconds, getMilliseconds";
    refused("lower(a) == 'x'", 0, &format!("there is no function `lower`; {all}"));
    refused("contains(a, 'x')", 0, "there is no function `contains`; write field.contains(\"..\")");
    refused("a.startswith('x')", 2, "there is no method `startswith`; write a.startsWith(\"..\")");
    refused("a.lower() == 'x'", 2, &format!("there is no method `lower`; {all}"));
    refused("a.has() && b", 2, "there is no method `has`; write has(a)");
    refused("a.startsWith(5)", 13, "startsWith takes a text; write a.startsWith(\"..\")");
    refused("a.matches(b)", 10, "matches takes a text in quotes; write a.matches(\"..\")");
    refused("has('a')", 4, "has takes a field; write has(kubernetes.labels.tenant)");
    refused("has(a, b)", 5, "`)` is missing after the argument of has; has takes one argument");
    refused("odd-key = 1", 8, "`=` is no comparison; write odd-key == 1");
    refused(
        "@timestamp == 1",
        0,
        "`@` cannot stand here; a name with other characters than letters, digits and _ is written record[\"odd-key\"]",
    );
    refused("a == \u{201c}x\u{201d}", 5, "`\u{201c}` cannot stand here; write plain quotes: \"..\" or '..'");
    refused(
        "items[0] == 1",
        6,
        "a field name in quotes must stand in the brackets; write record[\"odd-key\"]; elements of lists have no number here",
    );
    refused(
        "a. == 1",
        3,
        "a field name must stand after the dot; a name with other characters than letters, digits and _ is written record[\"odd-key\"]",
    );
    refused("took > 5ms", 7, "this is no number; a number is written 500, -1.5 or 1e6, without a unit; put texts in quotes");
    refused(
        "a == \"\\q\"",
        6,
        "this escape is unknown; write \\\\ for a backslash, or r\"..\" for a text in which backslashes stay as they are",
    );
    refused(
        "a == \"\\ud800\"",
        6,
        "this escape is unknown; write \\\\ for a backslash, or r\"..\" for a text in which backslashes stay as they are",
    );
    refused("['x']", 0, "a list stands only after `in`; write level in [\"warn\", \"error\"]");
    let regex_help = "a pattern is in RE2 syntax; write r\"\\d+\" so that backslashes stay as they are";
    refused("a.matches(\"ab(c\")", 13, &format!("this is no regex: unclosed group; {regex_help}"));
    refused(
        "a.matches(r'[z-a]')",
        13,
        &format!("this is no regex: invalid character class range, the start must be <= the end; {regex_help}"),
    );
    refused("a.matches('\\\\w{5000}{50}')", 10, &format!("this pattern is too large when compiled (1 MiB); {regex_help}"));
}

#[test]
fn limits_refuse_and_what_is_within_passes() {
    let parse = |text: &str| Condition::parse(text, &mut |_| 0).map(drop).map_err(|e| e.message);
    assert_eq!(parse(&format!("{}a{}", "(".repeat(64), ")".repeat(64))), Ok(()));
    assert_eq!(parse(&format!("{}a{}", "(".repeat(65), ")".repeat(65))), Err("the condition is nested deeper than 64".into()));
    assert_eq!(parse(&format!("{}a", "!".repeat(64))), Ok(()));
    assert_eq!(parse(&format!("{}a", "!".repeat(16_000))), Err("the condition is nested deeper than 64".into()));
    assert_eq!(parse(&vec!["(a)"; 2_000].join("||")), Ok(()));
    assert_eq!(parse(&format!("a{}", " ".repeat(TEXT_BYTES_MAX))), Err("the condition has 16385 bytes; the limit is 16384".into()));
    assert_eq!(parse(&format!("a in [{}]", "1,".repeat(1_000))), Ok(()));
    assert_eq!(parse(&format!("a in [{}]", "1,".repeat(1_001))), Err("a list has at most 1000 values".into()));
    assert_eq!(parse(&vec!["a.matches('x')"; 32].join("||")), Ok(()));
    assert_eq!(parse(&vec!["a.matches('x')"; 33].join("||")), Err("a condition has at most 32 regexes".into()));
}

/// A small deterministic generator (Vigna, xorshift64*). `SEED=..` runs one seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn for_each_seed(seeds: u64, run: fn(u64, &mut Random)) {
    match std::env::var("SEED") {
        Ok(seed) => run(seed.parse().expect("SEED is a number"), &mut Random(seed.parse::<u64>().expect("SEED is a number") * 2 + 1)),
        Err(_) => (1..=seeds).for_each(|seed| run(seed, &mut Random(seed * 2 + 1))),
    }
}

#[test]
fn no_text_panics_and_every_mistake_lies_inside_it() {
    const PIECES: [&str; 62] = [
        "a",
        "level",
        "record",
        "has",
        "size",
        "matches",
        "in",
        "true",
        "null",
        "and",
        "not",
        "r\"",
        "\"",
        "'",
        "\"x\"",
        "'é'",
        "5",
        "1.5",
        "1e",
        ".",
        "-",
        "(",
        ")",
        "[",
        "]",
        ",",
        "==",
        "!=",
        "=",
        "<",
        ">=",
        "&&",
        "||",
        "!",
        "&",
        "|",
        "~",
        " ",
        "\n",
        "\\",
        "\\u",
        "é",
        "\u{201c}",
        "\0",
        "?",
        ".matches(\"",
        ".contains('x')",
        "has(a)",
        "+",
        "*",
        "%",
        ":",
        "a + 1 > b",
        "string(a)",
        "int(",
        "timestamp(a)",
        "timestamp(",
        "duration('1h')",
        ".getHours(",
        ".getDate('+02:00')",
        ".charAt(",
        ".reverse().indexOf(a)",
    ];
    for_each_seed(40_000, |seed, random| {
        let text: String = (0..random.below(14)).map(|_| random.pick(&PIECES)).collect();
        match Condition::parse(&text, &mut |_| 0) {
            Ok(condition) => {
                let span = Span {
                    start: 1,
                    end: 4,
                    kind: random.pick(&[Kind::Text, Kind::Escaped, Kind::Number, Kind::Missing, Kind::Null, Kind::Array]),
                };
                let line = random.pick(&[&b"[5,6]"[..], b"\"\\u0\"", b"\"123\"", b"\"\xff\\x\""]);
                condition.matches_one(line, &[span]);
            }
            Err(error) => {
                assert!(error.at <= text.len() && text.is_char_boundary(error.at), "SEED={seed}: {text:?} {error:?}");
                assert!(!error.message.is_empty() && !error.help.is_empty(), "SEED={seed}: {text:?} {error:?}");
            }
        }
    });
}

type Oracle = Box<dyn Fn(&Json) -> bool>;

/// A random condition, and what it means, told in another way: over serde_json's tree.
fn random_condition(random: &mut Random, depth: usize) -> (String, Oracle) {
    let field = random.pick(&["a", "b", "c.d"]);
    let get = move |record: &Json| match field {
        "c.d" => record["c"].get("d").cloned(),
        _ => record.get(field).cloned(),
    };
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => (format!("has({field})"), Box::new(move |record| get(record).is_some())),
        1 => (field.into(), Box::new(move |record| get(record) == Some(Json::Bool(true)))),
        2 => {
            let text = random.pick(&["x", "xy", "y\n", ""]);
            let method = random.pick(&["startsWith", "endsWith", "contains"]);
            let oracle = move |record: &Json| match (get(record), method) {
                (Some(Json::String(own)), "startsWith") => own.starts_with(text),
                (Some(Json::String(own)), "endsWith") => own.ends_with(text),
                (Some(Json::String(own)), _) => own.contains(text),
                _ => false,
            };
            (format!("{field}.{method}('{}')", text.replace('\n', "\\n")), Box::new(oracle))
        }
        3 => {
            let (size, op) = (random.below(3) as u64, random.pick(&["==", "!=", "<", ">="]));
            let oracle = move |record: &Json| {
                let own = match get(record) {
                    Some(Json::String(own)) => own.chars().count(),
                    Some(Json::Array(own)) => own.len(),
                    Some(Json::Object(own)) => own.len(),
                    _ => return false,
                };
                ordered(op, (own as u64).cmp(&size))
            };
            (format!("size({field}) {op} {size}"), Box::new(oracle))
        }
        4 | 5 => {
            let (literal, op) = (
                random.pick(&["'x'", "'xy'", "'y\\n'", "0", "-1.5", "1.0", "250e-2", "true", "false"]),
                random.pick(&["==", "!=", "<", "<=", ">", ">="]),
            );
            let value: Json = serde_json::from_str(&literal.replace('\'', "\"")).expect("a literal is JSON");
            let oracle = move |record: &Json| match (get(record), &value) {
                (None | Some(Json::Null), _) => false,
                (Some(Json::String(own)), Json::String(value)) => ordered(op, own.as_bytes().cmp(value.as_bytes())),
                (Some(Json::Bool(own)), Json::Bool(value)) => ordered(op, own.cmp(value)),
                // The numbers here are exact in an f64.
                (Some(Json::Number(own)), Json::Number(value)) => ordered(op, own.as_f64().partial_cmp(&value.as_f64()).expect("no NaN")),
                _ => op == "!=",
            };
            (format!("{field} {op} {literal}"), Box::new(oracle))
        }
        6 => {
            let (text, inner) = random_condition(random, depth - 1);
            (format!("!({text})"), Box::new(move |record| !inner(record)))
        }
        joined => {
            let ((left, left_oracle), (right, right_oracle)) = (random_condition(random, depth - 1), random_condition(random, depth - 1));
            match joined {
                7 => (format!("({left}) && ({right})"), Box::new(move |record| left_oracle(record) && right_oracle(record))),
                _ => (format!("({left} || {right})"), Box::new(move |record| left_oracle(record) || right_oracle(record))),
            }
        }
    }
}

fn ordered(op: &str, order: Ordering) -> bool {
    match op {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }
}

#[test]
fn random_conditions_agree_with_a_reading_of_the_tree() {
    for_each_seed(3_000, |seed, random| {
        let (text, oracle) = random_condition(random, 3);
        const VALUES: [&str; 18] = [
            "\"x\"",
            "\"xy\"",
            "\"y\\n\"",
            "\"\\u0078\"",
            "\"\\u0078y\"",
            "\"\"",
            "0",
            "-0.0",
            "1",
            "-1.5",
            "2.5",
            "1e0",
            "true",
            "false",
            "null",
            "[1,2]",
            "{\"d\":\"x\"}",
            "{\"d\":1}",
        ];
        let lines: Vec<String> = (0..70)
            .map(|_| {
                let members: Vec<&str> = ["a", "b", "c"].into_iter().filter(|_| random.below(5) > 0).collect();
                let members: Vec<String> = members.iter().map(|key| format!("\"{key}\":{}", random.pick(&VALUES))).collect();
                format!("{{{}}}", members.join(","))
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (condition, view) = compile_for(&text, &lines);
        let mut mask = vec![true; lines.len()];
        condition.eval(&view, &mut mask);
        for (i, line) in lines.iter().enumerate() {
            let want = oracle(&serde_json::from_str(line).expect("a line is JSON"));
            assert_eq!(mask[i], want, "SEED={seed}: {text} for {line}");
            assert_eq!(condition.matches_one(&view.lines[i], &view.spans[i]), want, "SEED={seed}: {text} alone for {line}");
        }
    });
}
