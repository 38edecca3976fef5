//! A rate card as a table of integers, for the meters of one plan: what quotas in money count by.
//!
//! In: the card, whose prices name meters and dimensions, and the meters. Out: the same prices by number of meter and dimension.
//! Meters of what is held for a time, or of a level, cost nothing here. What rating finds per minute is here decided per record; the test holds both against each other. No bound of its own: as
//! many prices as the card has, for each meter those that can fit.

use flow::event::EventKind;
use flow::meter::{Group, Meter, Meters};
use flow::prices::{Match, MeterPrices, Price, PriceList, Prices, Whole};
use std::collections::BTreeSet;

/// The rate card as a table of integers, for the meters of this plan.
pub fn compile(card: &bill::Card, meters: &Meters) -> Prices {
    let all: Vec<(&Group, &Meter)> = meters.groups.iter().flat_map(|group| group.meters.iter().map(move |meter| (group, meter))).collect();
    let lists = card.versions.iter().map(|version| PriceList {
        from_minute: version.from_minute,
        to_minute: version.to_minute,
        meters: all.iter().map(|(group, meter)| compile_meter_prices(version, &all, group, meter)).collect(),
    });
    Prices { lists: lists.collect() }
}

fn compile_meter_prices(version: &bill::card::Version, all: &[(&Group, &Meter)], group: &Group, meter: &Meter) -> MeterPrices {
    // What is held, or a level, costs what it does only when its end is known.
    let lasts = group.events.as_ref().is_some_and(|events| events.kind != EventKind::Point);
    if meter.lineage || lasts {
        return MeterPrices::default();
    }
    // Usage of two meters is told apart alike if their dimensions have the same names.
    let names = |group: &Group| group.dims.iter().map(|dim| dim.0.clone()).collect::<BTreeSet<_>>();
    let partner = |name: &str| all.iter().position(|(other, of)| !of.lineage && of.name == name && names(other) == names(group));
    // `None`: it names a dimension that this meter does not have.
    let matches = |price: &bill::card::Price| -> Option<Vec<Match>> {
        let dim = |(name, value): &(String, Vec<u8>)| Some((group.dims.iter().position(|dim| dim.0 == *name)?, value.clone()));
        price.matches.iter().map(dim).collect()
    };
    let mut of = MeterPrices::default();
    for price in version.prices.get(&meter.name).into_iter().flatten() {
        let Some(matches) = matches(price) else { continue };
        let minus: Vec<usize> = price.minus.iter().filter_map(|name| partner(name)).collect();
        // A quota counts the card's currency at the first tier; what is priced in another one, or another unit, costs it nothing.
        let is_own = price.unit == meter.unit && price.currency.is_none();
        let is_priced = is_own && minus.iter().all(|part| all[*part].1.unit == meter.unit);
        of.prices.push(Price { matches, units: if is_priced { price.price.0 } else { 0 }, per: price.per, minus });
    }
    for (name, prices) in &version.prices {
        let parts = |price: &bill::card::Price| match price.minus.contains(&meter.name) {
            true => price.minus.iter().filter_map(|name| partner(name)).collect(),
            false => Vec::new(),
        };
        let prices: Vec<_> = prices.iter().filter_map(|price| Some((matches(price)?, parts(price)))).collect();
        if prices.iter().any(|price| !price.1.is_empty()) {
            of.wholes.push(Whole { meter: partner(name).filter(|whole| all[*whole].1.unit == meter.unit), prices });
        }
    }
    of
}

#[cfg(test)]
mod tests;
