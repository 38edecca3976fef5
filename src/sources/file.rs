//! The `file` source: finds files by pattern, knows them again, tells copies and compressed files from new ones.
//!
//! In: patterns, the register of streams, the positions that the last run left. Out: opened files, each with
//! its stream and the place to go on reading, grouped into logs: a path and the files that were rotated away
//! from it, oldest first. A file is read by whoever owns its log; this one only finds.
//!
//! A file is a known stream's if four things agree: device and inode, time of birth, first line, and the bytes before the
//! position. Where inode or birth differ (a copy, gzip, another mount), first line and bytes before the position decide, and
//! only if no file holds the stream any more; while one does, a copy of it is passed over. Anything else is a new stream.
//! Memory: about 600 bytes for each open file; at most `files_max` files, `open_files_max` of them open.

use super::kubernetes::Guard;
use super::packed::{Packing, Unpacker, packing, stated_size};
use super::rotated::{Age, rotated_from};
use super::status::{FileId, FileStatus, Known, REFUSED_MAX, Refusal, Shared, lock};
use super::streams::{Entry, HEAD_BYTES_MAX, Head, NewFile, Register, hash};
use super::walk::{Candidate, Pattern, TICK, Walked, modified};
use super::watch::{Concern, Reader, Watcher};
use super::{FileConfig, Start};
use crate::env::born;
use anyhow::Context;
use flow::decode::{Encoding, encoding_of};
use flow::event::{Position, StreamId};
use flow::units::UnixNanos;
use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::{info, warn};

/// A file to read.
pub struct Found {
    /// Path of the log this file belongs to: where its stream was first seen.
    pub log: PathBuf,
    pub file: File,
    pub packing: Option<Packing>,
    pub stream: StreamId,
    pub position: Position,
    pub id: FileId,
    /// Streams of a log that are of one age are read in this order: that of their registration.
    pub order: usize,
    /// Stands in for the time of records that have none, until one had.
    pub modified: UnixNanos,
    pub status: Arc<FileStatus>,
    /// How its head says that it is encoded.
    pub encoding: Encoding,
    /// It holds a stream whose own file was truncated or compressed: nobody writes to it any more.
    pub copy: bool,
    /// Growth is told by the kernel; else somebody has to look.
    pub watched: bool,
    pub reader: Reader,
}

/// The bytes before a position that must be there again when reading goes on.
pub const BEFORE_BYTES: usize = 256;
/// How much of a file is compared with the one it may be a copy of.
const COMPARED_BYTES: u64 = 64 << 10;
/// A rotated file that nobody asked for and that was written to so shortly before the last look may have been missed by it.
const MISSED_NANOS: i64 = 2_000_000_000;
/// Descriptors that are not for files of a source; an archive with many files open takes its own from the rest.
const OTHER_DESCRIPTORS: usize = 40;
/// How often folders are looked through until nothing changes meanwhile.
const LOOKS_MAX: usize = 4;
/// A compressed file is read when nobody has written to it for so long.
const PACKED_GRACE: Duration = Duration::from_secs(1);

/// A hash of the bytes before a position, never 0: that means unknown.
pub fn before_hash(bytes: &[u8]) -> u64 {
    hash(&[bytes]).max(1)
}

/// Who reads which log.
#[derive(Clone, Copy)]
pub struct Lanes {
    pub pipeline: usize,
    pub intake: usize,
    pub lanes: usize,
}

impl Lanes {
    /// A log never changes its lane.
    pub fn reader(&self, log: &Path) -> Reader {
        let log = hash(&[&(self.pipeline as u64).to_le_bytes(), &(self.intake as u64).to_le_bytes(), log.as_os_str().as_encoded_bytes()]);
        Reader { lane: log as usize % self.lanes, log }
    }
}

pub struct Finder {
    source: String,
    config: FileConfig,
    patterns: Vec<Pattern>,
    exclude: Vec<glob::Pattern>,
    /// Files that weir writes itself.
    guard: Guard,
    lanes: Lanes,
    register: Arc<Mutex<Register>>,
    known: Shared,
    first: bool,
    once: bool,
    /// Files that are open, by the path they were seen at.
    seen: HashMap<PathBuf, (u64, FileId)>,
    /// Files that need no look until they change.
    settled: HashMap<PathBuf, Fingerprint>,
    /// Siblings that were there before anybody asked for them; also when they are compressed later.
    old: HashSet<PathBuf>,
    /// Rotated files that no pattern asks for are read if they were written to after this.
    walked_at: UnixNanos,
    /// Paths that were told about, each once.
    told: HashSet<PathBuf>,
    /// Some folder cannot be watched.
    pub polled: bool,
    /// There are more files than may be open.
    pub crowded: bool,
    /// Something could not be decided yet: look again soon.
    pub again: bool,
    /// A name that was listed was gone when it was looked at.
    vanished: bool,
    /// Rotated files that no pattern asks for, and that were written to while nobody looked.
    wanted: HashSet<PathBuf>,
}

