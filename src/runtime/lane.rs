//! A lane: one thread that takes records from read to hub, with no hand-over in between.
//!
//! In: logs, each a path's rotation chain with its partial state; a log stays with its lane. Out: frames,
//! accepted by the hub. A turn reads one chunk of one log; tenants share the lane by bytes (`fair`). A log that was read to its
//! end sleeps until somebody tells that it grew, or until it is time for a look. Where a hub has little room left, logs of
//! tenants far above their share are held back, and looked at again after [`HOLD`]. Memory: one
//! chunk (256 KiB, for a moment as long as the longest line) and one frame per pipeline; per log about 1 KiB.

use super::build::{Builder, Stretch};
use super::fair::{self, Flow, Turns};
use super::reload::Current;
use super::tail::{Ahead, CHUNK_BYTES, Glance, Tail};
use crate::env;
use crate::examples::Examples;
use crate::plan::Plan;
use crate::sources::file::Found;
use crate::sources::kubernetes::{Attached, Kubernetes, Readiness};
use crate::sources::push::Pipe;
use crate::sources::status::{Shared, State, lock};
use anyhow::Context;
use flow::batch::{Batch, Payer};
use flow::decode::{Decoder, Encoding, End, Format, Limits, Multiline, trailing_nuls};
use flow::enrich::{Enricher, Splice};
use flow::event::{Position, Signal, StreamId};
use flow::parse::{LineParser, Parsing};
use flow::pipeline::{Reading, Worker};
use flow::step::sample::key_hash;
use flow::units::UnixNanos;
use hub::Hub;
use hub::frame::Resumed;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Age at which a frame closes, however small it is.
const FRAME_AGE: Duration = Duration::from_millis(200);
/// The same where somebody waits for an answer: long enough for others to come along.
const AWAITED_AGE: Duration = Duration::from_millis(5);
/// How long a pause is while a source with an end has nothing yet.
const AWAITED: Duration = Duration::from_millis(5);
/// How long a file that was renamed away must have been silent before the next one of its log is read.
const ROTATED_GRACE: Duration = Duration::from_secs(2);
/// A file whose growth nobody tells is looked at after this time, then twice that, and so on.
const IDLE_MIN: Duration = Duration::from_millis(10);
const IDLE_MAX: Duration = Duration::from_millis(500);
/// A file whose growth is told is looked at anyway, as some growth is not told: at soonest after this time, and of many files one
/// in each [`SAFETY_EACH`], so that idle ones cost little.
const SAFETY: Duration = Duration::from_secs(10);
const SAFETY_EACH: Duration = Duration::from_millis(10);
/// What a drain waits at most for lines that belong together.
const GROUPS_MAX: Duration = Duration::from_secs(10);
/// Finished files of a log that are remembered: they are found again soon after their rotation, if at all.
const FINISHED_MAX: usize = 64;
/// A log that holds part of a record is looked at after this time.
const HELD_PAUSE: Duration = Duration::from_millis(100);
/// A log whose container nobody knows yet is looked at after this time.
const METADATA_PAUSE: Duration = Duration::from_millis(100);
/// Logs that went and are remembered; beyond, all are forgotten, and sinks that lag may take a log's next file before its last.
const LEFT_MAX: usize = 65_536;
/// What a lane sleeps at most: it shows that it is alive.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// What a lane reads before it asks for news and looks whether frames are due, in bytes and in turns.
const ROUND_BYTES: u64 = CHUNK_BYTES as u64;
const ROUND_TURNS: usize = 256;
/// How often hubs are asked whose logs are to be held back, and how long one is held at least.
const HOLD: Duration = Duration::from_millis(20);
/// A log without files is kept for so long: its next file may come, and what it holds is part of a record.
const LINGER: Duration = Duration::from_secs(10);

/// One source of one pipeline, as its lanes see it.
pub struct Intake {
    pub format: Format,
    pub limits: Limits,
    pub reading: Reading,
    /// Parsers of lines that are no JSON.
    pub parsing: Option<Arc<Parsing>>,
    pub known: Shared,
    pub rotated: Rotated,
    /// Whose containers the logs are.
    pub kubernetes: Option<Arc<Kubernetes>>,
    pub multiline: Option<Multiline>,
    pub encoding: Encoding,
}

/// How long a file that was rotated away is held until it is read; absent: as long as it takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotated {
    pub age_max: Option<Duration>,
    pub bytes_max: Option<u64>,
}

/// One pipeline, as its lanes see it.
pub struct Pipeline {
    pub name: String,
    pub current: Arc<Current>,
    pub hub: Arc<Hub>,
    /// Where the state of steps ends up: the same, or behind a delay line.
    pub state_hub: Arc<Hub>,
    /// Some of what was dropped, to be looked up.
    pub examples: Arc<Examples>,
    pub intakes: Vec<Intake>,
    /// By lane: the stream of what it creates, and how far that is.
    pub created: Vec<(StreamId, u64)>,
    /// Where the stores stand: no part may reach over one of these.
    pub cuts: HashMap<StreamId, Vec<u64>>,
}

/// What lanes and the rest of the process tell each other.
#[derive(Default)]
pub struct Signals {
    /// Somebody wants the process to end.
    pub asked: AtomicBool,
    /// Lanes end.
    pub stop: AtomicBool,
    /// Pipeline files are to be read again.
    pub reload: AtomicBool,
    pub read_bytes: AtomicU64,
    /// Set when standard input, or every file of `--once`, was read to its end.
    pub ended: AtomicBool,
}

/// News for a lane: files that were found, and logs that grew.
#[derive(Default)]
pub struct Inbox {
    pub found: Mutex<Vec<(usize, usize, Input)>>,
    pub grown: Mutex<Vec<u64>>,
    /// News were lost: every log may have grown.
    pub look_at_all: AtomicBool,
    /// The lane's thread, to be woken.
    pub thread: OnceLock<Thread>,
}

impl Signals {
    pub fn is_ending(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }
}

