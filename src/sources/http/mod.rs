//! The sources `http`, `otlp` and `remote_write`: others send records in the bodies of requests; an answer of 2xx says that the hub
//! holds them for good.
//!
//! In: `POST` of JSON lines, JSON, text, Elasticsearch's `_bulk` or Loki's push, packed or not; the questions that senders ask
//! before they send; CloudEvents of usage, where config says so; OTLP; Prometheus' remote write. Out: lines in the pipe of the token's tenant; an answer once they are durable, or at once where config says
//! so. Read on in this order: `unpack` (decompression), `lines`, `bulk`, `loki`, `usage`, `otlp`, `remote` (bodies to lines), `tokens`
//! (who sends), here (order of the checks, answers), `grpc` (the same for OTLP over gRPC).
//! Order: what is too many or too large is refused before anybody is asked who he is, and that before a body is read.
//! Bound: `connections_max`, and `buffer_bytes_max` for bodies, what they unpack to and lines that no lane has read; beyond, and
//! while the hub is full, senders get 503 with `Retry-After`. A sender that gets no answer sends again: at least once.

mod bulk;
mod context;
mod grpc;
mod lines;
mod loki;
mod otlp;
mod remote;
mod tokens;
mod unpack;
mod usage;

pub use lines::put_text;
pub use tokens::Tokens;
pub use unpack::unpack;

use super::config::{Ack, HttpConfig, OtlpConfig, RemoteWriteConfig};
use super::push::{Budget, Connected, Held, Pipe, Refusal, Stats};
use super::series::Bounds;
use flow::event::Signal;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lines::{Bad, Lines};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use telemetry::trace_context::Context;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

/// How long a connection may take to say what it wants, idle ones included.
const HEADER_PATIENCE: Duration = Duration::from_secs(75);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bodies smaller than this are read where they arrive; unpacking others must not hold up who waits.
const SMALL_BYTES: usize = 32 << 10;
/// Threads that unpack bodies: each makes lines of up to twice the largest one.
pub const UNPACKERS: usize = 2;
/// When a sender that is refused for want of room may come again.
const RETRY_SECONDS: u64 = 1;
/// What clients of Elasticsearch ask for before they send.
const VERSION: &str = "8.19.0";

/// What requests are answered from.
pub struct Gate {
    pub takes: Takes,
    pub limits: Limits,
    pub tokens: Tokens,
    /// For each sender, in the order of [`Tokens::senders`]; one for each signal that the source takes.
    pub pipes: Vec<Vec<Arc<Pipe>>>,
    pub stats: Arc<Stats>,
    /// A lane waits for room in the hub.
    pub is_full: Box<dyn Fn() -> bool + Send + Sync>,
    /// The process ends.
    pub ends: AtomicBool,
}

/// What is taken.
pub enum Takes {
    Records(Box<HttpConfig>),
    Otlp(Box<OtlpConfig>),
    RemoteWrite(Box<RemoteWriteConfig>, remote::Memory, Option<Box<Bounds>>),
}

impl Takes {
    /// Whether records of a kind go on with the trace of their request.
    fn has_context(&self, signal: Signal) -> bool {
        match self {
            Takes::Records(config) => config.trace_context,
            Takes::Otlp(config) => config.trace_context && signal != Signal::Metrics,
            Takes::RemoteWrite(..) => false,
        }
    }

    /// What the records may be.
    pub fn signals(&self) -> &'static [Signal] {
        match self {
            Takes::Records(_) => &[Signal::Logs],
            Takes::Otlp(_) => &Signal::ALL,
            Takes::RemoteWrite(..) => &[Signal::Metrics],
        }
    }
}

/// How much is listened to.
pub struct Limits {
    /// Of a body, after decompression, too.
    pub body_bytes_max: usize,
    /// Of the lines that a body of OTLP or remote write becomes: labels stand in each.
    pub lines_bytes_max: usize,
    pub connections_max: u32,
    pub timeout: Duration,
    pub ack: Ack,
}

type Answer = Response<Full<Bytes>>;

impl Gate {
    /// The pipe of a tenant, by number, for records of a kind.
    fn pipe(&self, tenant: usize, signal: Signal) -> &Arc<Pipe> {
        self.pipes[tenant].iter().find(|pipe| pipe.signal == signal).expect("there is one for each signal that is taken")
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http,
    Grpc,
}

/// Answers until the runtime ends.
pub async fn serve(listener: TcpListener, gate: Arc<Gate>, speaks: Speaks) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors left, most likely: others end.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Some(connected) = Connected::new(&gate.stats, gate.limits.connections_max) else {
            gate.stats.count("connections_max", 1);
            continue; // closed at once: there is no room to listen to what it wants
        };
        let _ = stream.set_nodelay(true); // answers are small; where it does not work they come later
        let gate = Arc::clone(&gate);
        tokio::spawn(async move {
            let ended = match speaks {
                Speaks::Http => connection(stream, gate).await,
                Speaks::Grpc => grpc::connection(stream, gate).await,
            };
            if let Err(error) = ended {
                debug!(%error, "a connection ended early");
            }
            drop(connected);
        });
    }
}

