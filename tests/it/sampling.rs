//! Sampling and quotas in the whole program: what was left out can be restored from what is stored, to the record.
//!
//! The oracle counts the input and adds up `sample_rate` in the stored lines; it knows nothing of how either came about.

use crate::harness::{Place, wait_until};
use crate::input::{Dice, assert_same_lines};
use crate::stores::archive_lines;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;

const LINES: usize = 60_000;
const TENANTS: u64 = 40;

/// What each tenant and level had.
type Sums = BTreeMap<(String, String), u64>;

fn key(record: &Value) -> (String, String) {
    let text = |name: &str| record[name].as_str().unwrap_or("none").to_string();
    (text("tenant"), text("level"))
}

/// Lines of many tenants, three of four records from one of them; now and then the clock jumps.
fn input(seed: u64, count: usize) -> Vec<String> {
    let mut dice = Dice(seed);
    let mut ms = 0;
    let line = |n: usize| {
        ms += [0, 0, 1, 7, 900][dice.roll(5) as usize];
        let tenant = if dice.roll(4) == 0 { dice.roll(TENANTS) } else { 0 };
        let level = ["debug", "info", "info", "info", "warn", "error"][dice.roll(6) as usize];
        let (h, m, s) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1_000 % 60);
        let ts = format!("2026-11-20T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1_000);
        let (msg, rate) = (dice.roll(12), if dice.roll(50) == 0 { ",\"sample_rate\":5" } else { "" });
        format!(
            "{{\"ts\":\"{ts}\",\"level\":\"{level}\",\"tenant\":\"t{tenant}\",\"msg\":\"m{msg}\",\"n\":{n},\"request_id\":\"r{}\"{rate}}}\n",
            n / 3
        )
    };
    (0..count).map(line).collect()
}

fn sums<'a>(lines: impl IntoIterator<Item = &'a [u8]>, levels: &[&str]) -> Sums {
    let mut sums = Sums::new();
    for line in lines {
        let record: Value = serde_json::from_slice(line).expect("JSON");
        let key = key(&record);
        if levels.contains(&key.1.as_str()) && record["weir.summary"] != "seen" {
            *sums.entry(key).or_default() += record["sample_rate"].as_u64().unwrap_or(1);
        }
    }
    sums
}

fn seen<'a>(lines: impl IntoIterator<Item = &'a [u8]>, level: &str) -> Sums {
    let mut sums = Sums::new();
    for line in lines {
        let record: Value = serde_json::from_slice(line).expect("JSON");
        if record["level"] == level && record["weir.summary"] == "seen" {
            *sums.entry(key(&record)).or_default() += record["seen"].as_u64().expect("a number");
        }
    }
    sums
}

const PIPELINE: &str = r#"
lanes: 2
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: lines }
  - sample:
      levels:
        info: { first: 3, thereafter: 10, tick: 1s }
        warn: { ratio: 0.3 }
        debug: { ratio: 0.3, key: request_id }
sinks:
  files: { archive: { path: "{tenant}.log" } }
  store: { lake: {} }
rates: rates.yaml
"#;

#[track_caller]
fn assert_restored(place: &Place, input: &[String]) {
    let stored = archive_lines(&place.data(), "files");
    assert_same_lines("the lake against the archive", &place.search(""), &stored);
    let stored = || stored.iter().map(Vec::as_slice);
    let input = || input.iter().map(|line| line.as_bytes());
    let exact = ["info", "warn", "error"];
    assert_eq!(sums(stored(), &exact), sums(input(), &exact), "weights of kept records and summaries");
    assert_eq!(seen(stored(), "debug"), sums(input(), &["debug"]), "what a sampler by key saw");
    let ledger = place.recount();
    assert_eq!((ledger.difference("files"), ledger.difference("store"), ledger.residual()), (0, 0, 0));
    assert_eq!(ledger.received(), input().count() as u64);
    assert_eq!(ledger.received() + ledger.created(), ledger.kept() + ledger.dropped()["sampled"]);
    assert!(ledger.created() > 0 && ledger.kept() < ledger.received(), "nothing was sampled");
    let report = place.ask(&["cost", "report"]);
    let events: u64 = report["usage"].as_array().expect("rows").iter().map(|row| row["events"].as_u64().expect("a count")).sum();
    assert_eq!(events, ledger.received(), "a summary is on nobody's bill, a sampled record is");
}

#[test]
fn eb_1_3_what_was_sampled_is_restored_from_what_is_stored() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let input = input(11, LINES);
    for (n, lines) in input.chunks(LINES / 3).enumerate() {
        place.write(&format!("in/{n}.log"), lines.concat());
    }
    place.once();
    assert_restored(&place, &input);
}

#[test]
fn eb_1_3_sums_are_exact_after_kill_9_in_two_lanes() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let input = input(12, LINES);
    let mut dice = Dice(12);
    let mut written = 0;
    let mut running = place.start();
    for piece in input.chunks(LINES / 6) {
        for (n, lines) in piece.chunks(piece.len().div_ceil(4)).enumerate() {
            place.append(&format!("in/{n}.log"), lines.concat());
        }
        // Killed while it works on this piece, or on the end of the one before.
        let some = written + dice.roll(piece.len() as u64);
        place.wait_received(&mut running, some);
        written += piece.len() as u64;
        running.signal(Signal::KILL);
        running.wait();
        running = place.start();
    }
    place.wait_received(&mut running, written);
    running.signal(Signal::KILL);
    running.wait();
    // One lane takes over what two of them owe.
    place.once();
    assert_restored(&place, &input);
}

