//! The archive of the whole program: no room on its disk, limits on room, a second writer, files removed under it.

use crate::harness::{Ledger, Place, Running, files_below, lines, wait_until};
use crate::input::{Dice, platform};
use crate::stores::file_lines;
use crate::tailing::{Ballast, SmallDisks};
use std::collections::BTreeSet;
use std::path::Path;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 20ms } } }
tenancy: { from: [tenant] }
hub: { journal: { bytes_max: 64MiB, when_full: WHEN_FULL } }
sinks: { files: { archive: { path: "{tenant}.log", dir: "ARCHIVE", commit: { interval: 50ms } MORE } } }
admin: { listen: "127.0.0.1:0" }
"#;

fn pipeline(place: &Place, archive: &Path, when_full: &str, more: &str) {
    let text = PIPELINE.replace("ARCHIVE", archive.to_str().expect("text")).replace("WHEN_FULL", when_full);
    place.pipeline(&text.replace("MORE", more));
}

/// Distinct records of about a kilobyte that do not compress.
fn records(from: u64, count: u64) -> String {
    let mut dice = Dice(from + 1);
    let record = |n: u64| {
        let pad: String = (0..60).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
        format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"t{}\",\"n\":{n},\"pad\":\"{pad}\"}}\n", n % 3)
    };
    (from..from + count).map(record).collect()
}

/// Every line in the files of an archive; each is whole, and there once.
#[track_caller]
fn stored(archive: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    for name in files_below(archive).into_iter().filter(|name| name.to_string_lossy().contains(".log")) {
        for line in file_lines(&archive.join(&name)) {
            let text = String::from_utf8_lossy(&line).into_owned();
            assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok(), "half a record in {}: {text}", name.display());
            assert!(found.insert(line), "twice: {text}");
        }
    }
    found
}

fn rejected(ledger: &Ledger, reason: &str) -> u64 {
    let tenants = ledger.0["sinks"]["files"]["rejected"].as_object().expect("tenants");
    tenants.values().map(|by_reason| by_reason[reason]["records"].as_u64().unwrap_or(0)).sum()
}

fn says_no_room(running: &Running) -> bool {
    let said = running.stderr().to_lowercase();
    said.contains("no space") || said.contains("storage full")
}

/// 90 MB for an archive whose disk is full and a journal of 64 MiB.
fn full_disk(when_full: &str) -> Option<(Ledger, u64, u64)> {
    let test =
        format!("archive::enospc_with_{}", if when_full == "wait" { "wait_loses_nothing" } else { "drop_oldest_loses_what_is_counted" });
    let disks = SmallDisks::for_test(&test, "110m")?;
    const COUNT: u64 = 90_000;
    let place = Place::new();
    let archive = disks.path(0).join("archive");
    pipeline(&place, &archive, when_full, "");
    std::fs::create_dir(&archive).expect("folder made");
    place.append("in/a.log", records(0, 1_000));
    let mut running = place.start();
    place.wait_ledger(&mut running, "the first ones", |l| l.received() == 1_000 && l.sink("files", "buffered") == 0);
    let ballast = Ballast::fill(&disks.path(0));
    place.append("in/a.log", records(1_000, COUNT - 1_000));
    wait_until("it says that there is no room", || says_no_room(&running));
    if when_full == "wait" {
        // The journal is full as well, and then the source waits: it never gets to the end.
        place.wait_ledger(&mut running, "the journal is full", |l| l.received() > 55_000);
        assert!(place.ledger().received() < COUNT);
    } else {
        place.wait_received(&mut running, COUNT);
    }
    running.signal(rustix::process::Signal::KILL); // what was dropped is known after that, too
    running.wait();
    let mut running = place.start();
    wait_until("it says so again", || says_no_room(&running));
    drop(ballast);
    place.wait_ledger(&mut running, "all is delivered", |l| l.received() == COUNT && l.sink("files", "buffered") == 0);
    running.stop();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(ledger.difference("files"), 0, "{}", ledger.0);
    let found = stored(&archive);
    let input: BTreeSet<Vec<u8>> =
        lines(records(0, 1_000).as_bytes()).into_iter().chain(lines(records(1_000, COUNT - 1_000).as_bytes())).collect();
    assert!(found.is_subset(&input), "a record that nobody wrote");
    let delivered = ledger.sink("files", "delivered");
    assert_eq!(delivered, found.len() as u64);
    Some((ledger, COUNT, delivered))
}

