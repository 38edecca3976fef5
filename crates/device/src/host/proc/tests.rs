//! Texts of `/proc` to numbers, whatever they hold.

use super::*;
use proptest::prelude::*;

#[test]
fn the_texts_of_proc_are_read() {
    let mut reading = HostReading::default();
    let text = "cpu  10 2 3 40 5 0 6 7 1 1\ncpu0 4 1 1 20 2 0 3 3 1 0\ncpu7 6 1 2 20 3 0 3 4 0 1\nintr 99 1 2 3\nctxt 77\nbtime 1795763705\nprocesses 5\nprocs_running 2\nprocs_blocked 1\nsoftirq 1 2\n";
    assert!(stat(text.as_bytes(), &mut reading));
    assert_eq!(reading.cpu, Some([10, 2, 3, 40, 5, 0, 6, 7, 1, 1]));
    assert_eq!(reading.cpus[1], Cpu { number: 7, ticks: [6, 1, 2, 20, 3, 0, 3, 4, 0, 1] });
    assert_eq!((reading.interrupts, reading.context_switches, reading.boot_time), (Some(99), Some(77), Some(1_795_763_705)));
    assert_eq!((reading.forks, reading.running, reading.blocked), (Some(5), Some(2), Some(1)));

    assert!(meminfo(b"MemTotal:   100 kB\nActive(anon):  5 kB\nHugePages_Total:  3\n", &mut reading));
    assert_eq!(reading.memory["Active_anon"], (5120, true));
    assert_eq!(reading.memory["HugePages_Total"], (3, false));
    assert_eq!((reading.memory_bytes("MemTotal"), reading.memory_bytes("HugePages_Total")), (Some(102_400), None));

    assert_eq!(loadavg(b"2.42 2.32 2.10 3/140 99\n"), Some([2.42, 2.32, 2.1]));
    assert_eq!(uptime_ms(b"80123.45 100.00\n"), Some(80_123_450));
    assert_eq!(file_nr(b"687\t0\t2466174\n"), Some((687, 2_466_174)));
    let want = Pressure { some_us: Some(7), full_us: Some(3) };
    assert_eq!(pressures(b"some avg10=0.1 avg60=0.0 avg300=0.0 total=7\nfull avg10=0.0 avg60=0.0 avg300=0.0 total=3\n"), Some(want));

    assert!(vmstat(b"nr_free_pages 5\npgpgin 1\npgfault 2\npgmajfault 3\noom_kill 0\npswpin 4\npgsteal 9\n", &mut reading));
    assert_eq!(reading.vmstat.keys().collect::<Vec<_>>(), ["oom_kill", "pgfault", "pgmajfault", "pgpgin", "pswpin"]);

    assert!(diskstats(b"   8       0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n   8  1 sda1 1 2 3 4 5 6 7 8 9 10 11\n", &mut reading));
    assert_eq!((reading.disks[0].values.len(), reading.disks[1].values.len()), (17, 11));

    let net = "Inter-|   Receive | Transmit\n face |bytes |bytes\n  eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n a:b: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
    assert!(net_dev(net.as_bytes(), &mut reading));
    assert_eq!((reading.interfaces[0].name.as_str(), reading.interfaces[1].name.as_str()), ("eth0", "a:b"));
    assert_eq!(reading.interfaces[0].values.unwrap()[15], 16);
}

#[test]
fn what_is_wrong_takes_no_other_line_with_it() {
    let mut reading = HostReading::default();
    assert!(!stat(b"cpu 1 2 3 x\ncpu0 1 2\ncpu1 1 2 3 4\nctxt -1\nprocesses 9\n", &mut reading));
    assert_eq!((reading.cpu, reading.cpus.len(), reading.context_switches, reading.forks), (None, 1, None, Some(9)));
    assert!(!meminfo(b"MemTotal: 18446744073709551615 kB\nMemFree: 1 kB\na b: 1\n", &mut reading));
    assert_eq!(reading.memory.len(), 1);
    assert!(!diskstats(b"8 0 sda 1 2\n8 1 sdb 1 2 3 4 5 6 7 8 9 10 11\n", &mut reading));
    assert_eq!(reading.disks.len(), 1);
    assert!(!net_dev(b"h\nh\neth0 1 2\nb: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", &mut reading));
    assert_eq!(reading.interfaces.len(), 1);
    for bad in ["", "1 2", "NaN 1 1", "1 2 inf", "-1 0 0"] {
        assert_eq!(loadavg(bad.as_bytes()), None, "{bad}");
    }
    for bad in ["", "x", "1.5", "18446744073709551615.00"] {
        assert_eq!(uptime_ms(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn disks_mounts_and_places_are_left_out_as_node_exporter_leaves_them() {
    for (name, is_left_out) in [
        ("sda", false),
        ("sda1", true),
        ("sdab1", false),
        ("vda2", true),
        ("xvda1", true),
        ("hdc3", true),
        ("nvme0n1", false),
        ("nvme0n1p2", true),
        ("nvmen1p2", false),
        ("loop0", true),
        ("zram0", true),
        ("ram1", true),
        ("dm-0", false),
        ("md0", false),
        ("fd0", true),
        ("mmcblk0p1", false),
    ] {
        assert_eq!(is_part(name), is_left_out, "{name}");
    }
    let text = "/dev/sda1 / ext4 rw,relatime 0 0\n/dev/sda1 / ext4 rw 0 0\ntmpfs /run tmpfs ro,nosuid 0 0\nproc /proc proc rw 0 0\n/dev/b /mnt/a\\040b xfs rw 0 0\n/dev/c /var/lib/docker/x ext4 rw 0 0\n/dev/d /devices ext4 rw 0 0\nx /sys/y ext4 rw 0 0\noverlay /o overlay rw 0 0\n";
    let found: Vec<(String, bool)> = mounts(text.as_bytes()).into_iter().map(|mount| (mount.mountpoint, mount.is_readonly)).collect();
    assert_eq!(found, [("/".into(), false), ("/run".into(), true), ("/mnt/a b".into(), false), ("/devices".into(), false)]);
}

proptest! {
    #[test]
    fn no_text_stops_the_program(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[cpu0-9 a-z:.()kB\\n\\\\-]{0,200}") {
        for bytes in [&bytes[..], text.as_bytes()] {
            let mut reading = HostReading::default();
            stat(bytes, &mut reading);
            meminfo(bytes, &mut reading);
            diskstats(bytes, &mut reading);
            vmstat(bytes, &mut reading);
            net_dev(bytes, &mut reading);
            let _ = (loadavg(bytes), uptime_ms(bytes), file_nr(bytes), pressures(bytes), mounts(bytes));
        }
    }
}