#[test]
fn a_window_ends_without_traffic() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let line = "{\"level\":\"info\",\"tenant\":\"a\",\"msg\":\"same\"}\n";
    place.write("in/a.log", line.repeat(8));
    let mut running = place.start();
    place.wait_received(&mut running, 8);
    wait_until("the summary", || place.search("").iter().any(|line| String::from_utf8_lossy(line).contains("weir.summary")));
    let stored = place.search("");
    assert_eq!(stored.len(), 4, "three kept, five in a summary");
    assert_eq!(sums(stored.iter().map(Vec::as_slice), &["info"]).into_values().sum::<u64>(), 8);
    running.stop();
    assert_eq!(place.ledger().created(), 1, "told once");
}

const QUOTA: &str = r#"
lanes: 2
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: lines }
  - quota: { records_per_minute: 50, bytes_per_month: 1MiB, over: OVER }
  - sample: { levels: { warn: { throughput: 5, by: [msg] }, info: { first: 5, thereafter: 3, tick: 1s, exact_keys: true, per_tenant: true } } }
sinks:
  files: { archive: { path: "{tenant}.log" } }
  store: { lake: {} }
rates: rates.yaml
"#;

#[test]
fn quotas_hold_for_each_tenant_and_what_is_over_them_is_restored_and_billed() {
    for over in ["drop", "{ sample: 0.05 }"] {
        let place = Place::new();
        place.pipeline(&QUOTA.replace("OVER", over));
        let input = input(21, 20_000);
        place.write("in/a.log", input.concat());
        place.once();
        let stored = archive_lines(&place.data(), "files");
        assert_same_lines("the lake against the archive", &place.search(""), &stored);
        let every = ["debug", "info", "warn", "error"];
        let lines = || input.iter().map(|line| line.as_bytes());
        assert_eq!(sums(stored.iter().map(Vec::as_slice), &every), sums(lines(), &every), "{over}");
        let ledger = place.recount();
        assert_eq!((ledger.difference("files"), ledger.difference("store"), ledger.residual()), (0, 0, 0));
        assert!(ledger.dropped()["over_quota"] > 0 && ledger.dropped()["sampled"] > 0, "{:?}", ledger.dropped());
        let report = place.ask(&["cost", "report"]);
        let events: u64 = report["usage"].as_array().expect("rows").iter().map(|row| row["events"].as_u64().expect("a count")).sum();
        assert_eq!(events, 20_000);
        if over == "drop" {
            // By tenant and minute of event time: records kept whole, each counted as many as it stood for when it came.
            let mut kept: BTreeMap<(String, String), u64> = BTreeMap::new();
            let rates: BTreeMap<u64, u64> = input
                .iter()
                .map(|l| serde_json::from_str::<Value>(l).expect("JSON"))
                .map(|r| (r["n"].as_u64().expect("n"), r["sample_rate"].as_u64().unwrap_or(1)))
                .collect();
            for line in &stored {
                let record: Value = serde_json::from_slice(line).expect("JSON");
                if let Some(n) = record["n"].as_u64() {
                    let minute = record["ts"].as_str().expect("a time")[..16].to_string();
                    *kept.entry((key(&record).0, minute)).or_default() += rates[&n];
                }
            }
            assert!(kept.values().all(|n| *n <= 50), "{:?}", kept.iter().find(|k| *k.1 > 50));
            let quiet = |sums: Sums| -> u64 { sums.iter().filter(|(k, _)| k.0 != "t0").map(|(_, n)| n).sum() };
            assert!(quiet(sums(stored.iter().map(Vec::as_slice), &every)) > 0);
        }
    }
}

#[test]
fn a_quota_goes_on_after_kill_9_where_it_was() {
    let place = Place::new();
    place.pipeline("sources: { in: { file: { include: [\"$DIR/in/*.log\"] } } }\ntenancy: { from: [tenant] }\nsteps: [{ quota: { records_per_day: 100 } }]\nsinks: { files: { archive: { path: \"{tenant}.log\" } } }\n");
    let line = |n: usize| format!("{{\"ts\":\"2026-11-20T10:00:00Z\",\"level\":\"info\",\"tenant\":\"a\",\"n\":{n}}}\n");
    let mut running = place.start();
    for run in 0..5 {
        place.append("in/a.log", (run * 40..run * 40 + 40).map(line).collect::<String>());
        place.wait_received(&mut running, (run as u64 + 1) * 40);
        running.signal(Signal::KILL);
        running.wait();
        running = place.start();
    }
    running.signal(Signal::KILL);
    running.wait();
    place.once();
    let stored = archive_lines(&place.data(), "files");
    let kept = stored.iter().filter(|line| !String::from_utf8_lossy(line).contains("weir.summary")).count();
    assert_eq!((kept, sums(stored.iter().map(Vec::as_slice), &["info"]).into_values().sum::<u64>()), (100, 200));
}