type Fingerprint = (FileId, u64, i64);

/// A file that was looked at.
struct Look {
    path: PathBuf,
    log: PathBuf,
    id: FileId,
    born: i64,
    size: u64,
    modified: UnixNanos,
    symlink: bool,
    sibling: bool,
    age: Age,
    file: File,
    packing: Option<Packing>,
    /// The first bytes, decompressed.
    head: Vec<u8>,
}

/// What a file turned out to be.
enum Identity {
    /// A known stream goes on in it.
    Stream(usize, Entry),
    /// The same inode and first line, but what was read is gone.
    Displaced,
    /// Read to its end.
    Read,
    /// A copy of a file that is still there, or that is gone but open: then of which stream.
    Copy(Option<StreamId>),
    New,
}

impl Finder {
    #[expect(clippy::too_many_arguments, reason = "what a finder stands on, told once")]
    pub fn new(
        source: &str,
        config: FileConfig,
        guard: Guard,
        lanes: Lanes,
        register: Arc<Mutex<Register>>,
        recovered: HashMap<StreamId, Position>,
        alive: UnixNanos,
        once: bool,
    ) -> anyhow::Result<Finder> {
        let patterns = config.include.iter().map(|p| Pattern::parse(p)).collect::<Result<_, _>>().context("include")?;
        let exclude = config.exclude.iter().map(|p| glob::Pattern::new(p)).collect::<Result<_, _>>().context("exclude")?;
        let known = Arc::new(Mutex::new(Known { positions: recovered, ..Known::default() }));
        Ok(Finder {
            source: source.into(),
            config,
            patterns,
            exclude,
            guard,
            lanes,
            register,
            known,
            first: true,
            once,
            seen: HashMap::new(),
            settled: HashMap::new(),
            old: HashSet::new(),
            walked_at: alive,
            told: HashSet::new(),
            polled: false,
            crowded: false,
            again: false,
            vanished: false,
            wanted: HashSet::new(),
        })
    }

    pub fn known(&self) -> Shared {
        Arc::clone(&self.known)
    }

    /// Files that nobody holds open yet, those of one log oldest first, logs by path.
    pub fn scan(&mut self, now: UnixNanos, watcher: Option<&mut Watcher>) -> anyhow::Result<Vec<Found>> {
        let mut watcher = watcher;
        let (mut looks, refused) = self.look(now, &mut watcher);
        looks.sort_by(|a, b| (&a.log, &a.age, &a.path).cmp(&(&b.log, &b.age, &b.path)));
        for log in looks.chunk_by_mut(|a, b| a.log == b.log) {
            if log.windows(2).any(|pair| !pair[0].age.compares(&pair[1].age)) {
                // A stamped copy is made just before its original is truncated.
                log.sort_by_key(|look| (look.age == Age::Live, look.modified, matches!(look.age, Age::Number(_))));
            }
        }
        let mut found = self.identify(looks, now, &mut watcher)?;
        lock(&self.register).sync()?;
        self.refuse(refused);
        // Only now may anybody read: the streams are registered for good.
        found.sort_by_cached_key(|found| (found.log.clone(), found.status.age(), found.order));
        for log in found.chunk_by_mut(|a, b| a.log == b.log) {
            if log.windows(2).any(|pair| !pair[0].status.age().compares(&pair[1].status.age())) {
                log.sort_by_key(|found| (found.status.age() == Age::Live, found.order));
            }
        }
        for file in &mut found {
            let path = file.status.path();
            info!(path = %path.display(), stream = file.stream.0, position = file.position.done, size = file.status.size.load(Ordering::Relaxed), "file found");
            if let Some(watcher) = &mut watcher {
                file.watched = watcher.follow(&path, is_symlink(&path), Concern::Reader(file.reader));
            }
            lock(&self.known).open.insert(file.id, Arc::clone(&file.status));
            self.seen.insert(path, (file.id.1, file.id));
        }
        self.first = false;
        self.walked_at = now;
        Ok(found)
    }

