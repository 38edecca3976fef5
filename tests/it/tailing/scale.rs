//! Scale and discovery: scenarios 53 to 57.

use super::scene::{Scene, Setup, at_once, slow, with_both_hubs};
use crate::harness::{skip, wait_until, works};
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

/// Happens: A new file is found late; a pod is gone before it was discovered.
/// Weir: inotify tells of a new file, in a new folder too, at once: seen within 100 ms. What was seen is held open and read to its end though it is deleted.
/// Lost by: V#6771, V#7840; OCC#34395, OCC#50328; V#20541
/// Limit: a file that is deleted before the news of it can be read is lost, and nobody can know of it
#[test]
fn s53_a_new_file_is_seen_within_100_ms() {
    let mut scene = Scene::of(Setup { include: r#""$DIR/in/*.log", "$DIR/in/*/*/*.log""#, ..Setup::default() });
    scene.put("first.log", "first", 1);
    scene.start();
    scene.wait();
    let mut late = Vec::new();
    for n in 0..20 {
        let file = if n % 2 == 0 { format!("{n}.log") } else { format!("pod{n}/web/{n}.log") };
        let since = Instant::now();
        scene.put(&file, "a", 1);
        wait_until("it is found", || scene.running().stderr().contains(&format!("{n}.log")));
        if since.elapsed() > Duration::from_millis(100) {
            late.push((file, since.elapsed()));
        }
        scene.wait();
    }
    assert!(late.len() <= 2, "a busy machine may be late once or twice: {late:?}");
    scene.stop();
    scene.check_order(false);
}

#[test]
fn s53_a_pod_that_lives_for_a_moment_is_read_whole() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, include: r#""$DIR/in/*/*/*.log""#, ..Setup::default() });
        scene.put("pod0/web/0.log", "a", 1);
        scene.start();
        scene.wait();
        for n in 1..=10 {
            let file = format!("pod{n}/web/0.log");
            scene.put(&file, &format!("t{n}"), 50);
            let since = Instant::now();
            wait_until("a moment", || since.elapsed() > Duration::from_millis(150)); // that long it lives
            scene.put(&file, &format!("t{n}"), 50);
            std::fs::remove_dir_all(scene.path(&format!("pod{n}"))).expect("removed");
        }
        scene.finish();
    });
}

