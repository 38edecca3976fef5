//! Each promise of `maintain` by itself.

use super::*;
use crate::Options as LakeOptions;
use crate::commit::FileEntry;
use crate::layout::LOGS;
use crate::tests::find_all;

fn logs(disk: &Disk) -> Vec<FileEntry> {
    let mut files = Snapshot::read(disk, root()).unwrap().logs().to_vec();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn bytes_of(disk: &Disk) -> Vec<(String, Vec<u8>)> {
    let files = logs(disk);
    let paths = files.iter().flat_map(|f| [Some(f.path.clone()), f.index.clone()]).flatten();
    paths.map(|path| (path.clone(), disk.read(&root().join(path)).unwrap())).collect()
}

#[test]
fn small_files_become_one_as_if_they_had_been_sealed_together() {
    let frames = frames_of_day(1, 0, 5);
    let disk = sim();
    let mut lake = open(&disk, root(), u64::MAX);
    seal_each(&mut lake, &frames);
    let before = stored(&Snapshot::read(&disk, root()).unwrap()).unwrap();
    assert_eq!(before, delivered(&frames));
    assert_eq!(logs(&disk).len(), 10);
    let merge = CompactOptions { index_bytes_min: 0, ..compact_options() };
    let done = compact(&disk, root(), &merge, later(2)).unwrap();
    assert_eq!((done.merges, done.files, done.rows, done.lost, done.failed.len(), done.more), (2, 10, 20, 0, 0, false));
    let snapshot = Snapshot::read(&disk, root()).unwrap();
    assert_eq!(stored(&snapshot).unwrap(), before);
    assert_eq!(snapshot.positions(), &lake.positions());
    assert_eq!(places(&before), found(&disk, root(), "row"));
    let (_, stats) = find(&disk, root(), &[], "t7", &SearchOptions::default());
    assert_eq!((stats.files_by_index, stats.index_failures, stats.hits), (2, 0, 1), "the new files have an index");
    assert_eq!(compact(&disk, root(), &merge, later(4)).unwrap(), Compacted::default(), "there is nothing left to merge");

    let together = sim();
    open(&together, root(), 0).seal(&frames).unwrap();
    assert!(bytes_of(&disk) == bytes_of(&together), "Parquet and index are the bytes of one seal");
    let again = sim();
    seal_each(&mut open(&again, root(), u64::MAX), &frames);
    compact(&again, root(), &merge, later(2)).unwrap();
    assert!(bytes_of(&again) == bytes_of(&disk), "the same files give the same bytes");
}

#[test]
fn only_cold_partitions_of_enough_small_files_are_merged() {
    let disk = sim();
    let mut lake = open(&disk, root(), u64::MAX);
    seal_each(&mut lake, &frames_of_day(1, 0, 3));
    let merged = |options: &CompactOptions, hours: i64| {
        let fork = match &disk {
            Disk::Sim(sim) => Disk::Sim(Arc::new(sim.reboot(hub::disk::Loss::KeepAll))),
            Disk::Real => unreachable!("the test's disk is simulated"),
        };
        compact(&fork, root(), options, UnixNanos(START + hours * NANOS_PER_HOUR)).unwrap().merges
    };
    // The newest rows are of 10 o'clock, the commits of 12.
    let cases = [(12, 0), (13, 2)];
    for (hours, want) in cases {
        assert_eq!(merged(&compact_options(), hours), want, "at {hours} o'clock");
    }
    let early = CompactOptions { cold_after: Span(3 * NANOS_PER_HOUR), ..compact_options() };
    assert_eq!((merged(&early, 14), merged(&early, 15)), (0, 2), "an hour and three after the last commit");
    assert_eq!(merged(&CompactOptions { files_min: 4, ..compact_options() }, 99), 0);
    let raw = logs(&disk)[0].raw_bytes;
    assert_eq!(merged(&CompactOptions { file_bytes_min: raw / 2, ..compact_options() }, 99), 0, "no file is small");
    assert_eq!(merged(&CompactOptions { memory_bytes_max: raw, ..compact_options() }, 99), 0, "two do not fit");
    let pairs = CompactOptions { target_bytes: raw * 5 / 2, ..compact_options() };
    assert_eq!(merged(&pairs, 99), 2, "two of three fit, the third stays");
    assert_eq!(merged(&CompactOptions { bytes_max: 1, ..compact_options() }, 99), 1, "one merge is always done");
}

#[test]
fn an_hour_is_merged_with_itself_only() {
    let disk = sim();
    let hourly = LakeOptions { hour_bytes_min: 1, ..options(u64::MAX) };
    let mut lake = Lake::open(disk.clone(), root(), hourly).unwrap();
    let frames = frames_of_day(1, 0, 8);
    seal_each(&mut lake, &frames);
    let folders = |files: &[FileEntry]| files.iter().map(|f| partition_of(&f.path).to_owned()).collect::<BTreeSet<_>>();
    let before = folders(&logs(&disk));
    assert!(before.len() > 10 && before.iter().all(|folder| folder.contains("hour=")));
    compact(&disk, root(), &compact_options(), later(2)).unwrap();
    let files = logs(&disk);
    assert_eq!((folders(&files), files.len()), (before.clone(), before.len()), "one file in each hour");
    assert_eq!(stored(&Snapshot::read(&disk, root()).unwrap()).unwrap(), delivered(&frames));
}

#[test]
fn a_file_that_does_not_hold_what_was_committed_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, root) = (Disk::Real, folder.path());
    let mut lake = Lake::open(disk.clone(), root, options(u64::MAX)).unwrap();
    seal_each(&mut lake, &frames_of_day(1, 0, 3));
    let files = Snapshot::read(&disk, root).unwrap().logs().to_vec();
    let acme: Vec<&FileEntry> = files.iter().filter(|f| f.tenant == "acme").collect();
    let good = std::fs::read(root.join(&acme[0].path)).unwrap();
    let mut keeper = Keeper::open(&disk, root).unwrap();
    for bad in [&good[..good.len() / 2], b"", &std::fs::read(root.join(&files.iter().find(|f| f.tenant == "zeta").unwrap().path)).unwrap()]
    {
        std::fs::write(root.join(&acme[0].path), bad).unwrap();
        let done = compact(&disk, root, &CompactOptions { bytes_max: 1, ..compact_options() }, later(2)).unwrap();
        assert_eq!((done.merges, done.failed.len()), (0, 1));
        assert!(done.failed[0].contains(&acme[0].path), "{done:?}");
    }
    let done = keeper.compact(&compact_options(), later(2)).unwrap();
    assert_eq!((done.merges, done.failed.len()), (1, 1), "the other tenant is merged");
    let done = keeper.compact(&compact_options(), later(2)).unwrap();
    assert_eq!((done.merges, done.files, done.failed.len()), (1, 2, 0), "and so are the files beside the bad one");
    std::fs::write(root.join(&acme[0].path), &good).unwrap();
    assert_eq!(Snapshot::read(&disk, root).unwrap().rows(), 12);
}

