//! Fair share: who sends little does not wait behind who sends much, whether a sink or a lane is the bottleneck; and what
//! a sink takes ahead of its turn is there once, whatever happens.
//!
//! Delays are told by the lines themselves: each says when it was written. Load comes at a pace, so these tests take seconds. A
//! machine that is busy with something else delays everybody: such a measurement is made again, [`TRIES`] times at most.

use crate::harness::{Place, Running, admin_address, http_get, metric, wait_until, weir};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TRIES: usize = 4;
const QUIET: usize = 100;
const TICK: Duration = Duration::from_millis(20);
/// Quiet lines in each tick: 1,000 a second.
const LINES: usize = 20;
const ALONE: Duration = Duration::from_secs(4);
const BESIDE: Duration = Duration::from_secs(8);

/// One line: who, which of his, and when it was written, in microseconds since `start`.
fn line(tenant: &str, n: usize, start: Instant) -> String {
    let sent = start.elapsed().as_micros();
    let padding = "some words that make the line as long as lines are, user@example.org among them, and a few words more";
    format!("{{\"tenant\":\"{tenant}\",\"level\":\"info\",\"n\":{n},\"sent\":{sent},\"msg\":\"{padding}\"}}\n")
}

/// The number behind `"key":` in a line.
fn number(line: &str, key: &str) -> u64 {
    let at = line.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {line}")) + key.len() + 3;
    line[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("digits")
}

/// Reads lines at a pace, and notes for each quiet one when it was sent and how long it took.
fn read(from: ChildStdout, bytes_per_second: u64, start: Instant, delays: &Mutex<Vec<(Duration, Duration)>>) {
    let mut from = BufReader::with_capacity(4096, from);
    let mut text = String::new();
    let mut newest: HashMap<String, u64> = HashMap::new();
    let mut due = Instant::now();
    loop {
        text.clear();
        if from.read_line(&mut text).expect("lines are text") == 0 {
            return;
        }
        let now = start.elapsed();
        if let Some(tenant) = text.strip_prefix("{\"tenant\":\"q").and_then(|rest| rest.split('"').next()) {
            let sent = Duration::from_micros(number(&text, "sent"));
            delays.lock().expect("nobody panics with it").push((sent, now.saturating_sub(sent)));
            let (n, last) = (number(&text, "n"), newest.get(tenant).copied());
            assert!(last.is_none_or(|last| last < n), "tenant q{tenant}: line {n} after {last:?}");
            newest.insert(tenant.to_string(), n);
        }
        // What was not taken while nothing came is not made up for.
        due = due.max(Instant::now() - TICK) + Duration::from_secs_f64(text.len() as f64 / bytes_per_second as f64);
        if due > Instant::now() + Duration::from_millis(1) {
            std::thread::sleep(due.saturating_duration_since(Instant::now())); // the sink's pace is the input of this test
        }
    }
}

fn p99(delays: &[(Duration, Duration)], sent: std::ops::Range<Duration>) -> Duration {
    let mut delays: Vec<Duration> = delays.iter().filter(|d| sent.contains(&d.0)).map(|d| d.1).collect();
    assert!(delays.len() > 1000, "{} lines came", delays.len());
    delays.sort();
    delays[delays.len() * 99 / 100]
}

/// Runs a pipeline that writes to standard output, of which so much a second is taken; quiet tenants write all the time, and
/// `noise` is made beside them after a while. Returns the 99th percentiles of the quiet ones' delays, without and with.
fn delays(steps: &str, bytes_per_second: u64, noise: impl Fn(&Place, Instant, &AtomicBool) + Sync) -> (Duration, Duration) {
    let place = Place::new();
    place.pipeline(&format!(
        "lanes: 2\nsources: {{ app: {{ file: {{ include: [\"$DIR/in/*.log\"], format: json }} }} }}\ntenancy: {{ from: [tenant] }}\n{steps}\
         hub: {{ journal: {{ bytes_max: 64MiB }} }}\nsinks: {{ out: {{ stdout: {{}} }} }}\n"
    ));
    let start = Instant::now();
    let mut files: Vec<File> = (0..QUIET)
        .map(|i| {
            let path = place.write(&format!("in/q{i}.log"), line(&format!("q{i}"), 0, start));
            File::options().append(true).open(path).expect("just written")
        })
        .collect();
    let mut command = weir();
    command.arg("run").arg(place.path("pipeline.yaml")).arg("--data").arg(place.data()).stdout(Stdio::piped());
    let mut running = Running::spawn(command);
    let stdout = running.child().stdout.take().expect("piped");
    let delays: Arc<Mutex<Vec<(Duration, Duration)>>> = Arc::default();
    let seen = Arc::clone(&delays);
    let reader = std::thread::spawn(move || read(stdout, bytes_per_second, start, &seen));
    wait_until("every quiet tenant's first line", || delays.lock().expect("nobody panics with it").len() >= QUIET);
    let (begin, over) = (start.elapsed(), AtomicBool::new(false));
    let mut ticks = 0;
    let mut quiet = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for i in 0..LINES {
                let n = ticks * LINES + i;
                files[n % QUIET].write_all(line(&format!("q{}", n % QUIET), 1 + n / QUIET, start).as_bytes()).expect("appended");
            }
            ticks += 1;
            std::thread::sleep(TICK); // the pace of the quiet ones
        }
    };
    quiet(ALONE);
    let turn = start.elapsed();
    std::thread::scope(|scope| {
        scope.spawn(|| noise(&place, start, &over));
        quiet(BESIDE);
        over.store(true, Ordering::Relaxed);
    });
    let end = start.elapsed();
    // The last ones are on their way; whatever is not there then is late.
    let since = Instant::now();
    let came = || delays.lock().expect("nobody panics with it").len() - QUIET;
    while came() < ticks * LINES && since.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(TICK); // between two looks
    }
    drop(running);
    reader.join().expect("no line is out of order");
    let delays = delays.lock().expect("nobody panics with it");
    let came = delays.len() - QUIET;
    assert!(came == ticks * LINES, "{came} of {} quiet lines came", ticks * LINES);
    (p99(&delays, begin..turn), p99(&delays, turn..end))
}

