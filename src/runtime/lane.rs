//! A lane: one thread that takes records from read to hub, with no hand-over in between.
//!
//! In: logs, each a path's rotation chain with its partial state; a log stays with its lane. Out: frames,
//! accepted by the hub. A turn reads one chunk of one log, so that files share the lane by bytes. Memory: one
//! chunk ([`CHUNK_BYTES`], for a moment as long as the longest line) and one frame per pipeline.

use super::build::{Builder, Stretch};
use crate::env;
use crate::sources::file::{FileId, Found, Known, read_full};
use anyhow::Context;
use flow::batch::Batch;
use flow::decode::{Decoder, End, Format, Limits};
use flow::event::{Position, StreamId};
use flow::pipeline::{Reading, Rules, Worker};
use flow::units::UnixNanos;
use hub::Hub;
use hub::frame::Resumed;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::warn;

/// What one read asks for: fits the second-level cache together with what is known about its records.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Age at which a frame closes, however small it is.
const FRAME_AGE: Duration = Duration::from_millis(200);
/// How long a file that was renamed away must have been silent before the next one of its log is read.
const ROTATED_GRACE: Duration = Duration::from_secs(2);
/// An idle file is looked at after this time, then twice that, and so on.
const IDLE_MIN: Duration = Duration::from_millis(10);
const IDLE_MAX: Duration = Duration::from_millis(500);

/// One source of one pipeline, as its lanes see it.
pub struct Intake {
    pub format: Format,
    pub limits: Limits,
    pub reading: Reading,
    pub known: Arc<Mutex<Known>>,
}

/// One pipeline, as its lanes see it.
pub struct Pipeline {
    pub name: String,
    pub rules: Arc<Rules>,
    pub hub: Arc<Hub>,
    /// Fields that sinks route by.
    pub columns: Vec<usize>,
    pub intakes: Vec<Intake>,
    /// Where the stores stand: no part may reach over one of these.
    pub cuts: HashMap<StreamId, Vec<u64>>,
}

/// What lanes and the rest of the process tell each other.
#[derive(Default)]
pub struct Signals {
    pub stop: AtomicBool,
    pub read_bytes: AtomicU64,
    /// Set when standard input, or every file of `--once`, was read to its end.
    pub ended: AtomicBool,
}

/// New work for a lane, handed over by whoever finds files.
#[derive(Default)]
pub struct Inbox {
    pub found: Mutex<Vec<(usize, usize, Input)>>,
}

/// One file or standard input, not read by anyone yet.
pub enum Input {
    File(Found),
    Stdin(StreamId),
}

pub struct Lane {
    pipelines: Arc<Vec<Pipeline>>,
    workers: Vec<Worker>,
    builders: Vec<Builder>,
    opened: Vec<Option<Instant>>,
    logs: Vec<Log>,
    inbox: Arc<Inbox>,
    signals: Arc<Signals>,
    /// When this lane last went round, in ms since the epoch: progress is health.
    pub heartbeat: Arc<AtomicU64>,
    batch: Batch,
    once: bool,
}

struct Log {
    pipeline: usize,
    intake: usize,
    path: PathBuf,
    decoder: Decoder,
    files: VecDeque<Tail>,
    /// Files read to their end in which part of a record began: newest first.
    older: Vec<Resumed>,
    /// Newest event time so far; stands in where a record has none and the clock must not be asked.
    newest: UnixNanos,
    idle: Duration,
    look_at: Instant,
}

struct Tail {
    reader: Reader,
    stream: StreamId,
    done: u64,
    /// Parts of a record lie between here and `done`: read again, decided already.
    catch_up: Option<u64>,
    chunk_bytes: usize,
    silent_since: Instant,
}

enum Reader {
    File {
        file: File,
        id: FileId,
    },
    /// Cannot be read again: what no line used yet is carried.
    Stdin {
        carry: Vec<u8>,
        ended: bool,
    },
}

/// What a turn did.
#[derive(PartialEq, Eq)]
enum Turn {
    Worked,
    Idle,
    /// The log's last file was read to its end and nothing more will come.
    Ended,
}

