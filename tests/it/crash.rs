//! `kill -9` at enumerated points while a file grows; after a clean run every line is there exactly once.
//!
//! In: a system-call trace of a run, twice, from which the points are taken: each write, fsync, rename, link, unlink and
//! truncation under the data folder whose place in the run is the same in both traces. A point is (call, path, n): strace kills
//! the program as it enters a thread's n-th such call, so that call is not made and the one before it is the last. Out: the
//! points whose recovery went wrong, all of them. Bound: [`POINTS`] points spread over all kinds of call and all files;
//! `SLOW=1` takes every one.

use crate::harness::{Place, Running, files_below, lines, skip, weir, works};
use crate::input::{assert_same_lines, assert_same_usage, platform, select, usage, usage_of_report};
use crate::stores::{archive_lines, commits};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Points for the journal and for the memory hub.
const POINTS: [(&str, usize); 2] = [("journal: { sync_interval: 5ms }", 42), ("memory: {}", 12)];

/// A question mark for those that not every kernel has.
const CALLS: &str =
    "?write,?pwrite64,?writev,?pwritev,?fsync,?fdatasync,?rename,?renameat,?renameat2,?link,?linkat,?unlink,?unlinkat,?ftruncate";

/// Small files, so that rotation, compression, seals and commits all happen often.
const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 10ms } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service, model] }
  - meter: { name: tokens_cached, quantity: tokens_cached, unit: Tokens, by: [service, model], part_of: tokens_in }
  - meter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service, model] }
  - sample: { levels: { debug: none } }
hub: { HUB }
sinks:
  files: { archive: { path: "{tenant}/lines.log", rotate: { size: 8KiB }, compress: zstd, commit: { interval: 5ms } } }
  store: { lake: { seal: { bytes: 64KiB, age: 100ms }, index_bytes_min: 4KiB } }
rates: rates.yaml
"#;
const LINES: usize = 450;
/// The writer appends in so many pieces, each ending within a line.
const PIECES: usize = 15;

/// Kill at the `n`-th call by a thread. `path`: relative to the data folder; `None`: whatever its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    path: Option<String>,
    n: usize,
}

fn place(hub: &str) -> Place {
    let place = Place::new();
    place.pipeline(&PIPELINE.replace("HUB", hub));
    place
}

fn input() -> Vec<String> {
    platform(61, LINES)
}

/// `weir run` under strace, as our own child: strace is the grandchild (`-D`), so signals and exit status are the program's.
fn traced(place: &Place, trace: &Path, kill: Option<&Point>, once: bool) -> Running {
    let program = weir();
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-y", "-qq", "-s", "0"]).arg("-o").arg(trace);
    command.arg("-e").arg(format!("trace={CALLS}"));
    if let Some(point) = kill {
        command.arg("-e").arg(format!("inject={}:signal=KILL:when={}", point.call, point.n));
        if let Some(path) = &point.path {
            command.arg("-P").arg(if path.is_empty() { place.data() } else { place.data().join(path) });
        }
    }
    command.arg(program.get_program()).arg("run").arg(place.path("pipeline.yaml")).arg("--data").arg(place.data());
    command.args(once.then_some("--once")).args(once.then_some("--quiet"));
    command.current_dir(crate::harness::root()).stdin(std::process::Stdio::null());
    Running::spawn(command)
}

/// What changes when the program makes progress: the length of the archive's log, and every third time the lake's commits.
fn progress(data: &Path, n: usize) -> u64 {
    if n.is_multiple_of(3) {
        return commits(&data.join("lake")) as u64;
    }
    let logs = files_below(&data.join("archive")).into_iter().filter(|name| name.ends_with("archive.log"));
    logs.map(|name| data.join("archive").join(name).metadata().map_or(0, |m| m.len())).sum()
}

/// Appends the input piece by piece, each after the program has done something about the one before.
///
/// In the middle the file is rotated away if `rotate`. Returns when the program has ended or all is written; what the program
/// did not live to see is appended then.
fn write_while_it_runs(place: &Place, running: &mut Running, rotate: bool) {
    let text = input().concat();
    let cut = |n: usize| n * text.len() / PIECES; // within a line but for the ends; each piece holds several newlines
    let mut before = 0;
    for n in 0..PIECES {
        let since = Instant::now();
        while running.is_running() && n > 0 && progress(&place.data(), n) == before {
            assert!(since.elapsed() < Duration::from_secs(30), "no progress after piece {n}:\n{}", running.stderr());
            std::thread::sleep(Duration::from_millis(1)); // between two looks
        }
        before = progress(&place.data(), n + 1);
        let piece = &text.as_bytes()[cut(n)..cut(n + 1)];
        // What was rotated away before the program ever saw it is nobody's to find.
        let seen = place.data().join("streams.log").metadata().is_ok_and(|m| m.len() > 0);
        if rotate && seen && n == PIECES / 2 {
            // A writer rotates at the end of a line: the rest of this one still goes to the old file.
            let rest = piece.iter().position(|b| *b == b'\n').expect("a newline") + 1;
            place.append("in/a.log", &piece[..rest]);
            std::fs::rename(place.path("in/a.log"), place.path("in/a.log.1")).expect("renamed");
            place.append("in/a.log", &piece[rest..]);
        } else {
            place.append("in/a.log", piece);
        }
    }
}

