//! Metrics, logs and traces of others: OTLP, remote write and scrapes, with the SDKs of OpenTelemetry and a real Prometheus.
//!
//! The far sides are started here, on loopback; what is not installed is skipped by name.

use crate::gateway::{listens, send};
use crate::harness::{Done, PATIENCE, Place, Running, http_get, skip, wait_until, works};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const OTLP: &str = "
sources: { far: { otlp: { grpc: \"127.0.0.1:0\", http: \"127.0.0.1:0\" } } }
tenancy: { from: [resource.tenant, labels.tenant] }
sinks: { store: { lake: { seal: { age: 1s } } } }
";

/// The addresses of a source with several listeners, in the order of `http`, `grpc`.
fn both(running: &Running) -> (String, String) {
    listens(running, "tcp");
    let said = running.stderr();
    let found: Vec<String> = said
        .lines()
        .filter(|line| line.contains("listening for records"))
        .filter_map(|line| Some(line.split_once("address=")?.1.trim().to_string()))
        .collect();
    (found[0].clone(), found[1].clone())
}

fn sql(place: &Place, statement: &str) -> Vec<Value> {
    let done = place.run(&["sql", statement, "--json"]).good();
    done.text().lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

fn count(place: &Place, table: &str) -> u64 {
    sql(place, &format!("SELECT count(*) AS n FROM {table}"))[0]["n"].as_u64().expect("a count")
}

fn otel(test: &str) -> Option<String> {
    let own = std::env::var("WEIR_OTEL_PYTHON").ok();
    let found = own
        .into_iter()
        .chain(["python3".to_string()])
        .find(|python| works(python, &["-c", "import opentelemetry.exporter.otlp.proto.grpc"]));
    if found.is_none() {
        skip(test, "needs opentelemetry-sdk for Python; tests/run gets it");
    }
    found
}

const SDK: &str = r#"
import json, logging, sys
mode, endpoint, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View, ExponentialBucketHistogramAggregation
if mode == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from grpc import Compression
    more = dict(endpoint=endpoint, insecure=True, compression=Compression.Gzip)
    exporters = [OTLPLogExporter(**more), OTLPSpanExporter(**more), OTLPMetricExporter(**more)]
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.exporter.otlp.proto.http import Compression
    at = lambda path: dict(endpoint=f"http://{endpoint}/v1/{path}", compression=Compression.Gzip)
    exporters = [OTLPLogExporter(**at("logs")), OTLPSpanExporter(**at("traces")), OTLPMetricExporter(**at("metrics"))]
resource = Resource.create({"service.name": "sdk", "tenant": "acme"})
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(exporters[0], max_queue_size=100000, max_export_batch_size=512))
traces = TracerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(exporters[1], max_queue_size=100000, max_export_batch_size=512))
reader = PeriodicExportingMetricReader(exporters[2], export_interval_millis=3600000)
views = [View(instrument_name="wide", aggregation=ExponentialBucketHistogramAggregation())]
meters = MeterProvider(resource=resource, metric_readers=[reader], views=views)
logger = logging.getLogger("sdk")
logger.setLevel(logging.DEBUG)
logger.addHandler(LoggingHandler(logger_provider=logs))
tracer, meter = traces.get_tracer("sdk", "1.0"), meters.get_meter("sdk")
requests = meter.create_counter("requests")
latency, wide = meter.create_histogram("latency", unit="ms"), meter.create_histogram("wide")
level = meter.create_up_down_counter("level")
ids = []
for i in range(n):
    with tracer.start_as_current_span(f"call-{i}") as span:
        ids.append(f"{span.get_span_context().trace_id:032x}")
        logger.error("line %d of %s", i, mode, extra={"n": i})
    requests.add(1, {"model": f"m-{i % 4}"})
    latency.record(i % 100, {"model": "m"})
    wide.record(0.5 + i)
    level.add(1 if i % 2 else -1)
good = [logs.force_flush(60000), traces.force_flush(60000), meters.force_flush(60000)]
print(json.dumps({"ids": ids, "good": good}))
sys.stdout.flush()
import os
os._exit(0)  # at its end the SDK would export once more
"#;

#[test]
fn sdks_of_opentelemetry_deliver_logs_metrics_and_traces_over_both_transports() {
    let Some(python) = otel("sdks_of_opentelemetry_deliver_logs_metrics_and_traces_over_both_transports") else { return };
    let place = Place::new();
    place.pipeline(OTLP);
    let mut running = place.start();
    let (http, grpc) = both(&running);
    let mut ids = BTreeSet::new();
    for (mode, address) in [("http", &http), ("grpc", &grpc)] {
        let mut command = Command::new(&python);
        command
            .arg("-c")
            .arg(SDK)
            .args([mode, address, "1000"])
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .env_remove("HTTP_PROXY");
        let said = crate::harness::finish(command).good().json();
        assert_eq!(said["good"], json!([true, true, true]), "{mode}: {}", running.stderr());
        ids.extend(said["ids"].as_array().expect("a list").iter().map(|id| id.as_str().expect("text").to_string()));
    }
    // A counter of four models, two histograms, one that goes up and down; twice.
    let points = 2 * (4 + 1 + 1 + 1);
    place.wait_received(&mut running, 2000 + 2000 + points);
    let in_tail = (count(&place, "logs"), count(&place, "traces"), count(&place, "metrics"));
    assert_eq!(in_tail, (2000, 2000, points));
    let one = ids.first().expect("some");
    let found = place.search(one);
    assert_eq!(found.len(), 1, "the log line of a span has its trace id");
    let line: Value = serde_json::from_slice(&found[0]).expect("JSON");
    assert_eq!((&line["resource"]["service.name"], &line["trace_id"]), (&json!("sdk"), &json!(one)), "{line}");
    running.stop();
    assert_eq!((count(&place, "logs"), count(&place, "traces"), count(&place, "metrics")), in_tail, "and when it is sealed");
    let models = sql(&place, "SELECT labels, sum(value) AS n FROM metrics WHERE metric = 'requests' GROUP BY labels ORDER BY labels");
    let sums: Vec<f64> = models.iter().map(|row| row["n"].as_f64().expect("a number")).collect();
    assert_eq!(sums, [500.0; 4], "{models:?}");
    let tenants = sql(&place, "SELECT DISTINCT tenant FROM traces");
    assert_eq!(tenants, [json!({"tenant": "acme"})]);
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!((ledger.difference("store"), ledger.kept()), (0, 4000 + points));
}

fn log_request(ids: &[String]) -> String {
    let records: Vec<Value> = ids
        .iter()
        .map(|id| json!({"timeUnixNano": "1764291723123456789", "severityNumber": 9, "body": {"stringValue": format!("line {id}")}, "traceId": id}))
        .collect();
    let resource = json!({"attributes": [{"key": "tenant", "value": {"stringValue": "acme"}}]});
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}).to_string()
}