async fn connection(stream: TcpStream, gate: Arc<Gate>) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let gate = Arc::clone(&gate);
        async move { Ok::<_, std::convert::Infallible>(answer(&gate, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE).max_buf_size(HEAD_BYTES_MAX);
    http.serve_connection(TokioIo::new(stream), service).await
}

async fn answer(gate: &Arc<Gate>, request: Request<Incoming>) -> Answer {
    let is_head = request.method() == Method::HEAD;
    let kind = header(request.headers(), CONTENT_TYPE);
    let answer = match respond(gate, request).await {
        Ok(answer) => answer,
        Err(bad) => match &gate.takes {
            Takes::Records(_) => refuse(&bad),
            Takes::Otlp(_) => otlp::refuse(&bad, &kind),
            Takes::RemoteWrite(..) => remote::refuse(&bad),
        },
    };
    gate.stats.count(answer.status().as_str(), 1);
    if is_head { answer.map(|_| Full::default()) } else { answer }
}

/// What a path is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Records,
    /// With the index of the path.
    Bulk(String),
    Loki,
    /// Events that somebody pays for.
    Usage,
    Otlp(Signal),
    RemoteWrite,
    /// A question that senders ask first, and its answer.
    Probe(String),
}

async fn respond(gate: &Arc<Gate>, request: Request<Incoming>) -> Result<Answer, Bad> {
    let limits = &gate.limits;
    let body_bytes_max = limits.body_bytes_max;
    if request.body().size_hint().lower() > body_bytes_max as u64 {
        return Err(unpack::too_large(body_bytes_max));
    }
    let route = route(request.method(), request.uri().path(), &gate.takes);
    if let Ok(Route::Probe(text)) = &route
        && text == "ready\n"
    {
        return Ok(reply(StatusCode::OK, "text/plain", text.clone().into_bytes()));
    }
    let Some(number) = gate.tokens.find(request.headers()) else {
        return Err(Bad::new(
            401,
            "no token that is known; send one as `Authorization: Bearer`, as the password of Basic, or as X-Weir-Token",
        ));
    };
    let route = match route? {
        Route::Probe(text) => return Ok(reply(StatusCode::OK, "application/json", text.into_bytes())),
        other => other,
    };
    if gate.ends.load(Ordering::Relaxed) {
        return Err(ending());
    }
    if (gate.is_full)() {
        return Err(Bad::new(503, "the hub is full; send it again in a moment"));
    }
    let pipe = gate.pipe(number, route.signal());
    let since = Instant::now();
    let (kind, encoding) = (header(request.headers(), CONTENT_TYPE), header(request.headers(), CONTENT_ENCODING));
    if gate.tokens.is_other(number) {
        gate.stats.count("tenant_other", 1);
    }
    let context = gate.takes.has_context(route.signal()).then(|| context::of(request.headers()));
    // Attributes of a usage event may stand there.
    let headers = if route == Route::Usage { request.headers().clone() } else { HeaderMap::new() };
    // Whoever is told that usage is taken will not send it again.
    let is_durable = limits.ack == Ack::Durable || route == Route::Usage;
    let (body, held) = tokio::time::timeout(limits.timeout, read_body(request.into_body(), &gate.stats.budget, body_bytes_max))
        .await
        .map_err(|_| Bad::new(408, format!("the body did not come within {} s", limits.timeout.as_secs())))??;
    let is_small = body.len() < SMALL_BYTES && encoding.is_empty();
    let work = {
        let gate = Arc::clone(gate);
        move || decode(&gate, &route, &Head { kind: &kind, encoding: &encoding, headers: &headers, context: context.as_ref() }, body, held)
    };
    let decoded = match is_small {
        true => work(),
        false => tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Bad::new(500, "reading the body failed"))),
    };
    let Decoded { lines, held, items } = decoded?;
    let records = lines.records;
    let end = pipe.push(lines.bytes, held).map_err(refused)?;
    if is_durable {
        pipe.durable(end, limits.timeout).await.map_err(refused)?;
    }
    gate.stats.count("records", records);
    Ok(match items {
        Items::Bulk(items) => {
            let name = format!("{:x}-{end:x}", pipe.stream.0);
            reply(StatusCode::OK, "application/json", bulk::answer(&items, since.elapsed().as_millis(), &name))
        }
        Items::Loki => reply(StatusCode::NO_CONTENT, "text/plain", Vec::new()),
        Items::Otlp(answer) => otlp::reply(answer, &gate.stats),
        Items::RemoteWrite(answer) => remote::reply(answer, &gate.stats),
        Items::Usage => reply(StatusCode::ACCEPTED, "application/json", format!("{{\"events\":{records}}}\n").into_bytes()),
        Items::Records => reply(StatusCode::OK, "application/json", format!("{{\"records\":{records}}}\n").into_bytes()),
    })
}

