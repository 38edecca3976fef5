//! One request and what its answer means.
//!
//! In: a body. Out: what became of its rows. The table:
//!
//! | answer | what becomes of the rows |
//! |---|---|
//! | 2xx | delivered; of a bulk each item by its own status, where 409 (it is there already) is delivered, too |
//! | a status of `retry.statuses`, 5xx, 3xx, none | they go again, after `Retry-After` or a growing pause |
//! | of remote write 2.0: 415, or 2xx that does not say how many were written | they go again as 1.0 |
//! | any other 4xx | they are halved until the row is alone that is refused; it becomes a dead letter |
//!
//! Bound: one request at a time, `timeout`, and [`ANSWER_BYTES_MAX`] of an answer.

use super::body::Shape;
use crate::sinks::config::{HttpBody, HttpRetry, RemoteWriteVersion};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use telemetry::otlp::answer::parse_response;
use telemetry::otlp::{Encoding, Signal};
use telemetry::remote::WRITTEN_HEADERS;
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

pub struct Exchange {
    agent: ureq::Agent,
    url: String,
    headers: Vec<(String, String)>,
    /// Value of `Authorization`.
    pub authorization: Option<String>,
    retry: HttpRetry,
    /// Answers by status; 0: none came.
    pub answers: BTreeMap<u16, u64>,
    pub sent_bytes: u64,
    /// Items that were delivered and not kept, as answers of OTLP say.
    pub refused_items: u64,
}

impl Exchange {
    pub fn new(url: &str, headers: Vec<(String, String)>, timeout: Duration, retry: HttpRetry) -> Exchange {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = ureq::Agent::from(config);
        Exchange { agent, url: url.into(), headers, authorization: None, retry, answers: BTreeMap::new(), sent_bytes: 0, refused_items: 0 }
    }

    /// Sends a body with `rows` rows. `key`: names what is in it.
    pub fn send(&mut self, shape: &Shape, path: &str, body: &[u8], rows: usize, key: &str) -> Sent {
        let mut request =
            self.agent.post(format!("{}{path}", self.url)).header("content-type", shape.content_type()).header("idempotency-key", key);
        if let Some(encoding) = shape.content_encoding() {
            request = request.header("content-encoding", encoding);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if let HttpBody::RemoteWrite(version) = shape.body {
            request =
                request.header("x-prometheus-remote-write-version", if version == RemoteWriteVersion::V1 { "0.1.0" } else { "2.0.0" });
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        self.sent_bytes += body.len() as u64;
        let mut answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => {
                *self.answers.entry(0).or_default() += 1;
                return Sent::Retry { after: None, why: format!("{}: {error}", self.url) };
            }
        };
        let status = answer.status().as_u16();
        *self.answers.entry(status).or_default() += 1;
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let after = after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let has_counts = WRITTEN_HEADERS.iter().any(|name| answer.headers().contains_key(*name));
        // Read to its end, so that the connection can be used again.
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let text = match text {
            Ok(text) => text,
            Err(error) => return Sent::Retry { after, why: format!("{}: the answer {status} is cut off: {error}", self.url) },
        };
        let why = || format!("{} answers {status}: {}", self.url, shown(&text));
        match status {
            200..=299 if shape.body == HttpBody::Bulk => match self.read_items(&text, rows) {
                Some(items) => Sent::Items(items),
                None => Sent::Retry { after, why: format!("{}, which is no answer to {rows} items of a bulk", why()) },
            },
            200..=299 | 415 if shape.body == HttpBody::RemoteWrite(RemoteWriteVersion::V2) && (status == 415 || !has_counts) => {
                Sent::FallBack
            }
            200..=299 => {
                if shape.body == HttpBody::Otlp {
                    self.tell_partial(path, &text);
                }
                Sent::Delivered
            }
            _ if self.is_retried(status) => Sent::Retry { after, why: why() },
            _ => Sent::Refused(Refusal { status, why: shown(&text) }),
        }
    }

    /// A partial success says how many items were refused, and not which: nothing of it may be sent again.
    fn tell_partial(&mut self, path: &str, text: &[u8]) {
        let Some(signal) = Signal::of_http_path(path) else { return };
        if let Some((rejected, message)) = parse_response(signal, Encoding::Protobuf, text)
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
        let exchange = Exchange::new("http://127.0.0.1:1/", Vec::new(), Duration::from_secs(1), retry);
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
