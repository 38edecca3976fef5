//! Golden cases whose facts are events: intervals (P3, P4, P14), copies and conflicts (P5, P6), shared devices (P11, P12); and the
//! rules for tiers, commitments, discounts, currencies, samples and shares.

use super::DAY;
use crate::card::{Card, CardConfig};
use crate::charge::Commitment;
use crate::facts::Doubt;
use crate::money::Money;
use crate::rate::{NoPrice, Rating, rate};
use flow::event::{EventKind, StreamId, UsageEvent, UsageFact};
use flow::units::{NANOS_PER_HOUR, NANOS_PER_MINUTE, UnixNanos};

pub fn yaml(text: &str) -> Card {
    let config: CardConfig = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Card::compile(&config, text.as_bytes())
        .unwrap_or_else(|errors| panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()))
}

/// A card of one version that is always valid. `prices`: one line each; `rest`: other sections.
pub fn always(prices: &str, rest: &str) -> Card {
    yaml(&format!("currency: USD\nversions:\n- name: v\n  from: 2025-01-01T00:00:00Z\n  prices:\n{prices}\n{rest}"))
}

/// Nanoseconds of a time on 2026-11-23: `10:20:30` or `10:20:30.500`.
pub fn at(text: &str) -> UnixNanos {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let ms = if text.len() > 8 { number(9..12) } else { 0 };
    let second = (number(0..2) * 60 + number(3..5)) * 60 + number(6..8);
    UnixNanos(DAY * NANOS_PER_MINUTE + second * 1_000_000_000 + ms * 1_000_000)
}

/// One event: `"tenant meter unit dim=value,..."`.
pub fn event(names: &str, kind: EventKind, from: UnixNanos, to: UnixNanos, quantity: i128, key: &str) -> UsageFact {
    let words: Vec<&str> = names.split(' ').collect();
    let dims = words.get(3).into_iter().flat_map(|dims| dims.split(',')).filter_map(|dim| dim.split_once('='));
    UsageFact {
        tenant: words[0].trim_matches('-').into(),
        meter: words[1].into(),
        unit: words[2].trim_matches('-').into(),
        dims: dims.map(|(name, value)| (name.to_string(), value.into())).collect(),
        minute: from.minute(),
        quantity,
        events: 1,
        stream: StreamId(1),
        from: 0,
        to: 1,
        received: to,
        event: Some(Box::new(UsageEvent { kind, at: from, end: to, key: key.into(), position: 7 })),
    }
}

fn held(names: &str, from: &str, to: &str, key: &str) -> UsageFact {
    event(names, EventKind::Interval, at(from), at(to), 1, key)
}

fn point(names: &str, time: &str, quantity: i128, key: &str) -> UsageFact {
    event(names, EventKind::Point, at(time), at(time), quantity, key)
}

/// `tenant sku_price_id HH:MM billable billed`, and `covered`, `fee`, `unused` or `idle` where a row is that.
fn lines(rating: &Rating) -> Vec<String> {
    let line = |row: &crate::Charge| {
        let mark = match (&row.commitment, &row.allocation) {
            (Some(Commitment::Used(_)), _) => format!(" covered {}", row.effective),
            (Some(Commitment::Fee(_)), _) => " fee".to_string(),
            (Some(Commitment::Unused(_)), _) => format!(" unused {}", row.effective),
            (_, Some(part)) if part.is_idle => " idle".to_string(),
            _ => String::new(),
        };
        let tenant = String::from_utf8_lossy(&row.series.tenant);
        let tenant = if tenant.is_empty() { "-" } else { &tenant };
        format!("{tenant} {} {} {} {}{mark}", row.sku_price_id(), &row.hour.rfc3339()[11..16], row.billable, row.billed)
    };
    rating.rows.iter().map(line).collect()
}

#[track_caller]
fn check(card: &Card, facts: &[UsageFact], want: &[&str]) -> Rating {
    let rating = rate(card, facts);
    assert_eq!(lines(&rating), want);
    for law in &rating.conservation {
        assert_eq!(law.residual(), (Money::ZERO, 0), "{law:?}");
    }
    rating
}

