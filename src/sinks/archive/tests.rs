//! The archive under crashes at every operation, failing disks and hostile values.

use super::template::last_component;
use super::*;
use flow::units::UnixNanos;
use hub::disk::{Loss, Sim};
use hub::frame::{Part, Resumed};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

pub(super) const T0: i64 = 1_478_284_200_000_000_000; // 2016-11-04T18:30:00Z
pub(super) const MS: i64 = 1_000_000;

/// One row to be: (stream, tenant, service or none, row bytes, time). The service is looked for in the bytes.
pub(super) type Row<'a> = (u64, &'a [u8], Option<&'a [u8]>, Vec<u8>, i64);

/// A frame with one part per run of rows of one stream; a row's position is its end in the stream.
pub(super) fn frame(seq: u64, positions: &mut BTreeMap<u64, u64>, rows: &[Row]) -> Frame {
    let mut frame = Frame { seq, ..Frame::default() };
    frame.rows.columns = vec![Vec::new()];
    for (stream, tenant, service, bytes, time) in rows {
        let at = frame.tenants.iter().position(|t| &t[..] == *tenant).unwrap_or_else(|| {
            frame.tenants.push((*tenant).into());
            frame.tenants.len() - 1
        });
        let position = positions.entry(*stream).or_insert(0);
        let from = *position;
        *position += bytes.len() as u64 + 1;
        let i = frame.rows.len() as u32;
        if frame.parts.last().is_none_or(|p| p.stream.0 != *stream) {
            frame.parts.push(Part { stream: StreamId(*stream), from, to: from, rows: i..i, ..Part::default() });
        }
        let part = frame.parts.last_mut().unwrap();
        part.to = *position;
        part.rows.end = i + 1;
        let span = service.map_or((u32::MAX, 0), |s| {
            let start = bytes.windows(s.len().max(1)).position(|w| w == s).unwrap_or(0);
            (start as u32, s.len() as u32)
        });
        frame.rows.columns[0].push(span);
        frame.rows.bytes.extend_from_slice(bytes);
        frame.rows.ends.push(frame.rows.bytes.len() as u32);
        frame.rows.tenant.push(at as u32);
        frame.rows.time.push(*time);
        frame.rows.position.push(*position);
    }
    frame
}

pub(super) fn settings(path: &str, rotate_bytes: u64, compress: Compress) -> Settings {
    Settings {
        dir: PathBuf::from("/data/archive/files"),
        log_dir: PathBuf::from("/data/archive/files"),
        path: Template::parse(path).unwrap(),
        rotate_bytes,
        calendar: Calendar::default(),
        rotate_on_hangup: false,
        room: Room::default(),
        names: TimeZone::UTC,
        backups: 0,
        age: None,
        compress,
        open_files_max: 2,
        buffer_bytes_max: 1 << 20,
    }
}

pub(super) fn open(disk: &Disk, settings: &Settings) -> anyhow::Result<Archive> {
    let columns = (0..settings.path.fields().len()).collect();
    let mut archive = Archive::open(disk.clone(), settings.clone(), columns)?;
    archive.tend()?;
    Ok(archive)
}

pub(super) fn sim() -> (Arc<Sim>, Disk) {
    let sim = Arc::new(Sim::new(11));
    (Arc::clone(&sim), Disk::Sim(sim))
}

/// Every file below a folder, by path relative to it.
pub(super) fn tree(disk: &Disk, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(at) = folders.pop() {
        for name in disk.list(&folder.join(&at)).unwrap() {
            let path = format!("{at}{}", name.display());
            match disk.read(&folder.join(&path)) {
                Ok(bytes) => drop(found.insert(path, bytes)),
                Err(_) => folders.push(format!("{path}/")),
            }
        }
    }
    found
}

pub(super) fn unpack(name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let read = match name.rsplit('.').next() {
        Some("gz") => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out),
        Some("zst") => zstd::stream::read::Decoder::new(bytes).and_then(|mut d| d.read_to_end(&mut out)),
        _ => return Ok(bytes.to_vec()),
    };
    read.map(|_| out).map_err(|e| format!("{name} cannot be unpacked: {e}"))
}

/// The rows of each active path in order: its backups by age, then itself. Not one may be there twice.
pub(super) fn rows_by_path(disk: &Disk, settings: &Settings) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut files: Vec<(String, rotate::Stamp, String, Vec<u8>)> = Vec::new();
    let newest = rotate::Stamp { time_ms: i64::MAX, clash: 0 };
    for (path, bytes) in tree(disk, &settings.dir) {
        if path == log::NAME {
            continue;
        }
        if path.ends_with(".tmp") {
            return Err(format!("{path} was left behind"));
        }
        let name = last_component(&path);
        let prefix = &path[..path.len() - name.len()];
        let base = rotate::base_of(name);
        let stamp = base.as_deref().and_then(|b| rotate::parse_backup(b, name, &TimeZone::UTC)).unwrap_or(newest);
        let base = format!("{prefix}{}", base.as_deref().unwrap_or(name));
        if files.iter().any(|f| f.0 == base && f.1 == stamp) {
            return Err(format!("{path} is there plain and compressed"));
        }
        let text = unpack(&path, &bytes)?;
        files.push((base, stamp, path, text));
    }
    files.sort();
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (base, _, path, text) in files {
        if !text.is_empty() && text.last() != Some(&b'\n') {
            return Err(format!("{path} ends in half a line"));
        }
        let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| String::from_utf8_lossy(l).into_owned());
        rows.entry(base).or_default().extend(lines);
    }
    Ok(rows)
}

