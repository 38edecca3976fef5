//! Checkpoint and buffer: scenarios 39 to 45.
//!
//! Positions and journal of a stopped data folder are zeroed, torn and flipped as a power loss leaves them; the hub itself crashes
//! at every operation of a simulated disk, through the same calls that the program makes.

use super::scene::{Scene, Setup, at_once, slow, with_both_hubs};
use crate::harness::{Place, files_below, root};
use crate::input::Dice;
use hub::disk::{Disk, Loss, Sim};
use hub::frame::{Count, Frame, Part};
use hub::{Hub, Limits, Next};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Files below the data folder that say how far reading is, and frames on their way.
fn checkpoint_files(scene: &Scene) -> Vec<PathBuf> {
    let data = scene.place.data();
    let mine = |name: &PathBuf| name.starts_with("hub") || name.to_string_lossy().starts_with("streams");
    files_below(&data).into_iter().filter(mine).map(|name| data.join(name)).collect()
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Zero,
    Empty,
    Half,
    TornTail,
    ZeroTail,
    Flip,
}

fn damage(path: &Path, how: Damage, dice: &mut Dice) {
    let mut bytes = std::fs::read(path).expect("readable");
    let len = bytes.len();
    match how {
        Damage::Zero => bytes.fill(0),
        Damage::Empty => bytes.clear(),
        Damage::Half => bytes.truncate(len / 2),
        Damage::TornTail => bytes.truncate(len.saturating_sub(1 + dice.roll(40) as usize)),
        Damage::ZeroTail => bytes[len.saturating_sub(1 + dice.roll(60) as usize)..].fill(0),
        Damage::Flip if len > 0 => bytes[dice.roll(len as u64) as usize] ^= 1 << dice.roll(8),
        Damage::Flip => {}
    }
    std::fs::write(path, bytes).expect("written");
}

/// Each file of the checkpoint, one after the other, in each way of `ways`; then more lines and another run.
fn survives_damage(hub: &'static str, ways: &[Damage]) {
    at_once(ways, |how| {
        let mut dice = Dice(39);
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        scene.put("a.log", "a", 100);
        scene.put("b.log", "b", 100);
        scene.start();
        scene.wait();
        scene.stop();
        let count = checkpoint_files(&scene).len();
        assert!(count >= 2, "{hub}: streams and positions lie in {count} files");
        for n in 0..count {
            let Some(path) = checkpoint_files(&scene).get(n).cloned() else { continue };
            let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
            let before = std::fs::read(&path).expect("readable");
            damage(&path, *how, &mut dice);
            let changed = std::fs::read(&path).expect("readable") != before;
            scene.put("a.log", "a", 10);
            scene.rename("b.log", &format!("b.log.{}", 9 - n)); // positions of renamed files count too
            scene.put("b.log", "b", 10);
            println!("{hub}, {how:?} of {name}");
            scene.start();
            scene.wait_ledger("the new lines are read", |l| l.residual() == 0 && l.received() > 0);
            let (a, b) = (scene.wanted("a").len(), scene.wanted("b").len());
            crate::harness::wait_until(&format!("{hub}, {how:?} of {name}: all lines are in the archive: {}", scene.stderr()), || {
                !scene.running().is_running() || (scene.archived("a").len() >= a && scene.archived("b").len() >= b)
            });
            let said = scene.stop();
            scene.check_lines(true);
            let tells = said.contains(&name) || said.contains("damaged") || said.contains("torn") || said.contains("cut");
            assert!(tells || !changed, "{hub}, {how:?} of {name} is passed over in silence: {said}");
        }
        assert_eq!(scene.place.ledger().residual(), 0);
    });
}

/// Happens: A power loss leaves the checkpoint zeroed, empty or torn.
/// Weir: Checksums tell; the older generation or the stores' own positions repair it, and it says so. It starts, re-reads nothing into the stores, loses nothing.
/// Lost by: BT#3537; V PR 25447
#[test]
fn s39_a_zeroed_or_torn_checkpoint_is_repaired_and_told() {
    with_both_hubs(|hub| survives_damage(hub, &[Damage::Zero, Damage::Empty, Damage::Half, Damage::TornTail, Damage::ZeroTail]));
}

