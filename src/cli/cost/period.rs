//! `weir cost close`, `reverse` and `import-prices`: what an operator enters into the books.

use super::{find_card, read_at, say};
use crate::books::{Entered, Entry};
use crate::cli::Mistake;
use crate::desk::{self, Question};
use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct CloseArgs {
    #[arg(long, default_value = "weir-data")]
    data: PathBuf,
    /// The month to close, as 2026-10. Default: every month that is final, on day 3 of the next one.
    #[arg(long)]
    period: Option<String>,
    /// Close it although usage of it may still come.
    #[arg(long, requires = "period")]
    early: bool,
    /// As of this time (RFC 3339, or a day) instead of now: what is due is told by it.
    #[arg(long)]
    at: Option<String>,
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct ReverseArgs {
    /// Name of the published row, or how it begins.
    row: String,
    #[arg(long, default_value = "weir-data")]
    data: PathBuf,
    /// Units to take back. Default: all that are left of the row.
    #[arg(long)]
    quantity: Option<String>,
    /// Why; stands in the books.
    #[arg(long)]
    reason: String,
    #[arg(long)]
    at: Option<String>,
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct ImportArgs {
    /// The price list: a header with sku, meter, price, per, unit, and perhaps version, from, to, model, region, currency ...
    file: PathBuf,
    /// Currency of the card.
    #[arg(long, default_value = "USD")]
    currency: String,
}

pub fn close(args: &CloseArgs) -> anyhow::Result<ExitCode> {
    let entry = match &args.period {
        Some(month) => Entry::Close { month: month.clone(), early: args.early },
        None => Entry::Publish,
    };
    enter(&args.data, entry, args.at.as_deref(), args.json)
}

pub fn reverse(args: &ReverseArgs) -> anyhow::Result<ExitCode> {
    if args.reason.trim().is_empty() {
        return Err(Mistake("a reversal needs a reason: somebody will ask".into()).into());
    }
    let entry = Entry::Reverse { row: args.row.clone(), quantity: args.quantity.clone(), reason: args.reason.clone() };
    enter(&args.data, entry, args.at.as_deref(), args.json)
}

fn enter(data: &std::path::Path, entry: Entry, at: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    // The books are kept by one card, the pipeline's.
    let card = match find_card(data, None)? {
        Ok(card) => card.text,
        Err(report) => return Ok(crate::cli::check::refuse(&report, json)),
    };
    let mut answer = desk::ask(data, &Question::Enter { entry, card, at: read_at(at)?.0 })?;
    let line = answer.line()?.context("the answer was cut short")?;
    let answer: serde_json::Value = serde_json::from_str(&line)?;
    if let Some(why) = answer["refused"].as_str() {
        return Err(Mistake(why.to_owned()).into());
    }
    let entered: Entered = serde_json::from_value(answer["entered"].clone())?;
    if json {
        say(&format!("{}\n", serde_json::to_string(&entered)?))?;
    } else {
        say(&text(&entered))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(entered: &Entered) -> String {
    if entered.commit == 0 {
        return "nothing is due: no row was published, no period closed\n".into();
    }
    let corrections = if entered.corrections > 0 { format!(", {} of them corrections", entered.corrections) } else { String::new() };
    let closed = if entered.closed.is_empty() { String::new() } else { format!("closed {}\n", entered.closed.join(", ")) };
    format!("published {} rows{corrections}: {} {}\n{closed}", entered.rows, entered.billed, entered.currency)
}

/// Prints the card that a price list makes; its mistakes with their lines.
pub fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    match bill::card::import_csv(&text, &args.currency) {
        Ok(card) => {
            say(&crate::import::to_yaml(&serde_json::to_value(&card)?, 0))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            let path = args.file.display();
            for mistake in &mistakes {
                eprintln!("error: {path}: {mistake}");
            }
            Ok(ExitCode::from(2))
        }
    }
}
