//! What others send: a pipe for each log, from the network to a lane.
//!
//! In: chunks of whole lines, as a request or a connection brought them. Out: the same bytes to the lane that has the log, and
//! the news how far they are durable, for whoever waits to answer. A pipe goes on where its stream ended in the last run, so no
//! position is given twice. Bound: a [`Budget`] for each source, in bytes of all requests at hand and all that lanes have not
//! read; of that a pipe beside others holds at most half, so that one tenant cannot take all of it. What does not fit is refused
//! at once: the sender is told when to come again.

use super::status::lock;
use flow::event::{Signal, StreamId};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Bytes that a source may hold.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    taken: AtomicU64,
}

impl Budget {
    pub fn new(bytes_max: u64) -> Arc<Budget> {
        Arc::new(Budget { bytes_max, taken: AtomicU64::new(0) })
    }

    /// Takes so many bytes, if they are left.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        let mut held = Held { budget: Arc::clone(self), bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    pub fn taken_bytes(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A share of a budget, given back when it goes.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Held {
    /// Takes more, or nothing and says so.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.budget.bytes_max);
        let grown = self.budget.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why a chunk was not taken, or is not known to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room, for now.
    Full,
    /// The process ends: what was not read is not taken.
    Ending,
    /// It is taken, and nobody knows yet whether for good.
    Late,
}

/// How far a pipe's stream is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Everything before it is decided and durable.
    done: u64,
    /// Nothing behind it will be.
    last: Option<u64>,
}

/// One log.
pub struct Pipe {
    pub stream: StreamId,
    /// What the records are.
    pub signal: Signal,
    /// Where the stream ended in the last run.
    pub start: u64,
    /// The log's name: the same in every run.
    pub log: PathBuf,
    /// Who pays, whatever the records say.
    pub tenant: Option<Arc<[u8]>>,
    bytes_max: u64,
    queue: Mutex<Queue>,
    progress: watch::Sender<Progress>,
    room: Notify,
    /// Its source has an end, and somebody waits for it.
    awaited: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<(Vec<u8>, Held)>,
    /// Bytes of the first chunk that were read.
    read: usize,
    bytes: u64,
    /// The position behind everything that was pushed.
    end: u64,
    closed: bool,
}

impl Pipe {
    /// `bytes_max`: what it may hold of the source's budget.
    pub fn new(stream: StreamId, signal: Signal, start: u64, log: PathBuf, tenant: Option<Arc<[u8]>>, bytes_max: u64) -> Pipe {
        let queue = Mutex::new(Queue { end: start, ..Queue::default() });
        let progress = watch::Sender::new(Progress { done: start, last: None });
        Pipe {
            stream,
            signal,
            start,
            log,
            tenant,
            bytes_max,
            queue,
            progress,
            room: Notify::new(),
            awaited: AtomicBool::new(false),
            wake: OnceLock::new(),
        }
    }

    /// How the lane is told that there is something.
    pub fn wakes(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake)); // the first one stays
    }

    /// Adds whole lines; returns the position behind them.
    pub fn push(&self, lines: Vec<u8>, held: Held) -> Result<u64, Refusal> {
        debug_assert!(lines.last().is_none_or(|last| *last == b'\n'));
        let bytes = lines.len() as u64;
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(Refusal::Ending);
        }
        // A chunk larger than the share passes when nothing else is there.
        if queue.bytes > 0 && queue.bytes + bytes > self.bytes_max {
            return Err(Refusal::Full);
        }
        queue.bytes += bytes;
        queue.end += bytes;
        let end = queue.end;
        if bytes > 0 {
            queue.chunks.push_back((lines, held));
        }
        drop(queue);
        if let Some(wake) = self.wake.get() {
            wake();
        }
        Ok(end)
    }

    /// Moves up to `room` bytes to the end of `out`. Is there more?
    pub fn read(&self, out: &mut Vec<u8>, room: usize) -> bool {
        let mut queue = lock(&self.queue);
        let mut left = room;
        while let Some((chunk, _)) = queue.chunks.front() {
            let rest = &chunk[queue.read..];
            let taken = rest.len().min(left);
            out.extend_from_slice(&rest[..taken]);
            let is_whole = taken == rest.len();
            queue.read = if is_whole { 0 } else { queue.read + taken };
            queue.bytes -= taken as u64;
            left -= taken;
            if !is_whole {
                break;
            }
            queue.chunks.pop_front();
        }
        let more = !queue.chunks.is_empty();
        drop(queue);
        if left < room {
            self.room.notify_waiters();
        }
        more
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.queue).chunks.is_empty()
    }

    /// Whether a chunk would be taken, as far as its share goes.
    pub fn has_room(&self, bytes: u64) -> bool {
        let queue = lock(&self.queue);
        queue.closed || queue.bytes == 0 || queue.bytes + bytes <= self.bytes_max
    }

    /// Everything before it is durable.
    pub fn done(&self) -> u64 {
        self.progress.borrow().done
    }

    /// The run reads to the end of its sources: this one has an end that is waited for.
    pub fn await_end(&self) {
        self.awaited.store(true, Ordering::Release);
    }

    /// Nothing more will be pushed.
    pub fn finish(&self) {
        self.awaited.store(false, Ordering::Release);
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Whether an end is waited for that has not come.
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Acquire)
    }

    /// Everything before this position is durable.
    pub fn decided(&self, done: u64) {
        self.progress.send_if_modified(|progress| {
            let news = done > progress.done;
            progress.done = progress.done.max(done);
            news
        });
    }

    /// The lane reads no more.
    pub fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let last = queue.end - queue.bytes;
        queue.chunks.clear();
        drop(queue);
        self.progress.send_modify(|progress| progress.last = Some(last));
        self.room.notify_waiters();
    }

    /// Waits until everything before `end` is durable.
    pub async fn durable(&self, end: u64, patience: Duration) -> Result<(), Refusal> {
        let mut progress = self.progress.subscribe();
        let is_known = |p: &Progress| p.done >= end || p.last.is_some_and(|last| last < end);
        match tokio::time::timeout(patience, progress.wait_for(is_known)).await {
            Ok(Ok(progress)) if progress.done >= end => Ok(()),
            Ok(_) => Err(Refusal::Ending),
            Err(_) => Err(Refusal::Late),
        }
    }

    /// Waits until the lane has read something, or for a moment: the budget may have room for other reasons.
    pub async fn room(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(50), self.room.notified()).await; // either is a reason to look again
    }
}

