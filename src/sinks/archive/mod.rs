//! The archive: every kept record, as the line that came in, in files by tenant and field; exactly once.
//!
//! In: frames in hub order. Out: files under `dir`, rotated by size, compressed at rotation, and `archive.log`,
//! which is the truth about them. Order of a commit: announce (files to be created, renames) in the log and sync
//! it; append, sync and rename the files; sync their folders; append one `commit` line with every length and the
//! position of every stream, and sync it. Recovery undoes what no commit line confirms.
//!
//! Bounds: buffered rows at most `buffer_bytes_max` plus one frame, then they are written; descriptors at most
//! `open_files_max`, then the one unused longest is closed; files at most [`FILES_MAX`], then further field
//! values share `_overflow`, one file per tenant. A full disk makes `write` and `commit` fail and loses nothing:
//! call again. After a failed fsync nobody knows what is on disk: `is_failed`, and the archive is opened anew.
//!
//! Read `write` and `commit` here, then `log` (what a line means), `rotate` (backups), `template` (names).

mod log;
mod rotate;
mod template;

#[cfg(test)]
mod tests;

pub use rotate::Compress;
pub use template::Template;

use anyhow::{Context, bail};
use flow::event::StreamId;
use flow::units::Span;
use hub::disk::{Disk, File};
use hub::frame::{Frame, Rows};
use log::{Entry, Line, Log, Moved, State};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use template::{Value, last_component};

const SITE_FOLDER: &str = "archive folder";
const SITE_FILE: &str = "archive file";
const SITE_NAMES: &str = "archive names";
const SITE_ROTATE_RENAME: &str = "archive rotate rename";
const SITE_ROTATE_FOLDER: &str = "archive rotate folder";
const SITE_UNTEAR: &str = "archive untear";
const SITE_UNDO_RENAME: &str = "archive undo rename";
const SITE_UNDO_FOLDER: &str = "archive undo folder";
const SITE_UNDO_LENGTH: &str = "archive undo length";

