//! Writes a reading as metrics: one line a sample, under the names of dcgm-exporter or of OpenTelemetry.
//!
//! In: readings. Out: lines as `telemetry::sample` writes them, each at the time of its reading. What a reading does not have makes
//! no line. Units are those of the names: DCGM counts memory in whole MiB, power in W and energy in mJ; OpenTelemetry in By, W and J.
//!
//! A device that is given to one container carries its names; where several share it the device's values are nobody's, and lines by
//! process say who. Those, and what neither scheme has a name for, begin with `weir_gpu_`.
//! <https://github.com/NVIDIA/dcgm-exporter/blob/main/etc/default-counters.csv>
//! <https://opentelemetry.io/docs/specs/semconv/hardware/gpu/>

use crate::reading::{Given, Gpu, Mig, Owner, Process, Reading};
use std::collections::BTreeMap;
use telemetry::sample::{Stamp, Type, put_series, put_value_end};

/// Whose names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    #[default]
    Dcgm,
    Otel,
}

const MIB: u64 = 1 << 20;

/// Activity by GPM: its name in a reading, and in DCGM. Shares are from 0 to 1, rates bytes a second.
const ACTIVITY: [(&str, &str); 8] = [
    ("graphics", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
    ("sm", "DCGM_FI_PROF_SM_ACTIVE"),
    ("sm_occupancy", "DCGM_FI_PROF_SM_OCCUPANCY"),
    ("tensor", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
    ("dram", "DCGM_FI_PROF_DRAM_ACTIVE"),
    ("fp16", "DCGM_FI_PROF_PIPE_FP16_ACTIVE"),
    ("nvlink_tx", "DCGM_FI_PROF_NVLINK_TX_BYTES"),
    ("nvlink_rx", "DCGM_FI_PROF_NVLINK_RX_BYTES"),
];

/// Labels of a series, by name.
type Labels<'a> = BTreeMap<&'static str, &'a str>;

/// Writes readings as lines.
pub struct Lines {
    names: Names,
    /// Of this node; empty: no label.
    host: String,
    stamp: Stamp,
}

impl Lines {
    pub fn new(names: Names, host: &str) -> Lines {
        Lines { names, host: host.to_string(), stamp: Stamp::default() }
    }

    /// Appends the lines of a reading. Returns how many.
    pub fn put(&mut self, reading: &Reading, out: &mut Vec<u8>) -> u64 {
        let mut put = Put { out, stamp: &mut self.stamp, reading, lines: 0 };
        for gpu in &reading.gpus {
            match self.names {
                Names::Dcgm => dcgm(&mut put, gpu, &self.host),
                Names::Otel => otel(&mut put, gpu, &self.host),
            }
            processes(&mut put, gpu, self.names, &self.host);
        }
        put.lines
    }
}

/// Where lines of one reading go.
struct Put<'a> {
    out: &'a mut Vec<u8>,
    stamp: &'a mut Stamp,
    reading: &'a Reading,
    lines: u64,
}

impl Put<'_> {
    fn line(&mut self, metric: &str, kind: Type, unit: &str, labels: &Labels, value: Option<f64>) {
        let Some(value) = value else { return };
        let told = labels.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, *value));
        put_series(self.out, metric, kind, unit, told);
        self.stamp.put(self.out, self.reading.at());
        put_value_end(self.out, value);
        self.lines += 1;
    }

    fn gauge(&mut self, metric: &str, labels: &Labels, value: Option<f64>) {
        self.line(metric, Type::Gauge, "", labels, value);
    }

    fn counter(&mut self, metric: &str, labels: &Labels, value: Option<u64>) {
        self.line(metric, Type::Counter, "", labels, value.map(|value| value as f64));
    }
}

fn small(value: Option<u32>) -> Option<f64> {
    value.map(f64::from)
}

fn wide(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn mib(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| (bytes / MIB) as f64)
}

/// The one container that it is given to, if it is one and not a replica.
fn only_owner(given: &[Given]) -> Option<&Owner> {
    match given {
        [one] if one.replica.is_none() => Some(&one.owner),
        _ => None,
    }
}

