//! Intake: the listeners of sources that others send to, and the news how far what they sent is durable.
//!
//! In: the sources of all pipelines that others send to, and those that ask again and again (`scrape`, `gpu`, `host`). Out: pipes for
//! lanes; answers to senders. One thread with a runtime of its own waits on sockets, [`http::UNPACKERS`] more unpack bodies, each
//! source that measures this machine has a thread, and one for each pipeline tells pipes what the hub has published.
//! Order of the end: sources that measure say their last facts, no more is taken, lanes hand over, the hub publishes that, senders are answered, listeners close.

use super::lane::{Inbox, Input};
use crate::config::Config;
use crate::plan::Plan;
use crate::sources::measure::Outlet;
use crate::sources::push::{Budget, Pipe, Stats};
use crate::sources::{ScrapeConfig, SourceConfig, SyslogConfig, WatchConfig, alerts, gpu, host, http, scrape, series, syslog};
use anyhow::Context;
use flow::event::{Position, Signal, StreamId};
use flow::step::sample::key_hash;
use hub::Hub;
use std::collections::HashMap;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::info;

/// How often the hub's news are asked for, whatever comes.
const NEWS: Duration = Duration::from_millis(100);
/// Bytes of alerts that wait for a lane.
const ALERTS_BYTES_MAX: u64 = 8 << 20;
/// How long answers may take to leave when everything is decided.
const FAREWELL: Duration = Duration::from_millis(200);
/// How long lanes may take for the last facts of sources that measure this machine.
const LAST_FACTS: Duration = Duration::from_secs(1);

/// A source that is bound and not served yet.
enum Bound {
    Http(TcpListener, Arc<http::Gate>, http::Speaks),
    Scrape(Arc<scrape::Job>),
    Watch(alerts::Watcher),
    Gpu(Box<gpu::Job>),
    Host(Box<host::Job>),
    Syslog(Option<UdpSocket>, Option<TcpListener>, Arc<syslog::Gate>),
}

/// All of them.
pub struct Listeners {
    /// The data folder, and whether sources are read to their end.
    data: PathBuf,
    once: bool,
    bound: Vec<Bound>,
    /// Pipeline, its intake, and a pipe of it.
    pipes: Vec<(usize, usize, Arc<Pipe>)>,
    hubs: Vec<(usize, Arc<Hub>)>,
    /// Pipeline, source, what it did.
    pub stats: Vec<(String, String, Arc<Stats>)>,
}

/// Where streams go on: behind everything that the hub or any store has of them.
pub struct Ends<'a> {
    pub positions: &'a HashMap<StreamId, Position>,
    pub cuts: &'a HashMap<StreamId, Vec<u64>>,
}

impl Ends<'_> {
    pub fn of(&self, stream: StreamId) -> u64 {
        let stored = self.cuts.get(&stream).and_then(|cuts| cuts.last().copied()).unwrap_or(0);
        self.positions.get(&stream).map_or(0, |position| position.done).max(stored)
    }
}

impl Listeners {
    /// `data`: the data folder; `once`: sources are read to their end.
    pub fn new(data: &Path, once: bool) -> Listeners {
        Listeners { data: data.to_path_buf(), once, bound: Vec::new(), pipes: Vec::new(), hubs: Vec::new(), stats: Vec::new() }
    }

