//! From readings to the rows of a bill: P11, P12, a server of two tenants, and a node of 8 devices, 3 sharing modes and 5 tenants.

use super::*;
use bill::{Card, CardConfig, Charge, Money, Rating, rate};
use flow::event::{EventKind, StreamId, UsageEvent, UsageFact};

const CARD: &str = "currency: USD
versions:
- name: v
  from: 2025-01-01T00:00:00Z
  prices:
  - { sku: gpu, meter: gpu_held, price: '2.50', per: 1, unit: GPU-Hours }
  - { sku: energy, meter: gpu_energy, price: '0.12', per: 1, unit: kWh }
  - { sku: out, meter: tokens_out, price: '0', per: 1, unit: Tokens }
shares:
- { name: alone, origin: gpu_held, match: { mode: exclusive }, by: gpu_sm_time, join: [device, mode], idle: owner, capacity: { held: 1 } }
- { name: by-sm, origin: gpu_held, match: { mode: shared }, by: gpu_sm_time, join: [device, mode], capacity: { held: 1 } }
- { name: by-slices, origin: gpu_held, match: { mode: mig }, by: gpu_slices, join: [device, mode], capacity: { held: 7 } }
- { name: energy-alone, origin: gpu_energy, match: { mode: exclusive }, by: gpu_sm_time, join: [device, mode], idle: owner }
- { name: energy-by-sm, origin: gpu_energy, match: { mode: shared }, by: gpu_sm_time, join: [device, mode] }
- { name: energy-by-slices, origin: gpu_energy, match: { mode: mig }, by: gpu_slices, join: [device, mode] }
";

fn card(text: &str) -> Card {
    let config: CardConfig = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Card::compile(&config, text.as_bytes())
        .unwrap_or_else(|errors| panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()))
}

fn amounts() -> Accountant {
    Accountant::new(Options::default()).unwrap()
}

/// Facts as a meter with `usage: events` makes them of the lines.
fn usage(facts: &Facts) -> Vec<UsageFact> {
    let mut bytes = Vec::new();
    facts.put("weir.gpu", &mut bytes);
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(fact_of_line).collect()
}

fn fact_of_line(line: &[u8]) -> UsageFact {
    let record: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).unwrap();
    let text = |name: &str| record.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    let time = |name: &str| flow::time::TimeParser::new().parse(text(name).as_bytes(), flow::fields::Kind::Text).unwrap();
    let is_interval = record.contains_key("start");
    let (at, end) = if is_interval { (time("start"), time("end")) } else { (time("time"), time("time")) };
    let own = ["time", "source", "id", "type", "tenant", "meter", "quantity", "unit", "start", "end"];
    let dims = record.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    UsageFact {
        tenant: text("tenant").into(),
        meter: text("meter").into(),
        unit: text("unit").into(),
        dims: dims.map(|(name, value)| (name.clone(), value.as_str().unwrap().into())).collect(),
        minute: at.minute(),
        quantity: record["quantity"].as_u64().unwrap().into(),
        events: 1,
        stream: StreamId(1),
        from: 0,
        to: 1,
        received: end,
        event: Some(Box::new(UsageEvent {
            kind: if is_interval { EventKind::Interval } else { EventKind::Point },
            at,
            end,
            key: format!("{}|{}", text("source"), text("id")).into_bytes(),
            position: 7,
        })),
    }
}

/// `tenant meter quantity billed`, and `idle`; one line a row of a meter.
fn rows(rating: &Rating, meter: &str) -> Vec<String> {
    let line = |row: &Charge| {
        let tenant = String::from_utf8_lossy(&row.series.tenant);
        let mark = if row.allocation.as_ref().is_some_and(|part| part.is_idle) { " idle" } else { "" };
        format!("{} {} {}{mark}", if tenant.is_empty() { "-" } else { &tenant }, row.quantity, row.billed)
    };
    rating.rows.iter().filter(|row| row.series.meter == meter).map(line).collect()
}

fn rate_all(text: &str, facts: &[UsageFact]) -> Rating {
    let rating = rate(&card(text), facts);
    assert_eq!((rating.duplicates, rating.conflicts, rating.quarantine.len(), rating.refused.len()), (0, 0, 0, 0));
    for law in &rating.conservation {
        assert_eq!(law.residual(), (Money::ZERO, 0), "{law:?}");
    }
    rating
}

/// Readings of an hour, one a second, 360 W.
fn hour(gpu_at: impl Fn(u64) -> Gpu) -> Vec<Reading> {
    (0..=3_600).map(|second| at(second * 1_000, vec![Gpu { energy_mj: Some(second as u64 * 360_000), ..gpu_at(second as u64) }])).collect()
}

