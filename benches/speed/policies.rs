//! The row `policies`: what each policy adds to reading, parsing and archiving every line, with two lanes and 1,000 tenants.
//!
//! In: the workload of a crowd, in eight files. Out: a line for each policy. Each is run against the same pipeline without it,
//! which finds the same fields, in pairs one after the other, because machines are noisy; the figure is the median over the
//! pairs. CPU time is that of all threads of a process that goes on (`live`), from its start until every record is
//! delivered. Each run's ledger is asked: everything received, residual 0, and where the policy keeps all, all kept.

use super::live::{PATIENCE, Running};
use super::workload::{self, Crowd};
use anyhow::{Context, ensure};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub const ROW: &str = "policies";
const FILES: usize = 8;

/// A policy as a step, and what it may add to the CPU time at most, in percent.
struct Policy {
    name: &'static str,
    step: &'static str,
    keeps_all: bool,
    most: f64,
}

const PATTERNS: &str = r"['\bsecret-[0-9a-f]{16}\b', 'password=\S+', '\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b', '\b\d{3}-\d{2}-\d{4}\b', '(?i)api[_-]?key[=:]\s*[A-Za-z0-9]{16,}', '-----BEGIN [A-Z ]*PRIVATE KEY-----', '\bAKIA[0-9A-Z]{16}\b', '\bxox[abprs]-[0-9A-Za-z-]{10,}\b', '\+\d{2} ?\(?\d{3}\)?[ -]?\d{3}[ -]?\d{4}', 'mongodb(?:\+srv)?://[^:]+:[^@]+@']";

/// MB per CPU second that redaction takes at least where nothing matches.
const REDACT_MB_PER_SECOND: f64 = 300.0;

const POLICIES: [Policy; 23] = [
    all("counter, keeps all", "sample: { levels: { debug: P, info: P, warn: P }, other: all } with { first: 1000000000, tick: 1s }", 5.0),
    some(
        "counter, 100 then 1 in 100",
        "sample: { levels: { debug: P, info: P, warn: P }, other: all } with { first: 100, thereafter: 100, tick: 1s }",
    ),
    some(
        "counter, 2 then 1 in 100",
        "sample: { levels: { debug: P, info: P, warn: P }, other: all } with { first: 2, thereafter: 100, tick: 1s }",
    ),
    all(
        "exact keys by msg, tenant",
        "sample: { levels: { info: P }, other: all } with { first: 1000000000, tick: 1s, exact_keys: true, per_tenant: true, keys_max: 1000000 }",
        5.0,
    ),
    all(
        "exact keys by service, tenant",
        "sample: { levels: { info: P }, other: all } with { first: 1000000000, tick: 1s, by: [service], exact_keys: true, per_tenant: true, keys_max: 1000000 }",
        5.0,
    ),
    some(
        "the same, 1 then 1 in 100",
        "sample: { levels: { info: P }, other: all } with { first: 1, thereafter: 100, tick: 1s, by: [service], exact_keys: true, per_tenant: true, keys_max: 1000000 }",
    ),
    all(
        "throughput, keeps all",
        "sample: { levels: { debug: P, info: P }, other: all } with { throughput: 1000000000, by: [service] }",
        5.0,
    ),
    some("throughput, 2,000/s", "sample: { levels: { debug: P, info: P }, other: all } with { throughput: 2000, by: [service] }"),
    all("ema by service, status, 1", "sample: { levels: { debug: P, info: P }, other: all } with { ema: 1, by: [service, status] }", 5.0),
    some("ema by service, status, 10", "sample: { levels: { debug: P, info: P }, other: all } with { ema: 10, by: [service, status] }"),
    all("ratio 1 by request_id", "sample: { levels: { debug: P, info: P }, other: all } with { ratio: 1, key: request_id }", 5.0),
    some("ratio 0.1 by request_id", "sample: { levels: { debug: P, info: P }, other: all } with { ratio: 0.1, key: request_id }"),
    all("ratio 1 of whole records", "sample: { levels: { debug: P, info: P }, other: all } with { ratio: 1 }", 5.0),
    all("reservoir, keeps all", "sample: { levels: { debug: P, info: P }, other: all } with { reservoir: 4000000000, tick: 1s }", 5.0),
    some("reservoir of 1,000", "sample: { levels: { debug: P, info: P }, other: all } with { reservoir: 1000, tick: 1s }"),
    all("quota, 2 limits", "quota: { records_per_second: 1000000, bytes_per_day: 1TiB, by: tenant }", 3.0),
    all(
        "quota, 4 limits",
        "quota: { records_per_second: 1000000, bytes_per_second: 1GiB, records_per_day: 1000000000, bytes_per_day: 1TiB, by: tenant }",
        3.0,
    ),
    some("quota, 3 records/s", "quota: { records_per_second: 3, bytes_per_day: 1TiB, by: tenant }"),
    all("dedup by request_id", "dedup: { key: [request_id], window: 10m, keys_max: 1000000 }", 3.0),
    all("drop, nothing", "drop: { when: 'level == \"debug\" && service == \"nobody\"' }", 3.0),
    some("drop debug", "drop: { when: 'level == \"debug\"' }"),
    all("counter and quota", "TWO", 8.0),
    all("redact, 10 patterns", "REDACT", f64::INFINITY),
];

