//! Looks at the host: opens files below a root, has them read, and keeps what seldom changes for a while.
//!
//! One sample reads `/proc` and every group once. Sizes of filesystems, `/sys/class/net` (whose `speed` takes the kernel's network
//! lock), names and the limits of groups are read every [`HostOptions::slow_ns`], and repeated between. Filesystems of other machines are not asked for
//! their sizes unless [`HostOptions::remote_filesystems`] says so: a server that is away would hold the sampler.

use super::cgroup::Limits;
use super::files::{self, ABSENT, Fault, NO_FORM, number, open_root};
use super::reading::{Filesystem, HostReading, Interface, Sizes, Uname};
use super::{cgroup, proc};
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Interfaces whose settings are read.
const CLASSES_MAX: usize = 512;

#[derive(Clone, Debug)]
pub struct HostOptions {
    /// `/`, or where the host's own root is mounted.
    pub root: PathBuf,
    /// Read control groups.
    pub cgroups: bool,
    /// Ask filesystems of other machines (NFS, SMB, Ceph, FUSE) for their sizes too.
    pub remote_filesystems: bool,
    /// How long what seldom changes is kept, in nanoseconds by the monotonic clock.
    pub slow_ns: u64,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions { root: "/".into(), cgroups: true, remote_filesystems: false, slow_ns: 10 * NANOS_PER_SECOND as u64 }
    }
}

pub struct Sampler {
    options: HostOptions,
    bytes: Vec<u8>,
    slow: Slow,
    /// Of groups, by path.
    limits: HashMap<String, Limits>,
}

/// What is kept between samples.
#[derive(Default)]
struct Slow {
    read_at: Option<u64>,
    filesystems: Vec<Filesystem>,
    classes: Vec<Interface>,
    uname: Option<Uname>,
    faults: Vec<(String, Fault)>,
}

impl Sampler {
    pub fn new(options: HostOptions) -> Sampler {
        Sampler { options, bytes: Vec::new(), slow: Slow::default(), limits: HashMap::new() }
    }

    /// Looks once. `at`, `mono_ns`: now, by the wall clock and by the monotonic one.
    pub fn sample(&mut self, at: UnixNanos, mono_ns: u64) -> HostReading {
        let mut reading = HostReading { at_ns: at.0, mono_ns, ..HostReading::default() };
        let root = match open_root(&self.options.root) {
            Ok(root) => root,
            Err(why) => {
                reading.fault("root", why);
                return reading;
            }
        };
        self.read_proc(&root, &mut reading);
        let is_due = self.slow.read_at.is_none_or(|then| mono_ns < then || mono_ns - then >= self.options.slow_ns);
        if is_due {
            self.slow = self.read_slow(&root);
            self.slow.read_at = Some(mono_ns);
        }
        self.put_slow(&mut reading);
        if self.options.cgroups {
            if is_due {
                self.limits.clear();
            }
            cgroup::read_all(root.as_fd(), &mut self.bytes, &mut self.limits, &mut reading);
        }
        reading
    }

    fn read_proc(&mut self, root: &OwnedFd, reading: &mut HostReading) {
        let mut file = |what: &str, path: &str, parse: &mut dyn FnMut(&[u8], &mut HostReading) -> bool| {
            let why = match files::read(root, path, &mut self.bytes) {
                Ok(()) if parse(&self.bytes, reading) => return,
                Ok(()) => NO_FORM,
                Err(why) => why,
            };
            reading.fault(format!("{what}/{path}"), why);
        };
        file("stat", "proc/stat", &mut proc::stat);
        file("meminfo", "proc/meminfo", &mut proc::meminfo);
        file("diskstats", "proc/diskstats", &mut proc::diskstats);
        file("vmstat", "proc/vmstat", &mut proc::vmstat);
        file("loadavg", "proc/loadavg", &mut |bytes, reading| put(&mut reading.load, proc::loadavg(bytes)));
        file("uptime", "proc/uptime", &mut |bytes, reading| put(&mut reading.uptime_ms, proc::uptime_ms(bytes)));
        file("filefd", "proc/sys/fs/file-nr", &mut |bytes, reading| put(&mut reading.files, proc::file_nr(bytes)));
        // The network that process 1 sees is the host's, even where we have one of our own.
        let net = if rustix::fs::statat(root, "proc/1/net/dev", rustix::fs::AtFlags::empty()).is_ok() {
            "proc/1/net/dev"
        } else {
            "proc/net/dev"
        };
        file("netdev", net, &mut proc::net_dev);
        if files::read(root, "proc/sys/kernel/random/boot_id", &mut self.bytes).is_ok() {
            reading.boot_id = files::text(self.bytes.trim_ascii());
        }
        for resource in ["cpu", "io", "memory", "irq"] {
            // A kernel without them, or one before 6.1 without `irq`, is no fault.
            match files::read(root, &format!("proc/pressure/{resource}"), &mut self.bytes) {
                Ok(()) => match proc::pressures(&self.bytes) {
                    Some(found) => drop(reading.pressure.insert(resource.into(), found)),
                    None => reading.fault(format!("pressure/{resource}"), NO_FORM),
                },
                Err(ABSENT) => {}
                Err(why) => reading.fault(format!("pressure/{resource}"), why),
            }
        }
    }

