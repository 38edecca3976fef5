//! `weir search`: finds records, in a data folder or in loose files, or makes a table of them.
//!
//! In: a query line. Out: one record a line, or the table that its pipes make; with `--json` exactly the bytes that were received, or
//! one JSON object for each row. Records come oldest first, with a limit newest first. What is not sealed yet is found like
//! everything else. What a query may mean instead, and what the answer cost, is told on standard error.

use super::Mistake;
use super::look::{Color, Printer, print_table};
use crate::desk::{self, DoneLine, Piece, Question, TableLine};
use crate::env;
use anyhow::Context;
use flow::fields::Kind;
use flow::time::TimeParser;
use flow::units::{ByteSize, Span, UnixNanos};
use lake::{Hit, Pipeline, Query, RowView};
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
    pub columns: Vec<String>,
    pub color: Color,
    pub explain: bool,
    pub lenient: bool,
    pub memory: ByteSize,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let query = read_query(&options.query, options.lenient)?;
    let mut printer = Printer::new(options.json, options.color, &options.columns)?;
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let code = if options.files.is_empty() {
        search_data(options, &query, &mut printer, &mut out)?
    } else {
        search_files(options, &query, &mut printer, &mut out)?
    };
    out.flush()?;
    Ok(code)
}

/// A query that is wrong is an error with its place; leniently it is the best that can be made of it, and what is wrong is told.
fn read_query(text: &str, lenient: bool) -> anyhow::Result<Query> {
    if !lenient {
        return Ok(Query::parse(text).map_err(|error| Mistake(error.to_string()))?);
    }
    let (query, errors) = Query::parse_lenient(text);
    errors.iter().for_each(|error| eprintln!("warning: {error}"));
    Ok(query)
}

fn search_data(options: &Options, query: &Query, printer: &mut Printer, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let time = |text: &Option<String>| anyhow::Ok(text.as_deref().map(read_time).transpose()?.map(|time| time.0));
    let question = Question::Search {
        query: options.query.clone(),
        lenient: options.lenient,
        tenant: options.tenant.clone(),
        since: time(&options.since)?,
        until: time(&options.until)?,
        limit: options.limit,
        newest_first: options.limit.is_some() || query.limit().is_some(),
        memory_bytes: usize::try_from(options.memory.0).unwrap_or(usize::MAX),
    };
    let mut answer = desk::ask(&options.data, &question)?;
    let mut code = ExitCode::SUCCESS;
    while let Some(line) = answer.line()? {
        match serde_json::from_str(&line).with_context(|| format!("not a piece of an answer: {line}"))? {
            Piece::Hit(hit) => {
                let raw = answer.bytes(hit.len)?;
                if hit.is_apart && !options.json {
                    out.write_all(b"--\n")?;
                }
                printer.print(out, UnixNanos(hit.time), hit.severity, hit.tenant.as_bytes(), &raw)?;
            }
            Piece::Table(table) => print_table(out, &table, options.json)?,
            Piece::Done(done) => {
                out.flush()?;
                tell(&done, options.explain);
                if done.partial.is_some() {
                    code = ExitCode::from(1);
                }
            }
        }
    }
    Ok(code)
}

/// Says on standard error what is to be known of an answer.
pub fn tell(done: &DoneLine, explain: bool) {
    done.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    if let Some(why) = &done.partial {
        eprintln!("error: the answer is not whole: {why}");
    }
    if explain {
        let width = done.cost.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        done.cost.iter().for_each(|(name, value)| eprintln!("  {name:<width$}  {value}"));
    }
}

fn search_files(options: &Options, query: &Query, printer: &mut Printer, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    if query.context().is_some() {
        return Err(Mistake("the neighbours of a line are found in a data folder; for a file, use grep -C".into()).into());
    }
    let fields = lake::Fields::default();
    let (first, last) = query.range(env::now());
    let since = options.since.as_deref().map(read_time).transpose()?.into_iter().chain(first).max();
    let until = options.until.as_deref().map(read_time).transpose()?.into_iter().chain(last).min();
    let memory = usize::try_from(options.memory.0).unwrap_or(usize::MAX);
    let mut pipeline = query.makes_table().then(|| Pipeline::new(query, &fields, memory)).transpose()?;
    let mut left = options.limit.into_iter().chain(query.limit()).min().filter(|_| pipeline.is_none()).unwrap_or(usize::MAX);
    for path in &options.files {
        if left == 0 {
            break;
        }
        let mut broken: anyhow::Result<()> = Ok(());
        let stats = lake::search_file(query, &fields, path, &mut |hit: Hit| {
            let in_time = since.is_none_or(|t| hit.time >= t) && until.is_none_or(|t| hit.time < t);
            let is_tenant = options.tenant.as_ref().is_none_or(|t| t.as_bytes() == hit.tenant);
            if !in_time || !is_tenant {
                return ControlFlow::Continue(());
            }
            let flow = match &mut pipeline {
                Some(pipeline) => pipeline.push(RowView::from(&hit)),
                None => {
                    left -= 1;
                    let printed = printer.print(out, hit.time, hit.severity, &hit.tenant, &hit.raw);
                    printed.map(|()| if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }).map_err(Into::into)
                }
            };
            flow.unwrap_or_else(|error| {
                broken = Err(error);
                ControlFlow::Break(())
            })
        })
        .with_context(|| format!("cannot search {}", path.display()))?;
        broken?;
        if options.explain {
            eprintln!("  {}: {} hits", path.display(), stats.hits);
        }
    }
    if let Some(mut pipeline) = pipeline {
        pipeline.show_range(since, until)?;
        print_table(out, &TableLine::new(&pipeline.finish()?), options.json)?;
    }
    Ok(ExitCode::SUCCESS)
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
