//! Sinks that do not take everything: by their conditions, and what a quota diverts, also after `kill -9`.
//!
//! The oracle reads the input's lines with serde_json and the stored files by hand; it knows nothing of how a sink was chosen.

use crate::harness::{Place, lines};
use crate::input::{Dice, assert_same_lines, platform};
use crate::stores::archive_lines;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn sorted(mut lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    lines.sort();
    lines
}

/// The lines of `input` for which `is` holds.
fn those(input: &[Vec<u8>], is: impl Fn(&Value) -> bool) -> Vec<Vec<u8>> {
    let holds = |line: &&Vec<u8>| is(&serde_json::from_slice(line).expect("JSON"));
    sorted(input.iter().filter(holds).cloned().collect())
}

fn stored(place: &Place, sink: &str) -> Vec<Vec<u8>> {
    sorted(archive_lines(&place.data(), sink))
}

fn has_level(record: &Value, levels: &[&str]) -> bool {
    levels.contains(&record["level"].as_str().expect("a level"))
}

/// Usage events on the bill.
fn events(place: &Place) -> u64 {
    let report = place.ask(&["cost", "report"]);
    report["usage"].as_array().expect("rows").iter().map(|row| row["events"].as_u64().expect("a count")).sum()
}

const CONDITIONS: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
steps: [{ meter: { name: lines } }, { drop: { when: 'status == 429', metered: anyway } }]
hub: HUB
sinks:
  files: { archive: { path: "{tenant}.log" } }
  errors: { archive: { path: "{tenant}.log", when: 'level == "error" && status >= 500' } }
  none: { archive: { path: "{tenant}.log", when: 'level == "no such level"' } }
  store: { lake: { when: '!(level in ["debug", "info"])' } }
rates: rates.yaml
"#;

#[test]
fn each_sink_takes_what_its_condition_holds_for_and_the_bill_is_whole() {
    let input = platform(61, 3_000);
    let lines = lines(input.concat().as_bytes());
    for hub in ["{ journal: {} }", "{ memory: {} }"] {
        let place = Place::new();
        place.pipeline(&CONDITIONS.replace("HUB", hub));
        place.write("in/a.log", input[..1_700].concat());
        place.once();
        // A second run goes on with the ledger of the first one.
        place.write("in/b.log", input[1_700..].concat());
        place.once();
        let kept = those(&lines, |r| r["status"] != 429);
        let errors = those(&kept, |r| has_level(r, &["error"]) && r["status"] == 500);
        let store = those(&kept, |r| has_level(r, &["warn", "error"]));
        assert!(!errors.is_empty() && errors.len() < store.len() && store.len() < kept.len());
        assert_eq!((stored(&place, "files"), stored(&place, "errors")), (kept.clone(), errors.clone()), "{hub}");
        assert_same_lines("the lake", &place.search(""), &store);
        let ledger = place.recount();
        ledger.assert_settled();
        for (sink, delivered) in [("files", kept.len()), ("errors", errors.len()), ("none", 0), ("store", store.len())] {
            let want = (delivered as u64, (kept.len() - delivered) as u64, 0);
            assert_eq!((ledger.sink(sink, "delivered"), ledger.sink(sink, "not_selected"), ledger.difference(sink)), want, "{sink}, {hub}");
        }
        assert_eq!(events(&place), 3_000, "what the lake does not take is billed all the same");
        let text = place.run(&["ledger"]).good().text();
        assert!(
            text.contains(&format!("sink errors: {} delivered, 0 buffered, {} not selected", errors.len(), kept.len() - errors.len())),
            "{text}"
        );
    }
}

#[test]
fn a_search_finds_what_its_lake_will_take_before_it_is_sealed() {
    let place = Place::new();
    let text = CONDITIONS.replace("HUB", "{ journal: {} }").replace("lake: {", "lake: { seal: { age: 1h },");
    place.pipeline(&text);
    let input = platform(62, 400);
    place.write("in/a.log", input.concat());
    let mut running = place.start();
    place.wait_received(&mut running, 400);
    let lines = lines(input.concat().as_bytes());
    let want = those(&lines, |r| r["status"] != 429 && has_level(r, &["warn", "error"]));
    assert_same_lines("the tail", &place.search(""), &want);
    assert_eq!(place.ledger().sink("store", "delivered"), 0, "it was sealed");
    running.stop();
    assert_same_lines("the lake", &place.search(""), &want);
}

const DIVERT: &str = r#"
lanes: 2
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 10ms } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: lines }
  - quota: { records_per_minute: 50, over: { divert: cold } }
hub: { journal: { sync_interval: 5ms } }
sinks:
  cold: { archive: { path: "{tenant}.log", commit: { interval: 5ms } } }
  errors: { archive: { path: "{tenant}.log", when: 'level == "error"', commit: { interval: 20ms } } }
  hot: { archive: { path: "{tenant}.log" } }
  store: { lake: { seal: { bytes: 64KiB, age: 200ms } } }
rates: rates.yaml
"#;

