//! The caretaker: looks after lakes while a process runs. It drops what is older or more than `keep` says, merges small files of
//! hours and days that are over, makes lost indexes anew and removes files that nobody reads any more.
//!
//! In: the lakes, and the clock, once a minute. Out: commits (see `lake::maintain`), an event for each drop, and counters for
//! `/metrics`. What fails is told and tried again in a minute; sinks do not wait for it. Bound: one merge at a time, and
//! [`RUN_BYTES_MAX`] of rows in one run.

use crate::env;
use flow::units::Span;
use hub::Disk;
use lake::maintain::{Keeper, Maintained, Options};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::{info, warn};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(60);
/// How often the end of the process is looked for meanwhile.
const STOP: Duration = Duration::from_millis(100);
/// Removed files stay for readers that began before; no question takes so long.
pub const GRACE: Span = Span(900_000_000_000);
/// Rows rewritten in one run, in bytes: at 40 MB/s these are a few seconds a minute at most.
pub const RUN_BYTES_MAX: u64 = 128 << 20;

/// What a scraper sees.
#[derive(Default)]
pub struct Status {
    pub merges: AtomicU64,
    pub files_merged: AtomicU64,
    pub indexes_rebuilt: AtomicU64,
    pub files_removed: AtomicU64,
    pub failures: AtomicU64,
    /// Records and stored bytes that retention dropped since the start, by rule.
    pub expired: Mutex<BTreeMap<&'static str, (u64, u64)>>,
}

pub struct Caretaker {
    lakes: Vec<(PathBuf, Options)>,
    /// Opened when it first looks.
    keepers: Vec<Option<Keeper>>,
    status: Arc<Status>,
}

impl Caretaker {
    pub fn new(lakes: Vec<(PathBuf, Options)>, status: Arc<Status>) -> Caretaker {
        let keepers = lakes.iter().map(|_| None).collect();
        Caretaker { lakes, keepers, status }
    }

    /// Until the process ends.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.look();
            let mut waited = Duration::ZERO;
            while waited < LOOK && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(STOP);
                waited += STOP;
            }
        }
    }

    fn look(&mut self) {
        for ((root, options), keeper) in self.lakes.iter().zip(&mut self.keepers) {
            let done = match keeper {
                Some(keeper) => keeper.run(options, env::now()),
                None => Keeper::open(&Disk::Real, root).and_then(|opened| keeper.insert(opened).run(options, env::now())),
            };
            match done {
                Ok(done) => self.status.note(root, &done),
                Err(error) => {
                    *keeper = None; // what it knows of the log is read anew
                    self.status.failures.fetch_add(1, Ordering::Relaxed);
                    warn!(lake = %root.display(), error = format!("{error:#}"), "cannot look after the lake; trying again in a minute");
                }
            }
        }
    }
}

impl Status {
    fn note(&self, root: &std::path::Path, done: &Maintained) {
        for drop in &done.dropped {
            let (tenant, rule) = (String::from_utf8_lossy(&drop.tenant).into_owned(), drop.rule.name());
            info!(lake = %root.display(), tenant, rule, records = drop.rows, bytes = drop.stored_bytes,
                  from = drop.min_time.rfc3339(), to = drop.max_time.rfc3339(), "dropped records that are kept no longer");
            let mut expired = crate::sources::status::lock(&self.expired);
            let sum = expired.entry(rule).or_default();
            *sum = (sum.0 + drop.rows, sum.1 + drop.stored_bytes);
        }
        let failed = done.compacted.failed.iter().chain(&done.reindexed.failed);
        for failure in failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
            warn!(lake = %root.display(), "left alone until the next start: {failure}");
        }
        self.merges.fetch_add(done.compacted.merges, Ordering::Relaxed);
        self.files_merged.fetch_add(done.compacted.files, Ordering::Relaxed);
        self.indexes_rebuilt.fetch_add(done.reindexed.rebuilt, Ordering::Relaxed);
        self.files_removed.fetch_add(done.swept.files, Ordering::Relaxed);
        if done.compacted.merges > 0 || done.reindexed.rebuilt > 0 {
            info!(lake = %root.display(), merges = done.compacted.merges, files = done.compacted.files,
                  indexes = done.reindexed.rebuilt, "looked after the lake");
        }
    }
}