/// What a source that others send to did since the start, for metrics and `/api/sources`.
pub struct Stats {
    pub kind: &'static str,
    /// Where it listens.
    pub listen: Vec<String>,
    pub budget: Arc<Budget>,
    pub connections: AtomicU64,
    /// Requests or messages, by what came of them.
    results: Mutex<BTreeMap<String, u64>>,
}

impl Stats {
    pub fn new(kind: &'static str, budget: Arc<Budget>) -> Stats {
        Stats { kind, listen: Vec::new(), budget, connections: AtomicU64::new(0), results: Mutex::default() }
    }

    pub fn count(&self, result: &str, n: u64) {
        if n == 0 {
            return;
        }
        let mut results = lock(&self.results);
        match results.get_mut(result) {
            Some(count) => *count += n,
            None => drop(results.insert(result.to_string(), n)),
        }
    }

    pub fn results(&self) -> BTreeMap<String, u64> {
        lock(&self.results).clone()
    }

    /// What `/api/sources` shows.
    pub fn view(&self, pipeline: &str, source: &str) -> serde_json::Value {
        serde_json::json!({
            "pipeline": pipeline,
            "source": source,
            "kind": self.kind,
            "listen": self.listen,
            "connections": self.connections.load(Ordering::Relaxed),
            "waiting_bytes": self.budget.taken_bytes(),
            "results": self.results(),
        })
    }
}

/// Counts a connection while it lives.
pub struct Connected(Arc<Stats>);

impl Connected {
    /// `None` where there are `max` already.
    pub fn new(stats: &Arc<Stats>, max: u32) -> Option<Connected> {
        let fits = |n: u64| (n < u64::from(max)).then_some(n + 1);
        let counted = stats.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        counted.ok().map(|_| Connected(Arc::clone(stats)))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(budget: &Arc<Budget>, bytes_max: u64) -> (Pipe, impl Fn(&Pipe, &str) -> Result<u64, Refusal>) {
        let budget = Arc::clone(budget);
        let push = move |pipe: &Pipe, text: &str| {
            let held = budget.take(text.len() as u64).ok_or(Refusal::Full)?;
            pipe.push(text.as_bytes().to_vec(), held)
        };
        (Pipe::new(StreamId(1), Signal::Logs, 100, "log".into(), None, bytes_max), push)
    }

    #[test]
    fn bytes_come_out_in_order_and_what_does_not_fit_is_refused() {
        let budget = Budget::new(20);
        let (pipe, push) = pipe(&budget, 10);
        assert_eq!(push(&pipe, "one\n"), Ok(104));
        assert_eq!(push(&pipe, "two\n"), Ok(108));
        assert_eq!(push(&pipe, "three\n"), Err(Refusal::Full), "a pipe has its share");
        assert_eq!(budget.taken_bytes(), 8);
        let mut out = Vec::new();
        assert!(pipe.read(&mut out, 6));
        assert!(!pipe.read(&mut out, 100) && pipe.is_empty());
        assert_eq!((out.as_slice(), budget.taken_bytes()), (&b"one\ntwo\n"[..], 0));
        assert_eq!(push(&pipe, "larger than the share\n"), Err(Refusal::Full), "the budget holds");
        assert_eq!(push(&pipe, "larger than it is\n"), Ok(126), "when nothing else is there");
        pipe.close();
        assert_eq!(push(&pipe, "four\n"), Err(Refusal::Ending));
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn an_answer_waits_for_its_own_bytes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let budget = Budget::new(100);
        let (pipe, push) = pipe(&budget, 100);
        let (first, second) = (push(&pipe, "one\n").unwrap(), push(&pipe, "two\n").unwrap());
        let moment = Duration::from_millis(1);
        assert_eq!(runtime.block_on(pipe.durable(first, moment)), Err(Refusal::Late));
        pipe.decided(first);
        assert_eq!(runtime.block_on(pipe.durable(first, moment)), Ok(()));
        pipe.read(&mut Vec::new(), 4);
        pipe.close();
        assert_eq!(runtime.block_on(pipe.durable(first, moment)), Ok(()));
        assert_eq!(runtime.block_on(pipe.durable(second, Duration::MAX)), Err(Refusal::Ending), "nobody read it");
    }
}
