//! One table: a query, a line, and whether it answers.

use super::*;
use crate::query::Query;

#[track_caller]
fn check(query: &str, line: &str, want: bool) {
    let mut matcher = Matcher::new(&Query::parse(query).unwrap(), &Fields::default()).unwrap();
    let got = matcher.matches(Row { line: line.as_bytes(), tenant: Some(b"acme"), severity: Some(13) });
    assert_eq!(got, want, "{query} on {line}");
}

#[test]
fn words_phrases_and_fields_match_as_the_manual_says() {
    let line = r#"{"msg":"Conn-Reset by\tpeer É","service":"auth api","n":12.50,"trace_id":"ab-12","a":{"b":["x"]},"z":null,"ok":true}"#;
    for (query, want) in [
        ("conn", true),
        ("CONN", true),
        ("con", false),
        ("con*", true),
        ("*ese*", true),
        ("conn-reset", true),
        ("reset-conn", false),
        ("\"reset by peer é\"", true),
        ("\"conn by\"", false),
        ("msg:peer-conn", true),
        ("msg:\"peer conn\"", false),
        ("msg:pe*r", true),
        ("msg:\"-\"", true),
        ("msg:\"+\"", false),
        ("ab-12", true),
        ("ab", false),
        ("service:auth", false),
        ("service:\"auth api\"", true),
        ("service:auth*", true),
        ("service:*API", false),
        ("n:12.50", true),
        ("n:12.5", false),
        ("n:>=12.5 n:<=12.500 n:<13 n:>12", true),
        ("a.b:\"[\\\"x\\\"]\"", true),
        ("z:*", false),
        ("ok:true", true),
        ("nothing:*", false),
        ("level:warn", true),
        ("level:WARNING", true),
        ("level:error", false),
        ("level:>=warn level:<error", true),
        ("level:>warn", false),
        ("tenant:acme", true),
        ("tenant:ac*", true),
        ("-tenant:acme", false),
        ("tenant:other OR (conn -auth)", true),
    ] {
        check(query, line, want);
    }
}

