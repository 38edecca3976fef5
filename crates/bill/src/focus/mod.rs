//! FOCUS: charges as the rows of the FinOps Open Cost and Usage Specification, and a strict check of such files.
//!
//! Read in this order: `columns` (which there are, where a row has each from), `info` (names), `rows` (one charge),
//! `split` and `invoice` (what a row says of a whole), `csv`, `check` (what a file must keep to). Two profiles: 1.2, the
//! one that the official validator knows, and 1.4, the current release. Rows are typed cells; the same rows become CSV
//! here, and Parquet elsewhere.

pub mod check;
pub mod columns;
pub mod csv;
pub mod info;
pub mod invoice;
pub mod json;
pub mod lists;
mod rows;
mod split;

#[cfg(test)]
mod tests;

use crate::charge::Charge;
use crate::money::{Money, Overflow};
use flow::units::UnixNanos;
use std::fmt;
use std::io;

pub use columns::{Column, Kind, Level};
pub use info::{FocusInfo, InvoicePer};
pub use invoice::{Invoiced, invoice};

/// A version of FOCUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    V1_2,
    V1_4,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::V1_2 => "1.2",
            Profile::V1_4 => "1.4",
        }
    }

    pub fn parse(name: &str) -> Option<Profile> {
        [Profile::V1_2, Profile::V1_4].into_iter().find(|profile| profile.name() == name)
    }

    /// The columns of a row, in order.
    pub fn columns(self) -> Vec<&'static Column> {
        columns::written(self).collect()
    }
}

/// A charge, and what the export says of it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub charge: &'a Charge,
    /// 1 for what a window was published with, more for later deltas (rule R8).
    pub revision: u32,
    /// ChargeClass Correction: the charge's period was closed before (rule R8).
    pub is_correction: bool,
    /// [start, end) of the billing period that the row is part of.
    pub billing_period: (UnixNanos, UnixNanos),
    /// The invoice that the row is part of.
    pub invoice_id: Option<&'a str>,
    /// The row takes another one back (case P9): its own amounts are negative.
    pub is_reversal: bool,
    /// Name of the row in the books, by which it can be explained.
    pub row_id: Option<&'a str>,
    /// Run of the job in `x_LineageJob`, where it is known.
    pub lineage_run: Option<&'a str>,
}

/// One value. Its text form is that of CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    /// Units of 10^-12, at most 38 digits.
    Decimal(i128),
    Integer(i64),
    /// Also JSON.
    Text(String),
    /// Whole seconds.
    Time(UnixNanos),
}

impl From<Money> for Cell {
    fn from(amount: Money) -> Cell {
        Cell::Decimal(amount.0)
    }
}

impl From<Option<Money>> for Cell {
    fn from(amount: Option<Money>) -> Cell {
        amount.map_or(Cell::Null, Cell::from)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => Ok(()),
            Cell::Decimal(units) => Money(*units).fmt(f),
            Cell::Integer(number) => number.fmt(f),
            Cell::Text(text) => f.write_str(text),
            Cell::Time(time) => f.write_str(&time.rfc3339()),
        }
    }
}

/// A charge that no row can hold: its index among the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    pub index: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "charge {} has an amount or a quantity of more than 38 digits", self.index)
    }
}

impl std::error::Error for TooLarge {}

/// What BilledCost says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Billed {
    /// The exact amount, with 12 digits: while the month is open, or where nobody sends an invoice.
    #[default]
    Exact,
    /// What the invoice says, in minor units of the currency; the rest stands in `x_RoundingResidue` (rule R20).
    Invoiced,
}

/// Rows of one file. Give it all parts of an origin and all rows of an invoice at once: shares are told over all inputs.
pub struct Export<'a> {
    profile: Profile,
    info: &'a FocusInfo,
    currency: &'a str,
    inputs: &'a [Input<'a>],
    parts: Vec<Option<Box<split::Part>>>,
    invoiced: Vec<Option<Money>>,
}

impl<'a> Export<'a> {
    /// `currency`: the card's. Rows without an invoice are exact, whatever `billed` says.
    /// Memory: 40 bytes for each input, 250 for each part.
    pub fn new(
        profile: Profile,
        info: &'a FocusInfo,
        currency: &'a str,
        billed: Billed,
        inputs: &'a [Input<'a>],
    ) -> Result<Export<'a>, TooLarge> {
        let too_large = |(index, _): (usize, Overflow)| TooLarge { index };
        let invoiced = match billed {
            Billed::Exact => vec![None; inputs.len()],
            Billed::Invoiced => invoice::of_inputs(inputs, lists::minor_digits(currency)).map_err(too_large)?,
        };
        Ok(Export { profile, info, currency, inputs, parts: split::parts(inputs).map_err(too_large)?, invoiced })
    }

    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The cells of one input, in the order of `Profile::columns`.
    pub fn row(&self, index: usize) -> Result<Vec<Cell>, TooLarge> {
        let part = self.parts[index].as_deref();
        let facts = rows::Facts::of(&self.inputs[index], self.info, self.currency, part, self.invoiced[index]);
        let facts = facts.map_err(|Overflow| TooLarge { index })?;
        Ok(columns::written(self.profile).filter_map(|column| column.value).map(|value| value(&facts)).collect())
    }

    /// Every row, in the order of the inputs.
    pub fn rows(&self) -> impl Iterator<Item = Result<Vec<Cell>, TooLarge>> + '_ {
        (0..self.len()).map(|index| self.row(index))
    }

    /// Writes header and rows, some hundred rows at a time. A row that is too large is an error of kind `InvalidData`.
    pub fn write_csv(&self, out: &mut dyn io::Write) -> io::Result<()> {
        const CHUNK_BYTES: usize = 1 << 18; // 256 KiB, some 200 rows
        let mut text = String::new();
        let header: Vec<Cell> = columns::written(self.profile).map(|column| Cell::Text(column.name.to_string())).collect();
        csv::write_cells(&header, &mut text);
        for row in self.rows() {
            csv::write_cells(&row.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?, &mut text);
            if text.len() >= CHUNK_BYTES {
                out.write_all(text.as_bytes())?;
                text.clear();
            }
        }
        out.write_all(text.as_bytes())
    }
}
