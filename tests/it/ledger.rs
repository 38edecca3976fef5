//! `weir ledger` of one tenant and since a time, and examples of what was dropped, while the program runs and after it.

use crate::harness::{Place, files_below};
use crate::input::platform;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
steps: [{ drop: { when: 'level == "warn"' } }, { sample: { levels: { debug: none } } }]
sinks: { files: { archive: { path: "{tenant}/lines.log", commit: { interval: 20ms } } } }
"#;

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).expect("the input is JSON")
}

/// The examples as `weir ledger examples` tells them, each held against the input: it is that very record, at that position.
#[track_caller]
fn examples(place: &Place, input: &str, args: &[&str]) -> Vec<Value> {
    let done = place.run(&[&["ledger", "examples", "--json"], args].concat()).good();
    let found: Vec<Value> = done.text().lines().map(parsed).collect();
    for example in &found {
        let end = example["position"].as_u64().expect("a number") as usize;
        let line = input[..end].trim_end_matches('\n').rsplit('\n').next().expect("a line");
        let (text, bytes) = (example["line"].as_str().expect("text"), example["bytes"].as_u64().expect("a number") as usize);
        assert!(line.starts_with(text) && line.len() == bytes && text.len() == bytes.min(256), "{example}\nis not {line}");
        assert_eq!(example["is_cut"], json!(bytes > 256), "{example}");
        let record = parsed(line);
        assert_eq!(record["tenant"], example["tenant"]);
        let reason = if record["level"] == "warn" { "filtered" } else { "sampled" };
        assert_eq!(reason, example["reason"], "{record}");
    }
    found
}

#[test]
fn examples_of_what_was_dropped_are_found_by_reason_and_tenant_while_it_runs_and_after() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let input = platform(71, 3000).concat();
    place.append("in/a.log", &input);
    let mut running = place.start();
    place.wait_received(&mut running, 3000);
    let all = examples(&place, &input, &[]);
    let sampled = examples(&place, &input, &["--reason", "sampled"]);
    let filtered = examples(&place, &input, &["--reason", "filtered"]);
    assert!(!sampled.is_empty() && !filtered.is_empty() && sampled.len() + filtered.len() == all.len());
    let mut rings: BTreeMap<(String, String), usize> = BTreeMap::new();
    for example in &all {
        *rings.entry((example["tenant"].to_string(), example["reason"].to_string())).or_default() += 1;
    }
    assert!(rings.len() > 8 && rings.values().all(|n| *n <= 5), "{rings:?}");
    let tenant = sampled[0]["tenant"].as_str().expect("text").to_string();
    let of_one = examples(&place, &input, &["--reason", "sampled", "--tenant", &tenant]);
    assert_eq!(of_one, sampled.iter().filter(|e| e["tenant"] == tenant.as_str()).cloned().collect::<Vec<_>>());
    let unknown = place.run(&["ledger", "examples", "--reason", "smapled"]).exits(2);
    assert!(unknown.stderr.contains("the reasons are") && unknown.stderr.contains("sampled"), "{}", unknown.stderr);
    running.stop();
    assert_eq!(examples(&place, &input, &[]), all, "they outlive the process");
    let text = place.run(&["ledger", "examples", "--tenant", &tenant]).good();
    assert!(text.text().lines().all(|line| line.contains(&tenant)) && text.text().lines().count() > 0);
    let again = place.start();
    crate::harness::wait_until("it answers", || again.stderr().contains("ready"));
    assert_eq!(examples(&place, &input, &[]), all, "and the next one knows them");
    again.stop();
}

