//! How long a day takes: 2.5 million events with keys, to charges, on one core; and how much memory.
//!
//! `cargo bench -p bill`. Facts are made one by one and never kept, so what is measured is `Facts` and `rate`. Some events come
//! twice. The target of the issue: 2 s and 200 MiB; a month of 30 such days 60 s.

use bill::card::{CardConfig, Parts, PriceConfig, TierConfig, VersionConfig};
use bill::{Card, EventRef, FactRef, Facts};
use flow::event::{EventKind, StreamId};
use flow::units::UnixNanos;
use std::time::Instant;

const DAY_NS: i64 = 86_400_000_000_000;
const START_NS: i64 = 1_795_392_000_000_000_000; // 2026-11-23
const METERS: [&str; 3] = ["tokens_in", "tokens_cached", "tokens_out"];

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
        prices: METERS.iter().map(|m| price(m)).collect(),
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

fn main() {
    let days: i64 = std::env::var("DAYS").ok().and_then(|days| days.parse().ok()).unwrap_or(1);
    let is_tiered = std::env::var_os("TIERS").is_some();
    let card = card(is_tiered);
    let requests = days * 2_500_000 / 3;
    let start = Instant::now();
    let mut facts = Facts::new(card.dedup_window);
    let mut state = 1u64;
    let (mut count, mut key) = (0u64, String::new());
    for request in 0..requests {
        let at = UnixNanos(START_NS + (DAY_NS * days / requests) * request / 1_000_000 * 1_000_000);
        let (tenant, service) = (next(&mut state) % 8, next(&mut state) % 32);
        key.clear();
        use std::fmt::Write;
        let (a, b) = (next(&mut state), next(&mut state));
        write!(key, "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", a as u32, a >> 28 & 0xffff, b & 0xfff, b >> 12 & 0xffff, request)
            .expect("a String takes every write");
        let service = format!("service-{service}");
        let tenant = format!("tenant-{tenant}");
        let copies = 1 + u64::from(request % 100 == 0);
        for (meter, quantity) in METERS.iter().zip([2_000, 700, 300]) {
            for copy in 0..copies {
                count += 1;
                facts.add_ref(FactRef {
                    tenant: tenant.as_bytes(),
                    meter,
                    unit: "Tokens",
                    dims: &[("service", service.as_bytes()), ("model", b"orca-8b-it")],
                    minute: at.minute(),
                    quantity,
                    events: 1,
                    stream: StreamId(1 + copy),
                    received: UnixNanos(at.0 + 1_234_567_891),
                    event: Some(EventRef { kind: EventKind::Point, at, end: at, key: key.as_bytes(), position: 520 * request as u64 }),
                });
            }
        }
    }
    let added = start.elapsed();
    println!("{count} events taken in: {added:?}, {} MiB held, {} KiB resident", facts.memory_bytes() >> 20, status("VmRSS"));
    let rating = facts.rate(&card);
    println!("{} rows, {} copies: {:?} in all; peak {} MiB", rating.rows.len(), rating.duplicates, start.elapsed(), status("VmHWM") >> 10);
    assert_eq!(rating.usage.iter().map(|usage| usage.events).sum::<u64>() + rating.duplicates, count);
}