/// What came of a body.
struct Decoded {
    lines: Lines,
    held: Held,
    items: Items,
}

enum Items {
    Records,
    Bulk(Vec<bulk::Item>),
    Loki,
    Usage,
    Otlp(otlp::Answer),
    RemoteWrite(remote::Answer),
}

impl Route {
    /// What the records are that come this way.
    fn signal(&self) -> Signal {
        match self {
            Route::Otlp(signal) => *signal,
            Route::RemoteWrite => Signal::Metrics,
            Route::Records | Route::Bulk(_) | Route::Loki | Route::Usage | Route::Probe(_) => Signal::Logs,
        }
    }
}

fn header(headers: &HeaderMap, name: hyper::header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_string()
}

/// What the head of a request says of its body.
struct Head<'a> {
    kind: &'a str,
    encoding: &'a str,
    headers: &'a HeaderMap,
    context: Option<&'a Context>,
}

fn decode(gate: &Gate, route: &Route, head: &Head, body: Vec<u8>, mut held: Held) -> Result<Decoded, Bad> {
    let bytes_max = gate.limits.body_bytes_max;
    let kind = head.kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_protobuf = kind.ends_with("protobuf");
    let body = match (route, head.encoding) {
        // Loki's clients pack protobuf without saying so.
        (Route::Loki, "") if is_protobuf => unpack::snappy(&body, bytes_max, &mut |bytes| held.grow(bytes))?,
        (Route::RemoteWrite, encoding) => remote::unpack(head.kind, encoding, &body, bytes_max, &mut |bytes| held.grow(bytes))?,
        _ => unpack::unpack(head.encoding, body, bytes_max, &mut |bytes| held.grow(bytes))?,
    };
    // Lines may be longer than what they are made of: labels stand in each.
    let mut lines = Lines::new(bytes_max.saturating_mul(2));
    let items = match (route, &gate.takes) {
        (Route::Otlp(signal), Takes::Otlp(config)) => {
            Items::Otlp(otlp::take(*signal, head.kind, &body, config, gate.limits.lines_bytes_max, &mut lines)?)
        }
        (Route::RemoteWrite, Takes::RemoteWrite(_, memory, bounds)) => {
            let answer = remote::take(head.kind, &body, gate.limits.lines_bytes_max, memory, &mut lines)?;
            if let Some(bounds) = bounds {
                lines.bytes = bounds.filter(&lines.bytes, crate::env::now(), &gate.stats);
            }
            Items::RemoteWrite(answer)
        }
        (Route::Bulk(index), Takes::Records(config)) => {
            let line_bytes_max = config.line_bytes_max.0 as usize;
            let rules = bulk::Rules { index, index_field: config.index_field.as_deref(), line_bytes_max };
            Items::Bulk(bulk::bulk(&body, &rules, &mut lines)?)
        }
        (Route::Loki, _) => {
            if is_protobuf {
                loki::protobuf(&body, &mut lines)?
            } else {
                loki::json(&body, &mut lines)?
            }
            Items::Loki
        }
        (Route::Usage, _) => {
            usage::events(&kind, head.headers, &body, &mut lines)?;
            Items::Usage
        }
        (Route::Records | Route::Probe(_) | Route::Bulk(_) | Route::Otlp(_) | Route::RemoteWrite, _) => {
            match kind.as_str() {
                "text/plain" => lines::text(&body, &mut lines)?,
                "application/json" => lines::json(&body, &mut lines)?,
                _ if body.trim_ascii_start().first() == Some(&b'[') => lines::json(&body, &mut lines)?,
                _ => lines::ndjson(&body, &mut lines)?,
            }
            Items::Records
        }
    };
    drop(body);
    if let Some(context) = head.context {
        lines = context::put(context, lines)?;
    }
    drop(held);
    // What unpacking took is given back; from here on the lines count.
    let held = gate.stats.budget.take(lines.bytes.len() as u64).ok_or_else(unpack::no_room)?;
    Ok(Decoded { lines, held, items })
}

