//! `weir cost export` and `check`: a billing period as FOCUS, and a strict check of such files.

use super::{Place, say};
use crate::cli::Mistake;
use anyhow::Context;
use bill::focus::check::{Checker, Findings, Options, check_csv};
use bill::focus::{Billed, Export, Input, Profile};
use bill::{Money, Month};
use hub::Disk;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// Version of FOCUS: 1.2 or 1.4.
    #[arg(long, default_value = "1.2")]
    focus: String,
    /// The billing period, as 2026-10.
    #[arg(long)]
    period: String,
    /// Folder for `focus-1.2-2026-10.parquet` and `.csv`; made if absent.
    #[arg(long)]
    out: PathBuf,
    /// Amounts as the invoice says them, in cents; the difference stands in `x_RoundingResidue`. Default: all twelve digits.
    #[arg(long)]
    invoiced: bool,
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct CheckArgs {
    /// Files in Parquet or CSV.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Version of FOCUS. Default: told by the columns.
    #[arg(long)]
    focus: Option<String>,
    /// What an invoice must add up to, as ID=AMOUNT.
    #[arg(long = "invoice", value_name = "ID=AMOUNT")]
    invoices: Vec<String>,
    #[arg(long)]
    json: bool,
}

fn profile(name: &str) -> anyhow::Result<Profile> {
    Ok(Profile::parse(name).ok_or_else(|| Mistake(format!("FOCUS {name:?} is not written; 1.2 and 1.4 are")))?)
}

pub fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let profile = profile(&args.focus)?;
    let month = Month::parse(&args.period).ok_or_else(|| Mistake(format!("{:?} is no month; write it as 2026-10", args.period)))?;
    let read = match args.place.read()? {
        Ok(read) => read,
        Err(report) => return Ok(crate::cli::check::refuse(&report, args.json)),
    };
    let rating = read.rating()?;
    let mut rows = read.rows(&rating)?;
    rows.retain(|row| row.period == month);
    let info = &read.card.focus;
    let civil = month.start().civil();
    let invoices: Vec<String> = rows.iter().map(|row| info.invoice_id(civil.year, civil.month, &row.charge.series.tenant)).collect();
    let ids: Vec<String> = rows.iter().map(bill::Row::id).collect();
    let inputs: Vec<Input> = rows
        .iter()
        .zip(invoices.iter().zip(&ids))
        .map(|(row, (invoice, id))| Input {
            charge: &row.charge,
            revision: row.revision,
            is_correction: row.is_correction,
            billing_period: (row.period.start(), row.period.end()),
            invoice_id: Some(invoice),
            is_reversal: row.reversal.is_some(),
            row_id: Some(id),
            lineage_run: None,
        })
        .collect();
    let billed = if args.invoiced { Billed::Invoiced } else { Billed::Exact };
    let export = Export::new(profile, info, &read.card.currency, billed, &inputs)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let path = |kind: &str| args.out.join(format!("focus-{}-{}.{kind}", profile.name(), month.name()));
    let mut csv = Vec::new();
    export.write_csv(&mut csv)?;
    let parquet = lake::focus_parquet(&profile.columns(), export.rows())?;
    let disk = Disk::Real;
    for (kind, bytes) in [("parquet", &parquet), ("csv", &csv)] {
        crate::durable::replace(&disk, &path(kind), bytes)?;
    }
    let total = Money::sum(rows.iter().map(|row| row.charge.billed))?;
    if args.json {
        let whole = json!({
            "rows": rows.len(), "billed": total, "currency": read.card.currency, "published": rows.iter().filter(|row| row.published.is_some()).count(),
            "files": [path("parquet").display().to_string(), path("csv").display().to_string()],
        });
        return say(&format!("{whole}\n")).map(|()| ExitCode::SUCCESS);
    }
    let open = rows.iter().filter(|row| row.published.is_none()).count();
    let open = if open > 0 { format!("; {open} of them are not published yet (`weir cost close`)") } else { String::new() };
    let files = format!("{}\n{}\n", path("parquet").display(), path("csv").display());
    say(&format!("{} rows, {total} {}{open}\n{files}", rows.len(), read.card.currency)).map(|()| ExitCode::SUCCESS)
}

