//! The face: verbs, their arguments, and how what they say looks.
//!
//! Exit 0 good, 1 the world failed, 2 the user's input is wrong.

pub mod buffer;
pub mod check;
pub mod cost;
pub mod eval;
pub mod exporters;
pub mod gpu;
mod gpu_report;
pub mod import;
pub mod ledger;
pub mod lineage;
pub mod metrics;
pub mod reload;
pub mod run;
pub mod schema;
pub mod search;
pub mod sql;
pub mod tail;
pub mod test;

mod lines;
mod look;
mod seen;

use crate::statement::Statement;
use ::sql::Format;
use clap::{CommandFactory, Parser, Subcommand};
use flow::units::{ByteSize, Span};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Ships logs and metrics, tells what happened to every record, who pays for it and where it came from.
#[derive(Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run pipelines.
    Run {
        /// Pipeline files; several run in one process.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Read sources to their end, drain, print a summary and exit.
        #[arg(long)]
        once: bool,
        /// Data folder, instead of the one the files name.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Print the summary as one JSON object.
        #[arg(long)]
        json: bool,
        /// Print no summary.
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Tell every mistake in pipeline files, or the plan: limits, memory, disk, meters. Opens nothing.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Check {
        #[command(subcommand)]
        verb: Option<CheckVerb>,
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Lines as the sources would read them: fields that steps read and none of them has are told.
        #[arg(long)]
        sample: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Run the tests that pipeline files hold.
    Test {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// What an expression gives on real lines: `weir eval 'latency_ms > 500' app.jsonl`.
    Eval {
        expression: String,
        /// Files of JSON lines, also .gz and .zst; default: standard input.
        files: Vec<PathBuf>,
        /// At most this many lines.
        #[arg(long)]
        limit: Option<u64>,
        #[arg(long)]
        json: bool,
    },
    /// Make pipelines from what others wrote.
    #[command(subcommand)]
    Import(import::Verb),
    /// Tell a running weir to read its pipeline files again: steps change between two records, and those that are the same go on.
    Reload {
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Find records: `level:error AND tenant:acme-search`, a trace id, `latency_ms:>500 "conn reset"`.
    Search {
        /// The query; a bare word is searched in messages and ids. One that begins with `-` is no option.
        #[arg(allow_hyphen_values = true)]
        query: String,
        /// Search these loose files (.jsonl, .gz, .zst, .parquet) instead of a data folder.
        files: Vec<PathBuf>,
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        /// Only records of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// From this time on: RFC 3339, or a duration before now such as 15m.
        #[arg(long)]
        since: Option<String>,
        /// Before this time.
        #[arg(long)]
        until: Option<String>,
        /// At most this many records, the newest first.
        #[arg(long)]
        limit: Option<usize>,
        /// Print each record as the bytes that were received, and each row of a table as a JSON object.
        #[arg(long)]
        json: bool,
        /// Show these fields instead of whole records, as in service,latency_ms.
        #[arg(long, value_delimiter = ',', conflicts_with = "json")]
        columns: Vec<String>,
        #[arg(long, value_enum, default_value_t)]
        color: look::Color,
        /// Tell on standard error what the answer cost: files opened and left out, bytes read, time of each stage.
        #[arg(long)]
        explain: bool,
        /// Make the best of a query that is wrong, and tell what is wrong with it.
        #[arg(long)]
        lenient: bool,
        /// Most memory of a table.
        #[arg(long, default_value = "128MiB", value_parser = read_bytes)]
        memory: ByteSize,
    },
    /// Answer a SQL statement over the tables logs, metrics, traces, usage, charges and lineage.
    Sql {
        /// `SELECT service, count(*) FROM logs GROUP BY service`; also WITH, EXPLAIN, SHOW TABLES and `DESCRIBE logs`.
        statement: String,
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        /// Only this tenant's rows, in every table.
        #[arg(long)]
        tenant: Option<String>,
        /// Print each row as a JSON object; decimals and times are texts.
        #[arg(long)]
        json: bool,
        /// Print rows as CSV, the names of the columns first.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        /// Most rows; of more the first are printed, and the answer is not whole.
        #[arg(long, default_value_t = 1_000_000)]
        limit: u64,
        /// Tell on standard error what the answer cost: files, row groups and rows read.
        #[arg(long)]
        explain: bool,
        /// Most memory of groups, sorted rows and joins.
        #[arg(long, default_value = "128MiB", value_parser = read_bytes)]
        memory: ByteSize,
        /// How long it may take; then what was found is printed, and the answer is not whole.
        #[arg(long, default_value = "1m", value_parser = read_span)]
        deadline: Span,
    },
    /// Ask for series of metrics and their values: `http_requests_total{tenant="a"}`, `rate(http_requests_total[5m])`.
    Metrics {
        /// A selector as PromQL has it, or one of rate, increase, delta, sum, avg, min, max, count, histogram_quantile, absent around one.
        query: String,
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        /// Only this tenant's series.
        #[arg(long)]
        tenant: Option<String>,
        /// From this time on, every point: RFC 3339, or a duration before now such as 1h. Absent: the value at one moment.
        #[arg(long)]
        since: Option<String>,
        /// The moment, or the end. Absent: now.
        #[arg(long, alias = "until")]
        at: Option<String>,
        /// With --since: the value at every step, such as 1m, instead of every point.
        #[arg(long, value_parser = read_span)]
        step: Option<Span>,
        /// Print each series as a JSON object.
        #[arg(long)]
        json: bool,
        /// How long it may take.
        #[arg(long, default_value = "1m", value_parser = read_span)]
        deadline: Span,
    },
    /// Devices of this machine: what they do, whose they are, recordings, and a report of how well they were used.
    #[command(subcommand)]
    Gpu(gpu::Verb),
    /// Print records of a running weir as they are kept, those that answer a query.
    Tail {
        /// The query, as of `search`; without one every record.
        #[arg(default_value = "", allow_hyphen_values = true)]
        query: String,
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        /// Only records of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// End after this many.
        #[arg(long)]
        limit: Option<usize>,
        /// Print each record as the bytes that were received.
        #[arg(long)]
        json: bool,
        /// Show these fields instead of whole records.
        #[arg(long, value_delimiter = ',', conflicts_with = "json")]
        columns: Vec<String>,
        #[arg(long, value_enum, default_value_t)]
        color: look::Color,
    },
    /// What tenants used and what it costs.
    #[command(subcommand)]
    Cost(cost::Verb),
    /// Where data came from and what came of it.
    #[command(subcommand)]
    Lineage(LineageVerb),
    /// The law: received = kept + dropped, per tenant, by reason.
    #[command(args_conflicts_with_subcommands = true)]
    Ledger {
        #[command(subcommand)]
        verb: Option<LedgerVerb>,
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        /// Only this tenant.
        #[arg(long, conflicts_with = "recount")]
        tenant: Option<String>,
        /// Only what came since: RFC 3339, or a duration before now such as 15m; to the minute. `weir run` remembers 31 days.
        #[arg(long, conflicts_with = "recount")]
        since: Option<String>,
        /// Count stored rows again, from the files.
        #[arg(long)]
        recount: bool,
        #[arg(long)]
        json: bool,
    },
    /// What waits in the journals: look, verify, print, write out again. Works while a process runs and when none does.
    #[command(subcommand)]
    Buffer(buffer::Verb),
    /// Print a JSON Schema or the reference of the config.
    Schema {
        #[arg(value_enum, default_value_t)]
        which: schema::Which,
    },
    /// Print a completion script for a shell.
    Completion { shell: clap_complete::Shell },
}

#[derive(Subcommand)]
enum LedgerVerb {
    /// The last few records that were dropped, of each tenant and reason: when, where and what.
    Examples {
        #[arg(long, default_value = "weir-data")]
        data: PathBuf,
        /// Why they were dropped, such as sampled. Default: whatever the reason.
        #[arg(long)]
        reason: Option<String>,
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum CheckVerb {
    /// Find scrapes that will not find their metrics: ports, paths and schemes of Kubernetes manifests and scrape configs, held
    /// against what the services declare. Exits 1 for a mismatch, 2 where a file cannot be read.
    Exporters {
        /// Folders of manifests, or files.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Ask this host and port for the path of each scrape, too, as in 127.0.0.1:8080.
        #[arg(long)]
        probe_at: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum LineageVerb {
    /// What a thing was made from.
    Up(LineageArgs),
    /// What was made from a thing.
    Down(LineageArgs),
}

#[derive(clap::Args)]
struct LineageArgs {
    /// A dataset, model, service or report, by name.
    node: String,
    #[arg(long, default_value = "weir-data")]
    data: PathBuf,
    /// As it was at this time (RFC 3339).
    #[arg(long)]
    as_of: Option<String>,
    #[arg(long)]
    json: bool,
}

pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output with 0, mistakes to standard error with 2.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match args.verb {
        Verb::Run { files, once, data, json, quiet } => run::run(&files, run::Options { once, data, json, quiet }),
        Verb::Check { verb: Some(CheckVerb::Exporters { paths, probe_at, json }), .. } => {
            exporters::run(&exporters::Options { paths, probe_at, json })
        }
        Verb::Check { verb: None, files, sample, json } => check::run(&files, sample.as_deref(), json),
        Verb::Test { files, json } => test::run(&files, json),
        Verb::Eval { expression, files, limit, json } => eval::run(&eval::Options { expression, files, limit, json }),
        Verb::Import(verb) => import::run(&verb),
        Verb::Reload { data, json } => reload::run(&data, json),
        Verb::Search { query, files, data, tenant, since, until, limit, json, columns, color, explain, lenient, memory } => {
            search::run(&search::Options {
                query,
                files,
                data,
                tenant,
                since,
                until,
                limit,
                json,
                columns,
                color,
                explain,
                lenient,
                memory,
            })
        }
        Verb::Sql { statement: sql, data, tenant, json, csv, limit: rows_max, explain, memory, deadline } => {
            let format = match (json, csv) {
                (true, _) => Format::Json,
                (_, true) => Format::Csv,
                _ => Format::Table,
            };
            let deadline = Duration::from_nanos(deadline.0.unsigned_abs());
            let statement = Statement { sql, tenant, format, rows_max, memory_bytes: memory.0, read_bytes_max: None, deadline };
            sql::run(sql::Options { statement, data, explain })
        }
        Verb::Metrics { query, data, tenant, since, at, step, json, deadline } => {
            metrics::run(metrics::Options { query, data, tenant, since, at, step, json, deadline })
        }
        Verb::Tail { query, data, tenant, limit, json, columns, color } => {
            look::Printer::new(json, color, &columns).and_then(|printer| tail::run(tail::Options { query, data, tenant, limit, printer }))
        }
        Verb::Gpu(verb) => gpu::run(&verb),
        Verb::Cost(verb) => cost::run(&verb),
        Verb::Lineage(LineageVerb::Up(args)) => {
            lineage::run(&args.data, lineage::Direction::Up, &args.node, args.as_of.as_deref(), args.json)
        }
        Verb::Lineage(LineageVerb::Down(args)) => {
            lineage::run(&args.data, lineage::Direction::Down, &args.node, args.as_of.as_deref(), args.json)
        }
        Verb::Ledger { verb: Some(LedgerVerb::Examples { data, reason, tenant, json }), .. } => {
            ledger::examples(&data, reason, tenant, json)
        }
        Verb::Ledger { verb: None, data, tenant, since, recount, json } => {
            ledger::run(&ledger::Options { data, tenant, since, recount, json })
        }
        Verb::Buffer(verb) => buffer::run(&verb),
        Verb::Schema { which } => return schema::run(which),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "weir", &mut script);
            say(&String::from_utf8_lossy(&script)).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        if error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)) {
            return ExitCode::SUCCESS; // whoever read us has enough
        }
        eprintln!("error: {error:#}");
        ExitCode::from(if error.is::<Mistake>() { 2 } else { 1 })
    })
}

fn read_span(text: &str) -> Result<Span, String> {
    Span::parse(text)
}

fn read_bytes(text: &str) -> Result<ByteSize, String> {
    ByteSize::parse(text)
}

/// The user's input is wrong: exit 2 instead of 1.
#[derive(Debug)]
pub struct Mistake(pub String);

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

/// Writes to standard output. An error when nobody reads it any more, which `main` takes for the end.
pub fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// Lays rows out in columns: the first `left` columns to the left, numbers to the right.
pub fn table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (n, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[n] - cell.chars().count());
            line.push_str("  ");
            line.push_str(&if n < left { format!("{cell}{pad}") } else { format!("{pad}{cell}") });
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