const GPU: &str = "  - { sku: gpu, meter: gpu, price: '2.50', per: 1, unit: Hours }";

#[test]
fn p3_interval_is_priced_once_and_distributed_over_its_hours() {
    let want = ["acme gpu@v 09:00 600000 0.416666666667", "acme gpu@v 10:00 1230000 0.854166666666"];
    for unit in ["ms", "Hours", "Seconds", "GPUs", "-"] {
        let facts = [held(&format!("acme gpu {unit}"), "09:50:00", "10:20:30", "hold-1")];
        let rating = check(&always(GPU, ""), &facts, &want);
        assert_eq!(rating.total().unwrap().to_string(), "1.270833333333");
        assert_eq!(rating.rows[0].series.unit, if unit == "GPUs" { "GPUs-ms" } else { "ms" });
        assert_eq!((rating.rows[0].scale, rating.rows[0].first_event.as_slice()), ((1, 3_600_000), &b"hold-1"[..]));
        assert_eq!(rating.rows[1].pricing_quantity().unwrap().to_string(), "0.341666666667");
    }
    // The price may be for 3,600 s as well, and for GPU-Hours.
    let seconds = always("  - { sku: gpu, meter: gpu, price: '2.50', per: 3600, unit: Seconds }", "");
    check(&seconds, &[held("acme gpu -", "09:50:00", "10:20:30", "")], &want);
    let devices = always("  - { sku: gpu, meter: gpu, price: '2.50', per: 1, unit: GPU-Hours }", "");
    check(&devices, &[held("acme gpu GPUs", "09:50:00", "10:20:30", "")], &want);
}

#[test]
fn p4_rate_change_within_an_interval_makes_two_rows_with_prices_of_their_own() {
    let card = yaml(
        "currency: USD\nversions:\n\
         - { name: old, from: 2026-01-01T00:00:00Z, to: 2026-11-23T10:20:00Z, prices: [{ sku: gpu, meter: gpu, price: '2.50', per: 1, unit: Hours }] }\n\
         - { name: new, from: 2026-11-23T10:20:00Z, prices: [{ sku: gpu, meter: gpu, price: '3.10', per: 1, unit: Hours }] }",
    );
    let want = ["acme gpu@old 10:00 1200000 0.833333333333", "acme gpu@new 10:00 2400000 2.066666666667"];
    let rating = check(&card, &[held("acme gpu -", "10:00:00", "11:00:00", "a")], &want);
    assert_eq!(rating.total().unwrap().to_string(), "2.900000000000");
}

#[test]
fn p5_duplicates_are_dropped_and_counted() {
    let one = point("acme tokens_out Tokens", "10:00:00", 1_000, "req-1");
    let mut copies = vec![one.clone(), one.clone(), one];
    (copies[1].stream, copies[1].received) = (StreamId(9), at("12:00:00")); // another agent, after a restart
    let card = always("  - { sku: out, meter: tokens_out, price: '1.50', per: 1000000, unit: Tokens }", "");
    let rating = check(&card, &copies, &["acme out@v 10:00 1000 0.001500000000"]);
    assert_eq!((rating.duplicates, rating.conflicts, rating.quarantine.len(), rating.rows[0].events), (2, 0, 0, 1));
    // A copy that comes after the window is another event; one of another meter is no copy.
    copies[2].received = UnixNanos(copies[0].received.0 + card.dedup_window.0 + 1);
    assert_eq!(rate(&card, &copies).duplicates, 1);
    copies[2].meter = "other".into();
    assert_eq!(rate(&card, &copies).duplicates, 1);
    copies.iter_mut().for_each(|fact| fact.event.as_mut().unwrap().key.clear());
    assert_eq!(rate(&card, &copies).duplicates, 0, "an event without key is never a copy");
}