const JSON_TYPE: &[(&str, &str)] = &[("Content-Type", "application/json")];

#[test]
fn a_part_that_is_invalid_is_refused_with_its_count_and_the_rest_is_kept() {
    let place = Place::new();
    place.pipeline(OTLP);
    let mut running = place.start();
    let (http, _) = both(&running);
    let ids: Vec<String> = (1..=10).map(|n| if n % 5 == 0 { "abc".to_string() } else { format!("{n:032x}") }).collect();
    let answer = send(&http, "POST /v1/logs", JSON_TYPE, log_request(&ids));
    let told: Value = serde_json::from_str(answer.body()).expect("JSON");
    assert_eq!((answer.status, told["partialSuccess"]["rejectedLogRecords"].as_str()), (200, Some("2")), "{told}");
    assert!(told["partialSuccess"]["errorMessage"].as_str().is_some_and(|text| text.contains("trace id")), "{told}");
    place.wait_received(&mut running, 8);
    let empty = send(&http, "POST /v1/traces", JSON_TYPE, "{}");
    assert_eq!((empty.status, empty.body().trim()), (200, "{}"), "an empty request succeeds");
    for (path, kind, body, status) in [
        ("/v1/logs", "application/json", "{\"resourceLogs\":", 400),
        ("/v1/logs", "application/x-protobuf", "no protobuf", 400),
        ("/v1/logs", "text/html", "<html>", 415),
        ("/v1/other", "application/json", "{}", 404),
    ] {
        let answer = send(&http, &format!("POST {path}"), &[("Content-Type", kind)], body);
        assert_eq!(answer.status, status, "{path} {kind}: {}", answer.body());
    }
    let bomb = gzip_of_zeros(64 << 20);
    let answer = send(&http, "POST /v1/logs", &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")], bomb);
    assert_eq!(answer.status, 413, "{}", answer.body());
    assert_eq!(count(&place, "logs"), 8);
    running.stop();
}

fn gzip_of_zeros(len: usize) -> Vec<u8> {
    let mut encoder = Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip is there");
    let mut input = encoder.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || input.write_all(&vec![0; len]));
    let mut packed = Vec::new();
    encoder.stdout.take().expect("piped").read_to_end(&mut packed).expect("read");
    writer.join().expect("no panic").expect("written");
    encoder.wait().expect("it ends");
    packed
}

#[test]
fn a_killed_weir_has_everything_that_it_acknowledged() {
    let place = Place::new();
    place.pipeline(OTLP);
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    for round in 0..4u64 {
        let mut running = place.start();
        let (http, _) = both(&running);
        let sent = Arc::new(Mutex::new(BTreeSet::new()));
        let sender = {
            let sent = Arc::clone(&sent);
            std::thread::spawn(move || {
                for n in 0..10_000u64 {
                    let ids: Vec<String> = (1..=7).map(|i| format!("{:032x}", (round << 40) | (n << 8) | i)).collect();
                    let Ok(answer) = crate::gateway::try_send(&http, "POST /v1/logs", JSON_TYPE, log_request(&ids).as_bytes()) else {
                        return;
                    };
                    if answer.status == 200 {
                        sent.lock().expect("no panic").extend(ids);
                    }
                }
            })
        };
        let enough = 50 + 70 * round as usize;
        wait_until("some are acknowledged", || sent.lock().expect("no panic").len() > enough);
        running.child().kill().expect("it runs");
        running.wait();
        sender.join().expect("no panic");
        acknowledged.extend(sent.lock().expect("no panic").iter().cloned());
    }
    let stored = sql(&place, "SELECT DISTINCT trace_id FROM logs");
    let stored: BTreeSet<String> = stored.iter().map(|row| row["trace_id"].as_str().expect("an id").to_string()).collect();
    let lost: Vec<&String> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty() && acknowledged.len() > 400, "{} of {} are lost", lost.len(), acknowledged.len());
}

