//! The `scrape` source: asks targets for their metrics, again and again, as Prometheus does.
//!
//! In: targets of the config and of files, and what they answer. Out: a line for each sample in the source's pipe, and those that
//! tell of the scrape itself (`up` and its kin). Each target has a task, and a place in the interval that follows from its name, so
//! that a thousand of them do not ask at once. A scrape that fails says why, ends the target's series with stale markers and is
//! `up` 0; a target that goes ends them, too. Bound: `target_limit` targets; a body of `body_bytes_max`, packed or not; a scrape
//! whose samples find no room until the next one is left out and counted; bodies at hand count as those samples do. What a target's series are is remembered from one scrape
//! to the next (`telemetry::exposition`).

use super::config::{RelabelAction, RelabelConfig, ScrapeConfig, ScrapeFormat};
use super::http::unpack;
use super::push::{Held, Pipe, Stats};
use super::series::Bounds;
use crate::env;
use flow::step::sample::key_hash;
use flow::units::UnixNanos;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use telemetry::exposition::{Format, Limits, Outcome, Scraper, Target};
use telemetry::relabel::{self, NoTarget, Rule};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{debug, warn};

/// How often files of targets are read.
const FILES: Duration = Duration::from_secs(5);
/// Largest file of targets.
const FILE_BYTES_MAX: u64 = 16 << 20;
const REDIRECTS_MAX: usize = 5;
/// Bodies larger than this are read by another thread.
const SMALL_BYTES: usize = 64 << 10;
/// Of a native histogram; those of one with more are merged.
const BUCKETS_MAX: usize = 10_000;

/// What all targets of a source share.
pub struct Job {
    config: ScrapeConfig,
    name: String,
    relabel: Vec<Rule>,
    metric_relabel: Vec<Rule>,
    authorization: Option<HeaderValue>,
    bounds: Option<Bounds>,
    pipe: Arc<Pipe>,
    stats: Arc<Stats>,
    is_full: Box<dyn Fn() -> bool + Send + Sync>,
    /// The process ends.
    pub ends: AtomicBool,
}

impl Job {
    pub fn new(
        source: &str,
        config: &ScrapeConfig,
        pipe: Arc<Pipe>,
        stats: Arc<Stats>,
        is_full: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> anyhow::Result<Job> {
        let rules = |rules: &[RelabelConfig]| rules.iter().map(rule).collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::msg);
        let authorization = match &config.token_file {
            None => None,
            Some(path) => {
                let secret = crate::secrets::read("a token", Some(path), None)?;
                let mut value = HeaderValue::from_bytes(&[b"Bearer ", secret.as_slice()].concat())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Job {
            name: config.job.clone().unwrap_or_else(|| source.to_string()),
            relabel: rules(&config.relabel)?,
            metric_relabel: rules(&config.metric_relabel)?,
            authorization,
            bounds: config.series.as_ref().map(Bounds::new),
            config: config.clone(),
            pipe,
            stats,
            is_full,
            ends: AtomicBool::new(false),
        })
    }
}

/// A rule of the config, compiled; or what is wrong with it.
pub fn rule(config: &RelabelConfig) -> Result<Rule, String> {
    let action = match config.action {
        RelabelAction::Replace => relabel::Action::Replace,
        RelabelAction::Keep => relabel::Action::Keep,
        RelabelAction::Drop => relabel::Action::Drop,
        RelabelAction::KeepEqual => relabel::Action::KeepEqual,
        RelabelAction::DropEqual => relabel::Action::DropEqual,
        RelabelAction::HashMod => relabel::Action::HashMod,
        RelabelAction::LabelMap => relabel::Action::LabelMap,
        RelabelAction::LabelDrop => relabel::Action::LabelDrop,
        RelabelAction::LabelKeep => relabel::Action::LabelKeep,
        RelabelAction::Lowercase => relabel::Action::Lowercase,
        RelabelAction::Uppercase => relabel::Action::Uppercase,
    };
    Rule::new(&relabel::Spec {
        source_labels: config.source_labels.clone(),
        separator: Some(config.separator.clone()),
        regex: Some(config.regex.clone()),
        modulus: config.modulus,
        target_label: config.target_label.clone(),
        replacement: Some(config.replacement.clone()),
        action,
        legacy_names: false,
    })
}

/// One that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    /// Host and port.
    address: String,
    /// Path and query.
    uri: String,
    interval: Duration,
    timeout: Duration,
    /// Labels of its samples, sorted.
    labels: Vec<(String, String)>,
}

