//! Percentiles: exact over kept values, or from a sketch that is 1 % off at most.
//!
//! In: numbers; out: the value at a rank (nearest rank: the smallest value that so many are not above). Exact:
//! 8 bytes for a number of up to 15 digits, 48 for another. Sketch: 8 bytes for each bucket between the least and the
//! greatest value, which is 8 KiB from 1 to 10^9. Method of the sketch: DDSketch (Masson, Rim, Lee 2019), buckets
//! that grow by 2 %; two sketches add up, so neither order nor split shows.

use super::number::Num;

/// A value of the sketch is at most this share off.
const ERROR: f64 = 0.01;

#[derive(Clone, Debug)]
pub(crate) enum Values {
    /// `short`: numbers that a float tells apart from all others of up to 15 digits.
    Exact {
        short: Vec<f64>,
        other: Vec<Num>,
    },
    Sketch(Sketch),
}

impl Values {
    pub(crate) fn new(sketched: bool) -> Values {
        if sketched { Values::Sketch(Sketch::default()) } else { Values::Exact { short: Vec::new(), other: Vec::new() } }
    }

    pub(crate) fn add(&mut self, num: Num) {
        match (num.short_float(), self) {
            (Some(float), values) => values.add_float(float),
            (None, Values::Exact { other, .. }) => other.push(num),
            (None, Values::Sketch(sketch)) => sketch.add(num.to_f64(), 1),
        }
    }

    /// Adds the number that a float's shortest text means.
    pub(crate) fn add_float(&mut self, value: f64) {
        match self {
            Values::Exact { short, .. } => short.push(value + 0.0), // no zero is negative
            Values::Sketch(sketch) => sketch.add(value, 1),
        }
    }

    pub(crate) fn sketch(&mut self) {
        let Values::Exact { short, other } = self else { return };
        let mut sketch = Sketch::default();
        short.iter().for_each(|value| sketch.add(*value, 1));
        other.iter().for_each(|n| sketch.add(n.to_f64(), 1));
        *self = Values::Sketch(sketch);
    }

    pub(crate) fn merge(&mut self, other: Values) {
        match (&mut *self, other) {
            (Values::Exact { short, other }, Values::Exact { short: more, other: more_other }) => {
                if short.is_empty() {
                    *short = more;
                } else {
                    short.extend(more);
                }
                other.extend(more_other);
            }
            (Values::Sketch(sketch), mut other) => {
                other.sketch();
                if let Values::Sketch(more) = &other {
                    sketch.merge(more);
                }
            }
            (_, other) => {
                self.sketch();
                self.merge(other);
            }
        }
    }

    /// Bytes; the same for the same values in any order.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Values::Exact { short, other } => short.len() * size_of::<f64>() + other.len() * size_of::<Num>(),
            Values::Sketch(sketch) => (sketch.positive.counts.len() + sketch.negative.counts.len()) * size_of::<u64>(),
        }
    }

    /// The value that `thousandths` of a thousand are not above; `None` without values.
    pub(crate) fn at(&self, thousandths: u16) -> Option<Num> {
        match self {
            Values::Exact { short, other } => {
                let rank = rank((short.len() + other.len()) as u64, thousandths)? as usize;
                if other.is_empty() {
                    let mut values = short.clone();
                    let (_, value, _) = values.select_nth_unstable_by(rank, f64::total_cmp);
                    return Some(Num::of_float(*value));
                }
                let mut values: Vec<Num> = short.iter().map(|value| Num::of_float(*value)).chain(other.iter().copied()).collect();
                let (_, value, _) = values.select_nth_unstable_by(rank, |a, b| a.compare(*b));
                Some(*value)
            }
            Values::Sketch(sketch) => sketch.at(thousandths).map(Num::Rough),
        }
    }
}

