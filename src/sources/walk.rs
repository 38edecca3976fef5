//! Walks folders for files that match patterns.
//!
//! In: a pattern as in `/var/log/pods/*/*/*.log` (`*`, `?` and `[..]` within a name, `**` any folders). Out: paths that
//! match, files beside them that were rotated away from some log, and the folders looked into, for whoever watches them.
//! Reads names only: nothing is opened, and a file is not even asked for its size. Bounds: folders nested deeper than
//! [`DEPTH_MAX`] are left out; a folder that is its own ancestor through a symbolic link is entered once and named.

use super::rotated::rotated_from;
use super::status::Refusal;
use flow::units::UnixNanos;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

const DEPTH_MAX: usize = 64;

/// A pattern, cut at its slashes.
pub struct Pattern {
    base: PathBuf,
    parts: Vec<Part>,
}

enum Part {
    Name(OsString),
    Wild(glob::Pattern),
    AnyFolders,
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub path: PathBuf,
    /// Of the name itself: a symbolic link has its own.
    pub ino: u64,
    pub symlink: bool,
    /// It matches no pattern, but was rotated away from some log in the same folder.
    pub sibling: bool,
}

/// What one walk saw.
#[derive(Default)]
pub struct Walked {
    pub candidates: Vec<Candidate>,
    /// Folders, with the time at which a name in them had last changed when reading them began.
    pub folders: BTreeMap<PathBuf, UnixNanos>,
    pub refused: Vec<(PathBuf, Refusal)>,
}

/// File systems tell times by the kernel's tick: of two changes within one the second does not show.
pub const TICK: Duration = Duration::from_millis(10);

impl Walked {
    /// Whether no name changed since this walk `began`. While one does, a folder does not show all its files: one that is renamed
    /// may be seen under both names or under none.
    pub fn is_still(&self, began: UnixNanos) -> bool {
        self.folders.iter().all(|(folder, changed)| {
            let now = std::fs::metadata(folder).map(|meta| modified(&meta));
            now.is_ok_and(|now| now == *changed) && changed.0.abs_diff(began.0) > TICK.as_nanos() as u64
        })
    }
}

pub fn modified(meta: &std::fs::Metadata) -> UnixNanos {
    UnixNanos(meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()))
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, glob::PatternError> {
        let mut base = PathBuf::new();
        let mut parts = Vec::new();
        for component in Path::new(text).components() {
            let name = component.as_os_str();
            let wild = name.to_str().is_some_and(|n| n.contains(['*', '?', '[']));
            match component {
                Component::Normal(_) if name == "**" => parts.push(Part::AnyFolders),
                Component::Normal(_) if wild => parts.push(Part::Wild(glob::Pattern::new(name.to_str().expect("asked just before"))?)),
                Component::Normal(_) => parts.push(Part::Name(name.to_os_string())),
                _ => base.push(component),
            }
        }
        // Plain folders in front need no search.
        let plain = parts.iter().take_while(|p| matches!(p, Part::Name(_))).count().min(parts.len().saturating_sub(1));
        for part in parts.drain(..plain) {
            if let Part::Name(name) = part {
                base.push(name);
            }
        }
        Ok(Pattern { base, parts })
    }

    pub fn walk(&self, walked: &mut Walked) {
        let mut above = Vec::new();
        self.enter(&self.base, &self.parts, &mut above, walked);
    }

    fn enter(&self, folder: &Path, parts: &[Part], above: &mut Vec<(u64, u64)>, walked: &mut Walked) {
        let Some((part, rest)) = parts.split_first() else { return };
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let (id, changed) = match std::fs::metadata(here) {
            Ok(meta) if meta.is_dir() => ((meta.dev(), meta.ino()), modified(&meta)),
            Ok(_) => return,
            Err(error) => return refuse(here, &error, walked),
        };
        // Seen twice in a row, `**` is looked for in the folder itself and below it.
        if above.iter().filter(|seen| **seen == id).count() > 1 || above.len() > DEPTH_MAX {
            walked.refused.push((here.to_path_buf(), Refusal::SymlinkLoop));
            return;
        }
        above.push(id);
        walked.folders.entry(here.to_path_buf()).or_insert(changed);
        match part {
            Part::AnyFolders => {
                self.enter(folder, rest, above, walked);
                for (path, entry) in entries(here, folder, walked) {
                    if is_subfolder(&path, &entry, above, walked) {
                        self.enter(&path, parts, above, walked);
                    }
                }
            }
            Part::Name(name) if !rest.is_empty() => self.enter(&folder.join(name), rest, above, walked),
            _ => {
                for (path, entry) in entries(here, folder, walked) {
                    let name = entry.file_name();
                    let matches = match part {
                        Part::Name(wanted) => name == *wanted,
                        Part::Wild(pattern) => pattern.matches(&name.to_string_lossy()),
                        Part::AnyFolders => unreachable!("matched above"),
                    };
                    if rest.is_empty() {
                        if matches || rotated_from(&path).is_some() {
                            let symlink = entry.file_type().is_ok_and(|t| t.is_symlink());
                            walked.candidates.push(Candidate { path, ino: entry.ino(), symlink, sibling: !matches });
                        }
                    } else if matches && is_subfolder(&path, &entry, above, walked) {
                        self.enter(&path, rest, above, walked);
                    }
                }
            }
        }
        above.pop();
    }
}

