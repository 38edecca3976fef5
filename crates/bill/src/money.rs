//! Money: whole numbers of 10^-12 of the card's currency, and the only two places where it is rounded.
//!
//! In: prices as decimal text, whole quantities, weights. Out: `Money`. Products are kept exact in 256 bits and
//! rounded once, half to even (rule R1); shares are cut by largest remainder, so parts always add up to the whole
//! (rule R6). Bound: 38 decimal digits, what `DECIMAL(38,12)` holds; beyond it every function says `Overflow`.

use flow::units;
use serde::{Serialize, Serializer};
use std::fmt;

/// An amount in units of 10^-12 of the card's currency. Text form: all 12 digits, as in `0.617283500000`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub i128);

/// Digits after the point.
pub const DIGITS: u32 = units::MONEY_DIGITS;
const ONE: i128 = 1_000_000_000_000;
const UNITS_MAX: i128 = units::MONEY_UNITS_MAX;

/// An amount beyond 38 digits; nothing was wrapped or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the amount has more than 38 digits")
    }
}

impl std::error::Error for Overflow {}

impl Money {
    pub const ZERO: Money = Money(0);

    /// Reads `12`, `0.50` or `-1.000000000001`: digits, at most one point, at most 12 digits after it (rule R2).
    pub fn parse(text: &str) -> Result<Money, String> {
        units::parse_money(text).map(Money)
    }

    pub fn checked_add(self, other: Money) -> Result<Money, Overflow> {
        let units = self.0.checked_add(other.0).filter(|u| u.unsigned_abs() <= UNITS_MAX.unsigned_abs());
        units.map(Money).ok_or(Overflow)
    }

    /// Adds up; the order of the amounts does not matter unless a partial sum is beyond 38 digits.
    pub fn sum(amounts: impl IntoIterator<Item = Money>) -> Result<Money, Overflow> {
        amounts.into_iter().try_fold(Money::ZERO, Money::checked_add)
    }

    /// The amount rounded half to even to so many digits after the point (12 or more: as it is), as an invoice shows it.
    pub fn round(self, digits: u32) -> Result<Money, Overflow> {
        let quantum = quantum_units(digits);
        let units = divide_half_even(self.0.unsigned_abs(), quantum).checked_mul(quantum).ok_or(Overflow)?;
        signed(self.0 < 0, units)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let one = ONE.unsigned_abs();
        f.pad(&format!("{sign}{}.{:012}", units / one, units % one))
    }
}

/// JSON carries money as strings: a reader's float would round it.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What `quantity` units cost at `price` for each block of `per` units: exact, then rounded once, half to even.
///
/// `per` 0 and results beyond 38 digits are `Overflow`.
pub fn cost(quantity: i128, price: Money, per: u64) -> Result<Money, Overflow> {
    let per = u128::from(per);
    let (mut units, rest) = multiply_divide(quantity.unsigned_abs(), price.0.unsigned_abs(), per).ok_or(Overflow)?;
    let up = match (rest * 2).cmp(&per) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => units % 2 == 1,
    };
    units = units.checked_add(u128::from(up)).ok_or(Overflow)?;
    signed((quantity < 0) != (price.0 < 0), units)
}

