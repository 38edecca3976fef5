//! What records cost by list price: what quotas in money count.
//!
//! In: a rate card, compiled by the plan for its meters, and a batch. Out: one cost per record in 10^-12 of the card's
//! currency: each quantity that a meter finds in it, times the price of its meter and dimensions in the minute of its event
//! time. The rules are those of rating: the price that names the most dimensions counts, a part (`minus`) is taken off its
//! whole, usage in another unit, of a part above its whole or without a price costs nothing. Rating adds minutes up and rounds
//! once a row; here each quantity of a record is rounded, half to even: equal where prices are whole numbers of 10^-12 a unit.
//! A cost beyond 127 bits counts as 2^126. Memory: the card's prices, and 8 bytes per record of a batch and meter.

use crate::batch::Batch;
use crate::event::Outcome;
use crate::fields::Span;
use crate::meter::{Group, Meters};

/// A rate card for the meters of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// In order of time, without overlap.
    pub lists: Vec<PriceList>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceList {
    /// Minutes since the epoch: [from, to).
    pub from_minute: i64,
    pub to_minute: i64,
    /// One for each meter, group by group.
    pub meters: Vec<MeterPrices>,
}

/// What a list says of one meter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeterPrices {
    /// Those that can fit, the most specific first; the first that fits counts.
    pub prices: Vec<Price>,
    /// Meters of which this one may be a part.
    pub wholes: Vec<Whole>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub matches: Vec<Match>,
    /// In 10^-12 of the currency, for a block of `per` units; 0 where usage in this unit is not priced.
    pub units: i128,
    pub per: u64,
    /// The meters whose quantities are taken off first, those of the same dimensions.
    pub minus: Vec<usize>,
}

/// A dimension of the meter, by number, and the value it must have.
pub type Match = (usize, Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// `None`: no meter counts it with the same dimensions and unit, so no part of it can be right.
    pub meter: Option<usize>,
    /// Its prices, the most specific first, and the parts that they take off; empty where this meter is not among them.
    pub prices: Vec<(Vec<Match>, Vec<usize>)>,
}

/// In the table of quantities: the meter found none.
const NONE: i64 = -1;
const COST_MAX: i128 = 1 << 126;

impl Prices {
    /// Writes into `costs` what each record costs; `mask` is scratch space. Records that meters would not count cost nothing.
    pub fn costs(&self, meters: &Meters, batch: &Batch, mask: &mut Vec<bool>, costs: &mut Vec<i128>) {
        costs.clear();
        costs.resize(batch.len(), 0);
        let width: usize = meters.groups.iter().map(|group| group.meters.len()).sum();
        let mut quantities = vec![NONE; batch.len() * width];
        let latest = batch.latest_time();
        let counts = |i: usize| batch.outcome[i] == Outcome::Kept && !batch.unmetered[i] && batch.time[i].0 <= latest;
        let mut first = 0;
        for group in &meters.groups {
            group.select(batch, mask);
            for i in (0..batch.len()).filter(|i| mask[*i] && counts(*i)) {
                let found = group.quantities(batch.record(i), batch.record_spans(i));
                for n in (0..group.meters.len()).filter(|n| found.found >> n & 1 != 0) {
                    quantities[i * width + first + n] = found.values[n];
                }
            }
            first += group.meters.len();
        }
        for (i, cost) in costs.iter_mut().enumerate().filter(|(i, _)| counts(*i)) {
            if let Some(list) = self.list_at(batch.time[i].minute()) {
                *cost = list.cost(meters, batch.record(i), batch.record_spans(i), &quantities[i * width..(i + 1) * width]);
            }
        }
    }

    fn list_at(&self, minute: i64) -> Option<&PriceList> {
        let after = self.lists.partition_point(|list| list.from_minute <= minute);
        let list = &self.lists[after.checked_sub(1)?];
        (minute < list.to_minute).then_some(list)
    }
}

impl PriceList {
    /// `quantities`: of every meter.
    fn cost(&self, meters: &Meters, record: &[u8], spans: &[Span], quantities: &[i64]) -> i128 {
        let mut cost = 0i128;
        let mut meter = 0;
        for group in &meters.groups {
            let fits = |matches: &[Match]| fits(group, matches, record, spans);
            for _ in &group.meters {
                let (quantity, of) = (quantities[meter], &self.meters[meter]);
                meter += 1;
                if quantity <= 0 {
                    continue;
                }
                let of_meter = |meter: usize| i128::from(quantities[meter].max(0));
                let sum = |meters: &[usize]| meters.iter().map(|meter| of_meter(*meter)).sum::<i128>();
                let is_above = |whole: &Whole| {
                    let parts = whole.prices.iter().find(|price| fits(&price.0)).map_or(&[][..], |price| &price.1);
                    !parts.is_empty() && sum(parts) > whole.meter.map_or(0, of_meter)
                };
                if of.wholes.iter().any(is_above) {
                    continue;
                }
                let Some(price) = of.prices.iter().find(|price| fits(&price.matches)) else { continue };
                let left = i128::from(quantity) - sum(&price.minus);
                if let Ok(left @ 0..) = i64::try_from(left) {
                    cost = cost.saturating_add(share(left, price.units, price.per)).min(COST_MAX);
                }
            }
        }
        cost
    }
}

fn fits(group: &Group, matches: &[Match], record: &[u8], spans: &[Span]) -> bool {
    matches.iter().all(|(dim, value)| *group.dim(*dim, record, spans) == value[..])
}

/// `quantity` times `units` for each block of `per`, rounded half to even. Nothing is negative.
fn share(quantity: i64, units: i128, per: u64) -> i128 {
    let Some(product) = i128::from(quantity).checked_mul(units) else { return COST_MAX };
    let per = i128::from(per.max(1));
    let (whole, rest) = (product / per, product % per);
    let up = rest * 2 > per || (rest * 2 == per && whole % 2 == 1);
    (whole + i128::from(up)).min(COST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_half_to_even_and_never_wraps() {
        for (quantity, units, per, want) in [
            (3, 100_000_000_000, 1_000_000, 300_000),
            (1, 1, 2, 0),
            (3, 1, 2, 2),
            (5, 1, 2, 2),
            (2, 1, 3, 1),
            (i64::MAX, 1 << 100, 1, COST_MAX),
            (i64::MAX, i128::MAX, u64::MAX, COST_MAX),
            (0, 5, 0, 0),
        ] {
            assert_eq!(share(quantity, units, per), want, "{quantity} x {units} / {per}");
        }
    }
}
