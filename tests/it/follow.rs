//! Following files as they grow and rotate, and what signals do.

use crate::harness::{Place, Running, lines, root, wait_until, weir};
use crate::input::{assert_same_lines, platform};
use crate::stores::{archive_folder, archive_lines, file_lines};
use rustix::process::Signal;
use std::io::Write;
use std::process::Stdio;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [nobody] }
sinks: { files: { archive: { path: "all.log", commit: { interval: 20ms } } } }
"#;

fn whole(records: &[String]) -> Vec<Vec<u8>> {
    lines(records.concat().as_bytes())
}

#[test]
fn growth_is_followed_across_rename_rotations_in_order_and_without_loss() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let records = platform(31, 400);
    place.append("in/a.log", records[..100].concat());
    let mut running = place.start();
    place.wait_received(&mut running, 100);
    place.append("in/a.log", records[100..150].concat());
    // A line that is cut in two by the writer is not taken before it is whole.
    let (head, tail) = records[150].split_at(50);
    place.append("in/a.log", head);
    place.wait_received(&mut running, 150);
    std::fs::rename(place.path("in/a.log"), place.path("in/a.log.1")).expect("renamed");
    // The writer still has the old file open for a while.
    place.append("in/a.log.1", tail);
    place.append("in/a.log", records[151..300].concat());
    place.wait_received(&mut running, 300);
    std::fs::rename(place.path("in/a.log.1"), place.path("in/a.log.2")).expect("renamed");
    std::fs::rename(place.path("in/a.log"), place.path("in/a.log.1")).expect("renamed");
    place.append("in/a.log", records[300..].concat());
    place.wait_received(&mut running, 400);
    running.stop();
    // One log goes to one file, so the order shows.
    assert_eq!(archive_lines(&place.data(), "files"), whole(&records));
    place.ledger().assert_settled();
}

#[test]
fn a_rotation_while_nobody_runs_loses_nothing() {
    for hub in ["journal", "memory"] {
        let place = Place::new();
        place.pipeline(&format!("{PIPELINE}hub: {{ {hub}: {{}} }}\n"));
        let records = platform(32, 300);
        place.append("in/a.log", records[..100].concat());
        let mut running = place.start();
        place.wait_received(&mut running, 100);
        running.stop();
        place.append("in/a.log", records[100..200].concat());
        std::fs::rename(place.path("in/a.log"), place.path("in/a.log.1")).expect("renamed");
        place.append("in/a.log", records[200..].concat());
        place.once();
        assert_same_lines(hub, &archive_lines(&place.data(), "files"), &whole(&records));
        place.ledger().assert_settled();
    }
}

#[test]
fn new_files_are_found_and_files_that_go_away_are_forgotten_after_they_were_read() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let records = platform(33, 300);
    place.append("in/a.log", records[..100].concat());
    let mut running = place.start();
    place.wait_received(&mut running, 100);
    place.append("in/b.log", records[100..200].concat());
    place.wait_received(&mut running, 200);
    std::fs::remove_file(place.path("in/b.log")).expect("removed");
    place.append("in/c.log", records[200..].concat());
    place.wait_received(&mut running, 300);
    let said = running.stop();
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &whole(&records));
    assert!(!said.contains("ERROR"), "{said}");
}

#[test]
fn reading_can_start_at_the_end_of_files_that_are_there_already() {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("scan: 20ms", "scan: 20ms, start: end"));
    let records = platform(34, 30);
    place.append("in/a.log", records[..10].concat());
    let mut running = place.start();
    wait_until("the file was seen", || running.stderr().contains("a.log"));
    place.append("in/a.log", records[10..20].concat());
    place.append("in/b.log", records[20..].concat());
    place.wait_received(&mut running, 20);
    running.stop();
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &whole(&records[10..]));
}

#[test]
fn sigterm_and_sigint_deliver_what_was_taken_and_exit_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        // Without the drain nothing would be committed for an hour.
        place.pipeline(&PIPELINE.replace("20ms } }", "1h } }").replace("sinks: {", "sinks: { store: { lake: { seal: { age: 1h } } },"));
        let records = platform(35, 500);
        place.append("in/a.log", records.concat());
        let mut running = place.start();
        let ledger = place.wait_received(&mut running, 500);
        assert_eq!(ledger.sink("files", "buffered"), 500, "it did not wait with its commit");
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(0), "{}", running.stderr());
        assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &whole(&records));
        assert_same_lines("the lake", &place.search(""), &whole(&records));
        let ledger = place.ledger();
        ledger.assert_settled();
        assert_eq!(ledger.sink("files", "delivered"), 500);
    }
}

