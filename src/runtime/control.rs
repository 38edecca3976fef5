//! Control: signals and the admin port, on one thread with the only tokio runtime of the process.
//!
//! In: SIGTERM and SIGINT (drain; a second one ends at once), SIGHUP (archives reopen, pipeline files are
//! read again), SIGUSR2 (not built yet), requests for `/livez`, `/readyz`, `/metrics`, `/api/ledger` and `/api/sources`. Health is progress: alive and stuck is unhealthy and
//! says where. The port is loopback only; the config refuses anything else.

use super::deliver::SinkSignals;
use super::lane::Signals;
use super::reload::{Current, Reloads};
use crate::api::{self, Access, Api, Refusal};
use crate::config::Process;
use crate::desk::Desk;
use crate::sources::push::Stats;
use crate::sources::status;
use crate::{env, metrics};
use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hub::Hub;
use std::collections::{BTreeSet, HashMap};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// A component that has not moved for this long, though it has work, is not ready.
const SLOW_MS: u64 = 10_000;
/// After this time it is stuck: whoever watches over the process may start it anew.
const STUCK_MS: u64 = 30_000;

/// What health and metrics are read from.
pub struct Vitals {
    pub signals: Arc<Signals>,
    pub plans: Vec<(String, Arc<Current>)>,
    pub reloads: Arc<Reloads>,
    pub hubs: Vec<(String, Arc<Hub>)>,
    /// Pipeline, its delay line, who decides.
    pub delays: Vec<(String, Arc<Hub>, Arc<super::delay::Status>)>,
    /// What was published, where a bookkeeper is at work.
    pub books: Option<Arc<super::bookkeeper::Status>>,
    /// What was done for lakes, where a caretaker is at work.
    pub care: Option<Arc<super::caretaker::Status>>,
    pub lanes: Vec<(String, Arc<AtomicU64>)>,
    /// Pipeline, source, its files.
    pub sources: Vec<(String, String, crate::sources::status::Shared)>,
    /// Pipeline, source that others send to, what it did.
    pub pushed: Vec<(String, String, Arc<Stats>)>,
    /// Pipeline, sink, signals.
    pub sinks: Vec<(String, String, Arc<SinkSignals>)>,
    pub ready: AtomicBool,
    /// On every metric.
    pub labels: HashMap<String, String>,
    /// Pipeline and tenants that have labels of their own on the page: who has them keeps them.
    pub named: Mutex<HashMap<String, BTreeSet<Vec<u8>>>>,
}

impl Vitals {
    pub fn new(signals: Arc<Signals>) -> Vitals {
        Vitals {
            signals,
            plans: Vec::new(),
            reloads: Arc::default(),
            hubs: Vec::new(),
            delays: Vec::new(),
            books: None,
            care: None,
            lanes: Vec::new(),
            sources: Vec::new(),
            pushed: Vec::new(),
            sinks: Vec::new(),
            ready: AtomicBool::new(false),
            labels: Default::default(),
            named: Mutex::default(),
        }
    }

    /// Components that have work and have not moved for `for_ms`.
    fn stuck(&self, for_ms: u64) -> Vec<String> {
        let now = (env::now().0 / 1_000_000) as u64;
        let since = |at: u64| at > 0 && now.saturating_sub(at) > for_ms;
        let silent = |beat: &AtomicU64| since(beat.load(Ordering::Relaxed));
        // A lane that waits for room in the hub is not stuck: a sink is.
        let full = self.hubs.iter().map(|h| &h.1).chain(self.delays.iter().map(|d| &d.1)).any(|hub| hub.is_full());
        let mut stuck: Vec<String> = self.lanes.iter().filter(|l| !full && silent(&l.1)).map(|l| l.0.clone()).collect();
        for (pipeline, sink, signals) in &self.sinks {
            let failing = signals.failing_since.load(Ordering::Relaxed);
            if since(failing) {
                let reason = status::lock(&signals.trouble).clone();
                stuck.push(format!("sink {pipeline}.{sink} (fails for {} s: {reason})", now.saturating_sub(failing) / 1000));
            } else if silent(&signals.heartbeat) {
                stuck.push(format!("sink {pipeline}.{sink}"));
            }
        }
        for (pipeline, hub) in &self.hubs {
            stuck.extend(hub.trouble().map(|why| format!("hub {pipeline}: {why}")));
        }
        for (pipeline, delay, status) in &self.delays {
            stuck.extend(delay.trouble().map(|why| format!("delay line {pipeline}: {why}")));
            stuck.extend(silent(&status.heartbeat).then(|| format!("delay line {pipeline}")));
        }
        for (pipeline, source, known) in &self.sources {
            let known = status::lock(known);
            let failing = known.open.values().filter(|file| since(file.failing_since_ms.load(Ordering::Relaxed)));
            stuck.extend(failing.map(|file| format!("source {pipeline}.{source}: cannot read {}", file.path().display())).take(10));
        }
        stuck
    }
}

