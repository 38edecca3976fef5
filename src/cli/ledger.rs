//! `weir ledger`: the law, per tenant, by reason.
//!
//! In: a data folder. Out: what was received, kept and dropped, and what each sink has of it, in all, of one tenant, or since a
//! time; the residual is 0 when every record and byte is accounted for. Exit 1 if it is not. `weir ledger examples`: some of
//! what was dropped.

use crate::cli::search::read_time;
use crate::cli::{Mistake, say, table};
use crate::desk::{self, Question};
use crate::history;
use anyhow::Context;
use flow::event::{Note, Reason};
use hub::{Ledger, LostReason, SinkTotals, Tally};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn tally(tally: &Tally) -> Value {
    json!({ "records": tally.records, "bytes": tally.bytes })
}

fn by_tenant(tallies: &BTreeMap<Vec<u8>, Tally>) -> Value {
    tallies.iter().map(|(tenant, t)| (String::from_utf8_lossy(tenant).into_owned(), tally(t))).collect::<Map<_, _>>().into()
}

fn sink_view(sink: &SinkTotals) -> Value {
    let total = |tallies: &BTreeMap<Vec<u8>, Tally>| {
        let mut sum = Tally::default();
        tallies.values().for_each(|t| sum.add(*t));
        tally(&sum)
    };
    json!({
        "delivered": total(&sink.delivered),
        "buffered": total(&sink.buffered),
        "rejected": rejected(sink),
        "not_selected": total(&sink.not_selected),
        "tenants": {
            "delivered": by_tenant(&sink.delivered), "buffered": by_tenant(&sink.buffered), "not_selected": by_tenant(&sink.not_selected),
        },
    })
}

/// By tenant and reason.
fn rejected(sink: &SinkTotals) -> Value {
    let reasons = |by_reason: &BTreeMap<LostReason, Tally>| -> Value {
        by_reason.iter().map(|(reason, t)| (reason.name().to_string(), tally(t))).collect::<Map<_, _>>().into()
    };
    let tenants = sink.rejected.iter().map(|(tenant, by_reason)| (String::from_utf8_lossy(tenant).into_owned(), reasons(by_reason)));
    tenants.collect::<Map<_, _>>().into()
}

/// A ledger as JSON.
pub fn view(ledger: &Ledger) -> Value {
    let mut tenants = Map::new();
    let (mut received, mut created, mut kept) = (Tally::default(), Tally::default(), Tally::default());
    let mut dropped_total: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut notes_total: BTreeMap<&str, u64> = BTreeMap::new();
    for (tenant, totals) in &ledger.totals.tenants {
        received.add(totals.received);
        created.add(totals.created);
        kept.add(totals.kept);
        let mut dropped = Map::new();
        for (reason, t) in &totals.dropped {
            dropped_total.entry(reason.name()).or_default().add(*t);
            dropped.insert(reason.name().into(), tally(t));
        }
        let notes: Map<String, Value> = totals.notes.iter().map(|(note, n): (&Note, &u64)| (note.name().into(), json!(n))).collect();
        for (note, n) in &totals.notes {
            *notes_total.entry(note.name()).or_default() += n;
        }
        tenants.insert(
            String::from_utf8_lossy(tenant).into_owned(),
            json!({
                "received": tally(&totals.received), "created": tally(&totals.created), "kept": tally(&totals.kept),
                "dropped": dropped, "notes": notes,
            }),
        );
    }
    let streams = &ledger.totals.streams;
    let skipped: Map<String, Value> = streams.skipped.iter().map(|(reason, n)| (reason.name().into(), json!(n))).collect();
    let dropped: Map<String, Value> = dropped_total.iter().map(|(reason, t)| ((*reason).into(), tally(t))).collect();
    json!({
        "received": tally(&received),
        "created": tally(&created),
        "kept": tally(&kept),
        "dropped": dropped,
        "notes": notes_total,
        "tenants": tenants,
        "sinks": ledger.sinks.iter().map(|(name, sink)| (name.clone(), sink_view(sink))).collect::<Map<_, _>>(),
        "streams": {
            "read_bytes": streams.read_bytes, "records_bytes": streams.records_bytes, "framing_bytes": streams.framing_bytes,
            "skipped": skipped, "held_bytes": streams.held_bytes,
        },
        "residual": i64::try_from(ledger.residual()).unwrap_or(i64::MAX),
    })
}

