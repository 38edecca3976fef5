//! The state of steps: what the frames say of it that are in segments no longer, or will soon be in none.
//!
//! In: entries of 32 bytes (8 of key, 24 of value) of a step, in the order of frames. Out: the same in the same order; of two
//! entries of a key the later one counts, and one of zeros takes the key out; no entries at all take all keys of their step
//! out that came before. A file `00000001.state` is a row of records (see
//! `segment`). When a segment has ended, what its frames say is appended as a batch of records and fsynced; only then may the
//! segment be deleted. The last record of a batch has the number of the last frame in it, the others that of the batch before.
//! So the state is the log, and behind it what the frames beyond [`StateLog::seq`] say, and nobody holds it in memory.
//!
//! When entries that were replaced make up more than half of the log, it is *compacted*: what lives is written in the same
//! order to the file of the next number, which is fsynced, renamed and only then takes the old one's place. A large log is
//! compacted by a thread of its own, while the journal goes on appending; where the next compaction is due before it has
//! ended, it is waited for: so the log takes at most twice what lives, half of that again while it is compacted, and the new
//! file. Memory: [`ROWS_MAX`] rows of 16 bytes, in as many passes as that takes, and a bit for each entry.
//!
//! A torn end is cut. Damage is put aside and named: some keys are then forgotten, or stand where they stood before.

use crate::codec::{Corrupt, Reader, put_bytes, put_u32};
use crate::disk::{Disk, File};
use crate::frame::{STATE_ENTRY_BYTES, StateChange};
use crate::recover::ending;
use crate::segment::{self, Kind, Piece};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Payload of a record, about.
const RECORD_BYTES: usize = 1 << 20;
/// A log that is no longer than this is compacted where it stands: that takes a few milliseconds.
const INLINE_BYTES: u64 = 4 << 20;
/// Rows that are sorted at once by a compaction: 64 MiB.
const ROWS_MAX: usize = 4 << 20;
/// A compaction makes durable so many bytes at a time, so that fsyncs of frames never wait for all of it.
const SYNC_BYTES: u64 = 8 << 20;
const ENDING: &str = ".state";
const DAMAGE_TOLD_MAX: usize = 4;
/// What an operator reads where state is lost.
const FORGOTTEN: &str = "steps may have forgotten keys, or know what was before";

/// Which entries are still of use, by step and key.
pub(crate) type InUse = Arc<dyn Fn(u32, &[u8]) -> bool + Send + Sync>;

pub(crate) struct StateLog {
    disk: Disk,
    dir: PathBuf,
    /// Number of the file.
    generation: u64,
    file: Option<File>,
    /// Durable bytes.
    len: u64,
    /// Something may stand behind `len`.
    torn: bool,
    /// The name of the file may not be durable yet, and that of the one before not be gone.
    unnamed: bool,
    /// What this frame and all before it say is in the log.
    pub seq: u64,
    /// Some frame, here or in a segment, forgets what a step knew.
    pub forgets: bool,
    entries: u64,
    /// Its length when it had been compacted.
    lived: u64,
    /// Bytes that came since the last compaction began, and how many may come before it is asked whether to compact.
    grown: u64,
    due: u64,
    /// Below so many bytes nothing is compacted.
    bytes_min: u64,
    in_use: InUse,
}

/// What is found before the segments are read.
pub(crate) struct Look {
    generations: Vec<u64>,
    /// Good records of the newest file.
    good: Vec<Range<u64>>,
    /// Where it ends.
    len: u64,
    seq: u64,
    entries: u64,
    lived: u64,
    forgets: bool,
    /// Why it is not whole.
    pub damage: Vec<String>,
}

impl Look {
    /// `None`: there is no log.
    pub fn seq(&self) -> Option<u64> {
        (!self.generations.is_empty()).then_some(self.seq)
    }

    pub fn path(&self, dir: &Path) -> PathBuf {
        path(dir, self.generations.last().copied().unwrap_or(1))
    }
}

fn path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation:08}{ENDING}"))
}

