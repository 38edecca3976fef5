//! Questions about records over the admin port, in JSON.
//!
//! In: `GET /api/v1/...` with a query line and a token, where tokens are configured. Out: hits, tables, counts over time, facets,
//! neighbours, a stream of what comes, or all records as they were received. `schemas/openapi.json` says every path and shape.
//! Read in this order: `access` (who asks, how many at a time), here (paths, parameters, refusals), `answers` (what is asked of the
//! desk, on a thread of its own), `body` (answers that are made while they are sent).
//! Bound: `query` of the config: places, time, bytes read, memory; a partial answer says so and why. The tenant comes from the
//! token and never from a query.

mod access;
mod answers;
mod body;
mod sql;

pub use access::Access;

use crate::config::QueryConfig;
use crate::desk::Desk;
use access::{Denied, Place};
use axum::Router;
use axum::extract::{Query as Parameters, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use body::Writer;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::warn;

const JSON: &str = "application/json";
const OPENAPI: &str = include_str!("../../schemas/openapi.json");

/// What every question is answered from.
pub struct Api {
    pub access: Access,
    pub config: QueryConfig,
    pub desk: Arc<Desk>,
}

/// Parameters of all questions; a path that does not take one refuses it by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    query: String,
    tenant: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
    by: Option<String>,
    span: Option<String>,
    buckets: Option<usize>,
    fields: Option<String>,
    top: Option<usize>,
    stream: Option<String>,
    position: Option<u64>,
    before: Option<usize>,
    after: Option<usize>,
}

/// Paths and the parameters that each takes; `schemas/openapi.json` says the same.
const SEARCH: Path = Path { name: "/api/v1/search", takes: &["query", "tenant", "since", "until", "limit", "order"], follows: false };
const HISTOGRAM: Path =
    Path { name: "/api/v1/histogram", takes: &["query", "tenant", "since", "until", "by", "span", "buckets"], follows: false };
const FACETS: Path = Path { name: "/api/v1/facets", takes: &["query", "tenant", "since", "until", "fields", "top"], follows: false };
const CONTEXT: Path = Path { name: "/api/v1/context", takes: &["tenant", "stream", "position", "before", "after"], follows: false };
const FIELDS: Path = Path { name: "/api/v1/fields", takes: &["tenant"], follows: false };
const SQL: Path = Path { name: "/api/v1/sql", takes: &["query", "tenant", "limit"], follows: false };
const EXPORT: Path = Path { name: "/api/v1/export", takes: &["query", "tenant", "since", "until", "limit", "order"], follows: false };
const TAIL: Path = Path { name: "/api/v1/tail", takes: &["query", "tenant"], follows: true };

#[derive(Clone, Copy)]
struct Path {
    name: &'static str,
    takes: &'static [&'static str],
    /// The answer goes on as long as somebody reads.
    follows: bool,
}

pub fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route(SEARCH.name, asks(SEARCH, answers::search))
        .route(HISTOGRAM.name, asks(HISTOGRAM, answers::histogram))
        .route(FACETS.name, asks(FACETS, answers::facets))
        .route(CONTEXT.name, asks(CONTEXT, answers::context))
        .route(FIELDS.name, asks(FIELDS, answers::fields))
        .route(SQL.name, asks(SQL, sql::sql))
        .route(EXPORT.name, streams(EXPORT, "application/x-ndjson", answers::export))
        .route(TAIL.name, streams(TAIL, "text/event-stream", answers::tail))
        .route("/api/v1/openapi.json", get(|| async { ([(CONTENT_TYPE, JSON)], OPENAPI) }))
        .with_state(api)
}

/// Why there is no answer. Displays as JSON: `{"error": ..., "help": ...}`.
pub struct Refusal {
    status: StatusCode,
    error: String,
    help: String,
    /// Everything that is wrong with a query.
    errors: Vec<Value>,
}

