//! The world outside: files that others renamed, removed or shortened.
//!
//! In: what stands on disk under our names. Out: files to be begun anew. What was committed to a file that is gone is gone with
//! it: it is counted as changed outside, said by name, and a line of the log says so. What was not committed yet is taken back
//! out of the removed file, which is still open, and goes into the next one. Memory: what one commit holds, for a moment.

use super::{ActiveFile, Archive};
use anyhow::Context;
use flow::units::UnixNanos;
use hub::disk::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use tracing::warn;

impl Archive {
    /// SIGHUP: commits, closes every file and opens it by name again at the next row. Files that were renamed or
    /// removed from outside are created anew. Where so configured, every file is rotated.
    pub fn reopen(&mut self) -> anyhow::Result<()> {
        self.commit()?;
        self.follow_outside()?;
        if self.settings.rotate_on_hangup {
            self.rotate_where(|_| true)?;
        }
        for path in std::mem::take(&mut self.open) {
            self.paths[path as usize].handle = None;
        }
        Ok(())
    }

    /// To be called twice a second: notices files that were renamed or removed from outside, and rotates what is due where
    /// no rows come. `now`: the clock, where files are rotated by it; `None` with `--once`, where only records tell the time.
    pub fn tick(&mut self, now: Option<UnixNanos>) -> anyhow::Result<()> {
        let lost = self.open.iter().any(|path| self.is_lost(*path));
        if lost {
            self.commit()?; // into the file we hold, wherever it is now
            self.follow_outside()?;
        }
        if std::mem::take(&mut self.is_short) {
            self.known_backups = None; // somebody else may have made room
        }
        let was_busy = std::mem::take(&mut self.is_busy);
        // A sink that lags gets rows of yesterday: their files are due when rows say so.
        if let (Some(now), false) = (now, was_busy) {
            self.now_ns = self.now_ns.max(now.0);
            let now_ns = self.now_ns;
            if self.paths.iter().any(|path| path.files.last().is_some_and(|file| file.size() > 0 && now_ns >= file.due_ns)) {
                self.rotate_where(|file| now_ns >= file.due_ns)?;
            }
        }
        Ok(())
    }

    /// Takes what is not committed out of a file that was removed from outside, and begins it anew under its name. Whether
    /// there was such a file.
    pub(super) fn rescue(&mut self, path: u32) -> anyhow::Result<bool> {
        let active = &self.paths[path as usize];
        let (Some(File::Real(held)), Some(file)) = (&active.handle, active.files.first()) else { return Ok(false) };
        if !is_unlinked(held) {
            return Ok(false);
        }
        let committed = self.state.files.get(&file.generation).map_or(file.base.unwrap_or(0), |entry| entry.len);
        let full = self.settings.dir.join(&active.name);
        let rest = read_held(held, committed).with_context(|| format!("cannot read {}, which was removed", full.display()))?;
        warn!(file = %full.display(), committed_bytes = committed, "removed from outside with what was committed; begun anew");
        let found = self.len_of(&full)?;
        self.close_handle(path);
        self.buffered += rest.len();
        let file = &mut self.paths[path as usize].files[0];
        file.buffer.splice(0..0, rest);
        self.replace_lost(path, found)?;
        Ok(true)
    }

    fn is_lost(&self, path: u32) -> bool {
        let active = &self.paths[path as usize];
        let full = self.settings.dir.join(&active.name);
        match (&active.handle, active.files.first()) {
            (Some(File::Real(held)), Some(file)) => !is_same_file(held, file, &full),
            (_, Some(file)) if file.exists => !self.disk.exists(&full).unwrap_or(true),
            _ => false,
        }
    }

    /// Lets go of every file that is no longer under its name. Nothing is buffered when this is called.
    fn follow_outside(&mut self) -> anyhow::Result<()> {
        for path in 0..self.paths.len() as u32 {
            if !self.paths[path as usize].files.is_empty() && self.is_lost(path) {
                self.close_handle(path);
                let lost = std::mem::take(&mut self.paths[path as usize].files);
                self.gone.extend(lost.iter().map(|f| f.generation));
                self.stats.changed_outside += 1;
                let full = self.settings.dir.join(&self.paths[path as usize].name);
                let committed_bytes = lost.first().map_or(0, |file| file.on_disk);
                warn!(file = %full.display(), committed_bytes, "renamed, removed or cut from outside; begun anew");
                self.adopt(path)?;
                if !self.paths[path as usize].is_dirty {
                    self.paths[path as usize].is_dirty = true;
                    self.dirty.push(path);
                }
            }
        }
        if self.gone.is_empty() { Ok(()) } else { self.commit() }
    }
}

fn is_same_file(held: &std::fs::File, file: &ActiveFile, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (held.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.dev() == named.dev() && held.ino() == named.ino() && named.len() == file.on_disk,
        (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => false,
        _ => true, // cannot tell: keep what we have
    }
}

fn is_unlinked(held: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    held.metadata().is_ok_and(|held| held.nlink() == 0)
}

/// The bytes of an open file from `offset` on; it was opened to append only.
fn read_held(held: &std::fs::File, offset: u64) -> io::Result<Vec<u8>> {
    use std::os::fd::AsRawFd;
    let mut file = std::fs::File::open(format!("/proc/self/fd/{}", held.as_raw_fd()))?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
