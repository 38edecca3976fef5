//! From a charge back to the facts, the card's line and the log records behind it.
//!
//! In: a charge, the card it names, and facts to look among (read twice: first for what fits, then for copies of it). Out: an
//! `Explanation`, whose parts add up to the charge's quantity exactly, or which says by how much they do not (facts are missing,
//! or the charge is a delta and all facts were given instead of the late ones). What counts, by kind of fact:
//! - a sum or a point: tenant, dimensions, meter and unit are the charge's, and its minute is in the charge's time under its
//!   price version; all of it counts;
//! - an interval: the same, and its milliseconds in that time count, times its quantity;
//! - a sample: its level holds until the next one of its series, at most `sample_gap`; milliseconds of that time count;
//! - of events with one key the first received one counts (rule R7); of a minute with more of a part than of its whole
//!   nothing does (rule R10); what `minus` names is taken off, line by line.
//!
//! A tier or a commitment is a slice of the month's usage in the order of time (rules R14, R15): all that lies before it is
//! listed too, and what lies on its bound is cut. Bound: memory is linear in the facts that fit.

use crate::book::Month;
use crate::card::{Card, Price, Version};
use crate::charge::{Allocation, Charge, Commitment, Series};
use crate::money::{Money, gcd, multiply_divide};
use crate::report::show;
use crate::unit::{Unit, over_time};
use flow::event::{EventKind, UsageFact};
use flow::units::{NANOS_PER_MINUTE, Span, UnixNanos};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

const NANOS_PER_MS: i64 = 1_000_000;
const ONE: u128 = 1_000_000_000_000;

/// What a charge is explained by, besides its facts.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub card: &'a Card,
    /// Instants [from, to) of the charge, if its terms held for less than its hour and version (a discount, a day rate).
    pub window: Option<(UnixNanos, UnixNanos)>,
    /// Of a tier or a commitment: units [from, to) of the month's usage of the tenant and SKU, in the charge's series unit. `None`:
    /// as the card says, which it can where at most one commitment covers the SKU, and covers nothing else.
    pub slice: Option<(u128, u128)>,
}

impl<'a> Rules<'a> {
    pub fn new(card: &'a Card) -> Rules<'a> {
        Rules { card, window: None, slice: None }
    }
}

/// Why a charge says what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub series: String,
    /// Charge period in UTC.
    pub from: String,
    pub to: String,
    pub card: CardLine,
    pub parts: Vec<Section>,
    /// Facts before a slice, in the order in which they were counted; `part` is what of them counted.
    pub before: Vec<Line>,
    /// Each step as text; exact until the one rounding.
    pub arithmetic: Vec<String>,
    pub allocation: Option<Share>,
    #[serde(serialize_with = "text")]
    pub billable: i128,
    pub billed: Money,
    /// All parts add up to what the charge says.
    pub is_exact: bool,
}

/// The line of the card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CardLine {
    pub sku: String,
    pub version: String,
    /// SHA-256 of the card.
    pub digest: String,
    /// The card given is the one that the charge names.
    pub is_this_card: bool,
    /// When the version is valid; empty: the card given has no such version.
    pub valid_from: String,
    pub valid_to: String,
    pub price: Money,
    pub contracted_price: Money,
    pub per: u64,
    pub unit: String,
    pub tier: u32,
    /// `used`, `unused` or `fee`, and its name.
    pub commitment: Option<String>,
    /// As in `1 EUR = 1.080000000000 USD`.
    pub exchange: Option<String>,
}

/// Facts that add up to something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    pub of: String,
    pub lines: Vec<Line>,
    #[serde(serialize_with = "text")]
    pub sum: i128,
    /// What they should add up to; `None`: nobody says.
    #[serde(serialize_with = "text_or_null")]
    pub want: Option<i128>,
}

