//! The `file` source: finds files by pattern, knows them again, follows growth and rotation by renaming.
//!
//! In: patterns, the register of streams, the positions that the last run left. Out: opened files, each with
//! its stream and the place to go on reading, grouped into logs: a path and the files that were renamed away
//! from it, oldest first. A file is read by whoever owns its log; this one only finds. Memory: 100 bytes for
//! each file that is open.

use super::streams::{Entry, HEAD_BYTES_MAX, Register, hash};
use super::{FileConfig, Start};
use anyhow::Context;
use flow::event::{Position, StreamId};
use flow::units::UnixNanos;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tracing::{info, warn};

/// A file to read, found at `path`.
pub struct Found {
    /// Path of the log this file belongs to: where its stream was first seen.
    pub log: PathBuf,
    pub file: File,
    pub stream: StreamId,
    pub position: Position,
    pub id: FileId,
    /// Stands in for the time of records that have none, until one had.
    pub modified: UnixNanos,
}

/// Device and inode.
pub type FileId = (u64, u64);

/// What the finder and the lanes both know of a source's files.
#[derive(Default)]
pub struct Known {
    /// Files that some lane holds open.
    pub open: HashSet<FileId>,
    /// How far streams were read that no lane holds open: by the last run, or before they were closed.
    pub positions: HashMap<StreamId, Position>,
}

pub struct Finder {
    source: String,
    config: FileConfig,
    exclude: Vec<glob::Pattern>,
    register: Arc<Mutex<Register>>,
    known: Arc<Mutex<Known>>,
    first: bool,
    once: bool,
    /// Paths that could not be opened, so that each is told once.
    refused: HashSet<PathBuf>,
}

impl Finder {
    pub fn new(
        source: &str,
        config: FileConfig,
        register: Arc<Mutex<Register>>,
        recovered: HashMap<StreamId, Position>,
        once: bool,
    ) -> anyhow::Result<Finder> {
        let exclude = config.exclude.iter().map(|p| glob::Pattern::new(p)).collect::<Result<_, _>>().context("exclude")?;
        let known = Arc::new(Mutex::new(Known { open: HashSet::new(), positions: recovered }));
        Ok(Finder { source: source.into(), config, exclude, register, known, first: true, once, refused: HashSet::new() })
    }

    pub fn known(&self) -> Arc<Mutex<Known>> {
        Arc::clone(&self.known)
    }

    /// Files that nobody holds open yet, those of one log oldest first, logs by path.
    pub fn scan(&mut self) -> anyhow::Result<Vec<Found>> {
        let mut paths = Vec::new();
        for pattern in self.config.include.clone() {
            for path in glob::glob(&pattern).with_context(|| format!("include {pattern}"))? {
                match path {
                    Ok(path) if !self.exclude.iter().any(|p| p.matches_path(&path)) => paths.push(path),
                    Ok(_) => {}
                    Err(error) => self.refuse(error.path().to_path_buf(), error.error()),
                }
            }
        }
        paths.sort();
        paths.dedup();
        if self.first {
            paths.extend(self.renamed_away(&paths));
        }
        let logs = self.logs(&paths);
        let mut looks: Vec<Look> = paths.into_iter().filter_map(|path| Look::at(path, &logs)).collect();
        // Files that were renamed away come before the one that has the log's name now, the oldest first.
        looks.sort_by(|a, b| (&a.log, a.path == a.log, a.modified, &a.path).cmp(&(&b.log, b.path == b.log, b.modified, &b.path)));
        let mut found: BTreeMap<(PathBuf, usize), Found> = BTreeMap::new();
        for look in looks {
            match self.look(&look) {
                Ok(Some((order, file))) => {
                    found.insert((file.log.clone(), order), file);
                }
                Ok(None) => {}
                Err(error) => self.refuse(look.path, &error),
            }
        }
        self.first = false;
        Ok(found.into_values().collect())
    }

    /// Paths that may be the present name of a log.
    fn logs(&self, paths: &[PathBuf]) -> HashSet<PathBuf> {
        let register = self.lock();
        let registered = register.entries().iter().filter(|e| e.source == self.source).map(|e| e.path.clone());
        registered.chain(paths.iter().cloned()).collect()
    }

    /// Files of known streams that were renamed while nobody looked and no pattern finds any more.
    fn renamed_away(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let register = self.lock();
        let mut folders: HashMap<PathBuf, HashMap<FileId, PathBuf>> = HashMap::new();
        let seen: HashSet<FileId> = paths.iter().filter_map(|p| std::fs::metadata(p).ok()).map(|m| (m.dev(), m.ino())).collect();
        let mut missing = Vec::new();
        for entry in register.entries().iter().filter(|e| e.source == self.source && !seen.contains(&(e.dev, e.ino))) {
            let Some(folder) = entry.path.parent() else { continue };
            let files = folders.entry(folder.to_path_buf()).or_insert_with(|| files_of(folder));
            if let Some(path) = files.get(&(entry.dev, entry.ino)) {
                missing.push(path.clone());
            }
        }
        missing
    }

