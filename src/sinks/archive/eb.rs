//! The requirements EB 2.1 to 2.10 on the archive, each as a test of its name; sizes, names and crashes are in `tests`.

use super::tests::*;
use super::*;
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use hub::disk::Loss;
use std::collections::BTreeMap;
use std::sync::Arc;

const HOUR: i64 = 3_600 * NANOS_PER_SECOND;

/// One row of 9 bytes and a newline, arrived at `at`.
fn row_at(seq: u64, positions: &mut BTreeMap<u64, u64>, text: &str, time: i64, at: i64) -> Frame {
    let mut frame = frame(seq, positions, &[(1, b"t", None, text.as_bytes().to_vec(), time)]);
    frame.received = UnixNanos(at);
    frame
}

fn names(disk: &Disk, settings: &Settings) -> Vec<String> {
    tree(disk, &settings.dir).into_keys().filter(|name| name != log::NAME && name != lock::NAME).collect()
}

/// Backups of `app.log` by age, then the file itself: their contents, decompressed.
fn contents(disk: &Disk, settings: &Settings) -> Vec<String> {
    let newest = rotate::Stamp { time_ms: i64::MAX, clash: 0 };
    let mut files: Vec<(rotate::Stamp, String)> = Vec::new();
    for (name, bytes) in tree(disk, &settings.dir) {
        if name.starts_with("app") {
            let text = String::from_utf8(unpack(&name, &bytes).unwrap()).unwrap();
            files.push((rotate::parse_backup("app.log", &name, &TimeZone::UTC).unwrap_or(newest), text));
        }
    }
    files.sort();
    files.into_iter().map(|f| f.1).collect()
}

