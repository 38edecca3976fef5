//! Drops what is too old or too much: whole partitions, all of a run under one commit that counts them.
//!
//! A partition is a tenant's day, or an hour of a day that has files by hour, of one table of records: logs, metrics, traces. By age it goes when its newest row is older than
//! the tenant keeps rows. By bytes (Parquet and indexes as stored; what was removed and waits to be swept does not count) the
//! tenant's oldest go, by their newest row, until it fits. By the bytes of all tenants, only those that have more than an equal
//! share are touched: of the one furthest over it the oldest goes. A partition with rows of the current hour, or newer, goes last:
//! only where the limit cannot be met by others of those that are over it. Without partitions of its own a limit cannot be met
//! more finely: a limit below what an hour brings empties that tenant in every run.

use super::{Change, Keeper, partition_of};
use crate::commit::{DropEntry, DropRule, Dropped, FileEntry, Reason, Removed};
use crate::layout::unescape_tenant;
use anyhow::Context;
use flow::units::{ByteSize, NANOS_PER_HOUR, Span, UnixNanos};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;

/// How long and how much is kept. Rows are dropped by whole days, or by hours of days that have many; what is dropped is counted
/// in the ledger. Usage and charges are kept for ever.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// A tenant's day (or hour) is dropped when its newest record is older than this. Absent: never.
    pub age: Option<Span>,
    /// Most bytes of a tenant, compressed and with indexes; its oldest days (or hours) go first. Absent: no limit.
    pub bytes: Option<ByteSize>,
    /// Most bytes of all tenants together. The tenant furthest over an equal share loses its oldest day (or hour) first; one
    /// within its share loses nothing. Absent: no limit.
    pub node_bytes: Option<ByteSize>,
    /// What is different for a tenant, by its name.
    #[serde(default)]
    pub tenants: BTreeMap<String, TenantRetention>,
}

/// How long and how much of one tenant is kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRetention {
    /// As for all, in place of it. Absent: as for all.
    pub age: Option<Span>,
    /// As for all, in place of it. Absent: as for all.
    pub bytes: Option<ByteSize>,
}

impl Retention {
    /// Age and bytes that hold for a tenant.
    fn of(&self, tenant: &[u8]) -> (Option<Span>, Option<u64>) {
        let own = std::str::from_utf8(tenant).ok().and_then(|name| self.tenants.get(name));
        let age = own.and_then(|own| own.age).or(self.age);
        let bytes = own.and_then(|own| own.bytes).or(self.bytes);
        (age, bytes.map(|bytes| bytes.0))
    }
}

/// Files that are dropped together.
#[derive(Debug)]
struct Partition<'a> {
    files: Vec<&'a FileEntry>,
    stored_bytes: u64,
    max_time: i64,
}

/// A tenant's partitions, oldest first.
type Partitions<'a> = VecDeque<Partition<'a>>;

fn stored(partitions: &Partitions<'_>) -> u64 {
    partitions.iter().map(|partition| partition.stored_bytes).sum()
}

impl Keeper {
    /// Drops what is over the limits. Returns what was dropped, one entry for each tenant and rule.
    pub fn retain(&mut self, retention: &Retention, now: UnixNanos) -> anyhow::Result<Vec<Dropped>> {
        loop {
            self.refresh()?;
            let chosen = choose(self.partitions()?, retention, now)?;
            let expired = |file: &&FileEntry| Removed { path: file.path.clone(), reason: Reason::Expired };
            let removed: Vec<Removed> = chosen.values().flatten().flat_map(|partition| partition.files.iter().map(expired)).collect();
            if removed.is_empty() {
                return Ok(Vec::new());
            }
            let dropped = chosen.iter().map(|((tenant, rule), partitions)| entry(tenant, *rule, partitions)).collect();
            if let Some(number) = self.publish(Change { removed, added: Vec::new(), dropped }, now)? {
                return Ok(self.log.drops.iter().filter(|drop| drop.number == number).cloned().collect());
            }
        }
    }