pub struct Options {
    pub data: PathBuf,
    pub tenant: Option<String>,
    pub since: Option<String>,
    pub recount: bool,
    pub json: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let since = options.since.as_deref().map(read_time).transpose()?;
    let mut answer = desk::ask(&options.data, &Question::Ledger { recount: options.recount })?;
    let text = answer.line()?.context("the answer is empty")?;
    let mut ledger: Value = serde_json::from_str(&text)?;
    if let Some(since) = since {
        let found = history::at(&hub::Disk::Real, &options.data, since)?;
        let (from, before) = found.map_or((Value::Null, Value::Null), |(time, before)| (json!(time.rfc3339()), before));
        ledger = history::less(&ledger, &before);
        ledger["since"] = from;
    }
    if let Some(tenant) = &options.tenant {
        narrow(&mut ledger, tenant)?;
    }
    if options.json {
        say(&format!("{}\n", serde_json::to_string_pretty(&ledger)?))?;
    } else {
        say(&show(&ledger))?;
    }
    let recounted = ledger["pipelines"].as_object().into_iter().flatten().flat_map(|(_, p)| p["recount"].as_object().into_iter().flatten());
    let lost = recounted.filter(|(_, sink)| sink["retention"] != json!(true)).any(|(_, sink)| sink["difference"].as_u64() != Some(0));
    Ok(ExitCode::from(u8::from(ledger["residual"].as_i64() != Some(0) || lost)))
}

/// Leaves one tenant. Bytes of streams belong to no tenant and go.
fn narrow(ledger: &mut Value, tenant: &str) -> anyhow::Result<()> {
    let mut others = Vec::new();
    let mut found = false;
    for pipeline in ledger["pipelines"].as_object_mut().into_iter().flatten().map(|(_, pipeline)| pipeline) {
        let mut tenants = pipeline["tenants"].as_object().cloned().unwrap_or_default();
        let own = tenants.remove(tenant);
        found |= own.is_some();
        others.extend(tenants.into_iter().map(|(name, _)| name));
        let none = json!({ "records": 0, "bytes": 0 });
        let own = own.unwrap_or_else(|| json!({ "received": none, "kept": none, "created": none, "dropped": {}, "notes": {} }));
        // Whatever is told of a tenant is told of the whole under the same name.
        for (key, value) in own.as_object().into_iter().flatten() {
            pipeline[key] = value.clone();
        }
        pipeline["tenants"] = json!({ tenant: own });
        if let Some(pipeline) = pipeline.as_object_mut() {
            pipeline.remove("streams");
        }
        for sink in pipeline["sinks"].as_object_mut().into_iter().flatten().map(|(_, sink)| sink) {
            for side in ["delivered", "buffered", "not_selected"] {
                let own = sink["tenants"][side].get(tenant).cloned().unwrap_or_else(|| none.clone());
                sink["tenants"][side] = json!({ tenant: own });
                sink[side] = own;
            }
            let rejected = sink["rejected"].get(tenant).cloned();
            sink["rejected"] = rejected.map_or_else(|| json!({}), |own| json!({ tenant: own }));
        }
    }
    if !found {
        others.truncate(10);
        let some = if others.is_empty() { "there is none yet".to_string() } else { format!("there is {}", others.join(", ")) };
        return Err(Mistake(format!("no tenant is called {tenant:?}; {some}")).into());
    }
    Ok(())
}