#[test]
fn an_old_snapshot_answers_until_the_sweep_and_then_knows_why_not() {
    let disk = sim();
    let mut lake = open(&disk, root(), u64::MAX);
    let frames = frames_of_day(1, 0, 3);
    seal_each(&mut lake, &frames);
    let old = Snapshot::read(&disk, root()).unwrap();
    compact(&disk, root(), &compact_options(), later(2)).unwrap();
    assert_eq!(stored(&old).unwrap(), delivered(&frames));
    let grace = Span(DAY);
    let waiting = sweep_removed(&disk, root(), grace, UnixNanos(later(3).0 - 1)).unwrap();
    assert_eq!(waiting, Swept { files: 0, waiting: 6 });
    drop(open(&disk, root(), u64::MAX)); // a restart leaves them to the readers of other processes
    assert_eq!(stored(&old).unwrap(), delivered(&frames));
    assert!(!old.is_outdated().unwrap());
    assert_eq!(sweep_removed(&disk, root(), grace, later(3)).unwrap(), Swept { files: 6, waiting: 0 });
    assert!(stored(&old).is_err());
    assert!(old.is_outdated().unwrap());
    let new = Snapshot::read(&disk, root()).unwrap();
    assert_eq!(stored(&new).unwrap(), delivered(&frames));
    // A file that is lost for another reason is no reason to try again.
    disk.unlink(&root().join(&new.logs()[0].path)).unwrap();
    assert!(stored(&new).is_err() && !new.is_outdated().unwrap());
}

