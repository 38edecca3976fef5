//! Another config while it runs: SIGHUP and `weir reload`.
//!
//! The oracle counts the input and adds up what the stored lines say of themselves: which version of the config decided them, and
//! how many they stand for.

use crate::harness::{Done, Place, Running, admin_address, http_get, metric, root, wait_until};
use crate::input::Dice;
use crate::stores::{archive_files, archive_lines, file_lines};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

const LINES: usize = 50_000;
/// Of each message: what the policy that never changes keeps, over all versions.
const FIRST: usize = 12_000;
const LOGS: usize = 4;

/// `$HEAD` stands before what the test is about, `$STEPS` are steps.
const PIPELINE: &str = r#"
lanes: 2
admin: { listen: "127.0.0.1:0" }
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
hub: { $HUB: {} }
steps:
$STEPS
sinks:
  files: { archive: { path: "{log}.log", commit: { interval: 20ms } } }
"#;

/// A pipeline file as editors and Kubernetes write one: beside, then renamed over it.
fn put_config(place: &Place, hub: &str, steps: &str) {
    let dir = place.path("");
    let text = PIPELINE.replace("$DIR", dir.to_str().expect("text").trim_end_matches('/')).replace("$HUB", hub).replace("$STEPS", steps);
    place.write("next.yaml", text);
    std::fs::rename(place.path("next.yaml"), place.path("pipeline.yaml")).expect("renamed");
}

/// One line of each level in turn; `n` names it.
fn line(n: usize) -> String {
    let level = ["info", "warn", "info", "debug", "error"][n % 5];
    let (tenant, second) = (Dice(n as u64).roll(7), n * 3_000 / LINES);
    let ts = format!("2026-11-20T10:{:02}:{:02}Z", second / 60, second % 60);
    let log = n % LOGS;
    format!("{{\"ts\":\"{ts}\",\"level\":\"{level}\",\"tenant\":\"t{tenant}\",\"log\":\"{log}\",\"n\":{n},\"msg\":\"as always\"}}\n")
}

fn parsed(lines: &[Vec<u8>]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

/// What records stand for, by tenant and level.
fn sums<'a>(records: impl IntoIterator<Item = &'a Value>) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for record in records {
        let text = |name: &str| record[name].as_str().expect("it has one").to_string();
        *sums.entry((text("tenant"), text("level"))).or_default() += record["sample_rate"].as_u64().unwrap_or(1);
    }
    sums
}

fn reload(place: &Place) -> Done {
    place.run(&["reload"])
}

#[track_caller]
fn delivered(place: &Place, running: &mut Running, records: usize) {
    let is = |ledger: &crate::harness::Ledger| ledger.received() >= records as u64 && ledger.sink("files", "buffered") == 0;
    place.wait_ledger(running, &format!("{records} records delivered"), is);
}

/// The policy that never changes, wherever it stands; one whose numbers change; a mark that says which version decided.
fn steps_of(version: usize) -> String {
    let always = format!("  - sample: {{ levels: {{ info: {{ first: {FIRST}, thereafter: 0, tick: 24h }} }} }}\n");
    let other = match version % 3 {
        0 => String::new(),
        n => format!(
            "  - sample: {{ levels: {{ warn: {{ first: {n}, thereafter: {}, tick: 1h }}, debug: {{ ratio: 0.{n} }} }} }}\n",
            3 + version
        ),
    };
    let mark = format!("  - shape: {{ set: {{ version: {{ text: v{version} }} }} }}\n");
    if version.is_multiple_of(2) {
        always + &other + &mark
    } else {
        other + "  - drop: { when: 'level == \"no such\"' }\n" + &always + &mark
    }
}

fn version_of(record: &Value) -> usize {
    record["version"].as_str().and_then(|v| v[1..].parse().ok()).unwrap_or_else(|| panic!("no version decided {record}"))
}

