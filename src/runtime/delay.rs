//! The delay line of tail sampling: lanes put frames into a journal of its own, and the *decider* passes them on when their time
//! has come, in order, with their verdicts.
//!
//! In: frames whose rows are marked (`flow::step::tail`). Out: the same frames in the pipeline's hub, without the rows that were
//! left out, and summaries of these. A *scout* reads ahead and fills the table of keys with a match; a frame is due when the scout
//! has seen everything that was received up to `decision_wait` after it. Both read frames one at a time from disk: nothing but
//! keys and these few frames is held in memory. What was decided stays in the journal for another `decision_wait`, so that after
//! a restart the scout finds the same table. How far it is stands in the state of the pipeline's hub, in the frame that it
//! decided: so each frame is decided once.
//!
//! With `--once` the clock is the records' own time, and a frame is due when half of `bytes_max` waits, or the sources have
//! ended. Bound: `bytes_max` on disk. When lanes wait for room, what is kept for a restart goes first; then the oldest frames
//! are decided early, which is counted and told. Where the step is gone from the config, everything that waits is passed on.

use super::build::{Builder, value_span};
use crate::env;
use crate::examples::{Example, Examples, PER_FRAME_MAX};
use crate::plan::Plan;
use anyhow::Context;
use flow::batch::{BEFORE_STEPS, Batch};
use flow::debts::{Debts, Owed};
use flow::event::{Outcome, Position, Reason, StreamId};
use flow::fields::{Scanner, Span};
use flow::pipeline::Rules;
use flow::stamp::stamp;
use flow::step::tail::{Table, Tail};
use flow::step::{Clock, Step};
use flow::tenancy::UNKNOWN;
use flow::units::UnixNanos;
use hub::frame::{Count, Frame, Lost, Part, Rows, STATE_ENTRY_BYTES, StateChange};
use hub::{Cursor, Disk, Hub, Limits, Next, Recovered, WhenFull};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tracing::warn;

/// Ends the name of a delay line; no pipeline's name has a dot.
pub const DELAY: &str = ".delay";
/// In the state of the pipeline's hub: step and key of how far the decider is.
pub const STATE_STEP: u32 = 0x6465_6c79;
const STATE_KEY: [u8; 8] = *b"decided\0";
/// How long the decider sleeps at most.
const PAUSE: Duration = Duration::from_millis(100);
/// The same while lanes wait for room: nothing comes, and a frame is decided after each.
const BRIEF: Duration = Duration::from_millis(2);
/// A lane's frame is closed this long after its oldest record at most; with the time until it is durable it is there.
const CLOSING: Duration = Duration::from_millis(300);
/// Where no step says how much may wait: what an earlier run left is read only.
const BYTES_MAX: u64 = 4 << 30;

/// What an earlier run and the config leave to the decider.
pub struct Delay {
    pub hub: Arc<Hub>,
    pub folder: PathBuf,
    limits: Limits,
    /// Every frame up to this one is in the pipeline's hub.
    decided: u64,
    /// The pipeline's hub says that it is further.
    is_behind: bool,
    /// The last frame of earlier runs, and where the pipeline's hub stood.
    last_seq: u64,
    had: HashMap<StreamId, Position>,
    /// What tail sampling owes.
    owed: Vec<Owed>,
}