/// Asks until the runtime ends.
pub async fn run(job: Arc<Job>) {
    let mut tasks: HashMap<Asked, Running> = HashMap::new();
    let mut groups: Groups = Groups::default();
    loop {
        let wanted = wanted(&job, &mut groups);
        let gone: Vec<Asked> = tasks.keys().filter(|asked| !wanted.contains(asked)).cloned().collect();
        for asked in gone {
            if let Some(running) = tasks.remove(&asked) {
                running.ends.store(true, Ordering::Relaxed);
                running.wake.notify_one();
            }
        }
        for asked in wanted {
            tasks.entry(asked.clone()).or_insert_with(|| {
                let running = Running::default();
                tokio::spawn(ask(Arc::clone(&job), asked, running.clone()));
                running
            });
        }
        if job.config.files.is_empty() {
            return;
        }
        tokio::time::sleep(FILES).await;
    }
}

/// A target that is being asked, until it goes.
#[derive(Clone, Default)]
struct Running {
    ends: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

/// What files said when they could last be read: one that is being written changes nothing.
type Groups = BTreeMap<std::path::PathBuf, Vec<Group>>;

/// Targets with the same labels, as Prometheus' files have them.
#[derive(Clone, Debug, serde::Deserialize)]
struct Group {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Who is to be asked now.
fn wanted(job: &Job, groups: &mut Groups) -> Vec<Asked> {
    let mut found = Groups::new();
    for pattern in &job.config.files {
        for path in glob::glob(pattern).into_iter().flatten().flatten() {
            let read = match read_groups(&path) {
                Ok(read) => read,
                Err(error) => {
                    job.stats.count("files_unreadable", 1);
                    warn!(path = %path.display(), %error, "a file of targets cannot be read; what it said before holds");
                    groups.get(&path).cloned().unwrap_or_default()
                }
            };
            found.insert(path, read);
        }
    }
    *groups = found;
    let own = [Group { targets: job.config.targets.clone(), labels: job.config.target_labels.clone() }];
    let mut wanted: Vec<Asked> = Vec::new();
    let mut over = 0;
    for group in own.iter().chain(groups.values().flatten()) {
        for target in &group.targets {
            let Some(asked) = target_of(job, target, &group.labels) else { continue };
            if wanted.len() >= job.config.target_limit as usize {
                over += 1;
            } else if !wanted.contains(&asked) {
                wanted.push(asked);
            }
        }
    }
    job.stats.count("target_limit", over);
    wanted
}

fn read_groups(path: &Path) -> anyhow::Result<Vec<Group>> {
    let len = std::fs::metadata(path)?.len();
    anyhow::ensure!(len <= FILE_BYTES_MAX, "it has {len} bytes; {FILE_BYTES_MAX} are read");
    let text = std::fs::read_to_string(path)?;
    crate::config::read_yaml(&path.display().to_string(), &text)
}

/// What relabelling makes of a target; `None`: it is dropped.
fn target_of(job: &Job, target: &str, group: &BTreeMap<String, String>) -> Option<Asked> {
    let config = &job.config;
    let mut labels: BTreeMap<String, String> = BTreeMap::from([
        ("__address__".into(), target.to_string()),
        ("__metrics_path__".into(), config.path.clone()),
        ("__scheme__".into(), "http".into()),
        ("__scrape_interval__".into(), config.interval.to_string()),
        ("__scrape_timeout__".into(), config.timeout.to_string()),
        ("job".into(), job.name.clone()),
    ]);
    labels.extend(config.params.iter().map(|(name, value)| (format!("__param_{name}"), value.clone())));
    labels.extend(group.iter().map(|(name, value)| (name.clone(), value.clone())));
    let labels = match relabel::target(&job.relabel, labels) {
        Ok(labels) => labels,
        Err(NoTarget::Dropped) => return None,
        Err(NoTarget::NoAddress) => {
            job.stats.count("targets_unusable", 1);
            return None;
        }
    };
    let get = |name: &str| labels.get(name).map_or("", String::as_str);
    let address = get("__address__").to_string();
    if !matches!(get("__scheme__"), "" | "http") || !address.contains(':') {
        job.stats.count("targets_unusable", 1);
        return None;
    }
    let span = |name: &str, otherwise: Duration| flow::units::Span::parse(get(name)).map_or(otherwise, |span| span.duration());
    let interval = span("__scrape_interval__", config.interval.duration()).max(Duration::from_millis(100));
    let timeout = span("__scrape_timeout__", config.timeout.duration()).min(interval);
    let params: Vec<String> =
        labels.iter().filter_map(|(name, value)| Some(format!("{}={}", encoded(name.strip_prefix("__param_")?), encoded(value)))).collect();
    let path = get("__metrics_path__");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let question = match (params.is_empty(), path.contains('?')) {
        (true, _) => "",
        (false, true) => "&",
        (false, false) => "?",
    };
    let uri = format!("{slash}{path}{question}{}", params.join("&"));
    let labels = relabel::public(&labels);
    Some(Asked { address, uri, interval, timeout, labels })
}

/// As it stands in a query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// Why a scrape failed: a name to count it by, and a sentence.
struct Failure {
    name: &'static str,
    what: String,
}

fn failure(name: &'static str, what: impl ToString) -> Failure {
    Failure { name, what: what.to_string() }
}

/// Asks one target until it goes.
async fn ask(job: Arc<Job>, asked: Asked, running: Running) {
    let mut scraper = Some(Scraper::new(target(&job, &asked)));
    let mut connection = None;
    let mut was_up = true;
    let mut next = Instant::now() + offset(&asked);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = running.wake.notified() => {}
        }
        if job.ends.load(Ordering::Relaxed) {
            return; // a restart goes on with the series
        }
        let at = UnixNanos(env::now().0 / 1_000_000 * 1_000_000);
        let Some(mut own) = scraper.take() else { return };
        let mut lines = Vec::new();
        if running.ends.load(Ordering::Relaxed) {
            own.end(at, &mut lines);
            push(&job, lines, 0, next + asked.interval).await;
            return;
        }
        let since = Instant::now();
        let fetched = match tokio::time::timeout(asked.timeout, fetch(&job, &asked, &mut connection)).await {
            Ok(fetched) => fetched,
            Err(_) => {
                connection = None;
                Err(failure("timeout", format!("it did not answer within {} ms", asked.timeout.as_millis())))
            }
        };
        let took = since.elapsed();
        let is_small = fetched.as_ref().is_ok_and(|fetched| fetched.bytes.len() < SMALL_BYTES) || fetched.is_err();
        let work = {
            let job = Arc::clone(&job);
            move || {
                let told = read(&job, &mut own, fetched, at, took, &mut lines);
                (own, lines, told)
            }
        };
        let Ok((own, lines, (samples, outcome))) = (match is_small {
            true => Ok(work()),
            false => tokio::task::spawn_blocking(work).await,
        }) else {
            // What it knew is lost with the thread: it begins anew.
            job.stats.count("failed_internal", 1);
            scraper = Some(Scraper::new(target(&job, &asked)));
            next += asked.interval;
            continue;
        };
        scraper = Some(own);
        let is_up = outcome.is_ok();
        match &outcome {
            Ok(()) => job.stats.count("scrapes", 1),
            Err(Failure { name, .. }) => job.stats.count(&format!("failed_{name}"), 1),
        }
        match (&outcome, was_up) {
            (Err(Failure { what, .. }), true) => warn!(target = %asked.address, path = %asked.uri, "cannot scrape: {what}"),
            (Err(Failure { what, .. }), false) => debug!(target = %asked.address, path = %asked.uri, "cannot scrape: {what}"),
            (Ok(()), _) => {}
        }
        was_up = is_up;
        next += asked.interval;
        push(&job, lines, samples, next).await;
        // A machine that slept does not catch up.
        while next + asked.interval < Instant::now() {
            next += asked.interval;
        }
    }
}