/// Three streams, two tenants, two services, 9 frames; small files, so that frames rotate several times.
pub(super) fn workload() -> Vec<Frame> {
    let mut positions = BTreeMap::new();
    let (mut frames, mut n) = (Vec::new(), 0i64);
    for seq in 1..=9u64 {
        let mut bodies = Vec::new();
        for i in 0..5u64 {
            let (stream, service) = ((seq + i / 2) % 3 + 1, if (seq + i) % 3 == 0 { "web" } else { "api" });
            let tenant: &[u8] = if service == "web" && seq > 3 { b"beta" } else { b"acme" };
            bodies.push((
                stream,
                tenant,
                service,
                format!("{{\"service\":\"{service}\",\"n\":{n:04},\"stream\":{stream}}}"),
                T0 + n / 7 * MS,
            ));
            n += 1;
        }
        let rows: Vec<Row> = bodies
            .iter()
            .map(|(stream, tenant, service, body, time)| (*stream, *tenant, Some(service.as_bytes()), body.clone().into_bytes(), *time))
            .collect();
        frames.push(frame(seq, &mut positions, &rows));
    }
    frames
}

/// What must be in which path, in order.
pub(super) fn expected(frames: &[Frame]) -> BTreeMap<String, Vec<String>> {
    let mut want: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for frame in frames {
        for i in 0..frame.rows.len() {
            let row = String::from_utf8(frame.rows.row(i).to_vec()).unwrap();
            let tenant = String::from_utf8(frame.tenants[frame.rows.tenant[i] as usize].to_vec()).unwrap();
            let service = if row.contains("web") { "web" } else { "api" };
            want.entry(format!("{tenant}/{service}.log")).or_default().push(row);
        }
    }
    want
}

/// Writes all frames, commits after every `every`, notes in `acked` what was promised to be durable.
pub(super) fn deliver(archive: &mut Archive, frames: &[Frame], every: usize, acked: &mut BTreeMap<StreamId, u64>) -> anyhow::Result<()> {
    for (i, frame) in frames.iter().enumerate() {
        archive.write(frame)?;
        if (i + 1) % every == 0 {
            archive.commit()?;
            acked.extend(archive.positions());
        }
    }
    archive.finish()?;
    acked.extend(archive.positions());
    Ok(())
}

/// One life of the process: opens, compares with what earlier lives promised, delivers everything from the start.
fn live(disk: &Disk, settings: &Settings, frames: &[Frame], acked: &mut BTreeMap<StreamId, u64>) -> Result<(), String> {
    let mut archive = match open(disk, settings) {
        Ok(archive) => archive,
        Err(error) => return Err(format!("cannot open: {error:#}")),
    };
    let has = archive.positions();
    for (stream, done) in acked.iter() {
        if has.get(stream).is_none_or(|has| has < done) {
            return Err(format!("promised {stream:?} up to {done}, has {:?}", has.get(stream)));
        }
    }
    acked.extend(has);
    deliver(&mut archive, frames, 2, acked).map_err(|e| format!("{e:#}"))
}

/// What is lived through, and what lies in the folder before.
struct Scenario {
    settings: Settings,
    frames: Vec<Frame>,
    has_foreign: bool,
}

const FOREIGN: &str = "a line of somebody else about web";

impl Scenario {
    /// A disk as the first life finds it; its operations count from 0.
    fn disk(&self, broken: Option<&'static str>) -> Arc<Sim> {
        let mut sim = Arc::new(Sim::new(5));
        if self.has_foreign {
            let disk = Disk::Sim(Arc::clone(&sim));
            let folder = self.settings.dir.join("acme");
            disk.create_dir_all(&folder, "test").unwrap();
            let mut file = disk.create_new(&folder.join("web.log")).unwrap();
            file.append(format!("{FOREIGN}\n").as_bytes()).unwrap();
            file.sync("test").unwrap();
            disk.sync_dir(&folder, "test").unwrap();
            sim = Arc::new(sim.reboot(Loss::LoseUnsynced));
        }
        if let Some(site) = broken {
            sim.break_site(site);
        }
        sim
    }

    fn expected(&self) -> BTreeMap<String, Vec<String>> {
        let mut want = expected(&self.frames);
        if self.has_foreign {
            want.entry("acme/web.log".to_string()).or_default().insert(0, FOREIGN.to_string());
        }
        want
    }
}

/// Lives, crashing at `crashes` in turn, each followed by a reboot with its loss; then a whole life and a last
/// power loss. Every row must be there once and in order.
fn survive(scenario: &Scenario, broken: Option<&'static str>, crashes: &[(u64, Loss)]) -> Result<(), String> {
    let Scenario { settings, frames, .. } = scenario;
    let mut sim = scenario.disk(broken);
    let mut acked = BTreeMap::new();
    for (at, loss) in crashes {
        sim.crash_at(*at);
        if let Err(error) = live(&Disk::Sim(Arc::clone(&sim)), settings, frames, &mut acked)
            && !error.contains("simulated crash")
        {
            return Err(error);
        }
        sim = Arc::new(sim.reboot(*loss));
    }
    live(&Disk::Sim(Arc::clone(&sim)), settings, frames, &mut acked)?;
    let disk = Disk::Sim(Arc::new(sim.reboot(Loss::LoseUnsynced)));
    let found = rows_by_path(&disk, settings)?;
    let want = scenario.expected();
    if found != want {
        return Err(format!("rows differ\nfound {found:#?}\nwant {want:#?}"));
    }
    let counted = Archive::recount(&disk, settings).map_err(|e| format!("{e:#}"))?;
    let counts = want.into_iter().map(|(path, rows)| (path.into_bytes(), rows.len() as u64)).collect();
    if counted != counts {
        return Err(format!("recount says {counted:?}, not {counts:?}"));
    }
    Ok(())
}