fn dcgm(put: &mut Put, gpu: &Gpu, host: &str) {
    let index = gpu.index.to_string();
    let device = format!("nvidia{index}");
    let mut labels: Labels = BTreeMap::from([
        ("gpu", index.as_str()),
        ("UUID", gpu.uuid.as_str()),
        ("pci_bus_id", gpu.pci.as_str()),
        ("device", device.as_str()),
        ("modelName", gpu.model.as_str()),
        ("hostname", host),
    ]);
    let whole = labels.clone();
    if let Some(owner) = only_owner(&gpu.given) {
        dcgm_owner(&mut labels, owner);
    }
    dcgm_device(put, gpu, &labels);
    for mig in &gpu.migs {
        dcgm_mig(put, mig, &whole);
    }
    put.gauge("weir_gpu_lost", &labels, Some(f64::from(u8::from(gpu.is_lost))));
    put.gauge("weir_gpu_allocatable", &labels, gpu.allocatable.map(|may| f64::from(u8::from(may))));
}

fn dcgm_owner<'a>(labels: &mut Labels<'a>, owner: &'a Owner) {
    labels.extend([("container", owner.container.as_str()), ("namespace", owner.namespace.as_str()), ("pod", owner.pod.as_str())]);
}

fn dcgm_device(put: &mut Put, gpu: &Gpu, labels: &Labels) {
    for (metric, value) in [
        ("DCGM_FI_DEV_SM_CLOCK", small(gpu.sm_mhz)),
        ("DCGM_FI_DEV_MEM_CLOCK", small(gpu.memory_mhz)),
        ("DCGM_FI_DEV_MEMORY_TEMP", small(gpu.memory_temperature)),
        ("DCGM_FI_DEV_GPU_TEMP", small(gpu.temperature)),
        ("DCGM_FI_DEV_POWER_USAGE", gpu.power_mw.map(|mw| mw as f64 / 1000.0)),
        ("DCGM_FI_DEV_GPU_UTIL", small(gpu.busy)),
        ("DCGM_FI_DEV_MEM_COPY_UTIL", small(gpu.busy_memory)),
        ("DCGM_FI_DEV_ENC_UTIL", small(gpu.busy_encoder)),
        ("DCGM_FI_DEV_DEC_UTIL", small(gpu.busy_decoder)),
        ("DCGM_FI_DEV_XID_ERRORS", wide(gpu.xid)),
        ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", wide(gpu.throttle)),
        ("DCGM_FI_DEV_FB_TOTAL", mib(gpu.memory_total)),
        ("DCGM_FI_DEV_FB_FREE", mib(gpu.memory_free)),
        ("DCGM_FI_DEV_FB_USED", mib(gpu.memory_used)),
        ("DCGM_FI_DEV_FB_RESERVED", mib(gpu.memory_reserved)),
        ("DCGM_FI_DEV_ROW_REMAP_FAILURE", gpu.remap_failed.map(|failed| f64::from(u8::from(failed)))),
        ("DCGM_FI_PROF_PCIE_TX_BYTES", wide(gpu.pcie_tx)),
        ("DCGM_FI_PROF_PCIE_RX_BYTES", wide(gpu.pcie_rx)),
    ] {
        put.gauge(metric, labels, value);
    }
    for (metric, value) in [
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", gpu.energy_mj),
        ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", gpu.ecc_corrected),
        ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", gpu.ecc_uncorrected),
        ("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", gpu.ecc_corrected_life),
        ("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", gpu.ecc_uncorrected_life),
        ("DCGM_FI_DEV_RETIRED_SBE", gpu.retired_corrected),
        ("DCGM_FI_DEV_RETIRED_DBE", gpu.retired_uncorrected),
        ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", gpu.remapped_corrected),
        ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", gpu.remapped_uncorrected),
        ("DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", gpu.nvlink_tx),
        ("DCGM_FI_DEV_NVLINK_COUNT_RX_BYTES", gpu.nvlink_rx),
    ] {
        put.counter(metric, labels, value);
    }
    dcgm_activity(put, &gpu.gpm, labels);
}

fn dcgm_activity(put: &mut Put, gpm: &BTreeMap<String, f64>, labels: &Labels) {
    for (name, metric) in ACTIVITY {
        put.gauge(metric, labels, gpm.get(name).copied());
    }
}

