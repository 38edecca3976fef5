//! Opens what a pipeline stands on: its hub and its sinks' stores, recovered to their last commits.
//!
//! Used by `weir run`, and by the query verbs when no process runs on the data folder. The data folder is
//! owned by one process at a time: whoever holds the lock may open it.

use super::delay::{self, Delay};
use crate::config::{Config, HubConfig};
use crate::examples::Examples;
use crate::plan::{self, Plan};
use crate::sinks::{Pace, Store};
use anyhow::{Context, bail};
use flow::debts::Owed;
use flow::event::{Position, StreamId};
use flow::step::StepConfig;
use flow::units::UnixNanos;
use hub::frame::STATE_ENTRY_BYTES;
use hub::{Cursor, Disk, Hub, Limits, Recovered, WhenFull};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames that wait for sinks in memory, at most; older ones are read from disk.
const WINDOW_BYTES: u64 = 12 << 20;
/// A journal segment; a quarter of the smallest journal.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Appended bytes after which the journal syncs, whatever the clock says.
const SYNC_BYTES: u64 = 4 << 20;

/// The data folder's lock, held as long as this lives.
pub struct Lock(File);

impl Lock {
    /// When a process that held the lock last said that it runs.
    pub fn last_alive(&self) -> UnixNanos {
        use std::os::unix::fs::MetadataExt;
        // A lock without a time was never held before.
        self.0.metadata().map_or(UnixNanos(i64::MAX), |m| UnixNanos(m.mtime().saturating_mul(1_000_000_000).saturating_add(m.mtime_nsec())))
    }

    /// Says that this process runs.
    pub fn touch(&self) {
        // A hint for the next start; where it cannot be written, files rotated meanwhile count as older.
        let _ = crate::env::touch(&self.0);
    }
}

/// Takes the lock of a data folder that exists; waits for up to `patience`.
pub fn lock(data: &Path, patience: Duration) -> anyhow::Result<Option<Lock>> {
    let path = data.join("lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let until = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => bail!("cannot lock {}: {error}", path.display()),
        }
    }
}

/// What ran last on a data folder: kept there, so that query verbs need no config.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    pub pipelines: Vec<ManifestPipeline>,
}

#[derive(Serialize, Deserialize)]
pub struct ManifestPipeline {
    pub name: String,
    pub config: Config,
    /// Text of the rate card.
    pub rates: Option<String>,
}

const MANIFEST: &str = "manifest.json";

