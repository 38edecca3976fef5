//! The run: opens what pipelines stand on, starts lanes, sinks and the desk, and ends them in order.
//!
//! In: checked pipelines. Out: everything delivered, or kept in the hub for the next run, and a summary.
//! Order of the end: sources stop, lanes hand over what they hold, delay lines close, hubs close, sinks drain, the lock goes.
//! Read on in this order: `open` (hub and stores), `lane` (bytes to frames), `intake` (what others send), `fair` (whose turn it is), `build` (the frame),
//! `delay` (tail sampling), `deliver` (frames to sinks), `reload` (another plan while it runs), `control` (signals and the admin port);
//! `trial` runs lines without any of it.

pub mod bookkeeper;
pub mod build;
pub mod caretaker;
pub mod control;
pub mod delay;
pub mod deliver;
pub mod fair;
pub mod intake;
pub mod lane;
pub mod open;
pub mod readers;
pub mod reload;
pub mod tail;
pub mod trial;

use crate::config::{Config, Loaded, Process, lanes};
use crate::desk::Desk;
use crate::history::History;
use crate::plan::SinkKind;
use crate::sinks::config::SinkConfig;
use crate::sources::SourceConfig;
use crate::sources::file::{Finder, Lanes};
use crate::sources::kubernetes::{Guard, Kubernetes, Outputs};
use crate::sources::status;
use crate::sources::streams::{NewFile, Register};
use crate::sources::watch::{News, Watcher};
use anyhow::{Context, bail};
use bookkeeper::Bookkeeper;
use caretaker::Caretaker;
use control::{Control, Vitals};
use delay::Decider;
use deliver::{Delivery, SinkSignals};
use flow::decode::Format;
use flow::event::{Position, StreamId};
use flow::step::sample::key_hash;
use flow::units::UnixNanos;
use hub::{Disk, Hub};
use intake::{Ends, Listeners};
use lane::{Inbox, Input, Intake, Lane, Pipeline, Rotated, Signals};
use open::{Manifest, ManifestPipeline, Opened};
use reload::{Current, Reloader};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long a drain may take before the process ends with what is left in the hub.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How often the memory hub's checkpoint is written.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// How often examples of dropped records are written down.
const EXAMPLES: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Read sources to their end, drain and return.
    pub once: bool,
    /// The command line names the data folder, whatever the files say.
    pub data_is_given: bool,
}

/// A finder and the place of its source.
struct Watch {
    pipeline: usize,
    intake: usize,
    finder: Finder,
    every: Duration,
    next: Instant,
    /// What the last look took.
    took: Duration,
    looked: Instant,
    /// The last look went wrong: some files may not have been seen.
    failed: bool,
}

/// How often folders are looked through where the kernel does not tell of changes.
const POLLED: Duration = Duration::from_millis(250);
/// Where every change is told, a walk that took so long is followed by a rest of this many times that, which is never longer than
/// [`IDLE_REST_MAX`].
const IDLE_SHARE: u32 = 300;
const IDLE_REST_MAX: Duration = Duration::from_secs(60);
/// How long growth is gathered before lanes are woken.
const GATHER: Duration = Duration::from_millis(10);

