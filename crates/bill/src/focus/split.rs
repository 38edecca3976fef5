//! Parts of an origin charge: ratios that add up to exactly 1, quantities that add up to the origin's.
//!
//! In: all rows of an export; parts are told by `Allocation::origin`, and a delta or a correction of an origin is an
//! origin of its own. Out: what each part's row says of the whole. Method: largest remainder (rule R6), ties by window
//! start, then tenant, the unallocated part last.

use super::Input;
use crate::charge::Charge;
use crate::money::{Money, Overflow, cost, multiply_divide, quotient};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// One, in units of 10^-12.
const ONE: u128 = 1_000_000_000_000;

/// What a row says of the origin that it is a part of.
pub struct Part {
    /// This part's share, 12 digits; over all parts exactly 1.
    pub ratio: Money,
    /// What the share was told by; `None` beyond 26 digits.
    pub weight: Option<Money>,
    pub pricing_quantity: Money,
    pub consumed: Money,
    pub origin_list: Money,
    pub origin_effective: Money,
    pub origin_quantity: Money,
    origin: [u8; 16],
}

impl Part {
    /// The same for all parts, and for nothing else: 32 hex digits.
    pub fn origin_id(&self) -> String {
        super::rows::hex(&self.origin)
    }
}

/// For each input what it says of its origin; `None` for a charge that is no part. An error names the input.
pub fn parts(inputs: &[Input]) -> Result<Vec<Option<Box<Part>>>, (usize, Overflow)> {
    let mut origins: BTreeMap<[u8; 16], Vec<usize>> = BTreeMap::new();
    for (index, input) in inputs.iter().enumerate().filter(|(_, input)| input.charge.allocation.is_some()) {
        origins.entry(origin(input)).or_default().push(index);
    }
    let mut parts: Vec<Option<Box<Part>>> = Vec::new();
    parts.resize_with(inputs.len(), || None);
    for (origin, mut members) in origins {
        members.sort_by_key(|index| order(inputs[*index].charge));
        let members_of = |index: &usize| &inputs[*index];
        let all: Vec<&Input> = members.iter().map(members_of).collect();
        let divided = divide(&all, origin).map_err(|overflow| (members[0], overflow))?;
        for (index, part) in members.into_iter().zip(divided) {
            parts[index] = Some(Box::new(part));
        }
    }
    Ok(parts)
}

#[expect(clippy::type_complexity, reason = "a key to sort by, named nowhere else")]
fn order(charge: &Charge) -> (i64, bool, &[u8], &[(String, Vec<u8>)]) {
    let is_idle = charge.allocation.as_ref().is_some_and(|part| part.is_idle);
    (charge.hour.0, is_idle, &charge.series.tenant, &charge.series.dims)
}