/// One fact, or what is taken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// `sum`, `point`, `interval`, `sample`; `minus`: a fact of the part that is priced by itself; `cut`: what of its minute
    /// lies outside of the slice.
    pub kind: &'static str,
    pub meter: String,
    pub at: String,
    pub end: String,
    /// As metered.
    #[serde(serialize_with = "text")]
    pub quantity: i128,
    /// What of it counts, in the series' unit.
    #[serde(serialize_with = "text")]
    pub part: i128,
    pub events: u64,
    /// Key of the event; empty: it has none.
    pub key: String,
    /// Stream as 16 hex digits; its records are in (from, to]. An event's record was complete at `position`.
    pub stream: String,
    pub from: u64,
    pub to: u64,
    pub position: Option<u64>,
    pub received: String,
}

/// How an origin was divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    pub method: String,
    pub origin: String,
    #[serde(serialize_with = "text")]
    pub weight: u128,
    #[serde(serialize_with = "text")]
    pub weights: u128,
    pub unit: String,
    /// In lowest terms.
    pub ratio: String,
    pub is_idle: bool,
}

fn text<T: ToString, S: Serializer>(number: &T, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&number.to_string())
}

fn text_or_null<T: ToString, S: Serializer>(number: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
    number.as_ref().map(T::to_string).serialize(s)
}

/// Explains one charge by the facts among `facts` that are behind it.
pub fn explain<'a>(charge: &Charge, facts: impl IntoIterator<Item = &'a UsageFact> + Clone, rules: &Rules) -> Explanation {
    let version = rules.card.versions.iter().find(|version| version.name == charge.version);
    let mut before = Vec::new();
    let slice = rules.slice.or_else(|| slice_of(charge, rules.card));
    let parts = match (&charge.allocation, slice) {
        // Nothing was used for a fee, or of an unused rest.
        _ if matches!(charge.commitment, Some(Commitment::Fee(_) | Commitment::Unused(_))) => vec![],
        (Some(allocation), _) => shared(charge, allocation, facts, rules),
        (None, Some(slice)) => {
            let (lines, earlier) = sliced(charge, slice, facts, rules);
            before = earlier;
            vec![section(charge.series.to_string(), lines, Some(charge.billable))]
        }
        (None, None) => {
            let lines = whole(&charge.series, charge, version, facts, rules);
            vec![section(charge.series.to_string(), lines, Some(charge.billable))]
        }
    };
    let stands_for_usage = !matches!(charge.commitment, Some(Commitment::Fee(_) | Commitment::Unused(_)));
    let is_exact = parts.iter().all(|part| part.want.is_none_or(|want| want == part.sum)) && parts.is_empty() != stands_for_usage;
    Explanation {
        series: charge.series.to_string(),
        from: charge.hour.rfc3339(),
        to: charge.end.rfc3339(),
        card: card_line(charge, version, rules.card),
        parts,
        before,
        arithmetic: arithmetic(charge, &rules.card.currency),
        allocation: charge.allocation.as_ref().map(|part| {
            let common = gcd(part.weight, part.weights);
            Share {
                method: part.method.to_string(),
                origin: part.origin.to_string(),
                weight: part.weight,
                weights: part.weights,
                unit: part.unit.to_string(),
                ratio: format!("{}/{}", part.weight / common, part.weights / common),
                is_idle: part.is_idle,
            }
        }),
        billable: charge.billable,
        billed: charge.billed,
        is_exact,
    }
}

/// Which units of the month's usage a charge is for, in its series' unit, if the card says so.
fn slice_of(charge: &Charge, card: &Card) -> Option<(u128, u128)> {
    let size = Unit::parse(&charge.series.unit).size;
    let covers = |contract: &&crate::card::Contract| contract.tenant == charge.series.tenant && contract.skus.contains(&charge.sku);
    let covering: Vec<_> = card.commitments.iter().filter(covers).collect();
    let bound = match covering[..] {
        [] => 0,
        [only] if only.skus.len() == 1 => only.quantity / size,
        _ => return None,
    };
    if let Some(Commitment::Used(_)) = charge.commitment {
        return Some((0, bound));
    }
    let version = card.versions.iter().find(|version| version.name == charge.version)?;
    let price = version.price(&charge.series.meter, &charge.series.dims)?;
    let up_to = |tier: u32| price.tiers.get(tier.checked_sub(1)? as usize).map(|tier| tier.up_to / size);
    match charge.tier {
        0 if bound == 0 => None,
        0 => Some((bound, u128::MAX)),
        tier => Some((up_to(tier - 1).unwrap_or(0).max(bound), up_to(tier)?)),
    }
}