fn ops_of_a_life(scenario: &Scenario) -> u64 {
    let sim = scenario.disk(None);
    live(&Disk::Sim(Arc::clone(&sim)), &scenario.settings, &scenario.frames, &mut BTreeMap::new()).unwrap();
    sim.ops()
}

pub(super) fn losses(op: u64) -> [Loss; 6] {
    [Loss::LoseUnsynced, Loss::KeepAll, Loss::Seeded(op), Loss::Seeded(op + 1_000), Loss::Seeded(op + 2_000), Loss::Seeded(op + 3_000)]
}

/// First failure over a crash at every operation, with every loss, alone and followed by a second crash.
fn sweep(scenario: &Scenario, broken: Option<&'static str>, second_every: u64) -> Result<u64, String> {
    let ops = ops_of_a_life(scenario);
    let mut runs = 0;
    for op in 1..=ops {
        for loss in losses(op) {
            survive(scenario, broken, &[(op, loss)]).map_err(|e| format!("crash at {op}, {loss:?}: {e}"))?;
            runs += 1;
            // A second crash, at operations of the recovery and of what follows it.
            for again in (1 + op % second_every..ops - op / 2).step_by(second_every as usize) {
                for next in [Loss::LoseUnsynced, Loss::Seeded(again)] {
                    let crashes = [(op, loss), (again, next)];
                    survive(scenario, broken, &crashes).map_err(|e| format!("crashes at {crashes:?}: {e}"))?;
                    runs += 1;
                }
            }
        }
    }
    Ok(runs)
}

pub(super) fn is_slow() -> bool {
    std::env::var_os("SLOW").is_some()
}

#[track_caller]
fn check_crashes(compress: Compress, rotate_bytes: u64, buffer_bytes_max: usize, has_foreign: bool) {
    let settings = Settings { buffer_bytes_max, ..settings("{tenant}/{service}.log", rotate_bytes, compress) };
    let scenario = Scenario { settings, frames: workload(), has_foreign };
    let runs = sweep(&scenario, None, if is_slow() { 3 } else { 61 }).unwrap();
    assert!(runs > 500, "only {runs} runs");
}

#[test]
fn every_record_is_there_once_after_a_crash_anywhere() {
    check_crashes(Compress::Gzip, 180, 1 << 20, false);
}

#[test]
fn every_record_is_there_once_after_a_crash_anywhere_with_zstd_and_tiny_buffers() {
    check_crashes(Compress::Zstd, 300, 50, true);
}

#[test]
fn every_record_is_there_once_after_a_crash_anywhere_without_rotation() {
    check_crashes(Compress::None, 0, 100, true);
}

#[test]
fn no_fsync_and_no_rename_can_be_left_out() {
    let (dir, log_dir) = (PathBuf::from("/files/a"), PathBuf::from("/log/a"));
    let settings = Settings { dir, log_dir, buffer_bytes_max: 60, ..settings("{tenant}/{service}.log", 220, Compress::Gzip) };
    let scenario = |frames, has_foreign| Scenario { settings: settings.clone(), frames, has_foreign };
    // The short one crashes twice at every pair of operations: what is cut off a foreign file is cut once only.
    let scenarios = [(scenario(workload(), false), 37), (scenario(workload()[..3].to_vec(), true), 1)];
    sweep(&scenarios[0].0, None, 37).unwrap(); // unbroken, nothing fails
    let mut needed = Vec::new();
    let sites = [
        log::SITE_ANNOUNCE,
        log::SITE_COMMIT,
        "archive.log folder",
        "archive.log snapshot file",
        "archive.log snapshot folder",
        "archive.log snapshot rename",
        SITE_FILE,
        SITE_FOLDER,
        SITE_NAMES,
        SITE_ROTATE_FOLDER,
        SITE_ROTATE_RENAME,
        SITE_UNDO_FOLDER,
        SITE_UNDO_LENGTH,
        SITE_UNDO_RENAME,
        rotate::SITE_PACK_FILE,
        rotate::SITE_PACK_FOLDER,
        rotate::SITE_PACK_RENAME,
        rotate::SITE_UNPACKED_FOLDER,
    ];
    for site in sites {
        let all = scenarios.iter().map(|(scenario, second_every)| sweep(scenario, Some(site), *second_every));
        match all.collect::<Result<Vec<_>, _>>() {
            Ok(runs) => println!("{site}: not missed in {runs:?} runs"),
            Err(why) => {
                println!("{site}: {}", why.lines().next().unwrap_or(""));
                needed.push(site);
            }
        }
    }
    assert_eq!(needed, sites);
    // The list is whole: nothing else is synced, renamed or linked, but for cutting off failed appends.
    let (sim, disk) = sim();
    live(&disk, &settings, &workload(), &mut BTreeMap::new()).unwrap();
    assert!(sim.sites().iter().all(|site| sites.contains(site)), "{:?}", sim.sites());
}

#[track_caller]
fn check_failures(kind: io::ErrorKind, in_a_row: u64) {
    let settings = Settings { buffer_bytes_max: 60, ..settings("{tenant}/{service}.log", 180, Compress::Gzip) };
    let scenario = Scenario { settings, frames: workload(), has_foreign: false };
    let Scenario { settings, frames, .. } = &scenario;
    for op in 1..=ops_of_a_life(&scenario) {
        let (sim, disk) = sim();
        for at in op..op + in_a_row {
            sim.fail_at(at, kind);
        }
        let mut acked = BTreeMap::new();
        let mut tries = 0;
        let mut again = |what: &str, error: anyhow::Error| {
            tries += 1;
            assert!(tries <= in_a_row, "{what} fails on and on after a failure at {op}: {error:#}");
        };
        'life: loop {
            let mut archive = match open(&disk, settings) {
                Ok(archive) => archive,
                Err(error) => {
                    again("open", error);
                    continue;
                }
            };
            for step in frames.iter().map(Some).chain([None]) {
                loop {
                    let done = match step {
                        Some(frame) => archive.write(frame).and_then(|()| if frame.seq % 2 == 0 { archive.commit() } else { Ok(()) }),
                        None => archive.finish(),
                    };
                    match done {
                        Ok(()) => break,
                        Err(error) => again("a call", error),
                    }
                    if archive.is_failed() {
                        continue 'life; // a failed fsync: open anew, deliver all again
                    }
                }
            }
            acked.extend(archive.positions());
            break;
        }
        let after = Disk::Sim(Arc::new(sim.reboot(Loss::LoseUnsynced)));
        // The next start finishes a compression that failed at the very end.
        let has = open(&after, settings).unwrap().positions();
        assert_eq!(
            rows_by_path(&after, settings).map_err(|e| format!("failure at {op}: {e}")).unwrap(),
            expected(frames),
            "failure at {op}"
        );
        assert_eq!(has.into_iter().collect::<BTreeMap<_, _>>(), acked);
    }
}

