//! The whole agent under everything at once: writers, rotation of all kinds, `kill -9`, a full disk, a sink that is away.
//!
//! In: a seed (`WEIR_SEED`, printed) that decides about kills (`WEIR_KILLS` of them), faults and pauses; the clock decides where they fall. Writers append
//! records with sequence numbers, 10,000 a second in all, each to its own log, which is rotated every second: by renaming, by copytruncate as
//! logrotate does it (the writer waits between copy and cut: what it wrote there would be its own loss), by renaming and
//! compressing, and as kubelet does for a CRI log with split records. Out: lost, doubled and broken records and breaks of order in
//! `archive` and `lake`, told from the records alone. Bound: 6 kills with each hub for `cargo test`; `SLOW=1`: 200.

use crate::harness::{Place, Running, lines};
use crate::input::Dice;
use crate::stores::file_lines;
use crate::tailing::{Ballast, SmallDisks};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PIPELINE: &str = r#"
sources:
  apps: { file: { include: [INCLUDE] } }
  pods: { file: { include: ["$DIR/in/pod/*.log"], format: cri } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: ids, quantity: id, unit: Ids, by: [tenant] }
hub: { HUB }
sinks:
  files: { archive: { path: "{tenant}.log", dir: "ARCHIVE", rotate: { size: 256KiB }, compress: zstd, commit: { interval: 30ms } } }
  store: { lake: { seal: { bytes: 256KiB, age: 150ms } } }
rates: rates.yaml
"#;
const LINES_A_SECOND: u64 = 10_000;
const ROTATE_EVERY: Duration = Duration::from_secs(1);

/// How a log is rotated.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Rename,
    CopyTruncate,
    Gzip,
    /// CRI lines, some records split; kubelet's names.
    Pod,
}

const LOGS: [(Kind, &str); 5] = [
    (Kind::Rename, "in/rename.log"),
    (Kind::CopyTruncate, "in/copy.log"),
    (Kind::Gzip, "in/gzip.log"),
    (Kind::Pod, "in/pod/0.log"),
    (Kind::CopyTruncate, "in/copy2.log"),
];

struct Log {
    kind: Kind,
    path: PathBuf,
    /// The tenant, and the number of the next record; held while the file is rotated.
    open: Mutex<(File, u64)>,
    tenant: String,
    rotations: AtomicU64,
}

/// The record with this number: the oracle makes it again.
fn record(tenant: &str, id: u64) -> String {
    // A millisecond each: the archive's rotated files are named by the newest time in them, so their names are in order too.
    let time = format!("{:02}:{:02}.{:03}", id / 60_000, id / 1000 % 60, id % 1000);
    let pad = "x".repeat((id * 31 % 120) as usize);
    format!("{{\"ts\":\"2026-11-23T03:{time}Z\",\"tenant\":\"{tenant}\",\"id\":{id},\"pad\":\"{pad}\"}}")
}

impl Log {
    fn new(place: &Place, n: usize, kind: Kind, name: &str) -> Log {
        let path = place.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder made");
        Log { kind, open: Mutex::new((append_to(&path), 0)), path, tenant: format!("w{n}"), rotations: AtomicU64::new(0) }
    }

    /// Appends `count` records in one or several writes, which need not end at a line's end.
    fn write(&self, count: u64, dice: &mut Dice) {
        let mut open = self.open.lock().expect("no writer panics with it");
        let mut bytes = Vec::new();
        for _ in 0..count {
            let text = record(&self.tenant, open.1);
            if self.kind == Kind::Pod {
                let at = dice.roll(text.len() as u64 * 3) as usize; // a third is split
                if at < text.len() {
                    bytes.extend(format!("2026-11-23T03:00:00.1Z stdout P {}\n", &text[..at]).bytes());
                    if dice.roll(4) == 0 {
                        self.put(&open.0, &mut bytes);
                        self.pod_rotates_here(&mut open.0, dice);
                    }
                    bytes.extend(format!("2026-11-23T03:00:00.1Z stdout F {}\n", &text[at..]).bytes());
                } else {
                    bytes.extend(format!("2026-11-23T03:00:00.1Z stdout F {text}\n").bytes());
                }
            } else {
                bytes.extend(text.bytes());
                bytes.push(b'\n');
            }
            open.1 += 1;
        }
        if dice.roll(3) == 0 {
            let mut rest = bytes.split_off(dice.roll(bytes.len() as u64) as usize);
            self.put(&open.0, &mut bytes);
            self.put(&open.0, &mut rest);
        } else {
            self.put(&open.0, &mut bytes);
        }
    }