/// A target whose page the test writes, and the requests that it got.
struct Exporter {
    address: String,
    page: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Exporter {
    fn start(text: &str) -> Exporter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let page = Arc::new(Mutex::new((200, text.to_string())));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shown, heard) = (Arc::clone(&page), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (shown, heard) = (Arc::clone(&shown), Arc::clone(&heard));
                std::thread::spawn(move || {
                    let mut buffer = Vec::new();
                    let mut piece = [0; 4096];
                    loop {
                        while !buffer.windows(4).any(|end| end == b"\r\n\r\n") {
                            match stream.read(&mut piece) {
                                Ok(n @ 1..) => buffer.extend_from_slice(&piece[..n]),
                                _ => return,
                            }
                        }
                        let end = buffer.windows(4).position(|end| end == b"\r\n\r\n").expect("just seen") + 4;
                        heard.lock().expect("no panic").push(String::from_utf8_lossy(&buffer[..end]).into_owned());
                        buffer.drain(..end);
                        let (status, text) = shown.lock().expect("no panic").clone();
                        let kind = match text.ends_with("# EOF\n") {
                            true => "application/openmetrics-text; version=1.0.0",
                            false => "text/plain; version=0.0.4",
                        };
                        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", text.len());
                        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Exporter { address, page, asked }
    }

    fn show(&self, status: u16, text: &str) {
        *self.page.lock().expect("no panic") = (status, text.to_string());
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }

    /// Waits until what is shown now was asked for, twice.
    fn wait_asked(&self) {
        let before = self.asked();
        wait_until("it is scraped", || self.asked() >= before + 2);
    }
}

fn values(place: &Place, query: &str) -> BTreeMap<String, String> {
    let text = place.run(&["metrics", query]).good().text();
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, value)| (series.to_string(), value.to_string())).collect()
}

#[test]
fn a_target_is_scraped_and_its_series_end_when_it_fails() {
    let exporter = Exporter::start("# TYPE req counter\nreq{a=\"1\",job=\"own\"} 3\nreq{a=\"2\"} 4.5\n");
    let place = Place::new();
    place.pipeline(&format!(
        "sources: {{ job: {{ scrape: {{ targets: [\"{}\"], interval: 1s, timeout: 500ms, target_labels: {{ env: prod }}, metric_relabel: [{{ source_labels: [a], regex: \"9\", action: drop }}] }} }} }}\ntenancy: {{ from: [labels.env] }}\nsinks: {{ store: {{ lake: {{ seal: {{ age: 2s }} }} }} }}\n",
        exporter.address
    ));
    let mut running = place.start();
    place.wait_received(&mut running, 7);
    exporter.wait_asked();
    let instance = &exporter.address;
    let series = |a: &str, exported: &str| {
        format!("req{{a=\"{a}\", env=\"prod\", {exported}instance=\"{instance}\", job=\"job\", tenant=\"prod\"}}")
    };
    wait_until("both series are there", || values(&place, "req").len() == 2);
    let seen = values(&place, "req");
    assert_eq!(seen.get(&series("1", "exported_job=\"own\", ")).map(String::as_str), Some("3"), "{seen:?}");
    assert_eq!(seen.get(&series("2", "")).map(String::as_str), Some("4.5"), "{seen:?}");
    assert_eq!(values(&place, "up").into_values().collect::<Vec<_>>(), ["1"]);
    exporter.show(200, "# TYPE req counter\nreq{a=\"1\",job=\"own\"} 4\nreq{a=\"9\"} 1\n");
    wait_until("a series that is gone has ended", || values(&place, "req").len() == 1);
    exporter.show(404, "not here");
    wait_until("a failed scrape ends all", || values(&place, "req").is_empty());
    assert_eq!(values(&place, "up").into_values().collect::<Vec<_>>(), ["0"]);
    for (page, what) in
        [("<html><body>login</body></html>", "HTML"), ("req{a=\"1\" 3\n", "broken"), ("req 1\nreq{a=\"2\"} x\n", "no number")]
    {
        exporter.show(200, page);
        exporter.wait_asked();
        assert!(values(&place, "req").is_empty(), "{what}: a scrape counts as a whole");
    }
    let asked = exporter.asked.lock().expect("no panic")[0].to_lowercase();
    assert!(
        asked.contains("accept: application/openmetrics-text") && asked.contains("x-prometheus-scrape-timeout-seconds: 0.5"),
        "{asked}"
    );
    running.stop();
    let ledger = place.recount();
    ledger.assert_settled();
    assert_eq!(ledger.difference("store"), 0);
}

fn prometheus(test: &str) -> bool {
    let is_there = works("prometheus", &["--version"]);
    if !is_there {
        skip(test, "needs prometheus; tests/run gets it");
    }
    is_there
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

fn start_prometheus(place: &Place, config: &str) -> (Running, String) {
    place.write("prometheus.yml", config);
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", place.path("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", place.path("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--web.enable-remote-write-receiver")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut running = Running::spawn(command);
    let since = Instant::now();
    loop {
        let is_ready = std::net::TcpStream::connect(&address).is_ok() && http_get(&address, "/-/ready").0 == 200;
        if is_ready {
            return (running, address);
        }
        assert!(running.is_running() && since.elapsed() < PATIENCE, "Prometheus does not start:\n{}", running.stderr());
        std::thread::yield_now();
    }
}

/// Raw samples as Prometheus has them: labels to (ms, value).
fn samples_of(address: &str, query: &str) -> BTreeMap<String, Vec<(i64, String)>> {
    let encoded: String =
        query.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
    let (status, body) = http_get(address, &format!("/api/v1/query?query={encoded}"));
    assert_eq!(status, 200, "{body}");
    let start = body.find('{').expect("JSON");
    let end = body.rfind('}').expect("JSON");
    let answer: Value = serde_json::from_str(&body[start..=end]).expect("JSON");
    let series = answer["data"]["result"].as_array().expect("a matrix").iter();
    series
        .map(|series| {
            let labels: BTreeMap<String, String> = serde_json::from_value(series["metric"].clone()).expect("labels");
            let points = series["values"].as_array().expect("values").iter();
            let points = points
                .map(|point| ((point[0].as_f64().expect("a time") * 1000.0).round() as i64, point[1].as_str().expect("text").to_string()));
            (format!("{labels:?}"), points.collect())
        })
        .collect()
}

/// The same as weir has them.
fn samples_in(place: &Place, query: &str, without: &[&str]) -> BTreeMap<String, Vec<(i64, String)>> {
    let done: Done = place.run(&["metrics", query, "--since", "1h", "--json"]).good();
    done.text()
        .lines()
        .map(|line| {
            let series: Value = serde_json::from_str(line).expect("JSON");
            let mut labels: BTreeMap<String, String> = serde_json::from_value(series["labels"].clone()).expect("labels");
            without.iter().for_each(|name| drop(labels.remove(*name)));
            let points = series["points"].as_array().expect("points").iter().map(|point| {
                let at = point[0].as_str().expect("a time");
                let nanos = ms_of(at);
                let value = point[1].as_f64().map_or_else(|| point[1].as_str().unwrap_or_default().to_string(), |value| value.to_string());
                (nanos, value)
            });
            (format!("{labels:?}"), points.collect())
        })
        .collect()
}

/// Milliseconds of an RFC 3339 time in UTC, worked out without the program's own code.
fn ms_of(text: &str) -> i64 {
    let done = Command::new("date").args(["-u", "-d", text, "+%s%3N"]).output().expect("date is there");
    String::from_utf8_lossy(&done.stdout).trim().parse().expect("a number")
}

#[test]
fn a_real_prometheus_is_written_to_writes_and_scrapes() {
    let test = "a_real_prometheus_is_written_to_writes_and_scrapes";
    if !prometheus(test) {
        return;
    }
    let exporter = Exporter::start(
        "# TYPE req counter\nreq{a=\"1\"} 1\nreq{a=\"2\"} 2.5\n# TYPE odd gauge\nodd{x=\"a\\\\b\\\"c\\nd\"} NaN\nodd{x=\"inf\"} +Inf\n",
    );
    let (receives, shows) = (free_port(), free_port());
    let place = Place::new();
    let far = Place::new();
    let (mut prometheus, address) = start_prometheus(
        &far,
        &format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: shown\n  static_configs: [{{ targets: ['127.0.0.1:{shows}'] }}]\n- job_name: far\n  static_configs: [{{ targets: ['{}'] }}]\nremote_write:\n- url: http://127.0.0.1:{receives}/api/v1/write\n  queue_config: {{ batch_send_deadline: 200ms }}\n  write_relabel_configs: [{{ source_labels: [job], regex: far, action: keep }}]\n",
            exporter.address
        ),
    );
    place.pipeline(&format!(
        "sources:\n  near: {{ scrape: {{ targets: [\"{}\"], interval: 1s, timeout: 900ms }} }}\n  written: {{ remote_write: {{ listen: \"127.0.0.1:{receives}\" }} }}\ntenancy: {{ from: [labels.job] }}\nsinks:\n  store: {{ lake: {{ seal: {{ age: 2s }} }} }}\n  far: {{ remote_write: {{ url: \"http://{address}\", when: 'labels.job == \"near\"', batch: {{ age: 100ms }} }} }}\n  shown: {{ prometheus: {{ listen: \"127.0.0.1:{shows}\", when: 'labels.job == \"near\"' }} }}\n",
        exporter.address
    ));
    let running = place.start();
    wait_until("Prometheus writes to weir", || {
        assert!(prometheus.is_running(), "{}", prometheus.stderr());
        place.run(&["metrics", "req{job=\"far\"}"]).code == Some(0) && values(&place, "req{job=\"far\"}").len() == 2
    });
    wait_until("weir writes to Prometheus", || samples_of(&address, "req{job=\"near\"}[10m]").len() == 2);
    // Labels of what weir shows are `exported_` there, so these are other series than those that it writes.
    wait_until("Prometheus scrapes weir", || samples_of(&address, "req{exported_job=\"near\"}[10m]").len() == 2);
    (0..2).for_each(|_| exporter.wait_asked());
    exporter.show(200, "# TYPE req counter\nreq{a=\"1\"} 3\n");
    wait_until("a series has ended in both", || {
        let (near, far) = (values(&place, "req{job=\"near\"}"), values(&place, "req{job=\"far\"}"));
        near.len() == 1 && far.len() == 1 && samples_of(&address, "req{a=\"2\",job=\"near\"}[1s]").is_empty()
    });
    running.stop();
    // What weir scraped and wrote, and what Prometheus scraped and wrote, is in both, sample for sample.
    for job in ["near", "far"] {
        for metric in ["req", "odd", "up"] {
            let query = format!("{metric}{{job=\"{job}\"}}");
            let there = samples_of(&address, &format!("{query}[10m]"));
            let here = samples_in(&place, &query, &["tenant"]);
            assert!(!there.is_empty() && there.keys().eq(here.keys()), "{query}: {there:?}\n{here:?}");
            for (series, ours) in &here {
                let theirs = &there[series];
                // Either side may have one more at its end: weir stopped while Prometheus went on.
                let common: Vec<&(i64, String)> = ours.iter().filter(|point| theirs.last().is_some_and(|last| point.0 <= last.0)).collect();
                let expected: Vec<&(i64, String)> =
                    theirs.iter().filter(|point| ours.last().is_some_and(|last| point.0 <= last.0)).collect();
                assert_eq!(common, expected, "{series}");
                assert!(common.len() >= 2, "{series}: {ours:?}");
            }
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_page_of_metrics() {
    let test = "promtool_finds_nothing_wrong_with_the_page_of_metrics";
    if !works("promtool", &["--version"]) {
        return skip(test, "needs promtool; tests/run gets it");
    }
    let place = Place::new();
    place.pipeline("admin: { listen: \"127.0.0.1:0\" }\nsources: { app: { file: { include: [\"$DIR/in/*.log\"] } } }\nsinks: { store: { lake: {} } }\n");
    place.append("in/a.log", "{\"tenant\":\"a\",\"level\":\"info\",\"msg\":\"x\"}\n");
    let mut running = place.start();
    let address = crate::harness::admin_address(&running);
    place.wait_received(&mut running, 1);
    let page = http_get(&address, "/metrics").1;
    let mut command = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    command.stdin.take().expect("piped").write_all(page.as_bytes()).expect("written");
    let done = command.wait_with_output().expect("it ends");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.trim().is_empty(), "{said}\n{page}");
    running.stop();
}

/// A page of 32 models, each with a histogram but for those of `lost`.
fn models(lost: &[usize]) -> String {
    let mut page = String::from("# TYPE request_seconds histogram\n");
    for model in (0..32).filter(|model| !lost.contains(model)) {
        for (le, n) in [("0.1", 3), ("+Inf", 5)] {
            page.push_str(&format!("request_seconds_bucket{{model=\"m{model}\",le=\"{le}\"}} {n}\n"));
        }
        page.push_str(&format!("request_seconds_sum{{model=\"m{model}\"}} 1.5\nrequest_seconds_count{{model=\"m{model}\"}} 5\n"));
    }
    (0..32).for_each(|model| page.push_str(&format!("requests_total{{model=\"m{model}\"}} 5\n")));
    page
}

#[test]
fn a_model_that_loses_its_histogram_is_named() {
    let exporter = Exporter::start(&models(&[]));
    let place = Place::new();
    place.pipeline(&format!(
        "sources:\n  models: {{ scrape: {{ targets: [\"{}\"], interval: 1s, timeout: 900ms }} }}\n  alerts:\n    watch:\n      rules:\n        silent: {{ missing_from: {{ metric: request_seconds_count, by: [model], preceding: 5s }}, interval: 1s, within: 3 }}\n        gone: {{ absent: request_seconds_count, interval: 1s }}\nsinks: {{ store: {{ lake: {{ seal: {{ age: 1s }} }} }} }}\n",
        exporter.address
    ));
    let running = place.start();
    wait_until("all models are there", || {
        place.run(&["metrics", "request_seconds_count"]).code == Some(0) && values(&place, "request_seconds_count").len() == 32
    });
    // The window before an alert is five scrapes long.
    (0..5).for_each(|_| exporter.wait_asked());
    assert!(place.search("event:missing").is_empty(), "nothing is missing yet");
    let since = Instant::now();
    exporter.show(200, &models(&[7]));
    wait_until("the alert", || !place.search("event:missing state:firing").is_empty());
    // Two intervals, a scrape that was under way, and the machine.
    assert!(since.elapsed().as_secs() < 15, "{:?}", since.elapsed());
    let events: Vec<Value> = place.search("event:missing").iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    assert!(events.iter().all(|event| event["rule"] == "silent" && event["member"] == "m7"), "it alone, by name: {events:?}");
    wait_until("its series", || values(&place, "weir_missing").len() == 1);
    assert!(values(&place, "weir_missing").keys().next().is_some_and(|series| series.contains("model=\"m7\"")));
    exporter.show(200, &models(&[]));
    wait_until("the alert ends", || !place.search("event:missing member:m7 state:resolved").is_empty());
    wait_until("its series ends", || values(&place, "weir_missing").is_empty());
    running.stop();
    place.recount().assert_settled();
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: { name: infer }
spec:
  selector: { matchLabels: { app: infer } }
  template:
    metadata:
      labels: { app: infer }
    spec:
      containers:
      - name: server
        args: [--metrics-path=/v2/metrics]
        ports: [{ name: metrics, containerPort: 8002 }]
---
apiVersion: v1
kind: Service
metadata: { name: infer, labels: { app: infer } }
spec:
  selector: { app: infer }
  ports: [{ name: metrics, port: 8002 }]
";

fn monitor(path: &str) -> String {
    format!(
        "apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {{ name: infer }}\nspec:\n  selector: {{ matchLabels: {{ app: infer }} }}\n  endpoints:\n  - port: metrics\n    path: {path}\n"
    )
}

#[test]
fn a_scrape_that_will_not_find_its_metrics_is_found_in_the_manifests() {
    let place = Place::new();
    place.write("k8s/infer/deployment.yaml", DEPLOYMENT);
    place.write("k8s/monitor.yml", monitor("/metrics"));
    place.write("k8s/README.md", "no manifest");
    let folder = place.path("k8s");
    let folder = folder.to_str().expect("text");
    let check = |more: &[&str]| {
        let mut command = crate::harness::weir();
        command.args(["check", "exporters", folder]).args(more);
        crate::harness::finish(command)
    };
    let wrong = check(&[]).exits(1).text();
    assert!(wrong.contains("monitor.yml:8:") && wrong.contains("/v2/metrics") && wrong.contains("deployment.yaml:12:"), "{wrong}");
    let told: Value = check(&["--json"]).exits(1).json();
    assert_eq!((&told["findings"][0]["line"], &told["findings"][0]["severity"]), (&json!(8), &json!("error")), "{told}");
    place.write("k8s/monitor.yml", monitor("/v2/metrics"));
    let good = check(&[]).good().text();
    assert!(good.contains("0 errors"), "{good}");
    let exporter = Exporter::start("<html>login</html>");
    let probed = check(&["--probe-at", &exporter.address]).exits(1).text();
    assert!(probed.contains("HTML"), "{probed}");
    place.write("k8s/broken.yaml", "a: [1\nb: }");
    let broken = check(&[]).exits(2).text();
    assert!(broken.contains("broken.yaml:"), "{broken}");
    let mut nowhere = crate::harness::weir();
    nowhere.args(["check", "exporters", "/nonexistent/folder"]);
    crate::harness::finish(nowhere).exits(2);
}

#[test]
fn own_numbers_are_the_same_by_pull_and_by_push() {
    let (far, near) = (Place::new(), Place::new());
    far.pipeline(OTLP);
    let mut there = far.start();
    let (http, _) = both(&there);
    near.pipeline(&format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\ntelemetry: {{ otlp: \"http://{http}\", interval: 1s, spans: 1 }}\nsources: {{ app: {{ file: {{ include: [\"$DIR/in/*.log\"] }} }} }}\nsinks: {{ store: {{ lake: {{ seal: {{ age: 500ms }} }} }} }}\n"
    ));
    near.append("in/a.log", "{\"tenant\":\"a\",\"level\":\"info\",\"msg\":\"x\"}\n".repeat(1234));
    let mut here = near.start();
    let address = crate::harness::admin_address(&here);
    near.wait_ledger(&mut here, "delivered", |ledger| ledger.received() == 1234 && ledger.sink("store", "delivered") == 1234);
    let page = http_get(&address, "/metrics").1;
    let names = ["weir_records_total", "weir_received_records_total", "weir_read_bytes_total", "weir_kept_records_total"];
    let pulled: Vec<(&str, i64)> = names.map(|name| (name, crate::harness::metric(&page, name, ""))).to_vec();
    here.stop();
    far.wait_ledger(&mut there, "a push", |ledger| ledger.received() > 0);
    for (name, pulled) in pulled.iter().filter(|(_, pulled)| *pulled > 0) {
        let pushed: f64 = values(&far, name).values().map(|value| value.parse::<f64>().expect("a number")).sum();
        assert_eq!(pushed as i64, *pulled, "{name}");
    }
    assert!(pulled.iter().filter(|(_, n)| *n > 0).count() >= 2, "{pulled:?}\n{page}");
    let spans = sql(&far, "SELECT raw FROM traces");
    assert!(!spans.is_empty(), "a delivery is a span");
    there.stop();
}

/// A varint of protobuf, and fields made of it: written here, so that the program's own writer is not its judge.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn bytes_field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A series of `prometheus.WriteRequest`.
fn series_v1(labels: &[(&str, &str)], samples: &[(f64, u64)]) -> Vec<u8> {
    let label =
        |(name, value): &(&str, &str)| bytes_field(1, &[bytes_field(1, name.as_bytes()), bytes_field(2, value.as_bytes())].concat());
    let sample = |(value, at): &(f64, u64)| {
        bytes_field(2, &[varint(1 << 3 | 1), value.to_le_bytes().to_vec(), varint(2 << 3), varint(*at)].concat())
    };
    bytes_field(1, &[labels.iter().flat_map(label).collect::<Vec<u8>>(), samples.iter().flat_map(sample).collect()].concat())
}

/// A block of snappy that holds everything as it is.
fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(bytes.len() as u64);
    for piece in bytes.chunks(60) {
        out.push(((piece.len() - 1) as u8) << 2);
        out.extend_from_slice(piece);
    }
    out
}

const AT: u64 = 1_764_291_723_123;

#[test]
fn remote_write_says_what_it_wrote_and_names_what_it_refuses() {
    let place = Place::new();
    place.pipeline("sources: { far: { remote_write: { listen: \"127.0.0.1:0\", body_bytes_max: 64KiB } } }\ntenancy: { from: [labels.team] }\nsinks: { store: { lake: {} } }\n");
    let mut running = place.start();
    let address = listens(&running, "tcp");
    let head = "POST /api/v1/write";
    let v1: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let good = series_v1(&[("__name__", "up"), ("team", "a")], &[(1.0, AT), (f64::NAN, AT + 1000), (stale, AT + 2000)]);
    let answer = send(&address, head, v1, snappy(&good));
    assert_eq!((answer.status, answer.header("x-prometheus-remote-write-samples-written")), (204, Some("3")), "{}", answer.body());
    let unsorted = series_v1(&[("team", "a"), ("__name__", "up")], &[(1.0, AT)]);
    let empty = series_v1(&[("__name__", "down"), ("team", "")], &[(1.0, AT), (2.0, AT + 1)]);
    let valid = series_v1(&[("__name__", "still"), ("team", "b")], &[(7.5, AT)]);
    let answer = send(&address, head, v1, snappy(&[unsorted, empty, valid].concat()));
    assert_eq!((answer.status, answer.header("x-prometheus-remote-write-samples-written")), (400, Some("1")), "{}", answer.body());
    assert!(answer.body().contains("1 labels_not_sorted") && answer.body().contains("2 empty_label_value"), "{}", answer.body());
    let bomb = [varint(1 << 30), vec![0xfe; 100]].concat();
    for (headers, body, status) in [
        (v1, b"no snappy".to_vec(), 400),
        (v1, snappy(b"no protobuf"), 400),
        (v1, bomb, 413),
        (v1, snappy(&vec![0; 100_000]), 413),
        (&[("Content-Type", "application/json"), ("Content-Encoding", "snappy")][..], snappy(&good), 415),
        (&[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")], snappy(&good), 415),
        (
            &[("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v3.Request"), ("Content-Encoding", "snappy")],
            snappy(&good),
            415,
        ),
    ] {
        let answer = send(&address, head, headers, &body);
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.body());
        assert!(answer.body().len() > 20, "it says why: {}", answer.body());
    }
    assert_eq!(send(&address, "GET /api/v1/write", v1, "").status, 405);
    // 2.0 of the same: symbols, references and a sample.
    let symbols: Vec<u8> = ["", "__name__", "two", "team", "a"].iter().flat_map(|text| bytes_field(4, text.as_bytes())).collect();
    let sample = bytes_field(2, &[varint(1 << 3 | 1), 2.5f64.to_le_bytes().to_vec(), varint(2 << 3), varint(AT)].concat());
    let series = bytes_field(5, &[bytes_field(1, &[1, 2, 3, 4]), sample].concat());
    let v2: &[(&str, &str)] =
        &[("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"), ("Content-Encoding", "snappy")];
    let answer = send(&address, head, v2, snappy(&[symbols, series].concat()));
    assert_eq!((answer.status, answer.header("x-prometheus-remote-write-samples-written")), (204, Some("1")), "{}", answer.body());
    place.wait_received(&mut running, 5);
    running.stop();
    let rows = sql(&place, "SELECT tenant, metric, value FROM metrics ORDER BY metric, time");
    let shown: Vec<String> = rows.iter().map(|row| format!("{} {} {}", row["tenant"], row["metric"], row["value"])).collect();
    assert_eq!(shown.len(), 5, "{shown:?}");
    assert_eq!(shown[..2], ["\"b\" \"still\" 7.5", "\"a\" \"two\" 2.5"]);
    place.recount().assert_settled();
}

/// Answers every request the same way: `head`, then `piece` until the other side goes.
fn answers_with(head: &'static str, piece: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                if stream.write_all(head.as_bytes()).is_ok() {
                    while !piece.is_empty() && stream.write_all(piece).is_ok() {}
                    while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {} // it stays open until the other side goes
                }
            });
        }
    });
    address
}

