//! Tail sampling in the whole program: requests with an error or a slow record are kept as a whole, whatever happens meanwhile.
//!
//! The oracle knows which requests were made with such a record; it reads stored lines and adds up what they say of themselves.

use crate::harness::{Place, admin_address, files_below, http_get, lines, metric, wait_until};
use crate::input::{Dice, assert_same_lines};
use crate::stores::archive_lines;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const TENANTS: u64 = 5;

/// Requests of 3 to 8 lines each, a hundred of them open at a time but for the last line of each `piece`. One in twelve has an
/// error, one in twenty is slow. `ms`: how much time passes from line to line.
fn input(seed: u64, count: usize, piece: usize, ms: u64) -> Vec<String> {
    let mut dice = Dice(seed);
    let mut open: Vec<(u64, u64, bool, bool)> = Vec::new(); // number, lines left, to be in error, to be slow
    let mut next = 0;
    let mut lines = Vec::new();
    for n in 0..count {
        while open.len() < 100 {
            // What is begun ends in this piece.
            let room = (piece - n % piece) as u64 - open.iter().map(|r| r.1).sum::<u64>();
            if room == 0 {
                break;
            }
            open.push((next, (3 + dice.roll(6)).min(room), dice.roll(12) == 0, dice.roll(20) == 0));
            next += 1;
        }
        let at = dice.roll(open.len() as u64) as usize;
        let (request, left, error, slow) = &mut open[at];
        let last = *left == 1;
        let level = if last && *error { "error" } else { ["debug", "info", "info", "warn"][dice.roll(4) as usize] };
        let latency = if last && *slow { 1_000 + dice.roll(500) } else { dice.roll(1_000) };
        let t = n as u64 * ms;
        let ts = format!("2026-11-20T{:02}:{:02}:{:02}.{:03}Z", t / 3_600_000 % 24, t / 60_000 % 60, t / 1_000 % 60, t % 1_000);
        // Another tenant may use the same number.
        let (tenant, id) = (*request % TENANTS, *request / 2);
        lines.push(format!(
            "{{\"ts\":\"{ts}\",\"level\":\"{level}\",\"tenant\":\"t{tenant}\",\"request_id\":\"r{id}\",\"latency_ms\":{latency},\"n\":{n},\"tokens\":{}}}\n",
            dice.roll(100)
        ));
        *left -= 1;
        if last {
            open.remove(at);
        }
    }
    lines
}

fn parsed<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<Value> {
    lines.into_iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

type Request = (String, String);

fn request(record: &Value) -> Request {
    (record["tenant"].as_str().expect("text").into(), record["request_id"].as_str().unwrap_or("none").into())
}

fn matches(record: &Value) -> bool {
    record["level"] == "error" || record["latency_ms"].as_u64().is_some_and(|ms| ms >= 1_000)
}

/// Numbers of the lines of requests that are to be kept as a whole.
fn wanted(input: &[Value]) -> BTreeSet<u64> {
    let hot: BTreeSet<Request> = input.iter().filter(|r| matches(r)).map(request).collect();
    assert!(hot.len() > 5, "{} requests with a match", hot.len());
    input.iter().filter(|r| hot.contains(&request(r))).map(|r| r["n"].as_u64().expect("a number")).collect()
}

/// By tenant and level, what records stand for.
fn sums(records: &[Value]) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for record in records.iter().filter(|r| r["weir.summary"] != "seen") {
        let text = |name: &str| record[name].as_str().unwrap_or("none").to_string();
        *sums.entry((text("tenant"), text("level"))).or_default() += record["sample_rate"].as_u64().unwrap_or(1);
    }
    sums
}

fn pipeline(tail: &str) -> String {
    PIPELINE.replace("TAIL", tail)
}

const TAIL: &str =
    "  - tail: { key: [trace_id, request_id], keep: 'level == \"error\" || latency_ms >= 1000', decision_wait: WAIT, rest: REST }";

fn tail(wait: &str, rest: &str) -> String {
    TAIL.replace("WAIT", wait).replace("REST", rest)
}

const PIPELINE: &str = r#"
lanes: 2
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 10ms } } }
tenancy: { from: [tenant] }
steps:
  - meter: { name: tokens, quantity: tokens, unit: Tokens }
TAIL
hub: { journal: { sync_interval: 5ms } }
sinks:
  files: { archive: { path: "{tenant}.log", commit: { interval: 20ms } } }
  store: { lake: { seal: { age: 200ms } } }
