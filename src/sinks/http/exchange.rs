//! One request and what its answer means.
//!
//! In: a body. Out: what became of its rows. The table:
//!
//! | answer | what becomes of the rows |
//! |---|---|
//! | 2xx | delivered; of a bulk each item by its own status, where 409 (it is there already) is delivered, too |
//! | a status of `retry.statuses`, 5xx, 3xx, none | they go again, after `Retry-After` or a growing pause |
//! | of remote write 2.0: 415, or 2xx that does not say how many were written | they go again as 1.0 |
//! | of OTLP: a status that its specification does not name (429, 502, 503, 504), nor `retry.statuses` | as 4xx |
//! | a status of gRPC | retryable codes, RESOURCE_EXHAUSTED with RetryInfo: they go again; else as 4xx |
//! | any other 4xx | they are halved until the row is alone that is refused; it becomes a dead letter |
//!
//! Bound: one request at a time, `timeout`, and [`ANSWER_BYTES_MAX`] of an answer.

use super::body::Shape;
use crate::grpc::Caller;
use crate::sinks::config::{HttpBody, HttpCompress, HttpRetry, OtlpProtocol};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use telemetry::otlp::answer::{is_http_retryable, parse_response};
use telemetry::otlp::grpc::{Code, frame};
use telemetry::otlp::{Encoding, Signal, grpc_path, http_path};
use telemetry::remote::{After, WRITTEN_HEADERS, after};
use tracing::warn;

/// 10,000 items of a bulk with their errors.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// What is shown of an answer.
const SHOWN_CHARS: usize = 300;
/// The longest wish of a far side that is granted.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Delivered,
    /// The far side does not know this version of remote write.
    FallBack,
    /// One for each row.
    Items(Vec<Item>),
    /// Send it again.
    Retry {
        after: Option<Duration>,
        why: String,
    },
    /// It is never taken as it is.
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Delivered,
    Retry(String),
    Refused(Refusal),
}

/// Why a row is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub why: String,
}

/// A request.
pub struct Request<'a> {
    pub shape: &'a Shape,
    /// Of OTLP.
    pub signal: Signal,
    pub body: Vec<u8>,
    pub rows: usize,
    /// Names what is in it.
    pub key: &'a str,
    /// `traceparent` and `tracestate`.
    pub context: Vec<(&'static str, String)>,
}

/// How requests go.
enum Transport {
    Http(ureq::Agent),
    Grpc(Caller),
}

pub struct Exchange {
    transport: Transport,
    url: String,
    headers: Vec<(String, String)>,
    /// Value of `Authorization`.
    pub authorization: Option<String>,
    retry: HttpRetry,
    /// Answers by status, those of gRPC by the one of HTTP that says the same; 0: none came.
    pub answers: BTreeMap<u16, u64>,
    pub sent_bytes: u64,
    /// Items that were delivered and not kept, as answers of OTLP say.
    pub refused_items: u64,
}

impl Exchange {
    pub fn new(url: &str, body: HttpBody, headers: Vec<(String, String)>, timeout: Duration, retry: HttpRetry) -> anyhow::Result<Exchange> {
        let transport = match body {
            HttpBody::Otlp(OtlpProtocol::Grpc) => Transport::Grpc(Caller::over_tcp(url, timeout)?),
            _ => Transport::Http(agent(timeout)),
        };
        let (answers, url) = (BTreeMap::new(), url.into());
        Ok(Exchange { transport, url, headers, authorization: None, retry, answers, sent_bytes: 0, refused_items: 0 })
    }

    pub fn send(&mut self, request: Request<'_>) -> Sent {
        self.sent_bytes += request.body.len() as u64;
        let mut headers: Vec<(String, String)> = vec![("idempotency-key".into(), request.key.into())];
        headers.extend(request.context.iter().map(|(name, value)| (name.to_string(), value.clone())));
        headers.extend(self.authorization.iter().map(|value| ("authorization".into(), value.clone())));
        headers.extend(self.headers.iter().cloned());
        match self.transport {
            Transport::Http(_) => self.post(request, headers),
            Transport::Grpc(_) => self.call(request, headers),
        }
    }

    fn post(&mut self, request: Request<'_>, headers: Vec<(String, String)>) -> Sent {
        let Transport::Http(agent) = &self.transport else { unreachable!("`send` looks at it") };
        let Request { shape, signal, body, rows, .. } = request;
        let path = if matches!(shape.body, HttpBody::Otlp(_)) { http_path(signal) } else { "" };
        let mut post = agent.post(format!("{}{path}", self.url));
        let of_shape = shape.headers().into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in of_shape.chain(headers) {
            post = post.header(name, value);
        }
        let mut answer = match post.send(&body) {
            Ok(answer) => answer,
            Err(error) => {
                *self.answers.entry(0).or_default() += 1;
                return Sent::Retry { after: None, why: format!("{}: {error}", self.url) };
            }
        };
        let status = answer.status().as_u16();
        *self.answers.entry(status).or_default() += 1;
        let pause = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let pause = pause.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let has_counts = WRITTEN_HEADERS.iter().any(|name| answer.headers().contains_key(*name));
        // Read to its end, so that the connection can be used again.
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let text = match text {
            Ok(text) => text,
            Err(error) => return Sent::Retry { after: pause, why: format!("{}: the answer {status} is cut off: {error}", self.url) },
        };
        let is_otlp = matches!(shape.body, HttpBody::Otlp(_));
        let why = || format!("{} answers {status}: {}", self.url, shown(&text));
        match status {
            200..=299 if shape.body == HttpBody::Bulk => match self.read_items(&text, rows) {
                Some(items) => Sent::Items(items),
                None => Sent::Retry { after: pause, why: format!("{}, which is no answer to {rows} items of a bulk", why()) },
            },
            status if shape.version().is_some_and(|version| after(version, status, has_counts) == After::FallBack) => Sent::FallBack,
            200..=299 => {
                if is_otlp {
                    self.tell_partial(signal, &text);
                }
                Sent::Delivered
            }
            _ if is_otlp && !is_http_retryable(status) && !self.retry.statuses.contains(&status) => {
                Sent::Refused(Refusal { status, why: shown(&text) })
            }
            _ if self.is_retried(status) => Sent::Retry { after: pause, why: why() },
            _ => Sent::Refused(Refusal { status, why: shown(&text) }),
        }
    }

