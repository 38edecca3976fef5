//! `weir test FILE...`: the tests that pipeline files hold.
//!
//! In: pipeline files. Out: for each test whether the lines it gives became the records, verdicts and facts it expects, and if not,
//! what is different. Each test starts with steps that remember nothing. Exit 0 if all hold, 2 if one does not.

use super::{Mistake, check, say};
use crate::config::model::{ExpectConfig, FactConfig, TestConfig};
use crate::config::{self, Loaded};
use crate::plan;
use crate::runtime::trial::{self, Row, Trial, Used};
use flow::fields::Kind;
use flow::meter::KEY_SEPARATOR;
use flow::time::TimeParser;
use flow::units::UnixNanos;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// When lines arrive if a test does not say it: 2026-01-01T00:00:00Z.
const ARRIVAL: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

pub fn run(files: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(files, &|name| std::env::var(name).ok()) {
        Ok(loaded) => loaded,
        Err(report) => return Ok(check::refuse(&report, json)),
    };
    let mut told = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for loaded in &loaded {
        for test in &loaded.config.tests {
            let differences = differences(loaded, test)?;
            if differences.is_empty() {
                passed += 1
            } else {
                failed += 1
            }
            told.push((loaded.path.display().to_string(), test.name.clone(), differences));
        }
    }
    if passed + failed == 0 {
        return Err(Mistake("these files hold no tests; write them under `tests`, as in pipelines/nginx.yaml".into()).into());
    }
    say(&if json { as_json(&told, passed, failed) } else { as_text(&told, passed, failed) })?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

type Told = (String, String, Vec<String>);

fn as_text(told: &[Told], passed: u64, failed: u64) -> String {
    let mut out = String::new();
    for (file, name, differences) in told {
        let word = if differences.is_empty() { "ok    " } else { "FAILED" };
        out.push_str(&format!("{word} {file}: {name}\n"));
        differences.iter().flat_map(|text| text.lines()).for_each(|line| out.push_str(&format!("       {line}\n")));
    }
    out + &format!("{passed} passed, {failed} failed\n")
}

fn as_json(told: &[Told], passed: u64, failed: u64) -> String {
    let tests: Vec<Value> =
        told.iter().map(|(file, name, differences)| json!({ "file": file, "name": name, "differences": differences })).collect();
    format!("{}\n", json!({ "passed": passed, "failed": failed, "tests": tests }))
}

/// What is not as a test expects.
fn differences(loaded: &Loaded, test: &TestConfig) -> anyhow::Result<Vec<String>> {
    let config = &loaded.config;
    let card = loaded.rates.as_ref().map(|rates| &rates.card);
    let plan = plan::compile(&loaded.name, config, &config.data, card)?;
    // The config was checked: a name that is not there has been told.
    let source = match &test.source {
        Some(name) => plan.sources.iter().find(|source| source.name == *name),
        None => plan.sources.first(),
    };
    let source = source.ok_or_else(|| Mistake(format!("the test `{}` names no source of the pipeline", test.name)))?;
    let now = test.at.as_ref().and_then(|at| TimeParser::new().parse(at.as_bytes(), Kind::Text)).unwrap_or(ARRIVAL);
    let sinks: Vec<String> = config.sinks.keys().cloned().collect();
    // Without a time of its own a test says nothing of what is of the future.
    let receipt = test.at.as_ref().map(|_| now);
    let trial = trial::run(&plan, source, test.input.as_bytes(), now, receipt, &sinks);
    Ok(compare(&test.expect, &trial))
}

fn compare(expect: &ExpectConfig, trial: &Trial) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(verdicts) = &expect.verdicts {
        let got: Vec<&str> = trial.records.iter().map(|record| record.verdict).collect();
        if *verdicts != got {
            out.push(lists("verdicts", verdicts, &got));
        }
    }
    if let Some(notes) = &expect.notes {
        let got: Vec<String> = trial.records.iter().map(|record| record.notes.join(" ")).collect();
        if *notes != got {
            out.push(lists("notes", notes, &got));
        }
    }
    if let Some(records) = &expect.records {
        compare_records(records, &trial.rows, &mut out);
    }
    if let Some(sinks) = &expect.sinks {
        let names = |list: &[String]| format!("[{}]", list.join(", "));
        let want: Vec<String> = sinks.iter().map(|list| names(list)).collect();
        let got: Vec<String> = trial.rows.iter().map(|row| names(&row.sinks)).collect();
        if want != got {
            out.push(lists("sinks", &want, &got));
        }
    }
    if let Some(tenants) = &expect.tenants {
        let got: Vec<String> = trial.rows.iter().map(|row| String::from_utf8_lossy(&row.tenant).into_owned()).collect();
        if *tenants != got {
            out.push(lists("tenants", tenants, &got));
        }
    }
    if let Some(times) = &expect.times {
        let got: Vec<String> = trial.rows.iter().map(|row| row.time.rfc3339()).collect();
        if *times != got {
            out.push(lists("times", times, &got));
        }
    }
    if let Some(facts) = &expect.facts {
        compare_facts(facts, &trial.facts, &mut out);
    }
    out
}

