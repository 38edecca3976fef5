//! The hub: lanes put frames in, every sink takes them out at its own pace.
//!
//! In: frames that a lane has decided. Out: the same frames, numbered, to each sink in order. With a journal they are
//! durable before any sink sees them; the memory hub keeps them only until every sink has them.
//! Bound: `Limits`. When it is reached, `accept` waits: the lane stops reading its source, and sinks that gather are told
//! (`Next::Pressure`). With `drop_oldest` the rows of the oldest frames go first, never their headers; these have an eighth
//! of the limit for themselves, and beyond it lanes wait, too. A frame larger than the limit passes when nothing else is there.
//! Where lanes wait, the last part of the limit is for tenants that are not far above their share: `greedy` names the others.
//! What the disk refuses is tried again, with pauses, for as long as it takes; `trouble` says what and why.

use crate::cursor::Cursor;
use crate::disk::Disk;
use crate::express::STEP_BYTES_MAX;
use crate::frame::Frame;
use crate::journal::Journal;
use crate::ledger::{Ledger, RowCount, Tally};
use crate::memory::Memory;
use crate::queue::{Queue, Slot};
use crate::segment::{self, Place};
use crate::watch::Watch;
use flow::event::{Position, StreamId};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What happens when the hub is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Lanes wait, and with them the sources.
    #[default]
    Wait,
    /// The oldest rows are dropped, counted for each sink that did not have them.
    DropOldest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Journal: segments on disk. Memory hub: frames in memory.
    pub bytes_max: u64,
    /// Journal: frames held in memory for sinks; older ones are read from disk.
    pub window_bytes_max: u64,
    /// A segment of the journal ends here; at most a quarter of `bytes_max` is used.
    pub segment_bytes: u64,
    /// Frames are made durable after this time,
    pub sync_interval: Duration,
    /// or after so many bytes.
    pub sync_bytes: u64,
    /// Journal only: memory always waits.
    pub when_full: WhenFull,
}

/// Of `bytes_max`, what headers without rows may take up.
const HEADERS_SHARE: u64 = 8;
/// Of `bytes_max`, what only tenants that are not far above their share may use; in memory two full frames at least, but no more
/// than a quarter.
const RESERVED_SHARE: u64 = 8;
const RESERVED_FRAMES_BYTES: u64 = 2 << 20;
/// Pauses between attempts at what the disk refuses, twice as long each time; the first attempt is repeated at once.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often somebody who waits for room may do other things.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// Once the hub is closed, how often it is tried to make the last frames durable.
const LAST_ATTEMPTS: u32 = 4;
const WRITING: &str = "writing to the journal";
const SYNCING: &str = "making frames durable";
pub(crate) const REMEMBERING: &str = "keeping the state of steps";
const DELETING: &str = "deleting old segments";
const CHECKPOINTING: &str = "writing the memory hub's checkpoint";
pub(crate) const READING: &str = "reading an old frame";
pub(crate) const NOTING: &str = "noting what a sink lost";

