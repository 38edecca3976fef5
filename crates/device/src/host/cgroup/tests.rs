//! Control groups from files to readings: both versions, hostile trees, bounds.

use super::*;
use crate::host::{HostOptions, Sampler};
use flow::units::UnixNanos;
use proptest::prelude::*;
use std::path::Path;

const ID: &str = "3f1c0000000000000000000000000000000000000000000000000000000000aa";
const UID: &str = "0f2c1b7e-1111-4222-8333-abcdefabcdef";

pub fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn sample(root: &Path) -> HostReading {
    Sampler::new(HostOptions { root: root.into(), ..HostOptions::default() }).sample(UnixNanos(1), 1)
}

#[test]
fn groups_of_version_2_tell_what_they_used() {
    let root = tempfile::tempdir().unwrap();
    let base = "sys/fs/cgroup";
    let pod = format!("{base}/kubepods/burstable/pod{UID}");
    put(root.path(), &format!("{base}/cgroup.controllers"), "cpu io memory pids\n");
    put(root.path(), &format!("{pod}/cpu.stat"), "usage_usec 9000\nuser_usec 8000\nsystem_usec 1000\n");
    for (name, text) in [
        ("cpu.stat", "usage_usec 7000\nuser_usec 6000\nsystem_usec 1000\nnr_periods 10\nnr_throttled 2\nthrottled_usec 5000\n"),
        ("memory.current", "104857600\n"),
        ("memory.stat", "anon 50000000\nfile 40000000\ninactive_file 4857600\nfile_mapped 3\npgfault 7\npgmajfault 1\n"),
        ("memory.max", "max\n"),
        ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1 \n"),
        ("pids.current", "3\n"),
        ("pids.max", "100\n"),
        ("cpu.max", "200000 100000\n"),
        ("cpu.weight", "100\n"),
        ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
        ("nested/cpu.stat", "usage_usec 1\n"),
    ] {
        put(root.path(), &format!("{pod}/{ID}/{name}"), text);
    }
    let reading = sample(root.path());
    assert_eq!(reading.cgroup_version, 2);
    let paths: Vec<&str> = reading.cgroups.iter().map(|group| group.path.as_str()).collect();
    let container = format!("/kubepods/burstable/pod{UID}/{ID}");
    assert_eq!(paths, ["/", "/kubepods", "/kubepods/burstable", &container[..container.len() - 65], &container]);
    let io =
        vec![Io { major: 8, minor: 0, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 }, Io { major: 253, minor: 1, ..Io::default() }];
    let want = Cgroup {
        path: container.clone(),
        pod_uid: UID.into(),
        container_id: ID.into(),
        cpu_us: Some(7000),
        cpu_user_us: Some(6000),
        cpu_system_us: Some(1000),
        periods: Some(10),
        throttled: Some(2),
        throttled_us: Some(5000),
        quota_us: Some(200_000),
        period_us: Some(100_000),
        shares: Some(2597),
        memory: Some(104_857_600),
        inactive_file: Some(4_857_600),
        cache: Some(40_000_000),
        rss: Some(50_000_000),
        mapped_file: Some(3),
        failcnt: Some(4),
        oom_kills: Some(1),
        page_faults: Some(7),
        major_faults: Some(1),
        tasks: Some(3),
        tasks_max: Some(100),
        io,
        cpu_pressure: Pressure { some_us: Some(11), full_us: Some(5) },
        ..Cgroup::default()
    };
    assert_eq!(reading.cgroups[4], want);
    assert_eq!(reading.cgroups[4].working_set(), Some(100_000_000));
    assert!(!reading.faults.keys().any(|what| what.starts_with("cgroup")), "{:?}", reading.faults);
}

