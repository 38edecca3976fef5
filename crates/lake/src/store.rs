//! The writer of a lake: takes frames, makes files of all tenants and tables, and one commit that names them.
//!
//! In: frames as the hub delivers them; out: a durable commit, or nothing where the lake has it all. A part
//! whose stream stands at or behind its end is skipped whole, so a frame may come any number of times. A data
//! file is written under a name of its own, synced, linked without replacing and its folder synced before the
//! commit is tried; what no commit names is removed when the lake is opened. A writer that comes second reads
//! the winner's commit; where one of its streams has moved, it removes its files and starts anew from there:
//! a forgotten twin cannot double a row. Memory: the frames of one seal (the caller's bound), and one file.

use crate::commit::{Commit, FileEntry, Log, list_names, publish, stream_name, write_tmp};
use crate::facts;
use crate::layout::{
    COMMITS, LINEAGE, LOGS, METRICS, NOBODY, TABLES, TRACES, USAGE, commit_number, content_name, day_and_hour, escape_tenant, folder,
};
use crate::lineage;
use crate::logs::{LogFile, LogWriter, RowRef, Spent, field_columns};
use crate::runs::{self, Seen};
use crate::samples;
use crate::{Fields, Options};
use anyhow::{Context, anyhow, bail};
use flow::event::{Signal, StreamId, UsageFact};
use flow::fields::FIELDS_MAX;
use hub::disk::Disk;
use hub::frame::Frame;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Times a seal is started anew because another writer was faster. More means that two programs fight.
const ATTEMPTS_MAX: u32 = 100;

/// The one writer of a lake.
pub struct Lake {
    disk: Disk,
    root: PathBuf,
    options: Options,
    fields: Fields,
    log: Log,
    /// Keys of the lineage events that are stored.
    lineage_keys: HashSet<String>,
    /// After an error nobody knows what was published: the log is read again first.
    stale: bool,
    spent: Spent,
}

/// What one seal put into the lake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Number of the commit.
    pub number: u64,
    pub files: u64,
    pub rows: u64,
    /// Bytes of the rows as they were received.
    pub raw_bytes: u64,
    pub parquet_bytes: u64,
    pub index_bytes: u64,
    pub usage_facts: u64,
    pub lineage_events: u64,
    /// Rows and origin bytes by tenant.
    pub by_tenant: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Another writer was faster this often.
    pub lost: u32,
}

impl Lake {
    /// Opens or creates the lake at `root`. Removes what an interrupted seal or rewrite left: files that no commit names. Files
    /// that a commit removed stay for those who read an older snapshot; `maintain::sweep_removed` takes them. So nobody else may
    /// write to the lake meanwhile: let [`crate::maintain::Keeper`] begin after this, and end before the lake is opened again.
    pub fn open(disk: Disk, root: &Path, options: Options) -> anyhow::Result<Lake> {
        let fields = options.fields();
        let columns = field_columns(&fields).len();
        if columns > FIELDS_MAX {
            bail!("the lake has {columns} fields to index, {FIELDS_MAX} are possible");
        }
        let commits = root.join(COMMITS);
        disk.create_dir_all(&commits, "lake.open.create").with_context(|| format!("cannot create {}", commits.display()))?;
        let mut lake = Lake {
            disk,
            root: root.into(),
            options,
            fields,
            log: Log::default(),
            lineage_keys: HashSet::new(),
            stale: true,
            spent: Spent::default(),
        };
        lake.refresh()?;
        lake.sweep()?;
        Ok(lake)
    }

    /// Stream by stream, how far the lake has it.
    pub fn positions(&self) -> HashMap<StreamId, u64> {
        self.log.positions.clone()
    }

    /// How far the lake has a stream, if it has any of it.
    pub fn position(&self, stream: StreamId) -> Option<u64> {
        self.log.positions.get(&stream).copied()
    }