/// Of a part of a shared cost: what was divided, and whose weights gave it its share.
fn shared<'a>(
    charge: &Charge,
    allocation: &Allocation,
    facts: impl IntoIterator<Item = &'a UsageFact> + Clone,
    rules: &Rules,
) -> Vec<Section> {
    let Some(share) = rules.card.shares.iter().find(|share| share.name == allocation.method) else { return vec![] };
    let all = series_of(facts.clone());
    let is_origin = |series: &&Series| series.meter == share.origin && allocation.origin.starts_with(&format!("{series}, "));
    let Some(origin) = all.iter().find(is_origin) else { return vec![] };
    let lines = |series: &Series| whole(series, charge, None, facts.clone(), rules);
    let mut sections = vec![section(origin.to_string(), lines(origin), None)];
    let is_kept = |series: &Series, name: &String| series.dim(name) == charge.series.dim(name);
    let weighs = |series: &&Series| {
        let is_joined = share.join.iter().all(|name| series.dim(name) == origin.dim(name));
        series.meter == share.by
            && series.tenant == charge.series.tenant
            && is_joined
            && share.keep.iter().all(|name| is_kept(series, name))
    };
    let weights: Vec<&Series> = all.iter().filter(weighs).collect();
    if let (false, Some(first)) = (allocation.is_idle, weights.first()) {
        // Weights are compared in the smallest unit of what they measure.
        let size = Unit::parse(&first.unit).size.max(1);
        let want = i128::try_from(allocation.weight / size).ok();
        sections.push(section(format!("weights: {first}"), weights.iter().flat_map(|series| lines(series)).collect(), want));
    }
    sections
}

fn section(of: String, lines: Vec<Line>, want: Option<i128>) -> Section {
    let sum = lines.iter().fold(0, |sum, line| i128::saturating_add(sum, line.part));
    Section { of, lines, sum, want }
}

fn card_line(charge: &Charge, version: Option<&Version>, card: &Card) -> CardLine {
    let time = |minute: i64| if minute == i64::MAX { String::new() } else { start_of(minute).rfc3339() };
    CardLine {
        sku: charge.sku.clone(),
        version: charge.version.clone(),
        digest: charge.card.to_string(),
        is_this_card: *charge.card == *card.digest,
        valid_from: version.map_or(String::new(), |version| time(version.from_minute)),
        valid_to: version.map_or(String::new(), |version| time(version.to_minute)),
        price: charge.price,
        contracted_price: charge.contracted_price,
        per: charge.per,
        unit: charge.unit.to_string(),
        tier: charge.tier,
        commitment: charge.commitment.as_ref().map(|commitment| match commitment {
            Commitment::Used(name) => format!("used {name}"),
            Commitment::Unused(name) => format!("unused {name}"),
            Commitment::Fee(name) => format!("fee {name}"),
        }),
        exchange: charge.exchange.as_ref().map(|exchange| format!("1 {} = {} {}", exchange.currency, exchange.rate, card.currency)),
    }
}

/// Facts of one meter whose tenant and dimensions are a series', in one unit.
struct Chosen<'a> {
    facts: Vec<&'a UsageFact>,
}

/// What of a fact counts in a stretch of time.
struct Piece<'a> {
    fact: &'a UsageFact,
    /// Where it stands in time, for the order of slices.
    at: i64,
    minute: i64,
    part: i128,
}

