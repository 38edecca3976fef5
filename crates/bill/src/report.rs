//! Reports: charges and usage added up by tenant, service, model, meter, SKU, hour or day.
//!
//! In: a rating and the names to group by. Out: rows in the order of their keys, and their total. Costs are sums of
//! rows that were rounded once; nothing is rounded here, so every grouping has the same total. Quantities are as
//! metered, priced or not. Bound: as many rows as there are keys.

use crate::charge::Series;
use crate::money::{Money, Overflow};
use crate::rate::Rating;
use flow::units::UnixNanos;
use std::collections::BTreeMap;

/// What to group by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dim {
    Tenant,
    Meter,
    Sku,
    /// UTC hour, as `2026-11-23T03:00:00Z`.
    Hour,
    /// UTC day, as `2026-11-23`.
    Day,
    /// A dimension of the meters, as `service` or `model`.
    Field(String),
}

impl Dim {
    /// Reads a name; any name that is not one of ours is a dimension of the meters.
    pub fn parse(name: &str) -> Dim {
        match name {
            "tenant" => Dim::Tenant,
            "meter" => Dim::Meter,
            "sku" => Dim::Sku,
            "hour" => Dim::Hour,
            "day" => Dim::Day,
            field => Dim::Field(field.to_string()),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Dim::Tenant => "tenant",
            Dim::Meter => "meter",
            Dim::Sku => "sku",
            Dim::Hour => "hour",
            Dim::Day => "day",
            Dim::Field(field) => field,
        }
    }
}

/// Sums of one meter in one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantity {
    /// As metered, priced or not.
    pub quantity: i128,
    /// What was priced at the meter's own price, after `minus`.
    pub billable: i128,
    /// What has no price.
    pub unpriced: i128,
    /// What is refused; see `Rating::refused`.
    pub refused: i128,
    /// Records behind `quantity`.
    pub events: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportRow {
    /// One value for each dimension of the report, as bytes; empty where there is none.
    pub key: Vec<Vec<u8>>,
    /// By (meter, unit): tokens in and tokens out are never added up.
    pub quantities: BTreeMap<(String, String), Quantity>,
    pub cost: Money,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub by: Vec<Dim>,
    pub currency: String,
    /// In the order of keys.
    pub rows: Vec<ReportRow>,
    /// Of all rows; its key is empty.
    pub total: ReportRow,
}

/// Groups a rating. The total is the same for every `by`.
pub fn report(rating: &Rating, by: &[Dim]) -> Result<Report, Overflow> {
    let mut groups = Groups { by, rows: BTreeMap::new() };
    let by_sku = by.contains(&Dim::Sku);
    for usage in &rating.usage {
        let quantity = groups.quantity(&usage.series, usage.hour, "");
        quantity.quantity += usage.quantity;
        quantity.events = quantity.events.saturating_add(usage.events);
    }
    for row in &rating.rows {
        if by_sku {
            // What was priced moves from "no SKU" to its SKU; what is left there has no price, is refused, or is all `minus`.
            let rest = groups.quantity(&row.series, row.hour, "");
            rest.quantity -= row.quantity;
            rest.events = rest.events.saturating_sub(row.events);
        }
        let quantity = groups.quantity(&row.series, row.hour, &row.sku);
        quantity.billable += row.billable;
        if by_sku {
            quantity.quantity += row.quantity;
            quantity.events = quantity.events.saturating_add(row.events);
        }
        let group = groups.row(&row.series, row.hour, &row.sku);
        group.cost = group.cost.checked_add(row.billed)?;
    }
    for unpriced in &rating.unpriced {
        groups.quantity(&unpriced.series, unpriced.hour, "").unpriced += unpriced.quantity;
    }
    for refused in &rating.refused {
        groups.quantity(&refused.series, hour_of(refused.from), "").refused += refused.quantity;
    }
    let mut rows: Vec<ReportRow> = groups.rows.into_values().collect();
    if by_sku {
        rows.iter_mut().for_each(|row| row.quantities.retain(|_, q| *q != Quantity::default()));
        rows.retain(|row| !row.quantities.is_empty());
    }
    let total = total_of(&rows)?;
    Ok(Report { by: by.to_vec(), currency: rating.currency.clone(), rows, total })
}

struct Groups<'a> {
    by: &'a [Dim],
    rows: BTreeMap<Vec<Vec<u8>>, ReportRow>,
}

impl Groups<'_> {
    fn row(&mut self, series: &Series, hour: UnixNanos, sku: &str) -> &mut ReportRow {
        let key: Vec<Vec<u8>> = self.by.iter().map(|dim| value_of(dim, series, hour, sku)).collect();
        self.rows.entry(key.clone()).or_insert_with(|| ReportRow { key, ..ReportRow::default() })
    }

    fn quantity(&mut self, series: &Series, hour: UnixNanos, sku: &str) -> &mut Quantity {
        self.row(series, hour, sku).quantities.entry((series.meter.clone(), series.unit.clone())).or_default()
    }
}

fn value_of(dim: &Dim, series: &Series, hour: UnixNanos, sku: &str) -> Vec<u8> {
    match dim {
        Dim::Tenant => series.tenant.clone(),
        Dim::Meter => series.meter.clone().into_bytes(),
        Dim::Sku => sku.as_bytes().to_vec(),
        Dim::Hour => hour.rfc3339().into_bytes(),
        Dim::Day => hour.day().into_bytes(),
        Dim::Field(name) => series.dim(name).to_vec(),
    }
}

fn hour_of(time: UnixNanos) -> UnixNanos {
    UnixNanos(time.0 - time.0.rem_euclid(flow::units::NANOS_PER_HOUR))
}

fn total_of(rows: &[ReportRow]) -> Result<ReportRow, Overflow> {
    let mut total = ReportRow::default();
    for row in rows {
        total.cost = total.cost.checked_add(row.cost)?;
        for (meter, quantity) in &row.quantities {
            let sum = total.quantities.entry(meter.clone()).or_default();
            sum.quantity += quantity.quantity;
            sum.billable += quantity.billable;
            sum.unpriced += quantity.unpriced;
            sum.refused += quantity.refused;
            sum.events = sum.events.saturating_add(quantity.events);
        }
    }
    Ok(total)
}
