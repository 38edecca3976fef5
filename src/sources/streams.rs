//! Which file is which: the register of streams, kept in `streams.log`.
//!
//! In: a file's device, inode and head. Out: its `StreamId`, the same after a restart, a rename or a move of
//! the whole data folder. A file is known by (device, inode) as long as its head is the one it was registered
//! with; a file whose head changed under the same inode is a new stream. The id itself is a hash of source,
//! path at first sight, head and generation, so that it is the same on every machine, and a lost register
//! does not make a store take the same bytes twice. A stream whose bytes moved to another inode (a copy, a
//! remount) gets a second line with the same id, and the last line counts. Memory and disk: one line of about 200
//! bytes per file ever seen; lines are checksummed, a torn last one is cut off, a damaged one is left out and told.

use anyhow::Context;
use flow::event::StreamId;
use hub::disk::{Disk, File};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A stream's head is its first line, or this many bytes of it.
pub const HEAD_BYTES_MAX: usize = 1024;

/// One registered stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub id: u64,
    pub source: String,
    /// Path of the log: where the stream was first seen, before any rename.
    pub path: PathBuf,
    pub dev: u64,
    pub ino: u64,
    /// When the file was born, in nanoseconds since the epoch; 0 where the file system does not tell.
    #[serde(default)]
    pub born: i64,
    pub head_len: usize,
    pub head_hash: u64,
    /// As many of its first bytes as were there when it was registered, at most [`HEAD_BYTES_MAX`]: first lines may be alike.
    #[serde(default)]
    pub start_len: usize,
    #[serde(default)]
    pub start_hash: u64,
    /// How many streams with the same source, path and head came before.
    pub generation: u32,
    /// Reading starts here: not 0 where config says `start: end`.
    pub start: u64,
}

/// All registered streams, in order of registration.
pub struct Register {
    disk: Disk,
    path: PathBuf,
    file: Option<File>,
    /// Bytes of whole lines.
    len: u64,
    entries: Vec<Entry>,
    by_id: HashMap<u64, usize>,
    by_inode: HashMap<(u64, u64), Vec<usize>>,
    by_log: HashMap<PathBuf, Vec<usize>>,
    /// Lines were written that are not durable yet.
    unsynced: bool,
    generations: HashMap<(String, PathBuf, u64), u32>,
}

impl Register {
    /// Reads the register. The second value names what was wrong with it, for the log.
    pub fn open(disk: Disk, path: &Path) -> anyhow::Result<(Register, Vec<String>)> {
        let mut register = Register {
            disk,
            path: path.to_path_buf(),
            file: None,
            len: 0,
            entries: Vec::new(),
            by_id: HashMap::new(),
            by_inode: HashMap::new(),
            by_log: HashMap::new(),
            unsynced: false,
            generations: HashMap::new(),
        };
        let mut notices = Vec::new();
        if !register.disk.exists(path)? {
            register.open_file()?;
            return Ok((register, notices));
        }
        let text = register.disk.read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut good = 0;
        for line in text.split_inclusive(|b| *b == b'\n') {
            match parse_line(line) {
                Some(entry) => register.remember(entry),
                None if line.ends_with(b"\n") => notices.push(format!("{}: a damaged line at byte {good} is left out", path.display())),
                None => {
                    notices.push(format!("{}: a torn last line of {} bytes is cut off", path.display(), line.len()));
                    register.disk.truncate(path, good as u64, "streams-cut")?;
                    break;
                }
            }
            good += line.len();
        }
        register.len = good as u64;
        register.open_file()?;
        Ok((register, notices))
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Streams of a source that this inode was registered for, the newest first: an inode may have been used again.
    pub fn by_inode<'a>(&'a self, source: &'a str, file: (u64, u64)) -> impl Iterator<Item = (usize, &'a Entry)> {
        self.newest_first(source, self.by_inode.get(&file)).filter(move |(_, e)| (e.dev, e.ino) == file)
    }

