//! `weir cost`: what tenants used, what it costs, and what was published of it.
//!
//! Each verb reads the books of a data folder (`crate::books`) and a rate card; `crates/bill` computes. Quantities are as metered,
//! before sampling; money is text with twelve digits, never a float. Read on: `report`, `rows` (rate, explain, quarantine),
//! `period` (close, reverse), `focus` (export, check).

mod focus;
mod period;
mod report;
mod rows;

pub use report::{bill_table, report_json};

use super::{Mistake, say};
use crate::books::{self, Books};
use crate::config;
use crate::desk;
use bill::{Card, Month, Period, Rating, Row};
use clap::{Args, Subcommand};
use flow::units::UnixNanos;
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use lake::Charges;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Verb {
    /// Usage and cost, grouped: a table, JSON, CSV, or an HTML page with charts.
    Report(report::Args),
    /// Every charge as the facts and a card say it now, one row each; with --diff against what another card says.
    Rate(rows::RateArgs),
    /// The facts behind one row, the line of the card, and the records behind those.
    Explain(rows::ExplainArgs),
    /// Usage that is not billed, and why: conflicts, times in the future, quantities that are none, what no unit fits.
    Quarantine(rows::QuarantineArgs),
    /// Publish every window that is due and close every period that is final, or close one period.
    Close(period::CloseArgs),
    /// Take back units of a published row.
    Reverse(period::ReverseArgs),
    /// Write a billing period as FOCUS, in Parquet and CSV.
    Export(focus::ExportArgs),
    /// Check FOCUS files row by row, more strictly than the official validator.
    Check(focus::CheckArgs),
    /// Make a rate card from a price list in CSV, and print it.
    ImportPrices(period::ImportArgs),
}

/// Where the books are, and by which card to read them.
#[derive(Args)]
pub struct Place {
    #[arg(long, default_value = "weir-data")]
    data: PathBuf,
    /// Rate card; default: the one the pipeline ran with.
    #[arg(long)]
    card: Option<PathBuf>,
}

pub fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Report(args) => report::run(args),
        Verb::Rate(args) => rows::rate(args),
        Verb::Explain(args) => rows::explain(args),
        Verb::Quarantine(args) => rows::quarantine(args),
        Verb::Close(args) => period::close(args),
        Verb::Reverse(args) => period::reverse(args),
        Verb::Export(args) => focus::export(args),
        Verb::Check(args) => focus::check(args),
        Verb::ImportPrices(args) => period::import(args),
    }
}

/// A card and the books, read.
struct Read {
    card: Card,
    books: Books,
    charges: Charges,
}

/// The card as text and checked, or what is wrong with it.
type Found = Result<config::LoadedCard, config::Report>;

impl Place {
    /// `Err` inside: the card has mistakes, told by [`super::check::refuse`].
    fn read(&self) -> anyhow::Result<Result<Read, config::Report>> {
        let card = match find_card(&self.data, self.card.as_deref())? {
            Ok(loaded) => loaded.card,
            Err(report) => return Ok(Err(report)),
        };
        let books = desk::books(&self.data)?;
        let charges = books.charges()?;
        Ok(Ok(Read { card, books, charges }))
    }
}

impl Read {
    /// Everything, rated.
    fn rating(&self) -> anyhow::Result<Rating> {
        Ok(self.books.facts(&self.card, None)?.rate(&self.card))
    }

    /// Everything as rows: published ones, and those that would follow now.
    fn rows(&self, rating: &Rating) -> anyhow::Result<Vec<Row>> {
        books::all_rows(&self.charges, rating, crate::env::now())
    }
}

/// The card named, else the one that the pipeline ran with.
fn find_card(data: &Path, card: Option<&Path>) -> anyhow::Result<Found> {
    match card {
        Some(path) => Ok(config::card(path, None)),
        None => Ok(books::card(data)?.ok_or_else(|| Mistake("the pipeline ran without a rate card; name one with --card".into()))?),
    }
}

/// Reads `2026-10`, `2026-10-05`, or two days or times with `..` between them; days and months are those of `zone`.
///
/// Returns the period, and the one of the same length (a month: the month) that ends where it begins.
fn read_period(text: &str, zone: &TimeZone) -> anyhow::Result<[Period; 2]> {
    let start = |date: Date| anyhow::Ok(UnixNanos(i64::try_from(date.to_zoned_datetime(zone.clone())?.timestamp().as_nanosecond())?));
    let date = |text: &str| if text.len() == 10 { text.parse::<Date>().ok() } else { None };
    let between = |from: Date, to: Date, before: Date| {
        anyhow::Ok([Period { from: start(from)?, to: start(to)? }, Period { from: start(before)?, to: start(from)? }])
    };
    if let Some(month) = Month::parse(text).and_then(|_| format!("{text}-01").parse::<Date>().ok()) {
        return between(month, month.checked_add(1.month())?, month.checked_sub(1.month())?);
    }
    if let Some((from, to)) = text.split_once("..") {
        if let (Some(from), Some(to)) = (date(from), date(to))
            && from < to
        {
            return between(from, to, from.checked_sub(from.until(to)?)?);
        }
        let (from, to) = (read_instant(from)?, read_instant(to)?);
        if from >= to {
            return Err(Mistake(format!("the period {text} ends before it begins")).into());
        }
        let before = UnixNanos(from.0.saturating_sub(to.0.saturating_sub(from.0)));
        return Ok([Period { from, to }, Period { from: before, to: from }]);
    }
    match date(text) {
        Some(day) => between(day, day.tomorrow()?, day.yesterday()?),
        None => Err(Mistake(format!("{text:?} is no period; write 2026-10, 2026-10-05, or 2026-10-01..2026-10-08")).into()),
    }
}

/// A time zone by name; UTC where none is named.
fn read_zone(name: Option<&str>) -> anyhow::Result<TimeZone> {
    let zone = name.map_or(Ok(TimeZone::UTC), TimeZone::get);
    zone.map_err(|_| Mistake(format!("{:?} is no time zone; write it as Europe/Berlin", name.unwrap_or_default())).into())
}

/// A day or a time in UTC.
fn read_instant(text: &str) -> anyhow::Result<UnixNanos> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    super::search::read_time(&whole)
}

/// `--at`, or now.
fn read_at(at: Option<&str>) -> anyhow::Result<UnixNanos> {
    at.map_or_else(|| Ok(crate::env::now()), read_instant)
}

fn lossy(bytes: &[u8]) -> String {
    bill::report::show(bytes)
}
