//! Pictures of trees and of errors, and the bounds.

use super::*;
use expect_test::{Expect, expect};
use std::time::Instant;

/// The tree in brackets, so that precedence can be seen.
fn show(node: &Node) -> String {
    let list = |nodes: &[Node], name: &str| format!("({name} {})", nodes.iter().map(show).collect::<Vec<_>>().join(" "));
    match node {
        Node::All => "all".into(),
        Node::Not(node) => format!("(not {})", show(node)),
        Node::And(nodes) => list(nodes, "and"),
        Node::Or(nodes) => list(nodes, "or"),
        Node::Leaf { field, test } => {
            let name = field.as_ref().map_or(String::new(), |f| format!("{f}:"));
            match test {
                Test::Word(text) => format!("{name}{text}"),
                Test::Phrase(text) => format!("{name}{text:?}"),
                Test::Exact(text) => format!("{name}={text:?}"),
                Test::Glob(glob) => format!("{name}{glob:?}").replace("Glob { stretches: ", "glob").replace(" }", ""),
                Test::Regex(pattern) => format!("{name}/{}/", pattern.text()),
                Test::Exists => format!("{name}*"),
                Test::Range(Range { low, high }) => {
                    let end = |bound: &Option<Bound>| {
                        bound.as_ref().map_or("*".into(), |b| format!("{}{}", b.text, if b.inclusive { "" } else { "!" }))
                    };
                    format!("{name}[{} TO {}]", end(low), end(high))
                }
            }
        }
    }
}

fn show_query(query: &Query) -> String {
    let mut text = show(&query.root);
    for (name, when) in [("since", query.since), ("until", query.until)] {
        text.extend(when.map(|when| format!(" {name}={when:?}")));
    }
    for pipe in &query.pipes {
        match pipe {
            Pipe::Where(condition) => text += &format!("\n| where {}", show(&condition.root)),
            other => text += &format!("\n| {other:?}"),
        }
    }
    text
}

#[track_caller]
fn check(text: &str, want: Expect) {
    let got = match Query::parse(text) {
        Ok(query) => show_query(&query),
        Err(error) => error.to_string(),
    };
    want.assert_eq(&got);
    // What is right is the same in lenient mode, what is wrong is never silent there.
    let (lenient, errors) = Query::parse_lenient(text);
    match Query::parse(text) {
        Ok(query) => assert_eq!((lenient, errors), (query, Vec::new())),
        Err(_) => assert!(!errors.is_empty(), "{text}"),
    }
}

#[track_caller]
fn check_lenient(text: &str, want: Expect) {
    let (query, errors) = Query::parse_lenient(text);
    let errors: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.at, e.message)).collect();
    want.assert_eq(&format!("{}\n{}", show_query(&query), errors.join("\n")));
}

