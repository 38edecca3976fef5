//! Disk and crash of the logged host: scenarios 32 to 38.
//!
//! A full disk is a small tmpfs in a mount namespace of its own; read errors and slow fsyncs are put in by strace.

use super::scene::{Scene, Setup, at_once, slow, with_both_hubs};
use crate::harness::{Ledger, Place, skip, wait_until, works};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn skipped(ledger: &Ledger, reason: &str) -> u64 {
    ledger.0["streams"]["skipped"][reason].as_u64().unwrap_or(0)
}

/// Happens: A block of NUL bytes after a power loss of the logged host, or a hole because the writer did not open for appending and went on at its old offset after copytruncate.
/// Weir: NUL bytes before a line are skipped and counted as `nul`; the lines around them are whole. A hole costs reading it, no memory.
/// Lost by: logrotate#286, #363; FB PR 427, 3124; remote_syslog2#192; V#20602
#[test]
fn s32_a_hole_after_copytruncate_is_skipped_and_counted() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        let mut writer = OpenOptions::new().write(true).create(true).truncate(true).open(scene.path("a.log")).expect("opened");
        let mut write = |scene: &mut Scene, count| writer.write_all(scene.text("a", count).as_bytes()).expect("written");
        write(&mut scene, 100);
        scene.start();
        scene.wait();
        let mut holes = 0;
        for n in 1..=3 {
            holes += scene.size("a.log");
            scene.copy_truncate("a.log", &format!("a.log.{n}"));
            write(&mut scene, 40); // at the old offset
            scene.wait();
        }
        let ledger = scene.finish();
        assert_eq!(skipped(&ledger, "nul"), holes, "{}", ledger.0["streams"]);
    });
}

#[test]
fn s32_blocks_of_nul_between_lines_are_skipped_and_counted() {
    let mut scene = Scene::new();
    let mut text = scene.text("a", 10).into_bytes();
    text.extend(vec![0; 4096]);
    text.extend(scene.text("a", 10).into_bytes()); // right behind the zeros
    text.extend(vec![0; 300_000]); // more than a read takes
    text.push(b'\n');
    text.extend(scene.text("a", 10).into_bytes());
    scene.write("a.log", text);
    scene.start();
    let ledger = scene.finish();
    assert_eq!(skipped(&ledger, "nul"), 4096 + 300_000, "{}", ledger.0["streams"]);
}

#[test]
fn s32_a_huge_hole_costs_no_memory() {
    let mut scene = Scene::of(Setup { more: "memory: 96MiB", ..Setup::default() });
    scene.put("a.log", "a", 10);
    let hole = if slow() { 8 << 30 } else { 400 << 20 };
    let len = scene.size("a.log") + hole;
    scene.truncate("a.log", len);
    scene.put("a.log", "a", 10);
    scene.put("b.log", "b", 10);
    scene.start();
    scene.wait();
    let peak = scene.running().peak_bytes();
    assert!(peak < 128 << 20, "{} MiB resident", peak >> 20);
    let ledger = scene.finish();
    assert_eq!(skipped(&ledger, "nul"), hole, "{}", ledger.0["streams"]);
}

/// Happens: The writer preallocates: a file of zeros that is filled from its start, and cut to its real length at the end.
/// Weir: Reads the lines as they come and waits where the zeros begin; the last cut is no truncation.
/// Lost by: V#2681
#[test]
fn s33_a_preallocated_file_is_read_as_it_is_filled() {
    at_once(&[("journal: {}", false), ("memory: {}", true), ("journal: {}", true)], |(hub, kill)| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        let path = scene.path("a.log");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("opened");
        if !works("fallocate", &["-l", "1MiB", path.to_str().expect("text")]) {
            file.set_len(1 << 20).expect("a hole reads as zeros too");
        }
        scene.put("beat.log", "beat", 1);
        scene.start();
        scene.wait();
        let mut at = 0;
        for n in 0..6 {
            let text = scene.text("a", 30);
            // The middle one ends within a line, right before the zeros.
            let bytes = text.as_bytes();
            let cut = if n == 3 { bytes.len() - 20 } else { bytes.len() };
            file.write_all_at(&bytes[..cut], at).expect("written");
            if cut < bytes.len() {
                let whole = scene.expected() - 1;
                scene.wait_ledger("the whole lines", |l| l.received() >= whole);
            }
            file.write_all_at(&bytes[cut..], at + cut as u64).expect("written");
            at += bytes.len() as u64;
            scene.wait();
            if *kill && n == 2 {
                scene.kill();
                scene.start();
            }
        }
        file.set_len(at).expect("cut");
        scene.put("a.log", "a", 10);
        scene.wait();
        assert_eq!(scene.metric("weir_source_truncations_total", ""), 0);
        scene.finish();
    });
}

