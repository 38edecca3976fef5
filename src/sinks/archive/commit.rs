//! Files to disk: what is buffered is announced, written, synced and renamed, and one line of the log confirms it all.
//!
//! In: buffers and sealed files. Out: files, and `archive.log`. After an error nothing is committed and nothing lost: call
//! again. Bounds: descriptors at most `open_files_max`, then the one unused longest is closed; spare buffers at most
//! [`SPARE_BYTES_MAX`].

use super::log::{Entry, Line, Moved};
use super::template::last_component;
use super::{
    Archive, BACK_OFF_MAX, Compress, FLUSH_BYTES, SITE_FILE, SITE_FOLDER, SITE_NAMES, SITE_ROTATE_FOLDER, SITE_ROTATE_RENAME, log, rotate,
    rotate_limit,
};
use anyhow::Context;
use flow::units::NANOS_PER_SECOND;
use hub::disk::{Disk, File};
use std::io;
use std::path::Path;

const SITE_UNTEAR: &str = "archive untear";
/// A buffer larger than this is lent to the next file that needs one, once it is written.
const BUFFER_KEEP_BYTES: usize = 2 * FLUSH_BYTES;
/// Buffers waiting to be lent: at most this many bytes in all; beyond, and after a huge row, they are given back.
const SPARE_BYTES_MAX: usize = 4 << 20;

impl Archive {
    /// Writes the buffers that are large, all of them past the bound; rotates.
    pub(super) fn write_out(&mut self) -> anyhow::Result<()> {
        if self.has_sealed {
            // Files behind a sealed one can only be written after its rename, which a commit line must confirm.
            return self.commit();
        }
        if self.buffered > self.settings.buffer_bytes_max {
            for path in &self.dirty {
                if !self.paths[*path as usize].is_ripe {
                    self.paths[*path as usize].is_ripe = true;
                    self.ripe.push(*path);
                }
            }
        }
        if self.ripe.is_empty() {
            return Ok(());
        }
        self.announce()?;
        while let Some(path) = self.ripe.last().copied() {
            self.flush(path)?;
            self.paths[path as usize].is_ripe = false;
            self.ripe.pop();
        }
        Ok(())
    }

