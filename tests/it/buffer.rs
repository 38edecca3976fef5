//! The journal of a real run: looked at with `weir buffer`, damaged, and gone on with.
//!
//! In: one log of numbered lines, an archive. Out: every line once, whatever happened to the journal's files between two runs,
//! and what the verbs say of it. Bound: a thousand lines.

use crate::harness::{Place, files_below, lines};
use std::path::PathBuf;

const LINES: usize = 1000;

fn place(hub: &str) -> Place {
    let place = Place::new();
    place.pipeline(&format!(
        "name: p\nsources: {{ app: {{ file: {{ include: [$DIR/in/*.log], format: json }} }} }}\n{hub}\n\
         sinks: {{ kept: {{ archive: {{ dir: $DIR/out, path: all.log }} }} }}\n"
    ));
    place
}

fn line(n: usize) -> String {
    format!("{{\"n\":{n},\"msg\":\"line {n}\"}}")
}

fn write(place: &Place, from: usize) {
    let text: String = (from..from + LINES).map(|n| line(n) + "\n").collect();
    place.append("in/a.log", text);
}

/// Numbers of the archive's lines, in order.
fn archived(place: &Place) -> Vec<u64> {
    let bytes = std::fs::read(place.path("out/all.log")).expect("the archive is there");
    let number =
        |line: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(line).expect("a line of ours")["n"].as_u64().expect("a number");
    lines(&bytes).iter().map(number).collect()
}

#[track_caller]
fn check_all(place: &Place, runs: usize) {
    assert_eq!(archived(place), (0..(LINES * runs) as u64).collect::<Vec<_>>(), "every line once, in order");
}

fn hub_files(place: &Place) -> Vec<PathBuf> {
    let folder = place.data().join("hub/p");
    files_below(&folder).into_iter().map(|name| folder.join(name)).collect()
}

#[test]
fn buffer_verbs_show_verify_and_write_out_what_the_journal_holds() {
    let place = place("");
    write(&place, 0);
    place.once();
    let want: Vec<Vec<u8>> = (0..LINES).map(|n| line(n).into_bytes()).collect();
    assert_eq!(lines(&place.run(&["buffer", "cat"]).good().stdout), want);
    assert_eq!(lines(&place.run(&["buffer", "cat", "--limit", "3"]).good().stdout), want[..3]);
    assert!(place.run(&["buffer", "cat", "--tenant", "nobody"]).good().stdout.is_empty());
    let row: serde_json::Value =
        serde_json::from_slice(&lines(&place.run(&["buffer", "cat", "--json", "--limit", "1"]).good().stdout)[0]).expect("JSON");
    assert_eq!((row["raw"].as_str(), row["position"].as_u64()), (Some(line(0).as_str()), Some(line(0).len() as u64 + 1)));
    let header: serde_json::Value =
        serde_json::from_slice(&lines(&place.run(&["buffer", "cat", "--headers", "--json"]).good().stdout)[0]).expect("JSON");
    assert_eq!(header["parts"][0]["counts"][0]["records"].as_u64(), Some(LINES as u64));
    let ls = place.ask(&["buffer", "ls"]);
    assert_eq!(ls["pipelines"]["p"]["rows"].as_u64(), Some(LINES as u64));
    assert_eq!(ls["pipelines"]["p"]["sinks"]["kept"]["buffered"]["records"].as_u64(), Some(0));
    assert_eq!(place.ask(&["buffer", "fsck"])["good"].as_bool(), Some(true));
    let file = place.path("again.log");
    place.run(&["buffer", "replay", "--sink", "kept", "--to", file.to_str().expect("text")]).good();
    assert_eq!(lines(&std::fs::read(&file).expect("written")), want);
    place.run(&["buffer", "replay", "--sink", "kept", "--to", file.to_str().expect("text")]).exits(2);
    place.run(&["buffer", "replay", "--sink", "none", "--to", "-"]).exits(2);
}

#[test]
fn a_damaged_journal_is_named_by_fsck_and_the_next_run_loses_and_doubles_nothing() {
    let place = place("");
    write(&place, 0);
    place.once();
    let segment = hub_files(&place).into_iter().find(|p| p.extension().is_some_and(|e| e == "seg")).expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let said = place.run(&["buffer", "fsck"]).exits(1).text();
    assert!(said.contains("00000001.seg: byte ") && said.contains("help: "), "{said}");
    write(&place, LINES);
    place.once();
    check_all(&place, 2);
    place.run(&["buffer", "fsck"]).good();
}

/// Whatever becomes of all files of the hub, its stores know how far they are.
#[test]
fn without_any_position_of_its_own_the_hub_goes_on_where_its_stores_stand() {
    for hub in ["", "hub: { memory: {} }"] {
        for (what, content) in [("zeros", Some(vec![0; 500])), ("empty", Some(Vec::new())), ("garbage", Some(b"garbage".repeat(99)))] {
            let place = place(hub);
            write(&place, 0);
            place.once();
            for file in hub_files(&place) {
                std::fs::write(&file, content.clone().unwrap_or_default()).expect("written");
            }
            write(&place, LINES);
            let pipeline = place.path("pipeline.yaml");
            let done = place.run(&["run", "--once", "--json", pipeline.to_str().expect("text")]).good();
            assert!(done.stderr.contains("where the stores stand"), "{hub} {what}: {}", done.stderr);
            check_all(&place, 2);
            write(&place, 2 * LINES);
            place.once();
            check_all(&place, 3);
        }
    }
}
