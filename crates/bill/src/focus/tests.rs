//! What is exported passes our own check, and each seeded fault is found by the rule it breaks.

use super::check::{Findings, Options, check_csv};
use super::*;
use crate::charge::{Allocation, Category, Commitment, Exchange, Series};
use flow::units::{NANOS_PER_HOUR, NANOS_PER_SECOND};
use std::sync::Arc;

fn at(text: &str) -> UnixNanos {
    UnixNanos(check::parse_time(text).unwrap() * NANOS_PER_SECOND)
}

fn money(text: &str) -> Money {
    Money::parse(text).unwrap()
}

/// A charge of one hour: `billable` units at `price` for `per`.
fn charge(tenant: &str, sku: &str, meter: &str, unit: &str, billable: i128, price: &str, per: u64) -> Charge {
    let hour = at("2026-10-02T09:00:00Z");
    let cost = crate::money::cost(billable, money(price), per).unwrap();
    Charge {
        series: Arc::new(Series {
            tenant: tenant.as_bytes().to_vec(),
            dims: vec![("model".into(), b"orca-8b".to_vec()), ("service".into(), b"chat".to_vec())],
            meter: meter.into(),
            unit: unit.into(),
        }),
        hour,
        end: UnixNanos(hour.0 + NANOS_PER_HOUR),
        category: Category::Usage,
        sku: sku.into(),
        version: "2026-10".into(),
        card: Arc::from("0123456789abcdef".repeat(4)),
        tier: 0,
        commitment: None,
        allocation: None,
        quantity: billable,
        billable,
        unit: Arc::from(unit),
        per,
        scale: (1, 1),
        price: money(price),
        contracted_price: money(price),
        exchange: None,
        list: cost,
        contracted: cost,
        effective: cost,
        billed: cost,
        events: 7,
        first_event: b"req-1\x1f0".to_vec(),
        last_event: b"req-9\x1f0".to_vec(),
    }
}

fn gpu(tenant: &str, ms: i128, price: &str) -> Charge {
    let mut row = charge(tenant, "gpu-h100", "gpu_held", "Hours", ms, price, 3_600_000);
    row.series = Arc::new(Series {
        tenant: tenant.as_bytes().to_vec(),
        dims: vec![("gpu".into(), b"GPU-aa-00".to_vec()), ("gpu_model".into(), b"H100".to_vec()), ("region".into(), b"eu-west".to_vec())],
        meter: "gpu_held".into(),
        unit: "ms".into(),
    });
    (row.scale, row.per) = ((1, 3_600_000), 1);
    row
}

/// One hour of a MIG device at 2.50, divided in sevenths.
fn mig() -> Vec<Charge> {
    let weights = [("a", 1u64, false), ("b", 2, false), ("c", 3, false), ("", 1, true)];
    let list: Vec<u64> = weights.iter().map(|(_, weight, _)| *weight).collect();
    let (costs, _) = crate::money::apportion(money("2.50"), 12, &list).unwrap();
    let (times, _) = crate::money::apportion(Money(3_600_000), 12, &list).unwrap();
    let part = |((tenant, weight, is_idle), (cost, ms)): (&(&str, u64, bool), (&Money, &Money))| {
        let mut row = gpu(tenant, ms.0, "2.50");
        (row.list, row.contracted, row.effective, row.billed) = (*cost, *cost, *cost, *cost);
        row.allocation = Some(Allocation {
            method: "mig-by-slices".into(),
            origin: "gpu_held of GPU-aa-00 at 09".into(),
            weight: u128::from(*weight),
            weights: 7,
            unit: "Slices".into(),
            is_idle: *is_idle,
        });
        row
    };
    weights.iter().zip(costs.iter().zip(&times)).map(part).collect()
}

