//! Control groups: which there are, what each used, and which container or pod it is.
//!
//! In: `/sys/fs/cgroup` of version 2, or the controllers of version 1 beside each other. Out: a [`Cgroup`] for each, sorted by path.
//! The walk goes level by level and not below a container, so what a tenant nests inside its own can hide nobody else's. At most
//! [`GROUPS_MAX`] groups, [`DEPTH_MAX`] deep, with paths of [`PATH_BYTES_MAX`]: more are left out, and the reading says so. A group
//! that goes away while it is read is no fault.

use super::files::{self, ABSENT, Fault, NO_FORM, folders, lines, number, open_folder, words};
use super::reading::{HostReading, Pressure, Request};
use crate::place::{Place, of_path};
use crate::reading::Owner;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub const GROUPS_MAX: usize = 10_000;
pub const DEPTH_MAX: usize = 16;
/// 10,000 of them make 10 MiB.
pub const PATH_BYTES_MAX: usize = 1024;
/// Devices whose transfers are kept, for each group.
const DEVICES_MAX: usize = 64;
/// From here on a limit of version 1 means that there is none: 2^63 - 1 down to whole pages of 64 KiB.
const UNLIMITED: u64 = (1 << 63) - (1 << 16);

/// One group. What it does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// From the root of the hierarchy, which is `/`.
    pub path: String,
    /// Of a pod's own group and of those of its containers; else empty.
    pub pod_uid: String,
    /// Of a container's group; else empty.
    pub container_id: String,
    pub owner: Option<Owner>,
    pub request: Option<Request>,
    pub cpu_us: Option<u64>,
    pub cpu_user_us: Option<u64>,
    pub cpu_system_us: Option<u64>,
    pub periods: Option<u64>,
    pub throttled: Option<u64>,
    pub throttled_us: Option<u64>,
    /// Microseconds of CPU in each period of so many. The first is None: as much as it likes.
    pub quota_us: Option<u64>,
    pub period_us: Option<u64>,
    pub shares: Option<u64>,
    pub memory: Option<u64>,
    pub memory_peak: Option<u64>,
    pub inactive_file: Option<u64>,
    pub cache: Option<u64>,
    pub rss: Option<u64>,
    pub mapped_file: Option<u64>,
    pub swap: Option<u64>,
    /// None: no limit.
    pub memory_max: Option<u64>,
    pub failcnt: Option<u64>,
    pub oom_kills: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub tasks: Option<u64>,
    /// None: no limit.
    pub tasks_max: Option<u64>,
    pub io: Vec<Io>,
    pub cpu_pressure: Pressure,
    pub memory_pressure: Pressure,
    pub io_pressure: Pressure,
}

/// What a group read from and wrote to one device since the group began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Io {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

impl Cgroup {
    /// Memory that cannot be had back without asking: all but what lies in files and was not touched of late. The kubelet's and
    /// cAdvisor's definition.
    pub fn working_set(&self) -> Option<u64> {
        self.memory.map(|memory| memory.saturating_sub(self.inactive_file.unwrap_or(0)))
    }

    /// It is a pod's or a container's.
    pub fn is_placed(&self) -> bool {
        !self.pod_uid.is_empty() || !self.container_id.is_empty()
    }
}

/// What a group may use; it seldom changes, so the sampler keeps it for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    quota_us: Option<u64>,
    period_us: Option<u64>,
    shares: Option<u64>,
    memory_max: Option<u64>,
    tasks_max: Option<u64>,
}

impl Cgroup {
    fn limits(&self) -> Limits {
        let Cgroup { quota_us, period_us, shares, memory_max, tasks_max, .. } = *self;
        Limits { quota_us, period_us, shares, memory_max, tasks_max }
    }

    fn set_limits(&mut self, limits: &Limits) {
        self.quota_us = limits.quota_us;
        self.period_us = limits.period_us;
        self.shares = limits.shares;
        self.memory_max = limits.memory_max;
        self.tasks_max = limits.tasks_max;
    }
}

