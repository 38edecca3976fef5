//! What a card says about one series at one time: version, price, discount, day rate; and what a quantity then costs.

use super::NoPrice;
use super::table::{Amount, Table};
use crate::card::terms::WHOLE;
use crate::card::{Card, Price, Reduction, Version};
use crate::charge::{Exchange, Series};
use crate::facts::Refusal;
use crate::money::{Money, Overflow, exact};
use crate::unit;
use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

/// 1, in units of 10^-12.
const ONE: u128 = 1_000_000_000_000;

/// Which terms, by number: version, and 1 more than the number of the discount and of the day rate, 0 for none. Usage of a series
/// in one hour under the same terms is one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TermKey {
    pub version: u32,
    pub discount: u32,
    pub rate: u32,
}

/// What one version says about one series.
pub struct VersionTerms<'a> {
    pub version: &'a Version,
    pub price: Option<&'a Price>,
    /// From the series' unit to the price's; `None`: they do not measure the same.
    pub scale: Option<(u128, u128)>,
    /// The card's discounts that fit, by number, the most specific first.
    discounts: Vec<usize>,
    /// The month's use counts: there are tiers, or a commitment covers the SKU.
    pub is_counted: bool,
    /// The meters that `minus` of the price names, and their series.
    parts: Vec<(&'a str, Range<usize>)>,
    /// The meters of which this one is a part.
    wholes: Vec<Whole<'a>>,
}

/// A meter, its series, and those of all of its parts.
struct Whole<'a> {
    meter: &'a str,
    ranks: Range<usize>,
    parts: Vec<Range<usize>>,
}

/// The terms of one series, found once for each version that is asked for.
pub struct SeriesTerms<'a> {
    card: &'a Card,
    table: &'a Table<'a>,
    series: &'a Series,
    versions: Vec<OnceCell<VersionTerms<'a>>>,
}

impl<'a> SeriesTerms<'a> {
    pub fn new(card: &'a Card, table: &'a Table<'a>, rank: u32) -> SeriesTerms<'a> {
        let versions = card.versions.iter().map(|_| OnceCell::new()).collect();
        SeriesTerms { card, table, series: &table.series[rank as usize], versions }
    }

    pub fn version(&self, number: u32) -> &VersionTerms<'a> {
        let find = || VersionTerms::find(self.card, &self.card.versions[number as usize], self.table, self.series);
        self.versions[number as usize].get_or_init(find)
    }

    /// The version of a minute, and which of its terms count there.
    pub fn at(&self, minute: i64) -> (Option<u32>, Result<TermKey, NoPrice>) {
        let Some(number) = self.card.version_at(minute) else {
            return (None, Err(NoPrice::NoVersion));
        };
        let number = number as u32;
        let terms = self.version(number);
        let Some(price) = terms.price else {
            return (Some(number), Err(NoPrice::NoPrice));
        };
        let is_valid = |index: &&usize| {
            let discount = &self.card.discounts[**index];
            (discount.from_minute..discount.to_minute).contains(&minute)
        };
        let discount = terms.discounts.iter().find(is_valid).map_or(0, |index| *index as u32 + 1);
        let rate = match &price.currency {
            None => 0,
            Some(code) => match self.card.currencies.get(&**code).and_then(|rates| rates.at(minute)) {
                Some((index, _)) => index as u32 + 1,
                None => return (Some(number), Err(NoPrice::NoRate)),
            },
        };
        (Some(number), Ok(TermKey { version: number, discount, rate }))
    }

    /// First minute after this one from which on other terms count, and not later than `end`.
    pub fn until(&self, minute: i64, end: i64) -> i64 {
        let now = self.at(minute);
        let mut next = minute;
        while let Some(change) = self.card.next_change(next) {
            if change >= end {
                return end;
            }
            if self.at(change) != now {
                return change;
            }
            next = change;
        }
        end
    }
}

