//! What is sold: a meter's quantity at a price for each block, flat or in tiers.

use super::{CardConfig, Errors};
use crate::money::Money;
use crate::unit::{self, Unit};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Tiers of one price.
const TIERS_MAX: usize = 64;
/// Parts of one meter.
const PARTS_MAX: usize = 16;

/// The price of one thing that is sold.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// Name of what is sold, written to every charge. Used once in a version.
    pub sku: String,
    /// The meter whose quantity is priced, as in `tokens_in`.
    pub meter: String,
    /// A meter that is part of this one and priced by itself, or a list of them: their quantities are subtracted first, as
    /// `tokens_cached` from `tokens_in`.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub minus: Parts,
    /// Short for `match: { model: ... }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Short for `match: { region: ... }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Dimensions of the meter that must have these values, as in `{ model: orca-8b-it, service: chat }`. Empty: any.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, String>,
    /// Price of one block of `per` units, as a string of digits with at most 12 after the point: `"0.50"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// Instead of `price`: prices by how much a tenant used of the SKU in the UTC month, the cheapest part of the month first.
    /// What lies above a bound costs the next price; usage that goes over a bound is cut there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierConfig>,
    /// Currency of the price, if it is not the card's; its rates stand under `currencies`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Units in a block: 1000000 for a price per million tokens. Parts of a block cost their exact share.
    pub per: u64,
    /// Unit of the price, as in `Tokens` or `Hours`. The meter's unit may be another one that measures the same: ms, Seconds,
    /// Minutes, Hours, Days, Months (730 h); Bytes, KB to PB, KiB to PiB; mJ, J, Wh, kWh; GiB-Hours and the like. What is held
    /// over time (`GPUs-ms`) may be priced in GPU-Hours or, each of them, in Hours. Usage in any other unit is refused and
    /// listed, not priced.
    pub unit: String,
}

/// Meters that are parts of another one. Text form: one name, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(pub Vec<String>);

impl Parts {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Parts, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Parts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a meter, or a list of them")
            }

            fn visit_str<E>(self, name: &str) -> Result<Parts, E> {
                Ok(Parts(vec![name.to_owned()]))
            }

            /// As if the key were not there.
            fn visit_unit<E>(self) -> Result<Parts, E> {
                Ok(Parts::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Parts, A::Error> {
                let mut parts = Vec::new();
                while let Some(name) = names.next_element()? {
                    parts.push(name);
                }
                Ok(Parts(parts))
            }
        }
        d.deserialize_any(Names)
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [only] => s.serialize_str(only),
            all => s.collect_seq(all),
        }
    }
}

impl JsonSchema for Parts {
    fn schema_name() -> Cow<'static, str> {
        "Parts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The name of a meter, or a list of them.",
            "type": ["string", "array"], "items": { "type": "string" }
        })
    }
}

/// A price up to a bound.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierConfig {
    /// Units (not blocks) of the month up to which this price counts. Only the last tier has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    /// Price of one block of `per` units.
    pub price: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub sku: String,
    pub meter: String,
    /// Meters whose quantities are subtracted first.
    pub minus: Vec<String>,
    /// (dimension, value) in the order of names.
    pub matches: Vec<(String, Vec<u8>)>,
    /// Of the first tier, where there are tiers.
    pub price: Money,
    /// Empty: the price is the same for any quantity.
    pub tiers: Vec<Tier>,
    /// `None`: the card's.
    pub currency: Option<Arc<str>>,
    pub per: u64,
    pub unit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// In the smallest units of the price's unit (see `unit`); the last tier has `u128::MAX`.
    pub up_to: u128,
    pub price: Money,
}

pub(super) fn compile_amount(text: &str, path: String, errors: &mut Errors) -> Option<Money> {
    match Money::parse(text) {
        Err(message) => {
            errors.add(path, format!("is no price: {message}"), "write digits with a point and at most 12 digits after it, as in \"0.50\"");
            None
        }
        Ok(price) if price.0 < 0 => {
            errors.add(path, "is negative", "a price is 0 or more; a credit is not a price");
            None
        }
        Ok(price) => Some(price),
    }
}

pub(super) fn compile_price(config: &PriceConfig, at: &str, card: &CardConfig, errors: &mut Errors) -> Option<Price> {
    let before = errors.0.len();
    errors.check_name(format!("{at}.sku"), &config.sku);
    errors.check_name(format!("{at}.meter"), &config.meter);
    errors.check_name(format!("{at}.unit"), &config.unit);
    if config.minus.0.len() > PARTS_MAX {
        errors.add(
            format!("{at}.minus"),
            format!("names {} meters", config.minus.0.len()),
            format!("a meter has at most {PARTS_MAX} parts"),
        );
    }
    for (number, minus) in config.minus.0.iter().enumerate().take(PARTS_MAX) {
        errors.check_name(format!("{at}.minus"), minus);
        if *minus == config.meter {
            let help = "minus names a part of the meter, as tokens_cached of tokens_in";
            errors.add(format!("{at}.minus"), format!("is {minus:?}, the meter itself"), help);
        }
        if config.minus.0[..number].contains(minus) {
            errors.add(format!("{at}.minus"), format!("names {minus:?} twice"), "name each part once: it would be subtracted twice");
        }
    }
    let price = config.price.as_ref().and_then(|price| compile_amount(price, format!("{at}.price"), errors));
    let tiers = compile_tiers(config, at, errors);
    match (config.price.is_some(), config.tiers.is_empty()) {
        (true, false) => errors.add(format!("{at}.price"), "stands beside tiers", "a price has one amount or tiers of them, not both"),
        (false, true) => errors.add(format!("{at}.price"), "is missing", "write price: \"0.50\", or tiers"),
        _ => {}
    }
    if let Some(code) = config.currency.as_ref().filter(|code| **code != card.currency && !card.currencies.contains_key(*code)) {
        errors.add(
            format!("{at}.currency"),
            format!("is {code:?}, of which the card knows no rate"),
            format!("add it to currencies: {{ {code}: [{{ from: 2026-11-01, rate: \"1.08\" }}] }}"),
        );
    }
    if config.per == 0 {
        errors.add(format!("{at}.per"), "is 0", "a block has at least one unit: 1000000 for a price per million");
    }
    let matches = compile_matches(config, at, errors);
    if errors.0.len() > before {
        return None;
    }
    Some(Price {
        sku: config.sku.clone(),
        meter: config.meter.clone(),
        minus: config.minus.0.clone(),
        matches: matches.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
        price: price.or(tiers.first().map(|tier| tier.price))?,
        tiers,
        currency: config.currency.as_deref().filter(|code| *code != card.currency).map(Arc::from),
        per: config.per,
        unit: config.unit.clone(),
    })
}