/// `quantity * scale / scale_of / per` as a decimal of 12 digits, rounded once, half to even; zeros below the line are `Overflow`.
pub fn quotient(quantity: i128, scale: u128, scale_of: u128, per: u64) -> Result<Money, Overflow> {
    let below = scale_of.checked_mul(u128::from(per)).ok_or(Overflow)?;
    let above = scale.checked_mul(ONE.unsigned_abs()).ok_or(Overflow)?;
    let (units, rest) = multiply_divide(quantity.unsigned_abs(), above, below).ok_or(Overflow)?;
    let up = match rest.cmp(&(below - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => units % 2 == 1,
    };
    signed(quantity < 0, units.checked_add(u128::from(up)).ok_or(Overflow)?)
}

/// The product of `factors` over the product of `divisors`, in units of 10^-12, rounded once, half to even (rule R1).
///
/// Exact whatever the factors: common parts are cancelled, the rest is multiplied in full length. A divisor of 0 and results
/// beyond 38 digits are `Overflow`.
pub fn exact(negative: bool, factors: &[u128], divisors: &[u128]) -> Result<Money, Overflow> {
    if divisors.contains(&0) {
        return Err(Overflow);
    }
    if factors.contains(&0) {
        return Ok(Money::ZERO);
    }
    let mut above: Vec<u128> = factors.iter().copied().filter(|f| *f != 1).collect();
    let mut below: Vec<u128> = divisors.iter().copied().filter(|d| *d != 1).collect();
    if let Some((a, b, divisor)) = narrow(&above, &below) {
        return rounded(negative, multiply_divide(a, b, divisor).ok_or(Overflow)?, divisor);
    }
    for a in &mut above {
        for b in &mut below {
            let common = gcd(*a, *b);
            (*a, *b) = (*a / common, *b / common);
        }
    }
    above.retain(|f| *f != 1);
    below.retain(|d| *d != 1);
    if let Some((a, b, divisor)) = narrow(&above, &below) {
        return rounded(negative, multiply_divide(a, b, divisor).ok_or(Overflow)?, divisor);
    }
    let (units, round_up) = Wide::product(&above).divide_half_even(&Wide::product(&below)).ok_or(Overflow)?;
    signed(negative, units.checked_add(u128::from(round_up)).ok_or(Overflow)?)
}

/// The product as two factors and one divisor of 128 bits, if it is that short.
fn narrow(above: &[u128], below: &[u128]) -> Option<(u128, u128, u128)> {
    let divisor = below.iter().try_fold(1u128, |product, d| product.checked_mul(*d))?;
    let mut two = [1u128; 2];
    for factor in above {
        let free = two.iter_mut().find_map(|slot| slot.checked_mul(*factor).map(|product| (slot, product)));
        let (slot, product) = free?;
        *slot = product;
    }
    Some((two[0], two[1], divisor))
}

fn rounded(negative: bool, (units, rest): (u128, u128), divisor: u128) -> Result<Money, Overflow> {
    let up = match rest.cmp(&(divisor - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => units % 2 == 1,
    };
    signed(negative, units.checked_add(u128::from(up)).ok_or(Overflow)?)
}

/// Greatest common divisor; of 0 and 0 it is 1, so that one can always divide by it.
pub fn gcd(a: u128, b: u128) -> u128 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// A natural number of any length, in digits of 32 bits, the lowest first.
struct Wide(Vec<u32>);

impl Wide {
    fn product(factors: &[u128]) -> Wide {
        let mut digits = vec![1u32];
        for factor in factors {
            let mut next = vec![0u32; digits.len() + 4];
            for (shift, part) in (0..4).map(|i| (i, (factor >> (32 * i)) as u32)) {
                let mut carry = 0u64;
                for (index, slot) in next.iter_mut().enumerate().skip(shift) {
                    let digit = digits.get(index - shift).copied().unwrap_or(0);
                    let sum = u64::from(digit) * u64::from(part) + u64::from(*slot) + carry;
                    *slot = sum as u32;
                    carry = sum >> 32;
                }
            }
            digits = next;
        }
        Wide(digits)
    }

    fn bits(&self) -> usize {
        self.0.iter().rposition(|d| *d != 0).map_or(0, |top| top * 32 + 32 - self.0[top].leading_zeros() as usize)
    }

    fn bit(&self, index: usize) -> bool {
        self.0.get(index / 32).is_some_and(|digit| digit >> (index % 32) & 1 == 1)
    }

    /// Shifts left by one bit and sets the lowest.
    fn push(&mut self, bit: bool) {
        let mut carry = u32::from(bit);
        for digit in &mut self.0 {
            let next = *digit >> 31;
            *digit = *digit << 1 | carry;
            carry = next;
        }
        if carry > 0 {
            self.0.push(carry);
        }
    }

    fn compare(&self, other: &Wide) -> std::cmp::Ordering {
        let length = self.0.len().max(other.0.len());
        let digit = |of: &Wide, index: usize| of.0.get(index).copied().unwrap_or(0);
        (0..length).rev().map(|i| digit(self, i).cmp(&digit(other, i))).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    }

    /// `other` is not larger.
    fn subtract(&mut self, other: &Wide) {
        let mut borrow = false;
        for (index, digit) in self.0.iter_mut().enumerate() {
            let (first, under) = digit.overflowing_sub(other.0.get(index).copied().unwrap_or(0));
            let (second, under_again) = first.overflowing_sub(u32::from(borrow));
            *digit = second;
            borrow = under || under_again;
        }
    }

    /// The quotient, and whether half to even rounds it up; `None` if it needs more than 128 bits. Long division by bits.
    fn divide_half_even(&self, divisor: &Wide) -> Option<(u128, bool)> {
        let (mut rest, mut quotient) = (Wide(vec![0]), 0u128);
        for index in (0..self.bits()).rev() {
            rest.push(self.bit(index));
            let fits = rest.compare(divisor).is_ge();
            if fits {
                rest.subtract(divisor);
            }
            quotient = quotient.checked_mul(2)? | u128::from(fits);
        }
        rest.push(false); // twice the rest
        let up = match rest.compare(divisor) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => quotient % 2 == 1,
        };
        Some((quotient, up))
    }
}

/// `amount * part / whole`, rounded once, half to even; `whole` 0 is `Overflow`.
pub fn share(amount: Money, part: u128, whole: u128) -> Result<Money, Overflow> {
    exact(amount.0 < 0, &[amount.0.unsigned_abs(), part], &[whole])
}

/// Divides `whole` among owners by weight, in steps of 10^-`digits` (12 or more: the finest step).
///
/// `whole` is first rounded half to even to that step. Returns the share of each weight in the same order, and what
/// nobody owns (all of it if every weight is 0); shares plus rest are exactly the rounded whole, and every share
/// has its sign. Method: largest remainder (Hamilton 1792); equal remainders go to the earlier weight, so the caller
/// orders them by window start, then tenant bytes, the unallocated one last (rule R6).
pub fn apportion(whole: Money, digits: u32, weights: &[u64]) -> Result<(Vec<Money>, Money), Overflow> {
    let whole = whole.round(digits)?;
    let quantum = quantum_units(digits);
    let wide: Vec<u128> = weights.iter().map(|w| u128::from(*w)).collect();
    let Some(parts) = apportion_units(whole.0.unsigned_abs() / quantum, &wide)? else {
        return Ok((vec![Money::ZERO; weights.len()], whole));
    };
    let shares = parts.into_iter().map(|part| signed(whole.0 < 0, part * quantum)).collect::<Result<_, _>>()?;
    Ok((shares, Money::ZERO))
}

/// Divides whole units of anything by weight, with its sign, as `apportion` does; `None` if all weights are 0.
pub fn apportion_signed(whole: i128, weights: &[u128]) -> Result<Option<Vec<i128>>, Overflow> {
    let parts = apportion_units(whole.unsigned_abs(), weights)?;
    let sign = |part: u128| i128::try_from(part).map(|part| if whole < 0 { -part } else { part }).map_err(|_| Overflow);
    parts.map(|parts| parts.into_iter().map(sign).collect()).transpose()
}

fn apportion_units(quanta: u128, weights: &[u128]) -> Result<Option<Vec<u128>>, Overflow> {
    let total = weights.iter().try_fold(0u128, |sum, w| sum.checked_add(*w)).ok_or(Overflow)?;
    if total == 0 {
        return Ok(None);
    }
    let mut parts = Vec::with_capacity(weights.len());
    let mut fractions = Vec::with_capacity(weights.len());
    let mut left = quanta;
    for (index, weight) in weights.iter().enumerate() {
        let (part, fraction) = multiply_divide(quanta, *weight, total).ok_or(Overflow)?;
        left -= part;
        parts.push(part);
        fractions.push((std::cmp::Reverse(fraction), index));
    }
    fractions.sort_unstable();
    // The fractions add up to exactly `left` wholes and each is below one, so there are more of them than quanta left.
    for (_, index) in fractions.iter().take(left as usize) {
        parts[*index] += 1;
    }
    Ok(Some(parts))
}

fn quantum_units(digits: u32) -> u128 {
    10u128.pow(DIGITS.saturating_sub(digits))
}

fn signed(negative: bool, units: u128) -> Result<Money, Overflow> {
    let units = i128::try_from(units).ok().filter(|u| *u <= UNITS_MAX).ok_or(Overflow)?;
    Ok(Money(if negative { -units } else { units }))
}

fn divide_half_even(value: u128, by: u128) -> u128 {
    let (quotient, rest) = (value / by, value % by);
    let twice = rest * 2; // `by` is at most 10^12 here
    quotient + u128::from(twice > by || (twice == by && quotient % 2 == 1))
}

/// `a * b / divisor` and the remainder, exact over 256 bits; `None` if the divisor is 0 or the quotient needs more than 128 bits.
pub(crate) fn multiply_divide(a: u128, b: u128, divisor: u128) -> Option<(u128, u128)> {
    if divisor == 0 {
        return None;
    }
    if let Some(product) = a.checked_mul(b) {
        return Some((product / divisor, product % divisor));
    }
    let (high, low) = multiply_wide(a, b);
    if high >= divisor {
        return None;
    }
    // Long division, one bit at a time: `rest` stays below the divisor, so a carry out of it means "subtract".
    let (mut rest, mut quotient) = (high, 0u128);
    for bit in (0..128).rev() {
        let carry = rest >> 127 == 1;
        rest = rest << 1 | (low >> bit & 1);
        quotient <<= 1;
        if carry || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            quotient |= 1;
        }
    }
    Some((quotient, rest))
}

