//! The rate card: which meter costs what, for whom, from when until when.
//!
//! In: the card as deserialized, and its text for the digest. Out: a `Card` whose versions do not overlap and in
//! which every fact has at most one price, one discount and one day rate, or every mistake at once with its path. Bound:
//! `VERSIONS_MAX` versions, `PRICES_MAX` prices each, `TERMS_MAX` entries of any other list; a larger card is refused.
//! Parts: `price` (what is sold), `terms` (discounts, commitments, day rates), `share` (cost that several tenants cause),
//! `csv` (a price list as others keep it).

pub mod csv;
pub mod price;
pub mod share;
pub mod terms;

pub use csv::import_csv;
pub use price::{Parts, Price, PriceConfig, Tier, TierConfig};
pub use share::{Share, ShareConfig};
pub use terms::{CommitmentConfig, Contract, DayRateConfig, Discount, DiscountConfig, Reduction};

use crate::budget::{Budget, BudgetConfig};
use crate::focus::FocusInfo;
use flow::event::UsageFact;
use flow::units::{NANOS_PER_DAY, NANOS_PER_MINUTE, Span, UnixNanos, civil_from_days, days_from_civil};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use terms::DayRates;

pub const VERSIONS_MAX: usize = 1_024;
/// Prices of one version; comparing each with each then takes at most 8 million steps.
pub const PRICES_MAX: usize = 4_096;
/// Entries of any other list of the card.
pub const TERMS_MAX: usize = 4_096;
/// Copies of an event are looked for so long (rule R7): longer than the longest replay of 32 days.
pub const DEDUP_WINDOW: Span = Span(35 * NANOS_PER_DAY);
/// A level that was sampled holds so long if no sample follows it sooner.
pub const SAMPLE_GAP: Span = Span(5 * NANOS_PER_MINUTE);

/// What usage costs: price lists, each valid for a while, and what was agreed with whom.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CardConfig {
    /// Three-letter code of the currency of the bill (ISO 4217), as in `USD`. Prices without a currency of their own are in it.
    pub currency: String,
    /// Price lists. Their times may touch or leave gaps, but not overlap; what is used in a gap is listed as unpriced.
    pub versions: Vec<VersionConfig>,
    /// What other currencies are worth, by code: what one unit of it costs in the card's currency, from which UTC day on.
    /// Usage on a day without a rate is listed as unpriced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub currencies: BTreeMap<String, Vec<DayRateConfig>>,
    /// Negotiated prices. Of several that fit, the one that names the most of tenant, sku and meter counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<DiscountConfig>,
    /// What tenants pay in advance. Where several cover the same usage, the one that is listed first is used up first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commitments: Vec<CommitmentConfig>,
    /// Cost that several tenants cause together, and how it is divided among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareConfig>,
    /// An event with the key of one that was received at most so long before it is a copy of it. Without it: 35 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_window: Option<Span>,
    /// A sampled level holds until the next sample, but no longer than this. Without it: 5 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_gap: Option<Span>,
    /// Names and categories for `weir cost export --focus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub focus: Option<FocusInfo>,
    /// Amounts a month that somebody wants to hear of before they are spent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetConfig>,
}

/// A price list and the time it is valid.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionConfig {
    /// Name of this price list, written to every charge. No two versions share one.
    pub name: String,
    /// First minute it is valid, UTC and a whole minute: `2026-07-01T00:00:00Z`. Usage is priced by its own time, not by its arrival.
    pub from: String,
    /// First minute it is no longer valid, in the same form. Without it: valid until further notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The prices. Of several that fit, the one that names the most dimensions counts.
    pub prices: Vec<PriceConfig>,
}

/// A mistake in a rate card: where, what, the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardError {
    /// As in `versions[0].prices[3].price`.
    pub path: String,
    pub message: String,
    pub help: String,
}

impl fmt::Display for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}\n  help: {}", self.path, self.message, self.help)
    }
}