impl Delay {
    /// Opens the delay line where the plan has one or an earlier run left one. `recovered`, of the pipeline's hub, becomes what
    /// lanes go on from: positions and state behind everything that waits.
    pub fn open(
        disk: &Disk,
        folder: PathBuf,
        main: &Hub,
        plan: &Plan,
        limits: Limits,
        tenants_max: usize,
        recovered: &mut Recovered,
    ) -> anyhow::Result<Option<Delay>> {
        if tail_of(&plan.rules).is_none() && !folder.exists() {
            return Ok(None);
        }
        disk.create_dir_all(&folder, "delay folder").with_context(|| format!("cannot create {}", folder.display()))?;
        // Segments are small beside the bound: what is released is free soon.
        let limits = Limits { segment_bytes: limits.segment_bytes.min(limits.bytes_max / 16), when_full: WhenFull::Wait, ..limits };
        let (delay, waiting) = Hub::open_journal(disk.clone(), &folder, limits, tenants_max)?;
        recovered.notices.extend(waiting.notices);
        // What waits says once more in the pipeline's hub what it changed, when it is decided.
        delay.keep_state(|_, _| false);
        let noted = decided_of(main).context("cannot read how far the delay line is")?;
        let decided = noted.min(waiting.last_seq);
        let had = recovered.positions.clone();
        for (stream, position) in waiting.positions {
            let ours = recovered.positions.entry(stream).or_insert(position);
            if position.done >= ours.done {
                *ours = position;
            }
        }
        if waiting.positions_lost {
            delay.restore_positions(recovered.positions.clone()).context("cannot write the positions of the delay line")?;
        }
        let (hub, last_seq, is_behind) = (Arc::new(delay), waiting.last_seq, decided < noted);
        Ok(Some(Delay { hub, folder, limits, decided, is_behind, last_seq, had, owed: Vec::new() }))
    }

    /// Shows what frames that wait change in the state of steps, behind what the pipeline's hub says.
    pub fn each_state(&self, show: &mut dyn FnMut(u32, &[u8])) -> anyhow::Result<()> {
        self.hub.each_state_behind(self.decided, show).with_context(|| format!("cannot read {}", self.folder.display()))
    }

    /// Takes what tail sampling owes out of what lanes take over.
    pub fn take_owed(&mut self, rules: &Rules) {
        let Some((number, _)) = tail_of(rules) else { return };
        let mut restored = rules.sampling.restored.lock().expect("no lane runs yet");
        self.owed = restored.extract_if(.., |owed| owed.step_id == rules.step_ids[usize::from(number)]).collect();
    }

    /// Whether frames wait that nobody is left to decide about: they are passed on before lanes start.
    pub fn is_left_over(&self, rules: &Rules) -> bool {
        tail_of(rules).is_none()
    }
}

/// The most that an earlier run's delay line may take where no step says it.
pub fn limits(plan_bytes_max: Option<u64>, of_hub: Limits) -> Limits {
    Limits { bytes_max: plan_bytes_max.unwrap_or(BYTES_MAX), ..of_hub }
}

/// Where the delay line of a pipeline lies.
pub fn folder(data: &Path, pipeline: &str) -> PathBuf {
    data.join("hub").join(format!("{pipeline}{DELAY}"))
}

/// The tail sampler of a plan, and its number among the steps.
fn tail_of(rules: &Rules) -> Option<(u16, &Tail)> {
    (0u16..).zip(&rules.steps).find_map(|(number, step)| if let Step::Tail(tail) = step { Some((number, &**tail)) } else { None })
}

fn decided_is(seq: u64) -> StateChange {
    let mut bytes = STATE_KEY.to_vec();
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.resize(STATE_ENTRY_BYTES, 0);
    StateChange { step: STATE_STEP, bytes }
}

fn decided_of(main: &Hub) -> std::io::Result<u64> {
    let mut decided = 0;
    main.each_state(&mut |step, entries| {
        for entry in entries.chunks_exact(STATE_ENTRY_BYTES).filter(|entry| step == STATE_STEP && entry[..8] == STATE_KEY) {
            decided = u64::from_le_bytes(entry[8..16].try_into().expect("a range of 8 is 8 bytes"));
        }
    })?;
    Ok(decided)
}

/// What the decider and the rest of the process tell each other.
#[derive(Default)]
pub struct Status {
    /// When it last made progress or had nothing to do, in ms since the epoch.
    pub heartbeat: AtomicU64,
    /// When the oldest frame that waits was received, in ns since the epoch; 0: none waits.
    pub oldest: AtomicI64,
    /// Frames that were decided before their time, as lanes waited for room.
    pub early: AtomicU64,
    /// Matches that were not remembered, as the table was full.
    pub passed_over: AtomicU64,
    /// Keys in the table.
    pub keys: AtomicU64,
}

/// What to do with the oldest frame.
enum Due {
    Now,
    /// Lanes wait for room.
    Early,
    Later,
    /// Nothing comes any more.
    Ended,
}