/// A MIG device has the names of its device, and its own as `GPU_I_ID` and `GPU_I_PROFILE`.
fn dcgm_mig(put: &mut Put, mig: &Mig, whole: &Labels) {
    let instance = mig.gpu_instance.to_string();
    let mut labels: Labels = whole.clone();
    labels.extend([("GPU_I_ID", instance.as_str()), ("GPU_I_PROFILE", mig.profile.as_str())]);
    if let Some(owner) = only_owner(&mig.given) {
        dcgm_owner(&mut labels, owner);
    }
    let free = mig.memory_total.zip(mig.memory_used).and_then(|(total, used)| total.checked_sub(used));
    put.gauge("DCGM_FI_DEV_FB_TOTAL", &labels, mib(mig.memory_total));
    put.gauge("DCGM_FI_DEV_FB_USED", &labels, mib(mig.memory_used));
    put.gauge("DCGM_FI_DEV_FB_FREE", &labels, mib(free));
    dcgm_activity(put, &mig.gpm, &labels);
    for (name, metric) in [("pcie_tx", "DCGM_FI_PROF_PCIE_TX_BYTES"), ("pcie_rx", "DCGM_FI_PROF_PCIE_RX_BYTES")] {
        put.gauge(metric, &labels, mig.gpm.get(name).copied());
    }
}

fn otel(put: &mut Put, gpu: &Gpu, host: &str) {
    let name = format!("nvidia{}", gpu.index);
    let mut labels: Labels = BTreeMap::from([
        ("hw.id", gpu.uuid.as_str()),
        ("hw.type", "gpu"),
        ("hw.name", name.as_str()),
        ("hw.model", gpu.model.as_str()),
        ("hw.vendor", "NVIDIA"),
        ("host.name", host),
    ]);
    let whole = labels.clone();
    if let Some(owner) = only_owner(&gpu.given) {
        otel_owner(&mut labels, owner);
    }
    otel_device(put, gpu, &labels);
    otel_activity(put, &gpu.gpm, &labels);
    for mig in &gpu.migs {
        let mut labels = whole.clone();
        labels.extend([("hw.id", mig.uuid.as_str()), ("hw.parent", gpu.uuid.as_str()), ("hw.name", mig.profile.as_str())]);
        if let Some(owner) = only_owner(&mig.given) {
            otel_owner(&mut labels, owner);
        }
        otel_memory(put, mig.memory_used, mig.memory_total, &labels);
        otel_activity(put, &mig.gpm, &labels);
    }
}

fn otel_owner<'a>(labels: &mut Labels<'a>, owner: &'a Owner) {
    labels.extend([
        ("k8s.container.name", owner.container.as_str()),
        ("k8s.namespace.name", owner.namespace.as_str()),
        ("k8s.pod.name", owner.pod.as_str()),
    ]);
}

/// Labels and one more.
fn with<'a>(labels: &Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    let mut labels = labels.clone();
    labels.insert(name, value);
    labels
}