/// A rate card without mistakes.
#[derive(Clone, Debug)]
pub struct Card {
    pub currency: String,
    /// SHA-256 of the card's text, 64 hex digits; written to every charge, so that nobody can change a card unseen.
    pub digest: String,
    /// In order of time, without overlap.
    pub versions: Vec<Version>,
    /// Other currencies, by code.
    pub currencies: BTreeMap<String, DayRates>,
    /// The most specific first.
    pub discounts: Vec<Discount>,
    /// As listed: the first is used up first.
    pub commitments: Vec<Contract>,
    pub shares: Vec<Share>,
    pub dedup_window: Span,
    pub sample_gap: Span,
    pub focus: FocusInfo,
    pub budgets: Vec<Budget>,
    /// Minutes at which a price, a discount or a day rate may change, in order.
    changes: Vec<i64>,
}

#[derive(Clone, Debug)]
pub struct Version {
    pub name: String,
    /// Minutes since the epoch: [from, to).
    pub from_minute: i64,
    /// `i64::MAX` if the version has no end.
    pub to_minute: i64,
    /// By meter; the most specific first.
    pub prices: BTreeMap<String, Vec<Price>>,
}

impl Card {
    /// Checks a card. `text`: the bytes it was read from; only their digest is kept. Returns every mistake.
    pub fn compile(config: &CardConfig, text: &[u8]) -> Result<Card, Vec<CardError>> {
        let mut errors = Errors(Vec::new());
        check_currency("currency".into(), &config.currency, &mut errors);
        if config.versions.is_empty() || config.versions.len() > VERSIONS_MAX {
            errors.add("versions", format!("has {} entries", config.versions.len()), format!("a card has 1 to {VERSIONS_MAX} versions"));
        }
        let currencies = terms::compile_currencies(config, &mut errors);
        let mut versions = Vec::new();
        for (index, version) in config.versions.iter().enumerate().take(VERSIONS_MAX) {
            versions.extend(compile_version(version, index, config, &mut errors).map(|version| (index, version)));
        }
        check_versions(config, &mut versions, &mut errors);
        let versions: Vec<Version> = versions.into_iter().map(|(_, version)| version).collect();
        // What refers to prices is judged only where all prices could be read.
        let known = errors.0.is_empty().then_some(versions.as_slice());
        price::check_units(config, &mut errors);
        let discounts = terms::compile_discounts(&config.discounts, known, &mut errors);
        let commitments = terms::compile_commitments(&config.commitments, known, &mut errors);
        let shares = share::compile_shares(&config.shares, known, &mut errors);
        let dedup_window = check_span("dedup_window", config.dedup_window, DEDUP_WINDOW, &mut errors);
        let sample_gap = check_span("sample_gap", config.sample_gap, SAMPLE_GAP, &mut errors);
        for (path, what, help) in config.focus.iter().flat_map(FocusInfo::mistakes) {
            errors.add(format!("focus.{path}"), what, help);
        }
        let budgets = Budget::compile(&config.budgets, &config.currency).unwrap_or_else(|mistakes| {
            errors.0.extend(mistakes);
            Vec::new()
        });
        if !errors.0.is_empty() {
            return Err(errors.0);
        }
        let mut changes: Vec<i64> = versions.iter().flat_map(|v| [v.from_minute, v.to_minute]).collect();
        changes.extend(discounts.iter().flat_map(|d| [d.from_minute, d.to_minute]));
        changes.extend(currencies.values().flat_map(DayRates::changes));
        changes.sort_unstable();
        changes.dedup();
        Ok(Card {
            currency: config.currency.clone(),
            digest: digest(text),
            versions,
            currencies,
            discounts,
            commitments,
            shares,
            dedup_window,
            sample_gap,
            focus: config.focus.clone().unwrap_or_default(),
            budgets,
            changes,
        })
    }

    /// Index of the version that is valid in this minute of event time (rule R9).
    pub fn version_at(&self, minute: i64) -> Option<usize> {
        let after = self.versions.partition_point(|version| version.from_minute <= minute);
        let index = after.checked_sub(1)?;
        (minute < self.versions[index].to_minute).then_some(index)
    }

    /// Some price is graduated: what it is depends on all that was used of it in the month.
    pub fn has_tiers(&self) -> bool {
        self.versions.iter().flat_map(|version| version.prices.values().flatten()).any(|price| !price.tiers.is_empty())
    }

    /// The price of one fact, if there is one: by its minute, meter and dimensions.
    pub fn price(&self, fact: &UsageFact) -> Option<&Price> {
        self.versions[self.version_at(fact.minute)?].price(&fact.meter, &fact.dims)
    }

    /// Number of the stretch of time without any change of prices, discounts and day rates in which this minute lies.
    pub(crate) fn stretch(&self, minute: i64) -> usize {
        self.changes.partition_point(|change| *change <= minute)
    }

