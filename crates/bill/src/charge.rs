//! One row of a bill: what was used, by whom, when, at which price, and what that costs.
//!
//! Made by `rate`, kept by `book`, written by `focus`, added up by `report`. Four amounts stand beside each other, as in
//! FOCUS: `list` at the price list, `contracted` after discounts, `effective` with what was paid in advance spread over
//! what it covered, `billed` as the invoice says. All are of the card's currency.

use crate::money::{Money, Overflow};
use flow::units::UnixNanos;
use std::fmt;
use std::sync::Arc;

/// Whose quantity it is, and of what. Tenants are bytes, never normalised (rule R19).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// Empty: nobody could be told to pay; the cost is kept as unattributed (rule R11).
    pub tenant: Vec<u8>,
    /// (name, value) in the order of names.
    pub dims: Vec<(String, Vec<u8>)>,
    pub meter: String,
    /// Unit of `Charge::quantity`: of an interval or a sample `<unit>-ms`, as in `Bytes-ms`; plain `ms` where the meter has no unit of its own.
    pub unit: String,
}

impl Series {
    /// The value of a dimension; empty if the meter has no such dimension.
    pub fn dim(&self, name: &str) -> &[u8] {
        self.dims.iter().find(|(n, _)| n == name).map_or(&[], |(_, value)| value)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meter {} of tenant {:?}", self.meter, String::from_utf8_lossy(&self.tenant))?;
        for (name, value) in &self.dims {
            write!(f, ", {name} {:?}", String::from_utf8_lossy(value))?;
        }
        Ok(())
    }
}

/// FOCUS ChargeCategory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    #[default]
    Usage,
    /// The fee of a commitment (rule R15).
    Purchase,
}

/// How usage stands to a commitment (rule R15); FOCUS CommitmentDiscountStatus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Commitment {
    /// Covered by the commitment of that name: billed 0, its share of the fee is `effective`.
    Used(Arc<str>),
    /// What nobody used of it by the end of its month: billed 0, the rest of the fee is `effective`.
    Unused(Arc<str>),
    /// The row is its fee.
    Fee(Arc<str>),
}

impl Category {
    /// As FOCUS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Category::Usage => "Usage",
            Category::Purchase => "Purchase",
        }
    }
}

impl Commitment {
    pub fn id(&self) -> &Arc<str> {
        match self {
            Commitment::Used(id) | Commitment::Unused(id) | Commitment::Fee(id) => id,
        }
    }

    /// `Used` and `Unused` as FOCUS writes them; `Fee`.
    pub fn status(&self) -> &'static str {
        match self {
            Commitment::Used(_) => "Used",
            Commitment::Unused(_) => "Unused",
            Commitment::Fee(_) => "Fee",
        }
    }
}

/// The origin charge was divided, and this row is a part of it (rule R12; FOCUS split cost allocation).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allocation {
    /// Name of the share in the card, as `gpu-by-sm-time`.
    pub method: Arc<str>,
    /// `Series::to_string` of what was divided, with its hour and SKU price: parts with the same origin add up to it.
    pub origin: Arc<str>,
    /// This part's weight of `weights` (all parts of the origin, the unallocated one included), in `unit`.
    pub weight: u128,
    pub weights: u128,
    pub unit: Arc<str>,
    /// Nobody used it: idle. The row's tenant is empty.
    pub is_idle: bool,
}

/// Prices and day rate where the price is in another currency than the bill (rule R16).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exchange {
    /// Three capital letters: the currency of `Charge::price`.
    pub currency: Arc<str>,
    /// What one unit of it is worth in the card's currency on the day of the charge.
    pub rate: Money,
}

/// One row: one series, one charge period, one price of one version, one tier, one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub series: Arc<Series>,
    /// Charge period [hour, end): of usage one UTC hour; of a fee or an unused rest the UTC month.
    pub hour: UnixNanos,
    pub end: UnixNanos,
    pub category: Category,
    pub sku: String,
    /// Name of the price version.
    pub version: String,
    /// SHA-256 of the card.
    pub card: Arc<str>,
    /// Which tier of a graduated price, from 1; 0 where the price has none (rule R14).
    pub tier: u32,
    pub commitment: Option<Commitment>,
    pub allocation: Option<Allocation>,
    /// As metered, before `minus`, in the series' unit.
    pub quantity: i128,
    /// What of it is priced in this row.
    pub billable: i128,
    /// The card's unit, as in `Tokens` or `Hours`.
    pub unit: Arc<str>,
    /// Units of the card in a block: 1000000 for a price per million.
    pub per: u64,
    /// `billable` times `scale.0` over `scale.1` is the quantity in the card's unit: (1, 3600000) from ms to Hours.
    pub scale: (u128, u128),
    /// List price of a block, in the currency of `exchange` if there is one, else in the card's.
    pub price: Money,
    /// Price of a block after discounts, in the same currency.
    pub contracted_price: Money,
    pub exchange: Option<Exchange>,
    pub list: Money,
    pub contracted: Money,
    pub effective: Money,
    /// What the invoice says: this is *the* cost.
    pub billed: Money,
    /// Events behind the quantity; of a sum: records.
    pub events: u64,
    /// Keys of the first and the last event by time, where its facts are events with keys; else empty.
    pub first_event: Vec<u8>,
    pub last_event: Vec<u8>,
}

impl Charge {
    /// Names one price of one version, as FOCUS wants it; never changes its meaning. Tiers have prices of their own.
    pub fn sku_price_id(&self) -> String {
        match self.tier {
            0 => format!("{}@{}", self.sku, self.version),
            tier => format!("{}@{}/{tier}", self.sku, self.version),
        }
    }

    /// FOCUS PricingUnit: `Hours`, or `1000000 Tokens` where a block has several.
    pub fn pricing_unit(&self) -> String {
        if self.per == 1 { self.unit.to_string() } else { format!("{} {}", self.per, self.unit) }
    }

    /// FOCUS PricingQuantity: blocks, with 12 digits, rounded half to even.
    pub fn pricing_quantity(&self) -> Result<Money, Overflow> {
        crate::money::quotient(self.billable, self.scale.0, self.scale.1, self.per)
    }

    /// `attributed`; `unattributed` where nobody could be told to pay (R11); `unallocated`: idle (R12). FOCUS `x_AttributionStatus`.
    pub fn attribution(&self) -> &'static str {
        match &self.allocation {
            Some(part) if part.is_idle => "unallocated",
            _ if self.series.tenant.is_empty() => "unattributed",
            _ => "attributed",
        }
    }
}
