//! Control: signals and the admin port, on one thread with the only tokio runtime of the process.
//!
//! In: SIGTERM and SIGINT (drain; a second one ends at once), SIGHUP (archives reopen), SIGUSR2 (not built
//! yet), requests for `/livez`, `/readyz`, `/metrics` and `/api/ledger`. Health is progress: alive and stuck is unhealthy and
//! says where. The port is loopback only; the config refuses anything else.

use super::deliver::SinkSignals;
use super::lane::Signals;
use crate::config::AdminConfig;
use crate::desk::Desk;
use crate::{env, metrics};
use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use hub::Hub;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// A lane or sink that has not moved for this long, though it has work, is stuck.
const STUCK_MS: u64 = 30_000;

/// What health and metrics are read from.
pub struct Vitals {
    pub signals: Arc<Signals>,
    pub hubs: Vec<(String, Arc<Hub>)>,
    pub lanes: Vec<(String, Arc<AtomicU64>)>,
    /// Pipeline, sink, signals.
    pub sinks: Vec<(String, String, Arc<SinkSignals>)>,
    pub ready: AtomicBool,
    /// On every metric.
    pub labels: std::collections::HashMap<String, String>,
}

impl Vitals {
    pub fn new(signals: Arc<Signals>) -> Vitals {
        Vitals {
            signals,
            hubs: Vec::new(),
            lanes: Vec::new(),
            sinks: Vec::new(),
            ready: AtomicBool::new(false),
            labels: Default::default(),
        }
    }

    /// Components that have work and do not move.
    fn stuck(&self) -> Vec<String> {
        let now = (env::now().0 / 1_000_000) as u64;
        let silent = |beat: &AtomicU64| {
            let beat = beat.load(Ordering::Relaxed);
            beat > 0 && now.saturating_sub(beat) > STUCK_MS
        };
        // A lane that waits for room in the hub is not stuck: a sink is.
        let full = self.hubs.iter().any(|(_, hub)| hub.is_full());
        let lanes = self.lanes.iter().filter(|l| !full && silent(&l.1)).map(|l| l.0.clone());
        let sinks = self.sinks.iter().filter(|s| silent(&s.2.heartbeat)).map(|s| format!("sink {}.{}", s.0, s.1));
        lanes.chain(sinks).collect()
    }
}

/// The control thread.
pub struct Control {
    vitals: Arc<Vitals>,
    stop: tokio::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Control {
    pub fn start(admin: Option<&AdminConfig>, vitals: Vitals, desk: Arc<Desk>) -> anyhow::Result<Control> {
        let listener = admin.map(|a| bind(&a.listen)).transpose()?;
        let vitals = Arc::new(vitals);
        let (stop, stopped) = tokio::sync::mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control runtime")?;
        let shared = Arc::clone(&vitals);
        let main = std::thread::current();
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || runtime.block_on(serve(listener, shared, desk, stopped, main)))
            .context("cannot start the control thread")?;
        Ok(Control { vitals, stop, thread })
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
    desk: Arc<Desk>,
    mut stopped: tokio::sync::mpsc::Receiver<()>,
    main: std::thread::Thread,
) {
    let watching = tokio::spawn(watch_signals(Arc::clone(&vitals), main));
    let serving = listener.map(|listener| tokio::spawn(serve_port(listener, Arc::clone(&vitals), desk)));
    // Ends when told to, or when the sender is gone.
    stopped.recv().await;
    watching.abort();
    serving.inspect(|s| s.abort());
}

async fn watch_signals(vitals: Arc<Vitals>, main: std::thread::Thread) {
    let on = |kind| signal(kind).expect("signal handlers can be set in a thread of their own");
    let (mut term, mut int) = (on(SignalKind::terminate()), on(SignalKind::interrupt()));
    let (mut hup, mut usr2) = (on(SignalKind::hangup()), on(SignalKind::user_defined2()));
    loop {
        let end = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hup.recv() => {
                info!("SIGHUP: archives are opened again");
                vitals.sinks.iter().for_each(|s| s.2.reopen.store(true, Ordering::Relaxed));
                continue;
            }
            _ = usr2.recv() => {
                warn!("SIGUSR2: upgrade in place is not built yet; nothing was changed");
                continue;
            }
        };
        if vitals.signals.stop.swap(true, Ordering::Relaxed) {
            warn!("second {end}: ending at once; what is not delivered stays in the hub");
            std::process::exit(1);
        }
        info!("{end}: draining; a second one ends at once");
        main.unpark();
    }
}

async fn serve_port(listener: TcpListener, vitals: Arc<Vitals>, desk: Arc<Desk>) {
    let state = Arc::new((vitals, desk));
    let app = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/api/ledger", get(ledger))
        .with_state(state);
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => {
            if let Err(error) = axum::serve(listener, app).await {
                warn!(%error, "admin port closed");
            }
        }
        Err(error) => warn!(%error, "admin port closed"),
    }
}

type Shared = State<Arc<(Arc<Vitals>, Arc<Desk>)>>;

async fn livez(State(state): Shared) -> (StatusCode, String) {
    let stuck = state.0.stuck();
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
    if vitals.signals.stop.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    livez(State(Arc::clone(&state))).await
}

async fn metrics_page(State(state): Shared) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let text = metrics::render(&state.0);
    (StatusCode::OK, [("content-type", "text/plain; version=0.0.4")], text)
}

async fn ledger(State(state): Shared) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    match state.1.ledger(false) {
        Ok(view) => (StatusCode::OK, [("content-type", "application/json")], view.to_string()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [("content-type", "text/plain")], format!("{error:#}\n")),
    }
}
