//! How much processor time metrics and logs from the network cost: `cargo bench --bench telemetry [-- scrape remote_write otlp]`.
//!
//! Each row runs the whole program with a far side in here, over loopback, and reads its processor time from the kernel (`/proc/PID/stat`,
//! 10 ms steps), all threads, start included. `scrape`: 1,000 targets of 1,000 series each per 15 s, as a share of a core. `remote_write`
//! and `otlp`: samples into nothing and log records into an archive, per second of a core. Bodies are the same in every run.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use telemetry::otlp;
use telemetry::remote::{Version, Writer, WriterOptions};
use telemetry::sample::{Stamp, Type, put_series, put_value_end};

const TARGETS: usize = 1000;
const SERIES: usize = 1000;
const INTERVALS: u64 = 3;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|arg| arg == name);
    if wanted("scrape") {
        scrape();
    }
    if wanted("remote_write") {
        remote_write();
    }
    if wanted("otlp") {
        otlp_logs();
    }
}

struct Weir {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Weir {
    fn start(config: &str) -> Weir {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bench.yaml");
        std::fs::write(&path, config.replace("$DIR", &folder.path().display().to_string())).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("run").arg(&path).arg("--data").arg(folder.path().join("data")).stdin(Stdio::null()).stderr(Stdio::null());
        Weir { child: command.spawn().expect("it starts"), _folder: folder }
    }

    /// Seconds of all threads, in user and system mode.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        (fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")) as f64 / 100.0
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it is measured
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn connect(port: u16) -> TcpStream {
    let since = Instant::now();
    loop {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_nodelay(true).expect("set");
            return stream;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "weir does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn scrape() {
    let mut body = String::from("# HELP node_x_total What it counts.\n# TYPE node_x_total counter\n");
    for n in 0..SERIES {
        body.push_str(&format!(
            "node_x_total{{cpu=\"{}\",mode=\"m{}\",device=\"/dev/sd{}\"}} {}\n",
            n % 64,
            n / 64,
            n % 26,
            n as f64 * 1234.25
        ));
    }
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), answer) = (stream, answer.clone()) else { continue };
            let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
                let mut buffer = [0; 4096];
                // A request fits into one read.
                while let Ok(1..) = stream.read(&mut buffer) {
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let targets: Vec<String> = (0..TARGETS)
        .map(|n| format!("{{\"targets\":[\"{address}\"],\"labels\":{{\"instance\":\"node-{n}\",\"__metrics_path__\":\"/m/{n}\"}}}}"))
        .collect();
    let file = folder.path().join("targets.json");
    std::fs::write(&file, format!("[{}]", targets.join(","))).expect("written");
    for (name, sink) in [("blackhole", "blackhole: {}"), ("lake", "lake: {}")] {
        let config = format!(
            "sources: {{ nodes: {{ scrape: {{ files: [\"{}\"], interval: 15s }} }} }}\nsinks: {{ to: {{ {sink} }} }}\n",
            file.display()
        );
        let weir = Weir::start(&config);
        std::thread::sleep(Duration::from_secs(16)); // every target was asked once: series are known
        let (from, since) = (weir.cpu(), Instant::now());
        std::thread::sleep(Duration::from_secs(15 * INTERVALS));
        let share = (weir.cpu() - from) / since.elapsed().as_secs_f64();
        println!("scrape, {TARGETS} targets of {SERIES} series per 15 s, journal, to {name}: {:.1} % of a core (aim 25)", share * 100.0);
    }
}

/// Sends bodies over a few connections until `items` were taken; returns items for each second of a core.
fn send(port: u16, head: &str, bodies: &[Vec<u8>], per_body: u64, rounds: u64, weir: &Weir) -> f64 {
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(port)).collect();
    let from = weir.cpu();
    let mut sent = 0;
    for round in 0..rounds {
        for (n, body) in bodies.iter().enumerate() {
            let at = (round as usize + n) % 4;
            let text = format!("{head}\r\nHost: weir\r\nContent-Length: {}\r\n\r\n", body.len());
            // Where the hub is full it says so: the sink is behind, and that is measured, too.
            while !is_taken(&mut streams[at], port, &text, body) {
                std::thread::sleep(Duration::from_millis(20));
            }
            sent += per_body;
        }
    }
    sent as f64 / (weir.cpu() - from)
}

fn is_taken(stream: &mut TcpStream, port: u16, head: &str, body: &[u8]) -> bool {
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).unwrap_or(0);
    let said = String::from_utf8_lossy(&answer[..read]);
    assert!(said.starts_with("HTTP/1.1 20") || said.starts_with("HTTP/1.1 503"), "{said} {sent:?}");
    let is_taken = said.starts_with("HTTP/1.1 20");
    if !is_taken {
        *stream = connect(port); // one that was refused may not have been read to its end
    }
    is_taken
}

