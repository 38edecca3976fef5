//! Merges small files of a cold partition into larger ones, which get an index where they are big enough.
//!
//! A partition is a tenant's day, or an hour of a day that has files by hour. It is cold when for `cold_after` no row of it is
//! new (by the newest row's time) and no small file of it was committed; so late data is merged once it stops coming. Its small
//! files, oldest first, are taken together up to `target_bytes` of raw bytes and `memory_bytes_max` of memory; each such group
//! becomes one file under one commit, which adds it and removes the old ones. A merge always leaves fewer files, so it ends.

use super::rewrite::{Loaded, held_bytes};
use super::{Change, Keeper, partition_of};
use crate::commit::{FileEntry, Reason, Removed};
use crate::store::{NewFiles, add_log_file};
use flow::units::{Span, UnixNanos};
use std::collections::BTreeMap;

/// When files are merged, and how far.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// A partition is left alone until nothing of it has been new for so long.
    pub cold_after: Span,
    /// A file with fewer raw bytes is small.
    pub file_bytes_min: u64,
    /// A merged file has at most so many raw bytes; sensibly twice `file_bytes_min` or more.
    pub target_bytes: u64,
    /// A partition with fewer small files is left alone; at least 2.
    pub files_min: usize,
    /// Rows held at once. The new file and its index come on top.
    pub memory_bytes_max: u64,
    /// Raw bytes after which no further merge is begun in this call.
    pub bytes_max: u64,
    /// A merged file with fewer raw bytes gets no index, as with the writer.
    pub index_bytes_min: u64,
}

/// What was merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Commits, and so new files.
    pub merges: u64,
    /// Files that are in the new ones.
    pub files: u64,
    pub rows: u64,
    pub raw_bytes: u64,
    /// Parquet and indexes, before and after.
    pub stored_before: u64,
    pub stored_after: u64,
    /// Merges given up because another program was faster.
    pub lost: u64,
    /// Files that cannot be read, each with the reason; they are left alone.
    pub failed: Vec<String>,
    /// More could be merged.
    pub more: bool,
}

/// What became of one merge.
enum Outcome {
    Merged(FileEntry),
    /// Another program removed a file first.
    Lost,
    /// A file cannot be read.
    Failed(String),
}

impl Keeper {
    /// Merges small files of cold partitions; at least one group if there is one, then until `bytes_max` is reached.
    pub fn compact(&mut self, options: &CompactOptions, now: UnixNanos) -> anyhow::Result<Compacted> {
        self.compact_with(options, now, &mut || {})
    }

    /// `between`: called whenever new files lie there and no commit names them yet.
    pub(super) fn compact_with(
        &mut self,
        options: &CompactOptions,
        now: UnixNanos,
        between: &mut dyn FnMut(),
    ) -> anyhow::Result<Compacted> {
        self.refresh()?;
        let mut done = Compacted::default();
        let mut tried_bytes = 0u64;
        for group in self.plan(options, now) {
            if tried_bytes > 0 && tried_bytes >= options.bytes_max {
                done.more = true;
                break;
            }
            tried_bytes += group.iter().map(|file| file.raw_bytes).sum::<u64>().max(1);
            match self.merge(&group, options, now, between)? {
                Outcome::Merged(entry) => {
                    done.merges += 1;
                    done.files += group.len() as u64;
                    done.rows += entry.rows;
                    done.raw_bytes += entry.raw_bytes;
                    done.stored_before += group.iter().map(|file| file.stored_bytes + file.index_bytes).sum::<u64>();
                    done.stored_after += entry.stored_bytes + entry.index_bytes;
                }
                Outcome::Lost => done.lost += 1,
                Outcome::Failed(what) => done.failed.push(what),
            }
        }
        Ok(done)
    }

    /// The groups to merge, in the order of their partitions.
    fn plan(&self, options: &CompactOptions, now: UnixNanos) -> Vec<Vec<FileEntry>> {
        let fields = self.log.fields.clone().unwrap_or_default();
        let mut partitions: BTreeMap<&str, Vec<&FileEntry>> = BTreeMap::new();
        for file in self.log.records() {
            partitions.entry(partition_of(&file.path)).or_default().push(file);
        }
        let cold_before = now.0.saturating_sub(options.cold_after.0);
        let mut groups = Vec::new();
        for files in partitions.into_values() {
            let is_small = |file: &FileEntry| file.raw_bytes < options.file_bytes_min && !self.failed.contains(&file.path);
            let mut small: Vec<&FileEntry> = files.iter().copied().filter(|file| is_small(file)).collect();
            let is_hot = files.iter().any(|file| file.max_time > cold_before) || small.iter().any(|file| file.committed_ns > cold_before);
            if is_hot || small.len() < options.files_min.max(2) {
                continue;
            }
            small.sort_by(|a, b| (a.min_time, &a.path).cmp(&(b.min_time, &b.path)));
            let (mut raw, mut held) = (0u64, 0u64);
            let mut group: Vec<FileEntry> = Vec::new();
            for file in small {
                let more = (raw.saturating_add(file.raw_bytes), held.saturating_add(held_bytes(file, &fields)));
                if more.0 > options.target_bytes || more.1 > options.memory_bytes_max {
                    groups.push(std::mem::take(&mut group));
                    (raw, held) = (file.raw_bytes, held_bytes(file, &fields));
                } else {
                    (raw, held) = more;
                }
                group.push(file.clone());
            }
            groups.push(group);
        }
        groups.retain(|group| group.len() > 1);
        groups
    }

    fn merge(
        &mut self,
        group: &[FileEntry],
        options: &CompactOptions,
        now: UnixNanos,
        between: &mut dyn FnMut(),
    ) -> anyhow::Result<Outcome> {
        let (disk, root) = (self.disk.clone(), self.root.clone());
        let mut loaded = Loaded::new(&group[0])?;
        for file in group {
            if let Err(error) = loaded.add(&disk, &root, file) {
                self.refresh()?;
                if !self.has_all(group.iter().map(|file| file.path.as_str())) {
                    return Ok(Outcome::Lost);
                }
                self.failed.insert(file.path.clone());
                return Ok(Outcome::Failed(format!("{error:#}")));
            }
        }
        let raw_bytes: u64 = group.iter().map(|file| file.raw_bytes).sum();
        let fields = self.log.fields.clone().unwrap_or_default();
        let made = loaded.write(&fields, raw_bytes >= options.index_bytes_min)?;
        let mut files = NewFiles::new(&disk, &root);
        let folder = partition_of(&group[0].path);
        let added = add_log_file(&mut files, folder, &loaded.tenant, &loaded.frames, &loaded.rows, &made);
        let entry = match added.and_then(|entry| files.sync_folders().map(|()| entry)) {
            Ok(entry) => entry,
            Err(error) => {
                files.discard(); // the disk may be full: give back what is of no use
                return Err(error);
            }
        };
        between();
        let removed = group.iter().map(|file| Removed { path: file.path.clone(), reason: Reason::Compacted }).collect();
        let change = Change { removed, added: vec![entry.clone()], dropped: Vec::new() };
        if !self.publish_files(files, change, now)? {
            return Ok(Outcome::Lost);
        }
        self.checked.extend(entry.index.clone());
        Ok(Outcome::Merged(entry))
    }
}