#[test]
fn what_was_swept_is_forgotten_by_the_log() {
    let disk = sim();
    let mut lake = open(&disk, root(), u64::MAX);
    let mut keeper = Keeper::open(&disk, root()).unwrap();
    let run = |keeper: &mut Keeper, days| {
        let options =
            Options { retention: Retention::default(), compact: compact_options(), grace: Span(DAY), bytes_per_run_max: u64::MAX };
        keeper.run(&options, later(days)).unwrap()
    };
    for day in 0..4 {
        seal_each(&mut lake, &frames_of_day(1 + day as u64, day, 2));
        assert_eq!(run(&mut keeper, day + 1).compacted.merges, 2);
        run(&mut keeper, day + 2);
    }
    let gone = Keeper::open(&disk, root()).unwrap().log.gone;
    assert_eq!(gone.len(), 4, "those of the newest merges: {gone:?}");
    let (lying, named) = lying_and_named(&disk, root());
    assert_eq!(lying, named);
}

#[test]
fn retention_takes_whole_days_and_tells_what() {
    let disk = sim();
    let mut lake = open(&disk, root(), 0);
    let days: Vec<Vec<Arc<Frame>>> = (0..4).map(|day| frames_of_day(10 + day as u64, day, 2)).collect();
    days.iter().for_each(|frames| seal_each(&mut lake, frames));
    let acme = TenantRetention { age: Some(Span(10 * DAY)), bytes: None };
    let mut rules = Retention { tenants: [("acme".to_owned(), acme)].into(), ..retention(2 * DAY) };
    assert_eq!(retain(&disk, root(), &rules, later(2)).unwrap(), []);
    let dropped = retain(&disk, root(), &rules, later(4)).unwrap();
    let snapshot = Snapshot::read(&disk, root()).unwrap();
    let gone: Vec<Stored> = delivered(&days[..2].concat()).into_iter().filter(|row| row.0 == b"zeta").collect();
    assert_eq!(dropped.len(), 1);
    let want = Dropped {
        number: 9,
        at: later(4),
        tenant: b"zeta".to_vec(),
        rule: crate::DropRule::Age,
        partitions: 2,
        files: 4,
        rows: gone.len() as u64,
        raw_bytes: gone.iter().map(|row| row.8.len() as u64).sum(),
        origin_bytes: gone.iter().map(|row| u64::from(row.6)).sum(),
        stored_bytes: dropped[0].stored_bytes,
        min_time: UnixNanos(gone.iter().map(|row| row.1).min().unwrap()),
        max_time: UnixNanos(gone.iter().map(|row| row.1).max().unwrap()),
    };
    assert_eq!(dropped[0], want);
    assert_eq!(snapshot.drops().cloned().collect::<Vec<_>>(), dropped);
    assert_eq!(snapshot.expired_by_tenant(), &sums(&gone));
    assert_eq!(stored_and_expired(&snapshot).unwrap(), sums(&delivered(&days.concat())));
    // By bytes: the oldest of acme go until the rest fits.
    let sizes = |disk: &Disk| {
        let mut sizes: BTreeMap<(String, i64), u64> = BTreeMap::new();
        for file in logs(disk) {
            let len = |path: &str| disk.len(&root().join(path)).unwrap();
            let day = file.min_time.div_euclid(DAY);
            *sizes.entry((file.tenant.clone(), day)).or_default() += len(&file.path) + file.index.as_deref().map_or(0, len);
        }
        sizes
    };
    let before = sizes(&disk);
    let newest: u64 = before.iter().filter(|((tenant, day), _)| tenant == "acme" && *day >= START / DAY + 2).map(|(_, bytes)| bytes).sum();
    rules.tenants.get_mut("acme").unwrap().bytes = Some(flow::units::ByteSize(newest));
    let dropped = retain(&disk, root(), &rules, later(4)).unwrap();
    assert_eq!((dropped.len(), dropped[0].partitions, dropped[0].rule), (1, 2, crate::DropRule::Bytes));
    let after = sizes(&disk);
    assert_eq!(before.values().sum::<u64>() - after.values().sum::<u64>(), dropped[0].stored_bytes);
    assert_eq!(after.iter().filter(|((tenant, _), _)| tenant == "acme").map(|(_, bytes)| bytes).sum::<u64>(), newest);
    assert_eq!(stored_and_expired(&Snapshot::read(&disk, root()).unwrap()).unwrap(), sums(&delivered(&days.concat())));
    assert_eq!(retain(&disk, root(), &rules, later(4)).unwrap(), []);
}