    /// Opens one path if it is a file with a first line that nobody reads yet.
    fn look(&mut self, look: &Look) -> std::io::Result<Option<(usize, Found)>> {
        let path = look.path.as_path();
        let meta = std::fs::metadata(path)?;
        let id = (meta.dev(), meta.ino());
        if !meta.is_file() || self.known.lock().expect("never left half changed").open.contains(&id) {
            return Ok(None);
        }
        if path.extension().is_some_and(|e| PACKED.iter().any(|packed| e == *packed)) {
            return Err(std::io::Error::other("compressed files are not read yet; exclude them"));
        }
        let file = File::open(path)?;
        // Asked again of the open file: the path may have become another file in between.
        let meta = file.metadata()?;
        let id = (meta.dev(), meta.ino());
        let mut head = vec![0; HEAD_BYTES_MAX];
        let len = read_full(&file, &mut head, 0)?;
        head.truncate(len);
        let line = memchr::memchr(b'\n', &head).map(|n| n + 1);
        let ready = line.is_some() || len == HEAD_BYTES_MAX || (self.once && len > 0);
        let mut register = self.register.lock().expect("the register is never left half changed");
        let registered = register.find(&self.source, id.0, id.1, &mut |n| (n <= len).then(|| hash(&[&head[..n]]))).cloned();
        let mut known = self.known.lock().expect("never left half changed");
        let position = |entry: &Entry| {
            let unread = Position { resume: entry.start, done: entry.start };
            known.positions.get(&entry.stream()).copied().unwrap_or(unread)
        };
        let entry = match registered {
            // Read to its end and nothing held: it is opened again when it grows.
            Some(entry) if !self.first && position(&entry) == (Position { resume: meta.len(), done: meta.len() }) => return Ok(None),
            Some(entry) if position(&entry).done <= meta.len() => entry,
            // Nothing can be said of a file before it has a first line, and nothing has to be.
            _ if !ready => return Ok(None),
            registered => {
                if let Some(entry) = registered {
                    warn!(path = %path.display(), size = meta.len(), position = position(&entry).done, "file is shorter than what was read of it: it was truncated, and is read from its start");
                }
                head.truncate(line.unwrap_or(len));
                let start = if self.first && self.config.start == Start::End { last_line(&file, meta.len())? } else { 0 };
                register.add(&self.source, &look.log, id.0, id.1, &head, start).map_err(std::io::Error::other)?
            }
        };
        let position = position(&entry);
        let order = register.entries().iter().position(|e| e.id == entry.id).expect("it was found there or added");
        known.open.insert(id);
        info!(path = %path.display(), stream = entry.id, position = position.done, size = meta.len(), "file found");
        let modified = UnixNanos(meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()));
        Ok(Some((order, Found { log: entry.path.clone(), file, stream: entry.stream(), position, id, modified })))
    }

    fn refuse(&mut self, path: PathBuf, error: &std::io::Error) {
        // A file may be gone between the look into the folder and the look at it; that is no news.
        if error.kind() != std::io::ErrorKind::NotFound && self.refused.insert(path.clone()) {
            warn!(path = %path.display(), %error, "cannot read");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Register> {
        self.register.lock().expect("the register is never left half changed")
    }
}

/// Endings of compressed files.
const PACKED: [&str; 4] = ["gz", "zst", "bz2", "xz"];

/// A path to look at, and the log it belongs to.
struct Look {
    path: PathBuf,
    log: PathBuf,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Look {
    fn at(path: PathBuf, logs: &HashSet<PathBuf>) -> Option<Look> {
        let meta = std::fs::metadata(&path).ok()?;
        let modified = (meta.mtime(), meta.mtime_nsec());
        let log = rotated_from(&path).filter(|log| logs.contains(log)).unwrap_or_else(|| path.clone());
        Some(Look { path, log, modified })
    }
}

/// The log that a file was renamed away from, going by its name: `app.log.1`, `0.log.20240101-000000`,
/// `app.log-2024-01-01`. A file that is found only after its rename would else be a log of its own, and a
/// record split over two files two records.
fn rotated_from(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | '_' | ':' | 'T'));
    let suffix = &name[stem.len()..];
    // `worker-1` beside `worker` are two services; `app.log-1` beside `app.log` are not.
    let separated = suffix.starts_with('.') || (suffix.starts_with('-') && stem.contains('.'));
    let starts_well = separated && suffix[1..].starts_with(|c: char| c.is_ascii_digit());
    (starts_well && !stem.is_empty()).then(|| path.with_file_name(stem))
}

fn files_of(folder: &Path) -> HashMap<FileId, PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|e| Some((e.metadata().ok()?, e.path())))
        .filter(|(m, _)| m.is_file())
        .map(|(m, p)| ((m.dev(), m.ino()), p))
        .collect()
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

    #[test]
    fn rotated_files_are_known_by_their_names() {
        for (name, log) in [
            ("/l/app.log.1", Some("/l/app.log")),
            ("/l/0.log.20240101-000000", Some("/l/0.log")),
            ("/l/app.log-2024-01-01", Some("/l/app.log")),
            ("/l/app.log", None),
            ("/l/app.log.json", None),
            ("/l/app-7d9f", None),
            ("/l/worker-1", None),
            ("/l/12", None),
        ] {
            assert_eq!(rotated_from(Path::new(name)), log.map(PathBuf::from), "{name}");
        }
    }
}
