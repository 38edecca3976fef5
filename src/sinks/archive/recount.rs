//! Counts the stored rows again, from the files alone.
//!
//! In: the folder and the path template. Out: lines by active file. The log is not asked: that is the point. Only how many
//! newlines are within records it must tell, as files do not. Memory: the names of one level of folders.

use super::template::last_component;
use super::{Archive, Settings, is_own, log::Log, rotate};
use anyhow::Context;
use hub::disk::Disk;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

impl Archive {
    /// Newlines within the records that were committed: so many lines of the files begin no record.
    pub fn inner_newlines(disk: &Disk, settings: &Settings) -> anyhow::Result<u64> {
        Ok(Log::open(disk, &settings.log_dir)?.1.inner_newlines)
    }

    /// Counts the lines of every file and backup under the template, compressed or not, without asking the log.
    /// Returns them by the active file's path, relative to `dir`. Of a backup and its compressed copy one counts.
    pub fn recount(disk: &Disk, settings: &Settings) -> anyhow::Result<BTreeMap<Vec<u8>, u64>> {
        let names = Archive::files_of(disk, settings)?;
        let mut lines = BTreeMap::new();
        for name in &names {
            let (folder, last) = name.split_at(name.len() - last_component(name).len());
            let base = rotate::base_of(last).unwrap_or_else(|| last.to_string());
            let plain = rotate::unpacked_name(name);
            if plain != name && names.contains(plain) {
                continue;
            }
            let path = settings.dir.join(name);
            let count = rotate::count_lines(disk, &path).with_context(|| format!("cannot count the lines of {}", path.display()))?;
            *lines.entry(format!("{folder}{base}").into_bytes()).or_insert(0) += count;
        }
        Ok(lines)
    }

    /// The files and backups under the template, relative to `dir`. Folders and symlinks to them are none.
    pub(super) fn files_of(disk: &Disk, settings: &Settings) -> anyhow::Result<BTreeSet<String>> {
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
        let mut files = BTreeSet::new();
        for folder in &folders {
            for name in names_in(disk, settings, folder)? {
                let base = rotate::base_of(&name).unwrap_or_else(|| name.clone());
                let full = format!("{folder}{name}");
                let is_ours =
                    settings.path.admits(settings.path.depth() - 1, &base) && !is_own(settings, &full) && !rotate::is_reserved(&base);
                // An active file may be a symlink within the folder; a backup is a file.
                let is_there =
                    if base == name { disk.is_data(&settings.dir.join(&full))? } else { disk.is_file(&settings.dir.join(&full))? };
                if is_ours && is_there {
                    files.insert(full);
                }
            }
        }
        Ok(files)
    }
}

fn names_in(disk: &Disk, settings: &Settings, folder: &str) -> anyhow::Result<Vec<String>> {
    match disk.list(&settings.dir.join(folder)) {
        Ok(names) => Ok(names.into_iter().filter_map(|n| n.to_str().map(str::to_string)).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("cannot list {}", settings.dir.join(folder).display())),
    }
}