fn remove(disk: &Disk, path: &Path) -> io::Result<()> {
    match disk.unlink(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Where a record stands, and its number of the frame and of entries, or what is wrong.
type Seen = (Range<u64>, Result<(u64, u64), String>);

/// Reads the log and changes nothing.
pub(crate) fn look(disk: &Disk, dir: &Path) -> io::Result<Look> {
    let mut generations: Vec<u64> = disk.list(dir)?.iter().filter_map(|name| segment::number_with(name, ENDING)).collect();
    generations.sort_unstable();
    let mut look = Look { generations, good: Vec::new(), len: 0, seq: 0, entries: 0, lived: 0, forgets: false, damage: Vec::new() };
    let Some(newest) = look.generations.last() else { return Ok(look) };
    let mut records: Vec<Seen> = Vec::new();
    segment::pieces(disk, &path(dir, *newest), u64::MAX, &mut |piece| {
        records.push(match piece {
            Piece::Record { kind: Kind::State, seq, payload, range } => {
                look.forgets |= changes(payload).is_ok_and(|changes| changes.iter().any(|change| change.1.is_empty()));
                (range, count(payload).map(|entries| (seq, entries)).map_err(|what| what.to_string()))
            }
            Piece::Record { range, .. } => (range, Err("a record of another kind stands there".into())),
            Piece::Bad { range, what } => (range, Err(what)),
        });
        Ok(true)
    })?;
    records.truncate(whole(&records));
    for (range, record) in records {
        match record {
            Ok((seq, entries)) => {
                look.entries += entries;
                if seq > look.seq && look.seq == 0 {
                    look.lived = range.end;
                }
                look.seq = look.seq.max(seq);
                look.len = range.end;
                match look.good.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => look.good.push(range),
                }
            }
            Err(_) if look.damage.len() >= DAMAGE_TOLD_MAX => {}
            Err(what) => look.damage.push(format!("bytes {} to {} are damaged ({what})", range.start, range.end)),
        }
    }
    Ok(look)
}

/// How many records were durable. What is bad was, if something was written after its batch had been fsynced: behind the
/// record that closes the batch, the first with a higher number. Else it is the torn end.
fn whole(records: &[Seen]) -> usize {
    let mut seq = 0;
    for (at, (_, record)) in records.iter().enumerate() {
        match record {
            Ok((own, _)) => seq = seq.max(*own),
            Err(what) if what.contains(segment::NEWER) => {}
            Err(_) => {
                let closes = records[at..].iter().position(|r| matches!(r.1, Ok((own, _)) if own > seq));
                if closes.is_none_or(|closes| records[at + closes + 1..].iter().all(|r| r.1.is_err())) {
                    return at;
                }
            }
        }
    }
    records.len()
}

impl StateLog {
    /// Brings the log to where it can be gone on with. `frames`: the first one that segments hold, and the last.
    pub fn open(disk: &Disk, dir: &Path, look: Look, frames: (u64, u64), notices: &mut Vec<String>) -> io::Result<StateLog> {
        let (before, last_seq) = (frames.0 - 1, frames.1);
        let generation = look.generations.last().copied().unwrap_or(0);
        let here = path(dir, generation);
        if generation == 0 {
            if before > 0 {
                notices.push(format!("{}: the state of steps is missing; {FORGOTTEN}", path(dir, 1).display()));
            }
            return StateLog::create(disk, dir, &[], before);
        }
        let mut log = StateLog {
            generation,
            len: look.len,
            seq: look.seq,
            entries: look.entries,
            lived: look.lived,
            forgets: look.forgets,
            grown: look.len - look.lived,
            ..StateLog::new(disk, dir)
        };
        let keeps = look.good;
        if !look.damage.is_empty() || keeps.is_empty() || log.seq > last_seq || log.seq < before {
            let what = if !look.damage.is_empty() {
                look.damage.join("; ")
            } else if keeps.is_empty() {
                "nothing in it can be read".into()
            } else if log.seq > last_seq {
                format!("it goes up to frame {}, which is lost; frame {last_seq} is the last one", log.seq)
            } else {
                format!("what frames {} to {before} changed is lost", log.seq + 1)
            };
            let aside = segment::put_aside(disk, dir, &here, ending(&what))?;
            notices.push(format!("{}: {what}; {FORGOTTEN}; the file as it was is kept as {}", here.display(), aside.display()));
            log.seq = log.seq.clamp(before, last_seq.max(before));
            log.rewrite(&keeps)?;
        } else {
            // Also what is whole may be in the page cache only.
            disk.truncate(&here, log.len, "state.tail")?;
            if look.generations.len() > 1 {
                disk.sync_dir(dir, "state.names")?;
            }
        }
        for old in look.generations.iter().filter(|old| **old < log.generation) {
            remove(disk, &path(dir, *old))?;
        }
        Ok(log)
    }

    fn new(disk: &Disk, dir: &Path) -> StateLog {
        StateLog {
            disk: disk.clone(),
            dir: dir.to_owned(),
            generation: 0,
            file: None,
            len: 0,
            torn: false,
            unnamed: false,
            seq: 0,
            forgets: false,
            entries: 0,
            lived: 0,
            grown: 0,
            due: 0,
            bytes_min: 0,
            in_use: Arc::new(|_, _| true),
        }
    }

    /// Writes the first file.
    pub fn create(disk: &Disk, dir: &Path, changes: &[StateChange], seq: u64) -> io::Result<StateLog> {
        let mut log = StateLog { seq, ..StateLog::new(disk, dir) };
        let mut new = NewFile::create(&log, 1)?;
        for change in changes {
            new.push(change.step, &change.bytes, 0)?;
        }
        new.flush(seq)?;
        let new = new.finish()?;
        let lived = new.len;
        log.publish(new, lived)?;
        Ok(log)
    }

    fn path(&self) -> PathBuf {
        path(&self.dir, self.generation)
    }

    /// Writes the good records anew, none of them beyond `seq`, and one that reaches it.
    fn rewrite(&mut self, keeps: &[Range<u64>]) -> io::Result<()> {
        let (old, seq) = (self.path(), self.seq);
        let mut new = NewFile::create(self, self.generation + 1)?;
        segment::pieces(&self.disk, &old, u64::MAX, &mut |piece| {
            if let Piece::Record { kind: Kind::State, seq: own, payload, range } = piece
                && keeps.iter().any(|keep| keep.start <= range.start && range.end <= keep.end)
            {
                for change in changes(payload).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
                    new.push(change.0, change.1, 0)?;
                }
                new.flush(own.min(seq))?;
            }
            Ok(true)
        })?;
        new.flush(seq)?;
        let new = new.finish()?;
        let lived = new.len;
        self.publish(new, lived)
    }

    /// Puts a file in the place of the one before. `lived`: how much of it a compaction wrote.
    fn publish(&mut self, new: Finished, lived: u64) -> io::Result<()> {
        let to = path(&self.dir, new.generation);
        self.disk.rename(&segment::new_path(&to), &to, "state.publish")?;
        // From here on a restart reads this one, whatever fails below: so nothing is appended to the other any more.
        (self.generation, self.len, self.entries, self.lived) = (new.generation, new.len, new.entries, lived);
        (self.file, self.torn, self.unnamed) = (None, false, true);
        self.name()
    }

    /// Makes the name of the file durable; only then the one before may go.
    fn name(&mut self) -> io::Result<()> {
        if self.unnamed {
            self.disk.sync_dir(&self.dir, "state.names")?;
            self.unnamed = false;
            remove(&self.disk, &path(&self.dir, self.generation - 1))?;
        }
        Ok(())
    }

    /// `bytes_min`: below so many bytes nothing is compacted.
    pub fn set_bytes_min(&mut self, bytes_min: u64) {
        self.bytes_min = bytes_min;
    }

    /// It is time to look whether a compaction is worth its while; the last one must have ended for that.
    pub fn is_due(&self) -> bool {
        self.grown > self.due
    }

    /// What a compaction is to work on, if more than half of the log is of no use, as far as that is known. When the next one
    /// is due depends on what was written alone, not on how long this one takes.
    pub fn begin_compaction(&mut self) -> Option<Snapshot> {
        self.due = self.lived + self.bytes_min;
        if !self.is_due() {
            return None;
        }
        (self.grown, self.due) = (0, self.len / 2 + self.bytes_min);
        let StateLog { disk, generation, len, entries, seq, in_use, .. } = &*self;
        let (disk, path, in_use) = (disk.clone(), self.path(), Arc::clone(in_use));
        Some(Snapshot { disk, path, generation: *generation, len: *len, entries: *entries, seq: *seq, in_use })
    }

    pub fn set_in_use(&mut self, in_use: InUse) {
        self.in_use = in_use;
    }

    /// Begins to append what frames after `seq` say.
    pub fn add(&mut self) -> io::Result<Adding<'_>> {
        self.name()?;
        if self.torn {
            self.disk.truncate(&self.path(), self.len, "state.tail")?;
            self.torn = false;
        }
        if self.file.is_none() {
            self.file = Some(self.disk.open_append(&self.path())?);
        }
        Ok(Adding { log: self, packer: Packer::default(), bytes: 0, entries: 0 })
    }

    /// Shows all entries in their order, those of one step at a time; none where a step was forgotten.
    pub fn runs(&self, show: &mut dyn FnMut(u32, &[u8])) -> io::Result<()> {
        each_run(&self.disk, &self.path(), self.len, &mut |step, entries| {
            show(step, entries);
            Ok(())
        })
    }

    /// The same, and notes how many are of no use.
    pub fn each(&mut self, show: &mut dyn FnMut(u32, &[u8])) -> io::Result<()> {
        let in_use = Arc::clone(&self.in_use);
        let mut useless = 0;
        each_run(&self.disk, &self.path(), self.len, &mut |step, entries| {
            useless += entries.chunks_exact(STATE_ENTRY_BYTES).filter(|entry| !in_use(step, &entry[..8])).count() as u64;
            show(step, entries);
            Ok(())
        })?;
        let useless = (useless * STATE_ENTRY_BYTES as u64).min(self.lived);
        (self.lived, self.grown) = (self.lived - useless, self.grown + useless);
        Ok(())
    }
}

