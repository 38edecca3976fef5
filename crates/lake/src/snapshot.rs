//! What a reader sees of a lake: the commits that were there when it looked. Later ones do not show.
//!
//! In: the lake's folder; out: its files, positions and fields. Take the hub's tail *before* reading a
//! snapshot: then a row that is sealed in between is in both, and the tail's copy is left out by position; the
//! other way round it would be in neither. Memory: about 300 bytes per file of the lake.

use crate::commit::{Dropped, FileEntry, Log};
use crate::layout::{COMMITS, LINEAGE, LOGS, USAGE, commit_name};
use crate::store::{Taken, new_events, take_parts};
use crate::{FactView, Fields, facts, lineage, runs, table};
use anyhow::Context;
use arrow_array::UInt32Array;
use flow::event::{Signal, StreamId, UsageFact};
use flow::units::{NANOS_PER_MINUTE, UnixNanos};
use hub::disk::Disk;
use hub::frame::Frame;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub struct Snapshot {
    pub(crate) disk: Disk,
    pub(crate) root: PathBuf,
    pub(crate) log: Log,
}

impl Snapshot {
    /// Reads the commit log. A folder without one is an empty lake.
    pub fn read(disk: &Disk, root: &Path) -> anyhow::Result<Snapshot> {
        let mut log = Log::read(disk, root)?;
        log.gone = Vec::new(); // a reader has no use for what was removed
        Ok(Snapshot { disk: disk.clone(), root: root.into(), log })
    }

    /// Takes in the commits that were made since; where there is none, this is as cheap as asking for one file.
    pub fn renew(self: &mut Arc<Snapshot>) -> anyhow::Result<()> {
        if !self.disk.exists(&self.root.join(COMMITS).join(commit_name(self.log.number + 1)))? {
            return Ok(());
        }
        let mut log = self.log.clone();
        log.read_on(&self.disk, &self.root)?;
        log.gone = Vec::new();
        *self = Arc::new(Snapshot { disk: self.disk.clone(), root: self.root.clone(), log });
        Ok(())
    }

