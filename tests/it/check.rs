//! `weir check`: every mistake at once, with file, line, caret and way out; and every shipped pipeline is good.

use crate::harness::{Place, finish, root, weir};

/// Five mistakes of five kinds: an unknown key, a ratio out of range, a condition, a word that is none, a template that climbs.
const WRONG: &str = r#"sources:
  pods: { file: { inclde: ["*.log"], include: ["*.log"] } }
steps:
  - sample: { levels: { info: { ratio: 15, key: request_id } } }
  - drop: { when: 'path === "/healthz"' }
sinks:
  files: { archive: { path: "../{tenant}.log" } }
  store: { lake: { seal: { age: 10 parsecs } } }
"#;

#[test]
fn five_mistakes_are_listed_at_once_with_line_and_caret_and_nothing_is_touched() {
    let place = Place::new();
    let file = place.pipeline(WRONG);
    for verb in ["check", "run"] {
        let mut command = weir();
        command.arg(verb).arg(&file);
        if verb == "run" {
            command.arg("--data").arg(place.data());
        }
        let done = finish(command).exits(2);
        for (line, word) in [(2, "inclde"), (4, "ratio"), (5, "==="), (7, "../{tenant}.log"), (8, "parsecs")] {
            let place = format!("pipeline.yaml:{line}:");
            assert!(done.stderr.contains(&place), "{verb} does not name line {line}:\n{}", done.stderr);
            assert!(done.stderr.contains(word), "{verb} does not name {word}:\n{}", done.stderr);
        }
        let carets = done.stderr.lines().filter(|l| l.trim_start_matches(['|', ' ']).starts_with('^')).count();
        assert!(carets >= 5, "{verb} shows {carets} carets:\n{}", done.stderr);
        assert!(done.stderr.matches("error:").count() >= 5, "{}", done.stderr);
        assert!(!place.data().exists(), "{verb} touched the data folder");
    }
}

#[test]
fn the_admin_port_is_loopback_only() {
    let place = Place::new();
    let text = "sources: { in: { stdin: {} } }\nsinks: { out: { stdout: {} } }\nadmin: { listen: \"$ADDRESS\" }\n";
    for (address, code) in [("0.0.0.0:9140", 2), ("[::]:9140", 2), ("192.0.2.1:9140", 2), ("127.0.0.1:9140", 0), ("[::1]:9140", 0)] {
        let file = place.pipeline(&text.replace("$ADDRESS", address));
        let mut command = weir();
        command.arg("check").arg(file);
        let done = finish(command).exits(code);
        assert!(code == 0 || done.stderr.contains("listen on 127.0.0.1"), "{address}: {}", done.stderr);
    }
}

#[test]
fn every_pipeline_that_is_shipped_checks_without_a_mistake() {
    let mut kinds = String::new();
    let mut files = 0;
    for entry in std::fs::read_dir(root().join("pipelines")).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.file_name().is_some_and(|name| ["rates.yaml", "gpu-rates.yaml"].iter().any(|rates| name == *rates)) || path.is_dir() {
            continue;
        }
        let mut command = weir();
        command.arg("check").arg(&path).env("NODE_NAME", "node-1").env("BENCH_INPUT", "input.log");
        let done = finish(command).good();
        assert!(done.text().contains("memory"), "no plan for {}: {}", path.display(), done.text());
        kinds += &std::fs::read_to_string(&path).expect("readable");
        files += 1;
    }
    assert!(files >= 4, "{files} pipelines");
    for component in [
        "file:",
        "stdin:",
        "format: json",
        "format: cri",
        "drop:",
        "keep:",
        "meter:",
        "sample:",
        "ratio:",
        "tail:",
        "first:",
        "weight:",
        "journal:",
        "memory: {",
        "stdout:",
        "archive:",
        "lake:",
        "otlp:",
        "remote_write:",
        "scrape:",
        "watch:",
        "prometheus:",
        "zstd",
        "gzip",
        "rates:",
        "lineage:",
        "admin:",
    ] {
        assert!(kinds.contains(component), "no file in pipelines/ shows {component}");
    }
}

#[test]
fn the_plan_says_which_records_each_meter_counts() {
    let mut command = weir();
    command.args(["check", "--json", "pipelines/quickstart.yaml"]);
    let plan = finish(command).good().json();
    let meter = &plan["pipelines"][0]["meters"][0];
    assert_eq!(meter["name"], "tokens_in", "{plan}");
    let counts = meter["counts"].to_string();
    assert!(counts.contains("kept") && counts.contains("sampled"), "{counts}");
    assert!(meter["never"].to_string().contains("filtered"), "{meter}");
}

#[test]
fn a_file_that_is_not_there_is_the_users_mistake() {
    let mut command = weir();
    command.args(["run", "--once", "no-such-file.yaml"]);
    let done = finish(command).exits(2);
    assert!(done.stderr.contains("no-such-file.yaml"), "{}", done.stderr);
}