    /// First minute after this one at which something may change.
    pub(crate) fn next_change(&self, minute: i64) -> Option<i64> {
        self.changes.get(self.stretch(minute)).copied()
    }
}

impl Version {
    /// The most specific price that fits; `compile` made sure that there is only one.
    pub fn price(&self, meter: &str, dims: &[(String, Vec<u8>)]) -> Option<&Price> {
        self.prices.get(meter)?.iter().find(|price| price.matches.iter().all(|wanted| dims.contains(wanted)))
    }

    /// Where a version begins, as it is written.
    pub fn from(&self) -> UnixNanos {
        UnixNanos(self.from_minute.saturating_mul(NANOS_PER_MINUTE))
    }
}

struct Errors(Vec<CardError>);

impl Errors {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>, help: impl Into<String>) {
        self.0.push(CardError { path: path.into(), message: message.into(), help: help.into() });
    }

    fn check_name(&mut self, path: String, name: &str) {
        if name.is_empty() || name.chars().any(char::is_control) {
            self.add(path, format!("is {name:?}"), "a name is at least one printable character");
        }
    }

    /// At most `TERMS_MAX` entries, each with a name of its own.
    fn check_list<'a>(&mut self, list: &str, field: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, name) in names.enumerate() {
            if index == TERMS_MAX {
                return self.add(list, format!("has more than {TERMS_MAX} entries"), "split the card");
            }
            self.check_name(format!("{list}[{index}].{field}"), name);
            match seen.get(name) {
                Some(first) => self.add(
                    format!("{list}[{index}].{field}"),
                    format!("is {name:?}, as in {list}[{first}]"),
                    "charges name it, so each has a name of its own",
                ),
                None => _ = seen.insert(name, index),
            }
        }
    }
}

fn check_currency(path: String, code: &str, errors: &mut Errors) {
    if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_uppercase()) {
        errors.add(path, format!("is {code:?}"), "a currency is three capital letters, as in USD");
    }
}

fn check_span(path: &str, span: Option<Span>, default: Span, errors: &mut Errors) -> Span {
    let span = span.unwrap_or(default);
    if span.0 <= 0 || span.0 > 400 * NANOS_PER_DAY {
        errors.add(path, format!("is {span}"), format!("a length of time above 0 and up to 400 days; without it: {default}"));
    }
    span
}

fn compile_version(config: &VersionConfig, index: usize, card: &CardConfig, errors: &mut Errors) -> Option<Version> {
    let at = format!("versions[{index}]");
    errors.check_name(format!("{at}.name"), &config.name);
    let from_minute = compile_minute(&config.from, format!("{at}.from"), errors);
    let to_minute = match &config.to {
        Some(to) => compile_minute(to, format!("{at}.to"), errors),
        None => Some(i64::MAX),
    };
    if config.prices.is_empty() || config.prices.len() > PRICES_MAX {
        errors.add(
            format!("{at}.prices"),
            format!("has {} entries", config.prices.len()),
            format!("a version has 1 to {PRICES_MAX} prices"),
        );
    }
    let mut compiled: Vec<(usize, Price)> = Vec::new();
    for (number, price) in config.prices.iter().enumerate().take(PRICES_MAX) {
        let found = price::compile_price(price, &format!("{at}.prices[{number}]"), card, errors);
        compiled.extend(found.map(|price| (number, price)));
    }
    price::check_prices(&compiled, &at, errors);
    let (from_minute, to_minute) = check_times(&at, from_minute?, to_minute?, errors)?;
    let mut prices: BTreeMap<String, Vec<Price>> = BTreeMap::new();
    for (_, price) in compiled {
        prices.entry(price.meter.clone()).or_default().push(price);
    }
    for of_meter in prices.values_mut() {
        of_meter.sort_by_key(|price| std::cmp::Reverse(price.matches.len()));
    }
    Some(Version { name: config.name.clone(), from_minute, to_minute, prices })
}

fn check_times(at: &str, from_minute: i64, to_minute: i64, errors: &mut Errors) -> Option<(i64, i64)> {
    if from_minute >= to_minute {
        errors.add(format!("{at}.to"), "is not after from", "it is valid from its first minute up to, not including, its end");
        return None;
    }
    Some((from_minute, to_minute))
}