/// `weir ledger examples`: the last few records that were dropped.
pub fn examples(data: &Path, reason: Option<String>, tenant: Option<String>, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(name) = reason.as_deref().filter(|name| Reason::ALL.iter().all(|r| r.name() != *name)) {
        let known: Vec<&str> = Reason::ALL.iter().map(|r| r.name()).collect();
        return Err(Mistake(format!("no reason is called {name:?}; the reasons are {}", known.join(", "))).into());
    }
    let mut answer = desk::ask(data, &Question::Examples { reason, tenant })?;
    while let Some(line) = answer.line()? {
        if json {
            say(&format!("{line}\n"))?;
            continue;
        }
        let example: Value = serde_json::from_str(&line)?;
        let text = |key: &str| example[key].as_str().unwrap_or_default().to_string();
        let more = if example["is_cut"] == json!(true) { format!(" ... {} bytes", example["bytes"]) } else { String::new() };
        // One record, one line: what a record holds must not move a terminal's cursor.
        let record: String = text("line").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Whose copy it is.
        let first = &example["first"];
        let of = first["stream"].as_str().map_or(String::new(), |stream| format!(" of {stream}@{}", first["position"]));
        let kept = if example["is_kept"] == json!(true) { " (kept)" } else { "" };
        say(&format!(
            "{} {}{kept} {} {}@{}{of} {record}{more}\n",
            text("time"),
            text("reason"),
            text("tenant"),
            text("stream"),
            example["position"]
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(ledger: &Value) -> String {
    let mut out = String::new();
    match ledger.get("since") {
        Some(Value::String(time)) => out.push_str(&format!("since {time}\n")),
        Some(_) => out.push_str("since the beginning: no earlier totals were written down\n"),
        None => {}
    }
    let several = ledger["pipelines"].as_object().is_some_and(|p| p.len() > 1);
    for (name, pipeline) in ledger["pipelines"].as_object().into_iter().flatten() {
        if several {
            out.push_str(&format!("pipeline {name}\n"));
        }
        out.push_str(&table(&rows(pipeline), 1));
        if let Some(streams) = pipeline.get("streams") {
            let skipped: Vec<String> =
                streams["skipped"].as_object().into_iter().flatten().map(|(why, n)| format!(" + {n} {why}")).collect();
            out.push_str(&format!(
                "bytes: {} read = {} in records + {} framing{} + {} held\n",
                streams["read_bytes"],
                streams["records_bytes"],
                streams["framing_bytes"],
                skipped.concat(),
                streams["held_bytes"]
            ));
        }
        for (sink, totals) in pipeline["sinks"].as_object().into_iter().flatten() {
            out.push_str(&format!("sink {sink}: {} delivered, {} buffered", totals["delivered"]["records"], totals["buffered"]["records"]));
            let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
            for (reason, t) in totals["rejected"].as_object().into_iter().flatten().flat_map(|(_, t)| t.as_object().into_iter().flatten()) {
                *lost.entry(reason).or_default() += t["records"].as_u64().unwrap_or(0);
            }
            if let Some(records) = totals["not_selected"]["records"].as_u64().filter(|records| *records > 0) {
                out.push_str(&format!(", {records} not selected"));
            }
            for (reason, records) in lost {
                out.push_str(&format!(", {records} rejected: {reason}"));
            }
            out.push('\n');
        }
        for (sink, count) in pipeline["recount"].as_object().into_iter().flatten() {
            let tenants = count["tenants"].as_object().into_iter().flat_map(|tenants| tenants.values());
            let expired: u64 = tenants.filter_map(|tenant| tenant["expired"]["records"].as_u64()).sum();
            let expired = if expired > 0 { format!("; {expired} records are kept no longer (`keep`)") } else { String::new() };
            out.push_str(&format!("recount of {sink}: difference {}{expired}\n", count["difference"]));
        }
        for (note, count) in pipeline["notes"].as_object().into_iter().flatten() {
            out.push_str(&format!("noted: {note} {count}\n"));
        }
    }
    out.push_str(&format!("residual {}\n", ledger["residual"]));
    out
}

/// Tenant, received, created (where anything was), kept, then a column for each reason that occurred.
pub fn rows(pipeline: &Value) -> Vec<Vec<String>> {
    let reasons: Vec<String> = pipeline["dropped"].as_object().into_iter().flatten().map(|(reason, _)| reason.clone()).collect();
    let is_created = pipeline["created"]["records"].as_u64().is_some_and(|records| records > 0);
    let columns: Vec<&str> = if is_created { vec!["received", "created", "kept"] } else { vec!["received", "kept"] };
    let mut rows = vec![["tenant"].iter().chain(&columns).map(ToString::to_string).chain(reasons.iter().cloned()).collect()];
    let line = |name: &str, totals: &Value| -> Vec<String> {
        let count = |v: &Value| v["records"].as_u64().unwrap_or(0).to_string();
        let mut row = vec![name.to_string()];
        row.extend(columns.iter().map(|column| count(&totals[*column])));
        row.extend(reasons.iter().map(|reason| count(&totals["dropped"][reason])));
        row
    };
    for (tenant, totals) in pipeline["tenants"].as_object().into_iter().flatten() {
        rows.push(line(tenant, totals));
    }
    rows.push(line("total", pipeline));
    rows
}
