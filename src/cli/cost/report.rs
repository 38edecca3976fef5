//! `weir cost report`: usage and cost, grouped, with shares and changes; as a table, JSON, CSV or a page of HTML.
//!
//! In: the books and a card. Out: the report; with --json also every hour's usage and every charge. What has no price, no tenant
//! or no user, and what is in quarantine, is never left out: `--by status` gives it rows of its own.

use super::{Place, Read, lossy, read_period, read_zone, say};
use crate::cli::{Mistake, table};
use anyhow::Context;
use bill::report::{Options, Sort};
use bill::{BudgetState, Charge, Days, Dim, Ledger, Period, Rating, Report, budget_state};
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

/// Most days that a report tells apart in a time zone: thirty years.
const DAYS_MAX: i64 = 11_000;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// What to group by: tenant, meter, sku, version, category, status, hour, day, month, any dimension of the meters, or tag:NAME.
    /// Default: tenant, service and model where meters have them, meter.
    #[arg(long, value_delimiter = ',')]
    by: Vec<String>,
    /// Only this month, day or stretch of time: 2026-10, 2026-10-05, 2026-10-01..2026-10-08.
    #[arg(long)]
    period: Option<String>,
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only where a dimension has this value, as in model=orca-8b; of several with one name any.
    #[arg(long = "only", value_name = "NAME=VALUE")]
    only: Vec<String>,
    /// Days and months of this time zone, as in Europe/Berlin. Default: UTC.
    #[arg(long)]
    zone: Option<String>,
    /// Changes against the period before, of the same length (of a month: the month before).
    #[arg(long, requires = "period")]
    compare: bool,
    /// How many of the largest changes to name.
    #[arg(long, default_value_t = 5)]
    movers: usize,
    /// The most expensive first. Default: by key.
    #[arg(long)]
    by_cost: bool,
    #[arg(long)]
    json: bool,
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Write a page with charts into this file; it needs no network and no script.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "csv"])]
    html: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let read = match args.place.read()? {
        Ok(read) => read,
        Err(report) => return Ok(crate::cli::check::refuse(&report, args.json)),
    };
    let rating = read.rating()?;
    let charges = charges(&read, &rating)?;
    let ledger = Ledger { charges: &charges, ..Ledger::from(&rating) };
    let by = read_dims(&args.by, &rating)?;
    let options = options(args, by, &rating)?;
    let before = args.compare.then_some(&ledger);
    let report = bill::summarize(&ledger, before, &options)?;
    let budgets = budgets(&read, &charges)?;
    if args.json {
        say(&format!("{}\n", serde_json::to_string_pretty(&full_json(&rating, &charges, &report, &budgets, &options))?))?;
    } else if args.csv {
        say(&report.csv())?;
    } else if let Some(path) = &args.html {
        let page = page(args, &ledger, &report, &options, &rating)?;
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    } else {
        say(&text(&rating, &report, &budgets))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is charged: the rating, or, where rows were published, these and what must follow them.
fn charges(read: &Read, rating: &Rating) -> anyhow::Result<Vec<Charge>> {
    if read.charges.rows.is_empty() {
        return Ok(rating.rows.clone());
    }
    Ok(read.rows(rating)?.into_iter().map(|row| row.charge).collect())
}

fn options(args: &Args, by: Vec<Dim>, rating: &Rating) -> anyhow::Result<Options> {
    let zone = read_zone(args.zone.as_deref())?;
    let period = args.period.as_deref().map(|text| read_period(text, &zone)).transpose()?;
    let (period, before) = (period.map(|both| both[0]), period.filter(|_| args.compare).map(|both| both[1]));
    let mut only: Vec<(Dim, Vec<u8>)> = args.tenant.iter().map(|tenant| (Dim::Tenant, tenant.clone().into_bytes())).collect();
    for pair in &args.only {
        let (name, value) = pair.split_once('=').ok_or_else(|| Mistake(format!("{pair:?} is no filter; write model=orca-8b")))?;
        only.push((Dim::parse(name), value.as_bytes().to_vec()));
    }
    let days = args.zone.is_some().then(|| days(&zone, rating, before.or(period), period)).transpose()?;
    Ok(Options {
        by_status: by.contains(&Dim::Status),
        by,
        only,
        period,
        before,
        days,
        sort: if args.by_cost { Sort::Cost } else { Sort::Key },
        movers: args.movers,
    })
}

/// The days of a time zone over everything that the report tells.
fn days(zone: &TimeZone, rating: &Rating, first: Option<Period>, last: Option<Period>) -> anyhow::Result<Days> {
    let hours = || rating.usage.iter().map(|usage| usage.hour.0).chain(rating.rows.iter().flat_map(|row| [row.hour.0, row.end.0]));
    let from = first.map_or_else(|| hours().min().unwrap_or(0), |period| period.from.0);
    let to = last.map_or_else(|| hours().max().unwrap_or(0).saturating_add(NANOS_PER_HOUR), |period| period.to.0);
    let date = |nanos: i64| {
        let instant = jiff::Timestamp::from_nanosecond(i128::from(nanos)).context("a time is out of range")?;
        anyhow::Ok(instant.to_zoned_datetime(zone.clone()).date())
    };
    let start_of = |date: jiff::civil::Date| anyhow::Ok(date.to_zoned_datetime(zone.clone())?.timestamp());
    let (mut day, last) = (date(from)?, date(to)?.tomorrow()?);
    let mut days = Vec::new();
    while day <= last {
        days.push((day.to_string(), UnixNanos(i64::try_from(start_of(day)?.as_nanosecond())?)));
        anyhow::ensure!(days.len() as i64 <= DAYS_MAX, "the report spans more than {DAYS_MAX} days; name a --period");
        day = day.tomorrow()?;
    }
    let end = UnixNanos(i64::try_from(start_of(day)?.as_nanosecond())?);
    Days::new(days, end).map_err(anyhow::Error::msg)
}

/// How budgets stand in the newest month with charges, as of the end of its last hour that was used.
fn budgets(read: &Read, charges: &[Charge]) -> anyhow::Result<Vec<BudgetState>> {
    let Some(newest) = charges.iter().map(|charge| charge.hour).max() else { return Ok(Vec::new()) };
    let complete = UnixNanos(newest.0.saturating_add(NANOS_PER_HOUR));
    let now = UnixNanos(complete.0 - 1);
    let month = bill::Month::of(newest);
    let own: Vec<Charge> = charges.iter().filter(|charge| bill::Month::of(charge.hour) == month).cloned().collect();
    Ok(read.card.budgets.iter().map(|budget| budget_state(budget, &own, now, complete)).collect::<Result<_, _>>()?)
}

fn page(args: &Args, ledger: &Ledger, report: &Report, options: &Options, rating: &Rating) -> anyhow::Result<String> {
    let mut by = options.by.clone();
    by.retain(|dim| *dim != Dim::Day);
    by.push(Dim::Day);
    let days = bill::summarize(ledger, None, &Options { by, before: None, ..options.clone() })?;
    let groups: Vec<&str> = report.by.iter().map(Dim::name).collect();
    let title = format!("Cost by {}", groups.join(", "));
    let period = args.period.as_deref().unwrap_or("everything");
    let zone = args.zone.as_deref().unwrap_or("UTC");
    let subtitle = format!("{period}, {zone}; rate card {}", rating.card);
    Ok(bill::page(&bill::Page { title: &title, subtitle: &subtitle, groups: report, days: Some(&days) })?)
}

/// What to group by: one of ours, or a dimension that some meter has.
fn read_dims(names: &[String], rating: &Rating) -> anyhow::Result<Vec<Dim>> {
    let dims = || rating.usage.iter().map(|usage| &usage.series).chain(rating.rows.iter().map(|row| &row.series)).flat_map(|s| &s.dims);
    let known: BTreeSet<&str> = dims().map(|dim| dim.0.as_str()).collect();
    if names.is_empty() {
        let dims = ["service", "model"].into_iter().filter(|name| known.contains(name)).map(Dim::parse);
        return Ok([Dim::Tenant].into_iter().chain(dims).chain([Dim::Meter]).collect());
    }
    let mut by = Vec::new();
    for name in names {
        let dim = Dim::parse(name);
        if let Dim::Field(field) = &dim
            && !known.contains(field.as_str())
            && !rating.usage.is_empty()
        {
            let dims: Vec<&str> = known.iter().copied().collect();
            let ours = Dim::NAMES.into_iter().chain(dims).collect::<Vec<_>>().join(", ");
            return Err(Mistake(format!("nothing was metered by {name:?}; group by any of {ours}")).into());
        }
        by.push(dim);
    }
    Ok(by)
}

fn dims_json(dims: &[(String, Vec<u8>)]) -> Map<String, Value> {
    dims.iter().map(|(name, value)| (name.clone(), json!(lossy(value)))).collect()
}

/// Usage and charges hour by hour, what has no price, and the report.
fn full_json(rating: &Rating, charges: &[Charge], report: &Report, budgets: &[BudgetState], options: &Options) -> Value {
    let told = |hour: UnixNanos| options.period.is_none_or(|period| period.from <= hour && hour < period.to);
    let usage: Vec<Value> = rating
        .usage
        .iter()
        .filter(|u| told(u.hour))
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
    let charges: Vec<Value> = charges
        .iter()
        .filter(|c| told(c.hour))
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
            row.insert("attribution".into(), json!(c.attribution()));
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
    let conservation: Vec<Value> = rating
        .conservation
        .iter()
        .map(|c| {
            let (money, time) = c.residual();
            json!({
                "share": c.share, "origin": c.origin.to_string(), "parts": c.parts.to_string(), "held": c.held.to_string(),
                "allocated": c.allocated.to_string(), "idle": c.idle.to_string(),
                "residual": { "money": money.to_string(), "time": time.to_string() },
            })
        })
        .collect();
    let mut whole = report_json(report);
    whole["duplicates"] = json!(rating.duplicates);
    whole["conflicts"] = json!(rating.conflicts);
    whole["quarantined"] = json!(rating.quarantine.len());
    whole["conservation"] = json!(conservation);
    whole["budgets"] = json!(budgets);
    whole["alerts"] =
        json!(budgets.iter().filter(|b| b.alerts.iter().any(|a| a.crossed.is_some())).map(BudgetState::text).collect::<Vec<_>>());
    whole["card"] = json!(rating.card.as_ref());
    whole["usage"] = json!(usage);
    whole["charges"] = json!(charges);
    whole["unpriced"] = json!(unpriced);
    whole["refused"] = json!(refused);
    whole
}

/// A report as JSON; costs are decimal text.
pub fn report_json(report: &Report) -> Value {
    report.json()
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

fn text(rating: &Rating, report: &Report, budgets: &[BudgetState]) -> String {
    let cells = report.table();
    let mut rows = vec![cells.header];
    rows.extend(cells.rows);
    let mut out = table(&rows, cells.left);
    for index in &report.movers {
        let row = &report.rows[*index];
        let key: Vec<String> = row.key.iter().map(|value| lossy(value)).collect();
        if let Some(change) = &row.change {
            out.push_str(&format!("\n{} {}: {} {}", change.kind.name(), key.join(" "), change.amount, report.currency));
        }
    }
    if !report.movers.is_empty() {
        out.push('\n');
    }
    if !rating.unpriced.is_empty() {
        out.push_str(&format!(
            "\n{} events have no price and are in no sum of money; --by status and --json list them\n",
            rating.unpriced_events()
        ));
    }
    if !rating.refused.is_empty() || !rating.quarantine.is_empty() {
        let events = rating.refused_events().saturating_add(rating.quarantine.len() as u64);
        out.push_str(&format!("\n{events} events are refused or in quarantine; `weir cost quarantine` lists them\n"));
    }
    if rating.duplicates > 0 {
        out.push_str(&format!("\n{} copies of events are not counted\n", rating.duplicates));
    }
    for budget in budgets {
        out.push_str(&format!("\n{}\n", budget.text()));
    }
    out.push_str(&format!("\nrate card {}\n", rating.card));
    out
}
