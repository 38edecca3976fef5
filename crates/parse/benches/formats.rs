//! Megabytes of lines per second and core, by format: fields found, record written, time read.
//!
//! `cargo bench -p parse --bench formats [FORMAT]`. Each format reads its lines again and again for about a second; the best
//! pass counts, short enough to have the core to itself. Lines of one second differ in their fraction or not at all; every
//! 100th one begins a new second.
//! Last, sets of parsers on lines of all of them, against the same lines whose parser is known.

use parse::definition::{Definition, Format, TimeRule};
use parse::fluent::{Sources, library};
use parse::parser::{Outcome, Parser, Scratch};
use parse::set::Set;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LINES: usize = 1000;
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_millis(100);
const ARRIVAL_NS: i64 = 1_718_452_800_000_000_000; // 2024-06-15T12:00:00Z

fn main() {
    let wanted: Option<String> = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    for (name, definition, line) in formats() {
        if wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str())) {
            measure(name, &definition, &lines(line));
        }
    }
    if wanted.is_none_or(|wanted| "set".contains(wanted.as_str())) {
        let formats = formats();
        let definitions: Vec<Definition> = formats.iter().map(|(_, definition, _)| definition.clone()).collect();
        let mixed: Vec<String> = (0..LINES).map(|n| (formats[n % formats.len()].2)(n, n / 100 % 60)).collect();
        measure_set("set", &definitions, &mixed);
        match stock() {
            Some((mut definitions, lines)) => {
                measure_set("as filed", &definitions, &lines);
                // Those that take nearly any line come last, where they hide no others.
                let last = ["neo4j", "mult_2", "logfmt", "universal"];
                definitions.sort_by_key(|definition| last.iter().position(|name| *name == definition.name));
                measure_set("stock set", &definitions, &lines);
                measure_set("varied", &definitions, &varied(&lines));
            }
            None => println!("stock set: skipped; WEIR_SHARED names the folder that holds data/fluent-bit"),
        }
    }
}

type Line = fn(usize, usize) -> String;

fn formats() -> Vec<(&'static str, Definition, Line)> {
    let columns = ["time", "level", "service", "code", "duration", "message"].map(String::from).to_vec();
    let iso = TimeRule { format: Some("%Y-%m-%dT%H:%M:%S.%L%z".to_string()), ..TimeRule::default() };
    let with_time = |name, format| Definition { time: iso.clone(), ..Definition::new(name, format) };
    let nginx = r#"^(?<remote>[^ ]*) (?<host>[^ ]*) (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^"]*?)(?: +\S*)?)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^"]*)" "(?<agent>[^"]*)")"#;
    let common = TimeRule { format: Some("%d/%b/%Y:%H:%M:%S %z".to_string()), ..TimeRule::default() };
    vec![
        ("json", Definition::new("json", Format::Json), json as Line),
        ("json with time", with_time("json", Format::Json), json),
        ("logfmt", with_time("logfmt", Format::Logfmt { bare_keys: true }), |n, s| {
            format!(
                "time=2024-06-15T11:00:{s:02}.{n:06}Z level=info service=api request=\"GET /v1/models/{n}\" duration=1.25 code=200 msg=\"request done\""
            )
        }),
        ("ltsv", with_time("ltsv", Format::Ltsv), |n, s| {
            format!(
                "time:2024-06-15T11:00:{s:02}.{n:06}Z\thost:192.0.2.10\treq:GET /v1/models/{n} HTTP/1.1\tstatus:200\tsize:5316\tua:Mozilla/5.0 (X11; Linux x86_64)"
            )
        }),
        ("csv", with_time("csv", Format::Csv { columns, delimiter: b',' }), |n, s| {
            format!("2024-06-15T11:00:{s:02}.{n:06}Z,info,api,200,1.25,\"request {n} done, after one try\"")
        }),
        ("syslog 5424", Definition::new("syslog", Format::Syslog), |n, s| {
            format!(
                "<165>1 2024-06-15T11:00:{s:02}.{n:06}Z mymachine.example.com evntslog 1234 ID47 [exampleSDID@32473 iut=\"3\" eventID=\"{n}\"] An application event log entry"
            )
        }),
        ("syslog 3164", Definition::new("syslog", Format::Syslog), |n, s| {
            format!("<34>Jun 15 11:00:{s:02} mymachine su[{n}]: pam failure for lonvick on /dev/pts/8, authentication failed")
        }),
        ("nginx", Definition::new("nginx", Format::Nginx), access),
        ("apache", Definition::new("apache", Format::Apache), access),
        ("nginx as regex", Definition { time: common, ..Definition::new("nginx", Format::Regex(nginx.to_string())) }, access),
        ("klog", Definition::new("klog", Format::Klog), |n, s| {
            format!("I0615 11:00:{s:02}.{n:06}    1234 kubelet.go:2345] \"SyncLoop UPDATE\" source=\"api\" pods=[\"default/web-{n}\"]")
        }),
        ("cri", Definition::new("cri", Format::Cri), |n, s| {
            format!("2024-06-15T11:00:{s:02}.{n:09}Z stdout F request {n} done, after one try and with a message of usual length")
        }),
        ("docker", Definition::new("docker", Format::Docker), |n, s| {
            format!("{{\"log\":\"request {n} done, after one try\\n\",\"stream\":\"stdout\",\"time\":\"2024-06-15T11:00:{s:02}.{n:09}Z\"}}")
        }),
    ]
}

