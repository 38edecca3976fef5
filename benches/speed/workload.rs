//! The bench's input: log lines of a multi-tenant inference platform, and what a correct run makes of them.
//!
//! In: a folder and a size. Out: three files of the same records: `platform.ndjson`, `platform.cri.log` (one record in
//! twenty split over a P and an F line) and `part.ndjson` (the first tenth), each with the numbers a run must arrive at.
//! For the row `policies` the same lines of a thousand tenants, in several files. Deterministic: the same size gives the same bytes. Memory: one line and the buffers of three files.
//! Same fields, order, proportions and messages as the workload that other collectors were measured on: 20 % debug,
//! 70 info, 8 warn, 2 error; tenants and services with a few large ones; about 520 bytes a line; escapes and some UTF-8.

use anyhow::Context;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const SEED: u64 = 7;
const START_SECONDS: u64 = 1_795_402_800; // 2026-11-23T03:00:00Z, a day that the rate card of `pipelines/` covers
const PODS: usize = 12;

const TENANTS: [(&str, u64); 8] = [
    ("acme-search", 34),
    ("borealis-legal", 21),
    ("cobalt-games", 14),
    ("delta-health", 11),
    ("ember-retail", 8),
    ("fjord-bank", 6),
    ("granite-auto", 4),
    ("helix-bio", 2),
];
const FAMILIES: [(&str, &str); 8] = [
    ("chat-8b", "orca-8b-it"),
    ("chat-70b", "orca-70b-it"),
    ("chat-moe", "lynx-8x22b-moe"),
    ("code-34b", "forge-34b-code"),
    ("embed-large", "vesper-embed-v3"),
    ("rerank", "vesper-rerank-v2"),
    ("vision-12b", "iris-12b-vl"),
    ("speech", "echo-asr-large-v3"),
];
const STAGES: [&str; 4] = ["gateway", "prefill", "decode", "router"];
const REGIONS: [&str; 4] = ["us-east-1", "us-west-2", "eu-central-1", "ap-northeast-1"];
const METHODS: [(&str, u64); 3] = [("POST", 90), ("GET", 9), ("DELETE", 1)];

/// Messages as they stand in the line, JSON escapes included. `{a}`, `{b}`, `{c}` are small integers, `{x}` is a word of hex.
const DEBUG: &[&str] = &[
    "scheduler tick {a}: {b} sequences running, {c} waiting, kv cache {a}% used",
    "kv block {x} evicted after {b} ms idle, {c} blocks free",
    "batch {x} formed with {a} sequences in {b} us (max_batch={c})",
    "speculative decode accepted {a}/{b} draft tokens for slot {c}",
    "prefix cache hit: {a} of {b} tokens reused from block {x}",
    "nccl all-reduce {x} finished in {b} us over {a} ranks",
];
const INFO: &[&str] = &[
    "request completed",
    "request completed: finish_reason=stop cached_tokens={a} queue_ms={b}",
    "stream closed by client after {a} tokens",
    "request completed: finish_reason=length max_tokens={b} cached_tokens={a} slot={c}",
    "generated {a} tokens in {b} ms ({c} tok/s), first token after {a} ms",
    "request admitted to batch {x} position {a} of {b}, estimated wait {c} ms",
    r#"tool call \"search_documents\" returned {a} results in {b} ms"#,
    "routed to replica {a} of {b} (least pending, {c} in flight) with affinity key {x}",
    "embedding batch of {a} inputs padded to {b} tokens, truncated {c}",
    "response cached under key {x} for {b} s; policy=tenant-default, tier={a}",
];
const WARN: &[&str] = &[
    "rate limit near: tenant used {a}% of tokens-per-minute budget, {b} requests queued",
    "slow prefill: {b} ms for {a} tokens on gpu {c}; thermal throttling suspected",
    "retrying upstream replica {x} after connect timeout ({a} of {b})",
    "prompt truncated from {b} to {a} tokens: context window exceeded",
    "gpu {c} memory at {a}% – preempting sequence {x} (priority «batch»)",
];
const ERROR: &[&str] = &[
    "upstream replica {x} closed connection: read: connection reset by peer (attempt {a})",
    r#"CUDA error: out of memory\n  at allocator.cc:{a} (requested {b} MiB, free {c} MiB)\n  at engine.cc:{b} in step()\n  at worker.cc:{c} in run(\"{x}\")"#,
    r#"invalid request body: expected value at line {a} column {b}: \"messages\" must be a list, got {\"role\":\"user\"}"#,
    r#"deadline exceeded after {b} ms waiting for slot on node pool \"h100-{c}\""#,
    r"panic in sampler: index {a} out of range [0, {c})\n\tgoroutine {b} [running]:\n\tsampler.pick(0x{x})",
];

