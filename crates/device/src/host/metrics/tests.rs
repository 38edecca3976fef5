//! Readings of a host to metrics, line by line.

use super::*;
use crate::host::cgroup::Io;
use crate::host::reading::{Disk, Filesystem, Interface, Request};
use crate::reading::Owner;
use expect_test::{Expect, expect};

#[track_caller]
fn check(reading: &HostReading, start: &str, want: Expect) {
    let mut out = Vec::new();
    metrics(reading, &mut out);
    let text = String::from_utf8(out).unwrap();
    let mut lines = String::new();
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        if value["metric"].as_str().unwrap().starts_with(start) {
            lines.push_str(&line.replace(r#","timestamp":"1970-01-01T00:00:01Z""#, ""));
            lines.push('\n');
        }
    }
    want.assert_eq(&lines);
}

fn reading() -> HostReading {
    HostReading {
        at_ns: 1_000_000_000,
        cpus: vec![Cpu { number: 3, ticks: [150, 2, 3, 40, 5, 0, 6, 7, 8, 9] }],
        disks: vec![
            Disk { name: "sda".into(), major: 8, minor: 0, values: vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] },
            Disk { name: "sda1".into(), major: 8, minor: 1, values: vec![1; 11] },
        ],
        interfaces: vec![Interface { name: "eth0".into(), state: "up".into(), speed_mbit: Some(-1), ..Interface::default() }],
        filesystems: vec![Filesystem { device: "/dev/sda1".into(), mountpoint: "/".into(), kind: "ext4".into(), ..Filesystem::default() }],
        cgroups: vec![Cgroup {
            path: "/kubepods/podu/c".into(),
            pod_uid: "u".into(),
            container_id: "c".into(),
            owner: Some(Owner { namespace: "ns".into(), pod: "po\"d".into(), container: "app".into(), ..Owner::default() }),
            request: Some(Request::default()),
            cpu_us: Some(1_500_000),
            memory: Some(100),
            inactive_file: Some(130),
            page_faults: Some(4),
            io: vec![Io { major: 8, minor: 0, read_bytes: 512, ..Io::default() }],
            ..Cgroup::default()
        }],
        ..HostReading::default()
    }
}

#[test]
fn guests_are_told_apart_and_not_twice() {
    check(
        &reading(),
        "node_cpu",
        expect![[r#"
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"user"},"value":1.5}
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"nice"},"value":0.02}
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"system"},"value":0.03}
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"idle"},"value":0.4}
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"iowait"},"value":0.05}
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"irq"},"value":0.0}
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"softirq"},"value":0.06}
            {"metric":"node_cpu_seconds_total","type":"counter","labels":{"cpu":"3","mode":"steal"},"value":0.07}
            {"metric":"node_cpu_guest_seconds_total","type":"counter","labels":{"cpu":"3","mode":"user"},"value":0.08}
            {"metric":"node_cpu_guest_seconds_total","type":"counter","labels":{"cpu":"3","mode":"nice"},"value":0.09}
        "#]],
    );
}

#[test]
fn disks_count_sectors_of_512_bytes_and_milliseconds() {
    check(
        &reading(),
        "node_disk",
        expect![[r#"
        {"metric":"node_disk_reads_completed_total","type":"counter","labels":{"device":"sda"},"value":1.0}
        {"metric":"node_disk_reads_merged_total","type":"counter","labels":{"device":"sda"},"value":2.0}
        {"metric":"node_disk_read_bytes_total","type":"counter","labels":{"device":"sda"},"value":1536.0}
        {"metric":"node_disk_read_time_seconds_total","type":"counter","labels":{"device":"sda"},"value":0.004}
        {"metric":"node_disk_writes_completed_total","type":"counter","labels":{"device":"sda"},"value":5.0}
        {"metric":"node_disk_writes_merged_total","type":"counter","labels":{"device":"sda"},"value":6.0}
        {"metric":"node_disk_written_bytes_total","type":"counter","labels":{"device":"sda"},"value":3584.0}
        {"metric":"node_disk_write_time_seconds_total","type":"counter","labels":{"device":"sda"},"value":0.008}
        {"metric":"node_disk_io_now","type":"gauge","labels":{"device":"sda"},"value":9.0}
        {"metric":"node_disk_io_time_seconds_total","type":"counter","labels":{"device":"sda"},"value":0.01}
        {"metric":"node_disk_io_time_weighted_seconds_total","type":"counter","labels":{"device":"sda"},"value":0.011}
    "#]],
    );
}

#[test]
fn interfaces_and_filesystems_tell_what_is_known() {
    check(
        &reading(),
        "node_network",
        expect![[r#"
        {"metric":"node_network_up","type":"gauge","labels":{"device":"eth0"},"value":1.0}
        {"metric":"node_network_speed_bytes","type":"gauge","labels":{"device":"eth0"},"value":-125000.0}
    "#]],
    );
    check(
        &reading(),
        "node_filesystem",
        expect![[r#"
        {"metric":"node_filesystem_device_error","type":"gauge","labels":{"device":"/dev/sda1","fstype":"ext4","mountpoint":"/"},"value":1.0}
        {"metric":"node_filesystem_readonly","type":"gauge","labels":{"device":"/dev/sda1","fstype":"ext4","mountpoint":"/"},"value":0.0}
    "#]],
    );
}

#[test]
fn groups_have_the_names_and_labels_of_cadvisor() {
    check(
        &reading(),
        "container_",
        expect![[r#"
        {"metric":"container_memory_usage_bytes","type":"gauge","labels":{"container":"app","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":100.0}
        {"metric":"container_memory_working_set_bytes","type":"gauge","labels":{"container":"app","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":0.0}
        {"metric":"container_spec_memory_limit_bytes","type":"gauge","labels":{"container":"app","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":0.0}
        {"metric":"container_cpu_usage_seconds_total","type":"counter","labels":{"container":"app","cpu":"total","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":1.5}
        {"metric":"container_memory_failures_total","type":"counter","labels":{"container":"app","failure_type":"pgfault","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d","scope":"hierarchy"},"value":4.0}
        {"metric":"container_fs_reads_bytes_total","type":"counter","labels":{"container":"app","device":"/dev/sda","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":512.0}
        {"metric":"container_fs_reads_total","type":"counter","labels":{"container":"app","device":"/dev/sda","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":0.0}
        {"metric":"container_fs_writes_bytes_total","type":"counter","labels":{"container":"app","device":"/dev/sda","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":0.0}
        {"metric":"container_fs_writes_total","type":"counter","labels":{"container":"app","device":"/dev/sda","id":"/kubepods/podu/c","namespace":"ns","pod":"po\"d"},"value":0.0}
    "#]],
    );
}