#[test]
fn enospc_with_wait_loses_nothing() {
    let Some((ledger, count, delivered)) = full_disk("wait") else { return };
    assert_eq!((ledger.received(), ledger.kept(), delivered), (count, count, count));
}

#[test]
fn enospc_with_drop_oldest_loses_what_is_counted() {
    let Some((ledger, count, delivered)) = full_disk("drop_oldest") else { return };
    let dropped = rejected(&ledger, "dropped_oldest");
    assert!(dropped > 0 && delivered > 1_000, "{}", ledger.0);
    assert_eq!((ledger.received(), ledger.kept(), delivered + dropped), (count, count, count));
}

#[test]
fn eb_2_7_an_archive_without_room_rejects_what_is_counted_whenever_it_is_killed() {
    let place = Place::new();
    let archive = place.path("archive");
    pipeline(&place, &archive, "wait", ", room: { max_total_bytes: 2MiB, when_full: drop_newest }");
    let mut killed = 0;
    for round in 0..6 {
        place.append("in/a.log", records(round * 1_000, 1_000));
        let mut running = place.start();
        if round < 5 {
            // At whatever it does then.
            place.wait_ledger(&mut running, "some more", |l| l.received() > round * 1_000 + round * 150);
            running.signal(rustix::process::Signal::KILL);
            killed += u64::from(running.wait().code().is_none());
        } else {
            place.wait_ledger(&mut running, "all", |l| l.received() == 6_000 && l.sink("files", "buffered") == 0);
            running.stop();
        }
    }
    assert!(killed > 3, "{killed}");
    let ledger = place.recount();
    ledger.assert_settled();
    let (found, dropped) = (stored(&archive), rejected(&ledger, "no_room"));
    assert!(dropped > 2_000 && found.len() > 1_000, "{}", ledger.0);
    assert_eq!(ledger.sink("files", "delivered") + dropped, 6_000);
    assert_eq!(ledger.sink("files", "delivered"), found.len() as u64);
    let bytes: u64 = files_below(&archive).iter().map(|name| archive.join(name).metadata().expect("there").len()).sum();
    assert!(bytes <= 2 << 20, "{bytes}");
}

#[test]
fn eb_2_8_a_second_process_on_the_same_archive_is_refused_by_name() {
    let (place, other) = (Place::new(), Place::new());
    let archive = place.path("archive");
    for place in [&place, &other] {
        pipeline(place, &archive, "wait", "");
        place.append("in/a.log", records(0, 10));
    }
    let mut running = place.start();
    place.wait_received(&mut running, 10);
    let pipeline = other.path("pipeline.yaml");
    let refused = other.run(&["run", "--once", pipeline.to_str().expect("text")]).exits(1);
    let said = &refused.stderr;
    let names = [archive.display().to_string(), format!("process {}", running.pid()), place.data().display().to_string()];
    assert!(names.iter().all(|name| said.contains(name)), "{said}");
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    other.once();
    assert_eq!(other.recount().received(), 10);
}

#[test]
fn eb_2_10_a_file_that_is_removed_is_there_again_within_a_second_and_nothing_that_came_later_is_lost() {
    let place = Place::new();
    let archive = place.path("archive");
    pipeline(&place, &archive, "wait", "");
    place.append("in/a.log", records(0, 300));
    let mut running = place.start();
    place.wait_ledger(&mut running, "archived", |l| l.received() == 300 && l.sink("files", "buffered") == 0);
    let file = archive.join("t1.log");
    let removed: BTreeSet<Vec<u8>> = file_lines(&file).into_iter().collect();
    let since = std::time::Instant::now();
    std::fs::remove_file(&file).expect("removed");
    wait_until("it is there again", || file.exists());
    assert!(since.elapsed().as_millis() <= 1_100, "{:?}", since.elapsed()); // a busy machine's 100 ms
    std::fs::rename(archive.join("t2.log"), archive.join("moved away")).expect("renamed");
    place.append("in/a.log", records(300, 300));
    place.wait_ledger(&mut running, "archived", |l| l.received() == 600 && l.sink("files", "buffered") == 0);
    wait_until("the other one is there again", || archive.join("t2.log").exists());
    let page = || crate::harness::http_get(&crate::harness::admin_address(&running), "/metrics").1;
    // The page is a moment behind the file.
    wait_until("both are counted", || crate::harness::metric(&page(), "weir_archive_changed_outside_total", "") == 2);
    let said = running.stop();
    assert!(said.contains("t1.log") && said.contains("outside"), "{said}");
    let mut found = stored(&archive);
    found.extend(file_lines(&archive.join("moved away")));
    let want: BTreeSet<Vec<u8>> =
        lines((records(0, 300) + &records(300, 300)).as_bytes()).into_iter().filter(|line| !removed.contains(line)).collect();
    assert_eq!(found, want);
}