/// Waits until the program was killed, or has delivered everything and is told to stop. Whether it was killed.
fn wait_killed(place: &Place, running: &mut Running) -> bool {
    let since = Instant::now();
    let mut told = false;
    while running.is_running() {
        let done = place.run(&["ledger", "--json"]);
        if !told && done.code == Some(0) && running.is_running() {
            let ledger = crate::harness::Ledger::of(&done.json());
            if ledger.received() == LINES as u64 && ledger.sink("files", "buffered") == 0 && ledger.sink("store", "buffered") == 0 {
                running.signal(rustix::process::Signal::TERM); // draining makes calls too
                told = true;
            }
        }
        assert!(since.elapsed() < Duration::from_secs(60), "neither killed nor done:\n{}", running.stderr());
    }
    running.wait().signal() == Some(9)
}

/// Kills at `point`, for some cases once more while the next run recovers, then runs to the end. Whether the point was met.
fn crash_and_recover(hub: &str, point: &Point, again: Option<&Point>, rotate: bool) -> bool {
    let place = place(hub);
    let trace = place.path("trace");
    let mut running = traced(&place, &trace, Some(point), false);
    write_while_it_runs(&place, &mut running, rotate);
    let met = wait_killed(&place, &mut running);
    if let Some(point) = again {
        traced(&place, &trace, Some(point), true).wait();
    }
    place.once();
    check_all(&place);
    met
}

/// Archive and lake hold every kept line once, the bill is exact, the law holds and the stored rows say the same.
#[track_caller]
fn check_all(place: &Place) {
    let input = input();
    let kept = select(&input, |r| r["level"] != "debug");
    assert_same_lines("the archive", &archive_lines(&place.data(), "files"), &kept);
    assert_same_lines("the lake", &place.search(""), &kept);
    assert_same_usage(&usage_of_report(&place.ask(&["cost", "report"])), &usage(input.iter().map(String::as_bytes)));
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!((ledger.received(), ledger.difference("files"), ledger.difference("store")), (LINES as u64, 0, 0), "{}", ledger.0);
}

/// Calls under the data folder in one run: how often one thread made each, by call and path, and by call alone.
fn trace_run(hub: &str) -> BTreeMap<(String, Option<String>), usize> {
    let place = place(hub);
    let trace = place.path("trace");
    let mut running = traced(&place, &trace, None, false);
    write_while_it_runs(&place, &mut running, false);
    assert!(!wait_killed(&place, &mut running), "nobody kills this one");
    assert_eq!(running.wait().code(), Some(0), "{}", running.stderr());
    check_all(&place);
    assert!(commits(&place.data().join("lake")) > 1, "one seal only: too few points");
    count_calls(&std::fs::read_to_string(&trace).expect("a trace"), place.data().to_str().expect("text"))
}

fn count_calls(trace: &str, data: &str) -> BTreeMap<(String, Option<String>), usize> {
    let mut by_thread: BTreeMap<(&str, String, Option<String>), usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if call.contains([' ', '<', '+', '-']) {
            continue; // the end of a call that began before, a signal, an exit
        }
        let Some(path) = path_of(call, arguments, data) else { continue };
        // Names made from content are not the same in every run: calls about names are counted whatever the name.
        let path = (!is_about_names(call)).then_some(path);
        *by_thread.entry((thread, call.to_string(), path)).or_default() += 1;
    }
    let mut counts: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    for ((_, call, path), n) in by_thread {
        let most = counts.entry((call, path)).or_default();
        *most = (*most).max(n);
    }
    counts
}

fn is_about_names(call: &str) -> bool {
    call.starts_with("rename") || call.starts_with("link") || call.starts_with("unlink")
}

/// The file that a call is about, below the data folder: of its descriptor, or the last path among its arguments.
fn path_of(call: &str, arguments: &str, data: &str) -> Option<String> {
    let path = if is_about_names(call) { arguments.rsplit('"').nth(1)? } else { arguments.split_once('<')?.1.split_once('>')?.0 };
    let below = path.strip_prefix(data)?;
    if below.is_empty() { Some(String::new()) } else { below.strip_prefix('/').map(str::to_string) }
}

/// Points that both runs passed, in groups by call and folder.
fn candidates(hub: &str) -> BTreeMap<(String, String), Vec<Point>> {
    let (a, b) = (trace_run(hub), trace_run(hub));
    let mut groups: BTreeMap<(String, String), Vec<Point>> = BTreeMap::new();
    for ((call, path), n) in &a {
        let n = (*n).min(b.get(&(call.clone(), path.clone())).copied().unwrap_or(0));
        let place = match path {
            None => "any".to_string(),
            Some(path) => path.split('/').take(2).collect::<Vec<_>>().join("/"),
        };
        groups.entry((call.clone(), place)).or_default().extend((1..=n).map(|n| Point { call: call.clone(), path: path.clone(), n }));
    }
    groups.retain(|_, points| !points.is_empty());
    groups
}