/// A frame that was decided and stays for a restart.
struct Behind {
    seq: u64,
    received: UnixNanos,
    bytes: u64,
}

pub struct Decider {
    pipeline: String,
    delay: Arc<Hub>,
    hub: Arc<Hub>,
    rules: Arc<Rules>,
    columns: Vec<usize>,
    routes: u64,
    scout: Cursor,
    oldest: Cursor,
    /// The last frame that the scout was given, and one that it may not look at yet.
    scouted: u64,
    ahead: Option<Arc<Frame>>,
    table: Table,
    debts: Debts,
    builder: Builder,
    scanner: Scanner,
    batch: Batch,
    examples: Arc<Examples>,
    decided: u64,
    is_behind: bool,
    /// What became of frames up to this one is durable.
    durable: u64,
    last_seq: u64,
    had: HashMap<StreamId, Position>,
    behind: VecDeque<Behind>,
    behind_bytes: u64,
    /// Scouted and not decided.
    waiting_bytes: u64,
    bytes_max: u64,
    /// Lanes waited for room when it was last looked.
    pressed: bool,
    /// How long after its time a frame may still come.
    grace: Duration,
    /// With `--once`: newest received so far.
    once: Option<UnixNanos>,
    pub status: Arc<Status>,
}

impl Decider {
    /// `created`: the stream of its summaries, and how far it is.
    pub fn new(delay: &mut Delay, hub: &Arc<Hub>, plan: &Plan, examples: &Arc<Examples>, created: (StreamId, u64), once: bool) -> Decider {
        let rules = Arc::clone(&plan.rules);
        let names: Vec<&str> = plan.columns.iter().map(|c| rules.fields.paths()[*c].as_str()).collect();
        Decider {
            pipeline: plan.name.clone(),
            delay: Arc::clone(&delay.hub),
            hub: Arc::clone(hub),
            columns: plan.columns.clone(),
            routes: crate::plan::routes(&names),
            scout: delay.hub.reader("scout"),
            oldest: delay.hub.reader("decider"),
            scouted: 0,
            ahead: None,
            table: Table::new(tail_of(&rules).map_or(0, |(_, tail)| tail.keys_max)),
            debts: Debts::of_decider(&rules, std::mem::take(&mut delay.owed)),
            builder: Builder::of_decider(plan, created),
            scanner: Scanner::new(Arc::clone(&rules.fields)),
            batch: Batch::default(),
            examples: Arc::clone(examples),
            decided: delay.decided,
            is_behind: delay.is_behind,
            durable: delay.decided,
            last_seq: delay.last_seq,
            had: std::mem::take(&mut delay.had),
            behind: VecDeque::new(),
            behind_bytes: 0,
            waiting_bytes: 0,
            bytes_max: delay.limits.bytes_max,
            pressed: false,
            grace: CLOSING + delay.limits.sync_interval,
            once: once.then_some(UnixNanos(i64::MIN)),
            status: Arc::default(),
            rules,
        }
    }

