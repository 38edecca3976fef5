//! Unlinks files that a commit removed, once nobody reads a snapshot from before it.
//!
//! In: how long ago the commit must have been made; out: files gone, after which the next commit of this keeper says so, and the
//! log forgets them. A reader that took its snapshot longer ago may meet a file that has vanished: `Snapshot::is_outdated` tells.
//! A file that is named again (with another index) stays. Folders that become empty stay.

use super::Keeper;
use crate::layout::COMMITS;
use anyhow::Context;
use flow::units::{Span, UnixNanos};
use std::collections::HashSet;
use std::io::ErrorKind;

/// What was unlinked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Parquet files and indexes.
    pub files: u64,
    /// Removed files that wait for their time.
    pub waiting: u64,
}

impl Keeper {
    /// Unlinks what was removed at least `grace` before `now`.
    pub fn sweep(&mut self, grace: Span, now: UnixNanos) -> anyhow::Result<Swept> {
        self.refresh()?;
        // A commit may be visible and still not durable (its writer was killed between link and fsync). Were it lost after the
        // files it removed are, their rows would be.
        let commits = self.root.join(COMMITS);
        if !self.log.gone.is_empty() {
            self.disk.sync_dir(&commits, "lake.sweep.commits").with_context(|| format!("cannot make {} durable", commits.display()))?;
        }
        let before = now.0.saturating_sub(grace.0);
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.log.gone).into_iter().partition(|gone| gone.at_ns <= before);
        let mut kept: HashSet<&str> = HashSet::new();
        for file in self.log.records() {
            kept.insert(&file.path);
            kept.extend(file.index.as_deref());
        }
        for gone in &waiting {
            kept.insert(&gone.path);
            kept.extend(gone.index.as_deref());
        }
        let mut swept = Swept { files: 0, waiting: waiting.len() as u64 };
        let mut failure = None;
        for path in due.iter().flat_map(|gone| [Some(gone.path.as_str()), gone.index.as_deref()]).flatten() {
            if kept.contains(path) {
                continue;
            }
            match self.disk.unlink(&self.root.join(path)) {
                Ok(()) => swept.files += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    failure = Some(anyhow::Error::from(error).context(format!("cannot remove {path}")));
                    break;
                }
            }
        }
        if let Some(error) = failure {
            self.log.gone = due.into_iter().chain(waiting).collect();
            return Err(error);
        }
        self.swept = waiting.iter().map(|gone| gone.number - 1).min().unwrap_or(self.log.number);
        self.log.gone = waiting;
        Ok(swept)
    }
}
