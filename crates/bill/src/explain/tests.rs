//! Explanations of charges that `rate` made of random facts, and of rows written by hand.

use super::*;
use crate::card::{CardConfig, PriceConfig, VersionConfig};
use crate::testing::{Random, seed};
use expect_test::expect;
use flow::event::{StreamId, UsageEvent};

/// 2026-11-23T00:00Z, in minutes.
const DAY: i64 = 1_795_392_000 / 60;

fn price(sku: &str, meter: &str, minus: Option<&str>) -> PriceConfig {
    serde_json::from_value(serde_json::json!({
        "sku": sku, "meter": meter, "minus": minus, "price": "0.50", "per": 1_000_000, "unit": "Tokens",
    }))
    .unwrap()
}

fn card() -> Card {
    let prices = vec![price("in", "in", Some("cached")), price("cached", "cached", None), price("sku-gpu", "gpu", None)];
    let version = |name: &str, from: &str, to: Option<&str>| VersionConfig {
        name: name.into(),
        from: from.into(),
        to: to.map(str::to_string),
        prices: prices.clone(),
    };
    let versions = [version("v0", "2026-01-01T00:00:00Z", Some("2026-11-23T01:07:00Z")), version("v1", "2026-11-23T01:07:00Z", None)];
    let config: CardConfig = serde_json::from_value(serde_json::json!({ "currency": "USD", "versions": versions })).unwrap();
    Card::compile(&config, b"card").unwrap()
}

/// A row by hand, of the version that is valid at its hour.
fn charge(line: &str) -> Charge {
    Charge { version: "v0".into(), ..crate::report::tests::charge(line) }
}

fn fact(tenant: &str, meter: &str, minute: i64, quantity: i128) -> UsageFact {
    UsageFact {
        tenant: tenant.into(),
        meter: meter.into(),
        unit: "Tokens".into(),
        dims: vec![("model".into(), b"orca".to_vec())],
        minute: DAY + minute,
        quantity,
        events: 2,
        stream: StreamId(0xfeed),
        from: 100,
        to: 300,
        received: UnixNanos((DAY + minute) * NANOS_PER_MINUTE),
        event: None,
    }
}

/// An event at so many milliseconds after `DAY`.
fn event(meter: &str, unit: &str, kind: EventKind, ms: Range<i64>, quantity: i128, key: &str, received: i64) -> UsageFact {
    let at = |ms: i64| UnixNanos(DAY * NANOS_PER_MINUTE + ms * NANOS_PER_MS);
    let event = UsageEvent { kind, at: at(ms.start), end: at(ms.end), key: key.as_bytes().to_vec(), position: 250 };
    let minute = ms.start.div_euclid(60_000);
    UsageFact { unit: unit.into(), received: at(received), event: Some(Box::new(event)), ..fact("acme", meter, minute, quantity) }
}

fn parts(explanation: &Explanation) -> Vec<(&'static str, i128)> {
    explanation.parts.iter().flat_map(|part| part.lines.iter().map(|line| (line.kind, line.part))).collect()
}