/// [from, to) in minutes; without them: always.
fn compile_times(from: Option<&String>, to: Option<&String>, at: &str, errors: &mut Errors) -> Option<(i64, i64)> {
    let from = from.map_or(Some(i64::MIN), |from| compile_minute(from, format!("{at}.from"), errors));
    let to = to.map_or(Some(i64::MAX), |to| compile_minute(to, format!("{at}.to"), errors));
    check_times(at, from?, to?, errors)
}

fn compile_minute(text: &str, path: String, errors: &mut Errors) -> Option<i64> {
    let minute = parse_minute(text);
    if let Err(message) = &minute {
        errors.add(path, format!("is {text:?}: {message}"), "a time is a whole minute in UTC, as in 2026-07-01T00:00:00Z");
    }
    minute.ok()
}

/// Minutes since the epoch of `2026-07-01T00:00:00Z`. Years 1970 to 2261, so that it fits `UnixNanos`.
fn parse_minute(text: &str) -> Result<i64, &'static str> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(byte, want): (&u8, &u8)| if *want == b'd' { byte.is_ascii_digit() } else { byte == want };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return Err("not of the form YYYY-MM-DDTHH:MM:SSZ");
    }
    let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    let (year, month, day) = (number(0..4) as i32, number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    if !(1970..=2261).contains(&year) {
        return Err("the year is not within 1970 to 2261");
    }
    let days = days_from_civil(year, month, day);
    if !(1..=12).contains(&month) || civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return Err("there is no such time");
    }
    if second != 0 {
        return Err("a price takes effect on a whole minute");
    }
    Ok(days * 1_440 + i64::from(hour) * 60 + i64::from(minute))
}

/// Names are unique and times do not overlap (rule R9); leaves the versions in order of time.
fn check_versions(config: &CardConfig, versions: &mut [(usize, Version)], errors: &mut Errors) {
    for (index, version) in config.versions.iter().enumerate().take(VERSIONS_MAX) {
        if let Some(first) = config.versions[..index].iter().position(|other| other.name == version.name) {
            errors.add(
                format!("versions[{index}].name"),
                format!("is {:?}, the name of versions[{first}] too", version.name),
                "give each version its own name",
            );
        }
    }
    versions.sort_by_key(|(_, version)| (version.from_minute, version.to_minute));
    let mut last: Option<(usize, i64)> = None;
    for (index, version) in versions.iter() {
        match last {
            Some((other, to_minute)) if version.from_minute < to_minute => errors.add(
                format!("versions[{index}].from"),
                format!("lies within versions[{other}] ({:?})", config.versions[other].name),
                format!("end that version first: versions[{other}].to: {}", version.from().rfc3339()),
            ),
            _ => {}
        }
        if last.is_none_or(|(_, to_minute)| version.to_minute > to_minute) {
            last = Some((*index, version.to_minute));
        }
    }
}