impl<'a> Chosen<'a> {
    /// Those of the series that may reach into `window`, without copies (rule R7).
    fn of(series: &Series, window: &Range<i64>, facts: impl IntoIterator<Item = &'a UsageFact> + Clone, rules: &Rules) -> Chosen<'a> {
        let gap = rules.card.sample_gap.0;
        let reach = window.start.saturating_sub(gap)..window.end.saturating_add(gap);
        let fits = |fact: &&UsageFact| {
            let (from, to) = times(fact);
            let is_near = from < reach.end && (to > reach.start || from >= reach.start);
            is_near && !is_refused(fact) && is_of(fact, series)
        };
        let mut chosen: Vec<&UsageFact> = facts.clone().into_iter().filter(fits).collect();
        let keys: BTreeSet<&[u8]> = chosen.iter().map(|fact| key_of(fact)).filter(|key| !key.is_empty()).collect();
        if !keys.is_empty() {
            let is_rival = |fact: &&UsageFact| fact.meter == series.meter && !is_refused(fact) && keys.contains(key_of(fact));
            let copies = copies(facts.into_iter().filter(is_rival).collect(), rules.card.dedup_window);
            chosen.retain(|fact| !copies.contains(&std::ptr::from_ref(*fact)));
        }
        chosen.sort_by_key(|fact| (times(fact).0, key_of(fact), fact.received, fact.stream, fact.to));
        Chosen { facts: chosen }
    }

    fn pieces(&self, window: &Range<i64>, rules: &Rules) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        for (index, fact) in self.facts.iter().enumerate() {
            let (from, to) = times(fact);
            match fact.event.as_ref().map(|event| event.kind) {
                Some(EventKind::Interval) => held(fact, from..to, window, &mut pieces),
                Some(EventKind::Sample) => {
                    // Of two samples at one time the last received one counts: the others hold for no time at all.
                    let next = self.facts[index + 1..].iter().find(|other| is_sample(other)).map(|other| times(other).0);
                    let end = next.map_or(from, |next| next.min(from.saturating_add(rules.card.sample_gap.0)));
                    held(fact, from..end, window, &mut pieces);
                }
                _ => {
                    let start = start_of(fact.minute).0;
                    if window.contains(&start) {
                        pieces.push(Piece { fact, at: from, minute: fact.minute, part: fact.quantity });
                    }
                }
            }
        }
        pieces
    }
}

/// A level or a hold, minute by minute: `minus` and prices know minutes.
fn held<'a>(fact: &'a UsageFact, time: Range<i64>, window: &Range<i64>, pieces: &mut Vec<Piece<'a>>) {
    let ms = |nanos: i64| nanos.div_euclid(NANOS_PER_MS);
    let (mut from, to) = (ms(time.start.max(window.start)), ms(time.end.min(window.end)));
    while from < to {
        let minute = from.div_euclid(60_000);
        let end = to.min((minute + 1) * 60_000);
        pieces.push(Piece { fact, at: time.start, minute, part: fact.quantity.saturating_mul(i128::from(end - from)) });
        from = end;
    }
}

fn times(fact: &UsageFact) -> (i64, i64) {
    match &fact.event {
        Some(event) => (event.at.0, event.end.0),
        None => (start_of(fact.minute).0, start_of(fact.minute.saturating_add(1)).0),
    }
}

fn start_of(minute: i64) -> UnixNanos {
    UnixNanos(minute.saturating_mul(NANOS_PER_MINUTE))
}

fn key_of(fact: &UsageFact) -> &[u8] {
    fact.event.as_ref().map_or(&[], |event| &event.key)
}

fn position_of(fact: &UsageFact) -> u64 {
    fact.event.as_ref().map_or(fact.to, |event| event.position)
}

fn is_refused(fact: &UsageFact) -> bool {
    fact.event.as_ref().is_some_and(|event| event.kind.is_refused())
}

fn is_sample(fact: &UsageFact) -> bool {
    fact.event.as_ref().is_some_and(|event| event.kind == EventKind::Sample)
}

fn is_of(fact: &UsageFact, series: &Series) -> bool {
    fact.tenant == series.tenant && fact.meter == series.meter && has_dims(fact, &series.dims) && unit_of(fact) == series.unit
}

fn has_dims(fact: &UsageFact, dims: &[(String, Vec<u8>)]) -> bool {
    fact.dims.len() == dims.len() && fact.dims.iter().all(|dim| dims.contains(dim))
}

