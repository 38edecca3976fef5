//! What a receiver answers: the responses of the export services and statuses, in protobuf and JSON; and how a sender reads them.
//!
//! Full success leaves `partial_success` unset. A count above zero says how many items were refused for good: a sender must not send
//! them again. A count of zero with a message is a warning. Errors are a `google.rpc.Status`; with UNAVAILABLE (or 503) it says in a
//! `RetryInfo` when to come again. Source: <https://opentelemetry.io/docs/specs/otlp>.

use super::grpc::Code;
use super::text::put_string;
use super::{Encoding, Signal};
use crate::wire::{self, Message, put_bytes, put_message, put_varint};
use serde_json::value::Value as Json;
use std::time::Duration;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The statuses of HTTP after which a sender comes again, after `Retry-After` if it is there.
pub fn is_http_retryable(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

fn rejected_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "rejectedLogRecords",
        Signal::Metrics => "rejectedDataPoints",
        Signal::Traces => "rejectedSpans",
    }
}

/// The body of an `Export*ServiceResponse`.
pub fn response(signal: Signal, encoding: Encoding, rejected: u64, message: &str) -> Vec<u8> {
    let is_partial = rejected > 0 || !message.is_empty();
    let mut out = Vec::new();
    match encoding {
        Encoding::Protobuf if is_partial => put_message(&mut out, 1, |out| {
            if rejected > 0 {
                put_varint(out, 1, rejected);
            }
            if !message.is_empty() {
                put_bytes(out, 2, message.as_bytes());
            }
        }),
        Encoding::Protobuf => {}
        Encoding::Json if is_partial => {
            out.extend_from_slice(b"{\"partialSuccess\":{");
            if rejected > 0 {
                out.extend_from_slice(format!("\"{}\":\"{rejected}\"", rejected_name(signal)).as_bytes());
            }
            if !message.is_empty() {
                out.extend_from_slice(if rejected > 0 { b",\"errorMessage\":" } else { b"\"errorMessage\":" });
                let _ = put_string(&mut out, message.as_bytes()); // a str is UTF-8
            }
            out.extend_from_slice(b"}}");
        }
        Encoding::Json => out.extend_from_slice(b"{}"),
    }
    out
}

/// Reads a response: how many items were refused, and the message. `None`: it is no response.
pub fn parse_response(signal: Signal, encoding: Encoding, body: &[u8]) -> Option<(u64, String)> {
    match encoding {
        Encoding::Protobuf => parse_partial(body).ok(),
        Encoding::Json if body.trim_ascii().is_empty() => Some((0, String::new())),
        Encoding::Json => {
            let json: Json = serde_json::from_slice(body).ok()?;
            let partial = json.as_object()?.get("partialSuccess").cloned().unwrap_or_default();
            let rejected = match &partial[rejected_name(signal)] {
                Json::String(text) => text.parse().ok()?,
                Json::Null => 0,
                number => number.as_u64()?,
            };
            Some((rejected, partial["errorMessage"].as_str().unwrap_or_default().to_string()))
        }
    }
}

fn parse_partial(body: &[u8]) -> Result<(u64, String), wire::Malformed> {
    let (mut rejected, mut message) = (0, String::new());
    for field in Message::new(body) {
        let (1, partial) = field? else { continue };
        for field in partial.message()? {
            match field? {
                (1, field) => rejected = field.varint()?,
                (2, field) => message = String::from_utf8_lossy(field.bytes()?).into_owned(),
                _ => {}
            }
        }
    }
    Ok((rejected, message))
}

/// A `google.rpc.Status`: the body of an error over HTTP, `grpc-status-details-bin` over gRPC.
pub fn status(encoding: Encoding, code: Code, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        Encoding::Protobuf => {
            if code != Code::Ok {
                put_varint(&mut out, 1, u64::from(code.number()));
            }
            if !message.is_empty() {
                put_bytes(&mut out, 2, message.as_bytes());
            }
            if let Some(delay) = retry_after {
                put_message(&mut out, 3, |out| {
                    put_bytes(out, 1, RETRY_INFO.as_bytes());
                    put_message(out, 2, |out| put_message(out, 1, |out| put_duration(out, delay)));
                });
            }
        }
        Encoding::Json => {
            out.extend_from_slice(format!("{{\"code\":{},\"message\":", code.number()).as_bytes());
            let _ = put_string(&mut out, message.as_bytes()); // a str is UTF-8
            if let Some(delay) = retry_after {
                let delay = json_duration(delay);
                out.extend_from_slice(format!(",\"details\":[{{\"@type\":\"{RETRY_INFO}\",\"retryDelay\":\"{delay}\"}}]").as_bytes());
            }
            out.push(b'}');
        }
    }
    out
}

fn put_duration(out: &mut Vec<u8>, delay: Duration) {
    if delay.as_secs() > 0 {
        put_varint(out, 1, delay.as_secs());
    }
    if delay.subsec_nanos() > 0 {
        put_varint(out, 2, u64::from(delay.subsec_nanos()));
    }
}

