//! OTLP over gRPC: unary calls over HTTP/2, answered when the hub holds what they brought.
//!
//! In: `POST` of one message, packed or not, to the three Export methods. Out: lines in the pipe of the token's tenant and signal;
//! the answer, or a status: what is wrong with the message is INVALID_ARGUMENT, what may work later UNAVAILABLE with RetryInfo.
//! Bound: as for HTTP; a connection has at most [`STREAMS_MAX`] calls at a time. gRPC's rules for unary calls are a page
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>), so they stand here.

use super::lines::{Bad, Lines};
use super::{Gate, Takes, context, ending, header, otlp, read_body, refused, unpack};
use crate::sources::config::Ack;
use crate::sources::push::Held;
use flow::event::Signal;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use telemetry::otlp::grpc::{self, Code};
use telemetry::otlp::of_grpc_path;
use telemetry::trace_context;
use tokio::net::TcpStream;

/// Calls of one connection at a time.
const STREAMS_MAX: u32 = 100;
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// Bytes of one call that may be on their way before they are read.
const WINDOW_BYTES: u32 = 1 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Before a message: whether it is packed, and its length.
const PREFIX_BYTES: usize = 5;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A message and the trailers behind it; an error has neither.
pub struct Reply {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = self.message.take().map(Frame::data);
        Poll::Ready(message.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Answers the calls of one connection.
pub async fn connection(stream: TcpStream, gate: Arc<Gate>) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let gate = Arc::clone(&gate);
        async move { Ok::<_, Infallible>(answer(&gate, request).await) }
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE);
    http.serve_connection(TokioIo::new(stream), service).await
}

async fn answer(gate: &Arc<Gate>, request: Request<Incoming>) -> Response<Reply> {
    let outcome = call(gate, request).await;
    let code = outcome.as_ref().map_or_else(otlp::code_of, |_| Code::Ok).number();
    gate.stats.count(&format!("grpc_{code}"), 1);
    let mut response = Response::new(Reply { message: None, trailers: None });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(ACCEPTED, HeaderValue::from_static("identity,gzip,zstd"));
    match outcome {
        Ok(message) => {
            let framed = grpc::frame(false, &message);
            let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
            *response.body_mut() = Reply { message: Some(framed.into()), trailers: Some(trailers) };
        }
        Err(bad) => {
            headers.insert(STATUS, HeaderValue::from(u16::from(code)));
            if let Ok(message) = HeaderValue::from_str(&grpc::encode_message(&bad.message)) {
                headers.insert(MESSAGE, message);
            }
            if let Some(Ok(details)) = otlp::details(&bad).map(|details| HeaderValue::from_str(&details)) {
                headers.insert(DETAILS, details);
            }
        }
    }
    response
}

/// The message of an answer.
async fn call(gate: &Arc<Gate>, request: Request<Incoming>) -> Result<Vec<u8>, Bad> {
    let bytes_max = gate.limits.body_bytes_max;
    let headers = request.headers();
    let kind = header(headers, CONTENT_TYPE);
    if !grpc::is_content_type(&kind) {
        return Err(Bad::new(415, "this port speaks gRPC; OTLP over HTTP has a port of its own"));
    }
    let Some(number) = gate.tokens.find(headers) else {
        return Err(Bad::new(401, "no token that is known; send one as `authorization: Bearer TOKEN` or `x-weir-token`"));
    };
    let Some(signal) = of_grpc_path(request.uri().path()) else {
        let shown: String = request.uri().path().chars().take(100).collect();
        return Err(Bad::new(501, format!("there is no method {shown:?}; this port takes the Export calls of OTLP")));
    };
    if gate.ends.load(Ordering::Relaxed) {
        return Err(ending());
    }
    if (gate.is_full)() {
        return Err(Bad::new(503, "the hub is full; send it again in a moment"));
    }
    if gate.tokens.is_other(number) {
        gate.stats.count("tenant_other", 1);
    }
    let encoding = header(headers, ENCODING);
    let context = gate.takes.has_context(signal).then(|| context::of(headers));
    let body = read_body(request.into_body(), &gate.stats.budget, bytes_max + PREFIX_BYTES);
    let late = || Bad::new(408, format!("the message did not come within {} s", gate.limits.timeout.as_secs()));
    let (body, held) = tokio::time::timeout(gate.limits.timeout, body).await.map_err(|_| late())??;
    let is_small = body.len() < super::SMALL_BYTES && encoding.is_empty();
    let work = {
        let gate = Arc::clone(gate);
        move || decode(&gate, signal, &Head { encoding: &encoding, context: context.as_ref() }, &body, held)
    };
    let (lines, held, answer) = match is_small {
        true => work(),
        false => tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Bad::new(500, "reading the message failed"))),
    }?;
    let pipe = gate.pipe(number, signal);
    let records = lines.records;
    let end = pipe.push(lines.bytes, held).map_err(refused)?;
    if gate.limits.ack == Ack::Durable {
        pipe.durable(end, gate.limits.timeout).await.map_err(refused)?;
    }
    gate.stats.count("records", records);
    Ok(answer.into_message(&gate.stats))
}

/// What the head of a call says of its message.
struct Head<'a> {
    encoding: &'a str,
    context: Option<&'a trace_context::Context>,
}

fn decode(gate: &Gate, signal: Signal, head: &Head<'_>, body: &[u8], mut held: Held) -> Result<(Lines, Held, otlp::Answer), Bad> {
    let encoding = head.encoding;
    let bytes_max = gate.limits.body_bytes_max;
    let message = match grpc::unframe(body, bytes_max).map_err(|error| Bad::new(400, error.to_string()))? {
        (false, message) => message.to_vec(),
        (true, message) if !matches!(encoding, "" | "identity") => {
            unpack::unpack(encoding, message.to_vec(), bytes_max, &mut |bytes| held.grow(bytes))?
        }
        (true, _) => return Err(Bad::new(400, "the message says that it is packed, and grpc-encoding does not say how")),
    };
    let Takes::Otlp(config) = &gate.takes else { return Err(Bad::new(501, "no OTLP is taken here")) };
    let mut lines = Lines::new(gate.limits.lines_bytes_max);
    let answer = otlp::take(signal, "application/x-protobuf", &message, config, gate.limits.lines_bytes_max, &mut lines)?;
    if let Some(context) = head.context {
        lines = context::put(context, lines)?;
    }
    drop(held);
    // What unpacking took is given back; from here on the lines count.
    let held = gate.stats.budget.take(lines.bytes.len() as u64).ok_or_else(unpack::no_room)?;
    Ok((lines, held, answer))
}
