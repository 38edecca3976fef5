//! What was agreed beside the price list: discounts, commitments, and what other currencies are worth on which day.

use super::price::compile_amount;
use super::{CardConfig, Errors, TERMS_MAX, Version, compile_minute, compile_times};
use crate::money::Money;
use crate::unit::{self, Unit};
use flow::units::{NANOS_PER_MINUTE, UnixNanos};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// 100 %, in 10^-12 of a percent.
pub const WHOLE: u128 = 100_000_000_000_000;
const MINUTES_PER_DAY: i64 = 1_440;

/// What one unit of a currency is worth in the card's, from a day on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DayRateConfig {
    /// First UTC day: `2026-11-01`. It counts until the next entry begins.
    pub from: String,
    /// First UTC day on which it no longer counts, if that is before the next entry; what is used then is unpriced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// As a string of digits with at most 12 after the point: `"1.0834"`.
    pub rate: String,
}

/// A negotiated price: a percentage off the list, or a price of its own.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscountConfig {
    /// Whose usage; without it: everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of which SKU; without it: of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// Of which meter; without it: of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    /// So many percent less than the list price, exact: `"12.5"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<String>,
    /// Instead of `percent`: the price of a block, in the currency of the list price; it replaces all tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// First minute it is valid: `2026-07-01T00:00:00Z`. Without it: always has been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// First minute it is no longer valid. Without it: until further notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A quantity that a tenant pays each month, used or not; what it covers costs nothing more.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitmentConfig {
    /// Its name on charges.
    pub id: String,
    /// Who pays it, and whose usage it covers.
    pub tenant: String,
    /// What it covers. All of them are priced in units that measure the same.
    pub skus: Vec<String>,
    /// Units (not blocks) a month, in the unit of the first SKU's price.
    pub quantity: u64,
    /// Its price a month, in the card's currency: `"500"`.
    pub fee: String,
    /// First minute of its first UTC month: `2026-07-01T00:00:00Z`.
    pub from: String,
    /// First minute of the UTC month after its last. Without it: until further notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A checked discount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discount {
    pub tenant: Option<Vec<u8>>,
    pub sku: Option<String>,
    pub meter: Option<String>,
    pub reduction: Reduction,
    pub from_minute: i64,
    pub to_minute: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// What is left of the list price, of `WHOLE`.
    Keep(u128),
    /// The price of a block instead.
    Price(Money),
}

/// A checked commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    pub id: Arc<str>,
    pub tenant: Vec<u8>,
    pub skus: Vec<String>,
    /// A month, in the smallest units of `unit`.
    pub quantity: u128,
    pub unit: String,
    pub fee: Money,
    pub from_minute: i64,
    pub to_minute: i64,
}

/// The rates of one currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayRates {
    /// (from, to, rate) in minutes and in order of time, without overlap.
    entries: Vec<(i64, i64, Money)>,
}

impl DayRates {
    /// Number and rate of the entry for this minute.
    pub(crate) fn at(&self, minute: i64) -> Option<(usize, Money)> {
        let index = self.entries.partition_point(|entry| entry.0 <= minute).checked_sub(1)?;
        let (_, to, rate) = self.entries[index];
        (minute < to).then_some((index, rate))
    }

    /// The rate of an entry.
    pub(crate) fn number(&self, index: usize) -> Option<Money> {
        self.entries.get(index).map(|entry| entry.2)
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = i64> {
        self.entries.iter().flat_map(|(from, to, _)| [*from, *to])
    }
}

impl Discount {
    fn names(&self) -> usize {
        usize::from(self.tenant.is_some()) + usize::from(self.sku.is_some()) + usize::from(self.meter.is_some())
    }

    pub(crate) fn fits(&self, tenant: &[u8], sku: &str, meter: &str) -> bool {
        self.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
            && self.sku.as_ref().is_none_or(|wanted| wanted == sku)
            && self.meter.as_ref().is_none_or(|wanted| wanted == meter)
    }

