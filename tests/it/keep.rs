//! A lake that is looked after: what is kept no longer goes, is counted, and nothing else does; a lost index comes back.
//!
//! In: generated lines of several days. Out: files and answers, held against the lines themselves. The caretaker looks at once when a
//! process starts, so every test starts one over a lake that lies there.

use crate::harness::{Place, Running, admin_address, files_below, http_get, metric, wait_until};
use crate::input::{assert_same_lines, platform, select};
use std::collections::BTreeMap;
use std::path::PathBuf;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
sinks: { store: { lake: { seal: { bytes: 256KiB, age: 1h }, index_bytes_min: 4KiB, hour_bytes_min: 1GiB, keep: $KEEP } } }
admin: { listen: "127.0.0.1:0" }
"#;

fn set(place: &Place, keep: &str) {
    place.pipeline(&PIPELINE.replace("$KEEP", keep));
}

/// A lake of these lines.
fn lake(lines: &[String]) -> Place {
    let place = Place::new();
    set(&place, "{}");
    place.write("in/a.log", lines.concat());
    place.once();
    place
}

/// Hours since this time of 2026-11-09 to 2026-11-14, rounded down.
fn hours_since(day: u64, hour: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() / 3_600;
    // 2026-11-01T00:00:00Z is 20,758 days after 1970-01-01.
    now - (20_758 + day - 1) * 24 - hour
}

fn expired(running: &Running, rule: &str) -> i64 {
    metric(&http_get(&admin_address(running), "/metrics").1, "weir_lake_expired_records_total", &format!("rule=\"{rule}\""))
}

#[test]
fn what_is_older_than_is_kept_goes_by_whole_days_and_the_ledger_counts_it() {
    let lines = platform(71, 6_000);
    let place = lake(&lines);
    // Days end with their newest record; the 9th and 10th are older than the end of the 10th, whatever the hour is now.
    set(&place, &format!("{{ age: {}h, tenants: {{ fjord-bank: {{ age: 9000d }} }} }}", hours_since(11, 1)));
    let is_kept = |r: &serde_json::Value| r["tenant"] == "fjord-bank" || r["ts"].as_str().expect("a time") >= "2026-11-11T00:00:00Z";
    let want = select(&lines, is_kept);
    let gone = lines.len() - want.len();
    assert!(gone > 1_000 && want.len() > 1_000);
    let running = place.start();
    wait_until("what is old is dropped", || expired(&running, "age") as usize >= gone);
    assert_eq!(expired(&running, "age") as usize, gone);
    assert_same_lines("the rest", &place.search(""), &want);
    assert_same_lines(
        "by word",
        &place.search("completed"),
        &select(&lines, |r| is_kept(r) && r["msg"].as_str().expect("text").contains("completed")),
    );
    let said = running.stderr();
    assert!(said.contains("rule=\"age\"") && said.contains("tenant=\"acme-search\""), "each drop is told: {said}");
    running.stop();
    let recount = place.recount();
    assert_eq!(recount.difference("store"), 0, "stored and dropped are what was delivered");
    // Another start drops nothing more.
    let running = place.start();
    wait_until("it is ready", || running.stderr().contains("ready"));
    running.stop();
    assert_same_lines("the rest", &place.search(""), &want);
    assert_eq!(place.recount().difference("store"), 0);
}

/// Bytes of the log files of each tenant that the commits name, and their days.
fn stored(place: &Place) -> BTreeMap<String, (u64, Vec<String>)> {
    let mut stored: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
    let folder = place.data().join("lake/logs");
    for file in files_below(&folder) {
        let parts: Vec<&str> = file.iter().map(|part| part.to_str().expect("text")).collect();
        let of = stored.entry(parts[0].trim_start_matches("tenant=").to_string()).or_default();
        of.0 += std::fs::metadata(folder.join(&file)).expect("it is there").len();
        of.1.push(parts[1].to_string());
    }
    stored
}

#[test]
fn a_tenant_over_its_bytes_loses_its_oldest_days_and_others_nothing() {
    let lines = platform(72, 8_000);
    let place = lake(&lines);
    let before = stored(&place);
    assert!(before["acme-search"].1.len() > 4, "{before:?}");
    set(&place, &format!("{{ tenants: {{ acme-search: {{ bytes: {}B }} }} }}", before["acme-search"].0 / 2));
    let running = place.start();
    wait_until("something is dropped", || expired(&running, "bytes") > 0);
    let found = place.search("tenant:acme-search");
    running.stop();
    let all = select(&lines, |r| r["tenant"] == "acme-search");
    let newest = |lines: &[Vec<u8>]| lines.iter().map(|line| String::from_utf8_lossy(line)[7..17].to_string()).max();
    assert_eq!(newest(&found), newest(&all), "the newest day stays");
    let days: std::collections::BTreeSet<String> = found.iter().map(|line| String::from_utf8_lossy(line)[7..17].to_string()).collect();
    let first = days.first().expect("one is left").clone();
    assert_same_lines(
        "whole days from one on",
        &found,
        &select(&lines, |r| r["tenant"] == "acme-search" && r["ts"].as_str().expect("ts")[..10] >= *first),
    );
    assert_same_lines("others", &place.search("-tenant:acme-search"), &select(&lines, |r| r["tenant"] != "acme-search"));
    assert_eq!(place.recount().difference("store"), 0);
}

fn indexes(place: &Place) -> Vec<PathBuf> {
    let folder = place.data().join("lake");
    files_below(&folder).into_iter().filter(|file| file.extension().is_some_and(|end| end == "idx")).map(|file| folder.join(file)).collect()
}

#[test]
fn a_lost_or_damaged_index_costs_no_answer_and_comes_back() {
    let lines = platform(73, 5_000);
    let place = lake(&lines);
    let all = indexes(&place);
    assert!(all.len() > 4, "{}", all.len());
    for (n, path) in all.iter().enumerate() {
        if n % 2 == 0 {
            std::fs::remove_file(path).expect("removed");
        } else {
            let mut bytes = std::fs::read(path).expect("read");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
            std::fs::write(path, bytes).expect("written");
        }
    }
    let ask = || {
        let errors = select(&lines, |r| r["level"] == "error" && r["msg"].as_str().expect("text").contains("memory"));
        assert_same_lines("words", &place.search("level:error memory"), &errors);
        let id = format!("{:016x}{:016x}", 73, 1234);
        assert_same_lines("an id", &place.search(&id), &[lines[1234].trim_end().as_bytes().to_vec()]);
    };
    ask();
    let running = place.start();
    let rebuilt = |running: &Running| metric(&http_get(&admin_address(running), "/metrics").1, "weir_lake_indexes_rebuilt_total", "");
    wait_until("every index is there again", || rebuilt(&running) as usize >= all.len());
    ask();
    running.stop();
    ask();
    let explained = place.run(&["search", "level:error memory", "--json", "--explain"]).good().stderr;
    let line = explained.lines().find(|line| line.contains("files without a sound index")).expect("it is told");
    assert!(line.trim_end().ends_with(" 0"), "{explained}");
}
