//! `weir run`: runs pipelines and sums up what happened.
//!
//! In: pipeline files. Out: the exit code and, after the run, a summary: what came in, what was kept, what was
//! dropped and why, the bill by tenant, what to try next. Progress is shown on a terminal only.

use super::{cost, ledger, say, table};
use crate::config;
use crate::desk::Desk;
use crate::env;
use crate::runtime;
use crate::sinks::SinkConfig;
use crate::sources::SourceConfig;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

pub struct Options {
    pub once: bool,
    pub data: Option<PathBuf>,
    pub json: bool,
    pub quiet: bool,
}

pub fn run(files: &[PathBuf], options: Options) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(files, &|name| std::env::var(name).ok()) {
        Ok(loaded) => loaded,
        Err(report) => return Ok(super::check::refuse(&report, options.json)),
    };
    if let Some(source) = loaded.iter().flat_map(|l| runtime::intake::endless(&l.config)).next().filter(|_| options.once) {
        eprintln!("error: source {source} has no end: others send to it");
        eprintln!("  --once reads sources to their end");
        eprintln!("  help: run without --once, and end it with SIGTERM: everything that was taken is delivered first");
        return Ok(ExitCode::from(2));
    }
    start_log(options.once);
    let mut process = config::process(&loaded);
    if let Some(data) = &options.data {
        process.data.clone_from(data);
    }
    let bar = progress_bar(&loaded, &options);
    let how = runtime::Options { once: options.once, data_is_given: options.data.is_some() };
    let (desk, loaded) = runtime::run(loaded, &process, how, &mut |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    let cards = loaded.iter().filter_map(|l| l.rates.as_ref()).map(|r| &r.card).next();
    let summary = summarise(&desk, cards)?;
    if options.json {
        say(&format!("{}\n", serde_json::to_string(&summary)?))?;
    } else if options.once && !options.quiet {
        let text = show(&summary, &process.data);
        // Where records go to standard output, what people read goes beside it.
        let stdout_is_taken = loaded.iter().flat_map(|l| l.config.sinks.values()).any(|s| matches!(s, SinkConfig::Stdout(_)));
        if stdout_is_taken { eprint!("{text}") } else { say(&text)? }
    }
    Ok(ExitCode::from(u8::from(summary["residual"] != json!(0))))
}

/// Events of the run, on standard error. With `--once` only what is wrong: the summary says the rest.
pub fn start_log(once: bool) {
    let default = if once { "warn" } else { "info" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| default.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // Already set only if somebody calls this twice; then the first one stays.
    let _ = log.with_target(false).try_init();
}

fn progress_bar(loaded: &[config::Loaded], options: &Options) -> ProgressBar {
    if !options.once || options.json || options.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sources = loaded.iter().flat_map(|l| l.config.sources.values());
    let patterns = sources.filter_map(|s| if let SourceConfig::File(f) = s { Some(&f.include) } else { None }).flatten();
    let paths = patterns.filter_map(|p| glob::glob(p).ok()).flatten().flatten();
    let bytes = paths.filter_map(|p| p.metadata().ok()).map(|m| m.len()).sum();
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}").expect("the template is a constant");
    ProgressBar::new(bytes).with_style(style)
}

/// Everything the run can say of itself, as JSON.
fn summarise(desk: &Desk, card: Option<&bill::Card>) -> anyhow::Result<Value> {
    let view = desk.ledger(false)?;
    let mut summary = json!({ "residual": view["residual"], "peak_resident_bytes": peak_resident_bytes() });
    // One pipeline is the common case: its totals stand at the top; several stand under their names.
    let pipelines = view["pipelines"].as_object().cloned().unwrap_or_default();
    if let [(_, only)] = pipelines.iter().collect::<Vec<_>>()[..] {
        for key in ["received", "created", "kept", "dropped", "notes", "tenants", "sinks", "streams"] {
            summary[key] = only[key].clone();
        }
    }
    summary["pipelines"] = Value::Object(pipelines);
    if let Some(card) = card
        && let Ok(facts) = desk.facts(card)
    {
        let rating = facts.rate(card);
        let report = bill::report(&rating, &[bill::Dim::Tenant])?;
        summary["bill"] = cost::report_json(&report);
    }
    Ok(summary)
}

fn peak_resident_bytes() -> Option<u64> {
    env::peak_resident_bytes()
}

fn show(summary: &Value, data: &std::path::Path) -> String {
    let mut out = String::new();
    for (name, pipeline) in summary["pipelines"].as_object().into_iter().flatten() {
        let count = |v: &Value| v["records"].as_u64().unwrap_or(0);
        out.push_str(&format!(
            "\n{name}: {} records in, {} kept, {} dropped\n\n",
            count(&pipeline["received"]),
            count(&pipeline["kept"]),
            count(&pipeline["received"]) + count(&pipeline["created"]) - count(&pipeline["kept"])
        ));
        out.push_str(&table(&ledger::rows(pipeline), 1));
        let notes: Vec<String> =
            pipeline["notes"].as_object().into_iter().flatten().map(|(note, n)| format!("{n} {}", note.replace('_', " "))).collect();
        if !notes.is_empty() {
            out.push_str(&format!("  noted: {}\n", notes.join(", ")));
        }
        for (sink, totals) in pipeline["sinks"].as_object().into_iter().flatten() {
            let others = match count(&totals["not_selected"]) {
                0 => String::new(),
                records => format!(", {records} not selected"),
            };
            out.push_str(&format!("  delivered to {sink}: {} records{others}\n", count(&totals["delivered"])));
        }
    }
    if !summary["bill"].is_null() {
        out.push_str(&format!("\nbill in {}\n\n", summary["bill"]["currency"].as_str().unwrap_or_default()));
        out.push_str(&cost::bill_table(&summary["bill"]));
    }
    out.push_str(&format!("\nresidual {} (records and bytes nobody can account for)\n", summary["residual"]));
    let data = data.display();
    let data = if data.to_string() == "weir-data" { String::new() } else { format!(" --data {data}") };
    out.push_str("\ntry next\n");
    for command in ["search 'level:error'", "cost report --by tenant,model,meter", "ledger --recount"] {
        out.push_str(&format!("  weir {command}{data}\n"));
    }
    out
}