fn origin(input: &Input) -> [u8; 16] {
    let mut hash = Sha256::new();
    if let Some(part) = &input.charge.allocation {
        hash.update((part.origin.len() as u64).to_le_bytes());
        hash.update(part.origin.as_bytes());
    }
    hash.update(input.revision.to_le_bytes());
    hash.update([u8::from(input.is_correction), u8::from(input.is_reversal)]);
    hash.update(input.billing_period.0.0.to_le_bytes());
    let digest = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// The parts of one origin, in the order of its members.
fn divide(members: &[&Input], origin: [u8; 16]) -> Result<Vec<Part>, Overflow> {
    let first = members[0].charge;
    let weights: Vec<u128> = members.iter().map(|input| input.charge.allocation.as_ref().map_or(0, |part| part.weight)).collect();
    let ratios = match shares(ONE, &weights)? {
        Some(ratios) => ratios,
        None => whole_to_last(members.len()), // nobody used it: the unallocated part is all of it
    };
    let origin_list = total(members, |charge| charge.list)?;
    let origin_effective = total(members, |charge| charge.effective)?;
    let quantities = quantities(members, &weights)?;
    let origin_quantity = Money::sum(quantities.iter().map(|(pricing, _)| *pricing))?;
    let mut parts = Vec::with_capacity(members.len());
    for (index, input) in members.iter().enumerate() {
        let weight = quotient(i128::try_from(weights[index]).map_err(|_| Overflow)?, 1, 1, 1).ok();
        let (pricing_quantity, consumed) = quantities[index];
        debug_assert_eq!(input.charge.per, first.per, "parts of one origin have one price");
        parts.push(Part {
            ratio: Money(ratios[index] as i128), // at most 10^12
            weight,
            pricing_quantity,
            consumed,
            origin_list,
            origin_effective,
            origin_quantity,
            origin,
        });
    }
    Ok(parts)
}

fn total(members: &[&Input], amount: impl Fn(&Charge) -> Money) -> Result<Money, Overflow> {
    Money::sum(members.iter().map(|input| amount(input.charge)))
}

/// Pricing and consumed quantity of each part: the origin's, divided as its cost was. A delta, whose parts are differences and
/// carry no quantity of their own, says what its cost is worth at its price.
fn quantities(members: &[&Input], weights: &[u128]) -> Result<Vec<(Money, Money)>, Overflow> {
    let first = members[0];
    let charge = first.charge;
    let is_whole = members.iter().all(|input| input.charge.allocation.as_ref().is_some_and(|part| Some(part.weights) == sum(weights)));
    let billable = members.iter().try_fold(0i128, |sum, input| sum.checked_add(input.charge.billable)).ok_or(Overflow)?;
    let divide = |per: u64| -> Result<Vec<Money>, Overflow> {
        let whole = quotient(billable, charge.scale.0, charge.scale.1, per)?;
        let shares = match shares(whole.0.unsigned_abs(), weights)? {
            Some(shares) => shares,
            None => whole_to_last(members.len()).into_iter().map(|share| if share > 0 { whole.0.unsigned_abs() } else { 0 }).collect(),
        };
        let sign = whole.0.signum();
        shares.into_iter().map(|share| Ok(Money(sign * i128::try_from(share).map_err(|_| Overflow)?))).collect()
    };
    if is_whole && first.revision <= 1 {
        return Ok(divide(charge.per)?.into_iter().zip(divide(1)?).collect());
    }
    let worth = |input: &&Input| -> Result<(Money, Money), Overflow> {
        let charge = input.charge;
        let price = match &charge.exchange {
            Some(exchange) => cost(charge.price.0, exchange.rate, ONE as u64)?,
            None => charge.price,
        };
        let pricing = match price.0 {
            0 => quotient(charge.billable, charge.scale.0, charge.scale.1, charge.per)?,
            price => quotient(charge.list.0, 1, price.unsigned_abs(), 1)?,
        };
        let consumed = pricing.0.checked_mul(i128::from(charge.per)).ok_or(Overflow)?;
        Ok((pricing, Money::ZERO.checked_add(Money(consumed))?))
    };
    members.iter().map(worth).collect()
}

fn sum(weights: &[u128]) -> Option<u128> {
    weights.iter().try_fold(0u128, |sum, weight| sum.checked_add(*weight))
}

fn whole_to_last(count: usize) -> Vec<u128> {
    let mut ratios = vec![0; count];
    if let Some(last) = ratios.last_mut() {
        *last = ONE;
    }
    ratios
}

/// `whole` divided by weight, by largest remainder, equal remainders to the earlier; `None` if every weight is 0.
pub fn shares(whole: u128, weights: &[u128]) -> Result<Option<Vec<u128>>, Overflow> {
    let total = sum(weights).ok_or(Overflow)?;
    if total == 0 {
        return Ok(None);
    }
    let mut parts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    let mut left = whole;
    for (index, weight) in weights.iter().enumerate() {
        let (part, remainder) = multiply_divide(whole, *weight, total).ok_or(Overflow)?;
        left -= part;
        parts.push(part);
        remainders.push((Reverse(remainder), index));
    }
    remainders.sort_unstable();
    // The remainders add up to exactly `left` wholes and each is below one, so there are more of them than is left.
    for (_, index) in remainders.iter().take(usize::try_from(left).map_err(|_| Overflow)?) {
        parts[*index] += 1;
    }
    Ok(Some(parts))
}