/// Entries that are being appended; where `finish` is not reached, they are cut again.
pub(crate) struct Adding<'a> {
    log: &'a mut StateLog,
    packer: Packer,
    bytes: u64,
    entries: u64,
}

impl Adding<'_> {
    pub fn push(&mut self, step: u32, mut entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() {
            self.packer.forget(step);
        }
        self.entries += (entries.len() / STATE_ENTRY_BYTES) as u64;
        while !entries.is_empty() {
            let (now, later) = entries.split_at(entries.len().min(self.packer.room()));
            self.packer.push(step, now);
            entries = later;
            if self.packer.room() == 0 {
                // The frames are not all in yet: whoever reads this goes on at the same frame.
                let seq = self.log.seq;
                self.write(seq)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, seq: u64) -> io::Result<()> {
        let bytes = self.packer.record(seq);
        self.log.torn = true;
        self.log.file.as_mut().expect("`add` opened it").append(&bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// All frames up to `seq` are in; when this returns, that is durable.
    pub fn finish(mut self, seq: u64) -> io::Result<()> {
        self.write(seq)?;
        let file = self.log.file.as_mut().expect("`add` opened it");
        if let Err(error) = file.sync("state.data") {
            self.log.file = None;
            return Err(error); // it is cut and written once more
        }
        self.log.len += self.bytes;
        self.log.grown += self.bytes;
        self.log.entries += self.entries;
        (self.log.seq, self.log.torn) = (seq, false);
        Ok(())
    }
}

/// Packs entries into the payload of a record: `step u32 | bytes u32 | entries`, again and again.
#[derive(Default)]
struct Packer {
    payload: Vec<u8>,
    step: u32,
    /// Where the entries of this step begin; 0: the next ones begin anew.
    start: usize,
}

impl Packer {
    /// Bytes of entries that a record still takes.
    fn room(&self) -> usize {
        RECORD_BYTES.saturating_sub(self.payload.len()) / STATE_ENTRY_BYTES * STATE_ENTRY_BYTES
    }

    fn push(&mut self, step: u32, entries: &[u8]) {
        if self.start == 0 || self.step != step {
            put_u32(&mut self.payload, step);
            put_bytes(&mut self.payload, &[]);
            (self.step, self.start) = (step, self.payload.len());
        }
        self.payload.extend_from_slice(entries);
        let len = (self.payload.len() - self.start) as u32;
        self.payload[self.start - 4..self.start].copy_from_slice(&len.to_le_bytes());
    }

    /// What came before of this step counts no more.
    fn forget(&mut self, step: u32) {
        put_u32(&mut self.payload, step);
        put_bytes(&mut self.payload, &[]);
        self.start = 0;
    }

    fn record(&mut self, seq: u64) -> Vec<u8> {
        let bytes = segment::record(Kind::State, seq, |out| out.extend_from_slice(&self.payload));
        self.payload.clear();
        self.start = 0;
        bytes
    }
}

/// Steps and their entries in a payload.
fn changes(payload: &[u8]) -> Result<Vec<(u32, &[u8])>, Corrupt> {
    let r = &mut Reader::new(payload);
    let mut changes = Vec::new();
    while r.end().is_err() {
        let step = r.u32()?;
        let entries = r.bytes()?;
        if entries.len() % STATE_ENTRY_BYTES != 0 {
            return Err(r.corrupt("state is no list of 32-byte entries"));
        }
        changes.push((step, entries));
    }
    Ok(changes)
}

fn count(payload: &[u8]) -> Result<u64, Corrupt> {
    Ok(changes(payload)?.iter().map(|change| (change.1.len() / STATE_ENTRY_BYTES) as u64).sum())
}

/// Shows the entries of the first `len` bytes, those of one step at a time.
fn each_run(disk: &Disk, path: &Path, len: u64, show: &mut dyn FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
    segment::pieces(disk, path, len, &mut |piece| match piece {
        Piece::Record { kind: Kind::State, payload, .. } => {
            for (step, entries) in changes(payload).map_err(|e| damaged(e.to_string()))? {
                show(step, entries)?;
            }
            Ok(true)
        }
        // It was whole when it was opened.
        Piece::Record { range, .. } => Err(damaged(format!("a record of another kind stands at byte {}", range.start))),
        Piece::Bad { range, what } => Err(damaged(format!("bytes {} to {}: {what}", range.start, range.end))),
    })?;
    Ok(())
}

/// A file that will take the place of the log.
struct NewFile {
    file: File,
    packer: Packer,
    done: Finished,
    unsynced: u64,
}

struct Finished {
    generation: u64,
    len: u64,
    entries: u64,
}

impl NewFile {
    fn create(log: &StateLog, generation: u64) -> io::Result<NewFile> {
        let file = log.disk.create_or_truncate(&segment::new_path(&path(&log.dir, generation)))?;
        Ok(NewFile { file, packer: Packer::default(), done: Finished { generation, len: 0, entries: 0 }, unsynced: 0 })
    }

    /// `seq`: that of the batch before.
    fn push(&mut self, step: u32, mut entries: &[u8], seq: u64) -> io::Result<()> {
        if entries.is_empty() {
            self.packer.forget(step);
        }
        self.done.entries += (entries.len() / STATE_ENTRY_BYTES) as u64;
        while !entries.is_empty() {
            let (now, later) = entries.split_at(entries.len().min(self.packer.room()));
            self.packer.push(step, now);
            entries = later;
            if self.packer.room() == 0 {
                self.flush(seq)?;
            }
        }
        Ok(())
    }

    /// Ends a record.
    fn flush(&mut self, seq: u64) -> io::Result<()> {
        let bytes = self.packer.record(seq);
        self.append(&bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)?;
        self.done.len += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync("state.new")
    }

    fn finish(mut self) -> io::Result<Finished> {
        self.sync()?;
        Ok(self.done)
    }
}

fn lock(log: &Mutex<StateLog>) -> MutexGuard<'_, StateLog> {
    log.lock().expect("no holder of this lock panics")
}

/// A log as it is when a compaction begins.
pub(crate) struct Snapshot {
    disk: Disk,
    path: PathBuf,
    generation: u64,
    len: u64,
    entries: u64,
    seq: u64,
    in_use: InUse,
}

impl Snapshot {
    /// It takes long enough for a thread of its own.
    pub fn is_large(&self) -> bool {
        self.len > INLINE_BYTES
    }
}

/// Writes what lives of the log to a new file, which takes its place. Others may append meanwhile.
pub(crate) fn compact(log: &Mutex<StateLog>, snapshot: &Snapshot, cancel: &AtomicBool) -> io::Result<()> {
    let Snapshot { disk, path: old, generation, len, entries, seq, .. } = snapshot;
    let mut new = NewFile::create(&lock(log), generation + 1)?;
    let check = || if cancel.load(Ordering::Relaxed) { Err(io::Error::other("cancelled")) } else { Ok(()) };
    let lives = snapshot.living(ROWS_MAX, &check)?;
    let mut number = 0;
    each_run(disk, old, *len, &mut |step, run| {
        check()?;
        for entry in run.chunks_exact(STATE_ENTRY_BYTES) {
            if lives[number / 64] >> (number % 64) & 1 == 1 {
                new.push(step, entry, 0)?;
            }
            number += 1;
        }
        Ok(())
    })?;
    new.flush(*seq)?;
    new.sync()?;
    // Most of it is durable; only what came meanwhile is copied while nobody can append.
    let mut log = lock(log);
    check()?;
    let lived = new.done.len;
    let mut at = *len;
    while at < log.len {
        let bytes = disk.read_at(old, at, RECORD_BYTES.min((log.len - at) as usize))?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} became shorter", old.display())));
        }
        new.append(&bytes)?;
        at += bytes.len() as u64;
    }
    let mut done = new.finish()?;
    done.entries += log.entries - entries;
    log.publish(done, lived)
}

