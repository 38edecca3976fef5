//! Writes a reading of the host as records: a sample each, under the names, types and labels that node_exporter gives what the
//! machine says, and cAdvisor gives what its groups say.
//!
//! A counter that went back is told as it stands; who reads metrics takes that for a reset. Of node_exporter's metrics these are left
//! out: what needs udev (`node_disk_info`), netlink or other files than a [`HostReading`] holds. Of cAdvisor's labels `name` and
//! `image` are: the runtime knows them, the kernel does not. `container_cpu_usage_seconds_total` has `cpu="total"`, as kubelet's has.

use super::cgroup::Cgroup;
use super::proc::is_part;
use super::reading::{Cpu, HostReading, Pressure};
use flow::units::UnixNanos;
use std::collections::HashMap;
use telemetry::sample::{Stamp, Type, put_series, put_text, put_value_end};

use Type::{Counter, Gauge, Unknown};

/// Writes all samples of a reading: one line of JSON each (`telemetry::sample`).
pub fn metrics(reading: &HostReading, out: &mut Vec<u8>) {
    let mut to = Lines { out, stamp: Stamp::default(), at: UnixNanos(reading.at_ns) };
    processors(reading, &mut to);
    memory(reading, &mut to);
    disks(reading, &mut to);
    interfaces(reading, &mut to);
    filesystems(reading, &mut to);
    rest(reading, &mut to);
    groups(reading, &mut to);
    successes(reading, &mut to);
}

struct Lines<'a> {
    out: &'a mut Vec<u8>,
    stamp: Stamp,
    at: UnixNanos,
}

impl Lines<'_> {
    /// `labels`: sorted by name; empty ones are left out.
    fn put(&mut self, metric: &str, kind: Type, labels: &[(&str, &str)], value: f64) {
        put_series(self.out, metric, kind, "", labels.iter().copied().filter(|(_, value)| !value.is_empty()));
        self.end(value);
    }

    fn some(&mut self, metric: &str, kind: Type, labels: &[(&str, &str)], value: Option<u64>) {
        if let Some(value) = value {
            self.put(metric, kind, labels, value as f64);
        }
    }

    /// With labels that are written already.
    fn copy(&mut self, metric: &str, kind: Type, labels: &[u8], value: f64) {
        self.out.extend_from_slice(b"{\"metric\":\"");
        self.out.extend_from_slice(metric.as_bytes());
        self.out.extend_from_slice(b"\",\"type\":\"");
        self.out.extend_from_slice(kind.name().as_bytes());
        self.out.extend_from_slice(b"\",\"labels\":");
        self.out.extend_from_slice(labels);
        self.end(value);
    }

    fn end(&mut self, value: f64) {
        self.stamp.put(self.out, self.at);
        put_value_end(self.out, value);
    }
}

fn seconds_of_us(us: u64) -> f64 {
    us as f64 / 1e6
}

fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn processors(reading: &HostReading, to: &mut Lines<'_>) {
    for cpu in &reading.cpus {
        let number = cpu.number.to_string();
        let seconds = |at: usize| cpu.ticks[at] as f64 / Cpu::TICKS_PER_SECOND as f64;
        for (at, mode) in Cpu::MODES.iter().enumerate().take(8) {
            to.put("node_cpu_seconds_total", Counter, &[("cpu", &number), ("mode", mode)], seconds(at));
        }
        // Guests run within user and nice, and are counted there as well.
        for (at, mode) in [(8, "user"), (9, "nice")] {
            to.put("node_cpu_guest_seconds_total", Counter, &[("cpu", &number), ("mode", mode)], seconds(at));
        }
    }
}

fn memory(reading: &HostReading, to: &mut Lines<'_>) {
    for (name, (value, is_bytes)) in &reading.memory {
        let metric = format!("node_memory_{name}{}", if *is_bytes { "_bytes" } else { "" });
        to.put(&metric, Gauge, &[], *value as f64);
    }
}

