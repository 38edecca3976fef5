//! Remote write: samples per second and core, in (unpacked body to lines) and out (lines to packed request).
//!
//! 50 requests of 2,000 samples, ten labels each, one sample a series, as a Prometheus of 100,000 series sends them. `cargo bench
//! -p telemetry --bench remote`. Seconds are those of this process on a core, so that others on the machine count less.

use telemetry::remote::{Options, State, Version, Writer, WriterOptions, read, unpack};

const REQUESTS: usize = 50;
const SERIES: usize = 2_000;
const ROUNDS: usize = 10;

fn line(request: usize, series: usize, round: usize) -> String {
    let n = request * SERIES + series;
    let (metric, code, ms) = (n % 40, 200 + n % 7, n % 1000);
    let value = (n * 31 + round * 7) as f64 / 8.0;
    format!(
        concat!(
            r#"{{"metric":"http_server_requests_{metric}_total","type":"unknown","labels":{{"cluster":"eu-west-1a","code":"{code}","container":"inference","#,
            r#""endpoint":"metrics","instance":"10.12.{a}.{b}:8080","job":"inference-gateway","method":"POST","namespace":"models-prod","#,
            r#""pod":"inference-gateway-7d9f8b6c5-{n:05}"}},"timestamp":"2026-11-28T00:00:{round:02}.{ms:03}Z","value":{value:?}}}"#
        ),
        metric = metric,
        code = code,
        a = n / 250 % 250,
        b = n % 250,
        n = n,
        round = round,
        ms = ms,
        value = value
    )
}

/// Seconds on a core so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says how long a thread ran");
    stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

fn main() {
    for version in [Version::V1, Version::V2] {
        let rounds: Vec<Vec<String>> =
            (0..ROUNDS).map(|round| (0..REQUESTS * SERIES).map(|n| line(n / SERIES, n % SERIES, round)).collect()).collect();
        let mut options = WriterOptions::new(version);
        options.dictionary_bytes_max = 256 << 20;
        let mut writer = Writer::new(options);
        let mut bodies = Vec::new();
        let (mut out_first, mut out_best, mut in_best) = (0.0, f64::MAX, f64::MAX);
        for (n, lines) in rounds.iter().enumerate() {
            let begun = cpu_seconds();
            let mut packed = Vec::new();
            for line in lines {
                writer.push(line.as_bytes()).expect("a sample");
                if writer.is_full() {
                    packed.push(writer.finish());
                }
            }
            let took = cpu_seconds() - begun;
            if n == 0 {
                out_first = took
            } else {
                out_best = out_best.min(took)
            }
            assert_eq!(packed.len(), REQUESTS);
            bodies.push(packed);
        }
        let unpacked: Vec<Vec<Vec<u8>>> =
            bodies.iter().map(|round| round.iter().map(|request| unpack(&request.body, 64 << 20).expect("packed")).collect()).collect();
        let mut state = State::new(256 << 20);
        let (options, mut out) = (Options::default(), Vec::new());
        let mut first = 0.0;
        for (n, round) in unpacked.iter().enumerate() {
            let begun = cpu_seconds();
            for body in round {
                out.clear();
                let received = read(version, body, &options, &mut state, &mut out).expect("a request");
                assert_eq!(received.samples, SERIES as u64);
            }
            let took = cpu_seconds() - begun;
            if n == 0 { first = took } else { in_best = in_best.min(took) }
        }
        let samples = (REQUESTS * SERIES) as f64;
        let bytes: usize = rounds[0].iter().map(|line| line.len() + 1).sum();
        println!(
            "{version:?} in: {:.2} M samples/s ({:.0} MB/s of lines), series unknown {:.2} M/s; out: {:.2} M samples/s, unknown {:.2} M/s",
            samples / in_best / 1e6,
            bytes as f64 / in_best / 1e6,
            samples / first / 1e6,
            samples / out_best / 1e6,
            samples / out_first / 1e6
        );
    }
}