    fn put(&self, mut file: &File, bytes: &mut Vec<u8>) {
        file.write_all(bytes).expect("the logged host has room");
        bytes.clear();
    }

    /// Now and then between the parts of a record.
    fn pod_rotates_here(&self, file: &mut File, dice: &mut Dice) {
        if dice.roll(200) == 0 {
            self.rotate(file);
        }
    }

    fn rotate(&self, file: &mut File) {
        let n = self.rotations.fetch_add(1, Ordering::Relaxed);
        let name = |n: u64| {
            let suffix = if self.kind == Kind::Pod { format!("20261123-{:06}", 30_000 + n) } else { format!("{:06}", 1_000 + n) };
            PathBuf::from(format!("{}.{suffix}", self.path.display()))
        };
        match self.kind {
            Kind::Rename => {
                std::fs::rename(&self.path, name(n)).expect("renamed");
                *file = append_to(&self.path);
            }
            Kind::CopyTruncate => {
                std::fs::copy(&self.path, name(n)).expect("copied");
                file.set_len(0).expect("truncated"); // opened for appending, so it goes on at 0
            }
            Kind::Gzip | Kind::Pod => {
                // The one before is compressed, complete under a name of its own before the plain one goes.
                if n > 0 && name(n - 1).exists() {
                    let plain = name(n - 1);
                    let modified = std::fs::metadata(&plain).and_then(|m| m.modified()).expect("it is there");
                    let temporary = PathBuf::from(format!("{}.tmp", plain.display()));
                    let mut encoder =
                        flate2::write::GzEncoder::new(File::create(&temporary).expect("created"), flate2::Compression::fast());
                    encoder.write_all(&std::fs::read(&plain).expect("readable")).expect("room");
                    encoder.finish().and_then(|f| f.set_modified(modified)).expect("room");
                    std::fs::rename(&temporary, format!("{}.gz", plain.display())).expect("renamed");
                    std::fs::remove_file(&plain).expect("removed");
                }
                std::fs::rename(&self.path, name(n)).expect("renamed");
                *file = append_to(&self.path);
            }
        }
    }
}

fn append_to(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("the logged host has room")
}

/// Writers and rotator until told to stop; returns what each log must have given.
fn write_and_rotate(logs: &[Log], seed: u64, stop: &AtomicBool) {
    std::thread::scope(|threads| {
        for (n, log) in logs.iter().enumerate() {
            threads.spawn(move || {
                let mut dice = Dice(seed * 100 + n as u64);
                let (began, mut written, mut rotated) = (Instant::now(), 0, Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    let due = (began.elapsed().as_secs_f64() * (LINES_A_SECOND / LOGS.len() as u64) as f64) as u64;
                    if due > written {
                        let count = 1 + dice.roll((due - written).min(200));
                        log.write(count, &mut dice);
                        written += count;
                    }
                    if rotated.elapsed() > ROTATE_EVERY {
                        rotated = Instant::now();
                        let mut open = log.open.lock().expect("no writer panics with it");
                        log.rotate(&mut open.0);
                    }
                    std::thread::sleep(Duration::from_millis(2)); // the writer's pace
                }
            });
        }
    });
}

/// What the oracle counts in one store.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    records: u64,
    lost: u64,
    doubled: u64,
    broken: u64,
    disordered: u64,
}

/// `ordered`: the lines of one tenant are in the order of the store.
fn judge(stored: &[Vec<u8>], written: &BTreeMap<String, u64>, ordered: bool) -> Verdict {
    let mut seen: BTreeMap<&str, Vec<u32>> = written.iter().map(|(tenant, count)| (tenant.as_str(), vec![0; *count as usize])).collect();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut verdict = Verdict { records: stored.len() as u64, ..Verdict::default() };
    for line in stored {
        let text = String::from_utf8_lossy(line);
        let field =
            |from: &str, to: char| text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(value, _)| value.to_string());
        let (tenant, id) = (field("\"tenant\":\"", '"'), field("\"id\":", ',').and_then(|id| id.parse::<u64>().ok()));
        let known = tenant.as_ref().zip(id).filter(|(tenant, id)| text == record(tenant, *id));
        let Some((tenant, counts)) =
            known.and_then(|(tenant, _)| seen.get_key_value(tenant.as_str()).map(|(k, _)| *k).zip(seen.get_mut(tenant.as_str())))
        else {
            if verdict.broken < 5 {
                println!("broken: {}", &text[..text.len().min(200)]);
            }
            verdict.broken += 1;
            continue;
        };
        let id = id.expect("it is known");
        match counts.get_mut(id as usize) {
            None => verdict.broken += 1, // never written
            Some(count) => *count += 1,
        }
        if ordered && last.insert(tenant, id).is_some_and(|before| before > id) {
            verdict.disordered += 1;
        }
    }
    for (tenant, counts) in &seen {
        let lost: Vec<usize> = counts.iter().enumerate().filter(|(_, n)| **n == 0).map(|(id, _)| id).collect();
        let doubled: Vec<usize> = counts.iter().enumerate().filter(|(_, n)| **n > 1).map(|(id, _)| id).collect();
        for (what, ids) in [("lost", &lost), ("doubled", &doubled)] {
            if !ids.is_empty() {
                println!("{tenant}: {} {what} of {}: {}", ids.len(), counts.len(), runs(ids));
            }
        }
        verdict.lost += lost.len() as u64;
        verdict.doubled += doubled.iter().map(|id| u64::from(counts[*id]) - 1).sum::<u64>();
    }
    verdict
}

