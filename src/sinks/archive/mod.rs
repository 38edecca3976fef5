//! The archive: every kept record, as the line that came in, in files by tenant and field; exactly once.
//!
//! In: frames in hub order. Out: files under `dir`, rotated by size, compressed at rotation, and `archive.log`,
//! which is the truth about them. Order of a commit: announce (files to be created, renames) in the log and sync
//! it; append, sync and rename the files; sync their folders; append one `commit` line with every length and the
//! position of every stream, and sync it. Recovery undoes what no commit line confirms.
//!
//! Bounds: buffered rows at most `buffer_bytes_max` plus one frame, then they are written; descriptors at most
//! `open_files_max`, then the one unused longest is closed; files at most `FILES_MAX`, then further field
//! values share `_overflow`, one file per tenant. A full disk makes `write` and `commit` fail and loses nothing:
//! call again. After a failed fsync nobody knows what is on disk: `is_failed`, and the archive is opened anew.
//!
//! Read `write` here, then `route` (rows to files), `commit` (files to disk), `outside`, `backups`, `room`, `recover` and
//! `recount`; `log` (what a line means), `rotate` (names of backups, compression), `calendar` (when a file is due), `template`
//! (names of files) and `lock` (one writer) serve them.

mod route;

mod commit;
mod outside;

mod backups;
mod room;

mod recount;
mod recover;

mod calendar;
mod lock;
mod log;
mod rotate;
mod template;

#[cfg(test)]
mod eb;
#[cfg(test)]
mod tests;

pub use calendar::{Boundary, Calendar, zone};
pub use room::Room;
pub use rotate::Compress;
pub use template::Template;

use anyhow::{Context, bail};
use flow::event::StreamId;
use flow::units::Span;
use hub::disk::{Disk, File};
use hub::frame::Frame;
use jiff::tz::TimeZone;
use log::{Log, Moved, State};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use template::Value;

const SITE_FOLDER: &str = "archive folder";
const SITE_FILE: &str = "archive file";
const SITE_NAMES: &str = "archive names";
const SITE_ROTATE_RENAME: &str = "archive rotate rename";
const SITE_ROTATE_FOLDER: &str = "archive rotate folder";
const SITE_UNDO_RENAME: &str = "archive undo rename";
const SITE_UNDO_FOLDER: &str = "archive undo folder";
const SITE_UNDO_LENGTH: &str = "archive undo length";

/// A file's rows are written once there are this many bytes of them.
const FLUSH_BYTES: usize = 64 << 10;
/// A rename or compression that failed is tried again after twice as much each time, up to this many times.
const BACK_OFF_MAX: u32 = 1_024;
const NO_PATH: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder that holds the files.
    pub dir: PathBuf,
    /// Folder that holds `archive.log`.
    pub log_dir: PathBuf,
    pub path: Template,
    /// A file is rotated before it would grow beyond this; 0 = never.
    pub rotate_bytes: u64,
    /// When else a file is rotated; the time is that of the frames' arrival.
    pub calendar: Calendar,
    /// Time zone of the times in the names of backups.
    pub names: TimeZone,
    /// SIGHUP rotates, too; else it only opens the files again by name.
    pub rotate_on_hangup: bool,
    pub room: Room,
    /// Backups kept per file, the newest; 0 = all.
    pub backups: u32,
    /// Backups whose time lies this far behind the newest event are removed.
    pub age: Option<Span>,
    pub compress: Compress,
    pub open_files_max: usize,
    pub buffer_bytes_max: usize,
}

/// What happened since the archive was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub rotations: u64,
    /// A file could not be renamed; it grows on and is tried again later.
    pub rotate_failures: u64,
    pub packed: u64,
    /// A backup could not be compressed; it stays plain and is tried again later.
    pub pack_failures: u64,
    /// Backups removed because of their number or age.
    pub deleted: u64,
    pub delete_failures: u64,
    /// Files that somebody else renamed, removed or shortened.
    pub changed_outside: u64,
    /// Bytes that a crash left and recovery cut off: a torn tail of the log, uncommitted rows.
    pub cut_bytes: u64,
}