fn target(job: &Job, asked: &Asked) -> Target {
    let config = &job.config;
    Target {
        labels: asked.labels.clone(),
        honor_labels: config.honor_labels,
        honor_timestamps: config.honor_timestamps,
        track_timestamps_staleness: config.track_timestamps_staleness,
        metric_relabel: job.metric_relabel.clone(),
        limits: Limits {
            samples: config.sample_limit as usize,
            labels: config.label_limit as usize,
            label_name_bytes: config.label_name_length_limit as usize,
            label_value_bytes: config.label_value_length_limit as usize,
            body_bytes: config.body_bytes_max.0 as usize,
            out_bytes: (config.buffer_bytes_max.0 / 2) as usize,
            buckets: BUCKETS_MAX,
        },
        strict: config.strict,
        timeout_seconds: asked.timeout.as_secs_f64(),
        ..Target::default()
    }
}

/// A target's place in the interval: from its name, so that it stays.
fn offset(asked: &Asked) -> Duration {
    let hash = key_hash(format!("{}{}{:?}", asked.address, asked.uri, asked.labels).as_bytes());
    let interval = asked.interval.as_nanos() as u64;
    let now = env::now().0 as u64 % interval;
    let place = hash % interval;
    Duration::from_nanos(if place >= now { place - now } else { place + interval - now })
}

