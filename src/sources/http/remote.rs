//! Prometheus' remote write: bodies to samples, and what is answered.
//!
//! In: a body of protobuf, unpacked; out: a line for each sample. What breaks a rule is refused by name and counted; the rest of the
//! request is kept, and the sender is told, so that it does not send it again. Bound: [`MEMORY_BYTES`] of series that are known by
//! heart.

use super::lines::{Bad, Lines};
use super::{Route, plain};
use crate::sources::config::RemoteWriteConfig;
use crate::sources::push::Stats;
use crate::sources::status::lock;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use std::sync::Mutex;
use telemetry::remote::{self, Malformed, Options, Received, Reply, State, Unsupported, Version};

/// Series that are known by heart, by each that reads bodies: about 150,000. Of more none is, and a sample costs five times as much.
const MEMORY_BYTES: usize = 96 << 20;
/// Bodies that are read at a time.
const READERS: usize = super::UNPACKERS + 1;

/// What is known of series from request to request; whoever reads a body takes one of them.
#[derive(Default)]
pub struct Memory(Mutex<Vec<State>>);

/// What a request gets.
pub struct Answer(Received);

pub fn route(method: &Method, path: &str, config: &RemoteWriteConfig) -> Result<Route, Bad> {
    let is_path = path.trim_end_matches('/') == config.path.trim_end_matches('/');
    match is_path && *method == Method::POST {
        true => Ok(Route::RemoteWrite),
        false if path == "/ready" => Ok(Route::Probe("ready\n".into())),
        false if is_path => Err(Bad::new(405, "requests of remote write are sent by POST")),
        false => {
            let shown: String = path.chars().take(100).collect();
            Err(Bad::new(404, format!("nothing is taken at {shown:?}; requests of remote write are taken at {}", config.path)))
        }
    }
}

/// Reads the body, which is packed. `room` is asked for what it unpacks to.
pub fn unpack(kind: &str, encoding: &str, body: &[u8], bytes_max: usize, room: &mut dyn FnMut(u64) -> bool) -> Result<Vec<u8>, Bad> {
    let unsupported = |error: Unsupported| Bad::new(415, error.to_string());
    Version::of_content_type(Some(kind)).map_err(unsupported)?;
    remote::check_encoding(Some(encoding)).map_err(unsupported)?;
    let claimed = snap::raw::decompress_len(body).unwrap_or(0);
    if claimed <= bytes_max && !room(claimed as u64) {
        return Err(super::unpack::no_room());
    }
    remote::unpack(body, bytes_max).map_err(malformed)
}

fn malformed(error: Malformed) -> Bad {
    Bad::new(error.status(), error.to_string())
}

pub fn take(kind: &str, body: &[u8], out_bytes_max: usize, memory: &Memory, lines: &mut Lines) -> Result<Answer, Bad> {
    let version = Version::of_content_type(Some(kind)).map_err(|error| Bad::new(415, error.to_string()))?;
    let options = Options { out_bytes_max, ..Options::default() };
    let mut state = lock(&memory.0).pop().unwrap_or_else(|| State::new(MEMORY_BYTES));
    let received = remote::read(version, body, &options, &mut state, &mut lines.bytes);
    let mut states = lock(&memory.0);
    if states.len() < READERS {
        states.push(state);
    }
    drop(states);
    let received = received.map_err(malformed)?;
    lines.records += received.samples + received.histograms;
    Ok(Answer(received))
}

/// The answer to a request whose valid samples are kept.
pub fn reply(Answer(received): Answer, stats: &Stats) -> Response<Full<Bytes>> {
    for (reason, n) in &received.rejected {
        stats.count(&format!("refused_{}", reason.name()), *n);
    }
    response(remote::reply(&Ok(received)))
}

pub fn refuse(bad: &Bad) -> Response<Full<Bytes>> {
    response(match bad.status {
        503 => remote::reply_busy(&bad.message, super::RETRY_SECONDS),
        415 => remote::reply_unsupported(&Unsupported(bad.message.clone())),
        413 => remote::reply(&Err(Malformed::TooLarge(bad.message.clone()))),
        status => Reply { status, ..remote::reply(&Err(Malformed::Broken(bad.message.clone()))) },
    })
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_REQUEST);
    let text = if reply.text.is_empty() { reply.text } else { reply.text + "\n" };
    let mut response = plain(status, "text/plain; charset=utf-8", text.into_bytes());
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