#[test]
fn a_target_that_answers_badly_is_down_and_the_reason_is_counted() {
    const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
    let endless: &'static [u8] = &b"a_metric{x=\"y\"} 1\n".repeat(1000).leak()[..];
    let zeros: &'static [u8] = gzip_of_zeros(1 << 20).leak();
    let bomb: &'static str = format!("{TEXT}Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", zeros.len()).leak();
    let once = TcpListener::bind("127.0.0.1:0").expect("a port");
    let packed = once.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in once.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bomb.as_bytes()).and_then(|()| stream.write_all(zeros));
        }
    });
    let nobody = format!("127.0.0.1:{}", free_port());
    let cases = [
        ("failed_body_size", answers_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n", endless)),
        ("failed_body", packed),
        ("failed_content_type", answers_with("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n", b"")),
        ("failed_content_type", answers_with("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\na 1\n", b"")),
        ("failed_status", answers_with("HTTP/1.1 500 X\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 4\r\n\r\na 1\n", b"")),
        (
            "failed_timeout",
            answers_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 400\r\n\r\na 1\n", b""),
        ),
        ("failed_connect", nobody),
    ];
    let targets: Vec<String> = cases.iter().map(|(_, address)| format!("\"{address}\"")).collect();
    let place = Place::new();
    place.pipeline(&format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\nsources: {{ bad: {{ scrape: {{ targets: [{}], interval: 1s, timeout: 500ms, body_bytes_max: 64KiB, buffer_bytes_max: 1MiB }} }} }}\nsinks: {{ store: {{ lake: {{}} }} }}\n",
        targets.join(", ")
    ));
    let running = place.start();
    let address = crate::harness::admin_address(&running);
    let counted = || -> Value { serde_json::from_str(&http_get(&address, "/api/sources").1).expect("JSON") };
    wait_until("each has failed by name", || {
        let results = counted()["sources"][0]["results"].clone();
        cases.iter().all(|(reason, _)| results[*reason].as_u64() > Some(0)) && results["failed_content_type"].as_u64() > Some(1)
    });
    wait_until("all are down", || values(&place, "up").len() == cases.len());
    assert!(values(&place, "up").values().all(|value| value == "0"));
    assert!(values(&place, "a_metric").is_empty() && running.peak_bytes() < 200 << 20);
    running.stop();
}