impl Inbox {
    pub fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// One file, standard input or what others send, not read by anyone yet.
pub enum Input {
    File(Found),
    Stdin(StreamId),
    Pipe(Arc<Pipe>),
}

pub struct Lane {
    number: usize,
    pipelines: Arc<Vec<Pipeline>>,
    /// By pipeline: the version of the plan that worker and builder are of.
    versions: Vec<u64>,
    workers: Vec<Worker>,
    builders: Vec<Builder>,
    opened: Vec<Option<Instant>>,
    /// By pipeline: somebody waits until what is in the frame is durable.
    awaited: Vec<bool>,
    logs: HashMap<u64, Log>,
    /// Logs that may have something to read.
    turns: Turns,
    /// What the last turn read, and whose it was.
    read: (u64, Option<u32>),
    /// Of each pipeline, the tenants whose logs are held back; these logs; when hubs were last asked.
    greedy: Vec<HashSet<u32>>,
    held: Vec<u64>,
    /// Logs that went, and the last file of each: one that comes again follows it.
    left: HashMap<u64, Resumed>,
    asked: Instant,
    /// When to look at the others.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    inbox: Arc<Inbox>,
    signals: Arc<Signals>,
    /// When this lane last went round, in ms since the epoch: progress is health.
    pub heartbeat: Arc<AtomicU64>,
    batch: Batch,
    parser: LineParser,
    enricher: Enricher,
    once: bool,
    /// Nothing more comes: every window ends with the frames that close now.
    ending: bool,
}

struct Log {
    pipeline: usize,
    intake: usize,
    path: PathBuf,
    signal: Signal,
    /// Whose container it is.
    pod: Option<Attached>,
    decoder: Decoder,
    /// The first one is being read.
    files: VecDeque<Tail>,
    /// Files that were read to their end and have grown since: read when nothing is held.
    late: Vec<Tail>,
    /// How far files were read that were finished in this run: whoever finds them again may know less. The last [`FINISHED_MAX`].
    finished: VecDeque<(StreamId, u64)>,
    /// Files read to their end in which part of a record began: newest first.
    older: Vec<Resumed>,
    /// Streams whose last newline waited for what was held; it is framing once nothing is named by it.
    owed: Vec<Owed>,
    /// The tenant that its last records were mostly of.
    tenant: Option<u32>,
    /// The file that was read to its end before what comes next.
    follows: Option<Resumed>,
    /// Newest event time so far, less what is of the future; stands in where a record has none and the clock must not be asked.
    newest: UnixNanos,
    /// When somebody had its records (rule R13): now, or with `--once` when the file was last changed, as the clock must not show.
    receipt: Option<UnixNanos>,
    watched: bool,
    idle: Duration,
    /// When it is to be looked at; earlier timers are void.
    look_at: Option<Instant>,
    /// It stands in the queue of those that are ready.
    queued: bool,
    /// It has no file since.
    empty_since: Option<Instant>,
    /// Its name in what quotas remember: the same in every run.
    name: u64,
    /// Nothing more of it is read for now, as a quota is used up.
    rest: Option<Rest>,
}

/// A rest ends by the clock, or by the time that has passed: the clock may be set.
#[derive(Clone, Copy)]
struct Rest {
    until: UnixNanos,
    since: Instant,
    length: Duration,
}

impl Rest {
    fn new(until: UnixNanos, now: UnixNanos) -> Option<Rest> {
        let length = u64::try_from(until.0.saturating_sub(now.0)).ok().filter(|length| *length > 0)?;
        Some(Rest { until, since: Instant::now(), length: Duration::from_nanos(length) })
    }

    /// How long it goes on.
    fn left(&self, now: UnixNanos) -> Option<Duration> {
        let by_clock = Duration::from_nanos(u64::try_from(self.until.0.saturating_sub(now.0)).unwrap_or(0));
        let left = self.length.saturating_sub(self.since.elapsed()).min(by_clock);
        (!left.is_zero()).then_some(left)
    }
}

/// What a turn did.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Worked,
    /// There is nothing to do before this time has passed, unless somebody tells.
    Idle(Duration),
    /// The log's last file was read to its end and nothing more will come.
    Ended,
}

impl Lane {
    /// Lane number `lane` of `lanes`.
    pub fn new(lane: usize, lanes: usize, pipelines: Arc<Vec<Pipeline>>, inbox: Arc<Inbox>, signals: Arc<Signals>, once: bool) -> Lane {
        let plans: Vec<(u64, Arc<Plan>)> = pipelines.iter().map(|p| p.current.get()).collect();
        let workers = plans.iter().map(|(_, plan)| Worker::of_lane(Arc::clone(&plan.rules), lane, lanes, once)).collect();
        let builder = |((_, plan), p): (&(u64, Arc<Plan>), &Pipeline)| Builder::of(plan, p.created[lane]);
        let builders = plans.iter().zip(pipelines.iter()).map(builder).collect();
        let opened = pipelines.iter().map(|_| None).collect();
        let awaited = vec![false; pipelines.len()];
        let greedy = pipelines.iter().map(|_| HashSet::new()).collect();
        Lane {
            number: lane,
            versions: plans.iter().map(|(version, _)| *version).collect(),
            pipelines,
            workers,
            builders,
            opened,
            awaited,
            logs: HashMap::new(),
            turns: Turns::default(),
            read: (0, None),
            greedy,
            held: Vec::new(),
            left: HashMap::new(),
            asked: Instant::now(),
            timers: BinaryHeap::new(),
            inbox,
            signals,
            heartbeat: Arc::default(),
            batch: Batch::default(),
            parser: LineParser::default(),
            enricher: Enricher::default(),
            once,
            ending: false,
        }
    }

    /// Works until told to stop, or with `--once` until everything is read; then hands over what it holds.
    pub fn run(mut self) -> anyhow::Result<()> {
        self.inbox.thread.get_or_init(std::thread::current);
        while !self.signals.stop.load(Ordering::Relaxed) {
            self.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
            self.take_news();
            for pipeline in 0..self.pipelines.len() {
                self.take_plan(pipeline)?;
            }
            self.look_at_hubs();
            let worked = self.round()?;
            self.close_frames(|builder, full, age, age_max| builder.is_full(full) || age >= age_max)?;
            if self.once && self.logs.is_empty() {
                break;
            }
            if !worked {
                std::thread::park_timeout(self.pause());
            }
        }
        for (pipeline, greedy) in self.pipelines.iter().zip(&mut self.greedy) {
            if !greedy.is_empty() {
                pipeline.hub.hold(false);
                greedy.clear();
            }
        }
        self.release_held();
        if !self.once {
            self.finish_groups()?;
        }
        // Whoever sent what was not read is told so.
        self.logs.values().flat_map(|log| &log.files).filter_map(Tail::pushed).for_each(|pipe| pipe.close());
        self.ending = true;
        self.close_frames(|_, _, _, _| true)
    }

