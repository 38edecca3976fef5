//! Behind the writer: merges small files, drops what is too old or too much, mends indexes, removes what nobody needs.
//!
//! In: a lake's folder, limits, and the time (no clock is asked); out: commits like the writer's, each an atomic step: a reader
//! sees the files before it or those after it. Only the table `logs` is touched: `usage`, `charges` and `lineage` are the bill's
//! evidence. A writer and other keepers may commit at the same time: who finds the next number taken reads what was committed,
//! and gives up a rewrite whose input is there no more. A file that a commit removed lies there until [`Keeper::sweep`], for those
//! who read an older snapshot. One call does about `bytes_per_run_max` of work, so a background thread may call [`Keeper::run`]
//! every minute. Memory: the commit log (about 300 bytes per file) and the rows of one rewrite.
//!
//! Read in this order: `rewrite` (rows out of files and into one), `compact`, `retain`, `reindex`, `sweep`.

mod rewrite;

mod compact;
mod reindex;
mod retain;
mod sweep;

#[cfg(test)]
mod tests;

pub use compact::{CompactOptions, Compacted};
pub use reindex::{ReindexOptions, Reindexed};
pub use retain::{Retention, TenantRetention};
pub use sweep::Swept;

use crate::commit::{Commit, DropEntry, Dropped, FileEntry, Log, Removed, publish};
use crate::store::NewFiles;
use flow::units::{Span, UnixNanos};
use hub::disk::Disk;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What a lake is kept like.
#[derive(Clone, Debug)]
pub struct Options {
    pub retention: Retention,
    pub compact: CompactOptions,
    /// How long a removed file stays for those who read an older snapshot: longer than any search may take.
    pub grace: Span,
    /// Raw bytes rewritten and index bytes checked in one run; a run goes over it by at most one merge and one index.
    pub bytes_per_run_max: u64,
}

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    pub dropped: Vec<Dropped>,
    pub compacted: Compacted,
    pub reindexed: Reindexed,
    pub swept: Swept,
}

/// Keeps one lake. What it has read of the commit log it does not read again.
pub struct Keeper {
    disk: Disk,
    root: PathBuf,
    log: Log,
    /// Indexes that were read whole and found good.
    checked: HashSet<String>,
    /// Files that could not be read: they are left alone until the next start.
    failed: HashSet<String>,
    /// Files removed by commits up to this number are known to be unlinked.
    swept: u64,
}

/// What a commit of a keeper says.
#[derive(Default)]
struct Change {
    removed: Vec<Removed>,
    added: Vec<FileEntry>,
    dropped: Vec<DropEntry>,
}

impl Keeper {
    /// Reads the commit log. A folder without one is an empty lake, of which there is nothing to keep.
    pub fn open(disk: &Disk, root: &Path) -> anyhow::Result<Keeper> {
        let log = Log::read(disk, root)?;
        Ok(Keeper { disk: disk.clone(), root: root.into(), log, checked: HashSet::new(), failed: HashSet::new(), swept: 0 })
    }

    /// Drops, merges, mends and sweeps, in this order: what is dropped need not be merged.
    ///
    /// After an error nothing is lost: the next run finds out what was published and goes on. Files of a rewrite whose commit
    /// failed may be left over until the lake is opened.
    pub fn run(&mut self, options: &Options, now: UnixNanos) -> anyhow::Result<Maintained> {
        let budget = options.bytes_per_run_max;
        let dropped = self.retain(&options.retention, now)?;
        let compacted = self.compact(&CompactOptions { bytes_max: budget, ..options.compact.clone() }, now)?;
        let reindex = ReindexOptions {
            index_bytes_min: options.compact.index_bytes_min,
            memory_bytes_max: options.compact.memory_bytes_max,
            bytes_max: budget.saturating_sub(compacted.raw_bytes),
        };
        let reindexed = self.reindex(&reindex, now)?;
        let swept = self.sweep(options.grace, now)?;
        Ok(Maintained { dropped, compacted, reindexed, swept })
    }

    /// Number of the newest commit that is known.
    pub fn number(&self) -> u64 {
        self.log.number
    }

    fn refresh(&mut self) -> anyhow::Result<()> {
        self.log.read_on(&self.disk, &self.root)
    }

    fn has_all<'a>(&self, mut paths: impl Iterator<Item = &'a str>) -> bool {
        let live: HashSet<&str> = self.log.records().map(|file| file.path.as_str()).collect();
        paths.all(|path| live.contains(path))
    }

    /// Commits a change under the next free number. `None`: a file that it removes is there no more, and it is not committed.
    fn publish(&mut self, change: Change, now: UnixNanos) -> anyhow::Result<Option<u64>> {
        loop {
            // What another keeper has done since must be known here: the log refuses a file removed twice.
            if !self.has_all(change.removed.iter().map(|removed| removed.path.as_str())) {
                return Ok(None);
            }
            let mut commit = Commit::new(self.log.number + 1, [0, 0], self.log.fields.clone().unwrap_or_default());
            commit.at_ns = Some(now.0);
            commit.removed = change.removed.clone();
            commit.dropped = change.dropped.clone();
            commit.swept = (self.swept > 0).then_some(self.swept);
            for file in &change.added {
                commit.tables.entry(table_of(&file.path).to_owned()).or_default().push(file.clone());
            }
            if publish(&self.disk, &self.root, &commit)? {
                let number = commit.number;
                self.log.add(commit)?;
                return Ok(Some(number));
            }
            self.refresh()?;
        }
    }

    /// As [`Keeper::publish`]; files of a change that is not committed are removed.
    fn publish_files(&mut self, mut files: NewFiles<'_>, change: Change, now: UnixNanos) -> anyhow::Result<bool> {
        let is_published = self.publish(change, now)?.is_some();
        if !is_published {
            files.discard();
        }
        Ok(is_published)
    }
}

/// [`Keeper::compact`] for one call.
pub fn compact(disk: &Disk, root: &Path, options: &CompactOptions, now: UnixNanos) -> anyhow::Result<Compacted> {
    Keeper::open(disk, root)?.compact(options, now)
}

/// [`Keeper::retain`] for one call.
pub fn retain(disk: &Disk, root: &Path, retention: &Retention, now: UnixNanos) -> anyhow::Result<Vec<Dropped>> {
    Keeper::open(disk, root)?.retain(retention, now)
}

/// [`Keeper::reindex`] for one call.
pub fn reindex(disk: &Disk, root: &Path, options: &ReindexOptions, now: UnixNanos) -> anyhow::Result<Reindexed> {
    Keeper::open(disk, root)?.reindex(options, now)
}

/// [`Keeper::sweep`] for one call.
pub fn sweep_removed(disk: &Disk, root: &Path, grace: Span, now: UnixNanos) -> anyhow::Result<Swept> {
    Keeper::open(disk, root)?.sweep(grace, now)
}

/// [`Keeper::run`] for one call; who calls often keeps the [`Keeper`].
pub fn run(disk: &Disk, root: &Path, options: &Options, now: UnixNanos) -> anyhow::Result<Maintained> {
    Keeper::open(disk, root)?.run(options, now)
}

/// The table a file is of.
fn table_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// The folder a file lies in: its partition, a tenant's day or an hour of it.
fn partition_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