/// In the order of `/proc/diskstats`.
const DISK: [(&str, Type, Unit); 17] = [
    ("node_disk_reads_completed_total", Counter, Unit::One),
    ("node_disk_reads_merged_total", Counter, Unit::One),
    ("node_disk_read_bytes_total", Counter, Unit::Sectors),
    ("node_disk_read_time_seconds_total", Counter, Unit::Millis),
    ("node_disk_writes_completed_total", Counter, Unit::One),
    ("node_disk_writes_merged_total", Counter, Unit::One),
    ("node_disk_written_bytes_total", Counter, Unit::Sectors),
    ("node_disk_write_time_seconds_total", Counter, Unit::Millis),
    ("node_disk_io_now", Gauge, Unit::One),
    ("node_disk_io_time_seconds_total", Counter, Unit::Millis),
    ("node_disk_io_time_weighted_seconds_total", Counter, Unit::Millis),
    ("node_disk_discards_completed_total", Counter, Unit::One),
    ("node_disk_discards_merged_total", Counter, Unit::One),
    ("node_disk_discarded_sectors_total", Counter, Unit::One),
    ("node_disk_discard_time_seconds_total", Counter, Unit::Millis),
    ("node_disk_flush_requests_total", Counter, Unit::One),
    ("node_disk_flush_requests_time_seconds_total", Counter, Unit::Millis),
];

#[derive(Clone, Copy)]
enum Unit {
    One,
    /// Of 512 bytes, whatever the disk's own are.
    Sectors,
    Millis,
}

fn disks(reading: &HostReading, to: &mut Lines<'_>) {
    for disk in reading.disks.iter().filter(|disk| !is_part(&disk.name)) {
        for ((metric, kind, unit), value) in DISK.iter().zip(&disk.values) {
            let value = match unit {
                Unit::One => *value as f64,
                Unit::Sectors => *value as f64 * 512.0,
                Unit::Millis => seconds_of_ms(*value),
            };
            to.put(metric, *kind, &[("device", &disk.name)], value);
        }
    }
}

/// In the order of `/proc/net/dev`.
const NETWORK: [&str; 16] = [
    "node_network_receive_bytes_total",
    "node_network_receive_packets_total",
    "node_network_receive_errs_total",
    "node_network_receive_drop_total",
    "node_network_receive_fifo_total",
    "node_network_receive_frame_total",
    "node_network_receive_compressed_total",
    "node_network_receive_multicast_total",
    "node_network_transmit_bytes_total",
    "node_network_transmit_packets_total",
    "node_network_transmit_errs_total",
    "node_network_transmit_drop_total",
    "node_network_transmit_fifo_total",
    "node_network_transmit_colls_total",
    "node_network_transmit_carrier_total",
    "node_network_transmit_compressed_total",
];

fn interfaces(reading: &HostReading, to: &mut Lines<'_>) {
    for interface in &reading.interfaces {
        let device = [("device", interface.name.as_str())];
        for (metric, value) in NETWORK.iter().zip(interface.values.iter().flatten()) {
            to.put(metric, Counter, &device, *value as f64);
        }
        to.some("node_network_receive_nohandler_total", Counter, &device, interface.nohandler);
        if !interface.state.is_empty() {
            to.put("node_network_up", Gauge, &device, f64::from(interface.state == "up"));
        }
        to.some("node_network_mtu_bytes", Gauge, &device, interface.mtu_bytes);
        to.some("node_network_carrier", Gauge, &device, interface.carrier);
        to.some("node_network_carrier_changes_total", Counter, &device, interface.carrier_changes);
        if let Some(mbit) = interface.speed_mbit {
            // An unknown speed is -1, and told as -125000, as node_exporter does.
            to.put("node_network_speed_bytes", Gauge, &device, mbit as f64 * 125_000.0);
        }
    }
}

fn filesystems(reading: &HostReading, to: &mut Lines<'_>) {
    for one in &reading.filesystems {
        let labels = [("device", one.device.as_str()), ("fstype", &one.kind), ("mountpoint", &one.mountpoint)];
        to.put("node_filesystem_device_error", Gauge, &labels, f64::from(one.sizes.is_none()));
        to.put("node_filesystem_readonly", Gauge, &labels, f64::from(one.is_readonly));
        let Some(sizes) = one.sizes else { continue };
        for (metric, value) in [
            ("node_filesystem_size_bytes", sizes.size),
            ("node_filesystem_free_bytes", sizes.free),
            ("node_filesystem_avail_bytes", sizes.available),
            ("node_filesystem_files", sizes.files),
            ("node_filesystem_files_free", sizes.files_free),
        ] {
            to.put(metric, Gauge, &labels, value as f64);
        }
    }
}

