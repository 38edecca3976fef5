//! The `gpu` source: what NVIDIA's devices do, and who used them.
//!
//! Two threads. The *asker* asks the driver, which may hang: it makes readings, says whose their processes are (`/proc`, what the
//! kubelet gave to whom, labels of pods) and hands each over. The *teller* waits for readings no longer than `deadline`, and makes two
//! things of them: samples of metrics, and raw usage facts, which are told exactly once (`told`) and added up over `window`. A driver
//! that hangs so holds up nobody, and is counted. Without NVIDIA's library there are no devices, which is said once. Dividing a device
//! among tenants is no business of a source: the bill does it. Bound: `buffer_bytes_max` of lines that wait for a lane.

use super::measure::{Outlet, TICK, pace, sleep_until};
use super::pods::{Pods, PodsConfig};
use super::push::Stats;
use super::told::Told;
use crate::env;
use crate::grpc::Caller;
use anyhow::Context;
use device::facts::{Accountant, Facts, Form, Options, State};
use device::names::{Lines, Names};
use device::nvml::Sampler;
use device::owner::{Owners, Rule};
use device::pod_resources::{self, Allocatable, PodDevices};
use device::reading::{Owner, Reading};
use device::recording::{Replay, Samples};
use flow::units::{ByteSize, NANOS_PER_SECOND, Span, UnixNanos};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use telemetry::otlp::grpc::{Code, frame};
use tracing::{info, warn};

/// How long the kubelet may take.
const KUBELET_PATIENCE: Duration = Duration::from_secs(5);
/// The `gpu` source: a reading of every device each `interval`. Its samples are metrics under dcgm-exporter's names; its usage facts
/// are events for a meter with `usage: events`: `gpu_held`, `gpu_sm_time`, `gpu_energy`, `gpu_memory_time` and `gpu_slices`, with the
/// tenant where one alone had the device, and the dimensions `device`, `gpu_model`, `mode`, `mig_profile`, `service`, `model` and `pod`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuConfig {
    /// How often devices are asked, 100ms to 1m.
    #[serde(default = "interval")]
    pub interval: Span,
    /// NVIDIA's library. Absent: `libnvidia-ml.so.1`, where the system has it.
    pub library: Option<PathBuf>,
    /// A recording of `weir gpu record` that is replayed in place of devices, to its end.
    pub recording: Option<PathBuf>,
    /// Names of metrics.
    #[serde(default)]
    pub names: GpuNames,
    /// How facts tell what was held for a time.
    #[serde(default)]
    pub held: GpuHeld,
    /// Whether samples are written; facts are in any case.
    #[serde(default = "yes")]
    pub metrics: bool,
    /// Facts are added up so long, 1s to 1h, a divisor of an hour.
    #[serde(default = "window")]
    pub window: Span,
    /// Of a longer gap between two readings nobody knows who had the device, 1s to 1h.
    #[serde(default = "gap_max")]
    pub gap_max: Span,
    /// A driver that does not answer for so long hangs, 100ms to 10m.
    #[serde(default = "deadline")]
    pub deadline: Span,
    /// The kubelet's socket, as in `/var/lib/kubelet/pod-resources/kubelet.sock`: which container was given which device. Absent: nobody is
    /// asked, and devices are of whose processes run there.
    pub pod_resources: Option<PathBuf>,
    /// Where processes are looked up; `/host/proc` where the host's is mounted there.
    #[serde(default = "proc")]
    pub proc: PathBuf,
    /// Whose pods are.
    pub pods: Option<PodsConfig>,
    /// Owners of processes outside of containers; the first that fits counts.
    #[serde(default)]
    pub processes: Vec<ProcessRule>,
    /// Value of the label `hostname`. Absent: the machine's name.
    pub host: Option<String>,
    /// Most bytes of lines that wait for a lane, at least 1MiB.
    #[serde(default = "buffer_bytes_max")]
    pub buffer_bytes_max: ByteSize,
    /// Labels of this source's records, besides those of the process: they stand on `weir_records_total` and can be put into records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// How facts tell what was held for a time: devices, memory, slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuHeld {
    /// As amounts at the start of the window, as in 60000 `GPU-ms`: a bill adds them up and rounds once.
    #[default]
    Amounts,
    /// From a start to an end, as in 1 `GPU`: a bill prices to the millisecond, and rounds each (rule R5), so take a long window.
    Intervals,
}

