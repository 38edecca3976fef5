//! Lines that a container runtime split are one record again, whatever comes in between.

use crate::harness::{Place, lines};
use crate::input::{assert_same_lines, platform};
use crate::stores::archive_lines;

const PIPELINE: &str = r#"
sources: { pods: { file: { include: ["$DIR/in/*.log"], format: cri, scan: 20ms } } }
tenancy: { from: [tenant] }
sinks: { files: { archive: { path: "{tenant}/lines.log", commit: { interval: 20ms } } } }
"#;

fn part(output: &str, tag: &str, text: &str) -> String {
    format!("2026-11-23T03:00:00.000000001Z {output} {tag} {text}\n")
}

/// The record in two parts.
fn split(line: &str) -> (String, String) {
    let line = line.trim_end();
    let half = (0..=line.len() / 2).rev().find(|at| line.is_char_boundary(*at)).expect("0 is one");
    (part("stdout", "P", &line[..half]), part("stdout", "F", &line[half..]))
}

fn whole(records: &[String]) -> Vec<Vec<u8>> {
    lines(records.concat().as_bytes())
}

#[test]
fn parts_are_joined_per_output_even_where_outputs_alternate() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let records = platform(21, 90);
    let mut text = String::new();
    for three in records.chunks(3) {
        let (head, tail) = split(&three[0]);
        text += &head;
        text += &part("stderr", "F", three[1].trim_end()); // between the two
        text += &tail;
        let (head, tail) = split(&three[2]);
        text += &head;
        text += &part("stdout", "P", ""); // an empty part is a part
        text += &tail;
    }
    place.write("in/a.log", text);
    place.once();
    assert_same_lines("joined", &archive_lines(&place.data(), "files"), &whole(&records));
    let ledger = place.ledger();
    ledger.assert_settled();
    assert_eq!((ledger.received(), ledger.notes().len()), (90, 0), "{}", ledger.0);
}

#[test]
fn a_record_split_over_a_rename_rotation_is_one_record() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let records = platform(22, 20);
    let (head, tail) = split(&records[10]);
    let plain = |records: &[String]| records.iter().map(|r| part("stdout", "F", r.trim_end())).collect::<String>();
    place.append("in/0.log", plain(&records[..10]) + &head);
    let mut running = place.start();
    place.wait_received(&mut running, 10);
    std::fs::rename(place.path("in/0.log"), place.path("in/0.log.1")).expect("renamed");
    place.append("in/0.log", tail + &plain(&records[11..]));
    place.wait_received(&mut running, 20);
    running.stop();
    assert_same_lines("joined", &archive_lines(&place.data(), "files"), &whole(&records));
    assert_eq!(place.ledger().notes().len(), 0, "{}", place.ledger().0);
}

#[test]
fn a_restart_between_the_parts_of_a_record_neither_loses_nor_doubles_one() {
    for hub in ["hub: { journal: {} }", "hub: { memory: {} }"] {
        let place = Place::new();
        place.pipeline(&format!("{PIPELINE}{hub}\n"));
        let records = platform(23, 3);
        let (head, tail) = split(&records[1]);
        place.append("in/a.log", part("stdout", "F", records[0].trim_end()) + &head);
        let mut running = place.start();
        place.wait_received(&mut running, 1);
        running.stop();
        place.append("in/a.log", tail + &part("stdout", "F", records[2].trim_end()));
        place.once();
        assert_same_lines(hub, &archive_lines(&place.data(), "files"), &whole(&records));
        let ledger = place.ledger();
        ledger.assert_settled();
        assert_eq!((ledger.received(), ledger.notes().len()), (3, 0), "{hub}: {}", ledger.0);
    }
}

#[test]
fn a_restart_between_the_parts_survives_a_rotation_in_the_meantime() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let records = platform(24, 3);
    let (head, tail) = split(&records[1]);
    place.append("in/a.log", part("stdout", "F", records[0].trim_end()) + &head);
    let mut running = place.start();
    place.wait_received(&mut running, 1);
    running.stop();
    std::fs::rename(place.path("in/a.log"), place.path("in/a.log.1")).expect("renamed");
    place.append("in/a.log", tail + &part("stdout", "F", records[2].trim_end()));
    let mut running = place.start();
    place.wait_received(&mut running, 3);
    running.stop();
    assert_same_lines("joined", &archive_lines(&place.data(), "files"), &whole(&records));
}

#[test]
fn a_last_part_that_never_comes_leaves_the_record_as_it_is_and_says_so() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    place.write("in/a.log", part("stdout", "P", "{\"tenant\":\"a\",") + "no line of a runtime\n");
    place.once();
    assert_same_lines("kept", &archive_lines(&place.data(), "files"), &[b"{\"tenant\":\"a\",".to_vec(), b"no line of a runtime".to_vec()]);
    let notes = place.ledger().notes();
    assert_eq!((notes.get("partial"), notes.get("not_cri")), (Some(&1), Some(&1)), "{notes:?}");
}