/// Descriptors of deleted files that the program holds.
fn deleted_descriptors(pid: u32, folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let targets = entries.filter_map(|e| std::fs::read_link(e.path()).ok());
    targets.filter(|t| t.starts_with(folder) && t.to_string_lossy().ends_with(" (deleted)")).collect()
}

/// Happens: A log is deleted while the agent holds it open, and its disk space is not free.
/// Weir: Reads it to its end and closes it once it is delivered and silent.
/// Lost by: BT#2395, BT#2608, BT#896; V#11742, V#21998, V#8101
#[test]
fn s34_deleted_files_are_read_to_their_end_and_let_go() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        let names: Vec<String> = (0..20).map(|n| format!("{n}.log")).collect();
        for name in &names {
            scene.put(name, "a", 1);
        }
        scene.start();
        scene.wait();
        scene.freeze();
        for (n, name) in names.iter().enumerate() {
            scene.put(name, &format!("t{n}"), 20);
            scene.remove(name);
        }
        scene.thaw();
        scene.wait();
        let (pid, folder) = (scene.running().pid(), scene.path(""));
        wait_until("no deleted file is held open", || deleted_descriptors(pid, &folder).is_empty());
        scene.stop();
        scene.check_order(false);
    });
}

/// A sink that nobody reads from, on a hub that holds little.
const FULL: &str = "memory: { bytes_max: 4MiB }";
const OUT: &str = ", out: { stdout: {} }";

/// Fills the hub of a program whose standard output nobody reads; returns when it has stopped reading.
fn fill(scene: &mut Scene) {
    let mut before = 0;
    wait_until("the hub is full", || {
        let ledger = scene.place.run(&["ledger", "--json"]);
        let now = if ledger.code == Some(0) { Ledger::of(&ledger.json()).received() } else { 0 };
        std::mem::replace(&mut before, now) == now && now > 0
    });
}

/// Happens: A rotated file cannot be delivered and fills the node's disk: releasing it loses the rest.
/// Weir: Holds it without limit unless the operator sets one (`rotated`); then the rest is given up, named with path and bytes, and counted in `weir_source_abandoned_bytes_total`.
/// Lost by: V#22143 asks for a metric; V#18784
#[test]
fn s35_a_rotated_file_is_released_only_with_a_named_and_counted_loss() {
    at_once(&[", rotated: { age_max: 1s }", ", rotated: { bytes_max: 1MiB }"], |source| {
        let mut scene = Scene::of(Setup { hub: FULL, source, sinks: OUT, ..Setup::default() });
        let text = scene.text("a", 120_000); // 12 MB
        scene.write("a.log", &text);
        let blocked = scene.start_blocked();
        fill(&mut scene);
        scene.rename("a.log", "a.log.1");
        scene.put("a.log", "b", 10);
        scene.remove("a.log.1");
        wait_until("the rest is given up", || scene.metric("weir_source_abandoned_bytes_total", "") > 0);
        let abandoned = scene.metric("weir_source_abandoned_bytes_total", "") as u64;
        let said = scene.stderr();
        assert!(said.contains("a.log") && said.contains(&abandoned.to_string()), "path and {abandoned} bytes are not told: {said}");
        let (pid, folder) = (scene.running().pid(), scene.path(""));
        wait_until("it is closed", || deleted_descriptors(pid, &folder).is_empty());
        let reader = blocked.read();
        let ten = |l: &Ledger| l.kept_by_tenant().get("b") == Some(&10) && l.sink("out", "buffered") == 0;
        scene.wait_ledger("the next file", ten);
        scene.stop();
        reader.join().expect("it reads");
        let (got, wanted) = (scene.archived("a"), scene.wanted("a"));
        assert!(got.len() < wanted.len() && wanted.starts_with(&got), "a part of it, from its start: {} of {}", got.len(), wanted.len());
        let kept: usize = got.iter().map(|line| line.len() + 1).sum();
        assert_eq!(abandoned, (text.len() - kept) as u64, "bytes given up and bytes that are missing");
        scene.want_instead("a", got);
        scene.check();
    });
}

