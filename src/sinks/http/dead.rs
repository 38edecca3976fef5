//! Dead letters: rows that the far side refuses for good, kept with the reason and their place in their stream.
//!
//! In: refused rows. Out: `00000001.ndjson` and so on in a folder, one JSON object a line. What was written becomes true with the
//! sink's own commit, which says how long the file is: what stands behind that is cut at the next start. Bound: `bytes_max` in two
//! files; when the second is half of it, the first goes, and how many letters went with it is remembered.

use super::body::put_text;
use anyhow::Context;
use flow::units::UnixNanos;
use hub::{Disk, Frame};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is true of the files, as the sink's commit says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The file that is written; the one before it is complete.
    pub file: u64,
    pub bytes: u64,
    pub records: u64,
    /// The file before.
    pub bytes_before: u64,
    pub records_before: u64,
    /// Letters that went for room.
    pub gone: u64,
}

pub struct DeadLetters {
    disk: Disk,
    folder: PathBuf,
    bytes_max: u64,
    pub state: State,
    /// As it will be with the next commit.
    next: State,
    pending: Vec<u8>,
}

impl DeadLetters {
    pub fn new(disk: Disk, folder: PathBuf, bytes_max: u64, state: State) -> DeadLetters {
        DeadLetters { disk, folder, bytes_max, state, next: state, pending: Vec::new() }
    }

    /// Adds a refused row.
    pub fn add(&mut self, frame: &Frame, row: usize, status: u16, why: &str) {
        let out = &mut self.pending;
        out.extend_from_slice(format!("{{\"received\":\"{}\",\"status\":{status},\"reason\":", frame.received.rfc3339()).as_bytes());
        put_text(why.as_bytes(), out);
        out.extend_from_slice(b",\"tenant\":");
        put_text(&frame.tenants[frame.rows.tenant[row] as usize], out);
        let place = format!(
            ",\"id\":\"{}\",\"time\":\"{}\",\"record\":",
            super::body::id_of(frame, row),
            UnixNanos(frame.rows.time[row]).rfc3339()
        );
        out.extend_from_slice(place.as_bytes());
        put_text(frame.rows.row(row), out);
        out.extend_from_slice(b"}\n");
        self.next.records += 1;
    }

    /// Makes what was added durable; returns the state that says so, once somebody else makes that durable: then [`Self::settle`].
    pub fn write(&mut self) -> anyhow::Result<State> {
        if self.pending.is_empty() {
            return Ok(self.next);
        }
        let context = || format!("cannot write dead letters to {}", self.folder.display());
        self.disk.create_dir_all(&self.folder, "dead.folder").with_context(context)?;
        let added = self.next.records - self.state.records;
        let mut next = self.state;
        if next.file == 0 || (next.bytes > 0 && next.bytes + self.pending.len() as u64 > self.bytes_max / 2) {
            let gone = next.gone + next.records_before;
            next = State { file: next.file + 1, bytes: 0, records: 0, bytes_before: next.bytes, records_before: next.records, gone };
        }
        let path = file(&self.folder, next.file);
        // An attempt that failed may have left something.
        let is_new = !self.disk.exists(&path).with_context(context)?;
        let file = if is_new {
            self.disk.create_new(&path)
        } else {
            self.disk.truncate(&path, next.bytes, "dead.cut").and_then(|()| self.disk.open_append(&path))
        };
        let mut file = file.with_context(context)?;
        file.append(&self.pending).and_then(|()| file.sync("dead.data")).with_context(context)?;
        if next.bytes == 0 {
            self.disk.sync_dir(&self.folder, "dead.names").with_context(context)?;
        }
        next.bytes += self.pending.len() as u64;
        next.records += added;
        self.next = next;
        self.pending.clear();
        Ok(next)
    }

    /// The state that was written is durable: files that it does not name go.
    pub fn settle(&mut self) {
        let moved = self.next.file != self.state.file;
        self.state = self.next;
        if moved && self.state.file > 2 {
            let _ = self.disk.unlink(&file(&self.folder, self.state.file - 2)); // it only takes room
        }
    }

    /// Letters that stand in the files, counted, and those that went.
    pub fn recount(&self) -> anyhow::Result<u64> {
        let mut letters = self.state.gone;
        let State { file: number, bytes, bytes_before, .. } = self.state;
        for (number, bytes) in [(number.saturating_sub(1), bytes_before), (number, bytes)] {
            let path = file(&self.folder, number);
            if number > 0 && self.disk.exists(&path)? {
                let mut there = self.disk.read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                // What stands behind is of a commit that never came.
                there.truncate(bytes as usize);
                letters += memchr::memchr_iter(b'\n', &there).count() as u64;
            }
        }
        Ok(letters)
    }
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.ndjson"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::disk::{Loss, Sim};
    use std::sync::Arc;

    const LETTERS: usize = 7;

    /// Adds letters, each with a commit of its own, from `state` on, as far as the disk goes along. Returns how many that were.
    fn add(disk: &Disk, state: State) -> u64 {
        let mut letters = DeadLetters::new(disk.clone(), PathBuf::from("/data/dead/far"), 60, state);
        let mut added = 0;
        for _ in 0..LETTERS {
            letters.pending.extend_from_slice(b"{\"letter\":1}\n");
            letters.next.records += 1;
            let written = letters.write().and_then(|state| {
                let text = serde_json::to_vec(&state).expect("plain data");
                crate::durable::replace(disk, Path::new("/data/state.json"), &text)
            });
            if written.is_err() {
                break;
            }
            letters.settle();
            added += 1;
        }
        added
    }

    fn state(disk: &Disk) -> State {
        let text = disk.read(Path::new("/data/state.json")).ok();
        text.map_or(State::default(), |text| serde_json::from_slice(&text).expect("replaced as a whole"))
    }

    fn counts(disk: &Disk) -> Option<(u64, u64)> {
        let state = state(disk);
        let letters = DeadLetters::new(disk.clone(), PathBuf::from("/data/dead/far"), 60, state).recount().ok()?;
        Some((letters, state.records + state.records_before + state.gone))
    }

    /// Two runs, of which the first ends at operation `at`: what was committed is there, and counts as often as it was.
    fn survives(at: u64, loss: Loss, broken: Option<&'static str>) -> bool {
        let sim = Arc::new(Sim::new(5));
        let disk = Disk::Sim(Arc::clone(&sim));
        disk.create_dir_all(Path::new("/data"), "folder").expect("an empty disk takes a folder");
        if let Some(site) = broken {
            sim.break_site(site);
        }
        sim.crash_at(sim.ops() + at);
        let promised = add(&disk, State::default());
        let sim = Arc::new(sim.reboot(loss));
        let disk = Disk::Sim(Arc::clone(&sim));
        let Some((letters, told)) = counts(&disk) else { return false };
        if letters != told || told < promised {
            return false;
        }
        let added = add(&disk, state(&disk));
        counts(&disk) == Some((told + added, told + added)) && added == LETTERS as u64
    }

    fn holds(broken: Option<&'static str>) -> bool {
        let losses = (0..20).map(Loss::Seeded).chain([Loss::LoseUnsynced, Loss::KeepAll]);
        losses.into_iter().all(|loss| (0..80).all(|at| survives(at, loss, broken)))
    }

    #[test]
    fn dead_letters_count_once_whatever_crashes() {
        assert!(holds(None));
    }

    #[test]
    fn every_sync_of_dead_letters_is_needed() {
        for site in ["dead.data", "dead.names"] {
            assert!(!holds(Some(site)), "{site} could be left out");
        }
    }
}
