//! Rows as they are stored: plain text and numbers, from which the same row comes back.
//!
//! In: a [`Row`]; out: a [`StoredRow`], which any format of serde can hold, and back. Amounts are decimal text. Bytes that
//! are no UTF-8 are `hex:` and digits. Fields may be added with a default; none may change its meaning.

use crate::book::{Month, Reversal, Row};
use crate::charge::{Allocation, Category, Charge, Commitment, Exchange, Series};
use crate::money::Money;
use flow::units::UnixNanos;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRow {
    tenant: String,
    dims: Vec<(String, String)>,
    meter: String,
    meter_unit: String,
    from_ns: i64,
    to_ns: i64,
    category: String,
    sku: String,
    version: String,
    card: String,
    #[serde(default)]
    tier: u32,
    /// Status and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commitment: Option<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allocation: Option<StoredAllocation>,
    quantity: String,
    billable: String,
    unit: String,
    per: u64,
    scale: (String, String),
    price: String,
    contracted_price: String,
    /// Currency and day rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exchange: Option<(String, String)>,
    list: String,
    contracted: String,
    effective: String,
    billed: String,
    events: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    first_event: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    last_event: String,
    revision: u32,
    #[serde(default)]
    is_correction: bool,
    period: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published_ns: Option<i64>,
    /// Name of the row that is taken back, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reversal: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredAllocation {
    method: String,
    origin: String,
    weight: String,
    weights: String,
    unit: String,
    is_idle: bool,
}

impl StoredRow {
    pub fn of(row: &Row) -> StoredRow {
        let charge = &row.charge;
        StoredRow {
            tenant: text(&charge.series.tenant),
            dims: charge.series.dims.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            meter: charge.series.meter.clone(),
            meter_unit: charge.series.unit.clone(),
            from_ns: charge.hour.0,
            to_ns: charge.end.0,
            category: charge.category.name().into(),
            sku: charge.sku.clone(),
            version: charge.version.clone(),
            card: charge.card.to_string(),
            tier: charge.tier,
            commitment: charge.commitment.as_ref().map(|c| (c.status().into(), c.id().to_string())),
            allocation: charge.allocation.as_ref().map(StoredAllocation::of),
            quantity: charge.quantity.to_string(),
            billable: charge.billable.to_string(),
            unit: charge.unit.to_string(),
            per: charge.per,
            scale: (charge.scale.0.to_string(), charge.scale.1.to_string()),
            price: charge.price.to_string(),
            contracted_price: charge.contracted_price.to_string(),
            exchange: charge.exchange.as_ref().map(|e| (e.currency.to_string(), e.rate.to_string())),
            list: charge.list.to_string(),
            contracted: charge.contracted.to_string(),
            effective: charge.effective.to_string(),
            billed: charge.billed.to_string(),
            events: charge.events,
            first_event: text(&charge.first_event),
            last_event: text(&charge.last_event),
            revision: row.revision,
            is_correction: row.is_correction,
            period: row.period.name(),
            published_ns: row.published.map(|at| at.0),
            reversal: row.reversal.as_ref().map(|reversal| (reversal.of.clone(), reversal.reason.clone())),
        }
    }

    /// The row again, or what of it is damaged.
    pub fn row(self) -> Result<Row, String> {
        let dims = self.dims.into_iter().map(|(name, value)| Ok((name, bytes(&value)?))).collect::<Result<_, String>>()?;
        let series = Series { tenant: bytes(&self.tenant)?, dims, meter: self.meter, unit: self.meter_unit };
        let exchange = match self.exchange {
            Some((currency, rate)) => Some(Exchange { currency: currency.into(), rate: Money::parse(&rate)? }),
            None => None,
        };
        let charge = Charge {
            series: Arc::new(series),
            hour: UnixNanos(self.from_ns),
            end: UnixNanos(self.to_ns),
            category: category(&self.category)?,
            sku: self.sku,
            version: self.version,
            card: self.card.into(),
            tier: self.tier,
            commitment: self.commitment.map(|(status, id)| commitment(&status, &id)).transpose()?,
            allocation: self.allocation.map(StoredAllocation::allocation).transpose()?,
            quantity: number(&self.quantity)?,
            billable: number(&self.billable)?,
            unit: self.unit.into(),
            per: self.per,
            scale: (number(&self.scale.0)?, number(&self.scale.1)?),
            price: Money::parse(&self.price)?,
            contracted_price: Money::parse(&self.contracted_price)?,
            exchange,
            list: Money::parse(&self.list)?,
            contracted: Money::parse(&self.contracted)?,
            effective: Money::parse(&self.effective)?,
            billed: Money::parse(&self.billed)?,
            events: self.events,
            first_event: bytes(&self.first_event)?,
            last_event: bytes(&self.last_event)?,
        };
        Ok(Row {
            charge,
            revision: self.revision,
            is_correction: self.is_correction,
            period: Month::parse(&self.period).ok_or_else(|| format!("period {:?} is no month", self.period))?,
            published: self.published_ns.map(UnixNanos),
            reversal: self.reversal.map(|(of, reason)| Reversal { of, reason }),
        })
    }
}

impl StoredAllocation {
    fn of(part: &Allocation) -> StoredAllocation {
        StoredAllocation {
            method: part.method.to_string(),
            origin: part.origin.to_string(),
            weight: part.weight.to_string(),
            weights: part.weights.to_string(),
            unit: part.unit.to_string(),
            is_idle: part.is_idle,
        }
    }

    fn allocation(self) -> Result<Allocation, String> {
        Ok(Allocation {
            method: self.method.into(),
            origin: self.origin.into(),
            weight: number(&self.weight)?,
            weights: number(&self.weights)?,
            unit: self.unit.into(),
            is_idle: self.is_idle,
        })
    }
}

fn category(name: &str) -> Result<Category, String> {
    let all = [Category::Usage, Category::Purchase];
    all.into_iter().find(|category| category.name() == name).ok_or_else(|| format!("category {name:?} is not known"))
}

fn commitment(status: &str, id: &str) -> Result<Commitment, String> {
    let all = [Commitment::Used(id.into()), Commitment::Unused(id.into()), Commitment::Fee(id.into())];
    all.into_iter().find(|commitment| commitment.status() == status).ok_or_else(|| format!("commitment status {status:?} is not known"))
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no whole number"))
}

const HEX: &str = "hex:";

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with(HEX) => text.to_owned(),
        _ => bytes.iter().fold(HEX.to_owned(), |mut out, byte| {
            write!(out, "{byte:02x}").expect("a String takes every write");
            out
        }),
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let Some(hex) = text.strip_prefix(HEX) else { return Ok(text.as_bytes().to_vec()) };
    let damaged = || format!("{text:?} is not hexadecimal");
    if !hex.is_ascii() || hex.len() % 2 != 0 {
        return Err(damaged());
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| damaged())).collect()
}