#[test]
fn s35_without_a_limit_a_deleted_file_is_held_until_it_is_delivered() {
    let mut scene = Scene::of(Setup { hub: FULL, sinks: OUT, ..Setup::default() });
    scene.put("a.log", "a", 120_000);
    let blocked = scene.start_blocked();
    fill(&mut scene);
    scene.rename("a.log", "a.log.1");
    scene.put("a.log", "a", 10);
    scene.remove("a.log.1");
    let (pid, folder) = (scene.running().pid(), scene.path(""));
    assert_eq!(deleted_descriptors(pid, &folder).len(), 1, "it is held");
    let reader = blocked.read();
    scene.finish();
    assert!(reader.join().expect("it reads") == scene.wanted("a"), "standard output has every line in order");
}

/// Small disks of its own for a test: it runs again, in a mount namespace that ends with it.
pub struct SmallDisks {
    folder: PathBuf,
}

const SMALL_DISKS: &str = "WEIR_TEST_SMALL_DISKS";

impl SmallDisks {
    /// `None`: the test was run again inside, went well there or was skipped, and has nothing left to do.
    #[track_caller]
    pub fn for_test(test: &str, size: &str) -> Option<SmallDisks> {
        if let Ok(folder) = std::env::var(SMALL_DISKS) {
            return Some(SmallDisks { folder: PathBuf::from(folder) });
        }
        let folder = tempfile::tempdir().expect("the temporary folder can be written to");
        let script = r#"for disk in 0 1 2 3; do mkdir "$1/$disk" && mount -t tmpfs -o size="$2" tmpfs "$1/$disk" || exit 77; done; shift 2; exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "sh"]).arg(folder.path()).arg(size);
        command.arg(std::env::current_exe().expect("the tests have a file")).args([test, "--exact", "--nocapture"]);
        command.env(SMALL_DISKS, folder.path()).stdin(Stdio::null());
        let Ok(output) = command.output() else {
            skip(test, "needs unshare");
            return None;
        };
        if output.status.code() == Some(77) {
            skip(test, "needs a mount namespace with a tmpfs");
            return None;
        }
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{test}, on small disks:\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "no test is called {test}");
        None
    }

    pub fn path(&self, disk: usize) -> PathBuf {
        self.folder.join(disk.to_string())
    }

    /// The data folder of this place lies on this disk.
    pub fn hold_data_of(&self, disk: usize, place: &Place) {
        std::fs::create_dir(self.path(disk).join("data")).expect("folder made");
        std::os::unix::fs::symlink(self.path(disk).join("data"), place.data()).expect("linked");
    }
}

/// Uses up a disk until dropped.
pub struct Ballast(PathBuf);

impl Ballast {
    pub fn fill(folder: &Path) -> Ballast {
        let ballast = Ballast(folder.join("ballast"));
        let mut file = std::fs::File::create(&ballast.0).expect("a name has room");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        ballast
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // the disk may be gone already
    }
}

/// Happens: The agent's own disk is full, in the middle of a record.
/// Weir: Says so; no position moves past what is not stored. It goes on when there is room again, after a restart where it had to end.
/// Lost by: fluentd#1698; FB#9669
#[test]
fn s36_a_full_disk_loses_and_doubles_nothing() {
    let Some(disks) = SmallDisks::for_test("tailing::disk::s36_a_full_disk_loses_and_doubles_nothing", "24m") else { return };
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        let disk = usize::from(hub.starts_with("memory"));
        disks.hold_data_of(disk, &scene.place);
        scene.put("a.log", "a", 100);
        scene.start();
        scene.wait();
        for round in 0..3 {
            let ballast = Ballast::fill(&disks.path(disk));
            scene.put("a.log", "a", 3000);
            if round == 1 {
                scene.rename("a.log", "a.log.1");
                scene.put("a.log", "a", 10);
            }
            wait_until("it says that there is no room, or ends", || {
                let said = scene.stderr().to_lowercase();
                said.contains("no space") || said.contains("storage full") || !scene.running().is_running()
            });
            drop(ballast);
            if !scene.running().is_running() {
                let mut ended = scene.take();
                assert_eq!(ended.wait().code(), Some(1), "{}", ended.stderr());
                assert!(ended.stderr().to_lowercase().contains("no space"), "it does not say why: {}", ended.stderr());
                scene.start();
            }
            // It may have ended between two looks.
            let settled = |l: &Ledger| l.received() >= 100;
            scene.wait_ledger("it goes on", settled);
            scene.wait();
        }
        scene.finish();
    });
}