/// The hierarchies of a host, opened once for each reading.
struct Roots {
    unified: Option<OwnedFd>,
    cpu: Option<OwnedFd>,
    cpuacct: Option<OwnedFd>,
    memory: Option<OwnedFd>,
    blkio: Option<OwnedFd>,
    pids: Option<OwnedFd>,
}

/// Reads all groups below `sys/fs/cgroup` of `root`.
pub(super) fn read_all(root: BorrowedFd<'_>, bytes: &mut Vec<u8>, limits: &mut HashMap<String, Limits>, reading: &mut HostReading) {
    let top = match open_folder(root, "sys/fs/cgroup") {
        Ok(top) => top,
        Err(ABSENT) => return,
        Err(why) => return reading.fault("cgroup", why),
    };
    let is_unified = files::read_shown(&top, "cgroup.controllers", bytes).is_ok();
    let mut groups = Groups { index: HashMap::new(), bytes, limits, reading };
    if is_unified {
        groups.reading.cgroup_version = 2;
        groups.walk(&top, &mut |groups, folder, at| groups.read_unified(folder, at));
    } else {
        // `cpu` is a link to `cpu,cpuacct` on most hosts, or the other way round.
        let open = |names: &[&str]| names.iter().find_map(|name| open_folder(&top, name).ok());
        let roots = Roots {
            unified: open(&["unified"]),
            cpu: open(&["cpu,cpuacct", "cpuacct,cpu", "cpu"]),
            cpuacct: open(&["cpu,cpuacct", "cpuacct,cpu", "cpuacct"]),
            memory: open(&["memory"]),
            blkio: open(&["blkio"]),
            pids: open(&["pids"]),
        };
        if roots.cpuacct.is_some() || roots.memory.is_some() {
            groups.reading.cgroup_version = 1;
        }
        if let Some(cpuacct) = &roots.cpuacct {
            groups.walk(cpuacct, &mut |groups, folder, at| groups.read_cpuacct(folder, at));
        }
        if let Some(memory) = &roots.memory {
            groups.walk(memory, &mut |groups, folder, at| groups.read_memory(folder, at));
        }
        for at in 0..groups.reading.cgroups.len() {
            groups.read_beside(&roots, at);
        }
    }
    reading.cgroups.sort_by(|a, b| a.path.cmp(&b.path));
}

struct Groups<'a> {
    index: HashMap<String, usize>,
    bytes: &'a mut Vec<u8>,
    limits: &'a mut HashMap<String, Limits>,
    reading: &'a mut HostReading,
}