    /// Whether some usage may be reduced by both, equally specific as they are.
    fn rivals(&self, other: &Discount, versions: &[Version]) -> bool {
        let apart = |a: Option<&[u8]>, b: Option<&[u8]>| a.zip(b).is_some_and(|(a, b)| a != b);
        let text = |of: &Option<String>| of.clone().map(String::into_bytes);
        let is_sold = |sku: &Option<String>, meter: &Option<String>| match (sku, meter) {
            (Some(sku), Some(meter)) => versions.iter().flat_map(|v| v.prices.get(meter).into_iter().flatten()).any(|p| p.sku == *sku),
            _ => true,
        };
        self.names() == other.names()
            && self.from_minute < other.to_minute
            && other.from_minute < self.to_minute
            && !apart(self.tenant.as_deref(), other.tenant.as_deref())
            && !apart(text(&self.sku).as_deref(), text(&other.sku).as_deref())
            && !apart(text(&self.meter).as_deref(), text(&other.meter).as_deref())
            && is_sold(&self.sku, &other.meter)
            && is_sold(&other.sku, &self.meter)
    }
}

pub(super) fn compile_currencies(config: &CardConfig, errors: &mut Errors) -> BTreeMap<String, DayRates> {
    let mut all = BTreeMap::new();
    for (code, rates) in &config.currencies {
        let at = format!("currencies.{code}");
        super::check_currency(at.clone(), code, errors);
        if *code == config.currency {
            errors.add(at.clone(), "is the card's own currency", "rates are for the other currencies; one unit of its own is one");
        }
        if rates.is_empty() || rates.len() > TERMS_MAX {
            errors.add(at.clone(), format!("has {} entries", rates.len()), format!("a currency has 1 to {TERMS_MAX} rates"));
        }
        all.insert(code.clone(), compile_rates(rates.get(..TERMS_MAX).unwrap_or(rates), &at, errors));
    }
    all
}

fn compile_rates(rates: &[DayRateConfig], at: &str, errors: &mut Errors) -> DayRates {
    let mut entries: Vec<(i64, i64, Money)> = Vec::new();
    for (index, entry) in rates.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let rate = compile_amount(&entry.rate, format!("{at}.rate"), errors);
        if rate == Some(Money::ZERO) {
            errors.add(format!("{at}.rate"), "is 0", "a currency is worth something; a day without rate is left out");
        }
        let from = compile_day(&entry.from, format!("{at}.from"), errors);
        let to = entry.to.as_ref().map_or(Some(i64::MAX), |to| compile_day(to, format!("{at}.to"), errors));
        let (Some(from), Some(to), Some(rate)) = (from, to, rate) else { continue };
        if to <= from {
            errors.add(format!("{at}.to"), "is not after from", "a rate counts for at least one day");
        }
        if entries.last().is_some_and(|last| from <= last.0) {
            errors.add(format!("{at}.from"), "is not after the entry before", "rates stand in order of their days, one for each day");
        }
        if let Some(last) = entries.last_mut() {
            last.1 = last.1.min(from);
        }
        entries.push((from, to, rate));
    }
    DayRates { entries }
}

fn compile_day(text: &str, path: String, errors: &mut Errors) -> Option<i64> {
    let minute = super::parse_minute(&format!("{text}T00:00:00Z"));
    if text.len() != 10 || minute.is_err() {
        errors.add(path, format!("is {text:?}"), "a day is written as 2026-11-01");
        return None;
    }
    minute.ok().map(|minute| minute.div_euclid(MINUTES_PER_DAY) * MINUTES_PER_DAY)
}

pub(super) fn compile_discounts(configs: &[DiscountConfig], known: Option<&[Version]>, errors: &mut Errors) -> Vec<Discount> {
    if configs.len() > TERMS_MAX {
        errors.add("discounts", format!("has {} entries", configs.len()), format!("a card has at most {TERMS_MAX} discounts"));
    }
    let mut all: Vec<(usize, Discount)> = Vec::new();
    for (index, config) in configs.iter().enumerate().take(TERMS_MAX) {
        let Some(discount) = compile_discount(config, &format!("discounts[{index}]"), known, errors) else { continue };
        if let Some((first, _)) = all.iter().find(|(_, other)| other.rivals(&discount, known.unwrap_or_default())) {
            errors.add(
                format!("discounts[{index}]"),
                format!("fits the same usage as discounts[{first}], equally well"),
                "the discount that names more of tenant, sku and meter counts: name one more, or end one before the other begins",
            );
        }
        all.push((index, discount));
    }
    let mut all: Vec<Discount> = all.into_iter().map(|(_, discount)| discount).collect();
    all.sort_by_key(|discount| std::cmp::Reverse(discount.names()));
    all
}