#[track_caller]
fn check(what: &str, measure: impl Fn() -> (Duration, Duration)) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let (alone, beside) = measure();
        seen.push(format!("{alone:.0?} alone, {beside:.0?} beside"));
        if beside <= alone * 2 {
            return;
        }
    }
    panic!("{what}: the 99th percentile of quiet tenants' delays is more than twice as long: {}", seen.join("; "));
}

/// Quiet tenants send a quarter of what the sink takes, each 1/400; the noisy one offers four times of all it takes, which is
/// more than a hundred times the share of one among a hundred, and soon more than the hub holds.
#[test]
fn behind_a_slow_sink_a_noisy_tenant_delays_the_others_to_twice_at_most() {
    const SINK: u64 = 1_000_000;
    let noise = |place: &Place, start: Instant, over: &AtomicBool| {
        let path = place.write("in/noisy.log", "");
        let mut file = File::options().append(true).open(path).expect("just written");
        let mut n = 0;
        while !over.load(Ordering::Relaxed) {
            let mut text = String::new();
            while (text.len() as u64) < 4 * SINK / 50 {
                n += 1;
                text.push_str(&line("noisy", n, start));
            }
            file.write_all(text.as_bytes()).expect("appended");
            std::thread::sleep(TICK); // the pace of the noisy one
        }
    };
    check("a sink is the bottleneck", || delays("", SINK, noise));
}

/// The noisy tenant has more to be read than lanes get done, in each of them.
#[test]
fn in_a_busy_lane_a_noisy_tenant_delays_the_others_to_twice_at_most() {
    let noise = |place: &Place, start: Instant, over: &AtomicBool| {
        let block: String = (0..20_000).map(|n| line("noisy", n, start)).collect();
        // Four files at a time, each of them longer than what is read before news are asked for.
        for i in 0.. {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let path = place.write(&format!("making/{i}.log"), &block);
            std::fs::rename(path, place.path(&format!("in/noisy{i}.log"))).expect("renamed");
            std::thread::sleep(TICK); // the pace of the noisy one
        }
    };
    let steps = "steps:\n  - redact: { detect: [email], fields: [msg] }\n  - drop: { when: 'tenant == \"noisy\"' }\n";
    check("lanes are the bottleneck", || delays(steps, 100_000_000, noise));
}

/// A lake is slower than lanes: while one tenant's backlog is sealed, quiet tenants' lines go ahead of it.
#[test]
fn what_a_lagging_lake_took_ahead_of_its_turn_is_there_once_after_kill_9() {
    let place = Place::new();
    place.pipeline(
        "lanes: 2\nsources: { app: { file: { include: [\"$DIR/in/*.log\"], format: json, scan: 100ms } } }\ntenancy: { from: [tenant] }\n\
         hub: { journal: { bytes_max: 256MiB } }\n\
         sinks: { store: { lake: { text: [msg], index: [n, sent], seal: { bytes: 256KiB, age: 100ms } } } }\n\
         admin: { listen: \"127.0.0.1:0\" }\n",
    );
    let start = Instant::now();
    let mut written: BTreeMap<String, usize> = BTreeMap::new();
    let mut write = |tenant: &str, lines: usize| {
        let before = *written.get(tenant).unwrap_or(&0);
        let text: String = (before..before + lines).map(|n| line(tenant, n, start)).collect();
        place.append(&format!("in/{tenant}.log"), text);
        written.insert(tenant.to_string(), before + lines);
    };
    (0..9).for_each(|i| write(&format!("q{i}"), 1));
    let mut running = place.start();
    place.wait_received(&mut running, 9);
    let address = admin_address(&running);
    write("noisy", 100_000);
    let express = || metric(&http_get(&address, "/metrics").1, "weir_sink_express_bytes_total", "sink=\"store\"");
    // Enough went ahead that some of it was sealed and some was not.
    wait_until("quiet lines go ahead", || {
        (0..9).for_each(|i| write(&format!("q{i}"), 20));
        express() > 200_000
    });
    running.child().kill().expect("it runs");
    running.wait();
    let crashed = place.recount();
    assert_eq!((crashed.residual(), crashed.difference("store")), (0, 0), "what went ahead counts as delivered: {}", crashed.0);
    assert!(crashed.sink("store", "buffered") > 0, "the lake did not lag: {}", crashed.0);
    place.once();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(ledger.difference("store"), 0);
    for (tenant, lines) in written {
        let mut found: Vec<u64> =
            place.search(&format!("tenant:{tenant}")).iter().map(|line| number(&String::from_utf8_lossy(line), "n")).collect();
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..lines as u64), "{tenant}: {} of {lines} lines, each once", found.len());
    }
}