/// The unit of what is priced: over time it is `<unit>-ms`.
fn unit_of(fact: &UsageFact) -> String {
    match fact.event.as_ref().map(|event| event.kind) {
        Some(EventKind::Interval | EventKind::Sample) => over_time(&fact.unit).into_owned(),
        _ => fact.unit.clone(),
    }
}

/// Events whose key was received before within the window: copies and conflicts.
fn copies(mut rivals: Vec<&UsageFact>, window: Span) -> BTreeSet<*const UsageFact> {
    rivals.sort_by_key(|fact| (key_of(fact), fact.received, fact.stream, position_of(fact)));
    let mut copies = BTreeSet::new();
    let mut first: Option<&UsageFact> = None;
    for fact in rivals {
        let age = |first: &UsageFact| i128::from(fact.received.0) - i128::from(first.received.0);
        if first.is_some_and(|first| key_of(first) == key_of(fact) && age(first) <= i128::from(window.0)) {
            copies.insert(std::ptr::from_ref(fact));
        } else {
            first = Some(fact);
        }
    }
    copies
}

/// The time of a charge under its version.
fn window_of(charge: &Charge, version: Option<&Version>, rules: &Rules) -> Range<i64> {
    let version = version.map_or((i64::MIN, i64::MAX), |version| (start_of(version.from_minute).0, start_of(version.to_minute).0));
    let (from, to) = rules.window.map_or((i64::MIN, i64::MAX), |(from, to)| (from.0, to.0));
    charge.hour.0.max(version.0).max(from)..charge.end.0.min(version.1).min(to)
}

/// All of a series in the charge's time, less what `minus` names. `version`: `None` takes nothing off.
fn whole<'a>(
    series: &Series,
    charge: &Charge,
    version: Option<&Version>,
    facts: impl IntoIterator<Item = &'a UsageFact> + Clone,
    rules: &Rules,
) -> Vec<Line> {
    let window = window_of(charge, version, rules);
    net_minutes(series, version, &window, facts, rules).into_iter().flat_map(|minute| minute.lines).collect()
}

/// Pieces that count together.
struct Net {
    at: i64,
    key: Vec<u8>,
    sum: i128,
    lines: Vec<Line>,
}

/// What counts of a series: by fact, or where a part is taken off, by minute.
fn net_minutes<'a>(
    series: &Series,
    version: Option<&Version>,
    window: &Range<i64>,
    facts: impl IntoIterator<Item = &'a UsageFact> + Clone,
    rules: &Rules,
) -> Vec<Net> {
    let pieces_of = |meter: &str| {
        let of = Series { meter: meter.to_string(), ..series.clone() };
        Chosen::of(&of, window, facts.clone(), rules).pieces(window, rules)
    };
    let own = pieces_of(&series.meter);
    let price = version.and_then(|version| version.price(&series.meter, &series.dims));
    let minus = price.map_or(&[][..], |price| &price.minus);
    let parts: Vec<Piece> = minus.iter().flat_map(|meter| pieces_of(meter)).collect();
    let mut refused: BTreeSet<i64> = BTreeSet::new();
    let sums = by_minute(&own);
    if !minus.is_empty() {
        refused.extend(
            by_minute(&parts).into_iter().filter(|(minute, part)| *part > sums.get(minute).copied().unwrap_or(0)).map(|(minute, _)| minute),
        );
    }
    for whole in version.map_or(vec![], |version| wholes(version, series)) {
        let of = by_minute(&pieces_of(&whole.meter));
        let parts = by_minute(&whole.minus.iter().flat_map(|meter| pieces_of(meter)).collect::<Vec<_>>());
        refused.extend(parts.iter().filter(|(minute, part)| **part > of.get(*minute).copied().unwrap_or(0)).map(|(minute, _)| *minute));
    }
    let mut nets: BTreeMap<(i64, Vec<u8>, *const UsageFact), Net> = BTreeMap::new();
    let signed = own.iter().map(|piece| (piece, 1)).chain(parts.iter().map(|piece| (piece, -1)));
    for (piece, sign) in signed.filter(|(piece, _)| !refused.contains(&piece.minute)) {
        let (at, key, fact) = match minus {
            [_, ..] => (start_of(piece.minute).0, vec![], std::ptr::null()),
            [] => (piece.at, key_of(piece.fact).to_vec(), std::ptr::from_ref(piece.fact)),
        };
        let part = piece.part.saturating_mul(sign);
        let net = nets.entry((at, key.clone(), fact)).or_insert_with(|| Net { at, key, sum: 0, lines: vec![] });
        net.sum = net.sum.saturating_add(part);
        add_line(&mut net.lines, piece.fact, part, sign < 0);
    }
    nets.into_values().collect()
}

