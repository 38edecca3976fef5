//! The commit log: what the lake holds, one file per seal, for all tenants and tables together.
//!
//! `_commits/00000001.json` and so on without gaps. A commit names the files it added and, per stream, the
//! position it started from and the one it reached: data and positions are one atomic step. It may also name
//! files of `logs` that belong to the lake no more: rewritten ones, whose rows are in those it adds, and
//! expired ones, whose rows are gone and counted by tenant. It is created only if absent, by a link that
//! replaces nothing; whoever comes second reads the winner first. A commit is three lines of JSON with a
//! checksum over the second; a damaged one is an error, never skipped, and so is one whose sums do not agree.
//! Memory: about 300 bytes per file and 200 per file that was removed and is not yet swept.

use crate::Fields;
use crate::layout::{CHARGES, COMMITS, RECORDS, USAGE, commit_name, commit_number, unescape_tenant};
use anyhow::{Context, anyhow, bail};
use flow::event::StreamId;
use flow::units::UnixNanos;
use hub::disk::Disk;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
/// Newest drops that are held one by one, 2 MiB of them; their sums by tenant cover all.
const DROPS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commit {
    pub version: u32,
    pub number: u64,
    /// When it was made: of a seal, when its newest frame was closed; else as the caller said. Older programs wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ns: Option<i64>,
    /// First and last frame of the seal, by the hub's number.
    pub frames: [u64; 2],
    /// Columns of the log files, and which of them are text and ids.
    pub fields: Fields,
    /// By stream id in 16 hex digits: the position before and after.
    pub streams: BTreeMap<String, [u64; 2]>,
    pub tables: BTreeMap<String, Vec<FileEntry>>,
    /// What was published, closed or taken back with this commit; its rows are in the table `charges`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charges: Option<ChargeEvent>,
    /// Files of `logs` that belong to the lake no more; taken out before `tables` are put in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Removed>,
    /// What the expired files among them held, by tenant and rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DropEntry>,
    /// What commits up to this number removed lies on the disk no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swept: Option<u64>,
}

/// A file of `logs` that belongs to the lake no more. Its index goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Removed {
    pub path: String,
    pub reason: Reason,
}

/// Why a file was removed. After all but the last its rows are in files that the same commit adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// Merged with others.
    Compacted,
    /// It has another index; the file itself may be the same.
    Reindexed,
    /// Its rows are gone.
    Expired,
}

/// What one run of retention took from one tenant by one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DropEntry {
    /// Escaped, as in the files' entries.
    pub tenant: String,
    pub rule: DropRule,
    pub partitions: u64,
    pub files: u64,
    pub rows: u64,
    pub raw_bytes: u64,
    pub origin_bytes: u64,
    pub stored_bytes: u64,
    pub min_time: i64,
    pub max_time: i64,
}

/// Why rows were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropRule {
    /// They were older than the tenant keeps its rows.
    Age,
    /// The tenant had more bytes than it may.
    Bytes,
    /// All tenants together had more bytes than they may, and this one was furthest over its share.
    NodeBytes,
}

impl DropRule {
    pub fn name(self) -> &'static str {
        match self {
            DropRule::Age => "age",
            DropRule::Bytes => "bytes",
            DropRule::NodeBytes => "node_bytes",
        }
    }
}

/// What one run of retention took from one tenant by one rule, as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Of the commit.
    pub number: u64,
    /// When, as the caller said.
    pub at: UnixNanos,
    pub tenant: Vec<u8>,
    pub rule: DropRule,
    /// Whole days, or hours of a day.
    pub partitions: u64,
    pub files: u64,
    pub rows: u64,
    /// Bytes of the rows as they were received.
    pub raw_bytes: u64,
    pub origin_bytes: u64,
    /// Parquet and indexes.
    pub stored_bytes: u64,
    /// Of the oldest and the newest row.
    pub min_time: UnixNanos,
    pub max_time: UnixNanos,
}

/// An event of the log of charges: what is committed after it is late (rule R8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeEvent {
    /// When it happened, as the operator or the running process said.
    pub at_ns: i64,
    /// SHA-256 of the rate card.
    pub card: String,
    /// Charge periods that ended by then are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_until_ns: Option<i64>,
    /// Months, as `2026-10`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<String>,
    /// Name of the row that was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversed: Option<String>,
}

