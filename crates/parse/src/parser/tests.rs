//! Lines and the records that they become.

use super::*;
use crate::definition::{Decode, Decoder, Then, TimeRule, Type};
use proptest::prelude::*;

/// 2024-06-15T12:00:00Z.
const ARRIVAL: i64 = 1_718_452_800_000_000_000;

fn definition(format: Format) -> Definition {
    Definition::new("p", format)
}

fn regex(pattern: &str) -> Definition {
    definition(Format::Regex(pattern.to_string()))
}

fn timed(format: &str) -> TimeRule {
    TimeRule { format: Some(format.to_string()), ..TimeRule::default() }
}

/// Checks what a line becomes: its time, if it has one, and the record.
#[track_caller]
fn check(definition: &Definition, line: &str, want: &str) {
    check_bytes(definition, line.as_bytes(), want);
}

#[track_caller]
fn check_bytes(definition: &Definition, line: &[u8], want: &str) {
    let parser = Parser::new(definition).unwrap();
    let (mut scratch, mut out) = (Scratch::default(), b"before".to_vec());
    let found = match parser.parse(line, ARRIVAL, &mut scratch, &mut out) {
        Outcome::NoMatch => "no match".to_string(),
        Outcome::Limit => "limit".to_string(),
        Outcome::Parsed { time_ns: None } => String::new(),
        Outcome::Parsed { time_ns: Some(ns) } => format!("{} ", jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap()),
    };
    let record = out.strip_prefix(b"before").expect("what stood there stays");
    if !record.is_empty() {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(record).expect("one object");
    }
    assert_eq!(found + &String::from_utf8_lossy(record), want, "{}", String::from_utf8_lossy(line));
}

