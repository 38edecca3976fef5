//! Promises of the accountant, reading by reading; laws over random readings; and from readings to a bill.

mod billed;
mod laws;

use super::*;
use crate::reading::{Given, Mig, Owner, Process};

/// 2026-11-23T10:00:00Z, in seconds.
pub const TEN: i64 = 1_795_392_000 + 10 * 3_600;

pub fn named(tenant: &str) -> Owner {
    Owner { tenant: tenant.into(), ..Owner::default() }
}

pub fn given(tenant: &str) -> Given {
    Given { owner: named(tenant), ..Given::default() }
}

pub fn replica(tenant: &str, number: u32) -> Given {
    Given { replica: Some(number), ..given(tenant) }
}

/// A process: `tenant` empty is nobody.
pub fn process(pid: u32, tenant: &str, mib: u64) -> Process {
    let owner = (!tenant.is_empty()).then(|| named(tenant));
    Process { pid, started: Some(u64::from(pid)), memory: Some(mib << 20), owner, ..Process::default() }
}

pub fn used(pid: u32, at_us: u64, sm: u32) -> Use {
    Use { pid, at_us, sm, ..Use::default() }
}

pub fn gpu(energy_mj: u64) -> Gpu {
    Gpu { uuid: "GPU-1".into(), model: "H100".into(), energy_mj: Some(energy_mj), ..Gpu::default() }
}

/// A reading `ms` after 10:00, by both clocks.
pub fn at(ms: i64, gpus: Vec<Gpu>) -> Reading {
    Reading { at_ns: TEN * NANOS_PER_SECOND + ms * NANOS_PER_MS, mono_ns: (50_000 + ms) as u64 * 1_000_000, gpus, ..Reading::default() }
}

/// The same where the wall clock says another time.
pub fn at_wall(ms: i64, wall_ms: i64, gpus: Vec<Gpu>) -> Reading {
    Reading { at_ns: TEN * NANOS_PER_SECOND + wall_ms * NANOS_PER_MS, ..at(ms, gpus) }
}

/// Intervals show most.
pub fn new() -> Accountant {
    Accountant::new(options()).unwrap()
}

pub fn options() -> Options {
    Options { form: Form::Intervals, ..Options::default() }
}

/// `meter tenant mode from-to quantity`, times in ms after 10:00; further dimensions in the end.
pub fn line(fact: &Fact) -> String {
    let tenant = if fact.tenant.is_empty() { "-" } else { &fact.tenant };
    let [time, from, to] = [fact.time_ms, fact.from_ms, fact.to_ms].map(|ms| ms - TEN * 1_000);
    let time = if fact.is_interval() { format!("{from}-{to}") } else { time.to_string() };
    let more: String = ["mig", "mig_profile", "estimated", "pod", "service", "model"]
        .iter()
        .filter(|name| !fact.dim(name).is_empty())
        .map(|name| format!(" {name}={}", fact.dim(name)))
        .collect();
    format!("{} {tenant} {} {time} {}{more}", &fact.meter.name()[4..], fact.dim("mode"), fact.quantity)
}

/// Tells all facts of these readings.
pub fn tell(accountant: &mut Accountant, readings: &[Reading]) -> Facts {
    let mut facts = Facts::default();
    readings.iter().for_each(|reading| accountant.account(reading, &mut facts));
    accountant.close(UnixNanos(i64::MAX), &mut facts);
    facts
}

#[track_caller]
fn check(readings: &[Reading], want: &[&str]) -> Accountant {
    let mut accountant = new();
    let lines: Vec<String> = tell(&mut accountant, readings).list.iter().map(line).collect();
    assert_eq!(lines, want);
    accountant
}

#[test]
fn a_device_of_one_container_is_its_owners_for_all_the_time() {
    let with = |energy| Gpu { given: vec![given("acme")], ..gpu(energy) };
    let readings = [at(0, vec![with(1_000)]), at(1_000, vec![with(1_500)]), at(2_000, vec![with(1_900)])];
    let accountant = check(&readings, &["held acme exclusive 0-2000 1", "energy acme exclusive 0 900"]);
    assert_eq!(accountant.counts(), &Counts { readings: 3, ..Counts::default() });
}

