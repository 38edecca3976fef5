//! Conditions that compute, and what they count.

use super::*;
use proptest::prelude::*;
use std::time::Instant;

#[test]
fn conditions_compute_where_comparisons_end() {
    let record = r#"{"ms":7500,"a":1,"b":2,"c":3,"path":"/V1/chat","msg":"hello","status":503,"yes":true,"ts":"2026-01-31T05:00:00Z"}"#;
    for text in [
        "ms / 1000 > 5",
        "a + b == c",
        "c - b - a == 0",
        "c-a == b",
        "-a < 0",
        "a == -(0 - a)",
        "(a + b) * 2 == 6",
        "((a + b)) == c && yes",
        "(a == 1) == true",
        "(a == 1 || gone) == yes",
        "yes && a + b == c || gone",
        "gone || (yes && (a + b == c))",
        "!(a + b == 4) && a + b in [3, 4]",
        "!!(a + b == c)",
        r#"path.lowerAscii().startsWith("/v1")"#,
        r#"path.contains(path)"#,
        r#""say hello".endsWith(msg)"#,
        r#"size(msg) * 2 == 10"#,
        "msg.size() > 4",
        r#"string(status).startsWith("5")"#,
        r#"yes ? a == 1 : gone"#,
        "has(gone) || a == 2 ? false : yes",
        r#"(has(gone) ? gone : msg) == "hello""#,
        "a == 1 ? b == 2 ? c == 3 : false : false",
        r#"msg.replace("l", "") in ["heo"]"#,
        r#"msg.matches("^h") == yes"#,
        r#"timestamp(ts).getHours() < 6 && timestamp(ts).getDayOfWeek("+02:00") == 6"#,
        r#"timestamp(ts) - timestamp("2026-01-01T00:00:00Z") > duration("720h")"#,
    ] {
        check(text, &[record], &["{}"]);
    }
}

