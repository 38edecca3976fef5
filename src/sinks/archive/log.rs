//! `archive.log`: what the archive holds, as checksummed lines; the archive is what this log says.
//!
//! One line is `<crc32, 8 hex digits> <JSON>\n`. What is about to be done is *announced* (`open`, `rotate`)
//! before it is done and holds only once a `commit` line follows: it names the committed length of every
//! touched file and the position of every stream, and is the atomic step. What was announced and not
//! committed is undone at recovery. In: lines; out: the [`State`] they add up to. Bound: past
//! [`COMPACT_BYTES`] and twice its last snapshot the log is rewritten as one `state` line.

use anyhow::{Context, bail};
use hub::disk::{Disk, File};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub const NAME: &str = "archive.log";
pub const SITE_ANNOUNCE: &str = "archive.log announce";
pub const SITE_COMMIT: &str = "archive.log commit";
const SITE_SNAPSHOT_FILE: &str = "archive.log snapshot file";
const SITE_SNAPSHOT_RENAME: &str = "archive.log snapshot rename";
const SITE_SNAPSHOT_FOLDER: &str = "archive.log snapshot folder";
const SITE_LOG_FOLDER: &str = "archive.log folder";
const SITE_UNTEAR: &str = "archive.log untear";

const COMPACT_BYTES: u64 = 1 << 20;
/// A log is at most a snapshot of all files and positions plus [`COMPACT_BYTES`]; more is not ours.
const LOG_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// All there is; the first line of a log.
    State {
        generations: u64,
        clock_ns: i64,
        files: Vec<Entry>,
        positions: Vec<(String, u64)>,
        unpacked: Vec<String>,
        #[serde(default)]
        inner_newlines: u64,
    },
    /// `name` is about to be written to. `base`: its length where it existed before us.
    Open { generation: u64, name: String, base: Option<u64> },
    /// The file is about to be renamed.
    Rotate { generation: u64, backup: String },
    /// Somebody removed or replaced the file; another generation goes on under its name.
    Lost { generation: u64 },
    /// Everything up to these lengths and positions holds, and nothing else that was announced.
    Commit {
        files: Vec<Entry>,
        moved: Vec<Moved>,
        gone: Vec<u64>,
        positions: Vec<(String, u64)>,
        ended: Vec<String>,
        clock_ns: i64,
        #[serde(default)]
        inner_newlines: u64,
    },
    /// The backup is compressed and its plain file is removed.
    Packed { name: String },
    /// The backup is removed: it was one too many, or too old.
    Deleted { name: String },
}

/// An active file. Its identity is our own number and not the inode, so that two runs give the same log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub generation: u64,
    /// Relative to the archive's folder.
    pub name: String,
    pub len: u64,
    /// Newest event time in the file.
    pub newest_ns: i64,
    /// Arrival of its first row.
    #[serde(default = "unknown")]
    pub begun_ns: i64,
}

fn unknown() -> i64 {
    i64::MIN
}

/// A file that became a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub generation: u64,
    pub name: String,
    pub backup: String,
    pub len: u64,
    /// It is to be compressed.
    pub pack: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Generations are numbered from 1; this is the last one given.
    pub generations: u64,
    /// Newest event time seen.
    pub clock_ns: i64,
    /// Newlines within records since the beginning: a record of several lines is several lines of a file.
    pub inner_newlines: u64,
    pub files: BTreeMap<u64, Entry>,
    pub positions: BTreeMap<u64, u64>,
    /// Backups that wait for compression.
    pub unpacked: BTreeSet<String>,
    /// Announced since the last commit, in order.
    pub announced: Vec<Line>,
}

