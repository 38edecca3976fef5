//! OTLP over HTTP: bodies to lines, and what is answered; `grpc` shares both.
//!
//! In: a body of protobuf or JSON, unpacked; out: a line for each log record, data point or span. Items that are invalid are refused
//! with a count and the first reason (partial success), the rest is kept; a body that is broken is refused as a whole.

use super::lines::{Bad, Lines};
use super::{Route, plain};
use crate::sources::config::OtlpConfig;
use crate::sources::push::Stats;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use flow::event::Signal;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use std::time::Duration;
use telemetry::otlp::grpc::Code;
use telemetry::otlp::{self, Accepted, Encoding, Options, answer};

/// What a request gets.
pub struct Answer {
    signal: Signal,
    encoding: Encoding,
    accepted: Accepted,
}

pub fn route(method: &Method, path: &str) -> Result<Route, Bad> {
    match otlp::of_http_path(path.trim_end_matches('/')) {
        Some(signal) if *method == Method::POST => Ok(Route::Otlp(signal)),
        Some(_) => Err(Bad::new(405, "OTLP is sent by POST")),
        None if path == "/ready" => Ok(Route::Probe("ready\n".into())),
        None => Err(Bad::new(404, "OTLP is taken at /v1/logs, /v1/metrics and /v1/traces")),
    }
}

/// `bytes_max`: of all lines.
pub fn take(signal: Signal, kind: &str, body: &[u8], config: &OtlpConfig, bytes_max: usize, lines: &mut Lines) -> Result<Answer, Bad> {
    let encoding = Encoding::of_content_type(kind)
        .ok_or_else(|| Bad::new(415, "OTLP is sent as application/x-protobuf or application/json; say which in Content-Type"))?;
    let options = Options { inherit: config.traceparent.clone(), bytes_max, ..Options::default() };
    let accepted = otlp::read(signal, encoding, body, &options, &mut lines.bytes).map_err(|error| Bad::new(400, error.to_string()))?;
    lines.records += accepted.items;
    Ok(Answer { signal, encoding, accepted })
}

impl Answer {
    /// The message of the answer; what was refused is counted.
    pub fn into_message(self, stats: &Stats) -> Vec<u8> {
        for (reason, n) in &self.accepted.rejected {
            stats.count(&format!("refused_{}", reason.name()), *n);
        }
        answer::response(self.signal, self.encoding, self.accepted.rejected_total(), &self.accepted.message())
    }
}

pub fn reply(answer: Answer, stats: &Stats) -> Response<Full<Bytes>> {
    let kind = answer.encoding.content_type();
    plain(StatusCode::OK, kind, answer.into_message(stats))
}

/// An error as `google.rpc.Status`, in the encoding of the request.
pub fn refuse(bad: &Bad, kind: &str) -> Response<Full<Bytes>> {
    let encoding = Encoding::of_content_type(kind).unwrap_or(Encoding::Json);
    let status = StatusCode::from_u16(bad.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = answer::status(encoding, code_of(bad), &bad.message, retry_after(bad));
    let mut response = plain(status, encoding.content_type(), body);
    if bad.status == 503 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(super::RETRY_SECONDS));
    }
    response
}

/// When to come again, where that may help.
fn retry_after(bad: &Bad) -> Option<Duration> {
    (bad.status == 503).then(|| Duration::from_secs(super::RETRY_SECONDS))
}

/// gRPC's name for what is wrong.
pub fn code_of(bad: &Bad) -> Code {
    match bad.status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        408 => Code::DeadlineExceeded,
        // Without RetryInfo: it stays too large.
        413 => Code::ResourceExhausted,
        404 | 405 | 415 | 501 => Code::Unimplemented,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// What `grpc-status-details-bin` says; only where the sender may come again.
pub fn details(bad: &Bad) -> Option<String> {
    retry_after(bad)?;
    Some(BASE64_STANDARD_NO_PAD.encode(answer::status(Encoding::Protobuf, code_of(bad), &bad.message, retry_after(bad))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::otlp::answer::parse_status;

    /// EB 4.3: where there is no room, senders of both transports are told when to come again; of what is wrong they are not.
    #[test]
    fn who_may_come_again_is_told_when() {
        let full = Bad::new(503, "the hub is full");
        let response = refuse(&full, "application/x-protobuf");
        assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].as_bytes()), (503, b"1".as_slice()));
        let details = BASE64_STANDARD_NO_PAD.decode(details(&full).expect("details")).expect("base64");
        let status = parse_status(&details).expect("a status");
        assert_eq!((status.code, status.retry_after), (Code::Unavailable, Some(Duration::from_secs(1))));
        for (status, code) in [(400, Code::InvalidArgument), (401, Code::Unauthenticated), (413, Code::ResourceExhausted)] {
            let bad = Bad::new(status, "wrong");
            assert_eq!((code_of(&bad), super::details(&bad)), (code, None));
            assert!(!refuse(&bad, "application/json").headers().contains_key(RETRY_AFTER));
        }
    }
}