fn otel_device(put: &mut Put, gpu: &Gpu, labels: &Labels) {
    let share = |percent: Option<u32>| percent.map(|percent| f64::from(percent) / 100.0);
    for (task, percent) in [("general", gpu.busy), ("encoder", gpu.busy_encoder), ("decoder", gpu.busy_decoder)] {
        put.line("hw.gpu.utilization", Type::Gauge, "1", &with(labels, "hw.gpu.task", task), share(percent));
    }
    otel_memory(put, gpu.memory_used, gpu.memory_total, labels);
    let joules = gpu.energy_mj.map(|mj| mj as f64 / 1000.0);
    put.line("hw.energy", Type::Counter, "J", labels, joules);
    put.line("hw.power", Type::Gauge, "W", labels, gpu.power_mw.map(|mw| mw as f64 / 1000.0));
    for (kind, count) in [("corrected", gpu.ecc_corrected), ("uncorrected", gpu.ecc_uncorrected)] {
        put.line("hw.errors", Type::Counter, "{error}", &with(labels, "error.type", kind), wide(count));
    }
    for (way, bytes) in [("transmit", gpu.nvlink_tx), ("receive", gpu.nvlink_rx)] {
        put.line("hw.gpu.io", Type::Counter, "By", &with(labels, "network.io.direction", way), wide(bytes));
    }
    for (state, is_it) in [("ok", !gpu.is_lost), ("failed", gpu.is_lost)] {
        put.line("hw.status", Type::Gauge, "1", &with(labels, "hw.state", state), Some(f64::from(u8::from(is_it))));
    }
    for (place, celsius) in [("GPU_DIE", gpu.temperature), ("MEMORY", gpu.memory_temperature)] {
        let mut of_sensor = with(labels, "hw.temperature.sensor_location", place);
        of_sensor.extend([("hw.type", "temperature"), ("hw.parent", gpu.uuid.as_str())]);
        put.line("hw.temperature", Type::Gauge, "Cel", &of_sensor, small(celsius));
    }
    // What the conventions have no name for.
    put.line("weir_gpu_allocatable", Type::Gauge, "", labels, gpu.allocatable.map(|may| f64::from(u8::from(may))));
    for (clock, mhz) in [("sm", gpu.sm_mhz), ("memory", gpu.memory_mhz)] {
        put.line("weir_gpu_clock", Type::Gauge, "MHz", &with(labels, "clock", clock), small(mhz));
    }
    put.line("weir_gpu_memory_busy_ratio", Type::Gauge, "1", labels, share(gpu.busy_memory));
    put.line("weir_gpu_throttle_reasons", Type::Gauge, "", labels, wide(gpu.throttle));
    put.line("weir_gpu_xid", Type::Gauge, "", labels, wide(gpu.xid));
    put.line("weir_gpu_retired_pages", Type::Counter, "", labels, wide(gpu.retired_pages));
    put.line("weir_gpu_remapped_rows", Type::Counter, "", labels, wide(gpu.remapped_rows));
    for (way, rate) in [("transmit", gpu.pcie_tx), ("receive", gpu.pcie_rx)] {
        put.line("weir_gpu_pcie_rate", Type::Gauge, "By/s", &with(labels, "network.io.direction", way), wide(rate));
    }
}

fn otel_memory(put: &mut Put, used: Option<u64>, total: Option<u64>, labels: &Labels) {
    put.line("hw.gpu.memory.usage", Type::Gauge, "By", labels, wide(used));
    put.line("hw.gpu.memory.limit", Type::Gauge, "By", labels, wide(total));
    let share = used.zip(total).filter(|(_, total)| *total > 0).map(|(used, total)| used as f64 / total as f64);
    put.line("hw.gpu.memory.utilization", Type::Gauge, "1", labels, share);
}

fn otel_activity(put: &mut Put, gpm: &BTreeMap<String, f64>, labels: &Labels) {
    for (name, value) in gpm {
        let is_rate = name.ends_with("_tx") || name.ends_with("_rx");
        // A name of another's recording stays a value of a label, never a name of a metric.
        let (metric, unit) = if is_rate { ("weir_gpu_activity_rate", "By/s") } else { ("weir_gpu_activity", "1") };
        put.line(metric, Type::Gauge, unit, &with(labels, "unit", name), Some(*value));
    }
}

/// What a process used in the driver's periods since the reading before: the mean of them.
#[derive(Clone, Copy, Default)]
struct Mean {
    periods: u32,
    sm: u64,
    memory: u64,
}

impl Mean {
    fn share(self, sum: u64) -> f64 {
        if self.periods == 0 { 0.0 } else { sum as f64 / f64::from(self.periods) / 100.0 }
    }
}

fn processes(put: &mut Put, gpu: &Gpu, names: Names, host: &str) {
    let mut means: BTreeMap<u32, Mean> = BTreeMap::new();
    for used in &gpu.uses {
        let mean = means.entry(used.pid).or_default();
        mean.periods += 1;
        mean.sm += u64::from(used.sm);
        mean.memory += u64::from(used.memory);
    }
    // A process that has no period did not run; where the driver does not tell, nothing is said.
    let is_told = !gpu.faults.contains_key("uses") && !gpu.mig_enabled;
    let index = gpu.index.to_string();
    for process in &gpu.processes {
        let (pid, instance) = (process.pid.to_string(), process.gpu_instance.map(|id| id.to_string()).unwrap_or_default());
        let labels = process_labels(gpu, process, names, [&index, &pid, &instance, host]);
        put.line("weir_gpu_process_memory_bytes", Type::Gauge, "", &labels, wide(process.memory));
        let mean = means.get(&process.pid).copied().unwrap_or_default();
        let share = |sum| is_told.then(|| mean.share(sum));
        put.line("weir_gpu_process_sm_ratio", Type::Gauge, "", &labels, share(mean.sm));
        put.line("weir_gpu_process_memory_busy_ratio", Type::Gauge, "", &labels, share(mean.memory));
    }
}