type Each<'a> = &'a mut dyn FnMut(&mut Groups<'_>, &OwnedFd, usize);

impl Groups<'_> {
    /// Level by level. `each` reads the files of a group's folder.
    fn walk(&mut self, root: &OwnedFd, each: Each<'_>) {
        let mut queue = VecDeque::from([("/".to_owned(), 0)]);
        let mut visited = 0;
        while let Some((path, depth)) = queue.pop_front() {
            let folder = match open_folder(root, below(&path)) {
                Ok(folder) => folder,
                Err(ABSENT) => continue,
                Err(why) => {
                    self.reading.fault(format!("cgroup_folder{}", files::text(path.as_bytes())), why);
                    continue;
                }
            };
            visited += 1;
            let Some((at, is_container)) = self.place(&path) else { break };
            each(self, &folder, at);
            if is_container {
                continue;
            }
            let (names, is_cut) = match folders(&folder) {
                Ok(found) => found,
                Err(ABSENT) => continue,
                Err(why) => {
                    self.reading.fault(format!("cgroup_folder{}", files::text(path.as_bytes())), why);
                    continue;
                }
            };
            self.reading.cgroups_cut |= is_cut || (depth >= DEPTH_MAX && !names.is_empty());
            if depth >= DEPTH_MAX {
                continue;
            }
            for name in names {
                if visited + queue.len() >= GROUPS_MAX || path.len() + name.len() >= PATH_BYTES_MAX {
                    self.reading.cgroups_cut = true;
                    break;
                }
                let parent = if depth == 0 { "" } else { &path };
                queue.push_back((format!("{parent}/{name}"), depth + 1));
            }
        }
    }

    /// Where the group stands, and whether it is a container's. `None`: there are too many.
    fn place(&mut self, path: &str) -> Option<(usize, bool)> {
        if let Some(at) = self.index.get(path) {
            return Some((*at, !self.reading.cgroups[*at].container_id.is_empty()));
        }
        if self.reading.cgroups.len() >= GROUPS_MAX {
            self.reading.cgroups_cut = true;
            return None;
        }
        // What is inside a container's is the container's.
        let Place { pod_uid, container_id } = of_path(path).filter(|(_, ends)| *ends).map(|(place, _)| place).unwrap_or_default();
        let at = self.reading.cgroups.len();
        let is_container = !container_id.is_empty();
        self.reading.cgroups.push(Cgroup { path: path.to_owned(), pod_uid, container_id, ..Cgroup::default() });
        self.index.insert(path.to_owned(), at);
        Some((at, is_container))
    }

    /// Reads one file into the group at `at`; `parse` says whether it understood it.
    fn file(&mut self, folder: impl AsFd, name: &str, at: usize, parse: impl FnOnce(&[u8], &mut Cgroup) -> bool) {
        let why = match files::read_shown(folder, name, self.bytes) {
            Ok(()) if parse(self.bytes, &mut self.reading.cgroups[at]) => return,
            Ok(()) => NO_FORM,
            Err(ABSENT) => return,
            Err(why) => why,
        };
        self.fault(at, name, why);
    }

    fn fault(&mut self, at: usize, name: &str, why: Fault) {
        let path = files::text(self.reading.cgroups[at].path.as_bytes());
        self.reading.fault(format!("cgroup{}/{name}", if path == "/" { "" } else { &path }), why);
    }

    fn read_unified(&mut self, folder: &OwnedFd, at: usize) {
        self.file(folder, "cpu.stat", at, |bytes, group| {
            pairs(bytes, |key, value| match key {
                b"usage_usec" => group.cpu_us = Some(value),
                b"user_usec" => group.cpu_user_us = Some(value),
                b"system_usec" => group.cpu_system_us = Some(value),
                b"nr_periods" => group.periods = Some(value),
                b"nr_throttled" => group.throttled = Some(value),
                b"throttled_usec" => group.throttled_us = Some(value),
                _ => {}
            })
        });
        self.file(folder, "memory.current", at, |bytes, group| put(&mut group.memory, number(bytes)));
        self.file(folder, "memory.stat", at, |bytes, group| {
            pairs(bytes, |key, value| match key {
                b"anon" => group.rss = Some(value),
                b"file" => group.cache = Some(value),
                b"inactive_file" => group.inactive_file = Some(value),
                b"file_mapped" => group.mapped_file = Some(value),
                b"pgfault" => group.page_faults = Some(value),
                b"pgmajfault" => group.major_faults = Some(value),
                _ => {}
            })
        });
        self.file(folder, "memory.peak", at, |bytes, group| put(&mut group.memory_peak, number(bytes)));
        self.file(folder, "memory.swap.current", at, |bytes, group| put(&mut group.swap, number(bytes)));
        self.file(folder, "memory.events", at, |bytes, group| {
            pairs(bytes, |key, value| match key {
                b"max" => group.failcnt = Some(value),
                b"oom_kill" => group.oom_kills = Some(value),
                _ => {}
            })
        });
        self.file(folder, "io.stat", at, |bytes, group| io_stat(bytes, &mut group.io));
        self.file(folder, "pids.current", at, |bytes, group| put(&mut group.tasks, number(bytes)));
        self.read_pressure(folder, at);
        if let Some(kept) = self.limits.get(&self.reading.cgroups[at].path) {
            return self.reading.cgroups[at].set_limits(kept);
        }
        self.file(folder, "memory.max", at, |bytes, group| limit(&mut group.memory_max, bytes));
        self.file(folder, "pids.max", at, |bytes, group| limit(&mut group.tasks_max, bytes));
        self.file(folder, "cpu.max", at, |bytes, group| {
            let mut parts = words(bytes);
            let quota = parts.next().unwrap_or(b"");
            limit(&mut group.quota_us, quota) && put(&mut group.period_us, parts.next().and_then(number))
        });
        self.file(folder, "cpu.weight", at, |bytes, group| {
            // Back to shares as runc does: 1 to 10,000 are 2 to 262,144.
            put(&mut group.shares, number(bytes).map(|weight| 2 + weight.clamp(1, 10_000).saturating_sub(1) * 262_142 / 9_999))
        });
        let group = &self.reading.cgroups[at];
        if self.limits.len() < GROUPS_MAX {
            self.limits.insert(group.path.clone(), group.limits());
        }
    }

    fn read_pressure(&mut self, folder: &OwnedFd, at: usize) {
        self.file(folder, "cpu.pressure", at, |bytes, group| pressure(bytes, &mut group.cpu_pressure));
        self.file(folder, "memory.pressure", at, |bytes, group| pressure(bytes, &mut group.memory_pressure));
        self.file(folder, "io.pressure", at, |bytes, group| pressure(bytes, &mut group.io_pressure));
    }

    fn read_cpuacct(&mut self, folder: &OwnedFd, at: usize) {
        self.file(folder, "cpuacct.usage", at, |bytes, group| put(&mut group.cpu_us, number(bytes).map(|nanos| nanos / 1000)));
        self.file(folder, "cpuacct.stat", at, |bytes, group| {
            pairs(bytes, |key, ticks| match key {
                b"user" => group.cpu_user_us = Some(ticks.saturating_mul(10_000)),
                b"system" => group.cpu_system_us = Some(ticks.saturating_mul(10_000)),
                _ => {}
            })
        });
    }

    fn read_memory(&mut self, folder: &OwnedFd, at: usize) {
        self.file(folder, "memory.usage_in_bytes", at, |bytes, group| put(&mut group.memory, number(bytes)));
        self.file(folder, "memory.stat", at, |bytes, group| {
            pairs(bytes, |key, value| match key {
                b"total_rss" => group.rss = Some(value),
                b"total_cache" => group.cache = Some(value),
                b"total_inactive_file" => group.inactive_file = Some(value),
                b"total_mapped_file" => group.mapped_file = Some(value),
                b"total_swap" => group.swap = Some(value),
                b"total_pgfault" => group.page_faults = Some(value),
                b"total_pgmajfault" => group.major_faults = Some(value),
                _ => {}
            })
        });
        self.file(folder, "memory.max_usage_in_bytes", at, |bytes, group| put(&mut group.memory_peak, number(bytes)));
        self.file(folder, "memory.limit_in_bytes", at, |bytes, group| limit(&mut group.memory_max, bytes));
        self.file(folder, "memory.failcnt", at, |bytes, group| put(&mut group.failcnt, number(bytes)));
        self.file(folder, "memory.oom_control", at, |bytes, group| {
            pairs(bytes, |key, value| {
                if key == b"oom_kill" {
                    group.oom_kills = Some(value);
                }
            })
        });
    }

    /// What the other hierarchies of version 1 say of the same path.
    fn read_beside(&mut self, roots: &Roots, at: usize) {
        let path = self.reading.cgroups[at].path.clone();
        let open = |root: &Option<OwnedFd>| root.as_ref().and_then(|root| open_folder(root, below(&path)).ok());
        if let Some(folder) = open(&roots.cpu) {
            self.file(&folder, "cpu.stat", at, |bytes, group| {
                pairs(bytes, |key, value| match key {
                    b"nr_periods" => group.periods = Some(value),
                    b"nr_throttled" => group.throttled = Some(value),
                    b"throttled_time" => group.throttled_us = Some(value / 1000),
                    _ => {}
                })
            });
            self.file(&folder, "cpu.cfs_quota_us", at, |bytes, group| {
                let quota = bytes.trim_ascii();
                quota == b"-1" || put(&mut group.quota_us, number(quota))
            });
            self.file(&folder, "cpu.cfs_period_us", at, |bytes, group| put(&mut group.period_us, number(bytes)));
            self.file(&folder, "cpu.shares", at, |bytes, group| put(&mut group.shares, number(bytes)));
        }
        if let Some(folder) = open(&roots.blkio) {
            for (recursive, own, is_bytes) in [
                ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes", true),
                ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced", false),
            ] {
                let name = if files::read_shown(&folder, recursive, self.bytes).is_ok() { recursive } else { own };
                self.file(&folder, name, at, |bytes, group| blkio(bytes, is_bytes, &mut group.io));
            }
        }
        if let Some(folder) = open(&roots.pids) {
            self.file(&folder, "pids.current", at, |bytes, group| put(&mut group.tasks, number(bytes)));
            self.file(&folder, "pids.max", at, |bytes, group| limit(&mut group.tasks_max, bytes));
        }
        if let Some(folder) = open(&roots.unified) {
            self.read_pressure(&folder, at);
        }
    }
}