/// The product as (high, low) halves of 128 bits, by schoolbook multiplication of 64-bit digits.
pub(crate) fn multiply_wide(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (low, middle_a, middle_b, high) = (a0 * b0, a0 * b1, a1 * b0, a1 * b1);
    let carry = (low >> 64) + (middle_a & LOW) + (middle_b & LOW);
    (high + (middle_a >> 64) + (middle_b >> 64) + (carry >> 64), carry << 64 | (low & LOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    #[track_caller]
    fn check_shares(whole: &str, digits: u32, weights: &[u64], want: &[&str], want_rest: &str) {
        let (shares, rest) = apportion(money(whole), digits, weights).unwrap();
        assert_eq!(shares, want.iter().map(|w| money(w)).collect::<Vec<_>>());
        assert_eq!(rest, money(want_rest));
    }

    #[test]
    fn amounts_read_as_written_and_print_all_digits() {
        for (text, want) in
            [("0.50", "0.500000000000"), ("12", "12.000000000000"), ("-0.000000000001", "-0.000000000001"), ("007.1", "7.100000000000")]
        {
            assert_eq!(money(text).to_string(), want);
        }
        assert_eq!(money("99999999999999999999999999.999999999999").0, UNITS_MAX);
        for text in
            ["", "-", ".5", "5.", "1e3", "+1", "1,000", "0.5 ", " 1", "1.2.3", "--1", "٣", "100000000000000000000000000", "0.0000000000001"]
        {
            assert!(Money::parse(text).is_err(), "{text:?} was taken for an amount");
        }
        assert!(Money::parse("0.1234567890123").unwrap_err().contains("13 digits"));
    }

    #[test]
    fn a_cost_is_rounded_once_half_to_even() {
        for (quantity, price, per, want) in [
            (1, "0.000000000001", 2, "0.000000000000"), // half a unit, to the even 0
            (3, "0.000000000001", 2, "0.000000000002"), // one and a half, to the even 2
            (5, "0.000000000001", 2, "0.000000000002"),
            (-3, "0.000000000001", 2, "-0.000000000002"),
            (1, "1", 3, "0.333333333333"),
            (2, "1", 3, "0.666666666667"),
            (1_200, "2.50", 3_600, "0.833333333333"),
            (2_400, "3.10", 3_600, "2.066666666667"),
        ] {
            assert_eq!(cost(quantity, money(price), per), Ok(money(want)), "{quantity} at {price} per {per}");
        }
    }

    #[test]
    fn p15_huge_quantities_are_exact_and_overflow_is_an_error() {
        assert_eq!(cost(i128::from(i64::MAX), money("0.000012345678"), 1).unwrap().to_string(), "113868781241213.194875412146");
        assert_eq!(cost(i128::MAX, money("1"), 1), Err(Overflow));
        assert_eq!(cost(i128::MIN, Money(UNITS_MAX), 1), Err(Overflow));
        assert_eq!(cost(1, money("1"), 0), Err(Overflow));
        // The product needs 190 bits, the result 127.
        assert_eq!(cost(i128::MAX / 4, Money(1 << 62), 1 << 62), Ok(Money(i128::MAX / 4)));
        assert_eq!(Money(UNITS_MAX).checked_add(Money(1)), Err(Overflow));
    }

    #[test]
    fn p10_residue_goes_to_the_largest_fraction_then_to_the_first() {
        check_shares("1.00", 12, &[1, 1, 1], &["0.333333333334", "0.333333333333", "0.333333333333"], "0");
        check_shares("1.00", 2, &[1, 1, 1], &["0.34", "0.33", "0.33"], "0");
        check_shares("10.03", 2, &[49, 51], &["4.91", "5.12"], "0");
        check_shares("-10.03", 2, &[49, 51], &["-4.91", "-5.12"], "0");
        check_shares("100", 0, &[1, 1, 1], &["34", "33", "33"], "0");
        check_shares("1", 12, &[0, 0], &["0", "0"], "1");
        check_shares("1", 12, &[], &[], "1");
        check_shares("0", 12, &[3, 4], &["0", "0"], "0");
        check_shares("0.125", 2, &[1], &["0.12"], "0"); // the whole is rounded first, to the even cent
    }

    #[test]
    fn p3_p11_p12_shares_have_the_stated_digits() {
        check_shares("1.270833333333", 12, &[600_000, 1_230_000], &["0.416666666667", "0.854166666666"], "0");
        check_shares("2.50", 12, &[900, 1800, 900], &["0.625", "1.25", "0.625"], "0");
        check_shares("2.50", 12, &[900, 1800], &["0.833333333333", "1.666666666667"], "0");
        check_shares("2.50", 12, &[1, 2, 3, 1], &["0.357142857143", "0.714285714286", "1.071428571428", "0.357142857143"], "0");
    }

    #[test]
    fn shares_of_ten_thousand_random_splits_add_up_to_the_whole() {
        let seed = crate::seed();
        let mut random = crate::Random(seed);
        for round in 0..10_000 {
            let whole = Money(match random.below(4) {
                0 => 0,
                1 => (random.next() as i128) - (1 << 63),
                2 => ((random.next() as i128) << 40) - (1 << 103),
                _ => UNITS_MAX - random.next() as i128,
            });
            let count = if round % 100 == 0 { 1_000 } else { random.below(12) as usize };
            let weights: Vec<u64> = (0..count).map(|_| if random.below(4) == 0 { 0 } else { random.next() >> random.below(60) }).collect();
            let digits = random.below(14) as u32;
            let rounded = match whole.round(digits) {
                Ok(rounded) => rounded,
                Err(Overflow) => continue,
            };
            let (shares, rest) = apportion(whole, digits, &weights).unwrap();
            assert_eq!(Money::sum(shares.iter().copied().chain([rest])), Ok(rounded), "seed {seed} round {round}");
            for (share, weight) in shares.iter().zip(&weights) {
                assert!(share.0 == 0 || (share.0 < 0) == (whole.0 < 0), "seed {seed} round {round}: a share has the other sign");
                assert!(*weight > 0 || share.0 == 0, "seed {seed} round {round}: a share without weight");
            }
        }
    }

    #[test]
    fn wide_division_agrees_with_narrow_division() {
        let seed = crate::seed();
        let mut random = crate::Random(seed);
        for _ in 0..10_000 {
            let (a, b) = (random.wide(), random.wide());
            let divisor = random.wide() | 1;
            let (high, low) = multiply_wide(a, b);
            if let Some(product) = a.checked_mul(b) {
                assert_eq!((high, low), (0, product), "seed {seed}");
            }
            // quotient * divisor + rest gives the product back
            if let Some((quotient, rest)) = multiply_divide(a, b, divisor) {
                let (back_high, back_low) = multiply_wide(quotient, divisor);
                let (sum, carry) = back_low.overflowing_add(rest);
                assert_eq!((back_high + u128::from(carry), sum), (high, low), "seed {seed}");
                assert!(rest < divisor, "seed {seed}");
            } else {
                assert!(high >= divisor, "seed {seed}");
            }
        }
    }
}