    /// Streams of a log, the newest first.
    pub fn by_log<'a>(&'a self, source: &'a str, log: &Path) -> impl Iterator<Item = (usize, &'a Entry)> {
        self.newest_first(source, self.by_log.get(log))
    }

    fn newest_first<'a>(&'a self, source: &'a str, numbers: Option<&'a Vec<usize>>) -> impl Iterator<Item = (usize, &'a Entry)> {
        numbers.into_iter().flatten().rev().map(|n| (*n, &self.entries[*n])).filter(move |(_, e)| e.source == source)
    }

    /// Registers a file. The id must outlive whatever a store says about it: [`Register::sync`] before anything is read.
    pub fn add(&mut self, file: NewFile) -> anyhow::Result<(usize, Entry)> {
        let NewFile { source, log, id: (dev, ino), born, head, first_bytes, start } = file;
        let head_hash = hash(&[head]);
        let generation = self.generations.get(&(source.to_string(), log.to_path_buf(), head_hash)).map_or(0, |g| g + 1);
        let id = hash(&[source.as_bytes(), log.as_os_str().as_encoded_bytes(), &head_hash.to_le_bytes(), &generation.to_le_bytes()]);
        let entry = Entry {
            id,
            source: source.into(),
            path: log.into(),
            dev,
            ino,
            born,
            head_len: head.len(),
            head_hash,
            start_len: first_bytes.len(),
            start_hash: hash(&[first_bytes]),
            generation,
            start,
        };
        self.append(entry.clone())?;
        Ok((self.by_id[&id], entry))
    }

    /// The bytes of a stream are in another file now.
    pub fn moved(&mut self, id: u64, file: (u64, u64), born: i64) -> anyhow::Result<()> {
        let entry = Entry { dev: file.0, ino: file.1, born, ..self.entries[self.by_id[&id]].clone() };
        self.append(entry)
    }

    fn append(&mut self, entry: Entry) -> anyhow::Result<()> {
        let json = serde_json::to_string(&entry).expect("an entry is plain data");
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        self.open_file()?;
        let context = || format!("cannot write {}", self.path.display());
        let file = self.file.as_mut().expect("opened just before");
        if let Err(error) = file.append(line.as_bytes()).with_context(context) {
            // A torn line would spoil the next one.
            self.cut_torn();
            return Err(error);
        }
        self.len += line.len() as u64;
        self.unsynced = true;
        self.remember(entry);
        Ok(())
    }

    /// Opens the file, early: later there may be no descriptor left for it.
    fn open_file(&mut self) -> anyhow::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let context = || format!("cannot write {}", self.path.display());
        let file = match self.disk.exists(&self.path).with_context(context)? {
            true => self.disk.open_append(&self.path),
            false => self.disk.create_new(&self.path),
        };
        self.file = Some(file.with_context(context)?);
        let folder = self.path.parent().expect("the register lies in the data folder");
        self.disk.sync_dir(folder, "streams-dir").with_context(context)
    }

    fn cut_torn(&mut self) {
        self.file = None;
        // If this fails too, the next start cuts what is torn.
        let _ = self.disk.truncate(&self.path, self.len, "streams-torn");
    }

    /// Makes durable what was registered.
    pub fn sync(&mut self) -> anyhow::Result<()> {
        if self.unsynced
            && let Some(file) = self.file.as_mut()
        {
            file.sync("streams").with_context(|| format!("cannot write {}", self.path.display()))?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn remember(&mut self, entry: Entry) {
        let generation = self.generations.entry((entry.source.clone(), entry.path.clone(), entry.head_hash)).or_default();
        *generation = (*generation).max(entry.generation);
        let number = match self.by_id.get(&entry.id) {
            Some(number) => *number,
            None => {
                let number = self.entries.len();
                self.by_id.insert(entry.id, number);
                self.by_log.entry(entry.path.clone()).or_default().push(number);
                self.entries.push(entry.clone());
                number
            }
        };
        let numbers = self.by_inode.entry((entry.dev, entry.ino)).or_default();
        numbers.retain(|n| *n != number);
        numbers.push(number);
        self.entries[number] = entry;
    }
}

/// A file that is seen for the first time.
pub struct NewFile<'a> {
    pub source: &'a str,
    /// Path of the log it belongs to.
    pub log: &'a Path,
    /// Device and inode.
    pub id: (u64, u64),
    pub born: i64,
    pub head: &'a [u8],
    /// The head and what follows it, as far as it is there; at most [`HEAD_BYTES_MAX`].
    pub first_bytes: &'a [u8],
    pub start: u64,
}

/// The first line of a stream, as it was registered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    pub len: usize,
    pub hash: u64,
}