#[test]
fn eb_2_3_files_rotate_on_sighup_where_asked_and_by_the_clock() {
    let place = Place::new();
    let archive = place.path("archive");
    pipeline(&place, &archive, "wait", ", rotate: { every: 1h, on_sighup: true }, compress: gzip");
    place.append("in/a.log", records(0, 30));
    let mut running = place.start();
    place.wait_ledger(&mut running, "archived", |l| l.received() == 30 && l.sink("files", "buffered") == 0);
    let backups = || files_below(&archive).iter().filter(|name| name.to_string_lossy().ends_with(".log.gz")).count();
    assert_eq!(backups(), 0);
    running.signal(rustix::process::Signal::HUP);
    wait_until("three files were rotated", || backups() == 3);
    running.stop();
    assert_eq!(stored(&archive).len(), 30);
    // A second process with a shorter interval: what is old enough is rotated without a record.
    pipeline(&place, &archive, "wait", ", rotate: { every: 1s }, compress: gzip");
    place.append("in/a.log", records(30, 30));
    let running = place.start();
    wait_until("three more were rotated", || backups() == 6);
    running.stop();
    assert_eq!(stored(&archive).len(), 60);
}

#[test]
fn a_question_changes_no_file_of_an_archive_that_nobody_writes() {
    let place = Place::new();
    let archive = place.path("archive");
    place.pipeline(
        r#"
sources: { in: { file: { include: ["$DIR/in/*.log"] } } }
tenancy: { from: [tenant] }
sinks:
  files:
    archive:
      path: "app.log"
      dir: "$DIR/archive"
      rotate: { size: 64KiB, age: 1s }
      compress: gzip
      room: { max_total_bytes: 1MiB }
"#,
    );
    place.write("in/a.log", platform(91, 100).concat());
    place.once();
    // Somebody else's backups: too many bytes, too old, not compressed, half compressed.
    let strangers = ["app-2016-11-04T18-30-00.000.log", "app-2016-11-04T18-31-00.000.log", "app-2016-11-04T18-32-00.000.log.gz.tmp"];
    for name in strangers {
        std::fs::write(archive.join(name), vec![b'\n'; 900 << 10]).expect("written");
    }
    let tree = || -> Vec<_> {
        let files = files_below(&archive).into_iter().filter(|path| !path.ends_with(".weir.lock"));
        files.map(|path| (std::fs::read(archive.join(&path)).expect("readable"), path)).collect()
    };
    let before = tree();
    for question in [vec!["ledger"], vec!["ledger", "examples"], vec!["ledger", "--recount"]] {
        place.run(&question);
        assert!(tree() == before, "{question:?} changed the archive: {:?}", files_below(&archive));
    }
    place.once();
    assert!(strangers.iter().all(|name| !archive.join(name).exists()), "a run looks after them: {:?}", files_below(&archive));
}

#[test]
fn eb_2_9_what_was_written_is_durable_after_so_many_bytes_or_so_long() {
    // (limits, whether a few records are enough)
    for (commit, few) in [("interval: 20ms, bytes: 1GiB", true), ("interval: 1h, bytes: 64KiB", false)] {
        let place = Place::new();
        let archive = place.path("archive");
        pipeline(&place, &archive, "wait", "");
        let text = std::fs::read_to_string(place.path("pipeline.yaml")).expect("readable").replace("interval: 50ms", commit);
        place.write("pipeline.yaml", text);
        place.append("in/a.log", records(0, 10));
        let mut running = place.start();
        let delivered = |ledger: &Ledger| ledger.sink("files", "delivered");
        let ledger =
            place.wait_ledger(&mut running, "a few records", |ledger| ledger.received() == 10 && (!few || delivered(ledger) == 10));
        assert_eq!(delivered(&ledger), if few { 10 } else { 0 }, "{commit}");
        place.append("in/a.log", records(10, 200)); // 200 KiB
        place.wait_ledger(&mut running, "more records", |ledger| delivered(ledger) > 100);
        running.child().kill().expect("it runs");
        running.wait();
        // What counts as delivered is in the files, whatever the process had in memory.
        let stored = files_below(&archive).into_iter().filter(|path| path.to_string_lossy().ends_with(".log"));
        let stored: usize = stored.map(|path| file_lines(&archive.join(path)).len()).sum();
        assert!(stored > 100, "{stored} of 210 records");
    }
}
