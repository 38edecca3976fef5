//! What reading a scrape costs: a body like node_exporter's with 1,000 series, of one target again and again.
//!
//!   cargo bench -p telemetry --bench exposition
//!
//! Cold: a target that was never scraped. Warm: all series are known, as at every scrape but the first. The records are written each
//! time. On one core; the figure is the best of several rounds, and beside it what that is in samples a second.

use flow::units::UnixNanos;
use std::fmt::Write;
use std::time::Instant;
use telemetry::exposition::{Format, Scraper, Target};

const SERIES: usize = 1_000;
const SCRAPES: usize = 200;
const ROUNDS: usize = 7;

/// Families of 1 to 40 series with help and type, values of all lengths; the same for the same `seed`.
fn body(format: Format, seed: u64) -> Vec<u8> {
    let mut out = String::new();
    let mut state = 88_172_645_463_325_252u64 ^ seed;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    const MODES: [&str; 8] = ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];
    let (mut series, mut family) = (0, 0);
    while series < SERIES {
        let kind = ["counter", "gauge", "gauge"][family % 3];
        let base = format!("node_subsystem{family}_something_seconds");
        let name = if kind == "counter" { format!("{base}_total") } else { base.clone() };
        let told = if format == Format::Text { &name } else { &base };
        writeln!(out, "# HELP {told} Seconds the CPUs spent in each mode, a help text of common length.").expect("memory");
        writeln!(out, "# TYPE {told} {kind}").expect("memory");
        for n in 0..[1, 1, 4, 1, 32, 8, 1, 2][family % 8] {
            match [1, 1, 4, 1, 32, 8, 1, 2][family % 8] {
                1 => write!(out, "{name} "),
                32 => write!(out, "{name}{{cpu=\"{}\",mode=\"{}\"}} ", n / 8, MODES[n % 8]),
                _ => write!(out, "{name}{{device=\"/dev/nvme0n1p{n}\",fstype=\"ext4\",mountpoint=\"/var/lib/volume{n}\"}} "),
            }
            .expect("memory");
            match random() % 4 {
                0 => writeln!(out, "{}", random() % 10),
                1 => writeln!(out, "{}", random() % 1_000_000),
                2 => writeln!(out, "{:.2}", (random() % 10_000_000) as f64 / 100.0),
                _ => writeln!(out, "{:e}", (random() % 1_000_000_000_000) as f64),
            }
            .expect("memory");
            series += 1;
        }
        family += 1;
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out.into_bytes()
}

fn target() -> Target {
    let labels = [("instance", "10.0.0.17:9100"), ("job", "node")];
    Target { labels: labels.map(|(name, value)| (name.into(), value.into())).to_vec(), ..Target::default() }
}

fn main() {
    for format in [Format::Text, Format::OpenMetrics] {
        let bodies: Vec<Vec<u8>> = (0..4).map(|seed| body(format, seed)).collect();
        let bytes = bodies[0].len();
        let mut out = Vec::with_capacity(bytes * 8);
        let mut best = [f64::MAX; 2];
        let mut samples = 0;
        for _ in 0..ROUNDS {
            let mut scraper = Scraper::new(target());
            for (n, best) in best.iter_mut().enumerate() {
                let scrapes = if n == 0 { 1 } else { SCRAPES };
                let started = Instant::now();
                for scrape in 0..scrapes {
                    out.clear();
                    let at = UnixNanos((1_800_000_000 + 15 * scrape as i64) * 1_000_000_000);
                    samples = scraper.scrape(format, &bodies[scrape % 4], at, &mut out).expect("a good body").samples;
                }
                *best = best.min(started.elapsed().as_secs_f64() / scrapes as f64);
            }
        }
        println!("{format:?}: body {bytes} bytes, {samples} samples, {} bytes of records", out.len());
        for (name, seconds) in [("cold", best[0]), ("warm", best[1])] {
            let megabytes = bytes as f64 / 1e6 / seconds;
            println!(
                "  {name}: {megabytes:.0} MB/s of body, {:.2} M samples/s, {:.0} us a scrape",
                samples as f64 / 1e6 / seconds,
                seconds * 1e6
            );
        }
    }
}