/// One Parquet file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    /// From the lake's root.
    pub path: String,
    /// Escaped, see `layout::escape_tenant`.
    pub tenant: String,
    pub rows: u64,
    /// Bytes of the rows as they were received; 0 outside `logs`.
    pub raw_bytes: u64,
    pub origin_bytes: u64,
    pub stored_bytes: u64,
    pub min_time: i64,
    pub max_time: i64,
    /// The index beside it, from the lake's root.
    pub index: Option<String>,
    /// Length of the index; 0 where an older program wrote it, or there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index_bytes: u64,
    /// `at_ns` of the commit that added it; 0 where it has none.
    #[serde(skip)]
    pub committed_ns: i64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Commit {
    pub(crate) fn new(number: u64, frames: [u64; 2], fields: Fields) -> Commit {
        Commit {
            version: VERSION,
            number,
            at_ns: None,
            frames,
            fields,
            streams: BTreeMap::new(),
            tables: BTreeMap::new(),
            charges: None,
            removed: Vec::new(),
            dropped: Vec::new(),
            swept: None,
        }
    }

    fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let body = serde_json::to_string(self)?;
        Ok(format!("{{\"crc32\":\"{:08x}\",\"commit\":\n{body}\n}}\n", crc32fast::hash(body.as_bytes())).into_bytes())
    }

    fn decode(bytes: &[u8], number: u64) -> anyhow::Result<Commit> {
        let text = std::str::from_utf8(bytes).map_err(|_| anyhow!("it is not text"))?;
        let mut lines = text.lines();
        let (Some(head), Some(body), Some("}"), None) = (lines.next(), lines.next(), lines.next(), lines.next()) else {
            bail!("it is cut off or has been changed");
        };
        if head != format!("{{\"crc32\":\"{:08x}\",\"commit\":", crc32fast::hash(body.as_bytes())) {
            bail!("its checksum does not match");
        }
        let commit: Commit = serde_json::from_str(body)?;
        if commit.version != VERSION {
            bail!("it has version {}, this program knows {VERSION}", commit.version);
        }
        if commit.number != number {
            bail!("it says it is number {}", commit.number);
        }
        Ok(commit)
    }

    fn streams(&self) -> impl Iterator<Item = anyhow::Result<(StreamId, [u64; 2])>> {
        self.streams.iter().map(|(name, range)| Ok((StreamId(u64::from_str_radix(name, 16)?), *range)))
    }
}

impl DropEntry {
    pub(crate) fn view(&self, commit: &Commit) -> anyhow::Result<Dropped> {
        let Some(tenant) = unescape_tenant(&self.tenant) else { bail!("it names a tenant {:?} that nobody wrote", self.tenant) };
        Ok(Dropped {
            number: commit.number,
            at: UnixNanos(commit.at_ns.unwrap_or(0)),
            tenant,
            rule: self.rule,
            partitions: self.partitions,
            files: self.files,
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            origin_bytes: self.origin_bytes,
            stored_bytes: self.stored_bytes,
            min_time: UnixNanos(self.min_time),
            max_time: UnixNanos(self.max_time),
        })
    }
}

pub(crate) fn stream_name(stream: StreamId) -> String {
    format!("{:016x}", stream.0)
}

/// An event of charges, the number of its commit, and how many files of charges and of usage there were behind it.
#[derive(Clone, Debug)]
pub(crate) struct Charged {
    pub number: u64,
    pub event: ChargeEvent,
    pub charges: usize,
    pub usage: usize,
}

/// A file that was removed and may still lie on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// Number and `at_ns` of the commit that removed it; `i64::MIN` where it has none.
    pub number: u64,
    pub at_ns: i64,
    pub path: String,
    pub index: Option<String>,
}

/// What all commits together say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// Of the newest commit; 0 where there is none.
    pub number: u64,
    pub positions: HashMap<StreamId, u64>,
    /// Files by table, in commit order.
    pub files: BTreeMap<String, Vec<FileEntry>>,
    pub fields: Option<Fields>,
    /// Those of earlier commits that are others, oldest first: one for each change of the config.
    pub former_fields: Vec<Fields>,
    /// Events of charges, in order.
    pub charges: Vec<Charged>,
    /// In commit order. Who needs no more of them may empty it.
    pub gone: Vec<Gone>,
    /// The newest [`DROPS_MAX`], oldest first.
    pub drops: VecDeque<Dropped>,
    /// Rows and origin bytes of all drops, by tenant.
    pub expired: BTreeMap<Vec<u8>, (u64, u64)>,
}

