//! Input that nobody should send: every record is kept raw or dropped with a named reason, counted, and bounded in memory.
//!
//! `check` gives one file to a run and says which records must come out and what must be noted of them.

use crate::harness::{Ledger, Place};
use crate::input::assert_same_lines;
use crate::stores::archive_lines;
use std::collections::BTreeMap;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*"], line_bytes_max: 1MiB } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service] }
sinks:
  files: { archive: { path: "{tenant}/lines.log" } }
  store: { lake: {} }
rates: rates.yaml
"#;

/// A record with everything that rules ask for, and more keys.
fn record(more: &str) -> Vec<u8> {
    format!(r#"{{"ts":"2026-11-23T03:00:00Z","level":"info","tenant":"a","service":"s","tokens_in":5{more}}}"#).into_bytes()
}

/// The lines with newlines, between two good ones: what is wrong with one line must not reach its neighbours.
fn among_good(lines: &[Vec<u8>]) -> Vec<u8> {
    let good = record("");
    let all = [std::slice::from_ref(&good), lines, std::slice::from_ref(&good)].concat();
    all.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

struct Want<'a> {
    records: &'a [Vec<u8>],
    notes: &'a [(&'a str, u64)],
    /// Records that the meter counts.
    metered: u64,
}

#[track_caller]
fn check(input: &[u8], want: Want) -> Ledger {
    let place = Place::new();
    place.pipeline(PIPELINE);
    place.write("in/a.log", input);
    place.once();
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), want.records);
    assert_same_lines("the lake", &place.search(""), want.records);
    let ledger = place.ledger();
    ledger.assert_settled();
    assert_eq!(ledger.received(), want.records.len() as u64, "{}", ledger.0);
    let notes: BTreeMap<String, u64> = want.notes.iter().map(|(note, n)| (note.to_string(), *n)).collect();
    assert_eq!(ledger.notes(), notes);
    assert_eq!(metered_records(&place), want.metered, "metered records");
    ledger
}

/// Records behind the bill.
#[track_caller]
fn metered_records(place: &Place) -> u64 {
    let report = place.ask(&["cost", "report", "--by", "tenant,meter"]);
    let rows = report["usage"].as_array().unwrap_or_else(|| panic!("no usage in {report}"));
    rows.iter().map(|row| row["events"].as_u64().expect("a count")).sum()
}

/// One odd line between two good ones that are both metered.
#[track_caller]
fn check_line(line: &[u8], notes: &[(&str, u64)], metered: bool) {
    let records = [record(""), line.to_vec(), record("")];
    check(&among_good(&[line.to_vec()]), Want { records: &records, notes, metered: 2 + u64::from(metered) });
}

#[test]
fn lines_that_are_no_json_travel_as_they_are() {
    for line in [
        "not json at all",
        "{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"a\",\"tok",
        "{}}",
        "[1,2]",
        "{\"a\":01}",
        "{\"a\":1,}",
        "nul",
        "\"text\"",
        "{'a':1}",
    ] {
        check_line(line.as_bytes(), &[("arrival_time", 1), ("not_json", 1)], false);
    }
}

#[test]
fn a_malformed_line_is_dropped_by_name_where_config_says_so() {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("line_bytes_max: 1MiB", "malformed: drop"));
    place.write("in/a.log", among_good(&[b"{\"tenant\":".to_vec(), b"x".to_vec()]));
    place.once();
    let ledger = place.ledger();
    ledger.assert_settled();
    assert_eq!((ledger.received(), ledger.kept(), ledger.dropped()), (4, 2, BTreeMap::from([("malformed".to_string(), 2)])));
    assert_eq!(metered_records(&place), 2);
}

#[test]
fn nul_bytes_travel_as_they_are() {
    check_line(b"x\0\0\0", &[("arrival_time", 1), ("not_json", 1)], false);
    check_line(b"{\"a\":\"\0\"}", &[("arrival_time", 1), ("not_json", 1)], false);
}

#[test]
fn invalid_utf8_travels_as_it_is_and_is_noted() {
    let line = [record("").split_last().unwrap().1.to_vec(), b",\"msg\":\"\xff\xfe caf\xe9\"}".to_vec()].concat();
    check_line(&line, &[("invalid_utf8", 1)], true);
}

#[test]
fn a_tenant_named_twice_is_billed_to_nobody_by_a_guess() {
    for twice in [r#","tenant":"b""#, r#","\u0074enant":"b""#, r#","tenant":"a""#] {
        check_line(&record(twice), &[("duplicate_tenant", 1)], false);
    }
}

#[test]
fn a_metered_key_that_occurs_twice_is_not_metered() {
    for twice in [r#","tokens_in":7"#, r#","tokens\u005fin":7"#, r#","service":"t""#] {
        check_line(&record(twice), &[("duplicate_metered", 1)], false);
    }
}