#[test]
fn eb_2_1_lumberjacks_files_are_taken_over_and_nothing_else_is_touched() {
    for (compress, suffix) in [(Compress::Gzip, ".gz"), (Compress::Zstd, ".zst")] {
        let folder = Folder::new("lumberjack");
        let settings = Settings { backups: 2, compress, ..real(&folder, "server.log", 0) };
        let at = |name: &str| settings.dir.join(name);
        std::fs::create_dir_all(&settings.dir).unwrap();
        for second in 1..=4 {
            std::fs::write(at(&format!("server-2016-11-04T18-30-0{second}.000.log")), format!("line {second}\n")).unwrap();
        }
        std::fs::write(at("server-2016-11-04T18-30-03.000.log.gz"), b"\x1f\x8b half of one").unwrap();
        std::fs::write(at("server-foo.log"), b"foreign\n").unwrap();
        std::fs::write(at("other-2016-11-04T18-30-01.000.log"), b"foreign\n").unwrap();
        std::fs::write(at("notes.tmp"), b"foreign\n").unwrap();
        std::fs::create_dir(at("server-2016-11-04T18-30-05.000.log")).unwrap();
        let mut archive = open(&Disk::Real, &settings).unwrap();
        archive.write(&row_at(1, &mut BTreeMap::new(), "123456789", T0, T0)).unwrap();
        archive.commit().unwrap();
        let mut found: Vec<String> =
            std::fs::read_dir(&settings.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        let mut want: Vec<String> = [
            ".weir.lock",
            "notes.tmp",
            "other-2016-11-04T18-30-01.000.log",
            "server-2016-11-04T18-30-05.000.log",
            "server-foo.log",
            "server.log",
        ]
        .map(String::from)
        .to_vec();
        want.extend(["03", "04"].map(|second| format!("server-2016-11-04T18-30-{second}.000.log{suffix}")));
        if compress == Compress::Zstd {
            want.push("server-2016-11-04T18-30-03.000.log.gz".into()); // the same backup still, of another make
        }
        want.sort();
        assert_eq!(found, want);
        let packed = at(&format!("server-2016-11-04T18-30-03.000.log{suffix}"));
        assert_eq!(unpack(suffix, &std::fs::read(packed).unwrap()).unwrap(), b"line 3\n", "rebuilt from the original");
        assert!(at("server-2016-11-04T18-30-05.000.log").is_dir());
        assert_eq!(archive.stats().delete_failures + archive.stats().pack_failures, 0);
        if compress == Compress::Gzip {
            let counted = Archive::recount(&Disk::Real, &settings).unwrap();
            assert_eq!(counted, BTreeMap::from([(b"server.log".to_vec(), 3)]));
        }
    }
}

#[test]
fn eb_2_1_backups_of_files_that_are_not_written_are_somebody_elses() {
    let (_, disk) = sim();
    let room = Room { free_bytes_min: 0, total_bytes_max: 100 };
    let settings = Settings { backups: 1, age: Some(Span(MS)), room, ..settings("{tenant}.log", 20, Compress::Gzip) };
    disk.create_dir_all(&settings.dir, SITE_FOLDER).unwrap();
    let foreign = ["nginx-2016-11-04T18-30-00.000.log", "nginx-2016-11-04T18-29-00.000.log", "nginx-2016-11-04T18-28-00.000.log.gz.tmp"];
    for name in foreign {
        disk.create_new(&settings.dir.join(name)).unwrap().append(&[b'x'; 500]).unwrap();
    }
    let mut archive = open(&disk, &settings).unwrap();
    let mut positions = BTreeMap::new();
    for n in 0..30 {
        archive.write(&row_at(n, &mut positions, "123456789", T0 + n as i64 * 10 * MS, T0)).unwrap();
        archive.commit().unwrap();
    }
    archive.finish().unwrap();
    drop(archive);
    open(&disk, &settings).unwrap();
    assert!(foreign.iter().all(|name| disk.len(&settings.dir.join(name)).unwrap() == 500), "{:?}", names(&disk, &settings));
}

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn eb_2_1_names_in_local_time_are_read_back_as_the_instants_they_are_of() {
    // A zone, an instant, its name, and the instant that the name is read back as, where it is another one.
    let table = [
        ("UTC", "2016-11-04T18:30:00Z", "2016-11-04T18-30-00.000", None),
        ("Europe/Berlin", "2026-07-01T10:00:00.250Z", "2026-07-01T12-00-00.250", None),
        ("Europe/Berlin", "2026-01-01T23:30:00Z", "2026-01-02T00-30-00.000", None),
        ("America/New_York", "2016-11-04T18:30:00Z", "2016-11-04T14-30-00.000", None),
        ("Asia/Kathmandu", "2026-11-24T00:20:00Z", "2026-11-24T06-05-00.000", None),
        // Daylight saving begins at 01:00 UTC on 29 March and ends at 01:00 UTC on 25 October 2026.
        ("Europe/Berlin", "2026-03-29T00:59:59.999Z", "2026-03-29T01-59-59.999", None),
        ("Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T03-00-00.000", None),
        ("Europe/Berlin", "2026-10-24T23:59:59Z", "2026-10-25T01-59-59.000", None),
        ("Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T02-30-00.000", Some("2026-10-25T01:30:00Z")), // twice on the clock
        ("Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02-30-00.000", None),
        ("Europe/Berlin", "2026-10-25T02:00:00Z", "2026-10-25T03-00-00.000", None),
    ];
    for (zone, at, time, read) in table {
        let zone = super::zone(zone).unwrap();
        let stamp = rotate::Stamp { time_ms: ms(at), clash: 0 };
        let name = rotate::backup_name("server.log", stamp, &zone);
        assert_eq!(name, format!("server-{time}.log"));
        for name in [name.clone(), format!("{name}.gz")] {
            let found = rotate::parse_backup("server.log", &name, &zone).unwrap();
            assert_eq!(found, rotate::Stamp { time_ms: ms(read.unwrap_or(at)), clash: 0 }, "{name}");
        }
        // What is chosen for a new backup is what its name will be read back as, so nothing is ever overwritten.
        let chosen = rotate::choose_stamp(ms(at), &[], &zone);
        assert_eq!(rotate::parse_backup("server.log", &rotate::backup_name("server.log", chosen, &zone), &zone), Some(chosen));
    }
    // An hour that the clock never showed: nobody wrote it, and it is read all the same.
    let berlin = super::zone("Europe/Berlin").unwrap();
    assert!(rotate::parse_backup("server.log", "server-2026-03-29T02-30-00.000.log", &berlin).is_some());
    assert_eq!(rotate::parse_backup("server.log", "server-2026-13-29T02-30-00.000.log", &berlin), None);
    for ms in [i64::MIN / 1_000_000, -1, 0, i64::MAX / 1_000_000] {
        let stamp = rotate::Stamp { time_ms: ms, clash: 3 };
        rotate::parse_backup("server.log", &rotate::backup_name("server.log", stamp, &berlin), &berlin);
    }
}

#[test]
fn eb_2_1_local_names_keep_order_and_age_across_daylight_saving() {
    let run = |names: &str, age: Option<Span>| {
        let (_, disk) = sim();
        let settings = Settings { names: super::zone(names).unwrap(), age, ..settings("app.log", 10, Compress::Gzip) };
        let mut archive = open(&disk, &settings).unwrap();
        let mut positions = BTreeMap::new();
        let start = ms("2026-10-24T23:50:00Z") * MS;
        for n in 0..16 {
            // Every ten minutes from before to after the hour that is there twice.
            let time = start + n * HOUR / 6;
            archive.write(&row_at(n as u64, &mut positions, &format!("row {n:02} .."), time, time)).unwrap();
            archive.commit().unwrap();
        }
        archive.finish().unwrap();
        let mut files: Vec<(rotate::Stamp, String)> = Vec::new();
        for (name, bytes) in tree(&disk, &settings.dir).into_iter().filter(|(name, _)| name.starts_with("app-")) {
            let stamp = rotate::parse_backup("app.log", &name, &settings.names).unwrap();
            files.push((stamp, String::from_utf8(unpack(&name, &bytes).unwrap()).unwrap()));
        }
        files.sort();
        files.into_iter().map(|file| file.1[4..6].parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let all: Vec<u32> = (0..15).collect();
    assert_eq!((run("Europe/Berlin", None), run("UTC", None)), (all.clone(), all));
    // Older than 65 minutes before the newest row, that of 02:20 UTC: those before 01:15, however often the clock showed it. Names
    // of the repeated hour may keep a file for one hour more, and never less.
    let (local, utc) = (run("Europe/Berlin", Some(Span(65 * 60 * NANOS_PER_SECOND))), run("UTC", Some(Span(65 * 60 * NANOS_PER_SECOND))));
    assert_eq!(utc, [9, 10, 11, 12, 13, 14]);
    assert!(local.ends_with(&utc) && local[0] >= 3, "{local:?}");
    let early = Some(Span(25 * 60 * NANOS_PER_SECOND));
    assert_eq!((run("Europe/Berlin", early), run("UTC", early)), (vec![13, 14], vec![13, 14]), "out of that hour they agree");
}

#[test]
fn eb_2_2_two_forced_rotations_at_one_frozen_instant_keep_both() {
    check_frozen(None, ["", "-1", "-2"]);
    // A folder's name is taken, too; what comes later sorts behind it.
    check_frozen(Some("app-2016-11-04T18-30-00.000-1.log"), ["-2", "-3", "-4"]);
}

#[track_caller]
fn check_frozen(taken: Option<&str>, want: [&str; 3]) {
    let folder = Folder::new(&format!("frozen-{}", taken.is_some()));
    let settings = Settings { rotate_on_hangup: true, compress: Compress::None, ..real(&folder, "app.log", 0) };
    taken.inspect(|name| std::fs::create_dir_all(settings.dir.join(name)).unwrap());
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let mut positions = BTreeMap::new();
    for (seq, text) in ["first ...", "second ..", "third ..."].into_iter().enumerate() {
        archive.write(&row_at(seq as u64, &mut positions, text, T0, T0)).unwrap();
        archive.reopen().unwrap();
        archive.reopen().unwrap(); // an empty file is not rotated
    }
    assert_eq!(archive.stats().rotations, 3);
    let read = |name: &str| std::fs::read_to_string(settings.dir.join(name)).unwrap();
    assert_eq!(read("app.log"), "");
    let backups = want.map(|clash| read(&format!("app-2016-11-04T18-30-00.000{clash}.log")));
    assert_eq!(backups, ["first ...\n", "second ..\n", "third ...\n"]);
}

#[test]
fn eb_2_3_files_rotate_by_interval_and_calendar_whether_records_come_or_not() {
    let (_, disk) = sim();
    let calendar = Calendar { every: Some(Span(10 * HOUR)), at: Some((Boundary::Day, zone("Europe/Berlin").unwrap())) };
    let settings = Settings { calendar, ..settings("app.log", 0, Compress::Gzip) };
    let mut archive = open(&disk, &settings).unwrap();
    let mut positions = BTreeMap::new();
    let midnight = T0 + 4 * HOUR + HOUR / 2; // 2016-11-05T00:00 in Berlin is 23:00 UTC
    let arrivals = [T0, T0 + HOUR, midnight - 1, midnight, midnight + 10 * HOUR - 1, midnight + 10 * HOUR, midnight + 5 * HOUR];
    for (n, at) in arrivals.into_iter().enumerate() {
        archive.write(&row_at(n as u64, &mut positions, &format!("row {n} ..."), T0 + n as i64 * MS, at)).unwrap();
    }
    archive.commit().unwrap();
    assert_eq!(contents(&disk, &settings), ["row 0 ...\nrow 1 ...\nrow 2 ...\n", "row 3 ...\nrow 4 ...\n", "row 5 ...\nrow 6 ...\n"]);
    // Opened again, a file is as old as before; the clock rotates it where no records come, once.
    drop(archive);
    let mut archive = open(&disk, &settings).unwrap();
    let next = midnight + 20 * HOUR;
    archive.tick(Some(UnixNanos(next - 1))).unwrap();
    archive.tick(None).unwrap();
    assert_eq!(archive.stats().rotations, 0);
    for _ in 0..3 {
        archive.tick(Some(UnixNanos(next))).unwrap();
    }
    assert_eq!(archive.stats().rotations, 1);
    assert_eq!(contents(&disk, &settings).len(), 4);
    assert_eq!(disk.len(&settings.dir.join("app.log")).unwrap(), 0);
    // Right after records of a sink that lags the clock says nothing.
    archive.write(&row_at(8, &mut positions, "late ....", T0, T0)).unwrap();
    archive.tick(Some(UnixNanos(next + 1))).unwrap();
    assert_eq!(archive.stats().rotations, 1);
}

#[test]
fn eb_2_3_a_rotation_by_time_that_fails_is_tried_again_a_second_later() {
    let settings = Settings { calendar: Calendar { every: Some(Span(HOUR)), at: None }, ..settings("app.log", 0, Compress::None) };
    let mut found = 0;
    for op in 1..60 {
        let (sim, disk) = sim();
        let mut positions = BTreeMap::new();
        let mut archive = open(&disk, &settings).unwrap();
        archive.write(&row_at(1, &mut positions, "row 1 ...", T0, T0)).unwrap();
        archive.commit().unwrap();
        sim.fail_at(sim.ops() + op, io::ErrorKind::PermissionDenied);
        if archive.write(&row_at(2, &mut positions, "row 2 ...", T0, T0 + HOUR)).is_err() || archive.stats().rotate_failures == 0 {
            continue;
        }
        found += 1;
        archive.write(&row_at(3, &mut positions, "row 3 ...", T0, T0 + HOUR + NANOS_PER_SECOND - 1)).unwrap();
        archive.commit().unwrap();
        assert_eq!(contents(&disk, &settings), ["row 1 ...\nrow 2 ...\nrow 3 ...\n"], "it goes on into the old file");
        archive.write(&row_at(4, &mut positions, "row 4 ...", T0, T0 + HOUR + NANOS_PER_SECOND)).unwrap();
        archive.commit().unwrap();
        assert_eq!(contents(&disk, &settings), ["row 1 ...\nrow 2 ...\nrow 3 ...\n", "row 4 ...\n"]);
    }
    assert_eq!(found, 1);
}

/// A life in which files rotate by calendar, by hangup and by size, with backups deleted for room where `total` says so.
fn live_by_the_clock(disk: &Disk, settings: &Settings, frames: &[Frame]) -> anyhow::Result<()> {
    let mut archive = open(disk, settings)?;
    for frame in frames {
        if archive.make_room(frame)? {
            archive.write(frame)?;
        }
        match frame.seq % 3 {
            0 => archive.reopen()?,
            1 => archive.commit()?,
            _ => archive.tick(Some(UnixNanos(frame.received.0 + HOUR)))?,
        }
    }
    archive.finish()
}

/// Crashes everywhere; every row is there once, in order, or, with `total`, is of the oldest ones.
#[track_caller]
fn check_crashes_by_the_clock(compress: Compress, total_bytes_max: u64) {
    let settings = Settings {
        calendar: Calendar { every: Some(Span(4 * HOUR)), at: Some((Boundary::Hour, zone("UTC").unwrap())) },
        rotate_on_hangup: true,
        room: Room { free_bytes_min: 0, total_bytes_max },
        ..settings("{tenant}/{service}.log", 250, compress)
    };
    let mut frames = workload();
    frames.iter_mut().for_each(|frame| frame.received = UnixNanos(T0 + frame.seq as i64 * HOUR / 4));
    let (clean, disk) = sim();
    live_by_the_clock(&disk, &settings, &frames).unwrap();
    let want = expected(&frames);
    let mut deleted = 0;
    for op in 1..=clean.ops() {
        for loss in losses(op) {
            let (sim, disk) = sim();
            sim.crash_at(op);
            let _ = live_by_the_clock(&disk, &settings, &frames);
            let disk = Disk::Sim(Arc::new(sim.reboot(loss)));
            live_by_the_clock(&disk, &settings, &frames).unwrap();
            let found = rows_by_path(&disk, &settings).map_err(|e| format!("crash at {op}, {loss:?}: {e}")).unwrap();
            for (path, rows) in &want {
                let there = found.get(path).cloned().unwrap_or_default();
                assert!(rows.ends_with(&there), "crash at {op}, {loss:?}: {path} has {there:#?}");
                deleted += rows.len() - there.len();
                assert!(total_bytes_max > 0 || there.len() == rows.len(), "crash at {op}, {loss:?}: {path} lost rows");
            }
            let bytes: usize = tree(&disk, &settings.dir).iter().filter(|(name, _)| *name != log::NAME).map(|(_, b)| b.len()).sum();
            assert!(total_bytes_max == 0 || bytes as u64 <= total_bytes_max, "crash at {op}, {loss:?}: {bytes} bytes");
        }
    }
    assert_eq!(deleted > 0, total_bytes_max > 0);
}

#[test]
fn eb_2_3_every_record_is_there_once_after_a_crash_anywhere_between_rotations_by_time() {
    check_crashes_by_the_clock(Compress::Gzip, 0);
}

#[test]
fn eb_2_7_every_record_is_there_once_or_deleted_with_its_backup_after_a_crash_anywhere() {
    check_crashes_by_the_clock(Compress::None, 1_300);
}

#[test]
fn eb_2_5_what_was_left_half_compressed_without_a_log_is_finished() {
    let names = ["app-2016-11-04T18-30-00.000.log", "app-2016-11-04T18-30-00.000-1.log"];
    for (compress, suffix) in [(Compress::Gzip, ".gz"), (Compress::Zstd, ".zst")] {
        let settings = settings("app.log", 0, compress);
        for crash in 0..40 {
            let (sim, disk) = sim();
            disk.create_dir_all(&settings.dir, SITE_FOLDER).unwrap();
            let put = |name: &str, bytes: &[u8]| {
                let mut file = disk.create_new(&settings.dir.join(name)).unwrap();
                file.append(bytes).unwrap();
                file.sync("test").unwrap();
            };
            names.iter().for_each(|name| put(name, b"line\n"));
            put(&format!("{}{suffix}", names[0]), b"half of one");
            put(&format!("{}{suffix}.tmp", names[1]), b"half of one");
            put("app-2016-11-04T18-29-00.000.log.gz.tmp", b"an orphan");
            put("app.log.tmp", b"not ours");
            disk.sync_dir(&settings.dir, "test").unwrap();
            if crash > 0 {
                sim.crash_at(sim.ops() + crash);
            }
            let first = row_at(1, &mut BTreeMap::new(), "123456789", T0, T0);
            let live = |disk: &Disk| -> anyhow::Result<()> {
                let mut archive = open(disk, &settings)?;
                archive.write(&first)?;
                archive.finish()
            };
            let _ = live(&disk);
            let disk = Disk::Sim(Arc::new(sim.reboot(Loss::KeepAll)));
            live(&disk).unwrap();
            let mut files = tree(&disk, &settings.dir);
            assert_eq!(files.remove("app.log.tmp").unwrap(), b"not ours");
            assert_eq!(files.remove("app.log").unwrap(), b"123456789\n");
            files.remove(log::NAME);
            assert_eq!(files.len(), 2, "crash at {crash}: {:?}", files.keys());
            for name in names {
                let name = format!("{name}{suffix}");
                assert_eq!(unpack(&name, &files[&name]).unwrap(), b"line\n", "crash at {crash}");
            }
        }
    }
}

#[test]
fn eb_2_7_the_oldest_backups_go_first_then_the_archive_waits() {
    let (_, disk) = sim();
    let room = Room { free_bytes_min: 0, total_bytes_max: 60 };
    let settings = Settings { room, ..settings("{tenant}.log", 20, Compress::None) };
    let mut archive = open(&disk, &settings).unwrap();
    let mut positions = BTreeMap::new();
    let mut put = |archive: &mut Archive, tenant: &'static [u8], n: i64| {
        let next = frame(n as u64, &mut positions, &[(1, tenant, None, format!("row {n:03}..").into_bytes(), T0 + n * MS)]);
        let written = archive.write(&next).and_then(|()| archive.commit());
        if written.is_err() {
            positions.insert(1, archive.taken.get(&StreamId(1)).copied().unwrap_or(0));
        }
        written
    };
    for n in 0..6 {
        put(&mut archive, if n % 2 == 0 { b"a" } else { b"b" }, n).unwrap();
    }
    assert_eq!(archive.stats().deleted, 0);
    for n in 6..12 {
        put(&mut archive, b"c", n).unwrap(); // each needs room that an older backup has
    }
    let found = names(&disk, &settings);
    assert!(!found.iter().any(|name| name.starts_with("a-")) && !found.iter().any(|name| name.starts_with("b-")), "{found:?}");
    assert!(found.contains(&"a.log".to_string()) && found.contains(&"b.log".to_string()), "active files are never deleted");
    let held: usize = tree(&disk, &settings.dir).iter().filter(|(name, _)| *name != log::NAME).map(|(_, b)| b.len()).sum();
    assert!(held <= 60, "{held}");
    // Nothing but active files is left: it waits, and holds what it has.
    for (n, tenant) in [(12, b"d".as_slice()), (13, b"e")] {
        let _ = put(&mut archive, if tenant == b"d" { b"d" } else { b"e" }, n);
    }
    let error = (14..30).find_map(|n| put(&mut archive, b"f", n).err()).map(|e| format!("{e:#}"));
    let before = tree(&disk, &settings.dir);
    if let Some(error) = error {
        assert!(error.contains("no room in the archive /data/archive/files"), "{error}");
    }
    assert_eq!(before, tree(&disk, &settings.dir));
}

#[test]
fn eb_2_7_without_room_and_backups_nothing_is_taken_until_there_is_room() {
    let (_, disk) = sim();
    let room = Room { free_bytes_min: 0, total_bytes_max: 25 };
    let mut settings = Settings { room, ..settings("{tenant}.log", 0, Compress::None) };
    let mut archive = open(&disk, &settings).unwrap();
    let mut positions = BTreeMap::new();
    let rows = |positions: &mut _, n: usize| frame(1, positions, &vec![(1, &b"t"[..], None, b"123456789".to_vec(), T0); n]);
    archive.write(&rows(&mut positions, 2)).unwrap();
    let third = rows(&mut positions, 1);
    for _ in 0..3 {
        let error = archive.write(&third).unwrap_err();
        assert!(format!("{error:#}").contains("no room"), "{error:#}");
        assert!(!archive.make_room(&third).unwrap());
        archive.tick(None).unwrap();
    }
    assert_eq!(names(&disk, &settings), ["t.log"]);
    drop(archive);
    settings.room.total_bytes_max = 30; // the operator makes room
    let mut archive = open(&disk, &settings).unwrap();
    archive.write(&third).unwrap();
    archive.commit().unwrap();
    assert_eq!(disk.len(&settings.dir.join("t.log")).unwrap(), 30);
    archive.write(&third).unwrap(); // what it has needs no room
}

#[test]
fn eb_2_7_free_space_is_left_alone() {
    let folder = Folder::new("free");
    let settings = |free_bytes_min| Settings { room: Room { free_bytes_min, total_bytes_max: 0 }, ..real(&folder, "app.log", 0) };
    let one = row_at(1, &mut BTreeMap::new(), "123456789", T0, T0);
    let mut archive = open(&Disk::Real, &settings(u64::MAX / 2)).unwrap();
    assert!(format!("{:#}", archive.write(&one).unwrap_err()).contains("no room"));
    drop(archive);
    let mut archive = open(&Disk::Real, &settings(1)).unwrap();
    archive.write(&one).unwrap();
    archive.commit().unwrap();
    assert_eq!(std::fs::read(settings(1).dir.join("app.log")).unwrap(), b"123456789\n");
}

#[test]
fn eb_2_8_a_second_writer_is_refused_by_name() {
    let folder = Folder::new("lock");
    let settings = real(&folder, "app.log", 0);
    let twin = Settings { log_dir: folder.0.join("another log"), ..settings.clone() };
    let lock = settings.dir.join(lock::NAME);
    std::fs::create_dir_all(&settings.dir).unwrap();
    std::fs::write(&lock, "process 1 that was killed\n").unwrap(); // locks nobody out
    let first = open(&Disk::Real, &settings).unwrap();
    let Err(error) = open(&Disk::Real, &twin) else { panic!("two writers") };
    let error = format!("{error:#}");
    let holder = format!("process {} with its log in {}", std::process::id(), settings.log_dir.display());
    assert!(error.contains(&settings.dir.display().to_string()) && error.contains(&holder), "{error}");
    drop(first);
    assert!(!lock.exists(), "two runs leave the same files");
    drop(open(&Disk::Real, &twin).unwrap());
    // In a data folder no file shows, and a stranger is refused all the same.
    let inside = Settings { log_dir: folder.0.join("data"), dir: folder.0.join("data/files"), ..settings.clone() };
    let first = open(&Disk::Real, &inside).unwrap();
    let Err(error) = open(&Disk::Real, &Settings { log_dir: folder.0.join("stranger"), ..inside.clone() }) else { panic!("two writers") };
    assert!(format!("{error:#}").contains(&format!("by process {};", std::process::id())), "{error:#}");
    assert_eq!(std::fs::read_dir(&inside.dir).unwrap().count(), 0);
    drop(first);
    std::os::unix::fs::symlink(folder.0.join("elsewhere"), &lock).unwrap();
    assert!(open(&Disk::Real, &settings).is_err());
    assert!(!folder.0.join("elsewhere").exists());
}

#[test]
fn eb_2_8_compressed_backups_keep_their_mode_and_follow_no_symlink() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("packed");
    let settings = real(&folder, "app.log", 10);
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let mut positions = BTreeMap::new();
    archive.write(&row_at(1, &mut positions, "123456789", T0, T0)).unwrap();
    archive.commit().unwrap();
    std::fs::set_permissions(settings.dir.join("app.log"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let victim = folder.0.join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let packed = settings.dir.join("app-2016-11-04T18-30-00.000.log.zst");
    std::os::unix::fs::symlink(&victim, rotate::with_suffix(&packed, ".tmp")).unwrap();
    std::os::unix::fs::symlink(&victim, &packed).unwrap();
    archive.write(&row_at(2, &mut positions, "abcdefghi", T0, T0)).unwrap();
    archive.commit().unwrap();
    let backups: Vec<PathBuf> = std::fs::read_dir(&settings.dir).unwrap().map(|e| e.unwrap().path()).collect();
    let ours = backups.iter().filter(|path| path.to_string_lossy().ends_with(".zst") && !path.is_symlink()).collect::<Vec<_>>();
    let [ours] = ours[..] else { panic!("{backups:?}") };
    assert_eq!(unpack(".zst", &std::fs::read(ours).unwrap()).unwrap(), b"123456789\n");
    assert_eq!(std::fs::metadata(ours).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    // A folder of ours that became a symlink while its file was closed.
    let settings = Settings { log_dir: folder.0.join("log 2"), dir: folder.0.join("files 2"), ..real(&folder, "{tenant}/app.log", 0) };
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let mut positions = BTreeMap::new();
    archive.write(&row_at(1, &mut positions, "123456789", T0, T0)).unwrap();
    archive.reopen().unwrap();
    std::fs::rename(settings.dir.join("t"), folder.0.join("outside")).unwrap();
    std::os::unix::fs::symlink(folder.0.join("outside"), settings.dir.join("t")).unwrap();
    archive.write(&row_at(2, &mut positions, "abcdefghi", T0, T0)).unwrap();
    let error = format!("{:#}", archive.commit().unwrap_err());
    assert!(error.contains("is a symlink out of"), "{error}");
    assert_eq!(std::fs::read(folder.0.join("outside/app.log")).unwrap(), b"123456789\n");
}

/// Runs in a process of its own, where no other test opens files.
#[test]
fn eb_2_9_a_thousand_cycles_leak_no_thread_and_no_descriptor() {
    if std::env::var_os("WEIR_TEST_CYCLES").is_none() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sinks::archive::eb::eb_2_9_a_thousand_cycles_leak_no_thread_and_no_descriptor", "--nocapture"]);
        let output = command.env("WEIR_TEST_CYCLES", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let folder = Folder::new("cycles");
    let settings = Settings { open_files_max: 3, backups: 2, rotate_on_hangup: true, ..real(&folder, "{tenant}.log", 40) };
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let mut positions = BTreeMap::new();
    let mut before = None;
    for n in 0..1_000u64 {
        let mut archive = open(&Disk::Real, &settings).unwrap();
        let rows: Vec<Row> =
            [b"a", b"b", b"c", b"d"].iter().map(|t| (1, t.as_slice(), None, b"123456789".to_vec(), T0 + n as i64 * MS)).collect();
        archive.write(&frame(n + 1, &mut positions, &rows)).unwrap();
        if n % 10 == 0 {
            archive.reopen().unwrap();
        }
        if n % 2 == 0 {
            archive.finish().unwrap();
        }
        drop(archive);
        let now = (count("fd"), count("task"));
        assert_eq!(now, *before.get_or_insert(now), "after {n} cycles");
    }
}

#[test]
fn eb_2_10_what_was_not_committed_survives_the_removal_of_its_file() {
    let folder = Folder::new("removed");
    // Rows are written at once, and committed later.
    let settings = Settings { buffer_bytes_max: 0, compress: Compress::None, ..real(&folder, "{tenant}/app.log", 0) };
    let file = settings.dir.join("t/app.log");
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let mut positions = BTreeMap::new();
    archive.write(&row_at(1, &mut positions, "committed", T0, T0)).unwrap();
    archive.commit().unwrap();
    archive.write(&row_at(2, &mut positions, "written 2", T0, T0)).unwrap();
    std::fs::remove_file(&file).unwrap();
    archive.write(&row_at(3, &mut positions, "written 3", T0, T0)).unwrap();
    archive.commit().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "written 2\nwritten 3\n");
    assert_eq!(archive.stats().changed_outside, 1);
    // The whole folder, and no record comes: it is there again all the same.
    std::fs::remove_dir_all(settings.dir.join("t")).unwrap();
    archive.tick(None).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    archive.write(&row_at(4, &mut positions, "written 4", T0, T0)).unwrap();
    // Somebody else's file under the name is kept.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "theirs\n").unwrap();
    archive.commit().unwrap();
    archive.write(&row_at(5, &mut positions, "written 5", T0, T0)).unwrap();
    archive.commit().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "theirs\nwritten 4\nwritten 5\n");
    let has = archive.positions();
    drop(archive);
    assert_eq!(open(&Disk::Real, &settings).unwrap().positions(), has);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "theirs\nwritten 4\nwritten 5\n", "recovery cuts nothing");
}

#[test]
fn eb_2_10_a_file_removed_at_its_rotation_loses_nothing_that_came_later() {
    let folder = Folder::new("rotation");
    let settings = Settings { compress: Compress::None, ..real(&folder, "app.log", 20) };
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let mut positions = BTreeMap::new();
    archive.write(&row_at(1, &mut positions, "row 1 ...", T0, T0)).unwrap();
    archive.commit().unwrap();
    archive.write(&row_at(2, &mut positions, "row 2 ...", T0 + MS, T0)).unwrap();
    std::fs::remove_file(settings.dir.join("app.log")).unwrap();
    archive.write(&row_at(3, &mut positions, "row 3 ...", T0 + 2 * MS, T0)).unwrap();
    archive.commit().unwrap();
    assert_eq!(contents(&Disk::Real, &settings).concat(), "row 2 ...\nrow 3 ...\n");
}
