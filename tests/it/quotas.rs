//! Quotas in the whole program: logs that wait, also across `kill -9`, and limits in money held against prices by hand.
//!
//! In: a file per tenant. Out: how fast each was read, and that all of it is there once. What a record costs is computed here from
//! its JSON and four prices of the card; nothing is shared with the program.

use crate::harness::{Ledger, Place, Running, admin_address, http_get, metric, wait_until};
use crate::input::{assert_same_lines, assert_same_usage, platform, usage, usage_of_report};
use crate::stores::archive_lines;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const DELAY: &str = r#"
lanes: 2
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
steps: [{ quota: { $LIMIT, by: tenant, over: delay } }]
hub: { journal: { sync_interval: 5ms } }
sinks: { files: { archive: { path: "{tenant}.log", commit: { interval: 20ms } } } }
admin: { listen: "127.0.0.1:0" }
"#;
/// Lines of this many bytes, so that a chunk of 256 KiB has no more than so many.
const LINE_BYTES: usize = 1_000;
const CHUNK_LINES: u64 = 263;

fn lines(tenant: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            let start = format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"{tenant}\",\"n\":{n},\"pad\":\"");
            format!("{start}{}\"}}\n", "x".repeat(LINE_BYTES - start.len() - 3))
        })
        .collect()
}

fn received(ledger: &Ledger, tenant: &str) -> u64 {
    ledger.0["tenants"][tenant]["received"]["records"].as_u64().unwrap_or(0)
}

fn state(address: &str, file: &str) -> String {
    let sources: Value = serde_json::from_str(&http_get(address, "/api/sources").1).expect("JSON");
    let files = sources["sources"][0]["files"].as_array().expect("files").clone();
    let found = files.into_iter().find(|f| f["path"].as_str().is_some_and(|path| path.ends_with(file)));
    found.map_or(String::new(), |f| f["state"].as_str().expect("a state").to_string())
}

/// Before it is ready a question would wait for it, while logs are read already.
fn start(place: &Place) -> Running {
    let running = place.start();
    wait_until("it is ready", || running.stderr().contains("ready"));
    running
}

fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn a_log_over_its_quota_waits_and_no_other_does_also_after_kill_9() {
    const PER_SECOND: u64 = 1_000;
    let place = Place::new();
    place.pipeline(&DELAY.replace("$LIMIT", "records_per_second: 1000"));
    let (loud, calm) = (lines("loud", 8_000), lines("calm", 900));
    place.append("in/loud.log", loud.concat());
    place.append("in/calm.log", calm.concat());
    let started = second();
    // From any second on: what each second since allows, and at most one chunk more.
    let assert_in_quota = |ledger: &Ledger| {
        let (seen, allowed) = (received(ledger, "loud"), (second() - started + 1) * PER_SECOND + CHUNK_LINES);
        assert!(seen <= allowed, "{seen} records of `loud`, {allowed} allowed since");
    };
    let mut running = start(&place);
    let ledger = place.wait_ledger(&mut running, "all of `calm`", |ledger| {
        assert_in_quota(ledger);
        received(ledger, "calm") == calm.len() as u64
    });
    assert!(received(&ledger, "loud") < loud.len() as u64, "`calm` waited for `loud`: {}", ledger.0);
    let address = admin_address(&running);
    wait_until("the loud log rests", || state(&address, "loud.log") == "delayed");
    assert_eq!(http_get(&address, "/readyz").0, 200);
    for at in [3_000, 5_000] {
        place.wait_ledger(&mut running, "some of `loud`", |ledger| {
            assert_in_quota(ledger);
            received(ledger, "loud") >= at
        });
        running.child().kill().expect("it runs");
        running.wait();
        running = start(&place);
    }
    place.wait_ledger(&mut running, "all of `loud`", |ledger| {
        assert_in_quota(ledger);
        received(ledger, "loud") == loud.len() as u64
    });
    running.stop();
    let want: Vec<Vec<u8>> = loud.iter().chain(&calm).map(|line| line.trim_end().as_bytes().to_vec()).collect();
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &want);
    let ledger = place.recount();
    assert_eq!((ledger.difference("files"), ledger.residual(), ledger.kept()), (0, 0, want.len() as u64));
}

#[test]
fn a_log_rests_for_the_day_through_restarts_until_the_config_is_another() {
    let place = Place::new();
    place.pipeline(&DELAY.replace("$LIMIT", "records_per_month: 10"));
    let loud = lines("loud", 2_000);
    place.append("in/loud.log", loud.concat());
    let mut taken = 0;
    for run in 1..=3u64 {
        let mut running = start(&place);
        if run == 1 {
            place.wait_ledger(&mut running, "a chunk of `loud`", |ledger| received(ledger, "loud") > 0);
        }
        // Something else is read meanwhile, so it had its turns.
        place.append("in/calm.log", lines("calm", 3).concat());
        let ledger = place.wait_ledger(&mut running, "`calm`", |ledger| received(ledger, "calm") == 3 * run);
        let address = admin_address(&running);
        wait_until("the loud log rests", || state(&address, "loud.log") == "delayed");
        taken = received(&ledger, "loud");
        assert!((10..=CHUNK_LINES).contains(&taken), "run {run}: {taken} records, one chunk is {CHUNK_LINES}");
        assert_eq!((http_get(&address, "/livez").0, http_get(&address, "/readyz").0), (200, 200), "it has nothing to do");
        let (_, page) = http_get(&address, "/metrics");
        assert_eq!(metric(&page, "weir_source_files", "state=\"delayed\""), 1, "{page}");
        let since = Instant::now();
        running.stop();
        assert!(since.elapsed().as_secs() < 20, "a drain waits for nobody who rests");
    }
    place.pipeline(&DELAY.replace("$LIMIT", "records_per_month: 1000000"));
    let mut running = start(&place);
    place.wait_ledger(&mut running, "the rest of `loud`", |ledger| received(ledger, "loud") == loud.len() as u64);
    running.stop();
    assert!(taken < loud.len() as u64);
    assert_eq!((place.recount().difference("files"), place.ledger().residual()), (0, 0));
}

