//! Delivery: one thread per sink, from its cursor to its store.
//!
//! In: frames in the hub's order; the store sees of their rows those that the sink takes. Out: commits, each of which releases what the hub held for this sink. A
//! failing store is tried again with growing pauses; nothing is skipped. Memory: what the store buffers, and
//! for a lake the frames of one seal.

use crate::env;
use crate::sinks::{Pace, Store, archive};
use anyhow::Context;
use hub::{Cursor, Frame, LostReason, Next};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::warn;

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Files that others renamed or removed are there again within two of these.
const TICK: Duration = Duration::from_millis(500);

/// What a sink's thread and the rest of the process tell each other.
#[derive(Default)]
pub struct SinkSignals {
    /// SIGHUP came: files are to be opened again.
    pub reopen: AtomicBool,
    /// Drained or not, the sink must stop.
    pub abandon: AtomicBool,
    /// When it last made progress or had nothing to do, in ms since the epoch.
    pub heartbeat: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Since when every attempt fails, in ms since the epoch; 0: the last one worked.
    pub failing_since: AtomicU64,
    /// Why the last attempt failed.
    pub trouble: Mutex<String>,
    /// Archives: what happened to files since the start.
    pub archive: Mutex<Option<archive::Stats>>,
}

pub struct Delivery {
    pub name: String,
    pub cursor: Cursor,
    pub store: Store,
    pub pace: Pace,
    pub signals: Arc<SinkSignals>,
    /// The wall clock may show in the store: not with `--once`.
    pub is_live: bool,
}

impl Delivery {
    /// Works until the hub is closed and everything in it is delivered.
    pub fn run(mut self) -> anyhow::Result<()> {
        self.persist("tend", |store, _| store.tend())?;
        let mut newest = 0;
        let mut held_bytes = 0;
        let mut oldest: Option<Instant> = None;
        let mut ticked = Instant::now();
        loop {
            let left = oldest.map_or(TICK, |at| self.pace.interval.saturating_sub(at.elapsed())).min(TICK);
            let next = self.cursor.next(left).with_context(|| format!("sink {}", self.name))?;
            self.signals.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
            let mut due = oldest.is_some_and(|at| at.elapsed() >= self.pace.interval);
            match next {
                Next::Frame(frame) => {
                    let frame = self.fit(frame.only_for(&self.name), newest)?;
                    self.persist("write", |store, _| store.write(&frame))?;
                    newest = frame.seq;
                    held_bytes += frame.rows.bytes.len() as u64;
                    oldest.get_or_insert_with(Instant::now);
                    due |= held_bytes >= self.pace.bytes;
                }
                Next::Idle => {}
                Next::Pressure => due = oldest.is_some(),
                Next::Closed => {
                    self.persist("finish", |store, _| store.finish())?;
                    self.show_stats();
                    return self.release(newest);
                }
            }
            if due {
                self.persist("commit", |store, _| store.commit())?;
                self.release(newest)?;
                held_bytes = 0;
                oldest = None;
            }
            if self.signals.reopen.swap(false, Ordering::Relaxed) {
                self.persist("reopen", |store, _| store.reopen())?;
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                let now = self.is_live.then(env::now);
                self.persist("tick", |store, _| store.tick(now))?;
                self.show_stats();
            }
        }
    }

    /// The frame as the store takes it: without its rows where there is no room for them and config says that the newest go.
    fn fit(&mut self, frame: Arc<Frame>, newest: u64) -> anyhow::Result<Arc<Frame>> {
        let mut fits = true;
        self.persist("make room", |store, _| {
            fits = store.fits(&frame)?;
            Ok(())
        })?;
        if fits {
            return Ok(frame);
        }
        // What came before is committed first: it must never come again behind what is rejected now.
        self.persist("commit", |store, _| store.commit())?;
        self.release(newest)?;
        let mut rest = Arc::clone(&frame);
        self.persist("reject", |_, cursor| {
            rest = cursor.reject(&frame, LostReason::NoRoom)?;
            Ok(())
        })?;
        Ok(rest)
    }

    fn show_stats(&self) {
        if let Some(stats) = self.store.archive_stats() {
            *self.signals.archive.lock().expect("no holder of this lock panics") = Some(stats);
        }
    }

    fn release(&mut self, newest: u64) -> anyhow::Result<()> {
        if newest > 0 {
            self.cursor.committed(newest).with_context(|| format!("sink {}: the hub cannot let go of delivered frames", self.name))?;
        }
        Ok(())
    }

    /// Tries until it works, or until the process gives up waiting for it.
    fn persist(&mut self, what: &str, mut attempt: impl FnMut(&mut Store, &mut Cursor) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut pause = RETRY_MIN;
        while let Err(error) = attempt(&mut self.store, &mut self.cursor) {
            self.signals.failures.fetch_add(1, Ordering::Relaxed);
            let now = (env::now().0 / 1_000_000) as u64;
            let _ = self.signals.failing_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed); // keeps the first one
            *self.signals.trouble.lock().expect("no holder of this lock panics") = format!("{error:#}");
            warn!(sink = self.name, what, error = format!("{error:#}"), "sink failed; trying again");
            if error.chain().any(|c| c.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)) {
                return Err(anyhow::anyhow!("sink {}: nobody reads standard output any more ({error:#})", self.name));
            }
            if self.store.is_failed() {
                return Err(error.context(format!("sink {}: the disk failed; a restart recovers from the last commit", self.name)));
            }
            if self.signals.abandon.load(Ordering::Relaxed) {
                return Err(error.context(format!("sink {}: not everything was delivered; the hub keeps it", self.name)));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
        self.signals.failing_since.store(0, Ordering::Relaxed);
        Ok(())
    }
}