fn below(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    if path.is_empty() { "." } else { path }
}

fn put(to: &mut Option<u64>, value: Option<u64>) -> bool {
    *to = value;
    value.is_some()
}

/// A number, `max`, or the number that version 1 says for it.
fn limit(to: &mut Option<u64>, bytes: &[u8]) -> bool {
    match bytes.trim_ascii() {
        b"max" => true,
        digits => match number(digits) {
            Some(value) => {
                *to = Some(value).filter(|value| *value < UNLIMITED);
                true
            }
            None => false,
        },
    }
}

/// Lines of a name and a number. False: a line of two words is not like that.
fn pairs(bytes: &[u8], mut each: impl FnMut(&[u8], u64)) -> bool {
    let mut is_fine = true;
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(key), Some(value), None) = (words.next(), words.next(), words.next()) else { continue };
        match number(value) {
            Some(value) => each(key, value),
            None => is_fine = false,
        }
    }
    is_fine
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn io_stat(bytes: &[u8], devices: &mut Vec<Io>) -> bool {
    let mut is_fine = true;
    for line in lines(bytes) {
        let mut words = words(line);
        let Some(name) = words.next() else { continue };
        let Some((major, minor)) = device(name) else {
            is_fine = false;
            continue;
        };
        let mut io = Io { major, minor, ..Io::default() };
        for word in words {
            let Some(equals) = word.iter().position(|byte| *byte == b'=') else { continue };
            let Some(value) = number(&word[equals + 1..]) else { continue };
            match &word[..equals] {
                b"rbytes" => io.read_bytes = value,
                b"wbytes" => io.written_bytes = value,
                b"rios" => io.reads = value,
                b"wios" => io.writes = value,
                _ => {}
            }
        }
        if devices.len() < DEVICES_MAX {
            devices.push(io);
        }
    }
    is_fine
}

