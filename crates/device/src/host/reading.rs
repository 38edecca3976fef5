//! What one look at the host gave: numbers as the kernel tells them, counters as they stand. What could not be read is missing, and
//! [`HostReading::faults`] says why.

use super::cgroup::Cgroup;
use super::files::Fault;
use crate::reading::Owner;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Faults that are kept by name; more are only counted.
const FAULTS_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostReading {
    /// When it was begun: wall clock, nanoseconds since 1970.
    pub at_ns: i64,
    /// The same by the monotonic clock of this boot.
    pub mono_ns: u64,
    /// The kernel's name of this boot. Empty: it does not tell.
    pub boot_id: String,
    /// Ticks of [`Cpu::MODES`] of all processors together.
    pub cpu: Option<[u64; 10]>,
    pub cpus: Vec<Cpu>,
    /// `/proc/meminfo` by name, as in `MemTotal`; bytes where the kernel says kB, else a count, as in `HugePages_Total`.
    pub memory: BTreeMap<String, (u64, bool)>,
    pub disks: Vec<Disk>,
    pub interfaces: Vec<Interface>,
    pub filesystems: Vec<Filesystem>,
    /// By resource: `cpu`, `io`, `memory`, `irq`.
    pub pressure: BTreeMap<String, Pressure>,
    /// Over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Seconds since 1970.
    pub boot_time: Option<u64>,
    pub uptime_ms: Option<u64>,
    pub context_switches: Option<u64>,
    pub forks: Option<u64>,
    pub interrupts: Option<u64>,
    pub running: Option<u64>,
    pub blocked: Option<u64>,
    pub vmstat: BTreeMap<String, u64>,
    /// Open files, and how many can be.
    pub files: Option<(u64, u64)>,
    pub uname: Option<Uname>,
    /// 1 or 2; 0: there are none.
    pub cgroup_version: u8,
    /// Sorted by path.
    pub cgroups: Vec<Cgroup>,
    /// Groups were left out: there are more, or deeper ones, than are read.
    pub cgroups_cut: bool,
    /// What could not be read, and why: `cgroup/kubepods/cpu.stat` -> `denied`.
    pub faults: BTreeMap<String, String>,
    /// Faults in all, those without a name included.
    pub faults_n: u64,
}

impl HostReading {
    /// Notes what could not be read, as in `memory/proc/meminfo`.
    pub(super) fn fault(&mut self, what: impl Into<String>, why: Fault) {
        self.faults_n += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.insert(what.into(), why.into());
        }
    }

    /// Bytes of a line of `/proc/meminfo`.
    pub fn memory_bytes(&self, name: &str) -> Option<u64> {
        self.memory.get(name).filter(|(_, is_bytes)| *is_bytes).map(|(bytes, _)| *bytes)
    }

    /// Says whose the groups of containers and pods are, and what was requested for them.
    ///
    /// Both are asked with the pod's uid and the container's id: a group of a pod has no container id, one of a runtime alone no pod
    /// uid. `owner` names whom metrics and facts tell; `request` is what the scheduler has set apart.
    pub fn own(&mut self, owner: &dyn Fn(&str, &str) -> Option<Owner>, request: &dyn Fn(&str, &str) -> Option<Request>) {
        for group in &mut self.cgroups {
            if group.is_placed() {
                group.owner = owner(&group.pod_uid, &group.container_id);
                group.request = request(&group.pod_uid, &group.container_id);
            }
        }
    }
}

/// What a container asked the scheduler for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Thousandths of a processor.
    pub millicores: u64,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    pub number: u32,
    /// Ticks of 10 ms since boot, of [`Cpu::MODES`]. Guests stand in user and nice too.
    pub ticks: [u64; 10],
}

impl Cpu {
    pub const MODES: [&str; 10] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
    /// USER_HZ of every Linux that runs today. <https://man7.org/linux/man-pages/man5/proc_stat.5.html>
    pub const TICKS_PER_SECOND: u64 = 100;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    pub name: String,
    pub major: u32,
    pub minor: u32,
    /// 11 to 17 numbers as `/proc/diskstats` has them: sectors of 512 bytes, milliseconds.
    pub values: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    pub name: String,
    /// The 16 columns of `/proc/net/dev`. None: it stands in `/sys/class/net` only.
    pub values: Option<[u64; 16]>,
    /// As in `up`, `down`, `unknown`. Empty: not told.
    pub state: String,
    pub mtu_bytes: Option<u64>,
    /// Megabits a second; -1: unknown.
    pub speed_mbit: Option<i64>,
    pub carrier: Option<u64>,
    pub carrier_changes: Option<u64>,
    pub nohandler: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filesystem {
    pub device: String,
    pub mountpoint: String,
    pub kind: String,
    pub is_readonly: bool,
    /// None: it cannot be asked.
    pub sizes: Option<Sizes>,
}

/// Bytes and files of a filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sizes {
    pub size: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// Microseconds since boot in which some, and all, of those who wanted to run waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    pub some_us: Option<u64>,
    pub full_us: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uname {
    pub system: String,
    pub node: String,
    pub release: String,
    pub version: String,
    pub machine: String,
    pub domain: String,
}