    /// Asks hubs with little room whose logs are to be held back; those that were are looked at again.
    fn look_at_hubs(&mut self) {
        if self.once || self.asked.elapsed() < HOLD {
            return;
        }
        self.asked = Instant::now();
        for (pipeline, greedy) in self.pipelines.iter().zip(&mut self.greedy) {
            let names = pipeline.hub.greedy();
            let plan = pipeline.current.get().1; // tenants keep their numbers in every plan
            let now: HashSet<u32> = names.iter().filter_map(|name| plan.rules.tenants.number(name)).collect();
            if now.is_empty() != greedy.is_empty() {
                pipeline.hub.hold(!now.is_empty());
            }
            *greedy = now;
        }
        self.release_held();
    }

    /// Logs that were held back may have their turn.
    fn release_held(&mut self) {
        for key in std::mem::take(&mut self.held) {
            let Some(log) = self.logs.get_mut(&key) else { continue };
            log.queued = false;
            let rotated = self.pipelines[log.pipeline].intakes[log.intake].rotated;
            if let Some(bytes) = log.over_limit(rotated) {
                self.abandon(key, bytes);
            }
            self.make_ready(key);
        }
    }

    /// Whether a log has to wait until its tenant is no longer above its share of a hub with little room.
    fn is_held_back(&self, key: u64) -> bool {
        let log = &self.logs[&key];
        log.tenant.is_some_and(|tenant| self.greedy[log.pipeline].contains(&tenant))
    }

    /// Lines that belong together are complete when no other came for a while: waits for that, and goes on reading meanwhile.
    fn finish_groups(&mut self) -> anyhow::Result<()> {
        let pipelines = Arc::clone(&self.pipelines);
        // What a log holds that rests is read again by the next run.
        let multiline = |log: &Log| pipelines[log.pipeline].intakes[log.intake].multiline.is_some() && log.rest.is_none();
        let until = Instant::now() + GROUPS_MAX;
        while Instant::now() < until && self.logs.values().any(|log| multiline(log) && log.decoder.spare().is_some()) {
            self.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
            self.take_news();
            if !self.round()? {
                std::thread::park_timeout(self.pause().min(HELD_PAUSE));
            }
        }
        Ok(())
    }