/// `texts`: index of the device, pid, GPU instance, host.
fn process_labels<'a>(gpu: &'a Gpu, process: &'a Process, names: Names, texts: [&'a str; 4]) -> Labels<'a> {
    let [index, pid, instance, host] = texts;
    let mut labels: Labels = BTreeMap::from([("pid", pid), ("process", process.name.as_str()), ("kind", process.kind.as_str())]);
    match names {
        Names::Dcgm => labels.extend([("gpu", index), ("UUID", &gpu.uuid), ("hostname", host), ("GPU_I_ID", instance)]),
        Names::Otel => labels.extend([("hw.id", gpu.uuid.as_str()), ("host.name", host), ("gpu_instance", instance)]),
    }
    if let Some(owner) = &process.owner {
        match names {
            Names::Dcgm => dcgm_owner(&mut labels, owner),
            Names::Otel => otel_owner(&mut labels, owner),
        }
        labels.insert("tenant", &owner.tenant);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Use;

    fn reading() -> Reading {
        let owner = Owner {
            tenant: "a".to_string(),
            namespace: "ns".to_string(),
            pod: "p".to_string(),
            container: "c".to_string(),
            ..Owner::default()
        };
        let given = vec![Given { owner: owner.clone(), ..Given::default() }];
        let process = Process { pid: 42, kind: "compute".to_string(), memory: Some(5 * MIB), owner: Some(owner), ..Process::default() };
        let used = |at_us, sm| Use { pid: 42, at_us, sm, memory: 10, ..Use::default() };
        let gpu = Gpu {
            index: 1,
            uuid: "GPU-1".to_string(),
            model: "NVIDIA H100".to_string(),
            pci: "00000000:1A:00.0".to_string(),
            energy_mj: Some(123_456),
            power_mw: Some(350_500),
            busy: Some(87),
            memory_used: Some(3 * MIB + 1),
            memory_total: Some(8 * MIB),
            ecc_uncorrected: Some(2),
            gpm: BTreeMap::from([("tensor".to_string(), 0.25)]),
            processes: vec![process],
            uses: vec![used(1, 50), used(2, 25)],
            given,
            ..Gpu::default()
        };
        Reading { at_ns: 1_764_291_723_123_000_000, gpus: vec![gpu], ..Reading::default() }
    }

    fn lines(names: Names, reading: &Reading) -> Vec<String> {
        let mut out = Vec::new();
        let count = Lines::new(names, "node-1").put(reading, &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        assert_eq!(count, lines.len() as u64);
        for line in &lines {
            let (mut times, mut buffer) = (flow::time::TimeParser::new(), Vec::new());
            let sample = telemetry::sample::read(line.as_bytes(), &mut times, &mut buffer).expect(line);
            assert_eq!((sample.at, sample.is_plain), (reading.at(), true), "each sample has the time of its reading");
        }
        lines
    }

    #[track_caller]
    fn has(lines: &[String], want: &str) {
        assert!(lines.iter().any(|line| line == want), "{want}\nis not in\n{}", lines.join("\n"));
    }

    #[test]
    fn a_line_is_as_dcgm_exporter_names_it() {
        let lines = lines(Names::Dcgm, &reading());
        let labels = r#""UUID":"GPU-1","container":"c","device":"nvidia1","gpu":"1","hostname":"node-1","modelName":"NVIDIA H100","namespace":"ns","pci_bus_id":"00000000:1A:00.0","pod":"p""#;
        for (metric, kind, value) in [
            ("DCGM_FI_DEV_GPU_UTIL", "gauge", "87.0"),
            ("DCGM_FI_DEV_POWER_USAGE", "gauge", "350.5"),
            ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "123456.0"),
            ("DCGM_FI_DEV_FB_USED", "gauge", "3.0"),
            ("DCGM_FI_DEV_FB_TOTAL", "gauge", "8.0"),
            ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "counter", "2.0"),
            ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge", "0.25"),
            ("weir_gpu_lost", "gauge", "0.0"),
        ] {
            let want = format!(
                r#"{{"metric":"{metric}","type":"{kind}","labels":{{{labels}}},"timestamp":"2025-11-28T01:02:03.123Z","value":{value}}}"#
            );
            has(&lines, &want);
        }
        assert_eq!(lines.iter().filter(|line| line.contains("DCGM_")).count(), 7, "what is not read makes no line");
    }

    #[test]
    fn a_line_by_process_says_whose_it_is() {
        let lines = lines(Names::Dcgm, &reading());
        let labels = r#""UUID":"GPU-1","container":"c","gpu":"1","hostname":"node-1","kind":"compute","namespace":"ns","pid":"42","pod":"p","tenant":"a""#;
        for (metric, value) in [("memory_bytes", "5242880.0"), ("sm_ratio", "0.375"), ("memory_busy_ratio", "0.1")] {
            let want = format!(
                r#"{{"metric":"weir_gpu_process_{metric}","type":"gauge","labels":{{{labels}}},"timestamp":"2025-11-28T01:02:03.123Z","value":{value}}}"#
            );
            has(&lines, &want);
        }
    }

    #[test]
    fn a_shared_device_carries_no_single_pod() {
        let mut reading = reading();
        let more = reading.gpus[0].given.clone();
        reading.gpus[0].given.extend(more);
        assert!(lines(Names::Dcgm, &reading).iter().filter(|line| line.contains("DCGM_")).all(|line| !line.contains("\"pod\"")));
        reading.gpus[0].given.truncate(1);
        reading.gpus[0].given[0].replica = Some(0);
        assert!(lines(Names::Otel, &reading).iter().filter(|line| line.contains("hw.gpu")).all(|line| !line.contains("k8s.pod.name")));
    }

    #[test]
    fn a_mig_device_says_its_profile_and_its_id() {
        let mut reading = reading();
        let mig = Mig {
            uuid: "MIG-1".to_string(),
            profile: "1g.10gb".to_string(),
            gpu_instance: 7,
            memory_total: Some(MIB),
            memory_used: Some(0),
            ..Mig::default()
        };
        (reading.gpus[0].migs, reading.gpus[0].mig_enabled) = (vec![mig], true);
        let all = lines(Names::Dcgm, &reading);
        has(
            &all,
            r#"{"metric":"DCGM_FI_DEV_FB_FREE","type":"gauge","labels":{"GPU_I_ID":"7","GPU_I_PROFILE":"1g.10gb","UUID":"GPU-1","device":"nvidia1","gpu":"1","hostname":"node-1","modelName":"NVIDIA H100","pci_bus_id":"00000000:1A:00.0"},"timestamp":"2025-11-28T01:02:03.123Z","value":1.0}"#,
        );
        assert!(!all.iter().any(|line| line.contains("sm_ratio")), "nobody tells use by process under MIG");
        let all = lines(Names::Otel, &reading);
        assert!(all.iter().any(|line| line.contains("hw.gpu.memory.limit") && line.contains(r#""hw.id":"MIG-1""#)));
    }

    #[test]
    fn opentelemetry_has_its_own_names_and_units() {
        let lines = lines(Names::Otel, &reading());
        for (metric, head, more, value) in [
            ("hw.energy", r#""type":"counter","unit":"J""#, "", "123.456"),
            ("hw.power", r#""type":"gauge","unit":"W""#, "", "350.5"),
            ("hw.gpu.memory.usage", r#""type":"gauge","unit":"By""#, "", "3145729.0"),
            ("hw.gpu.utilization", r#""type":"gauge","unit":"1""#, r#""hw.gpu.task":"general","#, "0.87"),
        ] {
            let labels = format!(
                r#""host.name":"node-1",{more}"hw.id":"GPU-1","hw.model":"NVIDIA H100","hw.name":"nvidia1","hw.type":"gpu","hw.vendor":"NVIDIA","k8s.container.name":"c","k8s.namespace.name":"ns","k8s.pod.name":"p""#
            );
            has(
                &lines,
                &format!(r#"{{"metric":"{metric}",{head},"labels":{{{labels}}},"timestamp":"2025-11-28T01:02:03.123Z","value":{value}}}"#),
            );
        }
        assert!(lines.iter().any(|line| line.contains(r#""error.type":"uncorrected""#) && line.ends_with("\"value\":2.0}")));
    }
}