/// Two lists side by side, where they differ.
fn lists<A: AsRef<str>, B: AsRef<str>>(what: &str, want: &[A], got: &[B]) -> String {
    let mut out = format!("{what}: {} expected, {} came\n", want.len(), got.len());
    for i in 0..want.len().max(got.len()) {
        let (want, got) = (want.get(i).map(A::as_ref), got.get(i).map(B::as_ref));
        if want != got {
            let shown = |text: Option<&str>| text.map_or("nothing".to_string(), |text| format!("`{text}`"));
            out.push_str(&format!("  {}: expected {}, came {}\n", i + 1, shown(want), shown(got)));
        }
    }
    out
}

fn compare_records(want: &[Value], got: &[Row], out: &mut Vec<String>) {
    let mut told = String::new();
    for i in 0..want.len().max(got.len()) {
        let row = got.get(i).map(|row| record(&row.bytes));
        let changes = match (want.get(i), &row) {
            (Some(want), Some(got)) if want == got => continue,
            (Some(want @ Value::Object(_)), Some(got @ Value::Object(_))) => members(want, got),
            (Some(want), Some(got)) => format!("  - {want}\n  + {got}\n"),
            (Some(want), None) => format!("  - {want}\n"),
            (None, Some(got)) => format!("  + {got}\n"),
            (None, None) => continue,
        };
        told.push_str(&format!("record {}:\n{changes}", i + 1));
    }
    if !told.is_empty() {
        out.push(format!("records: {} expected, {} came; - is expected, + is what came\n{told}", want.len(), got.len()));
    }
}

/// A record as its reader sees it: an object, or a line of text.
fn record(bytes: &[u8]) -> Value {
    match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => value,
        _ => Value::String(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// The members in which two objects differ, by path.
fn members(want: &Value, got: &Value) -> String {
    let (mut flat_want, mut flat_got) = (BTreeMap::new(), BTreeMap::new());
    flatten("", want, &mut flat_want);
    flatten("", got, &mut flat_got);
    let mut out = String::new();
    for (path, value) in &flat_want {
        if flat_got.get(path) != Some(value) {
            out.push_str(&format!("  - {path}: {value}\n"));
            flat_got.get(path).iter().for_each(|value| out.push_str(&format!("  + {path}: {value}\n")));
        }
    }
    for (path, value) in flat_got.iter().filter(|(path, _)| !flat_want.contains_key(*path)) {
        out.push_str(&format!("  + {path}: {value}\n"));
    }
    out
}

fn flatten<'a>(path: &str, value: &'a Value, out: &mut BTreeMap<String, &'a Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            let dot = if path.is_empty() { "" } else { "." };
            members.iter().for_each(|(name, value)| flatten(&format!("{path}{dot}{name}"), value, out));
        }
        _ => drop(out.insert(path.to_string(), value)),
    }
}