    /// What the stages of writing logs took, since the lake was opened.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Seals what `frames` hold beyond the lake's positions, as one commit. `None`: it has everything already.
    ///
    /// After an error the lake can be used on; what was published is found out first.
    pub fn seal(&mut self, frames: &[Arc<Frame>]) -> anyhow::Result<Option<Sealed>> {
        for lost in 0..ATTEMPTS_MAX {
            if self.stale {
                self.refresh()?;
            }
            let taken = take_parts(frames, |stream| self.log.position(stream))?;
            if taken.parts.is_empty() {
                return Ok(None);
            }
            self.stale = true;
            if let Some(mut sealed) = self.try_seal(frames, &taken)? {
                self.stale = false;
                sealed.lost = lost;
                return Ok(Some(sealed));
            }
        }
        bail!("another program keeps writing to the lake {}", self.root.display())
    }

    /// Reads what the log says now.
    fn refresh(&mut self) -> anyhow::Result<()> {
        // A commit may be visible and still not durable (its writer was killed between link and fsync). Its
        // positions are about to be trusted, so it is made durable first.
        self.disk.sync_dir(&self.root.join(COMMITS), "lake.open.commits")?;
        let known = self.log.table(LINEAGE).len();
        self.log.gone.clear(); // a writer removes nothing
        self.log.read_on(&self.disk, &self.root)?;
        for file in &self.log.table(LINEAGE)[known..] {
            runs::read_keys(&self.disk, &self.root.join(&file.path), &mut self.lineage_keys)?;
        }
        self.stale = false;
        Ok(())
    }

    /// Removes files that no commit names.
    fn sweep(&self) -> anyhow::Result<()> {
        let commits = self.root.join(COMMITS);
        for name in list_names(&self.disk, &commits)? {
            if name.ends_with(".tmp") {
                self.disk.unlink(&commits.join(&name)).with_context(|| format!("cannot remove {name}"))?;
            } else if commit_number(&name).is_none() {
                bail!("{} does not belong into a commit log", commits.join(name).display());
            }
        }
        let mut named: HashSet<&str> = HashSet::new();
        for file in self.log.files.values().flatten() {
            named.insert(&file.path);
            named.extend(file.index.as_deref());
        }
        for gone in &self.log.gone {
            named.insert(&gone.path);
            named.extend(gone.index.as_deref());
        }
        for table in TABLES {
            self.sweep_folder(table, &named)?;
        }
        Ok(())
    }

    /// `path`: from the lake's root, with `/`. The depth is that of the layout: tenant, day, hour.
    fn sweep_folder(&self, path: &str, named: &HashSet<&str>) -> anyhow::Result<()> {
        let full = self.root.join(path);
        for name in list_names(&self.disk, &full)? {
            let inner = format!("{path}/{name}");
            if ["tenant=", "day=", "hour="].iter().any(|kind| name.starts_with(kind)) {
                self.sweep_folder(&inner, named)?;
            } else if [".parquet", ".idx", ".tmp"].iter().any(|kind| name.ends_with(kind)) && !named.contains(inner.as_str()) {
                self.disk.unlink(&self.root.join(&inner)).with_context(|| format!("cannot remove {inner}"))?;
            }
        }
        Ok(())
    }

    /// `None`: another writer moved one of the streams first, and nothing of this try is left.
    fn try_seal(&mut self, frames: &[Arc<Frame>], taken: &Taken) -> anyhow::Result<Option<Sealed>> {
        let (disk, root) = (self.disk.clone(), self.root.clone());
        let mut files = NewFiles::new(&disk, &root);
        let outcome = write_files(&mut files, frames, taken, &self.options, &self.fields, &self.lineage_keys, &mut self.spent);
        let (tables, mut sealed, keys) = match outcome.and_then(|done| files.sync_folders().map(|()| done)) {
            Ok(done) => done,
            Err(error) => {
                files.discard(); // the disk may be full: give back what is of no use
                return Err(error);
            }
        };
        let first = taken.parts.iter().map(|p| frames[p.0].seq).min().unwrap_or(0);
        let last = taken.parts.iter().map(|p| frames[p.0].seq).max().unwrap_or(0);
        loop {
            let mut commit = Commit::new(self.log.number + 1, [first, last], self.fields.clone());
            commit.streams = taken.streams.iter().map(|(stream, range)| (stream_name(*stream), *range)).collect();
            commit.tables = tables.clone();
            commit.at_ns = taken.parts.iter().map(|p| frames[p.0].received.0).max();
            if publish(&disk, &root, &commit)? {
                sealed.number = commit.number;
                self.log.add(commit)?;
                self.lineage_keys.extend(keys);
                return Ok(Some(sealed));
            }
            self.refresh()?;
            self.stale = true;
            if taken.streams.iter().any(|(stream, range)| self.log.position(*stream) != range[0]) {
                files.discard();
                return Ok(None);
            }
        }
    }
}

