//! A whole host in a folder: what is read, and what is not.

use super::*;
use crate::host::cgroup::Cgroup;

#[test]
fn a_root_without_anything_is_a_reading_full_of_faults() {
    let root = tempfile::tempdir().unwrap();
    let mut sampler = Sampler::new(HostOptions { root: root.path().into(), ..HostOptions::default() });
    let reading = sampler.sample(UnixNanos(5), 7);
    assert_eq!((reading.at_ns, reading.mono_ns, reading.cgroups.len()), (5, 7, 0));
    assert_eq!(reading.faults["stat/proc/stat"], "absent");
    let mut sampler = Sampler::new(HostOptions { root: root.path().join("none"), ..HostOptions::default() });
    assert_eq!(sampler.sample(UnixNanos(5), 7).faults["root"], "absent");
}

#[test]
fn this_machine_is_read() {
    let reading = Sampler::new(HostOptions::default()).sample(UnixNanos(5), 7);
    assert!(!reading.cpus.is_empty() && reading.cpu.is_some() && reading.memory_bytes("MemTotal").is_some(), "{:?}", reading.faults);
    let text = serde_json::to_string(&reading).unwrap();
    assert_eq!(serde_json::from_str::<HostReading>(&text).unwrap(), reading);
}

#[test]
fn what_seldom_changes_is_kept_for_a_while() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("sys/class/net/eth0/operstate");
    std::fs::create_dir_all(state.parent().unwrap()).unwrap();
    let mut sampler = Sampler::new(HostOptions { root: root.path().into(), slow_ns: 10, ..HostOptions::default() });
    let mut look = |text: &str, mono_ns: u64| {
        std::fs::write(&state, text).unwrap();
        sampler.sample(UnixNanos(0), mono_ns).interfaces[0].state.clone()
    };
    assert_eq!(look("up\n", 0), "up");
    assert_eq!(look("down\n", 9), "up");
    assert_eq!(look("down\n", 10), "down");
    let limit = root.path().join("sys/fs/cgroup/a/memory.max");
    std::fs::create_dir_all(limit.parent().unwrap()).unwrap();
    std::fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "memory\n").unwrap();
    let mut look = |text: &str, mono_ns: u64| {
        std::fs::write(&limit, text).unwrap();
        sampler.sample(UnixNanos(0), mono_ns).cgroups[1].memory_max
    };
    assert_eq!((look("5\n", 11), look("6\n", 19), look("max\n", 20)), (Some(5), Some(5), None));
}

#[test]
fn owners_are_asked_for_groups_of_pods_and_containers_only() {
    let group =
        |path: &str, uid: &str, id: &str| Cgroup { path: path.into(), pod_uid: uid.into(), container_id: id.into(), ..Cgroup::default() };
    let mut reading =
        HostReading { cgroups: vec![group("/", "", ""), group("/p", "u", ""), group("/p/c", "u", "c")], ..HostReading::default() };
    let asked = std::cell::RefCell::new(Vec::new());
    reading.own(
        &|uid, id| {
            asked.borrow_mut().push(format!("{uid}/{id}"));
            None
        },
        &|_, _| Some(crate::host::Request { millicores: 5, memory_bytes: 6 }),
    );
    assert_eq!(asked.into_inner(), ["u/", "u/c"]);
    assert_eq!((reading.cgroups[0].request, reading.cgroups[2].request.map(|request| request.millicores)), (None, Some(5)));
}