#[test]
fn once_never_waits_and_what_is_rotated_away_meanwhile_is_read_in_its_turn() {
    let place = Place::new();
    place.pipeline(&DELAY.replace("$LIMIT", "records_per_second: 500"));
    let (old, new) = (lines("t", 1_200), lines("t", 300));
    place.append("in/a.log", old.concat());
    let mut running = start(&place);
    place.wait_ledger(&mut running, "a chunk", |ledger| received(ledger, "t") > 0);
    std::fs::rename(place.path("in/a.log"), place.path("in/a.log.1")).expect("renamed");
    place.append("in/a.log", new.concat());
    place.wait_ledger(&mut running, "both files", |ledger| received(ledger, "t") == 1_500);
    running.stop();
    place.append("in/a.log", lines("t", 20_000).concat());
    let since = Instant::now();
    place.once();
    assert!(since.elapsed().as_secs() < 30, "40 s of quota");
    let ledger = place.recount();
    assert_eq!((ledger.received(), ledger.difference("files"), ledger.residual()), (21_500, 0, 0));
}

/// 10^-12 USD for a token: in, cached, out.
fn prices(model: &str) -> [i128; 3] {
    match model {
        "orca-8b-it" => [100_000, 25_000, 200_000],
        "orca-70b-it" => [600_000, 150_000, 900_000],
        "forge-34b-code" => [400_000, 40_000, 1_200_000],
        "vesper-embed-v3" => [20_000, 5_000, 20_000],
        _ => panic!("no price for {model} here"),
    }
}

fn cost(record: &Value) -> i128 {
    let tokens = |name: &str| i128::from(record[name].as_u64().expect("a number"));
    let [price_in, price_cached, price_out] = prices(record["model"].as_str().expect("a model"));
    (tokens("tokens_in") - tokens("tokens_cached")) * price_in + tokens("tokens_cached") * price_cached + tokens("tokens_out") * price_out
}

#[test]
fn a_quota_in_money_holds_by_day_and_tenant_and_what_is_over_is_billed_all_the_same() {
    let place = Place::new();
    place.pipeline(
        r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service, model] }
  - meter: { name: tokens_cached, quantity: tokens_cached, unit: Tokens, by: [service, model], part_of: tokens_in }
  - meter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service, model] }
  - shape: { remove: [model] } # prices see records as they were received
  - quota: { money_per_day: "0.05 USD", by: tenant }
sinks:
  files: { archive: { path: "{tenant}.log" } }
  store: { lake: {} }
rates: rates.yaml
"#,
    );
    let input = platform(77, 6_000);
    place.write("in/a.log", input.concat());
    place.once();
    // Late records count into the open day; it never gathers.
    let mut spent: BTreeMap<String, (String, i128)> = BTreeMap::new();
    let mut kept: BTreeMap<String, u64> = BTreeMap::new();
    for line in &input {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let day = record["ts"].as_str().expect("a time")[..10].to_string();
        let left = spent.entry(record["tenant"].as_str().expect("a tenant").into()).or_insert((day.clone(), 0));
        if day > left.0 {
            *left = (day, 0);
        }
        let cost = cost(&record);
        if left.1 + cost <= 50_000_000_000 {
            left.1 += cost;
            *kept.entry(record["tenant"].as_str().expect("a tenant").into()).or_default() += 1;
        }
    }
    let ledger = place.recount();
    let kept_all: u64 = kept.values().sum();
    assert!(kept_all > 500 && kept_all < 5_500, "{kept_all}: the quota does next to nothing");
    let records = |tenant: &String, of: &str| ledger.0["tenants"][tenant][of]["records"].as_u64().unwrap_or(0);
    let by_tenant = |tenant: &String| records(tenant, "kept") - records(tenant, "created"); // summaries of what was dropped
    kept.iter().for_each(|(tenant, records)| assert_eq!(by_tenant(tenant), *records, "{tenant}"));
    assert_eq!(ledger.dropped(), BTreeMap::from([("over_quota".to_string(), input.len() as u64 - kept_all)]));
    assert_eq!((ledger.difference("files"), ledger.difference("store"), ledger.residual()), (0, 0, 0));
    let want = usage(input.iter().map(|line| line.as_bytes()));
    assert_same_usage(&usage_of_report(&place.ask(&["cost", "report"])), &want);
}