#[test]
fn a_fact_is_a_record_as_usage_events_are() {
    let owner = Owner { service: "chat".into(), model: "or\"ca".into(), pod: "p-0".into(), namespace: "n".into(), ..named("acme") };
    let with = |energy| Gpu { given: vec![Given { owner: owner.clone(), ..Given::default() }], ..gpu(energy) };
    let facts = tell(&mut new(), &[at(500, vec![with(0)]), at(1_000, vec![with(7)])]);
    let mut bytes = Vec::new();
    facts.put("weir.gpu", &mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let dims = r#""device":"GPU-1","gpu_model":"H100","mode":"exclusive","model":"or\"ca","pod":"p-0","service":"chat"}"#;
    let id = |fact: &Fact| fact.id.clone();
    let want = [
        format!(
            r#"{{"time":"2026-11-23T10:00:00.500Z","source":"weir.gpu","id":"{}","type":"weir.usage.v1","tenant":"acme","meter":"gpu_held","quantity":1,"unit":"GPU","start":"2026-11-23T10:00:00.500Z","end":"2026-11-23T10:00:01Z",{dims}"#,
            id(&facts.list[0])
        ),
        format!(
            r#"{{"time":"2026-11-23T10:00:00Z","source":"weir.gpu","id":"{}","type":"weir.usage.v1","tenant":"acme","meter":"gpu_energy","quantity":7,"unit":"mJ",{dims}"#,
            id(&facts.list[1])
        ),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), want);
    assert!(facts.list[0].id.starts_with("GPU-1/gpu_held/") && facts.list[0].id.ends_with("/1795428000500-1795428001000"));
}

#[test]
fn what_is_held_is_an_amount_that_a_bill_can_add_up() {
    let with = |mib, second: u64| Gpu { given: vec![given("a")], processes: vec![process(1, "a", mib)], ..gpu(second) };
    let readings = [at(500, vec![with(3, 0)]), at(1_000, vec![with(4, 1)]), at(1_500, vec![with(4, 2)])];
    let mut accountant = Accountant::new(Options::default()).unwrap();
    let facts = tell(&mut accountant, &readings);
    let lines: Vec<String> = facts.list.iter().map(|fact| format!("{} {}", line(fact), fact.unit())).collect();
    let want = ["held a exclusive 0 1000 GPU-ms", "energy a exclusive 0 2 mJ", "memory_time a exclusive 0 3750 MiB-ms"];
    assert_eq!(lines, want);
    assert_eq!(tell(&mut new(), &readings).list.iter().map(Fact::amount).collect::<Vec<_>>(), [1_000, 2, 3_000, 750]);
}

#[test]
fn modes_say_who_has_the_device() {
    let two = vec![process(1, "a", 10), process(2, "b", 10)];
    let cases: Vec<(Gpu, &str)> = vec![
        (gpu(0), "- free"),
        (Gpu { given: vec![given("a")], processes: two.clone(), ..gpu(0) }, "a exclusive"),
        (Gpu { given: vec![given("a"), given("a")], ..gpu(0) }, "a exclusive"),
        (Gpu { given: vec![given("a"), given("b")], ..gpu(0) }, "- shared"),
        (Gpu { given: vec![replica("a", 0)], ..gpu(0) }, "- shared"),
        (Gpu { processes: vec![process(1, "a", 1), process(2, "a", 2)], ..gpu(0) }, "a exclusive"),
        (Gpu { processes: two, mps: true, ..gpu(0) }, "- shared"),
        (Gpu { processes: vec![process(1, "a", 1), process(2, "", 2)], ..gpu(0) }, "- shared"),
        (Gpu { processes: vec![process(1, "", 1)], ..gpu(0) }, "- exclusive"),
        (Gpu { processes: vec![process(1, "", 1), process(2, "", 2)], ..gpu(0) }, "- shared"),
        (Gpu { mig_enabled: true, given: vec![given("a")], ..gpu(0) }, "- mig"),
    ];
    for (gpu, want) in cases {
        let facts = tell(&mut new(), &[at(0, vec![gpu.clone()]), at(1_000, vec![gpu.clone()])]);
        let held: Vec<String> = facts.list.iter().filter(|fact| fact.meter == Meter::Held).map(line).collect();
        assert_eq!(held, [format!("held {want} 0-1000 1")], "{gpu:?}");
    }
}

