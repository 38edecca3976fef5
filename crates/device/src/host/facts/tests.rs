//! Readings of a host to usage facts: windows, gaps, steps, and the law that all rows together are the machine.

use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::collections::BTreeMap as Map;

const MIB64: u64 = 1 << 20;
/// 2026-11-23T09:00:00Z
const NINE: i64 = 1_795_424_400;

/// A reading at `second` after nine by both clocks. `groups`: `uid/id`, microseconds, MiB.
fn reading(second: i64, ticks: [u64; 3], groups: &[(&str, u64, u64)]) -> HostReading {
    at(NINE * NANOS_PER_SECOND + second * NANOS_PER_SECOND, second as u64 * 1_000_000_000, ticks, groups)
}

fn at(at_ns: i64, mono_ns: u64, [busy, idle, stolen]: [u64; 3], groups: &[(&str, u64, u64)]) -> HostReading {
    let group = |(key, us, mib): &(&str, u64, u64)| {
        let (uid, id) = key.split_once('/').unwrap();
        let owner = Owner {
            tenant: if uid == "t0" { String::new() } else { format!("tenant-{uid}") },
            pod: format!("pod-{uid}"),
            container: if id.is_empty() { String::new() } else { format!("c-{id}") },
            namespace: "ns".into(),
            service: "chat".into(),
            ..Owner::default()
        };
        Cgroup {
            path: format!("/{key}"),
            pod_uid: uid.into(),
            container_id: id.into(),
            owner: Some(owner).filter(|_| uid != "x"),
            cpu_us: Some(*us),
            memory: Some(mib * MIB64),
            ..Cgroup::default()
        }
    };
    HostReading {
        at_ns,
        mono_ns,
        cpu: Some([busy, 0, 0, idle, 0, 0, 0, stolen, 0, 0]),
        cpus: vec![Default::default(); 2],
        memory: Map::from([("MemTotal".into(), (1000 * MIB64, true)), ("MemAvailable".into(), (600 * MIB64, true))]),
        cgroups: groups.iter().map(group).collect(),
        ..HostReading::default()
    }
}

fn facts() -> Facts {
    Facts::new(FactsOptions { node: "n1".into(), gap_max_ns: 120 * 1_000_000_000, ..FactsOptions::default() }, FactsState::default())
        .unwrap()
}

fn run(facts: &mut Facts, readings: &[HostReading]) -> String {
    let mut out = Vec::new();
    for reading in readings {
        facts.add(reading, &mut out);
    }
    facts.finish(&mut out);
    String::from_utf8(out).unwrap()
}

/// `meter who quantity [start-end]`, one a line; times as seconds after nine.
fn short(text: &str) -> String {
    let second = |time: &str| {
        let nanos = flow::time::TimeParser::new().parse(time.as_bytes(), flow::fields::Kind::Text).unwrap().0;
        (nanos - NINE * NANOS_PER_SECOND) as f64 / 1e9
    };
    let mut out = String::new();
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
        let time = match value["start"].as_str() {
            Some(start) => format!("{}..{}", second(start), second(&text("end"))),
            None => second(&text("time")).to_string(),
        };
        let who =
            [text("tenant"), text("container"), text("part")].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        out.push_str(&format!("{} {who} {} at {time}\n", text("meter"), value["quantity"]));
    }
    out
}

#[track_caller]
fn check(readings: &[HostReading], want: Expect) -> Counts {
    let mut facts = facts();
    want.assert_eq(&short(&run(&mut facts, readings)));
    *facts.counts()
}