rates: rates.yaml
admin: { listen: "127.0.0.1:0" }
"#;

/// Everything that was decided is right: requests whole, sums exact, the bill that of all lines, the law holds.
#[track_caller]
fn check(place: &Place, input: &[String], rest: &str) {
    let stored_lines = archive_lines(&place.data(), "files");
    assert_same_lines("the lake against the archive", &place.search(""), &stored_lines);
    let (stored, input) = (parsed(stored_lines.iter().map(Vec::as_slice)), parsed(input.iter().map(|l| l.as_bytes())));
    let numbers: Vec<u64> = stored.iter().filter_map(|r| r["n"].as_u64()).collect();
    let kept: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(numbers.len(), kept.len(), "a line is stored twice");
    let wanted = wanted(&input);
    let missing: Vec<&u64> = wanted.difference(&kept).collect();
    assert!(missing.is_empty(), "{} lines of requests with a match are missing, as {:?}", missing.len(), &missing[..missing.len().min(5)]);
    let others: BTreeSet<u64> = kept.difference(&wanted).copied().collect();
    let ledger = place.recount();
    assert_eq!((ledger.difference("files"), ledger.difference("store"), ledger.residual()), (0, 0, 0));
    assert_eq!(ledger.received(), input.len() as u64);
    assert_eq!(ledger.received() + ledger.created(), ledger.kept() + ledger.dropped().get("sampled").copied().unwrap_or(0));
    if rest == "none" {
        assert_eq!(others.len(), 0, "lines of other requests are kept: {others:?}");
        assert_eq!(sums(&stored), sums(&input), "weights of kept records and summaries");
    } else {
        let of = |r: &Value| others.contains(&r["n"].as_u64().expect("a number"));
        let half: BTreeSet<Request> = input.iter().filter(|r| of(r)).map(request).collect();
        let split = input.iter().filter(|r| half.contains(&request(r)) && !of(r)).count();
        assert!(!half.is_empty() && split == 0, "{split} lines of requests that were chosen are missing");
        let seen: u64 = stored.iter().filter(|r| r["weir.summary"] == "seen").map(|r| r["seen"].as_u64().expect("a count")).sum();
        assert_eq!(seen, input.len() as u64, "what the sampler saw");
        let (sum, want) = (sums(&stored).values().sum::<u64>(), input.len() as u64);
        assert!(sum.abs_diff(want) * 4 < want, "weights are {sum}, records were {want}");
    }
    let tokens: u64 = input.iter().map(|r| r["tokens"].as_u64().expect("a number")).sum();
    let report = place.ask(&["cost", "report"]);
    let billed: u64 = report["usage"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|u| u["quantity"].as_str().expect("text").parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(billed, tokens, "the bill is that of all lines");
}

#[test]
fn once_keeps_requests_whole_over_files_and_twice_the_same_bytes() {
    for rest in ["none", "0.2"] {
        let input = input(31, 20_000, 20_000, 7);
        let place = Place::new();
        place.pipeline(&pipeline(&tail("30s", rest)));
        // Lines of one request lie in all files.
        for n in 0..3 {
            place.write(&format!("in/{n}.log"), input.iter().skip(n).step_by(3).cloned().collect::<String>());
        }
        let run = |aside: &str| -> BTreeMap<_, _> {
            place.once();
            check(&place, &input, rest);
            let kept = place.path(aside);
            std::fs::rename(place.data(), &kept).expect("renamed");
            let of = |store: &str| {
                let folder = kept.join(store);
                files_below(&folder)
                    .into_iter()
                    .map(|name| (name.clone(), std::fs::read(folder.join(name)).expect("readable")))
                    .collect::<Vec<_>>()
            };
            ["archive", "lake"].into_iter().flat_map(of).collect()
        };
        let trees = [run("first"), run("second")];
        let differ: Vec<_> = trees[0].iter().filter(|(name, bytes)| trees[1].get(*name) != Some(bytes)).map(|f| f.0).collect();
        assert!(trees[0].len() == trees[1].len() && differ.is_empty(), "{rest}: {differ:?}");
    }
}

#[test]
fn a_second_run_adds_nothing_and_a_run_without_the_step_has_the_same_bill() {
    let (with, without) = (Place::new(), Place::new());
    let input = input(32, 6_000, 6_000, 7);
    with.pipeline(&pipeline(&tail("30s", "none")));
    without.pipeline(&pipeline(""));
    for place in [&with, &without] {
        place.write("in/a.log", input.concat());
        place.once();
        place.once();
    }
    check(&with, &input, "none");
    let examples = with.run(&["ledger", "examples", "--reason", "sampled", "--json"]).good().text();
    assert!(examples.contains("request_id"), "{examples}");
    let bill = |place: &Place| place.ask(&["cost", "report", "--by", "tenant,hour"]);
    assert_eq!(bill(&with), bill(&without));
}

/// Lets the program run, kills it while it works, again and again; then a last run decides what waits. No request takes as long
/// as the program takes to come back.
fn killed_again_and_again(seed: u64, rest: &str) {
    let place = Place::new();
    place.pipeline(&pipeline(&tail("15s", rest)));
    let input = input(seed, 6_000, 1_000, 7);
    let mut running = place.start();
    for (piece, lines) in input.chunks(1_000).enumerate() {
        for (n, lines) in lines.chunks(lines.len().div_ceil(3)).enumerate() {
            place.append(&format!("in/{n}.log"), lines.concat());
        }
        // Killed when some of it waits, or when some of what waits is decided: both are seen by the bytes in the journals.
        let sizes = |folder: &str| -> u64 {
            let folder = place.data().join("hub").join(folder);
            files_below(&folder).iter().map(|f| folder.join(f).metadata().map_or(0, |m| m.len())).sum()
        };
        let folder = if matches!(piece, 2 | 3 | 5) { "pipeline" } else { "pipeline.delay" };
        let before = sizes(folder);
        wait_until(folder, || sizes(folder) > before);
        running.signal(Signal::KILL);
        running.wait();
        running = place.start();
    }
    running.signal(Signal::KILL); // it may not have come to hear of others yet
    running.wait();
    assert!(place.ledger().received() > 0, "nothing was decided before the last run");
    place.once();
    check(&place, &input, rest);
}

#[test]
fn kill_9_at_any_moment_leaves_requests_whole_and_sums_exact() {
    std::thread::scope(|threads| {
        let runs = [(33, "none"), (34, "0.2")].map(|(seed, rest)| threads.spawn(move || killed_again_and_again(seed, rest)));
        for run in runs {
            if let Err(panic) = run.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn sigterm_does_not_wait_and_the_next_run_decides() {
    let place = Place::new();
    place.pipeline(&pipeline(&tail("1h", "none")));
    let input = input(35, 2_000, 2_000, 1);
    let (first, second) = input.split_at(1_000);
    place.write("in/a.log", first.concat());
    let running = place.start();
    let address = admin_address(&running);
    wait_until("a record waits", || metric(&http_get(&address, "/metrics").1, "weir_delay_oldest_waiting_milliseconds", "") > 0);
    wait_until("all of it is read", || {
        metric(&http_get(&address, "/metrics").1, "weir_read_bytes_total", "") == first.concat().len() as i64
    });
    assert!(metric(&http_get(&address, "/metrics").1, "weir_delay_bytes", "pipeline=\"pipeline\"") > 0);
    assert_eq!(http_get(&address, "/readyz").0, 200);
    let said = running.stop();
    assert!(!said.contains("decided before"), "{said}");
    assert_eq!(place.ledger().received(), 0, "nothing is decided yet");
    let listed = place.run(&["buffer", "ls"]).good().text();
    assert!(listed.contains("pipeline.delay"), "{listed}");
    place.run(&["buffer", "fsck"]).good();
    let cat = |args: &[&str]| lines(&place.run(&[&["buffer", "cat"], args].concat()).good().stdout).len();
    assert_eq!((cat(&[]), cat(&["--pipeline", "pipeline.delay"])), (0, 1_000), "what waits is shown to who asks for it");
    place.append("in/a.log", second.concat());
    place.once();
    check(&place, &input, "none");
}

#[test]
fn the_step_can_come_and_go_between_runs() {
    let place = Place::new();
    let sampled = "  - sample: { levels: { info: { first: 3, thereafter: 10, tick: 1s } } }\n";
    let input = input(36, 4_000, 4_000, 7);
    let with = pipeline(&(sampled.to_string() + &tail("1h", "none")));
    let without = pipeline(sampled);
    for (n, lines) in input.chunks(1_000).enumerate() {
        place.pipeline(if n % 2 == 0 { &without } else { &with });
        place.append("in/a.log", lines.concat());
        let mut running = place.start();
        let address = admin_address(&running);
        let size = lines.concat().len() as i64;
        wait_until("it is read", || metric(&http_get(&address, "/metrics").1, "weir_read_bytes_total", "") >= size);
        running.signal(if n == 1 { Signal::KILL } else { Signal::TERM });
        running.wait();
        assert_eq!(place.data().join("hub/pipeline.delay").exists(), n % 2 == 1, "run {n}");
    }
    place.pipeline(&without);
    place.once();
    assert!(!place.data().join("hub/pipeline.delay").exists(), "what is passed on is gone");
    let stored = parsed(archive_lines(&place.data(), "files").iter().map(Vec::as_slice));
    let input = parsed(input.iter().map(|l| l.as_bytes()));
    assert_eq!(sums(&stored), sums(&input), "what came before, behind and with the step");
    let numbers: BTreeSet<u64> = stored.iter().filter_map(|r| r["n"].as_u64()).collect();
    assert_eq!(numbers.len(), stored.iter().filter(|r| r["n"].is_u64()).count(), "a line is stored twice");
    let ledger = place.recount();
    assert_eq!((ledger.received(), ledger.residual(), ledger.difference("files")), (4_000, 0, 0));
}

#[test]
fn a_full_delay_line_decides_early_and_says_so() {
    let place = Place::new();
    let small = tail("1h", "none").replace("rest: none", "rest: none, bytes_max: 64MiB");
    place.pipeline(&pipeline(&small));
    // 100 MB of one long record each, all of requests without a match.
    let pad = "x".repeat(50_000);
    let line = |n: usize| format!("{{\"level\":\"info\",\"tenant\":\"a\",\"request_id\":\"r{n}\",\"n\":{n},\"pad\":\"{pad}\"}}\n");
    for file in 0..4 {
        place.write(&format!("in/{file}.log"), (file * 500..file * 500 + 500).map(line).collect::<String>());
    }
    let mut running = place.start();
    let address = admin_address(&running);
    wait_until("all of it is read", || {
        assert!(running.is_running(), "{}", running.stderr());
        metric(&http_get(&address, "/metrics").1, "weir_read_bytes_total", "") > 100_000_000
    });
    let page = http_get(&address, "/metrics").1;
    assert!(metric(&page, "weir_delay_early_frames_total", "") > 0, "{page}");
    assert!(metric(&page, "weir_delay_bytes", "") <= 64 << 20, "{page}");
    assert!(metric(&page, "weir_dropped_total", "policy=\"steps[1].tail\"") > 0, "{page}");
    let said = running.stop();
    assert!(said.contains("decided before `decision_wait`"), "{said}");
    place.once();
    let ledger = place.recount();
    assert_eq!((ledger.received(), ledger.dropped()["sampled"], ledger.residual()), (2_000, 2_000, 0));
}

#[test]
fn damage_in_the_delay_line_costs_its_frame_and_is_told() {
    let place = Place::new();
    place.pipeline(&pipeline(&tail("1h", "none")));
    let input = input(37, 3_000, 3_000, 1);
    for (n, lines) in input.chunks(1_000).enumerate() {
        place.append("in/a.log", lines.concat());
        let mut running = place.start();
        let address = admin_address(&running);
        wait_until("it is read", || {
            assert!(running.is_running(), "run {n}: {}", running.stderr());
            metric(&http_get(&address, "/metrics").1, "weir_read_bytes_total", "") >= lines.concat().len() as i64
        });
        running.stop();
    }
    let folder = place.data().join("hub/pipeline.delay");
    let (path, mut bytes, at) = files_below(&folder)
        .into_iter()
        .filter(|name| name.extension().is_some_and(|e| e == "seg"))
        .find_map(|name| {
            let bytes = std::fs::read(folder.join(&name)).expect("readable");
            let at = bytes.windows(10).position(|w| w == b"\"n\":1500,\"")?;
            Some((folder.join(name), bytes, at))
        })
        .expect("line 1500 waits");
    bytes[at + 5] = b'9';
    std::fs::write(&path, bytes).expect("written");
    place.run(&["buffer", "fsck"]).exits(1);
    place.once();
    for _ in 0..2 {
        let ledger = place.recount();
        assert_eq!((ledger.received(), ledger.residual()), (3_000, 0), "{}", ledger.0);
        assert_eq!((ledger.difference("files"), ledger.difference("store")), (0, 0), "{}", ledger.0);
        assert!(ledger.0["sinks"]["files"]["rejected"].to_string().contains("damaged"), "{}", ledger.0);
    }
}