#[test]
fn a_change_counts_from_the_middle_of_the_gap_and_windows_are_cut_at_the_minute() {
    let of = |tenant: &str, energy| Gpu { given: vec![given(tenant)], ..gpu(energy) };
    let readings =
        [at(57_000, vec![of("a", 0)]), at(59_000, vec![of("b", 1_001)]), at(61_000, vec![of("b", 2_002)]), at(62_000, vec![gpu(2_003)])];
    let want = [
        "held a exclusive 57000-58000 1",
        "held b exclusive 58000-60000 1",
        "energy a exclusive 0 501", // 500.5 each: ties go to what was first
        "energy b exclusive 0 1001",
        "held b exclusive 60000-61500 1",
        "held - free 61500-62000 1",
        "energy b exclusive 60000 501",
    ];
    check(&readings, &want);
}

#[test]
fn sm_time_is_percent_by_the_time_since_the_sample_before() {
    let shared = |uses: Vec<Use>| Gpu {
        given: vec![replica("a", 0), replica("b", 1)],
        processes: vec![process(1, "a", 0), process(2, "b", 0)],
        uses,
        ..gpu(0)
    };
    let s = 1_000_000u64;
    let readings = [
        at(0, vec![shared(vec![used(1, 100 * s, 90)])]), // before anybody looked
        // 0.25 s of 40 %, 0.5 s of 40 %; b's sample is of the same period as a's, some microseconds later.
        at(1_000, vec![shared(vec![used(1, 100 * s + 250_000, 40), used(2, 100 * s + 250_040, 10), used(1, 100 * s + 750_000, 40)])]),
        // 9 s since the last one, and only the gap of 1 s counts. One of 101 % is refused, and one that was there before is not new.
        at(2_000, vec![shared(vec![used(1, 109 * s, 1), used(2, 109 * s + 80_000, 101), used(2, 100 * s, 99)])]),
        at(3_000, vec![shared(vec![])]),
    ];
    let accountant = check(&readings, &["held - shared 0-3000 1", "sm_time a shared 0 310", "sm_time b shared 0 25"]);
    assert_eq!(accountant.counts().refused, BTreeMap::from([("sm_percent".into(), 1)]));
    // a: 40 % of 250,040 us and of 499,960 us, 1 % of 1 s; b: 10 % of 250,040 us. What is below 1 ms is there still.
    let carried: Vec<u128> = accountant.state.devices["GPU-1"].carry.sm.values().copied().collect();
    assert_eq!(carried, [10 * 250_040 - 25 * 100_000]);
}

#[test]
fn where_the_driver_tells_no_use_by_process_memory_divides_the_devices_own() {
    let with = |uses: Vec<Use>, busy| Gpu {
        given: vec![replica("a", 0), replica("b", 1)],
        processes: vec![process(1, "a", 300), process(2, "b", 100)],
        busy: Some(busy),
        uses,
        ..gpu(0)
    };
    let readings = [at(0, vec![with(vec![], 50)]), at(1_000, vec![with(vec![], 50)]), at(2_000, vec![with(vec![], 0)])];
    let want = [
        "held - shared 0-2000 1",
        "sm_time a shared 0 375 estimated=memory",
        "sm_time b shared 0 125 estimated=memory",
        "memory_time a shared 0-2000 300",
        "memory_time b shared 0-2000 100",
    ];
    check(&readings, &want);
    // Who told it once tells it always: then nothing is nothing.
    let readings = [at(0, vec![with(vec![], 0)]), at(1_000, vec![with(vec![used(1, 5, 50)], 50)]), at(2_000, vec![with(vec![], 50)])];
    assert!(tell(&mut new(), &readings).list.iter().map(line).filter(|line| line.contains("sm_time")).eq(["sm_time a shared 0 500"]));
}

#[test]
fn a_process_that_came_or_went_holds_its_memory_for_half_the_gap() {
    let with = |processes: Vec<Process>| Gpu { given: vec![given("x")], processes, memory_total: Some(100 << 20), ..gpu(0) };
    let readings = [
        at(0, vec![with(vec![process(1, "a", 10)])]),
        at(1_000, vec![with(vec![process(1, "a", 10), process(2, "b", 31)])]),
        at(2_000, vec![with(vec![process(2, "b", 30), process(3, "", 5)])]),
    ];
    let want = [
        "held x exclusive 0-2000 1",
        "memory_time a exclusive 0-1500 10",
        "memory_time b exclusive 500-2000 30",
        "memory_time b exclusive 500-1500 1",
        "memory_time x exclusive 1500-2000 5", // of nobody else, on a device that is x's
    ];
    check(&readings, &want);
    // Processes that say more than there is get what there is.
    let much = with(vec![process(1, "a", 300), process(2, "b", 100), Process { memory: Some(u64::MAX), ..process(3, "c", 0) }]);
    let accountant = check(
        &[at(0, vec![much.clone()]), at(1_000, vec![much])],
        &["held x exclusive 0-1000 1", "memory_time a exclusive 0-1000 75", "memory_time b exclusive 0-1000 25"],
    );
    assert_eq!(accountant.counts().refused, BTreeMap::from([("memory".into(), 2), ("memory_above_device".into(), 2)]));
}

