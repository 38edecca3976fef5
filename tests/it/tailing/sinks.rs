//! Sinks and flow: scenarios 46 to 52. A sink refuses, stands still, comes back, is slow, or is dead while the process lives.

use super::scene::{Scene, Setup, at_once, slow, with_both_hubs};
use crate::harness::{Ledger, skip, wait_until, works};
use crate::stores::archive_folder;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const OUT: &str = ", out: { stdout: {} }";

/// Happens: A sink refuses for good: a path that cannot be written, in place of a 401 or a schema error.
/// Weir: Says which sink and why; nothing counts as delivered that was refused, the others go on or the run ends with exit 1; once the cause is gone all of it is delivered.
/// Lost by: V#24543, V#25746
/// Limit: none of today's sinks answers with a rejection of single records; the ledger's `rejected` holds what a journal gave up (`dropped_oldest`, `damaged`)
#[test]
fn s46_what_a_sink_cannot_take_is_not_delivered_and_not_lost() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        scene.put("a.log", "a", 50);
        scene.start();
        scene.wait();
        scene.stop();
        // A folder stands where the archive wants to write a file.
        let obstacle = archive_folder(&scene.place.data(), "files").join("b.log");
        std::fs::create_dir(&obstacle).expect("folder made");
        scene.put("a.log", "a", 50);
        scene.put("b.log", "b", 50);
        scene.start();
        wait_until("it names sink and path, or ends", || {
            let said = scene.stderr();
            (said.contains("files") && said.contains("b.log")) || !scene.running().is_running()
        });
        if scene.running().is_running() {
            scene.kill();
        } else {
            let mut ended = scene.take();
            assert_eq!(ended.wait().code(), Some(1), "{}", ended.stderr());
            assert!(ended.stderr().contains("b.log"), "{}", ended.stderr());
        }
        std::fs::remove_dir(&obstacle).expect("it is empty");
        scene.start();
        scene.finish();
    });
}

/// Lines a second of the writer in the scenes about sinks that stand still.
const RATE: u64 = 10_000;

/// Happens: The backend is down for hours and comes back: memory, order and a thundering drain.
/// Weir: With the journal hub sources go on; what waits lies on disk, memory stays under its bound, and comes out in order, once, when the sink is back.
/// Lost by: V#10398
#[test]
fn s47_a_sink_stands_still_while_sources_go_on_and_comes_back() {
    let mut scene = Scene::of(Setup { sinks: OUT, more: "memory: 128MiB", ..Setup::default() });
    let blocked = scene.start_blocked();
    let long = Duration::from_secs(if slow() { 60 } else { 5 });
    let (began, mut written) = (Instant::now(), 0);
    let mut before = 0;
    while began.elapsed() < long {
        // A burst, and then the clock decides how many lines are due.
        while (written as f64) < began.elapsed().as_secs_f64() * RATE as f64 {
            for n in 0..4 {
                scene.put(&format!("{n}.log"), &format!("t{n}"), 50);
            }
            written += 200;
        }
        if written / (RATE * 2) > before {
            before = written / (RATE * 2);
            for n in 0..2 {
                scene.rename(&format!("{n}.log"), &format!("{n}.log.{before:05}"));
                scene.put(&format!("{n}.log"), &format!("t{n}"), 1);
            }
        }
        std::thread::sleep(Duration::from_millis(5)); // the writer's pace
    }
    let ledger = scene.wait(); // the sources went on, and so did the other sink
    assert!(ledger.sink("out", "buffered") > ledger.received() / 2, "standard output took it: {}", ledger.0);
    let reader = blocked.read();
    scene.wait_ledger("the sink has caught up", |l| l.sink("out", "buffered") == 0);
    let peak = scene.running().peak_bytes();
    assert!(peak < 160 << 20, "{} MiB resident for 128 MiB of anonymous memory and the program itself", peak >> 20);
    scene.finish();
    let got = reader.join().expect("it reads");
    for n in 0..4 {
        let tenant = format!("t{n}");
        let mine = format!("\"tenant\":\"{tenant}\"");
        let lines: Vec<Vec<u8>> = got.iter().filter(|l| String::from_utf8_lossy(l).contains(&mine)).cloned().collect();
        assert!(lines == scene.wanted(&tenant), "standard output of {tenant}: {} lines for {}", lines.len(), scene.wanted(&tenant).len());
    }
}

