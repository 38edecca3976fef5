//! The `prometheus` sink: the newest sample of each series, shown to whoever scrapes it.
//!
//! In: frames; rows that are no samples are passed over. Out: a page in the text format, OpenMetrics or protobuf, as the scraper asks.
//! A series ends with its stale marker, or when nothing of it came for `age`. Positions are kept as by `blackhole`: what a crash finds
//! in memory is gone, and comes again with the next samples. Bound: `series_max` series; new ones beyond are counted and not shown.

use crate::env;
use crate::sinks::config::PrometheusSink;
use crate::sinks::stdout::Stdout;
use anyhow::Context;
use flow::event::{Signal, StreamId};
use flow::time::TimeParser;
use flow::units::UnixNanos;
use http_body_util::Full;
use hub::Frame;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use telemetry::exposition::negotiate;
use telemetry::exposition::write::{Family, Sample, Value, write};
use telemetry::histogram::Histogram;
use telemetry::sample::{self, STALE, Series, Type};
use tracing::info;

/// How long a connection may take to say what it wants, idle ones included.
const HEADER_PATIENCE: Duration = Duration::from_secs(75);

/// What is shown.
struct Shown {
    config: PrometheusSink,
    series: HashMap<Box<[u8]>, Entry>,
    refused: u64,
}

struct Entry {
    series: Series,
    at: UnixNanos,
    /// When it came: `age` counts from then, whatever clock the sample has.
    came: UnixNanos,
    value: Value,
}

pub struct Exposition {
    cursor: Stdout,
    shared: Arc<Mutex<Shown>>,
    /// Closes the port when it goes.
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    times: TimeParser,
    buffer: Vec<u8>,
}

fn lock(shared: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Exposition {
    /// Nothing is bound yet: questions open stores, too.
    pub fn open(cursor: Stdout, config: PrometheusSink) -> Exposition {
        let shown = Shown { config, series: HashMap::new(), refused: 0 };
        Exposition { cursor, shared: Arc::new(Mutex::new(shown)), stop: None, times: TimeParser::new(), buffer: Vec::new() }
    }

    /// Before the first frame: listens.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        let listen = lock(&self.shared).config.listen.clone();
        let listener = TcpListener::bind(&listen).with_context(|| format!("cannot listen on {listen}"))?;
        listener.set_nonblocking(true)?;
        info!(address = %listener.local_addr()?, "metrics are shown");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime of a listener")?;
        std::thread::Builder::new().name("exposition".into()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(listener, shared) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        })?;
        self.stop = Some(stop);
        Ok(())
    }

    pub fn positions(&self) -> HashMap<StreamId, u64> {
        self.cursor.positions()
    }

    pub fn position(&self, stream: StreamId) -> Option<u64> {
        self.cursor.position(stream)
    }

    pub fn write(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let now = env::now();
        let shared = Arc::clone(&self.shared);
        let mut shown = lock(&shared);
        for part in frame.parts.iter().filter(|part| part.signal == Signal::Metrics) {
            if self.cursor.position(part.stream).is_some_and(|done| part.to <= done) {
                continue;
            }
            for row in part.rows.clone() {
                self.take(&mut shown, frame.rows.row(row as usize), now);
            }
        }
        drop(shown);
        self.cursor.write(frame)
    }

    fn take(&mut self, shown: &mut Shown, line: &[u8], now: UnixNanos) {
        let Some(sample) = sample::read(line, &mut self.times, &mut self.buffer) else { return };
        let value = match sample.value {
            Some(number) => Value::Double(number.double()),
            None => match native(line) {
                Some(histogram) => Value::Native(histogram),
                None => return, // a summary or a histogram of OTLP has no form here
            },
        };
        if matches!(value, Value::Double(value) if value.to_bits() == STALE) {
            shown.series.remove(sample.series);
            return;
        }
        if let Some(entry) = shown.series.get_mut(sample.series) {
            if sample.at >= entry.at {
                (entry.at, entry.came, entry.value) = (sample.at, now, value);
            }
            return;
        }
        if shown.series.len() >= shown.config.series_max as usize {
            shown.forget(now);
        }
        if shown.series.len() >= shown.config.series_max as usize {
            shown.refused += 1;
            return;
        }
        let Some(series) = Series::parse(sample.series) else { return };
        shown.series.insert(sample.series.into(), Entry { series, at: sample.at, came: now, value });
    }

    pub fn commit(&mut self) -> anyhow::Result<()> {
        self.cursor.commit()
    }

    /// Samples of series that found no room.
    pub fn refused(&self) -> u64 {
        lock(&self.shared).refused
    }
}