#[test]
fn p6_conflict_keeps_the_first_and_shows_the_second_in_quarantine() {
    let first = point("acme tokens_out Tokens", "10:00:00", 1_000, "req-1");
    let mut second = UsageFact { quantity: 1_200, stream: StreamId(0), ..first.clone() };
    second.received = UnixNanos(first.received.0 + 1);
    let card = always("  - { sku: out, meter: tokens_out, price: '1.50', per: 1000000, unit: Tokens }", "");
    for facts in [[first.clone(), second.clone()], [second, first]] {
        let rating = check(&card, &facts, &["acme out@v 10:00 1000 0.001500000000"]);
        assert_eq!((rating.duplicates, rating.conflicts), (0, 1));
        let found = &rating.quarantine[0];
        assert_eq!(
            (found.why, found.quantity, found.key.as_slice(), found.stream, found.position),
            (Doubt::Conflict, 1_200, &b"req-1"[..], StreamId(0), 7)
        );
    }
}

const SHARED: &str = "shares:\n- { name: by-sm, origin: gpu, by: sm_time, join: [device], capacity: { held: 1 } }";

#[test]
fn p11_idle_gpu_is_a_row_of_its_own_or_shared_in_proportion() {
    let facts = [
        held("- gpu - device=GPU-1", "10:00:00", "11:00:00", "h"),
        point("B sm_time ms device=GPU-1,pid=2", "10:10:00", 1_800_000, "b"),
        point("A sm_time Seconds device=GPU-1,pid=1", "10:10:00", 900, "a"),
        point("C sm_time ms device=GPU-2", "10:10:00", 5, "c"),
    ];
    let want = ["- gpu@v 10:00 900000 0.625000000000 idle", "A gpu@v 10:00 900000 0.625000000000", "B gpu@v 10:00 1800000 1.250000000000"];
    let rating = check(&always(GPU, SHARED), &facts, &want);
    assert_eq!((rating.rows[0].attribution(), rating.rows[1].attribution()), ("unallocated", "attributed"));
    let part = rating.rows[1].allocation.as_ref().unwrap();
    assert_eq!((part.weight, part.weights, &*part.unit, &*part.method), (900_000, 3_600_000, "ms", "by-sm"));
    assert!(rating.unpriced.is_empty(), "weights need no price");
    let law = &rating.conservation[0];
    assert_eq!((law.held, law.allocated, law.idle, law.origin.to_string().as_str()), (3_600_000, 2_700_000, 900_000, "2.500000000000"));
    let proportional = SHARED.replace("join:", "idle: proportional, join:");
    let want = ["A gpu@v 10:00 1200000 0.833333333333", "B gpu@v 10:00 2400000 1.666666666667"];
    check(&always(GPU, &proportional), &facts, &want);
    // Nobody used it, or more than there is: idle is everything, or nothing, and never below nothing.
    for card in [always(GPU, SHARED), always(GPU, &proportional)] {
        check(&card, &facts[..1], &["- gpu@v 10:00 3600000 2.500000000000 idle"]);
    }
    let busy = [facts[0].clone(), facts[1].clone(), point("A sm_time ms device=GPU-1", "10:30:00", 3_600_000, "a")];
    check(&always(GPU, SHARED), &busy, &["A gpu@v 10:00 2400000 1.666666666667", "B gpu@v 10:00 1200000 0.833333333333"]);
    let owner = SHARED.replace("join:", "idle_to: platform, join:");
    check(&always(GPU, &owner), &facts[..1], &["platform gpu@v 10:00 3600000 2.500000000000 idle"]);
}

#[test]
fn an_exclusive_device_is_paid_by_its_owner_used_or_not() {
    let facts = [held("A gpu - device=GPU-1", "10:00:00", "11:00:00", "h"), point("A sm_time Seconds device=GPU-1", "10:10:00", 900, "a")];
    let card = always(GPU, &SHARED.replace("join:", "idle: owner, join:"));
    let want = ["A gpu@v 10:00 900000 0.625000000000", "A gpu@v 10:00 2700000 1.875000000000 idle"];
    check(&card, &facts, &want);
    check(&card, &facts[..1], &["A gpu@v 10:00 3600000 2.500000000000 idle"]);
}

