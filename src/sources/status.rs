//! What a source does with its files right now: shared by the finder, the lanes and the admin port.
//!
//! Finder and lanes write, `/api/sources`, `/metrics` and health read. Nothing here decides anything but which
//! streams are open. Memory: about 300 bytes and two paths for each open file; refused paths are listed up to
//! [`REFUSED_MAX`], beyond that only counted.

use super::rotated::Age;
use super::streams::Head;
use flow::event::{Position, StreamId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Refused paths that are remembered by name.
pub const REFUSED_MAX: usize = 1000;

/// Device and inode.
pub type FileId = (u64, u64);

/// What is done with an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It was found, and its turn has not come yet.
    Queued = 0,
    Reading = 1,
    /// Read to its end: there is nothing to do until it grows.
    Idle = 2,
    /// Renamed or deleted: read to its end, then let go.
    Rotated = 3,
    /// Nobody knows yet whose log it is.
    AwaitsMetadata = 4,
    /// It cannot be read right now; it is tried again.
    Failing = 5,
    /// A quota is used up: it is not read on until that has filled again.
    Delayed = 6,
}

impl State {
    pub const ALL: [State; 7] =
        [State::Queued, State::Reading, State::Idle, State::Rotated, State::AwaitsMetadata, State::Failing, State::Delayed];

    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Reading => "reading",
            State::Idle => "idle",
            State::Rotated => "rotated",
            State::AwaitsMetadata => "awaits_metadata",
            State::Failing => "failing",
            State::Delayed => "delayed",
        }
    }
}

/// One open file.
pub struct FileStatus {
    pub log: PathBuf,
    pub stream: StreamId,
    pub head: Head,
    /// Where it was seen last: renames are followed.
    path: Mutex<PathBuf>,
    position: Mutex<Position>,
    pub size: AtomicU64,
    pub lane: AtomicU32,
    state: AtomicU8,
    /// Since when it is [`State::Failing`], in ms since the epoch; 0: it is not.
    pub failing_since_ms: AtomicU64,
    /// A copy of it that tells its age, where its own name does not: it was renamed, compressed and removed between two looks.
    copy: Mutex<Option<PathBuf>>,
}

impl FileStatus {
    pub fn new(log: &Path, path: &Path, stream: StreamId, head: Head, position: Position, size: u64) -> FileStatus {
        FileStatus {
            log: log.to_path_buf(),
            stream,
            head,
            path: Mutex::new(path.to_path_buf()),
            position: Mutex::new(position),
            size: AtomicU64::new(size),
            lane: AtomicU32::new(0),
            state: AtomicU8::new(State::Queued as u8),
            failing_since_ms: AtomicU64::new(0),
            copy: Mutex::default(),
        }
    }

    pub fn path(&self) -> PathBuf {
        lock(&self.path).clone()
    }

    /// Where it stands in its log now: names say it, and a file that nobody had seen before may be older than those in hand.
    pub fn age(&self) -> Age {
        match (Age::of(&lock(&self.path), &self.log), lock(&self.copy).as_ref()) {
            (Age::Live, Some(copy)) => Age::of(copy, &self.log),
            (age, _) => age,
        }
    }

    pub fn set_path(&self, path: &Path) {
        *lock(&self.path) = path.to_path_buf();
    }

    pub fn set_copy(&self, path: &Path) {
        *lock(&self.copy) = Some(path.to_path_buf());
    }

    pub fn position(&self) -> Position {
        *lock(&self.position)
    }

    pub fn set_position(&self, position: Position) {
        *lock(&self.position) = position;
    }

    pub fn state(&self) -> State {
        let code = self.state.load(Ordering::Relaxed);
        State::ALL.into_iter().find(|s| *s as u8 == code).expect("only states are stored")
    }

    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Bytes that are there and not read: none for a file whose turn brought nothing.
    pub fn behind_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed).saturating_sub(self.position().done)
    }
}