/// Lines of the archive, rotated files of a tenant before the one being written.
fn archived(folder: &Path) -> Vec<Vec<u8>> {
    let mut names = crate::harness::files_below(folder);
    names.retain(|name| !name.to_string_lossy().ends_with(".tmp") && name.to_string_lossy() != "ballast");
    // The current file has the shortest name of its tenant.
    names.sort_by_key(|name| {
        let name = name.to_string_lossy().into_owned();
        let tenant = name[..2].to_string();
        (tenant, name.len() == "w0.log".len(), name)
    });
    names.iter().flat_map(|name| file_lines(&folder.join(name))).collect()
}

struct Tally {
    kills: u64,
    full: u64,
    sink_down: u64,
    ended: u64,
}

/// Starts and kills, with a fault in every third life. Between lives the writers go on alone for a moment.
fn kill_again_and_again(place: &Place, data: &Path, archive: &Path, kills: u64, dice: &mut Dice) -> Tally {
    let mut tally = Tally { kills: 0, full: 0, sink_down: 0, ended: 0 };
    let mut told = File::create(place.path("lives.log")).expect("the temporary folder has room");
    let pause = |ms: u64| std::thread::sleep(Duration::from_millis(ms)); // when a kill falls is the input of this test
    while tally.kills < kills {
        let mut running: Running = place.start();
        let ballast = match dice.roll(6) {
            0 => {
                pause(dice.roll(200));
                tally.full += 1;
                Some(Ballast::fill(data))
            }
            1 => {
                pause(dice.roll(200));
                tally.sink_down += 1;
                Some(Ballast::fill(archive))
            }
            _ => None,
        };
        pause(20 + dice.roll(700));
        if dice.roll(2) == 0 {
            drop(ballast); // there is room again before the kill; else after it
            pause(dice.roll(200));
        }
        if running.is_running() {
            running.signal(Signal::KILL);
            tally.kills += 1;
        } else {
            tally.ended += 1; // a full disk may end it
        }
        running.wait();
        writeln!(told, "life {}\n{}", tally.kills + tally.ended, running.stderr()).expect("the temporary folder has room");
        pause(dice.roll(100));
    }
    tally
}

/// Runs of numbers, as in `3-9 12-12`; the first few.
fn runs(ids: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for id in ids {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == *id => run.1 = *id,
            _ => runs.push((*id, *id)),
        }
    }
    runs.iter().take(8).map(|(from, to)| format!("{from}-{to}")).collect::<Vec<_>>().join(" ")
}

/// With `WEIR_KEEP=FOLDER` a place that went wrong is kept there: inputs, stores but the archive, and what each life said (`lives.log`).
fn keep(place: &Place, hub: &str, seed: u64) {
    if let Ok(folder) = std::env::var("WEIR_KEEP") {
        let to = Path::new(&folder).join(format!("{seed}-{}", hub.trim_end_matches(": {}")));
        let copied = std::process::Command::new("cp").arg("-aL").arg(place.path("")).arg(&to).status();
        println!("kept in {}: {copied:?}", to.display());
    }
}