/// A file's rows are written once there are this many bytes of them.
const FLUSH_BYTES: usize = 64 << 10;
/// A buffer larger than this (after a huge row) is given back once it is written.
const BUFFER_KEEP_BYTES: usize = 2 * FLUSH_BYTES;
/// 300 bytes each make 10 MiB.
const FILES_MAX: usize = 32_768;
/// Values seen -> file. Forgotten as a whole when full; at most 4 MiB.
const KEYS_MAX: usize = 16_384;
/// Longer values are not remembered: they are rendered each time.
const KEY_BYTES_MAX: usize = 256;
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
    /// Last number given to a file.
    generations: u64,
    paths: Vec<ActivePath>,
    by_name: HashMap<String, u32>,
    by_key: HashMap<Box<[u8]>, u32>,
    /// Per row of the frame at hand: index into `paths`.
    routes: Vec<u32>,
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
    has_sealed: bool,
    /// Renamed since the last commit line, in order.
    moved: Vec<Moved>,
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
    /// Opens the archive and undoes whatever a crash left unfinished. `columns`: for each field of the path
    /// template, in order, its index in [`Rows::columns`].
    pub fn open(disk: Disk, settings: Settings, columns: Vec<usize>) -> anyhow::Result<Archive> {
        if columns.len() != settings.path.fields().len() {
            bail!("the path names {} fields and {} columns were given", settings.path.fields().len(), columns.len());
        }
        let samples = vec![Value::Missing; columns.len()];
        if settings.dir.join(settings.path.path(b"", &samples, |name| is_log(&settings, name))) == settings.log_dir.join(log::NAME) {
            bail!("the path is that of the archive's own {}; choose another", log::NAME);
        }
        let (log, state, torn_bytes) = Log::open(&disk, &settings.log_dir)?;
        log::create_folder(&disk, &settings.dir, SITE_FOLDER)?;
        let mut archive = Archive {
            disk,
            settings,
            columns,
            log,
            taken: state.positions.iter().map(|(stream, done)| (StreamId(*stream), *done)).collect(),
            clock_ns: state.clock_ns,
            generations: state.generations,
            state,
            moved_streams: BTreeSet::new(),
            ended_streams: BTreeSet::new(),
            paths: Vec::new(),
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            routes: Vec::new(),
            key: Vec::new(),
            last_key: Vec::new(),
            last_path: NO_PATH,
            dirty: Vec::new(),
            ripe: Vec::new(),
            open: Vec::new(),
            stamp: 0,
            buffered: 0,
            has_sealed: false,
            moved: Vec::new(),
            gone: Vec::new(),
            gone_announced: 0,
            folders: BTreeSet::new(),
            rotated: BTreeSet::new(),
            pack_wait: 0,
            pack_back_off: 1,
            stats: Stats { cut_bytes: torn_bytes, ..Stats::default() },
        };
        archive.recover().context("cannot recover the archive")?;
        Ok(archive)
    }

    /// Per stream: every record complete at or before this offset is in the archive, durably.
    pub fn positions(&self) -> HashMap<StreamId, u64> {
        self.state.positions.iter().map(|(stream, done)| (StreamId(*stream), *done)).collect()
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
        self.route(frame)?;
        for part in &frame.parts {
            if !self.has(part.stream, part.to) {
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

    // ---- rows to files ----------------------------------------------------------------------------------

    /// Finds the file of each row that will be taken. Everything that can fail before a row is taken is here.
    fn route(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let rows = &frame.rows;
        self.routes.clear();
        self.routes.resize(rows.len(), NO_PATH);
        self.last_path = NO_PATH;
        for part in &frame.parts {
            if self.has(part.stream, part.to) {
                continue;
            }
            let (start, end) = (part.rows.start as usize, part.rows.end as usize);
            if start > end || end > rows.len() {
                bail!("frame {} is no frame: a part's rows are {start}..{end} of {}", frame.seq, rows.len());
            }
            for i in start..end {
                let Some(tenant) = rows.tenant.get(i).and_then(|t| frame.tenants.get(*t as usize)) else {
                    bail!("frame {} is no frame: row {i} has no tenant", frame.seq)
                };
                self.routes[i] = self.route_row(tenant, rows, i)?;
            }
        }
        Ok(())
    }

    fn route_row(&mut self, tenant: &[u8], rows: &Rows, i: usize) -> anyhow::Result<u32> {
        self.key.clear();
        push_key(&mut self.key, Some(tenant));
        for column in &self.columns {
            push_key(&mut self.key, value_of(rows, *column, i));
        }
        if self.last_path != NO_PATH && self.key == self.last_key {
            return Ok(self.last_path);
        }
        let known = self.by_key.get(&self.key[..]).copied();
        let path = match known {
            Some(path) if !self.paths[path as usize].files.is_empty() => path,
            _ => self.path_of(tenant, rows, i)?,
        };
        if known.is_none() && self.key.len() <= KEY_BYTES_MAX {
            if self.by_key.len() >= KEYS_MAX {
                self.by_key.clear();
            }
            self.by_key.insert(self.key.as_slice().into(), path);
        }
        std::mem::swap(&mut self.key, &mut self.last_key);
        self.last_path = path;
        Ok(path)
    }

    /// Renders the name of a row's file and begins to follow it.
    fn path_of(&mut self, tenant: &[u8], rows: &Rows, i: usize) -> anyhow::Result<u32> {
        let texts: Vec<Option<Vec<u8>>> = self.columns.iter().map(|c| value_of(rows, *c, i).map(unescape)).collect();
        let mut values: Vec<Value> = texts.iter().map(|t| t.as_deref().map_or(Value::Missing, Value::Bytes)).collect();
        let mut name = self.name_of(tenant, &values);
        if self.paths.len() >= FILES_MAX && !self.by_name.contains_key(&name) {
            values.fill(Value::Overflow);
            name = self.name_of(tenant, &values);
        }
        let path = match self.by_name.get(&name) {
            Some(path) => *path,
            None => self.add_path(name),
        };
        if self.paths[path as usize].files.is_empty() {
            self.adopt(path)?;
        }
        Ok(path)
    }

    fn name_of(&self, tenant: &[u8], values: &[Value]) -> String {
        self.settings.path.path(tenant, values, |name| is_log(&self.settings, name))
    }

    fn add_path(&mut self, name: String) -> u32 {
        let index = self.paths.len() as u32;
        self.by_name.insert(name.clone(), index);
        self.paths.push(ActivePath {
            name,
            files: Vec::new(),
            handle: None,
            used: 0,
            is_dirty: false,
            is_ripe: false,
            is_first: true,
            rotate_at: rotate_limit(&self.settings),
            back_off: 1,
            like: None,
        });
        index
    }

    /// Looks at what stands under a name of ours before the first row goes there.
    fn adopt(&mut self, path: u32) -> anyhow::Result<()> {
        let name = self.paths[path as usize].name.clone();
        let full = self.settings.dir.join(&name);
        self.refuse_way_out(&full)?;
        let base = self.len_of(&full)?;
        let mut file = self.new_file();
        file.base = base;
        file.on_disk = base.unwrap_or(0);
        file.exists = base.is_some();
        file.newest_ns = i64::MIN;
        if file.on_disk > 0 {
            let last = self.disk.read_at(&full, file.on_disk - 1, 1).with_context(|| format!("cannot read {}", full.display()))?;
            // Behind half a line ours would become the end of it: begin a new file.
            file.is_sealed = last != b"\n";
        }
        let needs_next = file.is_sealed;
        let next = needs_next.then(|| self.new_file());
        let active = &mut self.paths[path as usize];
        active.is_first = base.is_some_and(|len| len > 0);
        active.rotate_at = rotate_limit(&self.settings);
        active.files = std::iter::once(file).chain(next).collect();
        Ok(())
    }

    fn new_file(&mut self) -> ActiveFile {
        self.generations += 1;
        ActiveFile {
            generation: self.generations,
            base: None,
            on_disk: 0,
            exists: false,
            is_synced: true,
            is_torn: false,
            is_announced: false,
            newest_ns: i64::MIN,
            buffer: Vec::new(),
            is_sealed: false,
            backup: None,
            is_rotate_announced: false,
        }
    }

    /// Follows no symlink that leads out of the archive's folder.
    fn refuse_way_out(&self, full: &Path) -> anyhow::Result<()> {
        if !matches!(self.disk, Disk::Real) {
            return Ok(());
        }
        let root = std::fs::canonicalize(&self.settings.dir).with_context(|| format!("cannot resolve {}", self.settings.dir.display()))?;
        let mut at = self.settings.dir.clone();
        let below = full.strip_prefix(&self.settings.dir).unwrap_or(full);
        for component in below.components() {
            at.push(component);
            match std::fs::symlink_metadata(&at) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e).with_context(|| format!("cannot look at {}", at.display())),
                Ok(found) if found.is_symlink() => match std::fs::canonicalize(&at) {
                    Ok(target) if target.starts_with(&root) => {}
                    _ => bail!("{} is a symlink out of {}; remove it, or set dir to where it leads", at.display(), root.display()),
                },
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Copies rows into the buffers of their files. Touches no disk and cannot fail: a part is taken whole.
    fn stage(&mut self, frame: &Frame, rows: std::ops::Range<usize>) {
        for i in rows {
            let route = self.routes[i];
            let row = frame.rows.row(i);
            let mut time = frame.rows.time.get(i).copied().unwrap_or(0);
            if frame.received.0 > 0 {
                time = time.min(frame.received.0); // a clock in the future must not age everybody's backups
            }
            self.clock_ns = self.clock_ns.max(time);
            let need = row.len() as u64 + 1;
            if self.paths[route as usize].is_full(need) {
                let next = self.new_file();
                let path = &mut self.paths[route as usize];
                path.files.last_mut().expect("route adopted the path").is_sealed = true;
                path.files.push(next);
            }
            let path = &mut self.paths[route as usize];
            path.is_first = false;
            if !path.is_dirty {
                path.is_dirty = true;
                self.dirty.push(route);
            }
            let is_head = path.files.len() == 1;
            self.has_sealed |= !is_head;
            let file = path.files.last_mut().expect("route adopted the path");
            file.newest_ns = file.newest_ns.max(time);
            file.buffer.extend_from_slice(row);
            file.buffer.push(b'\n');
            self.buffered += row.len() + 1;
            if is_head && !path.is_ripe && file.buffer.len() >= FLUSH_BYTES {
                path.is_ripe = true;
                self.ripe.push(route);
            }
        }
    }

    // ---- files to disk ----------------------------------------------------------------------------------

    /// Writes the buffers that are large, all of them past the bound; rotates.
    fn write_out(&mut self) -> anyhow::Result<()> {
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
            if let Err(error) = self.disk.sync_dir(folder, SITE_NAMES) {
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
        let mut touched = BTreeSet::new();
        for moved in std::mem::take(&mut self.moved) {
            self.stats.rotations += 1;
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
        let full = self.settings.dir.join(&active.name);
        let (folder, base) = (full.parent().unwrap_or(Path::new("")), last_component(&active.name));
        let mut stamps: Vec<rotate::Stamp> = rotate::backups_of(&self.disk, folder, base)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .into_iter()
            .map(|b| b.stamp)
            .collect();
        let prefix = &active.name[..active.name.len() - base.len()];
        stamps.extend(active.files.iter().filter_map(|f| rotate::parse_backup(base, last_component(f.backup.as_deref()?))));
        let mut names = Vec::new();
        for (i, file) in active.files.iter().enumerate() {
            if !file.is_sealed || file.backup.is_some() {
                continue;
            }
            // A file with no row of ours gets the time of the first row that follows it.
            let newest = active.files[i..].iter().map(|f| f.newest_ns).find(|ns| *ns != i64::MIN).unwrap_or(0).max(0);
            let time_ms = newest.div_euclid(1_000_000);
            // Above the last clash, not in a gap: among backups of one instant the last one stays the newest.
            let clash = stamps.iter().filter(|s| s.time_ms == time_ms).map(|s| s.clash + 1).max().unwrap_or(0);
            let stamp = rotate::Stamp { time_ms, clash };
            stamps.push(stamp);
            names.push((i, format!("{prefix}{}", rotate::backup_name(base, stamp))));
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
        if keeps_buffers && file.buffer.capacity() <= BUFFER_KEEP_BYTES {
            file.buffer.clear()
        } else {
            file.buffer = Vec::new()
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
    fn replace_lost(&mut self, path: u32, base: Option<u64>) -> anyhow::Result<()> {
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

    fn close_handle(&mut self, path: u32) {
        if self.paths[path as usize].handle.take().is_some() {
            self.open.retain(|p| *p != path);
        }
    }

    // ---- the world outside ------------------------------------------------------------------------------

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

    // ---- backups ----------------------------------------------------------------------------------------

    /// Compresses what waits for it. A failure is counted and tried again later: the rows are safe as they are.
    fn pack_backups(&mut self, is_last_chance: bool) {
        if self.state.unpacked.is_empty() || self.log.is_failed() {
            return;
        }
        if self.pack_wait > 0 && !is_last_chance {
            self.pack_wait -= 1;
            return;
        }
        for name in self.state.unpacked.clone() {
            if self.pack_backup(&name).is_err() {
                self.stats.pack_failures += 1;
                self.pack_wait = self.pack_back_off;
                self.pack_back_off = (self.pack_back_off * 2).min(BACK_OFF_MAX);
                return;
            }
            self.pack_back_off = 1;
        }
    }

    fn pack_backup(&mut self, name: &str) -> anyhow::Result<()> {
        let full = self.settings.dir.join(name);
        if self.settings.compress != Compress::None {
            if self.disk.exists(&full)? {
                rotate::pack(&self.disk, &full, self.settings.compress)?;
                self.stats.packed += 1;
            } else {
                // An attempt that ended between its removal and the sync of the folder, or a deletion.
                self.disk.sync_dir(full.parent().unwrap_or(Path::new("")), rotate::SITE_UNPACKED_FOLDER)?;
            }
        }
        // Not synced: without this line the next start finds no plain file and has nothing to do.
        let line = Line::Packed { name: name.to_string() };
        self.log.append(std::slice::from_ref(&line))?;
        self.state.apply(line);
        Ok(())
    }

    /// Removes the backups of one file that are too many or too old.
    fn retain(&mut self, path: u32) {
        if self.settings.backups == 0 && self.settings.age.is_none() {
            return;
        }
        if self.retain_in(path).is_err() {
            self.stats.delete_failures += 1; // tried again at the next rotation
        }
    }

    fn retain_in(&mut self, path: u32) -> anyhow::Result<()> {
        let active = &self.paths[path as usize];
        let full = self.settings.dir.join(&active.name);
        let base = last_component(&active.name);
        let prefix = active.name[..active.name.len() - base.len()].to_string();
        let folder = full.parent().unwrap_or(Path::new("")).to_path_buf();
        let backups = rotate::backups_of(&self.disk, &folder, base)?;
        let since_ms = self.settings.age.map(|age| self.clock_ns.saturating_sub(age.0).div_euclid(1_000_000));
        let gone = rotate::expired(&backups, self.settings.backups, since_ms);
        for name in backups.into_iter().take(gone).flat_map(|b| b.names) {
            let line = Line::Deleted { name: format!("{prefix}{name}") };
            self.log.append(std::slice::from_ref(&line))?;
            self.state.apply(line);
            self.disk.unlink(&folder.join(&name))?;
            self.stats.deleted += 1;
        }
        Ok(())
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

    // ---- recovery ---------------------------------------------------------------------------------------

    /// Brings the files to what the log's last commit says: renames and creations that were announced and not
    /// committed are undone, every file is cut to its committed length. Each step may be repeated.
    fn recover(&mut self) -> anyhow::Result<()> {
        let announced = std::mem::take(&mut self.state.announced);
        self.undo(&announced)?;
        self.cut_files()?;
        // Only now may work that cannot be undone begin: what the log says is durable from here on.
        self.log.snapshot(&self.state)?;
        self.drop_half_packed()?;
        self.pack_backups(true);
        Ok(())
    }

    fn undo(&mut self, announced: &[Line]) -> anyhow::Result<()> {
        let mut opened: BTreeMap<u64, (&str, Option<u64>)> = BTreeMap::new();
        let mut backups: BTreeMap<u64, &str> = BTreeMap::new();
        for line in announced {
            match line {
                Line::Open { generation, name, base } => drop(opened.insert(*generation, (name, *base))),
                Line::Rotate { generation, backup } => drop(backups.insert(*generation, backup)),
                Line::Lost { generation } => {
                    opened.remove(generation);
                    backups.remove(generation);
                    self.state.files.remove(generation);
                }
                _ => {}
            }
        }
        let mut folders = BTreeSet::new();
        // What we created goes; oldest last, so that a name is freed before an older file returns to it.
        for (generation, (name, base)) in opened.iter().rev() {
            if base.is_some() || self.state.files.contains_key(generation) {
                continue;
            }
            if let Some(backup) = backups.get(generation) {
                self.remove_uncommitted(backup, &mut folders)?;
            }
            let has_older =
                self.state.files.values().any(|f| f.name == *name) || opened.iter().any(|(g, o)| g < generation && o.0 == *name);
            if !has_older {
                self.remove_uncommitted(name, &mut folders)?;
            }
        }
        // What was there before gets its name back, over whatever we created under it.
        for (generation, backup) in &backups {
            let kept = self.state.files.get(generation).map(|f| f.name.clone());
            let foreign = opened.get(generation).filter(|o| o.1.is_some()).map(|o| o.0.to_string());
            let Some(name) = kept.or(foreign) else { continue };
            let (from, to) = (self.settings.dir.join(backup), self.settings.dir.join(&name));
            if self.disk.exists(&from)? {
                self.disk.rename(&from, &to, SITE_UNDO_RENAME).with_context(|| format!("cannot rename {} back", from.display()))?;
                folders.insert(to.parent().unwrap_or(Path::new("")).to_path_buf());
            }
        }
        for folder in folders {
            self.disk.sync_dir(&folder, SITE_UNDO_FOLDER).with_context(|| format!("cannot sync {}", folder.display()))?;
        }
        for (name, base) in opened.values() {
            if let Some(base) = base {
                self.cut(name, *base)?;
            }
        }
        Ok(())
    }

    fn remove_uncommitted(&mut self, name: &str, folders: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let full = self.settings.dir.join(name);
        let Some(len) = self.len_of(&full)? else { return Ok(()) };
        self.disk.unlink(&full).with_context(|| format!("cannot remove {}", full.display()))?;
        self.stats.cut_bytes += len;
        folders.insert(full.parent().unwrap_or(Path::new("")).to_path_buf());
        Ok(())
    }

    fn len_of(&self, full: &Path) -> anyhow::Result<Option<u64>> {
        match self.disk.len(full) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot look at {}", full.display())),
        }
    }

    /// Cuts a file to `len`. Returns how long it is then, `None` if it is not there.
    fn cut(&mut self, name: &str, len: u64) -> anyhow::Result<Option<u64>> {
        let full = self.settings.dir.join(name);
        let Some(found) = self.len_of(&full)? else { return Ok(None) };
        if found > len {
            self.disk.truncate(&full, len, SITE_UNDO_LENGTH).with_context(|| format!("cannot cut {}", full.display()))?;
            self.stats.cut_bytes += found - len;
        }
        Ok(Some(found.min(len)))
    }

    fn cut_files(&mut self) -> anyhow::Result<()> {
        for entry in self.state.files.values().cloned().collect::<Vec<_>>() {
            let found = self.cut(&entry.name, entry.len)?;
            if found != Some(entry.len) {
                self.stats.changed_outside += 1; // removed or shortened by somebody: go on from what is there
            }
            let Some(len) = found else {
                self.state.files.remove(&entry.generation);
                continue;
            };
            if let Some(file) = self.state.files.get_mut(&entry.generation) {
                file.len = len;
            }
            let path = self.add_path(entry.name);
            let mut file = self.new_file();
            self.generations -= 1; // the file has its number already
            file.generation = entry.generation;
            file.on_disk = len;
            file.exists = true;
            file.is_announced = true;
            file.newest_ns = entry.newest_ns;
            self.paths[path as usize].is_first = len > 0;
            self.paths[path as usize].files.push(file);
        }
        Ok(())
    }

    /// A compressed copy beside its original may be half of one: it is made again.
    fn drop_half_packed(&mut self) -> anyhow::Result<()> {
        for name in self.state.unpacked.clone() {
            let full = self.settings.dir.join(&name);
            let has_plain = self.disk.exists(&full)?;
            for compress in [Compress::Gzip, Compress::Zstd] {
                let packed = rotate::with_suffix(&full, compress.extension());
                self.remove_if_there(&rotate::with_suffix(&packed, ".tmp"))?;
                if has_plain {
                    self.remove_if_there(&packed)?;
                }
            }
        }
        Ok(())
    }

    fn remove_if_there(&self, path: &Path) -> anyhow::Result<()> {
        match self.disk.unlink(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", path.display())),
            _ => Ok(()),
        }
    }

    /// Counts the lines of every file and backup under the template, compressed or not, without asking the log.
    /// Returns them by the active file's path, relative to `dir`. Of a backup and its compressed copy one counts.
    pub fn recount(disk: &Disk, settings: &Settings) -> anyhow::Result<BTreeMap<Vec<u8>, u64>> {
        let mut folders = vec![String::new()];
        for depth in 0..settings.path.depth() - 1 {
            let mut below = Vec::new();
            for folder in &folders {
                for name in names_in(disk, settings, folder)? {
                    if settings.path.admits(depth, &name) {
                        below.push(format!("{folder}{name}/"));
                    }
                }
            }
            folders = below;
        }
        let mut lines = BTreeMap::new();
        for folder in &folders {
            let names = names_in(disk, settings, folder)?;
            for name in &names {
                let base = rotate::base_of(name).unwrap_or_else(|| name.clone());
                let path = settings.dir.join(folder).join(name);
                let plain = rotate::unpacked_name(name);
                let has_plain = plain != name && names.iter().any(|n| n == plain);
                if is_log(settings, &format!("{folder}{name}"))
                    || has_plain
                    || rotate::is_reserved(&base)
                    || !settings.path.admits(settings.path.depth() - 1, &base)
                {
                    continue;
                }
                let count = rotate::count_lines(disk, &path).with_context(|| format!("cannot count the lines of {}", path.display()))?;
                *lines.entry(format!("{folder}{base}").into_bytes()).or_insert(0) += count;
            }
        }
        Ok(lines)
    }
}

impl ActivePath {
    /// Must a row of this many bytes begin a new file? A file found at start is full a byte earlier, as in
    /// lumberjack; a row larger than the limit gets a file to itself.
    fn is_full(&self, need: u64) -> bool {
        let size = self.files.last().map_or(0, ActiveFile::size);
        let total = size.saturating_add(need);
        size > 0 && (total > self.rotate_at || (self.is_first && total == self.rotate_at))
    }
}

fn is_log(settings: &Settings, name: &str) -> bool {
    settings.dir.join(name) == settings.log_dir.join(log::NAME)
}

fn rotate_limit(settings: &Settings) -> u64 {
    if settings.rotate_bytes == 0 { u64::MAX } else { settings.rotate_bytes }
}

fn names_in(disk: &Disk, settings: &Settings, folder: &str) -> anyhow::Result<Vec<String>> {
    match disk.list(&settings.dir.join(folder)) {
        Ok(names) => Ok(names.into_iter().filter_map(|n| n.to_str().map(str::to_string)).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("cannot list {}", settings.dir.join(folder).display())),
    }
}

fn value_of(rows: &Rows, column: usize, i: usize) -> Option<&[u8]> {
    let (start, len) = *rows.columns.get(column)?.get(i)?;
    let start = start as usize;
    rows.row(i).get(start..start.checked_add(len as usize)?)
}

/// A field's value as text; the span holds what stands between the quotes.
fn unescape(raw: &[u8]) -> Vec<u8> {
    if !raw.contains(&b'\\') {
        return raw.to_vec();
    }
    let quoted = [b"\"", raw, b"\""].concat();
    // An object or array as a value may hold a backslash too: it stays as it is.
    serde_json::from_slice::<String>(&quoted).map_or_else(|_| raw.to_vec(), String::into_bytes)
}

fn push_key(key: &mut Vec<u8>, value: Option<&[u8]>) {
    let len = value.map_or(u32::MAX, |v| v.len() as u32);
    key.extend_from_slice(&len.to_le_bytes());
    key.extend_from_slice(value.unwrap_or_default());
}

fn is_same_file(held: &std::fs::File, file: &ActiveFile, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (held.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.dev() == named.dev() && held.ino() == named.ino() && named.len() == file.on_disk,
        (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => false,
        _ => true, // cannot tell: keep what we have
    }
}

/// Gives a new file the mode and owner of the one before it, as far as we may.
fn dress(handle: &File, like: &std::fs::Metadata) {
    use std::os::unix::fs::MetadataExt;
    if let File::Real(file) = handle {
        // The rows matter more than their mode: a refusal (another owner, an odd file system) changes nothing.
        let _ = file.set_permissions(like.permissions());
        let _ = std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()));
    }
}