/// Why a path that matches is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Directory,
    Fifo,
    Device,
    Socket,
    PermissionDenied,
    IoError,
    /// A compressed file that cannot be decompressed.
    Damaged,
    /// Compressed in a way that is not read: bzip2, xz.
    Compression,
    SymlinkLoop,
    FilesMax,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Directory => "directory",
            Refusal::Fifo => "fifo",
            Refusal::Device => "device",
            Refusal::Socket => "socket",
            Refusal::PermissionDenied => "permission_denied",
            Refusal::IoError => "io_error",
            Refusal::Damaged => "damaged",
            Refusal::Compression => "compression",
            Refusal::SymlinkLoop => "symlink_loop",
            Refusal::FilesMax => "files_max",
        }
    }

    pub fn of(error: &std::io::Error) -> Refusal {
        match rustix::io::Errno::from_io_error(error) {
            Some(rustix::io::Errno::LOOP) => Refusal::SymlinkLoop,
            Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Refusal::PermissionDenied,
            _ => Refusal::IoError,
        }
    }
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub truncations: u64,
    pub rotations: u64,
    /// Copies of files that were read elsewhere (copytruncate, compression).
    pub copies: u64,
    /// Rotated files that were let go before their end, as the operator's limit says.
    pub abandoned_files: u64,
    pub abandoned_bytes: u64,
}

/// What the finder and the lanes both know of a source's files.
#[derive(Default)]
pub struct Known {
    /// Files that some lane holds open.
    pub open: HashMap<FileId, Arc<FileStatus>>,
    /// How far streams were read that no lane holds open: by the last run, or before they were closed.
    pub positions: HashMap<StreamId, Position>,
    /// Streams whose bytes no file holds any more: it was truncated.
    pub displaced: HashSet<StreamId>,
    /// Compressed files that cannot be read on, with size and time of change once the finder has seen them: not read again
    /// until they change.
    pub damaged: HashMap<FileId, Option<(u64, i64)>>,
    pub refused: BTreeMap<PathBuf, Refusal>,
    /// Refused by reason, those beyond [`REFUSED_MAX`] included.
    pub refused_counts: BTreeMap<Refusal, u64>,
    pub counts: Counts,
    /// There are more files than may be open: those that were read to their end are to be closed.
    pub crowded: bool,
    /// Somebody wants the finder to look soon.
    pub dirty: bool,
}

impl Known {
    /// What `/api/sources` shows of one source: files by path.
    pub fn view(&self, pipeline: &str, source: &str) -> serde_json::Value {
        let mut files: Vec<(PathBuf, &Arc<FileStatus>)> = self.open.values().map(|file| (file.path(), file)).collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let files: Vec<_> = files
            .into_iter()
            .map(|(path, file)| {
                let position = file.position();
                serde_json::json!({
                    "path": path.to_string_lossy(),
                    "log": file.log.to_string_lossy(),
                    "stream": format!("{:016x}", file.stream.0),
                    "state": file.state().name(),
                    "size": file.size.load(Ordering::Relaxed),
                    "position": position.done,
                    "resume": position.resume,
                    "behind_bytes": file.behind_bytes(),
                    "lane": file.lane.load(Ordering::Relaxed),
                })
            })
            .collect();
        let refused: Vec<_> = self
            .refused
            .iter()
            .map(|(path, refusal)| serde_json::json!({ "path": path.to_string_lossy(), "reason": refusal.name() }))
            .collect();
        let by_reason: serde_json::Map<_, _> = self.refused_counts.iter().map(|(r, n)| (r.name().to_string(), (*n).into())).collect();
        serde_json::json!({
            "pipeline": pipeline,
            "source": source,
            "files": files,
            "refused": refused,
            "counts": {
                "open": self.open.len(),
                "refused": by_reason,
                "truncations": self.counts.truncations,
                "rotations": self.counts.rotations,
                "copies": self.counts.copies,
                "abandoned_files": self.counts.abandoned_files,
                "abandoned_bytes": self.counts.abandoned_bytes,
            },
        })
    }
}

/// [`Known`], shared.
pub type Shared = Arc<Mutex<Known>>;

pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no holder of this lock panics")
}