impl Lane {
    pub fn new(pipelines: Arc<Vec<Pipeline>>, inbox: Arc<Inbox>, signals: Arc<Signals>, once: bool) -> Lane {
        let workers = pipelines.iter().map(|p| Worker::new(Arc::clone(&p.rules))).collect();
        let builders = pipelines.iter().map(|p| Builder::new(Arc::clone(&p.rules), p.columns.clone())).collect();
        let opened = pipelines.iter().map(|_| None).collect();
        Lane {
            pipelines,
            workers,
            builders,
            opened,
            logs: Vec::new(),
            inbox,
            signals,
            heartbeat: Arc::default(),
            batch: Batch::default(),
            once,
        }
    }

    /// Works until told to stop, or with `--once` until everything is read; then hands over what it holds.
    pub fn run(mut self) -> anyhow::Result<()> {
        while !self.signals.stop.load(Ordering::Relaxed) {
            self.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
            self.take_inbox();
            let worked = self.round()?;
            self.close_frames(|builder, age| builder.is_full() || age >= FRAME_AGE)?;
            if self.once && self.logs.is_empty() {
                break;
            }
            if !worked {
                std::thread::sleep(IDLE_MIN);
            }
        }
        self.close_frames(|_, _| true)
    }

    fn take_inbox(&mut self) {
        let found = std::mem::take(&mut *self.inbox.found.lock().expect("the inbox is never left half changed"));
        for (pipeline, intake, input) in found {
            self.add(pipeline, intake, input);
        }
    }

    /// Adds a file to its log; a log that is new is created.
    fn add(&mut self, pipeline: usize, intake: usize, input: Input) {
        let (path, modified, tail) = match input {
            Input::File(found) => (found.log.clone(), found.modified, Tail::file(found)),
            Input::Stdin(stream) => (PathBuf::from("stdin"), env::now(), Tail::stdin(stream)),
        };
        let same = |log: &&mut Log| log.pipeline == pipeline && log.intake == intake && log.path == path;
        match self.logs.iter_mut().find(same) {
            Some(log) => {
                log.files.push_back(tail);
                log.look_at = Instant::now();
            }
            None => {
                let settings = &self.pipelines[pipeline].intakes[intake];
                self.logs.push(Log {
                    pipeline,
                    intake,
                    path,
                    decoder: Decoder::new(settings.format, settings.limits),
                    files: VecDeque::from([tail]),
                    older: Vec::new(),
                    newest: modified,
                    idle: IDLE_MIN,
                    look_at: Instant::now(),
                });
            }
        }
    }

    /// One turn for each log that may have something; with `--once` the first log is read to its end first,
    /// so that records come in the same order on every machine. Was anything read?
    fn round(&mut self) -> anyhow::Result<bool> {
        let mut worked = false;
        let mut n = 0;
        while n < self.logs.len() {
            if self.logs[n].look_at > Instant::now() {
                n += 1;
                continue;
            }
            let turn = self.turn(n)?;
            let log = &mut self.logs[n];
            match turn {
                Turn::Worked => {
                    worked = true;
                    log.idle = IDLE_MIN;
                    if self.once {
                        break;
                    }
                }
                Turn::Idle => {
                    log.look_at = Instant::now() + log.idle;
                    log.idle = (log.idle * 2).min(IDLE_MAX);
                }
                Turn::Ended => {
                    self.logs.remove(n);
                    continue;
                }
            }
            n += 1;
        }
        Ok(worked)
    }