#[test]
fn eb_2_6_a_full_disk_at_any_operation_loses_and_doubles_nothing() {
    check_failures(io::ErrorKind::StorageFull, 1);
    check_failures(io::ErrorKind::StorageFull, 3);
}

#[test]
fn an_io_error_at_any_operation_loses_and_doubles_nothing() {
    check_failures(io::ErrorKind::Other, 2);
}

#[test]
fn two_runs_give_the_same_bytes_whenever_they_commit() {
    let settings = Settings { backups: 3, age: Some(Span(40 * MS)), ..settings("{tenant}/{service}.log", 180, Compress::Gzip) };
    let run = |every: usize| {
        let (_, disk) = sim();
        deliver(&mut open(&disk, &settings).unwrap(), &workload(), every, &mut BTreeMap::new()).unwrap();
        (tree(&disk, Path::new("/data")), disk)
    };
    let (first, disk) = run(1);
    assert!(first.len() > 4, "{:?}", first.keys());
    assert_eq!(first, run(1).0);
    assert_eq!(first, run(4).0);
    assert_eq!(first, run(100).0);
    // A second run over the same folder adds nothing.
    live(&disk, &settings, &workload(), &mut BTreeMap::new()).unwrap();
    assert_eq!(first, tree(&disk, Path::new("/data")));
}

#[track_caller]
fn check_name(path: &str, tenant: &[u8], values: &[Option<&[u8]>], want: &str) {
    let values: Vec<Value> = values.iter().map(|v| v.map_or(Value::Missing, Value::Bytes)).collect();
    assert_eq!(Template::parse(path).unwrap().path(tenant, &values, |name| name == "archive.log"), want);
}

#[test]
fn a_value_is_one_harmless_component() {
    let path = "logs/{tenant}/{service}.log";
    check_name(path, b"acme", &[Some(b"api")], "logs/acme/api.log");
    check_name(path, b"acme", &[None], "logs/acme/_missing.log");
    check_name(path, b"", &[Some(b"")], "logs/_empty/_empty.log");
    check_name(path, b"_empty", &[Some(b"_missing")], "logs/%5Fempty/%5Fmissing.log");
    check_name(path, b"../..", &[Some(b"..")], "logs/%2E.%2F../%2E..log");
    check_name(path, b"a/b", &[Some(b"/etc/passwd")], "logs/a%2Fb/%2Fetc%2Fpasswd.log");
    check_name(path, b"a\0b", &[Some(b"\xff\xfe")], "logs/a%00b/%FF%FE.log");
    check_name(path, "\u{e9}".as_bytes(), &[Some(b"a b~c%")], "logs/%C3%A9/a%20b%7Ec%25.log");
    check_name("{tenant}.log", b"archive", &[], &format!("~{}.log", hash_hex(b"archive")));
    // Nobody poses as a backup of somebody else's file.
    let posing = b"api-2016-11-04T18-30-00.000";
    check_name(path, b"acme", &[Some(posing)], &format!("logs/acme/~{}.log", hash_hex(posing)));
    check_name("{tenant}/{service}", b"acme", &[Some(b"x.gz")], &format!("acme/~{}", hash_hex(b"x.gz")));
    let long = [b'x'; 10_000];
    check_name(path, b"acme", &[Some(&long)], &format!("logs/acme/{}~{}.log", "x".repeat(67), hash_hex(&long)));
}