fn compile_discount(config: &DiscountConfig, at: &str, known: Option<&[Version]>, errors: &mut Errors) -> Option<Discount> {
    let reduction = match (&config.percent, &config.price) {
        (Some(percent), None) => match Money::parse(percent).ok().and_then(|p| WHOLE.checked_sub(u128::try_from(p.0).ok()?)) {
            Some(keep) => Some(Reduction::Keep(keep)),
            None => {
                errors.add(format!("{at}.percent"), format!("is {percent:?}"), "a percentage is digits from 0 to 100, as in \"12.5\"");
                None
            }
        },
        (None, Some(price)) => compile_amount(price, format!("{at}.price"), errors).map(Reduction::Price),
        _ => {
            errors.add(at, "needs one of percent and price", "write percent: \"12.5\", or price: \"0.40\"");
            None
        }
    };
    if let Some(sku) = &config.sku {
        check_sku(sku, format!("{at}.sku"), known, errors);
    }
    if let (Some(meter), Some(versions)) = (&config.meter, known)
        && !versions.iter().any(|version| version.prices.contains_key(meter))
    {
        errors.add(format!("{at}.meter"), format!("is {meter:?}, which has no price in any version"), "name a meter of the card");
    }
    let (from_minute, to_minute) = compile_times(config.from.as_ref(), config.to.as_ref(), at, errors)?;
    Some(Discount {
        tenant: config.tenant.clone().map(String::into_bytes),
        sku: config.sku.clone(),
        meter: config.meter.clone(),
        reduction: reduction?,
        from_minute,
        to_minute,
    })
}

fn check_sku(sku: &str, path: String, known: Option<&[Version]>, errors: &mut Errors) {
    if known.is_some_and(|versions| units_of(sku, versions).next().is_none()) {
        errors.add(path, format!("is {sku:?}, which no version sells"), "name an SKU of the card");
    }
}

fn units_of<'a>(sku: &'a str, versions: &'a [Version]) -> impl Iterator<Item = &'a str> {
    versions.iter().flat_map(|version| version.prices.values().flatten()).filter(move |p| p.sku == sku).map(|p| p.unit.as_str())
}

pub(super) fn compile_commitments(configs: &[CommitmentConfig], known: Option<&[Version]>, errors: &mut Errors) -> Vec<Contract> {
    errors.check_list("commitments", "id", configs.iter().map(|config| config.id.as_str()));
    let each = configs.iter().enumerate().take(TERMS_MAX);
    each.filter_map(|(index, config)| compile_commitment(config, &format!("commitments[{index}]"), known, errors)).collect()
}

fn compile_commitment(config: &CommitmentConfig, at: &str, known: Option<&[Version]>, errors: &mut Errors) -> Option<Contract> {
    errors.check_name(format!("{at}.tenant"), &config.tenant);
    if config.skus.is_empty() || config.skus.len() > TERMS_MAX {
        errors.add(format!("{at}.skus"), format!("has {} entries", config.skus.len()), "name what the commitment covers");
    }
    for (number, sku) in config.skus.iter().enumerate() {
        check_sku(sku, format!("{at}.skus[{number}]"), known, errors);
    }
    if config.quantity == 0 {
        errors.add(format!("{at}.quantity"), "is 0", "a commitment covers at least one unit a month");
    }
    let unit = known.and_then(|versions| units_of(config.skus.first()?, versions).next()).unwrap_or_default();
    for (number, sku) in config.skus.iter().enumerate() {
        let odd = known.and_then(|versions| units_of(sku, versions).find(|other| unit::scale(other, unit).is_none()));
        if let Some(odd) = odd {
            let help = "a commitment counts one kind of thing: its SKUs are priced in units that measure the same";
            errors.add(format!("{at}.skus[{number}]"), format!("is priced in {odd:?}, the first one in {unit:?}"), help);
        }
    }
    let fee = compile_amount(&config.fee, format!("{at}.fee"), errors);
    let from = compile_month(&config.from, format!("{at}.from"), errors);
    let to = config.to.as_ref().map_or(Some(i64::MAX), |to| compile_month(to, format!("{at}.to"), errors));
    let (from_minute, to_minute) = super::check_times(at, from?, to?, errors)?;
    let Some(quantity) = u128::from(config.quantity).checked_mul(Unit::parse(unit).size) else {
        errors.add(format!("{at}.quantity"), "is too large", "write a smaller quantity");
        return None;
    };
    Some(Contract {
        id: Arc::from(config.id.as_str()),
        tenant: config.tenant.clone().into_bytes(),
        skus: config.skus.clone(),
        quantity,
        unit: unit.to_string(),
        fee: fee?,
        from_minute,
        to_minute,
    })
}

fn compile_month(text: &str, path: String, errors: &mut Errors) -> Option<i64> {
    let minute = compile_minute(text, path.clone(), errors)?;
    let civil = UnixNanos(minute.saturating_mul(NANOS_PER_MINUTE)).civil();
    if (civil.day, civil.hour, civil.minute) != (1, 0, 0) {
        errors.add(path, format!("is {text:?}, within a month"), "a commitment is for whole UTC months: 2026-07-01T00:00:00Z");
        return None;
    }
    Some(minute)
}
