//! Counts the stored rows again, from the files alone.
//!
//! In: the folder and the path template. Out: lines by active file. The log is not asked: that is the point. Only how many
//! newlines are within records it must tell, as files do not. Memory: the names of one level of folders.

use super::{Archive, Settings, is_log, log::Log, rotate};
use anyhow::Context;
use hub::disk::Disk;
use std::collections::BTreeMap;
use std::io;

impl Archive {
    /// Newlines within the records that were committed: so many lines of the files begin no record.
    pub fn inner_newlines(disk: &Disk, settings: &Settings) -> anyhow::Result<u64> {
        Ok(Log::open(disk, &settings.log_dir)?.1.inner_newlines)
    }

    /// Counts the lines of every file and backup under the template, compressed or not, without asking the log.
    /// Returns them by the active file's path, relative to `dir`. Of a backup and its compressed copy one counts.
    pub fn recount(disk: &Disk, settings: &Settings) -> anyhow::Result<BTreeMap<Vec<u8>, u64>> {
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
        let mut lines = BTreeMap::new();
        for folder in &folders {
            let names = names_in(disk, settings, folder)?;
            for name in &names {
                let base = rotate::base_of(name).unwrap_or_else(|| name.clone());
                let path = settings.dir.join(folder).join(name);
                let plain = rotate::unpacked_name(name);
                let has_plain = plain != name && names.iter().any(|n| n == plain);
                if is_log(settings, &format!("{folder}{name}"))
                    || has_plain
                    || rotate::is_reserved(&base)
                    || !settings.path.admits(settings.path.depth() - 1, &base)
                {
                    continue;
                }
                let count = rotate::count_lines(disk, &path).with_context(|| format!("cannot count the lines of {}", path.display()))?;
                *lines.entry(format!("{folder}{base}").into_bytes()).or_insert(0) += count;
            }
        }
        Ok(lines)
    }
}

fn names_in(disk: &Disk, settings: &Settings, folder: &str) -> anyhow::Result<Vec<String>> {
    match disk.list(&settings.dir.join(folder)) {
        Ok(names) => Ok(names.into_iter().filter_map(|n| n.to_str().map(str::to_string)).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("cannot list {}", settings.dir.join(folder).display())),
    }
}