fn compile_matches(config: &PriceConfig, at: &str, errors: &mut Errors) -> BTreeMap<String, String> {
    let mut matches = config.matches.clone();
    for name in config.matches.keys() {
        errors.check_name(format!("{at}.match"), name);
    }
    for (name, value) in [("model", &config.model), ("region", &config.region)] {
        if let Some(value) = value
            && matches.insert(name.to_string(), value.clone()).is_some()
        {
            let help = format!("{name} is short for match: {{ {name}: ... }}; write one of them");
            errors.add(format!("{at}.{name}"), "is also named by match", help);
        }
    }
    matches
}

fn compile_tiers(config: &PriceConfig, at: &str, errors: &mut Errors) -> Vec<Tier> {
    if config.tiers.len() > TIERS_MAX {
        errors.add(format!("{at}.tiers"), format!("has {} entries", config.tiers.len()), format!("a price has at most {TIERS_MAX} tiers"));
    }
    let size = Unit::parse(&config.unit).size;
    let mut tiers = Vec::new();
    let mut below = 0;
    for (number, tier) in config.tiers.iter().enumerate().take(TIERS_MAX) {
        let at = format!("{at}.tiers[{number}]");
        let price = compile_amount(&tier.price, format!("{at}.price"), errors);
        let is_last = number + 1 == config.tiers.len();
        let up_to = match tier.up_to {
            None if is_last => u128::MAX,
            None => {
                errors.add(format!("{at}.up_to"), "is missing", "only the last tier goes on for ever");
                continue;
            }
            Some(_) if is_last => {
                errors.add(format!("{at}.up_to"), "bounds the last tier", "leave it out: what lies above needs a price too");
                continue;
            }
            Some(bound) => u128::from(bound).saturating_mul(size),
        };
        if up_to <= below {
            errors.add(format!("{at}.up_to"), "is not above the tier before", "tiers ascend, each from the bound before it to its own");
        }
        below = up_to;
        tiers.extend(price.map(|price| Tier { up_to, price }));
    }
    tiers
}

/// One price for each fact: SKUs are unique, and no two prices fit the same fact equally well.
pub(super) fn check_prices(prices: &[(usize, Price)], at: &str, errors: &mut Errors) {
    let mut skus: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, price) in prices {
        if let Some(first) = skus.get(price.sku.as_str()) {
            errors.add(
                format!("{at}.prices[{number}].sku"),
                format!("is {:?}, already used by {at}.prices[{first}]", price.sku),
                "a charge names its price by SKU and version, so each price has an SKU of its own",
            );
        } else {
            skus.insert(&price.sku, *number);
        }
    }
    for (position, (number, price)) in prices.iter().enumerate() {
        let rival = prices[..position].iter().find(|(_, other)| other.meter == price.meter && equally_specific(other, price));
        if let Some((first, _)) = rival {
            errors.add(
                format!("{at}.prices[{number}]"),
                format!("fits the same usage of meter {:?} as {at}.prices[{first}], equally well", price.meter),
                "the price that matches more dimensions counts: add a dimension to one of them, or remove one",
            );
        }
    }
}

fn equally_specific(a: &Price, b: &Price) -> bool {
    let apart = |(name, value): &(String, Vec<u8>)| b.matches.iter().any(|(other, wanted)| other == name && wanted != value);
    a.matches.len() == b.matches.len() && !a.matches.iter().any(apart)
}

/// An SKU is counted over the month for tiers and commitments, across versions: its units must measure the same.
pub(super) fn check_units(config: &CardConfig, errors: &mut Errors) {
    let mut first: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for (index, version) in config.versions.iter().enumerate() {
        for (number, price) in version.prices.iter().enumerate() {
            let at = format!("versions[{index}].prices[{number}]");
            match first.get(price.sku.as_str()) {
                Some((unit, other)) if unit::scale(&price.unit, unit).is_none() && !price.tiers.is_empty() => errors.add(
                    format!("{at}.unit"),
                    format!("is {:?}, but {other} counts the same SKU in {unit:?}", price.unit),
                    "tiers count what was used in a month: give the SKU one unit, or another name",
                ),
                Some(_) => {}
                None => _ = first.insert(&price.sku, (&price.unit, at)),
            }
        }
    }
}