/// Lines of a few tenants, most of them from one, over some minutes.
fn bursts(seed: u64, count: usize) -> Vec<String> {
    let mut dice = Dice(seed);
    let line = |n: usize| {
        let tenant = if dice.roll(4) == 0 { dice.roll(6) } else { 0 };
        let level = ["info", "info", "warn", "error"][dice.roll(4) as usize];
        let second = n / 40;
        format!(
            "{{\"ts\":\"2026-11-20T{:02}:{:02}:{:02}Z\",\"level\":\"{level}\",\"tenant\":\"t{tenant}\",\"n\":{n}}}\n",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    };
    (0..count).map(line).collect()
}

/// Every line lies in exactly the sinks it belongs to, once, and nobody had more than the quota at `hot`. `in_order`: lines came in
/// the order of their times, and nothing was decided anew.
#[track_caller]
fn assert_diverted(place: &Place, input: &[String], in_order: bool) {
    let lines = lines(input.concat().as_bytes());
    let (hot, cold) = (stored(place, "hot"), stored(place, "cold"));
    assert_eq!(sorted([hot.clone(), cold.clone()].concat()), sorted(lines.clone()), "each line is in one of both, once");
    assert_eq!(stored(place, "errors"), those(&hot, |r| has_level(r, &["error"])));
    assert_same_lines("the lake against the archive", &place.search(""), &hot);
    let minutes = |lines: &[Vec<u8>]| {
        let mut minutes: BTreeMap<(String, String), u64> = BTreeMap::new();
        for line in lines {
            let record: Value = serde_json::from_slice(line).expect("JSON");
            let text = |key: &str| record[key].as_str().expect("text").to_string();
            *minutes.entry((text("tenant"), text("ts")[..16].to_string())).or_default() += 1;
        }
        minutes
    };
    let (within, over) = (minutes(&hot), minutes(&cold));
    assert!(!over.is_empty());
    if in_order {
        assert!(within.values().all(|n| *n <= 50), "{within:?}");
        assert!(over.keys().all(|key| within[key] == 50), "diverted before the quota was used up: {within:?} {over:?}");
    }
    // A late record counts into the minute that is open.
    let all = minutes(&lines).keys().map(|key| key.1.clone()).collect::<BTreeSet<_>>().len() as u64;
    let mut by_tenant: BTreeMap<&str, u64> = BTreeMap::new();
    within.iter().for_each(|((tenant, _), n)| *by_tenant.entry(tenant).or_default() += n);
    assert!(by_tenant.values().all(|n| *n <= 50 * all), "{by_tenant:?}, {all} minutes");
    let ledger = place.recount();
    ledger.assert_settled();
    for (sink, delivered) in [("hot", hot.len()), ("cold", cold.len()), ("errors", stored(place, "errors").len()), ("store", hot.len())] {
        let want = (delivered as u64, (input.len() - delivered) as u64, 0);
        assert_eq!((ledger.sink(sink, "delivered"), ledger.sink(sink, "not_selected"), ledger.difference(sink)), want, "{sink}");
    }
    assert_eq!((ledger.kept(), ledger.received(), events(place)), (input.len() as u64, input.len() as u64, input.len() as u64));
}

#[test]
fn what_is_over_a_quota_goes_to_one_sink_and_is_billed() {
    let place = Place::new();
    place.pipeline(DIVERT);
    let input = bursts(71, 12_000);
    place.write("in/a.log", input.concat());
    place.once();
    assert_diverted(&place, &input, true);
    // A sink that comes later takes of what the journal still has what any sink takes, never what was diverted to another one.
    let hot = stored(&place, "hot");
    place.pipeline(&DIVERT.replace("  store:", "  late: { archive: { path: \"{tenant}.log\" } }\n  store:"));
    place.once();
    assert_eq!(stored(&place, "late"), hot);
    let ledger = place.recount();
    assert_eq!(
        (ledger.difference("late"), ledger.residual(), ledger.sink("late", "not_selected")),
        (0, 0, (input.len() - hot.len()) as u64)
    );
}

#[test]
fn what_is_diverted_stays_so_after_kill_9() {
    let place = Place::new();
    place.pipeline(DIVERT);
    let input = bursts(72, 16_000);
    let mut dice = Dice(72);
    let mut written = 0;
    let mut running = place.start();
    for piece in input.chunks(input.len() / 5) {
        for (n, lines) in piece.chunks(piece.len().div_ceil(3)).enumerate() {
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
    place.once();
    assert_diverted(&place, &input, false);
}

#[test]
fn summaries_go_to_every_sink_but_those_that_are_diverted_to() {
    let place = Place::new();
    let sampled = "  - sample: { levels: { info: { first: 1, thereafter: 0, tick: 1s, by: [level], per_tenant: true } } }\n  - quota:";
    place.pipeline(&DIVERT.replace("  - quota:", sampled));
    let input = bursts(73, 4_000);
    place.write("in/a.log", input.concat());
    place.once();
    let is_summary = |record: &Value| !record["weir.summary"].is_null();
    let summaries = those(&stored(&place, "hot"), is_summary);
    assert!(!summaries.is_empty());
    assert_eq!(those(&stored(&place, "errors"), is_summary), summaries, "no condition can be asked about them");
    assert_eq!(those(&stored(&place, "cold"), is_summary), Vec::<Vec<u8>>::new());
    // Over both, weights are what came in; a diverted record may stand for others, too.
    let weight = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).expect("JSON")["sample_rate"].as_u64().unwrap_or(1);
    let both = [stored(&place, "hot"), stored(&place, "cold")].concat();
    assert_eq!(both.iter().map(weight).sum::<u64>(), 4_000);
    let ledger = place.recount();
    assert_eq!([ledger.difference("hot"), ledger.difference("errors"), ledger.difference("cold")], [0; 3]);
    ledger.assert_settled();
}