    /// Notes in the pipeline's hub how far this is, where that is wrong there: the delay line was made anew, or lost its end, and its
    /// next frames are not the ones that were decided. While sinks make room, and before lanes start.
    pub fn note_begin(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_behind) {
            self.accept(Frame { state: vec![decided_is(self.decided)], ..Frame::default() })?;
            self.hub.commit().context("cannot note where the delay line begins")?;
        }
        Ok(())
    }

    /// Works until the delay line is closed; with `--once`, and where no step asks for a delay, until nothing waits any more.
    pub fn run(mut self) -> anyhow::Result<()> {
        let mut oldest: Option<Arc<Frame>> = None;
        loop {
            self.beat(oldest.as_deref());
            let Some(frame) = oldest.take() else {
                match self.oldest.next(PAUSE).context("the delay line")? {
                    Next::Frame(frame) if frame.seq <= self.decided => {
                        // Decided by an earlier run: only what it says of keys counts.
                        self.scout_to(&frame)?;
                        self.stay(&frame);
                    }
                    Next::Frame(frame) => oldest = Some(frame),
                    Next::Idle | Next::Pressure => self.rest(None)?,
                    Next::Closed => break,
                }
                continue;
            };
            match self.look_ahead(&frame)? {
                Due::Now => self.pass_on(&frame)?,
                Due::Early => {
                    if self.status.early.fetch_add(1, Ordering::Relaxed) == 0 {
                        let pipeline = &self.pipeline;
                        warn!(
                            pipeline,
                            "the delay line is full: requests are decided before `decision_wait` is over; raise `bytes_max` of `tail`"
                        );
                    }
                    self.pass_on(&frame)?;
                }
                Due::Later => {
                    self.rest(Some(frame.received))?;
                    oldest = Some(frame);
                }
                Due::Ended => break,
            }
        }
        self.finish()
    }

    fn wait(&self) -> Option<i64> {
        tail_of(&self.rules).map(|(_, tail)| tail.wait_ns)
    }

    fn beat(&self, oldest: Option<&Frame>) {
        let status = &self.status;
        status.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
        status.oldest.store(oldest.map_or(0, |frame| frame.received.0), Ordering::Relaxed);
        status.keys.store(self.table.len() as u64, Ordering::Relaxed);
        if status.passed_over.swap(self.table.passed_over, Ordering::Relaxed) == 0 && self.table.passed_over > 0 {
            warn!(pipeline = self.pipeline, "more requests have a match than `keys_max` of `tail` allows: some are not kept as a whole");
        }
    }

    /// Reads ahead of the oldest frame that waits, as far as its verdict needs.
    fn look_ahead(&mut self, frame: &Frame) -> anyhow::Result<Due> {
        let Some(wait) = self.wait() else { return Ok(Due::Now) };
        let until = frame.received.0.saturating_add(wait);
        loop {
            if self.once.is_some() && self.waiting_bytes > self.bytes_max / 2 {
                return Ok(Due::Now);
            }
            let next = match self.ahead.take() {
                Some(ahead) => Next::Frame(ahead),
                None => self.scout.next(if self.pressed { BRIEF } else { PAUSE }).context("the delay line")?,
            };
            match next {
                Next::Frame(ahead) if self.once.is_none() && ahead.received.0 > until => {
                    self.scouted = ahead.seq;
                    self.ahead = Some(ahead);
                    return Ok(Due::Now);
                }
                Next::Frame(ahead) => self.see(&ahead, frame, wait),
                Next::Closed if self.once.is_some() => return Ok(Due::Now),
                Next::Closed => return Ok(Due::Ended),
                Next::Idle | Next::Pressure => {
                    let (now, grace) = (env::now().0, i64::try_from(self.grace.as_nanos()).unwrap_or(i64::MAX));
                    // Where the clock was put back, nobody waits until it is there again.
                    let is_over = now > until.saturating_add(grace) || now.saturating_add(grace) < frame.received.0;
                    if self.once.is_none() && is_over {
                        return Ok(Due::Now);
                    }
                    self.pressed = self.delay.is_full();
                    // What was decided goes first.
                    let is_early = self.pressed && !self.release(u64::MAX)?;
                    return Ok(if is_early { Due::Early } else { Due::Later });
                }
            }
        }
    }

    fn see(&mut self, frame: &Frame, oldest: &Frame, wait: i64) {
        self.scouted = frame.seq;
        if frame.seq > self.decided {
            self.waiting_bytes += disk_bytes(frame);
        }
        let rows = &frame.rows;
        match self.once {
            None => self.table.see(&rows.requests, |_| frame.received, oldest.received, wait),
            Some(_) => {
                let horizon = oldest.rows.time.iter().min().map_or(oldest.received, |time| UnixNanos(*time));
                self.table.see(&rows.requests, |i| UnixNanos(rows.time[i]), horizon, wait);
            }
        }
    }

    /// The scout goes as far as a frame that needs no verdict.
    fn scout_to(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let Some(wait) = self.wait() else { return Ok(()) };
        while self.scouted < frame.seq {
            match self.scout.next(PAUSE).context("the delay line")? {
                Next::Frame(seen) => self.see(&seen, frame, wait),
                Next::Idle | Next::Pressure => self.beat(None),
                Next::Closed => break,
            }
        }
        Ok(())
    }

    /// Nothing is due: lets go of what no verdict needs any more, tells what is owed.
    fn rest(&mut self, oldest: Option<UnixNanos>) -> anyhow::Result<()> {
        if self.once.is_some() {
            return Ok(());
        }
        let now = env::now();
        self.let_go(oldest.unwrap_or(now))?;
        if self.debts.is_due(now) {
            self.tell(now, false)?;
        }
        Ok(())
    }

    /// Summaries that come with no frame.
    fn tell(&mut self, now: UnixNanos, all: bool) -> anyhow::Result<()> {
        self.builder.add_created(self.debts.close(now, all, &self.rules));
        if self.builder.is_empty() {
            return Ok(());
        }
        let frame = self.builder.close(self.once.is_none().then_some(now));
        self.accept(frame)
    }

    /// A decided frame stays for a restart.
    fn stay(&mut self, frame: &Frame) {
        let bytes = disk_bytes(frame);
        self.behind.push_back(Behind { seq: frame.seq, received: frame.received, bytes });
        self.behind_bytes += bytes;
    }

    /// Lets go of what is no longer needed for verdicts on records received at `horizon` or later, and of what is too much.
    fn let_go(&mut self, horizon: UnixNanos) -> anyhow::Result<()> {
        let (before, most) = match self.once {
            None => (horizon.0.saturating_sub(self.wait().unwrap_or(0)), u64::MAX),
            // Records of any time may come.
            Some(_) => (i64::MIN, self.bytes_max / 8),
        };
        let (mut last, mut bytes) = (0, self.behind_bytes);
        for behind in &self.behind {
            if behind.received.0 >= before && bytes <= most {
                break;
            }
            last = behind.seq;
            bytes -= behind.bytes;
        }
        self.release(last).map(drop)
    }

    /// Lets go of decided frames up to `seq`, once what became of them is durable. Whether there were any.
    fn release(&mut self, seq: u64) -> anyhow::Result<bool> {
        let Some(last) = self.behind.iter().take_while(|behind| behind.seq <= seq).last().map(|behind| behind.seq) else {
            return Ok(false);
        };
        if last > self.durable {
            if self.hub.commit().is_err() {
                return Ok(false); // the hub's syncer tries again, and tells
            }
            self.durable = self.decided;
        }
        while let Some(behind) = self.behind.pop_front_if(|behind| behind.seq <= last) {
            self.behind_bytes -= behind.bytes;
        }
        let committed = self.oldest.committed(last).and_then(|()| self.scout.committed(last.min(self.scouted)));
        committed.with_context(|| format!("pipeline {}: the delay line cannot let go of decided frames", self.pipeline))?;
        Ok(true)
    }

    /// Gives the rows of a frame their verdicts and passes it on.
    fn pass_on(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let now = match &mut self.once {
            Some(newest) => {
                *newest = frame.received.max(*newest);
                *newest
            }
            None => env::now(),
        };
        self.debts.clock = now;
        let mut decided = self.decide(frame);
        if decided.lost.is_none() {
            self.builder.adopt(decided);
            self.builder.add_created(self.debts.close(now, false, &self.rules));
            decided = self.builder.close(Some(frame.received));
        }
        decided.state.push(decided_is(frame.seq));
        self.accept(decided)?;
        self.decided = frame.seq;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(disk_bytes(frame));
        if frame.seq >= self.last_seq {
            self.had = HashMap::new();
        }
        self.stay(frame);
        self.let_go(frame.received)
    }

    fn accept(&mut self, frame: Frame) -> anyhow::Result<()> {
        let status = Arc::clone(&self.status);
        let mut beat = || status.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
        self.hub.accept_while(frame, &mut beat).with_context(|| format!("pipeline {}: the hub takes no more", self.pipeline))?;
        Ok(())
    }

    /// The frame as it is decided: parts, facts and notes as they were, the rows that are kept, and counts that say so.
    fn decide(&mut self, frame: &Frame) -> Frame {
        let routes = self.routes;
        let head = |rows: Rows| Frame {
            received: frame.received,
            newest: frame.newest,
            tenants: frame.tenants.clone(),
            meters: frame.meters.clone(),
            values: frame.values.clone(),
            routes,
            sinks: frame.sinks.clone(),
            state: frame.state.clone(),
            rows,
            ..Frame::default()
        };
        if let Some(lost) = &frame.lost {
            // Damaged while it waited. Its number in the hub is not known yet, and it stands for one only.
            let lost = Lost { first_seq: u64::MAX, ..(**lost).clone() };
            return Frame { parts: frame.parts.clone(), lost: Some(Box::new(lost)), ..head(Rows::default()) };
        }
        let tail = self.verdicts(frame);
        let mut out = head(Rows { columns: vec![Vec::new(); self.columns.len()], ..Rows::default() });
        let mut examples = Vec::new();
        for part in &frame.parts {
            // Passed on before; only where the hub does not know how far the decider was.
            let had = self.had.get(&part.stream).is_some_and(|had| part.from < part.to && part.to <= had.done);
            if had {
                continue;
            }
            let start = out.rows.len() as u32;
            let mut dropped = vec![(0, 0); frame.tenants.len()];
            let mut decided = Part { rows: 0..0, ..part.clone() };
            for i in part.rows.start as usize..part.rows.end as usize {
                if self.batch.outcome[i] == Outcome::Dropped(Reason::Sampled) {
                    let (tenant, bytes) = (frame.rows.tenant[i] as usize, u64::from(frame.rows.origin_bytes[i]));
                    if dropped[tenant] == (0, 0) && examples.len() < PER_FRAME_MAX {
                        examples.push(example(frame, part, i));
                    }
                    dropped[tenant] = (dropped[tenant].0 + 1, dropped[tenant].1 + bytes);
                    unselect(&mut decided, frame, i);
                } else {
                    self.push_row(frame, i, tail.as_deref(), &mut out.rows);
                }
            }
            decided.rows = start..out.rows.len() as u32;
            recount(&mut decided, &dropped);
            out.parts.push(decided);
        }
        if !examples.is_empty() {
            self.examples.add(examples);
        }
        out
    }

    /// Fills the batch with what verdicts need of the rows, and gives them. Returns the name of the sampler.
    fn verdicts(&mut self, frame: &Frame) -> Option<Arc<str>> {
        let (rules, rows, batch) = (Arc::clone(&self.rules), &frame.rows, &mut self.batch);
        let n = rows.len();
        let numbers: Vec<u32> = frame.tenants.iter().map(|name| rules.tenants.number(name).unwrap_or(UNKNOWN)).collect();
        batch.clear_records();
        batch.start.resize(n, 0);
        batch.arrival = frame.received;
        batch.undecided();
        batch.weight.clone_from(&rows.weight);
        batch.severity.clone_from(&rows.severity);
        batch.time.clear();
        batch.time.extend(rows.time.iter().map(|time| UnixNanos(*time)));
        batch.tenant.clear();
        batch.tenant.extend(rows.tenant.iter().map(|tenant| numbers[*tenant as usize]));
        for part in frame.parts.iter().filter(|part| part.counts.iter().any(|count| count.outcome == Outcome::Created)) {
            let rows = part.rows.start as usize..part.rows.end as usize;
            batch.outcome[rows.clone()].fill(Outcome::Created);
            batch.dropped_by[rows].fill(BEFORE_STEPS); // no step has seen them
        }
        // Frames from before the step was there have no marks: they are as decided.
        let (number, tail) = tail_of(&rules).filter(|_| rows.requests.len() == n)?;
        let clock = if self.once.is_some() { Clock::Event } else { Clock::Arrival };
        tail.settle(number, batch, clock, &self.table, &rows.requests, |i| rows.row(i), &mut self.debts);
        Some(Arc::clone(&tail.name))
    }

    /// Appends a kept row; one that stands for more than before says so.
    fn push_row(&mut self, frame: &Frame, i: usize, tail: Option<&str>, out: &mut Rows) {
        let (rows, weight) = (&frame.rows, self.batch.weight[i]);
        let start = out.bytes.len();
        let mut spans = Vec::new();
        let heavier = tail.filter(|_| weight != rows.weight[i]);
        if heavier.is_some() || frame.routes != self.routes {
            spans.resize(self.rules.fields.len(), Span::default());
            let shape = self.scanner.scan(rows.row(i), &mut spans);
            let sampling = &self.rules.sampling;
            match (heavier, sampling.rate, sampling.sampler) {
                (Some(name), Some(rate), Some(sampler)) if shape.malformed.is_none() => {
                    stamp(rows.row(i), spans[rate], spans[sampler], weight, name, &mut out.bytes);
                    self.scanner.scan(&out.bytes[start..], &mut spans);
                }
                // Only the column tells it.
                _ => out.bytes.extend_from_slice(rows.row(i)),
            }
        } else {
            out.bytes.extend_from_slice(rows.row(i));
        }
        out.ends.push(out.bytes.len() as u32);
        out.tenant.push(rows.tenant[i]);
        out.time.push(rows.time[i]);
        out.severity.push(rows.severity[i]);
        out.weight.push(weight);
        out.position.push(rows.position[i]);
        out.origin_bytes.push(rows.origin_bytes[i]);
        out.notes.push(rows.notes[i]);
        out.sinks.extend(rows.sinks.get(i));
        for (number, column) in out.columns.iter_mut().enumerate() {
            column.push(if spans.is_empty() { rows.columns[number][i] } else { value_span(spans[self.columns[number]]) });
        }
    }

    /// The end of the run: what is owed is told, what is undecided waits for the next run.
    fn finish(mut self) -> anyhow::Result<()> {
        let now = self.once.unwrap_or_else(env::now);
        self.tell(now, true)?;
        self.beat(None);
        Ok(())
    }
}