#[test]
fn a_pid_that_is_another_process_now_is_told_apart() {
    let with = |tenant: &str, started, uses: Vec<Use>| Gpu {
        given: vec![replica("a", 0), replica("b", 1)],
        processes: vec![Process { started: Some(started), ..process(1, tenant, 8) }],
        uses,
        ..gpu(0)
    };
    let readings = [at(0, vec![with("a", 5, vec![])]), at(1_000, vec![with("b", 6, vec![used(1, 9, 100), used(77, 9, 10)])])];
    let want = [
        "held - shared 0-1000 1",
        "sm_time - shared 0 100", // it came and went, and nobody saw it
        "sm_time a shared 0 500",
        "sm_time b shared 0 500",
        "memory_time a shared 0-500 8",
        "memory_time b shared 500-1000 8",
    ];
    check(&readings, &want);
}

#[test]
fn mig_devices_are_held_by_whom_they_were_given_to_or_by_their_processes() {
    let mig = |n: u32, slices: u32, given: Vec<Given>| Mig {
        uuid: format!("MIG-{n}"),
        profile: format!("{slices}g.x"),
        gpu_instance: n,
        given,
        ..Mig::default()
    };
    let inside = |pid, n, tenant: &str| Process { gpu_instance: Some(n), compute_instance: Some(0), ..process(pid, tenant, 1) };
    let one = Gpu {
        mig_enabled: true,
        migs: vec![mig(1, 1, vec![given("a")]), mig(2, 2, vec![]), mig(3, 3, vec![]), mig(4, 9, vec![given("z")])],
        processes: vec![inside(5, 2, "b")],
        ..gpu(0)
    };
    let two = Gpu { processes: vec![inside(5, 2, "b"), inside(6, 2, "c")], energy_mj: Some(70), ..one.clone() };
    let want = [
        "held - mig 0-1000 1",
        "slices - mig 500-1000 2 mig=MIG-2 mig_profile=2g.x",
        "slices a mig 0-1000 1 mig=MIG-1 mig_profile=1g.x",
        "slices b mig 0-500 2 mig=MIG-2 mig_profile=2g.x",
        "energy - mig 0 70",
        "memory_time b mig 0-1000 1",
        "memory_time c mig 500-1000 1",
    ];
    let accountant = check(&[at(0, vec![one]), at(1_000, vec![two])], &want);
    assert_eq!(accountant.counts().refused, BTreeMap::from([("slices".into(), 2)]));
}

#[test]
fn r18_a_drop_of_the_counter_is_a_reset_and_what_cannot_be_is_refused() {
    let energies = [
        Some(5_000_000),
        Some(5_000_300),
        Some(120),
        None,
        Some(620),
        Some((1 << 63) - 14),
        Some(1_000),
        Some(1_400),
        Some(9_000_000),
        Some(9_000_001),
        Some(9_000_005),
    ];
    let readings: Vec<Reading> =
        energies.iter().enumerate().map(|(n, energy)| at(n as i64 * 1_000, vec![Gpu { energy_mj: *energy, ..gpu(0) }])).collect();
    // 300, 120 after the reset, 500 over two gaps; nothing before and after the sentinel; 400; a jump of 9 kJ in 1 s; 4.
    let accountant = check(&readings, &["held - free 0-10000 1", "energy - free 0 1324"]);
    let counts = accountant.counts();
    assert_eq!((counts.resets, counts.energy_unknown), (1, 2));
    assert_eq!(counts.refused, BTreeMap::from([("energy_jump".into(), 1), ("energy_sentinel".into(), 1)]));
}

