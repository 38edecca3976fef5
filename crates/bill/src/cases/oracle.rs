//! Rating against an oracle that shares no code with it: every event by itself, in decimal digits, over random cards with tiers,
//! discounts, commitments, currencies and units; and the law that order, batching and copies of facts do not show.

use super::events::{event, yaml};
use crate::card::Card;
use crate::rate::rate;
use crate::testing::{Random, seed};
use crate::{Commitment, Facts, Money};
use flow::event::{EventKind, StreamId, UsageFact};
use flow::units::UnixNanos;
use std::collections::BTreeMap;

/// A natural number in decimal digits, the lowest first.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Digits(Vec<u8>);

impl Digits {
    fn of(text: &str) -> Digits {
        Digits(text.bytes().rev().map(|b| b - b'0').collect()).trimmed()
    }

    fn trimmed(mut self) -> Digits {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    fn times(&self, other: &Digits) -> Digits {
        let mut out = vec![0u32; self.0.len() + other.0.len() + 1];
        for (i, a) in self.0.iter().enumerate() {
            for (j, b) in other.0.iter().enumerate() {
                out[i + j] += u32::from(*a) * u32::from(*b);
            }
        }
        let mut carry = 0;
        let digits = out.into_iter().map(|digit| {
            let sum = digit + carry;
            carry = sum / 10;
            (sum % 10) as u8
        });
        Digits(digits.collect()).trimmed()
    }

    fn is_below(&self, other: &Digits) -> bool {
        if self.0.len() != other.0.len() {
            return self.0.len() < other.0.len();
        }
        self.0.iter().rev().lt(other.0.iter().rev())
    }

    fn minus(&self, other: &Digits) -> Digits {
        let mut borrow = 0i8;
        let digits = self.0.iter().enumerate().map(|(i, digit)| {
            let value = *digit as i8 - other.0.get(i).copied().unwrap_or(0) as i8 - borrow;
            borrow = i8::from(value < 0);
            value.rem_euclid(10) as u8
        });
        Digits(digits.collect()).trimmed()
    }

    /// Long division as at school, half to even.
    fn over(&self, divisor: &Digits) -> i128 {
        let (mut rest, mut quotient) = (Digits(vec![]), 0i128);
        for digit in self.0.iter().rev() {
            rest.0.insert(0, *digit);
            rest = rest.trimmed();
            quotient *= 10;
            while !rest.is_below(divisor) {
                rest = rest.minus(divisor);
                quotient += 1;
            }
        }
        let twice = rest.times(&Digits::of("2"));
        let is_half = twice == *divisor;
        quotient + i128::from((is_half && quotient % 2 == 1) || (!is_half && divisor.is_below(&twice)))
    }
}

#[test]
fn the_oracle_can_calculate() {
    assert_eq!(Digits::of("123456789").times(&Digits::of("987654321")).over(&Digits::of("1000")), 121_932_631_112_635);
    for (value, by, want) in [("5", "2", 2), ("7", "2", 4), ("15", "10", 2), ("25", "10", 2), ("26", "10", 3), ("0", "3", 0)] {
        assert_eq!(Digits::of(value).over(&Digits::of(by)), want, "{value} over {by}");
    }
}

#[test]
fn products_of_any_length_are_rounded_once() {
    let seed = seed();
    let mut random = Random(seed);
    let mut compared = 0;
    for round in 0..3_000 {
        let some = |random: &mut Random| (0..1 + random.below(5)).map(|_| random.wide().max(1)).collect::<Vec<_>>();
        let (above, below) = (some(&mut random), some(&mut random));
        let product = |factors: &[u128]| factors.iter().fold(Digits::of("1"), |product, f| product.times(&Digits::of(&f.to_string())));
        let (a, b) = (product(&above), product(&below));
        let got = crate::money::exact(false, &above, &below);
        if a.0.len() > b.0.len() + 38 {
            assert!(got.is_err(), "seed {seed} round {round}");
        } else if a.0.len() < b.0.len() + 37 {
            compared += usize::from(above.len() > 2);
            assert_eq!(got, Ok(Money(a.over(&b))), "seed {seed} round {round}: {above:?} over {below:?}");
        }
    }
    assert!(compared > 200, "seed {seed}: {compared}");
}

/// `"1.5"` as `"1500000000000"`.
fn e12(text: &str) -> String {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{part:0<12}")
}

struct PriceSheet {
    sku: &'static str,
    /// (bound in meter units, price).
    tiers: Vec<(u128, String)>,
    is_flat: bool,
    per: u64,
    is_euro: bool,
}

type SomeDiscount = (Option<&'static str>, Option<&'static str>, Result<String, String>, i64, i64);
/// Tenant, time, key, model, meter.
type ItemKey = (Vec<u8>, i64, Vec<u8>, Vec<u8>, String);
/// Tenant, model, meter, hour, version, tier, discount, day rate, covered.
type SumKey = (Vec<u8>, Vec<u8>, String, i64, usize, u32, usize, usize, bool);

struct Sheet {
    /// Name, first and last minute, prices of the SKUs x and y.
    versions: Vec<(String, i64, i64, Vec<PriceSheet>)>,
    /// Tenant, SKU, percent or price, times.
    discounts: Vec<SomeDiscount>,
    /// First minute, last minute, rate.
    rates: Vec<(i64, i64, String)>,
    /// Of tenant a and SKU x, a month.
    commitment: Option<u128>,
}

const DAY: i64 = 1_440;
/// 2026-10-30, so that a month ends within the time.
const START: i64 = super::DAY - 24 * DAY;
/// SKU x is in Tokens; y is metered in ms and priced in Minutes.
const MS: u128 = 60_000;

fn time(minute: i64) -> String {
    UnixNanos(minute * 60_000_000_000).rfc3339()
}

fn decimal(random: &mut Random) -> String {
    let digits = random.below(13) as usize;
    let part = format!("{:012}", random.below(1_000_000_000_000));
    let whole = random.below(3);
    if digits == 0 { whole.to_string() } else { format!("{whole}.{}", &part[..digits]) }
}

fn some_sheet(random: &mut Random) -> Sheet {
    let cut = START + random.below(4 * 1_440) as i64;
    let gap = if random.below(3) == 0 { 60 } else { 0 };
    let mut versions = Vec::new();
    for (name, from, to) in [("old", START - DAY, cut), ("new", cut + gap, START + 60 * DAY)] {
        let mut prices = Vec::new();
        for (sku, size) in [("x", 1), ("y", MS)] {
            if random.below(8) == 0 {
                continue;
            }
            let is_flat = random.below(2) == 0;
            let mut tiers = Vec::new();
            let mut bound = 0;
            for _ in 0..if is_flat { 0 } else { random.below(3) } {
                bound += 1 + u128::from(random.below(60));
                tiers.push((bound * size, decimal(random)));
            }
            tiers.push((u128::MAX, decimal(random)));
            prices.push(PriceSheet { sku, tiers, is_flat, per: [1, 3, 7, 1_000][random.below(4) as usize], is_euro: random.below(3) == 0 });
        }
        if !prices.is_empty() {
            versions.push((name.to_string(), from, to, prices));
        }
    }
    let mut discounts = Vec::new();
    for (tenant, sku) in [(None, Some("x")), (Some("a"), None), (Some("a"), Some("x")), (Some("b"), Some("y"))] {
        let is_rival = |d: &(Option<&str>, Option<&str>, Result<String, String>, i64, i64)| {
            d.0.is_some() != tenant.is_some() && d.1.is_some() != sku.is_some()
        };
        if random.below(2) == 0 && !discounts.iter().any(is_rival) {
            let what =
                if random.below(2) == 0 { Ok(format!("{}.{:03}", random.below(100), random.below(1_000))) } else { Err(decimal(random)) };
            let from = START + random.below(3 * 1_440) as i64;
            discounts.push((tenant, sku, what, from, from + random.below(3 * 1_440) as i64 + 1));
        }
    }
    let mut rates = Vec::new();
    for day in 0..6 {
        if random.below(4) > 0 {
            rates.push((START + day * DAY, START + (day + 1) * DAY, format!("1{}", decimal(random))));
        }
    }
    Sheet { versions, discounts, rates, commitment: (random.below(2) == 0).then(|| 1 + u128::from(random.below(200))) }
}

fn card_of(sheet: &Sheet) -> Card {
    let mut text = "currency: USD\nversions:\n".to_string();
    for (name, from, to, prices) in &sheet.versions {
        text += &format!("- name: {name}\n  from: {}\n  to: {}\n  prices:\n", time(*from), time(*to));
        for price in prices {
            let (unit, size) = if price.sku == "x" { ("Tokens", 1) } else { ("Minutes", MS) };
            let tier = |(bound, amount): &(u128, String)| match *bound {
                u128::MAX => format!("{{ price: '{amount}' }}"),
                bound => format!("{{ up_to: {}, price: '{amount}' }}", bound / size),
            };
            let amount = match price.is_flat {
                true => format!("price: '{}'", price.tiers[0].1),
                false => format!("tiers: [{}]", price.tiers.iter().map(tier).collect::<Vec<_>>().join(", ")),
            };
            let currency = if price.is_euro { ", currency: EUR" } else { "" };
            text += &format!("  - {{ sku: {0}, meter: m{0}, {amount}, per: {1}, unit: {unit}{currency} }}\n", price.sku, price.per);
        }
    }
    let is_sold = |sku: &str| sheet.versions.iter().any(|(_, _, _, prices)| prices.iter().any(|price| price.sku == sku));
    let discounts: Vec<_> = sheet.discounts.iter().filter(|d| d.1.is_none_or(is_sold)).collect();
    text += if discounts.is_empty() { "" } else { "discounts:\n" };
    for (tenant, sku, what, from, to) in discounts {
        let name = |label: &str, name: &Option<&str>| name.map(|name| format!("{label}: {name}, ")).unwrap_or_default();
        let what = what.as_ref().map_or_else(|price| format!("price: '{price}'"), |percent| format!("percent: '{percent}'"));
        text += &format!("- {{ {}{}{what}, from: {}, to: {} }}\n", name("tenant", tenant), name("sku", sku), time(*from), time(*to));
    }
    text += "currencies:\n  EUR:\n  - { from: 2020-01-01, to: 2020-01-02, rate: '1' }\n";
    for (from, to, rate) in &sheet.rates {
        text += &format!("  - {{ from: {}, to: {}, rate: '{rate}' }}\n", &time(*from)[..10], &time(*to)[..10]);
    }
    if let Some(quantity) = sheet.commitment.filter(|_| is_sold("x")) {
        text += &format!("commitments: [{{ id: c, tenant: a, skus: [x], quantity: {quantity}, fee: '10', from: 2026-01-01T00:00:00Z }}]\n");
    }
    yaml(&text)
}

/// (tenant, model, meter, hour, SKU price, billable, list, contracted, covered).
type Line = (String, String, String, i64, String, i128, i128, i128, bool);

/// What the bill should be.
fn expected(sheet: &Sheet, facts: &[UsageFact]) -> Vec<Line> {
    // Events by themselves; sums by series and minute.
    let mut items: BTreeMap<ItemKey, u128> = BTreeMap::new();
    for fact in facts {
        let (at, key) = fact.event.as_ref().map_or((fact.minute * 60_000_000_000, vec![]), |e| (e.at.0, e.key.clone()));
        let model = fact.dims[0].1.clone();
        *items.entry((fact.tenant.clone(), at, key, model, fact.meter.clone())).or_default() += fact.quantity as u128;
    }
    let mut used: BTreeMap<(Vec<u8>, String, bool), u128> = BTreeMap::new();
    let mut covered: BTreeMap<bool, u128> = BTreeMap::new();
    let mut rows: BTreeMap<SumKey, u128> = BTreeMap::new();
    for ((tenant, at, _, model, meter), quantity) in items {
        let minute = at.div_euclid(60_000_000_000);
        let Some(version) = sheet.versions.iter().position(|v| v.1 <= minute && minute < v.2) else { continue };
        let sku = &meter[1..];
        let Some(price) = sheet.versions[version].3.iter().find(|price| price.sku == sku) else { continue };
        let rate = match price.is_euro {
            false => usize::MAX,
            true => match sheet.rates.iter().position(|rate| rate.0 <= minute && minute < rate.1) {
                Some(rate) => rate,
                None => continue,
            },
        };
        let discount = sheet.discounts.iter().enumerate().filter(|(_, d)| {
            d.0.is_none_or(|wanted| wanted.as_bytes() == tenant) && d.1.is_none_or(|wanted| wanted == sku) && d.3 <= minute && minute < d.4
        });
        let discount = discount.max_by_key(|(_, d)| d.0.is_some() as u8 + d.1.is_some() as u8).map_or(usize::MAX, |(index, _)| index);
        let is_november = minute >= START + 2 * DAY;
        let of_month = used.entry((tenant.clone(), sku.to_string(), is_november)).or_default();
        // One smallest unit after the other, in steps that end at a bound.
        let mut left = quantity;
        while left > 0 {
            let tier = price.tiers.iter().position(|tier| price.is_flat || *of_month < tier.0).unwrap();
            let mut step = left.min(price.tiers[tier].0 - if price.is_flat { 0 } else { *of_month });
            let so_far = covered.entry(is_november).or_default();
            let is_covered = sheet.commitment.is_some_and(|most| tenant == b"a" && sku == "x" && *so_far < most);
            if is_covered {
                step = step.min(sheet.commitment.unwrap() - *so_far);
                *so_far += step;
            }
            let tier = if price.is_flat { 0 } else { tier as u32 + 1 };
            let key = (tenant.clone(), model.clone(), meter.clone(), minute.div_euclid(60), version, tier, discount, rate, is_covered);
            *rows.entry(key).or_default() += step;
            *of_month += if price.is_flat { 0 } else { step };
            left -= step;
        }
    }
    let mut lines: Vec<Line> = Vec::new();
    for ((tenant, model, meter, hour, version, tier, discount, rate, is_covered), billable) in rows {
        let sheet_version = &sheet.versions[version];
        let price = sheet_version.3.iter().find(|price| price.sku == &meter[1..]).unwrap();
        let amount = &price.tiers[tier.saturating_sub(1) as usize].1;
        let size = if price.sku == "x" { 1 } else { MS };
        let cost = |amount: &str, percent: &str| {
            let keep = Digits::of(&e12("100")).minus(&Digits::of(&e12(percent)));
            let rate = if rate == usize::MAX { "1" } else { &sheet.rates[rate].2 };
            let above = Digits::of(&billable.to_string()).times(&Digits::of(&e12(amount))).times(&keep).times(&Digits::of(&e12(rate)));
            let below = Digits::of(&price.per.to_string()).times(&Digits::of(&size.to_string()));
            above.over(&below.times(&Digits::of(&e12("100"))).times(&Digits::of(&e12("1"))))
        };
        let list = cost(amount, "0");
        let contracted = match sheet.discounts.get(discount).map(|discount| &discount.2) {
            None => list,
            Some(Ok(percent)) => cost(amount, percent),
            Some(Err(own)) => cost(own, "0"),
        };
        let id = if tier == 0 { format!("{}@{}", price.sku, sheet_version.0) } else { format!("{}@{}/{tier}", price.sku, sheet_version.0) };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        lines.push((text(tenant), text(model), meter, hour, id, billable as i128, list, contracted, is_covered));
    }
    lines.sort();
    lines
}

fn some_facts(random: &mut Random, count: u64) -> Vec<UsageFact> {
    let mut facts = Vec::new();
    for index in 0..count {
        let tenant = ["a", "b"][random.below(2) as usize];
        let model = ["p", "q"][random.below(2) as usize];
        let (meter, unit, size) = [("mx", "Tokens", 1), ("my", "ms", 997 * 61)][random.below(2) as usize];
        // Few times, so that many events meet.
        let at = UnixNanos((START + random.below(5 * 48) as i64 * 30) * 60_000_000_000 + random.below(3) as i64 * 1_000_000);
        let quantity = i128::from(random.below(12) * size);
        let names = format!("{tenant} {meter} {unit} model={model}");
        let mut fact = event(&names, EventKind::Point, at, at, quantity, &format!("{:02x}-{index}", random.below(256)));
        if random.below(3) == 0 {
            fact.event = None;
        }
        facts.push(fact);
    }
    facts
}

#[test]
fn any_card_and_any_events_cost_what_the_oracle_says() {
    let seed = seed();
    let mut random = Random(seed);
    let (mut compared, mut tiered, mut covered) = (0, 0, 0);
    for round in 0..150 {
        let sheet = some_sheet(&mut random);
        if sheet.versions.is_empty() {
            continue;
        }
        let card = card_of(&sheet);
        let facts = some_facts(&mut random, 120);
        let rating = rate(&card, &facts);
        let mut got: Vec<Line> = Vec::new();
        for row in rating.rows.iter().filter(|row| row.sku != "c") {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let is_covered = row.commitment.is_some();
            assert_eq!(row.billed, if is_covered { Money::ZERO } else { row.contracted }, "seed {seed} round {round}");
            let (tenant, model) = (text(&row.series.tenant), text(row.series.dim("model")));
            let hour = row.hour.0 / 3_600_000_000_000;
            got.push((
                tenant,
                model,
                row.series.meter.clone(),
                hour,
                row.sku_price_id(),
                row.billable,
                row.list.0,
                row.contracted.0,
                is_covered,
            ));
        }
        got.sort();
        let want = expected(&sheet, &facts);
        assert_eq!(got, want, "seed {seed} round {round}");
        compared += want.len();
        tiered += want.iter().filter(|line| line.4.ends_with("/2")).count();
        covered += want.iter().filter(|line| line.8).count();
        // Effective cost of a month's commitment is its fee, whoever used it.
        let fees = rating.rows.iter().filter(|row| matches!(row.commitment, Some(Commitment::Fee(_)))).count() as i128;
        let spread = rating.rows.iter().filter(|row| matches!(row.commitment, Some(Commitment::Used(_) | Commitment::Unused(_))));
        assert_eq!(spread.map(|row| row.effective.0).sum::<i128>(), fees * 10_000_000_000_000, "seed {seed} round {round}");
    }
    assert!(
        compared > 5_000 && tiered > 100 && covered > 100,
        "seed {seed}: {compared} rows, {tiered} in the second tier, {covered} covered"
    );
}

const EVERYTHING: &str = "
currency: USD
versions:
- name: old
  from: 2026-10-01T00:00:00Z
  to: 2026-11-01T03:17:00Z
  prices: &prices
  - { sku: x, meter: mx, tiers: [{ up_to: 50, price: '3' }, { up_to: 300, price: '2' }, { price: '1' }], per: 7, unit: Tokens }
  - { sku: y, meter: my, price: '0.7', per: 13, unit: Minutes, currency: EUR }
  - { sku: gpu, meter: gpu, price: '2.5', per: 1, unit: Hours }
  - { sku: mem, meter: mem, price: '0.01', per: 1, unit: GiB-Hours }
- { name: new, from: 2026-11-01T03:17:00Z, prices: *prices }
currencies: { EUR: [{ from: 2026-10-30, rate: '1.1' }, { from: 2026-10-31, rate: '1.2' }, { from: 2026-11-01, rate: '1.3' }] }
discounts: [{ tenant: a, sku: gpu, percent: '7.7' }]
commitments:
- { id: c1, tenant: a, skus: [x], quantity: 60, fee: '10', from: 2026-10-01T00:00:00Z }
- { id: c2, tenant: b, skus: [gpu], quantity: 5, fee: '3', from: 2026-10-01T00:00:00Z }
shares: [{ name: s, origin: gpu, by: my, join: [model], capacity: { held: 1 } }]
";

#[test]
fn any_order_batching_and_copying_of_all_kinds_of_facts_gives_the_same_rating() {
    let seed = seed();
    let mut random = Random(seed);
    let card = yaml(EVERYTHING);
    for round in 0..12 {
        let mut facts = some_facts(&mut random, 150);
        for index in 0..60u64 {
            let at = UnixNanos((START + random.below(4 * 1_440) as i64) * 60_000_000_000 + random.below(60_000) as i64 * 1_000_000);
            let end = UnixNanos(at.0 + random.below(20_000) as i64 * 1_000_000_000);
            let names = format!("{} gpu GPUs model={}", ["a", "b", "-"][random.below(3) as usize], ["p", "q"][random.below(2) as usize]);
            facts.push(event(&names, EventKind::Interval, at, end, random.below(3) as i128, &format!("gpu-{index}")));
            let names = format!("{} mem MiB model=p", ["a", "b"][random.below(2) as usize]);
            facts.push(event(&names, EventKind::Sample, at, at, random.below(9_000) as i128, &format!("mem-{}", index / 2)));
        }
        let want = rate(&card, &facts);
        assert!(want.conflicts > 0 && want.duplicates == 0 && want.rows.iter().any(|row| row.allocation.is_some()), "seed {seed}");
        for law in &want.conservation {
            assert_eq!(law.residual(), (Money::ZERO, 0), "seed {seed} round {round}");
        }
        // Copies by other streams, later; sums in two halves; all of it in any order.
        let mut turned = Vec::new();
        for fact in &facts {
            if fact.event.is_none() {
                let half = fact.quantity / 2;
                turned.push(UsageFact { quantity: half, events: 0, ..fact.clone() });
                turned.push(UsageFact { quantity: fact.quantity - half, stream: StreamId(random.next()), ..fact.clone() });
                continue;
            }
            turned.push(fact.clone());
        }
        random.shuffle(&mut turned);
        let mut all = Facts::new(card.dedup_window);
        turned.iter().for_each(|fact| all.add(fact));
        assert!(all.rate(&card) == want, "seed {seed} round {round}");
        assert!(all.rate(&card) == want, "seed {seed} round {round}: rated once more");
        let events: Vec<UsageFact> = turned.iter().filter(|fact| fact.event.is_some()).cloned().collect();
        for fact in &events {
            let copy = UsageFact { stream: StreamId(u64::MAX), received: UnixNanos(fact.received.0 + 1_000_000_000_000), ..fact.clone() };
            all.add(&copy);
        }
        let copied = all.rate(&card);
        assert_eq!((&copied.rows, &copied.usage, &copied.unpriced), (&want.rows, &want.usage, &want.unpriced), "seed {seed} round {round}");
        assert!(copied.duplicates > 0);
        if round > 2 {
            continue;
        }
        // Days of it, one after the other, are the rows of all of it.
        let day = |index: i64| UnixNanos((START + index * DAY) * 60_000_000_000);
        let days: Vec<_> = (-1..30).flat_map(|index| all.rate_range(&card, day(index), day(index + 1)).rows).collect();
        let is_usage = |row: &&crate::Charge| row.sku != "c1" && row.sku != "c2";
        assert_eq!(days.iter().filter(is_usage).count(), want.rows.iter().filter(is_usage).count(), "seed {seed} round {round}");
        let total = |rows: &[crate::Charge]| Money::sum(rows.iter().filter(is_usage).map(|row| row.billed)).unwrap();
        assert_eq!(total(&days), total(&want.rows), "seed {seed} round {round}");
    }
}