fn rest(reading: &HostReading, to: &mut Lines<'_>) {
    for (resource, pressure) in &reading.pressure {
        let Pressure { some_us, full_us } = *pressure;
        // All processors never wait at once for one: the kernel says 0, and node_exporter nothing.
        let full_us = full_us.filter(|_| resource != "cpu");
        for (what, value) in [("waiting", some_us), ("stalled", full_us)] {
            if let Some(us) = value {
                to.put(&format!("node_pressure_{resource}_{what}_seconds_total"), Counter, &[], seconds_of_us(us));
            }
        }
    }
    for (metric, value) in ["node_load1", "node_load5", "node_load15"].iter().zip(reading.load.iter().flatten()) {
        to.put(metric, Gauge, &[], *value);
    }
    to.some("node_boot_time_seconds", Gauge, &[], reading.boot_time);
    to.some("node_context_switches_total", Counter, &[], reading.context_switches);
    to.some("node_forks_total", Counter, &[], reading.forks);
    to.some("node_intr_total", Counter, &[], reading.interrupts);
    to.some("node_procs_running", Gauge, &[], reading.running);
    to.some("node_procs_blocked", Gauge, &[], reading.blocked);
    for (name, value) in &reading.vmstat {
        to.put(&format!("node_vmstat_{name}"), Unknown, &[], *value as f64);
    }
    to.some("node_filefd_allocated", Gauge, &[], reading.files.map(|(open, _)| open));
    to.some("node_filefd_maximum", Gauge, &[], reading.files.map(|(_, most)| most));
    to.put("node_time_seconds", Gauge, &[], reading.at_ns as f64 / 1e9);
    if let Some(uname) = &reading.uname {
        let labels = [
            ("domainname", uname.domain.as_str()),
            ("machine", &uname.machine),
            ("nodename", &uname.node),
            ("release", &uname.release),
            ("sysname", &uname.system),
            ("version", &uname.version),
        ];
        to.put("node_uname_info", Gauge, &labels, 1.0);
    }
}

fn groups(reading: &HostReading, to: &mut Lines<'_>) {
    let devices: HashMap<(u32, u32), &str> = reading.disks.iter().map(|disk| ((disk.major, disk.minor), disk.name.as_str())).collect();
    let mut labels = Vec::new();
    for group in &reading.cgroups {
        put_labels(group, &[], &mut labels);
        group_counts(group, &labels, to);
        if let Some(us) = group.cpu_us {
            put_labels(group, &[("cpu", "total")], &mut labels);
            to.copy("container_cpu_usage_seconds_total", Counter, &labels, seconds_of_us(us));
        }
        for (kind, value) in [("pgfault", group.page_faults), ("pgmajfault", group.major_faults)] {
            let Some(value) = value else { continue };
            put_labels(group, &[("failure_type", kind), ("scope", "hierarchy")], &mut labels);
            to.copy("container_memory_failures_total", Counter, &labels, value as f64);
        }
        for io in &group.io {
            let device = match devices.get(&(io.major, io.minor)) {
                Some(name) => format!("/dev/{name}"),
                None => format!("{}:{}", io.major, io.minor),
            };
            put_labels(group, &[("device", &device)], &mut labels);
            for (metric, value) in [
                ("container_fs_reads_bytes_total", io.read_bytes),
                ("container_fs_reads_total", io.reads),
                ("container_fs_writes_bytes_total", io.written_bytes),
                ("container_fs_writes_total", io.writes),
            ] {
                to.copy(metric, Counter, &labels, value as f64);
            }
        }
    }
}

