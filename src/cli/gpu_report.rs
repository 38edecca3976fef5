//! `weir gpu report`: who used devices, how well, with how much energy and money, by tenant, service and model.
//!
//! In: usage facts of the `gpu` source and a meter of tokens, samples that say when a device was throttled, and what was published of
//! the bill; all by SQL over the data folder. Out: a row for each owner, the whole, and whether its mean use meets the target. Devices
//! that several share are divided as a bill divides them (`device::report`).

use super::search::read_time;
use super::{say, table};
use crate::desk::{self, Question};
use crate::env;
use crate::statement::{SqlPiece, Statement};
use anyhow::{Context, bail};
use clap::Args;
use device::report::{Collect, Row, TARGET_PERCENT, Used};
use flow::units::{NANOS_PER_SECOND, UnixNanos};
use serde_json::{Value, json};
use sql::Format;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const ROWS_MAX: u64 = 5_000_000;
const MEMORY_BYTES: u64 = 1 << 30;
const DEADLINE: Duration = Duration::from_secs(120);
/// Reasons for slower clocks that are none of the owner's choice: power, heat, a brake. (nvmlClocksThrottleReasons)
const THROTTLED_BITS: u64 = 0x4 | 0x8 | 0x20 | 0x40 | 0x80;
/// Compute slices of a device, by its model.
const SLICES: [(&str, u32); 2] = [("A30", 4), ("", 7)];

