//! Any log: lines of sixteen systems, Fluent Bit's libraries and configurations, tests in pipeline files, expressions on lines.
//!
//! The oracles are files that nobody here wrote: the structured CSVs of loghub and the vectors beside Fluent Bit's parsers. Where their
//! folder is missing a test says so and ends.

use crate::harness::{Done, Place, finish, root, weir};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Inputs that nobody here wrote; `None`: they are not on this machine.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let places = [std::env::var_os("WEIR_SHARED").map(PathBuf::from), root().parent().map(|parent| parent.join("shared"))];
    let found = places.into_iter().flatten().map(|place| place.join(folder)).find(|path| path.is_dir());
    if found.is_none() {
        println!("skipped: the folder shared/{folder} is not on this machine");
    }
    found
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("readable");
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text(done: &Done) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Records of an archive file.
fn records(place: &Place, file: &str) -> Vec<Value> {
    lines(&place.path(file))
}

/// RFC 4180, over all of a file.
pub fn csv(text: &str) -> Vec<BTreeMap<String, String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            c => cell.push(c),
        }
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    let mut rows = rows.into_iter();
    let header: Vec<String> = rows.next().expect("a header").iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
    rows.map(|row| header.iter().cloned().zip(row).collect()).collect()
}

/// Columns, and the members that hold them.
type Renamed = &'static [(&'static str, &'static str)];

/// The parser of `pipelines/parsers/systems.conf` for each folder, and which member holds a column that has another name there:
/// the CSVs of Linux and OpenSSH call the host `Level` and `Component`.
const SYSTEMS: [(&str, &str, Renamed); 16] = [
    ("Android", "android", &[]),
    ("Apache", "apache_error_log", &[]),
    ("BGL", "bgl", &[]),
    ("HDFS", "hdfs", &[]),
    ("HPC", "hpc", &[]),
    ("Hadoop", "hadoop", &[]),
    ("HealthApp", "healthapp", &[]),
    ("Linux", "linux", &[("Level", "host")]),
    ("Mac", "mac", &[]),
    ("OpenSSH", "openssh", &[("Component", "host")]),
    ("OpenStack", "openstack", &[]),
    ("Proxifier", "proxifier", &[("Program", "component")]),
    ("Spark", "spark", &[]),
    ("Thunderbird", "thunderbird", &[]),
    ("Windows", "windows", &[]),
    ("Zookeeper", "zookeeper", &[]),
];