/// Rows, raw bytes and origin bytes of some files, by tenant.
type Sums<'a> = BTreeMap<&'a str, [u64; 3]>;

fn add_to<'a>(sums: &mut Sums<'a>, tenant: &'a str, more: [u64; 3]) {
    let sum = sums.entry(tenant).or_default();
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
}

impl Log {
    /// Reads every commit, in order.
    pub(crate) fn read(disk: &Disk, root: &Path) -> anyhow::Result<Log> {
        let mut log = Log::default();
        log.read_on(disk, root)?;
        Ok(log)
    }

    /// Reads the commits that were added since.
    pub(crate) fn read_on(&mut self, disk: &Disk, root: &Path) -> anyhow::Result<()> {
        let folder = root.join(COMMITS);
        let names = list_names(disk, &folder)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| commit_number(name)).filter(|n| *n > self.number).collect();
        numbers.sort_unstable();
        for number in numbers {
            let path = folder.join(commit_name(number));
            if number != self.number + 1 {
                bail!("commit {} is missing, but {} exists: the lake is damaged", self.number + 1, path.display());
            }
            let bytes = disk.read(&path).with_context(|| format!("cannot read commit {}", path.display()))?;
            let commit = Commit::decode(&bytes, number).with_context(|| format!("commit {} is damaged", path.display()))?;
            self.add(commit).with_context(|| format!("commit {} is damaged", path.display()))?;
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, commit: Commit) -> anyhow::Result<()> {
        for entry in commit.streams() {
            let (stream, [from, to]) = entry?;
            let has = self.position(stream);
            if has != from || to < from {
                bail!("stream {:016x} stands at {has}, the commit goes from {from} to {to}", stream.0);
            }
            self.positions.insert(stream, to);
        }
        if !commit.removed.is_empty() || !commit.dropped.is_empty() {
            self.remove(&commit)?;
        }
        for (table, mut files) in commit.tables {
            files.iter_mut().for_each(|file| file.committed_ns = commit.at_ns.unwrap_or(0));
            self.files.entry(table).or_default().extend(files);
        }
        if let Some(swept) = commit.swept {
            self.gone.retain(|gone| gone.number > swept);
        }
        if let Some(event) = commit.charges {
            let (charges, usage) = (self.table(CHARGES).len(), self.table(USAGE).len());
            self.charges.push(Charged { number: commit.number, event, charges, usage });
        }
        self.number = commit.number;
        if let Some(former) = self.fields.replace(commit.fields)
            && self.fields.as_ref() != Some(&former)
            && !self.former_fields.contains(&former)
        {
            self.former_fields.push(former);
        }
        Ok(())
    }

    /// Takes out what the commit removes, after a look at its sums: rewriting loses no row, and what expired is counted.
    fn remove(&mut self, commit: &Commit) -> anyhow::Result<()> {
        let mut reasons: HashMap<&str, Reason> = HashMap::with_capacity(commit.removed.len());
        for removed in &commit.removed {
            if reasons.insert(&removed.path, removed.reason).is_some() {
                bail!("it removes {} twice", removed.path);
            }
        }
        let (mut rewritten, mut expired) = (Vec::new(), Vec::new());
        for table in RECORDS {
            let Some(files) = self.files.get_mut(table) else { continue };
            files.retain(|file| match reasons.remove(file.path.as_str()) {
                None => true,
                Some(reason) => {
                    if reason == Reason::Expired { &mut expired } else { &mut rewritten }.push(file.clone());
                    false
                }
            });
        }
        if let Some(path) = reasons.keys().next() {
            bail!("it removes {path}, which the lake does not have");
        }
        let sums = |files: &mut dyn Iterator<Item = &FileEntry>| -> BTreeMap<String, [u64; 3]> {
            let mut sums = Sums::new();
            files.for_each(|file| add_to(&mut sums, &file.tenant, [file.rows, file.raw_bytes, file.origin_bytes]));
            sums.into_iter().map(|(tenant, sum)| (tenant.to_owned(), sum)).collect()
        };
        let mut added = RECORDS.iter().filter_map(|table| commit.tables.get(*table)).flatten();
        if !rewritten.is_empty() && sums(&mut rewritten.iter()) != sums(&mut added) {
            bail!("the files it rewrites do not add up to those it adds");
        }
        let mut counted = Sums::new();
        commit.dropped.iter().for_each(|drop| add_to(&mut counted, &drop.tenant, [drop.rows, drop.raw_bytes, drop.origin_bytes]));
        if !counted
            .iter()
            .map(|(tenant, sum)| (*tenant, *sum))
            .eq(sums(&mut expired.iter()).iter().map(|(tenant, sum)| (tenant.as_str(), *sum)))
        {
            bail!("the files that expired do not add up to what it says was dropped");
        }
        let at_ns = commit.at_ns.unwrap_or(i64::MIN);
        let gone = |file: FileEntry| Gone { number: commit.number, at_ns, path: file.path, index: file.index };
        self.gone.extend(rewritten.into_iter().chain(expired).map(gone));
        for drop in &commit.dropped {
            let dropped = drop.view(commit)?;
            let sum = self.expired.entry(dropped.tenant.clone()).or_default();
            *sum = (sum.0.saturating_add(drop.rows), sum.1.saturating_add(drop.origin_bytes));
            self.drops.push_back(dropped);
        }
        while self.drops.len() > DROPS_MAX {
            self.drops.pop_front();
        }
        Ok(())
    }