/// What a target answered.
struct Fetched {
    format: Format,
    encoding: String,
    bytes: Vec<u8>,
    /// Of the source's budget: the body, and what it unpacks to.
    held: Held,
}

/// Writes what a scrape gave, or that it gave nothing. Returns how many samples it had, and why it failed.
fn read(
    job: &Job,
    scraper: &mut Scraper,
    fetched: Result<Fetched, Failure>,
    at: UnixNanos,
    took: Duration,
    lines: &mut Vec<u8>,
) -> (u64, Result<(), Failure>) {
    let bytes_max = job.config.body_bytes_max.0 as usize;
    let unpacked = fetched.and_then(|fetched| {
        let Fetched { format, encoding, bytes, mut held } = fetched;
        let bytes = unpack(&encoding, bytes, bytes_max, &mut |more| held.grow(more));
        let bytes = bytes.map_err(|bad| failure(if bad.status == 503 { "no_room" } else { "body" }, bad.message))?;
        Ok((format, bytes, held))
    });
    let outcome = unpacked.map_err(|failure| (failure, None)).and_then(|(format, bytes, _held)| {
        let scraped = scraper.scrape(format, &bytes, at, lines);
        scraped.map_err(|error| (failure(error.reason.name(), &error), Some(error.scraped)))
    });
    let told = match outcome {
        Ok(scraped) => {
            scraper.report(at, took.as_secs_f64(), Outcome::Good(scraped), lines);
            (scraped.post_relabel as u64, Ok(()))
        }
        Err((failure, scraped)) => {
            if scraped.is_none() {
                scraper.failed(at, lines);
            }
            scraper.report(at, took.as_secs_f64(), Outcome::Failed(scraped.unwrap_or_default()), lines);
            (0, Err(failure))
        }
    };
    job.stats.count("samples", told.0);
    if let Some(bounds) = &job.bounds {
        *lines = bounds.filter(lines, at, &job.stats);
    }
    told
}

/// Hands lines over, until `deadline`; then they are left out.
async fn push(job: &Job, lines: Vec<u8>, samples: u64, deadline: Instant) {
    if lines.is_empty() {
        return;
    }
    loop {
        let held: Option<Held> = if (job.is_full)() { None } else { job.stats.budget.take(lines.len() as u64) };
        match held {
            Some(held) => {
                if job.pipe.push(lines, held).is_ok() {
                    return;
                }
                // It ends, or there is no room in this pipe: it has the budget for itself, so it ends.
                job.stats.count("left_out_samples", samples);
                return;
            }
            None if Instant::now() >= deadline => {
                job.stats.count("left_out_scrapes", 1);
                job.stats.count("left_out_samples", samples);
                return;
            }
            None => job.pipe.room().await,
        }
    }
}

/// A connection that may be used again.
struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    address: String,
}

async fn connect(address: &str) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|error| failure("connect", format!("cannot connect: {error}")))?;
    let _ = stream.set_nodelay(true); // a request is small; where it does not work it goes later
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failure("connect", format!("cannot connect: {error}")))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "a connection to a target ended early");
        }
    });
    Ok(Connection { sender, address: address.to_string() })
}

