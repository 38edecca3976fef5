//! Bad configs and what is said about them; good ones and what is read.

use super::*;
use expect_test::{Expect, expect};

const GOOD: &str = r#"name: quickstart
data: weir-data
memory: 256MiB
lanes: 2
labels: { env: "${STAGE}", price: "$$5", port: 80 }
sources:
  pods: { file: { include: ["tests/data/quickstart/*.ndjson"], exclude: [], format: cri, start: end, join: { bytes_max: 2MiB } } }
  in: { stdin: { format: json } }
tenancy: { from: [tenant, kubernetes.labels.tenant], unknown: unassigned, tenants_max: 100 }
fields: { time: [ts, time], message: [msg] }
steps:
  - drop: { when: 'path == "/healthz"', metered: no }
  - meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service, model] }
  - meter: { name: tokens_cached, quantity: tokens_cached, unit: Tokens, by: [service, model], part_of: tokens_in }
  - meter: { name: requests }
  - keep: { when: 'a', metered: anyway }
  - sample:
      levels: { error: all, warn: { first: 1000, thereafter: 10, tick: 1s }, info: { ratio: 0.1, key: request_id }, debug: none, trace: { when: 'request_id.endsWith("0")', weight: 10 } }
      other: all
hub:
  journal: { bytes_max: 4GiB, when_full: wait }
sinks:
  out: { stdout: {} }
  files: { archive: { path: "logs/{tenant}/{service}.log", rotate: { size: 200MiB, backups: 7 }, compress: zstd } }
  store: { lake: { seal: { age: 10s } } }
admin: { listen: "127.0.0.1:9140" }
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "STAGE" => Some("prod".into()),
        "SECRET" => Some("hunter2-hunter2".into()),
        _ => None,
    }
}

/// Loads texts as files `a.yaml`, `b.yaml` ... in one folder; a text that begins with `currency` becomes `card.yaml`.
fn load_texts(texts: &[&str]) -> (Result<Vec<Loaded>, Report>, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for text in texts {
        let name =
            if text.starts_with("currency") { "card.yaml".to_string() } else { format!("{}.yaml", (b'a' + files.len() as u8) as char) };
        let path = folder.path().join(&name);
        std::fs::write(&path, text).unwrap();
        if name != "card.yaml" {
            files.push(path);
        }
    }
    let prefix = format!("{}/", folder.path().display());
    (load(&files, &env), prefix)
}

fn render(texts: &[&str]) -> String {
    let (result, prefix) = load_texts(texts);
    match result {
        Ok(_) => "fine\n".into(),
        Err(report) => report.to_string().replace(&prefix, ""),
    }
}

#[track_caller]
fn check(text: &str, want: Expect) {
    want.assert_eq(&render(&[text]));
}

/// A good config with something else in the place of one of its lines.
#[track_caller]
fn check_with(line: &str, instead: &str, want: Expect) {
    want.assert_eq(&render_with(line, instead));
}

fn render_with(line: &str, instead: &str) -> String {
    let start = GOOD.find(line).expect("the line to replace");
    let end = start + GOOD[start..].find('\n').unwrap() + 1;
    render(&[&format!("{}{instead}\n{}", &GOOD[..start], &GOOD[end..])])
}

#[test]
fn a_good_config_is_read_as_written() {
    let (loaded, _) = load_texts(&[GOOD]);
    let loaded = loaded.map_err(|report| report.to_string()).unwrap();
    let config = &loaded[0].config;
    assert_eq!(loaded[0].name, "quickstart");
    assert_eq!(config.labels["env"], "prod");
    assert_eq!(config.labels["price"], "$5");
    assert_eq!(config.labels["port"], "80");
    let json = serde_json::to_value(config).unwrap();
    let read_back: Config = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(read_back).unwrap(), json);
}