#[test]
fn the_node_limit_takes_from_those_over_their_share_and_the_current_hour_last() {
    // (tenant, hours after the start, rows): `big` writes now, `old` has little and only old rows, `wide` has both.
    let world = |now_hours: i64| {
        let disk = sim();
        let mut lake = open(&disk, root(), u64::MAX);
        let noise = |i: usize| format!("{:x}", u64::from(crc32fast::hash(&i.to_le_bytes())).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let rows = |tenant: &str, hours: i64, n: usize| -> Vec<Line> {
            (0..n).map(|i| line(tenant, START + hours * NANOS_PER_HOUR, &format!("{tenant} {} {}", noise(i), noise(i + n)))).collect()
        };
        let lines = [rows("big", now_hours, 4000), rows("wide", 1, 1500), rows("wide", now_hours, 1500), rows("old", 2, 50)].concat();
        lake.seal(&[batch(1, 1, 0, START, &lines)]).unwrap();
        disk
    };
    let size = |disk: &Disk, tenant: &str| logs(disk).iter().filter(|f| f.tenant == tenant).map(|f| f.stored_bytes).sum::<u64>();
    let all = |disk: &Disk| logs(disk).iter().map(|f| f.stored_bytes).sum::<u64>();
    let run = |disk: &Disk, bytes: u64| -> Vec<(String, u64)> {
        let rules = Retention { node_bytes: Some(flow::units::ByteSize(bytes)), ..Retention::default() };
        let now = UnixNanos(START + 30 * NANOS_PER_HOUR + 5);
        let dropped = retain(disk, root(), &rules, now).unwrap();
        dropped.into_iter().map(|d| (String::from_utf8(d.tenant).unwrap(), d.partitions)).collect()
    };
    let named = |list: &[(&str, u64)]| list.iter().map(|(tenant, n)| (tenant.to_string(), *n)).collect::<Vec<_>>();
    let disk = world(30);
    let total = all(&disk);
    assert_eq!(run(&disk, total), []);
    // `big` is further over its share, but all it has is of this hour.
    assert_eq!(run(&disk, total - 1), named(&[("wide", 1)]));
    let disk = world(29);
    assert_eq!(run(&disk, all(&disk) - 1), named(&[("big", 1)]), "an hour later it is the first");
    let disk = world(30);
    let old = size(&disk, "old");
    assert_eq!(run(&disk, old * 3), named(&[("big", 1), ("wide", 2)]), "what is within its share stays, whatever its age");
    assert_eq!(logs(&disk).iter().map(|f| f.tenant.as_str()).collect::<Vec<_>>(), ["old"]);
    assert_eq!(run(&world(30), 0).len(), 3);
}

#[test]
fn a_lost_or_damaged_index_is_rebuilt_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, root) = (Disk::Real, folder.path());
    let mut lake = Lake::open(disk.clone(), root, options(0)).unwrap();
    let frames = frames_of_day(1, 0, 30);
    lake.seal(&frames).unwrap();
    let index = |disk: &Disk, tenant: &str| {
        let snapshot = Snapshot::read(disk, root).unwrap();
        let file = snapshot.logs().iter().find(|f| f.tenant == tenant).unwrap();
        root.join(file.index.as_ref().unwrap())
    };
    let good = std::fs::read(index(&disk, "acme")).unwrap();
    let mut keeper = Keeper::open(&disk, root).unwrap();
    let done = keeper.reindex(&reindex_options(), later(1)).unwrap();
    assert_eq!((done.checked, done.rebuilt, done.more), (2, 0, false));
    let number = keeper.number();
    let mut rebuilt = |what: &str, want: (u64, u64)| {
        let done = keeper.reindex(&reindex_options(), later(1)).unwrap();
        assert_eq!((done.missing, done.damaged, done.rebuilt, done.failed.len()), (want.0, want.1, 1, 0), "after {what}");
        assert!(std::fs::read(index(&disk, "acme")).unwrap() == good, "after {what}");
        let (hits, stats) = find(&disk, root, &[], "t8", &SearchOptions::default());
        assert_eq!((hits.len(), stats.index_failures, stats.files_by_index), (1, 0, 2), "after {what}");
        keeper.sweep(Span(0), later(1)).unwrap();
        let (lying, named) = lying_and_named(&disk, root);
        assert_eq!(lying, named, "after {what}");
    };
    std::fs::remove_file(index(&disk, "acme")).unwrap();
    rebuilt("its removal", (1, 0));
    std::fs::write(index(&disk, "acme"), &good[..good.len() - 1]).unwrap();
    rebuilt("a cut", (0, 1));
    std::fs::write(index(&disk, "acme"), b"").unwrap();
    rebuilt("everything was cut", (0, 1));
    assert_eq!(Keeper::open(&disk, root).unwrap().number(), number + 3);
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        std::fs::write(index(&disk, "acme"), &bad).unwrap();
        let done = reindex(&disk, root, &reindex_options(), later(1)).unwrap();
        assert_eq!((done.damaged, done.checked), (1, 1), "byte {at} was changed");
        assert!(std::fs::read(index(&disk, "acme")).unwrap() == good, "byte {at} was changed");
    }
    assert_eq!(stored(&Snapshot::read(&disk, root).unwrap()).unwrap(), delivered(&frames));
}

