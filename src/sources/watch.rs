//! News from the kernel: which files grew, and which folders changed.
//!
//! In: folders to watch, and for files that somebody reads whom to wake. Out: who is to be woken, and whether a walk
//! through the folders is due. Events are hints: when the kernel's queue overflows, or a folder cannot be watched (too
//! many watches, a network file system), files there are looked at by the clock instead. Memory: one entry for each folder
//! and for each file.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::statfs;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

/// Who reads a file: a lane and its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    pub lane: usize,
    pub log: u64,
}

/// Whom a change of a file concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    Reader(Reader),
    /// The finder: it waits for the first line, or closed the file.
    Finder,
}

/// What happened since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub grown: Vec<Reader>,
    /// A name came, went or changed: walk through the folders.
    pub changed: bool,
    /// Events were lost: everything may have changed.
    pub overflow: bool,
}

pub struct Watcher {
    inotify: Option<OwnedFd>,
    folders: HashMap<PathBuf, Option<i32>>,
    files: HashMap<i32, HashMap<OsString, Concern>>,
    warned: bool,
}

/// Kinds of file systems whose changes another machine, or another program, may make without a word: NFS, SMB (3), FUSE, 9p, Ceph.
const SILENT: [u32; 7] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997, 0x00c3_6400];

impl Watcher {
    pub fn new() -> Watcher {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        if let Err(error) = &inotify {
            warn!(%error, "no inotify here: files are looked at by the clock");
        }
        Watcher { inotify: inotify.ok(), folders: HashMap::new(), files: HashMap::new(), warned: false }
    }

    /// Watches a folder. `false`: changes in there come without news.
    pub fn watch(&mut self, folder: &Path) -> bool {
        if let Some(watch) = self.folders.get(folder) {
            return watch.is_some();
        }
        let watch = self.add(folder);
        self.folders.insert(folder.to_path_buf(), watch);
        watch.is_some()
    }

    fn add(&mut self, folder: &Path) -> Option<i32> {
        let inotify = self.inotify.as_ref()?;
        let kind = statfs(folder).ok()?.f_type as u32;
        if SILENT.contains(&kind) {
            return None;
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(inotify, folder, flags) {
            Ok(watch) => {
                self.files.entry(watch).or_default();
                Some(watch)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    warn!(folder = %folder.display(), %error, "cannot watch a folder: its files are looked at by the clock; raise fs.inotify.max_user_watches");
                }
                None
            }
        }
    }

    /// From now on changes of this file concern `concern`. `false`: nobody will tell of them.
    pub fn follow(&mut self, path: &Path, symlink: bool, concern: Concern) -> bool {
        // Events name the file itself, not links to it.
        let real = if symlink { std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()) } else { path.to_path_buf() };
        let folder = match real.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !self.watch(folder) {
            return false;
        }
        let (Some(Some(watch)), Some(name)) = (self.folders.get(folder), real.file_name()) else { return false };
        self.files.entry(*watch).or_default().insert(name.to_os_string(), concern);
        true
    }

    /// Waits until something happened, at most `timeout`, and gathers what did.
    pub fn wait(&mut self, timeout: Duration) -> News {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut news = News::default();
        let Some(inotify) = self.inotify.as_ref() else {
            std::thread::park_timeout(timeout);
            return news;
        };
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // A signal ends the wait early; then there is just nothing to tell.
        let _ = poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout));
        let mut gone = Vec::new();
        let mut buffer = [MaybeUninit::<u8>::uninit(); 32 << 10];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                news.overflow = true;
                news.changed = true;
                continue;
            }
            if flags.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                gone.push(event.wd());
                news.changed = true;
                continue;
            }
            let concern = event.file_name().and_then(|name| self.files.get(&event.wd())?.get(OsStr::from_bytes(name.to_bytes())));
            match concern {
                Some(Concern::Reader(reader)) => news.grown.push(*reader),
                Some(Concern::Finder) => news.changed = true,
                None => {}
            }
            // What grows under a name that concerns nobody is no log of ours.
            news.changed |=
                flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM | ReadFlags::DELETE | ReadFlags::ATTRIB);
        }
        news.grown.sort_unstable();
        news.grown.dedup();
        for watch in gone {
            self.folders.retain(|_, w| *w != Some(watch));
            self.files.remove(&watch);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_wakes_the_reader_and_new_names_the_finder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.log");
        std::fs::write(&path, b"x").unwrap();
        let mut watcher = Watcher::new();
        assert!(watcher.watch(folder.path()));
        let reader = Reader { lane: 1, log: 7 };
        assert!(watcher.follow(&path, false, Concern::Reader(reader)));
        assert_eq!(watcher.wait(Duration::ZERO), News::default());
        std::fs::write(&path, b"xy").unwrap();
        assert_eq!(watcher.wait(Duration::from_secs(5)), News { grown: vec![reader], ..News::default() });
        std::fs::write(folder.path().join("b.log"), b"").unwrap();
        assert_eq!(watcher.wait(Duration::from_secs(5)), News { changed: true, ..News::default() });
        watcher.follow(&folder.path().join("b.log"), false, Concern::Finder);
        std::fs::write(folder.path().join("b.log"), b"x").unwrap();
        assert!(watcher.wait(Duration::from_secs(5)).changed);
        let link = folder.path().join("link.log");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        watcher.wait(Duration::from_secs(5));
        let other = Reader { lane: 0, log: 8 };
        assert!(watcher.follow(&link, true, Concern::Reader(other)));
        std::fs::write(&path, b"xyz").unwrap();
        assert_eq!(watcher.wait(Duration::from_secs(5)).grown, [other]);
    }
}