impl Head {
    /// Whether a file begins with it. Without a first line any file does.
    pub fn is_in(&self, file: &std::fs::File) -> std::io::Result<bool> {
        let mut bytes = [0; HEAD_BYTES_MAX];
        let bytes = &mut bytes[..self.len];
        Ok(self.len == 0 || (super::file::read_full(file, bytes, 0)? == self.len && hash(&[bytes]) == self.hash))
    }
}

impl Entry {
    pub fn head(&self) -> Head {
        Head { len: self.head_len, hash: self.head_hash }
    }

    pub fn stream(&self) -> StreamId {
        StreamId(self.id)
    }
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let line = line.strip_suffix(b"\n")?;
    let (crc, json) = (line.get(..8)?, line.get(9..)?);
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    if crc32fast::hash(json) != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// FNV-1a-64 over length-prefixed parts, mixed (Steele 2014).
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    flow::step::sample::key_hash(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::disk::{Loss, Sim};
    use std::sync::Arc;

    fn file(ino: u64) -> NewFile<'static> {
        NewFile { source: "pods", log: Path::new("a.log"), id: (1, ino), born: 0, head: b"head\n", first_bytes: b"head\nmore", start: 0 }
    }

    /// Registers two files with one head, crashing at operation `at`; what was registered must be known after
    /// any loss, or the next run would give its id to another file.
    fn survives(at: u64, loss: Loss, broken: Option<&'static str>) -> bool {
        let sim = Arc::new(Sim::new(3));
        let disk = Disk::Sim(Arc::clone(&sim));
        let path = Path::new("/data/streams.log");
        disk.create_dir_all(Path::new("/data"), "folder").expect("an empty disk takes a folder");
        let before = sim.ops();
        if let Some(site) = broken {
            sim.break_site(site);
        }
        sim.crash_at(before + at);
        let mut added = Vec::new();
        if let Ok((mut register, _)) = Register::open(disk, path) {
            let mut add = |ino| {
                let (_, entry) = register.add(file(ino)).ok()?;
                register.sync().ok().map(|()| entry)
            };
            added = (0..2).map_while(&mut add).collect();
        }
        // A second start cuts a torn line, and a third one sees what the second left.
        let sim = Arc::new(sim.reboot(loss));
        if let Some(site) = broken {
            sim.break_site(site);
        }
        let Ok((second, _)) = Register::open(Disk::Sim(Arc::clone(&sim)), path) else { return false };
        let known = second.entries().to_vec();
        let Ok((third, notices)) = Register::open(Disk::Sim(Arc::new(sim.reboot(loss))), path) else { return false };
        known.starts_with(&added) && third.entries() == known && notices.is_empty()
    }

    fn holds(broken: Option<&'static str>) -> bool {
        let losses = (0..60).map(Loss::Seeded).chain([Loss::LoseUnsynced, Loss::KeepAll]);
        losses.into_iter().all(|loss| (0..8).all(|at| survives(at, loss, broken)))
    }

    #[test]
    fn a_registered_stream_is_known_after_any_crash() {
        assert!(holds(None));
    }

    #[test]
    fn every_sync_of_the_register_is_needed() {
        for site in ["streams", "streams-dir", "streams-cut"] {
            assert!(!holds(Some(site)), "{site} could be left out");
        }
    }

    #[test]
    fn a_register_survives_restarts_torn_lines_and_used_inodes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("streams.log");
        let (mut register, _) = Register::open(Disk::Real, &path).unwrap();
        let (_, a) = register.add(file(10)).unwrap();
        let (_, b) = register.add(file(11)).unwrap();
        register.moved(b.id, (2, 12), 7).unwrap();
        assert_ne!(a.id, b.id, "the same head again is another generation");
        std::fs::write(&path, [std::fs::read(&path).unwrap(), b"0000 torn".to_vec()].concat()).unwrap();
        let (register, notices) = Register::open(Disk::Real, &path).unwrap();
        assert_eq!(notices.len(), 1, "{notices:?}");
        let ids = |file| register.by_inode("pods", file).map(|(_, e)| e.id).collect::<Vec<_>>();
        assert_eq!((ids((1, 10)), ids((1, 11)), ids((2, 12))), (vec![a.id], vec![], vec![b.id]), "the last line of a stream counts");
        assert_eq!(register.by_log("pods", Path::new("a.log")).map(|(n, e)| (n, e.id)).collect::<Vec<_>>(), [(1, b.id), (0, a.id)]);
        assert_eq!(register.by_log("nodes", Path::new("a.log")).count(), 0);
    }
}
