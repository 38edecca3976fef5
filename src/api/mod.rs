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
use serde_json::{Value, json};
use std::sync::Arc;

const JSON: &str = "application/json";
const OPENAPI: &str = include_str!("../../schemas/openapi.json");

/// What every question is answered from.
pub struct Api {
    pub access: Access,
    pub config: QueryConfig,
    pub desk: Arc<Desk>,
}

/// Parameters of all questions; each looks at its own and refuses others by name.
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

pub fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/v1/search", asks(answers::search))
        .route("/api/v1/histogram", asks(answers::histogram))
        .route("/api/v1/facets", asks(answers::facets))
        .route("/api/v1/context", asks(answers::context))
        .route("/api/v1/fields", asks(answers::fields))
        .route("/api/v1/sql", asks(sql::sql))
        .route("/api/v1/export", streams("application/x-ndjson", answers::export))
        .route("/api/v1/tail", streams("text/event-stream", answers::tail))
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

    /// What the desk says: a disk that fails is ours, everything else was asked for.
    fn of(error: &anyhow::Error) -> Refusal {
        let io = error.chain().any(|cause| cause.is::<std::io::Error>());
        if io { Refusal::failed(error) } else { Refusal::wrong(format!("{error:#}"), "") }
    }

    pub fn failed(error: &anyhow::Error) -> Refusal {
        Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, error: format!("{error:#}"), help: String::new(), errors: Vec::new() }
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
fn admit(api: &Api, request: &Request) -> Result<Admitted, Refusal> {
    let asker = api.access.asker(request.headers())?;
    let asked = Parameters::<Asked>::try_from_uri(request.uri());
    let Parameters(mut asked) = asked.map_err(|error| Refusal::wrong(error.body_text(), "/api/v1/openapi.json names the parameters"))?;
    let tenant = asker.tenant(asked.tenant.take())?;
    let place = api.access.place(&asker)?;
    Ok(Admitted { asked, tenant, place })
}

/// Gives the answer as JSON text.
type Make = fn(&Api, &Asked, Option<String>) -> Result<String, Refusal>;
/// Checks the question; what it gives back writes the answer.
type Prepare = fn(&Arc<Api>, &Asked, Option<String>) -> Result<Stream, Refusal>;
type Stream = Box<dyn FnOnce(&mut Writer) -> std::io::Result<()> + Send>;

fn asks(make: Make) -> MethodRouter<Arc<Api>> {
    get(move |State(api): State<Arc<Api>>, request: Request| async move {
        let admitted = match admit(&api, &request) {
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

fn streams(kind: &'static str, prepare: Prepare) -> MethodRouter<Arc<Api>> {
    get(move |State(api): State<Arc<Api>>, request: Request| async move {
        let admitted = match admit(&api, &request) {
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
