//! Invoices: exact amounts of a month as whole minor units of its currency (rule R20).
//!
//! In: amounts in the order of rule R6 (window start, then tenant bytes, the unallocated row last). Out: what each row
//! says, and its residue; the rows add up to the invoice exactly.

use super::Input;
use super::split::shares;
use crate::money::{DIGITS, Money, Overflow};
use std::collections::BTreeMap;

/// What an invoice says in place of an exact amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invoiced {
    /// A whole number of minor units.
    pub billed: Money,
    /// Exact amount less `billed`: FOCUS `x_RoundingResidue`.
    pub residue: Money,
}

/// Rounds the sum of `amounts` half to even to `digits` after the point, and divides it among them.
///
/// Amounts of one sign are divided by rule R6. Where signs differ (a reversal in the same month) every amount is
/// rounded down and the units that are left go to the largest fractions.
pub fn invoice(amounts: &[Money], digits: u32) -> Result<Vec<Invoiced>, Overflow> {
    let unit = 10i128.pow(DIGITS.saturating_sub(digits));
    let total = Money::sum(amounts.iter().copied())?.round(digits)?;
    let has_one_sign = amounts.iter().all(|amount| amount.0 >= 0) || amounts.iter().all(|amount| amount.0 <= 0);
    let units = if has_one_sign { by_weight(amounts, total.0 / unit)? } else { by_fraction(amounts, total.0 / unit, unit)? };
    let row = |(units, exact): (i128, &Money)| {
        let billed = Money::ZERO.checked_add(Money(units.checked_mul(unit).ok_or(Overflow)?))?;
        Ok(Invoiced { billed, residue: exact.checked_add(Money(-billed.0))? })
    };
    units.into_iter().zip(amounts).map(row).collect()
}

fn by_weight(amounts: &[Money], total: i128) -> Result<Vec<i128>, Overflow> {
    let weights: Vec<u128> = amounts.iter().map(|amount| amount.0.unsigned_abs()).collect();
    let Some(units) = shares(total.unsigned_abs(), &weights)? else { return Ok(vec![0; amounts.len()]) };
    units.into_iter().map(|units| i128::try_from(units).map(|units| total.signum() * units).map_err(|_| Overflow)).collect()
}

fn by_fraction(amounts: &[Money], total: i128, unit: i128) -> Result<Vec<i128>, Overflow> {
    let mut units: Vec<i128> = amounts.iter().map(|amount| amount.0.div_euclid(unit)).collect();
    let down = units.iter().try_fold(0i128, |sum, units| sum.checked_add(*units)).ok_or(Overflow)?;
    let left = usize::try_from(total.checked_sub(down).ok_or(Overflow)?).map_err(|_| Overflow)?;
    let mut order: Vec<usize> = (0..amounts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(amounts[*index].0.rem_euclid(unit))); // stable: ties to the earlier
    for index in order.into_iter().take(left) {
        units[index] += 1;
    }
    Ok(units)
}

/// For each input what its invoice says; `None` without an invoice. An error names an input of the invoice.
pub(super) fn of_inputs(inputs: &[Input], digits: u32) -> Result<Vec<Option<Money>>, (usize, Overflow)> {
    let mut invoices: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, input) in inputs.iter().enumerate() {
        if let Some(id) = input.invoice_id {
            invoices.entry(id).or_default().push(index);
        }
    }
    let mut billed = vec![None; inputs.len()];
    for mut rows in invoices.into_values() {
        rows.sort_by_key(|index| order(&inputs[*index]));
        let name = |overflow| (rows[0], overflow);
        let amounts: Vec<Money> = rows.iter().map(|index| inputs[*index].charge.billed).collect();
        let invoiced = invoice(&amounts, digits).map_err(name)?;
        for (index, row) in rows.iter().zip(invoiced) {
            billed[*index] = Some(row.billed);
        }
    }
    Ok(billed)
}

/// Rule R6: by window start, then tenant, the unallocated row last; then whatever else tells two rows apart.
#[expect(clippy::type_complexity, reason = "a key to sort by, named nowhere else")]
fn order<'a>(input: &'a Input) -> (i64, bool, &'a [u8], &'a [(String, Vec<u8>)], &'a str, &'a str, u32, u32, i128) {
    let charge = input.charge;
    let is_idle = charge.allocation.as_ref().is_some_and(|part| part.is_idle);
    let series = &charge.series;
    (charge.hour.0, is_idle, &series.tenant, &series.dims, &charge.sku, &charge.version, charge.tier, input.revision, charge.billed.0)
}