#[test]
fn a_gap_that_is_too_long_is_unseen_and_nobodys() {
    let with =
        |energy| Gpu { given: vec![given("a")], processes: vec![process(1, "a", 9)], uses: vec![used(1, energy, 100)], ..gpu(energy) };
    let hours = 3_600_000;
    let readings = [at(0, vec![with(0)]), at(10_000, vec![with(10)]), at(20_001, vec![with(17)]), at(2 * hours, vec![with(8_000)])];
    let want = [
        "held a exclusive 0-10000 1",
        "energy a exclusive 0 10",
        "memory_time a exclusive 0-10000 9",
        "held - unseen 10000-20001 1",
        "energy - unseen 0 7",
        "held - unseen 20001-3600000 1",
        "energy - unseen 0 3980", // 7,983 mJ by 3,579.999 s and 3,600 s
        "held - unseen 3600000-7200000 1",
        "energy - unseen 3600000 4003",
    ];
    let accountant = check(&readings, &want);
    assert_eq!(accountant.counts().unseen_ms, 2 * hours as u64 - 10_000);
}

#[test]
fn a_step_of_the_wall_clock_is_no_usage_and_no_time_is_told_twice() {
    let with = |energy| Gpu { given: vec![given("a")], ..gpu(energy) };
    let readings = [
        at(0, vec![with(0)]),
        at(1_000, vec![with(1)]),
        at_wall(2_000, 9_000, vec![with(10)]),    // 7 s ahead: 8,000 to 9,000
        at_wall(3_000, 10_500, vec![with(100)]),  // half a second is no step: 9,000 to 10,000
        at_wall(4_000, 1_500, vec![with(1_000)]), // back: 500 to 1,500, of which 500 ms were told
        at_wall(5_000, 2_500, vec![with(10_000)]),
        at_wall(6_000, 10_000, vec![with(100_000)]), // 9,000 to 10,000 was told
    ];
    let want = [
        "held a exclusive 0-1000 1",
        "energy a exclusive 0 1",
        "held a exclusive 8000-10000 1",
        "energy a exclusive 0 99",
        "held a exclusive 1000-2500 1",
        "energy a exclusive 0 9900",
        "energy a exclusive 0 90000",
    ];
    let accountant = check(&readings, &want);
    assert_eq!((accountant.counts().clock_steps, accountant.counts().overlap_ms), (3, 1_500));
    let mut accountant = new();
    let facts = tell(&mut accountant, &readings);
    let ids: BTreeSet<&str> = facts.list.iter().map(|fact| fact.id.as_str()).collect();
    assert_eq!(ids.len(), facts.list.len(), "two facts, two names");
}

#[test]
fn a_device_that_is_lost_is_not_held_and_its_neighbour_is() {
    let other = |energy| Gpu { uuid: "GPU-2".into(), ..gpu(energy) };
    let lost = Gpu { is_lost: true, energy_mj: None, ..gpu(0) };
    let readings = [
        at(0, vec![gpu(0), other(0)]),
        at(1_000, vec![gpu(10), other(1)]),
        at(2_000, vec![lost.clone(), other(2)]),
        at(3_000, vec![lost, other(3)]),
        at(4_000, vec![gpu(25), other(4)]), // 15 mJ meanwhile are nobody's
        at(5_000, vec![gpu(26), other(5)]),
        at(6_000, vec![other(6), Gpu { uuid: String::new(), ..gpu(9) }, other(100)]),
    ];
    let want = [
        "held - free 0-1000 1",
        "held - free 4000-5000 1",
        "energy - free 0 11",
        "energy - unseen 0 15",
        "held - free 0-6000 1",
        "energy - free 0 6",
    ];
    let accountant = check(&readings, &want);
    assert_eq!(accountant.counts().lost, 2);
    assert_eq!(accountant.counts().refused, BTreeMap::from([("uuid".into(), 1), ("uuid_twice".into(), 1)]));
}