/// Parts that a store does not have yet.
pub(crate) struct Taken {
    /// (index of the frame, index of its part), in order.
    pub parts: Vec<(usize, usize)>,
    /// Position before and after.
    pub streams: BTreeMap<StreamId, [u64; 2]>,
}

/// Picks the parts beyond the given positions, none twice.
pub(crate) fn take_parts(frames: &[Arc<Frame>], position: impl Fn(StreamId) -> u64) -> anyhow::Result<Taken> {
    let mut taken = Taken { parts: Vec::new(), streams: BTreeMap::new() };
    for (f, frame) in frames.iter().enumerate() {
        for (p, part) in frame.parts.iter().enumerate() {
            let done = taken.streams.get(&part.stream).map_or_else(|| position(part.stream), |range| range[1]);
            if part.to <= done {
                continue;
            }
            if part.from < done {
                bail!(
                    "frame {}: its part of stream {:016x} goes from {} to {}, across the lake's position {done}",
                    frame.seq,
                    part.stream.0,
                    part.from,
                    part.to
                );
            }
            let rows = part.rows.end as usize;
            if part.rows.start > part.rows.end || rows > frame.rows.len() || rows > frame.rows.tenant.len() {
                bail!("frame {} is damaged: a part names rows that are not there", frame.seq);
            }
            taken.parts.push((f, p));
            taken.streams.entry(part.stream).or_insert([done, done])[1] = part.to;
        }
    }
    Ok(taken)
}

type Written = (BTreeMap<String, Vec<FileEntry>>, Sealed, Vec<String>);

/// Writes the files of all tables; they count once a commit names them.
fn write_files(
    files: &mut NewFiles<'_>,
    frames: &[Arc<Frame>],
    taken: &Taken,
    options: &Options,
    fields: &Fields,
    lineage_keys: &HashSet<String>,
    spent: &mut Spent,
) -> anyhow::Result<Written> {
    let mut tables = BTreeMap::new();
    let mut sealed = Sealed::default();
    let logs = write_logs(files, frames, taken, (LOGS, Signal::Logs), options, fields, &mut sealed, spent)?;
    let traces = write_logs(files, frames, taken, (TRACES, Signal::Traces), options, fields, &mut sealed, spent)?;
    let metrics = write_metrics(files, frames, taken, options, &mut sealed)?;
    let usage = write_usage(files, frames, taken, &mut sealed)?;
    let (lineage, keys) = match &options.lineage {
        Some(block) => write_lineage(files, frames, taken, block, lineage_keys, &mut sealed)?,
        None => (Vec::new(), Vec::new()),
    };
    for (table, entries) in [(LOGS, logs), (METRICS, metrics), (TRACES, traces), (USAGE, usage), (LINEAGE, lineage)] {
        if !entries.is_empty() {
            sealed.files += entries.len() as u64;
            tables.insert(table.to_owned(), entries);
        }
    }
    Ok((tables, sealed, keys))
}

/// The rows of one file.
#[derive(Default)]
struct Group {
    rows: Vec<RowRef>,
    raw_bytes: u64,
}