    /// Looks at what is there while nothing changes, or at last while something does.
    fn look(&mut self, now: UnixNanos, watcher: &mut Option<&mut Watcher>) -> (Vec<Look>, Vec<(PathBuf, Refusal)>) {
        for _ in 1..LOOKS_MAX {
            let began = crate::env::now();
            let mut walked = self.walk(watcher);
            let mut refused = std::mem::take(&mut walked.refused);
            let looks = self.look_around(std::mem::take(&mut walked.candidates), now, watcher, &mut refused);
            if !self.vanished && walked.is_still(began) {
                return (looks, refused);
            }
            std::thread::sleep(TICK);
        }
        let mut walked = self.walk(watcher);
        (self.look_around(walked.candidates, now, watcher, &mut walked.refused), walked.refused)
    }

    fn walk(&mut self, watcher: &mut Option<&mut Watcher>) -> Walked {
        let mut walked = Walked::default();
        self.patterns.iter().for_each(|pattern| pattern.walk(&mut walked));
        if self.first {
            walked.candidates.extend(self.renamed_away(&walked.candidates));
        }
        // A path that a pattern finds is no sibling, whatever another pattern says.
        walked.candidates.sort_by(|a, b| (&a.path, a.sibling).cmp(&(&b.path, b.sibling)));
        walked.candidates.dedup_by(|a, b| a.path == b.path);
        if let Some(watcher) = watcher {
            let unwatched = walked.folders.keys().filter(|folder| !watcher.watch(folder)).count();
            self.polled = unwatched > 0;
        }
        walked
    }

    /// Files of known streams that were renamed while nobody looked, to names that no pattern and no rule finds.
    fn renamed_away(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let register = lock(&self.register);
        let seen: HashSet<u64> = candidates.iter().map(|c| c.ino).collect();
        let mut folders: HashMap<PathBuf, HashMap<u64, PathBuf>> = HashMap::new();
        let mut missing = Vec::new();
        for entry in register.entries().iter().filter(|e| e.source == self.source && !seen.contains(&e.ino)) {
            let Some(folder) = entry.path.parent() else { continue };
            let files = folders.entry(folder.to_path_buf()).or_insert_with(|| inodes_of(folder));
            if let Some(path) = files.remove(&entry.ino) {
                missing.push(Candidate { path, ino: entry.ino, symlink: false, sibling: true });
            }
        }
        missing
    }