#[test]
fn p11_from_readings_to_the_bill() {
    let readings = hour(|second| Gpu {
        given: vec![replica("A", 0), replica("B", 1)],
        processes: vec![process(1, "A", 100), process(2, "B", 100)],
        uses: vec![used(1, 1 + second * 1_000_000, 25), used(2, 1 + second * 1_000_000, 50)],
        ..gpu(0)
    });
    let facts = usage(&tell(&mut amounts(), &readings));
    let rating = rate_all(CARD, &facts);
    let want = ["- 900000 0.625000000000 idle", "A 900000 0.625000000000", "B 1800000 1.250000000000"];
    assert_eq!(rows(&rating, "gpu_held"), want);
    // 0.36 kWh at 0.12, divided by SM time: 432 kJ and 864 kJ of 1,296 kJ.
    assert_eq!(rows(&rating, "gpu_energy"), ["A 432000000 0.014400000000", "B 864000000 0.028800000000"]);
    let proportional =
        CARD.replace("join: [device, mode], capacity: { held: 1 } }", "join: [device, mode], idle: proportional, capacity: { held: 1 } }");
    let rating = rate_all(&proportional, &facts);
    assert_eq!(rows(&rating, "gpu_held"), ["A 1200000 0.833333333333", "B 2400000 1.666666666667"]);
    // The same as one interval of an hour.
    let mut hourly = Accountant::new(Options { window: Span(NANOS_PER_HOUR), ..options() }).unwrap();
    assert_eq!(rows(&rate_all(CARD, &usage(&tell(&mut hourly, &readings))), "gpu_held"), want);
}

#[test]
fn p12_from_readings_to_the_bill() {
    let mig = |n: u32, tenant: &str| Mig {
        uuid: format!("MIG-{n}"),
        profile: format!("{n}g.{n}0gb"),
        gpu_instance: n,
        given: vec![given(tenant)],
        ..Mig::default()
    };
    let readings = hour(|_| Gpu { mig_enabled: true, migs: vec![mig(1, "A"), mig(2, "B"), mig(3, "C")], ..gpu(0) });
    let rating = rate_all(CARD, &usage(&tell(&mut amounts(), &readings)));
    let want = ["- 514286 0.357142857143 idle", "A 514286 0.357142857143", "B 1028571 0.714285714286", "C 1542857 1.071428571428"];
    assert_eq!(rows(&rating, "gpu_held"), want);
    assert_eq!(rows(&rating, "gpu_energy"), ["A 216000000 0.007200000000", "B 432000000 0.014400000000", "C 648000000 0.021600000000"]);
}

#[test]
fn a_device_of_one_tenant_is_paid_used_or_not() {
    let readings = hour(|second| Gpu {
        given: vec![given("A")],
        processes: vec![process(1, "", 100)],
        uses: vec![used(1, 1 + second * 1_000_000, 25)],
        ..gpu(0)
    });
    let rating = rate_all(CARD, &usage(&tell(&mut amounts(), &readings)));
    assert_eq!(rows(&rating, "gpu_held"), ["A 900000 0.625000000000", "A 2700000 1.875000000000 idle"]);
}

#[test]
fn two_tenants_in_one_server_are_told_apart_by_their_tokens() {
    let server = Owner { service: "chat".into(), model: "orca".into(), ..named("platform") };
    let readings = hour(|_| Gpu { given: vec![Given { owner: server.clone(), ..Given::default() }], ..gpu(0) });
    let mut facts = usage(&tell(&mut amounts(), &readings));
    for (tenant, tokens, minute) in [("A", 300, 3), ("B", 100, 59)] {
        let time = UnixNanos((TEN + minute * 60) * NANOS_PER_SECOND);
        facts.push(UsageFact {
            tenant: tenant.into(),
            meter: "tokens_out".into(),
            unit: "Tokens".into(),
            dims: vec![("service".into(), b"chat".to_vec()), ("model".into(), b"orca".to_vec())],
            minute: time.minute(),
            quantity: tokens,
            events: 1,
            stream: StreamId(2),
            from: 0,
            to: 1,
            received: time,
            event: None,
        });
    }
    let by_tokens = format!(
        "{}\n- {{ name: tokens, origin: gpu_held, match: {{ mode: exclusive, service: chat }}, by: tokens_out, join: [service] }}
- {{ name: tokens-energy, origin: gpu_energy, match: {{ mode: exclusive, service: chat }}, by: tokens_out, join: [service] }}",
        CARD.trim_end()
    );
    let rating = rate_all(&by_tokens, &facts);
    assert_eq!(rows(&rating, "gpu_held"), ["A 2700000 1.875000000000", "B 900000 0.625000000000"]);
    assert_eq!(rows(&rating, "gpu_energy"), ["A 972000000 0.032400000000", "B 324000000 0.010800000000"]);
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }
}

const TENANTS: [&str; 5] = ["t0", "t1", "t2", "t3", "t4"];

/// What the readings say, counted by another hand: by device ms and mJ, by (device, tenant) percent x us of shared devices.
#[derive(Default)]
struct Recount {
    ms: BTreeMap<String, u128>,
    mj: BTreeMap<String, u128>,
    sm: BTreeMap<(String, String), u128>,
}