/// Runs until the sources have ended (`--once`), or a signal comes. `progress` is called now and then with the
/// number of bytes read. Returns the desk, which still answers, and the pipelines as they were reloaded last.
pub fn run(
    loaded: Vec<Loaded>,
    process: &Process,
    options: Options,
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<(Arc<Desk>, Vec<Loaded>)> {
    crate::env::raise_open_files_limit();
    let disk = Disk::Real;
    let data = &process.data;
    disk.create_dir_all(data, "data folder").with_context(|| format!("cannot create the data folder {}", data.display()))?;
    let Some(lock) = open::lock(data, Duration::from_secs(5))? else {
        bail!("another process owns the data folder {}; stop it, or name another folder with --data", data.display());
    };
    let alive = lock.last_alive();
    write_manifest(&disk, data, &loaded)?;
    let (register, notices) = Register::open(disk.clone(), &data.join("streams.log"))?;
    notices.iter().for_each(|notice| warn!("{notice}"));
    let register = Arc::new(Mutex::new(register));

    let mut opened = Vec::new();
    for pipeline in &loaded {
        // The port is the process's, whichever file asks for it: then labels are counted.
        let config = Config { admin: process.admin.clone(), ..pipeline.config.clone() };
        let mut one = open::open(&disk, data, &pipeline.name, &config, pipeline.rates.as_ref().map(|rates| &rates.card))?;
        one.recovered.notices.iter().for_each(|notice| warn!(pipeline = pipeline.name, "{notice}"));
        open::restore(&mut one)?;
        opened.push((config, one));
    }
    let refs: Vec<_> = opened.iter().map(|(config, one)| (config.clone(), one)).collect();
    let desk = Arc::new(Desk::new(disk, &refs));
    drop(refs);

    let outputs = Arc::new(outputs(&opened));
    let cared = lakes_to_care_for(&opened);
    let lane_count = if options.once { 1 } else { lanes(process) as usize };
    let signals = Arc::new(Signals::default());
    let mut vitals = Vitals::new(Arc::clone(&signals));
    let mut deliveries = Vec::new();
    let mut pipelines = Vec::new();
    let mut watches = Vec::new();
    let mut inputs = Vec::new();
    let mut listeners = Listeners::new(data, options.once);
    let (mut deciders, mut left_over) = (Vec::new(), Vec::new());
    let mut hubs: Vec<Arc<Hub>> = Vec::new();
    for (number, (config, mut one)) in opened.into_iter().enumerate() {
        vitals.labels.extend(config.labels);
        hubs.push(Arc::clone(&one.hub));
        vitals.hubs.push((one.plan.name.clone(), Arc::clone(&one.hub)));
        if let Some(mut delay) = one.delay.take() {
            let created = created_stream(&one.plan.name, "tail", &one.recovered.positions, &one.cuts);
            let decider = Decider::new(&mut delay, &one.hub, &one.plan, &one.examples, created, options.once);
            if delay.is_left_over(&one.plan.rules) {
                left_over.push((decider, delay));
            } else {
                vitals.delays.push((one.plan.name.clone(), Arc::clone(&delay.hub), Arc::clone(&decider.status)));
                deciders.push((decider, Arc::clone(&delay.hub)));
                one.hub = delay.hub; // from here on: where lanes put what they decided
            }
        }
        let state_hub = &hubs[number];
        let (lanes, once) = (lane_count, options.once);
        let sources = Sources { register: &register, outputs: &outputs, listeners: &mut listeners, state_hub, lanes, alive, once };
        pipelines.push(split(number, one, sources, &mut watches, &mut inputs, &mut deliveries, &mut vitals)?);
    }
    vitals.plans = pipelines.iter().map(|p| (p.name.clone(), Arc::clone(&p.current))).collect();
    let delays: Vec<Arc<Hub>> = deciders.iter().map(|(_, delay)| Arc::clone(delay)).collect();
    let all_hubs: Vec<Arc<Hub>> = hubs.iter().chain(&delays).cloned().collect();
    let pipelines = Arc::new(pipelines);

    let inboxes: Vec<Arc<Inbox>> = (0..lane_count).map(|_| Arc::default()).collect();
    let has_stdin = !inputs.is_empty();
    for (pipeline, intake, input) in inputs {
        hand_over(&inboxes[0], vec![(pipeline, intake, input)]);
    }
    let has_listeners = !listeners.is_empty();
    listeners.hand_over(&inboxes);
    vitals.pushed = std::mem::take(&mut listeners.stats);
    let mut watcher = (!options.once && !watches.is_empty()).then(Watcher::new);
    // With --once everything that will be read is known before the first byte is.
    if let (Some(error), true) = (find(&mut watches, &inboxes, watcher.as_mut()), options.once) {
        return Err(error);
    }
    if watches.iter().all(|watch| !watch.failed) {
        lock.touch();
    }

    let mut lane_threads = Vec::new();
    for (n, inbox) in inboxes.iter().enumerate() {
        let lane = Lane::new(n, inboxes.len(), Arc::clone(&pipelines), Arc::clone(inbox), Arc::clone(&signals), options.once);
        vitals.lanes.push((format!("lane-{n}"), Arc::clone(&lane.heartbeat)));
        lane_threads.push(lane);
    }
    let pipeline_count = loaded.len();
    let folder = (data.clone(), options.data_is_given);
    let reloader =
        Reloader::new(Disk::Real, folder, Arc::clone(&pipelines), inboxes.clone(), Arc::clone(&signals), process.admin.clone(), loaded);
    let reloader = Arc::new(reloader);
    vitals.reloads = reloader.reloads();
    let bookkeeper = (!options.once && !desk.roots().is_empty()).then(|| {
        let status = Arc::<bookkeeper::Status>::default();
        vitals.books = Some(Arc::clone(&status));
        Bookkeeper::new(data.clone(), desk.roots(), desk.nobody(), status)
    });
    let caretaker = (!options.once && !cared.is_empty()).then(|| {
        let status = Arc::<caretaker::Status>::default();
        vitals.care = Some(Arc::clone(&status));
        Caretaker::new(cared, status)
    });
    let control = Control::start(process, vitals, Arc::clone(&desk))?;
    let push = process.telemetry.as_ref().map(|telemetry| readers::Push::start(telemetry, control.vitals())).transpose()?;
    let listener = crate::desk::bind(data)?;
    let serving = Arc::clone(&desk);
    let reloading = (!options.once).then(|| Arc::clone(&reloader));
    spawn("desk", move || serving.serve(listener, reloading))?;
    let syncers = hubs.iter().map(|hub| spawn_syncer(Arc::clone(hub))).collect::<anyhow::Result<Vec<_>>>()?;
    let sink_signals: Vec<Arc<SinkSignals>> = deliveries.iter().map(|d| Arc::clone(&d.signals)).collect();
    let mut sinks = Vec::new();
    for delivery in deliveries {
        sinks.push(spawn_failing("sink", &signals, closing(&all_hubs, || delivery.run()))?);
    }
    // Before lanes go on behind it.
    let mut passed_on = Ok(());
    for (decider, delay) in left_over {
        delay.hub.close();
        let thread = spawn_failing("decider", &signals, closing(&all_hubs, || decider.run()))?;
        while !thread.is_finished() && !signals.is_ending() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let ended = join(thread, Instant::now() + DRAIN_MAX, &all_hubs, &sink_signals);
        passed_on = passed_on.and(ended).and_then(|()| remove_left_over(&delay, &hubs));
    }
    let mut decider_handles = Vec::new();
    let mut delay_syncers = Vec::new();
    for (mut decider, delay) in deciders {
        passed_on = passed_on.and_then(|()| decider.note_begin());
        delay_syncers.push(spawn_syncer(delay)?);
        decider_handles.push(spawn_failing("decider", &signals, closing(&all_hubs, || decider.run()))?);
    }
    let mut lane_handles = Vec::new();
    if passed_on.is_err() {
        signals.stop.store(true, Ordering::Relaxed);
        lane_threads.clear();
    }
    for (n, lane) in lane_threads.into_iter().enumerate() {
        lane_handles.push(spawn_failing(&format!("lane-{n}"), &signals, || lane.run())?);
    }
    let mut serving = listeners.start()?;
    let over = Arc::new(AtomicBool::new(false));
    let bookkeeper = match bookkeeper {
        Some(bookkeeper) => {
            let over = Arc::clone(&over);
            Some(spawn("books", move || bookkeeper.run(&over))?)
        }
        None => None,
    };
    let caretaker = match caretaker {
        Some(caretaker) => {
            let over = Arc::clone(&over);
            Some(spawn("care", move || caretaker.run(&over))?)
        }
        None => None,
    };
    control.ready();
    info!(pipelines = pipeline_count, lanes = lane_count, data = %data.display(), "ready");

    let only_stdin = has_stdin && watches.is_empty() && !has_listeners;
    let mut checkpointed = Instant::now();
    let mut examples_saved = Instant::now();
    let mut history = (!options.once).then(|| History::new(&Disk::Real, data));
    note_history(&mut history, &desk);
    let mut told: Vec<String> = Vec::new();
    let mut reload: Option<JoinHandle<()>> = None;
    loop {
        match &mut watcher {
            Some(watcher) => {
                let news = watcher.wait(Duration::from_millis(20));
                let changed = news.changed;
                pass_on(news, &inboxes, &mut watches);
                // What grows goes on growing: gather it, or every line wakes somebody. A new file may be gone in a moment.
                if !changed {
                    std::thread::park_timeout(GATHER);
                }
            }
            // Nothing is to be found: signals can wait for a moment, the end of `--once` should not.
            None => std::thread::park_timeout(Duration::from_millis(if options.once || has_stdin { 20 } else { 100 })),
        }
        progress(signals.read_bytes.load(Ordering::Relaxed));
        let ended = lane_handles.iter().all(JoinHandle::is_finished);
        if ended || signals.is_ending() || (only_stdin && signals.ended.load(Ordering::Relaxed)) {
            break;
        }
        if reload.as_ref().is_none_or(JoinHandle::is_finished) && signals.reload.swap(false, Ordering::Relaxed) {
            let reloader = Arc::clone(&reloader);
            // It reads files and waits for lanes: finders go on meanwhile.
            reload = Some(spawn("reload", move || drop(reloader.reload()))?);
        }
        if !options.once {
            find(&mut watches, &inboxes, watcher.as_mut());
        }
        if checkpointed.elapsed() >= CHECKPOINT {
            checkpointed = Instant::now();
            // The next start reads what was rotated away since: it must know of looks that failed.
            if watches.iter().all(|watch| !watch.failed) {
                lock.touch();
            }
            let troubles: Vec<String> = all_hubs.iter().filter_map(|hub| hub.trouble()).collect();
            if troubles != told {
                troubles.iter().for_each(|trouble| warn!(trouble, "the hub waits for its disk"));
                told = troubles;
            }
            note_history(&mut history, &desk);
            if examples_saved.elapsed() >= EXAMPLES {
                examples_saved = Instant::now();
                save_examples(&pipelines);
            }
            for hub in &hubs {
                if let Err(error) = hub.checkpoint() {
                    warn!(%error, "cannot write the memory hub's checkpoint; trying again");
                }
            }
        }
    }
    serving.say_last();
    signals.stop.store(true, Ordering::Relaxed);
    over.store(true, Ordering::Relaxed);
    serving.close();
    let loaded = reloader.close();
    let lanes = Stage { threads: lane_handles, hubs: delays, syncers: delay_syncers };
    let deciders = Stage { threads: decider_handles, hubs, syncers };
    let drained = passed_on.and(drain([lanes, deciders], sinks, &all_hubs, &sink_signals));
    serving.end();
    progress(signals.read_bytes.load(Ordering::Relaxed));
    save_examples(&pipelines);
    if let Some(push) = push {
        push.end();
    }
    control.stop();
    // An entry that has begun is finished: what it wrote is committed or removed.
    bookkeeper.into_iter().chain(caretaker).for_each(|thread| drop(thread.join()));
    let _ = std::fs::remove_file(data.join("weir.sock"));
    drop(lock);
    drained.map(|()| (desk, loaded))
}

/// Once a minute. A disk without room costs precision of `weir ledger --since`, and nothing else.
fn note_history(history: &mut Option<History>, desk: &Desk) {
    let now = crate::env::now();
    let Some(history) = history.as_mut().filter(|history| history.is_due(now)) else { return };
    if let Err(error) = desk.ledger(false).and_then(|ledger| history.note(now, ledger)) {
        warn!(error = format!("{error:#}"), "cannot write down what the ledger says; trying again in a minute");
    }
}

fn save_examples(pipelines: &[Pipeline]) {
    for pipeline in pipelines {
        if let Err(error) = pipeline.examples.save() {
            warn!(pipeline = pipeline.name, error = format!("{error:#}"), "cannot write down examples of dropped records");
        }
    }
}

/// Threads, and the hubs that close when they have ended.
struct Stage {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    hubs: Vec<Arc<Hub>>,
    syncers: Vec<JoinHandle<()>>,
}

/// Ends lanes and deciders, each with the hubs they put frames into, then sinks.
fn drain(
    stages: [Stage; 2],
    sinks: Vec<JoinHandle<anyhow::Result<()>>>,
    hubs: &[Arc<Hub>],
    signals: &[Arc<SinkSignals>],
) -> anyhow::Result<()> {
    let until = Instant::now() + DRAIN_MAX;
    let mut stages_ended = Ok(());
    for stage in stages {
        for thread in stage.threads {
            // One that waits for room waits for the sinks, which go on.
            stages_ended = stages_ended.and(join(thread, until, hubs, signals));
        }
        stage.hubs.iter().for_each(|hub| hub.close());
        for syncer in stage.syncers {
            let _ = syncer.join();
        }
    }
    let mut result = Ok(());
    for sink in sinks {
        result = result.and(join(sink, until, hubs, signals));
    }
    // Where a sink failed, that its hub was closed to the lanes is no news.
    result = result.and(stages_ended);
    for hub in hubs {
        result = result.and(hub.checkpoint().context("cannot write the memory hub's checkpoint"));
    }
    result
}

/// Removes a delay line that the config no longer has, and from which everything was passed on.
fn remove_left_over(delay: &delay::Delay, hubs: &[Arc<Hub>]) -> anyhow::Result<()> {
    for hub in hubs {
        hub.commit().context("cannot make durable what waited in a delay line")?;
    }
    let folder = &delay.folder;
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}, which is empty; remove it by hand", folder.display()))
}