/// The native histogram of a line.
fn native(line: &[u8]) -> Option<Histogram> {
    let members = sample::members(line.strip_suffix(b"\n").unwrap_or(line))?;
    Histogram::parse(members.iter().find(|(name, _)| *name == b"histogram")?.1)
}

impl Shown {
    /// Series of which nothing came for too long go.
    fn forget(&mut self, now: UnixNanos) {
        let oldest = now.0.saturating_sub(self.config.age.0);
        self.series.retain(|_, entry| entry.came.0 >= oldest);
    }

    /// All series by family: of a histogram and a summary the series with their suffixes are one.
    fn families(&mut self, now: UnixNanos) -> Vec<Family> {
        self.forget(now);
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut entries: Vec<&Entry> = self.series.values().collect();
        entries.sort_by(|a, b| (&a.series.metric, &a.series.labels).cmp(&(&b.series.metric, &b.series.labels)));
        for entry in entries {
            let Series { metric, kind, unit, labels, .. } = &entry.series;
            let name = family_of(metric, *kind);
            let family = families.entry(name.to_owned()).or_insert_with(|| Family {
                name: name.to_owned(),
                kind: *kind,
                unit: unit.clone(),
                ..Family::default()
            });
            family.samples.push(Sample {
                name: metric.clone(),
                labels: labels.clone(),
                value: entry.value.clone(),
                at: self.config.timestamps.then_some(entry.at),
                ..Sample::default()
            });
        }
        families.into_values().collect()
    }
}

/// The name of a series' family.
fn family_of(metric: &str, kind: Type) -> &str {
    let suffixes: &[&str] = match kind {
        Type::Histogram | Type::GaugeHistogram => &["_bucket", "_sum", "_count", "_gsum", "_gcount", "_created"],
        Type::Summary => &["_sum", "_count", "_created"],
        Type::Counter => &["_created"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| metric.strip_suffix(suffix)).unwrap_or(metric)
}

async fn serve(listener: tokio::net::TcpListener, shared: Arc<Mutex<Shown>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await; // no descriptors left, most likely
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&shared, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
            let _ = http.serve_connection(TokioIo::new(stream), service).await; // who asks may go away
        });
    }
}

fn answer(shared: &Mutex<Shown>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut shown = lock(shared);
    let path = shown.config.path.trim_end_matches('/').to_owned();
    if request.uri().path().trim_end_matches('/') != path || !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = Response::new(Full::from(format!("metrics are at {}\n", shown.config.path)));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let families = shown.families(env::now());
    drop(shown);
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("");
    let (format, escaping) = negotiate(header(ACCEPT));
    let mut page = Vec::new();
    write(&families, format, escaping, &mut page);
    let mut packed = None;
    if header(ACCEPT_ENCODING).split(',').any(|one| one.split(';').next().unwrap_or("").trim() == "gzip") {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed = encoder.write_all(&page).and_then(|()| encoder.finish()).ok();
    }
    let is_packed = packed.is_some();
    let mut response = Response::new(Full::from(packed.unwrap_or(page)));
    if let Ok(kind) = HeaderValue::from_str(&format.content_type(escaping)) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    if is_packed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
