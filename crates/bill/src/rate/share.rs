//! Cost that several tenants cause: each charge of an origin meter is replaced by its parts (rule R12, section 4.4).
//!
//! In: the charges, and the usage of the meters that are weights. For each share and hour, origins and weights with the same
//! values of the `join` dimensions belong together. Parts are by tenant and the dimensions that are kept; they repeat the origin's
//! prices, and their amounts, quantities and events add up to its (rule R6: ties go to the tenant whose bytes come first, what is
//! idle comes last). Capacity counts over all origins of a group, so a price change within the hour does not make anything idle.

use super::{Bill, Usage};
use crate::card::Share;
use crate::card::share::{Capacity, Idle};
use crate::charge::{Allocation, Category, Charge, Commitment, Series};
use crate::facts::{Refusal, Refused};
use crate::money::{Money, Overflow, apportion_signed};
use crate::unit::{Kind, Unit};
use flow::units::{NANOS_PER_HOUR, UnixNanos};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// What one share divided, and what came of it: all of it, or `residual` is not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conservation {
    pub share: String,
    /// Billed cost of the origins, and of all parts.
    pub origin: Money,
    pub parts: Money,
    /// What the origins held, what of it was allocated to somebody and what was idle; in ms of each thing held, or in the
    /// smallest unit of what is measured.
    pub held: i128,
    pub allocated: i128,
    pub idle: i128,
}

impl Conservation {
    /// Money and quantity that got lost or came out of nothing; both are 0.
    pub fn residual(&self) -> (Money, i128) {
        let parts = self.allocated.saturating_add(self.idle);
        (Money(self.origin.0.saturating_sub(self.parts.0)), self.held.saturating_sub(parts))
    }
}

/// Number of the share, hour, values of the join dimensions.
type Group = (usize, UnixNanos, Vec<Vec<u8>>);
/// Tenant, and the values of the kept dimensions.
type Owner = (Vec<u8>, Vec<(String, Vec<u8>)>);

/// Replaces origins by their parts; moves the usage of origins to those who got a part.
pub fn divide(bill: &mut Bill<'_>, rows: &mut Vec<(u32, Charge)>, range: Option<&Range<UnixNanos>>) -> Vec<Conservation> {
    let shares = &bill.card.shares;
    if shares.is_empty() {
        return vec![];
    }
    let mut laws: Vec<Conservation> =
        shares.iter().map(|share| Conservation { share: share.name.to_string(), ..Conservation::default() }).collect();
    let mut weights = Weights::default();
    let mut refused = Vec::new();
    for (index, share) in shares.iter().enumerate() {
        weights.gather(bill, index, share, &mut refused);
    }
    let mut groups: BTreeMap<Group, Vec<(u32, Charge)>> = BTreeMap::new();
    for (version, row) in std::mem::take(rows) {
        let fits = |share: &Share| share.origin == row.series.meter && share.matches.iter().all(|wanted| row.series.dims.contains(wanted));
        match shares
            .iter()
            .position(fits)
            .filter(|_| row.category == Category::Usage && !matches!(row.commitment, Some(Commitment::Unused(_))))
        {
            None => rows.push((version, row)),
            Some(index) => groups.entry((index, row.hour, values(&row.series, &shares[index].join))).or_default().push((version, row)),
        }
    }
    let mut moved: BTreeMap<(Arc<Series>, UnixNanos), (i128, u64)> = BTreeMap::new();
    for (group, origins) in groups {
        let share = &shares[group.0];
        let Some(split) = weights.split(share, &group, &origins) else {
            refused.extend(origins.iter().map(|(_, row)| not_held(share, row)));
            rows.extend(origins);
            continue;
        };
        for (version, origin) in origins {
            let of_owner = (share.idle == Idle::Owner).then(|| split.of_owner(&origin));
            match of_owner.as_ref().unwrap_or(&split).parts(share, &origin) {
                Ok(parts) => {
                    if range.is_none_or(|range| range.contains(&origin.hour)) {
                        laws[group.0].add(&origin, &parts);
                    }
                    let of_origin = moved.entry((origin.series.clone(), origin.hour)).or_default();
                    *of_origin = (of_origin.0 - origin.quantity, of_origin.1);
                    for part in &parts {
                        let to = moved.entry((part.series.clone(), part.hour)).or_default();
                        *to = (to.0 + part.quantity, to.1.wrapping_add(part.events));
                    }
                    let of_origin = moved.entry((origin.series.clone(), origin.hour)).or_default();
                    of_origin.1 = of_origin.1.wrapping_sub(origin.events);
                    rows.extend(parts.into_iter().map(|part| (version, part)));
                }
                Err(Overflow) => rows.push((version, origin)),
            }
        }
    }
    bill.refused.extend(refused);
    move_usage(bill, moved);
    laws
}