#[test]
fn the_log_is_no_file_of_records() {
    let (_, disk) = sim();
    let Err(error) = open(&disk, &settings("archive.log", 0, Compress::None)) else { panic!("it was opened") };
    assert!(error.to_string().contains("the archive's own"), "{error:#}");
    let settings = settings("{tenant}.log", 0, Compress::None);
    let mut archive = open(&disk, &settings).unwrap();
    archive.write(&frame(1, &mut BTreeMap::new(), &[(1, b"archive", None, b"row".to_vec(), T0)])).unwrap();
    archive.finish().unwrap();
    assert_eq!(Archive::recount(&disk, &settings).unwrap().into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(open(&disk, &settings).unwrap().positions().len(), 1);
}

fn hash_hex(raw: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(raw).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[track_caller]
fn check_refused(path: &str, want: &str) {
    let error = Template::parse(path).unwrap_err();
    assert!(error.contains(want), "{path}: {error}");
}

#[test]
fn a_path_that_could_mix_tenants_or_climb_out_is_refused() {
    check_refused("", "empty");
    check_refused("/var/log/{tenant}.log", "relative");
    check_refused("a/../{tenant}.log", "must be a name");
    check_refused("a//{tenant}.log", "must be a name");
    check_refused("{tenant/x.log", "brace");
    check_refused("{}/x.log", "brace");
    check_refused("x}.log", "brace");
    check_refused("{tenant}-{service}.log", "component of its own");
    check_refused("{tenant}-2016-11-04T18-30-00.000.log", "rotation");
    check_refused("{tenant}.log.gz", "rotation");
    check_refused("{a}{b}{c}.log", "bytes");
    assert_eq!(Template::parse("{tenant}/{a}-{b}/{a}.log").unwrap().fields(), ["a", "b"]);
}

#[test]
fn eb_2_1_backups_are_named_as_lumberjack_names_them_and_read_back() {
    let stamp = |clash| rotate::Stamp { time_ms: T0 / MS, clash };
    let table = [
        ("server.log", 0, "server-2016-11-04T18-30-00.000.log"),
        ("app", 0, "app-2016-11-04T18-30-00.000"),
        ("a.tar.log", 0, "a.tar-2016-11-04T18-30-00.000.log"),
        ("server.log", 2, "server-2016-11-04T18-30-00.000-2.log"),
        (".hidden", 1, ".hidden-2016-11-04T18-30-00.000-1"),
    ];
    for (base, clash, want) in table {
        assert_eq!(rotate::backup_name(base, stamp(clash), &TimeZone::UTC), want);
        for name in [want.to_string(), format!("{want}.gz"), format!("{want}.zst")] {
            assert_eq!(rotate::parse_backup(base, &name, &TimeZone::UTC), Some(stamp(clash)), "{name}");
            assert_eq!(rotate::base_of(&name).as_deref(), Some(base), "{name}");
        }
    }
    for name in [
        "server-foo.log",
        "server.log",
        "server-2016-13-04T18-30-00.000.log",
        "server-2016-11-04T18-30-00.000-0.log",
        "server-2016-11-04T18-30-00.000.log.bz2",
    ] {
        assert_eq!(rotate::parse_backup("server.log", name, &TimeZone::UTC), None, "{name}");
        assert_eq!(rotate::base_of(name), None, "{name}");
    }
}

#[test]
fn eb_2_1_a_backup_and_its_compressed_copy_count_once() {
    let (_, disk) = sim();
    let folder = Path::new("/f");
    disk.create_dir_all(folder, SITE_FOLDER).unwrap();
    for name in ["s-foo.log", "s.log", "t-2016-11-04T18-30-01.000.log"] {
        disk.create_new(&folder.join(name)).unwrap();
    }
    for second in 1..=4 {
        disk.create_new(&folder.join(format!("s-2016-11-04T18-30-0{second}.000.log"))).unwrap();
    }
    disk.create_new(&folder.join("s-2016-11-04T18-30-03.000.log.gz")).unwrap();
    let backups = rotate::backups_of(&disk, folder, "s.log", &TimeZone::UTC).unwrap();
    assert_eq!(backups.len(), 4);
    assert_eq!(rotate::expired(&backups, 2, None), 2);
    assert_eq!(rotate::expired(&backups, 0, None), 0);
    assert_eq!(rotate::expired(&backups, 9, Some(T0 / MS + 2_000)), 1);
    assert_eq!(rotate::expired(&backups, 1, Some(T0 / MS + 2_000)), 3);
}

/// Rows of these sizes (newline included) into a file of at most 10 bytes that has `existing` bytes: sizes of the
/// files afterwards, backups by age first.
#[track_caller]
fn check_sizes(existing: usize, rows: &[usize], want: &[usize]) {
    let (_, disk) = sim();
    let settings = settings("app.log", 10, Compress::None);
    disk.create_dir_all(&settings.dir, SITE_FOLDER).unwrap();
    if existing > 0 {
        let text = [vec![b'e'; existing - 1], vec![b'\n']].concat();
        disk.create_new(&settings.dir.join("app.log")).unwrap().append(&text).unwrap();
    }
    let rows: Vec<Row> = rows.iter().map(|len| (1, &b"t"[..], None, vec![b'r'; len - 1], T0)).collect();
    let mut archive = open(&disk, &settings).unwrap();
    archive.write(&frame(1, &mut BTreeMap::new(), &rows)).unwrap();
    archive.finish().unwrap();
    let mut files: Vec<(rotate::Stamp, usize)> = Vec::new();
    for (name, bytes) in tree(&disk, &settings.dir) {
        if name != log::NAME {
            let newest = rotate::Stamp { time_ms: i64::MAX, clash: 0 };
            files.push((rotate::parse_backup("app.log", &name, &TimeZone::UTC).unwrap_or(newest), bytes.len()));
        }
    }
    files.sort();
    assert_eq!(files.into_iter().map(|f| f.1).collect::<Vec<_>>(), want);
}

#[test]
fn eb_2_4_a_file_rotates_before_it_grows_too_large_and_no_record_is_split() {
    check_sizes(7, &[3], &[7, 3]); // a file found at start is full at the limit
    check_sizes(0, &[7, 3], &[10]); // an open one beyond it
    check_sizes(0, &[7, 4], &[7, 4]);
    check_sizes(0, &[11], &[11]); // too large for any file: one of its own
    check_sizes(0, &[3, 11, 3], &[3, 11, 3]);
    check_sizes(0, &[10, 10, 10], &[10, 10, 10]); // three at one instant: nothing is overwritten
}

#[test]
fn a_foreign_file_is_kept_and_half_a_line_is_not_completed() {
    let (_, disk) = sim();
    let settings = settings("app.log", 1_000, Compress::Gzip);
    disk.create_dir_all(&settings.dir, SITE_FOLDER).unwrap();
    disk.create_new(&settings.dir.join("app.log")).unwrap().append(b"whole\nhal").unwrap();
    let mut archive = open(&disk, &settings).unwrap();
    archive.write(&frame(1, &mut BTreeMap::new(), &[(1, b"t", None, b"ours".to_vec(), T0)])).unwrap();
    archive.finish().unwrap();
    let files = tree(&disk, &settings.dir);
    assert_eq!(files["app.log"], b"ours\n");
    assert_eq!(unpack(".gz", &files["app-2016-11-04T18-30-00.000.log.gz"]).unwrap(), b"whole\nhal");
    assert_eq!(Archive::recount(&disk, &settings).unwrap(), BTreeMap::from([(b"app.log".to_vec(), 3)]));
}

#[test]
fn uncommitted_rows_behind_a_foreign_file_are_cut_off() {
    let settings = Settings { buffer_bytes_max: 0, ..settings("app.log", 0, Compress::None) };
    let (sim, disk) = sim();
    disk.create_dir_all(&settings.dir, SITE_FOLDER).unwrap();
    disk.create_new(&settings.dir.join("app.log")).unwrap().append(b"theirs\n").unwrap();
    let ours = frame(1, &mut BTreeMap::new(), &[(1, b"t", None, b"ours".to_vec(), T0)]);
    open(&disk, &settings).unwrap().write(&ours).unwrap();
    assert_eq!(disk.read(&settings.dir.join("app.log")).unwrap(), b"theirs\nours\n");
    let disk = Disk::Sim(Arc::new(sim.reboot(Loss::KeepAll)));
    let mut archive = open(&disk, &settings).unwrap();
    assert_eq!(disk.read(&settings.dir.join("app.log")).unwrap(), b"theirs\n");
    assert_eq!(archive.stats().cut_bytes, 5);
    archive.write(&ours).unwrap();
    archive.commit().unwrap();
    assert_eq!(disk.read(&settings.dir.join("app.log")).unwrap(), b"theirs\nours\n");
}

#[test]
fn eb_2_5_a_half_packed_backup_is_made_again() {
    let settings = settings("app.log", 10, Compress::Gzip);
    let rows: Vec<Row> = (0..2).map(|_| (1, &b"t"[..], None, b"12345678".to_vec(), T0)).collect();
    let plain = settings.dir.join("app-2016-11-04T18-30-00.000.log");
    let packed = rotate::with_suffix(&plain, ".gz");
    let (clean, disk) = sim();
    let mut archive = open(&disk, &settings).unwrap();
    let before = clean.ops();
    archive.write(&frame(1, &mut BTreeMap::new(), &rows)).unwrap();
    let mut halves = 0;
    for op in before + 1..=clean.ops() {
        let (sim, disk) = sim();
        let mut archive = open(&disk, &settings).unwrap();
        sim.crash_at(op);
        let _ = archive.write(&frame(1, &mut BTreeMap::new(), &rows));
        let disk = Disk::Sim(Arc::new(sim.reboot(Loss::KeepAll)));
        if disk.exists(&plain).unwrap() {
            // Whoever wrote half of it, and whatever else lies there under our temporary name.
            let _ = disk.create_or_truncate(&packed).unwrap().append(b"\x1f\x8b half");
            let _ = disk.create_or_truncate(&rotate::with_suffix(&packed, ".tmp")).unwrap().append(b"junk");
            halves += 1;
        }
        let is_done = !open(&disk, &settings).unwrap().positions().is_empty();
        if is_done {
            let files = tree(&disk, &settings.dir);
            assert_eq!(
                files.keys().map(String::as_str).collect::<Vec<_>>(),
                ["app-2016-11-04T18-30-00.000.log.gz", "app.log", "archive.log"],
                "{op}"
            );
            assert_eq!(unpack(".gz", &files["app-2016-11-04T18-30-00.000.log.gz"]).unwrap(), b"12345678\n", "{op}");
        }
    }
    assert!(halves > 3, "{halves}");
}

#[test]
fn hostile_values_reach_files_of_their_own_and_are_counted() {
    let (_, disk) = sim();
    let settings = settings("logs/{tenant}/{service}.log", 200, Compress::Zstd);
    let long = vec![b'v'; 10_000];
    let values: [&[u8]; 9] = [b"../../../etc/x", b"a\0b", b"", b"\xff\xfe\xfd", b"..", b"a\\u002fb", b"a/b", &long, b"CON"];
    let mut rows: Vec<Row> = Vec::new();
    for (i, value) in values.iter().enumerate() {
        for tenant in [b"acme".as_slice(), b"../acme", b""] {
            rows.push((1, tenant, Some(value), [value, format!("|{i}").as_bytes()].concat(), T0));
        }
    }
    rows.push((1, b"acme", None, b"none".to_vec(), T0));
    let mut archive = open(&disk, &settings).unwrap();
    archive.write(&frame(1, &mut BTreeMap::new(), &rows)).unwrap();
    archive.finish().unwrap();
    let all = tree(&disk, Path::new("/"));
    assert!(
        all.keys().all(|name| name == "data/archive/files/archive.log" || name.starts_with("data/archive/files/logs/")),
        "{:?}",
        all.keys()
    );
    let counts = Archive::recount(&disk, &settings).unwrap();
    assert_eq!(counts.values().sum::<u64>(), rows.len() as u64);
    // An escaped and a plain slash are the same service; all else differs.
    assert_eq!(counts.len(), 3 * (values.len() - 1) + 1);
    assert_eq!(counts[&b"logs/acme/a%2Fb.log"[..]], 2);
    assert_eq!(counts[&b"logs/_empty/_empty.log"[..]], 1);
}

#[test]
fn eb_2_1_only_so_many_backups_stay_and_none_that_is_too_old() {
    let run = |backups, age_ms: Option<i64>| {
        let (_, disk) = sim();
        let settings = Settings { backups, age: age_ms.map(|ms| Span(ms * MS)), ..settings("app.log", 10, Compress::Gzip) };
        let rows: Vec<Row> = (0..6).map(|i| (1, &b"t"[..], None, format!("row {i} ..").into_bytes(), T0 + i * 10 * MS)).collect();
        let mut archive = open(&disk, &settings).unwrap();
        archive.write(&frame(1, &mut BTreeMap::new(), &rows)).unwrap();
        archive.finish().unwrap();
        tree(&disk, &settings.dir)
            .into_keys()
            .filter_map(|n| rotate::parse_backup("app.log", &n, &TimeZone::UTC))
            .map(|s| s.time_ms - T0 / MS)
            .collect::<Vec<_>>()
    };
    assert_eq!(run(0, None), [0, 10, 20, 30, 40]);
    assert_eq!(run(2, None), [30, 40]);
    assert_eq!(run(0, Some(35)), [20, 30, 40]);
    assert_eq!(run(1, Some(35)), [40]);
}

#[test]
fn eb_2_6_a_rename_that_fails_lets_the_file_grow_and_is_tried_again() {
    let settings = settings("app.log", 40, Compress::None);
    let rows = |from: i64, n: i64| -> Vec<Row<'static>> {
        (from..from + n).map(|i| (1, &b"t"[..], None, format!("row {i:05}").into_bytes(), T0 + i * MS)).collect()
    };
    // Find the operation that renames: the one whose failure shows as a rotation that failed.
    let mut found = 0;
    for op in 1..60 {
        let (sim, disk) = sim();
        let mut positions = BTreeMap::new();
        let mut archive = open(&disk, &settings).unwrap();
        sim.fail_at(sim.ops() + op, io::ErrorKind::PermissionDenied);
        if archive.write(&frame(1, &mut positions, &rows(0, 6))).is_err() || archive.stats().rotate_failures == 0 {
            continue;
        }
        found += 1;
        assert_eq!(archive.stats().rotations, 0);
        assert_eq!(disk.len(&settings.dir.join("app.log")).unwrap(), 60);
        archive.write(&frame(2, &mut positions, &rows(6, 6))).unwrap();
        assert_eq!(archive.stats().rotate_failures, 1);
        assert!(archive.stats().rotations > 0);
        archive.finish().unwrap();
        assert_eq!(Archive::recount(&disk, &settings).unwrap()[&b"app.log"[..]], 12);
    }
    assert_eq!(found, 1);
}

#[test]
fn parts_that_the_archive_has_are_skipped_and_streams_are_forgotten() {
    let (_, disk) = sim();
    let settings = settings("app.log", 0, Compress::None);
    let mut archive = open(&disk, &settings).unwrap();
    let mut positions = BTreeMap::new();
    let first = frame(1, &mut positions, &[(1, b"t", None, b"a".to_vec(), T0)]);
    let mut both = frame(2, &mut positions, &[(1, b"t", None, b"b".to_vec(), T0), (2, b"t", None, b"c".to_vec(), T0)]);
    both.parts[1].also.push(Resumed { stream: StreamId(3), resume: 9, done: 9 });
    archive.write(&first).unwrap();
    archive.write(&first).unwrap();
    archive.write(&both).unwrap();
    assert!(archive.positions().is_empty(), "nothing is promised before a commit");
    archive.commit().unwrap();
    archive.write(&both).unwrap();
    archive.forget(StreamId(1));
    archive.commit().unwrap();
    assert_eq!(disk.read(&settings.dir.join("app.log")).unwrap(), b"a\nb\nc\n");
    let has = open(&disk, &settings).unwrap().positions();
    assert_eq!(has, HashMap::from([(StreamId(2), 2), (StreamId(3), 9)]));
}

#[test]
fn the_log_stays_short() {
    let (_, disk) = sim();
    let settings = settings("{tenant}/{service}.log", 100_000, Compress::None);
    let mut archive = open(&disk, &settings).unwrap();
    let mut positions = BTreeMap::new();
    let mut longest = 0;
    for i in 0..6_000u64 {
        let body = format!("api {i}").into_bytes();
        archive.write(&frame(i, &mut positions, &[(i % 7, b"t", Some(b"api"), body, T0)])).unwrap();
        archive.commit().unwrap();
        longest = longest.max(disk.len(&settings.log_dir.join(log::NAME)).unwrap());
    }
    assert!((1_000_000..1_200_000).contains(&longest), "{longest}");
    assert_eq!(open(&disk, &settings).unwrap().positions(), archive.positions());
}

#[test]
fn a_future_time_ages_nobody_when_the_frame_knows_its_arrival() {
    let (_, disk) = sim();
    let settings = Settings { age: Some(Span(1_000 * MS)), ..settings("{tenant}.log", 10, Compress::None) };
    let mut archive = open(&disk, &settings).unwrap();
    let row = |tenant: &'static [u8], time: i64| -> Row<'static> { (1, tenant, None, b"12345678".to_vec(), time) };
    let mut one = frame(1, &mut BTreeMap::new(), &[row(b"a", T0), row(b"a", T0), row(b"b", i64::MAX), row(b"b", T0)]);
    one.received = UnixNanos(T0 + 5 * MS);
    archive.write(&one).unwrap();
    archive.finish().unwrap();
    let names: Vec<String> = tree(&disk, &settings.dir).into_keys().collect();
    assert_eq!(names, ["a-2016-11-04T18-30-00.000.log", "a.log", "archive.log", "b-2016-11-04T18-30-00.005.log", "b.log"]);
}

/// A folder on the real disk that goes with the test.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("weir-archive-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn real(folder: &Folder, path: &str, rotate_bytes: u64) -> Settings {
    Settings { dir: folder.0.join("files"), log_dir: folder.0.join("log"), ..settings(path, rotate_bytes, Compress::Zstd) }
}