/// Seconds of processor time the program has used.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number");
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// `files` idle files: what they cost, and whether a live one among them is read at once.
fn idle(files: usize) {
    let mut scene =
        Scene::of(Setup { include: r#""$DIR/in/*/*.log""#, source: ", files_max: 200000", more: "memory: 256MiB", ..Setup::default() });
    for n in 0..files {
        let line = scene.text("idle", 1);
        scene.write(&format!("{}/{n}.log", n / 1000), line);
    }
    let since = Instant::now();
    scene.start();
    scene.wait();
    let found = since.elapsed();
    let pid = scene.running().pid();
    // A while for whatever follows on discovery.
    let since = Instant::now();
    wait_until("it is quiet", || since.elapsed() > Duration::from_secs(2));
    let (before, since) = (cpu_seconds(pid), Instant::now());
    let span = Duration::from_secs(if slow() { 60 } else { 6 });
    wait_until("time passes", || since.elapsed() > span);
    let share = (cpu_seconds(pid) - before) / since.elapsed().as_secs_f64();
    let rss = scene.running().peak_bytes();
    println!("{files} idle files: all read after {found:?}, {:.2} % of a core, {} MiB at most", share * 100.0, rss >> 20);
    let since = Instant::now();
    scene.put("0/0.log", "live", 1);
    scene.put("0/new.log", "live", 1);
    scene.wait();
    let seen = since.elapsed();
    scene.stop();
    scene.check_order(false);
    // A hundredth of a core for 10,000 files; the clock counts in ticks of 10 ms.
    let limit = 0.01 * (files as f64 / 10_000.0).max(1.0);
    assert!(share <= limit + 0.01 / span.as_secs_f64(), "{files} idle files cost {:.2} % of a core", share * 100.0);
    assert!(seen < Duration::from_secs(2), "a live file among {files} was read after {seen:?}");
}

/// Happens: Thousands of files, nearly all of them idle.
/// Weir: 10,000 idle files cost at most 1 % of a core; a line in one of them is read at once.
/// Lost by: OCC#27404, OCC#27812; V#3567, V#1466
#[test]
fn s54_ten_thousand_idle_files_cost_next_to_nothing() {
    idle(10_000);
}

#[test]
fn s54_a_hundred_thousand_files_in_a_glob() {
    if slow() {
        idle(100_000);
    }
}

#[test]
fn s54_more_files_than_the_limit_are_named() {
    let mut scene = Scene::of(Setup { source: ", files_max: 10", ..Setup::default() });
    for n in 0..10 {
        scene.put(&format!("a{n}.log"), &format!("t{n}"), 5);
    }
    scene.start();
    scene.wait();
    scene.write("b.log", "{\"tenant\":\"never\"}\n");
    scene.wait_refused("b.log", "files_max");
    scene.remove("b.log");
    scene.put("a3.log", "t3", 5);
    scene.finish();
}

/// Happens: inotify's queue overflows, or there are no watches left.
/// Weir: An overflow leads to a look at everything; without watches the folders are looked through every `scan`. Neither loses a file.
/// Lost by: FB#717, FB#5500; FB PR 11750
#[test]
fn s55_the_queue_of_inotify_overflows() {
    let mut scene = Scene::of(Setup { source: ", scan: 1s", ..Setup::default() });
    scene.put("a.log", "a", 10);
    scene.start();
    scene.wait();
    scene.freeze();
    // Names that come and go: an event each for creation, renaming (two), deletion and closing. The queue holds 16,384.
    for n in 0..5000 {
        scene.write("noise.log.tmp", "x\n");
        scene.rename("noise.log.tmp", "noise.tmp2");
        scene.remove("noise.tmp2");
        if n % 500 == 0 {
            scene.put(&format!("new{n}.log"), &format!("t{n}"), 3);
        }
    }
    scene.put("a.log", "a", 10);
    scene.rename("a.log", "a.log.1");
    scene.put("a.log", "a", 10);
    scene.put("last.log", "last", 10);
    scene.thaw();
    scene.wait();
    scene.put("last.log", "last", 10);
    scene.put("after.log", "after", 10);
    scene.finish();
}

#[test]
fn s55_no_watches_are_left() {
    const FEW: [&str; 5] = ["unshare", "-r", "sh", "-c", "echo 3 > /proc/sys/user/max_inotify_watches && exec \"$@\""];
    if !works(FEW[0], &[&FEW[1..], &["sh", "true"][..]].concat()) {
        return skip("tailing::s55_no_watches_are_left", "needs a user namespace with limits of its own");
    }
    let mut scene = Scene::of(Setup { include: r#""$DIR/in/*/*.log""#, source: ", scan: 300ms", ..Setup::default() });
    scene.wrap = FEW.iter().chain(&["sh"]).map(|s| s.to_string()).collect();
    for n in 0..20 {
        scene.put(&format!("{n}/a.log"), &format!("t{n}"), 5);
    }
    scene.start();
    scene.wait();
    for n in 0..30 {
        scene.put(&format!("{n}/a.log"), &format!("t{n}"), 5);
        scene.put(&format!("{n}/b.log"), &format!("b{n}"), 5);
    }
    scene.wait();
    for n in 0..30 {
        scene.rename(&format!("{n}/a.log"), &format!("{n}/a.log.1"));
        scene.put(&format!("{n}/a.log"), &format!("t{n}"), 5);
    }
    scene.finish();
}

/// Happens: Some pods are never collected; the limit of descriptors is hit.
/// Weir: Reads as many files at a time as it may hold open and takes turns; each is read to its end.
/// Lost by: V#12014, V#7934
#[test]
fn s56_more_files_than_descriptors() {
    at_once(&[("ulimit -n 64 && exec \"$@\"", ""), ("exec \"$@\"", ", open_files_max: 20")], |(script, source)| {
        let mut scene = Scene::of(Setup { source, ..Setup::default() });
        scene.wrap = ["sh", "-c", script, "sh"].map(String::from).to_vec();
        for n in 0..300 {
            scene.put(&format!("{n}.log"), "a", 1);
            scene.put(&format!("{n}.log"), &format!("t{}", n % 5), 20);
        }
        scene.start();
        scene.wait();
        for n in (0..300).step_by(3) {
            scene.put(&format!("{n}.log"), "a", 1);
        }
        scene.wait();
        for n in (0..300).step_by(50) {
            scene.rename(&format!("{n}.log"), &format!("{n}.log.1"));
            scene.put(&format!("{n}.log"), "a", 2);
        }
        scene.wait();
        scene.stop();
        scene.check_order(false);
    });
}

/// Happens: kubelet keeps 5 files of 10 MiB: a pod that writes fast leaves less than two seconds of slack.
/// Weir: A burst through all five files, with renames and compression as kubelet does them and a stall in the middle, is read whole; the pods beside it are not starved.
/// Lost by: all shippers that stall longer than the slack
#[test]
fn s57_a_burst_through_kubelets_rotation() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, include: r#""$DIR/in/*/*.log""#, source: ", format: cri", ..Setup::default() });
        let size = if slow() { 10 << 20 } else { 1 << 20 };
        let line = |scene: &mut Scene, tenant: &str| {
            let record = scene.line(tenant);
            scene.expect(tenant, record.as_bytes());
            super::scene::cri("stdout", "F", &record)
        };
        let quiet = line(&mut scene, "quiet");
        scene.append("quiet/0.log", quiet);
        let first = line(&mut scene, "a");
        scene.append("loud/0.log", first);
        scene.start();
        scene.wait();
        let mut names: Vec<String> = Vec::new();
        for round in 0..10 {
            if round == 4 {
                scene.freeze();
            }
            let mut file = OpenOptions::new().append(true).create(true).open(scene.path("loud/0.log")).expect("opened");
            let mut written = 0;
            while written < size {
                let text: String = (0..500).map(|_| line(&mut scene, "a")).collect();
                file.write_all(text.as_bytes()).expect("written");
                written += text.len();
            }
            let text = line(&mut scene, "quiet");
            scene.append("quiet/0.log", text);
            // Delete the oldest, compress the earlier ones, rename the log. The first stall of 3 rotations is within the slack.
            if names.len() == 4 {
                if round != 4 && round != 5 && round != 6 {
                    scene.remove(&names.remove(0));
                } else {
                    names.remove(0);
                }
            }
            if let Some(last) = names.last_mut().filter(|n| !n.ends_with(".gz")) {
                scene.gzip(last);
                last.push_str(".gz");
            }
            let name = format!("loud/0.log.20261123-0300{round:02}");
            scene.rename("loud/0.log", &name);
            names.push(name);
            let text = line(&mut scene, "a");
            scene.append("loud/0.log", text);
            if round == 6 {
                scene.thaw();
            }
            if !(4..7).contains(&round) {
                scene.wait(); // it keeps up; without this the machine would decide
            }
        }
        scene.finish();
    });
}