    /// Reads one chunk of one log and decides about its records.
    fn turn(&mut self, n: usize) -> anyhow::Result<Turn> {
        let log = &mut self.logs[n];
        let pipeline = &self.pipelines[log.pipeline];
        let intake = &pipeline.intakes[log.intake];
        let batch = &mut self.batch;
        let more_files = log.files.len() > 1;
        let Some(tail) = log.files.front_mut() else { return Ok(Turn::Ended) };
        if let Some(from) = tail.catch_up.take() {
            tail.catch_up(batch, &mut log.decoder, from).with_context(|| format!("cannot read {}", log.path.display()))?;
        }
        let cut = pipeline.cuts.get(&tail.stream).and_then(|cuts| cuts.iter().copied().find(|cut| *cut > tail.done));
        let ahead = match tail.read(batch, cut) {
            Ok(ahead) => ahead,
            Err(error) => {
                warn!(path = %log.path.display(), %error, "cannot read; trying again");
                return Ok(Turn::Idle);
            }
        };
        if ahead == Ahead::Truncated {
            warn!(path = %log.path.display(), position = tail.done, "file was truncated: what stood behind the position is lost, and it is read from its start");
        }
        let silent = tail.silent_since.elapsed() >= ROTATED_GRACE;
        let end = match ahead {
            Ahead::More => End::Open,
            Ahead::Truncated => End::File,
            Ahead::Nothing | Ahead::Gone if more_files && (self.once || silent) => End::File,
            Ahead::Nothing | Ahead::Gone if self.once => End::Log,
            // A part of a record without an end is a record only together with bytes that were not decided yet.
            Ahead::Gone if silent => {
                if batch.arena.is_empty() {
                    End::File
                } else {
                    End::Log
                }
            }
            Ahead::Nothing | Ahead::Gone => End::Open,
            Ahead::Ended => End::Log,
        };
        let now = if self.once { log.newest } else { env::now() };
        batch.arrival = now;
        let from = tail.done;
        let read = batch.arena.len();
        let used = log.decoder.decode(batch, from, end);
        tail.carry(batch, used, read);
        tail.done += used as u64;
        if used == 0 && read == tail.chunk_bytes {
            // A line longer than the chunk: read more at once, until the decoder takes it as too long.
            tail.chunk_bytes = (tail.chunk_bytes * 2).min(intake.limits.line_bytes_max + CHUNK_BYTES);
        }
        let (stream, done) = (tail.stream, tail.done);
        if used > 0 || !batch.is_empty() {
            tail.silent_since = Instant::now();
            // After the end of a file the decoder already counts that file as one ago.
            let files_ago = u32::from(end == End::File);
            let to = Position { resume: log.decoder.oldest_held(files_ago).unwrap_or(done), done };
            let also = log.settle_older(files_ago);
            let builder = &mut self.builders[log.pipeline];
            builder.enter(stream, from);
            self.workers[log.pipeline].process(batch, intake.reading, now, &mut builder.sums);
            log.newest = batch.time.iter().copied().max().map_or(log.newest, |time| time.max(log.newest));
            builder.add(batch, Stretch { stream, from, to, also });
            if cut == Some(done) {
                builder.finish_part();
            }
            self.opened[log.pipeline].get_or_insert_with(Instant::now);
            self.signals.read_bytes.fetch_add(used as u64, Ordering::Relaxed);
        }
        if end != End::Open {
            self.finish_file(n, end);
            return Ok(if self.logs[n].files.is_empty() { Turn::Ended } else { Turn::Worked });
        }
        if self.builders[self.logs[n].pipeline].is_full() {
            self.close_frames(|builder, _| builder.is_full())?;
        }
        Ok(if used > 0 { Turn::Worked } else { Turn::Idle })
    }

    /// The log's first file was read to its end: forget it, remember where records that go on began.
    fn finish_file(&mut self, n: usize, end: End) {
        let log = &mut self.logs[n];
        let tail = log.files.pop_front().expect("a file was read just before");
        let files_ago = u32::from(end == End::File);
        let resume = log.decoder.oldest_held(files_ago).unwrap_or(tail.done);
        if let Reader::File { id, .. } = &tail.reader {
            // It may grow again, or come back under another name: then reading goes on from here.
            let mut known = self.pipelines[log.pipeline].intakes[log.intake].known.lock().expect("never left half changed");
            known.positions.insert(tail.stream, Position { resume, done: tail.done });
            known.open.remove(id);
        } else {
            self.signals.ended.store(true, Ordering::Relaxed);
        }
        if end == End::File {
            log.older.insert(0, Resumed { stream: tail.stream, resume, done: tail.done });
            if log.files.is_empty() && resume < tail.done {
                warn!(path = %log.path.display(), "the log is gone with part of a record that has no end: the part is not delivered");
            }
        }
        self.builders[log.pipeline].finish_part();
    }

    /// Closes the frames for which `due` holds and hands them to their hubs.
    fn close_frames(&mut self, due: impl Fn(&Builder, Duration) -> bool) -> anyhow::Result<()> {
        for (n, builder) in self.builders.iter_mut().enumerate() {
            // With --once only sizes close a frame: the clock must not show in the stores.
            let age = self.opened[n].filter(|_| !self.once).map_or(Duration::ZERO, |at| at.elapsed());
            if builder.is_empty() || !due(builder, age) {
                continue;
            }
            let received = (!self.once).then(env::now);
            let frame = builder.close(received);
            self.opened[n] = None;
            self.pipelines[n].hub.accept(frame).with_context(|| format!("pipeline {}: the hub takes no more", self.pipelines[n].name))?;
        }
        Ok(())
    }
}

