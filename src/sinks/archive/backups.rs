//! Backups: compressed once they are committed, removed when they are too many or too old.
//!
//! In: the names that the log holds as not compressed, and what stands beside each file: backups that lumberjack, or a run
//! without this log, left behind are taken over by their names. Out: `.gz` or `.zst` files. A failure is counted and tried
//! again later, each time after twice as long. Memory: the names of backups that wait.

use super::log::Line;
use super::template::last_component;
use super::{Archive, BACK_OFF_MAX, Compress, rotate};
use anyhow::Context;
use std::path::Path;

impl Archive {
    /// Looks after what other runs and programs left: to be called once, before anything is written. Backups are compressed, those
    /// for which there is no room are deleted, and compressions that nobody finished are removed.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        for path in 0..self.paths.len() as u32 {
            self.survey(path)?;
        }
        self.pack_backups(true);
        self.keep_room()
    }

    /// Compresses what waits for it. A failure is counted and tried again later: the rows are safe as they are.
    pub(super) fn pack_backups(&mut self, is_last_chance: bool) {
        if (self.state.unpacked.is_empty() && self.adopted.is_empty()) || self.log.is_failed() {
            return;
        }
        if self.pack_wait > 0 && !is_last_chance {
            self.pack_wait -= 1;
            return;
        }
        for name in self.state.unpacked.union(&self.adopted).cloned().collect::<Vec<_>>() {
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
            if self.disk.is_file(&full)? {
                rotate::pack(&self.disk, &full, self.settings.compress)?;
                self.stats.packed += 1;
                self.note_backup(name);
                self.note_backup(&format!("{name}{}", self.settings.compress.extension()));
            } else {
                // An attempt that ended between its removal and the sync of the folder, or a deletion.
                self.disk.sync_dir(full.parent().unwrap_or(Path::new("")), rotate::SITE_UNPACKED_FOLDER)?;
            }
        }
        if self.adopted.remove(name) && !self.state.unpacked.contains(name) {
            return Ok(()); // the log never knew of it
        }
        // Not synced: without this line the next start finds no plain file and has nothing to do.
        let line = Line::Packed { name: name.to_string() };
        self.log.append(std::slice::from_ref(&line))?;
        self.state.apply(line);
        Ok(())
    }

    /// Removes the backups of one file that are too many or too old.
    pub(super) fn retain(&mut self, path: u32) {
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
        let backups = rotate::backups_of(&self.disk, &folder, base, &self.settings.names)?;
        let since_ms = self.settings.age.map(|age| self.clock_ns.saturating_sub(age.0).div_euclid(1_000_000));
        let gone = rotate::expired(&backups, self.settings.backups, since_ms);
        for name in backups.into_iter().take(gone).flat_map(|b| b.names) {
            let line = Line::Deleted { name: format!("{prefix}{name}") };
            self.log.append(std::slice::from_ref(&line))?;
            self.state.apply(line);
            self.disk.unlink(&folder.join(&name))?;
            self.stats.deleted += 1;
            self.note_backup(&format!("{prefix}{name}"));
        }
        Ok(())
    }

    /// Takes over what stands beside a path and the log does not know: backups are compressed and counted, compressions that
    /// nobody finished are removed. Each folder is looked through once; what belongs to other files is left to them.
    pub(super) fn survey(&mut self, path: u32) -> anyhow::Result<()> {
        let name = self.paths[path as usize].name.clone();
        let base = last_component(&name);
        let prefix = &name[..name.len() - base.len()];
        if !self.surveyed.contains(prefix) {
            self.survey_folder(prefix)?;
            self.surveyed.insert(prefix.to_string());
        }
        let Some(names) = self.strays.remove(&name) else { return Ok(()) };
        self.untended.insert(path);
        self.known_backups = None; // these are its own from now on
        for name in names {
            if let Some(packed) = name.strip_suffix(".tmp") {
                let full = self.settings.dir.join(&name);
                if rotate::unpacked_name(packed) != packed {
                    self.disk.unlink(&full).with_context(|| format!("cannot remove {}", full.display()))?;
                }
                continue;
            }
            let is_new = !self.moved.iter().any(|moved| moved.backup == name) && !self.state.unpacked.contains(&name);
            if rotate::unpacked_name(&name) == name && is_new && self.settings.compress != Compress::None {
                self.adopted.insert(name);
            }
        }
        Ok(())
    }

    fn survey_folder(&mut self, prefix: &str) -> anyhow::Result<()> {
        let folder = self.settings.dir.join(prefix);
        let names = self.disk.list(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for name in names.iter().filter_map(|name| name.to_str()) {
            let Some(base) = rotate::base_of(name.strip_suffix(".tmp").unwrap_or(name)) else { continue };
            let is_possible = self.settings.path.admits(self.settings.path.depth() - 1, &base);
            if is_possible && self.disk.is_file(&folder.join(name))? {
                self.strays.entry(format!("{prefix}{base}")).or_default().push(format!("{prefix}{name}"));
            }
        }
        Ok(())
    }
}
