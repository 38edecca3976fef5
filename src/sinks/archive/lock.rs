//! One writer at a time: a lock file in the archive's folder.
//!
//! In: the folder, and where the writer keeps its log. Out: the lock, held until dropped; or who holds it. The data folder has
//! a lock of its own, so this one is taken only where the files lie elsewhere. It names its holder's process and data folder.
//! Method: flock, which ends with the process; the file goes when its holder ends well.

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub const NAME: &str = ".weir.lock";

pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    pub fn take(dir: &Path, log_dir: &Path) -> anyhow::Result<Lock> {
        let path = dir.join(NAME);
        loop {
            if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                bail!("{} is no file; remove it: weir keeps its lock there", path.display());
            }
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
                    bail!(
                        "the archive {} is being written by {holder}; two writers would destroy each other's files; stop that one, or give this sink another `dir`",
                        dir.display()
                    );
                }
                Err(error) => bail!("cannot lock {}: {error}", path.display()),
            }
            // Whoever held it before may have removed it between our open and our lock.
            match std::fs::metadata(&path) {
                Ok(named) if named.ino() == file.metadata()?.ino() => {}
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("cannot look at the lock"),
                _ => continue,
            }
            file.set_len(0)?;
            writeln!(file, "process {} with its log in {}", std::process::id(), log_dir.display())?;
            return Ok(Lock { path, _file: file });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // while it is locked; a leftover one locks nobody out
    }
}