#[test]
fn an_error_is_false_and_not_turns_it_around() {
    let errors = ["{}", r#"{"a":null}"#, r#"{"a":"x"}"#, r#"{"a":[1]}"#, r#"{"a":1.5}"#, r#"{"a":9223372036854775807}"#, r#"{"a":1e300}"#];
    for text in ["a + 1 > 0", "a + 1 != 0", "a + 1 < 0", "a + 1 in [1]", "int(a) + 1 >= 0 && a + 1 > 0"] {
        check(text, &[], &errors);
        check(&format!("!({text})"), &errors, &[]);
        check(&format!("!({text}) && true"), &errors, &[]);
    }
    check("10 / a > 1", &[r#"{"a":5}"#], &[r#"{"a":0}"#, r#"{"a":10}"#]);
    // As `!a.startsWith("x")`, which needs no `a` either.
    check(r#"!a.trim().startsWith("x")"#, &["{}", r#"{"a":1}"#, r#"{"a":"y"}"#], &[r#"{"a":" x"}"#]);
    check("!(a ? a : a)", &["{}", r#"{"a":5}"#, r#"{"a":false}"#], &[r#"{"a":true}"#]);
    // Inside of a computing part errors are CEL's: what decides wins.
    check("(a + 1 > 0 || true) == true", &errors, &[]);
    check("(a + 1 > 0 || b) == true", &[], &errors);
}

#[test]
fn of_two_mistakes_the_one_further_on_is_told() {
    refused("a + == 2", 4, "a value is missing before `==`; a condition reads as level == \"error\" && status >= 500");
    refused("a + 1 and b", 6, "`and` cannot stand here; write && for `and`");
    refused(
        "a + b",
        0,
        "`a + b` is computed, and neither true nor false; here stands something that is true or false; compare it, as in size(message) > 100",
    );
    refused(
        "x && a + b",
        5,
        "`a + b` is computed, and neither true nor false; here stands something that is true or false; compare it, as in size(message) > 100",
    );
    refused("a ? 1 : 2", 0, "`a ? 1 : 2` is an int; here stands something that is true or false; compare it, as in size(message) > 100");
    refused("a ? b", 5, "`:` and a value are missing after `?`; write level == \"error\" ? \"bad\" : \"good\"");
    refused("(a + 1", 0, "this parenthesis is never closed; write a `)` where it ends");
    refused("a + 1 > 2)", 9, "this parenthesis was never opened; leave it out, or open it with `(`");
    refused(
        "a.trim().lower() == 'x'",
        9,
        "there is no method `lower`; the methods are lowerAscii, upperAscii, trim, replace, substring, startsWith, endsWith, contains, matches, size, indexOf, lastIndexOf, charAt, reverse, getFullYear, getMonth, getDate, getDayOfMonth, getDayOfWeek, getDayOfYear, getHours, getMinutes, getSeconds, getMilliseconds",
    );
    refused("a.lowerascii() == 'x'", 2, "there is no method `lowerascii`; write a.lowerAscii()");
    refused("Size(a) > 2", 0, "there is no function `Size`; write size(field)");
    refused("1 < a + 1 < 5", 10, "a comparison cannot be compared again; join two comparisons with &&, as in 1 < a && a < 5");
    refused("a / 0 > 1", 4, "this divides by zero; divide by something else, as in n == 0 ? 0 : total / n");
    let regex = "a pattern is in RE2 syntax; write r\"\\d+\" so that backslashes stay as they are";
    refused("((a.trim().matches('x(') || b) && c)", 21, &format!("this is no regex: unclosed group; {regex}"));
}

#[test]
fn constants_of_types_that_never_meet_are_refused() {
    let numbers = "string(x), int(x) and double(x) make one of the other";
    refused("\"a\" < 5", 4, "values of these types are never compared so; a text is in quotes, a number and true are not");
    refused("size(a) == \"5\"", 8, "values of these types are never compared so; a text is in quotes, a number and true are not");
    refused("a + 1 == \"5\"", 6, &format!("an int is never compared with a text; {numbers}"));
    refused("string(a) > 5", 10, &format!("a text is never compared with an int; {numbers}"));
    refused("a + 1 + 1.5 > 2.0", 6, &format!("an int and a double are not computed with each other; {numbers}"));
    refused("status.startsWith(5)", 18, "startsWith takes a text; write status.startsWith(\"..\")");
    refused("a.trim().startsWith(5)", 20, "here stands a text, and this is an int; write a text in quotes, a field, or string(x)");
    refused(
        "duration(\"x\") < duration(a)",
        9,
        "\"x\" cannot be read: it is no duration of at most 292 years; write duration(\"1h30m\"), with h, m, s, ms, us and ns",
    );
    refused(
        "timestamp(a) > duration(b)",
        13,
        "a timestamp is never compared with a duration; as in timestamp(ts) + duration(\"1h\") > timestamp(\"2026-01-31T12:00:00Z\")",
    );
}

/// How many of these records have a value that the condition does not take.
#[track_caller]
fn check_mismatches(text: &str, mismatched: &[&str], others: &[&str]) {
    let all: Vec<&str> = mismatched.iter().chain(others).copied().collect();
    for (i, line) in all.iter().enumerate() {
        let (condition, lines) = compile_for(text, &[line]);
        let clone = condition.clone();
        clone.eval(&lines, &mut [true]);
        let want = u64::from(i < mismatched.len());
        assert_eq!(condition.mismatches(), want, "{text} for {line}");
        condition.matches_one(&lines.lines[0], &lines.spans[0]);
        assert_eq!(clone.mismatches(), want * 2, "{text} alone, for {line}");
    }
    let many = all.repeat(40);
    let (condition, lines) = compile_for(text, &many);
    condition.eval(&lines, &mut vec![true; many.len()]);
    assert_eq!(condition.mismatches(), mismatched.len() as u64 * 40, "{text} in a batch");
    condition.eval(&lines, &mut vec![false; many.len()]);
    assert_eq!(condition.mismatches(), mismatched.len() as u64 * 40, "{text}: nobody is asked");
}

#[test]
fn values_of_types_that_are_not_taken_are_counted() {
    let (text, number, truth, list, object) = (r#"{"a":"x"}"#, r#"{"a":5}"#, r#"{"a":true}"#, r#"{"a":[5]}"#, r#"{"a":{"b":5}}"#);
    let absent = ["{}", r#"{"a":null}"#];
    let no_numbers = [text, truth, list, object];
    let no_texts = [number, truth, list, object];
    for condition in ["a > 1", "a == 1", "a != 1", "1 < a", "a in [1, 2]", "!(a >= 1)", "a + 1 > 2", "!(a * 2 == 3)", "a % 2 in [1]"] {
        check_mismatches(condition, &no_numbers, &[number, absent[0], absent[1]]);
    }
    for condition in
        ["a == 'x'", "a != 'y'", "a < 'z'", "a in ['y']", "a.contains('y')", "a.matches('y')", "a.trim() == 'x'", "a + 'y' != ''"]
    {
        check_mismatches(condition, &no_texts, &[text, r#"{"a":"\u0079"}"#, absent[0], absent[1]]);
    }
    check_mismatches("a", &[text, number, list, object], &[truth, r#"{"a":false}"#, absent[0], absent[1]]);
    check_mismatches("a ? true : false", &[text, number, list, object], &[truth, r#"{"a":false}"#, absent[0], absent[1]]);
    check_mismatches("size(a) > 0", &[number, truth], &[text, list, object, absent[0], absent[1]]);
    check_mismatches("size(a) * 1 > 0", &[number, truth], &[text, list, object, absent[0], absent[1]]);
    check_mismatches("has(a) || a == null", &[], &[text, number, truth, list, object, absent[0], absent[1]]);
    check_mismatches("a == b", &[r#"{"a":1,"b":"1"}"#, r#"{"a":[],"b":[]}"#], &[r#"{"a":1,"b":2.0}"#, r#"{"b":2}"#, r#"{"a":null,"b":2}"#]);
    // What is not asked is not met; what is met is counted once, even where something else decides.
    check_mismatches("has(b) && a > 1", &[], &[text]);
    check_mismatches("a > 1 || a < 'x' || a", &[text, truth], &[number]);
    check_mismatches("(a + 1 > 2 || has(a)) == true", &no_numbers, &[number, absent[0]]);
    check_mismatches("(a == 1) == true", &no_numbers, &[number, absent[0], absent[1]]);
    // Overflow, a division by zero and a text that is no time are no matter of types.
    check_mismatches("9223372036854775807 - a + 1 > 1 / a", &[], &[r#"{"a":0}"#, r#"{"a":-1}"#]);
    check_mismatches("timestamp(a).getHours() > 5", &[truth, list, object], &[text, number, absent[0], absent[1]]);
}

#[test]
fn what_is_read_again_takes_no_time_to_speak_of() {
    let parse = |text: &str| {
        let began = Instant::now();
        let parsed = Condition::parse(text, &mut |_| 0).map(drop).map_err(|e| e.message);
        assert!(began.elapsed().as_millis() < 100, "{:?} for {text}", began.elapsed());
        parsed
    };
    let nested = |open: &str, inner: &str, close: &str, depth: usize| format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
    assert_eq!(parse(&nested("(", "a + 1 > 2", ")", 64)), Ok(()));
    assert!(parse(&nested("(", "a + 1", ") + 1", 64)).is_err());
    assert_eq!(parse(&format!("{} > 1", nested("(", "a + 1", " + 1)", 64))), Ok(()));
    assert_eq!(parse(&nested("!(b && ", "a + 1 > 2", ")", 32)), Ok(()));
    assert_eq!(parse(&nested("(a ? b : ", "c", ")", 32)), Ok(()));
    assert_eq!(parse(&nested("a ? b : ", "c", "", 64)), Ok(()));
    assert_eq!(parse(&nested("a ? b : ", "c", "", 65)), Err("the condition is nested deeper than 64".into()));
    assert_eq!(parse(&nested("(", "a + 1 > 2", ")", 65)), Err("the condition is nested deeper than 64".into()));
    assert!(parse(&nested("(a == (", "b +", ") + 1)", 32)).is_err());
    let wide = vec!["a.trim().matches('x+y')"; 16].join(" || ");
    assert_eq!(parse(&format!("{} == true", nested("(", &wide, " == true)", 63))), Ok(()));
}

/// Expressions as the text of random leaves and operators; many have an error for many records.
fn expressions() -> impl Strategy<Value = String> {
    let leaves = [
        "a",
        "b",
        "c",
        "s",
        "gone",
        "0",
        "1",
        "-3",
        "2.5",
        "9223372036854775807",
        "true",
        "null",
        "\"x\"",
        "\"aB\"",
        "timestamp(ts)",
        "duration(\"1h\")",
    ];
    let leaf = proptest::sample::select(leaves.to_vec()).prop_map(String::from);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let ops = ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||"];
        let calls = ["!", "-", "string", "int", "double", "size"];
        let methods = ["trim()", "lowerAscii()", "size()", "startsWith(\"a\")", "charAt(0)", "indexOf(\"B\")", "getHours()"];
        prop_oneof![
            (inner.clone(), proptest::sample::select(ops.to_vec()), inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (proptest::sample::select(calls.to_vec()), inner.clone()).prop_map(|(call, a)| format!("{call}({a})")),
            (inner.clone(), proptest::sample::select(methods.to_vec())).prop_map(|(a, method)| format!("({a}).{method}")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

const RECORDS: [&str; 4] = [
    r#"{"a":7,"b":-2,"c":0.5,"s":"abc aB","ts":"2026-01-31T12:00:00Z"}"#,
    r#"{"a":0,"b":"x","c":true,"s":"","ts":1769860800}"#,
    r#"{"a":null,"b":9223372036854775807,"c":2.5,"s":true,"ts":"soon"}"#,
    r#"{"a":[1],"b":false,"c":{"k":1},"s":"x"}"#,
];

/// Spans of these fields, in the order in which a text asks for them.
fn resolved<T>(parse: impl FnOnce(&mut dyn FnMut(&str) -> usize) -> T, record: &str) -> (T, Vec<Span>) {
    let mut fields: Vec<String> = Vec::new();
    let parsed = parse(&mut |path| {
        fields.iter().position(|own| own == path).unwrap_or_else(|| {
            fields.push(path.into());
            fields.len() - 1
        })
    });
    (parsed, fields.iter().map(|field| find(record, field)).collect())
}

/// The value of an expression, or `None` where it has an error; `Err` where it is refused.
fn value(text: &str, record: &str) -> Result<Option<Vec<u8>>, ConditionError> {
    let (parsed, spans) = resolved(|resolve| Expression::parse(text, resolve), record);
    Ok(parsed?.value(record.as_bytes(), &spans).ok())
}

fn answer(text: &str, record: &str) -> Result<bool, ConditionError> {
    let (parsed, spans) = resolved(|resolve| Condition::parse(text, resolve), record);
    Ok(parsed?.matches_one(record.as_bytes(), &spans))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// A choice is read as an expression from its beginning to its end.
    #[test]
    fn a_condition_that_computes_is_the_expression_where_it_has_a_value(expression in expressions()) {
        for record in RECORDS {
            let text = format!("has(gone) ? false : {expression}");
            if let Ok(value) = value(&text, record) {
                match answer(&text, record) {
                    Ok(held) => prop_assert_eq!(held, value.as_deref() == Some(b"true"), "{} for {}", text, record),
                    Err(error) => prop_assert!(error.message.contains("true or false"), "{}: {}", text, error),
                }
            }
        }
    }

    /// Relations that compute, joined: each is false where it has no value, and what joins them knows of no errors.
    #[test]
    fn relations_that_compute_are_joined_without_errors(first in expressions(), second in expressions(), op in proptest::sample::select(vec!["==", "!=", "<", ">="]), shape in 0usize..5) {
        for record in RECORDS {
            let relations = [&first, &second].map(|part| format!("({part}) + 0 {op} {part}"));
            let [Ok(a), Ok(b)] = [0, 1].map(|i| value(&relations[i], record)) else { continue };
            let (a, b) = (a.as_deref() == Some(b"true"), b.as_deref() == Some(b"true"));
            let [x, y] = &relations;
            let (text, want) = match shape {
                0 => (x.clone(), a),
                1 => (format!("!({x})"), !a),
                2 => (format!("{x} && {y}"), a && b),
                3 => (format!("!({x} || {y})"), !(a || b)),
                _ => (format!("({y}) || has(a) && !({x})"), b || find(record, "a").kind != Kind::Missing && !a),
            };
            prop_assert_eq!(answer(&text, record).map_err(|e| e.to_string()), Ok(want), "{} for {}", text, record);
        }
    }
}
