//! Expressions as tables, and against an independent evaluator over serde_json's values.

use super::*;
use crate::fields::{FieldSet, Scanner};
use serde_json::Value as Json;
use std::sync::Arc;

/// The value of an expression for a record, as JSON text; `-` where it has none.
#[track_caller]
fn value_of(text: &str, line: &str) -> String {
    let mut fields: Vec<String> = Vec::new();
    let mut resolve = |path: &str| {
        fields.iter().position(|own| own == path).unwrap_or_else(|| {
            fields.push(path.into());
            fields.len() - 1
        })
    };
    let expression = Expression::parse(text, &mut resolve).unwrap_or_else(|e| panic!("{text}\n{}^ {e}", " ".repeat(e.at)));
    let mut spans = vec![Span::default(); fields.len()];
    assert_eq!(Scanner::new(Arc::new(FieldSet::new(&fields))).scan(line.as_bytes(), &mut spans).malformed, None, "{line}");
    let mut out = b"before".to_vec();
    let found = expression.write(line.as_bytes(), &spans, &mut out);
    let value = out.strip_prefix(b"before").expect("what was there stays");
    assert_eq!(found, !value.is_empty(), "{text}");
    assert_eq!(expression.value(line.as_bytes(), &spans).ok().as_deref(), found.then_some(value), "{text}");
    if found { String::from_utf8(value.to_vec()).expect("a value is UTF-8") } else { "-".into() }
}

/// Each row: the expression, a record, and the value.
#[track_caller]
fn check(rows: &[(&str, &str, &str)]) {
    for (text, line, want) in rows {
        assert_eq!(value_of(text, line), *want, "{text} of {line}");
    }
}

#[track_caller]
fn refused(text: &str, want_at: usize, want: &str) {
    let error = Expression::parse(text, &mut |_| 0).expect_err(text);
    assert_eq!((error.at, error.to_string().as_str()), (want_at, want), "{text}");
}

