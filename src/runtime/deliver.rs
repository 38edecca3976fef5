//! Delivery: one thread per sink, from its cursor to its store.
//!
//! In: frames in the hub's order; the store sees of their rows those that the sink takes. Out: commits, each of which releases what the hub held for this sink. A
//! failing store is tried again with growing pauses; nothing is skipped. Memory: what the store buffers, and
//! for a lake the frames of one seal.
//!
//! A store that lags takes more than its cursor's frames: after each of them, what tenants below their share have sent
//! meanwhile (`Cursor::ahead`), so that they do not wait behind whoever sent much. At most [`AHEAD`] bytes of that for
//! each byte of the cursor's, so that the backlog is worked off whatever comes. Not with `--once`.

use super::readers::Span;
use crate::env;
use crate::sinks::{Pace, Store, archive, http};
use anyhow::Context;
use hub::frame::Part;
use hub::{Cursor, Frame, LostReason, Next};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::warn;

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Bytes that may go ahead for each one that is taken in its turn, and most of them that may be saved up.
const AHEAD: i64 = 7;
const AHEAD_BYTES_MAX: i64 = 8 << 20;
/// A step is what the store takes in this time; bounds of it: the smallest frame worth its overhead, and a whole one.
const STEP: Duration = Duration::from_millis(50);
const STEP_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 20;
/// What is taken for a step before anything was measured.
const STEP_BYTES_FIRST: u64 = 128 << 10;
/// Work without a rest that is measured before it is believed, and so many bytes or else so long: little is mostly commits.
const MEASURED: Duration = Duration::from_millis(200);
const MEASURED_BYTES: u64 = 256 << 10;
const MEASURED_MAX: Duration = Duration::from_secs(1);
/// A frame that comes after this time was waited for.
const RESTED: Duration = Duration::from_millis(10);
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
    /// Bytes of rows that were taken ahead of their turn.
    pub ahead_bytes: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Since when every attempt fails, in ms since the epoch; 0: the last one worked.
    pub failing_since: AtomicU64,
    /// Why the last attempt failed.
    pub trouble: Mutex<String>,
    /// Archives: what happened to files since the start.
    pub archive: Mutex<Option<archive::Stats>>,
    /// Requests since the start.
    pub http: Mutex<Option<http::Stats>>,
    /// Of a `prometheus` sink: samples of series that found no room.
    pub unshown: AtomicU64,
    /// What was made durable, for whoever traces weir itself.
    pub spans: super::readers::Spans,
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
        let (mut held_bytes, mut held_frames) = (0, 0);
        let mut speed = Speed::default();
        let mut credit = 0;
        let mut oldest: Option<Instant> = None;
        let mut ticked = Instant::now();
        loop {
            let left = oldest.map_or(TICK, |at| self.pace.interval.saturating_sub(at.elapsed())).min(TICK);
            let asked = Instant::now();
            let next = self.cursor.next(left).with_context(|| format!("sink {}", self.name))?;
            self.signals.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
            if asked.elapsed() >= RESTED {
                speed.rest();
            }
            let mut due = oldest.is_some_and(|at| at.elapsed() >= self.pace.interval);
            match next {
                Next::Frame(frame) => {
                    let since = Instant::now();
                    let frame = self.fit(frame.only_for(&self.name), newest)?;
                    let new_bytes = self.new_bytes(&frame);
                    self.persist("write", |store, _| store.write(&frame))?;
                    newest = frame.seq;
                    oldest.get_or_insert(since);
                    held_bytes += frame.rows.bytes.len() as u64;
                    held_frames += 1;
                    if self.is_live {
                        credit = (credit + AHEAD * new_bytes as i64).min(AHEAD_BYTES_MAX);
                        let ahead = self.write_ahead(credit)?;
                        credit -= ahead as i64;
                        held_bytes += ahead;
                        speed.add(new_bytes + ahead, since.elapsed());
                    }
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
                let since = Instant::now();
                let begun = env::now();
                self.persist("commit", |store, _| store.commit())?;
                self.release(newest)?;
                speed.add(0, since.elapsed());
                let frames = std::mem::take(&mut held_frames);
                self.signals.spans.note(Span { begun, ended: env::now(), frame: newest, frames, bytes: held_bytes });
                held_bytes = 0;
                oldest = None;
            }
            if self.is_live {
                self.cursor.measured(speed.step_bytes());
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

    /// Takes what may go ahead of its turn, until it is more than `credit`. Returns how many bytes that were.
    fn write_ahead(&mut self, credit: i64) -> anyhow::Result<u64> {
        let mut bytes = 0;
        while (bytes as i64) < credit && self.store.takes_ahead() {
            let store = &self.store;
            let Some(frame) = self.cursor.ahead(&|stream| store.position(stream)) else { break };
            let frame = frame.only_for(&self.name);
            self.persist("write", |store, _| store.write(&frame))?;
            bytes += frame.rows.bytes.len() as u64;
        }
        self.signals.ahead_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Bytes of the rows that the store does not have.
    fn new_bytes(&self, frame: &Frame) -> u64 {
        let is_new = |part: &&Part| self.store.position(part.stream).is_none_or(|done| done < part.to);
        frame.parts.iter().filter(is_new).map(|part| frame.rows.bytes_of(&part.rows)).sum()
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

    /// Waits, and shows that it does; not when the process gives up.
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        self.show_stats();
        while !self.signals.abandon.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.signals.heartbeat.store((env::now().0 / 1_000_000) as u64, Ordering::Relaxed);
            std::thread::sleep(left.min(TICK));
        }
    }

    fn show_stats(&self) {
        if let Some(stats) = self.store.archive_stats() {
            *self.signals.archive.lock().expect("no holder of this lock panics") = Some(stats);
        }
        self.signals.unshown.store(self.store.unshown(), Ordering::Relaxed);
        if let Some(stats) = self.store.http_stats() {
            *self.signals.http.lock().expect("no holder of this lock panics") = Some(stats);
        }
    }

    fn release(&mut self, newest: u64) -> anyhow::Result<()> {
        self.cursor.committed(newest).with_context(|| format!("sink {}: the hub cannot let go of delivered frames", self.name))?;
        self.cursor.refused(&self.store.take_refused());
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
            match error.downcast_ref::<http::Busy>() {
                // It knows when to come again.
                Some(busy) => self.rest(busy.after),
                None => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
        self.signals.failing_since.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// How fast a store takes rows.
#[derive(Default)]
struct Speed {
    bytes: u64,
    took: Duration,
    /// Bytes in the time of a step, once that was measured.
    step_bytes: Option<u64>,
}

impl Speed {
    /// So many bytes were taken in this time.
    fn add(&mut self, bytes: u64, took: Duration) {
        self.bytes += bytes;
        self.took += took;
        if self.took < MEASURED || (self.bytes < MEASURED_BYTES && self.took < MEASURED_MAX) {
            return;
        }
        let step = (self.bytes as f64 / self.took.as_secs_f64() * STEP.as_secs_f64()) as u64;
        // Half of what was: a single hold-up is no new speed.
        self.step_bytes = Some(self.step_bytes.map_or(step, |before| (before + step) / 2));
        (self.bytes, self.took) = (0, Duration::ZERO);
    }

    /// There was nothing to do: how long that took says nothing.
    fn rest(&mut self) {
        (self.bytes, self.took) = (0, Duration::ZERO);
    }

    fn step_bytes(&self) -> u64 {
        self.step_bytes.unwrap_or(STEP_BYTES_FIRST).clamp(*STEP_BYTES.start(), *STEP_BYTES.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_a_store_takes_in_a_moment() {
        let mut speed = Speed::default();
        assert_eq!(speed.step_bytes(), 128 << 10);
        speed.add(9, Duration::from_millis(900)); // a commit
        speed.rest();
        speed.add(9, Duration::from_millis(900));
        speed.rest();
        speed.add(300_000, Duration::from_millis(150));
        assert_eq!(speed.step_bytes(), 128 << 10);
        speed.add(100_000, Duration::from_millis(50));
        assert_eq!(speed.step_bytes(), 100_000); // 2 MB/s
        speed.add(4_000_000, Duration::from_secs(1));
        assert_eq!(speed.step_bytes(), 150_000);
        (0..9).for_each(|_| speed.add(0, Duration::from_secs(1)));
        assert_eq!(speed.step_bytes(), 64 << 10);
        (0..9).for_each(|_| speed.add(1 << 30, Duration::from_secs(1)));
        assert_eq!(speed.step_bytes(), 1 << 20);
    }
}
