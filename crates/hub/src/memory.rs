//! The memory hub: frames are in memory only, and what every sink has is noted in one small file now and then.
//!
//! For sources that can be read again. After a crash lanes start at the positions of the slowest sink's last checkpoint;
//! faster sinks skip what they have; the state of steps starts empty. Frames wait in memory until every sink has them:
//! `bytes_max` bounds them, and `accept` waits. The file is `memory.ckpt`, checksummed and replaced as a whole; the one
//! before it stays as `memory.ckpt.old`, for the day the newer one is damaged. Where both are, the stores know how far they
//! are, and totals begin anew; damaged files are put aside.

use crate::account::Account;
use crate::disk::Disk;
use crate::hub::{Hub, OpenError};
use crate::queue::Queue;
use crate::recover::ending;
use crate::segment::{self, Kind, Read};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub(crate) struct Memory {
    pub disk: Disk,
    dir: PathBuf,
    saved: Mutex<Saved>,
}

struct Saved {
    /// The frame of the last checkpoint of this run.
    seq: Option<u64>,
    /// Whether `memory.ckpt` is whole, so that it may become the old one.
    good: bool,
}

pub(crate) struct Opened {
    pub memory: Memory,
    pub queue: Queue,
    pub positions_lost: bool,
    pub notices: Vec<String>,
}

const NAME: &str = "memory.ckpt";
const OLD: &str = "memory.ckpt.old";
const NEW: &str = "memory.ckpt.new";

impl Memory {
    pub fn open(disk: Disk, dir: &Path, tenants_max: usize) -> Result<Opened, OpenError> {
        disk.create_dir_all(dir, "hub.folder").map_err(|e| OpenError::io(dir, e))?;
        let mut notices = Vec::new();
        let (path, old_path) = (dir.join(NAME), dir.join(OLD));
        let io = |e: io::Error| OpenError::io(dir, e);
        let current = read(&disk, &path, tenants_max).map_err(io)?;
        let old = read(&disk, &old_path, tenants_max).map_err(io)?;
        for (path, generation) in [(&path, &current), (&old_path, &old)] {
            if let Generation::Damaged(what) = generation {
                let aside = segment::put_aside(&disk, dir, path, ending(what)).map_err(io)?;
                disk.unlink(path).map_err(io)?;
                notices.push(format!("{}: {what}; it is kept as {}", path.display(), aside.display()));
            }
        }
        let good = matches!(current, Generation::Good(_));
        let (account, positions_lost) = match (current, old) {
            (Generation::Good(account), _) => (Some(account), false),
            (Generation::Absent, Generation::Absent) => (None, false),
            (Generation::Absent, Generation::Good(account)) => (Some(account), false), // a crash between two renames
            (Generation::Damaged(_), Generation::Good(account)) => {
                notices.push(format!("{}: the checkpoint before it is used, so some bytes are read again", path.display()));
                (Some(account), false)
            }
            (_, _) => {
                notices.push(format!("{}: no whole checkpoint is left: sources go on where the stores stand", path.display()));
                (None, true)
            }
        };
        // The first checkpoint is always written: what was found may be in the page cache only.
        let saved = Saved { seq: None, good };
        let queue = Queue::new(account.map_or_else(|| Account::new(tenants_max), |account| *account), None, VecDeque::new());
        Ok(Opened { memory: Memory { disk, dir: dir.to_owned(), saved: Mutex::new(saved) }, queue, positions_lost, notices })
    }

    /// Writes what the slowest sink has, if that is news.
    pub fn checkpoint(&self, hub: &Hub) -> io::Result<()> {
        let mut saved = self.saved.lock().expect("no holder of this lock panics");
        let (bytes, seq) = {
            let queue = hub.lock();
            let settled = queue.settled.as_ref().expect("the memory hub settles");
            if saved.seq == Some(settled.seq) {
                return Ok(());
            }
            (segment::checkpoint(settled), settled.seq)
        };
        let (new, current, old) = (self.dir.join(NEW), self.dir.join(NAME), self.dir.join(OLD));
        let mut file = self.disk.create_or_truncate(&new)?;
        file.append(&bytes)?;
        file.sync("memory.data")?;
        if saved.good {
            self.disk.rename(&current, &old, "memory.keep")?;
            saved.good = false; // until the next line has run there is only the old one
        }
        self.disk.rename(&new, &current, "memory.publish")?;
        saved.good = true;
        self.disk.sync_dir(&self.dir, "memory.names")?;
        saved.seq = Some(seq);
        Ok(())
    }
}

enum Generation {
    Absent,
    Good(Box<Account>),
    Damaged(String),
}

fn read(disk: &Disk, path: &Path, tenants_max: usize) -> io::Result<Generation> {
    let record = match segment::read(disk, path, 0) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Generation::Absent),
        Err(e) => return Err(e),
        Ok(Read::Record(record)) if record.kind == Kind::Checkpoint => record,
        Ok(Read::Record(_)) => return Ok(Generation::Damaged("it is no checkpoint".into())),
        Ok(Read::End) => return Ok(Generation::Damaged("it is empty".into())),
        Ok(Read::Torn(what)) => return Ok(Generation::Damaged(what.into())),
    };
    match Account::decode(&record.payload, tenants_max) {
        Ok(account) => Ok(Generation::Good(Box::new(account))),
        Err(e) => Ok(Generation::Damaged(e.to_string())),
    }
}