#[test]
fn late_readings_are_counted_and_a_boot_begins_anew() {
    let with = |energy| Gpu { given: vec![given("a")], ..gpu(energy) };
    let booted = |mono_ms: u64, wall_ms, energy| Reading { mono_ns: mono_ms * 1_000_000, ..at_wall(0, wall_ms, vec![with(energy)]) };
    let readings = [
        at(0, vec![with(100)]),
        at(2_000, vec![with(300)]),
        at(1_000, vec![with(200)]), // behind
        at(2_000, vec![with(300)]), // again
        Reading { missed: 4, ..at(3_000, vec![with(400)]) },
        booted(10_010, 60_500, 7_000), // a minute later: no time, and the energy since the driver was loaded
        booted(11_010, 61_500, 7_001),
        booted(3, 30_000, 1), // booted, and the clock behind until somebody sets it
        booted(1_003, 31_000, 2),
        booted(2_003, 32_000, 3),
        booted(3_003, 33_000, 4),
        Reading { boot: "third".into(), ..booted(3_004, 33_001, 4) },
        Reading { boot: "another".into(), ..booted(3_500, 33_500, 9) }, // its name says so
        Reading { boot: "another".into(), ..booted(4_500, 34_500, 10) },
    ];
    let want = [
        "held a exclusive 0-3000 1",
        "energy a exclusive 0 300",
        "held a exclusive 60500-61500 1",
        "energy a exclusive 60000 1",
        "energy - unseen 60000 7000",
        "held a exclusive 32000-33001 1",
        "energy a exclusive 0 1",
        "energy - unseen 0 3",
        "held a exclusive 33500-34500 1",
        "energy a exclusive 0 1",
        "energy - unseen 0 9",
    ];
    let accountant = check(&readings, &want);
    let counts = accountant.counts();
    assert_eq!((counts.late, counts.missed, counts.reboots, counts.resets), (4, 4, 3, 3));
}

#[test]
fn a_restart_goes_on_where_the_state_was_stored() {
    let with = |n: u64| Gpu {
        given: vec![given("a")],
        processes: vec![process(1, "a", 5)],
        uses: vec![used(1, 1 + n * 1_000_000, 33)],
        ..gpu(n * 7)
    };
    let readings: Vec<Reading> = (0..200).map(|n| at(n * 1_000 + 300, vec![with(n as u64)])).collect();
    let whole = tell(&mut new(), &readings);
    for stop in [1, 59, 60, 61, 150] {
        let (mut accountant, mut facts) = (new(), Facts::default());
        readings[..stop].iter().for_each(|reading| accountant.account(reading, &mut facts));
        let stored = serde_json::to_string(accountant.state()).unwrap();
        let state: State = serde_json::from_str(&stored).unwrap();
        let mut again = Accountant::restore(options(), state).unwrap();
        facts.list.extend(tell(&mut again, &readings[stop..]).list);
        assert_eq!(facts, whole, "stopped at {stop}");
    }
    // Too long a stop is unseen.
    let mut accountant = new();
    readings[..10].iter().for_each(|reading| accountant.account(reading, &mut Facts::default()));
    let state = accountant.state().clone();
    let mut again = Accountant::restore(options(), state).unwrap();
    tell(&mut again, &readings[30..31]);
    assert_eq!(again.counts().unseen_ms, 21_000);
}

#[test]
fn facts_are_told_when_their_window_is_over_and_only_once() {
    let mut accountant = new();
    let mut told = Vec::new();
    for second in 0..=125 {
        let mut facts = Facts::default();
        accountant.account(&at(second * 1_000, vec![gpu(0)]), &mut facts);
        told.extend(facts.list.iter().map(|fact| format!("{second}: {}", line(fact))));
    }
    assert_eq!(told, ["60: held - free 0-60000 1", "120: held - free 60000-120000 1"]);
    let mut facts = Facts::default();
    accountant.close(UnixNanos((TEN + 179) * NANOS_PER_SECOND), &mut facts);
    assert!(facts.list.is_empty());
    accountant.close(UnixNanos((TEN + 180) * NANOS_PER_SECOND), &mut facts);
    accountant.account(&at(126_000, vec![gpu(0)]), &mut facts);
    accountant.close(UnixNanos(i64::MAX), &mut facts);
    let lines: Vec<String> = facts.list.iter().map(line).collect();
    assert_eq!(lines, ["held - free 120000-125000 1", "held - free 125000-126000 1"]);
}

#[test]
fn options_that_cannot_be_are_refused_by_a_sentence() {
    let with = |window: i64, gap_max: i64, source: &str| Options {
        window: Span(window),
        gap_max: Span(gap_max),
        source: source.into(),
        ..options()
    };
    let s = NANOS_PER_SECOND;
    for good in [with(s, s, "a"), with(3_600 * s, 3_600 * s, "a"), with(90 * s, s, "a")] {
        assert_eq!(good.check(), Ok(()));
    }
    for bad in
        [with(0, s, "a"), with(7 * s, s, "a"), with(-60 * s, s, "a"), with(7_200 * s, s, "a"), with(60 * s, 0, "a"), with(60 * s, s, "")]
    {
        assert!(Accountant::new(bad.clone()).is_err(), "{bad:?}");
    }
}
