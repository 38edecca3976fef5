//! How fast records are asked a condition, with finding its fields: MB of JSON per second and core.
//!
//!   cargo bench -p flow --bench conditions [-- PART OF A CONDITION]
//!
//! One thread; 64 batches of 256 KiB with records of about 520 bytes, 16 MiB that no cache holds. Each condition names three fields,
//! and only these are found. The figure is the best of five rounds, in time of the thread, so that others on the machine count
//! little; beside it finding the fields alone. Nothing is asserted here.

use flow::batch::Batch;
use flow::condition::Condition;
use flow::fields::{FieldSet, Scanner, Span};
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

const BATCHES: usize = 64;
const BATCH_BYTES: usize = 256 << 10;
const ROUNDS: usize = 5;
/// Of a round over all batches: the thread's time is counted in ticks of up to 4 ms, and a pass takes some 10 ms.
const PASSES: usize = 8;

const CONDITIONS: [(&str, &str); 11] = [
    ("plain", r#"level == "warn" && status >= 500 && service.startsWith("chat")"#),
    ("plain", r#"level != "error" && status < 500 && service.startsWith("chat")"#),
    ("plain", r#"level in ["debug", "info"] && status in [200, 201, 204] && msg.contains("tokens")"#),
    ("plain", r#"(level == "error" || latency_ms > 4000) && !(msg.matches("^tool call"))"#),
    ("plain", "tokens_in > tokens_out && status != 404"),
    ("computing", "latency_ms / 1000.0 > 2.0 && tokens_in + tokens_out > 500"),
    ("computing", "tokens_in * 3 - tokens_out < tokens_cached * 100"),
    ("computing", r#"string(status).startsWith("2") && level.upperAscii() == "INFO" && size(msg) * 2 > 60"#),
    ("computing", r#"level == "debug" ? tokens_in > 100 : status / 100 == 5"#),
    ("computing", r#"timestamp(ts).getHours("+02:00") < 6 && status % 100 == 0 && level != "error""#),
    ("computing", r#"service.substring(0, service.indexOf("-")) + "/" + level == "chat/info" && status == 200"#),
];

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A batch of records, no fields found yet.
fn batch(random: &mut Random, time_ns: &mut i64) -> Batch {
    let (mut text, mut batch) = (String::new(), Batch::default());
    while text.len() < BATCH_BYTES {
        *time_ns += 3_600_000_000;
        let level = ["debug", "debug", "info", "info", "info", "info", "info", "info", "info", "warn"][random.below(10) as usize];
        let (tenant, a, b, x) = (random.below(1_000), random.below(128), random.below(4096), random.below(1 << 32));
        let msg = match random.below(4) {
            0 => "request completed".to_string(),
            1 => format!("generated {a} tokens in {b} ms ({a} tok/s), first token after {a} ms"),
            2 => format!("request admitted to batch {x:08x} position {a} of {b}, estimated wait {a} ms"),
            _ => format!(r#"tool call \"search_documents\" returned {a} results in {b} ms"#),
        };
        let (service, start) = (random.below(32), text.len());
        let written = write!(
            text,
            r#"{{"ts":"{}","level":"{level}","tenant":"tenant-{tenant:04}","service":"chat-70b-{service}","model":"orca-70b-it","pod":"chat-70b-{service}-bcdfghjklm-{a}","node":"gpu-h100-{a:03}","region":"us-east-1","zone":"us-east-1a","rack":"rack-{a:04}","request_id":"req_{:012x}0","trace_id":"{:016x}{:016x}","span_id":"{:016x}","method":"POST","status":200,"latency_ms":{b}.125,"tokens_in":{b},"tokens_cached":{a},"tokens_out":{a},"gpu_ms":{b}.25,"msg":"{msg}"}}"#,
            UnixNanos(*time_ns).rfc3339(),
            random.below(1 << 48),
            random.below(u64::MAX),
            random.below(u64::MAX),
            random.below(u64::MAX),
        );
        written.expect("a string takes what is written");
        batch.push(start, text.len(), text.len() as u64, text.len() - start, 0);
        text.push('\n');
    }
    batch.arena = text.into_bytes();
    batch
}

/// Finds the fields of all records.
fn find(scanner: &mut Scanner, batch: &mut Batch, fields: usize) {
    batch.fields = fields;
    batch.spans.clear();
    batch.spans.resize(batch.len() * fields, Span::default());
    for i in 0..batch.len() {
        let (start, end) = (batch.start[i] as usize, batch.end[i] as usize);
        scanner.scan_in(&batch.arena, start, end, &mut batch.spans[i * fields..(i + 1) * fields]);
    }
}

/// How long this thread has run, as Linux counts it.
fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let nanos: u64 = text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first number is the time run");
    nanos as f64 / 1e9
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let (mut random, mut time) = (Random(1), 1_795_132_800 * NANOS_PER_SECOND);
    let mut batches: Vec<Batch> = (0..BATCHES).map(|_| batch(&mut random, &mut time)).collect();
    let (records, bytes) = batches.iter().fold((0, 0), |(records, bytes), batch| (records + batch.len(), bytes + batch.arena.len()));
    println!("{records} records of {} bytes", bytes / records);
    println!("{:>10} {:>10} {:>8} {:>7} {:>10}  condition", "MB/s", "find MB/s", "ask ns", "held %", "mismatched");
    for (kind, text) in CONDITIONS {
        if !only.is_empty() && !only.iter().any(|only| text.contains(only.as_str())) {
            continue;
        }
        let mut names: Vec<String> = Vec::new();
        let condition = Condition::parse(text, &mut |path| {
            names.iter().position(|own| own == path).unwrap_or_else(|| {
                names.push(path.into());
                names.len() - 1
            })
        });
        let condition = condition.expect("a good condition");
        let mut scanner = Scanner::new(Arc::new(FieldSet::new(&names)));
        let (mut mask, mut held, mut best, mut best_find) = (Vec::new(), 0, f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            let start = thread_seconds();
            for _ in 0..PASSES {
                batches.iter_mut().for_each(|batch| find(&mut scanner, black_box(batch), names.len()));
            }
            best_find = best_find.min(thread_seconds() - start);
            held = 0;
            let start = thread_seconds();
            for n in 0..PASSES * BATCHES {
                let batch = &mut batches[n % BATCHES];
                find(&mut scanner, black_box(batch), names.len());
                mask.clear();
                mask.resize(batch.len(), true);
                condition.eval(&*batch, &mut mask);
                held += mask.iter().filter(|held| **held).count();
            }
            best = best.min(thread_seconds() - start);
        }
        println!(
            "{:>10.0} {:>10.0} {:>8.1} {:>7.1} {:>10}  {kind}: {text}",
            (bytes * PASSES) as f64 / best / 1e6,
            (bytes * PASSES) as f64 / best_find / 1e6,
            (best - best_find) * 1e9 / (records * PASSES) as f64,
            held as f64 * 100.0 / (records * PASSES) as f64,
            condition.mismatches(),
        );
    }
}
