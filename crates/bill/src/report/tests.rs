//! Reports from charges written by hand, and laws over random ones. The oracle adds up charges by itself.

use super::*;
use crate::charge::Allocation;
use crate::rate::{NoPrice, Refusal};
use crate::testing::{Random, seed};
use crate::zone::tests::days_of;
use expect_test::{Expect, expect};
use flow::event::StreamId;
use std::sync::Arc;

/// 2026-11-23T00:00Z.
pub const DAY: i64 = 1_795_392_000 * 1_000_000_000;

pub fn series(tenant: &str, meter: &str, model: &str) -> Arc<Series> {
    let dims = vec![("model".to_string(), model.as_bytes().to_vec())];
    Arc::new(Series { tenant: tenant.as_bytes().to_vec(), dims, meter: meter.into(), unit: "Tokens".into() })
}

/// `"tenant meter model hours-after-DAY quantity cost"`, where `-` is no tenant.
pub fn charge(line: &str) -> Charge {
    let words: Vec<&str> = line.split(' ').collect();
    let tenant = if words[0] == "-" { "" } else { words[0] };
    let hour = UnixNanos(DAY + words[3].parse::<i64>().unwrap() * NANOS_PER_HOUR);
    let cost = Money::parse(words[5]).unwrap();
    Charge {
        series: series(tenant, words[1], words[2]),
        hour,
        end: UnixNanos(hour.0 + NANOS_PER_HOUR),
        category: Category::Usage,
        sku: format!("sku-{}", words[1]),
        version: "v1".into(),
        card: "00".into(),
        tier: 0,
        commitment: None,
        allocation: None,
        quantity: words[4].parse().unwrap(),
        billable: words[4].parse().unwrap(),
        unit: "Tokens".into(),
        per: 1,
        scale: (1, 1),
        price: Money::ZERO,
        contracted_price: Money::ZERO,
        exchange: None,
        list: cost,
        contracted: cost,
        effective: cost,
        billed: cost,
        events: 1,
        first_event: vec![],
        last_event: vec![],
    }
}

pub fn charges(lines: &[&str]) -> Vec<Charge> {
    lines.iter().map(|line| charge(line)).collect()
}

pub fn ledger(charges: &[Charge]) -> Ledger<'_> {
    Ledger { currency: "USD", charges, usage: None, unpriced: &[], refused: &[], held: &[] }
}

pub fn by(names: &[&str]) -> Options {
    Options { by: names.iter().map(|name| Dim::parse(name)).collect(), ..Options::default() }
}

fn at(hours: i64) -> UnixNanos {
    UnixNanos(DAY + hours * NANOS_PER_HOUR)
}

fn period(from: i64, to: i64) -> Option<Period> {
    Some(Period { from: at(from), to: at(to) })
}

fn picture(report: &Report) -> String {
    let table = report.table();
    std::iter::once(&table.header).chain(&table.rows).map(|cells| format!("{}\n", cells.join(" | "))).collect()
}

#[track_caller]
fn check(lines: &[&str], before: Option<&[&str]>, options: &Options, want: Expect) {
    let (now, before) = (charges(lines), before.map(charges));
    let report = summarize(&ledger(&now), before.as_deref().map(ledger).as_ref(), options).unwrap();
    want.assert_eq(&picture(&report));
}

const WEEK: [&str; 6] = [
    "acme in orca 0 100 1.00",
    "acme out orca 1 10 2.00",
    "beta in lynx 25 50 3.00",
    "- in orca 26 5 0.50",
    "gamma in orca 49 7 0.25",
    "acme in lynx 50 1 0.25",
];