/// `1.500s`: no fraction, or one of 3, 6 or 9 digits.
fn json_duration(delay: Duration) -> String {
    match (delay.as_secs(), delay.subsec_nanos()) {
        (seconds, 0) => format!("{seconds}s"),
        (seconds, nanos) if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanos / 1_000_000),
        (seconds, nanos) if nanos % 1_000 == 0 => format!("{seconds}.{:06}s", nanos / 1_000),
        (seconds, nanos) => format!("{seconds}.{nanos:09}s"),
    }
}

/// What a status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: String,
    pub retry_after: Option<Duration>,
}

/// Reads a status in protobuf; `None`: it is none.
pub fn parse_status(body: &[u8]) -> Option<Status> {
    let read = || -> Result<Status, wire::Malformed> {
        let mut status = Status { code: Code::Ok, message: String::new(), retry_after: None };
        for field in Message::new(body) {
            match field? {
                (1, field) => {
                    status.code =
                        usize::try_from(field.varint()?).ok().and_then(|code| Code::ALL.get(code).copied()).unwrap_or(Code::Unknown)
                }
                (2, field) => status.message = String::from_utf8_lossy(field.bytes()?).into_owned(),
                (3, field) => status.retry_after = parse_retry_info(field.bytes()?)?.or(status.retry_after),
                _ => {}
            }
        }
        Ok(status)
    };
    read().ok()
}

fn parse_retry_info(detail: &[u8]) -> Result<Option<Duration>, wire::Malformed> {
    let (mut kind, mut value) = (&b""[..], &b""[..]);
    for field in Message::new(detail) {
        match field? {
            (1, field) => kind = field.bytes()?,
            (2, field) => value = field.bytes()?,
            _ => {}
        }
    }
    if kind != RETRY_INFO.as_bytes() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for field in Message::new(value) {
        let (1, delay) = field? else { continue };
        for field in delay.message()? {
            match field? {
                (1, field) => seconds = field.varint()? as i64,
                (2, field) => nanos = field.varint()? as i32,
                _ => {}
            }
        }
    }
    let nanos = nanos.clamp(0, 999_999_999) as u32;
    Ok(Some(Duration::new(u64::try_from(seconds).unwrap_or(0), nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_success_says_nothing_and_partial_success_how_many() {
        for signal in Signal::ALL {
            assert_eq!(response(signal, Encoding::Protobuf, 0, ""), b"");
            assert_eq!(response(signal, Encoding::Json, 0, ""), b"{}");
        }
        assert_eq!(response(Signal::Logs, Encoding::Protobuf, 3, "ab"), b"\x0a\x06\x08\x03\x12\x02ab");
        let json = |signal, rejected, message| String::from_utf8(response(signal, Encoding::Json, rejected, message)).unwrap();
        assert_eq!(json(Signal::Logs, 3, "a\"b"), r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"a\"b"}}"#);
        assert_eq!(json(Signal::Metrics, 3, ""), r#"{"partialSuccess":{"rejectedDataPoints":"3"}}"#);
        assert_eq!(json(Signal::Traces, 0, "slow"), r#"{"partialSuccess":{"errorMessage":"slow"}}"#);
        for signal in Signal::ALL {
            for encoding in [Encoding::Protobuf, Encoding::Json] {
                for (rejected, message) in [(0, ""), (0, "a"), (7, ""), (1 << 40, "b\n")] {
                    let body = response(signal, encoding, rejected, message);
                    assert_eq!(parse_response(signal, encoding, &body), Some((rejected, message.to_string())));
                }
            }
        }
        assert_eq!(parse_response(Signal::Logs, Encoding::Json, b"[]"), None);
        assert_eq!(parse_response(Signal::Logs, Encoding::Protobuf, b"\x0a\x09"), None);
    }

    #[test]
    fn unavailable_says_when_to_come_again() {
        let delay = Duration::from_millis(1500);
        let body = status(Encoding::Protobuf, Code::Unavailable, "full", Some(delay));
        let want =
            b"\x08\x0e\x12\x04full\x1a\x36\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x0a\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01";
        assert_eq!(body, want);
        assert_eq!(parse_status(&body), Some(Status { code: Code::Unavailable, message: "full".to_string(), retry_after: Some(delay) }));
        let json = String::from_utf8(status(Encoding::Json, Code::Unavailable, "full", Some(delay))).unwrap();
        assert_eq!(
            json,
            r#"{"code":14,"message":"full","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.500s"}]}"#
        );
        assert_eq!(status(Encoding::Json, Code::InvalidArgument, "x", None), br#"{"code":3,"message":"x"}"#);
        for end in 0..body.len() {
            let _ = parse_status(&body[..end]);
        }
    }

    #[test]
    fn four_statuses_of_http_are_retried() {
        let retried: Vec<u16> = (100..600).filter(|status| is_http_retryable(*status)).collect();
        assert_eq!(retried, [429, 502, 503, 504]);
    }
}