pub fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut invoices = BTreeMap::new();
    for pair in &args.invoices {
        let amount = pair.split_once('=').and_then(|(id, amount)| Some((id.to_owned(), Money::parse(amount).ok()?)));
        let (id, amount) = amount.ok_or_else(|| Mistake(format!("{pair:?} is no invoice; write ID=12.50")))?;
        invoices.insert(id, amount);
    }
    let profile = args.focus.as_deref().map(profile).transpose()?;
    let mut good = true;
    let mut found = Vec::new();
    for file in &args.files {
        let findings = check_file(file, Options { profile, invoices: invoices.clone(), ..Options::default() })?;
        good &= findings.is_good();
        found.push((file, findings));
    }
    if args.json {
        let whole: Vec<Value> = found.iter().map(|(file, findings)| findings_json(file, findings)).collect();
        say(&format!("{}\n", serde_json::to_string_pretty(&whole)?))?;
    } else {
        for (file, findings) in &found {
            say(&findings_text(file, findings))?;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn check_file(file: &Path, options: Options) -> anyhow::Result<Findings> {
    let cannot = || format!("cannot read {}", file.display());
    if !is_parquet(file).with_context(cannot)? {
        let input = std::fs::File::open(file).with_context(cannot)?;
        return check_csv(BufReader::with_capacity(256 << 10, input), options).with_context(cannot);
    }
    let mut options = Some(Options { is_typed: true, ..options });
    let mut checker: Option<Checker> = None;
    lake::read_cells(&Disk::Real, file, &mut |cells| {
        match (&mut checker, options.take()) {
            (Some(checker), _) => {
                let cells: Vec<Option<&str>> = cells.iter().map(Option::as_deref).collect();
                checker.row(&cells);
            }
            (None, options) => {
                let header: Vec<String> = cells.iter().map(|name| name.clone().unwrap_or_default()).collect();
                checker = Some(Checker::new(&header, options.unwrap_or_default()));
            }
        }
        Ok(())
    })?;
    Ok(checker.context("the file has no columns")?.finish())
}

/// By its first bytes, not by its name.
fn is_parquet(file: &Path) -> std::io::Result<bool> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(file)?.take(4).read_to_end(&mut head)?;
    Ok(head == b"PAR1")
}

fn findings_json(file: &Path, findings: &Findings) -> Value {
    let violations: Vec<Value> = findings
        .violations
        .iter()
        .map(|v| json!({ "row": v.row, "column": v.column, "rule": v.rule.id, "says": v.rule.says, "value": v.value }))
        .collect();
    json!({
        "file": file.display().to_string(), "focus": findings.profile.name(), "rows": findings.rows, "good": findings.is_good(),
        "counts": findings.counts, "violations": violations,
    })
}

fn findings_text(file: &Path, findings: &Findings) -> String {
    let file = file.display();
    let mut out = String::new();
    for v in &findings.violations {
        let place = if v.row == 0 { String::new() } else { format!(" row {}", v.row) };
        let column = if v.column.is_empty() { String::new() } else { format!(" {}", v.column) };
        out.push_str(&format!("{file}:{place}{column}: {}\n  {} ({})\n", v.value, v.rule.says, v.rule.id));
    }
    let count: u64 = findings.counts.values().sum();
    let shown = findings.violations.len() as u64;
    let more = if count > shown { format!(", {shown} of them shown") } else { String::new() };
    let verdict = if count == 0 { "good".to_string() } else { format!("{count} violations{more}") };
    out.push_str(&format!("{file}: FOCUS {}, {} rows: {verdict}\n", findings.profile.name(), findings.rows));
    out
}