    /// How long nothing is to be done unless somebody tells.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let timer = self.timers.peek().map(|Reverse((at, _))| at.saturating_duration_since(now));
        let opened = self.opened.iter().zip(&self.awaited);
        let frame = opened.filter_map(|(at, awaited)| Some(age_max(*awaited).saturating_sub((*at)?.elapsed()))).min();
        let held = (!self.held.is_empty()).then(|| HOLD.saturating_sub(self.asked.elapsed()));
        timer.into_iter().chain(frame).chain(held).fold(HEARTBEAT, Duration::min)
    }

    fn take_news(&mut self) {
        let found = std::mem::take(&mut *lock(&self.inbox.found));
        for (pipeline, intake, input) in found {
            self.add(pipeline, intake, input);
        }
        let mut grown = std::mem::take(&mut *lock(&self.inbox.grown));
        if self.inbox.look_at_all.swap(false, Ordering::Relaxed) {
            grown = self.logs.keys().copied().collect();
        }
        for log in grown {
            self.make_ready(log);
        }
        let now = Instant::now();
        while let Some(Reverse((at, log))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            if self.logs.get(&log).is_some_and(|l| l.look_at == Some(at)) {
                self.make_ready(log);
            }
        }
    }

    fn make_ready(&mut self, log: u64) {
        if let Some(state) = self.logs.get_mut(&log)
            && !std::mem::replace(&mut state.queued, true)
        {
            state.look_at = None;
            self.turns.put(log, self.flow(log));
        }
    }

    /// Nothing of a log is left to be read.
    fn forget(&mut self, key: u64) {
        let Some(log) = self.logs.remove(&key) else { return };
        if self.left.len() >= LEFT_MAX {
            self.left.clear();
        }
        if let Some((stream, done)) = log.finished.front().copied() {
            self.left.insert(key, log.known(Resumed { stream, resume: done, done }));
        }
    }

    /// Whose turns a log's are; with `--once` there is one order for all.
    fn flow(&self, key: u64) -> Flow {
        match self.logs.get(&key) {
            _ if self.once => Flow::All,
            Some(log) => log.tenant.map_or(Flow::Log(key), |tenant| Flow::Tenant(log.pipeline, tenant)),
            None => Flow::Log(key),
        }
    }

    /// Adds a file to its log; a log that is new is created.
    fn add(&mut self, pipeline: usize, intake: usize, input: Input) {
        let (key, path, modified, watched, tail) = match input {
            Input::File(mut found) => {
                let finished = self.logs.get(&found.reader.log).and_then(|log| log.finished.iter().find(|f| f.0 == found.stream));
                if let Some((_, done)) = finished {
                    // What is held of it is in the decoder.
                    (found.position.resume, found.position.done) = (*done, *done);
                }
                let (key, path, modified, watched) = (found.reader.log, found.log.clone(), found.modified, found.watched);
                let (id, shown) = (found.id, found.status.path());
                match Tail::file(found) {
                    Ok(tail) => (key, path, modified, watched, tail),
                    Err(error) => {
                        warn!(path = %shown.display(), %error, "cannot read; it is tried again when it changes");
                        lock(&self.pipelines[pipeline].intakes[intake].known).open.remove(&id);
                        return;
                    }
                }
            }
            Input::Stdin(stream) => (stream.0, PathBuf::from("stdin"), env::now(), true, Tail::stdin(stream)),
            Input::Pipe(pipe) => (pipe.stream.0, pipe.log.clone(), env::now(), true, Tail::pipe(pipe)),
        };
        let signal = tail.signal();
        let settings = &self.pipelines[pipeline].intakes[intake];
        let (worker, once, now) = (&self.workers[pipeline], self.once, env::now());
        let name = key_hash(path.as_os_str().as_encoded_bytes());
        let left = self.left.remove(&key);
        let log = self.logs.entry(key).or_insert_with(|| Log {
            name,
            // As the last run left it.
            rest: worker.rest_of(name, now).filter(|_| !once).and_then(|until| Rest::new(until, now)),
            pipeline,
            intake,
            pod: settings.kubernetes.as_ref().map(|kubernetes| kubernetes.attach(&path, Instant::now())),
            path,
            signal,
            decoder: Decoder::new(settings.format, settings.limits).with(settings.multiline.clone(), settings.encoding),
            files: VecDeque::new(),
            late: Vec::new(),
            finished: VecDeque::new(),
            older: Vec::new(),
            owed: Vec::new(),
            tenant: None,
            follows: left,
            newest: modified,
            receipt: None,
            watched,
            idle: IDLE_MIN,
            look_at: None,
            queued: false,
            empty_since: None,
        });
        log.watched &= watched;
        log.take(tail);
        self.make_ready(key);
    }

    /// Some turns of logs that may have something; with `--once` the first log is read to its end first, so that records come
    /// in the same order on every machine. Is there more to do at once?
    fn round(&mut self) -> anyhow::Result<bool> {
        let mut worked = false;
        let mut bytes = 0;
        for _ in 0..ROUND_TURNS {
            let Some(key) = self.turns.take() else { break };
            if self.is_held_back(key) {
                self.held.push(key);
                continue;
            }
            let flow = self.flow(key);
            self.read = (0, None);
            let turn = self.turn(key)?;
            bytes += self.read.0;
            self.turns.charge(flow, self.read.0);
            let Some(log) = self.logs.get_mut(&key) else { continue };
            if let Some(tenant) = self.read.1 {
                let known = log.tenant.replace(tenant);
                if known.is_none() {
                    // What was read while nobody knew whose it is.
                    self.turns.charge(Flow::Tenant(log.pipeline, tenant), self.read.0);
                }
            }
            match turn {
                Turn::Worked => {
                    worked = true;
                    log.idle = IDLE_MIN;
                    if self.once {
                        self.turns.put_first(key, Flow::All);
                        break;
                    }
                    self.turns.put(key, self.flow(key));
                    if bytes >= ROUND_BYTES {
                        break;
                    }
                }
                Turn::Idle(pause) => {
                    log.queued = false;
                    let at = Instant::now() + pause;
                    log.look_at = Some(at);
                    self.timers.push(Reverse((at, key)));
                    if self.once {
                        break;
                    }
                }
                Turn::Ended => {
                    self.forget(key);
                    worked |= self.once;
                }
            }
        }
        Ok(worked || (!self.once && !self.turns.is_empty()))
    }

    /// Reads one chunk of one log and decides about its records.
    fn turn(&mut self, key: u64) -> anyhow::Result<Turn> {
        let safety = SAFETY.max(SAFETY_EACH * self.logs.len() as u32);
        self.take_plan(self.logs[&key].pipeline)?;
        let log = self.logs.get_mut(&key).expect("only logs that are there are ready");
        let pipeline = &self.pipelines[log.pipeline];
        let intake = &pipeline.intakes[log.intake];
        let batch = &mut self.batch;
        log.take_late();
        let more_files = log.files.len() > 1;
        if log.files.is_empty() {
            let now = env::now();
            let (due, turn) = (log.decoder.due(now), log.linger(self.once));
            if log.decoder.spare().is_some() && (due || self.once) {
                self.flush_older(key, now);
            }
            return Ok(turn);
        }
        let tail = log.files.front_mut().expect("asked just before");
        let mut splice = None;
        // A token's tenant counts, whatever the payload says.
        let mut payer = match tail.pushed().and_then(|pipe| pipe.tenant.clone()) {
            Some(tenant) => Payer::Named(Some(tenant)),
            None => Payer::Record,
        };
        let is_awaited = tail.pushed().is_some();
        let mut chunk_bytes = CHUNK_BYTES;
        if let Some(pod) = &mut log.pod {
            let trusts_record = pod.trusts_record();
            match pod.ready(Instant::now()) {
                Readiness::Ready(of_pod) | Readiness::Missing(of_pod) => {
                    chunk_bytes = chunk_bytes.min(of_pod.chunk_bytes_max());
                    splice = Some(of_pod);
                }
                Readiness::Wait => {
                    if let Some(status) = &tail.status {
                        status.set_state(State::AwaitsMetadata);
                    }
                    return Ok(Turn::Idle(METADATA_PAUSE));
                }
                // The finder does not hand them over; a link may have come between.
                Readiness::Own => return Ok(Turn::Ended),
                Readiness::Plain if trusts_record => {}
                Readiness::Plain => payer = Payer::Named(None),
            }
        }
        if let Some(parsing) = &intake.parsing {
            chunk_bytes = chunk_bytes.min(parsing.chunk_bytes_max());
        }
        chunk_bytes = chunk_bytes.min(self.builders[log.pipeline].chunk_bytes_max());
        if !self.once {
            // Where a sink lags, frames are small: no chunk should be larger than one.
            chunk_bytes = chunk_bytes.min(pipeline.hub.frame_bytes() as usize);
        }
        tail.bound_chunk(chunk_bytes);
        let now = if self.once { log.newest } else { env::now() };
        log.receipt = match tail.id() {
            Some(_) if self.once => tail.modified,
            _ => Some(env::now()),
        };
        if std::mem::take(&mut tail.fresh) && tail.done > 0 {
            log.decoder.set_encoding(tail.encoding);
        }
        if tail.needs_catch_up() {
            log.decoder.set_encoding(tail.encoding);
            tail.catch_up(batch, &mut log.decoder, if self.once { UnixNanos(0) } else { now })
                .with_context(|| format!("cannot read {}", log.path.display()))?;
        }
        let grace = if log.files.len() > 2 { ROTATED_GRACE / 10 } else { ROTATED_GRACE };
        if let Some(bytes) = log.over_limit(intake.rotated) {
            self.abandon(key, bytes);
            return Ok(Turn::Worked);
        }
        if let Some(pause) = log.resting(now, intake.rotated) {
            return Ok(Turn::Idle(pause));
        }
        let tail = log.files.front_mut().expect("asked just before");
        if tail.pushed().is_some_and(|pipe| pipe.is_awaited() && pipe.is_empty()) {
            return Ok(Turn::Idle(AWAITED));
        }
        let glance = match tail.glance() {
            Ok(glance) => glance,
            Err(error) => return Ok(log.fail(&error)),
        };
        if let Glance::Same(ahead @ (Ahead::Nothing | Ahead::Gone)) = glance {
            let ends = self.once || ((more_files || ahead == Ahead::Gone) && tail.is_silent(grace));
            let due = log.decoder.due(now);
            if !ends && due && log.decoder.spare().is_some_and(|ago| ago > 0) {
                self.flush_older(key, now);
                return Ok(Turn::Worked);
            }
            if !ends && !due {
                if lock(&intake.known).crowded && log.is_complete() {
                    self.finish_file(key, End::File, Ahead::Nothing);
                    self.forget(key);
                    return Ok(Turn::Ended);
                }
                let rotated = more_files || ahead == Ahead::Gone;
                return Ok(log.rest(rotated.then_some(grace / 4), safety));
            }
        }
        let cut = pipeline.cuts.get(&tail.stream).and_then(|cuts| cuts.iter().copied().find(|cut| *cut > tail.done));
        let ahead = match glance {
            Glance::Same(Ahead::Truncated) => {
                batch.arena.clear();
                Ahead::Truncated
            }
            _ => match tail.read(batch, cut, splice.is_some() || intake.parsing.is_some()) {
                // Nobody goes on writing it.
                Ok(Ahead::Nothing) if self.once && tail.is_packed() => Ahead::Damaged,
                Ok(ahead) => ahead,
                Err(error) => return Ok(log.fail(&error)),
            },
        };
        let at_end = matches!(ahead, Ahead::Nothing | Ahead::Gone);
        let silent = at_end && tail.is_silent(grace);
        let end = match ahead {
            Ahead::More => End::Open,
            Ahead::Truncated | Ahead::Damaged => End::File,
            Ahead::Nothing | Ahead::Gone if more_files && (self.once || silent) => End::File,
            Ahead::Nothing | Ahead::Gone if self.once => End::Log,
            Ahead::Ended if self.once && !more_files => End::Log,
            // The next file of the log may come yet.
            Ahead::Gone if silent => End::File,
            Ahead::Ended => End::File,
            Ahead::Nothing | Ahead::Gone => End::Idle,
        };
        (batch.arrival, batch.receipt) = (now, log.receipt);
        let from = tail.done;
        let read = batch.arena.len();
        // Zeros with something behind them are a hole; without, somebody may write over them.
        let zeros = trailing_nuls(&batch.arena);
        let hole = zeros > 0 && ahead == Ahead::More && tail.data_behind(from + read as u64).unwrap_or(false);
        let end = if hole && end == End::Open { End::Hole } else { end };
        // Only what is read as it comes grows old.
        let clock = if self.once { UnixNanos(0) } else { now };
        let left = cut.map(|cut| (cut - from) as usize).filter(|left| *left <= read);
        let behind = left.map_or(Vec::new(), |left| batch.arena[left..].to_vec());
        let used = match (cut, left) {
            (Some(cut), Some(left)) if end != End::File || left < read => {
                let held = was_held(&log.decoder, &batch.arena, left, intake.limits.line_bytes_max);
                log.decoder.decode_to(batch, from, cut, held, clock)
            }
            _ => log.decoder.decode(batch, from, end, clock),
        };
        let end = if left.is_some_and(|left| left < read) { End::Open } else { end };
        tail.awaits_zeros = zeros > 0 && used < read && behind.is_empty();
        tail.used(batch, used, read, &behind, intake.limits.line_bytes_max);
        // After the end of a file the decoder already counts that file as one ago.
        let files_ago = u32::from(end == End::File);
        let to = tail.position(log.decoder.oldest_held(files_ago).unwrap_or(tail.done));
        let state = match ahead {
            _ if more_files || ahead == Ahead::Gone => State::Rotated,
            Ahead::More => State::Reading,
            _ => State::Idle,
        };
        tail.show(to, state);
        let stream = tail.stream;
        if used > 0 || !batch.is_empty() {
            let mut also = log.settle_older(files_ago, intake);
            also.extend(log.followed(stream, &also));
            let builder = &mut self.builders[log.pipeline];
            builder.enter(stream, log.signal, from);
            batch.payer = payer;
            (batch.stream, batch.log, batch.source) = (stream, log.name, log.intake as u16);
            let reading = understand(&mut self.parser, &mut self.enricher, batch, intake, splice.as_deref());
            self.workers[log.pipeline].process(batch, reading, now, &mut builder.sums);
            self.read = (used as u64, fair::majority(&batch.tenant));
            log.rest = batch.rests_until.and_then(|until| Rest::new(until, now)).or(log.rest);
            let latest = batch.latest_time();
            log.newest = batch.time.iter().copied().filter(|time| time.0 <= latest).fold(log.newest, UnixNanos::max);
            builder.add(batch, Stretch { stream, from, to, also });
            if cut == Some(to.done) {
                builder.finish_part();
            }
            if log.decoder.spare().is_none_or(|ago| ago == files_ago) {
                for owed in std::mem::take(&mut log.owed) {
                    let settled = owed.settle(now, builder);
                    lock(&intake.known).positions.insert(owed.stream, settled);
                    log.finish(owed.stream, settled.done);
                }
            }
            self.opened[log.pipeline].get_or_insert_with(Instant::now);
            self.awaited[log.pipeline] |= is_awaited;
            self.signals.read_bytes.fetch_add(used as u64, Ordering::Relaxed);
        }
        let pipeline = log.pipeline;
        if end == End::Log && log.decoder.spare().is_some_and(|ago| ago > 0) {
            self.flush_older(key, now);
        }
        if matches!(end, End::File | End::Log) {
            self.finish_file(key, end, ahead);
            let log = &self.logs[&key];
            return Ok(if end == End::Log && log.files.is_empty() && log.late.is_empty() { Turn::Ended } else { Turn::Worked });
        }
        if self.builders[pipeline].is_full(self.full_bytes(pipeline)) {
            self.close_frames(|builder, full, _, _| builder.is_full(full))?;
        }
        let log = self.logs.get_mut(&key).expect("nobody removed it");
        let zeros_ahead = zeros == read && used == 0;
        if used > 0 || (ahead == Ahead::More && !zeros_ahead) {
            return Ok(Turn::Worked);
        }
        if zeros_ahead && ahead == Ahead::More {
            return Ok(log.rest(Some(IDLE_MAX), safety));
        }
        let log = self.logs.get_mut(&key).expect("nobody removed it");
        Ok(log.rest((more_files || ahead == Ahead::Gone).then_some(grace / 4), safety))
    }

    /// Lets go of a rotated file that is not read to its end, as the operator's limit says.
    fn abandon(&mut self, key: u64, bytes: u64) {
        let log = self.logs.get_mut(&key).expect("its turn it was");
        let mut known = lock(&self.pipelines[log.pipeline].intakes[log.intake].known);
        known.counts.abandoned_files += 1;
        known.counts.abandoned_bytes += bytes;
        let path = log.files.front().and_then(|tail| tail.status.as_ref()).map_or_else(|| log.path.clone(), |status| status.path());
        warn!(path = %path.display(), bytes, "a rotated file is let go before its end, as `rotated` says: these bytes are lost");
        drop(known);
        self.finish_file(key, End::File, Ahead::Nothing);
    }

    /// What is held of older files becomes records, named by the newline that was left unused at the end of one of them.
    fn flush_older(&mut self, key: u64, now: UnixNanos) {
        let log = self.logs.get_mut(&key).expect("its turn it was");
        let pipeline = &self.pipelines[log.pipeline];
        let intake = &pipeline.intakes[log.intake];
        let files_ago = log.decoder.spare().unwrap_or(0) as usize;
        // Without a file of its own everything is one more file ago.
        let Some(older) = files_ago.checked_sub(1).and_then(|n| log.older.get(n).copied()) else { return };
        let before = log.owed.iter().find(|owed| owed.stream == older.stream).map_or(0, |owed| owed.before);
        let used = log.decoder.flush(&mut self.batch, older.done + 1) as u64;
        (self.batch.arrival, self.batch.receipt) = (now, if self.once { log.receipt } else { Some(now) });
        (self.batch.stream, self.batch.log, self.batch.source) = (older.stream, log.name, log.intake as u16);
        let to = Position { resume: older.done + used, done: older.done + used, before };
        let also = log.settle_older(0, intake).into_iter().filter(|resumed| resumed.stream != older.stream).collect();
        let builder = &mut self.builders[log.pipeline];
        builder.enter(older.stream, log.signal, older.done);
        let (splice, payer) = match log.pod.as_mut().map(|pod| (pod.trusts_record(), pod.ready(Instant::now()))) {
            Some((_, Readiness::Ready(of_pod) | Readiness::Missing(of_pod))) => (Some(of_pod), Payer::Record),
            Some((false, _)) => (None, Payer::Named(None)),
            Some((true, _)) | None => (None, Payer::Record),
        };
        self.batch.payer = payer;
        let reading = understand(&mut self.parser, &mut self.enricher, &mut self.batch, intake, splice.as_deref());
        self.workers[log.pipeline].process(&mut self.batch, reading, now, &mut builder.sums);
        log.rest = self.batch.rests_until.and_then(|until| Rest::new(until, now)).or(log.rest);
        builder.add(&self.batch, Stretch { stream: older.stream, from: older.done, to, also });
        builder.finish_part();
        self.opened[log.pipeline].get_or_insert_with(Instant::now);
        lock(&intake.known).positions.insert(older.stream, to);
        log.finish(older.stream, to.done);
        log.owed.retain(|owed| owed.stream != older.stream);
        if let Some(settled) = log.older.iter_mut().find(|o| o.stream == older.stream) {
            (settled.resume, settled.done) = (to.done, to.done);
        }
    }

    /// The log's first file was read to its end: forget it, remember where records that go on began.
    fn finish_file(&mut self, key: u64, end: End, ahead: Ahead) {
        let log = self.logs.get_mut(&key).expect("its turn it was");
        let tail = log.files.pop_front().expect("a file was read just before");
        let files_ago = u32::from(end == End::File);
        let resume = log.decoder.oldest_held(files_ago).unwrap_or(tail.done);
        let position = tail.position(resume);
        if let Some(id) = tail.id() {
            // It may grow again, or come back under another name: then reading goes on from here.
            let mut known = lock(&self.pipelines[log.pipeline].intakes[log.intake].known);
            known.positions.insert(tail.stream, position);
            known.open.remove(&id);
            known.dirty = true;
            match ahead {
                Ahead::Truncated => {
                    known.displaced.insert(tail.stream);
                    known.counts.truncations += 1;
                    warn!(path = %log.path.display(), position = tail.done, "file was truncated: what nobody had read of it is lost unless a copy is found, and it is read from its start");
                }
                Ahead::Damaged => {
                    warn!(path = %log.path.display(), position = tail.done, "a compressed file is damaged or ends in the middle: what stands behind is not read");
                    known.damaged.insert(id, None);
                }
                _ => info!(path = %log.path.display(), stream = tail.stream.0, position = tail.done, "file read to its end"),
            }
        } else {
            self.signals.ended.store(true, Ordering::Relaxed);
        }
        log.finish(tail.stream, tail.done);
        log.follows = Some(Resumed { stream: tail.stream, resume: tail.done, done: tail.done });
        if end == End::File && log.decoder.spare() == Some(1) {
            log.owed.push(Owed { stream: tail.stream, done: tail.done, before: tail.before_newline() });
        }
        if end == End::File {
            log.older.insert(0, Resumed { stream: tail.stream, resume, done: tail.done });
        }
        log.empty_since = log.files.is_empty().then(Instant::now);
        self.builders[log.pipeline].finish_part();
    }

    /// Kept bytes at which a frame of a pipeline closes; with `--once` how fast sinks are must not show.
    fn full_bytes(&self, pipeline: usize) -> u64 {
        if self.once { u64::MAX } else { self.pipelines[pipeline].hub.frame_bytes() }
    }

    /// Closes the frames for which `due` holds and hands them to their hubs. `due` is told the bytes at which one is full, its age, and
    /// the age at which it closes.
    fn close_frames(&mut self, due: impl Fn(&Builder, u64, Duration, Duration) -> bool) -> anyhow::Result<()> {
        for n in 0..self.pipelines.len() {
            let full = self.full_bytes(n);
            let builder = &mut self.builders[n];
            // With --once only sizes close a frame: the clock must not show in the stores.
            let age = self.opened[n].filter(|_| !self.once).map_or(Duration::ZERO, |at| at.elapsed());
            let worker = &mut self.workers[n];
            let now = if self.once { UnixNanos(0) } else { env::now() };
            let owes = self.ending || (!self.once && worker.is_due(now));
            let is_due = if builder.is_empty() { owes } else { due(builder, full, age, age_max(self.awaited[n])) };
            if is_due {
                self.close_frame(n, now, self.ending)?;
            }
        }
        Ok(())
    }

    /// Closes the frame of a pipeline and hands it to its hub. `all`: every window ends with it.
    fn close_frame(&mut self, n: usize, now: UnixNanos, all: bool) -> anyhow::Result<()> {
        let pipelines = Arc::clone(&self.pipelines);
        let (pipeline, builder) = (&pipelines[n], &mut self.builders[n]);
        builder.add_created(self.workers[n].close(now, all));
        if builder.is_empty() {
            return Ok(());
        }
        let frame = builder.close((!self.once).then_some(now));
        (self.opened[n], self.awaited[n]) = (None, false);
        let accepted = pipeline.hub.accept_while(frame, &mut || self.release_rotated());
        accepted.with_context(|| format!("pipeline {}: the hub takes no more", pipeline.name))?;
        let examples = &mut self.builders[n].examples;
        if !examples.is_empty() {
            pipeline.examples.add(examples.drain(..));
        }
        Ok(())
    }

    /// Goes over to a plan that a reload has put in place, between two frames: what the one before decided is closed with all
    /// that its samplers owe, so each record is decided by one plan, and no sum waits for a step that may be gone.
    fn take_plan(&mut self, n: usize) -> anyhow::Result<()> {
        if self.pipelines[n].current.version() == self.versions[n] {
            return Ok(());
        }
        let pipelines = Arc::clone(&self.pipelines);
        let current = &pipelines[n].current;
        self.close_frame(n, env::now(), true)?;
        let (version, plan) = current.get();
        let created = self.builders[n].created();
        self.workers[n] = Worker::of_lane(Arc::clone(&plan.rules), self.number, pipelines[n].created.len(), self.once);
        self.builders[n] = Builder::of(&plan, created);
        self.versions[n] = version;
        self.rest_anew(n);
        if let Some(gone) = current.arrive() {
            // Nobody runs these steps any more, and none of them comes back before this frame is taken.
            plan.rules.sampling.tallies.forget(&gone);
            self.builders[n].forget(&gone);
            self.close_frame(n, env::now(), false)?;
            current.settle();
        }
        Ok(())
    }

    /// Logs rest as long as the new plan says, which may have lifted a quota.
    fn rest_anew(&mut self, n: usize) {
        let (worker, now) = (&self.workers[n], env::now());
        let mut rested = Vec::new();
        for (key, log) in self.logs.iter_mut().filter(|(_, log)| log.pipeline == n && log.rest.is_some()) {
            log.rest = worker.rest_of(log.name, now).and_then(|until| Rest::new(until, now));
            rested.push(*key);
        }
        rested.into_iter().for_each(|key| self.make_ready(key));
    }

    /// Nothing is read while a hub has no room, but the limits of rotated files hold.
    fn release_rotated(&mut self) {
        self.take_news();
        let pipelines = Arc::clone(&self.pipelines);
        let over = self.logs.iter_mut().filter_map(|(key, log)| {
            let intake = &pipelines[log.pipeline].intakes[log.intake];
            log.over_limit(intake.rotated).map(|bytes| (*key, bytes))
        });
        for (key, bytes) in over.collect::<Vec<_>>() {
            self.abandon(key, bytes);
        }
    }
}