#[test]
fn five_mistakes_of_different_kinds_are_all_listed() {
    check(
        r#"sources:
  pods: { file: { inclde: ["*.log"], format: jsn } }
steps:
  - sample: { levels: { info: { ratio: 15, key: request_id } } }
  - meter: { name: requests }
  - drop: { when: 'path === "/healthz"' }
hub: { journal: { bytes_max: 4 gigs } }
sinks:
  files: { archive: { path: "../{tenant}.log", rotat: { size: 1MiB } } }
"#,
        expect![[r#"
            error: a.yaml:2:19: sources.pods.file: the key `inclde` is not known here
              2 |   pods: { file: { inclde: ["*.log"], format: jsn } }
                |                   ^^^^^^
              known: include, exclude, format, start, line_bytes_max, malformed, scan, files_max, open_files_max, rotated, join, parse, multiline, encoding, labels, kubernetes
              help: did you mean `include`?

            error: a.yaml:2:46: sources.pods.file.format: `jsn` is not known here
              2 |   pods: { file: { inclde: ["*.log"], format: jsn } }
                |                                              ^^^
              one of: json, cri, docker, container, text
              help: did you mean `json`?

            error: a.yaml:4:40: steps[0].sample.levels.info.ratio: 15 is no ratio
              4 |   - sample: { levels: { info: { ratio: 15, key: request_id } } }
                |                                        ^^
              a ratio is the share of records to keep, from 0 to 1
              help: to keep 15 %, write 0.15

            error: a.yaml:6:5: steps[2].drop: this filter stands after a meter
              6 |   - drop: { when: 'path === "/healthz"' }
                |     ^^^^
              what it drops would be on the bill of `requests` (steps[1]) although it is not ours
              help: move it before steps[1], or write `metered: anyway`

            error: a.yaml:6:27: steps[2].drop.when: `=` is no comparison
              6 |   - drop: { when: 'path === "/healthz"' }
                |                           ^
              a condition is either true or false for a record
              help: a condition reads as level == "error" && status >= 500

            error: a.yaml:7:30: hub.journal.bytes_max: "4 gigs" is no size
              7 | hub: { journal: { bytes_max: 4 gigs } }
                |                              ^^^^^^
              a size is a whole number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, as in 64MiB

            error: a.yaml:9:30: sinks.files.archive.path: `..` is no name of a folder
              9 |   files: { archive: { path: "../{tenant}.log", rotat: { size: 1MiB } } }
                |                              ^
              a path goes down from `dir` and nowhere else
              help: write logs/{tenant}/{service}.log

            error: a.yaml:9:48: sinks.files.archive: the key `rotat` is not known here
              9 |   files: { archive: { path: "../{tenant}.log", rotat: { size: 1MiB } } }
                |                                                ^^^^^
              known: when, path, dir, rotate, room, compress, commit, open_files_max
              help: did you mean `rotate`?
        "#]],
    );
}

#[test]
fn unknown_keys_and_words_say_what_was_meant() {
    check_with(
        "memory",
        "memroy: 256MiB",
        expect![[r#"
            error: a.yaml:3:1: the key `memroy` is not known here
              3 | memroy: 256MiB
                | ^^^^^^
              known: name, data, memory, lanes, labels, request_labels, labels_required, labels_override, label_limits, sources, parsers, parser_files, tenancy, fields, steps, hub, sinks, rates, lineage, admin, telemetry, query, tests
              help: did you mean `memory`?
        "#]],
    );
    check_with(
        "  out:",
        "  out: { stdouts: {} }",
        expect![[r#"
            error: a.yaml:23:10: sinks.out: `stdouts` is not known here
              23 |   out: { stdouts: {} }
                 |          ^^^^^^^
              one of: stdout, blackhole, archive, lake, http, remote_write, otlp, prometheus
              help: did you mean `stdout`?
        "#]],
    );
    check_with(
        "  files:",
        "  files: { archive: { path: a.log, compress: gz } }",
        expect![[r#"
        error: a.yaml:24:46: sinks.files.archive.compress: `gz` is not known here
          24 |   files: { archive: { path: a.log, compress: gz } }
             |                                              ^^
          one of: none, gzip, zstd
    "#]],
    );
    check_with(
        "  store:",
        "  store: lake",
        expect![[r#"
        error: a.yaml:25:10: sinks.store: `lake` stands alone
          25 |   store: lake
             |          ^^^^
          it is a map
          help: write { lake: {} }
    "#]],
    );
    check_with(
        "  store:",
        "  store: { lake: {}, stdout: {} }",
        expect![[r#"
            error: a.yaml:25:22: sinks.store: only one choice can stand here, this is a second one
              25 |   store: { lake: {}, stdout: {} }
                 |                      ^^^^^^
              one of: stdout, blackhole, archive, lake, http, remote_write, otlp, prometheus
              help: give each an entry of its own
        "#]],
    );
}

#[test]
fn missing_keys_are_told_where_they_lack() {
    check(
        "lanes: 2\n",
        expect![[r#"
        error: a.yaml:1:1: `sources` is missing
          1 | lanes: 2
            | ^
          the file cannot do without
          help: add `sources: ...`

        error: a.yaml:1:1: `sinks` is missing
          1 | lanes: 2
            | ^
          the file cannot do without
          help: add `sinks: ...`
    "#]],
    );
    check_with(
        "  - drop:",
        "  - drop: { metered: anyway }\n  - meter: { unit: Tokens, qantity: x }",
        expect![[r#"
            error: a.yaml:12:11: steps[0].drop: `when` is missing
              12 |   - drop: { metered: anyway }
                 |           ^
              it cannot do without
              help: add `when: ...`

            error: a.yaml:13:12: steps[1].meter: `name` is missing
              13 |   - meter: { unit: Tokens, qantity: x }
                 |            ^
              it cannot do without
              help: add `name: ...`

            error: a.yaml:13:28: steps[1].meter: the key `qantity` is not known here
              13 |   - meter: { unit: Tokens, qantity: x }
                 |                            ^^^^^^^
              known: name, usage, within, kind, quantity, unit, by, when, part_of, key, start, end, duration, duration_unit
              help: did you mean `quantity`?
        "#]],
    );
    check_with(
        "  out:",
        "  out: {}",
        expect![[r#"
            error: a.yaml:23:8: sinks.out: a choice is missing
              23 |   out: {}
                 |        ^
              one of: stdout, blackhole, archive, lake, http, remote_write, otlp, prometheus
        "#]],
    );
    check(
        "",
        expect![[r#"
        error: a.yaml: the file is empty
          help: `weir schema` prints what may be in it, pipelines/quickstart.yaml is a complete one
    "#]],
    );
    check(
        "- 1\n",
        expect![[r#"
        error: a.yaml:1:1: found a list, expected a map, as in { key: value }
          1 | - 1
            | ^
    "#]],
    );
}

#[test]
fn limits_say_rule_and_way_out() {
    check_with(
        "lanes",
        "lanes: 0",
        expect![[r#"
        error: a.yaml:4:8: lanes is 0
          4 | lanes: 0
            |        ^
          there are 1 to 256 lanes
          help: leave it out for one on each available core
    "#]],
    );
    check_with(
        "lanes",
        "lanes: [1]",
        expect![[r#"
        error: a.yaml:4:8: lanes: found a list, expected a whole number from 0 to 4294967295
          4 | lanes: [1]
            |        ^
    "#]],
    );
    check_with(
        "memory",
        "memory: 16MiB",
        expect![[r#"
            error: a.yaml:3:9: memory is 16MiB
              3 | memory: 16MiB
                |         ^^^^^
              the floors of all components add up to 40MiB, the largest is sink store with 19MiB
              help: write `memory: 40MiB` or more, or set fewer `lanes`
        "#]],
    );
    check_with(
        "hub",
        "hub: { journal: { bytes_max: 1MiB, sync_interval: 20 } }\nignored:",
        expect![[r#"
            error: a.yaml:20:30: hub.journal.bytes_max is 1MiB
              20 | hub: { journal: { bytes_max: 1MiB, sync_interval: 20 } }
                 |                              ^^^^
              it must be at least 64MiB
              help: write 64MiB

            error: a.yaml:20:51: hub.journal.sync_interval: 20 has no unit
              20 | hub: { journal: { bytes_max: 1MiB, sync_interval: 20 } }
                 |                                                   ^^
              a duration is written as 10m or 250ms

            error: a.yaml:21:1: the key `ignored` is not known here
              21 | ignored:
                 | ^^^^^^^
              known: name, data, memory, lanes, labels, request_labels, labels_required, labels_override, label_limits, sources, parsers, parser_files, tenancy, fields, steps, hub, sinks, rates, lineage, admin, telemetry, query, tests
        "#]],
    );
    check_with(
        "admin",
        "admin: { listen: \"0.0.0.0:9140\" }",
        expect![[r#"
        error: a.yaml:26:18: admin.listen: 0.0.0.0 can be reached from elsewhere
          26 | admin: { listen: "0.0.0.0:9140" }
             |                  ^^^^^^^^^^^^^^
          the port has neither TLS nor a token yet, so it is for this machine only
          help: listen on 127.0.0.1:9140
    "#]],
    );
    check_with(
        "  store",
        "  store: { lake: { url: \"s3://bucket/x\" } }",
        expect![[r#"
        error: a.yaml:25:25: sinks.store.lake.url: lakes at s3: are not built yet
          25 |   store: { lake: { url: "s3://bucket/x" } }
             |                         ^^^^^^^^^^^^^^^
          a lake lies in a folder for now
          help: write file:lake
    "#]],
    );
}

#[test]
fn policies_are_one_of_their_forms() {
    check_with(
        "      other",
        "      other: some",
        expect![[r#"
            error: a.yaml:19:14: steps[5].sample.other: `some` is no policy
              19 |       other: some
                 |              ^^^^
              a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }
              help: as in { ratio: 0.1, key: request_id }
        "#]],
    );
    check_with(
        "      other",
        "      other: { first: 10, key: a }",
        expect![[r#"
            error: a.yaml:19:14: steps[5].sample.other: `key` does not go with `first`
              19 |       other: { first: 10, key: a }
                 |              ^
              a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }
              help: as in { ratio: 0.1, key: request_id }
        "#]],
    );
    check_with(
        "      other",
        "      other: { thereafter: 10 }",
        expect![[r#"
            error: a.yaml:19:14: steps[5].sample.other: a policy lacks `ratio`, `first`, `when`, `average`, `ema`, `throughput`, `reservoir` or `priority`
              19 |       other: { thereafter: 10 }
                 |              ^
              a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }
              help: as in { ratio: 0.1, key: request_id }
        "#]],
    );
    check_with(
        "      other",
        "      other: { frist: 10 }",
        expect![[r#"
            error: a.yaml:19:16: steps[5].sample.other: the key `frist` is not known here
              19 |       other: { frist: 10 }
                 |                ^^^^^
              known: ratio, key, first, thereafter, tick, when, weight, average, ema, throughput, reservoir, priority, by, interval, exact_keys, keys_max, per_tenant
              help: did you mean `first`?
        "#]],
    );
    check_with(
        "      other",
        "      other: [all]",
        expect![[r#"
        error: a.yaml:19:14: steps[5].sample.other: found a list, expected a policy such as all, none or { ratio: 0.1, key: request_id }
          19 |       other: [all]
             |              ^
    "#]],
    );
}

#[test]
fn a_sink_takes_what_its_condition_holds_for_or_what_is_diverted_to_it() {
    check_with(
        "  files:",
        "  files: { archive: { path: a.log, when: 'level = \"error\"' } }\n  more: { lake: {}, when: 'has(a)' }\n  last: { when: 'a', stdout: {} }",
        expect![[r#"
            error: a.yaml:24:49: sinks.files.archive.when: `=` is no comparison
              24 |   files: { archive: { path: a.log, when: 'level = "error"' } }
                 |                                                 ^
              a condition is either true or false for a record
              help: write level == "error"

            error: a.yaml:25:21: sinks.more: the key `when` stands beside `lake`
              25 |   more: { lake: {}, when: 'has(a)' }
                 |                     ^^^^
              its settings stand inside of it
              help: write lake: { when: ... }

            error: a.yaml:26:11: sinks.last: the key `when` stands beside `stdout`
              26 |   last: { when: 'a', stdout: {} }
                 |           ^^^^
              its settings stand inside of it
              help: write stdout: { when: ... }
        "#]],
    );
    let mut text = String::new();
    for (over, sinks) in [
        ("{ divert: fils }", "  files: { archive: { path: a.log } }"),
        ("{ divert: nowhere }", "  files: { archive: { path: a.log } }"),
        ("{ divert: files }", "  files: { archive: { path: a.log, when: 'has(a)' } }"),
        ("{ divert: [files] }", "  files: { archive: { path: a.log } }"),
        ("{ divert: files }", "  files: { archive: { path: a.log } }"),
    ] {
        let config =
            GOOD.replace("  - keep: { when: 'a', metered: anyway }", &format!("  - quota: {{ records_per_day: 1, over: {over} }}"));
        let start = config.find("  files:").unwrap();
        let end = start + config[start..].find('\n').unwrap();
        text += &render(&[&format!("{}{sinks}{}", &config[..start], &config[end..])]);
    }
    expect![[r#"
        error: a.yaml:16:50: steps[4].quota.over.divert: no sink is called `fils`
          16 |   - quota: { records_per_day: 1, over: { divert: fils } }
             |                                                  ^^^^
          sinks are: files, out, store
          help: did you mean `files`?
        error: a.yaml:16:50: steps[4].quota.over.divert: no sink is called `nowhere`
          16 |   - quota: { records_per_day: 1, over: { divert: nowhere } }
             |                                                  ^^^^^^^
          sinks are: files, out, store
          help: name one of them, or add it to `sinks`
        error: a.yaml:24:36: sinks.files.archive.when: no condition is asked about what is diverted
          24 |   files: { archive: { path: a.log, when: 'has(a)' } }
             |                                    ^^^^
          `files` takes what steps[4] diverts to it and nothing else
          help: leave `when` out, or divert to another sink
        error: a.yaml:16:50: steps[4].quota.over.divert: found a list, expected text
          16 |   - quota: { records_per_day: 1, over: { divert: [files] } }
             |                                                  ^
        fine
    "#]]
    .assert_eq(&text);
    let quota = |over: &str| format!("- quota: {{ records_per_day: 1, over: {{ divert: {over} }} }}");
    let (one, two) = (quota("a"), quota("b"));
    check(
        &format!(
            "sources: {{ in: {{ stdin: {{}} }} }}\nsteps:\n{one}\n{two}\nsinks: {{ a: {{ stdout: {{}} }}, b: {{ archive: {{ path: b.log }} }} }}\n"
        ),
        expect![[r#"
            error: a.yaml:3:48: steps[0].quota.over.divert: no sink is left for what is within the quota
              3 | - quota: { records_per_day: 1, over: { divert: a } }
                |                                                ^
              `a` takes what is diverted to it and nothing else
              help: add another sink

            error: a.yaml:4:48: steps[1].quota.over.divert: no sink is left for what is within the quota
              4 | - quota: { records_per_day: 1, over: { divert: b } }
                |                                                ^
              `b` takes what is diverted to it and nothing else
              help: add another sink
        "#]],
    );
    check(
        &format!(
            "sources: {{ in: {{ stdin: {{ ack: on_receipt }} }} }}\nsteps:\n{one}\nhub: {{ memory: {{}} }}\nsinks: {{ a: {{ stdout: {{}} }}, b: {{ archive: {{ path: b.log }} }} }}\n"
        ),
        expect![[r#"
            error: a.yaml:3:48: steps[0].quota.over.divert: divert does not go with hub.memory
              3 | - quota: { records_per_day: 1, over: { divert: a } }
                |                                                ^
              after a crash it decides anew, so a record could be passed over by one sink and not be for the other
              help: use hub.journal
        "#]],
    );
    let sinks = |n: usize| (0..n).map(|i| format!("  s{i}: {{ archive: {{ path: a.log, when: has(a) }} }}\n")).collect::<String>();
    assert_eq!(render(&[&format!("memory: 4GiB\nsources: {{ in: {{ stdin: {{}} }} }}\nsinks:\n{}", sinks(32))]), "fine\n");
    check(
        &format!("sources: {{ in: {{ stdin: {{}} }} }}\nsinks:\n{}", sinks(33)),
        expect![[r#"
        error: a.yaml:2:1: sinks has 33 sinks that do not take everything
          2 | sinks:
            | ^^^^^
          frames tell 32 of them apart
          help: leave out a `when`, or split the pipeline
    "#]],
    );
}

#[test]
fn tail_sampling_needs_the_journal_and_decides_last() {
    let mut text = String::new();
    for tail in [
        "{ key: [], keep: 'level ==', rest: 2 }",
        "{ keep: 'true', rest: some, decision_wait: 1ms, keys_max: 0, bytes_max: 1MiB }",
        "{ keep: 'true', rest: 1 }",
    ] {
        text += &render_with("  - keep", &format!("  - tail: {tail}"));
    }
    let decides = [
        "drop: { when: 'status == 200' }",
        "dedup: {}",
        "sample: { levels: { debug: none } }",
        "quota: { records_per_day: 5 }",
        "tail: { keep: 'true' }",
        "redact: { detect: [email] }",
    ];
    let steps: String = decides.iter().map(|step| format!("  - {step}\n")).collect();
    let head = "sources: { in: { file: { include: [\"*.log\"] } } }\nsinks: { out: { stdout: {} } }\n";
    text += &render(&[&format!("{head}hub: {{ memory: {{}} }}\nsteps:\n  - tail: {{ keep: 'level == \"error\"' }}\n{steps}")]);
    text += &render(&[&format!("{head}steps:\n  - redact: {{ fields: [trace_id] }}\n  - tail: {{ keep: 'true' }}\n")]);
    expect![[r#"
        error: a.yaml:16:18: steps[4].tail.key is empty
          16 |   - tail: { key: [], keep: 'level ==', rest: 2 }
             |                  ^
          a request is known by a field that its records have in common
          help: write [trace_id, request_id]

        error: a.yaml:16:37: steps[4].tail.keep: a value is missing at the end
          16 |   - tail: { key: [], keep: 'level ==', rest: 2 }
             |                                     ^
          a condition is either true or false for a record
          help: a condition reads as level == "error" && status >= 500

        error: a.yaml:16:46: steps[4].tail.rest: 2 is no ratio
          16 |   - tail: { key: [], keep: 'level ==', rest: 2 }
             |                                              ^
          a ratio is the share of records to keep, from 0 to 1
          help: to keep 2 %, write 0.02

        error: a.yaml:17:5: steps[5].sample: this step decides about records behind steps[4].tail
          17 |   - sample:
             |     ^^^^^^
          the verdict of `tail` comes when all others are known, so that what it leaves out is no match and no weight is lost
          help: move it before steps[4]
        error: a.yaml:16:33: steps[4].tail.rest: `some` is neither `none` nor a ratio
          16 |   - tail: { keep: 'true', rest: some, decision_wait: 1ms, keys_max: 0, bytes_max: 1MiB }
             |                                 ^^^^
          a ratio is the share of requests to keep, from 0 to 1
          help: write 0.01

        error: a.yaml:16:54: steps[4].tail.decision_wait is 1ms
          16 |   - tail: { keep: 'true', rest: some, decision_wait: 1ms, keys_max: 0, bytes_max: 1MiB }
             |                                                      ^^^
          it must be from 100ms to 1d
          help: write 100ms

        error: a.yaml:16:69: steps[4].tail.keys_max is 0
          16 |   - tail: { keep: 'true', rest: some, decision_wait: 1ms, keys_max: 0, bytes_max: 1MiB }
             |                                                                     ^
          it must be from 1 to 100000000
          help: write 1

        error: a.yaml:16:83: steps[4].tail.bytes_max is 1MiB
          16 |   - tail: { keep: 'true', rest: some, decision_wait: 1ms, keys_max: 0, bytes_max: 1MiB }
             |                                                                                   ^^^^
          it must be at least 64MiB
          help: write 64MiB

        error: a.yaml:17:5: steps[5].sample: this step decides about records behind steps[4].tail
          17 |   - sample:
             |     ^^^^^^
          the verdict of `tail` comes when all others are known, so that what it leaves out is no match and no weight is lost
          help: move it before steps[4]
        error: a.yaml:16:33: steps[4].tail.rest is 1
          16 |   - tail: { keep: 'true', rest: 1 }
             |                                 ^
          every record would be kept, and wait for nothing
          help: write a smaller share, or leave the step out

        error: a.yaml:17:5: steps[5].sample: this step decides about records behind steps[4].tail
          17 |   - sample:
             |     ^^^^^^
          the verdict of `tail` comes when all others are known, so that what it leaves out is no match and no weight is lost
          help: move it before steps[4]
        error: a.yaml:5:5: steps[0].tail: this step does not go with hub.memory
          5 |   - tail: { keep: 'level == "error"' }
            |     ^^^^
          records wait for their verdict on disk, where a restart finds them again
          help: use hub.journal, or `sample` with a `key`

        error: a.yaml:6:5: steps[1].drop: this step decides about records behind steps[0].tail
          6 |   - drop: { when: 'status == 200' }
            |     ^^^^
          the verdict of `tail` comes when all others are known, so that what it drops is no match and no weight is lost
          help: move it before steps[0]

        error: a.yaml:7:5: steps[2].dedup: this step decides about records behind steps[0].tail
          7 |   - dedup: {}
            |     ^^^^^
          the verdict of `tail` comes when all others are known, so that a copy is no match and no weight is lost
          help: move it before steps[0]

        error: a.yaml:8:5: steps[3].sample: this step decides about records behind steps[0].tail
          8 |   - sample: { levels: { debug: none } }
            |     ^^^^^^
          the verdict of `tail` comes when all others are known, so that what it leaves out is no match and no weight is lost
          help: move it before steps[0]

        error: a.yaml:9:5: steps[4].quota: this step decides about records behind steps[0].tail
          9 |   - quota: { records_per_day: 5 }
            |     ^^^^^
          the verdict of `tail` comes when all others are known, so that what is over is no match and no weight is lost
          help: move it before steps[0]

        error: a.yaml:10:5: steps[5].tail: steps[0] is a tail sampler already
          10 |   - tail: { keep: 'true' }
             |     ^^^^
          a pipeline holds its records back once
          help: join both conditions with ||

        error: a.yaml:10:5: steps[5].tail: this step does not go with hub.memory
          10 |   - tail: { keep: 'true' }
             |     ^^^^
          records wait for their verdict on disk, where a restart finds them again
          help: use hub.journal, or `sample` with a `key`
        error: a.yaml:4:5: steps[0].redact: steps[1] reads `trace_id` behind this step
          4 |   - redact: { fields: [trace_id] }
            |     ^^^^^^
          a step that reads a field stands before the one that redacts it
          help: move this step behind it
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_quota_limits_something_and_does_what_is_built() {
    let mut text = String::new();
    for quota in [
        "{ by: tenant }",
        "{ records_per_day: 0, keys_max: 0, burst: 5000 }",
        "{ bytes_per_day: 10GiB, over: { delay: 1s } }",
        "{ bytes_per_day: 10GiB, over: { sample: 2 } }",
        "{ money_per_day: 10 }",
        "{ records_per_second: -1, by: a..b }",
        "{ records_per_second: 1, over: delay, clock: event }",
    ] {
        text += &render_with("  - keep", &format!("  - quota: {quota}"));
    }
    assert_eq!(render_with("  - keep", "  - quota: { records_per_second: 1, over: delay }"), "fine\n");
    expect![[r#"
        error: a.yaml:16:5: steps[4].quota: this step limits nothing
          16 |   - quota: { by: tenant }
             |     ^^^^^
          a quota says how many records or bytes, or how much money, in which period
          help: write bytes_per_day: 10GiB
        error: a.yaml:16:31: steps[4].quota.records_per_day is 0
          16 |   - quota: { records_per_day: 0, keys_max: 0, burst: 5000 }
             |                               ^
          nobody could send anything
          help: to drop all records of a kind, use a `drop` step

        error: a.yaml:16:44: steps[4].quota.keys_max is 0
          16 |   - quota: { records_per_day: 0, keys_max: 0, burst: 5000 }
             |                                            ^
          it must be from 1 to 1000000
          help: write 1

        error: a.yaml:16:54: steps[4].quota.burst is 5000
          16 |   - quota: { records_per_day: 0, keys_max: 0, burst: 5000 }
             |                                                      ^^^^
          at most 1000 periods gather
          help: write 1000
        error: a.yaml:16:51: steps[4].quota.over.delay: `delay` is a word without settings
          16 |   - quota: { bytes_per_day: 10GiB, over: { delay: 1s } }
             |                                                   ^^
          write it without the colon
        error: a.yaml:16:52: steps[4].quota.over.sample: 2 is no ratio
          16 |   - quota: { bytes_per_day: 10GiB, over: { sample: 2 } }
             |                                                    ^
          a ratio is the share of records to keep, from 0 to 1
          help: to keep 2 %, write 0.02
        error: a.yaml:16:14: steps[4].quota.money_per_day: this pipeline has no rate card
          16 |   - quota: { money_per_day: 10 }
             |              ^^^^^^^^^^^^^
          money is what meters count times the prices of a rate card
          help: write rates: rates.yaml at the top level
        error: a.yaml:16:34: steps[4].quota.records_per_second: found the number -1, expected a whole number, 0 or more
          16 |   - quota: { records_per_second: -1, by: a..b }
             |                                  ^^

        error: a.yaml:16:42: steps[4].quota.by: "a..b" is no field
          16 |   - quota: { records_per_second: -1, by: a..b }
             |                                          ^^^^
          a field is a key, or keys joined by dots, of at most 256 bytes
          help: write kubernetes.labels.tenant
        error: a.yaml:16:57: steps[4].quota.clock: does not go with `over: delay`
          16 |   - quota: { records_per_second: 1, over: delay, clock: event }
             |                                                         ^^^^^
          a log that waits is read on when the clock says so, whatever its records say
          help: write arrival, or leave it out
    "#]]
    .assert_eq(&text);
}

#[test]
fn names_in_local_time_say_where() {
    let with =
        |rotate: &str| render_with("  files:", &format!("  files: {{ archive: {{ path: a.log, rotate: {{ size: 1GiB, {rotate} }} }} }}"));
    assert!(with("names: local").contains("rotate.names: says nothing of where"), "{}", with("names: local"));
    assert_eq!(with("names: local, zone: Europe/Berlin"), "fine\n");
    assert_eq!(with("names: utc, at: day, zone: Europe/Berlin"), "fine\n");
    assert!(with("names: utc, zone: Europe/Berlin").contains("zone: changes nothing"));
}

const MONEY: &str = "sources: { in: { stdin: {} } }
steps:
  - meter: { name: t, quantity: t, unit: Tokens }
  - quota: { $QUOTA }
sinks: { out: { stdout: {} } }
rates: card.yaml
";

const CARD: &str = "currency: USD
versions:
  - { name: v, from: 2026-07-01T00:00:00Z, prices: [{ sku: s, meter: t, price: \"1\", per: 1, unit: Tokens }] }
";

#[test]
fn a_quota_in_money_is_an_amount_in_the_currency_of_a_card_for_what_is_metered() {
    let mut text = String::new();
    for quota in
        ["money_per_day: 0", "money_per_day: -5", "money_per_hour: \"0.0000000000001\"", "money_per_second: 5 EUR", "money_per_month: lots"]
    {
        text += &render(&[&MONEY.replace("$QUOTA", quota), CARD]);
    }
    text += &render(&[&MONEY.replace("$QUOTA", "money_per_day: 5").replace("rates: card.yaml\n", "")]);
    text +=
        &render(&[&MONEY.replace("$QUOTA", "money_per_day: 5").replace("  - meter: { name: t, quantity: t, unit: Tokens }\n", ""), CARD]);
    expect![[r#"
        error: a.yaml:4:29: steps[1].quota.money_per_day is 0
          4 |   - quota: { money_per_day: 0 }
            |                             ^
          nobody could send anything
          help: to drop all records of a kind, use a `drop` step
        error: a.yaml:4:29: steps[1].quota.money_per_day: "-5" is negative
          4 |   - quota: { money_per_day: -5 }
            |                             ^^
          an amount to spend is more than 0, as in 12.50
        error: a.yaml:4:30: steps[1].quota.money_per_hour: "0.0000000000001" has 13 digits after the point
          4 |   - quota: { money_per_hour: "0.0000000000001" }
            |                              ^^^^^^^^^^^^^^^^^
          at most 12 are kept
        error: a.yaml:4:32: steps[1].quota.money_per_second is in EUR, and the rate card is in USD
          4 |   - quota: { money_per_second: 5 EUR }
            |                                ^^^^^
          weir converts no money
          help: write the amount in USD
        error: a.yaml:4:31: steps[1].quota.money_per_month: "lots" is no amount
          4 |   - quota: { money_per_month: lots }
            |                               ^^^^
          an amount is digits with a point, as in 0.50
        error: a.yaml:4:14: steps[1].quota.money_per_day: this pipeline has no rate card
          4 |   - quota: { money_per_day: 5 }
            |              ^^^^^^^^^^^^^
          money is what meters count times the prices of a rate card
          help: write rates: rates.yaml at the top level
        error: a.yaml:3:14: steps[0].quota.money_per_day: this pipeline has no meter
          3 |   - quota: { money_per_day: 5 }
            |              ^^^^^^^^^^^^^
          money is what meters count times the prices of a rate card, so every record would cost nothing
          help: add a `meter` step
    "#]]
    .assert_eq(&text);
    for good in
        ["money_per_day: 12.50", "money_per_day: \"12.50\"", "money_per_month: 12345678901234567.123456789012 USD", "money_per_second: 7"]
    {
        let text = MONEY.replace("$QUOTA", good);
        let (loaded, _) = load_texts(&[&text, CARD]);
        let loaded = loaded.map_err(|report| report.to_string()).unwrap();
        let StepConfig::Quota(quota) = &loaded[0].config.steps[1] else { panic!("a quota") };
        let digits = good.split(": ").nth(1).unwrap().replace(['"', '.'], "").replace(" USD", "");
        let units = quota.limits()[0].3.to_string();
        assert!(units.starts_with(&digits), "{good}: {units}");
    }
}

#[test]
fn a_sampler_has_bounds() {
    let mut text = String::new();
    for policy in [
        "{ ema: 0, by: [service] }",
        "{ reservoir: 0 }",
        "{ average: 10, keys_max: 0, interval: 0s }",
        "{ first: 10, per_tenant: true, exact_keys: false }",
        "{ first: 10, keys_max: 5 }",
        "{ reservoir: 10, by: [a] }",
        "{ per_tenant: true }",
    ] {
        text += &render_with("      other", &format!("      other: {policy}"));
    }
    expect![[r#"
        error: a.yaml:19:21: steps[5].sample.other.ema is 0
          19 |       other: { ema: 0, by: [service] }
             |                     ^
          a rate and a throughput are at least 1
          help: to keep nothing, write none
        error: a.yaml:19:27: steps[5].sample.other.reservoir is 0
          19 |       other: { reservoir: 0 }
             |                           ^
          at least one record of a tick is kept
          help: to keep nothing, write none
        error: a.yaml:19:39: steps[5].sample.other.keys_max is 0
          19 |       other: { average: 10, keys_max: 0, interval: 0s }
             |                                       ^
          it must be from 1 to 100000
          help: write 1

        error: a.yaml:19:52: steps[5].sample.other.interval is 0s
          19 |       other: { average: 10, keys_max: 0, interval: 0s }
             |                                                    ^^
          it must be from 1ms to 1d
          help: write 1ms
        error: a.yaml:19:14: steps[5].sample.other: `per_tenant` needs `exact_keys: true`: zap's slots are shared by all
          19 |       other: { first: 10, per_tenant: true, exact_keys: false }
             |              ^
          a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }
          help: as in { ratio: 0.1, key: request_id }
        error: a.yaml:19:14: steps[5].sample.other: `keys_max` needs `exact_keys: true`: zap's slots are shared by all
          19 |       other: { first: 10, keys_max: 5 }
             |              ^
          a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }
          help: as in { ratio: 0.1, key: request_id }
        error: a.yaml:19:14: steps[5].sample.other: `by` does not go with `reservoir`
          19 |       other: { reservoir: 10, by: [a] }
             |              ^
          a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }
          help: as in { ratio: 0.1, key: request_id }
        error: a.yaml:19:14: steps[5].sample.other: a policy lacks `ratio`, `first`, `when`, `average`, `ema`, `throughput`, `reservoir` or `priority`
          19 |       other: { per_tenant: true }
             |              ^
          a policy is `all`, `none`, { ratio, key }, { first, thereafter, tick, by, exact_keys, keys_max, per_tenant }, { when, weight }, { average, ema or throughput, by, interval, keys_max, per_tenant } or { reservoir or priority, tick, per_tenant }
          help: as in { ratio: 0.1, key: request_id }
    "#]].assert_eq(&text);
}

#[test]
fn steps_are_checked_together() {
    check_with(
        "  - keep",
        "  - keep: { when: 'a' }\n  - meter: { name: requests }",
        expect![[r#"
            error: a.yaml:16:5: steps[4].keep: this filter stands after a meter
              16 |   - keep: { when: 'a' }
                 |     ^^^^
              what it drops would be on the bill of `tokens_in` (steps[1]) although it is not ours
              help: move it before steps[1], or write `metered: anyway`

            error: a.yaml:17:20: steps[5].meter.name: `requests` is the name of steps[3] too
              17 |   - meter: { name: requests }
                 |                    ^^^^^^^^
              a bill tells meters apart by name
              help: give each its own
        "#]],
    );
    check_with(
        "  - drop",
        "  - drop: { when: 'it''s === odd' }\n  - drop: { when: \"a\\t\\u0041 === b\" }",
        expect![[r#"
        error: a.yaml:12:22: steps[0].drop.when: this text is never closed
          12 |   - drop: { when: 'it''s === odd' }
             |                      ^
          a condition is either true or false for a record
          help: write a ' at its end; a line break in a text is written \n

        error: a.yaml:13:23: steps[1].drop.when: `A` cannot stand here
          13 |   - drop: { when: "a\t\u0041 === b" }
             |                       ^
          a condition is either true or false for a record
          help: join conditions with && or ||; put texts in quotes
    "#]],
    );
    check_with(
        "  - meter",
        "  - meter: { name: a b, quantity: x, part_of: x, by: [s, s, .] }",
        expect![[r#"
        error: a.yaml:13:5: steps[1].meter: `unit` is missing
          13 |   - meter: { name: a b, quantity: x, part_of: x, by: [s, s, .] }
             |     ^^^^^
          nobody can price `x` without knowing what it counts
          help: add `unit: Tokens`, or what it is

        error: a.yaml:13:20: steps[1].meter.name: "a b" is no name of a meter
          13 |   - meter: { name: a b, quantity: x, part_of: x, by: [s, s, .] }
             |                    ^^^
          a name is 1 to 64 letters, digits, `-`, `_` and `.`
          help: write tokens_in

        error: a.yaml:13:47: steps[1].meter.part_of: `x` is the quantity itself
          13 |   - meter: { name: a b, quantity: x, part_of: x, by: [s, s, .] }
             |                                               ^
          `part_of` names the field that includes it
          help: leave it out

        error: a.yaml:13:58: steps[1].meter.by[1]: `s` stands in this list already
          13 |   - meter: { name: a b, quantity: x, part_of: x, by: [s, s, .] }
             |                                                          ^
          each field is named once
          help: leave one out

        error: a.yaml:13:61: steps[1].meter.by[2]: "." is no field
          13 |   - meter: { name: a b, quantity: x, part_of: x, by: [s, s, .] }
             |                                                             ^
          a field is a key, or keys joined by dots, of at most 256 bytes
          help: write kubernetes.labels.tenant
    "#]],
    );
}

#[test]
fn a_meter_says_what_its_kind_needs_and_nothing_else() {
    let wrong = |meter: &str, want: &[&str]| {
        let text = GOOD.replace("  - meter: { name: requests }", &format!("  - meter: {meter}"));
        assert_ne!(text, GOOD);
        let report = render(&[&text]);
        want.iter().for_each(|want| assert!(report.contains(want), "{meter} does not tell {want:?}:\n{report}"));
        assert_eq!(report.matches("error:").count(), want.len(), "{meter}:\n{report}");
    };
    wrong("{ kind: sum }", &["`name` is missing", "needs a quantity"]);
    wrong("{ name: \"\" }", &["\"\" is no name of a meter"]);
    wrong("{ name: m, kind: sum }", &["needs a quantity"]);
    wrong("{ name: m, kind: integral }", &["needs a quantity"]);
    wrong("{ name: m, kind: count, quantity: q, unit: U }", &["counts records, whatever their `quantity`"]);
    wrong("{ name: m, kind: interval, start: a }", &["`unit` is missing"]);
    wrong("{ name: m, kind: interval, unit: GPU }", &["this meter does not say from when"]);
    wrong("{ name: m, kind: interval, unit: GPU, end: b }", &["this meter does not say from when"]);
    wrong("{ name: m, kind: interval, unit: GPU, start: a, end: b, duration: d_ms }", &["`start`, `end` and `duration` are too many"]);
    wrong("{ name: m, kind: interval, unit: GPU, duration: d }", &["nobody knows what `d` counts"]);
    wrong("{ name: m, start: a }", &["`start` goes with `kind: interval`"]);
    wrong("{ name: m, duration_unit: s }", &["`duration_unit` is of no duration"]);
    wrong("{ name: m, within: a }", &["`within` goes with `usage` only"]);
    wrong("{ name: m, key: [a, a] }", &["`a` stands in this list already"]);
    wrong("{ name: x, usage: openai, quantity: q, kind: count }", &["`quantity` does not go with `usage`", "tokens are added up"]);
    wrong("{ usage: openai }", &["`tokens_in` is the name of steps[1] too"]);
    for meter in [
        "{ name: m, kind: interval, unit: GPU, start: a }",
        "{ name: m, kind: interval, unit: GPU, duration: held_seconds, key: [id] }",
        "{ name: m, kind: interval, unit: GPU, end: b, duration: d, duration_unit: min }",
        "{ name: m, kind: integral, quantity: q, unit: Bytes }",
        "{ name: m, kind: count, key: [id] }",
        "{ usage: gen_ai, name: chat, within: attributes, key: [id], by: [model] }",
    ] {
        assert_eq!(render(&[&GOOD.replace("  - meter: { name: requests }", &format!("  - meter: {meter}"))]), "fine\n", "{meter}");
    }
}

#[test]
fn eb_5_3_allowed_tenants_are_names_with_room_for_the_others() {
    check_with(
        "tenancy",
        "tenancy: { from: [tenant], tenants_max: 2, allow: [acme, \" \", acme], overflow: \"\" }",
        expect![[r#"
            error: a.yaml:9:51: tenancy.allow: names 3 tenants
              9 | tenancy: { from: [tenant], tenants_max: 2, allow: [acme, " ", acme], overflow: "" }
                |                                                   ^
              `tenants_max` is 2, and one of them is for all others
              help: raise it to 4

            error: a.yaml:9:58: tenancy.allow[1] is no tenant
              9 | tenancy: { from: [tenant], tenants_max: 2, allow: [acme, " ", acme], overflow: "" }
                |                                                          ^^^
              a tenant is a name of 1 to 256 bytes that is not only white space
              help: leave it out

            error: a.yaml:9:63: tenancy.allow[2]: `acme` stands in this list already
              9 | tenancy: { from: [tenant], tenants_max: 2, allow: [acme, " ", acme], overflow: "" }
                |                                                               ^^^^
              each tenant is named once
              help: leave one out

            error: a.yaml:9:80: tenancy.overflow is no tenant
              9 | tenancy: { from: [tenant], tenants_max: 2, allow: [acme, " ", acme], overflow: "" }
                |                                                                                ^^
              records of others belong to it, so it has a name of 1 to 256 bytes
              help: write __other__
        "#]],
    );
    check_with(
        "tenancy",
        "tenancy: { from: [tenant], allow: [] }",
        expect![[r#"
            error: a.yaml:9:35: tenancy.allow is empty
              9 | tenancy: { from: [tenant], allow: [] }
                |                                   ^
              every tenant would be another one
              help: name the tenants, or leave the key out to allow any
        "#]],
    );
}

#[test]
fn paths_of_archives_stay_in_their_folder() {
    for path in ["/var/log/x.log", "a/../b", "a//b", "a/", "{tenant", "a}b", "{a/b}", "{}", "x/{a..b}"] {
        assert!(template_fields(path).is_err(), "{path}");
    }
    assert_eq!(template_fields("logs/{tenant}/{kubernetes.labels.app}-{level}.log"), Ok(vec!["tenant", "kubernetes.labels.app", "level"]));
    check_with(
        "  files:",
        "  files: { archive: { path: \"logs/{tenant/{service}.log\" } }",
        expect![[r#"
        error: a.yaml:24:35: sinks.files.archive.path: this brace does not enclose a field
          24 |   files: { archive: { path: "logs/{tenant/{service}.log" } }
             |                                   ^
          braces hold `tenant` or the name of a field
          help: write logs/{tenant}/{service}.log
    "#]],
    );
}

#[test]
fn a_memory_hub_refuses_what_cannot_be_read_again() {
    let (start, end) = (GOOD.find("hub:").unwrap(), GOOD.find("sinks:").unwrap());
    let memory =
        |stdin: &str| format!("{}hub: {{ memory: {{}} }}\n{}", &GOOD[..start], &GOOD[end..]).replace("stdin: { format: json }", stdin);
    check(
        &memory("stdin: {}"),
        expect![[r#"
        error: a.yaml:8:9: sources.in.stdin: this source does not go with hub.memory
          8 |   in: { stdin: {} }
            |         ^^^^^
          a memory hub loses what it holds in a crash, and standard input cannot be read again
          help: write `ack: on_receipt` to accept that, or use hub.journal
    "#]],
    );
    check(
        &memory("stdin: { ack: on_receipt }"),
        expect![[r#"
        fine
    "#]],
    );
}

/// Of a source or sink in `sources` or `sinks`, on a line of its own.
fn network(source: &str, sink: &str) -> String {
    format!("sources:\n  in: {{ {source} }}\nsinks:\n  out: {{ {sink} }}\n")
}

#[test]
fn listeners_are_closed_by_default() {
    let source = |source: &str| network(source, "stdout: {}");
    check(
        &source("http: {}"),
        expect![[r#"
        fine
    "#]],
    );
    check(
        &source("http: { listen: \"0.0.0.0:8080\" }"),
        expect![[r#"
        error: a.yaml:2:25: sources.in.http.listen: 0.0.0.0 can be reached from elsewhere
          2 |   in: { http: { listen: "0.0.0.0:8080" } }
            |                         ^^^^^^^^^^^^^^
          whoever reaches it could send in anybody's name
          help: give senders `tokens`, or listen on 127.0.0.1:8080
    "#]],
    );
    check(
        &source("http: { listen: \"0.0.0.0:8080\", tokens: [{ tenant: a, token_env: T }] }"),
        expect![[r#"
        fine
    "#]],
    );
    check(
        &source(
            "http: { listen: here, paths: [logs], tokens: [{ tenant: \"\" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 }",
        ),
        expect![[r#"
            error: a.yaml:2:9: sources.in.http.buffer_bytes_max is 64MiB
              2 |   in: { http: { listen: here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |         ^^^^
              it must be at least 2GiB
              help: write 2GiB

            error: a.yaml:2:25: sources.in.http.listen: "here" is no address
              2 |   in: { http: { listen: here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |                         ^^^^
              an address is an IP and a port
              help: write 127.0.0.1:8080

            error: a.yaml:2:39: sources.in.http.paths[0]: "logs" is no path
              2 |   in: { http: { listen: here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |                                       ^^^^
              a path begins with a slash and holds no query
              help: write /logs

            error: a.yaml:2:55: sources.in.http.tokens[0]: it names no token, or two
              2 |   in: { http: { listen: here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |                                                       ^
              a token comes from one place, and never stands here
              help: write token_env: WEIR_TOKEN

            error: a.yaml:2:65: sources.in.http.tokens[0].tenant is no tenant
              2 |   in: { http: { listen: here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |                                                                 ^^
              somebody pays for what is sent with a token, in 1 to 256 bytes
              help: write its name

            error: a.yaml:2:88: sources.in.http.body_bytes_max is 1GiB
              2 |   in: { http: { listen: here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |                                                                                        ^^^^
              it must be from 4KiB to 256MiB
              help: write 256MiB

            error: a.yaml:2:103: sources.in.http.timeout is 1ms
              2 | …in: { http: { listen: here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |                                                                                                      ^^^
              it must be from 1s to 10m
              help: write 1s

            error: a.yaml:2:125: sources.in.http.connections_max is 0
              2 | …here, paths: [logs], tokens: [{ tenant: "" }], body_bytes_max: 1GiB, timeout: 1ms, connections_max: 0 } }
                |                                                                                                      ^
              it must be from 1 to 100000
              help: write 1000
        "#]],
    );
    check(
        &source("syslog: {}"),
        expect![[r#"
        error: a.yaml:2:9: sources.in.syslog: it listens nowhere
          2 |   in: { syslog: {} }
            |         ^^^^^^
          messages come by `udp`, `tcp` or both
          help: write udp: 127.0.0.1:5514
    "#]],
    );
    check(
        &source("syslog: { udp: \"0.0.0.0:514\", tcp: \"[::]:514\", message_bytes_max: 1GiB }"),
        expect![[r#"
        error: a.yaml:2:24: sources.in.syslog.udp: 0.0.0.0 can be reached from elsewhere
          2 |   in: { syslog: { udp: "0.0.0.0:514", tcp: "[::]:514", message_bytes_max: 1GiB } }
            |                        ^^^^^^^^^^^^^
          whoever reaches it could send in anybody's name
          help: name the addresses in `allow`, or listen on 127.0.0.1:514

        error: a.yaml:2:44: sources.in.syslog.tcp: :: can be reached from elsewhere
          2 |   in: { syslog: { udp: "0.0.0.0:514", tcp: "[::]:514", message_bytes_max: 1GiB } }
            |                                            ^^^^^^^^^^
          whoever reaches it could send in anybody's name
          help: name the addresses in `allow`, or listen on 127.0.0.1:514

        error: a.yaml:2:75: sources.in.syslog.message_bytes_max is 1GiB
          2 |   in: { syslog: { udp: "0.0.0.0:514", tcp: "[::]:514", message_bytes_max: 1GiB } }
            |                                                                           ^^^^
          it must be from 1KiB to 1MiB
          help: write 1MiB
    "#]],
    );
    check(
        &source("syslog: { udp: \"0.0.0.0:514\", allow: [10.0.0.0/8, 10.0.0.0/99] }"),
        expect![[r#"
        error: a.yaml:2:59: sources.in.syslog.allow[1]: "10.0.0.0/99" is no range of addresses
          2 |   in: { syslog: { udp: "0.0.0.0:514", allow: [10.0.0.0/8, 10.0.0.0/99] } }
            |                                                           ^^^^^^^^^^^
          addresses are one, or all that begin alike
          help: write 10.0.0.0/8
    "#]],
    );
    check(
        &format!("{}hub: {{ memory: {{}} }}\n", source("http: {}")),
        expect![[r#"
        error: a.yaml:2:9: sources.in.http: this source does not go with hub.memory
          2 |   in: { http: {} }
            |         ^^^^
          a memory hub loses what it holds in a crash, and an answer says that records are kept
          help: write `ack: on_receipt` to accept that, or use hub.journal
    "#]],
    );
}

#[test]
fn what_is_sent_is_sent_to_a_place_that_can_be() {
    let sink = |sink: &str| network("stdin: {}", sink);
    check(
        &sink("http: { url: \"http://127.0.0.1:9200\", body: loki, labels: { a: \"{b.c}\" } }"),
        expect![[r#"
        fine
    "#]],
    );
    check(
        &sink("http: { url: \"https://logs.example.com\" }"),
        expect![[r#"
        error: a.yaml:4:23: sinks.out.http.url: the url begins with https
          4 |   out: { http: { url: "https://logs.example.com" } }
            |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^
          TLS is not built, and nothing is sent in the clear that should not be
          help: let a proxy on this machine speak TLS, and write http://127.0.0.1 and its port
    "#]],
    );
    check(
        &sink("http: { url: \"http://me:secret@localhost\", auth: {} }"),
        expect![[r#"
        error: a.yaml:4:23: sinks.out.http.url: the url holds a user or a password
          4 |   out: { http: { url: "http://me:secret@localhost", auth: {} } }
            |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          a secret never stands in a config
          help: write `auth: { user: .., token_env: .. }`

        error: a.yaml:4:53: sinks.out.http.auth: it names no secret, or two
          4 |   out: { http: { url: "http://me:secret@localhost", auth: {} } }
            |                                                     ^^^^
          a secret comes from one place, and never stands here
          help: write token_env: WEIR_SINK_TOKEN
    "#]],
    );
    check(
        &sink(
            "http: { url: localhost, body: bulk, index: \"a-{b\", headers: { Authorization: x, \"a b\": y }, retry: { statuses: [500] } }",
        ),
        expect![[r#"
            error: a.yaml:4:23: sinks.out.http.url: "localhost" is no url
              4 |   out: { http: { url: localhost, body: bulk, index: "a-{b", headers: { Authorization: x, "a b": y }, retry: { statuses: [500] } } }
                |                       ^^^^^^^^^
              a url is http:// and a host
              help: write http://127.0.0.1:9200

            error: a.yaml:4:56: sinks.out.http.index: this brace does not enclose a field
              4 |   out: { http: { url: localhost, body: bulk, index: "a-{b", headers: { Authorization: x, "a b": y }, retry: { statuses: [500] } } }
                |                                                        ^
              braces hold `tenant`, `level` or the name of a field
              help: write logs-{tenant}

            error: a.yaml:4:72: sinks.out.http.headers.Authorization: Authorization is written twice
              4 |   out: { http: { url: localhost, body: bulk, index: "a-{b", headers: { Authorization: x, "a b": y }, retry: { statuses: [500] } } }
                |                                                                        ^^^^^^^^^^^^^
              weir writes this header itself, and a secret never stands in a config
              help: for a token use `auth`, else leave it out

            error: a.yaml:4:90: sinks.out.http.headers.a b is no header
              4 |   out: { http: { url: localhost, body: bulk, index: "a-{b", headers: { Authorization: x, "a b": y }, retry: { statuses: [500] } } }
                |                                                                                          ^^^^^
              its name is letters, digits and -, its value what can be printed in ASCII
              help: write X-Scope-OrgID: team

            error: a.yaml:4:122: sinks.out.http.retry.statuses[0] is 500
              4 | … localhost, body: bulk, index: "a-{b", headers: { Authorization: x, "a b": y }, retry: { statuses: [500] } } }
                |                                                                                                      ^^^
              of statuses only 400 to 499 are for good, so only these are named
              help: leave it out
        "#]],
    );
    check(
        &sink("http: { url: \"http://h\", body: loki, labels: { 1a: x }, batch: { bytes: 1, records: 0 } }"),
        expect![[r#"
        error: a.yaml:4:57: sinks.out.http.labels.1a: "1a" is no label of Loki
          4 |   out: { http: { url: "http://h", body: loki, labels: { 1a: x }, batch: { bytes: 1, records: 0 } } }
            |                                                         ^^
          a label is letters, digits and _, no digit first
          help: write service

        error: a.yaml:4:82: sinks.out.http.batch.bytes is 1B
          4 |   out: { http: { url: "http://h", body: loki, labels: { 1a: x }, batch: { bytes: 1, records: 0 } } }
            |                                                                                  ^
          it must be from 4KiB to 64MiB
          help: write 4KiB

        error: a.yaml:4:94: sinks.out.http.batch.records is 0
          4 |   out: { http: { url: "http://h", body: loki, labels: { 1a: x }, batch: { bytes: 1, records: 0 } } }
            |                                                                                              ^
          it must be from 1 to 100000
          help: write 10000
    "#]],
    );
    check(
        &sink("http: { url: \"http://h\", body: loki, labels: {} }"),
        expect![[r#"
        error: a.yaml:4:55: sinks.out.http.labels is empty
          4 |   out: { http: { url: "http://h", body: loki, labels: {} } }
            |                                                       ^
          Loki takes no stream without a label
          help: write { job: weir }
    "#]],
    );
}

#[test]
fn variables_must_be_set_and_their_values_never_show() {
    check_with(
        "labels",
        "labels: { a: \"x ${NOPE}\", b: \"${\", c: $5, d: \"${A-B}\" }",
        expect![[r#"
            error: a.yaml:5:17: labels.a: the label `a` of the global layer is empty: the environment has no variable NOPE
              5 | labels: { a: "x ${NOPE}", b: "${", c: $5, d: "${A-B}" }
                |                 ^
              a variable in a config must be set
              help: set it (export NOPE=...), or write $$ for a dollar sign

            error: a.yaml:5:31: labels.b: `${` begins a variable here
              5 | labels: { a: "x ${NOPE}", b: "${", c: $5, d: "${A-B}" }
                |                               ^
              a variable is written as ${NAME}, of letters, digits and _
              help: for a dollar sign itself write $$

            error: a.yaml:5:47: labels.d: `${` begins a variable here
              5 | labels: { a: "x ${NOPE}", b: "${", c: $5, d: "${A-B}" }
                |                                               ^
              a variable is written as ${NAME}, of letters, digits and _
              help: for a dollar sign itself write $$
        "#]],
    );
    check_with(
        "memory",
        "memory: \"${SECRET}\"",
        expect![[r#"
        error: a.yaml:3:9: memory: "${SECRET}" is no size
          3 | memory: "${SECRET}"
            |         ^^^^^^^^^^^
          a size is a whole number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, as in 64MiB
    "#]],
    );
    check_with(
        "admin",
        "admin: { listen: \"${SECRET}:1\" }",
        expect![[r#"
        error: a.yaml:26:18: admin.listen: "${SECRET}:1" is no address
          26 | admin: { listen: "${SECRET}:1" }
             |                  ^^^^^^^^^^^^^
          an address is an IP and a port
          help: write 127.0.0.1:9140
    "#]],
    );
}

#[test]
fn yaml_itself_is_checked() {
    check(
        "sources: { a: [}\n",
        expect![[r#"
        error: a.yaml:1:15: this is no YAML: mismatched bracket '[' closed by '}'
          1 | sources: { a: [}
            |               ^
    "#]],
    );
    check_with(
        "lanes",
        "lanes: 1\nlanes: 2",
        expect![[r#"
        error: a.yaml:5:1: the key `lanes` occurs twice
          5 | lanes: 2
            | ^^^^^
          it stands in line 4 already
          help: leave one of them out
    "#]],
    );
    check_with(
        "labels",
        "labels: &l { a: !secret b }",
        expect![[r#"
        error: a.yaml:5:17: the tag `!secret` means nothing here
          5 | labels: &l { a: !secret b }
            |                 ^^^^^^^
          no tags are used
          help: leave it out
    "#]],
    );
    check(
        &format!("{GOOD}---\n{GOOD}"),
        expect![[r#"
        error: a.yaml:27:1: a second document begins here
          27 | ---
             | ^^^
          a pipeline file holds one pipeline
          help: write each into a file of its own and name them all: weir run a.yaml b.yaml
    "#]],
    );
    check(
        "a: &a [*a]\n",
        expect![[r#"
        error: a.yaml:1:8: this alias repeats what it is part of
          1 | a: &a [*a]
            |        ^^
          such a value never ends
          help: leave it out
    "#]],
    );
    let bomb = (1..20).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string(), |text, i| {
        format!("{text}a{i}: &a{i} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n", i - 1)
    });
    check(
        &bomb,
        expect![[r#"
        error: a.yaml:6:10: the file has more than 100000 values
          6 | a5: &a5 [*a4, *a4, *a4, *a4, *a4, *a4, *a4, *a4, *a4]
            |          ^^^
          what aliases (`*name`) repeat counts each time
    "#]],
    );
    assert!(render(&[&"[".repeat(100_000)]).contains("no YAML"));
}

#[test]
fn an_alias_is_its_value_at_each_place() {
    check_with(
        "  out:",
        "  out: { stdout: &o {} }",
        expect![[r#"
        fine
    "#]],
    );
    check(
        "sources: { in: { stdin: {} } }\nsinks:\n  a: { archive: &a { path: a.log, open_files_max: 0 } }\n  b: { archive: *a }\n",
        expect![[r#"
        error: a.yaml:3:51: sinks.a.archive.open_files_max is 0
          3 |   a: { archive: &a { path: a.log, open_files_max: 0 } }
            |                                                   ^
          it must be from 1 to 65536
          help: write 256

        error: a.yaml:3:51: sinks.b.archive.open_files_max is 0
          3 |   a: { archive: &a { path: a.log, open_files_max: 0 } }
            |                                                   ^
          it must be from 1 to 65536
          help: write 256
    "#]],
    );
}

#[test]
fn mistakes_of_the_rate_card_are_told_in_the_card() {
    let pipeline = "sources: { in: { stdin: {} } }\nsteps: [{ meter: { name: t, quantity: t, unit: Tokens } }]\nsinks: { out: { stdout: {} } }\nrates: card.yaml\n";
    let card = "currency: USD\nversions:\n  - name: v1\n    from: 2026-07-01T00:00:00Z\n    prices:\n      - { sku: a, meter: t, price: 0.50, per: 1000000, unit: Tokens }\n";
    assert_eq!(render(&[pipeline, card]), "fine\n");
    expect![[r#"
        error: a.yaml:4:8: rates: the rate card card.yaml cannot be read: there is no such file
          4 | rates: card.yaml
            |        ^^^^^^^^^
          a rate card lies relative to the folder of the pipeline file
          help: name a file that exists
    "#]]
    .assert_eq(&render(&[pipeline]));
    let bad = card.replace("0.50", "much").replace("USD", "dollars").replace("sku: a", "skew: a");
    expect![[r#"
        error: card.yaml:1:11: currency is "dollars"
          1 | currency: dollars
            |           ^^^^^^^
          help: a currency is three capital letters, as in USD

        error: card.yaml:6:9: versions[0].prices[0]: `sku` is missing
          6 |       - { skew: a, meter: t, price: much, per: 1000000, unit: Tokens }
            |         ^
          it cannot do without
          help: add `sku: ...`

        error: card.yaml:6:11: versions[0].prices[0]: the key `skew` is not known here
          6 |       - { skew: a, meter: t, price: much, per: 1000000, unit: Tokens }
            |           ^^^^
          known: sku, meter, minus, model, region, match, price, tiers, currency, per, unit

        error: card.yaml:6:37: versions[0].prices[0].price is no price: "much" is no amount; an amount is digits with a point, as in 0.50
          6 |       - { skew: a, meter: t, price: much, per: 1000000, unit: Tokens }
            |                                     ^^^^
          help: write digits with a point and at most 12 digits after it, as in "0.50"
    "#]]
    .assert_eq(&render(&[pipeline, &bad]));
}

#[test]
fn lineage_names_are_found_although_they_hold_dots() {
    check_with(
        "admin",
        "lineage: { models: { orca-1.5: { trained_on: [s3://corpora/none] }, b: {} }, reports: { weekly: { reads: [] } } }",
        expect![[r#"
        error: a.yaml:26:47: lineage.models.orca-1.5.trained_on[0] is "s3://corpora/none", which datasets does not list
          26 | lineage: { models: { orca-1.5: { trained_on: [s3://corpora/none] }, b: {} }, reports: { weekly: { reads: [] } } }
             |                                               ^^^^^^^^^^^^^^^^^
          help: list it under datasets, by the same name

        error: a.yaml:26:106: lineage.reports.weekly.reads is empty
          26 | …ge: { models: { orca-1.5: { trained_on: [s3://corpora/none] }, b: {} }, reports: { weekly: { reads: [] } } }
             |                                                                                                      ^
          help: name services, or "*" for all of them
    "#]],
    );
}

#[test]
fn files_that_run_together_must_agree() {
    let other = "name: quickstart\ndata: elsewhere\nsources: { in: { stdin: {} } }\nsinks: { shown: { stdout: {} } }\n";
    expect![[r#"
        error: b.yaml:1:1: name: the pipeline `quickstart` is a.yaml too
          1 | name: quickstart
            | ^^^^
          names of pipelines differ
          help: write `name: ...` in one of them

        error: b.yaml:2:1: data: `data` is something else in a.yaml
          2 | data: elsewhere
            | ^^^^
          pipelines of one process share it
          help: write it in one file only
    "#]]
    .assert_eq(&render(&[GOOD, other]));
    let fine = "lanes: 2\nsources: { pods: { stdin: {} } }\nsinks: { shown: { stdout: {} } }\n";
    let (loaded, _) = load_texts(&[fine, GOOD]);
    let loaded = loaded.map_err(|report| report.to_string()).unwrap();
    assert_eq!(process(&loaded).data, PathBuf::from("weir-data"));
    assert_eq!(loaded[0].name, "a");
}

#[test]
fn sinks_that_share_a_lake_agree_on_it() {
    let with = |name: &str, lake: &str| {
        format!("name: {name}\nsources: {{ in: {{ stdin: {{}} }} }}\nsinks: {{ store: {{ lake: {{ {lake} }} }} }}\n")
    };
    expect![[r#"
        error: b.yaml:3:27: sinks.store.lake.keep: pipeline `one` has a sink in the lake `file:lake` with another `keep`
          3 | sinks: { store: { lake: { keep: { age: 7d } } } }
            |                           ^^^^
          a lake has one
          help: write it alike, or give one of them another `url`
    "#]]
    .assert_eq(&render(&[&with("one", ""), &with("two", "keep: { age: 7d }")]));
    for (one, two) in
        [("when: 'level == \"error\"'", ""), ("keep: { age: 7d }", "keep: { age: 7d }"), ("index: [service]", "url: \"file:two\"")]
    {
        let (loaded, _) = load_texts(&[&with("one", one), &with("two", two)]);
        loaded.map_err(|report| report.to_string()).unwrap();
    }
}

#[test]
fn a_plan_reads_at_most_sixty_four_fields() {
    let by = |count: usize| (0..count).map(|i| format!("f{i}")).collect::<Vec<_>>().join(", ");
    let text = |count| {
        format!(
            "sources: {{ in: {{ stdin: {{}} }} }}\nsinks: {{ out: {{ stdout: {{}} }} }}\nsteps: [{{ meter: {{ name: m, by: [{}] }} }}]\n",
            by(count)
        )
    };
    // Defaults: 2 of tenancy, 4 of time, 3 of level.
    check(
        &text(55),
        expect![[r#"
            error: a.yaml:1:1: this pipeline reads 74 fields
              1 | sources: { in: { stdin: {} } }
                | ^
              it can read 64
              help: shorten `fields`, or split it into two pipelines
        "#]],
    );
    check(
        &text(56),
        expect![[r#"
            error: a.yaml:1:1: this pipeline reads 75 fields
              1 | sources: { in: { stdin: {} } }
                | ^
              it can read 64
              help: shorten `fields`, or split it into two pipelines
        "#]],
    );
}

#[test]
fn a_list_is_no_map_of_keys() {
    check_with(
        "  - drop",
        "  - drop: [\"true\"]",
        expect![[r#"
        error: a.yaml:12:11: steps[0].drop: found a list, expected a map, as in { key: value }
          12 |   - drop: ["true"]
             |           ^
    "#]],
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("binary.yaml"), b"a: 1\nb: \xff\n").unwrap();
    std::fs::write(path("large.yaml"), " ".repeat(TEXT_BYTES_MAX + 1)).unwrap();
    let report = load(&[path("none.yaml"), path(""), path("binary.yaml"), path("large.yaml")], &env).err().unwrap();
    expect![[r#"
        error: /none.yaml: cannot be read: there is no such file
          help: name a file that exists

        error: /: is a folder
          help: name the files in it

        error: /binary.yaml: is no text: line 2 holds bytes that are no UTF-8
          help: save the file as UTF-8

        error: /large.yaml: has 1048577B
          help: a config file has at most 1MiB
    "#]]
    .assert_eq(&report.to_string().replace(&folder.path().display().to_string(), ""));
    assert!(load(&[], &env).is_err());
}

#[test]
fn more_than_a_hundred_mistakes_end_with_a_word() {
    let many = (0..300).map(|i| format!("k{i}: 1\n")).collect::<String>();
    let (result, _) = load_texts(&[&many]);
    let report = result.err().unwrap();
    assert_eq!(report.mistakes.len(), 101);
    assert_eq!(report.mistakes.iter().filter(|mistake| mistake.message.starts_with("more than")).count(), 1);
}

#[test]
fn json_says_the_same_for_machines() {
    let (result, prefix) = load_texts(&["sources: { in: { stdin: { format: jsn } } }\nsinks: { out: { stdout: {} } }\n"]);
    expect![[r#"
        {
          "mistakes": [
            {
              "file": "a.yaml",
              "line": 1,
              "column": 35,
              "path": "sources.in.stdin.format",
              "message": "`jsn` is not known here",
              "rule": "one of: json, cri, docker, container, text",
              "help": "did you mean `json`?",
              "source": "sources: { in: { stdin: { format: jsn } } }"
            }
          ]
        }"#]]
    .assert_eq(&result.err().unwrap().json().replace(&prefix, ""));
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound as u64) as usize
    }
}

#[test]
fn no_text_makes_it_panic_and_every_caret_has_its_line() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    println!("seed {seed}; WEIR_SEED takes another");
    let mut random = Random(seed);
    let odd = [
        "{", "}", "[", "]", ":", "- ", "\n", "'", "\"", "*a", "&a ", "!t ", "${", "$", "\t", "|", ">", "é", "\u{feff}", "0", "null", "#",
        ",", "? ", "%", "\0", "\r",
    ];
    let rounds = if std::env::var_os("SLOW").is_some() { 50_000 } else { 2_000 };
    for round in 0..rounds {
        let mut text: Vec<char> = GOOD.chars().collect();
        for _ in 0..1 + random.below(4) {
            let at = random.below(text.len() + 1);
            match random.below(4) {
                0 => text.truncate(at),
                1 => drop(text.splice(at..(at + random.below(20)).min(text.len()), [])),
                2 => drop(text.splice(at..at, odd[random.below(odd.len())].chars())),
                _ => {
                    let from = random.below(text.len().max(1));
                    let piece: Vec<char> = text[from.min(text.len())..(from + random.below(60)).min(text.len())].to_vec();
                    text.splice(at..at, piece);
                }
            }
        }
        let text: String = text.into_iter().collect();
        let mut mistakes = Vec::new();
        if let Some(mut tree) = Tree::parse("a.yaml", &text, &env, &mut mistakes)
            && let Some(config) = read::read::<Config>(&mut tree, &mut mistakes)
        {
            rules::check(&config, &tree, &mut mistakes);
        }
        let lines = text.matches(['\n', '\r']).count() + 1;
        for mistake in &mistakes {
            assert!(mistake.line <= lines + 1, "round {round}: {mistake}\n{text}");
            assert!(mistake.column <= mistake.source.chars().count() + 2, "round {round}: {mistake}\n{text}");
            assert!(!mistake.message.is_empty(), "round {round}\n{text}");
        }
        let _ = Report { mistakes }.to_string();
    }
}

#[test]
fn rotation_and_room_of_an_archive_must_make_sense() {
    check_with(
        "  files:",
        "  files: { archive: { path: a.log, rotate: { every: 1h, at: day, zone: Europe/Berlin, on_sighup: true }, room: { max_total_bytes: 1GiB, when_full: drop_newest } } }",
        expect![[r#"
        fine
    "#]],
    );
    check_with(
        "  files:",
        "  files: { archive: { path: a.log, rotate: { backups: 3 }, room: { when_full: wait } } }",
        expect![[r#"
            error: a.yaml:24:36: sinks.files.archive.rotate: says nothing of when
              24 |   files: { archive: { path: a.log, rotate: { backups: 3 }, room: { when_full: wait } } }
                 |                                    ^^^^^^
              a file is rotated by `size`, `every`, `at` or `on_sighup`
              help: write size: 100MiB

            error: a.yaml:24:60: sinks.files.archive.room: limits nothing
              24 |   files: { archive: { path: a.log, rotate: { backups: 3 }, room: { when_full: wait } } }
                 |                                                            ^^^^
              room is what must stay free or what may be taken
              help: write max_total_bytes: 10GiB
        "#]],
    );
    check_with(
        "  files:",
        "  files: { archive: { path: a.log, rotate: { size: 1GiB, zone: Mars/Olympus, every: 1ms, at: week }, room: { max_total_bytes: 1GiB } } }",
        expect![[r#"
            error: a.yaml:24:64: sinks.files.archive.rotate.zone: "Mars/Olympus" is no time zone
              24 |   files: { archive: { path: a.log, rotate: { size: 1GiB, zone: Mars/Olympus, every: 1ms, at: week }, room: { max_total_bytes: 1GiB } } }
                 |                                                                ^^^^^^^^^^^^
              it is a name of the tz database
              help: write Europe/Berlin

            error: a.yaml:24:85: sinks.files.archive.rotate.every is 1ms
              24 |   files: { archive: { path: a.log, rotate: { size: 1GiB, zone: Mars/Olympus, every: 1ms, at: week }, room: { max_total_bytes: 1GiB } } }
                 |                                                                                     ^^^
              it must be at least 1s
              help: write 1s

            error: a.yaml:24:94: sinks.files.archive.rotate.at: `week` is not known here
              24 |   files: { archive: { path: a.log, rotate: { size: 1GiB, zone: Mars/Olympus, every: 1ms, at: week }, room: { max_total_bytes: 1GiB } } }
                 |                                                                                              ^^^^
              one of: hour, day

            error: a.yaml:24:127: sinks.files.archive.room.max_total_bytes is 1GiB, and one file grows to 1GiB
              24 | …: a.log, rotate: { size: 1GiB, zone: Mars/Olympus, every: 1ms, at: week }, room: { max_total_bytes: 1GiB } } }
                 |                                                                                                      ^^^^
              only rotated files can be deleted, so two of them must fit
              help: write 2GiB
        "#]],
    );
    check_with(
        "  files:",
        "  files: { archive: { path: a.log, rotate: { size: 1GiB, zone: UTC } } }",
        expect![[r#"
            error: a.yaml:24:58: sinks.files.archive.rotate.zone: changes nothing
              24 |   files: { archive: { path: a.log, rotate: { size: 1GiB, zone: UTC } } }
                 |                                                          ^^^^
              a zone says when the hour or day of `at` ends, and which clock `names: local` is of
              help: write at: day, or leave it out
        "#]],
    );
    let start = GOOD.find("hub:").unwrap();
    let memory = format!("{}hub: {{ memory: {{}} }}\n", &GOOD[..start]).replace("stdin: { format: json }", "file: { include: [a.log] }");
    check(
        &format!("{memory}sinks: {{ a: {{ archive: {{ path: a.log, room: {{ min_free_bytes: 1GiB, when_full: drop_newest }} }} }} }}\n"),
        expect![[r#"
            error: a.yaml:21:80: sinks.a.archive.room.when_full: does not go with hub.memory
              21 | sinks: { a: { archive: { path: a.log, room: { min_free_bytes: 1GiB, when_full: drop_newest } } } }
                 |                                                                                ^^^^^^^^^^^
              what was dropped is remembered by the journal alone
              help: write wait
        "#]],
    );
}

#[test]
fn copies_are_dropped_before_meters_and_redaction_comes_behind_readers() {
    let steps = |steps: &str| format!("sources: {{ in: {{ stdin: {{}} }} }}\nsteps:\n{steps}sinks: {{ out: {{ stdout: {{}} }} }}\n");
    #[track_caller]
    fn says(text: &str, want: &[&str]) {
        let said = render(&[text]);
        for part in want {
            assert!(said.contains(part), "{part:?} is not in:\n{said}");
        }
    }
    says(
        &steps("  - meter: { name: m }\n  - dedup: { key: [id] }\n"),
        &["a.yaml:4:5: steps[1].dedup", "this dedup stands after a meter", "metered: anyway", "^^^^^"],
    );
    let good = |text: &str| assert!(load_texts(&[text]).0.is_ok(), "{}", render(&[text]));
    good(&steps("  - meter: { name: m }\n  - dedup: { key: [id], metered: anyway }\n"));
    good(&steps("  - drop: { when: 'email == \"x\"' }\n  - redact: { fields: [email], detect: [email] }\n"));
    says(&steps("  - dedup: { keys_max: 0, window: 0s }\n"), &["keys_max", "from 1 to 100000000", "window"]);
    says(
        &steps("  - redact: { fields: [user] }\n  - drop: { when: 'user.email == \"x\"' }\n"),
        &["a.yaml:3:5: steps[0].redact", "steps[1] reads `user.email` behind this step", "move this step behind it"],
    );
    says(&steps("  - redact: { detect: [ip] }\n  - sample: { levels: { info: { ratio: 0.1, key: ip } } }\n"), &["steps[1] reads `ip`"]);
    says(&steps("  - redact: { patterns: ['a(b'] }\n"), &["a.yaml:3:28: steps[0].redact.patterns[0]", "unclosed group"]);
    says(&steps("  - redact: { patterns: ['\\p{L}{1000}{100}'] }\n"), &["a.yaml:3:27", "it grows beyond 1024 KiB"]);
    says(&steps("  - redact: { patterns: ['x*'] }\n"), &["it matches where nothing stands"]);
    says(&steps("  - redact: { patterns: ['\\*+'] }\n"), &["it matches the mask"]);
    says(&steps("  - redact: {}\n"), &["this step redacts nothing"]);
    says(&steps("  - redact: { fields: [a], action: { hash: {} } }\n"), &["it names no key, or two", "key_env"]);
    says(&steps("  - shape: {}\n"), &["this step changes nothing"]);
    says(&steps("  - shape: { rename: { a: b.c }, set: { r: { label: nope } } }\n"), &["\"b.c\" is no key", "`nope` is no label"]);
}

#[test]
fn eb_5_1_names_of_labels_are_prometheus_and_given_once() {
    check(
        r#"labels: { __meta: a, le: b, job: c, tenant: d, 9lives: e, app-name: f, _fine: g, env: prod, region: here }
sources:
  in: { stdin: { labels: { env: test, region: there, env: again } } }
  two: { file: { include: ["*.log"], labels: { quantile: x } } }
request_labels:
  env: { from: [e] }
  reason: { from: [r] }
  component: { from: [] }
labels_override: [region, regoin]
sinks: { out: { stdout: {} } }
"#,
        expect![[r#"
            error: a.yaml:1:11: labels.__meta: `__meta` is reserved
              1 | labels: { __meta: a, le: b, job: c, tenant: d, 9lives: e, app-name: f, _fine: g, env: prod, region: here }
                |           ^^^^^^
              names that begin with `__`, le, quantile, job and instance are Prometheus' own
              help: write app_meta

            error: a.yaml:1:22: labels.le: `le` is reserved
              1 | labels: { __meta: a, le: b, job: c, tenant: d, 9lives: e, app-name: f, _fine: g, env: prod, region: here }
                |                      ^^
              names that begin with `__`, le, quantile, job and instance are Prometheus' own
              help: write app_le

            error: a.yaml:1:29: labels.job: `job` is reserved
              1 | labels: { __meta: a, le: b, job: c, tenant: d, 9lives: e, app-name: f, _fine: g, env: prod, region: here }
                |                             ^^^
              names that begin with `__`, le, quantile, job and instance are Prometheus' own
              help: write app_job

            error: a.yaml:1:37: labels.tenant: `tenant` is reserved
              1 | labels: { __meta: a, le: b, job: c, tenant: d, 9lives: e, app-name: f, _fine: g, env: prod, region: here }
                |                                     ^^^^^^
              weir puts these on its metrics itself: pipeline, source, sink, tenant, outcome, reason, note, state, policy, id, level, label, limit, result, hash, rule
              help: write app_tenant

            error: a.yaml:1:48: labels.9lives: `9lives` is no name of a label
              1 | labels: { __meta: a, le: b, job: c, tenant: d, 9lives: e, app-name: f, _fine: g, env: prod, region: here }
                |                                                ^^^^^^
              a name is letters, digits and `_`, at most 64, and begins with no digit
              help: write node_pool

            error: a.yaml:1:59: labels.app-name: `app-name` is no name of a label
              1 | labels: { __meta: a, le: b, job: c, tenant: d, 9lives: e, app-name: f, _fine: g, env: prod, region: here }
                |                                                           ^^^^^^^^
              a name is letters, digits and `_`, at most 64, and begins with no digit
              help: write node_pool

            error: a.yaml:3:28: sources.in.stdin.labels.env: the global layer (`labels`) has a label `env` already
              3 |   in: { stdin: { labels: { env: test, region: there, env: again } } }
                |                            ^^^
              a later layer gives no label another value unless that is allowed
              help: write another name, or labels_override: [env]

            error: a.yaml:3:54: the key `env` occurs twice
              3 |   in: { stdin: { labels: { env: test, region: there, env: again } } }
                |                                                      ^^^
              it stands in line 3 already
              help: leave one of them out

            error: a.yaml:4:48: sources.two.file.labels.quantile: `quantile` is reserved
              4 |   two: { file: { include: ["*.log"], labels: { quantile: x } } }
                |                                                ^^^^^^^^
              names that begin with `__`, le, quantile, job and instance are Prometheus' own
              help: write app_quantile

            error: a.yaml:6:3: request_labels.env: the global layer (`labels`) has a label `env` already
              6 |   env: { from: [e] }
                |   ^^^
              a later layer gives no label another value unless that is allowed
              help: write another name, or labels_override: [env]

            error: a.yaml:7:3: request_labels.reason: `reason` is reserved
              7 |   reason: { from: [r] }
                |   ^^^^^^
              weir puts these on its metrics itself: pipeline, source, sink, tenant, outcome, reason, note, state, policy, id, level, label, limit, result, hash, rule
              help: write app_reason

            error: a.yaml:8:22: request_labels.component.from is empty
              8 |   component: { from: [] }
                |                      ^
              a label of the request is read from a field of the record
              help: write [http.route, route]

            error: a.yaml:9:27: labels_override[1]: no layer has a label `regoin`
              9 | labels_override: [region, regoin]
                |                           ^^^^^^
              it names labels that a later layer gives another value
              help: did you mean `region`?
        "#]],
    );
}

#[test]
fn eb_5_2_a_required_label_that_is_empty_is_named_with_its_layer() {
    let config = |labels: &str, of_in: &str, of_two: &str| {
        format!(
            "labels: {{ {labels} }}\nlabels_required: [service_name]\nsources:\n  in: {{ stdin: {{ labels: {{ {of_in} }} }} }}\n  two: {{ file: {{ include: [\"*.log\"], labels: {{ {of_two} }} }} }}\nsinks: {{ out: {{ stdout: {{}} }} }}\n"
        )
    };
    // The vector: SERVICE_NAME is not set.
    check(
        &config(r#"service_name: "${SERVICE_NAME}""#, "", ""),
        expect![[r#"
        error: a.yaml:1:26: labels.service_name: the label `service_name` of the global layer is empty: the environment has no variable SERVICE_NAME
          1 | labels: { service_name: "${SERVICE_NAME}" }
            |                          ^
          a variable in a config must be set
          help: set it (export SERVICE_NAME=...), or write $$ for a dollar sign
    "#]],
    );
    check(
        &config("", r#"service_name: "${SERVICE_NAME}""#, "service_name: b"),
        expect![[r#"
        error: a.yaml:4:43: sources.in.stdin.labels.service_name: the label `service_name` of the service layer (source `in`) is empty: the environment has no variable SERVICE_NAME
          4 |   in: { stdin: { labels: { service_name: "${SERVICE_NAME}" } } }
            |                                           ^
          a variable in a config must be set
          help: set it (export SERVICE_NAME=...), or write $$ for a dollar sign
    "#]],
    );
    check(
        &config(r#"service_name: " \t ""#, "", ""),
        expect![[r#"
        error: a.yaml:1:25: labels.service_name: the label `service_name` of the global layer is empty
          1 | labels: { service_name: " \t " }
            |                         ^^^^^^
          a required label has a value that is not blank before anything starts
          help: set it, or take it out of `labels_required`
    "#]],
    );
    check(
        &config("", r#"service_name: """#, "service_name: b"),
        expect![[r#"
        error: a.yaml:4:42: sources.in.stdin.labels.service_name: the label `service_name` of the service layer (source `in`) is empty
          4 |   in: { stdin: { labels: { service_name: "" } } }
            |                                          ^^
          a required label has a value that is not blank before anything starts
          help: set it, or take it out of `labels_required`
    "#]],
    );
    check(
        &config("", "service_name: a", ""),
        expect![[r#"
        error: a.yaml:2:19: labels_required[0]: the label `service_name` is missing: neither the global layer nor the service layer of `two` has it
          2 | labels_required: [service_name]
            |                   ^^^^^^^^^^^^
          a required label has a value that is not blank before anything starts
          help: add it to `labels` of the file or of each source, or take it out of `labels_required`
    "#]],
    );
    for (labels, of_in, of_two) in [("service_name: a", "", ""), ("", "service_name: a", "service_name: b")] {
        assert_eq!(render(&[&config(labels, of_in, of_two)]), "fine\n");
    }
}

#[test]
fn eb_5_3_request_labels_say_what_they_take() {
    check(
        r#"sources: { in: { stdin: {} } }
request_labels:
  a: { from: [x, x, "y..z"], values_max: 0, bytes_max: 5000 }
  b: { from: [x], allow: [" pro", pro, pro, "much too long for this"], bytes_max: 8, values_max: 3, overflow: "" }
label_limits: { per_metric: 0, per_tenant: 5000000, total: 1, idle: 10ms }
sinks: { out: { stdout: {} } }
"#,
        expect![[r#"
            error: a.yaml:3:18: request_labels.a.from[1]: `x` stands in this list already
              3 |   a: { from: [x, x, "y..z"], values_max: 0, bytes_max: 5000 }
                |                  ^
              each field is named once
              help: leave one out

            error: a.yaml:3:21: request_labels.a.from[2]: "y..z" is no field
              3 |   a: { from: [x, x, "y..z"], values_max: 0, bytes_max: 5000 }
                |                     ^^^^^^
              a field is a key, or keys joined by dots, of at most 256 bytes
              help: write kubernetes.labels.tenant

            error: a.yaml:3:42: request_labels.a.values_max is 0
              3 |   a: { from: [x, x, "y..z"], values_max: 0, bytes_max: 5000 }
                |                                          ^
              it must be from 1 to 100000
              help: write 1

            error: a.yaml:3:56: request_labels.a.bytes_max is 5000
              3 |   a: { from: [x, x, "y..z"], values_max: 0, bytes_max: 5000 }
                |                                                        ^^^^
              it must be from 1 to 1024
              help: write 1024

            error: a.yaml:4:27: request_labels.b.allow[0]: " pro" is never a value
              4 |   b: { from: [x], allow: [" pro", pro, pro, "much too long for this"], bytes_max: 8, values_max: 3, overflow: "" }
                |                           ^^^^^^
              a value has no blanks around it, no control characters and at most `bytes_max` bytes
              help: write it as it is without them

            error: a.yaml:4:40: request_labels.b.allow[2]: `pro` stands in this list already
              4 |   b: { from: [x], allow: [" pro", pro, pro, "much too long for this"], bytes_max: 8, values_max: 3, overflow: "" }
                |                                        ^^^
              each value is named once
              help: leave one out

            error: a.yaml:4:45: request_labels.b.allow[3]: "much too long for this" is never a value
              4 |   b: { from: [x], allow: [" pro", pro, pro, "much too long for this"], bytes_max: 8, values_max: 3, overflow: "" }
                |                                             ^^^^^^^^^^^^^^^^^^^^^^^^
              a value has no blanks around it, no control characters and at most `bytes_max` bytes
              help: write it as it is without them

            error: a.yaml:4:98: request_labels.b.values_max is 3, and 4 values are allowed
              4 |   b: { from: [x], allow: [" pro", pro, pro, "much too long for this"], bytes_max: 8, values_max: 3, overflow: "" }
                |                                                                                                  ^
              there must be room for each
              help: write 4

            error: a.yaml:4:111: request_labels.b.overflow: "" is no value
              4 | …m: [x], allow: [" pro", pro, pro, "much too long for this"], bytes_max: 8, values_max: 3, overflow: "" }
                |                                                                                                      ^^
              it stands for every value that is not taken, without blanks around it and control characters
              help: write __other__

            error: a.yaml:5:29: label_limits.per_metric is 0
              5 | label_limits: { per_metric: 0, per_tenant: 5000000, total: 1, idle: 10ms }
                |                             ^
              it must be from 1 to 1000000
              help: write 1

            error: a.yaml:5:44: label_limits.per_tenant is 5000000
              5 | label_limits: { per_metric: 0, per_tenant: 5000000, total: 1, idle: 10ms }
                |                                            ^^^^^^^
              it must be from 1 to 1000000
              help: write 1000000

            error: a.yaml:5:60: label_limits.total is 1
              5 | label_limits: { per_metric: 0, per_tenant: 5000000, total: 1, idle: 10ms }
                |                                                            ^
              it must be from 2 to 2000000
              help: write 2

            error: a.yaml:5:69: label_limits.idle is 10ms
              5 | label_limits: { per_metric: 0, per_tenant: 5000000, total: 1, idle: 10ms }
                |                                                                     ^^^^
              it must be from 1s to 366d
              help: write 1s
        "#]],
    );
}

#[test]
fn labels_of_one_process_agree() {
    let pipeline = |name: &str, env: &str| {
        format!(
            "name: {name}\nlabels: {{ env: {env} }}\nsources: {{ in: {{ file: {{ include: [\"{name}/*.log\"] }} }} }}\nsinks: {{ out: {{ blackhole: {{}} }} }}\n"
        )
    };
    assert_eq!(render(&[&pipeline("one", "prod"), &pipeline("two", "prod")]), "fine\n");
    expect![[r#"
        error: b.yaml:2:11: labels.env: the label `env` has another value in a.yaml
          2 | labels: { env: test }
            |           ^^^
          labels are of the process, on every metric
          help: write it in one file only, or as a label of a source
    "#]]
    .assert_eq(&render(&[&pipeline("one", "prod"), &pipeline("two", "test")]));
}

#[test]
fn expressions_that_have_no_value_for_any_record_are_refused_where_they_go_wrong() {
    check(
        r#"sources: { in: { stdin: {} } }
steps:
  - shape:
      set:
        a: { expr: 'status / 0' }
        b: { expr: 'service + 1 + "x"' }
        c: { expr: "name.lower()" }
        d: { expr: '' }
        e: { label: nowhere }
sinks: { out: { stdout: {} } }
"#,
        expect![[r#"
            error: a.yaml:5:30: steps[0].shape.set.a.expr: this divides by zero
              5 |         a: { expr: 'status / 0' }
                |                              ^
              an expression makes one value of a record, with CEL's types
              help: divide by something else, as in n == 0 ? 0 : total / n

            error: a.yaml:6:33: steps[0].shape.set.b.expr: an int and a text are not computed with each other
              6 |         b: { expr: 'service + 1 + "x"' }
                |                                 ^
              an expression makes one value of a record, with CEL's types
              help: string(x), int(x) and double(x) make one of the other

            error: a.yaml:7:26: steps[0].shape.set.c.expr: there is no method `lower`
              7 |         c: { expr: "name.lower()" }
                |                          ^
              an expression makes one value of a record, with CEL's types
              help: the methods are lowerAscii, upperAscii, trim, replace, substring, startsWith, endsWith, contains, matches, size, indexOf, lastIndexOf, charAt, reverse, getFullYear, getMonth, getDate, getDayOfMonth, getDayOfWeek, getDayOfYear, getHours, getMinutes, getSeconds, getMilliseconds

            error: a.yaml:8:21: steps[0].shape.set.d.expr: the expression is empty
              8 |         d: { expr: '' }
                |                     ^
              an expression makes one value of a record, with CEL's types
              help: an expression reads as service + "-" + string(status / 100)

            error: a.yaml:9:21: steps[0].shape.set.e.label: `nowhere` is no label of this pipeline
              9 |         e: { label: nowhere }
                |                     ^^^^^^^
              there are none
              help: add it to `labels`
        "#]],
    );
}

/// The warnings of one config that has no mistake.
fn warnings(text: &str) -> String {
    let (loaded, prefix) = load_texts(&[text]);
    let loaded = loaded.map_err(|report| report.to_string()).unwrap();
    loaded[0].warnings.iter().map(|warning| Warning(warning).to_string()).collect::<String>().replace(&prefix, "")
}

#[test]
fn fields_that_look_misspelt_are_a_warning() {
    expect![[r#"
        warning: a.yaml:4:42: steps[0].drop.when: `stauts` looks misspelt
          4 |   - drop: { when: 'path == "/healthz" && stauts < 400' }
            |                                          ^
          nothing else in this file names it, and no record may have it
          help: did you mean `status`?
        warning: a.yaml:5:43: steps[1].drop.when: `acount` looks misspelt
          5 |   - drop: { when: 'frobnication == "x" || acount == "y"' }
            |                                           ^
          nothing else in this file names it, and no record may have it
          help: did you mean `account`?
        warning: a.yaml:6:39: steps[2].meter.quantity: `widgets_made` looks misspelt
          6 |   - meter: { name: widgets, quantity: widgets_made, unit: Widgets, by: [sevrice] }
            |                                       ^^^^^^^^^^^^
          nothing else in this file names it, and no record may have it
          help: did you mean `widget_made`?
        warning: a.yaml:6:73: steps[2].meter.by[0]: `sevrice` looks misspelt
          6 |   - meter: { name: widgets, quantity: widgets_made, unit: Widgets, by: [sevrice] }
            |                                                                         ^^^^^^^
          nothing else in this file names it, and no record may have it
          help: did you mean `service`?
        warning: a.yaml:7:44: steps[3].shape.set.verdict_code.expr: `widget_made` looks misspelt
          7 |   - shape: { set: { verdict_code: { expr: 'widget_made + 1' } } }
            |                                            ^
          nothing else in this file names it, and no record may have it
          help: did you mean `widgets_made`?
        warning: a.yaml:8:50: steps[4].sample.levels.info.key: `requestId` looks misspelt
          8 |   - sample: { levels: { info: { ratio: 0.5, key: requestId } } }
            |                                                  ^^^^^^^^^
          nothing else in this file names it, and no record may have it
          help: did you mean `request_id`?
    "#]]
    .assert_eq(&warnings(
        r#"sources: { in: { stdin: {} } }
tenancy: { from: [account] }
steps:
  - drop: { when: 'path == "/healthz" && stauts < 400' }
  - drop: { when: 'frobnication == "x" || acount == "y"' }
  - meter: { name: widgets, quantity: widgets_made, unit: Widgets, by: [sevrice] }
  - shape: { set: { verdict_code: { expr: 'widget_made + 1' } } }
  - sample: { levels: { info: { ratio: 0.5, key: requestId } } }
sinks: { out: { stdout: {} } }
"#,
    ));
}

#[test]
fn fields_that_a_step_took_away_before_are_a_warning() {
    expect![[r#"
        warning: a.yaml:4:20: steps[1].drop.when: steps[0] renames `msg` to `message`
          4 |   - drop: { when: 'msg == "x" || debug.level == 3 || message == "y" || class == 5' }
            |                    ^
          a step reads records as the steps before it left them
          help: move this step before steps[0]
        warning: a.yaml:4:34: steps[1].drop.when: steps[0] removes `debug.level`
          4 |   - drop: { when: 'msg == "x" || debug.level == 3 || message == "y" || class == 5' }
            |                                  ^
          a step reads records as the steps before it left them
          help: move this step before steps[0]
    "#]]
    .assert_eq(&warnings(
        r#"sources: { in: { stdin: {} } }
steps:
  - shape: { rename: { msg: message }, remove: [debug], set: { class: { expr: 'status / 100' } } }
  - drop: { when: 'msg == "x" || debug.level == 3 || message == "y" || class == 5' }
sinks: { out: { stdout: {} } }
"#,
    ));
}

#[test]
fn configs_without_a_slip_have_no_warning() {
    for name in ["quickstart", "node", "kubernetes", "sampling", "requests", "stdin", "gateway", "bench", "bench-tail"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(format!("{name}.yaml"));
        let loaded = load(&[path], &|_| Some("value".into())).map_err(|report| report.to_string()).unwrap();
        assert!(loaded[0].warnings.is_empty(), "{name}: {}", Warning(&loaded[0].warnings[0]));
    }
    let fine = r#"sources: { in: { stdin: {} } }
steps:
  - drop: { when: 'mode == "test" || tokens_in > tokens_out || zone_a == zone_b || shard1 == "x" || shard2 == "y" || frob == 1' }
  - drop: { when: 'kubernetes.labels.tennant == "x" || user.plan == "y" || request_ip == "z"' }
sinks: { out: { stdout: {} } }
"#;
    assert_eq!(warnings(fine), "");
}