#[test]
fn a_charge_names_its_facts_its_price_and_its_records() {
    let facts = [fact("acme", "in", 0, 2_034_567), fact("acme", "cached", 0, 800_000), fact("beta", "in", 0, 9), fact("acme", "in", 60, 9)];
    let card = card();
    let rating = crate::rate(&card, &facts);
    let row = rating.rows.iter().find(|row| row.sku == "in").unwrap();
    let got = explain(row, &facts, &Rules::new(&card));
    assert!(got.is_exact);
    let text = got.text().replace(&card.digest, "DIGEST");
    expect![[r#"
        meter in of tenant "acme", model "orca"
        2026-11-23T00:00:00Z to 2026-11-23T01:00:00Z: 0.617283500000
        price in of version v0, valid 2026-01-01T00:00:00Z to 2026-11-23T01:07:00Z, card DIGEST
          0.500000000000 for each 1000000 Tokens, contracted 0.500000000000
          list: 1234567 Tokens x 0.500000000000 / 1000000 = 1234567/2000000, rounded half to even: 0.617283500000
          billed: 0.617283500000 USD
        2 facts of meter in of tenant "acme", model "orca":
                       2034567  sum in 2026-11-23T00:00:00Z to 2026-11-23T00:01:00Z, stream 000000000000feed (100, 300]
                       -800000  minus cached 2026-11-23T00:00:00Z to 2026-11-23T00:01:00Z, stream 000000000000feed (100, 300]
          sum 1234567
    "#]]
    .assert_eq(&text);
    let json = serde_json::to_value(&got).unwrap();
    assert_eq!((&json["billable"], &json["parts"][0]["lines"][1]["part"]), (&"1234567".into(), &"-800000".into()));
    let missing = explain(row, &facts[1..], &Rules::new(&card));
    assert!(!missing.is_exact);
}

#[test]
fn a_delta_explained_by_all_facts_says_what_is_not_among_them() {
    let card = card();
    let mut row = crate::rate(&card, &[fact("acme", "cached", 0, 5), fact("acme", "in", 0, 5)]).rows.remove(0);
    row.billable = 7;
    let got = explain(&row, &[fact("acme", "cached", 0, 5), fact("acme", "in", 0, 9)], &Rules::new(&card)).text();
    assert!(got.contains("sum 5, but the charge says 7: 2 is not among these facts"), "{got}");
}

#[test]
fn the_first_received_event_with_a_key_counts() {
    let facts = [
        event("gpu", "Tokens", EventKind::Point, 10..10, 1_200, "a", 9_000),
        event("gpu", "Tokens", EventKind::Point, 10..10, 1_000, "a", 5_000),
        event("gpu", "Tokens", EventKind::Point, 10..10, 1_000, "a", 7_000),
        event("gpu", "Tokens", EventKind::Point, 20..20, 3, "b", 7_000),
        event("gpu", "Tokens", EventKind::Point, 20..20, 4, "", 7_000),
        event("gpu", "Tokens", EventKind::Point, 20..20, 4, "", 7_000),
        event("gpu", "Tokens", EventKind::Future, 20..20, 99, "c", 7_000),
    ];
    let row = charge("acme gpu orca 0 1011 1");
    let card = card();
    let got = explain(&row, &facts, &Rules::new(&card));
    assert_eq!(parts(&got), [("point", 1_000), ("point", 4), ("point", 4), ("point", 3)]);
    assert!(got.is_exact);
    // Long after, the same key is another event.
    let mut short = card.clone();
    short.dedup_window = Span(3_000 * NANOS_PER_MS);
    assert_eq!(parts(&explain(&row, &facts, &Rules::new(&short))).iter().filter(|part| part.1 >= 1_000).count(), 2);
}

#[test]
fn intervals_and_samples_count_their_milliseconds() {
    let card = card();
    // Held 00:50:00.000 to 01:20:30.000, two of them: 600 s in the first hour, 420 s of the second one under v0.
    let held = [event("gpu", "", EventKind::Interval, 3_000_000..4_830_000, 2, "", 0)];
    for (hour, version, want) in [(0, "v0", 1_200_000), (1, "v0", 840_000), (1, "v1", 1_620_000)] {
        let mut row = charge(&format!("acme gpu orca {hour} {want} 1"));
        row.version = version.into();
        std::sync::Arc::make_mut(&mut row.series).unit = "ms".into();
        let got = explain(&row, &held, &Rules::new(&card));
        assert_eq!((parts(&got), got.is_exact), (vec![("interval", want)], true), "{hour} {version}");
    }
    // 7 bytes from 00:58:00 (the next sample comes after 6 minutes: 5 count), 3 from 01:04:00 for 10 s.
    let level = |ms: i64, quantity| event("gpu", "Bytes", EventKind::Sample, ms..ms, quantity, "", 0);
    let samples = [level(3_480_000, 7), level(3_840_000, 3), level(3_850_000, 1)];
    for (hour, want) in [(0, vec![("sample", 7 * 120_000)]), (1, vec![("sample", 7 * 180_000), ("sample", 30_000)])] {
        let mut row = charge(&format!("acme gpu orca {hour} {} 1", want.iter().map(|part| part.1).sum::<i128>()));
        row.version = "v0".into();
        std::sync::Arc::make_mut(&mut row.series).unit = "Bytes-ms".into();
        let got = explain(&row, &samples, &Rules::new(&card));
        assert_eq!((parts(&got), got.is_exact), (want, true), "{hour}");
    }
}

#[test]
fn a_tier_names_what_was_used_before_it_and_cuts_at_its_bounds() {
    let card = card();
    let point = |ms: i64, quantity, key: &str| event("gpu", "Tokens", EventKind::Point, ms..ms, quantity, key, 0);
    let mut other = point(-90_000, 50, "z");
    other.dims[0].1 = b"lynx".to_vec();
    let facts = [point(30, 40, "b"), point(10, 30, "a"), point(50, 70, "c"), other, point(60, 5, "d"), fact("beta", "gpu", 0, 999)];
    // Order: lynx 50, a 30 (to 80), b 40 (to 120), c 70 (to 190), d 5; the tier is [100, 160).
    let mut row = charge("acme gpu orca 0 60 1");
    row.tier = 2;
    let rules = Rules { slice: Some((100, 160)), ..Rules::new(&card) };
    let got = explain(&row, &facts, &rules);
    assert_eq!(parts(&got), [("point", 20), ("point", 40)]);
    assert_eq!(got.before.iter().map(|line| line.part).collect::<Vec<_>>(), [50, 30]);
    assert!(got.is_exact);
    assert!(got.text().contains("before it in the month: 80 in 2 facts"));
    // A price with `minus` is known by the minute: the cut is a line of its own.
    let facts = [fact("acme", "in", 0, 100), fact("acme", "cached", 0, 30)];
    let mut row = charge("acme in orca 0 20 1");
    (row.tier, row.sku) = (2, "in".into());
    let got = explain(&row, &facts, &Rules { slice: Some((50, 1_000)), ..Rules::new(&card) });
    assert_eq!((parts(&got), got.is_exact), (vec![("sum", 100), ("minus", -30), ("cut", -50)], true));
}

/// What a card says of tiers, commitments and shares is enough to find the facts behind each row that rating makes.
#[test]
fn rows_of_tiers_commitments_and_shares_are_explained_by_the_card_alone() {
    let text = "currency: USD\n\
        versions: [{ name: v, from: 2026-01-01T00:00:00Z, prices: [\n\
          { sku: out, meter: out, tiers: [{ up_to: 1000, price: '3' }, { up_to: 2500, price: '2' }, { price: '1' }], per: 1, unit: Tokens },\n\
          { sku: in, meter: in, minus: [read, write], price: '1', per: 1, unit: Tokens },\n\
          { sku: gpu, meter: gpu, price: '2.50', per: 1, unit: GPU-Hours }] }]\n\
        commitments: [{ id: c, tenant: acme, skus: [in], quantity: 500, fee: '100', from: 2026-01-01T00:00:00Z }]\n\
        shares: [{ name: by-sm, origin: gpu, by: sm, join: [model], capacity: { held: 1 } }]";
    let config: CardConfig = serde_saphyr::from_str(text).unwrap();
    let card = Card::compile(&config, b"card").unwrap();
    let of = |mut fact: UsageFact, unit: &str| {
        fact.unit = unit.into();
        fact
    };
    let mut facts = Vec::new();
    for minute in 0..150 {
        facts.push(fact("acme", "out", minute, 31));
        facts.push(fact("acme", "in", minute, 20));
        facts.push(fact("acme", "read", minute, 7));
        facts.push(fact("acme", "write", minute, 2));
        facts.push(of(fact(["acme", "beta"][minute as usize % 2], "sm", minute, 21_001), "ms"));
    }
    facts.push(UsageFact { tenant: b"infra".to_vec(), ..event("gpu", "GPU", EventKind::Interval, 60_000..7_000_000, 1, "j", 0) });
    let rating = crate::rate(&card, &facts);
    let kind = |charge: &Charge| (charge.tier, charge.commitment.is_some(), charge.allocation.is_some());
    let kinds: BTreeSet<_> = rating.rows.iter().map(kind).collect();
    assert!(
        [(1, false, false), (2, false, false), (3, false, false), (0, true, false), (0, false, true)].iter().all(|k| kinds.contains(k)),
        "{kinds:?}"
    );
    for charge in &rating.rows {
        let got = explain(charge, &facts, &Rules::new(&card));
        assert!(got.is_exact, "{}", got.text());
    }
    let part = rating.rows.iter().find(|charge| charge.allocation.is_some() && charge.series.tenant == b"acme").unwrap();
    let got = explain(part, &facts, &Rules::new(&card));
    assert_eq!(got.parts.len(), 2, "the origin and the weights");
    // A sum that differs is told.
    assert!(!explain(part, &facts[..facts.len() - 10], &Rules::new(&card)).is_exact);
}

/// The law: the facts of every row add up to it, and every fact that is billed is behind exactly one row.
#[test]
fn facts_of_random_charges_add_up_to_them_exactly() {
    let seed = seed();
    let mut random = Random(seed);
    let card = card();
    for round in 0..30 {
        let mut facts = Vec::new();
        for _ in 0..200 {
            let tenant = ["", "acme", "beta"][random.below(3) as usize];
            let meter = ["in", "cached", "gpu", "free"][random.below(4) as usize];
            let minute = random.below(150) as i64;
            let quantity = random.below(1_000) as i128 * if meter == "in" { 3 } else { 1 };
            let mut one = fact(tenant, meter, minute, quantity);
            if random.below(4) == 0 {
                one.dims.push(("zone".into(), b"x".to_vec()));
            }
            facts.push(one);
        }
        let rating = crate::rate(&card, &facts);
        assert!(!rating.rows.is_empty() && !rating.refused.is_empty(), "seed {seed} round {round}");
        random.shuffle(&mut facts);
        for row in &rating.rows {
            let got = explain(row, &facts, &Rules::new(&card));
            let sum: i128 = got.parts.iter().flat_map(|part| &part.lines).map(|line| line.part).sum();
            assert!(got.is_exact && sum == row.billable, "seed {seed} round {round}: {}", got.text());
            assert!(got.arithmetic[0].ends_with(&format!("rounded half to even: {}", row.billed)), "{}", got.arithmetic[0]);
        }
    }
}