/// Lines become records, and records say whose container they come from. Returns how to read them now.
fn understand(parser: &mut LineParser, enricher: &mut Enricher, batch: &mut Batch, intake: &Intake, splice: Option<&Splice>) -> Reading {
    let parsed = intake.parsing.as_ref().map_or(intake.reading, |parsing| parser.parse(batch, parsing, intake.reading));
    splice.map_or(parsed, |splice| enricher.enrich(batch, splice, parsed))
}

fn age_max(awaited: bool) -> Duration {
    if awaited { AWAITED_AGE } else { FRAME_AGE }
}

/// Whether something was held when a run stood at `left`: before the newline of a line that was taken, or within a line longer
/// than any. (Else it stood behind a newline, or a file had ended there without one.) UTF-16 is not told apart.
fn was_held(decoder: &Decoder, arena: &[u8], left: usize, line_bytes_max: usize) -> bool {
    let line = memchr::memrchr(b'\n', &arena[..left]).map_or(0, |newline| newline + 1);
    let long_under_way = line == 0 && decoder.oldest_held(0).is_some() && decoder.spare().is_none();
    let at_line_end = arena.get(left) == Some(&b'\n') && left > line;
    at_line_end || left - line > line_bytes_max || (left > 0 && long_under_way)
}

/// The last newline of a file, which waits for what is held: it may become a name.
struct Owed {
    stream: StreamId,
    /// Where the newline stands.
    done: u64,
    /// Hash of what stands before the byte behind it.
    before: u64,
}