#[test]
fn events_look_as_those_that_come_over_http() {
    let mut first = reading(0, [0, 0, 0], &[("a/1", 0, 100)]);
    first.cgroups[0].request = Some(Request { millicores: 500, memory_bytes: 200 * MIB64 });
    let text = run(&mut facts(), &[first, reading(60, [600, 11_300, 100], &[("a/1", 1_500_900, 100)])]);
    expect![[r#"
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/cpu_time/a/1/2026-11-23T09:00:00Z","type":"weir.usage.v1","tenant":"tenant-a","meter":"cpu_time","quantity":1500,"unit":"ms","container":"c-1","namespace":"ns","node":"n1","pod":"pod-a","service":"chat"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/memory_held/a/1/2026-11-23T09:00:00Z","type":"weir.usage.v1","tenant":"tenant-a","meter":"memory_held","quantity":200,"unit":"MiB","start":"2026-11-23T09:00:00Z","end":"2026-11-23T09:01:00Z","container":"c-1","namespace":"ns","node":"n1","pod":"pod-a","service":"chat"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/cpu_held/a/1/2026-11-23T09:00:00Z","type":"weir.usage.v1","tenant":"tenant-a","meter":"cpu_held","quantity":500,"unit":"millicores","start":"2026-11-23T09:00:00Z","end":"2026-11-23T09:01:00Z","container":"c-1","namespace":"ns","node":"n1","pod":"pod-a","service":"chat"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/cpu_time/system/2026-11-23T09:00:00Z","type":"weir.usage.v1","meter":"cpu_time","quantity":4500,"unit":"ms","node":"n1","part":"system"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/cpu_time/idle/2026-11-23T09:00:00Z","type":"weir.usage.v1","meter":"cpu_time","quantity":113000,"unit":"ms","node":"n1","part":"idle"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/cpu_time/stolen/2026-11-23T09:00:00Z","type":"weir.usage.v1","meter":"cpu_time","quantity":1000,"unit":"ms","node":"n1","part":"stolen"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/memory_held/system/2026-11-23T09:00:00Z","type":"weir.usage.v1","meter":"memory_held","quantity":300,"unit":"MiB","start":"2026-11-23T09:00:00Z","end":"2026-11-23T09:01:00Z","node":"n1","part":"system"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/memory_held/free/2026-11-23T09:00:00Z","type":"weir.usage.v1","meter":"memory_held","quantity":500,"unit":"MiB","start":"2026-11-23T09:00:00Z","end":"2026-11-23T09:01:00Z","node":"n1","part":"free"}
        {"time":"2026-11-23T09:00:00Z","source":"host","id":"n1/cpu_held/free/2026-11-23T09:00:00Z","type":"weir.usage.v1","meter":"cpu_held","quantity":1500,"unit":"millicores","start":"2026-11-23T09:00:00Z","end":"2026-11-23T09:01:00Z","node":"n1","part":"free"}
    "#]].assert_eq(&text);
}

#[test]
fn a_difference_is_laid_over_the_windows_it_spans_and_a_level_holds_until_the_next() {
    let counts = check(
        &[
            reading(30, [0, 0, 0], &[("a/1", 500, 10)]),
            reading(90, [1200, 10_800, 0], &[("a/1", 6_000_500, 20), ("b/2", 100_000, 5)]),
            reading(120, [1300, 16_700, 0], &[("b/2", 100_000, 5)]),
        ],
        expect![[r#"
            cpu_time tenant-a c-1 3000 at 0
            memory_held tenant-a c-1 10 at 30..60
            cpu_held tenant-a c-1 100 at 30..60
            cpu_time tenant-b c-2 50 at 0
            cpu_held tenant-b c-2 2 at 30..60
            cpu_time system 2950 at 0
            cpu_time idle 54000 at 0
            memory_held system 390 at 30..60
            memory_held free 600 at 30..60
            cpu_held free 1898 at 30..60
            cpu_time tenant-a c-1 3000 at 60
            memory_held tenant-a c-1 15 at 60..120
            cpu_held tenant-a c-1 50 at 60..120
            cpu_time tenant-b c-2 50 at 60
            memory_held tenant-b c-2 3 at 60..120
            cpu_held tenant-b c-2 1 at 60..120
            cpu_time system 3950 at 60
            cpu_time idle 113000 at 60
            memory_held system 382 at 60..120
            memory_held free 600 at 60..120
            cpu_held free 1949 at 60..120
        "#]],
    );
    assert_eq!((counts.owed_ms, counts.over_mib, counts.late), (0, 0, 0));
}

#[test]
fn what_is_less_than_a_millisecond_waits() {
    let readings: Vec<HostReading> =
        (0..=5).map(|n| reading(n * 60, [n as u64 * 100, n as u64 * 11_900, 0], &[("a/1", n as u64 * 400, 0)])).collect();
    let text = short(&run(&mut facts(), &readings));
    let mine: Vec<&str> = text.lines().filter(|line| line.starts_with("cpu_time tenant-a")).collect();
    assert_eq!(mine, ["cpu_time tenant-a c-1 1 at 120", "cpu_time tenant-a c-1 1 at 240"]);
}

#[test]
fn a_counter_that_drops_was_reset_and_its_new_reading_is_added() {
    let counts = check(
        &[reading(0, [0, 0, 0], &[("a/1", 50_000_000, 0)]), reading(60, [3000, 9000, 0], &[("a/1", 20_000_000, 0)])],
        expect![[r#"
            cpu_time tenant-a c-1 20000 at 0
            cpu_held tenant-a c-1 334 at 0..60
            cpu_time system 10000 at 0
            cpu_time idle 90000 at 0
            memory_held system 400 at 0..60
            memory_held free 600 at 0..60
            cpu_held free 1666 at 0..60
        "#]],
    );
    assert_eq!((counts.resets, counts.implausible), (1, 0));
}

#[test]
fn more_than_all_processors_can_do_is_no_use() {
    let huge = [reading(0, [0, 0, 0], &[("a/1", 5, 0)]), reading(60, [3000, 9000, 0], &[("a/1", u64::MAX, 0), ("new/2", 1 << 50, 0)])];
    let counts = check(
        &huge,
        expect![[r#"
        cpu_time system 30000 at 0
        cpu_time idle 90000 at 0
        memory_held system 400 at 0..60
        memory_held free 600 at 0..60
        cpu_held free 2000 at 0..60
    "#]],
    );
    assert_eq!((counts.implausible, counts.late), (1, 1));
}

#[test]
fn what_a_pod_used_beside_its_containers_is_the_pods() {
    // Container 2 ends between two readings; the pod has seen it.
    check(
        &[
            reading(0, [0, 0, 0], &[("a/", 100, 30), ("a/1", 50, 10), ("a/2", 50, 10)]),
            reading(60, [3000, 9000, 0], &[("a/", 9_000_100, 10), ("a/1", 4_000_050, 10)]),
        ],
        expect![[r#"
            cpu_time tenant-a 5000 at 0
            memory_held tenant-a 10 at 0..60
            cpu_held tenant-a 83 at 0..60
            cpu_time tenant-a c-1 4000 at 0
            memory_held tenant-a c-1 10 at 0..60
            cpu_held tenant-a c-1 67 at 0..60
            memory_held tenant-a c-2 10 at 0..60
            cpu_time system 21000 at 0
            cpu_time idle 90000 at 0
            memory_held system 370 at 0..60
            memory_held free 600 at 0..60
            cpu_held free 1850 at 0..60
        "#]],
    );
}

#[test]
fn a_pod_that_is_read_before_its_containers_owes_and_does_not_pay_twice() {
    let mut facts = facts();
    let text = run(
        &mut facts,
        &[
            reading(0, [0, 0, 0], &[("a/", 0, 0), ("a/1", 0, 0)]),
            reading(60, [3000, 9000, 0], &[("a/", 1_000_000, 0), ("a/1", 1_500_000, 0)]),
            reading(120, [6000, 18_000, 0], &[("a/", 3_000_000, 0), ("a/1", 2_500_000, 0)]),
        ],
    );
    let text = short(&text);
    let mine: Vec<&str> = text.lines().filter(|line| line.starts_with("cpu_time tenant-a")).collect();
    assert_eq!(mine, ["cpu_time tenant-a c-1 1500 at 0", "cpu_time tenant-a 500 at 60", "cpu_time tenant-a c-1 1000 at 60"]);
}

#[test]
fn groups_ahead_of_the_kernels_ticks_are_owed_and_paid_back() {
    let mut facts = facts();
    let text = run(
        &mut facts,
        &[
            reading(0, [0, 0, 0], &[("a/1", 0, 0)]),
            reading(60, [10, 10, 0], &[("a/1", 1_000_000, 0)]), // 200 ms in all
            reading(120, [110, 11_910, 0], &[("a/1", 1_100_000, 0)]),
        ],
    );
    expect![[r#"
        cpu_time tenant-a c-1 1000 at 0
        cpu_time tenant-a c-1 100 at 60
        cpu_time system 100 at 60
        cpu_time idle 119000 at 60"#]]
    .assert_eq(&short(&text).lines().filter(|line| line.starts_with("cpu_time")).collect::<Vec<_>>().join("\n"));
    assert_eq!(facts.counts().owed_ms, 0);
}

#[test]
fn gaps_and_boots_are_unseen_and_steps_of_the_wall_clock_are_no_usage() {
    let second = 1_000_000_000;
    let base = NINE * second;
    let mono = |n: i64| n as u64 * second as u64;
    let busy = |n: u64| [n * 100, n * 100, 0];
    let mut facts = facts();
    let mut boot = at(base + 1000 * second, mono(5), busy(3), &[("a/1", 700_000, 10)]);
    boot.boot_id = "other".into();
    let text = run(
        &mut facts,
        &[
            at(base, mono(100), busy(1), &[("a/1", 0, 10)]),
            at(base + 10 * second, mono(110), busy(2), &[("a/1", 1_000_000, 10)]),
            at(base + 10 * second, mono(110), busy(2), &[("a/1", 1_000_000, 10)]), // again
            at(base + 200 * second, mono(300), busy(3), &[("a/1", 2_000_000, 10)]), // 190 s later
            at(base + 210 * second, mono(310), busy(4), &[("a/1", 3_000_000, 10)]),
            at(base + 3820 * second, mono(320), busy(5), &[("a/1", 4_000_000, 10)]), // an hour ahead
            at(base + 230 * second, mono(330), busy(6), &[("a/1", 5_000_000, 10)]),  // and back
            boot,
        ],
    );
    let mine = short(&text);
    expect![[r#"
        cpu_time tenant-a c-1 1000 at 0
        memory_held tenant-a c-1 10 at 0..10
        cpu_held tenant-a c-1 100 at 0..10
        cpu_time tenant-a c-1 1000 at 180
        memory_held tenant-a c-1 10 at 200..210
        cpu_held tenant-a c-1 100 at 200..210
        cpu_time tenant-a c-1 1000 at 3780
        memory_held tenant-a c-1 10 at 3810..3820
        cpu_held tenant-a c-1 100 at 3810..3820
        cpu_time tenant-a c-1 1000 at 180
        memory_held tenant-a c-1 10 at 220..230
        cpu_held tenant-a c-1 100 at 220..230"#]]
    .assert_eq(&mine.lines().filter(|line| line.contains("tenant-a")).collect::<Vec<_>>().join("\n"));
    let counts = facts.counts();
    assert_eq!((counts.repeated, counts.gaps, counts.unseen_ns, counts.steps, counts.boots), (1, 1, 190 * second as u64, 2, 1));
    let ids: Vec<String> = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string()).collect();
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len(), "{ids:#?}");
}

#[test]
fn a_node_that_promises_more_memory_than_it_has_counts_it() {
    let mut first = reading(0, [0, 0, 0], &[("a/1", 0, 700), ("b/2", 0, 10)]);
    first.cgroups[1].request = Some(Request { millicores: 3000, memory_bytes: 800 * MIB64 });
    let counts = check(
        &[first, reading(60, [0, 12_000, 0], &[])],
        expect![[r#"
        memory_held tenant-a c-1 700 at 0..60
        memory_held tenant-b c-2 800 at 0..60
        cpu_held tenant-b c-2 3000 at 0..60
        cpu_time idle 120000 at 0
    "#]],
    );
    assert_eq!((counts.over_mib, counts.over_millicores), (500, 1000));
}

#[test]
fn a_state_that_was_kept_goes_on_as_if_nothing_had_been() {
    let readings: Vec<HostReading> = (0..20)
        .map(|n| {
            reading(
                n * 7,
                [n as u64 * 300, n as u64 * 1100, n as u64],
                &[("a/1", n as u64 * 1_234_567, n as u64), ("t0/2", 77 * n as u64, 3)],
            )
        })
        .collect();
    let whole = run(&mut facts(), &readings);
    for cut in [1, 9, 15] {
        let mut out = Vec::new();
        let mut first = facts();
        readings[..cut].iter().for_each(|reading| first.add(reading, &mut out));
        let text = serde_json::to_string(first.state()).unwrap();
        let mut second = Facts::new(first.options.clone(), serde_json::from_str(&text).unwrap()).unwrap();
        readings[cut..].iter().for_each(|reading| second.add(reading, &mut out));
        second.finish(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), whole, "cut at {cut}");
    }
}

#[test]
fn from_files_to_events() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    const UID: &str = "0f2c1b7e-1111-4222-8333-abcdefabcdef";
    let ids = ["c1", "c2"].map(|end| format!("{}{end}", "0".repeat(62)));
    let pod = format!("sys/fs/cgroup/kubepods/pod{UID}");
    put("proc/meminfo", "MemTotal: 1024000 kB\nMemAvailable: 614400 kB\n");
    put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    let mut sampler = crate::host::Sampler::new(crate::host::HostOptions { root: root.path().into(), ..Default::default() });
    let mut look = |second: i64, busy: u64, idle: u64, us: u64| {
        put("proc/stat", &format!("cpu {busy} 0 0 {idle} 0 0 0 0 5 0\ncpu0 {busy} 0 0 {idle} 0 0 0 0 5 0\n"));
        for id in &ids {
            put(&format!("{pod}/{id}/cpu.stat"), &format!("usage_usec {us}\n"));
            put(&format!("{pod}/{id}/memory.current"), "31457281\n");
            put(&format!("{pod}/{id}/memory.stat"), "inactive_file 10485760\n");
        }
        let mut reading = sampler.sample(UnixNanos((NINE + second) * NANOS_PER_SECOND), second as u64 * 1_000_000_000);
        let owner = |uid: &str, id: &str| (uid == UID && id == ids[0]).then(|| Owner { tenant: "acme".into(), ..Owner::default() });
        reading.own(&owner, &|_, _| None);
        reading
    };
    let readings = [look(0, 100, 100, 5), look(60, 1100, 5100, 2_000_005)];
    // 2 s of two containers, one of which nobody knows; 20 MiB and a byte are 21 MiB.
    expect![[r#"
        cpu_time acme 2000 at 0
        memory_held acme 21 at 0..60
        cpu_held acme 34 at 0..60
        cpu_time unowned 2000 at 0
        memory_held unowned 21 at 0..60
        cpu_held unowned 34 at 0..60
        cpu_time system 6000 at 0
        cpu_time idle 50000 at 0
        memory_held system 358 at 0..60
        memory_held free 600 at 0..60
        cpu_held free 932 at 0..60
    "#]]
    .assert_eq(&short(&run(&mut facts(), &readings)));
}

#[test]
fn options_are_held_to_their_rule() {
    for (window, gap, is_fine) in
        [(60, 60, true), (3600, 3600, true), (7, 60, false), (0, 60, false), (7200, 60, false), (60, 0, false), (60, 3601, false)]
    {
        let options = FactsOptions { window_ns: window * NANOS_PER_SECOND, gap_max_ns: gap * 1_000_000_000, ..FactsOptions::default() };
        assert_eq!(Facts::new(options, FactsState::default()).is_ok(), is_fine, "{window} {gap}");
    }
    assert!(Facts::new(FactsOptions { window_ns: 1_500_000_000, ..FactsOptions::default() }, FactsState::default()).is_err());
}

/// Sums of quantities by meter and window; intervals times their seconds.
fn totals(text: &str) -> Map<String, i128> {
    let mut sums = Map::new();
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let quantity = value["quantity"].as_u64().unwrap();
        assert!(quantity > 0 && quantity <= i64::MAX as u64);
        *sums.entry(value["meter"].as_str().unwrap().to_owned()).or_default() += i128::from(quantity);
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn owners_and_the_rest_are_the_machine(
        // Seconds since the one before; ticks busy, idle, stolen; what each group did, and whether it is there.
        steps in proptest::collection::vec((1i64..90, 0u64..400, 0u64..9000, 0u64..50, proptest::collection::vec((0u64..2_000_000, 0u64..120, any::<bool>()), 6)), 2..30),
    ) {
        let names = ["a/", "a/1", "a/2", "b/3", "x/4", "t0/5"];
        let (mut second, mut ticks, mut counters) = (0, [0u64; 3], [0u64; 6]);
        let mut readings = Vec::new();
        for (gap, busy, idle, stolen, groups) in &steps {
            second += gap;
            for (sum, more) in ticks.iter_mut().zip([busy, idle, stolen]) { *sum += more; }
            let mut found = Vec::new();
            for (n, (us, mib, is_there)) in groups.iter().enumerate() {
                counters[n] += us;
                if *is_there { found.push((names[n], counters[n], *mib)); }
            }
            readings.push(reading(second, ticks, &found));
        }
        let mut facts = facts();
        let text = run(&mut facts, &readings);
        let sums = totals(&text);
        let first = readings[0].cpu.unwrap();
        let last = readings.last().unwrap().cpu.unwrap();
        let node: i128 = [0, 3, 7].iter().map(|at| i128::from(last[*at] - first[*at]) * 10).sum();
        let owed = i128::from(facts.counts().owed_ms);
        // Three parts may each keep less than a millisecond for later.
        let found = sums.get("cpu_time").copied().unwrap_or(0) - owed;
        let kept: i128 = facts.state.carry_us.iter().map(|us| i128::from(*us)).sum();
        prop_assert_eq!(found * 1000 + kept, node * 1000);
        // Memory and processors: in each interval all of it, and what is promised beyond.
        let mut intervals: Map<(String, String, String), u64> = Map::new();
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let word = |name: &str| value[name].as_str().unwrap_or("").to_owned();
            if !word("start").is_empty() {
                *intervals.entry((word("meter"), word("start"), word("end"))).or_default() += value["quantity"].as_u64().unwrap();
            }
        }
        let mut over = [0, 0];
        for ((meter, ..), sum) in &intervals {
            let (at, all) = if meter == "memory_held" { (0, 1000) } else { (1, 2000) };
            prop_assert!(*sum >= all, "{} {}", meter, sum);
            over[at] += sum - all;
        }
        prop_assert_eq!(over, [facts.counts().over_mib, facts.counts().over_millicores]);
    }

    #[test]
    fn nothing_that_is_read_stops_the_program(
        steps in proptest::collection::vec((any::<i64>(), any::<u64>(), any::<[u64; 3]>(), proptest::collection::vec((0usize..6, any::<u64>(), any::<u64>()), 0..6), any::<bool>()), 1..12),
        near in any::<bool>(),
    ) {
        let names = ["a/", "a/1", "/2", "b/3", "x/4", "t0/5"];
        let mut facts = facts();
        let mut out = Vec::new();
        for (n, (wall, mono, ticks, groups, has_cpu)) in steps.into_iter().enumerate() {
            let groups: Vec<(&str, u64, u64)> = groups.iter().map(|(n, us, mib)| (names[*n], *us, *mib >> 20)).collect();
            let mono = if near { n as u64 * 1_000_000_000 } else { mono };
            let mut reading = at(wall, mono, ticks, &groups);
            if !has_cpu {
                reading.cpu = None;
                reading.cpus.clear();
            }
            for group in &mut reading.cgroups {
                group.request = Some(Request { millicores: mono, memory_bytes: wall as u64 });
            }
            facts.add(&reading, &mut out);
        }
        facts.finish(&mut out);
        totals(std::str::from_utf8(&out).unwrap());
        let text = serde_json::to_string(facts.state()).unwrap();
        prop_assert_eq!(&serde_json::from_str::<FactsState>(&text).unwrap(), facts.state());
    }
}