    /// Binds a source, if others send to it. `place`: the numbers of its pipeline and of its intake.
    pub fn bind(&mut self, place: (usize, usize), plan: &Plan, source: &str, hub: &Arc<Hub>, ends: Ends) -> anyhow::Result<()> {
        let config = &plan.sources[place.1].config;
        let context = || format!("source {source}");
        match config {
            SourceConfig::Http(http) => {
                self.bind_http(place, plan, source, http::Takes::Records(Box::new(http.clone())), hub, ends).with_context(context)?;
            }
            SourceConfig::Otlp(otlp) => {
                let takes = http::Takes::Otlp(Box::new(otlp.clone()));
                self.bind_http(place, plan, source, takes, hub, ends).with_context(context)?;
            }
            SourceConfig::RemoteWrite(remote) => {
                let bounds = remote.series.as_ref().map(|series| Box::new(series::Bounds::new(series)));
                let takes = http::Takes::RemoteWrite(Box::new(remote.clone()), Default::default(), bounds);
                self.bind_http(place, plan, source, takes, hub, ends).with_context(context)?;
            }
            SourceConfig::Watch(config) => self.bind_watch(place, plan, source, config, hub, ends).with_context(context)?,
            SourceConfig::Scrape(config) => self.bind_scrape(place, plan, source, config, hub, ends).with_context(context)?,
            SourceConfig::Gpu(config) => {
                let outlet = self.outlet(place, plan, source, ("gpu", config.buffer_bytes_max.0), &ends);
                self.bound.push(Bound::Gpu(Box::new(gpu::Job::new(source, config, outlet))));
            }
            SourceConfig::Host(config) => {
                let outlet = self.outlet(place, plan, source, ("host", config.buffer_bytes_max.0), &ends);
                self.bound.push(Bound::Host(Box::new(host::Job::new(source, config, outlet))));
            }
            SourceConfig::Syslog(syslog) => self.bind_syslog(place, plan, source, syslog, ends).with_context(context)?,
            SourceConfig::File(_) | SourceConfig::Stdin(_) => return Ok(()),
        }
        if self.hubs.iter().all(|(pipeline, _)| *pipeline != place.0) {
            self.hubs.push((place.0, Arc::clone(hub)));
        }
        Ok(())
    }

    fn bind_http(
        &mut self,
        place: (usize, usize),
        plan: &Plan,
        source: &str,
        takes: http::Takes,
        hub: &Arc<Hub>,
        ends: Ends,
    ) -> anyhow::Result<()> {
        let config = &plan.sources[place.1].config;
        let Some(answering) = config.answering() else { return Ok(()) };
        let tokens = http::Tokens::read(answering.tokens, answering.tenant_header)?;
        let buffer_bytes_max = answering.buffer_bytes_max.0;
        let budget = Budget::new(buffer_bytes_max);
        let mut stats = Stats::new(config.kind(), Arc::clone(&budget));
        let (over_http, over_grpc) = match config {
            SourceConfig::Http(http) => (http.listen.as_str(), ""),
            SourceConfig::RemoteWrite(remote) => (remote.listen.as_str(), ""),
            SourceConfig::Otlp(otlp) => (otlp.http.as_str(), otlp.grpc.as_str()),
            _ => ("", ""),
        };
        let mut listen_at = |address: &str| (!address.is_empty()).then(|| listen(address, &mut stats)).transpose();
        let (over_http, over_grpc) = (listen_at(over_http)?, listen_at(over_grpc)?);
        let senders = tokens.senders();
        let signals = takes.signals();
        let share = if senders.len() * signals.len() > 1 { buffer_bytes_max / 2 } else { buffer_bytes_max };
        let mut pipes_of = |tenant: Option<Arc<[u8]>>| -> Vec<Arc<Pipe>> {
            signals.iter().map(|signal| self.add_pipe(place, plan, source, (tenant.clone(), *signal), share, &ends)).collect()
        };
        let pipes = senders.into_iter().map(&mut pipes_of).collect();
        let (stats, hub) = (self.add_stats(plan, source, stats), Arc::clone(hub));
        let limits = http::Limits {
            body_bytes_max: answering.body_bytes_max.0 as usize,
            lines_bytes_max: (buffer_bytes_max / 2) as usize,
            connections_max: answering.connections_max,
            timeout: answering.timeout.duration(),
            ack: answering.ack,
        };
        let is_full = Box::new(move || hub.is_full());
        let gate = Arc::new(http::Gate { takes, limits, tokens, pipes, stats, is_full, ends: AtomicBool::new(false) });
        self.bound.extend(over_http.map(|listener| Bound::Http(listener, Arc::clone(&gate), http::Speaks::Http)));
        self.bound.extend(over_grpc.map(|listener| Bound::Http(listener, gate, http::Speaks::Grpc)));
        Ok(())
    }

