//! The bench's lake: log lines of an inference platform over 24 hours, put in through the writer's own seal.
//!
//! In: a folder, a number of records and a seed. Out: a lake in that folder, and a few needles that are surely in
//! it (trace ids, rare words), kept beside it so that a lake can be used again. Lines have about 500 bytes, with the
//! fields, proportions and messages of `benches/speed`. Memory: the lines of one seal, and what sealing takes.

use anyhow::Context;
use flow::event::StreamId;
use flow::units::UnixNanos;
use hub::disk::Disk;
use hub::frame::{Frame, Part, Rows};
use lake::{Fields, Lake, Options};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

pub const START_NS: i64 = 1_795_392_000_000_000_000; // 2026-11-23
pub const DAY_NS: i64 = 86_400_000_000_000;
/// A file of the largest tenant then holds 200 MB of lines.
const SEAL_ROWS: u64 = 1_000_000;
const FRAME_ROWS: u64 = 16_384;
const STREAMS: u64 = 8;
const NEEDLES: u64 = 16;

const TENANTS: [(&str, u64); 4] = [("acme-search", 40), ("borealis-legal", 30), ("cobalt-games", 20), ("delta-health", 10)];
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
const MESSAGES: [(&str, u8, &[&str]); 4] = [
    (
        "debug",
        5,
        &[
            "scheduler tick {a}: {b} sequences running, {c} waiting, kv cache {a}% used",
            "kv block {x} evicted after {b} ms idle, {c} blocks free",
            "batch {x} formed with {a} sequences in {b} us (max_batch={c})",
            "nccl all-reduce {x} finished in {b} us over {a} ranks",
        ],
    ),
    (
        "info",
        9,
        &[
            "request completed",
            "request completed: finish_reason=stop cached_tokens={a} queue_ms={b}",
            "stream closed by client after {a} tokens",
            "generated {a} tokens in {b} ms ({c} tok/s), first token after {a} ms",
            "request admitted to batch {x} position {a} of {b}, estimated wait {c} ms",
            r#"tool call \"search_documents\" returned {a} results in {b} ms"#,
            "routed to replica {a} of {b} (least pending, {c} in flight) with affinity key {x}",
            "response cached under key {x} for {b} s; policy=tenant-default, tier={a}",
        ],
    ),
    (
        "warn",
        13,
        &[
            "rate limit near: tenant used {a}% of tokens-per-minute budget, {b} requests queued",
            "retrying upstream replica {x} after connect timeout ({a} of {b})",
            "gpu {c} memory at {a}% – preempting sequence {x} (priority «batch»)",
        ],
    ),
    (
        "error",
        17,
        &[
            "upstream replica {x} closed connection: read: connection reset by peer (attempt {a})",
            r#"CUDA error: out of memory\n  at allocator.cc:{a} (requested {b} MiB, free {c} MiB)\n  at engine.cc:{b} in step()"#,
            r#"deadline exceeded after {b} ms waiting for slot on node pool \"h100-{c}\""#,
        ],
    ),
];

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What is surely in the lake.
#[derive(Default)]
pub struct Needles {
    pub traces: Vec<String>,
    pub words: Vec<String>,
}

/// Fills `folder` with a lake; `lines`: also write every line to this file.
pub fn build(folder: &Path, records: u64, seed: u64, lines: Option<&Path>) -> anyhow::Result<()> {
    let fields = Fields::default();
    let index = ["service", "level", "model", "region", "method", "status"].map(String::from).to_vec();
    let numbers = ["latency_ms", "tokens_in", "tokens_out"].map(String::from).to_vec();
    let options =
        Options { index, text: fields.text, ids: fields.ids, numbers, index_bytes_min: 4 << 20, hour_bytes_min: u64::MAX, lineage: None };
    let mut lake = Lake::open(Disk::Real, &folder.join("lake"), options)?;
    let mut file = match lines {
        Some(path) => Some(std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?)),
        None => None,
    };
    let mut random = Random(seed);
    let mut ends = [0u64; STREAMS as usize];
    let (mut made, mut seq) = (0, 0);
    let (mut traces, mut words) = (String::new(), String::new());
    let mut line = String::new();
    while made < records {
        let mut frames = Vec::new();
        let until = (made + SEAL_ROWS.min(records.div_ceil(4))).min(records);
        while made < until {
            seq += 1;
            let stream = seq % STREAMS;
            let from = ends[stream as usize];
            let mut frame = Frame { seq, received: UnixNanos(START_NS), ..Frame::default() };
            frame.tenants = TENANTS.iter().map(|t| t.0.as_bytes().into()).collect();
            let (mut rows, mut at) = (Rows::default(), from);
            for _ in 0..FRAME_ROWS.min(until - made) {
                let time = START_NS + (made as i128 * DAY_NS as i128 / records as i128) as i64 + (random.next() % 50_000_000) as i64;
                let (tenant, severity, trace, word) = write_line(&mut random, time, &mut line);
                if made % (records / NEEDLES).max(1) == 7 {
                    writeln!(traces, "{trace}")?;
                }
                if let Some(word) = word.filter(|_| words.lines().count() < ((made * NEEDLES) / records) as usize + 1) {
                    writeln!(words, "{word:08x}")?;
                }
                if let Some(file) = &mut file {
                    writeln!(file, "{line}")?;
                }
                at += line.len() as u64 + 1;
                rows.bytes.extend_from_slice(line.as_bytes());
                rows.ends.push(u32::try_from(rows.bytes.len())?);
                rows.tenant.push(tenant);
                rows.time.push(time);
                rows.severity.push(severity);
                rows.weight.push(1);
                rows.position.push(at);
                rows.origin_bytes.push(line.len() as u32);
                rows.notes.push(0);
                made += 1;
            }
            ends[stream as usize] = at;
            let rows_end = rows.len() as u32;
            frame.rows = rows;
            frame.parts.push(Part { stream: StreamId(stream + 1), from, to: at, resume: at, rows: 0..rows_end, ..Part::default() });
            frames.push(Arc::new(frame));
        }
        lake.seal(&frames)?;
    }
    if let Some(mut file) = file {
        file.flush()?;
    }
    std::fs::write(folder.join("traces"), traces)?;
    std::fs::write(folder.join("words"), words)?;
    Ok(())
}