    fn read_slow(&mut self, root: &OwnedFd) -> Slow {
        let mut slow = Slow::default();
        self.read_filesystems(root, &mut slow);
        self.read_classes(root, &mut slow);
        let mut word = |name: &str| {
            let is_read = files::read(root, &format!("proc/sys/kernel/{name}"), &mut self.bytes).is_ok();
            is_read.then(|| files::text(self.bytes.trim_ascii()))
        };
        slow.uname = word("osrelease").map(|release| Uname {
            release,
            system: word("ostype").unwrap_or_default(),
            node: word("hostname").unwrap_or_default(),
            version: word("version").unwrap_or_default(),
            machine: word("arch").unwrap_or_else(|| std::env::consts::ARCH.into()), // `arch` is there since Linux 6.1
            domain: word("domainname").unwrap_or_default(),
        });
        slow
    }

    fn read_filesystems(&mut self, root: &OwnedFd, slow: &mut Slow) {
        let paths = ["proc/1/mounts", "proc/self/mounts", "proc/mounts"];
        let mut why = ABSENT;
        let is_read = paths.iter().any(|path| match files::read(root, path, &mut self.bytes) {
            Ok(()) => true,
            Err(fault) => {
                why = fault;
                false
            }
        });
        if !is_read {
            return slow.faults.push(("filesystem/proc/mounts".into(), why));
        }
        for mount in proc::mounts(&self.bytes) {
            if proc::is_remote(&mount.kind) && !self.options.remote_filesystems {
                continue;
            }
            let path = self.options.root.join(mount.mountpoint.trim_start_matches('/'));
            let sizes = rustix::fs::statvfs(&path).ok().map(|found| Sizes {
                size: found.f_blocks.saturating_mul(found.f_frsize),
                free: found.f_bfree.saturating_mul(found.f_frsize),
                available: found.f_bavail.saturating_mul(found.f_frsize),
                files: found.f_files,
                files_free: found.f_ffree,
            });
            slow.filesystems.push(Filesystem {
                device: mount.device,
                mountpoint: mount.mountpoint,
                kind: mount.kind,
                is_readonly: mount.is_readonly,
                sizes,
            });
        }
    }

    fn read_classes(&mut self, root: &OwnedFd, slow: &mut Slow) {
        let names = match files::open_folder(root, "sys/class/net").and_then(files::entries) {
            Ok((names, _)) => names,
            Err(ABSENT) => return,
            Err(why) => return slow.faults.push(("netclass/sys/class/net".into(), why)),
        };
        for name in names.into_iter().take(CLASSES_MAX) {
            let read = |file: &str, bytes: &mut Vec<u8>| files::read(root, &format!("sys/class/net/{name}/{file}"), bytes).is_ok();
            if !read("operstate", &mut self.bytes) {
                continue; // a file of the bonding driver, or gone
            }
            let state = files::text(self.bytes.trim_ascii());
            let mut count = |file: &str| read(file, &mut self.bytes).then(|| number(&self.bytes)).flatten();
            let mut interface = Interface {
                state,
                mtu_bytes: count("mtu"),
                carrier: count("carrier"),
                carrier_changes: count("carrier_changes"),
                nohandler: count("statistics/rx_nohandler"),
                ..Interface::default()
            };
            if read("speed", &mut self.bytes) {
                let words = std::str::from_utf8(self.bytes.trim_ascii()).ok();
                interface.speed_mbit = words.and_then(|text| text.parse().ok());
            }
            interface.name = name;
            slow.classes.push(interface);
        }
    }

    fn put_slow(&self, reading: &mut HostReading) {
        reading.filesystems = self.slow.filesystems.clone();
        reading.uname = self.slow.uname.clone();
        let at: HashMap<String, usize> =
            reading.interfaces.iter().enumerate().map(|(at, interface)| (interface.name.clone(), at)).collect();
        for class in &self.slow.classes {
            match at.get(&class.name) {
                Some(at) => {
                    let known = &mut reading.interfaces[*at];
                    *known = Interface { values: known.values, ..class.clone() };
                }
                None => reading.interfaces.push(class.clone()),
            }
        }
        for (what, why) in &self.slow.faults {
            reading.fault(what.clone(), why);
        }
    }
}

fn put<T>(to: &mut Option<T>, value: Option<T>) -> bool {
    *to = value;
    to.is_some()
}

#[cfg(test)]
mod tests;