impl Conservation {
    fn add(&mut self, origin: &Charge, parts: &[Charge]) {
        let size = i128::try_from(Unit::parse(&origin.series.unit).size).unwrap_or(1);
        self.origin.0 = self.origin.0.saturating_add(origin.billed.0);
        self.held = self.held.saturating_add(origin.billable.saturating_mul(size));
        for part in parts {
            self.parts.0 = self.parts.0.saturating_add(part.billed.0);
            let is_idle = part.allocation.as_ref().is_some_and(|allocation| allocation.is_idle);
            let sum = if is_idle { &mut self.idle } else { &mut self.allocated };
            *sum = sum.saturating_add(part.billable.saturating_mul(size));
        }
    }
}

fn values(series: &Series, dims: &[String]) -> Vec<Vec<u8>> {
    dims.iter().map(|name| series.dim(name).to_vec()).collect()
}

fn not_held(share: &Share, row: &Charge) -> Refused {
    let why = Refusal::UnitMismatch { sku: share.name.to_string(), unit: "time held".into() };
    Refused { series: row.series.clone(), from: row.hour, to: row.end, quantity: row.quantity, events: row.events, why }
}

#[derive(Default)]
struct Weights {
    of: HashMap<Group, BTreeMap<Owner, u128>>,
    /// The unit of each share's weights: its smallest one's name, and whether it is time held.
    units: HashMap<usize, (Arc<str>, bool)>,
}

impl Weights {
    fn gather(&mut self, bill: &Bill<'_>, index: usize, share: &Share, refused: &mut Vec<Refused>) {
        let mut kind: Option<Kind<'_>> = None;
        for ((rank, hour), (quantity, events)) in &bill.usage {
            let series = &bill.table.series[*rank as usize];
            if series.meter != share.by || *quantity == 0 {
                continue;
            }
            let unit = Unit::parse(&series.unit);
            let hour = UnixNanos(hour * NANOS_PER_HOUR);
            let is_alike = kind.as_ref().is_none_or(|kind| *kind == unit.kind);
            if !is_alike || *quantity < 0 {
                let sku = share.name.to_string();
                let why = if is_alike { Refusal::Negative { sku } } else { Refusal::UnitMismatch { sku, unit: series.unit.clone() } };
                let to = UnixNanos(hour.0 + NANOS_PER_HOUR);
                refused.push(Refused { series: series.clone(), from: hour, to, quantity: *quantity, events: *events, why });
                continue;
            }
            let is_time = unit.held_ms().is_some();
            self.units.entry(index).or_insert_with(|| (Arc::from(unit.smallest(&series.unit)), is_time));
            let kept = share.keep.iter().map(|name| (name.clone(), series.dim(name).to_vec())).collect();
            let group = self.of.entry((index, hour, values(series, &share.join))).or_default();
            let weight = group.entry((series.tenant.clone(), kept)).or_default();
            *weight = weight.saturating_add(quantity.unsigned_abs().saturating_mul(unit.size));
            kind = Some(unit.kind);
        }
    }

    /// `None`: capacity is time held, and the origin or the weights are not.
    fn split(&self, share: &Share, group: &Group, origins: &[(u32, Charge)]) -> Option<Split> {
        let owners: Vec<(Owner, u128)> = self.of.get(group).into_iter().flatten().map(|(owner, weight)| (owner.clone(), *weight)).collect();
        let used = owners.iter().fold(0u128, |sum, (_, weight)| sum.saturating_add(*weight));
        let (unit, is_time) = self.units.get(&group.0).cloned().unwrap_or_else(|| (Arc::from("ms"), true));
        let capacity = match share.capacity {
            Capacity::None => used,
            Capacity::Held(times) => {
                if !is_time {
                    return None;
                }
                let mut held = 0u128;
                for (_, origin) in origins {
                    let ms = origin.billable.unsigned_abs().saturating_mul(Unit::parse(&origin.series.unit).held_ms()?);
                    held = held.saturating_add(ms);
                }
                held.saturating_mul(u128::from(times))
            }
        };
        let idle = match (share.idle, used) {
            (_, 0) => capacity.max(1),
            (Idle::Proportional, _) => 0,
            (Idle::Separate | Idle::Owner, _) => capacity.saturating_sub(used),
        };
        Some(Split { owners, idle, unit })
    }
}

