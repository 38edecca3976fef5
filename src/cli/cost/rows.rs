//! `weir cost rate`, `explain` and `quarantine`: charges one by one, what is behind one, and what is behind none.

use super::{Place, Read, lossy, read_period, say};
use crate::cli::{Mistake, table};
use bill::explain::Rules;
use bill::stored::StoredRow;
use bill::{Charge, Facts, Money, Period, Rating, Row, explain as explain_charge};
use flow::event::UsageFact;
use flow::units::UnixNanos;
use jiff::tz::TimeZone;
use lake::FactView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct RateArgs {
    #[command(flatten)]
    place: Place,
    /// Only this month, day or stretch of time: 2026-10, 2026-10-05, 2026-10-01..2026-10-08.
    #[arg(long)]
    period: Option<String>,
    /// Say what --card changes against the card that the pipeline ran with.
    #[arg(long, requires = "card")]
    diff: bool,
    /// One row a line, as it is stored: the same facts and card give the same bytes.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct ExplainArgs {
    /// Name of a row, or how it begins; `weir cost rate` and the export list names.
    row: String,
    #[command(flatten)]
    place: Place,
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct QuarantineArgs {
    #[command(flatten)]
    place: Place,
    #[arg(long)]
    json: bool,
}

pub fn rate(args: &RateArgs) -> anyhow::Result<ExitCode> {
    let read = match args.place.read()? {
        Ok(read) => read,
        Err(report) => return Ok(crate::cli::check::refuse(&report, args.json)),
    };
    let period = args.period.as_deref().map(|text| anyhow::Ok(read_period(text, &TimeZone::UTC)?[0])).transpose()?;
    let facts = read.books.facts(&read.card, None)?;
    let rating = rated(&facts, &read.card, period);
    if args.diff {
        let own = match super::find_card(&args.place.data, None)? {
            Ok(loaded) => loaded.card,
            Err(report) => return Ok(crate::cli::check::refuse(&report, args.json)),
        };
        return diff(&rated(&facts, &own, period), &rating, args.json);
    }
    let mut out = String::new();
    // As the facts say now, whatever was published of them: nothing here depends on when it is asked.
    let rows = bill::Book::default().settle(&rating, UnixNanos(0), bill::Scope::All, None)?;
    if args.json {
        for row in &rows {
            let mut line = serde_json::to_value(StoredRow::of(row))?;
            line["id"] = json!(row.id());
            line["sku_price_id"] = json!(row.charge.sku_price_id());
            out.push_str(&format!("{line}\n"));
        }
        return say(&out).map(|()| ExitCode::SUCCESS);
    }
    let mut cells = vec![["row", "period", "tenant", "sku", "what", "quantity", "cost"].map(String::from).to_vec()];
    for row in &rows {
        cells.push(vec![
            row.id()[..12].to_owned(),
            row.charge.hour.rfc3339(),
            lossy(&row.charge.series.tenant),
            row.charge.sku_price_id(),
            what(&row.charge),
            format!("{} {}", row.charge.billable, row.charge.series.unit),
            row.charge.billed.to_string(),
        ]);
    }
    out.push_str(&table(&cells, 5));
    out.push_str(&format!("\ntotal {} {}, rate card {}\n", rating.total()?, rating.currency, rating.card));
    say(&out).map(|()| ExitCode::SUCCESS)
}

fn rated(facts: &Facts, card: &bill::Card, period: Option<Period>) -> Rating {
    period.map_or_else(|| facts.rate(card), |period| facts.rate_range(card, period.from, period.to))
}

/// Dimensions, and how the row came about.
fn what(charge: &Charge) -> String {
    let mut words: Vec<String> = charge.series.dims.iter().map(|(name, value)| format!("{name}={}", lossy(value))).collect();
    words.extend(charge.commitment.as_ref().map(|c| format!("{} of {}", c.status().to_lowercase(), c.id())));
    words.extend(charge.allocation.as_ref().map(|part| format!("part by {}", part.method)));
    words.join(" ")
}

/// What another card would change: by tenant and SKU.
fn diff(own: &Rating, other: &Rating, as_json: bool) -> anyhow::Result<ExitCode> {
    if own.currency != other.currency {
        return Err(Mistake(format!("the cards are of different currencies, {} and {}", own.currency, other.currency)).into());
    }
    let mut costs: BTreeMap<(Vec<u8>, String), [Money; 2]> = BTreeMap::new();
    for (side, rating) in [own, other].into_iter().enumerate() {
        for row in &rating.rows {
            let sum = &mut costs.entry((row.series.tenant.clone(), row.sku.clone())).or_default()[side];
            *sum = sum.checked_add(row.billed)?;
        }
    }
    let change = |[before, after]: [Money; 2]| after.checked_add(Money(-before.0));
    let totals = [own.total()?, other.total()?];
    if as_json {
        let mut rows = Vec::new();
        for ((tenant, sku), costs) in &costs {
            rows.push(json!({ "tenant": lossy(tenant), "sku": sku, "cost": costs[0], "other": costs[1], "change": change(*costs)? }));
        }
        let unpriced = [own.unpriced_events(), other.unpriced_events()];
        let whole = json!({
            "currency": own.currency, "card": own.card.as_ref(), "other_card": other.card.as_ref(), "rows": rows,
            "total": { "cost": totals[0], "other": totals[1], "change": change(totals)? },
            "unpriced_events": { "cost": unpriced[0], "other": unpriced[1] },
        });
        return say(&format!("{}\n", serde_json::to_string_pretty(&whole)?)).map(|()| ExitCode::SUCCESS);
    }
    let mut cells = vec![["tenant", "sku", "cost", "other", "change"].map(String::from).to_vec()];
    for ((tenant, sku), costs) in &costs {
        let change = change(*costs)?;
        if change != Money::ZERO {
            cells.push(vec![lossy(tenant), sku.clone(), costs[0].to_string(), costs[1].to_string(), change.to_string()]);
        }
    }
    cells.push(vec!["total".into(), String::new(), totals[0].to_string(), totals[1].to_string(), change(totals)?.to_string()]);
    say(&table(&cells, 2)).map(|()| ExitCode::SUCCESS)
}

pub fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let read = match args.place.read()? {
        Ok(read) => read,
        Err(report) => return Ok(crate::cli::check::refuse(&report, args.json)),
    };
    let rating = read.rating()?;
    let rows = read.rows(&rating)?;
    let found: Vec<&Row> = rows.iter().filter(|row| row.id().starts_with(args.row.as_str())).collect();
    let row = match found[..] {
        [row] => row,
        [] => return Err(Mistake(format!("no row is called {:?}; `weir cost rate` lists rows with their names", args.row)).into()),
        _ => return Err(Mistake(format!("{} rows begin with {:?}; write more of the name", found.len(), args.row)).into()),
    };
    if let Some(reversal) = &row.reversal {
        let (id, units) = (row.id(), -row.charge.billable);
        if args.json {
            let whole = json!({ "id": id, "reversal_of": reversal.of, "reason": reversal.reason, "billable": row.charge.billable.to_string(), "billed": row.charge.billed });
            return say(&format!("{whole}\n")).map(|()| ExitCode::SUCCESS);
        }
        let text =
            format!("row {id} takes back {units} units of row {}: {}\nexplain that one for its facts\n", reversal.of, reversal.reason);
        return say(&text).map(|()| ExitCode::SUCCESS);
    }
    let (from, to) = behind(&read, row, &rows);
    let mut facts: Vec<UsageFact> = Vec::new();
    let is_needed = needed(&read, row);
    read.books.each_between(from, to, &mut |fact| {
        if is_needed(fact) {
            facts.push(fact.to_fact());
        }
    })?;
    let explanation = explain_charge(&row.charge, &facts, &Rules::new(&read.card));
    if args.json {
        let mut whole = serde_json::to_value(&explanation)?;
        whole["id"] = json!(row.id());
        whole["revision"] = json!(row.revision);
        whole["published"] = json!(row.published.map(UnixNanos::rfc3339));
        say(&format!("{}\n", serde_json::to_string_pretty(&whole)?))?;
    } else {
        say(&format!("row {}, revision {}\n\n{}", row.id(), row.revision, explanation.text()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Which files of usage a row was made from: those since the row of its charge period before it, up to its own publication.
fn behind(read: &Read, row: &Row, rows: &[Row]) -> (usize, Option<usize>) {
    let charges = &read.charges;
    let place = rows.iter().position(|other| std::ptr::eq(other, row)).unwrap_or(rows.len());
    let own = charges.events.iter().find(|published| published.rows.contains(&place));
    if row.revision <= 1 {
        return (0, own.map(|published| published.usage_files));
    }
    let is_before = |at: usize, other: &Row| {
        at < place && other.charge.hour == row.charge.hour && other.revision < row.revision && other.reversal.is_none()
    };
    let before = rows.iter().enumerate().filter(|(at, other)| is_before(*at, other)).map(|(at, _)| at).max();
    let since = before.and_then(|at| charges.events.iter().find(|published| published.rows.contains(&at)));
    (since.map_or(0, |published| published.usage_files), own.map(|published| published.usage_files))
}

/// Facts that a row may be made of: of its tenant and time, or anybody's where it is a part of what several share.
fn needed<'a>(read: &'a Read, row: &'a Row) -> impl Fn(&FactView<'_>) -> bool + 'a {
    let charge = &row.charge;
    let gap = read.card.sample_gap.0;
    let counts_month = charge.tier > 0 || charge.commitment.is_some();
    let from = if counts_month { bill::Month::of(charge.hour).start() } else { charge.hour };
    let dims: Vec<String> = read.card.shares.iter().flat_map(|share| [share.origin.clone(), share.by.clone()]).collect();
    move |fact: &FactView<'_>| {
        let (start, end) = match &fact.event {
            Some(event) => (event.at.0.saturating_sub(gap), event.end.0.saturating_add(gap)),
            None => (fact.minute.saturating_mul(60_000_000_000), fact.minute.saturating_mul(60_000_000_000)),
        };
        let is_shared = charge.allocation.is_some() && dims.iter().any(|meter| meter == fact.meter);
        start < charge.end.0 && end >= from.0 && (is_shared || fact.tenant == charge.series.tenant)
    }
}

pub fn quarantine(args: &QuarantineArgs) -> anyhow::Result<ExitCode> {
    let read = match args.place.read()? {
        Ok(read) => read,
        Err(report) => return Ok(crate::cli::check::refuse(&report, args.json)),
    };
    let rating = read.rating()?;
    let listed = listed(&rating);
    if args.json {
        let whole = json!({ "duplicates": rating.duplicates, "conflicts": rating.conflicts, "unpriced_events": rating.unpriced_events(), "quarantine": listed });
        return say(&format!("{}\n", serde_json::to_string_pretty(&whole)?)).map(|()| ExitCode::SUCCESS);
    }
    if listed.is_empty() {
        return say(&format!("nothing is in quarantine; {} copies of events are not counted\n", rating.duplicates))
            .map(|()| ExitCode::SUCCESS);
    }
    let cell = |row: &Value, name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let names = ["why", "tenant", "meter", "at", "quantity", "key", "stream", "position"];
    let mut cells = vec![names.map(String::from).to_vec()];
    cells.extend(listed.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()));
    say(&format!("{}\n{} copies of events are not counted\n", table(&cells, 4), rating.duplicates)).map(|()| ExitCode::SUCCESS)
}

/// What is not billed until somebody looks, one by one.
fn listed(rating: &Rating) -> Vec<Value> {
    let events = rating.quarantine.iter().map(|one| {
        json!({
            "why": one.why.name(), "tenant": lossy(&one.series.tenant), "meter": one.series.meter, "unit": one.series.unit,
            "dims": dims(&one.series.dims), "at": one.at.rfc3339(), "quantity": one.quantity.to_string(), "key": lossy(&one.key).replace('\u{1f}', " "),
            "stream": format!("{:016x}", one.stream.0), "position": one.position, "received": one.received.rfc3339(), "events": 1,
        })
    });
    let refused = rating.refused.iter().map(|one| {
        json!({
            "why": one.why.name(), "tenant": lossy(&one.series.tenant), "meter": one.series.meter, "unit": one.series.unit,
            "dims": dims(&one.series.dims), "at": one.from.rfc3339(), "quantity": one.quantity.to_string(), "events": one.events, "says": one.to_string(),
        })
    });
    events.chain(refused).collect()
}

fn dims(dims: &[(String, Vec<u8>)]) -> Value {
    Value::Object(dims.iter().map(|(name, value)| (name.clone(), json!(lossy(value)))).collect())
}