/// Whose names metrics have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuNames {
    /// dcgm-exporter's: `DCGM_FI_DEV_GPU_UTIL`.
    #[default]
    Dcgm,
    /// OpenTelemetry's: `hw.gpu.utilization`.
    Otel,
}

/// Whose a process is that runs in no container. All that is named must fit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessRule {
    /// Its command, as `/proc/PID/comm` has it.
    pub command: Option<String>,
    /// Its effective user, by number.
    pub user: Option<u32>,
    /// Its control group, or one above it, as in `/system.slice/slurmstepd.scope`.
    pub cgroup: Option<String>,
    /// Who pays.
    pub tenant: String,
    /// Dimension `service` of its facts.
    #[serde(default)]
    pub service: String,
    /// Dimension `model` of its facts.
    #[serde(default)]
    pub model: String,
}

fn interval() -> Span {
    Span(NANOS_PER_SECOND)
}

fn window() -> Span {
    Span(60 * NANOS_PER_SECOND)
}

fn gap_max() -> Span {
    Span(10 * NANOS_PER_SECOND)
}

fn deadline() -> Span {
    Span(5 * NANOS_PER_SECOND)
}

fn proc() -> PathBuf {
    "/proc".into()
}

fn buffer_bytes_max() -> ByteSize {
    ByteSize(64 << 20)
}

fn yes() -> bool {
    true
}

impl GpuConfig {
    /// How facts are made of readings. `source`: its name.
    pub fn options(&self, source: &str) -> Options {
        let form = match self.held {
            GpuHeld::Amounts => Form::Amounts,
            GpuHeld::Intervals => Form::Intervals,
        };
        Options { window: self.window, gap_max: self.gap_max, source: source.into(), form }
    }
}

/// What a source runs with.
pub struct Job {
    config: GpuConfig,
    options: Options,
    pub outlet: Outlet,
}

impl Job {
    pub fn new(source: &str, config: &GpuConfig, outlet: Outlet) -> Job {
        Job { config: config.clone(), options: config.options(&format!("weir.gpu.{source}")), outlet }
    }

    /// Reads and tells until the end comes, or the recording's.
    pub fn measure(&self) -> anyhow::Result<()> {
        let (told, state) = self.outlet.open::<State>()?;
        let accountant = Accountant::restore(self.options.clone(), state.unwrap_or_default()).map_err(anyhow::Error::msg)?;
        let names = match self.config.names {
            GpuNames::Dcgm => Names::Dcgm,
            GpuNames::Otel => Names::Otel,
        };
        let lines = Lines::new(names, &self.config.host.clone().unwrap_or_else(env::host));
        let mut teller = Teller { job: self, told, accountant, lines, seen: BTreeMap::new() };
        let (to, from) = sync_channel(1);
        let asker = Asker::new(&self.config, Arc::clone(&self.outlet.stats), Arc::clone(&self.outlet.ends), self.outlet.once)?;
        // It is never waited for: a driver that hangs does so for ever.
        std::thread::Builder::new().name("gpu".into()).spawn(move || asker.run(&to)).context("cannot start a thread for GPUs")?;
        teller.run(&from)
    }
}

/// Makes lines of readings.
struct Teller<'a> {
    job: &'a Job,
    told: Told,
    accountant: Accountant,
    lines: Lines,
    /// Counts of the accountant that were passed on.
    seen: BTreeMap<String, u64>,
}