#[test]
fn texts_are_joined_cut_and_changed() {
    let line = r#"{"a":"Über \"x\"","p":"/v1/chat/42","s":"  Mixed \t"}"#;
    check(&[
        (r#"a + "-" + p"#, line, r#""Über \"x\"-/v1/chat/42""#),
        ("s.trim().lowerAscii()", line, r#""mixed""#),
        ("s.trim().upperAscii().size()", line, "5"),
        (r#"p.replace("/", ".")"#, line, r#"".v1.chat.42""#),
        (r#"p.replace("/", ".", 1)"#, line, r#"".v1/chat/42""#),
        (r#"p.replace("/", ".", 0)"#, line, r#""/v1/chat/42""#),
        (r#""abc".replace("", "_")"#, line, r#""_a_b_c_""#),
        ("a.substring(0, 4)", line, r#""Über""#),
        ("a.substring(5)", line, r#""\"x\"""#),
        ("a.substring(8)", line, r#""""#),
        ("a.substring(9)", line, "-"),
        ("a.substring(3, 2)", line, "-"),
        ("a.substring(-1)", line, "-"),
        (r#"p.startsWith("/v1/") && p.endsWith("42") && p.contains("chat")"#, line, "true"),
        (r#"p.matches(r"^/v\d+/") ? "api" : "other""#, line, r#""api""#),
        ("p.startsWith(p)", line, "true"),
        ("size(a) + a.size()", line, "16"),
        (r#""tab\t\u0001""#, "{}", r#""tab\t\u0001""#),
        (r#"record["odd-key"] + labels["app-name"]"#, r#"{"odd-key":"a","labels":{"app-name":"b"}}"#, r#""ab""#),
        ("a", r#"{"a":"\ud83d\ude00\ud800"}"#, "\"\u{1f600}\u{fffd}\""),
    ]);
}

#[test]
fn characters_are_found_by_their_number() {
    let line = r#"{"a":"\u00fcber/x/\ud83d\ude00","n":1}"#;
    check(&[
        (r#"a.indexOf("/")"#, line, "4"),
        (r#"a.lastIndexOf("/")"#, line, "6"),
        (r#"a.indexOf("?")"#, line, "-1"),
        (r#"a.lastIndexOf("")"#, line, "8"),
        (r#"a.indexOf("")"#, line, "0"),
        ("a.charAt(0)", line, "\"\u{fc}\""),
        ("a.charAt(7)", line, "\"\u{1f600}\""),
        ("a.charAt(8)", line, r#""""#),
        ("a.charAt(9)", line, "-"),
        ("a.charAt(-1)", line, "-"),
        ("a.reverse()", line, "\"\u{1f600}/x/reb\u{fc}\""),
        (r#"a.substring(a.indexOf("/") + 1, a.lastIndexOf("/"))"#, line, r#""x""#),
        ("n.reverse()", line, "-"),
    ]);
}

#[test]
fn times_are_read_compared_and_taken_apart() {
    // A Saturday, the 60th day of a leap year.
    let line = r#"{"ts":"2020-02-29T23:59:58.987+01:00","ms":1582930798987,"end":"2020-03-01 01:00:00","took":"1h30m","bad":"soon","z":0,"n":null}"#;
    check(&[
        ("timestamp(ts)", line, r#""2020-02-29T22:59:58.987Z""#),
        ("timestamp(ms)", line, r#""2020-02-28T22:59:58.987Z""#),
        ("timestamp(1582930798)", line, r#""2020-02-28T22:59:58Z""#),
        ("timestamp(1582930798.5)", line, r#""2020-02-28T22:59:58.500Z""#),
        ("timestamp(timestamp(ts)) == timestamp(ts)", line, "true"),
        ("timestamp(bad)", line, "-"),
        ("timestamp(z)", line, "-"),
        ("timestamp(n)", line, "-"),
        ("timestamp(gone)", line, "-"),
        ("int(timestamp(ts))", line, "1583017198"),
        ("string(timestamp(ts))", line, r#""2020-02-29T22:59:58.987Z""#),
        ("timestamp(ts) < timestamp(end)", line, "true"),
        ("timestamp(ts) == timestamp(end)", line, "false"),
        ("timestamp(end) - timestamp(ts)", line, r#""7201.013s""#),
        ("timestamp(end) - timestamp(ts) > duration(took)", line, "true"),
        ("timestamp(ts) + duration(took)", line, r#""2020-03-01T00:29:58.987Z""#),
        ("duration(took) + timestamp(ts) - duration(took) == timestamp(ts)", line, "true"),
        ("timestamp(ts).getFullYear()", line, "2020"),
        ("timestamp(ts).getMonth()", line, "1"),
        ("timestamp(ts).getDate()", line, "29"),
        ("timestamp(ts).getDayOfMonth()", line, "28"),
        ("timestamp(ts).getDayOfWeek()", line, "6"),
        ("timestamp(end).getDayOfWeek()", line, "0"),
        ("timestamp(ts).getDayOfYear()", line, "59"),
        ("timestamp(ts).getHours()", line, "22"),
        ("timestamp(ts).getMinutes()", line, "59"),
        ("timestamp(ts).getSeconds()", line, "58"),
        ("timestamp(ts).getMilliseconds()", line, "987"),
        (r#"timestamp(ts).getHours("+02:00")"#, line, "0"),
        (r#"timestamp(ts).getDate("+0200")"#, line, "1"),
        (r#"timestamp(ts).getDate("-11:30")"#, line, "29"),
        (r#"timestamp(ts).getHours("UTC") == timestamp(ts).getHours("Z")"#, line, "true"),
        ("duration(took)", line, r#""5400s""#),
        ("string(duration(took))", line, r#""5400s""#),
        ("duration(took).getHours()", line, "1"),
        ("duration(took).getMinutes()", line, "90"),
        ("duration(took).getSeconds()", line, "5400"),
        ("duration(took).getMilliseconds()", line, "5400000"),
        ("(has(z) ? duration(took) : timestamp(ts)).getMonth()", line, "-"),
        ("duration(took) - duration(\"2h\")", line, r#""-1800s""#),
        ("duration(\"1.5h\") == duration(took)", line, "true"),
        ("duration(\"-1m1.25s250ms1us2ns\")", line, r#""-61.500001002s""#),
        ("duration(\"0\") < duration(\".5ns1ns\")", line, "true"),
        ("duration(\"2562047h\") + duration(took)", line, "-"),
        ("timestamp(ts) + duration(\"2562047h\")", line, "-"),
        ("timestamp(ts) - duration(\"2562047h\") - duration(\"2562047h\")", line, "-"),
        ("duration(bad)", line, "-"),
        ("duration(z)", line, "-"),
        ("(has(z) ? timestamp(ts) : \"x\") == \"x\"", line, "false"),
        ("(has(z) ? timestamp(ts) : \"x\") < \"x\"", line, "-"),
    ]);
}

#[test]
fn mistakes_with_times_are_refused() {
    let times = "as in timestamp(ts) + duration(\"1h\") > timestamp(\"2026-01-31T12:00:00Z\")";
    refused(
        "duration(\"1 day\")",
        9,
        "\"1 day\" cannot be read: it is no duration of at most 292 years; write duration(\"1h30m\"), with h, m, s, ms, us and ns",
    );
    for text in ["", "-", "1", "h", ".h", "1..5h", "1.5.5h", "1d", "1h ", "1H", "99999999999999999999h", "-9223372037s"] {
        assert!(Expression::parse(&format!("duration(\"{text}\")"), &mut |_| 0).is_err(), "{text}");
    }
    refused(
        "timestamp(\"2026-01-31\") < timestamp(ts)",
        10,
        "\"2026-01-31\" cannot be read: it is no time of the years 1990 to 2100; write timestamp(ts), or timestamp(\"2026-01-31T12:00:00Z\")",
    );
    let bare = "write timestamp(ts) for a field with a time, duration(took) for one such as 1.5s";
    refused("a > timestamp(b)", 2, &format!("a field is never a timestamp, and here is one on the left; {bare}"));
    refused("duration(\"1h\") < a", 15, &format!("a field is never a duration, and here is one on the right; {bare}"));
    refused("timestamp(a) - b", 13, &format!("a field is never a timestamp, and here is one on the right; {bare}"));
    refused("timestamp(a) > \"2026\"", 13, &format!("a timestamp is never compared with a text; {times}"));
    refused("timestamp(a) + timestamp(b)", 13, &format!("`+` does not take two timestamps; {times}"));
    refused("duration(a) - timestamp(b)", 12, &format!("a duration and a timestamp are not computed with each other; {times}"));
    refused("duration(a) * 2", 12, &format!("`*` takes numbers, and this is a duration; {times}"));
    refused("timestamp(a) + 5", 13, &format!("a timestamp and an int are not computed with each other; {times}"));
    refused(
        "timestamp(a) in [1]",
        13,
        "a list holds no times, and this is a timestamp; string(x) makes a text of it; compare times with < and >=",
    );
    refused("timestamp(a).trim()", 13, "trim is a method of texts, and this is a timestamp; string(x) makes a text of it");
    let of = "timestamp(x) makes one of a text or a number, as in";
    refused("a.getHours()", 2, &format!("getHours is a method of timestamps, and this is a field; {of} timestamp(ts).getHours()"));
    refused(
        "duration(a).getMonth()",
        12,
        &format!("getMonth is a method of timestamps, and this is a duration; {of} timestamp(ts).getMonth()"),
    );
    refused(
        "timestamp(a).getHours(\"Europe/Berlin\")",
        22,
        "`Europe/Berlin` is no offset from UTC; write \"+02:00\" or \"UTC\"; names of zones, which change their offset, are not known here",
    );
    refused("timestamp(a).gethours()", 13, "there is no method `gethours`; write .getHours(..)");
    refused("int(duration(a))", 4, "int makes nothing of a duration; write d.getSeconds()");
    refused("timestamp(true)", 10, "timestamp makes nothing of true or false; write flag ? 1 : 0");
    refused(
        "a && timestamp(b)",
        5,
        "`timestamp(b)` is a timestamp; here stands something that is true or false; compare it, as in size(message) > 100",
    );
}

#[test]
fn ints_are_exact_and_checked() {
    let line = r#"{"n":9007199254740993,"max":9223372036854775807,"min":-9223372036854775808,"long":18446744073709551616,"z":0,"d":1.50}"#;
    check(&[
        ("n", line, "9007199254740993"),
        ("n + 1", line, "9007199254740994"),
        ("n == 9007199254740992", line, "false"),
        ("max", line, "9223372036854775807"),
        ("max + 1", line, "-"),
        ("min - 1", line, "-"),
        ("-min", line, "-"),
        ("min / -1", line, "-"),
        ("min % -1", line, "-"),
        ("max * 2", line, "-"),
        ("n / z", line, "-"),
        ("n % z", line, "-"),
        ("-7 / 2", line, "-3"),
        ("-7 % 2", line, "-1"),
        ("2 + 3 * 4 - 6 / 2", line, "11"),
        ("(2 + 3) * 4", line, "20"),
        ("10 - 3 - 2", line, "5"),
        ("-9223372036854775808", line, "-9223372036854775808"),
        // What is only passed on stays as it was written.
        ("long", line, "18446744073709551616"),
        ("d", line, "1.50"),
        ("long > max", line, "true"),
        ("long + 1", line, "-"),
        ("string(long)", line, r#""18446744073709551616""#),
        ("int(long)", line, "-"),
    ]);
}

#[test]
fn doubles_do_not_mix_with_ints_and_stay_doubles() {
    let line = r#"{"d":2.5,"n":2,"big":1e308,"t":"1.25"}"#;
    check(&[
        ("d * 2.0", line, "5.0"),
        ("d / 0.5", line, "5.0"),
        ("-d", line, "-2.5"),
        ("d * 2", line, "-"),
        ("d * double(n)", line, "5.0"),
        ("n + d", line, "-"),
        ("big * 10.0", line, "-"),
        ("d / 0.0", line, "-"),
        ("d > n", line, "true"),
        ("d == 2.50", line, "true"),
        ("n == 2.0", line, "true"),
        ("int(d)", line, "2"),
        ("int(-d)", line, "-2"),
        ("int(big)", line, "-"),
        ("double(t) + 0.5", line, "1.75"),
        ("double(n)", line, "2.0"),
        ("int(\"42\") + 1", line, "43"),
        ("int(t)", line, "-"),
        ("double(\"x\" + t)", line, "-"),
        ("string(d) + string(n) + string(true)", line, r#""2.52true""#),
        ("string(double(n))", line, r#""2""#),
    ]);
}

#[test]
fn an_error_is_no_value_unless_something_else_decides() {
    let line = r#"{"a":"x","n":1,"null":null,"yes":true,"list":[1,2,[3]],"o":{"k":1}}"#;
    check(&[
        ("gone", line, "-"),
        ("a + gone", line, "-"),
        ("a + n", line, "-"),
        ("n + a", line, "-"),
        ("has(gone) ? gone : \"none\"", line, r#""none""#),
        ("has(record[\"null\"])", line, "true"),
        ("record[\"null\"]", line, "null"),
        ("record[\"null\"] == null", line, "true"),
        ("a == null", line, "false"),
        ("gone == null", line, "-"),
        ("gone == \"x\" || yes", line, "true"),
        ("yes || gone == \"x\"", line, "true"),
        ("gone == \"x\" && a == \"y\"", line, "false"),
        ("gone == \"x\" || a == \"y\"", line, "-"),
        ("gone == \"x\" && yes", line, "-"),
        ("a && yes", line, "-"),
        ("!a", line, "-"),
        ("!yes", line, "false"),
        ("a ? 1 : 2", line, "-"),
        ("yes ? gone : 2", line, "-"),
        ("yes ? 1 : gone", line, "1"),
        ("a < n", line, "-"),
        ("a == n", line, "false"),
        ("a != n", line, "true"),
        ("a in [\"x\", 1, null]", line, "true"),
        ("gone in [\"x\"]", line, "-"),
        ("list", line, "[1,2,[3]]"),
        ("o", line, r#"{"k":1}"#),
        ("size(list) + size(o)", line, "4"),
        ("list == list", line, "-"),
        ("list == a", line, "false"),
        ("size(n)", line, "-"),
        ("n.trim()", line, "-"),
        ("string(record[\"null\"])", line, "-"),
        ("n == 1 ? n == 2 ? \"a\" : \"b\" : \"c\"", line, r#""b""#),
    ]);
}

#[test]
fn what_grows_without_bound_is_an_error() {
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(VALUE_BYTES_MAX / 2 + 1));
    check(&[("a + a", &long, "-"), ("size(a + a.substring(2))", &long, "1048576"), (r#"a.replace("", a)"#, &long, "-")]);
    check(&[(r#"a.replace("x", "").size()"#, &long, "0")]);
}

#[test]
fn what_is_wrong_for_every_record_is_refused() {
    refused(
        "a + 1 + \"x\"",
        6,
        "an int and a text are not computed with each other; string(x), int(x) and double(x) make one of the other",
    );
    refused("1 + 1.5", 2, "an int and a double are not computed with each other; string(x), int(x) and double(x) make one of the other");
    refused("true + a", 5, "`+` takes texts and numbers, and this is true or false; string(x), int(x) and double(x) make one of the other");
    refused("a - \"x\"", 2, "`-` takes numbers, and this is a text; string(x), int(x) and double(x) make one of the other");
    refused("a % 2.0", 2, "`%` takes ints, and this is a double; string(x), int(x) and double(x) make one of the other");
    refused("a / 0", 4, "this divides by zero; divide by something else, as in n == 0 ? 0 : total / n");
    refused(
        "9223372036854775807 + 1",
        20,
        "`9223372036854775807 + 1` never has a value: it does not fit into 64 bits; compute with values that fit, or leave the field out",
    );
    refused(
        "9223372036854775808",
        0,
        "this number does not fit into an int; an int has 64 bits: write a number with a fraction, or a text in quotes",
    );
    refused("1e999", 0, "this number does not fit into a double; a double goes to 1.79e308");
    refused("\"a\" < 1", 4, "a text is never compared with an int; string(x), int(x) and double(x) make one of the other");
    refused("a > null == b", 9, "a comparison cannot be compared again; join two comparisons with &&, as in 1 < a && a < 5");
    refused("a > null", 2, "null has no order; write a != null, or has(a) to ask whether it is there");
    refused("\"a\" ? 1 : 2", 0, "`\"a\"` is a text; here stands something that is true or false; compare it, as in size(message) > 100");
    refused("a && size(b)", 5, "`size(b)` is an int; here stands something that is true or false; compare it, as in size(message) > 100");
    refused("a ? 1", 5, "`:` and a value are missing after `?`; write level == \"error\" ? \"bad\" : \"good\"");
    refused("size(5)", 5, "only texts, lists and objects have a size; write size(message)");
    refused("(1 + 2).trim()", 8, "trim is a method of texts, and this is an int; string(x) makes a text of it");
    refused(
        "a.lower()",
        2,
        "there is no method `lower`; the methods are lowerAscii, upperAscii, trim, replace, substring, startsWith, endsWith, contains, matches, size, \
         indexOf, lastIndexOf, charAt, reverse, getFullYear, getMonth, getDate, getDayOfMonth, getDayOfWeek, getDayOfYear, getHours, \
         getMinutes, getSeconds, getMilliseconds",
    );
    refused("a.lowerascii()", 2, "there is no method `lowerascii`; write .lowerAscii(..)");
    refused("lowerAscii(a)", 0, "there is no function `lowerAscii`; write field.lowerAscii(..)");
    refused("a.replace(\"x\" \"y\")", 14, "replace takes two texts, and a comma between them; write path.replace(\"/\", \"-\")");
    refused("a.replace(1, \"y\")", 10, "here stands a text, and this is an int; write a text in quotes, a field, or string(x)");
    refused("a.substring()", 12, "an int is missing here; characters are counted from 0, as in name.substring(0, 3)");
    refused("a.matches(b)", 10, "matches takes a text in quotes; write path.matches(\"^/v1/\")");
    refused(
        "a.matches(\"x(\")",
        12,
        "this is no regex: unclosed group; a pattern is in RE2 syntax; write r\"\\d+\" so that backslashes stay as they are",
    );
    refused("has(a + 1)", 4, "has takes a field; write has(kubernetes.labels.tenant)");
    refused("int(true)", 4, "int makes nothing of true or false; write flag ? 1 : 0");
    refused(
        "\"a\".substring(2)",
        4,
        "`\"a\".substring(2)` never has a value: the text does not reach so far; compute with values that fit, or leave the field out",
    );
    refused("", 0, "the expression is empty; an expression reads as service + \"-\" + string(status / 100)");
    refused("a +", 3, "a value is missing at the end; an expression reads as service + \"-\" + string(status / 100)");
    refused("a \"x\"", 2, "`\"x\"` cannot stand here; join texts with +");
    refused("a and b", 2, "`and` cannot stand here; write && for `and`");
    refused("(a", 0, "this parenthesis is never closed; write a `)` where it ends");
    refused("a)", 1, "`)` cannot stand here; leave it out, or open it with `(`");
    refused("[1]", 0, "a list stands only after `in`; write level in [\"warn\", \"error\"]");
}

#[test]
fn no_text_and_no_nesting_exhausts_the_stack() {
    for (open, close) in [("(", ")"), ("!", ""), ("-", ""), ("size(", ")"), ("a ? b : ", ""), ("a.replace(b, ", ")"), ("a[", "]")] {
        let text = format!("{}a{}", open.repeat(1_500), close.repeat(1_500));
        assert!(Expression::parse(&text, &mut |_| 0).is_err(), "{open}");
    }
    for part in [" + a", " * a", " || a", " && a", ".trim()"] {
        let text = format!("a{}", part.repeat(2_000));
        let expression = Expression::parse(&text, &mut |_| 0).expect("long, not deep");
        expression.write(br#"{"a":1}"#, &[Span { start: 5, end: 6, kind: Kind::Number }], &mut Vec::new());
    }
    let deep = (0..30).fold("a".to_string(), |inner, _| format!("(a + string({inner}).trim())"));
    Expression::parse(&deep, &mut |_| 0).expect("as deep as it may be");
    assert!(Expression::parse(&"a".repeat(17 << 10), &mut |_| 0).is_err());
}

/// The same expression for the oracle: how it is written, and what it means over serde_json's values.
enum Tree {
    Literal(&'static str),
    Field(&'static str),
    Two(&'static str, Box<Tree>, Box<Tree>),
    If(Box<[Tree; 3]>),
    Has(&'static str),
    Call(&'static str, Box<Tree>),
    Method(&'static str, Box<Tree>, &'static [&'static str]),
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

const NAMES: [&str; 8] = ["i", "j", "big", "d", "s", "t", "b", "gone"];

fn grow(dice: &mut Dice, depth: usize) -> Tree {
    let leaf = |dice: &mut Dice| match dice.below(3) {
        0 => {
            Tree::Literal(dice.pick(&["0", "1", "-3", "9223372036854775807", "2.5", "-0.25", "\"\"", "\"aB\"", "\"é\\n\"", "true", "null"]))
        }
        _ => Tree::Field(dice.pick(&NAMES)),
    };
    if depth == 0 {
        return leaf(dice);
    }
    let sub = |dice: &mut Dice| Box::new(grow(dice, depth - 1));
    match dice.below(12) {
        0 => leaf(dice),
        1..=3 => Tree::Two(dice.pick(&["+", "-", "*", "/", "%"]), sub(dice), sub(dice)),
        4 | 5 => Tree::Two(dice.pick(&["==", "!=", "<", "<=", ">", ">="]), sub(dice), sub(dice)),
        6 | 7 => Tree::Two(dice.pick(&["&&", "||"]), sub(dice), sub(dice)),
        8 => Tree::If(Box::new([grow(dice, depth - 1), grow(dice, depth - 1), grow(dice, depth - 1)])),
        9 => Tree::Has(dice.pick(&NAMES)),
        10 => Tree::Call(dice.pick(&["!", "-", "string", "int", "double", "size"]), sub(dice)),
        _ => {
            let (name, arguments): (_, &'static [&'static str]) = dice.pick(&[
                ("trim", &[] as &[&str]),
                ("lowerAscii", &[]),
                ("upperAscii", &[]),
                ("size", &[]),
                ("startsWith", &["\"a\""]),
                ("contains", &["\"B\""]),
                ("replace", &["\"a\"", "\"--\""]),
                ("substring", &["1"]),
                ("substring", &["0", "2"]),
            ]);
            Tree::Method(name, sub(dice), arguments)
        }
    }
}

impl Tree {
    fn text(&self) -> String {
        match self {
            Tree::Literal(text) | Tree::Field(text) => text.to_string(),
            Tree::Two(op, a, b) => format!("({} {op} {})", a.text(), b.text()),
            Tree::If(parts) => format!("({} ? {} : {})", parts[0].text(), parts[1].text(), parts[2].text()),
            Tree::Has(name) => format!("has({name})"),
            Tree::Call(name @ ("!" | "-"), part) => format!("{name}({})", part.text()),
            Tree::Call(name, part) => format!("{name}({})", part.text()),
            Tree::Method(name, part, arguments) => format!("({}).{name}({})", part.text(), arguments.join(", ")),
        }
    }

    /// `None`: an error.
    fn mean(&self, record: &Json) -> Option<Json> {
        let int = |value: i128| i64::try_from(value).ok().map(Json::from);
        let double = |value: f64| value.is_finite().then(|| Json::from(value));
        let whole = |value: &Json| value.as_i64().map(i128::from);
        let float = |value: &Json| value.as_f64().filter(|_| value.is_f64());
        match self {
            Tree::Literal(text) => serde_json::from_str(text).ok(),
            Tree::Field(name) => record.get(name).cloned(),
            Tree::Has(name) => Some(record.get(name).is_some().into()),
            Tree::If(parts) => parts[if parts[0].mean(record)?.as_bool()? { 1 } else { 2 }].mean(record),
            Tree::Two(op @ ("&&" | "||"), a, b) => {
                let winner = *op == "||";
                let sides = [a, b].map(|side| side.mean(record).and_then(|value| value.as_bool()));
                if sides.contains(&Some(winner)) {
                    return Some(winner.into());
                }
                sides.iter().all(Option::is_some).then(|| (!winner).into())
            }
            Tree::Two(op, a, b) => {
                let (a, b) = (a.mean(record)?, b.mean(record)?);
                let order = match (&a, &b) {
                    (Json::Number(_), Json::Number(_)) => match (whole(&a), whole(&b)) {
                        (Some(a), Some(b)) => Some(a.cmp(&b)),
                        // Exact, as long as no int beyond 2^53 meets a double.
                        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
                    },
                    (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
                    (Json::Bool(a), Json::Bool(b)) => Some(a.cmp(b)),
                    _ => None,
                };
                let equal = order.map_or(a == b, |order| order.is_eq());
                match *op {
                    "==" => return Some(equal.into()),
                    "!=" => return Some((!equal).into()),
                    "<" => return Some(order?.is_lt().into()),
                    "<=" => return Some(order?.is_le().into()),
                    ">" => return Some(order?.is_gt().into()),
                    ">=" => return Some(order?.is_ge().into()),
                    _ => {}
                }
                if let (Json::String(a), Json::String(b), "+") = (&a, &b, *op) {
                    return Some(format!("{a}{b}").into());
                }
                if let (Some(a), Some(b)) = (whole(&a), whole(&b)) {
                    return int(match *op {
                        "+" => a + b,
                        "-" => a - b,
                        "*" => a * b,
                        _ if b == 0 => return None,
                        "/" => a / b,
                        _ if a == i128::from(i64::MIN) && b == -1 => return None, // its quotient does not fit
                        _ => a % b,
                    });
                }
                let (a, b) = (float(&a)?, float(&b)?);
                double(match *op {
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    "/" => a / b,
                    _ => return None,
                })
            }
            Tree::Call(name, part) => {
                let value = part.mean(record)?;
                match (*name, &value) {
                    ("!", Json::Bool(value)) => Some((!value).into()),
                    ("-", Json::Number(_)) => whole(&value).map_or_else(|| double(-value.as_f64()?), |value| int(-value)),
                    ("string", Json::String(_)) => Some(value),
                    ("string", Json::Bool(value)) => Some(value.to_string().into()),
                    ("string", Json::Number(_)) => {
                        Some(whole(&value).map_or_else(|| value.as_f64().map(|v| v.to_string()), |v| Some(v.to_string()))?.into())
                    }
                    ("int", Json::Number(_)) => {
                        whole(&value).map_or_else(|| value.as_f64().filter(|v| v.abs() < 9e18).and_then(|v| int(v as i128)), int)
                    }
                    ("int", Json::String(text)) => text.parse::<i64>().ok().map(Json::from),
                    ("double", Json::Number(_)) => double(value.as_f64()?),
                    ("double", Json::String(text)) => {
                        text.parse().ok().filter(|_| text.bytes().any(|b| b.is_ascii_digit())).and_then(double)
                    }
                    ("size", Json::String(text)) => int(text.chars().count() as i128),
                    _ => None,
                }
            }
            Tree::Method(name, part, arguments) => {
                let value = part.mean(record)?;
                let text = value.as_str()?;
                Some(match *name {
                    "trim" => text.trim().into(),
                    "lowerAscii" => text.to_ascii_lowercase().into(),
                    "upperAscii" => text.to_ascii_uppercase().into(),
                    "size" => text.chars().count().into(),
                    "startsWith" => text.starts_with('a').into(),
                    "contains" => text.contains('B').into(),
                    "replace" => text.split('a').collect::<Vec<_>>().join("--").into(),
                    _ => {
                        let characters: Vec<char> = text.chars().collect();
                        let (from, to) = if arguments.len() == 1 { (1, characters.len()) } else { (0, 2) };
                        characters.get(from..to)?.iter().collect::<String>().into()
                    }
                })
            }
        }
    }
}

/// What is refused for its types is left out; the dice make enough that is not.
#[test]
fn expressions_agree_with_an_evaluator_that_shares_no_code() {
    let lines = [
        r#"{"i":7,"j":-2,"big":9007199254740993,"d":0.5,"s":"abc aB","t":" Ümlaut\n","b":true}"#,
        r#"{"i":0,"j":-9223372036854775808,"big":9223372036854775807,"d":-1.25,"s":"","t":"12","b":false}"#,
        r#"{"i":"text","j":null,"big":2.5,"d":3,"s":true,"t":"\u0061\"","b":"x"}"#,
    ];
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5EED);
    let mut dice = Dice(seed);
    let (mut values, mut errors) = (0, 0);
    for round in 0..20_000 {
        let tree = grow(&mut dice, 1 + round % 4);
        let text = tree.text();
        let mut names: Vec<String> = Vec::new();
        let parsed = Expression::parse(&text, &mut |path| {
            names.iter().position(|own| own == path).unwrap_or_else(|| {
                names.push(path.into());
                names.len() - 1
            })
        });
        for line in lines {
            let record: Json = serde_json::from_str(line).expect("a line is JSON");
            let want = tree.mean(&record);
            let Ok(expression) = &parsed else { continue };
            let mut spans = vec![Span::default(); names.len()];
            Scanner::new(Arc::new(FieldSet::new(&names))).scan(line.as_bytes(), &mut spans);
            let mut out = Vec::new();
            let got = expression.write(line.as_bytes(), &spans, &mut out).then(|| {
                let text = String::from_utf8(out).expect("a value is UTF-8");
                serde_json::from_str::<Json>(&text).unwrap_or_else(|e| panic!("seed {seed}: {text} is no JSON: {e}"))
            });
            assert_eq!(got, want, "seed {seed}: {text} of {line}");
            if want.is_some() { values += 1 } else { errors += 1 }
        }
    }
    assert!(values > 5_000 && errors > 5_000, "{values} values and {errors} errors: the dice are loaded");
}