pub struct Archive {
    disk: Disk,
    settings: Settings,
    columns: Vec<usize>,
    log: Log,
    /// What is committed.
    state: State,
    /// What is buffered or written: per stream, everything up to here is taken.
    taken: HashMap<StreamId, u64>,
    /// Streams whose position moved since the last commit, and those that ended.
    moved_streams: BTreeSet<StreamId>,
    ended_streams: BTreeSet<StreamId>,
    clock_ns: i64,
    /// Newlines within the records that were taken.
    inner_newlines: u64,
    /// Last number given to a file.
    generations: u64,
    paths: Vec<ActivePath>,
    by_name: HashMap<String, u32>,
    by_key: HashMap<Box<[u8]>, u32>,
    /// Per row of the frame at hand: index into `paths`.
    routes: Vec<u32>,
    /// Per tenant of the frame at hand, where the path names no fields: index into `paths`, or `NO_PATH`.
    tenant_routes: Vec<u32>,
    key: Vec<u8>,
    last_key: Vec<u8>,
    last_path: u32,
    /// Paths with something to commit, in order of first touch.
    dirty: Vec<u32>,
    /// Paths whose buffer is worth writing.
    ripe: Vec<u32>,
    /// Paths with an open descriptor.
    open: Vec<u32>,
    stamp: u64,
    buffered: usize,
    /// Empty buffers, lent to files that have none.
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    has_sealed: bool,
    /// Renamed since the last commit line, in order.
    moved: Vec<Moved>,
    /// Backups of somebody else, or of before this log, that are to be compressed.
    adopted: BTreeSet<String>,
    /// Folders that were looked through for such backups, and what was found beside names that may become paths of ours.
    surveyed: BTreeSet<String>,
    strays: BTreeMap<String, Vec<String>>,
    /// Paths whose backups are to be counted at the next commit.
    untended: BTreeSet<u32>,
    /// Read where room is limited.
    known_backups: Option<room::Backups>,
    /// There was too little room: look at the folders again.
    is_short: bool,
    /// Arrival of the newest frame, or the clock where none came: what `calendar` goes by.
    now_ns: i64,
    /// Rows came since the last tick.
    is_busy: bool,
    /// Files that are no longer ours to follow.
    gone: Vec<u64>,
    gone_announced: usize,
    /// Folders in which a name was created since the last commit.
    folders: BTreeSet<PathBuf>,
    /// Files that had a backup made since the archive was opened.
    rotated: BTreeSet<u32>,
    pack_wait: u32,
    pack_back_off: u32,
    stats: Stats,
    _lock: Option<lock::Lock>,
}

/// One active file name. `files[0]` is or will be on disk under it; all but the last are sealed: they become
/// backups, one after the other, at the next commit, and what follows them waits in memory until then.
struct ActivePath {
    name: String,
    files: Vec<ActiveFile>,
    handle: Option<File>,
    used: u64,
    is_dirty: bool,
    is_ripe: bool,
    /// The next row is the first one of this process.
    is_first: bool,
    /// Size at which the file is sealed; grows after a failed rename.
    rotate_at: u64,
    back_off: u32,
    /// Mode and owner for the next file.
    like: Option<std::fs::Metadata>,
}

struct ActiveFile {
    generation: u64,
    /// Length where it existed before us.
    base: Option<u64>,
    on_disk: u64,
    exists: bool,
    is_synced: bool,
    /// An append failed: bytes after `on_disk` may be there.
    is_torn: bool,
    is_announced: bool,
    newest_ns: i64,
    /// Arrival of its first row, and when it is to be rotated.
    begun_ns: i64,
    due_ns: i64,
    buffer: Vec<u8>,
    /// Sealed; the name it is to get, once chosen, and whether that is announced.
    is_sealed: bool,
    backup: Option<String>,
    is_rotate_announced: bool,
}

impl ActiveFile {
    fn size(&self) -> u64 {
        self.on_disk + self.buffer.len() as u64
    }
}

impl Archive {
    /// Opens the archive and undoes whatever a crash left unfinished, and changes nothing else: whoever writes calls
    /// [`Archive::tend`] first. `columns`: for each field of the path
    /// template, in order, its index in [`Rows::columns`].
    pub fn open(disk: Disk, settings: Settings, columns: Vec<usize>) -> anyhow::Result<Archive> {
        if columns.len() != settings.path.fields().len() {
            bail!("the path names {} fields and {} columns were given", settings.path.fields().len(), columns.len());
        }
        let samples = vec![Value::Missing; columns.len()];
        let sample = settings.path.path(b"", &samples, |name| is_own(&settings, name));
        if is_own(&settings, &sample) {
            bail!("the path is that of the archive's own {}; choose another", template::last_component(&sample));
        }
        let (log, state, torn_bytes) = Log::open(&disk, &settings.log_dir)?;
        log::create_folder(&disk, &settings.dir, SITE_FOLDER)?;
        let _lock = match disk {
            Disk::Real => Some(lock::Lock::take(&settings.dir, &settings.log_dir)?),
            Disk::Sim(_) => None,
        };
        let mut archive = Archive {
            disk,
            settings,
            columns,
            log,
            taken: state.positions.iter().map(|(stream, done)| (StreamId(*stream), *done)).collect(),
            clock_ns: state.clock_ns,
            inner_newlines: state.inner_newlines,
            generations: state.generations,
            state,
            moved_streams: BTreeSet::new(),
            ended_streams: BTreeSet::new(),
            paths: Vec::new(),
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            routes: Vec::new(),
            tenant_routes: Vec::new(),
            key: Vec::new(),
            last_key: Vec::new(),
            last_path: NO_PATH,
            dirty: Vec::new(),
            ripe: Vec::new(),
            open: Vec::new(),
            stamp: 0,
            buffered: 0,
            spare: Vec::new(),
            spare_bytes: 0,
            has_sealed: false,
            moved: Vec::new(),
            adopted: BTreeSet::new(),
            surveyed: BTreeSet::new(),
            strays: BTreeMap::new(),
            untended: BTreeSet::new(),
            known_backups: None,
            is_short: false,
            now_ns: i64::MIN,
            is_busy: false,
            gone: Vec::new(),
            gone_announced: 0,
            folders: BTreeSet::new(),
            rotated: BTreeSet::new(),
            pack_wait: 0,
            pack_back_off: 1,
            stats: Stats { cut_bytes: torn_bytes, ..Stats::default() },
            _lock,
        };
        archive.recover().context("cannot recover the archive")?;
        Ok(archive)
    }