/// Minutes of one fact are one line.
fn add_line(lines: &mut Vec<Line>, fact: &UsageFact, part: i128, is_minus: bool) {
    let line = line_of(fact, part, is_minus);
    match lines.last_mut().filter(|last| Line { part, ..(**last).clone() } == line) {
        Some(last) if fact.event.as_ref().is_some_and(|e| matches!(e.kind, EventKind::Interval | EventKind::Sample)) => {
            last.part = last.part.saturating_add(part);
        }
        _ => lines.push(line),
    }
}

fn by_minute(pieces: &[Piece]) -> BTreeMap<i64, i128> {
    let mut sums = BTreeMap::new();
    for piece in pieces {
        let sum: &mut i128 = sums.entry(piece.minute).or_default();
        *sum = sum.saturating_add(piece.part);
    }
    sums
}

/// Prices of the meters of which this series is a part.
fn wholes<'a>(version: &'a Version, series: &Series) -> Vec<&'a Price> {
    let best = version.prices.keys().filter_map(|meter| version.price(meter, &series.dims));
    best.filter(|price| price.minus.contains(&series.meter)).collect()
}

fn line_of(fact: &UsageFact, part: i128, is_minus: bool) -> Line {
    let (from, to) = times(fact);
    let kind = fact.event.as_ref().map_or("sum", |event| event.kind.name());
    Line {
        kind: if is_minus { "minus" } else { kind },
        meter: fact.meter.clone(),
        at: UnixNanos(from).rfc3339(),
        end: UnixNanos(to).rfc3339(),
        quantity: fact.quantity,
        part,
        events: fact.events,
        key: show(key_of(fact)),
        stream: format!("{:016x}", fact.stream.0),
        from: fact.from,
        to: fact.to,
        position: fact.event.as_ref().map(|event| event.position),
        received: fact.received.rfc3339(),
    }
}

/// The part of the month's usage of a tenant and SKU that lies in a slice and is the charge's, and all before it.
fn sliced<'a>(
    charge: &Charge,
    slice: (u128, u128),
    facts: impl IntoIterator<Item = &'a UsageFact> + Clone,
    rules: &Rules,
) -> (Vec<Line>, Vec<Line>) {
    let mut nets: Vec<(Arc<Series>, Net)> = Vec::new();
    let month = Month::of(charge.hour);
    let month = month.start().0..month.end().0;
    for (series, version) in series_of_sku(charge, &month, facts.clone(), rules) {
        let valid = start_of(version.from_minute).0.max(month.start)..start_of(version.to_minute).0.min(charge.end.0);
        nets.extend(net_minutes(&series, Some(version), &valid, facts.clone(), rules).into_iter().map(|net| (series.clone(), net)));
    }
    nets.sort_by(|(series_a, a), (series_b, b)| (a.at, &a.key, series_a).cmp(&(b.at, &b.key, series_b)));
    let window = window_of(charge, rules.card.versions.iter().find(|version| version.name == charge.version), rules);
    let (mut lines, mut before) = (Vec::new(), Vec::new());
    let mut used = 0u128;
    for (series, net) in nets {
        let size = u128::try_from(net.sum).unwrap_or(0);
        let end = used.saturating_add(size);
        let inside = end.min(slice.1).saturating_sub(used.max(slice.0));
        let is_ours = *series == *charge.series && window.contains(&net.at);
        if is_ours && inside > 0 {
            lines.extend(cut(net, size, inside));
        } else if used < slice.1 {
            before.extend(net.lines);
        }
        used = end;
    }
    (lines, before)
}

