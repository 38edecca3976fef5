//! What the lake's writer costs: seals the lines of the bench `speed` and tells MB/s of JSON for each CPU second, the
//! share of raw bytes on disk, what each stage took, and the most memory.
//!
//! `cargo bench -p lake --bench writer`. Sizes and fields come from the environment: `BYTES` (of lines), `SEAL` (bytes of
//! lines in one seal), `SET` (full, words, keywords), `PLACE` (a folder; the files go there, and are removed). The target of the
//! issue, with six keywords, the words of one text, three ids and the numbers: 40 MB/s and 25 %.

#[path = "../../../benches/speed/workload.rs"]
#[expect(dead_code, reason = "of the workload this bench needs the lines only")]
mod workload;

use flow::event::StreamId;
use flow::fields::{FieldSet, Scanner, Span};
use flow::time::TimeParser;
use flow::units::UnixNanos;
use hub::disk::Disk;
use hub::frame::{Frame, Part, Rows};
use lake::{Lake, Options};
use std::path::PathBuf;
use std::sync::Arc;

const FRAME_BYTES: usize = 1 << 20;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

fn options(set: &str) -> Options {
    let full = Options {
        index: names(&["service", "model", "level", "status", "region", "method"]),
        text: names(&["msg"]),
        ids: names(&["trace_id", "span_id", "request_id"]),
        numbers: names(&["status", "latency_ms", "tokens_in", "tokens_out"]),
        index_bytes_min: 1 << 20,
        hour_bytes_min: 8 << 20,
        lineage: None,
    };
    let three = names(&["service", "model", "level"]);
    match set {
        "full" => full,
        "words" => Options { index: three, numbers: vec![], ..full },
        "keywords" => Options { index: three, text: vec![], ids: vec![], numbers: vec![], ..full },
        other => panic!("SET={other} is none of full, words, keywords"),
    }
}

/// Makes frames as a pipeline would, of one stream.
struct Framer {
    scanner: Scanner,
    times: TimeParser,
    seq: u64,
    position: u64,
}

impl Framer {
    fn new() -> Framer {
        let scanner = Scanner::new(Arc::new(FieldSet::new(&["ts", "level", "tenant"])));
        Framer { scanner, times: TimeParser::default(), seq: 0, position: 0 }
    }

    fn frame(&mut self, lines: &[&[u8]]) -> Arc<Frame> {
        self.seq += 1;
        let mut frame = Frame { seq: self.seq, ..Frame::default() };
        let mut rows = Rows::default();
        let from = self.position;
        for line in lines {
            let mut spans = [Span::default(); 3];
            self.scanner.scan(line, &mut spans);
            let [time, level, tenant] = spans;
            let tenant = tenant.text(line).expect("each line has a tenant");
            let known = frame.tenants.iter().position(|t| **t == *tenant);
            let tenant = known.unwrap_or_else(|| {
                frame.tenants.push(tenant.into_owned().into());
                frame.tenants.len() - 1
            });
            self.position += line.len() as u64 + 1;
            rows.bytes.extend_from_slice(line);
            rows.ends.push(rows.bytes.len() as u32);
            rows.tenant.push(tenant as u32);
            rows.time.push(self.times.parse(time.raw(line), time.kind).expect("each line has a time").0);
            rows.severity.push(flow::severity::parse(level.raw(line), level.kind));
            rows.weight.push(1);
            rows.position.push(self.position);
            rows.origin_bytes.push(line.len() as u32);
            rows.notes.push(0);
        }
        let part =
            Part { stream: StreamId(7), from, to: self.position, resume: self.position, rows: 0..lines.len() as u32, ..Part::default() };
        frame.received = UnixNanos(rows.time.last().copied().unwrap_or(0));
        frame.parts.push(part);
        frame.rows = rows;
        Arc::new(frame)
    }
}

/// Time on a processor so far, in seconds.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn status_kib(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn main() {
    let (bytes, seal) = (number("BYTES", 256 << 20), number("SEAL", 32 << 20));
    let set = std::env::var("SET").unwrap_or("full".into());
    let place = std::env::var("PLACE").map_or_else(|_| PathBuf::from("/dev/shm"), PathBuf::from);
    let folder = tempfile::tempdir_in(&place).unwrap_or_else(|error| panic!("no folder in {}: {error}", place.display()));
    let input = workload::write(folder.path(), bytes as u64).expect("the folder takes the lines");
    std::fs::remove_file(&input.cri.path).expect("it was written just now");
    let text = std::fs::read(&input.whole.path).expect("it was written just now");
    std::fs::remove_file(&input.whole.path).expect("it was written just now");

    let mut framer = Framer::new();
    let mut lake = Lake::open(Disk::Real, &folder.path().join("lake"), options(&set)).expect("a new lake");
    let resident = status_kib("VmRSS");
    let (mut cpu, mut raw, mut rows, mut stored, mut indexed, mut files) = (0.0, 0, 0, 0, 0, 0);
    let mut frames: Vec<Arc<Frame>> = Vec::new();
    let mut lines: Vec<&[u8]> = Vec::new();
    let (mut frame_bytes, mut seal_bytes) = (0, 0);
    let mut rest = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).peekable();
    while let Some(line) = rest.next() {
        frame_bytes += line.len();
        seal_bytes += line.len();
        lines.push(line);
        let is_last = rest.peek().is_none();
        if frame_bytes >= FRAME_BYTES || is_last {
            frames.push(framer.frame(&lines));
            lines.clear();
            frame_bytes = 0;
        }
        if (frame_bytes == 0 && seal_bytes >= seal) || is_last {
            let start = cpu_seconds();
            let sealed = lake.seal(&frames).expect("the lake takes the frames").expect("they are new");
            cpu += cpu_seconds() - start;
            raw += sealed.raw_bytes;
            rows += sealed.rows;
            stored += sealed.parquet_bytes;
            indexed += sealed.index_bytes;
            files += sealed.files;
            frames.clear();
            seal_bytes = 0;
        }
    }
    assert_eq!(rows, input.whole.records);
    let percent = |part: u64| part as f64 * 100.0 / raw as f64;
    println!("SET={set}: {rows} rows, {:.1} MB of lines in {files} files", raw as f64 / 1e6);
    println!("{:.1} MB/s of CPU time, {:.2} us a row", raw as f64 / 1e6 / cpu, cpu * 1e6 / rows as f64);
    println!("on disk {:.1} % of raw: Parquet {:.1} %, index {:.1} %", percent(stored + indexed), percent(stored), percent(indexed));
    let spent = lake.spent();
    for (stage, time) in spent.named() {
        println!(
            "{stage:>14} {:5.2} us a row, {:4.1} %",
            time.as_secs_f64() * 1e6 / rows as f64,
            time.as_secs_f64() * 100.0 / spent.total().as_secs_f64()
        );
    }
    println!("peak {} MiB resident, {} MiB before the first seal", status_kib("VmHWM") >> 10, resident >> 10);
}