/// Happens: A flipped bit in the checkpoint: others do not start, or read everything again.
/// Weir: As 39.
/// Lost by: OCC#35899, OCC#36840, OCC#49735, OCC#5894
#[test]
fn s40_a_flipped_bit_in_the_checkpoint_neither_stops_the_start_nor_doubles_a_record() {
    with_both_hubs(|hub| survives_damage(hub, &[Damage::Flip; 3]));
}

/// Happens: The checkpoint is ahead of delivery when the agent is killed.
/// Weir: Positions move when bytes are durable: in the journal, or with the memory hub when the slowest sink has them.
/// Lost by: OCC#45120, OCC#31074; V#18820; Fluent Bit by design
#[test]
fn s41_killed_before_anything_was_delivered() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup {
            hub,
            files: "",
            sinks: ", slow: { archive: { path: \"{tenant}.log\", commit: { interval: 1h, bytes: 1GiB } } }",
            ..Setup::default()
        });
        for round in 0..4 {
            scene.put("a.log", "a", 500);
            scene.start();
            let want = scene.expected();
            scene.wait_ledger("received", |l| l.received() >= want && (round > 0 || l.sink("slow", "buffered") == want));
            scene.kill();
            if round == 1 {
                scene.rename("a.log", "a.log.1");
            }
        }
        scene.start();
        scene.finish();
        let path = crate::stores::archive_folder(&scene.place.data(), "slow").join("a.log");
        assert!(
            crate::stores::file_lines(&path) == scene.wanted("a"),
            "{hub}: the sink that had committed nothing has every line once, in order"
        );
    });
}

/// Happens: The buffer is torn or damaged after an unclean stop.
/// Weir: Recovers to the last good frame, says so, and reads what is missing from the logs again; it is never alive and collecting nothing.
/// Lost by: V#16525, V#17644, V#18336; FB#11847, FB#5265, FB#5003, FB#7279
#[test]
fn s42_a_buffer_with_undelivered_frames_is_torn_at_its_end() {
    at_once(&[1, 2, 3, 4, 5, 6], |seed| {
        let mut dice = Dice(*seed);
        let slow_sink = ", slow: { archive: { path: \"{tenant}.log\", commit: { interval: 1h, bytes: 1GiB } } }";
        let mut scene = Scene::of(Setup { sinks: slow_sink, ..Setup::default() });
        for _ in 0..3 {
            for _ in 0..4 {
                scene.put("a.log", "a", 100);
                if !scene.is_started() {
                    scene.start();
                }
                let want = scene.expected();
                scene.wait_ledger("received", |l| l.received() >= want); // a frame for each
            }
            scene.kill();
            let last = checkpoint_files(&scene).into_iter().filter(|p| p.extension().is_some_and(|e| e == "seg")).max().expect("a segment");
            damage(&last, [Damage::TornTail, Damage::ZeroTail][(*seed % 2) as usize], &mut dice);
        }
        println!("seed {seed}");
        scene.start();
        scene.put("a.log", "a", 10);
        let all = scene.wanted("a").len();
        crate::harness::wait_until("every line is in the archive", || scene.archived("a").len() >= all);
        scene.stop();
        scene.check_lines(true);
        let path = crate::stores::archive_folder(&scene.place.data(), "slow").join("a.log");
        assert!(crate::stores::file_lines(&path) == scene.wanted("a"), "seed {seed}: the sink that had committed nothing");
        assert_eq!(scene.place.ledger().residual(), 0);
    });
}