impl Log {
    /// Older files whose parts have found their ends since: their new positions.
    fn settle_older(&mut self, shift: u32) -> Vec<Resumed> {
        let mut settled = Vec::new();
        for (n, older) in self.older.iter_mut().enumerate() {
            let resume = self.decoder.oldest_held(n as u32 + 1 + shift).unwrap_or(older.done);
            if resume != older.resume {
                older.resume = resume;
                settled.push(*older);
            }
        }
        while self.older.last().is_some_and(|older| older.resume == older.done) {
            self.older.pop();
        }
        settled
    }
}

/// What lies behind the bytes that a read returned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ahead {
    More,
    /// The file's end, for now.
    Nothing,
    /// The file's end, and no name leads to it any more.
    Gone,
    /// The file is shorter than what was read of it.
    Truncated,
    /// Standard input was closed.
    Ended,
}

impl Tail {
    fn file(found: Found) -> Tail {
        let Position { resume, done } = found.position;
        let catch_up = (resume < done).then_some(resume);
        let reader = Reader::File { file: found.file, id: found.id };
        Tail { reader, stream: found.stream, done, catch_up, chunk_bytes: CHUNK_BYTES, silent_since: Instant::now() }
    }

    fn stdin(stream: StreamId) -> Tail {
        let reader = Reader::Stdin { carry: Vec::new(), ended: false };
        Tail { reader, stream, done: 0, catch_up: None, chunk_bytes: CHUNK_BYTES, silent_since: Instant::now() }
    }

    /// Fills the batch's arena with the bytes from `done` on, at most up to `cut`.
    fn read(&mut self, batch: &mut Batch, cut: Option<u64>) -> std::io::Result<Ahead> {
        let room = cut.map_or(self.chunk_bytes, |cut| self.chunk_bytes.min(usize::try_from(cut - self.done).unwrap_or(usize::MAX)));
        match &mut self.reader {
            Reader::File { file, .. } => {
                batch.arena.resize(room, 0);
                let len = read_full(file, &mut batch.arena, self.done)?;
                batch.arena.truncate(len);
                if len == room {
                    // Full: most likely there is more; whether this was the end matters only at the end.
                    let size = file.metadata()?.len();
                    return Ok(if self.done + len as u64 >= size { Ahead::Nothing } else { Ahead::More });
                }
                let meta = file.metadata()?;
                Ok(match meta.len() {
                    size if size < self.done => Ahead::Truncated,
                    size if size > self.done + len as u64 => Ahead::More,
                    _ if std::os::unix::fs::MetadataExt::nlink(&meta) == 0 => Ahead::Gone,
                    _ => Ahead::Nothing,
                })
            }
            Reader::Stdin { carry, ended } => {
                let had = carry.len();
                batch.arena.clear();
                batch.arena.append(carry);
                if !*ended && had < room {
                    batch.arena.resize(room, 0);
                    let len = read_stdin(&mut batch.arena[had..])?;
                    batch.arena.truncate(had + len.unwrap_or(0));
                    *ended = len == Some(0);
                }
                Ok(if *ended { Ahead::Ended } else { Ahead::More })
            }
        }
    }

    /// Keeps what no line used, where it cannot be read again.
    fn carry(&mut self, batch: &Batch, used: usize, read: usize) {
        if let Reader::Stdin { carry, .. } = &mut self.reader {
            carry.extend_from_slice(&batch.arena[used..read]);
        }
    }

    /// Reads the held parts of unfinished records again; every record in there was decided before.
    fn catch_up(&mut self, batch: &mut Batch, decoder: &mut Decoder, from: u64) -> std::io::Result<()> {
        let Reader::File { file, .. } = &self.reader else { return Ok(()) };
        let mut at = from;
        let mut chunk = CHUNK_BYTES;
        while at < self.done {
            let room = chunk.min((self.done - at) as usize);
            batch.arena.resize(room, 0);
            let len = read_full(file, &mut batch.arena, at)?;
            batch.arena.truncate(len);
            let used = decoder.decode(batch, at, End::Open);
            at += used as u64;
            match used {
                0 if len < chunk => break,
                0 => chunk *= 2,
                _ => {}
            }
        }
        batch.clear_records();
        Ok(())
    }
}

/// Reads what standard input has within a moment: `None` if there is nothing yet, 0 at its end.
fn read_stdin(buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = std::io::stdin();
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let ready = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&moment))?;
    if ready == 0 {
        return Ok(None);
    }
    stdin.lock().read(buffer).map(Some)
}
