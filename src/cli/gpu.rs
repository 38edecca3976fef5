//! `weir gpu`: what the devices of this machine do now, whose they are, and recordings of it.
//!
//! In: NVIDIA's library, or a recording; `/proc`, the kubelet and labels of pods as the `gpu` source of a pipeline file names them. Out: a
//! table of devices and processes, once or again and again; a recording that the source replays; a report over the usage facts of
//! a data folder. Without a library there are no devices, and that is said.

use super::{Mistake, gpu_report, say, table};
use crate::config;
use crate::sources::SourceConfig;
use crate::sources::gpu::{Asker, GpuConfig};
use crate::sources::push::{Budget, Stats};
use crate::{durable, env};
use anyhow::Context;
use clap::{Args, Subcommand};
use device::reading::{Gpu, Mig, Owner, Process, Reading};
use device::recording::{Head, Writer};
use flow::units::Span;
use serde_json::json;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Subcommand)]
pub enum Verb {
    /// Show devices, processes, and whose they are, once.
    List {
        #[command(flatten)]
        from: From,
        #[arg(long)]
        json: bool,
    },
    /// Show them again and again.
    Top {
        #[command(flatten)]
        from: From,
        /// So many times. Default: on a terminal until it is interrupted, else once.
        #[arg(long)]
        count: Option<u64>,
        #[arg(long)]
        json: bool,
    },
    /// Record readings into a file, which a `gpu` source replays (`recording`).
    Record {
        file: PathBuf,
        /// How long.
        #[arg(long = "for", default_value = "60s", value_parser = super::read_span)]
        length: Span,
        /// What is recorded, in words.
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        from: From,
    },
    /// Who used devices, for how long, how well and with how much energy, over the usage facts of a data folder.
    Report(gpu_report::Options),
}

/// Where readings come from.
#[derive(Args)]
pub struct From {
    /// A pipeline file whose `gpu` source says how devices are asked and whose pods and processes are.
    #[arg(long)]
    config: Option<PathBuf>,
    /// NVIDIA's library.
    #[arg(long)]
    library: Option<PathBuf>,
    /// A recording in place of devices.
    #[arg(long, conflicts_with = "library")]
    recording: Option<PathBuf>,
    /// How often devices are asked. Default: as the pipeline file has it, or 1s.
    #[arg(long, value_parser = super::read_span)]
    interval: Option<Span>,
}

impl From {
    fn config(&self) -> anyhow::Result<GpuConfig> {
        let mut gpu = match &self.config {
            None => serde_json::from_value(json!({})).context("every key has a default")?,
            Some(path) => {
                let loaded = config::load(std::slice::from_ref(path), &|name| std::env::var(name).ok())
                    .map_err(|report| anyhow::Error::from(Mistake(report.to_string())))?;
                let found = loaded.iter().flat_map(|one| one.config.sources.values()).find_map(|source| match source {
                    SourceConfig::Gpu(gpu) => Some(GpuConfig::clone(gpu)),
                    _ => None,
                });
                found.ok_or_else(|| Mistake(format!("{} has no gpu source", path.display())))?
            }
        };
        if let Some(library) = &self.library {
            (gpu.library, gpu.recording) = (Some(library.clone()), None);
        }
        gpu.recording = self.recording.clone().or(gpu.recording);
        gpu.interval = self.interval.unwrap_or(gpu.interval);
        Ok(gpu)
    }

    fn open(&self) -> anyhow::Result<(Asker, Duration)> {
        let config = self.config()?;
        let stats = Arc::new(Stats::new("gpu", Budget::new(0)));
        let asker = Asker::new(&config, stats, Arc::default(), false)?;
        Ok((asker, config.interval.duration()))
    }
}

pub fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    super::run::start_log(true);
    match verb {
        Verb::List { from, json } => top(from, Some(1), *json),
        Verb::Top { from, count, json } => top(from, count.or((!std::io::stdout().is_terminal()).then_some(1)), *json),
        Verb::Record { file, length, note, from } => record(file, *length, note, from),
        Verb::Report(options) => gpu_report::run(options),
    }
}

