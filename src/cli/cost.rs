//! `weir cost report`: what tenants used and what it costs.
//!
//! In: usage facts of a data folder and a rate card. Out: a table, or JSON with every hour's usage and every
//! charge. Quantities are as metered, before sampling; money is text with twelve digits, never a float.

use super::{Mistake, say, table};
use crate::config;
use crate::desk::{self, FactLine, Question};
use crate::runtime::open::Manifest;
use bill::{Dim, Report};
use flow::event::UsageFact;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

pub fn run(data: &Path, card: Option<&Path>, by: &[String], json: bool) -> anyhow::Result<ExitCode> {
    let card = match find_card(data, card)? {
        Ok(card) => card,
        Err(report) => return Ok(super::check::refuse(&report, json)),
    };
    let mut answer = desk::ask(data, &Question::Usage)?;
    let mut facts: Vec<UsageFact> = Vec::new();
    while let Some(line) = answer.line()? {
        facts.push(serde_json::from_str::<FactLine>(&line)?.fact()?);
    }
    let rating = bill::rate(&card, &facts);
    let by = read_dims(by, &facts)?;
    let report = bill::report(&rating, &by)?;
    if json {
        say(&format!("{}\n", serde_json::to_string_pretty(&full_json(&rating, &report))?))?;
    } else {
        say(&text(&rating, &report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to group by: one of ours, or a dimension that some meter has.
fn read_dims(names: &[String], facts: &[UsageFact]) -> anyhow::Result<Vec<Dim>> {
    let known: BTreeSet<&str> = facts.iter().flat_map(|f| &f.dims).map(|d| d.0.as_str()).collect();
    if names.is_empty() {
        let dims = ["service", "model"].into_iter().filter(|name| known.contains(name)).map(Dim::parse);
        return Ok([Dim::Tenant].into_iter().chain(dims).chain([Dim::Meter]).collect());
    }
    let mut by = Vec::new();
    for name in names {
        let dim = Dim::parse(name);
        if matches!(dim, Dim::Field(_)) && !known.contains(name.as_str()) && !facts.is_empty() {
            let dims: Vec<&str> = known.iter().copied().collect();
            let ours = ["tenant", "meter", "sku", "hour", "day"].into_iter().chain(dims).collect::<Vec<_>>().join(", ");
            let message = format!("nothing was metered by {name:?}; group by any of {ours}");
            return Err(Mistake(message).into());
        }
        by.push(dim);
    }
    Ok(by)
}

/// The card named, else the one that the pipeline ran with.
fn find_card(data: &Path, card: Option<&Path>) -> anyhow::Result<Result<bill::Card, config::Report>> {
    let loaded = match card {
        Some(path) => config::card(path, None),
        None => {
            let text = Manifest::read(data)?.pipelines.into_iter().find_map(|p| p.rates);
            let text = text.ok_or_else(|| Mistake("the pipeline ran without a rate card; name one with --card".into()))?;
            config::card(Path::new("rates"), Some(text))
        }
    };
    Ok(loaded.map(|l| l.card))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn dims_json(dims: &[(String, Vec<u8>)]) -> Map<String, Value> {
    dims.iter().map(|(name, value)| (name.clone(), json!(lossy(value)))).collect()
}

/// Usage and charges hour by hour, what has no price, and the report.
fn full_json(rating: &bill::Rating, report: &Report) -> Value {
    let usage: Vec<Value> = rating
        .usage
        .iter()
        .map(|u| {
            let mut row = dims_json(&u.series.dims);
            row.insert("tenant".into(), json!(lossy(&u.series.tenant)));
            row.insert("meter".into(), json!(u.series.meter));
            row.insert("unit".into(), json!(u.series.unit));
            row.insert("hour".into(), json!(u.hour.rfc3339()));
            row.insert("quantity".into(), json!(u.quantity.to_string()));
            row.insert("events".into(), json!(u.events));
            Value::Object(row)
        })
        .collect();
    let charges: Vec<Value> = rating
        .rows
        .iter()
        .map(|c| {
            let mut row = dims_json(&c.series.dims);
            row.insert("tenant".into(), json!(lossy(&c.series.tenant)));
            row.insert("meter".into(), json!(c.series.meter));
            row.insert("unit".into(), json!(c.series.unit));
            row.insert("hour".into(), json!(c.hour.rfc3339()));
            row.insert("sku".into(), json!(c.sku));
            row.insert("version".into(), json!(c.version));
            row.insert("quantity".into(), json!(c.quantity.to_string()));
            row.insert("billable".into(), json!(c.billable.to_string()));
            row.insert("price".into(), json!(c.price.to_string()));
            row.insert("per".into(), json!(c.per));
            row.insert("cost".into(), json!(c.billed.to_string()));
            row.insert("events".into(), json!(c.events));
            Value::Object(row)
        })
        .collect();
    let unpriced: Vec<Value> = rating
        .unpriced
        .iter()
        .map(|u| {
            let mut row = dims_json(&u.series.dims);
            row.insert("tenant".into(), json!(lossy(&u.series.tenant)));
            row.insert("meter".into(), json!(u.series.meter));
            row.insert("hour".into(), json!(u.hour.rfc3339()));
            row.insert("quantity".into(), json!(u.quantity.to_string()));
            row.insert("events".into(), json!(u.events));
            row.insert("why".into(), json!(u.why.name()));
            Value::Object(row)
        })
        .collect();
    let refused: Vec<Value> = rating
        .refused
        .iter()
        .map(|r| json!({ "series": r.series.to_string(), "quantity": r.quantity.to_string(), "events": r.events, "why": r.why.name() }))
        .collect();
    let mut whole = report_json(report);
    whole["card"] = json!(rating.card.as_ref());
    whole["usage"] = json!(usage);
    whole["charges"] = json!(charges);
    whole["unpriced"] = json!(unpriced);
    whole["refused"] = json!(refused);
    whole
}

fn row_json(by: &[Dim], row: &bill::ReportRow) -> Value {
    let mut json: Map<String, Value> = by.iter().zip(&row.key).map(|(dim, value)| (dim.name().to_string(), json!(lossy(value)))).collect();
    let quantities: Vec<Value> = row
        .quantities
        .iter()
        .map(|((meter, unit), q)| {
            json!({
                "meter": meter, "unit": unit, "quantity": q.quantity.to_string(), "billable": q.billable.to_string(),
                "unpriced": q.unpriced.to_string(), "refused": q.refused.to_string(), "events": q.events,
            })
        })
        .collect();
    // A row of one meter says its quantity in the row itself.
    if let [only] = &quantities[..] {
        for key in ["unit", "quantity", "billable", "unpriced", "refused", "events"] {
            json.insert(key.into(), only[key].clone());
        }
    }
    json.insert("quantities".into(), json!(quantities));
    json.insert("cost".into(), json!(row.cost.to_string()));
    Value::Object(json)
}

/// A report as JSON; costs are decimal text.
pub fn report_json(report: &Report) -> Value {
    json!({
        "currency": report.currency,
        "by": report.by.iter().map(Dim::name).collect::<Vec<_>>(),
        "rows": report.rows.iter().map(|row| row_json(&report.by, row)).collect::<Vec<_>>(),
        "total": row_json(&[], &report.total),
    })
}

/// The bill by tenant, from [`report_json`].
pub fn bill_table(bill: &Value) -> String {
    let mut rows = vec![vec!["tenant".to_string(), "cost".to_string()]];
    let cell = |v: &Value| v.as_str().unwrap_or_default().to_string();
    for row in bill["rows"].as_array().into_iter().flatten() {
        rows.push(vec![cell(&row["tenant"]), cell(&row["cost"])]);
    }
    rows.push(vec!["total".into(), cell(&bill["total"]["cost"])]);
    table(&rows, 1)
}

fn text(rating: &bill::Rating, report: &Report) -> String {
    let mut header: Vec<String> = report.by.iter().map(|d| d.name().to_string()).collect();
    let left = header.len();
    header.push("usage".into());
    header.push(format!("cost {}", report.currency));
    let mut rows = vec![header];
    for row in report.rows.iter().chain([&report.total]) {
        let mut cells: Vec<String> = row.key.iter().map(|v| lossy(v)).collect();
        if cells.is_empty() {
            cells = vec!["total".to_string()];
            cells.resize(left.max(1), String::new());
        }
        let single = report.by.contains(&Dim::Meter);
        let usage: Vec<String> = row
            .quantities
            .iter()
            .map(
                |((meter, unit), q)| {
                    if single && row.quantities.len() == 1 { format!("{} {unit}", q.quantity) } else { format!("{meter} {}", q.quantity) }
                },
            )
            .collect();
        cells.push(usage.join(", "));
        let is_unpriced = row.cost == bill::Money::ZERO && row.quantities.values().any(|q| q.unpriced > 0);
        cells.push(if is_unpriced { "no price".into() } else { row.cost.to_string() });
        rows.push(cells);
    }
    let mut out = table(&rows, left);
    if !rating.unpriced.is_empty() {
        out.push_str(&format!("\n{} events have no price and are in no sum of money; --json lists them\n", rating.unpriced_events()));
    }
    if !rating.refused.is_empty() {
        out.push_str(&format!("\n{} events are refused; --json lists them\n", rating.refused_events()));
    }
    out.push_str(&format!("\nrate card {}\n", rating.card));
    out
}