/// The control thread.
pub struct Control {
    vitals: Arc<Vitals>,
    stop: tokio::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Control {
    pub fn start(process: &Process, vitals: Vitals, desk: Arc<Desk>) -> anyhow::Result<Control> {
        let admin = process.admin.as_ref();
        let access = Access::new(admin.and_then(|admin| admin.tokens_file.as_deref()), &process.query).context("admin.tokens_file")?;
        let api = Arc::new(Api { access, config: process.query.clone(), desk });
        let listener = admin.map(|admin| bind(&admin.listen)).transpose()?;
        let vitals = Arc::new(vitals);
        let (stop, stopped) = tokio::sync::mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control runtime")?;
        let shared = Arc::clone(&vitals);
        let main = std::thread::current();
        let (handled, handling) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                runtime.block_on(serve(listener, shared, api, stopped, main, handled));
                runtime.shutdown_background(); // who asks at the end of a process waits for nothing, and it does not wait for them
            })
            .context("cannot start the control thread")?;
        // Until then a signal has its default effect; an error means that the thread has ended.
        let _ = handling.recv();
        Ok(Control { vitals, stop, thread })
    }

    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    pub fn ready(&self) {
        self.vitals.ready.store(true, Ordering::Relaxed);
    }

    pub fn stop(self) {
        // Refused only where the thread has ended by itself.
        let _ = self.stop.blocking_send(());
        let _ = self.thread.join();
    }
}

fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    listener.set_nonblocking(true)?;
    info!(address = %listener.local_addr()?, "admin port open");
    Ok(listener)
}

async fn serve(
    listener: Option<TcpListener>,
    vitals: Arc<Vitals>,
    api: Arc<Api>,
    mut stopped: tokio::sync::mpsc::Receiver<()>,
    main: std::thread::Thread,
    handled: std::sync::mpsc::Sender<()>,
) {
    let watching = tokio::spawn(watch_signals(Arc::clone(&vitals), main, handled));
    let serving = listener.map(|listener| tokio::spawn(serve_port(listener, Arc::clone(&vitals), api)));
    // Ends when told to, or when the sender is gone.
    stopped.recv().await;
    watching.abort();
    serving.inspect(|s| s.abort());
}

async fn watch_signals(vitals: Arc<Vitals>, main: std::thread::Thread, handled: std::sync::mpsc::Sender<()>) {
    let on = |kind| signal(kind).expect("signal handlers can be set in a thread of their own");
    let (mut term, mut int) = (on(SignalKind::terminate()), on(SignalKind::interrupt()));
    let (mut hup, mut usr2) = (on(SignalKind::hangup()), on(SignalKind::user_defined2()));
    let _ = handled.send(());
    loop {
        let end = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hup.recv() => {
                info!("SIGHUP: archives are opened again, pipeline files are read again");
                vitals.sinks.iter().for_each(|s| s.2.reopen.store(true, Ordering::Relaxed));
                vitals.signals.reload.store(true, Ordering::Relaxed);
                main.unpark();
                continue;
            }
            _ = usr2.recv() => {
                warn!("SIGUSR2: upgrade in place is not built yet; nothing was changed");
                continue;
            }
        };
        if vitals.signals.asked.swap(true, Ordering::Relaxed) {
            warn!("second {end}: ending at once; what is not delivered stays in the hub");
            std::process::exit(1);
        }
        info!("{end}: draining; a second one ends at once");
        main.unpark();
    }
}

async fn serve_port(listener: TcpListener, vitals: Arc<Vitals>, api: Arc<Api>) {
    let state = Arc::new((vitals, Arc::clone(&api)));
    let app = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/api/ledger", get(ledger))
        .route("/api/sources", get(sources))
        .with_state(state)
        .merge(api::routes(api));
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => {
            if let Err(error) = axum::serve(listener, app).await {
                warn!(%error, "admin port closed");
            }
        }
        Err(error) => warn!(%error, "admin port closed"),
    }
}

type Shared = State<Arc<(Arc<Vitals>, Arc<Api>)>>;

async fn livez(State(state): Shared) -> (StatusCode, String) {
    health(&state.0, STUCK_MS)
}

fn health(vitals: &Vitals, for_ms: u64) -> (StatusCode, String) {
    let stuck = vitals.stuck(for_ms);
    if stuck.is_empty() {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: {}\n", stuck.join(", ")))
    }
}

async fn readyz(State(state): Shared) -> (StatusCode, String) {
    let (vitals, _) = &*state;
    if !vitals.ready.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "recovering\n".into());
    }
    if vitals.signals.is_ending() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    health(vitals, SLOW_MS)
}

async fn metrics_page(State(state): Shared) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let text = metrics::render(&state.0);
    (StatusCode::OK, [("content-type", "text/plain; version=0.0.4")], text)
}

async fn sources(State(state): Shared, headers: HeaderMap) -> Response {
    of_operator(&state.1, &headers, || {
        let files = state.0.sources.iter().map(|(pipeline, source, known)| status::lock(known).view(pipeline, source));
        let pushed = state.0.pushed.iter().map(|(pipeline, source, stats)| stats.view(pipeline, source));
        let sources: Vec<_> = files.chain(pushed).collect();
        Ok(serde_json::json!({ "sources": sources }))
    })
}

async fn ledger(State(state): Shared, headers: HeaderMap) -> Response {
    of_operator(&state.1, &headers, || state.1.desk.ledger(false))
}

/// What is about all tenants is for the operator, where there are tokens.
fn of_operator(api: &Api, headers: &HeaderMap, view: impl FnOnce() -> anyhow::Result<serde_json::Value>) -> Response {
    if let Err(denied) = api.access.operator(headers) {
        return Refusal::from(denied).into_response();
    }
    match view() {
        Ok(view) => ([("content-type", "application/json")], view.to_string()).into_response(),
        Err(error) => Refusal::failed(&error).into_response(),
    }
}
