//! How long a day takes: 2.5 million events with keys, to charges, on one core; and how much memory.
//!
//! `cargo bench -p bill`; a month: `cargo bench -p bill -- --facts 75M`. Facts are made one by one and never kept, so what is
//! measured is `Facts`, `rate` and the making of facts, which `--dry` measures alone. `--tiers`: the price has some. `--by-meter`:
//! all facts of one meter before those of the next, as files of the lake have them. Some events come twice. The target of the
//! issue: 2 s and 200 MiB for a day; 60 s for a month of 30 such days.

use bill::card::{CardConfig, Parts, PriceConfig, TierConfig, VersionConfig};
use bill::{Card, EventRef, FactRef, Facts, Rating};
use flow::event::{EventKind, StreamId};
use flow::units::UnixNanos;
use sha2::{Digest as _, Sha256};
use std::fmt::Write;
use std::time::Instant;

const DAY_NS: i64 = 86_400_000_000_000;
const START_NS: i64 = 1_795_392_000_000_000_000; // 2026-11-23
/// And what each request uses of it.
const METERS: [(&str, i128); 3] = [("tokens_in", 2_000), ("tokens_cached", 700), ("tokens_out", 300)];

fn card(is_tiered: bool) -> Card {
    let price = |meter: &str| PriceConfig {
        sku: meter.into(),
        meter: meter.into(),
        minus: Parts((meter == "tokens_in").then(|| "tokens_cached".into()).into_iter().collect()),
        price: (!is_tiered).then(|| "0.50".into()),
        tiers: if is_tiered {
            vec![TierConfig { up_to: Some(10_000_000), price: "0.50".into() }, TierConfig { up_to: None, price: "0.40".into() }]
        } else {
            vec![]
        },
        per: 1_000_000,
        unit: "Tokens".into(),
        ..PriceConfig::default()
    };
    let version = VersionConfig {
        name: "v".into(),
        from: "2026-01-01T00:00:00Z".into(),
        to: None,
        prices: METERS.iter().map(|(meter, _)| price(meter)).collect(),
    };
    let config = CardConfig { currency: "USD".into(), versions: vec![version], ..CardConfig::default() };
    Card::compile(&config, b"card").unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 20
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// What the process spent on a core so far, in s: unlike the clock it says little of who else is on the machine.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// All that was found, in 64 bits: two runs that print the same digest found the same.
struct Digest(Sha256);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

fn digest(rating: &Rating) -> String {
    let mut digest = Digest(Sha256::new());
    write!(digest, "{rating:?}").expect("a digest takes every write");
    digest.0.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `--facts 75M`: that many, from as many days as the reference load takes for them.
fn facts_wanted() -> i64 {
    let mut args = std::env::args().skip_while(|arg| arg != "--facts").skip(1);
    let Some(text) = args.next() else { return 2_500_000 };
    let (number, factor) = text.strip_suffix('M').map_or((text.as_str(), 1), |number| (number, 1_000_000));
    number.parse::<i64>().unwrap_or_else(|_| panic!("--facts {text}: a number, or a number of millions as in 75M")) * factor
}

fn has(flag: &str) -> bool {
    std::env::args().any(|arg| arg == flag)
}

fn main() {
    let (is_tiered, is_dry) = (has("--tiers"), has("--dry"));
    let card = card(is_tiered);
    let requests = facts_wanted() / 3;
    let gap_ns = DAY_NS * 3 / 2_500_000;
    let start = Instant::now();
    let mut facts = Facts::new(card.dedup_window);
    let (mut state, mut count, mut key) = (1u64, 0u64, String::new());
    // One turn with all meters of a request together, or a turn for each meter.
    let turns: &[&[(&str, i128)]] = if has("--by-meter") { &[&METERS[..1], &METERS[1..2], &METERS[2..]] } else { &[&METERS] };
    for (request, meters) in turns.iter().flat_map(|meters| (0..requests).map(move |request| (request, *meters))) {
        if request == 0 {
            state = 1;
        }
        let at = UnixNanos(START_NS + gap_ns * request / 1_000_000 * 1_000_000);
        let (tenant, service) = (next(&mut state) % 8, next(&mut state) % 32);
        key.clear();
        let (a, b) = (next(&mut state), next(&mut state));
        write!(key, "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", a as u32, a >> 28 & 0xffff, b & 0xfff, b >> 12 & 0xffff, request)
            .expect("a String takes every write");
        let service = format!("service-{service}");
        let tenant = format!("tenant-{tenant}");
        let copies = 1 + u64::from(request % 100 == 0);
        for (meter, quantity) in meters {
            for copy in 0..copies {
                count += 1;
                let fact = FactRef {
                    tenant: tenant.as_bytes(),
                    meter,
                    unit: "Tokens",
                    dims: &[("service", service.as_bytes()), ("model", b"orca-8b-it")],
                    minute: at.minute(),
                    quantity: *quantity,
                    events: 1,
                    stream: StreamId(1 + copy),
                    received: UnixNanos(at.0 + 1_234_567_891),
                    event: Some(EventRef { kind: EventKind::Point, at, end: at, key: key.as_bytes(), position: 520 * request as u64 }),
                };
                match is_dry {
                    true => _ = std::hint::black_box(fact),
                    false => facts.add_ref(fact),
                }
            }
        }
    }
    println!("{count} events {}: {:.2} s CPU, {:.2?}", if is_dry { "made only" } else { "taken in" }, cpu_seconds(), start.elapsed());
    if is_dry {
        return;
    }
    let resident = status("VmRSS");
    println!("  {} MiB held, {} MiB resident, {} bytes a fact", facts.memory_bytes() >> 20, resident >> 10, (resident << 10) / count);
    let rating = facts.rate(&card);
    let peak = status("VmHWM");
    println!("{} rows, {} copies: {:.2} s CPU, {:.2?} in all", rating.rows.len(), rating.duplicates, cpu_seconds(), start.elapsed());
    println!("  peak {} MiB, {} bytes a fact; digest {}", peak >> 10, (peak << 10) / count, digest(&rating));
    assert_eq!(rating.usage.iter().map(|usage| usage.events).sum::<u64>() + rating.duplicates, count);
}