impl Teller<'_> {
    fn run(&mut self, readings: &Receiver<Reading>) -> anyhow::Result<()> {
        let Job { outlet, config, .. } = self.job;
        let patience = config.deadline.duration() + config.interval.duration();
        let mut heard = Instant::now();
        let mut hangs = false;
        loop {
            match readings.recv_timeout(TICK) {
                Ok(reading) => {
                    if std::mem::take(&mut hangs) {
                        info!("the driver answers again");
                    }
                    heard = Instant::now();
                    self.take(&reading)?;
                }
                Err(RecvTimeoutError::Timeout) if outlet.is_ending() => break,
                Err(RecvTimeoutError::Timeout) => {
                    if !hangs && !outlet.once && heard.elapsed() > patience {
                        hangs = true;
                        outlet.stats.count("hangs", 1);
                        warn!(seconds = patience.as_secs_f64(), "the driver does not answer: no readings until it does");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let mut facts = Facts::default();
        self.accountant.close(UnixNanos(i64::MAX), &mut facts);
        let mut lines = Vec::new();
        facts.put(&self.job.options.source, &mut lines);
        self.told.tell(lines, self.accountant.state(), &outlet.ends)
    }

    fn take(&mut self, reading: &Reading) -> anyhow::Result<()> {
        let Job { outlet, config, options } = self.job;
        outlet.stats.count("readings", 1);
        if config.metrics {
            let mut lines = Vec::new();
            self.lines.put(reading, &mut lines);
            outlet.put(lines, outlet.once || config.recording.is_some());
        }
        let mut facts = Facts::default();
        self.accountant.account(reading, &mut facts);
        for (name, count) in self.accountant.counts().named() {
            let seen = self.seen.entry(name.clone()).or_default();
            outlet.stats.count(&name, count.saturating_sub(*seen));
            *seen = count;
        }
        let mut lines = Vec::new();
        facts.put(&options.source, &mut lines);
        self.told.note(lines, self.accountant.state(), &outlet.ends)
    }
}

/// Makes readings.
pub struct Asker {
    config: GpuConfig,
    samples: Samples,
    owners: Owners,
    pods: Option<Pods>,
    kubelet: Option<Kubelet>,
    stats: Arc<Stats>,
    ends: Arc<AtomicBool>,
    once: bool,
    told: usize,
}

impl Asker {
    /// Errors: a recording that is none. A library that is not there is no error, and is said.
    pub fn new(config: &GpuConfig, stats: Arc<Stats>, ends: Arc<AtomicBool>, once: bool) -> anyhow::Result<Asker> {
        let samples = match &config.recording {
            Some(path) => {
                let file = std::fs::File::open(path).with_context(|| format!("cannot open the recording {}", path.display()))?;
                let replay =
                    Replay::open(&path.display().to_string(), std::io::BufReader::new(file)).map_err(|bad| anyhow::anyhow!("{bad}"))?;
                Samples::Recorded(Box::new(replay))
            }
            None => match Sampler::open(config.library.as_deref()) {
                Ok(sampler) => Samples::Nvml(Box::new(sampler)),
                Err(absent) => {
                    warn!("{absent}: no devices here");
                    Samples::Absent
                }
            },
        };
        let rule = |rule: &ProcessRule| Rule {
            command: rule.command.clone(),
            user: rule.user,
            cgroup: rule.cgroup.clone(),
            owner: Owner { tenant: rule.tenant.clone(), service: rule.service.clone(), model: rule.model.clone(), ..Owner::default() },
        };
        let owners = Owners::new(&config.proc, config.processes.iter().map(rule).collect());
        let pods = config.pods.as_ref().map(|pods| Pods::open(pods, once)).transpose()?;
        let kubelet = config.pod_resources.as_ref().map(|path| Kubelet::new(path.clone())).transpose()?;
        Ok(Asker { config: config.clone(), samples, owners, pods, kubelet, stats, ends, once, told: 0 })
    }

    pub fn driver(&self) -> &str {
        self.samples.driver()
    }

    fn run(mut self, to: &SyncSender<Reading>) {
        let is_recording = matches!(self.samples, Samples::Recorded(_));
        let interval = pace(self.config.interval.duration(), self.once);
        let mut due = Instant::now();
        let (mut made, mut missed) = (0u64, 0u64);
        while !self.ends.load(Ordering::Relaxed) {
            let reading = match self.read() {
                Ok(Some(reading)) => reading,
                Ok(None) => return,
                Err(error) => {
                    self.stats.count("bad_lines", 1);
                    warn!("{error:#}");
                    continue;
                }
            };
            let reading = Reading { missed: reading.missed + std::mem::take(&mut missed), ..reading };
            if to.send(reading).is_err() {
                return;
            }
            made += 1;
            if is_recording {
                continue;
            }
            if self.once && (made == 2 || matches!(self.samples, Samples::Absent)) {
                return;
            }
            due += interval;
            let late = Instant::now().saturating_duration_since(due);
            if late >= interval {
                missed = (late.as_nanos() / interval.as_nanos()) as u64;
                due += interval.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX));
            }
            sleep_until(due, &self.ends);
        }
    }

    /// One reading, with owners; `None`: the recording is over.
    pub fn read(&mut self) -> anyhow::Result<Option<Reading>> {
        let begun = Instant::now();
        let Some(mut reading) = self.samples.sample(env::now(), env::since_boot()).map_err(|bad| anyhow::anyhow!("{bad}"))? else {
            return Ok(None);
        };
        for note in &self.samples.notes()[self.told..] {
            self.stats.count(&format!("without_{}", note.what), 1);
            warn!(what = note.what, why = note.why, "a reading of GPUs is not there");
        }
        self.told = self.samples.notes().len();
        if !matches!(self.samples, Samples::Recorded(_)) {
            self.name_owners(&mut reading);
            reading.boot = env::boot_id();
            reading.took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
        Ok(Some(reading))
    }

    fn name_owners(&mut self, reading: &mut Reading) {
        if let Some(pods) = &mut self.pods {
            pods.refresh();
        }
        let pods = self.pods.as_ref();
        let of_uid = |uid: &str, container_id: &str| pods?.by_uid(uid, container_id);
        self.owners.fill(reading, &of_uid);
        for (why, count) in std::mem::take(&mut self.owners.faults) {
            self.stats.count(&format!("process_{why}"), count);
        }
        let Some(kubelet) = &mut self.kubelet else { return };
        let of_name = |given: &PodDevices| {
            let owner = pods?.by_name(&given.namespace, &given.pod, "")?;
            Some(Owner { container: given.container.clone(), ..owner })
        };
        let assigned = pod_resources::assign(reading, kubelet.list(&self.stats), &of_name);
        for (why, count) in assigned.faults {
            self.stats.count(&format!("given_{why}"), count);
        }
        if let Some((_, Some(allocatable))) = &kubelet.allocatable {
            pod_resources::allow(reading, allocatable);
        }
    }
}

/// Asks the kubelet who was given what.
struct Kubelet {
    caller: Caller,
    path: PathBuf,
    asked: Option<Instant>,
    /// What it said last: where it does not answer, that holds.
    containers: Vec<PodDevices>,
    /// What it may give away, and when it was asked for that.
    allocatable: Option<(Instant, Option<Allocatable>)>,
    fails: bool,
}

/// The kubelet is asked so often at most.
const KUBELET_EVERY: Duration = Duration::from_secs(1);
/// What it may give away changes with the node.
const ALLOCATABLE_EVERY: Duration = Duration::from_secs(60);

impl Kubelet {
    fn new(path: PathBuf) -> anyhow::Result<Kubelet> {
        let caller = Caller::over_socket(path.clone(), KUBELET_PATIENCE)?;
        Ok(Kubelet { caller, path, asked: None, containers: Vec::new(), allocatable: None, fails: false })
    }

    fn list(&mut self, stats: &Stats) -> &[PodDevices] {
        if self.asked.is_some_and(|asked| asked.elapsed() < KUBELET_EVERY) {
            return &self.containers;
        }
        self.asked = Some(Instant::now());
        match self.ask() {
            Ok((containers, left_out)) => {
                if std::mem::take(&mut self.fails) {
                    info!(socket = %self.path.display(), "the kubelet answers again");
                }
                stats.count("kubelet_left_out", left_out);
                self.containers = containers;
            }
            Err(error) => {
                stats.count("kubelet_fails", 1);
                if !std::mem::replace(&mut self.fails, true) {
                    let socket = self.path.display().to_string();
                    warn!(socket, error = format!("{error:#}"), "the kubelet does not say whose devices are; what it said before holds");
                }
            }
        }
        &self.containers
    }

    fn ask(&mut self) -> anyhow::Result<(Vec<PodDevices>, u64)> {
        let answer = self.call(pod_resources::LIST_PATH, &pod_resources::list_request())?;
        let listed = pod_resources::decode_list(&answer).map_err(|error| anyhow::anyhow!("its answer is no list: {error}"))?;
        if self.allocatable.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= ALLOCATABLE_EVERY) {
            // Kubelets before 1.23 do not know this call: then nobody can tell.
            let asked = self.call(pod_resources::ALLOCATABLE_PATH, &pod_resources::allocatable_request());
            let allocatable = asked.ok().and_then(|answer| pod_resources::decode_allocatable(&answer).ok());
            self.allocatable = Some((Instant::now(), allocatable));
        }
        Ok((listed.containers, listed.left_out))
    }

    fn call(&mut self, method: &str, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let answer = self.caller.call(method, &[], frame(false, request)).map_err(anyhow::Error::msg)?;
        anyhow::ensure!(answer.code == Code::Ok, "it answers {:?}: {}", answer.code, answer.why);
        Ok(answer.message)
    }
}