fn strace(scene: &mut Scene, test: &str, injection: &str, path: Option<PathBuf>) -> bool {
    if !works("strace", &["-D", "-f", "-o", "/dev/null", "true"]) {
        skip(test, "needs strace, and leave to trace");
        return false;
    }
    let mut wrap = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", injection].into_iter().map(String::from).collect::<Vec<_>>();
    if let Some(path) = path {
        wrap.extend(["-P".to_string(), path.to_str().expect("text").to_string()]);
    }
    scene.wrap = wrap;
    true
}

/// Happens: A read of a log returns EIO; an fsync of the agent's disk takes long.
/// Weir: A log that cannot be read is named (`io_error`) and tried again, the others go on; a slow fsync delays and reorders nothing.
/// Lost by: vlagent exits
#[test]
fn s37_a_read_that_fails_is_named_and_made_again() {
    let mut scene = Scene::new();
    let path = scene.path("a.log");
    if !strace(
        &mut scene,
        "tailing::s37_a_read_that_fails_is_named_and_made_again",
        "inject=pread64,read,preadv,readv:error=EIO:when=2..12",
        Some(path),
    ) {
        return;
    }
    scene.put("a.log", "a", 500);
    scene.put("b.log", "b", 500);
    scene.start();
    scene.wait();
    let said = scene.stderr();
    assert!(said.contains("a.log") && said.contains("nput/output error"), "it does not name the file: {said}");
    scene.finish();
}

#[test]
fn s37_a_file_that_cannot_be_read_at_all_does_not_hold_up_the_others() {
    let mut scene = Scene::new();
    let path = scene.path("a.log");
    if !strace(
        &mut scene,
        "tailing::s37_a_file_that_cannot_be_read_at_all",
        "inject=pread64,read,preadv,readv:error=EIO:when=1+",
        Some(path),
    ) {
        return;
    }
    scene.write("a.log", "{\"tenant\":\"never\"}\n");
    scene.put("b.log", "b", 500);
    scene.start();
    scene.wait();
    scene.wait_refused("a.log", "io_error");
    scene.put("b.log", "b", 10);
    scene.finish();
}

#[test]
fn s37_a_slow_fsync_delays_and_loses_nothing() {
    let mut scene = Scene::new();
    if !strace(&mut scene, "tailing::s37_a_slow_fsync_delays_and_loses_nothing", "inject=fsync,fdatasync:delay_exit=150000", None) {
        return;
    }
    scene.put("a.log", "a", 100);
    scene.start();
    for _ in 0..5 {
        scene.put("a.log", "a", 2000);
        scene.put("b.log", "b", 200);
    }
    scene.finish();
}

/// Happens: A log is truncated while it is being read; a shipper that maps it dies of SIGBUS.
/// Weir: Reads, never maps; what was cut off before it was read is gone and the truncation counted, everything else is whole and once.
/// Lost by: FB#9167
/// Limit: bytes that were cut off before anybody read them, without a copy, are gone
#[test]
fn s38_truncated_in_the_middle_of_reading() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        scene.put("a.log", "a", 1);
        scene.start();
        scene.wait();
        let mut truncations = 0;
        for round in 0..8 {
            let before = scene.expected();
            scene.put("a.log", "a", 40_000); // 4 MB
            scene.wait_ledger("reading has begun", |l| l.received() > 0 && (round > 0 || l.received() >= before));
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", scene.running().pid())).expect("it runs");
            assert!(!maps.contains("a.log"), "the log is mapped");
            scene.truncate("a.log", 0);
            truncations += 1;
            let tenant = format!("b{round}");
            scene.put("a.log", &tenant, 20);
            scene.wait_ledger("what was written after it", |l| l.kept_by_tenant().get(&tenant) == Some(&20));
        }
        let counted = scene.metric("weir_source_truncations_total", "");
        assert_eq!(counted, truncations, "truncations counted");
        scene.stop();
        // Whole lines, each at most once, in order.
        let (got, wanted) = (scene.archived("a"), scene.wanted("a"));
        let mut rest = wanted.iter();
        for line in &got {
            assert!(rest.any(|w| w == line), "{hub}: broken, doubled or out of order: {}", String::from_utf8_lossy(line));
        }
        scene.want_instead("a", got);
        scene.check();
    });
}