/// What the last run left. Lanes start from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub positions: HashMap<StreamId, Position>,
    pub last_seq: u64,
    /// Torn bytes that were cut.
    pub truncated_bytes: u64,
    /// Some streams were read further than `positions` say: their accounts are damaged. The stores know how far they have
    /// them; tell the hub with [`Hub::restore_positions`].
    pub positions_lost: bool,
    /// What an operator should know about the recovery, one sentence each.
    pub notices: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the hub at {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl OpenError {
    pub(crate) fn io(path: &Path, source: io::Error) -> OpenError {
        OpenError::Io { path: path.to_owned(), source }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the hub is closed")]
    Closed,
    #[error("the frame contradicts itself: {0}")]
    Invalid(&'static str),
    #[error("cannot write to the journal: {0}")]
    Disk(#[from] io::Error),
}

pub struct Hub {
    limits: Limits,
    /// See [`Hub::frame_bytes`].
    frame_bytes: AtomicU64,
    pub(crate) store: Store,
    queue: Mutex<Queue>,
    /// Cursors wait here.
    pub(crate) news: Condvar,
    /// Lanes wait here.
    pub(crate) room: Condvar,
    /// The syncer waits here.
    work: Condvar,
}

pub(crate) enum Store {
    Journal(Journal),
    Memory(Memory),
}

impl Hub {
    pub fn open_journal(disk: Disk, dir: &Path, limits: Limits, tenants_max: usize) -> Result<(Hub, Recovered), OpenError> {
        // Four segments: while one is written, the others can be deleted one by one.
        let segment_bytes = limits.segment_bytes.min(limits.bytes_max / 4);
        let opened = Journal::open(disk, dir, segment_bytes, limits.window_bytes_max, tenants_max)?;
        let mut recovered = Recovered::of(&opened.queue, opened.notices);
        recovered.truncated_bytes = opened.truncated_bytes;
        recovered.positions_lost = opened.positions_lost;
        Ok((Hub::new(limits, Store::Journal(opened.journal), opened.queue), recovered))
    }

    pub fn open_memory(disk: Disk, dir: &Path, limits: Limits, tenants_max: usize) -> Result<(Hub, Recovered), OpenError> {
        let opened = Memory::open(disk, dir, tenants_max)?;
        let mut recovered = Recovered::of(&opened.queue, opened.notices);
        recovered.positions_lost = opened.positions_lost;
        Ok((Hub::new(limits, Store::Memory(opened.memory), opened.queue), recovered))
    }

    fn new(limits: Limits, store: Store, queue: Queue) -> Hub {
        let frame_bytes = AtomicU64::new(STEP_BYTES_MAX);
        Hub { limits, frame_bytes, store, queue: Mutex::new(queue), news: Condvar::new(), room: Condvar::new(), work: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }

    /// Registers a sink; all of them before the first frame. `has`: how far the sink's own store is in each stream
    /// (may be empty); it decides where delivery starts. An error in reading old frames is told by the first `next`.
    pub fn cursor(self: &Arc<Self>, sink: &str, has: HashMap<StreamId, u64>) -> Cursor {
        Cursor::new(self, sink, has, &BTreeMap::new())
    }

    /// The same for a sink that knows of single rows that were refused for good: `refused`, by tenant, up to where it is.
    pub fn cursor_of(self: &Arc<Self>, sink: &str, has: HashMap<StreamId, u64>, refused: &BTreeMap<Vec<u8>, Tally>) -> Cursor {
        Cursor::new(self, sink, has, refused)
    }

    /// A reader that has nothing: it begins with the oldest frame that is still there. Registered before the first frame.
    pub fn reader(self: &Arc<Self>, name: &str) -> Cursor {
        Cursor::oldest(self, name)
    }

    /// Shows what retained frames behind `seq` say of the state of steps, as [`Hub::each_state`] does; without entries: the step
    /// is forgotten. Journal only; before the first frame of this run.
    pub fn each_state_behind(&self, seq: u64, show: &mut dyn FnMut(u32, &[u8])) -> io::Result<()> {
        match &self.store {
            Store::Journal(journal) => journal.each_late(self, seq, show),
            Store::Memory(_) => Ok(()),
        }
    }

    /// What it takes up on disk; the memory hub takes nothing.
    pub fn disk_bytes(&self) -> u64 {
        self.lock().disk_bytes()
    }

    /// Gives the frame a number and appends it; waits while the hub is full. With a journal it is durable, and seen by
    /// sinks, after the next `commit`.
    pub fn accept(&self, frame: Frame) -> Result<u64, AcceptError> {
        self.accept_while(frame, &mut || {})
    }

    /// The same; `waiting` is called now and then while there is no room.
    pub fn accept_while(&self, frame: Frame, waiting: &mut dyn FnMut()) -> Result<u64, AcceptError> {
        match &self.store {
            Store::Journal(journal) => self.accept_on_disk(journal, frame, waiting),
            Store::Memory(_) => self.accept_in_memory(frame, waiting),
        }
    }

    fn accept_on_disk(&self, journal: &Journal, frame: Frame, waiting: &mut dyn FnMut()) -> Result<u64, AcceptError> {
        let pending = journal.encode(frame).map_err(AcceptError::Invalid)?;
        let len = pending.len();
        let mut pending = Some(pending);
        let mut pause = Pause::default();
        let (appended, new_segment) = loop {
            let attempt = self
                .wait_on_disk(journal, len, waiting)
                .and_then(|new_segment| journal.append(self, &mut pending, new_segment).map(|appended| (appended, new_segment)));
            match attempt {
                Err(AcceptError::Disk(error)) => {
                    self.wait_out(journal, error, &mut pause)?;
                    waiting();
                }
                // Closed while it waited: why it waited says more.
                Err(AcceptError::Closed) if pause.attempts > 0 => {
                    let why = self.lock().trouble.get(WRITING).cloned().unwrap_or_default();
                    return Err(AcceptError::Disk(io::Error::other(why)));
                }
                other => break other?,
            }
        };
        self.settle(WRITING, pause.attempts > 0);
        if appended.unsynced_before == 0 || appended.unsynced_bytes >= self.limits.sync_bytes {
            self.work.notify_one();
        }
        // The syncer is behind: what is not published cannot leave memory, so this lane does its work.
        if appended.unsynced_bytes > self.limits.window_bytes_max.max(self.limits.sync_bytes) {
            self.attempt(SYNCING, journal.commit(self)); // the frame is in: the syncer tries again
        }
        if new_segment {
            self.attempt(DELETING, journal.retain(self)); // tried again by the next commit of a sink
        }
        Ok(appended.seq)
    }

    /// A lane that cannot write waits: for room where the disk is full, for a better day else.
    fn wait_out(&self, journal: &Journal, error: io::Error, pause: &mut Pause) -> Result<(), AcceptError> {
        if journal.disk.is_gone(&error) {
            return Err(error.into());
        }
        let full = error.kind() == io::ErrorKind::StorageFull;
        if full && self.limits.when_full == WhenFull::DropOldest && matches!(journal.strip(self, self.headers_max()), Ok(true)) {
            return Ok(());
        }
        let mut queue = self.lock();
        if queue.closed {
            return Err(error.into());
        }
        queue.trouble.insert(WRITING, error.to_string());
        let pause = pause.next();
        if !pause.is_zero() {
            // Sinks that gather may make room by committing.
            queue.waiting += 1;
            self.news.notify_all();
            queue = self.room.wait_timeout(queue, pause).expect("no holder of this lock panics").0;
            queue.waiting -= 1;
        }
        Ok(())
    }

    fn headers_max(&self) -> u64 {
        self.limits.bytes_max / HEADERS_SHARE
    }

    /// Waits until `len` bytes more may be on disk. True where nothing is owed to any sink, but the segment being
    /// written has to end before its bytes can be deleted.
    fn wait_on_disk(&self, journal: &Journal, len: u64, waiting: &mut dyn FnMut()) -> Result<bool, AcceptError> {
        let mut retained = false;
        loop {
            let queue = self.lock();
            if queue.closed {
                return Err(AcceptError::Closed);
            }
            queue.check()?;
            if queue.disk_bytes() + len <= self.limits.bytes_max {
                return Ok(false);
            }
            if queue.published < queue.accepted {
                drop(queue);
                journal.commit(self)?; // sinks cannot make room by what they have not seen
                continue;
            }
            if !retained {
                drop(queue);
                journal.retain(self)?;
                retained = true;
                continue;
            }
            if queue.committed_by_all() >= queue.accepted {
                return Ok(true);
            }
            if self.limits.when_full == WhenFull::DropOldest && queue.strippable(self.headers_max()).is_some() {
                drop(queue);
                journal.strip(self, self.headers_max())?;
                continue;
            }
            self.wait_for_room(queue, waiting);
            retained = false;
        }
    }

    /// Returns when a sink has made room, or after a while.
    fn wait_for_room(&self, mut queue: MutexGuard<Queue>, waiting: &mut dyn FnMut()) {
        queue.waiting += 1;
        self.news.notify_all();
        let (mut queue, timeout) = self.room.wait_timeout(queue, WAIT_STEP).expect("no holder of this lock panics");
        queue.waiting -= 1;
        drop(queue);
        if timeout.timed_out() {
            waiting();
        }
    }

    fn accept_in_memory(&self, mut frame: Frame, waiting: &mut dyn FnMut()) -> Result<u64, AcceptError> {
        frame.validate().map_err(AcceptError::Invalid)?;
        let rows = RowCount::of(&frame);
        let bytes = frame.bytes() as u64;
        let mut queue = loop {
            let queue = self.lock();
            if queue.closed {
                return Err(AcceptError::Closed);
            }
            if queue.window_bytes() == 0 || queue.window_bytes() + bytes <= self.limits.bytes_max {
                break queue;
            }
            self.wait_for_room(queue, waiting);
        };
        let seq = queue.accepted + 1;
        frame.seq = seq;
        queue.push(Slot {
            rows,
            bytes,
            record_bytes: 0,
            droppable_bytes: 0,
            end: Place::default(),
            delta: Box::default(),
            frame: Arc::new(frame),
        });
        queue.publish(seq);
        drop(queue);
        self.news.notify_all();
        Ok(seq)
    }

    /// Makes durable what was appended and shows it to the sinks. Memory hub: nothing to do.
    pub fn commit(&self) -> io::Result<()> {
        match &self.store {
            Store::Journal(journal) => journal.commit(self),
            Store::Memory(_) => Ok(()),
        }
    }

    /// For a thread of its own: commits every `sync_interval` or `sync_bytes`, sleeps while there is nothing to do, and
    /// returns after `close`. What fails is tried again; once the hub is closed, a few times only, and then lanes and sinks
    /// get the error.
    pub fn run_syncer(&self) {
        let Store::Journal(journal) = &self.store else { return };
        let mut pause = Pause::default();
        loop {
            let mut queue = self.lock();
            while queue.unsynced_bytes == 0 && !queue.closed && queue.failed.is_none() {
                queue = self.work.wait(queue).expect("no holder of this lock panics");
            }
            let more = |q: &mut Queue| q.unsynced_bytes < self.limits.sync_bytes && !q.closed && q.failed.is_none();
            queue = self.work.wait_timeout_while(queue, self.limits.sync_interval, more).expect("no holder of this lock panics").0;
            let (closed, failed) = (queue.closed, queue.failed.is_some());
            drop(queue);
            if failed {
                return;
            }
            match journal.commit(self) {
                Ok(()) => {
                    self.settle(SYNCING, pause.attempts > 0);
                    pause = Pause::default();
                    if closed && self.lock().unsynced_bytes == 0 {
                        return;
                    }
                }
                Err(error) => {
                    let wait = pause.next();
                    if journal.disk.is_gone(&error) || (closed && pause.attempts >= LAST_ATTEMPTS) {
                        self.fail(error);
                        return;
                    }
                    let mut queue = self.lock();
                    queue.trouble.insert(SYNCING, error.to_string());
                    // Only close ends this wait early: frames that come do not make the disk better.
                    let was_closed = queue.closed;
                    drop(self.work.wait_timeout_while(queue, wait, |q| q.closed == was_closed).expect("no holder of this lock panics"));
                }
            }
        }
    }

    /// What does not work at the moment and is tried again, if anything: sinks or lanes wait for it.
    pub fn trouble(&self) -> Option<String> {
        let queue = self.lock();
        let texts: Vec<String> = queue.trouble.iter().map(|(what, why)| format!("{what}: {why}")).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Notes how an attempt went.
    pub(crate) fn attempt(&self, what: &'static str, result: io::Result<()>) {
        match result {
            Ok(()) => self.settle(what, true),
            Err(error) => {
                self.lock().trouble.insert(what, error.to_string());
            }
        }
    }

    /// Notes that something works again.
    pub(crate) fn settle(&self, what: &'static str, was_troubled: bool) {
        if was_troubled {
            self.lock().trouble.remove(what);
        }
    }

    /// Deletes what every sink has; what cannot be deleted now is tried again by the next commit of a sink.
    pub(crate) fn retain(&self) {
        if let Store::Journal(journal) = &self.store {
            self.attempt(DELETING, journal.retain(self));
        }
    }

    /// Replaces the positions that recovery could not give (`Recovered::positions_lost`), and makes that durable. Before
    /// the first frame.
    pub fn restore_positions(&self, positions: HashMap<StreamId, Position>) -> io::Result<()> {
        {
            let mut queue = self.lock();
            if let Some(settled) = &mut queue.settled {
                settled.positions.clone_from(&positions);
            }
            queue.account.positions = positions;
        }
        match &self.store {
            Store::Journal(journal) => journal.restart(self),
            Store::Memory(memory) => memory.checkpoint(self),
        }
    }

    /// Shows what frames say of the state of steps, to be applied to empty steps in this order: a step, and entries of 32 bytes,
    /// 8 of key and 24 of value. Of two entries of a key the later one counts; one of zeros takes the key out. Before the
    /// first frame. The memory hub knows nothing.
    pub fn each_state(&self, show: &mut dyn FnMut(u32, &[u8])) -> io::Result<()> {
        match &self.store {
            Store::Journal(journal) => journal.each_state(self, show),
            Store::Memory(_) => Ok(()),
        }
    }

    /// Says which entries, by step and key, are still of use. The others are forgotten when the log of the state is compacted.
    pub fn keep_state(&self, in_use: impl Fn(u32, &[u8]) -> bool + Send + Sync + 'static) {
        if let Store::Journal(journal) = &self.store {
            journal.keep_state(Arc::new(in_use));
        }
    }

    /// No more frames; cursors end after the last one.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        self.news.notify_all();
        self.room.notify_all();
    }

    /// Kept bytes at which a frame should close: what the slowest sink that lags takes in a short while, so that what is new need
    /// not wait long behind what is being written.
    pub fn frame_bytes(&self) -> u64 {
        self.frame_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn pace(&self, queue: &Queue) {
        let steps = queue.readers.iter().filter(|r| r.express.is_behind()).map(|r| r.express.step_bytes);
        self.frame_bytes.store(steps.fold(STEP_BYTES_MAX, u64::min), Ordering::Relaxed);
    }

    /// Tenants of which lanes should take nothing more for now: there is little room, and the sink that is furthest behind owes
    /// them more than their share. Where the oldest rows are dropped instead, nobody.
    pub fn greedy(&self) -> Vec<Vec<u8>> {
        let queue = self.lock();
        let (used, reserved) = match &self.store {
            Store::Journal(_) => (queue.disk_bytes(), 0),
            Store::Memory(_) => (queue.window_bytes(), RESERVED_FRAMES_BYTES.min(self.limits.bytes_max / 4)),
        };
        let open = self.limits.bytes_max - reserved.max(self.limits.bytes_max / RESERVED_SHARE);
        if self.limits.when_full == WhenFull::DropOldest || used <= open {
            return Vec::new();
        }
        // What a sink has and gathers before it commits is nobody's backlog. What it will not take fills the hub, too.
        let behind = queue
            .readers
            .iter()
            .map(|reader| (queue.backlog_bytes(reader), reader))
            .max_by_key(|(bytes, reader)| (*bytes, reader.express.owed_bytes()));
        let Some((_, reader)) = behind.filter(|(bytes, _)| *bytes > open / 2) else { return Vec::new() };
        // Whoever is served at once is owed nothing, and a tenant all the same.
        let books = &queue.account.books;
        let tenants = books.kept_totals().filter(|(_, kept)| kept.records > 0).count().min(2) as u64;
        reader.express.greedy(tenants).map(|number| books.name(number).to_vec()).collect()
    }

    /// A lane holds logs of those back, or no longer: sinks that gather should commit early.
    pub fn hold(&self, holds: bool) {
        let mut queue = self.lock();
        queue.holding = if holds { queue.holding + 1 } else { queue.holding - 1 };
        drop(queue);
        self.news.notify_all();
    }

    /// Waits until a frame behind `seen` is published, the hub is closed, or time is up. Returns the newest published one.
    pub fn wait_published(&self, seen: u64, timeout: Duration) -> u64 {
        let old = |queue: &mut Queue| queue.published <= seen && !queue.closed && queue.failed.is_none();
        self.news.wait_timeout_while(self.lock(), timeout, old).expect("no holder of this lock panics").0.published
    }

    /// Frames that are published from now on, for somebody who looks on and may miss some: at most `bytes_max` of them wait.
    pub fn watch(self: &Arc<Self>, bytes_max: usize) -> Watch {
        Watch::new(self, bytes_max)
    }

    /// How far a stream is decided in what is published: with a journal, for good.
    pub fn done(&self, stream: StreamId) -> Option<u64> {
        self.lock().account.positions.get(&stream).map(|position| position.done)
    }

    /// A lane is waiting: sinks that gather should commit early.
    pub fn is_full(&self) -> bool {
        self.lock().waiting > 0
    }

    /// Published frames that the sink has not committed, oldest first. They are in memory all at once: use
    /// [`Hub::tail_each`] where a sink may lag far behind.
    pub fn tail(&self, sink: &str) -> io::Result<Vec<Arc<Frame>>> {
        let mut frames = Vec::new();
        self.tail_each(sink, |frame| {
            frames.push(Arc::clone(frame));
            true
        })?;
        Ok(frames)
    }

    /// Shows each published frame that the sink has not committed, oldest first, until `show` returns false. Frames that
    /// the sink commits meanwhile may be left out from then on.
    pub fn tail_each(&self, sink: &str, mut show: impl FnMut(&Arc<Frame>) -> bool) -> io::Result<()> {
        let (mut seq, mut place, last) = {
            let queue = self.lock();
            let reader = queue.readers.iter().find(|r| r.name == sink);
            let reader = reader.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no sink is called {sink}")))?;
            (reader.rest.0, reader.rest.1, queue.published)
        };
        while seq <= last {
            let (in_memory, committed, at) = {
                let queue = self.lock();
                let reader = queue.readers.iter().find(|r| r.name == sink).expect("sinks are never removed");
                if seq < reader.rest.0 {
                    (seq, place) = reader.rest; // committed meanwhile; its segment may be gone
                    continue;
                }
                (queue.slot(seq).map(|slot| (Arc::clone(&slot.frame), slot.end)), reader.committed, queue.place_of(seq, place))
            };
            let (frame, end) = match (in_memory, &self.store) {
                (Some(found), _) => found,
                (None, Store::Memory(_)) => {
                    seq += 1; // every sink has it by now
                    continue;
                }
                (None, Store::Journal(journal)) => {
                    let _not_rewritten = journal.files.read().expect("no holder of this lock panics");
                    let at = self.lock().place_of(seq, at);
                    match segment::read_frame(&journal.disk, &journal.dir, at, seq) {
                        Ok((frame, offset)) => (Arc::new(frame), Place { offset, ..at }),
                        Err(e) if e.kind() == io::ErrorKind::NotFound && self.moved_past(sink, seq) => continue,
                        Err(e) => return Err(e),
                    }
                }
            };
            (seq, place) = (frame.seq + 1, end);
            if frame.seq > committed && !show(&frame) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn moved_past(&self, sink: &str, seq: u64) -> bool {
        self.lock().readers.iter().any(|r| r.name == sink && r.rest.0 > seq)
    }

    /// Totals at the newest published frame, and per sink at its committed frame.
    pub fn ledger(&self) -> Ledger {
        self.lock().ledger()
    }

    /// Memory hub: writes what every sink has to disk, atomically. Journal: nothing, the frames are there. While the hub is
    /// open, a failure is no error but trouble.
    pub fn checkpoint(&self) -> io::Result<()> {
        match &self.store {
            Store::Journal(_) => Ok(()),
            Store::Memory(memory) => {
                let result = memory.checkpoint(self);
                match &result {
                    // Tried again in a moment; the end of the run is the last time.
                    Err(error) if !self.lock().closed && !memory.disk.is_gone(error) => {
                        self.attempt(CHECKPOINTING, result);
                        Ok(())
                    }
                    _ => {
                        self.settle(CHECKPOINTING, result.is_ok());
                        result
                    }
                }
            }
        }
    }

    pub(crate) fn publish(&self, seq: u64) {
        self.lock().publish(seq);
        self.news.notify_all();
    }

    /// Notes that nothing can be made durable any more, and wakes everybody to hear it.
    pub(crate) fn fail(&self, error: io::Error) -> io::Error {
        let mut queue = self.lock();
        queue.failed.get_or_insert_with(|| error.to_string());
        drop(queue);
        self.work.notify_all();
        self.news.notify_all();
        self.room.notify_all();
        error
    }

    pub(crate) fn forget_oldest_segment(&self) {
        self.lock().segments.pop_front();
        self.room.notify_all();
    }
}

/// Pauses between attempts.
#[derive(Default)]
struct Pause {
    attempts: u32,
}

impl Pause {
    fn next(&mut self) -> Duration {
        self.attempts += 1;
        match self.attempts {
            1 => Duration::ZERO,
            n => PAUSE_MIN.saturating_mul(1 << (n - 2).min(16)).min(PAUSE_MAX),
        }
    }
}

impl Recovered {
    fn of(queue: &Queue, notices: Vec<String>) -> Recovered {
        let account = &queue.account;
        Recovered { positions: account.positions.clone(), last_seq: account.seq, notices, ..Recovered::default() }
    }
}