/// Reads a body as it comes, each piece within the limits.
async fn read_body(mut body: Incoming, budget: &Arc<Budget>, bytes_max: usize) -> Result<(Vec<u8>, Held), Bad> {
    let announced = (body.size_hint().lower() as usize).min(bytes_max);
    let mut held = budget.take(announced as u64).ok_or_else(unpack::no_room)?;
    let mut bytes = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Bad::new(400, format!("the body is cut off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(unpack::too_large(bytes_max));
        }
        let room = bytes.capacity().max(announced);
        if bytes.len() + data.len() > room && !held.grow((bytes.len() + data.len() - room) as u64) {
            return Err(unpack::no_room());
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, held))
}

fn route(method: &Method, path: &str, takes: &Takes) -> Result<Route, Bad> {
    let is_write = matches!(*method, Method::POST | Method::PUT);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let config = match takes {
        Takes::Records(config) => config,
        Takes::Otlp(_) => return otlp::route(method, path),
        Takes::RemoteWrite(config, ..) => return remote::route(method, path, config),
    };
    let route = match parts[..] {
        ["_bulk"] if is_write => Route::Bulk(String::new()),
        [index, "_bulk"] | [index, _, "_bulk"] if is_write => Route::Bulk(index.to_string()),
        ["loki", "api", "v1", "push"] if is_write => Route::Loki,
        ["api", "v1", "usage"] if is_write && config.usage => Route::Usage,
        _ if is_write && config.paths.iter().any(|own| own.trim_end_matches('/') == path.trim_end_matches('/')) => Route::Records,
        ["ready"] => Route::Probe("ready\n".into()),
        _ if matches!(*method, Method::GET | Method::HEAD) => Route::Probe(probe(&parts).ok_or_else(|| unknown(path))?),
        _ => return Err(unknown(path)),
    };
    Ok(route)
}

fn unknown(path: &str) -> Bad {
    let shown: String = path.chars().take(100).collect();
    Bad::new(404, format!("nothing is taken at {shown:?}; see `paths` of this source, /_bulk and /loki/api/v1/push"))
}

/// Answers as Elasticsearch gives them, as far as senders look.
fn probe(parts: &[&str]) -> Option<String> {
    Some(match parts {
        [] => format!(
            "{{\"name\":\"weir\",\"cluster_name\":\"weir\",\"cluster_uuid\":\"weir\",\"version\":{{\"number\":\"{VERSION}\",\"build_flavor\":\"default\",\"minimum_wire_compatibility_version\":\"7.17.0\"}},\"tagline\":\"You Know, for Search\"}}"
        ),
        ["_cluster", "health"] => "{\"cluster_name\":\"weir\",\"status\":\"green\",\"timed_out\":false,\"number_of_nodes\":1}".into(),
        ["_license"] => "{\"license\":{\"status\":\"active\",\"type\":\"basic\",\"mode\":\"basic\",\"uid\":\"weir\"}}".into(),
        ["_xpack"] => {
            "{\"build\":{},\"license\":{\"status\":\"active\",\"type\":\"basic\",\"mode\":\"basic\",\"uid\":\"weir\"},\"features\":{}}"
                .into()
        }
        _ => return None,
    })
}

fn plain(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn reply(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = plain(status, kind, body);
    let headers = answer.headers_mut();
    // Its clients send to nobody who does not say so.
    headers.insert("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    answer
}

/// As Elasticsearch tells of errors: others show it to people as it is.
fn refuse(bad: &Bad) -> Answer {
    let kind = match bad.status {
        401 => "security_exception",
        404 => "resource_not_found_exception",
        408 | 503 => "unavailable_exception",
        413 => "content_too_long_exception",
        _ => "parse_exception",
    };
    let mut text = format!("{{\"error\":{{\"type\":\"{kind}\",\"reason\":").into_bytes();
    lines::put_text(bad.message.as_bytes(), &mut text);
    text.extend_from_slice(format!("}},\"status\":{}}}\n", bad.status).as_bytes());
    let status = StatusCode::from_u16(bad.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = reply(status, "application/json", text);
    match bad.status {
        503 => drop(answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS))),
        401 => drop(answer.headers_mut().insert("www-authenticate", HeaderValue::from_static("Basic realm=\"weir\""))),
        _ => {}
    }
    answer
}

fn refused(why: Refusal) -> Bad {
    match why {
        Refusal::Full => unpack::no_room(),
        Refusal::Ending => ending(),
        Refusal::Late => Bad::new(503, "it is not known yet whether this is kept for good; send it again, it may then be there twice"),
    }
}

fn ending() -> Bad {
    Bad::new(503, "weir is ending; send it again in a moment")
}