    /// Per stream: every record complete at or before this offset is in the archive, durably.
    pub fn positions(&self) -> HashMap<StreamId, u64> {
        self.state.positions.iter().map(|(stream, done)| (StreamId(*stream), *done)).collect()
    }

    /// How far a stream is taken, durably or not.
    pub fn position(&self, stream: StreamId) -> Option<u64> {
        self.taken.get(&stream).copied()
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// After a failed fsync: every call fails until the archive is dropped and opened again; then all frames
    /// after its positions must be written again.
    pub fn is_failed(&self) -> bool {
        self.log.is_failed()
    }

    /// Takes the rows of a frame, but for the parts that the archive has. After an error the same frame may be
    /// written again: what was taken is not taken twice.
    pub fn write(&mut self, frame: &Frame) -> anyhow::Result<()> {
        self.log.check()?;
        if self.buffered > self.settings.buffer_bytes_max || self.has_sealed {
            self.write_out()?; // the last attempt failed: take no more before there is room
        }
        if !self.make_room(frame)? {
            bail!("{}", self.no_room());
        }
        self.now_ns = frame.received.0;
        self.is_busy |= !frame.rows.is_empty();
        self.route(frame)?;
        for part in &frame.parts {
            if !self.has(part.stream, part.to) {
                self.inner_newlines += inner_newlines(frame, &part.rows);
                self.stage(frame, part.rows.start as usize..part.rows.end as usize);
                self.advance(part.stream, part.to);
            }
            for also in &part.also {
                if !self.has(also.stream, also.done) {
                    self.advance(also.stream, also.done);
                }
            }
        }
        self.write_out()
    }

    /// Forgets a stream that ended, with the next commit.
    #[cfg_attr(not(test), expect(dead_code, reason = "streams end, and are forgotten, when sources say so: the next issue"))]
    pub fn forget(&mut self, stream: StreamId) {
        self.taken.remove(&stream);
        self.moved_streams.remove(&stream);
        if self.state.positions.contains_key(&stream.0) {
            self.ended_streams.insert(stream);
        }
    }

    fn has(&self, stream: StreamId, to: u64) -> bool {
        self.taken.get(&stream).is_some_and(|done| to <= *done)
    }

    fn advance(&mut self, stream: StreamId, to: u64) {
        self.taken.insert(stream, to);
        self.moved_streams.insert(stream);
        self.ended_streams.remove(&stream);
    }

    /// Ends a run: commits, compresses what waits, applies retention to every file, and rewrites the log as one
    /// line. What the archive then holds depends on the records alone, not on when it was committed.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.commit()?;
        self.pack_backups(true);
        if self.settings.age.is_some() {
            self.rotated.extend(0..self.paths.len() as u32);
        }
        for path in std::mem::take(&mut self.rotated) {
            self.retain(path);
        }
        self.log.snapshot(&self.state)
    }

    fn len_of(&self, full: &Path) -> anyhow::Result<Option<u64>> {
        match self.disk.len(full) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot look at {}", full.display())),
        }
    }
}

/// Newlines within the rows of a part.
fn inner_newlines(frame: &Frame, rows: &std::ops::Range<u32>) -> u64 {
    let end_of = |row: u32| row.checked_sub(1).map_or(0, |last| frame.rows.ends[last as usize] as usize);
    memchr::memchr_iter(b'\n', &frame.rows.bytes[end_of(rows.start)..end_of(rows.end)]).count() as u64
}

/// Is this a name that the archive needs for itself?
fn is_own(settings: &Settings, name: &str) -> bool {
    name == lock::NAME || settings.dir.join(name) == settings.log_dir.join(log::NAME)
}

fn rotate_limit(settings: &Settings) -> u64 {
    if settings.rotate_bytes == 0 { u64::MAX } else { settings.rotate_bytes }
}