#[test]
fn and_binds_tighter_than_or_and_is_implied() {
    check("a b OR c AND d", expect!["(or (and a b) (and c d))"]);
    check("a (b OR c) -d", expect!["(and a (or b c) (not d))"]);
    check("NOT a b", expect!["(and (not a) b)"]);
    check("NOT (a OR b) OR -\"x y\"", expect![[r#"(or (not (or a b)) (not "x y"))"#]]);
    check("", expect!["all"]);
    check("*", expect!["all"]);
}

#[test]
fn every_form_of_a_term_reads_as_written() {
    check("level:error", expect!["level:error"]);
    check("url:http://x:80/a-b", expect!["url:http://x:80/a-b"]);
    check(r#"msg:"conn \"reset\"""#, expect![[r#"msg:"conn \"reset\"""#]]);
    check("latency_ms:>=500 x:<1e3", expect!["(and latency_ms:[500 TO *] x:[* TO 1e3!])"]);
    check("trace_id:* _exists_:a.b", expect!["(and trace_id:* a.b:*)"]);
    check(
        "model:gpt* *val* a*b te?t x:??",
        expect![[r#"(and model:glob[["gpt"], [""]] glob[[""], ["val"], [""]] glob[["a"], ["b"]] glob[["te", "t"]] x:glob[["", "", ""]])"#]],
    );
    check(r"a\:b:c\*d", expect!["a:b:c*d"]);
    check("level:(warn OR error)", expect!["(or level:warn level:error)"]);
    check("n:(>1 <=2 =3 [4 TO 5] /6/)", expect![[r#"(and n:[1! TO *] n:[* TO 2] n:="3" n:[4 TO 5] n:/6/)"#]]);
    check(
        "level:>=warn version:>\"1.2 b\" t:<2026-11-23T00:00:00Z",
        expect!["(and level:[warn TO *] version:[1.2 b! TO *] t:[* TO 2026-11-23T00:00:00Z!])"],
    );
    check("ANDROID ORDER a-b - x", expect!["(and ANDROID ORDER a-b - x)"]);
    check(r#"msg:="Conn Reset" msg:=a*b"#, expect![[r#"(and msg:="Conn Reset" msg:="a*b")"#]]);
}

#[test]
fn ranges_have_open_and_closed_ends() {
    check("n:[1 TO 5] n:{1 TO 5} n:[1 TO 5} n:{1 TO 5]", expect!["(and n:[1 TO 5] n:[1! TO 5!] n:[1 TO 5!] n:[1! TO 5])"]);
    check("n:[* TO 5] n:[ -1.5  TO * ] n:{* TO *}", expect!["(and n:[* TO 5] n:[-1.5 TO *] n:*)"]);
    check(
        "t:[2026-11-23T00:00:00Z TO \"2026-11-24 00:00:00\"} v:[a\\]b TO c\\ d]",
        expect!["(and t:[2026-11-23T00:00:00Z TO 2026-11-24 00:00:00!] v:[a]b TO c d])"],
    );
    check(
        "n:[1 5]",
        expect![[r#"
        query:3: a range has TO between its bounds
          n:[1 5]
            ^
          help: write n:[1 TO 5], n:{1 TO *}, or n:"[" for the sign itself"#]],
    );
    check(
        "n:[1 TO 5",
        expect![[r#"
        query:3: this range is never closed
          n:[1 TO 5
            ^
          help: write n:[1 TO 5], n:{1 TO *}, or n:"[" for the sign itself"#]],
    );
    check(
        "n:[1 TO 5]x",
        expect![[r#"
        query:3: a blank is missing after this range
          n:[1 TO 5]x
            ^
          help: write n:[1 TO 5], n:{1 TO *}, or n:"[" for the sign itself"#]],
    );
    check(
        "n:[TO 5]",
        expect![[r#"
        query:3: a range has TO between its bounds
          n:[TO 5]
            ^
          help: write n:[1 TO 5], n:{1 TO *}, or n:"[" for the sign itself"#]],
    );
}

#[test]
fn regexes_end_with_a_slash_and_paths_are_words() {
    check(r"/conn (reset|lost)/ path:/^\/api\/v[12]/ -/x/", expect![[r#"(and /conn (reset|lost)/ path:/^\/api\/v[12]/ (not /x/))"#]]);
    check("/var/log/app /a/b/ // /", expect!["(and /var/log/app /a/b/ // /)"]);
    check(
        "(/a/ OR x:/b/)|limit 1",
        expect![[r#"
        (or /a/ x:/b/)
        | Limit(1)"#]],
    );
    check(
        "a /b[c/ d",
        expect![[r#"
        query:5: this regex is wrong: unclosed character class
          a /b[c/ d
              ^
          help: write "b[c" to look for the text itself"#]],
    );
    check(
        "x:/(a{1000}){1000}/",
        expect![[r#"
        query:4: this regex is wrong: it is too large: repeats and classes multiply
          x:/(a{1000}){1000}/
             ^
          help: write "(a{1000}){1000}" to look for the text itself"#]],
    );
    check(
        &"/a/ ".repeat(17),
        expect![[r#"
        query:65: the query has too many regexes
          / /a/ /a/ /a/ /a/ /a/ /a/ /a/ /a/ /a/ /a/ /a/ /a/ /a/ 
                                                            ^
          help: 16 are possible; join some with |, as in /a|b/"#]],
    );
}

#[test]
fn time_words_are_for_the_whole_query() {
    check(
        "since:15m error OR warn until:\"2026-11-23 03:00:00\"",
        expect!["(or error warn) since=Ago(900000000000) until=At(UnixNanos(1795402800000000000))"],
    );
    check("since:yesterday until:today", expect!["all since=Yesterday until=Today"]);
    check(
        "a AND since:2026-11-23T03:00:00Z AND b | limit 1",
        expect![[r#"
        (and a b) since=At(UnixNanos(1795402800000000000))
        | Limit(1)"#]],
    );
    check(r"\since:x", expect!["since:x"]);
    check(
        "(since:5m a)",
        expect![[r#"
        query:2: a time word is for the whole query
          (since:5m a)
           ^
          help: write since:5m outside of brackets and without NOT; a field of this name is \since:"#]],
    );
    check(
        "-since:5m",
        expect![[r#"
        query:2: a time word is for the whole query
          -since:5m
           ^
          help: write since:5m outside of brackets and without NOT; a field of this name is \since:"#]],
    );
    check(
        "a OR since:5m",
        expect![[r#"
        query:6: a time word is for the whole query, not for one side of OR
          a OR since:5m
               ^
          help: write it beside the rest: since:15m (a OR b)"#]],
    );
    check(
        "since:soon",
        expect![[r#"
        query:7: "soon" is no time
          since:soon
                ^
          help: write since:15m, since:today or since:2026-11-23T03:00:00Z; a field of this name is \since:"#]],
    );
    check(
        "since:5m since:6m",
        expect![[r#"
        query:10: since: stands twice
          since:5m since:6m
                   ^
          help: leave one of them out"#]],
    );
}

#[test]
fn pipes_follow_one_another() {
    check(
        "error | stats count() by (service)",
        expect![[r#"
        error
        | Stats { calls: [Call { function: Count, field: None, name: "count()" }], by: ["service"] }"#]],
    );
    check(
        "stats:x | stats by (a, \"b c\") count() as n, sum(x), p99.9(x) as slow, uniq(user.id) | where slow:>5 n:[1 TO *] | sort slow desc, a | limit 3",
        expect![[r#"
            stats:x
            | Stats { calls: [Call { function: Count, field: None, name: "n" }, Call { function: Sum, field: Some("x"), name: "sum(x)" }, Call { function: Percentile(999), field: Some("x"), name: "slow" }, Call { function: Uniq, field: Some("user.id"), name: "uniq(user.id)" }], by: ["a", "b c"] }
            | where (and slow:[5! TO *] n:[1 TO *])
            | Sort([SortKey { field: "slow", descending: true }, SortKey { field: "a", descending: false }])
            | Limit(3)"#]],
    );
    check(
        "* | top 5 by service, level | rare x",
        expect![[r#"
        query:36: the table has no column x here
          * | top 5 by service, level | rare x
                                             ^
          help: it has service, level, count"#]],
    );
    check(
        "* | top 5 service|fields service,count|head 2",
        expect![[r#"
        all
        | Top { n: 5, by: ["service"], rare: false }
        | Fields(["service", "count"])
        | Limit(2)"#]],
    );
    check(
        "a | where b:1 | limit 5 | where c | context 3",
        expect![[r#"
        (and a b:1)
        | Limit(5)
        | where c
        | Context(3)"#]],
    );
    check(
        "| timechart 5m count(), weight() by level",
        expect![[r#"
        all
        | Timechart { span: Some(Span(300000000000)), calls: [Call { function: Count, field: None, name: "count()" }, Call { function: Weight, field: None, name: "weight()" }], by: ["level"] }"#]],
    );
    check(
        "| timechart avg(x) | sort avg(x) desc | where avg( x ):>1",
        expect![[r#"
        all
        | Timechart { span: None, calls: [Call { function: Avg, field: Some("x"), name: "avg(x)" }], by: [] }
        | Sort([SortKey { field: "avg(x)", descending: true }])
        | where avg(x):[1! TO *]"#]],
    );
    check(
        "| patterns 5 | sort count | fields pattern",
        expect![[r#"
        all
        | Patterns { n: 5 }
        | Sort([SortKey { field: "count", descending: false }])
        | Fields(["pattern"])"#]],
    );
}

#[test]
fn a_wrong_pipe_points_at_the_fault_and_at_the_nearest_name() {
    check(
        "a | stat count()",
        expect![[r#"
        query:5: there is no pipe stat
          a | stat count()
              ^
          help: did you mean stats?"#]],
    );
    check(
        "a | stats cout() by x",
        expect![[r#"
        query:11: there is no function cout
          a | stats cout() by x
                    ^
          help: did you mean count?"#]],
    );
    check(
        "a | stats count by x",
        expect![[r#"
        query:17: brackets are missing after count
          a | stats count by x
                          ^
          help: write count()"#]],
    );
    check(
        "a | stats sum() by x",
        expect![[r#"
        query:11: sum needs a field
          a | stats sum() by x
                    ^
          help: write sum(latency_ms)"#]],
    );
    check(
        "a | stats p999(x)",
        expect![[r#"
        query:11: p999 is no percentile
          a | stats p999(x)
                    ^
          help: they go from p0 to p100, with at most one digit after the point, as in p99.9"#]],
    );
    check(
        "a | stats count(), count()",
        expect![[r#"
        query:27: two columns are called count()
          a | stats count(), count()
                                    ^
          help: name one of them: count() as count()_2"#]],
    );
    check(
        "a | stats count() by (service) | sort cuont desc",
        expect![[r#"
        query:39: the table has no column cuont here
          a | stats count() by (service) | sort cuont desc
                                                ^
          help: did you mean count()?"#]],
    );
    check(
        "a | stats count() by (a,b,c,d,e,f,g,h,i)",
        expect![[r#"
        query:22: these are 9 columns to group by
          a | stats count() by (a,b,c,d,e,f,g,h,i)
                               ^
          help: 8 are possible"#]],
    );
    check(
        "a | stats count() | patterns",
        expect![[r#"
        query:21: patterns are made of records, and here is a table
          a | stats count() | patterns
                              ^
          help: write it as the first pipe"#]],
    );
    check(
        "a | limit ten",
        expect![[r#"
        query:11: a number is missing after limit
          a | limit ten
                    ^
          help: write limit 10"#]],
    );
    check(
        "a | limit 99999999999",
        expect![[r#"
        query:11: this number is too large
          a | limit 99999999999
                    ^
          help: 1000000 is the most"#]],
    );
    check(
        "a | ",
        expect![[r#"
        query:5: a pipe is missing here
          a | 
              ^
          help: it is one of stats, top, rare, sort, fields, limit, head, context, patterns, timechart, where"#]],
    );
    check(
        "a | limit 5 6",
        expect![[r#"
        query:13: a pipe ends here
          a | limit 5 6
                      ^
          help: write | before the next one, or a comma in a list"#]],
    );
    check(
        "a | timechart 5 count()",
        expect![[r#"
        query:15: "5" is no span of time
          a | timechart 5 count()
                        ^
          help: write timechart 5m count() by level"#]],
    );
    check(
        "a | context 5 | stats count()",
        expect![[r#"
        query:17: stats cannot follow context
          a | context 5 | stats count()
                          ^
          help: lines around a hit are shown, not counted: leave context out"#]],
    );
    check(
        "a | stats count() as n | where error",
        expect![[r#"
        query:32: a condition on a table names a column
          a | stats count() as n | where error
                                         ^
          help: write n:VALUE or n:>VALUE"#]],
    );
    check(
        "(a | limit 5)",
        expect![[r#"
        query:4: a pipe cannot begin inside brackets
          (a | limit 5)
             ^
          help: close the bracket before it, or write \| to look for it"#]],
    );
    check(
        &"| limit 1 ".repeat(17),
        expect![[r#"
        query:161: the query has too many pipes
          | limit 1 | limit 1 | limit 1 | limit 1 | limit 1 | limit 1 
                                                            ^
          help: 16 are possible"#]],
    );
}

#[test]
fn an_error_points_at_the_fault() {
    check(
        "level:error AND",
        expect![[r#"
        query:13: nothing follows AND
          level:error AND
                      ^
          help: to look for the word itself, write "AND""#]],
    );
    check(
        "a (b OR c",
        expect![[r#"
        query:3: this bracket is never closed
          a (b OR c
            ^
          help: write \( to look for a bracket"#]],
    );
    check(
        "a) b",
        expect![[r#"
        query:2: this bracket closes nothing
          a) b
           ^
          help: remove it, or write \) to look for a bracket"#]],
    );
    check(
        "latency_ms:>",
        expect![[r#"
        query:13: a value is missing after >
          latency_ms:>
                      ^
          help: write latency_ms:>500, or latency_ms:>"" for the empty text"#]],
    );
    check(
        "ä service:",
        expect![[r#"
        query:12: a value is missing after service:
          ä service:
                    ^
          help: service:* finds every record that has the field"#]],
    );
    check(
        "\"abc",
        expect![[r#"
        query:1: this quote is never closed
          "abc
          ^
          help: write \" to look for a quote"#]],
    );
    check(
        "OR a",
        expect![[r#"
        query:1: nothing precedes OR
          OR a
          ^
          help: to look for the word itself, write "OR""#]],
    );
    check(
        "()",
        expect![[r#"
        query:1: there is nothing between these brackets
          ()
          ^
          help: write \( to look for a bracket"#]],
    );
    check(
        "a*b:c",
        expect![[r#"
        query:1: a field name has no * and no ?
          a*b:c
          ^
          help: write \* if the name has a star in it"#]],
    );
    check(
        ":x",
        expect![[r#"
        query:1: a field name is missing before the colon
          :x
          ^
          help: write \: to look for a colon"#]],
    );
    check(
        "x\\",
        expect![[r#"
        query:2: a backslash at the end escapes nothing
          x\
           ^
          help: write \\ to look for a backslash"#]],
    );
}

#[test]
fn the_lenient_result_is_the_best_that_can_be_made() {
    check_lenient(
        "(a OR \"b c",
        expect![[r#"
        (or a "b c")
        6: this quote is never closed
        0: this bracket is never closed"#]],
    );
    check_lenient(
        "a) b",
        expect![[r#"
        (and a b)
        1: this bracket closes nothing"#]],
    );
    check_lenient(
        "level:error AND OR x",
        expect![[r#"
        (and level:error x)
        16: nothing precedes OR"#]],
    );
    check_lenient(
        "n:[1 TO x:y",
        expect![[r#"
        (and n:"1" TO x:y)
        2: this range is never closed"#]],
    );
    check_lenient(
        "a /b[c/ d",
        expect![[r#"
        (and a "b[c" d)
        4: this regex is wrong: unclosed character class"#]],
    );
    check_lenient(
        "a | stat count() | sort n | limit 5",
        expect![[r#"
        a
        | Sort([SortKey { field: "n", descending: false }])
        | Limit(5)
        4: there is no pipe stat"#]],
    );
    check_lenient(
        "NOT",
        expect![[r#"
        all
        0: nothing follows NOT"#]],
    );
    check_lenient(
        "x: (since:5m b)",
        expect![[r#"
        (and x:* b)
        2: a value is missing after x:
        4: a time word is for the whole query"#]],
    );
}

#[test]
fn unknown_fields_are_told_with_the_nearest_known_one() {
    let text = "servcie:auth level:error foo.bar:1 message:x | stats sum(latncy) by tenant | sort tenant";
    let errors = Query::parse(text).unwrap().unknown_fields(&["service", "latency_ms", "latency"]);
    let errors: Vec<String> = errors.iter().map(QueryError::to_string).collect();
    expect![[r#"
        query:1: no record has a field servcie
          servcie:auth level:error foo.b
          ^
          help: did you mean service?
        query:26: no record has a field foo.bar
          servcie:auth level:error foo.bar:1 message:x | stats su
                                   ^
        query:58: no record has a field latncy
          :auth level:error foo.bar:1 message:x | stats sum(latncy) by tenant | sort tenan
                                                            ^
          help: did you mean latency?"#]]
    .assert_eq(&errors.join("\n"));
}

#[test]
fn size_and_depth_are_bounded() {
    assert!(Query::parse(&"a ".repeat(TESTS_MAX)).is_ok());
    assert!(Query::parse(&"a ".repeat(TESTS_MAX + 1)).unwrap_err().message.contains("too many"));
    assert!(Query::parse(&" ".repeat(QUERY_BYTES_MAX)).is_ok());
    assert!(Query::parse(&"a".repeat(QUERY_BYTES_MAX + 1)).unwrap_err().message.contains("too long"));
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert!(Query::parse(&nested(DEPTH_MAX)).is_ok());
    assert!(Query::parse(&nested(DEPTH_MAX + 1)).unwrap_err().message.contains("too deep"));
    assert!(Query::parse(&nested(10_000)).is_err());
    assert!(Query::parse(&"-".repeat(10_000)).is_err());
    assert!(Query::parse(&"NOT ".repeat(10_000)).is_err());
    assert!(Query::parse(&format!("{}?{}", "a".repeat(300), "b".repeat(300))).unwrap_err().message.contains("too long"));
}

#[test]
fn any_text_is_read_in_time_that_grows_with_its_length() {
    let units = [
        "(",
        ")",
        "-",
        "\"",
        "a OR ",
        "NOT ",
        "a:",
        "f:[",
        "f:[a TO ",
        "[",
        "/",
        "/a ",
        "/a/ ",
        "x:/a\\/",
        "\\",
        "|",
        "| limit 1 ",
        "*",
        "?",
        "a?*",
        "f:(",
        "since:",
        "since:5m ",
        "| stats count() ",
        ",",
        "é",
        "f:\"",
        "-(",
        "a\u{0}",
        "AND ",
        "f:>",
        "| where ",
        "| stats count(",
    ];
    for unit in units {
        for text in [unit.repeat(QUERY_BYTES_MAX / unit.len()), unit.repeat(1_000_000 / unit.len())] {
            let start = Instant::now();
            let strict = Query::parse(&text);
            let (_, errors) = Query::parse_lenient(&text);
            assert_eq!(strict.is_ok(), errors.is_empty(), "{unit}");
            assert!(errors.len() <= ERRORS_MAX + 2);
            assert!(errors.iter().all(|error| error.to_string().len() < 2_000));
            // 64 KiB take about a millisecond; a quadratic parser takes a minute.
            assert!(start.elapsed().as_secs() < 5, "{unit} took {:?}", start.elapsed());
        }
    }
}

/// Forms that tantivy's grammar (0.27, `query_grammar.rs`) has tests for, where ours reads the same; there
/// words side by side mean OR by default, here AND.
#[test]
fn what_other_engines_read_reads_here() {
    check("a AND b OR c", expect!["(or (and a b) c)"]);
    check("a AND b OR c AND d", expect!["(or (and a b) (and c d))"]);
    check("a OR b OR c AND d", expect!["(or a b (and c d))"]);
    check("NOT a NOT b", expect!["(and (not a) (not b))"]);
    check("(a OR b) AND NOT (c d)", expect!["(and (or a b) (not (and c d)))"]);
    check("www-form-encoded", expect!["www-form-encoded"]);
    check(
        "title:[A TO B} weight:{70 TO 80] age:[* TO 9} x:{a TO *}",
        expect!["(and title:[A TO B!] weight:[70! TO 80] age:[* TO 9!] x:[a! TO *])"],
    );
    check(
        "weight:>70 weight:>=70 weight:<70 weight:<=70.5",
        expect!["(and weight:[70! TO *] weight:[70 TO *] weight:[* TO 70!] weight:[* TO 70.5])"],
    );
    check("title:/joh?n(ath[oa]n)/ AND /.*b|c/", expect!["(and title:/joh?n(ath[oa]n)/ /.*b|c/)"]);
    check(r"my\:field:a my\.key.x:b", expect!["(and my:field:a my.key.x:b)"]);
    check("date:[2021-04-13T19:46:26.266051969+00:00 TO *]", expect!["date:[2021-04-13T19:46:26.266051969+00:00 TO *]"]);
    check("ip:[::1 TO ::50]", expect!["ip:[::1 TO ::50]"]);
    check("a:(b c OR d)", expect!["(or (and a:b a:c) a:d)"]);
    check("\"a\\\"b\" \"x y\"", expect![[r#"(and "a\"b" "x y")"#]]);
    check(
        "*  *:a",
        expect![[r#"
        query:4: a field name has no * and no ?
          *  *:a
             ^
          help: write \* if the name has a star in it"#]],
    );
}