impl Owed {
    /// Nothing is named by it: it is a part of its own, of framing.
    fn settle(&self, now: UnixNanos, builder: &mut Builder) -> Position {
        let mut batch = Batch { arrival: now, ..Batch::default() };
        batch.law.framing_bytes = 1;
        builder.enter(self.stream, Signal::Logs, self.done); // a newline of a file
        let to = Position { resume: self.done + 1, done: self.done + 1, before: self.before };
        builder.add(&batch, Stretch { stream: self.stream, from: self.done, to, also: Vec::new() });
        builder.finish_part();
        to
    }
}

impl Log {
    /// Takes a file of this log, the oldest first.
    fn take(&mut self, tail: Tail) {
        self.empty_since = None;
        let named = self.files.iter().all(|other| tail.compares(other));
        let is_older = |other: &Tail| if named { tail.is_older(other) } else { tail.order < other.order };
        match self.files.front() {
            Some(front) if is_older(front) => self.late.push(tail),
            _ => {
                let at = self.files.iter().position(&is_older).unwrap_or(self.files.len());
                self.files.insert(at, tail);
            }
        }
    }

    /// Remembers how far a file was read.
    fn finish(&mut self, stream: StreamId, done: u64) {
        self.finished.retain(|finished| finished.0 != stream);
        self.finished.push_front((stream, done));
        self.finished.truncate(FINISHED_MAX);
        if let Some(before) = self.follows.as_mut().filter(|before| before.stream == stream) {
            (before.resume, before.done) = (done, done);
        }
    }