#[test]
fn p12_mig_slices_pay_their_part_of_all_slices() {
    let slices = |tenant: &str, count: i128| {
        let names = format!("{tenant} mig Slices device=GPU-1");
        event(&names, EventKind::Interval, at("10:00:00"), at("11:00:00"), count, tenant)
    };
    let facts = [held("- gpu - device=GPU-1", "10:00:00", "11:00:00", "h"), slices("A", 1), slices("B", 2), slices("C", 3)];
    let card = always(GPU, "shares:\n- { name: mig, origin: gpu, by: mig, join: [device], capacity: { held: 7 } }");
    let want = [
        "- gpu@v 10:00 514286 0.357142857143 idle",
        "A gpu@v 10:00 514286 0.357142857143",
        "B gpu@v 10:00 1028571 0.714285714286",
        "C gpu@v 10:00 1542857 1.071428571428",
    ];
    let rating = check(&card, &facts, &want);
    assert_eq!(rating.total().unwrap().to_string(), "2.500000000000");
    assert_eq!(&*rating.rows[1].allocation.as_ref().unwrap().unit, "Slices-ms");
}

#[test]
fn a_server_is_shared_by_tokens_with_the_dimensions_that_are_kept() {
    let facts = [
        held("ops server - server=s1", "10:00:00", "12:00:00", "h"),
        point("A tokens_out Tokens server=s1,model=orca", "10:10:00", 300, "1"),
        point("B tokens_out Tokens server=s1,model=lynx", "10:10:00", 100, "2"),
    ];
    let prices = "  - { sku: server, meter: server, price: '4', per: 1, unit: Hours }\n  - { sku: out, meter: tokens_out, price: '0', per: 1, unit: Tokens }";
    let card = always(prices, "shares:\n- { name: tokens, origin: server, by: tokens_out, join: [server], keep: [model] }");
    let want = [
        "- server@v 11:00 3600000 4.000000000000 idle",
        "A server@v 10:00 2700000 3.000000000000",
        "A out@v 10:00 300 0.000000000000",
        "B server@v 10:00 900000 1.000000000000",
        "B out@v 10:00 100 0.000000000000",
    ];
    let rating = check(&card, &facts, &want);
    assert_eq!(rating.rows[1].series.dim("model"), b"orca");
    assert_eq!(rating.usage.iter().filter(|usage| usage.series.meter == "server").map(|usage| usage.quantity).sum::<i128>(), 7_200_000);
}

#[test]
fn p14_a_year_has_a_charge_for_each_utc_hour_whatever_a_zone_does() {
    let nanos = |minute: i64| UnixNanos(minute * NANOS_PER_MINUTE);
    let (start, end) = (nanos(DAY - 326 * 1_440), nanos(DAY + 39 * 1_440)); // 2026-01-01 to 2027-01-01
    assert_eq!((start.rfc3339().as_str(), end.rfc3339().as_str()), ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"));
    let rating = rate(&always(GPU, ""), &[event("acme gpu -", EventKind::Interval, start, end, 1, "year")]);
    assert_eq!((rating.rows.len(), rating.total().unwrap().to_string().as_str()), (8_760, "21900.000000000000"));
    assert!(rating.rows.iter().all(|row| row.billed.to_string() == "2.500000000000" && row.end.0 - row.hour.0 == NANOS_PER_HOUR));
    for (from, to, windows, want) in [
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23, "57.500000000000"),
        ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25, "62.500000000000"),
    ] {
        let of_day = rating.rows.iter().filter(|row| (from..to).contains(&row.hour.rfc3339().as_str())).map(|row| row.billed);
        assert_eq!((of_day.clone().count(), Money::sum(of_day).unwrap().to_string().as_str()), (windows, want));
    }
}