/// The needles of a lake that was built here.
pub fn needles(folder: &Path) -> anyhow::Result<Needles> {
    let read = |name: &str| -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(folder.join(name)).with_context(|| format!("{} has no {name}", folder.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    Ok(Needles { traces: read("traces")?, words: read("words")? })
}

/// Writes one line; returns its tenant, severity, trace id and the word of hex that its message holds.
fn write_line(random: &mut Random, time: i64, line: &mut String) -> (u32, u8, String, Option<u64>) {
    let (dice, size, ids) = (random.next(), random.next(), random.next());
    let (level, severity, messages) = MESSAGES[match dice % 100 {
        0..20 => 0,
        20..90 => 1,
        90..98 => 2,
        _ => 3,
    }];
    let mut pick = (dice >> 8) % 100;
    let tenant = TENANTS.iter().position(|(_, weight)| pick.checked_sub(*weight).map(|rest| pick = rest).is_none()).unwrap_or(0);
    // Squared, so that a few services have most of the lines.
    let service = ((dice >> 16) & 0xff) * ((dice >> 24) & 0xff) * 32 / 65_536;
    let ((family, model), stage) = (FAMILIES[service as usize / 4], STAGES[service as usize % 4]);
    let pod = (dice >> 32) % 12;
    let region = REGIONS[((service * 7 + pod) % 4) as usize];
    let method = ["POST", "POST", "POST", "POST", "POST", "POST", "POST", "GET"][(dice >> 40) as usize % 8];
    let (a, b, c, x) = (size & 127, (size >> 7) & 4095, (size >> 19) & 511, size >> 32);
    let status = match level {
        "error" => [500, 502, 503, 504, 400][c as usize % 5],
        "warn" => [200, 429, 200, 499][c as usize % 4],
        _ => 200,
    };
    let latency = 3_000 + b * 731 + c * c * 113 / 10;
    let (trace, span) = (format!("{:016x}{:016x}", random.next(), random.next()), random.next());
    let message = messages[(x % messages.len() as u64) as usize];
    let of_day = (time - START_NS).rem_euclid(DAY_NS);
    let seconds = of_day / 1_000_000_000;
    line.clear();
    let written = write!(
        line,
        concat!(
            r#"{{"ts":"2026-11-23T{:02}:{:02}:{:02}.{:09}Z","level":"{}","tenant":"{}","service":"{}-{}","model":"{}","#,
            r#""pod":"{}-{}-7c9f{:04}-x{:02}","node":"gpu-h100-{:03}","region":"{}","request_id":"req_{:012x}","#,
            r#""trace_id":"{}","span_id":"{:016x}","method":"{}","status":{},"latency_ms":{}.{:03},"#,
            r#""tokens_in":{},"tokens_cached":{},"tokens_out":{},"gpu_ms":{}.{:02},"msg":""#
        ),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        of_day % 1_000_000_000,
        level,
        TENANTS[tenant].0,
        family,
        stage,
        model,
        family,
        stage,
        service * 17,
        pod,
        (service * 12 + pod) % 240,
        region,
        ids & 0xffff_ffff_ffff,
        trace,
        span,
        method,
        status,
        latency / 1000,
        latency % 1000,
        a + b,
        (a + b) / 3,
        c,
        latency * 13 / 16_000,
        latency * 13 / 160 % 100
    );
    written.expect("a String takes every write");
    let mut rest = message;
    while let Some(at) = rest.find('{') {
        line.push_str(&rest[..at]);
        let written = match &rest[at..at + 3] {
            "{a}" => write!(line, "{a}"),
            "{b}" => write!(line, "{b}"),
            "{c}" => write!(line, "{c}"),
            _ => write!(line, "{x:08x}"),
        };
        written.expect("a String takes every write");
        rest = &rest[at + 3..];
    }
    line.push_str(rest);
    line.push_str("\"}");
    (tenant as u32, severity, trace, message.contains("{x}").then_some(x))
}