/// What is expected one by one is found first; the rest is added up. Refused facts that nobody expects are no difference: notes tell them.
fn compare_facts(want: &[FactConfig], got: &[Used], out: &mut Vec<String>) {
    let is_single = |want: &&FactConfig| want.kind.is_some() || want.at.is_some() || want.end.is_some() || want.key.is_some();
    let mut left: Vec<&Used> = got.iter().collect();
    let mut told = String::new();
    for want in want.iter().filter(is_single) {
        match left.iter().position(|got| is_event(want, got)) {
            Some(at) => drop(left.remove(at)),
            None => told.push_str(&format!("  - {}\n", wanted(want))),
        }
    }
    let is_refused = |used: &Used| used.event.as_ref().is_some_and(|event| event.kind.is_refused());
    let sums: Vec<&FactConfig> = want.iter().filter(|want| !is_single(want)).collect();
    for want in &sums {
        let own: Vec<&Used> = left.iter().copied().filter(|got| !is_refused(got) && is_of(want, got)).collect();
        let quantity = own.iter().fold(0i128, |sum, used| sum.saturating_add(used.quantity));
        let events = own.iter().map(|used| used.events).sum::<u64>();
        let is_met = !own.is_empty() && quantity == i128::from(want.quantity) && want.events.is_none_or(|want| want == events);
        if !is_met {
            told.push_str(&format!("  - {}\n", wanted(want)));
            if let Some(first) = own.first() {
                told.push_str(&format!("  + {}\n", fact(&Used { quantity, events, event: None, ..(*first).clone() })));
            }
        }
    }
    for got in left {
        if !is_refused(got) && !sums.iter().any(|want| is_of(want, got)) {
            told.push_str(&format!("  + {}\n", fact(got)));
        }
    }
    if !told.is_empty() {
        out.push(format!("facts: - is expected, + is what came\n{told}"));
    }
}

fn is_of(want: &FactConfig, got: &Used) -> bool {
    (&got.meter, &got.tenant, &got.by) == (&want.meter, &want.tenant, &want.by)
}

fn is_event(want: &FactConfig, got: &Used) -> bool {
    let Some(event) = &got.event else { return false };
    let says = |want: &Option<String>, got: &str| want.as_ref().is_none_or(|want| want == got);
    let time = |want: &Option<String>, got: UnixNanos| {
        let read = |text: &String| TimeParser::new().parse(text.as_bytes(), Kind::Text);
        want.as_ref().is_none_or(|want| read(want) == Some(got))
    };
    is_of(want, got)
        && got.quantity == i128::from(want.quantity)
        && want.events.is_none_or(|want| want == got.events)
        && says(&want.kind, event.kind.name())
        && says(&want.key, &key_text(&event.key))
        && time(&want.at, event.at)
        && time(&want.end, event.end)
}

fn key_text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace(char::from(KEY_SEPARATOR), "|")
}

fn wanted(want: &FactConfig) -> String {
    let by: String = want.by.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let events = want.events.map_or(String::new(), |events| format!(" in {events} events"));
    let one = [("", &want.kind), ("at ", &want.at), ("end ", &want.end), ("key ", &want.key)];
    let one: String = one.iter().filter_map(|(name, value)| Some(format!(", {name}{}", value.as_ref()?))).collect();
    format!("{} of {}{by}: {}{events}{one}", want.meter, want.tenant, want.quantity)
}

fn fact(fact: &Used) -> String {
    let by: String = fact.by.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let events = if fact.events > 0 { format!(" in {} events", fact.events) } else { String::new() };
    let one = fact.event.as_ref().map_or(String::new(), |event| {
        let end = if event.end == event.at { String::new() } else { format!(", end {}", event.end.rfc3339()) };
        format!(", {}, at {}{end}, key {}", event.kind.name(), event.at.rfc3339(), key_text(&event.key))
    });
    format!("{} of {}{by}: {}{events}{one}", fact.meter, fact.tenant, fact.quantity)
}