impl State {
    pub fn apply(&mut self, line: Line) {
        match line {
            Line::State { generations, clock_ns, files, positions, unpacked, inner_newlines } => {
                *self = State { generations, clock_ns, inner_newlines, unpacked: unpacked.into_iter().collect(), ..State::default() };
                self.take(files, positions);
            }
            Line::Open { generation, .. } => {
                self.generations = self.generations.max(generation);
                self.announced.push(line);
            }
            Line::Rotate { .. } | Line::Lost { .. } => self.announced.push(line),
            Line::Commit { files, moved, gone, positions, ended, clock_ns, inner_newlines } => {
                self.inner_newlines = inner_newlines;
                self.announced.clear();
                self.clock_ns = self.clock_ns.max(clock_ns);
                for entry in moved {
                    self.generations = self.generations.max(entry.generation);
                    self.files.remove(&entry.generation);
                    if entry.pack {
                        self.unpacked.insert(entry.backup);
                    }
                }
                for generation in gone {
                    self.files.remove(&generation);
                }
                self.take(files, positions);
                for stream in ended {
                    self.positions.remove(&parse_stream(&stream));
                }
            }
            Line::Packed { name } | Line::Deleted { name } => {
                self.unpacked.remove(&name);
            }
        }
    }

    fn take(&mut self, files: Vec<Entry>, positions: Vec<(String, u64)>) {
        for entry in files {
            self.generations = self.generations.max(entry.generation);
            self.files.insert(entry.generation, entry);
        }
        for (stream, done) in positions {
            self.positions.insert(parse_stream(&stream), done);
        }
    }

    fn line(&self) -> Line {
        Line::State {
            generations: self.generations,
            clock_ns: self.clock_ns,
            files: self.files.values().cloned().collect(),
            positions: self.positions.iter().map(|(stream, done)| (stream_text(*stream), *done)).collect(),
            unpacked: self.unpacked.iter().cloned().collect(),
            inner_newlines: self.inner_newlines,
        }
    }
}

/// 16 hex digits: a JSON reader that thinks in doubles would round a number.
pub fn stream_text(stream: u64) -> String {
    format!("{stream:016x}")
}

fn parse_stream(text: &str) -> u64 {
    // The checksum vouches for the text; anything else was never written.
    u64::from_str_radix(text, 16).unwrap_or(0)
}

pub struct Log {
    disk: Disk,
    folder: PathBuf,
    path: PathBuf,
    file: Option<File>,
    len: u64,
    /// Length right after the last snapshot.
    snapshot_len: u64,
    /// An append failed: bytes after `len` may be there.
    is_torn: bool,
    /// Why nothing more may be written: what is on disk is not known any more.
    failed: Option<String>,
}

impl Log {
    /// Reads the log up to its last good line. Writes nothing but the folder.
    pub fn open(disk: &Disk, folder: &Path) -> anyhow::Result<(Log, State, u64)> {
        create_folder(disk, folder, SITE_LOG_FOLDER)?;
        let path = folder.join(NAME);
        let mut log = Log {
            disk: disk.clone(),
            folder: folder.to_path_buf(),
            path,
            file: None,
            len: 0,
            snapshot_len: 0,
            is_torn: false,
            failed: None,
        };
        let mut state = State::default();
        if !disk.exists(&log.path)? {
            return Ok((log, state, 0));
        }
        let len = disk.len(&log.path)?;
        if len > LOG_BYTES_MAX {
            bail!("{} has {len} bytes; a log of ours is never longer than {LOG_BYTES_MAX}", log.path.display());
        }
        let bytes = disk.read(&log.path).with_context(|| format!("cannot read {}", log.path.display()))?;
        let mut rest = &bytes[..];
        while let Some((line, after)) = next_line(rest) {
            state.apply(line);
            rest = after;
        }
        log.len = (bytes.len() - rest.len()) as u64;
        if log.len == 0 && !bytes.is_empty() {
            // The first line was made durable before the file got its name, so no crash gives this.
            bail!("{} is damaged at its first line; restore it, or move it and its files away", log.path.display());
        }
        Ok((log, state, rest.len() as u64))
    }

