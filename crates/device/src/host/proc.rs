//! Reads the texts of `/proc`: bytes in, fields of a [`HostReading`] out. Each says whether it understood; a line that it does not
//! understand takes no other with it.

use super::cgroup::pressure;
use super::files::{lines, number, text, words};
use super::reading::{Cpu, Disk, HostReading, Interface, Pressure};

/// Processors, disks, interfaces and lines of `/proc/meminfo` that are kept; a fault says where there are more.
pub const CPUS_MAX: usize = 8192;
pub const DISKS_MAX: usize = 4096;
pub const INTERFACES_MAX: usize = 4096;
const MEMORY_LINES_MAX: usize = 256;

/// `/proc/stat`
pub fn stat(bytes: &[u8], reading: &mut HostReading) -> bool {
    let mut is_fine = true;
    for line in lines(bytes) {
        let mut words = words(line);
        let key = words.next().unwrap_or(b"");
        let one = match key {
            b"intr" => &mut reading.interrupts,
            b"ctxt" => &mut reading.context_switches,
            b"btime" => &mut reading.boot_time,
            b"processes" => &mut reading.forks,
            b"procs_running" => &mut reading.running,
            b"procs_blocked" => &mut reading.blocked,
            b"cpu" => {
                reading.cpu = ticks(words);
                is_fine &= reading.cpu.is_some();
                continue;
            }
            key => {
                if let Some(name) = key.strip_prefix(b"cpu") {
                    match (number(name).and_then(|number| number.try_into().ok()), ticks(words)) {
                        (Some(number), Some(ticks)) if reading.cpus.len() < CPUS_MAX => reading.cpus.push(Cpu { number, ticks }),
                        _ => is_fine = false,
                    }
                }
                continue;
            }
        };
        *one = words.next().and_then(number);
        is_fine &= one.is_some();
    }
    is_fine && reading.cpu.is_some()
}

/// At least 4, as Linux 2.4 had them; what a kernel does not have is 0.
fn ticks<'a>(words: impl Iterator<Item = &'a [u8]>) -> Option<[u64; 10]> {
    let mut ticks = [0; 10];
    let mut n = 0;
    for (to, word) in ticks.iter_mut().zip(words) {
        *to = number(word)?;
        n += 1;
    }
    (n >= 4).then_some(ticks)
}

/// `/proc/meminfo`: `MemTotal:  24683656 kB`, `HugePages_Total:  0`. `Active(anon)` is named `Active_anon`, as node_exporter does.
pub fn meminfo(bytes: &[u8], reading: &mut HostReading) -> bool {
    let mut is_fine = true;
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let is_bytes = words.next() == Some(b"kB");
        let value = number(value).and_then(|value| if is_bytes { value.checked_mul(1024) } else { Some(value) });
        let (Some(name), Some(value)) = (memory_name(key), value) else {
            is_fine = false;
            continue;
        };
        if reading.memory.len() < MEMORY_LINES_MAX {
            reading.memory.insert(name, (value, is_bytes));
        }
    }
    is_fine && !reading.memory.is_empty()
}

fn memory_name(key: &[u8]) -> Option<String> {
    let key = key.strip_suffix(b":")?;
    let name: String = match key.strip_suffix(b")") {
        Some(inside) => String::from_utf8(inside.to_vec()).ok()?.replacen('(', "_", 1),
        None => String::from_utf8(key.to_vec()).ok()?,
    };
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some(name)
}

/// `/proc/loadavg`
pub fn loadavg(bytes: &[u8]) -> Option<[f64; 3]> {
    let mut load = [0.0; 3];
    let mut words = words(bytes);
    for to in &mut load {
        let value: f64 = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        *to = Some(value).filter(|value| value.is_finite() && *value >= 0.0)?;
    }
    Some(load)
}

/// `/proc/uptime`: seconds with two digits after the point.
pub fn uptime_ms(bytes: &[u8]) -> Option<u64> {
    let word = words(bytes).next()?;
    let (whole, fraction) = match word.iter().position(|byte| *byte == b'.') {
        Some(at) => (&word[..at], number(&word[at + 1..]).filter(|_| word.len() - at == 3)?),
        None => (word, 0),
    };
    number(whole)?.checked_mul(1000)?.checked_add(fraction * 10)
}

/// `/proc/pressure/*`
pub fn pressures(bytes: &[u8]) -> Option<Pressure> {
    let mut found = Pressure::default();
    pressure(bytes, &mut found).then_some(found)
}

/// `/proc/vmstat`, what node_exporter keeps of it by default: `^(oom_kill|pgpg|pswp|pg.*fault).*`.
pub fn vmstat(bytes: &[u8], reading: &mut HostReading) -> bool {
    let mut is_fine = true;
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let Ok(name) = std::str::from_utf8(key) else { continue };
        let is_wanted = ["oom_kill", "pgpg", "pswp"].iter().any(|start| name.starts_with(start))
            || name.strip_prefix("pg").is_some_and(|rest| rest.contains("fault"));
        if !is_wanted || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        match number(value) {
            Some(value) if reading.vmstat.len() < 64 => drop(reading.vmstat.insert(name.to_owned(), value)),
            _ => is_fine = false,
        }
    }
    is_fine
}