/// Happens: A memory limit pauses the input, and the files rotate away meanwhile, several times.
/// Weir: Holds the descriptors of what it has seen and reads on, file by file, when there is room.
/// Lost by: FB#669, FB#1903
#[test]
fn s48_files_rotate_away_while_reading_is_paused() {
    let mut scene = Scene::of(Setup { hub: "memory: { bytes_max: 4MiB }", sinks: OUT, ..Setup::default() });
    scene.put("a.log", "a", 100_000); // 10 MB
    let blocked = scene.start_blocked();
    scene.wait_ledger("it has begun", |l| l.received() > 0);
    let mut last = 0;
    wait_until("reading pauses", || {
        let done = scene.place.run(&["ledger", "--json"]);
        let now = if done.code == Some(0) { Ledger::of(&done.json()).received() } else { 0 };
        std::mem::replace(&mut last, now) == now && now > 0
    });
    for round in 0..4 {
        for old in (1..=round).rev() {
            scene.rename(&format!("a.log.{old}"), &format!("a.log.{}", old + 1));
        }
        scene.rename("a.log", "a.log.1");
        scene.put("a.log", "a", 2000);
        let path = scene.path("a.log");
        let path = path.to_str().expect("text");
        wait_until("the new file was seen", || {
            let files = scene.source()["files"].clone();
            let size = scene.size("a.log");
            files.as_array().into_iter().flatten().any(|f| f["path"] == path && f["size"] == size)
        });
    }
    scene.remove("a.log.4"); // the first one, of which the most is not read yet
    let reader = blocked.read();
    scene.finish();
    assert!(reader.join().expect("it reads") == scene.wanted("a"), "standard output has every line in order");
}

/// Happens: More is offered than can be handled: throughput collapses.
/// Weir: Reads slower and loses nothing; with twice the capacity offered throughput stays at 95 % of its peak or more.
/// Lost by: FB#12451
#[test]
fn s49_more_is_offered_than_can_be_handled() {
    // A journal of the smallest size is full at once: the sources wait for the sinks all the time.
    let mut scene = Scene::of(Setup { hub: "journal: { bytes_max: 64MiB }", more: "memory: 128MiB", ..Setup::default() });
    for n in 0..8 {
        scene.put(&format!("{n}.log"), &format!("t{n}"), 100_000);
    }
    scene.start();
    for n in 0..8 {
        scene.put(&format!("{n}.log"), &format!("t{n}"), 5_000);
        scene.rename(&format!("{n}.log"), &format!("{n}.log.1"));
        scene.put(&format!("{n}.log"), &format!("t{n}"), 10);
    }
    scene.wait();
    let peak = scene.running().peak_bytes();
    assert!(peak < 160 << 20, "{} MiB resident", peak >> 20);
    scene.finish();
}

/// Records a second that reach the archive while `offered` a second are written; the length of the test decides how many.
fn throughput(offered: Option<u64>, files: usize) -> f64 {
    let place = crate::harness::Place::new();
    place.pipeline("sources: { in: { file: { include: [\"$DIR/in/*.log\"] } } }\ntenancy: { from: [tenant] }\nsinks: { files: { archive: { path: \"{tenant}.log\" } } }\n");
    let line = format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"a\",\"pad\":\"{}\"}}\n", "x".repeat(440));
    let block = line.repeat(1000);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::fs::create_dir_all(place.path("in")).expect("folder made");
    let mut running = place.start();
    let mut counts = (0, 0);
    std::thread::scope(|threads| {
        let (place, stop) = (&place, &stop);
        threads.spawn(move || {
            let (began, mut written) = (Instant::now(), 0u64);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if offered.is_none_or(|rate| (written as f64) < began.elapsed().as_secs_f64() * rate as f64) {
                    place.append(&format!("in/{}.log", written as usize / 1000 % files), &block);
                    written += 1000;
                } else {
                    std::thread::sleep(Duration::from_millis(1)); // the writer's pace
                }
            }
        });
        counts.0 = place.wait_received(&mut running, 200_000).received();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(100)); // this test measures time
        }
        counts.1 = place.ledger().received();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    running.signal(rustix::process::Signal::KILL);
    (counts.1 - counts.0) as f64 / 10.0
}

#[test]
fn s49_throughput_at_twice_the_capacity_is_near_its_peak() {
    if !slow() {
        return; // it measures for a minute and needs the machine for itself
    }
    let capacity = throughput(None, 4);
    let at_capacity = throughput(Some((capacity * 0.9) as u64), 4);
    let overload = throughput(Some((capacity * 2.0) as u64), 4);
    println!("records a second: {capacity:.0} unlimited, {at_capacity:.0} offered 0.9 of it, {overload:.0} offered twice");
    assert!(overload >= 0.95 * at_capacity.max(capacity * 0.9), "{overload:.0} of {capacity:.0}");
}