#[test]
fn sighup_reopens_archives_so_that_another_program_can_rotate_them() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let records = platform(36, 2000);
    place.append("in/a.log", records[..10].concat());
    let mut running = place.start();
    place.wait_ledger(&mut running, "ten lines delivered", |ledger| ledger.received() == 10 && ledger.sink("files", "buffered") == 0);
    let file = archive_folder(&place.data(), "files").join("all.log");
    let moved = place.path("moved.log");
    std::fs::rename(&file, &moved).expect("renamed");
    assert!(running.signal_answered(Signal::HUP).contains("SIGHUP"));
    let mut sent = 10;
    while !file.exists() {
        assert!(sent < records.len(), "the archive's file was not opened again:\n{}", running.stderr());
        place.append("in/a.log", &records[sent]);
        sent += 1;
        place.wait_ledger(&mut running, "one more delivered", |ledger| {
            ledger.received() == sent as u64 && ledger.sink("files", "buffered") == 0
        });
    }
    running.stop();
    let both = [file_lines(&moved), file_lines(&file)].concat();
    assert_eq!(both, whole(&records[..sent]), "lines of the moved file and of the new one, in order");
    assert_eq!(place.ledger().residual(), 0);
}

#[test]
fn sigusr2_says_that_it_is_not_built_yet_and_changes_nothing() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let records = platform(37, 20);
    place.append("in/a.log", records[..10].concat());
    let mut running = place.start();
    place.wait_received(&mut running, 10);
    assert!(running.signal_answered(Signal::USR2).contains("not built yet"));
    place.append("in/a.log", records[10..].concat());
    place.wait_received(&mut running, 20);
    running.stop();
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &whole(&records));
}

/// Standard input to standard output, and nobody reads the output.
fn blocked() -> (Place, Running) {
    let place = Place::new();
    let mut command = weir();
    command.arg("run").arg(root().join("pipelines/stdin.yaml")).arg("--data").arg(place.data());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::spawn(command);
    let mut stdin = running.child().stdin.take().expect("piped");
    // More than pipes and the hub hold, so the writer here ends with an error once the program is gone.
    std::thread::spawn(move || {
        let line = format!("{{\"level\":\"error\",\"pad\":\"{}\"}}\n", "x".repeat(1000));
        while stdin.write_all(line.as_bytes()).is_ok() {}
    });
    (place, running)
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let (place, mut running) = blocked();
    place.wait_ledger(&mut running, "records that nobody takes", |ledger| ledger.sink("out", "buffered") > 0);
    let said = running.signal_answered(Signal::TERM);
    assert!(said.contains("SIGTERM"), "{said}");
    assert!(running.is_running(), "it had nothing to wait for");
    let before = std::time::Instant::now();
    running.signal(Signal::TERM);
    let status = running.wait();
    assert!(before.elapsed().as_secs() < 10, "at once was {:?}", before.elapsed());
    assert_ne!(status.code(), Some(0), "what was not delivered is no success");
}

#[test]
fn a_reader_that_goes_away_is_told_as_an_error_and_not_by_sigpipe() {
    let (place, mut running) = blocked();
    place.wait_ledger(&mut running, "records that nobody takes", |ledger| ledger.sink("out", "buffered") > 0);
    drop(running.child().stdout.take());
    let status = running.wait();
    assert_eq!(status.code(), Some(1), "{status}: {}", running.stderr());
}

#[test]
fn standard_input_is_filtered_to_standard_output() {
    let place = Place::new();
    let records = platform(38, 500);
    let mut command = weir();
    command.args(["run", "--once", "--quiet"]).arg(root().join("pipelines/stdin.yaml")).arg("--data").arg(place.data());
    command.stdin(std::fs::File::open(place.write("in.log", records.concat())).expect("readable"));
    let done = crate::harness::finish(command).good();
    let want = crate::input::select(&records, |r| r["level"] == "error" || r["status"].as_u64().unwrap() >= 500);
    assert_eq!(lines(&done.stdout), want, "in order");
    assert_eq!(place.ledger().residual(), 0);
}
