//! What a source makes itself and must say exactly once: lines, and the state from which it goes on behind them.
//!
//! In: lines of facts with the state that follows them. Out: the lines in the source's pipe. A file holds both before the pipe gets
//! the lines, and keeps them until the hub has them: what it does not have after a crash is pushed again, byte for byte, and what it
//! has is not. A disk that takes nothing is waited for: what is to be said meanwhile is kept, [`UNSAID_BYTES_MAX`] of it, and said when the
//! file is written. Bound: that, and what the pipe holds; while the pipe has no room, who tells waits.

use super::push::{Pipe, Refusal, Stats};
use crate::durable;
use anyhow::Context;
use hub::Disk;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// What is kept while the disk takes nothing; with more the source ends.
const UNSAID_BYTES_MAX: usize = 16 << 20;
/// A state without new lines is kept so often: what a crash takes of it is no more.
const STATE_EVERY: Duration = Duration::from_secs(10);
/// How long one waits for room until one looks again.
const PATIENCE: Duration = Duration::from_millis(5);

/// What the file says.
#[derive(Serialize, Deserialize)]
struct Saved<S, L = String> {
    /// The state behind `lines`.
    state: S,
    /// Position of the pipe before them.
    from: u64,
    lines: L,
}

pub struct Told {
    disk: Disk,
    path: PathBuf,
    pipe: Arc<Pipe>,
    stats: Arc<Stats>,
    /// What the hub is not known to have, and its position.
    from: u64,
    lines: String,
    /// Of that the bytes that the pipe was given.
    pushed: usize,
    saved: Instant,
    /// The disk takes nothing, which was said.
    fails: bool,
    /// The end came while something was not taken: the next run pushes it.
    is_over: bool,
}

impl Told {
    /// Goes on where a run before ended: returns its state, and pushes again what the hub did not get.
    ///
    /// `path`: a file in the data folder.
    pub fn open<S: DeserializeOwned>(
        disk: Disk,
        path: PathBuf,
        pipe: Arc<Pipe>,
        stats: Arc<Stats>,
        ends: &AtomicBool,
    ) -> anyhow::Result<(Told, Option<S>)> {
        let folder = path.parent().context("a file of the data folder has a folder")?;
        disk.create_dir_all(folder, "folder of sources").with_context(|| format!("cannot create {}", folder.display()))?;
        let from = pipe.start;
        let (lines, saved) = (String::new(), Instant::now());
        let mut told = Told { disk, path, pipe, stats, from, lines, pushed: 0, saved, fails: false, is_over: false };
        if !told.disk.exists(&told.path)? {
            return Ok((told, None));
        }
        let bytes = told.disk.read(&told.path).with_context(|| format!("cannot read {}", told.path.display()))?;
        let saved: Saved<S> = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged; remove it to begin anew with the next reading", told.path.display()))?;
        let had = usize::try_from(told.pipe.start.saturating_sub(saved.from)).unwrap_or(usize::MAX);
        told.lines = saved.lines.get(had..).unwrap_or_default().to_owned();
        told.push(ends);
        Ok((told, Some(saved.state)))
    }