fn under_load(hub: &str) {
    let place = Place::new();
    put_config(&place, hub, &steps_of(0));
    let lines: Vec<String> = (0..LINES).map(line).collect();
    place.append("in/0.log", &lines[0]);
    let mut running = place.start();
    let address = admin_address(&running);
    place.wait_received(&mut running, 1);
    let go_on = AtomicBool::new(true);
    let versions = 10usize;
    std::thread::scope(|scope| {
        // Writes all the time: a share for each version that is in force, and never so far ahead that the last ones have none.
        let writer = scope.spawn(|| {
            let share = (LINES - 1) / versions;
            for (chunk, lines) in lines[1..].chunks(100).enumerate() {
                for log in 0..LOGS {
                    let ours = (0..lines.len()).filter(|i| (1 + chunk * 100 + i) % LOGS == log);
                    place.append(&format!("in/{log}.log"), ours.map(|i| lines[i].as_str()).collect::<String>());
                }
                while go_on.load(Ordering::SeqCst) && chunk * 100 > (reloads_of(&running) + 1) * share {
                    std::thread::yield_now();
                }
            }
        });
        for version in 1..versions {
            put_config(&place, hub, &steps_of(version));
            if version % 3 == 1 {
                running.signal(Signal::HUP);
                wait_until("the signal reloads", || reloads_of(&running) >= version);
            } else {
                let said = reload(&place).good().text();
                assert!(said.contains(&format!("generation {}", version + 1)), "{said}");
            }
            let received = || metric(&http_get(&address, "/metrics").1, "weir_received_records_total", "");
            let before = received();
            wait_until("this version decides some lines", || received() > before + 100);
        }
        go_on.store(false, Ordering::SeqCst);
        writer.join().expect("the writer writes");
    });
    delivered(&place, &mut running, LINES);
    let page = http_get(&address, "/metrics").1;
    assert_eq!(metric(&page, "weir_config_reload_total", "result=\"changed\""), versions as i64 - 1);
    assert_eq!(metric(&page, "weir_config_generation", ""), versions as i64);
    // The policy that never changed has counted on, at whatever place it stood.
    let infos = lines.iter().filter(|line| line.contains("\"level\":\"info\"")).count() as i64;
    let (kept, dropped) = ("weir_sampled_total", "weir_dropped_total");
    assert_eq!(metric(&page, kept, "level=\"info\""), FIRST as i64, "{page}");
    assert_eq!(metric(&page, dropped, "level=\"info\""), infos - FIRST as i64, "{page}");
    let place_now = if (versions - 1).is_multiple_of(2) { "steps[0].sample" } else { "steps[1].sample" };
    assert!(page.lines().any(|l| l.starts_with(kept) && l.contains("info") && l.contains(place_now)), "{page}");
    running.stop();

    let (summaries, kept): (Vec<Value>, Vec<Value>) =
        parsed(&archive_lines(&place.data(), "files")).into_iter().partition(|record| !record["weir.summary"].is_null());
    let input = parsed(&lines.iter().map(|line| line.trim_end().as_bytes().to_vec()).collect::<Vec<_>>());
    let numbers: BTreeSet<u64> = kept.iter().map(|record| record["n"].as_u64().expect("a number")).collect();
    assert_eq!(numbers.len(), kept.len(), "no record came twice");
    let of = |level: &str| kept.iter().filter(|record| record["level"] == level).count();
    assert_eq!(of("error"), LINES / 5, "what no policy touches is there");
    assert_eq!(of("info"), FIRST, "the window of the policy that never changed went on");
    assert_eq!(sums(kept.iter().chain(&summaries)), sums(&input), "weights and summaries of all versions");
    let seen: BTreeSet<usize> = kept.iter().map(version_of).collect();
    assert_eq!(seen, (0..versions).collect(), "each version decided something");
    for path in archive_files(&place.data(), "files") {
        let records = parsed(&file_lines(&path));
        let order: Vec<usize> = records.iter().filter(|r| r["weir.summary"].is_null()).map(version_of).collect();
        assert!(order.is_sorted(), "in one log a version begins where the one before ends: {}", path.display());
    }
    let ledger = place.recount();
    assert_eq!((ledger.residual(), ledger.difference("files")), (0, 0));
    assert_eq!(ledger.received(), LINES as u64);
}