fn remote_write() {
    const REQUESTS: usize = 50;
    const SAMPLES: usize = 2000;
    for (version, name) in [(Version::V1, "1.0"), (Version::V2, "2.0")] {
        let port = free_port();
        let weir = Weir::start(&format!(
            "memory: 8GiB\nhub: {{ memory: {{}} }}\nsources: {{ far: {{ remote_write: {{ listen: \"127.0.0.1:{port}\", ack: on_receipt, buffer_bytes_max: 2GiB }} }} }}\nsinks: {{ to: {{ blackhole: {{}} }} }}\n"
        ));
        let mut writer = Writer::new(WriterOptions::new(version));
        let body = |request: usize, writer: &mut Writer| {
            for n in 0..SAMPLES {
                let (pod, path) = (format!("pod-{:05}", request * 40 + n / 50), format!("/api/v1/{}", n % 50));
                let labels = [
                    ("cluster", "eu-1"),
                    ("code", "200"),
                    ("container", "server"),
                    ("instance", "10.0.0.1:9090"),
                    ("job", "api"),
                    ("method", "GET"),
                    ("namespace", "inference"),
                    ("path", path.as_str()),
                    ("pod", pod.as_str()),
                ];
                let mut line = Vec::new();
                put_series(&mut line, "http_requests_total", Type::Counter, "", labels.into_iter());
                Stamp::default().put(&mut line, flow::units::UnixNanos(1_764_291_723_000_000_000));
                put_value_end(&mut line, n as f64 * 3.5);
                writer.push(&line).expect("a sample");
            }
            writer.finish().body
        };
        let bodies: Vec<Vec<u8>> = (0..REQUESTS).map(|request| body(request, &mut writer)).collect();
        let head = match version {
            Version::V1 => "POST /api/v1/write HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy",
            Version::V2 => {
                "POST /api/v1/write HTTP/1.1\r\nContent-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\nContent-Encoding: snappy"
            }
        };
        send(port, head, &bodies, SAMPLES as u64, 1, &weir); // series are known from now on
        let rate = send(port, head, &bodies, SAMPLES as u64, 40, &weir);
        println!("remote write {name} in, whole program, memory hub, to nothing: {:.2} M samples/s per core (aim 1)", rate / 1e6);
    }
}

fn otlp_logs() {
    const REQUESTS: usize = 20;
    const RECORDS: usize = 4000;
    let port = free_port();
    let weir = Weir::start(&format!(
        "memory: 8GiB\nhub: {{ memory: {{}} }}\nsources: {{ far: {{ otlp: {{ grpc: \"\", http: \"127.0.0.1:{port}\", ack: on_receipt, buffer_bytes_max: 2GiB }} }} }}\nsinks: {{ to: {{ archive: {{ path: \"{{tenant}}.log\", dir: \"$DIR/files\" }} }} }}\n"
    ));
    let bodies: Vec<Vec<u8>> = (0..REQUESTS)
        .map(|request| {
            let mut writer = otlp::Writer::new(otlp::Signal::Logs, otlp::WriteOptions::default());
            for n in 0..RECORDS {
                let line = format!(
                    "{{\"timestamp\":\"2026-11-28T01:02:03.{:09}Z\",\"severityNumber\":9,\"body\":\"request completed\",\"trace_id\":\"{:032x}\",\"span_id\":\"{:016x}\",\"attributes\":{{\"http.status_code\":200,\"latency_ms\":{},\"model\":\"m-{}\"}},\"resource\":{{\"service.name\":\"api\"}}}}",
                    n * 1000,
                    request * RECORDS + n + 1,
                    n + 1,
                    n % 900,
                    n % 32
                );
                writer.push(line.as_bytes()).expect("a log record");
            }
            writer.finish(otlp::Encoding::Protobuf)
        })
        .collect();
    let head = "POST /v1/logs HTTP/1.1\r\nContent-Type: application/x-protobuf";
    send(port, head, &bodies, RECORDS as u64, 1, &weir);
    let rate = send(port, head, &bodies, RECORDS as u64, 25, &weir);
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    let mb = rate / RECORDS as f64 * (bytes as f64 / REQUESTS as f64) / 1e6;
    println!(
        "OTLP logs in, whole program, memory hub, to an archive: {:.0} K records/s per core, {mb:.0} MB/s of bodies (aim 500 K)",
        rate / 1e3
    );
}
