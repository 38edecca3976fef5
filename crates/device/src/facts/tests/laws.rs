//! Laws over random readings: no time and no energy is lost or made, and nothing that cannot be is a panic.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// One step: what the clocks and the devices do until the next reading.
#[derive(Clone, Debug)]
struct Move {
    gap_ns: u64,
    wall_step_ns: i64,
    devices: Vec<DeviceMove>,
}

#[derive(Clone, Debug)]
struct DeviceMove {
    is_lost: bool,
    energy: Option<u64>,
    owners: u8,
    shape: u8,
    sm: u32,
}

fn device_moves() -> impl Strategy<Value = DeviceMove> {
    let energy = prop_oneof![8 => (0u64..900_000).prop_map(Some), 1 => Just(None), 1 => any::<u64>().prop_map(Some)];
    (prop::bool::weighted(0.1), energy, 0u8..4, 0u8..4, 0u32..110).prop_map(|(is_lost, energy, owners, shape, sm)| DeviceMove {
        is_lost,
        energy,
        owners,
        shape,
        sm,
    })
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let gap = prop_oneof![6 => 1u64..3_000_000_000, 1 => 1u64..60_000_000_000, 1 => 1u64..20_000_000_000_000];
    let step = prop_oneof![6 => Just(0i64), 1 => -4_000_000_000i64..4_000_000_000, 1 => -400_000_000_000i64..400_000_000_000];
    let one = (gap, step, vec(device_moves(), 3)).prop_map(|(gap_ns, wall_step_ns, devices)| Move { gap_ns, wall_step_ns, devices });
    vec(one, 1..60)
}

/// Readings, and by device how long it was seen (ns).
fn readings(moves: &[Move]) -> (Vec<Reading>, [u128; 3]) {
    let mut reading = at(0, vec![]);
    let mut energies = [0u64; 3];
    let (mut seen, mut was_here) = ([0u128; 3], [false; 3]);
    let mut found = Vec::new();
    for (n, one) in moves.iter().enumerate() {
        reading.mono_ns += one.gap_ns;
        reading.at_ns += one.gap_ns as i64 + one.wall_step_ns;
        reading.gpus.clear();
        for (d, device) in one.devices.iter().enumerate() {
            energies[d] =
                device.energy.map_or(energies[d], |energy| if energy < 900_000 { energies[d].wrapping_add(energy) } else { energy });
            let tenants = ["a", "b", "c"];
            let owners = &tenants[..usize::from(device.owners).min(3)];
            let mut gpu = Gpu { uuid: format!("GPU-{d}"), is_lost: device.is_lost, ..super::gpu(0) };
            gpu.energy_mj = device.energy.map(|_| energies[d]);
            gpu.processes = owners.iter().enumerate().map(|(n, tenant)| process(n as u32, tenant, u64::from(device.sm))).collect();
            gpu.uses = owners.iter().enumerate().map(|(p, _)| used(p as u32, reading.mono_ns / 1_000, device.sm)).collect();
            match device.shape {
                0 => gpu.given = owners.iter().map(|tenant| given(tenant)).collect(),
                1 => gpu.given = owners.iter().map(|tenant| replica(tenant, 0)).collect(),
                2 => {
                    let mig =
                        |n: usize, tenant: &&str| Mig { uuid: format!("MIG-{n}"), slices: 2, given: vec![given(tenant)], ..Mig::default() };
                    gpu.migs = owners.iter().enumerate().map(|(n, tenant)| mig(n, tenant)).collect();
                }
                _ => {}
            }
            if n > 0 && was_here[d] && !device.is_lost {
                seen[d] += u128::from(one.gap_ns);
            }
            was_here[d] = !device.is_lost;
            reading.gpus.push(gpu);
        }
        found.push(reading.clone());
    }
    (found, seen)
}

