//! Which file is which: the register of streams, kept in `streams.log`.
//!
//! In: a file's device, inode and head. Out: its `StreamId`, the same after a restart, a rename or a move of
//! the whole data folder. A file is known by (device, inode) as long as its head is the one it was registered
//! with; a file whose head changed under the same inode is a new stream. The id itself is a hash of source,
//! path at first sight, head and generation, so that it is the same on every machine, and a lost register
//! does not make a store take the same bytes twice. Memory and disk: one line of about 200 bytes per file
//! ever seen; lines are checksummed, a torn last one is cut off, a damaged one is left out and told.

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
    pub head_len: usize,
    pub head_hash: u64,
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
    entries: Vec<Entry>,
    by_inode: HashMap<(String, u64, u64), Vec<usize>>,
    generations: HashMap<(String, PathBuf, u64), u32>,
}

impl Register {
    /// Reads the register. The second value names what was wrong with it, for the log.
    pub fn open(disk: Disk, path: &Path) -> anyhow::Result<(Register, Vec<String>)> {
        let mut register = Register {
            disk,
            path: path.to_path_buf(),
            file: None,
            entries: Vec::new(),
            by_inode: HashMap::new(),
            generations: HashMap::new(),
        };
        let mut notices = Vec::new();
        if !register.disk.exists(path)? {
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
        Ok((register, notices))
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The stream that this file is, if its head is still the one that was registered. Newest first, as an
    /// inode may have been used again.
    pub fn find(&self, source: &str, dev: u64, ino: u64, head_hash_of: &mut dyn FnMut(usize) -> Option<u64>) -> Option<&Entry> {
        let candidates = self.by_inode.get(&(source.to_string(), dev, ino))?;
        candidates.iter().rev().map(|n| &self.entries[*n]).find(|e| head_hash_of(e.head_len) == Some(e.head_hash))
    }

    /// Registers a file, durably: the id must outlive whatever a store says about it.
    pub fn add(&mut self, source: &str, path: &Path, dev: u64, ino: u64, head: &[u8], start: u64) -> anyhow::Result<Entry> {
        let head_hash = hash(&[head]);
        let generation = self.generations.get(&(source.to_string(), path.to_path_buf(), head_hash)).map_or(0, |g| g + 1);
        let id = hash(&[source.as_bytes(), path.as_os_str().as_encoded_bytes(), &head_hash.to_le_bytes(), &generation.to_le_bytes()]);
        let entry = Entry { id, source: source.into(), path: path.into(), dev, ino, head_len: head.len(), head_hash, generation, start };
        let json = serde_json::to_string(&entry).expect("an entry is plain data");
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        let context = || format!("cannot write {}", self.path.display());
        if self.file.is_none() {
            let file = match self.disk.exists(&self.path).with_context(context)? {
                true => self.disk.open_append(&self.path),
                false => self.disk.create_new(&self.path),
            };
            self.file = Some(file.with_context(context)?);
            let folder = self.path.parent().expect("the register lies in the data folder");
            self.disk.sync_dir(folder, "streams-dir").with_context(context)?;
        }
        let file = self.file.as_mut().expect("opened just before");
        file.append(line.as_bytes()).and_then(|()| file.sync("streams")).with_context(context)?;
        self.remember(entry.clone());
        Ok(entry)
    }

    fn remember(&mut self, entry: Entry) {
        let generation = self.generations.entry((entry.source.clone(), entry.path.clone(), entry.head_hash)).or_default();
        *generation = (*generation).max(entry.generation);
        self.by_inode.entry((entry.source.clone(), entry.dev, entry.ino)).or_default().push(self.entries.len());
        self.entries.push(entry);
    }
}

impl Entry {
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
        let (mut register, _) = Register::open(disk, path).expect("nothing is there yet");
        let added: Vec<Entry> = (0..2).map_while(|ino| register.add("pods", Path::new("a.log"), 1, ino, b"head\n", 0).ok()).collect();
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
        let a = register.add("pods", Path::new("a.log"), 1, 10, b"first\n", 0).unwrap();
        let b = register.add("pods", Path::new("a.log"), 1, 11, b"first\n", 0).unwrap();
        assert_ne!(a.id, b.id, "the same head again is another generation");
        std::fs::write(&path, [std::fs::read(&path).unwrap(), b"0000 torn".to_vec()].concat()).unwrap();
        let (register, notices) = Register::open(Disk::Real, &path).unwrap();
        assert_eq!(notices.len(), 1, "{notices:?}");
        let head = |_: usize| Some(hash(&[b"first\n"]));
        assert_eq!(register.find("pods", 1, 10, &mut { head }).map(|e| e.id), Some(a.id));
        assert_eq!(register.find("pods", 1, 10, &mut |_| Some(7)), None, "another head is another file");
        assert_eq!(register.find("pods", 1, 12, &mut { head }), None);
    }
}
