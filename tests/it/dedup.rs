//! Mirrored copies: 12.7 % of requests are sent twice, and every effect is counted once, also after `kill -9` in between.
//!
//! In: two logs, that of the service and that of its shadow, whose lines are the same requests a moment later under another
//! host. Out: what was stored, billed and dropped. Which copy was first is not promised where two logs are read at once.

use crate::harness::{Ledger, PATIENCE, Place, Running};
use crate::input::{Dice, Usage, assert_same_usage, usage, usage_of_report};
use crate::stores::archive_lines;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::time::Instant;

const PIPELINE: &str = r#"
sources: { in: { file: { include: ["$DIR/in/*.log"], scan: 10ms } } }
tenancy: { from: [tenant] }
lanes: 2
steps:
  - dedup: { key: [request_id], window: 10m, content: [tokens_in, tokens_cached, tokens_out] }
  - meter: { name: tokens_in, quantity: tokens_in, unit: Tokens, by: [service, model] }
  - meter: { name: tokens_cached, quantity: tokens_cached, unit: Tokens, by: [service, model], part_of: tokens_in }
  - meter: { name: tokens_out, quantity: tokens_out, unit: Tokens, by: [service, model] }
hub: { journal: { sync_interval: 5ms } }
sinks:
  files: { archive: { path: "{tenant}/lines.log", commit: { interval: 5ms } } }
  store: { lake: { seal: { bytes: 64KiB, age: 100ms }, index_bytes_min: 4KiB } }
rates: rates.yaml
"#;
const REQUESTS: usize = 4_000;

/// The service's lines and the shadow's: about 12.7 % of them, each for a request of the service.
fn input() -> (Vec<String>, Vec<String>) {
    let mut dice = Dice(0x127);
    let (mut own, mut shadow) = (Vec::new(), Vec::new());
    for n in 0..REQUESTS {
        let (second, tokens) = (n / 20, dice.roll(4_000));
        let line = |host: &str, later: usize| {
            format!(
                "{{\"ts\":\"2026-11-23T03:{:02}:{:02}.{later:03}Z\",\"level\":\"info\",\"tenant\":\"t{}\",\"service\":\"pay\",\"model\":\"orca-8b-it\",\"request_id\":\"req-{n}\",\"method\":\"POST\",\"path\":\"/v1/pay\",\"host\":\"{host}\",\"tokens_in\":{tokens},\"tokens_cached\":0,\"tokens_out\":{},\"msg\":\"request completed\"}}\n",
                second / 60,
                second % 60,
                n % 5,
                tokens / 7
            )
        };
        own.push(line("pay", 0));
        if dice.roll(1_000) < 127 {
            shadow.push(line("pay-shadow", 7));
        }
    }
    (own, shadow)
}

fn requests<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let id = |line: &[u8]| serde_json::from_slice::<Value>(line).expect("JSON")["request_id"].as_str().expect("an id").to_string();
    lines.into_iter().map(id).collect()
}

/// Every request is stored and billed once; the copies are dropped as duplicates.
#[track_caller]
fn assert_once(place: &Place) {
    let (own, shadow) = input();
    let ledger = place.ledger();
    ledger.assert_settled();
    assert_eq!(ledger.received(), (own.len() + shadow.len()) as u64);
    assert_eq!(ledger.kept(), own.len() as u64);
    assert_eq!(ledger.dropped().into_iter().collect::<Vec<_>>(), [("duplicate".to_string(), shadow.len() as u64)]);
    let stored = archive_lines(&place.data(), "files");
    let ids = requests(stored.iter().map(Vec::as_slice));
    assert_eq!(ids.len(), own.len());
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), own.len(), "no request is stored twice");
    let want: Usage = usage(own.iter().map(|line| line.as_bytes()));
    assert_same_usage(&usage_of_report(&place.ask(&["cost", "report"])), &want);
}

#[test]
fn mirrored_copies_are_counted_once() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let (own, shadow) = input();
    assert!((100..155).contains(&(shadow.len() * 1_000 / own.len())), "about 12.7 %: {}", shadow.len());
    place.write("in/a.log", own.concat());
    place.write("in/b.log", shadow.concat());
    place.once();
    assert_once(&place);
    let text = place.run(&["ledger"]).good().text();
    assert!(text.contains("duplicate"), "{text}");
    place.once();
    assert_once(&place);
}