/// The energy that R18 lets stand, told by another hand: differences of one device.
fn naive_energy(readings: &[Reading], d: usize) -> u128 {
    let (mut last, mut sum): (Option<(u64, u64)>, u128) = (None, 0);
    for reading in readings {
        let gpu = &reading.gpus[d];
        let (false, Some(value)) = (gpu.is_lost, gpu.energy_mj) else { continue };
        if value > 1 << 56 {
            last = None;
            continue;
        }
        let Some((before, mono)) = last.replace((value, reading.mono_ns)) else { continue };
        let seconds = (reading.mono_ns - mono).div_ceil(1_000_000_000);
        let limit = |seconds: u64| u128::from(seconds) * 4_000_000;
        let (difference, limit) = if value < before { (value, limit(seconds.max(600))) } else { (value - before, limit(seconds)) };
        if u128::from(difference) <= limit {
            sum += u128::from(difference);
        } else if value >= before {
            last = None;
        }
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn time_and_energy_are_conserved_to_the_last_unit(moves in moves(), window in prop::sample::select(vec![1i64, 60, 600, 3_600]), is_amount: bool) {
        let (readings, seen) = readings(&moves);
        let form = if is_amount { Form::Amounts } else { Form::Intervals };
        let options = Options { window: Span(window * NANOS_PER_SECOND), form, ..Options::default() };
        let mut accountant = Accountant::new(options).unwrap();
        let facts = tell(&mut accountant, &readings);
        let sum = |meter: Meter, d: usize| -> u128 {
            let of = facts.list.iter().filter(|fact| fact.meter == meter && fact.dim("device") == format!("GPU-{d}"));
            of.map(Fact::amount).sum()
        };
        let held: u128 = (0..3).map(|d| sum(Meter::Held, d)).sum();
        let overlap = u128::from(accountant.counts().overlap_ms);
        let want: u128 = seen.iter().map(|ns| ns / 1_000_000).sum();
        prop_assert_eq!(held + overlap, want);
        if moves.iter().all(|one| one.wall_step_ns == 0) {
            for d in 0..3 {
                prop_assert_eq!(sum(Meter::Held, d), seen[d] / 1_000_000);
            }
        }
        for d in 0..3 {
            prop_assert_eq!(sum(Meter::Energy, d), naive_energy(&readings, d));
        }
        // Intervals of a device never overlap, none goes over an hour, and each fact has an id of its own.
        for d in 0..3 {
            let mut held: Vec<(i64, i64)> = facts.list.iter().filter(|fact| fact.meter == Meter::Held && fact.dim("device") == format!("GPU-{d}")).map(|fact| (fact.from_ms, fact.to_ms)).collect();
            held.sort();
            prop_assert!(held.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{:?}", held);
        }
        let hour = 3_600_000;
        let last = |fact: &Fact| (fact.to_ms - 1).max(fact.from_ms).div_euclid(hour);
        prop_assert!(facts.list.iter().all(|fact| fact.from_ms.div_euclid(hour) == last(fact) && fact.time_ms.div_euclid(hour) == last(fact)));
        let ids: BTreeSet<&str> = facts.list.iter().map(|fact| fact.id.as_str()).collect();
        prop_assert_eq!(ids.len(), facts.list.len());
        // The same readings give the same facts, wherever a restart cuts them.
        let cut = readings.len() / 2;
        let (mut one, mut again) = (Accountant::new(accountant.options.clone()).unwrap(), Facts::default());
        readings[..cut].iter().for_each(|reading| one.account(reading, &mut again));
        let state: State = serde_json::from_str(&serde_json::to_string(one.state()).unwrap()).unwrap();
        let mut two = Accountant::restore(accountant.options.clone(), state).unwrap();
        again.list.extend(tell(&mut two, &readings[cut..]).list);
        prop_assert_eq!(again, facts);
    }

    #[test]
    fn sm_time_is_conserved_with_what_is_carried(percents in vec((0u32..=100, 0u32..=100, 1u64..3_000_000), 1..200)) {
        let mut readings = vec![at(0, vec![gpu(0)])];
        let (mut us, mut want) = (0u64, [0u128; 2]);
        for (a, b, gap_us) in &percents {
            us += gap_us;
            want[0] += u128::from(*a) * u128::from(*gap_us);
            want[1] += u128::from(*b) * u128::from(*gap_us);
            let both = vec![process(1, "a", 0), process(2, "b", 0)];
            let uses = vec![used(1, 10_000_000 + us, *a), used(2, 10_000_000 + us, *b)];
            let mut reading = at(0, vec![Gpu { processes: both, uses, ..gpu(0) }]);
            reading.mono_ns += us * 1_000;
            reading.at_ns += us as i64 * 1_000;
            readings.push(reading);
        }
        let mut accountant = new();
        let facts = tell(&mut accountant, &readings);
        let told: u128 = facts.list.iter().filter(|fact| fact.meter == Meter::SmTime).map(|fact| u128::from(fact.quantity) * 100_000).sum();
        let carried: u128 = accountant.state().devices["GPU-1"].carry.sm.values().sum();
        prop_assert_eq!(told + carried, want[0] + want[1]);
    }

    #[test]
    fn parts_add_up_whatever_the_weights(total in 0u128..1 << 100, weights in vec((any::<u128>(), 1u32..128), 1..20)) {
        let weights: Vec<u128> = weights.into_iter().map(|(weight, shift)| weight >> shift).collect();
        let parts = apportion(total, &weights);
        prop_assert_eq!(parts.iter().sum::<u128>(), total);
        prop_assert_eq!(parts.len(), weights.len());
    }

    #[test]
    fn nothing_is_a_panic(times in vec((any::<i64>(), any::<u64>(), any::<u64>()), 1..20), numbers in vec(any::<u64>(), 8)) {
        let mut accountant = new();
        let mut facts = Facts::default();
        for (at_ns, mono_ns, missed) in times {
            let mut one = gpu(numbers[0]);
            one.processes = vec![Process { memory: Some(numbers[1]), ..process(numbers[2] as u32, "a", 0) }];
            one.uses = numbers.iter().map(|n| used(*n as u32, *n, *n as u32)).collect();
            one.busy = Some(numbers[3] as u32);
            one.memory_total = Some(numbers[4]);
            one.migs = vec![Mig { uuid: "MIG".into(), slices: numbers[5] as u32, profile: "99999999999g".into(), ..Mig::default() }];
            for (at_ns, mono_ns) in [(at_ns, mono_ns), (at_ns & i64::MAX >> 2, mono_ns >> 2)] {
                accountant.account(&Reading { at_ns, mono_ns, missed, gpus: vec![one.clone()], ..Reading::default() }, &mut facts);
            }
        }
        accountant.close(UnixNanos(i64::MIN), &mut facts);
        accountant.close(UnixNanos(i64::MAX), &mut facts);
        let mut bytes = Vec::new();
        facts.put("s", &mut bytes);
    }
}

/// A second of 8 devices with 10 processes each costs less than 0.5 % of a core, and one of 64 MIG devices and 500 processes less than
/// 3 %, with the sampler and everything else; here are the facts alone. Printed, and checked where `SLOW=1` (in a release build).
#[test]
fn facts_of_a_second_are_made_in_time() {
    let node = |second: u64, gpus: usize, migs: u32, processes: u32| -> Reading {
        let one = |d: usize| Gpu {
            uuid: format!("GPU-{d}"),
            given: if migs == 0 { (0..5).map(|n| replica(&format!("tenant-{n}"), n)).collect() } else { vec![] },
            migs: (0..migs)
                .map(|n| Mig { uuid: format!("MIG-{d}-{n}"), slices: 1, gpu_instance: n, given: vec![given("a")], ..Mig::default() })
                .collect(),
            processes: (0..processes).map(|n| process(n, &format!("tenant-{}", n % 5), second % 7 + 1)).collect(),
            uses: (0..processes).map(|n| used(n, second * 1_000_000, 3)).collect(),
            ..gpu(second * 300_000)
        };
        at(second as i64 * 1_000, (0..gpus).map(one).collect())
    };
    let seconds = if std::env::var_os("SLOW").is_some() { 600 } else { 20 };
    for (what, gpus, migs, processes, percent_max) in
        [("8 devices, 80 processes", 8, 0, 10, 0.1), ("64 MIG devices, 504 processes", 8, 8, 63, 1.0)]
    {
        let readings: Vec<Reading> = (0..seconds).map(|second| node(second, gpus, migs, processes)).collect();
        let begin = std::time::Instant::now();
        let facts = tell(&mut Accountant::new(Options::default()).unwrap(), &readings);
        let each = begin.elapsed() / seconds as u32;
        let percent = each.as_secs_f64() * 100.0;
        println!("{what}: {each:?} a second, {percent:.3} % of a core; {} facts", facts.list.len());
        assert!(seconds < 100 || cfg!(debug_assertions) || percent < percent_max);
    }
}