fn digest(text: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        write!(hex, "{byte:02x}").expect("a String takes every write");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(sku: &str, meter: &str, model: Option<&str>, price: &str) -> PriceConfig {
        PriceConfig {
            sku: sku.into(),
            meter: meter.into(),
            model: model.map(str::to_string),
            price: Some(price.into()),
            per: 1_000_000,
            unit: "Tokens".into(),
            ..PriceConfig::default()
        }
    }

    fn version(name: &str, from: &str, to: Option<&str>, prices: Vec<PriceConfig>) -> VersionConfig {
        VersionConfig { name: name.into(), from: from.into(), to: to.map(str::to_string), prices }
    }

    /// The paths of all mistakes.
    #[track_caller]
    fn check(versions: Vec<VersionConfig>, want: &[&str]) {
        let config = CardConfig { currency: "USD".into(), versions, ..CardConfig::default() };
        let got = match Card::compile(&config, b"text") {
            Ok(_) => vec![],
            Err(errors) => errors.into_iter().map(|e| e.path).collect(),
        };
        assert_eq!(got, want);
    }

    const JULY: &str = "2026-07-01T00:00:00Z";

    #[test]
    fn overlapping_versions_are_refused_and_touching_ones_are_not() {
        let a = || vec![price("a", "m", None, "1")];
        check(vec![version("x", JULY, Some("2026-08-01T00:00:00Z"), a()), version("y", "2026-08-01T00:00:00Z", None, a())], &[]);
        check(vec![version("y", "2026-08-01T00:00:00Z", None, a()), version("x", JULY, Some("2026-08-01T00:00:00Z"), a())], &[]);
        check(
            vec![version("x", JULY, Some("2026-08-01T00:01:00Z"), a()), version("y", "2026-08-01T00:00:00Z", None, a())],
            &["versions[1].from"],
        );
        check(vec![version("x", JULY, None, a()), version("y", "2026-08-01T00:00:00Z", None, a())], &["versions[1].from"]);
        // One version inside another, and a third that touches only the inner one.
        check(
            vec![
                version("x", JULY, Some("2026-12-01T00:00:00Z"), a()),
                version("y", "2026-08-01T00:00:00Z", Some("2026-09-01T00:00:00Z"), a()),
                version("z", "2026-09-01T00:00:00Z", None, a()),
            ],
            &["versions[1].from", "versions[2].from"],
        );
    }

    #[test]
    fn prices_with_thirteen_digits_are_refused() {
        check(vec![version("x", JULY, None, vec![price("a", "m", None, "0.0000000000001")])], &["versions[0].prices[0].price"]);
        check(vec![version("x", JULY, None, vec![price("a", "m", None, "0.000000000001")])], &[]);
        for bad in ["1e-3", "-1", "", "free"] {
            check(vec![version("x", JULY, None, vec![price("a", "m", None, bad)])], &["versions[0].prices[0].price"]);
        }
    }

    #[test]
    fn equally_specific_prices_for_the_same_usage_are_refused() {
        let with = |sku: &str, dims: &[(&str, &str)]| PriceConfig {
            matches: dims.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..price(sku, "m", None, "1")
        };
        let one = |prices| vec![version("x", JULY, None, prices)];
        check(one(vec![with("a", &[]), with("b", &[])]), &["versions[0].prices[1]"]);
        check(one(vec![with("a", &[("model", "x")]), with("b", &[("service", "s")])]), &["versions[0].prices[1]"]);
        check(one(vec![with("a", &[("model", "x")]), with("b", &[("model", "y")]), with("c", &[])]), &[]);
        check(one(vec![with("a", &[("model", "x")]), price("b", "m", Some("x"), "2")]), &["versions[0].prices[1]"]);
        check(one(vec![with("a", &[("model", "x")]), price("a", "other", None, "2")]), &["versions[0].prices[1].sku"]);
        check(one(vec![PriceConfig { model: Some("x".into()), ..with("a", &[("model", "x")]) }]), &["versions[0].prices[0].model"]);
    }

    #[test]
    fn every_mistake_is_listed_at_once() {
        let bad = PriceConfig {
            sku: "".into(),
            per: 0,
            unit: "".into(),
            minus: price::Parts(vec!["m".into()]),
            ..price("a", "m", None, "0.5.0")
        };
        let config = CardConfig {
            currency: "usd".into(),
            versions: vec![
                version("x", "2026-07-01 00:00", Some("2026-02-30T00:00:00Z"), vec![bad]),
                version("x", JULY, Some(JULY), vec![]),
            ],
            ..CardConfig::default()
        };
        let paths: Vec<_> = Card::compile(&config, b"").unwrap_err().into_iter().map(|e| e.path).collect();
        let zero = "versions[0].prices[0]";
        let want = [
            "currency".to_string(),
            "versions[0].from".into(),
            "versions[0].to".into(),
            format!("{zero}.sku"),
            format!("{zero}.unit"),
            format!("{zero}.minus"),
            format!("{zero}.price"),
            format!("{zero}.per"),
            "versions[1].prices".into(),
            "versions[1].to".into(),
            "versions[1].name".into(),
        ];
        assert_eq!(paths, want);
    }

    #[test]
    fn times_are_whole_minutes_in_utc() {
        assert_eq!(parse_minute("1970-01-01T00:01:00Z"), Ok(1));
        assert_eq!(parse_minute("2026-11-23T03:00:00Z"), Ok(1_795_402_800 / 60));
        for bad in [
            "2026-07-01T00:00:01Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-07-01T24:00:00Z",
            "2026-07-01T00:00:00+00",
            "1969-12-31T00:00:00Z",
            "9999-01-01T00:00:00Z",
            "",
        ] {
            assert!(parse_minute(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_digest_is_sha_256_of_the_text() {
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