#[expect(clippy::too_many_arguments, reason = "two tables are written the same way")]
fn write_logs(
    files: &mut NewFiles<'_>,
    frames: &[Arc<Frame>],
    taken: &Taken,
    (table, signal): (&str, Signal),
    options: &Options,
    fields: &Fields,
    sealed: &mut Sealed,
    spent: &mut Spent,
) -> anyhow::Result<Vec<FileEntry>> {
    let mut writer = LogWriter::new(fields);
    let mut entries = Vec::new();
    for ((tenant, day), group) in group_by_day(frames, taken, signal)? {
        for (hour, mut group) in split_hours(frames, group, options.hour_bytes_min) {
            let indexed = group.raw_bytes >= options.index_bytes_min;
            let made = writer.write(frames, &mut group.rows, tenant, indexed, spent)?;
            let start = Instant::now();
            let entry = add_log_file(files, &folder(table, tenant, day, hour), tenant, frames, &group.rows, &made)?;
            spent.files += start.elapsed();
            sealed.count(tenant, &entry);
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn write_metrics(
    files: &mut NewFiles<'_>,
    frames: &[Arc<Frame>],
    taken: &Taken,
    options: &Options,
    sealed: &mut Sealed,
) -> anyhow::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for ((tenant, day), group) in group_by_day(frames, taken, Signal::Metrics)? {
        for (hour, mut group) in split_hours(frames, group, options.hour_bytes_min) {
            let made = LogFile { parquet: samples::write(frames, &mut group.rows, tenant)?, index: None };
            let entry = add_log_file(files, &folder(METRICS, tenant, day, hour), tenant, frames, &group.rows, &made)?;
            sealed.count(tenant, &entry);
            entries.push(entry);
        }
    }
    Ok(entries)
}

impl Sealed {
    /// Adds a file of records.
    fn count(&mut self, tenant: &[u8], entry: &FileEntry) {
        let count = self.by_tenant.entry(tenant.to_vec()).or_default();
        *count = (count.0 + entry.rows, count.1 + entry.origin_bytes);
        self.rows += entry.rows;
        self.raw_bytes += entry.raw_bytes;
        self.parquet_bytes += entry.stored_bytes;
        self.index_bytes += entry.index_bytes;
    }
}

/// Puts a log file and its index into `folder`. `rows`: those it was made of.
pub(crate) fn add_log_file(
    files: &mut NewFiles<'_>,
    folder: &str,
    tenant: &[u8],
    frames: &[Arc<Frame>],
    rows: &[RowRef],
    made: &LogFile,
) -> anyhow::Result<FileEntry> {
    let path = files.add(folder, "parquet", &made.parquet, None)?;
    let index = made.index.as_ref().map(|bytes| files.add(folder, "idx", bytes, Some(&path))).transpose()?;
    let of = |row: &RowRef| (&frames[row.frame as usize].rows, row.row as usize);
    let times = || rows.iter().map(|row| of(row).0.time[of(row).1]);
    Ok(FileEntry {
        path,
        tenant: escape_tenant(tenant),
        rows: rows.len() as u64,
        raw_bytes: rows.iter().map(|row| of(row).0.row(of(row).1).len() as u64).sum(),
        origin_bytes: rows.iter().map(|row| u64::from(of(row).0.origin_bytes[of(row).1])).sum(),
        stored_bytes: made.parquet.len() as u64,
        min_time: times().min().unwrap_or(0),
        max_time: times().max().unwrap_or(0),
        index,
        index_bytes: made.index.as_ref().map_or(0, |bytes| bytes.len() as u64),
        committed_ns: 0,
    })
}

fn group_by_day<'a>(frames: &'a [Arc<Frame>], taken: &Taken, signal: Signal) -> anyhow::Result<BTreeMap<(&'a [u8], i64), Group>> {
    let mut places: BTreeMap<(&[u8], i64), usize> = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (f, p) in &taken.parts {
        let frame = &frames[*f];
        let part = &frame.parts[*p];
        if part.signal != signal {
            continue;
        }
        // Neighbouring rows are mostly of one tenant and day: the map is asked only where that changes.
        let mut last = (u32::MAX, i64::MIN, 0);
        for row in part.rows.clone() {
            let at = row as usize;
            let (tenant, day) = (frame.rows.tenant[at], day_and_hour(frame.rows.time[at]).0);
            if (last.0, last.1) != (tenant, day) {
                let bytes = frame
                    .tenants
                    .get(tenant as usize)
                    .ok_or_else(|| anyhow!("frame {} is damaged: a row names a tenant that is not there", frame.seq))?;
                let place = *places.entry((bytes, day)).or_insert(groups.len());
                if place == groups.len() {
                    groups.push(Group::default());
                }
                last = (tenant, day, place);
            }
            let group = &mut groups[last.2];
            group.rows.push(RowRef { frame: *f as u32, row, stream: part.stream });
            group.raw_bytes += frame.rows.row(at).len() as u64;
        }
    }
    Ok(places.into_iter().map(|(key, place)| (key, std::mem::take(&mut groups[place]))).collect())
}

/// One file for a small day, else one for each of its hours.
fn split_hours(frames: &[Arc<Frame>], group: Group, hour_bytes_min: u64) -> Vec<(Option<u8>, Group)> {
    if group.raw_bytes < hour_bytes_min {
        return vec![(None, group)];
    }
    let mut hours: BTreeMap<u8, Group> = BTreeMap::new();
    for row in group.rows {
        let rows = &frames[row.frame as usize].rows;
        let hour = hours.entry(day_and_hour(rows.time[row.row as usize]).1).or_default();
        hour.raw_bytes += rows.row(row.row as usize).len() as u64;
        hour.rows.push(row);
    }
    hours.into_iter().map(|(hour, group)| (Some(hour), group)).collect()
}

fn write_usage(files: &mut NewFiles<'_>, frames: &[Arc<Frame>], taken: &Taken, sealed: &mut Sealed) -> anyhow::Result<Vec<FileEntry>> {
    let mut groups: BTreeMap<(Vec<u8>, i64), Vec<UsageFact>> = BTreeMap::new();
    for (f, p) in &taken.parts {
        for fact in facts::facts_of(&frames[*f], &frames[*f].parts[*p]) {
            let fact = fact?;
            groups.entry((fact.tenant.clone(), fact.minute.div_euclid(24 * 60))).or_default().push(fact);
        }
    }
    let mut entries = Vec::new();
    for ((tenant, day), mut facts) in groups {
        sealed.usage_facts += facts.len() as u64;
        let bytes = facts::write(&mut facts)?;
        let path = files.add(&folder(USAGE, &tenant, day, None), "parquet", &bytes, None)?;
        let minutes = || facts.iter().map(|f| f.minute.saturating_mul(flow::units::NANOS_PER_MINUTE));
        // An interval may end on another day: who asks for that day has to open this file.
        let ends = facts.iter().filter_map(|f| f.event.as_ref()).map(|event| event.end.0);
        entries.push(FileEntry {
            path,
            tenant: escape_tenant(&tenant),
            rows: facts.len() as u64,
            raw_bytes: 0,
            origin_bytes: 0,
            stored_bytes: bytes.len() as u64,
            min_time: minutes().min().unwrap_or(0),
            max_time: minutes().chain(ends).max().unwrap_or(0),
            index: None,
            index_bytes: 0,
            committed_ns: 0,
        });
    }
    Ok(entries)
}

fn write_lineage(
    files: &mut NewFiles<'_>,
    frames: &[Arc<Frame>],
    taken: &Taken,
    block: &lineage::Block,
    known: &HashSet<String>,
    sealed: &mut Sealed,
) -> anyhow::Result<(Vec<FileEntry>, Vec<String>)> {
    let mut days: BTreeMap<i64, Vec<lineage::Event>> = BTreeMap::new();
    let mut keys = Vec::new();
    for event in new_events(frames, taken, block, known)? {
        keys.push(event.key.clone());
        days.entry(day_and_hour(event.event_time.0).0).or_default().push(event);
    }
    let mut entries = Vec::new();
    for (day, mut events) in days {
        sealed.lineage_events += events.len() as u64;
        let bytes = runs::write(&mut events)?;
        let path = files.add(&folder(LINEAGE, NOBODY, day, None), "parquet", &bytes, None)?;
        entries.push(FileEntry {
            path,
            tenant: escape_tenant(NOBODY),
            rows: events.len() as u64,
            raw_bytes: 0,
            origin_bytes: 0,
            stored_bytes: bytes.len() as u64,
            min_time: events.first().map_or(0, |e| e.event_time.0),
            max_time: events.last().map_or(0, |e| e.event_time.0),
            index: None,
            index_bytes: 0,
            committed_ns: 0,
        });
    }
    Ok((entries, keys))
}

/// The events that these parts tell of and nobody has stored.
pub(crate) fn new_events(
    frames: &[Arc<Frame>],
    taken: &Taken,
    block: &lineage::Block,
    known: &HashSet<String>,
) -> anyhow::Result<Vec<lineage::Event>> {
    let mut seen = Seen::default();
    for (f, p) in &taken.parts {
        seen.add(&frames[*f], &frames[*f].parts[*p])?;
    }
    let mut fresh: HashSet<String> = HashSet::new();
    let events = lineage::events(block, &seen.sightings());
    Ok(events.into_iter().filter(|event| !known.contains(&event.key) && fresh.insert(event.key.clone())).collect())
}

/// Files of a seal that no commit names yet.
pub(crate) struct NewFiles<'a> {
    disk: &'a Disk,
    root: &'a Path,
    /// From the root; all of them are this writer's own.
    written: Vec<String>,
    folders: BTreeSet<String>,
}

