//! How fast patterns are found, in MB of lines per second on one core.
//!
//! `cargo bench -p parse --bench patterns`. Each row: the pattern walked, and by the `regex` crate's captures as it would be used
//! without the walker; then fifty patterns that share one stream. Everything is made up here; nothing is read.

use parse::pattern::{Found, Pattern, Sieve, Sifted, States};
use std::hint::black_box;
use std::time::Instant;

const PASSES: usize = 200;

const NGINX: &str = r#"^(?<remote>[^ ]*) (?<host>[^ ]*) (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^\"]*?)(?: +\S*)?)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^\"]*)" "(?<agent>[^\"]*)")"#;
const APACHE2: &str = r#"^(?<host>[^ ]*) [^ ]* (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^ ]*) +\S*)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^\"]*)" "(?<agent>.*)")?$"#;
const SYSLOG: &str = r"/^\<(?<pri>[0-9]+)\>(?<time>[^ ]* {1,2}[^ ]* [^ ]*) (?<host>[^ ]*) (?<ident>[a-zA-Z0-9_\/\.\-]*)(?:\[(?<pid>[0-9]+)\])?(?:[^\:]*\:)? *(?<message>.*)$/";
const RABBITMQ: &str = r"(?<date>[^ ]+)\s(?<time>[^ ]+)\s\[(?<log_level>[^ \]]*)\]\s(?<PID>[^ ]*)\s(?<msg>((([a-zA-Z]*\s+)+[^ ]*)+)+)";
const UUID: &str = r"(?<uuid>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-5][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12})";

fn access_line(n: usize) -> String {
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36";
    format!(
        "203.0.113.{} - user{n} [10/Oct/2024:13:55:{:02} +0000] \"GET /api/v1/items/{n}?page={} HTTP/1.1\" 200 {} \"https://example.test/start\" \"{agent}\"",
        n % 250,
        n % 60,
        n % 9,
        n * 37
    )
}

fn syslog_line(n: usize) -> String {
    format!("<34>Oct 11 22:14:{:02} machine{} su[{n}]: pam failure number {n} for lonvick on /dev/pts/8", n % 60, n % 100)
}

fn main() {
    let access: Vec<String> = (0..1000).map(access_line).collect();
    let syslog: Vec<String> = (0..1000).map(syslog_line).collect();
    let rabbit: Vec<String> =
        (0..1000).map(|n| format!("2024-01-02 03:04:05.678 [info] <0.{n}.0> Server startup complete number {n}")).collect();
    let failing: Vec<String> = (0..1000).map(|n| access_line(n).replace("\" 200", "' 200")).collect();
    let bare: Vec<String> = (0..1000).map(|n| format!("{{\"n\":{n},\"text\":\"a line of quite another kind, of some length\"}}")).collect();
    println!("{:<34} {:>10} {:>10}", "MB/s", "walked", "linear");
    row("nginx", NGINX, &access);
    row("nginx, cut in the middle", NGINX, &failing);
    row("nginx, JSON lines", NGINX, &bare);
    row("apache2", APACHE2, &access);
    row("syslog-rfc3164", SYSLOG, &syslog);
    row("rabbitmq", RABBITMQ, &rabbit);
    row("uuid, not there", UUID, &access);
    row("uuid, at the end", UUID, &access.iter().map(|line| format!("{line} 0b0a7f2e-5c1d-4e2f-8a3b-001122334455")).collect::<Vec<_>>());
    row("cont, with look-ahead", r"/^(?!\[\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2},\d{3}\]).*/", &syslog);
    let mixed: Vec<String> = (0..1000).map(|n| [access_line, syslog_line][n % 2](n)).collect();
    set(&mixed);
}

fn row(name: &str, pattern: &str, lines: &[String]) {
    let pattern = Pattern::new(pattern).expect("a good pattern");
    let mut slots = Vec::new();
    let walked = rate(lines, |line| pattern.find(line, &mut slots) == Found::Yes);
    let linear = match &pattern.report().translated {
        Some(text) => {
            let regex = regex::bytes::Regex::new(text).expect("a good translation");
            let mut places = regex.capture_locations();
            format!("{:.0}", rate(lines, |line| regex.captures_read(&mut places, line).is_some()))
        }
        None => "-".to_string(),
    };
    println!("{name:<34} {walked:>10.0} {linear:>10}");
}

/// A stream for which fifty patterns are tried in turn, the fitting ones last.
fn set(lines: &[String]) {
    let words = (0..48).map(|n| format!(r"^(?<time>[^ ]+) +component{n}: (?<level>\w+) (?<message>.*)$"));
    let patterns: Vec<Pattern> =
        words.chain([NGINX.to_string(), SYSLOG.to_string()]).map(|text| Pattern::new(&text).expect("a good pattern")).collect();
    let mut slots = Vec::new();
    let all = rate(lines, |line| patterns.iter().any(|pattern| pattern.find(line, &mut slots) == Found::Yes));
    let glanced =
        rate(lines, |line| patterns.iter().any(|pattern| pattern.may_match(line) && pattern.find(line, &mut slots) == Found::Yes));
    let sieve = Sieve::new(&patterns).expect("all have outlines");
    let mut states = States::default();
    let sifted = rate(lines, |line| match sieve.sift(line, &mut states) {
        Sifted::First(first) => patterns[first..].iter().any(|pattern| pattern.find(line, &mut slots) == Found::Yes),
        Sifted::None => false,
        Sifted::Unknown => patterns.iter().any(|pattern| pattern.may_match(line) && pattern.find(line, &mut slots) == Found::Yes),
    });
    println!("fifty patterns: {all:.0}; with may_match: {glanced:.0}; with a sieve: {sifted:.0}");
}

/// MB/s of the fastest pass over the lines: passes are short, so that one of them has the core to itself.
fn rate(lines: &[String], mut find: impl FnMut(&[u8]) -> bool) -> f64 {
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    let mut pass = || {
        let start = Instant::now();
        for line in lines {
            black_box(find(black_box(line.as_bytes())));
        }
        start.elapsed().as_secs_f64()
    };
    let best = (0..PASSES).map(|_| pass()).fold(f64::INFINITY, f64::min);
    bytes as f64 / best / 1e6
}