fn reloads_of(running: &Running) -> usize {
    running.stderr().matches("config reloaded").count()
}

#[test]
fn eb_1_2_policies_change_under_load_and_each_record_is_decided_by_one_version() {
    ["journal", "memory"].into_iter().for_each(under_load);
}

const DEDUP: &str = "  - dedup: { key: [n], window: 24h }\n";
const COUNTER: &str = "  - sample: { levels: { info: { first: 100, thereafter: 0, tick: 24h } } }\n";

/// `[from, to)` of the numbered lines; the same numbers are copies.
fn append(place: &Place, from: usize, to: usize) {
    place.append("in/a.log", (from..to).map(line).collect::<String>());
}

#[test]
fn eb_1_2_what_an_unchanged_step_remembers_outlives_reloads_and_kill_9() {
    let place = Place::new();
    put_config(&place, "journal", &(DEDUP.to_string() + COUNTER));
    let mut running = place.start();
    append(&place, 0, 200);
    delivered(&place, &mut running, 200);
    // Both move, as a third one comes.
    put_config(&place, "journal", &format!("  - quota: {{ records_per_day: 100000 }}\n{DEDUP}{COUNTER}"));
    let said = reload(&place).good().text();
    for part in ["steps[0].quota is new", "steps[0].dedup goes on as steps[1].dedup", "generation 2"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    append(&place, 100, 300);
    delivered(&place, &mut running, 400);
    running.child().kill().expect("killed");
    running.wait();
    // The file that was reloaded is the one that is read now.
    let mut running = place.start();
    append(&place, 0, 400);
    delivered(&place, &mut running, 800);
    running.stop();
    let records = parsed(&archive_lines(&place.data(), "files"));
    let (summaries, kept): (Vec<&Value>, Vec<&Value>) = records.iter().partition(|record| !record["weir.summary"].is_null());
    let numbers: BTreeSet<u64> = kept.iter().map(|record| record["n"].as_u64().expect("a number")).collect();
    assert_eq!(numbers.len(), kept.len(), "copies are known whenever the first one came");
    assert_eq!(kept.iter().filter(|record| record["level"] == "info").count(), 100, "one window");
    let ledger = place.recount();
    assert_eq!((ledger.residual(), ledger.difference("files")), (0, 0));
    assert_eq!(ledger.dropped()["duplicate"], 400);
    let stands_for: u64 = kept.iter().chain(&summaries).map(|record| record["sample_rate"].as_u64().unwrap_or(1)).sum();
    assert_eq!(stands_for, 400, "what is not a copy is told of");
}

#[test]
fn eb_1_2_a_step_that_comes_back_starts_anew_after_kill_9_too() {
    let place = Place::new();
    put_config(&place, "journal", DEDUP);
    let mut running = place.start();
    append(&place, 0, 100);
    append(&place, 0, 100);
    delivered(&place, &mut running, 200);
    assert_eq!(place.ledger().dropped()["duplicate"], 100);
    put_config(&place, "journal", "  - drop: { when: 'level == \"no such\"' }\n");
    assert!(reload(&place).good().text().contains("steps[0].dedup is gone"));
    put_config(&place, "journal", DEDUP);
    assert!(reload(&place).good().text().contains("steps[0].dedup is new"));
    append(&place, 0, 50);
    delivered(&place, &mut running, 250);
    assert_eq!(place.ledger().dropped()["duplicate"], 100, "nobody remembers the first life");
    running.child().kill().expect("killed");
    running.wait();
    let mut running = place.start();
    append(&place, 0, 100);
    delivered(&place, &mut running, 350);
    assert_eq!(place.ledger().dropped()["duplicate"], 150, "only what came in the second life is known");
    running.stop();
    assert_eq!(place.ledger().residual(), 0);
}

#[test]
fn a_bad_file_is_refused_with_its_place_and_the_old_one_goes_on() {
    let place = Place::new();
    put_config(&place, "journal", "  - drop: { when: 'level == \"debug\"' }\n");
    let mut running = place.start();
    let address = admin_address(&running);
    append(&place, 0, 10);
    delivered(&place, &mut running, 10);
    let good = std::fs::read_to_string(place.path("pipeline.yaml")).expect("readable");
    let bad = [
        (good.replace("level ==", "level ="), "steps[0].drop.when"),
        (good.replace("drop:", "dorp:"), "did you mean `drop`"),
        (good.replace("lanes: 2", "lanes: 3"), "lanes is not what runs"),
        (good.replace("in/*.log", "elsewhere/*.log"), "sources.in.file.include[0] is not what runs"),
        (good.replace("{log}.log", "all.log").replace("debug", "info"), "sinks.files.archive.path is not what runs"),
        (good[..good.len() / 2].to_string(), "error: "),
    ];
    for (n, (text, told)) in bad.iter().enumerate() {
        place.write("pipeline.yaml", text);
        let done = reload(&place).exits(2);
        for part in [told, "^", "nothing was changed", "pipeline.yaml:"] {
            assert!(done.stderr.contains(part), "{part:?} in {}", done.stderr);
        }
        wait_until("the log says it too", || running.stderr().contains(told));
        let page = http_get(&address, "/metrics").1;
        assert_eq!(metric(&page, "weir_config_reload_total", "result=\"refused\""), n as i64 + 1);
        assert_eq!(metric(&page, "weir_config_generation", ""), 1);
        assert_eq!(metric(&page, "weir_config_last_reload_successful", ""), 0);
    }
    std::fs::remove_file(place.path("pipeline.yaml")).expect("removed");
    assert!(reload(&place).exits(2).stderr.contains("there is no such file"));
    append(&place, 10, 20);
    delivered(&place, &mut running, 20);
    assert_eq!(place.ledger().dropped()["filtered"], 4, "the old config went on");
    // The same again, whatever it looks like, is no change; and a good file ends the trouble.
    place.write("pipeline.yaml", format!("# the same\n{good}"));
    assert!(reload(&place).good().text().contains("nothing changed"));
    place.write("pipeline.yaml", good.replace("debug", "warn"));
    assert!(reload(&place).good().text().contains("steps[0].drop changed"));
    let page = http_get(&address, "/metrics").1;
    assert_eq!(metric(&page, "weir_config_generation", ""), 2);
    assert_eq!(metric(&page, "weir_config_last_reload_successful", ""), 1);
    running.stop();
    let done = reload(&place).exits(1);
    assert!(done.stderr.contains("no weir runs on"), "{}", done.stderr);
}

#[test]
fn meters_change_too_and_what_was_counted_stays_counted() {
    let place = Place::new();
    std::fs::copy(root().join("pipelines/rates.yaml"), place.path("rates.yaml")).expect("copied");
    let steps = |meter: &str| format!("  - meter: {{ name: {meter} }}\n");
    put_config(&place, "journal", &steps("lines"));
    let text = std::fs::read_to_string(place.path("pipeline.yaml")).expect("readable") + "  store: { lake: {} }\nrates: rates.yaml\n";
    place.write("pipeline.yaml", &text);
    let mut running = place.start();
    append(&place, 0, 30);
    delivered(&place, &mut running, 30);
    place.write("pipeline.yaml", text.replace("name: lines", "name: records"));
    assert!(reload(&place).good().text().contains("steps[0].meter changed"));
    append(&place, 30, 50);
    delivered(&place, &mut running, 50);
    running.stop();
    let report = place.ask(&["cost", "report", "--by", "meter"]);
    let mut events = BTreeMap::new();
    for row in report["usage"].as_array().expect("rows") {
        *events.entry(row["meter"].as_str().expect("a name").to_string()).or_insert(0) += row["events"].as_u64().expect("a count");
    }
    assert_eq!(events, BTreeMap::from([("lines".to_string(), 30), ("records".to_string(), 20)]), "{report}");
}