#[test]
fn the_real_disk_holds_the_same() {
    let folder = Folder::new("same");
    let on_disk = real(&folder, "{tenant}/{service}.log", 180);
    let simulated = Settings { log_dir: PathBuf::from("/data/log"), ..settings("{tenant}/{service}.log", 180, Compress::Zstd) };
    let (_, disk) = sim();
    live(&Disk::Real, &on_disk, &workload(), &mut BTreeMap::new()).unwrap();
    live(&disk, &simulated, &workload(), &mut BTreeMap::new()).unwrap();
    assert_eq!(tree(&Disk::Real, &on_disk.dir), tree(&disk, &simulated.dir));
    assert_eq!(tree(&Disk::Real, &on_disk.log_dir), tree(&disk, &simulated.log_dir));
    assert_eq!(Archive::recount(&Disk::Real, &on_disk).unwrap(), Archive::recount(&disk, &simulated).unwrap());
}

#[test]
fn eb_2_8_a_symlink_out_of_the_folder_is_not_followed() {
    let folder = Folder::new("symlink");
    let settings = real(&folder, "{tenant}/app.log", 0);
    let outside = folder.0.join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    let mut archive = open(&Disk::Real, &settings).unwrap();
    std::os::unix::fs::symlink(&outside, settings.dir.join("evil")).unwrap();
    std::os::unix::fs::symlink(settings.dir.join("good"), settings.dir.join("alias")).unwrap();
    std::fs::create_dir_all(settings.dir.join("good")).unwrap();
    let mut positions = BTreeMap::new();
    archive.write(&frame(1, &mut positions, &[(1, b"alias", None, b"in".to_vec(), T0)])).unwrap();
    let error = archive
        .write(&frame(2, &mut positions, &[(1, b"alias", None, b"in too".to_vec(), T0), (1, b"evil", None, b"out".to_vec(), T0)]))
        .unwrap_err();
    assert!(format!("{error:#}").contains("is a symlink out of"), "{error:#}");
    archive.commit().unwrap();
    assert_eq!(std::fs::read(settings.dir.join("good/app.log")).unwrap(), b"in\n", "a frame is taken whole or not at all");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn eb_2_10_files_moved_from_outside_are_created_anew() {
    let folder = Folder::new("moved");
    let settings = real(&folder, "app.log", 0);
    let at = |name: &str| settings.dir.join(name);
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let mut positions = BTreeMap::new();
    let mut put = |archive: &mut Archive, text: &str| {
        let next = frame(1, &mut positions, &[(1, b"t", None, text.as_bytes().to_vec(), T0)]);
        archive.write(&next).unwrap();
    };
    put(&mut archive, "one");
    archive.commit().unwrap();
    put(&mut archive, "two");
    std::fs::rename(at("app.log"), at("app.log.1")).unwrap();
    archive.reopen().unwrap(); // SIGHUP
    put(&mut archive, "three");
    archive.commit().unwrap();
    assert_eq!(std::fs::read(at("app.log.1")).unwrap(), b"one\ntwo\n");
    assert_eq!(std::fs::read(at("app.log")).unwrap(), b"three\n");
    std::fs::remove_file(at("app.log")).unwrap();
    archive.tick(None).unwrap(); // no signal: noticed by itself
    put(&mut archive, "four");
    archive.commit().unwrap();
    assert_eq!(std::fs::read(at("app.log")).unwrap(), b"four\n");
    // Replaced while it is closed: theirs is kept, ours goes behind it.
    archive.reopen().unwrap();
    std::fs::remove_file(at("app.log")).unwrap();
    std::fs::write(at("app.log"), b"their line\n").unwrap();
    put(&mut archive, "five");
    archive.commit().unwrap();
    assert_eq!(std::fs::read(at("app.log")).unwrap(), b"their line\nfive\n");
    assert_eq!(archive.stats().changed_outside, 3);
    drop(archive);
    open(&Disk::Real, &settings).unwrap();
    assert_eq!(std::fs::read(at("app.log")).unwrap(), b"their line\nfive\n");
}

#[test]
fn eb_2_8_a_rotated_file_hands_its_mode_on() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("mode");
    let settings = real(&folder, "app.log", 10);
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let mut positions = BTreeMap::new();
    archive.write(&frame(1, &mut positions, &[(1, b"t", None, b"12345678".to_vec(), T0)])).unwrap();
    archive.commit().unwrap();
    let path = settings.dir.join("app.log");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    archive.write(&frame(2, &mut positions, &[(1, b"t", None, b"abcdefgh".to_vec(), T0)])).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read(&path).unwrap(), b"abcdefgh\n");
}

#[test]
fn descriptors_and_buffers_stay_bounded() {
    let folder = Folder::new("bounded");
    let settings = Settings { open_files_max: 5, buffer_bytes_max: 4_000, ..real(&folder, "{tenant}.log", 0) };
    let mut archive = open(&Disk::Real, &settings).unwrap();
    let tenants: Vec<String> = (0..60).map(|i| format!("t{i}")).collect();
    let mut positions = BTreeMap::new();
    for round in 0..20u64 {
        let rows: Vec<Row> = tenants.iter().map(|t| (1, t.as_bytes(), None, format!("{round} of {t}").into_bytes(), T0)).collect();
        archive.write(&frame(round, &mut positions, &rows)).unwrap();
        assert!(archive.open.len() <= 5 && archive.paths.iter().filter(|p| p.handle.is_some()).count() <= 5);
        assert!(archive.buffered <= 4_000, "{}", archive.buffered);
    }
    archive.commit().unwrap();
    assert!(archive.paths.iter().all(|p| p.files.iter().all(|f| f.buffer.is_empty())));
    let counts = Archive::recount(&Disk::Real, &settings).unwrap();
    assert!(counts.len() == 60 && counts.values().all(|n| *n == 20), "{counts:?}");
}
