//! The world outside: files that others renamed, removed or shortened.
//!
//! In: what stands on disk under our names. Out: files to be begun anew. What was written to a file that is gone is gone
//! with it: it is counted as changed outside, and a line of the log says so. No memory.

use super::{ActiveFile, Archive};
use hub::disk::File;
use std::io;
use std::path::Path;

impl Archive {
    /// SIGHUP: commits, closes every file and opens it by name again at the next row. Files that were renamed or
    /// removed from outside are created anew.
    pub fn reopen(&mut self) -> anyhow::Result<()> {
        self.commit()?;
        self.follow_outside()?;
        for path in std::mem::take(&mut self.open) {
            self.paths[path as usize].handle = None;
        }
        Ok(())
    }

    /// To be called about once a second: notices files that were renamed or removed from outside.
    pub fn tick(&mut self) -> anyhow::Result<()> {
        let lost = self.open.iter().any(|path| self.is_lost(*path));
        if lost {
            self.commit()?; // into the file we hold, wherever it is now
            self.follow_outside()?;
        }
        Ok(())
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