#[test]
fn what_is_shown_is_shown_as_it_is_asked_for() {
    let exporter = Exporter::start(
        "# TYPE req counter\nreq{a=\"x\\\\y\\\"z\\n\"} 3\n# TYPE wait histogram\nwait_bucket{le=\"0.5\"} 1\nwait_bucket{le=\"10\"} 1\nwait_bucket{le=\"9\"} 1\nwait_bucket{le=\"+Inf\"} 2\nwait_sum 1.5\nwait_count 2\n",
    );
    let port = free_port();
    let place = Place::new();
    place.pipeline(&format!(
        "sources: {{ near: {{ scrape: {{ targets: [\"{}\"], interval: 1s, timeout: 900ms }} }}, far: {{ otlp: {{ grpc: \"\", http: \"127.0.0.1:0\" }} }} }}\nsinks: {{ shown: {{ prometheus: {{ listen: \"127.0.0.1:{port}\" }} }} }}\n",
        exporter.address
    ));
    let running = place.start();
    let address = format!("127.0.0.1:{port}");
    let page = |accept: &str| {
        let answer = send(&address, "GET /metrics", &[("Accept", accept)], "");
        (answer.status, answer.header("content-type").unwrap_or_default().to_string(), answer.body().to_string())
    };
    wait_until("it is shown", || std::net::TcpStream::connect(&address).is_ok() && page("").2.contains("wait_count"));
    let (status, kind, text) = page("text/plain;version=0.0.4");
    assert_eq!((status, kind.split("; escaping").next()), (200, Some("text/plain; version=0.0.4; charset=utf-8")), "{kind}");
    assert!(text.contains("# TYPE req counter\n") && text.contains(r#"req{a="x\\y\"z\n","#), "{text}");
    assert!(text.contains("# TYPE wait histogram\n") && text.contains("wait_bucket{") && !text.contains("# EOF"), "{text}");
    let bounds: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("wait_bucket{")?.split("le=\"").nth(1)?.split('"').next()).collect();
    assert_eq!(bounds, ["0.5", "9.0", "10.0", "+Inf"]);
    let point = "\"startTimeUnixNano\":\"1764291700000000000\",\"timeUnixNano\":\"1764291723000000000\",\"count\":\"3\",\"sum\":7.5,\"explicitBounds\":[2],\"bucketCounts\":[\"1\",\"2\"]";
    let body = format!(
        "{{\"resourceMetrics\":[{{\"scopeMetrics\":[{{\"metrics\":[{{\"name\":\"far.wait\",\"unit\":\"s\",\"histogram\":{{\"aggregationTemporality\":2,\"dataPoints\":[{{{point}}}]}}}}]}}]}}]}}"
    );
    assert_eq!(send(&listens(&running, "tcp"), "POST /v1/metrics", &[("Content-Type", "application/json")], body).status, 200);
    wait_until("a histogram of OTLP is shown", || page("").2.contains("far_wait_seconds_count"));
    let text = page("text/plain;version=0.0.4").2;
    let of_far: Vec<&str> = text.lines().filter(|line| line.contains("far_wait") && !line.starts_with("# HELP")).collect();
    assert_eq!(
        of_far,
        [
            "# TYPE far_wait_seconds histogram",
            "far_wait_seconds_bucket{le=\"2\"} 1",
            "far_wait_seconds_bucket{le=\"+Inf\"} 3",
            "far_wait_seconds_count 3",
            "far_wait_seconds_sum 7.5"
        ],
        "{text}"
    );
    exporter.show(200, "# TYPE seen counter\nseen_total 1 # {trace_id=\"ab\"} 0.5 1764291723\n# EOF\n");
    wait_until("an exemplar is shown", || {
        page("application/openmetrics-text;version=1.0.0").2.contains("# {trace_id=\"ab\"} 0.5 1764291723")
    });
    let (_, kind, text) = page("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0; charset=utf-8") && text.ends_with("# EOF\n"), "{kind}\n{text}");
    let (_, kind, _) =
        page("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;q=0.3");
    assert!(kind.starts_with("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"), "{kind}");
    exporter.show(200, "# TYPE req counter\nreq{a=\"other\"} 4\n");
    wait_until("a series that has ended is not shown", || {
        let text = page("").2;
        text.contains("other") && !text.contains("wait_count")
    });
    running.stop();
}