/// `count` points, as many from each group as it has, spread evenly; all of them for `SLOW=1`.
fn choose(groups: &BTreeMap<(String, String), Vec<Point>>, count: usize) -> Vec<Point> {
    if std::env::var("SLOW").is_ok_and(|slow| slow == "1") {
        return groups.values().flatten().cloned().collect();
    }
    // The first of each group, then its last, its middle, its quarters and so on, until there are enough.
    let mut chosen = Vec::new();
    for round in 0..u32::MAX {
        let before = chosen.len();
        for points in groups.values() {
            let share = if round == 0 { 0.0 } else { f64::from((round - 1).reverse_bits()) / f64::from(u32::MAX) };
            let at = points.len() - 1 - ((points.len() - 1) as f64 * share) as usize;
            let point = if round == 0 { &points[0] } else { &points[at] };
            if chosen.len() < count && !chosen.contains(point) {
                chosen.push(point.clone());
            }
        }
        if chosen.len() == count || (chosen.len() == before && round > 1000) {
            break;
        }
    }
    chosen
}

#[test]
fn a_kill_at_any_point_loses_and_doubles_nothing() {
    if !works("strace", &["-D", "-f", "-o", "/dev/null", "true"]) {
        return skip("crash::a_kill_at_any_point_loses_and_doubles_nothing", "needs strace, and leave to trace");
    }
    for (hub, count) in POINTS {
        let groups = candidates(hub);
        for call in ["write", "sync", "rename", "link", "unlink"] {
            assert!(groups.keys().any(|(name, _)| name.contains(call)), "the run makes no {call} to kill at: {:?}", groups.keys());
        }
        let points = choose(&groups, count);
        for ((call, place), points) in &groups {
            println!("{call} {place}: {} points", points.len());
        }
        let (met, failed) = kill_at_each(hub, &points);
        for (point, what) in &failed {
            println!("hub {hub}, {point:?}: {what}\n");
        }
        println!(
            "hub {hub}: {} points in {} groups, {met} of {} met, {} went wrong",
            groups.values().map(Vec::len).sum::<usize>(),
            groups.len(),
            points.len(),
            failed.len()
        );
        assert!(
            failed.is_empty(),
            "{} of {} recoveries went wrong, the first at {:?}: {}",
            failed.len(),
            points.len(),
            failed[0].0,
            failed[0].1
        );
        assert!(met * 10 >= points.len() * 8, "only {met} of {} points were met: the runs differ too much", points.len());
    }
}

/// Two at a time. Returns how many points were met, and those whose recovery went wrong.
fn kill_at_each(hub: &str, points: &[Point]) -> (usize, Vec<(Point, String)>) {
    let results = Mutex::new((0, 0, Vec::new())); // next, met, failed
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let i = {
                        let mut results = results.lock().expect("no panic while it is held");
                        results.0 += 1;
                        results.0 - 1
                    };
                    let Some(point) = points.get(i) else { return };
                    // Every third case is killed again while it recovers, every fourth rotates its input.
                    let again = (i % 3 == 2).then(|| Point { call: "fdatasync".into(), path: None, n: i % 5 + 1 });
                    let case = std::panic::catch_unwind(|| crash_and_recover(hub, point, again.as_ref(), i % 4 == 3));
                    let mut results = results.lock().expect("no panic while it is held");
                    match case {
                        Ok(true) => results.1 += 1,
                        Ok(false) => println!("not met: {point:?}"),
                        Err(panic) => {
                            let text =
                                panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                            results.2.push((point.clone(), text.unwrap_or_default()));
                        }
                    }
                }
            });
        }
    });
    let (_, met, failed) = results.into_inner().expect("no panic while it is held");
    (met, failed)
}

#[test]
fn the_trace_is_read_as_strace_writes_it() {
    let trace = "7 write(5</d/hub/a.seg>, \"\"..., 3) = 3\n7  write(5</d/hub/a.seg>, \"\"..., 3 <unfinished ...>\n8  <... write resumed>) = 3\n8 write(2</dev/null>, \"\", 1) = 1\n8 linkat(AT_FDCWD</x>, \"/d/lake/t.tmp\", AT_FDCWD</x>, \"/d/lake/t\", 0) = 0\n8 +++ exited with 0 +++\n9 write(5</d/hub/a.seg>, \"\", 1) = 1\n";
    let want = [(("linkat", None), 1), (("write", Some("hub/a.seg")), 2)];
    let want: BTreeMap<_, _> = want.into_iter().map(|((call, path), n)| ((call.to_string(), path.map(str::to_string)), n)).collect();
    assert_eq!(count_calls(trace, "/d"), want);
    assert_eq!(lines(b"a\nb"), [b"a".to_vec(), b"b".to_vec()]);
}