#[test]
fn json() {
    let plain = definition(Format::Json);
    check(&plain, r#" {"a": 1, "b":{"c":[]} } "#, r#"{"a": 1, "b":{"c":[]} }"#);
    check(&plain, "{}", "{}");
    check(&plain, "{\"a\":\n1}", r#"{"a": 1}"#);
    check(&plain, "{\"a\":9007199254740993}", r#"{"a":9007199254740993}"#);
    check(&plain, "{} {}", "no match");
    check(&plain, "[]", "no match");
    check(&plain, "{\"a\"", "no match");
    check_bytes(&plain, b"{\"a\":\"\xff\"}", "{\"a\":\"\u{fffd}\"}");
    let time = Definition { time: timed("%Y-%m-%dT%H:%M:%S.%L"), ..definition(Format::Json) };
    check(&time, r#"{"a":1,"time":"2024-01-02T03:04:05.5Z","b":2}"#, r#"2024-01-02T03:04:05.5Z {"a":1,"b":2}"#);
    check(&time, r#"{"a":1,"time":"soon"}"#, r#"{"a":1,"time":"soon"}"#);
    check(&time, r#"{"time":"2024-01-02T03:04:05Z"}"#, r#"2024-01-02T03:04:05Z {}"#);
    let keep = Definition { time: TimeRule { keep: true, ..timed("%s") }, ..definition(Format::Json) };
    check(&keep, r#"{"time":1500322623}"#, r#"2017-07-17T20:17:03Z {"time":1500322623}"#);
}

#[test]
fn docker() {
    let line = r#"{"log":"a\n","stream":"stdout","time":"2024-01-01T00:00:00Z"}"#;
    check(&definition(Format::Docker), line, r#"2024-01-01T00:00:00Z {"log":"a\n","stream":"stdout"}"#);
    let as_json = Decode { field: "log".to_string(), decoder: Decoder::Json, spread: false, then: Then::Stop };
    let decoded = Definition { decode: vec![as_json.clone()], ..definition(Format::Docker) };
    check(&decoded, r#"{"log":"{\"a\":\"b\\n\"}\n"}"#, r#"{"log":{"a":"b\n"}}"#);
    check(&decoded, r#"{"log":"no json"}"#, r#"{"log":"no json"}"#);
    let spread = Definition { decode: vec![Decode { spread: true, ..as_json }], ..definition(Format::Docker) };
    check(&spread, r#"{"log":"{\"a\":1}","b":2}"#, r#"{"log":"{\"a\":1}","a":1,"b":2}"#);
}

#[test]
fn logfmt() {
    let logfmt = definition(Format::Logfmt { bare_keys: true });
    check(&logfmt, r#"k1 k2= k3="" k4="a\"b""#, r#"{"k1":true,"k2":true,"k3":"","k4":"a\"b"}"#);
    check(&logfmt, "  a=1\tb=x=y  ", r#"{"a":"1","b":"x=y"}"#);
    check(&logfmt, r#"a="b\n\u00e4" c="d"e=f"#, r#"{"a":"b\nä","c":"d","e":"f"}"#);
    check(&logfmt, r#"a="b"#, "no match");
    check(&logfmt, r#"a="b\"#, "no match");
    check(&logfmt, "=a", "no match");
    check(&logfmt, "  ", "no match");
    check(&logfmt, "", "no match");
    let strict = definition(Format::Logfmt { bare_keys: false });
    check(&strict, "a=1 b", "no match");
    check(&strict, "a=1 b=", r#"{"a":"1","b":true}"#);
    let types = vec![("n".to_string(), Type::Integer), ("ok".to_string(), Type::Bool), ("x".to_string(), Type::Hex)];
    let typed = Definition { types, time: timed("%FT%T"), ..definition(Format::Logfmt { bare_keys: true }) };
    check(&typed, "n=12ab ok=TRUEish x=0x1f time=2024-01-02T03:04:05Z", r#"2024-01-02T03:04:05Z {"n":12,"ok":true,"x":31}"#);
}

#[test]
fn ltsv() {
    let ltsv = definition(Format::Ltsv);
    check(&ltsv, "host:127.0.0.1\tua:a:b c\tsize:", r#"{"host":"127.0.0.1","ua":"a:b c"}"#);
    check(&Definition { skip_empty: false, ..ltsv.clone() }, "size:\t\ta:1\r\n", r#"{"size":"","a":"1"}"#);
    check(&ltsv, "no label", "no match");
    check(&ltsv, ":x", "no match");
    check(&ltsv, "", "no match");
}

#[test]
fn csv() {
    let columns = ["a", "b", "c"].map(String::from).to_vec();
    let csv = definition(Format::Csv { columns: columns.clone(), delimiter: b',' });
    check(&csv, "1,\"x, \"\"y\"\"\",z,more", r#"{"a":"1","b":"x, \"y\"","c":"z","column_4":"more"}"#);
    check(&csv, "1,,3", r#"{"a":"1","c":"3"}"#);
    check(&csv, "1,\"\",", r#"{"a":"1"}"#);
    check(&Definition { skip_empty: false, ..csv.clone() }, "1,", r#"{"a":"1","b":""}"#);
    check(&csv, "1,\"x", "no match");
    check(&csv, "1,\"x\"y", "no match");
    check(&csv, "", "no match");
    let typed = Definition { types: vec![("b".to_string(), Type::Float)], ..definition(Format::Csv { columns, delimiter: b';' }) };
    check(&typed, "a,b;1.5;", r#"{"a":"a,b","b":1.5}"#);
}

#[test]
fn syslog_5424() {
    let syslog = definition(Format::Syslog);
    check(
        &syslog,
        r#"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" t="a\"\]\\\n"][x] An event"#,
        concat!(
            r#"2003-10-11T22:14:15.003Z {"pri":165,"facility":"local4","severity":"notice","host":"mymachine.example.com","#,
            r#""ident":"evntslog","msgid":"ID47","structured_data":{"exampleSDID@32473.iut":"3","exampleSDID@32473.t":"a\"]\\\\n","x":true},"#,
            r#""message":"An event"}"#
        ),
    );
    let head = r#"{"pri":34,"facility":"auth","severity":"crit","#;
    check(
        &syslog,
        "<34>1 2003-10-11T22:14:15-07:00 h su 1 - - \u{feff}'su root'",
        &format!(r#"2003-10-12T05:14:15Z {head}"host":"h","ident":"su","pid":"1","message":"'su root'"}}"#),
    );
    check(&syslog, "<34>1 - - - - - -", r#"{"pri":34,"facility":"auth","severity":"crit"}"#);
    let strict = definition(Format::Syslog5424);
    check(&strict, "<34>1 - - - - - [", "no match");
    check(&strict, "<34>1 - - - - - [a b]", "no match");
    check(&strict, "<34>1 - - - - - [a b=\"c]", "no match");
    check(&strict, "<34>1 - - - - -", "no match");
    check(&strict, "<192>1 - - - - - -", "no match");
    check(&strict, "<34>Oct 11 22:14:15 h su: x", "no match");
}

#[test]
fn syslog_3164() {
    let syslog = definition(Format::Syslog);
    let head = r#"{"pri":34,"facility":"auth","severity":"crit","#;
    let su = format!(r#"2023-10-11T22:14:15Z {head}"host":"mymachine","ident":"su","pid":"230","message":"pam failure"}}"#);
    check(&syslog, "<34>Oct 11 22:14:15 mymachine su[230]: pam failure", &su);
    check(&syslog, "<34>Oct 11 22:14:15 su[230]: x", &format!(r#"2023-10-11T22:14:15Z {head}"ident":"su","pid":"230","message":"x"}}"#));
    check(&syslog, "Jun  1 00:00:01 h kernel: [1.0] oops", r#"2024-06-01T00:00:01Z {"host":"h","ident":"kernel","message":"[1.0] oops"}"#);
    check(&syslog, "Jun  1 00:00:01 h no tag here", r#"2024-06-01T00:00:01Z {"host":"h","message":"no tag here"}"#);
    check(
        &syslog,
        "2024-06-01T00:00:01.5+02:00 h a/b[1]: x",
        r#"2024-05-31T22:00:01.5Z {"host":"h","ident":"a/b","pid":"1","message":"x"}"#,
    );
    check(&syslog, "<34>Use the BFG!", &format!(r#"{head}"message":"Use the BFG!"}}"#));
    check(&syslog, "Use the BFG!", "no match");
    check(&syslog, "Jun 31 00:00:01", r#"2023-07-01T00:00:01Z {"message":""}"#);
    check(&syslog, "Jun 99 00:00:01 h a: b", r#"{"time":"Jun 99 00:00:01","host":"h","ident":"a","message":"b"}"#);
}

#[test]
fn access_logs() {
    let line = r#"192.0.2.10 - alice [10/Oct/2024:13:55:36 -0700] "GET /a b.html?x=1 HTTP/1.1" 200 2326 "http://e.test/" "M/5.0 \"X\"""#;
    let rest = r#""user":"alice","method":"GET","path":"/a b.html?x=1","protocol":"HTTP/1.1","code":200,"size":2326,"referer":"http://e.test/","agent":"M/5.0 \\\"X\\\""}"#;
    check(&definition(Format::Apache), line, &format!(r#"2024-10-10T20:55:36Z {{"host":"192.0.2.10",{rest}"#));
    check(&definition(Format::Nginx), line, &format!(r#"2024-10-10T20:55:36Z {{"remote":"192.0.2.10","host":"-",{rest}"#));
    let short = r#"h - - [10/Oct/2024:13:55:36 +0000] "GET" 400 -"#;
    check(&definition(Format::Apache), short, r#"2024-10-10T13:55:36Z {"host":"h","user":"-","method":"GET","code":400}"#);
    let bad = r#"h - - [10/Oct/2024:13:55:36 +0000] "\x16\x03" 000 0"#;
    check(
        &definition(Format::Nginx),
        bad,
        r#"2024-10-10T13:55:36Z {"remote":"h","host":"-","user":"-","method":"\\x16\\x03","code":"000","size":0}"#,
    );
    check(&definition(Format::Apache), &format!("{line} more"), "no match");
    check(&definition(Format::Apache), "hello", "no match");
}

#[test]
fn klog_and_cri() {
    let klog = definition(Format::Klog);
    let want = r#"2024-06-01T15:04:05.678901Z {"severity":"warning","thread":1234,"file":"file.go","line":56,"message":"\"Pod\" x=\"y\""}"#;
    check(&klog, r#"W0601 15:04:05.678901    1234 file.go:56] "Pod" x="y""#, want);
    check(&klog, "X0601 15:04:05.678901 1234 file.go:56] x", "no match");
    check(&klog, "I0601 15:04:05.678901 1234 file.go", "no match");
    check(&klog, "I06", "no match");
    let cri = definition(Format::Cri);
    check(
        &cri,
        "2016-10-06T00:17:09.669794202Z stdout P a ",
        r#"2016-10-06T00:17:09.669794202Z {"stream":"stdout","logtag":"P","message":"a "}"#,
    );
    check(&cri, "2024-02-03T04:05:06+08:00 stderr F \r", r#"2024-02-02T20:05:06Z {"stream":"stderr","logtag":"F","message":""}"#);
    check(&cri, "2024-02-03T04:05:06Z stdout F", "no match");
    check(&cri, "2024-02-03T04:05:06Z stdin F x", "no match");
}

#[test]
fn regex_fields() {
    check(&regex("(?<a>x*)(?<b>y)?(?<c>z)"), "xz", r#"{"a":"x","c":"z"}"#);
    check(&Definition { skip_empty: false, ..regex("(?<a>x*)(?<b>y)?(?<c>z)") }, "z", r#"{"a":"","b":"","c":"z"}"#);
    check(&regex("(?<a>x)"), "y", "no match");
    check(&regex("x"), "x", "no match");
    let time = Definition { time: timed("%H:%M"), ..regex("(?<time>.*) (?<m>.*)") };
    check(&time, "11:59 x", r#"2024-06-15T11:59:00Z {"m":"x"}"#);
    check(&time, "late x", r#"{"m":"x"}"#);
    check_bytes(&regex("(?<a>.*)"), b"a\xffb", "{\"a\":\"a\u{fffd}b\"}");
}

#[test]
fn definitions_are_written_as_yaml_has_them() {
    let text = r#"{"format":{"regex":"(?<a>x)"},"time":{"key":"t","format":"%s"},"types":{"b":"integer","a":"hex"},
        "decode":[{"field":"a","decoder":"escaped_utf8","then":"do_next"}]}"#;
    let read: Definition = serde_json::from_str(text).unwrap();
    assert_eq!(read.types, [("b".to_string(), Type::Integer), ("a".to_string(), Type::Hex)]);
    assert!(read.skip_empty && read.time.strict && read.time.whole_seconds);
    let again: Definition = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
    assert_eq!(again, read);
    let csv: Definition = serde_json::from_str(r#"{"format":{"csv":{"columns":["a"],"delimiter":";"}}}"#).unwrap();
    assert_eq!(csv.format, Format::Csv { columns: vec!["a".to_string()], delimiter: b';' });
    assert!(serde_json::from_str::<Definition>(r#"{"format":"json","tipes":{}}"#).is_err());
    serde_json::to_string(&schemars::schema_for!(Definition)).unwrap();
}

fn formats() -> Vec<Definition> {
    let all = [
        Format::Json,
        Format::Docker,
        Format::Logfmt { bare_keys: true },
        Format::Logfmt { bare_keys: false },
        Format::Ltsv,
        Format::Csv { columns: vec!["a".to_string(), "time".to_string()], delimiter: b',' },
        Format::Syslog,
        Format::Syslog5424,
        Format::Syslog3164,
        Format::Nginx,
        Format::Apache,
        Format::Klog,
        Format::Cri,
        Format::Regex("(?<a>[a-z]*)=?(?<time>.*)".to_string()),
    ];
    let escaped = Decode { field: "a".to_string(), decoder: Decoder::EscapedUtf8, spread: false, then: Then::DoNext };
    let json = Decode { field: "a".to_string(), decoder: Decoder::Json, spread: true, then: Then::Stop };
    let types = vec![("message".to_string(), Type::Float), ("b".to_string(), Type::Bool)];
    let rich = |d: &Definition| Definition { types: types.clone(), decode: vec![escaped.clone(), json.clone()], ..d.clone() };
    let plain: Vec<Definition> = all.into_iter().map(definition).collect();
    plain.iter().cloned().chain(plain.iter().map(rich)).collect()
}

const SEEDS: [&str; 7] = [
    r#"<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [a@1 iut="3" t="a\"]"][x] An event"#,
    "<34>Oct 11 22:14:15 mymachine su[230]: pam failure",
    r#"h - - [10/Oct/2024:13:55:36 +0000] "GET / HTTP/1.1" 400 - "-" "x""#,
    "W0601 15:04:05.678901    1234 file.go:56] x",
    "2016-10-06T00:17:09.669794202Z stdout P a",
    r#"{"log":"a\n","a":"{\"b\":1}","time":"2024-01-01T00:00:00Z"}"#,
    "a=1,\"b\"=\"c\\n\"\tb:x a=\"{\\\"b\\\":1}\"",
];

/// Every format reads the line without a panic, and what it writes is one object in one line.
fn read_with_all(parsers: &[Parser], line: &[u8]) -> Result<(), TestCaseError> {
    let mut scratch = Scratch::default();
    for parser in parsers {
        let mut out = Vec::new();
        match parser.parse(line, ARRIVAL, &mut scratch, &mut out) {
            Outcome::Parsed { .. } => {
                let read: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(&out);
                let lone_surrogate =
                    read.as_ref().is_err_and(|e| e.to_string().contains("surrogate") || e.to_string().contains("hex escape"));
                prop_assert!(read.is_ok() || lone_surrogate, "{}", String::from_utf8_lossy(&out));
                prop_assert!(!out.contains(&b'\n'));
                prop_assert!(out.len() <= line.len() * 12 + (64 << 10) + 200);
            }
            Outcome::NoMatch | Outcome::Limit => prop_assert!(out.is_empty()),
        }
    }
    Ok(())
}

fn parsers() -> Vec<Parser> {
    formats().iter().map(|definition| Parser::new(definition).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_break_a_format(line: Vec<u8>) {
        read_with_all(&parsers(), &line)?;
    }

    #[test]
    fn nor_do_lines_that_are_nearly_right(seed in 0..SEEDS.len(), edits in proptest::collection::vec((0..100usize, any::<u8>(), 0..3u8), 0..6)) {
        let parsers = parsers();
        let mut line = SEEDS[seed].as_bytes().to_vec();
        for (at, byte, what) in edits {
            let at = at % (line.len() + 1);
            match what {
                0 => line.insert(at, byte),
                1 => line.truncate(at),
                _ => if at < line.len() { line[at] = b"\"\\ []{}=:,\t-"[usize::from(byte) % 12] },
            }
        }
        read_with_all(&parsers, &line)?;
    }

    #[test]
    fn json_passes_as_it_is(value in object()) {
        let parser = Parser::new(&definition(Format::Json)).unwrap();
        let mut out = Vec::new();
        let text = serde_json::to_string(&value).unwrap();
        parser.parse(text.as_bytes(), ARRIVAL, &mut Scratch::default(), &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), text);
    }

    #[test]
    fn csv_reads_what_a_writer_wrote(fields in proptest::collection::vec("[a-z,\"é\n ]{0,8}", 1..8)) {
        let columns: Vec<String> = (0..fields.len()).map(|n| format!("f{n}")).collect();
        let format = Format::Csv { columns: columns.clone(), delimiter: b',' };
        let parser = Parser::new(&Definition { skip_empty: false, ..definition(format) }).unwrap();
        let quoted: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
        let mut out = Vec::new();
        parser.parse(quoted.join(",").as_bytes(), ARRIVAL, &mut Scratch::default(), &mut out);
        let read: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
        for (column, field) in columns.iter().zip(&fields) {
            prop_assert_eq!(&read[column], field);
        }
    }

    #[test]
    fn logfmt_reads_what_a_writer_wrote(fields in proptest::collection::vec("[ -~é\n\t\u{1}]{0,12}", 1..8)) {
        let parser = Parser::new(&definition(Format::Logfmt { bare_keys: false })).unwrap();
        let pairs: Vec<String> = fields.iter().enumerate().map(|(n, f)| format!("k{n}={}", serde_json::to_string(f).unwrap())).collect();
        let mut out = Vec::new();
        parser.parse(pairs.join(" ").as_bytes(), ARRIVAL, &mut Scratch::default(), &mut out);
        let read: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
        for (n, field) in fields.iter().enumerate() {
            prop_assert_eq!(&read[&format!("k{n}")], field);
        }
    }
}

fn object() -> impl Strategy<Value = serde_json::Map<String, serde_json::Value>> {
    let leaf = prop_oneof![Just(serde_json::Value::Null), any::<i64>().prop_map(Into::into), any::<String>().prop_map(Into::into)];
    let value = leaf.prop_recursive(3, 20, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(serde_json::Value::from));
    proptest::collection::hash_map("[a-zé\"]{0,6}", value, 0..6).prop_map(|map| map.into_iter().collect())
}