    fn bind_scrape(
        &mut self,
        place: (usize, usize),
        plan: &Plan,
        source: &str,
        config: &ScrapeConfig,
        hub: &Arc<Hub>,
        ends: Ends,
    ) -> anyhow::Result<()> {
        let stats = Stats::new("scrape", Budget::new(config.buffer_bytes_max.0));
        let pipe = self.add_pipe(place, plan, source, (None, Signal::Metrics), config.buffer_bytes_max.0, &ends);
        let (stats, hub) = (self.add_stats(plan, source, stats), Arc::clone(hub));
        let job = scrape::Job::new(source, config, pipe, stats, Box::new(move || hub.is_full()))?;
        self.bound.push(Bound::Scrape(Arc::new(job)));
        Ok(())
    }

    fn bind_watch(
        &mut self,
        place: (usize, usize),
        plan: &Plan,
        source: &str,
        config: &WatchConfig,
        hub: &Arc<Hub>,
        ends: Ends,
    ) -> anyhow::Result<()> {
        let stats = Stats::new("watch", Budget::new(ALERTS_BYTES_MAX));
        let pipes =
            [Signal::Logs, Signal::Metrics].map(|signal| self.add_pipe(place, plan, source, (None, signal), ALERTS_BYTES_MAX / 2, &ends));
        let stats = self.add_stats(plan, source, stats);
        self.bound.push(Bound::Watch(alerts::Watcher::new(config, hub, pipes, stats)?));
        Ok(())
    }