/// Happens: A restart with a large backlog in the buffer runs out of memory.
/// Weir: Frames are read from disk as sinks take them; memory stays within its bound whatever the backlog.
/// Lost by: V#26035
#[test]
fn s43_a_restart_with_a_big_backlog_stays_within_memory() {
    let mut scene = Scene::of(Setup { sinks: ", out: { stdout: {} }", more: "memory: 128MiB", ..Setup::default() });
    let lines = if slow() { 4_000_000 } else { 300_000 };
    let blocked = scene.start_blocked();
    for _ in 0..lines / 50_000 {
        scene.put("a.log", "a", 50_000);
    }
    scene.wait();
    scene.kill();
    drop(blocked);
    let backlog: u64 = checkpoint_files(&scene).iter().map(|p| std::fs::metadata(p).map_or(0, |m| m.len())).sum();
    assert!(backlog > 100 * lines as u64, "{backlog} bytes of backlog");
    let blocked = scene.start_blocked();
    scene.put("a.log", "a", 10);
    scene.wait();
    let reader = blocked.read();
    scene.wait_ledger("the backlog is delivered", |l| l.sink("out", "buffered") == 0);
    let peak = scene.running().peak_bytes();
    scene.stop();
    assert!(peak < 160 << 20, "{} MiB resident for a backlog of {} MiB", peak >> 20, backlog >> 20);
    let got = reader.join().expect("it reads");
    // At least once: what the first run wrote into the pipe may come again, and nothing but that.
    assert!(got.len() <= scene.wanted("a").len() && scene.wanted("a").ends_with(&got) || got == scene.wanted("a"), "{} lines", got.len());
    scene.check();
}

/// A frame of one part, (from, to] of stream 7.
fn frame(from: u64, to: u64) -> Frame {
    let mut frame = Frame { tenants: vec![(*b"a").into()], ..Frame::default() };
    let line = format!("{from}-{to}");
    frame.rows.bytes.extend(line.as_bytes());
    frame.rows.ends.push(line.len() as u32);
    frame.rows.tenant.push(0);
    frame.rows.time.push(0);
    frame.rows.severity.push(9);
    frame.rows.weight.push(1);
    frame.rows.position.push(to);
    frame.rows.origin_bytes.push(line.len() as u32);
    frame.rows.notes.push(0);
    frame.parts.push(Part {
        stream: flow::event::StreamId(7),
        from,
        to,
        resume: to,
        records_bytes: to - from,
        rows: 0..1,
        counts: vec![Count { tenant: 0, outcome: flow::event::Outcome::Kept, records: 1, bytes: line.len() as u64 }],
        ..Part::default()
    });
    frame
}

/// Three frames fill a segment.
fn small() -> Limits {
    Limits {
        when_full: hub::WhenFull::Wait,
        bytes_max: 1 << 20,
        window_bytes_max: 1500,
        segment_bytes: 700,
        sync_interval: Duration::from_millis(1),
        sync_bytes: 1 << 20,
    }
}

/// Appends, commits and delivers until the disk crashes at operation `at`, or all is done; then opens what the crash left and
/// demands: every frame that was promised, in order, each as it was, and no other. False: there were fewer operations.
fn crash_hub(at: u64, loss: Loss, fail: bool) -> bool {
    let sim = Arc::new(Sim::new(at));
    let dir = Path::new("/data/hub");
    if fail {
        sim.fail_at(at, std::io::ErrorKind::StorageFull)
    } else {
        sim.crash_at(at)
    }
    let mut promised = 0;
    let mut delivered = 0;
    let mut work = || -> Option<()> {
        let (hub, _) = Hub::open_journal(Disk::Sim(Arc::clone(&sim)), dir, small(), 10).ok()?;
        let hub = Arc::new(hub);
        let mut cursor = hub.cursor("files", HashMap::new());
        for n in 1..=12 {
            hub.accept(frame((n - 1) * 10, n * 10)).ok()?;
            hub.commit().ok()?;
            promised = n;
            if n % 2 == 0 {
                for _ in 0..2 {
                    if let Next::Frame(frame) = cursor.next(Duration::ZERO).ok()? {
                        delivered = frame.seq;
                    }
                }
                cursor.committed(delivered).ok()?;
            }
        }
        Some(())
    };
    let _ = work(); // ends early where the disk fails
    let met = sim.ops() >= at;
    let after = Arc::new(sim.reboot(loss));
    let opened = Hub::open_journal(Disk::Sim(after), dir, small(), 10);
    let (hub, recovered) = opened.unwrap_or_else(|e| panic!("operation {at}, {loss:?}: it does not open: {e}"));
    assert!(
        recovered.last_seq >= promised && recovered.last_seq <= 12,
        "operation {at}, {loss:?}: {} of {promised} promised frames",
        recovered.last_seq
    );
    let hub = Arc::new(hub);
    let has = if delivered == 0 { HashMap::new() } else { HashMap::from([(flow::event::StreamId(7), delivered * 10)]) };
    let mut cursor = hub.cursor("files", has);
    let mut next = delivered + 1;
    while let Ok(Next::Frame(got)) = cursor.next(Duration::ZERO) {
        let want = frame((got.seq - 1) * 10, got.seq * 10);
        assert!(got.seq <= next && got.rows == want.rows, "operation {at}, {loss:?}: frame {} where {next} was due", got.seq);
        next = got.seq.max(next - 1) + 1;
    }
    assert_eq!(next, recovered.last_seq + 1, "operation {at}, {loss:?}: frames delivered after the crash");
    met
}