/// One input file and what a correct run makes of it.
#[derive(Clone, Debug)]
pub struct Input {
    pub path: PathBuf,
    pub bytes: u64,
    pub records: u64,
    pub all: Rows,
    /// What the bench policy keeps.
    pub kept: Rows,
    /// Input and output tokens of all records, by tenant and service.
    pub tokens: BTreeMap<(String, String), [u64; 2]>,
}

/// Records whatever their order: how many, and the sum of the CRC-32 of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub count: u64,
    pub digest: u64,
}

impl Rows {
    pub fn add(&mut self, row: &[u8]) {
        self.count += 1;
        self.digest = self.digest.wrapping_add(u64::from(crc32fast::hash(row)));
    }
}

pub struct Workload {
    pub whole: Input,
    pub cri: Input,
    pub part: Input,
}

/// Writes the three files. `bytes`: size of `platform.ndjson`, which ends with the first line that reaches it.
pub fn write(folder: &Path, bytes: u64) -> anyhow::Result<Workload> {
    let mut maker = Maker::new();
    let mut whole = Sheet::create(folder, "platform.ndjson")?;
    let mut cri = Sheet::create(folder, "platform.cri.log")?;
    let mut part = Sheet::create(folder, "part.ndjson")?;
    let mut counts = Counts::default();
    let mut part_counts = Counts::default();
    let mut line = Vec::new();
    let mut framed = Vec::new();
    while whole.bytes < bytes {
        let facts = maker.line(&mut line);
        counts.add(&line, &facts);
        maker.frame(&line, &mut framed);
        line.push(b'\n');
        whole.put(&line)?;
        cri.put(&framed)?;
        if part.bytes < bytes / 10 {
            part.put(&line)?;
            part_counts = counts.clone();
        }
    }
    Ok(Workload { whole: whole.close(&counts)?, cri: cri.close(&counts)?, part: part.close(&part_counts)? })
}

/// The same records of a thousand tenants, in files that grow side by side.
pub struct Crowd {
    pub records: u64,
    pub bytes: u64,
}

pub const CROWD: usize = 1_000;

/// Writes `crowd-0.ndjson` and so on, of so many bytes together.
pub fn write_crowd(folder: &Path, bytes: u64, files: usize) -> anyhow::Result<Crowd> {
    let mut maker = Maker::with_tenants((0..CROWD).map(|n| (format!("tenant-{n:04}"), 1)).collect());
    // All alike, and none left out: caches like nothing less.
    maker.tenants = (0..1024).map(|n| n % CROWD).collect();
    let mut sheets = (0..files).map(|n| Sheet::create(folder, &format!("crowd-{n}.ndjson"))).collect::<Result<Vec<_>, _>>()?;
    let mut crowd = Crowd { records: 0, bytes: 0 };
    let mut line = Vec::new();
    while crowd.bytes < bytes {
        maker.line(&mut line);
        line.push(b'\n');
        sheets[crowd.records as usize % files].put(&line)?;
        crowd.records += 1;
        crowd.bytes += line.len() as u64;
    }
    for mut sheet in sheets {
        sheet.file.flush().context("cannot write the crowd's files")?;
    }
    Ok(crowd)
}

/// What a run must know of one line.
struct Facts {
    tenant: usize,
    service: usize,
    tokens: [u64; 2],
    /// For how many records the bench policy lets it stand; 0: it is dropped.
    weight: u32,
}

#[derive(Clone, Default)]
struct Counts {
    all: Rows,
    kept: Rows,
    tokens: [[[u64; 2]; FAMILIES.len() * STAGES.len()]; TENANTS.len()],
}