    /// Opens the candidates that need a look.
    fn look_around(
        &mut self,
        candidates: Vec<Candidate>,
        now: UnixNanos,
        watcher: &mut Option<&mut Watcher>,
        refused: &mut Vec<(PathBuf, Refusal)>,
    ) -> Vec<Look> {
        let logs = self.logs(&candidates);
        let known = Arc::clone(&self.known);
        let open: HashMap<FileId, Arc<FileStatus>> = lock(&known).open.clone();
        // Hub, stores, sockets and their folders need some too.
        let limit = crate::env::open_files_limit();
        let limit = limit.saturating_sub(OTHER_DESCRIPTORS).max(limit / 8);
        let mut room = (self.config.open_files_max as usize).min(limit).saturating_sub(open.len());
        self.crowded = false;
        self.again = false;
        self.vanished = false;
        // Logs with a compressed file that somebody may still be writing: what is newer waits for it.
        let mut waiting: HashMap<PathBuf, Age> = HashMap::new();
        let mut taken: HashSet<FileId> = HashSet::new();
        let mut files = open.len();
        let mut still: HashSet<FileId> = HashSet::new();
        let mut moved = Vec::new();
        let mut looks = Vec::new();
        for candidate in candidates {
            if self.exclude.iter().any(|p| p.matches_path(&candidate.path)) {
                continue;
            }
            let log = rotated_from(&candidate.path).filter(|log| logs.contains(log));
            let registered = candidate.sibling && self.is_registered(candidate.ino);
            if candidate.sibling && log.is_none() && !registered {
                continue;
            }
            if let Some((ino, id)) = self.seen.get(&candidate.path)
                && !candidate.symlink
                && *ino == candidate.ino
                && open.get(id).is_some_and(|status| status.path() == candidate.path)
            {
                still.insert(*id);
                continue;
            }
            let meta = match std::fs::metadata(&candidate.path) {
                Ok(meta) => meta,
                Err(error) => {
                    match error.kind() {
                        std::io::ErrorKind::NotFound => self.vanished |= !candidate.symlink,
                        _ => refused.push((candidate.path, Refusal::of(&error))),
                    }
                    continue;
                }
            };
            if let Some(refusal) = kind_refused(&meta) {
                if !candidate.sibling {
                    refused.push((candidate.path, refusal));
                }
                continue;
            }
            let id = (meta.dev(), meta.ino());
            if let Some(status) = open.get(&id) {
                if status.path() == candidate.path {
                    still.insert(id);
                } else {
                    moved.push((id, candidate));
                }
                continue;
            }
            if self.settled.get(&candidate.path) == Some(&fingerprint(&meta)) {
                continue;
            }
            let print = (meta.len(), modified(&meta).0);
            if lock(&known).damaged.get_mut(&id).is_some_and(|seen| *seen.get_or_insert(print) == print) {
                refused.push((candidate.path, Refusal::Damaged));
                continue;
            }
            if self.guard.refuses(&candidate.path) {
                if self.told.len() < REFUSED_MAX && self.told.insert(candidate.path.clone()) {
                    info!(path = %candidate.path.display(), "weir writes this file itself: it is not read");
                }
                self.settled.insert(candidate.path, fingerprint(&meta));
                continue;
            }
            files += 1;
            if files > self.config.files_max as usize {
                refused.push((candidate.path, Refusal::FilesMax));
                continue;
            }
            if !taken.insert(id) {
                continue; // another name of a file that was looked at just before
            }
            if room == 0 {
                self.crowded = true;
                continue; // lanes close what was read to its end, then it is its turn
            }
            if candidate.sibling && modified(&meta).0 >= self.walked_at.0.saturating_sub(MISSED_NANOS) {
                self.wanted.insert(candidate.path.clone());
            }
            room -= 1;
            let log = log.unwrap_or_else(|| candidate.path.clone());
            match self.open(candidate.path.clone(), log, candidate.symlink, candidate.sibling, now) {
                Ok(Some(look)) => looks.push(look),
                Ok(None) => {
                    let path = &candidate.path;
                    let log = rotated_from(path).unwrap_or_else(|| path.clone());
                    let age = Age::of(path, &log);
                    waiting.entry(log).and_modify(|oldest| *oldest = age.clone().min(oldest.clone())).or_insert(age);
                    self.again = true;
                    self.follow_up(path, candidate.symlink, watcher);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.vanished = true,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => refused.push((candidate.path, Refusal::Damaged)),
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => refused.push((candidate.path, Refusal::Compression)),
                Err(error) => refused.push((candidate.path, Refusal::of(&error))),
            }
        }
        looks.retain(|look: &Look| waiting.get(&look.log).is_none_or(|oldest| look.age < *oldest));
        lock(&known).crowded = self.crowded;
        for (id, candidate) in moved {
            // Of two new names of one file the first one stays.
            if !still.insert(id) {
                continue;
            }
            let status = &open[&id];
            let before = status.path();
            if before == status.log {
                lock(&known).counts.rotations += 1;
            }
            status.set_path(&candidate.path);
            self.seen.remove(&before);
            self.seen.insert(candidate.path.clone(), (candidate.ino, id));
            if let Some(watcher) = watcher {
                watcher.follow(&candidate.path, candidate.symlink, Concern::Reader(self.lanes.reader(&status.log)));
            }
        }
        looks
    }

    /// Paths that may be the present name of a log.
    fn logs(&self, candidates: &[Candidate]) -> HashSet<PathBuf> {
        let register = lock(&self.register);
        let registered = register.entries().iter().filter(|e| e.source == self.source).map(|e| e.path.clone());
        registered.chain(candidates.iter().filter(|c| !c.sibling).map(|c| c.path.clone())).collect()
    }

    fn is_registered(&self, ino: u64) -> bool {
        lock(&self.register).entries().iter().any(|e| e.ino == ino && e.source == self.source)
    }

    /// Opens one path and reads its first bytes; `None` where nothing can be said of it yet.
    fn open(&self, path: PathBuf, log: PathBuf, symlink: bool, sibling: bool, now: UnixNanos) -> std::io::Result<Option<Look>> {
        // Not blocking: the path may have become a fifo since it was looked at.
        let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(&path)?;
        let meta = file.metadata()?;
        if kind_refused(&meta).is_some() {
            return Ok(None);
        }
        let mut head = vec![0; HEAD_BYTES_MAX];
        let len = read_full(&file, &mut head, 0)?;
        head.truncate(len);
        let modified = modified(&meta);
        let packing = packing(&head);
        if let Some(packing) = packing {
            lock(&self.known).damaged.remove(&(meta.dev(), meta.ino()));
            let silent = now.0.saturating_sub(modified.0) >= PACKED_GRACE.as_nanos() as i64;
            if !self.once && !self.first && !silent {
                return Ok(None);
            }
            head.resize(HEAD_BYTES_MAX, 0);
            let (len, _) = Unpacker::open(&file, packing)?.read(&mut head)?;
            head.truncate(len);
        }
        let age = Age::of(&path, &log);
        let id = (meta.dev(), meta.ino());
        Ok(Some(Look { path, log, id, born: born(&meta), size: meta.len(), modified, symlink, sibling, age, file, packing, head }))
    }

    /// Finds out what each file is and opens what is to be read.
    fn identify(&mut self, looks: Vec<Look>, now: UnixNanos, watcher: &mut Option<&mut Watcher>) -> anyhow::Result<Vec<Found>> {
        let mut alive: HashMap<u64, Original> = HashMap::new();
        for (id, status) in &lock(&self.known).open {
            alive.insert(status.stream.0, Original { path: status.path(), id: *id, position: status.position(), head: status.head });
        }
        let mut found = Vec::new();
        let mut rest = Vec::new();
        // Who is known by inode comes first: whether a copy goes on as the stream depends on what became of the original.
        for look in looks {
            match self.by_inode(&look) {
                Identity::Stream(order, entry) => {
                    alive.insert(entry.id, self.original(&look, &entry));
                    found.push(self.found(look, order, entry));
                }
                Identity::Read => {
                    let entry = lock(&self.register).by_inode(&self.source, look.id).next().map(|(_, entry)| entry.clone());
                    alive.extend(entry.map(|entry| (entry.id, self.original(&look, &entry))));
                    self.settle(look, watcher);
                }
                identity => rest.push((look, matches!(identity, Identity::Displaced))),
            }
        }
        // Logs with a copy of a file that was truncated, which its lane has not noticed: what is newer waits for that.
        let mut undecided: HashSet<PathBuf> = HashSet::new();
        for (look, displaced) in rest {
            if undecided.contains(&look.log) {
                self.again = true;
                continue;
            }
            let identity = if displaced { Identity::New } else { self.by_log(&look, &alive) };
            match identity {
                Identity::Stream(order, entry) => {
                    alive.insert(entry.id, self.original(&look, &entry));
                    info!(path = %look.path.display(), stream = entry.id, "the stream goes on in another file");
                    lock(&self.register).moved(entry.id, look.id, look.born)?;
                    lock(&self.known).counts.copies += 1;
                    let mut file = self.found(look, order, entry);
                    file.copy = true;
                    found.push(file);
                }
                Identity::Read => {
                    lock(&self.known).counts.copies += 1;
                    self.settle(look, watcher);
                }
                Identity::Copy(of) => {
                    let known = lock(&self.known);
                    if let Some((id, status)) = of.and_then(|stream| known.open.iter().find(|(_, status)| status.stream == stream)) {
                        status.set_copy(&look.path);
                        if std::fs::metadata(status.path()).is_ok_and(|meta| (meta.dev(), meta.ino()) == *id) {
                            undecided.insert(look.log);
                        }
                    }
                }
                Identity::New | Identity::Displaced => {
                    let asked_for = !look.sibling || self.wanted.contains(&look.path);
                    let unpacked = look.path.with_extension("");
                    if !asked_for || (look.sibling && look.packing.is_some() && self.old.contains(&unpacked)) {
                        // Rotated away before anybody asked for this log.
                        self.old.insert(look.path.clone());
                        self.settle(look, watcher);
                        continue;
                    }
                    if !self.is_ready(&look, now)? {
                        self.follow_up(&look.path, look.symlink, watcher);
                        continue;
                    }
                    let at_end = self.first && self.config.start == Start::End;
                    if at_end && look.packing.is_some() {
                        self.settle(look, watcher);
                        continue;
                    }
                    let start = if at_end { last_line(&look.file, look.size)? } else { 0 };
                    let head = first_line(&look.head);
                    let file = NewFile {
                        source: &self.source,
                        log: &look.log,
                        id: look.id,
                        born: look.born,
                        head,
                        first_bytes: &look.head,
                        start,
                    };
                    let (order, entry) = lock(&self.register).add(file)?;
                    alive.insert(entry.id, self.original(&look, &entry));
                    self.wanted.remove(&look.path);
                    found.push(self.found(look, order, entry));
                }
            }
        }
        Ok(found)
    }

    /// A stream that this inode was registered for.
    fn by_inode(&self, look: &Look) -> Identity {
        let register = lock(&self.register);
        let mut known = lock(&self.known);
        let mut rewritten = None;
        for (order, entry) in register.by_inode(&self.source, look.id) {
            let reborn = entry.born != 0 && look.born != 0 && entry.born != look.born;
            if reborn || !has_head(look, entry) {
                rewritten.get_or_insert((StreamId(entry.id), reborn));
                continue;
            }
            let position = position(entry, &known);
            if let Some(packing) = look.packing {
                return if is_read_packed(look, packing, position, self.first) {
                    Identity::Read
                } else {
                    Identity::Stream(order, entry.clone())
                };
            }
            if !matches_before(&look.file, look.size, position) {
                displace(look, entry, &mut known);
                return Identity::Displaced;
            }
            return if !self.first && is_read(look.size, position, false) {
                Identity::Read
            } else {
                Identity::Stream(order, entry.clone())
            };
        }
        // The inode is known and its first line is another one: it was truncated and written anew, or given to another file.
        match rewritten {
            Some((stream, false)) => {
                if known.displaced.insert(stream) {
                    known.counts.truncations += 1;
                }
                Identity::Displaced
            }
            _ => Identity::New,
        }
    }

    /// A stream of the same log with the same first line: its bytes may be in this file now.
    fn by_log(&self, look: &Look, alive: &HashMap<u64, Original>) -> Identity {
        let register = lock(&self.register);
        let known = lock(&self.known);
        let live = look.age == Age::Live && look.path == look.log;
        let mut unread = Vec::new();
        for (order, entry) in register.by_log(&self.source, &look.log).filter(|(_, e)| has_head(look, e)) {
            if let Some(original) = alive.get(&entry.id) {
                // Where the original was truncated and its lane has not noticed yet, this is decided when it has.
                // So it is where an editor or a copy has replaced the original under its name.
                let intact = original.is_intact();
                let follows = intact || (live && matches_before(&look.file, look.size, original.position));
                if (live && !intact && follows) || (!live && (!intact || is_copy(look, &original.path))) {
                    return Identity::Copy((!live && !intact).then_some(entry.stream()));
                }
                continue;
            }
            let position = position(entry, &known);
            let displaced = known.displaced.contains(&StreamId(entry.id));
            if position.before == 0 {
                unread.push((order, entry, position, displaced));
            } else if let Some(identity) = goes_on(look, order, entry, position, displaced, live, self.first) {
                return identity;
            }
        }
        // Of streams of which nothing is known but their first lines the oldest one comes first, as files do.
        let mut unread = unread.into_iter().rev();
        let goes_on = |(order, entry, position, displaced)| goes_on(look, order, entry, position, displaced, live, self.first);
        unread.find_map(goes_on).unwrap_or(Identity::New)
    }

    /// Whether enough is there to know the file again: a first line, and not zeros that somebody will overwrite.
    fn is_ready(&self, look: &Look, now: UnixNanos) -> std::io::Result<bool> {
        let line = first_line(&look.head);
        if line.is_empty() {
            return Ok(false);
        }
        let zeros = line.iter().all(|b| *b == 0) || (!line.ends_with(b"\n") && line.ends_with(&[0]));
        if zeros && look.packing.is_none() {
            return data_behind(&look.file, look.size);
        }
        // Renamed away without a newline, it will not get one.
        let silent = now.0.saturating_sub(look.modified.0) >= 5_000_000_000;
        Ok(line.ends_with(b"\n") || line.len() == HEAD_BYTES_MAX || self.once || (look.age != Age::Live && silent))
    }

    fn original(&self, look: &Look, entry: &Entry) -> Original {
        Original { path: look.path.clone(), id: look.id, position: position(entry, &lock(&self.known)), head: entry.head() }
    }

    fn found(&self, look: Look, order: usize, entry: Entry) -> Found {
        let mut known = lock(&self.known);
        let position = position(&entry, &known);
        known.displaced.remove(&entry.stream());
        let size = if look.packing.is_some() { position.done } else { look.size };
        let status = Arc::new(FileStatus::new(&entry.path, &look.path, entry.stream(), entry.head(), position, size));
        let reader = self.lanes.reader(&entry.path);
        status.lane.store(reader.lane as u32, Ordering::Relaxed);
        Found {
            reader,
            log: entry.path,
            file: look.file,
            packing: look.packing,
            stream: StreamId(entry.id),
            position,
            id: look.id,
            order,
            modified: look.modified,
            status,
            encoding: encoding_of(&look.head),
            watched: false,
            copy: false,
        }
    }

    /// Nothing is to be done about this file until it changes.
    fn settle(&mut self, look: Look, watcher: &mut Option<&mut Watcher>) {
        self.follow_up(&look.path, look.symlink, watcher);
        // It took the place of a file that waits: that one is next.
        lock(&self.known).dirty |= self.crowded;
        self.settled.insert(look.path, (look.id, look.size, look.modified.0));
    }

    /// The finder wants to hear when this file changes.
    fn follow_up(&self, path: &Path, symlink: bool, watcher: &mut Option<&mut Watcher>) {
        if let Some(watcher) = watcher {
            watcher.follow(path, symlink, Concern::Finder);
        }
    }

    fn refuse(&mut self, refused: Vec<(PathBuf, Refusal)>) {
        let mut known = lock(&self.known);
        known.refused.clear();
        known.refused_counts.clear();
        for (path, refusal) in refused {
            if self.told.len() < REFUSED_MAX && self.told.insert(path.clone()) {
                warn!(path = %path.display(), reason = refusal.name(), "cannot read");
            }
            *known.refused_counts.entry(refusal).or_default() += 1;
            if known.refused.len() < REFUSED_MAX {
                known.refused.insert(path, refusal);
            }
        }
    }
}

/// A file that holds a stream.
struct Original {
    path: PathBuf,
    id: FileId,
    position: Position,
    head: Head,
}

impl Original {
    /// Whether it still holds what was read of it.
    fn is_intact(&self) -> bool {
        let Ok(file) = File::open(&self.path) else { return false };
        let Ok(meta) = file.metadata() else { return false };
        let mut head = [0; 8];
        let packed = read_full(&file, &mut head, 0).is_ok_and(|len| packing(&head[..len]).is_some());
        (meta.dev(), meta.ino()) == self.id
            && (packed || (self.head.is_in(&file).unwrap_or(false) && matches_before(&file, meta.len(), self.position)))
    }
}

fn position(entry: &Entry, known: &Known) -> Position {
    let unread = Position { resume: entry.start, done: entry.start, before: 0 };
    known.positions.get(&entry.stream()).copied().unwrap_or(unread)
}

fn displace(look: &Look, entry: &Entry, known: &mut Known) {
    // A lane that saw it first has told.
    if known.displaced.insert(entry.stream()) {
        known.counts.truncations += 1;
        warn!(path = %look.path.display(), size = look.size, "file was truncated: what nobody had read of it is lost unless a copy is found, and it is read from its start");
    }
}

/// Whether nothing of a file of this size is left to read. Where part of a record is held, the last newline waits with it, and a
/// lane has it; if this run has just begun (`first`), it has to be read again.
fn is_read(size: u64, position: Position, first: bool) -> bool {
    match position.resume < position.done {
        true => !first && (size == position.done || size == position.done + 1),
        false => size == position.done,
    }
}

/// The same for a compressed file, by the size that it states.
fn is_read_packed(look: &Look, packing: Packing, position: Position, first: bool) -> bool {
    // Of a size modulo 2^32 the rest is that of the position, give or take a newline.
    let Some(size) = stated_size(&look.file, packing, look.size) else { return false };
    let sizes = [position.done, position.done + 1];
    sizes.into_iter().any(|whole| stated(whole, packing) == size && is_read(whole, position, first))
}

/// Whether a stream that no file holds any more goes on in this one, which has its first line.
fn goes_on(look: &Look, order: usize, entry: &Entry, position: Position, displaced: bool, live: bool, first: bool) -> Option<Identity> {
    let stream = || Some(Identity::Stream(order, entry.clone()));
    match look.packing {
        Some(packing) => {
            if is_read_packed(look, packing, position, first) {
                return Some(Identity::Read);
            }
            match holds(look, packing, position) {
                Ok(Some(true)) if position.before != 0 || position.done == 0 => stream(),
                // Shorter than what was read of it: a copy that was made earlier, or one that is being made.
                Ok(None) if displaced => Some(Identity::Read),
                // A damaged file shows when it is read.
                Ok(_) | Err(_) => None,
            }
        }
        None if !live && is_read(look.size, position, first) && matches_before(&look.file, look.size, position) => Some(Identity::Read),
        None if look.size < position.done => (displaced && !live).then_some(Identity::Read),
        // One line alone does not tell a moved file from a new one with the same banner.
        None if live && position.done <= entry.head_len as u64 && entry.born != look.born => None,
        None if live && position.before == 0 => None,
        // Read, and nobody knows what: rather twice than not at all.
        None if position.before == 0 && position.done > 0 => (look.size == position.done).then_some(Identity::Read),
        None if matches_before(&look.file, look.size, position) => stream(),
        None => None,
    }
}

/// The size that a compressed file would state for so many bytes.
fn stated(bytes: u64, packing: Packing) -> u64 {
    if packing == Packing::Gzip { bytes & u64::from(u32::MAX) } else { bytes }
}

fn has_head(look: &Look, entry: &Entry) -> bool {
    let is = |len: usize, hash_of: u64| look.head.get(..len).is_some_and(|bytes| hash(&[bytes]) == hash_of);
    is(entry.head_len, entry.head_hash) && (entry.start_len <= entry.head_len || is(entry.start_len, entry.start_hash))
}

/// The first line, or as much of it as is looked at.
fn first_line(head: &[u8]) -> &[u8] {
    let line = memchr::memchr(b'\n', head).map_or(head.len(), |n| n + 1);
    &head[..line]
}

/// Whether the bytes before a position are those that were read.
fn matches_before(file: &File, size: u64, position: Position) -> bool {
    if size < position.done {
        return false;
    }
    if position.before == 0 {
        return true;
    }
    let len = position.done.min(BEFORE_BYTES as u64);
    let mut bytes = vec![0; len as usize];
    matches!(read_full(file, &mut bytes, position.done - len), Ok(n) if n as u64 == len) && before_hash(&bytes) == position.before
}

/// Whether a compressed file holds the bytes before a position; `None`: it is shorter.
fn holds(look: &Look, packing: Packing, position: Position) -> std::io::Result<Option<bool>> {
    let len = position.done.min(BEFORE_BYTES as u64);
    let mut unpacker = Unpacker::open(&look.file, packing)?;
    let mut bytes = vec![0; len as usize];
    if !unpacker.skip_to(position.done - len)? || (unpacker.read(&mut bytes)?.0 as u64) < len {
        return Ok(None);
    }
    Ok(Some(position.before == 0 || before_hash(&bytes) == position.before))
}

/// Whether a file starts, and as far as it goes ends, as the one at `path` does.
fn is_copy(look: &Look, path: &Path) -> bool {
    let Ok(original) = File::open(path) else { return false };
    let compare = || -> std::io::Result<bool> {
        let mut ours = vec![0; COMPARED_BYTES as usize];
        let mut theirs = vec![0; COMPARED_BYTES as usize];
        let len = match look.packing {
            Some(packing) => Unpacker::open(&look.file, packing)?.read(&mut ours)?.0,
            None => read_full(&look.file, &mut ours, 0)?,
        };
        let other = read_full(&original, &mut theirs[..len], 0)?;
        if other < len || ours[..len] != theirs[..len] || look.packing.is_some() {
            return Ok(other == len && ours[..len] == theirs[..len]);
        }
        let size = look.file.metadata()?.len();
        let from = size.saturating_sub(COMPARED_BYTES);
        let len = read_full(&look.file, &mut ours, from)?;
        let other = read_full(&original, &mut theirs[..len], from)?;
        Ok(other == len && ours[..len] == theirs[..len])
    };
    compare().unwrap_or(false)
}

/// Whether a file that begins with zeros holds data behind them: then they are a hole, and nobody will fill it.
fn data_behind(file: &File, size: u64) -> std::io::Result<bool> {
    let mut bytes = [0; 4096];
    let data = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)).unwrap_or(size);
    for from in [data, size.saturating_sub(4096)] {
        let len = read_full(file, &mut bytes, from)?;
        if bytes[..len].iter().any(|b| *b != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn kind_refused(meta: &Metadata) -> Option<Refusal> {
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some(Refusal::Directory),
        () if kind.is_fifo() => Some(Refusal::Fifo),
        () if kind.is_socket() => Some(Refusal::Socket),
        () => Some(Refusal::Device),
    }
}

fn fingerprint(meta: &Metadata) -> Fingerprint {
    ((meta.dev(), meta.ino()), meta.len(), modified(meta).0)
}

fn is_symlink(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink())
}