/// Lines of which only `inside` of `size` units count.
fn cut(mut net: Net, size: u128, inside: u128) -> Vec<Line> {
    let outside = i128::try_from(size - inside).unwrap_or(i128::MAX);
    match &mut net.lines[..] {
        _ if outside == 0 => {}
        [only] => only.part -= outside,
        [first, ..] => {
            let line = Line { kind: "cut", part: -outside, quantity: -outside, events: 0, key: String::new(), ..first.clone() };
            net.lines.push(line);
        }
        [] => {}
    }
    net.lines
}

/// Every series of these facts.
fn series_of<'a>(facts: impl IntoIterator<Item = &'a UsageFact>) -> BTreeSet<Series> {
    let series = |fact: &UsageFact| {
        let mut dims = fact.dims.clone();
        dims.sort();
        Series { tenant: fact.tenant.clone(), dims, meter: fact.meter.clone(), unit: unit_of(fact) }
    };
    facts.into_iter().filter(|fact| !is_refused(fact)).map(series).collect()
}

/// Series of the charge's tenant that are priced by its SKU, under each version.
fn series_of_sku<'a, 'b>(
    charge: &Charge,
    month: &Range<i64>,
    facts: impl IntoIterator<Item = &'a UsageFact>,
    rules: &Rules<'b>,
) -> Vec<(Arc<Series>, &'b Version)> {
    let is_of_month = |fact: &&UsageFact| {
        let (from, to) = times(fact);
        fact.tenant == charge.series.tenant && from < month.end && to >= month.start
    };
    let all = series_of(facts.into_iter().filter(is_of_month));
    let mut found = Vec::new();
    for series in all.into_iter().map(Arc::new) {
        let fits = |version: &&Version| version.price(&series.meter, &series.dims).is_some_and(|price| price.sku == charge.sku);
        found.extend(rules.card.versions.iter().filter(fits).map(|version| (series.clone(), version)));
    }
    found
}

/// A fraction in lowest terms; `None` if it needs more than 128 bits.
fn fraction(factors: &[u128], divisors: &[u128]) -> Option<(u128, u128)> {
    let (mut above, mut below) = (factors.to_vec(), divisors.to_vec());
    for a in &mut above {
        for b in &mut below {
            let common = gcd(*a, *b);
            (*a, *b) = (*a / common, *b / common);
        }
    }
    let product = |list: Vec<u128>| list.into_iter().try_fold(1u128, u128::checked_mul);
    product(above).zip(product(below)).filter(|(_, below)| *below > 0)
}

/// Quantity x price / block, exact, then rounded; and what became of it.
fn arithmetic(charge: &Charge, currency: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let scale = if charge.scale == (1, 1) { String::new() } else { format!(" x {}/{}", charge.scale.0, charge.scale.1) };
    let exchange = charge.exchange.as_ref().map_or(String::new(), |exchange| format!(" x {}", exchange.rate));
    let mut priced = |name: &str, price: Money, amount: Money| {
        let mut factors = vec![charge.billable.unsigned_abs(), charge.scale.0, price.0.unsigned_abs()];
        let mut divisors = vec![charge.scale.1, u128::from(charge.per), ONE];
        if let Some(exchange) = &charge.exchange {
            factors.push(exchange.rate.0.unsigned_abs());
            divisors.push(ONE);
        }
        let unit = &charge.series.unit;
        let mut step = format!("{name}: {} {unit}{scale} x {price} / {}{exchange}", charge.billable, charge.per);
        let sign = if (charge.billable < 0) != (price.0 < 0) { "-" } else { "" };
        match fraction(&factors, &divisors) {
            Some((above, below)) => {
                let _ = write!(step, " = {sign}{above}/{below}"); // a String takes all
                let rounded = round(above, below);
                let _ = match rounded {
                    Some(rounded) if rounded == amount.0.unsigned_abs() => write!(step, ", rounded half to even: {amount}"),
                    _ => write!(step, "; {amount}, as it was rounded together with other parts of its origin (rule R6)"),
                };
            }
            None => {
                let _ = write!(step, ", exact beyond 128 bits, rounded half to even: {amount}");
            }
        }
        steps.push(step);
    };
    priced("list", charge.price, charge.list);
    if (charge.contracted_price, charge.contracted) != (charge.price, charge.list) {
        priced("contracted", charge.contracted_price, charge.contracted);
    }
    if charge.effective != charge.contracted {
        steps.push(format!("effective: {}", charge.effective));
    }
    let why = match &charge.commitment {
        Some(Commitment::Used(name)) => format!(", as commitment {name} covers it"),
        Some(Commitment::Unused(name)) => format!(", the rest of commitment {name}, which was paid in advance"),
        Some(Commitment::Fee(name)) => format!(", the fee of commitment {name}"),
        None => String::new(),
    };
    steps.push(format!("billed: {} {currency}{why}", charge.billed));
    steps
}

