//! What sources have in common that measure this machine (`gpu`, `host`): where their facts and samples go, and when they end.
//!
//! In: lines. Out: facts in one pipe, told exactly once (`told`); samples in another, which are left out and counted where there is no
//! room, as the next ones say what is so then. With `--once` a source makes two readings and ends; its lane waits for that.

use super::push::{Pipe, Stats};
use super::told::{Told, push_waiting};
use hub::Disk;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::warn;

/// How often a thread looks whether the end has come.
pub const TICK: Duration = Duration::from_millis(200);
/// Longest time between the two readings of `--once`.
const ONCE_INTERVAL: Duration = Duration::from_secs(1);

pub struct Outlet {
    facts: Arc<Pipe>,
    samples: Arc<Pipe>,
    pub stats: Arc<Stats>,
    /// Where the state of facts is kept.
    state: PathBuf,
    /// Sources are read to their end.
    pub once: bool,
    pub ends: Arc<AtomicBool>,
}

impl Outlet {
    /// `state`: a file in the data folder.
    pub fn new([facts, samples]: [Arc<Pipe>; 2], stats: Arc<Stats>, state: PathBuf, once: bool) -> Outlet {
        Outlet { facts, samples, stats, state, once, ends: Arc::default() }
    }

    /// Runs a source to its end. What stops it is said: others go on.
    pub fn run(&self, source: &str, measure: impl FnOnce() -> anyhow::Result<()>) {
        if let Err(error) = measure() {
            self.stats.count("failed", 1);
            warn!(source, error = format!("{error:#}"), "this source has stopped; restart weir when it is mended");
        }
        self.facts.finish();
        self.samples.finish();
    }

    /// Goes on where the last run ended.
    pub fn open<S: DeserializeOwned>(&self) -> anyhow::Result<(Told, Option<S>)> {
        Told::open(Disk::Real, self.state.clone(), Arc::clone(&self.facts), Arc::clone(&self.stats), &self.ends)
    }

    /// `waits`: for room, where samples will not come again.
    pub fn put(&self, lines: Vec<u8>, waits: bool) {
        if lines.is_empty() {
            return;
        }
        if waits {
            push_waiting(&self.samples, &self.stats, lines, &self.ends);
        } else if self.stats.budget.take(lines.len() as u64).is_none_or(|held| self.samples.push(lines, held).is_err()) {
            self.stats.count("left_out", 1);
        }
    }

    pub fn is_ending(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }
}

/// The time between two readings.
pub fn pace(interval: Duration, once: bool) -> Duration {
    if once { interval.min(ONCE_INTERVAL) } else { interval }
}

/// Returns earlier where the end comes.
pub fn sleep_until(due: Instant, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(TICK));
    }
}