impl Refusal {
    /// The question itself is wrong.
    fn wrong(error: impl Into<String>, help: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, error: error.into(), help: help.into(), errors: Vec::new() }
    }

    /// What the desk says: what cannot be answered was asked for, a disk or a file that is damaged is ours.
    fn of(error: &anyhow::Error) -> Refusal {
        match error.downcast_ref::<lake::Unanswerable>() {
            Some(unanswerable) => Refusal::wrong(unanswerable.to_string(), ""),
            None => Refusal::failed(error),
        }
    }

    /// Where and why is for the operator's log: paths are no business of who asks.
    pub fn failed(error: &anyhow::Error) -> Refusal {
        warn!("a question could not be answered: {error:#}");
        let (error, help) = ("the answer could not be made", "weir's own log says why");
        Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, error: error.into(), help: help.into(), errors: Vec::new() }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        let (status, error, help) = match denied {
            Denied::Unknown => (StatusCode::UNAUTHORIZED, "this needs a token", "send Authorization: Bearer TOKEN"),
            Denied::Elsewhere => (StatusCode::FORBIDDEN, "the token is not of that tenant", "leave `tenant` out"),
            Denied::NotOperator => (StatusCode::FORBIDDEN, "this needs the operator's token", ""),
            Denied::Busy => (StatusCode::TOO_MANY_REQUESTS, "too many questions at a time", "ask again in a second"),
        };
        Refusal { status, error: error.into(), help: help.into(), errors: Vec::new() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.error });
        if !self.help.is_empty() {
            body["help"] = self.help.into();
        }
        if !self.errors.is_empty() {
            body["errors"] = self.errors.into();
        }
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        match self.status {
            StatusCode::UNAUTHORIZED => response.headers_mut().insert(WWW_AUTHENTICATE, "Bearer".parse().expect("a constant")),
            StatusCode::TOO_MANY_REQUESTS => response.headers_mut().insert(RETRY_AFTER, "1".parse().expect("a constant")),
            _ => None,
        };
        response
    }
}

/// One question that may be asked: who, and its place.
struct Admitted {
    asked: Asked,
    tenant: Option<String>,
    place: Place,
}

/// Who asks is found out before anything of the question is looked at.
fn admit(api: &Api, path: Path, request: &Request) -> Result<Admitted, Refusal> {
    let asker = api.access.asker(request.headers())?;
    let given = Parameters::<Vec<(String, IgnoredAny)>>::try_from_uri(request.uri()).map(|Parameters(given)| given).unwrap_or_default();
    if let Some((name, _)) = given.iter().find(|(name, _)| !path.takes.contains(&name.as_str())) {
        let takes = format!("it takes {}", path.takes.join(", "));
        return Err(Refusal::wrong(format!("{name:?} is no parameter of {}", path.name), takes));
    }
    let asked = Parameters::<Asked>::try_from_uri(request.uri());
    let Parameters(mut asked) = asked.map_err(|error| Refusal::wrong(error.body_text(), "/api/v1/openapi.json names the parameters"))?;
    let tenant = asker.tenant(asked.tenant.take())?;
    let place = api.access.place(&asker, path.follows)?;
    Ok(Admitted { asked, tenant, place })
}

/// Gives the answer as JSON text.
type Make = fn(&Api, &Asked, Option<String>) -> Result<String, Refusal>;
/// Checks the question; what it gives back writes the answer.
type Prepare = fn(&Arc<Api>, &Asked, Option<String>) -> Result<Stream, Refusal>;
type Stream = Box<dyn FnOnce(&mut Writer) -> std::io::Result<()> + Send>;

fn asks(path: Path, make: Make) -> MethodRouter<Arc<Api>> {
    get(move |State(api): State<Arc<Api>>, request: Request| async move {
        let admitted = match admit(&api, path, &request) {
            Ok(admitted) => admitted,
            Err(refusal) => return refusal.into_response(),
        };
        let made = tokio::task::spawn_blocking(move || {
            let _place = admitted.place;
            make(&api, &admitted.asked, admitted.tenant)
        });
        match made.await {
            Ok(Ok(text)) => (StatusCode::OK, [(CONTENT_TYPE, JSON)], text).into_response(),
            Ok(Err(refusal)) => refusal.into_response(),
            Err(error) => Refusal::failed(&anyhow::anyhow!("the answer broke off: {error}")).into_response(),
        }
    })
}

fn streams(path: Path, kind: &'static str, prepare: Prepare) -> MethodRouter<Arc<Api>> {
    get(move |State(api): State<Arc<Api>>, request: Request| async move {
        let admitted = match admit(&api, path, &request) {
            Ok(admitted) => admitted,
            Err(refusal) => return refusal.into_response(),
        };
        let (body, mut writer) = body::streamed();
        let prepared =
            tokio::task::spawn_blocking(move || prepare(&api, &admitted.asked, admitted.tenant).map(|stream| (stream, admitted.place)));
        let (stream, place) = match prepared.await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(refusal)) => return refusal.into_response(),
            Err(error) => return Refusal::failed(&anyhow::anyhow!("the answer broke off: {error}")).into_response(),
        };
        // Not of the runtime's pool: a stream may go on for days.
        let made = std::thread::Builder::new().name("stream".into()).spawn(move || {
            let _place = place;
            let _ = stream(&mut writer); // an error says that nobody reads any more
        });
        match made {
            Ok(_) => (StatusCode::OK, [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body).into_response(),
            Err(error) => Refusal::failed(&error.into()).into_response(),
        }
    })
}