    /// Makes everything taken so far durable, with its positions, in one atomic step. After an error nothing is
    /// committed and nothing lost: call again.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        self.log.check()?;
        let is_idle = self.dirty.is_empty() && self.moved_streams.is_empty() && self.ended_streams.is_empty() && self.gone.is_empty();
        if !is_idle {
            self.commit_data()?;
        }
        self.pack_backups(false);
        Ok(())
    }

    fn commit_data(&mut self) -> anyhow::Result<()> {
        self.announce()?;
        for i in 0..self.dirty.len() {
            self.settle(self.dirty[i])?;
        }
        for folder in &self.folders {
            let synced = self.disk.sync_dir(folder, SITE_NAMES);
            if synced.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                continue; // somebody removed it with what was in it; the next tick says so
            }
            if let Err(error) = synced {
                self.log.fail(format!("cannot sync folder {}: {error}", folder.display()));
                return self.log.check();
            }
        }
        self.folders.clear();
        let line = self.commit_line();
        self.log.append(std::slice::from_ref(&line))?;
        self.log.sync(log::SITE_COMMIT)?;
        self.state.apply(line);
        self.finish_commit();
        Ok(())
    }

    fn commit_line(&self) -> Line {
        let mut files: Vec<Entry> = self
            .dirty
            .iter()
            .map(|path| &self.paths[*path as usize])
            .flat_map(|path| path.files.iter().map(move |file| (path, file)))
            .map(|(path, file)| Entry {
                generation: file.generation,
                name: path.name.clone(),
                len: file.on_disk,
                newest_ns: file.newest_ns,
                begun_ns: file.begun_ns,
            })
            .collect();
        files.sort_by_key(|f| f.generation);
        Line::Commit {
            files,
            moved: self.moved.clone(),
            gone: self.gone.clone(),
            positions: self.moved_streams.iter().map(|s| (log::stream_text(s.0), self.taken.get(s).copied().unwrap_or(0))).collect(),
            ended: self.ended_streams.iter().map(|s| log::stream_text(s.0)).collect(),
            clock_ns: self.clock_ns,
            inner_newlines: self.inner_newlines,
        }
    }

    /// What follows once the line is durable: forget what was pending, compact the log, tend to backups.
    fn finish_commit(&mut self) {
        for path in std::mem::take(&mut self.dirty) {
            self.paths[path as usize].is_dirty = false;
            self.paths[path as usize].is_ripe = false;
        }
        self.ripe.clear();
        self.gone.clear();
        self.gone_announced = 0;
        self.moved_streams.clear();
        self.ended_streams.clear();
        self.has_sealed = false;
        let mut touched = std::mem::take(&mut self.untended);
        for moved in std::mem::take(&mut self.moved) {
            self.stats.rotations += 1;
            self.note_backup(&moved.backup);
            if let Some(path) = self.by_name.get(&moved.name) {
                touched.insert(*path);
            }
        }
        for path in touched {
            self.rotated.insert(path);
            self.retain(path);
        }
        if self.log.is_long() {
            // A log that is too long is no reason to stop; if the disk's state became unknown, the next call says so.
            let _ = self.log.snapshot(&self.state);
        }
    }

    /// Says in the log what is about to be created and renamed, durably, before it is done.
    fn announce(&mut self) -> anyhow::Result<()> {
        let lost = self.gone[self.gone_announced..].iter();
        let mut lines: Vec<Line> = lost.map(|generation| Line::Lost { generation: *generation }).collect();
        for i in 0..self.dirty.len() {
            let path = self.dirty[i];
            self.choose_backups(path)?;
            let active = &self.paths[path as usize];
            for file in &active.files {
                if !file.is_announced {
                    lines.push(Line::Open { generation: file.generation, name: active.name.clone(), base: file.base });
                }
                if let (Some(backup), false) = (&file.backup, file.is_rotate_announced) {
                    lines.push(Line::Rotate { generation: file.generation, backup: backup.clone() });
                }
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.log.append(&lines)?;
        self.log.sync(log::SITE_ANNOUNCE)?;
        self.gone_announced = self.gone.len();
        for path in &self.dirty {
            for file in &mut self.paths[*path as usize].files {
                file.is_announced = true;
                file.is_rotate_announced = file.backup.is_some();
            }
        }
        Ok(())
    }

    /// Gives each sealed file of a path the name it will have: its newest event time, never one that exists.
    fn choose_backups(&mut self, path: u32) -> anyhow::Result<()> {
        let active = &self.paths[path as usize];
        if !active.files.iter().any(|f| f.is_sealed && f.backup.is_none()) {
            return Ok(());
        }
        let zone = &self.settings.names;
        let full = self.settings.dir.join(&active.name);
        let (folder, base) = (full.parent().unwrap_or(Path::new("")), last_component(&active.name));
        let names = self.disk.list(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let mut stamps: Vec<rotate::Stamp> = names.iter().filter_map(|name| rotate::parse_backup(base, name.to_str()?, zone)).collect();
        let prefix = &active.name[..active.name.len() - base.len()];
        stamps.extend(active.files.iter().filter_map(|f| rotate::parse_backup(base, last_component(f.backup.as_deref()?), zone)));
        let mut names = Vec::new();
        for (i, file) in active.files.iter().enumerate() {
            if !file.is_sealed || file.backup.is_some() {
                continue;
            }
            // A file with no row of ours gets the time of the first row that follows it.
            let newest = active.files[i..].iter().map(|f| f.newest_ns).find(|ns| *ns != i64::MIN).unwrap_or(0).max(0);
            let stamp = rotate::choose_stamp(newest.div_euclid(1_000_000), &stamps, zone);
            stamps.push(stamp);
            names.push((i, format!("{prefix}{}", rotate::backup_name(base, stamp, zone))));
        }
        for (i, name) in names {
            self.paths[path as usize].files[i].backup = Some(name);
        }
        Ok(())
    }

    /// Writes, syncs and renames the files of one path in turn until only the active one is left, synced.
    fn settle(&mut self, path: u32) -> anyhow::Result<()> {
        loop {
            self.flush(path)?;
            self.sync_file(path)?;
            if self.rescue(path)? {
                continue;
            }
            let active = &self.paths[path as usize];
            let head = &active.files[0];
            let Some(backup) = head.backup.clone().filter(|_| head.is_sealed) else { return Ok(()) };
            let (from, to) = (self.settings.dir.join(&active.name), self.settings.dir.join(&backup));
            if matches!(self.disk, Disk::Real) {
                self.paths[path as usize].like = std::fs::metadata(&from).ok();
            }
            if self.disk.rename(&from, &to, SITE_ROTATE_RENAME).is_err() && !self.disk.exists(&to)? {
                self.unseal(path);
                continue;
            }
            self.close_handle(path);
            let folder = to.parent().unwrap_or(Path::new("")).to_path_buf();
            let synced = self.disk.sync_dir(&folder, SITE_ROTATE_FOLDER);
            let active = &mut self.paths[path as usize];
            let file = active.files.remove(0);
            active.back_off = 1;
            active.rotate_at = rotate_limit(&self.settings);
            let (name, pack) = (active.name.clone(), self.settings.compress != Compress::None);
            self.moved.push(Moved { generation: file.generation, name, backup, len: file.on_disk, pack });
            if let Err(error) = synced {
                self.log.fail(format!("cannot sync folder {}: {error}", folder.display()));
                return self.log.check();
            }
        }
    }

    /// The rename failed: the file goes on growing, and is tried again later.
    fn unseal(&mut self, path: u32) {
        self.stats.rotate_failures += 1;
        let step = rotate_limit(&self.settings).div_ceil(16).max(1);
        let active = &mut self.paths[path as usize];
        let rest = active.files.split_off(1);
        let head = &mut active.files[0];
        head.is_sealed = false;
        head.backup = None;
        head.is_rotate_announced = false;
        for file in rest {
            head.buffer.extend_from_slice(&file.buffer);
            head.newest_ns = head.newest_ns.max(file.newest_ns);
        }
        if head.due_ns != i64::MAX {
            head.due_ns = self.now_ns.saturating_add(NANOS_PER_SECOND.saturating_mul(i64::from(active.back_off)));
        }
        active.rotate_at = head.size().saturating_add(step.saturating_mul(u64::from(active.back_off)));
        active.back_off = (active.back_off * 2).min(BACK_OFF_MAX);
    }

    /// Appends what a path's first file has buffered. After an error the buffer is as it was.
    fn flush(&mut self, path: u32) -> anyhow::Result<()> {
        if self.paths[path as usize].files[0].buffer.is_empty() && self.paths[path as usize].files[0].exists {
            return Ok(());
        }
        if self.paths[path as usize].handle.is_none() {
            self.open_handle(path)?;
        }
        self.stamp += 1;
        let keeps_buffers = self.paths.len().saturating_mul(FLUSH_BYTES) <= self.settings.buffer_bytes_max;
        let active = &mut self.paths[path as usize];
        active.used = self.stamp;
        let file = &mut active.files[0];
        let handle = active.handle.as_mut().expect("it was opened above");
        if let Err(error) = handle.append(&file.buffer) {
            file.is_torn = true;
            let name = self.settings.dir.join(&active.name);
            self.close_handle(path);
            return Err(error).with_context(|| format!("cannot append to {}", name.display()));
        }
        file.on_disk += file.buffer.len() as u64;
        file.is_synced = false;
        self.buffered -= file.buffer.len();
        file.buffer.clear();
        if !keeps_buffers || file.buffer.capacity() > BUFFER_KEEP_BYTES {
            let buffer = std::mem::take(&mut file.buffer);
            if self.spare_bytes + buffer.capacity() <= SPARE_BYTES_MAX {
                self.spare_bytes += buffer.capacity();
                self.spare.push(buffer);
            }
        }
        Ok(())
    }

    fn open_handle(&mut self, path: u32) -> anyhow::Result<()> {
        while self.open.len() >= self.settings.open_files_max.max(1) {
            let oldest = self.open.iter().copied().min_by_key(|p| self.paths[*p as usize].used).expect("the list is not empty");
            self.sync_file(oldest)?; // afterwards nobody could find it, were it renamed from outside
            self.close_handle(oldest);
        }
        let full = self.settings.dir.join(&self.paths[path as usize].name);
        self.refuse_way_out(&full)?;
        if self.paths[path as usize].files[0].exists {
            let found = self.len_of(&full)?;
            let file = &self.paths[path as usize].files[0];
            // Bytes after a failed append are ours, to be cut; any other length is somebody else's work.
            if !found.is_some_and(|len| len == file.on_disk || (file.is_torn && len > file.on_disk)) {
                self.replace_lost(path, found)?;
            }
            if found.is_some() {
                return self.reopen_file(path, &full).with_context(|| format!("cannot open {}", full.display()));
            }
        }
        let folder = full.parent().unwrap_or(Path::new("")).to_path_buf();
        self.disk.create_dir_all(&folder, SITE_FOLDER).with_context(|| format!("cannot create {}", folder.display()))?;
        let created = match self.disk.create_new(&full) {
            // A creation that failed half-way, or somebody else's in this instant: nothing of it is ours to keep,
            // and the announcement covers it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.disk.create_or_truncate(&full),
            other => other,
        };
        let handle = created.with_context(|| format!("cannot create {}", full.display()))?;
        // The folders above too: a process that was killed may have created them without syncing their parents.
        let inside = folder.ancestors().take_while(|f| f.starts_with(&self.settings.dir));
        self.folders.extend(inside.map(Path::to_path_buf));
        let active = &mut self.paths[path as usize];
        if let Some(like) = active.like.take() {
            dress(&handle, &like);
        }
        active.files[0].exists = true;
        active.files[0].is_torn = false;
        active.files[0].is_synced = false;
        active.handle = Some(handle);
        self.open.push(path);
        Ok(())
    }

    fn reopen_file(&mut self, path: u32, full: &Path) -> io::Result<()> {
        let file = &mut self.paths[path as usize].files[0];
        if file.is_torn {
            self.disk.truncate(full, file.on_disk, SITE_UNTEAR)?;
            file.is_torn = false;
        }
        let handle = self.disk.open_append(full)?;
        self.paths[path as usize].handle = Some(handle);
        self.open.push(path);
        Ok(())
    }

    /// Somebody removed, renamed or replaced the file: what follows goes into a new one, or behind theirs.
    pub(super) fn replace_lost(&mut self, path: u32, base: Option<u64>) -> anyhow::Result<()> {
        self.stats.changed_outside += 1;
        let fresh = self.new_file().generation;
        let file = &mut self.paths[path as usize].files[0];
        self.gone.push(file.generation);
        file.generation = fresh;
        file.base = base;
        file.on_disk = base.unwrap_or(0);
        file.exists = base.is_some();
        file.is_synced = true;
        file.is_torn = false;
        file.is_announced = false;
        file.is_rotate_announced = false;
        self.announce()
    }

    fn sync_file(&mut self, path: u32) -> anyhow::Result<()> {
        let active = &mut self.paths[path as usize];
        let Some(file) = active.files.first_mut() else { return Ok(()) };
        if file.is_synced {
            return Ok(());
        }
        let Some(handle) = &mut active.handle else {
            // Closed after a failed append; what was written before must still be synced.
            let full = self.settings.dir.join(&active.name);
            self.reopen_file(path, &full).with_context(|| format!("cannot open {}", full.display()))?;
            return self.sync_file(path);
        };
        match handle.sync(SITE_FILE) {
            Ok(()) => {
                file.is_synced = true;
                Ok(())
            }
            Err(error) => {
                let full = self.settings.dir.join(&active.name);
                self.log.fail(format!("cannot sync {}: {error}", full.display()));
                self.log.check()
            }
        }
    }

    pub(super) fn close_handle(&mut self, path: u32) {
        if self.paths[path as usize].handle.take().is_some() {
            self.open.retain(|p| *p != path);
        }
    }
}

/// Gives a new file the mode and owner of the one before it, as far as we may.
pub(super) fn dress(handle: &File, like: &std::fs::Metadata) {
    use std::os::unix::fs::MetadataExt;
    if let File::Real(file) = handle {
        // The rows matter more than their mode: a refusal (another owner, an odd file system) changes nothing.
        let _ = file.set_permissions(like.permissions());
        let _ = std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()));
    }
}
