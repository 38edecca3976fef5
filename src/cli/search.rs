//! `weir search`: finds records, in a data folder or in loose files.
//!
//! In: a query. Out: one record a line; with `--json` exactly the bytes that were received. Records come oldest
//! first, with `--limit` newest first. What is not sealed yet is found like everything else.

use super::Mistake;
use crate::desk::{self, HitLine, Question};
use crate::env;
use anyhow::Context;
use flow::fields::Kind;
use flow::time::TimeParser;
use flow::units::{Span, UnixNanos};
use lake::{Hit, Query};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

pub struct Options {
    pub query: String,
    pub files: Vec<PathBuf>,
    pub data: PathBuf,
    pub tenant: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub limit: Option<usize>,
    pub json: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let query = Query::parse(&options.query).map_err(|e| Mistake(e.to_string()))?;
    let since = options.since.as_deref().map(read_time).transpose()?;
    let until = options.until.as_deref().map(read_time).transpose()?;
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    if !options.files.is_empty() {
        search_files(options, &query, since, until, &mut out)?;
    } else {
        let question = Question::Search {
            query: options.query.clone(),
            tenant: options.tenant.clone(),
            since: since.map(|t| t.0),
            until: until.map(|t| t.0),
            limit: options.limit,
        };
        let mut answer = desk::ask(&options.data, &question)?;
        while let Some(line) = answer.line()? {
            let hit: HitLine = serde_json::from_str(&line).with_context(|| format!("not a hit: {line}"))?;
            let raw = answer.bytes(hit.len)?;
            print(&mut out, options.json, UnixNanos(hit.time), hit.severity, hit.tenant.as_bytes(), &raw)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn search_files(
    options: &Options,
    query: &Query,
    since: Option<UnixNanos>,
    until: Option<UnixNanos>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let fields = lake::Fields::default();
    let mut left = options.limit.unwrap_or(usize::MAX);
    for path in &options.files {
        let mut broken = Ok(());
        lake::search_file(query, &fields, path, &mut |hit: Hit| {
            let in_time = since.is_none_or(|t| hit.time >= t) && until.is_none_or(|t| hit.time < t);
            let is_tenant = options.tenant.as_ref().is_none_or(|t| t.as_bytes() == hit.tenant);
            if !in_time || !is_tenant {
                return ControlFlow::Continue(());
            }
            broken = print(out, options.json, hit.time, hit.severity, &hit.tenant, &hit.raw);
            left -= 1;
            if broken.is_err() || left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .with_context(|| format!("cannot search {}", path.display()))?;
        broken?;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

fn print(out: &mut impl Write, json: bool, time: UnixNanos, severity: u8, tenant: &[u8], raw: &[u8]) -> std::io::Result<()> {
    if !json {
        let level = flow::severity::class_name(severity);
        write!(out, "{} {level:<5} {} ", time.rfc3339(), String::from_utf8_lossy(tenant))?;
    }
    out.write_all(raw)?;
    out.write_all(b"\n")
}

/// RFC 3339, or a duration before now.
pub fn read_time(text: &str) -> anyhow::Result<UnixNanos> {
    if let Some(time) = TimeParser::default().parse(text.as_bytes(), Kind::Text) {
        return Ok(time);
    }
    match Span::parse(text) {
        Ok(span) => Ok(UnixNanos(env::now().0 - span.0)),
        Err(_) => Err(Mistake(format!("{text:?} is no time; write 2026-11-23T03:00:00Z, or 15m for a quarter of an hour ago")).into()),
    }
}