impl Manifest {
    pub fn write(&self, disk: &Disk, data: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self).context("the config cannot be written as JSON")?;
        crate::durable::replace(disk, &data.join(MANIFEST), &text)
    }

    pub fn read(data: &Path) -> anyhow::Result<Manifest> {
        let path = data.join(MANIFEST);
        let text = std::fs::read(&path).with_context(|| {
            format!("{} is no data folder of weir: cannot read {}; name one with --data", data.display(), path.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged; run the pipeline once to write it anew", path.display()))
    }
}

/// A pipeline, ready to run or to be asked.
pub struct Opened {
    pub plan: Plan,
    pub hub: Arc<Hub>,
    pub examples: Arc<Examples>,
    /// With a delay line: behind everything that waits in it.
    pub recovered: Recovered,
    pub delay: Option<Delay>,
    pub sinks: Vec<OpenedSink>,
    /// Where the stores stand in each stream, ascending: no part may reach over one of these.
    pub cuts: HashMap<StreamId, Vec<u64>>,
}

pub struct OpenedSink {
    pub name: String,
    pub store: Store,
    pub cursor: Cursor,
    pub pace: Pace,
}

/// Opens the hub and the stores of one pipeline. The caller holds the lock. `rates`: its rate card. Steps know nothing yet: see
/// [`restore`].
pub fn open(disk: &Disk, data: &Path, name: &str, config: &Config, rates: Option<&bill::Card>) -> anyhow::Result<Opened> {
    let plan = plan::compile(name, config, data, rates)?;
    let folder = data.join("hub").join(name);
    disk.create_dir_all(&folder, "hub folder").with_context(|| format!("cannot create {}", folder.display()))?;
    let tenants_max = config.tenancy.tenants_max as usize + 2;
    let limits = limits(&config.hub);
    let (hub, mut recovered) = match &config.hub {
        HubConfig::Journal(_) => Hub::open_journal(disk.clone(), &folder, limits, tenants_max)?,
        HubConfig::Memory(_) => Hub::open_memory(disk.clone(), &folder, limits, tenants_max)?,
    };
    let hub = Arc::new(hub);
    let mut stores = Vec::new();
    let mut cuts: HashMap<StreamId, Vec<u64>> = HashMap::new();
    for sink in &plan.sinks {
        let routes: Vec<String> = plan.columns.iter().map(|c| plan.rules.fields.paths()[*c].clone()).collect();
        let (store, pace) = Store::open(disk, data, &format!("{name}.{}", sink.name), sink, routes)?;
        let positions = store.positions();
        for (stream, done) in &positions {
            cuts.entry(*stream).or_default().push(*done);
        }
        stores.push((sink.name.clone(), store, pace, positions));
    }
    if recovered.positions_lost {
        let known: Vec<&HashMap<StreamId, u64>> = stores.iter().map(|s| &s.3).collect();
        recovered.positions = smallest(&known, &recovered.positions);
        hub.restore_positions(recovered.positions.clone()).context("cannot write the positions that the stores know")?;
    }
    let tail_bytes = config.steps.iter().find_map(|step| if let StepConfig::Tail(tail) = step { Some(tail.bytes_max.0) } else { None });
    let of_delay = delay::limits(tail_bytes, limits);
    let delay = Delay::open(disk, delay::folder(data, name), &hub, &plan, of_delay, tenants_max, &mut recovered)?;
    let sinks = stores
        .into_iter()
        .map(|(name, store, pace, positions)| OpenedSink { cursor: hub.cursor_of(&name, positions, &store.refused()), name, store, pace })
        .collect();
    for cuts in cuts.values_mut() {
        cuts.sort_unstable();
        cuts.dedup();
    }
    let examples = Arc::new(Examples::open(disk, data, name)?);
    Ok(Opened { plan, hub, examples, recovered, delay, sinks, cuts })
}

fn limits(config: &HubConfig) -> Limits {
    match config {
        HubConfig::Journal(journal) => Limits {
            bytes_max: journal.bytes_max.0,
            window_bytes_max: WINDOW_BYTES,
            segment_bytes: SEGMENT_BYTES,
            sync_interval: journal.sync_interval.duration(),
            sync_bytes: SYNC_BYTES,
            when_full: match journal.when_full {
                crate::config::WhenFull::Wait => WhenFull::Wait,
                crate::config::WhenFull::DropOldest => WhenFull::DropOldest,
            },
        },
        HubConfig::Memory(memory) => Limits {
            bytes_max: memory.bytes_max.0,
            window_bytes_max: memory.bytes_max.0,
            segment_bytes: 0,
            sync_interval: Duration::ZERO,
            sync_bytes: 0,
            when_full: WhenFull::Wait,
        },
    }
}

/// Of what steps remember, that of these rules is of use, and debts, whoever owes them.
pub fn keep_state(hub: &Hub, rules: &flow::pipeline::Rules) {
    let ids = rules.step_ids.clone();
    hub.keep_state(move |step, key| Owed::is_named(key) || step == delay::STATE_STEP || ids.contains(&step));
}

/// Gives the steps of a pipeline what the last run knew, for those who go on with it.
pub fn restore(opened: &mut Opened) -> anyhow::Result<()> {
    let Opened { plan, hub, delay, .. } = opened;
    let rules = &plan.rules;
    // A step whose config changed starts anew; of what it knew only debts are told.
    keep_state(hub, rules);
    // Last wins, so debts can be told only when all entries were seen: one for each lane, step, tenant and level.
    let mut debts: BTreeMap<(u32, [u8; 8]), [u8; 24]> = BTreeMap::new();
    // What waits in a delay line comes behind; a step that is forgotten there knows nothing of what was before.
    let (mut forgotten, mut number): (BTreeMap<u32, u64>, u64) = (BTreeMap::new(), 0);
    if let Some(delay) = delay {
        delay.each_state(&mut |id, entries| {
            number += 1;
            if entries.is_empty() {
                forgotten.insert(id, number);
            }
        })?;
    }
    let mut take = |id: u32, entries: &[u8]| {
        for entry in entries.chunks_exact(STATE_ENTRY_BYTES).filter(|entry| Owed::is_named(&entry[..8])) {
            let (key, value) = (entry[..8].try_into().expect("8 bytes"), entry[8..].try_into().expect("24 of 32 bytes are left"));
            debts.insert((id, key), value);
        }
        if let Some(step) = rules.step_ids.iter().position(|known| *known == id) {
            rules.steps[step].restore(entries);
        }
    };
    hub.each_state(&mut |id, entries| {
        if !forgotten.contains_key(&id) {
            take(id, entries);
        }
    })
    .context("cannot read the state of steps")?;
    number = 0;
    if let Some(delay) = delay {
        delay.each_state(&mut |id, entries| {
            number += 1;
            if forgotten.get(&id).is_none_or(|at| number > *at) {
                take(id, entries);
            }
        })?;
    }
    debts.retain(|_, value| *value != [0; 24]);
    if !debts.is_empty() {
        // Debts name their tenants by a hash: whoever owes is in the books.
        for ledger in [Some(hub.ledger()), delay.as_ref().map(|delay| delay.hub.ledger())].into_iter().flatten() {
            ledger.totals.tenants.keys().for_each(|tenant| {
                rules.tenants.number(tenant);
            });
        }
    }
    let mut changes: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for ((id, key), value) in &debts {
        let entries = changes.entry(*id).or_default();
        entries.extend_from_slice(key);
        entries.extend_from_slice(value);
    }
    for (id, entries) in changes {
        let owed = Owed::read(id, &entries, rules);
        rules.sampling.restored.lock().expect("no lane runs yet").extend(owed);
    }
    if let Some(delay) = delay {
        delay.take_owed(rules);
    }
    Ok(())
}

/// Where sources go on when the hub's own positions are lost: at what every store has, so that nothing is lost; each store
/// passes over what it has beyond. A stream that is in frames which are still there goes on behind them.
fn smallest(stores: &[&HashMap<StreamId, u64>], recovered: &HashMap<StreamId, Position>) -> HashMap<StreamId, Position> {
    let mut positions = recovered.clone();
    for (stream, done) in stores.iter().flat_map(|s| s.iter()) {
        let least = stores.iter().map(|store| store.get(stream).copied().unwrap_or(0)).min().unwrap_or(*done);
        if least > 0 {
            positions.entry(*stream).or_insert(Position { resume: least, done: least, before: 0 });
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_positions_are_those_that_every_store_has() {
        let store = |positions: &[(u64, u64)]| positions.iter().map(|(s, to)| (StreamId(*s), *to)).collect::<HashMap<_, _>>();
        let (archive, lake) = (store(&[(1, 90), (2, 50), (4, 7)]), store(&[(1, 70), (2, 80), (3, 20), (4, 9)]));
        let folded = Position { resume: 95, done: 100, before: 5 };
        let found = smallest(&[&archive, &lake], &HashMap::from([(StreamId(4), folded)]));
        let at = |n| Position { resume: n, done: n, before: 0 };
        assert_eq!(found, HashMap::from([(StreamId(1), at(70)), (StreamId(2), at(50)), (StreamId(4), folded)]));
    }
}