#[test]
fn level_component_and_content_of_sixteen_systems_are_recovered() {
    let Some(loghub) = shared("data/loghub") else { return };
    let mut lacking = Vec::new();
    for (system, parser, renamed) in SYSTEMS {
        let place = Place::new();
        let log = loghub.join(system).join(format!("{system}_2k.log"));
        let library = root().join("pipelines/parsers/systems.conf");
        place.pipeline(&format!(
            "parser_files: [\"{}\"]
sources:
  in: {{ file: {{ include: [\"{}\"], format: text, parse: [{{ with: [{parser}] }}] }} }}
sinks:
  out: {{ archive: {{ path: out.jsonl, dir: $DIR/out }} }}
",
            library.display(),
            log.display()
        ));
        place.once();
        let got = records(&place, "out/out.jsonl");
        let want = csv(&String::from_utf8_lossy(&std::fs::read(log.with_extension("log_structured.csv")).expect("readable")));
        assert_eq!(got.len(), want.len(), "{system}");
        let mut right = 0;
        for (n, (got, want)) in got.iter().zip(&want).enumerate() {
            let columns = ["Level", "Component", "Content", "Program"].into_iter().filter(|column| want.contains_key(*column));
            let wrong: Vec<String> = columns
                .filter_map(|column| {
                    let member = renamed.iter().find(|(from, _)| *from == column).map_or(column.to_lowercase(), |(_, to)| to.to_string());
                    let found = got[&member].as_str().unwrap_or_default();
                    (found != want[column]).then(|| format!("{column} is {:?}, came {found:?}", want[column]))
                })
                .collect();
            if wrong.is_empty() {
                right += 1;
            } else {
                println!("{system} line {}: {}", n + 1, wrong.join(", "));
            }
        }
        // 99.5 % of 2,000 lines; today all of them.
        if right * 1_000 < want.len() * 995 {
            lacking.push(format!("{system}: {right} of {}", want.len()));
        }
    }
    assert!(lacking.is_empty(), "{lacking:?}");
}

/// Members as the vectors have them: texts.
fn as_texts(record: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    record.as_object().expect("a record").iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

#[test]
fn an_imported_configuration_gives_the_records_of_the_vectors() {
    let Some(data) = shared("data/fluent-bit") else { return };
    let place = Place::new();
    for file in std::fs::read_dir(data.join("stock")).expect("readable") {
        let file = file.expect("readable").path();
        place.write(&format!("fb/{}", file.file_name().expect("a name").to_string_lossy()), std::fs::read(&file).expect("readable"));
    }
    // One input for each parser, so that each line meets its own. A vector holds raw captures, before types, time and decoders.
    let mut by_parser: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    // Two files define `rabbitmq`; of parsers of one name one is used, that of the file that Fluent Bit itself would read.
    let is_used = |vector: &Value| !(vector["parser"] == "rabbitmq" && vector["file"] == "parser_custom.conf");
    for vector in lines(&data.join("parser_vectors.jsonl")).into_iter().filter(is_used) {
        by_parser.entry(vector["parser"].as_str().expect("a name").to_string()).or_default().push(vector);
    }
    let mut main = "[SERVICE]\n    Flush 1\n".to_string();
    for (parser, vectors) in &by_parser {
        let text: String = vectors.iter().map(|vector| format!("{}\n", vector["line"].as_str().expect("a line"))).collect();
        let path = place.write(&format!("logs/{parser}.log"), text);
        main +=
            &format!("[INPUT]\n    Name tail\n    Path {}\n    Parser {parser}\n    Read_from_Head On\n    Tag {parser}\n", path.display());
    }
    let out = place.path("out").display().to_string();
    main += &format!("[OUTPUT]\n    Name file\n    Match *\n    Path {out}\n    File all.log\n    Format plain\n");
    place.write("fb/fluent-bit.conf", main);
    let pipeline = place.path("pipeline.yaml");
    let mut command = weir();
    command.args(["import", "fluent-bit", "--json"]).arg(place.path("fb")).arg("--out").arg(&pipeline);
    let done = finish(command).good();
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((&report["patterns"], &report["patterns_usable"]), (&json!(53), &json!(53)), "{report}");
    let missing: Vec<&Value> = report["findings"].as_array().expect("a list").iter().filter(|f| f["kind"] == "missing").collect();
    assert!(missing.is_empty(), "{missing:?}");
    place.once();
    let mut got: Vec<BTreeMap<String, String>> = records(&place, "out/all.log").iter().map(as_texts).collect();
    let mut checked = 0;
    for vector in by_parser.values().flatten() {
        let line = vector["line"].as_str().expect("a line");
        let fields = as_texts(&vector["fields"]);
        // What no parser matched is the line itself; a member that is a time goes, and decoded ones change.
        let is_it = |record: &BTreeMap<String, String>| match vector["matched"] == true {
            false => record.get("log").is_some_and(|log| log == line) && record.len() == 1,
            true => {
                record.iter().all(|(name, value)| fields.get(name).is_some_and(|want| same(want, value)))
                    && fields.len() <= record.len() + 2
            }
        };
        let at = got.iter().position(is_it).unwrap_or_else(|| panic!("no record is {fields:?} of {line}; left: {got:#?}"));
        got.remove(at);
        checked += 1;
    }
    assert!(got.is_empty() && checked > 40, "{checked}: {got:?}");
}

/// A capture, as text or as the number that `Types` makes of it.
fn same(want: &str, got: &str) -> bool {
    want == got || want.parse::<f64>().is_ok_and(|want| got.parse::<f64>().is_ok_and(|got| got == want))
}

#[test]
fn a_configuration_of_fluent_bit_runs_with_its_filters_and_names_what_has_no_equivalent() {
    let place = Place::new();
    place.write(
        "fb/parsers.conf",
        "[PARSER]\n    Name app\n    Format regex\n    Regex ^(?<time>[^ ]+) (?<level>[A-Z]+) (?<code>\\d+) (?<msg>.*)$\n    Time_Key time\n    Time_Format %Y-%m-%dT%H:%M:%S.%L%z\n    Types code:integer\n",
    );
    let log = place.write(
        "app.log",
        "2026-01-01T00:00:00.250Z INFO 200 hello\n2026-01-01T00:00:01.000Z DEBUG 200 noise\n2026-01-01T00:00:02.000Z ERROR 500 it broke\nnothing\n",
    );
    place.write(
        "fb/fluent-bit.conf",
        format!(
            "[SERVICE]\n    Parsers_File parsers.conf\n    Flush 1\n[INPUT]\n    Name tail\n    Path {}\n    Tag app.main\n    Read_from_Head true\n    DB /x\n[FILTER]\n    Name parser\n    Match app.*\n    Key_Name log\n    Parser app\n[FILTER]\n    Name grep\n    Match app.*\n    Exclude level ^DEBUG$\n[FILTER]\n    Name modify\n    Match *\n    Add env prod\n    Hard_rename msg message\n[FILTER]\n    Name lua\n    Match *\n    script x.lua\n[OUTPUT]\n    Name file\n    Match *\n    Path {}\n    File all.log\n    Format plain\n    Nonsense 5\n",
            log.display(),
            place.path("out").display()
        ),
    );
    let mut command = weir();
    command.args(["import", "fluent-bit"]).arg(place.path("fb")).arg("--out").arg(place.path("pipeline.yaml"));
    let done = finish(command).good();
    for told in ["filter lua: no equivalent", "Nonsense 5: no equivalent", "1 of 1 parsers are usable"] {
        assert!(text(&done).contains(told), "{told} is not in {}", text(&done));
    }
    place.once();
    let got = records(&place, "out/all.log");
    assert_eq!(
        got,
        [
            json!({ "level": "INFO", "code": 200, "message": "hello", "env": "prod" }),
            json!({ "level": "ERROR", "code": 500, "message": "it broke", "env": "prod" }),
            json!({ "log": "nothing", "env": "prod" }),
        ]
    );
}

#[test]
fn tests_in_a_pipeline_file_hold_or_say_what_is_different() {
    let place = Place::new();
    let file = place.pipeline(
        "sources:
  web: { file: { include: [x.log], format: text, parse: [{ with: [nginx] }] } }
steps:
  - drop: { when: 'code == 404' }
  - meter: { name: bytes_out, quantity: size, unit: Bytes, by: [method] }
sinks:
  out: { stdout: {} }
tests:
  - name: a request is a record and is billed
    input: |
      192.0.2.1 - - [27/Mar/2024:09:15:00 +0100] \"GET /a HTTP/1.1\" 200 12 \"-\" \"curl\"
      192.0.2.1 - - [27/Mar/2024:09:15:01 +0100] \"GET /b HTTP/1.1\" 404 5 \"-\" \"curl\"
      nonsense
    expect:
      verdicts: [kept, filtered, kept]
      notes: [\"\", \"\", arrival_time parse_error]
      records:
        - { remote: \"192.0.2.1\", host: \"-\", user: \"-\", method: GET, path: /a, protocol: HTTP/1.1, code: 200, size: 12, referer: \"-\", agent: curl }
        - { message: nonsense, parse_error: no_match }
      times: [\"2024-03-27T08:15:00Z\", \"2026-01-01T00:00:00Z\"]
      facts:
        - { meter: bytes_out, tenant: unassigned, by: { method: GET }, quantity: 12, events: 1 }
  - name: and this one is wrong
    input: '192.0.2.1 - - [27/Mar/2024:09:15:00 +0100] \"GET /a HTTP/1.1\" 200 12 \"-\" \"curl\"'
    expect:
      verdicts: [filtered]
      records: []
",
    );
    let mut command = weir();
    command.arg("test").arg(&file);
    let done = finish(command).exits(2);
    for told in ["ok     ", "FAILED", "1 passed, 1 failed", "1: expected `filtered`, came `kept`", "records: 0 expected, 1 came"] {
        assert!(text(&done).contains(told), "{told} is not in {}", text(&done));
    }
}

#[test]
fn an_expression_is_shown_on_real_lines() {
    let place = Place::new();
    let file = place.write("a.jsonl", "{\"status\":200,\"ms\":5}\n{\"status\":500,\"ms\":1500}\n{\"status\":\"x\"}\nnot json\n");
    let mut command = weir();
    command.args(["eval", "status >= 500 && ms / 1000 >= 1"]).arg(&file);
    let done = finish(command).good();
    let told = text(&done);
    assert!(told.starts_with("false\t{\"status\":200") && told.contains("\ntrue\t{\"status\":500"), "{told}");
    assert!(told.contains("\nfalse (") && told.ends_with("4 lines: 1 true, 3 false\n"), "{told}");
    // As `when` has it: turned around, what is not there holds.
    let mut command = weir();
    command.args(["eval", "!(level == \"info\")"]).arg(&file);
    assert!(text(&finish(command).good()).ends_with("4 lines: 4 true\n"));
    let mut command = weir();
    command.args(["eval", "status >="]).arg(&file);
    let done = finish(command).exits(2);
    assert!(done.stderr.contains('^') && done.stderr.contains("help:"), "{}", done.stderr);
}

#[test]
fn a_sample_proposes_a_pipeline_that_runs() {
    let place = Place::new();
    let mut log = String::new();
    for n in 0..100 {
        log += &format!("192.0.2.{n} - - [27/Mar/2024:09:15:00 +0100] \"GET /{n} HTTP/1.1\" 200 {n} \"-\" \"curl\"\n");
        log += &format!("17/06/09 20:10:{:02} INFO spark.SecurityManager: Changing view acls to: yarn,{n}\n", n % 60);
    }
    let file = place.write("mixed.log", &log);
    let mut command = weir();
    command.args(["import", "sample"]).arg(&file).arg("--out").arg(place.path("pipeline.yaml"));
    finish(command).good();
    let proposed = std::fs::read_to_string(place.path("pipeline.yaml")).expect("written");
    assert!(proposed.contains(&format!("include: [\"{}\"]", file.display())), "{proposed}");
    assert!(proposed.contains("spark") && (proposed.contains("nginx") || proposed.contains("apache")), "{proposed}");
    let pipeline = place.path("pipeline.yaml");
    let done = place.run(&["run", "--once", "--quiet", pipeline.to_str().expect("text")]).good();
    let records = text(&done);
    assert_eq!(records.lines().count(), 200, "{records}");
    assert!(!records.contains("parse_error"), "{records}");
}

#[test]
fn the_eleven_conventions_give_time_level_message_and_trace() {
    let place = Place::new();
    // Line, time, class of its level.
    let cases = [
        (r#"{"level":"info","ts":1700000000.123456,"caller":"a/b.go:7","msg":"n0"}"#, "2023-11-14T22:13:20.123456Z", "info"),
        (r#"{"level":"warning","time":"2024-01-02T03:04:05Z","msg":"n1"}"#, "2024-01-02T03:04:05Z", "warn"),
        (r#"{"time":"2024-01-02T03:04:05.000000006Z","level":"WARN+1","msg":"n2"}"#, "2024-01-02T03:04:05.000000006Z", "warn"),
        (r#"{"level":"error","time":1700000000,"message":"n3"}"#, "2023-11-14T22:13:20Z", "error"),
        (
            r#"{"v":0,"level":50,"name":"a","hostname":"h","pid":1,"time":"2024-01-02T03:04:05.123Z","msg":"n4"}"#,
            "2024-01-02T03:04:05.123Z",
            "error",
        ),
        (r#"{"level":30,"time":1700000000123,"pid":1,"hostname":"h","msg":"n5"}"#, "2023-11-14T22:13:20.123Z", "info"),
        (r#"{"@timestamp":"2024-01-02T03:04:05.1Z","level_value":40000,"message":"n6"}"#, "2024-01-02T03:04:05.100Z", "error"),
        (r#"{"log.level":" WARN","@timestamp":"2024-01-02T03:04:05Z","message":"n7"}"#, "2024-01-02T03:04:05Z", "warn"),
        (
            r#"{"severity":"NOTICE","timestampSeconds":1700000000,"timestampNanos":5,"message":"n8"}"#,
            "2023-11-14T22:13:20.000000005Z",
            "info",
        ),
        (r#"{"severity":"ERROR","timestamp":{"seconds":1700000000,"nanos":7},"message":"n9"}"#, "2023-11-14T22:13:20.000000007Z", "error"),
        (
            r#"{"timeUnixNano":"1700000000000000009","severityNumber":13,"body":{"stringValue":"n10"},"traceId":"5b8efff798038103d269b633813fc60c"}"#,
            "2023-11-14T22:13:20.000000009Z",
            "warn",
        ),
        (r#"{"__REALTIME_TIMESTAMP":"1700000000000011","PRIORITY":"3","MESSAGE":"n11"}"#, "2023-11-14T22:13:20.000011Z", "error"),
    ];
    let input: String = cases.iter().map(|(line, ..)| format!("{line}\n")).collect();
    place.write("in/a.log", &input);
    let times: Vec<&str> = cases.iter().map(|(_, time, _)| *time).collect();
    let tests = json!([{ "name": "times", "input": input, "expect": { "times": times } }]);
    let file = place.pipeline(&format!(
        "sources: {{ in: {{ file: {{ include: [\"$DIR/in/*.log\"] }} }} }}
sinks:
  store: {{ lake: {{ url: \"file:lake\" }} }}
tests: {tests}
"
    ));
    let mut command = weir();
    command.arg("test").arg(&file);
    finish(command).good();
    place.once();
    for (n, (line, _, class)) in cases.iter().enumerate() {
        assert_eq!(place.search(&format!("level:{class} message:n{n}")), [line.as_bytes()], "{line}");
    }
    assert_eq!(place.search("trace_id:5b8efff798038103d269b633813fc60c").len(), 1);
}

#[test]
fn a_multiline_parser_of_a_library_joins_lines_and_a_catastrophic_pattern_harms_nobody() {
    let place = Place::new();
    place.write(
        "fb/parsers.conf",
        "[MULTILINE_PARSER]\n    Name trace\n    Type regex\n    Flush_Timeout 1000\n    rule \"start_state\" \"/^\\d{4}-\\d\\d-\\d\\d/\" \"more\"\n    rule \"more\" \"/^\\s+at .*/\" \"more\"\n[PARSER]\n    Name bad\n    Format regex\n    Regex ^(?<a>(x+x+)+)\\k<a>y$\n[PARSER]\n    Name all\n    Format regex\n    Regex /\\A(?<first>[^\\n]*)(?<rest>.*)\\z/m\n",
    );
    let hostile = format!("{}z", "x".repeat(5_000));
    let log = place.write("app.log", format!("2026-01-01 boom\n  at a\n  at b\n2026-01-02 fine\n{hostile}\n"));
    place.write(
        "fb/fluent-bit.conf",
        format!(
            "[INPUT]\n    Name tail\n    Path {}\n    multiline.parser trace\n    Read_from_Head On\n[FILTER]\n    Name parser\n    Match *\n    Key_Name log\n    Parser bad\n    Parser all\n[OUTPUT]\n    Name file\n    Match *\n    Path {}\n    File all.log\n    Format plain\n",
            log.display(),
            place.path("out").display()
        ),
    );
    let mut command = weir();
    command.args(["import", "fluent-bit"]).arg(place.path("fb")).arg("--out").arg(place.path("pipeline.yaml"));
    let done = finish(command).good();
    assert!(text(&done).contains("backtracking"), "{}", text(&done));
    let since = std::time::Instant::now();
    place.once();
    assert!(since.elapsed() < std::time::Duration::from_secs(20), "a pattern took {:?}", since.elapsed());
    let got = records(&place, "out/all.log");
    assert_eq!(got[0], json!({ "first": "2026-01-01 boom", "rest": "\n  at a\n  at b" }));
    assert_eq!(got[1]["first"], "2026-01-02 fine");
    assert_eq!(got.len(), 3);
}

#[test]
fn a_sample_tells_check_which_fields_nobody_has() {
    let place = Place::new();
    let file = place.pipeline(
        "sources: { in: { file: { include: [\"x.log\"] } } }
steps: [{ drop: { when: 'staus >= 500' } }, { drop: { when: 'status == 204' } }]
sinks: { out: { stdout: {} } }
",
    );
    let sample = place.write("sample.jsonl", "{\"status\":200,\"http\":{\"path\":\"/\"}}\n");
    let mut command = weir();
    command.arg("check").arg(&file).arg("--sample").arg(sample);
    let done = finish(command).good();
    assert!(done.stderr.contains("no record of the sample has `staus`\n"), "{}", done.stderr);
    assert!(!done.stderr.contains("no record of the sample has `status`"), "{}", done.stderr);
}

#[test]
fn what_is_wrong_with_parsers_is_told_with_its_place() {
    let place = Place::new();
    let file = place.pipeline(
        "parsers:
  broken: { format: { regex: \"(?<a>\" } }
  nginx: { format: json }
parser_files: [nowhere.conf]
sources:
  in: { file: { include: [x.log], format: text, parse: [{ with: [ngnix] }, { with: [] }] } }
sinks: { out: { stdout: {} } }
tests:
  - { name: t, source: other, at: yesterday, input: x, expect: {} }
",
    );
    let mut command = weir();
    command.arg("check").arg(&file);
    let done = finish(command).exits(2);
    for told in [
        "parsers.broken.format",
        "nginx needs no definition",
        "the library ",
        "there is no parser \"ngnix\"",
        "did you mean nginx?",
        "names 0 parsers",
        "there is no source \"other\"",
        "\"yesterday\" is no time",
    ] {
        assert!(done.stderr.contains(told), "{told} is not in {}", done.stderr);
    }
}

#[test]
fn a_member_is_parsed_into_its_record_and_lines_are_kept_or_dropped_as_asked() {
    let place = Place::new();
    let file = place.pipeline(
        "parsers:
  kv: { format: { regex: '^(?<user>[a-z]+)=(?<n>\\d+)$$' }, types: { n: integer } }
sources:
  lines: { file: { include: [x.log], format: text, malformed: drop, parse: [{ with: [kv], original: line }] } }
  members:
    file:
      include: [y.log]
      parse: [{ field: log, with: [kv] }]
  alone:
    file:
      include: [z.log]
      parse: [{ field: a.log, with: [kv, logfmt], keep_field: true, keep_others: false }]
sinks: { out: { stdout: {} } }
tests:
  - name: the line stays beside its fields, and what no parser knows is dropped
    source: lines
    input: |
      bob=7
      what
    expect:
      verdicts: [kept, malformed]
      notes: [arrival_time, not_json arrival_time parse_error]
      records: [{ user: bob, n: 7, line: bob=7 }]
  - name: a member gives way to its fields, which go over others of their names
    source: members
    input: |
      {\"log\":\"bob=7\",\"user\":\"x\",\"stream\":\"stdout\"}
      {\"log\":\"\\u0062ob=8\"}
      {\"log\":\"what\",\"a\":1}
      {\"b\":2}
      no object
    expect:
      records: [{ user: bob, n: 7, stream: stdout }, { user: bob, n: 8 }, { log: what, a: 1 }, { b: 2 }, no object]
  - name: a member alone
    source: alone
    input: '{\"a\":{\"log\":\"k=v\"},\"b\":1}'
    expect:
      records: [{ k: v, a: { log: k=v } }]
",
    );
    let mut command = weir();
    command.arg("test").arg(&file);
    let done = finish(command);
    assert_eq!(done.code, Some(0), "{}{}", text(&done), done.stderr);
}
