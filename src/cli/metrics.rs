//! `weir metrics`: asks for series and their values, as PromQL's selectors do.
//!
//! In: a selector, or a function around one. Out: one line for each series with its value now, or with `--since` its points; with
//! `--json` an object for each. A query that is wrong exits 2 and shows where.

use super::Mistake;
use super::search::read_time;
use crate::desk::{self, Question};
use crate::env;
use crate::promql::{self, Line};
use anyhow::Context;
use flow::units::{Span, UnixNanos};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use telemetry::selector::{NAME, Query};

/// Points that are held to answer one question.
const POINTS_MAX: usize = 20_000_000;

pub struct Options {
    pub query: String,
    pub data: PathBuf,
    pub tenant: Option<String>,
    pub since: Option<String>,
    pub at: Option<String>,
    pub step: Option<Span>,
    pub json: bool,
    pub deadline: Span,
}

pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    if let Err(mistake) = Query::parse(&options.query) {
        return Err(Mistake(mistake.show(&options.query)).into());
    }
    let time = |text: &Option<String>| text.as_deref().map(read_time).transpose();
    let at = time(&options.at)?.unwrap_or_else(env::now);
    let step = options.step.map_or(0, |step| step.0);
    let since = match time(&options.since)? {
        Some(since) if since < at => Some((since.0, step)),
        Some(_) => return Err(Mistake("--since is not before the end; give a time before it, as in --since 1h".into()).into()),
        None if step > 0 => return Err(Mistake("--step goes with --since, as in --since 1h --step 1m".into()).into()),
        None => None,
    };
    let question = promql::Question {
        query: options.query,
        tenant: options.tenant,
        at: at.0,
        since,
        points_max: POINTS_MAX,
        deadline: Duration::from_nanos(options.deadline.0.unsigned_abs()),
    };
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut answer = desk::ask(&options.data, &Question::Metrics(question))?;
    while let Some(line) = answer.line()? {
        let line: Line = serde_json::from_str(&line).with_context(|| format!("not a piece of an answer: {line}"))?;
        if options.json {
            print_json(&mut out, &line)?;
        } else {
            print(&mut out, &line, since.is_some())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// `name{a="b"} 1`, with `--since` and a time at each point.
fn print(out: &mut impl Write, line: &Line, has_times: bool) -> std::io::Result<()> {
    let name = line.labels.iter().find(|(name, _)| name == NAME).map_or("", |(_, value)| value);
    let labels: Vec<String> =
        line.labels.iter().filter(|(name, _)| name != NAME).map(|(name, value)| format!("{name}={value:?}")).collect();
    let series = match labels.is_empty() && !name.is_empty() {
        true => name.to_owned(),
        false => format!("{name}{{{}}}", labels.join(", ")),
    };
    for (at, value) in &line.points {
        let value = value.as_str().map_or_else(|| plain(value), str::to_owned);
        match has_times || line.points.len() > 1 {
            true => writeln!(out, "{series} {value} {}", UnixNanos(*at).rfc3339())?,
            false => writeln!(out, "{series} {value}")?,
        }
    }
    Ok(())
}

/// A whole number without its fraction.
fn plain(value: &serde_json::Value) -> String {
    let text = value.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn print_json(out: &mut impl Write, line: &Line) -> std::io::Result<()> {
    let labels: serde_json::Map<String, serde_json::Value> =
        line.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let points: Vec<_> = line.points.iter().map(|(at, value)| serde_json::json!([UnixNanos(*at).rfc3339(), value])).collect();
    writeln!(out, "{}", serde_json::json!({ "labels": labels, "points": points }))
}