/// From 0; nearest rank.
fn rank(count: u64, thousandths: u16) -> Option<u64> {
    let rank = (u128::from(count) * u128::from(thousandths)).div_ceil(1000) as u64;
    (count > 0).then(|| rank.clamp(1, count) - 1)
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Sketch {
    positive: Buckets,
    negative: Buckets,
    zeros: u64,
}

/// Counts of buckets in a row; the first is number `first`.
#[derive(Clone, Debug, Default)]
struct Buckets {
    first: i32,
    counts: Vec<u64>,
}

/// Bucket i holds values from gamma^(i-1) to gamma^i.
fn gamma() -> f64 {
    (1.0 + ERROR) / (1.0 - ERROR)
}

impl Sketch {
    fn add(&mut self, value: f64, count: u64) {
        let bucket = (value.abs().ln() / gamma().ln()).ceil();
        if value == 0.0 {
            self.zeros += count;
        } else if value > 0.0 {
            self.positive.add(bucket as i32, count);
        } else {
            self.negative.add(bucket as i32, count);
        }
    }

    fn merge(&mut self, other: &Sketch) {
        self.zeros += other.zeros;
        for (own, other) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            for (i, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                own.add(other.first + i as i32, *count);
            }
        }
    }

    fn at(&self, thousandths: u16) -> Option<f64> {
        let total = |buckets: &Buckets| buckets.counts.iter().sum::<u64>();
        let mut left = rank(total(&self.negative) + self.zeros + total(&self.positive), thousandths)?;
        let value = |bucket: i32| (2.0 * (f64::from(bucket) * gamma().ln()).exp() / (gamma() + 1.0)).min(f64::MAX);
        for (i, count) in self.negative.counts.iter().enumerate().rev() {
            if left < *count {
                return Some(-value(self.negative.first + i as i32));
            }
            left -= count;
        }
        if left < self.zeros {
            return Some(0.0);
        }
        left -= self.zeros;
        for (i, count) in self.positive.counts.iter().enumerate() {
            if left < *count {
                return Some(value(self.positive.first + i as i32));
            }
            left -= count;
        }
        None
    }
}

impl Buckets {
    fn add(&mut self, bucket: i32, count: u64) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let missing = (self.first - bucket) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = bucket;
        }
        let at = (bucket - self.first) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&str]) -> Values {
        let mut values = Values::new(false);
        texts.iter().filter_map(|text| Num::parse(text.as_bytes())).for_each(|num| values.add(num));
        values
    }

    #[test]
    fn the_nearest_rank_is_taken() {
        let texts: Vec<String> = (1..=10).map(|n| n.to_string()).collect();
        let values = values(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for (thousandths, want) in [(0, "1"), (100, "1"), (101, "2"), (500, "5"), (900, "9"), (990, "10"), (1000, "10")] {
            assert_eq!(values.at(thousandths).unwrap().cell().to_string(), want, "{thousandths}");
        }
        assert!(Values::new(false).at(500).is_none());
        assert!(Values::new(true).at(500).is_none());
    }

    #[test]
    fn fractions_and_large_numbers_are_exact() {
        let values = values(&["0.5", "12", "none", "-1.25", "99999999999999999999", "1e300", ""]);
        let all: Vec<String> = [200, 400, 600, 800, 1000].map(|p| values.at(p).unwrap().cell().to_string()).to_vec();
        assert_eq!(all, ["-1.25", "0.5", "12", "99999999999999999999", "1e300"]);
    }

    #[test]
    fn a_sketch_is_one_percent_off_at_most() {
        let mut state = 7u64;
        let mut texts = Vec::new();
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let digits = state >> 60;
            texts.push(format!("{}{}", if state >> 40 & 7 == 0 { "-" } else { "" }, (state >> 20) % 10u64.pow(digits as u32 % 12)));
        }
        let exact = values(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut whole = exact.clone();
        whole.sketch();
        let mut split = Values::new(true);
        for text in texts.iter().rev() {
            split.add(Num::parse(text.as_bytes()).unwrap());
        }
        for thousandths in [0, 1, 50, 500, 900, 990, 999, 1000] {
            let (want, got) = (exact.at(thousandths).unwrap().to_f64(), whole.at(thousandths).unwrap().to_f64());
            assert!((want - got).abs() <= want.abs() * 0.0101, "{thousandths}: {want} {got}");
            assert_eq!(split.at(thousandths), whole.at(thousandths));
            assert_eq!(split.cost(), whole.cost());
        }
    }

    #[test]
    fn numbers_at_the_edge_of_floats_fit_a_sketch() {
        let mut values = values(&["1e400", "-1e400", "1e-400", "5e-324", "0"]);
        values.sketch();
        assert!(values.cost() < 2_000_000);
        assert!(values.at(1000).unwrap().to_f64() > 1e308);
    }
}
