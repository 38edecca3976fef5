//! Rebuilds an index that is lost, damaged, of another program's shape, or was never built, from the file's rows.
//!
//! Every call looks whether each index is there and as long as its commit says; the first call that gets to it reads it whole and
//! checks every byte, later ones trust it. A rebuilt index is the one that the writer would have made. It is published by a
//! commit that takes the file's entry out and puts it in again with the new index, so nobody sees half of it; where the rows
//! would lie in another order today (the first indexed field is another one), the file is written anew as well.

use super::rewrite::{Loaded, held_bytes};
use super::{Change, Keeper, partition_of};
use crate::commit::{FileEntry, Reason, Removed};
use crate::index;
use crate::layout::LOGS;
use crate::store::{NewFiles, add_log_file};
use anyhow::Context;
use flow::units::UnixNanos;
use std::collections::HashSet;
use std::io::ErrorKind;

/// Which files get an index, and how much work may be done.
#[derive(Clone, Debug)]
pub struct ReindexOptions {
    /// A file with fewer raw bytes needs none, as with the writer.
    pub index_bytes_min: u64,
    /// Rows held at once: a file that needs more is left to scans.
    pub memory_bytes_max: u64,
    /// Raw bytes of files rebuilt and bytes of indexes checked, after which no further one is begun in this call.
    pub bytes_max: u64,
}

/// What was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reindexed {
    pub rebuilt: u64,
    /// Of these, the indexes that were not there.
    pub missing: u64,
    /// Of these, the indexes that were there and of no use.
    pub damaged: u64,
    /// Indexes that were read whole and are good.
    pub checked: u64,
    /// Raw bytes of the files whose index was rebuilt.
    pub raw_bytes: u64,
    /// Given up because another program was faster.
    pub lost: u64,
    /// Files that are too large for `memory_bytes_max`.
    pub too_large: u64,
    /// Files that cannot be read, each with the reason; they are left alone.
    pub failed: Vec<String>,
    /// More may have to be done.
    pub more: bool,
}

/// What is known of a file's index.
#[derive(PartialEq, Eq)]
enum State {
    Good,
    /// Read whole and found good just now.
    Checked,
    Missing,
    Damaged,
}

impl Keeper {
    /// Rebuilds indexes; at least one if there is one to rebuild, then until `bytes_max` is reached.
    pub fn reindex(&mut self, options: &ReindexOptions, now: UnixNanos) -> anyhow::Result<Reindexed> {
        self.refresh()?;
        let mut done = Reindexed::default();
        let files: Vec<FileEntry> = self.log.table(LOGS).to_vec();
        let live: HashSet<&str> = files.iter().filter_map(|file| file.index.as_deref()).collect();
        self.checked.retain(|path| live.contains(path.as_str()));
        let fields = self.log.fields.clone().unwrap_or_default();
        let (mut spent, mut built) = (0u64, false);
        for file in &files {
            let wanted = file.index.is_some() || file.raw_bytes >= options.index_bytes_min;
            if !wanted || self.failed.contains(&file.path) {
                continue;
            }
            let over = spent >= options.bytes_max;
            let state = self.look(file, over, &mut spent)?;
            match state {
                None => {
                    done.more = true; // not looked into yet, and nothing left to spend on it
                    continue;
                }
                Some(State::Good) => continue,
                Some(State::Checked) => {
                    done.checked += 1;
                    continue;
                }
                Some(State::Missing | State::Damaged) => {}
            }
            if held_bytes(file, &fields) > options.memory_bytes_max {
                done.too_large += 1;
                continue;
            }
            if over && built {
                done.more = true;
                continue;
            }
            built = true;
            spent = spent.saturating_add(file.raw_bytes);
            match self.rebuild(file, now) {
                Ok(true) => {
                    done.rebuilt += 1;
                    done.raw_bytes += file.raw_bytes;
                    *if state == Some(State::Missing) { &mut done.missing } else { &mut done.damaged } += 1;
                }
                Ok(false) => done.lost += 1,
                Err(Failure::Input(what)) => done.failed.push(what),
                Err(Failure::Disk(error)) => return Err(error),
            }
        }
        Ok(done)
    }

    /// `None`: it would have to be read whole, and `over` says not now.
    fn look(&mut self, file: &FileEntry, over: bool, spent: &mut u64) -> anyhow::Result<Option<State>> {
        let Some(index) = &file.index else { return Ok(Some(State::Missing)) };
        let path = self.root.join(index);
        let len = match self.disk.len(&path) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(State::Missing)),
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        };
        if file.index_bytes != 0 && file.index_bytes != len {
            return Ok(Some(State::Damaged));
        }
        if self.checked.contains(index) {
            return Ok(Some(State::Good));
        }
        if over {
            return Ok(None);
        }
        *spent = spent.saturating_add(len);
        if index::check(&self.disk, &path, file.rows).is_err() {
            return Ok(Some(State::Damaged)); // rebuilding needs no more than the Parquet file
        }
        self.checked.insert(index.clone());
        Ok(Some(State::Checked))
    }

    /// `false`: another program changed the file's entry first.
    fn rebuild(&mut self, file: &FileEntry, now: UnixNanos) -> Result<bool, Failure> {
        let (disk, root) = (self.disk.clone(), self.root.clone());
        let mut loaded = Loaded::new(file)?;
        if let Err(error) = loaded.add(&disk, &root, file) {
            self.refresh()?;
            if !self.has_entry(file) {
                return Ok(false);
            }
            self.failed.insert(file.path.clone());
            return Err(Failure::Input(format!("{error:#}")));
        }
        let made = loaded.write(&self.log.fields.clone().unwrap_or_default(), true)?;
        let mut files = NewFiles::new(&disk, &root);
        let folder = partition_of(&file.path);
        let written = if loaded.is_in_order() {
            let bytes = made.index.as_deref().unwrap_or_default();
            let index = files.add(folder, "idx", bytes, Some(&file.path));
            index.map(|index| FileEntry { index: Some(index), index_bytes: bytes.len() as u64, ..file.clone() })
        } else {
            add_log_file(&mut files, folder, &loaded.tenant, &loaded.frames, &loaded.rows, &made)
        };
        let entry = match written.and_then(|entry| files.sync_folders().map(|()| entry)) {
            Ok(entry) => entry,
            Err(error) => {
                files.discard(); // the disk may be full: give back what is of no use
                return Err(error.into());
            }
        };
        self.refresh()?;
        if !self.has_entry(file) {
            files.discard();
            return Ok(false);
        }
        let removed = vec![Removed { path: file.path.clone(), reason: Reason::Reindexed }];
        let index = entry.index.clone();
        let is_published = self.publish_files(files, Change { removed, added: vec![entry], dropped: Vec::new() }, now)?;
        if is_published {
            self.checked.extend(index);
        }
        Ok(is_published)
    }

    /// Whether a file is still named, and with the same index.
    fn has_entry(&self, file: &FileEntry) -> bool {
        self.log.table(LOGS).iter().any(|now| now.path == file.path && now.index == file.index)
    }
}

enum Failure {
    /// The file's rows cannot be had.
    Input(String),
    Disk(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Disk(error)
    }
}
