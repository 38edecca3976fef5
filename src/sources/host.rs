//! The `host` source: processors, memory, disks, network and control groups of this machine, and who used them.
//!
//! A thread reads `/proc` and `/sys` each `interval`. It writes samples of metrics under node_exporter's and cAdvisor's names, and raw
//! usage facts, which are told exactly once (`told`): CPU time and memory by container, and the machine's rest, so that all of them
//! are the machine. Bound: `buffer_bytes_max` of lines that wait for a lane.

use super::measure::{Outlet, pace, sleep_until};
use super::pods::{Pods, PodsConfig};
use crate::env;
use device::host::{Facts, FactsOptions, FactsState, HostOptions, HostReading, Request, Sampler, metrics};
use flow::units::{ByteSize, NANOS_PER_SECOND, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// The `host` source: a reading of the machine each `interval`. Its samples are metrics under the names of node_exporter and, for
/// containers, cAdvisor; its usage facts are events for a meter with `usage: events`: `cpu_time`, `memory_held` and `cpu_held`, with
/// the dimensions `service`, `pod`, `container`, `namespace`, `node` and, of what is nobody's, `part`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// How often the machine is looked at, 100ms to 10m.
    #[serde(default = "interval")]
    pub interval: Span,
    /// Where the machine's root folder is: `/host` where a container has it there.
    #[serde(default = "root")]
    pub root: PathBuf,
    /// Whether samples are written; facts are in any case.
    #[serde(default = "yes")]
    pub metrics: bool,
    /// Whether control groups are read, and so who used what.
    #[serde(default = "yes")]
    pub cgroups: bool,
    /// Ask filesystems of other machines (NFS, SMB, Ceph, FUSE) for their sizes too: one that does not answer holds up the reading.
    #[serde(default)]
    pub remote_filesystems: bool,
    /// Facts are added up so long: whole seconds, a divisor of an hour.
    #[serde(default = "window")]
    pub window: Span,
    /// Of a longer gap between two readings nothing is told, 1s to 1h.
    #[serde(default = "gap_max")]
    pub gap_max: Span,
    /// Whose pods are.
    pub pods: Option<PodsConfig>,
    /// Value of the dimension `node`. Absent: the machine's name.
    pub host: Option<String>,
    /// Most bytes of lines that wait for a lane, at least 1MiB.
    #[serde(default = "buffer_bytes_max")]
    pub buffer_bytes_max: ByteSize,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn interval() -> Span {
    Span(15 * NANOS_PER_SECOND)
}

fn root() -> PathBuf {
    "/".into()
}

fn yes() -> bool {
    true
}

fn window() -> Span {
    Span(60 * NANOS_PER_SECOND)
}

fn gap_max() -> Span {
    Span(120 * NANOS_PER_SECOND)
}

fn buffer_bytes_max() -> ByteSize {
    ByteSize(64 << 20)
}

impl HostConfig {
    /// How facts are made of readings. `source`: its name.
    pub fn options(&self, source: &str) -> FactsOptions {
        FactsOptions {
            source: source.into(),
            node: self.host.clone().unwrap_or_else(env::host),
            window_ns: self.window.0,
            gap_max_ns: self.gap_max.0.unsigned_abs(),
        }
    }
}

/// What a source runs with.
pub struct Job {
    config: HostConfig,
    options: FactsOptions,
    pub outlet: Outlet,
}

impl Job {
    pub fn new(source: &str, config: &HostConfig, outlet: Outlet) -> Job {
        Job { config: config.clone(), options: config.options(&format!("weir.host.{source}")), outlet }
    }

    /// Reads and tells until the end comes.
    pub fn measure(&self) -> anyhow::Result<()> {
        let Job { config, outlet, .. } = self;
        let (mut told, state) = outlet.open::<FactsState>()?;
        let mut facts = Facts::new(self.options.clone(), state.unwrap_or_default()).map_err(anyhow::Error::msg)?;
        let mut pods = config.pods.as_ref().map(|pods| Pods::open(pods, outlet.once)).transpose()?;
        let HostConfig { root, cgroups, remote_filesystems, .. } = config.clone();
        let mut sampler = Sampler::new(HostOptions { root, cgroups, remote_filesystems, ..HostOptions::default() });
        let (mut due, mut made) = (Instant::now(), 0);
        while !outlet.is_ending() {
            let mut reading = sampler.sample(env::now(), env::since_boot());
            name_owners(&mut reading, pods.as_mut());
            outlet.stats.count("readings", 1);
            outlet.stats.count("faults", reading.faults_n);
            if config.metrics {
                let mut lines = Vec::new();
                metrics(&reading, &mut lines);
                outlet.put(lines, outlet.once);
            }
            let mut lines = Vec::new();
            facts.add(&reading, &mut lines);
            told.note(lines, facts.state(), &outlet.ends)?;
            made += 1;
            if outlet.once && made == 2 {
                break;
            }
            due = (due + pace(config.interval.duration(), outlet.once)).max(Instant::now());
            sleep_until(due, &outlet.ends);
        }
        let mut lines = Vec::new();
        facts.finish(&mut lines);
        told.tell(lines, facts.state(), &outlet.ends)
    }
}

fn name_owners(reading: &mut HostReading, pods: Option<&mut Pods>) {
    let Some(pods) = pods else { return };
    pods.refresh();
    let request = |uid: &str, container_id: &str| {
        let container = pods.container(uid, container_id)?;
        Some(Request { millicores: container.millicores, memory_bytes: container.memory_bytes })
    };
    reading.own(&|uid, container_id| pods.by_uid(uid, container_id), &request);
}

/// What a config of facts has wrong; `None`: nothing.
pub fn mistake(config: &HostConfig) -> Option<String> {
    Facts::new(config.options("weir.host"), FactsState::default()).err()
}