#[test]
fn rows_have_shares_that_add_up_to_a_hundred() {
    check(
        &WEEK,
        None,
        &by(&["tenant"]),
        expect![[r#"
        tenant | usage | cost USD | share %
         | in 5 | 0.500000000000 | 7.14
        acme | in 101, out 10 | 3.250000000000 | 46.43
        beta | in 50 | 3.000000000000 | 42.86
        gamma | in 7 | 0.250000000000 | 3.57
        total | in 163, out 10 | 7.000000000000 | 100.00
    "#]],
    );
    check(
        &["a in x 0 1 1", "b in x 0 1 1", "c in x 0 1 1"],
        None,
        &by(&["tenant", "meter"]),
        expect![[r#"
        tenant | meter | usage | cost USD | share %
        a | in | 1 Tokens | 1.000000000000 | 33.34
        b | in | 1 Tokens | 1.000000000000 | 33.33
        c | in | 1 Tokens | 1.000000000000 | 33.33
        total |  | 3 Tokens | 3.000000000000 | 100.00
    "#]],
    );
    check(
        &["a in x 0 1 0"],
        None,
        &by(&["sku", "version", "category"]),
        expect![[r#"
        sku | version | category | usage | cost USD | share %
        sku-in | v1 | Usage | in 1 | 0.000000000000 | 
        total |  |  | in 1 | 0.000000000000 | 
    "#]],
    );
}

#[test]
fn a_report_can_be_sorted_by_cost_and_restricted() {
    let options = Options { sort: Sort::Cost, ..by(&["model"]) };
    check(
        &WEEK,
        None,
        &options,
        expect![[r#"
        model | usage | cost USD | share %
        orca | in 112, out 10 | 3.750000000000 | 53.57
        lynx | in 51 | 3.250000000000 | 46.43
        total | in 163, out 10 | 7.000000000000 | 100.00
    "#]],
    );
    let only = vec![(Dim::Tenant, b"acme".to_vec()), (Dim::Tenant, b"beta".to_vec()), (Dim::parse("tag:model"), b"lynx".to_vec())];
    let options = Options { only, period: period(24, 50), ..by(&["day"]) };
    check(
        &WEEK,
        None,
        &options,
        expect![[r#"
        day | usage | cost USD | share %
        2026-11-24 | in 50 | 3.000000000000 | 100.00
        total | in 50 | 3.000000000000 | 100.00
    "#]],
    );
}

#[test]
fn changes_name_what_is_new_and_gone_and_what_moved_most() {
    let before = ["acme in orca 0 1 2.50", "zeta in orca 0 1 0.75", "gamma in orca 0 1 0.25", "free in orca 0 1 0"];
    let now = [&WEEK[..], &["free in orca 0 1 1"]].concat();
    let options = Options { movers: 2, ..by(&["tenant"]) };
    check(
        &now,
        Some(&before),
        &options,
        expect![[r#"
        tenant | usage | cost USD | share % | change | change %
         | in 5 | 0.500000000000 | 6.25 | +0.500000000000 | new
        acme | in 101, out 10 | 3.250000000000 | 40.63 | +0.750000000000 | +30.00
        beta | in 50 | 3.000000000000 | 37.50 | +3.000000000000 | new
        free | in 1 | 1.000000000000 | 12.50 | +1.000000000000 | 
        gamma | in 7 | 0.250000000000 | 3.12 | 0.000000000000 | 0.00
        zeta |  | 0.000000000000 | 0.00 | -0.750000000000 | gone
        total | in 164, out 10 | 8.000000000000 | 100.00 | +4.500000000000 | +128.57
    "#]],
    );
    let report = summarize(&ledger(&charges(&now)), Some(&ledger(&charges(&before))), &options).unwrap();
    let names: Vec<_> = report.movers.iter().map(|place| show(&report.rows[*place].key[0])).collect();
    assert_eq!(names, ["beta", "free"]);
}

#[test]
fn days_and_months_are_compared_with_those_as_far_from_the_start() {
    let lines = ["a in x 0 1 1", "a in x 24 1 2", "a in x 48 1 4", "a in x 72 1 8"];
    let all = charges(&lines);
    let options = Options { period: period(48, 96), before: period(0, 48), ..by(&["day"]) };
    let report = summarize(&ledger(&all), Some(&ledger(&all)), &options).unwrap();
    expect![[r#"
        day | usage | cost USD | share % | change | change %
        2026-11-25 | in 1 | 4.000000000000 | 33.33 | +3.000000000000 | +300.00
        2026-11-26 | in 1 | 8.000000000000 | 66.67 | +6.000000000000 | +300.00
        total | in 2 | 12.000000000000 | 100.00 | +9.000000000000 | +300.00
    "#]]
    .assert_eq(&picture(&report));
    // October has 31 days, November 30: months are moved by months.
    let days = |d: i64| d * 24;
    let lines = [format!("a in x {} 1 1", days(-22 - 1)), format!("a in x {} 1 3", days(0))];
    let all = charges(&lines.each_ref().map(String::as_str));
    let options = Options { period: period(days(-22), days(8)), before: period(days(-53), days(-22)), ..by(&["month"]) };
    let report = summarize(&ledger(&all), Some(&ledger(&all)), &options).unwrap();
    expect![[r#"
        month | usage | cost USD | share % | change | change %
        2026-11 | in 1 | 3.000000000000 | 100.00 | +2.000000000000 | +200.00
        total | in 1 | 3.000000000000 | 100.00 | +2.000000000000 | +200.00
    "#]]
    .assert_eq(&picture(&report));
}

/// P14: a GPU is held all year at 2.50 an hour.
#[test]
fn p14_a_day_of_berlin_has_23_or_25_windows_and_utc_rows_stay() {
    let hour_of = |text: &str| (text.parse::<jiff::Timestamp>().unwrap().as_second() - DAY / 1_000_000_000) / 3_600;
    let year: Vec<Charge> = (hour_of("2026-01-01T00:00:00Z")..hour_of("2027-01-01T00:00:00Z"))
        .map(|hour| charge(&format!("acme gpu h100 {hour} 3600000 2.50")))
        .collect();
    for (day, cost, windows, utc) in
        [("2026-03-29", "57.500000000000", 23, "60.000000000000"), ("2026-10-25", "62.500000000000", 25, "60.000000000000")]
    {
        let days = days_of("Europe/Berlin", day.parse().unwrap(), 1);
        let period = Some(Period { from: days.from(), to: days.to() });
        let report = summarize(&ledger(&year), None, &Options { days: Some(days), period, ..by(&["day"]) }).unwrap();
        assert_eq!(report.rows.len(), 1);
        assert_eq!((show(&report.rows[0].key[0]).as_str(), report.rows[0].cost.to_string().as_str()), (day, cost));
        assert_eq!(report.rows[0].quantities.values().next().unwrap().events, windows);
        let report = summarize(&ledger(&year), None, &by(&["day"])).unwrap();
        let row = report.rows.iter().find(|row| show(&row.key[0]) == day).unwrap();
        assert_eq!(row.cost.to_string(), utc, "UTC days are as they were");
    }
    let days = days_of("Europe/Berlin", "2026-03-01".parse().unwrap(), 31);
    let report = summarize(&ledger(&year), None, &Options { days: Some(days), ..by(&["month"]) }).unwrap();
    let march = report.rows.iter().find(|row| row.key[0] == b"2026-03").unwrap();
    assert_eq!(march.cost.to_string(), "1857.500000000000", "743 hours");
    assert_eq!(report.total.cost.to_string(), "21900.000000000000", "what no day holds is a row of its own");
}

fn full_ledger() -> (Vec<Charge>, Vec<Usage>, Vec<Unpriced>, Vec<Refused>) {
    let mut charges = charges(&["acme in orca 0 60 0.60", "- in orca 0 5 0.05", "acme gpu h100 0 900 0.625", "- gpu h100 0 900 0.625"]);
    charges[0].quantity = 100; // 40 of it are priced by themselves
    for (charge, is_idle) in [(2, false), (3, true)] {
        let (method, origin, unit) = (Arc::from("sm"), Arc::from("gpu"), Arc::from("ms"));
        charges[charge].allocation = Some(Allocation { method, origin, weight: 1, weights: 2, unit, is_idle });
    }
    let used =
        |tenant: &str, meter: &str, quantity: i128| Usage { series: series(tenant, meter, "orca"), hour: at(0), quantity, events: 1 };
    let mut usage =
        vec![used("acme", "in", 100), used("", "in", 5), used("acme", "all-minus", 3), used("acme", "out", 7), used("acme", "bad", 9)];
    usage[4].events = 2;
    let unpriced = vec![Unpriced { series: series("acme", "out", "orca"), hour: at(0), quantity: 7, events: 1, why: NoPrice::NoPrice }];
    let bad = |from, to, quantity| Refused { series: series("acme", "bad", "orca"), from, to, quantity, events: 2, why: Refusal::TooLarge };
    let refused = vec![bad(at(0), at(1), 9), bad(UnixNanos(0), UnixNanos(0), i128::MAX)];
    (charges, usage, unpriced, refused)
}

#[test]
fn unpriced_unattributed_idle_and_refused_usage_have_rows_of_their_own() {
    let (charges, usage, unpriced, refused) = full_ledger();
    let held = [Quarantined {
        at: UnixNanos(i64::MAX),
        end: UnixNanos(i64::MAX),
        series: series("acme", "future", "orca"),
        why: Doubt::Future,
        quantity: 4,
        key: Vec::new(),
        stream: StreamId(1),
        position: 7,
        received: at(0),
    }];
    let ledger = Ledger { currency: "USD", charges: &charges, usage: Some(&usage), unpriced: &unpriced, refused: &refused, held: &held };
    let options = Options { by_status: true, period: period(0, 1), ..by(&["tenant"]) };
    let report = summarize(&ledger, None, &options).unwrap();
    expect![[r#"
        tenant | status | usage | cost USD | share %
         | unattributed | in 5 | 0.050000000000 | 2.63
         | unallocated | gpu 900 | 0.625000000000 | 32.90
        acme | attributed | all-minus 3, gpu 900, in 100 | 1.225000000000 | 64.47
        acme | unpriced | out 7 | no price | 0.00
        acme | quarantined | bad 170141183460469231731687303715884105727, future 4 | refused | 0.00
        total |  | all-minus 3, bad 9, future 0, gpu 1800, in 105, out 7 | 1.900000000000 | 100.00
    "#]]
    .assert_eq(&picture(&report));
    let total = report.total;
    for mask in 0..1u32 << Dim::NAMES.len() {
        let names: Vec<&str> = (0..Dim::NAMES.len()).filter(|i| mask >> i & 1 == 1).map(|i| Dim::NAMES[i]).collect();
        for by_status in [false, true] {
            let got = summarize(&ledger, None, &Options { by_status, ..by(&names) }).unwrap();
            assert_eq!(got.total, total, "{names:?}");
        }
    }
}

#[test]
fn a_row_travels_as_csv_and_json() {
    let mut rows = charges(&["x in orca 0 1 1", "x in orca 0 2 3"]);
    Arc::make_mut(&mut rows[0].series).tenant = b"a,\"b\"\r\n<\xff>".to_vec();
    let earlier = charges(&["x in orca 0 1 2"]);
    let report = summarize(&ledger(&rows), Some(&ledger(&earlier)), &by(&["tenant"])).unwrap();
    assert_eq!(
        report.csv(),
        "tenant,currency,cost,list_cost,contracted_cost,effective_cost,share_percent,change,cost_before,cost_change,change_percent,\
         in quantity (Tokens),in billable (Tokens),in unpriced (Tokens),in refused (Tokens),in events (Tokens)\r\n\
         \"a,\"\"b\"\"\r\n<\\xff>\",USD,1.000000000000,1.000000000000,1.000000000000,1.000000000000,25.00,new,0.000000000000,1.000000000000,,1,1,0,0,1\r\n\
         x,USD,3.000000000000,3.000000000000,3.000000000000,3.000000000000,75.00,changed,2.000000000000,1.000000000000,50.00,2,2,0,0,1\r\n"
    );
    let json = report.json();
    assert_eq!(json["rows"][0]["key_hex"][0], "612c226222".to_string() + "0d0a3cff3e");
    assert_eq!(json["rows"][1]["change"]["percent"], "50.00");
    assert_eq!(json["rows"][1]["cost"], "3.000000000000");
    assert_eq!(json["total"]["share_percent"], "100.00");
    assert_eq!(report.table().rows[0][0], "a,\"b\"\\r\\n<\\xff>", "a terminal is not commanded");
}

#[test]
fn shares_of_random_costs_add_up_and_are_within_one_hundredth() {
    let seed = seed();
    let mut random = Random(seed);
    for round in 0..2_000 {
        let rows: Vec<Charge> = (0..1 + random.below(40))
            .map(|tenant| {
                let mut one = charge(&format!("t{tenant} in x 0 1 0"));
                let size = (random.wide() >> 8) as i128 % 1_000_000_000_000_000_000;
                one.billed = Money(if random.below(8) == 0 { -size } else { size });
                one
            })
            .collect();
        let report = summarize(&ledger(&rows), None, &by(&["tenant"])).unwrap();
        let total: i128 = rows.iter().map(|row| row.billed.0).sum();
        if total == 0 {
            continue;
        }
        let shares: Vec<i128> = report.rows.iter().filter_map(|row| row.share).map(|share| share.0).collect();
        assert_eq!((shares.len(), shares.iter().sum::<i128>()), (report.rows.len(), 10_000), "seed {seed} round {round}");
        for row in &report.rows {
            // |share - 10000 cost / total| < 1
            let off = (row.share.unwrap().0 * total - row.cost.0 * 10_000).abs();
            assert!(off < total.abs(), "seed {seed} round {round}");
        }
    }
}

#[test]
fn percents_round_half_to_even() {
    for (part, whole, want) in [
        (1, 3, "33.33"),
        (2, 3, "66.67"),
        (1, 20_000, "0.00"),
        (3, 20_000, "0.02"),
        (-1, 3, "-33.33"),
        (1, -3, "-33.33"),
        (-5, -4, "125.00"),
    ] {
        assert_eq!(Percent::of(Money(part), Money(whole)).unwrap().to_string(), want);
    }
    assert_eq!(Percent::of(Money(1), Money(0)), None);
    assert_eq!(Percent::of(Money(i128::MAX), Money(1)), None);
}

#[test]
fn sums_beyond_38_digits_are_an_error() {
    let mut rows = charges(&["a in x 0 1 0", "b in x 0 1 0"]);
    rows.iter_mut().for_each(|row| row.billed = Money(flow::units::MONEY_UNITS_MAX));
    assert_eq!(summarize(&ledger(&rows), None, &by(&["meter"])), Err(Overflow));
    assert_eq!(summarize(&ledger(&rows), None, &by(&["tenant"])), Err(Overflow));
}
