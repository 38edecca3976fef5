//! The `prometheus` sink: the newest sample of each series, shown to whoever scrapes it.
//!
//! In: frames; rows that are no samples are passed over, those of OTLP become series of Prometheus first, as `remote_write` makes them:
//! names with units and suffixes, histograms and summaries series by series. Out: a page in the text format, OpenMetrics or protobuf,
//! as the scraper asks.
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
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use telemetry::exposition::negotiate;
use telemetry::exposition::write::{Exemplar, Family, Sample, Value, exemplars_of, write};
use telemetry::histogram::Histogram;
use telemetry::remote::{self, State, Version, Writer, WriterOptions};
use telemetry::sample::{self, STALE, Series, Type};
use tracing::info;

/// What a frame of OTLP may become.
const TRANSLATED_BYTES_MAX: usize = 64 << 20;
/// Most exemplars of a series.
const EXEMPLARS_MAX: usize = 10;
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
    exemplars: Vec<Exemplar>,
}

pub struct Exposition {
    cursor: Stdout,
    shared: Arc<Mutex<Shown>>,
    /// Closes the port when it goes.
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    times: TimeParser,
    buffer: Vec<u8>,
    /// Both for rows of OTLP: what is known of their series.
    writer: Writer,
    state: State,
}

fn lock(shared: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Exposition {
    /// Nothing is bound yet: questions open stores, too.
    pub fn open(cursor: Stdout, config: PrometheusSink) -> Exposition {
        let shown = Shown { config, series: HashMap::new(), refused: 0 };
        let options = WriterOptions { samples_max: usize::MAX, bytes_max: usize::MAX, ..WriterOptions::new(Version::V2) };
        Exposition {
            cursor,
            shared: Arc::new(Mutex::new(shown)),
            stop: None,
            times: TimeParser::new(),
            buffer: Vec::new(),
            writer: Writer::new(options),
            state: State::default(),
        }
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
                let line = frame.rows.row(row as usize);
                if !is_of_otlp(line) {
                    self.take(&mut shown, line, now);
                } else if self.writer.push(line).is_err() {
                    shown.refused += 1;
                }
            }
        }
        for line in self.translated().split(|b| *b == b'\n') {
            self.take(&mut shown, line, now);
        }
        drop(shown);
        self.cursor.write(frame)
    }

    /// What was pushed into the writer, as lines of Prometheus' samples.
    fn translated(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.writer.is_empty() {
            let packed = self.writer.finish().body;
            let options = remote::Options { out_bytes_max: TRANSLATED_BYTES_MAX, ..remote::Options::default() };
            let body = remote::unpack(&packed, TRANSLATED_BYTES_MAX);
            let read = body.and_then(|body| remote::read(Version::V2, &body, &options, &mut self.state, &mut lines));
            if let Err(error) = read {
                tracing::warn!(%error, "metrics of OTLP are not shown");
            }
        }
        lines
    }

    fn take(&mut self, shown: &mut Shown, line: &[u8], now: UnixNanos) {
        let Some(sample) = sample::read(line, &mut self.times, &mut self.buffer) else { return };
        let value = match sample.value {
            Some(number) => Value::Double(number.double()),
            None => match native(line) {
                Some(histogram) => Value::Native(histogram),
                None => return, // it is of nobody that weir knows
            },
        };
        if matches!(value, Value::Double(value) if value.to_bits() == STALE) {
            shown.series.remove(sample.series);
            return;
        }
        let mut exemplars = exemplars(line, sample.at);
        if let Some(entry) = shown.series.get_mut(sample.series) {
            if sample.at >= entry.at {
                if exemplars.is_empty() {
                    exemplars = std::mem::take(&mut entry.exemplars); // those it had are its newest
                }
                (entry.at, entry.came, entry.value, entry.exemplars) = (sample.at, now, value, exemplars);
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
        shown.series.insert(sample.series.into(), Entry { series, at: sample.at, came: now, value, exemplars });
    }

    pub fn commit(&mut self) -> anyhow::Result<()> {
        self.cursor.commit()
    }

    /// Samples of series that found no room.
    pub fn refused(&self) -> u64 {
        lock(&self.shared).refused
    }
}

fn member<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let members = sample::members(line.strip_suffix(b"\n").unwrap_or(line))?;
    members.into_iter().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
}

/// The native histogram of a line.
fn native(line: &[u8]) -> Option<Histogram> {
    Histogram::parse(member(line, "histogram")?)
}

/// The newest exemplars of a line.
fn exemplars(line: &[u8], at: UnixNanos) -> Vec<Exemplar> {
    if memchr::memmem::find(line, b"\"exemplars\":").is_none() {
        return Vec::new();
    }
    let mut found = member(line, "exemplars").map_or(Vec::new(), |json| exemplars_of(json, at, &mut TimeParser::new()));
    found.drain(..found.len().saturating_sub(EXEMPLARS_MAX));
    found
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
        entries.sort_by(|a, b| order(&a.series, &b.series));
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
                exemplars: entry.exemplars.clone(),
                ..Sample::default()
            });
        }
        families.into_values().collect()
    }
}

/// Whether a row of a sample has the members of OTLP, or is one of its histograms: those of others are series by series.
fn is_of_otlp(line: &[u8]) -> bool {
    let members = [&b"\"resource\":"[..], b"\"temporality\":", b"\"monotonic\":", b"\"scope\":", b"\"bounds\":", b"\"quantiles\":"];
    members.iter().any(|member| memchr::memmem::find(line, member).is_some())
}

/// By name and labels; of those that differ in a bound or a quantile alone by its number.
fn order(a: &Series, b: &Series) -> Ordering {
    let is_number = |name: &str| matches!(name, "le" | "quantile");
    let rest = |series: &Series| series.labels.iter().filter(|(name, _)| !is_number(name)).cloned().collect::<Vec<_>>();
    let number = |series: &Series| {
        series.labels.iter().find(|(name, _)| is_number(name)).and_then(|(_, value)| value.parse::<f64>().ok()).unwrap_or(f64::NEG_INFINITY)
    };
    a.metric.cmp(&b.metric).then_with(|| rest(a).cmp(&rest(b))).then_with(|| number(a).total_cmp(&number(b)))
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