/// Happens: kill -9, power loss or a full disk at any step of writing, rotating and deleting a buffer segment.
/// Weir: Whatever the step and whatever the disk loses of what was not synced: every promised frame is there once, in order. Run at each operation of a simulated disk.
/// Lost by: V PR 25570, PR 25795
#[test]
fn s44_a_crash_at_each_step_of_a_segments_life_keeps_every_promised_frame() {
    for fail in [false, true] {
        let mut at = 1;
        while crash_hub(at, Loss::LoseUnsynced, fail) {
            for loss in (0..if slow() { 200 } else { 12 }).map(Loss::Seeded).chain([Loss::KeepAll]) {
                crash_hub(at, loss, fail);
            }
            at += 1;
        }
        assert!(at > 50, "only {at} operations");
    }
}

/// Happens: Upgrade: positions and a part-full buffer of an older version.
/// Weir: Reads version 1 of frames, accounts and registers, delivers what waits in them, and goes on in today's.
/// Lost by: FB suite, "DB migration"
/// Limit: downgrade: an older version is not promised to read a newer one's folder
#[test]
fn s45_a_data_folder_of_the_first_version_is_read_and_gone_on_with() {
    for hub in ["journal", "memory"] {
        let place = Place::new();
        let from = root().join("tests/data/v1").join(hub);
        for name in files_below(&from) {
            place.write(name.to_str().expect("text"), std::fs::read(from.join(&name)).expect("committed"));
        }
        // 100 lines are delivered to `files`; the lake has none: the journal holds them, the memory hub reads them again.
        stand_in_for_the_inode(&place);
        place.append("in/a.log", (100..150).map(line).collect::<String>());
        let once = || {
            let mut command = crate::harness::weir();
            command.args(["run", "--once", "--json", "pipeline.yaml", "--data", "data"]).current_dir(place.path(""));
            crate::harness::finish(command).good()
        };
        once();
        place.append("in/a.log", (150..160).map(line).collect::<String>());
        once();
        let want: Vec<Vec<u8>> = (0..160).map(|n| line(n).trim_end().as_bytes().to_vec()).collect();
        assert!(crate::stores::archive_lines(&place.data(), "files") == want, "{hub}: the archive");
        crate::input::assert_same_lines(hub, &place.search(""), &want);
        let ledger = place.recount();
        ledger.assert_settled();
        assert_eq!((ledger.received(), ledger.difference("files"), ledger.difference("store")), (160, 0, 0), "{hub}: {}", ledger.0);
    }
}

fn line(n: u32) -> String {
    format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"a\",\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(40))
}

/// The register names the inode that the log had where the folder was made; an upgrade in place would find it.
fn stand_in_for_the_inode(place: &Place) {
    use std::os::unix::fs::MetadataExt;
    let path = place.data().join("streams.log");
    let text = std::fs::read_to_string(&path).expect("committed");
    let json = text.trim_end().split_once(' ').expect("a checksum and an entry").1;
    let mut entry: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let meta = std::fs::metadata(place.path("in/a.log")).expect("committed");
    let old = (entry["dev"].to_string(), entry["ino"].to_string());
    entry["dev"] = meta.dev().into();
    entry["ino"] = meta.ino().into();
    // The order of the keys stays: only the two numbers change.
    let json = json
        .replace(&format!("\"dev\":{}", old.0), &format!("\"dev\":{}", entry["dev"]))
        .replace(&format!("\"ino\":{}", old.1), &format!("\"ino\":{}", entry["ino"]));
    std::fs::write(&path, format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))).expect("written");
}