impl<'a> NewFiles<'a> {
    pub(crate) fn new(disk: &'a Disk, root: &'a Path) -> NewFiles<'a> {
        NewFiles { disk, root, written: Vec::new(), folders: BTreeSet::new() }
    }

    /// Writes a file under a name made from its content, or beside another one; returns its path.
    pub(crate) fn add(&mut self, folder: &str, kind: &str, bytes: &[u8], beside: Option<&str>) -> anyhow::Result<String> {
        let full = self.root.join(folder);
        self.disk.create_dir_all(&full, "lake.data.create").with_context(|| format!("cannot create {}", full.display()))?;
        self.folders.insert(folder.to_owned());
        let stem = match beside.and_then(|path| path.rsplit('/').next()?.split('.').next()) {
            Some(stem) => stem.to_owned(),
            None => content_name(bytes),
        };
        let tmp = write_tmp(self.disk, &full, &format!("{stem}.{kind}"), bytes, "lake.data.sync")?;
        // An equal file may lie there from a writer that is still at it: each file has one owner, who may
        // remove it, so ours gets a name of its own.
        for k in 0u32.. {
            let name = if k == 0 { format!("{stem}.{kind}") } else { format!("{stem}-{k}.{kind}") };
            match self.disk.link(&tmp, &full.join(&name), "lake.data.link") {
                Ok(()) => {
                    let path = format!("{folder}/{name}");
                    self.written.push(path.clone());
                    self.disk.unlink(&tmp)?;
                    return Ok(path);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot create {folder}/{name}")),
            }
        }
        bail!("too many files named {stem} in {folder}")
    }

    pub(crate) fn sync_folders(&mut self) -> anyhow::Result<()> {
        for folder in &self.folders {
            let full = self.root.join(folder);
            self.disk.sync_dir(&full, "lake.data.folder").with_context(|| format!("cannot make {} durable", full.display()))?;
        }
        Ok(())
    }

    /// Removes what was written. What cannot be removed now goes when the lake is next opened.
    pub(crate) fn discard(&mut self) {
        for path in self.written.drain(..) {
            let _ = self.disk.unlink(&self.root.join(path)); // see above
        }
    }
}