#[test]
fn mirrored_copies_are_counted_once_although_it_is_killed_in_between() {
    let place = Place::new();
    place.pipeline(PIPELINE);
    let (own, shadow) = input();
    let parts = 4;
    for part in 0..parts {
        let cut = |lines: &[String], n: usize| n * lines.len() / parts;
        // The shadow's log runs ahead in one run and behind in the next.
        let (a, b) = (&own[cut(&own, part)..cut(&own, part + 1)], &shadow[cut(&shadow, part)..cut(&shadow, part + 1)]);
        place.append("in/b.log", if part % 2 == 0 { "".into() } else { b.concat() });
        let mut running = place.start();
        let before = if part == 0 { 0 } else { 1 };
        place.wait_received(&mut running, before);
        // Killed while it works on these: some of it is decided and not durable.
        place.append("in/a.log", a.concat());
        place.append("in/b.log", if part % 2 == 0 { b.concat() } else { "".into() });
        if part % 2 == 1 {
            place.wait_received(&mut running, ((cut(&own, part) + cut(&shadow, part)) as u64) + 1);
        }
        running.child().kill().expect("it runs");
        running.wait();
    }
    place.once();
    assert_once(&place);
}

/// Lines of about 150 bytes with the request ids `from..to`.
fn write_requests(place: &Place, name: &str, ids: std::ops::Range<u64>) {
    let file = std::fs::File::create(place.path(name)).expect("file made");
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    for id in ids {
        let (minute, second) = (id / 60_000 % 60, id / 1_000 % 60);
        let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        writeln!(
            out,
            "{{\"ts\":\"2026-11-23T03:{minute:02}:{second:02}.{:03}Z\",\"level\":\"info\",\"tenant\":\"t{}\",\"request_id\":\"{mixed:016x}\",\"msg\":\"request completed\",\"status\":200,\"path\":\"/v1/chat\"}}",
            id % 1_000,
            id % 7
        )
        .expect("written");
    }
    out.flush().expect("written");
}

/// Waits as long as something goes on; returns records received and kept.
fn wait_for(place: &Place, running: &mut Running, received: u64) -> (u64, u64) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let done = place.run(&["ledger", "--json"]);
        if done.code == Some(0) {
            let ledger = Ledger::of(&done.json());
            if ledger.received() >= received {
                return (ledger.received(), ledger.kept());
            }
            if ledger.received() > last {
                (last, since) = (ledger.received(), Instant::now());
            }
        }
        assert!(running.is_running(), "{}", running.stderr());
        assert!(since.elapsed() < PATIENCE, "nothing goes on at {last} of {received}: {}", running.stderr());
    }
}