/// `8:0 Read 4096`, and a line `Total` at the end.
fn blkio(bytes: &[u8], is_bytes: bool, devices: &mut Vec<Io>) -> bool {
    let mut is_fine = true;
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(name), Some(what), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
        let (Some((major, minor)), Some(value)) = (device(name), number(value)) else {
            is_fine = false;
            continue;
        };
        let at = match devices.iter().position(|io| (io.major, io.minor) == (major, minor)) {
            Some(at) => at,
            None if devices.len() < DEVICES_MAX => {
                devices.push(Io { major, minor, ..Io::default() });
                devices.len() - 1
            }
            None => continue,
        };
        let io = &mut devices[at];
        match (what, is_bytes) {
            (b"Read", true) => io.read_bytes = value,
            (b"Write", true) => io.written_bytes = value,
            (b"Read", false) => io.reads = value,
            (b"Write", false) => io.writes = value,
            _ => {}
        }
    }
    is_fine
}

fn device(name: &[u8]) -> Option<(u32, u32)> {
    let colon = name.iter().position(|byte| *byte == b':')?;
    Some((number(&name[..colon])?.try_into().ok()?, number(&name[colon + 1..])?.try_into().ok()?))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12`
pub(super) fn pressure(bytes: &[u8], to: &mut Pressure) -> bool {
    let mut found = false;
    for line in lines(bytes) {
        let mut words = words(line);
        let kind = words.next().unwrap_or(b"");
        let total = words.find_map(|word| number(word.strip_prefix(b"total=")?));
        match kind {
            b"some" => to.some_us = total,
            b"full" => to.full_us = total,
            _ => continue,
        }
        found |= total.is_some();
    }
    found
}

#[cfg(test)]
mod tests;
