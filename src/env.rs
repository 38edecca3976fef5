//! The only wall clock of the program, and the only look at the machine.

use flow::units::UnixNanos;
use std::time::{SystemTime, UNIX_EPOCH};

pub fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixNanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Nanoseconds since this machine was booted: never set, and the same clock in every run until the next boot.
pub fn since_boot() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static ANCHOR: OnceLock<(Instant, u64)> = OnceLock::new();
    let (at, nanos) = ANCHOR.get_or_init(|| {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        (Instant::now(), (seconds * 1e9) as u64)
    });
    nanos.saturating_add(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Another for each boot; empty where the system does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The machine's name.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Random bits, another each time; no secret hangs on them.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(now().0)
}

/// The id of a trace.
pub fn random_id() -> [u8; 16] {
    (u128::from(random()) << 64 | u128::from(random())).to_be_bytes()
}

/// Resident memory of this process in bytes; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Lifts the limit on open files to what the system allows: one descriptor per followed file.
pub fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused only where the limit is as high as it can be; then it stays.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Most resident memory this process ever had, in bytes; `None` where the system does not tell.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Sets a file's time of change to now.
pub fn touch(file: &std::fs::File) -> std::io::Result<()> {
    file.set_modified(SystemTime::now())
}

/// When a file was born, in nanoseconds since the epoch; 0 where the file system does not tell.
pub fn born(meta: &std::fs::Metadata) -> i64 {
    let since = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(0))
}

/// How many files this process may have open.
pub fn open_files_limit() -> usize {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}