    pub(crate) fn position(&self, stream: StreamId) -> u64 {
        self.positions.get(&stream).copied().unwrap_or(0)
    }

    pub(crate) fn table(&self, name: &str) -> &[FileEntry] {
        self.files.get(name).map_or(&[], Vec::as_slice)
    }

    /// Files of records, whatever their table.
    pub(crate) fn records(&self) -> impl Iterator<Item = &FileEntry> {
        RECORDS.iter().flat_map(|table| self.table(table))
    }
}

/// Publishes a commit, durably. `false`: its number is taken.
///
/// After an error nobody knows whether it is published: read the log again.
pub(crate) fn publish(disk: &Disk, root: &Path, commit: &Commit) -> anyhow::Result<bool> {
    let folder = root.join(COMMITS);
    let bytes = commit.encode()?;
    let tmp = write_tmp(disk, &folder, &commit_name(commit.number), &bytes, "lake.commit.sync")?;
    let path = folder.join(commit_name(commit.number));
    match disk.link(&tmp, &path, "lake.commit.link") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            disk.unlink(&tmp)?;
            return Ok(false);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot create commit {}", path.display())),
    }
    // The folder before the answer: "sealed" promises that the commit survives a crash.
    disk.sync_dir(&folder, "lake.commit.folder").with_context(|| format!("cannot make commit {} durable", path.display()))?;
    disk.unlink(&tmp)?;
    Ok(true)
}

/// Writes and syncs a file that only this writer knows, `NAME.K.tmp`.
pub(crate) fn write_tmp(disk: &Disk, folder: &Path, name: &str, bytes: &[u8], site: &'static str) -> anyhow::Result<PathBuf> {
    for k in 0u32.. {
        let tmp = folder.join(format!("{name}.{k}.tmp"));
        let mut file = match disk.create_new(&tmp) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue, // another writer's
            Err(error) => return Err(error).with_context(|| format!("cannot create {}", tmp.display())),
        };
        file.append(bytes).with_context(|| format!("cannot write {}", tmp.display()))?;
        file.sync(site).with_context(|| format!("cannot make {} durable", tmp.display()))?;
        return Ok(tmp);
    }
    bail!("too many unfinished files named {name} in {}", folder.display())
}

/// File names in a folder, sorted; an absent folder is empty.
pub(crate) fn list_names(disk: &Disk, folder: &Path) -> anyhow::Result<Vec<String>> {
    let paths = disk.list(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(paths.iter().filter_map(|p| p.file_name()?.to_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_reads_as_written_and_a_changed_one_is_refused() {
        let mut commit = Commit::new(7, [3, 9], Fields::default());
        commit.streams.insert(stream_name(StreamId(255)), [0, 10]);
        let bytes = commit.encode().unwrap();
        assert_eq!(Commit::decode(&bytes, 7).unwrap(), commit);
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(), "a commit is JSON as a whole");
        assert!(Commit::decode(&bytes, 8).is_err());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Commit::decode(&damaged, 7).is_err(), "byte {at} changed unnoticed");
            assert!(at == bytes.len() - 1 || Commit::decode(&bytes[..at], 7).is_err(), "cut at {at} unnoticed");
        }
    }
}