const fn all(name: &'static str, step: &'static str, most: f64) -> Policy {
    Policy { name, step, keeps_all: true, most }
}

const fn some(name: &'static str, step: &'static str) -> Policy {
    Policy { name, step, keeps_all: false, most: f64::INFINITY }
}

impl Policy {
    /// The lines of its steps.
    fn steps(&self) -> String {
        let step = match self.step.split_once(" with ") {
            Some((step, policy)) => step.replace('P', policy),
            None if self.step == "REDACT" => format!("redact: {{ patterns: {PATTERNS} }}"),
            None if self.step == "TWO" => {
                let steps = [&POLICIES[0], &POLICIES[15]].map(|policy| policy.steps());
                return steps.concat();
            }
            None => self.step.to_string(),
        };
        format!("  - {step}\n")
    }
}

/// Never true, and stops at the first part: what costs is that the fields are found.
const FIELDS: &str =
    "  - drop: { when: 'has(sample_rate) && has(sampler) && has(msg) && has(service) && has(status) && has(request_id)' }\n";

pub fn measure(dir: &Path, bytes: u64, runs: usize) -> anyhow::Result<()> {
    let dir = dir.join("policies");
    super::remove(&dir)?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let crowd = workload::write_crowd(&dir, bytes, FILES)?;
    println!("{:<30} {:>8} {:>8} {:>8} {:>7} {:>6}", ROW, "base ns", "adds ns", "adds %", "most", "kept %");
    let mut wrong = Vec::new();
    for policy in &POLICIES {
        match row(&dir, policy, &crowd, runs) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                println!("{:<30} WRONG", policy.name);
                wrong.push(format!("{}: {error:#}", policy.name));
            }
        }
    }
    super::remove(&dir)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n  "));
    Ok(())
}

fn row(dir: &Path, policy: &Policy, crowd: &Crowd, runs: usize) -> anyhow::Result<String> {
    let (mut base, mut added) = (Vec::new(), Vec::new());
    let mut kept = 0;
    for pair in 0..=runs {
        let mut cpu = [0.0; 2];
        for turn in 0..2 {
            let with = (turn + pair) % 2;
            let steps = if with == 1 { policy.steps() } else { String::new() };
            let (time, rows) = run(dir, &steps, crowd)?;
            ensure!(with == 1 || rows == crowd.records, "{rows} of {} records were kept without a policy", crowd.records);
            cpu[with] = time.as_nanos() as f64 / crowd.records as f64;
            kept = if with == 1 { rows } else { kept };
        }
        // The first pair warms the caches.
        if pair > 0 {
            base.push(cpu[0]);
            added.push(cpu[1] - cpu[0]);
        }
    }
    ensure!(!policy.keeps_all || kept == crowd.records, "{kept} of {} records were kept", crowd.records);
    let (base, added) = (median(base), median(added));
    let percent = added * 100.0 / base;
    let target = if policy.most.is_finite() { format!("<= {}", policy.most) } else { String::new() };
    let mut line = format!(
        "{:<30} {base:>8.0} {added:>8.1} {percent:>8.1} {target:>7} {:>6.1}",
        policy.name,
        kept as f64 * 100.0 / crowd.records as f64
    );
    if policy.step == "REDACT" {
        let rate = crowd.bytes as f64 / crowd.records as f64 * 1e3 / added.max(0.001);
        line += &format!("  {rate:.0} MB/s a core; at least {REDACT_MB_PER_SECOND}");
    } else if policy.keeps_all {
        line += if percent <= policy.most { "  ok" } else { "  MISSED" };
    }
    Ok(line)
}

/// CPU time until everything is delivered, and records kept.
fn run(dir: &Path, steps: &str, crowd: &Crowd) -> anyhow::Result<(Duration, u64)> {
    super::remove(&dir.join("data"))?;
    let path = dir.join("live.yaml");
    let text = format!(
        "lanes: 2\nsources: {{ input: {{ file: {{ include: [\"{}\"], format: json }} }} }}\ntenancy: {{ from: [tenant] }}\n\
         steps:\n{FIELDS}{steps}hub: {{ memory: {{ bytes_max: 32MiB }} }}\nsinks: {{ files: {{ archive: {{ path: all.log }} }} }}\n",
        dir.join("crowd-*.ndjson").display()
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let (running, _) = Running::start(dir, &path, Stdio::null())?;
    let since = Instant::now();
    loop {
        let cpu = running.cpu()?;
        let ledger = super::ask(&["ledger", "--json"], &dir.join("data"))?;
        let live = &ledger["pipelines"]["live"];
        let count = |of: &serde_json::Value| of["records"].as_u64().unwrap_or(0);
        let (received, kept, created) = (count(&live["received"]), count(&live["kept"]), count(&live["created"]));
        let delivered = count(&live["sinks"]["files"]["delivered"]);
        if received == crowd.records && delivered == kept {
            ensure!(ledger["residual"].as_u64() == Some(0), "the residual is {}", ledger["residual"]);
            running.stop(dir, crowd.records)?;
            return Ok((cpu, kept - created));
        }
        ensure!(since.elapsed() < PATIENCE, "{received} of {} records were received, {delivered} of {kept} delivered", crowd.records);
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