async fn fetch(job: &Job, asked: &Asked, connection: &mut Option<Connection>) -> Result<Fetched, Failure> {
    let (mut address, mut uri) = (asked.address.clone(), asked.uri.clone());
    for _ in 0..=REDIRECTS_MAX {
        // One that was used before may have been closed meanwhile: then once more with a new one.
        let was_used = connection.as_ref().is_some_and(|connection| connection.address == address && !connection.sender.is_closed());
        if !was_used {
            *connection = Some(connect(&address).await?);
        }
        let mut sent = send(job, asked, connection, &address, &uri).await;
        if sent.is_err() && was_used {
            *connection = Some(connect(&address).await?);
            sent = send(job, asked, connection, &address, &uri).await;
        }
        let response = match sent {
            Ok(response) => response,
            Err(failure) => {
                *connection = None;
                return Err(failure);
            }
        };
        let (head, body) = response.into_parts();
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            *connection = None;
            (address, uri) = redirected(&head.headers, address)?;
            continue;
        }
        if head.status != StatusCode::OK {
            *connection = None;
            return Err(failure("status", format!("it answered with status {}", head.status)));
        }
        let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let fallback = job.config.fallback.map(|fallback| match fallback {
            ScrapeFormat::Text => Format::Text,
            ScrapeFormat::Openmetrics => Format::OpenMetrics,
            ScrapeFormat::Protobuf => Format::Protobuf,
        });
        let format = Format::of_content_type(text(CONTENT_TYPE), fallback).map_err(|refusal| failure("content_type", refusal));
        let format = match format {
            Ok(format) => format,
            Err(failure) => {
                *connection = None;
                return Err(failure);
            }
        };
        let encoding = text(CONTENT_ENCODING).unwrap_or("").to_string();
        let (bytes, held) = match read_body(job, body).await {
            Ok(read) => read,
            Err(failure) => {
                *connection = None;
                return Err(failure);
            }
        };
        return Ok(Fetched { format, encoding, bytes, held });
    }
    Err(failure("redirects", format!("it sends from place to place, more than {REDIRECTS_MAX} times")))
}

async fn send(
    job: &Job,
    asked: &Asked,
    connection: &mut Option<Connection>,
    address: &str,
    uri: &str,
) -> Result<hyper::Response<hyper::body::Incoming>, Failure> {
    let bad = |error: hyper::http::Error| failure("request", format!("cannot ask for {uri}: {error}"));
    let mut request = Request::get(uri)
        .header(HOST, address)
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, if job.config.protobuf { Format::ACCEPT_PROTOBUF } else { Format::ACCEPT })
        .header(ACCEPT_ENCODING, "gzip")
        .header("x-prometheus-scrape-timeout-seconds", asked.timeout.as_secs_f64().to_string());
    // Whoever the target sends to elsewhere is not told the token.
    if let Some(authorization) = job.authorization.as_ref().filter(|_| address == asked.address) {
        request = request.header(AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::new()).map_err(bad)?;
    let Some(connection) = connection else { return Err(failure("connect", "there is no connection")) };
    let gone = |error: hyper::Error| failure("connection", format!("the connection failed: {error}"));
    connection.sender.ready().await.map_err(gone)?;
    connection.sender.send_request(request).await.map_err(gone)
}

/// Where a redirection leads: host and port, path and query.
fn redirected(headers: &HeaderMap, address: String) -> Result<(String, String), Failure> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok((address, location.to_string()));
    }
    let Some(rest) = location.strip_prefix("http://") else {
        let shown: String = location.chars().take(100).collect();
        return Err(failure("redirects", format!("it sends to {shown:?}, where weir does not go")));
    };
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let host = if host.contains(':') { host.to_string() } else { format!("{host}:80") };
    Ok((host, path.to_string()))
}

async fn read_body(job: &Job, mut body: hyper::body::Incoming) -> Result<(Vec<u8>, Held), Failure> {
    let bytes_max = job.config.body_bytes_max.0 as usize;
    let no_room = || failure("no_room", "the bodies of other targets take all of buffer_bytes_max");
    let too_large = || failure("body_size", format!("the body is larger than {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut held = job.stats.budget.take(body.size_hint().lower()).ok_or_else(no_room)?;
    let mut bytes = Vec::with_capacity(body.size_hint().lower() as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failure("body", format!("the body is cut off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        if bytes.len() + data.len() > bytes.capacity() && !held.grow(data.len() as u64) {
            return Err(no_room());
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, held))
}