#[test]
fn the_ledger_of_one_tenant_is_its_part_of_the_whole() {
    let place = Place::new();
    // A counter that keeps next to nothing creates a summary for each tenant.
    place.pipeline(&PIPELINE.replace("debug: none", "debug: { first: 1, thereafter: 0, tick: 1d }"));
    place.append("in/a.log", platform(72, 2000).concat());
    place.once();
    let whole = place.ask(&["ledger"]);
    let whole = whole["pipelines"].as_object().expect("pipelines").values().next().expect("one").clone();
    let tenants = whole["tenants"].as_object().expect("tenants");
    assert!(tenants.len() > 3 && whole["created"]["records"].as_u64() > Some(0), "{whole}");
    for (tenant, totals) in tenants {
        let answer = place.ask(&["ledger", "--tenant", tenant]);
        let own = answer["pipelines"].as_object().expect("pipelines").values().next().expect("one");
        assert_eq!(own["tenants"], json!({ tenant: totals }));
        for (key, value) in totals.as_object().expect("totals") {
            assert!(whole[key].is_object(), "{key} is told of tenants and not of the whole");
            assert_eq!(own[key], *value, "{tenant}, {key}");
        }
        assert_eq!(own["sinks"]["files"]["delivered"], totals["kept"]);
        assert_eq!(answer["residual"], 0);
    }
    let text = place.run(&["ledger", "--tenant", tenants.keys().next().expect("one")]).good();
    assert!(!text.text().contains(tenants.keys().next_back().expect("one").as_str()), "{}", text.text());
    let unknown = place.run(&["ledger", "--tenant", "nobody"]).exits(2);
    assert!(unknown.stderr.contains("no tenant is called"), "{}", unknown.stderr);
}

#[test]
fn the_ledger_since_a_time_holds_what_came_since_and_the_law_holds_in_it() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let counts = |answer: &Value| {
        let pipeline = answer["pipelines"].as_object().expect("pipelines").values().next().expect("one").clone();
        let of = |v: &Value| v["records"].as_u64().expect("a count");
        let dropped: u64 = pipeline["dropped"].as_object().expect("reasons").values().map(of).sum();
        assert_eq!(of(&pipeline["received"]), of(&pipeline["kept"]) + dropped, "{pipeline}");
        (of(&pipeline["received"]), of(&pipeline["sinks"]["files"]["delivered"]), of(&pipeline["kept"]))
    };
    place.append("in/a.log", platform(73, 500).concat());
    let mut running = place.start();
    place.wait_ledger(&mut running, "all archived", |l| l.received() == 500 && l.sink("files", "buffered") == 0);
    running.stop();
    // The second run writes down what it found before it takes anything.
    let snapshots = || {
        let names = files_below(&place.data().join("history"));
        names.into_iter().filter(|name| name.extension().is_some_and(|e| e == "json")).collect::<Vec<_>>()
    };
    let before = snapshots();
    let mut running = place.start();
    crate::harness::wait_until("it has written down its totals", || snapshots().len() > before.len());
    let noted = snapshots().into_iter().next_back().expect("a snapshot");
    place.append("in/b.log", platform(74, 300).concat());
    let total = place.wait_ledger(&mut running, "all archived", |l| l.received() == 800 && l.sink("files", "buffered") == 0);
    let at_ms: i64 = noted.file_stem().and_then(|name| name.to_str()).expect("a name").parse().expect("milliseconds");
    // GNU date says what time that is.
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}.{:03}", at_ms / 1000, at_ms % 1000), "+%Y-%m-%dT%H:%M:%S.%3NZ"])
        .output();
    let since = String::from_utf8(output.expect("date runs").stdout).expect("text").trim().to_string();
    let answer = place.ask(&["ledger", "--since", &since]);
    let (received, delivered, kept) = counts(&answer);
    assert_eq!((received, delivered), (300, kept), "since {since}: {answer}");
    assert_eq!((answer["since"].as_str().map(|text| text.starts_with(&since[..19])), &answer["residual"]), (Some(true), &json!(0)));
    let all = place.ask(&["ledger", "--since", "2000-01-01T00:00:00Z"]);
    assert_eq!(counts(&all).0, total.received());
    running.stop();
    assert_eq!(counts(&place.ask(&["ledger", "--since", &since])).0, 300, "when nothing runs, too");
    place.run(&["ledger", "--since", "yesterday"]).exits(2);
}