fn round(above: u128, below: u128) -> Option<u128> {
    let (units, rest) = multiply_divide(above, ONE, below)?;
    let up = match rest.cmp(&(below - rest)) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => units & 1,
    };
    units.checked_add(up)
}

impl Explanation {
    /// For a terminal, a line each.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n{} to {}: {}\n", plain(&self.series), self.from, self.to, self.billed);
        let card = &self.card;
        let until = if card.valid_to.is_empty() { "further notice" } else { &card.valid_to };
        let other = if card.is_this_card { "" } else { " (not the card given)" };
        let mut put = |line: String| {
            out.push_str(&line);
            out.push('\n');
        };
        put(format!("price {} of version {}, valid {} to {until}, card {}{other}", card.sku, card.version, card.valid_from, card.digest));
        let tier = if card.tier > 0 { format!(", tier {}", card.tier) } else { String::new() };
        put(format!("  {} for each {} {}{tier}, contracted {}", card.price, card.per, card.unit, card.contracted_price));
        card.commitment.iter().for_each(|commitment| put(format!("  commitment: {commitment}")));
        card.exchange.iter().for_each(|exchange| put(format!("  {exchange}")));
        self.arithmetic.iter().for_each(|step| put(format!("  {step}")));
        if let Some(share) = &self.allocation {
            put(format!(
                "share {} ({} of {} {}) by {} of {}",
                share.ratio,
                share.weight,
                share.weights,
                share.unit,
                share.method,
                plain(&share.origin)
            ));
        }
        if !self.before.is_empty() {
            let sum = self.before.iter().fold(0, |sum, line| i128::saturating_add(sum, line.part));
            put(format!("before it in the month: {sum} in {} facts", self.before.len()));
            self.before.iter().for_each(|line| put(line.text()));
        }
        for part in &self.parts {
            put(format!("{} facts of {}:", part.lines.len(), plain(&part.of)));
            part.lines.iter().for_each(|line| put(line.text()));
            match part.want {
                Some(want) if want != part.sum => {
                    put(format!(
                        "  sum {}, but the charge says {want}: {} is not among these facts",
                        part.sum,
                        want.saturating_sub(part.sum)
                    ));
                }
                _ => put(format!("  sum {}", part.sum)),
            }
        }
        out
    }
}

impl Line {
    fn text(&self) -> String {
        let of = if self.part == self.quantity || self.kind == "minus" { String::new() } else { format!(" (of {})", self.quantity) };
        let place = match self.position {
            Some(position) => format!("stream {} at {position}", self.stream),
            None => format!("stream {} ({}, {}]", self.stream, self.from, self.to),
        };
        let key = if self.key.is_empty() { String::new() } else { format!(", key {}", plain(&self.key)) };
        format!("  {:>20}{of}  {} {} {} to {}, {place}{key}", self.part, self.kind, self.meter, self.at, self.end)
    }
}

/// What a terminal would obey is escaped.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests;
