//! Unary calls of gRPC over HTTP/2, without TLS: how the `otlp` sink speaks to port 4317, and the `gpu` source to the kubelet's socket.
//!
//! In: a message and its method. Out: the answer's message and status. One connection, made when it is needed, and once more where
//! one that was idle turns out to be closed. Who calls waits: a runtime of its own runs as long as a call does. Bound: one call at a
//! time, `timeout`, [`ANSWER_BYTES_MAX`] of an answer.

use anyhow::Context;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::path::PathBuf;
use std::time::Duration;
use telemetry::otlp::answer::parse_status;
use telemetry::otlp::grpc::{self, Code, decode_message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;

/// 10,000 pods of 1 KiB each.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    /// Host and port.
    Tcp(String),
    /// A socket.
    Unix(PathBuf),
}

impl Server {
    fn authority(&self) -> &str {
        match self {
            Server::Tcp(authority) => authority,
            Server::Unix(_) => "localhost",
        }
    }
}

pub struct Caller {
    runtime: Runtime,
    server: Server,
    timeout: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What a call came to.
#[derive(Debug)]
pub struct Answer {
    pub code: Code,
    pub why: String,
    pub retry_after: Option<Duration>,
    /// Empty where there is none.
    pub message: Vec<u8>,
}

impl Caller {
    /// `url`: `http://HOST:PORT`.
    pub fn over_tcp(url: &str, timeout: Duration) -> anyhow::Result<Caller> {
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
        let port = if authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) { "" } else { ":80" };
        Caller::new(Server::Tcp(format!("{authority}{port}")), timeout)
    }

    pub fn over_socket(path: PathBuf, timeout: Duration) -> anyhow::Result<Caller> {
        Caller::new(Server::Unix(path), timeout)
    }

    fn new(server: Server, timeout: Duration) -> anyhow::Result<Caller> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime of gRPC")?;
        Ok(Caller { runtime, server, timeout, connection: None })
    }

    /// Calls a method with a message in its frame. Errors: why no answer came.
    pub fn call(&mut self, method: &str, headers: &[(String, String)], framed: Vec<u8>) -> Result<Answer, String> {
        let Caller { runtime, server, timeout, connection } = self;
        let framed = Bytes::from(framed);
        let call = async {
            let was_idle = connection.is_some();
            let first = exchange(server, connection, method, headers, framed.clone(), *timeout).await;
            match first {
                Err(_) if was_idle => exchange(server, connection, method, headers, framed, *timeout).await,
                outcome => outcome,
            }
        };
        let outcome = runtime.block_on(async { tokio::time::timeout(*timeout, call).await });
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} ms", timeout.as_millis())));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome.map_err(|error| format!("{error:#}"))
    }
}

async fn exchange(
    server: &Server,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    method: &str,
    headers: &[(String, String)],
    framed: Bytes,
    timeout: Duration,
) -> anyhow::Result<Answer> {
    let mut sender = match connection.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => connect(server).await?,
    };
    sender.ready().await.context("the connection is closed")?;
    let mut request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{}{method}", server.authority()))
        .header(CONTENT_TYPE, grpc::CONTENT_TYPE)
        .header(TE, "trailers")
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header("grpc-timeout", format!("{}m", timeout.as_millis().min(99_999_999)));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(Full::new(framed))?).await.context("the call broke")?;
    *connection = Some(sender);
    let status = response.status().as_u16();
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer is cut off: {error}"))?;
    let trailers = body.trailers().cloned();
    // An answer of trailers only has its status in the head.
    let of_call = trailers.as_ref().filter(|trailers| trailers.contains_key("grpc-status")).unwrap_or(&head.headers);
    let mut answer = answer(of_call, status);
    // It was asked for no packed one; without a message, too, it says that all is well.
    if let (Code::Ok, Ok((false, message))) = (answer.code, grpc::unframe(&body.to_bytes(), ANSWER_BYTES_MAX)) {
        answer.message = message.to_vec();
    }
    Ok(answer)
}

async fn connect(server: &Server) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    match server {
        Server::Tcp(authority) => {
            let stream = TcpStream::connect(authority).await.with_context(|| format!("cannot connect to {authority}"))?;
            let _ = stream.set_nodelay(true); // where it does not work calls take longer
            shake_hands(stream).await
        }
        Server::Unix(path) => {
            let stream = UnixStream::connect(path).await.with_context(|| format!("cannot connect to {}", path.display()))?;
            shake_hands(stream).await
        }
    }
}

async fn shake_hands(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new());
    let (sender, connection) = http.handshake(TokioIo::new(stream)).await.context("no HTTP/2 is spoken there")?;
    tokio::spawn(connection);
    Ok(sender)
}

/// What headers or trailers say of a call. Without a status of gRPC the HTTP status says it.
/// Source: <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>
fn answer(headers: &HeaderMap, status: u16) -> Answer {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = match (text("grpc-status"), status) {
        (Some(code), _) => Code::parse(code.trim()),
        (None, 400) => Code::Internal,
        (None, 401) => Code::Unauthenticated,
        (None, 403) => Code::PermissionDenied,
        (None, 404) => Code::Unimplemented,
        (None, 429 | 502 | 503 | 504) => Code::Unavailable,
        (None, _) => Code::Unknown,
    };
    let details = text("grpc-status-details-bin").and_then(|details| {
        let details = details.trim();
        BASE64_STANDARD_NO_PAD.decode(details).or_else(|_| BASE64_STANDARD.decode(details)).ok()
    });
    let retry_after = details.and_then(|details| parse_status(&details)?.retry_after);
    let why = text("grpc-message").map_or_else(|| format!("HTTP status {status}"), decode_message);
    Answer { code, why, retry_after, message: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::otlp::{Encoding, answer::status};

    #[test]
    fn a_status_is_read_wherever_it_stands() {
        let details = BASE64_STANDARD.encode(status(Encoding::Protobuf, Code::ResourceExhausted, "full", Some(Duration::from_secs(3))));
        for (headers, http, want) in [
            (vec![("grpc-status", "0")], 200, (Code::Ok, "HTTP status 200", None)),
            (vec![("grpc-status", "3"), ("grpc-message", "bad%20data")], 200, (Code::InvalidArgument, "bad data", None)),
            (vec![("grpc-status", "8"), ("grpc-status-details-bin", &details)], 200, (Code::ResourceExhausted, "HTTP status 200", Some(3))),
            (vec![("grpc-status", "99")], 200, (Code::Unknown, "HTTP status 200", None)),
            (vec![], 503, (Code::Unavailable, "HTTP status 503", None)),
            (vec![], 404, (Code::Unimplemented, "HTTP status 404", None)),
            (vec![], 200, (Code::Unknown, "HTTP status 200", None)),
        ] {
            let map = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            let found = answer(&map, http);
            assert_eq!((found.code, found.why.as_str(), found.retry_after.map(|after| after.as_secs())), want, "{headers:?} {http}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        let of = |url: &str| Caller::over_tcp(url, Duration::from_secs(1)).unwrap().server.authority().to_owned();
        assert_eq!([of("http://127.0.0.1:4317/"), of("http://otel"), of("http://[::1]:4317")], ["127.0.0.1:4317", "otel:80", "[::1]:4317"]);
    }
}