/// About what a frame takes up on disk, whether it was read from there or not.
fn disk_bytes(frame: &Frame) -> u64 {
    let rows = &frame.rows;
    let facts: usize =
        frame.parts.iter().map(|part| 128 + part.counts.len() * 21 + part.facts.iter().map(|f| 48 + f.dims.len() * 4).sum::<usize>()).sum();
    let values: usize = frame.values.iter().map(|value| value.len() + 4).sum();
    let state: usize = frame.state.iter().map(|change| change.bytes.len()).sum();
    (rows.bytes.len() + rows.len() * (51 + 8 * rows.columns.len()) + facts + values + state + 1024) as u64
}

fn example(frame: &Frame, part: &Part, i: usize) -> Example {
    let rows = &frame.rows;
    let tenant = &frame.tenants[rows.tenant[i] as usize];
    Example::new(tenant, Reason::Sampled, part.stream, rows.position[i], UnixNanos(rows.time[i]), rows.row(i))
}

/// A row that not every sink would have taken is taken by none.
fn unselect(part: &mut Part, frame: &Frame, i: usize) {
    let Some(sinks) = frame.rows.sinks.get(i) else { return };
    if let Some(selected) = part.selected.iter_mut().find(|s| s.tenant == frame.rows.tenant[i] && s.sinks == *sinks) {
        selected.records -= 1;
        selected.bytes -= u64::from(frame.rows.origin_bytes[i]);
    }
}

/// Moves records and bytes, by tenant, from those that are kept to those that were sampled.
fn recount(part: &mut Part, dropped: &[(u64, u64)]) {
    for (tenant, (records, bytes)) in (0u32..).zip(dropped.iter().copied()).filter(|(_, dropped)| dropped.0 > 0) {
        if let Some(kept) = part.counts.iter_mut().find(|c| c.tenant == tenant && c.outcome == Outcome::Kept) {
            (kept.records, kept.bytes) = (kept.records.saturating_sub(records), kept.bytes.saturating_sub(bytes));
        }
        let outcome = Outcome::Dropped(Reason::Sampled);
        match part.counts.iter_mut().find(|c| c.tenant == tenant && c.outcome == outcome) {
            Some(count) => (count.records, count.bytes) = (count.records + records, count.bytes + bytes),
            None => part.counts.push(Count { tenant, outcome, records, bytes }),
        }
    }
    part.counts.retain(|count| count.records > 0 || count.bytes > 0);
    part.selected.retain(|selected| selected.records > 0);
}
