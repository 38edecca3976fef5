//! Opens what a pipeline stands on: its hub and its sinks' stores, recovered to their last commits.
//!
//! Used by `weir run`, and by the query verbs when no process runs on the data folder. The data folder is
//! owned by one process at a time: whoever holds the lock may open it.

use crate::config::{Config, HubConfig};
use crate::plan::{self, Plan};
use crate::sinks::{Pace, Store};
use anyhow::{Context, bail};
use flow::event::StreamId;
use hub::{Cursor, Disk, Hub, Limits, Recovered};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

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
    pub recovered: Recovered,
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

/// Opens the hub and the stores of one pipeline. The caller holds the lock.
pub fn open(disk: &Disk, data: &Path, name: &str, config: &Config) -> anyhow::Result<Opened> {
    let plan = plan::compile(name, config, data)?;
    let folder = data.join("hub").join(name);
    disk.create_dir_all(&folder, "hub folder").with_context(|| format!("cannot create {}", folder.display()))?;
    let tenants_max = config.tenancy.tenants_max as usize + 2;
    let (hub, recovered) = match &config.hub {
        HubConfig::Journal(journal) => {
            let limits = Limits {
                bytes_max: journal.bytes_max.0,
                window_bytes_max: WINDOW_BYTES,
                segment_bytes: SEGMENT_BYTES,
                sync_interval: journal.sync_interval.duration(),
                sync_bytes: SYNC_BYTES,
            };
            Hub::open_journal(disk.clone(), &folder, limits, tenants_max)?
        }
        HubConfig::Memory(memory) => {
            let bytes_max = memory.bytes_max.0;
            let limits = Limits { bytes_max, window_bytes_max: bytes_max, segment_bytes: 0, sync_interval: Duration::ZERO, sync_bytes: 0 };
            Hub::open_memory(disk.clone(), &folder, limits, tenants_max)?
        }
    };
    let hub = Arc::new(hub);
    let mut sinks = Vec::new();
    let mut cuts: HashMap<StreamId, Vec<u64>> = HashMap::new();
    for sink in &plan.sinks {
        let routes: Vec<String> = plan.columns.iter().map(|c| plan.rules.fields.paths()[*c].clone()).collect();
        let (store, pace) = Store::open(disk, data, &format!("{name}.{}", sink.name), sink, routes)?;
        let positions = store.positions();
        for (stream, done) in &positions {
            cuts.entry(*stream).or_default().push(*done);
        }
        sinks.push(OpenedSink { name: sink.name.clone(), store, cursor: hub.cursor(&sink.name, positions), pace });
    }
    for cuts in cuts.values_mut() {
        cuts.sort_unstable();
        cuts.dedup();
    }
    for change in &recovered.state {
        // A step whose config changed starts anew.
        if let Some(step) = plan.rules.step_ids.iter().position(|id| *id == change.step) {
            plan.rules.steps[step].restore(&change.bytes);
        }
    }
    Ok(Opened { plan, hub, recovered, sinks, cuts })
}