    /// After a failed search: whether a file of this snapshot was removed by a later commit and lies there no more. Then the answer
    /// is to take a new snapshot and to search again; else the error is one.
    pub fn is_outdated(&self) -> anyhow::Result<bool> {
        let log = Log::read(&self.disk, &self.root)?;
        let live: HashSet<&str> = log.records().map(|file| file.path.as_str()).collect();
        for file in self.log.records().filter(|file| !live.contains(file.path.as_str())) {
            if !self.disk.exists(&self.root.join(&file.path))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Rows and origin bytes that were sealed and dropped since, by tenant, over the lake's whole life. With
    /// [`Snapshot::rows_by_tenant`] they add up to all that was delivered.
    pub fn expired_by_tenant(&self) -> &BTreeMap<Vec<u8>, (u64, u64)> {
        &self.log.expired
    }

    /// What was dropped, oldest first, of each run of retention one for each tenant and rule: the newest 10,000.
    pub fn drops(&self) -> impl DoubleEndedIterator<Item = &Dropped> + ExactSizeIterator {
        self.log.drops.iter()
    }

    /// Number of the newest commit; 0 where there is none.
    pub fn number(&self) -> u64 {
        self.log.number
    }

    /// Stream by stream, how far the lake has it.
    pub fn positions(&self) -> &HashMap<StreamId, u64> {
        &self.log.positions
    }

    /// Which fields are text and ids, as the newest commit says; the usual ones for an empty lake.
    pub fn fields(&self) -> Fields {
        self.log.fields.clone().unwrap_or_default()
    }

    /// Kept records of all tables, as the commits count them.
    pub fn rows(&self) -> u64 {
        self.log.records().map(|file| file.rows).sum()
    }

    /// Rows and origin bytes by tenant, counted anew from the Parquet files: the commits' numbers are not used.
    pub fn rows_by_tenant(&self) -> anyhow::Result<BTreeMap<Vec<u8>, (u64, u64)>> {
        let mut counts: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
        for file in self.log.records() {
            let path = self.root.join(&file.path);
            for batch in table::read(&self.disk, &path, &["tenant", "origin_bytes"], None)? {
                let batch = batch.with_context(|| format!("cannot read {}", path.display()))?;
                let bytes: &UInt32Array = table::column(&batch, "origin_bytes")?;
                for row in 0..batch.num_rows() {
                    let tenant = table::tenant(&batch, row)?;
                    if !counts.contains_key(tenant) {
                        counts.insert(tenant.to_vec(), (0, 0));
                    }
                    if let Some(count) = counts.get_mut(tenant) {
                        *count = (count.0 + 1, count.1 + u64::from(bytes.value(row)));
                    }
                }
            }
        }
        Ok(counts)
    }

    /// Shows the facts of some files of usage, numbered in the order of their commits.
    pub fn each_fact_of_files(&self, files: Range<usize>, each: &mut dyn FnMut(&FactView<'_>)) -> anyhow::Result<()> {
        let mut reader = facts::Reader::new(None);
        let all = self.log.table(USAGE);
        for file in &all[files.start.min(all.len())..files.end.min(all.len())] {
            reader.read(&self.disk, &self.root.join(&file.path), &file.tenant, each)?;
        }
        Ok(())
    }

    pub(crate) fn logs(&self) -> &[FileEntry] {
        self.log.table(LOGS)
    }

    /// The parts of the tail with records of this kind that the lake does not have.
    pub(crate) fn unsealed_of(&self, signal: Signal, tail: &[Arc<Frame>]) -> anyhow::Result<Taken> {
        let mut taken = self.unsealed(tail)?;
        taken.parts.retain(|(f, p)| tail[*f].parts[*p].signal == signal);
        Ok(taken)
    }

    /// The parts of the tail that the lake does not have.
    pub(crate) fn unsealed(&self, tail: &[Arc<Frame>]) -> anyhow::Result<Taken> {
        take_parts(tail, |stream| self.log.position(stream))
    }
}

/// Every usage fact, those of the tail included, none twice.
pub fn usage(disk: &Disk, snapshot: &Snapshot, tail: &[Arc<Frame>]) -> anyhow::Result<Vec<UsageFact>> {
    let mut all = Vec::new();
    each_fact(disk, snapshot, tail, None, &mut |fact| all.push(fact.to_fact()))?;
    Ok(all)
}

/// Shows every usage fact to `each`, those of the tail included, none twice, without holding more than a batch of them.
///
/// `range`: only facts that lie in `[from, to)`, in part or whole: an event by its time, an interval by all of its time, a sum by its
/// minute. Files that hold none are not opened. (What a level was before the range is not in it: ask from earlier on.) The order is
/// that of files and frames, which says nothing.
pub fn each_fact(
    disk: &Disk,
    snapshot: &Snapshot,
    tail: &[Arc<Frame>],
    range: Option<(UnixNanos, UnixNanos)>,
    each: &mut dyn FnMut(&FactView<'_>),
) -> anyhow::Result<()> {
    let mut reader = facts::Reader::new(range);
    // An entry's newest time is the start of a minute, or where an interval ends.
    let may_hold =
        |file: &&FileEntry| range.is_none_or(|(from, to)| file.min_time < to.0 && file.max_time.saturating_add(NANOS_PER_MINUTE) > from.0);
    for file in snapshot.log.table(USAGE).iter().filter(may_hold) {
        reader.read(disk, &snapshot.root.join(&file.path), &file.tenant, each)?;
    }
    for (f, p) in snapshot.unsealed(tail)?.parts {
        for fact in facts::facts_of(&tail[f], &tail[f].parts[p]) {
            reader.show(&fact?, each)?;
        }
    }
    Ok(())
}

/// The facts of the tail that the lake does not have.
pub fn tail_facts(snapshot: &Snapshot, tail: &[Arc<Frame>]) -> anyhow::Result<Vec<UsageFact>> {
    let taken = snapshot.unsealed(tail)?;
    taken.parts.iter().flat_map(|(f, p)| facts::facts_of(&tail[*f], &tail[*f].parts[*p])).collect()
}

/// Every lineage event, those of the tail included, none twice. `block`: as the lake's writer has it; without
/// it the tail tells nothing.
pub fn lineage_events(
    disk: &Disk,
    snapshot: &Snapshot,
    tail: &[Arc<Frame>],
    block: Option<&lineage::Block>,
) -> anyhow::Result<Vec<lineage::Event>> {
    let mut events = Vec::new();
    for file in snapshot.log.table(LINEAGE) {
        runs::read(disk, &snapshot.root.join(&file.path), &mut events)?;
    }
    if let Some(block) = block {
        let known: HashSet<String> = events.iter().map(|event| event.key.clone()).collect();
        events.extend(new_events(tail, &snapshot.unsealed(tail)?, block, &known)?);
    }
    Ok(events)
}