impl<'a> VersionTerms<'a> {
    fn find(card: &'a Card, version: &'a Version, table: &Table<'_>, series: &Series) -> VersionTerms<'a> {
        let price = version.price(&series.meter, &series.dims);
        let parts = |price: &'a Price| price.minus.iter().map(|minus| (minus.as_str(), table.partners(series, minus)));
        let best = version.prices.keys().filter_map(|meter| version.price(meter, &series.dims));
        let wholes = best.filter(|price| price.minus.contains(&series.meter)).map(|price| Whole {
            meter: &price.meter,
            ranks: table.partners(series, &price.meter),
            parts: parts(price).map(|(_, ranks)| ranks).collect(),
        });
        let wholes = wholes.collect();
        let fits = |price: &Price| {
            let fitting = card.discounts.iter().enumerate().filter(|(_, d)| d.fits(&series.tenant, &price.sku, &series.meter));
            fitting.map(|(index, _)| index).collect()
        };
        let is_covered = |price: &Price| card.commitments.iter().any(|c| c.tenant == series.tenant && c.skus.contains(&price.sku));
        VersionTerms {
            version,
            price,
            scale: price.and_then(|price| unit::scale(&series.unit, &price.unit)),
            discounts: price.map(fits).unwrap_or_default(),
            is_counted: price.is_some_and(|price| !price.tiers.is_empty() || is_covered(price)),
            parts: price.into_iter().flat_map(parts).collect(),
            wholes,
        }
    }

    /// What of a minute is to be priced, or why none of it can be.
    ///
    /// Rule R10: parts above their whole cannot be right, so none of them is priced for that minute. A part
    /// without any whole is such a case too: the two meters then have other dimensions, and the whole would be overcharged.
    pub fn billable(&self, table: &Table<'_>, series: &Series, cell: &Amount) -> Result<i128, Refusal> {
        let used = |ranks: &Range<usize>| table.used(ranks.clone(), &series.unit, cell.minute);
        for whole in &self.wholes {
            // What is in another unit is refused where it stands; here it counts for nothing, so parts of it are refused too.
            let parts = whole.parts.iter().map(|ranks| used(ranks).unwrap_or(0)).fold(0, i128::saturating_add);
            if parts.max(cell.quantity) > used(&whole.ranks).unwrap_or(0) {
                return Err(Refusal::PartAboveWhole { whole: whole.meter.to_string(), part: series.meter.clone() });
            }
        }
        let Some(price) = self.price else {
            return Ok(cell.quantity);
        };
        let mismatch = |unit: &str| Refusal::UnitMismatch { sku: price.sku.clone(), unit: unit.to_string() };
        if self.scale.is_none() {
            return Err(mismatch(&price.unit));
        }
        let mut billable = cell.quantity;
        for (meter, ranks) in &self.parts {
            let part = used(ranks).map_err(mismatch)?;
            if part > billable {
                return Err(Refusal::PartAboveWhole { whole: series.meter.clone(), part: meter.to_string() });
            }
            billable = billable.saturating_sub(part);
        }
        self.check_sign(billable)?;
        Ok(billable)
    }

    fn check_sign(&self, billable: i128) -> Result<(), Refusal> {
        match self.price {
            Some(price) if self.is_counted && billable < 0 => Err(Refusal::Negative { sku: price.sku.clone() }),
            _ => Ok(()),
        }
    }

    /// Whether an interval can be priced. Parts are told from wholes by the minute, so what is held has none.
    pub fn check_interval(&self, quantity: i128) -> Result<(), Refusal> {
        let Some(price) = self.price else { return Ok(()) };
        if self.scale.is_none() || !price.minus.is_empty() {
            return Err(Refusal::UnitMismatch { sku: price.sku.clone(), unit: price.unit.clone() });
        }
        self.check_sign(quantity)
    }
}

/// Terms as they are applied to a quantity.
#[derive(Clone, Debug)]
pub struct Tariff<'a> {
    pub version: &'a Version,
    pub sku: &'a Price,
    pub scale: (u128, u128),
    /// List price of a block.
    pub price: Money,
    reduction: Option<Reduction>,
    pub exchange: Option<Exchange>,
}

impl<'a> Tariff<'a> {
    pub fn new(card: &Card, terms: &SeriesTerms<'a>, key: TermKey, tier: u32) -> Tariff<'a> {
        let of = terms.version(key.version);
        let sku = of.price.expect("a term key is given for a price only");
        let exchange = sku.currency.as_ref().and_then(|code| {
            let minute_rate = card.currencies.get(&**code)?.number(key.rate as usize - 1)?;
            Some(Exchange { currency: Arc::clone(code), rate: minute_rate })
        });
        Tariff {
            version: of.version,
            sku,
            scale: of.scale.unwrap_or((1, 1)),
            price: tier.checked_sub(1).map_or(sku.price, |index| sku.tiers[index as usize].price),
            reduction: key.discount.checked_sub(1).map(|index| card.discounts[index as usize].reduction),
            exchange,
        }
    }

    /// Price of a block after the discount, rounded half to even; amounts are made with the exact one.
    pub fn contracted_price(&self) -> Money {
        match self.reduction {
            None => self.price,
            Some(Reduction::Price(price)) => price,
            Some(Reduction::Keep(keep)) => exact(false, &[self.price.0.unsigned_abs(), keep], &[WHOLE]).unwrap_or(self.price),
        }
    }

    /// At the list price, and after the discount: each exact, then rounded once (rules R1 and R16).
    pub fn amounts(&self, billable: i128) -> Result<(Money, Money), Overflow> {
        let rate = self.exchange.as_ref().map_or(ONE, |exchange| exchange.rate.0.unsigned_abs());
        let amount = |price: Money, keep: u128| {
            let above = [billable.unsigned_abs(), self.scale.0, price.0.unsigned_abs(), keep, rate];
            exact(billable < 0, &above, &[self.scale.1, u128::from(self.sku.per), WHOLE, ONE])
        };
        let list = match self.exchange {
            None => exact(
                billable < 0,
                &[billable.unsigned_abs(), self.scale.0, self.price.0.unsigned_abs()],
                &[self.scale.1, u128::from(self.sku.per)],
            )?,
            Some(_) => amount(self.price, WHOLE)?,
        };
        let contracted = match self.reduction {
            None => list,
            Some(Reduction::Price(price)) => amount(price, WHOLE)?,
            Some(Reduction::Keep(keep)) => amount(self.price, keep)?,
        };
        Ok((list, contracted))
    }
}
