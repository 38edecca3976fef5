//! Recovery: brings the files to what the log's last commit says.
//!
//! In: the log's state and what a crash left. Out: renames and creations that were announced and not committed are undone,
//! every file has its committed length. Each step may be repeated, so a crash while recovering changes nothing. No memory.

use super::log::Line;
use super::{Archive, Compress, SITE_UNDO_FOLDER, SITE_UNDO_LENGTH, SITE_UNDO_RENAME, rotate};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

impl Archive {
    /// Brings the files to what the log's last commit says: renames and creations that were announced and not
    /// committed are undone, every file is cut to its committed length. Each step may be repeated.
    pub(super) fn recover(&mut self) -> anyhow::Result<()> {
        let announced = std::mem::take(&mut self.state.announced);
        self.undo(&announced)?;
        self.cut_files()?;
        // Only now may work that cannot be undone begin: what the log says is durable from here on.
        self.log.snapshot(&self.state)?;
        self.drop_half_packed()
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

    /// Cuts a file to `len`. Returns how long it is then, `None` if it is not there.
    fn cut(&mut self, name: &str, len: u64) -> anyhow::Result<Option<u64>> {
        let full = self.settings.dir.join(name);
        let Some(found) = self.len_of(&full)? else { return Ok(None) };
        if found > len {
            self.refuse_way_out(&full)?;
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
            file.begun_ns = entry.begun_ns;
            file.due_ns = if entry.begun_ns == i64::MIN { i64::MAX } else { self.settings.calendar.due(entry.begun_ns) };
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
}