/// 70 minutes of 8 devices: 3 exclusive (given to another tenant now and then), 3 shared, 2 with MIG.
fn node(seed: u64) -> (Vec<Reading>, Recount) {
    let mut random = Random(seed);
    let (mut readings, mut recount) = (Vec::new(), Recount::default());
    let (mut energies, mut owners) = ([1_000_000u64; 8], [0usize, 1, 2]);
    let (mut us, mut is_first) = (50_000_000u64 + random.below(1_000_000), true);
    let begin_us = us;
    while us < begin_us + 4_200_000_000 {
        let gap_us = 900_000 + random.below(6_000_000);
        us += gap_us;
        let mut gpus = Vec::new();
        for d in 0..8usize {
            let uuid = format!("GPU-{d}");
            let drawn = if d == 7 && random.below(200) == 0 { None } else { Some(random.below(700) * gap_us / 1_000) };
            let mut gpu = Gpu { uuid: uuid.clone(), ..gpu(0) };
            match drawn {
                Some(mj) => {
                    energies[d] += mj;
                    *recount.mj.entry(uuid.clone()).or_default() += if is_first { 0 } else { u128::from(mj) };
                }
                // The driver was loaded anew: what it counted since is added.
                None => {
                    energies[d] = 5;
                    *recount.mj.entry(uuid.clone()).or_default() += if is_first { 0 } else { 5 };
                }
            }
            gpu.energy_mj = Some(energies[d]);
            *recount.ms.entry(uuid.clone()).or_default() += if is_first { 0 } else { u128::from(gap_us) };
            match d {
                0..3 => {
                    if random.below(300) == 0 {
                        owners[d] = random.below(6) as usize;
                    }
                    gpu.given = TENANTS.get(owners[d]).map(|tenant| given(tenant)).into_iter().collect();
                    gpu.processes = TENANTS.get(owners[d]).map(|tenant| process(1, tenant, 900)).into_iter().collect();
                    gpu.uses = vec![used(1, us, random.below(101) as u32)];
                }
                3..6 => {
                    gpu.given = TENANTS.iter().enumerate().map(|(n, tenant)| replica(tenant, n as u32)).collect();
                    gpu.processes = TENANTS.iter().enumerate().map(|(n, tenant)| process(n as u32, tenant, random.below(9_000))).collect();
                    for (n, tenant) in TENANTS.iter().enumerate() {
                        let sm = random.below(20) as u32;
                        gpu.uses.push(used(n as u32, us, sm));
                        *recount.sm.entry((uuid.clone(), tenant.to_string())).or_default() +=
                            if is_first { 0 } else { u128::from(sm) * u128::from(gap_us) };
                    }
                }
                _ => {
                    gpu.mig_enabled = true;
                    let mig = |n: u32, tenant: &str| Mig {
                        uuid: format!("MIG-{d}-{n}"),
                        slices: n,
                        given: vec![given(tenant)],
                        ..Mig::default()
                    };
                    gpu.migs = vec![mig(1, "t0"), mig(2, "t3"), mig(3, "t4")];
                }
            }
            gpus.push(gpu);
        }
        let at_ns = TEN * NANOS_PER_SECOND + (us - begin_us) as i64 * 1_000 + random.below(200_000_000) as i64;
        readings.push(Reading { at_ns, mono_ns: us * 1_000, gpus, ..Reading::default() });
        is_first = false;
    }
    (readings, recount)
}

#[test]
fn shares_and_what_nobody_has_are_all_of_the_node_to_the_last_unit() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    println!("seed {seed}; WEIR_SEED takes another");
    let (readings, recount) = node(seed);
    let facts = usage(&tell(&mut amounts(), &readings));
    let rating = rate_all(CARD, &facts);
    for d in 0..8 {
        let uuid = format!("GPU-{d}");
        let of = |meter: &str| -> i128 {
            let rows = rating.rows.iter().filter(|row| row.series.meter == meter && row.series.dim("device") == uuid.as_bytes());
            rows.map(|row| row.quantity).sum()
        };
        assert_eq!(of("gpu_held") as u128, recount.ms[&uuid] / 1_000, "ms of {uuid}");
        assert_eq!(of("gpu_energy") as u128, recount.mj[&uuid], "mJ of {uuid}");
    }
    // On shared devices each tenant has the SM time that the driver told, but for what is below 1 ms.
    for ((uuid, tenant), amount) in &recount.sm {
        let is = |row: &&Charge| {
            row.series.meter == "gpu_held" && row.series.dim("device") == uuid.as_bytes() && row.series.tenant == tenant.as_bytes()
        };
        let ms: i128 = rating.rows.iter().filter(is).map(|row| row.quantity).sum();
        assert!((0..=1).contains(&(*amount as i128 / 100_000 - ms)), "{uuid} {tenant}: {ms} of {amount}");
    }
    let held = rating.conservation.iter().find(|law| law.share == "by-slices").unwrap();
    // 6 of 7 slices were given, in two hours of two devices, each rounded to a ms.
    assert!((held.held - held.idle * 7).abs() <= 7 * 4, "{held:?}");
    for meter in ["gpu_held", "gpu_energy"] {
        let tenants: BTreeSet<&[u8]> =
            rating.rows.iter().filter(|row| row.series.meter == meter).map(|row| row.series.tenant.as_slice()).collect();
        assert_eq!(tenants.len(), 6, "five tenants and nobody");
    }
}