    /// The file before this one in the log, where this one's first part is at hand: no sink may have this one without it.
    fn followed(&mut self, stream: StreamId, also: &[Resumed]) -> Option<Resumed> {
        let before = self.follows.take().filter(|before| before.stream != stream && also.iter().all(|a| a.stream != before.stream))?;
        Some(self.known(before))
    }

    /// A file that was read to its end, with where its oldest unfinished part begins.
    fn known(&self, file: Resumed) -> Resumed {
        self.older.iter().find(|older| older.stream == file.stream).copied().unwrap_or(file)
    }

    /// Turns to a file that grew after its end was read, where nothing of the present one is held.
    fn take_late(&mut self) {
        let holds = self.decoder.spare().is_some() || self.decoder.oldest_held(0).is_some();
        if !self.late.is_empty() && (self.files.is_empty() || !holds) {
            let tail = self.late.remove(0);
            self.files.push_front(tail);
        }
    }

    /// Unread bytes of the first file, if it was rotated away and is over a limit.
    fn over_limit(&mut self, rotated: Rotated) -> Option<u64> {
        if rotated.age_max.is_none() && rotated.bytes_max.is_none() {
            return None;
        }
        let more_files = self.files.len() > 1;
        let tail = self.files.front_mut()?;
        let behind = tail.behind_bytes();
        if behind == 0 || !(more_files || tail.is_gone()) {
            tail.rotated_since = None;
            return None;
        }
        let since = tail.rotated_since.get_or_insert_with(Instant::now).elapsed();
        let too_old = rotated.age_max.is_some_and(|max| since >= max);
        let too_large = rotated.bytes_max.is_some_and(|max| behind > max);
        (too_old || too_large).then_some(behind)
    }