/// `/proc/sys/fs/file-nr`: open, free, most.
pub fn file_nr(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut words = words(bytes);
    Some((number(words.next()?)?, number(words.nth(1)?)?))
}

/// `/proc/diskstats`
pub fn diskstats(bytes: &[u8], reading: &mut HostReading) -> bool {
    let mut is_fine = true;
    for line in lines(bytes) {
        let mut words = words(line);
        let Some(major) = words.next() else { continue };
        let disk = (|| {
            let major = number(major)?.try_into().ok()?;
            let minor = number(words.next()?)?.try_into().ok()?;
            let name = text(words.next()?);
            let values = words.take(17).map(number).collect::<Option<Vec<u64>>>()?;
            (values.len() >= 11).then_some(Disk { name, major, minor, values })
        })();
        match disk {
            Some(disk) if reading.disks.len() < DISKS_MAX => reading.disks.push(disk),
            _ => is_fine = false,
        }
    }
    is_fine
}

/// Whether node_exporter leaves a disk out by default: `^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`.
pub fn is_part(name: &str) -> bool {
    let head = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if head.len() == name.len() {
        return false;
    }
    if matches!(head, "ram" | "zram" | "loop" | "fd") {
        return true;
    }
    let letters = ["hd", "sd", "xvd", "vd"].iter().find_map(|start| head.strip_prefix(start));
    if letters.is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_lowercase())) {
        return true;
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let nvme = head.strip_prefix("nvme").and_then(|rest| rest.strip_suffix('p')).and_then(|rest| rest.split_once('n'));
    nvme.is_some_and(|(controller, namespace)| is_number(controller) && is_number(namespace))
}

/// `/proc/net/dev`: two lines of heads, then `eth0: 1 2 …` with 16 numbers; the first may stand close to the colon.
pub fn net_dev(bytes: &[u8], reading: &mut HostReading) -> bool {
    let mut is_fine = true;
    for line in lines(bytes).skip(2).filter(|line| !line.trim_ascii().is_empty()) {
        let interface = (|| {
            let colon = line.iter().rposition(|byte| *byte == b':')?;
            let mut values = [0; 16];
            let mut words = words(&line[colon + 1..]);
            for to in &mut values {
                *to = number(words.next()?)?;
            }
            Some(Interface { name: text(line[..colon].trim_ascii()), values: Some(values), ..Interface::default() })
        })();
        match interface {
            Some(interface) if reading.interfaces.len() < INTERFACES_MAX => reading.interfaces.push(interface),
            _ => is_fine = false,
        }
    }
    is_fine
}

/// A mount of `/proc/mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub device: String,
    pub mountpoint: String,
    pub kind: String,
    pub is_readonly: bool,
}

pub const MOUNTS_MAX: usize = 1024;

/// `/proc/mounts`, without what node_exporter leaves out by default, each device and place once.
pub fn mounts(bytes: &[u8]) -> Vec<Mount> {
    let mut found = Vec::new();
    for line in lines(bytes) {
        let mut words = words(line);
        let (Some(device), Some(place), Some(kind), options) = (words.next(), words.next(), words.next(), words.next()) else {
            continue;
        };
        let (Some(mountpoint), Some(device)) = (octal(place), octal(device)) else { continue };
        let kind = text(kind);
        if is_left_out_kind(&kind) || is_left_out_place(&mountpoint) || found.len() >= MOUNTS_MAX {
            continue;
        }
        let is_readonly = options.is_some_and(|options| options.split(|byte| *byte == b',').any(|option| option == b"ro"));
        found.push(Mount { device, mountpoint, kind, is_readonly });
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|mount| seen.insert((mount.device.clone(), mount.mountpoint.clone())));
    found
}

/// `\040` is a blank, `\011` a tab, `\012` a line's end and `\134` a backslash. `None`: no text, or longer than a label should be.
fn octal(word: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).ok().filter(|text| text.len() <= 1024)
}

fn is_left_out_kind(kind: &str) -> bool {
    const KINDS: [&str; 26] = [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "fusectl",
        "hugetlbfs",
        "iso9660",
        "mqueue",
        "nsfs",
        "overlay",
        "proc",
        "procfs",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "squashfs",
        "erofs",
        "sysfs",
        "tracefs",
        "autofs4",
    ];
    KINDS.contains(&kind)
}

/// Filesystems whose server may never answer; asking one for its size can hang for as long.
pub fn is_remote(kind: &str) -> bool {
    const KINDS: [&str; 12] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "lustre", "afs", "gfs2", "ocfs2", "beegfs"];
    KINDS.contains(&kind) || kind.starts_with("fuse")
}

/// `^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`
fn is_left_out_place(place: &str) -> bool {
    let whole = |start: &str| place.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let within = |start: &str| place.strip_prefix(start).is_some_and(|rest| !rest.is_empty());
    whole("/dev")
        || whole("/proc")
        || whole("/sys")
        || within("/run/credentials/")
        || within("/var/lib/docker/")
        || within("/var/lib/containers/storage/")
}

#[cfg(test)]
mod tests;