/// Who gets how much of a group's origins.
struct Split {
    /// In order of tenant and kept dimensions.
    owners: Vec<(Owner, u128)>,
    idle: u128,
    unit: Arc<str>,
}

impl Split {
    /// Of a device that is one tenant's alone (`Idle::Owner`) that tenant gets both parts.
    fn of_owner(&self, origin: &Charge) -> Split {
        let used = self.owners.iter().fold(0u128, |sum, (_, weight)| sum.saturating_add(*weight));
        let owner = (origin.series.tenant.clone(), Vec::new());
        Split { owners: (used > 0).then_some((owner, used)).into_iter().collect(), idle: self.idle, unit: self.unit.clone() }
    }

    fn parts(&self, share: &Share, origin: &Charge) -> Result<Vec<Charge>, Overflow> {
        let weights: Vec<u128> = self.owners.iter().map(|(_, weight)| *weight).chain((self.idle > 0).then_some(self.idle)).collect();
        let sum = weights.iter().try_fold(0u128, |sum, w| sum.checked_add(*w)).ok_or(Overflow)?;
        let divide = |whole: i128| Ok(apportion_signed(whole, &weights)?.expect("some weight is above 0"));
        let (quantity, billable, events) = (divide(origin.quantity)?, divide(origin.billable)?, divide(origin.events.into())?);
        let (list, contracted) = (divide(origin.list.0)?, divide(origin.contracted.0)?);
        let (effective, billed) = (divide(origin.effective.0)?, divide(origin.billed.0)?);
        let name = name_of(origin);
        let parts = weights.iter().enumerate().map(|(index, weight)| {
            let owner = self.owners.get(index).map(|(owner, _)| owner);
            Charge {
                series: self.series_of(share, origin, owner),
                allocation: Some(Allocation {
                    method: share.name.clone(),
                    origin: name.clone(),
                    weight: *weight,
                    weights: sum,
                    unit: self.unit.clone(),
                    is_idle: owner.is_none(),
                }),
                quantity: quantity[index],
                billable: billable[index],
                list: Money(list[index]),
                contracted: Money(contracted[index]),
                effective: Money(effective[index]),
                billed: Money(billed[index]),
                events: u64::try_from(events[index]).unwrap_or(0),
                ..origin.clone()
            }
        });
        Ok(parts.collect())
    }

    fn series_of(&self, share: &Share, origin: &Charge, owner: Option<&Owner>) -> Arc<Series> {
        let idle_to = if share.idle == Idle::Owner { &origin.series.tenant } else { &share.idle_to };
        let mut series = Series { tenant: idle_to.clone(), ..(*origin.series).clone() };
        if let Some((tenant, kept)) = owner {
            series.tenant = tenant.clone();
            // A dimension that both have is the origin's; an empty one says nothing.
            let new = kept.iter().filter(|(name, value)| !value.is_empty() && origin.series.dim(name).is_empty());
            for (name, value) in new {
                series.dims.retain(|(known, _)| known != name);
                series.dims.push((name.clone(), value.clone()));
            }
            series.dims.sort();
        }
        Arc::new(series)
    }
}

/// Names an origin so that no two of one bill have the same name.
fn name_of(origin: &Charge) -> Arc<str> {
    let mut name = format!("{}, {}, {}", origin.series, origin.hour.rfc3339(), origin.sku_price_id());
    if origin.contracted_price != origin.price {
        name += &format!(" at {}", origin.contracted_price);
    }
    if let Some(Commitment::Used(id)) = &origin.commitment {
        name += &format!(", covered by {id}");
    }
    Arc::from(name)
}

/// What was divided is the usage of those who got a part; what of an origin was not charged stays where it is.
fn move_usage(bill: &mut Bill<'_>, mut moved: BTreeMap<(Arc<Series>, UnixNanos), (i128, u64)>) {
    for ((rank, hour), (quantity, events)) in std::mem::take(&mut bill.usage) {
        let place = (bill.table.series[rank as usize].clone(), UnixNanos(hour * NANOS_PER_HOUR));
        let used = moved.entry(place).or_default();
        *used = (used.0.saturating_add(quantity), used.1.wrapping_add(events));
    }
    let left = moved.into_iter().filter(|(_, (quantity, events))| *quantity != 0 || *events != 0);
    bill.moved = Some(left.map(|((series, hour), (quantity, events))| Usage { series, hour, quantity, events }).collect());
}