/// Happens: After a restart the same records are stored again under another name.
/// Weir: Names are hashes of content, and a store keeps its position in the same step as its data: kill it as often as you like, nothing is there twice, and two runs over one input are the same bytes.
/// Lost by: V#20118
#[test]
fn s50_kills_leave_no_object_twice() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, files: ", rotate: { size: 16KiB }, compress: zstd", ..Setup::default() });
        for _ in 0..8 {
            scene.put("a.log", "a", 300);
            scene.start();
            let (data, before) = (scene.place.data(), crate::stores::commits(&scene.place.data().join("lake")));
            wait_until("one more commit of the lake", || crate::stores::commits(&data.join("lake")) > before);
            scene.kill();
        }
        scene.once();
        let all = scene.wanted("a");
        crate::input::assert_same_lines(hub, &crate::stores::archive_lines(&scene.place.data(), "files"), &all);
        crate::input::assert_same_lines(hub, &scene.place.search(""), &all);
        scene.check_ledger();
    });
}

/// Happens: One sink is slow and stalls all others.
/// Weir: Each sink has its own cursor: with the journal hub the others go on as long as the disk budget lasts.
/// Lost by: V#14828, V#19938, V#20496
/// Limit: with the memory hub the slowest sink sets the pace once its 32 MiB are full
#[test]
fn s51_a_sink_that_stands_still_does_not_hold_up_the_one_beside_it() {
    let mut scene = Scene::of(Setup { sinks: OUT, ..Setup::default() });
    let blocked = scene.start_blocked();
    for _ in 0..20 {
        scene.put("a.log", "a", 2000);
    }
    let ledger = scene.wait(); // 4 MB: the archive has all
    assert!(ledger.sink("out", "buffered") > 0, "standard output is not blocked");
    wait_until("and so has the lake", || scene.place.ledger().sink("store", "buffered") == 0);
    assert!(scene.place.search("").len() == scene.wanted("a").len());
    let reader = blocked.read();
    scene.finish();
    assert!(reader.join().expect("it reads") == scene.wanted("a"));
}

/// Happens: All workers are dead or stuck, and the process reports itself healthy.
/// Weir: Health is progress: `/livez` and `/readyz` name the lane, source or sink that has work and has not moved for 30 s, and are good again when it moves.
/// Lost by: OA#3561; FB#11847
#[test]
fn s52_a_stuck_sink_and_a_stopped_lane_are_named_by_the_health_pages() {
    at_once(&[true, false], |sink| if *sink { stuck_sink() } else { stopped_lane() });
}

#[track_caller]
fn wait_health(scene: &mut Scene, good: bool, name: &str) {
    for page in ["/livez", "/readyz"] {
        wait_until(&format!("{page} tells {name}"), || {
            let (status, body) = scene.get(page);
            if good { status == 200 } else { status == 503 && body.contains(name) }
        });
    }
}

fn stuck_sink() {
    let mut scene = Scene::of(Setup { sinks: OUT, ..Setup::default() });
    let blocked = scene.start_blocked();
    scene.put("a.log", "a", 5000);
    scene.wait();
    assert_eq!(scene.get("/livez").0, 200);
    wait_health(&mut scene, false, "out");
    assert!(!scene.get("/livez").1.contains("files"), "the sink beside it moves");
    let reader = blocked.read();
    wait_health(&mut scene, true, "out");
    scene.finish();
    assert!(reader.join().expect("it reads") == scene.wanted("a"));
}

/// strace holds the thread at its next call, for longer than health waits: the thread stands as if it were stopped.
fn stopped_lane() {
    if !works("strace", &["-D", "-f", "-o", "/dev/null", "true"]) {
        return skip("tailing::s52_a_stopped_lane", "needs strace, and leave to trace");
    }
    let mut scene = Scene::of(Setup { more: "lanes: 1", ..Setup::default() });
    scene.put("a.log", "a", 10);
    scene.start();
    scene.wait();
    let pid = scene.running().pid();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let lane = tasks
        .map(|t| (t.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(t.path().join("comm")).unwrap_or_default()))
        .find(|(_, name)| name.starts_with("lane"))
        .expect("a thread is called lane")
        .0;
    let mut tracer = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=all", "-e", "inject=all:delay_enter=600000000", "-p", &lane])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace starts");
    scene.put("a.log", "a", 10);
    wait_health(&mut scene, false, "lane");
    let _ = tracer.kill(); // lets the thread go on
    let _ = tracer.wait();
    wait_health(&mut scene, true, "lane");
    scene.finish();
}