    /// By tenant, escaped.
    fn partitions(&self) -> anyhow::Result<BTreeMap<&str, Partitions<'_>>> {
        let mut folders: BTreeMap<(&str, &str), Partition<'_>> = BTreeMap::new();
        for file in self.log.records() {
            let key = (file.tenant.as_str(), partition_of(&file.path));
            let empty = || Partition { files: Vec::new(), stored_bytes: 0, max_time: i64::MIN };
            let partition = folders.entry(key).or_insert_with(empty);
            partition.files.push(file);
            partition.stored_bytes = partition.stored_bytes.saturating_add(file.stored_bytes).saturating_add(self.index_bytes(file)?);
            partition.max_time = partition.max_time.max(file.max_time);
        }
        let mut tenants: BTreeMap<&str, Vec<Partition<'_>>> = BTreeMap::new();
        for ((tenant, _), partition) in folders {
            tenants.entry(tenant).or_default().push(partition);
        }
        // The sort is stable: of equally old ones the first by folder goes first.
        tenants.values_mut().for_each(|partitions| partitions.sort_by_key(|partition| partition.max_time));
        Ok(tenants.into_iter().map(|(tenant, partitions)| (tenant, partitions.into())).collect())
    }

    fn index_bytes(&self, file: &FileEntry) -> anyhow::Result<u64> {
        let Some(index) = file.index.as_ref().filter(|_| file.index_bytes == 0) else { return Ok(file.index_bytes) };
        // Written by an older program: nobody noted its length.
        match self.disk.len(&self.root.join(index)) {
            Ok(len) => Ok(len),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).with_context(|| format!("cannot look at {index}")),
        }
    }
}

/// What goes, by tenant and rule.
fn choose<'a>(
    mut tenants: BTreeMap<&'a str, Partitions<'a>>,
    retention: &Retention,
    now: UnixNanos,
) -> anyhow::Result<BTreeMap<(&'a str, DropRule), Vec<Partition<'a>>>> {
    let mut chosen: BTreeMap<(&str, DropRule), Vec<Partition<'_>>> = BTreeMap::new();
    for (tenant, partitions) in &mut tenants {
        let name = unescape_tenant(tenant).with_context(|| format!("the commit log names a tenant {tenant:?} that nobody wrote"))?;
        let (age, bytes) = retention.of(&name);
        let oldest = age.map_or(i64::MIN, |age| now.0.saturating_sub(age.0));
        while let Some(partition) = partitions.pop_front_if(|partition| partition.max_time < oldest) {
            chosen.entry((tenant, DropRule::Age)).or_default().push(partition);
        }
        while stored(partitions) > bytes.unwrap_or(u64::MAX) {
            chosen.entry((tenant, DropRule::Bytes)).or_default().extend(partitions.pop_front());
        }
    }
    tenants.retain(|_, partitions| !partitions.is_empty());
    let limit = retention.node_bytes.map_or(u64::MAX, |bytes| bytes.0);
    let share = limit / (tenants.len() as u64).max(1);
    let hour = now.0 - now.0.rem_euclid(NANOS_PER_HOUR);
    while tenants.values().map(stored).fold(0, u64::saturating_add) > limit {
        // Where the sum is over the limit, somebody is over an equal share of it.
        let over = tenants.iter_mut().filter(|(_, partitions)| stored(partitions) > share);
        let rank = |partitions: &Partitions<'_>| (partitions.front().is_some_and(|oldest| oldest.max_time < hour), stored(partitions));
        let Some((tenant, partitions)) = over.max_by_key(|(_, partitions)| rank(partitions)) else { break };
        chosen.entry((tenant, DropRule::NodeBytes)).or_default().extend(partitions.pop_front());
    }
    Ok(chosen)
}

fn entry(tenant: &str, rule: DropRule, partitions: &[Partition<'_>]) -> DropEntry {
    let files = || partitions.iter().flat_map(|partition| &partition.files);
    DropEntry {
        tenant: tenant.to_owned(),
        rule,
        partitions: partitions.len() as u64,
        files: files().count() as u64,
        rows: files().map(|file| file.rows).sum(),
        raw_bytes: files().map(|file| file.raw_bytes).sum(),
        origin_bytes: files().map(|file| file.origin_bytes).sum(),
        stored_bytes: partitions.iter().map(|partition| partition.stored_bytes).sum(),
        min_time: files().map(|file| file.min_time).min().unwrap_or(0),
        max_time: files().map(|file| file.max_time).max().unwrap_or(0),
    }
}