fn cpu_seconds(running: &Running) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid())).expect("it runs");
    let ticks = stat.rsplit(')').next().expect("a name").split_whitespace().skip(11).take(2);
    ticks.map(|n| n.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// Bytes of the files in a folder whose names end so.
fn bytes_of(folder: &std::path::Path, ending: &str) -> u64 {
    let files = std::fs::read_dir(folder).expect("a folder").flatten().filter(|f| f.file_name().to_string_lossy().ends_with(ending));
    files.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
}

/// Keys by the hundred thousand (`SLOW=1`: ten million, and what they cost): copies are found after `kill -9`, the key made first is
/// forgotten first, and neither memory nor disk grows with what was forgotten.
#[test]
fn a_large_table_survives_kill_9_and_takes_no_more_than_it_may() {
    let slow = std::env::var("SLOW").is_ok_and(|slow| slow == "1");
    let keys: u64 = if slow { 10_000_000 } else { 300_000 };
    let keys_max = keys + keys / 8; // parts of a hash are a little uneven
    let place = Place::new();
    place.pipeline(&format!(
        r#"
sources: {{ in: {{ file: {{ include: ["$DIR/in/*.log"], scan: 10ms }} }} }}
tenancy: {{ from: [tenant] }}
memory: 2GiB
steps:
  - dedup: {{ key: [request_id], window: 30d, keys_max: {keys_max} }}
sinks: {{ nothing: {{ blackhole: {{}} }} }}
"#
    ));
    std::fs::create_dir(place.path("in")).expect("folder made");
    let hub = place.data().join("hub/pipeline");
    let report = |what: &str, running: &Running, since: Instant| {
        if slow {
            let peak = running.peak_bytes() >> 20;
            println!(
                "{what}: {:.1} s, {:.1} s of CPU, peak {peak} MiB, state {} MiB",
                since.elapsed().as_secs_f64(),
                cpu_seconds(running),
                bytes_of(&hub, ".state") >> 20
            );
            println!("  {}", std::fs::read_to_string(format!("/proc/{}/io", running.pid())).expect("it runs").replace('\n', " "));
        }
        assert!(running.peak_bytes() <= (200 << 20) + keys_max * 60, "{what}: {} bytes resident", running.peak_bytes());
        let disk = bytes_of(&hub, ".state");
        assert!(disk <= keys_max * 128 + (32 << 20), "{what}: {disk} bytes of state");
    };
    let start = Instant::now();
    let mut running = place.start();
    write_requests(&place, "in/a.log", 0..keys);
    assert_eq!(wait_for(&place, &mut running, keys), (keys, keys));
    report("every key new", &running, start);
    running.child().kill().expect("it runs");
    running.wait();

    let start = Instant::now();
    let mut running = place.start();
    wait_for(&place, &mut running, keys);
    report("started again", &running, start);
    write_requests(&place, "in/b.log", 0..keys / 10);
    let (received, kept) = wait_for(&place, &mut running, keys + keys / 10);
    assert_eq!((received - keys, kept), (keys / 10, keys), "copies are found");
    let start = Instant::now();
    write_requests(&place, "in/c.log", keys..2 * keys);
    assert_eq!(wait_for(&place, &mut running, received + keys), (received + keys, 2 * keys));
    report("every key new, the oldest are forgotten", &running, start);
    running.child().kill().expect("it runs");
    running.wait();

    let start = Instant::now();
    let mut running = place.start();
    wait_for(&place, &mut running, received + keys);
    report("started again", &running, start);
    write_requests(&place, "in/d.log", 2 * keys - keys / 10..2 * keys);
    let received = received + keys + keys / 10;
    assert_eq!(wait_for(&place, &mut running, received), (received, 2 * keys), "copies are found");
    write_requests(&place, "in/e.log", 0..keys / 10);
    let (received, kept) = wait_for(&place, &mut running, received + keys / 10);
    assert_eq!(kept, 2 * keys + keys / 10, "the first are forgotten, of {received}");
    running.stop();
    place.ledger().assert_settled();
}

#[test]
fn examples_of_copies_and_conflicts_name_the_first_record() {
    for conflict in ["keep", "drop"] {
        let place = Place::new();
        place.pipeline(&format!(
            r#"
sources: {{ in: {{ file: {{ include: ["$DIR/in/*.log"] }} }} }}
tenancy: {{ from: [tenant] }}
steps: [{{ dedup: {{ key: [request_id], content: [n], conflict: {conflict} }} }}]
sinks: {{ files: {{ archive: {{ path: "{{tenant}}.log" }} }} }}
"#
        ));
        let line = |id: &str, n: u32| format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"t\",\"request_id\":\"{id}\",\"n\":{n}}}\n");
        let (a, b) = ([line("x", 1), line("y", 1)].concat(), [line("z", 1), line("y", 1), line("x", 2)].concat());
        place.write("in/a.log", &a);
        place.write("in/b.log", &b);
        place.once();
        let example = |reason: &str| place.ask(&["ledger", "examples", "--reason", reason]);
        let (copy, other) = (example("duplicate"), example("conflict"));
        assert_eq!(copy["position"], line("z", 1).len() + line("y", 1).len());
        assert_eq!(copy["first"]["position"], a.len(), "the end of the second line of the first file: {copy}");
        assert_eq!(other["position"], b.len());
        assert_eq!(other["first"]["position"], line("x", 1).len(), "{other}");
        assert!(copy["first"]["stream"] == other["first"]["stream"] && copy["first"]["stream"] != copy["stream"], "{copy} {other}");
        assert_eq!(other["is_kept"], conflict == "keep");
        let text = place.run(&["ledger", "examples"]).good().text();
        assert!(text.contains(&format!(" of {}@{} ", copy["first"]["stream"].as_str().expect("text"), a.len())), "{text}");
        assert_eq!(text.contains("conflict (kept) t"), conflict == "keep", "{text}");
    }
}