fn json(n: usize, s: usize) -> String {
    format!(
        "{{\"level\":\"info\",\"time\":\"2024-06-15T11:00:{s:02}.{n:06}Z\",\"logger\":\"api\",\"msg\":\"request done\",\"path\":\"/v1/models/{n}\",\"code\":200}}"
    )
}

fn access(n: usize, s: usize) -> String {
    format!(
        "192.0.2.10 - alice [15/Jun/2024:11:00:{s:02} +0000] \"GET /v1/models/{n} HTTP/1.1\" 200 2326 \"http://example.test/start\" \"Mozilla/5.0 (X11; Linux x86_64)\""
    )
}

fn lines(line: Line) -> Vec<String> {
    (0..LINES).map(|n| line(n, n / 100 % 60)).collect()
}

fn measure(name: &str, definition: &Definition, lines: &[String]) {
    let parser = Parser::new(definition).unwrap_or_else(|refusal| panic!("{refusal}"));
    let mut scratch = Scratch::default();
    let first = parser.parse(lines[0].as_bytes(), ARRIVAL_NS, &mut scratch, &mut Vec::new());
    assert!(matches!(first, Outcome::Parsed { .. }), "{name}: {first:?}");
    let seconds = best(|out| {
        for line in lines {
            black_box(parser.parse(line.as_bytes(), ARRIVAL_NS, &mut scratch, out));
        }
    });
    report(name, lines, seconds);
}

/// All of Fluent Bit's parsers, and a line for each.
fn stock() -> Option<(Vec<Definition>, Vec<String>)> {
    let folder = PathBuf::from(std::env::var_os("WEIR_SHARED")?).join("data/fluent-bit");
    let sources = Sources { load: &|_, _| Err("nothing is included".to_string()), env: &|_| None };
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join("stock")).ok()?.map(|file| Some(file.ok()?.path())).collect::<Option<_>>()?;
    files.sort();
    let libraries = files.iter().map(|path| library("a.conf", &fs::read_to_string(path).unwrap_or_default(), &sources));
    let parsers = libraries.flat_map(|library| library.parsers).map(|(definition, _)| definition);
    let definitions = parsers.collect();
    let vectors = fs::read_to_string(folder.join("parser_vectors.jsonl")).ok()?;
    let vectors: Vec<serde_json::Value> = vectors.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let lines = vectors.iter().filter_map(|v| v["line"].as_str());
    Some((definitions, lines.map(String::from).collect()))
}

/// Each line twenty times, with other digits each time.
fn varied(lines: &[String]) -> Vec<String> {
    let other = |(i, c): (usize, char), n: usize| match c.to_digit(10) {
        Some(digit) => char::from(b'0' + ((digit as usize + n * (i + 3)) % 10) as u8),
        None => c,
    };
    (0..20).flat_map(|n| lines.iter().map(move |line| line.chars().enumerate().map(|c| other(c, n)).collect())).collect()
}

/// A set on lines of all its parsers, and the same lines each given to the parser that the set chose.
fn measure_set(name: &str, definitions: &[Definition], lines: &[String]) {
    let set = Set::new(definitions).unwrap_or_else(|refusals| panic!("{refusals:?}"));
    let mut scratch = Scratch::default();
    let choose = |line: &String| set.parse(line.as_bytes(), ARRIVAL_NS, &mut Scratch::default(), &mut Vec::new()).parser;
    let chosen: Vec<usize> = lines.iter().map(|line| choose(line).unwrap_or_else(|| panic!("no parser reads {line}"))).collect();
    let together = best(|out| {
        for line in lines {
            black_box(set.parse(line.as_bytes(), ARRIVAL_NS, &mut scratch, out));
        }
    });
    let alone = best(|out| {
        for (line, n) in lines.iter().zip(&chosen) {
            black_box(set.parsers()[*n].parse(line.as_bytes(), ARRIVAL_NS, &mut scratch, out));
        }
    });
    report(name, lines, together);
    report(&format!("{name}, known"), lines, alone);
    println!("{name} of {} parsers: {:.2} times the cost of those that match", definitions.len(), together / alone);
}

/// Seconds of the fastest pass in all rounds.
fn best(mut pass: impl FnMut(&mut Vec<u8>)) -> f64 {
    let (mut out, mut best) = (Vec::new(), f64::INFINITY);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        while begin.elapsed() < ROUND {
            out.clear();
            let since = Instant::now();
            pass(&mut out);
            best = best.min(since.elapsed().as_secs_f64());
        }
    }
    best
}

fn report(name: &str, lines: &[String], seconds: f64) {
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    let (rate, each) = (bytes as f64 / seconds / 1e6, seconds * 1e9 / lines.len() as f64);
    println!("{name:<18} {rate:>6.0} MB/s  {each:>5.0} ns/line  {:>4} bytes/line", bytes / lines.len());
}