/// Every kind of row that there is.
fn charges() -> Vec<Charge> {
    let mut rows = vec![
        charge("acme", "chat-in", "tokens_in", "Tokens", 1_234_567, "0.50", 1_000_000),
        charge("acme", "chat-cached", "tokens_cached", "Tokens", 800_000, "0.05", 1_000_000),
        charge("société", "chat-out", "tokens_out", "Tokens", 345_678, "1.50", 1_000_000),
        charge("", "chat-out", "tokens_out", "Tokens", 2_000, "1.50", 1_000_000),
        charge("acme", "log-ingest", "log_bytes", "GiB", 123_456_789, "0.25", 1 << 30),
        charge("acme", "free-requests", "requests", "Requests", 12, "0", 1),
        gpu("acme", 600_000, "2.50"),
        gpu("beta, \"quoted\"\nline", 3_600_000, "2.50"),
    ];
    rows[4].per = 1;
    rows[4].scale = (1, 1 << 30);
    rows.extend(mig());
    let mut foreign = gpu("acme", 1_234_567, "2.31");
    foreign.sku = "gpu-b200".into();
    foreign.exchange = Some(Exchange { currency: "EUR".into(), rate: money("1.083219") });
    let cost = crate::money::cost(1_234_567 * 2_310_000, money("1.083219"), 3_600_000 * 1_000_000).unwrap();
    (foreign.list, foreign.contracted, foreign.effective, foreign.billed) = (cost, cost, cost, cost);
    rows.push(foreign);
    let mut discounted = charge("acme", "embed", "tokens_embed", "Tokens", 3_000_001, "0.10", 1_000_000);
    discounted.contracted_price = money("0.08");
    discounted.tier = 2;
    let contracted = crate::money::cost(3_000_001, money("0.08"), 1_000_000).unwrap();
    (discounted.contracted, discounted.effective, discounted.billed) = (contracted, contracted, contracted);
    rows.push(discounted);
    let mut used = gpu("acme", 1_800_000, "2.50");
    used.commitment = Some(Commitment::Used("gpu-2026".into()));
    (used.billed, used.effective) = (Money::ZERO, money("0.9"));
    let mut unused = gpu("", 7_200_000, "2.50");
    unused.commitment = Some(Commitment::Unused("gpu-2026".into()));
    (unused.billed, unused.effective) = (Money::ZERO, money("3.6"));
    let mut fee = gpu("", 9_000_000, "1.80");
    fee.sku = "gpu-commitment".into();
    fee.category = Category::Purchase;
    fee.commitment = Some(Commitment::Fee("gpu-2026".into()));
    fee.effective = Money::ZERO;
    for row in [&mut unused, &mut fee] {
        (row.hour, row.end) = (at("2026-10-01T00:00:00Z"), at("2026-11-01T00:00:00Z"));
    }
    rows.extend([used, unused, fee]);
    let mut late = charge("acme", "chat-in", "tokens_in", "Tokens", 246_913, "0.50", 1_000_000);
    (late.hour, late.end) = (at("2026-09-30T23:00:00Z"), at("2026-10-01T00:00:00Z"));
    let mut reversal = late.clone();
    (reversal.quantity, reversal.billable) = (-late.quantity, -late.billable);
    for amount in [&mut reversal.list, &mut reversal.contracted, &mut reversal.effective, &mut reversal.billed] {
        *amount = Money(-amount.0);
    }
    rows.extend([late, reversal]);
    let mut weird = charge("x", "chat-in", "tokens_in", "Tokens", 1, "0.50", 1_000_000);
    weird.series = Arc::new(Series {
        tenant: b"\xff\x00tenant".to_vec(),
        dims: vec![("na\u{1}me\"".into(), "v\u{7f}".repeat(3_000).into_bytes()), ("service".into(), vec![0xfe; 5_000])],
        meter: "tokens_in".into(),
        unit: "Tokens".into(),
    });
    rows.push(weird);
    rows
}

fn inputs(charges: &[Charge]) -> Vec<Input<'_>> {
    let period = (at("2026-10-01T00:00:00Z"), at("2026-11-01T00:00:00Z"));
    let corrections = charges.iter().filter(|charge| charge.hour < period.0).count();
    let mut seen = 0;
    let input = |charge| {
        let is_correction = charge_is_late(charge, period.0);
        seen += usize::from(is_correction);
        Input {
            charge,
            revision: 1 + u32::from(is_correction && seen == corrections),
            is_correction,
            billing_period: period,
            invoice_id: Some("INV-2026-10"),
            is_reversal: is_correction && seen == corrections,
            row_id: None,
            lineage_run: None,
        }
    };
    charges.iter().map(input).collect()
}

fn charge_is_late(charge: &Charge, start: UnixNanos) -> bool {
    charge.hour < start
}