fn ordeal(hub: &str, seed: u64, kills: u64, disks: &SmallDisks) {
    let mut dice = Dice(seed);
    let place = Place::new();
    let first = if hub.starts_with("memory") { 2 } else { 0 };
    let (data, archive) = (disks.path(first), disks.path(first + 1));
    disks.hold_data_of(first, &place);
    let include = [r#""$DIR/in/*.log""#, r#""$DIR/in/*.log*""#][dice.roll(2) as usize];
    place.pipeline(&PIPELINE.replace("HUB", hub).replace("INCLUDE", include).replace("ARCHIVE", archive.to_str().expect("text")));
    let logs: Arc<Vec<Log>> = Arc::new(LOGS.iter().enumerate().map(|(n, (kind, name))| Log::new(&place, n, *kind, name)).collect());
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    // What nobody ever saw under its name cannot be known again: every log is known before the first rotation.
    logs.iter().for_each(|log| log.write(10, &mut dice));
    let mut running = place.start();
    place.wait_received(&mut running, 10 * LOGS.len() as u64);
    running.signal(Signal::KILL);
    running.wait();
    let tally = std::thread::scope(|threads| {
        let writing = threads.spawn(|| write_and_rotate(&logs, seed, &stop));
        let tally = kill_again_and_again(&place, &data, &archive, kills, &mut dice);
        stop.store(true, Ordering::Relaxed);
        writing.join().expect("writers have room");
        tally
    });
    let took = began.elapsed();
    place.once();
    let written: BTreeMap<String, u64> =
        logs.iter().map(|l| (l.tenant.clone(), l.open.lock().expect("nobody writes any more").1)).collect();
    let (total, rotations) = (written.values().sum::<u64>(), logs.iter().map(|l| l.rotations.load(Ordering::Relaxed)).sum::<u64>());
    println!("hub {hub}, WEIR_SEED={seed}, include {include}");
    println!(
        "{total} records in {took:.1?}, {rotations} rotations, {} kills, {} times a full disk, {} times no room for the sink, {} ends by itself",
        tally.kills, tally.full, tally.sink_down, tally.ended
    );
    let done = place.run(&["search", "", "--json", "--limit", "100000000"]).good();
    let in_archive = judge(&archived(&archive), &written, true);
    let in_lake = judge(&lines(&done.stdout), &written, false);
    println!("archive {in_archive:?}\nlake    {in_lake:?}");
    let good = Verdict { records: total, ..Verdict::default() };
    if (&in_archive, &in_lake) != (&good, &good) {
        keep(&place, hub, seed);
    }
    assert_eq!((&in_archive, &in_lake), (&good, &good), "hub {hub}, WEIR_SEED={seed}: archive and lake");
    let report = place.ask(&["cost", "report", "--by", "tenant,meter"]);
    let billed: i128 = report["usage"]
        .as_array()
        .expect("usage")
        .iter()
        .map(|u| u["quantity"].as_str().expect("text").parse::<i128>().expect("a number"))
        .sum();
    let ids: i128 = written.values().map(|n| i128::from(*n) * (i128::from(*n) - 1) / 2).sum();
    assert_eq!(billed, ids, "hub {hub}, WEIR_SEED={seed}: the sum of all ids on the bill");
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!((ledger.received(), ledger.difference("files"), ledger.difference("store")), (total, 0, 0), "{}", ledger.0);
}

#[test]
fn kills_rotations_full_disks_and_absent_sinks_lose_double_and_break_nothing() {
    // The long variant does not pass yet: of 1.7 million records with 200 kills and 980 rotations a handful of split records is
    // broken, and now and then one rotated file comes twice.
    let slow = std::env::var("SLOW").is_ok_and(|slow| slow == "1");
    let test = "crash_harness::kills_rotations_full_disks_and_absent_sinks_lose_double_and_break_nothing";
    let Some(disks) = SmallDisks::for_test(test, if slow { "1g" } else { "192m" }) else { return };
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let kills = std::env::var("WEIR_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(if slow { 200 } else { 6 });
    std::thread::scope(|threads| {
        let disks = &disks;
        let all = ["journal: {}", "memory: {}"].map(|hub| threads.spawn(move || ordeal(hub, seed, kills, disks)));
        for thread in all {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn the_oracle_sees_what_is_lost_doubled_broken_and_out_of_order() {
    let written = BTreeMap::from([("w0".to_string(), 4)]);
    let line = |id| record("w0", id).into_bytes();
    let good = judge(&[line(0), line(1), line(2), line(3)], &written, true);
    assert_eq!(good, Verdict { records: 4, ..Verdict::default() });
    let half = line(2)[..40].to_vec();
    let bad = judge(&[line(1), line(0), line(1), half, line(7)], &written, true);
    assert_eq!(bad, Verdict { records: 5, lost: 2, doubled: 1, broken: 2, disordered: 1 });
}