    /// How long it is not read on at least, as a quota is used up.
    fn resting(&mut self, now: UnixNanos, rotated: Rotated) -> Option<Duration> {
        let left = self.rest.and_then(|rest| rest.left(now));
        let Some(left) = left else {
            self.rest = None;
            return None;
        };
        if let Some(status) = self.files.front().and_then(|tail| tail.status.as_ref()) {
            status.set_state(State::Delayed);
        }
        // What is rotated away meanwhile may go, if the operator says so; and a clock that is set forward ends the rest.
        let is_limited = rotated.age_max.is_some() || rotated.bytes_max.is_some();
        Some(left.min(if is_limited { IDLE_MAX } else { SAFETY }))
    }

    /// Everything of it is read and decided, and nothing held.
    fn is_complete(&self) -> bool {
        let held = self.decoder.spare().is_some() || self.decoder.oldest_held(0).is_some() || !self.older.is_empty();
        self.files.len() == 1 && self.late.is_empty() && !held && self.files[0].unused_bytes == 0 && self.files[0].id().is_some()
    }

    /// Until when nothing is to be done. `sooner`: something is to be decided by then.
    fn rest(&mut self, sooner: Option<Duration>, safety: Duration) -> Turn {
        let pause = if self.watched { safety } else { self.idle };
        self.idle = (self.idle * 2).min(IDLE_MAX);
        let late = (!self.late.is_empty()).then_some(IDLE_MAX);
        // What is held becomes a record when its age is reached.
        let held = self.decoder.spare().map(|_| HELD_PAUSE);
        Turn::Idle(sooner.into_iter().chain(late).chain(held).fold(pause, Duration::min))
    }

    /// The file cannot be read right now.
    fn fail(&mut self, error: &std::io::Error) -> Turn {
        let path = self.path.display();
        if let Some(status) = self.files.front().and_then(|tail| tail.status.as_ref()) {
            status.set_state(State::Failing);
            let now = (env::now().0 / 1_000_000) as u64;
            if status.failing_since_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                warn!(%path, %error, "cannot read; trying again");
            }
        }
        self.idle = (self.idle * 2).min(IDLE_MAX);
        Turn::Idle(self.idle)
    }

    /// A log without files: its next one may come, and what it holds waits for its age.
    fn linger(&mut self, once: bool) -> Turn {
        let since = *self.empty_since.get_or_insert_with(Instant::now);
        let left = LINGER.saturating_sub(since.elapsed());
        if once || (left.is_zero() && self.decoder.spare().is_none()) {
            return Turn::Ended;
        }
        Turn::Idle(left.max(HELD_PAUSE))
    }

    /// Older files whose parts have found their ends since: their new positions.
    fn settle_older(&mut self, shift: u32, intake: &Intake) -> Vec<Resumed> {
        let mut settled = Vec::new();
        for (n, older) in self.older.iter_mut().enumerate() {
            let resume = self.decoder.oldest_held(n as u32 + 1 + shift).unwrap_or(older.done);
            if resume != older.resume {
                older.resume = resume;
                settled.push(*older);
                if let Some(position) = lock(&intake.known).positions.get_mut(&older.stream) {
                    position.resume = resume;
                }
            }
        }
        while self.older.last().is_some_and(|older| older.resume == older.done) {
            self.older.pop();
        }
        settled
    }
}