impl Snapshot {
    /// A bit for each entry that is the last of its key, says something and is in use. Sorts `rows_max` rows at once, a few more
    /// where keys are spread unevenly.
    fn living(&self, rows_max: usize, check: &dyn Fn() -> io::Result<()>) -> io::Result<Vec<u64>> {
        let mut lives = vec![0u64; self.entries as usize / 64 + 1];
        let passes = self.entries / (rows_max as u64 * 7 / 8) + 1; // parts of a hash are a little uneven
        // Key; step (24 bits), number of the entry (39), whether it says anything (1): so that the last of a key comes last.
        let mut rows: Vec<(u64, u64)> = Vec::with_capacity((self.entries / passes * 8 / 7 + 1).min(rows_max as u64) as usize);
        let mut steps: Vec<u32> = Vec::new();
        let forgotten = self.forgotten(check)?;
        for pass in 0..passes {
            rows.clear();
            let mut number = 0u64;
            each_run(&self.disk, &self.path, self.len, &mut |step, run| {
                check()?;
                let at = steps.iter().position(|known| *known == step).unwrap_or_else(|| {
                    steps.push(step);
                    steps.len() - 1
                }) as u64;
                let alive_from = forgotten.iter().find(|f| f.0 == step).map_or(0, |f| f.1);
                for entry in run.chunks_exact(STATE_ENTRY_BYTES) {
                    let key = u64::from_le_bytes(entry[..8].try_into().expect("a range of 8 is 8 bytes"));
                    if number >= alive_from && part(key, passes) == pass && (self.in_use)(step, &entry[..8]) {
                        if rows.len() == rows.capacity() {
                            leave_last(&mut rows); // a few keys that change often
                        }
                        rows.push((key, at << 40 | number << 1 | u64::from(entry[8..] != [0; 24])));
                    }
                    number += 1;
                }
                Ok(())
            })?;
            leave_last(&mut rows);
            for (_, row) in &rows {
                let number = (row & ((1 << 40) - 1)) >> 1;
                lives[number as usize / 64] |= (row & 1) << (number % 64);
            }
        }
        Ok(lives)
    }
}