#[test]
fn intervals_that_cannot_be_are_in_quarantine_at_once() {
    let mut facts = vec![
        held("acme gpu -", "10:00:00", "10:00:00", "empty"),
        held("acme gpu -", "10:00:00", "09:00:00", "backwards"),
        event("acme gpu -", EventKind::Interval, UnixNanos(i64::MIN), UnixNanos(i64::MAX), 1, "endless"),
        event("acme gpu -", EventKind::BadQuantity, at("10:00:00"), at("10:00:00"), 0, "12 apples"),
        event("acme gpu -", EventKind::Future, at("10:00:00"), at("10:00:00"), 5, "soon"),
        event("acme gpu -", EventKind::Interval, at("10:00:00"), at("11:00:00"), i128::MAX, "huge"),
        event("acme gpu -", EventKind::Point, UnixNanos(i64::MAX), UnixNanos(i64::MAX), 1, "late"),
    ];
    facts.push(event("acme gpu Tokens", EventKind::Interval, at("10:00:00"), at("11:00:00"), 2, "three"));
    let rating = check(&always("  - { sku: gpu, meter: gpu, price: '2.50', per: 1, unit: GiB-Hours }", ""), &facts, &[]);
    let names: Vec<_> = rating.quarantine.iter().map(|one| one.why.name()).collect();
    assert_eq!(names, ["bad_interval", "bad_interval", "bad_quantity", "future", "bad_interval"]);
    let refused: Vec<_> = rating.refused.iter().map(|one| one.why.name()).collect();
    assert_eq!(refused, ["time_out_of_range", "unit_mismatch", "too_large"]);
}