#[test]
fn controllers_of_version_1_are_joined_by_path() {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join("sys/fs/cgroup");
    let group = format!("kubepods/pod{UID}/{ID}");
    for (name, text) in [
        ("cpu,cpuacct/GROUP/cpuacct.usage", "7000999\n"),
        ("cpu,cpuacct/GROUP/cpuacct.stat", "user 5\nsystem 2\n"),
        ("cpu,cpuacct/GROUP/cpu.stat", "nr_periods 10\nnr_throttled 2\nthrottled_time 5000000\n"),
        ("cpu,cpuacct/GROUP/cpu.cfs_quota_us", "-1\n"),
        ("cpu,cpuacct/GROUP/cpu.cfs_period_us", "100000\n"),
        ("cpu,cpuacct/GROUP/cpu.shares", "512\n"),
        ("memory/GROUP/memory.usage_in_bytes", "104857600\n"),
        ("memory/GROUP/memory.stat", "cache 1\ntotal_cache 40000000\ntotal_rss 50000000\ntotal_inactive_file 4857600\n"),
        ("memory/GROUP/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/only/memory.usage_in_bytes", "5\n"),
        ("blkio/GROUP/blkio.throttle.io_service_bytes", "8:0 Read 1\n8:0 Write 2\n8:0 Sync 0\n8:0 Total 3\nTotal 3\n"),
        ("blkio/GROUP/blkio.throttle.io_serviced", "8:0 Read 3\n8:0 Write 4\nTotal 7\n"),
        ("pids/GROUP/pids.current", "3\n"),
        ("pids/GROUP/pids.max", "max\n"),
    ] {
        put(&base, &name.replace("GROUP", &group), text);
    }
    std::os::unix::fs::symlink("cpu,cpuacct", base.join("cpu")).unwrap();
    let reading = sample(root.path());
    assert_eq!(reading.cgroup_version, 1);
    let find = |path: &str| reading.cgroups.iter().find(|group| group.path == path).unwrap();
    let found = find(&format!("/{group}"));
    assert_eq!((found.cpu_us, found.cpu_user_us, found.throttled_us), (Some(7000), Some(50_000), Some(5000)));
    assert_eq!((found.quota_us, found.period_us, found.shares), (None, Some(100_000), Some(512)));
    assert_eq!((found.working_set(), found.memory_max, found.cache), (Some(100_000_000), None, Some(40_000_000)));
    assert_eq!(found.io, [Io { major: 8, minor: 0, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 }]);
    assert_eq!((found.tasks, found.tasks_max), (Some(3), None));
    assert_eq!((find("/only").memory, find("/only").cpu_us), (Some(5), None));
}

#[test]
fn one_bad_file_is_a_fault_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "sys/fs/cgroup/cgroup.controllers", "cpu\n");
    put(root.path(), "sys/fs/cgroup/a/cpu.stat", "usage_usec many\nuser_usec 5\n");
    put(root.path(), "sys/fs/cgroup/a/memory.current", "-5\n");
    put(root.path(), "sys/fs/cgroup/a/pids.current", "99999999999999999999999\n");
    put(root.path(), "sys/fs/cgroup/a/memory.stat", &"x".repeat(files::FILE_BYTES_MAX + 1));
    put(root.path(), "sys/fs/cgroup/b/cpu.stat", "usage_usec 5\n");
    std::os::unix::fs::symlink("/", root.path().join("sys/fs/cgroup/link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.path().join("sys/fs/cgroup/b/memory.current")).unwrap();
    let reading = sample(root.path());
    let faults: Vec<(&str, &str)> =
        reading.faults.iter().filter(|(what, _)| what.starts_with("cgroup")).map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        faults,
        [
            ("cgroup/a/cpu.stat", "no_form"),
            ("cgroup/a/memory.current", "no_form"),
            ("cgroup/a/memory.stat", "too_long"),
            ("cgroup/a/pids.current", "no_form"),
            ("cgroup/b/memory.current", "link"),
        ]
    );
    assert_eq!(reading.cgroups.len(), 3);
    assert_eq!((reading.cgroups[1].cpu_us, reading.cgroups[1].cpu_user_us), (None, Some(5)));
    assert_eq!(reading.cgroups[2].cpu_us, Some(5));
}

#[test]
fn a_walk_ends_and_says_that_there_is_more() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "sys/fs/cgroup/cgroup.controllers", "cpu\n");
    let deep = "d/".repeat(DEPTH_MAX + 3);
    std::fs::create_dir_all(root.path().join("sys/fs/cgroup").join(deep)).unwrap();
    let reading = sample(root.path());
    assert_eq!(reading.cgroups.len(), DEPTH_MAX + 1);
    assert!(reading.cgroups_cut);
    if std::env::var_os("SLOW").is_none() {
        return; // 10,000 folders
    }
    for n in 0..GROUPS_MAX + 5 {
        std::fs::create_dir(root.path().join(format!("sys/fs/cgroup/g{n}"))).unwrap();
    }
    let reading = sample(root.path());
    assert_eq!(reading.cgroups.len(), GROUPS_MAX);
    assert!(reading.cgroups_cut);
}

proptest! {
    #[test]
    fn no_path_and_no_text_stops_the_program(text in "[\\PC/\\n :.podkubes0-9a-f=-]{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = of_path(&text);
        for bytes in [text.as_bytes(), &bytes] {
            let mut group = Cgroup::default();
            pairs(bytes, |_, _| {});
            io_stat(bytes, &mut group.io);
            blkio(bytes, true, &mut group.io);
            pressure(bytes, &mut group.cpu_pressure);
            limit(&mut group.memory_max, bytes);
        }
    }
}