#[test]
fn of_any_other_key_the_last_one_counts() {
    check_line(&record(r#","level":"error","l\u0065vel":"warn""#), &[("duplicate_key", 1)], true);
    check_line(&record(r#","x":1,"x":2"#), &[], true); // nobody asks for x
}

#[test]
fn quantities_that_are_none_are_noted_and_not_metered() {
    for number in
        ["-5", "1.5", "1e3", "18446744073709551616", "99999999999999999999999999999999", "9223372036854775808", "\"5\"", "true", "-0"]
    {
        let line = String::from_utf8(record("")).unwrap().replace("\"tokens_in\":5", &format!("\"tokens_in\":{number}"));
        check_line(line.as_bytes(), &[("bad_quantity", 1)], false);
    }
    let largest = String::from_utf8(record("")).unwrap().replace("\"tokens_in\":5", "\"tokens_in\":9223372036854775807");
    check_line(largest.as_bytes(), &[], true);
    check_line(&record(r#","x":123456789012345678901234567890"#), &[], true);
}

#[test]
fn ten_thousand_keys_are_one_record() {
    let keys: String = (0..10_000).map(|n| format!(",\"key_{n}\":{n}")).collect();
    check_line(&record(&keys), &[], true);
}

#[test]
fn nesting_a_thousand_deep_travels_as_it_is() {
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    check_line(&record(&format!(",\"x\":{deep}")), &[("arrival_time", 1), ("too_deep", 1)], false);
    let objects = format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000));
    check_line(objects.as_bytes(), &[("arrival_time", 1), ("too_deep", 1)], false);
}

#[test]
fn an_empty_file_and_blank_lines_are_no_records() {
    check(b"", Want { records: &[], notes: &[], metered: 0 });
    check(b"\n", Want { records: &[], notes: &[], metered: 0 });
    let ledger = check(b"\n\n  \t \r\n\n", Want { records: &[], notes: &[], metered: 0 });
    assert_eq!(ledger.0["streams"]["read_bytes"], 9, "{}", ledger.0["streams"]);
}

#[test]
fn a_last_line_without_newline_is_a_record() {
    let records = [record(""), record(",\"x\":1")];
    let input = [record(""), b"\n".to_vec(), record(",\"x\":1")].concat();
    check(&input, Want { records: &records, notes: &[("unterminated", 1)], metered: 2 });
}

#[test]
fn carriage_returns_are_framing() {
    let records = [record(""), record("")];
    let input = [record(""), b"\r\n".to_vec(), record(""), b"\r\n".to_vec()].concat();
    check(&input, Want { records: &records, notes: &[], metered: 2 });
}

#[test]
fn a_line_of_10_mib_is_cut_at_the_limit_and_counted() {
    let long = record(&format!(",\"msg\":\"{}\"", "x".repeat(10 << 20)));
    let cut = long[..1 << 20].to_vec();
    let records = [record(""), cut, record("")];
    // What was cut off is no JSON any more.
    let ledger = check(
        &among_good(std::slice::from_ref(&long)),
        Want { records: &records, notes: &[("arrival_time", 1), ("not_json", 1), ("truncated", 1)], metered: 2 },
    );
    assert_eq!(ledger.0["streams"]["skipped"]["line_too_long"], long.len() - (1 << 20), "{}", ledger.0["streams"]);
}

#[test]
fn bad_input_of_every_kind_stays_within_memory() {
    let place = Place::new();
    place.pipeline(&format!("{PIPELINE}memory: 128MiB\nlanes: 2\n"));
    let keys: String = (0..10_000).map(|n| format!(",\"key_{n}\":{n}")).collect();
    let kinds: [Vec<u8>; 6] = [
        vec![b'x'; 10 << 20],
        vec![0; 10 << 20],
        record(&format!(",\"msg\":\"{}\"", "y".repeat(10 << 20))),
        [b"{\"a\":".repeat(2 << 20)].concat(),
        record(&keys),
        record(&format!(",\"msg\":\"{}\"", "\\u00e9".repeat(1 << 20))), // 6 MiB of escapes
    ];
    for (n, kind) in kinds.iter().enumerate() {
        place.append(&format!("in/{n}.log"), among_good(std::slice::from_ref(kind)).repeat(3));
    }
    let mut running = place.start();
    // Zeros alone are a hole: skipped and counted.
    place.wait_ledger(&mut running, "everything delivered", |ledger| ledger.received() == 51 && ledger.sink("files", "buffered") == 0);
    let peak = running.peak_bytes();
    running.stop();
    place.ledger().assert_settled();
    assert!(peak < 160 << 20, "{} MiB resident for 128 MiB of anonymous memory and the program itself", peak >> 20);
    // 36 good lines, and of the bad kinds the one with 10,000 keys.
    assert_eq!(metered_records(&place), 36 + 3);
}

#[test]
fn more_tenants_than_the_limit_are_counted_as_unknown_and_lose_nothing() {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("from: [tenant]", "from: [tenant], tenants_max: 5"));
    let lines: String = (0..50).map(|n| format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"t{n}\",\"tokens_in\":1}}\n")).collect();
    place.write("in/a.log", &lines);
    place.once();
    let ledger = place.ledger();
    ledger.assert_settled();
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &crate::harness::lines(lines.as_bytes()));
    assert!(ledger.kept_by_tenant().len() <= 6, "{:?}", ledger.kept_by_tenant());
    assert!(ledger.notes()["tenant_over_limit"] >= 44, "{:?}", ledger.notes());
}

#[test]
fn a_tenant_cannot_climb_out_of_its_folder() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let names = ["../../../evil", "/etc/evil", "..", ".", "a/b", "a\\u0000b", "con", "", "A", "a", "\\u00e4"];
    let lines: String =
        names.iter().map(|name| format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"{name}\",\"tokens_in\":1}}\n")).collect();
    place.write("in/a.log", &lines);
    place.once();
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &crate::harness::lines(lines.as_bytes()));
    assert_same_lines("the lake", &place.search(""), &crate::harness::lines(lines.as_bytes()));
    assert!(!place.path("evil").exists() && !place.path("data/evil").exists() && !place.path("data/archive/evil").exists());
    assert_eq!(metered_records(&place), names.len() as u64);
}