impl Snapshot {
    /// Steps that were forgotten, and the number of the first entry that came after that.
    fn forgotten(&self, check: &dyn Fn() -> io::Result<()>) -> io::Result<Vec<(u32, u64)>> {
        let (mut forgotten, mut number): (Vec<(u32, u64)>, u64) = (Vec::new(), 0);
        each_run(&self.disk, &self.path, self.len, &mut |step, run| {
            check()?;
            if run.is_empty() {
                forgotten.retain(|other| other.0 != step);
                forgotten.push((step, number));
            }
            number += (run.len() / STATE_ENTRY_BYTES) as u64;
            Ok(())
        })?;
        Ok(forgotten)
    }
}

/// Which of so many passes looks at a key (Fibonacci hashing: Knuth 6.4).
fn part(key: u64, passes: u64) -> u64 {
    ((u128::from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(passes)) >> 64) as u64
}

/// Leaves the last row of each key and step.
fn leave_last(rows: &mut Vec<(u64, u64)>) {
    rows.sort_unstable();
    let mut kept = 0;
    for at in 0..rows.len() {
        let is_last = rows.get(at + 1).is_none_or(|next| (next.0, next.1 >> 40) != (rows[at].0, rows[at].1 >> 40));
        if is_last {
            rows[kept] = rows[at];
            kept += 1;
        }
    }
    rows.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Sim;
    use crate::sample::Random;
    use std::collections::BTreeMap;

    fn dir() -> &'static Path {
        Path::new("/state")
    }

    fn open(disk: &Disk, frames: (u64, u64)) -> (StateLog, Vec<String>) {
        disk.create_dir_all(dir(), "folder").unwrap();
        let mut notices = Vec::new();
        let log = StateLog::open(disk, dir(), look(disk, dir()).unwrap(), frames, &mut notices).unwrap();
        (log, notices.into_iter().map(|notice| notice.replace("/state/", "")).collect())
    }

    fn entry(key: u64, value: u64) -> [u8; 32] {
        let mut entry = [0; 32];
        entry[..8].copy_from_slice(&key.to_le_bytes());
        entry[8..16].copy_from_slice(&value.to_le_bytes());
        entry
    }

    /// Appends a batch of (step, key, value).
    fn add(log: &mut StateLog, seq: u64, entries: &[(u32, u64, u64)]) {
        let mut adding = log.add().unwrap();
        entries.iter().for_each(|(step, key, value)| adding.push(*step, &entry(*key, *value)).unwrap());
        adding.finish(seq).unwrap();
    }

    fn snapshot(log: &mut StateLog) -> Snapshot {
        (log.lived, log.grown) = (0, log.len);
        log.begin_compaction().expect("all of it may be of no use")
    }

    fn all(log: &mut StateLog) -> Vec<(u32, u64, u64)> {
        let mut found = Vec::new();
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        log.each(&mut |step, run| found.extend(run.chunks_exact(32).map(|e| (step, number(&e[..8]), number(&e[8..16]))))).unwrap();
        found
    }

    /// The last entry of each key that is in use and says something, in order.
    fn lives(entries: &[(u32, u64, u64)], in_use: impl Fn(u32) -> bool) -> Vec<(u32, u64, u64)> {
        let last: BTreeMap<(u32, u64), usize> = entries.iter().enumerate().map(|(at, e)| ((e.0, e.1), at)).collect();
        let is_alive = |(at, e): &(usize, &(u32, u64, u64))| last[&(e.0, e.1)] == *at && e.2 > 0 && in_use(e.0);
        entries.iter().enumerate().filter(is_alive).map(|(_, e)| *e).collect()
    }

    #[test]
    fn what_lives_is_found_in_as_many_passes_as_it_takes_and_stays_in_order() {
        let disk = Disk::Sim(Arc::new(Sim::new(1)));
        let (mut log, _) = open(&disk, (1, 0));
        let mut random = Random(5);
        let mut entries = Vec::new();
        for seq in 1..=20 {
            // Half of them are changes of a few keys.
            let mut one = || (random.below(3) as u32, random.below(2) * random.below(900) + random.below(3), random.below(4));
            let batch: Vec<_> = (0..200).map(|_| one()).collect();
            add(&mut log, seq, &batch);
            entries.extend(batch);
        }
        assert_eq!(all(&mut log), entries);
        log.set_in_use(Arc::new(|step, _| step != 1));
        let want = lives(&entries, |step| step != 1);
        assert!(want.len() > 100, "{}", want.len());
        for rows_max in [8, 100, 5_000] {
            let bits = snapshot(&mut log).living(rows_max, &|| Ok(())).unwrap();
            let found: Vec<_> = entries.iter().enumerate().filter(|(n, _)| bits[n / 64] >> (n % 64) & 1 == 1).map(|(_, e)| *e).collect();
            assert_eq!(found, want, "{rows_max} rows at once");
        }
        let snapshot = snapshot(&mut log);
        let log = Mutex::new(log);
        compact(&log, &snapshot, &AtomicBool::new(false)).unwrap();
        assert_eq!(all(&mut lock(&log)), want);
        add(&mut lock(&log), 21, &[(0, 7_000, 1)]);
        let (mut log, notices) = open(&disk, (20, 21));
        assert_eq!((log.seq, notices), (21, Vec::new()));
        assert_eq!(all(&mut log), [want, vec![(0, 7_000, 1)]].concat());
    }

    #[test]
    fn a_step_that_was_forgotten_begins_anew_and_no_other() {
        let disk = Disk::Sim(Arc::new(Sim::new(1)));
        let (mut log, _) = open(&disk, (1, 0));
        let mut adding = log.add().unwrap();
        adding.push(1, &entry(5, 1)).unwrap();
        adding.push(2, &entry(5, 2)).unwrap();
        adding.push(2, &[]).unwrap();
        adding.push(2, &entry(6, 3)).unwrap();
        adding.push(3, &[]).unwrap();
        adding.finish(1).unwrap();
        let (mut log, _) = open(&disk, (1, 1));
        assert!(log.forgets);
        let mut runs = Vec::new();
        log.runs(&mut |step, run| runs.push((step, run.len() / 32))).unwrap();
        assert_eq!(runs, [(1, 1), (2, 1), (2, 0), (2, 1), (3, 0)]);
        let snapshot = snapshot(&mut log);
        let log = Mutex::new(log);
        compact(&log, &snapshot, &AtomicBool::new(false)).unwrap();
        assert_eq!(all(&mut lock(&log)), [(1, 5, 1), (2, 6, 3)]);
    }

    #[test]
    fn what_is_appended_during_a_compaction_is_in_the_new_log() {
        let disk = Disk::Sim(Arc::new(Sim::new(1)));
        let (mut log, _) = open(&disk, (1, 0));
        add(&mut log, 1, &[(1, 1, 1), (1, 2, 2), (1, 1, 3)]);
        let log = Arc::new(Mutex::new(log));
        // Asks about an entry while the log is not locked: then there is time to append.
        let (in_use, added) = (Arc::clone(&log), AtomicBool::new(false));
        lock(&log).set_in_use(Arc::new(move |_, _| {
            if let Ok(mut log) = in_use.try_lock()
                && !added.swap(true, Ordering::Relaxed)
            {
                add(&mut log, 2, &[(1, 2, 0), (1, 9, 9)]);
            }
            true
        }));
        let snapshot = snapshot(&mut lock(&log));
        compact(&log, &snapshot, &AtomicBool::new(false)).unwrap();
        let found = all(&mut lock(&log));
        lock(&log).set_in_use(Arc::new(|_, _| true));
        assert_eq!(found, [(1, 2, 2), (1, 1, 3), (1, 2, 0), (1, 9, 9)]);
        let (mut log, notices) = open(&disk, (1, 2));
        assert_eq!((log.seq, notices, all(&mut log)), (2, Vec::new(), found));
    }

    /// Three batches of one entry each, then something happens to the file; segments hold frames 3 and 4.
    #[track_caller]
    fn damage(change: impl FnOnce(&Disk, &Path), want_notice: &str, want: &[u64]) {
        let disk = Disk::Sim(Arc::new(Sim::new(1)));
        let (mut log, _) = open(&disk, (1, 0));
        (1..=3).for_each(|seq| add(&mut log, seq, &[(5, seq, seq)]));
        change(&disk, &log.path());
        let (mut log, notices) = open(&disk, (3, 4));
        assert_eq!(notices.join(" | "), want_notice);
        assert_eq!(all(&mut log).iter().map(|e| e.1).collect::<Vec<_>>(), want);
        add(&mut log, 4, &[(5, 4, 4)]);
        let (mut log, notices) = open(&disk, (3, 4));
        assert_eq!((log.seq, notices), (4, Vec::new()), "the next start");
        assert_eq!(all(&mut log).iter().map(|e| e.1).collect::<Vec<_>>(), [want, &[4]].concat());
    }

    fn rewrite(change: impl FnOnce(&mut Vec<u8>)) -> impl FnOnce(&Disk, &Path) {
        move |disk, path| {
            let mut bytes = disk.read(path).unwrap();
            change(&mut bytes);
            disk.create_or_truncate(path).unwrap().append(&bytes).unwrap();
        }
    }

    #[test]
    fn damage_is_told_and_put_aside_and_a_torn_end_is_cut() {
        // A record of 24 bytes without entries, then three of 24 + 8 + 32.
        let told = |what: &str| format!("00000001.state: {what}; {FORGOTTEN}; the file as it was is kept as 00000001.state.damaged");
        let sum = "the checksum of a record does not match";
        damage(|_, _| {}, "", &[1, 2, 3]);
        damage(rewrite(|bytes| bytes[60] ^= 1), &told(&format!("bytes 24 to 88 are damaged ({sum})")), &[2, 3]);
        damage(rewrite(|bytes| bytes[25] ^= 1), &told("bytes 24 to 88 are damaged (the header of a record is damaged)"), &[2, 3]);
        // The last batch may be torn: the frames it was made of are still there.
        damage(rewrite(|bytes| bytes.truncate(215)), "", &[1, 2]);
        damage(rewrite(|bytes| *bytes.last_mut().unwrap() ^= 1), "", &[1, 2]);
        damage(rewrite(|bytes| bytes.extend([0; 50])), "", &[1, 2, 3]);
        // Without frame 2 it is known that something is missing.
        damage(rewrite(|bytes| bytes.truncate(151)), &told("what frames 2 to 2 changed is lost"), &[1]);
        damage(rewrite(Vec::clear), &told("nothing in it can be read"), &[]);
        damage(rewrite(|bytes| bytes.fill(0)), &told("nothing in it can be read"), &[]);
        damage(|disk, path| disk.unlink(path).unwrap(), &format!("00000001.state: the state of steps is missing; {FORGOTTEN}"), &[]);
        let newer = rewrite(|bytes| [24, 88, 152].into_iter().for_each(|at| bytes[at + 3] = b'2'));
        let text = told("bytes 24 to 216 are damaged (it was written by a newer version of weir)");
        damage(newer, &text.replace(".damaged", ".newer"), &[]);
    }

    #[test]
    fn a_log_that_is_ahead_of_a_damaged_journal_stays_and_goes_on_where_that_ends() {
        let disk = Disk::Sim(Arc::new(Sim::new(1)));
        let (mut log, _) = open(&disk, (1, 0));
        (1..=3).for_each(|seq| add(&mut log, seq, &[(5, seq, seq)]));
        let (mut log, notices) = open(&disk, (1, 2));
        assert!(notices[0].contains("it goes up to frame 3, which is lost; frame 2 is the last one"), "{notices:?}");
        assert_eq!((log.seq, all(&mut log).len()), (2, 3));
        let (log, notices) = open(&disk, (1, 2));
        assert_eq!((log.seq, notices.len()), (2, 0));
    }
}