#[derive(Args)]
pub struct Options {
    #[arg(long, default_value = "weir-data")]
    data: PathBuf,
    /// From this time on: RFC 3339, or a duration before now such as 24h.
    #[arg(long, default_value = "24h")]
    since: String,
    /// Before this time. Default: now.
    #[arg(long)]
    until: Option<String>,
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Meter whose quantities are tokens.
    #[arg(long, default_value = "tokens_out")]
    tokens: String,
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let from = read_time(&options.since)?;
    let to = options.until.as_deref().map(read_time).transpose()?.unwrap_or_else(env::now);
    let efficiency = {
        let facts = facts(options, from, to)?;
        let mut collect = Collect::default();
        let mut models = BTreeMap::new();
        for fact in &facts {
            let dim = |name: &str| fact.dims.get(name).and_then(Value::as_str).unwrap_or_default();
            models.insert(dim("device").to_string(), dim("gpu_model").to_string());
            collect.add(&Used {
                meter: if fact.meter == options.tokens { "tokens" } else { &fact.meter },
                tenant: &fact.tenant,
                time_ms: fact.time_ms,
                device: dim("device"),
                mode: dim("mode"),
                service: dim("service"),
                model: dim("model"),
                amount: fact.amount,
            });
        }
        let slices = |device: &str| {
            let model = models.get(device).map_or("", String::as_str);
            SLICES.iter().find(|(part, _)| model.contains(part)).map_or(7, |(_, slices)| *slices)
        };
        collect.report(&slices)
    };
    let money = money(options, from, to)?;
    let throttled = throttled(options, from, to)?;
    let money_of =
        |row: &Row| money.get(&(row.who.tenant.clone(), row.who.service.clone(), row.who.model.clone())).copied().unwrap_or_default();
    let rows: Vec<&Row> =
        efficiency.rows.iter().filter(|row| options.tenant.as_ref().is_none_or(|tenant| *tenant == row.who.tenant)).collect();
    if options.json {
        let shown: Vec<Value> = rows.iter().map(|row| json_of(row, money_of(row))).collect();
        let servers: Vec<Value> = efficiency.servers.iter().map(|server| {
            let (ms, mj) = server.difference();
            json!({ "service": server.service, "tokens": server.tokens.to_string(), "device_ms": server.device_ms.to_string(), "device_mj": server.device_mj.to_string(), "difference_ms": ms.to_string(), "difference_mj": mj.to_string() })
        }).collect();
        let throttled: Vec<Value> =
            throttled.iter().map(|(device, share)| json!({ "device": device, "throttled_percent": round(*share) })).collect();
        say(&format!(
            "{}\n",
            json!({
                "from": from.rfc3339(), "to": to.rfc3339(), "rows": shown, "total": json_of(&efficiency.total, (0, 0)), "servers": servers,
                "throttled": throttled, "target_percent": TARGET_PERCENT, "meets_target": efficiency.meets_target(),
            })
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        say("no usage of devices in this time\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = [
        "tenant",
        "service",
        "model",
        "held",
        "sm time",
        "use",
        "idle",
        "energy",
        "tokens/J",
        "tokens/GPU-s",
        "GiB-h",
        "cost",
        "idle cost",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| cells(row, money_of(row))));
    let mut text = table(&lines, 3);
    let use_of_all = efficiency.total.utilisation_percent().map_or("nothing was measured".to_string(), |percent| format!("{percent:.1} %"));
    let verdict = match efficiency.meets_target() {
        Some(true) => "met",
        Some(false) => "missed",
        None => "not known",
    };
    text.push_str(&format!("\nmean use of held devices: {use_of_all}; the target of {TARGET_PERCENT} % is {verdict}\n"));
    for server in &efficiency.servers {
        let (ms, mj) = server.difference();
        text.push_str(&format!("server {}: device view minus token view {ms} ms, {mj} mJ\n", server.service));
    }
    for (device, share) in &throttled {
        text.push_str(&format!("{device}: throttled {:.1} % of the time (power, heat)\n", share * 100.0));
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Thousandths of a percent.
fn round(share: f64) -> f64 {
    (share * 100_000.0).round() / 1_000.0
}

fn hours(ms: u128) -> String {
    format!("{}.{:02} h", ms / 3_600_000, ms % 3_600_000 / 36_000)
}

/// Of 10^-12 units, rounded to the cent only for the eye.
fn cents(cost_e12: i128) -> String {
    format!("{:.2}", cost_e12 as f64 / 1e12)
}

fn cells(row: &Row, (cost, idle_cost): (i128, i128)) -> Vec<String> {
    let named = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    let optional = |value: Option<f64>, unit: &str| value.map_or("-".into(), |value| format!("{value:.2}{unit}"));
    vec![
        if row.who.tenant.is_empty() { "(nobody)".into() } else { row.who.tenant.clone() },
        named(&row.who.service),
        named(&row.who.model),
        hours(row.held_ms),
        hours(row.sm_ms),
        optional(row.utilisation_percent(), " %"),
        hours(row.idle_ms),
        format!("{} J", row.energy_mj / 1_000),
        optional(row.tokens_per_joule(), ""),
        optional(row.tokens_per_gpu_second(), ""),
        format!("{:.2}", row.memory_mib_ms as f64 / 1024.0 / 3_600_000.0),
        cents(cost),
        cents(idle_cost),
    ]
}

fn json_of(row: &Row, (cost, idle_cost): (i128, i128)) -> Value {
    json!({
        "tenant": row.who.tenant, "service": row.who.service, "model": row.who.model,
        "held_ms": row.held_ms.to_string(), "measured_ms": row.measured_ms.to_string(), "sm_ms": row.sm_ms.to_string(),
        "idle_ms": row.idle_ms.to_string(), "energy_mj": row.energy_mj.to_string(), "memory_mib_ms": row.memory_mib_ms.to_string(),
        "tokens": row.tokens.to_string(), "utilisation_percent": row.utilisation_percent(), "tokens_per_joule": row.tokens_per_joule(),
        "tokens_per_gpu_second": row.tokens_per_gpu_second(), "cost_e12": cost.to_string(), "idle_cost_e12": idle_cost.to_string(),
    })
}

/// Tenant, service and model.
type Whose = (String, String, String);

struct Fact {
    meter: String,
    tenant: String,
    time_ms: i64,
    dims: Value,
    amount: u128,
}

/// Facts of devices and of tokens, each event once.
fn facts(options: &Options, from: UnixNanos, to: UnixNanos) -> anyhow::Result<Vec<Fact>> {
    let meters = ["gpu_held", "gpu_sm_time", "gpu_energy", "gpu_memory_time", "gpu_slices", &options.tokens];
    let list = meters.map(quoted).join(", ");
    let within = format!("minute >= {} AND minute < {}", stamp(from), stamp(to));
    // Copies of an event have its key; of a sum of a minute there are none.
    let statement = format!(
        "SELECT meter, tenant, minute, dims, unit, sum(quantity) AS quantity FROM (\
         SELECT meter, tenant, minute, dims, unit, key, CASE WHEN key IS NULL OR key = '' THEN sum(quantity) ELSE max(quantity) END AS quantity \
         FROM usage WHERE meter IN ({list}) AND {within} AND (kind IS NULL OR kind IN ('point', '')) \
         GROUP BY meter, tenant, minute, dims, unit, key) AS events GROUP BY meter, tenant, minute, dims, unit"
    );
    let rows = answer(&options.data, &statement)?;
    let fact = |row: Value| -> anyhow::Result<Fact> {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_string();
        let time = flow::time::TimeParser::new().parse(text("minute").as_bytes(), flow::fields::Kind::Text);
        Ok(Fact {
            meter: text("meter"),
            tenant: text("tenant"),
            time_ms: time.context("a fact has a minute")?.0 / 1_000_000,
            dims: serde_json::from_str(&text("dims")).unwrap_or(Value::Null),
            amount: number(&row["quantity"]).try_into().unwrap_or(0),
        })
    };
    rows.into_iter().map(fact).collect()
}

/// What was published of the bill for devices, and of it what was idle, by tenant, service and model, in 10^-12 units.
fn money(options: &Options, from: UnixNanos, to: UnixNanos) -> anyhow::Result<BTreeMap<Whose, (i128, i128)>> {
    let statement = format!(
        "SELECT tenant, service, model, sum(billed_cost) AS cost, \
         sum(CASE WHEN row LIKE '%\"is_idle\":true%' THEN billed_cost ELSE 0 END) AS idle FROM charges \
         WHERE meter LIKE 'gpu\\_%' AND charge_period_start >= {} AND charge_period_start < {} GROUP BY tenant, service, model",
        stamp(from),
        stamp(to)
    );
    let rows = answer(&options.data, &statement)?.into_iter().map(|row| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_string();
        ((text("tenant"), text("service"), text("model")), (decimal(&row["cost"]), decimal(&row["idle"])))
    });
    Ok(rows.collect())
}

/// Share of the samples in which a device was slowed down, by its uuid; those that never were are left out.
fn throttled(options: &Options, from: UnixNanos, to: UnixNanos) -> anyhow::Result<Vec<(String, f64)>> {
    let statement = format!(
        "SELECT labels, count(*) AS samples, sum(CASE WHEN (CAST(value AS BIGINT) & {THROTTLED_BITS}) <> 0 THEN 1 ELSE 0 END) AS slow FROM metrics \
         WHERE metric IN ('DCGM_FI_DEV_CLOCK_THROTTLE_REASONS', 'DCGM_FI_DEV_CLOCKS_EVENT_REASONS', 'weir_gpu_throttle_reasons') \
         AND value >= 0 AND value < 9e15 AND time >= {} AND time < {} GROUP BY labels",
        stamp(from),
        stamp(to)
    );
    let mut found: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for row in answer(&options.data, &statement)? {
        let labels: Value = serde_json::from_str(row["labels"].as_str().unwrap_or_default()).unwrap_or(Value::Null);
        let device = ["UUID", "hw.id"].iter().find_map(|name| labels[*name].as_str()).unwrap_or_default().to_string();
        let of_device = found.entry(device).or_default();
        *of_device = (of_device.0 + number(&row["samples"]), of_device.1 + number(&row["slow"]));
    }
    Ok(found.into_iter().filter(|(_, (_, slow))| *slow > 0).map(|(device, (all, slow))| (device, slow as f64 / all as f64)).collect())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn stamp(at: UnixNanos) -> String {
    format!("TIMESTAMP '{}'", UnixNanos(at.0.div_euclid(NANOS_PER_SECOND) * NANOS_PER_SECOND).rfc3339())
}

fn number(value: &Value) -> i128 {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_i64().map(i128::from)).unwrap_or(0)
}

/// Of a decimal with up to 12 places, in 10^-12.
fn decimal(value: &Value) -> i128 {
    let text = value.as_str().unwrap_or_default();
    bill::Money::parse(text).map_or(0, |money| money.0)
}

/// Rows of a statement. Errors: one that is not whole.
fn answer(data: &Path, sql: &str) -> anyhow::Result<Vec<Value>> {
    let statement = Statement {
        sql: sql.into(),
        tenant: None,
        format: Format::Json,
        rows_max: ROWS_MAX,
        memory_bytes: MEMORY_BYTES,
        read_bytes_max: None,
        deadline: DEADLINE,
    };
    let mut answer = desk::ask(data, &Question::Sql(statement))?;
    let mut rows = Vec::new();
    while let Some(line) = answer.line()? {
        match serde_json::from_str(&line).with_context(|| format!("not a piece of an answer: {line}"))? {
            SqlPiece::Rows(len) => {
                let bytes = answer.bytes(len)?;
                for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    rows.push(serde_json::from_slice(line).context("a row is JSON")?);
                }
            }
            SqlPiece::Mistake(text) => bail!("{text}"),
            SqlPiece::Done(done) => {
                if let Some(why) = done.partial {
                    bail!("the report is not whole: {why}");
                }
            }
        }
    }
    Ok(rows)
}
