//! One writer at a time: a lock on the archive's folder, and a file in it that says whose.
//!
//! In: the folder, and where the writer keeps its log. Out: the lock, held until dropped; or who holds it. Inside a data folder,
//! which has a lock of its own, the folder alone is locked and no file shows. Method: flock, which ends with the process; the
//! file goes when its holder ends well. A file system that locks no folders is told apart by the file alone.

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub const NAME: &str = ".weir.lock";

pub struct Lock {
    /// The lock file, where there is one.
    path: Option<PathBuf>,
    _files: Vec<File>,
}

impl Lock {
    pub fn take(dir: &Path, log_dir: &Path) -> anyhow::Result<Lock> {
        let folder = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
        if let Err(rustix::io::Errno::WOULDBLOCK) = flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            return refuse(dir, &folder);
        }
        if dir.starts_with(log_dir) {
            return Ok(Lock { path: None, _files: vec![folder] });
        }
        let path = dir.join(NAME);
        loop {
            if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                bail!("{} is no file; remove it: weir keeps its lock there", path.display());
            }
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return refuse(dir, &file),
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
            return Ok(Lock { path: Some(path), _files: vec![folder, file] });
        }
    }
}

fn refuse(dir: &Path, locked: &File) -> anyhow::Result<Lock> {
    let said = std::fs::read_to_string(dir.join(NAME)).unwrap_or_default();
    let process = holder(locked).map(|process| format!("process {process}"));
    // A file that a killed process left may name somebody else.
    let holder = match process {
        Some(process) if said.starts_with(&format!("{process} ")) => said.trim().to_string(),
        Some(process) => process,
        None if !said.trim().is_empty() => said.trim().to_string(),
        None => "another process".to_string(),
    };
    bail!(
        "the archive {} is being written by {holder}; two writers would destroy each other's files; stop that one, or give this sink another `dir`",
        dir.display()
    )
}

/// Who holds the lock on a file, as far as the kernel tells.
fn holder(file: &File) -> Option<u32> {
    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|line| line.contains(" FLOCK ") && line.split_whitespace().any(|word| word.ends_with(&inode)))?;
    line.split_whitespace().nth(4)?.parse().ok()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked; a leftover one locks nobody out.
        let _ = self.path.as_ref().map(std::fs::remove_file);
    }
}