fn top(from: &From, count: Option<u64>, is_json: bool) -> anyhow::Result<ExitCode> {
    let (mut asker, interval) = from.open()?;
    let is_drawn = count.is_none_or(|count| count > 1) && !is_json && std::io::stdout().is_terminal();
    // What the driver counts between two looks is there at the second one.
    if from.recording.is_none() {
        asker.read()?;
        std::thread::sleep(interval.min(Duration::from_secs(1)));
    }
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        let Some(reading) = asker.read()? else { break };
        let text = if is_json { format!("{}\n", serde_json::to_string(&reading)?) } else { show(&reading, asker.driver()) };
        // Home, and clear what is below.
        say(&if is_drawn { format!("\x1b[H\x1b[J{text}") } else { text })?;
        shown += 1;
        if count.is_none_or(|count| shown < count) && from.recording.is_none() {
            std::thread::sleep(interval);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each device, MIG device and process.
fn show(reading: &Reading, driver: &str) -> String {
    if reading.gpus.is_empty() {
        return "no devices\n".into();
    }
    let row = |cells: [&str; 8]| cells.map(str::to_owned).to_vec();
    let mut devices = vec![row(["device", "model", "given to", "busy", "memory", "power", "temp", "state"])];
    let mut processes = vec![row(["device", "pid", "command", "tenant", "pod", "sm", "memory", "kind"])];
    for gpu in &reading.gpus {
        devices.push(device_row(gpu));
        devices.extend(gpu.migs.iter().map(|mig| mig_row(gpu, mig)));
        processes.extend(gpu.processes.iter().map(|process| process_row(gpu, process)));
    }
    let mut text = format!("{}{}\n", reading.at().rfc3339(), if driver.is_empty() { String::new() } else { format!("  driver {driver}") });
    text.push_str(&table(&devices, 3));
    if processes.len() > 1 {
        text.push('\n');
        text.push_str(&table(&processes, 5));
    }
    text
}

fn or_dash<T: ToString>(value: Option<T>, unit: &str) -> String {
    value.map_or("-".into(), |value| format!("{}{unit}", value.to_string()))
}

fn mib(bytes: Option<u64>) -> String {
    or_dash(bytes.map(|bytes| bytes >> 20), "")
}

fn who(owner: &Owner) -> String {
    let pod = if owner.pod.is_empty() { owner.service.clone() } else { format!("{}/{}", owner.namespace, owner.pod) };
    let tenant = if owner.tenant.is_empty() { "-" } else { &owner.tenant };
    if pod.is_empty() { tenant.into() } else { format!("{tenant} ({pod})") }
}

fn given(list: &[device::reading::Given]) -> String {
    match list {
        [] => "-".into(),
        [one] => who(&one.owner),
        [one, ..] => format!("{} and {} more", who(&one.owner), list.len() - 1),
    }
}

fn device_row(gpu: &Gpu) -> Vec<String> {
    let state = match () {
        () if gpu.is_lost => "lost".to_string(),
        () if gpu.mig_enabled => "MIG".into(),
        () if gpu.mps => "MPS".into(),
        () => gpu.compute_mode.clone().unwrap_or_else(|| "-".into()),
    };
    vec![
        gpu.index.to_string(),
        gpu.model.clone(),
        given(&gpu.given),
        or_dash(gpu.busy, " %"),
        format!("{} / {} MiB", mib(gpu.memory_used), mib(gpu.memory_total)),
        or_dash(gpu.power_mw.map(|mw| mw / 1000), " W"),
        or_dash(gpu.temperature, " C"),
        state,
    ]
}

fn mig_row(gpu: &Gpu, mig: &Mig) -> Vec<String> {
    vec![
        format!("{}:{}", gpu.index, mig.gpu_instance),
        format!("  {}", mig.profile),
        given(&mig.given),
        or_dash(mig.gpm.get("graphics").or(mig.gpm.get("sm")).map(|share| (share * 100.0).round()), " %"),
        format!("{} / {} MiB", mib(mig.memory_used), mib(mig.memory_total)),
        "-".into(),
        "-".into(),
        format!("{} slices", mig.slices),
    ]
}

fn process_row(gpu: &Gpu, process: &Process) -> Vec<String> {
    let owner = process.owner.clone().unwrap_or_default();
    let used = gpu.uses.iter().filter(|used| used.pid == process.pid).max_by_key(|used| used.at_us);
    let place = process.gpu_instance.map_or(gpu.index.to_string(), |instance| format!("{}:{instance}", gpu.index));
    let named = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    vec![
        place,
        process.pid.to_string(),
        named(&process.name),
        named(&owner.tenant),
        if owner.pod.is_empty() { "-".into() } else { format!("{}/{}", owner.namespace, owner.pod) },
        or_dash(used.map(|used| used.sm), " %"),
        format!("{} MiB", mib(process.memory)),
        named(&process.kind),
    ]
}

fn record(file: &Path, length: Span, note: &str, from: &From) -> anyhow::Result<ExitCode> {
    let (mut asker, interval) = from.open()?;
    let head = Head::new(&env::host(), asker.driver(), note);
    // One that is there is evidence: it is not written over.
    let out = durable::create_new(file)?;
    let mut writer = Writer::begin(BufWriter::new(out), &head).with_context(|| format!("cannot write {}", file.display()))?;
    let begun = Instant::now();
    let mut made = 0u32;
    loop {
        let Some(reading) = asker.read()? else { break };
        writer.append(&reading).with_context(|| format!("cannot write {}", file.display()))?;
        made += 1;
        let due = interval.saturating_mul(made);
        if due > length.duration() {
            break;
        }
        if from.recording.is_none() {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    writer.into_inner().flush()?;
    say(&format!("{made} readings in {}\n", file.display()))?;
    Ok(ExitCode::SUCCESS)
}