    fn call(&mut self, request: Request<'_>, mut headers: Vec<(String, String)>) -> Sent {
        let Transport::Grpc(caller) = &mut self.transport else { unreachable!("`send` looks at it") };
        let Request { shape, signal, body, .. } = request;
        let packed = match shape.compress {
            HttpCompress::None => None,
            HttpCompress::Gzip => Some("gzip"),
            HttpCompress::Zstd => Some("zstd"),
        };
        headers.extend(packed.map(|packed| ("grpc-encoding".into(), packed.into())));
        let answer = match caller.call(grpc_path(signal), &headers, frame(packed.is_some(), &body)) {
            Ok(answer) => answer,
            Err(why) => {
                *self.answers.entry(0).or_default() += 1;
                return Sent::Retry { after: None, why: format!("{}: {why}", self.url) };
            }
        };
        let status = answer.code.http_status();
        *self.answers.entry(status).or_default() += 1;
        match answer.code {
            Code::Ok => {
                self.tell_partial(signal, &answer.message);
                Sent::Delivered
            }
            code if code.is_retryable(answer.retry_after.is_some()) => {
                let after = answer.retry_after.map(|after| after.min(RETRY_AFTER_MAX));
                Sent::Retry { after, why: format!("{} answers {code:?}: {}", self.url, shown(answer.why.as_bytes())) }
            }
            code => Sent::Refused(Refusal { status, why: format!("{code:?}: {}", shown(answer.why.as_bytes())) }),
        }
    }

    /// A partial success says how many items were refused, and not which: nothing of it may be sent again.
    fn tell_partial(&mut self, signal: Signal, message: &[u8]) {
        if let Some((rejected, message)) = parse_response(signal, Encoding::Protobuf, message)
            && rejected > 0
        {
            self.refused_items += rejected;
            warn!(url = self.url, rejected, message, "the far side kept a part of what it was sent");
        }
    }

    fn is_retried(&self, status: u16) -> bool {
        !(400..=499).contains(&status) || self.retry.statuses.contains(&status)
    }

    fn read_items(&self, text: &[u8], rows: usize) -> Option<Vec<Item>> {
        let answer: BulkAnswer = serde_json::from_slice(text).ok()?;
        if !answer.errors {
            return (answer.items.is_empty() || answer.items.len() == rows).then(|| vec![Item::Delivered; rows]);
        }
        if answer.items.len() != rows {
            return None;
        }
        answer.items.into_iter().map(|item| item.into_values().next().map(|item| self.item(item))).collect()
    }

    fn item(&self, item: BulkItem) -> Item {
        let why = item.error.map_or(String::new(), |error| shown(error.to_string().as_bytes()));
        match item.status {
            // A conflict: the id is taken, by the same row in an earlier attempt.
            200..=299 | 409 => Item::Delivered,
            status if self.is_retried(status) => Item::Retry(format!("an item is answered {status}: {why}")),
            status => Item::Refused(Refusal { status, why }),
        }
    }
}

fn agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .build();
    ureq::Agent::from(config)
}

#[derive(Deserialize)]
struct BulkAnswer {
    #[serde(default)]
    errors: bool,
    #[serde(default)]
    items: Vec<BTreeMap<String, BulkItem>>,
}

#[derive(Deserialize)]
struct BulkItem {
    status: u16,
    error: Option<serde_json::Value>,
}

/// The start of an answer, on one line.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_apart_by_their_status() {
        let retry = HttpRetry::default();
        let exchange = Exchange::new("http://127.0.0.1:1/", HttpBody::Bulk, Vec::new(), Duration::from_secs(1), retry).unwrap();
        let answer = |items: &str| format!("{{\"errors\":true,\"items\":[{items}]}}");
        let text = answer(
            "{\"create\":{\"status\":201}},{\"create\":{\"status\":409,\"error\":{}}},{\"create\":{\"status\":429,\"error\":\"busy\"}},{\"create\":{\"status\":400,\"error\":{\"type\":\"t\"}}}",
        );
        let items = exchange.read_items(text.as_bytes(), 4).unwrap();
        assert_eq!(items[..2], [Item::Delivered, Item::Delivered]);
        assert_eq!(items[2], Item::Retry("an item is answered 429: \"busy\"".into()));
        assert_eq!(items[3], Item::Refused(Refusal { status: 400, why: "{\"type\":\"t\"}".into() }));
        assert_eq!(exchange.read_items(text.as_bytes(), 5), None, "one item is missing");
        assert_eq!(exchange.read_items(b"{\"errors\":false,\"items\":[]}", 2), Some(vec![Item::Delivered; 2]));
        assert_eq!(exchange.read_items(b"ok", 2), None);
        let statuses = [301, 400, 401, 404, 408, 413, 422, 425, 429, 500, 503];
        let retried = statuses.map(|status| exchange.is_retried(status));
        assert_eq!(retried, [true, false, true, true, true, false, false, true, true, true, true]);
    }
}