#[test]
fn samples_hold_until_the_next_one_but_not_for_ever() {
    let level = |time: &str, quantity: i128, key: &str| event("acme memory GiB", EventKind::Sample, at(time), at(time), quantity, key);
    let facts = [
        level("09:58:00", 4, "a"),     // 3 minutes, of which 2 before 10:00
        level("10:01:00", 8, "b"),     // 30 s
        level("10:01:30", 2, "c"),     // nothing for an hour: 5 minutes
        level("11:01:30", 1_000, "d"), // the last one: nobody knows
    ];
    let card = always("  - { sku: mem, meter: memory, price: '6', per: 1, unit: GiB-Hours }", "");
    let minute = 60_000;
    let want = [
        format!("acme mem@v 09:00 {} 0.800000000000", 8 * minute),
        format!("acme mem@v 10:00 {} 1.800000000000", 4 * minute + 4 * minute + 10 * minute),
    ];
    let rating = check(&card, &facts, &want.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(rating.rows[0].series.unit, "GiB-ms");
    let late = [&facts[..], &[level("10:02:30", 0, "e")]].concat();
    assert_eq!(rate(&card, &late).rows[1].billable, 4 * minute + 4 * minute + 2 * minute);
}

const TIERED: &str = "  - { sku: out, meter: out, tiers: [{ up_to: 1000, price: '3' }, { up_to: 3000, price: '2' }, { price: '1' }], per: 1000, unit: Tokens }";

#[test]
fn r14_tiers_are_taken_in_the_order_of_events_and_cut_at_the_bound() {
    let facts = [
        point("acme out Tokens model=b", "10:00:10", 700, "2"),
        point("acme out Tokens model=a", "10:00:10", 600, "3"),
        point("acme out Tokens model=a", "09:00:00", 100, "1"),
        point("acme out Tokens model=a", "10:30:00", 2_000, "4"),
        point("beta out Tokens model=a", "10:00:00", 100, "5"),
    ];
    let want = [
        "acme out@v/1 09:00 100 0.300000000000",
        "acme out@v/1 10:00 200 0.600000000000",  // of 600: the event with the key 2 came first
        "acme out@v/2 10:00 2000 4.000000000000", // 400, and 1,600 of 2,000
        "acme out@v/3 10:00 400 0.400000000000",
        "acme out@v/1 10:00 700 2.100000000000", // model b
        "beta out@v/1 10:00 100 0.300000000000",
    ];
    let rating = check(&always(TIERED, ""), &facts, &want);
    let ends = |row: &crate::Charge| (row.first_event.clone(), row.last_event.clone());
    assert_eq!(ends(&rating.rows[1]), (b"3".to_vec(), b"3".to_vec()));
    assert_eq!(ends(&rating.rows[2]), (b"3".to_vec(), b"4".to_vec()));
    // The month after begins anew.
    let next = UsageFact { event: None, minute: DAY + 10 * 1_440, ..facts[3].clone() };
    let rating = rate(&always(TIERED, ""), &[&facts[..], &[next]].concat());
    assert!(lines(&rating).contains(&"acme out@v/1 00:00 1000 3.000000000000".to_string()));
}

#[test]
fn r14_an_interval_goes_over_a_bound_within_itself() {
    let card = always("  - { sku: gpu, meter: gpu, tiers: [{ up_to: 1, price: '6' }, { price: '3' }], per: 1, unit: Hours }", "");
    let want = [
        "acme gpu@v/1 09:00 1800000 3.000000000000",
        "acme gpu@v/1 10:00 1800000 3.000000000000",
        "acme gpu@v/2 10:00 1800000 1.500000000000",
        "acme gpu@v/2 11:00 600000 0.500000000000",
    ];
    check(&card, &[held("acme gpu -", "09:30:00", "11:10:00", "a")], &want);
}

#[test]
fn r15_commitments_cover_in_order_and_the_rest_is_unused() {
    let prices = "  - { sku: out, meter: out, price: '2', per: 1000, unit: Tokens }";
    let commit = "commitments:\n- { id: c1, tenant: acme, skus: [out], quantity: 3000, fee: '1', from: 2026-11-01T00:00:00Z, to: 2026-12-01T00:00:00Z }";
    let card = always(prices, commit);
    let mut facts = vec![point("acme out Tokens", "09:00:00", 1_000, "1"), point("beta out Tokens", "09:00:00", 1_000, "2")];
    let want = [
        "acme c1@commitment 00:00 1 1.000000000000 fee",
        "acme c1@commitment 00:00 2000 0.000000000000 unused 0.666666666667",
        "acme out@v 09:00 1000 0.000000000000 covered 0.333333333333",
        "beta out@v 09:00 1000 2.000000000000",
    ];
    let rating = check(&card, &facts, &want);
    assert_eq!((rating.rows[0].effective, rating.rows[2].list.to_string().as_str()), (Money::ZERO, "2.000000000000"));
    facts.push(point("acme out Tokens", "09:30:00", 1_500, "3"));
    facts.push(point("acme out Tokens", "09:40:00", 1_500, "4"));
    let want = [
        "acme c1@commitment 00:00 1 1.000000000000 fee",
        "acme out@v 09:00 1000 2.000000000000",
        "acme out@v 09:00 3000 0.000000000000 covered 1.000000000000",
        "beta out@v 09:00 1000 2.000000000000",
    ];
    check(&card, &facts, &want);
    // A day of the month: the fee was told when the month began, the rest will be when it ends.
    let mut all = crate::Facts::new(card.dedup_window);
    facts[..1].iter().for_each(|fact| all.add(fact));
    let day = |days: i64| UnixNanos((DAY + days * 1_440) * NANOS_PER_MINUTE);
    assert_eq!(lines(&all.rate_range(&card, day(0), day(1))), ["acme out@v 09:00 1000 0.000000000000 covered 0.333333333333"]);
    assert_eq!(lines(&all.rate_range(&card, day(-22), day(-21))), ["acme c1@commitment 00:00 1 1.000000000000 fee"]);
    assert_eq!(lines(&all.rate_range(&card, day(7), day(8))), ["acme c1@commitment 00:00 2000 0.000000000000 unused 0.666666666667"]);
}

#[test]
fn the_most_specific_discount_counts_for_its_time() {
    let prices = "  - { sku: out, meter: out, price: '2', per: 1000, unit: Tokens }";
    let discounts = "discounts:\n\
        - { meter: out, percent: '12.5' }\n\
        - { tenant: acme, sku: out, percent: '100', from: 2026-11-23T10:00:00Z, to: 2026-11-23T10:30:00Z }\n\
        - { tenant: beta, sku: out, price: '0.3' }";
    let facts = [
        point("acme out Tokens", "09:00:00", 1_000, "1"),
        point("acme out Tokens", "10:29:59", 1_000, "2"),
        point("acme out Tokens", "10:30:00", 3_000, "3"),
        point("beta out Tokens", "10:00:00", 1_000, "4"),
    ];
    let want = [
        "acme out@v 09:00 1000 1.750000000000",
        "acme out@v 10:00 1000 0.000000000000",
        "acme out@v 10:00 3000 5.250000000000",
        "beta out@v 10:00 1000 0.300000000000",
    ];
    let rating = check(&always(prices, discounts), &facts, &want);
    assert_eq!(
        (rating.rows[2].list.to_string(), rating.rows[2].contracted_price.to_string()),
        ("6.000000000000".into(), "1.750000000000".into())
    );
}

#[test]
fn r16_the_rate_of_the_day_is_applied_before_rounding_and_never_guessed() {
    let prices = "  - { sku: out, meter: out, price: '0.000000000001', per: 3, unit: Tokens, currency: EUR }";
    let rates = "currencies: { EUR: [{ from: 2026-11-23, rate: '1.5' }, { from: 2026-11-24, to: 2026-11-25, rate: '3' }] }";
    let on = |day: i64, key: &str| {
        let time = UnixNanos((DAY + day * 1_440) * NANOS_PER_MINUTE);
        event("acme out Tokens", EventKind::Point, time, time, 4, key)
    };
    // 4/3 x 1.5 = 2; rounded first it were 1 x 1.5. The day after: 4.
    let want = ["acme out@v 00:00 4 0.000000000002", "acme out@v 00:00 4 0.000000000004"];
    let rating = check(&always(prices, rates), &[on(-1, "0"), on(0, "1"), on(1, "2"), on(2, "3")], &want);
    assert_eq!(rating.rows[1].exchange.as_ref().map(|e| (e.rate.to_string(), &*e.currency)), Some(("3.000000000000".into(), "EUR")));
    assert_eq!(rating.unpriced.iter().map(|u| (u.why, u.quantity)).collect::<Vec<_>>(), [(NoPrice::NoRate, 4); 2]);
}

#[test]
fn every_mistake_of_agreements_and_shares_is_listed_at_once() {
    let text = "currency: USD\n\
        versions: [{ name: v, from: 2026-01-01T00:00:00Z, prices: [\n\
          { sku: a, meter: a, per: 1, unit: Tokens },\n\
          { sku: b, meter: b, price: '1', tiers: [{ price: '1' }], per: 1, unit: Tokens },\n\
          { sku: c, meter: c, tiers: [{ up_to: 5, price: '1' }, { up_to: 5, price: '1' }, { price: '-1' }], per: 1, unit: Tokens },\n\
          { sku: d, meter: d, price: '1', currency: GBP, per: 1, unit: Tokens }] }]\n\
        currencies: { EUR: [{ from: 2026-11-02, rate: '1' }, { from: 2026-11-02, rate: '0' }], usd: [] }\n\
        discounts: [{ percent: '101' }, { percent: '5', price: '1' }, { tenant: x, percent: '5' }, { tenant: x, percent: '6' }]\n\
        commitments: [{ id: '', tenant: '', skus: [], quantity: 0, fee: '-1', from: 2026-01-02T00:00:00Z }]\n\
        shares: [{ name: s, origin: a, by: w, capacity: { held: 0 } }, { name: s, origin: a, by: a }]\n\
        dedup_window: 1000d\n\
        focus: { provider: '', billing_account: { id: i, name: n }, services: { a: { name: s, category: AI, subcategory: Gen } } }\n\
        budgets: [{ name: n, amount: '0', alerts: [0] }]";
    let config: CardConfig = serde_saphyr::from_str(text).unwrap();
    let paths: Vec<_> = Card::compile(&config, b"").unwrap_err().into_iter().map(|error| error.path).collect();
    for want in [
        "versions[0].prices[0].price",
        "versions[0].prices[1].price",
        "versions[0].prices[2].tiers[1].up_to",
        "versions[0].prices[2].tiers[2].price",
        "versions[0].prices[3].currency",
        "currencies.EUR[1].rate",
        "currencies.EUR[1].from",
        "currencies.usd",
        "discounts[0].percent",
        "discounts[1]",
        "discounts[3]",
        "commitments[0].id",
        "commitments[0].tenant",
        "commitments[0].skus",
        "commitments[0].quantity",
        "commitments[0].fee",
        "commitments[0].from",
        "shares[1].name",
        "shares[0].capacity.held",
        "shares[1].origin",
        "shares[1].by",
        "dedup_window",
        "focus.provider",
        "focus.services.a.category",
        "budgets[0].amount",
        "budgets[0].alerts[0]",
    ] {
        assert!(paths.iter().any(|path| path == want), "{want} is missing in {paths:#?}");
    }
}