    /// Replaces the log by one line that holds `state`, durably. Every open does this: lines that a killed
    /// process wrote but never synced are relied upon only after it.
    pub fn snapshot(&mut self, state: &State) -> anyhow::Result<()> {
        self.check()?;
        debug_assert!(state.announced.is_empty(), "a snapshot holds only what is committed");
        let mut bytes = Vec::new();
        push_line(&mut bytes, &state.line());
        let tmp = self.folder.join(format!("{NAME}.tmp"));
        let write = || -> io::Result<()> {
            let mut file = self.disk.create_or_truncate(&tmp)?;
            file.append(&bytes)?;
            file.sync(SITE_SNAPSHOT_FILE)
        };
        write().with_context(|| format!("cannot write {}", tmp.display()))?;
        // From here on a failure leaves either log in place: only a fresh start can tell which.
        self.file = None;
        let switch =
            self.disk.rename(&tmp, &self.path, SITE_SNAPSHOT_RENAME).and_then(|()| self.disk.sync_dir(&self.folder, SITE_SNAPSHOT_FOLDER));
        self.keep(switch, "cannot replace")?;
        self.len = bytes.len() as u64;
        self.snapshot_len = self.len;
        self.is_torn = false;
        Ok(())
    }

    pub fn is_long(&self) -> bool {
        self.len > COMPACT_BYTES.max(2 * self.snapshot_len)
    }

    /// Appends lines; they are durable after the next `sync`. After an error nothing was appended.
    pub fn append(&mut self, lines: &[Line]) -> anyhow::Result<()> {
        self.check()?;
        let mut bytes = Vec::new();
        for line in lines {
            push_line(&mut bytes, line);
        }
        let mut write = || -> io::Result<()> {
            if self.is_torn {
                self.disk.truncate(&self.path, self.len, SITE_UNTEAR)?;
                self.is_torn = false;
            }
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(self.disk.open_append(&self.path)?),
            };
            file.append(&bytes).inspect_err(|_| self.is_torn = true)
        };
        let result = write();
        if result.is_err() {
            self.file = None;
        }
        result.with_context(|| format!("cannot append to {}", self.path.display()))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub fn sync(&mut self, site: &'static str) -> anyhow::Result<()> {
        self.check()?;
        let synced = match &mut self.file {
            Some(file) => file.sync(site),
            None => Ok(()),
        };
        // After a failed fsync the kernel may call lost pages clean: a second fsync would lie.
        self.keep(synced, "cannot sync")
    }

    /// Lets nothing more be written after a failure that leaves the disk's content unknown.
    pub fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }

    pub fn check(&self) -> anyhow::Result<()> {
        match &self.failed {
            Some(why) => bail!("{why}; the archive must be opened again"),
            None => Ok(()),
        }
    }

    pub fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn keep(&mut self, result: io::Result<()>, what: &str) -> anyhow::Result<()> {
        if let Err(error) = result {
            self.fail(format!("{what} {}: {error}", self.path.display()));
        }
        self.check()
    }
}

/// Creates a folder and makes it durable with all above it, also where a process was killed between the two.
pub fn create_folder(disk: &Disk, folder: &Path, site: &'static str) -> anyhow::Result<()> {
    disk.create_dir_all(folder, site).with_context(|| format!("cannot create {}", folder.display()))?;
    for above in folder.ancestors().skip(1).filter(|f| !f.as_os_str().is_empty()) {
        match disk.sync_dir(above, site) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => break, // not ours, so not created by us
            other => other.with_context(|| format!("cannot sync folder {}", above.display()))?,
        }
    }
    Ok(())
}

fn push_line(bytes: &mut Vec<u8>, line: &Line) {
    let json = serde_json::to_vec(line).expect("strings and integers always have a JSON form");
    bytes.extend_from_slice(format!("{:08x} ", crc32fast::hash(&json)).as_bytes());
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
}

/// The first line of `bytes` and what follows it; `None` where it is torn, damaged or absent.
fn next_line(bytes: &[u8]) -> Option<(Line, &[u8])> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let crc = u32::from_str_radix(std::str::from_utf8(line.get(..8)?).ok()?, 16).ok()?;
    let json = line.get(8..)?.strip_prefix(b" ")?;
    if crc32fast::hash(json) != crc {
        return None;
    }
    Some((serde_json::from_slice(json).ok()?, rest))
}