/// What has no labels but the group's own.
fn group_counts(group: &Cgroup, labels: &[u8], to: &mut Lines<'_>) {
    for (metric, us) in [
        ("container_cpu_user_seconds_total", group.cpu_user_us),
        ("container_cpu_system_seconds_total", group.cpu_system_us),
        ("container_cpu_cfs_throttled_seconds_total", group.throttled_us),
        ("container_pressure_cpu_waiting_seconds_total", group.cpu_pressure.some_us),
        ("container_pressure_cpu_stalled_seconds_total", group.cpu_pressure.full_us),
        ("container_pressure_memory_waiting_seconds_total", group.memory_pressure.some_us),
        ("container_pressure_memory_stalled_seconds_total", group.memory_pressure.full_us),
        ("container_pressure_io_waiting_seconds_total", group.io_pressure.some_us),
        ("container_pressure_io_stalled_seconds_total", group.io_pressure.full_us),
    ] {
        if let Some(us) = us {
            to.copy(metric, Counter, labels, seconds_of_us(us));
        }
    }
    let has_memory = group.memory.is_some();
    for (metric, kind, value) in [
        ("container_cpu_cfs_periods_total", Counter, group.periods),
        ("container_cpu_cfs_throttled_periods_total", Counter, group.throttled),
        ("container_memory_usage_bytes", Gauge, group.memory),
        ("container_memory_working_set_bytes", Gauge, group.working_set()),
        ("container_memory_max_usage_bytes", Gauge, group.memory_peak),
        ("container_memory_cache", Gauge, group.cache),
        ("container_memory_rss", Gauge, group.rss),
        ("container_memory_mapped_file", Gauge, group.mapped_file),
        ("container_memory_swap", Gauge, group.swap),
        ("container_memory_failcnt", Counter, group.failcnt),
        ("container_oom_events_total", Counter, group.oom_kills),
        ("container_threads", Gauge, group.tasks),
        // No limit is 0, as cAdvisor has it.
        ("container_threads_max", Gauge, group.tasks.map(|_| group.tasks_max.unwrap_or(0))),
        ("container_spec_memory_limit_bytes", Gauge, has_memory.then(|| group.memory_max.unwrap_or(0))),
        ("container_spec_cpu_period", Gauge, group.period_us),
        ("container_spec_cpu_quota", Gauge, group.quota_us),
        ("container_spec_cpu_shares", Gauge, group.shares),
    ] {
        if let Some(value) = value {
            to.copy(metric, kind, labels, value as f64);
        }
    }
}

/// Writes the labels of a group and `more`, by name. Names of `more` sort apart from the group's.
fn put_labels(group: &Cgroup, more: &[(&str, &str)], out: &mut Vec<u8>) {
    out.clear();
    let owner = group.owner.as_ref();
    let own = [
        ("container", owner.map_or("", |owner| if group.container_id.is_empty() { "" } else { &owner.container })),
        ("id", &group.path),
        ("namespace", owner.map_or("", |owner| &owner.namespace)),
        ("pod", owner.map_or("", |owner| &owner.pod)),
    ];
    let mut labels: [(&str, &str); 6] = Default::default();
    labels[..4].copy_from_slice(&own);
    labels[4..4 + more.len()].copy_from_slice(more);
    labels.sort_unstable();
    out.push(b'{');
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        if out.len() > 1 {
            out.push(b',');
        }
        put_text(out, name.as_bytes());
        out.push(b':');
        put_text(out, value.as_bytes());
    }
    out.push(b'}');
}

/// What could be read, as node_exporter tells it of its collectors.
fn successes(reading: &HostReading, to: &mut Lines<'_>) {
    const COLLECTORS: [&str; 10] =
        ["cgroup", "diskstats", "filefd", "filesystem", "loadavg", "meminfo", "netclass", "netdev", "pressure", "stat"];
    let failed = |name: &str| reading.faults.keys().any(|what| what.starts_with(name) || what == "root");
    for name in COLLECTORS {
        let is_cut = name == "cgroup" && reading.cgroups_cut;
        to.put("node_scrape_collector_success", Gauge, &[("collector", name)], f64::from(!failed(name) && !is_cut));
    }
}

#[cfg(test)]
mod tests;