fn inodes_of(folder: &Path) -> HashMap<u64, PathBuf> {
    use std::os::unix::fs::DirEntryExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return HashMap::new() };
    entries.flatten().map(|e| (e.ino(), e.path())).collect()
}

/// Where the last line of a file begins that has no newline yet; its end, where there is none.
fn last_line(file: &File, size: u64) -> std::io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut end = size;
    let mut buffer = vec![0; STEP as usize];
    // A line that is longer than any is taken as cut anyway: its rest may be read as a line.
    while end > size.saturating_sub(16 << 20) {
        let start = end.saturating_sub(STEP);
        let piece = &mut buffer[..(end - start) as usize];
        let len = read_full(file, piece, start)?;
        if let Some(newline) = memchr::memrchr(b'\n', &piece[..len]) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(if end == 0 { 0 } else { size })
}

/// Reads until the buffer is full or the file ends.
pub fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reading_from_the_end_begins_with_a_whole_line() {
        for (text, want) in [("", 0), ("a\nb\n", 4), ("a\nb", 2), ("abc", 0)] {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(text.as_bytes()).expect("room for a few bytes");
            assert_eq!(last_line(&file, text.len() as u64).unwrap(), want, "{text:?}");
        }
        let mut file = tempfile::tempfile().expect("a temporary file");
        let text = format!("a\n{}", "x".repeat(200_000));
        file.write_all(text.as_bytes()).expect("room for a few bytes");
        assert_eq!(last_line(&file, text.len() as u64).unwrap(), 2);
    }
}