/// The work of a thread that takes from hubs: where it fails, whoever waits for room would wait for ever.
fn closing(
    hubs: &[Arc<Hub>],
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> impl FnOnce() -> anyhow::Result<()> + Send + 'static {
    let hubs = hubs.to_vec();
    move || {
        let result = work();
        if result.is_err() {
            hubs.iter().for_each(|hub| hub.close());
        }
        result
    }
}

/// Waits for a thread; when time is up, tells sinks to give up and lanes that the hub takes no more.
fn join(handle: JoinHandle<anyhow::Result<()>>, until: Instant, hubs: &[Arc<Hub>], signals: &[Arc<SinkSignals>]) -> anyhow::Result<()> {
    while !handle.is_finished() {
        if Instant::now() >= until {
            signals.iter().for_each(|s| s.abandon.store(true, Ordering::Relaxed));
            hubs.iter().for_each(|hub| hub.close());
            bail!("draining took longer than {} s; what is not delivered stays in the hub", DRAIN_MAX.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    handle.join().unwrap_or_else(|_| bail!("a thread panicked; its message stands above"))
}

fn write_manifest(disk: &Disk, data: &Path, loaded: &[Loaded]) -> anyhow::Result<()> {
    let pipelines = loaded
        .iter()
        .map(|l| ManifestPipeline { name: l.name.clone(), config: l.config.clone(), rates: l.rates.as_ref().map(|r| r.text.clone()) })
        .collect();
    Manifest { pipelines }.write(disk, data)
}

/// The files that the sinks of all pipelines write.
fn outputs(opened: &[(Config, Opened)]) -> Outputs {
    let (mut folders, mut archives) = (Vec::new(), Vec::new());
    for (config, one) in opened {
        for sink in &one.plan.sinks {
            match (&sink.kind, config.sinks.get(&sink.name)) {
                (SinkKind::Lake { root, .. }, _) => folders.push(root.clone()),
                (SinkKind::Archive { settings, .. }, Some(SinkConfig::Archive(archive))) => {
                    archives.push((settings.dir.clone(), archive.path.clone()));
                }
                _ => {}
            }
        }
    }
    Outputs::new(&folders, &archives)
}

/// Lakes of all pipelines, each once, and how they are looked after.
fn lakes_to_care_for(opened: &[(Config, Opened)]) -> Vec<(PathBuf, lake::maintain::Options)> {
    let mut lakes: Vec<(PathBuf, lake::maintain::Options)> = Vec::new();
    for sink in opened.iter().flat_map(|(_, one)| &one.plan.sinks) {
        if let SinkKind::Lake { root, care, .. } = &sink.kind
            && lakes.iter().all(|(known, _)| known != root)
        {
            lakes.push((root.clone(), (**care).clone()));
        }
    }
    lakes
}

/// What finders stand on.
struct Sources<'a> {
    register: &'a Arc<Mutex<Register>>,
    /// Files that sinks write.
    outputs: &'a Arc<Outputs>,
    /// Of sources that others send to.
    listeners: &'a mut Listeners,
    /// The pipeline's hub, where the state of steps ends up.
    state_hub: &'a Arc<Hub>,
    lanes: usize,
    /// When the last run was last seen alive.
    alive: UnixNanos,
    once: bool,
}

/// Takes an opened pipeline apart: sinks to their threads, sources to their finders, the rest to the lanes.
fn split(
    number: usize,
    one: Opened,
    sources: Sources,
    watches: &mut Vec<Watch>,
    inputs: &mut Vec<(usize, usize, Input)>,
    deliveries: &mut Vec<Delivery>,
    vitals: &mut Vitals,
) -> anyhow::Result<Pipeline> {
    for sink in one.sinks {
        let signals = Arc::new(SinkSignals::default());
        vitals.sinks.push((one.plan.name.clone(), sink.name.clone(), Arc::clone(&signals)));
        let mut pace = sink.pace;
        if sources.once {
            // Only sizes may decide when stores commit: the clock must not show in them.
            pace.interval = Duration::MAX;
        }
        deliveries.push(Delivery { name: sink.name, cursor: sink.cursor, store: sink.store, pace, signals, is_live: !sources.once });
    }
    let mut intakes = Vec::new();
    for (n, source) in one.plan.sources.iter().enumerate() {
        // Sources of two pipelines may share a name; their streams must not.
        let name = format!("{}.{}", one.plan.name, source.name);
        let mut kubernetes = None;
        let known = match &source.config {
            SourceConfig::File(file) => {
                if let Some(config) = &file.kubernetes {
                    kubernetes = Some(Kubernetes::open(config, source.format == Format::Text, sources.once)?);
                }
                let guard = Guard { kubernetes: kubernetes.clone(), outputs: Arc::clone(sources.outputs) };
                let lanes = Lanes { pipeline: number, intake: n, lanes: sources.lanes };
                let (register, positions) = (Arc::clone(sources.register), one.recovered.positions.clone());
                let finder = Finder::new(&name, file.clone(), guard, lanes, register, positions, sources.alive, sources.once)?;
                let known = finder.known();
                vitals.sources.push((one.plan.name.clone(), source.name.clone(), Arc::clone(&known)));
                let now = Instant::now();
                let every = file.scan.duration();
                watches.push(Watch {
                    pipeline: number,
                    intake: n,
                    finder,
                    every,
                    next: now,
                    took: Duration::ZERO,
                    looked: now,
                    failed: false,
                });
                known
            }
            SourceConfig::Stdin(_) => {
                let file = NewFile { source: &name, log: Path::new("stdin"), id: (0, 0), born: 0, head: b"", first_bytes: b"", start: 0 };
                let mut register = status::lock(sources.register);
                let (_, entry) = register.add(file)?;
                register.sync()?;
                inputs.push((number, n, Input::Stdin(entry.stream())));
                Arc::default()
            }
            _ => {
                let ends = Ends { positions: &one.recovered.positions, cuts: &one.cuts };
                sources.listeners.bind((number, n), &one.plan, &source.name, &one.hub, ends)?;
                Arc::default()
            }
        };
        let rotated = match &source.config {
            SourceConfig::File(file) => {
                Rotated { age_max: file.rotated.age_max.map(|age| age.duration()), bytes_max: file.rotated.bytes_max.map(|bytes| bytes.0) }
            }
            _ => Rotated::default(),
        };
        intakes.push(Intake {
            format: source.format,
            limits: source.limits,
            reading: source.reading,
            parsing: source.parsing.clone(),
            known,
            rotated,
            kubernetes,
            multiline: source.multiline.clone(),
            encoding: source.encoding,
        });
    }
    let created = |lane: usize| created_stream(&one.plan.name, &lane.to_string(), &one.recovered.positions, &one.cuts);
    let created = (0..sources.lanes).map(created).collect();
    Ok(Pipeline {
        name: one.plan.name.clone(),
        current: Arc::new(Current::new(one.plan)),
        hub: one.hub,
        state_hub: Arc::clone(sources.state_hub),
        examples: one.examples,
        intakes,
        created,
        cuts: one.cuts,
    })
}

/// The stream of what a lane, or tail sampling, creates, and how far it is: behind everything that any store has of it.
fn created_stream(
    pipeline: &str,
    who: &str,
    positions: &HashMap<StreamId, Position>,
    cuts: &HashMap<StreamId, Vec<u64>>,
) -> (StreamId, u64) {
    let stream = StreamId(key_hash(format!("weir created\0{pipeline}\0{who}").as_bytes()));
    (stream, Ends { positions, cuts }.of(stream))
}

/// Looks for files where it is time to. Returns the last error; what failed is tried again soon.
fn find(watches: &mut [Watch], inboxes: &[Arc<Inbox>], mut watcher: Option<&mut Watcher>) -> Option<anyhow::Error> {
    let mut failure = None;
    for watch in watches {
        if std::mem::take(&mut status::lock(&watch.finder.known()).dirty) {
            watch.change();
        }
        let now = Instant::now();
        if watch.next > now {
            continue;
        }
        let found = watch.finder.scan(crate::env::now(), watcher.as_deref_mut());
        watch.took = now.elapsed();
        watch.looked = Instant::now();
        let every = if watch.finder.polled { watch.every.min(POLLED) } else { watch.every };
        let every = if watch.finder.again || found.is_err() { every.min(POLLED) } else { every };
        // Where the kernel tells of changes, a walk is for what it cannot tell: many idle files must not cost.
        let rest = if watch.finder.polled || watch.finder.again { watch.took * 10 } else { (watch.took * IDLE_SHARE).min(IDLE_REST_MAX) };
        watch.next = watch.looked + every.max(rest);
        if watch.finder.crowded {
            // Lanes close what was read to its end, so that others can be opened.
            for inbox in inboxes {
                inbox.look_at_all.store(true, Ordering::Relaxed);
                inbox.wake();
            }
        }
        let failed = std::mem::replace(&mut watch.failed, found.is_err());
        let mut found = found.unwrap_or_else(|error| {
            if !failed {
                warn!(error = format!("{error:#}"), "cannot look for files; trying again");
            }
            failure = Some(error);
            Vec::new()
        });
        let (pipeline, intake) = (watch.pipeline, watch.intake);
        for (lane, inbox) in inboxes.iter().enumerate() {
            // All at once: a file without the next one of its log would be its last.
            let ours = found.extract_if(.., |file| file.reader.lane == lane);
            let inputs = ours.map(|file| (pipeline, intake, Input::File(file))).collect();
            hand_over(inbox, inputs);
        }
    }
    failure
}

impl Watch {
    /// Something changed: look at once, but spend no more than a quarter of the time on looking.
    fn change(&mut self) {
        let soon = Instant::now().max(self.looked + self.took * 3);
        self.next = self.next.min(soon);
    }
}

/// Tells lanes and finders what the kernel told.
fn pass_on(news: News, inboxes: &[Arc<Inbox>], watches: &mut [Watch]) {
    if news.changed || news.overflow {
        watches.iter_mut().for_each(Watch::change);
    }
    for (lane, inbox) in inboxes.iter().enumerate() {
        let mut grown = status::lock(&inbox.grown);
        let before = grown.len();
        grown.extend(news.grown.iter().filter(|reader| reader.lane == lane).map(|reader| reader.log));
        if news.overflow {
            inbox.look_at_all.store(true, Ordering::Relaxed);
        }
        if grown.len() > before || news.overflow {
            drop(grown);
            inbox.wake();
        }
    }
}

/// Gives files to the lane that owns their logs.
fn hand_over(inbox: &Inbox, inputs: Vec<(usize, usize, Input)>) {
    if !inputs.is_empty() {
        status::lock(&inbox.found).extend(inputs);
        inbox.wake();
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_string()).spawn(work).with_context(|| format!("cannot start the thread {name}"))
}

fn spawn_syncer(hub: Arc<Hub>) -> anyhow::Result<JoinHandle<()>> {
    spawn("syncer", move || hub.run_syncer())
}

/// A thread whose failure stops the run.
fn spawn_failing(
    name: &str,
    signals: &Arc<Signals>,
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let signals = Arc::clone(signals);
    spawn(name, move || {
        let result = work();
        if result.is_err() {
            signals.stop.store(true, Ordering::Relaxed);
        }
        result
    })
}