    /// What a source has that measures this machine: pipes of facts and samples, and a file for its state.
    fn outlet(
        &mut self,
        place: (usize, usize),
        plan: &Plan,
        source: &str,
        (kind, buffer_bytes_max): (&'static str, u64),
        ends: &Ends,
    ) -> Outlet {
        let stats = Stats::new(kind, Budget::new(buffer_bytes_max));
        let pipes = [Signal::Logs, Signal::Metrics].map(|signal| {
            let pipe = self.add_pipe(place, plan, source, (None, signal), buffer_bytes_max / 2, ends);
            if self.once {
                pipe.await_end();
            }
            pipe
        });
        let stats = self.add_stats(plan, source, stats);
        let state = self.data.join("sources").join(format!("{}.{source}.{kind}.json", plan.name));
        Outlet::new(pipes, stats, state, self.once)
    }

    fn bind_syslog(&mut self, place: (usize, usize), plan: &Plan, source: &str, config: &SyslogConfig, ends: Ends) -> anyhow::Result<()> {
        let mut stats = Stats::new("syslog", Budget::new(config.buffer_bytes_max.0));
        let udp = config.udp.as_deref().map(|at| listen_udp(at, &mut stats)).transpose()?;
        let tcp = config.tcp.as_deref().map(|at| listen(at, &mut stats)).transpose()?;
        let pipe = self.add_pipe(place, plan, source, (None, Signal::Logs), config.buffer_bytes_max.0, &ends);
        let allow = config.allow.iter().filter_map(|text| syslog::Range::parse(text)).collect();
        let stats = self.add_stats(plan, source, stats);
        let gate = syslog::Gate { config: config.clone(), allow, pipe, stats, ends: AtomicBool::new(false) };
        self.bound.push(Bound::Syslog(udp, tcp, Arc::new(gate)));
        Ok(())
    }

    /// The log of a source, or of one tenant of it and one signal: it is the same stream in every run.
    fn add_pipe(
        &mut self,
        (pipeline, intake): (usize, usize),
        plan: &Plan,
        source: &str,
        (tenant, signal): (Option<Arc<[u8]>>, Signal),
        bytes_max: u64,
        ends: &Ends,
    ) -> Arc<Pipe> {
        let who = tenant.as_deref().map_or(String::new(), |tenant| String::from_utf8_lossy(tenant).into_owned());
        let (mut name, mut log) = (format!("weir pushed\0{}\0{source}\0{who}", plan.name), format!("{source}/{who}"));
        if signal != Signal::Logs {
            name.push_str(&format!("\0{}", signal.name()));
            log.push_str(&format!("/{}", signal.name()));
        }
        let stream = StreamId(key_hash(name.as_bytes()));
        let pipe = Arc::new(Pipe::new(stream, signal, ends.of(stream), PathBuf::from(log), tenant, bytes_max));
        self.pipes.push((pipeline, intake, Arc::clone(&pipe)));
        pipe
    }

    fn add_stats(&mut self, plan: &Plan, source: &str, stats: Stats) -> Arc<Stats> {
        let stats = Arc::new(stats);
        self.stats.push((plan.name.clone(), source.to_string(), Arc::clone(&stats)));
        stats
    }

    pub fn is_empty(&self) -> bool {
        self.bound.is_empty()
    }

    /// Gives each pipe to a lane.
    pub fn hand_over(&self, inboxes: &[Arc<Inbox>]) {
        for (n, (pipeline, intake, pipe)) in self.pipes.iter().enumerate() {
            let inbox = Arc::clone(&inboxes[n % inboxes.len()]);
            super::hand_over(&inbox, vec![(*pipeline, *intake, Input::Pipe(Arc::clone(pipe)))]);
            let log = pipe.stream.0;
            pipe.wakes(move || {
                let mut grown = crate::sources::status::lock(&inbox.grown);
                if !grown.contains(&log) {
                    grown.push(log);
                }
                drop(grown);
                inbox.wake();
            });
        }
    }

    /// Listens from now on.
    pub fn start(self) -> anyhow::Result<Serving> {
        let mut serving =
            Serving { stop: None, gates: Vec::new(), threads: Vec::new(), measuring: Vec::new(), pipes: Vec::new(), over: Arc::default() };
        if self.is_empty() {
            return Ok(serving);
        }
        for (number, hub) in self.hubs {
            let pipes: Vec<Arc<Pipe>> = self.pipes.iter().filter(|(p, ..)| *p == number).map(|(.., pipe)| Arc::clone(pipe)).collect();
            let over = Arc::clone(&serving.over);
            serving.threads.push(super::spawn("acks", move || tell(&hub, &pipes, &over))?);
        }
        serving.pipes = self.pipes.into_iter().map(|(.., pipe)| pipe).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(http::UNPACKERS)
            .build()
            .context("cannot start the runtime of listeners")?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        serving.stop = Some(stop);
        let guard = runtime.enter();
        let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        for bound in self.bound {
            match bound {
                Bound::Http(listener, gate, speaks) => {
                    tasks.push(Box::pin(http::serve(tokio::net::TcpListener::from_std(listener)?, Arc::clone(&gate), speaks)));
                    serving.gates.push(Gate::Http(gate));
                }
                Bound::Watch(watcher) => {
                    serving.gates.push(Gate::Watch(Arc::clone(&watcher.ends)));
                    serving.threads.push(super::spawn("watch", move || watcher.run())?);
                }
                Bound::Gpu(job) => {
                    let ends = Arc::clone(&job.outlet.ends);
                    serving.measuring.push((ends, super::spawn("gpu-facts", move || job.outlet.run("gpu", || job.measure()))?));
                }
                Bound::Host(job) => {
                    let ends = Arc::clone(&job.outlet.ends);
                    serving.measuring.push((ends, super::spawn("host-facts", move || job.outlet.run("host", || job.measure()))?));
                }
                Bound::Scrape(job) => {
                    tasks.push(Box::pin(scrape::run(Arc::clone(&job))));
                    serving.gates.push(Gate::Scrape(job));
                }
                Bound::Syslog(udp, tcp, gate) => {
                    if let Some(socket) = udp {
                        tasks.push(Box::pin(syslog::serve_udp(tokio::net::UdpSocket::from_std(socket)?, Arc::clone(&gate))));
                    }
                    if let Some(listener) = tcp {
                        tasks.push(Box::pin(syslog::serve_tcp(tokio::net::TcpListener::from_std(listener)?, Arc::clone(&gate))));
                    }
                    serving.gates.push(Gate::Syslog(gate));
                }
            }
        }
        drop(guard);
        let thread = super::spawn("intake", move || {
            runtime.block_on(async move {
                tasks.into_iter().for_each(|task| drop(tokio::spawn(task)));
                let _ = stopped.await; // an error means the same
                tokio::time::sleep(FAREWELL).await;
            });
            runtime.shutdown_background();
        })?;
        serving.threads.push(thread);
        Ok(serving)
    }
}

enum Gate {
    Http(Arc<http::Gate>),
    Scrape(Arc<scrape::Job>),
    Watch(Arc<AtomicBool>),
    Syslog(Arc<syslog::Gate>),
}

/// Listeners at work.
pub struct Serving {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    gates: Vec<Gate>,
    threads: Vec<JoinHandle<()>>,
    /// Sources that measure this machine: how they are told to end.
    measuring: Vec<(Arc<AtomicBool>, JoinHandle<()>)>,
    pipes: Vec<Arc<Pipe>>,
    over: Arc<AtomicBool>,
}

impl Serving {
    /// Sources that measure this machine say their last facts, while lanes still read.
    pub fn say_last(&mut self) {
        if self.measuring.is_empty() {
            return;
        }
        self.measuring.iter().for_each(|(ends, _)| ends.store(true, Ordering::Relaxed));
        self.measuring.drain(..).for_each(|(_, thread)| drop(thread.join()));
        // What is not read by then is said by the next run.
        let patience = Instant::now() + LAST_FACTS;
        while Instant::now() < patience && self.pipes.iter().any(|pipe| !pipe.is_empty()) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Nothing more is taken: whoever sends is told to come again.
    pub fn close(&self) {
        for gate in &self.gates {
            match gate {
                Gate::Http(gate) => gate.ends.store(true, Ordering::Relaxed),
                Gate::Scrape(job) => job.ends.store(true, Ordering::Relaxed),
                Gate::Watch(ends) => ends.store(true, Ordering::Relaxed),
                Gate::Syslog(gate) => gate.ends.store(true, Ordering::Relaxed),
            }
        }
    }

    /// Everything is decided that will be: the last answers leave, then the sockets close.
    pub fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(()); // where nobody listens any more, it has ended
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Tells pipes how far the hub has them, until the end.
fn tell(hub: &Hub, pipes: &[Arc<Pipe>], over: &AtomicBool) {
    let mut seen = 0;
    loop {
        let last = over.load(Ordering::Relaxed);
        let published = hub.wait_published(seen, if last { Duration::ZERO } else { NEWS });
        for pipe in pipes {
            if let Some(done) = hub.done(pipe.stream) {
                pipe.decided(done);
            }
        }
        if last {
            return;
        }
        // A hub that is closed answers at once.
        if published == seen {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        seen = published;
    }
}

fn listen(address: &str, stats: &mut Stats) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    tell_address(stats, "tcp", listener.local_addr()?);
    Ok(listener)
}

fn listen_udp(address: &str, stats: &mut Stats) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    socket.set_nonblocking(true)?;
    tell_address(stats, "udp", socket.local_addr()?);
    Ok(socket)
}

fn tell_address(stats: &mut Stats, over: &str, address: std::net::SocketAddr) {
    info!(kind = stats.kind, over, %address, "listening for records");
    stats.listen.push(format!("{over}:{address}"));
}

/// Sources that have no end, by name.
pub fn endless(config: &Config) -> impl Iterator<Item = &str> {
    config.sources.iter().filter(|(_, source)| source.is_endless()).map(|(name, _)| name.as_str())
}