    /// Says lines, and goes on from `state`; without lines the state is kept now and then. A disk that takes nothing is told once, and
    /// tried again with the next call. Errors: it took nothing for too long.
    pub fn note<S: Serialize>(&mut self, lines: Vec<u8>, state: &S, ends: &AtomicBool) -> anyhow::Result<()> {
        if lines.is_empty() && !self.fails && self.saved.elapsed() < STATE_EVERY {
            return Ok(());
        }
        match self.tell(lines, state, ends) {
            Ok(()) => {
                if std::mem::take(&mut self.fails) {
                    info!(path = %self.path.display(), "the disk takes facts again");
                }
                self.saved = Instant::now();
            }
            Err(error) if self.lines.len() - self.pushed <= UNSAID_BYTES_MAX => {
                self.stats.count("state_fails", 1);
                if !std::mem::replace(&mut self.fails, true) {
                    warn!(error = format!("{error:#}"), "facts wait for the disk");
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says lines, and goes on from `state`. After an error they are said with the next ones.
    pub fn tell<S: Serialize>(&mut self, lines: Vec<u8>, state: &S, ends: &AtomicBool) -> anyhow::Result<()> {
        let settled = usize::try_from(self.pipe.done().saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.pushed);
        self.lines.drain(..settled);
        self.pushed -= settled;
        self.from += settled as u64;
        self.lines.push_str(std::str::from_utf8(&lines).context("lines of facts are text")?);
        let saved = Saved { state, from: self.from, lines: &self.lines };
        durable::replace(&self.disk, &self.path, &serde_json::to_vec(&saved)?)?;
        self.push(ends);
        Ok(())
    }

    /// Gives the pipe what the file has and it has not.
    fn push(&mut self, ends: &AtomicBool) {
        let lines = self.lines.as_bytes()[self.pushed..].to_vec();
        if lines.is_empty() || self.is_over {
            return;
        }
        let records = lines.iter().filter(|b| **b == b'\n').count() as u64;
        if push_waiting(&self.pipe, &self.stats, lines, ends) {
            self.pushed = self.lines.len();
            self.stats.count("facts", records);
        } else {
            self.is_over = true;
        }
    }
}

/// Pushes lines as soon as there is room. False: the end came first.
pub fn push_waiting(pipe: &Pipe, stats: &Stats, lines: Vec<u8>, ends: &AtomicBool) -> bool {
    let bytes = lines.len() as u64;
    loop {
        if let Some(held) = stats.budget.take(bytes)
            && pipe.has_room(bytes)
        {
            return !matches!(pipe.push(lines, held), Err(Refusal::Ending | Refusal::Full | Refusal::Late));
        }
        if ends.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::push::Budget;
    use super::*;
    use flow::event::{Signal, StreamId};
    use hub::disk::{Loss, Sim};
    use std::path::Path;

    fn pipe(start: u64) -> Arc<Pipe> {
        Arc::new(Pipe::new(StreamId(1), Signal::Logs, start, "log".into(), None, 1 << 20))
    }

    fn open(disk: &Disk, start: u64) -> anyhow::Result<(Told, Option<u64>, Arc<Pipe>)> {
        let (pipe, stats) = (pipe(start), Arc::new(Stats::new("test", Budget::new(1 << 20))));
        let (told, state) = Told::open(disk.clone(), "/data/sources/x.json".into(), Arc::clone(&pipe), stats, &AtomicBool::new(false))?;
        Ok((told, state, pipe))
    }

    fn read(pipe: &Pipe) -> String {
        let mut out = Vec::new();
        pipe.read(&mut out, 1 << 20);
        String::from_utf8(out).unwrap()
    }

    /// Tells 1, 2, 3 ... with a crash at operation `at`; the hub had `had` of the bytes that reached the pipe. Returns what the hub has
    /// in the end, and the state that the next run goes on from.
    fn crash(at: u64, loss: Loss, had: usize) -> (String, u64) {
        let sim = Arc::new(Sim::new(3));
        let disk = Disk::Sim(Arc::clone(&sim));
        disk.create_dir_all(Path::new("/data"), "folder").expect("an empty disk takes a folder");
        sim.crash_at(sim.ops() + at);
        let mut hub = String::new();
        if let Ok((mut told, _, pipe)) = open(&disk, 0) {
            for n in 1..=4u64 {
                if told.tell(format!("fact {n}\n").into_bytes(), &n, &AtomicBool::new(false)).is_err() {
                    break;
                }
            }
            hub = read(&pipe);
        }
        hub.truncate(had.min(hub.len()));
        let disk = Disk::Sim(Arc::new(sim.reboot(loss)));
        let (mut told, state, pipe) = open(&disk, hub.len() as u64).expect("it opens again");
        let next = state.unwrap_or(0) + 1;
        told.tell(format!("fact {next}\n").into_bytes(), &next, &AtomicBool::new(false)).expect("the disk is well");
        hub.push_str(&read(&pipe));
        (hub, next)
    }

    #[test]
    fn what_is_told_is_told_once_whatever_a_crash_left() {
        for loss in (0..20).map(Loss::Seeded).chain([Loss::LoseUnsynced, Loss::KeepAll]) {
            for at in 0..26 {
                for had in [0, 7, 14, 21, usize::MAX] {
                    let (hub, next) = crash(at, loss, had);
                    let want: String = (1..=next).map(|n| format!("fact {n}\n")).collect();
                    assert_eq!(hub, want, "{at} {loss:?} {had}");
                }
            }
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_for_a_while_loses_nothing() {
        let sim = Arc::new(Sim::new(3));
        let disk = Disk::Sim(Arc::clone(&sim));
        disk.create_dir_all(Path::new("/data"), "folder").unwrap();
        let (mut told, _, pipe) = open(&disk, 0).unwrap();
        let ends = AtomicBool::new(false);
        told.note(b"one\n".to_vec(), &1u64, &ends).unwrap();
        sim.fail_until(sim.ops() + 2, std::io::ErrorKind::StorageFull);
        told.note(b"two\n".to_vec(), &2u64, &ends).unwrap();
        assert_eq!((told.fails, read(&pipe).as_str()), (true, "one\n"));
        for _ in 0..3 {
            told.note(Vec::new(), &2u64, &ends).unwrap();
        }
        told.note(b"three\n".to_vec(), &3u64, &ends).unwrap();
        assert_eq!((told.fails, read(&pipe).as_str()), (false, "two\nthree\n"));
        let (_, state, pipe) = open(&disk, 4).unwrap();
        assert_eq!((state, read(&pipe).as_str()), (Some(3), "two\nthree\n"));
    }

    #[test]
    fn what_the_hub_has_is_kept_no_longer() {
        let disk = Disk::Sim(Arc::new(Sim::new(3)));
        disk.create_dir_all(Path::new("/data"), "folder").unwrap();
        let (mut told, state, pipe) = open(&disk, 100).unwrap();
        assert_eq!(state, None);
        told.tell(b"one\n".to_vec(), &1u64, &AtomicBool::new(false)).unwrap();
        pipe.decided(104);
        told.tell(b"two\n".to_vec(), &2u64, &AtomicBool::new(false)).unwrap();
        assert_eq!((told.from, told.lines.as_str()), (104, "two\n"));
        let (told, state, pipe) = open(&disk, 108).unwrap();
        assert_eq!((state, told.lines.as_str(), read(&pipe).as_str()), (Some(2), "", ""));
    }
}