/// OTLP from one weir to another by gRPC: each signal in its table, and the trace of a request goes on in metadata (EB 4.5).
#[test]
fn otlp_goes_on_by_grpc() {
    let (far, near) = (Place::new(), Place::new());
    far.pipeline(&OTLP.replace("http: \"127.0.0.1:0\" }", "http: \"127.0.0.1:0\", trace_context: true }"));
    let mut taking = far.start();
    let (_, grpc) = both(&taking);
    near.pipeline(&format!(
        "sources: {{ in: {{ otlp: {{ grpc: \"127.0.0.1:0\", http: \"127.0.0.1:0\", trace_context: true }} }} }}\ntenancy: {{ from: [resource.tenant] }}\nsinks: {{ far: {{ otlp: {{ url: \"http://{grpc}\", protocol: grpc, trace_context: true, batch: {{ age: 100ms }}, retry: {{ pause_min: 1ms, pause_max: 50ms }} }} }} }}\n"
    ));
    let mut sending = near.start();
    let (http, _) = both(&sending);
    const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";
    let at = "\"timeUnixNano\":\"1764291723000000000\"";
    let resource = "\"resource\":{\"attributes\":[{\"key\":\"tenant\",\"value\":{\"stringValue\":\"acme\"}}]}";
    for (path, body) in [
        (
            "logs",
            format!(
                "{{\"resourceLogs\":[{{{resource},\"scopeLogs\":[{{\"logRecords\":[{{{at},\"body\":{{\"stringValue\":\"hello\"}}}}]}}]}}]}}"
            ),
        ),
        (
            "metrics",
            format!(
                "{{\"resourceMetrics\":[{{{resource},\"scopeMetrics\":[{{\"metrics\":[{{\"name\":\"m\",\"gauge\":{{\"dataPoints\":[{{{at},\"asDouble\":2.5}}]}}}}]}}]}}]}}"
            ),
        ),
        (
            "traces",
            format!(
                "{{\"resourceSpans\":[{{{resource},\"scopeSpans\":[{{\"spans\":[{{\"traceId\":\"{}\",\"spanId\":\"{}\",\"name\":\"s\",\"startTimeUnixNano\":\"1764291723000000000\",\"endTimeUnixNano\":\"1764291723000000009\"}}]}}]}}]}}",
                "ab".repeat(16),
                "cd".repeat(8)
            ),
        ),
    ] {
        let headers = [("content-type", "application/json"), ("traceparent", PARENT)];
        let answer = send(&http, &format!("POST /v1/{path}"), &headers, body);
        assert_eq!(answer.status, 200, "{}", answer.body());
    }
    let ledger = near.wait_ledger(&mut sending, "all are delivered", |ledger| ledger.sink("far", "delivered") == 3);
    assert_eq!(ledger.sink("far", "rejected"), 0);
    // The far side goes; what is sent meanwhile waits, and goes over a new connection.
    taking.stop();
    let body = format!(
        "{{\"resourceLogs\":[{{{resource},\"scopeLogs\":[{{\"logRecords\":[{{{at},\"body\":{{\"stringValue\":\"again\"}}}}]}}]}}]}}"
    );
    assert_eq!(send(&http, "POST /v1/logs", &[("content-type", "application/json")], body).status, 200);
    far.pipeline(
        &OTLP.replace("grpc: \"127.0.0.1:0\", http: \"127.0.0.1:0\" }", &format!("grpc: \"{grpc}\", http: \"\", trace_context: true }}")),
    );
    taking = far.start();
    near.wait_ledger(&mut sending, "the last one is delivered", |ledger| ledger.sink("far", "delivered") == 4);
    sending.stop();
    far.wait_received(&mut taking, 4);
    taking.stop();
    assert_eq!(["logs", "metrics", "traces"].map(|table| count(&far, table)), [2, 1, 1]);
    let lines = far.search("");
    let logs: Vec<Value> = lines.iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    let log = logs.iter().find(|log| log.to_string().contains("hello")).expect("it is there");
    let context = log["traceparent"].as_str().unwrap_or_else(|| panic!("{log}"));
    // What the record itself brings along is the hop before; metadata say the one after it, and the receiver the next.
    let before = log["attributes"]["traceparent"].as_str().unwrap_or_else(|| panic!("{log}"));
    let hops = BTreeSet::from([&PARENT[36..52], &before[36..52], &context[36..52]]);
    assert!(context.starts_with(&PARENT[..36]) && before.starts_with(&PARENT[..36]) && hops.len() == 3, "{log}");
}