#[test]
fn the_level_field_matches_in_any_case_beside_the_severity() {
    check("level:error", r#"{"level":"ERROR"}"#, true);
    check("level:odd", r#"{"level":"Odd"}"#, true);
    check("level:odd", r#"{"level":"even"}"#, false);
}

#[test]
fn a_line_that_is_no_json_is_all_text() {
    check("lost", "connection lost {", true);
    check("\"connection lost\"", "connection lost {", true);
    check("msg:lost", "connection lost {", false);
    check("lost", r#"{"other":"lost"}"#, false);
}

#[test]
fn too_many_fields_are_refused() {
    let query: String = (0..70).map(|i| format!("f{i}:x ")).collect();
    assert!(Matcher::new(&Query::parse(&query).unwrap(), &Fields::default()).is_err());
}

#[test]
fn ranges_compare_numbers_times_levels_or_text() {
    let line = r#"{"n":12.50,"big":9007199254740993,"v":"1.10.2","t":"2026-11-23T04:00:00+01:00","e":1795402800,"s":"Zeta","x":"12","u":null,"level":"WARN"}"#;
    for (query, want) in [
        ("n:[12.5 TO 13]", true),
        ("n:{12.5 TO 13]", false),
        ("n:[1 TO 12.5]", true),
        ("n:[1 TO 12.5}", false),
        ("n:[* TO 12.50]", true),
        ("n:{* TO *}", true),
        ("u:[* TO *]", false),
        ("n:[13 TO 1]", false),
        ("n:[a TO b]", false),
        ("x:[9 TO 100]", true),
        ("s:[9 TO 100]", false),
        ("s:>5", false),
        ("big:>9007199254740992 big:<9007199254740994 big:[9007199254740993 TO 9007199254740993]", true),
        ("big:>9007199254740993", false),
        ("v:[1.1.0 TO 1.2.0]", true),
        ("v:>=1.10.2 v:<1.10.3", true),
        ("v:>1.9.0", false),
        ("s:[Z TO a] s:>Zet s:<Zf", true),
        ("s:>zeta", false),
        ("t:[2026-11-23T03:00:00Z TO 2026-11-23T03:00:00Z]", true),
        ("t:>2026-11-23T03:00:00Z", false),
        ("t:>=\"2026-11-23 02:59:59.9\" t:<2026-11-23T03:00:00.000000001Z", true),
        ("e:[2026-11-23T03:00:00Z TO *]", true),
        ("s:>=2026-11-23T03:00:00Z", false),
        ("t:[2026-11-23 TO 2026-11-24]", true),
        ("level:[info TO warn] level:{info TO error}", true),
        ("level:{warn TO error]", false),
        ("level:[* TO warn}", false),
        ("level:(>=debug -error)", true),
        ("tenant:[a TO b] tenant:<acmf", true),
        ("tenant:>acme", false),
        ("nothing:<5", false),
        ("-nothing:<5", true),
    ] {
        check(query, line, want);
    }
}

#[test]
fn patterns_match_anywhere_or_one_character() {
    let line = r#"{"msg":"Conn-Reset by peer É","service":"auth api","trace_id":"ab-12","path":"/v1/users"}"#;
    for (query, want) in [
        ("/Reset.*peer/", true),
        ("/reset/", false),
        ("/(?i)RESET BY/", true),
        ("/auth/", false),
        ("/ab-12/", false),
        ("service:/^auth/", true),
        ("service:/^api/", false),
        ("service:/^auth api$/", true),
        ("message:/^Conn/", true),
        (r"path:/^\/v\d\/u/", true),
        ("trace_id:/^[a-z]+-[0-9]+$/", true),
        ("tenant:/^ac/", true),
        ("-service:/x/ service:/(a|x)uth/", true),
        ("p?er", true),
        ("pe?", false),
        ("?", true),
        ("service:auth?api", true),
        ("service:auth?pi", false),
        ("service:????????", true),
        ("msg:?onn", true),
        ("msg:??set", true),
        ("ab?12", true),
        ("msg:=conn", false),
        ("msg:=\"Conn-Reset by peer É\"", true),
        ("service:=\"auth api\"", true),
        ("service:=auth", false),
        ("_exists_:service -_exists_:nothing", true),
        ("service:(=x OR /pi$/)", true),
    ] {
        check(query, line, want);
    }
    check("/no json/", "no json {", true);
    check("msg:/no json/", "no json {", false);
    check("level:=WARN", r#"{"level":"WARN"}"#, true);
    check("level:=warn", r#"{"level":"WARN"}"#, false);
}

#[test]
fn a_long_phrase_on_a_long_text_takes_no_longer_than_both() {
    let text = "a ".repeat(400_000);
    let line = serde_json::json!({ "msg": text }).to_string();
    let start = std::time::Instant::now();
    check(&format!("\"{}b\"", "a ".repeat(30_000)), &line, false);
    check(&format!("\"{}\"", "a ".repeat(30_000)), &line, true);
    check(&format!("msg:{}", (0..8_000).map(|i| format!("{i}-")).collect::<String>()), &line, false);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed()); // quadratic, it takes many minutes
    check("\"a b a b c\"", r#"{"msg":"a b a b a b c"}"#, true);
    check("\"a b a b c\"", r#"{"msg":"a b a b a c"}"#, false);
    check("msg:b-a", r#"{"msg":"a b"}"#, true);
    check("msg:b-a-b-a", r#"{"msg":"a b"}"#, true);
}

/// Rows that answer, by number.
#[track_caller]
fn check_rows(field: &str, values: &[&str], vectors: &[(&str, &[usize])]) {
    for (test, want) in vectors {
        let query = Query::parse(&format!("{field}:{test}")).unwrap_or_else(|error| panic!("{error}"));
        let mut matcher = Matcher::new(&query, &Fields::default()).unwrap();
        let lines = values.iter().map(|value| serde_json::json!({ field: value }).to_string());
        let got: Vec<usize> = lines
            .enumerate()
            .filter(|(_, line)| matcher.matches(Row { line: line.as_bytes(), tenant: None, severity: None }))
            .map(|(at, _)| at)
            .collect();
        assert_eq!(got, *want, "{field}:{test}");
    }
}

/// Vectors of VictoriaLogs (`filter_range_test.go`, `filter_regexp_test.go`, `filter_string_range_test.go`, Apache-2.0),
/// where the meaning is shared: its string ranges leave out the upper bound.
#[test]
fn vectors_of_victorialogs_give_the_same_rows() {
    let dict = ["", "10", "Abc", "20", "10.5", "10 AFoobarbaz", "foobar"];
    let vectors: [(&str, &[usize]); 6] = [
        ("[-10 TO 20]", &[1, 3, 4]),
        ("[10 TO 20]", &[1, 3, 4]),
        ("[10.1 TO 19.9]", &[4]),
        ("[-11 TO 0]", &[]),
        ("[11 TO 19]", &[]),
        ("[20 TO 10]", &[]),
    ];
    check_rows("foo", &dict, &vectors);
    let strings = ["A FOO", "a 10", "10", "20", "15.5", "-5", "a fooBaR", "a kjlkjf dfff", "a ТЕСТЙЦУК НГКШ ", "a !!,23.(!1)"];
    let vectors: [(&str, &[usize]); 4] =
        [("[-100 TO 100]", &[2, 3, 4, 5]), ("[10 TO 20]", &[2, 3, 4]), ("[-5 TO -5]", &[5]), ("[-10 TO -5.1]", &[])];
    check_rows("foo", &strings, &vectors);
    let numbers = ["123", "12", "32", "0", "0", "123456.78901", "-0.2", "2", "-334", "4", "5"];
    let vectors: [(&str, &[usize]); 5] = [
        ("[* TO 3]", &[3, 4, 6, 7, 8]),
        ("[0.1 TO 2.9]", &[7]),
        ("[-1e18 TO 1.9]", &[3, 4, 6, 8]),
        ("[1000 TO *]", &[5]),
        ("/[32][23]?/", &[0, 1, 2, 5, 6, 7, 8]),
    ];
    check_rows("foo", &numbers, &vectors);
    let addresses = [
        "1.2.3.4",
        "0.0.0.0",
        "127.0.0.1",
        "254.255.255.255",
        "127.0.0.1",
        "127.0.0.1",
        "127.0.4.2",
        "127.0.0.1",
        "12.0.127.6",
        "55.55.12.55",
        "66.66.66.66",
        "7.7.7.7",
    ];
    let vectors: [(&str, &[usize]); 4] = [
        ("/127.0.[40].(1|2)/", &[2, 4, 5, 6, 7]),
        ("/foo|bar|834/", &[]),
        ("[127.0.0. TO 128.0.0.0}", &[2, 4, 5, 6, 7]),
        ("[128.0.0.0 TO 129.0.0.0}", &[]),
    ];
    check_rows("foo", &addresses, &vectors);
    let texts = ["", "127.0.0.1", "Abc", "127.255.255.255", "10.4", "foo 127.0.0.1", "127.0.0.1 bar", "127.0.0.1"];
    let vectors: [(&str, &[usize]); 5] = [
        ("/foo|bar|^$/", &[0, 5, 6]),
        ("/27.0/", &[1, 5, 6, 7]),
        ("/bar.+foo/", &[]),
        ("[127.0.0.0 TO 128.0.0.0}", &[1, 3, 6, 7]),
        ("[127.0.0.2 TO 127.127.0.0}", &[]),
    ];
    check_rows("foo", &texts, &vectors);
    let times = [
        "2005-01-02T15:04:05.001Z",
        "2006-02-02T15:04:05.002Z",
        "2006-01-02T15:04:05.003Z",
        "2006-01-02T15:04:05.004Z",
        "2026-01-02T15:04:05.005Z",
    ];
    let vectors: [(&str, &[usize]); 4] = [
        ("[2006-01-02 TO 2006-01-03}", &[2, 3]),
        ("[2006-01-02T15:04:05.003Z TO 2006-01-02T15:04:05.004Z}", &[2]),
        ("/2006-[0-9]{2}-.+?(2|3)Z/", &[1, 2]),
        ("/^01|04$/", &[]),
    ];
    check_rows("stamp", &times, &vectors);
}

mod naive {
    //! A judge of its own: serde_json for the fields, a tokenizer by characters, numbers as fractions of i128.

    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    #[derive(Clone, Debug)]
    enum Ask {
        Word(&'static str),
        Phrase(Vec<&'static str>),
        In(&'static str, &'static str),
        Exact(&'static str, &'static str),
        /// Stars and question marks on a field that is no text.
        Like(&'static str, &'static str),
        /// A regex of which the naive judge knows the meaning: from the start, then this text.
        Starts(&'static str, &'static str),
        Holds(&'static str),
        Between(&'static str, Option<(&'static str, bool)>, Option<(&'static str, bool)>),
        Has(&'static str),
        Not(Box<Ask>),
        All(Vec<Ask>),
        Any(Vec<Ask>),
    }

    const NUMBERS: [&str; 7] = ["0", "-3", "2.5", "2.50", "40", "0.1", "123456789012"];
    const WORDS: [&str; 6] = ["conn", "Reset", "é", "10", "peer-2", "--"];
    const PATTERNS: [&str; 7] = ["auth", "a*", "*th", "a?th", "?*?", "*u*h", "??"];

    fn quoted(text: &str) -> String {
        format!("\"{text}\"")
    }

    impl Ask {
        fn text(&self) -> String {
            let join = |asks: &[Ask], with: &str| format!("({})", asks.iter().map(Ask::text).collect::<Vec<_>>().join(with));
            match self {
                Ask::Word(word) if word.starts_with('-') => quoted(word),
                Ask::Word(word) => (*word).to_owned(),
                Ask::Phrase(words) => quoted(&words.join(" ")),
                Ask::In(field, word) => format!("{field}:{}", quoted(word)),
                Ask::Exact(field, text) => format!("{field}:={}", quoted(text)),
                Ask::Like(field, pattern) => format!("{field}:{pattern}"),
                Ask::Starts(field, text) => format!("{field}:/^{text}/"),
                Ask::Holds(text) => format!("/{text}/"),
                Ask::Between(field, low, high) => {
                    let (open, from) = low.map_or(('[', "*"), |(text, inclusive)| (if inclusive { '[' } else { '{' }, text));
                    let (close, to) = high.map_or(('}', "*"), |(text, inclusive)| (if inclusive { ']' } else { '}' }, text));
                    format!("{field}:{open}{from} TO {to}{close}")
                }
                Ask::Has(field) => format!("_exists_:{field}"),
                Ask::Not(ask) => format!("-({})", ask.text()),
                Ask::All(asks) => join(asks, " "),
                Ask::Any(asks) => join(asks, " OR "),
            }
        }

        fn holds(&self, line: &str) -> bool {
            let json: Option<Json> = serde_json::from_str(line).ok().filter(Json::is_object);
            let field = |name: &str| match json.as_ref()?.get(name)? {
                Json::Null => None,
                Json::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let texts: Vec<String> = if json.is_none() { vec![line.to_owned()] } else { field("msg").into_iter().collect() };
            match self {
                Ask::Word(word) => texts.iter().any(|text| follows(text, word)),
                Ask::Phrase(words) => texts.iter().any(|text| follows(text, &words.join(" "))),
                Ask::In("msg", word) => field("msg").is_some_and(|text| follows(&text, word)),
                Ask::In(name, word) | Ask::Exact(name, word) => field(name).as_deref() == Some(*word),
                Ask::Like(name, pattern) => {
                    let pattern: Vec<char> = pattern.chars().collect();
                    field(name).is_some_and(|text| like(&pattern, &text.chars().collect::<Vec<_>>()))
                }
                Ask::Starts(name, start) => field(name).is_some_and(|text| text.starts_with(start)),
                Ask::Holds(part) => texts.iter().any(|text| text.contains(part)),
                Ask::Between(name, low, high) => field(name).is_some_and(|text| {
                    let order = |bound: &str| match (fraction(&text), fraction(bound)) {
                        (Some(own), Some(bound)) => Some(own.cmp(&bound)),
                        (None, None) => Some(text.as_bytes().cmp(bound.as_bytes())),
                        (Some(_), None) => Some(text.as_bytes().cmp(bound.as_bytes())),
                        (None, Some(_)) => None,
                    };
                    let low = low.is_none_or(|(bound, inclusive)| order(bound).is_some_and(|o| o.is_gt() || (inclusive && o.is_eq())));
                    low && high.is_none_or(|(bound, inclusive)| order(bound).is_some_and(|o| o.is_lt() || (inclusive && o.is_eq())))
                }),
                Ask::Has(name) => field(name).is_some(),
                Ask::Not(ask) => !ask.holds(line),
                Ask::All(asks) => asks.iter().all(|ask| ask.holds(line)),
                Ask::Any(asks) => asks.iter().any(|ask| ask.holds(line)),
            }
        }
    }

    /// Words by characters.
    fn tokens(text: &str) -> Vec<String> {
        let mut all = vec![String::new()];
        for c in text.chars() {
            match all.last_mut() {
                Some(last) if c.is_alphanumeric() => last.extend(c.to_lowercase()),
                _ => all.push(String::new()),
            }
        }
        all.retain(|word| !word.is_empty());
        all
    }

    fn follows(text: &str, asked: &str) -> bool {
        let (have, want) = (tokens(text), tokens(asked));
        if want.is_empty() { text.contains(asked) } else { have.windows(want.len()).any(|part| part == want) }
    }

    fn like(pattern: &[char], text: &[char]) -> bool {
        match pattern.first() {
            None => text.is_empty(),
            Some('*') => (0..=text.len()).any(|at| like(&pattern[1..], &text[at..])),
            Some('?') => !text.is_empty() && like(&pattern[1..], &text[1..]),
            Some(c) => text.first() == Some(c) && like(&pattern[1..], &text[1..]),
        }
    }

    /// In millionths.
    fn fraction(text: &str) -> Option<i128> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        (plain(whole) && plain(part))
            .then(|| sign * (whole.parse::<i128>().unwrap() * 1_000_000 + format!("{part:0<6}").parse::<i128>().unwrap()))
    }

    fn any_bound() -> impl Strategy<Value = Option<(&'static str, bool)>> {
        prop::option::of((prop::sample::select([&NUMBERS[..], &["auth", "b"]].concat()), any::<bool>()))
    }

    fn any_ask() -> impl Strategy<Value = Ask> {
        let word = || prop::sample::select(WORDS.to_vec());
        let field = || prop::sample::select(vec!["service", "n"]);
        let leaf = prop_oneof![
            word().prop_map(Ask::Word),
            prop::collection::vec(word(), 1..4).prop_map(Ask::Phrase),
            (prop::sample::select(vec!["msg", "service"]), prop::sample::select(vec!["conn", "auth", "Reset", "AUTH"]))
                .prop_map(|(f, w)| Ask::In(f, w)),
            (prop::sample::select(vec!["msg", "service"]), prop::sample::select(vec!["conn", "auth", ""]))
                .prop_map(|(f, w)| Ask::Exact(f, w)),
            (field(), prop::sample::select(PATTERNS.to_vec())).prop_map(|(f, p)| Ask::Like(f, p)),
            (prop::sample::select(vec!["msg", "service"]), prop::sample::select(vec!["conn", "a", "Re"]))
                .prop_map(|(f, w)| Ask::Starts(f, w)),
            prop::sample::select(vec!["onn", "t é", "-", "no json"]).prop_map(Ask::Holds),
            (field(), any_bound(), any_bound()).prop_map(|(f, low, high)| Ask::Between(f, low, high)),
            prop::sample::select(vec!["msg", "service", "n", "none"]).prop_map(Ask::Has),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|ask| Ask::Not(Box::new(ask))),
                prop::collection::vec(inner.clone(), 1..4).prop_map(Ask::All),
                prop::collection::vec(inner, 1..4).prop_map(Ask::Any),
            ]
        })
    }

    fn any_line() -> impl Strategy<Value = String> {
        let message = prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..5).prop_map(|words| words.join(" "));
        let service = prop::sample::select(vec!["\"auth\"", "\"a\\u0075th\"", "\"oath\"", "\"éu\"", "null", "\"\"", "17"]);
        let number =
            prop_oneof![prop::sample::select(NUMBERS.to_vec()).prop_map(String::from), Just("\"2.5\"".into()), Just("\"auth\"".into())];
        (message, service, number, 0usize..8).prop_map(|(message, service, number, shape)| match shape {
            0 => format!("no json {message}"),
            1 => format!("{{\"service\":{service},\"n\":null}}"),
            _ => format!("{{\"msg\":{},\"service\":{service},\"n\":{number}}}", Json::from(message)),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if std::env::var("SLOW").is_ok() { 20_000 } else { 2_000 }))]

        #[test]
        fn any_query_answers_as_the_naive_judge_does(ask in any_ask(), lines in prop::collection::vec(any_line(), 1..12)) {
            let text = ask.text();
            let query = Query::parse(&text).unwrap_or_else(|error| panic!("{error}"));
            let mut matcher = Matcher::new(&query, &Fields::default()).unwrap();
            for line in &lines {
                let got = matcher.matches(Row { line: line.as_bytes(), tenant: Some(b"t"), severity: Some(9) });
                prop_assert_eq!(got, ask.holds(line), "{} on {}", &text, line);
            }
        }

        #[test]
        fn any_text_at_all_is_read_without_a_panic(text in "[a-z:()\\[\\]{}|/*?\"\\\\ <>=,.0-9-]{0,60}") {
            let strict = Query::parse(&text);
            let (lenient, errors) = Query::parse_lenient(&text);
            prop_assert_eq!(strict.is_ok(), errors.is_empty());
            if let Ok(query) = strict {
                prop_assert_eq!(&query, &lenient);
            }
            if let Ok(mut matcher) = Matcher::new(&lenient, &Fields::default()) {
                matcher.matches(Row { line: br#"{"a":"b c","n":1}"#, tenant: None, severity: None });
            }
        }
    }
}