impl Counts {
    fn add(&mut self, line: &[u8], facts: &Facts) {
        self.all.add(line);
        match facts.weight {
            0 => {}
            1 => self.kept.add(line),
            // A kept record that stands for several says so, and by whose decision.
            weight => self.kept.add(&[format!(r#"{{"sample_rate":{weight},"sampler":"steps[2].sample","#).as_bytes(), &line[1..]].concat()),
        }
        let sum = &mut self.tokens[facts.tenant][facts.service];
        *sum = [sum[0] + facts.tokens[0], sum[1] + facts.tokens[1]];
    }
}

struct Sheet {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

impl Sheet {
    fn create(folder: &Path, name: &str) -> anyhow::Result<Sheet> {
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Sheet { path, file: BufWriter::with_capacity(1 << 20, file), bytes: 0 })
    }

    fn put(&mut self, text: &[u8]) -> anyhow::Result<()> {
        self.bytes += text.len() as u64;
        self.file.write_all(text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn close(mut self, counts: &Counts) -> anyhow::Result<Input> {
        self.file.flush().with_context(|| format!("cannot write {}", self.path.display()))?;
        let mut tokens = BTreeMap::new();
        for (tenant, services) in counts.tokens.iter().enumerate() {
            for (service, sum) in services.iter().enumerate().filter(|(_, sum)| **sum != [0, 0]) {
                tokens.insert((TENANTS[tenant].0.to_string(), service_name(service)), *sum);
            }
        }
        Ok(Input { path: self.path, bytes: self.bytes, records: counts.all.count, all: counts.all, kept: counts.kept, tokens })
    }
}

fn service_name(service: usize) -> String {
    format!("{}-{}", FAMILIES[service / STAGES.len()].0, STAGES[service % STAGES.len()])
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for text that only has to look like logs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// 1024 picks among weights, so that choosing by weight costs one look-up for each line.
    fn picks(&mut self, weights: &[u64]) -> Vec<usize> {
        let total: u64 = weights.iter().sum();
        let pick = |mut at: u64| weights.iter().position(|w| at.checked_sub(*w).map(|rest| at = rest).is_none());
        (0..1024).map(|_| pick(self.next() % total).expect("what is below the sum lies in one of the weights")).collect()
    }

    fn word(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(b"bcdfghjklmnpqrstvwxz2456789"[self.below(27)])).collect()
    }
}

struct Maker {
    random: Random,
    time_ns: u64,
    names: Vec<String>,
    tenants: Vec<usize>,
    methods: Vec<usize>,
    services: Vec<usize>,
    /// The fields that depend on the pod, by service and pod.
    pods: Vec<String>,
}

impl Maker {
    fn new() -> Maker {
        Maker::with_tenants(TENANTS.map(|(name, weight)| (name.to_string(), weight)).to_vec())
    }

    /// Tenants with their weights; of more than a thousand some may never come.
    fn with_tenants(tenants: Vec<(String, u64)>) -> Maker {
        let mut random = Random(SEED);
        let mut pods = Vec::new();
        for (family, model) in FAMILIES {
            for stage in STAGES {
                let set = random.word(10);
                for _ in 0..PODS {
                    let (name, card) = (random.word(5), ["h100", "h200", "a100"][random.below(3)]);
                    let (node, region) = (random.below(240), REGIONS[random.below(REGIONS.len())]);
                    pods.push(format!(
                        r#""service":"{family}-{stage}","model":"{model}","pod":"{family}-{stage}-{set}-{name}","node":"gpu-{card}-{node:03}","region":"{region}""#
                    ));
                }
            }
        }
        let service_weights: Vec<u64> = (0..(FAMILIES.len() * STAGES.len()) as u64).map(|n| 1_000_000 / (n + 3)).collect();
        Maker {
            tenants: random.picks(&tenants.iter().map(|tenant| tenant.1).collect::<Vec<_>>()),
            methods: random.picks(&METHODS.map(|m| m.1)),
            services: random.picks(&service_weights),
            time_ns: START_SECONDS * 1_000_000_000,
            names: tenants.into_iter().map(|tenant| tenant.0).collect(),
            random,
            pods,
        }
    }

    /// Makes the next line, without its newline.
    fn line(&mut self, line: &mut Vec<u8>) -> Facts {
        line.clear();
        let (dice, size, ids) = (self.random.next(), self.random.next(), self.random.next());
        let (level, messages) = match dice % 100 {
            0..20 => ("debug", DEBUG),
            20..90 => ("info", INFO),
            90..98 => ("warn", WARN),
            _ => ("error", ERROR),
        };
        let tenant = self.tenants[(dice >> 8) as usize & 1023];
        let method = METHODS[self.methods[(dice >> 18) as usize & 1023]].0;
        let service = self.services[(dice >> 28) as usize & 1023];
        let pod = &self.pods[service * PODS + ((dice >> 38) as usize & 0xfff) * PODS / 4096];
        let last = (dice >> 50) % 10;
        let (a, b, c, x) = (size & 127, (size >> 7) & 4095, (size >> 19) & 511, size >> 32);
        let status = match level {
            "error" => [500, 502, 503, 504, 400][c as usize % 5],
            "warn" => [200, 429, 200, 499][c as usize % 4],
            _ => 200,
        };
        // Thousandths of a millisecond.
        let latency = 3_000 + b * 731 + c * c * 113 / 10;
        let (tokens_in, cached, tokens_out) = (a + b, (a + b) * (x >> 24) / 512, c);
        self.time_ns += 20_000 + (x & 0x3_ffff);
        let (request, trace, trace_low, span) = (ids & 0xffff_ffff_ffff, self.random.next(), self.random.next(), self.random.next());
        let written = write!(
            line,
            concat!(
                r#"{{"ts":"{}","level":"{}","tenant":"{}",{},"request_id":"req_{:012x}{}","#,
                r#""trace_id":"{:016x}{:016x}","span_id":"{:016x}","method":"{}","status":{},"latency_ms":{}.{:03},"#,
                r#""tokens_in":{},"tokens_cached":{},"tokens_out":{},"gpu_ms":{}.{:02},"msg":""#
            ),
            Stamp(self.time_ns),
            level,
            self.names[tenant],
            pod,
            request,
            last,
            trace,
            trace_low,
            span,
            method,
            status,
            latency / 1000,
            latency % 1000,
            tokens_in,
            cached,
            tokens_out,
            latency * 13 / 16_000,
            latency * 13 / 160 % 100
        );
        written.expect("a vector takes what is written");
        fill(messages[x as usize % messages.len()], [a, b, c], x, line);
        line.extend_from_slice(b"\"}");
        let weight = match level {
            "warn" | "error" => 1,
            "info" if last == 0 => 10,
            _ => 0,
        };
        Facts { tenant, service, tokens: [tokens_in, tokens_out], weight }
    }

    /// The line as a container runtime writes it, one in twenty in two parts.
    fn frame(&mut self, line: &[u8], framed: &mut Vec<u8>) {
        framed.clear();
        let stamp = Stamp(self.time_ns + 1_000);
        let stream = if self.time_ns & 15 == 0 { "stderr" } else { "stdout" };
        // A runtime counts bytes, and so may split in the middle of a character.
        let half = if self.random.below(20) == 0 { line.len() / 2 } else { 0 };
        if half > 0 {
            write!(framed, "{stamp} {stream} P ").expect("a vector takes what is written");
            framed.extend_from_slice(&line[..half]);
            framed.push(b'\n');
        }
        write!(framed, "{stamp} {stream} F ").expect("a vector takes what is written");
        framed.extend_from_slice(&line[half..]);
        framed.push(b'\n');
    }
}

/// Appends a message, its places filled in.
fn fill(message: &str, small: [u64; 3], word: u64, line: &mut Vec<u8>) {
    let mut rest = message;
    while let Some(at) = rest.find('{') {
        line.extend_from_slice(&rest.as_bytes()[..at]);
        let (place, after) = rest[at..].split_at(3.min(rest.len() - at));
        let written = match place {
            "{a}" => write!(line, "{}", small[0]),
            "{b}" => write!(line, "{}", small[1]),
            "{c}" => write!(line, "{}", small[2]),
            "{x}" => write!(line, "{word:08x}"),
            _ => line.write_all(place.as_bytes()),
        };
        written.expect("a vector takes what is written");
        rest = after;
    }
    line.extend_from_slice(rest.as_bytes());
}

/// RFC 3339 with nanoseconds. The workload stays within a few days of its start.
struct Stamp(u64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, nanos) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let (day, second) = (23 + (seconds - START_SECONDS + 3 * 3600) / 86_400, seconds % 86_400);
        let (month, day) = if day > 30 { (12, day - 30) } else { (11, day) };
        write!(f, "2026-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

/// Lines of a web server in combined log format, for the rows that read text.
pub fn write_access(dir: &Path, bytes: u64) -> anyhow::Result<Input> {
    let path = dir.join("access.log");
    let mut file = BufWriter::new(File::create(&path).with_context(|| format!("cannot create {}", path.display()))?);
    let mut dice = Random(SEED);
    let (mut written, mut records) = (0, 0);
    while written < bytes {
        let second = records / 50;
        let (minute, hour, day) = (second / 60 % 60, second / 3_600 % 24, 1 + second / 86_400 % 28);
        let line = format!(
            "10.{}.{}.{} - {} [{day:02}/Nov/2026:{hour:02}:{minute:02}:{:02} +0000] \"{} /api/v1/{}/{} HTTP/1.1\" {} {} \"https://shop.example/{}\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\"\n",
            dice.below(256),
            dice.below(256),
            dice.below(256),
            ["-", "alice", "bob"][dice.below(3)],
            second % 60,
            ["GET", "GET", "GET", "POST"][dice.below(4)],
            ["orders", "items", "search", "users"][dice.below(4)],
            dice.below(1_000_000),
            [200, 200, 200, 304, 404, 500][dice.below(6)],
            dice.below(100_000),
            dice.below(1_000),
        );
        file.write_all(line.as_bytes())?;
        written += line.len() as u64;
        records += 1;
    }
    file.flush()?;
    Ok(Input { path, bytes: written, records, all: Rows::default(), kept: Rows::default(), tokens: BTreeMap::new() })
}
