//! Room: the archive takes no more than it may, and leaves the disk what it must.
//!
//! In: limits, and how many bytes are about to be written. Out: whether there is room for them, after the oldest backups of
//! this archive were deleted for it. Only names that read back as backups of files that this archive writes are ever counted
//! and deleted, and none that a commit line has yet to confirm. Memory: the names and sizes of all backups, read from the folders at first use and
//! again once a second while there is too little room; 100 bytes each.

use super::log::Line;
use super::{Archive, rotate};
use hub::disk::Disk;
use hub::frame::Frame;
use std::collections::BTreeMap;
use std::io;

/// Limits; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What stays free on the file system.
    pub free_bytes_min: u64,
    /// What all files of the archive take together.
    pub total_bytes_max: u64,
}

/// Backups by age, with what they take.
#[derive(Default)]
pub(super) struct Backups {
    by_age: BTreeMap<(rotate::Stamp, String), u64>,
    bytes: u64,
}

impl Backups {
    fn put(&mut self, stamp: rotate::Stamp, name: String, bytes: u64) {
        self.bytes += bytes;
        self.bytes -= self.by_age.insert((stamp, name), bytes).unwrap_or(0);
    }

    fn remove(&mut self, stamp: rotate::Stamp, name: &str) {
        self.bytes -= self.by_age.remove(&(stamp, name.to_string())).unwrap_or(0);
    }
}

fn stamp_of(name: &str, zone: &jiff::tz::TimeZone) -> Option<rotate::Stamp> {
    let last = super::template::last_component(name);
    rotate::parse_backup(&rotate::base_of(last)?, last, zone)
}

impl Archive {
    /// Is there room for the rows of this frame that the archive does not have? Deletes the oldest backups for it.
    pub fn make_room(&mut self, frame: &Frame) -> anyhow::Result<bool> {
        let Room { free_bytes_min, total_bytes_max } = self.settings.room;
        if free_bytes_min == 0 && total_bytes_max == 0 {
            return Ok(true);
        }
        let new = frame.parts.iter().filter(|part| !self.has(part.stream, part.to));
        let rows: u64 = new
            .map(|part| {
                let end_of =
                    |row: u32| row.checked_sub(1).and_then(|last| frame.rows.ends.get(last as usize)).map_or(0, |end| u64::from(*end));
                end_of(part.rows.end).saturating_sub(end_of(part.rows.start)) + u64::from(part.rows.end.saturating_sub(part.rows.start))
            })
            .sum();
        if rows == 0 {
            return Ok(true);
        }
        let mut committed = false;
        loop {
            if !self.lacks_room(rows)? {
                return Ok(true);
            }
            if self.delete_oldest()? {
                continue;
            }
            if committed {
                self.is_short = true;
                return Ok(false);
            }
            self.commit()?; // what was rotated since the last commit may be deleted after it
            committed = true;
        }
    }

    /// Deletes what is too much already: a limit that was lowered, or a deletion that a crash undid.
    pub(super) fn keep_room(&mut self) -> anyhow::Result<()> {
        if self.settings.room != Room::default() {
            while self.lacks_room(0)? && self.delete_oldest()? {}
        }
        Ok(())
    }

    fn lacks_room(&mut self, rows: u64) -> anyhow::Result<bool> {
        let Room { free_bytes_min, total_bytes_max } = self.settings.room;
        let buffered = self.buffered as u64;
        if free_bytes_min > 0
            && let Disk::Real = self.disk
        {
            let free = rustix::fs::statvfs(&self.settings.dir).map_err(io::Error::from)?;
            if (free.f_bavail * free.f_frsize).saturating_sub(rows + buffered) < free_bytes_min {
                return Ok(true);
            }
        }
        Ok(total_bytes_max > 0 && self.active_bytes() + self.backups()?.bytes + rows > total_bytes_max)
    }

    fn active_bytes(&self) -> u64 {
        self.paths.iter().flat_map(|path| &path.files).map(super::ActiveFile::size).sum()
    }

    fn backups(&mut self) -> anyhow::Result<&Backups> {
        if self.known_backups.is_none() {
            let mut found = Backups::default();
            for name in Archive::files_of(&self.disk, &self.settings)? {
                let last = super::template::last_component(&name);
                let Some(base) = rotate::base_of(last) else { continue };
                let is_ours = self.by_name.contains_key(&format!("{}{base}", &name[..name.len() - last.len()]));
                // A file that goes in this moment takes no room.
                if let (true, Some(stamp), Ok(len)) =
                    (is_ours, stamp_of(&name, &self.settings.names), self.disk.len(&self.settings.dir.join(&name)))
                {
                    found.put(stamp, name, len);
                }
            }
            self.known_backups = Some(found);
        }
        Ok(self.known_backups.as_ref().expect("it was just filled"))
    }

    /// Deletes the oldest backup that may be; false where there is none.
    fn delete_oldest(&mut self) -> anyhow::Result<bool> {
        self.backups()?;
        let known = self.known_backups.as_ref().expect("it was just filled");
        let oldest = known.by_age.keys().find(|(_, name)| !self.moved.iter().any(|moved| moved.backup == *name)).cloned();
        let Some((stamp, name)) = oldest else { return Ok(false) };
        let line = Line::Deleted { name: name.clone() };
        self.log.append(std::slice::from_ref(&line))?;
        self.state.apply(line);
        match self.disk.unlink(&self.settings.dir.join(&name)) {
            Ok(()) => self.stats.deleted += 1,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {} // somebody else was faster
            Err(e) => {
                self.stats.delete_failures += 1;
                return Err(e.into());
            }
        }
        if let Some(known) = &mut self.known_backups {
            known.remove(stamp, &name);
        }
        Ok(true)
    }

    /// A backup came, shrank or went: keeps what is known of them true.
    pub(super) fn note_backup(&mut self, name: &str) {
        let (Some(known), Some(stamp)) = (&mut self.known_backups, stamp_of(name, &self.settings.names)) else { return };
        match self.disk.len(&self.settings.dir.join(name)) {
            Ok(len) => known.put(stamp, name.to_string(), len),
            Err(_) => known.remove(stamp, name),
        }
    }

    /// Why a frame has to wait.
    pub(super) fn no_room(&self) -> String {
        let Room { free_bytes_min, total_bytes_max } = self.settings.room;
        format!(
            "no room in the archive {} (most bytes in all: {total_bytes_max}, free bytes that must stay: {free_bytes_min}; 0 = any), and no backup of its own is left to delete",
            self.settings.dir.display()
        )
    }
}
