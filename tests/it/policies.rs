//! Sampler, quota and deduplication together, over many records: what was left out can be restored and looked up, and the bill
//! does not change.
//!
//! The oracle is the generator: it adds up what it writes, and knows nothing of how policies decide. `SLOW=1` takes 10 million
//! records.

use crate::harness::Place;
use crate::input::Dice;
use crate::stores::archive_lines;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;

const LEVELS: [&str; 5] = ["debug", "info", "info", "warn", "error"];
const TENANTS: u64 = 100;

const PIPELINE: &str = r#"
lanes: 2
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps:
  - dedup: { key: [request_id], window: 1d, keys_max: 12000000 }
  - meter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service] }
  - sample: { levels: { error: all, warn: all, info: { first: 1000, thereafter: 100, tick: 1s }, debug: { first: 1000, thereafter: 100, tick: 1s } } }
  - quota: { bytes_per_minute: 256KiB, over: drop }
memory: 2GiB
sinks: { files: { archive: { path: "{tenant}.log" } }, store: { lake: {} } }
rates: rates.yaml
"#;

/// What was written, copies left out.
#[derive(Default)]
struct Written {
    /// By tenant and level.
    records: BTreeMap<(String, String), u64>,
    tokens: BTreeMap<String, u64>,
    copies: u64,
}

fn write_input(place: &Place, seed: u64, count: u64) -> Written {
    let mut dice = Dice(seed);
    let mut written = Written::default();
    std::fs::create_dir_all(place.path("in")).expect("folder made");
    let mut files: Vec<_> =
        (0..4).map(|n| std::io::BufWriter::new(std::fs::File::create(place.path(&format!("in/{n}.log"))).expect("file made"))).collect();
    let mut recent: Vec<String> = Vec::new();
    for n in 0..count {
        let second = n / 20_000;
        // A copy comes in the same log, a little later.
        let file = (n % 4) as usize;
        if !recent.is_empty() && dice.roll(50) == 0 {
            let copy = &recent[dice.roll(recent.len() as u64) as usize];
            files[copy.len() % 4].write_all(copy.as_bytes()).expect("written");
            written.copies += 1;
            continue;
        }
        // One tenant has most of it.
        let tenant = if dice.roll(3) == 0 { format!("t{}", dice.roll(TENANTS)) } else { "t0".to_string() };
        let level = LEVELS[dice.roll(5) as usize];
        let (tokens, msg) = (dice.roll(5_000), dice.roll(3));
        let line = format!(
            "{{\"ts\":\"2026-11-20T{:02}:{:02}:{:02}.{:03}Z\",\"level\":\"{level}\",\"tenant\":\"{tenant}\",\"service\":\"s{}\",\"msg\":\"message {msg}\",\"tokens_out\":{tokens},\"request_id\":\"{n:016x}\"}}\n",
            second / 3_600,
            second / 60 % 60,
            second % 60,
            n % 20_000 / 20,
            msg % 4
        );
        files[file].write_all(line.as_bytes()).expect("written");
        *written.records.entry((tenant.clone(), level.to_string())).or_default() += 1;
        *written.tokens.entry(tenant).or_default() += tokens;
        if n % 97 == 0 {
            recent.push(line);
            if recent.len() > 100 {
                recent.remove(0);
            }
        }
    }
    files.iter_mut().for_each(|file| file.flush().expect("written"));
    written
}

#[test]
fn weights_and_summaries_are_the_input_and_the_bill_is_whole() {
    let count = if std::env::var_os("SLOW").is_some() { 10_000_000 } else { 300_000 };
    let place = Place::new();
    place.pipeline(PIPELINE);
    let written = write_input(&place, 31, count);
    place.once();

    let mut restored: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut stored = 0;
    for line in archive_lines(&place.data(), "files") {
        let record: Value = serde_json::from_slice(&line).expect("JSON");
        let text = |name: &str| record[name].as_str().expect("a text").to_string();
        *restored.entry((text("tenant"), text("level"))).or_default() += record["sample_rate"].as_u64().unwrap_or(1);
        stored += 1;
    }
    assert_eq!(restored, written.records, "weights of kept records and summaries, by tenant and level");

    let ledger = place.recount();
    assert_eq!((ledger.difference("files"), ledger.difference("store"), ledger.residual()), (0, 0, 0));
    assert_eq!(ledger.received(), count);
    let dropped = ledger.dropped();
    assert_eq!(dropped.keys().map(String::as_str).collect::<Vec<_>>(), ["duplicate", "over_quota", "sampled"]);
    assert_eq!(dropped["duplicate"], written.copies);
    assert_eq!(ledger.received() + ledger.created(), ledger.kept() + dropped.values().sum::<u64>());
    assert_eq!(ledger.kept(), stored);
    for reason in dropped.keys() {
        let examples = place.run(&["ledger", "examples", "--reason", reason, "--json"]).good().text();
        assert!(examples.contains("request_id"), "no example of {reason}: {examples}");
    }

    let report = place.ask(&["cost", "report"]);
    let mut billed: BTreeMap<String, u64> = BTreeMap::new();
    for row in report["usage"].as_array().expect("rows") {
        let quantity = row["quantity"].as_str().map_or_else(|| row["quantity"].as_u64(), |q| q.parse().ok()).expect("a quantity");
        *billed.entry(row["tenant"].as_str().expect("a tenant").to_string()).or_default() += quantity;
    }
    assert_eq!(billed, written.tokens, "sampled or over quota, it is billed; copies are not");
}