#[test]
fn an_index_is_built_where_none_was_and_follows_todays_fields() {
    let disk = sim();
    let frames = frames_of_day(1, 0, 4);
    open(&disk, root(), u64::MAX).seal(&frames[..3]).unwrap();
    let small = ReindexOptions { memory_bytes_max: 100, ..reindex_options() };
    assert_eq!(reindex(&disk, root(), &small, later(1)).unwrap().too_large, 2);
    let one = ReindexOptions { bytes_max: 0, ..reindex_options() };
    let done = reindex(&disk, root(), &one, later(1)).unwrap();
    assert_eq!((done.rebuilt, done.missing, done.more), (1, 1, true));
    assert_eq!(reindex(&disk, root(), &reindex_options(), later(1)).unwrap().rebuilt, 1);
    assert_eq!(find(&disk, root(), &[], "t3", &SearchOptions::default()).1.files_by_index, 2);
    let together = sim();
    open(&together, root(), 0).seal(&frames[..3]).unwrap();
    assert!(bytes_of(&disk) == bytes_of(&together));
    // The writer now sorts by another field; an index that is rebuilt then is about rows in the new order.
    let other = LakeOptions { index: vec!["trace_id".into(), "service".into()], ..options(u64::MAX) };
    Lake::open(disk.clone(), root(), other).unwrap().seal(&frames).unwrap();
    for file in logs(&disk) {
        file.index.iter().for_each(|index| disk.unlink(&root().join(index)).unwrap());
    }
    assert_eq!(reindex(&disk, root(), &reindex_options(), later(1)).unwrap().rebuilt, 4);
    for i in 0..16 {
        let hits = find_all(&disk, root(), &[], &format!("trace_id:t{i}"));
        assert_eq!(hits.len(), 1, "t{i}");
    }
    assert_eq!(stored(&Snapshot::read(&disk, root()).unwrap()).unwrap(), delivered(&frames));
    sweep_removed(&disk, root(), Span(0), later(1)).unwrap();
    let (lying, named) = lying_and_named(&disk, root());
    assert_eq!(lying, named);
}

#[test]
fn a_commit_whose_sums_do_not_agree_is_damage() {
    let disk = sim();
    open(&disk, root(), u64::MAX).seal(&frames_of_day(1, 0, 2)).unwrap();
    let log = Log::read(&disk, root()).unwrap();
    let files = log.table(LOGS).to_vec();
    let removed = |path: &str, reason| Removed { path: path.into(), reason };
    let told = |change: &dyn Fn(&mut Commit), want: &str| {
        let mut commit = Commit::new(2, [0, 0], log.fields.clone().unwrap());
        change(&mut commit);
        let error = log.clone().add(commit).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    use crate::commit::Reason::{Compacted, Expired};
    told(&|c| c.removed = vec![removed("logs/x.parquet", Compacted)], "does not have");
    told(&|c| c.removed = vec![removed(&files[0].path, Compacted); 2], "twice");
    told(&|c| c.removed = vec![removed(&files[0].path, Compacted)], "do not add up to those it adds");
    told(&|c| c.removed = vec![removed(&files[0].path, Expired)], "do not add up to what it says was dropped");
    told(
        &|c| {
            c.removed = vec![removed(&files[0].path, Compacted)];
            c.tables.insert(
                LOGS.into(),
                vec![FileEntry { origin_bytes: files[0].origin_bytes - 1, path: "logs/y".into(), ..files[0].clone() }],
            );
        },
        "do not add up to those it adds",
    );
}

#[test]
fn retention_reads_as_a_config() {
    let text = r#"{"age":"30d","bytes":"10GiB","tenants":{"acme":{"age":"90d"}}}"#;
    let rules: Retention = serde_json::from_str(text).unwrap();
    assert_eq!(rules.tenants["acme"], TenantRetention { age: Some(Span(90 * DAY)), bytes: None });
    assert!(serde_json::from_str::<Retention>(r#"{"ages":"30d"}"#).is_err());
    let schema = serde_json::to_string(&schemars::schema_for!(Retention)).unwrap();
    assert!(schema.contains("is dropped when its newest record is older than this"), "{schema}");
}
