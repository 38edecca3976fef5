//! The commit log: what the lake holds, one file per seal, for all tenants and tables together.
//!
//! `_commits/00000001.json` and so on without gaps. A commit names the files it added and, per stream, the
//! position it started from and the one it reached: data and positions are one atomic step. It is created
//! only if absent, by a link that replaces nothing; whoever comes second reads the winner first. A commit is
//! three lines of JSON with a checksum over the second; a damaged one is an error, never skipped.

use crate::Fields;
use crate::layout::{CHARGES, COMMITS, LOGS, USAGE, commit_name, commit_number};
use anyhow::{Context, anyhow, bail};
use flow::event::StreamId;
use hub::disk::Disk;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commit {
    pub version: u32,
    pub number: u64,
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
}

impl Commit {
    pub(crate) fn new(number: u64, frames: [u64; 2], fields: Fields) -> Commit {
        Commit { version: VERSION, number, frames, fields, streams: BTreeMap::new(), tables: BTreeMap::new(), charges: None }
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

/// What all commits together say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// Of the newest commit; 0 where there is none.
    pub number: u64,
    pub positions: HashMap<StreamId, u64>,
    /// Files by table, in commit order.
    pub files: BTreeMap<String, Vec<FileEntry>>,
    pub fields: Option<Fields>,
    /// Events of charges, in order.
    pub charges: Vec<Charged>,
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
        for (table, files) in commit.tables {
            self.files.entry(table).or_default().extend(files);
        }
        if let Some(event) = commit.charges {
            let (charges, usage) = (self.table(CHARGES).len(), self.table(USAGE).len());
            self.charges.push(Charged { number: commit.number, event, charges, usage });
        }
        self.number = commit.number;
        self.fields = Some(commit.fields);
        Ok(())
    }

    pub(crate) fn position(&self, stream: StreamId) -> u64 {
        self.positions.get(&stream).copied().unwrap_or(0)
    }

    pub(crate) fn table(&self, name: &str) -> &[FileEntry] {
        self.files.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn log_rows(&self) -> u64 {
        self.table(LOGS).iter().map(|f| f.rows).sum()
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