fn entries(here: &Path, folder: &Path, walked: &mut Walked) -> Vec<(PathBuf, std::fs::DirEntry)> {
    match std::fs::read_dir(here) {
        Ok(entries) => entries.flatten().map(|e| (folder.join(e.file_name()), e)).collect(),
        Err(error) => {
            refuse(here, &error, walked);
            Vec::new()
        }
    }
}

/// Whether a name leads to a folder that may be entered.
fn is_subfolder(path: &Path, entry: &std::fs::DirEntry, above: &[(u64, u64)], walked: &mut Walked) -> bool {
    match entry.file_type() {
        Ok(kind) if !kind.is_symlink() => return kind.is_dir(),
        Ok(_) => {}
        Err(_) => return false,
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() && above.contains(&(meta.dev(), meta.ino())) => {
            walked.refused.push((path.to_path_buf(), Refusal::SymlinkLoop));
            false
        }
        Ok(meta) => meta.is_dir(),
        Err(error) => {
            refuse(path, &error, walked);
            false
        }
    }
}

fn refuse(path: &Path, error: &std::io::Error, walked: &mut Walked) {
    // What is not there yet, or not any more, is no news.
    if error.kind() != std::io::ErrorKind::NotFound {
        walked.refused.push((path.to_path_buf(), Refusal::of(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, root: &Path) -> Vec<String> {
        let mut walked = Walked::default();
        Pattern::parse(&format!("{}/{pattern}", root.display())).expect("a pattern").walk(&mut walked);
        let mut names: Vec<String> = walked
            .candidates
            .iter()
            .map(|c| format!("{}{}", if c.sibling { "~" } else { "" }, c.path.strip_prefix(root).expect("below").display()))
            .collect();
        names.extend(walked.refused.iter().map(|(p, r)| format!("!{} {}", p.strip_prefix(root).expect("below").display(), r.name())));
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn patterns_find_files_siblings_and_name_loops() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path();
        for file in ["a.log", "a.log.1", "b.txt", "x/c.log", "x/y/d.log", ".h.log"] {
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), b"").unwrap();
        }
        std::os::unix::fs::symlink("..", root.join("x/up")).unwrap();
        std::os::unix::fs::symlink("self", root.join("self")).unwrap();
        assert_eq!(names("*.log", root), [".h.log", "a.log", "~a.log.1"]);
        assert_eq!(names("a.log", root), ["a.log", "~a.log.1"]);
        assert_eq!(names("*/*.log", root), ["!self symlink_loop", "x/c.log"]);
        assert_eq!(names("x/?.log", root), ["x/c.log"]);
        assert_eq!(
            names("**/*.log", root),
            ["!self symlink_loop", "!x/up symlink_loop", ".h.log", "a.log", "x/c.log", "x/y/d.log", "~a.log.1"]
        );
        assert_eq!(names("nothing/*.log", root), Vec::<String>::new());
    }
}