fn csv(profile: Profile, billed: Billed) -> String {
    let charges = charges();
    let info = FocusInfo::default();
    let inputs = inputs(&charges);
    let export = Export::new(profile, &info, "USD", billed, &inputs).unwrap();
    let mut out = Vec::new();
    export.write_csv(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn check(text: &str) -> Findings {
    check_csv(text.as_bytes(), Options::default()).unwrap()
}

/// A file as records, to be damaged.
struct Table(Vec<Vec<Option<String>>>);

impl Table {
    fn of(text: &str) -> Table {
        let mut reader = csv::Reader::new(text.as_bytes());
        let mut records = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            records.push(record.to_vec());
        }
        Table(records)
    }

    fn column(&self, name: &str) -> usize {
        self.0[0].iter().position(|column| column.as_deref() == Some(name)).unwrap_or_else(|| panic!("no column {name}"))
    }

    fn get(&self, row: usize, column: &str) -> Option<&str> {
        self.0[row][self.column(column)].as_deref()
    }

    fn set(&mut self, row: usize, column: &str, value: Option<&str>) {
        let column = self.column(column);
        self.0[row][column] = value.map(str::to_string);
    }

    /// First row with this value.
    fn find(&self, column: &str, value: Option<&str>) -> usize {
        (1..self.0.len()).find(|row| self.get(*row, column) == value).unwrap_or_else(|| panic!("no row with {column} {value:?}"))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for record in &self.0 {
            let cells: Vec<Cell> = record.iter().map(|cell| cell.clone().map_or(Cell::Null, Cell::Text)).collect();
            csv::write_cells(&cells, &mut text);
        }
        text
    }
}

#[test]
fn every_kind_of_row_passes_our_own_check_in_both_versions() {
    assert_eq!(FocusInfo::default().mistakes(), vec![]);
    for profile in [Profile::V1_2, Profile::V1_4] {
        for billed in [Billed::Exact, Billed::Invoiced] {
            let text = csv(profile, billed);
            let findings = check(&text);
            assert_eq!(findings.violations, vec![], "{} {billed:?}", profile.name());
            assert_eq!((findings.profile, findings.rows), (profile, charges().len() as u64));
            assert_eq!(csv(profile, billed), text, "the same bytes each time");
            assert_eq!(Table::of(&text).text(), text, "what is written is what is read");
            if std::env::var("WEIR_FOCUS_PRINT") == Ok(format!("{} {billed:?}", profile.name())) {
                println!("BEGIN\n{text}END");
            }
        }
    }
}

/// Damages a good file of both versions by `(column, value)` in the first row where `of` has a value, and wants the rule.
#[track_caller]
fn check_fault(of: (&str, Option<&str>), damage: &[(&str, Option<&str>)], column: &str, rule: &str) {
    for profile in [Profile::V1_2, Profile::V1_4] {
        let mut table = Table::of(&csv(profile, Billed::Exact));
        let row = table.find(of.0, of.1);
        for (column, value) in damage {
            table.set(row, column, *value);
        }
        check_found(&table, profile, row, column, rule);
    }
}

#[track_caller]
fn check_found(table: &Table, profile: Profile, row: usize, column: &str, rule: &str) {
    let found = check(&table.text());
    let is_found = found.violations.iter().any(|v| v.rule.id == rule && v.column == column && v.row == row as u64);
    assert!(is_found, "{}: {rule} in row {row}, {column} is not among {:#?}", profile.name(), found.violations);
}

const TOKENS: (&str, Option<&str>) = ("SkuId", Some("chat-in"));

#[test]
fn the_eight_seeded_faults_are_found_each_by_its_rule() {
    check_fault(TOKENS, &[("ChargeClass", Some("Refund"))], "ChargeClass", "allowed-value");
    check_fault(TOKENS, &[("BillingCurrency", Some("usd"))], "BillingCurrency", "currency");
    check_fault(TOKENS, &[("PricingUnit", None)], "PricingUnit", "unit-pair");
    check_fault(TOKENS, &[("ChargeCategory", Some("Refund"))], "ChargeCategory", "allowed-value");
    check_fault(TOKENS, &[("ServiceSubcategory", Some("Observability"))], "ServiceSubcategory", "subcategory-parent");
    check_fault(TOKENS, &[("ListCost", Some("0.627283500000"))], "ListCost", "list-product");
    check_fault(TOKENS, &[("ChargePeriodStart", Some("2026-03-29 00:00:00"))], "ChargePeriodStart", "time-form");
    check_fault(TOKENS, &[("Tags", Some("{\"weir/a\":{\"b\":1}}"))], "Tags", "json-flat");
}

#[test]
fn faults_of_one_row_are_found_each_by_its_rule() {
    let fault = |damage: &[(&str, Option<&str>)], column: &str, rule: &str| check_fault(TOKENS, damage, column, rule);
    // A unit of the twelfth digit, and a sign.
    fault(&[("ListCost", Some("0.617283500001"))], "ListCost", "list-product");
    fault(&[("ContractedCost", Some("0.617283499999"))], "ContractedCost", "contracted-product");
    fault(&[("ListCost", Some("-0.617283500000"))], "ListCost", "list-product");
    fault(&[("PricingQuantity", Some("-1.234567000000"))], "ListCost", "list-product");
    fault(&[("ListUnitPrice", Some("-0.500000000000"))], "ListUnitPrice", "price-negative");
    check_fault(("SkuId", Some("gpu-h100")), &[("ListCost", Some("0.416666668000"))], "ListCost", "list-product");
    // Forms.
    for (number, rule) in [
        ("+1", "decimal-form"),
        ("1,000.5", "decimal-form"),
        ("1e-3", "decimal-form"),
        ("1E+3", "decimal-form"),
        (".5", "decimal-form"),
        ("5.", "decimal-form"),
        ("0x1f", "decimal-form"),
        ("NaN", "decimal-form"),
        ("1.5 USD", "decimal-form"),
        (" 1.5", "decimal-form"),
        ("0.0000000000001", "decimal-size"),
        ("1E999999999999999999999", "decimal-size"),
        ("100000000000000000000000000.0", "decimal-size"),
        ("", "empty-text"),
        (" ", "empty-text"),
    ] {
        fault(&[("BilledCost", Some(number))], "BilledCost", rule);
    }
    for time in [
        "2026-10-02T09:00:00",
        "2026-10-02T09:00:00+00:00",
        "2026-02-29T00:00:00Z",
        "2026-10-02T24:00:00Z",
        "2026-10-02T09:00:00.0Z",
        "2026-00-10T00:00:00Z",
    ] {
        fault(&[("ChargePeriodStart", Some(time))], "ChargePeriodStart", "time-form");
    }
    for code in ["usd", "US", "XXY", "USDT", "$"] {
        fault(&[("BillingCurrency", Some(code))], "BillingCurrency", "currency");
    }
    fault(&[("PricingCurrency", Some("eur"))], "PricingCurrency", "currency");
    for unit in ["1,000 Tokens", "0 Tokens", "Bytes", "gb", "GiBs", "hours", "Tokens per Hour!", "GB/Fortnight"] {
        fault(&[("PricingUnit", Some(unit))], "PricingUnit", "unit-form");
    }
    fault(&[("SkuMeter", Some("a\u{1}b"))], "SkuMeter", "control-text");
    // JSON.
    fault(&[("Tags", Some("{\"weir/a\":1,\"weir/a\":2}"))], "Tags", "json-form");
    fault(&[("Tags", Some("[1]"))], "Tags", "json-form");
    fault(&[("Tags", Some("{'a':1}"))], "Tags", "json-form");
    fault(&[("Tags", Some("{\"other/a\":\"x\",\"weir/b\":\"y\"}"))], "Tags", "tag-prefix");
    fault(&[("SkuPriceDetails", Some("{\"ModelId\":\"x\"}"))], "SkuPriceDetails", "details-key");
    fault(&[("SkuPriceDetails", Some("{\"GpuCount\":\"1\"}"))], "SkuPriceDetails", "details-key");
    fault(&[("SkuPriceDetails", Some("{\"x_A\":[1]}"))], "SkuPriceDetails", "json-flat");
    // Values.
    fault(&[("ServiceCategory", Some("Telemetry"))], "ServiceCategory", "allowed-value");
    fault(&[("ServiceSubcategory", Some("Tokens"))], "ServiceSubcategory", "allowed-value");
    check_fault(
        ("SkuId", Some("chat-out")),
        &[("ServiceCategory", Some("Compute")), ("ServiceSubcategory", Some("Containers"))],
        "ServiceName",
        "service-category",
    );
    fault(&[("ChargeFrequency", Some("Monthly"))], "ChargeFrequency", "allowed-value");
    fault(&[("PricingCategory", Some("On-Demand"))], "PricingCategory", "allowed-value");
    // Periods.
    fault(&[("ChargePeriodEnd", Some("2026-10-02T09:00:00Z"))], "ChargePeriodEnd", "period-order");
    fault(&[("BillingPeriodEnd", Some("2026-10-01T00:00:00Z"))], "BillingPeriodEnd", "period-order");
    fault(&[("ChargePeriodStart", Some("2026-09-30T23:00:00Z"))], "ChargePeriodStart", "period-inside");
    fault(&[("ChargePeriodEnd", Some("2026-11-01T01:00:00Z"))], "ChargePeriodStart", "period-inside");
    fault(&[("ChargeClass", Some("Correction"))], "ChargeClass", "correction-closed");
    // Nulls.
    for column in ["BilledCost", "ServiceName", "BillingPeriodStart", "InvoiceIssuerName", "ChargeCategory"] {
        fault(&[(column, None)], column, "not-null");
    }
    for column in ["SkuId", "SkuPriceId", "ListUnitPrice", "PricingCategory", "PricingQuantity"] {
        fault(&[(column, None)], column, "pricing-present");
    }
    fault(&[("SkuPriceId", None)], "SkuPriceDetails", "sku-null");
    fault(&[("SkuId", None)], "SkuPriceId", "sku-null");
    fault(&[("ConsumedQuantity", None), ("ConsumedUnit", None)], "ConsumedQuantity", "consumed-usage");
    fault(&[("ConsumedUnit", None)], "ConsumedUnit", "unit-pair");
    fault(&[("SubAccountName", None)], "SubAccountName", "name-pair");
    fault(&[("SubAccountId", None)], "SubAccountType", "name-pair");
    fault(&[("RegionName", None)], "RegionName", "name-pair");
    fault(&[("ResourceId", None)], "ResourceName", "name-pair");
    fault(&[("ChargeCategory", Some("Tax"))], "ListUnitPrice", "tax-null");
    // Commitments and purchases.
    let used = ("CommitmentDiscountStatus", Some("Used"));
    let unused = ("CommitmentDiscountStatus", Some("Unused"));
    let fee = ("ChargeCategory", Some("Purchase"));
    check_fault(used, &[("CommitmentDiscountStatus", None)], "CommitmentDiscountStatus", "commitment");
    check_fault(used, &[("CommitmentDiscountStatus", Some("Open"))], "CommitmentDiscountStatus", "allowed-value");
    check_fault(used, &[("CommitmentDiscountId", None)], "CommitmentDiscountType", "commitment");
    check_fault(used, &[("PricingCategory", Some("Standard"))], "PricingCategory", "commitment");
    check_fault(unused, &[("ConsumedQuantity", Some("1.0")), ("ConsumedUnit", Some("Hours"))], "ConsumedQuantity", "consumed-usage");
    check_fault(fee, &[("ChargeFrequency", Some("Usage-Based"))], "ChargeFrequency", "purchase-frequency");
    check_fault(fee, &[("EffectiveCost", Some("4.500000000000"))], "EffectiveCost", "purchase-effective");
    // Others.
    fault(&[("InvoiceIssuerName", Some("somebody else"))], "BilledCost", "billed-elsewhere");
    fault(&[("PricingCurrencyListUnitPrice", Some("0.6"))], "PricingCurrencyListUnitPrice", "pricing-currency");
    fault(&[("x_RateCardDigest", Some("abc"))], "x_RateCardDigest", "card-digest");
    fault(&[("x_EventCount", Some("1.5"))], "x_EventCount", "integer-form");
}

#[test]
fn faults_between_rows_are_found_each_by_its_rule() {
    for profile in [Profile::V1_2, Profile::V1_4] {
        let good = csv(profile, Billed::Exact);
        let damaged = |row: usize, column: &str, value: Option<&str>| {
            let mut table = Table::of(&good);
            table.set(row, column, value);
            table
        };
        let good_table = Table::of(&good);
        let late = good_table.find("ChargeClass", Some("Correction"));
        check_found(&damaged(late, "SkuId", Some("other")), profile, late, "SkuPriceId", "sku-parent");
        check_found(&damaged(2, "BillingAccountId", Some("other")), profile, 2, "InvoiceId", "invoice-parent");
        let part = good_table.find("SubAccountId", Some("b"));
        let first = good_table.find("SubAccountId", Some("a"));
        check_found(&damaged(part, "EffectiveCost", Some("0.714285714285")), profile, first, "EffectiveCost", "split-sum");
        check_found(&damaged(part, "PricingQuantity", Some("0.285714285715")), profile, first, "PricingQuantity", "split-sum");
        check_found(&damaged(part, "SkuPriceId", Some("gpu@other")), profile, part, "SkuPriceId", "split-repeat");
        let ratios = match profile {
            Profile::V1_2 => damaged(part, "x_AllocatedRatio", Some("0.285714285713")),
            Profile::V1_4 => {
                let details = "{\"Elements\":[{\"AllocatedRatio\":0.285714285713,\"UsageUnit\":\"Slices\",\"UsageQuantity\":2}]}";
                damaged(part, "AllocatedMethodDetails", Some(details))
            }
        };
        check_found(&ratios, profile, first, "AllocatedMethodDetails", "split-ratio");
        let resource = if profile == Profile::V1_2 { "x_AllocatedResourceId" } else { "AllocatedResourceId" };
        check_found(&damaged(1, resource, Some("a")), profile, 1, resource, "split-null");
    }
    let new = Table::of(&csv(Profile::V1_4, Billed::Exact));
    let part = new.find("SubAccountId", Some("b"));
    let cases = [
        (part, "AllocatedMethodDetails", "{\"Elements\":[]}", "split-details"),
        (
            part,
            "AllocatedMethodDetails",
            "{\"Elements\":[{\"AllocatedRatio\":\"0.2\",\"UsageUnit\":\"Slices\",\"UsageQuantity\":2}]}",
            "split-details",
        ),
        (part, "AllocatedTags", "{\"weir/gpu\":\"x\"}", "split-tags"),
        (new.find("ChargeCategory", Some("Purchase")), "ContractApplied", "{\"Elements\":[{}]}", "contract-applied"),
    ];
    for (row, column, value, rule) in cases {
        let mut table = Table::of(&csv(Profile::V1_4, Billed::Exact));
        table.set(row, column, Some(value));
        check_found(&table, Profile::V1_4, row, column, rule);
    }
    let mut table = Table::of(&csv(Profile::V1_4, Billed::Exact));
    table.set(1, "InvoiceDetailId", None);
    check_found(&table, Profile::V1_4, 1, "InvoiceDetailId", "invoice-detail");
    // Invoices: a row that lost a cent, and a total that somebody else says.
    let mut table = Table::of(&csv(Profile::V1_2, Billed::Invoiced));
    table.set(1, "BilledCost", Some("0.625"));
    check_found(&table, Profile::V1_2, 1, "BilledCost", "invoice-units");
    let options =
        Options { invoices: [("INV-2026-10".to_string(), money("1.00")), ("INV-2".to_string(), money("5"))].into(), ..Options::default() };
    let found = check_csv(csv(Profile::V1_2, Billed::Invoiced).as_bytes(), options).unwrap();
    assert_eq!(found.counts, [("invoice-sum", 2)].into());
}

#[test]
fn faults_of_the_header_are_found_each_by_its_rule() {
    let renamed = |from: &str, to: &str, rule: &str, column: &str| {
        let mut table = Table::of(&csv(Profile::V1_2, Billed::Exact));
        let at = table.column(from);
        table.0[0][at] = Some(to.to_string());
        check_found(&table, Profile::V1_2, 0, column, rule);
    };
    renamed("Tags", "tags", "column-unknown", "tags");
    renamed("Tags", "HostProviderName", "column-unknown", "HostProviderName");
    renamed("BilledCost", "x_BilledCost", "column-missing", "BilledCost");
    renamed("BilledCost", "x_BilledCost", "custom-order", "BillingAccountId");
    renamed("x_Tier", "x_tier", "custom-name", "x_tier");
    renamed("x_Tier", &format!("x_{}", "T".repeat(49)), "custom-name", &format!("x_{}", "T".repeat(49)));
    renamed("x_Tier", "x_Meter", "column-twice", "x_Meter");
    renamed("RegionName", "x_Region", "column-together", "RegionName");
    let found = check("BilledCost\r\n1\r\n\"2\r\n");
    assert!(found.violations.iter().any(|v| v.rule.id == "file-form" && v.row == 2), "{found:?}");
    let found = check("");
    assert!(!found.is_good() && found.rows == 0);
    let found = check("a,b\n1\n");
    assert!(found.violations.iter().any(|v| v.rule.id == "row-width" && v.row == 1));
    // Every value of the column is whole: a reader of CSV would take it for integers.
    let mut table = Table::of(&csv(Profile::V1_2, Billed::Exact));
    for row in 1..table.0.len() {
        table.set(row, "EffectiveCost", Some("0"));
    }
    check_found(&table, Profile::V1_2, 0, "EffectiveCost", "decimal-point");
}

#[test]
fn violations_are_bounded_and_all_counted() {
    let mut table = Table::of(&csv(Profile::V1_2, Billed::Exact));
    table.set(1, "ChargeClass", Some("Refund"));
    let line = table.0[1].clone();
    table.0.extend(vec![line; 1_000]);
    let found = check(&table.text());
    assert_eq!(found.counts["allowed-value"], 1_001);
    assert_eq!(found.violations.iter().filter(|v| v.rule.id == "allowed-value").count(), check::SHOWN_PER_RULE);
}

#[test]
fn p10_an_invoice_is_rounded_once_and_its_rows_add_up_to_it() {
    let billed = |amounts: &[&str]| -> Vec<String> {
        let amounts: Vec<Money> = amounts.iter().map(|amount| money(amount)).collect();
        invoice(&amounts, 2).unwrap().iter().map(|row| row.billed.to_string()[..].trim_end_matches("0000000000").to_string()).collect()
    };
    assert_eq!(billed(&["0.333333333334", "0.333333333333", "0.333333333333"]), ["0.34", "0.33", "0.33"]);
    assert_eq!(billed(&["4.9147", "5.1153"]), ["4.91", "5.12"]);
    assert_eq!(billed(&["0.005"]), ["0.00"]); // half to even
    assert_eq!(billed(&["0.015"]), ["0.02"]);
    assert_eq!(billed(&["0.006", "0.006", "-0.004"]), ["0.01", "0.01", "-0.01"]); // 0.008 is 0.01
    assert_eq!(billed(&[]), Vec::<String>::new());
    let seed = crate::seed();
    let mut random = crate::Random(seed);
    for _ in 0..2_000 {
        let signs = random.below(3);
        let amounts: Vec<Money> = (0..random.below(40))
            .map(|_| {
                Money((random.next() >> random.below(60)) as i128 * if signs == 0 || (signs == 1 && random.below(2) == 0) { -1 } else { 1 })
            })
            .collect();
        let digits = random.below(5) as u32;
        let rows = invoice(&amounts, digits).unwrap();
        let total = Money::sum(amounts.iter().copied()).unwrap().round(digits).unwrap();
        assert_eq!(Money::sum(rows.iter().map(|row| row.billed)), Ok(total), "seed {seed}");
        for (row, amount) in rows.iter().zip(&amounts) {
            assert_eq!(row.billed.0 + row.residue.0, amount.0, "seed {seed}");
            assert_eq!(row.billed.0 % 10i128.pow(12 - digits), 0, "seed {seed}");
        }
    }
}

#[test]
fn cases_have_the_stated_digits_as_rows() {
    let text = csv(Profile::V1_4, Billed::Exact);
    let table = Table::of(&text);
    // P9: what takes a correction back has its negative.
    let late: Vec<usize> = (1..table.0.len()).filter(|row| table.get(*row, "ChargeClass").is_some()).collect();
    let columns =
        ["ChargeClass", "BilledCost", "PricingQuantity", "ListUnitPrice", "ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart"];
    let row = |row: usize| columns.map(|column| table.get(row, column).unwrap());
    let times = ["2026-09-30T23:00:00Z", "2026-10-01T00:00:00Z", "2026-10-01T00:00:00Z"];
    let want = |cost, quantity| ["Correction", cost, quantity, "0.500000000000", times[0], times[1], times[2]];
    assert_eq!(row(late[0]), want("0.123456500000", "0.246913000000"));
    assert_eq!(row(late[1]), want("-0.123456500000", "-0.246913000000"));
    // P12: sevenths of an hour.
    let parts: Vec<[Option<&str>; 4]> = (1..table.0.len())
        .filter(|row| table.get(*row, "AllocatedMethodId").is_some())
        .map(|row| ["AllocatedResourceId", "BilledCost", "PricingQuantity", "x_AllocatedRatio"].map(|column| table.get(row, column)))
        .collect();
    let part = |id, cost, ratio| [id, Some(cost), Some(ratio), Some(ratio)];
    assert_eq!(
        parts,
        [
            part(Some("a"), "0.357142857143", "0.142857142857"),
            part(Some("b"), "0.714285714286", "0.285714285714"),
            part(Some("c"), "1.071428571428", "0.428571428572"),
            part(None, "0.357142857143", "0.142857142857"),
        ]
    );
    // P13: nobody pays.
    let nobody = table.find("x_AttributionStatus", Some("unattributed"));
    assert_eq!(["SubAccountId", "SubAccountName", "SubAccountType"].map(|column| table.get(nobody, column)), [None; 3]);
    assert_eq!(table.get(nobody, "BilledCost"), Some("0.003000000000"));
    let french = table.find("x_SubAccountNameUtf8", Some("société"));
    assert_eq!(table.get(french, "SubAccountName"), Some("soci%C3%A9t%C3%A9"));
}

#[test]
fn identifiers_of_different_bytes_stay_different() {
    let long = [vec![b'a'; 2_000], vec![b'a'; 2_001], vec![0xff; 2_000], "é".repeat(900).into_bytes()];
    let short: [&[u8]; 14] = [
        b"acme",
        b"hex:61",
        b"a",
        b"\xff",
        b"hex:ff",
        "é".as_bytes(),
        b"utf8:%C3%A9",
        b"%C3%A9",
        b" ",
        b"a\0",
        b"sha256:0",
        b"a b",
        b"A",
        b"\t",
    ];
    let all: Vec<String> = short.iter().copied().chain(long.iter().map(Vec::as_slice)).map(rows::identifier).collect();
    let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    assert!(all.iter().all(|id| id.is_ascii() && id.len() <= 1_024 && !id.trim().is_empty()));
    assert_eq!(rows::event(b"req\x1f7"), Cell::Text("req|7".into()));
    assert_eq!(rows::event(b""), Cell::Null);
}

#[test]
fn mistakes_of_names_are_told_with_their_place() {
    let service = |name: &str, category: &str, subcategory: &str, detail: (&str, &str)| info::ServiceInfo {
        name: name.into(),
        category: category.into(),
        subcategory: subcategory.into(),
        details: [(detail.0.to_string(), detail.1.to_string())].into(),
    };
    let mut info = FocusInfo { provider: String::new(), tag_prefix: "acme".into(), ..FocusInfo::default() };
    info.services.insert("a".into(), service("GPU Time", "Compute", "Containers", ("GpuCount", "one")));
    info.services.insert("b".into(), service("B", "Computing", "Other", ("Model", "x")));
    info.services.insert("c".into(), service("C", "Compute", "Observability", ("x_Ok", "x")));
    info.sku_dims.insert("size".into(), "Size".into());
    let places: Vec<String> = info.mistakes().into_iter().map(|(path, _, _)| path).collect();
    let want = [
        "provider",
        "tag_prefix",
        "sku_dims.size",
        "services.a.name",
        "services.a.details.GpuCount",
        "services.b.category",
        "services.b.details.Model",
        "services.c.subcategory",
    ];
    assert_eq!(places, want);
}

#[test]
fn a_quantity_that_no_decimal_holds_is_named_and_not_wrapped() {
    let mut row = charge("acme", "chat-in", "tokens_in", "Tokens", 1, "0", 1);
    row.quantity = i128::MAX;
    let rows = [charge("acme", "chat-in", "tokens_in", "Tokens", 1, "0", 1), row];
    let info = FocusInfo::default();
    let inputs = inputs(&rows);
    let export = Export::new(Profile::V1_2, &info, "USD", Billed::Exact, &inputs).unwrap();
    assert!(export.row(0).is_ok());
    assert_eq!(export.row(1), Err(TooLarge { index: 1 }));
}

#[test]
fn parts_of_random_origins_pass_the_check_and_add_up() {
    let seed = crate::seed();
    let mut random = crate::Random(seed);
    let mut rows = Vec::new();
    for origin in 0..300u64 {
        let mut weights: Vec<u64> = (0..1 + random.below(12)).map(|_| random.next() >> random.below(64)).collect();
        if random.below(10) == 0 {
            weights.fill(0);
        }
        let ms = 1 + random.below(7_200_000);
        let price = Money(random.below(50_000_000_000_000) as i128 + 1);
        let whole = crate::money::cost(i128::from(ms), price, 3_600_000).unwrap();
        let (costs, rest) = crate::money::apportion(whole, 12, &weights).unwrap();
        let (times, rest_ms) = crate::money::apportion(Money(i128::from(ms)), 12, &weights).unwrap();
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let last = (0, (rest, rest_ms)); // nobody's: all of it if every weight is 0
        let parts = weights.iter().copied().zip(costs.into_iter().zip(times)).chain([last]);
        for (index, (weight, (cost, ms))) in parts.enumerate() {
            let is_idle = index == weights.len();
            let tenant = if is_idle { String::new() } else { format!("t{index}") };
            let mut row = gpu(&tenant, ms.0, &price.to_string());
            (row.sku, row.version) = (format!("gpu-{origin}"), "v1".into());
            (row.list, row.contracted, row.effective, row.billed) = (cost, cost, cost, cost);
            row.allocation = Some(Allocation {
                method: "by-sm-time".into(),
                origin: format!("origin {origin}").into(),
                weight: u128::from(weight),
                weights: total,
                unit: "SM-Milliseconds".into(),
                is_idle,
            });
            rows.push(row);
        }
    }
    random.shuffle(&mut rows);
    let info = FocusInfo::default();
    let inputs = inputs(&rows);
    for (profile, billed) in [(Profile::V1_2, Billed::Exact), (Profile::V1_4, Billed::Invoiced)] {
        let mut out = Vec::new();
        Export::new(profile, &info, "USD", billed, &inputs).unwrap().write_csv(&mut out).unwrap();
        assert_eq!(check(std::str::from_utf8(&out).unwrap()).violations, vec![], "seed {seed}, {}", profile.name());
    }
}
